"""The short form of all attacks, the same cases in every run; `python -m tests.attacks --minutes 30`: the long one."""

import subprocess
import sys

import pytest
from conftest import ROOT

from tests.attacks.all_attacks import ATTACKS
from tests.attacks.runner import Attack, Broken, Case, run_attack, table


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the attacks need Linux")
@pytest.mark.parametrize("name", [attack.name for attack in ATTACKS])
def test_the_short_form_finds_nothing(name):
    command = [sys.executable, "-m", "tests.attacks", "--only", name, "--jobs", "1"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


def even_numbers_break(case: Case) -> dict[str, int]:
    if case.number % 2 == 0:
        raise Broken(f"drew {case.random.randrange(1000)}")
    return {"odd": 1}


def test_the_runner_counts_and_tells_how_to_repeat_a_failure():
    attack = Attack("example", "numbers", even_numbers_break, "odd", 1, short=5, share=1)
    whole, again = (
        run_attack(attack, 7, 2, cases=cases, report=lambda line: None) for cases in (range(5), range(2, 3))
    )
    assert (whole.tried, whole.reached, len(whole.failures)) == (5, 2, 3)
    assert again.failures[0] in whole.failures  # the same draw
    assert "| example: numbers | 5 | odd 2 | 3 |" in table([whole])
    assert "python -m tests.attacks --only example --seed 7 --case 2" in table([again])
