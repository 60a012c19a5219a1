"""New users without training, measured: a tenth of the users is held out wholly.

    others   all ratings of the other 90 % of the users: what the networks and the baselines are trained on
    given    80 % of the ratings of each held-out user
    hidden   their other ratings, which everything is measured on; of a network of the zoo, the likes among them

"along" is the same network trained on others and given together. EASE scores from the given items by weights from the
others and needs no user; item and user biases are fitted on others and given. Nothing is chosen on hidden rows.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from analysis.tables import cell
from benchmarks.quality import fit
from config.base import RunConfig
from config.zoo import ZooConfig
from dataset import Data, Interactions
from evaluation import RANKING_METRICS, mse_score, rank_test_items
from multitask.baselines import EASE_NAME, EASE_RIDGE, Biases, Popularity
from multitask.ease import ScoreTable, fit_ease
from multitask.features import watch_matrix
from multitask.svd import multiply
from training.console import log
from training.protocols import Task
from training.streams import stream
from training.terminal import blocks, terminal_width

CPU = torch.device("cpu")
NEW_FRACTION, GIVEN_FRACTION = 0.1, 0.8
RANKED = ("mrr", "ndcg@10", "auc")
Figures = dict[str, dict[str, float]]  # {method: {metric: value}}


@dataclass(frozen=True, eq=False)
class Held:
    """The data of one seed. The held-out users have the last row numbers in `along`, and 0, 1, .. in the others.

    trained: data of the other users alone. along: with the given rows as train rows, and the hidden ones as test rows.
    """

    trained: Data
    along: Data
    users: np.ndarray
    given: Interactions
    hidden: Interactions


def hold_out(data: Data, seed: int) -> Held:
    """Draw the held-out users and their hidden rows. A user with one rating has no hidden row."""
    generator = stream(seed, -1)
    count = max(1, round(NEW_FRACTION * len(data.users)))
    order = torch.randperm(len(data.users), generator=generator).flip(0)
    num_others = len(order) - count
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    rows = data.interactions
    numbers = place[rows.user_ids.long()]
    is_new = numbers >= num_others
    others, new = _renumber(rows, numbers, ~is_new, 0, num_others), _renumber(rows, numbers, is_new, num_others, count)
    is_given = _draw_given(new, generator)
    wide = [_renumber(rows, numbers, mask, 0, len(order)) for mask in (~is_new, is_new)]
    users = data.users[order.numpy()]
    return Held(
        replace(data, users=users[:num_others], train=others, validation=None, test=others[:: len(others) // 1000 + 1]),
        replace(data, users=users, train=wide[0] + wide[1][is_given], validation=None, test=wide[1][~is_given]),
        users[num_others:],
        new[is_given],
        new[~is_given],
    )


def _renumber(rows: Interactions, numbers: Tensor, mask: Tensor, first: int, count: int) -> Interactions:
    chosen = rows[mask]
    return Interactions((numbers[mask] - first).int(), chosen.item_ids, chosen.ratings, count, rows.num_items)


def _draw_given(rows: Interactions, generator: torch.Generator) -> Tensor:
    """(R,) bool: True for GIVEN_FRACTION of the rows of each user, at random."""
    order = torch.randperm(len(rows), generator=generator)
    order = order[torch.argsort(rows.user_ids[order], stable=True)]
    counts = rows.offsets.diff()
    rank = torch.arange(len(rows)) - rows.offsets[:-1].repeat_interleave(counts)
    is_given = torch.empty(len(rows), dtype=torch.bool)
    is_given[order] = rank < (GIVEN_FRACTION * counts).ceil().repeat_interleave(counts)
    return is_given


class Answers(nn.Module):
    """A network as its task scores with it, for users whose row numbers begin at `first`."""

    def __init__(self, model: nn.Module, task: Task, first: int = 0) -> None:
        super().__init__()
        self.model, self.task, self.first = model, task, first

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, Tensor]:
        return self.model(user_ids + self.first, item_ids)

    def score_items(self, user_ids: Tensor) -> Tensor:
        return self.task.score_all(self.model, user_ids + self.first)


def measure_fold_in(configs: Mapping[str, RunConfig], data: Data, seeds: Sequence[int]) -> None:
    """Print a table for each network: means and standard deviations over the seeds."""
    for name, config in configs.items():
        found = [_measure(replace(config, seed=seed), hold_out(data, seed)) for seed in seeds]
        log(f"\n{name}: {data!r}; held-out users of seeds {', '.join(map(str, seeds))}")
        columns = list(dict.fromkeys(metric for row in found[0].values() for metric in row))
        methods = [f"{method:<22}" for method in ("", *found[0])]
        cells = [[column, *(_cell(found, method, column) for method in found[0])] for column in columns]
        log(*blocks([methods, *([f"{text:>18}" for text in column] for column in cells)], terminal_width(sys.stdout)))


def _cell(found: Sequence[Figures], method: str, metric: str) -> str:
    values = [figures[method].get(metric, float("nan")) for figures in found]
    return cell(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else float("nan"))


def _measure(config: RunConfig, held: Held) -> Figures:
    """Every method on the hidden rows of one seed."""
    trained = fit(config, held.trained)
    model, task = trained.model, trained.task
    folded, folded_task = task.fold_in(model, held.users, held.given)
    along = fit(config, held.along)
    rates = not isinstance(config, ZooConfig)
    relevant = held.hidden[held.hidden.ratings >= config.like_from] if isinstance(config, ZooConfig) else held.hidden
    ease = multiply(watch_matrix(held.given), fit_ease(held.trained.train, EASE_RIDGE, 0.0, 0.0))
    first = len(held.trained.users)
    rankers = {
        "popularity": Popularity(held.trained.train),
        EASE_NAME: ScoreTable(ease),
        "folded in": Answers(folded, folded_task),
        "trained along": Answers(along.model, along.task, first),
    }
    figures = {name: _ranked(ranker, relevant, held.given) for name, ranker in rankers.items()}
    if rates:
        raters = rankers | {"user + item biases": Answers(Biases(held.along.train), along.task, first)}
        for name in ("popularity", "user + item biases", "folded in", "trained along"):
            figures.setdefault(name, {})["mse"] = mse_score(raters[name], held.hidden)
    return figures


def _ranked(model: nn.Module, rows: Interactions, seen: Interactions) -> dict[str, float]:
    ranking = rank_test_items(model, rows, seen)
    return {name: RANKING_METRICS[name].function(ranking) for name in RANKED}
