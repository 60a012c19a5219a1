"""The paper's results table: four tasks learned together against the same four learned apart.

An *arm* is a way of learning the four tasks; all arms have the same number of steps and the same settings. A *unit* is
one data set (a *world*) with one seed: split once, features computed once, then every arm is trained on it. Each unit
runs in a process of its own and leaves a file with its result.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from analysis import dyadic_tables as tables
from analysis import metadata
from analysis.dyadic_data import describe_stages, format_count, statistics_table
from analysis.dyadic_tables import REFERENCE
from analysis.dyadic_worlds import World
from analysis.runner import FunctionProcess, Job, Log, run_jobs, short_digest
from analysis.tables import marked
from config.dyadic import TASKS, FeatureOptions, LearnerOptions
from config.errors import UserError
from dyadic.data import DyadicData
from dyadic.features import add_features
from dyadic.metrics import TaskMetrics, best_threshold, compare, evaluate
from dyadic.network import scores
from dyadic.task import train
from dyadic.tuning import folds
from sources.files import write_atomically
from training.console import log
from training.session import versions

DEFAULT_FEATURES = FeatureOptions()
SINGLE_TASK_READINGS = ("features", "private")
# eps = 0: no training ends early, so that every arm takes the same number of steps.
FIXED = LearnerOptions(batch_size=64, eps=0.0)
QUICK = replace(FIXED, iterations="3000", epochs=4)
QUICK_RATINGS, QUICK_SCALE = {"dataset": "simulated", "simulated_size": (300, 400, 30_000)}, 0.02
# Wider than the paper's grid of 0.3 to 0.5: a ranking score has no natural zero, and with class weights of 1 the
# probability of a rare label seldom reaches 0.3.
THRESHOLDS = tuple(percent / 100 for percent in range(1, 100))
METADATA = "dyadic.json"
LEVEL = 0.01  # of significance, as in the paper
Measured = dict[str, tuple[TaskMetrics, float]]  # {task: (metrics, threshold of F1)}


@dataclass(frozen=True)
class Unit:
    """One world with one seed, options.seed, for the split and the learner.

    held_out: choose thresholds on a held-out third of the training dyads; see `measure_run`.
    """

    world: World
    features: FeatureOptions
    options: LearnerOptions
    held_out: bool = True

    @property
    def name(self) -> str:
        return f"{self.world.name}, seed {self.options.seed}"

    @property
    def settings(self) -> dict:
        """Everything that the result depends on, as JSON values."""
        return {
            "world": self.world.name,
            "data": dict(self.world.settings),
            "features": asdict(self.features),
            "arms": {arm: [asdict(run) for run in runs] for arm, runs in arms(self.options).items()},
            "thresholds": THRESHOLDS,
            "held_out": self.held_out,
            "level": LEVEL,
        }

    def path(self, folder: Path) -> Path:
        """The file of its result; the name depends on every setting, so that results never mix."""
        name = re.sub(r"[^\w.-]+", "-", self.world.name)
        return folder / f"{name}_seed={self.options.seed}_{short_digest(self.settings)}.json"


def single_task(options: LearnerOptions, reading: str) -> dict[str, LearnerOptions]:
    """{task: options of its own run} of single-task learning.

    "features": clicks, bookmarks and replies are learned without embeddings, from statistics and context alone (the
    authors' code; arms then differ in having embeddings, too). "private": the network of the multi-task arm once for
    each task, trained by that task's loss alone.

    Raises:
        UserError: the reading is unknown, or private embeddings would get no gradient.
    """
    if reading not in SINGLE_TASK_READINGS:
        raise UserError(f"unknown reading {reading!r}: choose one of {', '.join(SINGLE_TASK_READINGS)}")
    if reading == "private" and options.emb_grad == "emb_only":
        raise UserError("private embeddings need emb_grad=full, as no other gradient reaches them; or choose features")
    width = {
        task: 0 if reading == "features" and task != "embedding" else options.embedding_dim for task in options.active
    }
    return {task: replace(options, learn=(task,), embedding_dim=width[task]) for task in options.active}


def arms(options: LearnerOptions) -> dict[str, list[LearnerOptions]]:
    """{arm: its runs}; the runs of an arm together learn all four tasks. `tables.ARMS` describes the arms."""
    runs = [
        [options],
        [replace(options, emb_grad="emb_only")],
        list(single_task(options, "features").values()),
        list(single_task(options, "private").values()),
    ]
    return dict(zip(tables.ARMS, runs, strict=True))


def run(
    folder: Path,
    worlds: Sequence[World],
    seeds: int = 5,
    jobs: int = 1,
    options: LearnerOptions = FIXED,
    features: FeatureOptions = DEFAULT_FEATURES,
    held_out: bool = True,
    log: Log = log,
    is_quick: bool = False,
) -> list[Path]:
    """Measure the units that are not finished, then write all files; returns their paths.

    Args:
        folder: of the tables; the results of the units are in its subfolder "units".
        seeds: seeds 0 to seeds - 1 are run; options.seed is not used.
        jobs: units at a time, each on one thread.
        options: the settings of all arms, as the arm "together" uses them.
        held_out: see `Unit`; False takes half the time, but its F1 is unfair to the arms with embeddings.
        log: takes one line per unit.

    Raises:
        UserError: there is nothing to run, two worlds share a name, the options do not learn all tasks together, or a
            unit failed.
    """
    _check(worlds, seeds, jobs, options)
    seeded = [replace(options, seed=seed) for seed in range(seeds)]
    units = [Unit(world, features, one, held_out) for one in seeded for world in worlds]
    results = run_units(units, folder / "units", jobs, log)
    paths = tables.write(results, folder, options)
    metadata.write(folder / METADATA, describe(units, results, is_quick))
    return [*paths, folder / METADATA]


def describe(units: Sequence[Unit], results: Sequence[dict], is_quick: bool) -> dict:
    """The metadata of the units: a run is a unit, which trains all arms."""
    unit = units[0]
    counts = statistics_table(results)
    names = [name for name in counts if not name.startswith("paper")]
    learner = {name: value for name, value in asdict(unit.options).items() if name != "seed"}
    least, most = THRESHOLDS[0], THRESHOLDS[-1]
    choice = {"thresholds": f"{least:g} to {most:g}", "held_out": unit.held_out, "level": LEVEL}
    data = {f"data of {one.world.name}": ", ".join(f"{k} {v}" for k, v in one.world.settings.items()) for one in units}
    return metadata.assemble(
        data=", ".join(dict.fromkeys(marked(result["world"], result["simulated"]) for result in results)),
        simulated=any(result["simulated"] for result in results),
        is_quick=is_quick,
        seeds=[unit.options.seed for unit in units],
        runs=len(units),
        statistics={name: {row: format_count(row, value) for row, value in counts[name].items()} for name in names},
        settings=learner | asdict(unit.features) | choice | data,
        versions=[result["versions"] for result in results],
    )


def _check(worlds: Sequence[World], seeds: int, jobs: int, options: LearnerOptions) -> None:
    """Raises UserError; see `run`."""
    names = [world.name for world in worlds]
    if not worlds or seeds < 1 or jobs < 1:
        raise UserError(
            f"the experiment needs a world, a seed and a job at least, not {len(worlds)}, {seeds} and {jobs}"
        )
    if len(set(names)) < len(names):
        raise UserError(f"every world needs a name of its own, not {', '.join(names)}")
    if options.active != TASKS or options.emb_grad != "full":
        raise UserError(
            "the arms are made from options that learn all four tasks with emb_grad=full: leave learn, embedding_dim "
            "and emb_grad at their defaults"
        )


def run_units(units: Sequence[Unit], folder: Path, jobs: int, log: Log = log) -> list[dict]:
    """The results of all units, in their order; see analysis.runner.run_jobs."""
    paths = [unit.path(folder) for unit in units]
    waiting = [
        Job(unit.name, partial(_read, path), partial(FunctionProcess, measure_and_save, unit, path))
        for unit, path in zip(units, paths, strict=True)
    ]
    return run_jobs(waiting, folder, jobs, log, "units")


def measure_and_save(unit: Unit, path: Path) -> None:
    write_atomically(path, json.dumps(measure(unit), indent=1, allow_nan=False).encode())


def measure(unit: Unit) -> dict:
    """Train all arms on one split; returns what the keys below say, as JSON values.

    data: see `describe_stages`. A record is one task and metric of one arm with its comparison to REFERENCE; see
    `compare_arms`.
    """
    torch.set_num_threads(1)  # several units run at a time; also, other numbers of threads round sums otherwise
    dyads = unit.world.load(unit.options.seed)
    data = add_features(dyads, unit.features, quiet=True)
    part = next(folds(data, unit.features, seed=unit.options.seed)) if unit.held_out else None
    return {
        "world": unit.world.name,
        "seed": unit.options.seed,
        "simulated": data.simulated,
        "notes": data.notes,
        "data": describe_stages(unit.world, unit.options.seed, dyads),
        "settings": unit.settings,
        "versions": versions(),
        "records": compare_arms(measure_arms(data, part, unit.options)),
    }


def measure_arms(data: DyadicData, part: DyadicData | None, options: LearnerOptions) -> dict[str, Measured]:
    """{arm: {task: (metrics, threshold)}}; see `measure_run`."""
    measured: dict[LearnerOptions, Measured] = {}  # both arms that learn alone share the run of the embedding task
    for runs in arms(options).values():
        for one in runs:
            measured[one] = measured.get(one) or measure_run(data, part, one)
    return {
        arm: {task: found for one in runs for task, found in measured[one].items()}
        for arm, runs in arms(options).items()
    }


def measure_run(data: DyadicData, part: DyadicData | None, options: LearnerOptions) -> Measured:
    """Train and measure on the test dyads, each task at the threshold with the best F1 on training dyads.

    With `part`, the threshold is chosen on the dyads that it holds out, scored by a second network fitted to the rest.
    Without it, it is chosen on all training dyads, scored by the network that was fitted to them. Embeddings memorize
    these dyads: their scores lie further apart than those of new dyads, and the threshold of arms with embeddings is
    off.
    """
    own = score_dyads(data, options)
    chosen_on, rows = (own, data.train) if part is None else (score_dyads(part, options), part.test)
    found = {}
    for task, score in own.items():
        labels = data.task_labels[:, TASKS.index(task)]
        threshold, _ = best_threshold(labels[rows], chosen_on[task][rows], THRESHOLDS)
        columns = (column[data.test] for column in (data.user_ids, data.item_ids, labels, score))
        found[task] = evaluate(*columns, data.num_users, threshold), threshold
    return found


def score_dyads(data: DyadicData, options: LearnerOptions) -> dict[str, np.ndarray]:
    """Train on the training dyads, score all: {task: (D,) logits}."""
    trained = train(data, options, quiet=True)
    return scores(trained.model, trained.inputs, np.arange(len(data)), options)


def compare_arms(measured: Mapping[str, Measured]) -> list[dict]:
    """A record for every task, arm and metric: its value, and two Wilcoxon tests against REFERENCE.

    ranksum_worse, signed_rank_worse: the arm that is worse at LEVEL, this one or REFERENCE; None for neither. Values
    that do not exist (no user has an AUC) are None.
    """
    return [
        {"task": task, "arm": arm, "metric": metric, "value": _number(by_task[task][0].means[metric])}
        | tests
        | {"threshold": by_task[task][1], "users": int(by_task[task][0].users)}
        | {"skipped": int(by_task[task][0].skipped)}
        for task in TASKS
        for arm, by_task in measured.items()
        for metric, tests in _tests(arm, by_task[task][0], measured[REFERENCE][task][0]).items()
    ]


def _tests(arm: str, own: TaskMetrics, other: TaskMetrics) -> dict[str, dict]:
    """{metric: the tests' columns of its record}; all None for REFERENCE itself."""
    names = {"first": arm, "second": REFERENCE, None: None}
    found = {}
    for metric, comparison in compare(own, other, LEVEL).items():
        p = comparison.signed_rank_p
        tests = {
            "ranksum_p": _number(comparison.ranksum_p),
            "ranksum_worse": names[comparison.worse],
            "signed_rank_p": _number(p),
            "signed_rank_worse": names[_signed_rank_worse(own.per_user[metric], other.per_user[metric], p)],
        }
        found[metric] = dict.fromkeys(tests) if arm == REFERENCE else tests
    return found


def _signed_rank_worse(own: np.ndarray, other: np.ndarray, p: float) -> str | None:
    """Which of two vectors over users is lower by the signed-rank test at LEVEL: "first", "second" or None."""
    if not p < LEVEL:
        return None
    differences = own - other
    differences = differences[np.isfinite(differences) & (differences != 0)]
    balance = (np.sign(differences) * stats.rankdata(np.abs(differences))).sum()
    return "first" if balance < 0 else "second"


def _read(path: Path) -> dict | None:
    """The result of a finished unit; None for any other, such as one that does not say what it was measured with."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        return result if "versions" in result else None
    except (OSError, ValueError, TypeError):
        return None


def _number(value: float) -> float | None:
    """None for nan and infinity, which JSON lacks."""
    return float(value) if math.isfinite(value) else None
