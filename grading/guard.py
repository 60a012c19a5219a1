"""What a solution may not do in the worker: use files, processes and connections.

The guard stops what a student might try. It does not stop a determined attacker, because no code inside the same
process can. If that matters, keep the correct models.py off the machine, as the Gradescope zip does.
"""

import os
import signal
import sys
from pathlib import Path

import torch

FORBIDDEN_OS_EVENTS = (
    "system", "exec", "fork", "posix_spawn", "spawn", "startfile", "kill",
    "remove", "rename", "rmdir", "mkdir", "truncate", "link", "symlink", "chmod", "chown",
)  # fmt: skip


def install(forbidden: tuple[str, ...]) -> None:
    """Start to guard this process, for good; no file under the `forbidden` paths can be read."""
    _remove_unaudited_functions()
    sys.addaudithook(_make_hook(tuple(str(Path(path).resolve()) for path in forbidden)))


def _forbid(*_, **__):
    raise PermissionError("the grader does not let a solution use files or processes")


def _remove_unaudited_functions() -> None:
    """Disable functions in C that access files and processes without an audit event."""
    import subprocess

    torch.from_file = torch.save = torch.UntypedStorage.from_file = torch.TypedStorage.from_file = _forbid
    torch._C.PyTorchFileWriter = torch._C.PyTorchFileReader = _forbid
    if hasattr(subprocess, "_fork_exec"):
        import _posixsubprocess

        _posixsubprocess.fork_exec = subprocess._fork_exec = _forbid
    for module, name in [(os, "pidfd_open"), (signal, "pidfd_send_signal")]:
        if hasattr(module, name):
            delattr(module, name)
    sys.modules["readline"] = None


def _make_hook(forbidden: tuple[str, ...]):
    """An audit hook (PEP 578) that blocks files, processes and the network; it cannot be removed once installed."""
    os_events = (f"os.{name}" for name in FORBIDDEN_OS_EVENTS)
    forbidden_events = ("subprocess.", "shutil.", "socket.", "ctypes.", "sqlite3.", *os_events)
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
    # Bound now, because a solution may replace these functions in their modules.
    real_path, is_folder, as_text, nowhere = os.path.realpath, os.path.isdir, os.fsdecode, os.devnull

    def lies_in(path: str, parent: str, separator: str = os.sep) -> bool:
        return path == parent or path.startswith(parent + separator)

    def hook(event: str, arguments: tuple) -> None:
        if event == "open":
            path, mode, flags = arguments
            if type(path) is int:
                return
            path = real_path(str.__str__(as_text(path)))
            if path == nowhere:
                return
            if (type(mode) is str and set(mode) & set("wax+")) or (type(flags) is int and flags & writing):
                raise PermissionError(f"the grader does not let a solution write a file ({path})")
            if any(lies_in(path, parent) for parent in (*forbidden, "/proc")) or is_folder(path):
                raise PermissionError("the grader does not let a solution read its answers")
        elif event.startswith(forbidden_events):
            raise PermissionError(f"the grader does not let a solution use {event}")

    return hook
