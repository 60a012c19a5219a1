"""The networks of the zoo against a second implementation of their equations, and their sizes against formulas."""

import math
from itertools import chain, pairwise

import pytest
import torch
import torch.nn.functional as F
from test_zoo import ITEMS, TASKS, USERS, WIDTH, build, gradients, losses, rows
from torch import Tensor, nn

from losses import calibrator
from zoo.aitm import InformationTransfer
from zoo.layers import ExpertBank, Gate, Network, PairEncoder, mix
from zoo.networks import NETWORKS


@pytest.fixture(autouse=True)
def _same_draws_in_any_order() -> None:
    torch.manual_seed(0)


def run_expert(bank: ExpertBank, number: int, x: Tensor) -> Tensor:
    """One expert of a bank, layer by layer: (B, D) -> (B, h)."""
    for weight, bias in zip(bank.weights, bank.biases, strict=True):
        x = F.relu(x @ weight[number] + bias[number])
    return x


def run_bank(bank: ExpertBank, x: Tensor) -> list[Tensor]:
    return [run_expert(bank, number, x) for number in range(len(bank.weights[0]))]


def run_gate(gate: Gate, x: Tensor, experts: list[Tensor]) -> Tensor:
    """A mixture, expert by expert: sum_e softmax(W x)_e F_e."""
    powers = (x @ gate.weight.T).exp()
    assert powers.shape[1] == len(experts)
    weights = powers / powers.sum(dim=1, keepdim=True)
    return sum(weights[:, [number]] * expert for number, expert in enumerate(experts))


def assert_towers_read(network: Network, representations: list[Tensor]) -> None:
    """The logits and gradients of the network are those of its towers on these inputs, (B, h) each."""
    users, items, _ = rows()
    found = torch.stack(list(network(users, items).values()))
    expected = torch.stack([tower(z) for tower, z in zip(network.towers, representations, strict=True)])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    pulls = torch.randn(found.shape)
    found_gradients, expected_gradients = (gradients(network, (logits * pulls).sum()) for logits in (found, expected))
    for key, gradient in found_gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[key], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def spread_out(network: Network) -> Network:
    """The network with larger weights: gates far from uniform, so that a wrong gate is noticed."""
    for parameter in network.parameters():
        parameter *= 2
    return network


# Building blocks


def test_the_input_of_a_network_is_both_embeddings_and_their_product():
    encoder = PairEncoder(USERS, ITEMS, WIDTH)
    u, q = encoder.U.weight[7], encoder.Q.weight[11]
    assert torch.equal(encoder(torch.tensor([7]), torch.tensor([11]))[0], torch.cat([u, q, u * q]))
    assert encoder.width == 3 * WIDTH


def test_experts_are_initialized_like_dense_layers():
    bank = ExpertBank(40, 25, (100, 16))
    for layer, fan_in in enumerate((25, 100)):  # U(-1/sqrt(fan_in), 1/sqrt(fan_in)), as in nn.Linear
        for value in (bank.weights[layer], bank.biases[layer]):
            assert value.abs().max().item() == pytest.approx(fan_in**-0.5, rel=0.02)
            assert value.std().item() == pytest.approx(fan_in**-0.5 / math.sqrt(3), rel=0.1)


def test_a_gate_is_the_softmax_of_one_linear_map_without_a_bias():
    gate, x = Gate(9, 4), torch.randn(3, 9)
    powers = (x @ gate.weight.T).exp()
    torch.testing.assert_close(gate(x), powers / powers.sum(dim=1, keepdim=True))
    assert [name for name, _ in gate.named_parameters()] == ["weight"]


def test_a_mixture_lies_between_its_experts_and_a_one_hot_gate_selects_one():
    experts, weights = torch.randn(50, 4, 6), torch.randn(50, 4).softmax(dim=1)
    sure = [one_hot.expand(50, -1) for one_hot in torch.eye(4)]
    z, *picked = mix([weights, *sure], experts)
    assert (z >= experts.amin(dim=1) - 1e-6).all()
    assert (z <= experts.amax(dim=1) + 1e-6).all()
    torch.testing.assert_close(z, sum(weights[:, [number]] * experts[:, number] for number in range(4)))
    assert [torch.equal(choice, experts[:, number]) for number, choice in enumerate(picked)] == [True] * 4


