"""Quality and time to quality on the same splits of MovieLens 100K: every installed peer, and the network.

The splits are the random ones of seeds 0, 1 and 2 (sources/splits.py), with 5 % for the test; evaluation.py measures
everything.
Nothing is chosen on the test parts: the network's figures are those of its last epoch, and its curve is for reading.
"""

import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace

import torch
from tqdm import tqdm

from analysis.peers import value_of
from analysis.tables import cell
from benchmarks.peers import PEERS, Answered, Peer, missing
from benchmarks.results import Record, record_simulated
from benchmarks.timing import cpu_seconds
from config.base import RunConfig
from dataset import Data, Interactions
from evaluation import mrr_score, mse_score
from registry import recipe_for
from training.console import log, silent
from training.protocols import Training

CPU = torch.device("cpu")
SPLITS = (0, 1, 2)
FURTHER_SPLITS = (3, 4, 5, 6, 7)
# The bounds of "time to quality", both to be met in one epoch by one network: the figures of two tuned peers.
LOWEST_MRR, HIGHEST_MSE = value_of("WARP"), value_of("SVD++")
METRIC = {"rating": "MSE", "ranking": "MRR"}
UNIT = {"MSE": "squared rating points", "MRR": "", "CPU": "CPU s"}

Curve = list[dict[str, float]]  # per epoch: "MRR" and "MSE" on the test part, "CPU" seconds of training so far


def measure_quality(
    record: Record,
    config: RunConfig,
    peers: Sequence[Peer] = PEERS,
    splits: Sequence[int] = SPLITS,
    further: Sequence[int] = FURTHER_SPLITS,
) -> None:
    """Fit every peer and train the network on each split; record means over the splits, and each split alone."""
    absent = missing(peers)
    for package, reason in absent.items():
        left_out = ", ".join(peer.name for peer in peers if peer.package == package)
        log(f"{package} is missing ({reason}): without {left_out}")
    recipe = recipe_for(config)
    data = {split: recipe.load_data(replace(config, seed=split)) for split in splits}
    log(f"{data[splits[0]]}; splits {', '.join(map(str, splits))}; mean, and CPU seconds of one fit")
    record_simulated(record, data[splits[0]].name, data[splits[0]].simulated)
    for peer in peers:
        if peer.package not in absent:
            bar = tqdm(splits, peer.name, leave=False, unit="split", disable=not sys.stderr.isatty())
            fits = [fit_peer(peer, data[split]) for split in bar]
            log(f"{peer.name:<40}{_record_fits(record, peer, splits, fits)}")
    curves = [train(replace(config, seed=split), data[split]) for split in splits]
    _record_network(record, "ours", splits, curves)
    record_curve(record, splits, curves)
    if further:
        others = [train(replace(config, seed=split)) for split in further]
        _record_network(record, "ours, further splits", further, others)


def fit_peer(peer: Peer, data: Data) -> tuple[float, float]:
    """The peer's MSE or MRR on the test part, and the CPU seconds of its fit."""
    return fit_and_measure(peer, data.seen, data.test)


def fit_and_measure(peer: Peer, train: Interactions, test: Interactions) -> tuple[float, float]:
    """The MSE or MRR on other rows than those of the fit, and the CPU seconds of the fit."""
    wide = replace(train, user_ids=train.user_ids.long(), item_ids=train.item_ids.long())  # compiled peers need 64 bits
    start = cpu_seconds()
    answer = peer.fit(wide)
    seconds = cpu_seconds() - start
    model = Answered(peer, answer)
    if peer.task == "rating":
        return mse_score(model, test), seconds
    return mrr_score(model, test, train), seconds


