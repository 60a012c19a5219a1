"""The names of the course: the data set and the split as in Spotlight, and objects that are scored by `predict`."""

import numpy as np
import pytest
import torch
from conftest import Lookup, interactions

import dataset
from config.errors import UserError
from dataset import get_movielens_dataset, random_train_test_split
from evaluation import evaluate, mrr_score, mse_score
from models import MultiTaskNet


class CoursePredictor:
    """Like the course's own: NumPy arrays in, flat results out; one user and no items means all items."""

    def __init__(self, network, num_items, as_arrays) -> None:
        self.network, self.num_items, self.as_arrays = network, num_items, as_arrays

    def predict(self, user_ids, item_ids=None):
        if item_ids is None:
            item_ids = np.arange(self.num_items)
        user_ids = np.broadcast_to(user_ids, item_ids.shape).astype(np.int64)
        found = self.network(torch.from_numpy(user_ids), torch.from_numpy(item_ids))
        return tuple(part.detach().numpy() if self.as_arrays else part for part in found)


class Returns:
    def __init__(self, make) -> None:
        self.make = make

    def predict(self, user_ids, item_ids):
        return self.make(len(user_ids))


@pytest.mark.parametrize("as_arrays", [True, False])
def test_an_object_with_predict_scores_as_its_network(tiny, as_arrays):
    torch.manual_seed(0)
    network = MultiTaskNet(len(tiny.users), len(tiny.items))
    network.score_items = None  # the network is scored pair by pair too, so that results are equal to the last bit
    course = CoursePredictor(network, len(tiny.items), as_arrays)
    assert mrr_score(course, tiny.test, tiny.seen) == mrr_score(network, tiny.test, tiny.seen)
    assert mrr_score(course, tiny.test) == mrr_score(network, tiny.test)
    assert mse_score(course, tiny.test) == mse_score(network, tiny.test)
    assert evaluate(course, tiny.test, tiny.seen) == evaluate(network, tiny.test, tiny.seen)


def test_the_scores_are_those_of_the_course_s_own_loop(tiny):
    """Per user: rank all items with train items last, and take 1 / rank of every test item."""
    network = MultiTaskNet(len(tiny.users), len(tiny.items))
    torch.nn.init.normal_(network.B.weight)
    course = CoursePredictor(network, len(tiny.items), as_arrays=True)
    of_users = []
    for user in tiny.test.user_ids.unique().tolist():
        scores = -course.predict(user)[0]
        scores[tiny.seen.item_ids[tiny.seen.user_ids == user]] = np.inf
        ranks = scores.argsort().argsort() + 1
        of_users.append((1 / ranks[tiny.test.item_ids[tiny.test.user_ids == user]]).mean())
    assert mrr_score(course, tiny.test, tiny.seen) == pytest.approx(np.mean(of_users))
    score = course.predict(tiny.test.user_ids.numpy(), tiny.test.item_ids.numpy())[1]
    assert mse_score(course, tiny.test) == pytest.approx(((score - tiny.test.ratings.numpy()) ** 2).mean())


def test_counts_are_scores():
    """Item 1 has the highest count of three, and the whole numbers 3 and 4 are ratings."""

    class Counts:
        def predict(self, user_ids, item_ids):
            return np.array([2, 7, 5])[item_ids], np.full(len(item_ids), 3)

    test = interactions([(0, 2)], 1, 3, [5.0])
    assert mrr_score(Counts(), test, interactions([(0, 0)], 1, 3)) == 1 / 2
    assert mse_score(Counts(), test) == 4


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda size: np.zeros(size), "two results, predictions and score, not ndarray"),
        (lambda size: (np.zeros(size),), "two results"),
        (lambda size: (np.zeros((size, 1)), np.zeros(size)), r"predictions of shape \(2,\), not \(2, 1\)"),
        (lambda size: (np.zeros(size), torch.zeros(size, 1)), r"score of shape \(2,\), not \(2, 1\)"),
    ],
)
def test_other_results_of_predict_are_refused(make, told):
    with pytest.raises(ValueError, match=told):
        mse_score(Returns(make), interactions([(0, 0), (0, 1)], 1, 2))


def test_a_network_with_a_predict_of_its_own_is_scored_as_a_network():
    model = Lookup([[1.0, 2.0]])
    model.predict = None
    assert mse_score(model, interactions([(0, 0)], 1, 2, [3.0])) == 4


def rows_of(part) -> list[tuple[int, int, float]]:
    columns = (part.user_ids.tolist(), part.item_ids.tolist(), part.ratings.tolist())
    return list(zip(*columns, strict=True))


@pytest.mark.parametrize(("test_fraction", "size"), [(0.05, 5), (0.2, 20), (0.5, 50)])
def test_a_split_is_a_partition_of_the_size_asked_for(test_fraction, size):
    rows = interactions([(row % 7, row) for row in range(100)], 7, 100)
    train, test = random_train_test_split(rows, test_fraction=test_fraction, random_state=1)
    assert (len(train), len(test)) == (100 - size, size)
    assert sorted(rows_of(train) + rows_of(test)) == sorted(rows_of(rows))
    assert (train.num_users, train.num_items) == (test.num_users, test.num_items) == (7, 100)


def test_the_random_state_decides_the_split():
    rows = interactions([(0, row) for row in range(200)], 1, 200)

    def test_rows(random_state):
        return rows_of(random_train_test_split(rows, 0.1, random_state)[1])

    assert test_rows(3) == test_rows(3) == test_rows(np.random.RandomState(3))
    assert test_rows(3) != test_rows(4)
    generator = np.random.RandomState(3)
    assert test_rows(generator) != test_rows(generator)
    assert test_rows(None) != test_rows(None)


@pytest.mark.parametrize("test_fraction", [0, 1, -0.1, 5, float("nan")])
def test_a_fraction_that_is_none_is_refused(test_fraction):
    with pytest.raises(ValueError, match="test_fraction must be greater than 0 and less than 1"):
        random_train_test_split(interactions([(0, 0), (0, 1)], 1, 2), test_fraction)


def test_too_few_rows_for_two_parts_are_refused():
    with pytest.raises(UserError, match="too few"):
        random_train_test_split(interactions([(0, 0), (0, 1)], 1, 2), 0.05)


@pytest.mark.parametrize("variant", ["5M", "", "ml-100k"])
def test_an_unknown_variant_is_one_sentence(variant):
    with pytest.raises(ValueError, match=f"no MovieLens variant '{variant}': choose one of 100K, LATEST-SMALL, 1M"):
        get_movielens_dataset(variant=variant)


def test_without_data_and_network_the_variant_is_never_replaced(elsewhere):
    with pytest.raises(UserError, match="ml-100k is not in data"):
        get_movielens_dataset()


def test_the_course_s_lines_give_the_split_of_main(movielens):
    rows = get_movielens_dataset(variant="100K")
    train, test = random_train_test_split(rows, test_fraction=0.05, random_state=0)
    assert (len(rows), rows.num_users, rows.num_items) == (100_000, 943, 1_682)
    for part, same in ((train, movielens.train), (test, movielens.test)):
        assert rows_of(part) == rows_of(same)


def test_the_rows_stay_in_the_order_of_the_file(movielens):
    rows = get_movielens_dataset("100k")
    data = dataset.load("ml-100k")
    first = data.users[rows.user_ids[0]], data.items[rows.item_ids[0]], rows.ratings[0].item()
    assert first == ("196", "242", 3.0)
