"""Ids, splits, negatives and the simulated data set."""

import hashlib

import numpy as np
import pytest
import torch
from conftest import FEEDBACK, feedback_file, interactions
from scipy.stats import chisquare

import dataset
from config.errors import UserError
from dataset import Interactions
from sources import simulated
from training.negatives import sample_uniform, sample_unseen


def write(path, text: str):
    path.write_text(text, encoding="utf-8")
    return str(path)


def pairs_of(part: Interactions) -> set[tuple[int, int]]:
    return set(zip(part.user_ids.tolist(), part.item_ids.tolist(), strict=True))


def test_raw_ids_are_recovered_from_row_numbers(tmp_path):
    rows = [("007", "b", 1), ("7", "a", 2), ("007", "a", 3), ("x y", "b", 4), ("7", "b", 5)]
    text = "user,item,rating\n" + "".join(f"{u},{i},{r}\n" for u, i, r in rows)
    data = dataset.load(ratings=write(tmp_path / "r.csv", text), test_fraction=0.2)
    everything = data.train + data.test
    back = zip(everything.user_ids, everything.item_ids, everything.ratings, strict=True)
    assert sorted((data.users[u], data.items[i], int(r)) for u, i, r in back) == sorted(rows)
    assert list(data.users) == ["7", "007", "x y"]


def test_numeric_raw_ids_are_sorted_as_numbers(tmp_path):
    text = "".join(f"{user},{item},3\n" for user in (10, 9, 2) for item in (100, 20))
    data = dataset.load(ratings=write(tmp_path / "r.csv", text), test_fraction=0.2)
    assert list(data.users) == ["2", "9", "10"]
    assert list(data.items) == ["20", "100"]


def test_ready_split_leaves_out_and_counts_test_rows_with_unknown_ids(tmp_path):
    train = write(tmp_path / "a.base", "1\t10\t5\n1\t20\t4\n2\t10\t3\n2\t30\t1\n")
    test = write(tmp_path / "a.test", "1\t30\t2\n9\t10\t3\n2\t77\t4\n9\t78\t4\n1\t10\t5\n")
    data = dataset.load(train_ratings=train, test_ratings=test)
    assert pairs_of(data.test) == {(0, 2)}
    assert len(data.train) == 4
    assert (data.train.num_users, data.train.num_items) == (2, 3)
    assert any("3 rows" in note and "1 users and 2 items" in note for note in data.notes)
    assert any("1 rows" in note and "the same pairs" in note for note in data.notes)


def test_ready_split_can_hold_out_a_validation_part(tmp_path):
    rows = [f"{user},{item},3" for user in range(5) for item in range(6)]
    train = write(tmp_path / "train.csv", "\n".join(rows[:-1]))
    test = write(tmp_path / "test.csv", rows[-1])
    data = dataset.load(train_ratings=train, test_ratings=test, val_fraction=0.25)
    assert (len(data.train), len(data.validation), len(data.test)) == (22, 7, 1)
    assert not pairs_of(data.train) & pairs_of(data.validation)


def test_ready_split_without_any_usable_test_row_is_rejected(tmp_path):
    train = write(tmp_path / "train.csv", "1,1,3\n1,2,3\n2,1,3\n")
    test = write(tmp_path / "test.csv", "8,9,3\n")
    with pytest.raises(UserError, match="left to test"):
        dataset.load(train_ratings=train, test_ratings=test)


def test_a_single_user_or_item_is_rejected(tmp_path):
    for text in ("1,1,3\n1,2,3\n1,3,3\n", "1,1,3\n2,1,3\n3,1,3\n"):
        with pytest.raises(UserError, match="at least 2"):
            dataset.load(ratings=write(tmp_path / "r.csv", text), test_fraction=0.3)


def timed_file(path) -> str:
    """Twelve ratings whose time is their line, in reverse order; user c and item z come last in time."""
    rows = ["c,z,5", "a,z,1", "c,x,4", "b,y,3", "a,w,2", "b,x,2", "a,y,4", "b,w,5", "a,x,1", "b,v,3", "a,v,1", "d,x,3"]
    lines = [f"{row},{12 - place}" for place, row in enumerate(rows)]
    return write(path, "\n".join(["user,item,rating,timestamp", *lines]))


