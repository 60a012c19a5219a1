"""Arrays and texts in one file that numpy and json alone can read: a zip of .npy files, without pickles."""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from config.errors import UserError
from config.reading import open_regular

TEXTS = "texts"  # the entry that holds UTF-8 JSON


@dataclass(frozen=True, eq=False)
class Packed:
    """arrays: numbers of any shape. texts: what JSON can hold, lists of strings above all."""

    arrays: dict[str, np.ndarray]
    texts: dict[str, Any]


def write_packed(file: BinaryIO, packed: Packed) -> None:
    """Write to an open file. Nothing is compressed: the arrays are written as they lie in memory."""
    texts = np.frombuffer(json.dumps(packed.texts, ensure_ascii=False).encode(), np.uint8)
    np.savez(file, allow_pickle=False, **packed.arrays, **{TEXTS: texts})


def read_packed(path: Path) -> Packed:
    """Read what `write_packed` wrote.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        with open_regular(path) as file, np.load(file, allow_pickle=False) as entries:
            arrays = {name: entries[name] for name in entries.files}
        return Packed(arrays, json.loads(arrays.pop(TEXTS).tobytes()))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: copy the run folder with all its files") from None
    except (OSError, ValueError, KeyError, EOFError, AttributeError, RecursionError, zipfile.BadZipFile) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} is damaged ({reason}): restore the file") from None
