"""The four losses of Moura et al. and Algorithm 1, in single steps or in batches.

Letters, as in the paper:
    u, i, j    a user, an item that the user clicked, and an item that the user observed and did not click; a triple is
               the dyads (u, i) and (u, j)
    x          (n,) a dyad: s statistics and context, then the user's and the item's embedding
    d          width of an embedding        n   width of x, s + 2 d
    w1 w2 w3   (n,) weights of clicking, bookmarking, replying
    U, I       (users, d), (items, d) embeddings; the fourth task ranks by U_u . I_i
    b, p       -1 or +1: bookmarked, replied
    N          steps in an epoch            B   triples in a batch
    G          gradient of the data loss in the three scores w . x of a dyad

    l1 = sp(-w1 . (x_i - x_j))                                          sp(z) = log(1 + e^z)
    l2 = 1/2 [ a_i sp(-b_i w2 . x_i) + a_j sp(-b_j w2 . x_j) ]          a = class weight of a bookmark, else 1
    l3 = the same with p and w3
    l4 = sp(-U_u . (I_i - I_j))
    Omega = lam1 |w1|^2 + lam2 |w2|^2 + lam3 |w3|^2 + lam4 (|U_u|^2 + |I_i|^2 + |I_j|^2)

The paper calls the problem convex. It is not: U . I and w . U are products of parameters.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from config.dyadic import TASKS, LearnerOptions
from dyadic.data import DyadicData
from dyadic.network import DyadicNet
from dyadic.sampling import Inputs, Sampler

CHUNK_TRIPLES = 2**16
FIXED_TRIPLES = 20_000  # for the stopping rule; with new triples each epoch, sampling noise would exceed eps
FIXED_KEY = (0, 0, 1)  # key of their draw; it differs from every (seed, epoch)


@dataclass(frozen=True)
class Losses:
    """Means over triples for each of TASKS; 0 for a task that is not learned.

    data: (4,) l1 to l4.
    regularization: (4,) lambda times the squared norm of w1, w2, w3 and the embeddings.
    """

    data: np.ndarray
    regularization: np.ndarray

    @property
    def total(self) -> np.ndarray:
        return self.data + self.regularization


def steps_per_epoch(options: LearnerOptions, sampler: Sampler, data: DyadicData) -> int:
    """N, from options.iterations."""
    if options.iterations == "formula":
        return sampler.formula
    return max(sampler.formula, len(data.train)) if options.iterations == "auto" else int(options.iterations)


def run_epoch(net: DyadicNet, inputs: Inputs, triples: np.ndarray, options: LearnerOptions) -> Losses:
    """Train on the triples in order, in place: in exact steps (batch_size 1 on the CPU) or in batches.

    Returns the running means of Algorithm 1: data losses before each step, regularization after it.

    Args:
        triples: (N, 2) dyads, from `Sampler.draw`.

    Raises:
        FloatingPointError: a loss is no longer finite.
    """
    use_exact = options.batch_size == 1 and net.U.device.type == "cpu"
    with np.errstate(over="ignore", invalid="ignore"):  # the check below raises instead
        losses = (exact_steps if use_exact else batched_steps)(net, inputs, triples, options)
    if not np.isfinite(losses.total).all():
        raise FloatingPointError(f"the losses became {losses.total}")
    return losses


def exact_steps(net: DyadicNet, inputs: Inputs, triples: np.ndarray, options: LearnerOptions) -> Losses:
    """Algorithm 1 exactly: every step starts from the parameters that the previous step left.

    A step computes all gradients before it changes a parameter. The L2 gradient is 2 lambda w, where the authors' code
    adds 2 lambda sum(w) to every coordinate.
    """
    eta, s, d, full = options.lr, net.num_static, net.d, options.emb_grad == "full"
    on, lam = _switches(options), _lambdas(options)
    decay, row_decay = 1 - 2 * eta * lam[:3, None], float(1 - 2 * eta * lam[3])
    static, users, items = inputs.static.numpy(), net.U.detach().numpy(), net.I.detach().numpy()
    weights = net.weights.detach().numpy()
    x = np.empty((2, s + 2 * d))
    sums, squares, square_rows = [0.0] * 4, np.zeros_like(weights), 0.0
    for dyads, u, (i, j), signs, halves in zip(*_triple_columns(inputs, triples, options), strict=True):
        user, item_i, item_j = users[u], items[i], items[j]  # views: changing them changes the tables
        apart = item_i - item_j
        x[:, :s] = static[dyads]
        x[:, s : s + d] = user
        x[0, s + d :] = item_i
        x[1, s + d :] = item_j
        score_i, score_j = (x @ weights.T).tolist()

        l1, grad1 = _logistic(score_i[0] - score_j[0])
        l4, grad4 = _logistic(float(user.dot(apart)))
        grad1, grad4 = on[0] * grad1, on[3] * grad4
        (l2_i, l3_i), grads_i = _classify(score_i, signs[0], halves[0])
        (l2_j, l3_j), grads_j = _classify(score_j, signs[1], halves[1])
        score_grad = np.array([[grad1, *grads_i], [-grad1, *grads_j]])  # G

        user_grad, item_grad = grad4 * apart, grad4 * user
        item_grads = np.array([item_grad, -item_grad])
        if full:
            user_grad += (score_grad[0] + score_grad[1]) @ weights[:, s : s + d]  # the sum cancels l1 exactly
            item_grads += score_grad @ weights[:, s + d :]
        weights *= decay
        weights -= eta * (score_grad.T @ x)
        for row, gradient in [(user, user_grad), (item_i, item_grads[0]), (item_j, item_grads[1])]:
            row *= row_decay
            row -= eta * gradient

        sums = [sums[0] + l1, sums[1] + l2_i + l2_j, sums[2] + l3_i + l3_j, sums[3] + l4]
        squares += weights * weights
        square_rows += user.dot(user) + item_i.dot(item_i) + item_j.dot(item_j)
    _store(net, torch.from_numpy(weights))
    return Losses(np.array(sums) * on / len(triples), lam * [*squares.sum(1), square_rows] / len(triples))


def batched_steps(net: DyadicNet, inputs: Inputs, triples: np.ndarray, options: LearnerOptions) -> Losses:
    """The same triples in batches: gradients and L2 decay are summed at the parameters before the batch.

    A batch equals its B steps up to (eta B)^2. A row that occurs twice gets both gradients and decays twice. On a CUDA
    device the order of these additions varies, and so do the last bits.
    """
    lam = torch.from_numpy(_lambdas(options)).to(net.U.device)
    sums, regularization = torch.zeros_like(lam), torch.zeros_like(lam)
    with torch.no_grad():
        weights = net.weights
        for pairs in torch.from_numpy(triples).to(lam.device).split(options.batch_size):
            batch = _Batch(net, weights, inputs, pairs, options)
            sums += batch.losses().sum(0)
            _take_batch(net, weights, batch, lam, options)
            rows = net.U[batch.user_ids].square().sum() + net.I[batch.item_ids].square().sum()
            regularization += lam * torch.cat([len(pairs) * weights.square().sum(1), rows[None]])
        _store(net, weights)
    return Losses(*((total / len(triples)).cpu().numpy() for total in (sums, regularization)))


def _take_batch(net: DyadicNet, weights: Tensor, batch: "_Batch", lam: Tensor, options: LearnerOptions) -> None:
    """Subtract the summed gradients of a batch from `weights` (3, n) and from the embeddings, in place."""
    s, d = net.num_static, net.d
    score_grad, grad4 = batch.gradients()
    user_grad = grad4 * batch.apart
    item_grad = torch.stack([grad4 * batch.user, -grad4 * batch.user], dim=1)  # (B, 2, d)
    if options.emb_grad == "full":
        user_grad += score_grad.sum(1) @ weights[:, s : s + d]
        item_grad += score_grad @ weights[:, s + d :]
    user_grad += 2 * lam[3] * batch.user
    item_grad += 2 * lam[3] * batch.items
    gradient = score_grad.flatten(0, 1).T @ batch.x.flatten(0, 1) + 2 * len(batch.x) * lam[:3, None] * weights
    weights -= options.lr * gradient
    net.U.index_add_(0, batch.user_ids, user_grad, alpha=-options.lr)
    net.I.index_add_(0, batch.item_ids.flatten(), item_grad.flatten(0, 1), alpha=-options.lr)


def triple_losses(net: DyadicNet, inputs: Inputs, triples: np.ndarray, options: LearnerOptions) -> Losses:
    """Mean losses of the given triples at the current parameters, without training. For the stopping rule."""
    lam = torch.from_numpy(_lambdas(options)).to(net.U.device)
    sums, regularization = torch.zeros_like(lam), torch.zeros_like(lam)
    with torch.no_grad():
        for pairs in torch.from_numpy(triples).to(lam.device).split(CHUNK_TRIPLES):
            batch = _Batch(net, net.weights, inputs, pairs, options)
            sums += batch.losses().sum(0)
            regularization += lam * batch.squares().sum(0)
    return Losses(*((total / len(triples)).cpu().numpy() for total in (sums, regularization)))


def largest_change(previous: np.ndarray | None, current: np.ndarray, options: LearnerOptions) -> float:
    """The change that the stopping rule compares with eps: the largest of a task, or that of the sum.

    Args:
        previous, current: (4,) total losses of the tasks; previous is None in the first epoch, which returns inf.
    """
    if previous is None:
        return math.inf
    change = current - previous
    return float(abs(change).max() if options.stop_rule == "max" else abs(change.sum()))


class _Batch:
    """B triples at the given parameters: inputs, margins, losses and gradients.

    user (B, d), items (B, 2, d), x (B, 2, n), apart (B, d): I_i - I_j. In the axis of two, i precedes j.
    """

    def __init__(self, net: DyadicNet, weights: Tensor, inputs: Inputs, pairs: Tensor, options: LearnerOptions) -> None:
        self.weights = weights
        self.on = torch.from_numpy(_switches(options)).to(pairs.device)
        self.user_ids, self.item_ids = inputs.user_ids[pairs[:, 0]], inputs.item_ids[pairs]
        self.user, self.items = net.U[self.user_ids], net.I[self.item_ids]
        self.apart = self.items[:, 0] - self.items[:, 1]
        self.x = torch.cat([inputs.static[pairs], self.user[:, None].expand_as(self.items), self.items], dim=2)
        self.signs = inputs.signs[pairs]  # (B, 2, 2): i and j, bookmark and reply
        self.half = _half_weights(self.signs, options)
        score = self.x @ weights.T  # (B, 2, 3)
        self.margins = self.signs * score[:, :, 1:]
        self.click_margin = score[:, 0, 0] - score[:, 1, 0]
        self.embedding_margin = (self.user * self.apart).sum(1)

    def losses(self) -> Tensor:
        """(B, 4) l1 to l4; 0 for a task that is not learned."""
        classified = (self.half * F.softplus(-self.margins)).sum(1)  # (B, 2)
        ranked = [F.softplus(-margin)[:, None] for margin in (self.click_margin, self.embedding_margin)]
        return torch.cat([ranked[0], classified, ranked[1]], dim=1) * self.on

    def gradients(self) -> tuple[Tensor, Tensor]:
        """G (B, 2, 3), and the gradient of l4 in its margin (B, 1)."""
        click = -self.on[0] * torch.sigmoid(-self.click_margin)
        classify = -self.half * self.signs * torch.sigmoid(-self.margins)
        ranked = torch.stack([click, -click], dim=1)[:, :, None]
        return torch.cat([ranked, classify], dim=2), -self.on[3] * torch.sigmoid(-self.embedding_margin)[:, None]

    def squares(self) -> Tensor:
        """(B, 4) squared norms of the parameters of each triple: w1, w2, w3, and its three embeddings together."""
        rows = self.user.square().sum(1) + self.items.square().sum((1, 2))
        return torch.cat([self.weights.square().sum(1).expand(len(rows), 3), rows[:, None]], dim=1)


def _triple_columns(inputs: Inputs, triples: np.ndarray, options: LearnerOptions) -> Sequence[list]:
    """Triples as lists, which a Python loop reads faster than tensors: dyads, user, items, signs, half weights."""
    pairs = torch.from_numpy(triples)
    signs = inputs.signs[pairs]
    columns = [pairs, inputs.user_ids[pairs[:, 0]], inputs.item_ids[pairs], signs, _half_weights(signs, options)]
    return [column.tolist() for column in columns]


def _store(net: DyadicNet, weights: Tensor) -> None:
    """Copy `weights` (3, n) into w1, w2 and w3."""
    with torch.no_grad():
        for parameter, row in zip((net.w1, net.w2, net.w3), weights, strict=True):
            parameter.copy_(row)


def _logistic(margin: float) -> tuple[float, float]:
    """sp(-margin) and its gradient in the margin, -sigmoid(-margin), without overflow."""
    small = math.exp(-abs(margin))
    if margin >= 0:
        return math.log1p(small), -small / (1 + small)
    return math.log1p(small) - margin, -1 / (1 + small)


def _classify(scores: list[float], signs: list[float], halves: list[float]) -> tuple[tuple, tuple]:
    """The parts of l2 and l3 of one dyad, and their gradients in the scores w2 . x and w3 . x."""
    l2, grad2 = _logistic(signs[0] * scores[1])
    l3, grad3 = _logistic(signs[1] * scores[2])
    return (halves[0] * l2, halves[1] * l3), (halves[0] * signs[0] * grad2, halves[1] * signs[1] * grad3)


def _switches(options: LearnerOptions) -> np.ndarray:
    """(4,) 1 for a learned task, 0 for another."""
    return np.array([float(task in options.active) for task in TASKS])


def _lambdas(options: LearnerOptions) -> np.ndarray:
    """(4,) weights of the regularizers; embeddings are regularized whichever tasks are learned."""
    return np.array(options.four_lambdas) * [*_switches(options)[:3], 1.0]


def _half_weights(signs: Tensor, options: LearnerOptions) -> Tensor:
    """Half the class weights, (..., 2) as `signs`; 0 for a task that is not learned."""
    weight = torch.tensor(options.class_weights, dtype=signs.dtype, device=signs.device)
    on = torch.tensor(_switches(options)[1:3], dtype=signs.dtype, device=signs.device)
    return 0.5 * on * torch.where(signs > 0, weight, 1.0)
