"""The table of the zoo: means, tests against a reference row, and the written files."""

import math
from dataclasses import replace

import pandas as pd
import pytest
from scipy import stats

from analysis import zoo as comparison
from analysis.statistics import paired_p
from registry import RECIPES, make_config


def result(row: str, seed: int, view_auc: float, **others) -> dict:
    return {"row": row, "seed": seed, "metrics": {"test_view_auc": view_auc}} | others


def test_means_spread_and_paired_p_by_hand():
    ours, theirs = [0.9, 0.8, 0.85], [0.88, 0.79, 0.83]
    results = [result("ours", s, v) for s, v in enumerate(ours)] + [result("ref", s, v) for s, v in enumerate(theirs)]
    table = comparison.tabulate(results, "ref")
    assert table.loc["ours", ("view AUC", "mean")] == pytest.approx(0.85)
    assert table.loc["ours", ("view AUC", "sd")] == pytest.approx(0.05)
    assert table.loc["ours", ("view AUC", "p")] == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    assert math.isnan(table.loc["ref", ("view AUC", "p")])
    assert math.isnan(table.loc["ours", ("log loss", "mean")])
    assert list(table.index) == ["ours", "ref"]


def test_seeds_are_paired_by_number_not_by_position():
    ours = [result("ours", seed, 0.5 + seed / 10 + 0.01) for seed in (2, 0, 1)]
    theirs = [result("ref", seed, 0.5 + seed / 10) for seed in (0, 1, 2)]
    differences = [0.01, 0.01, 0.01 + 1e-9]
    assert comparison.tabulate(ours + theirs, "ref").loc["ours", ("view AUC", "p")] < 0.001
    assert stats.ttest_1samp(differences, 0).pvalue < 0.001


@pytest.mark.parametrize(("differences", "p"), [([0.0, 0.0, 0.0], 1.0), ([0.1], math.nan), ([0.5, 0.5], 0.0)])
def test_degenerate_pairs(differences, p):
    zeros = pd.Series([0.0] * len(differences))
    assert paired_p(pd.Series(differences), zeros) == pytest.approx(p, nan_ok=True)


def test_a_sum_of_log_losses_needs_both_terms():
    both = {"test_view_log_loss": 0.3, "test_like_log_loss": 0.2, "test_log_loss": 0.5}
    results = [
        {"row": "ref", "seed": 0, "metrics": both},
        {"row": "view", "seed": 0, "metrics": {"test_view_log_loss": 0.3, "test_log_loss": 0.3}},
    ]
    table = comparison.tabulate(results, "ref")
    assert table.loc["ref", ("log loss", "mean")] == 0.5
    assert math.isnan(table.loc["view", ("log loss", "mean")])
    assert table.loc["view", ("of view", "mean")] == 0.3


def noisy(row: str, lead: float, seeds: int, **others) -> list[dict]:
    """Runs that are better than those of `reference` by about `lead`."""
    noise = [0.010, -0.007, 0.003, 0.008, -0.002, 0.004]
    return [result(row, s, 0.80 + s / 100 + lead + noise[s], **others) for s in range(seeds)]


def reference(seeds: int) -> list[dict]:
    return [
        result("ref", s, 0.80 + s / 100, parameters=1234, seconds={"training": s, "evaluation": 1})
        for s in range(seeds)
    ]


def slow_holm(ps: list[float]) -> list[float]:
    """For each p, the largest of q * (the number of p that are not below q), over all q up to p."""
    return [min(1.0, max(q * sum(r >= q for r in ps) for q in ps if q <= p)) for p in ps]


def test_stars_are_corrected_over_the_table():
    leads = {"far": 0.1, "near": 0.010, "close": 0.006, "level": 0.001}
    results = reference(5) + [
        one for row, lead in leads.items() for one in noisy(row, lead, 5, seconds={"training": 9, "evaluation": 9})
    ]
    table = comparison.tabulate(results, "ref")
    ps, adjusted = (table.loc[list(leads), ("view AUC", kind)].tolist() for kind in ("p", "adjusted"))
    assert adjusted == pytest.approx(slow_holm(ps))
    assert ps[1] < 0.05 <= adjusted[1]  # a star before the correction, and none after it
    text = comparison.as_markdown(table, set(), make_config("mmoe"), 5).splitlines()
    starred = [line.split("|")[1].strip() for line in text if line.startswith("| ") and "\\*" in line]
    assert starred == ["far"]
    assert "p < 0.05 after Holm's correction over the 4 comparisons in this table)" in text[-1]
    # what is no metric of the predictions is compared, and neither corrected nor starred
    assert table[("seconds", "p")].notna().sum() == 4
    assert table[("seconds", "adjusted")].isna().all()


@pytest.mark.parametrize("seeds", [1, 2, 4])
def test_below_five_seeds_nothing_is_tested(seeds):
    table = comparison.tabulate(reference(seeds) + noisy("far", 0.5, seeds), "ref")
    assert table.xs("adjusted", axis=1, level=1).isna().all(axis=None)
    assert bool(table.loc["far", ("view AUC", "p")] < 0.02) is (seeds > 1)  # in table.csv, and in no star
    text = comparison.as_markdown(table, set(), make_config("mmoe"), seeds)
    assert "\\*" not in text
    assert (
        "No differences are tested, and the order of the rows may be chance: a test takes 5 seeds (--seeds 5)" in text
    )
    assert f"this table has {seeds}." in text


def test_a_row_with_too_few_seeds_is_left_out_of_the_tests():
    table = comparison.tabulate(reference(6) + noisy("short", 0.5, 4) + noisy("far", 0.1, 5), "ref")
    assert math.isnan(table.loc["short", ("view AUC", "adjusted")])
    assert table.loc["far", ("view AUC", "adjusted")] == table.loc["far", ("view AUC", "p")]


def test_the_table_in_words(tmp_path):
    results = [one | {"row": comparison.REFERENCE} for one in reference(5)]
    results += [result("ours", s, 0.90 + s / 100 + s * s / 1e4, parameters=99) for s in range(5)]
    results += [result("popularity", s, 0.70, is_baseline=True) for s in range(5)]
    table = comparison.tabulate(results, comparison.REFERENCE)
    config = make_config("mmoe", dataset="simulated")
    text = comparison.as_markdown(table, {"popularity"}, config, 5)
    assert "SIMULATED" in text
    assert "| ours | 0.9206 ± 0.0164 \\* | n/a |" in text
    assert "| *popularity* | 0.7000 ± 0.0000 \\* |" in text
    assert "| 1,234 |" in text
    assert "SIMULATED" not in comparison.as_markdown(table, set(), replace(config, dataset="ml-100k"), 5)
    paths = comparison.write(table, results, tmp_path, config, 5)
    assert [path.name for path in paths] == ["table.csv", "table.md", "table.png", "runs.csv"]
    assert (tmp_path / "table.png").read_bytes()[:4] == b"\x89PNG"
    assert pd.read_csv(tmp_path / "table.csv").shape[0] == 3
    assert {"view AUC p", "view AUC adjusted"} <= set(pd.read_csv(tmp_path / "table.csv"))
    assert pd.read_csv(tmp_path / "runs.csv").shape[0] == 15


def test_every_network_has_a_row():
    assert {own["model"] for own in comparison.ROWS.values()} == {config.model for config in RECIPES["zoo.recipe"]}
    assert comparison.REFERENCE in comparison.ROWS
