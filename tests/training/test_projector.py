"""The columns by which PROJECTOR colors and labels the items."""

from dataclasses import replace

import numpy as np
import torch
from conftest import feedback_file, interactions

import dataset
from dataset import Data
from training.projector import MAX_WIDTH, item_columns, narrowed

MOST_TEXTS = 50  # TensorBoard colors by no column with more, unless all of them are numbers
TITLES = [
    "Toy Story (1995)",
    "2001: A Space Odyssey (1968)",
    "Land Before Time, The (1995) (V)",
    "The Office (2005-2013)",
]


def films(titles=TITLES, genres=("Animation|Children's", "Sci-Fi", "", "Comedy")) -> Data:
    """Four items; the last has no training row."""
    train = interactions([(0, 0), (1, 0), (0, 1), (1, 2)], 2, 4, ratings=[5, 4, 2, 3])
    test = interactions([(1, 3)], 2, 4, ratings=[1])
    users, items = np.array(["7", "8"], dtype=object), np.array(["10", "20", "30", "40"], dtype=object)
    return Data("films", users, items, list(titles), list(genres), (1.0, 5.0), train, test)


def test_columns_are_those_of_the_catalog_and_the_training_part():
    assert item_columns(films()) == {
        "id": ["10", "20", "30", "40"],
        "title": TITLES,
        "first genre": ["Animation", "Sci-Fi", "unknown", "Comedy"],
        "year": ["1995", "1968", "1995", "2005"],
        "ratings": ["2", "1", "1", "0"],
        "mean rating": ["4.500", "2.000", "3.000", ""],
    }


def test_what_the_data_lack_is_no_column():
    bare = films(titles=["10", "20", "30", "40"], genres=[""] * 4)
    assert list(item_columns(bare)) == ["id", "ratings", "mean rating"]
    assert list(item_columns(replace(bare, titles=TITLES))) == ["id", "title", "year", "ratings", "mean rating"]


def test_a_title_without_a_year_leaves_its_cell_empty_and_the_column_numeric():
    columns = item_columns(films(titles=["unknown", *TITLES[1:]]))
    assert columns["year"] == ["", "1968", "1995", "2005"]


def test_no_text_breaks_the_table():
    columns = item_columns(films(titles=["a\tb (1990)", "two\nlines", "", " "]))
    assert columns["title"] == ["a b (1990)", "two lines", "-", "-"]


def test_feedback_has_the_mean_of_each_label(tmp_path):
    data = dataset.load(feedback=feedback_file(tmp_path / "f.csv"), labels=("view", "like"), test_fraction=0.2)
    data = replace(data, train=data.interactions)
    columns = item_columns(data)
    assert list(columns) == ["id", "rows", "mean view", "mean like"]
    by_item = dict(zip(columns["id"], zip(*list(columns.values())[1:], strict=True), strict=True))
    assert by_item == {"x": ("2", "0.500", "0.500"), "y": ("2", "1.000", "0.000"), "z": ("1", "1.000", "1.000")}


def test_a_block_at_a_time_gives_the_same_means(tiny, monkeypatch):
    whole = item_columns(tiny)
    monkeypatch.setattr("training.projector.CHUNK_ROWS", 100)
    assert item_columns(tiny) == whole


def test_movielens_can_be_colored_by_every_column_but_the_title(movielens):
    columns = item_columns(movielens)
    assert 10 < len(set(columns["first genre"])) <= MOST_TEXTS
    for name in ("year", "ratings", "mean rating"):
        numbers = [float(text) for text in columns[name] if text]
        assert len(numbers) > 0.95 * len(movielens.items)
    assert {len(text) for text in columns["year"]} <= {0, 4}
    star_wars = columns["title"].index("Star Wars (1977)")
    assert (columns["year"][star_wars], columns["first genre"][star_wars]) == ("1977", "Action")
    assert sum(map(int, columns["ratings"])) == len(movielens.train)


def test_a_wide_item_table_is_drawn_in_its_principal_components():
    table = torch.randn(300, 20) @ torch.randn(20, 400) + 5
    drawn = narrowed(table)
    assert drawn.shape == (300, MAX_WIDTH)
    distances = [(one.double().unsqueeze(1) - one.double()).norm(dim=2) for one in (drawn, table)]
    torch.testing.assert_close(*distances, rtol=1e-4, atol=1e-2)
    assert torch.equal(narrowed(table[:, :MAX_WIDTH]), table[:, :MAX_WIDTH])
