"""What every picture must be: readable at the width it is shown, inside its frame, simulated data marked in one way."""

from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from analysis.figures.style import SIMULATED_MARK, SMALLEST, WARNING, WIDTH, shown_texts, visible_texts


def check_picture(figure: Figure, simulated: bool) -> None:
    """Assert that text is large enough and within the picture, and that WARNING stands above simulated data alone."""
    texts = list(shown_texts(figure))
    assert texts
    assert figure.get_figwidth() == WIDTH
    assert [text for text, points in texts if points < SMALLEST] == []
    assert outside(figure) == []
    marks = [text for text in visible_texts(figure) if text.get_text() == WARNING]
    assert len(marks) == simulated
    for mark in marks:
        assert mark_of(mark) == SIMULATED_MARK


def outside(figure: Figure) -> list[str]:
    """The visible texts that the edge of the picture cuts."""
    figure.draw_without_rendering()
    width, height = figure.bbox.width, figure.bbox.height
    boxes = ((text.get_text(), text.get_window_extent()) for text in visible_texts(figure))
    return [words for words, box in boxes if box.x0 < -1 or box.y0 < -1 or box.x1 > width + 1 or box.y1 > height + 1]


def mark_of(text) -> dict:
    """Color, size and weight of a text, to compare with SIMULATED_MARK."""
    return {"color": to_hex(text.get_color()), "fontsize": text.get_fontsize(), "fontweight": text.get_fontweight()}
