"""Numbers, comparisons and figures of the experiments with the multi-task net."""

import math

import numpy as np
import pandas as pd
import pytest
import study_runs
import torch
from scipy import stats

from analysis import sweep, user_bias, weights
from analysis.configuration import VAL_FRACTION, Configuration
from analysis.results import rating_fraction, read_curves, read_runs
from analysis.statistics import BETTER, SAME, UNTESTED, WORSE, compare, correct, holm
from models import MultiTaskNet
from training.weighting import METHODS


def history(val_mrr, val_mse, test_mrr, test_mse, row="shared", seed=0) -> pd.DataFrame:
    epochs = len(val_mrr)
    return pd.DataFrame(
        {
            "row": row, "seed": seed, "epoch": range(1, epochs + 1), "train_factorization": 0.5,
            "train_regression": np.linspace(2.0, 1.0, epochs), "train_joint": 1.0,
            "val_mrr": val_mrr, "val_mse": val_mse, "test_mrr": test_mrr, "test_mse": test_mse,
        }
    )  # fmt: skip


# numbers at chosen epochs


def test_a_value_is_read_at_the_epoch_that_validation_chooses_and_never_at_the_best_of_the_test():
    curves = history([0.1, 0.3, 0.2], [0.8, 1.0, 0.9], [0.15, 0.25, 0.99], [0.85, 1.1, 0.1])
    found = read_runs(curves).loc["shared", 0]
    assert (found["best_mrr"], found["best_mrr_epoch"]) == (0.25, 2)
    assert (found["best_mse"], found["best_mse_epoch"]) == (0.85, 1)
    assert (found["last_mrr"], found["last_mse"], found["last_regression"]) == (0.99, 0.1, 1.0)
    assert (found["both_mrr"], found["both_mse"], found["both_epoch"]) == (0.25, 1.1, 2)  # 0.3 / 1 is the highest


def test_the_epoch_for_both_metrics_maximizes_their_ratio():
    curves = history([0.10, 0.11], [1.0, 1.09], [1, 2], [1, 2])
    assert read_runs(curves).loc["shared", 0]["both_epoch"] == 2
    curves = history([0.10, 0.11], [1.0, 1.11], [1, 2], [1, 2])
    assert read_runs(curves).loc["shared", 0]["both_epoch"] == 1


def test_metrics_that_are_nan_choose_no_epoch():
    found = read_runs(history([math.nan] * 2, [0.9, 0.8], [0.1, 0.2], [0.9, 0.8])).loc["shared", 0]
    assert math.isnan(found["best_mrr"])
    assert math.isnan(found["both_mse"])
    assert found["best_mse"] == 0.8


def test_the_order_of_rows_does_not_matter():
    curves = history([0.1, 0.3, 0.2], [0.8, 1.0, 0.9], [0.15, 0.25, 0.99], [0.85, 1.1, 0.1])
    pd.testing.assert_frame_equal(read_runs(curves), read_runs(curves.iloc[::-1].reset_index(drop=True)))


def test_the_fraction_of_the_rating_task_by_hand():
    curves = history([0.1, 0.2], [1, 1], [0.1, 0.2], [1, 1])  # losses 0.5 and 2.0 in the first epoch
    assert rating_fraction(curves, 0.5) == pytest.approx(2 / 2.5)
    assert rating_fraction(curves, 0.01) == pytest.approx(0.02 / (0.02 + 0.99 * 0.5))


# comparisons


def test_a_comparison_is_scipys_paired_test_with_its_interval():
    own, other = pd.Series([0.11, 0.12, 0.14, 0.1]), pd.Series([0.10, 0.125, 0.12, 0.09])
    found, test = compare(own, other, +1), stats.ttest_rel(own, other)
    interval = test.confidence_interval(0.95)
    assert found.p == pytest.approx(test.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.difference == pytest.approx((own - other).mean())
    assert (found.own, found.other, found.seeds) == (pytest.approx(own.mean()), pytest.approx(other.mean()), 4)


def test_only_seeds_that_both_have_are_compared():
    own = pd.Series({0: 1.0, 1: 2.0, 2: math.nan, 3: 9.0})
    other = pd.Series({1: 1.5, 0: 0.75, 2: 1.0})
    found = compare(own, other, +1)
    assert (found.seeds, found.own, found.other, found.difference) == (2, 1.5, 1.125, 0.375)


@pytest.mark.parametrize(("values", "seeds"), [([0.5], 1), ([math.nan] * 3, 0)])
def test_with_fewer_than_two_seeds_there_is_no_test(values, seeds):
    (found,) = correct([compare(pd.Series(values), pd.Series([0.4] * len(values)), +1)])
    assert found.outcome == UNTESTED
    assert found.sentence.startswith(f"not tested ({seeds} seed")
    assert math.isnan(found.low)


@pytest.mark.parametrize(
    ("shift", "direction", "outcome"),
    [(0.1, +1, BETTER), (-0.1, +1, WORSE), (0.1, -1, WORSE), (-0.1, -1, BETTER), (1e-4, +1, SAME), (0.0, -1, SAME)],
)
def test_an_outcome_depends_on_which_way_is_better(shift, direction, outcome):
    other = pd.Series([0.1, 0.3, 0.2, 0.5, 0.4])
    (found,) = correct([compare(other + shift + [0.01, -0.01, 0.005, -0.005, 0], other, direction)])
    assert found.outcome == outcome


def test_holm_by_hand():
    assert holm([0.01, 0.04, math.nan, 0.03]) == pytest.approx([0.03, 0.06, math.nan, 0.06], nan_ok=True)
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.04, 0.011, 0.02]) == pytest.approx([0.04, 0.033, 0.04])


