"""The baselines of the multi-task net: by hand on a few ratings, against slow references, and in a run's output."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import interactions, run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from dataset import Interactions
from evaluation import mrr_score, mse_score
from multitask import baselines
from multitask.baselines import Biases, Ease, Popularity, fit_biases, make_baselines
from multitask.softmax import SoftmaxTask
from multitask.task import WatchAndRate
from training.report import baseline_table, shortfalls

WORLD = ["--dataset", "simulated", "--simulated_size", "60", "80", "2400"]
NAMES = ["popularity", "user + item biases", "EASE, lambda 200"]

# user 0 rated items 0, 1, 2; user 1 items 0, 1; user 2 item 0; user 3 and item 3 have no ratings
PAIRS = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0)]
TRAIN = interactions(PAIRS, 4, 4, [5.0, 4.0, 3.0, 4.0, 2.0, 3.0])
ALL_USERS = torch.arange(4)


def random_ratings(num_users=15, num_items=12, fraction=0.4) -> Interactions:
    generator = torch.Generator().manual_seed(0)
    users, items = (torch.rand(num_users, num_items, generator=generator) < fraction).nonzero(as_tuple=True)
    ratings = torch.randint(1, 6, (len(users),), generator=generator).float()
    return Interactions(users, items, ratings, num_users, num_items)


# the baselines


def test_popularity_counts_ratings_and_predicts_their_mean():
    model = Popularity(TRAIN)
    predictions, ratings = model(torch.tensor([3, 0]), torch.tensor([0, 2]))
    assert predictions.tolist() == [3, 1]
    assert ratings.tolist() == [3.5, 3.5]
    assert model.score_items(ALL_USERS).tolist() == [[3, 2, 1, 0]] * 4


def test_one_sweep_of_biases_by_hand(monkeypatch):
    monkeypatch.setattr(baselines, "SWEEPS", 1)
    mean, users, items = fit_biases(TRAIN)
    assert mean.item() == 3.5
    # deviations from 3.5: item 0 has 1.5, 0.5, -0.5; item 1 has 0.5, -1.5; item 2 has -0.5
    expected = [1.5 / 13, -1.0 / 12, -0.5 / 11, 0]
    assert items.tolist() == pytest.approx(expected)
    by_user = [1.5 + 0.5 - 0.5 - sum(expected[:3]), 0.5 - 1.5 - sum(expected[:2]), -0.5 - expected[0], 0]
    assert users.tolist() == pytest.approx([by_user[0] / 18, by_user[1] / 17, by_user[2] / 16, 0])
    ratings = Biases(TRAIN)(torch.tensor([1, 3]), torch.tensor([2, 3]))[1]
    assert ratings.tolist() == pytest.approx([3.5 + by_user[1] / 17 - 0.5 / 11, 3.5])


def test_biases_are_those_of_plain_loops_in_any_number_of_chunks(monkeypatch):
    train = random_ratings()
    rows = list(zip(train.user_ids.tolist(), train.item_ids.tolist(), train.ratings.tolist(), strict=True))
    mean = sum(rating for _, _, rating in rows) / len(rows)
    users, items = [0.0] * 15, [0.0] * 12
    for _ in range(10):
        for i in range(12):
            own = [rating - mean - users[u] for u, item, rating in rows if item == i]
            items[i] = sum(own) / (10 + len(own))
        for u in range(15):
            own = [rating - mean - items[i] for user, i, rating in rows if user == u]
            users[u] = sum(own) / (15 + len(own))
    for chunk_rows in (7, 10**6):
        monkeypatch.setattr(baselines, "CHUNK_ROWS", chunk_rows)
        found = fit_biases(train)
        assert found[0].item() == pytest.approx(mean)
        assert found[1].tolist() == pytest.approx(users)
        assert found[2].tolist() == pytest.approx(items)


def test_many_sweeps_minimize_the_damped_squared_error(monkeypatch):
    monkeypatch.setattr(baselines, "SWEEPS", 200)
    train = random_ratings()
    design = np.zeros((len(train), 27))
    design[np.arange(len(train)), train.user_ids] = 1
    design[np.arange(len(train)), 15 + train.item_ids.numpy()] = 1
    penalty = np.diag([15.0] * 15 + [10.0] * 12)
    target = train.ratings.double().numpy() - train.ratings.double().mean().item()
    _, users, items = fit_biases(train)
    solved = np.linalg.solve(design.T @ design + penalty, design.T @ target)
    np.testing.assert_allclose(torch.cat([users, items]).numpy(), solved, atol=1e-10)


@pytest.mark.parametrize("shape", [(15, 12), (12, 15)])
def test_ease_is_the_dense_formula(shape):
    train = random_ratings(*shape)
    x = np.zeros(shape)
    x[train.user_ids, train.item_ids] = 1
    inverse = np.linalg.inv(x.T @ x + 200 * np.eye(shape[1]))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    model = Ease(train)
    users = torch.tensor([3, 0, 7])
    np.testing.assert_allclose(model.score_items(users).numpy(), (x @ weights)[users], rtol=1e-4, atol=1e-7)
    predictions, ratings = model(torch.tensor([3, 3, 0]), torch.tensor([1, 4, 2]))
    assert predictions.tolist() == pytest.approx((x @ weights)[[3, 3, 0], [1, 4, 2]], rel=1e-4)
    assert ratings.isnan().all()


@pytest.mark.parametrize("num_items", [3, 4, 6])
def test_ease_of_users_and_items_without_ratings_is_finite(num_items):
    scores = Ease(interactions(PAIRS, 4, num_items)).score_items(ALL_USERS)
    assert scores.isfinite().all()
    assert (scores[3] == 0).all()


def test_ease_is_left_out_with_a_note_where_there_are_too_many_items(tiny, monkeypatch):
    monkeypatch.setattr(baselines, "MAX_EASE_ITEMS", 80)
    assert list(WatchAndRate(tiny).baselines()) == NAMES
    assert WatchAndRate(tiny).baseline_notes == ()
    monkeypatch.setattr(baselines, "MAX_EASE_ITEMS", 79)
    task = WatchAndRate(tiny)
    assert list(task.baselines()) == NAMES[:2]
    (note,) = task.baseline_notes
    assert note == (
        "EASE is left out of the baselines: it needs a matrix of 80 x 80 items and is computed for at most 79"
    )
    table = baseline_table({"epoch": 1} | dict.fromkeys(columns(task), 0.5), task, "multitask", measure(task))
    assert f"note: {note}" in table


def columns(task) -> list[str]:
    return [f"test_{metric}" for metric in task.directions]


def measure(task) -> dict[str, dict[str, float]]:
    return {name: task.metrics(baseline, "test") for name, baseline in task.baselines().items()}


def test_they_are_measured_like_networks_in_what_they_do(tiny):
    task = WatchAndRate(tiny)
    found = measure(task)
    assert set(found["popularity"]) == set(task.directions)
    assert set(found["user + item biases"]) == {"mse"}
    assert set(found["EASE, lambda 200"]) == set(task.directions) - {"mse"}
    made = task.baselines()
    assert found["EASE, lambda 200"]["mrr"] == mrr_score(made["EASE, lambda 200"], tiny.test, tiny.seen)
    assert found["user + item biases"]["mse"] == mse_score(made["user + item biases"], tiny.test)
    assert task.metrics(made["popularity"], "val")["mrr"] == mrr_score(made["popularity"], tiny.validation, tiny.train)


def test_popularity_without_score_items_has_the_same_metrics(tiny, monkeypatch):
    expected = Popularity(tiny.train).metrics(tiny.test, tiny.seen)
    monkeypatch.delattr(Popularity, "score_items")
    assert Popularity(tiny.train).metrics(tiny.test, tiny.seen) == pytest.approx(expected)


@pytest.mark.parametrize("part", ["test", "validation"])
def test_they_depend_on_the_training_rows_alone(tiny, part):
    held_out = getattr(tiny, part)
    other = replace(tiny, **{part: replace(held_out, ratings=6 - held_out.ratings)[: len(held_out) // 2]})
    plain, changed = WatchAndRate(tiny).baselines(), WatchAndRate(other).baselines()
    for name in NAMES:
        one, two = plain[name].state_dict(), changed[name].state_dict()
        assert all(one[key].equal(two[key]) for key in one)


def test_they_draw_no_random_numbers(tiny):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    measure(WatchAndRate(tiny))
    assert torch.get_rng_state().equal(before)


def test_they_beat_chance_on_simulated_ratings(tiny):
    found = measure(WatchAndRate(tiny))
    assert found["popularity"]["auc"] > 0.6
    assert found["EASE, lambda 200"]["auc"] > 0.6
    assert found["user + item biases"]["mse"] < found["popularity"]["mse"]
    assert all(math.isfinite(value) for values in found.values() for value in values.values())


def test_their_values_on_movielens(movielens):
    """The biases are near the 0.944 ** 2 that Surprise reports for BaselineOnly on other splits."""
    found = {
        name: model.metrics(movielens.test, movielens.seen) for name, model in make_baselines(movielens.train).items()
    }
    assert found["popularity"]["mrr"] == pytest.approx(0.0522, abs=1e-4)
    assert found["user + item biases"]["mse"] == pytest.approx(0.8971, abs=1e-4)
    assert found["EASE, lambda 200"]["mrr"] == pytest.approx(0.1368, abs=1e-4)


# what a run prints and writes


def test_the_table_marks_the_best_and_shows_what_a_baseline_cannot_do(tiny):
    task = WatchAndRate(tiny)
    row = {"epoch": 7} | dict.fromkeys(columns(task), 0.5) | {"test_ndcg@10": math.nan}
    found = {
        "one": dict.fromkeys(task.directions, 0.4) | {"mrr": 0.6},
        "two": {"mse": 0.3},
        "three": {"auc": 0.5, "mrr": 0.1, "hit_rate@10": 0.2},
    }
    lines = baseline_table(row, task, "multitask", found)
    assert lines[1:-1] == [
        "test part, beside       mrr  hit rate@10  ndcg@10     auc     mse",
        "multitask, epoch 7   0.5000       0.5000*     nan  0.5000* 0.5000",
        "one                  0.6000*      0.4000   0.4000* 0.4000  0.4000",
        "two                     n/a          n/a      n/a     n/a  0.3000*",
        "three                0.1000       0.2000      n/a  0.5000*    n/a",
        "* best of its column",
    ]
    assert baseline_table(row, task, "multitask", {}) == []


def test_the_table_fits_a_terminal_of_80_columns(tiny):
    task = WatchAndRate(tiny)
    row = {"epoch": 10**5} | dict.fromkeys(columns(task), 0.5)
    assert max(map(len, baseline_table(row, task, "multitask", measure(task)))) <= 80


def test_a_line_names_each_baseline_that_beats_the_network(tiny):
    task = WatchAndRate(tiny)
    row = {"epoch": 7} | dict.fromkeys(columns(task), 0.5)
    found = {
        "better twice": {"mrr": 0.6, "mse": 0.25, "auc": 0.9},
        "equal as printed": {"mrr": 0.50004, "mse": 0.49996},
        "worse": {"mrr": 0.4, "mse": 0.6},
        "cannot rank": {"mse": 0.4},
    }
    lines = shortfalls(row, task, "multitask", found)
    assert lines == [
        f"better twice beats multitask by 0.1000 in mrr: try {task.advice['mrr']}",
        f"better twice beats multitask by 0.2500 in mse, as does cannot rank: try {task.advice['mse']}",
        "",
    ]
    assert shortfalls(row, task, "multitask", {"worse": found["worse"]}) == []
    three = {name: {"mse": mse} for name, mse in (("third", 0.4), ("first", 0.2), ("second", 0.3))}
    (line, _) = shortfalls(row, task, "multitask", three)
    assert line.startswith("first beats multitask by 0.3000 in mse, as do second and third: try ")
    softmax = shortfalls(row, SoftmaxTask(tiny), "multitask", found)
    assert "--preset champion" in lines[0]
    assert "--preset champion" not in softmax[0]


@pytest.mark.usefixtures("elsewhere")
def test_a_run_prints_them_and_writes_them_to_result_json(capsys, tmp_path):
    assert run(*WORLD, "--epochs", 1, "--quiet", "--profile", "--logdir", "run/a") == 0
    out = capsys.readouterr().out
    table = out[out.index("test part, beside") :].splitlines()
    assert [line[:18].rstrip() for line in table[1:5]] == ["multitask, epoch 1", *NAMES]
    assert table[3].split()[-5:-1] == ["n/a"] * 4
    assert table[4].split()[-1] == "n/a"
    assert "EASE, lambda 200 beats multitask by" in out
    result = json.loads((tmp_path / "run/a/result.json").read_text())
    assert list(result["baselines"]) == NAMES
    assert not any(name.startswith("test_") for values in result["baselines"].values() for name in values)
    assert f"{result['baselines']['EASE, lambda 200']['mrr']:.4f}" in table[4]
    assert result["seconds"]["baselines"] > 0
    (seconds,) = [line for line in out.splitlines() if line.startswith("baselines")]
    assert len(seconds.split()) == 2  # no seconds an epoch


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(
    ("model", "group", "metric", "name"),
    [
        ("multitask", "test baselines", "mrr", "popularity"),
        ("mmoe", "test baselines: zoo simulated", "auc", "item mean"),
    ],
)
def test_lines_in_tensorboard_have_one_point_an_epoch_on_a_resumed_run_too(tmp_path, model, group, metric, name):
    run("--model", model, *WORLD, "--epochs", 2, "--quiet", "--logdir", "run/a")
    run("--resume", "run/a")  # nothing to do, so nothing is drawn
    assert run("--resume", "run/a", "--epochs", 4) == 0
    events = EventAccumulator(str(tmp_path / "run/a")).Reload()
    result = json.loads((tmp_path / "run/a/result.json").read_text())
    for baseline, values in result["baselines"].items():
        drawn = {tag.split("/")[1] for tag in events.Tags()["scalars"] if tag.endswith(f"/{baseline}")}
        assert metric not in values or metric in drawn
        assert drawn <= set(values)
        for shown in drawn:
            points = events.Scalars(f"{group}/{shown}/{baseline}")
            assert [point.step for point in points] == [1, 2, 3, 4]
            assert [point.value for point in points] == pytest.approx([values[shown]] * 4, nan_ok=True)
    assert f"{group}/{metric}/{name}" in events.Tags()["scalars"]
    assert len(list((tmp_path / "run/a").rglob("events.out.*"))) == len(list((tmp_path / "run/a").glob("events.out.*")))


@pytest.mark.usefixtures("elsewhere")
def test_one_chart_for_each_metric_shows_the_network_beside_the_baselines(tmp_path):
    run(*WORLD, "--epochs", 1, "--quiet", "--logdir", "run/a")
    events = EventAccumulator(str(tmp_path / "run/a")).Reload()
    (event,) = events.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    (category,) = [category for category in layout.category if category.title == "test part, beside the baselines"]
    charts = {chart.title: drawn_tags(events, chart) for chart in category.chart}
    assert charts["MSE"] == {"eval/MSE", "test baselines/mse/popularity", "test baselines/mse/user + item biases"}
    assert charts["AUC"] == {
        "further metrics/AUC",
        *(f"test baselines/auc/{name}" for name in NAMES if "bias" not in name),
    }
    assert len(charts) == len(WatchAndRate.compared)


def drawn_tags(events, chart) -> set[str]:
    """The tags that TensorBoard draws in a chart: those that a pattern of it matches at their beginning."""
    return {tag for tag in events.Tags()["scalars"] if any(re.match(pattern, tag) for pattern in chart.multiline.tag)}


@pytest.mark.usefixtures("elsewhere")
def test_the_dyadic_learner_has_none(capsys, tmp_path):
    arguments = ["--min_user", 5, "--min_item", 5, "--iterations", 300, "--epochs", 1, "--quiet"]
    assert run("--model", "dyadic", *WORLD, *arguments, "--logdir", "run/a") == 0
    assert "test part, beside" not in capsys.readouterr().out
    assert json.loads((tmp_path / "run/a/result.json").read_text())["baselines"] == {}
    tags = EventAccumulator(str(tmp_path / "run/a")).Reload().Tags()
    assert not any("baselines" in tag for tag in tags["scalars"])
