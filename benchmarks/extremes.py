"""Extreme ratings, all simulated: the network must not be worse than the better of popularity and biases.

In every world, activity and popularity alone decide who rates what. Popularity is then close to the best ranking that
there is, and structure that a method finds in the choices is noise: the worlds show harm, not merit. Ratings follow
three factors of each user and item, unless the world says otherwise.

A difference is counted in standard errors of its mean, over users for the MRR and over test rows for the MSE, and is
positive where the network is better. Rows of one user are not independent, so those of the MSE are somewhat too large
in size.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from analysis.tables import MARK
from benchmarks.quality import fit
from benchmarks.results import Record
from benchmarks.timing import cpu_seconds, peak_memory_mb
from config.base import RunConfig
from dataset import Data, Interactions
from evaluation import evaluating, rank_test_items
from multitask.baselines import EASE_NAME, make_baselines
from sources.splits import split_randomly
from training.console import log

CPU = torch.device("cpu")
SEEDS = (0, 1, 2, 3, 4)
TEST_FRACTION = 0.05
RATING_SCALE = (0.5, 5.0)
NUM_FACTORS, NOISE = 3, 0.9  # of the ratings
WORSE = -2.0  # standard errors over all seeds, below which a difference counts as harm
ROUNDING = 1e-9  # squared errors that differ by less, in squared rating points, are equal
MRR_OF = {"ours": "ours", "popularity": "popularity", "EASE": EASE_NAME}
MSE_OF = {"ours": "ours", "biases": "user + item biases", "mean rating": "popularity"}
REFERENCES = {"MRR": ("popularity",), "MSE": ("biases", "mean rating")}


@dataclass(frozen=True, eq=False)
class World:
    """Simulated ratings: R distinct pairs of row numbers, ratings (R,), and the numbers of users and items."""

    users: np.ndarray
    items: np.ndarray
    ratings: np.ndarray
    num_users: int
    num_items: int


def choose_pairs(random: np.random.Generator, num_users: int, num_items: int, count: int) -> np.ndarray:
    """Draw distinct cells user * num_items + item, weighted by activity times popularity: (count,), in random order.

    The largest log weights plus Gumbel noise are a weighted draw without replacement (Vieira 2014).
    """
    activity, popularity = random.normal(size=num_users), -0.7 * np.log(np.arange(1, num_items + 1))
    keys = random.gumbel(size=(num_users, num_items))
    keys += activity[:, None] + popularity
    return random.permutation(np.argpartition(-keys.ravel(), count - 1)[:count])


def rate(random: np.random.Generator, users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Half stars from biases, NUM_FACTORS factors and noise: (R,), (R,) -> (R,)."""
    num_users, num_items = users.max() + 1, items.max() + 1
    tastes = 0.5 * random.normal(size=(num_users, NUM_FACTORS))
    traits = random.normal(size=(num_items, NUM_FACTORS))
    biases = 0.4 * random.normal(size=num_users)[users] + 0.4 * random.normal(size=num_items)[items]
    exact = 3.5 + biases + (tastes[users] * traits[items]).sum(axis=1) + NOISE * random.normal(size=len(users))
    return np.clip(np.rint(2 * exact) / 2, *RATING_SCALE)


def planted(random: np.random.Generator, num_users: int, num_items: int, count: int) -> World:
    """Pairs by `choose_pairs`, rated by `rate`."""
    users, items = divmod(choose_pairs(random, num_users, num_items, count), num_items)
    return World(users, items, rate(random, users, items), num_users, num_items)


def one_rating_a_user(random: np.random.Generator) -> World:
    """Each user rates one item: users of test rows have no training rows."""
    num_users, num_items = 3000, 300
    popularity = np.arange(1, num_items + 1) ** -0.7
    users = random.permutation(num_users)
    items = random.choice(num_items, num_users, p=popularity / popularity.sum())
    return World(users, items, rate(random, users, items), num_users, num_items)


def all_equal(random: np.random.Generator) -> World:
    world = planted(random, 200, 300, 6000)
    return replace(world, ratings=np.full(len(world.ratings), 4.0))


