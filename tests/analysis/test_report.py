"""weights, sweep and report from the command line: continued experiments and the page of all results."""

import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pandas as pd
import pytest
import study_runs
from conftest import ROOT

import experiments
from analysis import answers, configuration, metadata, sweep, user_bias, weights
from analysis.tables import MARK
from multitask.recipe import MultiTaskRecipe
from training.report import BOX

PNG = b"\x89PNG\r\n\x1a\nnot a real picture"
METADATA = {  # of the parts that are written by hand
    "zoo": metadata.assemble(
        data="ml-100k", simulated=False, is_quick=False, seeds=[1, 0], runs=28, statistics={"users": "943"},
        settings={"epochs": 20, "tower_units": [32], "patience": None, "label_weights": [], "val_fraction": 1 / 9},
        versions=[{"torch": "2"}, {"torch": "3"}],
    ),
    "dyadic": metadata.assemble(
        data="one, two", simulated=False, is_quick=False, seeds=[0], runs=2,
        statistics={"one": {"dyads": "12,345"}, "two": {"dyads": "6,789"}},
        settings={"eps": 0.0, "held_out": True}, versions=[{"torch": "2"}],
    ),
}  # fmt: skip


def no_bias(runs, results) -> pd.DataFrame:
    """Instead of user_bias.measure_all, which needs trained networks."""
    return pd.DataFrame([{"row": "x", "seed": 0, "loss": 0.1, "loss_with_bias": 0.1, "mrr": 0.2, "mrr_with_bias": 0.2}])


def set_up(folder: Path, monkeypatch, data) -> None:
    """Let the experiments start the stand-in for main.py and load these data."""
    study_runs.stand_in_for_main(folder / "stand_in.py", monkeypatch)
    monkeypatch.setattr(configuration, "QUICK", {"epochs": 2, "dataset": "simulated"})
    monkeypatch.setattr(MultiTaskRecipe, "load_data", lambda self, config: data)
    monkeypatch.setattr(user_bias, "measure_all", no_bias)


@pytest.fixture
def stand_in(elsewhere, monkeypatch, tiny) -> None:
    set_up(elsewhere, monkeypatch, tiny)


def command(*arguments) -> int:
    return experiments.main([*map(str, arguments)])


# continued experiments


def test_a_killed_experiment_continues_with_unfinished_runs(stand_in, capsys):
    runs = Path("results/multitask-quick/runs")
    runs.mkdir(parents=True)
    (runs / "crash").touch()
    assert command("weights", "--quick", "--jobs", 1) == 2
    assert "ended with code -9" in capsys.readouterr().err
    before = study_runs.starts(runs)
    finished = {path.parent.name for path in runs.glob("*/result.json")}
    assert len(finished) == 4  # those of seed 0
    assert not (runs.parent / "weights.json").exists()
    (runs / "crash").unlink()
    assert command("weights", "--quick", "--jobs", 1) == 0
    after = study_runs.starts(runs)[len(before) :]
    assert len(after) == 4
    assert not set(after) & finished
    assert set(before) == finished | (set(before) & set(after))
    assert pd.read_csv(runs.parent / "curves.csv").groupby(["row", "seed"]).ngroups == 8


def test_a_changed_setting_makes_new_runs_and_tables_of_these_alone(stand_in):
    runs = Path("results/multitask-quick/runs")
    assert command("weights", "--quick", "--seeds", 1) == 0
    assert command("weights", "--quick", "--seeds", 1, "--epochs", 3) == 0
    assert len(set(study_runs.starts(runs))) == 8
    curves = pd.read_csv(runs.parent / "curves.csv")
    assert curves.groupby(["row", "seed"])["epoch"].max().tolist() == [3] * 4
    assert json.loads((runs.parent / "weights.json").read_text())["settings"]["epochs"] == 3


@pytest.fixture(scope="module")
def made_once(tmp_path_factory, tiny) -> Path:
    """Results of every experiment: the multi-task net's by the stand-in, the others' written by hand."""
    results = tmp_path_factory.mktemp("study") / "results"
    with pytest.MonkeyPatch.context() as monkeypatch:
        set_up(results.parent, monkeypatch, tiny)
        for name in ("weights", "sweep"):
            assert command(name, "--quick", "--jobs", 4, "--folder", results / "multitask-quick") == 0
    for name, text in (("zoo", "| | view AUC |\n|---|---|\n| MMoE | 0.9 \\* |"), ("dyadic", "# Four tasks\n\n## here")):
        (results / name).mkdir()
        (results / name / "table.md").write_text(text)
        (results / name / "table.png").write_bytes(PNG)
        study_runs.write_json(results / name / f"{name}.json", METADATA[name])
    return results


@pytest.fixture
def full(made_once, stand_in) -> Path:
    return shutil.copytree(made_once, Path("results"))


