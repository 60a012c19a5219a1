"""One process against several under torchrun, with the same batches, on a simulated set."""

import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.results import Record, record_simulated
from config.errors import UserError
from training.console import log

SIZE = (6_040, 3_706, 1_000_000)
BATCH = 65_536  # of all processes together
EPOCHS = 3


def measure_processes(record: Record, main: Path, counts: Sequence[int] = (1, 2), size: Sequence[int] = SIZE) -> None:
    """Train the same run with each number of processes; record rows per second and the differences of the metrics.

    Raises:
        UserError: a run failed.
    """
    runs = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in counts:
            runs[count] = run(count, main, Path(folder) / str(count), size)
    record_simulated(record, "simulated", True)
    first = counts[0]
    for count, (speed, metrics) in runs.items():
        name = f"{count} process{'es' if count > 1 else ''}"
        record(name, "rows", speed, "rows per s")
        record(name, "ratio", speed / runs[first][0], "")
        differences = {metric: abs(value - runs[first][1][metric]) for metric, value in metrics.items()}
        for metric in ("test_mrr", "test_mse"):
            record(name, metric, metrics[metric], "")
            record(name, f"{metric}, difference", differences[metric], "")
        log(
            f"{name:<12}{speed:>12,.0f} rows/s, {speed / runs[first][0]:.2f} times; MRR {metrics['test_mrr']:.4f}, "
            f"MSE {metrics['test_mse']:.4f}; largest difference of a metric {max(differences.values()):.1e}"
        )


def run(count: int, main: Path, folder: Path, size: Sequence[int]) -> tuple[float, dict[str, float]]:
    """Rows per second of training and the test metrics of the last epoch of one run with `count` processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
    options = {"dataset": ["simulated"], "simulated_size": size, "batch_size": [BATCH], "epochs": [EPOCHS]}
    flags = [str(word) for name, values in options.items() for word in (f"--{name}", *values)]
    command = [sys.executable, *launcher, str(main), *flags, "--device", "cpu", "--quiet", "--logdir", str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        lines = ended.stderr.splitlines()
        errors = [line for line in lines if line.startswith("main.py: error: ")] or lines or ["without a message"]
        raise UserError(f"torchrun with --nproc_per_node {count} ended with code {ended.returncode}: {errors[-1]}")
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        last_row = list(csv.DictReader(file))[-1]
    train_rows = size[2] - round(size[2] * 0.05)
    metrics = {name: float(value) for name, value in last_row.items() if name.startswith("test_")}
    return train_rows * result["epochs"] / result["seconds"]["training"], metrics
