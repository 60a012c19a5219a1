"""TO DO: the methods that raise NotImplementedError. `python grader.py` grades this file.

The multi-task network: predicts which movies a user watches, and how they rate them.

Symbols used throughout:
    B  rows in a batch          d  width of an embedding (`embedding_dim`)
    U  user table (users, d)    Q  item table (items, d)    b  item bias (items, 1)
    p  ranking score: higher for items that the user is more likely to watch, any real number
    r  predicted rating, on the scale of the training ratings

`user_ids` and `item_ids` are row numbers of the tables, not the ids of a data file.
"""

import torch
from torch import Tensor, nn


class ScaledEmbedding(nn.Embedding):
    """An embedding table with initial entries from N(0, 1/d): the *standard deviation* is 1/d, d the width.

    The initial dot products u . q then have standard deviation d ** -1.5, so training starts near p = 0.
    """

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, mean=0.0, std=1.0 / self.embedding_dim)
        self._fill_padding_idx_with_zero()


class ZeroEmbedding(nn.Embedding):
    """An embedding table with initial value zero; used for biases."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)


class MultiTaskNet(nn.Module):
    """Matrix factorization for ranking and an MLP for ratings, on shared or separate embeddings.

        (1)  p_ij = u_i . q_j + b_j
        (4)  r_ij = f_theta([u_i, q_j, u_i * q_j])          * is element-wise; the input has width 3d

    Sources: (1) Koren, Bell and Volinsky 2009, without a bias for each user; (4) He et al. 2017 (NeuMF), whose MLP
    reads [u_i, q_j] without the product.

    Args:
        num_users: rows of the user tables.
        num_items: rows of the item tables.
        embedding_dim: d.
        layer_sizes: input width of every dense layer of f_theta; the first must be 3d. The last layer has one output.
        embedding_sharing: True: one pair (U, Q) for both tasks. False: (U_reg, Q_reg) for the rating and
            (U_fact, Q_fact) for the ranking, so that no table is trained by both tasks.

    Raises:
        ValueError: a size is below 1, or `layer_sizes` does not begin with 3d.
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        embedding_dim: int = 32,
        layer_sizes: list[int] = [96, 64],  # noqa: B006  (read, never changed)
        embedding_sharing: bool = True,
    ) -> None:
        super().__init__()
        for name, size in [("num_users", num_users), ("num_items", num_items), ("embedding_dim", embedding_dim)]:
            if size < 1:
                raise ValueError(f"{name} must be at least 1, not {size}")
        if not layer_sizes or layer_sizes[0] != 3 * embedding_dim:
            raise ValueError(
                f"layer_sizes must begin with 3 * embedding_dim = {3 * embedding_dim}, the width of [u, q, u * q]; "
                f"it is {list(layer_sizes)}"
            )
        self.num_users = num_users
        self.num_items = num_items
        self.embedding_dim = embedding_dim
        self.embedding_sharing = embedding_sharing

        if embedding_sharing:
            self.U, self.Q = self.init_shared_user_and_item_embeddings(num_users, num_items, embedding_dim)
        else:
            self.U_reg, self.Q_reg, self.U_fact, self.Q_fact = self.init_separate_user_and_item_embeddings(
                num_users, num_items, embedding_dim
            )
        self.B = self.init_item_bias(num_users, num_items)
        self.mlp_layers = self.init_mlp_layers(layer_sizes)

    def init_shared_user_and_item_embeddings(
        self, num_users: int, num_items: int, embedding_dim: int
    ) -> tuple[nn.Embedding, nn.Embedding]:
        """Return the tables (U, Q), ScaledEmbeddings of shapes (num_users, d) and (num_items, d).

        Like every init method here, it reads nothing from `self`, so that it can be tested on its own.
        """
        raise NotImplementedError("write init_shared_user_and_item_embeddings")

    def init_separate_user_and_item_embeddings(
        self, num_users: int, num_items: int, embedding_dim: int
    ) -> tuple[nn.Embedding, nn.Embedding, nn.Embedding, nn.Embedding]:
        """Return the tables (U_reg, Q_reg, U_fact, Q_fact), in this order; shapes as for the shared pair."""
        raise NotImplementedError("write init_separate_user_and_item_embeddings")

    def init_item_bias(self, num_users: int, num_items: int) -> nn.Embedding:
        """Return the item bias B, a ZeroEmbedding of shape (num_items, 1)."""
        raise NotImplementedError("write init_item_bias")

    def init_mlp_layers(self, layer_sizes: list[int]) -> nn.ModuleList:
        """Return the layers of f_theta in order of use.

        `layer_sizes` is the input width of each dense layer. Every dense layer except the last is followed by a ReLU,
        and the last has one output: [96, 64] gives Linear(96, 64), ReLU, Linear(64, 1).
        """
        raise NotImplementedError("write init_mlp_layers")

    def forward_with_embedding_sharing(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Both tasks from (U, Q). Arguments and result as in `forward`."""
        raise NotImplementedError("write forward_with_embedding_sharing")

    def forward_without_embedding_sharing(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, Tensor]:
        """p from (U_fact, Q_fact), r from (U_reg, Q_reg). Arguments and result as in `forward`."""
        raise NotImplementedError("write forward_without_embedding_sharing")

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Score B pairs of a user and an item.

        Args:
            user_ids: (B,) integers in [0, num_users).
            item_ids: (B,) integers in [0, num_items).

        Returns:
            predictions: (B,) ranking scores p, eq. (1).
            score: (B,) predicted ratings r, eq. (4), not clipped to the rating scale.
        """
        if self.embedding_sharing:
            return self.forward_with_embedding_sharing(user_ids, item_ids)
        return self.forward_without_embedding_sharing(user_ids, item_ids)

    def score_items(self, user_ids: Tensor) -> Tensor:
        """Ranking scores of all items for B users, as one matrix product: (B,) -> (B, num_items).

        Equal to `forward` on every pair up to rounding, and much faster.
        """
        users, items = (self.U, self.Q) if self.embedding_sharing else (self.U_fact, self.Q_fact)
        return torch.addmm(self.B.weight.T, users(user_ids), items.weight.T)