def test_runs_that_both_experiments_need_are_run_once(made_once):
    folder = made_once / "multitask-quick"
    started = study_runs.starts(folder / "runs")
    assert len(started) == len(set(started)) == 2 * len(sweep.QUICK)
    assert {path.name for path in folder.iterdir()} == {
        "runs", "weights.md", "weights.csv", "curves.csv", "user_bias.csv", "weights.png", "weights.json",
        "sweep.md", "sweep.csv", "sweep_runs.csv", "sweep.png", "sweep.json",
    }  # fmt: skip


# the page


def read_html(folder: Path) -> ET.Element:
    """The page as a tree; raises where it is not well-formed."""
    return ET.fromstring((folder / "report.html").read_text(encoding="utf-8"))


def test_the_page_is_self_contained_and_well_formed(full):
    assert command("report") == 0
    root = read_html(full)
    assert root.get("lang") == "en"
    pictures = root.findall(".//img")
    assert len(pictures) == 4
    assert all(picture.get("src").startswith("data:image/png;base64,") for picture in pictures)
    assert all(picture.get("alt") for picture in pictures)
    assert not root.findall(".//script")
    assert not root.findall(".//link")
    assert "url(" not in root.find(".//style").text
    ids = [node.get("id") for node in root.iter() if node.get("id")]
    links = [node.get("href") for node in root.findall(".//a")]
    assert len(ids) == len(set(ids))
    assert len(links) == 7 + 2 * len(pictures)  # the list of sections; to open and to close a picture
    assert all(link.startswith("#") and link[1:] in ids for link in links)
    assert all(cell.get("scope") == "col" for cell in root.findall(".//th"))
    assert len(root.findall(".//table")) == len(root.findall(".//div[@class='scroll']/table")) > 5


def test_the_users_of_the_dyadic_learner_are_shown(full):
    (full / "dyadic" / "users.png").write_bytes(PNG)
    assert command("report") == 0
    assert "](dyadic/users.png)" in (full / "report.md").read_text(encoding="utf-8")
    assert len(read_html(full).findall(".//img")) == 5


def test_markdown_and_html_have_the_same_content(full):
    assert command("report") == 0
    text = (full / "report.md").read_text(encoding="utf-8")
    html = " ".join("".join(read_html(full).itertext()).split())
    for picture in re.findall(r"!\[[^]]+\]\(([^)]+)\)", text):
        assert (full / picture).is_file()
    curves = pd.read_csv(full / "multitask-quick" / "curves.csv")
    compared = answers.compare_all(curves)
    for question in answers.QUESTIONS:
        conclusion = answers.answer(question, compared[question.title], curves).split("**")[1]
        assert conclusion in text
        assert conclusion in html
    table = pd.read_csv(full / "multitask-quick" / "weights.csv", index_col=0)
    for value in table["last_mrr mean"]:
        assert f"{value:.4f} ±" in html
    for number in ("60", "80", "2,400", "torch", "batch_size", "0.9 *", "Four tasks"):
        assert number in html
    assert "#### Four tasks" not in text
    assert "### Four tasks" in text


def test_answers_change_with_the_evidence(full):
    curves = full / "multitask-quick" / "curves.csv"
    for effect, conclusion in ((0.2, "MRR: better"), (-0.2, "MRR: worse"), (0.0, "MRR: no difference that 5 seeds")):
        study_runs.curves({(answers.SHARING.own.name, "mrr"): effect}).to_csv(curves, index=False)
        assert command("report") == 0
        assert f"{answers.SHARING.other.name}: {conclusion}" in (full / "report.md").read_text(encoding="utf-8")


def test_simulated_data_are_marked_and_others_are_not(full):
    assert command("report") == 0
    assert (full / "report.md").read_text().split("\n")[2:7] == ["```", *BOX.split("\n")]
    assert "Parts with simulated data: `weights`, `sweep`." in (full / "report.md").read_text()
    for name in ("weights", "sweep"):
        path = full / "multitask-quick" / f"{name}.json"
        study_runs.write_json(path, json.loads(path.read_text()) | {"simulated": False, "data": "ml-100k"})
        table = full / "multitask-quick" / f"{name}.md"
        table.write_text(table.read_text().replace(BOX, "").replace("SIMULATED", ""))
    assert command("report") == 0
    assert "SIMULATED" not in (full / "report.md").read_text()
    study_runs.write_json(full / "zoo" / "zoo.json", METADATA["zoo"] | {"simulated": True})
    study_runs.write_json(full / "dyadic" / "dyadic.json", METADATA["dyadic"] | {"simulated": True})
    assert command("report") == 0
    parts = "Parts with simulated data: `zoo`, `dyadic` (the marked columns and headings)."
    assert parts in (full / "report.md").read_text()


