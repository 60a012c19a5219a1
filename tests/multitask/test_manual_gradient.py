"""The gradient by hand is autograd's, step for step; and where it would not be, autograd takes the steps."""

import copy
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

import losses
import models
import registry as family
from config.settings import Settings
from dataset import Interactions
from losses import joint_loss
from models import MultiTaskNet
from multitask import manual_gradient as handwritten
from multitask.manual_gradient import HandwrittenGradient, HandwrittenSteps
from multitask.task import WatchAndRate
from training import data_parallel as parallel
from training.data_parallel import ParallelHandwrittenSteps, ParallelSteps
from training.loop import fit
from training.process_group import ALONE
from training.run_folder import RunFolder
from training.steps import GradientSteps, Stopped

CPU = torch.device("cpu")
# Largest difference after the trajectories below. In float64 they part by rounding alone. In float32 Adam divides by
# the size of the gradient, so that the rounding of a small one is passed on.
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


def both(model, task, **options) -> tuple[GradientSteps, HandwrittenSteps]:
    """Steps by autograd and by hand from the same weights."""
    settings = Settings(quiet=True, **options)
    return tuple(make(copy.deepcopy(model), task, settings, CPU) for make in (GradientSteps, HandwrittenSteps))


def run(steps, epochs) -> list[dict[str, float]]:
    return [steps.run_epoch(epoch, [], lambda: False) for epoch in epochs]


def assert_same(plain, ours, tolerance: float) -> None:
    """Weights and the optimizer's whole state."""
    close = partial(torch.testing.assert_close, rtol=tolerance, atol=tolerance)
    close(ours.model.state_dict(), plain.model.state_dict())
    close(ours.optimizer.state_dict()["state"], plain.optimizer.state_dict()["state"])
    assert ours.optimizer.state_dict()["param_groups"] == plain.optimizer.state_dict()["param_groups"]


