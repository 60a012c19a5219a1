"""The watchers of two ranks, without PyTorch: what ends a group, what does not, and what is printed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

RANK = """
import json, os, pathlib, sys, time
from training.heartbeat import Heartbeat
rank, hub = int(os.environ["RANK"]), pathlib.Path("hub")
def share(value):
    if rank == 0:
        pathlib.Path("hub.part").write_text(json.dumps(value))
        os.replace("hub.part", hub)
    while not hub.exists():
        time.sleep(0.01)
    return json.loads(hub.read_text())
heartbeat = Heartbeat(rank, 2, share)
print(heartbeat._process.pid, flush=True)
what = sys.stdin.readline().strip()
if what == "leave":
    heartbeat.leave()
else:
    heartbeat.fail(ValueError(what))
heartbeat.close()
sys.exit(what != "leave")
"""


def is_running(pid: int) -> bool:
    """False for a zombie, too, which some containers never remove."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and state[0] != "Z"


class Rank:
    """A process with a heartbeat that waits for a line: "leave", or the text of an error."""

    def __init__(self, rank: int, folder: Path, port: int) -> None:
        names = {"RANK": rank, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "PYTHONPATH": ROOT}
        self.errors = folder / f"stderr{rank}"
        self.process = subprocess.Popen(
            [sys.executable, "-c", RANK], env=os.environ | {name: str(value) for name, value in names.items()},
            cwd=folder, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors.open("w"),
        )  # fmt: skip

    def watcher(self) -> int:
        """Wait for the start; returns the process number of the watcher."""
        self.watched_by = int(self.process.stdout.readline())
        return self.watched_by

    def do(self, what: str) -> None:
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()

    def end(self) -> tuple[int, list[str]]:
        """The exit code and what was printed by the rank or its watcher."""
        self.process.wait(20)
        while is_running(self.watched_by):
            time.sleep(0.02)
        return self.process.returncode, self.errors.read_text().splitlines()


@pytest.fixture
def ranks(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        started = [Rank(number, tmp_path, server.getsockname()[1]) for number in range(2)]
        yield started
        for rank in started:
            rank.process.kill()
            rank.process.wait()


def test_ranks_that_leave_end_in_peace(ranks):
    for rank in ranks:
        rank.watcher()
    ranks[1].do("leave")
    ranks[0].do("leave")
    assert [rank.end() for rank in ranks] == [(0, []), (0, [])]


@pytest.mark.parametrize("number", [0, 1])
def test_a_killed_rank_ends_the_other_with_a_sentence(ranks, number):
    for rank in ranks:
        rank.watcher()
    ranks[number].process.kill()
    (code, lines), (other, others) = ranks[number].end(), ranks[1 - number].end()
    assert (code, other) == (-signal.SIGKILL, 2)
    printed = lines + others
    assert len(printed) == 1
    assert f"rank {number} (process {ranks[number].process.pid} on " in printed[0]
    assert "was killed, perhaps for lack of memory; start all processes again" in printed[0]


def test_the_error_of_a_rank_is_that_of_the_others(ranks):
    for rank in ranks:
        rank.watcher()
    ranks[1].do("no such film")
    assert ranks[1].end() == (1, [])  # here nothing prints it; main.py would
    code, lines = ranks[0].end()
    assert code == 2
    assert len(lines) == 1
    assert lines[0].endswith("failed: ValueError: no such film")
    assert lines[0].startswith(f"main.py: error: rank 1 (process {ranks[1].process.pid} on ")


@pytest.mark.parametrize("words", [b'{"state": "failed", "cause": "I say so"}\n', b"GET / HTTP/1.1\r\n\r\n", b"3\n"])
def test_only_who_knows_the_token_is_heard(ranks, tmp_path, words):
    for rank in ranks:
        rank.watcher()
    hub = json.loads((tmp_path / "hub").read_text())
    with socket.create_connection((hub["address"], hub["port"])) as stranger:
        stranger.sendall(words)
        assert stranger.recv(1000) in (b"", b'{"beat": true}\n')
    for rank in reversed(ranks):
        rank.do("leave")
    assert [rank.end() for rank in ranks] == [(0, []), (0, [])]


@pytest.mark.slow
def test_a_machine_that_falls_silent_ends_the_run(ranks):
    """As where the network is lost: the watcher of rank 1 says nothing any more."""
    _, watcher = (rank.watcher() for rank in ranks)
    os.kill(watcher, signal.SIGSTOP)
    code, lines = ranks[0].end()
    os.kill(watcher, signal.SIGKILL)
    assert code == 2
    assert "cannot be reached: rank 1 (process " in lines[0]


@pytest.mark.slow
def test_ranks_that_are_paused_together_go_on(ranks):
    everybody = [number for rank in ranks for number in (rank.watcher(), rank.process.pid)]
    for number in everybody:
        os.kill(number, signal.SIGSTOP)
    time.sleep(6)  # longer than every limit
    for number in everybody:
        os.kill(number, signal.SIGCONT)
    time.sleep(3)
    for rank in reversed(ranks):
        rank.do("leave")
    assert [rank.end() for rank in ranks] == [(0, []), (0, [])]
