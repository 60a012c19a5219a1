"""Networks for tasks that follow one another: what is liked was viewed before.

    ESMM    multiplies the probabilities of the steps                      Ma et al., SIGIR 2018
    AITM    hands what it knows of a step to the next by attention         Xi et al., KDD 2021

Both are trained on all rows, with labels that mean "this step and all before it"; a like without a view is not a label
they can learn.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from losses import chain_logits
from zoo.layers import MLP, Network, PairEncoder, make_towers
from zoo.mixtures import TASKS


class ESMM(Network):
    """Entire-space multi-task model: P(view, like) = P(view) P(like | view), one tower a factor on shared tables.

    The like's factor has no loss of its own: it is learnt through the product, on all rows. The product is formed from
    logits (`losses.joint_logit`), so that it neither underflows nor loses its gradient. P(like | view) is what
    `conditional_logits` gives.

    Differs from the paper in its input [u, q, u * q] (there: summed feature embeddings), the same as for all networks
    here.
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        embedding_dim: int = 32,
        tasks: Sequence[str] = TASKS,
        tower_units: Sequence[int] = (64, 32),
    ) -> None:
        super().__init__(tasks)
        self.encoder = PairEncoder(num_users, num_items, embedding_dim)
        self.towers = make_towers(self.encoder.width, tower_units, len(tasks))

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> dict[str, Tensor]:
        """Logits of P(task and all before it): {task: (B,)}."""
        return chain_logits(self.conditional_logits(user_ids, item_ids))

    def conditional_logits(self, user_ids: Tensor, item_ids: Tensor) -> dict[str, Tensor]:
        """Logits of P(task | the task before it), straight from the towers: {task: (B,)}."""
        return super().forward(user_ids, item_ids)

    def _represent(self, user_ids: Tensor, item_ids: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
        return [self.encoder(user_ids, item_ids)] * len(self.tasks), {}


class AITM(Network):
    """Adaptive information transfer: z_1 = q_1, z_t = AIT(g_t(z_{t-1}), q_t); q_t = bottom_t(x), g_t is dense + ReLU.

    AIT weighs its two inputs u by softmax(<h2(u), h3(u)> / sqrt(h)) and adds up their h1(u): each scores itself, by its
    own query and key. The three maps have no bias and serve all steps, as in the authors' code; towers stand between
    z_t and the logit, which the paper's "MLP(z_t)" allows. Gradients flow one way: a later step's loss reaches the
    bottom of an earlier one, never the reverse.

    The paper's loss has a further term, `losses.calibrator`; it works for any network and is not part of this class.
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
        x = self.encoder(user_ids, item_ids)
        first, *later = (bottom(x) for bottom in self.bottoms)
        chain, weights = [first], {}
        for task, own, transfer in zip(self.tasks[1:], later, self.transfers, strict=True):
            z, weights[task] = self.attention(transfer(chain[-1]), own)
            chain.append(z)
        return chain, weights


class InformationTransfer(nn.Module):
    """AIT: (what comes, what is there), (B, h) each -> (B, h), and the weights of the two, (B, 2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.value, self.query, self.key = (nn.Linear(width, width, bias=False) for _ in range(3))

    def forward(self, transferred: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        candidates = torch.stack([transferred, own], dim=1)  # (B, 2, h)
        affinity = (self.query(candidates) * self.key(candidates)).sum(dim=2) / math.sqrt(own.shape[1])
        weights = affinity.softmax(dim=1)
        return (weights.unsqueeze(2) * self.value(candidates)).sum(dim=1), weights
