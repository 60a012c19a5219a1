"""torchrun itself, which takes seconds to start: two machines, Ctrl-C, a mistake."""

import os
import signal
import socket
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("elsewhere")]

WORLD = ["--dataset", "simulated", "--simulated_size", "60", "80", "2400", "--device", "cpu"]
ROUNDING = 1e-3  # of float32 weights after two epochs, amplified by Adam
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
