"""How the dyadic learner is trained: its data, task, network and stepper."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import dataset
from config.dyadic import TASKS, DyadicConfig
from config.errors import UserError
from dyadic.data import DyadicData, from_ratings, from_table, item_context, movielens_user_context
from dyadic.features import add_features
from dyadic.simulate import simulate
from dyadic.task import DyadicSGD, DyadicTask
from dyadic.tuning import tune
from sources import download, readers
from sources.ids import encode_pairs
from training.process_group import SINGLE_PROCESS, SingleProcess
from training.protocols import Log, Training


class DyadicRecipe:
    """Four tasks on dyads, by the stochastic updates of Moura et al."""

    def load_data(self, config: DyadicConfig) -> DyadicData:
        """The dyads that the config names, split, with their features.

        Raises:
            UserError: the data cannot be had or hold a wrong value.
        """
        return add_features(read_dyads(config), config, config.quiet)

    def resolve(self, config: DyadicConfig, data: DyadicData, log: Log) -> DyadicConfig:
        """With --tune: the lambda, class weights and thresholds that do best on folds of the training dyads."""
        if not config.tune:
            return config
        found = tune(data, config, config, log=log)
        return replace(found.options, thresholds=tuple(found.thresholds.get(task, 0.5) for task in TASKS), tune=False)

    def check_processes(self, config: DyadicConfig, num_processes: int) -> None:
        if num_processes > 1:
            raise UserError("--model dyadic takes one step after the other, in one process: start it without torchrun")

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
    return _from_feedback(config) if config.feedback is not None else _from_ratings(config)


def _from_feedback(config: DyadicConfig) -> DyadicData:
    labels = config.label_names
    context = tuple(config.context.split(",")) if config.context else ()
    flags = (*labels, config.displayed) if config.displayed else labels
    numbers = (*context, config.time) if config.time else context
    table, notes = readers.read_feedback(Path(config.feedback), flags, numbers)
    return from_table(
        table,
        name=config.feedback,
        labels=labels,
        displayed=config.displayed,
        context=context,
        time=config.time,
        min_user=config.min_user,
        min_item=config.min_item,
        iterate=config.iterate,
        split=config.split,
        seed=config.seed,
        notes=notes,
    )


def _from_ratings(config: DyadicConfig) -> DyadicData:
    """Ratings of any data set, ordered by user and item, so that the split they were read in does not matter."""
    data = dataset.load(**config.data_options)
    everything = data.seen + data.test
    order = torch.argsort(encode_pairs(everything.user_ids, everything.item_ids, everything.num_items))
    rows = everything[order]
    described = dataset.data_folder(config.data_dir) / "ml-100k" / "u.user"
    has_users = data.name == "ml-100k" and described.is_file()
    return from_ratings(
        rows.user_ids.long().numpy(),
        rows.item_ids.long().numpy(),
        rows.ratings.numpy(),
        data.users,
        data.items,
        name=data.name,
        mapping=config.mapping,
        min_user=config.min_user,
        min_item=config.min_item,
        iterate=config.iterate,
        split=config.split,
        times=_read_times(config, data) if config.split == "time67" else None,
        user_context=movielens_user_context(described, data.users) if has_users else None,
        item_context=item_context(data.titles, data.genres) if any(data.genres) else None,
        item_texts=list(zip(data.titles, data.genres, strict=True)),
        seed=config.seed,
        notes=data.notes,
        simulated=data.simulated,
    )


def _read_times(config: DyadicConfig, data: dataset.Data) -> np.ndarray:
    """The timestamps of all ratings, ordered by user and item: (R,)."""
    if config.ratings is not None:
        path, scale = Path(config.ratings), config.rating_scale
    elif data.simulated:
        raise UserError(f"--split time67 sorts by timestamps, and {data.name} has none; take --split random30")
    else:
        source = download.fetch(data.name, dataset.data_folder(config.data_dir))
        path, scale = source.ratings_file, source.scale
    table, _ = readers.read_ratings(path, scale, with_times=True)
    users, items = (readers.look_up(table[name], ids) for name, ids in (("user", data.users), ("item", data.items)))
    return table["timestamp"].to_numpy()[np.argsort(encode_pairs(users, items, len(data.items)))]
