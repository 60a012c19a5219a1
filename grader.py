"""Grade a models.py: 14 points, 8 for checks that students see and 6 for hidden ones.

    python grader.py                    grade the models.py next to this file
    python grader.py 1a                 run one question; 1a-0-basic is one check
    python grader.py --path PLACE       grade another models.py: a folder, a zip or a file
    python grader.py --public           the student's view: hidden checks run but do not count
    python grader.py --class DIR --csv grades.csv       grade every hand-in in a folder

Each check runs the solution in its own process with a time limit, so that an endless loop or a crash fails only that
check. The result is judged in this process, where no code of the solution runs. See grading/.
"""

if __name__ == "__main__":
    # Ctrl-C in the first second ends the program at once: raised inside an import, it might be swallowed there.
    import signal

    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import difflib
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from config.errors import EXIT_OK, EXIT_USER_ERROR, UserError
from config.streams import open_closed_streams
from grading import report, sandbox
from grading.checks import all_checks
from grading.classroom import Classroom
from grading.hand_in import collect, digest
from grading.pool import Pool
from grading.questions import QUESTIONS, Check
from grading.results import CheckResult, Grading
from grading.signals import ending_at_once
from sources.files import write_atomically

ROOT = Path(__file__).resolve().parent
# Files and folders that hold answers, which a solution must not read.
ANSWERS = tuple(
    ROOT / name
    for name in (
        "grader.py",
        "models.py",
        "grading",
        "tests",
        "multitask",
        "zoo",
        "benchmarks",
        "autograder.zip",
        ".git",
    )
)
EXIT_CHECK_FAILED = 1
SANDBOXES = {
    "kernel": "sandbox: the kernel closes solutions in (Landlock, seccomp)",
    "guard": "sandbox: none, only the guard in Python; see docs/teaching.md",
}


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0 all checks passed, or a class is graded; 1 a check failed; 2 wrong arguments."""
    open_closed_streams()
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # what a solution prints
    try:
        arguments = parse(argv)
        checks = select(all_checks(), arguments.select, arguments.fast)
        if arguments.list:
            print(report.list_checks(checks, arguments.public))
            return EXIT_OK
        arguments.sandbox = "kernel" if arguments.sandbox == "auto" and sandbox.is_available() else "guard"
        if arguments.hand_ins is not None:
            return grade_class(checks, arguments)
        return grade_one(checks, arguments)
    except BrokenPipeError:
        raise
    except (UserError, OSError) as error:
        print(f"grader.py: error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR


def grade_one(checks: list[Check], arguments: argparse.Namespace) -> int:
    """Grade one hand-in, print each result as it comes and the points at the end; returns the exit code."""
    if arguments.public and all(check.hidden for check in checks):
        raise UserError("these checks are hidden, and --public counts none of them")
    if arguments.gradescope:
        require_writable(Path(arguments.gradescope).parent, "--gradescope")
    start = time.monotonic()
    done: list[CheckResult] = []
    pool = Pool(arguments.jobs, arguments.jobs, arguments.sandbox)
    with unchanged_grader(), ending_at_once(pool, lambda: f"{len(done)} of {len(checks)} checks"), pool:
        place = pool.new_place()
        note = collect(Path(arguments.path), place, ANSWERS)
        print(f"grading {arguments.path}" + (f" ({note})" if note else ""))
        print(f"{SANDBOXES[arguments.sandbox]}\n", flush=True)
        grading = Grading(place, checks, arguments.timeout_scale, ANSWERS)
        print_results(grading, pool, arguments, done)
    results = grading.in_order()
    counted = [result for result in results if not (arguments.public and result.check.hidden)]
    print(report.table(counted))
    if arguments.gradescope:
        reason = report.reason_of(grading.import_failure) if grading.import_failure else ""
        content = report.as_gradescope(results, time.monotonic() - start, reason)
        write_atomically(Path(arguments.gradescope), (json.dumps(content, indent=2) + "\n").encode())
    return EXIT_OK if all(result.status == "PASS" for result in counted) else EXIT_CHECK_FAILED


def print_results(grading: Grading, pool: Pool, arguments: argparse.Namespace, done: list[CheckResult]) -> None:
    """Run the checks, add each result to `done`, and print it as soon as those before it are known."""
    waiting = list(grading.checks)
    for _, found in pool.run([grading]):
        done.append(found)
        failure = grading.import_failure
        if failure is not None and len(waiting) == len(grading.checks):
            print(report.describe_import_failure(failure, arguments.verbose))
        while waiting and waiting[0].id in grading.results:
            result = grading.results[waiting.pop(0).id]
            print(report.describe(result, arguments.public, arguments.verbose, failure is None), flush=True)


def grade_class(checks: list[Check], arguments: argparse.Namespace) -> int:
    """Grade a folder of hand-ins into a CSV and print a summary; returns the exit code."""
    folder, table = Path(arguments.hand_ins), Path(arguments.csv)
    details = None if arguments.json is None else Path(arguments.json)
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; --class takes the folder that holds the hand-ins")
    require_writable(table.parent, "--csv")
    if details is not None:
        details.mkdir(exist_ok=True)
    room = Classroom(folder, checks, table, details, arguments.timeout_scale)
    print(f"grading {len(room.hand_ins)} hand-ins, {arguments.jobs} at a time", SANDBOXES[arguments.sandbox], sep="\n")
    pool = Pool(arguments.jobs, 1, arguments.sandbox)
    with unchanged_grader(), ending_at_once(pool, room.how_far), pool:
        room.grade(pool, ANSWERS, lambda line: print(line, flush=True))
    print("", *room.summary(), sep="\n")
    return EXIT_OK


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="grader.py", description="Grade a models.py, 14 points.", allow_abbrev=False)
    add = parser.add_argument
    add("select", nargs="*", metavar="CHECK", help="questions (1a) or checks (1a-0-basic); default: all")
    add("--list", action="store_true", help="list the checks and stop")
    add("--path", default=ROOT, metavar="PLACE", help="grade another models.py: a folder, a zip or a file")
    add("--public", action="store_true", help="the student's view: hidden checks run but do not count")
    add("--fast", action="store_true", help="skip the checks that train a network")
    add("--timeout-scale", type=float, default=1.0, metavar="X", help="multiply every time limit by X")
    add("--jobs", type=int, metavar="N",
        help="checks at a time (default: 2), or hand-ins of a class (default: all processors)")  # fmt: skip
    add("--gradescope", metavar="FILE", help="also write Gradescope's results.json to FILE")
    add("--class", dest="hand_ins", metavar="DIR", help="grade every folder, zip and file in DIR")
    add("--csv", metavar="FILE", help="with --class: the table of grades; rows that are still true are kept")
    add("--json", metavar="DIR", help="with --class: also write a results.json for each hand-in to DIR")
    add("--sandbox", choices=("auto", "off"), default="auto",
        help="auto: the kernel closes solutions in, where it can; off: only a guard in Python does")  # fmt: skip
    add("-v", "--verbose", action="store_true", help="print what the solution prints, and the traceback of every error")
    arguments = parser.parse_args(argv)
    if not 0 < arguments.timeout_scale <= 1000:
        parser.error(f"--timeout-scale must be greater than 0 and at most 1000, not {arguments.timeout_scale:g}")
    if arguments.jobs is None:
        arguments.jobs = count_processors() if arguments.hand_ins is not None else min(2, count_processors())
    if arguments.jobs < 1:
        parser.error(f"--jobs must be at least 1, not {arguments.jobs}")
    check_class_flags(parser, arguments)
    return arguments


def check_class_flags(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    is_class = arguments.hand_ins is not None
    if is_class and arguments.csv is None:
        parser.error("--class needs --csv FILE for the grades")
    for name in ("csv", "json"):
        if not is_class and getattr(arguments, name) is not None:
            parser.error(f"--{name} goes with --class DIR")
    for name, default in {"path": ROOT, "public": False, "gradescope": None, "verbose": False}.items():
        if is_class and getattr(arguments, name) != default:
            parser.error(f"--{name} does not go with --class")


def count_processors() -> int:
    """The number of processors that this process may use; a container often has fewer than its host."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def select(checks: list[Check], wanted: list[str], fast: bool) -> list[Check]:
    """Select checks by question or id, in their original order; none given means all.

    Raises:
        UserError: there is no such question or check, or no check is left.
    """
    known = {check.id for check in checks} | {check.question for check in checks}
    for name in wanted:
        if name in QUESTIONS and name not in known:  # in a student's copy
            raise UserError(f"all checks of question {name} are hidden: they run after the work is handed in")
        if name not in known:
            close = difflib.get_close_matches(name, sorted(known), n=1)
            raise UserError(
                f"there is no check {name!r}{f'; did you mean {close[0]}?' if close else ''} (--list shows all)"
            )
    chosen = [check for check in checks if not wanted or {check.id, check.question} & set(wanted)]
    chosen = [check for check in chosen if not (fast and check.trains)]
    if not chosen:
        raise UserError("--fast leaves none of these checks")
    return chosen


@contextmanager
def unchanged_grader() -> Iterator[None]:
    """Raise UserError afterwards if a solution has written over the grader: its results count for nothing then."""
    before = digest(ROOT / "grading")
    yield
    if digest(ROOT / "grading") != before:
        raise UserError("files in grading/ have changed during the grading: restore them, and grade again in a sandbox")


def require_writable(folder: Path, flag: str) -> None:
    """Raise UserError if results cannot be written, before the time for grading is spent."""
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"{folder} is no folder that can be written to; {flag} takes a file in one")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # the reader of a pipe such as `| head` has closed it
        os._exit(1)
