"""Every metric against values by hand, a slow loop, SciPy and scikit-learn."""

import math

import numpy as np
import pytest
import torch
from conftest import Lookup, interactions
from scipy.stats import rankdata
from sklearn.metrics import mean_squared_error, ndcg_score, roc_auc_score

import evaluation
from evaluation import (
    METRICS,
    Metric,
    evaluate,
    metric_tags,
    mrr_score,
    mse_score,
    rank_test_items,
    ranking_metrics,
)
from models import MultiTaskNet
from zoo.metrics import CHAIN_METRICS, LABEL_METRICS


def one_user(scores, test_items, train_items=()):
    """The ranking metrics for a single user with these scores."""
    test = interactions([(0, item) for item in test_items], 1, len(scores))
    train = interactions([(0, item) for item in train_items], 1, len(scores))
    return ranking_metrics(rank_test_items(Lookup([scores]), test, train))


def test_best_item_has_reciprocal_rank_one():
    assert one_user([9, 5, 1], [0])["mrr"] == 1


def test_worst_of_three_has_reciprocal_rank_a_third():
    assert one_user([9, 5, 1], [2])["mrr"] == pytest.approx(1 / 3)


def test_homework_mrr_takes_all_hits_and_the_textbook_one_the_first():
    found = one_user([9, 5, 1], [0, 2])
    assert found["mrr"] == pytest.approx((1 + 1 / 3) / 2)
    assert found["first_hit_mrr"] == 1


def test_train_items_are_not_ranked():
    assert one_user([9, 5, 1], [2], train_items=[0, 1])["mrr"] == 1


def test_ties_share_their_average_rank():
    assert one_user([5, 5, 5], [0])["mrr"] == pytest.approx(1 / 2)
    assert one_user([7, 5, 5, 1], [2])["mrr"] == pytest.approx(1 / 2.5)


def test_a_constant_model_ranks_every_item_in_the_middle():
    for item in range(9):
        found = one_user([3.0] * 9, [item])
        assert (found["mrr"], found["auc"]) == (pytest.approx(1 / 5), pytest.approx(0.5))


def test_rank_ten_is_a_hit_and_rank_eleven_is_not():
    scores = list(range(20, 0, -1))
    assert one_user(scores, [9])["hit_rate@10"] == 1
    assert one_user(scores, [10])["hit_rate@10"] == 0


def test_ndcg_by_hand():
    found = one_user([9, 8, 7, 6], [1, 3])["ndcg@10"]
    assert found == pytest.approx((1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3)))


def test_auc_of_a_perfect_and_of_a_reversed_order():
    assert one_user([9, 8, 1, 0], [0, 1])["auc"] == 1
    assert one_user([9, 8, 1, 0], [2, 3])["auc"] == 0


def test_auc_is_nan_if_every_candidate_is_a_test_item():
    assert math.isnan(one_user([9, 8], [0, 1])["auc"])


def test_users_have_equal_weight_whatever_their_number_of_test_items():
    test = interactions([(0, 0), (1, 0), (1, 1), (1, 2)], 3, 4)
    scores = [[9, 0, 0, 0], [1, 2, 3, 4], [0, 0, 0, 0]]
    expected = (1 + (1 / 4 + 1 / 3 + 1 / 2) / 3) / 2
    assert mrr_score(Lookup(scores), test) == pytest.approx(expected)


def slow_metrics(scores: np.ndarray, test, train) -> dict[str, float]:
    """All ranking metrics user by user and item by item, ranks by SciPy, AUC by scikit-learn."""
    per_user: dict[str, list[float]] = {name: [] for name in METRICS if name != "mse"}
    test_pairs = list(zip(test.user_ids.tolist(), test.item_ids.tolist(), strict=True))
    train_pairs = set(zip(train.user_ids.tolist(), train.item_ids.tolist(), strict=True))
    for user in sorted({user for user, _ in test_pairs}):
        candidates = [item for item in range(test.num_items) if (user, item) not in train_pairs]
        wanted = [item for u, item in test_pairs if u == user]
        ranks = dict(zip(candidates, rankdata(-scores[user, candidates]), strict=True))
        hits = sorted(ranks[item] for item in wanted)
        per_user["mrr"].append(sum(1 / rank for rank in hits) / len(hits))
        per_user["first_hit_mrr"].append(1 / hits[0])
        per_user["hit_rate@10"].append(float(hits[0] <= 10))
        ideal = sum(1 / math.log2(1 + place) for place in range(1, min(len(hits), 10) + 1))
        per_user["ndcg@10"].append(sum(1 / math.log2(1 + rank) for rank in hits if rank <= 10) / ideal)
        labels = [item in wanted for item in candidates]
        if not all(labels):
            per_user["auc"].append(roc_auc_score(labels, scores[user, candidates]))
    return {name: sum(values) / len(values) for name, values in per_user.items()}


