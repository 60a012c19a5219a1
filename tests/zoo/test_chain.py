"""Labels that form a chain, and those that break it."""

import pytest
from conftest import FEEDBACK, feedback_file

import dataset
from config.errors import UserError
from zoo.chain import require_chain


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
        "one is 0; fix the rows, give --labels in the order of the chain, or choose another model"
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
