"""The networks of the zoo against each other: with copied weights, one is often a special case of another."""

import pytest
import torch
from test_zoo import build, rows
from torch import Tensor, nn

from zoo.layers import MLP, ExpertBank, Network, PairEncoder
from zoo.networks import NETWORKS

LAYERS = pytest.mark.parametrize("units", [(5,), (6, 5), (5, 3, 4)])


@pytest.fixture(autouse=True)
def _same_draws_in_any_order() -> None:
    torch.manual_seed(0)


def logits(network: Network) -> list[Tensor]:
    users, items, _ = rows()
    return list(network(users, items).values())


def assert_same(one: Network, other: Network) -> None:
    for a, b in zip(logits(one), logits(other), strict=True):
        torch.testing.assert_close(a, b)


def assert_bit_equal(one: Network, other: Network) -> None:
    assert all(torch.equal(a, b) for a, b in zip(logits(one), logits(other), strict=True))


@torch.no_grad()
def copy_mlp(bank: ExpertBank, number: int, mlp: MLP) -> None:
    dense = [layer for layer in mlp if isinstance(layer, nn.Linear)]
    for weight, bias, layer in zip(bank.weights, bank.biases, dense, strict=True):
        weight[number] = layer.weight.T
        bias[number] = layer.bias


@torch.no_grad()
def copy_banks(target: ExpertBank, sources: list[ExpertBank]) -> None:
    """Copy the experts of several banks into one bank."""
    for layer in range(len(target.weights)):
        target.weights[layer].copy_(torch.cat([bank.weights[layer] for bank in sources]))
        target.biases[layer].copy_(torch.cat([bank.biases[layer] for bank in sources]))


def copy(target: nn.Module, source: nn.Module) -> None:
    target.load_state_dict(source.state_dict())


class Oracle(nn.Module):
    """A gate with the same weights for every row."""

    def __init__(self, *weights: float) -> None:
        super().__init__()
        self.weights = torch.tensor(weights)

    def forward(self, x: Tensor) -> Tensor:
        return self.weights.expand(len(x), -1)


@LAYERS
@pytest.mark.parametrize("count", [1, 3])
def test_a_bank_equals_separate_mlps(units, count):
    mlps = [MLP(9, units) for _ in range(count)]
    bank = ExpertBank(count, 9, units)
    for number, mlp in enumerate(mlps):
        copy_mlp(bank, number, mlp)
    x = torch.randn(4, 9)
    torch.testing.assert_close(bank(x), torch.stack([mlp(x) for mlp in mlps], dim=1))


ONE_LEVEL = {"ple": {"levels": 1}, "me_ple": {"levels": 1}, "adatt": {"levels": 1, "residual": False}}


# AITM is left out with several tasks: its attention maps its inputs before adding them.
@pytest.mark.parametrize(
    ("name", "num_tasks"), [(name, t) for name in NETWORKS for t in (1, 2) if (name, t) != ("aitm", 2)]
)
def test_a_network_with_equal_experts_is_a_shared_bottom(name, num_tasks):
    """With one task, each network without its mixture is the single-task network."""
    network = build(name, num_tasks, **ONE_LEVEL.get(name, {}))
    shared = build("shared_bottom", num_tasks, seed=1, **({"expert_units": ()} if name == "esmm" else {}))
    for part in network.modules():
        if isinstance(part, PairEncoder):
            copy(part, shared.encoder)
        elif isinstance(part, ExpertBank):
            for number in range(len(part.weights[0])):
                copy_mlp(part, number, shared.bottom)
    for bottom in [*getattr(network, "bottoms", []), *filter(None, [getattr(network, "bottom", None)])]:
        copy(bottom, shared.bottom)
    copy(network.towers, shared.towers)
    if name == "esmm":
        for a, b in zip(network.conditional_logits(*rows()[:2]).values(), logits(shared), strict=True):
            assert torch.equal(a, b)
    else:
        assert_same(network, shared)


@LAYERS
@pytest.mark.parametrize("name", ["omoe", "mmoe"])
@pytest.mark.parametrize("num_tasks", [1, 2, 3])
def test_one_expert_is_a_shared_bottom(name, units, num_tasks):
    mixture = build(name, num_tasks, experts=1, expert_units=units)
    shared = build("shared_bottom", num_tasks, seed=1, expert_units=units)
    copy(mixture.encoders[0], shared.encoder)
    copy_mlp(mixture.experts, 0, shared.bottom)
    copy(mixture.towers, shared.towers)
    assert_same(mixture, shared)


@pytest.mark.parametrize("number", [0, 2])
def test_a_one_hot_gate_reproduces_its_expert(number):
    mixture, shared = build("mmoe", experts=3), build("shared_bottom", seed=1)
    copy(mixture.encoders[0], shared.encoder)
    copy(mixture.towers, shared.towers)
    copy_mlp(mixture.experts, number, shared.bottom)
    mixture.gate_layers[1] = Oracle(*torch.eye(3)[number].tolist())
    view, like = logits(mixture)
    torch.testing.assert_close(like, logits(shared)[1])
    assert not torch.allclose(view, logits(shared)[0])