def random_world(seed: int, num_users: int = 25, num_items: int = 40):
    random = np.random.default_rng(seed)
    pairs = [divmod(int(key), num_items) for key in random.permutation(num_users * num_items)[:400]]
    train = interactions(pairs[:300], num_users, num_items)
    test = interactions(pairs[300:], num_users, num_items)
    return random, train, test


@pytest.mark.parametrize("levels", [3, 12, 10**6])  # from many ties to none
@pytest.mark.parametrize("cells", [1, 150, 2**20])  # from a row at a time to all at once
@pytest.mark.parametrize("sort_from", [1, 4, 10**9])  # sorting always, for those with many test items, never
def test_metrics_equal_the_slow_loop(levels, cells, sort_from, monkeypatch):
    monkeypatch.setattr(evaluation, "BLOCK_CELLS", cells)
    monkeypatch.setattr(evaluation, "SORT_FROM", sort_from)
    random, train, test = random_world(seed=levels)
    scores = random.integers(levels, size=(25, 40)).astype(np.float32)
    found = ranking_metrics(rank_test_items(Lookup(scores), test, train))
    assert found == pytest.approx(slow_metrics(scores, test, train), abs=1e-9)


@pytest.mark.parametrize("sort_from", [1, 5, 10**9])
def test_ranks_are_those_of_scipy_to_the_last_bit(sort_from, monkeypatch):
    monkeypatch.setattr(evaluation, "SORT_FROM", sort_from)
    random, train, test = random_world(seed=6)
    scores = random.integers(9, size=(25, 40)).astype(np.float32)
    found = rank_test_items(Lookup(scores), test, train)
    scores[train.user_ids, train.item_ids] = -np.inf
    order = torch.argsort(test.user_ids, stable=True)
    users, items = test.user_ids[order], test.item_ids[order]
    assert found.users.equal(users)
    assert found.ranks.tolist() == rankdata(-scores, axis=1)[users, items].tolist()
    assert found.candidates.tolist() == np.isfinite(scores).sum(axis=1)[users].tolist()


def test_scores_are_sorted_for_users_with_many_test_items_only(monkeypatch):
    sorted_rows = []
    sort = evaluation._ranks_by_sorting

    def watched(scores, rows, items):
        sorted_rows.extend(rows.tolist())
        return sort(scores, rows, items)

    monkeypatch.setattr(evaluation, "SORT_FROM", 3)
    monkeypatch.setattr(evaluation, "_ranks_by_sorting", watched)
    test = interactions([(0, 1), (1, 0), (1, 2), (1, 3), (2, 0), (2, 1)], 3, 4)
    assert rank_test_items(Lookup([[4, 3, 2, 1]] * 3), test).ranks.tolist() == [2, 1, 3, 4, 1, 2]
    assert sorted_rows == [1, 1, 1]


def test_each_user_is_scored_once(monkeypatch):
    monkeypatch.setattr(evaluation, "BLOCK_CELLS", 3 * 40)
    _, train, test = random_world(seed=7)
    model, asked = MultiTaskNet(25, 40), []
    score_items = model.score_items
    model.score_items = lambda users: asked.extend(users.tolist()) or score_items(users)
    rank_test_items(model, test, train)
    assert asked == test.user_ids.unique().tolist()


def test_ndcg_equals_scikit_learn_without_ties():
    random, train, test = random_world(seed=1)
    scores = random.permuted(np.tile(np.arange(40.0, dtype=np.float32), (25, 1)), axis=1)
    truth, masked = np.zeros((25, 40)), scores.copy()
    truth[test.user_ids, test.item_ids] = 1
    masked[train.user_ids, train.item_ids] = -1
    tested = np.unique(test.user_ids)
    expected = ndcg_score(truth[tested], masked[tested], k=10)
    assert ranking_metrics(rank_test_items(Lookup(scores), test, train))["ndcg@10"] == pytest.approx(expected)


