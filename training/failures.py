"""Exceptions become sentences here, by their kind, for all commands: what is wrong, where, and what to do.

Code that knows more about a failure raises UserError itself. Errors of models.py have a module of their own, see
model_errors.py. What has no sentence is an error of the program, whose traceback is to be seen.
"""

import errno
import os

from config.errors import UserError
from config.parts import ROOMS, missing

NO_MEMORY = (
    "there is not enough memory for this network, batch or data set: lower --batch_size or --embedding_dim, or take "
    "fewer data"
)
# Parts of the messages with which PyTorch (CPU, CUDA, MPS, cuBLAS), pandas and the standard library report that memory
# ran out by a type that does not say so, or that a size exceeds any memory.
MEMORY_MESSAGES = (
    "can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED", "Cannot allocate memory",
    "Storage size calculation overflowed", "array is too big", "Maximum allowed dimension exceeded",
)  # fmt: skip
DISK_ADVICE = {
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room: your quota on this disk is used up",
    errno.EROFS: "choose a folder that can be written",
    errno.EACCES: "choose another place, or change its permissions",
    errno.EPERM: "choose another place, or change its permissions",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "let the process open more files (ulimit -n)",
    errno.EIO: "the disk or the connection to it fails",
}


def explain_failure(error: BaseException) -> str | None:
    """What to say of an error; None for one of the program itself."""
    if isinstance(error, UserError):
        return str(error)
    if is_lack_of_memory(error):
        return NO_MEMORY
    if isinstance(error, ModuleNotFoundError):
        return _explain_import(error)
    if isinstance(error, OSError):
        return _explain_disk(error)
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        return f"the name {error.object!r:.200} is not UTF-8: rename the file or folder"
    return None


def in_one_line(error: BaseException, message: str | None = None) -> str:
    """Type and first line: "RuntimeError: mat1 and mat2 shapes cannot be multiplied"; message: in place of its own."""
    first = ((str(error) if message is None else message).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def is_lack_of_memory(error: BaseException) -> bool:
    """True where memory ran out; the types are those of Python, PyTorch on CUDA, and PyTorch on the CPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    is_vague = isinstance(error, (RuntimeError, ValueError)) and not isinstance(error, UnicodeError)
    return is_vague and any(part in str(error) for part in MEMORY_MESSAGES)


def _explain_import(error: ModuleNotFoundError) -> str:
    if (part := str(error.name)).split(".")[0] in ROOMS:
        return missing(part)
    return f"the package {error.name} is missing: run pip install -r requirements.txt"


def _explain_disk(error: OSError) -> str:
    if error.errno not in DISK_ADVICE:
        return str(error)
    name = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
    return f"{name}{error.strerror}: {DISK_ADVICE[error.errno]}"
