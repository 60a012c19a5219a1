"""Random flags and settings files of all models: each combination trains, or is refused with one sentence."""

import dataclasses
import json
import math
import random
import typing
from pathlib import Path
from typing import Any

from config.base import Option
from registry import CHOICES, MODELS
from tests.attacks import runs, worlds
from tests.attacks.programs import Program, limit_memory
from tests.attacks.runner import Attack, Broken, Case, Counts

EVERY_EXEC = 100  # cases run in an interpreter of their own
WORLD = {"dataset": "simulated", "simulated_size": [40, 60, 1100], "device": "cpu", "epochs": 1}
SMALL = {
    "closed_form": {"rating_dim": 2, "rating_fits": 1, "num_features": 2},
    "dyadic": {"embedding_dim": 4, "min_user": 5, "min_item": 5, "iterations": "200"},
}
NET = {"embedding_dim": 4, "batch_size": 500}
# Fields whose names say more than their types: values that fit, and others.
KNOWN: dict[str, tuple[list, list]] = {
    "start_from": (["old"], ["nowhere"]),
    "dataset": (["simulated", "simulated-xing"], ["ml-100k", "netflix"]),
    "data_dir": (["."], ["nowhere"]),
    "ratings": (["my.csv", "my.tsv", "my.dat"], ["labels.csv", "nowhere.csv"]),
    "train_ratings": (["train.csv"], ["my.csv"]),
    "test_ratings": (["test.csv"], ["new.csv"]),
    "feedback": (["labels.csv"], ["my.csv"]),
    "columns": (["user=item,item=user"], ["time=rating", "user=user", "person=user"]),
    "rating_scale": ([[1.0, 5.0], [0.0, 10.0]], [[5.0, 1.0], [4.0, 5.0]]),
    "simulated_size": ([[30, 50, 900], [41, 60, 1100]], [[2, 40, 40], [1, 1, 1]]),
    "labels": (["view", "like", "view,like", "click,save", "click,save,buy"], ["like,view", ",", "a,b,c"]),
    "label_weights": ([[1.0, 0.2]], [[0.5], [1.0, 2.0, 3.0]]),
    "displayed": (["buy"], ["nothing"]),
    "context": (["buy", "click"], ["nothing"]),
    "time": (["timestamp", "buy"], ["nothing"]),
    "monitor": (["mrr", "auc", "mse", "log_loss"], ["nothing"]),
    "layer_sizes": ([[12], [12, 8], [12, 7, 5]], [[13]]),
    "iterations": (["100", "auto", "formula"], ["0", "many"]),
    "lambdas": ([[0.1], [0.1, 0.2, 0.1, 0.0]], [[1.0, 1.0]]),
    "learn": ([["click"], ["click", "bookmark"], ["bookmark"], ["bookmark", "reply"], ["embedding"]], [["click"] * 2]),
    "scale": ([0.01, 0.02], [0.0]),
    "fold": ([[1, 3], [2, 2]], [[4, 3]]),
    "split": (["random", "time", "leave_last", "time67", "random30"], ["none"]),
    "logdir": (["run", "a/b/c", "ö ß"], ["my.csv", "my.csv/run", "/proc/run"]),
    "threads": ([1, 2], [0]),
    "epochs": ([1, 2, 3], [0]),
    "batch_size": ([1, 7, 100, 10**7], [0]),
    "embedding_dim": ([1, 2, 3, 8], [0]),
    "seed": ([1, 2**32 - 1], [2**32]),
    "tune": ([False, False, True], ["yes"]),
}
HELPERS: dict[str, dict] = {  # settings without which a field is refused
    "monitor": {"val_fraction": 0.2},
    "patience": {"val_fraction": 0.2},
    "train_ratings": {"test_ratings": "test.csv", "dataset": "auto", "simulated_size": None},
    "test_ratings": {"train_ratings": "train.csv", "dataset": "auto", "simulated_size": None},
    "ratings": {"dataset": "auto", "simulated_size": None},
    "feedback": {"dataset": "auto", "simulated_size": None, "labels": "click,save"},
    "columns": {"ratings": "my.csv", "dataset": "auto", "simulated_size": None},
    "rating_scale": {"ratings": "my.csv", "dataset": "auto", "simulated_size": None},
    "split": {"ratings": "my.csv", "dataset": "auto", "simulated_size": None},
    "user_weight_exponent": {"ranking_loss": "softmax"},
    "num_item_based": {"ranking_loss": "softmax"},
    "label_weights": {"labels": "view,like"},
    "ensemble_size": {"layer_sizes": [12]},
    "scale": {"dataset": "simulated-xing", "simulated_size": None, "min_user": None, "min_item": None},
    "fold": {"val_fraction": 0.1},
}
STRANGE = ["", " ", "-1", "1e400", "nan", "inf", "-inf", "0x10", "1_000", "ü", "\u2028", "--", "--lr", "None", "true",
           "9" * 30, "a" * 300, "\x1b[31m", "../..", "%s{0}", "\x00"]  # fmt: skip


