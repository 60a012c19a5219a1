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

import numpy as np
import torch
from torch import Tensor, nn

from dataset import Interactions
from sources.packing import Packed
from training.process_group import SingleProcess

Row = dict[str, float]  # one epoch: "epoch", "train_<loss>", "val_<metric>", "test_<metric>" and others
History = list[Row]
Baselines = dict[str, dict[str, float]]  # {baseline: {metric: value on the test part}}; absent: what it cannot do
Log = Callable[[str], None]
Stop = Callable[[], bool]


class RunData(Protocol):
    """What the loop, the report and config.json need to know of any data set."""

    @property
    def name(self) -> str: ...

    @property
    def users(self) -> Any:
        """Raw ids, one per row number."""

    @property
    def items(self) -> Any:
        """Raw ids, one per row number."""

    @property
    def titles(self) -> Sequence[str]: ...

    @property
    def genres(self) -> Sequence[str]: ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the user."""

    @property
    def simulated(self) -> bool:
        """True where the program made the data: figures from them say nothing about real users."""

    @property
    def fingerprint(self) -> str:
        """Equal for equal data and equal splits."""

    @property
    def interactions(self) -> Interactions:
        """All rows, with their ratings or labels."""

    @property
    def training_rows(self) -> Interactions:
        """Those that a network is trained on."""

    @property
    def feedback_names(self) -> tuple[str, ...]:
        """What the columns of their ratings are: "rating", or the labels."""

    @property
    def rating_scale(self) -> tuple[float, float]:
        """The lowest and the highest value of a rating or label."""

    def pack(self) -> Packed:
        """Everything, as arrays and texts, for the run folder; see Recipe.unpack."""


class Task(Protocol):
    """What a network is trained for and measured by. `model` is always the network of the task's family."""

    @property
    def data(self) -> RunData: ...

    @property
    def family(self) -> str:
        """Stands in the groups of its TensorBoard tags, before the name of the data; "": tags are as in `tags`."""

    @property
    def headlines(self) -> Mapping[str, tuple[str, str]]:
        """{what is learned: (its training loss, its main metric)}: what TensorBoard shows first."""

    @property
    def primary_metric(self) -> str:
        """Chooses the best epoch unless --monitor names another metric."""

    @property
    def directions(self) -> Mapping[str, int]:
        """{metric: +1 where more is better, -1 where less is, 0 where neither}."""

    @property
    def console_metrics(self) -> tuple[str, ...]:
        """The metrics in the line of an epoch, the most important first: a narrow terminal lacks the last ones."""

    @property
    def compared(self) -> tuple[str, ...]:
        """The metrics shown beside those of the baselines."""

    @property
    def advice(self) -> Mapping[str, str]:
        """{metric: what to try where a baseline is better in it}, for the metrics that matter most."""

    @property
    def splits(self) -> tuple[str, ...]:
        """What is evaluated: "test", after "val" where there is a validation part."""

    @property
    def tags(self) -> Mapping[str, str]:
        """The TensorBoard tag of every column of a history row; see `family`."""

    def metrics(self, model: Any, split: str) -> dict[str, float]:
        """{metric: value} on one of the splits."""

    def diagnostics(self, model: Any) -> dict[str, float]:
        """{TensorBoard tag: value}, drawn beside the metrics; see `family`."""

    def baselines(self) -> Mapping[str, nn.Module]:
        """{name: module} of predictions without a network. `metrics` leaves out what a baseline cannot do."""

    @property
    def baseline_notes(self) -> tuple[str, ...]:
        """Sentences on baselines that are left out."""

    def embeddings(self, model: Any) -> dict[str, Tensor]:
        """{name: (items, d)} for TensorBoard's projector."""

    def row_tables(self, model: Any) -> dict[str, str]:
        """The entries of the network's state_dict with a row for each user or each item: {name: "user" or "item"}."""

    def formulas(self, model: Any) -> Sequence[str]:
        """Lines of text: how the network predicts, by the names of its tensors."""

    @property
    def scores_any_pair(self) -> bool:
        """True where `score` is a function of tensors alone, for any user and item; False: for pairs of the data."""

    def score(self, model: Any, user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Scores (B,) to rank items by, and the columns (B,) to show beside them.

        Scores are -inf where the model knows nothing about a pair; its columns are then nan.
        """

    def score_all(self, model: Any, user_ids: Tensor) -> Tensor:
        """The scores of every item, up to rounding: (B,) -> (B, items)."""

    @property
    def excluded(self) -> Interactions:
        """The pairs that are not recommended again."""

    def fold_in(self, model: Any, users: np.ndarray, rows: Interactions) -> tuple[nn.Module, "Task"]:
        """A copy of the trained network for new users, and a task that scores and excludes for them.

        Only for tasks that score any pair.

        Args:
            users: (N,) raw ids.
            rows: at least one for each of the N users, over the items of the data. A rating that is nan stands for an
                item that was watched and not rated.
        """


class GradientTask(Task, Protocol):
    """A task whose losses are minimized on batches, by training.steps."""

    @property
    def squared_errors(self) -> tuple[str, ...]:
        """The losses that are squared errors, for uncertainty weighting."""

    @property
    def regularizers(self) -> tuple[str, ...]:
        """The losses that are no tasks and that no weighting balances."""

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

    def losses(self, model: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """{name: scalar}, each a sum over rows divided by its divisor."""

    def divisors(self, batch: dict[str, Tensor]) -> Mapping[str, int | Tensor]:
        """{name: divisor}: with them the losses of shards of a batch add up to that of the batch."""


class Stepper(Protocol):
    """Trains a network for an epoch at a time."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines for the user before the first epoch."""

    @property
    def checkpoint_parts(self) -> Mapping[str, Any]:
        """What a checkpoint holds of it: {name: what has state_dict and load_state_dict}."""

    @property
    def first_losses(self) -> Mapping[str, float]:
        """The losses that training lowers, at the first step of epoch 1: {loss: value}; nan before that epoch.

        Training has diverged where "train_<loss>" is far above it; see training.divergence.
        """

    def run_epoch(self, epoch: int, history: History, stop: Stop) -> Row:
        """Train for one epoch and return columns of its row, "train_<loss>" and others; raises Stopped."""

    @property
    def may_converge(self) -> bool:
        """True where the method has a stopping rule of its own."""

    def has_converged(self, history: History) -> bool:
        """True where this rule is met."""


class MakeStepper(Protocol):
    def __call__(self, model: Any, task: Any, config: Any, device: torch.device) -> Stepper: ...


@dataclass(frozen=True)
class Training:
    """A fresh network with its task and what makes its stepper.

    notes: sentences for the user.
    make_answer_parts: makes what else of a checkpoint has to be restored before the network answers, and hands it to
        the task: {name in the checkpoint: object with load_state_dict}.
    """

    model: nn.Module
    task: Task
    make_stepper: MakeStepper
    notes: tuple[str, ...] = ()
    make_answer_parts: Callable[[], Mapping[str, Any]] = dict


class Recipe(Protocol):
    """How a family turns a config into a run. Configs are those of the family's own class."""

    def load_data(self, config: Any) -> Any:
        """The data that the config names, split; UserError where they cannot be had."""

    def unpack(self, packed: Packed) -> Any:
        """The data that a run folder holds, equal to those that were packed."""

    def resolve(self, config: Any, data: Any, log: Log) -> Any:
        """The config with what the data decide; the result is what config.json records."""

    def check_processes(self, config: Any, num_processes: int) -> None:
        """Raises UserError where several processes cannot share this training."""

    def build(self, config: Any, data: Any, device: torch.device, group: SingleProcess) -> Training:
        """A fresh network on the device, drawn from config.seed, with its task and stepper."""
