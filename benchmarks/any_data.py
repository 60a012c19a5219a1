"""The network beside tuned peers on any ratings: data sets by name, and files of one's own.

The peers and their grids are those of benchmarks/tuned.py. Their settings are chosen on the validation part that the
network decides on as well: 5 % of the training rows, drawn from the seed of the split. Then they are fitted to all
training rows. The test part is read for the table alone, and evaluation.py measures everything.

A named data set or one file is split at random, 95/5, with the seeds SPLITS; a ready split is one split.
"""

import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from analysis.tables import cell, marked
from benchmarks.peers import missing
from benchmarks.quality import SPLITS, UNIT, fit_peer, train
from benchmarks.results import Record, record_simulated
from benchmarks.timing import cpu_seconds
from benchmarks.tuned import TUNED, TunedPeer, choose
from config.base import RunConfig
from config.errors import UserError
from dataset import Data
from multitask.decisions import cut_validation
from registry import recipe_for
from sources.download import Unreachable
from training.console import log, silent
from training.report import simulated_box
from training.terminal import blocks, terminal_width

DIRECTIONS = {"MRR": +1, "MSE": -1, "RMSE": -1}
SECONDS = {"choosing": "CPU s to choose", "fit": "CPU s to fit", "sum": "CPU s in all"}
NETWORK = "ours"


@dataclass(frozen=True)
class Result:
    """One method on one split.

    values: its metrics on the test part, by the names of DIRECTIONS, and the CPU seconds, by those of SECONDS.
    choice: the settings chosen, in words.
    """

    values: dict[str, float]
    choice: str = ""


Results = dict[str, list[Result]]  # per method: a result for every split


def measure_any(
    record: Record, configs: Sequence[RunConfig], peers: Sequence[TunedPeer] = TUNED, splits: Sequence[int] = SPLITS
) -> None:
    """Measure the network and every installed peer on each data set; print a table per data set.

    Args:
        configs: of the network, one per data set. Data sets that are out of reach are left out.

    Raises:
        UserError: no data set is left, or one cannot be used.
    """
    absent = missing(peers)
    for package, reason in absent.items():
        left_out = ", ".join(peer.name for peer in peers if peer.package == package)
        log(f"{package} is missing ({reason}): without {left_out}")
    present = [peer for peer in peers if peer.package not in absent]
    loaded = [(config, data) for config in configs if (data := _load(config, splits))]
    if not loaded:
        raise UserError("no data set is left to measure on: pass the place of one as --data_dir, or give --ratings")
    for config, data in loaded:
        _measure(record, config, data, present)


def _load(config: RunConfig, splits: Sequence[int]) -> dict[int, Data]:
    """The data of every split; {} where the data set is out of reach, which is said."""
    seeds = splits if config.train_ratings is None else splits[:1]
    try:
        data = {seed: recipe_for(config).load_data(replace(config, seed=seed)) for seed in seeds}
    except Unreachable as reason:
        log(f"without {config.dataset}: {reason}")
        return {}
    file = config.ratings or config.train_ratings
    name = "/".join(Path(file).parts[-2:]) if file else config.dataset  # short, for tables and pictures
    return {seed: replace(found, name=name) for seed, found in data.items()}


def _measure(record: Record, config: RunConfig, data: Mapping[int, Data], peers: Sequence[TunedPeer]) -> None:
    first = next(iter(data.values()))
    width = terminal_width(sys.stdout)
    log(caption(data, width))
    cells = len(first.users) * len(first.items)
    results: Results = {NETWORK: [measure_network(replace(config, seed=seed), data[seed]) for seed in data]}
    for peer in peers:
        if cells <= peer.max_cells:
            results[peer.name] = [measure_peer(peer, data[seed], seed) for seed in data]
        else:
            log(f"without {peer.name}: it has room for {peer.max_cells:,} pairs of a user and an item, not {cells:,}")
    log(*table(results, width))
    leads = find_leads(results)
    log("\n".join([*describe(leads, data), *choices(results)]))
    record_simulated(record, first.name, first.simulated)
    _record(record, first.name, list(data), results, leads)


def measure_network(config: RunConfig, data: Data) -> Result:
    """Decide, train and measure after the last epoch."""
    start = cpu_seconds()
    decided = recipe_for(config).resolve(config, data, silent)
    seconds = cpu_seconds() - start
    last = train(decided, data)[-1]
    changed = {name: value for name, value in decided.to_dict().items() if value != config.to_dict()[name]}
    return Result(_values("MSE", last["MSE"], seconds, last["CPU"]) | {"MRR": last["MRR"]}, in_words(changed))


def measure_peer(peer: TunedPeer, data: Data, seed: int) -> Result:
    """Choose settings on the validation part that the network of this seed decides on, and fit all training rows.

    A peer whose fit diverges has the metric nan.
    """
    start = cpu_seconds()
    settings = choose(peer, cut_validation(data, seed), f"{data.name}, split {seed}: {peer.name}")
    seconds = cpu_seconds() - start
    try:
        value, fit_seconds = fit_peer(peer.at(settings), data)
    except FloatingPointError:
        value = fit_seconds = math.nan
    metric = "MSE" if peer.task == "rating" else "MRR"
    return Result(_values(metric, value, seconds, fit_seconds), in_words(settings))


