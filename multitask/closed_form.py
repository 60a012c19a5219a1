"""One checkpoint for a ranking and a rating that were fitted apart: both fill the shared tables of a MultiTaskNet.

        columns   ranking   user bias   item bias   rating
        U         u         x_0         0           x
        Q         q         0           y_0         y * SCALE
        f_theta reads       U           Q           U * Q, with weight 1 / SCALE

p = U . Q + b adds all columns up, so the item columns of the rating are scaled until they move p by less than its
rounding matters; in r the weights of f_theta undo that. The columns of the biases face zeros.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models import MultiTaskNet
from multitask.bayesian import Factorization
from multitask.dense_layers import dense_layers

SCALE = 2.0**-16  # a power of two, so that undoing it is exact
LARGEST_PRODUCT = 64.0  # of x . y, in rating points, with SCALE: p moves by at most their product, 0.001
NUM_BIASES = 2


@dataclass(frozen=True, eq=False)
class RankingBlock:
    """Ranking scores users . items + item_bias: (num_users, d), (num_items, d), (num_items,); see `ease.cut`."""

    users: Tensor
    items: Tensor
    item_bias: Tensor


def width_of(ranking: RankingBlock, rating: Factorization) -> int:
    """The embedding width of a network that holds both blocks."""
    return ranking.users.shape[1] + NUM_BIASES + rating.users.shape[1]


def scale_of(rating: Factorization) -> float:
    """SCALE, or a lower power of two where the ratings are so large that x . y may exceed LARGEST_PRODUCT."""
    largest = (rating.users.norm(dim=1).max() * rating.items.norm(dim=1).max()).item()
    return SCALE * 2.0 ** -max(0, math.ceil(math.log2(max(largest, 1.0) / LARGEST_PRODUCT)))


@torch.no_grad()
def assemble(ranking: RankingBlock, rating: Factorization, network: MultiTaskNet) -> None:
    """Overwrite a network so that p is the score of `ranking` and r that of `rating`, up to rounding.

    Args:
        network: with shared tables of width `width_of(ranking, rating)` and one linear layer as f_theta.

    Raises:
        ValueError: the network does not have this form.
    """
    width = width_of(ranking, rating)
    layers = dense_layers(network)
    if not network.embedding_sharing or network.embedding_dim != width or len(layers) != 1:
        raise ValueError(
            f"the blocks need shared tables of width {width} and one linear layer as f_theta; this network has width "
            f"{network.embedding_dim}, {len(layers)} layers, embedding_sharing={network.embedding_sharing}"
        )
    zeros = torch.zeros_like
    user_bias, item_bias = rating.user_bias.unsqueeze(1), rating.item_bias.unsqueeze(1)
    scale = scale_of(rating)
    network.U.weight.copy_(torch.cat([ranking.users, user_bias, zeros(user_bias), rating.users], dim=1))
    network.Q.weight.copy_(torch.cat([ranking.items, zeros(item_bias), item_bias, scale * rating.items], dim=1))
    network.B.weight.copy_(ranking.item_bias.unsqueeze(1))

    layer, place = layers[0], ranking.users.shape[1]
    layer.bias.fill_(rating.mean)
    for_user, for_item, for_product = layer.weight.zero_()[0].chunk(3)
    for_user[place] = 1.0
    for_item[place + 1] = 1.0
    for_product[place + NUM_BIASES :] = 1 / scale


@torch.no_grad()
def block_of(networks: Sequence[MultiTaskNet]) -> RankingBlock:
    """The mean ranking score of networks with shared tables, in float64."""
    count = len(networks)
    return RankingBlock(
        users=torch.cat([network.U.weight.cpu().double() for network in networks], dim=1),
        items=torch.cat([network.Q.weight.cpu().double() for network in networks], dim=1) / count,
        item_bias=torch.stack([network.B.weight.cpu().double()[:, 0] for network in networks]).mean(dim=0),
    )


@torch.no_grad()
def mix(main: RankingBlock, other: RankingBlock, fraction: float) -> RankingBlock:
    """A block that ranks by (1 - fraction) z + fraction z', the scores of two blocks standardized for each user.

    An order does not change when all scores of a user are multiplied, so only the scores of `other` are scaled, by a
    factor for each user. Its item bias, which needs this factor too, moves into a further column.

    Args:
        fraction: of `other`, from 0 to 1, without 1.

    Returns:
        Tables whose width is that of both blocks and one more.
    """
    factor = fraction / (1 - fraction) * _spread(main) / _spread(other).clamp(min=torch.finfo(torch.double).tiny)
    return RankingBlock(
        users=torch.cat([main.users, factor * other.users, factor], dim=1),
        items=torch.cat([main.items, other.items, other.item_bias.unsqueeze(1)], dim=1),
        item_bias=main.item_bias,
    )


def _spread(block: RankingBlock) -> Tensor:
    """Standard deviation of each user's scores over the items: (num_users, 1)."""
    items = torch.cat([block.items, block.item_bias.unsqueeze(1)], dim=1)
    users = torch.cat([block.users, torch.ones_like(block.users[:, :1])], dim=1)
    items = items - items.mean(dim=0)
    return ((users @ (items.T @ items)) * users).sum(dim=1, keepdim=True).clamp(min=0).div(len(items)).sqrt()
