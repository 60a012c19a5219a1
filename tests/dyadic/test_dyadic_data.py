"""Dyads from ratings and from tables: mappings, filter, splits, context, and data that are refused."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from config.dyadic import MAPPINGS, DyadOptions, LearnerOptions
from config.errors import UserError
from dyadic.features import add_features
from dyadic.from_ratings import Catalog, Ratings, from_ratings, item_context, map_ratings, movielens_user_context
from dyadic.from_table import Columns, from_table
from dyadic.split import keep_frequent, position_in_group, split_dyads
from dyadic.task import train

RATINGS = np.array([5, 4, 3, 5, 5, 5, 5, 1], dtype=float)
RATERS = np.array([0, 0, 0, 0, 1, 1, 1, 2])
IN_TRAIN = np.array([1, 2, 4, 5])  # means: user 0 3.5, user 1 5; user 2 has none and gets the overall mean 4.25


def ratings_world(catalog=None, num_users: int = 40, num_items: int = 50, **options):
    """Dyads of random ratings; `catalog` holds further fields of Catalog."""
    random = np.random.default_rng(0)
    cells = np.argwhere(random.random((num_users, num_items)) < 0.6)
    ratings = random.integers(1, 6, size=len(cells))
    names = np.arange(num_users).astype(str), np.array([f"i{item}" for item in range(num_items)])
    options = {"min_user": 5, "min_item": 5} | options
    return from_ratings(Ratings(*cells.T, ratings), Catalog("made up", *names, **catalog or {}), DyadOptions(**options))


def test_mapping_n_nests_the_labels():
    mapped = map_ratings(RATINGS, RATERS, IN_TRAIN, "N")
    assert mapped[:, 0].tolist() == [1, 1, 0, 1, 1, 1, 1, 0]
    assert mapped[:, 1].tolist() == [
        1,
        0,
        0,
        1,
        0,
        0,
        0,
        0,
    ]  # user 1 rates nothing above the mean of 5
    assert mapped[:, 2].tolist() == [1, 0, 0, 1, 1, 1, 1, 0]
    data = ratings_world().labels
    assert (data[:, 1] <= data[:, 2]).all()
    assert (data[:, 2] <= data[:, 0]).all()


def test_under_mapping_p_a_bookmark_need_not_be_clicked():
    mapped = map_ratings(RATINGS, RATERS, IN_TRAIN, "P")
    assert mapped[:, 0].tolist() == [1, 1, 0, 1, 0, 0, 0, 0]
    assert mapped[:, 1].tolist() == [1, 0, 0, 1, 1, 1, 1, 0]
    assert mapped[:, 2].tolist() == [1, 0, 0, 1, 0, 0, 0, 0]


def test_labels_do_not_depend_on_other_test_ratings():
    other = RATINGS.copy()
    other[[0, 3]] = 1
    for mapping in MAPPINGS:
        before = map_ratings(RATINGS, RATERS, IN_TRAIN, mapping)
        after = map_ratings(other, RATERS, IN_TRAIN, mapping)
        assert (before[[1, 2, 4, 5, 6, 7]] == after[[1, 2, 4, 5, 6, 7]]).all()


def test_im_is_the_weighted_sum_of_the_labels():
    data = ratings_world()
    assert (data.im == data.labels[:, 0] + 2 * data.labels[:, 1] + 3 * data.labels[:, 2]).all()
    assert set(data.im) <= {0, 1, 4, 6}


def test_the_filter_runs_once_or_until_nothing_changes():
    # The first pass drops item 2, then user 2, who has one item left. The second drops item 1, which has one user.
    users = np.array([0, 0, 1, 1, 2, 2, 0])
    items = np.array([0, 3, 0, 3, 1, 2, 1])
    options = DyadOptions(min_user=2, min_item=2, iterate=False)
    once = keep_frequent(users, items, options)
    assert once.tolist() == [True, True, True, True, False, False, True]
    assert keep_frequent(users, items, replace(options, iterate=True)).tolist() == [True] * 4 + [False] * 3
    with pytest.raises(UserError, match="no dyad is left"):
        keep_frequent(users, items, DyadOptions())


def test_the_random_split_covers_all_dyads_once():
    users = np.zeros(1000, dtype=int)
    train_rows, test_rows = split_dyads(users, seed=1)
    assert len(train_rows) == 300
    assert np.array_equal(np.union1d(train_rows, test_rows), np.arange(1000))
    assert not np.array_equal(train_rows, split_dyads(users, seed=2)[0])


def test_the_split_by_time_takes_the_first_two_thirds_of_each_user():
    users = np.array([0, 1, 0, 1, 0, 1, 1])
    times = np.array([9, 1, 2, 4, 5, 3, 2])
    train_rows, test_rows = split_dyads(users, "time67", times)
    assert train_rows.tolist() == [1, 2, 4, 5, 6]
    assert test_rows.tolist() == [0, 3]
    with pytest.raises(UserError, match="needs a time for every dyad"):
        split_dyads(users, "time67")
    with pytest.raises(UserError, match="unknown split"):
        split_dyads(users, "half")
    with pytest.raises(UserError, match="too few"):
        split_dyads(np.array([0]))


def test_positions_count_from_zero_in_each_group():
    assert position_in_group(np.array([3, 0, 2])).tolist() == [0, 1, 2, 0, 1]


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


UNFILTERED = DyadOptions(min_user=1, min_item=1)


def read(table, **columns):
    return from_table(table, "toy.csv", Columns(**columns), UNFILTERED)


def test_a_table_gives_labels_and_context():
    data = read(table(), displayed="displayed", context=("age",))
    assert len(data) == 4  # b, 2 was neither displayed nor acted on
    assert data.notes == ("1 rows of toy.csv were neither displayed nor acted on: left out",)
    assert data.im.tolist() == [1, 0, 2, 4]
    assert data.context.ravel().tolist() == [30, 30, 0, 40]
    assert data.users.tolist() == ["a", "b"]
    assert data.label_names == ("clicked", "bookmarked", "replied")
    renamed = table().rename(columns={"clicked": "seen", "bookmarked": "kept", "replied": "bought"})
    again = read(renamed, labels=("seen", "kept", "bought"))
    assert len(again) == 5
    assert again.task_labels[:, 3].tolist() == again.labels[:, 0].tolist()


def test_wrong_tables_are_refused():
    with pytest.raises(UserError, match="missing: liked"):
        read(table(), labels=("clicked", "liked", "replied"))
    with pytest.raises(UserError, match=r"the dyads of toy\.csv need three label columns, not 2"):
        read(table(), labels=("clicked", "replied"))
    with pytest.raises(UserError, match=r"column replied of toy\.csv must hold 0 and 1"):
        read(table(replied=[0, 0, 0, 0, 2]))
    with pytest.raises(UserError, match="lacks its user or its item"):
        read(table(item=[1, 2, None, 2, 3]))
    with pytest.raises(UserError, match="more than once"):
        read(table(item=[1, 1, 1, 2, 3]))
    with pytest.raises(UserError, match=r"context column age of toy\.csv"):
        read(table(age=list("abcde")), context=("age",))
    with pytest.raises(UserError, match="not finite"):
        read(table(age=[1, 2, 3, 4, np.inf]), context=("age",))


def test_wrong_ratings_are_refused():
    with pytest.raises(UserError, match="--mapping cannot be 'Q'"):
        ratings_world(mapping="Q")
    with pytest.raises(UserError, match="unknown mapping"):
        map_ratings(RATINGS, RATERS, IN_TRAIN, "Q")
    with pytest.raises(UserError, match="at most 5, and one is 10"):
        map_ratings(np.array([10.0]), np.array([0]), np.array([0]), "N")


def test_films_are_described_by_year_and_common_genres():
    context = item_context(["Heat (1995)", "No year", "Alien (1979)"], ["Action|Crime", "", "Action"])
    assert context.shape == (3, 12)
    assert context[:, 0].tolist() == [1995, 1987, 1979]
    assert context[:, 1].tolist() == [1, 0, 1]  # Action, the most frequent
    assert context[:, 2].tolist() == [1, 0, 0]
    assert (item_context(["?"], [""]) == 0).all()


def test_users_are_described_by_the_user_file(tmp_path):
    path = tmp_path / "u.user"
    path.write_text("1|24|M|technician|85711\n2|53|F|other|94043\n3|23|M|writer|V0R2M\n")
    context = movielens_user_context(path, np.array(["3", "2"]))
    assert context.tolist() == [[23, 0, 20, 0], [53, 1, 13, 9]]
    with pytest.raises(UserError, match=r"u\.user does not describe"):
        movielens_user_context(path, np.array(["4"]))
    with pytest.raises(UserError, match="does not describe"):
        movielens_user_context(tmp_path / "none", np.array(["1"]))


def test_context_belongs_to_its_user_and_item():
    users, items = np.arange(40)[:, None] * 1.0, np.arange(50)[:, None] * 1.0
    data = ratings_world({"user_context": users, "item_context": items}, min_user=14, min_item=24, iterate=False)
    assert data.num_users < 40 or data.num_items < 50
    assert data.context[:, 0].tolist() == data.users.astype(float)[data.user_ids].tolist()
    assert data.context[:, 1].tolist() == [float(name[1:]) for name in data.items[data.item_ids]]


def test_an_item_only_in_test_and_a_user_who_clicks_everything():
    data = ratings_world()
    only_test = data.item_ids == 3
    clicks = data.labels.copy()
    clicks[data.user_ids == 5] = 1
    keep = data.train[~only_test[data.train]]
    data = replace(data, labels=clicks, train=keep, test=np.setdiff1d(np.arange(len(data)), keep))
    data = add_features(data, quiet=True)
    assert (data.features[only_test] == 0).all()
    trained = train(data, LearnerOptions(iterations="200", epochs=1), quiet=True)
    assert (trained.model.I[3] == 0).all()
    assert (trained.model.U[5] == 0).all()


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
    catalog = Catalog("ml-100k", movielens.users, movielens.items)
    data = from_ratings(Ratings(*columns), catalog, DyadOptions(mapping="P"))
    assert (len(data), data.num_users, data.num_items) == (86_295, 720, 795)
    assert np.median(np.bincount(data.user_ids)) == 90.5
    assert ((data.labels[:, 0] == 0) & (data.labels[:, 1] == 1)).any()
