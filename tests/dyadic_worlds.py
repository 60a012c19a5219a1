"""Small dyads and networks that the tests of the dyadic learner share, and its losses written out plainly."""

import numpy as np
import torch
from torch.nn.functional import softplus

from dyadic.data import DyadicData
from dyadic.network import DyadicNet
from dyadic.sampling import Inputs


def toy_dyads(pairs, labels, train=None, num_users=None, num_items=None) -> DyadicData:
    """Dyads from (user, item) pairs and their three labels, without context; all train unless said otherwise."""
    pairs, labels = np.array(pairs), np.array(labels)
    train = np.arange(len(pairs)) if train is None else np.array(train)
    return DyadicData(
        name="toy",
        users=np.arange(num_users or pairs[:, 0].max() + 1).astype(str),
        items=np.arange(num_items or pairs[:, 1].max() + 1).astype(str),
        user_ids=pairs[:, 0],
        item_ids=pairs[:, 1],
        labels=labels,
        context=np.empty((len(pairs), 0)),
        train=train,
        test=np.setdiff1d(np.arange(len(pairs)), train),
    )


def random_case(seed: int = 0, users: int = 6, items: int = 8, num_static: int = 5, d: int = 3):
    """A network with random parameters, all pairs of users and items as dyads, and triples without a meaning."""
    random = np.random.default_rng(seed)
    net = DyadicNet(num_static, users, items, d)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.from_numpy(random.normal(0, 0.7, tuple(parameter.shape))))
    user_ids, item_ids = (torch.from_numpy(ids.ravel()) for ids in np.indices((users, items)))
    static = torch.from_numpy(random.normal(size=(users * items, num_static)))
    signs = torch.from_numpy(random.choice([-1.0, 1.0], size=(users * items, 2)))
    user = random.integers(users, size=500)
    first = random.integers(items, size=500)
    second = (first + random.integers(1, items, size=500)) % items
    return net, Inputs(static, user_ids, item_ids, signs), user[:, None] * items + np.column_stack([first, second])


def copy_of(net: DyadicNet) -> DyadicNet:
    twin = DyadicNet(net.num_static, len(net.U), len(net.I), net.d)
    twin.load_state_dict(net.state_dict())
    return twin


def plain_losses(net, inputs, triple, class_weights=(1.0, 1.0), detach=False):
    """l1 to l4 of one triple, written out: differentiable. `detach` cuts the embeddings off tasks 1 to 3."""
    i, j = triple
    u = inputs.user_ids[i]
    item_i, item_j = net.I[inputs.item_ids[i]], net.I[inputs.item_ids[j]]
    cut = (lambda tensor: tensor.detach()) if detach else (lambda tensor: tensor)
    x_i = torch.cat([inputs.static[i], cut(net.U[u]), cut(item_i)])
    x_j = torch.cat([inputs.static[j], cut(net.U[u]), cut(item_j)])
    losses = [softplus(-net.w1 @ (x_i - x_j))]
    for task, w in enumerate([net.w2, net.w3]):
        parts = []
        for row, x in [(i, x_i), (j, x_j)]:
            sign = inputs.signs[row, task]
            weight = class_weights[task] if sign > 0 else 1.0
            parts.append(weight * softplus(-sign * (w @ x)))
        losses.append(sum(parts) / 2)
    losses.append(softplus(-net.U[u] @ (item_i - item_j)))
    return torch.stack(losses)


def plain_penalties(net, inputs, triple, lam):
    i, j = triple
    rows = [net.U[inputs.user_ids[i]], net.I[inputs.item_ids[i]], net.I[inputs.item_ids[j]]]
    squares = [w.square().sum() for w in (net.w1, net.w2, net.w3)] + [sum(row.square().sum() for row in rows)]
    return torch.stack([weight * square for weight, square in zip(lam, squares, strict=True)])
