"""Metrics by hand and against scikit-learn and scipy, and the comparison of two models."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import logit
from sklearn.metrics import f1_score, roc_auc_score

from dyadic.metrics import (
    auc_per_user,
    average_precision_per_user,
    best_threshold,
    compare,
    evaluate,
    f1,
    predict,
)

# User 0 has four dyads, user 1 only clicked ones, user 2 none, user 3 only ignored ones, user 4 equal scores.
USERS = np.array([0, 1, 0, 3, 0, 1, 0, 3, 4, 4])
ITEMS = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
LABELS = np.array([1, 1, 0, 0, 1, 1, 0, 0, 0, 1])
SCORES = np.array([3.0, 1.0, 2.0, 1.0, 1.0, 2.0, 0.0, 5.0, 7.0, 7.0])


def random_case(seed: int = 0, ties: bool = True):
    random = np.random.default_rng(seed)
    users = random.integers(30, size=600)
    scores = random.normal(size=600).round(1 if ties else 9)
    labels = (random.random(600) < 1 / (1 + np.exp(-scores))).astype(int)
    return users, np.arange(600), labels, scores


def test_auc_counts_ties_half_and_skips_users_with_one_class():
    auc = auc_per_user(USERS, LABELS, SCORES, 5)
    assert auc[0] == pytest.approx(3 / 4)  # 3 beats 2 and 0; 1 loses to 2 and beats 0
    assert auc[4] == 0.5
    assert np.isnan(auc[[1, 2, 3]]).all()


def test_auc_equals_scikit_learn_user_by_user():
    users, _, labels, scores = random_case()
    auc = auc_per_user(users, labels, scores, 31)
    for user in range(30):
        own = users == user
        if 0 < labels[own].sum() < own.sum():
            assert auc[user] == pytest.approx(roc_auc_score(labels[own], scores[own]))
    assert np.isnan(auc[30])


def test_average_precision_by_hand():
    at_1 = average_precision_per_user(USERS, ITEMS, LABELS, SCORES, 5, 1)
    assert at_1[[0, 1, 3]].tolist() == [1, 1, 0]
    assert np.isnan(at_1[2])
    at_5 = average_precision_per_user(USERS, ITEMS, LABELS, SCORES, 5, 5)
    assert at_5[0] == pytest.approx((1 / 1 + 2 / 3) / 5)  # hits at ranks 1 and 3, divisor k
    usual = average_precision_per_user(USERS, ITEMS, LABELS, SCORES, 5, 5, norm="minkp")
    assert usual[0] == pytest.approx((1 / 1 + 2 / 3) / 2)  # divisor: two positives
    assert usual[1] == 1.0
    assert usual[3] == 0.0
    at_2 = average_precision_per_user(USERS, ITEMS, LABELS, SCORES, 5, 2)
    assert at_2[0] == pytest.approx(0.5)


def test_equal_scores_are_sorted_by_item_id():
    assert average_precision_per_user(USERS, ITEMS, LABELS, SCORES, 5, 1)[4] == 0.0  # item 8, ignored, precedes 9
    shuffled = np.random.default_rng(0).permutation(len(USERS))
    again = average_precision_per_user(*(c[shuffled] for c in (USERS, ITEMS, LABELS, SCORES)), 5, 1)
    assert again[4] == 0.0


def test_average_precision_equals_a_slow_version():
    users, items, labels, scores = random_case(1)
    for k, norm in [(1, "k"), (5, "k"), (5, "minkp"), (50, "minkp")]:
        fast = average_precision_per_user(users, items, labels, scores, 30, k, norm)
        for user in range(30):
            own = np.flatnonzero(users == user)
            ranked = sorted(own, key=lambda row: (-scores[row], items[row]))[:k]
            hits, total = 0, 0.0
            for rank, row in enumerate(ranked, 1):
                hits += labels[row]
                total += labels[row] * hits / rank
            divisor = k if norm == "k" else max(1, min(k, labels[own].sum()))
            assert fast[user] == pytest.approx(total / divisor)


def test_f1_and_the_best_threshold():
    labels = np.array([True, True, False, False])
    assert f1(labels, np.array([True, False, True, False])) == 0.5
    assert f1(labels, np.zeros(4, dtype=bool)) == 0.0
    assert f1(np.zeros(4, dtype=bool), np.zeros(4, dtype=bool)) == 0.0
    chances = logit(np.array([0.42, 0.36, 0.33, 0.1]))
    assert predict(chances, 0.4).tolist() == [True, False, False, False]
    assert best_threshold(labels, chances) == (0.35, 1.0)
    assert best_threshold(labels, chances, (0.9, 0.8)) == (0.9, 0.0)  # the first of equal ones


def test_f1_equals_scikit_learn():
    users, items, labels, scores = random_case(2)
    metrics = evaluate(users, items, labels, scores, 30, threshold=0.45)
    predicted = predict(scores, 0.45)
    assert metrics.means["f1"] == pytest.approx(f1_score(labels, predicted))
    own = users == 4
    assert metrics.per_user["f1"][4] == pytest.approx(f1_score(labels[own], predicted[own]))


def test_means_cover_the_users_with_a_value():
    metrics = evaluate(USERS, ITEMS, LABELS, SCORES, 5)
    assert metrics.means["auc"] == pytest.approx((0.75 + 0.5) / 2)
    assert (metrics.users, metrics.skipped) == (4, 2)
    assert metrics.means["map@1"] == pytest.approx(2 / 4)  # user 3, without a positive, counts 0
    with_positive = evaluate(USERS, ITEMS, LABELS, SCORES, 5, map_users="with_pos")
    assert with_positive.means["map@1"] == pytest.approx(2 / 3)


def test_a_task_without_positives():
    metrics = evaluate(USERS, ITEMS, np.zeros(10, dtype=int), SCORES - 10, 5)
    assert np.isnan(metrics.means["auc"])
    assert metrics.skipped == metrics.users == 4
    assert metrics.means["f1"] == metrics.means["map@5"] == 0.0
    comparison = compare(metrics, metrics)["auc"]
    assert np.isnan(comparison.ranksum_p)
    assert comparison.worse is None


def test_invalid_arguments_raise_errors():
    empty = np.array([], dtype=int)
    with pytest.raises(ValueError, match="at least one dyad"):
        evaluate(empty, empty, empty, empty.astype(float), 3)
    with pytest.raises(ValueError, match="finite scores"):
        evaluate(USERS, ITEMS, LABELS, SCORES * np.nan, 5)
    with pytest.raises(ValueError, match="unknown map_users"):
        evaluate(USERS, ITEMS, LABELS, SCORES, 5, map_users="some")
    with pytest.raises(ValueError, match="unknown map_norm"):
        evaluate(USERS, ITEMS, LABELS, SCORES, 5, map_norm="positives")


def test_p_values_equal_scipy():
    users, items, labels, scores = random_case(3, ties=False)
    better = evaluate(users, items, labels, scores, 30)
    worse = evaluate(users, items, labels, np.random.default_rng(0).normal(size=600), 30)
    result = compare(worse, better)["auc"]
    a, b = worse.per_user["auc"], better.per_user["auc"]
    assert result.ranksum_p == pytest.approx(stats.ranksums(a, b).pvalue)
    assert result.signed_rank_p == pytest.approx(stats.wilcoxon(a, b).pvalue)
    assert result.worse == "first"
    assert compare(better, worse)["auc"].worse == "second"
    assert compare(better, worse, level=1e-30)["auc"].worse is None
    assert compare(better, better)["map@5"].signed_rank_p == 1.0


def test_the_two_tests_can_disagree():
    """Every user gains a little: significant for the test that pairs the users, not for the other one."""
    random = np.random.default_rng(0)
    users, items = np.repeat(np.arange(60), 40), np.tile(np.arange(40), 60)
    strength = np.repeat(random.uniform(0, 6, size=60), 40)
    labels = (items < 20).astype(int)
    noise = random.normal(size=2400)
    first, second = (
        evaluate(users, items, labels, noise + gain * strength / 6 * labels + extra * labels, 60)
        for gain, extra in [(2, 0.0), (2, 0.15)]
    )
    result = compare(first, second)["auc"]
    assert result.signed_rank_p < 0.01 < result.ranksum_p
