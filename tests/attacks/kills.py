"""kill -9 at random moments over the families, also of torchrun and of one of its processes; then --resume."""

import os
import shutil
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

from tests.attacks import runs
from tests.attacks.programs import ROOT, Program, adopt_orphans, bury_orphans, descendants
from tests.attacks.runner import Attack, Broken, Case, Counts

MOST = 3  # kills of a run
RANK_PATIENCE = 5.0  # seconds within which a group ends after one of its processes was killed
GROUP = "two processes"  # in the counts
TORCHRUN = "torch.distributed.run --standalone --nproc_per_node 2"
LAUNCH = 4.0  # seconds that torchrun and the imports take
EVERY_TORCHRUN = 4  # groups; a launcher takes many seconds to start


def prepare(folder: Path) -> None:
    runs.prepare_references(folder)
    group = Group(folder, [*runs.arguments("multitask"), "--logdir", GROUP])
    if not group.ends(60):
        raise Broken("two processes do not end")


class Group:
    """Two processes of one run, forked with what torchrun says in the environment; or torchrun itself."""

    def __init__(self, folder: Path, line: list, with_launcher: bool = False) -> None:
        if with_launcher:
            self.members = [Program([str(ROOT / "main.py"), *line], folder, script=TORCHRUN, exec=True)]
            return
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = str(server.getsockname()[1])
        self.members = []
        for rank in "01":
            environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            self.members.append(Program(line, folder, name=f"rank{rank}", environment=environment))

    def ends(self, seconds: float) -> bool:
        """True where all members have ended within the seconds."""
        end = time.monotonic() + seconds
        return all(member.ends_within(max(0.0, end - time.monotonic())) for member in self.members)

    @property
    def output(self) -> str:
        return self.members[0].output

    def kill(self) -> None:
        for member in self.members:
            member.kill()
        bury_orphans()


def case(given: Case) -> Counts:
    """One run, killed up to three times, then resumed to its end."""
    families = [*runs.FAMILIES, GROUP]
    family = families[given.number % len(families)]
    if family == GROUP:
        return kill_group(given)
    line = runs.arguments(family)
    length = runs.seconds_of(given.shared, family)
    kills = 0
    for number in range(given.random.randint(1, MOST)):
        process = Program(next_line(given.folder, line), given.folder, name=f"part{number}")
        if process.ends_within(runs.moment(given.random, length)):
            break
        process.kill()
        kills += 1
        require_epochs(given.folder / "run", process.output)
    last = Program(next_line(given.folder, line), given.folder, name="last")
    if not last.require_decent_end():
        raise Broken(f"after {kills} kills: {last}: {last.last_words}")
    runs.require_same_run(given.folder / "run", given.shared / family)
    return {"kills": kills, family: kills} if kills else {"finished before": 1}


def kill_group(given: Case) -> Counts:
    """Two processes: all killed at once, or one of them, after which the other must end by itself."""
    adopt_orphans()
    is_launched = given.number // (len(runs.FAMILIES) + 1) % EVERY_TORCHRUN == EVERY_TORCHRUN - 1
    line = runs.arguments("multitask")
    length = 3 * runs.seconds_of(given.shared, "multitask") + (LAUNCH if is_launched else 0.0)
    group = Group(given.folder, next_line(given.folder, line), is_launched)
    kills = 0
    if not group.members[0].ends_within(runs.moment(given.random, length)):
        kills = 1
        if given.random.random() < 0.5:
            group.kill()
        else:
            kill_one(given, group)
    group.ends(RANK_PATIENCE)
    group.kill()
    require_epochs(given.folder / "run", group.output)
    last = Group(given.folder, next_line(given.folder, line), is_launched)
    if not last.ends(60) or any(member.code for member in last.members):
        words = [member.last_words for member in last.members]
        last.kill()
        raise Broken(f"two processes do not resume a killed run: {words}")
    runs.require_same_run(given.folder / "run", given.shared / GROUP)
    if not kills:
        return {"finished before": 1}
    return {"kills": 1, "torchrun" if is_launched else GROUP: 1}


def kill_one(given: Case, group: Group) -> None:
    """Kill one process of the group. Raises Broken where the others do not end by themselves, with a sentence."""
    if len(group.members) == 1:
        below = descendants(group.members[0].pid)
        victim = given.random.choice(below or [group.members[0].pid])
    else:
        victim = given.random.choice(group.members).pid
    with suppress(ProcessLookupError):
        os.kill(victim, signal.SIGKILL)
    if not group.ends(RANK_PATIENCE):
        group.kill()
        raise Broken(f"one of two processes was killed, and the other had not ended {RANK_PATIENCE:g} s later")
    for member in group.members:
        if member.code not in (0, -signal.SIGKILL) and "Traceback" in member.errors and len(group.members) > 1:
            raise Broken(f"one of two processes was killed, and the other printed a traceback: {member.last_words}")


def next_line(folder: Path, line: list) -> list:
    """The command that begins the run, or goes on with it where it has begun."""
    run = folder / "run"
    if (run / "config.json").is_file():
        return ["--resume", "run", "--device", "cpu"]
    shutil.rmtree(run, ignore_errors=True)  # killed between the folder and its first file
    return [*line, "--logdir", "run"]


def require_epochs(run: Path, output: str) -> None:
    """Raises Broken where an epoch that was reported as finished is not kept."""
    printed = runs.epochs_printed(output)
    if printed and len(runs.rows(run)) < max(printed):
        raise Broken(f"epoch {max(printed)} was reported as finished, and metrics.csv has {len(runs.rows(run))} rows")


ATTACK = Attack(
    "kills", "`kill -9` at random moments, then `--resume`", case, "kills", 200, short=40, share=3, prepare=prepare
)
