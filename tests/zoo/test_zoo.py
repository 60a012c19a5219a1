"""Properties of every network of the zoo: shapes, sizes, and which loss trains which parameters."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from losses import calibrator, joint_loss, masked_log_loss
from zoo.layers import ExpertBank, Network
from zoo.networks import NETWORKS, build_network

TASKS = ("view", "like", "share")
USERS, ITEMS, WIDTH = 10, 12, 4

EVERY_NETWORK = pytest.mark.parametrize("name", NETWORKS)
EVERY_TASK_COUNT = pytest.mark.parametrize("num_tasks", [1, 2, 3])

TAKES = {  # arguments that set the number of experts
    "omoe": ["experts"],
    "mmoe": ["experts"],
    "me_mmoe": ["experts"],
    "cgc": ["task_experts", "shared_experts"],
    "ple": ["task_experts", "shared_experts"],
    "me_ple": ["task_experts", "shared_experts"],
    "stem": ["task_experts", "shared_experts"],
    "adatt": ["task_experts"],
}


def build(name: str, num_tasks: int = 2, seed: int = 0, **options) -> Network:
    """A small network with the first tasks."""
    units = {"tower_units": (6,)} if name == "esmm" else {"expert_units": (8, 7), "tower_units": (6,)}
    torch.manual_seed(seed)
    return NETWORKS[name](USERS, ITEMS, WIDTH, TASKS[:num_tasks], **(units | options))


def rows(count: int = 64) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Distinct (user, item) pairs, and labels that form a chain."""
    draw = torch.Generator().manual_seed(1)
    pairs = torch.randperm(USERS * ITEMS, generator=draw)[:count]
    labels, label = {}, torch.ones(count)
    for task in TASKS:
        label = label * torch.rand(count, generator=draw).lt(0.7)
        labels[task] = label
    return pairs // ITEMS, pairs % ITEMS, labels


def losses(network: Network) -> dict[str, Tensor]:
    users, items, labels = rows()
    return {task: masked_log_loss(logit, labels[task]) for task, logit in network(users, items).items()}


def gradients(network: Network, loss: Tensor) -> dict[str, Tensor]:
    """The gradient of every parameter by name; zero for parameters that the loss does not reach."""
    network.zero_grad()
    loss.backward()
    return {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        for name, parameter in network.named_parameters()
    }


def train(network: Network, weights: dict[str, float], steps: int = 5, lr: float = 0.01) -> None:
    """Steps of Adam on the weighted sum of the losses; "calibrator" is one of the losses if it has a weight."""
    users, items, _ = rows()
    optimizer = torch.optim.Adam(network.parameters(), lr)
    for _ in range(steps):
        parts = losses(network)
        if "calibrator" in weights:
            parts["calibrator"] = calibrator(list(network(users, items).values()))
        optimizer.zero_grad()
        joint_loss({name: parts[name] for name in weights}, weights).backward()
        optimizer.step()


@EVERY_NETWORK
@EVERY_TASK_COUNT
@pytest.mark.parametrize("batch", [0, 1, 5])
def test_each_task_has_one_logit_per_row_in_the_order_of_the_tasks(name, num_tasks, batch):
    network = build(name, num_tasks)
    users, items, _ = rows(batch)
    logits = network(users, items)
    assert list(logits) == list(TASKS[:num_tasks])
    assert all(logit.shape == (batch,) and logit.dtype == torch.float32 for logit in logits.values())
    assert list(network.conditional_logits(users, items)) == list(logits)
    assert all(len(gate) == batch for gate in network.gates(users, items).values())


@EVERY_NETWORK
@pytest.mark.parametrize("batch", [0, 1, 5])
def test_layers_with_one_unit_keep_the_batch_dimension(name, batch):
    units = {"tower_units": (1,)} | ({} if name == "esmm" else {"expert_units": (1,)})
    users, items, _ = rows(batch)
    for one in ({}, dict.fromkeys(TAKES.get(name, []), 1)):
        assert all(logit.shape == (batch,) for logit in build(name, 3, **units, **one)(users, items).values())


@EVERY_NETWORK
def test_tasks_keep_the_order_they_were_given_in(name):
    network = NETWORKS[name](USERS, ITEMS, WIDTH, ("watched", "a", "zoo"))
    users, items, _ = rows()
    assert list(network(users, items)) == ["watched", "a", "zoo"]


@EVERY_NETWORK
def test_the_default_tasks_are_view_and_like(name):
    network = NETWORKS[name](USERS, ITEMS)
    users, items, _ = rows()
    assert list(network(users, items)) == ["view", "like"]
    assert all(table.embedding_dim == 32 for table in network.modules() if isinstance(table, nn.Embedding))


