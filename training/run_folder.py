"""The run folder: everything about one run, in files that a kill at any moment leaves whole.

    config.json       settings, command, data and versions      events.out.tfevents.*   curves for TensorBoard
    metrics.csv       one row an epoch                          last.pt, best.pt        checkpoints
    result.json       how it ended, the epoch that counts, seconds, parameters and memory

Every file but the events is written under another name and then moved into place.
"""

import contextlib
import csv
import io
import json
import zipfile
from pathlib import Path

import torch

from config.errors import UserError
from sources.files import write_atomically

History = list[dict[str, float]]
OWN_FILES = ("config.json", "metrics.csv", "result.json", "best.pt", "last.pt", ".*.part", "events.out.tfevents.*")


class RunFolder:
    """The files of one run. Use `new` for a new one and `open` for one that exists."""

    def __init__(self, path: Path, exists: bool = True, is_new: bool = False) -> None:
        self.path = path
        self._exists = exists
        self._is_new = is_new

    @classmethod
    def new(cls, path: Path) -> "RunFolder":
        """A folder for a new run; it is made when config.json is written.

        Raises:
            UserError: it holds something already: a run is never overwritten.
        """
        try:
            if (path / "config.json").exists():
                raise UserError(
                    f"{path} holds a run already: go on with it by --resume {path}, or give another --logdir"
                )
            if path.exists() and any(path.iterdir()):
                raise UserError(f"{path} is not empty: give a new --logdir")
        except OSError as error:
            raise UserError(f"the run folder {path} cannot be used: {error.strerror}; give another --logdir") from None
        return cls(path, exists=path.exists(), is_new=True)

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Raises UserError where `path` holds no run."""
        if not (path / "config.json").is_file():
            raise UserError(f"{path} holds no run (it has no config.json)")
        return cls(path)

    def read_config(self) -> dict:
        """Raises UserError where config.json is damaged."""
        try:
            config = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
            return config | {"settings": dict(config["settings"]), "data": dict(config["data"])}
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(
                f"{self.path / 'config.json'} is damaged ({error!r}); train anew with another --logdir"
            ) from None

    def write_config(self, config: dict) -> None:
        """Raises UserError where the folder cannot be made or written."""
        try:
            self.path.mkdir(parents=True, exist_ok=self._exists)
            self._exists = True
            text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
            write_atomically(self.path / "config.json", text.encode())
        except FileExistsError:
            raise UserError(f"another run has just taken the folder {self.path}: run the command again") from None
        except OSError as error:
            raise UserError(
                f"the run folder {self.path} cannot be written: {error.strerror}; give another --logdir"
            ) from None

    def write_metrics(self, history: History) -> None:
        """metrics.csv: one row an epoch, numbers with all their digits."""
        text = io.StringIO()
        table = csv.DictWriter(text, fieldnames=list(history[0]) if history else ["epoch"], lineterminator="\n")
        table.writeheader()
        table.writerows(history)
        write_atomically(self.path / "metrics.csv", text.getvalue().encode())

    def write_result(self, result: dict) -> None:
        write_atomically(self.path / "result.json", (json.dumps(result, indent=2) + "\n").encode())

    def save(self, name: str, state: dict) -> None:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomically(self.path / f"{name}.pt", buffer.getvalue())

    def require_last(self) -> None:
        """Raises UserError where epochs were finished and their checkpoint is gone: going on would begin anew."""
        table = self.path / "metrics.csv"
        if not self.has("last") and table.is_file() and len(table.read_text(encoding="utf-8").splitlines()) > 1:
            raise UserError(
                f"{self.path / 'last.pt'} is missing although metrics.csv holds finished epochs; restore it"
            )

    def has(self, name: str) -> bool:
        return (self.path / f"{name}.pt").is_file()

    def has_summary(self) -> bool:
        """Whether the embeddings were written, the last thing that a run writes."""
        return (self.path / "projector_config.pbtxt").is_file()

    def load(self, name: str, device: torch.device) -> dict:
        """A checkpoint as `save` took it.

        Raises:
            UserError: the file is missing, damaged or not a checkpoint of this program.
        """
        path = self.path / f"{name}.pt"
        try:
            with zipfile.ZipFile(path) as opened:  # what torch.save writes; torch.load does not look at the checksums
                if broken := opened.testzip():
                    raise ValueError(f"{broken} has a wrong checksum")
            state = torch.load(path, map_location=device, weights_only=True)
            epochs = [row["epoch"] for row in state["history"]]
            if epochs != list(range(1, len(epochs) + 1)):
                raise ValueError("its history does not count the epochs")
            return state | {"model": state["model"]}
        except FileNotFoundError:
            raise UserError(f"there is no checkpoint {path}: no epoch was finished, or the file was removed") from None
        except Exception as error:  # torch.load answers damaged files with a dozen kinds of errors
            reason = str(error).split("\n")[0].split(". ")[0]
            raise UserError(f"the checkpoint {path} is damaged ({reason}); train anew with another --logdir") from None

    def restore(self, name: str, device: torch.device, parts: dict) -> History:
        """Load a checkpoint into those of its parts that are given, {"model": network, ..}; returns its history.

        Raises:
            UserError: see `load`; or the checkpoint belongs to another network.
        """
        state = self.load(name, device)
        try:
            for key, part in parts.items():
                part.load_state_dict(state[key])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = (str(error).splitlines() or [repr(error)])[-1].strip()
            raise UserError(
                f"the checkpoint {self.path / name}.pt does not fit the network of this run: {reason}"
            ) from None
        return state["history"]

    def keep_or_discard(self, history: History) -> str:
        """After a failure: keep the finished epochs, or take back a new run that has none. Says which, in a few words.

        Only files that a run writes are removed, and the folder only if nothing else is in it.
        """
        if history or not self._is_new:
            return f"{len(history)} finished epochs are kept in {self.path}"
        for pattern in OWN_FILES:
            for file in self.path.glob(pattern):
                file.unlink()
        with contextlib.suppress(OSError):
            self.path.rmdir()
        return "nothing was kept"
