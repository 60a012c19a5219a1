"""A simulated job platform, shaped like the filtered RecSys Challenge 2016 data (XING) that the paper describes.

It matches the counts of the paper's Table 1 (users, offers, dyads; clicks, bookmarks and replies per user) and their
skew. Everything else is invented: latent tastes of users and traits of offers decide which offers are displayed and
which are liked. The license of the real data forbids passing them on. Figures from this set say nothing
about XING and must be called simulated wherever they appear.
"""

import math

import numpy as np

from config.dyadic import MIN_SCALE
from config.errors import UserError
from dyadic.data import DyadicData
from dyadic.split import position_in_group, split_dyads

USERS, OFFERS, DYADS = 5_949, 25_184, 819_226
CLICKS, BOOKMARKS, REPLIES, DISPLAYED = 42.19, 1.38, 3.40, 115.04  # means per user
MIN_DYADS, MIN_CLICKS = 30, 16  # per user
# A lognormal with median m and mean M has the standard deviation sqrt(2 ln(M / m)) of its logarithm.
DEGREE_SIGMA = math.sqrt(2 * math.log(137.71 / 120))
POPULARITY_SIGMA = math.sqrt(2 * math.log(32.53 / 12))
CLICK_SIGMA = math.sqrt(2 * math.log(42.19 / 34))
WEEKS = 12
LATENT_DIM = 8
CHUNK_USERS = 256
SEED = 2016


def simulate(scale: float = 1.0, split: str = "random30", seed: int = SEED) -> DyadicData:
    """Make the platform. The same arguments give the same dyads.

    Args:
        scale: factor on the numbers of users, offers and dyads; dyads per user stay the same.
        split: see `split.split_dyads`; "time67" sorts by simulated weeks.

    Returns:
        Dyads with 9 context columns of the user and 7 of the offer, integer codes as in the original. Every offer has
        at least one dyad.

    Raises:
        UserError: the scale is out of range.
    """
    if not MIN_SCALE <= scale <= 1:
        raise UserError(f"scale must lie in [{MIN_SCALE}, 1], not {scale}")
    num_users, num_offers, num_dyads = (int(count * scale) for count in (USERS, OFFERS, DYADS))
    random = np.random.default_rng(seed)
    tastes = random.normal(size=(num_users, LATENT_DIM)) / math.sqrt(LATENT_DIM)
    traits = random.normal(size=(num_offers, LATENT_DIM))
    degrees = _draw_degrees(random, num_users, num_offers, num_dyads)
    user_ids, item_ids = _draw_dyads(random, tastes, traits, degrees)
    labels = _act(random, tastes, traits, user_ids, item_ids, degrees)
    context = np.hstack([_describe(random, tastes, 9)[user_ids], _describe(random, traits, 7)[item_ids]])
    weeks = random.integers(1, WEEKS + 1, size=num_dyads)
    train, test = split_dyads(user_ids, split, weeks, seed)
    return DyadicData(
        name="simulated-xing",
        users=_raw_ids(num_users),
        items=_raw_ids(num_offers),
        user_ids=user_ids,
        item_ids=item_ids,
        labels=labels,
        context=context,
        train=train,
        test=test,
        displayed=_mark_displayed(random, labels),
        notes=("SIMULATED: no dyad comes from XING; only the counts follow the published table",),
        simulated=True,
    )


def _raw_ids(count: int) -> np.ndarray:
    return np.array([str(number + 1) for number in range(count)])


def _draw_degrees(random: np.random.Generator, num_users: int, num_offers: int, num_dyads: int) -> np.ndarray:
    """(num_users,) number of dyads of each user; they sum to num_dyads."""
    weights = 120 * random.lognormal(sigma=DEGREE_SIGMA, size=num_users)
    return _allocate(random, weights, MIN_DYADS, np.full(num_users, num_offers), num_dyads)


def _allocate(random: np.random.Generator, weights: np.ndarray, low: int, high: np.ndarray, total: int) -> np.ndarray:
    """Integers in proportion to `weights`, clipped to [low, high], that sum to `total`."""
    lower, upper = 0.0, total / weights.min()
    for _ in range(60):
        middle = (lower + upper) / 2
        too_many = np.clip(np.floor(middle * weights), low, high).sum() > total
        lower, upper = (lower, middle) if too_many else (middle, upper)
    counts = np.clip(np.floor(lower * weights), low, high).astype(np.int64)
    while (missing := total - counts.sum()) > 0:
        counts[random.permutation(np.flatnonzero(counts < high))[:missing]] += 1
    return counts


