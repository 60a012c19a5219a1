"""The homework's written questions, answered from the runs: numbers and conclusions follow the evidence."""

from dataclasses import dataclass

import pandas as pd

from analysis.configuration import Configuration
from analysis.results import METRICS, READINGS, rating_fraction, read_runs
from analysis.statistics import BETTER, LEVEL, SAME, UNTESTED, WORSE, Comparison, compare, correct, in_words
from analysis.tables import markdown_rows, percent
from analysis.user_bias import COLUMNS
from analysis.weights import CONFIGURATIONS

SHARED, SHARED_EVEN, SEPARATE_EVEN, SEPARATE = CONFIGURATIONS
NO_EFFECT = 1e-9  # largest change of a mean that double precision explains
Comparisons = dict[tuple[str, str], Comparison]  # {(metric, reading): comparison}


@dataclass(frozen=True)
class Question:
    title: str
    own: Configuration
    other: Configuration


SHARING = Question("Do shared tables beat separate ones at (0.99, 0.01)?", SHARED, SEPARATE)
SHARING_EVEN = Question("Do shared tables beat separate ones at (0.5, 0.5)?", SHARED_EVEN, SEPARATE_EVEN)
WEIGHTING = Question("With shared tables, how do (0.99, 0.01) and (0.5, 0.5) differ?", SHARED, SHARED_EVEN)
QUESTIONS = (SHARING, SHARING_EVEN, WEIGHTING)

ALGEBRA = """\
Write p_ij = a_i + u_i · q_j + b_j instead of eq. 1. Eq. 3 compares a watched item j with a random item j' for the
*same* user:

    p_ij - p_ij' = (a_i + u_i · q_j + b_j) - (a_i + u_i · q_j' + b_j') = u_i · (q_j - q_j') + b_j - b_j'

so that a_i cancels: the loss does not depend on it, its gradient is zero, and it keeps its initial value. It does not
change the ranking either, which orders the items of one user at a time: all their scores change by the same a_i. A user
bias adds one parameter per user and no new ranking."""


def compare_all(curves: pd.DataFrame) -> dict[str, Comparisons]:
    """{question title: {(metric, reading): comparison}}, p corrected over all of them together."""
    runs = read_runs(curves)
    found = {
        (question.title, metric, reading): compare(
            runs.loc[question.own.name, f"{reading}_{metric}"],
            runs.loc[question.other.name, f"{reading}_{metric}"],
            direction,
        )
        for question in QUESTIONS
        for metric, direction in METRICS.items()
        for reading in READINGS
    }
    answers: dict[str, Comparisons] = {question.title: {} for question in QUESTIONS}
    for (title, *key), comparison in zip(found, correct(list(found.values())), strict=True):
        answers[title][tuple(key)] = comparison
    return answers


def answer(question: Question, found: Comparisons, curves: pd.DataFrame) -> str:
    """Conclusion, numbers and an explanation, in Markdown."""
    names = question.own.name, question.other.name
    lines = [f"**{names[0]} against {names[1]}: {'; '.join(_conclusion(metric, found) for metric in METRICS)}.**", ""]
    lines += [*(_numbers(metric, found) for metric in METRICS), ""]
    explain = {SHARING: _why_sharing, SHARING_EVEN: _why_sharing_even, WEIGHTING: _why_weighting}[question]
    return "\n".join([*lines, explain(found, curves)])


def answer_user_bias(measured: pd.DataFrame | None) -> str:
    """The algebra, and the result of `user_bias.measure_all` on trained networks; None: the algebra alone."""
    if measured is None or measured.empty:
        return f"**No: a user bias changes no ranking.**\n\n{ALGEBRA}"
    moved = {name: (measured[f"{name}_with_bias"] - measured[name]).abs().max() for name in COLUMNS}
    tried = (
        f"Tried on the {len(measured)} trained networks of the four experiments, with a_i drawn from N(0, 1) and in "
        f"double precision: the loss of eq. 3 changes by {moved['loss']:.1g} at most, the MRR by {moved['mrr']:.1g}"
    )
    if max(moved.values()) <= NO_EFFECT:
        conclusion = "**No: a user bias changes neither the loss nor any ranking.**"
        return f"{conclusion}\n\n{ALGEBRA}\n\n{tried}; rounding alone may change them by 1e-15."
    return (
        f"**The algebra says no, but the runs contradict it.**\n\n{ALGEBRA}\n\n{tried}, which is more than rounding: "
        "one of the two is wrong, so look for the mistake first."
    )


