"""Thresholds, class weights and lambdas, chosen by F1 on folds of the training dyads."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from config.dyadic import TASKS, FeatureOptions, LearnerOptions
from config.errors import UserError
from dyadic.data import DyadicData
from dyadic.features import add_features
from dyadic.metrics import THRESHOLDS, best_threshold
from dyadic.network import scores
from dyadic.task import train

LAMBDAS = (1e-1, 1e-2, 1e-3, 1e-4)
CLASS_WEIGHTS = (1.0, 3.0, 5.0, 7.0, 9.0)
FOLD_KEY = (0, 2)  # keeps the draw of the folds apart from that of the triples


@dataclass(frozen=True)
class Tuned:
    """The best options of a grid.

    options: the ones given, with the chosen lam and class_weights.
    thresholds: of sigma(score), by task.
    table: a dict a trial: "lam", "class_weight", "f1/<task>" at the best threshold of each, and their mean "f1".
    """

    options: LearnerOptions
    thresholds: dict[str, float]
    table: list[dict[str, float]]


def folds(data: DyadicData, features: FeatureOptions, count: int = 3, seed: int = 0) -> Iterator[DyadicData]:
    """Yield `count` splits of the training dyads, with features that each fold computes from its own training part.

    Raises:
        UserError: there are fewer than two folds, or fewer training dyads than folds.
    """
    if not 2 <= count <= len(data.train):
        raise UserError(
            f"{count} folds of {len(data.train)} training dyads cannot be made; take at least 2, at most that"
        )
    parts = np.array_split(np.random.default_rng([seed, *FOLD_KEY]).permutation(data.train), count)
    for held_out in parts:
        fold = replace(data, train=np.setdiff1d(data.train, held_out), test=np.sort(held_out), features=None)
        yield add_features(fold, replace(features, source="train"), quiet=True)


def tune(
    data: DyadicData,
    features: FeatureOptions,
    options: LearnerOptions,
    lambdas: Sequence[float] = LAMBDAS,
    class_weights: Sequence[float] = CLASS_WEIGHTS,
    thresholds: Sequence[float] = THRESHOLDS,
    num_folds: int = 3,
    device: str = "cpu",
    log: Callable[[str], None] = lambda line: None,
) -> Tuned:
    """Try one lambda for all tasks with one class weight for both classifications, all pairs of the grids.

    A trial trains once a fold; F1 of each task is that of the held-out dyads of all folds together, at the best
    threshold; the trial with the highest mean over tasks wins, the first of equals. Test dyads are never looked at.

    Args:
        log: takes a line a trial.

    Raises:
        UserError: a grid is empty, or the folds cannot be made.
    """
    if not (lambdas and class_weights and thresholds):
        raise UserError("tuning needs at least one lambda, one class weight and one threshold")
    parts = list(folds(data, features, num_folds, options.seed))
    best, table = None, []
    for lam, weight in itertools.product(lambdas, class_weights):
        trial = replace(options, lambdas=(lam,), class_weights=(weight,) * 2)
        chosen = _choose_thresholds(parts, trial, thresholds, device)
        values = {f"f1/{task}": value for task, (_, value) in chosen.items()}
        table.append({"lam": lam, "class_weight": weight, "f1": float(np.mean(list(values.values())))} | values)
        trials = len(lambdas) * len(class_weights)
        log(f"tuning {len(table)}/{trials}: lambda {lam:g}, class weight {weight:g}: F1 {table[-1]['f1']:.4f}")
        if best is None or table[-1]["f1"] > best[0]:
            best = table[-1]["f1"], trial, {task: threshold for task, (threshold, _) in chosen.items()}
    return Tuned(best[1], best[2], table)


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
