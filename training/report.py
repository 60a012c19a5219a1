"""What a run prints before and after training: its size, tables of metrics and baselines, and what to type next."""

import math
import shlex
from collections.abc import Mapping
from pathlib import Path

import torch

from config.base import RunConfig
from training.loop import Outcome
from training.protocols import Baselines, Row, RunData, Task, Training

ONCE = ("reading", "baselines")  # what takes time once a run, not once an epoch
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
        lines.append(_choice_note(outcome.best_epoch))
        row = history[(outcome.best_epoch or 0) - 1]
        lines += baseline_table(row, task, config.model, outcome.baselines)
        lines += shortfalls(row, task, config.model, outcome.baselines)
    lines.append(f"{outcome.ending} after {len(history)} of {config.epochs} epochs; everything about it is in {path}")
    if outcome.ending == "stopped early" and not outcome.epochs_run:
        lines.append(
            f"nothing was trained: {outcome.monitored} has not improved since epoch {outcome.best_epoch or 0}, and "
            f"--patience is spent; a larger one goes on: python main.py --resume {folder} --patience "
            f"{len(history) - (outcome.best_epoch or 0) + 10}"
        )
    if outcome.ending == "interrupted":
        lines.append(f"go on:   python main.py --resume {folder}")
    if history:
        lines.append(f"ask it:  python main.py --recommend={shlex.quote(data.users[0])} --logdir {folder}")
    lines.append(f"curves:  tensorboard --logdir {shlex.quote(str(path.parent))}")
    return "\n".join(lines)


def _choice_note(best_epoch: int | None) -> str:
    """What the columns of the metric table are for."""
    if best_epoch:
        return f"chosen: epoch {best_epoch}, by the validation part; these test figures are for reporting"
    return "best: over all epochs, seen on the test set; it is for reading the curves, not for reporting"


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


def baseline_table(row: Row, task: Task, model: str, baselines: Baselines) -> list[str]:
    """The test metrics of one epoch beside those of the baselines, the best of a column marked; none: no lines."""
    if not baselines:
        return []
    network = {name: row[f"test_{name}"] for name in task.directions}
    rows = {f"{model}, epoch {row['epoch']}": network} | baselines
    columns = [_column(metric, task.directions[metric], rows) for metric in task.compared]
    width = 2 + max(len(name) for name in rows)
    lines = [""]
    for name, *cells in zip(["test part, beside", *rows], *columns, strict=True):
        lines.append(f"{name:<{width}}{''.join(cells)}".rstrip())
    return [*lines, "* best of its column", *(f"note: {note}" for note in task.baseline_notes), ""]


def _column(metric: str, direction: int, rows: Mapping[str, Row]) -> list[str]:
    """The cells of a column, all equally wide: its title, then the value of every row."""
    texts = [f"{row[metric]:.4f}" if metric in row else "n/a" for row in rows.values()]
    best = max(_or_least(direction * row[metric]) for row in rows.values() if metric in row)
    is_best = [bool(direction) and metric in row and direction * row[metric] == best for row in rows.values()]
    marked = [text + ("*" if best else " ") for text, best in zip(texts, is_best, strict=True)]
    cells = [metric.replace("_", " ") + " ", *marked]
    return [cell.rjust(1 + max(map(len, cells))) for cell in cells]


def shortfalls(row: Row, task: Task, model: str, baselines: Baselines) -> list[str]:
    """A line for each metric of `task.advice` and each baseline that is better in it than the network, with advice.

    Differences that the table does not show do not count.
    """
    lines = []
    for metric, advice in task.advice.items():
        for name, values in baselines.items():
            lead = task.directions[metric] * (values.get(metric, math.nan) - row[f"test_{metric}"])
            if lead >= 0.00005:
                lines.append(f"{name} beats {model} by {lead:.4f} in {metric}: try {advice}")
    return [*lines, ""] if lines else []


def profile(seconds: dict[str, float], epochs: int) -> str:
    """Where the time of this session went; importing PyTorch is not in it."""
    lines = ["", f"{'seconds':<24}{'in all':>10}{'an epoch':>10}"]
    for name, spent in seconds.items():
        lines.append(f"{name:<24}{spent:>10.3f}" + (f"{spent / epochs:>10.3f}" if name not in ONCE and epochs else ""))
    return "\n".join(lines)


def _or_least(value: float) -> float:
    return -math.inf if math.isnan(value) else value
