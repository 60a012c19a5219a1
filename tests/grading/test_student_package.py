"""The student's package: it holds no answer, and everything in it works, before and after the student's work."""

import ast
import os
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from answers import answers_in, solution_pieces, written_answers
from conftest import ROOT

from grading import student_package
from grading.hidden_checks import layers_of
from grading.public_checks import MLP_OF_THE_DOCSTRING, MLP_OF_THE_EXAMPLES
from grading.questions import SIZES
from grading.student_package import FOLDER, TEXTS, WITHHELD, make_package

SMALL = ["--dataset", "simulated", "--simulated_size", "60", "80", "2400", "--epochs", "1"]
EXTENSIONS = {".py", ".md", ".txt", ".json", ""}


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("package") / "homework.zip"
    make_package(path)
    return path


@pytest.fixture(scope="module")
def texts(package) -> dict[str, str]:
    """{path in the folder: text} of every file in the zip."""
    with zipfile.ZipFile(package) as archive:
        return {name.removeprefix(f"{FOLDER}/"): archive.read(name).decode() for name in archive.namelist()}


@pytest.fixture
def folder(package, tmp_path) -> Path:
    """The package as a student unpacks it."""
    with zipfile.ZipFile(package) as archive:
        archive.extractall(tmp_path)
    return tmp_path / FOLDER


