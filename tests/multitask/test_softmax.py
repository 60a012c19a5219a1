"""The ranking loss over the whole catalog, its batches of users, and the options of training that go with it."""

import math
from itertools import count

import pytest
import torch
from conftest import refused, run
from torch import nn

import dataset
from losses import softmax_loss
from models import MultiTaskNet
from multitask.recipe import RECIPE
from multitask.softmax import SoftmaxTask
from registry import make_config
from training.loop import fit
from training.run_folder import RunFolder
from training.steps import GradientStepper, split_by_decay

CPU = torch.device("cpu")
SMALL = {
    "dataset": "simulated",
    "simulated_size": (30, 50, 700),
    "ranking_loss": "softmax",
    "batch_size": 60,
    "epochs": 3,
}


@pytest.fixture(scope="module")
def data():
    return dataset.load("simulated", simulated_size=(30, 50, 700))


def test_the_loss_is_a_weighted_mean_of_cross_entropies():
    predictions = torch.randn(3, 7, dtype=torch.double)
    rows, items = torch.tensor([0, 0, 2, 1]), torch.tensor([6, 1, 3, 0])
    weights = torch.tensor([0.5, 1.5, 1.0, 1.0], dtype=torch.double)
    by_hand = 0.0
    for row, item, weight in zip(rows, items, weights, strict=True):
        chances = [math.exp(value) for value in predictions[row]]
        by_hand -= weight.item() * math.log(chances[item] / sum(chances)) / 4
    assert softmax_loss(predictions, rows, items, weights).item() == pytest.approx(by_hand)


def test_the_loss_of_knowing_nothing_is_the_logarithm_of_the_catalogue():
    rows = items = torch.tensor([0, 1])
    assert softmax_loss(torch.full((2, 50), 3.0), rows, items, torch.ones(2)).item() == pytest.approx(math.log(50))


def test_the_loss_stays_finite_where_scores_are_large():
    loss = softmax_loss(torch.tensor([[1e4, -1e4]]), torch.tensor([0]), torch.tensor([1]), torch.ones(1))
    assert loss.item() == pytest.approx(2e4)


def test_batches_hold_every_rating_once_and_users_whole(data):
    task = SoftmaxTask(data, batch_size=100, seed=3)
    batches = list(task.batches(1))
    assert len(batches) == task.num_batches
    found = {
        (user, item, rating)
        for batch in batches
        for user, item, rating in zip(
            *(batch[name].tolist() for name in ("user_ids", "item_ids", "ratings")), strict=True
        )
    }
    train = data.train
    wanted = set(zip(train.user_ids.tolist(), train.item_ids.tolist(), train.ratings.tolist(), strict=True))
    assert found == wanted
    assert sum(len(batch["ratings"]) for batch in batches) == len(train)
    users = [set(batch["user_ids"].tolist()) for batch in batches]
    assert sum(map(len, users)) == len(set.union(*users))


def test_epochs_differ_and_repeat_themselves(data):
    def first(epoch, seed=0):
        return next(iter(SoftmaxTask(data, 100, seed=seed).batches(epoch)))["user_ids"].tolist()

    assert first(1) == first(1)
    assert first(1) != first(2)
    assert first(1) != first(1, seed=1)


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_weights_balance_users_as_they_say(data, balance):
    task = SoftmaxTask(data, batch_size=10_000, user_weight_exponent=balance)
    (batch,) = task.batches(1)
    assert batch["weights"].mean().item() == pytest.approx(1)
    counts = torch.bincount(batch["user_ids"], minlength=30)
    sums = torch.bincount(batch["user_ids"], weights=batch["weights"].double(), minlength=30)
    expected = counts.double() ** (1 - balance)
    torch.testing.assert_close(sums / sums.sum(), expected / expected.sum())


def test_users_without_ratings_are_left_out(data):
    train = data.train[data.train.user_ids != 4]
    task = SoftmaxTask(dataset.Data(**vars(data) | {"train": train}), batch_size=100)
    assert all(len(batch["ratings"]) and 4 not in batch["user_ids"] for batch in task.batches(1))


def test_losses_are_those_of_a_loop_over_ratings(data):
    torch.manual_seed(0)
    model = MultiTaskNet(30, 50, 8, [24, 5]).double()
    nn.init.normal_(model.B.weight)
    nn.init.normal_(model.U.weight)
    task = SoftmaxTask(data, batch_size=150, user_weight_exponent=0.5)
    batch = next(iter(task.batches(1)))
    batch = {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}
    items = torch.arange(50)
    ranking = []
    for user, item in zip(batch["user_ids"], batch["item_ids"], strict=True):
        scores = model(user.repeat(50), items)[0]
        ranking.append(-torch.log_softmax(scores, 0)[item])
    found = task.losses(model, batch)
    expected = (torch.stack(ranking) * batch["weights"]).mean()
    torch.testing.assert_close(found["factorization"], expected)
    score = model(batch["user_ids"], batch["item_ids"])[1]
    torch.testing.assert_close(found["regression"], (score - batch["ratings"]).square().mean())


