"""The four losses, their gradients against autograd, and batches against single steps."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from dyadic_worlds import copy_of, plain_losses, plain_regularization, random_case

from config.dyadic import TASKS, LearnerOptions
from dyadic.data import DyadicData
from dyadic.features import add_features
from dyadic.network import DyadicNet, build_network
from dyadic.sampling import Inputs, make_sampler, prepare
from dyadic.simulate import simulate
from dyadic.updates import batched_steps, exact_steps, run_epoch, triple_losses

NAMES = ("w1", "w2", "w3", "U", "I")
LAM = (0.1, 0.2, 0.05, 0.03)


@pytest.fixture(scope="module")
def world() -> DyadicData:
    return add_features(simulate(0.01), quiet=True)


@pytest.mark.parametrize("class_weights", [(1.0, 1.0), (7.0, 5.0)])
@pytest.mark.parametrize("emb_grad", ["full", "emb_only"])
@pytest.mark.parametrize("steps", [exact_steps, batched_steps])
def test_gradients_equal_autograd(steps, emb_grad, class_weights):
    net, inputs, triples = random_case()
    options = LearnerOptions(lr=1.0, lambdas=LAM, class_weights=class_weights, embedding_dim=3, emb_grad=emb_grad)
    for triple in triples[:40]:
        before = copy_of(net)
        loss = plain_losses(before, inputs, triple, class_weights, detach=emb_grad == "emb_only").sum()
        (loss + plain_regularization(before, inputs, triple, LAM).sum()).backward()
        after = copy_of(net)
        steps(after, inputs, triple[None], options)
        for name in NAMES:
            taken = (getattr(before, name) - getattr(after, name)).detach()
            assert taken == pytest.approx(getattr(before, name).grad, abs=1e-10), name


def test_a_triple_by_hand():
    net = DyadicNet(1, 1, 2, 1)
    with torch.no_grad():
        net.w1.copy_(torch.tensor([1.0, 5.0, 2.0]))  # x = (s, U, I)
        net.w2.copy_(torch.tensor([0.5, 1.0, 0.0]))
        net.w3.copy_(torch.tensor([0.0, 0.0, 1.0]))
        net.U.fill_(0.5)
        net.I.copy_(torch.tensor([[1.0], [0.8]]))
    inputs = Inputs(
        torch.tensor([[1.0], [0.7]], dtype=torch.float64),
        torch.tensor([0, 0]),
        torch.tensor([0, 1]),
        torch.tensor([[1.0, -1.0], [-1.0, -1.0]], dtype=torch.float64),
    )
    options = LearnerOptions(lr=0.1, lambdas=(0.1,), class_weights=(7.0, 5.0), embedding_dim=1)
    losses = triple_losses(net, inputs, np.array([[0, 1]]), options)

    def sp(z):
        return math.log1p(math.exp(z))

    expected = [sp(-0.7), (7 * sp(-1.0) + sp(0.85)) / 2, (sp(1.0) + sp(0.8)) / 2, sp(-0.1)]
    assert losses.data == pytest.approx(expected)
    assert losses.data[0] == pytest.approx(0.403186, abs=1e-6)
    assert losses.regularization == pytest.approx([3.0, 0.125, 0.1, 0.1 * (0.25 + 1 + 0.64)])
    exact_steps(net, inputs, np.array([[0, 1]]), options)
    away = 1 / (1 + math.exp(0.7))
    assert net.w1.tolist() == pytest.approx([1 - 0.1 * (0.2 - 0.3 * away), 5 - 0.1 * 1.0, 2 - 0.1 * (0.4 - 0.2 * away)])


def test_l1_is_unchanged_when_the_pair_and_the_sign_of_w1_are_swapped():
    net, inputs, triples = random_case()
    forward = triple_losses(net, inputs, triples[:1], LearnerOptions(embedding_dim=3)).data[0]
    with torch.no_grad():
        net.w1.neg_()
    backward = triple_losses(net, inputs, triples[:1, ::-1].copy(), LearnerOptions(embedding_dim=3)).data[0]
    assert forward == pytest.approx(backward, abs=1e-15)


def test_columns_that_are_equal_for_both_items_cancel_in_the_click_ranking():
    net, inputs, triples = random_case()
    user_context = torch.from_numpy(np.random.default_rng(1).normal(size=len(net.U)))
    static = torch.cat([inputs.static[:, :4], user_context[inputs.user_ids][:, None]], dim=1)
    inputs = replace(inputs, static=static)
    options = LearnerOptions(lr=0.01, lambdas=(0.1, 0.0, 0.0, 0.0), embedding_dim=3, learn=("click",))
    same_for_i_and_j = [4, 5, 6, 7]  # a context column of the user, and the user's embedding
    for steps in (exact_steps, batched_steps):
        after = copy_of(net)
        steps(after, inputs, triples[:1], options)
        decayed = net.w1[same_for_i_and_j] * (1 - 2 * 0.01 * 0.1)
        assert after.w1[same_for_i_and_j].tolist() == pytest.approx(decayed.tolist(), abs=1e-15)
        assert (after.U == net.U).all()


def test_with_emb_only_the_other_tasks_do_not_change_the_embeddings():
    net, inputs, triples = random_case()
    options = LearnerOptions(embedding_dim=3, emb_grad="emb_only")
    all_tasks, one_task = copy_of(net), copy_of(net)
    exact_steps(all_tasks, inputs, triples, options)
    exact_steps(one_task, inputs, triples, replace(options, learn=("embedding",)))
    assert (all_tasks.U == one_task.U).all()
    assert (all_tasks.I == one_task.I).all()
    assert (one_task.w1 == net.w1).all()


def test_the_l2_gradient_of_a_coordinate_is_proportional_to_the_coordinate():
    net, inputs, triples = random_case(num_static=3, d=0)
    with torch.no_grad():
        net.w2.copy_(torch.tensor([1.0, -2.0, 3.0]))
    inputs = replace(inputs, static=torch.zeros_like(inputs.static))
    exact_steps(net, inputs, triples[:1], LearnerOptions(lr=1.0, lambdas=(0.1,), embedding_dim=0))
    step = np.array([1.0, -2.0, 3.0]) - net.w2.detach().numpy()
    assert step == pytest.approx([0.2, -0.4, 0.6])  # 2 lambda w; in the authors' code 2 lambda sum(w) = 0.4 everywhere


@pytest.mark.parametrize("emb_grad", ["full", "emb_only"])
def test_a_batch_of_one_is_the_exact_step(emb_grad):
    net, inputs, triples = random_case()
    options = LearnerOptions(class_weights=(7.0, 5.0), embedding_dim=3, emb_grad=emb_grad)
    exact, batched = copy_of(net), copy_of(net)
    exact_losses = exact_steps(exact, inputs, triples, options)
    batched_losses = batched_steps(batched, inputs, triples, options)
    for name in NAMES:
        assert getattr(exact, name).detach() == pytest.approx(getattr(batched, name).detach(), abs=1e-12)
    assert exact_losses.data == pytest.approx(batched_losses.data, abs=1e-12)
    assert exact_losses.regularization == pytest.approx(batched_losses.regularization, abs=1e-12)


def test_a_batch_approximates_its_single_steps(world):
    options = LearnerOptions(lr=1e-3, class_weights=(7.0, 5.0))
    sampler, inputs = make_sampler(world), prepare(world)
    start = build_network(world, sampler, options)
    triples = sampler.draw(6_400, 0, 1)
    exact, batched = copy_of(start), copy_of(start)
    exact_steps(exact, inputs, triples, options)
    batched_steps(batched, inputs, triples, replace(options, batch_size=64))
    for name in NAMES:
        moved = getattr(exact, name) - getattr(start, name)
        assert (getattr(batched, name) - getattr(exact, name)).norm() < 0.01 * moved.norm(), name


def test_a_triple_twice_in_a_batch_moves_the_parameters_twice_as_far():
    net, inputs, triples = random_case()
    triple = triples[:1]
    options = LearnerOptions(lr=1e-2, lambdas=(0.1,), embedding_dim=3, batch_size=2)
    once, twice = copy_of(net), copy_of(net)
    batched_steps(once, inputs, triple, options)
    batched_steps(twice, inputs, triple.repeat(2, axis=0), options)
    for name in NAMES:
        one = (getattr(once, name) - getattr(net, name)).detach()
        assert (getattr(twice, name) - getattr(net, name)).detach() == pytest.approx(2 * one, abs=1e-14)


def test_an_epoch_reports_losses_before_and_regularization_after_each_step():
    net, inputs, triples = random_case()
    options = LearnerOptions(lambdas=LAM, embedding_dim=3)
    walker, data, regularization = copy_of(net), [], []
    for triple in triples[:20]:
        data.append(plain_losses(walker, inputs, triple).detach().numpy())
        exact_steps(walker, inputs, triple[None], options)
        regularization.append(plain_regularization(walker, inputs, triple, LAM).detach().numpy())
    losses = run_epoch(net, inputs, triples[:20], options)
    assert losses.data == pytest.approx(np.mean(data, axis=0))
    assert losses.regularization == pytest.approx(np.mean(regularization, axis=0))


def test_triple_losses_equal_the_slow_version():
    net, inputs, triples = random_case()
    for tasks in (TASKS, ("bookmark",), ("click", "embedding")):
        options = LearnerOptions(lambdas=LAM, class_weights=(7.0, 5.0), embedding_dim=3, learn=tasks)
        on = np.array([task in tasks for task in TASKS])
        losses = triple_losses(net, inputs, triples, options)
        plain = np.mean([plain_losses(net, inputs, t, (7.0, 5.0)).detach().numpy() for t in triples], axis=0)
        assert losses.data == pytest.approx(plain * on)
        regularization = np.mean([plain_regularization(net, inputs, t, LAM).detach().numpy() for t in triples], axis=0)
        assert losses.regularization == pytest.approx(regularization * [*on[:3], True])
