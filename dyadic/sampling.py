"""Dyads as the network sees them, and the draw of triples."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from config.errors import UserError
from dyadic.data import DyadicData


@dataclass(frozen=True, eq=False)
class Inputs:
    """D dyads as the network sees them.

    static: (D, num_static) float64: the statistics as they are, and context standardised on the training dyads.
    user_ids, item_ids: (D,).
    signs: (D, 2) float64, bookmark and reply as -1 and +1.
    """

    static: Tensor
    user_ids: Tensor
    item_ids: Tensor
    signs: Tensor

    def to(self, device: torch.device | str) -> "Inputs":
        return Inputs(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


@dataclass(frozen=True, eq=False)
class Sampler:
    """The training dyads of U', the users with a clicked dyad and one that was not: each user's clicked ones first.

    rows: dyads, user by user; the e-th user's begin at starts[e], num_clicked[e] and then num_ignored[e] of them.
    """

    rows: np.ndarray
    starts: np.ndarray
    num_clicked: np.ndarray
    num_ignored: np.ndarray

    @property
    def formula(self) -> int:
        """The paper's N = |U'| min_u |I_u^+| min_u |I_u^-|. A single user with one click can make it tiny."""
        return len(self.starts) * int(self.num_clicked.min()) * int(self.num_ignored.min())

    def draw(self, count: int, *key: int) -> np.ndarray:
        """Draw (count, 2) dyads (u, i) and (u, j): u uniform in U', then i and j uniform among the user's own.

        Users weigh equally, however many clicks they have: the expected loss is the paper's objective. `key`, usually
        (seed, epoch), determines the draw alone.
        """
        random = np.random.default_rng(key)
        user = random.integers(len(self.starts), size=count)
        clicked = random.integers(self.num_clicked[user])
        ignored = self.num_clicked[user] + random.integers(self.num_ignored[user])
        return self.rows[self.starts[user, None] + np.column_stack([clicked, ignored])]


def prepare(data: DyadicData) -> Inputs:
    """Tensors of all dyads; scalers are fitted on the training dyads, columns constant there become 0.

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
    """Sort the training dyads for drawing.

    Raises:
        UserError: no user has both a clicked and an ignored training dyad.
    """
    users, clicked = data.user_ids[data.train], data.labels[data.train, 0] == 1
    num_clicked = np.bincount(users[clicked], minlength=data.num_users)
    num_ignored = np.bincount(users[~clicked], minlength=data.num_users)
    eligible = (num_clicked > 0) & (num_ignored > 0)
    if not eligible.any():
        raise UserError(
            f"no user of {data.name} has both a clicked and a not clicked training dyad: there is nothing to rank; "
            "take another mapping or more data"
        )
    kept = np.flatnonzero(eligible[users])
    order = kept[np.lexsort((~clicked[kept], users[kept]))]
    counts = (num_clicked + num_ignored)[eligible]
    return Sampler(data.train[order], np.cumsum(counts) - counts, num_clicked[eligible], num_ignored[eligible])
