"""fit(): the one training loop, with early stopping, checkpoints and curves for TensorBoard.

After every epoch the curves are drawn, then best.pt is saved, then last.pt. What is newer than last.pt when a run dies
is done again, to the last bit, when the run is resumed.
"""

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.tensorboard import SummaryWriter

from config.base import GradientConfig, RunConfig
from config.errors import UserError
from training.divergence import require_no_divergence
from training.epoch_line import epoch_line, time_left
from training.model_errors import explain
from training.protocols import Baselines, History, Log, Row, Stop, Task, Training
from training.run_folder import RunFolder
from training.steps import Stopped
from training.tensorboard import draw_epoch, draw_page, draw_summary, without_tracebacks_of_the_writer
from training.terminal import Marked, terminal_width
from training.warm_start import start_from


@dataclass
class Outcome:
    """How a run ended.

    history: one row per epoch: "epoch", "train_<loss>", "train_joint", "val_<metric>", "test_<metric>".
    best_epoch: the best by the monitored validation metric; None without a validation part, and for a model that is not
        trained by gradient descent: such a fit is complete at its last epoch alone.
    monitored: the column that chooses the best epoch.
    ending: "finished", "stopped early", "converged" (by the stepper's own rule) or "interrupted".
    epochs_run: how many epochs this session ran.
    seconds: where the time of this session went.
    baselines: {baseline: {metric: value on the test part}}.
    """

    history: History
    best_epoch: int | None
    monitored: str
    ending: str
    epochs_run: int
    seconds: dict[str, float]
    baselines: Baselines


def fit(
    training: Training,
    config: RunConfig,
    run: RunFolder,
    device: torch.device,
    log: Log,
    stop: Stop = lambda: False,
) -> Outcome:
    """Train to config.epochs, from the last checkpoint of `run` where it has one.

    After every epoch the metrics are drawn and the state is saved. With a GradientConfig, the best epoch and early
    stopping use config.monitor (default: the task's primary metric) on the validation part alone; without that part
    nothing is chosen. Afterwards the model holds the best epoch where there is one, else the last.

    Args:
        training: network, task and what makes the stepper.
        config: epochs and start_from; of a GradientConfig also patience, monitor and what the stepper reads.
        log: takes one line per epoch.
        stop: asked after every step; True ends the run at its last finished epoch.

    Raises:
        UserError: training has diverged (see training.divergence), a score is not finite, the folder cannot be
            written, the checkpoint does not fit, the monitored metric does not exist, or more epochs are finished
            already than config.epochs.
    """
    history: History = []
    with _explained(run, config, history):
        session = _Session(training, config, run, device, log, stop, history)
        already = len(history)
        run.require_no_links()
        purge_step = already + 1 if already else None
        with without_tracebacks_of_the_writer(), SummaryWriter(str(run.path), purge_step=purge_step) as writer:
            ending = session.train(writer, already)
    best = session.best
    epochs_run = len(history) - already
    return Outcome(history, best.epoch, best.column, ending, epochs_run, session.clock.seconds, session.baselines)


@contextmanager
def _explained(run: RunFolder, config: RunConfig, history: History) -> Iterator[None]:
    """Turn what can go wrong in training into sentences; the finished epochs, those of `history`, are kept."""
    try:
        yield
    except FloatingPointError as error:
        kept = run.keep_or_discard(history)
        raise UserError(f"{error} in epoch {len(history) + 1}: {config.divergence_advice}; {kept}") from None
    except UserError:
        run.keep_or_discard(history)
        raise
    except BrokenPipeError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and explain(error) is None:
            raise UserError(run.describe(error)) from None
        kept = run.keep_or_discard(history)
        if history:
            error.add_note(f"{kept}: correct the error, then --resume {run.path}")
        raise


