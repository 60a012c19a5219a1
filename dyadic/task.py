"""The task of the dyadic learner and its stepper, the stochastic gradient descent of Algorithm 1."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from config.dyadic import TASKS, DyadicConfig, LearnerOptions
from config.errors import UserError
from dataset import Interactions
from dyadic.data import DyadicData
from dyadic.metrics import METRICS, evaluate
from dyadic.network import DyadicNet, build_network, scores
from dyadic.sampling import Inputs, make_sampler, prepare
from dyadic.updates import (
    FIXED_KEY,
    FIXED_TRIPLES,
    Losses,
    largest_change,
    run_epoch,
    steps_per_epoch,
    triple_losses,
)
from evaluation import FURTHER_METRICS, MAIN_METRICS
from sources.ids import encode_pairs
from training.divergence import require_no_divergence
from training.protocols import History, Row, Stop
from training.steps import Stopped, progress_bar

CHUNK_TRIPLES = 8192  # triples between two checks for Ctrl-C


class DyadicTask:
    """The four tasks on dyads. There is no validation part; tuning splits the training dyads into folds.

    Args:
        data: dyads with their features.
        options: the tasks and their updates.
        device: the device of the dyads.
        thresholds: of the four probabilities, for F1.
    """

    family = "dyadic"
    splits = ("test",)
    compared: tuple[str, ...] = ()
    advice: ClassVar[dict[str, str]] = {}
    baseline_notes: tuple[str, ...] = ()

    def __init__(
        self,
        data: DyadicData,
        options: LearnerOptions,
        device: torch.device | str = "cpu",
        thresholds: Sequence[float] = DyadicConfig.thresholds,
    ) -> None:
        self.data = data
        self.options = options
        self.thresholds = dict(zip(TASKS, thresholds, strict=True))
        self.sampler = make_sampler(data)
        self.inputs = prepare(data).to(device)
        keys = data.pair_keys
        self._order = np.argsort(keys)
        self._keys = keys[self._order]
        self.directions = {f"{task}_{metric}": +1 for task in options.active for metric in METRICS}
        self.primary_metric = f"{options.active[0]}_auc"
        self.headlines = {task: (task, f"{task}_auc") for task in options.active}
        self.console_metrics = tuple(metric for _, metric in self.headlines.values())

    @property
    def tags(self) -> dict[str, str]:
        losses = {f"train_{task}": f"loss/{task}" for task in (*TASKS, "total")}
        regularizers = {f"reg_{task}": f"reg/{task}" for task in TASKS}
        fixed = {f"fixed_{task}": f"fixed triples/{task}" for task in TASKS}
        groups = {name: MAIN_METRICS if name in self.console_metrics else FURTHER_METRICS for name in self.directions}
        metrics = {f"test_{name}": f"{group}/{name.replace('_', ' ')}" for name, group in groups.items()}
        return losses | regularizers | fixed | {"stop_max_delta": "stop/max_delta"} | metrics

    def build_network(self) -> DyadicNet:
        return build_network(self.data, self.sampler, self.options)

    def metrics(self, model: DyadicNet, split: str) -> dict[str, float]:
        """F1 at the threshold of each task; means over users of AUC, MAP@1 and MAP@5; all on the test dyads."""
        rows, data = self.data.test, self.data
        found: dict[str, float] = {}
        for task, score in scores(model, self.inputs, rows, self.options).items():
            if not np.isfinite(score).all():
                raise FloatingPointError(f"a score of the {task} task is nan or infinite")
            labels = data.task_labels[rows, TASKS.index(task)]
            measured = evaluate(
                data.user_ids[rows], data.item_ids[rows], labels, score, data.num_users, self.thresholds[task]
            )
            found |= {f"{task}_{metric}": value for metric, value in measured.means.items()}
        return found

    def diagnostics(self, model: DyadicNet) -> dict[str, float]:
        return {}

    def baselines(self) -> dict[str, nn.Module]:
        return {}

    def embeddings(self, model: DyadicNet) -> dict[str, Tensor]:
        return {"I": model.I.detach()} if self.options.embedding_dim else {}

    def row_tables(self, model: DyadicNet) -> dict[str, str]:
        return {"U": "user", "I": "item"}

    def formulas(self, model: DyadicNet) -> tuple[str, ...]:
        return (
            f"x = [{model.num_static} features and context columns of the dyad, U[user], I[item]]",
            "click, bookmark, reply = sigmoid(w1 . x), sigmoid(w2 . x), sigmoid(w3 . x); embedding = sigmoid(U . I)",
            "The features come from the neighbors of the dyad in the training data: dyadic/features.py computes them.",
        )

    scores_any_pair = False

    def score(self, model: DyadicNet, user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The logit of the primary task and the probability of each task, for dyads in the data; see Task.score.

        A dyad has features, such as the neighbors' reactions to its item, only where it is in the data.
        """
        keys = encode_pairs(user_ids.cpu().numpy(), item_ids.cpu().numpy(), self.data.num_items)
        places = np.searchsorted(self._keys, keys).clip(max=len(self._keys) - 1)
        known = self._keys[places] == keys
        logits = scores(model, self.inputs, self._order[places], self.options)
        shown = {task: np.where(known, 1 / (1 + np.exp(-logit)), np.nan) for task, logit in logits.items()}
        ranked = np.where(known, logits[self.options.active[0]], -np.inf)
        tensors = {task: torch.from_numpy(values).to(user_ids.device) for task, values in shown.items()}
        return torch.from_numpy(ranked).to(user_ids.device), tensors

    def score_all(self, model: DyadicNet, user_ids: Tensor) -> Tensor:
        items = torch.arange(self.data.num_items, device=user_ids.device)
        users, repeated = torch.cartesian_prod(user_ids, items).T
        return self.score(model, users, repeated)[0].view(len(user_ids), -1)

    @property
    def excluded(self) -> Interactions:
        """The training dyads: the others are what an offer can be chosen from."""
        return self.data.training_rows

    def fold_in(self, model: DyadicNet, users: np.ndarray, rows: Interactions) -> tuple[nn.Module, "DyadicTask"]:
        raise NotImplementedError("a dyad has features, which are known for the dyads in the data alone")


