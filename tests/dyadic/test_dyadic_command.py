"""The dyadic learner on the command line."""

import csv
import itertools
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import refused, run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import registry
from config import cli
from config.dyadic import TASKS, DyadicConfig
from dyadic.recipe import read_dyads
from dyadic.tuning import Grid, tune

FEW = ["--min_user", "5", "--min_item", "5", "--iterations", "300", "--embedding_dim", "4", "--num_neighbors", "3"]
WORLD = ["--model", "dyadic", "--dataset", "simulated", "--simulated_size", "60", "80", "2400", *FEW]
LABELS = ["--labels", "click,save,buy"]
XING = ["--model", "dyadic", "--dataset", "simulated-xing"]
FEEDBACK = ["--model", "dyadic", "--feedback", "shown.csv", *LABELS]


@pytest.fixture(autouse=True)
def files(elsewhere):
    """Files of ratings and of feedback in the working directory of every test."""
    rated = [(u, i, 1 + (u * i + u) % 5, 1000 * u + (i * 7) % 31) for u in range(1, 21) for i in range(1, 31)]
    (elsewhere / "u.csv").write_text("\n".join(",".join(map(str, row)) for row in rated) + "\n")
    (elsewhere / "shown.csv").write_text("\n".join(feedback()) + "\n")


def feedback() -> list[str]:
    """Dyads of 20 users: a column "seen" for the display, three labels, two context columns and a time."""
    lines = ["user,item,seen,click,save,buy,age,price,week"]
    for user in range(20):
        for item in range(30):
            click, save, buy = (user + item) % 3 == 0, (user * item) % 7 == 1, (user + 2 * item) % 9 == 0
            numbers = [int((user + item) % 4 > 0 or click), int(click), int(save), int(buy), 20 + user, item * 1.5]
            lines.append(",".join(map(str, [f"u{user}", f"i{item}", *numbers, (user + item) % 12])))
    return lines


SUBSETS = [chosen for size in range(1, 5) for chosen in itertools.combinations(TASKS, size)]


def parse(*arguments: str) -> DyadicConfig:
    return cli.parse(arguments, registry.MODELS, registry.CHOICES).config


def test_a_run_writes_the_files_of_every_run(capsys, tmp_path):
    assert run(*WORLD, "--epochs", 2, "--logdir", "run/a") == 0
    out = capsys.readouterr().out
    assert "all three labels are functions of one rating" in out
    assert out.count("\nepoch ") == 2
    assert "--recommend=1 --logdir run/a" in out
    for name in ("last.pt", "metrics.csv", "config.json", "result.json", "projector_config.pbtxt"):
        assert (tmp_path / "run/a" / name).is_file()
    with (tmp_path / "run/a/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    events = EventAccumulator(str(tmp_path / "run/a")).Reload()
    tags = ("loss/click", "loss/total", "reg/bookmark", "stop/max_delta", "eval/click auc", "further metrics/reply f1")
    assert {tag.replace("/", ": dyadic simulated/") for tag in tags} <= set(events.Tags()["scalars"])
    assert [
        point.value for point in events.Scalars("further metrics: dyadic simulated/embedding map@5")
    ] == pytest.approx([float(row["test_embedding_map@5"]) for row in rows])
    moved = [abs(float(rows[1][f"fixed_{task}"]) - float(rows[0][f"fixed_{task}"])) for task in TASKS]
    assert float(rows[1]["stop_max_delta"]) == pytest.approx(max(moved))


@pytest.mark.parametrize("batch", [1, 16])
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_last_bit(tmp_path, batch):
    run(*WORLD, "--batch_size", batch, "--epochs", 4, "--logdir", "whole")
    run(*WORLD, "--batch_size", batch, "--epochs", 2, "--logdir", "parts")
    assert run("--resume", "parts", "--epochs", 4) == 0
    assert (tmp_path / "whole/metrics.csv").read_bytes() == (tmp_path / "parts/metrics.csv").read_bytes()
    a, b = (torch.load(tmp_path / name / "last.pt", weights_only=True)["model"] for name in ("whole", "parts"))
    assert all(a[key].equal(b[key]) for key in a)


def test_the_number_of_steps_between_checks_for_ctrl_c_changes_nothing(tmp_path, monkeypatch):
    run(*WORLD, "--batch_size", 8, "--epochs", 2, "--logdir", "whole")
    monkeypatch.setattr("dyadic.task.CHUNK_TRIPLES", 50)  # not a multiple of the batch
    run(*WORLD, "--batch_size", 8, "--epochs", 2, "--logdir", "blocks")
    tables = [list(csv.DictReader((tmp_path / name / "metrics.csv").open())) for name in ("whole", "blocks")]
    for row, other in zip(*tables, strict=True):
        assert {k: float(v) for k, v in row.items()} == pytest.approx(
            {k: float(v) for k, v in other.items()}, rel=1e-12
        )


def test_training_stops_when_the_losses_stop_changing(capsys):
    assert run(*WORLD, "--epochs", 9, "--eps", 10, "--logdir", "run/a") == 0
    assert "converged after 2 of 9 epochs" in capsys.readouterr().out
    assert run("--resume", "run/a") == 0
    assert "converged after 2 of 9 epochs" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["ml100k", "paper", "authors"])
