"""All checks in the order of the questions. A student's copy of the project has the public ones alone."""

from importlib.util import find_spec

from grading.public_checks import public_checks
from grading.questions import QUESTIONS, Check

HIDDEN = "grading.hidden_checks"


def all_checks() -> list[Check]:
    found = public_checks()
    if find_spec(HIDDEN) is not None:
        from grading.hidden_checks import hidden_checks

        found += hidden_checks()
    questions = list(QUESTIONS)
    return sorted(found, key=lambda check: (questions.index(check.question), check.id))
