"""Several processes compute the same losses, metrics and weights as one, and start and end together.

The processes are forked from one that has imported torch, which saves seconds for each. Their environment is the one
that torchrun would set; test_torchrun.py runs torchrun itself.
"""

import multiprocessing
import os
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from conftest import run
from torch.distributed import TCPStore

import main
from multitask import task as tasks
from multitask.recipe import MultiTaskRecipe
from training import process_group
from training.interrupts import CtrlC

WORLD = ["--dataset", "simulated", "--simulated_size", "30", "40", "600", "--batch_size", "200", "--epochs", "2"]
TOLERANCE = 1e-6  # for float64 weights and float32 labels: only the order of summation differs
SECONDS = 30  # a process that runs longer counts as hanging
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["torch", "torch._dynamo", "torch.utils.tensorboard", "pandas", "scipy", "pytest"])

pytestmark = pytest.mark.usefixtures("elsewhere")


def launch(size: int, *commands, setup=None, machines: bool = False) -> tuple[list[list[int]], list[list[str]]]:
    """Run main.py in `size` processes, for each command line in turn.

    Rank 0 works in the current folder and every other rank in a folder of its own, as if on another machine.

    Args:
        setup: called with the rank in every process before main.py.
        machines: also set LOCAL_RANK as on different machines.

    Returns:
        For each command the exit codes by rank, and for each rank the lines of its stderr.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=SECONDS))
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    address |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    lines = [[str(argument) for argument in command] for command in commands]
    workers = []
    for rank in range(size):
        ranks = {"RANK": str(rank), "LOCAL_RANK": "0" if machines else str(rank), "WORLD_SIZE": str(size)}
        workers.append(FORKED.Process(target=work, args=(folder_of(rank), address | ranks, lines, setup)))
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(SECONDS)
        worker.kill()
    codes = [[int(code) for code in (folder_of(rank) / "codes").read_text().split()] for rank in range(size)]
    errors = [(folder_of(rank) / "stderr").read_text().splitlines() for rank in range(size)]
    return [list(of_command) for of_command in zip(*codes, strict=False)], errors


def folder_of(rank: int) -> Path:
    return Path.cwd() / f"rank{rank}" if rank else Path.cwd()


def work(folder: Path, environment: dict[str, str], commands: list[list[str]], setup) -> None:
    """The body of one process."""
    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    os.environ.update(environment)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    torch.set_num_threads(1)
    if setup is not None:
        setup(int(environment["RANK"]))
    with process_group.distributed() as group, open("codes", "w") as codes:
        process_group.distributed = lambda: nullcontext(group)  # one group for all commands
        for arguments in commands:
            print(main.main(arguments), file=codes, flush=True)


def outcome(folder: str) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """The history of a run, and its weights together with the state of the weighting."""
    state = torch.load(Path(folder, "last.pt"), weights_only=True)
    return state["history"], state["model"] | state["weighting"]


def in_float64(rank: int = 0) -> None:
    """Make networks double precision, so that a difference between two runs is an error and not rounding."""
    torch.set_default_dtype(torch.float64)


@pytest.fixture
def float64():
    in_float64()
    yield
    torch.set_default_dtype(torch.float32)


ZOO = ["--embedding_dim", "4", "--expert_units", "4", "--tower_units", "4", "--negatives", "1"]
CASES = {
    2: {
        "separate": ["--no_shared_embeddings", "--ranking_loss", "bpr", "--weight_decay", "0.1"],
        "hardest-of-three": ["--negatives", "3", "--negative_sampling", "hardest"],
        "softmax": [
            "--ranking_loss",
            "softmax",
            "--user_weight_exponent",
            "0.5",
            "--schedule",
            "cosine",
            "--embedding_decay",
            "1",
        ],
        "mmoe": ["--model", "mmoe", *ZOO],
        "conditional-chain": ["--model", "cgc", "--chain", "conditional", *ZOO],
        "uncertainty": ["--weighting", "uncertainty", "--no_shared_embeddings"],
        "dwa": ["--weighting", "dwa", "--epochs", "3"],
        "pcgrad": ["--weighting", "pcgrad", "--model", "stem", *ZOO],
        "stopped-early": ["--val_fraction", "0.2", "--lr", "0.5", "--patience", "1", "--epochs", "9"],
    },
    3: {
        "shared": [],
        "last-batch-of-one-row": ["--batch_size", "569"],
        "calibrator": ["--model", "aitm", "--embedding_dim", "4", "--negatives", "1"],
        "gradnorm": ["--weighting", "gradnorm"],
    },
}


@pytest.mark.parametrize("size", CASES)
def test_several_processes_compute_what_one_computes(size, float64):
    cases = {name: [*WORLD, *arguments] for name, arguments in CASES[size].items()}
    several = [[*arguments, "--logdir", f"several/{name}"] for name, arguments in cases.items()]
    codes, errors = launch(size, *several, setup=in_float64)
    assert codes == [[0] * size] * len(cases), errors
    for name, arguments in cases.items():
        assert run(*arguments, "--logdir", f"one/{name}") == 0
        (history, weights), (same_history, same_weights) = outcome(f"one/{name}"), outcome(f"several/{name}")
        for row, same in zip(history, same_history, strict=True):
            assert same == pytest.approx(row, rel=TOLERANCE), name
        torch.testing.assert_close(same_weights, weights, rtol=TOLERANCE, atol=TOLERANCE, msg=name)
        assert len(history) < 9
    for rank in range(1, size):  # only rank 0 writes and prints
        assert sorted(path.name for path in folder_of(rank).iterdir()) == ["codes", "stderr", "stdout"]
        assert (folder_of(rank) / "stdout").read_text() == ""


def press_ctrl_c_on_rank_1_in_the_second_epoch(rank: int) -> None:
    """In the process of rank 1 only, as by a user at the second machine."""
    if rank == 1:
        times = iter([False] * 4)
        CtrlC.pressed = lambda self: next(times, True)


def test_an_interrupted_run_resumes_bit_equal():
    command = [*WORLD, "--epochs", "3", "--model", "mmoe", *ZOO, "--weighting", "uncertainty"]
    codes, _ = launch(2, [*command, "--logdir", "cut"], setup=press_ctrl_c_on_rank_1_in_the_second_epoch)
    assert codes == [[130, 130]]
    assert len(outcome("cut")[0]) == 1
    codes, _ = launch(2, [*command, "--logdir", "whole"], ["--resume", "cut"])
    assert codes == [[0, 0], [0, 0]]
    (history, weights), (same_history, same_weights) = outcome("whole"), outcome("cut")
    assert same_history == history
    assert all(torch.equal(same_weights[name], value) for name, value in weights.items())


MISTAKES = {
    "did you mean --epochs?": ["--epoch", "3"],
    "--model dyadic trains sequentially in on": ["--model", "dyadic", "--dataset", "simulated-xing"],
    "taken is not empty": [*WORLD, "--logdir", "taken"],
    "there is no file nowhere.csv": ["--ratings", "nowhere.csv"],
    "the loss factorization became nan in epoch 1": [*WORLD, "--lr", "1e30"],
    "the loss regression rose from 1": [*WORLD, "--lr", "100"],
}


@pytest.mark.parametrize("machines", [False, True])
def test_a_mistake_is_printed_once_per_machine_and_ends_all_processes(machines):
    Path("taken").mkdir()
    Path("taken/notes").touch()
    codes, errors = launch(2, *MISTAKES.values(), machines=machines)
    assert codes == [[2, 2]] * len(MISTAKES)
    for lines, prints in zip(errors, (True, machines), strict=True):
        assert len(lines) == (len(MISTAKES) if prints else 0)
        assert all(complaint in line for complaint, line in zip(MISTAKES, lines, strict=prints))
    assert not Path("run").exists() or not any(Path("run").iterdir())


def load_other_data_on_rank_1(rank: int) -> None:
    if rank == 1:
        load = MultiTaskRecipe.load_data
        MultiTaskRecipe.load_data = lambda self, config: load(self, replace(config, seed=7))


def exit_rank_1_in_the_second_epoch(rank: int) -> None:
    if rank == 1:
        batches = tasks.WatchAndRate.batches
        tasks.WatchAndRate.batches = lambda self, epoch: os._exit(3) if epoch == 2 else batches(self, epoch)


def test_processes_with_different_data_are_rejected():
    codes, errors = launch(2, [*WORLD, "--logdir", "mixed"], setup=load_other_data_on_rank_1)
    assert codes == [[2, 2]]
    assert "the processes have read different data: <simulated" in errors[0][0]
    assert not Path("mixed").exists()


def test_a_process_that_exits_ends_the_run():
    _, errors = launch(2, [*WORLD, "--logdir", "left"], setup=exit_rank_1_in_the_second_epoch)
    assert Path("codes").read_text() == "2\n"
    assert "another process of this run has ended or cannot be reached" in errors[0][0]
    assert len(outcome("left")[0]) == 1


def test_an_error_in_a_step_ends_all_processes():
    codes, errors = launch(2, [*WORLD, "--no_shared_embeddings", "--weighting", "gradnorm"])
    assert codes == [[2, 2]]
    assert len(errors[0]) == 1
    assert "this network has none" in errors[0][0]


def test_without_torchrun_the_group_is_a_single_process():
    with process_group.distributed() as group:
        assert group is process_group.SINGLE_PROCESS
        assert not torch.distributed.is_initialized()