def raw_pairs(data: dataset.Data, name: str) -> list[str]:
    part = getattr(data, name)
    return [f"{data.users[u]}{data.items[i]}" for u, i in zip(part.user_ids, part.item_ids, strict=True)]


def test_a_split_by_time_leaves_out_and_counts_test_rows_with_new_ids(tmp_path):
    data = dataset.load(ratings=timed_file(tmp_path / "r.csv"), split="time", test_fraction=1 / 3)
    assert raw_pairs(data, "train") == ["dx", "av", "bv", "ax", "bw", "ay", "bx", "aw"]
    assert raw_pairs(data, "test") == ["by"]
    assert (list(data.users), list(data.items)) == (["a", "b", "d"], ["v", "w", "x", "y"])
    assert data.titles == list(data.items)
    assert (data.test.num_users, data.test.num_items, data.test.ratings.tolist()) == (3, 4, [3])
    assert data.notes == ("3 of 4 test rows were left out: their user or item has no training row",)


def test_a_split_by_time_may_have_a_validation_part(tmp_path):
    data = dataset.load(ratings=timed_file(tmp_path / "r.csv"), split="time", test_fraction=1 / 3, val_fraction=1 / 4)
    assert raw_pairs(data, "train") == ["dx", "av", "bv", "ax", "bw", "ay"]
    assert raw_pairs(data, "validation") == ["bx", "aw"]
    assert raw_pairs(data, "test") == ["by"]


def test_the_last_rating_of_each_user_is_left_out(tmp_path):
    data = dataset.load(ratings=timed_file(tmp_path / "r.csv"), split="leave_last")
    assert sorted(raw_pairs(data, "test")) == ["by"]  # nobody else has rated z
    assert "dx" in raw_pairs(data, "train")
    assert data.notes == ("2 of 3 test rows were left out: their user or item has no training row",)
    with_validation = dataset.load(ratings=timed_file(tmp_path / "r.csv"), split="leave_last", val_fraction=0.5)
    assert sorted(raw_pairs(with_validation, "validation")) == ["aw", "bx"]


def test_feedback_is_split_by_time_like_ratings(tmp_path):
    ratings = timed_file(tmp_path / "r.csv")
    text = (tmp_path / "r.csv").read_text().replace("rating,timestamp", "buy,when")
    for number in "2345":
        text = text.replace(f",{number},", ",0,")
    shown = write(tmp_path / "f.csv", text)
    for how in ({"split": "time", "test_fraction": 1 / 3}, {"split": "leave_last"}):
        rated = dataset.load(ratings=ratings, **how)
        data = dataset.load(feedback=shown, labels=["buy"], columns={"time": "when"}, **how)
        for name in ("train", "test"):
            assert raw_pairs(data, name) == raw_pairs(rated, name)
            assert data.train.ratings.shape == (len(data.train), 1)


@pytest.mark.parametrize("split", ["random", "time", "leave_last"])
def test_rare_users_and_items_are_left_out_before_the_split(tmp_path, split):
    path = timed_file(tmp_path / "r.csv")
    data = dataset.load(ratings=path, split=split, test_fraction=1 / 3, min_user_ratings=2, min_item_ratings=2)
    assert len(data.train) + len(data.test) == {"random": 11, "time": 8, "leave_last": 9}[split]
    assert list(data.users) == (["a", "b"] if split == "time" else ["a", "b", "c"])
    assert data.notes[0] == "1 of 12 rows were left out, so that users have at least 2 rows and items at least 2"


def test_a_filter_that_changes_nothing_says_nothing(tmp_path):
    path = timed_file(tmp_path / "r.csv")
    plain = dataset.load(ratings=path, test_fraction=0.2)
    filtered = dataset.load(ratings=path, test_fraction=0.2, min_item_ratings=2)
    assert (filtered.fingerprint, filtered.notes) == (plain.fingerprint, ())


def test_a_filter_that_leaves_nothing_is_rejected(tmp_path):
    path = timed_file(tmp_path / "r.csv")
    with pytest.raises(UserError) as error:
        dataset.load(ratings=path, min_user_ratings=9)
    assert str(error.value) == (
        f"no row of {path} is left where users have at least 9 rows and items at least 1: lower --min_user_ratings and "
        "--min_item_ratings"
    )


