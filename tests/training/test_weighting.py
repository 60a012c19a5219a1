"""Each weighting method against a step computed by hand, and its own properties."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from config.errors import UserError
from losses import joint_loss
from models import MultiTaskNet
from multitask.task import WatchAndRate
from training.weighting import make_weighting
from training.weighting.pcgrad import project_conflicts

CPU = torch.device("cpu")
LAMBDAS = {"left": 0.5, "right": 0.25}
UNEVEN = [  # epoch means of two finished epochs
    {"epoch": 1, "train_left": 2.0, "train_right": 8.0, "train_factorization": 1.0, "train_regression": 4.0},
    {"epoch": 2, "train_left": 1.0, "train_right": 6.0, "train_factorization": 0.9, "train_regression": 1.0},
]


class Plane(nn.Module):
    """A point x that both losses depend on, and h of the left loss only. Initial values, without lambdas:

    left  = (x0 - 3)^2 + h^2 = 13, gradient (-4, 0) in x and 6 in h
    right = (x0 + x1)^2      =  9, gradient ( 6, 6) in x
    """

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor([1.0, 2.0]))
        self.h = nn.Parameter(torch.tensor(3.0))

    def losses(self) -> dict[str, torch.Tensor]:
        return {"left": (self.x[0] - 3) ** 2 + self.h**2, "right": self.x.sum() ** 2}


class Weights(nn.Module):
    """A vector x; the test defines the losses."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor(values))


def make(name: str, weights=LAMBDAS, squared_errors=(), seed: int = 0, regularizers=()):
    return make_weighting(name, weights, squared_errors, seed, CPU, regularizers)


def gradients(model: nn.Module) -> list[list[float] | float | None]:
    return [None if parameter.grad is None else parameter.grad.tolist() for parameter in model.parameters()]


def real_run(tiny, name: str, steps: int = 4, **options) -> tuple[list[float], MultiTaskNet, object]:
    """A few steps of Adam on the real network: the joint losses, the network and its weighting."""
    torch.manual_seed(0)
    model = MultiTaskNet(len(tiny.users), len(tiny.items), **options)
    method = make(name, {"factorization": 0.5, "regression": 0.5}, ("regression",))
    return train(tiny, model, method, steps), model, method


def train(tiny, model, method, steps: int, optimizer=None, epoch: int = 1, history=()) -> list[float]:
    task = WatchAndRate(tiny, batch_size=64)
    optimizer = optimizer or adam(model, method)
    method.begin_epoch(epoch, history)
    joints = []
    for _, batch in zip(range(steps), task.batches(epoch), strict=False):
        losses = task.losses(model, batch)
        optimizer.zero_grad()
        joints.append(method.backward(losses, model).item())
        optimizer.step()
    return joints


def adam(model, method) -> torch.optim.Optimizer:
    return torch.optim.Adam([*model.parameters(), *method.parameters()], lr=0.01)


# fixed


def test_fixed_step_by_hand():
    model = Plane()
    joint = make("fixed").backward(model.losses(), model)
    assert joint.item() == 0.5 * 13 + 0.25 * 9
    assert not joint.requires_grad
    assert gradients(model) == [[0.5 * -4 + 0.25 * 6, 0.25 * 6], 0.5 * 6]


def test_fixed_is_bit_equal_to_the_joint_loss(tiny):
    joints, model, method = real_run(tiny, "fixed")
    _, twin, plain = real_run(tiny, "fixed", steps=0)

    def backward(losses, model):
        joint = joint_loss(losses, method.weights)
        joint.backward()
        return joint

    plain.backward = backward
    assert train(tiny, twin, plain, 4) == joints
    assert all(ours.equal(theirs) for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True))


# uncertainty


