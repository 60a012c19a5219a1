"""Shared bottom: hard parameter sharing."""

from collections.abc import Sequence

from torch import Tensor

from zoo.layers import MLP, TASKS, Network, PairEncoder, make_towers


class SharedBottom(Network):
    """One encoder and one bottom for all tasks, one tower per task (Caruana 1997, hard parameter sharing).

        y_t = tower_t(bottom(x))

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
        self.bottom = MLP(self.encoder.width, expert_units)
        self.towers = make_towers(self.bottom.width, tower_units, len(tasks))

    def _represent(self, user_ids: Tensor, item_ids: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
        return [self.bottom(self.encoder(user_ids, item_ids))] * len(self.tasks), {}  # T times the same (B, h)