# Sizes


def dense(*widths: int) -> int:
    return sum(fan_in * fan_out + fan_out for fan_in, fan_out in pairwise(widths))


def size(name: str, t: int, d: int, units: tuple, tower: tuple, *, e=8, m=1, s=1, levels=1) -> int:
    """The number of parameters, from the formulas: `t` tasks, `e` experts or `m` per task and `s` shared."""
    tables, width, h = (USERS + ITEMS) * d, 3 * d, units[-1]
    expert, towers = dense(width, *units), t * dense(h, *tower, 1)
    ple = 0
    for level in range(levels):
        entry = h if level else width
        between_levels = level < levels - 1 and s > 0  # without shared experts there is no shared path
        ple += (s + t * m) * dense(entry, *units) + t * entry * (m + s) + between_levels * entry * (t * m + s)
    adatt = sum(
        t * m * dense(entry, *units) + t * entry * t * m + (t * m if m > 1 else 0)
        for entry in (width, *[h] * (levels - 1))
    )
    return {
        "single": t * (tables + expert) + towers,
        "shared_bottom": tables + expert + towers,
        "omoe": tables + e * expert + width * e + towers,
        "mmoe": tables + e * expert + t * width * e + towers,
        "me_mmoe": t * tables + e * expert + t * width * e + towers,
        "cgc": tables + ple + towers,
        "ple": tables + ple + towers,
        "me_ple": (t + (s > 0)) * tables + ple + towers,
        "esmm": tables + t * dense(width, *tower, 1),
        "aitm": tables + t * expert + (t - 1) * dense(h, h) + (3 * h * h if t > 1 else 0) + towers,
        "stem": (t + 1) * tables + (s + t * m) * expert + t * width * (t * m + s) + towers,
        "adatt": tables + adatt + towers,
    }[name]


SIZES = [
    *((name, {}) for name in ("single", "shared_bottom", "esmm", "aitm")),
    *((name, {"experts": count}) for name in ("omoe", "mmoe", "me_mmoe") for count in (1, 5)),
    *((name, {"task_experts": m, "shared_experts": s}) for name in ("cgc", "stem") for m, s in ((1, 3), (3, 1))),
    ("cgc", {"task_experts": 0, "shared_experts": 4}),
    ("cgc", {"task_experts": 4, "shared_experts": 0}),
    *(
        (name, {"levels": levels, "task_experts": m, "shared_experts": s})
        for name in ("ple", "me_ple")
        for levels, m, s in ((1, 2, 3), (2, 3, 1), (3, 1, 2), (2, 0, 3), (2, 3, 0))
    ),
    *(("adatt", {"levels": levels, "task_experts": m}) for levels, m in ((1, 1), (2, 1), (3, 2))),
]
LETTERS = {"experts": "e", "task_experts": "m", "shared_experts": "s", "levels": "levels"}


@pytest.mark.parametrize(("name", "options"), SIZES)
@pytest.mark.parametrize(
    ("num_tasks", "d", "units", "tower"), [(1, 4, (7,), ()), (2, 3, (6, 5), (4,)), (3, 2, (5, 3, 4), (4, 2))]
)
def test_the_number_of_parameters_equals_its_formula(name, options, num_tasks, d, units, tower):
    widths = {"tower_units": tower} if name == "esmm" else {"expert_units": units, "tower_units": tower}
    network = NETWORKS[name](USERS, ITEMS, d, TASKS[:num_tasks], **widths, **options)
    letters = {LETTERS[option]: count for option, count in options.items()}
    assert sum(p.numel() for p in network.parameters()) == size(name, num_tasks, d, units, tower, **letters)


# Equations


