"""benchmark.py multitask any: biased ALS, the choice of settings, the table, and the whole command on small data."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import interactions
from test_benchmark import refused

import benchmark
import dataset
from benchmarks import any_data, biased_als, peers, tuned
from benchmarks.any_data import Result
from benchmarks.biased_als import factorize
from benchmarks.quality import fit_peer
from benchmarks.results import Results
from benchmarks.tuned import TUNED, TunedPeer, choose, grid
from config.multitask import ClosedFormConfig
from evaluation import mse_score
from multitask.decisions import Parts

OWN = [replace(peer, grid=peer.grid[:3]) for peer in TUNED if peer.package is None]
QUICK = ClosedFormConfig(epochs=1, rating_fits=1, ranking="ease", quiet=True)


@pytest.fixture(scope="module")
def data() -> dataset.Data:
    return dataset.load("simulated", simulated_size=(60, 80, 2400))


def rows_of(train) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return train.user_ids.long().numpy(), train.item_ids.long().numpy(), train.ratings.double().numpy()


class TestBiasedALS:
    def test_at_a_fixed_point_the_gradient_of_the_objective_is_zero(self, data):
        train, ridge, bias_ridge = data.train, 3.0, 2.0
        found = factorize(train, factors=2, ridge=ridge, bias_ridge=bias_ridge, sweeps=400)
        users, items = (torch.from_numpy(part).requires_grad_() for part in (found.users, found.items))
        u, i, ratings = map(torch.from_numpy, rows_of(train))
        predicted = ratings.mean() + users[u, 0] + items[i, 0] + (users[u, 1:] * items[i, 1:]).sum(1)
        both = torch.cat([users, items])
        penalty = ridge * both[:, 1:].square().sum() + bias_ridge * both[:, 0].square().sum()
        ((ratings - predicted).square().sum() + penalty).backward()
        assert max(users.grad.abs().max().item(), items.grad.abs().max().item()) < 1e-6
        assert np.abs(found.users[:, 1:]).max() > 0.1  # not the fixed point without factors

    def test_each_item_is_the_ridge_regression_on_its_users(self, data):
        """One item after the other, by least squares with the ridge as further rows."""
        found = factorize(data.train, factors=3, ridge=2.0, bias_ridge=5.0, sweeps=2)
        users, items, ratings = rows_of(data.train)
        roots = np.diag(np.sqrt([5.0, 2.0, 2.0, 2.0]))
        for item in range(data.train.num_items):
            mine = items == item
            own = found.users[users[mine]]
            inputs = np.vstack([np.column_stack([np.ones(len(own)), own[:, 1:]]), roots])
            targets = np.concatenate([ratings[mine] - ratings.mean() - own[:, 0], np.zeros(4)])
            np.testing.assert_allclose(found.items[item], np.linalg.lstsq(inputs, targets)[0], atol=1e-9)

    def test_without_factors_it_is_the_fit_of_biases(self, data):
        users, items, _ = rows_of(data.train)
        expected = peers.fit_biases(data.train, user_ridge=4.0, item_ridge=4.0, rounds=100)(users, items)
        found = factorize(data.train, factors=0, ridge=1.0, bias_ridge=4.0, sweeps=100)
        np.testing.assert_allclose(found.predict(users, items), expected, atol=1e-5)

    def test_what_has_no_ratings_is_the_mean(self):
        train = interactions([(0, 0), (0, 1), (1, 0)], 3, 3, [1, 3, 5])
        found = factorize(train, factors=2, ridge=1.0, bias_ridge=1.0)
        assert found.predict(np.array([2]), np.array([2])) == pytest.approx([3.0])

    def test_the_size_of_the_blocks_changes_nothing(self, data, monkeypatch):
        whole = factorize(data.train, factors=2, ridge=2.0, bias_ridge=2.0, sweeps=3)
        monkeypatch.setattr(biased_als, "BLOCK_ROWS", 7)
        parts = factorize(data.train, factors=2, ridge=2.0, bias_ridge=2.0, sweeps=3)
        np.testing.assert_allclose(parts.users, whole.users, rtol=1e-9)
        np.testing.assert_allclose(parts.items, whole.items, rtol=1e-9)


class TestChoice:
    train = interactions([(0, 0), (1, 1), (2, 2)], 3, 3)
    held_out = interactions([(0, 1), (1, 2)], 3, 3, [3, 3])
    parts = Parts(train, held_out)

    def constant(self, values, diverges=()) -> TunedPeer:
        """A peer that predicts the setting `value` everywhere, or nan."""

        def fit(train, value):
            assert len(train) == len(self.train)
            return lambda users, items: np.full(len(users), np.nan if value in diverges else value)

        return TunedPeer("constant", "rating", None, fit, grid(value=values))

    def test_the_lowest_mse_is_chosen(self):
        assert choose(self.constant((1, 2.5, 5)), self.parts, "") == {"value": 2.5}

    def test_of_equal_ones_the_first(self):
        assert choose(self.constant((5, 2, 4)), self.parts, "") == {"value": 2}

    def test_settings_that_diverge_are_passed_over(self):
        assert choose(self.constant((3, 1), diverges=(3,)), self.parts, "") == {"value": 1}

    def test_the_highest_mrr_is_chosen(self):
        def fit(train, sign):
            return lambda rows: sign * np.array([[0, 2, 1], [1, 0, 2], [1, 2, 0]])[rows]

        assert choose(TunedPeer("table", "ranking", None, fit, grid(sign=(-1, 1))), self.parts, "") == {"sign": 1}

    def test_without_rows_held_out_the_middle_is_taken(self):
        assert choose(self.constant((1, 2, 3)), Parts(self.train, self.held_out[:0]), "") == {"value": 2}

    def test_a_grid_is_every_combination(self):
        assert grid(a=(1, 2), b=(3, 4)) == [{"a": 1, "b": 3}, {"a": 1, "b": 4}, {"a": 2, "b": 3}, {"a": 2, "b": 4}]

    @pytest.mark.parametrize("transposed", [False, True])
    def test_ease_is_that_of_the_paper(self, data, transposed):
        """With more items than users and the other way round."""
        train = data.train
        if transposed:
            train = replace(train, user_ids=train.item_ids, item_ids=train.user_ids, num_users=80, num_items=60)
        users = np.arange(train.num_users)
        np.testing.assert_allclose(
            tuned.fit_ease(train, ridge=50.0)(users), peers.fit_ease(train, ridge=50.0)(users), atol=2e-4
        )

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("peer", [peer for peer in TUNED if peer.package], ids=lambda peer: peer.name)
    def test_every_setting_of_other_packages_has_an_effect(self, peer, data):
        if peers.missing([peer]):
            pytest.skip(f"{peer.package} is not installed")
        first = peer.grid[0]
        base = fit_peer(peer.at(first), data)[0]
        for name, value in first.items():
            other = next(settings[name] for settings in peer.grid if settings[name] != value)
            assert fit_peer(peer.at(first | {name: other}), data)[0] != base


def test_no_choice_depends_on_the_test_part(data):
    """With other items and ratings in the test part, the choices of the peers and of the network stay equal."""
    seen, test = set(data.seen.pair_keys.tolist()), data.test
    other_items = []
    for user, item in zip(test.user_ids.tolist(), test.item_ids.tolist(), strict=True):
        unseen = [new for new in range(80) if user * 80 + new not in seen and new != item]
        other_items.append(unseen[item % len(unseen)])
    items = torch.tensor(other_items, dtype=test.item_ids.dtype)
    changed = replace(data, test=replace(test, item_ids=items, ratings=test.ratings.flip(0)))
    for peer in OWN:
        before, after = (any_data.measure_peer(peer, world, seed=0) for world in (data, changed))
        assert before.choice == after.choice
        assert {name: before.values[name] for name in ("MRR", "MSE") if name in before.values} != {
            name: after.values[name] for name in ("MRR", "MSE") if name in after.values
        }
    before, after = (any_data.measure_network(QUICK, world) for world in (data, changed))
    assert before.choice == after.choice
    assert before.values["MSE"] != after.values["MSE"]


def test_the_chosen_settings_are_fitted_to_all_training_rows(data):
    peer = TunedPeer("biases", "rating", None, peers.fit_biases, grid(user_ridge=(1e4, 3), item_ridge=(1e4, 2)))
    found = any_data.measure_peer(peer, data, seed=0)
    assert found.choice == "user_ridge 3, item_ridge 2"
    model = peers.Answered(peer, peers.fit_biases(data.train, user_ridge=3, item_ridge=2))
    assert found.values["MSE"] == pytest.approx(mse_score(model, data.test), rel=1e-6)
    assert found.values["RMSE"] == pytest.approx(found.values["MSE"] ** 0.5)


def results(**columns) -> list[Result]:
    """A method on two splits, with one CPU second each of choosing and two of fitting."""
    splits = zip(*columns.values(), strict=True)
    return [Result(dict(zip(columns, values, strict=True)) | {"choosing": 1, "fit": 2, "sum": 3}) for values in splits]


class TestTable:
    results = {  # noqa: RUF012
        "ours": results(MRR=(0.2, 0.4), MSE=(1.0, 4.0), RMSE=(1.0, 2.0)),
        "a": results(MSE=(2.0, 2.0)),
        "b": results(MSE=(9.0, 1.0)),
        "c": results(MRR=(0.1, 0.2)),
        "diverged": results(MSE=(float("nan"), 0.1)),
    }

    def test_leads_are_over_the_best_mean_and_paired_by_split(self):
        mrr, mse = any_data.find_leads(self.results)
        assert (mrr.metric, mrr.peer, mrr.values) == ("MRR", "c", pytest.approx([0.1, 0.2]))
        assert mrr.percent == pytest.approx(100)
        assert (mse.metric, mse.peer, mse.values) == ("MSE", "a", [1.0, -2.0])
        assert mse.percent == pytest.approx(-25)

    def test_a_shortfall_is_called_one(self, data):
        first, second = any_data.describe(any_data.find_leads(self.results), {0: data, 1: data})
        assert first.startswith("MRR: ours beats the best peer, c, by 0.1500 ± 0.0707 (100.0 %)")
        assert first.endswith("by split, + is better: +0.1000, +0.2000")
        assert second.startswith("MSE: ours is behind the best peer, a, by 0.5000 ± 2.1213 (25.0 %)")

    def test_means_and_deviations_stand_in_their_columns(self):
        head, ours, a, *_ = any_data.table(self.results)
        assert re.split(r"  +", head.strip()) == [
            "MRR",
            "MSE",
            "RMSE",
            "CPU s to choose",
            "CPU s to fit",
            "CPU s in all",
        ]
        found = re.split(r"  +", ours)
        assert found == ["ours", "0.3000 ± 0.1414", "2.5000 ± 2.1213", "1.5000 ± 0.7071", "1.00", "2.00", "3.00"]
        assert a.index("2.0000") == ours.index("2.5000")

    def test_test_rows_that_nothing_is_known_of_are_counted(self, data):
        train = interactions([(0, 0), (1, 1)], 3, 3)
        test = interactions([(0, 1), (2, 0), (0, 2), (2, 2)], 3, 3)
        unknown = replace(data, train=train, test=test)
        assert any_data.count_unknown(unknown) == 3
        caption = any_data.caption({0: unknown, 1: data})
        assert "note: 3, 0 test rows have a user or item without a training row" in caption
        assert "note" not in any_data.caption({0: data})
        assert "SIMULATED" in any_data.caption({0: data})


class TestCommand:
    @pytest.fixture
    def files(self, elsewhere, data, monkeypatch):
        """all.csv, train.csv and test.csv; a quick preset; two splits and the peers that need no package."""
        for name, part in (("all", data.seen + data.test), ("train", data.train), ("test", data.test)):
            lines = (f"u{user},i{item},{rating}" for user, item, rating in zip(*rows_of(part), strict=True))
            (elsewhere / f"{name}.csv").write_text("\n".join(lines))
        (elsewhere / "quick.json").write_text('{"model": "closed_form", "epochs": 1, "rating_fits": 1}')
        monkeypatch.setattr(any_data.measure_any, "__defaults__", (OWN, (0, 1)))
        return elsewhere

    def test_one_file_and_a_named_data_set_that_is_out_of_reach(self, files, capsys):
        command = ["multitask", "any", "--dataset", "ml-latest-small", "--ratings", "all.csv"]
        assert benchmark.main([*command, "--preset", "quick.json", "--output", "out"]) == 0
        out = capsys.readouterr().out
        assert "without ml-latest-small: ml-latest-small is not in data" in out
        assert "all.csv: 60 users x 80 items, 2,280 train and 120 test rows; mean ± sd over the random" in out
        rows = [line.split("  ")[0] for line in out.splitlines() if line.count("0.") > 1 and "±" in line]
        assert rows[: len(OWN) + 1] == ["ours", *(peer.name for peer in OWN)]
        found = Results(files / "out")
        names = {f"all.csv: {name}" for name in ("ours", *(peer.name for peer in OWN))}
        seconds = [found.of("any", f"CPU s {kind}, split 1") for kind in ("to choose", "to fit", "in all")]
        for name in names:
            choosing, fit, both = (column[name] for column in seconds)
            assert both == pytest.approx(choosing + fit, rel=1e-4)
        mse = [found.of("any", f"MSE, split {split}")["all.csv: biased ALS"] for split in (0, 1)]
        assert found.of("any", "MSE")["all.csv: biased ALS"] == pytest.approx(np.mean(mse), rel=1e-5)
        assert set(found.of("any", "lead in MRR")) == {"all.csv"}
        assert (files / "out" / "benchmark.png").stat().st_size > 10_000

    def test_a_ready_split_is_measured_once(self, files, capsys):
        command = ["multitask", "any", "--train_ratings", "train.csv", "--test_ratings", "test.csv"]
        assert benchmark.main([*command, "--preset", "quick.json", "--output", "out"]) == 0
        out = capsys.readouterr().out
        assert "train.csv: 60 users" in out
        assert "±" not in out
        assert not Results(files / "out").of("any", "MSE, split 1")

    def test_without_data_there_is_an_error_and_no_table(self, files, capsys):
        sentence = refused(capsys, "multitask", "any", "--output", "out")
        assert "no data set is left to measure on" in sentence
        assert not list((files / "out").iterdir())

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (["any", "--test_ratings", "test.csv"], "--train_ratings and --test_ratings go together"),
            (["any", "--rating_scale", "1", "5"], "add --ratings FILE"),
            (["any", "--ratings", "none.csv"], "none.csv"),
            (["any", "--dataset", "ml-100"], "ml-100"),
            (["quality", "--dataset", "ml-latest-small"], "is for the part any"),
            (["any", "epoch", "--dataset", "ml-100k", "simulated"], "is for the part any"),
            (["growth", "--ratings", "all.csv"], "--ratings is for the part any"),
        ],
    )
    def test_invalid_data_get_one_sentence(self, files, capsys, arguments, sentence):
        assert sentence in refused(capsys, "multitask", *arguments)


def test_a_peer_without_room_is_left_out_and_said(data, capsys):
    peer = replace(OWN[0], max_cells=4799)
    any_data.measure_any(
        lambda *row: None, [replace(QUICK, dataset="simulated", simulated_size=(60, 80, 2400))], [peer, OWN[-1]], (0,)
    )
    assert "without EASE: it has room for" in capsys.readouterr().out
