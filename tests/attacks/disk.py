"""A disk that fills up at any point of a run: a small file system, or a limit on the size of files; then room again."""

import resource
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from tests.attacks import runs
from tests.attacks.kills import next_line, require_epochs
from tests.attacks.programs import Program
from tests.attacks.runner import Attack, Broken, Case, Counts

FAMILIES = ("multitask", "mmoe", "dyadic", "closed_form")
PAGE = 4096
ROOM = 64 * 2**20
SMALLEST = 256  # bytes of a file


@cache
def can_mount() -> bool:
    """True where this process may mount a small file system."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True).returncode == 0:
                return subprocess.run(["umount", folder], capture_output=True).returncode == 0
        except OSError:
            pass
    return False


def case(given: Case) -> Counts:
    family = FAMILIES[given.number % len(FAMILIES)]
    is_mounted = can_mount() and given.random.random() < 0.5
    if not is_mounted:
        return fill(given, family, given.folder, lambda: limit_files(given, given.shared / family)) | {"file size": 1}
    disk = given.folder / "disk"
    disk.mkdir()
    size = given.random.randrange(PAGE, disk_use(given.shared / family) + 4 * PAGE)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], check=True)
    try:
        return fill(given, family, disk, lambda: None) | {"small disk": 1}
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def fill(given: Case, family: str, place: Path, before) -> Counts:
    """Train until there is no room, and go on when there is."""
    line, run = runs.arguments(family), place / "run"
    # The output has its own room: a full disk must not hide what the program says.
    process = Program([*line, "--logdir", run], given.folder, before=before)
    is_done = process.require_decent_end()
    runs.require_whole_files(run)
    require_epochs(run, process.output)
    if place != given.folder:
        subprocess.run(["mount", "-o", f"remount,size={ROOM}", place], check=True)
    resumed = Program(next_line(place, line), place, name="resumed")
    if not resumed.require_decent_end():
        raise Broken(f"with room again: {resumed.last_words}; before: {process.last_words}")
    runs.require_same_run(run, given.shared / family)
    return {"points": 1, "enough room" if is_done else "full": 1}


def limit_files(given: Case, whole: Path) -> None:
    """No file may become larger than a part of the largest one of a whole run."""
    largest = max(path.stat().st_size for path in whole.iterdir())
    size = given.random.randrange(SMALLEST, largest + SMALLEST)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def disk_use(folder: Path) -> int:
    """Bytes of a folder's files in whole pages."""
    return sum(-(-path.stat().st_size // PAGE) * PAGE for path in folder.rglob("*") if path.is_file())


ATTACK = Attack(
    "disk", "a full disk, or files at their limit, then room again", case, "points", 100,
    short=24, share=1.2, prepare=runs.prepare_references,
)  # fmt: skip
