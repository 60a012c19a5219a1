"""The process in which a solution runs: it does what it is asked and hands back what it saw, and knows no answers.

    python -P -B worker.py FOLDER [FORBIDDEN ...]      job on standard input, result on standard output, both JSON

FOLDER holds the models.py to be run. Whatever it prints goes nowhere; files under FORBIDDEN cannot be read, and nothing
can be written, started or connected to. The verdict is reached in the process of the grader, from the numbers alone:
patching torch here changes nothing there.
"""

import importlib.util
import json
import os
import sys
import traceback
from pathlib import Path

import torch
from torch import nn

REFUSED_OF_OS = (
    "system", "exec", "fork", "posix_spawn", "spawn", "startfile", "kill",
    "remove", "rename", "rmdir", "mkdir", "truncate", "link", "symlink", "chmod", "chown",
)  # fmt: skip


class Fault(Exception):
    """What the solution built cannot be used for the check: what was expected, and what came."""

    def __init__(self, expected: str, came: str) -> None:
        super().__init__(f"expected {expected}, got {came}")
        self.expected, self.came = expected, came


def perform(models, job: dict) -> dict:
    """Do one job with a solution's module."""
    return JOBS[job["kind"]](models, **job["arguments"])


def build_tables(models, method: str, arguments: list) -> dict:
    """Call an init method without an object of its class, and describe the embedding tables that it returns."""
    torch.manual_seed(0)
    found = getattr(models.MultiTaskNet, method)(object(), *arguments)
    tables = list(found) if isinstance(found, tuple | list) else [found]
    for table in tables:
        if not isinstance(table, nn.Embedding):
            raise Fault("nn.Embedding tables", type(table).__name__)
    return {
        "tables": [
            {"values": table.weight.tolist(), "dtype": str(table.weight.dtype), "trained": table.weight.requires_grad}
            for table in tables
        ],
        "distinct": len({table.weight.data_ptr() for table in tables}),
    }


def build_mlp(models, layer_sizes: list[int]) -> dict:
    """Call init_mlp_layers and describe the layers in order, those inside containers too."""
    found = models.MultiTaskNet.init_mlp_layers(object(), list(layer_sizes))
    if not isinstance(found, nn.ModuleList):
        raise Fault("an nn.ModuleList", type(found).__name__)
    return {"layers": [_describe(layer) for layer in _leaves(found)]}


def run_forward(models, sizes: list[int], sharing: bool, weights: dict, batches: list, methods: list[str]) -> dict:
    """Outputs of a network that was given these weights: [method][batch] -> predictions and score."""
    model = _build(models, sizes, sharing)
    _give_weights(model, weights)
    outputs = []
    for method in methods:
        call = model if method == "forward" else getattr(model, method)
        outputs.append(
            [_outputs(call(torch.tensor(users).long(), torch.tensor(items).long())) for users, items in batches]
        )
    return {"outputs": outputs}


def run_backward(models, sizes: list[int], sharing: bool, weights: dict, batch: list, factors: list) -> dict:
    """Gradients of sum(factors * output), {name: values or None}, for the outputs "ranking" and "rating" by turns."""
    model = _build(models, sizes, sharing)
    parameters = _give_weights(model, weights)
    users, items = (torch.tensor(ids).long() for ids in batch)
    found = {}
    for place, task in enumerate(("ranking", "rating")):
        model.zero_grad(set_to_none=True)
        output = model(users, items)[place]
        if not output.requires_grad:
            raise Fault(f"a {task} output that can be trained", "one without a gradient")
        (torch.tensor(factors) * output.reshape(-1)).sum().backward()
        grads = {name: parameter.grad for name, parameter in parameters.items()}
        found[task] = {name: None if grad is None else grad.tolist() for name, grad in grads.items()}
    return {"gradients": found}


def list_parameters(models, sizes: list[int], sharing: bool) -> dict:
    """What nn.Module.parameters() of a fresh network finds: name, shape and type of each."""
    model = _build(models, sizes, sharing)
    return {
        "parameters": [
            {
                "name": name,
                "shape": list(parameter.shape),
                "dtype": str(parameter.dtype),
                "trained": parameter.requires_grad,
            }
            for name, parameter in model.named_parameters()
        ]
    }


def train(
    models, sizes: list[int], sharing: bool, rows: dict, weights: list, epochs: int, lr: float, seed: int
) -> dict:
    """Train for a few epochs by the losses of the sheet: the weights at the end."""
    torch.manual_seed(seed)
    model = _build(models, sizes, sharing)
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
    """Adam (Kingma and Ba 2015), by hand: importing torch.optim would take longer than the training."""
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


def _leaves(module: nn.Module) -> list[nn.Module]:
    if isinstance(module, nn.ModuleList | nn.Sequential):
        return [leaf for child in module for leaf in _leaves(child)]
    return [module]


