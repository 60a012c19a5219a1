"""The pictures of the zoo and of the dyadic experiment, looked at as figure objects."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from pictures import check_picture
from scipy import stats

from analysis import dyadic_tables, zoo
from analysis.figures import dyadic as figures
from analysis.figures.style import SIMULATED, visible_texts
from analysis.figures.zoo import draw_table

ARMS = tuple(dyadic_tables.ARMS)
SEEDS = 4


def draw(drawn: list[Figure], function, *arguments) -> Figure:
    """The figure that this function saves. drawn: the fixture of this name."""
    function(*arguments, Path("picture.png"))
    return drawn[-1]


def whiskers(axis: Axes) -> list[list[float]]:
    """[low, high] of the horizontal lines in a panel."""
    lines = [segment for one in axis.collections if isinstance(one, LineCollection) for segment in one.get_segments()]
    return [[line[0][0], line[1][0]] for line in lines if len(line)]


def words(figure: Figure) -> list[str]:
    """All texts; lines are joined by blanks."""
    return [" ".join(text.get_text().split()) for text in visible_texts(figure)]


# the dyadic experiment


def units(worlds: dict[str, bool]) -> pd.DataFrame:
    """Random values of every arm on these worlds {name: simulated}."""
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {"world": world, "simulated": simulated, "task": task, "metric": metric, "arm": arm, "seed": seed}
        | {"value": random.random()}
        for world, simulated in worlds.items()
        for task in dyadic_tables.TASK_ROWS
        for metric in dyadic_tables.PANELS
        for arm in ARMS
        for seed in range(SEEDS)
    )


def draw_differences(drawn, rows: pd.DataFrame) -> Figure:
    panels = {metric: dyadic_tables.METRIC_COLUMNS[metric] for metric in dyadic_tables.PANELS}
    gaps = dyadic_tables.differences(rows)
    return draw(drawn, figures.draw_differences, gaps, dyadic_tables.REFERENCE, dyadic_tables.TASK_ROWS, panels)


def test_the_whiskers_are_paired_intervals(drawn):
    rows = units({"one": False})
    axis = draw_differences(drawn, rows).axes[0]
    own = rows[rows["metric"] == "auc"].groupby(["arm", "task"])["value"].apply(list)
    expected = [
        list(stats.ttest_rel(own[arm, task], own[ARMS[0], task]).confidence_interval(0.95))
        for arm in ARMS[1:]
        for task in dyadic_tables.TASK_ROWS
    ]
    assert np.array(whiskers(axis)) == pytest.approx(np.array(expected))


def test_the_picture_of_differences_can_be_read(drawn):
    figure = draw_differences(drawn, units({"x" * 80: False, "made": True}))
    for axis in figure.axes:
        assert axis.get_xlabel().endswith("minus that of 'together'\n(higher is better)")
    check_picture(figure, simulated=False)
    found = words(figure)
    text = " ".join(found)
    assert "95 % t interval" in text
    assert not {"MTL", "STL"} & set(text.replace(",", "").split())
    assert found.count(SIMULATED) == 2  # the panels of one world
    assert "x" * 30 not in text


def test_a_picture_of_simulated_data_alone_is_marked_once(drawn):
    figure = draw_differences(drawn, units({"made": True}))
    check_picture(figure, simulated=True)
    assert SIMULATED not in words(figure)


def test_names_are_shown_as_they_are(drawn):
    assert r"$a\bc$.csv" in words(draw_differences(drawn, units({r"$a\bc$.csv": False})))


def test_one_seed_is_drawn_without_whiskers(drawn):
    rows = units({"one": False})
    figure = draw_differences(drawn, rows[rows["seed"] == 0])
    assert np.isnan(whiskers(figure.axes[0])).all()
    assert "mean over 1 seed and" in " ".join(words(figure))


# users by their actions


def users(stages: dict[str, dict[int, int]], simulated: bool = False) -> pd.DataFrame:
    """The same counts for three actions of one world; stages: {stage: {actions: users}}."""
    return pd.DataFrame(
        {"world": "w", "simulated": simulated, "stage": stage, "action": action, "label": f"{action}s"}
        | {"actions": number, "users": count}
        for stage, counts in stages.items()
        for action in ("click", "bookmark", "reply")
        for number, count in counts.items()
    )


def test_bins_are_those_of_a_search():
    ends = figures.bin_ends(12)
    assert ends[:6] == [0, 1, 2, 4, 8, 16]
    numbers = np.arange(1025)
    assert figures.bin_of(numbers).tolist() == [next(b for b, end in enumerate(ends) if n <= end) for n in numbers]


def test_the_bars_are_users_in_bins(drawn):
    counts = {"before": {0: 7, 1: 2, 3: 5, 4: 1, 9: 2}, "after": {0: 3, 2: 4, 4: 1}}
    axis = draw(drawn, figures.draw_users, users(counts)).axes[0]
    heights = [[bar.get_height() for bar in bars] for bars in axis.containers]
    assert heights == [[7, 2, 0, 6, 0, 2], [3, 0, 4, 1, 0, 0]]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0", "1", "2", "4", "8", "16"]
    assert "none: 3 of 8" in [text.get_text() for text in axis.texts]


def test_the_picture_of_users_can_be_read(drawn):
    figure = draw(drawn, figures.draw_users, users({"after": {0: 7, 2000: 1}}, simulated=True))
    check_picture(figure, simulated=True)
    assert {"clicks: dyads of a user, at most", "users", "w"} <= set(words(figure))


# the zoo


def zoo_table(shift: float = 0.0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table of three rows and a baseline, and the AUC of views behind it, a column per row."""
    random = np.random.default_rng(1)
    splits = random.normal(0, 0.05, SEEDS)  # common to all rows
    auc = {row: 0.7 + splits + random.normal(0, 0.001, SEEDS) for row in ("MMoE", "single task", "popularity")}
    auc["popularity"] -= shift
    results = [
        {"row": row, "seed": seed, "metrics": {f"test_{name}": value for name in ("view_auc", "like_auc")}}
        | ({"seconds": {"training": 2.0, "evaluation": 1.0}} if row != "popularity" else {})
        for row, values in auc.items()
        for seed, value in enumerate(values)
    ]
    return zoo.tabulate(results, "single task"), pd.DataFrame(auc)


