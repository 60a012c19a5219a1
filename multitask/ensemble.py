"""An ensemble in one network: K networks are trained side by side, and their mean is one wider network.

With a linear f_theta, the mean of K multi-task nets of width d is exactly a multi-task net of width K d: dot products
of concatenated embeddings add up, and so do linear functions of them. The networks differ in their random start and in
the order of their batches, so that the errors of their mean are smaller (Breiman 1996, bagging; here without
resampling).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from config.multitask import MultiTaskConfig
from models import MultiTaskNet
from multitask.dense_layers import dense_layers
from multitask.item_based import ItemBasedNet
from multitask.task import WatchAndRate
from training.protocols import History, Row, Stepper, Stop, Training

Networks = list[tuple[MultiTaskConfig, Training]]


class EnsembleStepper:
    """Trains K networks side by side; after each epoch the model is their mean.

    Args:
        model: a network K times as wide as each of them; its weights are overwritten.
        build_networks: returns the K networks with their configs.
    """

    may_converge = False

    def __init__(
        self,
        model: MultiTaskNet,
        task: WatchAndRate,
        config: MultiTaskConfig,
        device: torch.device,
        build_networks: Callable[[], Networks],
    ) -> None:
        self.model = model
        self.networks, self.steppers, self.checkpoint_parts = make_steppers(build_networks(), device)
        self.notes = tuple(dict.fromkeys(note for stepper in self.steppers for note in stepper.notes))
        average_into(self.networks, self.model)

    @property
    def first_losses(self) -> dict[str, float]:
        """The means over the networks, as those of run_epoch."""
        found = [stepper.first_losses for stepper in self.steppers]
        return {name: sum(losses[name] for losses in found) / len(found) for name in found[0]}

    def has_converged(self, history: History) -> bool:
        return False

    def run_epoch(self, epoch: int, history: History, stop: Stop) -> Row:
        """One epoch of every network: the means of their columns, also where their ranking losses differ in kind."""
        rows = [stepper.run_epoch(epoch, history, stop) for stepper in self.steppers]
        average_into(self.networks, self.model)
        return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


def make_steppers(networks: Networks, device: torch.device) -> tuple[list[MultiTaskNet], list[Stepper], dict[str, Any]]:
    """The networks, a stepper for each, and what a checkpoint holds of both by name."""
    models, steppers, parts = [], [], {}
    for number, (config, training) in enumerate(networks):
        stepper = training.make_stepper(training.model, training.task, config, device)
        models.append(training.model)
        steppers.append(stepper)
        parts[f"network {number}"] = training.model
        parts |= {f"{name} of network {number}": part for name, part in stepper.checkpoint_parts.items()}
    return models, steppers, parts


@torch.no_grad()
def average_into(networks: Sequence[MultiTaskNet], mean: MultiTaskNet) -> None:
    """Make a network the mean of K others, up to rounding.

    p is the mean over all of them. r is the mean over those that are not item-based, which rate better; over all where
    there are no others. User tables are concatenated, and item tables are concatenated and divided by K. The weights of
    f_theta for q and u * q therefore get the factor K.

    Args:
        networks: K networks of width d whose f_theta is one linear layer.
        mean: such a network of width K d, which is overwritten.
    """
    count = len(networks)
    names = ("U", "Q") if mean.embedding_sharing else ("U_reg", "Q_reg", "U_fact", "Q_fact")
    for name in names:
        tables = torch.cat([getattr(network, name).weight for network in networks], dim=1)
        getattr(mean, name).weight.copy_(tables / count if name.startswith("Q") else tables)
    mean.B.weight.copy_(sum(network.B.weight for network in networks) / count)
    raters = [network for network in networks if not isinstance(network, ItemBasedNet)] or networks
    fractions = [(network in raters) / len(raters) for network in networks]  # of each network in r
    layers = [dense_layers(network)[0] for network in networks]
    mean_layer = dense_layers(mean)[0]
    mean_layer.bias.copy_(sum(fraction * layer.bias for fraction, layer in zip(fractions, layers, strict=True)))
    thirds = zip(*(layer.weight.chunk(3, dim=1) for layer in layers), strict=True)  # for u, for q, for u * q
    for place, parts, factor in zip(mean_layer.weight.chunk(3, dim=1), thirds, (1, count, count), strict=True):
        scaled = [factor * fraction * part for fraction, part in zip(fractions, parts, strict=True)]
        place.copy_(torch.cat(scaled, dim=1))
