"""What hostile solutions achieve against the grader, with the sandbox and without."""

import pytest
from conftest import ROOT
from hostile import ATTACKS, POSSIBLE, REFUSED, solution

import grader
from grading import sandbox
from grading.pool import Pool
from grading.questions import Check
from grading.results import Grading

needs_sandbox = pytest.mark.skipif(not sandbox.is_available(), reason="this kernel has no Landlock and seccomp")
NOTHING = Check("1a-0-basic", "nothing", [], lambda results: iter(()), seconds=20.0)
MODELS = (ROOT / "models.py").read_text(encoding="utf-8")


def outcome(name: str, kind: str, folder) -> str:
    """REFUSED, or POSSIBLE where the attack raised nothing."""
    place, other = folder / "place", folder / "other.txt"
    place.mkdir()
    other.write_text("kept")
    answers = ROOT / "grading" / "reference.py"
    (place / "models.py").write_text(solution(ATTACKS[name], str(answers), str(other)))
    grading = Grading(place, [NOTHING], forbidden=grader.ANSWERS)
    with Pool(1, sandbox=kind) as pool:
        for _ in pool.run([grading]):
            pass
    assert grading.import_failure is not None
    message = " ".join(grading.import_failure.explanation)
    was_refused = "possible" not in message
    if was_refused:
        assert other.read_text() == "kept"
    return REFUSED if was_refused else POSSIBLE


QUICK = ("empties the guard, then opens the answers", "limits the memory of the grader", "starts threads")


@needs_sandbox
@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ATTACKS]
)
def test_with_the_sandbox(name, tmp_path):
    expected = REFUSED if ATTACKS[name].with_sandbox == REFUSED else POSSIBLE
    assert outcome(name, "kernel", tmp_path) == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, attack in ATTACKS.items() if attack.without == REFUSED])
def test_without_the_sandbox(name, tmp_path):
    assert outcome(name, "guard", tmp_path) == REFUSED


def test_the_table_of_the_docs_says_the_same():
    text = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")
    rows = [f"| {name} | {attack.with_sandbox} | {attack.without} |" for name, attack in ATTACKS.items()]
    assert "\n".join(rows) in text


@needs_sandbox
@pytest.mark.slow
def test_what_is_called_possible_without_the_sandbox_is_possible(tmp_path):
    """Else the table would frighten without a reason."""
    names = (
        "empties the guard, then opens the answers",
        "opens the answers in a subinterpreter",
        "makes shared memory",
    )
    for number, name in enumerate(names):
        (tmp_path / str(number)).mkdir()
        assert outcome(name, "guard", tmp_path / str(number)) == POSSIBLE
