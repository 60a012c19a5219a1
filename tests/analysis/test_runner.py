"""The runner: finished jobs are found again, others are run, and errors end everything under way."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from analysis import runner
from analysis.runner import FunctionProcess, Job, Run, run_all, run_jobs
from config.errors import UserError
from registry import make_config
from sources.locks import FolderLock
from training.console import silent

TINY = {
    "model": "shared_bottom", "dataset": "simulated", "simulated_size": (60, 80, 2400), "epochs": 1,
    "embedding_dim": 4, "expert_units": (4,), "tower_units": (4,),
}  # fmt: skip
STAND_IN = """
import json, pathlib, sys
settings = json.loads(pathlib.Path(sys.argv[2]).read_text())
if settings["ratings"]:
    sys.exit("there is no file")
folder = pathlib.Path(settings["logdir"])
folder.mkdir(parents=True)
(folder / "result.json").write_text(json.dumps({"ending": "finished", "metrics": {}}))
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A program instead of main.py that ends at once: with an error if there is --ratings, else well."""
    path = tmp_path / "stand_in.py"
    path.write_text(STAND_IN)
    monkeypatch.setattr(runner, "MAIN", path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two finished runs: (their definitions, their folder, their results)."""
    root = tmp_path_factory.mktemp("runs")
    runs = [Run("ours", make_config(**TINY, seed=seed)) for seed in range(2)]
    return runs, root, run_all(runs, root, 2, silent)


class TestRuns:
    def test_results_have_the_order_of_the_runs(self, finished):
        runs, root, results = finished
        assert [(found["row"], found["seed"]) for found in results] == [("ours", 0), ("ours", 1)]
        for run, found in zip(runs, results, strict=True):
            assert found["ending"] == "finished"
            assert found == found | json.loads((run.folder(root) / "result.json").read_text())
            config = json.loads((run.folder(root) / "config.json").read_text())
            assert config["settings"]["seed"] == run.config.seed
        assert not list(root.glob(".*"))  # no settings files are left behind

    def test_a_finished_run_is_not_repeated(self, finished, monkeypatch):
        runs, root, results = finished
        monkeypatch.setattr(runner.subprocess, "Popen", lambda *_, **__: pytest.fail("it was repeated"))
        lines = []
        assert run_all(runs, root, 2, lines.append) == results
        assert lines == [f"2 of 2 runs are finished already, in {root}"]

    def test_the_folder_depends_on_what_affects_the_result_alone(self, finished):
        runs, root, _ = finished
        config = runs[0].config
        same = [replace(config, threads=2), replace(config, device="cpu"), replace(config, data_dir="elsewhere")]
        assert {Run("x", other).folder(root) for other in same} == {runs[0].folder(root)}
        others = [replace(config, lr=0.1), replace(config, epochs=2), replace(config, seed=5)]
        assert len({Run("x", other).folder(root) for other in [config, *others]}) == 4

    def test_an_interrupted_run_starts_again(self, stand_in, tmp_path):
        run = Run("ours", make_config(**TINY))
        folder = run.folder(tmp_path / "runs")
        folder.mkdir(parents=True)
        (folder / "last.pt").write_text("of the interrupted run")
        (folder / "result.json").write_text(json.dumps({"ending": "interrupted"}))
        assert run_all([run], tmp_path / "runs", 1, silent)[0]["ending"] == "finished"
        assert [path.name for path in folder.iterdir()] == ["result.json"]

    def test_an_error_is_reported_and_finished_runs_stay(self, stand_in, tmp_path):
        good, broken = Run("good", make_config(**TINY)), Run("broken", make_config("esmm", ratings="nowhere.csv"))
        with pytest.raises(UserError, match=r"ended with code 1: there is no file"):
            run_all([good, broken], tmp_path / "runs", 1, silent)
        assert (good.folder(tmp_path / "runs") / "result.json").exists()
        assert not list((tmp_path / "runs").glob(".*"))

    def test_a_run_that_another_process_trains_is_not_removed(self, stand_in, tmp_path):
        run = Run("ours", make_config(**TINY))
        folder = run.folder(tmp_path / "runs")
        folder.mkdir(parents=True)
        (folder / "last.pt").write_text("of the other process")
        lock = FolderLock(folder)
        with pytest.raises(UserError, match=f"in use by process {os.getpid()}"):
            run_all([run], tmp_path / "runs", 1, silent)
        assert (folder / "last.pt").read_text() == "of the other process"
        lock.release()
        assert run_all([run], tmp_path / "runs", 1, silent)[0]["ending"] == "finished"

    def test_links_at_the_settings_are_not_followed(self, stand_in, tmp_path):
        run = Run("ours", make_config(**TINY))
        folder = run.folder(tmp_path / "runs")
        folder.parent.mkdir()
        folder.with_name(f".{folder.name}.json").symlink_to(tmp_path / "elsewhere")  # the name of earlier versions
        run_all([run], tmp_path / "runs", 1, silent)
        assert not (tmp_path / "elsewhere").exists()