def test_a_filtered_simulated_set_keeps_its_titles():
    world = {"simulated_size": (50, 60, 1200), "test_fraction": 0.1}
    plain, data = dataset.load("simulated", **world), dataset.load("simulated", min_item_ratings=20, **world)
    title_of = dict(zip(plain.items, zip(plain.titles, plain.genres, strict=True), strict=True))
    assert 2 < len(data.items) < 60
    assert [title_of[item] for item in data.items] == list(zip(data.titles, data.genres, strict=True))


def test_the_simulated_set_has_no_timestamps(tmp_path, elsewhere):
    with pytest.raises(
        UserError, match=r"^the simulated set has no timestamps for --split time: choose --split random$"
    ):
        dataset.load("simulated", split="time")
    with pytest.raises(UserError, match=r"^MovieLens 100K is not in .*, and the simulated set has no timestamps"):
        dataset.load("auto", str(tmp_path), split="leave_last")


def test_the_last_tenth_of_movielens_by_time_is_mostly_new_users(movielens):
    how = {"split": "time", "test_fraction": 0.1}
    data = dataset.load("ml-100k", **how)
    assert data.notes == ("7,200 of 10,000 test rows were left out: their user or item has no training row",)
    assert (len(data.train), len(data.test), len(data.users), len(data.items)) == (90_000, 2_800, 867, 1_637)


def rows_of(data: dataset.Data) -> list[tuple]:
    """Every row, whatever its part, by raw ids."""
    parts = [part for part in (data.train, data.validation, data.test) if part is not None]
    return sorted(
        (data.users[user], data.items[item], *labels)
        for part in parts
        for user, item, labels in zip(part.user_ids, part.item_ids, part.ratings.tolist(), strict=True)
    )


def test_feedback_has_one_column_per_label(tmp_path):
    path = feedback_file(tmp_path / "f.csv")
    data = dataset.load(feedback=path, labels=["view", "like", "buy"], test_fraction=0.2, val_fraction=0.25)
    assert rows_of(data) == sorted(FEEDBACK)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [3, 1, 1]
    assert data.train.ratings.shape == (3, 3)
    assert data.train.ratings.dtype == torch.float32
    assert data.labels == ("view", "like", "buy")
    assert data.rating_scale == (0.0, 1.0)
    assert data.titles == list(data.items) == ["x", "y", "z"]
    assert repr(data) == f"<{path}: 3 users x 3 items; view, like, buy: 3 train, 1 validation, 1 test>"


def test_feedback_is_split_like_ratings(tmp_path):
    pairs = [(user, item) for user in range(10) for item in range(8)]
    rated = write(tmp_path / "r.csv", "\n".join(f"{user},{item},3" for user, item in pairs))
    shown = feedback_file(tmp_path / "f.csv", [(user, item, 1, user % 2, 0) for user, item in pairs])
    how = {"test_fraction": 0.2, "val_fraction": 0.1, "seed": 3}
    ratings = dataset.load(ratings=rated, **how)
    feedback = dataset.load(feedback=shown, labels=("view", "like"), rating_scale=(7, 9), **how)
    for name in ("train", "validation", "test"):
        one, other = getattr(ratings, name), getattr(feedback, name)
        assert torch.equal(one.user_ids, other.user_ids)
        assert torch.equal(one.item_ids, other.item_ids)
        assert torch.equal(other.ratings, torch.stack([torch.ones(len(other)), other.user_ids % 2], dim=1))


