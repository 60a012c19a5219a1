"""Observed dyads and their labels: from ratings (mappings N and P) or from columns of 0 and 1.

A *dyad* is a user and an offer (an item) that was displayed to the user or that the user acted on. What was displayed
and ignored is a dyad with three zeros: an observation, not a gap.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from config.errors import UserError
from sources.ids import encode_pairs

LABELS = ("click", "bookmark", "reply")
IM_WEIGHTS = np.array([1, 2, 3])  # one click, one bookmark, one reply; each counts once, however often it happened
MAPPINGS = ("N", "P")
SPLITS = ("random30", "time67")
CONTEXT_GENRES = 11
OCCUPATIONS = (
    "administrator", "artist", "doctor", "educator", "engineer", "entertainment", "executive", "healthcare",
    "homemaker", "lawyer", "librarian", "marketing", "none", "other", "programmer", "retired", "salesman", "scientist",
    "student", "technician", "writer",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class DyadicData:
    """D observed dyads, split into train and test.

    name: of the data set.
    users, items: raw ids, (num_users,) and (num_items,) strings; position = id.
    user_ids, item_ids: (D,) row numbers; no pair occurs twice.
    labels: (D, 3) of 0 and 1: click, bookmark, reply; not required to be nested.
    context: (D, n_ctx) numbers that describe user and offer, unscaled.
    train, test: rows of the dyads, disjoint index arrays.
    features: (D, 15) neighbourhood statistics, further columns for bias slots; None until `features.add_features`.
    ratings: (D,) where the labels were made from ratings.
    displayed: (D,) bool where it is known what was displayed; any other dyad was acted on. For statistics alone.
    label_names: what the three labels are called in the data.
    notes: sentences for the user.
    simulated: made by the program; figures from it say nothing about any real platform.
    item_texts: a title and genres for each item, where they are known.
    """

    name: str
    users: np.ndarray
    items: np.ndarray
    user_ids: np.ndarray
    item_ids: np.ndarray
    labels: np.ndarray
    context: np.ndarray
    train: np.ndarray
    test: np.ndarray
    features: np.ndarray | None = None
    ratings: np.ndarray | None = None
    displayed: np.ndarray | None = None
    label_names: tuple[str, ...] = LABELS
    notes: tuple[str, ...] = ()
    simulated: bool = False
    item_texts: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.labels.shape != (len(self), 3) or not np.isin(self.labels, (0, 1)).all():
            raise ValueError(f"labels must be (D, 3) of 0 and 1 for D = {len(self)} dyads, not {self.labels.shape}")
        for name, column in [("item_ids", self.item_ids), ("context", self.context), ("ratings", self.ratings)]:
            if column is not None and len(column) != len(self):
                raise ValueError(f"{name} has {len(column)} rows for {len(self)} dyads")
        if not np.isfinite(self.context).all():
            raise UserError(f"a context column of {self.name} holds a value that is not finite; fill or drop it")
        if len(np.unique(self.pair_keys)) != len(self):
            raise UserError(f"{self.name} holds a (user, item) pair more than once; keep one row of each")
        if len(np.intersect1d(self.train, self.test)):
            raise ValueError("train and test must not share a dyad")

    def __len__(self) -> int:
        return len(self.user_ids)

    def __repr__(self) -> str:
        label = f"{self.name} (SIMULATED)" if self.simulated else self.name
        rates = ", ".join(f"{n} {r:.3f}" for n, r in zip(self.label_names, self.labels.mean(0), strict=True))
        return (
            f"<{label}: {self.num_users:,} users x {self.num_items:,} items, {len(self):,} dyads "
            f"({len(self.train):,} train, {len(self.test):,} test); {rates}>"
        )

    @property
    def num_users(self) -> int:
        return len(self.users)

    @property
    def num_items(self) -> int:
        return len(self.items)

    @property
    def titles(self) -> list[str]:
        """A title for each item; the raw id where none is known."""
        return [title for title, _ in self.item_texts] or list(self.items)

    @property
    def genres(self) -> list[str]:
        return [genres for _, genres in self.item_texts] or [""] * self.num_items

    @property
    def fingerprint(self) -> str:
        """A sha256 over raw ids, labels, context and the split: equal for equal data."""
        digest = hashlib.sha256("\n".join([*self.users, "", *self.items]).encode())
        for column in (self.user_ids, self.item_ids, self.labels, self.context, self.train, self.test):
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()

    @property
    def pair_keys(self) -> np.ndarray:
        """(D,) int64, one number per (user, item) pair; see `encode_pairs`."""
        return encode_pairs(self.user_ids, self.item_ids, self.num_items)

    @property
    def task_labels(self) -> np.ndarray:
        """(D, 4) the label of each of the four tasks; that of the embedding task is the click."""
        return self.labels[:, [0, 1, 2, 0]]

    @property
    def im(self) -> np.ndarray:
        """(D,) the interaction matrix of the paper at the dyads: 1 click + 2 bookmark + 3 reply, in 0..6."""
        return self.labels.astype(np.int64) @ IM_WEIGHTS


def from_ratings(
    user_ids: np.ndarray,
    item_ids: np.ndarray,
    ratings: np.ndarray,
    users: np.ndarray,
    items: np.ndarray,
    *,
    name: str,
    mapping: str = "N",
    min_user: int = 30,
    min_item: int = 30,
    iterate: bool = True,
    split: str = "random30",
    times: np.ndarray | None = None,
    user_context: np.ndarray | None = None,
    item_context: np.ndarray | None = None,
    item_texts: Sequence[tuple[str, str]] = (),
    seed: int = 0,
    notes: tuple[str, ...] = (),
    simulated: bool = False,
) -> DyadicData:
    """Make dyads of R ratings; a rated item counts as displayed.

    One rating stands behind all three labels, so that the tasks are related by construction: no result on such data
    confirms or refutes the paper.

    Args:
        user_ids, item_ids, ratings: (R,) each; ids are positions in `users` and `items`; ratings of at most 5.
        users, items: raw ids.
        mapping: see `map_ratings`.
        min_user, min_item, iterate: see `keep_frequent`.
        split, times, seed: see `split_dyads`.
        user_context, item_context: (num_users, .) and (num_items, .) numbers; None: no such columns.
        item_texts: (num_items,) a title and genres each; none: raw ids stand for titles.

    Raises:
        UserError: an option is unknown, nothing survives the filter, or a part of the split is empty.
    """
    keep = keep_frequent(user_ids, item_ids, min_user, min_item, iterate)
    ratings, times = ratings[keep].astype(np.float64), None if times is None else times[keep]
    seen_users, user_ids = np.unique(user_ids[keep], return_inverse=True)
    seen_items, item_ids = np.unique(item_ids[keep], return_inverse=True)
    train, test = split_dyads(user_ids, split, times, seed)
    tables = [(user_context, seen_users, user_ids), (item_context, seen_items, item_ids)]
    context = [table[seen][ids] for table, seen, ids in tables if table is not None]
    return DyadicData(
        name=name,
        users=np.asarray(users)[seen_users],
        items=np.asarray(items)[seen_items],
        user_ids=user_ids,
        item_ids=item_ids,
        labels=map_ratings(ratings, user_ids, train, mapping),
        context=np.hstack([np.empty((len(ratings), 0)), *context]),
        train=train,
        test=test,
        ratings=ratings,
        notes=(*notes, "all three labels are functions of one rating: relatedness of the tasks is built in"),
        simulated=simulated,
        item_texts=tuple(item_texts[item] for item in seen_items) if item_texts else (),
    )


def from_table(
    table: pd.DataFrame,
    *,
    name: str,
    user: str = "user",
    item: str = "item",
    labels: Sequence[str] = ("clicked", "bookmarked", "replied"),
    displayed: str | None = None,
    context: Sequence[str] = (),
    time: str | None = None,
    min_user: int = 30,
    min_item: int = 30,
    iterate: bool = False,
    split: str = "random30",
    seed: int = 0,
    notes: tuple[str, ...] = (),
    simulated: bool = False,
) -> DyadicData:
    """Make dyads of a table with a row each.

    Args:
        table: the columns named by the other arguments; further columns are ignored.
        labels: three columns of 0 and 1, in the roles of click, bookmark and reply.
        displayed: a column of 0 and 1; a row that was neither displayed nor acted on is no observation and is left out.
        context: columns of numbers; missing values become 0. Columns that look into the test period do not belong here.
        time: column to sort by, for split="time67".
        min_user, min_item, iterate: see `keep_frequent`.
        split, seed: see `split_dyads`.

    Raises:
        UserError: a column is missing or holds a wrong value, a pair repeats, or nothing is left.
    """
    wanted = [user, item, *labels, *context, *(column for column in (displayed, time) if column)]
    missing = [column for column in wanted if column not in table]
    if missing or len(labels) != 3:
        raise UserError(
            f"{name} needs the columns {', '.join(wanted)}, three of them labels; missing: {', '.join(missing) or '-'}"
        )
    for column in [*labels, *([displayed] if displayed else [])]:
        if not table[column].isin([0, 1]).all():
            raise UserError(f"column {column} of {name} must hold 0 and 1 only")
    if table[[user, item]].isna().any(axis=None):
        raise UserError(f"a row of {name} lacks its {user} or its {item}; remove it")
    for column in context:
        if not pd.api.types.is_numeric_dtype(table[column]):
            raise UserError(f"context column {column} of {name} must hold numbers; encode it first")
    if displayed:
        observed = (table[[displayed, *labels]] == 1).any(axis=1)
        if not observed.all():
            notes = (*notes, f"{(~observed).sum():,} rows of {name} were neither displayed nor acted on: left out")
        table = table[observed]
    keep = keep_frequent(pd.factorize(table[user])[0], pd.factorize(table[item])[0], min_user, min_item, iterate)
    table = table[keep]
    users, user_ids = np.unique(table[user].astype(str).to_numpy(), return_inverse=True)
    items, item_ids = np.unique(table[item].astype(str).to_numpy(), return_inverse=True)
    times = table[time].to_numpy() if time else None
    train, test = split_dyads(user_ids, split, times, seed)
    return DyadicData(
        name=name,
        users=users,
        items=items,
        user_ids=user_ids,
        item_ids=item_ids,
        labels=table[list(labels)].to_numpy(np.int8),
        context=table[list(context)].fillna(0).to_numpy(np.float64),
        train=train,
        test=test,
        displayed=table[displayed].to_numpy() == 1 if displayed else None,
        label_names=tuple(labels),
        notes=notes,
        simulated=simulated,
    )


def keep_frequent(
    user_ids: np.ndarray, item_ids: np.ndarray, min_user: int = 30, min_item: int = 30, iterate: bool = False
) -> np.ndarray:
    """Select the dyads of frequent items and users: (D,) bool.

    One pass, as in the authors' code: drop the items with fewer than `min_item` dyads, then the users with fewer than
    `min_user` of the remaining dyads. Afterwards every user has at least `min_user` dyads, but an item may have fewer
    than `min_item`, because dropping users removes dyads. `iterate=True` repeats the pass until nothing changes, so
    that both bounds hold (the bipartite core).

    Raises:
        UserError: no dyad is left.
    """
    keep = np.ones(len(user_ids), dtype=bool)
    while True:
        before = keep.sum()
        for ids, fewest in [(item_ids, min_item), (user_ids, min_user)]:
            keep &= np.bincount(ids[keep], minlength=ids.max(initial=0) + 1)[ids] >= fewest
        if not iterate or keep.sum() == before:
            break
    if not keep.any():
        raise UserError(
            f"no dyad is left: no item with {min_item} users and user with {min_user} items; "
            "lower --min_user and --min_item"
        )
    return keep


def split_dyads(
    user_ids: np.ndarray, split: str = "random30", times: np.ndarray | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of (train, test), ascending, covering all dyads once.

    "random30" draws 30 % of the dyads for train, as the paper says; "time67" takes the first two thirds of each user's
    dyads by time, as the authors' code does (ties by position).

    Raises:
        UserError: the split is unknown, has no times to go by, or leaves a part empty.
    """
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    if split == "random30":
        order = np.random.default_rng(seed).permutation(len(user_ids))
        is_train = np.zeros(len(user_ids), dtype=bool)
        is_train[order[: round(0.3 * len(order))]] = True
    else:
        if times is None:
            raise UserError("split time67 needs a time for every dyad; give one, or choose random30")
        order = np.lexsort((times, user_ids))
        counts = np.bincount(user_ids)
        place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        is_train = np.empty(len(user_ids), dtype=bool)
        is_train[order] = 3 * place < 2 * np.repeat(counts, counts)
    train, test = np.flatnonzero(is_train), np.flatnonzero(~is_train)
    if not len(train) or not len(test):
        raise UserError(f"{len(user_ids)} dyads are too few for split {split}: the train or the test part is empty")
    return train, test


