"""Grade a models.py: 14 points, 8 for checks that students see and 6 for hidden ones.

    python grader.py                    grade the models.py next to this file
    python grader.py 1a                 run one question; 1a-0-basic is one check
    python grader.py --path DIR         grade DIR/models.py
    python grader.py --public           the student's view: hidden checks run but do not count

Each check runs the solution in its own process with a time limit, so that an endless loop or a crash fails only that
check. The result is judged in this process, where no code of the solution runs. See grading/.
"""

import argparse
import concurrent.futures
import contextlib
import difflib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sources.files import write_atomically

ROOT = Path(__file__).resolve().parent
WORKER = ROOT / "grading" / "worker.py"
# Files and folders that hold answers, which a solution must not read.
ANSWERS = [ROOT / name for name in ("grader.py", "grading", "tests", "autograder.zip", ".git", "__pycache__")]
GRADESCOPE_VISIBILITY = {False: "visible", True: "after_published"}  # by check.hidden


@dataclass(frozen=True)
class CheckResult:
    """The result of a check.

    status: PASS, FAIL, ERROR, TIMEOUT or NOT IMPLEMENTED.
    seconds, time_limit: time taken and time allowed.
    explanation: lines for the student; empty for PASS.
    trace: the traceback of an ERROR.
    """

    check: object
    status: str
    seconds: float
    time_limit: float
    explanation: tuple[str, ...] = ()
    trace: str = ""

    @property
    def points(self) -> int:
        return self.check.points if self.status == "PASS" else 0


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0 all checks passed, 1 a check failed, 2 wrong arguments, 130 Ctrl-C."""
    arguments = parse(argv)
    sys.stdout.reconfigure(errors="backslashreplace")  # the terminal may not support what a solution prints
    from grading.checks import all_checks

    checks = all_checks()
    if arguments.list:
        print_checks(checks, arguments.public)
        return 0
    folder = Path(arguments.path).resolve()
    try:
        checks = select(checks, arguments.select, arguments.fast)
        if arguments.public and all(check.hidden for check in checks):
            raise ValueError("these checks are hidden, and --public counts none of them")
        if not (folder / "models.py").is_file():
            raise ValueError(f"there is no models.py in {folder}; --path DIR names another folder")
        if arguments.gradescope:
            check_writable(Path(arguments.gradescope))
    except ValueError as error:
        print(f"grader.py: error: {error}", file=sys.stderr)
        return 2
    return grade_and_report(folder, checks, arguments)


def print_checks(checks: list, public: bool) -> None:
    for check in checks:
        sentence = "hidden" if public and check.hidden else check.sentence
        print(f"{check.id:<12} {check.points} point   {sentence}")


def grade_and_report(folder: Path, checks: list, arguments: argparse.Namespace) -> int:
    """Grade, print each result as it comes and the points at the end; returns the exit code."""
    start = time.monotonic()
    results = []
    print(f"grading {folder / 'models.py'}\n", flush=True)
    try:
        for result in grade(folder, checks, arguments.timeout_scale, arguments.jobs):
            results.append(result)
            print(describe(result, arguments.public, arguments.verbose), flush=True)
    except KeyboardInterrupt:
        print(f"grader.py: stopped after {len(results)} of {len(checks)} checks", file=sys.stderr)
        return 130
    counted = [result for result in results if not (arguments.public and result.check.hidden)]
    print(table(counted))
    if arguments.gradescope:
        write_gradescope(Path(arguments.gradescope), results, time.monotonic() - start)
    return 0 if all(result.status == "PASS" for result in counted) else 1


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="grader.py", description="Grade a models.py, 14 points.", allow_abbrev=False)
    parser.add_argument(
        "select", nargs="*", metavar="CHECK", help="questions (1a) or checks (1a-0-basic); default: all"
    )
    parser.add_argument("--list", action="store_true", help="list the checks and stop")
    parser.add_argument("--path", default=ROOT, metavar="DIR", help="grade DIR/models.py")
    parser.add_argument("--public", action="store_true", help="the student's view: hidden checks run but do not count")
    parser.add_argument("--fast", action="store_true", help="skip the checks that train a network")
    parser.add_argument(
        "--timeout-scale", type=float, default=1.0, metavar="X", help="multiply the time limit of every check by X"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=count_processors(),
        metavar="N",
        help="checks run at a time (default: all processors)",
    )
    parser.add_argument("--gradescope", metavar="FILE", help="also write Gradescope's results.json to FILE")
    parser.add_argument("-v", "--verbose", action="store_true", help="print the traceback of every error")
    arguments = parser.parse_args(argv)
    if not 0 < arguments.timeout_scale <= 1000:
        parser.error(f"--timeout-scale must be greater than 0 and at most 1000, not {arguments.timeout_scale:g}")
    if arguments.jobs < 1:
        parser.error(f"--jobs must be at least 1, not {arguments.jobs}")
    return arguments


def count_processors() -> int:
    """The number of processors that this process may use; a container often has fewer than its host."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def select(checks: list, wanted: list[str], fast: bool) -> list:
    """Select checks by question or id, in their original order; none given means all.

    Raises:
        ValueError: there is no such question or check, or no check is left.
    """
    known = {check.id for check in checks} | {check.question for check in checks}
    for name in wanted:
        if name not in known:
            close = difflib.get_close_matches(name, sorted(known), n=1)
            raise ValueError(
                f"there is no check {name!r}{f'; did you mean {close[0]}?' if close else ''} (--list shows all)"
            )
    chosen = [check for check in checks if not wanted or {check.id, check.question} & set(wanted)]
    chosen = [check for check in chosen if not (fast and check.trains)]
    if not chosen:
        raise ValueError("--fast leaves none of these checks")
    return chosen


