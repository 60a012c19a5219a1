"""The written answers on made-up results: evidence for either side, and none."""

import math

import pandas as pd
import pytest
import study_runs

from analysis import answers
from analysis.answers import QUESTIONS, SHARING, SHARING_EVEN, WEIGHTING
from analysis.statistics import BETTER, SAME, UNTESTED, WORSE

READINGS = ("last", "best")


def ask(question, effects, **options) -> tuple[str, dict]:
    """The answer to a question on made-up curves, and the comparisons behind it."""
    curves = study_runs.curves(effects, **options)
    compared = answers.compare_all(curves)[question.title]
    return answers.answer(question, compared, curves), compared


@pytest.mark.parametrize("question", QUESTIONS, ids=["sharing", "sharing-even", "weighting"])
@pytest.mark.parametrize(
    ("mrr", "mse", "outcomes"),
    [
        (+0.05, -0.2, (BETTER, BETTER)),
        (-0.05, +0.2, (WORSE, WORSE)),
        (+0.05, +0.2, (BETTER, WORSE)),
        (0.0, 0.0, (SAME, SAME)),
    ],
)
def test_outcomes_follow_the_evidence(question, mrr, mse, outcomes):
    name = question.own.name
    text, compared = ask(question, {(name, "mrr"): mrr, (name, "mse"): mse})
    for metric, outcome in zip(("mrr", "mse"), outcomes, strict=True):
        assert {compared[metric, reading].outcome for reading in READINGS} == {outcome}
        words = "no difference that 5 seeds can show" if outcome == SAME else outcome
        assert f"{metric.upper()}: {words}" in text.split("**")[1]
        assert f"difference {compared[metric, 'last'].difference:+.4f} (95 % interval " in text
    assert f"**{name} against {question.other.name}: " in text


def test_the_numbers_are_those_of_the_runs():
    name = SHARING.own.name
    text, _ = ask(SHARING, {(name, "mrr"): 0.0123}, noise=0.0)
    assert "MRR after the last epoch 0.1123 against 0.1000, difference +0.0123" in text
    assert "MSE after the last epoch 0.9000 against 0.9000, difference +0.0000" in text


def test_both_readings_are_given_where_they_differ():
    curves = study_runs.curves({})
    late = (curves["row"] == SHARING.other.name) & (curves["epoch"] == 2)
    early = (curves["row"] == SHARING.other.name) & (curves["epoch"] == 1)
    curves.loc[early, ["val_mse", "test_mse"]] = curves.loc[late, ["val_mse", "test_mse"]].to_numpy()
    curves.loc[late, ["val_mse", "test_mse"]] += 0.5  # separate tables overfit; the validation part sees it
    compared = answers.compare_all(curves)[SHARING.title]
    text = answers.answer(SHARING, compared, curves)
    assert (
        "MSE: better after the last epoch, no difference that 5 seeds can show at the best epoch by validation" in text
    )
    assert "reduces overfitting" in text


@pytest.mark.parametrize(
    ("question", "metric", "sign", "reason"),
    [
        (SHARING, "mse", -1, "reduces overfitting"),
        (SHARING, "mse", +1, "ratings less accurate"),
        (SHARING, "mse", 0, ""),
        (SHARING_EVEN, "mrr", -1, "the ranking gets worse"),
        (SHARING_EVEN, "mrr", +1, "gains from sharing"),
        (SHARING_EVEN, "mrr", 0, "No harm to the ranking can be distinguished from chance"),
        (WEIGHTING, "mrr", +1, "decide which task shapes them"),
        (WEIGHTING, "mrr", -1, "is worse where its weight is larger"),
        (WEIGHTING, "mrr", 0, "ranking shows no effect"),
    ],
)
def test_a_reason_is_given_only_for_what_was_found(question, metric, sign, reason):
    reasons = (
        "reduces overfitting", "ratings less accurate", "ranking gets worse", "gains from sharing",
        "distinguished from chance", "decide which task", "is worse where", "shows no effect",
    )  # fmt: skip
    text, _ = ask(question, {(question.own.name, metric): 0.2 * sign})
    assert reason in text
    assert [other for other in reasons if other in text] == [other for other in reasons if other in reason]


