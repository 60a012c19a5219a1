"""fit(): the one training loop; and the run folder with its checkpoints, curves and tables.

A run folder holds everything about a run:

    config.json       settings, command, data and versions      events.out.tfevents.*   curves for TensorBoard
    metrics.csv       one row an epoch                          last.pt, best.pt        checkpoints

Every file but the events is written under another name and then moved into place, so that a kill at any moment leaves
the last good state; and last.pt is written last, so that whatever is newer than it is written again on resuming.
"""

import csv
import io
import json
import math
import os
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams
from tqdm import tqdm

from errors import UserError
from losses import joint_loss

History = list[dict[str, float]]
# Settings that say nothing about the result, or that a resumed run may change: TensorBoard keeps the first it sees.
NOT_COMPARED = ("epochs", "data_dir", "device", "threads", "quiet", "profile", "logdir")


class RunFolder:
    """The files of one run. Use `new` for a new one and `open` for one that exists."""

    def __init__(self, path: Path) -> None:
        self.path = path

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
            if path.exists() and any(not file.name.startswith(".") for file in path.iterdir()):
                raise UserError(f"{path} is not empty: give a new --logdir")
        except OSError as error:
            raise UserError(f"the run folder {path} cannot be used: {error.strerror}; give another --logdir") from None
        return cls(path)

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
            return {"settings": dict(config["settings"]), "data": dict(config["data"])} | config
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{self.path / 'config.json'} is damaged ({error!r}); train anew with another --logdir"
            ) from None

    def write_config(self, config: dict) -> None:
        """Raises UserError where the folder cannot be made or written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._replace("config.json", (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode())
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
        self._replace("metrics.csv", text.getvalue().encode())

    def save(self, name: str, state: dict) -> None:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self._replace(f"{name}.pt", buffer.getvalue())

    def has(self, name: str) -> bool:
        return (self.path / f"{name}.pt").is_file()

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
            return {key: state[key] for key in ("model", "optimizer", "history")}
        except FileNotFoundError:
            raise UserError(f"there is no checkpoint {path}: no epoch of this run was finished") from None
        except Exception as error:  # torch.load answers damaged files with a dozen kinds of errors
            reason = str(error).split("\n")[0].split(". ")[0]
            raise UserError(f"the checkpoint {path} is damaged ({reason}); train anew with another --logdir") from None

    def restore(self, name: str, device: torch.device, model: nn.Module, optimizer=None) -> History:
        """Load a checkpoint into the model, and the optimizer where one is given; returns its history.

        Raises:
            UserError: see `load`; or the checkpoint belongs to another network.
        """
        state = self.load(name, device)
        try:
            model.load_state_dict(state["model"])
            if optimizer is not None:
                optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise UserError(
                f"the checkpoint {self.path / name}.pt does not fit the network of this run: {reason}"
            ) from None
        return state["history"]

    def keep_or_discard(self, history: History) -> str:
        """After a failure: keep the finished epochs, or remove a run that has none. Says which, in half a sentence."""
        if history:
            return f"{len(history)} finished epochs are kept in {self.path}"
        shutil.rmtree(self.path, ignore_errors=True)
        return "nothing was kept"

    def _replace(self, name: str, content: bytes) -> None:
        scratch = self.path / f".{name}.part"
        scratch.write_bytes(content)
        os.replace(scratch, self.path / name)


@dataclass
class Outcome:
    """How a run ended.

    history: a row an epoch: "epoch", "train_<loss>", "train_joint", "val_<metric>", "test_<metric>".
    best_epoch: the best by the monitored validation metric; None without a validation part.
    ending: "finished", "stopped early" or "interrupted".
    epochs_run: how many epochs this session ran.
    seconds: where the time of this session went.
    """

    history: History
    best_epoch: int | None
    ending: str
    epochs_run: int
    seconds: dict[str, float]


def fit(model: nn.Module, task, settings, run: RunFolder, device: torch.device, say: Callable[[str], None]) -> Outcome:
    """Train to settings.epochs, from the last checkpoint of `run` where it has one.

    After every epoch the metrics are drawn and the state is saved. The best epoch and early stopping go by
    settings.monitor (default: the task's headline) on the validation part alone; without that part nothing is chosen.
    Ctrl-C ends the run at the last finished epoch. Afterwards `model` holds the best epoch where there is one, else the
    last.

    Args:
        settings: lr, weight_decay, epochs, patience, monitor, and weights, {name: lambda} for the losses of the task.
        say: takes one line an epoch.

    Raises:
        UserError: a loss or a score is not finite, the folder cannot be written, or the checkpoint does not fit.
    """
    session = _Session(model, task, settings, run, device, say)
    already = len(session.history)
    try:
        with SummaryWriter(str(run.path), purge_step=already + 1 if already else None) as writer:
            if not already:
                writer.add_text("data", repr(task.data), 0)
            try:
                ending = session.train(writer)
            except KeyboardInterrupt:
                session.go_back_to_checkpoint()
                ending = "interrupted"
            if session.best.epoch is not None:
                run.restore("best", device, model)
            if len(session.history) > already:
                _draw_summary(
                    writer, task, model, settings, session.history[-1], is_best=session.best.epoch is not None
                )
    except FloatingPointError as error:
        kept = run.keep_or_discard(session.history)
        failed = len(session.history) + 1
        raise UserError(f"{error} in epoch {failed}: lower --lr (now {settings.lr:g}); {kept}") from None
    except OSError as error:
        raise UserError(f"{run.path} cannot be written ({error}); make room, then --resume {run.path}") from None
    return Outcome(session.history, session.best.epoch, ending, len(session.history) - already, session.clock.seconds)


class _Session:
    """The state of a run while it trains: what a checkpoint holds, the best epoch and the clock."""

    def __init__(self, model: nn.Module, task, settings, run: RunFolder, device: torch.device, say) -> None:
        self.model, self.task, self.settings, self.run, self.device, self.say = model, task, settings, run, device, say
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True
        )
        self.clock = _Clock()
        self.go_back_to_checkpoint()

    def go_back_to_checkpoint(self) -> None:
        """Take up the last finished epoch; what is newer than its checkpoint is written again."""
        has_one = self.run.has("last")
        self.history: History = self.run.restore("last", self.device, self.model, self.optimizer) if has_one else []
        self.best = _Best(self.task, self.settings, self.history)
        self.run.write_metrics(self.history)

    def train(self, writer: SummaryWriter) -> str:
        """Go on until all epochs are done, or until patience is over; says which."""
        while len(self.history) < self.settings.epochs:
            if self.best.is_settled(self.history):
                return "stopped early"
            with self.clock("training"):
                losses = _train_epoch(
                    self.model, self.task, self.settings.weights, self.optimizer, len(self.history) + 1
                )
            with self.clock("evaluation"):
                row = {"epoch": len(self.history) + 1} | losses | _evaluate(self.model, self.task)
            with self.clock("saving"):
                _draw_epoch(writer, self.task, row)
                self._save(row)
            self.say(_epoch_line(row, self.settings.epochs, self.clock.lap()))
        return "finished"

    def _save(self, row: dict[str, float]) -> None:
        history = [*self.history, row]
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "history": history}
        if self.best.update(row):
            self.run.save("best", state)
        self.run.save("last", state)
        self.history = history
        self.run.write_metrics(history)


class _Best:
    """The best epoch so far by the monitored validation metric; the first of equals counts."""

    def __init__(self, task, settings, history: History) -> None:
        name = settings.monitor or task.headline[0]
        self.column, self.direction = f"val_{name}", task.directions[name]
        self.patience = settings.patience
        self.epoch: int | None = None
        self.value = -math.inf
        for row in history:
            self.update(row)

    def update(self, row: dict[str, float]) -> bool:
        """Take a new epoch into account and say whether it is the best so far."""
        value = self.direction * row.get(self.column, math.nan)
        if value > self.value:
            self.epoch, self.value = row["epoch"], value
            return True
        return False

    def is_settled(self, history: History) -> bool:
        return self.patience is not None and len(history) - (self.epoch or 0) >= self.patience


class _Clock:
    """Adds up the seconds spent under each name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._lap_start = time.perf_counter()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def lap(self) -> float:
        """Seconds since the last call."""
        start, self._lap_start = self._lap_start, time.perf_counter()
        return self._lap_start - start


def _train_epoch(model: nn.Module, task, weights: dict[str, float], optimizer, epoch: int) -> dict[str, float]:
    """One pass over the training part: the mean of each loss over its batches, by their sizes."""
    model.train()
    sums: dict[str, torch.Tensor | float] = dict.fromkeys((*task.loss_names, "joint"), 0.0)
    rows = 0
    bar = tqdm(
        task.batches(epoch),
        f"epoch {epoch}",
        task.num_batches,
        leave=False,
        unit="step",
        disable=not sys.stderr.isatty(),
    )
    for batch in bar:
        losses = task.losses(model, batch)
        joint = joint_loss(losses, weights)
        optimizer.zero_grad()
        joint.backward()
        optimizer.step()
        size = task.batch_rows(batch)
        rows += size
        # Tensors are summed where they lie: reading a number every step would make a GPU wait.
        for name, loss in {**losses, "joint": joint}.items():
            sums[name] = sums[name] + loss.detach().double() * size
    means = {f"train_{name}": float(total) / rows for name, total in sums.items()}
    for name, mean in means.items():
        if not math.isfinite(mean):
            raise FloatingPointError(f"the loss {name.removeprefix('train_')} became {mean}")
    return means


def _evaluate(model: nn.Module, task) -> dict[str, float]:
    return {f"{part}_{name}": value for part in task.parts for name, value in task.metrics(model, part).items()}


def _draw_epoch(writer: SummaryWriter, task, row: dict[str, float]) -> None:
    for name, tag in task.tags.items():
        if name in row:
            writer.add_scalar(tag, row[name], row["epoch"])
    writer.flush()  # before the checkpoint: a resumed run drops points after its checkpoint and never misses one before


def _draw_summary(
    writer: SummaryWriter, task, model: nn.Module, settings, row: dict[str, float], is_best: bool
) -> None:
    """Settings beside final metrics for the hparams page, and the item embeddings with titles and genres."""
    values = {name: value for name, value in asdict(settings).items() if value is not None and name not in NOT_COMPARED}
    flat = {name: value if type(value) in (int, float, str) else str(value) for name, value in values.items()}
    final = {tag: row[name] for name, tag in task.tags.items() if name in row}
    # The page reads its numbers from these tags. Left out is the summary of the experiment: TensorBoard would take that
    # of one arbitrary run for all of them. writer.add_hparams would write it, and make a stray run folder as well.
    _, start, end = hparams(flat, final)
    writer.file_writer.add_summary(start)
    writer.file_writer.add_summary(end)
    data = task.data
    labels = list(zip(data.items, data.titles, (genres or "-" for genres in data.genres), strict=True))
    for name, table in task.embeddings(model).items():
        tag = f"{name}_best" if is_best else name
        writer.add_embedding(
            table, labels, global_step=row["epoch"], tag=tag, metadata_header=["id", "title", "genres"]
        )


def _epoch_line(row: dict[str, float], epochs: int, seconds: float) -> str:
    parts: dict[str, list[str]] = {}
    for column, value in row.items():
        part, _, name = column.partition("_")
        if part == "train" or name in ("mrr", "mse"):
            parts.setdefault(part, []).append(f"{name} {value:.4f}")
    told = " | ".join(f"{part} {' '.join(values)}" for part, values in parts.items())
    return f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs} | {told} | {seconds:.2f} s"
