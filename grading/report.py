"""What the grader prints of its results, and Gradescope's results.json."""

from collections.abc import Sequence

from grading.questions import QUESTIONS, Check
from grading.results import CheckResult

VISIBILITY = {False: "visible", True: "after_published"}  # by Check.hidden


def list_checks(checks: Sequence[Check], public: bool) -> str:
    sentences = ["hidden" if public and check.hidden else check.sentence for check in checks]
    pairs = zip(checks, sentences, strict=True)
    return "\n".join(f"{check.id:<12} {check.points} point   {sentence}" for check, sentence in pairs)


def describe(result: CheckResult, public: bool, verbose: bool, can_be_imported: bool = True) -> str:
    """The lines printed for a result; where models.py cannot be imported, the reason is told elsewhere, once."""
    check = result.check
    if public and check.hidden:
        return f"{check.id:<12} {'hidden':<16} {check.points} point, shown after hand-in"
    times = f"{result.seconds:.1f} s of {result.time_limit:.3g} s"
    lines = [f"{check.id:<12} {result.status:<16} {result.points}/{check.points}  {times:<16}  {check.sentence}"]
    if can_be_imported:
        lines += [f"{'':<13}{line}" for line in result.explanation]
        lines += printed(result) if verbose else []
    return "\n".join(lines)


def printed(result: CheckResult) -> list[str]:
    """What the solution printed, and the traceback of its error."""
    return [f"{'':<13}| {line}" for text in (result.output, result.trace) for line in text.splitlines()]


def describe_import_failure(failure: CheckResult, verbose: bool) -> str:
    """Why no check can run: told once for all of them."""
    return "\n".join([reason_of(failure), *(printed(failure) if verbose else []), ""])


def reason_of(import_failure: CheckResult) -> str:
    reason = " ".join(import_failure.explanation) or "it raises NotImplementedError"
    return f"models.py cannot be imported: {reason}"


def table(results: Sequence[CheckResult]) -> str:
    """Points by question, and in total."""
    lines = [""]
    for question, title in QUESTIONS.items():
        of_question = [result for result in results if result.check.question == question]
        if of_question:
            lines.append(f"{question:<4} {title:<48} {earned(of_question)}")
    return "\n".join([*lines, f"{'':<4} {'Total':<48} {earned(results)}"])


def earned(results: Sequence[CheckResult]) -> str:
    return f"{sum(r.points for r in results):>3} / {sum(r.check.points for r in results)}"


def as_gradescope(results: Sequence[CheckResult], seconds: float, output: str = "") -> dict:
    """The content of results.json as Gradescope's autograder specification defines it.

    `output` is shown above the tests: why none of them could run.
    """
    tests = [
        {
            "number": result.check.id,
            "name": result.check.sentence,
            "score": result.points,
            "max_score": result.check.points,
            "status": "passed" if result.status == "PASS" else "failed",
            "output": "\n".join([result.status, *(() if output else result.explanation)]),
            "visibility": VISIBILITY[result.check.hidden],
        }
        for result in results
    ]
    report = {"execution_time": round(seconds, 1), "visibility": "visible", "stdout_visibility": "hidden"}
    report |= {"output": output} if output else {}
    return report | {"tests": tests} if tests else report | {"score": 0}
