"""Networks trained by gradient as the ranking block of a net, alone or mixed with another block."""

from collections.abc import Sequence

import torch
from torch import nn

from config.multitask import MultiTaskConfig
from dataset import Data
from models import MultiTaskNet
from multitask.closed_form import RankingBlock
from multitask.recipe import build_networks

MIX = 0.5  # weight of the networks' standardized scores; the rest is the other block's


def train_networks(config: MultiTaskConfig, data: Data) -> list[MultiTaskNet]:
    """Train an ensemble on all of data.train, in memory and on the CPU."""
    cpu = torch.device("cpu")
    built = build_networks(config, data, cpu)
    for own, training in built:
        stepper = training.make_stepper(training.model, training.task, own, cpu)
        for epoch in range(1, config.epochs + 1):
            stepper.run_epoch(epoch, [], lambda: False)
    return [training.model for _, training in built]


@torch.no_grad()
def block_of(networks: Sequence[nn.Module]) -> RankingBlock:
    """The mean ranking score of networks with shared tables, in float64."""
    count = len(networks)
    return RankingBlock(
        users=torch.cat([network.U.weight.cpu().double() for network in networks], dim=1),
        items=torch.cat([network.Q.weight.cpu().double() for network in networks], dim=1) / count,
        item_bias=sum(network.B.weight.cpu().double()[:, 0] for network in networks) / count,
    )


def mix_blocks(block: RankingBlock, networks: RankingBlock) -> RankingBlock:
    """The weighted sum of two blocks whose scores are standardized per user; those of `block` are already.

    The mean of a user's scores moves all items alike and is left out. The bias of the networks is divided by the
    spread of each user too, so that it becomes a column of the tables.
    """
    scores = networks.users @ networks.items.T + networks.item_bias
    spread = scores.std(dim=1, correction=0, keepdim=True).clamp(min=1e-9)
    users = [(1 - MIX) * block.users, MIX * networks.users / spread, MIX / spread]
    items = [block.items, networks.items, networks.item_bias.unsqueeze(1)]
    return RankingBlock(torch.cat(users, dim=1), torch.cat(items, dim=1), (1 - MIX) * block.item_bias)
