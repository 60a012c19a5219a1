"""Fetching MovieLens: find it on disk, or download, verify and unpack it.

The data sets belong to GroupLens, University of Minnesota (F. Maxwell Harper and Joseph A. Konstan 2015, The MovieLens
Datasets: History and Context). Their licence forbids passing them on, so each user downloads their own copy.
"""

import hashlib
import http.client
import os
import shutil
import sys
import tempfile
import urllib.request
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from config.errors import UserError

ADDRESS = "https://files.grouplens.org/datasets/movielens"
PATIENCE = 5  # seconds without an answer until the network counts as absent


@dataclass(frozen=True)
class Source:
    """Where a MovieLens data set keeps what: names inside its archive, rating scale, and what its ratings must be.

    rows: the number of ratings that GroupLens states; None where the set changes from time to time.
    sha256: of the ratings file, where known.
    """

    folder: str
    ratings: str
    movies: str
    scale: tuple[float, float]
    rows: int | None = None
    sha256: str | None = None
    root: Path = Path()

    @property
    def ratings_file(self) -> Path:
        return self.root / self.folder / self.ratings

    @property
    def movies_file(self) -> Path:
        return self.root / self.folder / self.movies

    @property
    def header_lines(self) -> int:
        return 1 if self.ratings.endswith(".csv") else 0


WHOLE_STARS, HALF_STARS = (1.0, 5.0), (0.5, 5.0)
MOVIELENS = {
    "ml-100k": Source(
        "ml-100k",
        "u.data",
        "u.item",
        WHOLE_STARS,
        100_000,
        "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490",
    ),
    "ml-latest-small": Source("ml-latest-small", "ratings.csv", "movies.csv", HALF_STARS),
    "ml-1m": Source("ml-1m", "ratings.dat", "movies.dat", WHOLE_STARS, 1_000_209),
    "ml-10m": Source("ml-10M100K", "ratings.dat", "movies.dat", HALF_STARS, 10_000_054),
    "ml-20m": Source("ml-20m", "ratings.csv", "movies.csv", HALF_STARS, 20_000_263),
    "ml-25m": Source("ml-25m", "ratings.csv", "movies.csv", HALF_STARS, 25_000_095),
    "ml-32m": Source("ml-32m", "ratings.csv", "movies.csv", HALF_STARS, 32_000_204),
}


class Unreachable(UserError):
    """The data set is not on disk and its server does not answer. `cause` says how."""

    def __init__(self, message: str, cause: str) -> None:
        super().__init__(message)
        self.cause = cause


def fetch(name: str, data_dir: Path) -> Source:
    """Say where the files of a data set lie, after downloading them if they are not in `data_dir`.

    An unpacked copy in `data_dir` is used as it is, and so is an archive that somebody put there.

    Raises:
        Unreachable: nothing there, and no answer from the server.
        UserError: the archive is truncated, is not what GroupLens published, or would write outside `data_dir`.
    """
    source = MOVIELENS[name]
    source = Source(**{**vars(source), "root": data_dir})
    if source.ratings_file.is_file():
        return source
    archive = data_dir / f"{name}.zip"
    if archive.is_file():
        try:
            _unpack(archive, source)
        except OSError as error:
            raise UserError(
                f"{archive} cannot be unpacked in {data_dir} ({error.strerror}); unpack it elsewhere and name "
                "that place with --data_dir"
            ) from None
        return source
    try:
        response = urllib.request.urlopen(f"{ADDRESS}/{name}.zip", timeout=PATIENCE)
    except (OSError, http.client.HTTPException) as error:
        cause = " ".join(str(getattr(error, "reason", error)).split())
        raise Unreachable(
            f"{name} is not in {data_dir} and {ADDRESS} cannot be reached ({cause}); put the unpacked folder "
            f"{source.folder} there, name its place with --data_dir, or use --dataset simulated",
            cause,
        ) from None
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with response, tempfile.NamedTemporaryFile(dir=data_dir, prefix=f".{name}-", suffix=".zip") as part:
            _copy(response, part, name)
            part.flush()
            _unpack(Path(part.name), source)
    except (http.client.HTTPException, TimeoutError, ConnectionError, ValueError) as error:
        raise UserError(
            f"the download of {name} broke off ({error!r}); nothing was kept, run the command again"
        ) from None
    except OSError as error:
        raise UserError(
            f"{data_dir} cannot take {name} ({error.strerror}); name another place with --data_dir"
        ) from None
    return source


def _copy(response, file, name: str) -> None:
    total = int(response.headers.get("Content-Length") or 0)
    hidden = not sys.stderr.isatty()
    if hidden:
        print(f"downloading {name} from {ADDRESS} ({total / 1e6:.0f} MB)", file=sys.stderr, flush=True)
    copied = 0
    with tqdm(total=total or None, unit="B", unit_scale=True, desc=f"downloading {name}", disable=hidden) as bar:
        while chunk := response.read(2**18):
            file.write(chunk)
            copied += len(chunk)
            bar.update(len(chunk))
    if copied < total:
        raise UserError(
            f"the download of {name} broke off after {copied:,} of {total:,} bytes; nothing was kept, "
            "run the command again"
        )


def _unpack(archive: Path, source: Source) -> None:
    """Unpack beside the final place, verify, and only then move the folder there."""
    scratch = Path(tempfile.mkdtemp(dir=source.root, prefix=f".{source.folder}-"))
    try:
        with zipfile.ZipFile(archive) as opened:
            _refuse_outsiders(opened, archive)
            opened.extractall(scratch)
        _verify(scratch / source.folder / source.ratings, source)
        os.replace(scratch / source.folder, source.root / source.folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise UserError(
            f"the archive of {source.folder} is damaged ({error}); nothing was unpacked, download it again"
        ) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _refuse_outsiders(opened: zipfile.ZipFile, archive: Path) -> None:
    for member in opened.namelist():
        path = PurePosixPath(member.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in member:
            raise UserError(
                f"the archive {archive.name} is not safe: its member {member!r} points outside; nothing was unpacked"
            )


def _verify(ratings: Path, source: Source) -> None:
    if not ratings.is_file():
        raise UserError(
            f"the archive holds no {source.folder}/{source.ratings}; it is not the data set that GroupLens publishes"
        )
    with ratings.open("rb") as file:
        if source.sha256 and (found := hashlib.file_digest(file, "sha256").hexdigest()) != source.sha256:
            raise UserError(
                f"{source.folder}/{source.ratings} has the sha256 {found}, not {source.sha256}: the archive was "
                "tampered with or is another release; nothing was kept"
            )
        file.seek(0)
        lines = sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(2**20), b"")) - source.header_lines
    if source.rows and lines != source.rows:
        raise UserError(
            f"{source.folder}/{source.ratings} holds {lines:,} ratings, not the {source.rows:,} that GroupLens "
            "publishes; nothing was kept, download it again"
        )