def test_uncertainty_step_by_hand():
    """The left loss counts as a cross-entropy, the right one as a squared error."""
    model, method = Plane(), make("uncertainty", squared_errors=("right",))
    method.load_state_dict({"s": torch.tensor([0.5, -0.3])})
    optimizer = torch.optim.SGD([*model.parameters(), *method.parameters()], lr=0.1)
    left, right = math.exp(-0.5) * 0.5, 0.5 * math.exp(0.3) * 0.25
    assert method.report() == pytest.approx({"weight_left": left / 0.5, "weight_right": right / 0.25})
    joint = method.backward(model.losses(), model)
    assert joint.item() == pytest.approx(left * 13 + 0.25 + right * 9 - 0.15)
    optimizer.step()
    assert model.x.tolist() == pytest.approx([1 - 0.1 * (left * -4 + right * 6), 2 - 0.1 * right * 6])
    assert model.h.item() == pytest.approx(3 - 0.1 * left * 6)
    ds_left, ds_right = -left * 13 + 0.5, -right * 9 + 0.5
    assert method.state_dict()["s"].tolist() == pytest.approx([0.5 - 0.1 * ds_left, -0.3 - 0.1 * ds_right])


def test_uncertainty_converges_to_the_minimum_for_constant_losses():
    """exp(s) = lambda L for a squared error and 2 lambda L for a cross-entropy, so that the lambdas cancel."""
    method = make("uncertainty", squared_errors=("right",))
    optimizer = torch.optim.Adam(method.parameters(), lr=0.02)
    for _ in range(1500):
        optimizer.zero_grad()
        method.backward({"left": torch.tensor(3.0), "right": torch.tensor(10.0)}, nn.Module())
        optimizer.step()
    assert method.s.exp().tolist() == pytest.approx([2 * 0.5 * 3, 0.25 * 10], rel=1e-3)
    weighed = {name: LAMBDAS[name] * method.report()[f"weight_{name}"] for name in LAMBDAS}
    assert weighed == pytest.approx({"left": 1 / (2 * 3), "right": 1 / (2 * 10)}, rel=1e-3)


# GradNorm


def gradnorm_by_hand(w, lambdas, norms, losses, first_losses):
    """Algorithm 1 in plain Python; norms are those of the losses without lambda."""
    raw = [weight * norm for weight, norm in zip(lambdas, norms, strict=True)]
    norms = [factor * norm for factor, norm in zip(w, raw, strict=True)]
    progress = [loss / first for loss, first in zip(losses, first_losses, strict=True)]
    for i, norm in enumerate(norms):
        target = sum(norms) / len(norms) * (progress[i] / (sum(progress) / len(progress))) ** 1.5
        w = [*w[:i], w[i] - 0.025 * math.copysign(raw[i], norm - target), *w[i + 1 :]]
    return [len(w) * factor / sum(w) for factor in w]


def test_gradnorm_steps_by_hand():
    """h belongs to the left loss only: it gets a gradient but does not count in the norms."""
    model, method = Plane(), make("gradnorm")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x, h, w, first_losses = [1.0, 2.0], 3.0, [1.0, 1.0], (13.0, 9.0)
    for _ in range(3):
        losses = ((x[0] - 3) ** 2 + h**2, (x[0] + x[1]) ** 2)
        pulls = 2 * (x[0] - 3), 2 * (x[0] + x[1])
        optimizer.zero_grad()
        joint = method.backward(model.losses(), model)
        optimizer.step()
        left, right = w[0] * 0.5, w[1] * 0.25  # the w from before this step
        assert joint.item() == pytest.approx(left * losses[0] + right * losses[1])
        norms = (abs(pulls[0]), math.hypot(pulls[1], pulls[1]))
        w = gradnorm_by_hand(w, (0.5, 0.25), norms, losses, first_losses)
        x = [x[0] - 0.01 * (left * pulls[0] + right * pulls[1]), x[1] - 0.01 * right * pulls[1]]
        h -= 0.01 * left * 2 * h
        assert list(method.report().values()) == pytest.approx(w)
        assert [*model.x.tolist(), model.h.item()] == pytest.approx([*x, h])
    assert w[0] != pytest.approx(1, abs=0.05)


