"""Methods that balance the losses of several tasks, for every model and any set of tasks.

The training loop calls a weighting where it would otherwise call `backward()` on a weighted sum:

    parameters()                  learned parameters of the method, for the optimizer
    begin_epoch(epoch, history)   history: the rows of the finished epochs, with "train_<loss>", the unweighted means
    backward(losses, model, all_reduce)
                                  adds to .grad as loss.backward() does; returns the joint loss, detached. all_reduce
                                  sums gradients over processes; the losses are already those of all processes
    report()                      columns for the row of the epoch: "weight_<loss>", the current w_t, or "conflicts"
    state_dict(), load_state_dict(state)

The lambdas multiply the losses before a method sees them. Under "dwa" and "pcgrad" they keep their meaning. Under
"uncertainty" and "gradnorm" they largely cancel, because a loss with a smaller lambda gets a proportionally larger
factor. There the lambdas only set the starting point, the speed at which the factors move and, under "gradnorm", the
overall scale.

Regularizers are losses that are not tasks. They are added with their lambda and never balanced.

Symbols: T tasks, L_t the loss of task t, g_t the gradient of lambda_t L_t, w_t the factor that a method gives to both.

To add a method, write its file and add a line to METHODS. This module does not import torch: the help of main.py lists
METHODS before the requirements are installed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from training.weighting.fixed import Fixed

METHODS = {  # name: "module:class"
    "fixed": "training.weighting.fixed:Fixed",
    "uncertainty": "training.weighting.uncertainty:Uncertainty",
    "gradnorm": "training.weighting.gradnorm:GradNorm",
    "dwa": "training.weighting.dwa:DWA",
    "pcgrad": "training.weighting.pcgrad:PCGrad",
}


def make_weighting(
    name: str,
    weights: Mapping[str, float],
    squared_errors: Collection[str],
    seed: int,
    device: torch.device,
    regularizers: Collection[str] = (),
) -> Fixed:
    """Build a weighting by its name, one of METHODS.

    Args:
        weights: {name: lambda > 0} for every loss, regularizers included.
        squared_errors: the losses that are squared errors, for "uncertainty".
        seed: determines the random task orders of "pcgrad".
        device: of the method's own tensors.
        regularizers: the losses that are not tasks.

    Raises:
        ValueError: no method has this name, or a name in `squared_errors` or `regularizers` has no lambda.
    """
    if unknown := sorted({*squared_errors, *regularizers} - weights.keys()):
        raise ValueError(f"no loss is called {', '.join(unknown)}; the losses are {', '.join(weights)}")
    if name not in METHODS:
        raise ValueError(f"unknown weighting {name!r}: choose one of {', '.join(METHODS)}")
    tasks = [loss for loss in weights if loss not in regularizers]
    module, class_name = METHODS[name].split(":")
    return getattr(import_module(module), class_name)(tasks, weights, squared_errors, seed, device)
