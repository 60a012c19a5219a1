"""The search for settings: its draws, its log and its choice, none of which read a test part."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pandas as pd
import pytest
import torch
from study_runs import train_here

import experiments
from analysis import configuration, search
from analysis.results import CURVES
from analysis.samplers import RandomSampler, TPESampler, make_sampler
from analysis.search import Trials
from analysis.spaces import SPACES, Space
from config.cli import config_of
from config.errors import UserError
from config.multitask import ClosedFormConfig, MultiTaskConfig
from dataset import load
from multitask import baselines, decisions
from registry import CHOICES, MODELS, make_config
from training.console import silent

TINY = {"dataset": "simulated", "simulated_size": (60, 80, 2400)}
ENSEMBLE = SPACES["ensemble"]


class Small(Space):
    """A space with quick trials."""

    model = "closed_form"
    common: ClassVar = {"ridge": 50.0, "ranking_dim": 8, "genres": "off", "rating_fits": 1, "num_features": 2}
    choices: ClassVar = {"ranking": ("ease",), "rating_dim": (2, 3, 12), "epochs": (1, 2)}


def trials_of(space: Space, folder: Path, **data) -> Trials:
    return Trials(space, data or TINY, seeds=2, root=folder / "runs", jobs=1, log=silent)


def drawn(space: Space, count: int) -> list[dict]:
    """The settings of the starts and of random draws."""
    sampler, draws = RandomSampler(space), list(space.starts[:count])
    while len(draws) < count:
        draws += sampler.ask(lambda draw: space.config(space.settings(draw)), to_configs(space, draws))
    return [space.settings(draw) for draw in draws[:count]]


def to_configs(space: Space, draws) -> set:
    return {space.config(space.settings(draw)) for draw in draws}


@pytest.fixture
def quick_runs(monkeypatch):
    monkeypatch.setattr(search, "run_all", train_here)


@pytest.mark.parametrize("name", SPACES)
class TestSpace:
    def test_draws_are_distinct_reproducible_and_valid(self, name):
        settings = drawn(SPACES[name], 60)
        assert settings == drawn(SPACES[name], 60)
        assert drawn(SPACES[name], 7) == settings[:7]
        assert len({SPACES[name].config(one) for one in settings}) == 60

    def test_draws_cover_the_space(self, name):
        space = SPACES[name]
        draws = RandomSampler(space)
        draws.batch = 200
        found = draws.ask(lambda draw: space.config(space.settings(draw)), set())
        for option, values in space.choices.items():
            assert {draw[option] for draw in found} == set(values)

    def test_every_effect_of_every_draw_is_valid(self, name):
        space = SPACES[name]
        for draw in RandomSampler(space).ask(lambda draw: space.config(space.settings(draw)), set()):
            effects = space.effects(draw)
            assert space.config(effects["nothing"]) == space.config(space.settings(draw))
            for settings in effects.values():
                space.config(settings)


def test_the_first_trial_of_a_space_is_the_default():
    assert SPACES["champion"].config(drawn(SPACES["champion"], 1)[0]) == ClosedFormConfig()
    assert SPACES["homework"].config(drawn(SPACES["homework"], 1)[0]) == MultiTaskConfig()


def test_the_trials_behind_the_preset_are_those_of_its_log():
    log = pd.read_csv(configuration.__file__.replace("analysis/configuration.py", "config/presets/ensemble_trials.csv"))
    for settings, (_, line) in zip(drawn(ENSEMBLE, 8), log.sort_values("trial").iterrows(), strict=True):
        assert {name: settings[name] for name in ENSEMBLE.shown[:-1]} == line[list(ENSEMBLE.shown[:-1])].to_dict()
        assert settings["layer_sizes"] == (3 * settings["embedding_dim"],) == (line["layer_sizes"],)


def write_run(folder: Path, row: str, seed: int, mrr: float, mse: float) -> dict:
    """The result of a run with these validation metrics at its last epoch, and better ones at its first."""
    folder.mkdir()
    columns = {key: [0.5, 0.5] for key in CURVES} | {"val_mrr": [0.9, mrr], "val_mse": [0.1, mse]}
    columns |= {"epoch": [1, 2], "test_mrr": [0.9, 1 - mrr]}
    pd.DataFrame(columns).to_csv(folder / "metrics.csv", index=False)
    return {"row": row, "seed": seed, "folder": str(folder)}


def test_the_log_holds_means_of_the_last_epochs_on_validation(tmp_path, monkeypatch):
    monkeypatch.setattr(type(ENSEMBLE), "to_beat", (0.10, 0.61))
    numbers = [("1", 0, 0.10, 1.0), ("1", 1, 0.20, 1.0), ("2", 0, 0.11, 0.5), ("2", 1, 0.13, 0.7)]
    measured = search.read_last_epochs([write_run(tmp_path / f"{one[0]}-{one[1]}", *one) for one in numbers])
    trials = trials_of(ENSEMBLE, tmp_path)
    first, second = (
        search.describe(trials, settings, measured.loc[row], (0.12, 0.8))
        for settings, row in zip(drawn(ENSEMBLE, 2), ("1", "2"), strict=True)
    )
    assert (first["val_mrr"], first["lead"], first["seeds"]) == (0.15, -0.39, 2)
    assert (second["val_mrr"], second["val_mse"], second["lead"]) == (0.12, 0.6, 0.01)
    assert (second["mrr_lead"], second["mse_lead"]) == (0.0, 0.2)
    assert first["val_mrr_sd"] == round((2 * 0.05**2) ** 0.5, 5)
    assert not any("test" in name for name in first)
    champion = trials_of(SPACES["champion"], tmp_path)
    assert search.describe(champion, {}, measured.loc["2"], (0.10, 0.8))["lead"] == pytest.approx(0.2 + 0.25)


def test_each_option_is_left_out_alone():
    draw = ENSEMBLE.starts[0] | {"user_weight_exponent": 0.0}
    chosen = ENSEMBLE.common | ENSEMBLE.settings(draw)
    effects = ENSEMBLE.effects(draw)
    assert effects.pop("nothing") == chosen
    one = {"ensemble_size": 1, "num_item_based": 0, "embedding_dim": 256, "layer_sizes": (768,)}
    assert effects.pop("ensemble_size") == chosen | one
    assert effects.pop("shared_embeddings") == chosen | {"shared_embeddings": False, "num_item_based": 0}
    assert list(effects) == ["schedule", "init_rating_bias", "embedding_decay", "num_item_based"]
    for name, settings in effects.items():
        assert settings == chosen | {name: getattr(MultiTaskConfig, name)}


def test_an_effect_keeps_the_rest_of_the_settings_and_idle_ones_have_none():
    draw = {"ranking": "networks", "ridge": 120.0, "rating_dim": 8, "epochs": 12}
    effects = SPACES["champion"].effects(draw)
    assert effects["ranking"] == {"ridge": 120.0, "rating_dim": 8, "epochs": 12}
    assert set(effects) == {"nothing", "ranking", "ridge", "rating_dim", "epochs"}
    without = search.without_each(trials_of(SPACES["champion"], Path()), draw)
    assert set(without) == {"nothing", "ranking", "ridge", "rating_dim"}  # 12 epochs are the default
    effects = SPACES["homework"].effects({"regression_weight": 0.5, "ranking_loss": "softmax", "negatives": 4})
    assert effects["nothing"] == {"regression_weight": 0.5, "ranking_loss": "softmax", "factorization_weight": 0.5}
    assert effects["regression_weight"] == {"ranking_loss": "softmax"}
    assert effects["ranking_loss"] == {"regression_weight": 0.5, "factorization_weight": 0.5}


def test_the_baselines_are_fitted_to_the_rows_of_the_trials_and_measured_on_validation(monkeypatch):
    config = make_config("closed_form", **TINY, val_fraction=0.1)
    data = load(**config.data_options)
    found = search.measure_baselines([config])
    guess = data.train.ratings.mean()
    by_hand = (data.validation.ratings - guess).square().mean().item()
    assert found["popularity"]["val_mse"].item() == pytest.approx(by_hand)
    ranking = baselines.Popularity(data.train).metrics(data.validation, data.train)["mrr"]
    assert found["popularity"]["val_mrr"].item() == ranking
    assert search.bounds(found)[0] == found[baselines.EASE_NAME]["val_mrr"].item()
    monkeypatch.setattr(baselines, "MAX_EASE_ITEMS", 10)
    without = search.measure_baselines([config])
    assert search.bounds(without) == (ranking, found["user + item biases"]["val_mse"].item())


def write_ratings(path: Path, change=lambda rows: rows) -> Path:
    """A file of the ratings of a small world; `change` may replace its rows."""
    data = load(**TINY)
    rows = data.seen + data.test
    table = {"user": data.users[rows.user_ids], "item": data.items[rows.item_ids], "rating": rows.ratings.numpy()}
    change(pd.DataFrame(table)).to_csv(path, index=False)
    return path


def test_the_test_part_has_no_influence(tmp_path, quick_runs, monkeypatch):
    monkeypatch.setattr(decisions, "TRIAL_SWEEPS", 2)
    path, trained = tmp_path / "own.csv", []

    def reverse_test_ratings(rows):
        test = load(ratings=str(path)).test
        data = load(ratings=str(path))
        tested = set(zip(data.users[test.user_ids], data.items[test.item_ids], strict=True))
        is_test = [pair in tested for pair in zip(rows["user"], rows["item"], strict=True)]
        return rows.assign(rating=rows["rating"].where(~pd.Series(is_test), 6 - rows["rating"]))

    found = []
    for number, change in enumerate((lambda rows: rows, reverse_test_ratings)):
        write_ratings(path, change)
        trained.append(load(ratings=str(path)))
        folder = tmp_path / f"found-{number}"
        trials = Trials(Small(), {"ratings": str(path)}, 1, folder / "runs", 1, silent)
        found.append([file.read_bytes() for file in search.run(trials, RandomSampler(Small()), 3, folder)])
    first, second = trained
    assert torch.equal(first.train.ratings, second.train.ratings)
    assert not torch.equal(first.test.ratings, second.test.ratings)
    assert len(list((tmp_path / "found-1" / "runs").iterdir())) == len(list((tmp_path / "found-0" / "runs").iterdir()))
    assert found[0] == found[1]


def test_the_best_is_never_worse_than_the_defaults_and_runs_again(tmp_path, quick_runs):
    trials = trials_of(Small(), tmp_path)
    table, log, effects, best = search.run(trials, RandomSampler(Small()), 4, tmp_path)
    lines = pd.read_csv(log)
    assert list(lines["lead"]) == sorted(lines["lead"], reverse=True)
    default = lines[lines["trial"] == 1].iloc[0]
    assert (default["ranking"], default["rating_dim"], default["epochs"]) == ("auto", 12, 12)
    assert lines["lead"].iloc[0] >= default["lead"]
    assert pd.read_csv(effects)["without"].iloc[0] == "nothing"
    config = config_of(json.loads(best.read_text()), "best.json", MODELS, CHOICES)
    assert config.val_fraction == 0
    assert [getattr(config, name) for name in Small.choices] == list(lines[list(Small.choices)].iloc[0])
    assert (config.dataset, config.simulated_size) == ("simulated", (60, 80, 2400))
    text = table.read_text()
    assert "SIMULATED DATA" in text
    assert "| *EASE, lambda 200* | " in text
    assert ", the first |" in text


def test_own_data_are_named_and_not_labeled_as_simulated(tmp_path, quick_runs, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_ratings(tmp_path / "own.csv")
    paths = search.run(trials_of(Small(), tmp_path, ratings="own.csv"), RandomSampler(Small()), 1, tmp_path)
    assert paths[0].read_text().startswith("own.csv: --model closed_form, 1 trial (random draws), 2 seeds, ")
    assert "SIMULATED" not in paths[0].read_text()
    assert json.loads(paths[3].read_text())["ratings"] == str(tmp_path / "own.csv")


def test_a_space_without_further_settings_ends_the_search(tmp_path, quick_runs):
    trials = replace(trials_of(Small(), tmp_path), seeds=1)
    _, lines = search.find(trials, RandomSampler(Small()), 50, (0.1, 1.0))
    assert len(lines) == 7  # the defaults and 3 * 2 draws


class Known(Space):
    """A space whose leads are known: the best is rating_dim 64 with 1 feature."""

    model = "closed_form"
    choices: ClassVar = {
        "rating_dim": tuple(range(1, 65)),
        "num_features": tuple(range(1, 65)),
        "genres": ("off", "on"),
    }


def search_known(sampler, count: int) -> list[float]:
    """The leads of the trials of a search in `Known`, in their order."""
    space, leads, known = Known(), [], set()
    while len(leads) < count:
        for draw in sampler.ask(lambda draw: space.config(draw), known):
            known.add(space.config(draw))
            leads.append(draw["rating_dim"] - draw["num_features"] + (draw["genres"] == "on"))
            sampler.tell(draw, space.config(draw), leads[-1])
    assert len(known) == len(leads)
    return leads[:count]


def test_tpe_draws_the_same_again_and_learns_from_the_leads():
    optuna = pytest.importorskip("optuna")
    leads = search_known(TPESampler(Known(), optuna), 60)
    assert leads == search_known(TPESampler(Known(), optuna), 60)
    assert sum(leads[30:]) / 30 > sum(leads[:10]) / 10 + 10
    assert max(leads) > max(search_known(RandomSampler(Known()), 60))


def test_tpe_ends_with_the_space(tmp_path, quick_runs):
    optuna = pytest.importorskip("optuna")
    trials = replace(trials_of(Small(), tmp_path), seeds=1)
    _, lines = search.find(trials, TPESampler(Small(), optuna), 50, (0.1, 1.0))
    assert len(lines) == 7


def test_which_sampler_is_used(monkeypatch):
    lines = []
    monkeypatch.setattr("analysis.samplers._find_optuna", lambda: None)
    assert isinstance(make_sampler(Known(), "auto", lines.append), RandomSampler)
    assert lines == ["settings are chosen by random draws (TPE finds more: pip install -r analysis/requirements.txt)"]
    with pytest.raises(UserError, match=r"--sampler tpe needs Optuna: pip install -r analysis/requirements\.txt, or"):
        make_sampler(Known(), "tpe", lines.append)
    with pytest.raises(UserError, match="leave out --sampler tpe"):
        make_sampler(ENSEMBLE, "tpe", lines.append)
    assert isinstance(make_sampler(ENSEMBLE, "auto", lines.append), RandomSampler)


@pytest.mark.slow
def test_a_search_writes_its_log_and_a_file_that_main_reads(elsewhere, monkeypatch):
    monkeypatch.setitem(configuration.QUICK, "epochs", 1)
    monkeypatch.setitem(configuration.QUICK, "simulated_size", (60, 80, 2400))
    arguments = ["search", "--space", "ensemble", "--quick", "--trials", "1", "--seeds", "1", "--folder", "found"]
    assert experiments.main(arguments) == 0
    with (elsewhere / "found" / "trials.csv").open() as file:
        (line,) = csv.DictReader(file)
    with (elsewhere / "found" / "effects.csv").open() as file:
        nothing, *others = csv.DictReader(file)
    assert nothing["without"] == "nothing"
    assert nothing["val_mrr"] == line["val_mrr"]
    assert len(others) >= 4
    chosen = json.loads((elsewhere / "found" / "best.json").read_text())
    config = config_of(chosen, "best.json", MODELS, CHOICES)
    assert config.embedding_dim == int(line["embedding_dim"])
    assert config.ranking_loss == "softmax"
