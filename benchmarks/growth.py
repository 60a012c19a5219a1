"""How training, memory and evaluation grow with the data: simulated ratings, each size in a process of its own."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.plain import plain_growth
from benchmarks.results import Record, record_simulated
from benchmarks.timing import cpu_seconds, peak_memory_mb
from config.errors import UserError
from config.multitask import MultiTaskConfig
from dataset import Data, Interactions
from multitask.recipe import RECIPE
from training.console import log
from training.protocols import Stepper
from training.steps import Stopped

CPU = torch.device("cpu")
SIZES = {  # users, items and ratings, as those of MovieLens 100K, 1M, 10M and 25M, rounded
    "100k": (943, 1682, 100_000),
    "1M": (6_040, 3_706, 1_000_000),
    "10M": (69_878, 10_677, 10_000_000),
    "25M": (162_541, 59_047, 25_000_000),
}
BATCH = 262_144  # some 90 steps per epoch at 25M; in smaller batches the update of all tables would dominate
EPOCHS = 8  # of our stepper, so that small data are timed for seconds too; the plain loop runs one
SECONDS = 20.0  # CPU seconds after which either stops; rows per second count the rows until then
EVALUATED_USERS = 5_000  # at most; of more users, so many are drawn


def measure_growth(record: Record, sizes: Sequence[str], script: Path) -> None:
    """Run `benchmark.py grow` for each size and record its results. script: benchmark.py.

    Raises:
        UserError: a process failed.
    """
    log(f"simulated ratings, batch {BATCH:,}, one thread; each size in a process of its own")
    for size in sizes:
        command = [sys.executable, str(script), "grow", *map(str, SIZES[size])]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if ended.returncode != 0:
            raise UserError(
                f"the process for {size} ratings ended with code {ended.returncode}: leave it out of --sizes"
            )
        found = json.loads(ended.stdout.splitlines()[-1])
        for metric, (value, unit) in found.items():
            record(size, metric, value, unit)
        values = {metric: value for metric, (value, _) in found.items()}
        ratio = values["ours"] / values["plain"]
        log(
            f"{size:<6}{values['ours']:>12,.0f} rows per CPU s, {ratio:.1f} times the plain loop's "
            f"{values['plain']:,.0f}; evaluation of {values['evaluated users']:,.0f} users "
            f"{values['evaluation']:.2f} CPU s; peak {values['peak memory']:,.0f} MB, of which "
            f"{values['peak memory, imports']:,.0f} MB before any data; raw arrays {values['raw arrays']:,.0f} MB"
        )
    record_simulated(record, "simulated", True)


def grow(size: Sequence[int]) -> dict[str, tuple[float, str]]:
    """Measure one size in this process: {metric: (value, unit)}. Memory is read before the plain loop runs.

    size: numbers of users, items and ratings to simulate.
    """
    config = MultiTaskConfig(dataset="simulated", simulated_size=tuple(size), batch_size=BATCH, quiet=True)
    imports, start = peak_memory_mb(), cpu_seconds()
    data = RECIPE.load_data(config)
    found = {
        "peak memory, imports": (imports, "MB"),
        "making": (cpu_seconds() - start, "CPU s"),
        "peak memory, data made": (peak_memory_mb(), "MB"),
    }
    parts = (data.train, data.test)
    held = sum(column.nbytes for part in parts for column in (part.user_ids, part.item_ids, part.ratings))
    found["raw arrays"] = (held / 2**20, "MB")
    data = replace(data, test=rows_of_some_users(data.test))
    found |= _measure_ours(config, data)
    found["peak memory"] = (peak_memory_mb(), "MB")
    plain_growth(config, data.train, after_one_step())
    deadline = Deadline()
    rows = plain_growth(config, data.train, deadline)
    found["plain"] = (rows / deadline.seconds(), "rows per CPU s")
    return found


def _measure_ours(config: MultiTaskConfig, data: Data) -> dict[str, tuple[float, str]]:
    """Speed of training and evaluation."""
    training = RECIPE.build(config, data, CPU)
    stepper = training.make_stepper(training.model, training.task, config, CPU)
    with suppress(Stopped):
        stepper.run_epoch(1, [], after_one_step())
    deadline = Deadline()
    rows = train(stepper, len(data.train), deadline)
    found = {"ours": (rows / deadline.seconds(), "rows per CPU s"), "epochs": (rows / len(data.train), "epochs")}
    start = cpu_seconds()
    training.task.metrics(training.model, "test")
    found["evaluation"] = (cpu_seconds() - start, "CPU s")
    found["evaluated users"] = (float(len(data.test.user_ids.unique())), "users")
    return found


def train(stepper: Stepper, rows: int, deadline: "Deadline") -> int:
    """Train for EPOCHS epochs of `rows` rows, or until the deadline; returns the rows of all steps taken."""
    for epoch in range(EPOCHS):
        asked = deadline.asked
        try:
            stepper.run_epoch(epoch + 1, [], deadline)
        except Stopped:
            return epoch * rows + (deadline.asked - asked - 1) * BATCH
    return EPOCHS * rows


def after_one_step() -> Callable[[], bool]:
    """A `stop` that is True from the second call on: a first step, which builds buffers, is not timed."""
    asked = iter([False])
    return lambda: next(asked, True)


class Deadline:
    """A `stop`, called before every step: True after SECONDS CPU seconds."""

    def __init__(self) -> None:
        self.start, self.asked = cpu_seconds(), 0

    def __call__(self) -> bool:
        self.asked += 1
        return self.seconds() > SECONDS

    def seconds(self) -> float:
        return cpu_seconds() - self.start


def rows_of_some_users(rows: Interactions) -> Interactions:
    """All rows of EVALUATED_USERS users drawn at random; all rows where there are no more users."""
    users = rows.user_ids.unique().numpy()
    if len(users) <= EVALUATED_USERS:
        return rows
    drawn = np.random.RandomState(0).choice(users, EVALUATED_USERS, replace=False)
    return rows[torch.isin(rows.user_ids, torch.from_numpy(drawn))]
