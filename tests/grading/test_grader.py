"""The checks: correct solutions get all points, and every wrong one fails the check for its error."""

import contextlib
import io
import json
import types
from functools import cache

import pytest
from conftest import ROOT
from solutions import CORRECT, MODELS, WRONG, changed

from grading import examples, hidden_checks, jobs, public_checks, reference
from grading.checks import all_checks as make_checks
from grading.questions import QUESTIONS
from grading.starter import make_starter


@cache
def all_checks() -> tuple:
    return tuple(make_checks())


def grade_here(source: str, selected: str = "") -> dict[str, str]:
    """Grade a solution in this process, for speed: {check id: PASS, FAIL or ERROR}."""
    module = types.ModuleType("models")
    with contextlib.redirect_stdout(io.StringIO()), pytest.warns() if "warn(" in source else contextlib.nullcontext():
        exec(compile(source, "models.py", "exec"), module.__dict__)
        return {check.id: run_check_here(module, check) for check in all_checks() if selected in check.id}


def run_check_here(module, check) -> str:
    try:
        problems = list(check.judge([json.loads(json.dumps(jobs.perform(module, job))) for job in check.jobs]))
    except jobs.Mismatch:
        return "FAIL"
    except Exception:
        return "ERROR"
    return "FAIL" if problems else "PASS"


# The 14 points


def test_there_are_14_points_and_8_are_visible():
    points = dict.fromkeys(QUESTIONS, 0)
    for check in all_checks():
        points[check.question] += check.points
    assert sum(points.values()) == 14
    assert sum(check.points for check in all_checks() if not check.hidden) == 8
    assert points["1a"] + points["1b"] + points["1c"] == 3
    assert points["2"] == 2
    assert points["3a"] + points["3b"] + points["3c"] == 9


def test_models_py_passes_every_check():
    assert set(grade_here(MODELS).values()) == {"PASS"}


@pytest.mark.parametrize("name", CORRECT)
def test_correct_alternative_solutions_pass_every_check(name):
    assert {check for check, status in grade_here(changed(CORRECT[name])).items() if status != "PASS"} == set()


@pytest.mark.parametrize("name", WRONG)
def test_wrong_solutions_fail_the_check_for_their_error(name):
    check_id, changes = WRONG[name]
    expected = "ERROR" if name == "init method that reads self" else "FAIL"
    assert grade_here(changed(changes), check_id) == {check_id: expected}


@pytest.mark.slow
def test_every_check_catches_a_wrong_solution(capsys):
    """Prints a table of the checks that each wrong solution fails."""
    lines, caught_by = [], dict.fromkeys((check.id for check in all_checks()), 0)
    for name, (check_id, changes) in WRONG.items():
        statuses = grade_here(changed(changes))
        lost = [check for check, status in statuses.items() if status != "PASS"]
        assert check_id in lost
        for check in lost:
            caught_by[check] += 1
        lines.append(f"{name:<46} {14 - len(lost):>2}/14   {check_id:<12} {' '.join(c for c in lost if c != check_id)}")
    with capsys.disabled():
        print(f"\n\n{'wrong solution':<46} points  fails        also fails\n" + "\n".join(lines))
        print("\ncaught by: " + ", ".join(f"{check} {count}" for check, count in caught_by.items()))
    assert len(WRONG) >= 30
    assert min(caught_by.values()) > 0


@pytest.mark.parametrize("sharing", [True, False])
@pytest.mark.slow
def test_a_correct_solution_passes_the_training_check_with_20_seeds(sharing, capsys):
    import models

    data = reference.read_training_data()
    rows = {name: column.tolist() for name, column in data["train"].items()}
    found = []
    for seed in range(20):
        weights = jobs.train(models, **hidden_checks.training_arguments(sharing, rows, seed))["weights"]
        found.append(reference.metrics(hidden_checks.unflatten(weights), data))
        assert list(hidden_checks.judge_training(weights, sharing, data)) == []
    with capsys.disabled():
        for name in ("mse", "mrr"):
            values = [metrics[name] for metrics in found]
            print(f"\nsharing={sharing}: {name} {min(values):.4f} to {max(values):.4f}", end="")


# The reference


def test_the_worked_examples_are_those_of_the_reference():
    assert public_checks.EXAMPLES.read_text(encoding="utf-8") == examples.as_text(examples.make_examples()), (
        "the reference has changed: run python -m grading.examples"
    )


def test_the_reference_gradient_equals_finite_differences():
    import numpy as np

    random = np.random.default_rng(0)
    for sharing in (True, False):
        weights = reference.random_weights(random, 4, 5, [12, 6, 3], sharing)
        users, items, factors = [0, 3, 0], [1, 1, 4], random.normal(size=(2, 3))

        def total(weights=weights, users=users, items=items, factors=factors):
            return sum(float(f @ out) for f, out in zip(factors, reference.forward(weights, users, items), strict=True))

        found = reference.gradients(weights, users, items, *factors)
        arrays = {name: values for name, values in weights.items() if name != "mlp"}
        for number, (weight, bias) in enumerate(weights["mlp"]):
            arrays |= {f"mlp.{number}.weight": weight, f"mlp.{number}.bias": bias}
        for name, array in arrays.items():
            for place in np.ndindex(array.shape):
                kept = array[place]
                array[place] = kept + 1e-6
                above = total()
                array[place] = kept - 1e-6
                numeric = (above - total()) / 2e-6
                array[place] = kept
                assert found[name][place] == pytest.approx(numeric, abs=1e-6)


def test_the_reference_metrics_equal_those_of_evaluation_py():
    import numpy as np
    import torch
    from conftest import interactions

    from evaluation import mrr_score, mse_score
    from models import MultiTaskNet

    data = reference.read_training_data()
    parts = {
        part: interactions(list(zip(rows["user"], rows["item"], strict=True)), 100, 120, rows["rating"])
        for part, rows in data.items()
    }
    torch.manual_seed(0)
    model = MultiTaskNet(100, 120, embedding_dim=16, layer_sizes=[48, 24])
    flat = jobs._take_weights(model, True)
    found = reference.metrics(hidden_checks.unflatten(flat), data)
    assert found["mrr"] == pytest.approx(mrr_score(model, parts["test"], parts["train"]), rel=1e-5)
    assert found["mse"] == pytest.approx(mse_score(model, parts["test"]), rel=1e-5)
    assert not set(zip(data["train"]["user"], data["train"]["item"], strict=True)) & set(
        zip(data["test"]["user"], data["test"]["item"], strict=True)
    )
    assert np.isin(data["test"]["user"], data["train"]["user"]).all()


# The starter


def test_the_starter_is_models_py_without_the_methods_to_write():
    assert (ROOT / "starter" / "models.py").read_text(encoding="utf-8") == make_starter(MODELS), (
        "models.py has changed: run python grading/starter.py"
    )


def test_the_starter_contains_no_answer():
    starter = make_starter(MODELS)
    for answer in ("torch.cat", "nn.Linear(", "squeeze", "nn.ReLU", "ScaledEmbedding(num_"):
        assert answer in MODELS
        assert answer not in starter
