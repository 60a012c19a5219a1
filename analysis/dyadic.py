"""The paper's results table: four tasks learnt together against the same four learnt apart.

A *unit* is one world under one seed: its data are split and its features computed once, then every arm is trained on
them. Units run in processes of their own, and each leaves a small file, from which the experiment goes on when it is
started again. An arm is a way of learning the four tasks; all arms have the same budget and the same setting.
"""

import hashlib
import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from analysis import dyadic_tables as tables
from analysis.dyadic_tables import REFERENCE
from config.dyadic import TASKS, DyadicConfig, FeatureOptions, LearnerOptions
from config.errors import UserError
from dyadic.data import DyadicData
from dyadic.features import add_features
from dyadic.metrics import TaskMetrics, best_threshold, compare, evaluate
from dyadic.network import scores
from dyadic.recipe import read_dyads
from dyadic.simulate import SEED, simulate
from dyadic.task import train
from dyadic.tuning import folds
from sources.files import write_atomically

DEFAULT_FEATURES = FeatureOptions()
SINGLE_TASK_READINGS = ("features", "private")
# eps = 0 ends no training early: every arm takes the same number of steps.
FIXED = LearnerOptions(batch_size=64, eps=0.0)
QUICK = replace(FIXED, iterations="3000", epochs=4)
# Wider than the paper's grid, 0.3 to 0.5: a ranking score has no natural zero, and where every class weighs 1 the score
# of a rare label seldom reaches 0.3.
THRESHOLDS = tuple(percent / 100 for percent in range(1, 100))
LEVEL = 0.01  # below which p counts, as in the paper
Measured = dict[str, tuple[TaskMetrics, float]]  # by task, with the threshold behind F1


@dataclass(frozen=True)
class World:
    """Data that the arms are compared on, another split for each seed.

    name: in tables and in names of files; no two worlds of an experiment may share it.
    load: seed -> dyads, whose features are computed anew. It goes to other processes: a function of a module, or a
        partial of one.
    settings: what `load` depends on beside the seed, as JSON has it. Other settings are other units.
    """

    name: str
    load: Callable[[int], DyadicData]
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Unit:
    """One world under one seed, which is that of the split and of the learner (options.seed).

    held_out: choose thresholds on a third of the training dyads, held out; see `measure_run`.
    """

    world: World
    features: FeatureOptions
    options: LearnerOptions
    held_out: bool = True

    @property
    def settings(self) -> dict:
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
        """Another setting is another file: results of different settings never mix."""
        digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:10]
        return folder / f"{self.world.name.replace(' ', '-')}_seed={self.options.seed}_{digest}.json"


def simulated_world(scale: float) -> World:
    """The simulated platform, made anew for every seed."""
    return World("simulated-xing", partial(_simulate, scale), {"scale": scale, "seed": SEED})


def _simulate(scale: float, seed: int) -> DyadicData:
    data = simulate(scale, seed=SEED + seed)
    return replace(data, notes=(*data.notes, "every seed is another platform, not only another split"))


def ratings_world(name: str, values: Mapping[str, object]) -> World:
    """Dyads of ratings; `values` are fields of config.dyadic.DyadicConfig."""
    stored = {key: value for key, value in values.items() if key != "data_dir"}  # the place does not change the data
    return World(name, partial(_load, values), stored)


def _load(values: Mapping[str, object], seed: int) -> DyadicData:
    return read_dyads(DyadicConfig(**values, seed=seed))


