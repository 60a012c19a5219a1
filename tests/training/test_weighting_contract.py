"""Properties that every weighting method must have."""

import io
import math

import pytest
import torch
from test_weighting import LAMBDAS, UNEVEN, Plane, adam, make, real_run, train
from torch import nn

from config.errors import UserError
from training.weighting import METHODS, make_weighting
from zoo.networks import build_network


@pytest.mark.parametrize("name", METHODS)
def test_the_real_network_trains(tiny, name):
    joints, model, method = real_run(tiny, name)
    assert len(joints) == 4
    assert all(math.isfinite(joint) for joint in joints)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    columns = {"fixed": set(), "pcgrad": {"conflicts"}}.get(name, {"weight_factorization", "weight_regression"})
    assert set(method.report()) == columns
    assert all(type(value) is float for value in method.report().values())


@pytest.mark.parametrize("name", METHODS)
def test_gradients_have_the_strides_of_their_parameters(name):
    # autograd returns other strides for the batched experts, and the fused AdamW would update the wrong weights.
    network = build_network("mmoe", 6, 7, tasks=("view", "like"))
    logits = network(torch.arange(5), torch.arange(5))
    losses = {task: logit.square().mean() for task, logit in logits.items()}
    make_weighting(name, dict.fromkeys(losses, 1.0), (), 0, torch.device("cpu")).backward(losses, network)
    assert all(parameter.grad.stride() == parameter.stride() for parameter in network.parameters())


@pytest.mark.parametrize("name", [name for name in METHODS if name != "fixed"])
def test_every_method_changes_the_result(tiny, name):
    def weights(name: str) -> list[torch.Tensor]:
        _, model, method = real_run(tiny, name)
        train(tiny, model, method, 4, epoch=3, history=UNEVEN)
        return list(model.parameters())

    assert not all(ours.equal(theirs) for ours, theirs in zip(weights(name), weights("fixed"), strict=True))


@pytest.mark.parametrize("name", METHODS)
def test_a_restored_state_continues_bit_equal(tiny, name):
    _, model, method = real_run(tiny, name)
    optimizer = adam(model, method)
    train(tiny, model, method, 4, optimizer, epoch=2)
    file = io.BytesIO()
    torch.save([part.state_dict() for part in (model, method, optimizer)], file)
    file.seek(0)
    _, twin, restored = real_run(tiny, name, steps=0)
    again = adam(twin, restored)
    for part, state in zip((twin, restored, again), torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(state)
    assert restored.report().keys() == method.report().keys()
    expected = train(tiny, model, method, 5, optimizer, epoch=3, history=UNEVEN)
    assert train(tiny, twin, restored, 5, again, epoch=3, history=UNEVEN) == expected
    assert restored.report() == method.report()
    assert all(ours.equal(theirs) for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True))


@pytest.mark.parametrize("name", METHODS)
def test_training_does_not_change_a_saved_state(tiny, name):
    _, model, method = real_run(tiny, name)
    state = method.state_dict()
    before = {key: value.tolist() for key, value in state.items()}
    assert bool(before) == (name in ("uncertainty", "gradnorm"))
    train(tiny, model, method, 4)
    assert {key: value.tolist() for key, value in state.items()} == before


@pytest.mark.parametrize("name", [name for name in METHODS if name != "uncertainty"])
def test_with_a_single_task_every_method_equals_fixed(name):
    found = []
    for method in (make(name, {"left": 0.5}), make("fixed", {"left": 0.5})):
        model = Plane()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for epoch in (1, 2, 3):
            method.begin_epoch(epoch, UNEVEN[: epoch - 1])
            optimizer.zero_grad()
            method.backward({"left": model.losses()["left"]}, model)
            optimizer.step()
        found.append([*model.x.tolist(), model.h.item()])
    assert found[0] == pytest.approx(found[1])


