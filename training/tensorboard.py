"""What a run shows in TensorBoard: curves, charts (CUSTOM SCALARS), a page (TEXT), HPARAMS, items (PROJECTOR).

Groups of tags are listed in the order of the alphabet, on the page of HPARAMS too, which shows the first five metrics:
hence "eval" for the main metrics, and names that come later for everything else.
"""

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from config.base import RunConfig
from training.projector import item_columns, narrowed
from training.protocols import Baselines, Row, RunData, Task
from training.run_page import changed_settings, run_page, shown

BASELINES = "test baselines"
COURSE_DATA = "ml-100k"  # HPARAMS names other data
MAX_TRIAL_NAME = 15  # characters that fit into HPARAMS' column of names, whose width is fixed


@contextmanager
def without_tracebacks_of_the_writer() -> Iterator[None]:
    """Leave a full disk to the main thread: TensorBoard's writing thread prints what the next call raises again."""
    show = threading.excepthook
    threading.excepthook = lambda error: None if issubclass(error.exc_type, OSError) else show(error)
    try:
        yield
    finally:
        threading.excepthook = show


def draw_page(
    writer: SummaryWriter, task: Task, config: RunConfig, record: dict[str, Any], baselines: Baselines, epoch: int
) -> None:
    """The page of TEXT, once in every session of a run: a resumed one may have other settings. record: config.json."""
    writer.add_text("run", run_page(task, config, record, baselines), epoch)
    writer.flush()  # the writer opens its file by name each time: nothing is left for a folder that goes away


def draw_epoch(writer: SummaryWriter, task: Task, model: nn.Module, row: Row, baselines: Baselines) -> None:
    """Draw one row of the history, the diagnostics of the task, and the baselines, which are the same in every epoch.

    A point of the baselines in every epoch makes a line as long as the curves while the run is going on, and a resumed
    run drops and repeats them like all others.
    """
    if row["epoch"] == 1:
        _draw_charts(writer, task, row, baselines)
    points = {_tag_of(column, task): value for column, value in row.items() if column != "epoch"}
    for name, values in baselines.items():
        lines = {f"{BASELINES}/{metric}/{name}": values[metric] for metric in task.compared if metric in values}
        points |= {_full(tag, task): value for tag, value in lines.items()}
    points |= {_full(tag, task): value for tag, value in task.diagnostics(model).items()}
    for tag, value in points.items():
        writer.add_scalar(tag, value, row["epoch"])
    writer.flush()  # before the checkpoint: a resumed run drops points after its checkpoint and never misses one before


def _draw_charts(writer: SummaryWriter, task: Task, row: Row, baselines: Baselines) -> None:
    """The layout of CUSTOM SCALARS: for each task its training loss, and to the right its main metric on the test part.

    Then each compared metric. Baselines are lines in the charts of metrics; the patterns of their tags hold for any
    baseline, because TensorBoard joins only charts that are equal in all runs.
    """
    layout: dict[str, dict[str, list[Any]]] = {}

    def chart(*patterns: str) -> list[Any]:
        return ["Multiline", list(patterns)]

    def metric_chart(metric: str) -> list[Any]:
        lines = [f"{re.escape(_full(f'{BASELINES}/{metric}', task))}/.+$"]
        return chart(_exactly(f"test_{metric}", task), *(lines if _is_compared(metric, task, baselines) else []))

    for name, (loss, metric) in task.headlines.items():
        category = layout.setdefault(_with_data(f"{name}: training loss, test metric", task), {})
        if f"train_{loss}" in row:
            category[f"training: {_title(f'train_{loss}', task)}"] = chart(_exactly(f"train_{loss}", task))
        category[f"test: {_title(f'test_{metric}', task)}"] = metric_chart(metric)
    compared = [metric for metric in task.compared if _is_compared(metric, task, baselines)]
    if compared:
        layout[_with_data("test part, beside the baselines", task)] = {
            _title(f"test_{metric}", task): metric_chart(metric) for metric in compared
        }
    writer.add_custom_scalars(layout)


