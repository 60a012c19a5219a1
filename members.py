"""The mean of several networks in one: members are trained each by itself and lie side by side in it.

With f_theta linear, the mean of K multi-task nets of width d is a multi-task net of width K d, exactly: dot products of
joined embeddings add up, and so do linear functions of them. What one member has learnt of its random start and order
the others have not, so that the mean errs less than its members do (Breiman 1996, bagging; here without resampling).
"""

import copy
from collections.abc import Callable, Sequence

import torch

from models import MultiTaskNet

APART = 10**6  # between the seeds of members


class MemberSteps:
    """Steps of K members; after each epoch the network is their mean.

    Args:
        model: a network K times as wide as a member; what is in it is written over.
        make_member: (seed) -> a fresh member.
        make_steps: the steps of one member, as (model, task, settings, device).
    """

    def __init__(
        self, model: MultiTaskNet, task, settings, device: torch.device, make_member: Callable, make_steps: Callable
    ) -> None:
        self.model = model
        self.members, self.steps, self.parts = [], [], {}
        for number in range(settings.members):
            seed = (settings.seed + number * APART) % 2**32
            own_task = copy.copy(task)
            own_task.seed = seed
            member = make_member(seed)
            steps = make_steps(member, own_task, settings, device)
            self.members.append(member)
            self.steps.append(steps)
            self.parts |= {f"{name} of member {number}": part for name, part in steps.parts.items()}
            self.parts[f"member {number}"] = member
        merge(self.members, self.model)

    def is_settled(self, history) -> bool:
        return False

    def run_epoch(self, epoch: int, history, stop: Callable[[], bool]) -> dict[str, float]:
        """One epoch of every member: the means of their columns. See gradient.GradientSteps."""
        rows = [steps.run_epoch(epoch, history, stop) for steps in self.steps]
        merge(self.members, self.model)
        return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


@torch.no_grad()
def merge(members: Sequence[MultiTaskNet], into: MultiTaskNet) -> None:
    """Make a network the mean of K others: both its outputs are the means of theirs, up to rounding.

    Users are joined as they are and items divided by K. The one layer of f_theta then finds the product already
    divided, and the item as well, so that only its weights for users are divided by K.

    Args:
        members: K networks of width d whose f_theta is one linear layer.
        into: such a network of width K d.
    """
    count = len(members)
    names = ("U", "Q") if into.embedding_sharing else ("U_reg", "Q_reg", "U_fact", "Q_fact")
    for name in names:
        tables = torch.cat([getattr(member, name).weight for member in members], dim=1)
        getattr(into, name).weight.copy_(tables / count if name.startswith("Q") else tables)
    into.B.weight.copy_(_mean([member.B.weight for member in members]))
    layers = [member.mlp_layers[0] for member in members]
    into.mlp_layers[0].bias.copy_(_mean([layer.bias for layer in layers]))
    thirds = zip(*(layer.weight.chunk(3, dim=1) for layer in layers), strict=True)  # for u, for q, for u * q
    users, items, products = (torch.cat(parts, dim=1) for parts in thirds)
    into.mlp_layers[0].weight.copy_(torch.cat([users / count, items, products], dim=1))


def _mean(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(tensors)).mean(dim=0)
