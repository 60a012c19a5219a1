"""From a request to a run: its folder, its config, its device, and what config.json and result.json say of it."""

import itertools
import platform
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import torch

from config.base import RunConfig
from config.cli import FORMAT, Choices, Models, Request, config_of
from config.errors import UserError
from training.loop import Outcome
from training.process_group import SingleProcess
from training.protocols import Recipe, RunData
from training.run_folder import RunFolder

RUNS = Path("run")


def begin(
    request: Request, group: SingleProcess, models: Models, choices: Choices
) -> tuple[RunFolder | None, dict[str, Any], RunConfig]:
    """The run folder (on the first process alone), config.json so far, and the config, the same on all processes."""
    run: RunFolder | None = None
    record: dict[str, Any] = {}
    values: dict[str, Any] = {}
    with group.collective_errors():
        if group.is_main and request.resume is not None:
            run, record, config = reopen(request.resume, request.given, models, choices)
            values = config.to_dict()
        elif group.is_main and request.config is not None:
            config = request.config
            run, values = RunFolder.new(Path(config.logdir or unused_path(config))), config.to_dict()
    record, values = group.broadcast((record, values))
    return run, record, config_of(values, "the first process", models, choices)


def reopen(
    path: Path, changes: dict[str, Any], models: Models, choices: Choices
) -> tuple[RunFolder, dict[str, Any], RunConfig]:
    """A run that exists: its folder, its config.json, and its config with these changes."""
    run = RunFolder.open(path)
    record = run.read_config()
    if record.get("format") != FORMAT:
        raise UserError(
            f"{path / 'config.json'} has the format {record.get('format', 0)} and this program reads format {FORMAT}: "
            "train anew with another --logdir"
        )
    config = config_of(record["settings"], str(path / "config.json"), models, choices)
    return run, record, config.resumed_with(changes, path)


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
    config: RunConfig, recipe: Recipe, record: dict[str, Any], group: SingleProcess
) -> tuple[torch.device, RunData, float]:
    """The device of this process, the data of the run, and the seconds that reading took.

    Raises:
        UserError: there is no such device, the data cannot be had, or they are not those of a run that exists.
    """
    start = time.perf_counter()
    device = choose_device(config.device, group)
    data = recipe.load_data(config)
    require_same_data(record, data)
    return device, data, time.perf_counter() - start


def choose_device(name: str, group: SingleProcess) -> torch.device:
    """The device of this process; UserError where PyTorch does not find it."""
    usable = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return group.device(next(kind for kind in ("cuda", "mps", "cpu") if usable[kind]))
    if not usable[name]:
        raise UserError(f"--device {name}: PyTorch finds none here; --device auto takes what there is")
    return group.device(name)


def require_same_data(record: dict[str, Any], data: RunData) -> None:
    """Raises UserError where a run that exists was made from other data."""
    if record and record["data"].get("fingerprint") != data.fingerprint:
        summary = record["data"].get("summary")
        raise UserError(f"the data are not those of the run, {summary}: the ratings or their split have changed")


def pin(config: RunConfig, data: RunData, device: torch.device) -> RunConfig:
    """The config with absolute paths, data set and device by name: it means the same when the run is resumed."""
    paths: dict[str, Any] = {name: str(Path(path).resolve()) for name, path in config.own_files.items()}
    if config.data_dir is not None:
        paths["data_dir"] = str(Path(config.data_dir).resolve())
    dataset = config.dataset if config.own_files else data.name
    return replace(config, dataset=dataset, device=device.type, **paths)


def describe(config: RunConfig, record: dict[str, Any], data: RunData) -> dict[str, Any]:
    """What config.json holds; a resumed run keeps the command that started it."""
    about = {"name": data.name, "simulated": data.simulated, "summary": repr(data), "notes": list(data.notes)}
    return {
        "format": FORMAT,
        "command": record.get("command", shlex.join(["python", *sys.argv])),
        "settings": config.to_dict(),
        "data": about | {"fingerprint": data.fingerprint},
        "versions": {
            "python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__
        },
    }  # fmt: skip


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
