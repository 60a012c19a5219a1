"""--start_from: rows matched by raw id, everything else copied, and what is refused."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from conftest import refused, run

from registry import make_config, recipe_for
from serving import load_run
from training.warm_start import start_from

pytestmark = pytest.mark.usefixtures("elsewhere")

CPU = torch.device("cpu")
FAMILIES = {
    "multitask": {"embedding_dim": 4},
    "separate": {"embedding_dim": 4, "shared_embeddings": False},
    "item_based": {"embedding_dim": 4, "ranking_loss": "softmax", "num_item_based": 1, "layer_sizes": (12,)},
    "me_mmoe": {"embedding_dim": 4, "expert_units": (4,), "tower_units": (4,)},
    "dyadic": {"embedding_dim": 4, "min_user": 1, "min_item": 1, "iterations": "300"},
}
USERS, ITEMS = [f"u{n}" for n in range(24)], [f"i{n}" for n in range(24)]  # as many users as items


def write(path, users, items) -> str:
    """A file of ratings in which these users and items occur in this order."""
    pairs = itertools.product(enumerate(users), enumerate(items))
    rows = [f"{u},{i},{1 + (a * 3 + b * b) % 5}" for (a, u), (b, i) in pairs if (a + b) % 3 or a == b]
    path.write_text("user,item,rating\n" + "\n".join(rows) + "\n")
    return str(path)


def make(family: str, ratings: str, **changes):
    """(config, data, training) of a small run."""
    model = family if family not in ("separate", "item_based") else "multitask"
    values = FAMILIES[family] | {"ratings": ratings, "seed": 3} | changes
    config = make_config(model, **{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})
    recipe = recipe_for(config)
    data = recipe.load_data(config)
    return config, data, recipe.build(recipe.resolve(config, data, print), data, CPU)


def train(family: str, ratings: str, folder: str = "old"):
    """Train with main.py; returns the weights of the epoch that counts."""
    config, *_ = make(family, ratings)
    settings = {name: value for name, value in config.to_dict().items() if value is not None}
    with open("settings.json", "w") as file:
        json.dump(settings | {"epochs": 2, "device": "cpu", "quiet": True}, file)
    assert run("--config", "settings.json", "--logdir", folder) == 0
    name = "best" if Path(folder, "best.pt").is_file() else "last"
    return torch.load(f"{folder}/{name}.pt", weights_only=True)["model"]


@pytest.mark.parametrize("family", FAMILIES)
def test_with_unchanged_data_it_starts_at_the_old_weights_to_the_last_bit(family, tmp_path):
    old = train(family, write(tmp_path / "my.csv", USERS, ITEMS))
    _, _, training = make(family, "my.csv", seed=4)
    fresh = {name: value.clone() for name, value in training.model.state_dict().items()}
    start_from(tmp_path / "old", training.model, training.task, CPU)
    state = training.model.state_dict()
    assert set(state) == set(old)
    assert all(torch.equal(state[name], old[name]) for name in state)
    assert any(not torch.equal(state[name], fresh[name]) for name in state)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_matched_by_raw_id_and_new_ones_keep_what_the_seed_draws(family, tmp_path):
    old = train(family, write(tmp_path / "my.csv", USERS, ITEMS))
    before = load_run("old", "cpu")
    users, items = ["new1", *USERS[:2:-1]], [*ITEMS[:3:-1], "new2"]  # others gone, the rest in another order
    _, data, training = make(family, write(tmp_path / "more.csv", users, items))
    model = training.model
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    assert "21 of 22 users" in start_from(tmp_path / "old", model, training.task, CPU)
    kinds = training.task.row_tables(model)
    assert {"user", "item"} == set(kinds.values())
    for name, value in model.state_dict().items():
        if name not in kinds:
            assert torch.equal(value, old[name])
            continue
        now, then = (data.users, before.users) if kinds[name] == "user" else (data.items, before.items)
        assert list(now) != list(then)[: len(now)]
        for row, raw in enumerate(now):
            known = list(then).index(raw) if raw in then else None
            assert torch.equal(value[row], fresh[name][row] if known is None else old[name][known])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_table_of_users_or_items_is_named(family, tmp_path):
    """A table grows with the users or items alone, so that no parameter is left out of `row_tables`."""
    _, data, small = make(family, write(tmp_path / "my.csv", USERS[:20], ITEMS[:23]))
    _, more, large = make(family, write(tmp_path / "more.csv", USERS[:22], ITEMS))
    sizes = [{"user": len(d.users), "item": len(d.items)} for d in (data, more)]
    shapes = [{name: value.shape for name, value in t.model.state_dict().items()} for t in (small, large)]
    grown = {name for name in shapes[0] if shapes[0][name] != shapes[1][name]}
    kinds = small.task.row_tables(small.model)
    assert grown == set(kinds)
    assert all(shapes[n][name][0] == sizes[n][kind] for name, kind in kinds.items() for n in (0, 1))


def test_from_the_command_line_and_resumed(tmp_path, capsys):
    write(tmp_path / "my.csv", USERS, ITEMS)
    flags = ["--ratings", "my.csv", "--embedding_dim", "4", "--device", "cpu"]
    assert run(*flags, "--epochs", 3, "--logdir", "old") == 0
    write(tmp_path / "my.csv", [*USERS, "new"], ITEMS)
    assert run(*flags, "--epochs", 2, "--start_from", "old", "--logdir", "whole") == 0
    assert "24 of 25 users and 24 of 24 items are known there" in capsys.readouterr().out
    settings = json.loads((tmp_path / "whole/config.json").read_text())["settings"]
    assert settings["start_from"] == str(tmp_path / "old")
    assert run(*flags, "--epochs", 1, "--start_from", "old", "--logdir", "parts") == 0
    (tmp_path / "old").rename(tmp_path / "gone")  # a resumed run does not start again
    capsys.readouterr()
    assert run("--resume", "parts", "--epochs", 2) == 0
    assert "known there" not in capsys.readouterr().out
    whole, parts = ((tmp_path / name / "metrics.csv").read_bytes() for name in ("whole", "parts"))
    assert whole == parts


def test_the_best_epoch_counts_where_there_is_one(tmp_path):
    write(tmp_path / "my.csv", USERS, ITEMS)
    assert run("--ratings", "my.csv", "--val_fraction", 0.2, "--monitor", "mse", "--lr", 0.2, "--epochs", 8,
               "--embedding_dim", 4, "--logdir", "old") == 0  # fmt: skip
    best, last = (torch.load(f"old/{name}.pt", weights_only=True)["model"] for name in ("best", "last"))
    assert not torch.equal(best["U.weight"], last["U.weight"])
    _, _, training = make("multitask", "my.csv")
    assert "best epoch" in start_from(tmp_path / "old", training.model, training.task, CPU)
    assert torch.equal(training.model.U.weight, best["U.weight"])


REFUSED = {
    "no run": (["--start_from", "nowhere"], "nowhere holds no run"),
    "other model": (["--model", "mmoe"], "old is a run of --model multitask, and this one is of --model mmoe"),
    "other width": (["--embedding_dim", "8"], "has --embedding_dim 4 and --layer_sizes 12 64, and this run has --emb"),
    "other tables": (["--no_shared_embeddings"], "has --shared_embeddings, and this run has --no_shared_embeddings"),
    "closed forms": (["--model", "closed_form"], "which is fitted from scratch in every run: leave it out"),
    "ensemble": (["--ensemble_size", "2", "--layer_sizes", "12"], "does not apply to --ensemble_size 2"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_in_one_sentence(case, tmp_path, capsys):
    train("multitask", write(tmp_path / "my.csv", USERS, ITEMS))
    capsys.readouterr()
    arguments, sentence = REFUSED[case]
    width = ["--embedding_dim", "4"] if case not in ("other width", "closed forms") else []
    flags = ["--ratings", "my.csv", *width, "--start_from", "old", *arguments, "--logdir", "new"]
    assert sentence in refused(capsys, *flags)
    assert not (tmp_path / "new").exists()


def test_other_columns_of_the_data_are_found_by_shape(tmp_path, capsys):
    lines = [f"u{a},i{b},{(a + b) % 2},{(a * b) % 2},{int(a == b)},{a},{b}" for a in range(9) for b in range(9)]
    (tmp_path / "f.csv").write_text("user,item,clicked,bookmarked,replied,age,price\n" + "\n".join(lines) + "\n")
    flags = ["--model", "dyadic", "--feedback", "f.csv", "--min_user", "1", "--min_item", "1", "--iterations", "100",
             "--epochs", "1", "--device", "cpu"]  # fmt: skip
    assert run(*flags, "--context", "age", "--logdir", "old") == 0
    capsys.readouterr()
    sentence = refused(capsys, *flags, "--context", "age,price", "--start_from", "old", "--logdir", "new")
    assert "its w1 has the shape" in sentence
    assert not (tmp_path / "new").exists()


CHANGED = {
    "more": (lambda text: text + "new,i1,3\nu1,newer,3\n", "24 users then and 25 now, 24 items then and 25 now, "),
    "other ids": (lambda text: text.replace("u7,", "you7,"), "as many users, items and rows, but other ids"),
    "one rating": (lambda text: text.replace("u0,i0,1", "u0,i0,2"), "but 1 with other values"),
    "order": (
        lambda text: "\n".join([*text.splitlines()[:-2], *text.splitlines()[:-3:-1]]) + "\n",
        "in another order or split",
    ),
}


@pytest.mark.parametrize("case", CHANGED)
def test_resuming_says_what_changed_and_how_to_go_on(case, tmp_path, capsys):
    path = tmp_path / "my.csv"
    train("multitask", write(path, USERS, ITEMS))
    change, sentence = CHANGED[case]
    path.write_text(change(path.read_text()))
    capsys.readouterr()
    message = refused(capsys, "--resume", "old", "--epochs", 4)
    assert "the data are not those of the run" in message
    assert sentence in message
    command = message.partition("weights: python main.py ")[2].split()
    assert run(*command, "--epochs", 1) == 0
    assert json.loads((tmp_path / "old-2/config.json").read_text())["settings"]["epochs"] == 1


def test_resuming_without_the_file_names_it(tmp_path, capsys):
    train("multitask", write(tmp_path / "my.csv", USERS, ITEMS))
    (tmp_path / "my.csv").unlink()
    capsys.readouterr()
    message = refused(capsys, "--resume", "old", "--epochs", 4)
    assert f"{tmp_path / 'my.csv'}, the --ratings of old, is missing: restore it, or start a new run" in message
