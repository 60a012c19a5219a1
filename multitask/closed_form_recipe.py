"""How --model closed_form is fitted: a ranking block and a rating block, put into one MultiTaskNet after every epoch.

An epoch is a sweep of every Bayesian factorization and, where networks take part, an epoch of each of them. EASE has no
epochs: its tables are the same in all of them.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

import dataset
from config.errors import UserError
from config.multitask import ClosedFormConfig
from dataset import Data
from models import MultiTaskNet
from multitask.bayesian import BayesianFactorization, mean_of, watch_features
from multitask.closed_form import NUM_BIASES, RankingBlock, assemble
from multitask.decisions import NETWORKS, decide, require_room
from multitask.ease import cut, ease_scores
from multitask.ensemble import Networks
from multitask.networks import block_of, mix_blocks
from multitask.recipe import SEED_STEP, build_networks
from multitask.task import WatchAndRate
from training.process_group import SINGLE_PROCESS, SingleProcess
from training.protocols import History, Log, Row, Stop, Training
from training.steps import Stopped


class ClosedFormRecipe:
    """Blocks fitted apart, in one network and one checkpoint."""

    def load_data(self, config: ClosedFormConfig) -> Data:
        return dataset.load(**config.data_options)

    def resolve(self, config: ClosedFormConfig, data: Data, log: Log) -> ClosedFormConfig:
        return decide(config, data, log)

    def check_processes(self, config: ClosedFormConfig, num_processes: int) -> None:
        if num_processes > 1:
            raise UserError("--model closed_form is fitted in one process: start it without torchrun")

    def build(
        self, config: ClosedFormConfig, data: Data, device: torch.device, group: SingleProcess = SINGLE_PROCESS
    ) -> Training:
        """The network has the width of all blocks; the stepper fits them.

        Raises:
            UserError: the ranking is not decided yet, or there are too many users and items.
        """
        require_room(data)
        data = data.to(device)
        width = ranking_width(config) + NUM_BIASES + config.rating_fits * config.rating_dim
        torch.manual_seed(config.seed)
        model = MultiTaskNet(len(data.users), len(data.items), width, [3 * width]).to(device)
        networks = replace(NETWORKS, seed=config.seed, epochs=config.epochs)
        make_networks = partial(build_networks, networks, data, device)
        return Training(model, WatchAndRate(data, seed=config.seed), partial(BlockStepper, make_networks=make_networks))


RECIPE = ClosedFormRecipe()


def ranking_width(config: ClosedFormConfig) -> int:
    """Columns of the ranking block."""
    if config.ranking == "ease":
        return config.ranking_dim
    return NETWORKS.embedding_dim if config.ranking == "networks" else config.ranking_dim + NETWORKS.embedding_dim + 1


class BlockStepper:
    """Fits the blocks; after each epoch the model holds them."""

    def __init__(
        self,
        model: MultiTaskNet,
        task: WatchAndRate,
        config: ClosedFormConfig,
        device: torch.device,
        make_networks: Callable[[], Networks],
    ) -> None:
        self.model, self.task = model, task
        train = task.data.train.to(torch.device("cpu"))
        self.train = train
        features = watch_features(train, config.num_features)
        seeds = [(config.seed + number * SEED_STEP) % 2**32 for number in range(config.rating_fits)]
        self.fits = [BayesianFactorization(train, features, config.rating_dim, seed) for seed in seeds]
        self.ease = None if config.ranking == "networks" else EaseBlock(train, config.ridge, config.ranking_dim)
        self.networks, self.steppers = [], []
        self.checkpoint_parts: dict[str, Any] = {f"rating fit {number}": fit for number, fit in enumerate(self.fits)}
        if self.ease is not None:
            self.checkpoint_parts["ease"] = self.ease
        for number, (own, training) in enumerate(make_networks() if config.ranking != "ease" else []):
            stepper = training.make_stepper(training.model, training.task, own, device)
            self.networks.append(training.model)
            self.steppers.append(stepper)
            self.checkpoint_parts[f"network {number}"] = training.model
            for name, part in stepper.checkpoint_parts.items():
                self.checkpoint_parts[f"{name} of network {number}"] = part

    def has_converged(self, history: History) -> bool:
        return False

    def run_epoch(self, epoch: int, history: History, stop: Stop) -> Row:
        """A sweep of every fit and an epoch of every network: {"train_regression": squared error on train}."""
        for fit in self.fits:
            if stop():
                raise Stopped
            fit.sweep()
        rows = [stepper.run_epoch(epoch, history, stop) for stepper in self.steppers]
        rating = mean_of([fit.factorization() for fit in self.fits])
        assemble(self._ranking(), rating, self.model)
        errors = rating.predict(self.train.user_ids.long(), self.train.item_ids.long()) - self.train.ratings
        row = {"train_regression": errors.square().mean().item()}
        if rows:
            row["train_factorization"] = sum(one["train_factorization"] for one in rows) / len(rows)
        return row

    def _ranking(self) -> RankingBlock:
        if self.ease is None:
            return block_of(self.networks)
        return mix_blocks(self.ease.block, block_of(self.networks)) if self.networks else self.ease.block


class EaseBlock:
    """The tables of EASE; a part of the checkpoint, so that a resumed run has the same ones to the last bit."""

    def __init__(self, train: dataset.Interactions, ridge: float, width: int) -> None:
        self.block = RankingBlock(*cut(ease_scores(train, ridge), width))

    def state_dict(self) -> dict[str, Tensor]:
        return {"users": self.block.users, "items": self.block.items, "item_bias": self.block.item_bias}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.block = RankingBlock(**{name: value.cpu() for name, value in state.items()})
