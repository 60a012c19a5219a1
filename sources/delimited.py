"""Parse tables of separated columns in blocks of lines, so that memory is bounded for files of any length.

Columns are separated by comma, tab, semicolon or `::`, with or without a header, plain or gzip. Every error names the
file, the line and the value.
"""

import csv
import gzip
import io
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np
import pandas as pd
from tqdm import tqdm

from config.errors import UserError
from config.reading import open_regular
from config.text import printable

SEPARATORS = ("::", "\t", ";", ",")
# The columns with a role, and the role of each in --columns.
ROLES = {"user": "user", "item": "item", "rating": "rating", "timestamp": "time"}
# Other accepted header names, compared in lower case without spaces, "_" and a final "id".
SYNONYMS = {
    "movie": "item", "film": "item", "product": "item", "score": "rating", "stars": "rating", "time": "timestamp",
}  # fmt: skip
# Bytes of text parsed at a time; parsing needs about five times as much memory.
BLOCK_BYTES = 2**23
LONGEST_LINE = 2**24  # bytes; a longer one is no row, and would be held in memory as a whole
BOM = "\ufeff".encode()  # which spreadsheets write at the start of a file
INVISIBLE = {b"\0": "a NUL byte", BOM: "a byte order mark inside the file"}
Convert = Callable[[pd.DataFrame], dict]


def read_blocks(
    path: Path,
    ids: Sequence[str],
    values: Sequence[str],
    convert: Convert,
    header_required: bool,
    names: Mapping[str, str] | None = None,
) -> Iterator[dict]:
    """Parse a file a block of lines at a time.

    Args:
        ids, values: columns to read, in this order or named by a header; the file may hold more. Ids are passed on
            character by character; a value may be normalized to another text of the same number (2.50 to 2.5).
        convert: takes these columns of a block, categories of strings indexed by line number; may raise UserError.
        header_required: reject a file without a header.
        names: {column: its exact name in the header}, for columns that are called otherwise. The header must hold
            these names, those of columns that are not read included.

    Yields:
        The result of `convert` for each block.

    Raises:
        UserError: the file is missing or not such a table; names file, line and value.
    """
    try:
        with open_regular(path) as raw, _progress_bar(path) as bar:
            stream = gzip.GzipFile(fileobj=raw) if raw.peek(2)[:2] == b"\x1f\x8b" else raw
            text = _read_lines(path, stream, BLOCK_BYTES).removeprefix(BOM)
            parser = _make_parser(path, text, ids, values, header_required, names or {})
            text = text[parser.header_length :] or _read_lines(path, stream, BLOCK_BYTES)
            while text:
                _require_visible(path, text, parser.last_line)
                try:
                    yield parser.read(text, convert)
                except _OpenQuotation as error:
                    more = _read_lines(path, stream, len(text))  # a quoted field may span many lines
                    if not more:
                        fail(path, error.line, "opens a quotation mark that is never closed")
                    text += more
                else:
                    bar.update(raw.tell() - bar.n)
                    text = _read_lines(path, stream, BLOCK_BYTES)
            if parser.width is None:
                raise UserError(f"{path} holds a header but no rows")
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def header_names(path: Path) -> set[str]:
    """The names in the first line of a file as `column_name` has them; none where it cannot be read."""
    try:
        with open_regular(path) as raw:
            stream = gzip.GzipFile(fileobj=raw) if raw.peek(2)[:2] == b"\x1f\x8b" else raw
            line = stream.readline(LONGEST_LINE).removeprefix(BOM).decode("utf-8").strip()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, UserError):
        return set()
    return set().union(*({column_name(field) for field in _split(path, line, separator)} for separator in SEPARATORS))


def column_name(field: str) -> str:
    """Normalize a header field for comparison."""
    name = field.strip().lower().replace("_", "").replace(" ", "")
    name = name.removesuffix("id") or name
    return SYNONYMS.get(name, name)


def quote(text: str, limit: int = 60) -> str:
    """The text in quotation marks for a message, shortened to `limit` characters."""
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")


def fail(path: Path, line: int, problem: str) -> NoReturn:
    """Raise the UserError for a line of a file."""
    raise UserError(f"{path}, line {line}: {problem}")


class _OpenQuotation(Exception):
    """The text ends inside a quoted field that began in `line`."""

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line


