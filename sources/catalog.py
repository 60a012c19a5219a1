"""The data sets by name: contents, size, rating scale and checksum of each.

This is the only list of data sets. It imports only the standard library, because the help of main.py reads the names
before the requirements are installed.

MovieLens belongs to GroupLens, University of Minnesota (F. Maxwell Harper and Joseph A. Konstan 2015, The MovieLens
Datasets: History and Context).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from config.base import RunConfig

SIMULATED_SIZE = RunConfig.simulated_size  # users, items and ratings of MovieLens 100K
WHOLE_STARS, HALF_STARS = (1.0, 5.0), (0.5, 5.0)
# The sha256 of the files of MovieLens 100K that the program reads beside u.data, and of the license.
ML_100K = {
    "README": "d5f41f88d1a96b8faefed3c2f51fce1fca3be1ba6ab0d06e346898ffae920de9",
    "u.genre": "9757e0d3e6b298159a80dd48eaf938114690e911e39af97a76949ef1663610bb",
    "u.item": "553841ebc7de3a0fd0d6b62a204ea30c1e651aacfb2814c7a6584ac52f2c5701",
    "u.user": "f120e114da2e8cf314fd28f99417c94ae9ddf1cb6db8ce0e4b5995d40e90e62c",
    "u1.base": "ce253ec86c448b44fb3ba9a30d12dcfc2e9210cbde71efada3730c22e9ac212a",
    "u1.test": "18c6014a4b2c7324f250a63f8904a7b16b2b19f911129e346141507b0cbac950",
    "u2.base": "6c06f0b5df4b256da1a994f3ac66edc8da4d3f09bc9282df6b14d893366d703e",
    "u2.test": "4de658d1e04ed9104629509a2e2528fce833ac8e048280183f1df167632038c3",
    "u3.base": "afdc155c291c6edc41c0407e39d7462eb98d341e064f0b0a12175b80b3c4af5d",
    "u3.test": "0f548b51c78327de4c156461d3e430b7e5579fe2b5681586a59416e48fd35f6d",
    "u4.base": "219f0f4d40dfe9c5141d425f53fa91ee23ed275f14e280bbf1b50117afb064ca",
    "u4.test": "7c02ad0a1e7ab1083c8b9d4b627203a051dd7b5eab46d99fa44de33470de8db9",
    "u5.base": "a9574e59ce961eec2121627760b6e9b0974ce1637b3fe69ac32cb14a4bfab485",
    "u5.test": "351cc52e0d15b6c721466276fc24671d40936899e3d01fadeaf312915b8c5634",
}


@dataclass(frozen=True)
class Source:
    """A MovieLens data set as GroupLens publishes it.

    title: its name in prose.
    folder, ratings, movies: the folder in its archive, and the names of two files in it.
    scale: lowest and highest rating.
    num_ratings, num_users, num_items: as published; None if the set changes from time to time.
    sha256: of the ratings file, if known.
    num_movies: lines of the movies file, if known.
    digests: {further file that is unpacked: its sha256}.
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
    num_movies: int | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    root: Path = Path()

    @property
    def ratings_file(self) -> Path:
        return self.root / self.folder / self.ratings

    @property
    def movies_file(self) -> Path:
        return self.root / self.folder / self.movies

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
        num_movies=1_682, digests=ML_100K,
    ),
    "ml-latest-small": Source(
        "MovieLens Latest Small", "ml-latest-small", "ratings.csv", "movies.csv", HALF_STARS,
    ),
    "ml-1m": Source(
        "MovieLens 1M", "ml-1m", "ratings.dat", "movies.dat", WHOLE_STARS, 1_000_209, 6_040, 3_706,
        num_movies=3_883,
    ),
    "ml-10m": Source(
        "MovieLens 10M", "ml-10M100K", "ratings.dat", "movies.dat", HALF_STARS, 10_000_054, 69_878, 10_677,
        num_movies=10_681,
    ),
    "ml-20m": Source(
        "MovieLens 20M", "ml-20m", "ratings.csv", "movies.csv", HALF_STARS, 20_000_263, 138_493, 26_744,
        num_movies=27_278,
    ),
    "ml-25m": Source(
        "MovieLens 25M", "ml-25m", "ratings.csv", "movies.csv", HALF_STARS, 25_000_095, 162_541, 59_047,
        num_movies=62_423,
    ),
    "ml-32m": Source(
        "MovieLens 32M", "ml-32m", "ratings.csv", "movies.csv", HALF_STARS, 32_000_204, 200_948, 84_432,
        num_movies=87_585,
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
