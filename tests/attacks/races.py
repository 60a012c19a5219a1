"""Two programs on one folder at random offsets: one wins, or both do their work in turn; nothing is mixed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.attacks import runs, worlds
from tests.attacks.programs import Program, descendants
from tests.attacks.runner import Attack, Broken, Case, Counts

HALF = 2  # epochs of a run that is resumed twice
SEEDS = (1, 2)
EVERY_EXPERIMENT = 20  # cases; an experiment starts interpreters, which takes seconds
EXPERIMENT = ["weights", "--ratings", "my.csv", "--seeds", 1, "--epochs", 3, "--folder", "results"]


def prepare(folder: Path) -> None:
    worlds.write_files(folder)
    for seed in SEEDS:
        runs.reference(folder, f"seed{seed}", new_run(seed))
    runs.reference(folder, "half", [*runs.arguments("multitask", HALF), "--seed", SEEDS[0]])
    alone = Program(EXPERIMENT, folder, "experiment.log", "experiments.py")
    if not alone.require_decent_end():
        raise Broken(alone.last_words)


def new_run(seed: int) -> list:
    return [*runs.arguments("multitask"), "--seed", seed]


def case(given: Case) -> Counts:
    if given.number % EVERY_EXPERIMENT == EVERY_EXPERIMENT - 1:
        return {"races": 1, "experiments": 1} | race_experiments(given)
    kinds: list[Callable[[Case], Counts]] = [race_starts, race_resumes, race_start_and_resume, race_without_logdir]
    kind = kinds[given.number % len(kinds)]
    return {"races": 1, kind.__name__.removeprefix("race_").replace("_", " "): 1} | kind(given)


def start_both(given: Case, lines: list[list], length: float, script: str = "main.py") -> list[Program]:
    """Two programs, the second after a random part of the length, mostly soon."""
    first = Program(lines[0], given.folder, "first", script)
    first.ends_within(length * given.random.choice((0, 0.02, 0.1, 0.5, 1.0)) * given.random.random())
    return [first, Program(lines[1], given.folder, "second", script)]


def race_starts(given: Case) -> Counts:
    """Two new runs with different seeds in one folder, which may exist already."""
    length = runs.seconds_of(given.shared, "seed1")
    if given.random.random() < 0.6:
        (given.folder / "run").mkdir()
    both = start_both(given, [[*new_run(seed), "--logdir", "run"] for seed in SEEDS], length)
    won = [process.require_decent_end() for process in both]
    if sum(won) != 1:
        raise Broken(
            f"two starts in one folder: {sum(won)} of them succeed; {both[0].last_words}; {both[1].last_words}"
        )
    require_unmixed(given.folder / "run", given.shared / f"seed{SEEDS[won.index(True)]}", SEEDS[won.index(True)], 1)
    return {}


def race_resumes(given: Case) -> Counts:
    """Two --resume of one run."""
    shutil.copytree(given.shared / "half", given.folder / "run")
    line = ["--resume", "run", "--epochs", runs.EPOCHS]
    both = start_both(given, [line, line], runs.seconds_of(given.shared, "half"))
    won = [process.require_decent_end() for process in both]
    printed = [set(runs.epochs_printed(process.output)) for process in both]
    if not any(won) or printed[0] & printed[1]:
        raise Broken(f"two resumes of one run: epochs {sorted(printed[0])} and {sorted(printed[1])}, exit codes "
                     f"{[process.code for process in both]}; {both[0].last_words}; {both[1].last_words}")  # fmt: skip
    require_advice(both)
    require_unmixed(given.folder / "run", given.shared / "seed1", SEEDS[0], 1 + sum(won))
    return {}


def race_start_and_resume(given: Case) -> Counts:
    """A new run, and a --resume of it while it trains or after it."""
    length = runs.seconds_of(given.shared, "seed1")
    both = start_both(given, [[*new_run(1), "--logdir", "run"], ["--resume", "run"]], 2 * length)
    won = [process.require_decent_end() for process in both]
    printed = [set(runs.epochs_printed(process.output)) for process in both]
    if not any(won) or printed[0] & printed[1]:
        raise Broken(f"a run and its resume: epochs {sorted(printed[0])} and {sorted(printed[1])}, exit codes "
                     f"{[process.code for process in both]}; {both[0].last_words}; {both[1].last_words}")  # fmt: skip
    if won[0] or won[1]:
        require_unmixed(given.folder / "run", given.shared / "seed1", 1, 2)
    require_advice(both)
    return {}


def race_without_logdir(given: Case) -> Counts:
    """Two runs that choose their folders themselves, under the same name."""
    both = start_both(given, [new_run(1), new_run(1)], runs.seconds_of(given.shared, "seed1"))
    won = [process.require_decent_end() for process in both]
    folders = sorted((given.folder / "run").iterdir())
    if not any(won) or len(folders) != sum(won):
        raise Broken(f"two runs without --logdir: {sum(won)} succeed and leave {[path.name for path in folders]}")
    for folder in folders:
        require_unmixed(folder, given.shared / "seed1", 1, 1)
    return {}


def race_experiments(given: Case) -> Counts:
    """Two experiments on one folder of results."""
    shutil.copy(given.shared / "my.csv", given.folder)
    both = start_both(given, [EXPERIMENT, EXPERIMENT], 12.0, "experiments.py")
    try:
        won = [process.require_decent_end() for process in both]
    finally:
        for process in both:
            for _ in descendants(process.pid):
                process.kill()
    if not any(won):
        raise Broken(f"two experiments: none succeeds; {both[0].last_words}; {both[1].last_words}")
    if (given.folder / "results/weights.csv").read_bytes() != (given.shared / "results/weights.csv").read_bytes():
        raise Broken("two experiments: their table is not that of one alone")
    return {}


def require_advice(both: list[Program]) -> None:
    """Raises Broken where a refused program names anything but the other one."""
    for process in both:
        if process.code == 2 and "make room" in process.errors:
            raise Broken(f"a race is lost with the advice to make room: {process.last_words}")


def require_unmixed(run: Path, whole: Path, seed: int, most_events: int) -> None:
    """Raises Broken where the folder holds anything but the one run."""
    settings = json.loads((run / "config.json").read_text())["settings"]
    if settings["seed"] != seed:
        raise Broken(f"the run with seed {seed} succeeded, and config.json has seed {settings['seed']}")
    events = [path.name for path in run.glob("events.out.tfevents.*")]
    if not 1 <= len(events) <= most_events:
        raise Broken(f"{len(events)} files of events in a folder where {most_events} programs have trained")
    runs.require_whole_files(run)
    runs.require_same_run(run, whole)


ATTACK = Attack(
    "races", "two programs on one folder at random offsets", case, "races", 200, short=20, share=3.3, prepare=prepare
)
