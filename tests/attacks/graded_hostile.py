"""Hostile solutions, graded by grader.py with its sandbox and without: none achieves more than the table says."""

from tests.attacks.hostile import ATTACKS, REFUSED, solution
from tests.attacks.programs import ROOT, Program
from tests.attacks.runner import Attack, Broken, Case, Counts

KEPT = "kept"  # the content of the file that a solution must not write over
GUARD_ALONE = "sandbox: none"  # in the output of grader.py


def case(given: Case) -> Counts:
    names = list(ATTACKS)
    name, sandbox = names[given.number % len(names)], ("auto", "off")[given.number // len(names) % 2]
    place, other = given.folder / "place", given.folder / "other.txt"
    place.mkdir()
    other.write_text(KEPT)
    (place / "models.py").write_text(solution(ATTACKS[name], str(ROOT / "grading" / "reference.py"), str(other)))
    line = ["1a-0-basic", "--path", place, "--sandbox", sandbox, "--verbose"]
    process = Program(line, given.folder, script="grader.py")
    if process.wait() != 1 or "Traceback" in process.errors:
        raise Broken(f"a solution that {name}: {process}: exit code {process.code}; {process.last_words}")
    is_closed = GUARD_ALONE not in process.output
    expected = ATTACKS[name].with_sandbox if is_closed else ATTACKS[name].without
    if expected == REFUSED and ("refused: " not in process.output or other.read_text() != KEPT):
        raise Broken(f"a solution that {name} is not refused with --sandbox {sandbox}: {process.output[-400:]}")
    return {"solutions": 1, f"{'with' if is_closed else 'without'} a sandbox": 1, expected: 1}


ATTACK = Attack(
    "solutions", "hostile solutions, with the grader's sandbox and without", case, "solutions", len(ATTACKS),
    short=len(ATTACKS) // 2, share=0.8,
)  # fmt: skip
