"""AITM: every step of a chain of labels passes information to the next one by attention (Xi et al., KDD 2021)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.layers import MLP, TASKS, Network, PairEncoder, make_towers


class InformationTransfer(nn.Module):
    """AIT module: attention over two vectors, each scored by its own query and key (Xi et al. 2021).

        AIT(p, q) = sum_{u in {p, q}} w_u h1(u)        w = softmax(<h2(u), h3(u)> / sqrt(h))

    h1, h2, h3 are linear maps without a bias, as in the authors' code.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.value, self.query, self.key = (nn.Linear(width, width, bias=False) for _ in range(3))

    def forward(self, transferred: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """Combine p and q, (B, h) each, into (B, h); returns also the weights of the two, (B, 2)."""
        candidates = torch.stack([transferred, own], dim=1)  # (B, 2, h)
        affinity = (self.query(candidates) * self.key(candidates)).sum(dim=2) / math.sqrt(own.shape[1])  # (B, 2)
        weights = affinity.softmax(dim=1)
        return (weights.unsqueeze(2) * self.value(candidates)).sum(dim=1), weights


class AITM(Network):
    """Adaptive information transfer multi-task model (Xi et al. 2021).

        y_t = tower_t(z_t)        z_1 = q_1,  z_t = AIT(g_t(z_{t-1}), q_t)        q_t = bottom_t(x)

    g_t is a dense layer and a ReLU. All steps share one AIT module, as in the authors' code. Towers stand between z_t
    and the logit, which the paper's "MLP(z_t)" allows. A later step's loss also trains the bottoms of earlier steps,
    never the reverse. Labels mean "this label and all before it"; every row is used.

    Differs from the paper: its calibrator loss (`losses.calibrator`) works for any network and is a setting of the
    task; the input is [u, q, u * q], as in every network here.

    Args:
        num_users, num_items, embedding_dim, tasks, expert_units, tower_units: see `zoo.layers`.
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        embedding_dim: int = 32,
        tasks: Sequence[str] = TASKS,
        expert_units: Sequence[int] = (64,),
        tower_units: Sequence[int] = (32,),
    ) -> None:
        super().__init__(tasks)
        self.encoder = PairEncoder(num_users, num_items, embedding_dim)
        self.bottoms = nn.ModuleList(MLP(self.encoder.width, expert_units) for _ in tasks)
        width = self.bottoms[0].width
        self.transfers = nn.ModuleList(MLP(width, [width]) for _ in tasks[1:])
        self.attention = InformationTransfer(width) if len(tasks) > 1 else None
        self.towers = make_towers(width, tower_units, len(tasks))

    def _represent(self, user_ids: Tensor, item_ids: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
        x = self.encoder(user_ids, item_ids)  # (B, D)
        first, *later = (bottom(x) for bottom in self.bottoms)  # (B, h) each
        chain, weights = [first], {}
        for task, own, transfer in zip(self.tasks[1:], later, self.transfers, strict=True):
            z, weights[task] = self.attention(transfer(chain[-1]), own)  # (B, h), (B, 2)
            chain.append(z)
        return chain, weights
