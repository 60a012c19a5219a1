"""Opening files to read: regular files alone, because a pipe or a device can be read without end or wait for ever.

Standard library only; every package may use it.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from config.errors import UserError

KINDS = {
    stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket",
}  # fmt: skip


def open_regular(path: Path, follow_links: bool = True) -> BinaryIO:
    """Open a regular file to read its bytes.

    Args:
        follow_links: False: a symbolic link is an error, too. For files that the program itself has written.

    Raises:
        UserError: the path leads to a pipe or a device, or cannot be a path.
        OSError: there is no such file, it is a folder, or it may not be read.
    """
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)  # a pipe without a writer: no wait
    flags |= 0 if follow_links else getattr(os, "O_NOFOLLOW", 0)
    try:
        descriptor = os.open(path, flags)
    except ValueError:
        raise UserError(f"{str(path)!r} cannot be the path of a file") from None
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind == stat.S_IFREG:
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise UserError(f"{path} is {KINDS.get(kind, 'no regular file')}: write its content to a file and give that")


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """The text of a regular file; raises as `open_regular` does, and UnicodeDecodeError."""
    with open_regular(path) as file:
        return file.read().decode(encoding)