@pytest.mark.parametrize("name", METHODS)
def test_regularizers_are_added_with_their_lambda_and_never_balanced(name):
    """The step is the one without the regularizer plus its own gradient. Only the regularizer depends on z."""
    plain, model = Plane(), Plane()
    model.z = nn.Parameter(torch.tensor(5.0))
    without, method = make(name), make(name, {**LAMBDAS, "calibration": 0.1}, regularizers=("calibration",))
    expected = without.backward(plain.losses(), plain)
    regularizer = -7 * model.x[1] + model.z**2  # conflicts with both tasks: as a task it would change their factors
    joint = method.backward({**model.losses(), "calibration": regularizer}, model)
    assert joint.item() == pytest.approx(expected.item() + 0.1 * (-14 + 25))
    assert model.x.grad.tolist() == pytest.approx((plain.x.grad - 0.1 * torch.tensor([0.0, 7.0])).tolist())
    assert model.h.grad.equal(plain.h.grad)
    assert model.z.grad.item() == pytest.approx(0.1 * 10)
    assert method.report() == without.report()
    assert all(value.equal(without.state_dict()[key]) for key, value in method.state_dict().items())


@pytest.mark.parametrize("name", METHODS)
def test_gradients_accumulate_and_frozen_or_unused_parameters_get_none(name):
    model, method = Plane(), make(name)
    model.unused = nn.Parameter(torch.zeros(2))
    model.frozen = nn.Parameter(torch.zeros(2), requires_grad=False)
    model.x.grad, model.h.grad = torch.tensor([10.0, 20.0]), torch.tensor(30.0)
    method.backward(model.losses(), model)
    fresh = Plane()
    make(name).backward(fresh.losses(), fresh)
    assert model.x.grad.tolist() == pytest.approx((fresh.x.grad + torch.tensor([10.0, 20.0])).tolist())
    assert model.h.grad.item() == pytest.approx(fresh.h.grad.item() + 30)
    assert model.unused.grad is None
    assert model.frozen.grad is None


@pytest.mark.parametrize("name", METHODS)
def test_a_loss_without_a_gradient_is_accepted(name):
    """A batch may contain no row of a task. GradNorm rejects this: it has no shared parameter to compare."""
    model, method = Plane(), make(name)
    losses = {"left": model.losses()["left"], "right": torch.tensor(1.0)}
    if name == "gradnorm":
        with pytest.raises(UserError, match="share"):
            method.backward(losses, model)
        return
    method.backward(losses, model)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_the_lambdas_of_the_caller_are_copied(name):
    lambdas, model = dict(LAMBDAS), Plane()
    method = make(name, lambdas)
    method.begin_epoch(3, UNEVEN)
    method.backward(model.losses(), model)
    assert lambdas == LAMBDAS
    lambdas.clear()
    method.backward(model.losses(), model)


@pytest.mark.parametrize("name", METHODS)
def test_number_of_autograd_passes(name, monkeypatch):
    model, method, passes = Plane(), make(name), []
    real_grad, real_backward = torch.autograd.grad, torch.Tensor.backward
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: passes.append("grad") or real_grad(*a, **k))
    monkeypatch.setattr(torch.Tensor, "backward", lambda *a, **k: passes.append("backward") or real_backward(*a, **k))
    method.backward(model.losses(), model)
    assert passes == (["grad"] * 2 if name in ("gradnorm", "pcgrad") else ["backward"])


def test_unknown_names_are_rejected():
    with pytest.raises(ValueError, match="unknown weighting 'nash': choose one of fixed, uncertainty"):
        make("nash")
    with pytest.raises(ValueError, match="no loss is called up"):
        make("fixed", squared_errors=("up",))
    with pytest.raises(ValueError, match="no loss is called down"):
        make("fixed", regularizers=("down",))
    for name in METHODS:
        model = Plane()
        with pytest.raises(ValueError, match="same names"):
            make(name, {"left": 1.0}).backward(model.losses(), model)
