"""Simulate a data set like MovieLens, for machines without a network and for scaling experiments.

It matches published marginals of MovieLens 100K: the fractions of the five ratings, at least 20 ratings per user, few
active users and few popular films. Everything else is invented. Users have latent tastes and films latent traits; their
match drives both what is watched and how it is rated, so that both tasks can profit from a shared embedding.
Results on this set say nothing about MovieLens and must be called simulated wherever they appear.
"""

import itertools
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from config.errors import UserError

RATING_FRACTIONS = (0.0611, 0.1137, 0.2714, 0.3417, 0.2121)  # of the ratings 1 to 5 in MovieLens 100K
MIN_USER_RATINGS = 20
SEED = 1997
GENRES = (
    "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy", "Film-Noir",
    "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
LATENT_DIM = 8
CHUNK_USERS = 1024
CHUNK_ROWS = 2**20
TINY = np.finfo(np.float32).tiny  # replaces a draw of 0 before the logarithm is taken


@dataclass(frozen=True)
class SimulatedRatings:
    """R simulated ratings.

    user_ids, item_ids: (R,) int32 row numbers.
    ratings: (R,) float32, 1 to 5.
    titles, genres: one string per item; genres are joined by "|".
    """

    user_ids: np.ndarray
    item_ids: np.ndarray
    ratings: np.ndarray
    titles: list[str]
    genres: list[str]


def simulate(num_users: int, num_items: int, num_ratings: int, seed: int = SEED) -> SimulatedRatings:
    """Simulate ratings; the same arguments give the same result.

    Raises:
        UserError: the sizes are impossible: every user needs MIN_USER_RATINGS different films, every film one rating.
    """
    _require_possible(num_users, num_items, num_ratings)
    random = np.random.default_rng(seed)
    tastes = random.normal(size=(num_users, LATENT_DIM)).astype(np.float32)
    genre_traits = random.normal(size=(len(GENRES), LATENT_DIM))
    membership = _draw_genres(random, num_items)
    traits = membership @ genre_traits / np.sqrt(membership.sum(1, keepdims=True))
    traits = (0.8 * traits + 0.6 * random.normal(size=traits.shape)).astype(np.float32)
    appeal = random.normal(size=num_items)

    popularity = 1.45 * (0.4 * appeal + np.sqrt(1 - 0.4**2) * random.normal(size=num_items))
    activity = _draw_activity(random, num_users, num_items, num_ratings)
    user_ids = np.repeat(np.arange(num_users, dtype=np.int32), activity)
    item_ids = _watch(random, tastes, traits, popularity.astype(np.float32), activity)
    _give_every_item_a_rating(random, item_ids, num_items)

    ratings = _to_stars(_form_opinions(random, user_ids, item_ids, tastes, traits, appeal))
    order = random.permutation(num_ratings)
    user_ids = user_ids[order]  # one at a time, so that each old column is freed before the next is copied
    item_ids = item_ids[order]
    ratings = ratings[order]
    return SimulatedRatings(
        user_ids,
        item_ids,
        ratings,
        [f"Simulated film {i + 1}" for i in range(num_items)],
        ["|".join(name for name, flag in zip(GENRES, row, strict=True) if flag) for row in membership],
    )


def _require_possible(num_users: int, num_items: int, num_ratings: int) -> None:
    lowest = max(num_users * MIN_USER_RATINGS, num_items)
    highest = num_users * (num_items // 2)
    if num_users < 2 or num_items < 2 * MIN_USER_RATINGS or not lowest <= num_ratings <= highest:
        raise UserError(
            f"--simulated_size {num_users} {num_items} {num_ratings} cannot be met: it needs at least 2 users and "
            f"{2 * MIN_USER_RATINGS} items, at least {MIN_USER_RATINGS} ratings per user, one rating per item, and "
            f"users who rate at most half of the items on average (here {lowest:,} to {highest:,} ratings)"
        )


def _draw_genres(random: np.random.Generator, num_items: int) -> np.ndarray:
    """(num_items, genres) of 0 and 1: one to three genres per film, some genres more frequent than others."""
    frequency = np.log(random.dirichlet(np.ones(len(GENRES))) + 0.01)
    ranked = np.argsort(-(frequency + random.gumbel(size=(num_items, len(GENRES)))), axis=1)
    place = np.argsort(ranked, axis=1)
    return (place < random.integers(1, 4, size=(num_items, 1))).astype(np.int64)


def _draw_activity(random: np.random.Generator, num_users: int, num_items: int, num_ratings: int) -> np.ndarray:
    """(num_users,) number of films that each user rates: long-tailed, within the limits, num_ratings in total."""
    spare = num_ratings - MIN_USER_RATINGS * num_users
    room = max(num_items // 2, -(-num_ratings // num_users)) - MIN_USER_RATINGS
    weight = random.lognormal(sigma=1.2, size=num_users)
    low, high = 0.0, num_items / weight.min()
    for _ in range(60):  # bisection for the scale at which the capped weights sum to `spare`
        middle = (low + high) / 2
        low, high = (low, middle) if np.minimum(middle * weight, room).sum() > spare else (middle, high)
    extra = np.floor(np.minimum(low * weight, room)).astype(np.int64)
    while (missing := spare - extra.sum()) > 0:
        chosen = random.permutation(np.flatnonzero(extra < room))[:missing]
        extra[chosen] += 1
    return MIN_USER_RATINGS + extra


def _watch(random, tastes, traits, popularity, activity) -> np.ndarray:
    """Draw each user's films without replacement by popularity and match (Gumbel top-k), a block of users at a time.

    Returns:
        (num_ratings,) int32 item ids, those of user 0 first, each user's in the order drawn.
    """
    items = np.empty(activity.sum(), dtype=np.int32)
    ends = activity.cumsum()
    space = np.empty((min(CHUNK_USERS, len(tastes)), len(traits)), dtype=np.float32)
    shown = sys.stderr.isatty()
    with tqdm(desc="simulating", total=len(items), unit=" ratings", leave=False, delay=2, disable=not shown) as bar:
        for block in _blocks(len(tastes), CHUNK_USERS):
            appetite = np.matmul(2.0 * tastes[block], traits.T, out=space[: block.stop - block.start])
            appetite /= math.sqrt(LATENT_DIM)
            appetite += popularity
            most = activity[block].max()
            for row, count, end in zip(appetite, activity[block], ends[block], strict=True):
                row -= np.log(np.maximum(random.standard_exponential(size=len(row), dtype=np.float32), TINY))
                items[end - count : end] = _highest(row, count, most)
            bar.update(ends[block][-1] - bar.n)
    return items


def _highest(values: np.ndarray, count: int, most: int) -> np.ndarray:
    """Indices of the `count` highest values, descending; ties in the order in which NumPy sorts the highest `most`.

    Ties are rare, so they are detected afterwards: always sorting the highest `most` takes several times as long.
    """
    least = np.partition(values, len(values) - count)[len(values) - count]
    places = np.flatnonzero(values >= least)
    places = places[np.argsort(-values[places])]
    ordered = values[places]
    if (ordered[1:] < ordered[:-1]).all():
        return places
    places = np.argpartition(-values, most - 1)[:most]
    return places[np.argsort(-values[places])][:count]


def _give_every_item_a_rating(random, item_ids: np.ndarray, num_items: int) -> None:
    """Give each film without a rating one rating of a film that has several, in place."""
    counts = np.bincount(item_ids, minlength=num_items)
    orphans = np.flatnonzero(counts == 0)
    candidates = iter(random.permutation(len(item_ids)))
    for orphan in orphans:
        row = next(row for row in candidates if counts[item_ids[row]] > 1)
        counts[item_ids[row]] -= 1
        item_ids[row] = orphan


def _form_opinions(random, user_ids, item_ids, tastes, traits, appeal) -> np.ndarray:
    """(num_ratings,) float64: the sum of the film's appeal, the user's leniency, their match and noise."""
    leniency = random.normal(size=len(tastes))
    opinion = np.empty(len(user_ids))
    for rows in _blocks(len(opinion), CHUNK_ROWS):
        users, items = user_ids[rows], item_ids[rows]
        match = np.einsum("rd,rd->r", tastes[users], traits[items]) / np.sqrt(LATENT_DIM)
        noise = random.normal(size=len(users))
        opinion[rows] = 0.45 * appeal[items] + 0.45 * leniency[users] + 0.45 * match + 0.85 * noise
    return opinion


def _to_stars(opinion: np.ndarray) -> np.ndarray:
    """Cut opinions into five ratings with exactly the fractions of RATING_FRACTIONS."""
    firsts = [_first_above(fraction, len(opinion)) for fraction in np.cumsum(RATING_FRACTIONS)[:-1].tolist()]
    cuts = np.partition(opinion, firsts)[firsts]
    stars = np.empty(len(opinion), dtype=np.float32)
    for rows in _blocks(len(opinion), CHUNK_ROWS):
        stars[rows] = 1 + np.searchsorted(cuts, opinion[rows], side="right")
    return stars


def _first_above(fraction: float, length: int) -> int:
    """The first of `length` equal intervals of [0, 1] whose center lies above `fraction`."""
    near = max(0, int(fraction * length) - 2)
    return next(place for place in itertools.count(near) if (place + 0.5) / length > fraction)


def _blocks(length: int, size: int) -> Iterator[slice]:
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))
