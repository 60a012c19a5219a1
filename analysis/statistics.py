"""Paired comparisons over seeds, and the conclusions that they allow.

Seed s is one split, on which both ways of training were trained and measured. The test is a two-sided paired t-test of
the differences within a seed; with five seeds a rank test could not fall below p = 0.06. Conclusions use p after Holm's
correction (Holm 1979) over all comparisons made together, so that the chance of any false "better" or "worse" among
them stays below LEVEL.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

LEVEL = 0.05
BETTER, WORSE, SAME, UNTESTED = "better", "worse", "no difference", "not tested"


@dataclass(frozen=True)
class Comparison:
    """`own` against `other` in one number.

    own, other: means over the `seeds` seeds that both have. difference: own - other; low, high: its 95 % interval, not
    corrected. p: of the paired t-test; adjusted: after Holm's correction. direction: +1 where more is better, else -1.
    Values that cannot be computed are nan.
    """

    own: float
    other: float
    difference: float
    low: float
    high: float
    p: float
    direction: int
    seeds: int
    adjusted: float = math.nan

    @property
    def outcome(self) -> str:
        """BETTER, WORSE, SAME or UNTESTED."""
        if math.isnan(self.adjusted):
            return UNTESTED
        if self.adjusted >= LEVEL:
            return SAME
        return BETTER if self.direction * self.difference > 0 else WORSE

    @property
    def sentence(self) -> str:
        """The outcome in words."""
        if self.outcome == UNTESTED:
            return f"not tested ({self.seeds} seed{'' if self.seeds == 1 else 's'}; a test takes two)"
        return f"no difference that {self.seeds} seeds can show" if self.outcome == SAME else self.outcome


def compare(own: pd.Series, other: pd.Series, direction: int) -> Comparison:
    """Compare two series of numbers by seed; seeds that one of them lacks, or has as nan, are left out."""
    pairs = pd.DataFrame({"own": own, "other": other}).dropna()
    differences = (pairs["own"] - pairs["other"]).to_numpy()
    low = high = math.nan
    if len(differences) >= 2:
        half = stats.t.ppf(0.975, len(differences) - 1) * stats.sem(differences)
        low, high = differences.mean() - half, differences.mean() + half
    mean = float(np.mean(differences)) if len(differences) else math.nan
    p = paired_p(pairs["own"], pairs["other"])
    return Comparison(*pairs.mean().tolist(), mean, float(low), float(high), p, direction, len(differences))


def paired_p(own: pd.Series, other: pd.Series) -> float:
    """Two-sided p of a paired t-test over the seeds that both have; nan with fewer than two of them."""
    differences = (own - other).dropna().to_numpy()
    if len(differences) < 2:
        return math.nan
    if np.ptp(differences) == 0:
        return 1.0 if differences[0] == 0 else 0.0
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def correct(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same comparisons with p adjusted by Holm over all that have one."""
    adjusted = holm([comparison.p for comparison in comparisons])
    return [replace(one, adjusted=p) for one, p in zip(comparisons, adjusted, strict=True)]


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusted p: the k-th smallest of m times m - k + 1, at least as large as the one before it, at most 1.

    nan stays nan and does not count.
    """
    order = sorted((p, place) for place, p in enumerate(ps) if not math.isnan(p))
    adjusted, lowest = [math.nan] * len(ps), 0.0
    for rank, (p, place) in enumerate(order):
        lowest = max(lowest, min(1.0, (len(order) - rank) * p))
        adjusted[place] = lowest
    return adjusted


def in_words(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