def comparison_table(answers: dict[str, Comparisons]) -> str:
    """Every comparison behind the answers in one Markdown table."""
    titles = (
        "comparison", "metric", "epoch", "mean", "against", "difference", "95 % interval", "p", "p, Holm", "outcome",
    )  # fmt: skip
    rows = []
    for question in QUESTIONS:
        names = f"{question.own.name} / {question.other.name}"
        for (metric, reading), one in answers[question.title].items():
            p = ("n/a", "n/a") if one.outcome == UNTESTED else (_p(one.p), _p(one.adjusted))
            numbers = (f"{one.own:.4f}", f"{one.other:.4f}", f"{one.difference:+.4f}", _interval(one))
            rows.append((names, metric.upper(), reading, *numbers, *p, one.sentence))
    note = (
        "Paired t-test over seeds: seed s is one split, on which both were trained and measured. The outcome uses p "
        f"after Holm's correction over all {len(rows)} comparisons, at {LEVEL:g}; the interval is that of the one "
        "comparison by itself. *last*: the last epoch; *best*: the best epoch by validation, one for each metric."
    )
    return "\n".join([*markdown_rows(titles, rows), "", note])


def _conclusion(metric: str, found: Comparisons) -> str:
    last, best = (found[metric, reading] for reading in READINGS)
    if last.sentence == best.sentence:
        return f"{metric.upper()}: {last.sentence}"
    return f"{metric.upper()}: {last.sentence} {READINGS['last']}, {best.sentence} {READINGS['best']}"


def _numbers(metric: str, found: Comparisons) -> str:
    parts = []
    for reading, words in READINGS.items():
        one = found[metric, reading]
        test = "" if one.outcome == UNTESTED else f" (95 % interval {_interval(one)}, {in_words(one.adjusted)})"
        parts.append(f"{words} {one.own:.4f} against {one.other:.4f}, difference {one.difference:+.4f}{test}")
    return f"- {metric.upper()} {'; '.join(parts)}."


def _p(value: float) -> str:
    """A p of the table; all have the same number of decimals."""
    return in_words(value).removeprefix("p ").removeprefix("= ")


def _interval(one: Comparison) -> str:
    return "n/a" if one.outcome == UNTESTED else f"{one.low:+.4f} to {one.high:+.4f}"


def _why_sharing(found: Comparisons, curves: pd.DataFrame) -> str:
    runs = read_runs(curves)
    gaps = (runs["last_mse"] - runs["last_regression"]).groupby("row").mean()
    own, other = gaps[SHARED.name], gaps[SEPARATE.name]
    text = (
        "After the last epoch the squared error on the test part exceeds that on the training part by "
        f"{own:.3f} with shared tables and by {other:.3f} with separate ones."
    )
    outcome = found["mse", "last"].outcome
    if outcome == BETTER and own < other:
        return f"{text} Sharing reduces overfitting of the ratings: the ranking loss regularizes the tables."
    if outcome == WORSE:
        return f"{text} Tables shaped by the ranking make the ratings less accurate here."
    return text


def _why_sharing_even(found: Comparisons, curves: pd.DataFrame) -> str:
    fraction = rating_fraction(curves[curves["row"] == SHARED_EVEN.name], SHARED_EVEN.regression_weight)
    text = f"The squared error makes up {percent(fraction)} of the joint loss of the shared network in the first epoch."
    outcome = found["mrr", "last"].outcome
    if outcome == WORSE:
        return f"{text} At equal weights the rating task dominates the tables, and the ranking gets worse."
    if outcome == BETTER:
        return f"{text} Still, the ranking gains from sharing."
    return f"{text} No harm to the ranking can be distinguished from chance." if outcome == SAME else text


def _why_weighting(found: Comparisons, curves: pd.DataFrame) -> str:
    own, other = (
        rating_fraction(curves[curves["row"] == one.name], one.regression_weight) for one in (SHARED, SHARED_EVEN)
    )
    text = (
        f"The squared error makes up {percent(own)} of the joint loss in the first epoch at {SHARED.weights}, and "
        f"{percent(other)} at {SHARED_EVEN.weights}."
    )
    outcome = found["mrr", "last"].outcome
    if outcome == BETTER and own < other:
        return (
            f"{text} With one pair of tables the weights decide which task shapes them: the ranking is better where "
            "its own loss has the larger weight."
        )
    if outcome == WORSE:
        return f"{text} Still, the ranking is worse where its weight is larger."
    return f"{text} The ranking shows no effect of this." if outcome == SAME else text
