"""Ensembles: their exact mean in one network, and resumed runs."""

from itertools import count

import pytest
import torch
from conftest import refused
from torch import nn

from models import MultiTaskNet
from multitask.ensemble import average_into
from multitask.recipe import RECIPE, SEED_STEP
from registry import make_config
from training.loop import fit
from training.run_folder import RunFolder

CPU = torch.device("cpu")
SMALL = {
    "dataset": "simulated", "simulated_size": (30, 50, 700), "batch_size": 60, "epochs": 3, "embedding_dim": 12,
    "layer_sizes": (36,), "ensemble_size": 3,
}  # fmt: skip


def network(width: int, sharing: bool) -> MultiTaskNet:
    model = MultiTaskNet(30, 50, width, [3 * width], sharing).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model


@pytest.mark.parametrize("sharing", [True, False])
@pytest.mark.parametrize("number", [1, 2, 5])
def test_the_wide_network_predicts_the_mean_of_the_networks(sharing, number):
    torch.manual_seed(0)
    networks = [network(4, sharing) for _ in range(number)]
    whole = network(4 * number, sharing)
    average_into(networks, whole)
    users, items = torch.randint(30, (200,)), torch.randint(50, (200,))
    for place, found in enumerate(whole(users, items)):
        mean = torch.stack([one(users, items)[place] for one in networks]).mean(dim=0)
        torch.testing.assert_close(found, mean)
    scores = torch.stack([one.score_items(users) for one in networks]).mean(dim=0)
    torch.testing.assert_close(whole.score_items(users), scores)


def make(**options):
    config = make_config(**SMALL | options)
    return RECIPE.build(config, RECIPE.load_data(config), CPU), config


def stepper_of(training, config):
    return training.make_stepper(training.model, training.task, config, CPU)


@pytest.mark.parametrize(
    "option", [{}, {"ranking_loss": "softmax"}, {"shared_embeddings": False}, {"init_rating_bias": True}]
)
def test_each_network_learns_as_it_would_alone(option):
    training, config = make(**option)
    stepper = stepper_of(training, config)
    stepper.run_epoch(1, [], lambda: False)
    data = RECIPE.load_data(config)
    for number, network in enumerate(stepper.networks):
        alone = make_config(
            **SMALL
            | option
            | {"ensemble_size": 1, "embedding_dim": 4, "layer_sizes": (12,), "seed": number * SEED_STEP}
        )
        trained = RECIPE.build(alone, data, CPU)  # on the split of the ensemble's seed
        stepper_of(trained, alone).run_epoch(1, [], lambda: False)
        for name, value in trained.model.state_dict().items():
            torch.testing.assert_close(network.state_dict()[name], value, rtol=0, atol=0)


def test_the_networks_differ_and_the_model_is_their_mean_from_the_start():
    training, config = make()
    networks = stepper_of(training, config).networks
    assert not networks[0].U.weight.equal(networks[1].U.weight)
    tables = torch.cat([network.U.weight for network in networks], dim=1)
    torch.testing.assert_close(training.model.U.weight, tables)


def test_the_ensemble_comes_with_a_task_that_fits_its_model():
    training, _ = make(ranking_loss="softmax", num_item_based=2)
    losses = training.task.losses(training.model, next(iter(training.task.batches(1))))
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize("num_item_based", [0, 1, 3])
def test_a_stopped_run_resumes_bit_equal(tmp_path, num_item_based):
    def train(path, stop=lambda: False):
        training, config = make(ranking_loss="softmax", num_item_based=num_item_based)
        path.mkdir(exist_ok=True)
        return fit(training, config, RunFolder(path), CPU, lambda line: None, stop)

    calls = count()
    train(tmp_path / "stopped", lambda: next(calls) > 50)
    resumed, whole = train(tmp_path / "stopped"), train(tmp_path / "whole")
    assert 0 < resumed.epochs_run < 3
    assert resumed.history == whole.history


REFUSED = {
    "hidden layers": (["--ensemble_size", 2], "--layer_sizes one number"),
    "width": (["--ensemble_size", 3, "--embedding_dim", 32, "--layer_sizes", 96], "must be a multiple"),
    "none": (["--ensemble_size", 0], "--ensemble_size must be at least 1"),
    "zoo": (["--ensemble_size", 2, "--model", "mmoe"], "--ensemble_size does not apply to --model mmoe"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused(elsewhere, capsys, name):
    flags, sentence = REFUSED[name]
    assert sentence in refused(capsys, *flags)