def test_gradnorm_first_step_in_numbers():
    """Norms 2 and sqrt(4.5), mean 2.06, no ratio yet: the left factor is raised and the right one lowered."""
    model, method = Plane(), make("gradnorm")
    method.backward(model.losses(), model)
    raised, lowered = 1 + 0.025 * 2, 1 - 0.025 * math.sqrt(4.5)
    expected = [2 * raised / (raised + lowered), 2 * lowered / (raised + lowered)]
    assert list(method.report().values()) == pytest.approx(expected)


def test_gradnorm_uses_alpha_and_restores_the_first_losses():
    """Norms 3.5 and 1.5, mean 2.5: first the left factor falls, as 3.5 > 2.5. Then the ratios are 1.3 and 0.7, and it
    rises, as 3.28 < 2.44 * 1.3^1.5 = 3.61; without the power (3.17), or without the first losses (2.44), it would fall.
    """
    model = Weights(1.0)
    method, restored = (make("gradnorm", {"left": 1.0, "right": 1.0}) for _ in range(2))
    zero = model.x.sum() - model.x.sum().detach()  # value 0, gradient 1
    method.backward({"left": 3.5 * zero + 1.0, "right": 1.5 * zero + 1.0}, model)
    left, right = (2 * w / 1.95 for w in (1 - 0.025 * 3.5, 1 + 0.025 * 1.5))
    assert method.w.tolist() == pytest.approx([left, right])
    restored.load_state_dict(method.state_dict())
    restored.backward({"left": 3.5 * zero + 1.3, "right": 1.5 * zero + 0.7}, model)
    left, right = left + 0.025 * 3.5, right - 0.025 * 1.5
    assert restored.w.tolist() == pytest.approx([2 * left / (left + right), 2 * right / (left + right)])


def test_gradnorm_measures_against_the_first_loss_above_zero():
    """The first batch has no row for the right task."""
    model, method = Weights(1.0), make("gradnorm")
    for right, expected in ((0.0, [4.0, 0.0]), (2.0, [4.0, 2.0]), (1.0, [4.0, 2.0])):
        method.backward({"left": model.x.sum() * 4, "right": model.x.sum() * right}, model)
        assert method.state_dict()["first_losses"].tolist() == expected
        assert method.w.isfinite().all()


def test_gradnorm_stays_finite_when_losses_reach_zero():
    model, method = Weights(1.0), make("gradnorm")
    for loss in (model.x.sum(), model.x.sum() * 0):
        method.backward({"left": loss, "right": loss}, model)
    assert method.w.isfinite().all()


def test_gradnorm_uses_only_parameters_that_all_tasks_share():
    """Norms 3, 1 and 2 in the first parameter, mean 2. The parameter of two tasks does not count."""
    model = nn.ParameterDict({"all": torch.tensor(1.0), "two": torch.tensor(1.0)})
    method = make("gradnorm", {"a": 1.0, "b": 1.0, "c": 1.0})
    losses = {"a": 3 * model["all"] + 100 * model["two"], "b": model["all"] + model["two"], "c": 2 * model["all"]}
    method.backward(losses, model)
    w = [1 - 0.025 * 3, 1 + 0.025 * 1, 1.0]
    assert method.w.tolist() == pytest.approx([3 * factor / sum(w) for factor in w])
    assert [model["all"].grad.item(), model["two"].grad.item()] == [6, 101]


def test_gradnorm_lets_the_slower_task_grow():
    """Gradients of one size; the first task's loss halves every step and the others' stay."""
    model, method = Weights(1.0), make("gradnorm", {"fast": 1.0, "slow": 1.0, "slower": 1.0})
    shares = []
    for step in range(6):
        zero = model.x.sum() - model.x.sum().detach()  # value 0, gradient 1
        method.backward({"fast": zero + 0.5**step, "slow": zero + 1.0, "slower": zero + 1.0 + 0.1 * step}, model)
        shares.append(method.w.tolist())
    assert shares[0] == [1.0, 1.0, 1.0]
    assert all(sum(w) == pytest.approx(3) for w in shares)
    assert shares[-1][2] > 1 > shares[-1][0]


