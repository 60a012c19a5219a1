"""Tables of separated columns, read a block of lines at a time: memory is bounded for files of any length.

Columns are separated by comma, tab, semicolon or `::`, with or without a header, plain or gzip. Every complaint names
the file, the line and the value.
"""

import csv
import gzip
import io
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np
import pandas as pd
from tqdm import tqdm

from config.errors import UserError

SEPARATORS = ("::", "\t", ";", ",")
# Header names that count as ours, compared in lower case without "_" and a final "id".
SYNONYMS = {"movie": "item", "film": "item", "product": "item", "score": "rating", "stars": "rating"}
# Bytes of text parsed at a time; parsing takes about five times as much.
BLOCK_BYTES = 2**23


def read_blocks(
    path: Path,
    ids: Sequence[str],
    values: Sequence[str],
    convert: Callable[[pd.DataFrame], dict],
    header_required: bool,
) -> Iterator[dict]:
    """Parse a file a block of lines at a time.

    Args:
        ids, values: the columns wanted, in this order or named by a header; further ones may be there. Of an id every
            letter counts; a value may come as another text for the same number (2.50 as 2.5).
        convert: takes the columns of a block, called as they are asked for: categories of strings, indexed by line
            number. It may raise UserError.
        header_required: whether a file without a header is refused.

    Yields:
        What `convert` makes of each block.

    Raises:
        UserError: with file, line and value, at the first thing that is wrong.
    """
    try:
        with path.open("rb") as raw, _progress_bar(path) as bar:
            stream = gzip.GzipFile(fileobj=raw) if raw.peek(2)[:2] == b"\x1f\x8b" else raw
            text = _more(stream, BLOCK_BYTES).removeprefix(b"\xef\xbb\xbf")  # the mark that spreadsheets write
            parser = _make_parser(path, text, ids, values, header_required)
            text = text[parser.header_length :] or _more(stream, BLOCK_BYTES)
            while text:
                try:
                    yield parser.read(text, convert)
                except _OpenQuotation as error:
                    more = _more(stream, len(text))  # a quoted field may go on over many lines
                    if not more:
                        refuse(path, error.line, "opens a quotation mark that is never closed")
                    text += more
                else:
                    bar.update(raw.tell() - bar.n)
                    text = _more(stream, BLOCK_BYTES)
            if parser.width is None:
                raise UserError(f"{path} holds a header but no rows")
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def column_name(field: str) -> str:
    """What a header's field is compared by."""
    name = field.strip().lower().replace("_", "").replace(" ", "")
    name = name.removesuffix("id") or name
    return SYNONYMS.get(name, name)


def quote(text: str, limit: int = 60) -> str:
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")


def refuse(path: Path, line: int, problem: str) -> NoReturn:
    raise UserError(f"{path}, line {line}: {problem}")


class _OpenQuotation(Exception):
    """A quotation mark is open where the text ends."""

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line


