"""The style of all pictures, and the pictures of the experiments with the multi-task net."""

from pathlib import Path

import numpy as np
import pytest
import study_runs
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from pictures import check_picture, mark_of, outside

from analysis import sweep, weights
from analysis.configuration import Configuration
from analysis.figures import style
from analysis.figures.labels import Label, Occupied, freeze, place_labels
from analysis.figures.weights import CURVES, PLACES, draw_curves
from analysis.peers import CHAMPION, IN_FIGURE
from analysis.results import read_curves
from training.weighting import METHODS


def described(data: str = "ml-100k") -> dict:
    return {"data": data, "simulated": data == "simulated", "seeds": [0, 1, 2, 3, 4], "settings": study_runs.SETTINGS}


# the style


def test_sizes_are_those_at_the_shown_width():
    figure = Figure(figsize=(2 * style.WIDTH, 2))
    figure.text(0.1, 0.5, "half", fontsize=18)
    figure.text(0.1, 0.1, "$x_1$ and 5 %", fontsize=20)
    hidden = figure.text(0.1, 0.3, "hidden", fontsize=2)
    hidden.set_visible(False)
    axis = figure.add_axes((0.5, 0.2, 0.4, 0.6))
    axis.set(xticks=[0, 1, 5], yticks=[], xlim=(0, 2))
    axis.tick_params(labelsize=10)
    assert dict(style.shown_texts(figure)) == {"half": 9, "$x_1$ and 5 %": 7, "0": 5, "1": 5}
    axis.set_axis_off()
    assert set(dict(style.shown_texts(figure))) == {"half", "$x_1$ and 5 %"}


@pytest.mark.parametrize("simulated", [True, False])
def test_the_head_is_above_the_panels_and_within_the_picture(tmp_path, simulated):
    path = tmp_path / "x.png"
    with style.picture(path, 2, title="Title", caption="many words " * 40, simulated=simulated) as figure:
        style.label_above(figure.subplots(), "MRR", +1, "0 to 1")
    check_picture(figure, simulated)
    head = [text.get_window_extent() for text in figure.texts]
    assert len(head) == 2 + simulated
    panel = figure.axes[0].get_tightbbox()
    assert all(upper.y0 > lower.y1 for upper, lower in zip(head, [*head[1:], panel], strict=True))
    assert path.read_bytes()[:4] == b"\x89PNG"


def test_a_picture_that_fails_is_not_written(tmp_path):
    with pytest.raises(ZeroDivisionError), style.picture(tmp_path / "x.png", 2):
        1 / 0  # noqa: B018
    assert list(tmp_path.iterdir()) == []


def test_labels_say_which_way_is_better():
    assert style.axis_label("MSE, test", -1, "squared points") == "MSE, test\n(squared points; lower is better)"
    assert style.axis_label("AUC", +1) == "AUC\n(higher is better)"
    assert style.axis_label("epoch") == "epoch"


def test_one_panel_is_marked_like_a_whole_picture_and_above_its_title(tmp_path):
    with style.picture(tmp_path / "x.png", 3) as figure:
        first, second = figure.subplots(1, 2)
        style.label_above(first, "a title that is as wide as its panel, or nearly", +1, "0 to 1")
        style.mark_simulated(first)
        style.mark_simulated(second)
    assert outside(figure) == []
    for axis in (first, second):
        (mark,) = (text for text in style.visible_texts(axis) if style.SIMULATED in text.get_text())
        assert mark_of(mark) == style.SIMULATED_MARK
        assert mark.get_text().strip() == style.SIMULATED
    title = next(text for text in style.visible_texts(first) if text.get_text().startswith("a title"))
    mark = next(text for text in style.visible_texts(first) if style.SIMULATED in text.get_text())
    first_line = mark.get_window_extent().y1 - mark.get_fontsize() * figure.dpi / 72
    assert first_line > title.get_window_extent().y1


def luminance(color: str) -> float:
    """Relative luminance of a color "#rrggbb" (WCAG 2)."""
    parts = (int(color[place : place + 2], 16) / 255 for place in (1, 3, 5))
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


@pytest.mark.parametrize("color", [style.INK, style.GRAY, style.SIMULATED_MARK["color"]])
def test_colors_of_text_have_the_contrast_of_readable_text(color):
    assert 1.05 / (luminance(color) + 0.05) >= 4.5


# labels beside points


