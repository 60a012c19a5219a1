"""The losses against their equations."""

import math

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import log_loss

from losses import (
    PAIRWISE_LOSSES,
    bpr_loss,
    calibrator,
    joint_logit,
    joint_loss,
    masked_log_loss,
    ratio_logit,
    regression_loss,
)

POSITIVE = [0.3, -2.0, 5.0]
NEGATIVE = [[0.3, 1.0], [-1.0, -4.0], [0.0, 4.5]]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


EQUATIONS = {"bpr_sigmoid": lambda x: 1 - sigmoid(x), "bpr": lambda x: -math.log(sigmoid(x))}


def test_every_form_of_the_ranking_loss_has_its_equation_here():
    assert set(EQUATIONS) == set(PAIRWISE_LOSSES)


@pytest.mark.parametrize("form", EQUATIONS)
def test_bpr_is_the_equation(form):
    expected = [EQUATIONS[form](p - n[0]) for p, n in zip(POSITIVE, NEGATIVE, strict=True)]
    found = bpr_loss(torch.tensor(POSITIVE), torch.tensor(NEGATIVE)[:, 0], form)
    assert found.item() == pytest.approx(sum(expected) / 3)


@pytest.mark.parametrize("form", EQUATIONS)
def test_bpr_with_several_negatives_is_the_mean_over_all_pairs(form):
    pairs = [EQUATIONS[form](p - n) for p, row in zip(POSITIVE, NEGATIVE, strict=True) for n in row]
    assert bpr_loss(torch.tensor(POSITIVE), torch.tensor(NEGATIVE), form).item() == pytest.approx(sum(pairs) / 6)


@pytest.mark.parametrize(("form", "value", "gradient"), [("bpr_sigmoid", 1.0, 0.0), ("bpr", 500.0, -1.0)])
def test_bpr_stays_finite_where_the_model_is_badly_wrong(form, value, gradient):
    positive = torch.tensor([-500.0], requires_grad=True)
    loss = bpr_loss(positive, torch.tensor([0.0]), form)
    loss.backward()
    assert loss.item() == pytest.approx(value)
    assert positive.grad.item() == pytest.approx(gradient, abs=1e-6)


def test_regression_is_the_mean_squared_error():
    assert regression_loss(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 2.0])).item() == pytest.approx((1 + 9) / 2)


def test_joint_is_the_weighted_sum():
    losses = {"factorization": torch.tensor(0.5), "regression": torch.tensor(2.0)}
    assert joint_loss(losses, {"factorization": 0.9, "regression": 0.1}).item() == pytest.approx(0.45 + 0.2)


def test_invalid_shapes_and_names_raise():
    with pytest.raises(ValueError, match="one shape"):
        regression_loss(torch.zeros(4), torch.zeros(4, 1))
    with pytest.raises(ValueError, match="bpr_loss takes"):
        bpr_loss(torch.zeros(4), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="hinge"):
        bpr_loss(torch.zeros(4), torch.zeros(4), "hinge")
    with pytest.raises(ValueError, match="same names"):
        joint_loss({"regression": torch.tensor(1.0)}, {"rating": 1.0})


LOGITS = [2.0, -1.0, 0.5, 30.0, -3.0]
LABELS = [1.0, 0.0, 0.0, 1.0, 1.0]
MASK = [True, False, True, False, True]


def draws(*shape: int, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype) * scale


def test_log_loss_by_hand():
    expected = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(0.5)) + math.log(1 + math.exp(3))) / 3
    found = masked_log_loss(torch.tensor(LOGITS), torch.tensor(LABELS), torch.tensor(MASK))
    assert found.item() == pytest.approx(expected)


@pytest.mark.parametrize("share", [0.1, 0.5, None])
def test_log_loss_is_that_of_scikit_learn_on_the_rows_of_the_mask(share):
    logits, draw = draws(200, scale=3), torch.Generator().manual_seed(1)
    labels = torch.rand(200, generator=draw).lt(0.4).float()
    mask = None if share is None else torch.rand(200, generator=draw) < share
    chosen = torch.ones(200, dtype=torch.bool) if mask is None else mask
    expected = log_loss(labels[chosen].numpy(), logits[chosen].double().sigmoid().numpy())
    assert masked_log_loss(logits, labels, mask).item() == pytest.approx(expected, rel=1e-5)


