"""The checks that students see only after handing in. They need the reference, so students get neither."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from grading import reference
from grading.questions import MLP_HINT, SIZES, Check, Problem, Problems, flat, judge_layers, judge_values

# Bounds for a correct solution on training.csv. Observed with seeds 0 to 19: shared tables, MSE 0.886 to 0.998 and MRR
# 0.180 to 0.245; separate tables, MSE 0.868 to 1.030 and MRR 0.201 to 0.236. For comparison, predicting the mean rating
# gives MSE 1.223, and ranking by popularity MRR 0.153.
TRAINING_EPOCHS = {True: 18, False: 14}
TRAINING_WEIGHTS = [0.99, 0.01]
WINDOWS = {
    True: {"mse": (0.83, 1.06), "mrr": (0.165, 0.270)},
    False: {"mse": (0.80, 1.12), "mrr": (0.175, 0.265)},
}
LAYER_SIZES = [[96], [24, 10, 6], [60, 60, 60, 5], [3, 200]]
NETWORKS = [  # sizes (None: the default arguments), users, items, shared tables
    (SIZES, *SIZES[:2], True),
    (SIZES, *SIZES[:2], False),
    ([31, 12, *SIZES[2:]], 31, 12, True),
    (None, 31, 47, True),
]


def hidden_checks() -> list[Check]:
    return [_mlp_check(), *_gradient_checks(), _parameters_check(), *_training_checks()]


# Question 2: the MLP


def _mlp_check() -> Check:
    jobs = [{"kind": "build_mlp", "arguments": {"layer_sizes": sizes}} for sizes in LAYER_SIZES]

    def judge(results: list[dict]) -> Problems:
        for result, sizes in zip(results, LAYER_SIZES, strict=True):
            yield from judge_layers(result["layers"], sizes, layers_of(sizes))

    return Check("2-1-hidden", "the layers of other lists of sizes", jobs, judge)


def layers_of(layer_sizes: list[int]) -> str:
    """The layers that init_mlp_layers returns for these sizes, as the job "build_mlp" describes them."""
    hidden = [f"Linear({a}, {b}), ReLU" for a, b in pairwise(layer_sizes)]
    return ", ".join([*hidden, f"Linear({layer_sizes[-1]}, 1)"])


# Question 3: gradients


def _gradient_checks() -> Iterator[Check]:
    random = np.random.default_rng(20232)
    for question, sharing in (("3a", True), ("3b", False)):
        weights = reference.random_weights(random, SIZES[0], SIZES[1], SIZES[3:], sharing)
        batch = reference.random_batch(random, SIZES, 24)
        factors = random.normal(size=24).astype(np.float32).astype(float).tolist()
        arguments = {
            "sizes": SIZES, "sharing": sharing, "weights": flat(weights), "batch": batch, "factors": factors,
        }  # fmt: skip
        yield Check(
            f"{question}-2-hidden",
            "both tasks train the shared tables" if sharing else "neither task touches the other's tables",
            [{"kind": "run_backward", "arguments": arguments}],
            lambda results, weights=weights, batch=batch, factors=factors: _judge_gradients(
                results[0], weights, batch, factors
            ),
        )


def _judge_gradients(result: dict, weights: dict, batch: tuple, factors: list[float]) -> Problems:
    found, off = result["gradients"], [0.0] * len(factors)
    has_layers = ", ".join(result["layers"]) == layers_of(SIZES[3:])
    for task, ranking_factors, rating_factors in [("ranking", factors, off), ("rating", off, factors)]:
        for name, right in reference.gradients(weights, *batch, ranking_factors, rating_factors).items():
            got = found[task].get(name)
            values = np.zeros_like(right) if got is None else np.array(got, dtype=np.float64)
            if not right.any():
                if values.any():
                    hint = "which tables does each equation use, and which not?"
                    yield Problem(f"no gradient from the {task} loss to {name}", "one", hint)
                continue
            hint = "is anything detached, copied or computed from the wrong weights?" if has_layers else MLP_HINT
            if values.any():
                yield from judge_values(f"gradient of the {task} output for {name}", values, right, hint)
            else:
                yield Problem(f"a gradient from the {task} loss to {name}", "none", hint)


# Question 3c: the whole network


def _parameters_check() -> Check:
    names = ("sizes", "num_users", "num_items", "sharing")
    jobs = [{"kind": "list_parameters", "arguments": dict(zip(names, case, strict=True))} for case in NETWORKS]

    def judge(results: list[dict]) -> Problems:
        for result, case in zip(results, NETWORKS, strict=True):
            yield from _judge_parameters(result, *case)

    sentence = "exactly the parameters of the sheet, all trained, with the prescribed initial values"
    return Check("3c-0-hidden", sentence, jobs, judge)


def _judge_parameters(result: dict, sizes: list[int] | None, num_users: int, num_items: int, sharing: bool) -> Problems:
    width, layer_sizes = (sizes[2], sizes[3:]) if sizes else (32, [96, 64])
    right = flat(reference.initial_weights(np.random.default_rng(0), num_users, num_items, layer_sizes, sharing))
    found = result["parameters"]
    for parameter in found:
        if parameter["dtype"] != "torch.float32":
            yield Problem(f"{parameter['name']} in torch.float32", parameter["dtype"])
        if not parameter["trained"]:
            yield Problem(f"{parameter['name']} to be trained", "requires_grad=False")
    expected = sorted(np.array(values).shape for values in right.values())
    got = sorted(tuple(parameter["shape"]) for parameter in found)
    if got != expected:
        kind = ("shared tables" if sharing else "separate tables") if sizes else "the default arguments"
        yield Problem(
            f"with {kind} {len(expected)} parameters, {sum(map(np.prod, expected))} numbers in all",
            f"{len(got)} parameters, {sum(map(np.prod, got))} numbers: {', '.join(p['name'] for p in found)}",
            "every trained tensor must be registered with nn.Module as an attribute, and nothing else may be",
        )
        return
    yield from _judge_start(result["start"], right, width)


def _judge_start(start: dict, right: dict, width: int) -> Problems:
    hint = "what else does the constructor do to the tables and layers after creating them?"
    for name, (largest, spread) in start.items():
        if name == "B":
            if largest != 0:
                yield Problem("a new network whose item bias is zero", f"values up to {largest:.4f}", hint)
        elif not name.startswith("mlp."):
            if not 0.6 < spread * width < 1.5:
                yield Problem(f"a new network with {name} of spread {1 / width:.4f}", f"{spread:.4f}", hint)
        elif name.endswith("weight"):
            usual = np.array(right[name]).shape[1] ** -0.5
            if not 0.05 * usual < spread < 20 * usual:
                yield Problem(f"a new network with {name} with a spread near {usual:.3f}", f"{spread:.4f}", hint)


def _training_checks() -> Iterator[Check]:
    data = reference.read_training_data()
    rows = {name: column.tolist() for name, column in data["train"].items()}
    for check, sharing in (("3c-1-hidden", True), ("3c-2-hidden", False)):
        yield Check(
            check,
            f"a short training with {'shared' if sharing else 'separate'} tables learns both tasks",
            [{"kind": "train", "arguments": training_arguments(sharing, rows, seed=0)}],
            lambda results, sharing=sharing: judge_training(results[0]["weights"], sharing, data),
            seconds=60.0,
            trains=True,
        )


def training_arguments(sharing: bool, rows: dict, seed: int) -> dict:
    """The arguments of the job "train"; it starts from given weights, so that any initialization of the MLP passes."""
    sizes = [max(rows["user"]) + 1, max(rows["item"]) + 1, 16, 48, 24]
    return {
        "sizes": sizes,
        "sharing": sharing,
        "start": flat(reference.initial_weights(np.random.default_rng(seed), sizes[0], sizes[1], sizes[3:], sharing)),
        "rows": rows,
        "weights": TRAINING_WEIGHTS,
        "epochs": TRAINING_EPOCHS[sharing],
        "lr": 5e-3,
        "seed": seed,
    }


def judge_training(weights: dict, sharing: bool, data: dict) -> Problems:
    found = reference.metrics(unflatten(weights), data)
    for name, (low, high) in WINDOWS[sharing].items():
        if not low <= found[name] <= high:
            hint = "each output alone may be correct and still not learn: does every weight get its gradient?"
            yield Problem(f"a test {name.upper()} of {low:g} to {high:g}", f"{found[name]:.4f}", hint)


def unflatten(weights: dict) -> dict:
    """Convert weights from the worker's flat names to the nested form of reference.py."""
    arrays = {name: np.array(values, dtype=np.float64) for name, values in weights.items()}
    dense = sum(name.endswith(".weight") for name in arrays)
    tables = {name: values for name, values in arrays.items() if not name.startswith("mlp.")}
    return tables | {"mlp": [(arrays[f"mlp.{n}.weight"], arrays[f"mlp.{n}.bias"]) for n in range(dense)]}
