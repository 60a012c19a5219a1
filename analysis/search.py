"""Trials of settings from one of the spaces of spaces.py, on validation parts of train alone.

A trial is trained on the splits of several seeds and measured at its last epoch, as the chosen settings, which hold
nothing out, take their last epoch too. The baselines are measured on the same validation parts, fitted to the rows that
the trials train on. The test part is never read: no table has a figure of it, and it chooses nothing.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd

from analysis.configuration import VAL_FRACTION
from analysis.results import read_metrics
from analysis.runner import Log, Run, run_all
from analysis.samplers import Sampler
from analysis.spaces import Draw, Settings, Space
from analysis.tables import box, cell, markdown_rows, marked, percent
from config.base import RunConfig
from multitask.baselines import EASE_NAME, make_baselines
from registry import recipe_for

EFFECT_SEEDS = 3  # enough for effects of their size
BEST_SHOWN = 5
METRICS = ("val_mrr", "val_mse")
BEST = "best.json"
FILES = ("table.md", "trials.csv", "effects.csv", BEST)


@dataclass(frozen=True)
class Trials:
    """Where the trials of a search are run, and on what.

    space: of the settings.
    common: settings of every run: the data, and of a quick search the epochs.
    seeds: 0 to seeds - 1, each another split.
    root: folder of the runs. jobs: runs at a time.
    """

    space: Space
    common: Settings
    seeds: int
    root: Path
    jobs: int
    log: Log

    def config(self, settings: Settings, seed: int = 0) -> RunConfig:
        return self.space.config(settings, **self.common, val_fraction=VAL_FRACTION, seed=seed)

    def measure(self, settings: Sequence[Settings], seeds: int) -> list[pd.DataFrame]:
        """METRICS of every seed (the rows) for each of the settings."""
        runs = [
            Run(str(number), self.config(one, seed)) for number, one in enumerate(settings) for seed in range(seeds)
        ]
        measured = read_last_epochs(run_all(runs, self.root, self.jobs, self.log))
        return [measured.loc[str(number)] for number in range(len(settings))]


def run(trials: Trials, sampler: Sampler, count: int, folder: Path) -> list[Path]:
    """Run the trials, then the best one without each of its options; write FILES and return their paths."""
    baselines = measure_baselines([trials.config({}, seed) for seed in range(trials.seeds)])
    space, to_beat = trials.space, bounds(baselines)
    draws, lines = find(trials, sampler, count, to_beat)
    ranked = sorted(lines, key=lambda line: -line["lead"])  # of equal ones the first stays first: the defaults
    best = draws[ranked[0]["trial"] - 1]
    effects = without_each(trials, best)
    num_seeds = min(trials.seeds, EFFECT_SEEDS)
    measured = trials.measure(list(effects.values()), num_seeds)
    to_beat = bounds({name: values.iloc[:num_seeds] for name, values in baselines.items()})
    compared = [
        {"without": name} | describe(trials, settings, values, to_beat)
        for (name, settings), values in zip(effects.items(), measured, strict=True)
    ]
    data = recipe_for(trials.config({})).load_data(trials.config({}))
    head = [*box(data.simulated), f"{marked(data.name, data.simulated)}: {caption(trials, len(lines), sampler)}", ""]
    paths = [folder / name for name in FILES]
    table = tabulate(ranked, baselines, compared, space.lead_means)
    paths[0].write_text("\n".join([*head, *table]) + "\n", encoding="utf-8")
    write_csv(paths[1], ranked)
    write_csv(paths[2], compared)
    paths[3].write_text(json.dumps(as_settings(trials.config(space.settings(best))), indent=2) + "\n", encoding="utf-8")
    return paths


def find(trials: Trials, sampler: Sampler, count: int, to_beat: tuple[float, float]) -> tuple[list[Draw], list[dict]]:
    """The draws of the trials, and a line for each: the starts of the space, then what the sampler asks for.

    No two trials have the same config. There are fewer than `count` where the sampler finds no further one.
    """
    space = trials.space
    draws: list[Draw] = []
    lines: list[dict] = []
    waiting = list(space.starts[:count])
    while waiting:
        settings = [space.settings(draw) for draw in waiting]
        for draw, one, values in zip(waiting, settings, trials.measure(settings, trials.seeds), strict=True):
            draws.append(draw)
            lines.append({"trial": len(draws)} | describe(trials, one, values, to_beat))
            sampler.tell(draw, trials.config(one), lines[-1]["lead"])
        known = {trials.config(space.settings(draw)) for draw in draws}
        waiting = sampler.ask(lambda draw: trials.config(space.settings(draw)), known)[: count - len(draws)]
    return draws, lines


def without_each(trials: Trials, draw: Draw) -> dict[str, Settings]:
    """The effects of the space, without those of options that are at their defaults already."""
    found = trials.space.effects(draw)
    chosen = trials.config(found["nothing"])
    return {name: one for name, one in found.items() if name == "nothing" or trials.config(one) != chosen}


def read_last_epochs(results: Sequence[Mapping]) -> pd.DataFrame:
    """METRICS at the last epoch of every run, indexed by (row, seed). Other columns of metrics.csv are not read."""
    rows = {
        (result["row"], result["seed"]): read_metrics(Path(result["folder"]), METRICS).iloc[-1] for result in results
    }
    return pd.DataFrame(rows).T[list(METRICS)]


def measure_baselines(configs: Sequence[RunConfig]) -> dict[str, pd.DataFrame]:
    """{baseline: METRICS on the validation part of every config}; nan for what a baseline does not do.

    They are fitted to the training rows, which are those of the trials: train without test and validation part.
    """
    found: dict[str, list] = {}
    for config in configs:
        data = recipe_for(config).load_data(config)
        for name, baseline in make_baselines(data.train).items():
            measured = baseline.metrics(data.validation, data.train)
            found.setdefault(name, []).append({metric: measured.get(metric.removeprefix("val_")) for metric in METRICS})
    return {name: pd.DataFrame(rows, dtype=float) for name, rows in found.items()}


def bounds(baselines: Mapping[str, pd.DataFrame]) -> tuple[float, float]:
    """What a trial is measured against, means over the seeds: the MRR of EASE and the MSE of the biases.

    Where EASE is left out, the MRR is that of popularity.
    """
    ranking = baselines.get(EASE_NAME, baselines["popularity"])
    return ranking["val_mrr"].mean(), baselines["user + item biases"]["val_mse"].mean()


def describe(trials: Trials, settings: Settings, values: pd.DataFrame, to_beat: tuple[float, float]) -> dict:
    """A line of trials.csv: settings, means and standard deviations over seeds, and leads.

    mrr_lead, mse_lead: MRR minus that of the baseline, and the baseline's MSE minus MSE. lead: see `Space.lead`.
    """
    config = trials.config(settings)
    shown = {name: getattr(config, name) for name in trials.space.shown}
    line = {name: " ".join(map(str, value)) if isinstance(value, tuple) else value for name, value in shown.items()}
    (mrr, mse), (mrr_sd, mse_sd) = values.mean()[[*METRICS]], values.std()[[*METRICS]]
    numbers = {"val_mrr": mrr, "val_mse": mse, "val_mrr_sd": mrr_sd, "val_mse_sd": mse_sd}
    numbers |= {"mrr_lead": mrr - to_beat[0], "mse_lead": to_beat[1] - mse}
    numbers["lead"] = trials.space.lead(mrr, mse, to_beat)
    return line | {"seeds": len(values)} | {name: round(float(value), 5) for name, value in numbers.items()}


def as_settings(config: RunConfig) -> dict[str, object]:
    """The settings of a trial for main.py --config: what differs from the defaults, without the validation part.

    Files and folders have absolute paths.
    """
    values = {
        field.name: getattr(config, field.name)
        for field in fields(config)
        if field.name != "val_fraction" and getattr(config, field.name) != field.default
    }
    values |= {name: str(Path(values[name]).resolve()) for name in (*config.own_files, "data_dir") if name in values}
    return {"model": config.model} | values


def caption(trials: Trials, count: int, sampler: Sampler) -> str:
    """What was done, in one line."""
    numbers = {"trial": count, "seed": trials.seeds}
    tried, seeds = (f"{number} {noun}{'' if number == 1 else 's'}" for noun, number in numbers.items())
    return (
        f"--model {trials.space.model}, {tried} ({sampler.name}), {seeds}, each another split; last epoch, on a "
        f"validation part of {percent(VAL_FRACTION)} of the training ratings."
    )


def tabulate(
    ranked: Sequence[dict], baselines: Mapping[str, pd.DataFrame], compared: Sequence[dict], lead_means: str
) -> list[str]:
    """The best trials beside the defaults and the baselines, then the effects: Markdown lines."""
    default = next(line for line in ranked if line["trial"] == 1)
    shown = ranked[:BEST_SHOWN]
    rows = [_row(f"trial {line['trial']}", line, default) for line in shown]
    if default in shown:
        rows[shown.index(default)][0] += ", the first"
    else:
        rows.append(_row("trial 1, the first", default, default))
    rows += [
        [f"*{name}*", *(cell(values[metric].mean(), values[metric].std()) for metric in METRICS), "", ""]
        for name, values in baselines.items()
    ]
    titles = ("", "validation MRR", "validation MSE", "lead", "other than in trial 1")
    effects = [_row(line["without"], line, compared[0])[:4] for line in compared]
    return [
        *markdown_rows(titles, rows),
        "",
        f"Mean ± standard deviation over seeds. Lead: {lead_means}. In italics: baselines, fitted to the same training "
        "ratings. The best of many trials looks better on the parts that it was chosen on than on others: measure it "
        "on the test part once, with `python main.py --config best.json`.",
        "",
        *markdown_rows(("the best, without", "validation MRR", "validation MSE", "lead"), effects),
    ]


def _row(name: str, line: Mapping, default: Mapping) -> list[str]:
    """The cells of one trial; the last names the settings in which it differs from the first trial."""
    metrics = [cell(line[metric], line[f"{metric}_sd"]) for metric in METRICS]
    settings = list(line)[1 : list(line).index("seeds")]
    changed = [f"{key} {line[key]}" for key in settings if line[key] != default[key]]
    return [name, *metrics, f"{line['lead']:+.4f}", ", ".join(changed)]


def write_csv(path: Path, lines: Sequence[dict]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