class Workers(set):
    """The running worker processes. Once `is_closed` is set, a process started afterwards must be stopped at once."""

    is_closed = False


def grade(folder: Path, checks: list, timeout_scale: float = 1.0, jobs: int = 1) -> Iterator[CheckResult]:
    """Run `jobs` checks at a time and yield their results in order. Leaves no process running, however it ends."""
    running = Workers()
    pool = concurrent.futures.ThreadPoolExecutor(max_workers=jobs)
    try:
        yield from pool.map(lambda check: run_check(folder, check, timeout_scale * check.seconds, running), checks)
    finally:
        running.is_closed = True
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list(running):
            stop(process)


def run_check(folder: Path, check, time_limit: float, running: Workers) -> CheckResult:
    """Run one check in its own process and judge the answer."""
    from grading.checks import CheckFailed

    start = time.monotonic()
    answer, problem = ask_worker(folder, check.jobs, time_limit, running)
    seconds = time.monotonic() - start
    if answer is None:
        status = "TIMEOUT" if seconds >= time_limit else "ERROR"
        return CheckResult(check, status, seconds, time_limit, (problem,))
    try:
        if "not_implemented" in answer:
            return CheckResult(check, "NOT IMPLEMENTED", seconds, time_limit)
        if "error" in answer:
            message, trace = printable(answer["error"]), str(answer["trace"])
            return CheckResult(check, "ERROR", seconds, time_limit, (message,), trace)
        if "mismatch" in answer:
            raise CheckFailed(printable(answer["mismatch"]["expected"]), printable(answer["mismatch"]["got"]), "")
        check.judge(answer["results"])
    except CheckFailed as failure:
        explanation = [f"expected: {failure.expected}", f"got:      {printable(failure.got)}"]
        hint = [f"hint:     {failure.hint}"] if failure.hint else []
        return CheckResult(check, "FAIL", seconds, time_limit, (*explanation, *hint))
    except Exception as error:  # the worker never sends such an answer, so the solution has forged it
        message = f"the answer cannot be read ({type(error).__name__})"
        return CheckResult(check, "ERROR", seconds, time_limit, (message,))
    return CheckResult(check, "PASS", seconds, time_limit)


