"""Small worlds that tests share."""

import os
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

import dataset
import main
from dataset import Data, Interactions
from sources import download

torch.set_num_threads(1)  # these worlds are tiny, and tests run beside each other
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def tiny() -> Data:
    """A simulated world of 60 users, 80 items and 2,400 ratings, with a validation part."""
    return dataset.load("simulated", simulated_size=(60, 80, 2400), test_fraction=0.1, val_fraction=0.1)


@pytest.fixture(scope="session")
def movielens() -> Data:
    """The real MovieLens 100K where MOVIELENS_DIR names its place."""
    folder = os.environ.get("MOVIELENS_DIR", "")
    if not (Path(folder) / "ml-100k" / "u.data").is_file():
        pytest.skip("needs the real MovieLens 100K: set MOVIELENS_DIR to the folder that holds ml-100k/")
    return dataset.load("ml-100k", folder)


def interactions(pairs, num_users: int, num_items: int, ratings=None) -> Interactions:
    """Interactions from a list of (user, item), all rated 3 unless said otherwise."""
    users, items = zip(*pairs, strict=True) if pairs else ((), ())
    ratings = [3.0] * len(pairs) if ratings is None else ratings
    return Interactions(
        torch.tensor(users, dtype=torch.long),
        torch.tensor(items, dtype=torch.long),
        torch.tensor(ratings, dtype=torch.float32),
        num_users,
        num_items,
    )


# user, item, view, like, buy
FEEDBACK = [("a", "x", 1, 1, 0), ("a", "y", 1, 0, 0), ("b", "x", 0, 0, 0), ("b", "z", 1, 1, 1), ("c", "y", 1, 0, 0)]


def feedback_file(path: Path, rows=FEEDBACK) -> str:
    """A file of feedback with these rows: its path."""
    lines = ["user,item,view,like,buy", *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines))
    return str(path)


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    """Every figure that is saved during the test, in order; laid out, but not written."""
    figures: list[Figure] = []

    def keep(figure, *_, **__):
        figure.draw_without_rendering()
        figures.append(figure)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


class Lookup(torch.nn.Module):
    """A model that scores by a table (users, items): predictions and ratings can be written down by hand."""

    def __init__(self, scores, ratings=None) -> None:
        super().__init__()
        self.scores = torch.as_tensor(scores, dtype=torch.float32)
        self.ratings = self.scores if ratings is None else torch.as_tensor(ratings, dtype=torch.float32)

    def forward(self, user_ids, item_ids):
        return self.scores[user_ids, item_ids], self.ratings[user_ids, item_ids]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> Path:
    """A folder of the test's own to work in, without real data and without a network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MOVIELENS_DIR", raising=False)
    monkeypatch.setattr(download, "ADDRESS", "http://127.0.0.1:9")
    return tmp_path


def run(*arguments) -> int:
    """main.py with these arguments: its exit code."""
    return main.main([*map(str, arguments)])


def refused(capsys, *arguments) -> str:
    """Run a command that must be refused: the sentence it is refused with."""
    try:
        code = run(*arguments)
    except SystemExit as exit:
        code = exit.code
    message = capsys.readouterr().err
    assert code == 2
    assert message.startswith("main.py: error: ")
    assert message.count("\n") == 1
    return message
