"""Labels and negatives: which rows are drawn, and which information they must not leak."""

import hashlib
import os
from dataclasses import replace

import pytest
import torch
from conftest import interactions

import dataset
from dataset import Data
from zoo.labels import LabelledRows, Labeller
from zoo.task import LabelTask

# sha256 of the rows at seed 0 with four negatives: the first training epoch, and the evaluated rows of each split.
# If one of them changes, results from before and after are not comparable.
ROWS = {
    "tiny": {
        "train": "6e8b28c71fcc1066d475005de9a4e6daaf92133130727002323207fd109a7f1a",
        "val": "5883d5e1a98e16436bbb15b8b6e486a2acc3eb67fc205fa863de203d325a9606",
        "test": "afbdb68afc567c0be01a43b3ad9d1d7baaa748fbc1734d782821ae3b8333b7de",
    },
    "movielens": {
        "train": "da3f88785d46c3d5a79b1f2f2ead1af9be6a54bc460a81b96f72b6153f54afd0",
        "val": "668938bafad369b3db54b1847d8e9e33adac6bd3fa1eea43d46860619e698bf1",
        "test": "47a50baa1e13a57dbc63aab6488b0ad3663b423eec62f4ed9c563de52fd5610c",
    },
}
FEEDBACK = "user,item,click,buy\n" + "".join(
    f"u{user},i{item},{int((user + item) % 3 > 0)},{int((user + item) % 3 > 1)}\n"
    for user in range(12)
    for item in range(20)
    if user == 0 or (user + 2 * item) % 5 < 3  # the first user has a row for every item
)


@pytest.fixture(scope="module")
def task(tiny) -> LabelTask:
    return LabelTask(tiny, batch_size=500)


@pytest.fixture
def feedback(tmp_path) -> Data:
    (tmp_path / "shown.csv").write_text(FEEDBACK)
    return dataset.load(
        feedback=str(tmp_path / "shown.csv"), labels=("click", "buy"), test_fraction=0.2, val_fraction=0.2
    )


def epoch_rows(task: LabelTask, epoch: int) -> LabelledRows:
    """The rows of an epoch, in training order."""
    batches = list(task.batches(epoch))
    columns = [torch.cat([batch[name] for batch in batches]) for name in ("user_ids", "item_ids", "labels")]
    return LabelledRows(*columns)


def evaluated(task: LabelTask, split: str) -> LabelledRows:
    return task._evaluated[split]


def keys(rows) -> torch.Tensor:
    """One integer per pair, ascending."""
    return (rows.user_ids * 10_000 + rows.item_ids).sort().values


def negatives(rows: LabelledRows) -> LabelledRows:
    return rows[rows.labels.sum(dim=1) == 0]


def positives(rows: LabelledRows) -> LabelledRows:
    return rows[rows.labels.sum(dim=1) > 0]


def overlap(one, other) -> int:
    return int(torch.isin(keys(one), keys(other)).sum())


def per_user(rows) -> torch.Tensor:
    return torch.bincount(rows.user_ids, minlength=60)


def toy(pairs, num_users: int, num_items: int, ratings=None) -> Data:
    train = interactions(pairs, num_users, num_items, ratings)
    return Data("toy", None, None, [], [], (1.0, 5.0), train, train)


# labels


def test_rated_items_are_viewed_and_highly_rated_items_are_liked():
    data = toy([(0, 0), (0, 1), (1, 0), (1, 1)], 2, 3, [1.0, 3.5, 4.0, 5.0])
    rows = Labeller(data, ("view", "like"), like_from=4.0, negatives=4).label(data.train)
    assert rows.labels.tolist() == [[1, 0], [1, 0], [1, 1], [1, 1]]
    assert Labeller(data, ("view", "like"), 4.5, 4).label(data.train).labels.tolist() == [
        [1, 0],
        [1, 0],
        [1, 0],
        [1, 1],
    ]
    assert (rows.user_ids.tolist(), rows.item_ids.tolist()) == ([0, 0, 1, 1], [0, 1, 0, 1])


@pytest.mark.parametrize(("name", "expected"), [("view", [[1], [1]]), ("like", [[0], [1]])])
def test_one_label_alone_is_the_same_column(name, expected):
    data = toy([(0, 0), (1, 1)], 2, 3, [2.0, 4.0])
    assert Labeller(data, (name,), 4.0, 4).label(data.train).labels.tolist() == expected


def test_every_like_is_a_view(task):
    for rows in (epoch_rows(task, 1), evaluated(task, "val"), evaluated(task, "test")):
        view, like = rows.labels.unbind(dim=1)
        assert (like <= view).all()
        assert {0.0, 1.0} == set(view.tolist()) == set(like.tolist())
        assert not like.equal(view)


# negatives


