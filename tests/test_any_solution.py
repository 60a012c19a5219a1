"""Every right models.py works with every command, however it is written; see right_solutions.py."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from every_command import WORLD, short
from right_solutions import SOLUTIONS, source_of
from student_models import in_place_of_ours

MANUAL = {"steps: manual gradient"}
# Solutions whose steps are those of autograd, and why; the manual gradient takes those of all others.
AUTOGRAD = {
    "in single precision, layers made first": {
        "steps: autograd (the gradient of this models.py cannot be compared in float64: RuntimeError)"
    },
}


def copy_of_the_project(folder: Path, models: str, without: tuple[str, ...] = ()) -> Path:
    """The files of the repository in a new folder, with this models.py, and without some files and folders."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("needs git, which lists the files of the project")
    for name in filter(None, listed.stdout.split("\0")):
        is_wanted = not any(name == left_out or name.startswith(f"{left_out}/") for left_out in (*without, "tests"))
        if is_wanted and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    (folder / "models.py").write_text(models, encoding="utf-8")
    return folder


def python(project: Path, *arguments) -> subprocess.CompletedProcess:
    """Python in a copy of the project, on one thread and without real data."""
    environment = os.environ | {"PYTHONPATH": str(project), "OMP_NUM_THREADS": "1", "MOVIELENS_DIR": ""}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=project, env=environment, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip


def steps_of_short(out: str) -> list[str]:
    return [line for line in out.splitlines() if line.startswith("steps: ")]


# One each: layers in a block, results of another kind, and code that does not run in float64.
@pytest.mark.parametrize("name", ["one block of its own", "plain tables and one stacked result", *AUTOGRAD])
def test_a_right_solution_trains_and_answers(name, elsewhere, capsys):
    with in_place_of_ours(elsewhere, source_of(name).encode()):
        short(elsewhere)
    lines = steps_of_short(capsys.readouterr().out)
    assert set(lines[:4]) == AUTOGRAD.get(name, MANUAL)
    assert lines[4:] == ["steps: autograd (--ranking_loss softmax)", "steps: autograd (asked for by --steps)"]


@pytest.mark.slow
@pytest.mark.parametrize("name", SOLUTIONS)
def test_a_right_solution_runs_every_command(name, tmp_path):
    project = copy_of_the_project(tmp_path / "project", source_of(name))
    shutil.copyfile(ROOT / "tests/every_command.py", tmp_path / "every_command.py")
    done = python(project, tmp_path / "every_command.py", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(steps_of_short(done.stdout)[:4]) == AUTOGRAD.get(name, MANUAL)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = python(project, *launcher, "main.py", *WORLD, "--logdir", tmp_path / "shared_by_two")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "shared_by_two/last.pt").is_file()


ANSWERS = ("multitask/manual_gradient.py", "multitask/item_based.py", "multitask/ensemble.py", "zoo", "dyadic",
           "multitask/closed_form.py", "multitask/closed_form_recipe.py")  # fmt: skip
TRY_A_COPY_FOR_STUDENTS = """
import main
world = {world}
assert main.main([*world, "--logdir", "first"]) == 0
assert main.main([*world, "--no_shared_embeddings", "--weighting", "pcgrad", "--logdir", "second"]) == 0
assert main.main(["--recommend", "1", "--logdir", "first"]) == 0
for flags in (["--model", "mmoe"], ["--preset", "champion"], ["--preset", "ensemble", *world], ["--config", "zoo.json"],
              ["--num_item_based", "1", "--ranking_loss", "softmax", *world], ["--preset", "none"]):
    assert main.main(flags) == 2, flags
try:
    main.main(["--help"])
except SystemExit:
    pass
"""


@pytest.mark.slow
def test_a_copy_for_students_does_without_the_answers(tmp_path):
    project = copy_of_the_project(tmp_path, source_of("einsum"), without=ANSWERS)
    (project / "zoo.json").write_text('{"model": "ple"}')
    done = python(project, "-c", TRY_A_COPY_FOR_STUDENTS.format(world=WORLD))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("steps: autograd (this copy of the project has no manual gradient)\n") == 2
    told = [line.removeprefix("main.py: error: ") for line in done.stderr.splitlines()]
    why = "it needs the full project"
    assert told == [
        f"this copy of the project has no --model mmoe: {why}",
        f"{project}/config/presets/champion.json: this copy of the project has no --model closed_form: {why}",
        f"this copy of the project has no --ensemble_size: {why}",
        f"zoo.json: this copy of the project has no --model ple: {why}",
        f"this copy of the project has no --num_item_based: {why}",
        "there is no preset 'none': choose one of ensemble",
    ]
    assert "settings by name: ensemble\n" in done.stdout
    assert "  multitask " in done.stdout
    assert "  mmoe " not in done.stdout


@pytest.mark.slow
def test_an_error_of_models_py_is_printed_once_by_two_processes(tmp_path):
    wrong = source_of("einsum").replace("return p, x[:, 0]", "return p, x")
    project = copy_of_the_project(tmp_path, wrong)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = python(project, *launcher, "main.py", *WORLD, "--logdir", "out")
    assert done.returncode != 0
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("main.py: error: ")]
    assert "models.py, line " in said  # by rank 0, or by its watcher for the other rank, whichever is first
    assert "score has the shape (1, 1), and here it has to be (1,)" in done.stderr
    assert not (project / "out").exists()


@pytest.mark.slow
def test_an_error_in_one_process_alone_ends_both(tmp_path):
    """In the middle of a step, where the other process waits for its part of the sum."""
    before = "        if self.embedding_sharing:\n            return self.forward_with_embedding_sharing"
    counting = "        if torch.is_grad_enabled() and next_call() > 4:\n            raise ValueError('enough')\n"
    wrong = source_of("einsum").replace(before, counting + before)
    calls = (
        "import itertools\nimport os\n\nCALLS = itertools.count(10**9 * -int(os.environ['RANK']))\n\n\n"
        "def next_call():\n    return next(CALLS)\n\n\n"
    )
    project = copy_of_the_project(tmp_path, wrong.replace("class ScaledEmbedding", calls + "class ScaledEmbedding"))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = python(project, *launcher, "main.py", *WORLD, "--steps", "autograd", "--logdir", "out")
    assert done.returncode != 0
    assert done.stderr.count("main.py: error: models.py, line ") == 1, done.stderr
    assert "in forward: ValueError: enough" in done.stderr
