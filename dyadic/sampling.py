"""Dyads as tensors, and the draw of triples."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from config.errors import UserError
from dyadic.data import DyadicData


@dataclass(frozen=True, eq=False)
class Inputs:
    """D dyads as tensors.

    static: (D, num_static) float64: the unscaled statistics, and the context standardized on the training dyads.
    user_ids, item_ids: (D,) row numbers.
    signs: (D, 2) float64, -1 or +1: bookmarked, replied.
    """

    static: Tensor
    user_ids: Tensor
    item_ids: Tensor
    signs: Tensor

    def to(self, device: torch.device | str) -> "Inputs":
        return Inputs(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


@dataclass(frozen=True, eq=False)
class Sampler:
    """The training dyads of U', the users with both clicked and ignored dyads.

    rows: dyads sorted by user, each user's clicked dyads first. User e of U' has the num_clicked[e] + num_ignored[e]
        rows from starts[e] on.
    """

    rows: np.ndarray
    starts: np.ndarray
    num_clicked: np.ndarray
    num_ignored: np.ndarray

    @property
    def formula(self) -> int:
        """The paper's N = |U'| min_u |I_u^+| min_u |I_u^-|. One user with a single click can make it small."""
        return len(self.starts) * int(self.num_clicked.min()) * int(self.num_ignored.min())

    def draw(self, count: int, *key: int) -> np.ndarray:
        """Draw triples: u uniform in U', then i from the clicked and j from the ignored dyads of u, both uniform.

        All users have equal weight regardless of their number of clicks, so the expected loss is the paper's objective.

        Args:
            count: number of triples.
            key: usually (seed, epoch); the draw depends on nothing else.

        Returns:
            (count, 2) dyads (u, i) and (u, j).
        """
        random = np.random.default_rng(key)
        user = random.integers(len(self.starts), size=count)
        clicked = random.integers(self.num_clicked[user])
        ignored = self.num_clicked[user] + random.integers(self.num_ignored[user])
        return self.rows[self.starts[user, None] + np.column_stack([clicked, ignored])]


def prepare(data: DyadicData) -> Inputs:
    """Tensors of all dyads. Context is scaled by the training dyads; columns that are constant there become 0.

    Raises:
        ValueError: the features have not been added.
    """
    if data.features is None:
        raise ValueError("add_features first: the dyads have no features")
    seen = data.context[data.train]
    spread = seen.std(0)
    context = np.where(spread > 0, (data.context - seen.mean(0)) / np.where(spread > 0, spread, 1), 0.0)
    return Inputs(
        torch.from_numpy(np.hstack([data.features, context])),
        torch.from_numpy(data.user_ids.astype(np.int64)),
        torch.from_numpy(data.item_ids.astype(np.int64)),
        torch.from_numpy(2.0 * data.labels[:, 1:] - 1),
    )


def make_sampler(data: DyadicData) -> Sampler:
    """Prepare the training dyads for the draw of triples.

    Raises:
        UserError: no user has both a clicked and an ignored training dyad.
    """
    users, clicked = data.user_ids[data.train], data.labels[data.train, 0] == 1
    num_clicked = np.bincount(users[clicked], minlength=data.num_users)
    num_ignored = np.bincount(users[~clicked], minlength=data.num_users)
    eligible = (num_clicked > 0) & (num_ignored > 0)
    if not eligible.any():
        raise UserError(
            f"no user of {data.name} has both a clicked and an ignored training dyad, so there is nothing to rank; "
            "choose another mapping or more data"
        )
    kept = np.flatnonzero(eligible[users])
    order = kept[np.lexsort((~clicked[kept], users[kept]))]
    counts = (num_clicked + num_ignored)[eligible]
    return Sampler(data.train[order], np.cumsum(counts) - counts, num_clicked[eligible], num_ignored[eligible])
