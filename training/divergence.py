"""When training has diverged: a loss is no longer finite, or it has grown far beyond its first value."""

import math
from collections.abc import Mapping

from training.protocols import History, Row

LIMIT = 100.0  # times the first value
# A first value below this counts as this. A loss may begin near 0, as that of a trained network does, where a hundred
# times as much is still little. The unit is that of the losses: nats, or the square of a rating point.
FLOOR = 1.0


def require_no_divergence(losses: Row, first_losses: Mapping[str, float], history: History) -> None:
    """Compare the losses of an epoch with their first values.

    Each loss is judged by itself and without its weight. Their weighted sum would hide one with a small weight, and
    under learned weights it changes its scale and may be negative.

    Args:
        losses: {"train_<loss>": mean over the epoch}; other columns are left alone.
        first_losses: see Stepper.first_losses; for epoch 1 alone. Later epochs are compared with epoch 1, which a
            checkpoint holds, so that a resumed run ends where an uninterrupted one does.
        history: the epochs before this one.

    Raises:
        FloatingPointError: a loss is nan or infinite, or more than LIMIT times its first value.
    """
    for column, value in losses.items():
        if column.startswith("train_") and not math.isfinite(value):
            raise FloatingPointError(f"the loss {column.removeprefix('train_')} became {value}")
    for name, at_first_step in first_losses.items():
        first = history[0][f"train_{name}"] if history else at_first_step
        value = losses[f"train_{name}"]
        if value > LIMIT * max(first, FLOOR):
            when = "in epoch 1" if history else "at the first step"
            raise FloatingPointError(f"the loss {name} rose from {first:.4g} {when} to {value:.4g}")
