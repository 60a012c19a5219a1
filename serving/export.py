"""`experiments.py export`: the network of a run for other programs, as safetensors or ONNX, checked against the run.

The folder holds the network, users.csv and items.csv, which name the raw id of every row number, and README.txt. It
appears when everything is written and the check has passed; before, it has a temporary name.
"""

import contextlib
import importlib.util
import json
import logging
import os
import secrets
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from config.errors import UserError
from registry import recipe_for
from serving.run import TrainedRun
from training.report import BOX
from training.streams import stream

FORMATS = ("safetensors", "onnx")
PACKAGES = {"safetensors": ("safetensors",), "onnx": ("onnx", "onnxscript", "onnxruntime")}
INSTALL = "pip install -r requirements.txt -r serving/requirements.txt"
CHECKED_PAIRS = 1000
TOLERANCE = 1e-5  # of ONNX: |difference| <= TOLERANCE (1 + |value|); other kernels round differently
LARGEST_FILE = 2**30  # bytes of weights in one ONNX file, which must stay below 2 GiB; above, they get a second file


def require_new_folder(folder: Path) -> None:
    """Raises UserError where the folder exists already."""
    if folder.exists() or folder.is_symlink():
        raise UserError(f"--folder {folder} exists already: give another name, or remove it first")


def require_packages(format: str) -> None:
    """Raises UserError where a package that the format needs is missing."""
    for name in PACKAGES[format]:
        if importlib.util.find_spec(name) is None:
            raise UserError(f"--format {format} needs the package {name}: {INSTALL}")


def export(run: TrainedRun, format: str, folder: Path) -> str:
    """Write a run to a new folder.

    Args:
        run: on the CPU.
        format: one of FORMATS.

    Returns:
        A sentence about the check.

    Raises:
        UserError: the folder exists or cannot be written, a package is missing, the format cannot hold this network,
            or the exported network predicts something else than the run.
    """
    require_new_folder(folder)
    require_packages(format)
    write = {"safetensors": _write_safetensors, "onnx": _write_onnx}[format]
    with _appearing(folder) as scratch:
        path = scratch / f"model.{format}"
        check, network = write(run, path)
        _write_ids(run, scratch)
        lines = [*_describe(run), "", *network, "", f"Check: {check}"]
        (scratch / "README.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return check


def _write_safetensors(run: TrainedRun, path: Path) -> tuple[str, list[str]]:
    """All tensors under their names in the network; checked bit for bit in a fresh network."""
    from safetensors.torch import load_file, save_file

    state = {name: value.detach().cpu().contiguous() for name, value in run.model.state_dict().items()}
    about = {"model": run.config.model, "checkpoint": run.checkpoint, "data": run.task.data.name}
    about |= {"settings": json.dumps(run.config.architecture), "simulated": str(run.task.data.simulated)}
    save_file(state, path, metadata=about | {"format": "pt"})
    fresh = recipe_for(run.config).build(run.config, run.task.data, torch.device("cpu"))
    fresh.model.load_state_dict(load_file(path))
    users, items = _draw_pairs(run)
    with torch.no_grad():
        there, here = (fresh.task.score(model.eval(), users, items)[1] for model in (fresh.model, run.model))
    if any(not torch.equal(there[name], here[name]) for name in here):
        raise UserError(f"{path.name} does not hold the weights of {run.path}: nothing was written")
    check = (
        f"loaded into a fresh network, it predicts the same to the last bit ({', '.join(here)}; {len(users):,} pairs)"
    )
    return check, [f"{path.name} holds:", "", *_describe_tensors(run, state), "", *run.task.formulas(run.model)]


def _describe_tensors(run: TrainedRun, state: dict[str, Tensor]) -> list[str]:
    kinds = run.task.row_tables(run.model)
    rows = {name: f"a row for each row of {kind}s.csv" for name, kind in kinds.items()}
    width = max(map(len, state))
    lines = (
        f"  {name:<{width}}  {value.dtype!s:<14} {list(value.shape)}  {rows.get(name, '')}"
        for name, value in state.items()
    )
    return [line.rstrip() for line in lines]


def _write_onnx(run: TrainedRun, path: Path) -> tuple[str, list[str]]:
    """The predictions of any number of pairs; checked with onnxruntime up to TOLERANCE."""
    if not run.task.scores_any_pair:
        raise UserError(
            f"--format onnx does not apply to --model {run.config.model}: its predictions need the features of a dyad "
            "beside the two ids; --format safetensors exports its weights"
        )
    columns = _Columns(run)
    users, items = _draw_pairs(run)
    with torch.no_grad():
        expected = {name: column.numpy() for name, column in run.task.score(run.model, users, items)[1].items()}
    names = list(expected)
    try:
        _save_onnx(columns, names, path, users, items)
        found = _run_onnx(path, {"user_ids": users.numpy(), "item_ids": items.numpy()})
    except Exception as error:  # the packages raise many types of errors
        reason = (str(error).splitlines() or [repr(error)])[0]
        raise UserError(f"--format onnx: the network of {run.path} cannot be exported ({reason})") from None
    differences = [
        np.abs(one - other) / (1 + np.abs(other)) for one, other in zip(found, expected.values(), strict=True)
    ]
    worst = float(np.max(differences))  # nan where one is nan
    if not worst <= TOLERANCE:
        raise UserError(
            f"{path.name} predicts something else than {run.path}: |difference| / (1 + |value|) is up to {worst:.2g}, "
            f"and at most {TOLERANCE:g} is allowed; nothing was written"
        )
    check = (
        f"in onnxruntime it predicts the same up to {worst:.1g} of 1 + |value|, where {TOLERANCE:g} is allowed "
        f"({', '.join(names)}; {len(users):,} pairs)"
    )
    inputs = "Inputs: user_ids and item_ids, int64, any number of pairs: row numbers of users.csv and items.csv."
    return check, [f"{path.name}", "", inputs, f"Outputs, float32, one a pair: {', '.join(names)}."]


class _Columns(nn.Module):
    """What `TrainedRun.predict` shows, as a function of two tensors."""

    def __init__(self, run: TrainedRun) -> None:
        super().__init__()
        self.model, self.task = run.model, run.task
        self.eval()

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.task.score(self.model, user_ids, item_ids)[1].values())


