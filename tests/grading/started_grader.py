"""grader.py started by a test, on a solution that the test writes."""

import subprocess
import sys

from conftest import ROOT

import grader
from grading.pool import Pool
from grading.results import Grading


def command(*arguments, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(ROOT / "grader.py"), *map(str, arguments)], capture_output=True, text=True, **options
    )


def solution(folder, source: str):
    folder.mkdir(exist_ok=True)
    (folder / "models.py").write_text(source, encoding="utf-8")
    return folder


def grade(place, checks: list) -> list[str]:
    """The statuses of checks, in their order."""
    grading = Grading(place, checks, forbidden=grader.ANSWERS)
    with Pool(1) as pool:
        for _ in pool.run([grading]):
            pass
    return [result.status for result in grading.in_order()]
