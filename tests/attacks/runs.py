"""Tiny runs of every family, and the comparison of a run that was attacked with one that was not."""

import csv
import math
import os
import random
import re
import time
from pathlib import Path

import torch

from tests.attacks.programs import Program
from tests.attacks.runner import Broken

WORLD = ["--dataset", "simulated", "--simulated_size", 40, 60, 1100, "--device", "cpu"]
EPOCHS = 5
NET = ["--embedding_dim", 4, "--val_fraction", 0.1]
ZOO = ["--embedding_dim", 4, "--batch_size", 500]
FAMILIES: dict[str, list] = {
    "multitask": NET,
    "softmax": [*NET, "--ranking_loss", "softmax"],
    "pcgrad": [*NET, "--weighting", "pcgrad"],
    "uncertainty": [*NET, "--weighting", "uncertainty"],
    "mmoe": ["--model", "mmoe", *ZOO],
    "ple": ["--model", "ple", *ZOO, "--levels", 1, "--task_experts", 1, "--shared_experts", 1],
    "dyadic": ["--model", "dyadic", "--embedding_dim", 4, "--min_user", 5, "--min_item", 5, "--iterations", 300],
    "closed_form": [
        "--model", "closed_form", "--ranking", "ease", "--ridge", 50, "--ranking_dim", 8, "--rating_dim", 2,
        "--rating_fits", 1, "--num_features", 2, "--genres", "off",
    ],
    "champion": ["--preset", "champion", "--rating_fits", 1, "--num_features", 4, "--rating_dim", 2],
}  # fmt: skip


def arguments(family: str, epochs: int = EPOCHS) -> list:
    """The command line of a new run of a family, its folder aside."""
    # The dyadic learner stops where its losses no longer change; here it is to go on.
    return [*WORLD, *FAMILIES[family], "--epochs", epochs, *(["--eps", 0] if family == "dyadic" else [])]


def prepare_references(folder: Path) -> None:
    """An uninterrupted run of every family; the seconds it took lie beside it."""
    for family in FAMILIES:
        reference(folder, family, arguments(family))


def reference(folder: Path, name: str, line: list) -> Path:
    """An uninterrupted run of a command line in folder/name."""
    began = time.monotonic()
    run = Program([*line, "--logdir", name], folder, name=f"{name}.log")
    if not run.require_decent_end():
        raise Broken(f"{run}: {run.last_words}")
    (folder / f"{name}.seconds").write_text(str(time.monotonic() - began))
    return folder / name


def seconds_of(shared: Path, name: str) -> float:
    """How long the uninterrupted run took."""
    return float((shared / f"{name}.seconds").read_text())


def moment(random: random.Random, length: float) -> float:
    """Seconds after the start of a run that takes `length`: anywhere within, sometimes just after its end."""
    return random.uniform(0.0, 1.1 * length)


def epochs_printed(text: str) -> list[int]:
    """The epochs that a run has reported as finished."""
    return [int(number) for number in re.findall(r"^epoch +(\d+)/\d+ .* s$", text, re.MULTILINE)]


def rows(run: Path) -> list[dict[str, str]]:
    """metrics.csv; [] where there is none. Raises Broken where it is not a whole table."""
    path = run / "metrics.csv"
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        table = list(csv.DictReader(file))
    if [row["epoch"] for row in table] != [str(number + 1) for number in range(len(table))]:
        raise Broken(f"metrics.csv does not number its epochs 1, 2, ...: {[row['epoch'] for row in table]}")
    if any(None in row or None in row.values() for row in table):
        raise Broken("metrics.csv has rows of different lengths")
    return table


def require_finite(run: Path) -> None:
    """Raises Broken where a run has no epoch, or a loss that is not finite."""
    table = rows(run)
    if not table:
        raise Broken("the run ended well without an epoch")
    for row in table:
        for name, value in row.items():
            if name.startswith("train_") and not math.isfinite(float(value)):
                raise Broken(f"the run ended well with {name} = {value} in epoch {row['epoch']}")


def require_same_run(run: Path, whole: Path) -> None:
    """Raises Broken where the run is not that of `whole` to the last bit, or lacks a file, or has left one."""
    if (run / "metrics.csv").read_bytes() != (whole / "metrics.csv").read_bytes():
        raise Broken(f"metrics.csv is not that of the undisturbed run ({len(rows(run))} of {len(rows(whole))} rows)")
    for name in ("last.pt", "best.pt"):
        if (run / name).is_file() != (whole / name).is_file():
            raise Broken(f"{name} is in one of the runs, the disturbed and the undisturbed, and not in the other")
        if (run / name).is_file():
            ours, theirs = (torch.load(place / name, weights_only=True)["model"] for place in (run, whole))
            if not (ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)):
                raise Broken(f"{name} holds other weights than that of the undisturbed run")


def require_whole_files(run: Path) -> None:
    """Raises Broken where a folder holds a scratch file although no process was killed."""
    # os.path answers False for names that no file system takes; Path raises.
    if os.path.isdir(run) and (left := [name for name in os.listdir(run) if name.endswith(".part")]):
        raise Broken(f"scratch files are left: {left}")
