"""What a run prints before and after training: its size, tables of metrics and baselines, and what to type next."""

import math
import shlex
from collections.abc import Mapping
from pathlib import Path

import torch

from config.base import RunConfig
from training.loop import Outcome
from training.protocols import Baselines, Row, RunData, Task, Training
from training.terminal import Marked, blocks, copyable, cut, display_width, left, right, wrap

ONCE = ("reading", "baselines")  # what takes time once a run, not once an epoch
BOX = """\
+--------------------------------------------------------------------------------------+
|  SIMULATED DATA.  These are not MovieLens ratings: the program made them up.         |
|  Their figures show how the program behaves and say nothing about MovieLens.         |
+--------------------------------------------------------------------------------------+"""


def header(
    training: Training,
    data: RunData,
    config: RunConfig,
    device: torch.device,
    num_processes: int,
    path: Path,
    width: int | None = None,
) -> list[str]:
    """What a run prints before its first epoch, on a terminal of this width."""
    lines: list[str] = [simulated_box(width)] if data.simulated else []
    lines += [f"note: {note}" for note in (*data.notes, *training.notes)]
    threads = "1 thread" if config.threads == 1 else f"{config.threads} threads"
    processes = f", {num_processes} processes" if num_processes > 1 else ""
    parameters = sum(parameter.numel() for parameter in training.model.parameters())
    lines.append(repr(data))
    lines.append(f"{parameters:,} parameters, {device}, {threads}{processes}, run folder {path}")
    return lines


def simulated_box(width: int | None = None) -> Marked:
    """The box that announces simulated data, on a terminal of this width."""
    edge, *said, _ = BOX.split("\n")
    if width is None or width >= len(edge):
        return Marked(BOX, "warning")
    inner = width - 6
    edge = f"+{'-' * (width - 2)}+"
    lines = [part for line in said for part in wrap(line.strip("| "), inner).split("\n")]
    return Marked("\n".join([edge, *(f"|  {line:<{inner}}  |" for line in lines), edge]), "warning")


def report(outcome: Outcome, task: Task, path: Path, config: RunConfig, width: int | None = None) -> list[str]:
    """What a run prints at its end, on a terminal of this width: tables, how the run ended, and what to type next."""
    data, history = task.data, outcome.history
    lines: list[str] = ["", simulated_box(width)] if data.simulated else [""]
    if history:
        lines += metric_table(history, outcome.best_epoch, task.directions, width)
        lines.append(_choice_note(outcome.best_epoch))
        row = history[(outcome.best_epoch or 0) - 1]
        lines += baseline_table(row, task, config.model, outcome.baselines, width)
        lines += shortfalls(row, task, config.model, outcome.baselines)
    lines.append(f"{outcome.ending} after {len(history)} of {config.epochs} epochs; everything about it is in {path}")
    return lines + _commands(outcome, data, path, width)


def _commands(outcome: Outcome, data: RunData, path: Path, width: int | None) -> list[str]:
    """What to type next, as lines that can be copied."""
    folder, history = shlex.quote(str(path)), outcome.history
    resume = ["python", "main.py", "--resume", folder]
    lines = []
    if outcome.ending == "stopped early" and not outcome.epochs_run:
        best = outcome.best_epoch or 0
        lines.append(
            f"nothing was trained: {outcome.monitored} has not improved since epoch {best}, and --patience is spent; a "
            "larger one goes on"
        )
        lines.append(copyable("go on:   ", [*resume, "--patience", str(len(history) - best + 10)], width))
    if outcome.ending == "interrupted":
        lines.append(copyable("go on:   ", resume, width))
    if history:
        question = f"--recommend={shlex.quote(data.users[0])}"
        lines.append(copyable("ask it:  ", ["python", "main.py", question, "--logdir", folder], width))
    curves = ["tensorboard", "--logdir", shlex.quote(str(path.parent))]
    return [*lines, copyable("curves:  ", curves, width)]


def _choice_note(best_epoch: int | None) -> str:
    """What the columns of the metric table are for."""
    if best_epoch:
        note = f"chosen: epoch {best_epoch}, by the validation part; these test figures are for reporting"
        return Marked(note, "good")
    return "best: over all epochs, seen on the test set; it is for reading the curves, not for reporting"


