"""Find a MovieLens data set on disk, or download, verify and unpack it.

The license of MovieLens forbids passing it on, so each user downloads their own copy from GroupLens.
"""

import http.client
import os
import shutil
import sys
import tempfile
import urllib.request
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from tqdm import tqdm

from config.errors import UserError
from sources.archive import unpack_known
from sources.catalog import MOVIELENS, Source

ADDRESS = "https://files.grouplens.org/datasets/movielens"
LARGEST_DOWNLOAD = 2**29  # bytes; the largest archive, that of MovieLens 25M, has half of them
TIMEOUT = 5  # seconds without an answer after which the server counts as unreachable


class Unreachable(UserError):
    """The data set is not on disk and its server does not answer; `cause` is the reason in a few words."""

    def __init__(self, message: str, cause: str) -> None:
        super().__init__(message)
        self.cause = cause


def fetch(name: str, data_dir: Path) -> Source:
    """Make a data set available in `data_dir`, downloading it if necessary.

    An unpacked copy in `data_dir` is used as it is; an archive `NAME.zip` there is verified and unpacked.

    Returns:
        The data set's entry in the catalog, with `root` set to `data_dir`.

    Raises:
        Unreachable: the data set is not in `data_dir` and the server does not answer.
        UserError: the name is unknown; or the archive is truncated, is not what GroupLens published, or would write
            outside `data_dir`.
    """
    if name not in MOVIELENS:
        raise UserError(f"there is no MovieLens data set {name!r}; choose one of {', '.join(MOVIELENS)}")
    source = replace(MOVIELENS[name], root=data_dir)
    if source.ratings_file.is_file():
        return source
    archive = data_dir / f"{name}.zip"
    if archive.is_file():
        _unpack_local(archive, source)
    else:
        _download(name, source)
    return source


def _unpack_local(archive: Path, source: Source) -> None:
    """Unpack an archive that the user put into the data folder."""
    try:
        _unpack(archive, source)
    except OSError as error:
        raise UserError(
            f"{archive} cannot be unpacked in {source.root} ({error.strerror}); unpack it in another folder and pass "
            "that folder as --data_dir"
        ) from None


def _download(name: str, source: Source) -> None:
    """Download an archive to a temporary file, then unpack it."""
    response = _connect(name, source)
    try:
        source.root.mkdir(parents=True, exist_ok=True)
        with response, tempfile.NamedTemporaryFile(dir=source.root, prefix=f".{name}-", suffix=".zip") as part:
            _copy(response, part, name)
            part.flush()
            _unpack(Path(part.name), source)
    except (http.client.HTTPException, TimeoutError, ConnectionError, ValueError) as error:
        raise UserError(
            f"the download of {name} broke off ({error!r}); nothing was kept, run the command again"
        ) from None
    except OSError as error:
        raise UserError(
            f"{name} cannot be written to {source.root} ({error.strerror}); pass another folder as --data_dir"
        ) from None


def _connect(name: str, source: Source) -> http.client.HTTPResponse:
    """Open the archive's address; raises Unreachable if there is no answer."""
    try:
        return urllib.request.urlopen(f"{ADDRESS}/{name}.zip", timeout=TIMEOUT)
    except (OSError, http.client.HTTPException) as error:
        cause = " ".join(str(getattr(error, "reason", error)).split())
        raise Unreachable(
            f"{name} is not in {source.root} and {ADDRESS} cannot be reached ({cause}); put the unpacked folder "
            f"{source.folder} there, pass its location as --data_dir, or use --dataset simulated",
            cause,
        ) from None


def _copy(response: http.client.HTTPResponse, file: BinaryIO, name: str) -> None:
    """Copy the response to a file, with a progress bar on a terminal and one line elsewhere."""
    total = int(response.headers.get("Content-Length") or 0)
    hidden = not sys.stderr.isatty()
    if hidden:
        print(f"downloading {name} from {ADDRESS} ({total / 1e6:.0f} MB)", file=sys.stderr, flush=True)
    copied = 0
    with tqdm(total=total or None, unit="B", unit_scale=True, desc=f"downloading {name}", disable=hidden) as bar:
        while chunk := response.read(2**18):
            file.write(chunk)
            copied += len(chunk)
            if copied > LARGEST_DOWNLOAD:
                raise UserError(f"the download of {name} does not end, so it is not the data set; nothing was kept")
            bar.update(len(chunk))
    if copied < total:
        raise UserError(
            f"the download of {name} broke off after {copied:,} of {total:,} bytes; nothing was kept, "
            "run the command again"
        )


def _unpack(archive: Path, source: Source) -> None:
    """Unpack the known files into a temporary folder, verify them, and only then move the folder into place."""
    scratch = Path(tempfile.mkdtemp(dir=source.root, prefix=f".{source.folder}-"))
    try:
        with zipfile.ZipFile(archive) as opened:
            _require_inside(opened, archive)
            (scratch / source.folder).mkdir()
            unpack_known(opened, source, scratch / source.folder)
        os.replace(scratch / source.folder, source.root / source.folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise UserError(
            f"the archive of {source.folder} is damaged ({error}); nothing was unpacked, download it again"
        ) from None
    except OSError:
        if not source.ratings_file.is_file():  # else another process was faster
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _require_inside(opened: zipfile.ZipFile, archive: Path) -> None:
    """Reject an archive that would write outside the folder it is unpacked in."""
    for member in opened.namelist():
        path = PurePosixPath(member.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in member:
            raise UserError(
                f"the archive {archive.name} is not safe: its member {member!r} points outside; nothing was unpacked"
            )