def prepare(folder: Path) -> None:
    worlds.write_files(folder)
    runs.reference(folder, "old", [*runs.arguments("multitask", 1)])


def case(given: Case) -> Counts:
    draw = given.random
    model = draw.choice(list(MODELS))
    values = WORLD | SMALL.get(model, NET)
    fields = {field.name: field for field in dataclasses.fields(MODELS[model])}
    for name in draw.sample(list(fields), draw.choice((0, 1, 1, 1, 2, 2, 3, 5))):
        if name in HELPERS and draw.random() < 0.95:
            values |= {helper: value for helper, value in HELPERS[name].items() if helper in fields}
        values[name] = choose(draw, fields[name], typing.get_type_hints(MODELS[model])[name])
    values = {name: value for name, value in values.items() if value is not None}
    values.setdefault("logdir", "run")
    as_file = draw.random() < 0.4
    for path in given.shared.iterdir():
        (given.folder / path.name).symlink_to(path)
    line = ["--config", write_config(given.folder, model, values)] if as_file else to_flags(model, values)
    if any("\x00" in word for word in line):
        line = [word.replace("\x00", "0") for word in line]  # no command line can hold it
    process = Program(line, given.folder, before=limit_memory, exec=given.number % EVERY_EXEC == EVERY_EXEC - 1)
    is_trained = process.require_decent_end()
    run = given.folder / str(values["logdir"])
    return judge(process, run, is_trained) | {"files" if as_file else "command lines": 1}


def judge(process: Program, run: Path, is_trained: bool) -> Counts:
    """Raises Broken where the folder does not fit the way in which the run has ended."""
    runs.require_whole_files(run)
    if is_trained:
        runs.require_finite(run)
        return {"trained": 1}
    if run.name == "run" and run.exists() and not runs.rows(run):
        raise Broken(f"{process} is refused and leaves {sorted(path.name for path in run.iterdir())} in {run.name}")
    return {"refused": 1}


def choose(draw: random.Random, field: dataclasses.Field, kind: Any) -> Any:
    """A value of a field: mostly one that fits, sometimes at a limit, sometimes of another kind."""
    known: Option = field.metadata["option"]
    luck = draw.random()
    if luck < 0.03:
        return draw.choice([*STRANGE, -1, 0, 10**30, math.inf, math.nan, [], [1, 2], {}, True, None])
    choices = CHOICES.get(field.name, known.choices)
    if field.name in KNOWN:
        fitting, others = KNOWN[field.name]
        return draw.choice(fitting if luck < 0.95 else others)
    if "tuple" in str(kind):
        length = len(field.default) if field.default else draw.randint(1, 3)
        return [number(draw, known, kind) for _ in range(length)]
    if choices:
        return draw.choice(choices)
    if kind is bool:
        return draw.random() < 0.5
    return number(draw, known, kind)


def number(draw: random.Random, known: Option, kind: Any) -> int | float | str:
    """A number within the range of a field, small enough to train with; sometimes just outside."""
    low = known.low if known.low is not None else known.above or 0
    if "int" in str(kind):
        return draw.choice([int(low), int(low) - 1, *range(int(low), int(low) + 5)]) if draw.random() < 0.5 else 2
    if "float" in str(kind):
        typical = [0.001, 0.01, 0.05, 0.1, 0.3, 0.5, 0.9, 1.0]
        return draw.choice(typical if draw.random() < 0.85 else [*typical, low, 1e-30, 2.0, 1e6, 1e30, -0.5])
    return "text"


def to_flags(model: str, values: dict) -> list[str]:
    line = ["--model", model]
    for name, value in values.items():
        if isinstance(value, bool):
            line.append(f"--{name}" if value else f"--no_{name}")
        else:
            line += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return line


def write_config(folder: Path, model: str, values: dict) -> str:
    (folder / "settings.json").write_text(json.dumps({"model": model} | values))
    return "settings.json"


ATTACK = Attack(
    "flags", "random flags and settings files of all models", case, "trained", 2000,
    short=150, share=8, prepare=prepare,
)  # fmt: skip
