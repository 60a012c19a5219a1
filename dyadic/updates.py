"""The network, its four losses, and Algorithm 1 of Moura et al., step by step or in batches.

Letters, as in the paper:
    u, i, j    a user, an item the user clicked, and one observed and not clicked; a triple is the dyads (u, i), (u, j)
    x          (n,) a dyad: s statistics and context, then the user's and the item's embedding
    d          width of an embedding        n   width of x, s + 2 d
    w1 w2 w3   (n,) weights of clicking, bookmarking, replying
    U, I       (users, d), (items, d) embeddings; the fourth task ranks by U_u . I_i
    b, p       -1 or +1: bookmarked, replied
    N          steps in an epoch            B   triples in a batch
    G          slope of the data loss in the three scores w . x of a dyad

    l1 = sp(-w1 . (x_i - x_j))                                          sp(z) = log(1 + e^z)
    l2 = 1/2 [ a_i sp(-b_i w2 . x_i) + a_j sp(-b_j w2 . x_j) ]          a = class weight of a bookmark, else 1
    l3 = the same with p and w3
    l4 = sp(-U_u . (I_i - I_j))
    Omega = lam1 |w1|^2 + lam2 |w2|^2 + lam3 |w3|^2 + lam4 (|U_u|^2 + |I_i|^2 + |I_j|^2)

The problem is not convex (the paper says it is): U . I and w . U are products of unknowns.
"""

import math
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
FIXED_TRIPLES = 20_000  # always the same ones: the noise of fresh ones exceeds eps
FIXED_KEY = (0, 0, 1)  # of the triples that the stop rule looks at: no (seed, epoch) equals it


@dataclass(frozen=True)
class Losses:
    """Means over triples, for each of TASKS, 0 where it is not learnt.

    data: (4,) l1 to l4. penalties: (4,) lambda times the squared norms of w1, w2, w3 and the embeddings.
    """

    data: np.ndarray
    penalties: np.ndarray

    @property
    def total(self) -> np.ndarray:
        return self.data + self.penalties


def steps_per_epoch(options: LearnerOptions, sampler: Sampler, data: DyadicData) -> int:
    """N, as options.iterations says."""
    if options.iterations == "formula":
        return sampler.formula
    return max(sampler.formula, len(data.train)) if options.iterations == "auto" else int(options.iterations)


def run_epoch(net: DyadicNet, inputs: Inputs, triples: np.ndarray, options: LearnerOptions) -> Losses:
    """Take a step for each triple, in order, in place: one at a time on the CPU, or options.batch_size.

    Returns the running means of Algorithm 1: data losses before, penalties after each step.

    Args:
        triples: (N, 2) dyads, from `Sampler.draw`.

    Raises:
        FloatingPointError: a loss is no longer finite.
    """
    one_by_one = options.batch_size == 1 and net.U.device.type == "cpu"
    with np.errstate(over="ignore", invalid="ignore"):  # told below, once
        losses = (exact_steps if one_by_one else batched_steps)(net, inputs, triples, options)
    if not np.isfinite(losses.total).all():
        raise FloatingPointError(f"the losses became {losses.total}")
    return losses


