"""Labels that form a chain, those that break it, how they are mended, and what is the root of a chain."""

from itertools import pairwise

import pandas as pd
import pytest
import torch
from conftest import FEEDBACK, feedback_file

import dataset
from config.errors import UserError
from registry import MODELS, make_config
from zoo.chain import is_chain, leave_out_root, mend_chain, require_chain
from zoo.networks import NETWORKS
from zoo.recipe import RECIPE

LABELS = ("view", "like", "buy")
SPLIT = {"test_fraction": 0.2, "val_fraction": 0.2}


def test_a_broken_chain_is_reported_with_its_row(tmp_path):
    path = feedback_file(tmp_path / "f.csv")
    kept = dataset.load(feedback=path, labels=("view", "like", "buy"), test_fraction=0.2)
    assert require_chain(kept) is None
    turned = dataset.load(feedback=path, labels=("view", "buy", "like"), test_fraction=0.2, val_fraction=0.25)
    with pytest.raises(UserError) as error:
        require_chain(turned)
    assert str(error.value) == (
        f"{path}: like is 1 where buy is 0 for user 'a' and item 'x', one of 1 such rows; models that assume a chain "
        "view > buy > like (ESMM, AITM, --chain conditional, --calibrator) require a label to be 0 wherever an earlier "
        "one is 0; fix the rows, add --mend_chain where a label implies those before it, give --labels in the order of "
        "the chain, or choose another model"
    )


@pytest.mark.parametrize("labels", [(0, 0, 1), (0, 1, 0), (0, 1, 1), (1, 0, 1)])
@pytest.mark.parametrize("seed", range(5))
def test_a_broken_chain_is_found_in_every_part(tmp_path, labels, seed):
    path = feedback_file(tmp_path / "f.csv", [*FEEDBACK, ("c", "z", *labels)])
    how = {"test_fraction": 0.2, "val_fraction": 0.2, "seed": seed}
    data = dataset.load(feedback=path, labels=("view", "like", "buy"), **how)
    with pytest.raises(UserError, match="for user 'c' and item 'z', one of 1 such rows"):
        require_chain(data)


def test_ratings_and_a_single_label_always_pass_the_chain_check(tmp_path, tiny):
    assert require_chain(tiny) is None
    data = dataset.load(feedback=feedback_file(tmp_path / "f.csv"), labels=("buy",), test_fraction=0.2)
    assert data.train.ratings.shape == (4, 1)
    assert require_chain(data) is None


# mending


def world(path, labels_of=lambda n: (1, n % 3 > 0, n % 3 > 1), break_every: int = 0) -> str:
    """A file of 30 x 20 rows. With break_every, the first label is 0 in every such row, and in the next the second."""
    rows = []
    for n in range(600):
        view, like, buy = map(int, labels_of(n))
        if break_every and n % break_every == 0:
            view = 0
        if break_every and n % break_every == 1:
            like = 0
        rows.append((f"u{n // 20}", f"i{n % 20}", view, like, buy))
    return feedback_file(path, rows)


def read(path: str, labels=LABELS, **options) -> dataset.Data:
    return dataset.load(feedback=path, labels=labels, **(SPLIT | options))


def test_mending_counts_every_planted_break(tmp_path):
    """Of n % 10 == 0 the view is 0: mended unless n % 3 == 0. Of n % 10 == 1 the like is 0: mended where n % 3 == 2."""
    data = read(world(tmp_path / "f.csv", break_every=10))
    views = sum(n % 10 == 0 and n % 3 > 0 for n in range(600))
    likes = sum(n % 10 == 1 and n % 3 == 2 for n in range(600))
    mended = mend_chain(data)
    assert mended.notes == (
        f"{views + likes} of 600 rows break the chain view > like > buy: --mend_chain sets view in {views}, like in "
        f"{likes} of them to 1",
    )
    assert require_chain(mended) is None
    assert not is_chain(data)  # which is as it was
    again = mend_chain(mended)
    assert again.interactions.ratings.equal(mended.interactions.ratings)
    assert again.notes[1] == "0 of 600 rows break the chain view > like > buy: --mend_chain changes nothing"


@pytest.mark.parametrize("labels", [LABELS, ("buy", "view", "like"), ("like", "view")])
def test_mended_data_equal_those_of_a_file_mended_by_hand(tmp_path, labels):
    path = world(tmp_path / "f.csv", break_every=7)
    table = pd.read_csv(path)
    for before, label in reversed(list(pairwise(labels))):
        table.loc[table[label] == 1, before] = 1
    table.to_csv(tmp_path / "by-hand.csv", index=False)
    mended, by_hand = mend_chain(read(path, labels)), read(str(tmp_path / "by-hand.csv"), labels)
    assert mended.fingerprint == by_hand.fingerprint != read(path, labels).fingerprint
    assert [len(part) for part in (mended.train, mended.validation, mended.test)] == [384, 96, 120]


