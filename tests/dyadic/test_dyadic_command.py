"""The dyadic learner on the command line, under the same loop as every other family."""

import csv
import json

import pytest
import torch
from conftest import refused, run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from config import cli as flags
from config.dyadic import TASKS

FEW = ["--min_user", "5", "--min_item", "5", "--iterations", "300", "--embedding_dim", "4", "--num_neighbours", "3"]
WORLD = ["--model", "dyadic", "--dataset", "simulated", "--simulated_size", "60", "80", "2400", *FEW]
LABELS = ["--labels", "click,save,buy"]


@pytest.fixture(autouse=True)
def files(elsewhere):
    """Every test works beside files of ratings and of feedback."""
    rated = [(u, i, 1 + (u * i + u) % 5, 1000 * u + (i * 7) % 31) for u in range(1, 21) for i in range(1, 31)]
    (elsewhere / "u.csv").write_text("\n".join(",".join(map(str, row)) for row in rated) + "\n")
    (elsewhere / "shown.csv").write_text("\n".join(feedback()) + "\n")


def feedback() -> list[str]:
    """Impressions of 20 users: a column of what was displayed, three labels, two columns of context and a time."""
    lines = ["user,item,seen,click,save,buy,age,price,week"]
    for user in range(20):
        for item in range(30):
            click, save, buy = (user + item) % 3 == 0, (user * item) % 7 == 1, (user + 2 * item) % 9 == 0
            numbers = [int((user + item) % 4 > 0 or click), int(click), int(save), int(buy), 20 + user, item * 1.5]
            lines.append(",".join(map(str, [f"u{user}", f"i{item}", *numbers, (user + item) % 12])))
    return lines


def test_a_run_leaves_what_every_run_leaves(capsys, tmp_path):
    assert run(*WORLD, "--epochs", 2, "--logdir", "run/a") == 0
    out = capsys.readouterr().out
    assert "all three labels are functions of one rating" in out
    assert out.count("\nepoch ") == 2
    assert "--recommend" not in out  # it scores observed dyads only
    for name in ("last.pt", "metrics.csv", "config.json", "result.json", "projector_config.pbtxt"):
        assert (tmp_path / "run/a" / name).is_file()
    with (tmp_path / "run/a/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    events = EventAccumulator(str(tmp_path / "run/a")).Reload()
    tags = ("loss/click", "loss/total", "reg/bookmark", "stop/max_delta", "eval/click auc", "eval/reply f1")
    assert set(tags) <= set(events.Tags()["scalars"])
    assert [point.value for point in events.Scalars("eval/embedding map@5")] == pytest.approx(
        [float(row["test_embedding_map@5"]) for row in rows]
    )
    moved = [abs(float(rows[1][f"fixed_{task}"]) - float(rows[0][f"fixed_{task}"])) for task in TASKS]
    assert float(rows[1]["stop_max_delta"]) == pytest.approx(max(moved))
    assert "scores observed dyads only" in refused(capsys, "--recommend", "1", "--logdir", "run/a")


@pytest.mark.parametrize("batch", [1, 16])
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_last_bit(tmp_path, batch):
    run(*WORLD, "--batch_size", batch, "--epochs", 4, "--logdir", "whole")
    run(*WORLD, "--batch_size", batch, "--epochs", 2, "--logdir", "parts")
    assert run("--resume", "parts", "--epochs", 4) == 0
    assert (tmp_path / "whole/metrics.csv").read_bytes() == (tmp_path / "parts/metrics.csv").read_bytes()
    a, b = (torch.load(tmp_path / name / "last.pt", weights_only=True)["model"] for name in ("whole", "parts"))
    assert all(a[key].equal(b[key]) for key in a)


def test_blocks_between_looks_at_the_keyboard_change_nothing(tmp_path, monkeypatch):
    run(*WORLD, "--batch_size", 8, "--epochs", 2, "--logdir", "whole")
    monkeypatch.setattr("dyadic.recipe.TRIPLES_AT_A_TIME", 50)  # not a multiple of the batch
    run(*WORLD, "--batch_size", 8, "--epochs", 2, "--logdir", "blocks")
    tables = [list(csv.DictReader((tmp_path / name / "metrics.csv").open())) for name in ("whole", "blocks")]
    for row, other in zip(*tables, strict=True):
        assert {k: float(v) for k, v in row.items()} == pytest.approx(
            {k: float(v) for k, v in other.items()}, rel=1e-12
        )


def test_it_stops_when_no_task_moves_any_more(capsys):
    assert run(*WORLD, "--epochs", 9, "--eps", 10, "--logdir", "run/a") == 0
    assert "converged after 2 of 9 epochs" in capsys.readouterr().out
    assert run("--resume", "run/a") == 0
    assert "converged after 2 of 9 epochs" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["ml100k", "paper", "authors"])
def test_every_preset_runs_and_the_one_that_leaks_says_so(capsys, name):
    assert flags.parse(["--preset", name]).settings.model == "dyadic"
    assert run("--preset", name, "--ratings", "u.csv", *FEW, "--epochs", 2, "--logdir", "run/a") == 0
    assert ("LEAK" in capsys.readouterr().out) == (name == "authors")


def test_feedback_with_context_and_times_is_learnt(capsys, tmp_path):
    own = ["--feedback", "shown.csv", *LABELS, "--displayed", "seen", "--context", "age,price", "--time", "week"]
    settings = ["--model", "dyadic", *FEW, "--split", "time67", "--epochs", 2]
    assert run(*own, *settings, "--logdir", "mine") == 0
    out = capsys.readouterr().out
    assert "click 0." in out
    assert "were neither displayed nor acted on: left out" in out
    assert run("--resume", "mine", "--epochs", 3) == 0
    net = torch.load(tmp_path / "mine/last.pt", weights_only=True)["model"]
    assert net["w1"].shape == (15 + 2 + 2 * 4,)