class _Parser:
    """Parses one block of lines after another.

    Args:
        header: for each field its name in `ids` or `values`, None for a field to skip; None if the file has no header.
        header_length: bytes of the header, its line end included.
    """

    def __init__(
        self,
        path: Path,
        separator: str,
        header: list[str | None] | None,
        header_length: int,
        ids: Sequence[str],
        values: Sequence[str],
    ) -> None:
        self.path, self.separator, self.header, self.header_length = path, separator, header, header_length
        self.ids, self.values, self.columns = ids, values, (*ids, *values)
        self.width = None  # fields of the first row
        self.last_line = 1 if header else 0

    def read(self, text: bytes, convert: Convert) -> dict:
        """Parse and convert the next lines.

        Parsing numbers is several times as fast as parsing texts. Lines that cannot be parsed as numbers without loss,
        or that hold an error, are parsed again as texts, so that messages quote the file literally.
        """
        separator = self.separator
        if separator == "::":
            # pandas has a fast parser for one-character separators and a slow one for all others
            text, separator = text.replace(b"::", b"\t"), "\t"
        before = self.last_line, self.width
        if _is_plain(text, separator):
            table = self._parse(text, separator, as_texts=False)
            if self._is_exact(table):
                with suppress(UserError):
                    return convert(pd.DataFrame({name: _number_texts(table[name]) for name in table}, copy=False))
            self.last_line, self.width = before
        return convert(self._parse(text, separator, as_texts=True).astype("category"))

    def _parse(self, text: bytes, separator: str, as_texts: bool) -> pd.DataFrame:
        """The requested columns, indexed by line number, as texts or as the types that pandas infers."""
        names = self.header or self.columns
        lines_above, is_first = self.last_line, self.width is None
        if not is_first:
            # pandas compares the width of a block's rows with its first row: prepend a row of the file's width
            text = (separator.join("0" * self.width) + "\n").encode() + text
            lines_above -= 1
        try:
            table = pd.read_csv(
                io.BytesIO(text),
                sep=separator,
                header=None,
                dtype={names.index(column): str for column in self.columns} if as_texts else None,
                keep_default_na=False,
                na_values=[""],
                skip_blank_lines=False,
                skipinitialspace=True,
                encoding="utf-8",
                low_memory=False,  # avoids warnings about columns that are not requested
            )
        except UnicodeDecodeError:
            _decode(self.path, text, lines_above)
            raise
        except pd.errors.EmptyDataError:
            raise UserError(f"{self.path} holds a header but no rows") from None
        except pd.errors.ParserError as error:
            _explain(self.path, error, lines_above)
        table.index += lines_above + 1
        self.last_line = table.index[-1]
        self.width = table.shape[1]
        return self._choose(table if is_first else table.iloc[1:])

    def _choose(self, table: pd.DataFrame) -> pd.DataFrame:
        """The requested columns, without blank lines."""
        if self.header is not None and self.width != len(self.header):
            fail(self.path, 2, f"has {self.width} columns where the header names {len(self.header)}")
        table.columns = self.header or [*self.columns, *[None] * (self.width - len(self.columns))]
        chosen = table[list(self.columns)]
        if not chosen.isna().to_numpy().any():
            return chosen
        chosen = chosen[table.notna().any(axis=1)]
        for column in self.columns:
            empty = chosen[column].isna().to_numpy()
            if empty.any():
                problem = f"has no {column}; a row is {', '.join(self.columns)}"
                fail(self.path, chosen.index[empty.argmax()], problem)
        return chosen

    def _is_exact(self, table: pd.DataFrame) -> bool:
        """True if the parsed numbers determine the texts of the ids."""
        ids_are_whole = all(table[name].dtype == np.int64 for name in self.ids)
        return ids_are_whole and all(table[name].dtype in (np.int64, np.float64) for name in self.values)


def _is_plain(text: bytes, separator: str) -> bool:
    """True if the text holds only digits, points and separators, and no number has a superfluous leading 0."""
    if text.translate(None, b"0123456789.\r\n" + separator.encode()):
        return False
    letters = np.frombuffer(text, dtype=np.uint8)
    is_digit = letters - np.uint8(ord("0")) < 10
    superfluous = (letters[:-1] == ord("0")) & is_digit[1:]
    superfluous[1:] &= ~(is_digit[:-2] | (letters[:-2] == ord(".")))
    return not superfluous.any()


def _number_texts(column: pd.Series) -> pd.Series:
    """Convert numbers to categories of their texts."""
    codes, numbers = pd.factorize(column.to_numpy())
    texts = pd.Index([repr(number) for number in numbers.tolist()], dtype=object)
    return pd.Series(pd.Categorical.from_codes(codes, texts, validate=False), column.index, name=column.name)


def _explain(path: Path, error: Exception, lines_above: int) -> NoReturn:
    """Translate an error of pandas; `lines_above` are the lines of the file before the parsed block."""
    found = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error))
    if found:
        expected, line, saw = map(int, found.groups())
        fail(path, line + lines_above, f"has {saw} columns where the lines before it have {expected}")
    found = re.search(r"starting at row (\d+)", str(error))
    if found:
        raise _OpenQuotation(int(found[1]) + 1 + lines_above)
    raise UserError(f"{path} cannot be parsed: {error}")


def _decode(path: Path, text: bytes, lines_above: int = 0) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1 + lines_above
        fail(path, line, f"holds the byte 0x{text[error.start]:02x}, which is not UTF-8; save the file as UTF-8")


