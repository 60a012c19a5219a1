"""An epoch of gradient descent: batches, joint loss, learning-rate schedule, optimizer step."""

import math
import sys
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from tqdm import tqdm

from config.base import GradientConfig
from training.protocols import GradientTask, History, Row, Stop
from training.weighting import make_weighting
from training.weighting.fixed import AllReduce


class Stopped(Exception):
    """The user has asked for an end in the middle of an epoch."""


class GradientStepper:
    """AdamW on the joint loss; config.weighting balances the tasks.

    For the multi-task net, a stepper with a manual gradient takes the place of this one where both do the same; with
    `--steps autograd`, this one always takes the steps.

    Args:
        model: the network to train, in place.
        task: its batches and losses.
        config: lr, schedule, epochs, weight_decay, embedding_decay, weights, weighting, seed and quiet.
        device: of the network.
    """

    notes: tuple[str, ...] = ()
    may_converge = False
    all_reduce: AllReduce | None = None  # sums gradients over processes (data_parallel.py)

    def __init__(self, model: nn.Module, task: GradientTask, config: GradientConfig, device: torch.device) -> None:
        self.model, self.task, self.config, self.device = model, task, config, device
        self.quiet = config.quiet
        self.weighting = make_weighting(
            config.weighting, config.weights, task.squared_errors, config.seed, device, task.regularizers
        )
        groups = split_by_decay(model, config.weight_decay, config.embedding_decay)
        if learned := self.weighting.parameters():
            groups.append({"params": learned, "weight_decay": 0.0})
        self.optimizer = self.make_optimizer(groups, lr=config.lr, fused=True)
        self.checkpoint_parts = {"optimizer": self.optimizer, "weighting": self.weighting}
        self.first_losses = dict.fromkeys(task.loss_names, math.nan)

    def make_optimizer(self, groups: list[dict], **options) -> torch.optim.Optimizer:
        return torch.optim.AdamW(groups, **options)

    def has_converged(self, history: History) -> bool:
        return False

    def run_epoch(self, epoch: int, history: History, stop: Stop) -> Row:
        """One pass over the training part: the mean of each loss over its batches, weighted by their sizes.

        Raises:
            Stopped: stop() was true after a step.
        """
        self.model.train()
        self.weighting.begin_epoch(epoch, history)
        names = (*self.task.loss_names, "joint")
        sums = torch.zeros(len(names), dtype=torch.double, device=self.device)
        rows = 0
        steps = self.task.num_batches
        bar = progress_bar(self.task.batches(epoch), epoch, steps, self.config.batch_size, self.quiet)
        for step, batch in enumerate(bar):
            if stop():
                bar.close()
                raise Stopped
            self._set_learning_rate(epoch - 1 + step / steps)
            losses = self.backward(batch)
            self.optimizer.step()
            size = self.task.batch_rows(batch)
            rows += size
            # Summed on the device: reading a number in every step would make a GPU wait.
            sums.add_(torch.stack([losses[name] for name in names]), alpha=size)
            if epoch == 1 and step == 0:
                first = sums / size
        if epoch == 1:
            self._note_first_losses(dict(zip(names, first.tolist(), strict=True)))
        means = (sums / rows).tolist()
        return {f"train_{name}": mean for name, mean in zip(names, means, strict=True)} | self.weighting.report()

    def _note_first_losses(self, values: dict[str, float]) -> None:
        """Take the losses of the first batch. A squared error counts at least as much as that of predicting 0.

        Else a batch that happens to hold no extreme rating would make those of the rest look like divergence.
        """
        for name in self.first_losses:
            of_zero = self._squared_ratings() if name in self.task.squared_errors else 0.0
            self.first_losses[name] = max(values[name], of_zero)

    def _squared_ratings(self) -> float:
        """The mean square of all ratings."""
        ratings = self.task.data.interactions.ratings
        return ratings.norm().item() ** 2 / ratings.numel()

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return self.task.losses(self.model, batch)

    def backward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Put the gradient of the joint loss into .grad; returns each loss and the "joint" one, detached."""
        losses = self.losses(batch)
        self.optimizer.zero_grad()
        joint = self.weighting.backward(losses, self.model, self.all_reduce)
        return {name: loss.detach() for name, loss in losses.items()} | {"joint": joint}

    def _set_learning_rate(self, epochs_done: float) -> None:
        if self.config.schedule == "cosine":
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.lr * cosine(epochs_done, self.config.epochs)


def cosine(done: float, total: float) -> float:
    """Learning-rate factor that falls from 1 to 0 along half a cosine while `done` goes from 0 to `total`.

    Loshchilov and Hutter 2017, eq. 5, without restarts.
    """
    return 0.5 * (1 + math.cos(math.pi * done / total))


def split_by_decay(model: nn.Module, weight_decay: float, embedding_decay: float) -> list[dict]:
    """Parameter groups of AdamW: embeddings, whose two decays add up, and all others.

    Biases are embeddings of width 1 and count among the others.
    """
    if not embedding_decay:
        return [{"params": list(model.parameters()), "weight_decay": weight_decay}]
    tables = [table.weight for table in model.modules() if isinstance(table, nn.Embedding) and table.embedding_dim > 1]
    is_table = {id(table) for table in tables}
    others = [parameter for parameter in model.parameters() if id(parameter) not in is_table]
    return [
        {"params": tables, "weight_decay": weight_decay + embedding_decay},
        {"params": others, "weight_decay": weight_decay},
    ]


def progress_bar(steps: Iterable, epoch: int, total: int, rows: int, quiet: bool) -> tqdm:
    """A bar for one epoch, shown on terminals only, with rows a second; rows: in a step."""
    hidden = quiet or not sys.stderr.isatty()
    return _EpochBar(
        steps, f"epoch {epoch}", total, leave=False, disable=hidden, unit=" rows", unit_scale=rows, dynamic_ncols=True,
        bar_format="{desc} |{bar}| {percentage:3.0f}%  {elapsed}  {whole_rate} rows/s",
    )  # fmt: skip


class _EpochBar(tqdm):
    """A bar whose format may name `whole_rate`: steps times `unit_scale` a second, as "527,114"."""

    @property
    def format_dict(self) -> dict:
        known = super().format_dict
        steps = known["n"] / known["elapsed"] if known["elapsed"] else 0.0
        return known | {"whole_rate": f"{steps * known['unit_scale']:,.0f}"}