def pure_noise(random: np.random.Generator) -> World:
    """Ratings that depend on nothing."""
    world = planted(random, 200, 300, 6000)
    return replace(world, ratings=random.integers(1, 6, len(world.ratings)).astype(float))


def long_rows(random: np.random.Generator) -> World:
    """60 users with 1,000 of 1,500 items each."""
    num_users, num_items, length = 60, 1500, 1000
    items = np.concatenate([random.permutation(num_items)[:length] for _ in range(num_users)])
    users = np.repeat(np.arange(num_users), length)
    return World(users, items, rate(random, users, items), num_users, num_items)


def rated_everything(random: np.random.Generator) -> World:
    """User 0 has rated every item."""
    num_users, num_items = 200, 300
    cells = choose_pairs(random, num_users, num_items, 6000)
    cells = random.permutation(np.union1d(cells, np.arange(num_items)))
    users, items = divmod(cells, num_items)
    return World(users, items, rate(random, users, items), num_users, num_items)


WORLDS: dict[str, Callable[[np.random.Generator], World]] = {
    "30 users": lambda random: planted(random, 30, 200, 1500),
    "one rating a user": one_rating_a_user,
    "all ratings equal": all_equal,
    "50 items": lambda random: planted(random, 600, 50, 6000),
    "users with 1,000 ratings": long_rows,
    "a user who rated everything": rated_everything,
    "ratings are noise": pure_noise,
    "1M ratings": lambda random: planted(random, 6000, 3700, 1_000_000),
}


def to_data(world: World, name: str, seed: int) -> Data:
    """The world as a data set, split at random as a file of ratings is."""
    rows = Interactions(
        torch.from_numpy(world.users.astype(np.int32)),
        torch.from_numpy(world.items.astype(np.int32)),
        torch.from_numpy(world.ratings.astype(np.float32)),
        world.num_users,
        world.num_items,
    )
    train, _, test = (torch.from_numpy(part) for part in split_randomly(len(rows), TEST_FRACTION, 0.0, seed))
    users, items = (np.arange(size).astype(str) for size in (world.num_users, world.num_items))
    genres = [""] * world.num_items
    return Data(name, users, items, list(items), genres, RATING_SCALE, rows[train], rows[test], simulated=True)


@dataclass(frozen=True, eq=False)
class Measured:
    """One seed of a world.

    values: {"MRR": {"ours": .., "popularity": .., "EASE": ..}, "MSE": {"ours": .., "biases": .., "mean rating": ..}}.
    gains: {metric: {reference: how much better the network is}}, a number per user or per test row.
    is_finite: no weight of the network is nan or infinite.
    """

    values: dict[str, dict[str, float]]
    gains: dict[str, dict[str, Tensor]]
    is_finite: bool


def measure_extremes(
    record: Record,
    config: RunConfig,
    worlds: Mapping[str, Callable[[np.random.Generator], World]] = WORLDS,
    seeds: Sequence[int] = SEEDS,
) -> None:
    """Fit the network and the baselines in each world, once per seed; print each, and a conclusion over all seeds."""
    log(f"{MARK} All worlds are simulated. se: standard errors by which ours is better than the better baseline.")
    for name, make in worlds.items():
        log(f"\n{name}")
        start, runs = cpu_seconds(), []
        for seed in seeds:
            data = to_data(make(np.random.default_rng([seed, *name.encode()])), name, seed)
            runs.append(measure_seed(replace(config, seed=seed), data))
            log(f"  seed {seed}   {_in_words([runs[-1]])}")
        log(f"  together {_in_words(runs)}\n  {conclusion(runs)}")
        used = (cpu_seconds() - start) / len(runs), peak_memory_mb()
        log(f"  {used[0]:.1f} CPU s a seed; peak memory of this process so far {used[1]:,.0f} MB")
        _record(record, name, runs)
        record(name, "fit and evaluation", used[0], "CPU s")