def _values(metric: str, value: float, choosing: float, fit: float) -> dict[str, float]:
    root = {"RMSE": math.sqrt(value)} if metric == "MSE" else {}
    return {metric: value} | root | {"choosing": choosing, "fit": fit, "sum": choosing + fit}


def in_words(settings: Mapping[str, float | str]) -> str:
    return ", ".join(f"{name} {value if isinstance(value, str) else f'{value:g}'}" for name, value in settings.items())


def caption(data: Mapping[int, Data], width: int | None = None) -> str:
    """The data set, its sizes, and what its test part holds that no method can know; width: of the terminal."""
    first = next(iter(data.values()))
    lines = ["", f"{marked(first.name, first.simulated)}: {len(first.users):,} users x {len(first.items):,} items, "]
    lines[-1] += f"{len(first.seen):,} train and {len(first.test):,} test rows"
    if len(data) > 1:
        lines[-1] += f"; mean ± sd over the random splits of seeds {', '.join(map(str, data))}"
    if first.simulated:
        lines[:1] = ["", simulated_box(width)]
    lines += [f"note: {note}" for note in first.notes]
    unknown = [count_unknown(part) for part in data.values()]
    if any(unknown):
        counts = ", ".join(f"{count:,}" for count in unknown)
        lines.append(f"note: {counts} test rows have a user or item without a training row; they count for all methods")
    return "\n".join(lines)


def count_unknown(data: Data) -> int:
    """Test rows whose user or item has no training row."""
    users, items = data.seen.offsets.diff() > 0, data.seen.item_counts > 0
    return int((~(users[data.test.user_ids.long()] & items[data.test.item_ids.long()])).sum())


def table(results: Results, width: int | None = None) -> list[str]:
    """A line per method: mean and standard deviation of each metric, and mean seconds; see `blocks` for the width."""
    titles = [*DIRECTIONS, *SECONDS.values()]
    rows = [["", *titles]]
    for name, found in results.items():
        cells = [_cell([result.values[metric] for result in found if metric in result.values]) for metric in DIRECTIONS]
        cells += [f"{statistics.fmean(result.values[name] for result in found):.2f}" for name in SECONDS]
        rows.append([name, *cells])
    names, *columns = zip(*rows, strict=True)
    aligned = ([f"{text:>17}" for text in column] for column in columns)
    return blocks([[f"{name:<22}" for name in names], *aligned], width)


def _cell(values: Sequence[float]) -> str:
    return cell(statistics.fmean(values), deviation(values)) if values else ""


def deviation(values: Sequence[float]) -> float:
    """The standard deviation with divisor n - 1; nan of one value, and of a fit that diverged."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


@dataclass(frozen=True)
class Lead:
    """What the network is better by than the best peer in a metric, on each split; positive is better."""

    metric: str
    peer: str
    values: list[float]
    percent: float  # of the means


def find_leads(results: Results) -> list[Lead]:
    """For each metric that a peer has: the lead over the peer with the best mean on the test part."""
    leads = []
    for metric, direction in DIRECTIONS.items():
        columns = {
            name: [result.values[metric] for result in found]
            for name, found in results.items()
            if all(math.isfinite(result.values.get(metric, math.nan)) for result in found)
        }
        ours = columns.pop(NETWORK, [])
        if ours and columns:
            best = max(columns, key=lambda name: direction * statistics.fmean(columns[name]))
            values = [direction * (own - other) for own, other in zip(ours, columns[best], strict=True)]
            percent = 100 * statistics.fmean(values) / statistics.fmean(columns[best])
            leads.append(Lead(metric, best, values, percent))
    return leads


def describe(leads: Sequence[Lead], data: Mapping[int, Data]) -> list[str]:
    """A line per lead, its values paired by split."""
    lines = []
    for lead in leads:
        line = f"{lead.metric}: {NETWORK} beats the best peer, {lead.peer}, by "
        if statistics.fmean(lead.values) < 0:
            line = f"{lead.metric}: {NETWORK} is behind the best peer, {lead.peer}, by "
        size = math.copysign(1, statistics.fmean(lead.values))
        line += cell(size * statistics.fmean(lead.values), deviation(lead.values)) + f" ({abs(lead.percent):.1f} %)"
        if len(data) > 1:
            line += "; by split, + is better: " + ", ".join(f"{value:+.4f}" for value in lead.values)
        lines.append(line)
    return lines


def choices(results: Results) -> list[str]:
    """A line per method that had something to choose: its settings on every split."""
    return [
        f"chosen, {name}: " + "; ".join(result.choice for result in found)
        for name, found in results.items()
        if any(result.choice for result in found)
    ]


def _record(record: Record, name: str, splits: Sequence[int], results: Results, leads: Sequence[Lead]) -> None:
    """Means, standard deviations and single splits; the name of a row begins with that of the data set."""
    for method, found in results.items():
        for metric in found[0].values:
            values = [result.values[metric] for result in found]
            title, unit = SECONDS.get(metric, metric), "CPU s" if metric in SECONDS else UNIT.get(metric, "points")
            record(f"{name}: {method}", title, statistics.fmean(values), unit)
            record(f"{name}: {method}", f"{title}, sd over splits", deviation(values), unit)
            for split, value in zip(splits, values, strict=True):
                record(f"{name}: {method}", f"{title}, split {split}", value, unit)
    for lead in leads:
        record(name, f"lead in {lead.metric}", lead.percent, "%")
