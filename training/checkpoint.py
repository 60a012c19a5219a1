"""What a checkpoint must hold before it is loaded: the entries of the run, with their types and shapes, and no nan.

`load_state_dict` finds a wrong name or shape of a parameter. It accepts nan, and an optimizer state that fits no
parameter, and both would show much later and as something else.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

MOMENTS = ("exp_avg", "exp_avg_sq")  # of AdamW, the only optimizer


class BadEntry(ValueError):
    """An entry of a checkpoint is not what the run has there; the message names the entry."""


class NotFinite(BadEntry):
    """An entry holds nan or an infinite number; the message is the name of the entry."""


def check_history(history: object) -> None:
    """Raises BadEntry where this is not a list of rows of the epochs 1, 2, ... with the same columns of numbers."""
    if not isinstance(history, list) or not all(isinstance(row, dict) for row in history):
        raise BadEntry("its history is no list of rows")
    for number, row in enumerate(history, 1):
        if row.get("epoch") != number:
            raise BadEntry("its history does not number the epochs 1, 2, ...")
        if row.keys() != history[0].keys():
            raise BadEntry(f"row {number} of its history has other columns than the first one")
        wrong = [name for name, value in row.items() if type(name) is not str or type(value) not in (int, float)]
        if wrong:
            raise BadEntry(f"row {number} of its history has no number in the column {wrong[0]!r}")


def check_part(name: str, saved: object, part: Any) -> None:
    """Compare a saved state with the object that it is to be loaded into.

    Args:
        name: of the part, for messages.
        saved: what the checkpoint holds.
        part: a module, an optimizer, or whatever else has a state_dict of tensors by name.

    Raises:
        BadEntry: the two differ in names, types or shapes, or a number is not finite.
    """
    if hasattr(part, "param_groups"):
        _check_optimizer(name, saved, part)
    else:
        check_tensors(name, saved, part.state_dict())


def check_tensors(name: str, saved: object, expected: Mapping[str, Tensor] | None = None) -> None:
    """Raises BadEntry where `saved` is no dict of finite tensors, of the names, shapes and dtypes that are expected."""
    saved = _as_dict(name, saved)
    if expected is not None:
        _require_keys(name, saved, expected)
    for key, value in saved.items():
        _check_tensor(f"{name}, entry {key!r}", value, None if expected is None else expected[key])


def _check_optimizer(name: str, saved: object, optimizer: Any) -> None:
    """param_groups of the same settings, and moments of the shapes of the parameters."""
    fresh = optimizer.state_dict()["param_groups"]
    saved = _as_dict(name, saved)
    _require_keys(name, saved, {"state": None, "param_groups": None})
    groups = saved["param_groups"]
    if not isinstance(groups, list) or len(groups) != len(fresh):
        raise BadEntry(f"{name}, entry 'param_groups' is no list of {len(fresh)}")
    for number, (group, own) in enumerate(zip(groups, fresh, strict=True)):
        _check_group(f"{name}, param_groups {number}", group, own)
    shapes = [value.shape for group in optimizer.param_groups for value in group["params"]]
    for index, moments in _as_dict(f"{name}, entry 'state'", saved["state"]).items():
        where = f"{name}, state of parameter {index!r}"
        if type(index) is not int or not 0 <= index < len(shapes):
            raise BadEntry(f"{where} belongs to no parameter")
        expected = {"step": torch.zeros(())} | {key: torch.empty(shapes[index], device="meta") for key in MOMENTS}
        _require_keys(where, _as_dict(where, moments), expected)
        for key, value in moments.items():
            _check_tensor(f"{where}, {key}", value, expected[key], same_dtype=False)


def _check_group(where: str, group: object, own: Mapping[str, Any]) -> None:
    group = _as_dict(where, group)
    _require_keys(where, group, own)
    for key, value in group.items():
        kinds = (int, float) if type(own[key]) in (int, float) else (type(own[key]),)
        if type(value) not in kinds or (key == "params" and value != own[key]):
            raise BadEntry(f"{where}, {key} is {value!r}, where this run has {own[key]!r}")
        numbers = value if isinstance(value, tuple) else (value,)
        if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
            raise NotFinite(f"{where}, {key}")


def _check_tensor(where: str, value: object, expected: Tensor | None, same_dtype: bool = True) -> None:
    if not isinstance(value, Tensor):
        raise BadEntry(f"{where} is no tensor")
    if expected is not None and value.shape != expected.shape:
        raise BadEntry(f"{where} has the shape {tuple(value.shape)}, where this run has {tuple(expected.shape)}")
    if expected is not None and same_dtype and value.dtype != expected.dtype:
        raise BadEntry(f"{where} has the type {value.dtype}, where this run has {expected.dtype}")
    if not value.isfinite().all():
        raise NotFinite(where)


def _as_dict(where: str, value: object) -> dict:
    if not isinstance(value, dict):
        raise BadEntry(f"{where} is no dict")
    return value


def _require_keys(where: str, saved: Mapping, expected: Mapping) -> None:
    if missing := [key for key in expected if key not in saved]:
        raise BadEntry(f"{where} lacks the entry {missing[0]!r}")
    if unknown := [key for key in saved if key not in expected]:
        raise BadEntry(f"{where} has the entry {unknown[0]!r}, which this run does not know")