class _Session:
    """The state of a run while it trains: what a checkpoint holds, the best epoch and the clock."""

    def __init__(
        self,
        training: Training,
        config: RunConfig,
        run: RunFolder,
        device: torch.device,
        log: Log,
        stop: Stop,
        history: History,
    ) -> None:
        self.model, self.task = training.model, training.task
        self.config, self.run, self.device, self.log, self.stop = config, run, device, log, stop
        if config.start_from is not None and not run.has("last"):  # else the checkpoint has all weights
            log(start_from(Path(config.start_from), training.model, training.task, device))
        self.stepper = training.make_stepper(training.model, training.task, config, device)
        for note in self.stepper.notes:
            log(note)
        self.parts = {"model": training.model, **self.stepper.checkpoint_parts}
        self.clock = _Clock()
        self.durations: list[float] = []  # seconds of each epoch of this session
        self.baselines: Baselines = {}
        self.history = history  # changed in place: the caller sees the finished epochs whatever happens
        self.return_to_checkpoint()
        if len(self.history) > config.epochs:
            raise UserError(f"{run.path} has {len(self.history)} epochs already: --epochs must be at least as many")

    def return_to_checkpoint(self) -> None:
        """Load the last finished epoch; what is newer than its checkpoint is written again."""
        self.run.require_last()
        has_checkpoint = self.run.has("last")
        self.history[:] = self.run.restore("last", self.device, self.parts, is_whole=True) if has_checkpoint else []
        self.best = _Best(self.task, self.config, self.history)
        self.run.write_metrics(self.history)

    def train(self, writer: SummaryWriter, already: int) -> str:
        """Measure the baselines, run the epochs that are left and draw the summary; returns the ending."""
        with self.clock("baselines"):
            self.baselines = _measure_baselines(self.task)
        self.clock.lap()
        if already < self.config.epochs:
            record = self.run.read_config() if self.run.has_config() else {}
            draw_page(writer, self.task, self.config, record, self.baselines, already)
        ending = self._run_epochs(writer)
        if self.best.epoch is not None:
            self.run.restore("best", self.device, {"model": self.model})
        if self.history and (len(self.history) > already or not self.run.has_summary()):
            is_best = self.best.epoch is not None
            self.run.require_no_links()
            draw_summary(writer, self.task, self.model, self.config, self.history[-1], is_best, self.run.path)
        return ending

    def _run_epochs(self, writer: SummaryWriter) -> str:
        """Run until all epochs are done, patience is spent, the stepper has converged or the user stops the run."""
        while len(self.history) < self.config.epochs:
            if self.best.patience_is_spent(self.history):
                return "stopped early"
            if self.stepper.has_converged(self.history):
                return "converged"
            try:
                row = self._run_epoch(len(self.history) + 1)
            except Stopped:
                self.return_to_checkpoint()
                return "interrupted"
            with self.clock("saving"):
                self.run.require_same_folder()
                draw_epoch(writer, self.task, self.model, row, self.baselines)
                self._save(row)
            self._log_epoch(row)
        return "finished"

    def _log_epoch(self, row: Row) -> None:
        """Print the line of an epoch, marked where it is the best so far."""
        duration = self.clock.lap()
        self.durations.append(duration)
        epochs, may_stop = self.config.epochs, self.best.patience is not None or self.stepper.may_converge
        left = time_left(self.durations, epochs - len(self.history), may_stop)
        width = terminal_width(sys.stdout)
        line = epoch_line(row, self.task.console_metrics, epochs, duration, left, width)
        self.log(Marked(line, "good") if self.best.epoch == row["epoch"] else line)

    def _run_epoch(self, epoch: int) -> Row:
        with self.clock("training"):
            losses = self.stepper.run_epoch(epoch, self.history, self.stop)
        require_no_divergence(losses, self.stepper.first_losses, self.history)
        with self.clock("evaluation"):
            row = {"epoch": epoch} | losses | self._evaluate()
        if self.history and (unknown := [name for name in row if name not in self.history[0]]):
            raise UserError(f"the history in the checkpoints of {self.run.path} lacks the column {unknown[0]}")
        if math.isnan(row.get(self.best.column, 0.0)):
            raise UserError(f"{self.best.column} is not a number, so it cannot choose an epoch: use another --monitor")
        return row

    def _evaluate(self) -> Row:
        task = self.task
        found = {split: task.metrics(self.model, split) for split in task.splits}
        return {f"{split}_{name}": value for split, values in found.items() for name, value in values.items()}

    def _save(self, row: Row) -> None:
        history = [*self.history, row]
        state = {name: part.state_dict() for name, part in self.parts.items()} | {"history": history}
        if self.best.update(row):
            self.run.save("best", state)
        self.run.save("last", state)
        self.history.append(row)
        self.run.write_metrics(history)


class _Best:
    """The best epoch so far by the monitored validation metric; of equal epochs the first."""

    def __init__(self, task: Task, config: RunConfig, history: History) -> None:
        self.chooses = isinstance(config, GradientConfig)
        given = config.monitor if isinstance(config, GradientConfig) else None
        name = given or task.primary_metric
        if not task.directions.get(name):
            known = ", ".join(metric for metric, direction in task.directions.items() if direction)
            raise UserError(f"--monitor cannot be {name!r}; choose one of {known}")
        self.column, self.direction = f"val_{name}", task.directions[name]
        self.patience = config.patience if isinstance(config, GradientConfig) else None
        self.epoch: int | None = None
        self.value = -math.inf
        for row in history:
            self.update(row)

    def update(self, row: Row) -> bool:
        """Take a new epoch into account; True where it is the best so far."""
        value = self.direction * row.get(self.column, math.nan)
        if self.chooses and value > self.value:
            self.epoch, self.value = int(row["epoch"]), value
            return True
        return False

    def patience_is_spent(self, history: History) -> bool:
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


def _measure_baselines(task: Task) -> Baselines:
    return {name: task.metrics(baseline, "test") for name, baseline in task.baselines().items()}
