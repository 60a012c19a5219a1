"""The jobs that a check sends to the worker: each runs a part of a solution and returns raw numbers.

They hold no answers, and the grader's process judges the numbers, so that patching torch here changes no result.
`models` is always the solution's module.
"""

import itertools
from collections.abc import Iterable

import torch
from torch import nn


class Mismatch(Exception):
    """The solution returned an object that the check cannot use; cause: the question that has to be corrected first."""

    def __init__(self, expected: str, got: str, cause: str = "") -> None:
        super().__init__(f"expected {expected}, got {got}")
        self.expected, self.got, self.cause = expected, got, cause


def perform(models, job: dict) -> dict:
    """Execute one job with a solution's module."""
    return JOBS[job["kind"]](models, **job["arguments"])


def build_tables(models, method: str, arguments: list) -> dict:
    """Call an init method of an empty network, and describe the embedding tables that it returns."""
    torch.manual_seed(0)
    found = getattr(_empty_network(models), method)(*arguments)
    tables = list(found) if isinstance(found, Iterable) and not isinstance(found, nn.Module) else [found]
    for table in tables:
        if not isinstance(table, nn.Embedding):
            raise Mismatch("nn.Embedding tables", type(table).__name__)
    return {
        "tables": [
            {"values": table.weight.tolist(), "dtype": str(table.weight.dtype), "trained": table.weight.requires_grad}
            for table in tables
        ],
        "distinct": len({table.weight.data_ptr() for table in tables}),
    }


def build_mlp(models, layer_sizes: list[int]) -> dict:
    """Call init_mlp_layers and describe the layers in order, including those inside containers."""
    given = list(layer_sizes)
    found = _empty_network(models).init_mlp_layers(given)
    if given != layer_sizes:
        raise Mismatch(f"layer_sizes left unchanged, {layer_sizes}", str(given))
    if not isinstance(found, nn.ModuleList):
        raise Mismatch("an nn.ModuleList", type(found).__name__)
    return {"layers": [_describe(layer) for layer in _leaves(found)]}


def run_forward(models, sizes: list[int], sharing: bool, weights: dict, batches: list, methods: list[str]) -> dict:
    """The outputs of a network with the given weights for every batch, by each method in both modes, and its layers."""
    model = _build(models, sizes, sharing)
    _give_weights(model, weights)
    runs = []
    for mode, method in itertools.product(("training", "evaluation"), methods):
        model.train(mode == "training")
        call = model if method == "forward" else getattr(model, method)
        outputs = [_outputs(call(torch.tensor(users).long(), torch.tensor(items).long())) for users, items in batches]
        runs.append({"mode": mode, "method": method, "outputs": outputs})
    return {"runs": runs, "layers": _layers(model)}


def run_backward(models, sizes: list[int], sharing: bool, weights: dict, batch: list, factors: list) -> dict:
    """Gradients of sum(factors * output) for each output: {"ranking" or "rating": {parameter name: values or None}}."""
    model = _build(models, sizes, sharing)
    parameters = _give_weights(model, weights)
    users, items = (torch.tensor(ids).long() for ids in batch)
    found = {}
    for place, task in enumerate(("ranking", "rating")):
        model.zero_grad(set_to_none=True)
        output = model(users, items)[place]
        if not output.requires_grad:
            raise Mismatch(f"a {task} output with a gradient", "one without")
        (torch.tensor(factors) * output.reshape(-1)).sum().backward()
        grads = {name: parameter.grad for name, parameter in parameters.items()}
        found[task] = {name: None if grad is None else grad.tolist() for name, grad in grads.items()}
    return {"gradients": found, "layers": _layers(model)}


def list_parameters(models, sizes: list[int] | None, num_users: int, num_items: int, sharing: bool) -> dict:
    """Parameters of a new network, and their initial size and spread; `sizes` None means the default arguments."""
    torch.manual_seed(0)
    model = _build(models, sizes, sharing) if sizes else models.MultiTaskNet(num_users, num_items)
    start = {
        name: [parameter.abs().max().item(), parameter.std().item() if parameter.numel() > 1 else 0.0]
        for name, parameter in _named_parameters(model, sharing).items()
    }
    return {
        "parameters": [
            {
                "name": name,
                "shape": list(parameter.shape),
                "dtype": str(parameter.dtype),
                "trained": parameter.requires_grad,
            }
            for name, parameter in model.named_parameters()
        ],
        "start": start,
    }


