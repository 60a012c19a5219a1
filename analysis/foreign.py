"""Files of a results folder that somebody else may have made: read within the folder, and made harmless as Markdown."""

import html
import io
from pathlib import Path

import pandas as pd

from config.errors import UserError
from config.reading import open_regular
from config.text import printable

LARGEST_FILE = 2**26  # bytes
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def read_inside(root: Path, path: Path) -> bytes:
    """A file below `root`.

    Raises:
        UserError: a link leads out of the folder, or the file is no regular one, too long, missing or not readable.
    """
    try:
        if not path.resolve(strict=True).is_relative_to(root.resolve()):
            raise UserError(f"{path} is a link that leads out of {root}: put the file itself there, or remove it")
        with open_regular(path) as file:
            content = file.read(LARGEST_FILE + 1)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise UserError(f"{path} cannot be read ({error}); run its experiment again") from None
    if len(content) > LARGEST_FILE:
        raise UserError(f"{path} has more than {LARGEST_FILE:,} bytes, which is no result: run its experiment again")
    return content


def read_markdown(root: Path, path: Path) -> str:
    """A text whose Markdown is kept, and whose HTML, pictures and links become text."""
    try:
        text = printable(read_inside(root, path).decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} cannot be read ({error}); run its experiment again") from None
    for mark, harmless in (("<", "&lt;"), ("](", "]\\("), ("]:", "]\\:"), ("![", "!\\[")):
        text = text.replace(mark, harmless)
    return text


def read_csv(root: Path, path: Path) -> pd.DataFrame:
    """A table whose texts, names of columns included, are plain text in Markdown; see `plain`."""
    try:
        table = pd.read_csv(io.BytesIO(read_inside(root, path)))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); run its experiment again") from None
    table.columns = [plain(str(name)) for name in table.columns]
    return table.map(lambda value: plain(value) if isinstance(value, str) else value)


def read_picture(root: Path, path: Path) -> bytes:
    """A picture; raises UserError where the file is none."""
    content = read_inside(root, path)
    if not content.startswith(PNG_SIGNATURE):
        raise UserError(f"{path} is no PNG picture: run its experiment again, finished runs are kept")
    return content


def plain(text: str) -> str:
    """The text in one line, without a meaning in HTML, and without pictures, links and columns in Markdown."""
    escaped = html.escape(printable(" ".join(text.split()), in_one_line=True), quote=False)
    for mark in "[]|`":
        escaped = escaped.replace(mark, f"&#{ord(mark)};")
    return escaped


def plain_json(value: object) -> object:
    """What was read from JSON, with every text in it plain; see `plain`."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, list):
        return [plain_json(entry) for entry in value]
    if isinstance(value, dict):
        return {plain(name): plain_json(entry) for name, entry in value.items()}
    return value