@pytest.mark.parametrize("name", ["single", "shared_bottom"])
def test_a_network_without_experts_is_an_encoder_a_bottom_and_a_tower(name):
    network = build(name, 3)
    users, items, _ = rows()
    for number, logit in enumerate(network(users, items).values()):
        encoder = network.encoders[number] if name == "single" else network.encoder
        bottom = network.bottoms[number] if name == "single" else network.bottom
        tower = network.towers[number]
        u, q = encoder.U.weight[users], encoder.Q.weight[items]
        hidden = torch.cat([u, q, u * q], dim=1)
        for layer in (bottom[0], bottom[2], tower.hidden[0]):
            hidden = F.relu(hidden @ layer.weight.T + layer.bias)
        torch.testing.assert_close(logit, (hidden @ tower.output.weight.T + tower.output.bias)[:, 0])


@pytest.mark.parametrize("name", ["ple", "me_ple"])
@pytest.mark.parametrize(("m", "s"), [(1, 3), (3, 1), (2, 2)])
@pytest.mark.parametrize("num_tasks", [1, 2, 3])
def test_extraction_is_its_equations(name, m, s, num_tasks):
    network = spread_out(build(name, num_tasks, levels=3, task_experts=m, shared_experts=s))
    users, items, _ = rows()
    inputs = [encoder(users, items) for encoder in network.encoders]
    inputs = inputs * (num_tasks + 1) if name == "ple" else inputs
    for number, level in enumerate(network.levels):
        own = [run_bank(bank, z) for bank, z in zip(level.own, inputs, strict=False)]
        shared = run_bank(level.shared, inputs[-1])
        choices = [[*bank, *shared] for bank in own]
        if number < 2:
            choices.append([*chain(*own), *shared])  # the shared gate mixes the experts of all tasks
        gates = zip(level.gate_layers, inputs[: len(choices)], choices, strict=True)
        inputs = [run_gate(gate, z, experts) for gate, z, experts in gates]
    assert_towers_read(network, inputs)


@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("num_tasks", [1, 2, 3])
def test_fusion_is_its_equations(m, num_tasks):
    network = spread_out(build("adatt", num_tasks, levels=2, task_experts=m))
    users, items, _ = rows()
    inputs = [network.encoder(users, items)] * num_tasks
    for level in network.levels:
        own = [run_bank(bank, z) for bank, z in zip(level.own, inputs, strict=True)]
        fused = [run_gate(gate, z, [*chain(*own)]) for gate, z in zip(level.gate_layers, inputs, strict=True)]
        weights = torch.ones(num_tasks, 1) if m == 1 else level.residual_weights
        residuals = [
            sum(v * expert for v, expert in zip(row, bank, strict=True)) for row, bank in zip(weights, own, strict=True)
        ]
        inputs = [z + residual for z, residual in zip(fused, residuals, strict=True)]
    assert_towers_read(network, inputs)


def test_the_residual_option_changes_the_output():
    users, items, _ = rows()
    with_it, without = (build("adatt", task_experts=1, residual=residual) for residual in (True, False))
    without.load_state_dict(with_it.state_dict())
    assert not torch.allclose(with_it(users, items)["view"], without(users, items)["view"])


def test_initial_residual_weights_have_both_signs_within_their_bound():
    network = build("adatt", 3, task_experts=9)
    weights = network.levels[0].residual_weights
    assert weights.shape == (3, 9)
    assert (weights < 0).any()
    assert (weights > 0).any()
    assert weights.abs().max() <= 1 / 3


@pytest.mark.parametrize("num_tasks", [2, 3])
def test_multi_embedding_mixture_is_its_equation(num_tasks):
    network = spread_out(build("me_mmoe", num_tasks, experts=3))
    inputs = [encoder(*rows()[:2]) for encoder in network.encoders]
    gates = zip(network.gate_layers, inputs, strict=True)
    assert_towers_read(network, [run_gate(gate, x, run_bank(network.experts, x)) for gate, x in gates])