def map_ratings(ratings: np.ndarray, user_ids: np.ndarray, train: np.ndarray, mapping: str) -> np.ndarray:
    """Labels click, bookmark, reply of ratings on a scale up to 5: (R, 3) int8.

        N ("nested")     r >= 4           |  r = 5 and r - mu >= 1.5  |  r = 5
        P ("personal")   r - mu >= 0.5    |  r = 5                    |  r >= 4 and r - mu >= 1

    mu is the user's mean over the *training* ratings (the mean of all of these where a user has none), so that no
    label depends on another test rating. N nests the labels: bookmark within reply within click. Under P the 5
    of a generous rater can be bookmarked without being clicked, the reversed polarity of the paper's Remark 1.

    Raises:
        UserError: the mapping is unknown, or a rating lies above 5.
    """
    if mapping not in MAPPINGS:
        raise UserError(f"unknown mapping {mapping!r}: choose one of {', '.join(MAPPINGS)}")
    if ratings.max() > 5:
        raise UserError(f"mapping {mapping} reads ratings of at most 5, not {ratings.max():g}; rescale them")
    num_users = user_ids.max() + 1
    sums = np.bincount(user_ids[train], weights=ratings[train], minlength=num_users)
    counts = np.bincount(user_ids[train], minlength=num_users)
    mean = np.where(counts > 0, sums / np.maximum(counts, 1), ratings[train].mean())
    above = ratings - mean[user_ids]
    top = ratings == 5
    if mapping == "N":
        columns = [ratings >= 4, top & (above >= 1.5), top]
    else:
        columns = [above >= 0.5, top, (ratings >= 4) & (above >= 1)]
    return np.column_stack(columns).astype(np.int8)


