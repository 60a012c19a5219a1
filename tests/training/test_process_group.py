"""Several processes against one: the same losses, metrics and weights, and they begin and end together.

The processes are forked from one that has torch, as importing it in each would take seconds; what torchrun would tell
them is in their environment. torchrun itself runs in test_torchrun.py.
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
import registry as family
from multitask import task as tasks
from training import process_group as processes

WORLD = ["--dataset", "simulated", "--simulated_size", "30", "40", "600", "--batch_size", "200", "--epochs", "2"]
TOLERANCE = 1e-6  # of float64 weights and float32 labels, where the order of sums differs
SECONDS = 30  # after so many, what has not ended counts as hanging
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["torch", "torch._dynamo", "torch.utils.tensorboard", "pandas", "scipy", "pytest"])

pytestmark = pytest.mark.usefixtures("elsewhere")


def launch(size: int, *commands, upset=None, machines: bool = False) -> tuple[list[list[int]], list[list[str]]]:
    """main.py in so many processes, for one command line after the other.

    The first works in this folder and each of the others in one of its own, as if it were on another machine.

    Args:
        upset: called with the rank in every process before main.py.
        machines: whether they are on different machines by what torchrun tells them, too.

    Returns:
        For each command the exit codes by rank, and for each rank the lines that it said on stderr.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=SECONDS))
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    address |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    lines = [[str(argument) for argument in command] for command in commands]
    members = []
    for rank in range(size):
        place = {"RANK": str(rank), "LOCAL_RANK": "0" if machines else str(rank), "WORLD_SIZE": str(size)}
        members.append(FORKED.Process(target=member, args=(folder_of(rank), address | place, lines, upset)))
    for one in members:
        one.start()
    for one in members:
        one.join(SECONDS)
        one.kill()
    codes = [[int(code) for code in (folder_of(rank) / "codes").read_text().split()] for rank in range(size)]
    errors = [(folder_of(rank) / "stderr").read_text().splitlines() for rank in range(size)]
    return [list(of_one) for of_one in zip(*codes, strict=False)], errors


def folder_of(rank: int) -> Path:
    return Path.cwd() / f"rank{rank}" if rank else Path.cwd()


def member(folder: Path, environment: dict[str, str], commands: list[list[str]], upset) -> None:
    """One of the processes."""
    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    os.environ.update(environment)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    torch.set_num_threads(1)
    if upset is not None:
        upset(int(environment["RANK"]))
    with processes.join() as group, open("codes", "w") as codes:
        processes.join = lambda: nullcontext(group)  # they meet once, as they do in life
        for arguments in commands:
            print(main.main(arguments), file=codes, flush=True)


def outcome(folder: str) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """The history of a run, and its weights with the state of the weighting."""
    state = torch.load(Path(folder, "last.pt"), weights_only=True)
    return state["history"], state["model"] | state["weighting"]


def in_float64(rank: int = 0) -> None:
    """Networks of double precision: what is left between two runs then is no rounding but a mistake."""
    torch.set_default_dtype(torch.float64)


@pytest.fixture
def float64():
    in_float64()
    yield
    torch.set_default_dtype(torch.float32)


