"""A run folder has one owner, and is the same folder from the first file to the last."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, refused, run

from config.errors import UserError
from multitask.task import WatchAndRate
from sources.locks import FolderLock
from training import run_folder
from training.run_folder import RunFolder

WORLD = ["--dataset", "simulated", "--simulated_size", "30", "40", "600", "--epochs", 1]
RECORD = {"settings": {}, "data": {}}

pytestmark = pytest.mark.usefixtures("elsewhere")


def contents(folder) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.fixture
def trained(elsewhere, capsys) -> Path:
    assert run(*WORLD, "--logdir", "run/a") == 0
    capsys.readouterr()
    return Path("run/a")


def test_a_run_that_is_trained_is_not_resumed_a_second_time(capsys, trained):
    assert not [path.name for path in trained.iterdir() if path.name.startswith(".")]  # no lock is left
    lock = FolderLock(trained)
    before = contents(trained)
    message = refused(capsys, "--resume", trained, "--epochs", 3)
    assert f"run/a is in use by process {os.getpid()} on " in message
    assert contents(trained) == before
    assert run("--recommend", "1", "--logdir", trained) == 0  # who only asks needs no lock
    lock.release()
    assert run("--resume", trained, "--epochs", 2) == 0


def test_of_two_runs_in_one_empty_folder_the_second_writes_nothing(tmp_path):
    (tmp_path / "run").mkdir()
    first, second, third = (RunFolder.new(tmp_path / "run") for _ in range(3))
    first.write_config(RECORD)
    before = contents(tmp_path / "run")
    with pytest.raises(UserError, match=f"in use by process {os.getpid()} on "):
        second.write_config(RECORD | {"mixed": True})
    assert contents(tmp_path / "run") == before
    first.release()
    with pytest.raises(UserError, match=r"another run has just taken .* another --logdir"):
        third.write_config(RECORD | {"mixed": True})
    assert list(contents(tmp_path / "run")) == [str(tmp_path / "run" / "config.json")]


def test_what_a_killed_run_leaves_of_its_lock_does_not_fill_a_folder(tmp_path):
    (tmp_path / "run").mkdir()
    for name in (".lock", ".lock.owner", ".lock.owner.0.part"):
        (tmp_path / "run" / name).touch()
    RunFolder.new(tmp_path / "run").write_config(RECORD)


@pytest.mark.parametrize("what", ["renamed", "deleted", "replaced"])
def test_a_folder_that_goes_away_during_training_is_named_and_no_other_one_is_written(capsys, monkeypatch, what):
    def batches(self, epoch, real=WatchAndRate.batches):
        if epoch == 2:
            os.rename("run/a", "run/b")
            if what == "replaced":
                os.makedirs("run/a")
                Path("run/a/config.json").write_text("of another run")
        return real(self, epoch)

    with monkeypatch.context() as patched:
        patched.setattr(WatchAndRate, "batches", batches)
        message = refused(capsys, *WORLD, "--epochs", 3, "--logdir", "run/a")
    assert "run/a was renamed or deleted" in message
    assert "room" not in message
    if what == "replaced":
        assert contents("run/a") == {"run/a/config.json": b"of another run"}
    assert run("--resume", "run/b") == 0
    assert len(Path("run/b/metrics.csv").read_text().splitlines()) == 1 + 3


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.ENOSPC, "make room, then --resume run/a"), (errno.EACCES, "make it writable, then --resume run/a")],
)
def test_a_folder_that_cannot_be_written_on_resume_keeps_its_run(capsys, monkeypatch, trained, number, advice):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    before = contents(trained)
    monkeypatch.setattr(run_folder, "write_atomically", fail)
    message = refused(capsys, "--resume", trained, "--epochs", 2)
    assert f"run/a cannot be written: {os.strerror(number)}; {advice}" in message
    assert contents(trained) == before


@pytest.mark.slow
def test_main_started_many_times_in_one_empty_folder_trains_one_run(tmp_path):
    command = [sys.executable, ROOT / "main.py", *map(str, WORLD), "--logdir", "shared"]
    for attempt in range(2):
        folder = tmp_path / str(attempt)
        (folder / "shared").mkdir(parents=True)
        started = [
            subprocess.Popen(list(map(str, command)), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            for _ in range(2)
        ]
        errors = [process.communicate(timeout=60)[1].decode() for process in started]
        assert sorted(process.returncode for process in started) == [0, 2], errors
        loser = next(error for error in errors if error)
        assert ("is in use by process" in loser) or ("has just taken the folder" in loser) or ("holds a run" in loser)
        assert "room" not in loser
        assert len(list((folder / "shared").glob("events.*"))) == 1