def test_the_correction_grows_with_the_number_of_comparisons():
    one = compare(pd.Series([0.10, 0.12, 0.11, 0.13]), pd.Series([0.09, 0.10, 0.105, 0.11]), +1)
    assert 0.01 < one.p < 0.05
    assert correct([one])[0].outcome == BETTER
    assert {found.outcome for found in correct([one] * 10)} == {SAME}


# the four experiments


def test_their_table_by_hand():
    name = weights.CONFIGURATIONS[0].name
    curves = pd.concat(
        history([0.1, 0.2], [0.9, 1.0], [0.1, mrr], [0.9, mse], name, seed)
        for seed, (mrr, mse) in enumerate([(0.2, 1.0), (0.3, 1.2), (0.4, 1.4)])
    )
    table = weights.tabulate(curves)
    assert table.loc[name, "last_mrr mean"] == pytest.approx(0.3)
    assert table.loc[name, "last_mrr sd"] == pytest.approx(0.1)
    described = {"data": "ml-100k", "simulated": False, "seeds": [0, 1, 2], "settings": study_runs.SETTINGS}
    text = weights.as_markdown(table, described)
    cells = "0.3000 ± 0.1000 | 0.3000 ± 0.1000 | 2 ± 0 | 1.2000 ± 0.2000 | 0.9000 ± 0.0000 | 1 ± 0 | 1.000 ± 0.000"
    assert f"| {name} | {cells} |" in text
    assert "SIMULATED" not in text
    assert "SIMULATED" in weights.as_markdown(table, described | {"simulated": True})
    assert "±" not in weights.as_markdown(weights.tabulate(curves[curves["seed"] == 0]), described).split("\n\n")[1]


def test_all_configurations_are_valid_and_the_sweep_contains_the_four_experiments():
    assert set(weights.CONFIGURATIONS) <= set(sweep.QUICK) <= set(sweep.CONFIGURATIONS)
    assert len({one.name for one in sweep.CONFIGURATIONS}) == len(sweep.CONFIGURATIONS)
    assert {one.weighting for one in sweep.QUICK} == set(METHODS)
    assert {one.shared for one in sweep.QUICK} == {True, False}
    for one in sweep.CONFIGURATIONS:
        config = one.run(3, {"dataset": "simulated"}).config
        assert config.factorization_weight + config.regression_weight == pytest.approx(1)
        assert (config.seed, config.val_fraction, config.epochs) == (3, VAL_FRACTION, 30)
        assert (config.shared_embeddings, config.weighting) == (one.shared, one.weighting)
        assert one.shared or one.weighting not in ("gradnorm", "pcgrad")
    assert Configuration(True, 0.01).run(0, {"epochs": 2}).config.epochs == 2


# the sweep


def test_the_front_equals_its_slow_definition():
    random = np.random.default_rng(0)
    for _ in range(200):
        mrr, mse = random.integers(0, 5, size=(2, 8)).astype(float)
        mrr[random.random(8) < 0.1] = math.nan
        mse[random.random(8) < 0.1] = math.nan
        slow = [
            not math.isnan(a + b)
            and not any(c >= a and d <= b and (c > a or d < b) for c, d in zip(mrr, mse, strict=True))
            for a, b in zip(mrr, mse, strict=True)
        ]
        assert sweep.pareto_front(mrr, mse).tolist() == slow


@pytest.fixture
def numbers() -> pd.DataFrame:
    return study_runs.sweep_numbers()


