"""Thresholds, class weights and lambdas, chosen by F1 on folds of the training dyads."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from config.dyadic import TASKS, FeatureOptions, LearnerOptions
from config.errors import UserError
from dyadic.data import DyadicData
from dyadic.features import add_features
from dyadic.metrics import THRESHOLDS, best_threshold
from dyadic.network import scores
from dyadic.task import train
from training.protocols import Log

FOLD_KEY = (0, 2)  # keeps the draw of the folds apart from the draw of the triples


@dataclass(frozen=True)
class Grid:
    """The values that tuning tries. A lambda is one for all tasks, a class weight one for bookmarks and replies."""

    lambdas: tuple[float, ...] = (1e-1, 1e-2, 1e-3, 1e-4)
    class_weights: tuple[float, ...] = (1.0, 3.0, 5.0, 7.0, 9.0)
    thresholds: tuple[float, ...] = THRESHOLDS
    num_folds: int = 3


@dataclass(frozen=True)
class Tuned:
    """The best options of a grid.

    options: the given options with the chosen lambdas and class_weights.
    thresholds: {task: threshold of its probability}.
    table: a dict per trial: "lam", "class_weight", "f1/<task>" at the best threshold, and the mean "f1".
    """

    options: LearnerOptions
    thresholds: dict[str, float]
    table: list[dict[str, float]]


DEFAULT_GRID = Grid()


def folds(data: DyadicData, features: FeatureOptions, count: int = 3, seed: int = 0) -> Iterator[DyadicData]:
    """Yield `count` splits of the training dyads; each computes its features from its own training part.

    Raises:
        UserError: there are fewer than two folds, or fewer training dyads than folds.
    """
    if not 2 <= count <= len(data.train):
        raise UserError(
            f"{len(data.train)} training dyads cannot be split into {count} folds; choose at least 2 folds, and at "
            "most one per dyad"
        )
    parts = np.array_split(np.random.default_rng([seed, *FOLD_KEY]).permutation(data.train), count)
    for held_out in parts:
        fold = replace(data, train=np.setdiff1d(data.train, held_out), test=np.sort(held_out), features=None)
        yield add_features(fold, replace(features, source="train"), quiet=True)


def tune(
    data: DyadicData,
    features: FeatureOptions,
    options: LearnerOptions,
    grid: Grid = DEFAULT_GRID,
    device: str = "cpu",
    log: Log = lambda line: None,
) -> Tuned:
    """Try all pairs of a lambda and a class weight of the grid.

    A trial trains once per fold. The F1 of a task pools the held-out dyads of all folds, at the task's best threshold.
    The trial with the highest mean over tasks wins, the first of equal ones. Test dyads are never used.

    Args:
        log: receives one line per trial.

    Raises:
        UserError: a list of the grid is empty, or the number of folds is out of range.
    """
    if not (grid.lambdas and grid.class_weights and grid.thresholds):
        raise UserError("tuning needs at least one lambda, one class weight and one threshold")
    parts = list(folds(data, features, grid.num_folds, options.seed))
    table: list[dict[str, float]] = []
    best, best_f1 = Tuned(options, {}, table), -math.inf
    pairs = list(itertools.product(grid.lambdas, grid.class_weights))
    for lam, weight in pairs:
        trial = replace(options, lambdas=(lam,), class_weights=(weight,) * 2)
        chosen = _choose_thresholds(parts, trial, grid.thresholds, device)
        values = {f"f1/{task}": value for task, (_, value) in chosen.items()}
        f1 = float(np.mean(list(values.values())))
        table.append({"lam": lam, "class_weight": weight, "f1": f1} | values)
        log(f"tuning {len(table)}/{len(pairs)}: lambda {lam:g}, class weight {weight:g}: F1 {f1:.4f}")
        if f1 > best_f1:
            best, best_f1 = Tuned(trial, {task: value for task, (value, _) in chosen.items()}, table), f1
    return best


def _choose_thresholds(
    parts: Sequence[DyadicData], options: LearnerOptions, thresholds: Sequence[float], device: str
) -> dict[str, tuple[float, float]]:
    """{task: (threshold, F1)} on the held-out dyads of all parts."""
    held_out = []
    for part in parts:
        trained = train(part, options, device, quiet=True)
        held_out.append(scores(trained.model, trained.inputs, part.test, options))
    labels = np.concatenate([part.task_labels[part.test] for part in parts])
    return {
        task: best_threshold(labels[:, TASKS.index(task)], np.concatenate([s[task] for s in held_out]), thresholds)
        for task in options.active
    }
