"""The recipe of the dyadic learner: its data, task, network and stepper."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import dataset
from config.dyadic import TASKS, DyadicConfig
from config.errors import UserError
from dyadic.data import DyadicData
from dyadic.features import add_features
from dyadic.from_ratings import Catalog, Ratings, from_ratings, item_context, movielens_user_context
from dyadic.from_table import Columns, from_table
from dyadic.simulate import simulate
from dyadic.task import DyadicSGD, DyadicTask
from dyadic.tuning import tune
from sources import download, readers
from sources.ids import encode_pairs
from sources.packing import Packed
from training.process_group import SINGLE_PROCESS, SingleProcess
from training.protocols import Log, Training

POOLED = "the files of the ready split are pooled, and their dyads are split again: see --split"


class DyadicRecipe:
    """Four tasks on dyads, by the stochastic updates of Moura et al."""

    def load_data(self, config: DyadicConfig) -> DyadicData:
        """Read the dyads that the config names, split them and add their features.

        Raises:
            UserError: the data cannot be read or hold a wrong value.
        """
        return add_features(read_dyads(config), config, config.quiet)

    def unpack(self, packed: Packed) -> DyadicData:
        return DyadicData.unpack(packed)

    def resolve(self, config: DyadicConfig, data: DyadicData, log: Log) -> DyadicConfig:
        """With --tune: choose the lambda, class weights and thresholds on folds of the training dyads."""
        if not config.tune:
            return config
        untuned = replace(config, tune=False)
        found = tune(data, untuned, untuned, log=log)
        return replace(
            untuned,
            lambdas=found.options.lambdas,
            class_weights=found.options.class_weights,
            thresholds=tuple(found.thresholds.get(task, 0.5) for task in TASKS),
        )

    def check_processes(self, config: DyadicConfig, num_processes: int) -> None:
        if num_processes > 1:
            raise UserError("--model dyadic trains sequentially in one process: start it without torchrun")

    def build(
        self, config: DyadicConfig, data: DyadicData, device: torch.device, group: SingleProcess = SINGLE_PROCESS
    ) -> Training:
        task = DyadicTask(data, config, device, config.thresholds)
        return Training(task.build_network().to(device), task, DyadicSGD)


RECIPE = DyadicRecipe()


def read_dyads(config: DyadicConfig) -> DyadicData:
    """The dyads that the config names, split, without features."""
    if config.dataset == "simulated-xing":
        return simulate(config.scale, config.split, config.seed)
    return _from_ratings(config) if config.feedback is None else _from_feedback(config, config.feedback)


def _from_feedback(config: DyadicConfig, path: str) -> DyadicData:
    columns = Columns(
        labels=config.label_names,
        displayed=config.displayed,
        context=tuple(config.context.split(",")) if config.context else (),
        time=config.time,
    )
    table, notes = readers.read_feedback(Path(path), columns.flags, columns.numbers, names=config.column_names)
    return from_table(table, path, columns, config, config.seed, notes)


def _from_ratings(config: DyadicConfig) -> DyadicData:
    """Dyads of the ratings of any data set.

    Ratings are ordered by user and item, so that neither the order of the file nor the split of `dataset.load` changes
    the result.
    """
    data = dataset.load(**config.data_options)
    rows = data.seen + data.test
    rows = rows[torch.argsort(encode_pairs(rows.user_ids, rows.item_ids, rows.num_items))]
    times = _read_times(config, data) if config.split == "time67" else None
    ratings = Ratings(rows.user_ids.long().numpy(), rows.item_ids.long().numpy(), rows.ratings.numpy(), times)
    return from_ratings(ratings, _describe(config, data), config, config.seed)


def _describe(config: DyadicConfig, data: dataset.Data) -> Catalog:
    """The users and items of a data set, with the context that MovieLens publishes about them."""
    user_file = dataset.data_folder(config.data_dir) / "ml-100k" / "u.user"
    has_users = data.name == "ml-100k" and user_file.is_file()
    is_split = config.train_ratings is not None
    return Catalog(
        name=data.name,
        users=data.users,
        items=data.items,
        user_context=movielens_user_context(user_file, data.users) if has_users else None,
        item_context=_item_context(data),
        item_texts=list(zip(data.titles, data.genres, strict=True)),
        notes=(*data.notes, POOLED) if is_split else data.notes,
        simulated=data.simulated,
    )


def _item_context(data: dataset.Data) -> np.ndarray | None:
    """`item_context` of all items; None where the data set has no catalog. Half a catalog makes no features."""
    if not any(data.genres):
        return None
    if missing := data.genres.count(""):
        raise UserError(
            f"the movie catalog of {data.name} lacks {missing:,} of {len(data.items):,} items, so that their features "
            "are not known: restore it, or remove it to train without these features"
        )
    return item_context(data.titles, data.genres)


def _read_times(config: DyadicConfig, data: dataset.Data) -> np.ndarray:
    """Timestamps of all ratings, ordered by user and item: (R,)."""
    if config.ratings is not None:
        path, scale = Path(config.ratings), config.rating_scale
    elif data.simulated:
        raise UserError(f"--split time67 needs timestamps, and {data.name} has none: choose --split random30")
    else:
        source = download.fetch(data.name, dataset.data_folder(config.data_dir))
        path, scale = source.ratings_file, source.scale
    table, _ = readers.read_ratings(path, scale, config.column_names, with_times=True)
    users, items = (readers.look_up(table[name], ids) for name, ids in (("user", data.users), ("item", data.items)))
    return table["timestamp"].to_numpy()[np.argsort(encode_pairs(users, items, len(data.items)))]
