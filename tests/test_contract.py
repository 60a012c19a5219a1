"""The contract that every model of the registry meets, checked on a small simulated world."""

import contextlib
import dataclasses
import math
from pathlib import Path

import pytest
import torch

from config.base import GradientConfig
from config.errors import UserError
from registry import MODELS, make_config, recipe_for
from training.data_parallel import DataParallelStepper
from training.divergence import require_no_divergence
from training.epoch_line import epoch_line
from training.loop import Outcome, fit
from training.report import report
from training.run_folder import RunFolder
from training.session import describe

CPU = torch.device("cpu")
WORLD = {"dataset": "simulated", "simulated_size": (40, 60, 1100), "device": "cpu", "quiet": True, "epochs": 2}
SMALL = {
    "multitask": {"embedding_dim": 4, "batch_size": 200},
    "closed_form": {"ranking": "ease", "ridge": 50.0, "ranking_dim": 8, "rating_dim": 2, "rating_fits": 1,
                    "num_features": 2, "genres": "off"},
    "dyadic": {"embedding_dim": 4, "min_user": 5, "min_item": 5, "iterations": "300", "epochs": 2},
}  # fmt: skip
SMALL_ZOO = {"embedding_dim": 4, "batch_size": 1500}
SOFTMAX = {"ranking_loss": "softmax"}

OWN = {"dataset": "auto", "simulated_size": (943, 1682, 100_000), "ratings": "my.csv"}

# Where doubling a number, or taking the next choice, is not enough: settings under which a field has an effect, and the
# change itself.
CHANGES: dict[str, tuple[dict, dict]] = {
    "start_from": ({}, {"start_from": "old"}),
    "dataset": ({}, {"dataset": "auto", "ratings": "my.csv", "simulated_size": (943, 1682, 100_000)}),
    "ratings": ({}, {"dataset": "auto", "ratings": "my.csv", "simulated_size": (943, 1682, 100_000)}),
    "train_ratings": (
        {"dataset": "auto", "simulated_size": (943, 1682, 100_000), "ratings": "my.csv"},
        {"ratings": None, "train_ratings": "train.csv", "test_ratings": "test.csv"},
    ),
    "test_ratings": (
        {
            "dataset": "auto", "simulated_size": (943, 1682, 100_000),
            "train_ratings": "train.csv", "test_ratings": "test.csv",
        },
        {"test_ratings": "other.csv"},
    ),
    "columns": (OWN, {"columns": "user=item,item=user"}),
    "split": (OWN, {"split": "time"}),
    "fold": ({}, {"fold": (2, 3)}),
    "min_user_ratings": ({}, {"min_user_ratings": 25}),
    "min_item_ratings": ({}, {"min_item_ratings": 15}),
    "rating_scale": ({"dataset": "auto", "simulated_size": (943, 1682, 100_000), "ratings": "my.csv"},
                     {"rating_scale": (2.0, 5.0)}),
    "simulated_size": ({}, {"simulated_size": (41, 60, 1100)}),
    "feedback": ({}, {"dataset": "auto", "simulated_size": (943, 1682, 100_000), "feedback": "clicks.csv",
                      "labels": "click,save,buy"}),
    "monitor": ({"val_fraction": 0.2}, {"monitor": "log_loss"}),
    "patience": ({"val_fraction": 0.2, "epochs": 9, "lr": 0.1}, {"patience": 1}),
    "factorization_weight": ({}, {"factorization_weight": 0.5}),
    "layer_sizes": ({}, {"layer_sizes": (12, 7)}),
    "negative_sampling": ({}, {"negative_sampling": "unseen"}),
    "user_weight_exponent": (SOFTMAX, {"user_weight_exponent": 0.5}),
    "ensemble_size": ({**SOFTMAX, "layer_sizes": (12,)}, {"ensemble_size": 2}),
    "num_item_based": ({**SOFTMAX, "layer_sizes": (12,), "ensemble_size": 2}, {"num_item_based": 1}),
    "labels": ({}, {"labels": "view", "calibrator": 0.0}),
    "label_weights": ({}, {"label_weights": (1.0, 0.2)}),
    "like_from": ({}, {"like_from": 3.0}),
    "calibrator": ({}, {"calibrator": 2.0}),
    "chain": ({}, {"chain": "conditional"}),
    "iterations": ({}, {"iterations": "200"}),
    "learn": ({}, {"learn": ("click",)}),
    "lambdas": ({}, {"lambdas": (0.1,)}),
    "class_weights": ({}, {"class_weights": (3.0, 2.0)}),
    "thresholds": ({}, {"thresholds": (0.3, 0.3, 0.3, 0.3)}),
    "eps": ({"epochs": 6}, {"eps": 1e3}),
    "stop_rule": ({"eps": 1e-2, "epochs": 6}, {"stop_rule": "total"}),
    "exclude_self": ({"num_neighbors": 3}, {"exclude_self": False}),
    "num_neighbors": ({}, {"num_neighbors": 2}),
    "similarity": ({"num_neighbors": 3}, {"similarity": "im"}),
    "neighbors": ({"num_neighbors": 3}, {"neighbors": "global"}),
    "absent": ({"num_neighbors": 30}, {"absent": "zero"}),
    "min_user": ({}, {"min_user": 25}),
    "min_item": ({}, {"min_item": 25}),
    "iterate": ({"min_user": 20, "min_item": 12}, {"iterate": False}),
    "scale": ({"dataset": "simulated-xing", "simulated_size": (943, 1682, 100_000), "min_user": 30, "min_item": 30,
               "scale": 0.01}, {"scale": 0.02}),
    "displayed": ({"dataset": "auto", "simulated_size": (943, 1682, 100_000), "feedback": "clicks.csv",
                   "labels": "click,save,buy"}, {"displayed": "shown"}),
    "context": ({"dataset": "auto", "simulated_size": (943, 1682, 100_000), "feedback": "clicks.csv",
                 "labels": "click,save,buy"}, {"context": "age"}),
    "time": ({"dataset": "auto", "simulated_size": (943, 1682, 100_000), "feedback": "clicks.csv",
              "labels": "click,save,buy"}, {"split": "time67", "time": "when"}),
    "ranking": ({}, {"ranking": "networks"}),
    "genres": ({}, {"genres": "on"}),
    "tune": ({"iterations": "30", "epochs": 1}, {"tune": True}),
}  # fmt: skip
CHANGES_OF = {"dyadic": {"split": (OWN, {"split": "time67"})}}  # of fields that are of the same name only


