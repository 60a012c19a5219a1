"""One owner of a folder at a time: of a run folder while it is trained, of a results folder while experiments run.

The lock is one of the operating system on the file `.lock`, by the package filelock. It ends with the process that
holds it, however that ends, so that nothing has to be removed after a kill. `.lock.owner` beside it names the process.

On a network file system the lock reaches as far as that system's own locks: NFS 4, and NFS 3 with its lock daemon,
hold it between machines and give it up some time after a machine is lost. Where a file system has none, the existence
of a file, `.lock.held`, takes their place: if its process dies on another machine, it has to be removed by hand.
"""

import errno
import json
import os
import platform
import shlex
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from config.errors import UserError
from sources.files import write_atomically

LOCK, OWNER, MARKER = ".lock", ".lock.owner", ".lock.held"  # the last one where the file system has no locks
UNSUPPORTED = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}  # by a file system without locks
PATIENCE = 1.0  # seconds to wait for a lock that is being released, and for the name of an owner that has just begun


class FolderLock:
    """The ownership of an existing folder, held until `release` or the end of the process.

    Raises:
        UserError: another process owns the folder.
        OSError: the folder is missing or cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._identity = folder, identity(folder)
        self._lock = _acquire(folder)
        owner = {"pid": os.getpid(), "host": platform.node(), "command": shlex.join(sys.argv)}
        owner["since"] = datetime.now().astimezone().isoformat(" ", "seconds")
        with suppress(OSError):  # the name of the owner is help for people; the lock holds without it
            write_atomically(folder / OWNER, json.dumps(owner).encode())

    @property
    def holds(self) -> bool:
        """False where the folder was renamed or deleted, even if another one has its name now."""
        return identity(self.folder) == self._identity

    def release(self) -> None:
        """Give the folder free and leave nothing in it."""
        if self.holds:
            for name in (OWNER, LOCK):  # under the lock: who has opened the old file sees that it has no name
                with suppress(OSError):
                    (self.folder / name).unlink()
        self._lock.release(force=True)


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Own a folder in the body of the `with`; it is made, and removed again where nothing was put into it.

    Raises:
        UserError: another process owns the folder, it cannot be written, or one of its files is a link.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(folder)
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be written: {error.strerror or error}") from None
    try:
        _require_no_links(folder)
        yield
    finally:
        lock.release()
        with suppress(OSError):  # not empty
            for path in missing:
                path.rmdir()


def _require_no_links(folder: Path) -> None:
    """So that what is written to a file of the folder does not go elsewhere. A folder in it may lie elsewhere."""
    for path in folder.iterdir():
        if path.is_symlink() and not path.is_dir():
            raise UserError(f"{path} is a link, and this command would write to where it leads: remove it")


def is_lock_file(name: str) -> bool:
    """True for what a lock puts into its folder."""
    return name == LOCK or name.startswith(f"{LOCK}.")


def identity(folder: Path) -> tuple[int, int] | None:
    """What stays the same when a folder is renamed and differs for another one; None where there is none."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _acquire(folder: Path) -> BaseFileLock:
    kind: type[BaseFileLock] = FileLock
    name = LOCK
    start = time.monotonic()
    while True:
        lock = kind(folder / name, timeout=0, thread_local=False)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a file system without locks
                lock.acquire()
            return lock
        except Timeout:
            owner = _read_owner(folder)
            if owner is not None or time.monotonic() - start > PATIENCE:
                marker = lock.lock_file if isinstance(lock, SoftFileLock) else None
                raise UserError(_in_use(folder, owner, marker)) from None
            time.sleep(0.05)
        except OSError as error:
            if error.errno not in UNSUPPORTED or kind is SoftFileLock:
                raise
            kind, name = SoftFileLock, MARKER


def _read_owner(folder: Path) -> dict | None:
    """The owner that has named itself; None where it has not yet, or where a dead one left its name."""
    try:
        owner = dict(json.loads((folder / OWNER).read_bytes()))
        is_here = owner["host"] == platform.node()
        return None if is_here and not _is_alive(owner["pid"]) else owner
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_alive(pid: int) -> bool:
    if os.name == "nt":  # there os.kill would end the process
        return True
    try:
        os.kill(pid, 0)
    except PermissionError:  # of another user
        return True
    except (OSError, OverflowError):
        return False
    return True


def _in_use(folder: Path, owner: dict | None, marker: str | None) -> str:
    who = "another process"
    if owner is not None:
        who = f"process {owner['pid']} on {owner['host']} since {owner.get('since')} ({owner.get('command')})"
    advice = "wait for its end, or end it first"
    if marker is not None:
        advice += f"; this file system has no locks: if that process is gone, remove {marker}"
    return f"{folder} is in use by {who}: {advice}"
