"""The runner of attacks: seeded cases in several processes, and the table of what was tried and what failed."""

import os
import random
import shutil
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path

Counts = dict[str, int]


class Broken(Exception):
    """A promise that the program did not keep: what was expected, what was found."""


@dataclass(frozen=True)
class Case:
    """One seeded case.

    number: its number within the attack.
    random: decides everything that the case chooses; it depends on the attack, the seed and the number alone.
    folder: an empty folder, removed afterwards.
    shared: what `prepare` has written, for reading only.
    """

    number: int
    random: random.Random
    folder: Path
    shared: Path


@dataclass(frozen=True)
class Attack:
    """A kind of attack.

    name, summary: for the table.
    case: runs a case; returns what it counted, such as {"trained": 1}. Raises Broken.
    goal: the key of these counts that the long form must bring to `least`.
    short: cases of the short form.
    share: part of the time of the long form.
    prepare: writes what all cases share into a folder; a seed decides about it.
    jobs: cases at a time at most; None: as many as there are processors.
    busy: processes that keep the processors busy meanwhile.
    """

    name: str
    summary: str
    case: Callable[[Case], Counts]
    goal: str
    least: int
    short: int
    share: float
    prepare: Callable[[Path], None] = lambda folder: None
    jobs: int | None = None
    busy: int = 0


@dataclass
class Outcome:
    """What came of an attack; failures: (case, first line of what is wrong)."""

    attack: Attack
    seed: int
    counts: Counter = field(default_factory=Counter)
    tried: int = 0
    seconds: float = 0.0
    failures: list[tuple[int, str]] = field(default_factory=list)

    @property
    def reached(self) -> int:
        return self.counts[self.attack.goal]

    def command(self, case: int) -> str:
        """The command that repeats a case."""
        return f"python -m tests.attacks --only {self.attack.name} --seed {self.seed} --case {case}"


def run_attack(
    attack: Attack, seed: int, jobs: int, cases: range | None = None, seconds: float | None = None,
    report: Callable[[str], None] = print,
) -> Outcome:  # fmt: skip
    """Run the cases, or as many as begin within the seconds."""
    outcome = Outcome(attack, seed)
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix=f"attack-{attack.name}-"))
    numbers = iter(cases if cases is not None else range(10**9))
    burners = [_fork_burner() for _ in range(attack.busy)]
    workers: list[Connection] = []
    try:
        (folder / "shared").mkdir()
        attack.prepare(folder / "shared")
        workers = [_fork_worker(attack, seed, folder) for _ in range(min(jobs, attack.jobs or jobs))]
        idle = list(workers)
        while workers:
            for worker in idle:
                is_over = seconds is not None and time.monotonic() - began > seconds
                worker.send(number := None if is_over else next(numbers, None))
                if number is None:
                    workers.remove(worker)
            idle = wait(workers) if workers else []
            for worker in idle:
                _record(outcome, *worker.recv(), report)
    finally:
        for pid in burners:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
        shutil.rmtree(folder, ignore_errors=True)
    outcome.seconds = time.monotonic() - began
    return outcome


def _fork_worker(attack: Attack, seed: int, folder: Path) -> Connection:
    """A process that runs cases by their numbers until it is sent None.

    It is forked with everything imported, and forks programs in its turn: a case costs a fork, not seconds of imports.
    """
    ours, theirs = Pipe()

    def work() -> None:
        while (number := theirs.recv()) is not None:
            theirs.send((number, *_run_case(attack, seed, number, folder)))

    get_context("fork").Process(target=work, daemon=True).start()
    theirs.close()
    return ours


def _record(outcome: Outcome, number: int, counts: Counts, failure: str, report: Callable[[str], None]) -> None:
    outcome.tried += 1
    outcome.counts.update(counts)
    if failure:
        outcome.failures.append((number, failure))
        report(f"{outcome.attack.name}, case {number}: {failure}\n    {outcome.command(number)}")


def _run_case(attack: Attack, seed: int, number: int, folder: Path) -> tuple[Counts, str]:
    """(what was counted, what is wrong)."""
    place = folder / f"case-{number}"
    place.mkdir()
    case = Case(number, random.Random(f"{attack.name} {seed} {number}"), place, folder / "shared")
    try:
        return attack.case(case), ""
    except Broken as error:
        return {}, str(error)
    except Exception:
        return {}, f"the attack itself failed:\n{traceback.format_exc()}"
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _fork_burner() -> int:
    """A process that uses a processor until it is killed."""
    pid = os.fork()
    if pid == 0:
        while os.getppid() != 1:
            pass
        os._exit(0)
    return pid


def table(outcomes: list[Outcome]) -> str:
    """What was tried and what failed, as a Markdown table, and the first failure of each attack."""
    lines = ["| attack | cases | of these | failed | seconds |", "|---|---|---|---|---|"]
    for outcome in outcomes:
        counts = ", ".join(f"{name} {count:,}" for name, count in sorted(outcome.counts.items(), key=lambda c: -c[1]))
        lines.append(
            f"| {outcome.attack.name}: {outcome.attack.summary} | {outcome.tried:,} | {counts} | "
            f"{len(outcome.failures):,} | {outcome.seconds:.0f} |"
        )
    for outcome in outcomes:
        if outcome.failures:
            number, failure = outcome.failures[0]
            lines += ["", f"{outcome.attack.name}, first failure: {failure}", f"    {outcome.command(number)}"]
    return "\n".join(lines)