def test_log_loss_has_gradients_in_rows_of_the_mask_only():
    logits, labels, mask = torch.tensor(LOGITS, requires_grad=True), torch.tensor(LABELS), torch.tensor(MASK)
    masked_log_loss(logits, labels, mask).backward()
    torch.testing.assert_close(logits.grad[mask], ((logits.sigmoid() - labels) / 3)[mask])
    assert not logits.grad[~mask].any()


def test_log_loss_ignores_values_outside_the_mask():
    logits, labels, mask = (torch.tensor(values) for values in (LOGITS, LABELS, MASK))
    expected = masked_log_loss(logits, labels, mask)
    logits[~mask], labels[~mask] = math.inf, math.nan
    assert torch.equal(masked_log_loss(logits, labels, mask), expected)


@pytest.mark.parametrize(("rows", "mask"), [(4, torch.zeros(4, dtype=torch.bool)), (0, None), (0, torch.ones(0) > 0)])
def test_log_loss_without_rows_is_zero_with_zero_gradient(rows, mask):
    logits = torch.ones(rows, requires_grad=True)
    loss = masked_log_loss(logits, torch.zeros(rows), mask)
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_log_loss_stays_finite_where_the_model_is_badly_wrong():
    logits = torch.tensor([200.0, -200.0], requires_grad=True)
    loss = masked_log_loss(logits, torch.tensor([0.0, 1.0]))
    loss.backward()
    assert loss.item() == pytest.approx(200)
    assert logits.grad.tolist() == [0.5, -0.5]


@pytest.mark.parametrize("shapes", [((4,), (4, 1), (4,)), ((4,), (3,), (4,)), ((4,), (4,), (4, 1)), ((4,), (4,), (1,))])
def test_log_loss_rejects_shapes_that_would_broadcast(shapes):
    logits, labels, mask = (torch.ones(shape) for shape in shapes)
    with pytest.raises(ValueError, match="one shape"):
        masked_log_loss(logits, labels, mask > 0)


def logit(*probabilities: float) -> torch.Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).logit()


def test_calibrator_by_hand():
    view, like, share = logit(0.5, 0.2, 0.9), logit(0.6, 0.1, 0.3), logit(0.2, 0.4, 0.5)
    assert calibrator([view, like]).item() == pytest.approx(0.1 / 3)
    assert calibrator([view, like, share]).item() == pytest.approx((0.1 + 0.3 + 0.2) / 3)
    assert calibrator([like, view]).item() == pytest.approx((0.1 + 0.6) / 3)
    assert calibrator([view]).item() == 0


def test_calibrator_is_a_mean_over_rows():
    chain = draws(3, 50, scale=2)
    assert calibrator(list(chain.repeat(1, 4))).item() == pytest.approx(calibrator(list(chain)).item())


def test_calibrator_is_zero_if_probabilities_decrease_along_the_chain():
    chain = draws(4, 200, scale=2)
    in_order = chain.sort(dim=0, descending=True).values
    assert calibrator(list(in_order)).item() == 0
    in_order[2, 17] = in_order[1, 17] + 0.1
    assert calibrator(list(in_order)).item() > 0


def test_calibrator_never_exceeds_its_worst_row():
    view, like = draws(2, 200, scale=2)
    assert calibrator([view, like]) <= (like.sigmoid() - view.sigmoid()).max()


def test_calibrator_gradient_lowers_the_later_step_and_raises_the_earlier_one():
    view, like = logit(0.5, 0.2, 0.4, 0.3).requires_grad_(), logit(0.6, 0.1, 0.4, 0.9).requires_grad_()
    calibrator([view, like]).backward()
    for step, expected in ((like, [0.25, 0, 0, 0.25]), (view, [-0.25, 0, 0, -0.25])):  # the third row is a tie
        p = step.detach().sigmoid()
        assert (step.grad / (p * (1 - p))).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("scale", [0.1, 1, 10])
