"""benchmark.py multitask extremes: the worlds, the comparison, and the conclusion."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import benchmark
from benchmarks import extremes
from benchmarks.extremes import WORLDS, Measured, World, conclusion, measure_extremes, planted, to_data
from benchmarks.results import Results
from evaluation import mrr_score, mse_score
from multitask.baselines import Popularity
from registry import make_config

SMALL = {"small": lambda random: planted(random, 40, 50, 700)}
CONFIG = make_config("closed_form", epochs=2, rating_fits=1, quiet=True)
LARGE = "1M ratings"


def world(name: str) -> World:
    return WORLDS[name](np.random.default_rng(0))


def measured(mrr, mse=(0.0, 0.0), is_finite=True) -> Measured:
    """Gains of users in MRR, and of rows in MSE on both references."""
    gains = {"MRR": {"popularity": mrr}, "MSE": {"biases": mse, "mean rating": mse}}
    tensors = {
        metric: {name: torch.tensor(row, dtype=torch.double) for name, row in rows.items()}
        for metric, rows in gains.items()
    }
    return Measured({}, tensors, is_finite)


class TestWorlds:
    @pytest.mark.parametrize("name", [name for name in WORLDS if name != LARGE])
    def test_pairs_are_distinct_and_ratings_are_on_the_scale(self, name):
        found, again = world(name), world(name)
        assert len(np.unique(found.users * found.num_items + found.items)) == len(found.ratings)
        assert found.users.max() < found.num_users
        assert found.items.max() < found.num_items
        assert ((found.ratings >= 0.5) & (found.ratings <= 5)).all()
        assert (found.ratings * 2 % 1 == 0).all()
        for one, other in ((found.users, again.users), (found.items, again.items), (found.ratings, again.ratings)):
            np.testing.assert_array_equal(one, other)

    def test_each_is_what_its_name_says(self):
        def counts(name):
            return np.bincount(world(name).users)

        assert world("30 users").num_users == 30
        assert (counts("one rating a user") == 1).all()
        assert set(world("all ratings equal").ratings) == {4.0}
        assert world("50 items").num_items == 50
        assert (counts("users with 1,000 ratings") == 1000).all()
        assert counts("a user who rated everything")[0] == world("a user who rated everything").num_items
        assert set(world("ratings are noise").ratings) == {1, 2, 3, 4, 5}

    def test_choices_follow_weights_alone(self):
        """Item k is drawn in proportion to k^-0.7 where a draw is small, and never twice by one user."""
        cells = np.concatenate([extremes.choose_pairs(np.random.default_rng(n), 50, 4, 1) for n in range(2000)])
        weights = np.arange(1, 5) ** -0.7
        np.testing.assert_allclose(np.bincount(cells % 4) / 2000, weights / weights.sum(), atol=0.04)
        assert sorted(extremes.choose_pairs(np.random.default_rng(0), 3, 4, 12)) == list(range(12))

    def test_the_split_keeps_every_row(self):
        found = world("30 users")
        data = to_data(found, "30 users", 0)
        assert (len(data.train), len(data.test)) == (1425, 75)
        assert data.simulated
        keys = torch.cat([data.train.pair_keys, data.test.pair_keys]).sort().values
        np.testing.assert_array_equal(keys, np.sort(found.users * 200 + found.items))


class TestComparison:
    def test_means_are_the_metrics_of_evaluation(self):
        data = to_data(SMALL["small"](np.random.default_rng(0)), "small", 0)
        model = Popularity(data.train)
        assert extremes.reciprocal_ranks(model, data).mean().item() == pytest.approx(
            mrr_score(model, data.test, data.seen)
        )
        assert extremes.squared_errors(model, data.test).mean().item() == pytest.approx(mse_score(model, data.test))

    def test_gains_are_positive_where_the_network_is_better(self):
        data = to_data(SMALL["small"](np.random.default_rng(0)), "small", 0)
        one = extremes.measure_seed(CONFIG, data)
        for metric, sign in (("MRR", 1), ("MSE", -1)):
            for name, gain in one.gains[metric].items():
                values = one.values[metric]
                assert gain.mean().item() == pytest.approx(sign * (values["ours"] - values[name]), abs=1e-9)

    def test_standard_errors_by_hand(self):
        """The mean is 2 and the standard deviation 1, so its standard error is 1 / sqrt(3)."""
        assert extremes.standard_errors(torch.tensor([1.0, 2.0, 3.0])) == pytest.approx(2 * math.sqrt(3))
        assert extremes.standard_errors(torch.tensor([1e-12, -3e-12])) == 0
        assert extremes.standard_errors(torch.tensor([-0.5, -0.5])) == -math.inf

    def test_seeds_are_pooled(self):
        """Neither run alone is 2 standard errors below, both together are."""
        runs = [measured([-1.0, -1.0, 0.3]), measured([-1.0, -1.0, 0.3])]
        alone, _ = extremes.least_gain(runs[:1], "MRR")
        both, reference = extremes.least_gain(runs, "MRR")
        assert -2 < alone < both * 0.5
        assert both < -2
        assert reference == "popularity"

    def test_conclusions(self):
        assert conclusion([measured([1.0, 2.0])]).startswith("no harm")
        assert conclusion([measured([-1.0, 0.9])]).startswith("no harm")
        harm = conclusion([measured([-1.0, -1.1], mse=[-5.0, -5.1])])
        assert harm == "HARM: MRR worse than popularity by 21.0 se, MSE worse than biases by 101.0 se"
        assert conclusion([measured([1.0, 2.0]), measured([1.0, 2.0], is_finite=False)]).startswith("FAILED")

    def test_a_network_with_nan_fails(self, monkeypatch, capsys):
        broken = torch.nn.Linear(1, 1)
        torch.nn.init.constant_(broken.weight, math.nan)
        monkeypatch.setattr(extremes, "fit", lambda config, data: SimpleNamespace(model=broken))
        rows = []
        measure_extremes(lambda *row: rows.append(row), CONFIG, SMALL, (0,))
        out = capsys.readouterr().out
        assert "FAILED: a weight of the network is nan or infinite" in out
        assert ("small", "finite", 0.0, "1 or 0") in rows


def test_the_part_of_the_command(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(measure_extremes, "__defaults__", (SMALL, (0, 1)))
    preset = tmp_path / "preset.json"
    preset.write_text('{"model": "closed_form", "epochs": 2, "rating_fits": 1}')
    command = ["multitask", "extremes", "--preset", str(preset), "--output", str(tmp_path / "out")]
    assert benchmark.main(command) == 0
    out = capsys.readouterr().out
    assert "SIMULATED DATA" in out
    assert "seed 1   MRR ours" in out
    assert "benchmark.png" not in out
    results = Results(tmp_path / "out")
    assert results.of("extremes", "finite") == {"small": 1}
    assert set(results.of("extremes", "MRR, gain")) == {"small"}


def test_it_is_measured_only_where_it_is_named():
    assert "extremes" not in benchmark.PARTS
    assert "extremes" in benchmark.FURTHER_PARTS
