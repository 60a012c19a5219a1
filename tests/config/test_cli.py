"""The command line: help, flags by model, settings files and presets."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from functools import partial

import pytest
from conftest import ROOT, refused, run

from config import cli, parts
from config.base import RunConfig
from config.errors import UserError
from config.multitask import MultiTaskConfig
from losses import PAIRWISE_LOSSES
from multitask.task import NEGATIVE_SAMPLERS
from registry import CHOICES, MODELS, make_config
from training.console import run_command

WORLD = ["--dataset", "simulated", "--simulated_size", "60", "80", "2400"]


def parse(*arguments: str) -> cli.Request:
    return cli.parse(arguments, MODELS, CHOICES)


def without_packages(*arguments: str, columns: int = 80) -> subprocess.CompletedProcess:
    """main.py in a Python that sees the standard library alone, as before the requirements are installed."""
    environment = {**os.environ, "COLUMNS": str(columns)}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-S", ROOT / "main.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_help_needs_no_packages_fits_a_screen_and_names_every_model():
    done = without_packages("--help")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 80
    assert all(any(line.startswith(f"  {model} ") for line in lines) for model in MODELS)


def test_the_width_of_the_help_follows_the_terminal():
    narrow, wide = (without_packages("--model", "ple", "--help", columns=width).stdout for width in (70, 140))
    assert len(wide.splitlines()) < len(narrow.splitlines())


@pytest.mark.parametrize("model", MODELS)
def test_the_help_of_a_model_lists_all_its_fields_and_no_others(model, capsys):
    with pytest.raises(SystemExit) as ended:
        parse("--model", model, "--help")
    assert ended.value.code == 0
    text = capsys.readouterr().out
    own = {field.name for field in dataclasses.fields(MODELS[model])}
    everything = {field.name for config in MODELS.values() for field in dataclasses.fields(config)}
    listed = {name for name in everything if f"--{name} " in text or f"--{name}\n" in text}
    assert listed == own


def test_without_the_requirements_one_sentence_says_what_to_install():
    done = without_packages("--epochs", "1")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pip install -r requirements.txt" in done.stderr


FOREIGN = [
    ("dyadic", ["--schedule", "cosine"]),
    ("dyadic", ["--weighting", "gradnorm"]),
    ("dyadic", ["--test_fraction", "0.1"]),
    ("mmoe", ["--tune"]),
    ("mmoe", ["--task_experts", "3"]),
    ("esmm", ["--expert_units", "8"]),
    ("multitask", ["--labels", "view"]),
    ("multitask", ["--no_exclude_self"]),
]


@pytest.mark.parametrize(("model", "flags"), FOREIGN, ids=str)
def test_a_flag_of_another_model_is_rejected_by_name(model, flags):
    with pytest.raises(UserError, match=rf"{flags[0]} does not apply to --model {model}; it is for "):
        parse("--model", model, *flags)


@pytest.mark.parametrize("model", MODELS)
def test_defaults_are_values_of_the_right_type(model):
    config = make_config(model)
    assert parse("--model", model).config == config
    again = cli.check_settings(json.loads(json.dumps(config.to_dict())), "config.json", MODELS, CHOICES)
    assert MODELS[again.pop("model")].from_values(again) == config


def test_every_choice_that_is_listed_elsewhere_is_a_field():
    assert set(CHOICES) <= {field.name for config in MODELS.values() for field in dataclasses.fields(config)}
    assert RunConfig.dataset in CHOICES["dataset"]


def test_choices_of_the_multitask_net_are_those_of_the_tables():
    """config/ cannot read the tables, which need PyTorch: it repeats their names."""
    fields = {field.name: field for field in dataclasses.fields(MultiTaskConfig)}
    losses = fields["ranking_loss"].metadata["option"].choices
    assert losses == (*PAIRWISE_LOSSES, "softmax")
    assert fields["negative_sampling"].metadata["option"].choices == tuple(NEGATIVE_SAMPLERS)


def test_a_preset_names_its_model_and_flags_override_it():
    request = parse("--preset", "ensemble", "--epochs", "3")
    assert (request.config.model, request.config.epochs, request.config.ensemble_size) == ("multitask", 3, 4)
    assert parse("--preset", "paper").config.model == "dyadic"
    assert parse("--preset", "champion").config.model == "closed_form"


def test_a_preset_of_another_model_is_rejected_by_what_does_not_apply():
    with pytest.raises(UserError, match=r"ensemble\.json: .* does not apply to --model mmoe"):
        parse("--preset", "ensemble", "--model", "mmoe")


def test_defaults_may_depend_on_other_flags():
    assert parse("--model", "mmoe", "--feedback", "shown.csv", "--labels", "a,b").config.negatives == 0
    assert parse("--model", "aitm").config.calibrator == 0.6
    assert parse("--model", "aitm", "--labels", "view").config.calibrator == 0


def test_data_flags_that_would_be_ignored_are_rejected():
    for flags, sentence in [
        (["--rating_scale", "1", "5"], "add --ratings FILE"),
        (["--ratings", "a.csv", "--data_dir", "d"], "leave out --ratings"),
        (["--train_ratings", "a", "--test_ratings", "b", "--test_fraction", "0.2"], "does not apply to a ready split"),
        (["--simulated_size", "1", "2", "3"], "add --dataset simulated"),
        (["--columns", "user=customer"], "--columns names the columns of your own files: add --ratings FILE"),
    ]:
        with pytest.raises(UserError, match=sentence):
            parse(*flags)


READY = ["--train_ratings", "a", "--test_ratings", "b"]
OWN = ["--ratings", "a.csv"]
CLICKS = ["--feedback", "f.csv", "--labels", "a,b"]
WRONG_SPLITS = [
    ([*READY, "--split", "time"], "--split does not apply to a ready split: leave it out, or give --ratings"),
    ([*READY, "--fold", "1", "5"], "--fold does not apply to a ready split: leave it out, or give --ratings"),
    ([*READY, "--min_user_ratings", "5"], "--min_user_ratings does not apply to a ready split: leave it out, or give "),
    ([*READY, "--min_item_ratings", "5"], "--min_item_ratings does not apply to a ready split: leave it out, or give "),
    (["--dataset", "simulated", "--split", "leave_last"], "--split does not apply to the simulated set, which has no "),
    (["--split", "leave_last", "--test_fraction", "0.2"], "--test_fraction does not apply to --split leave_last, "),
    (["--split", "time", "--fold", "1", "5"], "--split does not apply to --fold, whose parts are random: leave out "),
    (
        ["--fold", "1", "5", "--test_fraction", "0.2"],
        "--test_fraction does not apply to --fold, which tests on one of ",
    ),
    (["--fold", "6", "5"], "--fold takes K and N, with K from 1 to N and N at least 2, not 6 5"),
    (["--fold", "1", "1"], "--fold takes K and N, with K from 1 to N and N at least 2, not 1 1"),
    (["--fold", "0", "5"], "--fold must be at least 1 and at most 1000, not 0"),
    (["--split", "newest"], "argument --split: invalid choice: 'newest'"),
]


@pytest.mark.parametrize("model", ["multitask", "mmoe"])
@pytest.mark.parametrize(("flags", "sentence"), WRONG_SPLITS)
def test_splits_that_contradict_other_flags_are_rejected(model, flags, sentence):
    with pytest.raises(UserError, match=f"^{re.escape(sentence)}"):
        parse("--model", model, *flags)


WRONG_COLUMNS = [
    ("multitask", [*OWN, "--columns", "usr=customer"], "the roles user, item, rating, time, not 'usr=customer'"),
    ("multitask", [*OWN, "--columns", "user=a,user=b"], "--columns takes ROLE=NAME,ROLE=NAME with different names"),
    ("multitask", [*OWN, "--columns", "user=a,item=a"], "--columns takes ROLE=NAME,ROLE=NAME with different names"),
    ("multitask", [*OWN, "--columns", "user"], "--columns takes ROLE=NAME,ROLE=NAME with different names"),
    ("multitask", [*OWN, "--columns", ""], "--columns takes ROLE=NAME,ROLE=NAME with different names"),
    (
        "mmoe",
        [*CLICKS, "--columns", "rating=stars"],
        "rating=NAME does not apply to --feedback, whose columns --labels",
    ),
    (
        "dyadic",
        ["--feedback", "f.csv", "--columns", "time=when"],
        "does not apply to --feedback of dyads: --time names",
    ),
]


@pytest.mark.parametrize(("model", "flags", "sentence"), WRONG_COLUMNS)
def test_wrong_names_of_columns_are_rejected(model, flags, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        parse("--model", model, *flags)


def test_columns_are_a_role_and_a_name_each():
    config = parse(*OWN, "--columns", "user=customer id, item=a=b,time=when").config
    assert config.column_names == {"user": "customer id", "item": "a=b", "time": "when"}


def test_resuming_with_spent_patience_says_what_would_go_on(elsewhere, capsys):
    flags = [*WORLD, "--val_fraction", 0.1, "--patience", 1, "--monitor", "mse", "--lr", 0.05, "--logdir", "early"]
    assert run(*flags, "--epochs", 30) == 0
    assert "stopped early" in capsys.readouterr().out
    assert run("--resume", "early", "--epochs", 40) == 0
    said = capsys.readouterr().out
    assert "nothing was trained: val_mse has not improved since epoch" in said
    words = said[said.index("--resume early --patience ") :].split()
    before = len((elsewhere / "early/metrics.csv").read_text().splitlines())
    assert run("--resume", "early", "--patience", words[3], "--epochs", 40) == 0
    assert len((elsewhere / "early/metrics.csv").read_text().splitlines()) > before


def test_a_config_of_another_format_is_rejected(elsewhere, capsys):
    assert run(*WORLD, "--epochs", 1, "--logdir", "old") == 0
    path = elsewhere / "old/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    capsys.readouterr()
    assert "has the format 99" in refused(capsys, "--resume", "old")
    assert "has the format 99" in refused(capsys, "--recommend", "1", "--logdir", "old")


def test_the_newest_run_is_one_of_this_program(elsewhere, capsys):
    assert run(*WORLD, "--epochs", 1, "--logdir", "run/mine") == 0
    (elsewhere / "run/other").mkdir()
    (elsewhere / "run/other/last.pt").write_bytes(b"newer, and of somebody's own loop")
    (elsewhere / "run/other/config.json").write_text('{"settings": {}, "data": {}}')
    assert run("--recommend", 1) == 0
    assert "run/mine" in capsys.readouterr().out


def test_without_a_learning_rate_the_advice_is_about_the_ratings():
    assert make_config("closed_form").divergence_advice == "check the ratings for extreme values"
    for model in ("multitask", "mmoe", "dyadic"):
        assert make_config(model, lr=0.7).divergence_advice == "lower --lr (now 0.7)"


HERE = {"multitask": MODELS["multitask"]}  # the models of a copy for students


def test_a_model_that_this_copy_lacks_is_told_as_that(tmp_path):
    (tmp_path / "a.json").write_text('{"model": "ple"}')
    sentence = "this copy of the project has no --model ple: it needs the full project"
    for flags in (["--model", "ple"], ["--config", str(tmp_path / "a.json")]):
        with pytest.raises(UserError, match=sentence):
            cli.parse(flags, HERE, CHOICES)
    with pytest.raises(UserError, match=r"champion\.json: this copy of the project has no --model closed_form"):
        cli.parse(["--preset", "champion"], HERE, CHOICES)
    with pytest.raises(UserError, match="invalid choice: 'pel'"):
        cli.parse(["--model", "pel"], HERE, CHOICES)


def test_presets_of_models_that_this_copy_lacks_are_not_listed(capsys):
    assert cli.preset_names(HERE) == ["ensemble"]
    assert set(cli.preset_names(None)) == {path.stem for path in cli.PRESETS.glob("*.json")}
    with pytest.raises(UserError, match=r"choose one of ensemble$"):
        cli.parse(["--preset", "none"], HERE, CHOICES)
    with pytest.raises(SystemExit):
        cli.parse(["--help"], HERE, CHOICES)
    assert "settings by name: ensemble\n" in capsys.readouterr().out


def test_a_missing_part_of_the_project_is_not_called_a_missing_package(capsys):
    def work(name):
        raise ModuleNotFoundError(name=name)

    for name, sentence in [
        ("analysis.runner", "this copy of the project has no analysis.runner: it needs the full project"),
        ("pandas", "the package pandas is missing: run pip install -r requirements.txt"),
    ]:
        assert run_command("main.py", partial(work, name)) == 2
        assert capsys.readouterr().err == f"main.py: error: {sentence}\n"


def test_the_folders_of_the_project_are_listed():
    assert set(parts.ROOMS) == {path.parent.name for path in ROOT.glob("*/__init__.py")}
