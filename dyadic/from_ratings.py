"""Make dyads from ratings: three labels from each rating (mappings N and P), and context columns from MovieLens."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from config.dyadic import MAPPINGS, DyadOptions
from config.errors import UserError
from config.reading import open_regular
from dyadic.data import DyadicData
from dyadic.split import keep_frequent, split_dyads

MAX_RATING = 5
CONTEXT_GENRES = 11
OCCUPATIONS = (
    "administrator", "artist", "doctor", "educator", "engineer", "entertainment", "executive", "healthcare",
    "homemaker", "lawyer", "librarian", "marketing", "none", "other", "programmer", "retired", "salesman", "scientist",
    "student", "technician", "writer",
)  # fmt: skip
DEFAULT = DyadOptions()


@dataclass(frozen=True, eq=False)
class Ratings:
    """R ratings of at most 5.

    user_ids, item_ids: (R,) row numbers: positions in `Catalog.users` and `Catalog.items`.
    values: (R,) the ratings.
    times: (R,) timestamps; only the split "time67" needs them.
    """

    user_ids: np.ndarray
    item_ids: np.ndarray
    values: np.ndarray
    times: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Catalog:
    """The users and items of a data set of ratings.

    name: of the data set.
    users, items: (num_users,) and (num_items,) raw ids.
    user_context, item_context: (num_users, .) and (num_items, .) numbers that describe them; None: no such columns.
    item_texts: a title and genres for each item; empty: raw ids stand for titles.
    notes: sentences for the user.
    simulated: True for data made by a program.
    """

    name: str
    users: np.ndarray
    items: np.ndarray
    user_context: np.ndarray | None = None
    item_context: np.ndarray | None = None
    item_texts: Sequence[tuple[str, str]] = ()
    notes: tuple[str, ...] = ()
    simulated: bool = False


def from_ratings(ratings: Ratings, catalog: Catalog, options: DyadOptions = DEFAULT, seed: int = 0) -> DyadicData:
    """Make one dyad per rating; a rated item counts as displayed.

    All three labels are functions of one rating, so the tasks are related by construction: no result on such data
    confirms or refutes the paper.

    Args:
        options: see `map_ratings`, `keep_frequent` and `split_dyads`.
        seed: of the random split.

    Raises:
        UserError: a rating exceeds 5, no dyad survives the filter, or a part of the split is empty.
    """
    keep = keep_frequent(ratings.user_ids, ratings.item_ids, options)
    values = ratings.values[keep].astype(np.float64)
    times = None if ratings.times is None else ratings.times[keep]
    seen_users, user_ids = np.unique(ratings.user_ids[keep], return_inverse=True)
    seen_items, item_ids = np.unique(ratings.item_ids[keep], return_inverse=True)
    train, test = split_dyads(user_ids, options.split, times, seed)
    tables = [(catalog.user_context, seen_users, user_ids), (catalog.item_context, seen_items, item_ids)]
    context = [table[seen][ids] for table, seen, ids in tables if table is not None]
    return DyadicData(
        name=catalog.name,
        users=np.asarray(catalog.users)[seen_users],
        items=np.asarray(catalog.items)[seen_items],
        user_ids=user_ids,
        item_ids=item_ids,
        labels=map_ratings(values, user_ids, train, options.mapping),
        context=np.hstack([np.empty((len(values), 0)), *context]),
        train=train,
        test=test,
        ratings=values,
        notes=(*catalog.notes, "all three labels are functions of one rating: relatedness of the tasks is built in"),
        simulated=catalog.simulated,
        item_texts=tuple(catalog.item_texts[item] for item in seen_items) if catalog.item_texts else (),
    )


def map_ratings(ratings: np.ndarray, user_ids: np.ndarray, train: np.ndarray, mapping: str) -> np.ndarray:
    """Labels click, bookmark and reply of ratings on a scale up to 5: (R, 3) int8.

        N ("nested")     r >= 4           |  r = 5 and r - mu >= 1.5  |  r = 5
        P ("personal")   r - mu >= 0.5    |  r = 5                    |  r >= 4 and r - mu >= 1

    mu is the mean of the user's *training* ratings, so that no label depends on another test rating. For a user
    without training ratings it is the mean of all training ratings. N nests the labels: bookmark within reply within
    click. Under P a 5 from a generous rater can be bookmarked without being clicked, the reversed polarity of the
    paper's Remark 1.

    Args:
        ratings, user_ids: (R,) each.
        train: rows of the training ratings.

    Raises:
        UserError: the mapping is unknown, or a rating exceeds 5.
    """
    if mapping not in MAPPINGS:
        raise UserError(f"unknown mapping {mapping!r}: choose one of {', '.join(MAPPINGS)}")
    if ratings.max() > MAX_RATING:
        raise UserError(
            f"mapping {mapping} needs ratings of at most {MAX_RATING}, and one is {ratings.max():g}; rescale them"
        )
    num_users = user_ids.max() + 1
    sums = np.bincount(user_ids[train], weights=ratings[train], minlength=num_users)
    counts = np.bincount(user_ids[train], minlength=num_users)
    mean = np.where(counts > 0, sums / np.maximum(counts, 1), ratings[train].mean())
    above = ratings - mean[user_ids]
    top = ratings == MAX_RATING
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
        users: raw ids; they set the order of the rows. A zip code that begins with a letter counts as 0.

    Raises:
        UserError: the file is missing or damaged, or does not contain a user.
    """
    try:
        with open_regular(path) as file:
            table = pd.read_csv(file, sep="|", names=["user", "age", "gender", "occupation", "zip"], dtype=str)
        table = table.set_index("user").loc[list(users)]
        codes = [OCCUPATIONS.index(name) for name in table["occupation"]]
        digits = [int(code[0]) if code[0].isdigit() else 0 for code in table["zip"]]
        return np.column_stack([table["age"].astype(float), table["gender"] == "F", codes, digits]).astype(float)
    except (OSError, KeyError, ValueError, TypeError, IndexError) as error:
        raise UserError(
            f"{path} does not describe the users of the ratings ({type(error).__name__}); restore it"
        ) from None
