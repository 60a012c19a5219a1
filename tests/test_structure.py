"""Which room may import which: the way of the data is one way."""

import ast
from pathlib import Path

import pytest
from conftest import ROOT

MAY_IMPORT = {
    "errors": set(),
    "losses": set(),
    "randomness": set(),
    "models": {"zoo"},  # when one of its networks is asked for by name
    "zoo": {"losses", "models"},
    "evaluation": set(),
    "simulated": {"errors"},
    "download": {"errors"},
    "delimited": {"errors"},
    "readers": {"delimited", "errors"},
    "cache": {"delimited", "readers", "simulated"},
    "dataset": {"cache", "download", "errors", "readers"},
    "sampling": {"dataset"},
    "labels": {"dataset", "sampling"},
    "baselines": {"dataset", "labels", "losses"},
    "tasks": {"baselines", "dataset", "errors", "evaluation", "labels", "losses", "randomness", "sampling"},
    "search": {"defaults", "grid", "settings", "study"},
    "run_folder": {"errors"},
    "weighting": {"errors", "losses", "randomness"},
    "training": {"errors", "gradient", "run_folder"},
    "grader": set(),
    "recommend": {"dataset"},
    "defaults": {"download"},
    "settings": {"defaults", "dyadic", "errors"},
    "flags": {"defaults", "errors", "settings"},
    "gradient": {"weighting"},
    "handwritten": {"gradient", "losses", "models"},
    "dyadic": {"dataset", "defaults", "download", "errors", "evaluation", "gradient", "readers", "settings"},
    "denoising": {"dataset", "gradient", "models"},
    "members": {"denoising", "models"},
    "processes": {"errors"},
    "parallel": {"errors", "gradient", "handwritten", "losses", "processes"},
    "family": {
        "dataset", "denoising", "dyadic", "errors", "gradient", "handwritten", "members", "models", "parallel",
        "processes", "settings", "tasks",
    },
    "report": set(),
    "grid": {"errors", "settings"},
    "comparison": {"dataset", "defaults", "figures", "report", "settings", "tasks"},
    "figures": set(),
    "study": {
        "comparison", "dataset", "defaults", "errors", "evaluation", "family", "figures", "grid", "losses", "report",
        "run_folder", "sampling", "settings",
    },
    "experiments": {"comparison", "dataset", "defaults", "dyadic", "errors", "grid", "search", "settings", "study"},
    "benchmarks": {
        "dataset", "dyadic", "errors", "evaluation", "family", "figures", "gradient", "models", "settings", "tasks",
        "weighting",
    },
    "benchmark": {"benchmarks", "dataset", "errors", "family", "flags", "settings"},
    "main": {
        "errors", "settings", "flags", "family", "parallel", "processes", "training", "run_folder", "recommend",
        "report",
    },
}  # fmt: skip
FOLDERS = {"benchmarks", "dyadic", "study", "tasks", "zoo"}


def files(name: str) -> list[Path]:
    return sorted((ROOT / name).glob("*.py")) if name in FOLDERS else [ROOT / f"{name}.py"]


def imports(name: str) -> set[str]:
    found = set()
    for path in files(name):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module.split(".")[0])
    return (found & set(MAY_IMPORT)) - {name}


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_imports_point_one_way(name):
    assert imports(name) <= MAY_IMPORT[name]


def test_every_room_is_named_here():
    assert {path.stem for path in ROOT.glob("*.py")} | FOLDERS == set(MAY_IMPORT)


def test_main_stays_a_page():
    assert len((ROOT / "main.py").read_text().splitlines()) <= 300
