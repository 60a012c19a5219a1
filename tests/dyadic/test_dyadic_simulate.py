"""The simulated platform: the published counts at full size and small; and tuning on it."""

from dataclasses import replace

import numpy as np
import pytest

from config.dyadic import TASKS, FeatureOptions, LearnerOptions
from config.errors import UserError
from dyadic import tuning
from dyadic.features import add_features
from dyadic.metrics import evaluate
from dyadic.network import scores
from dyadic.simulate import BOOKMARKS, CLICKS, DISPLAYED, DYADS, OFFERS, REPLIES, USERS, simulate
from dyadic.task import train


def test_the_published_counts_agree_with_each_other():
    assert pytest.approx(137.71, abs=0.005) == DYADS / USERS
    assert pytest.approx(32.53, abs=0.005) == DYADS / OFFERS
    assert pytest.approx(0.9945, abs=5e-5) == 1 - DYADS / (USERS * OFFERS)


def test_a_small_platform_has_the_scaled_counts():
    data = simulate(0.02)
    assert (data.num_users, data.num_items, len(data)) == (118, 503, 16_384)
    assert data.simulated
    assert "SIMULATED" in repr(data)
    assert "SIMULATED" in data.notes[0]
    assert data.context.shape[1] == 16
    assert set(data.item_ids) == set(range(503))
    assert np.bincount(data.user_ids).min() >= 30
    clicks = np.bincount(data.user_ids, weights=data.labels[:, 0])
    assert clicks.min() >= 16
    assert (clicks < np.bincount(data.user_ids)).all()
    in_train = np.bincount(data.user_ids[data.train], weights=data.labels[data.train, 0], minlength=118)
    both = (in_train > 0) & (in_train < np.bincount(data.user_ids[data.train], minlength=118))
    assert both.mean() > 0.95
    assert data.displayed[~data.labels.any(1)].all()
    assert simulate(0.02, split="time67").train.size == pytest.approx(2 / 3 * len(data), rel=0.01)


def test_labels_are_mostly_nested_but_not_strictly():
    labels = simulate(0.02).labels
    for task in (1, 2):
        clicked = labels[labels[:, task] == 1, 0].mean()
        assert 0.8 < clicked < 1


def test_the_same_seed_gives_the_same_platform():
    one, same, other = simulate(0.01), simulate(0.01), simulate(0.01, seed=1)
    for column in ("user_ids", "item_ids", "labels", "context", "train"):
        assert (getattr(one, column) == getattr(same, column)).all()
    assert (one.item_ids != other.item_ids).any()


@pytest.mark.parametrize("scale", [0.0, 0.005, 1.5, float("nan")])
def test_a_scale_out_of_range_is_refused(scale):
    with pytest.raises(UserError, match="scale must lie in"):
        simulate(scale)


@pytest.mark.slow
def test_the_full_size_has_the_published_counts():
    data = simulate()
    assert (data.num_users, data.num_items, len(data)) == (USERS, OFFERS, DYADS)
    per_user, per_item = np.bincount(data.user_ids), np.bincount(data.item_ids)
    assert np.median(per_user) == pytest.approx(120, rel=0.05)
    assert np.median(per_item) == pytest.approx(12, rel=0.2)
    assert per_item.min() >= 1
    assert data.labels.sum(0) / USERS == pytest.approx([CLICKS, BOOKMARKS, REPLIES], rel=0.02)
    assert data.displayed.sum() / USERS == pytest.approx(DISPLAYED, rel=0.02)
    assert (data.labels[data.labels[:, 0] == 0, 1] == 1).any()


OPTIONS = LearnerOptions(iterations="300", epochs=2, batch_size=30, embedding_dim=4)


def test_the_way_from_dyads_to_metrics():
    data = add_features(simulate(0.01), quiet=True)
    trained = train(data, OPTIONS, quiet=True)
    by_task = scores(trained.model, trained.inputs, data.test, OPTIONS)
    for index, task in enumerate(TASKS):
        labels = data.task_labels[data.test, index]
        metrics = evaluate(data.user_ids[data.test], data.item_ids[data.test], labels, by_task[task], data.num_users)
        assert 0 <= metrics.means["map@5"] <= 1


def test_a_task_without_positives_trains_and_has_f1_0_and_no_auc():
    data = simulate(0.01)
    labels = data.labels.copy()
    labels[:, 1] = 0
    data = add_features(replace(data, labels=labels), quiet=True)
    options = replace(OPTIONS, class_weights=(9.0, 1.0))
    trained = train(data, options, quiet=True)
    score = scores(trained.model, trained.inputs, data.test, options)["bookmark"]
    metrics = evaluate(data.user_ids[data.test], data.item_ids[data.test], labels[data.test, 1], score, data.num_users)
    assert metrics.means["f1"] == 0
    assert np.isnan(metrics.means["auc"])


def test_folds_split_train_and_compute_their_own_features():
    data = add_features(simulate(0.01), quiet=True)
    parts = list(tuning.folds(data, FeatureOptions(), 3))
    assert np.array_equal(np.sort(np.concatenate([part.test for part in parts])), data.train)
    for part in parts:
        assert not np.isin(part.train, data.test).any()
        assert np.array_equal(np.union1d(part.train, part.test), data.train)
        own = add_features(replace(data, train=part.train, test=part.test), quiet=True)
        assert (own.features == part.features).all()
        assert (part.features[part.test] != data.features[part.test]).any()


def test_tuning_does_not_depend_on_test_labels():
    data = add_features(simulate(0.01), quiet=True)
    flipped = data.labels.copy()
    flipped[data.test] = 1 - flipped[data.test]
    grid = tuning.Grid(lambdas=(1e-1, 1e-3), class_weights=(1.0, 5.0), num_folds=2)
    tuned = tuning.tune(data, FeatureOptions(), OPTIONS, grid)
    again = tuning.tune(replace(data, labels=flipped), FeatureOptions(), OPTIONS, grid)
    assert tuned.table == again.table
    assert tuned.thresholds == again.thresholds
    assert len(tuned.table) == 4
    best = max(tuned.table, key=lambda row: row["f1"])
    assert tuned.options.four_lambdas == (best["lam"],) * 4
    assert tuned.options.class_weights == (best["class_weight"],) * 2
    assert set(tuned.thresholds) == set(TASKS)


def test_an_impossible_grid_is_refused():
    data = simulate(0.01)
    with pytest.raises(UserError, match="cannot be split into 1 folds"):
        list(tuning.folds(data, FeatureOptions(), 1))
    with pytest.raises(UserError, match="at least one lambda"):
        tuning.tune(data, FeatureOptions(), OPTIONS, tuning.Grid(lambdas=()))
