"""Find the models.py of a hand-in (a folder, a zip or a Python file) and copy it to a folder of its own.

The Python files beside it that it imports are copied too, and those that they import.
"""

import ast
import hashlib
import shutil
import stat
import zipfile
from collections.abc import Iterable
from pathlib import Path

from config.errors import UserError

MODELS = "models.py"
MOST_BYTES = 20 * 2**20  # of a zip, unpacked, and of a Python file
MOST_ENTRIES = 2000  # of a zip
DEEPEST = 4  # folders inside a hand-in that are searched for models.py
BYTE_ORDER_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


def collect(path: Path, place: Path, forbidden: Iterable[Path] = ()) -> str:
    """Copy the models.py of a hand-in, and what it imports from beside it, to an empty folder.

    Args:
        path: a folder, a .zip or a .py file of any name.
        place: an empty folder; models.py has this name there.
        forbidden: files and folders whose content is not copied.

    Returns:
        A note for the teacher, "" for none.

    Raises:
        UserError: there is no models.py in it, or it cannot be read.
    """
    if not path.exists():
        raise UserError(f"there is no {path}")
    if path.suffix.lower() == ".zip" and path.is_file():
        unpacked = place / "unpacked"
        _unpack(path, unpacked)
        try:
            return _collect_from_folder(unpacked, path.name, place, ())
        finally:
            shutil.rmtree(unpacked)
    if path.is_dir():
        return _collect_from_folder(path, path.resolve().name, place, tuple(forbidden))
    if path.suffix.lower() != ".py":
        raise UserError(f"{path.name} is neither a folder, a zip nor a Python file")
    _copy(path, place, tuple(forbidden))
    return ""


def digest(place: Path) -> str:
    """A sha256 over the names and contents of all files of a folder but compiled ones."""
    found = hashlib.sha256()
    for path in sorted(path for path in place.rglob("*") if path.is_file() and path.suffix != ".pyc"):
        found.update(f"{path.relative_to(place).as_posix()}\n{path.stat().st_size}\n".encode())
        found.update(path.read_bytes())
    return found.hexdigest()


def _collect_from_folder(folder: Path, name: str, place: Path, forbidden: tuple[Path, ...]) -> str:
    models, note = _find(folder, name)
    _copy(models, place, forbidden)
    return note


def _find(folder: Path, name: str) -> tuple[Path, str]:
    """The models.py nearest to the top, or the one Python file that has a MultiTaskNet under another name.

    `name` is that of the hand-in, for messages.
    """
    if (folder / MODELS).is_file():
        return folder / MODELS, ""
    files = [path for path in sorted(folder.rglob("*.py")) if _is_searched(path.relative_to(folder))]
    named = sorted((path for path in files if path.name == MODELS), key=lambda path: len(path.parts))
    if named and (len(named) == 1 or len(named[0].parts) < len(named[1].parts)):
        return named[0], f"found in {named[0].parent.relative_to(folder).as_posix()}"
    if named:
        names = " and ".join(path.relative_to(folder).as_posix() for path in named[:2])
        raise UserError(f"there are several models.py: {names}")
    similar = [path for path in files if b"class MultiTaskNet" in path.read_bytes()[:MOST_BYTES]]
    if len(similar) == 1:
        return similar[0], f"graded {similar[0].relative_to(folder).as_posix()}: its name should be {MODELS}"
    raise UserError(f"there is no {MODELS} in {name}")


def _is_searched(path: Path) -> bool:
    is_hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return not is_hidden and len(path.parts) <= DEEPEST + 1


def _copy(models: Path, place: Path, forbidden: tuple[Path, ...]) -> None:
    source = _read(models)
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if source.startswith(mark):
            raise UserError(f"{models.name} is in {encoding}, which Python cannot read: save it as UTF-8")
    (place / MODELS).write_bytes(source)
    closed = [path.resolve() for path in forbidden]
    waiting, seen = _imported(source), set()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        for path in _files_of(models.parent, name):
            if path.is_symlink() or any(path.resolve().is_relative_to(parent) for parent in closed):
                continue
            content = _read(path)
            target = place / path.relative_to(models.parent)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            waiting |= _imported(content) - seen


def _read(path: Path) -> bytes:
    """Raises UserError if it is a link, no regular file, or too long."""
    information = path.lstat()
    if not stat.S_ISREG(information.st_mode):
        raise UserError(f"{path.name} is no regular file")
    if information.st_size > MOST_BYTES:
        raise UserError(f"{path.name} has more than {MOST_BYTES >> 20} MB")
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path.name} cannot be read ({error.strerror})") from None


def _imported(source: bytes) -> set[str]:
    """The first parts of the names of the modules that a file imports anywhere; none if it is no Python."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.partition(".")[0] for name in found}


def _files_of(folder: Path, name: str) -> list[Path]:
    """The Python files of a module or package in a folder."""
    module, package = folder / f"{name}.py", folder / name
    if module.is_file() and name != "models":
        return [module]
    return sorted(package.rglob("*.py")) if package.is_dir() and not package.is_symlink() else []


def _unpack(path: Path, place: Path) -> None:
    """Unpack the Python files of a zip: inside `place` whatever their names say, and no more than MOST_BYTES."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > MOST_ENTRIES:
                raise UserError(f"{path.name} has more than {MOST_ENTRIES} files")
            left = MOST_BYTES
            for entry in entries:
                if entry.is_dir() or not entry.filename.lower().endswith(".py"):
                    continue
                with archive.open(entry) as file:
                    content = file.read(left + 1)
                left -= len(content)
                if left < 0:
                    raise UserError(f"{path.name} has more than {MOST_BYTES >> 20} MB of Python files")
                parts = [part for part in Path(entry.filename.replace("\\", "/")).parts if part not in ("/", "..")]
                target = place.joinpath(*parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise UserError(f"{path.name} cannot be unpacked ({error})") from None
    place.mkdir(exist_ok=True)
