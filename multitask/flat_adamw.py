"""AdamW on parameters that are views of one flat tensor."""

import torch
from torch import Tensor, nn


class FlatAdamW:
    """AdamW with one fused operation per step. Its state_dict is that of torch.optim.AdamW.

    Args:
        groups: one group of parameters in the format of torch.optim.AdamW.
        values, gradients: the flat tensors (n,) of `flatten`, of which the parameters and their .grad are views.
        options: as for torch.optim.AdamW.
    """

    def __init__(self, groups: list[dict], values: Tensor, gradients: Tensor, **options) -> None:
        self.adamw = torch.optim.AdamW(groups, **options)
        self.values, self.gradients = values, gradients
        self.counts = torch.zeros(len(groups[0]["params"]))  # of steps; AdamW keeps one count per parameter
        self.moments = {"exp_avg": torch.zeros_like(values), "exp_avg_sq": torch.zeros_like(values)}
        self._view_state()

    @property
    def param_groups(self) -> list[dict]:
        return self.adamw.param_groups

    def _view_state(self) -> None:
        """Make the AdamW state of every parameter a view of the flat state."""
        for parameter, count in zip(self.adamw.param_groups[0]["params"], self.counts, strict=True):
            layout = parameter.shape, parameter.stride(), parameter.storage_offset()
            moments = {name: moment.as_strided(*layout) for name, moment in self.moments.items()}
            self.adamw.state[parameter] = {"step": count} | moments

    @torch.inference_mode()
    def step(self) -> None:
        group = self.adamw.param_groups[0]
        self.counts += 1
        torch._fused_adamw_(  # the kernel of AdamW(fused=True).step(), without the bookkeeping per parameter
            [self.values], [self.gradients], [self.moments["exp_avg"]], [self.moments["exp_avg_sq"]], [],
            [self.counts[0]], lr=group["lr"], beta1=group["betas"][0], beta2=group["betas"][1],
            weight_decay=group["weight_decay"], eps=group["eps"], amsgrad=False, maximize=False,
        )  # fmt: skip

    def state_dict(self) -> dict:
        return self.adamw.state_dict()

    def load_state_dict(self, state: dict) -> None:
        self.adamw.load_state_dict(state)
        loaded = dict(self.adamw.state)
        self._view_state()
        for parameter, values in loaded.items():
            for name, value in values.items():
                self.adamw.state[parameter][name].copy_(value)


def flatten(parameters: list[nn.Parameter]) -> tuple[Tensor, Tensor]:
    """Move the parameters into one flat tensor (n,), in this order, and their gradients, zeroed, into another (n,)."""
    values = torch.cat([parameter.detach().flatten() for parameter in parameters])
    gradients = torch.zeros_like(values)
    sizes = [parameter.numel() for parameter in parameters]
    for parameter, value, gradient in zip(parameters, values.split(sizes), gradients.split(sizes), strict=True):
        parameter.data, parameter.grad = value.view_as(parameter), gradient.view_as(parameter)
    return values, gradients
