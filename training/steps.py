"""Gradient descent on the batches of a task: how most families take their steps.

The training loop (training.py) asks for steps and knows nothing of them. Steps offer

    parts                            what a checkpoint holds of them, {name: what has state_dict and load_state_dict}
    run_epoch(epoch, history, stop)  one epoch of steps; returns columns of its row, "train_<loss>" and others
    is_settled(history)              whether a rule of their own says that it is enough
"""

import math
import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn
from tqdm import tqdm

from training.weighting import make_weighting


class Stopped(Exception):
    """The user has asked for an end in the middle of an epoch."""


class GradientSteps:
    """AdamW on the joint loss, the tasks weighed by settings.weighting.

    Args:
        settings: lr, schedule, epochs, weight_decay, embedding_decay, weights, weighting, seed, quiet.
    """

    add_up = None  # sums gradients over processes, where there are several (parallel.py)

    def __init__(self, model: nn.Module, task, settings, device: torch.device) -> None:
        self.model, self.task, self.device = model, task, device
        self.weighting = make_weighting(
            settings.weighting, settings.weights, task.squared_errors, settings.seed, device, task.regularizers
        )
        groups = split_by_decay(model, settings.weight_decay, settings.embedding_decay)
        if learnt := self.weighting.parameters():
            groups.append({"params": learnt, "weight_decay": 0.0})
        self.optimizer = self.make_optimizer(groups, lr=settings.lr, fused=True)
        self.parts = {"optimizer": self.optimizer, "weighting": self.weighting}
        self.settings = settings

    def make_optimizer(self, groups: list[dict], **options) -> torch.optim.Optimizer:
        return torch.optim.AdamW(groups, **options)

    def is_settled(self, history) -> bool:
        return False

    def run_epoch(self, epoch: int, history, stop: Callable[[], bool]) -> dict[str, float]:
        """One pass over the training part: the mean of each loss over its batches, by their sizes.

        Raises:
            Stopped: stop() was true after a step.
        """
        self.model.train()
        self.weighting.begin_epoch(epoch, history)
        names = (*self.task.loss_names, "joint")
        sums = torch.zeros(len(names), dtype=torch.double, device=self.device)
        rows = 0
        steps = self.task.num_batches
        bar = progress_bar(self.task.batches(epoch), epoch, steps, self.settings.quiet)
        for step, batch in enumerate(bar):
            if stop():
                bar.close()
                raise Stopped
            self._set_step_size(epoch - 1 + step / steps)
            losses = self.backward(batch)
            self.optimizer.step()
            size = self.task.batch_rows(batch)
            rows += size
            # Tensors are summed where they lie: reading a number every step would make a GPU wait.
            sums.add_(torch.stack([losses[name] for name in names]), alpha=size)
        means = (sums / rows).tolist()
        return {f"train_{name}": mean for name, mean in zip(names, means, strict=True)} | self.weighting.report()

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return self.task.losses(self.model, batch)

    def backward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Put the gradient of the joint loss on a batch into .grad; returns each loss and the "joint" one, detached."""
        losses = self.losses(batch)
        self.optimizer.zero_grad()
        joint = self.weighting.backward(losses, self.model, self.add_up)
        return {name: loss.detach() for name, loss in losses.items()} | {"joint": joint}

    def _set_step_size(self, epochs_done: float) -> None:
        """Along half a cosine from lr to 0 over all epochs (Loshchilov and Hutter 2017, eq. 5, without restarts)."""
        if self.settings.schedule == "cosine":
            share = 0.5 * (1 + math.cos(math.pi * epochs_done / self.settings.epochs))
            for group in self.optimizer.param_groups:
                group["lr"] = self.settings.lr * share


def split_by_decay(model: nn.Module, weight_decay: float, embedding_decay: float) -> list[dict]:
    """Groups of AdamW: embeddings, whose decays add up, and all other parameters. Biases are embeddings of width 1."""
    if not embedding_decay:
        return [{"params": list(model.parameters()), "weight_decay": weight_decay}]
    tables = [table.weight for table in model.modules() if isinstance(table, nn.Embedding) and table.embedding_dim > 1]
    names = {id(table) for table in tables}
    others = [parameter for parameter in model.parameters() if id(parameter) not in names]
    return [
        {"params": tables, "weight_decay": weight_decay + embedding_decay},
        {"params": others, "weight_decay": weight_decay},
    ]


def progress_bar(steps, epoch: int, total: int, quiet: bool) -> tqdm:
    """A bar for one epoch, on a terminal alone."""
    return tqdm(steps, f"epoch {epoch}", total, leave=False, unit="step", disable=quiet or not sys.stderr.isatty())