@pytest.mark.parametrize("count", [0, 1, 4])
def test_each_positive_row_gets_as_many_negatives_of_its_own_user(tiny, count):
    labeller = Labeller(tiny, ("view", "like"), 4.0, count)
    rows = labeller.label(tiny.train)
    drawn = labeller.draw_negatives(rows, tiny.train, torch.Generator().manual_seed(0))
    assert drawn.user_ids.equal(rows.user_ids.repeat_interleave(count))
    assert drawn.labels.shape == (count * len(rows), 2)
    assert not drawn.labels.any()
    assert overlap(drawn, tiny.train) == 0
    assert labeller.count_negatives(rows, tiny.train) == len(drawn)


def test_users_who_have_every_item_get_no_negatives():
    data = toy([(0, 0), (0, 1), (0, 2), (1, 1)], 2, 3)
    labeller = Labeller(data, ("view", "like"), 4.0, negatives=5)
    rows = labeller.label(data.train)
    drawn = labeller.draw_negatives(rows, data.train, torch.Generator().manual_seed(0))
    assert drawn.user_ids.tolist() == [1] * 5
    assert set(drawn.item_ids.tolist()) <= {0, 2}
    assert labeller.count_negatives(rows, data.train) == 5


def test_ratings_get_negatives_whatever_their_labels(tiny):
    """With likes only: low ratings are views too, and the number of a user's negatives must not reveal their likes."""
    labeller = Labeller(tiny, ("like",), 4.0, negatives=2)
    rows = labeller.label(tiny.train)
    drawn = labeller.draw_negatives(rows, tiny.train, torch.Generator().manual_seed(0))
    assert per_user(drawn).equal(2 * per_user(tiny.train))


def test_an_epoch_has_every_training_row_once_shuffled_with_its_negatives(task, tiny):
    rows = epoch_rows(task, 1)
    seen = rows[rows.labels[:, 0] == 1]
    assert keys(seen).equal(keys(tiny.train))
    liked = tiny.train[tiny.train.ratings >= 4]
    assert keys(rows[rows.labels[:, 1] == 1]).equal(keys(liked))
    assert overlap(negatives(rows), tiny.train) == 0
    assert per_user(negatives(rows)).equal(4 * per_user(tiny.train))
    first = rows[slice(0, 500)].labels[:, 0].mean()
    assert first == pytest.approx(0.2, abs=0.06)  # not all positives first


def test_all_batches_of_an_epoch_are_full_except_the_last(tiny, monkeypatch):
    whole = [len(batch["labels"]) for batch in LabelTask(tiny, batch_size=64).batches(1)]
    assert whole[:-1] == [64] * (len(whole) - 1)
    assert len(whole) == LabelTask(tiny, batch_size=64).num_batches
    assert sum(whole) == 5 * len(tiny.train)
    monkeypatch.setattr("zoo.task.CHUNK_ROWS", 500)  # several chunks
    blocks = [len(batch["labels"]) for batch in LabelTask(tiny, batch_size=64).batches(1)]
    assert blocks == whole


def test_several_chunks_have_the_same_training_rows_as_one(tiny, monkeypatch):
    monkeypatch.setattr("zoo.task.CHUNK_ROWS", 500)
    rows = epoch_rows(LabelTask(tiny, batch_size=64), 1)
    assert keys(positives(rows)).equal(keys(tiny.train))
    assert per_user(negatives(rows)).equal(4 * per_user(tiny.train))


def test_train_negatives_include_held_out_pairs_at_the_rate_of_chance(task, tiny):
    """Excluding them would leak the held-out pairs."""
    drawn = [negatives(epoch_rows(task, epoch)) for epoch in range(1, 11)]
    held_out = tiny.validation + tiny.test
    found = sum(overlap(rows, held_out) for rows in drawn)
    by_user = per_user(tiny.train).double()
    chance = (by_user * per_user(held_out) / (80 - by_user)).sum() / by_user.sum()
    assert found / sum(map(len, drawn)) == pytest.approx(chance.item(), rel=0.05)
    for split in (tiny.validation, tiny.test):
        assert sum(overlap(rows, split) for rows in drawn) > 0


def test_train_negatives_are_drawn_anew_each_epoch_and_repeat_with_seed_and_epoch(tiny, task):
    torch.manual_seed(1)
    first, second = epoch_rows(task, 1), epoch_rows(task, 2)
    torch.manual_seed(2)
    again = epoch_rows(LabelTask(tiny, batch_size=500), 1)
    assert first.user_ids.equal(again.user_ids)
    assert first.item_ids.equal(again.item_ids)
    assert first.labels.equal(again.labels)
    assert not keys(negatives(first)).equal(keys(negatives(second)))
    assert not first.user_ids.equal(second.user_ids)


@pytest.mark.parametrize("seed", [1, 2, 3, 2**31, 2**32 - 1])
def test_every_seed_draws_other_rows(tiny, task, seed):
    other = LabelTask(tiny, batch_size=500, seed=seed)
    assert not keys(negatives(epoch_rows(other, 1))).equal(keys(negatives(epoch_rows(task, 1))))
    for split in ("val", "test"):
        assert not keys(evaluated(other, split)).equal(keys(evaluated(task, split)))


