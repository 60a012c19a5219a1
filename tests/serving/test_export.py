"""experiments.py export: the files, their check against the run, and what is refused."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, run

import experiments
from config.errors import UserError
from serving import export as exporting
from serving import load_run

MOVIES = ["--dataset", "simulated", "--simulated_size", "60", "80", "2400", "--epochs", "1", "--quiet"]
SMALL_ZOO = ["--embedding_dim", "4", "--expert_units", "4", "--tower_units", "4", "--experts", "2"]
FAMILIES = {
    "shared": ["--init_rating_bias", "--embedding_dim", "4", "--layer_sizes", "12", "5"],
    "separate": ["--init_rating_bias", "--embedding_dim", "4", "--layer_sizes", "12", "5", "--no_shared_embeddings"],
    "mmoe": ["--model", "mmoe", *SMALL_ZOO],
    "conditional": ["--model", "omoe", "--chain", "conditional", *SMALL_ZOO],
    "dyadic": ["--model", "dyadic", "--min_user", "5", "--min_item", "5", "--iterations", "300"],
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """{family: a run folder}; the ratings are simulated."""
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MOVIELENS_DIR", raising=False)
        for name, flags in FAMILIES.items():
            assert run(*MOVIES, *flags, "--device", "cpu", "--logdir", name) == 0
    return {name: folder / name for name in FAMILIES}


@pytest.fixture
def no_packages_needed(monkeypatch):
    monkeypatch.setattr(exporting, "require_packages", lambda format: None)


def refused(capsys, *arguments) -> str:
    """Run an export that must be refused: its sentence."""
    capsys.readouterr()
    assert experiments.main(["export", *map(str, arguments)]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


@pytest.mark.parametrize("family", FAMILIES)
def test_safetensors_hold_every_weight_beside_the_ids(family, runs, elsewhere, capsys):
    safetensors = pytest.importorskip("safetensors.torch")
    assert experiments.main(["export", str(runs[family]), "--format", "safetensors"]) == 0
    assert "the same to the last bit" in capsys.readouterr().out
    folder = elsewhere / "results/export" / family
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "users.csv", "items.csv", "README.txt"}
    trained = load_run(runs[family], "cpu")
    state, weights = trained.model.state_dict(), safetensors.load_file(folder / "model.safetensors")
    assert set(weights) == set(state)
    assert all(torch.equal(weights[name], state[name]) for name in state)
    users, items = (
        pd.read_csv(folder / f"{name}.csv", dtype=str, keep_default_na=False) for name in ("users", "items")
    )
    assert list(users["row"]) == [str(row) for row in range(len(trained.users))]
    assert (list(users["id"]), list(items["id"])) == (list(trained.users), list(trained.items))
    assert list(items["title"]) == list(trained.task.data.titles)
    assert list(items["genres"]) == list(trained.task.data.genres)
    text = (folder / "README.txt").read_text()
    assert "SIMULATED DATA" in text
    assert all(f"  {name} " in text for name in state)


def formula(tensors: dict[str, np.ndarray], tables: tuple[str, str], user: int, item: int) -> tuple[float, float]:
    """Score and rating of a pair as README.txt has them, number by number."""
    ranking, rating = tables
    u, q = tensors[f"U{ranking}.weight"][user], tensors[f"Q{ranking}.weight"][item]
    v, w = tensors[f"U{rating}.weight"][user], tensors[f"Q{rating}.weight"][item]
    score = math.fsum(a * b for a, b in zip(u, q, strict=True)) + tensors["B.weight"][item, 0]
    hidden = [*v, *w, *(a * b for a, b in zip(v, w, strict=True))]
    for number in (0, 2):
        layer = zip(tensors[f"mlp_layers.{number}.weight"], tensors[f"mlp_layers.{number}.bias"], strict=True)
        hidden = [math.fsum(a * b for a, b in zip(row, hidden, strict=True)) + bias for row, bias in layer]
        hidden = hidden if number == 2 else [max(0.0, value) for value in hidden]
    return score, min(5.0, max(1.0, hidden[0]))


@pytest.mark.parametrize(("family", "tables"), [("shared", ("", "")), ("separate", ("_fact", "_reg"))])
def test_the_formulas_beside_the_tensors_give_the_predictions(family, tables, runs, elsewhere):
    safetensors = pytest.importorskip("safetensors.numpy")
    trained = load_run(runs[family], "cpu")
    exporting.export(trained, "safetensors", elsewhere / "out")
    tensors = safetensors.load_file(elsewhere / "out/model.safetensors")
    users, items = [3, 0, 59], [0, 79, 7]
    found = [formula(tensors, tables, user, item) for user, item in zip(users, items, strict=True)]
    expected = trained.predict(trained.users[users], trained.items[items])[["score", "predicted_rating"]]
    np.testing.assert_allclose(found, expected.to_numpy(), atol=1e-5)
    assert len(set(expected["predicted_rating"])) == 3  # not clipped
    text = (elsewhere / "out/README.txt").read_text()
    assert f"u = U{tables[0]}.weight[user]" in text
    assert f"w = Q{tables[1]}.weight[item]" in text


def test_weights_that_differ_in_one_bit_are_not_exported(runs, elsewhere, monkeypatch, capsys):
    safetensors = pytest.importorskip("safetensors.torch")
    save = safetensors.save_file

    def save_another(state, path, metadata):
        save(state | {"B.weight": torch.nextafter(state["B.weight"], torch.tensor(9.0))}, path, metadata)

    monkeypatch.setattr(safetensors, "save_file", save_another)
    message = refused(capsys, runs["shared"], "--format", "safetensors")
    assert "does not hold the weights" in message
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("family", ["shared", "mmoe", "conditional"])
@pytest.mark.parametrize("error", [0.0, 3e-5, math.nan])
def test_the_check_of_onnx_allows_rounding_alone(
    family, error, runs, elsewhere, monkeypatch, capsys, no_packages_needed
):
    trained = load_run(runs[family], "cpu")

    def predict(path, inputs):
        users, items = (torch.from_numpy(inputs[name]) for name in ("user_ids", "item_ids"))
        assert len(users) == len(items) == 1000
        assert set(users.tolist()) == set(range(60))
        columns = [
            column.numpy().copy() for column in trained.task.score(trained.model.eval(), users, items)[1].values()
        ]
        columns[-1][500] += error * (1 + abs(columns[-1][500]))
        return columns

    monkeypatch.setattr(exporting, "_save_onnx", lambda columns, names, path, *pairs: path.write_text("a network"))
    monkeypatch.setattr(exporting, "_run_onnx", torch.no_grad()(predict))
    if error == 0:
        assert experiments.main(["export", str(runs[family]), "--format", "onnx"]) == 0
        assert (elsewhere / f"results/export/{family}/model.onnx").is_file()
    else:
        assert "predicts something else" in refused(capsys, runs[family], "--format", "onnx")
        assert list(elsewhere.iterdir()) == []


def test_a_network_that_cannot_be_converted_gets_a_sentence(runs, elsewhere, monkeypatch, capsys, no_packages_needed):
    def fail(*arguments):
        raise RuntimeError("no such operation\nand much more")

    monkeypatch.setattr(exporting, "_save_onnx", fail)
    assert "cannot be exported (no such operation)" in refused(capsys, runs["shared"], "--format", "onnx")
    assert list(elsewhere.iterdir()) == []


def test_dyads_have_no_onnx(runs, elsewhere, capsys, no_packages_needed):
    message = refused(capsys, runs["dyadic"], "--format", "onnx")
    assert "its predictions need the features of a dyad beside the two ids; --format safetensors" in message
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("family", ["shared", "separate", "mmoe", "conditional"])
def test_onnx_predicts_any_number_of_pairs(family, runs, elsewhere):
    for package in exporting.PACKAGES["onnx"]:
        pytest.importorskip(package)
    import onnxruntime

    trained = load_run(runs[family], "cpu")
    check = exporting.export(trained, "onnx", elsewhere / "out")
    assert "in onnxruntime it predicts the same up to" in check
    session = onnxruntime.InferenceSession(elsewhere / "out/model.onnx")
    names = [output.name for output in session.get_outputs()]
    assert names == (["view", "like"] if family in ("mmoe", "conditional") else ["score", "predicted_rating"])
    for count in (1, 7):
        users, items = np.arange(count), np.arange(count)[::-1].copy()
        found = session.run(None, {"user_ids": users, "item_ids": items})
        expected = trained.predict(trained.users[users], trained.items[items])
        for name, column in zip(names, found, strict=True):
            np.testing.assert_allclose(column, expected[name], atol=1e-5)


def test_the_help_lists_every_format_and_the_requirements_every_package(capsys):
    with pytest.raises(SystemExit):
        experiments.parse(["export", "--help"])
    text = capsys.readouterr().out
    requirements = (ROOT / "serving/requirements.txt").read_text()
    for format in exporting.FORMATS:
        assert format in text
        assert all(
            f"\n{package}=" in requirements or f"\n{package}>" in requirements for package in exporting.PACKAGES[format]
        )


def test_bad_input_gets_one_sentence(runs, elsewhere, capsys, no_packages_needed):
    (elsewhere / "taken").mkdir()
    (elsewhere / "file").write_text("no folder")
    shared = runs["shared"]
    assert "taken exists already" in refused(capsys, shared, "--format", "onnx", "--folder", "taken")
    assert "cannot be written" in refused(capsys, shared, "--format", "onnx", "--folder", "file/out")
    assert "nowhere holds no run" in refused(capsys, "nowhere", "--format", "safetensors")
    assert "--format" in refused(capsys, shared)
    assert "invalid choice: 'gguf'" in refused(capsys, shared, "--format", "gguf")
    assert {path.name for path in elsewhere.iterdir()} == {"taken", "file"}


@pytest.mark.parametrize("format", exporting.FORMATS)
def test_a_missing_package_is_named_with_the_command_that_installs_it(format, runs, elsewhere, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    message = refused(capsys, runs["shared"], "--format", format)
    assert (
        f"needs the package {exporting.PACKAGES[format][0]}: pip install -r requirements.txt -r serving/req" in message
    )
    with pytest.raises(UserError, match="needs the package"):
        exporting.require_packages(format)


def test_the_safetensors_say_what_they_are(runs, elsewhere):
    safetensors = pytest.importorskip("safetensors")
    exporting.export(load_run(runs["shared"], "cpu"), "safetensors", elsewhere / "out")
    with safetensors.safe_open(elsewhere / "out/model.safetensors", "np") as file:
        about = file.metadata()
    assert (about["model"], about["checkpoint"], about["simulated"]) == ("multitask", "last", "True")
    assert json.loads(about["settings"])["layer_sizes"] == [12, 5]
