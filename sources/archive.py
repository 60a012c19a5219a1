"""The files of an archive of MovieLens that the program knows: unpacked one by one, each verified.

Everything else in the archive stays there, so that no foreign or endless file reaches the disk.
"""

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

from config.errors import UserError
from sources.catalog import Source

CHUNK_BYTES = 2**20
# Upper bounds in bytes: of a line of ratings, of a line about a movie on average, of a file with a known digest, and of
# a file without a known number of lines, as that of ml-latest-small.
RATING_BYTES, MOVIE_BYTES, DIGEST_BYTES, OTHER_BYTES = 64, 512, 2**22, 2**26


@dataclass(frozen=True)
class _Known:
    """A file of an archive. limit: bytes; lines: of data, without a header; None where it is not known."""

    name: str
    limit: int
    sha256: str | None = None
    lines: int | None = None
    unit: str = "lines"


def unpack_known(opened: zipfile.ZipFile, source: Source, folder: Path) -> None:
    """Write the known files of an archive to a folder.

    Raises:
        UserError: one is missing, longer than it can be, or not the one that GroupLens publishes.
        OSError, zipfile.BadZipFile, zlib.error, EOFError: as zipfile does.
    """
    for known in _known_files(source):
        _unpack(opened, source, known, folder)


def _known_files(source: Source) -> list[_Known]:
    """The ratings first: they tell best whether this is the right archive."""
    ratings = source.num_ratings
    limit = RATING_BYTES * (ratings + 1) if ratings else OTHER_BYTES
    found = [_Known(source.ratings, limit, source.sha256, ratings, "ratings")]
    if source.movies not in source.digests:
        movies = source.num_movies
        limit = MOVIE_BYTES * (movies + 1) if movies else OTHER_BYTES
        found.append(_Known(source.movies, limit, lines=movies, unit="movies"))
    return found + [_Known(name, DIGEST_BYTES, sha256) for name, sha256 in source.digests.items()]


def _unpack(opened: zipfile.ZipFile, source: Source, known: _Known, folder: Path) -> None:
    member = f"{source.folder}/{known.name}"
    if member not in opened.namelist():
        raise UserError(f"the archive holds no {member}; it is not the data set that GroupLens publishes")
    digest, lines, length, end = hashlib.sha256(), 0, 0, b"\n"
    with opened.open(member) as packed, (folder / known.name).open("xb") as file:
        while chunk := packed.read(CHUNK_BYTES):
            length += len(chunk)
            if length > known.limit:
                raise UserError(
                    f"{member} has more than {known.limit:,} bytes, so it is not the file that GroupLens publishes; "
                    "nothing was kept"
                )
            digest.update(chunk)
            lines, end = lines + chunk.count(b"\n"), chunk[-1:]
            file.write(chunk)
    lines += end != b"\n"
    _verify(member, known, digest.hexdigest(), lines - known.name.endswith(".csv"))  # without the header


def _verify(member: str, known: _Known, sha256: str, lines: int) -> None:
    """Check a file against the published sha256 and number of lines, as far as these are known."""
    if known.sha256 and sha256 != known.sha256:
        raise UserError(
            f"{member} has the sha256 {sha256}, not {known.sha256}: the archive was tampered with or is another "
            "release; nothing was kept"
        )
    if known.lines and lines != known.lines:
        raise UserError(
            f"{member} holds {lines:,} {known.unit}, not the {known.lines:,} that GroupLens publishes; nothing was "
            "kept, download it again"
        )
