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
# What a solution has no business reading; its own folder is added to neither list.
ANSWERS = [ROOT / "grader.py", ROOT / "grading", ROOT / "tests", ROOT / "autograder"]
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
    from grading.checks import all_checks

    checks = all_checks()
    if arguments.list:
        print(*(f"{check.id:<12} {check.points} point   {check.sentence}" for check in checks), sep="\n")
        return 0
    folder = Path(arguments.path).resolve()
    try:
        checks = select(checks, arguments.select, arguments.fast)
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
    for verdict in grade(folder, checks, arguments.timeout_scale):
        verdicts.append(verdict)
        print(line(verdict, arguments.public, arguments.verbose), flush=True)
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
    parser.add_argument("--gradescope", metavar="FILE", help="write Gradescope's results.json, too")
    parser.add_argument("-v", "--verbose", action="store_true", help="print the traceback of every error")
    arguments = parser.parse_args(argv)
    if not arguments.timeout_scale > 0:
        parser.error(f"--timeout-scale must be greater than 0, not {arguments.timeout_scale:g}")
    return arguments


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


def grade(folder: Path, checks: list, timeout_scale: float = 1.0) -> Iterator[Verdict]:
    """Run the checks, as many at a time as there are processors, and yield their verdicts in order."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        yield from pool.map(lambda check: run_check(folder, check, timeout_scale * check.seconds), checks)


def run_check(folder: Path, check, allowed: float) -> Verdict:
    """Run one check in a process of its own, and judge what comes back."""
    from grading.checks import Wrong

    start = time.monotonic()
    answer, problem = ask_worker(folder, check.jobs, allowed)
    seconds = time.monotonic() - start
    if answer is None:
        status = "TIMEOUT" if seconds >= allowed else "ERROR"
        return Verdict(check, status, seconds, allowed, (problem,))
    if "not_implemented" in answer:
        return Verdict(check, "NOT IMPLEMENTED", seconds, allowed)
    if "error" in answer:
        return Verdict(check, "ERROR", seconds, allowed, (answer["error"],), answer["trace"])
    try:
        if "fault" in answer:
            raise Wrong(answer["fault"]["expected"], answer["fault"]["came"], "")
        check.judge(answer["results"])
    except Wrong as wrong:
        why = [
            f"expected: {wrong.expected}",
            f"got:      {wrong.came}",
            *([f"hint:     {wrong.hint}"] if wrong.hint else []),
        ]
        return Verdict(check, "FAIL", seconds, allowed, tuple(why))
    except (KeyError, TypeError, ValueError, IndexError) as error:  # an answer that no worker gives was tampered with
        return Verdict(check, "ERROR", seconds, allowed, (f"the answer cannot be read ({error!r})",))
    return Verdict(check, "PASS", seconds, allowed)


def ask_worker(folder: Path, jobs: list[dict], allowed: float) -> tuple[dict | None, str]:
    """Send jobs to a fresh worker: its answer, or None and what went wrong."""
    other_solutions = [ROOT / "models.py"] if folder != ROOT else []
    command = [sys.executable, "-P", "-B", WORKER, folder, *ANSWERS, *other_solutions]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        out, _ = process.communicate(json.dumps(jobs).encode(), timeout=allowed)
    except subprocess.TimeoutExpired:
        return None, f"no answer within {allowed:g} s: an endless loop, or far more work than is needed"
    finally:
        stop(process)
    try:
        answer = json.loads(out)
        return (answer, "") if isinstance(answer, dict) else (None, "the answer cannot be read")
    except ValueError:
        return None, f"the process ended without an answer, with exit code {process.returncode}"


def stop(process: subprocess.Popen) -> None:
    """End the process, and where the system knows process groups whatever it may have started."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.communicate()


def line(verdict: Verdict, public: bool, verbose: bool) -> str:
    check = verdict.check
    if public and check.hidden:
        return f"{check.id:<12} {'hidden':<16} {check.points} point, shown after hand-in"
    times = f"{verdict.seconds:.1f} s of {verdict.allowed:g} s"
    lines = [f"{check.id:<12} {verdict.status:<16} {verdict.points}/{check.points}  {times:<16}  {check.sentence}"]
    lines += [f"{'':<13}{sentence}" for sentence in verdict.why]
    if verbose and verdict.trace:
        lines += [f"{'':<13}| {row}" for row in verdict.trace.rstrip().splitlines()]
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
    scratch.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(scratch, path)


if __name__ == "__main__":
    sys.exit(main())