# the root


def test_first_labels_that_are_always_1_are_the_root(tmp_path):
    path = world(tmp_path / "f.csv")
    data = leave_out_root(read(path))
    assert data.labels == ("like", "buy")
    assert data.fingerprint == read(path, ("like", "buy")).fingerprint
    assert data.notes == (
        "view is 1 in all 600 rows: the root of the chain, which is not learned; probabilities of like, buy are given "
        "view (--negatives 4 draws rows of 0, to learn it, too)",
    )
    two = leave_out_root(read(world(tmp_path / "g.csv", lambda n: (1, 1, n % 2))))
    assert two.labels == ("buy",)
    assert "view and like are 1 in all 600 rows" in two.notes[0]


@pytest.mark.parametrize(
    "labels_of",
    [lambda n: (n % 2, 1, n % 3 > 0), lambda n: (n > 0, n % 2, 0), lambda n: (1, 1, 1), lambda n: (0, 0, 1)],
    ids=["a later label is constant", "all but one row", "all labels are constant", "a constant of 0"],
)
def test_nothing_else_is_a_root(tmp_path, labels_of):
    data = read(world(tmp_path / "f.csv", labels_of))
    assert leave_out_root(data) is data


def prepared(model: str, **options):
    """The resolved config, and the fingerprint of the data."""
    config = make_config(model, **SPLIT, **options)
    data = RECIPE.load_data(config)
    return RECIPE.resolve(config, data, lambda line: None), data.fingerprint


@pytest.mark.parametrize("rest", ["like,buy", "buy"])
@pytest.mark.parametrize("model", NETWORKS)
def test_with_a_root_every_network_is_that_of_the_other_labels(tmp_path, model, rest):
    """The same config and the same data, so the same run to the last bit."""
    path = world(tmp_path / "f.csv", lambda n: (1, n % 3 > 0, n % 3 > 1))
    chains = ["auto"] if MODELS[model].requires_chain else ["auto", "joint", "conditional"]
    for chain in chains:
        options = {"feedback": path, "chain": chain}
        given = prepared(model, labels=f"view,{rest}", label_weights=(3.0, 2.0, 0.5)[: rest.count(",") + 2], **options)
        alone = prepared(model, labels=rest, label_weights=(2.0, 0.5)[: rest.count(",") + 1], **options)
        assert given == alone
        assert given[0].label_names == tuple(rest.split(","))


def test_with_negatives_and_without_a_chain_the_first_label_stays(tmp_path):
    path = world(tmp_path / "f.csv")
    for options in ({"negatives": 2}, {"chain": "none"}):
        config = make_config("mmoe", feedback=path, labels="view,like", **SPLIT, **options)
        assert RECIPE.load_data(config).labels == ("view", "like")


def test_mending_may_make_a_root(tmp_path):
    """Every row has an action, and one that is no view: the view is 1 in all mended rows."""
    path = world(tmp_path / "f.csv", lambda n: (n % 10 > 0, n % 2 or n % 10 == 0, n % 4 == 1))
    options = {"feedback": path, "labels": "view,like,buy", "mend_chain": True}
    config, _ = prepared("aitm", **options)
    assert (config.labels, config.mend_chain, config.calibrator) == ("like,buy", True, 0.6)
    config, _ = prepared("aitm", **options | {"labels": "view,like"})
    assert (config.labels, config.mend_chain, config.calibrator) == ("like", False, 0.0)
    with pytest.raises(UserError, match="like is 1 where view is 0"):
        prepared("aitm", **options | {"mend_chain": False})


def test_new_users_are_mended_as_the_data_were(tmp_path):
    path = world(tmp_path / "f.csv", break_every=10)
    config, _ = prepared("mmoe", feedback=path, labels="view,like,buy", mend_chain=True)
    data = RECIPE.load_data(config)
    task = RECIPE.build(config, data, torch.device("cpu")).task
    model = RECIPE.build(config, data, torch.device("cpu")).model
    columns = torch.tensor([0, 0]), torch.tensor([3, 4])
    rows = [
        dataset.Interactions(*columns, torch.tensor(labels, dtype=torch.float32), 1, 20)
        for labels in ([[0, 0, 1], [1, 0, 0]], [[1, 1, 1], [1, 0, 0]])
    ]
    found = [task.fold_in(model, ["new"], one) for one in rows]
    assert found[0][1].data.notes == (
        "1 of 2 rows break the chain view > like > buy: --mend_chain sets view in 1, like in 1 of them to 1",
    )
    assert found[1][1].data.notes == ()
    pairs = torch.zeros(20, dtype=torch.long), torch.arange(20)
    broken, whole = (folded_task.score(folded, *pairs)[0] for folded, folded_task in found)
    assert broken.equal(whole)
