"""benchmark.py multitask: the peers, the plain loop, time to quality, growth, processes, the table and the figure."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import interactions

import benchmark
import dataset
from benchmarks import growth, peers, processes, quality
from benchmarks.peers import PEERS, Answered, Peer
from benchmarks.plain import PlainNet, joint_loss, plain_epoch, plain_evaluation
from benchmarks.results import COLUMNS, Results
from benchmarks.timing import in_turns
from config.errors import UserError
from config.multitask import MultiTaskConfig
from evaluation import mrr_score
from models import MultiTaskNet
from multitask.recipe import RECIPE, MultiTaskRecipe
from training.console import silent
from training.loop import fit
from training.run_folder import RunFolder

CPU = torch.device("cpu")
SMALL = (60, 80, 2400)
OWN = [peer for peer in PEERS if peer.package is None]


@pytest.fixture(scope="module")
def data() -> dataset.Data:
    return dataset.load("simulated", simulated_size=SMALL)


@pytest.fixture
def small_data(monkeypatch, data):
    monkeypatch.setattr(MultiTaskRecipe, "load_data", lambda self, config: data)


def build(data, **options):
    config = MultiTaskConfig(dataset="simulated", quiet=True, **options)
    training = RECIPE.build(config, data, CPU)
    plain = PlainNet(len(data.users), len(data.items))
    plain.load_state_dict(training.model.state_dict())
    return config, training.model, training.task, plain


class TestPeers:
    def test_ease_is_the_ridge_regression_of_every_item_on_all_others(self, data):
        """Steck 2019, eq. (4): column j minimizes |x_j - X b|^2 + ridge |b|^2 with b_j = 0."""
        x = peers.matrix(data.train).toarray().astype(np.float64)
        expected = np.empty_like(x)
        for item in range(x.shape[1]):
            others = np.delete(x, item, axis=1)
            gram = others.T @ others + 50 * np.eye(others.shape[1])
            expected[:, item] = others @ np.linalg.solve(gram, others.T @ x[:, item])
        scores = peers.fit_ease(data.train, ridge=50.0)(np.arange(len(x)))
        np.testing.assert_allclose(scores, expected, atol=2e-4)

    def test_biases_are_the_ridge_regression_on_users_and_items(self, data):
        train = data.train
        users, items = train.user_ids.numpy(), train.item_ids.numpy()
        inputs = np.zeros((len(train), 60 + 80))
        inputs[np.arange(len(train)), users] = inputs[np.arange(len(train)), 60 + items] = 1
        mean = train.ratings.mean().item()
        ridge = np.diag([7.0] * 60 + [3.0] * 80)
        solution = np.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ (train.ratings.numpy() - mean))
        predict = peers.fit_biases(train, user_ridge=7.0, item_ridge=3.0, rounds=100)
        np.testing.assert_allclose(predict(users, items), mean + inputs @ solution, atol=1e-4)

    def test_popularity_counts_train_rows(self):
        train = interactions([(0, 0), (1, 0), (1, 2)], 3, 3)
        np.testing.assert_array_equal(peers.fit_popularity(train)(np.array([2, 0])), [[2, 0, 1], [2, 0, 1]])

    def test_the_matrix_holds_a_one_per_rated_pair(self):
        train = interactions([(0, 2), (1, 0)], 2, 3, [1, 5])
        np.testing.assert_array_equal(peers.matrix(train).toarray(), [[0, 0, 1], [1, 0, 0]])

    def test_peers_are_measured_by_our_evaluation_on_their_task(self):
        """A constant 3 against 1 and 5 has an MSE of 4. Popularity puts item 0 first, then 1; user 1 has seen 0."""
        train = interactions([(0, 0), (1, 0), (2, 0), (2, 1)], 3, 3)
        test = interactions([(0, 1), (1, 1)], 3, 3, [1, 5])
        split = SimpleNamespace(seen=train, test=test)
        three = Peer("three", "rating", None, lambda train: lambda users, items: np.full(len(users), 3.0))
        assert quality.fit_peer(three, split)[0] == 4
        assert quality.fit_peer(Peer("popularity", "ranking", None, peers.fit_popularity), split)[0] == 1

    def test_a_ranking_peer_predicts_no_ratings(self, data):
        model = Answered(Peer("popularity", "ranking", None, peers.fit_popularity), peers.fit_popularity(data.train))
        with pytest.raises(TypeError, match="popularity predicts no ratings"):
            model(data.test.user_ids, data.test.item_ids)

    def test_a_missing_peer_is_named_and_the_others_are_measured(self, monkeypatch, small_data, capsys):
        monkeypatch.setitem(peers.MODULES, "nowhere", "nowhere.models")
        absent = [Peer(name, "rating", "nowhere", peers.fit_biases) for name in ("A", "B")]
        rows = []
        config = MultiTaskConfig(epochs=1, quiet=True)
        quality.measure_quality(lambda *row: rows.append(row), config, absent + OWN, (0,), ())
        (line,) = [line for line in capsys.readouterr().out.splitlines() if "nowhere" in line]
        assert line.startswith("nowhere is missing (ModuleNotFoundError")
        assert line.endswith("without A, B")
        names = {row[0] for row in rows}
        assert {peer.name for peer in OWN} <= names
        assert not {"A", "B"} & names

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
    def test_peers_fit_their_training_rows(self, peer, data):
        """Predictions beat the mean rating, and rated items score above others: ids are not mixed up."""
        if peers.missing([peer]):
            pytest.skip(f"{peer.package} is not installed")
        train = data.train
        answer = peer.fit(train)
        users, items = train.user_ids.numpy(), train.item_ids.numpy()
        if peer.task == "rating":
            errors = answer(users, items) - train.ratings.numpy()
            assert np.square(errors).mean() < 0.8 * train.ratings.var().item()
        else:
            scores = answer(np.arange(60))
            seen = peers.matrix(train).toarray() > 0
            assert scores.shape == (60, 80)
            assert mrr_score(Answered(peer, answer), train) > mrr_score(
                Answered(peer, lambda rows: -scores[rows]), train
            )
            assert np.mean(scores[seen]) > np.mean(scores[~seen])


class TestPlainLoop:
    def test_same_weights_give_the_same_joint_loss_and_gradient(self, data):
        config, model, task, plain = build(data, factorization_weight=0.7, regression_weight=0.3)
        batch = next(task.batches(1))
        losses = task.losses(model, batch)
        ours = sum(config.weights[name] * loss for name, loss in losses.items())
        ours.backward()
        positive, score = plain(batch["user_ids"], batch["item_ids"])
        negative = plain.rank(batch["user_ids"], batch["negative_ids"][:, 0])
        theirs = joint_loss(config.weights, positive, negative, score, batch["ratings"])
        theirs.backward()
        torch.testing.assert_close(theirs, ours)
        for mine, other in zip(plain.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-7)

    def test_initial_weights_have_the_distribution_of_ours(self):
        plain, ours = PlainNet(400, 300), MultiTaskNet(400, 300)
        for mine, other in zip(plain.parameters(), ours.parameters(), strict=True):
            assert mine.shape == other.shape
            if mine.numel() > 1000 or not other.any():
                assert mine.std().item() == pytest.approx(other.std().item(), rel=0.05)

    def test_an_epoch_takes_every_row_and_learns(self, data):
        config, _, _, plain = build(data, batch_size=100)
        before = [parameter.clone() for parameter in plain.parameters()]
        adam = torch.optim.Adam(plain.parameters(), lr=config.lr)
        assert plain_epoch(plain, adam, config, data.train) == len(data.train)
        assert all((a != b).any() for a, b in zip(before, plain.parameters(), strict=True))

    def test_it_can_be_stopped(self, data):
        config, _, _, plain = build(data, batch_size=100)
        adam = torch.optim.Adam(plain.parameters())
        asked = iter([False, False, True])
        assert plain_epoch(plain, adam, config, data.train, lambda: next(asked)) == 200

    def test_its_evaluation_equals_ours(self, data):
        _, model, task, plain = build(data)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter)  # no two scores are equal
        plain.load_state_dict(model.state_dict())
        found = plain_evaluation(plain, data.test, data.train)
        assert found == pytest.approx(task.metrics(model, "test"), rel=1e-5)


class TestTimeToQuality:
    def test_both_bounds_must_be_met_in_one_epoch(self):
        good, bad = {"MRR": 0.14, "MSE": 0.81}, {"MRR": 0.13, "MSE": 0.83}
        curve = [bad, bad | {"MRR": 0.15}, bad | {"MSE": 0.80}, good, bad]
        curve = [row | {"CPU": 2.0 * epoch} for epoch, row in enumerate(curve, 1)]
        assert quality.time_to_quality(curve) == (4, 8.0)
        assert np.isnan(quality.time_to_quality(curve[:3])).all()

    def test_values_equal_to_the_bounds_meet_them(self):
        row = {"MRR": quality.LOWEST_MRR, "MSE": quality.HIGHEST_MSE, "CPU": 1.0}
        assert quality.time_to_quality([row]) == (1, 1.0)

    def test_the_mean_curve_is_taken_epoch_by_epoch(self):
        curves = [[{"MRR": 1.0}, {"MRR": 3.0}], [{"MRR": 2.0}, {"MRR": 5.0}]]
        assert quality.mean_curve(curves) == [{"MRR": 1.5}, {"MRR": 4.0}]

    def test_the_curve_equals_that_of_the_training_loop(self, data, tmp_path):
        config = MultiTaskConfig(dataset="simulated", epochs=3, quiet=True)
        curve = quality.train(config, data)
        outcome = fit(RECIPE.build(config, data, CPU), config, RunFolder(tmp_path), CPU, silent)
        assert [row["MRR"] for row in curve] == [row["test_mrr"] for row in outcome.history]
        assert [row["MSE"] for row in curve] == [row["test_mse"] for row in outcome.history]
        assert 0 < curve[0]["CPU"] < curve[1]["CPU"] < curve[2]["CPU"]


class TestGrowth:
    def test_one_size(self, capsys):
        assert benchmark.main(["grow", *map(str, SMALL)]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["raw arrays"] == [2400 * (4 + 4 + 4) / 2**20, "MB"]
        assert found["epochs"] == [growth.EPOCHS, "epochs"]
        assert found["peak memory"][0] >= found["peak memory, data made"][0] >= found["peak memory, imports"][0] > 1
        assert found["ours"][0] > 0 < found["plain"][0]

    def test_each_size_is_measured_in_a_process_of_its_own(self, monkeypatch):
        commands, rows = [], []
        names = (
            "ours",
            "plain",
            "evaluation",
            "evaluated users",
            "peak memory",
            "peak memory, imports",
            "raw arrays",
        )
        answer = json.dumps(dict.fromkeys(names, (4.0, "u")))

        def run(command, **_):
            commands.append(command[1:])
            return SimpleNamespace(returncode=0, stdout=f"a word before\n{answer}\n")

        monkeypatch.setattr(growth.subprocess, "run", run)
        growth.measure_growth(lambda *row: rows.append(row), ["1M", "25M"], Path("b.py"))
        assert commands == [
            ["b.py", "grow", "6040", "3706", "1000000"],
            ["b.py", "grow", "162541", "59047", "25000000"],
        ]
        assert rows[0] == ("1M", "ours", 4.0, "u")
        assert rows[-1] == ("simulated", "simulated", 1.0, "1 or 0")
        assert len(rows) == 2 * len(names) + 1

    def test_the_deadline_stops_training(self, monkeypatch):
        """Rows per second count the steps taken; a step stopped before it began does not count."""
        rows = round(SMALL[2] * 0.95)

        def ask(self) -> bool:
            self.asked += 1
            return self.asked > 30

        monkeypatch.setattr(growth, "BATCH", 100)
        monkeypatch.setattr(growth.Deadline, "__call__", ask)
        monkeypatch.setattr(growth.Deadline, "seconds", lambda self: 2.0)
        monkeypatch.setattr(growth, "plain_growth", lambda *_: 0)
        found = growth.grow(SMALL)
        assert rows == 22 * 100 + 80  # 23 steps an epoch, so that time is up at the eighth of the second
        assert found["ours"] == ((rows + 7 * 100) / 2, "rows per CPU s")

    def test_a_sample_of_users_keeps_all_their_rows(self, monkeypatch, data):
        monkeypatch.setattr(growth, "EVALUATED_USERS", 3)
        some = growth.rows_of_some_users(data.test)
        users = some.user_ids.unique()
        assert len(users) == 3
        assert len(some) == torch.isin(data.test.user_ids, users).sum()


class TestProcesses:
    def run(self, monkeypatch, tmp_path, returncode=0, stderr=""):
        """torchrun replaced: n processes take 6 / n seconds for three epochs and shift the MRR by n / 100."""

        def torchrun(command, **_):
            count = int(command[command.index("--nproc_per_node") + 1])
            folder = Path(command[command.index("--logdir") + 1])
            folder.mkdir()
            (folder / "result.json").write_text(json.dumps({"epochs": 3, "seconds": {"training": 6 / count}}))
            metrics = f"epoch,test_mrr,test_mse\n1,0,0\n3,{0.1 + count / 100},0.9\n"
            (folder / "metrics.csv").write_text(metrics)
            return SimpleNamespace(returncode=returncode, stderr=stderr)

        monkeypatch.setattr(processes.subprocess, "run", torchrun)
        rows = []
        processes.measure_processes(lambda *row: rows.append(row), Path("main.py"), size=SMALL)
        return {(name, metric): value for name, metric, value, _ in rows}

    def test_speed_and_differences_come_from_the_run_folders(self, monkeypatch, tmp_path):
        found = self.run(monkeypatch, tmp_path)
        assert found["1 process", "rows"] == 2280 * 3 / 6
        assert found["2 processes", "ratio"] == 2
        assert found["2 processes", "test_mrr, difference"] == pytest.approx(0.01)
        assert found["2 processes", "test_mse, difference"] == 0

    def test_the_error_of_a_failed_run_is_shown(self, monkeypatch, tmp_path):
        with pytest.raises(UserError, match=r"--nproc_per_node 1 ended with code 1: main\.py: error: no such thing"):
            self.run(monkeypatch, tmp_path, 1, "noise\nmain.py: error: no such thing\n=====\n")


class TestTable:
    def rows(self, results: Results) -> list[list[str]]:
        with results.path.open(newline="") as file:
            return list(csv.reader(file))

    def test_a_part_measured_again_replaces_its_rows_alone(self, tmp_path):
        first = Results(tmp_path / "new" / "folder")
        first.measure("epoch", lambda record: record("ours", "median", 1.0, "s"))
        first.measure("growth", lambda record: record("1M", "ours", 2e6, "rows per s"))
        second = Results(tmp_path / "new" / "folder")
        second.measure("epoch", lambda record: record("ours", "median", 0.5, "s"))
        expected = [["growth", "1M", "ours", "2e+06", "rows per s"], ["epoch", "ours", "median", "0.5", "s"]]
        assert self.rows(second) == [list(COLUMNS), *expected]
        assert second.of("epoch", "median") == {"ours": 0.5}

    def test_a_part_that_fails_leaves_the_table_as_it_was(self, tmp_path):
        results = Results(tmp_path)
        results.measure("epoch", lambda record: record("ours", "median", 1.0, "s"))
        before = results.path.read_bytes()

        def fail(record):
            record("ours", "median", 2.0, "s")
            raise UserError("no")

        with pytest.raises(UserError):
            results.measure("epoch", fail)
        assert results.path.read_bytes() == before
        assert results.of("epoch", "median") == {"ours": 1.0}

    def test_another_table_is_not_overwritten(self, tmp_path):
        (tmp_path / "benchmark.csv").write_text("a,b\n1,2\n")
        with pytest.raises(UserError, match="not a table of this benchmark"):
            Results(tmp_path)
        with pytest.raises(UserError, match="give another --output"):
            Results(tmp_path / "benchmark.csv")


def test_ways_are_timed_in_turns():
    calls, ticks = [], iter(range(100))
    seconds = in_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, lambda: next(ticks))
    assert calls == ["a", "b", "a", "b"]
    assert seconds == {"a": [1, 1], "b": [1, 1]}


def test_the_whole_command(monkeypatch, small_data, tmp_path, capsys):
    """Quality, epoch and evaluation on small data: every row is named, ratios are printed, the figure is drawn."""
    monkeypatch.setattr(quality.measure_quality, "__defaults__", (OWN, (0, 1), (2,)))
    preset = tmp_path / "preset.json"
    preset.write_text('{"epochs": 2}')
    command = ["multitask", "quality", "epoch", "evaluation", "--dataset", "simulated", "--repeats", "1"]
    assert benchmark.main([*command, "--preset", str(preset), "--output", str(tmp_path / "out")]) == 0
    results = Results(tmp_path / "out")
    assert {row["part"] for row in results.rows} == {"quality", "epoch", "evaluation"}
    assert set(results.of("quality", "MSE, split 1")) == {"user + item biases", "ours"}
    assert set(results.of("quality", "MRR, sd over splits")) == {"ours", "ours, further splits"}
    assert list(results.of("epoch", "median"))[:2] == ["plain loop", "ours"]
    assert "times as fast" in capsys.readouterr().out
    assert all(results.is_simulated(part) for part in ("quality", "epoch", "evaluation"))
    for name in ("benchmark.png", "learning_curve.png"):
        assert (tmp_path / "out" / name).stat().st_size > 10_000