@pytest.fixture(autouse=True)
def own_files(elsewhere: Path) -> None:
    """The user's own files that CHANGES names."""
    pairs = [(user, item) for user in range(40) for item in range(50) if (user * 7 + item * 3) % 5 < 3]
    rows = [f"u{user},i{item},{1 + (user + 2 * item) % 4},{user * item}" for user, item in pairs]
    for name, chosen in (("my", rows), ("train", rows[::2]), ("test", rows[1::4]), ("other", rows[3::4])):
        (elsewhere / f"{name}.csv").write_text("user,item,rating,time\n" + "\n".join(chosen) + "\n")
    lines = [
        f"u{user},i{item},{int(n % 3 < 2)},{int(n % 3 == 0)},{int(n % 6 == 0)},{int(user % 4 > 0)},{n},{user * item}"
        for user, item in pairs
        for n in [user + item]
    ]
    (elsewhere / "clicks.csv").write_text("user,item,click,save,buy,shown,age,when\n" + "\n".join(lines) + "\n")


def values_of(model: str) -> dict:
    return WORLD | SMALL.get(model, SMALL_ZOO)


def config_of(model: str, *changes: dict):
    """A small config with changes; those of fields that the model does not have are left out."""
    values = values_of(model)
    for change in changes:
        values |= change
    return make_config(model, **{name: v for name, v in values.items() if name in MODELS[model].__dataclass_fields__})


def prepare(config):
    """(resolved config, data, training)."""
    recipe = recipe_for(config)
    data = recipe.load_data(config)
    config = recipe.resolve(config, data, lambda line: None)
    return config, data, recipe.build(config, data, CPU)


def run_in(folder: Path, config):
    """Train in a run folder: (outcome, training, the folder)."""
    config, data, training = prepare(config)
    run = RunFolder(folder)
    if not (folder / "config.json").exists():
        run.write_config(describe(config, {}, data))
        run.write_data(data.pack())
    return fit(training, config, run, CPU, lambda line: None), training, run


def result_of(config) -> tuple:
    """Everything that a run ends with, as one comparable value."""
    outcome, training, _ = run_in(Path(f"run-{len(list(Path.cwd().iterdir()))}"), config)
    weights = {name: value.tolist() for name, value in training.model.state_dict().items()}
    return outcome.history, outcome.ending, outcome.monitored, weights


