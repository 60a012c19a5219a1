"""The homework's written questions, answered from the runs: numbers and verdicts change with the evidence."""

from dataclasses import dataclass

import pandas as pd

from analysis.configuration import Configuration
from analysis.metadata import percent
from analysis.results import METRICS, READINGS, rating_share, read_runs
from analysis.statistics import BETTER, LEVEL, SAME, UNTESTED, WORSE, Comparison, compare, correct, in_words
from analysis.weights import CONFIGURATIONS

SHARED, SHARED_EVEN, SEPARATE_EVEN, SEPARATE = CONFIGURATIONS
NO_EFFECT = 1e-9  # what double precision may move a mean by
Comparisons = dict[tuple[str, str], Comparison]  # by metric and reading


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
Write p_ij = a_i + u_i · q_j + b_j in the place of eq. 1. In eq. 3 a user's watched item j meets a random item j' of the
*same* user, and

    p_ij - p_ij' = (a_i + u_i · q_j + b_j) - (a_i + u_i · q_j' + b_j') = u_i · (q_j - q_j') + b_j - b_j'

so that a_i cancels: the loss does not depend on it, its gradient is zero, and it stays where it started. Nor does it
matter for the ranking, which orders the items of one user at a time: all of them move by the same a_i. A user bias adds
a parameter a user and no ranking that could not be had without it."""


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
    """Verdict, numbers and what stands behind them, in Markdown."""
    names = question.own.name, question.other.name
    lines = [f"**{names[0]} against {names[1]}: {'; '.join(_verdict(metric, found) for metric in METRICS)}.**", ""]
    lines += [*(_numbers(metric, found) for metric in METRICS), ""]
    explain = {SHARING: _why_sharing, SHARING_EVEN: _why_sharing_even, WEIGHTING: _why_weighting}[question]
    return "\n".join([*lines, explain(found, curves)])


def about_user_bias(measured: pd.DataFrame | None) -> str:
    """The algebra, and what `user_bias.measure_all` found on the trained networks."""
    if measured is None or measured.empty:
        return f"**No: a user bias changes no ranking.**\n\n{ALGEBRA}"
    moved = {name: (measured[f"{name}_with_bias"] - measured[name]).abs().max() for name in ("loss", "mrr")}
    tried = (
        f"Tried on the {len(measured)} trained networks of the four experiments, with a_i drawn from N(0, 1) and in "
        f"double precision: the loss of eq. 3 moves by {moved['loss']:.1g} at most, the MRR by {moved['mrr']:.1g}"
    )
    if max(moved.values()) <= NO_EFFECT:
        verdict = "**No: a user bias changes neither the loss nor any ranking.**"
        return f"{verdict}\n\n{ALGEBRA}\n\n{tried}; rounding alone may move them by 1e-15."
    return (
        f"**The algebra says no, but the runs contradict it.**\n\n{ALGEBRA}\n\n{tried}, which is more than rounding: "
        "one of the two is wrong, so look for the mistake before you believe either."
    )


def comparison_table(answers: dict[str, Comparisons]) -> str:
    """Every comparison behind the answers in one Markdown table."""
    lines = [
        "| comparison | metric | epoch | mean | against | difference | 95 % interval | p | p, Holm | verdict |",
        "|---" * 10 + "|",
    ]
    for question in QUESTIONS:
        for (metric, reading), one in answers[question.title].items():
            p = ("n/a", "n/a") if one.verdict == UNTESTED else (f"{one.p:.2g}", f"{one.adjusted:.2g}")
            lines.append(
                f"| {question.own.name} / {question.other.name} | {metric.upper()} | {reading} | {one.own:.4f} | "
                f"{one.other:.4f} | {one.difference:+.4f} | {_interval(one)} | {' | '.join(p)} | {one.sentence} |"
            )
    lines += [
        "",
        "Paired t-test over seeds: seed s is one split, and both were trained and measured on it. The verdict goes by "
        f"p after Holm's correction over all {sum(map(len, answers.values()))} comparisons, at {LEVEL:g}; the interval "
        "is that of the one comparison by itself. *last*: the last epoch; *best*: the best epoch by validation, of "
        "each metric its own.",
    ]
    return "\n".join(lines)


def _verdict(metric: str, found: Comparisons) -> str:
    last, best = (found[metric, reading] for reading in READINGS)
    if last.sentence == best.sentence:
        return f"{metric.upper()}: {last.sentence}"
    return f"{metric.upper()}: {last.sentence} {READINGS['last']}, {best.sentence} {READINGS['best']}"


def _numbers(metric: str, found: Comparisons) -> str:
    parts = []
    for reading, words in READINGS.items():
        one = found[metric, reading]
        test = "" if one.verdict == UNTESTED else f" (95 % interval {_interval(one)}, {in_words(one.adjusted)})"
        parts.append(f"{words} {one.own:.4f} against {one.other:.4f}, difference {one.difference:+.4f}{test}")
    return f"- {metric.upper()} {'; '.join(parts)}."


def _interval(one: Comparison) -> str:
    return "n/a" if one.verdict == UNTESTED else f"{one.low:+.4f} to {one.high:+.4f}"


def _why_sharing(found: Comparisons, curves: pd.DataFrame) -> str:
    runs = read_runs(curves)
    gaps = (runs["last_mse"] - runs["last_regression"]).groupby("row").mean()
    own, other = gaps[SHARED.name], gaps[SEPARATE.name]
    text = (
        "After the last epoch the squared error on the test part exceeds that on the training part by "
        f"{own:.3f} with shared tables and by {other:.3f} with separate ones."
    )
    verdict = found["mse", "last"].verdict
    if verdict == BETTER and own < other:
        return f"{text} What sharing does for the ratings is to hold back overfitting: the ranking holds the tables."
    if verdict == WORSE:
        return f"{text} Tables that the ranking shapes cost the ratings accuracy here."
    return text


def _why_sharing_even(found: Comparisons, curves: pd.DataFrame) -> str:
    share = rating_share(curves[curves["row"] == SHARED_EVEN.name], SHARED_EVEN.regression_weight)
    text = f"The squared error makes up {percent(share)} of the joint loss of the shared network in the first epoch."
    verdict = found["mrr", "last"].verdict
    if verdict == WORSE:
        return f"{text} At equal weights the tables become the rating task's, and the ranking pays for it."
    if verdict == BETTER:
        return f"{text} The ranking gains from the company all the same."
    return f"{text} The ranking shows no harm from it that could be told from chance." if verdict == SAME else text


def _why_weighting(found: Comparisons, curves: pd.DataFrame) -> str:
    own, other = (
        rating_share(curves[curves["row"] == one.name], one.regression_weight) for one in (SHARED, SHARED_EVEN)
    )
    text = (
        f"The squared error makes up {percent(own)} of the joint loss in the first epoch at {SHARED.weights}, and "
        f"{percent(other)} at {SHARED_EVEN.weights}."
    )
    verdict = found["mrr", "last"].verdict
    if verdict == BETTER and own < other:
        return (
            f"{text} With one pair of tables the weights decide whose tables they are: the ranking does better where "
            "its own loss counts for more."
        )
    if verdict == WORSE:
        return f"{text} All the same the ranking does worse where its weight is larger."
    return f"{text} Whatever this changes, the ranking does not show it." if verdict == SAME else text
