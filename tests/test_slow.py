"""Minutes rather than seconds: figures on the real data, and runs that are killed."""

import os
import random
import signal
import statistics
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT

import dataset
from losses import joint_loss
from models import MultiTaskNet
from multitask.task import WatchAndRate

pytestmark = pytest.mark.slow

KILLS = 25
# Seed 0 must lie in the windows as they are. Other seeds also mean other test parts of 5,000 ratings, which are easier
# or harder for any network: three by three splits and first weights gave MRR 0.078 to 0.090 and MSE 0.823 to 0.926.
SPLIT_SPREAD = {"mrr": 0.010, "mse": 0.030}
WINDOWS = {  # of the course, after five epochs: lowest and highest
    True: {"mrr": (0.04, 0.08), "mse": (0.85, 0.95)},
    False: {"mrr": (0.06, 0.10), "mse": (0.85, 0.95)},
}


def train(folder: str, epochs: int, seed: int, sharing: bool, weights: tuple[float, float]) -> list[dict[str, float]]:
    """Test metrics after each epoch on MovieLens 100K, defaults otherwise."""
    data = dataset.load("ml-100k", folder, seed=seed)
    torch.manual_seed(seed)
    model = MultiTaskNet(943, 1682, embedding_sharing=sharing)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    task = WatchAndRate(data, seed=seed)
    history = []
    for epoch in range(1, epochs + 1):
        for batch in task.batches(epoch):
            optimizer.zero_grad()
            joint_loss(task.losses(model, batch), dict(zip(task.loss_names, weights, strict=True))).backward()
            optimizer.step()
        history.append(task.metrics(model, "test"))
    return history


@pytest.mark.parametrize("weights", [(0.99, 0.01), (0.5, 0.5)])
@pytest.mark.parametrize("sharing", [True, False])
def test_five_epochs_on_movielens_land_in_the_windows(movielens, sharing, weights):
    ends = [train(os.environ["MOVIELENS_DIR"], 5, seed, sharing, weights)[-1] for seed in range(3)]
    print(sharing, weights, [{name: round(end[name], 4) for name in ("mrr", "mse")} for end in ends])
    for name, (low, high) in WINDOWS[sharing].items():
        spread = SPLIT_SPREAD[name]
        assert low <= ends[0][name] <= high  # split 0, without allowance
        assert all(low - spread <= end[name] <= high + spread for end in ends)


def test_thirty_epochs_reach_a_reciprocal_rank_of_a_tenth(movielens):
    ends = [train(os.environ["MOVIELENS_DIR"], 30, seed, True, (0.99, 0.01))[-1]["mrr"] for seed in range(3)]
    print([round(end, 4) for end in ends], statistics.mean(ends))
    assert min(ends) >= 0.10


def start(*arguments) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "main.py"), "--quiet", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_run_killed_at_random_moments_ends_as_if_it_had_not_been(tmp_path):
    """`kill -9` anywhere, import and checkpoint included; then --resume. The last bit of every metric must agree."""
    world = ["--dataset", "simulated", "--simulated_size", 200, 300, 12_000, "--val_fraction", 0.1, "--epochs", 20]
    began = time.perf_counter()
    whole = start(*world, "--logdir", tmp_path / "whole")
    assert whole.wait() == 0, whole.stdout.read()
    length = time.perf_counter() - began

    moments = random.Random(0)
    killed, path = 0, tmp_path / "killed"
    while killed < KILLS:
        begun = (path / "config.json").is_file()
        process = start(*(["--resume", path] if begun else [*world, "--logdir", path]))
        try:
            # Most moments lie after the imports, where there is something to break.
            process.wait(timeout=moments.uniform(0.4, 1.05) * length)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
        else:
            assert process.returncode == 0, process.stdout.read()
            assert_same_run(path, tmp_path / "whole")
            path = tmp_path / f"killed-{killed}"  # that run got through: go on with a fresh one
    last = start(*(["--resume", path] if (path / "config.json").is_file() else [*world, "--logdir", path]))
    assert last.wait() == 0, last.stdout.read()
    assert_same_run(path, tmp_path / "whole")


def assert_same_run(path, whole) -> None:
    assert (path / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    for name in ("last.pt", "best.pt"):
        a, b = (torch.load(folder / name, weights_only=True) for folder in (path, whole))
        assert a["history"] == b["history"]
        assert all(a["model"][key].equal(b["model"][key]) for key in b["model"])
