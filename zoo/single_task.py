"""Single task: one separate network per task."""

from collections.abc import Sequence

from torch import Tensor, nn

from zoo.layers import MLP, TASKS, Network, Tower, make_encoders


class SingleTask(Network):
    """Separate tables, bottom and tower for each task; the reference for every form of sharing.

        y_t = tower_t(bottom_t(x^t))        x^t = encoder_t(user, item)

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
        self.encoders = make_encoders(len(tasks), num_users, num_items, embedding_dim)
        self.bottoms = nn.ModuleList(MLP(encoder.width, expert_units) for encoder in self.encoders)
        self.towers = nn.ModuleList(Tower(bottom.width, tower_units) for bottom in self.bottoms)

    def _represent(self, user_ids: Tensor, item_ids: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
        pairs = zip(self.encoders, self.bottoms, strict=True)
        return [bottom(encoder(user_ids, item_ids)) for encoder, bottom in pairs], {}  # T times (B, h)
