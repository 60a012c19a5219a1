"""Every metric of labels against values by hand, a slow loop and scikit-learn."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

from evaluation import auc_by_group, roc_auc
from zoo.metrics import label_metrics


def of_labels(logits, labels, users=None) -> dict[str, float]:
    users = [0] * len(labels) if users is None else users
    return label_metrics(torch.tensor(logits), torch.tensor(labels), torch.tensor(users))


def labelled_rows(seed: int, levels: int, rows: int = 300):
    """Scores on `levels` levels, labels correlated with them, and twenty users, some with one class only."""
    random = np.random.default_rng(seed)
    scores = random.integers(levels, size=rows) * (8 / levels) - 4
    users = random.integers(20, size=rows) * 3 - 7  # numbers with gaps, from below 0
    labels = (random.random(rows) < 1 / (1 + np.exp(-scores))).astype(np.float64)
    labels[users < -3] = 1
    return [torch.from_numpy(values) for values in (scores, labels, users)]


def test_the_auc_of_three_rows_by_hand():
    assert roc_auc(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 0.0, 1.0])) == 1
    assert roc_auc(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 1.0, 0.0])) == 0.5
    assert roc_auc(torch.tensor([1.0, 2.0, 2.0]), torch.tensor([1.0, 0.0, 1.0])) == 0.25


@pytest.mark.parametrize("levels", [2, 7, 10**6])  # from many ties to none
def test_label_metrics_are_those_of_scikit_learn(levels):
    scores, labels, users = labelled_rows(levels, levels)
    found = label_metrics(scores, labels, users)
    assert found["auc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert found["log_loss"] == pytest.approx(log_loss(labels, scores.sigmoid()), abs=1e-9)
    per_user = []
    for user in users.unique():
        own = users == user
        if 0 < labels[own].mean() < 1:
            per_user.append(roc_auc_score(labels[own], scores[own]))
    assert 0 < len(per_user) < len(users.unique())
    assert found["user_auc"] == pytest.approx(np.mean(per_user), abs=1e-12)


def test_the_auc_within_each_group_equals_a_plain_loop():
    scores, labels, groups = labelled_rows(seed=5, levels=6)
    found = auc_by_group(scores, labels, groups)
    for group, value in zip(groups.unique(), found.tolist(), strict=True):  # ascending
        own = groups == group
        pairs = [(one, other) for one in scores[own & (labels == 1)] for other in scores[own & (labels == 0)]]
        expected = np.mean([(one > other) + (one == other) / 2 for one, other in pairs]) if pairs else math.nan
        assert value == pytest.approx(expected, nan_ok=True)
    assert found.isnan().any()


def test_user_auc_skips_users_with_one_class_and_weights_the_others_equally():
    """One user in order, with many rows; one out of order; and one who likes everything."""
    users = [0] * 6 + [1] * 2 + [2] * 4
    found = of_labels([1.0, 2, 3, 4, 5, 6, 2, 1, 9, 9, 8, 7], [0.0, 0, 0, 1, 1, 1, 0, 1, 1, 1, 1, 1], users)
    assert found["user_auc"] == 0.5


def test_equal_scores_have_auc_one_half_in_any_order():
    labels = [1.0] * 5 + [0.0] * 15
    for order in (labels, labels[::-1]):
        found = of_labels([0.3] * 20, order, [0, 1] * 10)
        assert (found["auc"], found["user_auc"]) == (0.5, 0.5)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_metrics_of_a_single_class_are_nan_except_the_log_loss(label):
    found = of_labels([0.1, 0.2, 0.3], [label] * 3)
    assert math.isnan(found["auc"])
    assert math.isnan(found["user_auc"])
    assert math.isnan(found["entropy"])
    assert math.isfinite(found["log_loss"])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_raise(bad):
    with pytest.raises(FloatingPointError):
        of_labels([0.0, bad, 1.0], [0.0, 1.0, 1.0])


def test_log_loss_entropy_and_calibration_by_hand():
    """One row in four is 1; the chances said are 1/2, 1/2, 1/2 and 3/4."""
    found = of_labels([0.0, 0.0, 0.0, math.log(3)], [0.0, 0.0, 0.0, 1.0])
    expected = (3 * math.log(2) - math.log(3 / 4)) / 4
    by_rate = -(math.log(1 / 4) + 3 * math.log(3 / 4)) / 4
    assert found["log_loss"] == pytest.approx(expected, rel=1e-6)
    assert found["entropy"] == pytest.approx(expected / by_rate, rel=1e-6)
    assert found["calibration"] == pytest.approx((3 / 2 + 3 / 4) / 1, rel=1e-6)


def test_predicting_the_mean_label_has_entropy_one_and_calibration_one():
    found = of_labels([math.log(1 / 4)] * 10, [1.0, 1.0] + [0.0] * 8)
    assert found["entropy"] == pytest.approx(1, rel=1e-6)
    assert found["calibration"] == pytest.approx(1, rel=1e-6)


def test_log_loss_of_confident_mistakes_is_finite():
    assert of_labels([200.0, -200.0, 0.0], [0.0, 1.0, 0.0])["log_loss"] == pytest.approx((400 + math.log(2)) / 3)


def test_label_metrics_do_not_depend_on_the_order_of_rows():
    scores, labels, users = labelled_rows(seed=9, levels=12)
    expected = label_metrics(scores, labels, users)
    for seed in range(3):
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(scores)))
        assert label_metrics(scores[order], labels[order], users[order]) == pytest.approx(expected, rel=1e-12)
    one_order = torch.argsort(labels, stable=True)
    assert roc_auc(scores[one_order], labels[one_order]) == expected["auc"]


def test_the_auc_does_not_depend_on_scale_or_offset():
    scores, labels, users = labelled_rows(seed=4, levels=50)
    assert (
        auc_by_group(3 * scores - 7, labels, users).nan_to_num().equal(auc_by_group(scores, labels, users).nan_to_num())
    )
    assert roc_auc(-scores, labels) == pytest.approx(1 - roc_auc(scores, labels))


def test_scores_one_float32_apart_are_not_ties():
    """0 and -0 are ties."""
    close = torch.tensor([1.0, 1.0 + 2**-23])
    assert roc_auc(close, torch.tensor([0.0, 1.0])) == 1
    assert roc_auc(torch.tensor([0.0, -0.0]), torch.tensor([1.0, 0.0])) == 0.5
