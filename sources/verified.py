"""Arrays and texts in a file that vouches for itself: a digest of every part is compared before anything is used.

The format is that of packing.py, a zip of .npy files without pickles. The digests tell damage and exchanged arrays from
what the program wrote. They are no signature: whoever can write to the folder can also write digests that fit.
"""

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from config.reading import open_regular
from sources.files import write_atomically
from sources.packing import TEXTS, Packed

DIGEST = "digest"  # the entry that holds the sha256 of the texts


def write_verified(path: Path, key: Mapping[str, Any], content: Packed) -> None:
    """Write to a file under a key that says what it was made from. Raises OSError."""
    digests = {name: _digest(array) for name, array in content.arrays.items()}
    record = json.dumps({"key": key, "digests": digests, "texts": content.texts}).encode()
    digest = np.frombuffer(hashlib.sha256(record).digest(), np.uint8)
    parts = {TEXTS: np.frombuffer(record, np.uint8), DIGEST: digest} | content.arrays
    write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **parts))


def read_verified(path: Path, key: Mapping[str, Any], names: Sequence[str]) -> Packed | None:
    """Read the texts and these arrays of what `write_verified` wrote; None where it is not intact or has another key.

    No more memory is taken than the file is long: entries that are compressed are not read.
    """
    try:
        with open_regular(path, follow_links=False) as file, np.load(file, allow_pickle=False) as stored:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in stored.zip.infolist()):
                return None
            encoded = stored[TEXTS].tobytes()
            record = json.loads(encoded)
            if hashlib.sha256(encoded).digest() != stored[DIGEST].tobytes() or record["key"] != key:
                return None
            arrays = {name: stored[name] for name in names}
            if any(_digest(array) != record["digests"][name] for name, array in arrays.items()):
                return None
            return Packed(arrays, record["texts"])
    except Exception:  # a damaged file raises many kinds of errors; what it was made from is still there
        return None


def _digest(array: np.ndarray) -> str:
    """sha256 of the type, the shape and the numbers of an array."""
    found = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()