def train(config: RunConfig, data: Data | None = None) -> Curve:
    """Train for all epochs of the config.

    The clock runs while the stepper is made and during epochs, not while the recipe decides on settings.
    """
    recipe = recipe_for(config)
    data = data or recipe.load_data(config)
    config = recipe.resolve(config, data, silent)
    training = recipe.build(config, data, CPU)
    model, task = training.model, training.task
    start = cpu_seconds()
    stepper = training.make_stepper(model, task, config, CPU)
    seconds = cpu_seconds() - start
    curve: Curve = []
    history: list[dict[str, float]] = []
    bar = tqdm(range(config.epochs), f"split {config.seed}", leave=False, disable=not sys.stderr.isatty())
    for epoch in (number + 1 for number in bar):
        start = cpu_seconds()
        history.append({"epoch": epoch} | stepper.run_epoch(epoch, history, lambda: False))
        seconds += cpu_seconds() - start
        found = task.metrics(model, "test")
        curve.append({"MRR": found["mrr"], "MSE": found["mse"], "CPU": seconds})
    return curve


def fit(config: RunConfig, data: Data) -> Training:
    """Train for all epochs of the config, in memory: the network and its task."""
    recipe = recipe_for(config)
    config = recipe.resolve(config, data, silent)
    training = recipe.build(config, data, CPU)
    stepper = training.make_stepper(training.model, training.task, config, CPU)
    history: list[dict[str, float]] = []
    for epoch in range(1, config.epochs + 1):
        history.append({"epoch": epoch} | stepper.run_epoch(epoch, history, lambda: False))
    return training


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean over splits, epoch by epoch."""
    return [
        {name: statistics.fmean(row[name] for row in rows) for name in rows[0]} for rows in zip(*curves, strict=True)
    ]


def time_to_quality(curve: Curve) -> tuple[float, float]:
    """(epoch, CPU seconds) of the first epoch that meets both bounds; nan where none does."""
    for epoch, row in enumerate(curve, 1):
        if row["MRR"] >= LOWEST_MRR and row["MSE"] <= HIGHEST_MSE:
            return epoch, row["CPU"]
    return float("nan"), float("nan")


def _record_fits(record: Record, peer: Peer, splits: Sequence[int], fits: list[tuple[float, float]]) -> str:
    metric = METRIC[peer.task]
    values = [value for value, _ in fits]
    record(peer.name, metric, statistics.fmean(values), UNIT[metric])
    for split, value in zip(splits, values, strict=True):
        record(peer.name, f"{metric}, split {split}", value, UNIT[metric])
    seconds = statistics.fmean(seconds for _, seconds in fits)
    record(peer.name, "fit", seconds, "CPU s")
    return f"{metric} {statistics.fmean(values):.4f}{seconds:>10.2f} s"


def _record_network(record: Record, name: str, splits: Sequence[int], curves: list[Curve]) -> None:
    """The last epoch: mean and standard deviation over splits, and each split alone."""
    words = []
    for metric in ("MRR", "MSE"):
        values = [curve[-1][metric] for curve in curves]
        deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
        record(name, metric, statistics.fmean(values), UNIT[metric])
        record(name, f"{metric}, sd over splits", deviation, UNIT[metric])
        for split, value in zip(splits, values, strict=True):
            record(name, f"{metric}, split {split}", value, UNIT[metric])
        words.append(f"{metric} {cell(statistics.fmean(values), deviation)}")
    seconds = statistics.fmean(curve[-1]["CPU"] for curve in curves)
    record(name, "fit", seconds, "CPU s")
    log(f"{name:<40}{', '.join(words)}{seconds:>10.2f} s, {len(curves[0])} epochs, splits {splits[0]} to {splits[-1]}")


def record_curve(record: Record, splits: Sequence[int], curves: list[Curve]) -> None:
    """The mean curve, and the time at which it and each split alone meets both bounds."""
    mean = mean_curve(curves)
    for epoch, row in enumerate(mean, 1):
        for name, value in row.items():
            record(f"ours, epoch {epoch}", name, value, UNIT[name])
    named = {"mean": mean} | {f"split {split}": curve for split, curve in zip(splits, curves, strict=True)}
    for name, curve in named.items():
        epoch, seconds = time_to_quality(curve)
        record("ours", f"time to quality, {name}", seconds, "CPU s")
        record("ours", f"epochs to quality, {name}", epoch, "epochs")
        reached = f"{seconds:.2f} s, epoch {epoch}" if epoch == epoch else f"not within {len(curve)} epochs"
        log(f"MRR >= {LOWEST_MRR} and MSE <= {HIGHEST_MSE} in one epoch, {name}: {reached}")