def _save_onnx(columns: _Columns, names: list[str], path: Path, users: Tensor, items: Tensor) -> None:
    dynamic = {0: torch.export.Dim("pairs")}
    with _quiet():
        program = torch.onnx.export(
            columns, (users, items), input_names=["user_ids", "item_ids"], output_names=names,
            dynamic_shapes=(dynamic, dynamic), dynamo=True, verbose=False,
        )  # fmt: skip
    assert program is not None
    graph = program.model.graph
    constants = list(graph.initializers.values())
    inner = constants + [value for node in graph for value in node.outputs if not value.is_graph_output()]
    for value in inner:  # named after operations, such as view, which may be the name of a label, too
        if value.name in names:
            value.name = f"{value.name}.inner"
    weights = sum(value.const_value.nbytes for value in constants)
    program.save(path, external_data=weights > LARGEST_FILE)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's notes on what is not installed and on its own internals."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _run_onnx(path: Path, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, inputs)


def _draw_pairs(run: TrainedRun) -> tuple[Tensor, Tensor]:
    """Row numbers (CHECKED_PAIRS,) of random users and items, or of random rows of the data; the same in every call."""
    generator = stream(0, 0)
    if run.task.scores_any_pair:
        sizes = len(run.users), len(run.items)
        users, items = (torch.randint(size, (CHECKED_PAIRS,), generator=generator) for size in sizes)
        return users, items
    rows = run.task.data.interactions
    drawn = rows[torch.randint(len(rows), (CHECKED_PAIRS,), generator=generator)]
    return drawn.user_ids.long(), drawn.item_ids.long()


def _write_ids(run: TrainedRun, folder: Path) -> None:
    """users.csv and items.csv: row number, raw id, and of items title and genres."""
    data = run.task.data
    users = pd.DataFrame({"row": range(len(run.users)), "id": run.users})
    items = pd.DataFrame({"row": range(len(run.items)), "id": run.items, "title": data.titles, "genres": data.genres})
    for name, table in (("users", users), ("items", items)):
        table.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")


def _describe(run: TrainedRun) -> list[str]:
    box = [BOX, ""] if run.task.data.simulated else []
    lines = [f"--model {run.config.model}, {run.checkpoint} epoch, trained on {run.task.data!r}."]
    return [*box, *lines, "users.csv and items.csv name the raw id of every row number. Rows count from 0."]


@contextlib.contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """A folder under a temporary name that gets its own name at the end; after an error nothing is left.

    Raises:
        UserError: it cannot be written.
    """
    missing = [parent for parent in folder.parents if not parent.exists()]
    scratch = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.part")
    try:
        scratch.mkdir(parents=True)
        yield scratch
        os.rename(scratch, folder)
    except BaseException as error:
        shutil.rmtree(scratch, ignore_errors=True)
        for parent in missing:
            with contextlib.suppress(OSError):
                parent.rmdir()
        if isinstance(error, OSError):
            raise UserError(f"--folder {folder} cannot be written: {error.strerror or error}") from None
        raise