def draw_zoo(drawn, table: pd.DataFrame) -> Figure:
    return draw(drawn, draw_table, table, {"popularity"}, "single task", "data: view = rated", True)


def test_the_zoo_draws_paired_intervals(drawn):
    table, auc = zoo_table()
    axis = draw_zoo(drawn, table).axes[0]
    expected = [
        stats.ttest_rel(auc[row], auc["single task"]).confidence_interval(0.95) for row in ("MMoE", "popularity")
    ]
    found = whiskers(axis)
    assert found[0] == pytest.approx(list(expected[0]))
    assert found[1] == [0, 0]  # the reference
    assert found[2] == pytest.approx(list(expected[1]))
    assert np.ptp(expected[0]) < auc["MMoE"].std() / 3  # the spread between splits hides the comparison
    assert axis.get_title() == f"single task: {auc['single task'].mean():.4f}"


def test_a_baseline_far_away_is_printed_at_the_edge(drawn):
    table, _ = zoo_table(shift=0.2)
    axis = draw_zoo(drawn, table).axes[0]
    difference = table.loc["popularity", ("view AUC", "difference")]
    assert [text.get_text() for text in axis.texts] == [f"◂ \N{MINUS SIGN}{-difference:.3f}"]
    assert axis.get_xlim()[0] > -0.1
    assert len(whiskers(axis)) == 2


def test_the_picture_of_the_zoo_can_be_read(drawn):
    figure = draw_zoo(drawn, zoo_table()[0])
    directions = [axis.get_xlabel().split("\n")[1] for axis in figure.axes]
    assert directions == ["(higher is better)"] * 3 + ["(lower is better)"] * 2
    check_picture(figure, simulated=True)
    assert "95 % t interval of the pairs" in " ".join(words(figure))
