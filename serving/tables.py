"""Files that a trained run reads and writes: pairs to predict, and tables as csv, jsonl or parquet."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
from tqdm import tqdm

from config.errors import UserError
from sources.delimited import read_blocks
from sources.files import write_atomically


@dataclass(frozen=True, eq=False)
class Pairs:
    """N pairs of a file: their raw ids and the numbers of their lines."""

    users: np.ndarray
    items: np.ndarray
    lines: np.ndarray


def read_pairs(path: Path) -> Iterator[Pairs]:
    """Read pairs, a block of lines at a time, in the order of the file.

    Args:
        path: a header that names the columns user and item; other columns are not read.

    Raises:
        UserError: the file is missing, has no rows, or a line has no user or item; names file, line and value.
    """
    is_empty = True
    for block in read_blocks(path, ("user", "item"), (), _as_pairs, header_required=True):
        is_empty = is_empty and not len(block["pairs"].lines)
        yield block["pairs"]
    if is_empty:
        raise UserError(f"{path} holds no rows")


def _as_pairs(block: pd.DataFrame) -> dict[str, Pairs]:
    users, items = (block[name].astype(object).to_numpy() for name in ("user", "item"))
    return {"pairs": Pairs(users, items, block.index.to_numpy())}


def require_writable(path: Path) -> None:
    """Raises UserError where a new file at `path` cannot be written; called before the work begins."""
    if path.exists() or path.is_symlink():
        raise UserError(f"--output {path} exists already: give another name, or remove it first")
    if not path.parent.is_dir():
        raise UserError(f"--output {path}: there is no folder {path.parent}")
    if path.suffix == ".parquet":
        _require_pyarrow(path)


def write_table(path: Path, blocks: Iterable[pd.DataFrame], total: int | None = None, unit: str = "user") -> int:
    """Write blocks of rows to a new file, which appears when it is complete; returns the number of rows.

    Args:
        path: ends in .csv, .jsonl or .parquet; parquet needs the package pyarrow.
        blocks: tables with the same columns; never held together in memory.
        total: users or pairs in all, for the progress bar; each block has the attribute "count" of them in `attrs`.

    Raises:
        UserError: the file cannot be written.
    """
    write = {".csv": _write_csv, ".jsonl": _write_jsonl, ".parquet": _write_parquet}[path.suffix]
    rows = 0

    def counted() -> Iterator[pd.DataFrame]:
        nonlocal rows
        with tqdm(total=total, unit=unit, leave=False, disable=not sys.stderr.isatty()) as bar:
            for block in blocks:
                rows += len(block)
                yield block
                bar.update(block.attrs.get("count", len(block)))

    try:
        write_atomically(path, lambda file: write(file, counted()))
    except OSError as error:
        raise UserError(f"--output {path} cannot be written: {error.strerror or error}") from None
    return rows


def _write_csv(file: BinaryIO, blocks: Iterator[pd.DataFrame]) -> None:
    for number, block in enumerate(blocks):
        file.write(block.to_csv(index=False, header=not number, lineterminator="\n").encode())


def _write_jsonl(file: BinaryIO, blocks: Iterator[pd.DataFrame]) -> None:
    for block in blocks:
        file.write(block.to_json(orient="records", lines=True, force_ascii=False, double_precision=9).encode())


def _write_parquet(file: BinaryIO, blocks: Iterator[pd.DataFrame]) -> None:
    import pyarrow
    from pyarrow import parquet

    first = pyarrow.Table.from_pandas(next(blocks), preserve_index=False)
    with parquet.ParquetWriter(file, first.schema) as writer:
        writer.write_table(first)
        for block in blocks:
            writer.write_table(pyarrow.Table.from_pandas(block, first.schema, preserve_index=False))


def _require_pyarrow(path: Path) -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise UserError(
            f"--output {path}: parquet needs the package pyarrow (pip install pyarrow); or take .csv"
        ) from None
