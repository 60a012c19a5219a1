"""The baselines: every number by hand on three ratings, and their known values on MovieLens."""

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

NAMES = ["constant", "popularity", "item mean", "user + item mean"]
CHAINS = ("joint", "conditional", "none")

# User 0 likes item 0 and not item 1, user 1 likes item 0; two negatives each. User 0 draws 4 from the items 2 and 3,
# user 1 draws 2 from the items 1, 2 and 3: 2/3, 8/3 and 8/3 are expected of these three. Ten average rows are added.
RATED = {(0, 0): 5.0, (0, 1): 2.0, (1, 0): 4.0}
VIEW = 3 / 9
VIEW_OF_ITEM = [VIEW + (2 - 2 / 3) / 12, VIEW + (1 - 5 / 9) / (5 / 3 + 10), VIEW - 8 / 9 / (8 / 3 + 10)]
LIKE = 2 / 3
LIKE_OF_ITEM = [LIKE + (2 - 4 / 3) / 12, LIKE - 2 / 3 / 11, LIKE]
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
    by_user = [[chance + own for chance in liked] for own in LIKE_OF_USER]
    assert found["user + item mean"] == {"view": about([viewed] * 2), "like": about(by_user)}


@pytest.mark.parametrize("label", ["view", "like"])
def test_the_first_label_of_a_chain_is_counted_over_all_rows_and_their_negatives(label):
    """With one label or several; users have no term of their own."""
    rate = {"view": 3 / 9, "like": 2 / 9}[label]
    for made in (of_toy("none"), of_toy("joint", (label,))):
        found = {name: chances(baseline(*every_pair(2, 4)), 4)[label] for name, baseline in made.items()}
        assert found["constant"] == about([[rate] * 4] * 2)
        best = rate + (2 - 2 * rate) / 12
        for name in NAMES[1:]:
            assert found[name][:, 0].tolist() == pytest.approx([best, best], abs=1e-5)


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