class DyadicSGD:
    """Trains on the triples of an epoch, then computes the losses on fixed triples for the stopping rule.

    The history holds these losses, so a resumed run needs no further state.
    """

    notes: tuple[str, ...] = ()
    may_converge = True  # --eps

    def __init__(self, model: DyadicNet, task: DyadicTask, config: LearnerOptions, device: torch.device | str) -> None:
        self.model, self.task, self.options = model, task, task.options
        self.checkpoint_parts: dict[str, object] = {}
        self.quiet = config.quiet if isinstance(config, DyadicConfig) else True
        self.count = steps_per_epoch(self.options, task.sampler, task.data)
        self.fixed = task.sampler.draw(FIXED_TRIPLES, *FIXED_KEY)
        self.first_losses = dict.fromkeys(self.options.active, math.nan)

    def has_converged(self, history: History) -> bool:
        return bool(history) and history[-1]["stop_max_delta"] <= self.options.eps

    def run_epoch(self, epoch: int, history: History, stop: Stop) -> Row:
        triples = self.task.sampler.draw(self.count, self.options.seed, epoch)
        if epoch == 1:
            before = triple_losses(self.model, self.task.inputs, self.fixed, self.options).data
            self.first_losses = {task: float(before[TASKS.index(task)]) for task in self.options.active}
        trained = self._train(triples, epoch, stop)
        fixed = triple_losses(self.model, self.task.inputs, self.fixed, self.options)
        return (
            _columns("train_{}", trained.data)
            | _columns("reg_{}", trained.regularization)
            | {"train_total": float(trained.total.sum())}
            | _columns("fixed_{}", fixed.total)
            | {"stop_max_delta": self._change(fixed, history)}
        )

    def _train(self, triples: np.ndarray, epoch: int, stop: Stop) -> Losses:
        """Take all steps of an epoch and return the mean losses."""
        size = -(-CHUNK_TRIPLES // self.options.batch_size) * self.options.batch_size
        chunks = [triples[start : start + size] for start in range(0, len(triples), size)]
        data, regularization = np.zeros(len(TASKS)), np.zeros(len(TASKS))
        for chunk in progress_bar(chunks, epoch, len(chunks), size, self.quiet):
            if stop():
                raise Stopped
            losses = run_epoch(self.model, self.task.inputs, chunk, self.options)
            data += losses.data * len(chunk) / len(triples)
            regularization += losses.regularization * len(chunk) / len(triples)
        return Losses(data, regularization)

    def _change(self, fixed: Losses, history: History) -> float:
        """The change of the losses on the fixed triples since the last epoch; inf in the first epoch."""
        previous = np.array([history[-1][f"fixed_{task}"] for task in TASKS]) if history else None
        return largest_change(previous, fixed.total, self.options)


@dataclass(frozen=True, eq=False)
class Trained:
    """A network trained in memory; `history` has the columns of DyadicSGD, `ending` is "converged" or "finished"."""

    model: DyadicNet
    inputs: Inputs
    history: History
    ending: str


def train(data: DyadicData, options: LearnerOptions, device: str = "cpu", quiet: bool = False) -> Trained:
    """Train from scratch, in memory and without metrics, for tuning and for comparisons of many runs.

    Raises:
        UserError: no user has both clicked and ignored training dyads, or the losses diverge.
    """
    task = DyadicTask(data, options, device)
    model = task.build_network().to(device)
    stepper = DyadicSGD(model, task, options, device)
    history: History = []
    bar = tqdm(range(1, options.epochs + 1), "epochs", leave=False, disable=quiet or not sys.stderr.isatty())
    for epoch in bar:
        try:
            row = stepper.run_epoch(epoch, history, lambda: False)
            require_no_divergence(row, stepper.first_losses, history)
        except FloatingPointError as error:
            raise UserError(f"{error} in epoch {epoch}: lower --lr (now {options.lr:g})") from None
        history.append({"epoch": epoch} | row)
        if stepper.has_converged(history):
            return Trained(model, task.inputs, history, "converged")
    return Trained(model, task.inputs, history, "finished")


def _columns(name: str, values: np.ndarray) -> dict[str, float]:
    return {name.format(task): float(value) for task, value in zip(TASKS, values, strict=True)}
