"""A checkpoint that somebody has edited, or that holds nan, ends in one sentence that names the file and the entry."""

import math
import os
import shutil
from pathlib import Path

import pytest
import torch
from conftest import refused, run

WORLD = ["--dataset", "simulated", "--simulated_size", "30", "40", "600", "--epochs", 2]
NAN = torch.tensor(math.nan)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.parent)
        patch.delenv("MOVIELENS_DIR", raising=False)
        assert run(*WORLD, "--quiet", "--weighting", "gradnorm", "--steps", "autograd", "--logdir", folder) == 0
    return folder


@pytest.fixture
def copy(elsewhere, finished, capsys) -> Path:
    shutil.copytree(finished, "run/a")
    capsys.readouterr()
    return Path("run/a")


def edit(path: Path, change) -> None:
    state = torch.load(path, weights_only=True)
    torch.save(change(state) or state, path)


def put(*keys_and_value):
    """A change that sets state[key][key].. to a value."""
    *keys, last, value = keys_and_value

    def change(state):
        for key in keys:
            state = state[key]
        state[last] = value

    return change


def drop(*keys):
    *keys, last = keys

    def change(state):
        for key in keys:
            state = state[key]
        del state[last]

    return change


MOMENT = ("optimizer", "state", 0)
GROUP = ("optimizer", "param_groups", 0)
EDITS = {
    "a list": (lambda state: [state], "is damaged"),
    "no history": (drop("history"), "'history'"),
    "history of another type": (put("history", 3), "its history is no list of rows"),
    "a row without a column": (drop("history", 1, "test_mrr"), "row 2 of its history has other columns"),
    "a row with a column more": (put("history", 1, "more", 1.0), "row 2 of its history has other columns"),
    "text in a row": (put("history", 1, "test_mrr", "good"), "no number in the column 'test_mrr'"),
    "a truth value in a row": (put("history", 1, "test_mrr", True), "no number in the column 'test_mrr'"),
    "no model": (drop("model"), "'model'"),
    "a model of another type": (put("model", [1]), "model is no dict"),
    "a parameter of another type": (put("model", "U.weight", 1.0), "model, entry 'U.weight' is no tensor"),
    "a parameter of integers": (put("model", "B.weight", torch.ones(40, 1).int()), "'B.weight' has the type torch.int"),
    "a parameter of another shape": (put("model", "B.weight", torch.ones(40)), "'B.weight' has the shape (40,)"),
    "a parameter missing": (drop("model", "U.weight"), "model lacks the entry 'U.weight'"),
    "a parameter more": (put("model", "V", torch.ones(1)), "model has the entry 'V'"),
    "nan in a parameter": (put("model", "B.weight", torch.full((40, 1), math.nan)), "not finite (model, entry 'B.w"),
    "no optimizer": (drop("optimizer"), "lacks the entry 'optimizer'"),
    "an optimizer of another type": (put("optimizer", None), "optimizer is no dict"),
    "an optimizer without groups": (put("optimizer", "param_groups", []), "'param_groups' is no list of 1"),
    "a group without a setting": (drop(*GROUP, "betas"), "param_groups 0 lacks the entry 'betas'"),
    "a setting of another type": (put(*GROUP, "lr", "fast"), "param_groups 0, lr is 'fast'"),
    "a setting that is nan": (put(*GROUP, "lr", math.nan), "not finite (optimizer, param_groups 0, lr)"),
    "other parameters": (put(*GROUP, "params", [5]), "param_groups 0, params is [5]"),
    "a state of no parameter": (put("optimizer", "state", 99, {}), "state of parameter 99 belongs to no parameter"),
    "a moment missing": (drop(*MOMENT, "exp_avg"), "state of parameter 0 lacks the entry 'exp_avg'"),
    "a moment of another shape": (put(*MOMENT, "exp_avg", torch.ones(2)), "exp_avg has the shape (2,)"),
    "a moment of another type": (put(*MOMENT, "step", 3), "state of parameter 0, step is no tensor"),
    "a moment that is nan": (put(*MOMENT, "step", NAN), "not finite (optimizer, state of parameter 0, step)"),
    "a weighting of another shape": (put("weighting", "w", torch.ones(3)), "weighting, entry 'w' has the shape (3,)"),
    "an entry more": (put("more", {}), "does not know its entry 'more'"),
}