def test_gradnorm_keeps_factors_positive():
    model, method = Weights(1.0), make("gradnorm", {"steep": 1000.0, "flat": 1.0})
    for _ in range(5):
        method.backward({"steep": model.x.sum(), "flat": model.x.sum() * 1.0}, model)
        assert min(method.w.tolist()) > 0
        assert method.w.sum().item() == pytest.approx(2)


def test_gradnorm_needs_a_parameter_that_all_tasks_share(tiny):
    with pytest.raises(UserError, match="parameters that all tasks share, and this network has none"):
        real_run(tiny, "gradnorm", embedding_sharing=False)


# DWA


def test_dwa_by_hand():
    """Left halved (r = 1/2), right fell to 3/4: softmax(1/4, 3/8) times 2."""
    model, method = Plane(), make("dwa")
    method.begin_epoch(3, [{"epoch": 0, "train_left": 99.0, "train_right": 99.0}, *UNEVEN])
    left, right = (2 * math.exp(r) / (math.exp(0.25) + math.exp(0.375)) for r in (0.25, 0.375))
    assert method.report() == pytest.approx({"weight_left": left, "weight_right": right})
    joint = method.backward(model.losses(), model)
    assert joint.item() == pytest.approx(left * 0.5 * 13 + right * 0.25 * 9)
    expected = [left * 0.5 * -4 + right * 0.25 * 6, right * 0.25 * 6]
    assert model.x.grad.tolist() == pytest.approx(expected)
    assert model.h.grad.item() == pytest.approx(left * 0.5 * 6)


def test_dwa_is_even_for_two_epochs_and_handles_extreme_losses():
    method = make("dwa")
    for epoch in (1, 2):
        method.begin_epoch(epoch, UNEVEN[: epoch - 1])
        assert method.report() == {"weight_left": 1.0, "weight_right": 1.0}
    method.begin_epoch(3, [{"train_left": 0.0, "train_right": 1e-9}, {"train_left": 0.0, "train_right": 1e9}])
    assert method.report() == {"weight_left": 0.0, "weight_right": 2.0}
    method.begin_epoch(1, [])
    assert method.report() == {"weight_left": 1.0, "weight_right": 1.0}


# PCGrad


def test_pcgrad_step_by_hand():
    """With lambdas (-2, 0) and (1.5, 1.5), inner product -3, squares 4 and 4.5.

    left  becomes (-2, 0) + 3/4.5 (1.5, 1.5) = (-1, 1)
    right becomes (1.5, 1.5) + 3/4 (-2, 0)   = ( 0, 1.5)
    """
    model, method = Plane(), make("pcgrad")
    joint = method.backward(model.losses(), model)
    assert joint.item() == 0.5 * 13 + 0.25 * 9
    assert model.x.grad.tolist() == pytest.approx([-1.0, 2.5])
    assert model.h.grad.item() == 0.5 * 6
    assert method.report() == {"conflicts": 1.0}
    method.backward({"left": model.x[0], "right": model.x[0] + model.x[1]}, model)
    assert method.report() == {"conflicts": 0.5}
    method.begin_epoch(2, [])
    assert method.report() == {"conflicts": 0.0}


