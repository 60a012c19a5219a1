"""Writing a zip that is the same byte by byte whenever it is made from the same files. Standard library only."""

import io
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path

from sources.files import write_atomically

EXECUTABLE, READABLE = 0o100755, 0o100644  # modes of regular files


def write_zip(path: Path, contents: Mapping[str, bytes], executable: Collection[str] = ()) -> None:
    """Write {name in the zip: content}; `executable` names the scripts.

    Raises:
        OSError: the file cannot be written; an older one is unchanged.
    """
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(contents):
            entry = zipfile.ZipInfo(name)  # its time is 1980-01-01
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, on every machine: the mode below is one of Unix
            entry.external_attr = (EXECUTABLE if name in executable else READABLE) << 16
            archive.writestr(entry, contents[name])
    write_atomically(path, packed.getvalue())