@pytest.mark.parametrize("case", EDITS)
def test_an_edited_checkpoint_is_refused_by_file_and_entry(copy, capsys, case):
    change, complaint = EDITS[case]
    edit(copy / "last.pt", change)
    before = (copy / "last.pt").read_bytes()
    message = refused(capsys, "--resume", copy, "--epochs", 3)
    assert "run/a/last.pt" in message
    assert complaint in message
    assert "--lr" not in message
    assert (copy / "last.pt").read_bytes() == before


def test_a_history_of_another_run_is_refused(copy, capsys):
    def change(state):
        for row in state["history"]:
            del row["test_mrr"]

    edit(copy / "last.pt", change)
    assert "lacks the column test_mrr" in refused(capsys, "--resume", copy, "--epochs", 3)


def test_who_asks_a_run_of_nan_gets_a_sentence_and_code_2(copy, capsys):
    edit(copy / "last.pt", put("model", "U.weight", torch.full((30, 32), math.nan)))
    Path("pairs.csv").write_text("user,item\n1,1\n")
    Path("new.csv").write_text("user,item,rating\nnew,1,3\n")
    for question in (["--recommend", 1], ["--predict", "pairs.csv"], ["--for", "new.csv"]):
        message = refused(capsys, *question, "--logdir", copy)
        assert "run/a/last.pt holds values that are not finite (model, entry 'U.weight')" in message
    message = refused(capsys, *WORLD, "--start_from", copy, "--logdir", "run/b")
    assert "run/a/last.pt holds values that are not finite (model, entry 'U.weight')" in message
    assert not Path("run/b").exists()


@pytest.mark.parametrize("name", ["last.pt", "data.npz"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(copy, capsys, name):
    (copy / name).unlink()
    os.mkfifo(copy / name)
    assert f"run/a/{name} is no regular file" in refused(capsys, "--recommend", 1, "--logdir", copy)


def test_finished_epochs_without_a_checkpoint_are_found_in_any_encoding(copy, capsys):
    (copy / "last.pt").unlink()
    (copy / "metrics.csv").write_bytes(b"epoch,\xff\xfe\n1,0.5\n")
    assert "metrics.csv has finished epochs" in refused(capsys, "--resume", copy)


@pytest.mark.parametrize("name", ["config.json", "data.npz", "metrics.csv", "result.json", "last.pt"])
def test_a_link_in_a_run_folder_is_replaced_and_not_followed(copy, name):
    """So that what it leads to is not overwritten."""
    Path("elsewhere").mkdir()
    shutil.copy(copy / name, Path("elsewhere") / name)
    before = (Path("elsewhere") / name).read_bytes()
    (copy / name).unlink()
    (copy / name).symlink_to(Path("elsewhere").resolve() / name)
    (copy / f".{name}.part").symlink_to(Path("elsewhere").resolve() / "part")
    assert run("--resume", copy, "--epochs", 3) == 0
    assert {path.name: path.read_bytes() for path in Path("elsewhere").iterdir()} == {name: before}
    assert name == "data.npz" or not (copy / name).is_symlink()  # the data are read alone


@pytest.mark.parametrize("name", ["projector_config.pbtxt", "00003", "events.out.tfevents.1"])
def test_a_link_that_tensorboard_would_follow_is_refused(copy, capsys, name):
    Path("elsewhere").mkdir()
    (copy / name).unlink(missing_ok=True)
    (copy / name).symlink_to(Path("elsewhere").resolve())
    assert f"run/a/{name} is a link" in refused(capsys, "--resume", copy, "--epochs", 3)
    assert not list(Path("elsewhere").iterdir())
