"""A run that diverges ends with a sentence, and what was good before is kept."""

import json
import math
import re
from pathlib import Path

import pytest
import torch
from conftest import refused, run

from config.dyadic import LearnerOptions
from config.errors import UserError
from dyadic.task import train
from models import MultiTaskNet
from multitask.task import WatchAndRate
from registry import make_config, recipe_for
from training.divergence import FLOOR, LIMIT, require_no_divergence
from training.loop import fit
from training.run_folder import RunFolder
from training.steps import GradientStepper

CPU = torch.device("cpu")
WORLD = ["--dataset", "simulated", "--simulated_size", 60, 80, 2400]


def epochs(*losses: float) -> list[dict[str, float]]:
    return [{"epoch": number, "train_a": loss, "test_a": 1e9} for number, loss in enumerate(losses, 1)]


def check(*losses: float, first: float = 5.0) -> None:
    """Every epoch of a run with these losses, as the loop does."""
    history = []
    for row in epochs(*losses):
        require_no_divergence(row, {"a": first}, history)
        history.append(row)


@pytest.mark.parametrize(
    ("losses", "first"),
    [
        ((4.0, 3.0, 2.0), 5.0),
        ((500.0, 5.0, 50000.0), 5.0),  # up to a hundred times, and later a hundred times epoch 1
        ((4.0, 400.0, 3.0), 5.0),  # it grows and recovers
        ((0.001, 99.0), 0.0),  # it begins near 0
        ((-3.0, 80.0), -4.0),  # it is negative
        ((-3.0, -1e9), -4.0),
    ],
)
def test_a_loss_may_grow_up_to_the_limit(losses, first):
    check(*losses, first=first)


@pytest.mark.parametrize(
    ("losses", "first", "words"),
    [
        ((501.0,), 5.0, "the loss a rose from 5 at the first step to 501"),
        ((4.0, 401.0), 5.0, "the loss a rose from 4 in epoch 1 to 401"),
        ((4.0, 1.0, 1e30), 5.0, "the loss a rose from 4 in epoch 1 to 1e\\+30"),
        ((0.001, 101.0), 0.0, "the loss a rose from 0.001 in epoch 1 to 101"),
        ((-3.0, 101.0), -4.0, "the loss a rose from -3 in epoch 1 to 101"),
        ((math.nan,), 5.0, "the loss a became nan"),
        ((4.0, math.inf), 5.0, "the loss a became inf"),
    ],
)
def test_a_loss_above_it_is_divergence(losses, first, words):
    with pytest.raises(FloatingPointError, match=words):
        check(*losses, first=first)


def test_a_loss_that_nothing_lowers_may_go_anywhere():
    require_no_divergence({"train_a": 1e30, "train_joint": 1e30, "reg_a": math.nan}, {}, [])
    with pytest.raises(FloatingPointError):
        require_no_divergence({"train_a": math.nan}, {}, [])


SMALL = {"embedding_dim": 8, "simulated_size": (40, 60, 1100), "dataset": "simulated", "device": "cpu", "quiet": True}
LARGE_STEPS = {
    "manual gradient": ("multitask", {"batch_size": 50, "lr": 30.0}),
    "autograd": ("multitask", {"batch_size": 50, "lr": 30.0, "steps": "autograd"}),
    "uncertainty": ("multitask", {"batch_size": 50, "lr": 30.0, "weighting": "uncertainty"}),
    "softmax": ("multitask", {"batch_size": 50, "lr": 30.0, "ranking_loss": "softmax"}),
    "ensemble": (
        "multitask",
        {"batch_size": 50, "lr": 30.0, "ranking_loss": "softmax", "ensemble_size": 2, "num_item_based": 1,
         "layer_sizes": (24,)},
    ),
    "mmoe": ("mmoe", {"batch_size": 200, "lr": 100.0}),
    "esmm": ("esmm", {"batch_size": 200, "lr": 100.0}),
    "dyadic": ("dyadic", {"lr": 1.0, "lambdas": (1.05,), "min_user": 5, "min_item": 5, "iterations": "200"}),
}  # fmt: skip


