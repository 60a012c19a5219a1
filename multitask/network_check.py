"""The network of models.py, tried before it is trained: a wrong shape would train on, broadcast, and mean nothing."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from training.model_errors import ModelsError, complain

SIZES = (1, 3)  # pairs in a batch; one, as a squeeze without a dim drops a batch of one
SHARED, SEPARATE = "init_shared_user_and_item_embeddings", "init_separate_user_and_item_embeddings"


def check_network(model: nn.Module, layer_sizes: Sequence[int]) -> None:
    """Check the attributes of a fresh network and its outputs on small batches, in both modes.

    Changes neither the network, its mode, nor any random stream.

    Args:
        model: on the CPU.
        layer_sizes: input width of every dense layer.

    Raises:
        ModelsError: something has another form than the docstrings of models.py promise. Errors that the network raises
            pass through, with a note on the batch.
    """
    if not isinstance(model, nn.Module):
        raise ModelsError("models.py: MultiTaskNet is no nn.Module: begin it with class MultiTaskNet(nn.Module)")
    _check_tables(model)
    _check_layers(model, layer_sizes)
    was_training = [(module, module.training) for module in model.modules()]
    before = [buffer.clone() for buffer in model.buffers()]
    with torch.random.fork_rng(devices=()), torch.no_grad():
        try:
            for mode in (True, False):
                model.train(mode)
                for size in SIZES:
                    _check_batch(model, size, f"on a batch of {size} in {'training' if mode else 'evaluation'} mode")
        finally:
            for module, mode in was_training:
                module.training = mode
            for buffer, value in zip(model.buffers(), before, strict=True):
                buffer.copy_(value)


def _check_tables(model: nn.Module) -> None:
    users, items, width = (_attribute(model, name, "__init__") for name in ("num_users", "num_items", "embedding_dim"))
    shared = _attribute(model, "embedding_sharing", "__init__")
    names, method = (("U", "Q"), SHARED) if shared else (("U_reg", "Q_reg", "U_fact", "Q_fact"), SEPARATE)
    expected = [(name, method, (users if name.startswith("U") else items, width)) for name in names]
    for name, method, shape in (*expected, ("B", "init_item_bias", (items, 1))):
        table = _attribute(model, name, method)
        weight = getattr(table, "weight", None)
        if not isinstance(table, nn.Module) or not isinstance(weight, Tensor):
            _reject(model, method, f"self.{name} is {_kind(table)}, not an embedding table")
        if tuple(weight.shape) != shape:
            _reject(model, method, f"self.{name} has the shape {tuple(weight.shape)}, and here it has to be {shape}")


def _check_layers(model: nn.Module, layer_sizes: Sequence[int]) -> None:
    layers = _attribute(model, "mlp_layers", "init_mlp_layers")
    if not isinstance(layers, nn.Module):
        _reject(model, "init_mlp_layers", f"self.mlp_layers is {_kind(layers)}, not an nn.ModuleList")
    if not any(isinstance(layer, nn.Linear) for layer in layers.modules()):
        sizes = list(layer_sizes)
        _reject(model, "init_mlp_layers", f"self.mlp_layers holds no nn.Linear, and layer_sizes is {sizes}")


def _check_batch(model: Any, size: int, batch: str) -> None:
    # The last rows: with the first, a table that is too short would pass.
    user_ids = torch.arange(model.num_users - 1, model.num_users - 1 - size, -1).clamp(min=0)
    item_ids = torch.arange(model.num_items - 1, model.num_items - 1 - size, -1).clamp(min=0)
    method = "forward_with_embedding_sharing" if model.embedding_sharing else "forward_without_embedding_sharing"
    try:
        outputs = model(user_ids, item_ids)
        scores = model.score_items(user_ids)
    except Exception as error:
        error.add_note(f"it happens {batch}")
        raise
    if not isinstance(outputs, (tuple, list, Tensor)) or (isinstance(outputs, Tensor) and len(outputs.shape) != 2):
        _reject(model, method, f"{batch} it returned {_kind(outputs)}, not two tensors")
    if len(outputs) != 2:
        _reject(model, method, f"{batch} it returned {len(outputs)} values, not two tensors")
    for name, output in zip(("predictions", "score"), outputs, strict=True):
        _check_output(model, method, f"{batch} {name}", output, (size,))
    _check_output(model, "score_items", f"{batch} its result", scores, (size, model.num_items))


def _check_output(model: nn.Module, method: str, what: str, output: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(output, Tensor):
        _reject(model, method, f"{what} is {_kind(output)}, not a tensor")
    if tuple(output.shape) != shape:
        _reject(model, method, f"{what} has the shape {tuple(output.shape)}, and here it has to be {shape}")
    if not output.is_floating_point():
        _reject(model, method, f"{what} has the dtype {output.dtype}, not a floating-point one")


def _attribute(model: nn.Module, name: str, method: str) -> Any:
    if not hasattr(model, name):
        _reject(model, method, f"the network has no attribute {name}: __init__ has to set self.{name}")
    return getattr(model, name)


def _reject(model: nn.Module, method: str, problem: str) -> None:
    raise ModelsError(complain(_place(model, method), problem, method))


def _place(model: nn.Module, method: str) -> str:
    """Where a method of models.py begins: "models.py, line 12, in forward"."""
    try:
        line = inspect.getsourcelines(inspect.unwrap(getattr(type(model), method)))[1]
    except (OSError, TypeError, AttributeError):
        return f"models.py, in {method}"
    return f"models.py, line {line}, in {method}"


def _kind(value: object) -> str:
    """None, or a type: "a tensor of shape (3,)", "a list"."""
    if value is None:
        return "None"
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    article = "an" if type(value).__name__[0].lower() in "aeiou" else "a"
    return f"{article} {type(value).__name__}"
