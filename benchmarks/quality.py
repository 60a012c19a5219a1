"""Quality and time to quality on the same splits of MovieLens 100K: every peer that is installed, and the network.

The splits are those of seeds 0, 1 and 2 (dataset.split_rows with 5 % for the test). All is measured by evaluation.py.
Nothing is chosen on the test parts: the network's figures are those of its last epoch, and its curve is for reading.
"""

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from tqdm import tqdm

import registry as family
from benchmarks.peers import PEERS, Answered, Peer, missing
from benchmarks.results import Record
from benchmarks.timing import cpu_seconds
from config.settings import Settings
from dataset import Data
from evaluation import mrr_score, mse_score

SPLITS = (0, 1, 2)
FURTHER_SPLITS = (3, 4, 5, 6, 7)
# What a network that does both tasks is asked for, in one and the same epoch: the MRR of LightFM's WARP and the MSE of
# Surprise's SVD++, both tuned, on the splits 0 to 2.
LOWEST_MRR, HIGHEST_MSE = 0.1379, 0.8188
METRIC = {"rating": "MSE", "ranking": "MRR"}
UNIT = {"MSE": "squared rating points", "MRR": "", "CPU": "CPU s"}

Curve = list[dict[str, float]]  # a row an epoch: "MRR" and "MSE" on the test part, "CPU" seconds of training until then


def measure_quality(
    record: Record,
    settings: Settings,
    say: Callable[[str], None],
    peers: Sequence[Peer] = PEERS,
    splits: Sequence[int] = SPLITS,
    further: Sequence[int] = FURTHER_SPLITS,
) -> None:
    """Fit every peer and train the network on each split; record means over the splits, and each split alone."""
    absent = missing(peers)
    for package, reason in absent.items():
        left_out = ", ".join(peer.name for peer in peers if peer.package == package)
        say(f"{package} is missing ({reason}): without {left_out}")
    data = {split: family.load_data(replace(settings, seed=split)) for split in splits}
    say(f"{data[splits[0]]}; splits {', '.join(map(str, splits))}; mean, and CPU seconds of one fit")
    for peer in peers:
        if peer.package not in absent:
            bar = tqdm(splits, peer.name, leave=False, unit="split", disable=not sys.stderr.isatty())
            fits = [fit_peer(peer, data[split]) for split in bar]
            say(f"{peer.name:<40}{_record_fits(record, peer, splits, fits)}")
    curves = [train(replace(settings, seed=split), data[split]) for split in splits]
    _record_network(record, "ours", splits, curves, say)
    record_curve(record, splits, curves, say)
    if further:
        others = [train(replace(settings, seed=split)) for split in further]
        _record_network(record, "ours, further splits", further, others, say)


def fit_peer(peer: Peer, data: Data) -> tuple[float, float]:
    """The peer's MSE or MRR on the test part, and the CPU seconds of its fit."""
    seen = data.seen
    wide = replace(seen, user_ids=seen.user_ids.long(), item_ids=seen.item_ids.long())  # what compiled peers ask for
    start = cpu_seconds()
    answer = peer.fit(wide)
    seconds = cpu_seconds() - start
    model = Answered(peer, answer)
    if peer.task == "rating":
        return mse_score(model, data.test), seconds
    return mrr_score(model, data.test, data.seen), seconds


def train(settings: Settings, data: Data | None = None) -> Curve:
    """Train by the settings for all their epochs. The clock runs while training alone: preparing steps, and epochs."""
    data = data or family.load_data(settings)
    model, task, make_stepper = family.build(settings, data, torch.device("cpu"))
    start = cpu_seconds()
    stepper = make_stepper(model, task, settings, torch.device("cpu"))
    seconds = cpu_seconds() - start
    curve: Curve = []
    history: list[dict[str, float]] = []
    bar = tqdm(range(settings.epochs), f"split {settings.seed}", leave=False, disable=not sys.stderr.isatty())
    for epoch in (number + 1 for number in bar):
        start = cpu_seconds()
        history.append({"epoch": epoch} | stepper.run_epoch(epoch, history, lambda: False))
        seconds += cpu_seconds() - start
        found = task.metrics(model, "test")
        curve.append({"MRR": found["mrr"], "MSE": found["mse"], "CPU": seconds})
    return curve


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean over splits, epoch by epoch."""
    return [
        {name: statistics.fmean(row[name] for row in rows) for name in rows[0]} for rows in zip(*curves, strict=True)
    ]


def time_to_quality(curve: Curve) -> tuple[float, float]:
    """(epoch, CPU seconds) of the first epoch in which both bounds hold; nan where they never do."""
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


def _record_network(record: Record, name: str, splits: Sequence[int], curves: list[Curve], say) -> None:
    """The last epoch: mean and standard deviation over splits, and each split alone."""
    words = []
    for metric in ("MRR", "MSE"):
        values = [curve[-1][metric] for curve in curves]
        spread = statistics.stdev(values) if len(values) > 1 else float("nan")
        record(name, metric, statistics.fmean(values), UNIT[metric])
        record(name, f"{metric}, sd over splits", spread, UNIT[metric])
        for split, value in zip(splits, values, strict=True):
            record(name, f"{metric}, split {split}", value, UNIT[metric])
        words.append(f"{metric} {statistics.fmean(values):.4f} ± {spread:.4f}")
    seconds = statistics.fmean(curve[-1]["CPU"] for curve in curves)
    record(name, "fit", seconds, "CPU s")
    say(f"{name:<40}{', '.join(words)}{seconds:>10.2f} s, {len(curves[0])} epochs, splits {splits[0]} to {splits[-1]}")


def record_curve(record: Record, splits: Sequence[int], curves: list[Curve], say) -> None:
    """The mean curve, and when it, and each split alone, holds both bounds."""
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
        say(f"MRR >= {LOWEST_MRR} and MSE <= {HIGHEST_MSE} in one epoch, {name}: {reached}")
