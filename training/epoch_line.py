"""The line of an epoch, with the time that is left; on a narrow terminal, what matters most of it."""

from collections.abc import Sequence

from training.protocols import Row
from training.terminal import cut, display_width

RECENT = 5  # epochs whose mean duration stands for those that are left
WIDEST = 999.99, "at most 99 min left"  # duration and time left: with room for them, lines have the same cells


def epoch_line(
    row: Row, console_metrics: Sequence[str], epochs: int, seconds: float, left: str = "", width: int | None = None
) -> str:
    """Losses, metrics and duration of an epoch, as "epoch 1/5 | train joint 0.32 | test mrr 0.05 mse 0.91 | 0.12 s".

    Args:
        console_metrics: of the task, the most important first.
        epochs: of the whole run.
        seconds: the duration of this one.
        left: what `time_left` says.
        width: columns of the terminal: the least important cells are left out until the line fits. None: it is written
            to a file, with all cells and without `left`, which is soon out of date.
    """
    shown = [column for column in row if _is_shown(column, console_metrics)]
    if width is None:
        return _join(row, epochs, {*shown, "seconds"}, seconds, left)
    chosen: set[str] = set()
    for cell in _by_importance(shown, console_metrics):
        if display_width(_join(row, epochs, {*chosen, cell}, max(seconds, WIDEST[0]), WIDEST[1])) > width:
            break
        chosen.add(cell)
    return cut(_join(row, epochs, chosen, seconds, left), width)


def time_left(durations: Sequence[float], epochs_left: int, may_stop_early: bool) -> str:
    """How long the rest of the run will take, as "about 3 min left", from the seconds of the last epochs.

    Args:
        durations: seconds of each epoch of this session.
        may_stop_early: a rule may end the run before its last epoch: "at most 3 min left".

    Returns:
        "" where no epoch is left or none is finished.
    """
    recent = durations[-RECENT:]
    if not recent or not epochs_left:
        return ""
    bound = "at most" if may_stop_early else "about"
    return f"{bound} {in_words(sum(recent) / len(recent) * epochs_left)} left"


def in_words(seconds: float) -> str:
    """A duration: "9 s", "12 min", "3.5 h", "4 days"."""
    if seconds < 99.5:
        return f"{max(1, round(seconds))} s"
    if seconds < 99.5 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{round(seconds / 86400)} days"


def _is_shown(column: str, console_metrics: Sequence[str]) -> bool:
    split, _, name = column.partition("_")
    return split == "train" or name in console_metrics


def _by_importance(shown: Sequence[str], console_metrics: Sequence[str]) -> list[str]:
    """The metrics of the first split with the time that is left, those of the other, the joint loss, all else.

    The first split is the validation part where there is one.
    """
    by_split: dict[str, list[str]] = {}
    for column in shown:
        by_split.setdefault(column.partition("_")[0], []).append(column)
    losses = by_split.pop("train", [])
    metrics = [f"{split}_{name}" for split in by_split for name in console_metrics if f"{split}_{name}" in shown]
    return [*metrics[:1], "left", *metrics[1:], *losses[-1:], "seconds", *losses[:-1]]


def _join(row: Row, epochs: int, cells: set[str], seconds: float, left: str) -> str:
    """The line with these cells, in the order of the row."""
    parts: dict[str, list[str]] = {}
    for column, value in row.items():
        if column in cells:
            split, _, name = column.partition("_")
            parts.setdefault(split, []).append(f"{name} {value:.4f}")
    texts = [f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}"]
    texts += [f"{split} {' '.join(values)}" for split, values in parts.items()]
    texts += [f"{seconds:.2f} s"] if "seconds" in cells else []
    texts += [left] if "left" in cells and left else []
    return " | ".join(texts)
