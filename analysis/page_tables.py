"""The tables of the page: the points of a column's numbers stand below one another, and no number is broken.

HTML cannot align at a point. So a number is cut before it, and each half gets the width of the longest in its column,
in ch: the width of a digit, which the style of the page makes the same for all digits.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence

NUMBER = re.compile(r"((?:[<=] )?[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]\d+)?)")
SPREAD = " ± "
MISSING = ("", "n/a")
LONGEST_PREFIX = 8  # characters before the first number of a cell; after a longer text, the cell is no number
STAR, LONGEST_MARK = 2, 8  # characters after its last number: a star, and more that stays on the line
WIDE, NARROW = "+<=%↓mwMW", "., "  # up to half as wide again as a digit; half as wide
LONG_TEXT = 24  # characters; a longer text may be broken into lines
WIDE_TABLE = 130  # characters; a wider table is smaller on paper, with deviations below their means


def lay_out(table: str) -> str:
    """The HTML of a table, with classes and widths for the style of the page.

    A column is "number", "marked" (numbers, then marks), "noted" (numbers, then words), "text" or "long" (text that may
    be broken). A table may be "wide", and "grouped" where its first column names groups of rows.
    """
    root = ET.fromstring(table)
    head, *rows = (list(row) for row in root.iter("tr"))
    columns = list(zip(*rows, strict=True))
    texts = [[_text(cell) for cell in column] for column in columns]
    for title, column, words in zip(head[1:], columns[1:], texts[1:], strict=False):
        kind = _lay_out_column(column, words)
        for cell in (title, *column):
            cell.set("class", kind)
    is_wide = _width(head, texts) > WIDE_TABLE
    is_grouped = len(columns) > 2 and "" in texts[0]
    if classes := ["wide"] * is_wide + ["grouped"] * is_grouped:
        root.set("class", " ".join(classes))
    return ET.tostring(root, encoding="unicode")


def _text(cell: ET.Element) -> str:
    return "".join(cell.itertext()).strip()


def _width(head: Sequence[ET.Element], texts: Sequence[Sequence[str]]) -> int:
    """The characters of a line, with two of space a column; a head may be broken at its spaces."""
    titles = [max(map(len, _text(title).split()), default=0) for title in head]
    cells = [max(min(len(text), LONG_TEXT) for text in words) for words in texts]
    return sum(2 + max(pair) for pair in zip(titles, cells, strict=False))


def _lay_out_column(cells: Sequence[ET.Element], texts: Sequence[str]) -> str:
    """Align the cells if they hold numbers; returns the class of the column."""
    split = [NUMBER.split(text) for text in texts]  # text, number, text, number, ..., text
    has_words = any(len(parts) == 1 and text not in MISSING for parts, text in zip(split, texts, strict=True))
    count = 0 if has_words or any(map(len, cells)) else _count_shared([parts for parts in split if len(parts) > 1])
    pieces = [_cut(parts, count) for parts in split]
    widths = [_common_width(column) for column in zip(*(row for row in pieces if len(row) > 2), strict=True)]
    if not has_words and "n/a" in texts and not widths:
        return "number"
    if count == 0 or _tears(pieces, widths):
        return "long" if max(map(len, texts)) > LONG_TEXT else "text"
    longest = max(len(row[-1]) for row in pieces)
    for cell, row in zip(cells, pieces, strict=True):
        _fill(cell, row, [*widths[:-1], widths[-1] if longest <= LONGEST_MARK else None])
    return "number" if longest <= STAR else "marked" if longest <= LONGEST_MARK else "noted"


def _count_shared(rows: Sequence[Sequence[str]]) -> int:
    """How many numbers all cells begin with that have the same words between them; 0 if a long text comes first."""
    if not rows or max(len(parts[0]) for parts in rows) > LONGEST_PREFIX:
        return 0
    joints = zip(*(parts[2:-1:2] for parts in rows), strict=False)
    differ = [len(set(joint)) > 1 for joint in joints]
    return 1 + (differ.index(True) if True in differ else len(differ))


def _cut(parts: Sequence[str], count: int) -> list[str]:
    """[whole, fraction, joint, whole, fraction, ..., rest]; of a cell without a number: [its text, ""]."""
    if len(parts) == 1 or count == 0:
        return ["".join(parts), ""]
    pieces = []
    for place in range(1, 2 * count, 2):
        whole, point, decimals = parts[place].partition(".")
        pieces += [whole, point + decimals, parts[place + 1]]
    return [parts[0] + pieces[0], *pieces[1:-1], "".join(parts[2 * count :])]


def _common_width(pieces: Sequence[str]) -> float | None:
    """The width of the widest, in digits; None where all are equally wide."""
    if len({re.sub(r"\d", "0", piece) for piece in pieces}) == 1:
        return None
    return max(len(piece) + sum((sign in WIDE) - (sign in NARROW) for sign in piece) / 2 for piece in pieces)


def _tears(pieces: Sequence[Sequence[str]], widths: Sequence[float | None]) -> bool:
    """True where room after a fraction would stand before a comma, as in "0.9  , 0.1"."""
    ragged = [place for place, width in enumerate(widths) if width is not None and place % 3 == 1]
    return any(row[place + 1].startswith((",", ")")) for row in pieces if len(row) > 2 for place in ragged)


def _fill(cell: ET.Element, pieces: Sequence[str], widths: Sequence[float | None]) -> None:
    """Write the pieces of one cell, those of unequal widths in boxes; widths: of the pieces of a cell with numbers."""
    cell.text, parent = None, cell
    *numbers, rest = pieces
    for place, piece in enumerate(numbers):
        if piece == SPREAD:
            parent = ET.SubElement(cell, "span", {"class": "spread"})
        width = widths[place] if len(numbers) > 1 else None
        _append(parent, piece, width, "left" if place % 3 == 1 else "right")
    _append(cell if widths[-1] is None else parent, rest, widths[-1], "left")


def _append(parent: ET.Element, piece: str, width: float | None, side: str) -> None:
    if width is not None:
        ET.SubElement(parent, "span", {"class": side, "style": f"min-width: {width:g}ch;"}).text = piece
    elif len(parent):
        parent[-1].tail = (parent[-1].tail or "") + piece
    else:
        parent.text = (parent.text or "") + piece