def measure_seed(config: RunConfig, data: Data) -> Measured:
    """Fit the network and the baselines, and measure them on the test part."""
    model = fit(config, data).model
    if not all(parameter.isfinite().all() for parameter in model.parameters()):
        return Measured({}, {}, is_finite=False)
    models = {"ours": model, **make_baselines(data.train)}
    ranks = {name: reciprocal_ranks(models[model], data) for name, model in MRR_OF.items()}
    errors = {name: squared_errors(models[model], data.test) for name, model in MSE_OF.items()}
    gains = {
        "MRR": {name: ranks["ours"] - ranks[name] for name in REFERENCES["MRR"]},
        "MSE": {name: errors[name] - errors["ours"] for name in REFERENCES["MSE"]},
    }
    tables = {"MRR": ranks, "MSE": errors}
    values = {metric: {name: row.mean().item() for name, row in rows.items()} for metric, rows in tables.items()}
    return Measured(values, gains, is_finite=True)


def reciprocal_ranks(model: nn.Module, data: Data) -> Tensor:
    """The mean reciprocal rank of each user with test rows, whose mean is the MRR: (U,)."""
    ranking = rank_test_items(model, data.test, data.seen)
    return ranking.mean_over_users(1 / ranking.ranks)


def squared_errors(model: nn.Module, test: Interactions) -> Tensor:
    """The squared error of each test row, float64: (R,)."""
    with evaluating(model):
        ratings = model(test.user_ids.long(), test.item_ids.long())[1]
    return (ratings.double() - test.ratings).square()


def standard_errors(gain: Tensor) -> float:
    """A mean gain in units of its standard error; 0 where all gains are equal up to rounding."""
    if len(gain) < 2 or gain.abs().max() < ROUNDING:
        return 0.0
    spread = gain.std().item()
    mean = gain.mean().item()
    return mean / (spread / math.sqrt(len(gain))) if spread else math.copysign(math.inf, mean)


def least_gain(runs: Sequence[Measured], metric: str) -> tuple[float, str]:
    """The gain over all runs on the reference that is harder to beat, in standard errors, and its name."""
    gains = {name: torch.cat([run.gains[metric][name] for run in runs]) for name in REFERENCES[metric]}
    return min((standard_errors(gain), name) for name, gain in gains.items())


def conclusion(runs: Sequence[Measured]) -> str:
    """What the runs of a world show, in a sentence."""
    if not all(run.is_finite for run in runs):
        return "FAILED: a weight of the network is nan or infinite"
    least = {metric: least_gain(runs, metric) for metric in REFERENCES}
    worse = [f"{metric} worse than {name} by {-z:.1f} se" for metric, (z, name) in least.items() if z < WORSE]
    return f"HARM: {', '.join(worse)}" if worse else "no harm: nowhere worse by more than noise, and all is finite"


def mean_values(runs: Sequence[Measured], metric: str) -> dict[str, float]:
    """Means over seeds of a metric, by the name of the method."""
    return {name: sum(run.values[metric][name] for run in runs) / len(runs) for name in runs[0].values[metric]}


def _in_words(runs: Sequence[Measured]) -> str:
    if not all(run.is_finite for run in runs):
        return "not finite"
    words = []
    for metric in REFERENCES:
        values = "  ".join(f"{name} {value:.4f}" for name, value in mean_values(runs, metric).items())
        words.append(f"{metric} {values}  ({least_gain(runs, metric)[0]:+.1f} se)")
    return "   ".join(words)


def _record(record: Record, name: str, runs: Sequence[Measured]) -> None:
    """Means over seeds, and the least gains; `nan` where a run is not finite."""
    record(name, "finite", float(all(run.is_finite for run in runs)), "1 or 0")
    for metric, unit in (("MRR", ""), ("MSE", "squared rating points")):
        if all(run.is_finite for run in runs):
            for method, value in mean_values(runs, metric).items():
                record(name, f"{metric}, {method}", value, unit)
            record(name, f"{metric}, gain", least_gain(runs, metric)[0], "standard errors")