def _make_parser(
    path: Path,
    text: bytes,
    ids: Sequence[str],
    values: Sequence[str],
    header_required: bool,
    names: Mapping[str, str],
) -> _Parser:
    """Choose separator and columns by the first line of the file."""
    columns = (*ids, *values)
    if not text.strip():
        raise UserError(f"{path} is empty; it should hold rows of {', '.join(columns)}")
    first = re.split(rb"[\r\n]", text, maxsplit=1)[0]
    line = _decode(path, first)
    _require_visible(path, first, 0)
    separator, fields = _split_first_line(path, line, columns)
    if not header_required and not names and _is_number(fields[2]):
        if len(fields) < len(columns):
            fail(path, 1, f"has {len(fields)} columns and no header; a row is {', '.join(columns)}")
        return _Parser(path, separator, None, 0, ids, values)
    header = _read_header(path, line, fields, columns, header_required, names)
    return _Parser(path, separator, header, re.match(rb"[^\r\n]*(\r\n|\r|\n)?", text).end(), ids, values)


def _read_lines(path: Path, stream: BinaryIO, size: int) -> bytes:
    """The next `size` bytes of a file, and the rest of the line."""
    text, rest = stream.read(size), stream.readline(LONGEST_LINE)
    if len(rest) == LONGEST_LINE and not rest.endswith(b"\n"):
        raise UserError(f"{path} holds a line of more than {LONGEST_LINE:,} bytes, which is no row of a table")
    return text + rest


def _require_visible(path: Path, text: bytes, lines_above: int) -> None:
    """Raise UserError where an id could hold a character that nobody sees, and so be another id."""
    for mark, name in INVISIBLE.items():
        if (place := text.find(mark)) >= 0:
            line = text.count(b"\n", 0, place) + 1 + lines_above
            fail(path, line, f"holds {name}: save the file as plain UTF-8 text without it")


def _progress_bar(path: Path) -> tqdm:
    """A progress bar in bytes, on a terminal only, and only if reading takes longer than two seconds."""
    shown = sys.stderr.isatty()
    size = path.stat().st_size
    return tqdm(
        desc=printable(path.name, in_one_line=True),
        total=size,
        unit="B",
        unit_scale=True,
        leave=False,
        delay=2,
        disable=not shown,
    )


def _split_first_line(path: Path, line: str, columns: Sequence[str]) -> tuple[str, list[str]]:
    """The separator of a line, and its fields: at least three, or as many as there are columns to read."""
    for separator in SEPARATORS:
        fields = _split(path, line, separator)
        if len(fields) >= min(3, len(columns)):
            return separator, fields
    wanted = f"{'three' if len(columns) == 3 else len(columns)} columns {', '.join(columns)}"
    fail(path, 1, f"reads {quote(line)}, which is not {wanted} separated by , tab ; or ::")


def _read_header(
    path: Path, line: str, fields: list[str], columns: Sequence[str], required: bool, names: Mapping[str, str]
) -> list[str | None]:
    """For each field its name in `columns`; None for a field that is not requested."""
    fields = [field.strip() for field in fields]
    listed = quote(", ".join(fields), limit=600)
    for name in names.values():
        if name not in fields:
            fail(path, 1, f"is a header without the column {quote(name)} of --columns: it names {listed}")
    places = {column: _find_column(fields, column, names) for column in columns}
    missing = [column for column in columns if not places[column]]
    if len(missing) == len(columns):
        header = f"a header naming {', '.join(columns[:-1])} and {columns[-1]}"
        problem = f"it must be {header}" if required else f"neither {header}, nor a row with its rating third"
        fail(path, 1, f"reads {quote(line)}: {problem}{_advise(columns)}")
    if missing:
        fail(path, 1, f"is a header without a column {missing[0]}: it names {listed}{_advise(missing[:1])}")
    found: list[str | None] = [None] * len(fields)
    for column, (place, *others) in places.items():
        if others:
            fail(path, 1, f"is a header with {1 + len(others)} columns for the {column}: {quote(line)}")
        if (other := found[place]) is not None:
            fail(path, 1, f"is a header whose column {quote(fields[place])} would be both {other} and {column}")
        found[place] = column
    return found


def _find_column(fields: list[str], column: str, names: Mapping[str, str]) -> list[int]:
    """The places of a column in a header."""
    if column in names:
        return [place for place, field in enumerate(fields) if field == names[column]]
    taken = names.values() if column in ROLES else ()
    wanted = column_name(column)
    return [place for place, field in enumerate(fields) if column_name(field) == wanted and field not in taken]


def _advise(columns: Sequence[str]) -> str:
    """How a header may name those of these columns that have a role; "" where none has."""
    roles = [column for column in columns if column in ROLES]
    accepted = ["/".join([role, *(name for name in SYNONYMS if SYNONYMS[name] == role)]) for role in roles]
    flag = ",".join(f"{ROLES[role]}=NAME" for role in roles)
    return f"; a header may name {', '.join(accepted)}, or what --columns {flag} says" if roles else ""


def _split(path: Path, line: str, separator: str) -> list[str]:
    if len(separator) > 1:
        return line.split(separator)
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error as error:
        fail(path, 1, f"cannot be split into columns ({error})")


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True