def exact_steps(net: DyadicNet, inputs: Inputs, triples: np.ndarray, options: LearnerOptions) -> Losses:
    """Algorithm 1 to the letter: every triple sees the parameters that the one before it left behind.

    All gradients of a step are taken before any parameter moves. The L2 gradient is 2 lambda w, where the authors' code
    adds 2 lambda sum(w) to every coordinate.
    """
    eta, s, d, full = options.lr, net.num_static, net.d, options.emb_grad == "full"
    on, lam = _switches(options), _lambdas(options)
    shrink, shrink_rows = 1 - 2 * eta * lam[:3, None], float(1 - 2 * eta * lam[3])
    static, tables = inputs.static.numpy(), (net.U.detach().numpy(), net.I.detach().numpy())
    weights = net.weights.detach().numpy()
    pairs = torch.from_numpy(triples)
    columns = [pairs, inputs.user_ids[pairs[:, 0]], inputs.item_ids[pairs], inputs.signs[pairs]]
    columns.append(_half_weights(columns[-1], options))
    x = np.empty((2, s + 2 * d))
    sums, squares, square_rows = [0.0] * 4, np.zeros_like(weights), 0.0
    for dyads, u, (i, j), signs, halves in zip(*(column.tolist() for column in columns), strict=True):
        user, item_i, item_j = tables[0][u], tables[1][i], tables[1][j]  # views: what changes them changes the tables
        apart = item_i - item_j
        x[:, :s] = static[dyads]
        x[:, s : s + d] = user
        x[0, s + d :] = item_i
        x[1, s + d :] = item_j
        score_i, score_j = (x @ weights.T).tolist()

        l1, slope1 = _logistic(score_i[0] - score_j[0])
        l2_i, slope2_i = _classify(score_i[1], signs[0][0], halves[0][0])
        l2_j, slope2_j = _classify(score_j[1], signs[1][0], halves[1][0])
        l3_i, slope3_i = _classify(score_i[2], signs[0][1], halves[0][1])
        l3_j, slope3_j = _classify(score_j[2], signs[1][1], halves[1][1])
        l4, slope4 = _logistic(float(user.dot(apart)))
        slope1, slope4 = on[0] * slope1, on[3] * slope4
        slopes = np.array([[slope1, slope2_i, slope3_i], [-slope1, slope2_j, slope3_j]])  # G

        to_user, to_item = slope4 * apart, slope4 * user
        to_items = np.array([to_item, -to_item])
        if full:
            to_user += (slopes[0] + slopes[1]) @ weights[:, s : s + d]  # summed first: l1 cancels exactly
            to_items += slopes @ weights[:, s + d :]
        weights *= shrink
        weights -= eta * (slopes.T @ x)
        for row, gradient in [(user, to_user), (item_i, to_items[0]), (item_j, to_items[1])]:
            row *= shrink_rows
            row -= eta * gradient

        sums = [sums[0] + l1, sums[1] + l2_i + l2_j, sums[2] + l3_i + l3_j, sums[3] + l4]
        squares += weights * weights
        square_rows += user.dot(user) + item_i.dot(item_i) + item_j.dot(item_j)
    with torch.no_grad():
        for parameter, row in zip((net.w1, net.w2, net.w3), weights, strict=True):
            parameter.copy_(torch.from_numpy(row))
    return Losses(np.array(sums) * on / len(triples), lam * [*squares.sum(1), square_rows] / len(triples))


def batched_steps(net: DyadicNet, inputs: Inputs, triples: np.ndarray, options: LearnerOptions) -> Losses:
    """The same triples in batches: summed gradients at frozen parameters, and the decay of every occurrence.

    A batch stands for its B steps up to (eta B)^2. A row that occurs twice gets both gradients and decays twice. On a
    CUDA device the order in which they are added varies, and with it the last bits.
    """
    with torch.no_grad():
        device, s, d = net.U.device, net.num_static, net.d
        lam = torch.from_numpy(_lambdas(options)).to(device)
        weights = net.weights
        sums, penalties = torch.zeros_like(lam), torch.zeros_like(lam)
        for pairs in torch.from_numpy(triples).to(device).split(options.batch_size):
            batch = _Batch(net, weights, inputs, pairs, options)
            sums += batch.losses().sum(0)
            slopes, slope4 = batch.slopes()
            to_user = slope4 * batch.apart
            to_items = torch.stack([slope4 * batch.user, -slope4 * batch.user], dim=1)  # (B, 2, d)
            if options.emb_grad == "full":
                to_user += slopes.sum(1) @ weights[:, s : s + d]
                to_items += slopes @ weights[:, s + d :]
            to_user += 2 * lam[3] * batch.user
            to_items += 2 * lam[3] * batch.items
            gradient = slopes.flatten(0, 1).T @ batch.x.flatten(0, 1) + 2 * len(pairs) * lam[:3, None] * weights
            weights -= options.lr * gradient
            net.U.index_add_(0, batch.user_ids, to_user, alpha=-options.lr)
            net.I.index_add_(0, batch.item_ids.flatten(), to_items.flatten(0, 1), alpha=-options.lr)
            rows = net.U[batch.user_ids].square().sum() + net.I[batch.item_ids].square().sum()
            penalties += lam * torch.cat([len(pairs) * weights.square().sum(1), rows[None]])
        for parameter, row in zip((net.w1, net.w2, net.w3), weights, strict=True):
            parameter.copy_(row)
    return Losses(*((total / len(triples)).cpu().numpy() for total in (sums, penalties)))