def single_task(options: LearnerOptions, reading: str) -> dict[str, LearnerOptions]:
    """Options of the separate runs that make up single-task learning, by task.

    "features": clicks, bookmarks and replies from statistics and context alone, the embeddings apart (the authors'
    code, where the comparison is confounded by having embeddings or not). "private": the same network as for many
    tasks, once for each, trained by that task's loss alone.

    Raises:
        UserError: the reading is unknown, or private embeddings would never be trained.
    """
    if reading not in SINGLE_TASK_READINGS:
        raise UserError(f"unknown reading {reading!r}: choose one of {', '.join(SINGLE_TASK_READINGS)}")
    if reading == "private" and options.emb_grad == "emb_only":
        raise UserError("private embeddings need emb_grad=full: no other gradient reaches them; or choose features")
    width = {
        task: 0 if reading == "features" and task != "embedding" else options.embedding_dim for task in options.active
    }
    return {task: replace(options, learn=(task,), embedding_dim=width[task]) for task in options.active}


def arms(options: LearnerOptions) -> dict[str, list[LearnerOptions]]:
    """The runs of every arm, whose tasks together are all four; `tables.ARMS` says what they are."""
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
    say: Callable[[str], None] = print,
) -> list[Path]:
    """Measure what is not measured yet, then write all tables; returns the paths of these.

    Args:
        folder: the tables go there, and the units to its subfolder "units".
        seeds: 0 to seeds - 1 are run; options.seed is not used.
        jobs: units at a time, each on one thread.
        options: the setting of all arms, as the arm "MTL" has it.
        held_out: see `Unit`; False takes half the time, and its F1 is unfair to some arms.
        say: takes one line a unit.

    Raises:
        UserError: there is nothing to run, two worlds share a name, or the options do not learn all tasks together.
    """
    names = [world.name for world in worlds]
    if not worlds or seeds < 1 or jobs < 1:
        raise UserError(f"the experiment needs a world, a seed and a job, not {len(worlds)}, {seeds} and {jobs}")
    if len(set(names)) < len(names):
        raise UserError(f"every world needs a name of its own, not {', '.join(names)}")
    if options.active != TASKS or options.emb_grad != "full":
        raise UserError(
            "the arms are made from options that learn all four tasks with emb_grad=full; leave these alone"
        )
    seeded = [replace(options, seed=seed) for seed in range(seeds)]
    units = [Unit(world, features, one, held_out) for one in seeded for world in worlds]
    results = run_units(units, folder / "units", jobs, say)
    return tables.write(results, folder, options)


def run_units(units: Sequence[Unit], folder: Path, jobs: int, say: Callable[[str], None]) -> list[dict]:
    """The results of all units, in their order; those that are on file are not measured again."""
    folder.mkdir(parents=True, exist_ok=True)
    waiting = [unit for unit in units if _read(unit.path(folder)) is None]
    done = len(units) - len(waiting)
    if done:
        say(f"{done} of {len(units)} units are finished already, in {folder}")
    start = time.perf_counter()
    for finished, name in enumerate(_measure_all(waiting, folder, jobs), 1):
        left = (time.perf_counter() - start) / finished * (len(waiting) - finished)
        say(f"{done + finished}/{len(units)} {name}; about {left / 60:.1f} min to go")
    return [_read(unit.path(folder)) for unit in units]


def measure(unit: Unit) -> dict:
    """Train all arms on one split: {"world", "seed", "simulated", "notes", "statistics", "settings", "records"}.

    A record is one task and metric of one arm, and how the arm compares with REFERENCE; see `compare_arms`.
    """
    torch.set_num_threads(1)  # units run beside each other, and a sum by parts would end in other digits
    data = add_features(unit.world.load(unit.options.seed), unit.features, quiet=True)
    part = next(folds(data, unit.features, seed=unit.options.seed)) if unit.held_out else None
    return {
        "world": unit.world.name,
        "seed": unit.options.seed,
        "simulated": data.simulated,
        "notes": data.notes,
        "statistics": tables.statistics(data),
        "settings": unit.settings,
        "records": compare_arms(measure_arms(data, part, unit.options)),
    }


