"""The manual gradient takes the same steps as autograd. Where it would not, autograd takes them."""

import copy
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

import losses
import models
from config.multitask import MultiTaskConfig
from dataset import Interactions
from losses import joint_loss
from models import MultiTaskNet
from multitask import manual_gradient
from multitask.manual_gradient import (
    DataParallelManualGradientStepper,
    ManualGradient,
    ManualGradientStepper,
    matches_autograd,
)
from multitask.recipe import RECIPE
from multitask.steps import make_stepper
from multitask.task import WatchAndRate
from registry import make_config
from training.data_parallel import DataParallelStepper
from training.loop import fit
from training.process_group import SINGLE_PROCESS
from training.protocols import Training
from training.run_folder import RunFolder
from training.steps import GradientStepper, Stopped

CPU = torch.device("cpu")
# Largest difference after the runs below. In float64 only rounding separates the two. In float32 Adam divides by the
# magnitude of the gradient, which amplifies the rounding of a small one.
DOUBLE, SINGLE = 1e-9, 2e-3


@pytest.fixture(scope="module")
def world(tiny):
    """60 x 80 in float64, 129 ratings: batches of 16, and a last one of a single row."""
    train = tiny.train[:129]
    ratings = train.ratings.double()
    return replace(tiny, validation=None, train=Interactions(train.user_ids, train.item_ids, ratings, 60, 80))


def new_model(**options) -> MultiTaskNet:
    torch.manual_seed(0)
    model = MultiTaskNet(60, 80, embedding_dim=4, **{"layer_sizes": [12, 6]} | options).double()
    nn.init.normal_(model.B.weight)
    return model


def both(model, task, **options) -> tuple[GradientStepper, ManualGradientStepper]:
    """(autograd, manual): a stepper of each kind, from the same weights."""
    settings = make_config(quiet=True, **options)
    return tuple(make(copy.deepcopy(model), task, settings, CPU) for make in (GradientStepper, ManualGradientStepper))


def run(stepper, epochs) -> list[dict[str, float]]:
    return [stepper.run_epoch(epoch, [], lambda: False) for epoch in epochs]


def assert_same(plain, ours, tolerance: float) -> None:
    """Weights and the optimizer's whole state."""
    close = partial(torch.testing.assert_close, rtol=tolerance, atol=tolerance)
    close(ours.model.state_dict(), plain.model.state_dict())
    close(ours.optimizer.state_dict()["state"], plain.optimizer.state_dict()["state"])
    assert ours.optimizer.state_dict()["param_groups"] == plain.optimizer.state_dict()["param_groups"]


TASKS = [
    {},
    {"negatives": 3},
    {"ranking_loss": "bpr"},
    {"ranking_loss": "bpr", "negatives": 3, "negative_sampling": "unseen"},
    {"negatives": 4, "negative_sampling": "hardest"},
    {"batch_size": 1},
    {"batch_size": 1000},
]
OPTIONS = [
    {},
    {"weight_decay": 0.1},
    {"factorization_weight": 0.2, "regression_weight": 3.0, "lr": 0.02},
]


@pytest.mark.parametrize("sharing", [True, False])
@pytest.mark.parametrize("task", TASKS, ids=str)
def test_epochs_equal_those_of_autograd(world, sharing, task):
    task = WatchAndRate(world, **{"batch_size": 16} | task)
    plain, ours = both(new_model(embedding_sharing=sharing), task)
    for row, expected in zip(run(ours, [1, 2]), run(plain, [1, 2]), strict=True):
        assert row == pytest.approx(expected, rel=DOUBLE)
    assert_same(plain, ours, DOUBLE)


@pytest.mark.parametrize("sharing", [True, False])
@pytest.mark.parametrize("task", [{}, {"negatives": 4, "negative_sampling": "hardest"}], ids=str)
def test_a_large_batch_in_chunks_is_one_step(world, sharing, task, monkeypatch):
    monkeypatch.setattr(manual_gradient, "CHUNK_ROWS", 50)  # 129 ratings: 50, 50 and 29
    plain, ours = both(new_model(embedding_sharing=sharing), WatchAndRate(world, batch_size=1000, **task))
    for row, expected in zip(run(ours, [1, 2]), run(plain, [1, 2]), strict=True):
        assert row == pytest.approx(expected, rel=DOUBLE)
    assert sorted(ours.gradient.buffers) == [29, 50]
    assert_same(plain, ours, DOUBLE)


@pytest.mark.parametrize("sharing", [True, False])
@pytest.mark.parametrize("layer_sizes", [[12], [12, 6], [12, 6, 5, 3]])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_mlp_depth_and_optimizer_setting(world, sharing, layer_sizes, options):
    task = WatchAndRate(world, batch_size=64)
    plain, ours = both(new_model(embedding_sharing=sharing, layer_sizes=layer_sizes), task, **options)
    assert run(ours, [1, 2]) == [pytest.approx(row, rel=DOUBLE) for row in run(plain, [1, 2])]
    assert_same(plain, ours, DOUBLE)


