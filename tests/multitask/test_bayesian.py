"""Bayesian factorization: one sweep against plain loops, planted worlds, intervals, degenerate data, resumed fits."""

import numpy as np
import pytest
import torch
from conftest import interactions
from torch import Tensor

from dataset import Interactions
from multitask.bayesian import BayesianFactorization, mean_of, mixture_std
from multitask.features import genre_features, watch_features, watch_matrix


def planted(
    num_users=150, num_items=120, num_factors=2, noise=0.5, fraction=0.4, seed=0
) -> tuple[Interactions, Tensor]:
    """Ratings of random cells, made by biases and factors, and the expected ratings (num_users, num_items)."""
    torch.manual_seed(seed)
    users, items = torch.randn(num_users, num_factors), torch.randn(num_items, num_factors)
    expected = 3.5 + 0.4 * torch.randn(num_users, 1) + 0.5 * torch.randn(num_items) + users @ items.T
    user_ids, item_ids = (torch.rand(num_users, num_items) < fraction).nonzero(as_tuple=True)
    ratings = expected[user_ids, item_ids] + noise * torch.randn(len(user_ids))
    return Interactions(user_ids, item_ids, ratings, num_users, num_items), expected


def fit(train: Interactions, num_factors=3, sweeps=10, k=10, seed=0) -> BayesianFactorization:
    model = BayesianFactorization(train, watch_features(train, k), num_factors, seed)
    for _ in range(sweeps):
        model.sweep()
    return model


