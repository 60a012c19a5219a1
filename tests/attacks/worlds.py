"""Small files of a user's own: ratings, a ready split, labels, pairs, new users, and a folder like MovieLens."""

import random
from pathlib import Path

USERS, ITEMS, ROWS_EACH = 30, 40, 14
OWN_FILES = {
    "ratings": ["--ratings", "my.csv"],
    "split": ["--train_ratings", "train.csv", "--test_ratings", "test.csv"],
    "labels": ["--model", "mmoe", "--feedback", "labels.csv", "--labels", "click,save"],
    "dyads": ["--model", "dyadic", "--feedback", "labels.csv", "--labels", "click,save,buy"],
    "tabs": ["--ratings", "my.tsv"],
    "colons": ["--ratings", "my.dat"],
    "movielens": ["--dataset", "ml-100k", "--data_dir", "."],
    "movielens dyads": ["--model", "dyadic", "--dataset", "ml-100k", "--data_dir", ".", "--split", "time67"],
}
SMALL = ["--device", "cpu", "--epochs", 1, "--embedding_dim", 4]
SMALL_DYADS = ["--min_user", 3, "--min_item", 3, "--iterations", 200]


def line(source: str) -> list:
    """The command line of a run on one of OWN_FILES."""
    given = OWN_FILES[source]
    return [*given, *SMALL, *(SMALL_DYADS if "dyadic" in given else [])]


def write_files(folder: Path) -> None:
    """All files that OWN_FILES names, and pairs.csv and new.csv for questions."""
    draw = random.Random(0)
    pairs = [
        (user, item) for user in range(1, USERS + 1) for item in sorted(draw.sample(range(1, ITEMS + 1), ROWS_EACH))
    ]
    rated = [(user, item, draw.randint(1, 5), 880_000_000 + draw.randrange(10**6)) for user, item in pairs]
    labels = []
    for user, item in pairs:
        click = int(draw.random() < 0.6)
        save = click * int(draw.random() < 0.5)
        labels.append((user, item, click, save, save * int(draw.random() < 0.5)))
    header = ("user", "item", "rating", "timestamp")
    _write(folder / "my.csv", ",", [header, *rated])
    _write(folder / "my.tsv", "\t", [header, *rated])
    _write(folder / "my.dat", "::", rated)
    _write(folder / "train.csv", ",", [header, *(row for place, row in enumerate(rated) if place % 5)])
    _write(folder / "test.csv", ",", [header, *rated[::5]])
    _write(folder / "labels.csv", ",", [("user", "item", "click", "save", "buy"), *labels])
    _write(folder / "pairs.csv", ",", [("user", "item"), *pairs[:20]])
    _write(folder / "new.csv", ",", [header[:3], *((f"new{user}", item, value) for user, item, value, _ in rated[:40])])
    _write_movielens(folder / "ml-100k", rated, draw)


def _write_movielens(folder: Path, rated: list, draw: random.Random) -> None:
    folder.mkdir()
    _write(folder / "u.data", "\t", rated)
    genres = [f"Genre{number}" for number in range(19)]
    _write(folder / "u.genre", "|", [(name, number) for number, name in enumerate(genres)])
    films = [(n, f"Film {n} (1990)", "01-Jan-1990", "", "http://x", *(draw.randint(0, 1) for _ in genres))
             for n in range(1, ITEMS + 1)]  # fmt: skip
    _write(folder / "u.item", "|", films)


def _write(path: Path, separator: str, rows: list) -> None:
    path.write_text("".join(separator.join(map(str, row)) + "\n" for row in rows))
