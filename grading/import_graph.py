"""Which files a program of the project needs, read from its import statements. Standard library only."""

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path


def find_modules(root: Path) -> dict[str, Path]:
    """{dotted name: file} of the modules in a folder and in the packages below it."""
    packages = [path.parent for path in root.glob("*/__init__.py")]
    paths = [*root.glob("*.py"), *(path for package in packages for path in package.rglob("*.py"))]
    return {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imported_modules(name: str, known: Mapping[str, Path]) -> set[str]:
    """The known modules that a module imports anywhere, inside functions too.

    `import jobs` in package.worker means package.jobs where no module `jobs` is known: scripts import in this way.
    """
    found = set()
    for node in ast.walk(_parse(known[name])):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {one if one in known else node.module for one in inner}
    package = name.rpartition(".")[0]
    return {one if one in known else f"{package}.{one}" for one in found} & known.keys()


def reachable(starts: Iterable[str], known: Mapping[str, Path], without: Iterable[str] = ()) -> set[str]:
    """All modules that some modules need, themselves included.

    A module also needs the packages it lies in, and the modules it names in a text, as a table of names does:
    "package.module" or "package.module:Class".

    Args:
        starts: names of modules.
        known: see `find_modules`.
        without: modules, and packages with all their modules, that count as not there.
    """
    without = tuple(without)
    found: set[str] = set()
    waiting = list(starts)
    while waiting:
        name = waiting.pop()
        if name in found or any(name == other or name.startswith(f"{other}.") for other in without):
            continue
        found.add(name)
        parents = {name.rpartition(".")[0]} & known.keys()
        waiting += parents | imported_modules(name, known) | _modules_in_texts(known[name], known)
    return found


def data_files(path: Path) -> set[Path]:
    """The data files of a module: those beside it that it names by `with_name("file")`."""
    calls = (node for node in ast.walk(_parse(path)) if isinstance(node, ast.Call))
    names = {call.args[0].value for call in calls if _is_with_name(call) and isinstance(call.args[0], ast.Constant)}
    return {file for file in map(path.with_name, names) if file.suffix != ".py" and file.is_file()}


def _is_with_name(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Attribute) and call.func.attr == "with_name" and len(call.args) == 1


def _modules_in_texts(path: Path, known: Mapping[str, Path]) -> set[str]:
    constants = (node.value for node in ast.walk(_parse(path)) if isinstance(node, ast.Constant))
    names = (value.partition(":")[0] for value in constants if isinstance(value, str))
    return {name for name in names if "." in name} & known.keys()


def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))