def test_one_gate_equals_one_gate_per_task_with_tied_weights():
    one, several = build("omoe", 3), build("mmoe", 3, seed=1)
    for part in ("encoders", "experts", "towers"):
        copy(getattr(several, part), getattr(one, part))
    for gate in several.gate_layers:
        copy(gate, one.gate_layers[0])
    assert_same(one, several)  # not bit-equal: mixtures of one gate and of three are summed in a different order


def test_a_mixture_does_not_depend_on_the_order_of_its_experts():
    network, shuffled = build("mmoe", experts=5), build("mmoe", experts=5)
    order = torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        for parameter in [*shuffled.experts.weights, *shuffled.experts.biases]:
            parameter.copy_(parameter[order].clone())
        assert not torch.allclose(logits(shuffled)[0], logits(network)[0])
        for gate in shuffled.gate_layers:
            gate.weight.copy_(gate.weight[order].clone())
    assert_same(network, shuffled)


def test_tasks_may_be_exchanged_together_with_their_towers():
    network, exchanged = build("shared_bottom"), build("shared_bottom")
    exchanged.towers = exchanged.towers[::-1]
    view, like = logits(network)
    assert not torch.equal(view, like)
    assert [torch.equal(a, b) for a, b in zip(logits(exchanged), (like, view), strict=True)] == [True, True]


@pytest.mark.parametrize(("m", "s"), [(1, 3), (3, 1), (0, 2), (2, 0)])
@pytest.mark.parametrize("num_tasks", [1, 2, 3])
def test_one_level_of_extraction_is_customized_gate_control(m, s, num_tasks):
    ple = build("ple", num_tasks, levels=1, task_experts=m, shared_experts=s)
    cgc = build("cgc", num_tasks, seed=1, task_experts=m, shared_experts=s)
    copy(cgc, ple)
    assert_bit_equal(ple, cgc)


def test_ple_with_shared_experts_only_is_mmoe():
    cgc, mmoe = build("cgc", 3, task_experts=0, shared_experts=4), build("mmoe", 3, seed=1, experts=4)
    copy(mmoe.encoders, cgc.encoders)
    copy(mmoe.experts, cgc.levels[0].shared)
    copy(mmoe.gate_layers, cgc.levels[0].gate_layers)
    copy(mmoe.towers, cgc.towers)
    assert_same(cgc, mmoe)


@pytest.mark.parametrize("m", [1, 3])
def test_fusion_without_residual_is_a_mixture_of_all_experts(m):
    adatt = build("adatt", 3, levels=1, task_experts=m, residual=False)
    mmoe = build("mmoe", 3, seed=1, experts=3 * m)
    copy(mmoe.encoders[0], adatt.encoder)
    copy_banks(mmoe.experts, list(adatt.levels[0].own))
    copy(mmoe.gate_layers, adatt.levels[0].gate_layers)
    copy(mmoe.towers, adatt.towers)
    assert_same(adatt, mmoe)


def test_stem_on_equal_tables_without_other_tasks_is_customized_gate_control():
    m, s = 2, 3
    stem = build("stem", task_experts=m, shared_experts=s)
    cgc = build("cgc", seed=1, task_experts=m, shared_experts=s)
    for encoder in stem.encoders:
        copy(encoder, cgc.encoders[0])
    copy(stem.own, cgc.levels[0].own)
    copy(stem.shared, cgc.levels[0].shared)
    copy(stem.towers, cgc.towers)

    class Masked(nn.Module):
        """CGC's gate on half of the input, as STEM adds two inputs up; nothing for the experts of others."""

        def __init__(self, task: int) -> None:
            super().__init__()
            self.task = task

        def forward(self, x: Tensor) -> Tensor:
            inner = cgc.levels[0].gate_layers[self.task](x / 2)
            none = torch.zeros(len(x), m)
            before, after = ([inner[:, :m], none], [none, inner[:, :m]])[self.task]
            return torch.cat([before, after, inner[:, m:]], dim=1)

    stem.gate_layers = nn.ModuleList([Masked(0), Masked(1)])
    assert_same(stem, cgc)


def test_esmm_without_the_product_is_two_towers_on_shared_tables():
    esmm, towers = build("esmm", 3), build("shared_bottom", 3, seed=1, expert_units=())
    copy(towers, esmm)
    for factor, logit in zip(esmm.conditional_logits(*rows()[:2]).values(), logits(towers), strict=True):
        assert torch.equal(factor, logit)


def test_aitm_without_transfer_is_one_bottom_per_task_on_shared_tables():
    aitm, single = build("aitm", 3), build("single", 3, seed=1)
    for part in ("bottoms", "towers"):
        copy(getattr(single, part), getattr(aitm, part))
    for encoder in single.encoders:
        copy(encoder, aitm.encoder)
    aitm.attention.forward = lambda transferred, own: (own, torch.zeros(len(own), 2))
    assert_bit_equal(aitm, single)
