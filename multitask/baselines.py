"""Baselines: rankings and ratings without a network, which the multi-task net has to beat.

    popularity           ranks by the number of training ratings of each item; predicts the mean rating
    user + item biases   predicts mean + user bias + item bias; no ranking
    EASE, lambda 200     ranks by a linear regression on the user's other items; no ratings

They are fitted on the training rows alone, answer like a network and are evaluated by the same code.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from dataset import CHUNK_ROWS, Interactions
from evaluation import RATING_METRICS, ranges, rank_test_items, ranking_metrics
from multitask.ease import ease_scores, fit_ease

# Ratings equal to the mean that are added to those of every user and item, and the number of sweeps: the defaults of
# BaselineOnly in Surprise (Hug 2020). Koren 2010 gives 10 and 25 for the longer rows of Netflix.
USER_DAMPING, ITEM_DAMPING = 15.0, 10.0
SWEEPS = 10
EASE_RIDGE = 200.0
EASE_NAME = f"EASE, lambda {EASE_RIDGE:g}"
MAX_EASE_ITEMS = 10_000  # bounds the item-item matrix to 800 MB while it is computed


class Baseline(nn.Module):
    """Predictions without a network. One that does not rank or does not rate has no metrics of that kind."""

    ranks: ClassVar[bool] = True
    rates: ClassVar[bool] = True

    def metrics(self, test: Interactions, seen: Interactions) -> dict[str, float]:
        """The metrics of what it does, as by `evaluation.evaluate`."""
        found = ranking_metrics(rank_test_items(self, test, seen)) if self.ranks else {}
        if self.rates:
            found |= {name: metric.function(self, test) for name, metric in RATING_METRICS.items()}
        return found


class Popularity(Baseline):
    """Ranks by the number of training ratings of each item and predicts the mean training rating."""

    counts: Tensor
    mean: Tensor

    def __init__(self, train: Interactions) -> None:
        super().__init__()
        self.register_buffer("counts", train.item_counts.float())
        self.register_buffer("mean", train.ratings.mean())

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, Tensor]:
        return self.counts[item_ids], self.mean.expand(len(item_ids))

    def score_items(self, user_ids: Tensor) -> Tensor:
        return self.counts.repeat(len(user_ids), 1)


class Biases(Baseline):
    """Predicts r_ui = mean + b_u + b_i, with b_u and b_i by `fit_biases`.

    Its order of items is that of the predicted ratings, which says little about what a user watches: it counts as no
    ranking.
    """

    ranks = False
    mean: Tensor
    users: Tensor
    items: Tensor

    def __init__(self, train: Interactions) -> None:
        super().__init__()
        for name, values in zip(("mean", "users", "items"), fit_biases(train), strict=True):
            self.register_buffer(name, values.float())

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, Tensor]:
        ratings = self.mean + self.users[user_ids] + self.items[item_ids]
        return ratings, ratings


class Ease(Baseline):
    """Scores X B of Steck 2019 (EASE), with the ridge EASE_RIDGE and every rating counting the same.

    Holds X B where there are fewer users than items and B otherwise, so that no table is larger than B. Has no ratings:
    they are nan.
    """

    rates = False
    table: Tensor  # (num_users, num_items) or (num_items, num_items)
    items: Tensor | None
    offsets: Tensor

    def __init__(self, train: Interactions) -> None:
        super().__init__()
        is_wide = train.num_users < train.num_items
        fit = ease_scores if is_wide else fit_ease
        self.register_buffer("table", fit(train, EASE_RIDGE, user_exponent=0.0, dropout=0.0).float())
        self.register_buffer("items", None if is_wide else train.items_by_user)
        self.register_buffer("offsets", None if is_wide else train.offsets)

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, Tensor]:
        users, rows = torch.unique(user_ids, return_inverse=True)
        scores = self.score_items(users)[rows, item_ids]
        return scores, torch.full_like(scores, torch.nan)

    def score_items(self, user_ids: Tensor) -> Tensor:
        if self.items is None:
            return self.table[user_ids]
        starts, ends = self.offsets[user_ids], self.offsets[user_ids + 1]
        rows = torch.arange(len(user_ids), device=user_ids.device).repeat_interleave(ends - starts)
        watched = self.table.new_zeros(len(user_ids), len(self.table))
        watched[rows, self.items[ranges(starts, ends)].long()] = 1.0
        return watched @ self.table  # a dense product is several times as fast as sums over the watched items


def make_baselines(train: Interactions) -> dict[str, Baseline]:
    """The baselines by name, on the device of the rows. EASE is left out where `ease_note` says so."""
    rows = train.to(torch.device("cpu"))  # not every device has float64
    baselines: dict[str, Baseline] = {"popularity": Popularity(rows), "user + item biases": Biases(rows)}
    if ease_note(train) is None:
        baselines[EASE_NAME] = Ease(rows)
    return {name: baseline.to(train.item_ids.device) for name, baseline in baselines.items()}


def ease_note(train: Interactions) -> str | None:
    """Why EASE is left out; None where it is not."""
    if train.num_items <= MAX_EASE_ITEMS:
        return None
    return (
        f"EASE is left out of the baselines: it needs a matrix of {train.num_items:,} x {train.num_items:,} items and "
        f"is computed for at most {MAX_EASE_ITEMS:,}"
    )


def fit_biases(train: Interactions) -> tuple[Tensor, Tensor, Tensor]:
    """Damped biases, by SWEEPS sweeps of the two closed forms of Koren 2010 ("Factor in the neighbors", section 2.1).

        b_i = sum_u (r_ui - mean - b_u) / (ITEM_DAMPING + n_i)
        b_u = sum_i (r_ui - mean - b_i) / (USER_DAMPING + n_u)

    Koren makes one sweep. Several lead to the minimum of the squared error with the dampings as ridge penalties.

    Returns:
        mean (), user biases (num_users,) and item biases (num_items,), float64. A row without ratings has the bias 0.
    """
    chunks = [train[start : start + CHUNK_ROWS] for start in range(0, len(train), CHUNK_ROWS)]
    mean = train.ratings.double().mean()
    user_weights = USER_DAMPING + train.offsets.diff().double()
    item_weights = ITEM_DAMPING + train.item_counts.double()
    users, items = torch.zeros_like(user_weights), torch.zeros_like(item_weights)
    for _ in range(SWEEPS):
        sums = torch.zeros_like(items)
        for rows in chunks:
            deviations = rows.ratings.double() - mean - users[rows.user_ids]
            sums += torch.bincount(rows.item_ids, deviations, train.num_items)
        items = sums / item_weights
        sums = torch.zeros_like(users)
        for rows in chunks:
            deviations = rows.ratings.double() - mean - items[rows.item_ids]
            sums += torch.bincount(rows.user_ids, deviations, train.num_users)
        users = sums / user_weights
    return mean, users, items
