"""The baselines: every number by hand on a few rows, against a slow count of all pairs, and on MovieLens."""

import os
from dataclasses import replace

import pytest
import torch
from conftest import interactions

import dataset
from dataset import Data
from evaluation import roc_auc
from zoo.baselines import LOWEST, Baseline, make_baselines
from zoo.labels import Labeller
from zoo.task import LabelTask

NAMES = ["constant", "popularity", "item mean", "user mean", "user + item mean"]
CHAINS = ("joint", "conditional", "none")

# User 0 likes item 0 and not item 1, user 1 likes item 0; two negatives each. User 0 draws 4 from the items 2 and 3,
# user 1 draws 2 from the items 1, 2 and 3: 2/3, 8/3 and 8/3 are expected of these three. Ten average rows are added.
RATED = {(0, 0): 5.0, (0, 1): 2.0, (1, 0): 4.0}
VIEW = 3 / 9
VIEW_OF_ITEM = [VIEW + (2 - 2 / 3) / 12, VIEW + (1 - 5 / 9) / (5 / 3 + 10), VIEW - 8 / 9 / (8 / 3 + 10)]
LIKE = 2 / 3
LIKE_OF_ITEM = [LIKE + (2 - 4 / 3) / 12, LIKE - 2 / 3 / 11, LIKE]
# Two of the six rows of user 0 are views, and one of the three of user 1: the mean of all rows. Of likes given views:
LIKE_OF_USER_ALONE = [(1 - 2 * LIKE) / 12, (1 - LIKE) / 11]
LIKE_OF_USER = [((1 - LIKE_OF_ITEM[0]) - LIKE_OF_ITEM[1]) / 12, (1 - LIKE_OF_ITEM[0]) / 11]


def toy(ratings=RATED) -> Data:
    train = interactions(list(ratings), 2, 4, list(ratings.values()))
    return Data("toy", None, None, [], [], (1.0, 5.0), train, train)


def of_toy(chain: str, labels=("view", "like")) -> dict[str, Baseline]:
    data = toy()
    return make_baselines(Labeller(data, labels, like_from=4.0, negatives=2), data.train, chain)