def triple_losses(net: DyadicNet, inputs: Inputs, triples: np.ndarray, options: LearnerOptions) -> Losses:
    """Mean losses and penalties of given triples at the present parameters; changes nothing. For the stop rule."""
    sums = torch.zeros(4, dtype=torch.float64, device=net.U.device)
    lam = torch.from_numpy(_lambdas(options)).to(sums.device)
    penalties = torch.zeros_like(sums)
    with torch.no_grad():
        for pairs in torch.from_numpy(triples).to(sums.device).split(CHUNK_TRIPLES):
            batch = _Batch(net, net.weights, inputs, pairs, options)
            sums += batch.losses().sum(0)
            penalties += lam * batch.squares().sum(0)
    return Losses(*((total / len(triples)).cpu().numpy() for total in (sums, penalties)))


def largest_change(previous: Losses | None, current: Losses, options: LearnerOptions) -> float:
    """What the stop rule compares with eps: the change of the slowest task, or that of the sum. inf at the start."""
    if previous is None:
        return math.inf
    change = current.total - previous.total
    return float(abs(change).max() if options.stop_rule == "max" else abs(change.sum()))


class _Batch:
    """B triples at given parameters: inputs, margins, and from them losses and slopes.

    user (B, d), items (B, 2, d), x (B, 2, n), apart (B, d): I_i - I_j; in the axis of two, i comes before j.
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
        """(B, 4) l1 to l4; 0 for what is not learnt."""
        classified = (self.half * F.softplus(-self.margins)).sum(1)  # (B, 2)
        ranked = [F.softplus(-margin)[:, None] for margin in (self.click_margin, self.embedding_margin)]
        return torch.cat([ranked[0], classified, ranked[1]], dim=1) * self.on

    def slopes(self) -> tuple[Tensor, Tensor]:
        """G (B, 2, 3), and the slope of l4 in its margin (B, 1)."""
        click = -self.on[0] * torch.sigmoid(-self.click_margin)
        classify = -self.half * self.signs * torch.sigmoid(-self.margins)
        ranked = torch.stack([click, -click], dim=1)[:, :, None]
        return torch.cat([ranked, classify], dim=2), -self.on[3] * torch.sigmoid(-self.embedding_margin)[:, None]

    def squares(self) -> Tensor:
        """(B, 4) squared norms of what a triple touches: w1, w2, w3, and the three embeddings together."""
        rows = self.user.square().sum(1) + self.items.square().sum((1, 2))
        return torch.cat([self.weights.square().sum(1).expand(len(rows), 3), rows[:, None]], dim=1)


def _logistic(margin: float) -> tuple[float, float]:
    """sp(-margin) and its slope, -sigmoid(-margin), without overflow."""
    small = math.exp(-abs(margin))
    if margin >= 0:
        return math.log1p(small), -small / (1 + small)
    return math.log1p(small) - margin, -1 / (1 + small)


def _classify(score: float, sign: float, half_weight: float) -> tuple[float, float]:
    """One half of l2 or l3, and its slope in the score."""
    loss, slope = _logistic(sign * score)
    return half_weight * loss, half_weight * sign * slope


def _switches(options: LearnerOptions) -> np.ndarray:
    """(4,) 1 for a task that is learnt, 0 for another."""
    return np.array([float(task in options.active) for task in TASKS])


def _lambdas(options: LearnerOptions) -> np.ndarray:
    """(4,) weights of the penalties; embeddings are penalised whichever task they serve."""
    return np.array(options.four_lambdas) * [*_switches(options)[:3], 1.0]


def _half_weights(signs: Tensor, options: LearnerOptions) -> Tensor:
    """Half the class weights, (..., 2) as `signs`; 0 for a task that is not learnt."""
    weight = torch.tensor(options.class_weights, dtype=signs.dtype, device=signs.device)
    on = torch.tensor(_switches(options)[1:3], dtype=signs.dtype, device=signs.device)
    return 0.5 * on * torch.where(signs > 0, weight, 1.0)
