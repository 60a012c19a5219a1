"""Text on a terminal. Standard library only."""

import re

from config.errors import UserError

# Control characters (a terminal obeys them), line separators, characters that reverse the direction of text, and
# halves of characters, as names of files that are not UTF-8 have. Tab and newline are left.
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, in_one_line: bool = False) -> str:
    r"""The text with what a terminal would obey written out: ESC becomes \x1b.

    Args:
        in_one_line: write tabs and newlines out, too, as in a cell of a table.
    """
    if in_one_line:
        text = text.replace("\n", r"\n").replace("\t", r"\t")
    return UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def require_text(text: str, what: str) -> None:
    """Raises UserError where no file can hold the text: it is not UTF-8, or holds a NUL. what: the text is."""
    if "\0" in text:
        raise UserError(f"{what} holds a NUL character: {text!a}")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UserError(f"{what} is not UTF-8: {text!a}; rename the file or folder that it names")
