"""Users encoded from items, the loss on hidden ratings, and members of this kind beside others."""

import pytest
import torch
from conftest import refused
from torch import nn

import dataset
from losses import MASKED_ITEM_TARGET, masked_item_loss
from multitask.item_based import ItemBasedNet, ItemBasedTask
from multitask.recipe import RECIPE, SEED_STEP
from multitask.softmax import SoftmaxTask
from registry import make_config

CPU = torch.device("cpu")
SMALL = {
    "dataset": "simulated", "simulated_size": (30, 50, 700), "ranking_loss": "softmax", "batch_size": 60, "epochs": 3,
    "embedding_dim": 4, "layer_sizes": (12,), "num_item_based": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def data():
    return dataset.load("simulated", simulated_size=(30, 50, 700))


def network() -> ItemBasedNet:
    torch.manual_seed(0)
    model = ItemBasedNet(30, 50, 4, [12]).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model


def test_the_loss_is_a_weighted_mean_over_all_but_what_was_kept():
    predictions = torch.randn(2, 3, dtype=torch.double)
    rows, items = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 2])
    hidden = torch.tensor([True, False, True])
    # User 0: item 0 is hidden, 1 kept, 2 never watched. User 1, of weight 3: items 0 and 1 never watched, 2 hidden.
    errors = (predictions - torch.tensor([[MASKED_ITEM_TARGET, 0, 0], [0, 0, MASKED_ITEM_TARGET]])).square()
    by_hand = (errors[0, 0] + errors[0, 2] + 3 * errors[1].sum()) / (2 + 3 * 3)
    found = masked_item_loss(predictions, rows, items, hidden, torch.tensor([1.0, 3.0], dtype=torch.double))
    torch.testing.assert_close(found, by_hand)


@pytest.mark.parametrize("is_hidden", [True, False])
def test_where_all_was_watched_and_all_of_it_hidden_or_kept(is_hidden):
    items = torch.arange(3)
    hidden = torch.full((3,), is_hidden)
    found = masked_item_loss(torch.full((1, 3), 1.0), torch.zeros_like(items), items, hidden, torch.ones(1))
    assert found.item() == ((MASKED_ITEM_TARGET - 1) ** 2 if is_hidden else 0)


def test_blocks_of_one_user_are_learnt_from_whatever_is_hidden(data):
    task, model = ItemBasedTask(data, batch_size=1), network()
    for batch in task.batches(1):
        for is_hidden in (True, False):
            losses = task.losses(model, batch | {"hidden": torch.full_like(batch["masked"], is_hidden)})
            assert all(loss.isfinite() for loss in losses.values())


def test_users_are_their_items_over_the_root_of_how_many(data):
    model = network()
    model.write_users(data.train)
    for user in range(30):
        items = data.train.item_ids[data.train.user_ids == user].long()
        encoded = model.V.weight[items].sum(dim=0) / len(items) ** 0.5
        torch.testing.assert_close(model.U.weight[user], encoded.detach())


def test_a_user_without_items_is_nothing_and_is_ranked_by_item_bias():
    model = network()
    users = model.encode_users(torch.tensor([4, 9]), torch.tensor([0, 2, 0]))
    assert users[0].eq(0).all()
    assert users[2].eq(0).all()
    torch.testing.assert_close(users[1], (model.V.weight[4] + model.V.weight[9]) / 2**0.5)
    torch.testing.assert_close(model.score_encoded_users(users)[0], model.B.weight.flatten())


def test_encoded_users_are_scored_and_rated_as_those_that_are_written(data):
    model = network()
    model.write_users(data.train)
    users, items = data.train.user_ids.long(), data.train.item_ids.long()
    predictions, score = model(users, items)
    encoded = model.encode_users(data.train.items_by_user.long(), data.train.offsets.diff())
    torch.testing.assert_close(model.score_encoded_users(encoded)[users, items], predictions)
    torch.testing.assert_close(model.rate_encoded_users(encoded, users, items), score)


def test_batches_are_those_of_the_softmax_with_half_of_them_hidden_anew_each_epoch(data):
    task, plain = (make(data, batch_size=100, seed=3) for make in (ItemBasedTask, SoftmaxTask))
    hidden = {}
    for epoch in (1, 2):
        batches = list(task.batches(epoch))
        for batch, again, other in zip(batches, task.batches(epoch), plain.batches(epoch), strict=True):
            assert batch["masked"].equal(again["masked"])
            assert all(batch[name].equal(other[name]) for name in other)
        hidden[epoch] = torch.cat([batch["masked"] for batch in batches])
        assert 0.4 < hidden[epoch].double().mean() < 0.6
    assert not hidden[1].equal(hidden[2])