@pytest.mark.parametrize(("m", "s"), [(1, 3), (2, 1)])
@pytest.mark.parametrize("num_tasks", [1, 2, 3])
def test_stem_is_its_equation(m, s, num_tasks):
    network = spread_out(build("stem", num_tasks, task_experts=m, shared_experts=s))
    *own, shared = (encoder(*rows()[:2]) for encoder in network.encoders)
    banks = [run_bank(bank, x) for bank, x in zip([*network.own, network.shared], [*own, shared], strict=True)]
    mixtures = []
    for task, (gate, x) in enumerate(zip(network.gate_layers, own, strict=True)):
        trained = (task, num_tasks)  # the bank of the task and the shared one, which is last
        experts = [f if number in trained else f.detach() for number, bank in enumerate(banks) for f in bank]
        mixtures.append(run_gate(gate, x + shared, experts))
    assert_towers_read(network, mixtures)


def test_stopping_gradients_does_not_change_the_outputs_of_stem():
    network = build("stem", 3)
    users, items, _ = rows()
    *own, shared = (encoder(users, items) for encoder in network.encoders)
    experts = [bank(x) for bank, x in zip([*network.own, network.shared], [*own, shared], strict=True)]
    for number, logit in enumerate(network(users, items).values()):
        (z,) = mix([network.gate_layers[number](own[number] + shared)], torch.cat(experts, dim=1))
        assert torch.equal(network.towers[number](z), logit)
        z.sum().backward(retain_graph=True)
    assert all(encoder.U.weight.grad.any() for encoder in network.encoders)  # no gradient was stopped here


@pytest.mark.parametrize("num_tasks", [2, 3])
def test_information_transfer_is_its_equations(num_tasks):
    network = spread_out(build("aitm", num_tasks))
    x = network.encoder(*rows()[:2])
    first, *later = (bottom(x) for bottom in network.bottoms)
    value, query, key = network.attention.value, network.attention.query, network.attention.key
    steps = [first]
    for own, transfer in zip(later, network.transfers, strict=True):
        transferred = F.relu(F.linear(steps[-1], transfer[0].weight, transfer[0].bias))
        powers = [
            ((query(u) * key(u)).sum(dim=1, keepdim=True) / math.sqrt(own.shape[1])).exp() for u in (transferred, own)
        ]
        steps.append((powers[0] * value(transferred) + powers[1] * value(own)) / (powers[0] + powers[1]))
    assert_towers_read(network, steps)


def test_information_transfer_is_symmetric_in_its_inputs():
    transfer = InformationTransfer(6)
    p, q = torch.randn(20, 6), torch.randn(20, 6)
    (z, weights), (exchanged, exchanged_weights) = transfer(p, q), transfer(q, p)
    torch.testing.assert_close(z, exchanged)
    torch.testing.assert_close(weights, exchanged_weights.flip(1))
    torch.testing.assert_close(transfer(q, q)[0], transfer.value(q))
    assert [name for name, _ in transfer.named_parameters()] == ["value.weight", "query.weight", "key.weight"]