def test_tuned_values_are_written_down_and_used(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("dyadic.tuning.tune.__defaults__", ((0.1, 0.001), (1.0, 5.0), (0.3, 0.5), 2, "cpu", print))
    assert run(*WORLD, "--tune", "--epochs", 1, "--logdir", "run/a") == 0
    assert "tuning 4/4" in capsys.readouterr().out
    settings = json.loads((tmp_path / "run/a/config.json").read_text())["settings"]
    assert settings["tune"] is False
    assert settings["lambdas"][0] in (0.1, 0.001)
    assert settings["class_weights"][0] in (1.0, 5.0)
    assert set(settings["thresholds"]) <= {0.3, 0.5}
    assert run("--resume", "run/a", "--epochs", 2) == 0


@pytest.mark.parametrize(
    "option",
    [
        ["--mapping", "P"], ["--similarity", "im"], ["--neighbours", "global"], ["--num_neighbours", "50"],
        ["--spread", "var"], ["--no_exclude_self"], ["--source", "all"], ["--bias", "vz"], ["--score", "rating"],
        ["--lambdas", "0.5"], ["--class_weights", "7", "5"], ["--emb_grad", "emb_only"], ["--init", "normal"],
        ["--lr", "0.1"], ["--seed", "1"], ["--learn", "click", "embedding"], ["--thresholds", ".1", ".1", ".1", ".1"],
        ["--min_user", "40"], ["--batch_size", "64"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_every_option_changes_the_result(tmp_path, option):
    run(*WORLD, "--epochs", 1, "--logdir", "plain", "--quiet")
    run(*WORLD, "--epochs", 1, *option, "--logdir", "other", "--quiet")
    assert (tmp_path / "plain/metrics.csv").read_text() != (tmp_path / "other/metrics.csv").read_text()


REFUSED = {
    "batch too large": ([*WORLD, "--batch_size", "500"], "eta * batch = 5 exceeds 2"),
    "five lambdas": ([*WORLD, "--lambdas", *"12345"], "--lambdas takes one number or four, not 5"),
    "no iterations": ([*WORLD, "--iterations", "0"], "--iterations must be a positive number, auto or formula"),
    "two labels": (["--model", "dyadic", "--feedback", "shown.csv", "--labels", "click,buy"], "of dyads are three"),
    "no such context": (["--model", "dyadic", "--feedback", "shown.csv", *LABELS, "--context", "rank"], "column rank"),
    "context without feedback": ([*WORLD, "--context", "age"], "name columns of --feedback, which is missing"),
    "time split without times": ([*WORLD, "--split", "time67"], "goes by timestamps, and simulated has none"),
    "time split without a column": (
        ["--model", "dyadic", "--feedback", "shown.csv", *LABELS, "--split", "time67"], "needs a --time column",
    ),
    "nobody left": ([*WORLD, "--min_user", "1000"], "no dyad is left"),
    "fractions": ([*WORLD, "--val_fraction", "0.1"], "do not apply to --model dyadic"),
    "weighting": ([*WORLD, "--weighting", "dwa"], "has its own updates"),
    "early stopping": ([*WORLD, "--patience", "3"], "--patience needs a validation part"),
    "its data for another model": (["--model", "mmoe", "--dataset", "simulated-xing"], "is for --model dyadic"),
    "flag of another model": ([*WORLD, "--experts", "3"], "--experts means nothing to --model dyadic"),
    "its flag for another model": (["--mapping", "P"], "--mapping means nothing to --model multitask"),
    "no such preset": (["--preset", "autors"], "there is no preset 'autors'; did you mean authors?"),
    "preset of another model": (["--preset", "paper", "--model", "mmoe"], "means nothing to --model mmoe"),
    "preset and config": (["--preset", "paper", "--config", "x.json"], "two sources of settings"),
    "scale": (["--model", "dyadic", "--dataset", "simulated-xing", "--scale", "3"], "scale must lie in"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_sense_gets_one_sentence_and_code_2(capsys, tmp_path, case):
    arguments, complaint = REFUSED[case]
    assert complaint in refused(capsys, *arguments)
    assert {path.name for path in tmp_path.iterdir()} <= {"shown.csv", "u.csv"}


def test_the_simulated_platform_is_called_simulated(capsys):
    assert run("--model", "dyadic", "--dataset", "simulated-xing", "--scale", "0.01", *FEW, "--epochs", 1) == 0
    out = capsys.readouterr().out
    assert out.count("SIMULATED DATA") == 2
    assert "simulated-xing (SIMULATED)" in out


def test_the_seed_of_the_split_is_that_of_the_run_and_the_order_of_the_file_is_nothing(tmp_path):
    from dyadic.recipe import read_dyads

    lines = (tmp_path / "u.csv").read_text().splitlines()
    (tmp_path / "turned.csv").write_text("\n".join(reversed(lines)) + "\n")
    about = {"model": "dyadic", "min_user": 5, "min_item": 5}
    data, turned = (read_dyads(about | {"ratings": name}, 3) for name in ("u.csv", "turned.csv"))
    assert data.fingerprint == turned.fingerprint
    assert data.fingerprint != read_dyads(about | {"ratings": "u.csv"}, 4).fingerprint
    assert len(data) == 600
