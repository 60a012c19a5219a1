"""The building blocks of the zoo.

Letters used throughout, beside those of models.py:
    T  tasks            D  width of a network's input, 3d          h  width of an expert's output
    E  experts          x  input (B, D)                            z  what a tower reads (B, h)
    m  experts of one task        s  shared experts                y  logit (B,): sigmoid(y) is a probability

There is no dropout and no batch normalisation: a row's logits depend on that row alone.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from losses import ratio_logit
from models import ScaledEmbedding


class Network(nn.Module):
    """What every network of the zoo answers. A subclass says in `_represent` what its towers read.

    Args:
        tasks: names of the labels, in the order of the chain: a label can only be 1 where the one before it is.

    Raises:
        ValueError: there is no task, one is named twice, or `tasks` is a single string.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        if isinstance(tasks, str) or not tasks or len(set(tasks)) != len(tasks):
            raise ValueError(f"tasks must be one or more different names, not {tasks!r}")
        self.tasks = tuple(tasks)

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> dict[str, Tensor]:
        """One logit a task and pair: (B,), (B,) -> {task: (B,)}, tasks in their order; no sigmoid inside."""
        representations, _ = self._represent(user_ids, item_ids)
        return {task: tower(z) for task, tower, z in zip(self.tasks, self.towers, representations, strict=True)}

    def gates(self, user_ids: Tensor, item_ids: Tensor) -> dict[str, Tensor]:
        """The mixture weights of every gate: {name of the gate: (B, experts it chooses from)}; rows sum to 1."""
        return self._represent(user_ids, item_ids)[1]

    def conditional_logits(self, user_ids: Tensor, item_ids: Tensor) -> dict[str, Tensor]:
        """Logits of P(task | the task before it), for a network whose `forward` means P(task and all before it).

        The ratio of the two probabilities, held below 1; the first task's logit is as it is. {task: (B,)}.
        """
        joint = self(user_ids, item_ids)
        first, *later = self.tasks
        ratios = {
            task: ratio_logit(joint[task], joint[before]) for before, task in zip(self.tasks, later, strict=False)
        }
        return {first: joint[first], **ratios}

    def _represent(self, user_ids: Tensor, item_ids: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
        """What each tower reads, T times (B, h), and the gate weights that made it."""
        raise NotImplementedError


class PairEncoder(nn.Module):
    """One pair of embedding tables: (user, item) -> x = [u, q, u * q], (B, 3d).

    An MLP on [u, q] alone learns products slowly (Rendle et al. 2020); this is the input of MultiTaskNet's MLP as well.

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
        user, item = self.U(user_ids), self.Q(item_ids)
        return torch.cat([user, item, user * item], dim=1)


class MLP(nn.Sequential):
    """Dense layers, each followed by a ReLU: (B, width) -> (B, units[-1]); without units the identity."""

    def __init__(self, width: int, units: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for width_in, width_out in zip([width, *units], units, strict=False):
            layers += [nn.Linear(width_in, width_out), nn.ReLU()]
        super().__init__(*layers)
        self.width = units[-1] if units else width


class Tower(nn.Module):
    """The head of one task: an MLP and one linear output, (B, h) -> logit (B,)."""

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
    """E MLPs of one shape that read the same input, computed as one: (B, D) -> (B, E, h).

    Layer by layer the weights are (E, fan_in, fan_out): the first layer is one matrix product of width E * fan_out, the
    further ones are a batch of E products. Each expert starts as an `MLP` would.

    Raises:
        ValueError: there is no expert, or an expert has no layer.
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
            bound = 1 / math.sqrt(weight.shape[1])  # that of nn.Linear
            nn.init.uniform_(weight, -bound, bound)
            nn.init.uniform_(bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        num_experts, width, fan_out = self.weights[0].shape
        flat = self.weights[0].transpose(0, 1).reshape(width, num_experts * fan_out)
        hidden = torch.addmm(self.biases[0].flatten(), x, flat).relu_().view(-1, num_experts, fan_out)
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            product = torch.bmm(hidden.transpose(0, 1), weight).transpose(0, 1)  # (B, E, fan_out)
            hidden = (product + bias).relu_()
        return hidden


def mix(gates: Sequence[Tensor], experts: Tensor) -> list[Tensor]:
    """The mixtures of experts by the weights of some gates, read in one pass: (B, E) each, (B, E, h) -> (B, h) each."""
    return list(torch.bmm(torch.stack(list(gates), dim=1), experts).unbind(dim=1))


def make_encoders(count: int, num_users: int, num_items: int, embedding_dim: int) -> nn.ModuleList:
    return nn.ModuleList(PairEncoder(num_users, num_items, embedding_dim) for _ in range(count))


def make_towers(width: int, units: Sequence[int], num_tasks: int) -> nn.ModuleList:
    return nn.ModuleList(Tower(width, units) for _ in range(num_tasks))


def name_gates(names: Sequence[str], gates: Sequence[Tensor], level: int, levels: int) -> dict[str, Tensor]:
    """The gates of one level by the names of those they serve, with the level where there are several."""
    place = f", level {level}" if levels > 1 else ""
    return {f"{name}{place}": gate for name, gate in zip(names, gates, strict=False)}