@pytest.mark.parametrize("name", LARGE_STEPS)
def test_every_family_notices_it(name, tmp_path):
    model, changes = LARGE_STEPS[name]
    config = make_config(model, **SMALL | changes, epochs=3)
    recipe = recipe_for(config)
    data = recipe.load_data(config)
    config = recipe.resolve(config, data, lambda line: None)
    run = RunFolder.new(tmp_path / "run")
    run.write_config({"settings": {}, "data": {}})
    with pytest.raises(UserError, match=r"the loss \w+ rose from .* to .* in epoch \d: lower --lr \(now .*; .* kept"):
        fit(recipe.build(config, data, CPU), config, run, CPU, lambda line: None)


def test_a_fit_in_memory_notices_it():
    dyads = make_config("dyadic", **SMALL, min_user=5, min_item=5)
    options = LearnerOptions(lr=1.0, lambdas=(1.05,), iterations="200", epochs=3)
    with pytest.raises(UserError, match=r"the loss \w+ rose from .* in epoch 1: lower --lr \(now 1\)"):
        train(recipe_for(dyads).load_data(dyads), options, quiet=True)


@pytest.fixture
def sick(monkeypatch):
    """From the third epoch on, the regression loss is a thousand times what it is."""

    def run_epoch(self, epoch, history, stop, plain=GradientStepper.run_epoch):
        row = plain(self, epoch, history, stop)
        return row | {"train_regression": row["train_regression"] * (1000 if epoch > 2 else 1)}

    with monkeypatch.context() as patch:
        patch.setattr(GradientStepper, "run_epoch", run_epoch)
        yield patch


def test_the_good_epochs_are_kept_asked_and_resumed(elsewhere, capsys, sick):
    sentence = (
        r"main.py: error: the loss regression rose from \S+ in epoch 1 to \S+ in epoch 3: lower --lr \(now 0.005\); "
    )
    sentence += "2 finished epochs are kept in run/a\n"
    words = [*WORLD, "--epochs", 4, "--val_fraction", 0.1]
    assert re.fullmatch(sentence, refused(capsys, *words, "--logdir", "run/a"))
    assert len(Path("run/a/metrics.csv").read_text().splitlines()) == 3
    assert re.fullmatch(sentence, refused(capsys, "--resume", "run/a"))  # it diverges again
    assert run("--recommend", 5, "--json") == 0
    assert json.loads(capsys.readouterr().out)["checkpoint"] == "best"
    sick.undo()
    assert run("--resume", "run/a") == 0
    assert run(*words, "--logdir", "run/b") == 0
    assert Path("run/a/metrics.csv").read_bytes() == Path("run/b/metrics.csv").read_bytes()


def test_a_new_run_that_diverges_at_once_leaves_nothing(elsewhere, capsys):
    message = refused(capsys, *WORLD, "--lr", 100, "--logdir", "run/a")
    assert "the loss regression rose from " in message
    assert message.endswith(" in epoch 1: lower --lr (now 100); nothing was kept\n")
    assert not Path("run/a").exists()


def test_a_squared_error_counts_at_least_as_much_as_that_of_predicting_0(tiny):
    """A first batch without extreme ratings says little about the others."""
    stepper = GradientStepper(MultiTaskNet(60, 80), WatchAndRate(tiny), make_config(), CPU)
    stepper.run_epoch(1, [], lambda: False)
    of_zero = tiny.interactions.ratings.square().mean().item()
    assert stepper.first_losses["regression"] >= of_zero - 1e-3
    stepper._note_first_losses({"factorization": 0.25, "regression": 0.1})
    assert stepper.first_losses == {"factorization": 0.25, "regression": pytest.approx(of_zero)}
    assert of_zero > FLOOR
    assert LIMIT == 100
