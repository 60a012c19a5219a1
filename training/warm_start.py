"""--start_from: a new run begins with the weights of another one.

Rows of user and item tables are matched by raw id. Users and items that the other run does not know keep what the seed
draws; those that the new data do not have are left out. All other parameters are copied.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from config.base import RunConfig
from config.cli import FORMAT, config_of
from config.errors import UserError
from training.protocols import Task
from training.run_folder import RunFolder

LEAK = (
    "the figures of this run are too good where its test or validation rows trained the old one; --split time, in "
    "both runs, keeps them apart"
)


def require_fitting(config: RunConfig) -> None:
    """Check, before any data are read, that config.start_from names a run with a network like this one.

    Raises:
        UserError: there is no such run, or it has another model or width, or another format.
    """
    if config.start_from is None:
        return
    run = RunFolder.open(Path(config.start_from))
    record = run.read_config()
    if record.get("format") != FORMAT:
        raise UserError(f"--start_from {run.path}: its config.json has another format: train it anew")
    model = record["settings"].get("model")
    if model != config.model:
        raise UserError(
            f"--start_from {run.path} is a run of --model {model}, and this one is of --model {config.model}: add "
            f"--model {model}, or start from another run"
        )
    source = str(run.path / "config.json")
    there = config_of(record["settings"], source, {config.model: type(config)}, {}).architecture
    here = config.architecture
    different = [name for name in here if here[name] != there[name]]
    if different:
        theirs, ours = (_in_words(values, different) for values in (there, here))
        raise UserError(
            f"--start_from {run.path} has {theirs}, and this run has {ours}: the network must be the same; --config "
            f"{source} takes all settings of that run"
        )


def start_from(path: Path, model: nn.Module, task: Task, device: torch.device) -> str:
    """Put the weights of a run, of its best epoch where it has one, else of its last, into a fresh network.

    Returns:
        Two sentences: how many users and items were found, and a note on the test figures.

    Raises:
        UserError: a file of the run is missing or damaged, or its network has other shapes.
    """
    run = RunFolder.open(path)
    checkpoint = "best" if run.has("best") else "last"
    old = run.load(checkpoint, device)["model"]
    texts = run.read_data().texts
    rows = {
        kind: _match(now, texts.get(f"{kind}s", ()))
        for kind, now in (("user", task.data.users), ("item", task.data.items))
    }
    state, kinds = model.state_dict(), task.row_tables(model)
    _require_same_shapes(path, old, state, kinds)
    with torch.no_grad():
        for name, value in state.items():  # state_dict holds the parameters themselves, not copies
            if name in kinds:
                here, there = (torch.from_numpy(part).to(device) for part in rows[kinds[name]])
                value[here] = old[name][there]
            else:
                value.copy_(old[name])
    counts = {"user": len(task.data.users), "item": len(task.data.items)}
    found = " and ".join(f"{len(rows[kind][0]):,} of {count:,} {kind}s" for kind, count in counts.items())
    return f"weights of {path}, {checkpoint} epoch: {found} are known there; the others start fresh\nnote: {LEAK}"


def _match(now: Any, before: Any) -> tuple[np.ndarray, np.ndarray]:
    """(k,) row numbers now and (k,) row numbers before of the k raw ids that are in both."""
    found = pd.Index(np.asarray(before, dtype=object)).get_indexer(np.asarray(now, dtype=object))
    here = np.flatnonzero(found >= 0)
    return here, found[here]


def _require_same_shapes(path: Path, old: dict[str, Tensor], new: dict[str, Tensor], kinds: dict[str, str]) -> None:
    def shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
        return {name: tuple(value.shape[name in kinds :]) for name, value in state.items()}

    there, here = shapes(old), shapes(new)
    for name in sorted(set(there) | set(here)):
        if there.get(name) != here.get(name):
            raise UserError(
                f"--start_from {path}: its {name} has the shape {there.get(name)}, and that of this network is "
                f"{here.get(name)}: the settings or the columns of the data differ"
            )


def _in_words(values: dict[str, Any], names: list[str]) -> str:
    """Settings as flags: "--embedding_dim 16 and --layer_sizes 48 64"."""
    flags = []
    for name in names:
        value = values[name]
        if isinstance(value, bool):
            flags.append(f"--{name}" if value else f"--no_{name}")
        else:
            flags.append(f"--{name} {' '.join(map(str, value)) if isinstance(value, tuple) else value}")
    return " and ".join(flags)
