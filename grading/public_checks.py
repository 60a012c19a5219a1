"""The checks that students see. Those of question 3 compare with the worked examples in examples.json."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from grading.questions import MLP_HINT, SIZES, Check, Problem, Problems, are_near, judge_layers, judge_values

EXAMPLES = Path(__file__).with_name("examples.json")  # written by grading/examples.py
TABLES = [(220, 310, 16), (270, 190, 40)]  # users, items, width: more items than users, and the other way round
# The right layers, as the job "build_mlp" describes them. Written out: a rule would be the answer to question 2.
MLP_OF_THE_DOCSTRING = [96, 64], "Linear(96, 64), ReLU, Linear(64, 1)"
MLP_OF_THE_EXAMPLES = "Linear(24, 10), ReLU, Linear(10, 6), ReLU, Linear(6, 6), ReLU, Linear(6, 6), ReLU, Linear(6, 1)"
EQUATIONS = {"predictions": "eq. (1)", "score": "eq. (4)"}


def public_checks() -> list[Check]:
    return [*_table_checks(), _mlp_check(), *_forward_checks()]


# Question 1: the tables


def _table_checks() -> Iterator[Check]:
    for question, method, pairs, hint in [
        ("1a", "init_shared_user_and_item_embeddings", 1, "the docstring of the method names two tables"),
        ("1b", "init_separate_user_and_item_embeddings", 2, "the docstring gives the order of the four tables"),
    ]:

        def judge(results: list[dict], pairs=pairs, hint=hint) -> Problems:
            for result, case in zip(results, TABLES, strict=True):
                yield from _judge_tables(result, case, pairs, hint)

        sentence = f"{2 * pairs} embedding tables of the right shapes and initial spread"
        yield Check(f"{question}-0-basic", sentence, [_tables_job(method, case) for case in TABLES], judge)

    def judge_biases(results: list[dict]) -> Problems:
        for result, (_, items, _) in zip(results, TABLES, strict=True):
            yield from _judge_bias(result, items)

    jobs = [_tables_job("init_item_bias", case[:2]) for case in TABLES]
    yield Check("1c-0-basic", "one bias per item, all zero", jobs, judge_biases)


def _tables_job(method: str, sizes: tuple[int, ...]) -> dict:
    return {"kind": "build_tables", "arguments": {"method": method, "arguments": sizes}}


def _judge_tables(result: dict, case: tuple[int, int, int], pairs: int, hint: str) -> Problems:
    users, items, width = case
    problems = list(_judge_shapes(result, [(users, width), (items, width)] * pairs, hint))
    yield from problems
    if not problems:
        tables = [np.array(table["values"]) for table in result["tables"]]
        for table in tables:
            yield from _judge_spread(table, width)
        yield from _judge_independence(tables)


def _judge_shapes(result: dict, shapes: list[tuple[int, int]], hint: str) -> Problems:
    found = [np.array(table["values"]).shape for table in result["tables"]]
    if found != shapes:
        yield Problem(f"tables of shapes {_list(shapes)}", _list(found), hint)
    elif result["distinct"] != len(shapes):
        yield Problem(f"{len(shapes)} different tables", f"{result['distinct']}", "one table is used twice")
    for table in result["tables"]:
        if table["dtype"] != "torch.float32":
            yield Problem("single precision (torch.float32)", table["dtype"], "do not set dtype")
        if not table["trained"]:
            yield Problem("tables that are trained", "requires_grad=False", "a table is a parameter")


def _judge_spread(values: np.ndarray, width: int) -> Problems:
    expected, spread, mean = 1 / width, values.std(), values.mean()
    hint = "read the docstring of ScaledEmbedding: what is the standard deviation, and of which width?"
    if not abs(spread / expected - 1) < 0.1:
        yield Problem(f"a standard deviation of {expected:.4f} at width {width}", f"{spread:.4f}", hint)
    if not abs(mean) < 6 * expected / values.size**0.5:
        yield Problem("a mean of 0", f"{mean:.5f}", hint)
    kurtosis = ((values - mean) ** 4).mean() / max(spread, 1e-30) ** 4
    if not abs(kurtosis - 3) < 0.6:
        yield Problem("a normal distribution (kurtosis 3)", f"a kurtosis of {kurtosis:.2f}", hint)


def _judge_independence(tables: list[np.ndarray]) -> Problems:
    for first, second in itertools.combinations(tables, 2):
        rows = min(len(first), len(second))
        alike = np.corrcoef(first[:rows].ravel(), second[:rows].ravel())[0, 1]
        if not abs(alike) < 0.1:
            hint = "are the tables copies of each other, or drawn from one seed?"
            yield Problem("tables drawn independently", f"two with a correlation of {alike:.2f}", hint)


def _judge_bias(result: dict, items: int) -> Problems:
    problems = list(_judge_shapes(result, [(items, 1)], "eq. (1) has one number per item, and none per user"))
    yield from problems
    largest = 0.0 if problems else np.abs(np.array(result["tables"][0]["values"])).max()
    if largest != 0:
        yield Problem("zeros", f"values up to {largest:.4f}", "read the docstring of ZeroEmbedding")


# Question 2: the MLP


def _mlp_check() -> Check:
    job = {"kind": "build_mlp", "arguments": {"layer_sizes": MLP_OF_THE_DOCSTRING[0]}}
    judge = lambda results: judge_layers(results[0]["layers"], *MLP_OF_THE_DOCSTRING)  # noqa: E731  (a function of one line)
    return Check("2-0-basic", "the layers of [96, 64]", [job], judge)


# Question 3: forward


def _forward_checks() -> Iterator[Check]:
    for example in json.loads(EXAMPLES.read_text(encoding="utf-8")):
        sharing, batches = example["sharing"], example["batches"]
        question = "3a" if sharing else "3b"
        methods = ["forward", f"forward_with{'' if sharing else 'out'}_embedding_sharing"]
        arguments = {"sizes": SIZES, "sharing": sharing, "weights": example["weights"], "batches": batches}
        job = {"kind": "run_forward", "arguments": arguments | {"methods": methods}}
        yield Check(
            f"{question}-0-basic",
            "predictions and score of shape (batch,), also for a batch of one",
            [job],
            lambda results, batches=batches: _judge_output_shapes(results[0], batches),
        )
        yield Check(
            f"{question}-1-basic",
            "values of eqs. (1) and (4)",
            [job],
            lambda results, example=example: _judge_numbers(results[0], example),
        )


def _judge_output_shapes(result: dict, batches: list) -> Problems:
    """At most one problem for each of the two outputs."""
    for place, name in enumerate(EQUATIONS):
        yield from itertools.islice(_wrong_shapes(result, batches, place, name), 1)


def _wrong_shapes(result: dict, batches: list, place: int, name: str) -> Problems:
    for run in result["runs"]:
        for outputs, (users, _) in zip(run["outputs"], batches, strict=True):
            expected, got = f"({len(users)},)", str(tuple(outputs[place]["shape"]))
            if got != expected:
                hint = "which dimension should be removed, and which must stay even if its size is 1?"
                yield Problem(f"{name} of shape {expected} from {run['method']}", got, hint)
            if outputs[place]["dtype"] != "torch.float32":
                yield Problem(f"{name} in torch.float32", outputs[place]["dtype"], "do not set dtype")


def _judge_numbers(result: dict, example: dict) -> Problems:
    """At most one problem for each of the two outputs."""
    right = [[np.array(output) for output in outputs] for outputs in example["outputs"]]
    for run in result["runs"]:
        if _are_swapped(run, right):
            yield Problem(f"(predictions, score) from {run['method']}", "(score, predictions)", "swap the two outputs")
            return
    for place, (name, equation) in enumerate(EQUATIONS.items()):
        hint = f"read {equation} again"
        if name == "score" and ", ".join(result["layers"]) != MLP_OF_THE_EXAMPLES:
            hint = MLP_HINT
        yield from itertools.islice(_wrong_numbers(result, example["batches"], right, place, name, hint), 1)


def _are_swapped(run: dict, right: list) -> bool:
    pairs = list(zip(run["outputs"], right, strict=True))
    swapped = all(are_near(got[1 - place]["values"], values[place]).all() for got, values in pairs for place in (0, 1))
    return swapped and not all(are_near(got[0]["values"], values[0]).all() for got, values in pairs)


def _wrong_numbers(result: dict, batches: list, right: list, place: int, name: str, hint: str) -> Problems:
    for run in result["runs"]:
        for outputs, values, (users, items) in zip(run["outputs"], right, batches, strict=True):
            where = f"{name} of {run['method']} in {run['mode']} mode, user {users[0]} and item {items[0]}"
            yield from judge_values(where, outputs[place]["values"], values[place], hint)


def _list(shapes: list[tuple]) -> str:
    return ", ".join("x".join(map(str, shape)) for shape in shapes) or "none"