@pytest.mark.parametrize("sharing", [True, False])
def test_float32_runs_stay_close_to_autograd(tiny, sharing):
    model = MultiTaskNet(60, 80, embedding_sharing=sharing)
    plain, ours = both(model, WatchAndRate(tiny))
    assert run(ours, [1, 2, 3]) == [pytest.approx(row, rel=SINGLE) for row in run(plain, [1, 2, 3])]
    assert_same(plain, ours, SINGLE)


@pytest.mark.parametrize("sharing", [True, False])
def test_rows_outside_the_batch_have_no_gradient(world, sharing):
    model = new_model(embedding_sharing=sharing)
    gradient = ManualGradient(model, WatchAndRate(world), {"factorization": 0.5, "regression": 0.5})
    batch = {name: torch.tensor(ids) for name, ids in {"user_ids": [3, 3], "item_ids": [5, 7]}.items()}
    batch |= {"ratings": torch.ones(2).double(), "negative_ids": torch.tensor([[8], [9]])}
    gradient({name: column.flip(0) * 0 + 1 for name, column in batch.items()})  # must be overwritten
    gradient(batch)
    ranked, rated = ("U", "Q") if sharing else ("U_fact", "Q_fact"), ("U", "Q") if sharing else ("U_reg", "Q_reg")
    touched = {ranked[0]: [3], ranked[1]: [5, 7, 8, 9], "B": [5, 7, 8, 9]}
    touched |= {} if sharing else {rated[0]: [3], rated[1]: [5, 7]}
    for name, rows in touched.items():
        assert getattr(model, name).weight.grad.any(dim=1).nonzero().flatten().tolist() == rows


def test_stop_raises_stopped(world):
    _, ours = both(new_model(), WatchAndRate(world))
    with pytest.raises(Stopped):
        ours.run_epoch(1, [], lambda: True)


# checkpoints


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("sharing", [True, False])
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_last_bit(tiny, tmp_path, sharing, weight_decay):
    def train(path, epochs: int):
        torch.manual_seed(0)
        model = MultiTaskNet(60, 80, embedding_sharing=sharing)
        folder = RunFolder(tmp_path / path)
        if not folder.has("last"):
            folder.write_config({"settings": {}, "data": {}})
        settings = make_config(epochs=epochs, weight_decay=weight_decay)
        made = []

        def recording_make_stepper(*arguments):
            made.append(make_stepper(*arguments))
            return made[-1]

        fit(Training(model, WatchAndRate(tiny), recording_make_stepper), settings, folder, CPU, lambda line: None)
        assert type(made[0]) is ManualGradientStepper
        return (tmp_path / path / "metrics.csv").read_bytes(), model.state_dict()

    metrics, weights = train("whole", 4)
    train("parts", 2)
    resumed, twin = train("parts", 4)
    assert resumed == metrics
    assert all(twin[name].equal(value) for name, value in weights.items())


@pytest.mark.parametrize("sharing", [True, False])
def test_checkpoints_of_either_stepper_resume_with_the_other(world, sharing):
    """As when a run is resumed on another device."""
    task = WatchAndRate(world, batch_size=16)
    plain, ours = both(new_model(embedding_sharing=sharing), task, weight_decay=0.1)
    run(plain, [1])
    run(ours, [1])
    later_plain, later_ours = both(new_model(embedding_sharing=sharing), task, weight_decay=0.1)
    for later, earlier in [(later_ours, plain), (later_plain, ours)]:
        later.model.load_state_dict(earlier.model.state_dict())
        later.optimizer.load_state_dict(copy.deepcopy(earlier.optimizer.state_dict()))
        run(later, [2])
    run(plain, [2])
    assert_same(plain, later_ours, DOUBLE)
    assert_same(plain, later_plain, DOUBLE)


# when it is used


def stepper_type(model, task, device=CPU, **settings) -> type:
    return type(make_stepper(model, task, make_config(**settings), device))


@pytest.mark.parametrize("sharing", [True, False])
@pytest.mark.parametrize("task", TASKS, ids=str)
def test_the_course_network_uses_the_manual_gradient(world, sharing, task):
    assert stepper_type(new_model(embedding_sharing=sharing), WatchAndRate(world, **task)) is ManualGradientStepper


def test_the_recipe_of_the_multitask_net_uses_it():
    config = make_config(dataset="simulated", simulated_size=(60, 80, 2400))
    training = RECIPE.build(config, RECIPE.load_data(config), CPU)
    assert type(training.make_stepper(training.model, training.task, config, CPU)) is ManualGradientStepper


@pytest.mark.parametrize("weighting", ["uncertainty", "gradnorm", "dwa", "pcgrad"])
def test_other_weightings_use_autograd(world, weighting):
    assert stepper_type(new_model(), WatchAndRate(world), weighting=weighting) is GradientStepper


def test_other_devices_use_autograd(world):
    assert stepper_type(new_model(), WatchAndRate(world), torch.device("meta")) is GradientStepper


