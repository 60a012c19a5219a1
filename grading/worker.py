"""The process in which a solution runs. It executes jobs and returns their raw results; it holds no answers.

    python -B worker.py FOLDER [FORBIDDEN ...]      jobs on standard input, results on standard output, both JSON

FOLDER holds the models.py to run. Its output is discarded; it cannot read files under FORBIDDEN, write files, start
processes or open connections. The grader's process judges the numbers, so patching torch here changes no result.

The guard stops what a student might try. It does not stop a determined attacker, because no code inside the same
process can. If that matters, keep the correct models.py off the machine, as the Gradescope zip does.
"""

import sys

if __name__ == "__main__":
    del sys.path[0]  # this folder: a solution must not import from it

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

FORBIDDEN_OS_EVENTS = (
    "system", "exec", "fork", "posix_spawn", "spawn", "startfile", "kill",
    "remove", "rename", "rmdir", "mkdir", "truncate", "link", "symlink", "chmod", "chown",
)  # fmt: skip


class Mismatch(Exception):
    """The solution returned an object that the check cannot use."""

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(f"expected {expected}, got {got}")
        self.expected, self.got = expected, got


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
    """Outputs of a network with the given weights, as [mode and method][batch]; the first half is in training mode."""
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
    return {"gradients": found}


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
    dense = [layer for layer in _leaves(model.mlp_layers) if isinstance(layer, nn.Linear)]
    for number, layer in enumerate(dense):
        found |= {f"mlp.{number}.weight": layer.weight, f"mlp.{number}.bias": layer.bias}
    return found


@torch.no_grad()
def _give_weights(model, weights: dict) -> dict[str, torch.Tensor]:
    parameters = _named_parameters(model, "U" in weights)
    if parameters.keys() != weights.keys():
        raise Mismatch(f"parameters {', '.join(weights)}", ", ".join(parameters))
    for name, values in weights.items():
        new = torch.tensor(values)
        if parameters[name].shape != new.shape:
            raise Mismatch(f"{name} of shape {tuple(new.shape)}", str(tuple(parameters[name].shape)))
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


def load(folder: Path):
    """Import the models.py of a folder as the module `models`; it can import other files of the folder."""
    sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location("models", folder / "models.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["models"] = module
    spec.loader.exec_module(module)
    return module


def main(folder: str, *forbidden: str) -> None:
    """Answer the jobs on standard input; `forbidden` paths cannot be read."""
    jobs = json.loads(sys.stdin.buffer.read())
    answer_to = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    torch.set_num_threads(1)
    _remove_unaudited_functions()
    sys.addaudithook(_guard(Path(folder).resolve(), tuple(Path(path).resolve() for path in forbidden)))
    try:
        models = load(Path(folder))
        result = {"results": [perform(models, job) for job in jobs]}
    except Mismatch as mismatch:
        result = {"mismatch": {"expected": mismatch.expected, "got": mismatch.got}}
    except BaseException as error:
        result = {"error": _sentence(error), "trace": traceback.format_exc()}
        if isinstance(error, NotImplementedError) and "NotImplementedError" in (_frames(error)[-1].line or ""):
            result = {"not_implemented": True}  # raised by this line of the solution, not by PyTorch
    answer = json.dumps(result).encode()
    while answer:
        answer = answer[os.write(answer_to, answer) :]
    os._exit(0)  # skips functions that the solution registered to run at exit


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    return list(traceback.extract_tb(error.__traceback__))


def _sentence(error: BaseException) -> str:
    """The type of the error, the first line of its message, and the line of models.py that raised it."""
    message = str(error).partition("\n")[0]
    line = next((frame.lineno for frame in reversed(_frames(error)) if frame.filename.endswith("models.py")), None)
    if isinstance(error, SyntaxError):
        line = error.lineno if str(error.filename).endswith("models.py") and "line" not in message else None
    return f"{type(error).__name__}: {message}" + (f" (models.py, line {line})" if line else "")


def _forbid(*_, **__):
    raise PermissionError("the grader does not let a solution use files or processes")


def _remove_unaudited_functions() -> None:
    """Disable functions in C that access files and processes without an audit event."""
    import subprocess

    torch.from_file = torch.save = torch.UntypedStorage.from_file = torch.TypedStorage.from_file = _forbid
    torch._C.PyTorchFileWriter = torch._C.PyTorchFileReader = _forbid
    if hasattr(subprocess, "_fork_exec"):
        import _posixsubprocess

        _posixsubprocess.fork_exec = subprocess._fork_exec = _forbid
    for module, name in [(os, "pidfd_open"), (signal, "pidfd_send_signal")]:
        if hasattr(module, name):
            delattr(module, name)
    sys.modules["readline"] = None


def _guard(folder: Path, forbidden: tuple[Path, ...]):
    """An audit hook (PEP 578) that blocks files, processes and the network; it cannot be removed once installed."""
    os_events = (f"os.{name}" for name in FORBIDDEN_OS_EVENTS)
    forbidden_events = ("subprocess.", "shutil.", "socket.", "ctypes.", "sqlite3.", *os_events)
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
    # Bound now, because a solution may replace these functions in their modules.
    real_path, is_folder, as_text, nowhere = os.path.realpath, os.path.isdir, os.fsdecode, os.devnull
    can_read_folder = any(path == folder or path in folder.parents for path in forbidden)
    closed_paths = tuple(str(path) for path in forbidden)
    solution_folder = str(folder)

    def lies_in(path: str, parent: str, separator: str = os.sep) -> bool:
        return path == parent or path.startswith(parent + separator)

    def hook(event: str, arguments: tuple) -> None:
        if event == "open":
            path, mode, flags = arguments
            if type(path) is int:
                return
            path = real_path(str.__str__(as_text(path)))
            if path == nowhere:
                return
            if (type(mode) is str and set(mode) & set("wax+")) or (type(flags) is int and flags & writing):
                raise PermissionError(f"the grader does not let a solution write a file ({path})")
            if can_read_folder and lies_in(path, solution_folder):
                return
            if any(lies_in(path, parent) for parent in (*closed_paths, "/proc")) or is_folder(path):
                raise PermissionError("the grader does not let a solution read its answers")
        elif event.startswith(forbidden_events):
            raise PermissionError(f"the grader does not let a solution use {event}")

    return hook


if __name__ == "__main__":
    main(*sys.argv[1:])