@pytest.mark.parametrize(
    "rows", [slice(1, 3), torch.tensor([1, 2]), torch.tensor([False, True, True]), np.array([1, 2])]
)
def test_interactions_with_several_labels_can_be_indexed_concatenated_and_moved(rows):
    labels = [[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]
    whole = interactions([(0, 0), (0, 1), (1, 0)], 2, 2, labels)
    part = whole[rows]
    assert (len(whole), len(part)) == (3, 2)
    assert part.ratings.tolist() == labels[1:]
    assert part.item_ids.tolist() == [1, 0]
    assert (part + whole).ratings.tolist() == labels[1:] + labels
    assert torch.equal(whole.to(torch.device("cpu")).ratings, whole.ratings)


def test_feedback_keeps_its_labels_when_moved(tmp_path):
    data = dataset.load(feedback=feedback_file(tmp_path / "f.csv"), labels=("like", "view"), test_fraction=0.2)
    moved = data.to(torch.device("cpu"))
    assert moved.labels == ("like", "view")
    assert moved.fingerprint == data.fingerprint


def test_the_fingerprint_depends_on_labels_and_their_order(tmp_path):
    rows = [(user, item, 1, 1, 0) for user, item, *_ in FEEDBACK]  # view and like differ by name alone
    shown = feedback_file(tmp_path / "f.csv", rows)
    rated = write(tmp_path / "r.csv", "".join(f"{user},{item},1\n" for user, item, *_ in FEEDBACK))
    orders = [("view", "like"), ("like", "view"), ("view",), ("like",)]
    found = [dataset.load(feedback=shown, labels=labels, test_fraction=0.2).fingerprint for labels in orders]
    found.append(dataset.load(ratings=rated, test_fraction=0.2).fingerprint)
    assert len(set(found)) == 5
    copy = feedback_file(tmp_path / "copy.csv", rows)
    assert dataset.load(feedback=copy, labels=orders[0], test_fraction=0.2).fingerprint == found[0]


def test_the_fingerprint_of_ratings_is_unchanged(tmp_path):
    path = write(tmp_path / "r.csv", "1,10,5\n1,20,4\n2,10,3\n2,30,1\n3,10,2\n")
    fingerprint = dataset.load(ratings=path, test_fraction=0.2).fingerprint
    assert fingerprint == "b31add6c9b0c95cd0159165c4b9065155e4e6947356e8f8331864fa621c34ac2"


def test_the_parts_are_adjacent_in_memory_and_concatenated_without_a_copy(tiny):
    everything = tiny.seen + tiny.test
    for name in ("user_ids", "item_ids", "ratings"):
        parts = [getattr(part, name) for part in (tiny.train, tiny.validation, tiny.test)]
        assert getattr(everything, name).data_ptr() == parts[0].data_ptr()
        assert getattr(everything, name).equal(torch.cat(parts))
        assert getattr(tiny.seen, name).equal(torch.cat(parts[:2]))


@pytest.mark.parametrize("columns", [(), (2,)])
def test_parts_that_are_not_adjacent_are_concatenated_by_copying(columns):
    ids = torch.arange(6)
    whole = Interactions(ids, ids, torch.rand(6, *columns), 6, 6)
    for one, other in [((2, 4), (0, 2)), ((0, 2), (3, 5)), ((0, 3), (2, 4)), ((0, 2), (2, 2)), ((0, 2), (2, 6))]:
        joined = whole[slice(*one)] + whole[slice(*other)]
        rows = [*range(*one), *range(*other)]
        assert joined.user_ids.tolist() == rows
        assert joined.ratings.equal(whole.ratings[rows])


def test_ids_are_int32_and_pair_keys_int64():
    users, items = torch.tensor([70_000, 3, 70_000]), torch.tensor([59_000, 5, 7])
    for dtype in (torch.int32, torch.int64):
        rows = Interactions(users.to(dtype), items.to(dtype), torch.zeros(3), 70_001, 60_000)
        assert rows.pair_keys.tolist() == [180_005, 4_200_000_007, 4_200_059_000]
        assert rows.user_ids.tolist() == users.tolist()
        assert rows.items_by_user.tolist() == [5, 7, 59_000]
        assert rows.items_by_user.dtype == torch.int32
    assert dataset.load("simulated", simulated_size=(50, 60, 1200)).train.user_ids.dtype == torch.int32


def test_the_chunk_size_does_not_change_the_data(monkeypatch):
    size = {"simulated_size": (50, 60, 1200), "val_fraction": 0.1}
    expected = dataset.load("simulated", **size)
    monkeypatch.setattr(dataset, "CHUNK_ROWS", 7)
    assert dataset.load("simulated", **size).fingerprint == expected.fingerprint


def test_interactions_reject_unequal_lengths_and_ids_out_of_range():
    one, two = torch.zeros(1, dtype=torch.long), torch.zeros(2, dtype=torch.long)
    with pytest.raises(ValueError, match="equal lengths"):
        Interactions(one, two, torch.zeros(2), 3, 3)
    with pytest.raises(ValueError, match=r"item_ids must lie in \[0, 3\)"):
        Interactions(one, one + 3, torch.zeros(1), 3, 3)


def test_items_by_user_is_grouped_and_sorted():
    part = interactions([(2, 1), (0, 3), (2, 0), (0, 1)], 4, 5)
    assert part.items_by_user.tolist() == [1, 3, 0, 1]
    assert part.offsets.tolist() == [0, 2, 2, 4, 4]


@pytest.mark.parametrize("rows_sorted", [1, 7, 40, 10**6])
def test_items_by_user_do_not_depend_on_the_chunk_size(rows_sorted, monkeypatch):
    monkeypatch.setattr(dataset, "SORT_CHUNK_ROWS", rows_sorted)
    random = np.random.default_rng(3)
    pairs = [divmod(int(key), 19) for key in random.permutation(12 * 19)[:130]]
    pairs = [(user, item) for user, item in pairs if user not in (0, 5, 6, 11)]  # the first and the last user have none
    found = interactions(pairs, 12, 19)
    assert found.items_by_user.tolist() == [item for _, item in sorted(pairs)]
    assert interactions([], 3, 5).items_by_user.tolist() == []


def test_unseen_negatives_are_unseen_and_uniform():
    seen = interactions([(0, 0), (0, 1), (0, 4), (0, 7), (1, 2), (2, 9)], 4, 10)
    users = torch.tensor([0, 3, 1]).repeat(4000)
    drawn = sample_unseen(seen, users, 3, torch.Generator().manual_seed(0))
    for user, unseen in [(0, {2, 3, 5, 6, 8, 9}), (1, set(range(10)) - {2}), (3, set(range(10)))]:
        values, counts = drawn[users == user].unique(return_counts=True)
        assert set(values.tolist()) == unseen
        assert chisquare(counts).pvalue > 1e-4


def test_unseen_negatives_equal_draws_from_an_explicit_list():
    """The same random numbers select from an explicit list of the user's unseen items."""
    random = np.random.default_rng(0)
    pairs = [divmod(int(key), 23) for key in random.permutation(9 * 23)[:120]] + [(9, item) for item in range(23)]
    seen = interactions([pair for pair in pairs if pair[0] != 4], 11, 23)  # nothing by 4 and 10, everything by 9
    users = torch.from_numpy(random.integers(11, size=500))
    drawn = sample_unseen(seen, users, 4, torch.Generator().manual_seed(1))
    chances = torch.rand((500, 4), generator=torch.Generator().manual_seed(1), dtype=torch.double)
    for user, items, row in zip(users.tolist(), drawn.tolist(), chances.tolist(), strict=True):
        own = {item for who, item in pairs if who == user and who != 4}
        unseen = [item for item in range(23) if item not in own] or list(range(23))
        assert items == [unseen[int(chance * len(unseen))] for chance in row]


def test_unseen_negatives_of_a_user_who_has_seen_all_come_from_all_items():
    seen = interactions([(0, 0), (0, 1), (0, 2)], 2, 3)
    drawn = sample_unseen(seen, torch.zeros(300, dtype=torch.long), 1, torch.Generator().manual_seed(0))
    assert set(drawn.flatten().tolist()) == {0, 1, 2}


def test_uniform_negatives_are_drawn_from_all_items():
    seen = interactions([(0, 0)], 1, 5)
    drawn = sample_uniform(seen, torch.zeros(4000, dtype=torch.long), 2, torch.Generator().manual_seed(0))
    assert drawn.shape == (4000, 2)
    assert chisquare(drawn.flatten().bincount(minlength=5)).pvalue > 1e-4


def test_the_simulated_set_has_the_published_marginals():
    data = dataset.load("simulated")
    everything = data.train + data.test
    assert (len(data.users), len(data.items), len(everything)) == (943, 1682, 100_000)
    assert data.simulated
    assert len(everything.pair_keys.unique()) == 100_000
    percent = everything.ratings.long().bincount(minlength=6)[1:] / 1000
    assert percent.round().tolist() == [6, 11, 27, 34, 21]
    activity = everything.user_ids.bincount(minlength=943)
    popularity = everything.item_ids.bincount(minlength=1682).sort(descending=True).values
    assert activity.min() >= 20
    assert activity.max() > 5 * activity.float().median()
    assert popularity.min() >= 1
    assert popularity[:168].sum() > 0.3 * 100_000  # the top tenth of the films has over three tenths of the ratings


WORLDS = {  # sha256 of users, items and ratings as first published
    (60, 80, 2400): "36b563297d4bec7a32e692aff7ed324fd6837f1b7a74f0f06aed9951c3e06db4",
    (300, 200, 9000): "54d6ccda929137422898c69c930680fd39198815c576ca4018141a7d38409137",
}


@pytest.mark.parametrize("size", WORLDS)
@pytest.mark.parametrize("block", [50, 2**20])
def test_simulated_ratings_are_unchanged(size, block, monkeypatch):
    monkeypatch.setattr(simulated, "CHUNK_ROWS", block)
    simulation = simulated.simulate(*size)
    digest = hashlib.sha256()
    for column in (simulation.user_ids, simulation.item_ids, simulation.ratings):
        digest.update(column.astype(np.int64).tobytes())
    assert digest.hexdigest() == WORLDS[size]


@pytest.mark.parametrize("levels", [4, 30, 10**6])  # from many ties to none
def test_the_highest_values_equal_those_of_a_full_sort(levels):
    random = np.random.default_rng(levels)
    for _ in range(20):
        values = random.integers(levels, size=40).astype(np.float32)
        count = int(random.integers(1, 30))
        found = simulated._highest(values, count, most=30)
        assert values[found].tolist() == sorted(values, reverse=True)[:count]
        assert len(set(found)) == count


def test_stars_have_exactly_the_given_fractions():
    opinion = np.random.default_rng(0).normal(size=10_000)
    stars = simulated._to_stars(opinion)
    assert np.bincount(stars.astype(int)).tolist() == [0, 611, 1137, 2714, 3417, 2121]
    assert (np.diff(stars[np.argsort(opinion)]) >= 0).all()


def test_the_simulated_set_is_reproducible_and_comes_in_other_sizes():
    sizes = {"simulated_size": (50, 60, 1200)}
    assert dataset.load("simulated", **sizes).fingerprint == dataset.load("simulated", **sizes).fingerprint
    assert dataset.load("simulated", seed=1, **sizes).fingerprint != dataset.load("simulated", **sizes).fingerprint
    for users, items, ratings in [(2, 40, 40), (30, 1000, 1000), (50, 60, 1500), (3000, 100, 60_000)]:
        data = dataset.load("simulated", simulated_size=(users, items, ratings), test_fraction=0.1)
        everything = data.train + data.test
        assert len(everything.pair_keys.unique()) == ratings
        assert everything.user_ids.bincount(minlength=users).min() >= min(20, ratings // users)
        assert everything.item_ids.bincount(minlength=items).min() >= 1


@pytest.mark.parametrize("size", [(1, 100, 50), (10, 30, 300), (100, 100, 1000), (10, 100, 800), (10, 5000, 400)])
def test_impossible_simulated_sizes_are_rejected(size):
    with pytest.raises(UserError, match="cannot be met"):
        dataset.load("simulated", simulated_size=size)


def test_real_movielens_is_read_as_published(movielens):
    everything = movielens.train + movielens.test
    assert (len(movielens.users), len(movielens.items), len(everything)) == (943, 1682, 100_000)
    assert everything.ratings.long().bincount().tolist() == [0, 6110, 11370, 27145, 34174, 21201]
    assert movielens.titles[0] == "Toy Story (1995)"
    assert movielens.genres[0] == "Animation|Children's|Comedy"
    assert movielens.users[0] == movielens.items[0] == "1"
    assert "Seven Years in Tibet (1997)" in movielens.titles
    assert any("é" in title for title in movielens.titles)