def every_pair(num_users: int, num_items: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(num_users).repeat_interleave(num_items), torch.arange(num_items).repeat(num_users)


def chances(logits: dict[str, torch.Tensor], num_items: int) -> dict[str, torch.Tensor]:
    """{label: (users, items)}: the probability of each pair."""
    return {label: logit.sigmoid().view(-1, num_items) for label, logit in logits.items()}


def about(expected):
    return pytest.approx(torch.tensor(expected), abs=1e-5)


def test_baselines_by_hand():
    found = {name: chances(made.conditional_logits(*every_pair(2, 4)), 4) for name, made in of_toy("joint").items()}
    assert list(found) == NAMES
    viewed = [*VIEW_OF_ITEM, VIEW_OF_ITEM[2]]  # nobody has rated the items 2 and 3
    liked = [*LIKE_OF_ITEM, LIKE_OF_ITEM[2]]
    assert found["constant"] == {"view": about([[VIEW] * 4] * 2), "like": about([[LIKE] * 4] * 2)}
    assert found["popularity"] == {"view": about([viewed] * 2), "like": about([[LIKE] * 4] * 2)}
    assert found["item mean"] == {"view": about([viewed] * 2), "like": about([liked] * 2)}
    alone = [[LIKE + own] * 4 for own in LIKE_OF_USER_ALONE]
    assert found["user mean"] == {"view": about([[VIEW] * 4] * 2), "like": about(alone)}
    by_user = [[chance + own for chance in liked] for own in LIKE_OF_USER]
    assert found["user + item mean"] == {"view": about([viewed] * 2), "like": about(by_user)}


@pytest.mark.parametrize("label", ["view", "like"])
def test_the_first_label_of_a_chain_is_counted_over_all_rows_and_their_negatives(label):
    """Users have a term of their own in the user mean alone."""
    rate = {"view": 3 / 9, "like": 2 / 9}[label]
    found = {name: chances(made(*every_pair(2, 4)), 4)[label] for name, made in of_toy("joint", (label,)).items()}
    assert found["constant"] == about([[rate] * 4] * 2)
    best = rate + (2 - 2 * rate) / 12
    for name in ("popularity", "item mean", "user + item mean"):
        assert found[name][:, 0].tolist() == pytest.approx([best, best], abs=1e-5)
    likes = {"view": (2, 1), "like": (1, 1)}[label]
    by_user = [rate + (sum_ - rows * rate) / (rows + 10) for sum_, rows in zip(likes, (6, 3), strict=True)]
    assert found["user mean"] == about([[chance] * 4 for chance in by_user])


# Three labels that form no chain: {(user, item): labels}.
APART = {(0, 0): (0, 1, 0), (0, 1): (0, 0, 0), (1, 0): (1, 1, 1), (1, 2): (1, 0, 0)}


def of_labels(rows: dict, num_users: int, num_items: int, negatives: int) -> dict[str, Baseline]:
    names = tuple("abc")
    train = interactions(list(rows), num_users, num_items, [list(map(float, labels)) for labels in rows.values()])
    data = Data("toy", None, None, [], [], (0.0, 1.0), train, train, labels=names)
    return make_baselines(Labeller(data, names, 4.0, negatives), train, "none")


def test_labels_that_form_no_chain_have_means_of_their_own_by_hand():
    found = {name: chances(made(*every_pair(2, 3)), 3) for name, made in of_labels(APART, 2, 3, 0).items()}
    assert list(found) == NAMES
    for label, rate in {"a": 2 / 4, "b": 2 / 4, "c": 1 / 4}.items():
        assert found["constant"][label] == about([[rate] * 3] * 2)
    # three of four rows have any label: both of item 0, not the one of item 1, and the one of item 2
    has_any = [3 / 4 + 0.5 / 12, 3 / 4 - 0.75 / 11, 3 / 4 + 0.25 / 11]
    assert found["popularity"]["a"] == about([[chance * 2 / 3 for chance in has_any]] * 2)
    assert found["popularity"]["c"] == about([[chance / 3 for chance in has_any]] * 2)
    of_item = [0.0, -0.5 / 11, 0.5 / 11]  # of the label a: one of two rows, none of one, one of one
    assert found["item mean"]["a"] == about([[0.5 + own for own in of_item]] * 2)
    assert found["user mean"]["a"] == about([[0.5 - 1 / 12] * 3, [0.5 + 1 / 12] * 3])
    assert found["user mean"]["b"] == about([[0.5] * 3] * 2)
    left = [(-0.5 - of_item[0] - 0.5 - of_item[1]) / 12, (0.5 - of_item[0] + 0.5 - of_item[2]) / 12]
    assert found["user + item mean"]["a"] == about([[0.5 + of_user + own for own in of_item] for of_user in left])


@pytest.mark.parametrize("negatives", [0, 2])
def test_labels_that_form_no_chain_equal_a_slow_count_of_all_pairs(negatives):
    """Every pair that a user does not have is a row of 0 with the weight of its expected draws."""
    users, items = 5, 7
    rows = {(u, i): ((u + i) % 2, int(u * i % 3 == 0), int(u == 1)) for u in range(users) for i in range(items)}
    rows = {(u, i): labels for (u, i), labels in rows.items() if (u + 2 * i) % 3 or u == 4}  # user 4 has every item
    weighted = [(u, i, labels, 1.0) for (u, i), labels in rows.items()]
    for u in range(users):
        missing = [i for i in range(items) if (u, i) not in rows]
        positives = sum(any(labels) for (user, _), labels in rows.items() if user == u)
        weighted += [(u, i, (0, 0, 0), negatives * positives / len(missing)) for i in missing]
    found = {
        name: chances(made(*every_pair(users, items)), items)
        for name, made in of_labels(rows, users, items, negatives).items()
    }

    def deviation(values) -> float:
        """Of (deviation, weight) pairs, shrunk."""
        return sum(value * weight for value, weight in values) / (sum(weight for _, weight in values) + 10)

    for column, label in enumerate("abc"):
        base = sum(y[column] * w for _, _, y, w in weighted) / sum(w for *_, w in weighted)
        of_item = [deviation([(y[column] - base, w) for _, item, y, w in weighted if item == i]) for i in range(items)]
        alone = [deviation([(y[column] - base, w) for user, _, y, w in weighted if user == u]) for u in range(users)]
        left = [
            deviation([(y[column] - base - of_item[i], w) for user, i, y, w in weighted if user == u])
            for u in range(users)
        ]
        assert found["item mean"][label] == about([[base + own for own in of_item]] * users)
        assert found["user mean"][label] == about([[base + own] * items for own in alone])
        assert found["user + item mean"][label] == about(
            [[max(LOWEST, base + one + own) for own in of_item] for one in left]
        )


def test_user_means_are_found_where_users_differ_and_items_do_not():
    """User u has each label in u % 4 of 4 rows, and the users of an item have it in turns."""
    rows = {
        (u, i): (int((i + u // 4) % 4 < u % 4), int((i + u // 4 + 1) % 4 < u % 4), 0)
        for u in range(40)
        for i in range(24)
    }
    train = {pair: labels for pair, labels in rows.items() if sum(pair) % 3}
    held_out = [(pair, labels[1]) for pair, labels in rows.items() if pair not in train]
    made = of_labels(train, 40, 24, 0)
    pairs = torch.tensor([pair for pair, _ in held_out]).T
    labels = torch.tensor([label for _, label in held_out])
    aucs = {name: roc_auc(baseline(*pairs)["b"], labels) for name, baseline in made.items()}
    assert aucs["constant"] == 0.5
    assert aucs["user mean"] > aucs["popularity"] + 0.1
    assert aucs["user + item mean"] > aucs["item mean"] + 0.1


def test_popularity_counts_negatives_at_their_expected_frequency(tiny):
    task = LabelTask(tiny)
    epochs = 20
    drawn = torch.zeros(80, dtype=torch.double)
    for epoch in range(1, epochs + 1):
        for batch in task.batches(epoch):
            drawn += torch.bincount(batch["item_ids"][batch["labels"][:, 0] == 0], minlength=80)
    counts = torch.bincount(tiny.train.item_ids, minlength=80)
    expected = (counts + 10 * 0.2) / (counts + drawn / epochs + 10)
    found = task.baselines()["popularity"](torch.zeros(80, dtype=torch.long), torch.arange(80))["view"].sigmoid()
    torch.testing.assert_close(found.double(), expected, atol=0.02, rtol=0)
    assert found.std() > 0.06  # the items differ


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("name", NAMES)
def test_the_meaning_of_later_logits_follows_the_chain(tiny, name, chain):
    """joint: the product of the conditional probabilities. conditional and none: the means themselves."""
    made = LabelTask(tiny, chain=chain).baselines()[name]
    pairs = every_pair(60, 80)
    forward, given = (chances(logits, 80) for logits in (made(*pairs), made.conditional_logits(*pairs)))
    torch.testing.assert_close(forward["view"], given["view"])
    expected = given["view"] * given["like"] if chain == "joint" else given["like"]
    torch.testing.assert_close(forward["like"], expected)
    assert all(((chance > 0) & (chance < 1)).all() for chance in forward.values())


def test_a_chain_of_three_is_a_product_of_three(tmp_path):
    lines = [f"{u},{i},{int(u % 2 + i % 3 > 0)},{int(i % 3 > 0)},{int(i % 3 > 1)}" for u in range(9) for i in range(9)]
    (tmp_path / "shown.csv").write_text("\n".join(["user,item,a,b,c", *lines]))
    data = dataset.load(feedback=str(tmp_path / "shown.csv"), labels=("a", "b", "c"), test_fraction=0.3)
    task = LabelTask(data, ("a", "b", "c"), negatives=0)
    made = task.baselines()["item mean"]
    joint, given = (
        chances(logits, 9) for logits in (made(*every_pair(9, 9)), made.conditional_logits(*every_pair(9, 9)))
    )
    torch.testing.assert_close(joint["b"], given["a"] * given["b"])
    torch.testing.assert_close(joint["c"], given["a"] * given["b"] * given["c"])
    constant = task.baselines()["constant"].conditional_logits(*every_pair(9, 9))
    a, b, c = data.train.ratings.unbind(dim=1)
    rates = [
        float(rate) for rate in (a.mean(), b[a == 1].mean(), c[b == 1].mean())
    ]  # each counted on the rows where the label before it is 1
    assert [constant[label][0].sigmoid().item() for label in "abc"] == pytest.approx(rates, abs=1e-6)


def test_probabilities_stay_between_0_and_1_if_every_item_is_liked():
    data = toy({(0, 0): 5.0, (0, 1): 5.0, (1, 0): 5.0})
    for made in make_baselines(Labeller(data, ("view", "like"), 4.0, 2), data.train, "joint").values():
        chance = made.conditional_logits(*every_pair(2, 4))["like"].sigmoid()
        assert chance == pytest.approx(torch.full((8,), 1 - LOWEST), abs=1e-6)


@pytest.mark.parametrize("chain", CHAINS)
def test_baselines_are_finite_for_a_label_that_never_occurs(chain):
    """The training rows of feedback may have no click at all."""
    nothing = interactions([(0, 0), (1, 1)], 2, 4, [[0.0, 0.0], [0.0, 0.0]])
    data = Data("toy", None, None, [], [], (0.0, 1.0), nothing, nothing, labels=("click", "buy"))
    for made in make_baselines(Labeller(data, ("click", "buy"), 4.0, 0), data.train, chain).values():
        assert all(logit.isfinite().all() for logit in made(*every_pair(2, 4)).values())


@pytest.mark.parametrize("part", ["validation", "test"])
def test_baselines_do_not_depend_on_held_out_rows(tiny, part):
    held_out = getattr(tiny, part)
    inverted = replace(held_out, ratings=6 - held_out.ratings)
    other = replace(tiny, **{part: inverted[slice(0, len(held_out) // 2)]})
    pairs = every_pair(60, 80)
    plain, changed = LabelTask(tiny).baselines(), LabelTask(other).baselines()
    for name in NAMES:
        assert all(logit.equal(changed[name](*pairs)[label]) for label, logit in plain[name](*pairs).items())


@pytest.mark.parametrize("chain", ["joint", "conditional"])
def test_baselines_are_evaluated_like_networks(tiny, chain):
    task = LabelTask(tiny, chain=chain)
    found = {name: task.metrics(made, "test") for name, made in task.baselines().items()}
    for metric in ("view_auc", "like_auc", "like_given_view_auc", "view_user_auc"):
        assert found["constant"][metric] == 0.5
    assert found["constant"]["view_entropy"] == pytest.approx(1, abs=1e-6)  # a fifth of all rows, here and in train
    assert found["constant"]["view_calibration"] == pytest.approx(1, abs=1e-6)
    assert found["popularity"]["view_auc"] > 0.7
    assert found["popularity"]["like_given_view_auc"] == 0.5
    assert found["item mean"]["like_given_view_auc"] > 0.6
    assert found["user + item mean"]["like_given_view_auc"] > found["item mean"]["like_given_view_auc"]


def test_the_first_label_of_a_chain_has_a_user_term_where_no_negatives_are_drawn(tmp_path, tiny):
    lines = [f"{u},{i},{int(u % 2 + i % 3 > 0)},{int(i % 3 > 0)}" for u in range(9) for i in range(9)]
    (tmp_path / "shown.csv").write_text("\n".join(["user,item,a,b", *lines]))
    data = dataset.load(feedback=str(tmp_path / "shown.csv"), labels=("a", "b"), test_fraction=0.3)
    joint, alone = (
        LabelTask(data, ("a", "b"), negatives=0, chain=chain).baselines()["user + item mean"]
        for chain in ("joint", "none")
    )
    torch.testing.assert_close(joint(*every_pair(9, 9))["a"], alone(*every_pair(9, 9))["a"])
    drawn = LabelTask(tiny).baselines()["user + item mean"]
    assert drawn.users[0].count_nonzero() == 0  # users hardly differ in it


# known figures of MovieLens 100K with four negatives a rating; another split moves them by less than the tolerance


@pytest.fixture(scope="module")
def real(movielens) -> LabelTask:
    data = dataset.load("ml-100k", os.environ["MOVIELENS_DIR"], test_fraction=0.1, val_fraction=1 / 9)
    return LabelTask(data)


def test_popularity_predicts_views_well(real):
    rows = real._evaluated["test"]
    counts = torch.bincount(real.data.train.item_ids, minlength=1682)
    assert roc_auc(counts[rows.item_ids], rows.labels[:, 0]) == pytest.approx(0.845, abs=0.007)
    found = real.metrics(real.baselines()["popularity"], "test")["view_auc"]
    assert found == pytest.approx(0.845, abs=0.007)


def test_user_activity_does_not_predict_views(real):
    rows = real._evaluated["test"]
    counts = torch.bincount(real.data.train.user_ids, minlength=943)
    assert roc_auc(counts[rows.user_ids], rows.labels[:, 0]) == pytest.approx(0.5, abs=1e-12)


def test_views_predict_likes_over_all_rows(real):
    view, like = real._evaluated["test"].labels.unbind(dim=1)
    assert roc_auc(view, like) == pytest.approx(0.949, abs=0.003)


def test_means_predict_likes_among_viewed_items(real):
    found = {name: real.metrics(made, "test") for name, made in real.baselines().items()}
    assert found["item mean"]["like_given_view_auc"] == pytest.approx(0.70, abs=0.01)
    # 0.755 without shrinking
    assert found["user + item mean"]["like_given_view_auc"] == pytest.approx(0.765, abs=0.015)
    assert found["user + item mean"]["like_calibration"] == pytest.approx(1, abs=0.05)