@pytest.mark.parametrize("model", MODELS)
class TestContract:
    def test_its_losses_are_finite(self, model):
        config, _, training = prepare(config_of(model))
        if isinstance(config, GradientConfig):
            for batch in training.task.batches(1):
                losses = training.task.losses(training.model, batch)
                assert set(losses) == set(training.task.loss_names) == set(config.weights)
                assert all(loss.isfinite() and loss.dim() == 0 for loss in losses.values())
        stepper = training.make_stepper(training.model, training.task, config, CPU)
        row = stepper.run_epoch(1, [], lambda: False)
        assert all(math.isfinite(value) for name, value in row.items() if name.startswith("train_"))
        require_no_divergence(row, stepper.first_losses, [])
        assert stepper.first_losses
        for name, first in stepper.first_losses.items():
            assert 0 < first < 1e3
            with pytest.raises(FloatingPointError, match=f"the loss {name} rose"):
                require_no_divergence(row | {f"train_{name}": 101 * max(first, 1.0)}, stepper.first_losses, [])
        assert not isinstance(stepper, DataParallelStepper)

    def test_a_resumed_run_equals_an_uninterrupted_one(self, model, tmp_path):
        whole, straight, _ = run_in(tmp_path / "whole", config_of(model, {"epochs": 3}))
        run_in(tmp_path / "parts", config_of(model, {"epochs": 1}))
        resumed, continued, _ = run_in(tmp_path / "parts", config_of(model, {"epochs": 3}))
        assert resumed.history == whole.history
        twin = continued.model.state_dict()
        assert all(twin[name].equal(value) for name, value in straight.model.state_dict().items())

    def test_saved_and_loaded_it_has_the_same_metrics(self, model, tmp_path):
        outcome, _, run = run_in(tmp_path / "run", config_of(model))
        _, _, fresh = prepare(config_of(model))
        run.restore("last", CPU, {"model": fresh.model})
        last = outcome.history[-1]
        for split in fresh.task.splits:
            found = fresh.task.metrics(fresh.model, split)
            assert {f"{split}_{name}": value for name, value in found.items()} == pytest.approx(
                {name: value for name, value in last.items() if name.startswith(f"{split}_")}, nan_ok=True
            )

    def test_what_it_reports_is_titled(self, model, tmp_path):
        outcome, training, _ = run_in(tmp_path / "run", config_of(model))
        task = training.task
        tags = [task.tags[name] for name in outcome.history[-1] if name != "epoch"]
        assert len(set(tags)) == len(tags)
        assert all("/" in tag and not tag.startswith("weighting/") for tag in tags)
        assert task.directions.get(task.primary_metric)
        assert set(task.console_metrics) | set(task.compared) <= set(task.directions)
        measured = {name.removeprefix("test_") for name in outcome.history[-1] if name.startswith("test_")}
        assert measured == set(task.directions)

    def test_what_it_prints_fits_a_terminal(self, model):
        config, _, training = prepare(config_of(model))
        task = training.task
        parts = ("train", "reg", "fixed", *task.splits)
        columns = [name for part in parts for name in task.tags if name.startswith(f"{part}_")]
        history = [{"epoch": epoch} | dict.fromkeys(columns, 0.5) for epoch in (1, 2)]
        metrics, left = task.console_metrics, "about 2 min left"
        whole = set(epoch_line(history[0], metrics, 100, 1.0, left).split())
        for width in range(60, 201):
            line = epoch_line(history[0], metrics, 100, 1.0, left, width)
            assert len(line) <= width
            assert f"{task.splits[0]} " in line
            assert f"{metrics[0]} 0.5000" in line
            assert width < 80 or line.endswith(left)
            assert set(line.split()) <= whole | set(left.split())
        baselines = {name: dict.fromkeys(task.compared, 0.5) for name in ("popularity", "user + item mean")}
        outcome = Outcome(history, 2, "val_x", "finished", 2, {}, baselines if task.compared else {})
        for width in (*range(60, 201, 20), 79):
            lines = "\n".join(report(outcome, task, Path("run/a"), config, width)).split("\n")
            tables = [line for line in lines if line.count("0.5") > 1 or line.startswith("test part")]
            assert len(tables) >= len(columns)
            assert max(map(len, tables)) <= width


# Networks of many experts: each takes many seconds. MMoE stands for them in the fast tests.
MANY_EXPERTS = ("cgc", "me_mmoe", "me_ple", "ple", "stem")


@pytest.mark.parametrize(
    "model", [pytest.param(name, marks=pytest.mark.slow) if name in MANY_EXPERTS else name for name in MODELS]
)
def test_every_field_changes_something_or_is_rejected(model):
    plain = {}
    idle = []
    run_in(Path("old"), config_of(model, {"seed": 9}))  # for start_from
    for field in dataclasses.fields(MODELS[model]):
        known = field.metadata["option"]
        if not known.affects_result:
            continue
        known_changes = CHANGES | CHANGES_OF.get(model, {})
        context, change = known_changes.get(field.name) or ({}, {field.name: other_value(field, model)})
        before = config_of(model, context)
        if repr(before) not in plain:
            plain[repr(before)] = result_of(before)
        with contextlib.suppress(UserError):  # rejected
            if result_of(config_of(model, context, change)) == plain[repr(before)]:
                idle.append(field.name)
    assert idle == []


def other_value(field: dataclasses.Field, model: str):
    """A value of a field that differs from the one of values_of(model)."""
    value = values_of(model).get(field.name, field.default)
    choices = field.metadata["option"].choices
    if choices:
        return next(choice for choice in choices if choice != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2 if value else 0.5
    if isinstance(value, tuple):
        return tuple(entry + 1 for entry in value)
    return {"weighting": "uncertainty"}[field.name]