# evaluated rows


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_split_is_evaluated_on_its_rows_and_on_unrated_pairs(task, tiny, split):
    rows = evaluated(task, split)
    own = {"val": tiny.validation, "test": tiny.test}[split]
    assert keys(positives(rows)).equal(keys(own))
    assert overlap(negatives(rows), tiny.train + tiny.validation + tiny.test) == 0
    assert per_user(negatives(rows)).equal(4 * per_user(own))


def test_evaluated_rows_are_drawn_once(tiny):
    """Two tasks with one seed have the same rows, and neither training nor evaluation draws again."""
    task, twin = LabelTask(tiny), LabelTask(tiny)
    network = task.baselines()["item mean"]
    before = {split: keys(evaluated(task, split)) for split in task.splits}
    found = {split: task.metrics(network, split) for split in task.splits}
    list(task.batches(1))
    assert {split: task.metrics(network, split) for split in task.splits} == found
    assert {split: twin.metrics(network, split) for split in task.splits} == found
    assert all(keys(evaluated(task, split)).equal(before[split]) for split in task.splits)


def test_no_pair_is_in_two_splits(task):
    parts = [positives(rows) for rows in (epoch_rows(task, 1), evaluated(task, "val"), evaluated(task, "test"))]
    pairs = torch.cat([keys(rows) for rows in parts])
    assert len(pairs.unique()) == len(pairs) == 2400


def test_the_test_rows_do_not_depend_on_a_validation_split(tiny, task):
    task_without = LabelTask(replace(tiny, train=tiny.seen, validation=None))
    assert task_without.splits == ("test",)
    assert keys(evaluated(task_without, "test")).equal(keys(evaluated(task, "test")))


def fingerprints(data: Data) -> dict[str, str]:
    task = LabelTask(data)
    rows = {"train": epoch_rows(task, 1)} | {split: evaluated(task, split) for split in ("val", "test")}
    return {
        split: hashlib.sha256(b"".join(t.numpy().tobytes() for t in (r.user_ids, r.item_ids, r.labels))).hexdigest()
        for split, r in rows.items()
    }


def test_the_rows_of_the_simulated_data_have_a_fixed_hash(tiny):
    assert fingerprints(tiny) == ROWS["tiny"]


def test_the_rows_of_movielens_have_a_fixed_hash(movielens):
    data = dataset.load("ml-100k", os.environ["MOVIELENS_DIR"], test_fraction=0.1, val_fraction=1 / 9)
    assert fingerprints(data) == ROWS["movielens"]


# feedback


def as_lines(data: Data, rows: LabelledRows) -> set[tuple]:
    columns = (data.users[rows.user_ids], data.items[rows.item_ids], *rows.labels.int().T.tolist())
    return set(zip(*columns, strict=True))


def test_feedback_rows_are_the_lines_of_the_file(feedback):
    """Without negatives, the rows of all splits together are the lines of the file."""
    task = LabelTask(feedback, ("click", "buy"), negatives=0)
    parts = [epoch_rows(task, 1), evaluated(task, "val"), evaluated(task, "test")]
    lines = [line.split(",") for line in FEEDBACK.splitlines()[1:]]
    assert sum(map(len, parts)) == len(lines)
    assert set.union(*(as_lines(feedback, rows) for rows in parts)) == {
        (user, item, int(click), int(buy)) for user, item, click, buy in lines
    }


def test_feedback_labels_have_the_requested_order(tmp_path):
    (tmp_path / "shown.csv").write_text(FEEDBACK)
    data = dataset.load(feedback=str(tmp_path / "shown.csv"), labels=("buy", "click"), test_fraction=0.2)
    clicks_and_buys = evaluated(LabelTask(data, ("buy", "click"), negatives=0, chain="none"), "test").labels
    assert (clicks_and_buys[:, 0] <= clicks_and_buys[:, 1]).all()
    assert not clicks_and_buys[:, 0].equal(clicks_and_buys[:, 1])


def test_feedback_gets_negatives_for_rows_with_a_label_of_1_only(feedback):
    task = LabelTask(feedback, ("click", "buy"), negatives=3)
    everything = feedback.seen + feedback.test
    for rows, split, seen in [
        (epoch_rows(task, 1), feedback.train, feedback.train),
        (evaluated(task, "test"), feedback.test, everything),
    ]:
        is_drawn = ~torch.isin(rows.user_ids * 10_000 + rows.item_ids, keys(split))
        drawn = rows[is_drawn]
        has_unseen = torch.bincount(seen.user_ids) < 20
        wanted = split.user_ids[split.ratings.any(dim=1) & has_unseen[split.user_ids]]
        assert per_user(drawn).equal(3 * torch.bincount(wanted, minlength=60))
        assert overlap(drawn, seen) == 0
        assert not drawn.labels.any()
        assert len(rows) == len(split) + 3 * len(wanted)
        assert len(wanted) < len(split)
