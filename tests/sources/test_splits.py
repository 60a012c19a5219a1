"""Every split by hand and by its properties, and the filter of frequent users and items."""

import numpy as np
import pytest

from config.base import SPLITS
from config.errors import UserError
from sources.splits import Split, keep_frequent, leave_last_out, require_known, split_by_time, split_randomly

# Twelve rows of three users; row 3 and row 7 have equal times, as have the rows 0 and 10.
USERS = np.array([0, 0, 0, 1, 1, 1, 1, 1, 2, 0, 2, 3])
TIMES = np.array([9, 2, 5, 8, 1, 3, 4, 8, 7, 6, 9, 0.5])


def rows(parts) -> list[list[int]]:
    return [part.tolist() for part in parts]


class TestRandom:
    def test_it_follows_the_published_protocol(self):
        train, validation, test = split_randomly(100_000, 0.05, 0.0, seed=2)
        order = np.random.RandomState(2).permutation(100_000)
        assert (test == order[:5000]).all()
        assert len(validation) == 0
        assert (train == order[5000:]).all()

    def test_validation_is_cut_out_of_train_and_never_out_of_test(self):
        without = split_randomly(1000, 0.1, 0.0, seed=0)
        train, validation, test = split_randomly(1000, 0.1, 0.2, seed=0)
        assert (test == without[2]).all()
        assert len(validation) == 180
        assert sorted([*train, *validation, *test]) == list(range(1000))

    def test_different_seeds_split_differently(self):
        assert set(split_randomly(1000, 0.1, 0, 0)[2]) != set(split_randomly(1000, 0.1, 0, 1)[2])

    @pytest.mark.parametrize("fractions", [(0.001, 0.0), (0.999, 0.0), (0.1, 0.001)])
    def test_an_empty_part_is_rejected(self, fractions):
        with pytest.raises(UserError, match="too few"):
            split_randomly(20, *fractions, seed=0)


class TestFolds:
    @pytest.mark.parametrize(("num_rows", "folds"), [(12, 2), (12, 5), (13, 13), (100, 7)])
    def test_every_row_is_tested_once(self, num_rows, folds):
        parts = [split_randomly(num_rows, 0.05, 0.3, 4, (fold, folds)) for fold in range(1, folds + 1)]
        assert sorted(np.concatenate([test for *_, test in parts])) == list(range(num_rows))
        sizes = [len(test) for *_, test in parts]
        assert max(sizes) - min(sizes) <= 1
        for part in parts:
            assert sorted(np.concatenate(part)) == list(range(num_rows))
            assert len(part[1]) == round(0.3 * (num_rows - len(part[2])))

    def test_by_hand(self):
        order = np.random.RandomState(0).permutation(6).tolist()
        first, second, third = (rows(split_randomly(6, 0.05, 0.0, 0, (fold, 3))) for fold in (1, 2, 3))
        assert first == [order[2:], [], order[:2]]
        assert second == [order[:2] + order[4:], [], order[2:4]]
        assert third == [order[:4], [], order[4:]]

    def test_more_folds_than_rows_are_rejected(self):
        with pytest.raises(UserError, match="3 ratings are too few for this split: the test part would be empty"):
            split_randomly(3, 0.05, 0.0, 0, (1, 5))


class TestTime:
    def test_by_hand(self):
        assert rows(split_by_time(TIMES, 0.25, 0.0)) == [[11, 4, 1, 5, 6, 2, 9, 8, 3], [], [7, 0, 10]]
        assert rows(split_by_time(TIMES, 0.25, 0.33)) == [[11, 4, 1, 5, 6, 2], [9, 8, 3], [7, 0, 10]]

    def test_of_equal_times_the_last_rows_are_tested(self):
        assert rows(split_by_time(np.zeros(5), 0.4, 0.0)) == [[0, 1, 2], [], [3, 4]]

    @pytest.mark.parametrize("seed", range(5))
    def test_properties(self, seed):
        times = np.random.default_rng(seed).integers(30, size=200).astype(float)
        train, validation, test = split_by_time(times, 0.2, 0.1)
        assert (len(train), len(validation), len(test)) == (144, 16, 40)
        assert sorted([*train, *validation, *test]) == list(range(200))
        assert times[train].max() <= times[validation].min()
        assert times[validation].max() <= times[test].min()

    def test_an_empty_part_is_rejected(self):
        with pytest.raises(UserError, match="the validation part would be empty"):
            split_by_time(TIMES, 0.25, 0.01)


