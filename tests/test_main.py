"""The command line: what a user types, and what comes back."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT, refused, run

from config import cli
from models import MultiTaskNet
from multitask.task import WatchAndRate
from registry import CHOICES, MODELS, make_config, recipe_for
from training import report

WORLD = ["--dataset", "simulated", "--simulated_size", "60", "80", "2400"]
RATINGS = "".join(f"{user},{item},{1 + (user * item) % 5}\n" for user in range(1, 21) for item in range(1, 16))


pytestmark = pytest.mark.usefixtures("elsewhere")


def parse(*arguments) -> cli.Request:
    return cli.parse(arguments, MODELS, CHOICES)


def test_one_run_leaves_everything_about_it(capsys, tmp_path):
    assert run(*WORLD, "--epochs", 2, "--logdir", "run/first", "--profile") == 0
    out = capsys.readouterr().out
    assert out.count("SIMULATED DATA") == 2  # before and beside the results
    assert out.count("\nepoch ") == 2
    assert "tensorboard --logdir run" in out
    for name in ("reading", "training", "evaluation", "saving"):
        assert f"\n{name}" in out
    folder = tmp_path / "run" / "first"
    config = json.loads((folder / "config.json").read_text())
    assert config["data"]["simulated"] is True
    assert config["settings"]["dataset"] == "simulated"
    assert config["settings"]["epochs"] == 2
    for name in ("last.pt", "metrics.csv", "config.json", "projector_config.pbtxt"):
        assert (folder / name).is_file()
    checkpoint = torch.load(folder / "last.pt", weights_only=True)
    assert len(checkpoint["history"]) == 2


def test_table_shows_best_by_the_direction_of_each_metric():
    history = [
        {"epoch": 1, "train_regression": 2.0, "test_mrr": 0.5, "test_mse": 1.0},
        {"epoch": 2, "train_regression": 1.0, "test_mrr": 0.2, "test_mse": 3.0},
    ]
    lines = report.metric_table(history, None, WatchAndRate.directions)
    assert [line.split()[2:] for line in lines[1:]] == [
        ["1.0000", "1.0000", "2"],
        ["0.2000", "0.5000", "1"],
        ["3.0000", "1.0000", "1"],
    ]
    assert report.metric_table(history, 1, WatchAndRate.directions)[3].split()[-1] == "1.0000"


def test_quiet_prints_the_table_alone(capsys):
    assert run(*WORLD, "--epochs", 2, "--quiet") == 0
    out = capsys.readouterr().out
    assert "\nepoch " not in out
    assert "test mrr" in out


def test_runs_are_named_by_their_tasks_and_never_overwritten(capsys, tmp_path):
    for _ in range(2):
        assert run(*WORLD, "--epochs", 1) == 0
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"shared=True_LF=0.99_LR=0.01_seed=0", "shared=True_LF=0.99_LR=0.01_seed=0-2"}
    capsys.readouterr()
    first = tmp_path / "run" / "shared=True_LF=0.99_LR=0.01_seed=0"
    before = (first / "last.pt").read_bytes()
    assert "holds a run already" in refused(capsys, *WORLD, "--logdir", first)
    assert (first / "last.pt").read_bytes() == before


def test_resume_goes_on_as_if_the_run_had_never_stopped(capsys, tmp_path):
    run(*WORLD, "--epochs", 4, "--logdir", "whole")
    run(*WORLD, "--epochs", 2, "--logdir", "parts")
    assert run("--resume", "parts", "--epochs", 4) == 0
    assert (tmp_path / "whole" / "metrics.csv").read_bytes() == (tmp_path / "parts" / "metrics.csv").read_bytes()
    assert json.loads((tmp_path / "parts" / "config.json").read_text())["settings"]["epochs"] == 4
    capsys.readouterr()
    assert run("--resume", "parts") == 0
    assert "finished after 4 of 4 epochs" in capsys.readouterr().out


def test_ctrl_c_prints_the_table_and_how_to_go_on(capsys, monkeypatch):
    def interrupted(self, epoch, batches=WatchAndRate.batches):
        if epoch == 3:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)  # twice in quick succession
        return batches(self, epoch)

    monkeypatch.setattr(WatchAndRate, "batches", interrupted)
    assert run(*WORLD, "--epochs", 9, "--logdir", "run/stopped") == 130
    out = capsys.readouterr().out
    assert "interrupted after 2 of 9 epochs" in out
    assert "python main.py --resume run/stopped" in out
    assert "test mrr" in out


def test_own_ratings_are_trained_resumed_and_asked_by_their_own_ids(capsys, tmp_path):
    (tmp_path / "my.csv").write_text("user,item,stars\n" + RATINGS.replace("7,", "u7,"))
    assert run("--ratings", "my.csv", "--epochs", 2, "--val_fraction", 0.1, "--logdir", "mine") == 0
    assert run("--resume", "mine", "--epochs", 3) == 0
    capsys.readouterr()
    assert run("--recommend", "u7", "--logdir", "mine", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["known"]
    assert answer["checkpoint"] == "best"
    assert {row["item"] for row in answer["rated"]} <= {"u7", *map(str, range(1, 16)), "1u7"}


def test_recommendations_are_unseen_in_order_and_what_the_model_says(capsys, tmp_path):
    run(*WORLD, "--epochs", 2, "--logdir", "run/a")
    capsys.readouterr()
    assert run("--recommend", "5", "--json") == 0  # the newest run
    answer = json.loads(capsys.readouterr().out)
    assert (answer["user"], answer["known"], answer["simulated"]) == ("5", True, True)
    assert len(answer["recommended"]) == 10

    config = make_config(dataset="simulated", simulated_size=(60, 80, 2400))
    data = recipe_for(config).load_data(config)
    model = MultiTaskNet(60, 80)
    model.load_state_dict(torch.load(tmp_path / "run" / "a" / "last.pt", weights_only=True)["model"])
    everything = data.train + data.test
    own = everything[everything.user_ids == 4]
    seen = {data.items[item] for item in own.item_ids}
    scores, ratings = (out.tolist() for out in model(torch.full((80,), 4), torch.arange(80)))
    rows = zip(scores, data.items, ratings, strict=True)
    expected = sorted((-score, item, rating) for score, item, rating in rows if item not in seen)
    for row, (score, item, rating) in zip(answer["recommended"], expected[:10], strict=True):
        assert row["item"] == item
        assert row["score"] == pytest.approx(-score)
        assert row["predicted_rating"] == pytest.approx(min(max(rating, 1), 5), abs=1e-5)
        assert row["title"] == f"Simulated film {item}"
    assert [row["rating"] for row in answer["rated"]] == sorted(own.ratings.tolist(), reverse=True)[:10]


def test_an_unknown_user_gets_one_sentence_and_the_popular_films(capsys):
    run(*WORLD, "--epochs", 1, "--logdir", "run/a")
    capsys.readouterr()
    assert run("--recommend", "nobody") == 0
    assert "User nobody is not in these data" in capsys.readouterr().out
    run("--recommend", "nobody", "--json")
    answer = json.loads(capsys.readouterr().out)
    counts = [row["ratings"] for row in answer["recommended"]]
    assert not answer["known"]
    assert counts == sorted(counts, reverse=True)
    assert len(counts) == 10


def test_config_file_gives_settings_and_flags_win(capsys, tmp_path):
    run(*WORLD, "--epochs", 1, "--lr", 0.01, "--logdir", "run/a")
    (tmp_path / "mine.json").write_text(json.dumps({"lr": 0.02, "layer_sizes": [12, 4], "embedding_dim": 4}))
    config = parse("--config", "mine.json", "--epochs", "7").config
    assert (config.lr, config.epochs, config.layer_sizes) == (0.02, 7, (12, 4))
    config = parse("--config", "run/a/config.json", "--logdir", "run/b").config
    assert (config.lr, config.epochs, config.logdir) == (0.01, 1, "run/b")
    assert run("--config", "run/a/config.json", "--logdir", "run/b") == 0
    assert (tmp_path / "run/a/metrics.csv").read_bytes() == (tmp_path / "run/b/metrics.csv").read_bytes()


REFUSED = {
    "unknown flag": (["--epoch", "3"], "unknown flag --epoch; did you mean --epochs?"),
    "unknown data set": (["--dataset", "ml-100"], "invalid choice: 'ml-100'"),
    "wrong type": (["--epochs", "many"], "invalid int value: 'many'"),
    "zero weight": (["--factorization_weight", "0"], "--factorization_weight must be greater than 0, not 0"),
    "negative weight": (["--regression_weight", "-1"], "--regression_weight must be greater than 0, not -1"),
    "weight that is no number": (["--regression_weight", "nan"], "must be greater than 0, not nan"),
    "no epochs": (["--epochs", "0"], "--epochs must be at least 1"),
    "no batch": (["--batch_size", "0"], "--batch_size must be at least 1"),
    "no step": (["--lr", "0"], "--lr must be greater than 0"),
    "test of nothing": (["--test_fraction", "0"], "--test_fraction must lie between 0 and 1"),
    "layers that do not fit": (["--layer_sizes", "95", "64"], "--layer_sizes must begin with 3 * embedding_dim = 96"),
    "patience without validation": (["--patience", "3"], "--patience needs a validation part"),
    "monitor without validation": (["--monitor", "mse"], "--monitor needs a validation part"),
    "hardest of one": (["--negative_sampling", "hardest"], "highest-scored of N items"),
    "half a split": (["--train_ratings", "u1.base"], "--train_ratings and --test_ratings go together"),
    "two sources": (["--ratings", "a.csv", "--dataset", "ml-1m"], "exclude each other"),
    "scale upside down": (["--rating_scale", "5", "1"], "--rating_scale takes the lowest"),
    "no such file": (["--ratings", "nowhere.csv"], "there is no file nowhere.csv"),
    "no such run": (["--resume", "nowhere"], "nowhere holds no run"),
    "no network": (["--dataset", "ml-1m"], "cannot be reached"),
    "no runs to ask": (["--recommend", "1"], "there is no trained run"),
    "config of another run": (["--resume", "x", "--config", "file"], "leave out --config"),
    "setting of a trained run": (["--recommend", "1", "--lr", "3"], "--lr means nothing to a trained run"),
    "no name at all": (["--ratings", ""], "cannot be read"),
    "too wide": (["--embedding_dim", "1000000000"], "--embedding_dim must be at least 1 and at most"),
    "name too long": (["--resume", "x" * 300], "File name too long"),
    "json of nothing": (["--json"], "--json goes with --recommend, --predict or --for"),
    "logdir in a file": ([*WORLD, "--logdir", "file/run"], "file/run cannot be"),
    "missing config": (["--config", "none.json"], "none.json cannot be read"),
    "config that is no JSON": (["--config", "file"], "file is not JSON"),
    "world without room": (["--dataset", "simulated", "--simulated_size", "10", "50", "9"], "cannot be met"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_gets_one_sentence_and_code_2(capsys, tmp_path, case):
    arguments, complaint = REFUSED[case]
    (tmp_path / "file").write_text("no folder")
    assert complaint in refused(capsys, *arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]  # nothing half-written


@pytest.mark.parametrize(
    "tampered",
    [
        {"device": "foo"}, {"rating_scale": [1]}, {"layer_sizes": []}, {"embedding_dim": 32.0}, {"epochs": "9"},
        {"seed": 1.5}, {"shared_embeddings": "no"}, {"data_dir": 5}, {"epochs": 2.5}, {"lr": 10**400},
    ],
    ids=str,
)  # fmt: skip
def test_a_tampered_config_is_refused(capsys, tmp_path, tampered):
    run(*WORLD, "--epochs", 1, "--logdir", "a")
    capsys.readouterr()
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    config["settings"] |= tampered
    (tmp_path / "a" / "config.json").write_text(json.dumps(config))
    assert f"{next(iter(tampered))} cannot be" in refused(capsys, "--resume", "a")
    assert f"{next(iter(tampered))} cannot be" in refused(capsys, "--recommend", "1", "--logdir", "a")


def test_output_that_nobody_reads_any_more_is_no_error(tmp_path):
    command = f"{sys.executable} {ROOT / 'main.py'} {' '.join(WORLD)} --epochs 3 2>errors.txt | head -3"
    subprocess.run(command, shell=True, check=True, cwd=tmp_path, stdout=subprocess.DEVNULL)
    assert (tmp_path / "errors.txt").read_text() == ""


@pytest.mark.parametrize(
    "content", ['{"learning_rate": 1}', '{"lr": "fast"}', '{"epochs": 1.5}', "[1]", '{"ranking_loss": "hinge"}']
)
def test_a_wrong_config_file_is_refused(capsys, tmp_path, content):
    (tmp_path / "c.json").write_text(content)
    assert "c.json" in refused(capsys, "--config", "c.json")


def test_a_resumed_run_refuses_other_settings_and_other_data(capsys, tmp_path):
    (tmp_path / "my.csv").write_text(RATINGS)
    run("--ratings", "my.csv", "--epochs", 1, "--logdir", "mine")
    capsys.readouterr()
    assert "--lr cannot change in a resumed run" in refused(capsys, "--resume", "mine", "--lr", "1")
    (tmp_path / "my.csv").write_text(RATINGS.replace("1,1,2", "1,1,5"))
    assert "the data are not those of the run" in refused(capsys, "--resume", "mine", "--epochs", "2")
    (tmp_path / "mine" / "config.json").write_text("{")
    assert "config.json is damaged" in refused(capsys, "--resume", "mine")


def test_help_answers_within_a_second():
    start = time.perf_counter()
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run(
        [sys.executable, ROOT / "main.py", "--help"], capture_output=True, text=True, env=environment, check=True
    )
    assert "--dataset" in done.stdout
    assert " torch" not in done.stderr
    assert " pandas" not in done.stderr
    assert time.perf_counter() - start < 10  # hangs are found here; the second is kept by not importing torch