def test_pcgrad_without_conflict_is_the_sum():
    for losses in (
        lambda x: {"left": x[0] * 2, "right": x[0] + x[1]},
        lambda x: {"left": x[0] * 2, "right": x[1] * 3},  # at right angles
        lambda x: {"left": x[0] * 2, "right": x.sum() * 0},  # of norm 0
        lambda x: {"left": x[0] * 2, "right": x[0] * -1e-30},  # of a square that is 0 in 32 bits
    ):
        model, twin = Weights(1.0, 2.0), Weights(1.0, 2.0)
        make("pcgrad").backward(losses(model.x), model)
        make("fixed").backward(losses(twin.x), twin)
        assert gradients(model) == gradients(twin)


def test_pcgrad_without_shared_parameters_is_bit_equal_to_fixed(tiny):
    joints, model, method = real_run(tiny, "pcgrad", embedding_sharing=False)
    expected, twin, _ = real_run(tiny, "fixed", embedding_sharing=False)
    assert joints == expected
    assert all(ours.equal(theirs) for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True))
    assert method.report() == {"conflicts": 0.0}


def pcgrad_by_loops(rows: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """Algorithm 1 as the paper prints it, on whole vectors: (T, n) -> (T, n)."""
    projected = rows.copy()
    for i in range(len(rows)):
        for j in torch.randperm(len(rows), generator=generator).tolist():
            inner = projected[i] @ rows[j]
            if i != j and inner < 0:
                projected[i] -= inner / (rows[j] @ rows[j]) * rows[j]
    return projected


@pytest.mark.parametrize("tasks", [1, 2, 3, 5])
def test_projections_match_the_loops_of_the_paper(tasks):
    random = np.random.default_rng(0)
    for seed in range(20):
        rows = random.normal(size=(tasks, 4))
        gram = torch.from_numpy(rows @ rows.T)
        coefficients = project_conflicts(gram, torch.Generator().manual_seed(seed)).numpy()
        expected = pcgrad_by_loops(rows, torch.Generator().manual_seed(seed))
        np.testing.assert_allclose(coefficients @ rows, expected, atol=1e-12)
        if tasks == 2:
            assert expected[0] @ rows[1] >= -1e-12
            assert (coefficients @ rows)[0] @ rows[1] >= -1e-12
            assert (coefficients @ rows)[1] @ rows[0] >= -1e-12


def test_pcgrad_with_a_parameter_that_two_of_three_tasks_share():
    """It counts in the vectors, with zeros for the third task. A parameter of one task only does not."""
    model = nn.ParameterDict({name: torch.tensor(1.0) for name in ("all", "two", "own")})
    method = make("pcgrad", {"a": 1.0, "b": 1.0, "c": 1.0}, seed=3)
    losses = {
        "a": 2 * model["all"] - model["two"],
        "b": -model["all"] + 3 * model["two"],
        "c": -4 * model["all"] + 5 * model["own"],
    }
    method.begin_epoch(2, [])
    rows = np.array([[2.0, -1.0], [-1.0, 3.0], [-4.0, 0.0]])
    method.backward(losses, model)
    method.begin_epoch(2, [])  # the same order once more
    generator = method.generator
    expected = pcgrad_by_loops(rows, generator).sum(axis=0)
    assert [model["all"].grad.item(), model["two"].grad.item()] == pytest.approx(expected, rel=1e-5)
    assert model["own"].grad.item() == 5


def test_pcgrad_orders_depend_on_seed_and_epoch_only():
    rows = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    rows -= rows.mean(dim=0)  # the rows sum to 0, so that some must conflict

    def step(seed: int, *epochs: int) -> list[float]:
        model = Weights(0.0, 0.0, 0.0)
        method = make("pcgrad", dict.fromkeys("abcd", 1.0), seed=seed)
        for epoch in epochs:
            method.begin_epoch(epoch, [])
            model.x.grad = None
            method.backward({name: row @ model.x for name, row in zip("abcd", rows, strict=True)}, model)
        return model.x.grad.tolist()

    assert step(0, 1, 2) == step(0, 2)
    assert any(step(0, 1) != step(0, epoch) for epoch in range(2, 8))
    assert any(step(0, 1) != step(seed, 1) for seed in range(1, 8))
