"""The multi-task net as plain PyTorch, the reference for an epoch, an evaluation and the growth of ours."""

import statistics
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.results import Record, record_simulated
from benchmarks.timing import cpu_seconds, in_turns, table_of_times
from config.multitask import MultiTaskConfig
from dataset import Interactions
from models import MultiTaskNet
from multitask.dense_layers import dense_layers
from multitask.recipe import RECIPE
from training.console import log

CPU = torch.device("cpu")
CACHED_ROWS = 4096  # rows whose activations fit the processor's cache


class PlainNet(nn.Module):
    """The multi-task net on shared tables, written as the homework sheet suggests; parameters as in models.py."""

    def __init__(self, num_users: int, num_items: int, dim: int = 32, width: int = 64) -> None:
        super().__init__()
        self.U, self.Q, self.B = nn.Embedding(num_users, dim), nn.Embedding(num_items, dim), nn.Embedding(num_items, 1)
        for table, deviation in ((self.U, 1 / dim), (self.Q, 1 / dim), (self.B, 0.0)):
            nn.init.normal_(table.weight, 0.0, deviation)
        self.mlp_layers = nn.Sequential(nn.Linear(3 * dim, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Ranking scores and ratings of pairs: (B,), (B,) -> (B,), (B,)."""
        u, q = self.U(users), self.Q(items)
        return (u * q).sum(1) + self.B(items)[:, 0], self.mlp_layers(torch.cat([u, q, u * q], dim=1))[:, 0]

    def rank(self, users: Tensor, items: Tensor) -> Tensor:
        """The ranking scores alone: (B,), (B,) -> (B,)."""
        return (self.U(users) * self.Q(items)).sum(1) + self.B(items)[:, 0]


@torch.no_grad()
def copy_weights(model: MultiTaskNet, plain: PlainNet) -> None:
    """Give the plain network the weights of a multi-task net with shared tables and as many dense layers."""
    for name in ("U", "Q", "B"):
        getattr(plain, name).weight.copy_(getattr(model, name).weight)
    layers = zip(dense_layers(model), (plain.mlp_layers[0], plain.mlp_layers[2]), strict=True)
    for layer, own in layers:
        own.weight.copy_(layer.weight)
        own.bias.copy_(layer.bias)


def joint_loss(weights: dict[str, float], positive: Tensor, negative: Tensor, score: Tensor, ratings: Tensor) -> Tensor:
    """The weighted sum of the mean of 1 - sigmoid and of the mean squared error; all tensors (B,)."""
    ranking = (1 - torch.sigmoid(positive - negative)).mean()
    return weights["factorization"] * ranking + weights["regression"] * ((score - ratings) ** 2).mean()


def plain_epoch(
    net: PlainNet, optimizer, config: MultiTaskConfig, train: Interactions, stop: Callable[[], bool] = lambda: False
) -> int:
    """Train for an epoch, or until `stop`, called before every step, is True; returns the rows trained on."""
    rows, total = 0, 0.0
    for chosen in torch.randperm(len(train)).split(config.batch_size):
        if stop():
            break
        users, items, ratings = train.user_ids[chosen], train.item_ids[chosen], train.ratings[chosen]
        negatives = torch.randint(train.num_items, (len(chosen),))
        positive, score = net(users, items)
        negative, _ = net(users, negatives)
        loss = joint_loss(config.weights, positive, negative, score, ratings)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
        rows += len(chosen)
    return rows


def plain_growth(config: MultiTaskConfig, train: Interactions, stop: Callable[[], bool]) -> int:
    """An epoch of a fresh network, as `plain_epoch`."""
    net = PlainNet(train.num_users, train.num_items)
    return plain_epoch(net, torch.optim.Adam(net.parameters(), lr=config.lr), config, train, stop)


def plain_evaluation(net: PlainNet, test: Interactions, train: Interactions) -> dict[str, float]:
    """The metrics of the multi-task net with one argsort per user; ties are in any order."""
    per_user: list[dict[str, float]] = []
    with torch.no_grad():
        for user in test.user_ids.unique():
            scores = net.Q.weight @ net.U.weight[user] + net.B.weight[:, 0]
            scores[train.item_ids[train.user_ids == user]] = -torch.inf
            place = np.empty(len(scores))
            place[np.argsort(-scores.numpy())] = np.arange(1, len(scores) + 1)
            ranks = np.sort(place[test.item_ids[test.user_ids == user].numpy()])
            per_user.append(_ranking_metrics(ranks, int(scores.isfinite().sum())))
        errors = net(test.user_ids, test.item_ids)[1] - test.ratings
    names = dict.fromkeys(name for metrics in per_user for name in metrics)
    means = {name: float(np.mean([metrics[name] for metrics in per_user if name in metrics])) for name in names}
    return means | {"mse": errors.square().mean().item()}


def _ranking_metrics(ranks: np.ndarray, candidates: int) -> dict[str, float]:
    """The metrics of one user from the sorted ranks, 1 or more, of the test items; no AUC without other candidates."""
    hits, top = len(ranks), ranks[ranks <= 10]
    ideal = 1 / np.log2(np.arange(2, min(hits, 10) + 2))
    found = {
        "mrr": (1 / ranks).mean(),
        "first_hit_mrr": 1 / ranks[0],
        "hit_rate@10": float(len(top) > 0),
        "ndcg@10": (1 / np.log2(top + 1)).sum() / ideal.sum(),
    }
    if candidates > hits:
        behind = ranks.sum() - hits * (hits + 1) / 2
        found["auc"] = 1 - behind / (hits * (candidates - hits))
    return found


def measure_epoch(record: Record, config: MultiTaskConfig, repeats: int) -> None:
    """CPU seconds of an epoch of both tasks at the homework's settings: ours, the plain loop and the limit, in turns.

    The limit is the arithmetic that every epoch needs: forward and backward of every row by autograd, without anything
    that the losses do not need and without drawing. It is measured in one batch; in blocks that fit the processor's
    cache, which is faster; and in these blocks with as many updates, by fused Adam, as the epoch has steps.
    """
    data = RECIPE.load_data(config)
    training = RECIPE.build(config, data, CPU)
    stepper = training.make_stepper(training.model, training.task, config, CPU)
    plain = PlainNet(len(data.users), len(data.items))
    adam = torch.optim.Adam(plain.parameters(), lr=config.lr)
    ways = {
        "plain loop": lambda: plain_epoch(plain, adam, config, data.train),
        "ours": lambda: stepper.run_epoch(1, [], lambda: False),
    } | _limits(config, data.train)
    in_turns(ways, 1)  # the first pass builds what later passes reuse
    log(f"{data}\nan epoch of both tasks, batch {config.batch_size}, CPU seconds of {repeats} epochs each, in turns")
    record_simulated(record, data.name, data.simulated)
    _record_times(record, in_turns(ways, repeats, cpu_seconds))


def measure_evaluation(record: Record, config: MultiTaskConfig, repeats: int) -> None:
    """CPU seconds of all six metrics on the test part, ours and by one argsort per user, on the same weights."""
    data = RECIPE.load_data(config)
    training = RECIPE.build(config, data, CPU)
    plain = PlainNet(len(data.users), len(data.items))
    copy_weights(training.model, plain)
    ways = {
        "plain: an argsort per user": lambda: plain_evaluation(plain, data.test, data.train),
        "ours": lambda: training.task.metrics(training.model, "test"),
    }
    in_turns(ways, 1)
    log(f"{data}\na full evaluation, six metrics, CPU seconds of {repeats} each, in turns")
    record_simulated(record, data.name, data.simulated)
    _record_times(record, in_turns(ways, repeats, cpu_seconds))


def _limits(config: MultiTaskConfig, train: Interactions) -> dict[str, Callable[[], None]]:
    """The three limits of `measure_epoch`, by name."""
    net = PlainNet(train.num_users, train.num_items)
    fused = torch.optim.Adam(net.parameters(), lr=config.lr, fused=True)
    updates = -(-len(train) // config.batch_size)
    columns = (train.user_ids, train.item_ids, torch.randint(train.num_items, (len(train),)), train.ratings)

    def gradients(rows: int) -> None:
        net.zero_grad()
        for users, items, others, ratings in zip(*(column.split(rows) for column in columns), strict=True):
            positive, score = net(users, items)
            joint_loss(config.weights, positive, net.rank(users, others), score, ratings).backward()

    def gradients_and_updates() -> None:
        gradients(CACHED_ROWS)
        for _ in range(updates):
            fused.step()

    return {
        "limit: one batch of all rows": lambda: gradients(len(train)),
        f"limit: {CACHED_ROWS:,} rows at a time": lambda: gradients(CACHED_ROWS),
        f"the latter and {updates} Adam updates": gradients_and_updates,
    }


def _record_times(record: Record, seconds: dict[str, list[float]]) -> None:
    for name, values in seconds.items():
        record(name, "median", statistics.median(values), "CPU s")
        record(name, "lowest", min(values), "CPU s")
    log(table_of_times(seconds))
