"""SIGINT, SIGTERM and SIGHUP at random moments of a run, imports included; then --resume."""

import signal
import time

from tests.attacks import runs
from tests.attacks.kills import next_line, require_epochs
from tests.attacks.programs import Program
from tests.attacks.runner import Attack, Broken, Case, Counts

IMPORTS = 4.0  # seconds that the imports of a started interpreter may take
EVERY_EXEC = 6  # cases; of the others the imports are done
INTERRUPTED = 130
SIGNALS = (signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def case(given: Case) -> Counts:
    families = list(runs.FAMILIES)
    family = families[given.number % len(families)]
    is_exec = given.number % EVERY_EXEC == EVERY_EXEC - 1
    line = runs.arguments(family)
    length = runs.seconds_of(given.shared, family) + (IMPORTS if is_exec else 0.0)
    number = given.random.choice(SIGNALS)
    process = Program([*line, "--logdir", "run"], given.folder, exec=is_exec)
    process.ends_within(runs.moment(given.random, length))
    process.send(number)
    if number == signal.SIGINT and given.random.random() < 0.3:
        time.sleep(given.random.uniform(0, 0.05))
        process.send(number)
    require_decent_end(process, number)
    require_epochs(given.folder / "run", process.output)
    resumed = Program(next_line(given.folder, line), given.folder, name="resumed")
    if not resumed.require_decent_end():
        raise Broken(f"after {number.name}: {resumed}: {resumed.last_words}")
    runs.require_same_run(given.folder / "run", given.shared / family)
    return {"signals": 1, number.name: 1} | ({"with imports": 1} if is_exec else {})


def require_decent_end(process: Program, number: signal.Signals) -> None:
    """Raises Broken where a process that a signal has reached ends with a traceback or another exit code."""
    code = process.wait(20)
    allowed = {0, INTERRUPTED, -signal.SIGINT} if number == signal.SIGINT else {0, -number, 128 + number}
    if code not in allowed or "Traceback" in process.errors:
        raise Broken(f"{number.name}: {process}: exit code {code}; {process.last_words}")


ATTACK = Attack(
    "signals", "Ctrl-C, SIGTERM, SIGHUP at random moments, then `--resume`", case, "signals", 100,
    short=30, share=1.2, prepare=runs.prepare_references,
)  # fmt: skip