@EVERY_NETWORK
@EVERY_TASK_COUNT
@pytest.mark.parametrize("training", [True, False])
def test_the_logits_of_a_row_do_not_depend_on_the_other_rows(name, num_tasks, training):
    network = build(name, num_tasks).train(training)
    users, items, _ = rows(16)
    together = network(users, items)
    other_users, other_items = users.flip(0), items.flip(0)
    other_users[3], other_items[3] = users[3], items[3]
    among_others = network(other_users, other_items)
    alone = network(users[3:4], items[3:4])
    for task, logits in together.items():
        assert among_others[task][3] == logits[3]
        torch.testing.assert_close(alone[task][0], logits[3])


@EVERY_NETWORK
@EVERY_TASK_COUNT
def test_every_parameter_is_trained(name, num_tasks):
    network = build(name, num_tasks)
    sum(losses(network).values()).backward()
    assert [key for key, parameter in network.named_parameters() if parameter.grad is None] == []
    assert [key for key, parameter in network.named_parameters() if not parameter.grad.any()] == []


PARTS = {
    "single": {"encoders", "bottoms"},
    "shared_bottom": {"encoder", "bottom"},
    "omoe": {"encoders", "experts", "gate_layers"},
    "mmoe": {"encoders", "experts", "gate_layers"},
    "me_mmoe": {"encoders", "experts", "gate_layers"},
    "cgc": {"encoders", "levels.0.own", "levels.0.shared", "levels.0.gate_layers"},
    "ple": {"encoders", *(f"levels.{i}.{part}" for i in (0, 1) for part in ("own", "shared", "gate_layers"))},
    "me_ple": {"encoders", *(f"levels.{i}.{part}" for i in (0, 1) for part in ("own", "shared", "gate_layers"))},
    "esmm": {"encoder"},
    "aitm": {"encoder", "bottoms", "transfers", "attention.value", "attention.query", "attention.key"},
    "stem": {"encoders", "own", "shared", "gate_layers"},
    "adatt": {
        "encoder",
        *(f"levels.{i}.{part}" for i in (0, 1) for part in ("own", "gate_layers", "residual_weights")),
    },
}


@EVERY_NETWORK
def test_every_module_is_registered_with_its_parameters(name):
    names = [key for key, _ in build(name).named_parameters()]
    parts = {".".join(key.split(".")[: 3 if key.startswith("levels") else 2]) for key in names}
    expected = PARTS[name] | {"towers"}
    assert {part for part in expected if any(key.startswith(part) for key in parts)} == expected
    assert [key for key in names if not key.startswith(tuple(expected))] == []


@EVERY_NETWORK
@EVERY_TASK_COUNT
def test_a_state_dict_restores_the_whole_network(name, num_tasks):
    saved, fresh = build(name, num_tasks, seed=0), build(name, num_tasks, seed=1)
    users, items, _ = rows()
    expected = saved(users, items)
    assert not any(torch.equal(logits, expected[task]) for task, logits in fresh(users, items).items())
    fresh.load_state_dict(saved.state_dict())
    assert all(torch.equal(logits, expected[task]) for task, logits in fresh(users, items).items())


@EVERY_NETWORK
@EVERY_TASK_COUNT
def test_the_lists_of_the_caller_are_not_changed(name, num_tasks):
    tasks, units = list(TASKS[:num_tasks]), {"tower_units": [6, 3]}
    if name != "esmm":
        units["expert_units"] = [8, 7]
    first, second = (NETWORKS[name](USERS, ITEMS, WIDTH, tasks, **units) for _ in range(2))
    assert tasks == list(TASKS[:num_tasks])
    assert units["tower_units"] == [6, 3]
    assert units.get("expert_units", [8, 7]) == [8, 7]
    assert [p.shape for p in first.parameters()] == [p.shape for p in second.parameters()]
    tasks.append("later")
    assert list(first(*rows(1)[:2])) == list(TASKS[:num_tasks])


GATES = {  # with two tasks: {network: {gate: number of experts}}
    "single": {},
    "shared_bottom": {},
    "omoe": {"all": 5},
    "mmoe": {"view": 5, "like": 5},
    "me_mmoe": {"view": 5, "like": 5},
    "cgc": {"view": 5, "like": 5},
    "ple": {
        "view, level 1": 5,
        "like, level 1": 5,
        "(shared), level 1": 8,
        "view, level 2": 5,
        "like, level 2": 5,
    },
    "esmm": {},
    "aitm": {"like": 2},
    "stem": {"view": 8, "like": 8},
    "adatt": {"view, level 1": 6, "like, level 1": 6, "view, level 2": 6, "like, level 2": 6},
}
GATES["me_ple"] = GATES["ple"]
COUNTS = {"experts": 5, "task_experts": 3, "shared_experts": 2}


