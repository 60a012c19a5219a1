"""EASE against its formula, its two forms, the choice of the ridge, and scores cut to tables."""

import numpy as np
import pytest
import torch
from conftest import interactions

from dataset import Interactions
from evaluation import mrr_score
from multitask import ease
from multitask.ease import (
    ScoreTable,
    choose_ridge,
    choose_width,
    cut,
    ease_scores,
    fit_ease,
    gain_over_popularity,
)
from multitask.svd import top_singular_vectors


def watched(num_users=30, num_items=20, fraction=0.3, seed=0) -> Interactions:
    mask = torch.rand(num_users, num_items, generator=torch.Generator().manual_seed(seed)) < fraction
    users, items = mask.nonzero(as_tuple=True)
    return Interactions(users, items, torch.ones(len(users)), num_users, num_items)


def groups(num_users=120, num_items=60, num_groups=4, seed=0) -> Interactions:
    """Users who watch mostly items of their own group."""
    same = (torch.arange(num_users) % num_groups).unsqueeze(1) == torch.arange(num_items) % num_groups
    chances = torch.where(same, 0.5, 0.03)
    users, items = (torch.rand(same.shape, generator=torch.Generator().manual_seed(seed)) < chances).nonzero(
        as_tuple=True
    )
    return Interactions(users, items, torch.ones(len(users)), num_users, num_items)


def dense(train: Interactions) -> np.ndarray:
    matrix = np.zeros((train.num_users, train.num_items))
    matrix[train.user_ids, train.item_ids] = 1
    return matrix


@pytest.mark.parametrize("user_exponent", [0.0, 0.3])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_every_column_is_a_ridge_regression_on_the_other_items(user_exponent, dropout):
    train = watched()
    weights = fit_ease(train, 5.0, user_exponent, dropout).numpy()
    x = dense(train)
    counts = x.sum(1)
    user_weights = counts**-user_exponent
    user_weights *= counts.sum() / (counts * user_weights).sum()
    for item in range(20):
        others = np.arange(20) != item
        a, y = np.sqrt(user_weights)[:, None] * x[:, others], np.sqrt(user_weights) * x[:, item]
        penalty = np.diag(5.0 + dropout * (a**2).sum(0))
        np.testing.assert_allclose(weights[others, item], np.linalg.solve(a.T @ a + penalty, a.T @ y), atol=1e-10)
        assert weights[item, item] == 0


@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (25, 25)])
def test_both_forms_give_the_same_scores(shape):
    train = watched(*shape)
    by_items = torch.from_numpy(dense(train)) @ fit_ease(train, 3.0)
    torch.testing.assert_close(ease._scores_by_users(train, 3.0, 0.3, 0.3), by_items)
    torch.testing.assert_close(ease_scores(train, 3.0), by_items)


def test_a_rating_counts_once_and_its_value_not_at_all():
    once = interactions([(0, 0), (0, 1), (1, 1), (2, 0), (2, 2)], 3, 3)
    twice = interactions([(0, 0), (0, 1), (1, 1), (2, 0), (2, 2), (0, 1)], 3, 3, [1.0, 5.0, 2.0, 3.0, 4.0, 2.0])
    assert fit_ease(once, 1.0).equal(fit_ease(twice, 1.0))


def test_the_groups_of_a_planted_world_are_found():
    scores = ease_scores(groups(), 10.0)
    same = (torch.arange(120) % 4).unsqueeze(1) == torch.arange(60) % 4
    own, others = scores[same].view(120, 15, 1), scores[~same].view(120, 1, 45)
    assert (own > others).double().mean() > 0.95


@pytest.mark.parametrize("shape", [(30, 20), (20, 30)])
def test_degenerate_data_give_finite_scores(shape):
    num_users, num_items = shape
    one_each = [(user, user * 7 % num_items) for user in range(num_users)]
    everything = [(0, item) for item in range(num_items)] + [(1, 0)]
    for pairs in (one_each, everything, [(0, 0)]):  # the last two have users and items without ratings
        scores = ease_scores(interactions(pairs, *shape), 10.0)
        tables = cut(scores, 8, torch.ones(num_items))
        assert all(part.isfinite().all() for part in (scores, *tables))


def test_a_ridge_that_is_not_positive_is_refused():
    for shape in ((30, 20), (20, 30)):
        with pytest.raises(ValueError, match="ridge must be positive, not 0"):
            ease_scores(watched(*shape), 0.0)


def halves(data: Interactions) -> tuple[Interactions, Interactions]:
    is_held_out = torch.rand(len(data), generator=torch.Generator().manual_seed(1)) < 0.2
    return data[~is_held_out], data[is_held_out]


def test_the_ridge_is_the_best_of_the_grid_on_validation():
    train, validation = halves(groups())
    grid = (1.0, 10.0, 100.0, 1e4, 1e6)
    ridge, tried = choose_ridge(train, validation, grid)
    for tested, mrr in tried.items():
        assert mrr == mrr_score(ScoreTable(ease_scores(train, tested)), validation, train)
    assert tried[ridge] == max(tried.values())
    neighbors = {grid[place] for place in (grid.index(ridge) - 1, grid.index(ridge) + 1) if 0 <= place < 5}
    assert neighbors <= set(tried)


