"""The process in which a solution runs: it does what it is asked and hands back what it saw, and knows no answers.

    python -B worker.py FOLDER [FORBIDDEN ...]      jobs on standard input, results on standard output, both JSON

FOLDER holds the models.py to be run. Whatever it prints goes nowhere; files under FORBIDDEN cannot be read, and nothing
can be written, started or connected to. The verdict is reached in the process of the grader, from the numbers alone:
patching torch here changes nothing there.

The guard stops what a student might try. It does not stop somebody who sets out to break it: no code within the same
process can. Where that matters, keep the right models.py off the machine, as the Gradescope zip does.
"""

import sys

if __name__ == "__main__":
    del sys.path[0]  # this folder: a solution must not import its neighbours here

import importlib.util
import itertools
import json
import os
import signal
import traceback
from collections.abc import Iterable
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
    """Call an init method of a network that holds nothing yet, and describe the embedding tables that it returns."""
    torch.manual_seed(0)
    found = getattr(_empty_network(models), method)(*arguments)
    tables = list(found) if isinstance(found, Iterable) and not isinstance(found, nn.Module) else [found]
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
    given = list(layer_sizes)
    found = _empty_network(models).init_mlp_layers(given)
    if given != layer_sizes:
        raise Fault(f"layer_sizes left as it was, {layer_sizes}", str(given))
    if not isinstance(found, nn.ModuleList):
        raise Fault("an nn.ModuleList", type(found).__name__)
    return {"layers": [_describe(layer) for layer in _leaves(found)]}


def run_forward(models, sizes: list[int], sharing: bool, weights: dict, batches: list, methods: list[str]) -> dict:
    """Outputs of a network with these weights: [training or not, and method][batch] -> predictions and score."""
    model = _build(models, sizes, sharing)
    _give_weights(model, weights)
    outputs = []
    for training, method in itertools.product((True, False), methods):
        model.train(training)
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


def list_parameters(models, sizes: list[int] | None, num_users: int, num_items: int, sharing: bool) -> dict:
    """What nn.Module.parameters() of a fresh network finds; without sizes, of one with the default arguments."""
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
    """Train from given weights for a few epochs by the losses of the sheet: the weights at the end."""
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


def _empty_network(models):
    """A network whose __init__ has not run: its init methods can be called, and find nothing to read from self."""
    network = models.MultiTaskNet.__new__(models.MultiTaskNet)
    nn.Module.__init__(network)
    return network


def _leaves(module: nn.Module) -> list[nn.Module]:
    """The layers that hold no other layers, in order."""
    children = list(module.children())
    return [leaf for child in children for leaf in _leaves(child)] if children else [module]


def _describe(layer: nn.Module) -> str:
    if isinstance(layer, nn.Linear):
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
    parts = list(found) if isinstance(found, Iterable) else [found]
    if len(parts) != 2 or not all(isinstance(part, torch.Tensor) for part in parts):
        raise Fault("two tensors, predictions and score", ", ".join(type(part).__name__ for part in parts) or "nothing")
    return [{"shape": list(part.shape), "dtype": str(part.dtype), "values": part.flatten().tolist()} for part in parts]


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
    _take_away_what_no_hook_sees()
    sys.addaudithook(_guard(Path(folder).resolve(), tuple(Path(path).resolve() for path in forbidden)))
    try:
        models = load(Path(folder))
        result = {"results": [perform(models, job) for job in jobs]}
    except Fault as fault:
        result = {"fault": {"expected": fault.expected, "came": fault.came}}
    except BaseException as error:
        result = {"error": _sentence(error), "trace": traceback.format_exc()}
        if isinstance(error, NotImplementedError) and "NotImplementedError" in (_frames(error)[-1].line or ""):
            result = {"not_implemented": True}  # raised in so many words, and not by PyTorch
    answer = json.dumps(result).encode()
    while answer:
        answer = answer[os.write(answer_to, answer) :]
    os._exit(0)  # whatever the solution registered to run at the end does not


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    return list(traceback.extract_tb(error.__traceback__))


def _sentence(error: BaseException) -> str:
    """The kind of error, its first line and where in the solution it arose."""
    message = str(error).partition("\n")[0]
    line = next((frame.lineno for frame in reversed(_frames(error)) if frame.filename.endswith("models.py")), None)
    if isinstance(error, SyntaxError):
        line = error.lineno if str(error.filename).endswith("models.py") and "line" not in message else None
    return f"{type(error).__name__}: {message}" + (f" (models.py, line {line})" if line else "")


def _refuse(*_, **__):
    raise PermissionError("the grader lets no solution use files or processes")


def _take_away_what_no_hook_sees() -> None:
    """Doors in C code to files and processes that raise no audit event."""
    import subprocess

    torch.from_file = torch.save = torch.UntypedStorage.from_file = torch.TypedStorage.from_file = _refuse
    torch._C.PyTorchFileWriter = torch._C.PyTorchFileReader = _refuse
    if hasattr(subprocess, "_fork_exec"):
        import _posixsubprocess

        _posixsubprocess.fork_exec = subprocess._fork_exec = _refuse
    for module, name in [(os, "pidfd_open"), (signal, "pidfd_send_signal")]:
        if hasattr(module, name):
            delattr(module, name)
    sys.modules["readline"] = None


def _guard(folder: Path, forbidden: tuple[Path, ...]):
    """An audit hook (PEP 578; it cannot be removed) that keeps a solution from files, processes and the network."""
    refused = ("subprocess.", "shutil.", "socket.", "ctypes.", "sqlite3.", *(f"os.{name}" for name in REFUSED_OF_OS))
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
    # Bound now: a solution may replace what it finds in the modules later.
    real_path, is_folder, as_text, nowhere = os.path.realpath, os.path.isdir, os.fsdecode, os.devnull
    may_read_own = any(path == folder or path in folder.parents for path in forbidden)
    closed = tuple(str(path) for path in forbidden)
    own = str(folder)

    def lies_in(path: str, place: str, separator: str = os.sep) -> bool:
        return path == place or path.startswith(place + separator)

    def hook(event: str, arguments: tuple) -> None:
        if event == "open":
            path, mode, flags = arguments
            if type(path) is int:
                return
            path = real_path(str.__str__(as_text(path)))
            if path == nowhere:
                return
            if (type(mode) is str and set(mode) & set("wax+")) or (type(flags) is int and flags & writing):
                raise PermissionError(f"the grader lets no solution write a file ({path})")
            if may_read_own and lies_in(path, own):
                return
            if any(lies_in(path, place) for place in (*closed, "/proc")) or is_folder(path):
                raise PermissionError("the grader lets no solution read its answers")
        elif event.startswith(refused):
            raise PermissionError(f"the grader lets no solution use {event}")

    return hook


if __name__ == "__main__":
    main(*sys.argv[1:])