ZOO = ["--embedding_dim", "4", "--expert_units", "4", "--tower_units", "4", "--negatives", "1"]
CASES = {
    2: {
        "separate": ["--no_shared_embeddings", "--bpr", "bpr", "--weight_decay", "0.1"],
        "hardest-of-three": ["--negatives", "3", "--negative_sampling", "hardest"],
        "softmax": ["--bpr", "softmax", "--user_balance", "0.5", "--schedule", "cosine", "--embedding_decay", "1"],
        "mmoe": ["--model", "mmoe", *ZOO],
        "given-the-one-before": ["--model", "cgc", "--chain", "conditional", *ZOO],
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
def test_several_processes_do_what_one_does(size, float64):
    cases = {name: [*WORLD, *arguments] for name, arguments in CASES[size].items()}
    several = [[*arguments, "--logdir", f"several/{name}"] for name, arguments in cases.items()]
    codes, errors = launch(size, *several, upset=in_float64)
    assert codes == [[0] * size] * len(cases), errors
    for name, arguments in cases.items():
        assert run(*arguments, "--logdir", f"one/{name}") == 0
        (history, weights), (same_history, same_weights) = outcome(f"one/{name}"), outcome(f"several/{name}")
        for row, same in zip(history, same_history, strict=True):
            assert same == pytest.approx(row, rel=TOLERANCE), name
        torch.testing.assert_close(same_weights, weights, rtol=TOLERANCE, atol=TOLERANCE, msg=name)
        assert len(history) < 9
    for rank in range(1, size):  # the first alone writes and speaks
        assert sorted(path.name for path in folder_of(rank).iterdir()) == ["codes", "stderr", "stdout"]
        assert (folder_of(rank) / "stdout").read_text() == ""


def press_ctrl_c_in_the_second_epoch(rank: int) -> None:
    """At the second process alone, as one who sits at the second machine would."""
    if rank == 1:
        times = iter([False] * 4)
        main.CtrlC.pressed = lambda self: next(times, True)


def test_an_interrupted_run_goes_on_to_the_last_bit():
    command = [*WORLD, "--epochs", "3", "--model", "mmoe", *ZOO, "--weighting", "uncertainty"]
    codes, _ = launch(2, [*command, "--logdir", "cut"], upset=press_ctrl_c_in_the_second_epoch)
    assert codes == [[130, 130]]
    assert len(outcome("cut")[0]) == 1
    codes, _ = launch(2, [*command, "--logdir", "whole"], ["--resume", "cut"])
    assert codes == [[0, 0], [0, 0]]
    (history, weights), (same_history, same_weights) = outcome("whole"), outcome("cut")
    assert same_history == history
    assert all(torch.equal(same_weights[name], value) for name, value in weights.items())


REFUSED = {
    "did you mean --epochs?": ["--epoch", "3"],
    "--model dyadic takes one step after the other": ["--model", "dyadic", "--dataset", "simulated-xing"],
    "taken is not empty": [*WORLD, "--logdir", "taken"],
    "there is no file nowhere.csv": ["--ratings", "nowhere.csv"],
    "the loss factorization became nan in epoch 1": [*WORLD, "--lr", "1e30"],
}


@pytest.mark.parametrize("machines", [False, True])
def test_what_is_wrong_is_said_once_a_machine_and_ends_all_of_them(machines):
    Path("taken").mkdir()
    Path("taken/notes").touch()
    codes, errors = launch(2, *REFUSED.values(), machines=machines)
    assert codes == [[2, 2]] * len(REFUSED)
    for lines, said in zip(errors, (True, machines), strict=True):
        assert len(lines) == (len(REFUSED) if said else 0)
        assert all(complaint in line for complaint, line in zip(REFUSED, lines, strict=said))
    assert not Path("run").exists() or not any(Path("run").iterdir())


def load_other_data_in_the_second(rank: int) -> None:
    if rank == 1:
        family.load_data = lambda settings, load=family.load_data: load(replace(settings, seed=7))


def leave_in_the_second_epoch(rank: int) -> None:
    if rank == 1:
        batches = tasks.WatchAndRate.batches
        tasks.WatchAndRate.batches = lambda self, epoch: os._exit(3) if epoch == 2 else batches(self, epoch)


def test_processes_with_other_data_do_not_train_together():
    codes, errors = launch(2, [*WORLD, "--logdir", "mixed"], upset=load_other_data_in_the_second)
    assert codes == [[2, 2]]
    assert "the processes have read different data: <simulated" in errors[0][0]
    assert not Path("mixed").exists()


def test_nobody_waits_for_a_process_that_has_left():
    _, errors = launch(2, [*WORLD, "--logdir", "left"], upset=leave_in_the_second_epoch)
    assert Path("codes").read_text() == "2\n"
    assert "another process of this run has ended or cannot be reached" in errors[0][0]
    assert len(outcome("left")[0]) == 1


def test_what_is_wrong_in_a_step_ends_all_of_them():
    codes, errors = launch(2, [*WORLD, "--no_shared_embeddings", "--weighting", "gradnorm"])
    assert codes == [[2, 2]]
    assert len(errors[0]) == 1
    assert "this network has none" in errors[0][0]


def test_without_torchrun_there_is_no_group():
    with processes.join() as group:
        assert group is processes.ALONE
        assert not torch.distributed.is_initialized()
