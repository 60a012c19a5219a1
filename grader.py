"""Grade a models.py: 14 points, 8 of them for checks that students see, 6 for hidden ones.

    python grader.py                    grade the models.py beside this file
    python grader.py 1a                 one question; 1a-0-basic is one check
    python grader.py --path DIR         grade DIR/models.py
    python grader.py --public           the student's view: hidden checks run, and do not count

Each check runs the solution in a process of its own with a time limit, so that an endless loop or a crash costs that
check alone; the verdict is reached here, where no solution runs. See grading/.
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

ROOT = Path(__file__).resolve().parent
WORKER = ROOT / "grading" / "worker.py"
# What a solution has no business reading.
ANSWERS = [ROOT / name for name in ("grader.py", "grading", "tests", "autograder", ".git", "__pycache__")]
GRADESCOPE_KIND = {False: "visible", True: "after_published"}


@dataclass(frozen=True)
class Verdict:
    """How a check ended.

    status: PASS, FAIL, ERROR, TIMEOUT or NOT IMPLEMENTED.
    why: sentences for the student; empty for PASS.
    trace: the traceback of an ERROR.
    """

    check: object
    status: str
    seconds: float
    allowed: float
    why: tuple[str, ...] = ()
    trace: str = ""

    @property
    def points(self) -> int:
        return self.check.points if self.status == "PASS" else 0


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0 all points, 1 something failed, 2 nothing could be graded."""
    arguments = parse(argv)
    sys.stdout.reconfigure(errors="backslashreplace")  # what a solution says may not fit the terminal
    from grading.checks import all_checks

    checks = all_checks()
    if arguments.list:
        shown = [(check, "hidden" if arguments.public and check.hidden else check.sentence) for check in checks]
        print(*(f"{check.id:<12} {check.points} point   {sentence}" for check, sentence in shown), sep="\n")
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

    start = time.monotonic()
    verdicts = []
    print(f"grading {folder / 'models.py'}\n", flush=True)
    try:
        for verdict in grade(folder, checks, arguments.timeout_scale, arguments.jobs):
            verdicts.append(verdict)
            print(line(verdict, arguments.public, arguments.verbose), flush=True)
    except KeyboardInterrupt:
        print(f"grader.py: stopped after {len(verdicts)} of {len(checks)} checks", file=sys.stderr)
        return 130
    counted = [verdict for verdict in verdicts if not (arguments.public and verdict.check.hidden)]
    print(table(counted))
    if arguments.gradescope:
        write_gradescope(Path(arguments.gradescope), verdicts, time.monotonic() - start)
    return 0 if all(verdict.status == "PASS" for verdict in counted) else 1


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="grader.py", description="Grade a models.py, 14 points.", allow_abbrev=False)
    parser.add_argument(
        "select", nargs="*", metavar="CHECK", help="questions (1a) or checks (1a-0-basic); default: all"
    )
    parser.add_argument("--list", action="store_true", help="list the checks and stop")
    parser.add_argument("--path", default=ROOT, metavar="DIR", help="grade DIR/models.py")
    parser.add_argument("--public", action="store_true", help="the student's view: hidden checks run, and do not count")
    parser.add_argument("--fast", action="store_true", help="leave out the checks that train")
    parser.add_argument(
        "--timeout-scale", type=float, default=1.0, metavar="X", help="X times the time for every check"
    )
    parser.add_argument(
        "--jobs", type=int, default=processors(), metavar="N", help="checks at a time (default: processors)"
    )
    parser.add_argument("--gradescope", metavar="FILE", help="write Gradescope's results.json, too")
    parser.add_argument("-v", "--verbose", action="store_true", help="print the traceback of every error")
    arguments = parser.parse_args(argv)
    if not 0 < arguments.timeout_scale <= 1000:
        parser.error(f"--timeout-scale must be greater than 0 and at most 1000, not {arguments.timeout_scale:g}")
    if arguments.jobs < 1:
        parser.error(f"--jobs must be at least 1, not {arguments.jobs}")
    return arguments


def processors() -> int:
    """Those this process may use: a container often has fewer than its host."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def select(checks: list, wanted: list[str], fast: bool) -> list:
    """The checks of the questions or ids asked for, in their own order.

    Raises:
        ValueError: an id that no check has, or nothing is left.
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
    """The worker processes that are running; once it is closed, one that has just been started is stopped as well."""

    is_closed = False


def grade(folder: Path, checks: list, timeout_scale: float = 1.0, jobs: int = 1) -> Iterator[Verdict]:
    """Run the checks, some at a time, and yield their verdicts in order. Leaves no process behind, whatever ends it."""
    running = Workers()
    pool = concurrent.futures.ThreadPoolExecutor(max_workers=jobs)
    try:
        yield from pool.map(lambda check: run_check(folder, check, timeout_scale * check.seconds, running), checks)
    finally:
        running.is_closed = True
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list(running):
            stop(process)