@pytest.mark.parametrize("form", losses.PAIRWISE_LOSSES)
def test_every_form_of_the_ranking_loss_has_a_manual_gradient(world, form):
    assert stepper_type(new_model(), WatchAndRate(world, ranking_loss=form), ranking_loss=form) is ManualGradientStepper


def test_a_form_without_a_manual_gradient_uses_autograd(world, monkeypatch):
    monkeypatch.setitem(losses.PAIRWISE_LOSSES, "hinge", lambda p, n: (1 - p + n).relu().mean())
    task = WatchAndRate(world, ranking_loss="hinge")
    assert stepper_type(new_model(), task) is GradientStepper
    assert run(make_stepper(new_model(), task, MultiTaskConfig(quiet=True), CPU), [1])


def test_a_form_that_is_redefined_uses_autograd(world, monkeypatch):
    monkeypatch.setitem(losses.PAIRWISE_LOSSES, "bpr", lambda p, n: (n - p).exp().mean())
    assert stepper_type(new_model(), WatchAndRate(world, ranking_loss="bpr"), ranking_loss="bpr") is GradientStepper


def test_a_subclass_of_the_network_uses_autograd(world):
    class Own(MultiTaskNet):
        pass

    assert stepper_type(Own(60, 80), WatchAndRate(world)) is GradientStepper


def pad_first_user(model):
    model.U.padding_idx = 0


def pad_last_item(model):
    model.Q.padding_idx = 79


def count_occurrences(model):
    model.B.scale_grad_by_freq = True


def freeze_bias(model):
    model.B.weight.requires_grad_(False)


def leaky(model):
    model.mlp_layers[1] = nn.LeakyReLU()


def add_dropout(model):
    model.mlp_layers.insert(2, nn.Dropout(0.5))


def drop_a_layer_bias(model):
    model.mlp_layers[0] = nn.Linear(12, 6, bias=False).double()


def add_parameter(model):
    model.user_bias = nn.Parameter(torch.zeros(60))


CHANGES = [
    pad_first_user, pad_last_item, count_occurrences, freeze_bias, leaky, add_dropout, drop_a_layer_bias, add_parameter,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_changed_network_uses_autograd(world, change):
    model = new_model().eval()  # training uses train mode
    change(model)
    assert stepper_type(model, WatchAndRate(world)) is GradientStepper


FORWARDS = {
    "p squashed": lambda p, r: (p.tanh(), r),
    "p halved": lambda p, r: (p / 2, r),
    "p clipped": lambda p, r: (p.clamp(-3, 3), r),
    "r clipped": lambda p, r: (p, r.clamp(1, 5)),
    "r shifted": lambda p, r: (p, r + 3.5),
    "p detached": lambda p, r: (p.detach(), r),
    "swapped": lambda p, r: (r, p),
}


@pytest.mark.parametrize("name", FORWARDS)
def test_a_changed_forward_uses_autograd(world, monkeypatch, name):
    original = MultiTaskNet.forward
    monkeypatch.setattr(models.MultiTaskNet, "forward", lambda self, *ids: FORWARDS[name](*original(self, *ids)))
    assert stepper_type(new_model(), WatchAndRate(world)) is GradientStepper


def test_a_failing_forward_raises_in_training_not_before(world, monkeypatch):
    def forward(self, user_ids, item_ids):
        raise NotImplementedError("to do")

    monkeypatch.setattr(models.MultiTaskNet, "forward", forward)
    stepper = make_stepper(new_model(), WatchAndRate(world), make_config(quiet=True), CPU)
    with pytest.raises(NotImplementedError, match="to do"):
        run(stepper, [1])


@pytest.mark.parametrize("change", [lambda model: None, add_dropout], ids=["plain", "dropout"])
def test_the_comparison_changes_neither_network_nor_random_stream(world, change):
    model = new_model()
    change(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    matches_autograd(model, WatchAndRate(world), {"factorization": 0.5, "regression": 0.5})
    assert torch.get_rng_state().equal(state)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_losses_are_those_of_the_task_and_their_weighted_sum(world):
    task, model, weights = WatchAndRate(world, negatives=2), new_model(), {"factorization": 0.3, "regression": 2.0}
    batch = next(task.batches(1))
    expected = task.losses(model, batch)
    found = ManualGradient(model, task, weights)(batch)
    assert found["joint"].item() == pytest.approx(joint_loss(expected, weights).item(), rel=DOUBLE)
    assert found["regression"].item() == pytest.approx(expected["regression"].item(), rel=DOUBLE)


@pytest.mark.parametrize(
    ("bpr", "kind"), [("bpr_sigmoid", DataParallelManualGradientStepper), ("softmax", DataParallelStepper)]
)
def test_data_parallel_runs_use_the_manual_gradient_too(bpr, kind):
    settings = make_config(dataset="simulated", simulated_size=(30, 40, 600), ranking_loss=bpr, quiet=True)
    training = RECIPE.build(settings, RECIPE.load_data(settings), CPU)
    stepper = make_stepper(training.model, training.task, settings, CPU, SINGLE_PROCESS)
    assert type(stepper) is kind