TASKS = [
    {},
    {"negatives": 3},
    {"bpr": "bpr"},
    {"bpr": "bpr", "negatives": 3, "negative_sampling": "unseen"},
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
def test_epochs_by_hand_are_those_of_autograd(world, sharing, task):
    task = WatchAndRate(world, **{"batch_size": 16} | task)
    plain, ours = both(new_model(embedding_sharing=sharing), task)
    for row, expected in zip(run(ours, [1, 2]), run(plain, [1, 2]), strict=True):
        assert row == pytest.approx(expected, rel=DOUBLE)
    assert_same(plain, ours, DOUBLE)


@pytest.mark.parametrize("sharing", [True, False])
@pytest.mark.parametrize("task", [{}, {"negatives": 4, "negative_sampling": "hardest"}], ids=str)
def test_a_large_batch_in_parts_is_one_step(world, sharing, task, monkeypatch):
    monkeypatch.setattr(handwritten, "ROWS_AT_A_TIME", 50)  # 129 ratings: 50, 50 and 29
    plain, ours = both(new_model(embedding_sharing=sharing), WatchAndRate(world, batch_size=1000, **task))
    for row, expected in zip(run(ours, [1, 2]), run(plain, [1, 2]), strict=True):
        assert row == pytest.approx(expected, rel=DOUBLE)
    assert sorted(ours.gradient.buffers) == [29, 50]
    assert_same(plain, ours, DOUBLE)


@pytest.mark.parametrize("sharing", [True, False])
@pytest.mark.parametrize("layer_sizes", [[12], [12, 6], [12, 6, 5, 3]])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_any_mlp_and_any_setting_of_the_optimizer(world, sharing, layer_sizes, options):
    task = WatchAndRate(world, batch_size=64)
    plain, ours = both(new_model(embedding_sharing=sharing, layer_sizes=layer_sizes), task, **options)
    assert run(ours, [1, 2]) == [pytest.approx(row, rel=DOUBLE) for row in run(plain, [1, 2])]
    assert_same(plain, ours, DOUBLE)


@pytest.mark.parametrize("sharing", [True, False])
def test_in_float32_the_two_stay_together(tiny, sharing):
    model = MultiTaskNet(60, 80, embedding_sharing=sharing)
    plain, ours = both(model, WatchAndRate(tiny))
    assert run(ours, [1, 2, 3]) == [pytest.approx(row, rel=SINGLE) for row in run(plain, [1, 2, 3])]
    assert_same(plain, ours, SINGLE)


@pytest.mark.parametrize("sharing", [True, False])
def test_rows_that_no_rating_of_the_batch_names_have_no_gradient(world, sharing):
    model = new_model(embedding_sharing=sharing)
    gradient = HandwrittenGradient(model, WatchAndRate(world), {"factorization": 0.5, "regression": 0.5})
    batch = {name: torch.tensor(ids) for name, ids in {"user_ids": [3, 3], "item_ids": [5, 7]}.items()}
    batch |= {"ratings": torch.ones(2).double(), "negative_ids": torch.tensor([[8], [9]])}
    gradient({name: column.flip(0) * 0 + 1 for name, column in batch.items()})  # what was before does not stay
    gradient(batch)
    ranked, rated = ("U", "Q") if sharing else ("U_fact", "Q_fact"), ("U", "Q") if sharing else ("U_reg", "Q_reg")
    touched = {ranked[0]: [3], ranked[1]: [5, 7, 8, 9], "B": [5, 7, 8, 9]}
    touched |= {} if sharing else {rated[0]: [3], rated[1]: [5, 7]}
    for name, rows in touched.items():
        assert getattr(model, name).weight.grad.any(dim=1).nonzero().flatten().tolist() == rows


def test_a_stopped_epoch_says_so(world):
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
        settings = Settings(epochs=epochs, weight_decay=weight_decay)
        made = []

        def make_steps(*arguments):
            made.append(handwritten.make_steps(*arguments))
            return made[-1]

        fit(model, WatchAndRate(tiny), settings, folder, CPU, lambda line: None, make_steps=make_steps)
        assert type(made[0]) is HandwrittenSteps
        return (tmp_path / path / "metrics.csv").read_bytes(), model.state_dict()

    metrics, weights = train("whole", 4)
    train("parts", 2)
    resumed, twin = train("parts", 4)
    assert resumed == metrics
    assert all(twin[name].equal(value) for name, value in weights.items())


@pytest.mark.parametrize("sharing", [True, False])
def test_either_way_goes_on_where_the_other_left_off(world, sharing):
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


def steps_of(model, task, device=CPU, **settings) -> type:
    return type(handwritten.make_steps(model, task, Settings(**settings), device))


@pytest.mark.parametrize("sharing", [True, False])
@pytest.mark.parametrize("task", TASKS, ids=str)
def test_the_network_of_the_sheet_is_trained_by_hand(world, sharing, task):
    assert steps_of(new_model(embedding_sharing=sharing), WatchAndRate(world, **task)) is HandwrittenSteps


def test_family_takes_it_for_the_multitask_net_alone():
    from dataset import load

    data = load("simulated", simulated_size=(60, 80, 2400))
    model, task, make_steps = family.build(Settings(), data, CPU)
    assert type(make_steps(model, task, Settings(), CPU)) is HandwrittenSteps
    assert family.build(Settings(model="mmoe"), data, CPU)[2] is GradientSteps


@pytest.mark.parametrize("weighting", ["uncertainty", "gradnorm", "dwa", "pcgrad"])
def test_other_weightings_are_left_to_autograd(world, weighting):
    assert steps_of(new_model(), WatchAndRate(world), weighting=weighting) is GradientSteps


def test_other_devices_are_left_to_autograd(world):
    assert steps_of(new_model(), WatchAndRate(world), torch.device("meta")) is GradientSteps


@pytest.mark.parametrize("form", losses.PAIRWISE_LOSSES)
def test_every_form_of_the_ranking_loss_has_a_gradient_by_hand(world, form):
    assert steps_of(new_model(), WatchAndRate(world, bpr=form), bpr=form) is HandwrittenSteps


@pytest.mark.parametrize("named_in_settings", [True, False])
def test_a_form_without_a_gradient_by_hand_is_left_to_autograd(world, monkeypatch, named_in_settings):
    monkeypatch.setitem(losses.PAIRWISE_LOSSES, "hinge", lambda p, n: (1 - p + n).relu().mean())
    task = WatchAndRate(world, bpr="hinge")
    options = {"bpr": "hinge"} if named_in_settings else {}
    assert steps_of(new_model(), task, **options) is GradientSteps
    assert run(handwritten.make_steps(new_model(), task, Settings(quiet=True, **options), CPU), [1])


def test_a_form_that_is_redefined_is_left_to_autograd(world, monkeypatch):
    monkeypatch.setitem(losses.PAIRWISE_LOSSES, "bpr", lambda p, n: (n - p).exp().mean())
    assert steps_of(new_model(), WatchAndRate(world, bpr="bpr"), bpr="bpr") is GradientSteps


def test_a_network_of_another_class_is_left_to_autograd(world):
    class Own(MultiTaskNet):
        pass

    assert steps_of(Own(60, 80), WatchAndRate(world)) is GradientSteps


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
def test_a_network_that_was_changed_is_left_to_autograd(world, change):
    model = new_model().eval()  # training puts it in the other mode
    change(model)
    assert steps_of(model, WatchAndRate(world)) is GradientSteps


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
def test_a_forward_that_was_changed_is_left_to_autograd(world, monkeypatch, name):
    original = MultiTaskNet.forward
    monkeypatch.setattr(models.MultiTaskNet, "forward", lambda self, *ids: FORWARDS[name](*original(self, *ids)))
    assert steps_of(new_model(), WatchAndRate(world)) is GradientSteps


def test_a_forward_that_fails_is_told_by_the_training_and_not_before(world, monkeypatch):
    def forward(self, user_ids, item_ids):
        raise NotImplementedError("to do")

    monkeypatch.setattr(models.MultiTaskNet, "forward", forward)
    steps = handwritten.make_steps(new_model(), WatchAndRate(world), Settings(quiet=True), CPU)
    with pytest.raises(NotImplementedError, match="to do"):
        run(steps, [1])


@pytest.mark.parametrize("change", [lambda model: None, add_dropout], ids=["plain", "dropout"])
def test_the_comparison_touches_neither_the_network_nor_a_random_stream(world, change):
    model = new_model()
    change(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    handwritten.agrees(model, WatchAndRate(world), {"factorization": 0.5, "regression": 0.5})
    assert torch.get_rng_state().equal(state)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_losses_are_those_of_the_task_and_the_joint_one(world):
    task, model, weights = WatchAndRate(world, negatives=2), new_model(), {"factorization": 0.3, "regression": 2.0}
    batch = next(task.batches(1))
    expected = task.losses(model, batch)
    found = HandwrittenGradient(model, task, weights)(batch)
    assert found["joint"].item() == pytest.approx(joint_loss(expected, weights).item(), rel=DOUBLE)
    assert found["regression"].item() == pytest.approx(expected["regression"].item(), rel=DOUBLE)


@pytest.mark.parametrize(("bpr", "kind"), [("bpr_sigmoid", ParallelHandwrittenSteps), ("softmax", ParallelSteps)])
def test_processes_that_share_a_step_take_it_by_hand_too(bpr, kind):
    settings = Settings(dataset="simulated", simulated_size=[30, 40, 600], bpr=bpr, quiet=True)
    model, task, _ = family.build(settings, family.load_data(settings), CPU)
    assert type(parallel.make_steps(model, task, settings, CPU, ALONE)) is kind