def run_check(folder: Path, check, allowed: float, running: Workers) -> Verdict:
    """Run one check in a process of its own, and judge what comes back."""
    from grading.checks import Wrong

    start = time.monotonic()
    answer, problem = ask_worker(folder, check.jobs, allowed, running)
    seconds = time.monotonic() - start
    if answer is None:
        status = "TIMEOUT" if seconds >= allowed else "ERROR"
        return Verdict(check, status, seconds, allowed, (problem,))
    try:
        if "not_implemented" in answer:
            return Verdict(check, "NOT IMPLEMENTED", seconds, allowed)
        if "error" in answer:
            why, trace = printable(answer["error"]), str(answer["trace"])
            return Verdict(check, "ERROR", seconds, allowed, (why,), trace)
        if "fault" in answer:
            raise Wrong(printable(answer["fault"]["expected"]), printable(answer["fault"]["came"]), "")
        check.judge(answer["results"])
    except Wrong as wrong:
        why = [f"expected: {wrong.expected}", f"got:      {printable(wrong.came)}"]
        hint = [f"hint:     {wrong.hint}"] if wrong.hint else []
        return Verdict(check, "FAIL", seconds, allowed, (*why, *hint))
    except Exception as error:  # no worker gives such an answer: the solution has tampered with it
        return Verdict(check, "ERROR", seconds, allowed, (f"the answer cannot be read ({type(error).__name__})",))
    return Verdict(check, "PASS", seconds, allowed)


def ask_worker(folder: Path, jobs: list[dict], allowed: float, running: Workers) -> tuple[dict | None, str]:
    """Send jobs to a fresh worker: its answer, or None and what went wrong."""
    other_solutions = [ROOT / "models.py"] if folder != ROOT else []
    process = subprocess.Popen(
        [sys.executable, "-B", WORKER, folder, *ANSWERS, *other_solutions],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    running.add(process)
    if running.is_closed:  # it was being started when Ctrl-C came
        stop(process)
    try:
        out, _ = process.communicate(json.dumps(jobs).encode(), timeout=allowed)
    except subprocess.TimeoutExpired:
        return None, f"no answer within {allowed:g} s: an endless loop, or far more work than is needed"
    except (OSError, ValueError) as error:
        return None, f"the process could not be asked ({error})"
    finally:
        stop(process)
        running.discard(process)
    try:
        answer = json.loads(out)
        return (answer, "") if isinstance(answer, dict) else (None, "the answer cannot be read")
    except (ValueError, RecursionError):
        return None, f"the process ended without an answer, with exit code {process.returncode}"


def stop(process: subprocess.Popen) -> None:
    """End the process and, where the system knows process groups, what it has started; never waits for the latter."""
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
    """A line without what moves the cursor: a solution must not print verdicts over ours."""
    return "".join(letter if letter.isprintable() else " " for letter in str(text))


def line(verdict: Verdict, public: bool, verbose: bool) -> str:
    check = verdict.check
    if public and check.hidden:
        return f"{check.id:<12} {'hidden':<16} {check.points} point, shown after hand-in"
    times = f"{verdict.seconds:.1f} s of {verdict.allowed:g} s"
    lines = [f"{check.id:<12} {verdict.status:<16} {verdict.points}/{check.points}  {times:<16}  {check.sentence}"]
    lines += [f"{'':<13}{sentence}" for sentence in verdict.why]
    if verbose and verdict.trace:
        lines += [f"{'':<13}| {printable(row)}" for row in verdict.trace.rstrip().splitlines()]
    return "\n".join(lines)


def table(verdicts: list[Verdict]) -> str:
    """Points by question, and in all."""
    from grading.checks import QUESTIONS

    lines = [""]
    for question, title in QUESTIONS.items():
        of_question = [verdict for verdict in verdicts if verdict.check.question == question]
        if of_question:
            lines.append(f"{question:<4} {title:<48} {earned(of_question)}")
    return "\n".join([*lines, f"{'':<4} {'Total':<48} {earned(verdicts)}"])


def earned(verdicts: list[Verdict]) -> str:
    return f"{sum(v.points for v in verdicts):>3} / {sum(v.check.points for v in verdicts)}"


def check_writable(path: Path) -> None:
    """Raises ValueError where results cannot be written: said before the grading and not after it."""
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK) or path.is_dir():
        raise ValueError(f"{path} cannot be written; --gradescope takes a file in a folder that exists")


def write_gradescope(path: Path, verdicts: list[Verdict], seconds: float) -> None:
    """Write results in Gradescope's format (its autograder specification, output format), in one piece."""
    tests = [
        {
            "number": verdict.check.id,
            "name": verdict.check.sentence,
            "score": verdict.points,
            "max_score": verdict.check.points,
            "status": "passed" if verdict.status == "PASS" else "failed",
            "output": "\n".join([verdict.status, *verdict.why]),
            "visibility": GRADESCOPE_KIND[verdict.check.hidden],
        }
        for verdict in verdicts
    ]
    results = {
        "execution_time": round(seconds, 1),
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "tests": tests,
    }
    scratch = path.with_name(f".{path.name}.part")
    scratch.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    os.replace(scratch, path)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # `| head` has seen enough
        os._exit(1)