def draw_summary(
    writer: SummaryWriter, task: Task, model: nn.Module, config: RunConfig, row: Row, is_best: bool, path: Path
) -> None:
    """Settings of the run in `path` beside its last metrics; and the item embeddings, with what is known of items."""
    # HPARAMS takes all scalars of a run as its metrics. The summary of the experiment is left out: TensorBoard would
    # take that of one arbitrary run for all. writer.add_hparams would write it, and create a stray run folder as well.
    file_writer = writer._get_file_writer()
    file_writer.add_summary(hparams_pb(_settings(config, task.data), trial_id=_trial_name(path)))
    file_writer.add_summary(hparams({}, {})[2])  # the session has ended
    tables = task.embeddings(model)
    columns = item_columns(task.data) if tables else {}
    lines = [list(line) for line in zip(*columns.values(), strict=True)]
    for name, table in tables.items():
        tag = f"{name}_best" if is_best else name
        writer.add_embedding(narrowed(table), lines, global_step=row["epoch"], tag=tag, metadata_header=list(columns))


def _settings(config: RunConfig, data: RunData) -> dict[str, Any]:
    """The settings that HPARAMS shows: those that runs of a model are compared by, and others than the defaults.

    Constant ones would be axes, too. An empty cell is the default. TensorBoard keeps the first value that it sees, so
    none may change on resume.
    """
    resumable = {field.name for field in fields(config) if field.metadata["option"].resumable}
    hidden = resumable | set(config.file_fields())  # the name of the data says what the paths say
    values = {name: getattr(config, name) for name in config.compared_settings}
    values |= {name: value for name, value, _ in changed_settings(config) if name not in hidden}
    values |= {} if data.name == COURSE_DATA else {"data": _data_label(data)}
    return {name: value if type(value) in (bool, int, float) else shown(value) for name, value in values.items()}


def _trial_name(path: Path) -> str:
    """A name that fits into its column; "" leaves the run's own.

    shared=True_LF=0.99_LR=0.01 becomes T_.99_.01 and three digits of a hash of its folder: TensorBoard shows the mean
    of all trials of one name.
    """
    name = path.name
    if len(name) <= MAX_TRIAL_NAME:
        return ""
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:3]
    values = re.sub(r"[^_=]+=", "", name).split("_")
    short = "_".join({"True": "T", "False": "F"}.get(value, re.sub(r"^0\.", ".", value)) for value in values)
    return f"{short[: MAX_TRIAL_NAME - len(digest) - 1]} {digest}"


def _data_label(data: RunData) -> str:
    """The name of the data, of files of one's own without their folders: a slash would begin another group of tags."""
    return ", ".join(Path(name).name for name in data.name.split(" / "))


def _with_data(group: str, task: Task) -> str:
    """The name of a group with family and data: curves of other labels, on other data, belong into other charts.

    The sheet names the tags of the course's net, which stay as they are, and come first among those of a kind.
    """
    return f"{group}: {task.family} {_data_label(task.data)}" if task.family else group


def _full(tag: str, task: Task) -> str:
    """A tag with family and data in its group: "eval/like auc" is "eval: zoo ml-100k/like auc"."""
    group, _, title = tag.partition("/")
    return f"{_with_data(group, task)}/{title}"


def _tag_of(column: str, task: Task) -> str:
    """The tag of a column. Losses and metrics have one in the task's tags; all others come from the weighting."""
    if column.startswith(("train_", "val_", "test_")):
        return _full(task.tags[column], task)
    return _full(task.tags.get(column, f"weighting/{column}"), task)


def _title(column: str, task: Task) -> str:
    """The name of a column's curve without its group."""
    return task.tags[column].split("/", 1)[1]


def _exactly(column: str, task: Task) -> str:
    """A pattern for the tag of a column and no other."""
    return f"{re.escape(_tag_of(column, task))}$"


def _is_compared(metric: str, task: Task, baselines: Baselines) -> bool:
    """True where a baseline has a line in the chart of the metric."""
    return metric in task.compared and any(metric in values for values in baselines.values())
