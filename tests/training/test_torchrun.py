"""torchrun itself, which takes seconds to start: two machines, Ctrl-C, a mistake."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from conftest import ROOT, run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("elsewhere")]

WORLD = ["--dataset", "simulated", "--simulated_size", "60", "80", "2400", "--device", "cpu"]
ROUNDING = 1e-3  # of float32 weights after two epochs, amplified by Adam
HANGS = 20  # seconds after which the others count as waiting for a rank that is gone; they end within 5
TWO = ["--standalone", "--nproc_per_node", "2"]


START_AND_END_GROUP = """
import os
import torch
from training.process_group import distributed

with distributed() as group:
    torch.optim.AdamW(torch.nn.Linear(2, 1).parameters(), fused=True)
    group.all_reduce([torch.ones(3)])
names = [open(f"/proc/self/task/{thread}/comm").read().strip() for thread in os.listdir("/proc/self/task")]
os.write(1, f"left: {[name for name in names if 'gloo' in name]}\\n".encode())  # a single write: lines stay whole
"""


def start(launcher: list[str], *arguments, folder=None, script=ROOT / "main.py") -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", *launcher, script, *arguments]
    return subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def in_epoch_3(process: subprocess.Popen) -> dict[int, int]:
    """Wait for the third epoch of a run of 500; returns the process ids of the ranks."""
    for line in process.stdout:
        if line.startswith("epoch   3/500"):
            break
    found = {}
    for pid in subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split():
        environment = Path("/proc", pid, "environ").read_text().split("\0")
        found[next(int(entry[5:]) for entry in environment if entry.startswith("RANK="))] = int(pid)
    return found


def require_no_process(folder) -> None:
    """No rank and no watcher of this test is left; a zombie is none."""
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            is_ours = (path / "cwd").resolve() == folder.resolve() and int(path.name) != os.getpid()
            assert not is_ours or not (path / "cmdline").read_bytes(), (path / "cmdline").read_bytes()


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs /proc to find the ranks")
@pytest.mark.parametrize(
    ("signal_", "rank", "how"),
    [
        (signal.SIGKILL, 0, "was killed"),
        (signal.SIGSTOP, 0, "is stopped (SIGSTOP)"),
        (signal.SIGSTOP, 1, "is stopped (SIGSTOP)"),
    ],
)
def test_the_end_of_one_rank_ends_all_with_its_sentence(elsewhere, signal_, how, rank):
    process = start(TWO, *WORLD, "--epochs", "500", "--logdir", "run/a")
    pids = in_epoch_3(process)
    os.kill(pids[rank], signal_)
    output = process.communicate(timeout=HANGS)[0]
    lines = [line for line in output.splitlines() if line.startswith("main.py: error: ")]
    assert len(lines) == 1, output
    assert f"rank {rank} (process {pids[rank]} on " in lines[0]
    assert how in lines[0]
    assert process.returncode == 1
    require_no_process(elsewhere)
    assert len(torch.load("run/a/last.pt", weights_only=True)["history"]) >= 2


FAIL_ON_RANK_1 = """
import os, sys
import main
from multitask.task import WatchAndRate
def batches(self, epoch, real=WatchAndRate.batches):
    if epoch == 3 and os.environ["RANK"] == "{rank}":
        raise {error}
    return real(self, epoch)
WatchAndRate.batches = batches
sys.exit(main.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("rank", "error"), [(1, "ValueError('no such film')"), (0, "OSError(28, 'No space left on device')")]
)
def test_an_error_of_one_rank_is_the_sentence_of_all(tmp_path, rank, error):
    script = tmp_path / "fail.py"
    script.write_text(FAIL_ON_RANK_1.format(rank=rank, error=error))
    process = start(TWO, *WORLD, "--epochs", "500", "--logdir", "run/a", script=script)
    output = process.communicate(timeout=HANGS)[0]
    assert error.split("'")[1] in output
    assert "cannot be reached" not in output
    if rank == 1:
        lines = [line for line in output.splitlines() if line.startswith("main.py: error: ")]
        assert len(lines) == 1, output
        assert "rank 1 (process " in lines[0]


SLOW = """
import ctypes, os, sys
import main
from multitask.task import WatchAndRate
def metrics(self, model, split, real=WatchAndRate.metrics):
    if os.path.exists("run/a/config.json") and not os.path.exists("slept"):
        open("slept", "w").close()
        ctypes.PyDLL(None).sleep(6)  # without giving other threads a turn
    return real(self, model, split)
WatchAndRate.metrics = metrics
sys.exit(main.main(sys.argv[1:]))
"""


def test_a_slow_rank_is_waited_for(tmp_path):
    """Rank 0 alone evaluates, here in a call into C that lets no other Python thread run."""
    script = tmp_path / "slow.py"
    script.write_text(SLOW)
    process = start(TWO, *WORLD, "--epochs", "1", "--logdir", "run/a", script=script)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    assert "finished after 1 of 1 epochs" in output


def weights(folder) -> dict[str, torch.Tensor]:
    return torch.load(f"{folder}/last.pt", weights_only=True)["model"]


def test_two_machines_train_the_same_network_as_one_process(tmp_path):
    assert run(*WORLD, "--epochs", 2, "--logdir", "one") == 0
    (tmp_path / "machine").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    launcher = ["--nnodes", "2", "--nproc_per_node", "1", "--master_addr", "127.0.0.1", "--master_port", port]
    arguments = [*WORLD, "--epochs", 2, "--logdir", "two"]
    second = start([*launcher, "--node_rank", 1], *arguments, folder=tmp_path / "machine")
    first = start([*launcher, "--node_rank", 0], *arguments)
    output = [machine.communicate(timeout=120)[0] for machine in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), output
    assert ", 2 processes, run folder two" in output[0]
    assert not any((tmp_path / "machine").iterdir())
    torch.testing.assert_close(weights("two"), weights("one"), rtol=ROUNDING, atol=ROUNDING)


def test_ctrl_c_keeps_finished_epochs_and_resume_repeats_the_rest():
    arguments = [*WORLD, "--epochs", 20]
    cut = start(TWO, *arguments, "--logdir", "cut")
    for line in cut.stdout:
        if line.startswith("epoch  2/20"):
            cut.send_signal(signal.SIGINT)
            break
    assert "interrupted after" in cut.communicate(timeout=60)[0]
    for rest in ([*arguments, "--logdir", "whole"], ["--resume", "cut"]):
        process = start(TWO, *rest)
        output = process.communicate(timeout=200)[0]
        assert process.returncode == 0, output
    assert all(torch.equal(value, weights("cut")[name]) for name, value in weights("whole").items())


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs /proc to list threads")
def test_no_thread_outlives_the_group(tmp_path):
    """A thread that did sometimes aborted the process at interpreter exit."""
    script = tmp_path / "leave.py"
    script.write_text(START_AND_END_GROUP)
    output = start(TWO, script=script).communicate(timeout=60)[0]
    assert output.count("left: []") == 2, output


def test_a_mistake_is_printed_once_by_main_and_once_by_torchrun():
    process = start(TWO, *WORLD, "--epoch", "2")
    output = process.communicate(timeout=60)[0]
    assert process.returncode != 0
    assert output.count("main.py: error: unknown flag --epoch; did you mean --epochs?") == 1
    assert "traceback : unknown flag --epoch; did you mean --epochs?" in output