def test_every_configuration_is_compared_with_both_tasks_alone(numbers):
    compared = sweep.against_ends(numbers)
    assert len(compared) == 2 * len(sweep.CONFIGURATIONS)
    last = sweep.CONFIGURATIONS[8]
    assert last == Configuration(True, 0.99)
    assert compared[last.name, "mrr"].outcome == WORSE
    assert compared[last.name, "mse"].outcome == BETTER
    expected = stats.ttest_rel(numbers.loc[last.name, "both_mrr"], numbers.loc[sweep.ALONE.name, "best_mrr"]).pvalue
    assert compared[last.name, "mrr"].p == pytest.approx(expected)
    assert compared[last.name, "mrr"].adjusted > compared[last.name, "mrr"].p


def test_the_table_shows_front_and_outcomes(numbers):
    table = sweep.tabulate(numbers)
    name = Configuration(True, 0.99).name
    assert table.loc[name, "both_mrr mean"] == pytest.approx(numbers.loc[name, "both_mrr"].mean())
    described = {"data": "ml-100k", "simulated": False, "seeds": [0, 1, 2, 3, 4], "settings": study_runs.SETTINGS}
    lines = [line for line in sweep.as_markdown(table, numbers, described).split("\n") if line.startswith("| s")]
    assert len(lines) == len(table)
    assert [line.endswith("| ● |") for line in lines] == table["on front"].tolist()
    (line,) = (line for line in lines if line.startswith(f"| {name} |"))
    assert "worse (-0.0" in line
    assert "better (-0.0" in line


@pytest.mark.parametrize("data", ["ml-100k", "simulated", "ratings.csv"])
def test_other_methods_are_named_for_movielens_only(numbers, data):
    described = {"data": data, "simulated": data == "simulated", "seeds": [0], "settings": study_runs.SETTINGS}
    text = sweep.as_markdown(sweep.tabulate(numbers), numbers, described)
    assert ("EASE 0.1474" in text) == (data == "ml-100k")
    assert text.startswith("```\n+--") == (data == "simulated")


# a user bias


def test_a_user_bias_changes_scores_but_neither_loss_nor_ranking(tiny):
    torch.manual_seed(0)
    model = MultiTaskNet(len(tiny.users), len(tiny.items), 4, [12])
    torch.nn.init.normal_(model.B.weight)
    users, items = tiny.test.user_ids, tiny.test.item_ids
    bias = torch.randn(len(tiny.users))
    biased = user_bias.WithUserBias(model, bias)
    assert torch.allclose(biased(users, items)[0], model(users, items)[0] + bias[users])
    assert torch.equal(biased(users, items)[1], model(users, items)[1])
    everything = biased.score_items(users)
    assert torch.allclose(everything.gather(1, items.unsqueeze(1)).squeeze(1), biased(users, items)[0], atol=1e-6)
    found = user_bias.measure(model, tiny, seed=0)
    assert found["loss_with_bias"] == pytest.approx(found["loss"], abs=1e-12)
    assert found["mrr_with_bias"] == found["mrr"] > 0
    assert 0 < found["loss"] < 1


def test_the_measurement_notices_an_item_bias(tiny, monkeypatch):
    """The check can fail: a bias per pair, instead of one per user, changes loss and MRR."""

    class Wrong(user_bias.WithUserBias):
        def forward(self, user_ids, item_ids):
            predictions, score = self.model(user_ids, item_ids)
            return predictions + self.bias[(user_ids + item_ids) % len(self.bias)], score

        def score_items(self, user_ids):
            items = torch.arange(len(tiny.items))
            return torch.stack([self(user.expand(len(items)), items)[0] for user in user_ids])

    monkeypatch.setattr(user_bias, "WithUserBias", Wrong)
    torch.manual_seed(0)
    found = user_bias.measure(MultiTaskNet(len(tiny.users), len(tiny.items), 4, [12]), tiny, seed=0)
    assert abs(found["loss_with_bias"] - found["loss"]) > 1e-3
    assert found["mrr_with_bias"] != found["mrr"]


def test_curves_carry_the_row_and_seed_of_their_run(tmp_path):
    for seed in (0, 1):
        (tmp_path / str(seed)).mkdir()
        own = history([0.1, 0.2], [1, 2], [0.3, 0.4 + seed], [5, 6])
        own.drop(columns=["row", "seed"]).assign(extra=1).to_csv(tmp_path / str(seed) / "metrics.csv", index=False)
    found = read_curves({"row": "ours", "seed": seed, "folder": str(tmp_path / str(seed))} for seed in (0, 1))
    assert found["row"].unique().tolist() == ["ours"]
    assert found.set_index(["seed", "epoch"])["test_mrr"].tolist() == [0.3, 0.4, 0.3, 1.4]
    assert "extra" not in found