@EVERY_NETWORK
def test_gates_are_probabilities_over_their_experts(name):
    network = build(name, **{option: COUNTS[option] for option in TAKES.get(name, [])})
    users, items, _ = rows()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter *= 4  # far from uniform
        gates = network.gates(users, items)
    assert {key: gate.shape[1] for key, gate in gates.items()} == GATES[name]
    for gate in gates.values():
        assert (gate >= 0).all()
        torch.testing.assert_close(gate.sum(dim=1), torch.ones(len(users)))
        assert not torch.equal(gate[0], gate[1])


def experts(network: Network) -> list[Tensor]:
    """The first layers of all experts, level by level."""
    return [weight for bank in network.modules() if isinstance(bank, ExpertBank) for weight in bank.weights[0]]


@pytest.mark.parametrize("name", [name for name in NETWORKS if experts(build(name))])
def test_experts_differ_at_the_start_and_after_training(name):
    network = build(name)
    for steps in (0, 5):
        train(network, {"view": 1, "like": 1}, steps)
        weights = experts(network)
        pairs = [(a, b) for i, a in enumerate(weights) for b in weights[:i] if a.shape == b.shape]
        assert pairs
        assert not any(torch.allclose(a, b) for a, b in pairs)


@EVERY_NETWORK
def test_tables_of_one_network_have_different_initial_values(name):
    tables = [table.weight for table in build(name, 3).modules() if isinstance(table, nn.Embedding)]
    assert not any(torch.equal(a, b) for i, a in enumerate(tables) for b in tables[:i])


@EVERY_NETWORK
def test_a_network_can_overfit_a_small_batch(name):
    units = {"tower_units": (16,)} | ({} if name == "esmm" else {"expert_units": (32,)})
    network = build(name, **units)  # wide enough that no tower has only dead ReLU units
    start = sum(losses(network).values()).item()
    train(network, {"view": 1, "like": 1}, steps=80, lr=0.03)
    assert sum(losses(network).values()).item() < 0.5 * start


def untouched(name: str, trained: int) -> tuple[str, ...]:
    """Prefixes of the parameters that the loss of one of three tasks must not reach."""
    others = [number for number in range(3) if number != trained]
    later = [number for number in others if number > trained]
    return {
        "single": (*each("encoders", others), *each("bottoms", others), *each("towers", others)),
        "shared_bottom": each("towers", others),
        "omoe": each("towers", others),
        "mmoe": (*each("gate_layers", others), *each("towers", others)),
        "me_mmoe": (*each("encoders", others), *each("gate_layers", others), *each("towers", others)),
        "cgc": (*each("levels.0.own", others), *each("levels.0.gate_layers", others), *each("towers", others)),
        # Through the shared gate of the first level, every task trains that level's experts of all tasks.
        "ple": (
            *each("levels.0.gate_layers", others),
            *each("levels.1.own", others),
            *each("levels.1.gate_layers", others),
            *each("towers", others),
        ),
        "esmm": each("towers", later),
        "aitm": (
            *each("bottoms", later),
            *each("transfers", [number - 1 for number in later]),
            *([] if trained else ["attention."]),
            *each("towers", others),
        ),
        "stem": (
            *each("encoders", others),
            *each("own", others),
            *each("gate_layers", others),
            *each("towers", others),
        ),
        "adatt": (*each("levels.1.gate_layers", others), *each("towers", others)),
    }["ple" if name == "me_ple" else name]


def each(part: str, numbers: list[int]) -> tuple[str, ...]:
    return tuple(f"{part}.{number}." for number in numbers)


@EVERY_NETWORK
@pytest.mark.parametrize("trained", [0, 1, 2])
def test_the_loss_of_a_task_reaches_only_the_parameters_it_reads(name, trained):
    network = build(name, 3)
    reached = {
        key: gradient.any().item() for key, gradient in gradients(network, losses(network)[TASKS[trained]]).items()
    }
    expected = {key: not key.startswith(untouched(name, trained)) for key in reached}
    if name == "adatt":  # one tensor with one row per task; only the last level separates the rows
        rows_reached = network.levels[1].residual_weights.grad.any(dim=1)
        assert rows_reached.tolist() == [number == trained for number in range(3)]
    assert reached == expected


