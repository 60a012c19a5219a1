"""The table of published protocols: its protocols, its runs and its cells."""

import json
import math
import signal
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

import dataset
import experiments
import main
from analysis import published, runner
from analysis.folds import parse_config
from analysis.published import Figure, Protocol, as_markdown, make_protocols
from evaluation import mse_score
from multitask.baselines import Biases

LINES = [f"u{user},i{item},{1 + (user * item) % 5}" for user in range(8) for item in range(10)]


class InThisProcess:
    """A stand-in for `runner.MainProcess`: the run ends before the constructor returns."""

    def __init__(self, config, folder: Path) -> None:
        STARTS.append(folder.name)
        folder.parent.mkdir(parents=True, exist_ok=True)
        path = folder.with_suffix(".json")
        path.write_text(json.dumps(config.to_dict() | {"logdir": str(folder), "quiet": True}))
        assert main.main(["--config", str(path)]) == 0

    def wait(self) -> None:
        pass


STARTS: list[str] = []


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setattr(runner, "MainProcess", InThisProcess)
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # jobs run in threads, which may set none
    STARTS.clear()


def split_files(folder: Path, number: int = 0) -> tuple[str, str]:
    """A train and a test file; every user and item has train rows."""
    test = [line for place, line in enumerate(LINES) if (place + place // 10) % 5 == number]
    train = [line for line in LINES if line not in test]
    paths = []
    for name, lines in (("train", train), ("test", test)):
        paths.append(folder / f"{name}{number}.csv")
        paths[-1].write_text("\n".join(["user,item,rating", *lines]))
    return str(paths[0]), str(paths[1])


def make_config(files: tuple[str, str]):
    config = parse_config(["--epochs=1", "--embedding_dim=4", "--layer_sizes", "12"])
    return replace(config, train_ratings=files[0], test_ratings=files[1], rating_scale=(1.0, 5.0))


@pytest.fixture
def everything(elsewhere) -> Path:
    """MovieLens 100K with its folds and ml-latest-small, both tiny and made up."""
    folder = elsewhere / "data" / "ml-100k"
    folder.mkdir(parents=True)
    rows = [line.replace("u", "").replace("i", "").split(",") for line in LINES]
    lines = ["\t".join([*row, "0"]) for row in rows]
    (folder / "u.data").write_text("\n".join(lines))
    for number in range(1, 6):
        test = [line for place, line in enumerate(lines) if (place + place // 10) % 5 == number - 1]
        (folder / f"u{number}.test").write_text("\n".join(test))
        (folder / f"u{number}.base").write_text("\n".join(line for line in lines if line not in test))
    small = elsewhere / "data" / "ml-latest-small"
    small.mkdir()
    (small / "ratings.csv").write_text(
        "\n".join(["userId,movieId,rating,timestamp", *(",".join([*r, "0"]) for r in rows)])
    )
    return elsewhere


@pytest.mark.slow
def test_the_table_from_the_command_line(everything, capsys):
    douban = split_files(everything)
    command = ["published", "--model", "multitask", "--epochs", "1", "--jobs", "1"]
    assert experiments.main([*command, "--douban", *douban]) == 0
    out = capsys.readouterr().out
    root = everything / "results" / "published"
    table = pd.read_csv(root / "table.csv", index_col="protocol")
    assert list(table.index.value_counts(sort=False)) == [1, 5, 1, 3]
    assert table.loc["ml-100k, u1", "RMSE"] == table.loc["ml-100k, u1 to u5", "RMSE"].iloc[0]
    five = table.loc["ml-100k, u1 to u5", "RMSE"]
    assert f"| ml-100k, u1 to u5 | 5 | {five.mean():.4f} ± {five.std():.4f} |" in out
    assert "9/9 " in out
    assert len(STARTS) == len(set(STARTS)) == 9
    assert "GLocal-K 0.889, best test epoch" in out

    # a second call, now without Douban, repeats nothing
    assert experiments.main(command) == 0
    assert len(STARTS) == 9
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| Douban"))
    assert row.startswith("| Douban, split of Monti et al. 2017 | 0 | give its files by --douban TRAIN TEST | n/a |")
    assert "GC-MC 0.734" in row


def test_the_champion_is_the_default(everything, monkeypatch):
    made = []
    monkeypatch.setattr(published, "run", lambda folder, protocols, jobs, log: made.extend(protocols) or [])
    monkeypatch.setattr(experiments, "show", lambda paths: None)
    assert experiments.main(["published"]) == 0
    assert experiments.main(["published", "--model", "multitask"]) == 0
    models = [{config.model for config in protocol.configs} for protocol in made]
    assert models[:4] == [{"closed_form"}, {"closed_form"}, set(), {"closed_form"}]
    assert models[4:] == [{"multitask"}, {"multitask"}, set(), {"multitask"}]


def test_a_protocol_names_its_splits(everything):
    u1, folds, douban, random = make_protocols(["--model=multitask"], None, split_files(everything))
    assert u1.configs == folds.configs[:1]
    assert [Path(config.test_ratings).name for config in folds.configs] == [f"u{n}.test" for n in range(1, 6)]
    assert douban.configs[0].rating_scale == (1.0, 5.0)
    assert [(config.dataset, config.seed, config.test_fraction) for config in random.configs] == [
        ("ml-latest-small", seed, 0.05) for seed in (0, 1, 2)
    ]


def test_the_biases_are_those_of_the_same_split(elsewhere):
    config = make_config(split_files(elsewhere))
    protocol = Protocol("one split", (config,))
    published.run(elsewhere / "out", [protocol], 1, lambda line: None)
    row = pd.read_csv(elsewhere / "out" / "table.csv").iloc[0]
    data = dataset.load(**config.data_options)
    assert row["RMSE of biases"] == pytest.approx(math.sqrt(mse_score(Biases(data.train), data.test)), rel=1e-6)
    assert row["clipped RMSE"] <= row["RMSE"]


def test_cells_by_hand(elsewhere):
    config = make_config(("a", "b"))
    measured = pd.DataFrame({"RMSE": [1.0, 2.0], "clipped RMSE": [1, 1], "MRR": [0.5, 0.5], "RMSE of biases": [3, 5]})
    figures = (Figure("A", 0.9, "X 2001"), Figure("B", 0.85, "Y 2002", best_test_epoch=True))
    protocols = [Protocol("two", (config, config), figures), Protocol("none", (), (), "give it")]
    records = [{"simulated": False, "notes": ["3 rows were left out"]}] * 2
    text = as_markdown(protocols, {"two": measured}, records)
    cells = "2 | 1.5000 ± 0.7071 | 1.0000 ± 0.0000 | 0.5000 ± 0.0000 | 4.0000 ± 1.4142"
    assert f"| two | {cells} | A 0.900; B 0.850, best test epoch |" in text
    assert "| none | 0 | give it | n/a | n/a | n/a | none |" in text
    assert "Sources: A: X 2001; B: Y 2002." in text
    assert text.count("- 3 rows were left out.") == 1
    assert "SIMULATED" not in text


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--model", "mmoe"], "--model mmoe has no RMSE: choose multitask or closed_form"),
        (["--model", "dyadic"], "--model dyadic has splits of its own and no folds: choose another model"),
        (["--douban", "nowhere.csv", "nothing.csv"], "nowhere.csv"),
        (["--douban", "nowhere.csv"], "--douban: expected 2 arguments"),
        (["--quick"], "--quick"),
    ],
)
def test_bad_input_gets_one_sentence(everything, capsys, flags, sentence):
    assert experiments.main(["published", *flags]) == 2
    message = capsys.readouterr().err
    assert sentence in message
    assert message.count("\n") == 1
    assert not (everything / "results").exists()


def test_data_that_cannot_be_had_get_one_sentence(elsewhere, capsys):
    assert experiments.main(["published"]) == 2
    message = capsys.readouterr().err
    assert "cannot be reached" in message
    assert message.count("\n") == 1
