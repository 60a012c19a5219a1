"""The network of the dyadic learner: three linear scores and one from embeddings. Letters as in dyadic.updates."""

import numpy as np
import torch
from torch import Tensor, nn

from config.dyadic import TASKS, LearnerOptions
from dyadic.data import DyadicData
from dyadic.sampling import Inputs, Sampler

INIT_STD = 0.1  # standard deviation of normally drawn parameters
CHUNK_DYADS = 2**16


class DyadicNet(nn.Module):
    """The parameters of all four tasks, float64: w1, w2, w3 (n,), U (users, d), I (items, d).

    Float64, because a step with eta = 1e-6 changes a float32 weight only by a few units in the last place.
    """

    def __init__(self, num_static: int, num_users: int, num_items: int, d: int = 30) -> None:
        super().__init__()
        n = num_static + 2 * d
        self.num_static, self.d = num_static, d
        self.w1, self.w2, self.w3 = (nn.Parameter(torch.zeros(n, dtype=torch.float64)) for _ in range(3))
        self.U = nn.Parameter(torch.zeros(num_users, d, dtype=torch.float64))
        self.I = nn.Parameter(torch.zeros(num_items, d, dtype=torch.float64))

    def forward(self, static: Tensor, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        """Logits of B dyads for the four tasks: (B, num_static), (B,), (B,) -> (B, 4)."""
        user, item = self.U[user_ids], self.I[item_ids]
        x = torch.cat([static, user, item], dim=1)  # (B, n)
        return torch.cat([x @ self.weights.T, (user * item).sum(1, keepdim=True)], dim=1)

    @property
    def weights(self) -> Tensor:
        """(3, n) w1, w2 and w3."""
        return torch.stack([self.w1, self.w2, self.w3])


def build_network(data: DyadicData, sampler: Sampler, options: LearnerOptions) -> DyadicNet:
    """A new network, initialized from options.seed.

    The embeddings of users and items that occur in no triple are 0, because training would never change them.
    """
    num_static = data.features.shape[1] + data.context.shape[1]
    net = DyadicNet(num_static, data.num_users, data.num_items, options.embedding_dim)
    random = np.random.default_rng([options.seed, 0])
    tables = [net.U, net.I] if options.init == "zero" else [net.w1, net.w2, net.w3, net.U, net.I]
    with torch.no_grad():
        for table in tables:
            shape = tuple(table.shape)
            values = random.random(shape) if options.init == "uniform" else random.normal(0, INIT_STD, shape)
            table.copy_(torch.from_numpy(values))
        for table, ids in zip((net.U, net.I), untouched(data, sampler), strict=True):
            table[ids] = 0
    return net


def untouched(data: DyadicData, sampler: Sampler) -> tuple[np.ndarray, np.ndarray]:
    """Ids of the users and of the items that occur in no triple."""
    users = np.setdiff1d(np.arange(data.num_users), data.user_ids[sampler.rows])
    return users, np.setdiff1d(np.arange(data.num_items), data.item_ids[sampler.rows])


def scores(net: DyadicNet, inputs: Inputs, rows: np.ndarray, options: LearnerOptions) -> dict[str, np.ndarray]:
    """Logits of the given dyads for every learned task: {task: (len(rows),)}."""
    with torch.no_grad():
        blocks = torch.from_numpy(rows).to(net.U.device).split(CHUNK_DYADS)
        parts = [net(inputs.static[b], inputs.user_ids[b], inputs.item_ids[b]).cpu() for b in blocks]
    table = torch.cat(parts).numpy()
    return {task: table[:, TASKS.index(task)] for task in options.active}
