"""From a request to a run: its folder, its config, its device, and what config.json and result.json say of it."""

import itertools
import platform
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import torch

from config.base import RunConfig
from config.cli import FORMAT, Choices, Models, Request, config_of
from config.errors import UserError
from sources.ids import encode_pairs
from training.loop import Outcome
from training.process_group import SingleProcess
from training.protocols import Recipe, RunData
from training.run_folder import RunFolder
from training.warm_start import require_fitting

RUNS = Path("run")


@contextmanager
def begin(
    request: Request, group: SingleProcess, models: Models, choices: Choices
) -> Iterator[tuple[RunFolder | None, dict[str, Any], RunConfig]]:
    """The run folder (on the first process alone), config.json so far, and the config, the same on all processes.

    The first process owns the folder of a resumed run in the body of the `with`, and that of a new run from the moment
    in which it writes config.json.
    """
    run: RunFolder | None = None
    record: dict[str, Any] = {}
    values: dict[str, Any] = {}
    try:
        with group.collective_errors():
            if group.is_main and request.resume is not None:
                run = RunFolder.open(request.resume)
                run.lock()
                record, config = reopen(run, request.given, models, choices)
                values = config.to_dict()
            elif group.is_main and request.config is not None:
                config = request.config
                require_fitting(config)
                run, values = RunFolder.new(Path(config.logdir or unused_path(config))), config.to_dict()
        record, values = group.broadcast((record, values))
        yield run, record, config_of(values, "the first process", models, choices)
    finally:
        if run is not None:
            run.release()


def reopen(
    run: RunFolder, changes: dict[str, Any], models: Models, choices: Choices
) -> tuple[dict[str, Any], RunConfig]:
    """The config.json of a run that exists, and its config with these changes."""
    path, record = run.path, run.read_config()
    if record.get("format") != FORMAT:
        raise UserError(
            f"{path / 'config.json'} has the format {record.get('format', 0)} and this program reads format {FORMAT}: "
            "train anew with another --logdir"
        )
    config = config_of(record["settings"], str(path / "config.json"), models, choices)
    return record, config.resumed_with(changes, path)


def unused_path(config: RunConfig) -> Path:
    """A folder under run/ named by the run; with a number behind it where that name is taken."""
    name = config.run_name
    numbered = (RUNS / f"{name}-{number}" for number in itertools.count(2))
    return next(path for path in itertools.chain([RUNS / name], numbered) if not path.exists())


def newest_run() -> Path:
    """The folder of the run under run/ that was saved last; UserError where there is none.

    Folders without a config.json of this format do not count: somebody's own loop may have written them.
    """
    checkpoints = sorted(RUNS.rglob("last.pt"), key=lambda path: path.stat().st_mtime)
    checkpoints = [path for path in checkpoints if RunFolder(path.parent).has_format(FORMAT)]
    if not checkpoints:
        raise UserError(
            f"there is no trained run under {RUNS}/: train one with python main.py, or name its folder with --logdir"
        )
    return checkpoints[-1].parent


def load(
    config: RunConfig, recipe: Recipe, record: dict[str, Any], group: SingleProcess, run: RunFolder | None
) -> tuple[torch.device, RunData, float]:
    """The device of this process, the data of the run, and the seconds that reading took.

    record and run: config.json and the folder of a run that exists; `run` is None on all processes but the first.

    Raises:
        UserError: there is no such device, the data cannot be had, or they are not those of a run that exists.
    """
    start = time.perf_counter()
    device = choose_device(config.device, group)
    if record and run is not None:
        require_files(run, config)
    data = recipe.load_data(config)
    if record and record["data"].get("fingerprint") != data.fingerprint:
        raise UserError(_other_data(run, recipe, data))
    return device, data, time.perf_counter() - start


def choose_device(name: str, group: SingleProcess) -> torch.device:
    """The device of this process; UserError where PyTorch does not find it."""
    usable = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return group.device(next(kind for kind in ("cuda", "mps", "cpu") if usable[kind]))
    if not usable[name]:
        raise UserError(f"--device {name}: PyTorch finds none here; --device auto takes what there is")
    return group.device(name)


