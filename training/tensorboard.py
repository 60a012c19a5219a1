"""What a run shows in TensorBoard: curves, settings beside final metrics (HPARAMS), item embeddings (PROJECTOR)."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields

import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from config.base import RunConfig
from training.protocols import Baselines, Row, Task

MAX_PROJECTOR_WIDTH = 128  # columns of the item tables in PROJECTOR: wider ones take seconds to write and to open


@contextmanager
def without_tracebacks_of_the_writer() -> Iterator[None]:
    """Leave a full disk to the main thread: TensorBoard's writing thread prints what the next call raises again."""
    show = threading.excepthook
    threading.excepthook = lambda error: None if issubclass(error.exc_type, OSError) else show(error)
    try:
        yield
    finally:
        threading.excepthook = show


def draw_charts(writer: SummaryWriter, task: Task, baselines: Baselines) -> None:
    """Charts for the CUSTOM SCALARS page: each compared metric of the network with those of the baselines."""
    charts = {}
    for metric, values in _by_metric(task, baselines).items():
        tags = [task.tags[f"test_{metric}"], *values]
        charts[task.tags[f"test_{metric}"].split("/", 1)[1]] = ["Multiline", [f"{re.escape(tag)}$" for tag in tags]]
    if charts:
        writer.add_custom_scalars({"test part, beside the baselines": charts})


def draw_epoch(writer: SummaryWriter, task: Task, model: nn.Module, row: Row, baselines: Baselines) -> None:
    """Draw one row of the history, the diagnostics of the task, and the baselines, which are the same in every epoch.

    A point of the baselines in every epoch makes a line as long as the curves while the run is going on, and a resumed
    run drops and repeats them like all others.
    """
    points = {_tag(column, task): value for column, value in row.items() if column != "epoch"}
    for lines in _by_metric(task, baselines).values():
        points |= lines
    for tag, value in (points | task.diagnostics(model)).items():
        writer.add_scalar(tag, value, row["epoch"])
    writer.flush()  # before the checkpoint: a resumed run drops points after its checkpoint and never misses one before


def draw_summary(
    writer: SummaryWriter, task: Task, model: nn.Module, config: RunConfig, row: Row, is_best: bool
) -> None:
    """Settings beside final metrics, and the item embeddings with titles and genres."""
    flat = {name: value if type(value) in (int, float, str) else str(value) for name, value in _compared(config)}
    final = {tag: row[name] for name, tag in task.tags.items() if name in row}
    # The HPARAMS page reads its numbers from these tags. The summary of the experiment is left out: TensorBoard would
    # take that of one arbitrary run for all. writer.add_hparams would write it, and create a stray run folder as well.
    _, start, end = hparams(flat, final)
    file_writer = writer._get_file_writer()
    file_writer.add_summary(start)
    file_writer.add_summary(end)
    data = task.data
    # The metadata table has one line per item and tabs between columns: no text may hold either, and none may be empty.
    columns = (data.items, data.titles, data.genres)
    labels = [[" ".join(text.split()) or "-" for text in line] for line in zip(*columns, strict=True)]
    for name, table in task.embeddings(model).items():
        tag = f"{name}_best" if is_best else name
        writer.add_embedding(
            narrowed(table), labels, global_step=row["epoch"], tag=tag, metadata_header=["id", "title", "genres"]
        )


def narrowed(table: Tensor, width: int = MAX_PROJECTOR_WIDTH) -> Tensor:
    """A wide table (n, d) in its leading principal components (n, width), which nearly keep all distances."""
    if table.shape[1] <= width:
        return table
    centered = (table.detach() - table.detach().mean(dim=0)).cpu().double()
    axes = torch.linalg.eigh(centered.T @ centered).eigenvectors
    return (centered @ axes.flip(1)[:, :width]).float()


def _by_metric(task: Task, baselines: Baselines) -> dict[str, dict[str, float]]:
    """{compared metric: {tag of a baseline: value}}, without metrics that no baseline has."""
    found = {
        metric: {f"baselines/{metric}/{name}": row[metric] for name, row in baselines.items() if metric in row}
        for metric in task.compared
    }
    return {metric: values for metric, values in found.items() if values}


def _tag(column: str, task: Task) -> str:
    """The tag of a column. Losses and metrics have one in the task's tags; all others come from the weighting."""
    if column.startswith(("train_", "val_", "test_")):
        return task.tags[column]
    return task.tags.get(column, f"weighting/{column}")


def _compared(config: RunConfig) -> list[tuple[str, object]]:
    """The settings that decide the result; TensorBoard keeps the first value it sees, so none may change on resume."""
    options = {field.name: field.metadata["option"] for field in fields(config)}
    names = [name for name, known in options.items() if known.affects_result and not known.resumable]
    values = [("model", config.model), *((name, getattr(config, name)) for name in names)]
    return [(name, value) for name, value in values if value is not None]