def _describe(layer: nn.Module) -> str:
    if type(layer) is nn.Linear:
        return f"Linear({layer.in_features}, {layer.out_features})" + (
            "" if layer.bias is not None else " without bias"
        )
    return type(layer).__name__


def _named_parameters(model, sharing: bool) -> dict[str, torch.Tensor]:
    """The tensors behind the names that the sheet fixes."""
    names = [*(("U", "Q") if sharing else ("U_reg", "Q_reg", "U_fact", "Q_fact")), "B", "mlp_layers"]
    missing = [name for name in names if not hasattr(model, name)]
    if missing:
        raise Fault(f"the attributes {', '.join(names)}", f"a network without {', '.join(missing)}")
    found = {name: getattr(model, name).weight for name in names[:-1]}
    dense = [layer for layer in _leaves(model.mlp_layers) if isinstance(layer, nn.Linear)]
    for number, layer in enumerate(dense):
        found |= {f"mlp.{number}.weight": layer.weight, f"mlp.{number}.bias": layer.bias}
    return found


@torch.no_grad()
def _give_weights(model, weights: dict) -> dict[str, torch.Tensor]:
    parameters = _named_parameters(model, "U" in weights)
    if parameters.keys() != weights.keys():
        raise Fault(f"parameters {', '.join(weights)}", ", ".join(parameters))
    for name, values in weights.items():
        new = torch.tensor(values)
        if parameters[name].shape != new.shape:
            raise Fault(f"{name} of shape {tuple(new.shape)}", str(tuple(parameters[name].shape)))
        parameters[name].copy_(new)
    return parameters


def _take_weights(model, sharing: bool) -> dict:
    return {name: parameter.tolist() for name, parameter in _named_parameters(model, sharing).items()}


def _outputs(found) -> list[dict]:
    if (
        not isinstance(found, tuple | list)
        or len(found) != 2
        or not all(isinstance(part, torch.Tensor) for part in found)
    ):
        raise Fault("two tensors, predictions and score", type(found).__name__)
    return [{"shape": list(part.shape), "dtype": str(part.dtype), "values": part.flatten().tolist()} for part in found]


def load(folder: Path):
    """Import the models.py of a folder as the module `models`; its neighbours can be imported by it."""
    sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location("models", folder / "models.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["models"] = module
    spec.loader.exec_module(module)
    return module


def main(folder: str, *forbidden: str) -> None:
    jobs = json.loads(sys.stdin.buffer.read())
    answer_to = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    torch.set_num_threads(1)
    sys.addaudithook(_guard([Path(path).resolve() for path in forbidden]))
    try:
        models = load(Path(folder))
        result = {"results": [perform(models, job) for job in jobs]}
    except Fault as fault:
        result = {"fault": {"expected": fault.expected, "came": fault.came}}
    except NotImplementedError:
        result = {"not_implemented": True}
    except BaseException as error:
        result = {"error": _sentence(error), "trace": traceback.format_exc()}
    answer = json.dumps(result).encode()
    while answer:
        answer = answer[os.write(answer_to, answer) :]
    os._exit(0)  # whatever the solution registered to run at the end does not


def _sentence(error: BaseException) -> str:
    """The kind of error, its first line and where in the solution it arose."""
    frames = traceback.extract_tb(error.__traceback__)
    line = next((frame.lineno for frame in reversed(frames) if frame.filename.endswith("models.py")), None)
    if isinstance(error, SyntaxError):
        line = error.lineno
    message = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {message}" + (f" (models.py, line {line})" if line else "")


def _guard(forbidden: list[Path]):
    """An audit hook (PEP 578; it cannot be removed) that keeps a solution from files, processes and the network."""
    refused = ("subprocess.", "shutil.", "socket.", "ctypes.", "sqlite3.", *(f"os.{name}" for name in REFUSED_OF_OS))
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC

    def hook(event: str, arguments: tuple) -> None:
        if event == "open":
            path, mode, flags = arguments
            if not isinstance(path, str | bytes) or path == os.devnull:
                return
            if (isinstance(mode, str) and set(mode) & set("wax+")) or (isinstance(flags, int) and flags & writing):
                raise PermissionError(f"the grader lets no solution write a file ({path})")
            if _lies_in(os.fsdecode(path), forbidden):
                raise PermissionError("the grader lets no solution read its answers")
        elif event.startswith(refused):
            raise PermissionError(f"the grader lets no solution use {event}")

    return hook


def _lies_in(path: str, folders: list[Path]) -> bool:
    real = Path(os.path.realpath(path))
    return any(folder == real or folder in real.parents for folder in folders) or real.parts[1:2] == ("proc",)


if __name__ == "__main__":
    main(*sys.argv[1:])