def test_a_network_without_score_items_learns_the_same(data):
    class Plain(MultiTaskNet):
        score_items = None

        def __getattribute__(self, name):
            if name == "score_items":
                raise AttributeError(name)
            return super().__getattribute__(name)

    torch.manual_seed(0)
    model = MultiTaskNet(30, 50, 8, [24])
    plain = Plain(30, 50, 8, [24])
    plain.load_state_dict(model.state_dict())
    task = SoftmaxTask(data, batch_size=150)
    batch = next(iter(task.batches(1)))
    assert not hasattr(plain, "score_items")
    for name, loss in task.losses(model, batch).items():
        torch.testing.assert_close(task.losses(plain, batch)[name], loss)


def stepper_of(**options) -> GradientStepper:
    config = make_config(**SMALL | options)
    training = RECIPE.build(config, RECIPE.load_data(config), CPU)
    return training.make_stepper(training.model, training.task, config, CPU)


def test_only_embeddings_decay_by_embedding_decay():
    model = MultiTaskNet(30, 50, 8, [24])
    tables, others = split_by_decay(model, 0.1, 0.5)
    assert {id(p) for p in tables["params"]} == {id(model.U.weight), id(model.Q.weight)}
    assert {id(p) for p in others["params"]} == {id(model.B.weight), *(id(p) for p in model.mlp_layers.parameters())}
    assert (tables["weight_decay"], others["weight_decay"]) == (0.6, 0.1)


def test_embedding_decay_shrinks_what_no_gradient_moves():
    stepper = stepper_of(embedding_decay=0.5, lr=0.01)
    table = nn.Parameter(torch.ones(3))
    stepper.optimizer.param_groups[0]["params"].append(table)
    table.grad = torch.zeros(3)
    stepper.optimizer.step()
    torch.testing.assert_close(table.data, torch.full((3,), 1 - 0.01 * 0.5))


def test_the_step_size_falls_along_half_a_cosine():
    stepper = stepper_of(schedule="cosine", lr=0.02)
    seen = []
    optimizer_step = stepper.optimizer.step
    stepper.optimizer.step = lambda: (seen.append(stepper.optimizer.param_groups[0]["lr"]), optimizer_step())
    for epoch in (1, 2, 3):
        stepper.run_epoch(epoch, [], lambda: False)
    total = 3 * stepper.task.num_batches
    assert seen == pytest.approx([0.01 * (1 + math.cos(math.pi * step / total)) for step in range(total)])


def test_ratings_start_at_the_mean_of_train():
    config = make_config(**SMALL, init_rating_bias=True)
    data = RECIPE.load_data(config)
    model = RECIPE.build(config, data, CPU).model
    assert model.mlp_layers[-1].bias.item() == pytest.approx(data.train.ratings.mean().item())


@pytest.mark.parametrize(
    "option",
    [
        {"user_weight_exponent": 0.5},
        {"embedding_decay": 1.0},
        {"schedule": "cosine"},
        {"init_rating_bias": True},
    ],
)
def test_every_option_changes_the_result(option):
    def losses(**options):
        return stepper_of(**options).run_epoch(1, [], lambda: False)

    assert losses(**option) != losses()


ALL = {"schedule": "cosine", "embedding_decay": 1.0, "init_rating_bias": True, "user_weight_exponent": 0.5}


def test_a_run_that_was_stopped_goes_on_to_the_last_bit(tmp_path):
    config = make_config(**SMALL | ALL)
    data = RECIPE.load_data(config)

    def train(path, stop=lambda: False):
        path.mkdir(exist_ok=True)
        return fit(RECIPE.build(config, data, CPU), config, RunFolder(path), CPU, lambda line: None, stop)

    calls = count()
    train(tmp_path / "stopped", lambda: next(calls) > 15)
    resumed, whole = train(tmp_path / "stopped"), train(tmp_path / "whole")
    assert 0 < resumed.epochs_run < 3
    assert resumed.history == whole.history


def test_a_run_under_a_cosine_keeps_its_number_of_epochs(elsewhere, capsys):
    flags = ["--dataset", "simulated", "--simulated_size", 60, 80, 2400, "--schedule", "cosine", "--logdir", "a"]
    assert run(*flags, "--epochs", 2) == 0
    assert "--epochs 2" in refused(capsys, "--resume", "a", "--epochs", 3)


REFUSED = {
    "negatives": (["--ranking_loss", "softmax", "--negatives", 3], "draws none: leave out --negatives"),
    "sampling": (["--ranking_loss", "softmax", "--negative_sampling", "unseen"], "draws none: leave out --negatives"),
    "balance": (
        ["--user_weight_exponent", 0.5],
        "--user_weight_exponent is for the softmax over all items: add --ranking_loss softmax",
    ),
    "too much balance": (
        ["--ranking_loss", "softmax", "--user_weight_exponent", 2],
        "--user_weight_exponent must be at least 0 and at most 1, not 2",
    ),
    "decay": (["--embedding_decay", -1], "--embedding_decay must be 0 or more, not -1"),
    "another model": (["--model", "mmoe", "--init_rating_bias"], "--init_rating_bias does not apply to --model mmoe"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused(elsewhere, capsys, name):
    flags, sentence = REFUSED[name]
    assert sentence in refused(capsys, *flags)
