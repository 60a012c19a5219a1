"""The command line of the experiments."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

import experiments
from analysis import dyadic, zoo
from analysis.dyadic_worlds import make_worlds, require_labels
from analysis.runner import Run
from config.errors import UserError
from dataset import load
from registry import make_config
from sources.locks import owned

SMALL = {
    "dataset": "simulated", "simulated_size": (60, 80, 2400), "epochs": 1, "embedding_dim": 4,
    "expert_units": (4,), "tower_units": (4,),
}  # fmt: skip


@pytest.mark.slow
def test_the_table_of_the_zoo_from_the_command_line(tmp_path, monkeypatch, capsys):
    rows = {"MMoE, view only": {"model": "mmoe", "labels": "view"}, "single task": {"model": "single"}}
    monkeypatch.setattr(zoo, "ROWS", rows)
    monkeypatch.setattr(zoo, "QUICK", SMALL)
    monkeypatch.chdir(tmp_path)
    assert experiments.main(["zoo", "--quick", "--seeds", "1", "--jobs", "2"]) == 0
    out = capsys.readouterr().out
    assert "2/2" in out
    assert "SIMULATED DATA" in out
    for row in ("MMoE, view only", "single task", "*popularity*", "*user + item mean*"):
        assert f"| {row} |" in out
    assert {path.name for path in (tmp_path / "results" / "zoo-quick").iterdir()} == {
        "runs", "table.csv", "table.md", "table.png", "runs.csv", "zoo.json",
    }  # fmt: skip
    described = json.loads((tmp_path / "results" / "zoo-quick" / "zoo.json").read_text())
    assert (described["runs"], described["simulated"], described["quick"]) == (2, True, True)
    assert described["statistics"]["ratings"] == "2,400"
    assert described["settings"]["expert_units"] == [4]
    assert "labels" not in described["settings"]  # the rows differ in them


def test_two_experiments_do_not_share_a_results_folder(elsewhere, capsys):
    with owned(elsewhere / "results" / "zoo-quick"):
        assert experiments.main(["zoo", "--quick"]) == 2
    message = capsys.readouterr().err
    assert f"results/zoo-quick is in use by process {os.getpid()} on " in message
    assert message.count("\n") == 1
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["zoo", "--seeds", "0"], "--seeds must be at least 1"),
        (["zoo", "--jobs", "0"], "--jobs must be at least 1"),
        (["zoo", "--dataset", "ml-1m", "--data_dir", "nowhere"], "cannot be reached"),
        (["search", "--space", "ensemble", "--sampler", "tpe", "--dataset", "simulated"], "leave out --sampler tpe"),
    ],
)
def test_bad_input_gets_one_sentence_and_code_2(arguments, complaint, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sources.download.ADDRESS", "http://127.0.0.1:9")
    assert experiments.main(arguments) == 2
    message = capsys.readouterr().err
    assert complaint in message
    assert message.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_help_needs_no_torch():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", ROOT / "experiments.py", "zoo", "--help"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "--quick" in done.stdout
    assert " torch" not in done.stderr


TRAINING = ("weights", "sweep", "zoo", "dyadic", "folds", "search")


def write_ratings(path, factor: float = 1.0, header: str = "user,item,rating") -> None:
    """A file of the ratings of a small world with raw ids of letters, on the scale 1 to 5 times `factor`."""
    data = load("simulated", simulated_size=(60, 80, 2400))
    rows = data.seen + data.test
    columns = (rows.user_ids.tolist(), rows.item_ids.tolist(), rows.ratings.tolist())
    lines = [f"kunde-{user:x},é{item},{factor * rating:g}" for user, item, rating in zip(*columns, strict=True)]
    path.write_text("\n".join([header, *lines]), encoding="utf-8")


@pytest.mark.parametrize("command", TRAINING)
def test_all_commands_take_the_same_data(command, elsewhere):
    write_ratings(elsewhere / "own.csv", 2.0, "kunde,ware,sterne")
    columns = "user=kunde,item=ware,rating=sterne"
    flags = ["--ratings", "own.csv", "--rating_scale", "2", "10", "--columns", columns]
    found = experiments.data_settings(experiments.parse([command, *flags]))
    assert found == {"ratings": "own.csv", "rating_scale": (2.0, 10.0), "columns": columns}
    assert experiments.data_settings(experiments.parse([command])) == {"dataset": "simulated"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        *(([command, "--quick", "--ratings", "own.csv"], "leave out --ratings, or") for command in TRAINING),
        *(([command, "--ratings", "nowhere.csv"], "there is no file nowhere.csv") for command in TRAINING),
        (["weights", "--quick", "--dataset", "ml-1m"], "--quick is on simulated data: leave out --dataset, or"),
        (["sweep", "--ratings", "own.csv", "--dataset", "ml-1m"], "exclude each other"),
        (["zoo", "--ratings", "own.csv", "--rating_scale", "1", "4"], "own.csv, line "),
        (["search", "--rating_scale", "1", "4"], "add --ratings FILE"),
        (["dyadic", "--columns", "user=kunde"], "add --ratings FILE"),
        (["dyadic", "--quick", "--feedback", "own.csv"], "leave out --feedback, or"),
        (["dyadic", "--feedback", "own.csv", "--ratings", "own.csv"], "are two sources of data"),
        (["dyadic", "--feedback", "own.csv"], "a header without a column clicked"),
        (["dyadic", "--displayed", "seen"], "--displayed names columns of --feedback, which is missing"),
    ],
)
def test_mistakes_in_data_are_found_before_any_run(arguments, sentence, elsewhere, capsys):
    write_ratings(elsewhere / "own.csv")
    assert experiments.main(arguments) == 2
    message = capsys.readouterr().err
    assert sentence in message
    assert message.count("\n") == 1
    assert [path.name for path in elsewhere.iterdir()] == ["own.csv"]


def test_the_flags_of_settings_are_read_back():
    flags = experiments.as_flags({"ratings": "a b.csv", "rating_scale": (-1.5, 1e6)})
    assert flags == ["--ratings=a b.csv", "--rating_scale", "-1.5", "1000000.0"]


def test_a_run_is_repeated_when_the_content_of_the_file_has_changed(elsewhere):
    def folder(name):
        return Run("row", make_config(ratings=name)).folder(elsewhere)

    for name, factor in (("one", 1.0), ("same", 1.0), ("other", 0.5)):
        write_ratings(elsewhere / name, factor)
    assert folder("one") == folder("same") != folder("other")


def test_the_zoo_needs_likes_and_others(elsewhere, capsys):
    write_ratings(elsewhere / "low.csv", 0.5)
    write_ratings(elsewhere / "high.csv", 10.0)
    assert experiments.main(["zoo", "--ratings", "low.csv"]) == 2
    sentence = "low.csv: none of the ratings, from 0.5 to 2.5, are likes, which begin at 4: choose another --like_from"
    assert sentence in capsys.readouterr().err
    assert experiments.main(["zoo", "--ratings", "high.csv", "--rating_scale", "10", "50"]) == 2
    assert "high.csv: all of the ratings, from 10 to 50, are likes" in capsys.readouterr().err


def test_the_zoo_names_the_file(elsewhere):
    config = make_config("mmoe", ratings="own.csv", rating_scale=(10.0, 50.0), like_from=40.0)
    assert zoo.describe(config, 2).startswith("own.csv: view = rated, like = rated 40 or higher;")
    table = zoo.tabulate([{"row": "single task", "seed": 0, "metrics": {}}], "single task")
    assert zoo.as_markdown(table, set(), config, 2).startswith("own.csv: ")


def test_dyads_of_own_ratings_are_named_and_checked(elsewhere):
    (elsewhere / "in").mkdir()
    filters = {"min_user": 5, "min_item": 5}
    for name, factor in (("own", 1.0), ("low", 0.5), ("high", 10.0)):
        write_ratings(elsewhere / "in" / f"{name}.csv", factor)
    *worlds, platform = make_worlds({"ratings": "in/own.csv"} | filters, 0.02)
    assert [world.name for world in worlds] == ["in/own.csv N", "in/own.csv P"]
    assert platform.name == "simulated-xing"
    require_labels(worlds)
    unit = dyadic.Unit(worlds[0], dyadic.DEFAULT_FEATURES, dyadic.QUICK)
    assert unit.path(elsewhere).parent == elsewhere
    assert unit.path(elsewhere).name.startswith("in-own.csv-N_seed=0_")
    data = worlds[0].load(0)
    assert not data.simulated
    low = make_worlds({"ratings": "in/low.csv"} | filters, 0.02)
    with pytest.raises(
        UserError, match=r"in/low\.csv N: all dyads have the label 0 of click: the mappings are made for"
    ):
        require_labels(low)
    high = make_worlds({"ratings": "in/high.csv", "rating_scale": (10.0, 50.0)} | filters, 0.02)
    with pytest.raises(UserError, match="mapping N needs ratings of at most 5, and one is 50; rescale them"):
        require_labels(high)