@EVERY_NETWORK
def test_the_gradient_of_a_sum_is_the_sum_of_the_gradients(name):
    network = build(name)
    view, like = (gradients(network, losses(network)[task]) for task in ("view", "like"))
    both = gradients(network, sum(losses(network).values()))
    for key, gradient in both.items():
        torch.testing.assert_close(gradient, view[key] + like[key], atol=1e-7, rtol=1e-4)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_single_task_networks_train_independently(weight):
    beside, alone = build("single", 2), build("single", 1, seed=1)
    alone.load_state_dict({key: beside.state_dict()[key] for key in alone.state_dict()})
    train(beside, {"view": 1, "like": weight})
    train(alone, {"view": 1})
    assert all(torch.equal(value, beside.state_dict()[key]) for key, value in alone.state_dict().items())


def test_a_calibrator_changes_training_unless_its_weight_is_zero():
    plain, zero, switched_on = (build("aitm") for _ in range(3))
    with torch.no_grad():
        for network in (plain, zero, switched_on):
            network.towers[1].output.bias += 3  # likes more probable than views
    train(plain, {"view": 1, "like": 1})
    train(zero, {"view": 1, "like": 1, "calibrator": 0.0})
    train(switched_on, {"view": 1, "like": 1, "calibrator": 0.6})
    trained, other = plain.state_dict(), switched_on.state_dict()
    assert all(torch.equal(value, trained[key]) for key, value in zero.state_dict().items())
    assert not all(torch.equal(value, trained[key]) for key, value in other.items())


@EVERY_NETWORK
@EVERY_TASK_COUNT
def test_a_conditional_probability_is_the_ratio_of_two_joint_ones(name, num_tasks):
    network = build(name, num_tasks)
    with torch.no_grad():
        for number, tower in enumerate(network.towers):
            tower.output.bias += -2.0 * number  # each step is less probable than the one before
    users, items, _ = rows()
    joint, conditional = network(users, items), network.conditional_logits(users, items)
    assert torch.equal(conditional["view"], joint["view"])
    for before, task in pairwise(TASKS[:num_tasks]):
        ratio = joint[task].double().sigmoid() / joint[before].double().sigmoid()
        torch.testing.assert_close(conditional[task].double().sigmoid(), ratio, atol=1e-6, rtol=1e-5)


def test_a_conditional_probability_stays_below_one_if_likes_exceed_views():
    network = build("shared_bottom")
    with torch.no_grad():
        network.towers[1].output.bias += 5
    conditional = network.conditional_logits(*rows()[:2])["like"]
    torch.testing.assert_close(conditional, torch.full((64,), 13.8155), atol=1e-2, rtol=0)


@EVERY_NETWORK
@pytest.mark.parametrize("tasks", [(), ("view", "view"), "view"])
def test_invalid_task_names_raise(name, tasks):
    with pytest.raises(ValueError, match="tasks must be"):
        NETWORKS[name](USERS, ITEMS, WIDTH, tasks)


@pytest.mark.parametrize("name", TAKES)
def test_experts_without_layers_raise(name):
    with pytest.raises(ValueError, match="expert_units is empty"):
        build(name, expert_units=())


@pytest.mark.parametrize(
    ("name", "wrong", "words"),
    [
        *((name, {"experts": count}, "at least 1 expert") for name in ("omoe", "mmoe", "me_mmoe") for count in (0, -1)),
        *((name, {"task_experts": 0, "shared_experts": 0}, "1 expert") for name in ("cgc", "ple", "me_ple", "stem")),
        *((name, {"task_experts": -1}, "-1 experts per task") for name in ("cgc", "ple", "me_ple")),
        *((name, {"shared_experts": -1}, "-1 shared") for name in ("cgc", "ple", "me_ple")),
        *((name, {"levels": 0}, "at least 1 level") for name in ("ple", "me_ple", "adatt")),
        ("stem", {"task_experts": 0}, "expert per task and 1 shared"),
        ("stem", {"shared_experts": 0}, "expert per task and 1 shared"),
        ("adatt", {"task_experts": 0}, "1 expert per task"),
    ],
)
def test_networks_without_levels_or_experts_raise(name, wrong, words):
    with pytest.raises(ValueError, match=words):
        build(name, **wrong)


def test_networks_are_built_by_name():
    for name, network in NETWORKS.items():
        assert type(build_network(name, 3, 4, embedding_dim=2)) is network
    with pytest.raises(ValueError, match="unknown network 'mmeo': choose one of single, "):
        build_network("mmeo", 3, 4)