def boxes_of_markers(axis) -> list[Bbox]:
    """The boxes in pixels of all markers that lines draw."""
    found = []
    for line in axis.get_lines():
        if line.get_marker() not in (None, "None", "", " "):
            half = line.get_markersize() * axis.figure.dpi / 72 / 2
            for x, y in axis.transData.transform(line.get_xydata()):
                found.append(Bbox([[x - half, y - half], [x + half, y + half]]))
    return [box for box in found if np.isfinite(box.get_points()).all()]


def overlaps(axis) -> list[str]:
    """Texts in a panel that lie on a marker or on another text."""
    texts = list(axis.texts)
    boxes = [Text.get_window_extent(text) for text in texts]  # of the words, without the line to the point
    markers = boxes_of_markers(axis)
    return [
        text.get_text()
        for place, (text, box) in enumerate(zip(texts, boxes, strict=True))
        if any(box.overlaps(other) for other in [*markers, *boxes[:place]])
    ]


def test_labels_of_a_crowd_keep_off_markers_and_each_other(tmp_path):
    random = np.random.default_rng(0)
    points = [tuple(point) for point in 0.5 + 0.04 * random.normal(size=(14, 2))]
    with style.picture(tmp_path / "x.png", 3) as figure:
        axis = figure.subplots()
        axis.set(xlim=(0, 1), ylim=(0, 1))
        axis.plot(*zip(*points, strict=True), "o", markersize=8)
        freeze(figure)
        occupied = Occupied(axis)
        for point in points:
            occupied.add_marker(point, 8)
        place_labels(occupied, [Label(f"{number:.3f}", point, 8) for number, point in enumerate(points)])
    assert len(axis.texts) == len(points)
    assert overlaps(axis) == []
    assert all(text.xy == point for text, point in zip(axis.texts, points, strict=True))
    assert outside(figure) == []


# the four experiments


def lines_of(axis) -> dict:
    return {line.get_label(): line for line in axis.get_lines()}


def test_curves_are_readable_and_show_the_means(drawn, tmp_path):
    curves = study_runs.curves({})
    draw_curves(curves, weights.CONFIGURATIONS, "about", True, tmp_path / "x.png")
    check_picture(drawn[0], simulated=True)
    panels = dict(zip(CURVES, (drawn[0].axes[place] for place in PLACES), strict=True))
    for column, axis in panels.items():
        title = axis.get_title(loc="left")
        assert title.split("\n")[0] == CURVES[column][0]
        assert "is better" in title
        assert set(lines_of(axis)) == {one.name for one in weights.CONFIGURATIONS}
        for name, line in lines_of(axis).items():
            own = curves[curves["row"] == name].groupby("epoch")[column].mean()
            assert line.get_ydata() == pytest.approx(own.to_numpy())
    colors = {line.get_color() for line in lines_of(panels["test_mrr"]).values()}
    assert len(colors) == len(weights.CONFIGURATIONS)


def test_the_joint_loss_is_the_weighted_sum_of_the_recorded_losses(drawn, tmp_path):
    pair = weights.CONFIGURATIONS[:2]
    small = {"dataset": "simulated", "simulated_size": (60, 80, 2400), "epochs": 2, "embedding_dim": 4}
    runs = [one.run(seed, small | {"layer_sizes": (12,)}) for one, seed in zip(pair, (0, 1), strict=True)]
    curves = read_curves(study_runs.train_here(runs, tmp_path, 1, print))
    draw_curves(curves, pair, "", True, tmp_path / "x.png")
    joint, ranking, rating = (lines_of(axis) for axis in drawn[0].axes[:3])
    for one in pair:
        expected = one.factorization_weight * ranking[one.name].get_ydata()
        expected = expected + one.regression_weight * rating[one.name].get_ydata()
        assert joint[one.name].get_ydata() == pytest.approx(expected, rel=1e-5)
        assert np.ptp(expected) > 1e-4


# the sweep