def ask_worker(folder: Path, jobs: list[dict], time_limit: float, running: Workers) -> tuple[dict | None, str]:
    """Send jobs to a new worker process; returns its answer, or None and the problem."""
    other_solutions = [ROOT / "models.py"] if folder != ROOT else []
    process = subprocess.Popen(
        [sys.executable, "-B", WORKER, folder, *ANSWERS, *other_solutions],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    running.add(process)
    if running.is_closed:  # Ctrl-C came while it was being started
        stop(process)
    try:
        out, _ = process.communicate(json.dumps(jobs).encode(), timeout=time_limit)
    except subprocess.TimeoutExpired:
        return None, f"no answer within {time_limit:g} s: an endless loop, or far more work than necessary"
    except (OSError, ValueError) as error:
        return None, f"the process did not take its input ({error})"
    finally:
        stop(process)
        running.discard(process)
    try:
        answer = json.loads(out)
        return (answer, "") if isinstance(answer, dict) else (None, "the answer cannot be read")
    except (ValueError, RecursionError):
        return None, f"the process ended without an answer, with exit code {process.returncode}"


def stop(process: subprocess.Popen) -> None:
    """Kill the process and, where process groups exist, its children; never waits for the children."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError, ValueError):
            pipe.close()


def printable(text: object) -> str:
    """Replace control characters by spaces, so that a solution cannot print over the results."""
    return "".join(letter if letter.isprintable() else " " for letter in str(text))


def describe(result: CheckResult, public: bool, verbose: bool) -> str:
    """The lines printed for a result."""
    check = result.check
    if public and check.hidden:
        return f"{check.id:<12} {'hidden':<16} {check.points} point, shown after hand-in"
    times = f"{result.seconds:.1f} s of {result.time_limit:g} s"
    lines = [f"{check.id:<12} {result.status:<16} {result.points}/{check.points}  {times:<16}  {check.sentence}"]
    lines += [f"{'':<13}{line}" for line in result.explanation]
    if verbose and result.trace:
        lines += [f"{'':<13}| {printable(line)}" for line in result.trace.rstrip().splitlines()]
    return "\n".join(lines)


def table(results: list[CheckResult]) -> str:
    """Points by question, and in total."""
    from grading.checks import QUESTIONS

    lines = [""]
    for question, title in QUESTIONS.items():
        of_question = [result for result in results if result.check.question == question]
        if of_question:
            lines.append(f"{question:<4} {title:<48} {earned(of_question)}")
    return "\n".join([*lines, f"{'':<4} {'Total':<48} {earned(results)}"])


def earned(results: list[CheckResult]) -> str:
    return f"{sum(r.points for r in results):>3} / {sum(r.check.points for r in results)}"


def check_writable(path: Path) -> None:
    """Raise ValueError if the results cannot be written, before the time for grading is spent."""
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK) or path.is_dir():
        raise ValueError(f"{path} cannot be written; --gradescope takes a file in a folder that exists")


def write_gradescope(path: Path, results: list[CheckResult], seconds: float) -> None:
    """Write results.json as Gradescope's autograder specification defines it."""
    tests = [
        {
            "number": result.check.id,
            "name": result.check.sentence,
            "score": result.points,
            "max_score": result.check.points,
            "status": "passed" if result.status == "PASS" else "failed",
            "output": "\n".join([result.status, *result.explanation]),
            "visibility": GRADESCOPE_VISIBILITY[result.check.hidden],
        }
        for result in results
    ]
    report = {
        "execution_time": round(seconds, 1),
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "tests": tests,
    }
    write_atomically(path, (json.dumps(report, indent=2) + "\n").encode())


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # the reader of a pipe such as `| head` has closed it
        os._exit(1)
