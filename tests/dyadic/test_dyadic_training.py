"""The draw of triples, the stopping rule, training, and options that are refused."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from dyadic_worlds import plain_losses, random_case, toy_dyads

from analysis.dyadic import single_task
from config.dyadic import TASKS, LearnerOptions
from config.errors import UserError
from dyadic.data import DyadicData
from dyadic.features import add_features
from dyadic.network import build_network, scores
from dyadic.sampling import Inputs, make_sampler, prepare
from dyadic.simulate import simulate
from dyadic.task import train
from dyadic.updates import largest_change, run_epoch, steps_per_epoch, triple_losses


@pytest.fixture(scope="module")
def world() -> DyadicData:
    return add_features(simulate(0.01), quiet=True)


# Users 0 (one click, nine ignored), 1 (three clicks, one ignored), 2 (clicks only), 3 (ignores only).
LOPSIDED = [(0, i) for i in range(10)] + [(1, i) for i in range(4)] + [(2, 0), (2, 1), (3, 0)]
LOPSIDED_CLICKS = [1] + [0] * 9 + [1, 1, 1, 0] + [1, 1, 0]


def lopsided() -> DyadicData:
    return toy_dyads(LOPSIDED, [(click, 0, 0) for click in LOPSIDED_CLICKS])


def test_a_triple_holds_a_clicked_and_an_ignored_dyad_of_a_uniform_user():
    data = lopsided()
    pairs = make_sampler(data).draw(20_000, 3, 1)
    users = data.user_ids[pairs]
    assert (users[:, 0] == users[:, 1]).all()
    assert set(users[:, 0]) == {0, 1}
    assert (data.labels[pairs[:, 0], 0] == 1).all()
    assert (data.labels[pairs[:, 1], 0] == 0).all()
    assert (users[:, 0] == 0).mean() == pytest.approx(0.5, abs=0.015)
    assert np.bincount(pairs[:, 1])[1:10] == pytest.approx(np.full(9, 20_000 / 18), rel=0.15)


def test_the_mean_of_sampled_losses_is_the_objective_with_equal_weight_per_user():
    data = lopsided()
    net, _, _ = random_case(users=4, items=10, num_static=2, d=2)
    random = np.random.default_rng(5)
    static = torch.from_numpy(random.normal(size=(len(data), 2)))
    ids = (torch.from_numpy(column) for column in (data.user_ids, data.item_ids))
    inputs = Inputs(static, *ids, torch.from_numpy(random.choice([-1.0, 1.0], size=(len(data), 2))))
    by_user = []
    for user in (0, 1):
        rows = np.flatnonzero(data.user_ids == user)
        clicks = data.labels[rows, 0] == 1
        all_pairs = [(i, j) for i in rows[clicks] for j in rows[~clicks]]
        by_user.append(np.array([plain_losses(net, inputs, pair).detach().numpy() for pair in all_pairs]))
    objective = np.mean([losses.mean(0) for losses in by_user], axis=0)
    by_pair = np.concatenate(by_user).mean(0)
    drawn = triple_losses(net, inputs, make_sampler(data).draw(200_000, 0, 1), LearnerOptions(embedding_dim=2)).data
    assert drawn == pytest.approx(objective, abs=0.01)
    assert abs(by_pair - objective).max() > 0.05


def test_a_draw_depends_only_on_seed_and_epoch():
    sampler = make_sampler(lopsided())
    assert (sampler.draw(50, 1, 2) == sampler.draw(50, 1, 2)).all()
    assert (sampler.draw(50, 1, 2) != sampler.draw(50, 2, 1)).any()
    assert (sampler.draw(50, 1, 2) != sampler.draw(50, 1, 3)).any()


def test_iterations_as_formula_auto_or_number():
    data = lopsided()
    sampler = make_sampler(data)
    assert sampler.formula == 2 * 1 * 1  # users 2 and 3 are not in U', and the minima ignore them
    assert steps_per_epoch(LearnerOptions(iterations="formula"), sampler, data) == 2
    assert steps_per_epoch(LearnerOptions(iterations="auto"), sampler, data) == len(data.train) == 17
    assert steps_per_epoch(LearnerOptions(iterations="7"), sampler, data) == 7
    even = toy_dyads([(u, i) for u in range(3) for i in range(5)], [(i < 2, 0, 0) for _ in range(3) for i in range(5)])
    assert make_sampler(even).formula == 3 * 2 * 3


def test_the_stopping_rule_compares_the_largest_change_or_the_total():
    before = np.array([1.0, 2.0, 3.0, 4.0])
    after = np.array([0.9, 2.1, 3.0, 4.0])
    assert largest_change(before, after, LearnerOptions()) == pytest.approx(0.1)
    assert largest_change(before, after, LearnerOptions(stop_rule="total")) == pytest.approx(0.0)
    assert largest_change(None, after, LearnerOptions()) == math.inf


def test_training_ends_by_the_stopping_rule_or_after_all_epochs(world):
    options = LearnerOptions(iterations="500", epochs=3, eps=0.0, batch_size=50)
    trained = train(world, options, quiet=True)
    assert (len(trained.history), trained.ending) == (3, "finished")
    converged = train(world, replace(options, eps=100.0), quiet=True)
    assert (len(converged.history), converged.ending) == (2, "converged")
    assert set(converged.history[0]) >= {"epoch", "train_click", "reg_embedding", "fixed_reply", "stop_max_delta"}


def test_training_is_repeatable_and_can_be_resumed(world):
    options = LearnerOptions(iterations="400", batch_size=20)
    sampler, inputs = make_sampler(world), prepare(world)
    straight = build_network(world, sampler, options)
    for epoch in (1, 2):
        run_epoch(straight, inputs, sampler.draw(400, options.seed, epoch), options)
    first = build_network(world, sampler, options)
    run_epoch(first, inputs, sampler.draw(400, options.seed, 1), options)
    resumed = build_network(world, sampler, replace(options, seed=99))
    resumed.load_state_dict(first.state_dict())
    run_epoch(resumed, inputs, sampler.draw(400, options.seed, 2), options)
    for name in straight.state_dict():
        assert (getattr(resumed, name) == getattr(straight, name)).all()


def test_training_lowers_the_losses_of_the_learned_tasks(world):
    sampler, inputs = make_sampler(world), prepare(world)
    fixed = sampler.draw(2_000, 0, 0, 1)
    for tasks in (TASKS, *((task,) for task in TASKS)):
        options = LearnerOptions(iterations="5000", batch_size=10, lambdas=(0.0,), learn=tasks)
        net = build_network(world, sampler, options)
        before = triple_losses(net, inputs, fixed, options).data
        run_epoch(net, inputs, sampler.draw(5_000, 0, 1), options)
        after = triple_losses(net, inputs, fixed, options).data
        for index, task in enumerate(TASKS):
            assert after[index] < before[index] if task in tasks else after[index] == before[index] == 0


def test_context_is_scaled_by_training_dyads_only():
    data = toy_dyads([(0, 0), (0, 1), (1, 0), (1, 1)], [(1, 0, 0), (0, 0, 0), (1, 0, 0), (0, 0, 0)], train=[0, 1])
    data = replace(data, features=np.zeros((4, 15)), context=np.array([[1.0, 7], [3.0, 7], [100.0, 8], [2.0, 7]]))
    assert prepare(data).static[:, 15:].tolist() == [[-1, 0], [1, 0], [98, 0], [0, 0]]
    with pytest.raises(ValueError, match="add_features first"):
        prepare(replace(data, features=None))


def test_the_width_of_x_is_the_number_of_columns(world):
    net = build_network(world, make_sampler(world), LearnerOptions())
    assert len(net.w1) == 15 + 16 + 30 + 30 == 91


def test_embeddings_of_users_and_items_in_no_triple_are_zero():
    data = lopsided()
    data = replace(add_features(data), train=np.arange(3, len(data)))
    net = build_network(data, make_sampler(data), LearnerOptions(init="uniform"))
    assert (net.U[[0, 2, 3]] == 0).all()
    assert (net.U[1] > 0).any()
    assert (net.I[4:] == 0).all()


def test_scores_equal_their_definition(world):
    options = LearnerOptions(iterations="200", epochs=1)
    trained = train(world, options, quiet=True)
    rows = world.test[:7]
    by_task = scores(trained.model, trained.inputs, rows, options)
    assert list(by_task) == list(TASKS)
    net, inputs = trained.model, trained.inputs
    w2, users, items = net.w2.detach(), net.U.detach(), net.I.detach()
    for place, row in enumerate(rows):
        user, item = users[inputs.user_ids[row]], items[inputs.item_ids[row]]
        x = torch.cat([inputs.static[row], user, item])
        assert by_task["bookmark"][place] == pytest.approx(float(w2 @ x))
        assert by_task["embedding"][place] == pytest.approx(float(user @ item))


def test_single_tasks_in_both_readings():
    plain = single_task(LearnerOptions(), "features")
    assert {task: (o.learn, o.embedding_dim) for task, o in plain.items()} == {
        "click": (("click",), 0),
        "bookmark": (("bookmark",), 0),
        "reply": (("reply",), 0),
        "embedding": (("embedding",), 30),
    }
    assert all(o.embedding_dim == 30 for o in single_task(LearnerOptions(), "private").values())
    with pytest.raises(UserError, match="unknown reading"):
        single_task(LearnerOptions(), "shared")
    with pytest.raises(UserError, match="private embeddings"):
        single_task(LearnerOptions(emb_grad="emb_only"), "private")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"lr": 0.1, "batch_size": 64}, r"lr \* batch_size = 6.4 exceeds 2.*lower --lr or --batch_size"),
        ({"lr": 0.0}, "--lr must be greater than 0"),
        ({"lr": math.nan}, "--lr must be greater than 0"),
        ({"lambdas": (0.1, 0.1, -0.1, 0.1)}, "--lambdas must be 0 or more"),
        ({"lambdas": (0.1, 0.1)}, "--lambdas takes one number or four, not 2"),
        ({"class_weights": (0.0, 1.0)}, "--class_weights must be greater than 0"),
        ({"emb_grad": "some"}, "--emb_grad cannot be 'some'"),
        ({"learn": ("click", "buy")}, "--learn cannot be 'buy'"),
        ({"learn": ("click", "click")}, "--learn names a task twice"),
        ({"learn": ("embedding",), "embedding_dim": 0}, "--learn embedding needs embeddings"),
        ({"learn": ("click", "embedding"), "embedding_dim": 0}, "--learn embedding needs embeddings"),
        ({"iterations": "many"}, "--iterations must be"),
        ({"iterations": "0"}, "--iterations must be"),
        ({"epochs": 0}, "--epochs must be at least 1"),
    ],
)
def test_wrong_options_are_refused(wrong, says):
    with pytest.raises(UserError, match=says):
        LearnerOptions(**wrong)


@pytest.mark.parametrize(("given", "four"), [((0.1,), (0.1,) * 4), ((0.1, 0.2, 0.3, 0.0), (0.1, 0.2, 0.3, 0.0))])
def test_lambdas_are_one_number_or_four(given, four):
    assert LearnerOptions(lambdas=given).four_lambdas == four


def test_without_embeddings_there_are_three_tasks(world):
    options = LearnerOptions(embedding_dim=0, iterations="300", epochs=1)
    trained = train(world, options, quiet=True)
    assert list(scores(trained.model, trained.inputs, world.test, options)) == ["click", "bookmark", "reply"]
    assert trained.history[0]["train_embedding"] == trained.history[0]["reg_embedding"] == 0
    batched = train(world, replace(options, batch_size=30), quiet=True)
    assert batched.history[0]["train_click"] == pytest.approx(trained.history[0]["train_click"], rel=0.05)


def test_data_without_a_user_to_draw_are_refused():
    with pytest.raises(UserError, match="nothing to rank"):
        make_sampler(toy_dyads([(0, 0), (0, 1)], [(1, 0, 0), (1, 0, 0)]))


def test_diverging_losses_raise_an_error(world):
    options = LearnerOptions(lr=2.0, lambdas=(1e3,), iterations="500", epochs=1)
    with pytest.raises(UserError, match=r"in epoch 1: lower --lr \(now 2\)"):
        train(world, options, quiet=True)
