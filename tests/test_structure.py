"""Imports point one way: no room imports from a room above it, and there is no cycle between modules."""

import ast
from pathlib import Path

import pytest
from conftest import ROOT

# A room is a file or a folder at the root. What each may import, lowest rooms first.
FAMILY = {"config", "sources", "dataset", "losses", "evaluation", "models", "training"}
MAY_IMPORT = {
    "config": set(),
    "models": set(),
    "losses": set(),
    "sources": {"config"},
    "dataset": {"config", "sources"},
    "evaluation": {"dataset"},
    "training": {"config", "sources", "dataset", "evaluation", "losses"},
    "multitask": FAMILY,
    "zoo": FAMILY,
    "dyadic": FAMILY,
    "registry": {"config", "multitask", "zoo", "dyadic"},
    "grading": {"sources"},
    "grader": {"grading", "sources"},
    "analysis": FAMILY | {"registry", "zoo", "dyadic"},
    "benchmarks": FAMILY | {"registry", "multitask", "zoo", "dyadic", "analysis"},
    "main": FAMILY | {"registry"},
    "experiments": FAMILY | {"registry", "analysis"},
    "benchmark": FAMILY | {"registry", "multitask", "zoo", "dyadic", "benchmarks"},
}


def modules() -> dict[str, Path]:
    """{dotted name: file} of all our code: the files at the root, and those of the rooms that are folders."""
    paths = [*ROOT.glob("*.py"), *(path for room in MAY_IMPORT for path in (ROOT / room).rglob("*.py"))]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of ours that a file imports anywhere, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else node.module for name in inner}
    return found & set(known)


MODULES = modules()
GRAPH = {name: imports(path, MODULES) - {name} for name, path in MODULES.items()}


# Still to be turned round; see test_no_cycle_between_modules.
UPWARD = ()


@pytest.mark.parametrize(
    "room", [pytest.param(r, marks=pytest.mark.xfail(strict=True)) if r in UPWARD else r for r in MAY_IMPORT]
)
def test_imports_point_down(room):
    imported = {other.split(".")[0] for name in GRAPH if name.split(".")[0] == room for other in GRAPH[name]}
    assert imported - {room} <= MAY_IMPORT[room]


def test_every_room_is_listed():
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")} | {path.stem for path in ROOT.glob("*.py")}
    assert rooms == set(MAY_IMPORT)


def test_no_cycle_between_modules():
    visited, open_path = set(), []

    def visit(name):
        assert name not in open_path, " -> ".join([*open_path[open_path.index(name) :], name])
        if name in visited:
            return
        open_path.append(name)
        for other in sorted(GRAPH[name]):
            visit(other)
        visited.add(open_path.pop())

    for name in GRAPH:
        visit(name)


def test_the_longest_chain_of_rooms_is_at_most_ten():
    def depth(room):
        return 1 + max(map(depth, MAY_IMPORT[room]), default=0)

    assert len(MAY_IMPORT) <= 20
    assert max(map(depth, MAY_IMPORT)) <= 10


def test_main_fits_on_two_screens():
    assert len((ROOT / "main.py").read_text().splitlines()) <= 300