def split(data: Interactions) -> tuple[Interactions, Interactions]:
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(1))
    return data[order[len(data) // 5 :]], data[order[: len(data) // 5]]


def mse(model, rows: Interactions) -> float:
    return (model.predict(rows.user_ids, rows.item_ids) - rows.ratings).square().mean().item()


# The model again, one rating at a time, from its joint density.


def expected_rows(rows, other, precision, weights, features):
    """The posterior of each row of one side.

    rows: for each, a list of (row of the other side, standardized rating, precision of its noise).
    """
    means, covariances = [], []
    for number, rated in enumerate(rows):
        information, target = precision.copy(), precision @ weights.T @ features[number]
        for j, r, tau in rated:
            m, c = other["mean"][j], other["cov"][j]
            b = np.concatenate([[1.0], m[1:]])
            for p in range(len(b)):
                for q in range(len(b)):
                    cov = c[p, q] if p > 0 and q > 0 else 0.0
                    information[p, q] += tau * (b[p] * b[q] + cov)
                target[p] += tau * ((r - m[0]) * b[p] - (c[0, p] if p > 0 else 0.0))
        covariances.append(np.linalg.inv(information))
        means.append(covariances[-1] @ target)
    return {"mean": np.array(means), "cov": np.array(covariances)}


def expected_prior(side, precision, ridge, features):
    """W, rho and Lambda after an update of the rows."""
    (rows, count), width = features.shape, precision.shape[0]
    spread = np.linalg.inv(features.T @ features + ridge * np.eye(count))
    weights = spread @ features.T @ side["mean"]
    squares = width * np.trace(spread) + np.trace(precision @ weights.T @ weights)
    ridge = (width * count + 2) / (squares + 2)
    scatter = np.diag([0.5] + [2.5] * (width - 1)) + ridge * weights.T @ weights
    for number in range(rows):
        residual = side["mean"][number] - weights.T @ features[number]
        scatter += side["cov"][number] + np.outer(residual, residual)
    return weights, ridge, (rows + width) * np.linalg.inv(scatter)


def expected_squared_error(r, x, y):
    """E[(r - x_0 - y_0 - sum x_k y_k)^2] for independent x and y, from the moments of every product of coordinates."""
    width = len(x["mean"])
    # The score is a bilinear form of (1, x) and (1, y): z' S t.
    z, t = np.concatenate([[1.0], x["mean"]]), np.concatenate([[1.0], y["mean"]])
    zz, tt = np.outer(z, z), np.outer(t, t)
    zz[1:, 1:] += x["cov"]
    tt[1:, 1:] += y["cov"]
    form = np.zeros((width + 1, width + 1))
    form[1, 0] = form[0, 1] = 1.0
    form[range(2, width + 1), range(2, width + 1)] = 1.0
    return r**2 - 2 * r * (z @ form @ t) + np.sum(zz * (form @ tt @ form.T))


def rated_by(train: Interactions, tau) -> dict[str, list[list]]:
    """The ratings of each user and each item, standardized, in the form of `expected_rows`."""
    ratings = train.ratings.double().numpy()
    rows = {"users": [[] for _ in range(train.num_users)], "items": [[] for _ in range(train.num_items)]}
    standardized = (ratings - ratings.mean()) / ratings.std()
    for u, i, r in zip(train.user_ids.tolist(), train.item_ids.tolist(), standardized, strict=True):
        rows["users"][u].append((i, r, tau[u]))
        rows["items"][i].append((u, r, tau[u]))
    return rows


def expected_noise(rows, users, items, variance):
    """tau_u and v after an update of the users."""
    tau = []
    for number, rated in enumerate(rows):
        user = {part: values[number] for part, values in users.items()}
        errors = [
            expected_squared_error(r, user, {part: values[i] for part, values in items.items()}) for i, r, _ in rated
        ]
        tau.append((10 + len(rated)) / (10 * variance + sum(errors)))
    return np.array(tau), 1 / np.mean(tau)


def test_a_sweep_equals_plain_loops():
    train = planted(12, 9)[0]
    model = BayesianFactorization(train, watch_features(train, 3), 2)
    sides = {"users": model.users, "items": model.items}
    state = {name: {"mean": side.mean.numpy(), "cov": side.covariance.numpy()} for name, side in sides.items()}
    priors = {name: (side.weights.numpy(), side.ridge.item(), side.precision.numpy()) for name, side in sides.items()}
    tau, variance = np.ones(12), 1.0
    for _ in range(3):
        model.sweep()
        for name, other in (("users", "items"), ("items", "users")):
            rows, features = rated_by(train, tau)[name], sides[name].features.numpy()
            weights, ridge, precision = priors[name]
            state[name] = expected_rows(rows, state[other], precision, weights, features)
            priors[name] = expected_prior(state[name], precision, ridge, features)
            if name == "users":
                tau, variance = expected_noise(rows, state["users"], state["items"], variance)
            np.testing.assert_allclose(sides[name].mean, state[name]["mean"], rtol=1e-8, atol=1e-10)
            np.testing.assert_allclose(sides[name].covariance, state[name]["cov"], rtol=1e-8, atol=1e-10)
            np.testing.assert_allclose(sides[name].precision, priors[name][2], rtol=1e-8, atol=1e-10)
            assert sides[name].ridge.item() == pytest.approx(priors[name][1])
        np.testing.assert_allclose(model.noise_precision, tau, rtol=1e-8)
        assert model.noise_variance.item() == pytest.approx(variance)


def test_no_sweep_lowers_the_bound():
    for train in (planted()[0], planted(30, 200, fraction=0.05)[0]):
        model = BayesianFactorization(train, watch_features(train, 8), 3)
        bounds = [model.lower_bound()]
        for _ in range(15):
            model.sweep()
            bounds.append(model.lower_bound())
        assert (np.diff(bounds) > -1e-7 * np.abs(bounds[1:])).all()


@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_a_planted_world_is_recovered(noise):
    data, expected = planted(noise=noise)
    train, test = split(data)
    model = fit(train, sweeps=20)
    assert mse(model, test) < 1.25 * noise**2
    assert model.noise_std == pytest.approx(noise, rel=0.1)
    every_user, every_item = torch.cartesian_prod(torch.arange(150), torch.arange(120)).T
    error = model.predict(every_user, every_item) - expected.flatten()
    assert error.square().mean() < 0.25 * noise**2


@pytest.mark.parametrize("num_factors", [3, 5])
@pytest.mark.parametrize("fraction", [0.1, 0.4])
def test_intervals_cover_as_many_ratings_as_they_claim(num_factors, fraction):
    train, test = split(planted(250, 200, noise=0.6, fraction=fraction)[0])
    fits = [fit(train, num_factors, sweeps=20, seed=seed) for seed in range(2)]
    mean = mean_of([one.factorization() for one in fits])
    for model, std in ((fits[0], fits[0].predict_std), (mean, lambda *pairs: mixture_std(fits, *pairs))):
        error = (model.predict(test.user_ids, test.item_ids) - test.ratings).abs()
        covered = (error < 1.645 * std(test.user_ids, test.item_ids)).double().mean()
        assert 0.85 <= covered <= 0.95


def test_the_standard_deviation_is_that_of_draws_from_the_posterior():
    model = fit(planted(40, 30, fraction=0.1)[0], sweeps=5)
    generator = torch.Generator().manual_seed(0)

    def draws(side):
        normal = torch.randn(20_000, side.width, dtype=torch.double, generator=generator)
        return side.mean[3] + normal @ torch.linalg.cholesky(side.covariance[3]).T

    x, y = draws(model.users), draws(model.items)
    scores = model.scale * (x[:, 0] + y[:, 0] + (x[:, 1:] * y[:, 1:]).sum(dim=1))
    pair = torch.tensor([3]), torch.tensor([3])
    assert model.predict_std(*pair, with_noise=False).item() == pytest.approx(scores.std().item(), rel=0.03)
    shape = (10 + model.user_counts[3]) / 2
    precisions = np.random.default_rng(0).gamma(shape, model.noise_precision[3] / shape, 20_000)
    noisy = np.sqrt(scores.var().item() + model.scale**2 * (1 / precisions).mean())
    assert model.predict_std(*pair).item() == pytest.approx(noisy, rel=0.03)


def test_users_who_rate_less_consistently_are_found_and_have_wider_intervals():
    data = planted(noise=0.0)[0]
    is_noisy = torch.arange(150) % 2 == 0
    noise = torch.where(is_noisy, 1.2, 0.3)[data.user_ids] * torch.randn(len(data))
    train, test = split(Interactions(data.user_ids, data.item_ids, data.ratings + noise, 150, 120))
    model = fit(train, sweeps=20)
    precision = model.noise_precision
    assert precision[is_noisy].max() < precision[~is_noisy].min()
    error = (model.predict(test.user_ids, test.item_ids) - test.ratings).abs()
    is_covered = (error < 1.645 * model.predict_std(test.user_ids, test.item_ids)).double()
    for chosen in (is_noisy, ~is_noisy):
        assert 0.85 <= is_covered[chosen[test.user_ids]].mean() <= 0.95


def test_items_with_fewer_ratings_have_wider_intervals():
    train = planted()[0]
    few = (train.item_ids > 0) | (torch.arange(len(train)) % 20 == 0)  # item 0 loses most of its ratings
    model = fit(train[few])
    stds = model.predict_std(torch.zeros(120, dtype=torch.long), torch.arange(120))
    assert stds.argmax() == 0


def test_who_watched_what_informs_the_ratings():
    """Two groups watch and like different items: with features, users with few ratings are predicted better."""
    torch.manual_seed(0)
    likes = (torch.arange(200) % 2).unsqueeze(1) == torch.arange(100) % 2
    user_ids, item_ids = (torch.rand(200, 100) < torch.where(likes, 0.12, 0.05)).nonzero(as_tuple=True)
    ratings = 3 + likes[user_ids, item_ids] + 0.5 * torch.randn(len(user_ids))
    train, test = split(Interactions(user_ids, item_ids, ratings, 200, 100))
    features = watch_features(train, 4)
    errors = {}
    for name, used in (("none", tuple(side[:, :1] for side in features)), ("watched", features)):
        model = BayesianFactorization(train, used, 2)
        for _ in range(30):
            model.sweep()
        errors[name] = mse(model, test)
    assert errors["watched"] < 0.8 * errors["none"]


def test_the_mean_of_fits_is_one_factorization():
    train = planted()[0]
    fits = [fit(train, width, sweeps=3, seed=width) for width in (1, 3, 4)]
    whole = mean_of([one.factorization() for one in fits])
    assert whole.users.shape == (150, 8)
    predictions = torch.stack([one.predict(train.user_ids, train.item_ids) for one in fits])
    torch.testing.assert_close(whole.predict(train.user_ids, train.item_ids), predictions.mean(dim=0))


def test_another_rating_scale_changes_the_scale_of_the_predictions_only():
    train = planted()[0]
    stretched = Interactions(train.user_ids, train.item_ids, 20 * train.ratings - 7, 150, 120)
    pairs = train.user_ids[:50], train.item_ids[:50]
    one, other = fit(train), fit(stretched)
    torch.testing.assert_close(20 * one.predict(*pairs) - 7, other.predict(*pairs), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(20 * one.predict_std(*pairs), other.predict_std(*pairs), rtol=1e-4, atol=1e-4)


def test_a_stopped_fit_resumes_bit_equal(tmp_path):
    train = planted()[0]
    whole, stopped = fit(train, sweeps=6), fit(train, sweeps=2)
    torch.save(stopped.state_dict(), tmp_path / "state.pt")
    resumed = BayesianFactorization(train, watch_features(train, 10), 3, seed=9)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert resumed.lower_bound() == stopped.lower_bound()
    for _ in range(4):
        resumed.sweep()
    for name, value in whole.state_dict().items():
        assert resumed.state_dict()[name].equal(value), name


def test_a_state_is_a_copy():
    model = fit(planted()[0], sweeps=1)
    state = model.state_dict()
    before = {name: value.clone() for name, value in state.items()}
    model.load_state_dict(state)
    model.sweep()
    assert all(state[name].equal(value) for name, value in before.items())


def test_a_state_of_another_size_is_refused():
    train = planted()[0]
    with pytest.raises(ValueError, match="another size"):
        fit(train, 3, sweeps=0).load_state_dict(fit(train, 4, sweeps=0).state_dict())


def test_ratings_must_be_one_column():
    train = planted()[0]
    with pytest.raises(ValueError, match="one column"):
        BayesianFactorization(train[:0], watch_features(train, 3), 2)


def test_features_are_the_leading_singular_vectors():
    train = planted(40, 30, fraction=0.2)[0]
    users, items = watch_features(train, 5)
    assert users.shape == (40, 7)
    assert items.shape == (30, 7)
    for side in (users, items):
        assert (side[:, 0] == 1).all()
        assert side[:, 1].mean().item() == pytest.approx(0, abs=1e-9)
        assert side[:, 1].std(correction=0).item() == pytest.approx(1)
        assert side[:, 2:].square().sum(dim=1).mean().item() == pytest.approx(1)
    dense = watch_matrix(train).toarray()
    scaled = dense.sum(1, keepdims=True) ** -0.5 * dense * dense.sum(0) ** -0.25
    left, values, _ = np.linalg.svd(scaled)
    expected = left[:, :5] * values[:5]
    norm = np.sqrt((expected**2).sum(1).mean())
    np.testing.assert_allclose(users[:, 2:].abs().numpy(), np.abs(expected) / norm, atol=1e-8)


def test_features_are_the_same_every_time_and_limited_by_the_size_of_the_data():
    train = planted(40, 30, fraction=0.2)[0]
    first, second = watch_features(train, 100), watch_features(train, 100)
    assert first[0].shape == (40, 32)
    assert all(one.equal(other) for one, other in zip(first, second, strict=True))


def test_rows_without_ratings_have_no_coordinates():
    users, items = watch_features(interactions([(0, 0), (1, 0), (1, 2)], 4, 5), 3)
    assert (users[2:, 2:] == 0).all()
    assert (items[[1, 3, 4], 2:] == 0).all()
    assert torch.cat([users.flatten(), items.flatten()]).isfinite().all()


def test_genres_become_standardized_columns():
    table = genre_features(["Comedy|Drama", "Drama", "", "Comedy"])
    torch.testing.assert_close(table, torch.tensor([[1, 1], [-1, 1], [-1, -1], [1, -1.0]]).double() / 2**0.5)
    assert genre_features(["Drama", "Drama"]).equal(torch.zeros(2, 1).double())
    assert genre_features(["", ""]).shape == (2, 0)


def damped_biases(train: Interactions, damping=5.0):
    """Predictions (num_users, num_items) of a user and an item bias."""
    mean = train.ratings.mean()
    user, item = torch.zeros(train.num_users), torch.zeros(train.num_items)
    for _ in range(20):
        for own, other, ids, other_ids in (
            (user, item, train.user_ids, train.item_ids),
            (item, user, train.item_ids, train.user_ids),
        ):
            residuals = train.ratings - mean - other[other_ids]
            sums = torch.zeros_like(own).index_add(0, ids, residuals)
            own.copy_(sums / (torch.bincount(ids, minlength=len(own)) + damping))
    return mean + user.unsqueeze(1) + item


def world(name: str) -> tuple[Interactions, Interactions]:
    """Degenerate train ratings and held-out ratings of the same world, which biases explain."""
    generator = torch.Generator().manual_seed(0)
    expected = 3 + 0.5 * torch.randn(30, 1, generator=generator) + 0.5 * torch.randn(20, generator=generator)
    masks = {
        "one rating per user": torch.arange(30).unsqueeze(1) * 7 % 20 == torch.arange(20),
        "all ratings equal": torch.rand(30, 20, generator=generator) < 0.3,
        "a user who rated everything": (torch.rand(30, 20, generator=generator) < 0.2)
        | (torch.arange(30) == 0)[:, None],
        "an item without ratings": (torch.rand(30, 20, generator=generator) < 0.3) & (torch.arange(20) > 0),
        "everybody rated everything": torch.ones(30, 20, dtype=torch.bool),
        "one rating": torch.arange(600).view(30, 20) == 7,
    }
    rated = masks[name]
    if name == "all ratings equal":
        expected = torch.full((30, 20), 4.1)  # the mean of many is not exactly 4.1
    noise = 0.0 if name == "all ratings equal" else 0.5
    parts = []
    for mask in (rated, ~rated if not rated.all() else rated):
        users, items = mask.nonzero(as_tuple=True)
        ratings = expected[users, items] + noise * torch.randn(len(users), generator=generator)
        parts.append(Interactions(users, items, ratings, 30, 20))
    return parts[0], parts[1]


WORLDS = (
    "one rating per user", "all ratings equal", "a user who rated everything", "an item without ratings",
    "everybody rated everything", "one rating",
)  # fmt: skip


@pytest.mark.parametrize("name", WORLDS)
def test_degenerate_data_are_predicted_no_worse_than_by_biases(name):
    train, test = world(name)
    model = fit(train, num_factors=4, sweeps=30, k=100)
    assert torch.cat([value.flatten() for value in model.state_dict().values()]).isfinite().all()
    assert model.predict_std(test.user_ids, test.item_ids).isfinite().all()
    baseline = (damped_biases(train)[test.user_ids, test.item_ids] - test.ratings).square().mean().item()
    assert mse(model, test) < 1.1 * baseline + 1e-3
