"""The checks: the jobs that each sends to the worker, and how it judges the results.

The worker (worker.py) runs the solution in its own process and returns numbers; a check compares them with reference.py
in the grader's process, where no code of the solution runs.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from grading import reference

QUESTIONS = {
    "1a": "Embedding tables shared by both tasks",
    "1b": "Separate embedding tables for each task",
    "1c": "Item bias",
    "2": "Layers of the MLP",
    "3a": "Forward with shared tables",
    "3b": "Forward with separate tables",
    "3c": "The whole network",
}
# Users, items, embedding width, then the layer sizes. Equal widths reveal a layer that is used twice.
SIZES = [13, 19, 8, 24, 10, 6, 6, 6]
TOLERANCE = 1e-4  # single against double precision, for numbers of about 1 to 10
# Bounds for a correct solution on training.csv. Observed with seeds 0 to 19: shared tables, MSE 0.886 to 0.998 and MRR
# 0.180 to 0.245; separate tables, MSE 0.868 to 1.030 and MRR 0.201 to 0.236. For comparison, predicting the mean rating
# gives MSE 1.223, and ranking by popularity MRR 0.153.
TRAINING_EPOCHS = {True: 18, False: 14}
TRAINING_WEIGHTS = [0.99, 0.01]
WINDOWS = {
    True: {"mse": (0.83, 1.06), "mrr": (0.165, 0.270)},
    False: {"mse": (0.80, 1.12), "mrr": (0.175, 0.265)},
}


class CheckFailed(Exception):
    """A check failed: what was expected, what the solution gave, and a hint."""

    def __init__(self, expected: str, got: str, hint: str) -> None:
        super().__init__(f"expected {expected}, got {got}")
        self.expected, self.got, self.hint = expected, got, hint


@dataclass(frozen=True)
class Check:
    """One check.

    id: question-number-kind, such as 1a-0-basic; students see the kind "hidden" only after handing in.
    sentence: what is checked.
    jobs: sent to the worker, which runs them one after another in the same process.
    judge: takes the results of the jobs; raises CheckFailed.
    seconds: time limit, including the time to load PyTorch.
    trains: the check trains a network, and --fast skips it.
    """

    id: str
    sentence: str
    jobs: list[dict]
    judge: Callable[[list[dict]], None]
    seconds: float = 30.0
    points: int = 1
    trains: bool = False

    @property
    def question(self) -> str:
        return self.id.split("-")[0]

    @property
    def hidden(self) -> bool:
        return self.id.endswith("hidden")


def all_checks() -> list[Check]:
    return [*_table_checks(), *_mlp_checks(), *_forward_checks(), *_network_checks()]


# Question 1: the tables


def _table_checks() -> Iterator[Check]:
    cases = [(220, 310, 16), (270, 190, 40)]  # more items than users, and the other way round
    for question, method, pairs, hint in [
        ("1a", "init_shared_user_and_item_embeddings", 1, "the docstring of the method names two tables"),
        (
            "1b",
            "init_separate_user_and_item_embeddings",
            2,
            "the docstring of the method gives the order of four tables",
        ),
    ]:
        jobs = [{"kind": "build_tables", "arguments": {"method": method, "arguments": case}} for case in cases]

        def judge(results: list[dict], pairs=pairs, hint=hint) -> None:
            for result, (users, items, width) in zip(results, cases, strict=True):
                _judge_shapes(result, [(users, width), (items, width)] * pairs, hint)
                tables = [np.array(table["values"]) for table in result["tables"]]
                for table in tables:
                    _judge_spread(table, width)
                _judge_independence(tables)

        sentence = f"{2 * pairs} embedding tables of the right shapes and initial spread"
        yield Check(f"{question}-0-basic", sentence, jobs, judge)

    jobs = [
        {"kind": "build_tables", "arguments": {"method": "init_item_bias", "arguments": case[:2]}} for case in cases
    ]
    yield Check(
        "1c-0-basic",
        "one bias per item, all zero",
        jobs,
        lambda results: [_judge_bias(result, items) for result, (_, items, _) in zip(results, cases, strict=True)],
    )


def _judge_shapes(result: dict, shapes: list[tuple[int, int]], hint: str) -> None:
    found = [np.array(table["values"]).shape for table in result["tables"]]
    _expect(found == shapes, f"tables of shapes {_list(shapes)}", _list(found), hint)
    _expect(
        result["distinct"] == len(shapes),
        f"{len(shapes)} different tables",
        f"{result['distinct']}",
        "one table is used twice",
    )
    for table in result["tables"]:
        _expect(
            table["dtype"] == "torch.float32", "single precision (torch.float32)", table["dtype"], "do not set dtype"
        )
        _expect(table["trained"], "tables that are trained", "requires_grad=False", "a table is a parameter")


def _judge_spread(values: np.ndarray, width: int) -> None:
    expected = 1 / width
    spread, mean = values.std(), values.mean()
    hint = "read the docstring of ScaledEmbedding: what is the standard deviation, and of which width?"
    near = abs(spread / expected - 1) < 0.1
    _expect(near, f"a standard deviation of {expected:.4f} at width {width}", f"{spread:.4f}", hint)
    _expect(abs(mean) < 6 * expected / values.size**0.5, "a mean of 0", f"{mean:.5f}", hint)
    kurtosis = ((values - mean) ** 4).mean() / spread**4
    _expect(abs(kurtosis - 3) < 0.6, "a normal distribution (kurtosis 3)", f"a kurtosis of {kurtosis:.2f}", hint)


def _judge_independence(tables: list[np.ndarray]) -> None:
    for first, second in itertools.combinations(tables, 2):
        rows = min(len(first), len(second))
        alike = np.corrcoef(first[:rows].ravel(), second[:rows].ravel())[0, 1]
        hint = "are the tables copies of each other, or drawn from one seed?"
        _expect(abs(alike) < 0.1, "tables drawn independently", f"two with a correlation of {alike:.2f}", hint)


def _judge_bias(result: dict, items: int) -> None:
    hint = "eq. (1) has one number per item, and none per user"
    _judge_shapes(result, [(items, 1)], hint)
    largest = np.abs(np.array(result["tables"][0]["values"])).max()
    _expect(largest == 0, "zeros", f"values up to {largest:.4f}", "read the docstring of ZeroEmbedding")


# Question 2: the MLP


def _mlp_checks() -> Iterator[Check]:
    for check, sentence, lists in [
        ("2-0-basic", "the layers of [96, 64]", [[96, 64]]),
        ("2-1-hidden", "the layers of other lists of sizes", [[96], [24, 10, 6], [60, 60, 60, 5], [3, 200]]),
    ]:
        jobs = [{"kind": "build_mlp", "arguments": {"layer_sizes": sizes}} for sizes in lists]

        def judge(results: list[dict], lists=lists) -> None:
            for result, sizes in zip(results, lists, strict=True):
                hidden = [f"Linear({a}, {b}), ReLU" for a, b in pairwise(sizes)]
                expected, got = ", ".join([*hidden, f"Linear({sizes[-1]}, 1)"]), ", ".join(result["layers"])
                hint = "layer_sizes lists the input width of every dense layer; which of them is followed by a ReLU?"
                _expect(got == expected, f"for layer_sizes={sizes}: {expected}", got or "no layers", hint)

        yield Check(check, sentence, jobs, judge)


# Question 3: forward


def _forward_checks() -> Iterator[Check]:
    random = np.random.default_rng(20231)
    for question, sharing in (("3a", True), ("3b", False)):
        weights = reference.random_weights(random, SIZES[0], SIZES[1], SIZES[3:], sharing)
        name = f"forward_with{'' if sharing else 'out'}_embedding_sharing"
        shapes = [_batch(random, size) for size in (1, 2, 256)]
        yield Check(
            f"{question}-0-basic",
            "predictions and score of shape (batch,), also for a batch of one",
            [_forward_job(sharing, weights, shapes, ["forward"])],
            lambda results, batches=shapes: _judge_output_shapes(results[0], batches),
        )
        numbers = [_batch(random, 1), _batch(random, 256), ([3, 3, 3, 5], [7, 7, 2, 7])]
        yield Check(
            f"{question}-1-basic",
            "values of eqs. (1) and (4)",
            [_forward_job(sharing, weights, numbers, ["forward", name])],
            lambda results, weights=weights, batches=numbers: _judge_numbers(results[0], weights, batches),
        )
        batch = _batch(random, 24)
        factors = random.normal(size=24).astype(np.float32).astype(float).tolist()
        job = {
            "kind": "run_backward",
            "arguments": {
                "sizes": SIZES,
                "sharing": sharing,
                "weights": _flat(weights),
                "batch": batch,
                "factors": factors,
            },
        }
        sentence = "both tasks train the shared tables" if sharing else "neither task touches the other's tables"
        yield Check(
            f"{question}-2-hidden",
            sentence,
            [job],
            lambda results, weights=weights, batch=batch, factors=factors: _judge_gradients(
                results[0]["gradients"], weights, batch, factors
            ),
        )


def _batch(random: np.random.Generator, size: int) -> tuple[list[int], list[int]]:
    return random.integers(SIZES[0], size=size).tolist(), random.integers(SIZES[1], size=size).tolist()


def _forward_job(sharing: bool, weights: dict, batches: list, methods: list[str]) -> dict:
    arguments = {"sizes": SIZES, "sharing": sharing, "weights": _flat(weights), "batches": batches, "methods": methods}
    return {"kind": "run_forward", "arguments": arguments}


def _flat(weights: dict) -> dict[str, list]:
    flat = {name: values.tolist() for name, values in weights.items() if name != "mlp"}
    for number, (weight, bias) in enumerate(weights["mlp"]):
        flat |= {f"mlp.{number}.weight": weight.tolist(), f"mlp.{number}.bias": bias.tolist()}
    return flat


def _judge_output_shapes(result: dict, batches: list) -> None:
    both_modes = [outputs for outputs_of_mode in result["outputs"] for outputs in outputs_of_mode]
    for outputs, (users, _) in zip(both_modes, batches * 2, strict=True):
        for name, output in zip(("predictions", "score"), outputs, strict=True):
            expected, got = f"({len(users)},)", str(tuple(output["shape"]))
            hint = "which dimension should be removed, and which must stay even if its size is 1?"
            _expect(got == expected, f"{name} of shape {expected}", got, hint)
            _expect(output["dtype"] == "torch.float32", f"{name} in torch.float32", output["dtype"], "do not set dtype")


def _judge_numbers(result: dict, weights: dict, batches: list) -> None:
    equations = {"predictions": "eq. (1)", "score": "eq. (4)"}
    for outputs_of_method in result["outputs"]:
        for outputs, (users, items) in zip(outputs_of_method, batches, strict=True):
            for (name, equation), output, right in zip(
                equations.items(), outputs, reference.forward(weights, users, items), strict=True
            ):
                _judge_values(
                    f"{name}, user {users[0]} and item {items[0]}", output["values"], right, f"read {equation} again"
                )


def _judge_values(name: str, got, right: np.ndarray, hint: str) -> None:
    got = np.array(got, dtype=np.float64)
    _expect(got.size == right.size, f"{right.size} numbers ({name})", str(got.size), hint)
    got, right = got.ravel(), right.ravel()
    far = ~(np.abs(got - right) <= TOLERANCE * (1 + np.abs(right)))
    first = far.argmax()
    _expect(
        not far.any(),
        f"{right[first]:.5f} ({name})",
        f"{got[first]:.5f}; {far.sum()} of {far.size} numbers differ",
        hint,
    )


def _judge_gradients(found: dict, weights: dict, batch: tuple, factors: list[float]) -> None:
    off = [0.0] * len(factors)
    for task, ranking_factors, rating_factors in [("ranking", factors, off), ("rating", off, factors)]:
        for name, right in reference.gradients(weights, *batch, ranking_factors, rating_factors).items():
            got = found[task].get(name)
            values = np.zeros_like(right) if got is None else np.array(got, dtype=np.float64)
            if not right.any():
                hint = "which tables does each equation use, and which not?"
                _expect(not values.any(), f"no gradient from the {task} loss to {name}", "one", hint)
                continue
            hint = "is anything detached, copied or computed from the wrong weights?"
            _expect(values.any(), f"a gradient from the {task} loss to {name}", "none", hint)
            _judge_values(f"gradient of the {task} output for {name}", values, right, hint)


def _network_checks() -> Iterator[Check]:
    networks = [  # sizes (None: the default arguments), users, items, shared tables
        (SIZES, *SIZES[:2], True),
        (SIZES, *SIZES[:2], False),
        ([31, 12, *SIZES[2:]], 31, 12, True),
        (None, 31, 47, True),
    ]
    jobs = [
        {
            "kind": "list_parameters",
            "arguments": dict(zip(("sizes", "num_users", "num_items", "sharing"), case, strict=True)),
        }
        for case in networks
    ]
    yield Check(
        "3c-0-hidden",
        "exactly the parameters of the sheet, all trained, with the prescribed initial values",
        jobs,
        lambda results: [_judge_parameters(result, *case) for result, case in zip(results, networks, strict=True)],
    )
    data = reference.read_training_data()
    rows = {name: column.tolist() for name, column in data["train"].items()}
    for check, sharing in (("3c-1-hidden", True), ("3c-2-hidden", False)):
        job = {"kind": "train", "arguments": training_arguments(sharing, rows, seed=0)}
        yield Check(
            check,
            f"a short training with {'shared' if sharing else 'separate'} tables learns both tasks",
            [job],
            lambda results, sharing=sharing: _judge_training(results[0]["weights"], sharing, data),
            seconds=60.0,
            trains=True,
        )


def training_arguments(sharing: bool, rows: dict, seed: int) -> dict:
    """The arguments of the job "train"; it starts from given weights, so that any initialization of the MLP passes."""
    sizes = [max(rows["user"]) + 1, max(rows["item"]) + 1, 16, 48, 24]
    return {
        "sizes": sizes,
        "sharing": sharing,
        "start": _flat(reference.initial_weights(np.random.default_rng(seed), sizes[0], sizes[1], sizes[3:], sharing)),
        "rows": rows,
        "weights": TRAINING_WEIGHTS,
        "epochs": TRAINING_EPOCHS[sharing],
        "lr": 5e-3,
        "seed": seed,
    }


def _judge_parameters(result: dict, sizes: list[int] | None, num_users: int, num_items: int, sharing: bool) -> None:
    width, layer_sizes = (sizes[2], sizes[3:]) if sizes else (32, [96, 64])
    right = _flat(reference.initial_weights(np.random.default_rng(0), num_users, num_items, layer_sizes, sharing))
    found = result["parameters"]
    for parameter in found:
        _expect(parameter["dtype"] == "torch.float32", f"{parameter['name']} in torch.float32", parameter["dtype"], "")
        _expect(parameter["trained"], f"{parameter['name']} to be trained", "requires_grad=False", "")
    expected = sorted(np.array(values).shape for values in right.values())
    got = sorted(tuple(parameter["shape"]) for parameter in found)
    kind = ("shared tables" if sharing else "separate tables") if sizes else "the default arguments"
    _expect(
        got == expected,
        f"with {kind} {len(expected)} parameters, {sum(map(np.prod, expected))} numbers in all",
        f"{len(got)} parameters, {sum(map(np.prod, got))} numbers: {', '.join(p['name'] for p in found)}",
        "every trained tensor must be registered with nn.Module as an attribute, and nothing else may be",
    )
    hint = "what else does the constructor do to the tables and layers after creating them?"
    for name, (largest, spread) in result["start"].items():
        if name == "B":
            _expect(largest == 0, "a new network whose item bias is zero", f"values up to {largest:.4f}", hint)
        elif not name.startswith("mlp."):
            near = 0.6 < spread * width < 1.5
            _expect(near, f"a new network with {name} of spread {1 / width:.4f}", f"{spread:.4f}", hint)
        elif name.endswith("weight"):
            usual = np.array(right[name]).shape[1] ** -0.5
            near = 0.05 * usual < spread < 20 * usual
            _expect(near, f"a new network with {name} with a spread near {usual:.3f}", f"{spread:.4f}", hint)


def _judge_training(flat: dict, sharing: bool, data: dict) -> None:
    found = reference.metrics(unflatten(flat), data)
    for name, (low, high) in WINDOWS[sharing].items():
        hint = "each output alone may be correct and still not learn: does every weight get its gradient?"
        _expect(low <= found[name] <= high, f"a test {name.upper()} of {low:g} to {high:g}", f"{found[name]:.4f}", hint)


def unflatten(flat: dict) -> dict:
    """Convert weights from the worker's flat names to the nested form of reference.py."""
    arrays = {name: np.array(values, dtype=np.float64) for name, values in flat.items()}
    dense = sum(name.endswith(".weight") for name in arrays)
    tables = {name: values for name, values in arrays.items() if not name.startswith("mlp.")}
    return tables | {"mlp": [(arrays[f"mlp.{n}.weight"], arrays[f"mlp.{n}.bias"]) for n in range(dense)]}


def _expect(condition: bool, expected: str, got: str, hint: str) -> None:
    if not condition:
        raise CheckFailed(expected, got, hint)


def _list(shapes: list[tuple]) -> str:
    return ", ".join("x".join(map(str, shape)) for shape in shapes) or "none"
