"""The run folder: all files of one run. A kill at any moment leaves every file complete.

    config.json       settings, command, data and versions      events.out.tfevents.*   curves for TensorBoard
    metrics.csv       one row per epoch                         last.pt, best.pt        checkpoints
    data.npz          the data and their split            result.json             how the run ended, and its metrics

Every file except the events is written under a temporary name and then renamed. A run owns its folder from its first
file, or from --resume, to its end: see sources/locks.py.
"""

import contextlib
import csv
import errno
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from config.errors import UserError
from sources.files import Content, write_atomically
from sources.locks import FolderLock, is_lock_file
from sources.packing import Packed, read_packed, write_packed
from training.checkpoint import BadEntry, NotFinite, check_history, check_part, check_tensors

History = list[dict[str, float]]
OWN_FILES = (
    "config.json",
    "data.npz",
    "metrics.csv",
    "result.json",
    "best.pt",
    "last.pt",
    ".*.part",
    "events.out.tfevents.*",
)
BY_TENSORBOARD = ("events.out.tfevents.*", "projector_config.pbtxt", "0*")  # it follows links
DISK_IS_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class RunFolder:
    """The files of one run. Create it with `new`, or `open` an existing one."""

    def __init__(self, path: Path, exists: bool = True, is_new: bool = False) -> None:
        self.path = path
        self._exists = exists
        self._is_new = is_new
        self._lock: FolderLock | None = None

    @classmethod
    def new(cls, path: Path) -> "RunFolder":
        """A folder for a new run. `write_config` creates it on disk.

        Raises:
            UserError: the folder is not empty (files are never overwritten), or it cannot be read.
        """
        try:
            if (path / "config.json").exists():
                raise UserError(
                    f"{path} holds a run already: continue it with --resume {path}, or give another --logdir"
                )
            if path.exists() and not _is_empty(path):
                raise UserError(f"{path} is not empty: give a new --logdir")
        except OSError as error:
            raise UserError(f"the run folder {path} cannot be used: {error.strerror}; give another --logdir") from None
        return cls(path, exists=path.exists(), is_new=True)

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """An existing run. Raises UserError if `path` holds none."""
        if not (path / "config.json").is_file():
            raise UserError(f"{path} holds no run (it has no config.json)")
        return cls(path)

    def read_config(self) -> dict:
        """The content of config.json. Raises UserError if it is damaged."""
        try:
            config = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
            return config | {"settings": dict(config["settings"]), "data": dict(config["data"])}
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(
                f"{self.path / 'config.json'} is damaged ({_reason(error)}); train again with another --logdir"
            ) from None

    def has_format(self, number: int) -> bool:
        """True if config.json can be read and has this format number."""
        try:
            return self.read_config().get("format") == number
        except UserError:
            return False

    def lock(self) -> None:
        """Own the folder until `release`: no other process writes to it meanwhile.

        Raises:
            UserError: another process owns it, or it cannot be written.
        """
        if self._lock is None:
            try:
                self._lock = FolderLock(self.path)
            except OSError as error:
                raise UserError(self.describe(error)) from None

    def release(self) -> None:
        """Give the folder free for other processes."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def write_config(self, config: dict) -> None:
        """Write config.json; a new run creates its folder and owns it from here on. Raises UserError if that fails."""
        try:
            self.path.mkdir(parents=True, exist_ok=self._exists)
            if self._lock is None:
                self._take()
            self._write("config.json", _as_json(config))
        except FileExistsError:
            raise UserError(_taken(self.path)) from None
        except OSError as error:
            self.keep_or_discard([])
            raise UserError(self.describe(error)) from None

    def _take(self) -> None:
        """Own the folder; that of a new run must not have been used since `new` has looked at it."""
        self._exists = True
        self.lock()
        if self._is_new and not _is_empty(self.path):
            self.release()
            raise UserError(_taken(self.path))

    def write_data(self, data: Packed) -> None:
        """data.npz, once: a resumed run has the same data. Raises UserError if it cannot be written."""
        path = self.path / "data.npz"
        if path.exists():
            return
        try:
            self._write(path.name, lambda file: write_packed(file, data))
        except OSError as error:
            raise UserError(self.describe(error)) from None

    def read_data(self) -> Packed:
        """The content of data.npz. Raises UserError if it is missing or damaged."""
        return read_packed(self._regular("data.npz"))

    def write_metrics(self, history: History) -> None:
        """metrics.csv: one row per epoch, numbers with all their digits."""
        text = io.StringIO()
        table = csv.DictWriter(text, fieldnames=list(history[0]) if history else ["epoch"], lineterminator="\n")
        table.writeheader()
        table.writerows(history)
        self._write("metrics.csv", text.getvalue().encode())

    def write_result(self, result: dict) -> None:
        """result.json, from plain values."""
        self._write("result.json", _as_json(result))

    def save(self, name: str, state: dict) -> None:
        """Write a checkpoint; name: "last" or "best"."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self._write(f"{name}.pt", buffer.getvalue())

    def describe(self, error: OSError) -> str:
        """A sentence on an error in writing to this folder: what is wrong, and what to do about it."""
        if self._lock is not None and not self._lock.holds:
            return self._gone()
        resume = f"--resume {self.path}" if (self.path / "config.json").is_file() else "start again"
        if error.errno in DISK_IS_FULL:
            advice = f"make room, then {resume}"
        elif self.path.is_dir():
            advice = f"make it writable, then {resume}"
        else:
            advice = "give another --logdir"
        return f"the run folder {self.path} cannot be written: {error.strerror or error}; {advice}"

    def _regular(self, name: str) -> Path:
        """The path of a file; UserError where something else, such as a pipe without an end, has its name."""
        path = self.path / name
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is no regular file: restore it from a copy of the run")
        return path

    def require_same_folder(self) -> None:
        """Raises UserError where the folder was renamed or deleted since this run owns it."""
        if self._lock is not None and not self._lock.holds:
            raise UserError(self._gone())

    def require_no_links(self) -> None:
        """Raises UserError where TensorBoard would write through a link to somewhere else."""
        for path in (path for pattern in BY_TENSORBOARD for path in self.path.glob(pattern)):
            if path.is_symlink():
                raise UserError(f"{path} is a link, and this run would write to where it leads: remove it")

    def _gone(self) -> str:
        return (
            f"{self.path} was renamed or deleted while this run was using it, so nothing more is written; if it was "
            "renamed, --resume with its new name continues the run"
        )

    def _write(self, name: str, content: Content) -> None:
        """Write one file, into the folder that this run began in and into no other one."""
        self.require_same_folder()
        write_atomically(self.path / name, content)

    def require_last(self) -> None:
        """Raises UserError if epochs were finished but last.pt is missing: training would start from scratch."""
        table = self.path / "metrics.csv"
        if not self.has("last") and table.is_file() and len(table.read_bytes().splitlines()) > 1:
            raise UserError(
                f"{self.path / 'last.pt'} is missing, but metrics.csv has finished epochs; restore the file"
            )

    def has(self, name: str) -> bool:
        """True if the checkpoint exists; name: "last" or "best"."""
        return (self.path / f"{name}.pt").is_file()

    def has_config(self) -> bool:
        """True if config.json was written; a training loop of one's own may leave it out."""
        return (self.path / "config.json").is_file()

    def has_summary(self) -> bool:
        """True if the item embeddings were written, the last step of a run."""
        return (self.path / "projector_config.pbtxt").is_file()

    def load(self, name: str, device: torch.device) -> dict:
        """Read a checkpoint that `save` wrote.

        Raises:
            UserError: the file is missing, damaged or not a checkpoint of ours.
        """
        path = self._regular(f"{name}.pt")
        try:
            with zipfile.ZipFile(path) as opened:  # the format of torch.save; torch.load does not verify checksums
                if broken := opened.testzip():
                    raise ValueError(f"{broken} has a wrong checksum")
            state = torch.load(path, map_location=device, weights_only=True)
            check_history(state["history"])
            check_tensors("model", state["model"])
            return dict(state)
        except FileNotFoundError:
            raise UserError(f"there is no checkpoint {path}: no epoch was finished, or the file was deleted") from None
        except NotFinite as error:
            raise UserError(_not_finite(path, error)) from None
        except Exception as error:  # torch.load raises many types of errors on damaged files
            reason = (str(error) or repr(error)).split("\n")[0].split(". ")[0]
            raise UserError(f"the checkpoint {path} is damaged ({reason}); train again with another --logdir") from None

    def restore(self, name: str, device: torch.device, parts: Mapping[str, Any], is_whole: bool = False) -> History:
        """Load a checkpoint into the given objects.

        Args:
            name: "last" or "best".
            device: where the tensors are loaded.
            parts: {key in the checkpoint: object with load_state_dict}, for instance {"model": network}.
            is_whole: `parts` are all that the checkpoint holds beside the history.

        Returns:
            The history of the run up to the checkpoint.

        Raises:
            UserError: see `load`; or the checkpoint belongs to a different network, or was changed.
        """
        state, path = self.load(name, device), self.path / f"{name}.pt"
        try:
            if is_whole and (unknown := [key for key in state if key not in parts and key != "history"]):
                raise BadEntry(f"this run does not know its entry {unknown[0]!r}")
            for key, part in parts.items():
                if key not in state:
                    raise BadEntry(f"it lacks the entry {key!r}")
                check_part(key, state[key], part)
                part.load_state_dict(state[key])
        except NotFinite as error:
            raise UserError(_not_finite(path, error)) from None
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = (str(error).splitlines() or [repr(error)])[-1].strip()
            raise UserError(f"the checkpoint {path} does not fit the network of this run: {reason}") from None
        return state["history"]

    def keep_or_discard(self, history: History) -> str:
        """After a failure, keep the finished epochs; remove a new run that has none. Returns a phrase that says which.

        Removes only files that a run writes, and the folder only if it is then empty.
        """
        if history or not self._is_new:
            kept = "1 finished epoch is" if len(history) == 1 else f"{len(history)} finished epochs are"
            return f"{kept} kept in {self.path}"
        if self._lock is not None and self._lock.holds:
            for pattern in OWN_FILES:
                for file in self.path.glob(pattern):
                    file.unlink()
        self.release()
        with contextlib.suppress(OSError):
            self.path.rmdir()
        return "nothing was kept"


def _is_empty(folder: Path) -> bool:
    """True where there is nothing but what the lock of a killed process has left."""
    return all(is_lock_file(path.name) for path in folder.iterdir())


def _not_finite(path: Path, error: NotFinite) -> str:
    return (
        f"the checkpoint {path} holds values that are not finite ({error}): restore the file from a copy, or train "
        "again with another --logdir"
    )


def _taken(path: Path) -> str:
    return f"another run has just taken the folder {path}: run the command again with another --logdir"


def _as_json(values: dict) -> bytes:
    return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()


def _reason(error: Exception) -> str:
    """What is wrong with a file, without its content, which a UnicodeDecodeError carries."""
    return "it is no UTF-8 text" if isinstance(error, UnicodeDecodeError) else repr(error)
