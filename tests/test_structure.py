"""Which room may import which: the way of the data is one way."""

import ast

import pytest
from conftest import ROOT

MAY_IMPORT = {
    "errors": set(),
    "losses": set(),
    "models": set(),
    "evaluation": set(),
    "simulated": {"errors"},
    "download": {"errors"},
    "readers": {"errors"},
    "dataset": {"errors", "download", "readers", "simulated"},
    "tasks": {"dataset", "evaluation", "losses"},
    "run_folder": {"errors"},
    "training": {"errors", "losses", "tasks", "run_folder"},
    "grader": set(),
    "recommend": {"dataset"},
    "settings": {"errors", "download"},
    "main": {"errors", "settings", "dataset", "models", "tasks", "training", "run_folder", "recommend"},
}


def imports(name: str) -> set[str]:
    tree = ast.parse((ROOT / f"{name}.py").read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.split(".")[0])
    return found & set(MAY_IMPORT)


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_imports_point_one_way(name):
    assert imports(name) <= MAY_IMPORT[name]


def test_every_room_is_named_here():
    assert {path.stem for path in ROOT.glob("*.py")} == set(MAY_IMPORT)


def test_main_stays_a_page():
    assert len((ROOT / "main.py").read_text().splitlines()) <= 300
