"""Atomic writes: all or nothing, and no temporary file is left behind."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import ROOT

from sources import files
from sources.files import write_atomically


def test_bytes_and_writers_create_and_replace_a_file(tmp_path):
    path = tmp_path / "a.csv"
    write_atomically(path, b"one")
    assert path.read_bytes() == b"one"
    write_atomically(path, lambda file: file.write(b"two"))
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["a.csv"]


@pytest.mark.parametrize("error", [OSError, ValueError, KeyboardInterrupt])
def test_a_failure_keeps_the_old_file_and_removes_the_temporary_one(tmp_path, error):
    path = tmp_path / "a.csv"
    path.write_bytes(b"old")

    def fail(file) -> None:
        file.write(b"half")
        raise error

    with pytest.raises(error):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.csv"]


def test_concurrent_writers_leave_one_whole_file(tmp_path):
    path = tmp_path / "a"
    contents = [bytes([letter]) * 100_000 for letter in b"abcdefgh"]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: write_atomically(path, content), contents * 5))
    assert path.read_bytes() in contents
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("name", ["last.pt", ".r.csv.npz", "odd[1]*.csv"])
def test_only_old_temporary_files_of_the_same_file_are_removed(tmp_path, name):
    prefix = f".{name.removeprefix('.')}"
    old, new, other = (tmp_path / part for part in (f"{prefix}.0.part", f"{prefix}.1.part", ".other.2.part"))
    long_ago = time.time() - files.ABANDONED_AFTER - 60
    for path in (old, new, other):
        path.write_bytes(b"half")
    for path in (old, other):
        os.utime(path, (long_ago, long_ago))
    write_atomically(tmp_path / name, b"whole")
    assert set(os.listdir(tmp_path)) == {name, new.name, other.name}


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "nowhere" / "a", b"")


def test_it_imports_only_the_standard_library():
    """The Gradescope zip contains no other file of sources/."""
    code = "import sys, sources.files; assert not {'config', 'numpy', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
