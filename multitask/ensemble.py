"""The mean of several networks in one: members are trained each by itself and lie side by side in it.

With f_theta linear, the mean of K multi-task nets of width d is a multi-task net of width K d, exactly: dot products of
joined embeddings add up, and so do linear functions of them. What one member has learnt of its random start and order
the others have not, so that the mean errs less than its members do (Breiman 1996, bagging; here without resampling).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from models import MultiTaskNet
from multitask.item_based import ItemBasedNet

APART = 10**6  # between the seeds of members


class EnsembleStepper:
    """Trains K networks side by side; after each epoch the model is their mean.

    Args:
        model: a network K times as wide as a member; what is in it is written over.
        build: makes the network, the task and the stepper factory of a member, from its settings.
    """

    def __init__(self, model: MultiTaskNet, task, settings, device: torch.device, build: Callable) -> None:
        self.model = model
        self.members, self.steppers, self.checkpoint_parts = [], [], {}
        for number in range(settings.members):
            own = settings_of(number, settings)
            member, own_task, make_stepper = build(own)
            stepper = make_stepper(member, own_task, own, device)
            self.members.append(member)
            self.steppers.append(stepper)
            self.checkpoint_parts |= {
                f"{name} of member {number}": part for name, part in stepper.checkpoint_parts.items()
            }
            self.checkpoint_parts[f"member {number}"] = member
        average_into(self.members, self.model)

    def has_converged(self, history) -> bool:
        return False

    def run_epoch(self, epoch: int, history, stop: Callable[[], bool]) -> dict[str, float]:
        """One epoch of every member: the means of their columns, also where these are losses of two kinds."""
        rows = [stepper.run_epoch(epoch, history, stop) for stepper in self.steppers]
        average_into(self.members, self.model)
        return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


def settings_of(number: int, settings):
    """The settings of one member: a width and a seed of its own. The last are the denoisers, whose tables do not decay.

    A table of users is held in check by its decay, which users made of items do without: half of these is hidden.
    """
    is_denoiser = number >= settings.members - settings.denoisers
    width = settings.embedding_dim // settings.members
    return replace(
        settings, members=1, denoisers=int(is_denoiser), embedding_dim=width, layer_sizes=[3 * width],
        seed=(settings.seed + number * APART) % 2**32,
        embedding_decay=0.0 if is_denoiser else settings.embedding_decay,
    )  # fmt: skip


@torch.no_grad()
def average_into(members: Sequence[MultiTaskNet], into: MultiTaskNet) -> None:
    """Make a network the mean of K others, up to rounding: p of all of them, r of those that are no denoisers.

    Users are joined as they are and items divided by K. The one layer of f_theta then finds items and products already
    divided. Denoisers rank well and rate worse, so that r is theirs only where there are no others.

    Args:
        members: K networks of width d whose f_theta is one linear layer.
        into: such a network of width K d.
    """
    count = len(members)
    names = ("U", "Q") if into.embedding_sharing else ("U_reg", "Q_reg", "U_fact", "Q_fact")
    for name in names:
        tables = torch.cat([getattr(member, name).weight for member in members], dim=1)
        getattr(into, name).weight.copy_(tables / count if name.startswith("Q") else tables)
    into.B.weight.copy_(sum(member.B.weight for member in members) / count)
    raters = [member for member in members if not isinstance(member, ItemBasedNet)] or members
    shares = [(member in raters) / len(raters) for member in members]  # of each in r
    layers = [member.mlp_layers[0] for member in members]
    into.mlp_layers[0].bias.copy_(sum(share * layer.bias for share, layer in zip(shares, layers, strict=True)))
    thirds = zip(*(layer.weight.chunk(3, dim=1) for layer in layers), strict=True)  # for u, for q, for u * q
    for place, parts, factor in zip(into.mlp_layers[0].weight.chunk(3, dim=1), thirds, (1, count, count), strict=True):
        place.copy_(torch.cat([factor * share * part for share, part in zip(shares, parts, strict=True)], dim=1))