def _draw_dyads(random: np.random.Generator, tastes, traits, degrees) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of the user and the offer of each dyad, sorted: (D,), (D,). Every offer occurs."""
    user_ids = np.repeat(np.arange(len(tastes)), degrees)
    item_ids = _cover_all_offers(random, _draw_offers(random, tastes, traits, degrees), len(traits))
    order = np.lexsort((item_ids, user_ids))
    return user_ids[order], item_ids[order]


def _draw_offers(random: np.random.Generator, tastes, traits, degrees) -> np.ndarray:
    """Draw each user's offers without replacement, weighted by popularity and affinity (Gumbel top-k)."""
    popularity = random.normal(0, POPULARITY_SIGMA, size=len(traits)).astype(np.float32)
    tastes, traits = tastes.astype(np.float32), traits.astype(np.float32)
    chosen = []
    for start in range(0, len(tastes), CHUNK_USERS):
        appeal = popularity + 1.2 * tastes[start : start + CHUNK_USERS] @ traits.T
        waiting = random.standard_exponential(size=appeal.shape, dtype=np.float32)
        appeal -= np.log(np.maximum(waiting, np.finfo(np.float32).tiny))  # the generator can return 0
        counts = degrees[start : start + CHUNK_USERS]
        chosen += [np.argpartition(row, -count)[-count:] for row, count in zip(appeal, counts, strict=True)]
    return np.concatenate(chosen)


def _cover_all_offers(random: np.random.Generator, item_ids: np.ndarray, num_offers: int) -> np.ndarray:
    """Give each offer without a dyad a random dyad of an offer that has several."""
    item_ids = item_ids.copy()
    counts = np.bincount(item_ids, minlength=num_offers)
    candidates = iter(random.permutation(len(item_ids)))
    for orphan in np.flatnonzero(counts == 0):
        row = next(row for row in candidates if counts[item_ids[row]] > 1)
        counts[item_ids[row]] -= 1
        item_ids[row] = orphan
    return item_ids


def _act(random: np.random.Generator, tastes, traits, user_ids, item_ids, degrees) -> np.ndarray:
    """(D, 3) clicks, bookmarks and replies. Most, but not all, bookmarked or replied dyads are also clicked."""
    num_users = len(tastes)
    affinity = np.einsum("dr,dr->d", tastes[user_ids], traits[item_ids])
    rotation = np.linalg.qr(random.normal(size=(LATENT_DIM, LATENT_DIM)))[0]
    other = np.einsum("dr,dr->d", (tastes @ rotation)[user_ids], traits[item_ids])

    weights = 34 * random.lognormal(sigma=CLICK_SIGMA, size=num_users)
    quota = _allocate(random, weights, MIN_CLICKS, degrees * 2 // 3, round(CLICKS * num_users))
    appeal = 1.6 * affinity + random.normal(0, 0.5, size=len(traits))[item_ids] + random.gumbel(size=len(user_ids))
    order = np.lexsort((-appeal, user_ids))
    clicked = np.empty(len(order), dtype=bool)
    clicked[order] = position_in_group(degrees) < quota[user_ids[order]]

    bookmark = 4.0 * clicked + other + random.normal(0, 2.2, size=num_users)[user_ids]
    reply = 4.8 * clicked + 0.8 * affinity + 0.6 * other + random.normal(0, 2.0, size=num_users)[user_ids]
    columns = [clicked, _highest(random, bookmark, round(BOOKMARKS * num_users))]
    columns.append(_highest(random, reply, round(REPLIES * num_users)))
    return np.column_stack(columns).astype(np.int8)


def _highest(random: np.random.Generator, logit: np.ndarray, count: int) -> np.ndarray:
    """Mark `count` dyads: a logistic model with the intercept that gives exactly this number."""
    appeal = logit + random.logistic(size=len(logit))
    marked = np.zeros(len(logit), dtype=bool)
    marked[np.argpartition(appeal, -count)[-count:]] = True
    return marked


def _mark_displayed(random: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """(D,) bool: False for some dyads that were acted on; the user found these offers without a display."""
    acted_on = np.flatnonzero(labels.any(axis=1))
    displayed = np.ones(len(labels), dtype=bool)
    fraction = (DYADS / USERS - DISPLAYED) * USERS / DYADS
    displayed[random.choice(acted_on, size=round(fraction * len(labels)), replace=False)] = False
    return displayed


def _describe(random: np.random.Generator, latent: np.ndarray, columns: int) -> np.ndarray:
    """(n, columns) codes 0 to 9 that correlate with the latent vectors."""
    mixed = latent @ random.normal(size=(LATENT_DIM, columns))
    mixed = mixed / mixed.std(0) + random.normal(size=mixed.shape)
    rank = np.argsort(np.argsort(mixed, axis=0), axis=0)
    return np.floor(10 * rank / len(latent))
