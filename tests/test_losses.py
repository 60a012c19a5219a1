"""The losses against the equations."""

import math

import pytest
import torch

from losses import bpr_loss, joint_loss, regression_loss

POSITIVE = [0.3, -2.0, 5.0]
NEGATIVE = [[0.3, 1.0], [-1.0, -4.0], [0.0, 4.5]]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


EQUATIONS = {"sigmoid": lambda x: 1 - sigmoid(x), "logsigmoid": lambda x: -math.log(sigmoid(x))}


@pytest.mark.parametrize("form", EQUATIONS)
def test_bpr_is_the_equation(form):
    expected = [EQUATIONS[form](p - n[0]) for p, n in zip(POSITIVE, NEGATIVE, strict=True)]
    found = bpr_loss(torch.tensor(POSITIVE), torch.tensor(NEGATIVE)[:, 0], form)
    assert found.item() == pytest.approx(sum(expected) / 3)


@pytest.mark.parametrize("form", EQUATIONS)
def test_bpr_with_several_negatives_is_the_mean_over_all_pairs(form):
    pairs = [EQUATIONS[form](p - n) for p, row in zip(POSITIVE, NEGATIVE, strict=True) for n in row]
    assert bpr_loss(torch.tensor(POSITIVE), torch.tensor(NEGATIVE), form).item() == pytest.approx(sum(pairs) / 6)


@pytest.mark.parametrize(("form", "value", "slope"), [("sigmoid", 1.0, 0.0), ("logsigmoid", 500.0, -1.0)])
def test_bpr_stays_finite_where_the_model_is_badly_wrong(form, value, slope):
    positive = torch.tensor([-500.0], requires_grad=True)
    loss = bpr_loss(positive, torch.tensor([0.0]), form)
    loss.backward()
    assert loss.item() == pytest.approx(value)
    assert positive.grad.item() == pytest.approx(slope, abs=1e-6)


def test_regression_is_the_mean_squared_error():
    assert regression_loss(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 2.0])).item() == pytest.approx((1 + 9) / 2)


def test_joint_is_the_weighted_sum():
    losses = {"factorization": torch.tensor(0.5), "regression": torch.tensor(2.0)}
    assert joint_loss(losses, {"factorization": 0.9, "regression": 0.1}).item() == pytest.approx(0.45 + 0.2)


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        regression_loss(torch.zeros(4), torch.zeros(4, 1))
    with pytest.raises(ValueError, match="bpr_loss takes"):
        bpr_loss(torch.zeros(4), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="hinge"):
        bpr_loss(torch.zeros(4), torch.zeros(4), "hinge")
    with pytest.raises(ValueError, match="same names"):
        joint_loss({"regression": torch.tensor(1.0)}, {"rating": 1.0})
