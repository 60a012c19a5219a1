"""How --model closed_form is fitted: a ranking block and a rating block, put into one MultiTaskNet after every epoch.

An epoch is a sweep of every Bayesian factorization. EASE has no epochs: its tables are the same in all of them. Where
networks rank, they are trained in the later epochs. The ranking is that of EASE until they are finished, and then a
mixture of both.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

import dataset
from config.cli import find_preset
from config.errors import UserError
from config.multitask import ClosedFormConfig, MultiTaskConfig
from dataset import Data, Interactions
from models import MultiTaskNet
from multitask.bayesian import BayesianFactorization, mean_of, mixture_std
from multitask.closed_form import NUM_BIASES, RankingBlock, assemble, block_of, mix
from multitask.decisions import decide, require_room, with_genres
from multitask.ease import cut, ease_scores
from multitask.ensemble import Networks, make_steppers
from multitask.features import NUM_COUNT_FEATURES, watch_features
from multitask.network_check import check_network
from multitask.recipe import SEED_STEP, build_networks
from multitask.task import WatchAndRate
from sources.packing import Packed
from training.process_group import SINGLE_PROCESS, SingleProcess
from training.protocols import History, Log, Row, Stop, Training
from training.steps import Stopped

EASE_FRACTION = 0.2  # of EASE in the ranking where networks rank; docs/champion.md has the measurements
NUM_NETWORKS = 3  # one with a user table, the others item-based


def ranking_networks() -> MultiTaskConfig:
    """The networks that rank dense data: those of --preset ensemble, but fewer, as EASE ranks with them.

    They learn the ratings as well, which helps their ranking.
    """
    values = json.loads(find_preset("ensemble").read_text(encoding="utf-8"))
    width = NUM_NETWORKS * values["embedding_dim"] // values["ensemble_size"]
    fewer = {"ensemble_size": NUM_NETWORKS, "num_item_based": NUM_NETWORKS - 1, "epochs": 10}
    del values["model"]
    return MultiTaskConfig(**values | fewer | {"embedding_dim": width, "layer_sizes": (3 * width,)}, quiet=True)


NETWORKS = ranking_networks()
FIRST_SWEEPS = 4  # epochs before the networks begin: a usable net is there within seconds


class ClosedFormTask(WatchAndRate):
    """The two tasks, with what to try where a baseline is better."""

    advice: ClassVar = {
        "mrr": "another --ranking or --ridge",
        "mse": "more --epochs or another --rating_dim",
    }
    fits: Sequence[BayesianFactorization] = ()

    def restore_fits(self, config: ClosedFormConfig) -> dict[str, BayesianFactorization]:
        """Blank factorizations by their names in a checkpoint. Once they are loaded, `score` knows the uncertainty.

        Their features are zeros: they shape the prior, which a finished fit does not need.
        """
        sizes = len(self.data.users), len(self.data.items)
        width = NUM_COUNT_FEATURES + min(config.num_features, *sizes)
        features = (torch.zeros(size, width, dtype=torch.double) for size in sizes)
        self.fits = make_fits(self.data, config, features)
        return named_fits(self.fits)

    def score(self, model: nn.Module, user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """As WatchAndRate, with `rating_std`: the standard deviation of the rating that the user would give.

        It covers the uncertainty of the embeddings and the noise of the user's ratings, in rating points.
        """
        scores, shown = super().score(model, user_ids, item_ids)
        if self.fits:
            pairs = user_ids.cpu(), item_ids.cpu()
            shown |= {"rating_std": mixture_std(self.fits, *pairs).float().to(scores.device)}
        return scores, shown

    def fold_in(self, model: nn.Module, users: np.ndarray, rows: Interactions) -> tuple[nn.Module, WatchAndRate]:
        """As WatchAndRate. The factorizations have no posterior of new users, so `score` leaves `rating_std` out."""
        model, folded = super().fold_in(model, users, rows)
        folded.fits = ()
        return model, folded


class ClosedFormRecipe:
    """Blocks fitted apart, in one network and one checkpoint."""

    def load_data(self, config: ClosedFormConfig) -> Data:
        return dataset.load(**config.data_options)

    def unpack(self, packed: Packed) -> Data:
        return Data.unpack(packed)

    def resolve(self, config: ClosedFormConfig, data: Data, log: Log) -> ClosedFormConfig:
        return decide(config, data, log)

    def check_processes(self, config: ClosedFormConfig, num_processes: int) -> None:
        if num_processes > 1:
            raise UserError("--model closed_form is fitted in one process: start it without torchrun")

    def build(
        self, config: ClosedFormConfig, data: Data, device: torch.device, group: SingleProcess = SINGLE_PROCESS
    ) -> Training:
        """A network with the width of all blocks, of a config in which everything is decided; the stepper fits them."""
        require_room(data)
        data = data.to(device)
        width = ranking_width(config) + NUM_BIASES + config.rating_fits * config.rating_dim
        torch.manual_seed(config.seed)
        model = MultiTaskNet(len(data.users), len(data.items), width, [3 * width])
        check_network(model, [3 * width])
        model = model.to(device)
        networks = replace(NETWORKS, seed=config.seed)
        make_networks = partial(build_networks, networks, data, device)
        task = ClosedFormTask(data, seed=config.seed)
        make_stepper = partial(BlockStepper, make_networks=make_networks)
        return Training(model, task, make_stepper, make_answer_parts=partial(task.restore_fits, config))


RECIPE = ClosedFormRecipe()


def ranking_width(config: ClosedFormConfig) -> int:
    """Columns of the ranking block."""
    return config.ranking_dim if config.ranking != "networks" else NETWORKS.embedding_dim + config.ranking_dim + 1


def make_fits(
    data: Data, config: ClosedFormConfig, features: Iterable[Tensor] | None = None
) -> list[BayesianFactorization]:
    """The factorizations before their first sweep, on the CPU, of a config in which everything is decided.

    Args:
        features: of users and items, as by `watch_features`, which computes them where they are not given.
    """
    train = data.train.to(torch.device("cpu"))
    users, items = features or watch_features(train, config.num_features)
    both = users, with_genres(items, data.genres if config.genres == "on" else ())
    seeds = [(config.seed + number * SEED_STEP) % 2**32 for number in range(config.rating_fits)]
    return [BayesianFactorization(train, both, config.rating_dim, seed) for seed in seeds]


def named_fits(fits: Sequence[BayesianFactorization]) -> dict[str, BayesianFactorization]:
    """The factorizations by their names in a checkpoint."""
    return {f"rating fit {number}": fit for number, fit in enumerate(fits)}


class BlockStepper:
    """Fits the blocks; after each epoch the model holds them."""

    notes: tuple[str, ...] = ()
    may_converge = False

    def __init__(
        self,
        model: MultiTaskNet,
        task: WatchAndRate,
        config: ClosedFormConfig,
        device: torch.device,
        make_networks: Callable[[], Networks],
    ) -> None:
        self.model, self.config = model, config
        self.train = task.data.train.to(torch.device("cpu"))
        self.first_losses = {"regression": self.train.ratings.square().mean().item()}  # of predicting 0
        self.fits = make_fits(task.data, config)
        self.closed_form = SavedBlock(closed_form_block(self.train, config))
        self.checkpoint_parts: dict[str, Any] = {"closed-form ranking": self.closed_form}
        self.checkpoint_parts |= named_fits(self.fits)
        networks = make_networks() if config.ranking == "networks" else []
        self.networks, self.steppers, parts = make_steppers(networks, device)
        self.checkpoint_parts |= parts

    def has_converged(self, history: History) -> bool:
        return False

    def run_epoch(self, epoch: int, history: History, stop: Stop) -> Row:
        """A sweep of every fit, and this epoch's part of the networks' training."""
        for fit in self.fits:
            if stop():
                raise Stopped
            fit.sweep()
        self._train_networks(epoch, stop)
        rating = mean_of([fit.factorization() for fit in self.fits])
        is_trained = bool(self.networks) and epoch >= self.config.epochs
        ranking = self.closed_form.block
        if is_trained:
            ranking = mix(block_of(self.networks), ranking, EASE_FRACTION)
        assemble(widen(ranking, ranking_width(self.config)), rating, self.model)
        errors = rating.predict(self.train.user_ids.long(), self.train.item_ids.long()) - self.train.ratings
        return {"train_regression": errors.square().mean().item()}

    def _train_networks(self, epoch: int, stop: Stop) -> None:
        """The epochs of the networks that fall into this epoch."""
        first, last = (network_epochs(done, self.config.epochs) for done in (epoch - 1, epoch))
        for own_epoch in range(first + 1, last + 1):
            for stepper in self.steppers:
                stepper.run_epoch(own_epoch, [], stop)


def network_epochs(epochs_done: int, epochs: int) -> int:
    """How many epochs of the networks are done after so many of the run: all of them at its end."""
    begin = min(FIRST_SWEEPS, epochs - 1)
    return round(NETWORKS.epochs * max(0, epochs_done - begin) / (epochs - begin))


def widen(block: RankingBlock, width: int) -> RankingBlock:
    """The block with columns of zeros up to this width."""
    missing = width - block.users.shape[1]
    users, items = (nn.functional.pad(table, (0, missing)) for table in (block.users, block.items))
    return RankingBlock(users, items, block.item_bias)


def closed_form_block(train: dataset.Interactions, config: ClosedFormConfig) -> RankingBlock:
    """EASE cut to its width, or popularity: tables of zeros, and the numbers of ratings as the item bias."""
    if config.ranking == "popularity":
        users, items = (
            torch.zeros(rows, config.ranking_dim, dtype=torch.double) for rows in (train.num_users, train.num_items)
        )
        return RankingBlock(users, items, train.item_counts.double())
    return RankingBlock(*cut(ease_scores(train, config.ridge), config.ranking_dim, train.item_counts))


class SavedBlock:
    """A ranking block as a part of the checkpoint, so that a resumed run has the same one to the last bit."""

    def __init__(self, block: RankingBlock) -> None:
        self.block = block

    def state_dict(self) -> dict[str, Tensor]:
        return {"users": self.block.users, "items": self.block.items, "item_bias": self.block.item_bias}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.block = RankingBlock(**{name: value.cpu() for name, value in state.items()})