def run(folder: Path, *command: str) -> subprocess.CompletedProcess:
    """Run a command in the folder, without real data, and without this project on Python's path."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MOVIELENS_DIR")}
    return subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True)


# What is in it


def test_no_file_answers(texts):
    assert {name: found for name, text in texts.items() if (found := answers_in(name, text))} == {}


@pytest.mark.parametrize(
    "file",
    [
        "models.py", "grading/reference.py", "benchmarks/plain.py", "zoo/layers.py", "multitask/item_based.py",
        "multitask/manual_gradient.py", "multitask/closed_form.py", "multitask/bayesian.py", "analysis/answers.py",
        "docs/experiments.md", "README.md", "grading/hidden_checks.py",
    ],
)  # fmt: skip
def test_the_search_for_answers_finds_them_where_they_are(file):
    assert answers_in(file, (ROOT / file).read_text(encoding="utf-8")) != []


@pytest.mark.parametrize(
    "code",
    [
        "x = torch.cat([u, q, u * q], dim=-1)",
        "x = torch.cat((user, item, both), 1)",
        "p = (u * q).sum(-1) + b",
        "p = torch.mul(u, q).sum(dim=1)",
        "return nn.ModuleList([nn.Linear(96, 64), nn.ReLU()])",
        "return ScaledEmbedding(m, d), ScaledEmbedding(n, d)",
        "# With separate tables, the weights do nothing: Adam cancels the scale of a gradient,\n# and no parameter",
        "'''A user bias adds one parameter per user and no new ranking.'''",
    ],
)
def test_the_search_for_answers_finds_other_forms(code):
    assert answers_in("other.py", f"def f(self):\n    {code}\n" if code.startswith("return") else code) != []


def test_there_is_something_to_search_for():
    assert len(solution_pieces()) > 20
    assert len(written_answers()) > 40


def test_the_layers_written_out_for_students_follow_the_rule():
    sizes, layers = MLP_OF_THE_DOCSTRING
    assert layers == layers_of(sizes)
    assert layers_of(SIZES[3:]) == MLP_OF_THE_EXAMPLES


def test_models_is_the_starter_and_every_other_file_is_that_of_the_project(texts):
    for name, text in texts.items():
        assert text == (ROOT / TEXTS.get(name, name)).read_text(encoding="utf-8"), name
    assert texts["models.py"] == (ROOT / "starter" / "models.py").read_text(encoding="utf-8")


def test_no_history_no_tests_no_withheld_module(texts):
    assert {Path(name).suffix for name in texts} <= EXTENSIONS
    assert [name for name in texts if name.startswith((".", "tests", "analysis", "benchmarks", "zoo"))] == []
    assert [name for name in texts if "reference" in name or "hidden" in name or "training.csv" in name] == []
    assert [name for name in texts if name.startswith("docs/")] == ["docs/homework.md"]
    assert [name for name in texts if name.startswith("data/")] == ["data/README.md"]
    modules = {name.removesuffix(".py").replace("/", ".") for name in texts if name != "models.py"}
    assert modules & set(WITHHELD) == set()


@pytest.mark.parametrize("name", WITHHELD)
def test_every_withheld_module_exists(name):
    path = ROOT.joinpath(*name.split("."))
    assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def test_withheld_modules_are_imported_where_they_are_needed_alone(texts):
    """An import at the top of a module would end every program there."""
    for name, text in texts.items():
        if name.endswith(".py"):
            at_top = [node for node in ast.parse(text).body if isinstance(node, ast.Import | ast.ImportFrom)]
            imported = {f"{getattr(node, 'module', '')}.{one.name}".strip(".") for node in at_top for one in node.names}
            imported |= {getattr(node, "module", None) for node in at_top}
            assert imported & (set(WITHHELD) - {"models"}) == set(), name


def test_the_zip_is_the_same_every_time_and_unpacks_into_one_folder(package, tmp_path):
    again = tmp_path / "again.zip"
    make_package(again)
    assert again.read_bytes() == package.read_bytes()
    with zipfile.ZipFile(package) as archive:
        assert {name.split("/")[0] for name in archive.namelist()} == {FOLDER}
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_file_that_a_teacher_left_beside_the_code_stays_out(texts):
    """The grader names autograder.zip and .git among the files that a solution must not read."""
    assert "autograder.zip" in (ROOT / "grader.py").read_text(encoding="utf-8")
    assert "autograder.zip" not in texts
    assert ".git" not in texts


@pytest.mark.parametrize("page", ["README.md", "docs/homework.md", "data/README.md"])
def test_links_and_named_files_of_the_pages_are_there(page, texts):
    prose = texts[page]
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        assert target.startswith("https://") or Path(page).parent.joinpath(target).as_posix() in texts
    scripts = re.findall(r"python ([\w/]+\.py)", prose)
    files = [code for code in re.findall(r"`([\w/]+\.(?:py|md|txt))`", prose) if "/" not in code or "ml-" not in code]
    assert [name for name in (*scripts, *files) if name not in texts] == []


def test_the_file_tree_of_the_readme_is_true(texts):
    tree = texts["README.md"].partition("## Where things are")[2].partition("```\n")[2].partition("```")[0]
    named = [line.split()[0] for line in tree.splitlines()]
    assert len(named) > 5
    assert [name for name in named if not any(file == name or file.startswith(name) for file in texts)] == []


# The command


def test_the_command_says_what_it_wrote_and_what_is_next(tmp_path, capsys):
    path = tmp_path / "out.zip"
    assert student_package.main([str(path)]) == 0
    told = capsys.readouterr().out
    assert f"wrote {path}: " in told
    assert "next: " in told
    assert zipfile.is_zipfile(path)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("there.zip", "there.zip exists already: give another name, or remove it first"),
        ("nowhere/out.zip", "there is no folder "),
        ("out.tar", "out.tar must end in .zip"),
    ],
)
def test_an_output_that_cannot_be_written_is_one_sentence(name, told, tmp_path, capsys):
    (tmp_path / "there.zip").write_text("mine")
    assert student_package.main([str(tmp_path / name)]) == 2
    message = capsys.readouterr().err
    assert told in message
    assert message.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["there.zip"]
    assert (tmp_path / "there.zip").read_text() == "mine"


def test_a_folder_without_the_right_to_write_is_one_sentence(tmp_path, capsys, monkeypatch):
    def refuse(path, contents):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(student_package, "write_zip", refuse)
    assert student_package.main([str(tmp_path / "out.zip")]) == 2
    assert "out.zip cannot be written: Permission denied\n" in capsys.readouterr().err


# As a student uses it


def test_before_the_work_main_says_what_to_write(folder):
    done = run(folder, "main.py", *SMALL)
    assert done.returncode == 2
    assert "models.py is not finished: write init_shared_user_and_item_embeddings" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(folder.rglob("metrics.csv"))


def test_the_help_lists_what_is_there_alone(folder):
    done = run(folder, "main.py", "--help")
    assert done.returncode == 0, done.stderr
    listed = re.findall(r"^  (\w+) ", done.stdout.partition("models (")[2], flags=re.MULTILINE)
    assert listed == ["multitask"]
    assert not re.search(r"dyadic|zoo|champion|mmoe|closed_form|xing|--preset", done.stdout), done.stdout
    assert len(done.stdout.splitlines()) <= 60


@pytest.mark.slow
def test_after_the_work_every_command_of_the_readme_runs(folder, texts):
    (folder / "models.py").write_bytes((ROOT / "models.py").read_bytes())
    printed = [line for line in texts["README.md"].splitlines() if line.startswith("python ")]
    commands = [shlex.split(line)[1:] for line in printed if "venv" not in line]
    assert sum("main.py" in command for command in commands) == 6
    for command in commands:
        is_training = command[0] == "main.py" and "--recommend" not in command
        done = run(folder, *command, *(SMALL if is_training else []))
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        assert "champion" not in done.stdout
        if is_training:
            assert "steps: autograd (this copy of the project has no manual gradient)" in done.stdout
        if command == ["grader.py"]:
            assert re.search(r"^ *Total +8 / 8$", done.stdout, flags=re.MULTILINE), done.stdout
    assert len(list((folder / "run").rglob("metrics.csv"))) == 5


@pytest.mark.slow
def test_the_starter_gets_no_point(folder):
    done = run(folder, "grader.py")
    assert done.returncode == 1, done.stderr
    assert re.search(r"^ *Total +0 / 8$", done.stdout, flags=re.MULTILINE), done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_question_with_hidden_checks_alone_is_one_sentence(folder):
    done = run(folder, "grader.py", "3c")
    assert done.returncode == 2
    assert done.stderr == (
        "grader.py: error: all checks of question 3c are hidden: they run after the work is handed in\n"
    )


@pytest.mark.parametrize("words", [["--model", "mmoe"], ["--preset", "champion"], ["--ensemble_size", "2"]])
@pytest.mark.slow
def test_what_is_left_out_is_one_sentence(folder, words):
    (folder / "models.py").write_bytes((ROOT / "models.py").read_bytes())
    done = run(folder, "main.py", *SMALL, *words)
    assert done.returncode == 2
    assert done.stderr.startswith("main.py: error: ")
    assert done.stderr.count("\n") == 1
    assert not list(folder.rglob("metrics.csv"))