def test_fractions_and_gaps_are_filled_in():
    text, _ = ask(WEIGHTING, {})  # losses 0.8 and 0.4 in the first epoch
    assert "makes up 2 % of the joint loss in the first epoch at (0.99, 0.01), and 67 % at (0.5, 0.5)" in text
    text, _ = ask(SHARING, {(SHARING.other.name, "mse"): 0.25}, noise=0.0)
    assert "by 0.100 with shared tables and by 0.350 with separate ones" in text


def test_one_seed_is_not_tested():
    text, compared = ask(SHARING, {(SHARING.own.name, "mrr"): 0.2}, seeds=1)
    assert {one.outcome for one in compared.values()} == {UNTESTED}
    assert "MRR: not tested (1 seed; a test takes two)" in text
    assert "difference +0.2" in text
    assert "interval" not in text
    assert "nan" not in text


def test_nan_is_left_out():
    curves = study_runs.curves({})
    mine = curves["row"] == SHARING.own.name
    curves.loc[mine & (curves["seed"] == 4), ["test_mrr", "val_mrr"]] = math.nan
    compared = answers.compare_all(curves)[SHARING.title]
    assert compared["mrr", "last"].seeds == compared["mrr", "best"].seeds == 4
    assert compared["mse", "last"].seeds == 5
    curves.loc[mine, "test_mrr"] = math.nan
    compared = answers.compare_all(curves)[SHARING.title]
    assert compared["mrr", "last"].outcome == UNTESTED
    answers.answer(SHARING, compared, curves)


def test_p_is_corrected_over_all_comparisons_together():
    compared = answers.compare_all(study_runs.curves({(SHARING.own.name, "mrr"): 0.002}))
    everything = [one for found in compared.values() for one in found.values()]
    assert len(everything) == 12
    smallest = min(everything, key=lambda one: one.p)
    assert smallest.adjusted == pytest.approx(min(1.0, 12 * smallest.p))
    assert all(one.adjusted >= one.p for one in everything)


def test_the_table_holds_every_comparison():
    compared = answers.compare_all(study_runs.curves({(SHARING.own.name, "mse"): -0.2}))
    lines = answers.comparison_table(compared).split("\n")
    rows = [line for line in lines if line.startswith(("| shared", "| separate"))]
    assert len(rows) == 12
    assert len({line.count("|") for line in lines[:14]}) == 1
    one = compared[SHARING.title]["mse", "last"]
    (row,) = (line for line in rows if line.startswith(f"| {SHARING.own.name} / {SHARING.other.name} | MSE | last |"))
    assert f"| {one.own:.4f} | {one.other:.4f} | {one.difference:+.4f} |" in row
    assert row.endswith("| better |")
    assert "over all 12 comparisons" in lines[-1]


@pytest.mark.parametrize(
    ("moved", "outcome"), [(0.0, "changes neither"), (1e-15, "changes neither"), (0.01, "the runs contradict it")]
)
@pytest.mark.parametrize("column", ["loss", "mrr"])
def test_the_answer_on_user_biases_follows_the_measurement(moved, outcome, column):
    measured = pd.DataFrame({"loss": [0.2, 0.3], "loss_with_bias": [0.2, 0.3], "mrr": [0.1] * 2})
    measured["mrr_with_bias"] = measured["mrr"]
    measured.loc[1, f"{column}_with_bias"] -= moved
    text = answers.answer_user_bias(measured)
    assert outcome in text
    assert "so that a_i cancels" in text
    assert "2 trained networks" in text


def test_without_runs_the_algebra_alone_is_given():
    text = answers.answer_user_bias(None)
    assert "a_i cancels" in text
    assert "Tried" not in text
