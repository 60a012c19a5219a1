"""Writing a file in one step, so that a reader or a killed process never leaves half of it. Standard library only."""

import glob
import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

# Seconds after which a temporary file is taken to belong to a killed process.
ABANDONED_AFTER = 3600
Content = bytes | Callable[[BinaryIO], object]  # of a file: the bytes, or what writes them to the open file


def write_atomically(path: Path, content: Content) -> None:
    """Write a file under a temporary name in the same folder, then move it into place.

    The temporary name `.NAME.<random>.part` is unique, so that several processes can write the same file at once; the
    last one wins. Links are never followed: the file replaces a link that has its name. Temporary files that killed
    processes left for this file are removed.

    Args:
        path: the file to create or replace; its folder must exist.
        content: the bytes, or a function that writes them to the open binary file.

    Raises:
        OSError: the file cannot be written; the previous one is unchanged.
    """
    prefix = f".{path.name.removeprefix('.')}"
    _remove_abandoned(path.parent, prefix)
    scratch = path.with_name(f"{prefix}.{secrets.token_hex(8)}.part")
    try:
        with scratch.open("xb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
        os.replace(scratch, path)
    except BaseException:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise


def _remove_abandoned(folder: Path, prefix: str) -> None:
    for scratch in folder.glob(f"{glob.escape(prefix)}.*.part"):
        with suppress(OSError):  # another process may have removed it first
            if time.time() - scratch.stat().st_mtime > ABANDONED_AFTER:
                scratch.unlink()
