"""From ratings or label columns to dyads: mappings, filter, splits, context, and what is refused."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from dyadic.learner import train

from config.dyadic import LearnerOptions
from config.errors import UserError
from dyadic import data as labels
from dyadic.features import add_features

RATINGS = np.array([5, 4, 3, 5, 5, 5, 5, 1], dtype=float)
RATERS = np.array([0, 0, 0, 0, 1, 1, 1, 2])
IN_TRAIN = np.array([1, 2, 4, 5])  # means: user 0 3.5, user 1 5, user 2 has none: 4.25 overall


def ratings_world(seed: int = 0, num_users: int = 40, num_items: int = 50, **options):
    random = np.random.default_rng(seed)
    cells = np.argwhere(random.random((num_users, num_items)) < 0.6)
    ratings = random.integers(1, 6, size=len(cells))
    names = np.arange(num_users).astype(str), np.array([f"i{item}" for item in range(num_items)])
    options = {"min_user": 5, "min_item": 5} | options
    return labels.from_ratings(*cells.T, ratings, *names, name="made up", **options)


def test_mapping_n_nests_the_labels():
    mapped = labels.map_ratings(RATINGS, RATERS, IN_TRAIN, "N")
    assert mapped[:, 0].tolist() == [1, 1, 0, 1, 1, 1, 1, 0]
    assert mapped[:, 1].tolist() == [1, 0, 0, 1, 0, 0, 0, 0]  # 5 - 3.5 for user 0, nothing above user 1's mean
    assert mapped[:, 2].tolist() == [1, 0, 0, 1, 1, 1, 1, 0]
    data = ratings_world().labels
    assert (data[:, 1] <= data[:, 2]).all()
    assert (data[:, 2] <= data[:, 0]).all()


def test_mapping_p_can_bookmark_what_is_not_clicked():
    mapped = labels.map_ratings(RATINGS, RATERS, IN_TRAIN, "P")
    assert mapped[:, 0].tolist() == [1, 1, 0, 1, 0, 0, 0, 0]
    assert mapped[:, 1].tolist() == [1, 0, 0, 1, 1, 1, 1, 0]
    assert mapped[:, 2].tolist() == [1, 0, 0, 1, 0, 0, 0, 0]


def test_labels_do_not_depend_on_other_test_ratings():
    other = RATINGS.copy()
    other[[0, 3]] = 1
    for mapping in labels.MAPPINGS:
        before = labels.map_ratings(RATINGS, RATERS, IN_TRAIN, mapping)
        after = labels.map_ratings(other, RATERS, IN_TRAIN, mapping)
        assert (before[[1, 2, 4, 5, 6, 7]] == after[[1, 2, 4, 5, 6, 7]]).all()


def test_im_weighs_each_kind_once():
    data = ratings_world()
    assert (data.im == data.labels[:, 0] + 2 * data.labels[:, 1] + 3 * data.labels[:, 2]).all()
    assert set(data.im) <= {0, 1, 4, 6}


def test_the_filter_passes_once_or_until_it_holds():
    # Item 2 falls first; that takes user 2 below two items, and then item 1 below two users.
    users = np.array([0, 0, 1, 1, 2, 2, 0])
    items = np.array([0, 3, 0, 3, 1, 2, 1])
    once = labels.keep_frequent(users, items, 2, 2)
    assert once.tolist() == [True, True, True, True, False, False, True]
    assert labels.keep_frequent(users, items, 2, 2, iterate=True).tolist() == [True] * 4 + [False] * 3
    with pytest.raises(UserError, match="no dyad is left"):
        labels.keep_frequent(users, items, 30, 30)


def test_the_random_split_covers_all_dyads_once():
    users = np.zeros(1000, dtype=int)
    train_rows, test_rows = labels.split_dyads(users, seed=1)
    assert len(train_rows) == 300
    assert np.array_equal(np.union1d(train_rows, test_rows), np.arange(1000))
    assert not np.array_equal(train_rows, labels.split_dyads(users, seed=2)[0])


def test_the_split_by_time_takes_the_first_two_thirds_of_each_user():
    users = np.array([0, 1, 0, 1, 0, 1, 1])
    times = np.array([9, 1, 2, 4, 5, 3, 2])
    train_rows, test_rows = labels.split_dyads(users, "time67", times)
    assert train_rows.tolist() == [1, 2, 4, 5, 6]
    assert test_rows.tolist() == [0, 3]
    with pytest.raises(UserError, match="needs a time"):
        labels.split_dyads(users, "time67")
    with pytest.raises(UserError, match="unknown split"):
        labels.split_dyads(users, "half")
    with pytest.raises(UserError, match="too few"):
        labels.split_dyads(np.array([0]))


def table(**columns) -> pd.DataFrame:
    base = {
        "user": ["a", "a", "b", "b", "b"],
        "item": [1, 2, 1, 2, 3],
        "clicked": [1, 0, 0, 0, 1],
        "bookmarked": [0, 0, 1, 0, 0],
        "replied": [0, 0, 0, 0, 1],
        "displayed": [1, 1, 0, 0, 1],
        "age": [30, 30, np.nan, 40, 40],
    }
    return pd.DataFrame(base | columns)


ALL = {"name": "toy.csv", "min_user": 1, "min_item": 1}


def test_label_columns_and_context():
    data = labels.from_table(table(), displayed="displayed", context=["age"], **ALL)
    assert len(data) == 4  # b, 2 was neither displayed nor acted on
    assert data.notes == ("1 rows of toy.csv were neither displayed nor acted on: left out",)
    assert data.im.tolist() == [1, 0, 2, 4]
    assert data.context.ravel().tolist() == [30, 30, 0, 40]
    assert data.users.tolist() == ["a", "b"]
    assert data.label_names == ("clicked", "bookmarked", "replied")
    renamed = table().rename(columns={"clicked": "seen", "bookmarked": "kept", "replied": "bought"})
    again = labels.from_table(renamed, labels=("seen", "kept", "bought"), **ALL)
    assert len(again) == 5
    assert again.task_labels[:, 3].tolist() == again.labels[:, 0].tolist()


def test_wrong_tables_are_refused():
    with pytest.raises(UserError, match="missing: liked"):
        labels.from_table(table(), labels=("clicked", "liked", "replied"), **ALL)
    with pytest.raises(UserError, match=r"column replied of toy\.csv must hold 0 and 1"):
        labels.from_table(table(replied=[0, 0, 0, 0, 2]), **ALL)
    with pytest.raises(UserError, match="lacks its user or its item"):
        labels.from_table(table(item=[1, 2, None, 2, 3]), **ALL)
    with pytest.raises(UserError, match="more than once"):
        labels.from_table(table(item=[1, 1, 1, 2, 3]), **ALL)
    with pytest.raises(UserError, match=r"context column age of toy\.csv"):
        labels.from_table(table(age=list("abcde")), context=["age"], **ALL)
    with pytest.raises(UserError, match="not finite"):
        labels.from_table(table(age=[1, 2, 3, 4, np.inf]), context=["age"], **ALL)


def test_wrong_ratings_are_refused():
    with pytest.raises(UserError, match="unknown mapping"):
        ratings_world(mapping="Q")
    with pytest.raises(UserError, match="at most 5, not 10"):
        labels.map_ratings(np.array([10.0]), np.array([0]), np.array([0]), "N")


def test_films_are_described_by_year_and_common_genres():
    context = labels.item_context(["Heat (1995)", "No year", "Alien (1979)"], ["Action|Crime", "", "Action"])
    assert context.shape == (3, 12)
    assert context[:, 0].tolist() == [1995, 1987, 1979]
    assert context[:, 1].tolist() == [1, 0, 1]  # Action, the most frequent
    assert context[:, 2].tolist() == [1, 0, 0]
    assert (labels.item_context(["?"], [""]) == 0).all()


def test_users_are_described_by_the_catalogue(tmp_path):
    path = tmp_path / "u.user"
    path.write_text("1|24|M|technician|85711\n2|53|F|other|94043\n3|23|M|writer|V0R2M\n")
    context = labels.movielens_user_context(path, np.array(["3", "2"]))
    assert context.tolist() == [[23, 0, 20, 0], [53, 1, 13, 9]]
    with pytest.raises(UserError, match=r"u\.user does not describe"):
        labels.movielens_user_context(path, np.array(["4"]))
    with pytest.raises(UserError, match="does not describe"):
        labels.movielens_user_context(tmp_path / "none", np.array(["1"]))


def test_context_follows_its_user_and_item():
    users, items = np.arange(40)[:, None] * 1.0, np.arange(50)[:, None] * 1.0
    data = ratings_world(user_context=users, item_context=items, min_user=14, min_item=24, iterate=False)
    assert data.num_users < 40 or data.num_items < 50
    assert data.context[:, 0].tolist() == data.users.astype(float)[data.user_ids].tolist()
    assert data.context[:, 1].tolist() == [float(name[1:]) for name in data.items[data.item_ids]]


def test_an_item_known_to_the_test_part_alone_and_a_user_who_clicks_everything():
    data = ratings_world()
    alone = data.item_ids == 3
    clicks = data.labels.copy()
    clicks[data.user_ids == 5] = 1
    keep = data.train[~alone[data.train]]
    data = replace(data, labels=clicks, train=keep, test=np.setdiff1d(np.arange(len(data)), keep))
    data = add_features(data, quiet=True)
    assert (data.features[alone] == 0).all()
    trained = train(data, LearnerOptions(iterations="200", epochs=1), quiet=True)
    assert (trained.net.I[3] == 0).all()
    assert (trained.net.U[5] == 0).all()


def test_wrong_data_are_refused():
    data = ratings_world()
    with pytest.raises(ValueError, match="labels must be"):
        replace(data, labels=data.labels * 2)
    with pytest.raises(ValueError, match="must not share"):
        replace(data, test=data.train)
    with pytest.raises(ValueError, match="context has 3 rows"):
        replace(data, context=np.zeros((3, 1)))


def test_movielens_has_the_known_shape(movielens):
    rows = movielens.seen + movielens.test
    columns = (column.numpy() for column in (rows.user_ids, rows.item_ids, rows.ratings))
    data = labels.from_ratings(*columns, movielens.users, movielens.items, name="ml-100k", mapping="P")
    assert (len(data), data.num_users, data.num_items) == (86_295, 720, 795)
    assert np.median(np.bincount(data.user_ids)) == 90.5
    assert ((data.labels[:, 0] == 0) & (data.labels[:, 1] == 1)).any()