def section(folder: Path, title: str) -> str:
    """The text of a section of report.md."""
    return (folder / "report.md").read_text(encoding="utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_data_and_settings_of_every_part_are_told(full):
    assert command("report") == 0
    data, used = section(full, "The data"), section(full, "Settings, seeds and versions")
    assert "|  | weights | sweep | zoo |\n" in data
    assert "| users | 60 | 60 | 943 |" in data
    assert "`dyadic`, on several data sets; means over seeds:\n\n|  | one | two |\n" in data
    assert "| dyads | 12,345 | 6,789 |" in data
    assert "|  | weights | sweep | zoo | dyadic |\n" in used
    assert "| epochs | 2 | 2 | 20 |  |" in used
    assert "| tower_units |  |  | 32 |  |" in used
    assert "| held_out |  |  |  | yes |" in used
    assert "| torch | 2 | 2 | 2, 3 | 2 |" in used
    assert "| val_fraction | 0.05 | 0.05 | 0.111111 |  |" in used
    assert "patience" not in used  # nowhere set
    assert "label_weights" not in used
    assert "`zoo`: 28 runs; seeds 0, 1 of split" in used
    assert "not recorded" not in data + used


def test_parts_from_before_there_were_metadata(full):
    (full / "zoo" / "zoo.json").unlink()
    (full / "zoo" / "table.md").write_text(f"```\n{BOX}\n```\n")
    (full / "dyadic" / "dyadic.json").unlink()
    (full / "dyadic").rename(full / "dyadic-quick")
    (full / "dyadic-quick" / "table.md").write_text(f"## world {MARK}\n")
    assert command("report") == 0
    text = (full / "report.md").read_text()
    assert "data: `weights`, `sweep`, `zoo`, `dyadic` (the marked columns and headings)." in text
    for title in ("The data", "Settings, seeds and versions"):
        lines = [line for line in section(full, title).splitlines() if "not recorded" in line]
        assert len(lines) == 2
        assert "Run `python experiments.py zoo` with the same options again" in lines[0]
        assert "`zoo/zoo.json`" in lines[0]
        assert "Run `python experiments.py dyadic --quick` with" in lines[1]
    shutil.rmtree(full / "multitask-quick")
    shutil.rmtree(full / "dyadic-quick")
    assert command("report") == 0
    assert section(full, "The data").strip().startswith("`zoo`: data and settings were not recorded.")


@pytest.mark.parametrize("missing", ["weights", "sweep", "zoo", "dyadic"])
def test_missing_parts_name_the_command_that_makes_them(full, missing):
    path = full / missing / "table.md" if missing in ("zoo", "dyadic") else full / f"multitask-quick/{missing}.json"
    path.unlink()
    assert command("report") == 0
    text = (full / "report.md").read_text()
    assert f"Not run yet: `python experiments.py {missing}`" in text
    others = {"weights", "sweep", "zoo", "dyadic"} - {missing}
    assert not any(f"`python experiments.py {other}`" in text for other in others)
    assert "so that a_i cancels" in text
    read_html(full)


def test_a_full_run_is_preferred_to_a_quick_one(full):
    assert command("report") == 0
    assert "From `multitask-quick`, a `--quick` run" in (full / "report.md").read_text()
    (full / "multitask-quick").rename(full / "multitask")
    assert command("weights", "--quick", "--seeds", 1) == 0
    assert command("report") == 0
    text = (full / "report.md").read_text()
    assert "From `multitask`." in text
    assert "quick" not in text.replace("--quick` makes a small", "")


def test_nothing_to_report_and_damaged_files_get_one_sentence(full, capsys):
    (full / "multitask-quick" / "weights.json").write_text("{")
    for arguments, complaint in (
        (["report"], "weights.json is damaged"),
        (["report", "--folder", "nowhere"], "there is nothing to report in nowhere: run an experiment first"),
        (["weights", "--epochs", "0"], "--epochs must be at least 1"),
        (["sweep", "--seeds", "0"], "--seeds must be at least 1"),
        (["sweep", "--dataset", "ml-1m", "--data_dir", "nowhere"], "cannot be reached"),
    ):
        capsys.readouterr()
        assert command(*arguments) == 2
        message = capsys.readouterr().err
        assert complaint in message
        assert message.count("\n") == 1
    assert not (full / "report.md").exists()
    assert not Path("nowhere").exists()


def test_a_table_that_cannot_be_read_is_named(full, capsys):
    (full / "multitask-quick" / "curves.csv").unlink()
    assert command("report") == 2
    assert "curves.csv cannot be read" in capsys.readouterr().err
    (full / "multitask-quick" / "sweep.png").unlink()
    (full / "multitask-quick" / "weights.json").unlink()
    assert command("report") == 0
    assert "The picture `multitask-quick/sweep.png` is missing" in (full / "report.md").read_text()


BAD = "<script>alert(1)</script>![x](/etc/passwd)[y](javascript:alert(1))\x1b[2J"


def test_results_of_somebody_else_bring_nothing_but_text(full):
    study_runs.write_json(
        full / "zoo" / "zoo.json", METADATA["zoo"] | {"settings": {BAD: BAD}, "statistics": {BAD: BAD}}
    )
    study_runs.write_json(full / "dyadic" / "dyadic.json", METADATA["dyadic"] | {"statistics": {BAD: {BAD: BAD}}})
    weights_json, secret = full / "multitask-quick" / "weights.json", full.parent.resolve() / "secret.txt"
    described = json.loads(weights_json.read_text())
    described |= {"data": BAD, "versions": {BAD: BAD}, "statistics": {BAD: [BAD]}}
    study_runs.write_json(weights_json, described)
    for name in ("multitask-quick/weights.md", "multitask-quick/sweep.md", "zoo/table.md", "dyadic/table.md"):
        (full / name).write_text((full / name).read_text() + f"\n\n{BAD}\n\n<div>\n{BAD}\n</div>\n")
    table = pd.read_csv(full / "multitask-quick" / "sweep.csv", index_col=0)
    table.rename(index={table.index[0]: BAD}).to_csv(full / "multitask-quick" / "sweep.csv")
    secret.write_text("untouched")
    (full / "report.html").symlink_to(secret)
    assert command("report") == 0
    assert secret.read_text() == "untouched"
    root = read_html(full)
    assert not root.findall(".//script")
    assert len(root.findall(".//img")) == 4
    assert all(link.get("href").startswith("#") for link in root.findall(".//a"))
    allowed = re.compile(r"text-align: \w+;|min-width: [\d.]+ch;")
    assert all(allowed.fullmatch(node.get("style")) for node in root.iter() if node.get("style"))
    assert "<script>alert(1)</script>" in "".join(root.find("./body").itertext())
    text = (full / "report.md").read_text(encoding="utf-8")
    assert not [mark for mark in ("<script", "<div", "![x]", "\x1b") if mark in text]
    assert text.count("](") == 4 + 7  # the pictures and the list of sections


def test_results_that_lead_elsewhere_are_refused(full, capsys):
    secret = full.parent.resolve() / "secret"
    secret.write_text("secret")
    for name, complaint in (
        ("zoo/table.md", "is a link that leads out of results"),
        ("zoo/table.png", "is a link that leads out of results"),
        ("multitask-quick/curves.csv", "is a link that leads out of results"),
        ("multitask-quick/weights.json", "is a link that leads out of results"),
        ("zoo/zoo.json", "is a link that leads out of results"),
    ):
        path, kept = full / name, (full / name).read_bytes()
        path.unlink()
        path.symlink_to(secret)
        assert command("report") == 2
        assert complaint in capsys.readouterr().err
        path.unlink()
        path.write_bytes(kept)
    (full / "zoo/table.png").write_text("secret")
    assert command("report") == 2
    assert "table.png is no PNG picture" in capsys.readouterr().err


def test_metadata_of_other_types_are_no_traceback(full, capsys):
    wrong = {"seeds": 7, "settings": [[]], "statistics": None, "runs": {"x": 1}, "data": [[]], "versions": "x"}
    for name in ("multitask-quick/weights.json", "dyadic/dyadic.json"):
        sound = json.loads((full / name).read_text())
        for field, value in wrong.items():
            study_runs.write_json(full / name, sound | {field: value})
            assert command("report") in (0, 2)
            assert capsys.readouterr().err.count("\n") <= 1
        study_runs.write_json(full / name, sound)


@pytest.mark.slow
def test_on_a_fresh_clone_without_a_network(tmp_path, monkeypatch):
    """Real runs of main.py, user bias measured on real checkpoints."""
    monkeypatch.delenv("MOVIELENS_DIR", raising=False)
    for arguments in (["weights", "--quick"], ["report"]):
        subprocess.run([sys.executable, ROOT / "experiments.py", *arguments], check=True, cwd=tmp_path)
    text = (tmp_path / "results" / "report.md").read_text(encoding="utf-8")
    assert BOX in text
    assert "changes neither the loss nor any ranking" in text
    assert "8 trained networks" in text
    assert "Not run yet: `python experiments.py sweep`" in text
    assert ET.fromstring((tmp_path / "results" / "report.html").read_text(encoding="utf-8")).find(".//img") is not None
    bias = pd.read_csv(tmp_path / "results" / "multitask-quick" / weights.BIAS)
    assert (bias["mrr"] == bias["mrr_with_bias"]).all()
    assert bias["mrr"].between(0.01, 0.5).all()
