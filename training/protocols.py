"""The contracts between the training loop and the model families, as types.

    Recipe    how a family turns a config into data, network, task and stepper
    Task      what a network is trained for and measured by
    GradientTask  a task whose losses are minimized on batches
    Stepper   what trains for one epoch

The loop (training.loop) knows no family; it sees these types alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from config.base import RunConfig
from training.process_group import SingleProcess

Row = dict[str, float]  # one epoch: "epoch", "train_<loss>", "val_<metric>", "test_<metric>" and others
History = list[Row]
Log = Callable[[str], None]
Stop = Callable[[], bool]


class RunData(Protocol):
    """What the loop, the report and config.json need to know of any data set."""

    name: str
    users: Any
    items: Any
    notes: tuple[str, ...]
    simulated: bool

    @property
    def titles(self) -> Sequence[str]: ...

    @property
    def genres(self) -> Sequence[str]: ...

    @property
    def fingerprint(self) -> str:
        """Equal for equal data and equal splits."""


class Task(Protocol):
    """What a network is trained for and measured by."""

    data: Any
    primary_metric: str  # chooses the best epoch unless --monitor names another
    directions: Mapping[str, int]  # {metric: +1 where more is better, -1 where less is, 0 where neither}
    console_metrics: tuple[str, ...]  # the metrics in the line of an epoch
    compared: tuple[str, ...]  # the metrics shown beside those of the baselines
    can_recommend: bool  # True where `score` ranks any item for any user

    @property
    def splits(self) -> tuple[str, ...]:
        """What is evaluated: "test", after "val" where there is a validation part."""

    @property
    def tags(self) -> Mapping[str, str]:
        """The TensorBoard tag of every column of a history row."""

    def metrics(self, model: nn.Module, split: str) -> dict[str, float]:
        """{metric: value} on one of the splits."""

    def diagnostics(self, model: nn.Module) -> dict[str, float]:
        """{TensorBoard tag: value}, drawn beside the metrics."""

    def baselines(self) -> Mapping[str, nn.Module]:
        """{name: module} of predictions without a network, measured like one."""

    def embeddings(self, model: nn.Module) -> dict[str, Tensor]:
        """{name: (items, d)} for TensorBoard's projector."""

    def score(self, model: nn.Module, user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Scores (B,) to rank items by, and the columns (B,) to show beside them; UserError unless can_recommend."""


class GradientTask(Task, Protocol):
    """A task whose losses are minimized on batches, by training.steps."""

    squared_errors: tuple[str, ...]  # the losses that are squared errors, for uncertainty weighting
    regularizers: tuple[str, ...]  # the losses that are no tasks and that no weighting balances

    @property
    def loss_names(self) -> tuple[str, ...]:
        """The keys of what `losses` returns; the config holds a weight for each."""

    @property
    def num_batches(self) -> int:
        """Steps in an epoch."""

    def batches(self, epoch: int) -> Iterator[dict[str, Tensor]]:
        """The batches of an epoch, drawn from (seed, epoch) alone."""

    def batch_rows(self, batch: dict[str, Tensor]) -> int:
        """How many rows a batch holds."""

    def losses(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """{name: scalar}, each a sum over rows divided by its divisor."""

    def divisors(self, batch: dict[str, Tensor]) -> Mapping[str, int | Tensor]:
        """{name: divisor}: with them the losses of shards of a batch add up to that of the batch."""


class Stepper(Protocol):
    """Trains a network for an epoch at a time."""

    checkpoint_parts: dict[str, Any]  # what a checkpoint holds of it: {name: what has state_dict and load_state_dict}

    def run_epoch(self, epoch: int, history: History, stop: Stop) -> Row:
        """Train for one epoch and return columns of its row, "train_<loss>" and others; raises Stopped."""

    def has_converged(self, history: History) -> bool:
        """True where a stopping rule of the method itself is met."""


class MakeStepper(Protocol):
    def __call__(self, model: Any, task: Any, config: Any, device: torch.device) -> Stepper: ...


@dataclass(frozen=True)
class Training:
    """A fresh network with its task and what makes its stepper; `notes` are sentences for the user."""

    model: nn.Module
    task: Task
    make_stepper: MakeStepper
    notes: tuple[str, ...] = ()


class Recipe(Protocol):
    """How a family turns a config into a run. Configs are those of the family's own class."""

    def load_data(self, config: Any) -> Any:
        """The data that the config names, split; UserError where they cannot be had."""

    def resolve(self, config: Any, data: Any, log: Log) -> Any:
        """The config with what the data decide; the result is what config.json records."""

    def check_processes(self, config: Any, num_processes: int) -> None:
        """Raises UserError where several processes cannot share this training."""

    def build(self, config: Any, data: Any, device: torch.device, group: SingleProcess) -> Training:
        """A fresh network on the device, drawn from config.seed, with its task and stepper."""


__all__ = [
    "GradientTask", "History", "Log", "MakeStepper", "Recipe", "Row", "RunConfig", "RunData", "Stepper", "Stop", "Task",
    "Training",
]  # fmt: skip
