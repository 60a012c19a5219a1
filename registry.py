"""What a model is trained with: its data, network, task and steps, by the settings. Where families part ways."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from config.errors import UserError
from config.settings import Settings
from training.process_group import ALONE, Alone
from training.steps import GradientSteps


def load_data(settings: Settings):
    """The data that the settings name: dataset.Data, or dyadic.labels.DyadicData."""
    if settings.model == "dyadic":
        from dyadic.recipe import load_dyads

        return load_dyads(settings)
    from dataset import load

    return load(**settings.data_options)


def settle(settings: Settings, data, say: Callable[[str], None]) -> Settings:
    """The settings with what the data decide: tuned values of the dyadic learner, what labels of the zoo mean."""
    if settings.model == "dyadic":
        from dyadic.recipe import tuned

        return tuned(settings, data, say) if settings.tune else settings
    if settings.model == "multitask" or settings.chain == "none":
        return settings
    from dataset import is_chain, require_chain

    if settings.needs_chain:
        require_chain(data)
    return replace(settings, chain=settings.chain or ("joint" if is_chain(data) else "none"))


def require_shareable(settings: Settings, group: Alone) -> None:
    """Raises UserError where a model is trained by one process alone and there are several."""
    if group.size > 1 and settings.model == "dyadic":
        raise UserError("--model dyadic takes one step after the other, in one process: start it without torchrun")
    if group.size > 1 and settings.model == "multitask" and (settings.members > 1 or settings.denoisers):
        raise UserError("--members and --denoisers are trained in one process: leave them out, or leave torchrun out")


def build(settings: Settings, data, device: torch.device, group: Alone = ALONE) -> tuple[nn.Module, object, Callable]:
    """A fresh network, its task, and what makes its steps; on the device, the network drawn from settings.seed."""
    if settings.model == "dyadic":
        from dyadic.recipe import AlgorithmOne, DyadicTask

        task = DyadicTask(data, settings, device)
        return task.build_network().to(device), task, AlgorithmOne
    from training import data_parallel as parallel

    model, task, make_steps = _build(settings, data.to(device), device)
    return model, task, partial(parallel.make_steps, group=group) if group.size > 1 else make_steps


def _build(settings: Settings, data, device: torch.device) -> tuple[nn.Module, object, Callable]:
    """`build` for one process, the data on the device; members are built by it as well, by settings of their own."""
    from models import MultiTaskNet
    from multitask import manual_gradient as handwritten
    from multitask.ensemble import MemberSteps
    from multitask.item_based import DenoisingNet, DenoisingSteps
    from zoo.networks import build_network

    task = build_task(settings.model, data, **settings.task_options)
    sizes = len(data.users), len(data.items)
    torch.manual_seed(settings.seed)
    if settings.model != "multitask":
        return build_network(settings.model, *sizes, **settings.network_options).to(device), task, GradientSteps
    if settings.denoisers == settings.members == 1:
        model, make_steps = DenoisingNet(*sizes, settings.embedding_dim, settings.mlp_sizes), DenoisingSteps
    else:
        model, make_steps = MultiTaskNet(*sizes, **settings.network_options), handwritten.make_steps
    if settings.members > 1:
        make_steps = partial(MemberSteps, build=partial(_build, data=data, device=device))
    if settings.start_at_mean:
        nn.init.constant_(model.mlp_layers[-1].bias, data.train.ratings.mean().item())
    return model.to(device), task, make_steps


def build_task(model: str, data, **options):
    """The task that a network is trained on, by the network's name; `options` go to its constructor."""
    from multitask.item_based_task import WatchAndRateByDenoising
    from multitask.softmax import WatchAndRateBySoftmax
    from multitask.task import WatchAndRate
    from zoo.task import LabelTask

    if model != "multitask":
        return LabelTask(data, **options)
    if "denoisers" in options:
        make = WatchAndRateByDenoising if options.pop("denoisers") else WatchAndRateBySoftmax
        return make(data, **options)
    return WatchAndRate(data, **options)
