"""Imports point one way: no room imports from a room above it, and there is no cycle between modules."""

import ast
import builtins
from pathlib import Path

import pytest
from conftest import ROOT

from grading.import_graph import find_modules, imported_modules

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
    "registry": {"config", "sources", "training", "multitask", "zoo", "dyadic"},
    "serving": FAMILY | {"registry"},
    "grading": {"config", "sources"},
    "grader": {"config", "grading", "sources"},
    "analysis": FAMILY | {"registry", "multitask", "zoo", "dyadic"},
    "benchmarks": FAMILY | {"registry", "analysis", "multitask", "zoo", "dyadic"},
    "main": FAMILY | {"registry", "serving"},
    "experiments": FAMILY | {"registry", "analysis", "serving"},
    "benchmark": FAMILY | {"registry", "multitask", "zoo", "dyadic", "benchmarks"},
}


MODULES = find_modules(ROOT)
GRAPH = {name: imported_modules(name, MODULES) - {name} for name in MODULES}


@pytest.mark.parametrize("room", MAY_IMPORT)
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


def definitions(path: Path) -> dict[str, ast.AST]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}


def handed_on(node: ast.AST) -> set[str]:
    """Names that a definition passes on as callbacks; those passed to builtins, such as map, stay in place."""
    calls = [call for call in ast.walk(node) if isinstance(call, ast.Call)]
    calls = [call for call in calls if not (isinstance(call.func, ast.Name) and hasattr(builtins, call.func.id))]
    values = [value for call in calls for value in (*call.args, *(keyword.value for keyword in call.keywords))]
    local = {name.id for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)}
    return {value.id for value in values if isinstance(value, ast.Name)} - local


def used(node: ast.AST) -> set[str]:
    names = [name for name in ast.walk(node) if isinstance(name, ast.Name)]
    local = {name.id for name in names if isinstance(name.ctx, ast.Store)}
    return {name.id for name in names} - local


@pytest.mark.parametrize("module", MODULES)
def test_no_definition_hands_itself_on_as_a_callback(module):
    """A function that passes itself, or one that leads back to it, to another module hides a cycle between the two."""
    own = definitions(MODULES[module])
    reach = {name: used(node) & set(own) - {name} for name, node in own.items()}

    def leads_to(start: str, goal: str, visited: set[str]) -> bool:
        visited.add(start)
        return goal in reach[start] or any(leads_to(name, goal, visited) for name in reach[start] - visited)

    for name, node in own.items():
        for callback in handed_on(node) & set(own):
            assert callback != name, f"{module}.{name} passes itself on"
            assert not leads_to(callback, name, set()), f"{module}.{name} passes {callback}, which leads back to it"


def test_the_longest_chain_of_rooms_is_at_most_ten():
    def depth(room):
        return 1 + max(map(depth, MAY_IMPORT[room]), default=0)

    assert len(MAY_IMPORT) <= 20
    assert max(map(depth, MAY_IMPORT)) <= 10


def test_main_fits_on_two_screens():
    assert len((ROOT / "main.py").read_text().splitlines()) <= 100
