"""A simulated job platform, shaped like the filtered RecSys Challenge 2016 data (XING) that the paper describes.

What it shares with them are the published counts of the paper's Table 1: users, offers, dyads, clicks, bookmarks and
replies a user, and how skewed they are. Everything else is invented: latent tastes and traits decide what is shown and
what is liked. The real data may not be passed on; figures from this set say nothing about XING and must be called
simulated wherever they appear.
"""

import math

import numpy as np

from config.errors import UserError
from dyadic.data import DyadicData, split_dyads

USERS, OFFERS, DYADS = 5_949, 25_184, 819_226
CLICKS, BOOKMARKS, REPLIES, DISPLAYED = 42.19, 1.38, 3.40, 115.04  # means a user
FEWEST_DYADS, FEWEST_CLICKS = 30, 16
# A lognormal with median m and mean M has the spread sqrt(2 ln(M / m)).
DEGREE_SPREAD = math.sqrt(2 * math.log(137.71 / 120))
POPULARITY_SPREAD = math.sqrt(2 * math.log(32.53 / 12))
CLICK_SPREAD = math.sqrt(2 * math.log(42.19 / 34))
WEEKS = 12
LATENT_DIM = 8
USERS_AT_A_TIME = 256
SMALLEST_SCALE = 0.01  # below it there would be too few offers for the dyads of an average user
SEED = 2016


def simulate(scale: float = 1.0, split: str = "random30", seed: int = SEED) -> DyadicData:
    """Make the platform. The same arguments give the same dyads.

    Args:
        scale: users, offers and dyads shrink by it; dyads a user stay, so that density grows as 1 / scale.
        split: see `labels.split_dyads`; "time67" goes by simulated weeks.

    Returns:
        Dyads with 9 context columns of the user and 7 of the offer, integer codes as in the original; all offers occur.

    Raises:
        UserError: the scale is out of range.
    """
    if not SMALLEST_SCALE <= scale <= 1:
        raise UserError(f"scale must lie in [{SMALLEST_SCALE}, 1], not {scale}")
    num_users, num_offers, num_dyads = (int(count * scale) for count in (USERS, OFFERS, DYADS))
    random = np.random.default_rng(seed)
    tastes = random.normal(size=(num_users, LATENT_DIM)) / math.sqrt(LATENT_DIM)
    traits = random.normal(size=(num_offers, LATENT_DIM))
    degrees = _draw_degrees(random, num_users, num_offers, num_dyads)
    user_ids, item_ids = _show(random, tastes, traits, degrees)
    item_ids = _give_every_offer_a_dyad(random, item_ids, num_offers)
    order = np.lexsort((item_ids, user_ids))
    user_ids, item_ids = user_ids[order], item_ids[order]
    labels = _act(random, tastes, traits, user_ids, item_ids, degrees)
    context = np.hstack([_describe(random, tastes, 9)[user_ids], _describe(random, traits, 7)[item_ids]])
    weeks = random.integers(1, WEEKS + 1, size=num_dyads)
    train, test = split_dyads(user_ids, split, weeks, seed)
    return DyadicData(
        name="simulated-xing",
        users=np.array([str(user + 1) for user in range(num_users)]),
        items=np.array([str(offer + 1) for offer in range(num_offers)]),
        user_ids=user_ids,
        item_ids=item_ids,
        labels=labels,
        context=context,
        train=train,
        test=test,
        displayed=_displayed(random, labels),
        notes=("SIMULATED: no dyad comes from XING; only the counts follow the published table",),
        simulated=True,
    )


def _draw_degrees(random: np.random.Generator, num_users: int, num_offers: int, num_dyads: int) -> np.ndarray:
    """(num_users,) dyads of each user, num_dyads in all."""
    wish = 120 * random.lognormal(sigma=DEGREE_SPREAD, size=num_users)
    return _share_out(random, wish, FEWEST_DYADS, np.full(num_users, num_offers), num_dyads)


