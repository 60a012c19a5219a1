"""benchmark.py fold_in: which rows are held out, and its table."""

import pytest

import benchmark
from benchmarks.fold_in import hold_out, measure_fold_in
from dataset import Data, load
from registry import make_config


@pytest.fixture(scope="module")
def data() -> Data:
    return load("simulated", simulated_size=(60, 80, 2400))


def test_held_out_users_are_in_no_training_row(data):
    held = hold_out(data, seed=3)
    assert len(held.users) == 6
    assert not set(held.users) & set(held.trained.users)
    counts = held.given.offsets.diff()
    total = counts + held.hidden.offsets.diff()
    assert (counts == (0.8 * total).ceil()).all()
    assert len(held.trained.train) + len(held.given) + len(held.hidden) == len(data.interactions)

    def named(rows, users):
        return {(users[u], i) for u, i in zip(rows.user_ids.tolist(), rows.item_ids.tolist(), strict=True)}

    everything = named(data.interactions, data.users)
    assert named(held.along.train, held.along.users) | named(held.along.test, held.along.users) == everything
    assert named(held.hidden, held.users) == named(held.along.test, held.along.users)


def test_the_table_has_every_method_and_leaves_out_what_it_cannot_do(data, capsys):
    small = {"epochs": 1, "embedding_dim": 4, "quiet": True, "dataset": "simulated"}
    measure_fold_in({name: make_config(name, **small) for name in ("multitask", "mmoe")}, data, seeds=(0, 1))
    rated, labelled = capsys.readouterr().out.strip().split("\n\n")
    for method in ("popularity", "EASE, lambda 200", "folded in", "trained along"):
        assert method in rated
        assert method in labelled
    assert "SIMULATED" in rated
    assert "mse" not in labelled
    biases = rated.splitlines()[-1]
    assert biases.startswith("user + item biases")
    assert biases.count("n/a") == 3


def test_an_unknown_model_is_refused(capsys):
    assert benchmark.main(["fold_in", "dyadic"]) == 2
    assert "choose champion or a --model" in capsys.readouterr().err
