"""One owner of a folder: a live one is named, a dead one's lock is taken over, and nothing is left behind."""

import errno
import fcntl
import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT

from config.errors import UserError
from sources import locks
from sources.locks import FolderLock, owned

CONTEND = """
import sys
from pathlib import Path
from config.errors import UserError
from sources.locks import FolderLock
try:
    lock = FolderLock(Path(sys.argv[1]))
except UserError as error:
    sys.exit(str(error))
print("owner", flush=True)
sys.stdin.read()
"""


def contend(folder) -> subprocess.Popen:
    """A process that owns the folder until its stdin is closed, or ends with the sentence it is refused with."""
    return subprocess.Popen(
        [sys.executable, "-c", CONTEND, str(folder)], cwd=ROOT, text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_of_many_contenders_one_owns_the_folder_and_the_others_name_it(tmp_path):
    contenders = [contend(tmp_path) for _ in range(4)]
    owners = [process for process in contenders if process.stdout.readline() == "owner\n"]
    assert len(owners) == 1
    sentences = {process.communicate()[1] for process in contenders if process not in owners}
    assert len(sentences) == 1
    assert f"in use by process {owners[0].pid} on " in sentences.pop()
    owners[0].communicate()


def test_the_lock_of_a_killed_owner_is_taken_over(tmp_path):
    owner = contend(tmp_path)
    assert owner.stdout.readline() == "owner\n"
    with pytest.raises(UserError, match=f"process {owner.pid} on .* since 20.*wait for its end, or end it first"):
        FolderLock(tmp_path)
    owner.kill()
    owner.communicate()
    FolderLock(tmp_path).release()
    assert os.listdir(tmp_path) == []


def test_a_dead_owner_is_not_named(tmp_path, monkeypatch):
    """The new owner has the lock and has not written its name yet."""
    monkeypatch.setattr(locks, "PATIENCE", 0.0)
    lock = FolderLock(tmp_path)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    name = (tmp_path / locks.OWNER).read_text()
    (tmp_path / locks.OWNER).write_text(re.sub(r'"pid": \d+', f'"pid": {dead.pid}', name))
    with pytest.raises(UserError, match="in use by another process: wait"):
        FolderLock(tmp_path)
    lock.release()


@pytest.mark.parametrize("content", [b"", b"\xff", b"[1]", b'{"pid": "x", "host": 3}', b'{"pid": 1' + b"0" * 40])
def test_a_damaged_name_is_no_error(tmp_path, monkeypatch, content):
    monkeypatch.setattr(locks, "PATIENCE", 0.0)
    lock = FolderLock(tmp_path)
    (tmp_path / locks.OWNER).write_bytes(content)
    with pytest.raises(UserError, match="in use by"):
        FolderLock(tmp_path)
    lock.release()


def test_a_link_at_the_lock_is_not_followed(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / locks.LOCK).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        FolderLock(tmp_path / "folder")
    assert not (tmp_path / "elsewhere").exists()


def test_without_locks_of_the_file_system_the_existence_of_the_file_decides(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    lock = FolderLock(tmp_path)
    with pytest.raises(UserError, match=r"has no locks: if that process is gone, remove .*\.lock"):
        FolderLock(tmp_path)
    lock.release()
    FolderLock(tmp_path).release()
    assert os.listdir(tmp_path) == []


def test_a_renamed_or_deleted_folder_is_not_held(tmp_path):
    (tmp_path / "a").mkdir()
    lock = FolderLock(tmp_path / "a")
    assert lock.holds
    (tmp_path / "a").rename(tmp_path / "b")
    assert not lock.holds
    (tmp_path / "a").mkdir()  # another folder by this name, with an owner of its own
    other = FolderLock(tmp_path / "a")
    assert not lock.holds
    lock.release()
    assert sorted(os.listdir(tmp_path / "a")) == [locks.LOCK, locks.OWNER]
    other.release()


def test_an_owned_folder_is_made_and_removed_where_nothing_was_put_into_it(tmp_path):
    with owned(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / locks.LOCK).exists()
    assert os.listdir(tmp_path) == []
    with owned(tmp_path / "a"):
        (tmp_path / "a" / "table.md").touch()
    assert os.listdir(tmp_path / "a") == ["table.md"]
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"), owned(tmp_path / "file" / "a"):
        pass


@pytest.mark.parametrize("target", ["there", "nowhere"])
def test_no_file_of_an_owned_folder_may_be_a_link(tmp_path, target):
    (tmp_path / "there").touch()
    (tmp_path / "runs").mkdir()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "runs").symlink_to(tmp_path / "runs")
    with owned(tmp_path / "a"):
        pass
    (tmp_path / "a" / "table.md").symlink_to(tmp_path / target)
    with pytest.raises(UserError, match=r"table\.md is a link"), owned(tmp_path / "a"):
        pass
    assert sorted(os.listdir(tmp_path / "a")) == ["runs", "table.md"]