def test_joint_logit_is_the_logit_of_the_product(scale):
    a, b = draws(2, 1000, scale=scale)
    product = a.double().sigmoid() * b.double().sigmoid()
    torch.testing.assert_close(joint_logit(a, b).double(), product.log() - (-product).log1p(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(joint_logit(a, b), joint_logit(b, a), atol=0, rtol=1e-6)


@pytest.mark.parametrize("scale", [1, 10, 40, 80])
def test_joint_logit_is_finite_and_at_most_the_smaller_factor(scale):
    a, b = draws(2, 100_000, scale=scale)
    joint = joint_logit(a, b)
    assert joint.isfinite().all()
    assert (joint <= torch.minimum(a, b)).all()


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (0, 0, -math.log(3)),
        (60, 60, 60 - math.log(2)),
        (-60, -60, -120),
        (60, -60, -60),
        (-300, -300, -600),
        (5, 1e4, 5),
    ],
)
def test_joint_logit_at_the_ends_of_its_range(a, b, expected):
    assert joint_logit(torch.tensor([float(a)]), torch.tensor([float(b)])).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("a", "b", "label", "gradients"),
    [(60, 60, 0, (0.5, 0.5)), (-60, -60, 1, (-1, -1)), (60, -60, 1, (0, -1)), (-60, -60, 0, (0, 0))],
)
def test_joint_logit_keeps_its_gradient_where_the_product_would_underflow(a, b, label, gradients):
    a, b = (torch.tensor([float(x)], requires_grad=True) for x in (a, b))
    F.binary_cross_entropy_with_logits(joint_logit(a, b), torch.tensor([float(label)])).backward()
    assert (a.grad.item(), b.grad.item()) == pytest.approx(gradients, abs=1e-5)


def test_joint_logit_has_the_derivatives_of_the_product():
    a, b = (draw.requires_grad_() for draw in draws(2, 20, scale=2, dtype=torch.float64))
    expected = torch.autograd.grad((a.sigmoid() * b.sigmoid()).logit().sum(), (a, b))
    torch.testing.assert_close(torch.autograd.grad(joint_logit(a, b).sum(), (a, b)), expected)


@pytest.mark.parametrize("scale", [0.1, 1, 3])
def test_ratio_logit_inverts_joint_logit(scale):
    a, b = draws(2, 1000, scale=scale)
    torch.testing.assert_close(
        ratio_logit(joint_logit(a, b), a).double().sigmoid(), b.double().sigmoid(), atol=2e-6, rtol=1e-5
    )
    a, b = draws(2, 1000, scale=scale, dtype=torch.float64)
    torch.testing.assert_close(ratio_logit(joint_logit(a, b), a), b)


def test_ratio_logit_by_hand():
    joint, first = logit(0.1, 0.2, 0.001), logit(0.5, 0.25, 0.9)
    torch.testing.assert_close(ratio_logit(joint, first).sigmoid(), torch.tensor([0.2, 0.8, 0.001 / 0.9]).double())


@pytest.mark.parametrize(("joint", "first"), [(0.0, -1.0), (0.0, 0.0), (80.0, -80.0), (90.0, 90.0), (-90.0, -90.0)])
def test_ratio_is_clipped_below_one_if_the_joint_exceeds_the_first(joint, first):
    found = ratio_logit(torch.tensor([joint]), torch.tensor([first]))
    assert found.item() == pytest.approx(math.log(1e6), abs=0.1)


@pytest.mark.parametrize(("joint", "first"), [(-200.0, 200.0), (-200.0, -1.0), (-90.0, 0.0)])
def test_ratio_logit_of_a_vanishing_joint_is_finite(joint, first):
    found = ratio_logit(torch.tensor([joint]), torch.tensor([first]))
    assert found.item() == pytest.approx(joint + math.log1p(math.exp(-first)))