def train(
    models, sizes: list[int], sharing: bool, start: dict, rows: dict, weights: list, epochs: int, lr: float, seed: int
) -> dict:
    """Train from the given weights for a few epochs with the losses of the sheet; returns the final weights."""
    torch.manual_seed(seed)
    model = _build(models, sizes, sharing)
    _give_weights(model, start)
    parameters = list(model.parameters())
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]
    users, items = (torch.tensor(rows[name]).long() for name in ("user", "item"))
    ratings = torch.tensor(rows["rating"]).float()
    random = torch.Generator().manual_seed(seed)
    step = 0
    for _ in range(epochs):
        for batch in torch.randperm(len(users), generator=random).split(64):
            negatives = torch.randint(sizes[1], (len(batch),), generator=random)
            positive, score = model(users[batch], items[batch])
            negative, _ = model(users[batch], negatives)
            ranking = torch.sigmoid(negative - positive).mean()
            rating = (score - ratings[batch]).square().mean()
            model.zero_grad(set_to_none=True)
            (weights[0] * ranking + weights[1] * rating).backward()
            step += 1
            _adam_step(parameters, moments, step, lr)
    return {"weights": _take_weights(model, sharing)}


JOBS = {
    "build_tables": build_tables,
    "build_mlp": build_mlp,
    "run_forward": run_forward,
    "run_backward": run_backward,
    "list_parameters": list_parameters,
    "train": train,
}


@torch.no_grad()
def _adam_step(parameters, moments, step: int, lr: float) -> None:
    """Adam (Kingma and Ba 2015), written out because importing torch.optim takes longer than the training."""
    for parameter, (mean, square) in zip(parameters, moments, strict=True):
        if parameter.grad is not None:
            mean.lerp_(parameter.grad, 0.1)
            square.lerp_(parameter.grad.square(), 0.001)
            scale = (square / (1 - 0.999**step)).sqrt_().add_(1e-8)
            parameter.addcdiv_(mean, scale, value=-lr / (1 - 0.9**step))


def _build(models, sizes: list[int], sharing: bool):
    num_users, num_items, embedding_dim, *layer_sizes = sizes
    return models.MultiTaskNet(
        num_users, num_items, embedding_dim=embedding_dim, layer_sizes=layer_sizes, embedding_sharing=sharing
    )


def _empty_network(models):
    """A network whose __init__ has not run: its init methods can be called but cannot read attributes of self."""
    network = models.MultiTaskNet.__new__(models.MultiTaskNet)
    nn.Module.__init__(network)
    return network


def _leaves(module: nn.Module) -> list[nn.Module]:
    """The layers that contain no other layers, in order."""
    children = list(module.children())
    return [leaf for child in children for leaf in _leaves(child)] if children else [module]


def _layers(model) -> list[str]:
    return [_describe(layer) for layer in _leaves(model.mlp_layers)]


def _describe(layer: nn.Module) -> str:
    if isinstance(layer, nn.Linear):
        return f"Linear({layer.in_features}, {layer.out_features})" + (
            "" if layer.bias is not None else " without bias"
        )
    return type(layer).__name__


def _named_parameters(model, sharing: bool) -> dict[str, torch.Tensor]:
    """Parameters by the names that the sheet prescribes."""
    names = [*(("U", "Q") if sharing else ("U_reg", "Q_reg", "U_fact", "Q_fact")), "B", "mlp_layers"]
    missing = [name for name in names if not hasattr(model, name)]
    if missing:
        raise Mismatch(f"the attributes {', '.join(names)}", f"a network without {', '.join(missing)}")
    found = {name: getattr(model, name).weight for name in names[:-1]}
    if not isinstance(model.mlp_layers, nn.Module):
        raise Mismatch("mlp_layers to be an nn.ModuleList", type(model.mlp_layers).__name__, "2")
    dense = [layer for layer in _leaves(model.mlp_layers) if isinstance(layer, nn.Linear)]
    for number, layer in enumerate(dense):
        found |= {f"mlp.{number}.weight": layer.weight, f"mlp.{number}.bias": layer.bias}
    return found


@torch.no_grad()
def _give_weights(model, weights: dict) -> dict[str, torch.Tensor]:
    parameters = _named_parameters(model, "U" in weights)
    if parameters.keys() != weights.keys():
        raise Mismatch(f"parameters {', '.join(weights)}", ", ".join(parameters), "2")
    for name, values in weights.items():
        new = torch.tensor(values)
        if parameters[name].shape != new.shape:
            cause = "2" if name.startswith("mlp.") else "1"
            raise Mismatch(f"{name} of shape {tuple(new.shape)}", str(tuple(parameters[name].shape)), cause)
        parameters[name].copy_(new)
    return parameters


def _take_weights(model, sharing: bool) -> dict:
    return {name: parameter.tolist() for name, parameter in _named_parameters(model, sharing).items()}


def _outputs(found) -> list[dict]:
    parts = list(found) if isinstance(found, Iterable) else [found]
    if len(parts) != 2 or not all(isinstance(part, torch.Tensor) for part in parts):
        types = ", ".join(type(part).__name__ for part in parts)
        raise Mismatch("two tensors, predictions and score", types or "nothing")
    return [{"shape": list(part.shape), "dtype": str(part.dtype), "values": part.flatten().tolist()} for part in parts]