class Oracle(nn.Module):
    """A tower with these logits for any input."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, z: Tensor) -> Tensor:
        return self.logits


def esmm_of(*factors: Tensor) -> Network:
    """An ESMM whose towers have these logits."""
    network = build("esmm", len(factors))
    network.towers = nn.ModuleList(Oracle(factor) for factor in factors)
    return network


def ask(network: Network) -> list[Tensor]:
    ids = torch.zeros(len(network.towers[0].logits), dtype=torch.long)
    return list(network(ids, ids).values())


def test_esmm_multiplies_the_probabilities_of_all_steps_so_far():
    factors = torch.randn(3, 100, generator=torch.Generator().manual_seed(0)) * 3
    answers = torch.stack(ask(esmm_of(*factors)))
    torch.testing.assert_close(answers.double().sigmoid(), factors.double().sigmoid().cumprod(dim=0))
    assert torch.equal(answers[0], factors[0])


@pytest.mark.parametrize("scale", [1, 10, 80])
def test_probabilities_of_esmm_decrease_along_the_chain(scale):
    view, given_view = torch.randn(2, 20_000, generator=torch.Generator().manual_seed(0)) * scale
    network = esmm_of(view, given_view)
    view, like = ask(network)
    assert like.isfinite().all()
    assert (like <= view).all()
    assert (like <= given_view).all()
    assert (like < view)[given_view < 8].all()  # equal only if the other factor rounds to 1
    assert (like < given_view)[view < 8].all()
    assert calibrator([view, like]).item() == 0


def test_a_factor_of_one_leaves_the_product_unchanged_and_factors_commute():
    a, b = torch.randn(2, 100, generator=torch.Generator().manual_seed(0)) * 5
    assert torch.equal(*ask(esmm_of(a, torch.full((100,), 1e4))))
    torch.testing.assert_close(ask(esmm_of(a, b))[1], ask(esmm_of(b, a))[1], atol=0, rtol=1e-6)


def test_esmm_has_gradients_if_both_factors_are_confidently_wrong():
    network = esmm_of(torch.tensor([60.0]), torch.tensor([60.0]))
    F.binary_cross_entropy_with_logits(ask(network)[1], torch.zeros(1)).backward()
    assert [tower.logits.grad.item() for tower in network.towers] == pytest.approx([0.5, 0.5], abs=1e-5)


# Which task depends on which module


@pytest.mark.parametrize(
    ("name", "part", "heard"),
    [
        ("single", "encoders.1", False),
        ("shared_bottom", "towers.1", False),
        ("mmoe", "gate_layers.1", False),
        ("me_mmoe", "encoders.1", False),
        ("cgc", "levels.0.own.1", False),
        ("ple", "levels.0.own.1", True),
        ("ple", "levels.1.own.1", False),
        ("me_ple", "encoders.1", True),
        ("esmm", "towers.1", False),
        ("aitm", "bottoms.1", False),
        ("stem", "own.1", True),
        ("stem", "encoders.1", True),
        ("stem", "gate_layers.1", False),
        ("adatt", "levels.1.own.1", True),
        ("adatt", "levels.1.gate_layers.1", False),
    ],
)
def test_view_logits_depend_on_the_modules_of_likes_only_as_in_the_paper(name, part, heard):
    network = build(name)
    users, items, _ = rows()
    before = network(users, items)
    with torch.no_grad():
        for parameter in network.get_submodule(part).parameters():
            parameter += torch.randn(parameter.shape)
    after = network(users, items)
    assert torch.equal(before["view"], after["view"]) is not heard
    assert not torch.equal(before["like"], after["like"])


@pytest.mark.parametrize("name", ["ple", "me_ple"])
def test_without_shared_experts_tasks_share_at_most_the_tables(name):
    network = build(name, levels=2, shared_experts=0)
    for trained, other in ((0, 1), (1, 0)):
        reached = {
            key for key, gradient in gradients(network, losses(network)[TASKS[trained]]).items() if gradient.any()
        }
        parts = [f"levels.{level}.{part}" for level in (0, 1) for part in ("own", "gate_layers")] + ["towers"]
        parts += ["encoders"] if name == "me_ple" else []
        assert not any(key.startswith(f"{part}.{other}.") for key in reached for part in parts)
        assert all(any(key.startswith(f"{part}.{trained}.") for key in reached) for part in parts)


@pytest.mark.parametrize("name", ["ple", "me_ple"])
@pytest.mark.parametrize("options", [{"shared_experts": 0}, {"task_experts": 0}, {"levels": 3}, {"levels": 1}])
@pytest.mark.parametrize("num_tasks", [1, 2, 3])
def test_every_parameter_of_extraction_is_trained_in_every_form(name, options, num_tasks):
    network = build(name, num_tasks, **options)
    sum(losses(network).values()).backward()
    assert [key for key, parameter in network.named_parameters() if parameter.grad is None] == []
