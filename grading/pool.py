"""The worker processes that run hand-ins: started, given checks, heard and stopped, several at a time."""

import json
import os
import secrets
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import gettempdir

from config.errors import UserError
from grading.questions import Check
from grading.results import CheckResult, Grading, judge

GRADING = Path(__file__).resolve().parent
WORKER_FILES = ("worker.py", "jobs.py", "guard.py", "sandbox.py")
START_SECONDS = 120.0  # for a worker to load PyTorch
GRACE_SECONDS = 5.0  # for a worker to report that a check took too long
MOST_FAILED_STARTS = 3  # in a row
PIPE_BYTES = 2**20


class Worker:
    """A worker process (worker.py) for one hand-in, and the check that it runs now.

    Attributes:
        check: what it runs now; None while it is idle or still loading PyTorch.
        is_ready: it has loaded PyTorch.
        is_gone: it has ended, or does not answer; it takes no further check.
    """

    def __init__(self, grading: Grading, program: Path, sandbox: str) -> None:
        self.grading = grading
        self.check: Check | None = None
        self.is_ready = self.is_gone = False
        self.received, self.limit = b"", 0.0
        self.deadline = time.monotonic() + START_SECONDS * grading.time_scale
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-B",
                program / "worker.py",
                str(os.getpid()),
                sandbox,
                grading.folder,
                *grading.forbidden,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            cwd=grading.folder,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin.fileno(), self.process.stdout.fileno()
        widen(self.stdin)

    def start(self, check: Check, limit: float) -> None:
        self.check, self.limit = check, limit
        self.deadline = time.monotonic() + limit + GRACE_SECONDS
        request = json.dumps({"jobs": check.jobs, "seconds": limit}).encode() + b"\n"
        with suppress(OSError):  # a worker that is gone is noticed when its answer is read
            os.write(self.stdin, request)

    def hear(self, has_written: bool) -> CheckResult | None:
        """Read what the worker has written, or give it up as late; returns the result of a check that ends with it."""
        chunk = os.read(self.stdout, 2**20) if has_written else b""
        self.received += chunk
        if chunk and not chunk.endswith(b"\n"):
            return None
        self.is_gone = not chunk
        line, self.received = self.received, b""
        if self.check is None:
            self.is_ready = not self.is_gone
            return None
        lost = {"timed_out": not has_written, "exit_code": "unknown", "answer": "", "seconds": self.limit}
        check, self.check = self.check, None
        return judge(check, lost if self.is_gone else json.loads(line), self.limit)

    def kill(self) -> None:
        """Kill the process, its session and what it runs; never waits."""
        with suppress(OSError):
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()

    def stop(self) -> str:
        """Kill it and wait for it; returns what it has written to stderr."""
        self.kill()
        return self.process.communicate()[1].decode(errors="replace")


def widen(pipe: int) -> None:
    """Let the pipe hold a request as a whole, where this can be set (Linux): sending one then never waits."""
    if sys.platform == "linux":
        import fcntl

        with suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


class Pool:
    """Grades hand-ins with several workers at a time.

    Args:
        size: workers at a time.
        per_hand_in: most workers for the checks of one hand-in. PyTorch starts once in each.
        sandbox: what closes in a solution: "kernel" (sandbox.py) and the guard, or the "guard" (guard.py) alone.

    Use it as a context: entering makes its scratch files, leaving removes them and stops all workers.
    """

    def __init__(self, size: int, per_hand_in: int = 1, sandbox: str = "guard") -> None:
        self.size, self.per_hand_in, self.sandbox = size, per_hand_in, sandbox
        self.workers: list[Worker] = []
        self.active: list[Grading] = []
        self.failed_starts = 0
        self.num_places = 0
        self.scratch = Path(gettempdir()) / f"grader-{secrets.token_hex(8)}"  # named before it is made: see `abandon`
        self.program = self.scratch / "program"

    def __enter__(self) -> "Pool":
        self.scratch.mkdir(mode=0o700)
        self.program.mkdir()
        for name in WORKER_FILES:
            shutil.copyfile(GRADING / name, self.program / name)
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.stop()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def new_place(self) -> Path:
        """An empty folder for the copy of a hand-in; removed with the pool."""
        self.num_places += 1
        place = self.scratch / str(self.num_places)
        place.mkdir()
        return place

    def abandon(self) -> None:
        """Kill all workers and remove the scratch files; for signal handlers, as it waits for nothing."""
        for worker in list(self.workers):
            worker.kill()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def run(self, gradings: Iterable[Grading]) -> Iterator[tuple[Grading, CheckResult]]:
        """Yield the results of all checks as they come. Takes the next hand-in when there is a worker for it.

        Raises:
            UserError: workers cannot be started.
        """
        coming = iter(gradings)
        while True:
            self._hire(coming)
            if not self.workers:
                return
            for worker, has_written in self._wait():
                result = worker.hear(has_written)
                if result is not None:
                    yield from ((worker.grading, each) for each in worker.grading.put(result))
            for worker in list(self.workers):
                self._employ(worker)

    def _hire(self, coming: Iterator[Grading]) -> None:
        """Start workers for hand-ins that have checks left, up to the size of the pool."""
        self.active = [grading for grading in self.active if not grading.is_done]
        while len(self.workers) < self.size:
            grading = next((each for each in self.active if self._needs_worker(each)), None)
            if grading is None:
                grading = next(coming, None)
                if grading is None:
                    return
                self.active.append(grading)
            self.workers.append(Worker(grading, self.program, self.sandbox))

    def _needs_worker(self, grading: Grading) -> bool:
        has = sum(worker.grading is grading for worker in self.workers)
        left = len(grading.checks) - len(grading.results)
        return has < min(self.per_hand_in, left) and (grading.is_importing or len(grading.waiting) > 0)

    def _wait(self) -> list[tuple[Worker, bool]]:
        """The workers that have written something (True) or are late (False); waits for the first of them."""
        with selectors.DefaultSelector() as selector:
            for worker in self.workers:
                if worker.check is not None or not worker.is_ready:
                    selector.register(worker.stdout, selectors.EVENT_READ, worker)
            waiting = [key.data for key in selector.get_map().values()]
            first = min(worker.deadline for worker in waiting)
            ready = [key.data for key, _ in selector.select(max(0.0, first - time.monotonic()))]
        late = [worker for worker in waiting if worker not in ready and worker.deadline <= time.monotonic()]
        return [(worker, True) for worker in ready] + [(worker, False) for worker in late]

    def _employ(self, worker: Worker) -> None:
        """Give an idle worker its next check; dismiss it where there is none or it is gone."""
        grading = worker.grading
        if worker.is_gone:
            self._dismiss(worker)
        elif worker.is_ready and worker.check is None:
            task = grading.take()
            if task is not None:
                worker.start(*task)
            elif not grading.is_importing:
                self._dismiss(worker)

    def _dismiss(self, worker: Worker) -> None:
        self.workers.remove(worker)
        message = worker.stop()
        self.failed_starts = 0 if worker.is_ready else self.failed_starts + 1
        if self.failed_starts == MOST_FAILED_STARTS:
            last_line = (message.strip().splitlines() or ["it gave no reason"])[-1]
            raise UserError(f"the process that runs a hand-in cannot start: {last_line}")
