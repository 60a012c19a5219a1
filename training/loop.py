"""fit(): the one training loop, with early stopping, checkpoints and curves for TensorBoard.

After every epoch the curve is drawn, then best.pt is saved, then last.pt: whatever is newer than last.pt when a run
dies is done again, to the last bit, when it is resumed.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from config.errors import UserError
from training.run_folder import History, RunFolder
from training.steps import GradientStepper, Stopped

# Settings that say nothing about the result, or that a resumed run may change: TensorBoard keeps the first it sees.
NOT_COMPARED = ("epochs", "data_dir", "device", "threads", "quiet", "profile", "logdir")


@dataclass
class Outcome:
    """How a run ended.

    history: a row an epoch: "epoch", "train_<loss>", "train_joint", "val_<metric>", "test_<metric>".
    best_epoch: the best by the monitored validation metric; None without a validation part.
    ending: "finished", "stopped early", "converged" (by the stepper's own rule) or "interrupted".
    epochs_run: how many epochs this session ran.
    seconds: where the time of this session went.
    """

    history: History
    best_epoch: int | None
    ending: str
    epochs_run: int
    seconds: dict[str, float]


def fit(
    model: nn.Module,
    task,
    settings,
    run: RunFolder,
    device: torch.device,
    say: Callable[[str], None],
    stop: Callable[[], bool] = lambda: False,
    make_stepper: Callable = GradientStepper,
) -> Outcome:
    """Train to settings.epochs, from the last checkpoint of `run` where it has one.

    After every epoch the metrics are drawn and the state is saved. The best epoch and early stopping go by
    settings.monitor (default: the task's primary metric) on the validation part alone; without that part nothing is
    chosen. Afterwards `model` holds the best epoch where there is one, else the last.

    Args:
        settings: lr, weight_decay, epochs, patience, monitor, weights, {name: lambda} for the losses of the task, and
            weighting, the method that balances them.
        say: takes one line an epoch.
        stop: asked after every step; True ends the run at its last finished epoch.

    Raises:
        UserError: a loss or a score is not finite, the folder cannot be written, the checkpoint does not fit, or more
            epochs are finished already than settings.epochs.
    """
    session = None
    try:
        session = _Session(model, task, settings, run, device, say, stop, make_stepper)
        already = len(session.history)
        with SummaryWriter(str(run.path), purge_step=already + 1 if already else None) as writer:
            if not already:
                writer.add_text("data", repr(task.data), 0)
            ending = session.train(writer)
            history = session.history
            if session.best.epoch is not None:
                run.restore("best", device, {"model": model})
            if history and (len(history) > already or not run.has_summary()):
                _draw_summary(writer, task, model, settings, history[-1], is_best=session.best.epoch is not None)
    except FloatingPointError as error:
        history = session.history
        kept = run.keep_or_discard(history)
        raise UserError(f"{error} in epoch {len(history) + 1}: lower --lr (now {settings.lr:g}); {kept}") from None
    except UserError:
        run.keep_or_discard(session.history if session is not None else [])
        raise
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(f"{run.path} cannot be written ({error}); make room, then --resume {run.path}") from None
    return Outcome(history, session.best.epoch, ending, len(history) - already, session.clock.seconds)


class _Session:
    """The state of a run while it trains: what a checkpoint holds, the best epoch and the clock."""

    def __init__(
        self, model: nn.Module, task, settings, run: RunFolder, device: torch.device, say, stop, make_stepper
    ) -> None:
        self.model, self.task, self.settings, self.run, self.device = model, task, settings, run, device
        self.say, self.stop = say, stop
        self.stepper = make_stepper(model, task, settings, device)
        self.parts = {"model": model, **self.stepper.checkpoint_parts}
        self.clock = _Clock()
        self.go_back_to_checkpoint()
        if len(self.history) > settings.epochs:
            raise UserError(f"{run.path} has {len(self.history)} epochs already: --epochs must be at least as many")

    def go_back_to_checkpoint(self) -> None:
        """Take up the last finished epoch; what is newer than its checkpoint is written again."""
        self.run.require_last()
        has_one = self.run.has("last")
        self.history: History = self.run.restore("last", self.device, self.parts) if has_one else []
        self.best = _Best(self.task, self.settings, self.history)
        self.run.write_metrics(self.history)

    def train(self, writer: SummaryWriter) -> str:
        """Go on until all epochs are done, patience is over or the user stops it; says which."""
        while len(self.history) < self.settings.epochs:
            if self.best.is_settled(self.history):
                return "stopped early"
            if self.stepper.has_converged(self.history):
                return "converged"
            try:
                row = self._epoch(len(self.history) + 1)
            except Stopped:
                self.go_back_to_checkpoint()
                return "interrupted"
            with self.clock("saving"):
                _draw_epoch(writer, self.task, self.model, row)
                self._save(row)
            self.say(_epoch_line(row, self.task.console_metrics, self.settings.epochs, self.clock.lap()))
        return "finished"

    def _epoch(self, epoch: int) -> dict[str, float]:
        with self.clock("training"):
            losses = self.stepper.run_epoch(epoch, self.history, self.stop)
        for name, value in losses.items():
            if name.startswith("train_") and not math.isfinite(value):
                raise FloatingPointError(f"the loss {name.removeprefix('train_')} became {value}")
        with self.clock("evaluation"):
            row = {"epoch": epoch} | losses | _evaluate(self.model, self.task)
        if math.isnan(row.get(self.best.column, 0.0)):
            raise UserError(f"{self.best.column} is no number, so no epoch can be chosen by it: take another --monitor")
        return row

    def _save(self, row: dict[str, float]) -> None:
        history = [*self.history, row]
        state = {name: part.state_dict() for name, part in self.parts.items()} | {"history": history}
        if self.best.update(row):
            self.run.save("best", state)
        self.run.save("last", state)
        self.history = history
        self.run.write_metrics(history)


class _Best:
    """The best epoch so far by the monitored validation metric; the first of equals counts."""

    def __init__(self, task, settings, history: History) -> None:
        name = settings.monitor or task.primary_metric
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


def _evaluate(model: nn.Module, task) -> dict[str, float]:
    return {f"{split}_{name}": value for split in task.splits for name, value in task.metrics(model, split).items()}


def _draw_epoch(writer: SummaryWriter, task, model: nn.Module, row: dict[str, float]) -> None:
    points = {_tag(column, task.tags): value for column, value in row.items() if column != "epoch"}
    for tag, value in (points | task.diagnostics(model)).items():
        writer.add_scalar(tag, value, row["epoch"])
    writer.flush()  # before the checkpoint: a resumed run drops points after its checkpoint and never misses one before


def _tag(column: str, tags: dict[str, str]) -> str:
    """The tag of a column. Losses and metrics have one in the task's tags; all else is reported by the weighting."""
    if column.startswith(("train_", "val_", "test_")):
        return tags[column]
    return tags.get(column, f"weighting/{column}")


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
    columns = (data.items, data.titles, data.genres)
    # The table has a line an item and tabs between columns, so that no text may hold either, and none may be empty.
    labels = [[" ".join(text.split()) or "-" for text in row] for row in zip(*columns, strict=True)]
    for name, table in task.embeddings(model).items():
        tag = f"{name}_best" if is_best else name
        writer.add_embedding(
            table, labels, global_step=row["epoch"], tag=tag, metadata_header=["id", "title", "genres"]
        )


def _epoch_line(row: dict[str, float], console_metrics: tuple[str, ...], epochs: int, seconds: float) -> str:
    shown: dict[str, list[str]] = {}
    for column, value in row.items():
        split, _, name = column.partition("_")
        if split == "train" or name in console_metrics:
            shown.setdefault(split, []).append(f"{name} {value:.4f}")
    line = " | ".join(f"{split} {' '.join(values)}" for split, values in shown.items())
    return f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs} | {line} | {seconds:.2f} s"