@pytest.fixture(scope="module")
def planes() -> dict[str, Figure]:
    """The picture of the sweep for data of different names, laid out and not written."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda figure, *_, **__: kept.append(figure))
        for data, seeds in (("ml-100k", 5), ("simulated", 1)):
            kept: list[Figure] = []
            numbers = study_runs.sweep_numbers(seeds)
            sweep.draw(numbers, sweep.tabulate(numbers), described(data), Path("x.png"))
            (found[data],) = kept
    return found


def panels_of(figure: Figure) -> dict:
    """{title: panel}"""
    return {axis.get_title(loc="left"): axis for axis in figure.axes}


def panel_of(figure: Figure, one: Configuration):
    return panels_of(figure)["fixed weights" if one.weighting == "fixed" else one.weighting]


@pytest.mark.parametrize("data", ["ml-100k", "simulated"])
def test_the_sweep_is_readable_and_no_label_lies_on_a_marker(planes, data):
    figure, panels = planes[data], panels_of(planes[data])
    check_picture(figure, data == "simulated")
    assert [name.split()[0] for name in panels][:-1] == list(METHODS)
    assert {title: overlaps(axis) for title, axis in panels.items()} == {title: [] for title in panels}
    limits = {(axis.get_xlim(), axis.get_ylim()) for axis in panels.values()}
    assert len(limits) == 1
    assert all("is better" in axis.get_ylabel() for axis in figure.axes[::2])
    assert all("squared rating points; lower is better" in axis.get_xlabel() for axis in figure.axes[-2:])


def test_every_mean_has_its_lambda_and_its_paired_intervals(planes):
    numbers = study_runs.sweep_numbers()
    figure, compared = planes["ml-100k"], sweep.against_ends(numbers)
    for one in sweep.CONFIGURATIONS:
        axis = panel_of(figure, one)
        place = numbers.loc[one.name, "both_mse"].mean(), numbers.loc[one.name, "both_mrr"].mean()
        beside = [text.get_text() for text in axis.texts if text.xy == pytest.approx(place)]
        assert beside == [f"{one.regression_weight:g}"]
        bars = [line.get_xydata() for line in axis.get_lines() if np.allclose(line.get_xydata().mean(0), place)]
        bars = [bar for bar in bars if len(bar) == 2]
        for metric, column in (("mse", 0), ("mrr", 1)):
            expected = compared[one.name, metric].high - compared[one.name, metric].low
            longest = max((abs(bar[1] - bar[0])[column] for bar in bars), default=0)
            assert longest == pytest.approx(expected, rel=1e-6)


def test_one_seed_has_no_intervals(planes):
    assert [any("interval" in text.get_text() for text in figure.texts) for figure in planes.values()] == [True, False]
    bars = [
        sum(line.get_alpha() == 0.6 for axis in figure.axes for line in axis.get_lines()) for figure in planes.values()
    ]
    assert bars == [2 * (len(sweep.CONFIGURATIONS) - 1), 0]  # all but the tasks alone


def test_runs_without_numbers_leave_the_other_means_and_their_labels(drawn, tmp_path):
    fixed = [one.name for one in sweep.CONFIGURATIONS if one.weighting == "fixed"]
    numbers = study_runs.sweep_numbers(2).loc[fixed]
    numbers.loc[sweep.ALONE.name] = np.nan
    sweep.draw(numbers, sweep.tabulate(numbers), described("ratings.csv"), tmp_path / "x.png")
    panels = panels_of(drawn[0])
    assert list(panels) == ["fixed weights", "each task alone"]
    assert [len(axis.texts) for axis in panels.values()] == [len(fixed) - 1, 0]


@pytest.mark.parametrize("data", ["ml-100k", "simulated"])
def test_champion_and_other_methods_are_drawn_on_their_own_data_alone(planes, data):
    figure, panels = planes[data], panels_of(planes[data])
    numbers = study_runs.sweep_numbers(1 if data == "simulated" else 5)
    alone = numbers.loc[sweep.ALONE.name, ["best_mse", "best_mrr"]].mean()
    names = {text.get_text() for text in list(panels.values())[-1].texts}
    assert names >= {"ranking alone", "rating alone", "each task alone,\ntwo networks"}
    assert (names >= {"champion", *(peer.name for peer in IN_FIGURE)}) == (data == "ml-100k")
    head = " ".join(text.get_text().replace("\n", " ") for text in figure.texts)
    assert ("python benchmark.py multitask quality" in head) == (data == "ml-100k")
    for axis in panels.values():
        marks = [tuple(line.get_xydata()[0]) for line in axis.get_lines() if line.get_marker() in ("*", "P")]
        assert marks[0] == pytest.approx(tuple(alone))
        assert marks[1:] == ([(CHAMPION.mse, CHAMPION.mrr)] if data == "ml-100k" else [])


def test_tables_have_one_color_in_all_panels_and_another_shape(planes):
    figure = planes["ml-100k"]
    looks = {True: set(), False: set()}
    for one in sweep.CONFIGURATIONS:
        axis = panel_of(figure, one)
        labels = {text.xy: text.get_color() for text in axis.texts}
        for line in axis.get_lines():
            if line.get_marker() in ("o", "D") and len(line.get_xydata()) == 1:
                (point,) = line.get_xydata()
                assert labels[tuple(point)] == line.get_color()
                looks[line.get_marker() == "o"].add(line.get_color())
    assert looks == {True: {style.BLUE}, False: {style.VERMILION}}
    assert Configuration(True, 0.5).tables == "shared"
