"""How wide a terminal is, how wide a text is on it, where its lines break, and what has a color.

Files and pipes get whole lines without colors.
"""

import itertools
import os
import re
import shutil
import unicodedata
from collections.abc import Sequence
from typing import TextIO

NARROWEST = 40  # columns; a narrower terminal wraps lines
COLORS = {"error": "31", "good": "32", "warning": "33"}  # the codes of red, green and yellow


class Marked(str):
    """Lines that a terminal shows in a color, which is a key of COLORS. Everywhere else they are plain text."""

    color: str

    def __new__(cls, text: str, color: str) -> "Marked":
        marked = super().__new__(cls, text)
        marked.color = color
        return marked


def terminal_width(stream: TextIO) -> int | None:
    """The columns of the terminal that a stream writes to; None where it writes to a file or a pipe."""
    return max(NARROWEST, shutil.get_terminal_size().columns) if stream.isatty() else None


def has_colors(stream: TextIO) -> bool:
    """True for a terminal that knows colors, whose user does not refuse them (https://no-color.org)."""
    knows_colors = os.environ.get("TERM", "dumb") != "dumb"
    return stream.isatty() and knows_colors and not os.environ.get("NO_COLOR")


def colored(text: str, color: str) -> str:
    """The text in a color of COLORS, line by line, as a pager shows it."""
    return "\n".join(f"\x1b[{COLORS[color]}m{line}\x1b[0m" for line in text.split("\n"))


def display_width(text: str) -> int:
    """The columns that a line takes: two for a wide character, as of Chinese or Japanese, none for one that combines.

    The rule is that of Unicode Standard Annex 11. An emoji of several characters counts as their sum, so that it never
    counts too little.
    """
    if text.isascii():
        return len(text)
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def left(text: str, width: int) -> str:
    """The text at the left of so many columns."""
    return text + " " * (width - display_width(text))


def right(text: str, width: int) -> str:
    """The text at the right of so many columns."""
    return " " * (width - display_width(text)) + text


def cut(text: str, width: int | None) -> str:
    """The beginning of a line that fits the width, with "..." where the rest is missing. None: all of it."""
    if width is None or display_width(text) <= width:
        return text
    kept, used = "", 0
    for character in text:
        used += _columns(character)
        if used > width - 3:
            break
        kept += character
    return kept + "..."


def wrap(text: str, width: int | None) -> str:
    """Lines that are too wide, broken at spaces; the parts keep the indentation. A word stays whole. None: the text."""
    if width is None:
        return text
    return "\n".join(part for line in text.split("\n") for part in _wrap_line(line, width))


def copyable(label: str, words: Sequence[str], width: int | None) -> str:
    r"""A line with a command that can be copied: "ask it:  python main.py --recommend 7".

    Where it is too wide, the command begins on a line of its own; where that is too wide, too, it breaks between two
    words after a backslash, which a shell reads as one line.

    Args:
        words: of the command, quoted for a shell.
    """
    line = " ".join(words)
    if width is None or display_width(label + line) <= width:
        return label + line
    lines = [f"  {line}"]
    if display_width(lines[0]) > width:
        lines = [f"  {words[0]}"]
        for word in words[1:]:
            if display_width(f"{lines[-1]} {word} \\") <= width:
                lines[-1] += f" {word}"
            else:
                lines.append(f"    {word}")
    return f"{label.rstrip()}\n" + " \\\n".join(lines)


def blocks(columns: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """The lines of a table; one that is too wide goes on below, with its first column again.

    Args:
        columns: each a list of cells of one width, a cell for every line; they are not changed.
    """
    first, *rest = columns
    start = display_width(first[0])
    found: list[list[Sequence[str]]] = [[first]]
    used = start
    for column in rest:
        used += display_width(column[0])
        if width is not None and used > width and len(found[-1]) > 1:
            found.append([first])
            used = start + display_width(column[0])
        found[-1].append(column)
    lines: list[str] = []
    for block in found:
        lines += [""] if lines else []
        lines += [cut("".join(cells).rstrip(), width) for cells in zip(*block, strict=True)]
    return lines


def fit_markdown(text: str, width: int | None) -> str:
    """Markdown whose tables fit the width: one that is too wide goes on below, see `blocks`. None: the text."""
    if width is None:
        return text
    lines: list[str] = []
    for is_table, group in itertools.groupby(text.split("\n"), lambda line: line.startswith("|")):
        found = list(group)
        is_wide = is_table and max(map(display_width, found)) > width
        lines += _narrow_table(found, width) if is_wide else found
    return "\n".join(lines)


def _narrow_table(lines: Sequence[str], width: int) -> list[str]:
    """The lines of a Markdown table in blocks, with cells of one width in each column."""
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    columns = []
    for column in zip(*rows, strict=False):
        widest = max(map(display_width, column))
        fills = ["-" if set(cell) <= set("-: ") and "-" in cell else " " for cell in column]
        padded = [cell + fill * (widest - display_width(cell)) for cell, fill in zip(column, fills, strict=True)]
        columns.append([f"|{cell}" for cell in padded])
    return blocks(columns, width)


def _wrap_line(line: str, width: int) -> list[str]:
    if display_width(line) <= width or line.endswith(" \\"):  # such a line belongs to a command
        return [line]
    indent = line[: len(line) - len(line.lstrip(" "))]
    parts: list[str] = []
    for word in line.split():
        if parts and display_width(f"{parts[-1]} {word}") <= width:
            parts[-1] += f" {word}"
        else:
            parts.append(indent + word)
    return parts