def measure_arms(data: DyadicData, part: DyadicData | None, options: LearnerOptions) -> dict[str, Measured]:
    """{arm: {task: (metrics, threshold)}}; see `measure_run`."""
    measured: dict[LearnerOptions, Measured] = {}  # arms share runs: both STL arms learn the embedding task alike
    for runs in arms(options).values():
        for one in runs:
            measured[one] = measured.get(one) or measure_run(data, part, one)
    return {
        arm: {task: found for one in runs for task, found in measured[one].items()}
        for arm, runs in arms(options).items()
    }


def measure_run(data: DyadicData, part: DyadicData | None, options: LearnerOptions) -> Measured:
    """Train, and measure on the test dyads, each task at the threshold with the best F1 on training dyads.

    Which of these: those that `part` holds out, scored by a second network that is fitted to the rest; without `part`
    all of them, by the very network that was fitted to them. Embeddings remember what they were fitted to: the scores
    of the latter lie further apart than those of new dyads, and the threshold is off for the arms that have embeddings.
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
    """A record for every task, arm and metric: its value, and what the two Wilcoxon tests say against REFERENCE.

    ranksum_worse, signed_rank_worse: the arm that the test calls worse at LEVEL, the own one or REFERENCE; else None.
    A number that does not exist (no user has an AUC) is None.
    """
    records = []
    for task in TASKS:
        for arm, by_task in measured.items():
            (own, threshold), (other, _) = by_task[task], measured[REFERENCE][task]
            for metric, found in compare(own, other, LEVEL).items():
                names = {"first": arm, "second": REFERENCE, None: None}
                paired = _signed_rank_worse(own.per_user[metric], other.per_user[metric], found.signed_rank_p)
                against = {
                    "ranksum_p": _number(found.ranksum_p),
                    "ranksum_worse": names[found.worse],
                    "signed_rank_p": _number(found.signed_rank_p),
                    "signed_rank_worse": names[paired],
                }
                records.append(
                    {"task": task, "arm": arm, "metric": metric, "value": _number(own.means[metric])}
                    | (dict.fromkeys(against) if arm == REFERENCE else against)
                    | {"threshold": threshold, "users": int(own.users), "skipped": int(own.skipped)}
                )
    return records


def _signed_rank_worse(own: np.ndarray, other: np.ndarray, p: float) -> str | None:
    """Which of two vectors by user the signed-rank test calls lower: "first", "second" or None."""
    if not p < LEVEL:
        return None
    differences = own - other
    differences = differences[np.isfinite(differences) & (differences != 0)]
    balance = (np.sign(differences) * stats.rankdata(np.abs(differences))).sum()
    return "first" if balance < 0 else "second"


def _measure_all(units: Sequence[Unit], folder: Path, jobs: int) -> Iterator[str]:
    """Measure and save; yields what to call each unit, as they end."""
    if jobs == 1 or len(units) < 2:
        yield from (_measure_and_save(unit, folder) for unit in units)
        return
    # A forked child may hang in the locks of its parent's threads: children start afresh. Ctrl-C reaches all of them;
    # they end without a word, and the parent answers.
    quietly = (signal.SIGINT, signal.SIG_DFL)
    pool = ProcessPoolExecutor(min(jobs, len(units)), get_context("spawn"), signal.signal, quietly)
    try:
        futures = [pool.submit(_measure_and_save, unit, folder) for unit in units]
        yield from (future.result() for future in as_completed(futures))
    except BrokenProcessPool:
        raise UserError("a process ended before its unit did, perhaps for lack of memory; take fewer jobs") from None
    finally:
        pool.shutdown(cancel_futures=True)  # units under way come to their end and are saved


def _measure_and_save(unit: Unit, folder: Path) -> str:
    write_atomically(unit.path(folder), json.dumps(measure(unit), indent=1, allow_nan=False).encode())
    return f"{unit.world.name}, seed {unit.options.seed}"


def _read(path: Path) -> dict | None:
    """The result of a finished unit, else None."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _number(value: float) -> float | None:
    """JSON has no nan."""
    return float(value) if math.isfinite(value) else None
