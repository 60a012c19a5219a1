"""Several networks in one: their mean, exactly, and a run of them that goes on to the last bit."""

from itertools import count

import pytest
import torch
from conftest import refused
from torch import nn

from models import MultiTaskNet
from multitask.ensemble import APART, average_into
from registry import make_config, recipe_for
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
def test_the_merged_network_says_the_mean_of_what_its_members_say(sharing, number):
    torch.manual_seed(0)
    members = [network(4, sharing) for _ in range(number)]
    whole = network(4 * number, sharing)
    average_into(members, whole)
    users, items = torch.randint(30, (200,)), torch.randint(50, (200,))
    for place, found in enumerate(whole(users, items)):
        mean = torch.stack([member(users, items)[place] for member in members]).mean(dim=0)
        torch.testing.assert_close(found, mean)
    scores = torch.stack([member.score_items(users) for member in members]).mean(dim=0)
    torch.testing.assert_close(whole.score_items(users), scores)


def make(**options):
    settings = make_config(**SMALL | options)
    data = recipe_for(settings).load_data(settings)
    model, task, make_stepper = recipe_for(settings).build(settings, data, CPU)
    return model, task, settings, make_stepper


@pytest.mark.parametrize(
    "option", [{}, {"ranking_loss": "softmax"}, {"shared_embeddings": False}, {"init_rating_bias": True}]
)
def test_each_member_learns_as_it_would_alone(option):
    model, task, settings, make_stepper = make(**option)
    stepper = make_stepper(model, task, settings, CPU)
    stepper.run_epoch(1, [], lambda: False)
    for number, member in enumerate(stepper.members):
        alone, its_task, its_settings, its_steps = make(
            **option, ensemble_size=1, embedding_dim=4, layer_sizes=(12,), seed=number * APART
        )
        its_task.data = task.data  # split by the seed of the run
        if option.get("bpr") == "softmax":
            its_task.__dict__ |= {name: value for name, value in task.__dict__.items() if name != "seed"}
        if option.get("start_at_mean"):
            nn.init.constant_(alone.mlp_layers[0].bias, task.data.train.ratings.mean().item())
        its_steps(alone, its_task, its_settings, CPU).run_epoch(1, [], lambda: False)
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(member.state_dict()[name], value, rtol=0, atol=0)


def test_members_differ_and_the_network_is_their_mean_from_the_start():
    model, task, settings, make_stepper = make()
    stepper = make_stepper(model, task, settings, CPU)
    assert not stepper.members[0].U.weight.equal(stepper.members[1].U.weight)
    torch.testing.assert_close(model.U.weight, torch.cat([member.U.weight for member in stepper.members], dim=1))


@pytest.mark.parametrize("denoisers", [0, 1, 3])
def test_a_run_that_was_stopped_goes_on_to_the_last_bit(tmp_path, denoisers):
    def train(path, stop=lambda: False):
        model, task, settings, make_stepper = make(ranking_loss="softmax", num_item_based=denoisers)
        path.mkdir(exist_ok=True)
        return fit(model, task, settings, RunFolder(path), CPU, lambda line: None, stop, make_stepper)

    calls = count()
    train(tmp_path / "stopped", lambda: next(calls) > 50)
    resumed, whole = train(tmp_path / "stopped"), train(tmp_path / "whole")
    assert 0 < resumed.epochs_run < 3
    assert resumed.history == whole.history


REFUSED = {
    "hidden layers": (["--ensemble_size", 2], "--layer_sizes one number"),
    "width": (["--ensemble_size", 3, "--embedding_dim", 32, "--layer_sizes", 96], "must be a multiple"),
    "none": (["--ensemble_size", 0], "--members must be at least 1"),
    "zoo": (["--ensemble_size", 2, "--model", "mmoe"], "--members means nothing to --model mmoe"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused(elsewhere, capsys, name):
    flags, sentence = REFUSED[name]
    assert sentence in refused(capsys, *flags)