@pytest.mark.parametrize("sharing", [True, False])
def test_ranking_by_score_items_equals_ranking_by_forward(sharing):
    _, train, test = random_world(seed=2)
    torch.manual_seed(0)
    model = MultiTaskNet(25, 40, embedding_sharing=sharing)
    torch.nn.init.normal_(model.B.weight)
    scores = model(torch.arange(25).repeat_interleave(40), torch.arange(40).repeat(25))[0].view(25, 40)
    found = ranking_metrics(rank_test_items(model, test, train))
    assert found == pytest.approx(slow_metrics(scores.detach().numpy(), test, train), abs=1e-9)


def test_mse_is_the_mean_over_rows(monkeypatch):
    monkeypatch.setattr(evaluation, "BLOCK_PAIRS", 3)
    random = np.random.default_rng(0)
    predicted, observed = random.normal(size=(2, 4)), random.normal(size=8)
    test = interactions([(u, i) for u in range(2) for i in range(4)], 2, 4, observed)
    assert mse_score(Lookup(predicted), test) == pytest.approx(mean_squared_error(observed, predicted.ravel()))


def test_evaluation_restores_the_mode_and_leaves_no_gradients():
    _, train, test = random_world(seed=3)
    model = MultiTaskNet(25, 40)
    for mode in (True, False):
        model.train(mode)
        mrr_score(model, test, train)
        mse_score(model, test)
        assert model.training is mode
        assert all(parameter.grad is None for parameter in model.parameters())


def test_an_empty_test_split_raises():
    empty = interactions([], 2, 3)
    for score in (mrr_score, mse_score):
        with pytest.raises(ValueError, match="nothing to evaluate"):
            score(Lookup(np.zeros((2, 3))), empty)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_not_finite_raise(bad):
    with pytest.raises(FloatingPointError):
        one_user([1.0, bad, 2.0], [0])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_predicted_ratings_that_are_not_finite_raise(bad):
    with pytest.raises(FloatingPointError):
        mse_score(Lookup([[1.0, 2.0]], [[bad, 2.0]]), interactions([(0, 0), (0, 1)], 1, 2))


TABLES = (METRICS, LABEL_METRICS, CHAIN_METRICS)


@pytest.mark.parametrize("table", TABLES)
def test_every_metric_has_a_direction_and_a_title_of_its_own(table):
    assert all(metric.direction in (-1, 0, +1) for metric in table.values())
    assert all(metric.title for metric in table.values())
    assert len({metric.title for metric in table.values()}) == len(table)


def test_tags_are_the_title_in_the_group_of_the_split():
    tags = metric_tags(METRICS, main=("mrr", "mse"))
    assert (tags["test_mrr"], tags["test_mse"]) == ("eval/Mean Reciprocal Rank", "eval/MSE")
    assert (tags["test_auc"], tags["val_hit_rate@10"]) == ("further metrics/AUC", "validation/Hit Rate@10")
    assert [tag for tag in tags.values() if tag.startswith("eval/")] == ["eval/Mean Reciprocal Rank", "eval/MSE"]
    assert len(tags) == 2 * len(METRICS) == len(set(tags.values()))


def test_a_new_metric_needs_an_entry_in_its_table_only(monkeypatch):
    monkeypatch.setitem(evaluation.RANKING_METRICS, "best_rank", Metric(lambda r: r.ranks.min().item(), -1, "Best"))
    monkeypatch.setitem(evaluation.RATING_METRICS, "rows", Metric(lambda model, test: float(len(test)), 0, "Rows"))
    test = interactions([(0, 1), (0, 2)], 1, 3)
    found = evaluate(Lookup([[9, 5, 1]]), test)
    assert (found["best_rank"], found["rows"]) == (2, 2)


def test_metrics_are_reported_in_the_order_of_the_table():
    assert list(evaluate(Lookup([[9, 5, 1]]), interactions([(0, 1)], 1, 3))) == list(METRICS)


def test_every_metric_has_the_direction_of_its_definition():
    assert {name: metric.direction for name, metric in METRICS.items()} == {
        name: -1 if name == "mse" else +1 for name in METRICS
    }
    assert set(one_user([1, 2, 3], [0])) | {"mse"} == set(METRICS)
