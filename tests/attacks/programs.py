"""Programs under attack: main.py and the others in forked processes, and what every end of theirs must look like."""

import ctypes
import importlib
import os
import resource
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch

import registry
from tests.attacks.runner import Broken

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE = 90.0  # seconds; a tiny run takes less than one, under torchrun fifteen
MEMORY = 3 * 2**30  # bytes that a process may take beside those it starts with
LONGEST_SENTENCE = 2000  # characters
PR_SET_CHILD_SUBREAPER = 36


def import_everything() -> None:
    """Import what a run imports, so that a forked process starts at once."""
    torch.set_num_threads(1)
    for name in (
        *registry.RECIPES, "main", "experiments", "torch._dynamo", "torch.utils.tensorboard", "training.session",
        "training.loop", "training.report", "training.data_parallel", "serving.command", "matplotlib.pyplot",
    ):  # fmt: skip
        importlib.import_module(name)


class Program:
    """A program that runs in a process of its own, in its own session; it is started at once.

    arguments: of the command line.
    folder: its working directory; its output goes to files there.
    script: a file at the root of the project.
    exec: True starts an interpreter, with its imports; False forks this one, which is much faster.
    before: called in the process before the program starts.
    """

    def __init__(
        self, arguments: Sequence[object], folder: Path, name: str = "program", script: str = "main.py",
        exec: bool = False, environment: dict[str, str] | None = None, before: Callable[[], object] = lambda: None,
    ) -> None:  # fmt: skip
        self.name, self.arguments = script, [str(argument) for argument in arguments]
        self.outputs = [folder / f"{name}.{stream}" for stream in ("out", "err")]
        self.code: int | None = None
        self.began = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                self._become(folder, script, exec, environment or {}, before)
                code = _run_script(script)
            finally:
                os._exit(code)

    def _become(self, folder: Path, script: str, exec: bool, environment: dict[str, str], before: Callable) -> None:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.chdir(folder)
        for number, path in enumerate(self.outputs, start=1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.pop("MOVIELENS_DIR", None)
        os.environ.update({"PYTHONPATH": str(ROOT), **environment})
        before()
        if exec:
            launcher = ["-m", *script.split()] if script.startswith("torch.") else [str(ROOT / script)]
            os.execv(sys.executable, [sys.executable, *launcher, *self.arguments])
        sys.argv = [str(ROOT / script), *self.arguments]
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))  # not those of a test

    @property
    def output(self) -> str:
        return self.outputs[0].read_text(errors="replace") if self.outputs[0].is_file() else ""

    @property
    def errors(self) -> str:
        return self.outputs[1].read_text(errors="replace") if self.outputs[1].is_file() else ""

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def poll(self) -> int | None:
        """The exit code; minus the signal that ended it; None while it runs."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def wait(self, seconds: float = PATIENCE) -> int:
        """The exit code. Raises Broken where it does not end."""
        if not self.ends_within(seconds):
            self.kill()
            raise Broken(f"{self}: no end within {seconds:g} s; {self.last_words}")
        assert self.code is not None
        return self.code

    def ends_within(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < end:
            time.sleep(0.002)
        return self.code is not None

    def send(self, number: int) -> None:
        with suppress(ProcessLookupError):
            if self.poll() is None:
                os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9 of its whole session, and of those below it."""
        for pid in [*descendants(self.pid), self.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def require_decent_end(self, seconds: float = PATIENCE) -> bool:
        """True where it has done its work, False where it has refused with one sentence. Raises Broken otherwise."""
        code = self.wait(seconds)
        errors = self.errors
        program = self.name.split(".py")[0]
        line = errors.removesuffix("\n")
        is_sentence = line.startswith(f"{program}.py: error: ") and line.isprintable() and len(line) < LONGEST_SENTENCE
        if code == 0 and "Traceback" not in errors:
            return True
        if code == 2 and is_sentence:
            return False
        raise Broken(f"{self}: exit code {code}; {self.last_words}")

    @property
    def last_words(self) -> str:
        """The end of what it has printed as an error."""
        return " / ".join(self.errors.strip().splitlines()[-3:])[-400:] or "no error message"

    def __str__(self) -> str:
        return " ".join([self.name, *self.arguments])[:400]


def _run_script(script: str) -> int:
    """Run a program of the project in this process as `python PROGRAM` does; returns its exit code."""
    try:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except KeyboardInterrupt:
        traceback.print_exc()
        return 130
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
    return 0


def limit_memory() -> None:
    """For `before`: so that a case that asks for too much meets its limit, not that of the machine."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))


def descendants(pid: int) -> list[int]:
    """The processes below a process, found in /proc."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, IndexError):
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
    found = [child for child, parent in parents.items() if parent == pid]
    return [*found, *(below for child in found for below in descendants(child))]


def adopt_orphans() -> None:
    """Processes whose parent ends become children of this one, so that `descendants` finds them."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def bury_orphans() -> None:
    """Collect what has ended of the processes below this one."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
