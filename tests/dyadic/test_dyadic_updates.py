"""The four losses, their gradients against autograd, and batches against single steps."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from dyadic.learner import DyadicNet, batched_steps, build_net, exact_steps, run_epoch, triple_losses
from dyadic_worlds import copy_of, plain_losses, plain_penalties, random_case

from config.dyadic import TASKS, LearnerOptions
from dyadic.data import DyadicData
from dyadic.features import add_features
from dyadic.sampling import Inputs, make_sampler, prepare
from dyadic.simulate import simulate

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
        (loss + plain_penalties(before, inputs, triple, LAM).sum()).backward()
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
    assert losses.penalties == pytest.approx([3.0, 0.125, 0.1, 0.1 * (0.25 + 1 + 0.64)])
    exact_steps(net, inputs, np.array([[0, 1]]), options)
    away = 1 / (1 + math.exp(0.7))
    assert net.w1.tolist() == pytest.approx([1 - 0.1 * (0.2 - 0.3 * away), 5 - 0.1 * 1.0, 2 - 0.1 * (0.4 - 0.2 * away)])


def test_swapping_the_pair_and_its_sign_changes_nothing():
    net, inputs, triples = random_case()
    forward = triple_losses(net, inputs, triples[:1], LearnerOptions(embedding_dim=3)).data[0]
    with torch.no_grad():
        net.w1.neg_()
    backward = triple_losses(net, inputs, triples[:1, ::-1].copy(), LearnerOptions(embedding_dim=3)).data[0]
    assert forward == pytest.approx(backward, abs=1e-15)


def test_what_user_and_item_share_cancels_in_the_ranking_of_clicks():
    net, inputs, triples = random_case()
    user_context = torch.from_numpy(np.random.default_rng(1).normal(size=len(net.U)))
    static = torch.cat([inputs.static[:, :4], user_context[inputs.user_ids][:, None]], dim=1)
    inputs = replace(inputs, static=static)
    options = LearnerOptions(lr=0.01, lambdas=(0.1, 0.0, 0.0, 0.0), embedding_dim=3, learn=("click",))
    same_for_i_and_j = [4, 5, 6, 7]  # the column of context, and the user's embedding
    for steps in (exact_steps, batched_steps):
        after = copy_of(net)
        steps(after, inputs, triples[:1], options)
        decayed = net.w1[same_for_i_and_j] * (1 - 2 * 0.01 * 0.1)
        assert after.w1[same_for_i_and_j].tolist() == pytest.approx(decayed.tolist(), abs=1e-15)
        assert (after.U == net.U).all()


def test_embeddings_alone_do_not_feel_the_other_tasks():
    net, inputs, triples = random_case()
    options = LearnerOptions(embedding_dim=3, emb_grad="emb_only")
    all_tasks, one_task = copy_of(net), copy_of(net)
    exact_steps(all_tasks, inputs, triples, options)
    exact_steps(one_task, inputs, triples, replace(options, learn=("embedding",)))
    assert (all_tasks.U == one_task.U).all()
    assert (all_tasks.I == one_task.I).all()
    assert (one_task.w1 == net.w1).all()


def test_the_penalty_pulls_every_coordinate_by_its_own_size():
    net, inputs, triples = random_case(num_static=3, d=0)
    with torch.no_grad():
        net.w2.copy_(torch.tensor([1.0, -2.0, 3.0]))
    inputs = replace(inputs, static=torch.zeros_like(inputs.static))
    exact_steps(net, inputs, triples[:1], LearnerOptions(lr=1.0, lambdas=(0.1,), embedding_dim=0))
    pull = np.array([1.0, -2.0, 3.0]) - net.w2.detach().numpy()
    assert pull == pytest.approx([0.2, -0.4, 0.6])  # 2 lambda w; the authors' 2 lambda sum(w) is 0.4 everywhere


@pytest.mark.parametrize("emb_grad", ["full", "emb_only"])
def test_a_batch_of_one_is_the_exact_step(emb_grad):
    net, inputs, triples = random_case()
    options = LearnerOptions(class_weights=(7.0, 5.0), embedding_dim=3, emb_grad=emb_grad)
    exact, batched = copy_of(net), copy_of(net)
    of_exact = exact_steps(exact, inputs, triples, options)
    of_batched = batched_steps(batched, inputs, triples, options)
    for name in NAMES:
        assert getattr(exact, name).detach() == pytest.approx(getattr(batched, name).detach(), abs=1e-12)
    assert of_exact.data == pytest.approx(of_batched.data, abs=1e-12)
    assert of_exact.penalties == pytest.approx(of_batched.penalties, abs=1e-12)


def test_a_batch_stands_for_its_steps(world):
    options = LearnerOptions(lr=1e-3, class_weights=(7.0, 5.0))
    sampler, inputs = make_sampler(world), prepare(world)
    start = build_net(world, sampler, options)
    triples = sampler.draw(6_400, 0, 1)
    exact, batched = copy_of(start), copy_of(start)
    exact_steps(exact, inputs, triples, options)
    batched_steps(batched, inputs, triples, replace(options, batch_size=64))
    for name in NAMES:
        way = getattr(exact, name) - getattr(start, name)
        assert (getattr(batched, name) - getattr(exact, name)).norm() < 0.01 * way.norm(), name


def test_a_user_twice_in_a_batch_counts_twice():
    net, inputs, triples = random_case()
    triple = triples[:1]
    options = LearnerOptions(lr=1e-2, lambdas=(0.1,), embedding_dim=3, batch_size=2)
    once, twice = copy_of(net), copy_of(net)
    batched_steps(once, inputs, triple, options)
    batched_steps(twice, inputs, triple.repeat(2, axis=0), options)
    for name in NAMES:
        one = (getattr(once, name) - getattr(net, name)).detach()
        assert (getattr(twice, name) - getattr(net, name)).detach() == pytest.approx(2 * one, abs=1e-14)


def test_epochs_report_the_losses_before_and_the_penalties_after_each_step():
    net, inputs, triples = random_case()
    options = LearnerOptions(lambdas=LAM, embedding_dim=3)
    walker, data, penalties = copy_of(net), [], []
    for triple in triples[:20]:
        data.append(plain_losses(walker, inputs, triple).detach().numpy())
        exact_steps(walker, inputs, triple[None], options)
        penalties.append(plain_penalties(walker, inputs, triple, LAM).detach().numpy())
    losses = run_epoch(net, inputs, triples[:20], options)
    assert losses.data == pytest.approx(np.mean(data, axis=0))
    assert losses.penalties == pytest.approx(np.mean(penalties, axis=0))


def test_losses_of_given_triples_equal_the_plain_ones():
    net, inputs, triples = random_case()
    for tasks in (TASKS, ("bookmark",), ("click", "embedding")):
        options = LearnerOptions(lambdas=LAM, class_weights=(7.0, 5.0), embedding_dim=3, learn=tasks)
        on = np.array([task in tasks for task in TASKS])
        losses = triple_losses(net, inputs, triples, options)
        plain = np.mean([plain_losses(net, inputs, t, (7.0, 5.0)).detach().numpy() for t in triples], axis=0)
        assert losses.data == pytest.approx(plain * on)
        penalties = np.mean([plain_penalties(net, inputs, t, LAM).detach().numpy() for t in triples], axis=0)
        assert losses.penalties == pytest.approx(penalties * [*on[:3], True])
