"""The building blocks of the zoo's networks.

Symbols used throughout the zoo, beside those of models.py:
    T  tasks                      D  width of a network's input, 3d      h  width of an expert's output
    E  experts of a gate          x  input (B, D)                        z  input of a tower (B, h)
    m  experts of one task        s  shared experts                      y  logit (B,): sigmoid(y) is a probability
    f  expert                     g  weights of a gate (B, E)            F  outputs of several experts (B, E, h)

Arguments that every network has:
    num_users, num_items, embedding_dim    sizes of the embedding tables
    tasks                                  names of the labels, one or more
    expert_units                           layer widths of an expert, or of the bottom where there are no experts
    tower_units                            widths of the hidden layers of a tower

No network uses dropout or batch normalization: the logits of a row depend on that row alone.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from losses import ratio_logit
from models import ScaledEmbedding

TASKS = ("view", "like")  # the default labels


class Network(nn.Module):
    """Base class of the zoo. A subclass defines `towers` and computes their inputs in `_represent`.

    Args:
        tasks: names of the labels. In a chain, each label can be 1 only where the label before it is 1.

    Raises:
        ValueError: `tasks` is empty, names a task twice, or is a single string.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        if isinstance(tasks, str) or not tasks or len(set(tasks)) != len(tasks):
            raise ValueError(f"tasks must be one or more different names, not {tasks!r}")
        self.tasks = tuple(tasks)

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> dict[str, Tensor]:
        """One logit per task for each pair: (B,), (B,) -> {task: (B,)}, in the order of `tasks`."""
        representations, _ = self._represent(user_ids, item_ids)
        return {task: tower(z) for task, tower, z in zip(self.tasks, self.towers, representations, strict=True)}

    def gates(self, user_ids: Tensor, item_ids: Tensor) -> dict[str, Tensor]:
        """The mixture weights of every gate: (B,), (B,) -> {name of the gate: (B, E)}; rows sum to 1."""
        return self._represent(user_ids, item_ids)[1]

    def conditional_logits(self, user_ids: Tensor, item_ids: Tensor) -> dict[str, Tensor]:
        """Logits of P(task | the task before it), for networks whose `forward` means P(task and all before it).

        The ratio of the two probabilities, clipped below 1 (see `losses.ratio_logit`); the first task's logit is
        unchanged. (B,), (B,) -> {task: (B,)}.
        """
        joint = self(user_ids, item_ids)
        first, *later = self.tasks
        ratios = {
            task: ratio_logit(joint[task], joint[before]) for before, task in zip(self.tasks, later, strict=False)
        }
        return {first: joint[first], **ratios}

    def _represent(self, user_ids: Tensor, item_ids: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Return the inputs of the towers, T times (B, h), and the weights of every gate by its name."""
        raise NotImplementedError


class PairEncoder(nn.Module):
    """One pair of embedding tables: (user, item) -> x = [u, q, u * q], (B, 3d).

    The input of MultiTaskNet's MLP as well. An MLP on [u, q] alone learns products slowly (Rendle et al. 2020).

    Raises:
        ValueError: a size is not positive.
    """

    def __init__(self, num_users: int, num_items: int, embedding_dim: int) -> None:
        super().__init__()
        if min(num_users, num_items, embedding_dim) < 1:
            raise ValueError(f"sizes must be at least 1, not {num_users} users, {num_items} items, d = {embedding_dim}")
        self.U = ScaledEmbedding(num_users, embedding_dim)
        self.Q = ScaledEmbedding(num_items, embedding_dim)
        self.width = 3 * embedding_dim

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        user, item = self.U(user_ids), self.Q(item_ids)  # (B, d) each
        return torch.cat([user, item, user * item], dim=1)


class MLP(nn.Sequential):
    """Dense layers, each followed by a ReLU: (B, width) -> (B, units[-1]); the identity if `units` is empty."""

    def __init__(self, width: int, units: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for width_in, width_out in zip([width, *units], units, strict=False):
            layers += [nn.Linear(width_in, width_out), nn.ReLU()]
        super().__init__(*layers)
        self.width = units[-1] if units else width


class Tower(nn.Module):
    """The head of one task: an MLP and a linear output, (B, h) -> logits (B,)."""

    def __init__(self, width: int, units: Sequence[int]) -> None:
        super().__init__()
        self.hidden = MLP(width, units)
        self.output = nn.Linear(self.hidden.width, 1)

    def forward(self, z: Tensor) -> Tensor:
        return self.output(self.hidden(z)).squeeze(1)


class Gate(nn.Linear):
    """Mixture weights softmax(W x): (B, D) -> (B, E). One linear map without a bias, as in Ma et al. 2018 (MMoE)."""

    def __init__(self, width: int, num_experts: int) -> None:
        super().__init__(width, num_experts, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).softmax(dim=1)


class ExpertBank(nn.Module):
    """E MLPs of one shape on the same input, computed together: (B, D) -> (B, E, h).

    The weights of a layer are (E, fan_in, fan_out). The first layer is one matrix product of width E * fan_out, every
    further layer a batch of E products. Each expert is initialized like an `MLP`.

    Raises:
        ValueError: `num_experts` is below 1, or `units` is empty.
    """

    def __init__(self, num_experts: int, width: int, units: Sequence[int]) -> None:
        super().__init__()
        if num_experts < 1:
            raise ValueError(f"there must be at least 1 expert, not {num_experts}")
        if not units:
            raise ValueError("an expert needs at least one layer: expert_units is empty")
        shapes = list(zip([width, *units], units, strict=False))
        self.weights = nn.ParameterList(torch.empty(num_experts, *shape) for shape in shapes)
        self.biases = nn.ParameterList(torch.empty(num_experts, fan_out) for _, fan_out in shapes)
        self.width = units[-1]
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for weight, bias in zip(self.weights, self.biases, strict=True):
            bound = 1 / math.sqrt(weight.shape[1])  # as nn.Linear
            nn.init.uniform_(weight, -bound, bound)
            nn.init.uniform_(bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        num_experts, width, fan_out = self.weights[0].shape
        flat = self.weights[0].transpose(0, 1).reshape(width, num_experts * fan_out)
        hidden = torch.addmm(self.biases[0].flatten(), x, flat).relu_().view(-1, num_experts, fan_out)  # (B, E, ..)
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            product = torch.bmm(hidden.transpose(0, 1), weight).transpose(0, 1)  # (B, E, fan_out)
            hidden = (product + bias).relu_()
        return hidden


def mix(gates: Sequence[Tensor], experts: Tensor) -> list[Tensor]:
    """Mix the experts by the weights of each gate, in one product: (B, E) each, (B, E, h) -> (B, h) each."""
    return list(torch.bmm(torch.stack(list(gates), dim=1), experts).unbind(dim=1))


def make_encoders(count: int, num_users: int, num_items: int, embedding_dim: int) -> nn.ModuleList:
    return nn.ModuleList(PairEncoder(num_users, num_items, embedding_dim) for _ in range(count))


def make_towers(width: int, units: Sequence[int], num_tasks: int) -> nn.ModuleList:
    return nn.ModuleList(Tower(width, units) for _ in range(num_tasks))


def broadcast(values: list, count: int) -> list:
    """Repeat a single value `count` times; a longer list is returned as it is."""
    return values * count if len(values) == 1 else values


def name_gates(names: Sequence[str], gates: Sequence[Tensor], level: int, levels: int) -> dict[str, Tensor]:
    """Name the gates of one level by what reads them; the level is part of the name if there are several."""
    place = f", level {level}" if levels > 1 else ""
    return {f"{name}{place}": gate for name, gate in zip(names, gates, strict=False)}