def _share_out(random: np.random.Generator, wish: np.ndarray, low: int, high: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers in proportion to `wish`, within [low, high], that sum to `total`."""
    few, many = 0.0, total / wish.min()
    for _ in range(60):
        middle = (few + many) / 2
        few, many = (few, middle) if np.clip(np.floor(middle * wish), low, high).sum() > total else (middle, many)
    share = np.clip(np.floor(few * wish), low, high).astype(np.int64)
    while (missing := total - share.sum()) > 0:
        share[random.permutation(np.flatnonzero(share < high))[:missing]] += 1
    return share


def _show(random: np.random.Generator, tastes, traits, degrees) -> tuple[np.ndarray, np.ndarray]:
    """Draw each user's offers without replacement, chances by popularity and affinity (Gumbel top-k)."""
    popularity = random.normal(0, POPULARITY_SPREAD, size=len(traits)).astype(np.float32)
    tastes, traits = tastes.astype(np.float32), traits.astype(np.float32)
    chosen = []
    for start in range(0, len(tastes), USERS_AT_A_TIME):
        appeal = popularity + 1.2 * tastes[start : start + USERS_AT_A_TIME] @ traits.T
        waiting = random.standard_exponential(size=appeal.shape, dtype=np.float32)
        appeal -= np.log(np.maximum(waiting, np.finfo(np.float32).tiny))  # the generator may return 0
        counts = degrees[start : start + USERS_AT_A_TIME]
        chosen += [np.argpartition(row, -count)[-count:] for row, count in zip(appeal, counts, strict=True)]
    return np.repeat(np.arange(len(tastes)), degrees), np.concatenate(chosen)


def _give_every_offer_a_dyad(random: np.random.Generator, item_ids: np.ndarray, num_offers: int) -> np.ndarray:
    """Hand each offer that nobody drew one random dyad of an offer that has several."""
    item_ids = item_ids.copy()
    counts = np.bincount(item_ids, minlength=num_offers)
    candidates = iter(random.permutation(len(item_ids)))
    for orphan in np.flatnonzero(counts == 0):
        row = next(row for row in candidates if counts[item_ids[row]] > 1)
        counts[item_ids[row]] -= 1
        item_ids[row] = orphan
    return item_ids


def _act(random: np.random.Generator, tastes, traits, user_ids, item_ids, degrees) -> np.ndarray:
    """(D, 3) clicks, bookmarks and replies. Most of the rarer two are clicked as well, not all."""
    num_users = len(tastes)
    affinity = np.einsum("dr,dr->d", tastes[user_ids], traits[item_ids])
    rotation = np.linalg.qr(random.normal(size=(LATENT_DIM, LATENT_DIM)))[0]
    other = np.einsum("dr,dr->d", (tastes @ rotation)[user_ids], traits[item_ids])

    wish = 34 * random.lognormal(sigma=CLICK_SPREAD, size=num_users)
    quota = _share_out(random, wish, FEWEST_CLICKS, degrees * 2 // 3, round(CLICKS * num_users))
    appeal = 1.6 * affinity + random.normal(0, 0.5, size=len(traits))[item_ids] + random.gumbel(size=len(user_ids))
    order = np.lexsort((-appeal, user_ids))
    place = np.arange(len(order)) - np.repeat(np.cumsum(degrees) - degrees, degrees)
    clicked = np.empty(len(order), dtype=bool)
    clicked[order] = place < quota[user_ids[order]]

    bookmark = 4.0 * clicked + other + random.normal(0, 2.2, size=num_users)[user_ids]
    reply = 4.8 * clicked + 0.8 * affinity + 0.6 * other + random.normal(0, 2.0, size=num_users)[user_ids]
    columns = [clicked, _highest(random, bookmark, round(BOOKMARKS * num_users))]
    columns.append(_highest(random, reply, round(REPLIES * num_users)))
    return np.column_stack(columns).astype(np.int8)


def _highest(random: np.random.Generator, logit: np.ndarray, count: int) -> np.ndarray:
    """Mark `count` dyads: a logistic model whose intercept is the one that gives this very number."""
    appeal = logit + random.logistic(size=len(logit))
    marked = np.zeros(len(logit), dtype=bool)
    marked[np.argpartition(appeal, -count)[-count:]] = True
    return marked


def _displayed(random: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """(D,) bool: all dyads but some of those acted on, which the user found without being shown."""
    acted_on = np.flatnonzero(labels.any(axis=1))
    displayed = np.ones(len(labels), dtype=bool)
    share = (DYADS / USERS - DISPLAYED) * USERS / DYADS
    displayed[random.choice(acted_on, size=round(share * len(labels)), replace=False)] = False
    return displayed


def _describe(random: np.random.Generator, latent: np.ndarray, columns: int) -> np.ndarray:
    """(n, columns) codes 0 to 9 that tell something of the latent vectors."""
    mixed = latent @ random.normal(size=(LATENT_DIM, columns))
    mixed = mixed / mixed.std(0) + random.normal(size=mixed.shape)
    place = np.argsort(np.argsort(mixed, axis=0), axis=0)
    return np.floor(10 * place / len(latent))