class _Parser:
    """Parses one block of lines after another.

    Args:
        header: what each field is called in `ids` and `values`, None for others; None where the file has no header.
        header_length: bytes of the header and its line end.
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

    def read(self, text: bytes, convert: Callable[[pd.DataFrame], dict]) -> dict:
        """Convert the next lines.

        Numbers are parsed several times as fast as texts. What that way cannot take or finds wrong is parsed again as
        texts: complaints show what the file says.
        """
        separator = self.separator
        if separator == "::":
            # pandas reads a one-character separator with its fast parser, any other with a slow one
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
        """The columns asked for, indexed by line number; texts, or what pandas makes of them."""
        names = self.header or self.columns
        lines_above, is_first = self.last_line, self.width is None
        if not is_first:
            # pandas holds rows to the length of the row above them: here is one for the first
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
                low_memory=False,  # or columns that nobody asked for are warned about
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
        """The columns asked for, without blank lines."""
        if self.header is None and self.width > 4:
            refuse(self.path, 1, f"has {self.width} columns and no header says which are user, item and rating")
        if self.header is not None and self.width != len(self.header):
            refuse(self.path, 2, f"has {self.width} columns where the header names {len(self.header)}")
        table.columns = self.header or [*self.columns, "timestamp"][: self.width]
        chosen = table[list(self.columns)]
        if not chosen.isna().to_numpy().any():
            return chosen
        chosen = chosen[table.notna().any(axis=1)]
        for column in self.columns:
            empty = chosen[column].isna().to_numpy()
            if empty.any():
                problem = f"has no {column}; a row is {', '.join(self.columns)}"
                refuse(self.path, chosen.index[empty.argmax()], problem)
        return chosen

    def _is_exact(self, table: pd.DataFrame) -> bool:
        """Whether the texts can be told from the numbers."""
        ids_are_whole = all(table[name].dtype == np.int64 for name in self.ids)
        return ids_are_whole and all(table[name].dtype in (np.int64, np.float64) for name in self.values)


def _is_plain(text: bytes, separator: str) -> bool:
    """Whether all is digits, points and separators, and no number begins with a superfluous 0."""
    if text.translate(None, b"0123456789.\r\n" + separator.encode()):
        return False
    letters = np.frombuffer(text, dtype=np.uint8)
    is_digit = letters - np.uint8(ord("0")) < 10
    superfluous = (letters[:-1] == ord("0")) & is_digit[1:]
    superfluous[1:] &= ~(is_digit[:-2] | (letters[:-2] == ord(".")))
    return not superfluous.any()


def _number_texts(column: pd.Series) -> pd.Series:
    """Numbers as categories of their texts."""
    codes, numbers = pd.factorize(column.to_numpy())
    texts = pd.Index([repr(number) for number in numbers.tolist()], dtype=object)
    return pd.Series(pd.Categorical.from_codes(codes, texts, validate=False), column.index, name=column.name)


def _explain(path: Path, error: Exception, lines_above: int) -> NoReturn:
    found = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error))
    if found:
        expected, line, saw = map(int, found.groups())
        refuse(path, line + lines_above, f"has {saw} columns where the lines before it have {expected}")
    found = re.search(r"starting at row (\d+)", str(error))
    if found:
        raise _OpenQuotation(int(found[1]) + 1 + lines_above)
    raise UserError(f"{path} cannot be parsed: {error}")


def _decode(path: Path, text: bytes, lines_above: int = 0) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1 + lines_above
        refuse(path, line, f"holds the byte 0x{text[error.start]:02x}, which is not UTF-8; save the file as UTF-8")


def _make_parser(path: Path, text: bytes, ids: Sequence[str], values: Sequence[str], header_required: bool) -> _Parser:
    """By the first line of a file."""
    columns = (*ids, *values)
    if not text.strip():
        raise UserError(f"{path} is empty; it should hold rows of {', '.join(columns)}")
    line = _decode(path, re.split(rb"[\r\n]", text, maxsplit=1)[0])
    separator, fields = _split_first_line(path, line, columns)
    bare = not header_required and _is_number(fields[2])
    if bare:
        return _Parser(path, separator, None, 0, ids, values)
    header = _read_header(path, line, fields, columns, header_required)
    return _Parser(path, separator, header, re.match(rb"[^\r\n]*(\r\n|\r|\n)?", text).end(), ids, values)


def _more(stream: BinaryIO, size: int) -> bytes:
    """The next bytes of a file, up to the end of a line."""
    return stream.read(size) + stream.readline()


def _progress_bar(path: Path) -> tqdm:
    """Bytes of a file, on a terminal alone, and only where reading takes longer than two seconds."""
    shown = sys.stderr.isatty()
    size = path.stat().st_size
    return tqdm(desc=path.name, total=size, unit="B", unit_scale=True, leave=False, delay=2, disable=not shown)


def _split_first_line(path: Path, line: str, columns: Sequence[str]) -> tuple[str, list[str]]:
    """The separator and the fields that it leaves: three at least."""
    for separator in SEPARATORS:
        fields = _split(path, line, separator)
        if len(fields) >= 3:
            return separator, fields
    wanted = f"{'three' if len(columns) == 3 else len(columns)} columns {', '.join(columns)}"
    refuse(path, 1, f"reads {quote(line)}, which is not {wanted} separated by , tab ; or ::")


def _read_header(path: Path, line: str, fields: list[str], columns: Sequence[str], required: bool) -> list[str | None]:
    """What each field is called in `columns`; None for those that nobody asked for."""
    names = [column_name(field) for field in fields]
    called = {column_name(column): column for column in columns}
    missing = [column for name, column in called.items() if name not in names]
    if len(missing) == len(columns):
        header = f"a header naming {', '.join(columns[:-1])} and {columns[-1]}"
        problem = f"it must be {header}" if required else f"neither {header}, nor a row with its rating third"
        refuse(path, 1, f"reads {quote(line)}: {problem}")
    if missing:
        found = quote(", ".join(fields), limit=600 if required else 60)  # a label is chosen among many columns
        refuse(path, 1, f"is a header without a column {missing[0]}: it names {found}")
    for name, column in called.items():
        if names.count(name) > 1:
            refuse(path, 1, f"is a header with {names.count(name)} columns for the {column}: {quote(line)}")
    return [called.get(name) for name in names]


def _split(path: Path, line: str, separator: str) -> list[str]:
    if len(separator) > 1:
        return line.split(separator)
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error as error:
        refuse(path, 1, f"cannot be split into columns ({error})")


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True
