"""How the multi-task net is trained: its data, task, network and stepper."""

from dataclasses import replace
from functools import partial

import torch
from torch import nn

import dataset
from config.errors import UserError
from config.multitask import MultiTaskConfig
from config.parts import require_module
from dataset import Data
from models import MultiTaskNet
from multitask.dense_layers import dense_layers
from multitask.network_check import check_network
from multitask.softmax import SoftmaxTask
from multitask.steps import make_stepper
from multitask.task import WatchAndRate
from sources.packing import Packed
from training.process_group import SINGLE_PROCESS, SingleProcess
from training.protocols import Log, MakeStepper, Training

SEED_STEP = 10**6  # between the seeds of the networks of an ensemble


class MultiTaskRecipe:
    """One network, or an ensemble of them that is one network again.

    Modules that a copy of the project for students lacks are imported when a config needs them.
    """

    def load_data(self, config: MultiTaskConfig) -> Data:
        return dataset.load(**config.data_options)

    def unpack(self, packed: Packed) -> Data:
        return Data.unpack(packed)

    def resolve(self, config: MultiTaskConfig, data: Data, log: Log) -> MultiTaskConfig:
        return config

    def check_processes(self, config: MultiTaskConfig, num_processes: int) -> None:
        if num_processes > 1 and (config.ensemble_size > 1 or config.num_item_based):
            raise UserError(
                "--ensemble_size and --num_item_based are trained in one process: leave them out, or leave torchrun out"
            )

    def build(
        self, config: MultiTaskConfig, data: Data, device: torch.device, group: SingleProcess = SINGLE_PROCESS
    ) -> Training:
        _require_parts(config)
        data = data.to(device)
        if config.ensemble_size > 1:
            return _build_ensemble(config, data, device)
        training = _build_network(config, data, device)
        if group.world_size > 1:
            return replace(training, make_stepper=partial(make_stepper, group=group))
        return training


RECIPE = MultiTaskRecipe()


def _require_parts(config: MultiTaskConfig) -> None:
    """Raises UserError where this copy of the project lacks what the config needs."""
    if config.ensemble_size > 1:
        require_module("multitask.ensemble", "--ensemble_size")
    if config.num_item_based:
        require_module("multitask.item_based", "--num_item_based")


def _build_ensemble(config: MultiTaskConfig, data: Data, device: torch.device) -> Training:
    """The network that holds the mean of the ensemble; its stepper builds and trains the networks."""
    from multitask.ensemble import EnsembleStepper

    training = _build_network(replace(config, num_item_based=0, ensemble_size=1), data, device)
    make_networks = partial(build_networks, config, data, device)
    return replace(training, make_stepper=partial(EnsembleStepper, build_networks=make_networks))


def build_networks(config: MultiTaskConfig, data: Data, device: torch.device) -> list[tuple[MultiTaskConfig, Training]]:
    """The networks of an ensemble with their configs; the data lie on the device."""
    configs = [network_config(config, number) for number in range(config.ensemble_size)]
    return [(own, _build_network(own, data, device)) for own in configs]


def network_config(config: MultiTaskConfig, number: int) -> MultiTaskConfig:
    """The config of one network of an ensemble, with its own width and seed. The last ones are item-based.

    Item-based networks have no embedding decay: half of each user's items is masked, which regularizes enough, while a
    user table needs the decay.
    """
    is_item_based = number >= config.ensemble_size - config.num_item_based
    width = config.embedding_dim // config.ensemble_size
    return replace(
        config,
        ensemble_size=1,
        num_item_based=int(is_item_based),
        embedding_dim=width,
        layer_sizes=(3 * width,),
        seed=(config.seed + number * SEED_STEP) % 2**32,
        embedding_decay=0.0 if is_item_based else config.embedding_decay,
    )


def _build_network(config: MultiTaskConfig, data: Data, device: torch.device) -> Training:
    """One network with its task, drawn from config.seed; the data lie on the device."""
    task = make_task(config, data)
    sizes = len(data.users), len(data.items), config.embedding_dim, config.mlp_sizes
    torch.manual_seed(config.seed)
    make: MakeStepper = make_stepper
    if config.num_item_based:
        from multitask.item_based import ItemBasedNet, ItemBasedStepper

        model, make = ItemBasedNet(*sizes), ItemBasedStepper
    else:
        model = MultiTaskNet(*sizes, config.shared_embeddings)
    check_network(model, config.mlp_sizes)
    if config.init_rating_bias:
        nn.init.constant_(dense_layers(model)[-1].bias, data.train.ratings.mean().item())
    return Training(model.to(device), task, make)


def make_task(config: MultiTaskConfig, data: Data) -> WatchAndRate:
    """The task of one network."""
    if config.ranking_loss != "softmax":
        return WatchAndRate(
            data, config.batch_size, config.ranking_loss, config.negatives, config.negative_sampling, config.seed
        )
    options = data, config.batch_size, config.user_weight_exponent, config.seed
    if config.num_item_based:
        from multitask.item_based import ItemBasedTask

        return ItemBasedTask(*options)
    return SoftmaxTask(*options)