def test_what_is_hidden_is_not_seen_and_what_was_kept_is_not_asked_for(data):
    task = ItemBasedTask(data, batch_size=10**6)
    batch = next(task.batches(1))
    asked, given = (set(batch["item_ids"][mask].tolist()) for mask in (batch["masked"], ~batch["masked"]))
    batch["masked"] = batch["item_ids"] == min(asked & given)  # one item, of everybody
    model = network()
    loss = task.losses(model, batch)["factorization"]
    (gradient,) = torch.autograd.grad(loss, model.V.weight)
    assert gradient[batch["item_ids"][batch["masked"]]].eq(0).all()
    assert gradient[batch["item_ids"][~batch["masked"]]].ne(0).all()

    one_user = {name: column[batch["user_ids"] == 7] for name, column in batch.items()}
    kept = one_user["item_ids"][~one_user["masked"]]
    (gradient,) = torch.autograd.grad(task.losses(model, one_user)["factorization"], model.Q.weight)
    assert gradient[kept].eq(0).all()
    assert gradient.ne(0).any(dim=1).sum() == 50 - len(kept)


@pytest.mark.parametrize("epochs", [1, 2])
def test_training_learns_all_but_users_and_writes_these_after_each_epoch(epochs):
    config = make_config(**SMALL, regression_weight=1.0)
    training = RECIPE.build(config, RECIPE.load_data(config), CPU)
    model, task = training.model, training.task
    stepper = training.make_stepper(model, task, config, CPU)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for epoch in range(1, epochs + 1):
        stepper.run_epoch(epoch, [], lambda: False)
    assert not any(value.equal(before[name]) for name, value in model.state_dict().items())
    assert not any(parameter is model.U.weight for parameter in stepper.optimizer.state)
    train = task.data.train
    encoded = model.encode_users(train.items_by_user.long(), train.offsets.diff())
    torch.testing.assert_close(model.U.weight, encoded.detach())


def test_the_last_networks_are_item_based_without_decay_and_learn_as_they_would_alone():
    options = SMALL | {
        "ensemble_size": 3,
        "num_item_based": 2,
        "embedding_dim": 12,
        "layer_sizes": (36,),
        "embedding_decay": 0.5,
    }
    config = make_config(**options)
    data = RECIPE.load_data(config)
    training = RECIPE.build(config, data, CPU)
    stepper = training.make_stepper(training.model, training.task, config, CPU)
    assert [isinstance(network, ItemBasedNet) for network in stepper.networks] == [False, True, True]
    stepper.run_epoch(1, [], lambda: False)
    alone = make_config(**SMALL, seed=2 * SEED_STEP)
    one = RECIPE.build(alone, data, CPU)
    one.make_stepper(one.model, one.task, alone, CPU).run_epoch(1, [], lambda: False)
    for name, value in one.model.state_dict().items():
        torch.testing.assert_close(stepper.networks[2].state_dict()[name], value, rtol=0, atol=0)
    users, items = torch.arange(30).repeat(50), torch.arange(50).repeat_interleave(30)
    outputs = [network(users, items) for network in stepper.networks]
    predictions, score = training.model(users, items)
    torch.testing.assert_close(predictions, sum(own for own, _ in outputs) / 3)
    torch.testing.assert_close(score, outputs[0][1])


def test_item_based_networks_rate_where_there_are_no_others():
    config = make_config(**SMALL | {"ensemble_size": 2, "num_item_based": 2, "embedding_dim": 8, "layer_sizes": (24,)})
    training = RECIPE.build(config, RECIPE.load_data(config), CPU)
    stepper = training.make_stepper(training.model, training.task, config, CPU)
    users, items = torch.arange(30), torch.arange(30)
    ratings = [network(users, items)[1] for network in stepper.networks]
    torch.testing.assert_close(training.model(users, items)[1], sum(ratings) / 2)


REFUSED = {
    "empty ensemble": (["--num_item_based", 1, "--ensemble_size", 0], "--ensemble_size must be at least 1"),
    "too many": (
        ["--num_item_based", 2, "--ranking_loss", "softmax"],
        "--num_item_based 2 is more than --ensemble_size 1",
    ),
    "pairs": (["--num_item_based", 1], "add --ranking_loss softmax"),
    "separate": (
        ["--num_item_based", 1, "--ranking_loss", "softmax", "--no_shared_embeddings"],
        "leave out --no_shared_embeddings",
    ),
    "zoo": (["--num_item_based", 1, "--model", "mmoe"], "--num_item_based does not apply to --model mmoe"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused(elsewhere, capsys, name):
    flags, sentence = REFUSED[name]
    assert sentence in refused(capsys, *flags)