class TestLeaveLastOut:
    def test_by_hand(self):
        assert rows(leave_last_out(USERS, TIMES, False)) == [[1, 2, 3, 4, 5, 6, 8, 9, 11], [], [0, 7, 10]]
        assert rows(leave_last_out(USERS, TIMES, True)) == [[1, 2, 4, 5, 6, 8, 11], [9, 3], [0, 7, 10]]

    @pytest.mark.parametrize("seed", range(5))
    def test_properties(self, seed):
        random = np.random.default_rng(seed)
        users, times = random.integers(40, size=150), random.integers(9, size=150)
        train, validation, test = leave_last_out(users, times, True)
        assert sorted([*train, *validation, *test]) == list(range(150))
        counts = np.bincount(users)
        assert sorted(users[test]) == np.flatnonzero(counts >= 2).tolist()
        assert sorted(users[validation]) == np.flatnonzero(counts >= 3).tolist()
        for user in users[test]:
            when = [[(times[row], row) for row in part if users[row] == user] for part in (train, validation, test)]
            assert [*sorted(when[0]), *when[1], *when[2]] == sorted([*when[0], *when[1], *when[2]])
            assert when[0]

    def test_users_of_one_row_alone_are_too_few(self):
        with pytest.raises(UserError, match="the test part would be empty"):
            leave_last_out(np.arange(4), np.zeros(4), False)


def core_by_loop(users, items, min_user, min_item) -> list[int]:
    """Remove one row at a time until every user and item that is left has enough."""
    left = list(range(len(users)))
    while True:
        own, others = [users[row] for row in left], [items[row] for row in left]
        bad = [row for row in left if own.count(users[row]) < min_user or others.count(items[row]) < min_item]
        if not bad:
            return left
        left.remove(bad[0])


class TestKeepFrequent:
    def test_by_hand(self):
        users, items = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 1])
        assert keep_frequent(users, items, 2, 1).tolist() == [True, True, True, True, False]
        assert keep_frequent(users, items, 1, 3).tolist() == [False, True, False, True, True]
        assert not keep_frequent(users, items, 2, 3).any()  # without item 0 no user has two rows

    @pytest.mark.parametrize("bounds", [(1, 1), (2, 2), (3, 3), (4, 2), (2, 5), (9, 9)])
    @pytest.mark.parametrize("seed", range(4))
    def test_it_equals_a_loop_over_rows(self, seed, bounds):
        random = np.random.default_rng(seed)
        users, items = random.integers(12, size=45), random.integers(15, size=45)
        assert np.flatnonzero(keep_frequent(users, items, *bounds)).tolist() == core_by_loop(users, items, *bounds)


class TestRequireKnown:
    def test_rows_with_a_new_user_or_item_are_left_out_and_counted(self):
        users, items = np.array([0, 0, 1, 2, 1, 0]), np.array([0, 1, 1, 0, 2, 1])
        parts = np.array([0, 1, 2]), np.array([5]), np.array([3, 4, 5])
        kept, notes = require_known(parts, (users, items))
        assert rows(kept) == [[0, 1, 2], [5], [5]]
        assert notes == ("2 of 3 test rows were left out: their user or item has no training row",)

    def test_nothing_is_said_where_nothing_is_left_out(self):
        parts = np.array([0, 1]), np.array([], dtype=int), np.array([2])
        kept, notes = require_known(parts, (np.zeros(3, dtype=int), np.zeros(3, dtype=int)))
        assert (rows(kept), notes) == ([[0, 1], [], [2]], ())

    def test_a_part_without_any_known_row_is_rejected(self):
        parts = np.array([0, 1]), np.array([], dtype=int), np.array([2])
        with pytest.raises(UserError) as error:
            require_known(parts, (np.array([0, 0, 1]), np.zeros(3, dtype=int)))
        assert str(error.value) == (
            "no test row is left: the user or the item of each has no training row; hold out another fraction or "
            "choose another --split"
        )


@pytest.mark.parametrize("kind", SPLITS)
def test_every_split_by_its_name(kind):
    split = Split(kind, test_fraction=0.25, seed=3)
    expected = {
        "random": split_randomly(12, 0.25, 0.0, 3),
        "time": split_by_time(TIMES, 0.25, 0.0),
        "leave_last": leave_last_out(USERS, TIMES, False),
    }
    assert rows(split.draw(USERS, TIMES if split.needs_times else None)) == rows(expected[kind])


def test_an_unknown_split_is_rejected():
    with pytest.raises(UserError, match="there is no split 'last': choose one of random, time, leave_last"):
        Split("last")
