"""The data sets by name: contents, size, rating scale and checksum of each.

This is the only list of data sets. It imports only the standard library, because the help of main.py reads the names
before the requirements are installed.

MovieLens belongs to GroupLens, University of Minnesota (F. Maxwell Harper and Joseph A. Konstan 2015, The MovieLens
Datasets: History and Context).
"""

from dataclasses import dataclass
from pathlib import Path

from config.base import RunConfig

SIMULATED_SIZE = RunConfig.simulated_size  # users, items and ratings of MovieLens 100K
WHOLE_STARS, HALF_STARS = (1.0, 5.0), (0.5, 5.0)


@dataclass(frozen=True)
class Source:
    """A MovieLens data set as GroupLens publishes it.

    title: its name in prose.
    folder, ratings, movies: the folder in its archive, and the names of two files in it.
    scale: lowest and highest rating.
    num_ratings, num_users, num_items: as published; None if the set changes from time to time.
    sha256: of the ratings file, if known.
    root: the folder that holds `folder` on this machine; set by `download.fetch`.
    """

    title: str
    folder: str
    ratings: str
    movies: str
    scale: tuple[float, float]
    num_ratings: int | None = None
    num_users: int | None = None
    num_items: int | None = None
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

    @property
    def description(self) -> str:
        """Its contents in one line."""
        scale = f"on a scale of {self.scale[0]:g} to {self.scale[1]:g}"
        if self.num_ratings is None:
            return f"{self.title}: about 100,000 recent ratings {scale}; changes from time to time"
        return f"{self.title}: {_size(self.num_users, self.num_items, self.num_ratings)} {scale}"


def _size(num_users: int, num_items: int, num_ratings: int) -> str:
    return f"{num_users:,} users, {num_items:,} items and {num_ratings:,} ratings"


MOVIELENS = {
    "ml-100k": Source(
        "MovieLens 100K", "ml-100k", "u.data", "u.item", WHOLE_STARS, 100_000, 943, 1_682,
        sha256="06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490",
    ),
    "ml-latest-small": Source(
        "MovieLens Latest Small", "ml-latest-small", "ratings.csv", "movies.csv", HALF_STARS,
    ),
    "ml-1m": Source(
        "MovieLens 1M", "ml-1m", "ratings.dat", "movies.dat", WHOLE_STARS, 1_000_209, 6_040, 3_706,
    ),
    "ml-10m": Source(
        "MovieLens 10M", "ml-10M100K", "ratings.dat", "movies.dat", HALF_STARS, 10_000_054, 69_878, 10_677,
    ),
    "ml-20m": Source(
        "MovieLens 20M", "ml-20m", "ratings.csv", "movies.csv", HALF_STARS, 20_000_263, 138_493, 26_744,
    ),
    "ml-25m": Source(
        "MovieLens 25M", "ml-25m", "ratings.csv", "movies.csv", HALF_STARS, 25_000_095, 162_541, 59_047,
    ),
    "ml-32m": Source(
        "MovieLens 32M", "ml-32m", "ratings.csv", "movies.csv", HALF_STARS, 32_000_204, 200_948, 84_432,
    ),
}  # fmt: skip

# The contents of each data set, by the names that --dataset accepts.
DESCRIPTIONS = {
    "auto": "MovieLens 100K if it is on disk or can be downloaded, otherwise the simulated set",
    **{name: source.description for name, source in MOVIELENS.items()},
    "simulated": f"made up by the program, {_size(*SIMULATED_SIZE)} unless --simulated_size sets another size",
    "simulated-xing": "made up by the program: clicks, bookmarks and replies of a job platform, for --model dyadic",
}
DATASETS = tuple(DESCRIPTIONS)
