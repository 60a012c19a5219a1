"""benchmark.png and learning_curve.png."""

import numpy as np
import pytest
from matplotlib.text import Annotation, Text
from pictures import check_picture, mark_of

from analysis.figures.style import SIMULATED, SIMULATED_MARK, visible_texts
from benchmarks.picture import LEARNING_CURVE, PICTURE, draw
from benchmarks.results import Results, record_simulated

CURVE = {1: (1.2, 0.1478, 0.8171), 2: (1.3, 0.1478, 0.7795), 3: (12.4, 0.1529, 0.7620)}  # CPU seconds, MRR, MSE
PEERS = {
    "EASE": ("MRR", 0.1474, 0.27), "mean of EASE and 3 ALS": ("MRR", 0.1477, 1.0), "popularity": ("MRR", 0.05, 0.0),
    "ALS, 64 factors (implicit)": ("MRR", 0.1447, 0.2), "SVD++ (Surprise)": ("MSE", 0.8177, 42.0),
    "MF, 200 factors (cornac)": ("MSE", 0.8002, 0.9), "MF, 32 factors (cornac)": ("MSE", 0.8049, 0.2),
    "user + item biases": ("MSE", 0.8842, 0.0),
}  # fmt: skip


def measure_quality(record, simulated: bool = False) -> None:
    record_simulated(record, "data", simulated)
    for name, (metric, value, seconds) in PEERS.items():
        record(name, metric, value, "")
        record(name, "fit", seconds, "CPU s")
    for epoch, (seconds, mrr, mse) in CURVE.items():
        for name in ("ours", f"ours, epoch {epoch}"):
            record(name, "MRR", mrr, "")
            record(name, "MSE", mse, "")
        record(f"ours, epoch {epoch}", "CPU", seconds, "CPU s")


def measure_growth(record) -> None:
    record_simulated(record, "simulated", True)
    for place, size in enumerate(("1M", "10M", "25M")):
        for name in ("ours", "plain", "peak memory", "peak memory, data made", "raw arrays"):
            record(size, name, 1e3 * (1 + place), "")


@pytest.mark.parametrize("simulated", [True, False])
def test_the_learning_curve_shows_our_epochs_beside_the_peers_points(drawn, tmp_path, simulated):
    results = Results(tmp_path)
    results.measure("quality", lambda record: measure_quality(record, simulated))
    assert draw(results, tmp_path) == [tmp_path / LEARNING_CURVE]
    (figure,) = drawn
    check_picture(figure, simulated)
    for axis, metric, column, best in zip(figure.axes, ("MRR", "MSE"), (1, 2), ("higher", "lower"), strict=True):
        title = axis.get_title(loc="left").split("\n")
        assert (title[0], title[-1]) == (f"{metric}, test", f"{best} is better")
        curve, *peers = (line.get_xydata() for line in axis.get_lines() if line.get_marker() in ("o", "D"))
        np.testing.assert_allclose(curve, [(row[0], row[column]) for row in CURVE.values()])
        expected = [(row[2], row[1]) for row in PEERS.values() if row[0] == metric and row[2]]
        np.testing.assert_allclose([peer[0] for peer in peers], expected)
        names = {text.get_text(): text.xy for text in axis.texts}
        assert names.pop("this project") == tuple(curve[-1])
        assert names == {name: (row[2], row[1]) for name, row in PEERS.items() if row[0] == metric and row[2]}
    assert any("popularity (MRR 0.0500)" in text.get_text().replace("\n", " ") for text in figure.texts)


def test_names_of_peers_lie_on_no_marker(drawn, tmp_path):
    results = Results(tmp_path)
    results.measure("quality", measure_quality)
    draw(results, tmp_path)
    for axis in drawn[0].axes:
        boxes = [Text.get_window_extent(text) for text in axis.texts if isinstance(text, Annotation)]
        points = np.vstack([line.get_xydata() for line in axis.get_lines() if line.get_marker() in ("o", "D")])
        assert not any(box.contains(*axis.transData.transform(point)) for box in boxes for point in points)
        assert not any(box.overlaps(other) for place, box in enumerate(boxes) for other in boxes[:place])


def test_panels_of_simulated_ratings_are_marked_and_no_others(drawn, tmp_path):
    results = Results(tmp_path)
    results.measure("growth", measure_growth)
    for part in ("epoch", "evaluation"):
        results.measure(part, lambda record: [record(name, "median", 0.5, "CPU s") for name in ("plain loop", "ours")])
    results.measure("any", lambda record: [record("ml-100k", f"lead in {name}", 3.0, "%") for name in ("MRR", "MSE")])
    assert draw(results, tmp_path) == [tmp_path / PICTURE]
    check_picture(drawn[0], False)
    marked = []
    for axis in drawn[0].axes:
        marks = [text for text in visible_texts(axis) if text.get_text().strip() == SIMULATED]
        assert [mark_of(mark) for mark in marks] == [SIMULATED_MARK] * len(marks)
        marked += [axis.get_title(loc="left")] * len(marks)
        assert "is better" in axis.get_xlabel() + axis.get_ylabel()
    assert marked == ["Speed of training, one thread", "Memory"]


def test_a_part_is_simulated_where_one_of_its_data_sets_is(tmp_path):
    results = Results(tmp_path)
    results.measure("any", lambda record: [record_simulated(record, name, name == "b") for name in ("a", "b")])
    results.measure("quality", lambda record: record_simulated(record, "a", False))
    assert [results.is_simulated(part) for part in ("any", "quality", "epoch")] == [True, False, False]


def test_without_measurements_nothing_is_drawn(tmp_path):
    assert draw(Results(tmp_path), tmp_path) == []