def test_every_preset_runs_and_only_the_leaking_one_prints_leak(capsys, name):
    assert parse("--preset", name).model == "dyadic"
    assert run("--preset", name, "--ratings", "u.csv", *FEW, "--epochs", 2, "--logdir", "run/a") == 0
    assert ("LEAK" in capsys.readouterr().out) == (name == "authors")


def test_feedback_with_context_and_times_trains_and_resumes(capsys, tmp_path):
    own = [*FEEDBACK, "--displayed", "seen", "--context", "age,price", "--time", "week"]
    settings = [*FEW, "--split", "time67", "--epochs", 2]
    assert run(*own, *settings, "--logdir", "mine") == 0
    out = capsys.readouterr().out
    assert "click 0." in out
    assert "were neither displayed nor acted on: left out" in out
    assert run("--resume", "mine", "--epochs", 3) == 0
    net = torch.load(tmp_path / "mine/last.pt", weights_only=True)["model"]
    assert net["w1"].shape == (15 + 2 + 2 * 4,)


def test_tuned_values_are_saved_and_used(capsys, tmp_path, monkeypatch):
    grid = Grid((0.1, 0.001), (1.0, 5.0), (0.3, 0.5), num_folds=2)
    monkeypatch.setattr("dyadic.recipe.tune", partial(tune, grid=grid))
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
        ["--mapping", "P"], ["--similarity", "im"], ["--neighbors", "global"], ["--num_neighbors", "50"],
        ["--spread", "var"], ["--no_exclude_self"], ["--source", "all"], ["--bias", "vz"], ["--score", "rating"],
        ["--lambdas", "0.5"], ["--class_weights", "7", "5"], ["--emb_grad", "emb_only"], ["--init", "normal"],
        ["--lr", "0.1"], ["--seed", "1"], ["--learn", "click", "embedding"], ["--thresholds", ".1", ".1", ".1", ".1"],
        ["--min_user", "40"], ["--batch_size", "64"],
        ["--min_item", "35"], ["--absent", "zero"], ["--embedding_dim", "5"], ["--iterations", "200"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_every_option_changes_the_result(tmp_path, option):
    run(*WORLD, "--epochs", 1, "--logdir", "plain", "--quiet")
    run(*WORLD, "--epochs", 1, *option, "--logdir", "other", "--quiet")
    assert (tmp_path / "plain/metrics.csv").read_text() != (tmp_path / "other/metrics.csv").read_text()


@pytest.mark.parametrize("task", TASKS)
def test_every_task_can_be_learned_alone(capsys, tmp_path, task):
    assert run(*WORLD, "--learn", task, "--epochs", 1, "--logdir", "run/a") == 0
    assert f"{task}_auc" in capsys.readouterr().out
    with (tmp_path / "run/a/metrics.csv").open() as file:
        columns = next(csv.reader(file))
    assert {name.removeprefix("test_").split("_")[0] for name in columns if name.startswith("test_")} == {task}


def test_one_pass_of_the_filter_keeps_more_dyads(tmp_path):
    """One pass drops user 20, which leaves item 20 with 9 dyads. Only a second pass drops item 20."""
    pairs = [(user, item) for user in range(20) for item in range(20)]
    pairs += [(20, item) for item in range(9)] + [(20, 20)] + [(user, 20) for user in range(9)] + [(20, 21)]
    lines = "\n".join(f"{user},{item},{1 + (user + item) % 5}" for user, item in pairs)
    (tmp_path / "core.csv").write_text(lines + "\n")
    make = partial(DyadicConfig, ratings="core.csv", min_user=11, min_item=10)
    once, repeated = (read_dyads(make(iterate=iterate)) for iterate in (False, True))
    assert (len(once), len(repeated)) == (409, 400)


def test_a_ready_split_is_pooled_with_a_note(capsys, tmp_path):
    lines = (tmp_path / "u.csv").read_text().splitlines()
    random = np.random.default_rng(0).permutation(len(lines))
    for name, rows in [("train.csv", random[:400]), ("test.csv", random[400:])]:
        (tmp_path / name).write_text("\n".join(lines[row] for row in rows) + "\n")
    ready = ["--train_ratings", "train.csv", "--test_ratings", "test.csv"]
    assert run("--model", "dyadic", *ready, *FEW, "--epochs", 1, "--logdir", "ready") == 0
    assert "the files of the ready split are pooled" in capsys.readouterr().out
    assert run("--model", "dyadic", "--ratings", "u.csv", *FEW, "--epochs", 1, "--logdir", "whole") == 0
    assert (tmp_path / "ready/metrics.csv").read_bytes() == (tmp_path / "whole/metrics.csv").read_bytes()


IGNORED = {
    "--mapping": ([*XING, "--mapping", "P"], "--dataset simulated-xing"),
    "--min_user": ([*XING, "--min_user", "5"], "--dataset simulated-xing"),
    "--min_item": ([*XING, "--min_item", "5"], "--dataset simulated-xing"),
    "--no_iterate": ([*XING, "--no_iterate"], "--dataset simulated-xing"),
    "--score": ([*XING, "--score", "rating"], "--dataset simulated-xing"),
    "--mapping P": ([*FEEDBACK, "--mapping", "P"], "--feedback"),
    "--score rating": ([*FEEDBACK, "--score", "rating"], "--feedback"),
    "--scale 0.2": ([*FEEDBACK, "--scale", "0.2"], "--feedback"),
    "--scale": ([*WORLD, "--scale", "0.2"], "ratings"),
    "--lambdas": ([*WORLD, "--tune", "--lambdas", "0.1"], "--tune"),
    "--class_weights": ([*WORLD, "--tune", "--class_weights", "7", "5"], "--tune"),
    "--thresholds": ([*WORLD, "--tune", "--thresholds", ".1", ".1", ".1", ".1"], "--tune"),
    "--emb_grad": ([*WORLD, "--embedding_dim", "0", "--emb_grad", "emb_only"], "--embedding_dim 0"),
}


@pytest.mark.parametrize("case", IGNORED)
def test_an_option_that_the_run_would_ignore_is_refused_by_name(capsys, case):
    arguments, reason = IGNORED[case]
    message = refused(capsys, *arguments)
    assert message.startswith(f"main.py: error: {case.split()[0]}")
    assert f" does not apply to {reason}" in message


def test_a_refused_option_of_a_preset_can_be_reset(capsys):
    paper = ["--preset", "paper", *XING[2:]]
    assert "if a preset sets it, add --iterate" in refused(capsys, *paper)
    assert parse(*paper, "--iterate").neighbors == "global"
    assert "add --class_weights 1.0 1.0" in refused(capsys, *WORLD, "--tune", "--class_weights", "7", "5")


def test_more_options_of_feedback_that_would_be_ignored_are_refused(capsys):
    assert "add it" in refused(capsys, *FEEDBACK, "--time", "week")
    assert "--rating_scale" in refused(capsys, *FEEDBACK, "--rating_scale", "1", "5")


REFUSED = {
    "batch too large": ([*WORLD, "--batch_size", "500"], "lr * batch_size = 5 exceeds 2"),
    "five lambdas": ([*WORLD, "--lambdas", *"12345"], "--lambdas takes one number or four, not 5"),
    "no iterations": ([*WORLD, "--iterations", "0"], "--iterations must be a positive number, auto or formula"),
    "two labels": (["--model", "dyadic", "--feedback", "shown.csv", "--labels", "click,buy"], "of dyads are three"),
    "no such context": ([*FEEDBACK, "--context", "rank"], "column rank"),
    "context without feedback": (
        [*WORLD, "--context", "age"], "--context names columns of --feedback, which is missing",
    ),
    "time split without times": ([*WORLD, "--split", "time67"], "needs timestamps, and simulated has none"),
    "time split without a column": (
        [*FEEDBACK, "--split", "time67"], "needs a --time column",
    ),
    "nobody left": ([*WORLD, "--min_user", "1000"], "no dyad is left"),
    "fractions": ([*WORLD, "--val_fraction", "0.1"], "--val_fraction does not apply to --model dyadic"),
    "weighting": ([*WORLD, "--weighting", "dwa"], "--weighting does not apply to --model dyadic"),
    "early stopping": ([*WORLD, "--patience", "3"], "--patience does not apply to --model dyadic"),
    "its data for another model": (["--model", "mmoe", "--dataset", "simulated-xing"], "is for --model dyadic"),
    "flag of another model": ([*WORLD, "--experts", "3"], "--experts does not apply to --model dyadic"),
    "its flag for another model": (["--mapping", "P"], "--mapping does not apply to --model multitask"),
    "no such preset": (["--preset", "autors"], "there is no preset 'autors'; did you mean authors?"),
    "preset of another model": (["--preset", "paper", "--model", "mmoe"], "does not apply to --model mmoe"),
    "preset and config": (["--preset", "paper", "--config", "x.json"], "two sources of settings"),
    "scale": ([*XING, "--scale", "3"], "--scale must be at least 0.01 and at most 1"),
    "time split of a ready split": (
        ["--model", "dyadic", "--train_ratings", "u.csv", "--test_ratings", "u.csv", "--split", "time67"],
        "--split time67 does not apply to a ready split",
    ),
    "embedding task without embeddings": (
        [*WORLD, "--embedding_dim", "0", "--learn", "embedding"], "--learn embedding needs embeddings",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_command_gets_one_sentence_and_code_2(capsys, tmp_path, case):
    arguments, complaint = REFUSED[case]
    assert complaint in refused(capsys, *arguments)
    assert {path.name for path in tmp_path.iterdir()} <= {"shown.csv", "u.csv"}


def test_results_of_the_simulated_platform_are_labeled_simulated(capsys):
    assert run(*XING, "--scale", "0.01", "--iterations", 300, "--embedding_dim", 4, "--epochs", 1) == 0
    out = capsys.readouterr().out
    assert out.count("SIMULATED DATA") == 2
    assert "simulated-xing (SIMULATED)" in out


def test_the_split_depends_on_the_seed_and_not_on_the_order_of_the_file(tmp_path):
    lines = (tmp_path / "u.csv").read_text().splitlines()
    (tmp_path / "reversed.csv").write_text("\n".join(reversed(lines)) + "\n")
    make = partial(DyadicConfig, min_user=5, min_item=5)
    data, same = (read_dyads(make(ratings=name, seed=3)) for name in ("u.csv", "reversed.csv"))
    assert data.fingerprint == same.fingerprint
    assert data.fingerprint != read_dyads(make(ratings="u.csv", seed=4)).fingerprint
    assert len(data) == 600


@pytest.mark.parametrize("learned", [pytest.param(one, id=" ".join(one)) for one in SUBSETS])
def test_any_choice_of_tasks_trains_and_answers(capsys, learned):
    few = ["--model", "dyadic", "--ratings", "u.csv", *FEW, "--iterations", 5]
    assert run(*few, "--epochs", 1, "--learn", *reversed(learned), "--logdir", "run/a") == 0
    out = capsys.readouterr().out
    assert f"test {learned[0]}_auc 0." in out
    measured = json.loads(Path("run/a/result.json").read_text())["metrics"]
    assert {name.split("_")[1] for name in measured if name.startswith("test_")} == set(learned)
    assert run("--recommend", 1, "--json", "--logdir", "run/a") == 0
    offered = json.loads(capsys.readouterr().out)["recommended"]
    assert offered
    assert {*offered[0]} == {"item", "title", *learned}
