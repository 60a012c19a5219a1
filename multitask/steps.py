"""Which steps train one multi-task net: those with the manual gradient, or those of autograd, and why.

The manual gradient replaces `GradientStepper.backward` of training/steps.py and the weighting of training/weighting/:
changes there have no effect on it. With `--steps autograd` they count.
"""

import torch
from torch import nn

from config.multitask import MultiTaskConfig
from config.parts import has_module
from multitask.task import WatchAndRate
from training.data_parallel import DataParallelStepper
from training.process_group import SingleProcess
from training.steps import GradientStepper


def make_stepper(
    model: nn.Module,
    task: WatchAndRate,
    config: MultiTaskConfig,
    device: torch.device,
    group: SingleProcess | None = None,
) -> GradientStepper:
    """The stepper of the multi-task net on WatchAndRate: with the manual gradient where it is equivalent to autograd.

    Args:
        group: the processes that share each step; None: one process.
    """
    stepper: GradientStepper
    reason = reason_for_autograd(model, task, config, device)
    if reason is not None:
        plain = model, task, config, device
        stepper = GradientStepper(*plain) if group is None else DataParallelStepper(*plain, group)
    else:
        from multitask.manual_gradient import make_manual_stepper

        stepper = make_manual_stepper(model, task, config, device, group)
    stepper.notes = (steps_note(reason),)
    return stepper


def steps_note(reason: str | None) -> str:
    """The line of a run that says which steps train it; reason: why autograd does, None where it does not."""
    return "steps: manual gradient" if reason is None else f"steps: autograd ({reason})"


def reason_for_autograd(
    model: nn.Module, task: WatchAndRate, config: MultiTaskConfig, device: torch.device
) -> str | None:
    """Why autograd has to take the steps; None where the manual gradient takes the same ones, up to rounding."""
    if reason := settings_for_autograd(config, device):
        return reason
    from multitask.manual_gradient import difference_from_autograd

    return difference_from_autograd(model, task, config.weights)


def settings_for_autograd(config: MultiTaskConfig, device: torch.device) -> str | None:
    """The setting that needs autograd, whatever models.py says; None where there is none."""
    if config.steps == "autograd":
        return "asked for by --steps"
    if not has_module("multitask.manual_gradient"):
        return "this copy of the project has no manual gradient"
    if device.type != "cpu":
        return f"on {device.type}"
    if config.ranking_loss == "softmax":
        return "--ranking_loss softmax"
    if config.weighting != "fixed":
        return f"--weighting {config.weighting}"
    return "--embedding_decay" if config.embedding_decay else None
