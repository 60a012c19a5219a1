"""A run says which steps train it, and why it is autograd."""

import pytest
import torch
from conftest import run
from torch import nn

import losses
from config import parts
from config.multitask import MultiTaskConfig
from models import MultiTaskNet
from multitask import steps
from multitask.steps import make_stepper, reason_for_autograd
from multitask.task import WatchAndRate
from registry import make_config

CPU = torch.device("cpu")
WORLD = ["--dataset", "simulated", "--simulated_size", "40", "60", "1200", "--device", "cpu", "--epochs", "2"]
NARROW = ["--embedding_dim", "8", "--layer_sizes", "24"]
LINES = {
    "plain": ([], "manual gradient"),
    "separate": (["--no_shared_embeddings", "--ranking_loss", "bpr"], "manual gradient"),
    "asked for": (["--steps", "autograd"], "autograd (asked for by --steps)"),
    "asked for beside others": (["--steps", "autograd", "--weighting", "dwa"], "autograd (asked for by --steps)"),
    "weighting": (["--weighting", "uncertainty"], "autograd (--weighting uncertainty)"),
    "decay": (["--embedding_decay", "0.1"], "autograd (--embedding_decay)"),
    "softmax": (["--ranking_loss", "softmax"], "autograd (--ranking_loss softmax)"),
    "item-based": (["--ranking_loss", "softmax", "--num_item_based", "1"], "autograd (--ranking_loss softmax)"),
    "ensemble": ([*NARROW, "--ensemble_size", "2"], "manual gradient"),
    "mixed ensemble": (
        [*NARROW, "--ensemble_size", "4", "--num_item_based", "2", "--ranking_loss", "softmax"],
        "autograd (--ranking_loss softmax)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LINES)
def test_one_line_says_it(case, elsewhere, capsys):
    flags, line = LINES[case]
    assert run(*WORLD, *flags) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [found for found in lines if found.startswith("steps: ")] == [f"steps: {line}"]
    assert lines.index(f"steps: {line}") < next(n for n, found in enumerate(lines) if found.startswith("epoch 1/"))


def test_other_families_have_no_such_line(elsewhere, capsys):
    assert run("--model", "single", *WORLD) == 0
    assert "steps: " not in capsys.readouterr().out


def test_only_autograd_reaches_an_edited_step(elsewhere, monkeypatch):
    """What a student changes in training/steps.py has an effect with --steps autograd."""

    def fail(self, batch):
        raise KeyError("edited")

    monkeypatch.setattr("training.steps.GradientStepper.backward", fail)
    assert run(*WORLD) == 0
    with pytest.raises(KeyError, match="edited"):
        run(*WORLD, "--steps", "autograd")


def test_both_give_the_same_figures_up_to_rounding(elsewhere, tmp_path):
    for name in ("auto", "autograd"):
        assert run(*WORLD, "--steps", name, "--logdir", name) == 0
    found = [torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("auto", "autograd")]
    for one, other in zip(*(part["history"] for part in found), strict=True):
        assert one == pytest.approx(other, rel=1e-3)
    assert run("--resume", "auto", "--steps", "autograd", "--epochs", "3") == 0  # a checkpoint fits both


def reason(model, **settings) -> str | None:
    config = make_config(dataset="simulated", **settings)
    return reason_for_autograd(model, WatchAndRate(reason.data), config, CPU)


@pytest.fixture(autouse=True)
def world(tiny):
    reason.data = tiny


def test_reasons_in_models_py():
    model = MultiTaskNet(60, 80, 4, [12, 6])
    assert reason(model) is None
    model.mlp_layers[1] = nn.LeakyReLU()
    assert reason(model) == "the gradient of this models.py differs"
    model.mlp_layers[0].bias = None
    assert reason(model) == "the gradient of this models.py cannot be compared in float64: AttributeError"

    class Wider(MultiTaskNet):
        pass

    assert reason(Wider(60, 80)) == "Wider is not MultiTaskNet itself"


def test_layers_in_containers_keep_the_manual_gradient():
    model = MultiTaskNet(60, 80, 4, [12, 6])
    model.mlp_layers = nn.ModuleList([nn.Sequential(*model.mlp_layers)])
    assert reason(model) is None


def test_reasons_outside_models_py(tiny, monkeypatch):
    config = MultiTaskConfig(dataset="simulated")
    model, task = MultiTaskNet(60, 80), WatchAndRate(tiny)
    assert reason_for_autograd(model, task, config, torch.device("cuda")) == "on cuda"
    monkeypatch.setitem(losses.PAIRWISE_LOSSES, "hinge", lambda p, n: (1 - p + n).relu().mean())
    hinge = WatchAndRate(tiny, ranking_loss="hinge")
    assert reason_for_autograd(model, hinge, config, CPU) == "--ranking_loss hinge has no manual gradient"
    monkeypatch.setattr(steps, "has_module", lambda name: False)
    assert make_stepper(model, task, config, CPU).notes == (
        "steps: autograd (this copy of the project has no manual gradient)",
    )


def test_modules_of_the_project_are_found_without_importing_them():
    assert parts.has_module("multitask.manual_gradient")
    assert not parts.has_module("multitask.manual")
