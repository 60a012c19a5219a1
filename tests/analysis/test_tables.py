"""The pieces of all tables, by hand."""

import math

import pandas as pd
import pytest

from analysis.tables import box, cell, markdown_rows, marked, means_and_deviations, percent, row_cell


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0.12345, 0.0067), "0.1235 ± 0.0067"),
        ((0.5,), "0.5000"),
        ((12345.6, math.nan, ",.0f"), "12,346"),
        ((math.nan, 0.1), "n/a"),
    ],
)
def test_a_cell(arguments, text):
    assert cell(*arguments) == text


def test_means_and_deviations():
    index = pd.MultiIndex.from_tuples([("b", 0), ("b", 1), ("a", 0)], names=["row", "seed"])
    table = means_and_deviations(pd.DataFrame({"mrr": [0.1, 0.3, 0.5]}, index=index))
    assert list(table.index) == ["b", "a"]  # in the order of the runs
    assert row_cell(table.loc["b"], "mrr", ".2f") == "0.20 ± 0.14"
    assert row_cell(table.loc["a"], "mrr", ".2f") == "0.50"


def test_markdown_rows():
    assert markdown_rows(("", "x"), [("a", "1"), ("b", "2")]) == ["|  | x |", "|---|---|", "| a | 1 |", "| b | 2 |"]


def test_marks_of_simulated_data():
    assert marked("toy", True) == "toy (SIMULATED DATA)"
    assert marked("toy", False) == "toy"
    assert "SIMULATED DATA" in "".join(box(True))
    assert box(False) == []


def test_percent():
    assert (percent(0.055), percent(0.055, 1)) == ("6 %", "5.5 %")
