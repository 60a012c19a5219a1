"""The dense layers of f_theta are found in order of use, wherever they lie."""

import pytest
import torch
from conftest import ROOT
from torch import nn

from models import MultiTaskNet
from multitask.dense_layers import dense_layers, layer_names


class Backwards(nn.Module):
    """An MLP whose last layer is registered first."""

    def __init__(self) -> None:
        super().__init__()
        self.out, self.relu, self.hidden = nn.Linear(4, 1), nn.ReLU(), nn.Linear(6, 4)

    def forward(self, x):
        return self.out(self.relu(self.hidden(x)))


class Functional(nn.Module):
    """An MLP whose layers are not called as modules."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(6, 4), nn.Linear(4, 1)

    def forward(self, x):
        hidden = nn.functional.linear(x, self.hidden.weight, self.hidden.bias).relu()
        return nn.functional.linear(hidden, self.out.weight, self.out.bias)


LAYERS = {
    "as in models.py": ([nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 1)], ["0", "2"]),
    "one": ([nn.Linear(6, 1)], ["0"]),
    "in containers": ([nn.Sequential(nn.Linear(6, 4), nn.ReLU()), nn.Sequential(nn.Linear(4, 1))], ["0.0", "1.0"]),
    "registered backwards": ([Backwards()], ["0.hidden", "0.out"]),
    "not called as modules": ([Functional()], ["0.hidden", "0.out"]),
}


@pytest.mark.parametrize("case", LAYERS)
def test_order_of_use(case):
    layers, names = LAYERS[case]
    model = MultiTaskNet(3, 5, 2, [6, 4])
    model.mlp_layers = nn.ModuleList(layers)
    state = torch.get_rng_state()
    found = dense_layers(model)
    assert found == [model.get_submodule(f"mlp_layers.{name}") for name in names]
    assert layer_names(model) == [f"mlp_layers.{name}" for name in names]
    assert model.training
    assert torch.get_rng_state().equal(state)
    assert not any(layer._forward_pre_hooks for layer in found)


def test_no_other_code_looks_into_the_layers():
    """Outside models.py, its tests, the grader and the plain reference loop, one file reads mlp_layers."""
    folders = ["analysis", "benchmarks", "multitask", "serving", "training"]
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    readers = {path.name for path in paths if ".mlp_layers" in path.read_text(encoding="utf-8")}
    assert readers == {"dense_layers.py", "item_based.py", "network_check.py", "plain.py"}
