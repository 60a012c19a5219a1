"""The results of checks, and a hand-in while it is graded."""

import json
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from grading.questions import CAUSES, Check, Problem

BUDGET_SECONDS = 120.0  # for all checks of a hand-in; a right one takes about 2
MOST_PROBLEMS = 4  # shown of a check
IMPORT = Check("import", "models.py can be imported", [], lambda results: iter(()))


@dataclass(frozen=True)
class CheckResult:
    """The result of a check.

    status: PASS, FAIL, ERROR, TIMEOUT or NOT IMPLEMENTED.
    seconds, time_limit: time taken and time allowed.
    explanation: lines for the student; empty for PASS.
    trace: the traceback of an ERROR.
    output: what the solution printed.
    """

    check: Check
    status: str
    seconds: float
    time_limit: float
    explanation: tuple[str, ...] = ()
    trace: str = ""
    output: str = ""

    @property
    def points(self) -> int:
        return self.check.points if self.status == "PASS" else 0


class Grading:
    """A hand-in that is being graded: what is left to check, and the results.

    Args:
        folder: holds its models.py.
        checks: to run.
        time_scale: multiplies every time limit.
        forbidden: files and folders that it must not read.

    Attributes:
        results: {check id: result}, as they come.
        import_failure: why models.py cannot be imported; None if it can. Every check then has this result.
    """

    def __init__(
        self, folder: Path, checks: Sequence[Check], time_scale: float = 1.0, forbidden: Sequence[Path] = ()
    ) -> None:
        self.folder, self.checks, self.time_scale, self.forbidden = folder, checks, time_scale, forbidden
        self.waiting = deque([IMPORT])
        self.results: dict[str, CheckResult] = {}
        self.import_failure: CheckResult | None = None
        self.import_seconds = 0.0
        self.is_importing = True  # until it is known whether models.py can be imported; then the checks wait
        self.deadline = 0.0

    @property
    def is_done(self) -> bool:
        return len(self.results) == len(self.checks)

    def in_order(self) -> list[CheckResult]:
        """The results in the order of the checks."""
        return [self.results[check.id] for check in self.checks if check.id in self.results]

    @property
    def seconds(self) -> float:
        """The time that importing it and its checks took."""
        return self.import_seconds + sum(result.seconds for result in self.results.values())

    def take(self) -> tuple[Check, float] | None:
        """The next check to run, with its time limit; None while there is none."""
        if not self.waiting:
            return None
        check = self.waiting.popleft()
        now = time.monotonic()
        self.deadline = self.deadline or now + BUDGET_SECONDS * self.time_scale
        return check, min(check.seconds * self.time_scale, max(0.0, self.deadline - now))

    def put(self, result: CheckResult) -> list[CheckResult]:
        """Take a result in; returns the results of checks that are known with it."""
        known = [result]
        if result.check is IMPORT:
            known, self.is_importing, self.import_seconds = [], False, result.seconds
            if result.status == "PASS":
                self.waiting.extend(self.checks)
            else:
                self.import_failure = result
                known = [replace(result, check=check, seconds=0.0) for check in self.checks]
        elif time.monotonic() >= self.deadline:
            sentence = f"not run: the {BUDGET_SECONDS * self.time_scale:g} s for all checks together are used up"
            known += [CheckResult(check, "TIMEOUT", 0.0, 0.0, (sentence,)) for check in self.waiting]
            self.waiting.clear()
        self.results |= {each.check.id: each for each in known}
        return known


def judge(check: Check, reply: dict, limit: float) -> CheckResult:
    """The result of a check from what the worker reports of it.

    Args:
        reply: "answer" is the solution's word: text that may be forged, or None if it is too long. The rest is the
            worker's: "timed_out", "seconds", "exit_code" and "output".
    """
    status, explanation, trace = _read_answer(check, reply, limit)
    output = printable_lines(str(reply.get("output", "")))
    return CheckResult(check, status, float(reply["seconds"]), limit, explanation, trace, output)


def _read_answer(check: Check, reply: dict, limit: float) -> tuple[str, tuple[str, ...], str]:
    """The status, the explanation and the trace."""
    if reply["timed_out"]:
        return "TIMEOUT", (f"no answer within {limit:.3g} s: an endless loop, or far more work than necessary",), ""
    if reply["answer"] is None:
        return "ERROR", ("the answer is too long",), ""
    if not reply["answer"]:
        return "ERROR", (f"the process ended without an answer, with exit code {reply['exit_code']}",), ""
    try:
        answer = json.loads(reply["answer"])
        if "not_implemented" in answer:
            return "NOT IMPLEMENTED", (), ""
        if "error" in answer:
            return "ERROR", (printable(answer["error"]),), printable_lines(str(answer["trace"]))
        if "mismatch" in answer:
            expected, got, cause = (printable(answer["mismatch"][name]) for name in ("expected", "got", "cause"))
            problems = [Problem(expected, got, CAUSES.get(cause, ""))]
        else:
            problems = list(check.judge(answer["results"]))
    except Exception as error:  # the worker never sends such an answer, so the solution has forged it
        return "ERROR", (f"the answer cannot be read ({type(error).__name__})",), ""
    return ("FAIL", explain(problems), "") if problems else ("PASS", (), "")


def explain(problems: list[Problem]) -> tuple[str, ...]:
    """The lines for the student; a hint that several problems share is given once, after the last of them."""
    shown, lines = problems[:MOST_PROBLEMS], []
    for problem, following in zip(shown, [*shown[1:], None], strict=True):
        lines += [f"expected: {problem.expected}", f"got:      {printable(problem.got)}"]
        if problem.hint and (following is None or following.hint != problem.hint):
            lines.append(f"hint:     {problem.hint}")
    if len(problems) > MOST_PROBLEMS:
        lines.append(f"and {len(problems) - MOST_PROBLEMS} more")
    return tuple(lines)


def printable(text: object) -> str:
    """Replace control characters by spaces, so that a solution cannot print over the results."""
    return "".join(letter if letter.isprintable() else " " for letter in str(text))


def printable_lines(text: str) -> str:
    return "\n".join(printable(line) for line in text.rstrip().splitlines())
