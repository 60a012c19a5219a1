"""What a run prints before and after training: its size, tables of metrics and baselines, and what to type next."""

import math
import shlex
from collections.abc import Mapping
from pathlib import Path

import torch

from config.base import RunConfig
from training.loop import Outcome
from training.protocols import RunData, Task, Training

BOX = """\
+--------------------------------------------------------------------------------------+
|  SIMULATED DATA.  These are not MovieLens ratings: the program made them up.         |
|  Their figures show how the program behaves and say nothing about MovieLens.         |
+--------------------------------------------------------------------------------------+"""


def header(
    training: Training, data: RunData, config: RunConfig, device: torch.device, num_processes: int, path: Path
) -> str:
    """What a run prints before its first epoch."""
    lines = [BOX] if data.simulated else []
    lines += [f"note: {note}" for note in (*data.notes, *training.notes)]
    threads = "1 thread" if config.threads == 1 else f"{config.threads} threads"
    processes = f", {num_processes} processes" if num_processes > 1 else ""
    parameters = sum(parameter.numel() for parameter in training.model.parameters())
    lines.append(repr(data))
    lines.append(f"{parameters:,} parameters, {device}, {threads}{processes}, run folder {path}")
    return "\n".join(lines)


def report(outcome: Outcome, task: Task, path: Path, config: RunConfig) -> str:
    """What a run prints at its end: the table of metrics, how the run ended, and what to type next."""
    data, history = task.data, outcome.history
    folder = shlex.quote(str(path))
    lines = ["", BOX] if data.simulated else [""]
    if history:
        lines += metric_table(history, outcome.best_epoch, task.directions)
        lines += baseline_table(history[(outcome.best_epoch or 0) - 1], task, config.model)
        if outcome.best_epoch:
            lines.append(
                f"chosen: epoch {outcome.best_epoch}, by the validation part; these test figures are for reporting"
            )
        else:
            lines.append("best: over all epochs, seen on the test set; it is for reading the curves, not for reporting")
    lines.append(f"{outcome.ending} after {len(history)} of {config.epochs} epochs; everything about it is in {path}")
    if outcome.ending == "stopped early" and not outcome.epochs_run:
        lines.append(
            f"nothing was trained: {outcome.monitored} has not improved since epoch {outcome.best_epoch or 0}, and "
            f"--patience is spent; a larger one goes on: python main.py --resume {folder} --patience "
            f"{len(history) - (outcome.best_epoch or 0) + 10}"
        )
    if outcome.ending == "interrupted":
        lines.append(f"go on:   python main.py --resume {folder}")
    if history and task.can_recommend:
        lines.append(f"ask it:  python main.py --recommend={shlex.quote(data.users[0])} --logdir {folder}")
    lines.append(f"curves:  tensorboard --logdir {shlex.quote(str(path.parent))}")
    return "\n".join(lines)


def metric_table(history: list[dict[str, float]], chosen: int | None, directions: Mapping[str, int]) -> list[str]:
    """Every loss and metric: its last and its best value, and its value at the chosen epoch where there is one.

    Nothing is best of what should be neither high nor low.
    """
    names = {column: " ".join(column.split("_", 1)) for column in list(history[-1])[1:]}
    width = max(24, *(len(name) + 2 for name in names.values()))
    lines = [f"{'':<{width}}{'last':>10}{'best':>10}{'at epoch':>10}" + (f"{'chosen':>10}" if chosen else "")]
    for column, words in names.items():
        part, _, name = column.partition("_")
        direction = directions.get(name, 0) if part != "train" else -1
        values = [row[column] for row in history]
        line = f"{words:<{width}}{values[-1]:>10.4f}"
        if direction:
            best = max(range(len(values)), key=lambda epoch: _or_least(direction * values[epoch]))
            line += f"{values[best]:>10.4f}{best + 1:>10}"
        else:
            line += f"{'-':>10}{'-':>10}"
        lines.append(line + (f"{values[chosen - 1]:>10.4f}" if chosen else ""))
    return lines


def baseline_table(row: dict[str, float], task, model: str) -> list[str]:
    """The test metrics of one epoch beside those of predictions that know nothing personal; none: no lines."""
    baselines = {name: task.metrics(baseline, "test") for name, baseline in task.baselines().items()}
    if not baselines:
        return []
    network = {name: row[f"test_{name}"] for name in task.directions}
    rows = {f"{model}, epoch {row['epoch']}": network} | baselines
    width = 2 + max(len(name) for name in rows)
    cells = [[f"{values[metric]:.4f}" for metric in task.compared] for values in rows.values()]
    titles = [metric.replace("_", " ") for metric in task.compared]
    widths = [2 + max(map(len, column)) for column in zip(titles, *cells, strict=True)]
    lines = ["", f"{'test part, beside':<{width}}" + "".join(map(str.rjust, titles, widths))]
    lines += [
        f"{name:<{width}}" + "".join(map(str.rjust, line, widths)) for name, line in zip(rows, cells, strict=True)
    ]
    return [*lines, ""]


def profile(seconds: dict[str, float], epochs: int) -> str:
    """Where the time of this session went; importing PyTorch is not in it."""
    lines = ["", f"{'seconds':<24}{'in all':>10}{'an epoch':>10}"]
    for name, spent in seconds.items():
        lines.append(f"{name:<24}{spent:>10.3f}" + (f"{spent / epochs:>10.3f}" if name != "reading" and epochs else ""))
    return "\n".join(lines)


def _or_least(value: float) -> float:
    return -math.inf if math.isnan(value) else value