@pytest.mark.parametrize("best", range(5))
def test_the_search_reaches_every_end_of_the_grid(best, monkeypatch):
    monkeypatch.setattr(ease, "ease_scores", lambda train, ridge: ridge)
    monkeypatch.setattr(ease, "ScoreTable", lambda ridge: ridge)
    monkeypatch.setattr(ease, "mrr_score", lambda ridge, validation, train: -abs(ridge - best))
    assert choose_ridge(watched(), watched(), range(5))[0] == best


def test_a_grid_of_one_needs_no_search():
    train, validation = halves(groups())
    assert choose_ridge(train, validation, (50.0,))[0] == 50.0


def test_tables_of_full_width_keep_the_order_of_the_scores():
    scores = ease_scores(watched(), 5.0)
    users, items, bias = cut(scores, 20, torch.ones(20))
    standardized = (scores - scores.mean(1, keepdim=True)) / scores.std(1, keepdim=True, correction=0)
    torch.testing.assert_close(users @ items.T + bias, standardized)


def test_the_cut_is_the_nearest_of_its_rank():
    scores = ease_scores(watched(), 5.0)
    users, items, bias = cut(scores, 6, torch.ones(20))
    assert users.shape == (30, 6)
    assert items.shape == (20, 6)
    rest = ((scores - scores.mean(1, keepdim=True)) / scores.std(1, keepdim=True, correction=0) - bias).numpy()
    error = np.linalg.norm((users @ items.T).numpy() - rest)
    assert error == pytest.approx(np.sqrt((np.linalg.svd(rest, compute_uv=False)[6:] ** 2).sum()))


def test_the_width_is_the_best_on_validation():
    train, validation = halves(groups())
    width, tried = choose_width(train, validation, 10.0, (40, 4, 1))
    for tested, mrr in tried.items():
        users, items, bias = cut(ease_scores(train, 10.0), tested, train.item_counts)
        assert mrr == pytest.approx(mrr_score(ScoreTable(users @ items.T + bias), validation, train))
    assert list(tried) == [1, 4, 40]
    assert tried[width] == max(tried.values())


def test_the_gain_over_popularity_is_a_mean_over_users_with_its_standard_error():
    train, validation = halves(groups())
    gain, error = gain_over_popularity(train, validation, 10.0, 20)
    users, items, bias = cut(ease_scores(train, 10.0), 20, train.item_counts)
    popular = ScoreTable(train.item_counts.double().repeat(train.num_users, 1))
    differences = []
    for user in validation.user_ids.unique():
        own = validation[validation.user_ids == user]
        mine = mrr_score(ScoreTable(users @ items.T + bias), own, train)
        differences.append(mine - mrr_score(popular, own, train))
    assert gain == pytest.approx(np.mean(differences))
    assert error == pytest.approx(np.std(differences, ddof=1) / np.sqrt(len(differences)))
    assert gain > 2 * error  # the items of a group are watched together


def test_of_equal_widths_the_narrowest_is_chosen(monkeypatch):
    monkeypatch.setattr(ease, "mrr_score", lambda *_: 0.1)
    assert choose_width(watched(), watched(), 5.0, (16, 8, 12))[0] == 8


def test_users_with_equal_scores_are_ranked_by_the_mean_of_all_and_popularity():
    scores = torch.randn(6, 9, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    scores[2] = 0.1  # its mean is not exactly 0.1
    scores[4] = 0.0
    popularity = torch.arange(9)
    users, items, bias = cut(scores, 9, popularity)
    rows = [(row - row.mean()) / row.std(correction=0) for row in scores]
    rows[2] = rows[4] = (popularity - 4.0) / (60 / 9) ** 0.5
    mean = torch.stack(rows).mean(dim=0)
    torch.testing.assert_close(bias, mean)
    torch.testing.assert_close((users @ items.T + bias)[[2, 4]], mean.repeat(2, 1))
    torch.testing.assert_close((users @ items.T + bias)[5], rows[5])


def test_where_no_two_users_share_an_item_popularity_ranks():
    train = interactions([(user, user % 3) for user in range(7)], 7, 5)
    users, _, bias = cut(ease_scores(train, 5.0), 4, train.item_counts)
    assert not users.any()
    assert bias.argsort(descending=True, stable=True).tolist() == [0, 1, 2, 3, 4]


def test_tables_wider_than_the_scores_are_filled_with_zeros():
    users, items, bias = cut(ease_scores(watched(), 5.0), 64, torch.ones(20))
    assert users.shape == (30, 64)
    assert items.shape == (20, 64)
    assert (users[:, 20:] == 0).all()
    assert bias.shape == (20,)


@pytest.mark.parametrize("shape", [(300, 400), (400, 300)])
def test_the_random_start_finds_the_same_space_as_the_exact_decomposition(shape, monkeypatch):
    left, right = (torch.linalg.qr(torch.randn(n, 300, dtype=torch.double)).Q for n in shape)
    matrix = (left * 0.8 ** torch.arange(300)) @ right.T
    exact = top_singular_vectors(matrix, 10)
    monkeypatch.setattr("multitask.svd.EXACT_ROWS", 10)
    found = top_singular_vectors(matrix, 10)
    torch.testing.assert_close(found[1], exact[1], rtol=1e-7, atol=0)
    products = [(one * values) @ other.T for one, values, other in (exact, found)]
    torch.testing.assert_close(products[1], products[0], rtol=0, atol=1e-6)
    again = top_singular_vectors(matrix, 10)
    assert all(one.equal(other) for one, other in zip(found, again, strict=True))