def item_context(titles: Sequence[str], genres: Sequence[str]) -> np.ndarray:
    """Release year and the most frequent genres of films: (num_items, 1 + CONTEXT_GENRES).

    Args:
        titles: "Name (1995)"; a title without a year gets the mean year.
        genres: joined by "|".
    """
    found = [re.search(r"\((\d{4})\)\s*$", title) for title in titles]
    years = np.array([float(match[1]) if match else np.nan for match in found])
    years = np.where(np.isnan(years), years[~np.isnan(years)].mean() if any(found) else 0.0, years)
    sets = [set(text.split("|")) - {""} for text in genres]
    frequency = Counter(genre for names in sets for genre in names)
    chosen = sorted(frequency, key=lambda genre: (-frequency[genre], genre))[:CONTEXT_GENRES]
    flags = np.zeros((len(sets), CONTEXT_GENRES))
    for column, genre in enumerate(chosen):
        flags[:, column] = [genre in names for names in sets]
    return np.column_stack([years, flags])


def movielens_user_context(path: Path, users: np.ndarray) -> np.ndarray:
    """Age, gender (F = 1), occupation code and first digit of the zip code of each user: (num_users, 4).

    Args:
        path: the file u.user of MovieLens 100K.
        users: raw ids, in the order wanted. A zip code that begins with a letter counts as 0.

    Raises:
        UserError: the file is missing or damaged, or a user is not in it.
    """
    try:
        table = pd.read_csv(path, sep="|", names=["user", "age", "gender", "occupation", "zip"], dtype=str)
        table = table.set_index("user").loc[list(users)]
        codes = [OCCUPATIONS.index(name) for name in table["occupation"]]
        digits = [int(code[0]) if code[0].isdigit() else 0 for code in table["zip"]]
        return np.column_stack([table["age"].astype(float), table["gender"] == "F", codes, digits]).astype(float)
    except (OSError, KeyError, ValueError, TypeError, IndexError) as error:
        raise UserError(
            f"{path} does not describe the users of the ratings ({type(error).__name__}); restore it"
        ) from None
