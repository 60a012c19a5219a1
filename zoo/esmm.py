"""ESMM: the probability of a chain of labels as a product of conditional ones (Ma et al., SIGIR 2018)."""

from collections.abc import Sequence

from torch import Tensor

from losses import chain_logits
from zoo.layers import TASKS, Network, PairEncoder, make_towers


class ESMM(Network):
    """Entire-space multi-task model: one tower per factor on shared tables (Ma et al. 2018, eq. 1).

        P(view, like) = P(view) P(like | view),  P(view) = sigmoid(tower_1(x)),  P(like | view) = sigmoid(tower_2(x))

    Trained on all rows, with labels that mean "this label and all before it". The factor P(like | view) has no loss
    of its own and is learned through the product. A like without a view cannot be represented.

    Differs from the paper: the product is formed from logits (`losses.joint_logit`), which neither underflows nor
    loses its gradient; the input is [u, q, u * q], as in every network here, not summed feature embeddings.

    Args:
        num_users, num_items, embedding_dim, tasks, tower_units: see `zoo.layers`; there are no experts.
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
        """Logits of P(task and all before it): (B,), (B,) -> {task: (B,)}."""
        return chain_logits(self.conditional_logits(user_ids, item_ids))

    def conditional_logits(self, user_ids: Tensor, item_ids: Tensor) -> dict[str, Tensor]:
        """Logits of P(task | the task before it), the outputs of the towers: (B,), (B,) -> {task: (B,)}."""
        return super().forward(user_ids, item_ids)

    def _represent(self, user_ids: Tensor, item_ids: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
        return [self.encoder(user_ids, item_ids)] * len(self.tasks), {}  # T times the same (B, D)
