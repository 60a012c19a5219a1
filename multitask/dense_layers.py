"""The dense layers of a MultiTaskNet, however models.py holds them."""

import torch
from torch import nn

from evaluation import evaluating
from models import MultiTaskNet


def dense_layers(model: MultiTaskNet) -> list[nn.Linear]:
    """The dense layers of f_theta in order of use, also those inside containers and blocks of models.py.

    A block may register its layers in another order than it uses them, so that the network is run once, on one pair.
    Layers that it does not call as modules keep the order in which they are registered.
    """
    found = [layer for layer in model.mlp_layers.modules() if isinstance(layer, nn.Linear)]
    used: list[nn.Linear] = []
    hooks = [layer.register_forward_pre_hook(lambda layer, inputs: used.append(layer)) for layer in found]
    first_row = torch.zeros(1, dtype=torch.long, device=model.B.weight.device)
    try:
        with evaluating(model):
            model(first_row, first_row)
    finally:
        for hook in hooks:
            hook.remove()
    return used if sorted(map(id, used)) == sorted(map(id, found)) else found


def layer_names(model: MultiTaskNet) -> list[str]:
    """The names of the dense layers of f_theta in the network's state_dict, in order of use: ["mlp_layers.0", ..]."""
    names = {id(module): name for name, module in model.named_modules()}
    return [names[id(layer)] for layer in dense_layers(model)]
