"""What --model closed_form decides and from which rows, and that a resumed fit goes on as if never interrupted."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import dataset
from config.errors import UserError
from config.multitask import ClosedFormConfig
from dataset import Data, Interactions
from multitask import decisions
from multitask.bayesian import mixture_std
from multitask.closed_form_recipe import NETWORKS, RECIPE, network_epochs
from multitask.decisions import FEW_ROWS_RIDGE, FEW_ROWS_WIDTH, cut_validation, decide
from training.console import silent
from training.loop import fit
from training.run_folder import RunFolder

CPU = torch.device("cpu")
SMALL = {"epochs": 3, "rating_dim": 3, "rating_fits": 2, "num_features": 2, "quiet": True, "device": "cpu"}


def world(num_users: int = 40, num_items: int = 60, num_ratings: int = 1200) -> Data:
    return dataset.load("simulated", simulated_size=(num_users, num_items, num_ratings))


def random_world(num_users: int, num_items: int, num_ratings: int) -> Data:
    """Random pairs and ratings, all of them in train but for four test rows."""
    random = torch.Generator().manual_seed(0)
    pairs = torch.randperm(num_users * num_items, generator=random)[: num_ratings + 4]
    ratings = torch.randint(1, 6, (len(pairs),), generator=random).float()
    rows = Interactions(pairs // num_items, pairs % num_items, ratings, num_users, num_items)
    users, items = np.arange(num_users).astype(str), np.arange(num_items).astype(str)
    titles, genres = list(items), [""] * num_items
    return Data("random", users, items, titles, genres, (1.0, 5.0), rows[4:], rows[:4])


def small_config(**values) -> ClosedFormConfig:
    return ClosedFormConfig(**SMALL | values)


def shuffled(part: Interactions) -> Interactions:
    """The same users with the items and the ratings of other rows."""
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(1))
    back = order.flip(0)
    return replace(part, item_ids=part.item_ids[order], ratings=part.ratings[back])


def fitted(config: ClosedFormConfig, data: Data) -> dict[str, torch.Tensor]:
    """The weights after all epochs."""
    training = RECIPE.build(config, data, CPU)
    stepper = training.make_stepper(training.model, training.task, config, CPU)
    for epoch in range(1, config.epochs + 1):
        stepper.run_epoch(epoch, [], lambda: False)
    return training.model.state_dict()


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


# decisions


@pytest.mark.parametrize("ranking", ["ease", "networks"])
def test_the_test_part_has_no_influence(ranking, monkeypatch):
    monkeypatch.setattr(decisions, "TRIAL_SWEEPS", 2)
    data = world()
    other = replace(data, test=shuffled(data.test))
    assert not torch.equal(other.test.item_ids, data.test.item_ids)
    lines: dict[str, list[str]] = {"data": [], "other": []}
    chosen = decide(small_config(ranking=ranking), data, lines["data"].append)
    assert decide(small_config(ranking=ranking), other, lines["other"].append) == chosen
    assert lines["data"] == lines["other"]
    assert_equal(fitted(chosen, data), fitted(chosen, other))


@pytest.mark.parametrize("ranking", ["ease", "networks"])
def test_a_validation_part_has_no_influence_and_is_not_the_one_to_decide_on(ranking, monkeypatch):
    monkeypatch.setattr(decisions, "TRIAL_SWEEPS", 2)
    config = small_config(ranking=ranking, dataset="simulated", simulated_size=(40, 60, 1200), val_fraction=0.1)
    data = RECIPE.load_data(config)
    parts = cut_validation(data, config.seed)
    assert len(data.validation) == 114
    assert not np.isin(parts.held_out.pair_keys, data.validation.pair_keys).any()
    assert np.isin(parts.held_out.pair_keys, data.train.pair_keys).all()
    other = replace(data, validation=shuffled(data.validation))
    chosen = decide(config, data, silent)
    assert decide(config, other, silent) == chosen
    assert_equal(fitted(chosen, data), fitted(chosen, other))


def test_a_validation_part_is_measured_and_chooses_no_epoch(tmp_path):
    values = {"ranking": "ease", "ridge": 50.0, "ranking_dim": 8, "genres": "off", "val_fraction": 0.1}
    config = small_config(**values, dataset="simulated", simulated_size=(40, 60, 1200))
    data = RECIPE.load_data(config)
    training = RECIPE.build(config, data, CPU)
    run = RunFolder.new(tmp_path / "run")
    run.write_config({"settings": {}, "data": {}})
    outcome = fit(training, config, run, CPU, silent)
    assert outcome.best_epoch is None
    assert not run.has("best")
    measured = training.task.metrics(training.model, "val")
    assert outcome.history[-1]["val_mse"] == measured["mse"] != outcome.history[0]["val_mse"]


def test_every_decision_is_logged_and_made_once(monkeypatch):
    monkeypatch.setattr(decisions, "TRIAL_SWEEPS", 2)
    lines: list[str] = []
    chosen = decide(small_config(), world(), lines.append)
    assert [line.split()[1] for line in lines] == ["--ridge", "--ranking", "--genres"]
    assert "--ranking_dim" in lines[0]
    assert all(line.startswith("decided: ") for line in lines)
    assert chosen.ranking in ("ease", "networks")
    assert chosen.ridge > 0 < chosen.ranking_dim
    assert chosen.genres in ("on", "off")
    lines.clear()
    assert decide(chosen, world(), lines.append) == chosen
    assert lines == []


def test_given_values_are_kept(monkeypatch):
    monkeypatch.setattr(decisions, "TRIAL_SWEEPS", 2)
    given = {"ranking": "ease", "ridge": 7.0, "ranking_dim": 9, "genres": "off"}
    assert decide(small_config(**given), world(), silent) == small_config(**given)
    chosen = decide(small_config(ridge=7.0), world(), silent)
    assert chosen.ridge == 7.0


@pytest.mark.parametrize(
    ("size", "ranking"),
    [
        ((40, 70, 2399), "ease"),  # 59.98 a user, 34 an item
        ((40, 70, 2400), "networks"),  # 60 and 34
        ((40, 80, 2400), "networks"),  # 60 and 30
        ((60, 70, 2400), "ease"),  # users have too few
        ((20, 90, 1600), "ease"),  # items have too few
    ],
)
def test_networks_rank_dense_data(size, ranking, monkeypatch):
    monkeypatch.setattr(decisions, "gain_over_popularity", lambda *_: (0.1, 0.01))
    given = {"ridge": 1.0, "ranking_dim": 4, "genres": "off"}
    assert decide(small_config(**given), random_world(*size), silent).ranking == ranking


@pytest.mark.parametrize(("gain", "ranking"), [(0.019, "popularity"), (0.021, "ease")])
def test_popularity_ranks_unless_ease_is_better_by_more_than_noise(gain, ranking, monkeypatch):
    monkeypatch.setattr(decisions, "gain_over_popularity", lambda *_: (gain, 0.01))
    lines: list[str] = []
    given = {"ridge": 1.0, "ranking_dim": 4, "genres": "off"}
    assert decide(small_config(**given), random_world(60, 70, 1000), lines.append).ranking == ranking
    assert f"{gain:.4f} ± 0.0100 above popularity" in lines[0]


def test_one_user_to_validate_on_is_no_proof(monkeypatch):
    monkeypatch.setattr(decisions, "gain_over_popularity", lambda *_: (0.5, float("nan")))
    given = {"ridge": 1.0, "ranking_dim": 4, "genres": "off"}
    assert decide(small_config(**given), random_world(60, 70, 1000), silent).ranking == "popularity"


def test_popularity_ranks_by_the_number_of_ratings_and_keeps_the_rating_block():
    given = {"ridge": 20.0, "ranking_dim": 6, "genres": "off"}
    data = world()
    popular, ease = (
        RECIPE.build(small_config(ranking=ranking, **given), data, CPU) for ranking in ("popularity", "ease")
    )
    for training, ranking in ((popular, "popularity"), (ease, "ease")):
        config = small_config(ranking=ranking, **given)
        training.make_stepper(training.model, training.task, config, CPU).run_epoch(1, [], lambda: False)
    users, items = torch.cartesian_prod(torch.arange(40), torch.arange(60)).T
    scores, ratings = popular.model(users, items)
    counts = data.train.item_counts.float()
    assert (scores - counts[items]).abs().max() < 0.01
    torch.testing.assert_close(ratings, ease.model(users, items)[1])


def test_data_without_a_validation_part_get_fixed_values():
    data = random_world(4, 6, 8)
    lines: list[str] = []
    chosen = decide(small_config(), data, lines.append)
    assert (chosen.ridge, chosen.ranking_dim, chosen.genres) == (FEW_ROWS_RIDGE, FEW_ROWS_WIDTH, "off")
    assert chosen.ranking == "popularity"
    assert "too few" in lines[-1]
    assert all(value.isfinite().all() for value in fitted(chosen, data).values())


def test_a_validation_part_is_cut_out_of_train():
    data = world()
    parts = cut_validation(data, seed=0)
    together = torch.cat(
        [torch.stack([part.user_ids, part.item_ids], dim=1).long() for part in (parts.fitted, parts.held_out)]
    )
    whole = torch.stack([data.train.user_ids, data.train.item_ids], dim=1).long()
    assert sorted(together.tolist()) == sorted(whole.tolist())
    assert len(parts.held_out) == round(len(whole) * decisions.VALIDATION_FRACTION)


def test_too_many_users_and_items_are_rejected():
    data = replace(world(), users=np.arange(20_000).astype(str), items=np.arange(10_000).astype(str))
    with pytest.raises(UserError, match="take --model multitask"):
        decide(small_config(), data, silent)


# fitting


@pytest.mark.parametrize("ranking", ["ease", "networks", "popularity"])
def test_a_resumed_fit_equals_an_uninterrupted_one(ranking):
    config = small_config(ranking=ranking, ridge=20.0, ranking_dim=6, genres="off")
    data = world()
    straight = fitted(config, data)
    first, second = RECIPE.build(config, data, CPU), RECIPE.build(config, data, CPU)
    begun = first.make_stepper(first.model, first.task, config, CPU)
    for epoch in (1, 2):
        begun.run_epoch(epoch, [], lambda: False)
    resumed = second.make_stepper(second.model, second.task, config, CPU)
    assert begun.checkpoint_parts.keys() == resumed.checkpoint_parts.keys()
    for name, part in begun.checkpoint_parts.items():
        resumed.checkpoint_parts[name].load_state_dict(part.state_dict())
    resumed.run_epoch(3, [], lambda: False)
    assert_equal(second.model.state_dict(), straight)


@pytest.mark.parametrize("epochs", [1, 2, 4, 5, 12, 40])
def test_the_networks_are_trained_in_order_and_to_the_end(epochs):
    done = [network_epochs(epoch, epochs) for epoch in range(epochs + 1)]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, NETWORKS.epochs)


def test_the_net_ranks_by_ease_until_the_networks_are_trained():
    config = small_config(ranking="networks", ridge=20.0, ranking_dim=6, genres="off", epochs=2)
    data = world()
    training = RECIPE.build(config, data, CPU)
    stepper = training.make_stepper(training.model, training.task, config, CPU)
    stepper.run_epoch(1, [], lambda: False)
    ease = stepper.closed_form.block
    scores = training.model.score_items(torch.tensor([3]))[0]
    assert torch.allclose(scores, (ease.items @ ease.users[3] + ease.item_bias).float(), atol=1e-4)


def test_restored_factorizations_answer_with_the_deviation_of_the_fitted_ones():
    config = small_config(ranking="ease", ridge=20.0, ranking_dim=6, genres="on")
    data = world()
    training = RECIPE.build(config, data, CPU)
    stepper = training.make_stepper(training.model, training.task, config, CPU)
    stepper.run_epoch(1, [], lambda: False)
    users, items = data.test.user_ids.long(), data.test.item_ids.long()
    assert "rating_std" not in training.task.score(training.model, users, items)[1]
    for name, part in training.make_answer_parts().items():
        part.load_state_dict(stepper.checkpoint_parts[name].state_dict())
    shown = training.task.score(training.model, users, items)[1]
    torch.testing.assert_close(shown["rating_std"], mixture_std(stepper.fits, users, items).float())