def require_files(run: RunFolder, config: RunConfig) -> None:
    """Raises UserError where a file that the run was trained on is missing."""
    for name, path in config.own_files.items():
        if not Path(path).is_file():
            raise UserError(
                f"{path}, the --{name} of {run.path}, is missing: restore it, or start a new run from the old weights: "
                f"{_start_command(run)} --{name} FILE"
            )


def _other_data(run: RunFolder | None, recipe: Recipe, data: RunData) -> str:
    """A sentence about a run that exists and was made from other data: what has changed, and how to go on."""
    if run is None:
        return "the data are not those of the run"
    change = _describe_change(recipe.unpack(run.read_data()), data)
    return (
        f"the data are not those of the run: {change}; a resumed run needs the same ones; start a new run from its "
        f"weights: {_start_command(run)}"
    )


def _describe_change(before: RunData, now: RunData) -> str:
    """What differs between two data sets: the numbers of users, items and rows, else their ids, values or split."""
    sizes = [(len(data.users), len(data.items), len(data.interactions)) for data in (before, now)]
    changed = [
        f"{then:,} {name} then and {today:,} now"
        for name, then, today in zip(("users", "items", "rows"), *sizes, strict=True)
        if then != today
    ]
    if changed:
        return ", ".join(changed)
    counts = "as many users, items and rows"
    if list(before.users) != list(now.users) or list(before.items) != list(now.items):
        return f"{counts}, but other ids"
    rows = [_sorted_rows(data) for data in (before, now)]
    if not torch.equal(rows[0][0], rows[1][0]):
        return f"{counts}, but other pairs of a user and an item"
    different = int((rows[0][1] != rows[1][1]).any(dim=1).sum())
    return f"{counts}, but {different:,} with other values" if different else f"{counts}, in another order or split"


def _sorted_rows(data: RunData) -> tuple[torch.Tensor, torch.Tensor]:
    """The pairs of all rows as ascending numbers (R,), and their ratings or labels (R, T)."""
    rows = data.interactions
    keys, order = encode_pairs(rows.user_ids, rows.item_ids, rows.num_items).sort()
    return keys, rows.ratings.view(len(rows), -1)[order]


def _start_command(run: RunFolder) -> str:
    """The command that trains on the data as they are now, from the weights of a run and with its settings."""
    folders = (run.path.with_name(f"{run.path.name}-{number}") for number in itertools.count(2))
    unused = next(path for path in folders if not path.exists())
    words = ["--config", run.path / "config.json", "--start_from", run.path, "--logdir", unused]
    return shlex.join(["python", "main.py", *map(str, words)])


def pin(config: RunConfig, data: RunData, device: torch.device) -> RunConfig:
    """The config with absolute paths, data set and device by name: it means the same when the run is resumed."""
    paths: dict[str, Any] = {name: str(Path(path).resolve()) for name, path in config.own_files.items()}
    folders = {name: getattr(config, name) for name in ("data_dir", "start_from")}
    paths |= {name: str(Path(path).resolve()) for name, path in folders.items() if path is not None}
    dataset = config.dataset if config.own_files else data.name
    return replace(config, dataset=dataset, device=device.type, **paths)


def describe(config: RunConfig, record: dict[str, Any], data: RunData) -> dict[str, Any]:
    """What config.json holds; a resumed run keeps the command that started it, and what was said of its data."""
    about = {"name": data.name, "simulated": data.simulated, "summary": repr(data), "notes": list(data.notes)}
    return {
        "format": FORMAT,
        "command": record.get("command", shlex.join(["python", *sys.argv])),
        "settings": config.to_dict(),
        "data": record.get("data", about | {"fingerprint": data.fingerprint}),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """The versions that figures may depend on."""
    return {"python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__}


def summarize(outcome: Outcome, model: torch.nn.Module, device: torch.device, num_processes: int) -> dict[str, Any]:
    """What result.json holds.

    "metrics" is the row of the chosen epoch, or of the last where nothing was chosen; "baselines" holds test metrics.
    """
    memory = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
    return {
        "ending": outcome.ending,
        "epochs": len(outcome.history),
        "metrics": outcome.history[(outcome.best_epoch or 0) - 1] if outcome.history else {},
        "baselines": outcome.baselines,
        "parameters": count_parameters(model),
        "seconds": outcome.seconds,
        "peak_device_memory_mb": memory,
        "processes": num_processes,
    }


def count_parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
