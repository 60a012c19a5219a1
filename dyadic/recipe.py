"""The dyadic learner as a family of the training loop: its data from settings, its task and its steps."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import dataset
from config.errors import UserError
from config.settings import Settings
from dyadic.data import DyadicData, from_ratings, from_table, item_context, movielens_user_context
from dyadic.features import FeatureOptions, add_features
from dyadic.learner import (
    FIXED_KEY,
    DyadicNet,
    Losses,
    build_net,
    largest_change,
    run_epoch,
    scores,
    steps_per_epoch,
    triple_losses,
)  # fmt: skip
from dyadic.metrics import METRICS, evaluate
from dyadic.options import TASKS, LearnerOptions
from dyadic.sampling import make_sampler, prepare
from dyadic.simulate import simulate
from dyadic.tuning import tune
from sources import download, readers
from sources.ids import encode_pairs
from training.steps import Stopped, progress_bar

TRIPLES_AT_A_TIME = 8192  # between two looks at whether the user wants an end


def feature_options(settings: Settings) -> FeatureOptions:
    names = ("similarity", "neighbours", "absent", "spread", "score", "bias", "source", "exclude_self")
    return FeatureOptions(k=settings.num_neighbours, **{name: getattr(settings, name) for name in names})


def learner_options(settings: Settings) -> LearnerOptions:
    """The settings in the learner's own words: lr is eta, epochs are at most so many, one lambda goes for all."""
    return LearnerOptions(
        eta=settings.lr,
        lam=tuple(settings.lambdas * (4 // len(settings.lambdas))),
        class_weights=tuple(settings.class_weights),
        d=settings.embedding_dim,
        iterations=int(settings.iterations) if settings.iterations.isdigit() else settings.iterations,
        batch=settings.batch_size,
        max_epochs=settings.epochs,
        eps=settings.eps,
        stop=settings.stop_rule,
        emb_grad=settings.emb_grad,
        init=settings.init,
        tasks=tuple(settings.learn),
        seed=settings.seed,
    )


def load_dyads(settings: Settings) -> DyadicData:
    """The dyads that the settings name, split, with their features.

    Raises:
        UserError: the data cannot be had, hold a wrong value, or an option of the learner is out of range.
    """
    learner_options(settings)  # refused before the work
    return add_features(_read(settings), feature_options(settings), settings.quiet)


def read_dyads(values: dict[str, object], seed: int) -> DyadicData:
    """The same without features, from the values of settings: what other processes can be told."""
    return _read(Settings(**values, seed=seed))


def _read(settings: Settings) -> DyadicData:
    if settings.dataset == "simulated-xing":
        return simulate(settings.scale, settings.split, settings.seed)
    return _from_feedback(settings) if settings.feedback is not None else _from_ratings(settings)


def _from_feedback(settings: Settings) -> DyadicData:
    labels = settings.label_names
    context = tuple(settings.context.split(",")) if settings.context else ()
    flags = (*labels, settings.displayed) if settings.displayed else labels
    numbers = (*context, settings.time) if settings.time else context
    table, notes = readers.read_feedback(Path(settings.feedback), flags, numbers)
    return from_table(
        table,
        name=settings.feedback,
        labels=labels,
        displayed=settings.displayed,
        context=context,
        time=settings.time,
        min_user=settings.min_user,
        min_item=settings.min_item,
        iterate=settings.iterate,
        split=settings.split,
        seed=settings.seed,
        notes=notes,
    )


def _from_ratings(settings: Settings) -> DyadicData:
    """Ratings of any data set, in an order that does not depend on the split they come in."""
    data = dataset.load(**settings.data_options)
    everything = data.seen + data.test
    order = torch.argsort(encode_pairs(everything.user_ids, everything.item_ids, everything.num_items))
    rows = everything[order]
    described = dataset.data_folder(settings.data_dir) / "ml-100k" / "u.user"
    has_users = data.name == "ml-100k" and described.is_file()
    return from_ratings(
        rows.user_ids.long().numpy(),
        rows.item_ids.long().numpy(),
        rows.ratings.numpy(),
        data.users,
        data.items,
        name=data.name,
        mapping=settings.mapping,
        min_user=settings.min_user,
        min_item=settings.min_item,
        iterate=settings.iterate,
        split=settings.split,
        times=_read_times(settings, data) if settings.split == "time67" else None,
        user_context=movielens_user_context(described, data.users) if has_users else None,
        item_context=item_context(data.titles, data.genres) if any(data.genres) else None,
        item_texts=list(zip(data.titles, data.genres, strict=True)),
        seed=settings.seed,
        notes=data.notes,
        simulated=data.simulated,
    )


def _read_times(settings: Settings, data: dataset.Data) -> np.ndarray:
    """The timestamps of all ratings, ordered by user and item: (R,)."""
    if settings.ratings is not None:
        path, scale = Path(settings.ratings), settings.rating_scale
    elif data.simulated:
        raise UserError(f"--split time67 goes by timestamps, and {data.name} has none; take --split random30")
    else:
        source = download.fetch(data.name, dataset.data_folder(settings.data_dir))
        path, scale = source.ratings_file, source.scale
    table, _ = readers.read_ratings(path, scale, with_times=True)
    users, items = (readers.look_up(table[name], ids) for name, ids in (("user", data.users), ("item", data.items)))
    return table["timestamp"].to_numpy()[np.argsort(encode_pairs(users, items, len(data.items)))]


def tuned(settings: Settings, data: DyadicData, say: Callable[[str], None]) -> Settings:
    """The settings with the lambdas, class weights and thresholds that do best on folds of the training dyads."""
    found = tune(data, feature_options(settings), learner_options(settings), say=say)
    return replace(
        settings,
        lambdas=[found.options.lam[0]],
        class_weights=list(found.options.class_weights),
        thresholds=[found.thresholds.get(task, 0.5) for task in TASKS],
        tune=False,
    )


class DyadicTask:
    """What the loop asks of a task; see tasks/__init__.py. There is no validation part: tuning has folds of its own."""

    headline = ("click_auc", +1)
    parts = ("test",)
    compared = ()

    def __init__(self, data: DyadicData, settings, device: torch.device) -> None:
        self.data = data
        self.options = learner_options(settings)
        self.thresholds = dict(zip(TASKS, settings.thresholds, strict=True))
        self.sampler = make_sampler(data)
        self.inputs = prepare(data).to(device)
        self.directions = {f"{task}_{metric}": +1 for task in self.options.active for metric in METRICS}
        self.told = tuple(f"{task}_auc" for task in self.options.active)

    @property
    def tags(self) -> dict[str, str]:
        losses = {f"train_{task}": f"loss/{task}" for task in (*TASKS, "total")}
        penalties = {f"reg_{task}": f"reg/{task}" for task in TASKS}
        fixed = {f"fixed_{task}": f"fixed triples/{task}" for task in TASKS}
        metrics = {f"test_{name}": f"eval/{name.replace('_', ' ')}" for name in self.directions}
        return losses | penalties | fixed | {"stop_max_delta": "stop/max_delta"} | metrics

    def build_network(self) -> DyadicNet:
        return build_net(self.data, self.sampler, self.options)

    def metrics(self, model: DyadicNet, part: str) -> dict[str, float]:
        """F1 at the threshold of each task, AUC by user, MAP@1 and MAP@5 on the test dyads."""
        rows, data = self.data.test, self.data
        found = {}
        for task, score in scores(model, self.inputs, rows, self.options).items():
            if not np.isfinite(score).all():
                raise FloatingPointError(f"the scores of {task} are no numbers")
            labels = data.task_labels[rows, TASKS.index(task)]
            measured = evaluate(
                data.user_ids[rows], data.item_ids[rows], labels, score, data.num_users, self.thresholds[task]
            )
            found |= {f"{task}_{metric}": value for metric, value in measured.means.items()}
        return found

    def diagnostics(self, model: DyadicNet) -> dict[str, float]:
        return {}

    def baselines(self) -> dict:
        return {}

    def embeddings(self, model: DyadicNet) -> dict[str, torch.Tensor]:
        return {"I": model.I.detach()} if self.options.d else {}


class AlgorithmOne:
    """The steps of Moura et al.: an epoch of triples, then a look at the fixed ones for the stop rule.

    All it needs to go on after a break is in the history: the losses on the fixed triples.
    """

    def __init__(self, model: DyadicNet, task: DyadicTask, settings, device: torch.device) -> None:
        self.model, self.task, self.options = model, task, task.options
        self.parts: dict = {}
        self.quiet = settings.quiet
        self.count = steps_per_epoch(self.options, task.sampler, task.data)
        self.fixed = task.sampler.draw(self.options.fixed_triples, *FIXED_KEY)

    def is_settled(self, history) -> bool:
        return bool(history) and history[-1]["stop_max_delta"] <= self.options.eps

    def run_epoch(self, epoch: int, history, stop: Callable[[], bool]) -> dict[str, float]:
        triples = self.task.sampler.draw(self.count, self.options.seed, epoch)
        size = -(-TRIPLES_AT_A_TIME // self.options.batch) * self.options.batch
        blocks = [triples[start : start + size] for start in range(0, len(triples), size)]
        data, penalties = np.zeros(len(TASKS)), np.zeros(len(TASKS))
        for block in progress_bar(blocks, epoch, len(blocks), self.quiet):
            if stop():
                raise Stopped
            losses = run_epoch(self.model, self.task.inputs, block, self.options)
            data += losses.data * len(block) / len(triples)
            penalties += losses.penalties * len(block) / len(triples)
        fixed = triple_losses(self.model, self.task.inputs, self.fixed, self.options)
        before = np.array([history[-1][f"fixed_{task}"] for task in TASKS]) if history else None
        previous = None if before is None else Losses(before, np.zeros(len(TASKS)))
        current = Losses(fixed.total, np.zeros(len(TASKS)))
        return (
            _columns("train_{}", data)
            | _columns("reg_{}", penalties)
            | {"train_total": float((data + penalties).sum())}
            | _columns("fixed_{}", fixed.total)
            | {"stop_max_delta": largest_change(previous, current, self.options)}
        )


def _columns(name: str, values: np.ndarray) -> dict[str, float]:
    return {name.format(task): float(value) for task, value in zip(TASKS, values, strict=True)}