def metric_table(
    history: list[dict[str, float]], chosen: int | None, directions: Mapping[str, int], width: int | None = None
) -> list[str]:
    """Every loss and metric: its last and its best value, and its value at the chosen epoch where there is one.

    Nothing is best of what should be neither high nor low. A terminal too narrow for the width of all columns lacks the
    epoch of the best value, then the best value.
    """
    names = {column: " ".join(column.split("_", 1)) for column in list(history[-1])[1:]}
    start = max(24, *(display_width(name) + 2 for name in names.values()))
    titles = ["last", "best", "at epoch", *(["chosen"] if chosen else [])]
    rows = [titles, *(_summary(column, history, chosen, directions) for column in names)]
    for spare in ("at epoch", "best"):
        if width is not None and start + 10 * len(titles) > width:
            rows = [[cell for title, cell in zip(titles, row, strict=True) if title != spare] for row in rows]
            titles = rows[0]
    if width is not None:
        start = min(start, width - 10 * len(titles))
    lines = zip(["", *names.values()], rows, strict=True)
    return [left(cut(name, start), start) + "".join(f"{cell:>10}" for cell in row) for name, row in lines]


def _summary(
    column: str, history: list[dict[str, float]], chosen: int | None, directions: Mapping[str, int]
) -> list[str]:
    """The cells of a column of the history: its last value, its best one with its epoch, and that of a chosen epoch."""
    part, _, name = column.partition("_")
    direction = directions.get(name, 0) if part != "train" else -1
    values = [row[column] for row in history]
    cells = [_number(values[-1]), "-", "-"]
    if direction:
        best = max(range(len(values)), key=lambda epoch: _or_least(direction * values[epoch]))
        cells[1:] = [_number(values[best]), str(best + 1)]
    return [*cells, _number(values[chosen - 1])] if chosen else cells


def _number(value: float) -> str:
    """Four decimals; a number too long for its column as 2.64e+13."""
    text = f"{value:.4f}"
    return text if len(text) < 10 else f"{value:.2e}"


def baseline_table(row: Row, task: Task, model: str, baselines: Baselines, width: int | None = None) -> list[str]:
    """The test metrics of one epoch beside those of the baselines, the best of a column marked; none: no lines.

    Columns that do not fit the width of a terminal follow below.
    """
    if not baselines:
        return []
    network = {name: row[f"test_{name}"] for name in task.directions}
    rows = {f"{model}, epoch {row['epoch']}": network} | baselines
    columns = [_column(metric, task.directions[metric], rows) for metric in task.compared]
    start = 2 + max(len(name) for name in rows)
    names = [left(name, start) for name in ("test part, beside", *rows)]
    notes = (f"note: {note}" for note in task.baseline_notes)
    return ["", *blocks([names, *columns], width), "* best of its column", *notes, ""]


def _column(metric: str, direction: int, rows: Mapping[str, Row]) -> list[str]:
    """The cells of a column, all equally wide: its title, then the value of every row."""
    texts = [f"{row[metric]:.4f}" if metric in row else "n/a" for row in rows.values()]
    best = max(_or_least(direction * row[metric]) for row in rows.values() if metric in row)
    is_best = [bool(direction) and metric in row and direction * row[metric] == best for row in rows.values()]
    marked = [text + ("*" if best else " ") for text, best in zip(texts, is_best, strict=True)]
    cells = [metric.replace("_", " ") + " ", *marked]
    return [right(cell, 1 + max(map(display_width, cells))) for cell in cells]


def shortfalls(row: Row, task: Task, model: str, baselines: Baselines) -> list[str]:
    """A line for each metric of `task.advice` in which baselines are better than the network, with advice.

    The best of them comes first. Differences that the table does not show do not count.
    """
    lines = []
    for metric, advice in task.advice.items():
        leads = {
            name: task.directions[metric] * (values.get(metric, math.nan) - row[f"test_{metric}"])
            for name, values in baselines.items()
        }
        better = sorted((name for name in leads if leads[name] >= 0.00005), key=lambda name: -leads[name])
        if better:
            best, *others = better
            lines.append(f"{best} beats {model} by {leads[best]:.4f} in {metric}{_as_do(others)}: try {advice}")
    return [*lines, ""] if lines else []


def _as_do(others: list[str]) -> str:
    """ ", as do popularity and item mean"."""
    if not others:
        return ""
    *first, last = others
    return f", as {'do' if first else 'does'} {', '.join(first)}{' and ' if first else ''}{last}"


def profile(seconds: dict[str, float], epochs: int) -> str:
    """Where the time of this session went; importing PyTorch is not in it."""
    lines = ["", f"{'seconds':<24}{'in all':>10}{'an epoch':>10}"]
    for name, spent in seconds.items():
        lines.append(f"{name:<24}{spent:>10.3f}" + (f"{spent / epochs:>10.3f}" if name not in ONCE and epochs else ""))
    return "\n".join(lines)


def _or_least(value: float) -> float:
    return -math.inf if math.isnan(value) else value