def read(path: Path) -> dict | None:
    return json.loads(path.read_text()) if path.exists() else None


def write(path: Path, value: int) -> None:
    path.write_text(json.dumps({"value": value, "process": os.getpid()}))


def fail(path: Path, value: int) -> None:
    raise UserError(f"{value} is not allowed")


def die(path: Path, value: int) -> None:
    os._exit(9)


def wait_for_ever(path: Path, value: int) -> None:
    path.with_suffix(".started").touch()
    time.sleep(600)


def jobs(folder: Path, *functions) -> list[Job]:
    paths = [folder / f"{number}.json" for number in range(len(functions))]
    return [
        Job(f"job {number}", partial(read, path), partial(FunctionProcess, function, path, number))
        for number, (function, path) in enumerate(zip(functions, paths, strict=True))
    ]


class TestFunctions:
    def test_each_runs_once_in_a_process_of_its_own(self, tmp_path):
        lines = []
        results = run_jobs(jobs(tmp_path, write, write), tmp_path, 2, lines.append)
        assert [found["value"] for found in results] == [0, 1]
        assert len({os.getpid(), *(found["process"] for found in results)}) == 3
        assert [line.split()[0] for line in lines] == ["1/2", "2/2"]
        assert lines[-1].endswith("about 0.0 min to go")
        assert run_jobs(jobs(tmp_path, write, write), tmp_path, 2, lines.append) == results
        assert lines[2:] == [f"2 of 2 jobs are finished already, in {tmp_path}"]

    def test_a_half_finished_experiment_goes_on(self, tmp_path):
        write(tmp_path / "0.json", 7)
        lines = []
        assert [found["value"] for found in run_jobs(jobs(tmp_path, fail, write), tmp_path, 1, lines.append)] == [7, 1]
        assert lines[0].startswith("1 of 2 jobs")
        assert lines[1].startswith("2/2 job 1; about 0.0 min")

    @pytest.mark.parametrize(("function", "message"), [(fail, "^0 is not allowed$"), (die, "code 9.*fewer --jobs")])
    def test_an_error_ends_the_others(self, tmp_path, function, message):
        with pytest.raises(UserError, match=message):
            run_jobs(jobs(tmp_path, function, wait_for_ever), tmp_path, 2, silent)
        assert not multiprocessing.active_children()

    def test_ctrl_c_ends_all_processes(self, tmp_path):
        def interrupt(line: str) -> None:
            while not (tmp_path / "1.started").exists():
                time.sleep(0.05)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_jobs(jobs(tmp_path, write, wait_for_ever, write), tmp_path, 2, interrupt)
        assert not multiprocessing.active_children()
        assert read(tmp_path / "0.json")["value"] == 0


def test_the_runner_needs_no_torch():
    code = "import sys, analysis.runner; print('torch' in sys.modules)"
    root = Path(runner.__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout == "False\n"
