"""The runner of many jobs, each in a process of its own; what is finished is found again and not repeated.

A job is a run of main.py, which leaves an ordinary run folder for TensorBoard or --recommend, or a function of ours in
a spawned process. `run_jobs` is the one place that skips finished jobs, runs several at a time, estimates the time
that is left, and ends the others after an error or Ctrl-C.
"""

import glob
import hashlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from config.base import RunConfig
from config.errors import UserError
from sources.files import write_atomically
from sources.locks import FolderLock
from training.console import log
from training.model_errors import explain

MAIN = Path(__file__).resolve().parent.parent / "main.py"
FINISHED = ("finished", "stopped early")  # the endings of a run that need no further epochs
Log = Callable[[str], None]


class Process(Protocol):
    """A job under way."""

    def wait(self) -> None:
        """Wait for the end; UserError where it was a bad one."""

    def terminate(self) -> None:
        """End the process at once."""


@dataclass(frozen=True)
class Job:
    """Work for one process.

    name: in the progress line and in errors.
    find_result: returns the result of the finished job, None where it is not finished.
    start: starts the process that leaves the result.
    """

    name: str
    find_result: Callable[[], dict | None]
    start: Callable[[], Process]


@dataclass(frozen=True)
class Run:
    """One run of main.py in an experiment: the row of the table it belongs to, and its config."""

    row: str
    config: RunConfig

    def folder(self, root: Path) -> Path:
        """The run folder; its name depends on everything that affects the result, so that results never mix.

        That is every such field, and the content of the user's own files instead of their paths.
        """
        fields = self.config.__dataclass_fields__
        values = {
            name: value
            for name, value in self.config.to_dict().items()
            if name == "model" or fields[name].metadata["option"].affects_result
        }
        values |= {name: content_digest(path) for name, path in self.config.own_files.items()}
        return root / f"{self.config.run_name}_{short_digest(values)}"


def short_digest(values: object) -> str:
    """10 hexadecimal digits that depend on every value."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:10]


def content_digest(path: str) -> str:
    """The sha256 of a file; "" where it cannot be read, which the run that needs it reports."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def run_jobs(jobs: Sequence[Job], folder: Path, at_a_time: int, log: Log = log, noun: str = "jobs") -> list[dict]:
    """Run the jobs that are not finished; returns the results of all, in their order.

    Logs a line per job, with an estimate of the time that is left.

    Args:
        folder: holds the results; it is made.
        at_a_time: processes that run side by side.
        noun: for the message on jobs that are finished already.

    Raises:
        UserError: a job ended badly. The jobs under way are ended; results of finished jobs stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    waiting = [job for job in jobs if job.find_result() is None]
    finished = len(jobs) - len(waiting)
    if finished:
        log(f"{finished} of {len(jobs)} {noun} are finished already, in {folder}")
    start, under_way = time.perf_counter(), set()
    with ThreadPoolExecutor(at_a_time) as pool:
        futures = [pool.submit(_run, job, under_way) for job in waiting]
        try:
            for done, future in enumerate(as_completed(futures), 1):
                name, left = future.result(), len(waiting) - done
                minutes = (time.perf_counter() - start) / done * left / 60
                log(f"{finished + done}/{len(jobs)} {name}; about {minutes:.1f} min to go")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(under_way):
                process.terminate()
            raise
    return [job.find_result() for job in jobs]


def run_all(runs: Sequence[Run], root: Path, at_a_time: int, log: Log = log) -> list[dict]:
    """Run main.py for every run that is not finished; one that was cut off starts again from its first epoch.

    Returns:
        result.json of every run, in their order, with "row", "seed" and "folder".

    Raises:
        UserError: a run ended badly; see `run_jobs`.
    """
    folders = [run.folder(root) for run in runs]
    jobs = [
        Job(folder.name, partial(_read_result, folder), partial(MainProcess, run.config, folder))
        for run, folder in zip(runs, folders, strict=True)
    ]
    results = run_jobs(jobs, root, at_a_time, log, "runs")
    return [
        {"row": run.row, "seed": run.config.seed, "folder": str(folder)} | result
        for run, folder, result in zip(runs, folders, results, strict=True)
    ]


class MainProcess:
    """main.py with a config, in an empty run folder."""

    def __init__(self, config: RunConfig, folder: Path) -> None:
        self.folder, self.settings = folder, folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.json")
        remove_unfinished(folder)
        values = config.to_dict() | {"logdir": str(folder), "quiet": True}
        write_atomically(self.settings, json.dumps(values).encode())
        self.process = subprocess.Popen(
            [sys.executable, str(MAIN), "--config", str(self.settings)],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"OMP_NUM_THREADS": str(config.threads)},
        )  # fmt: skip

    def wait(self) -> None:
        try:
            message = self.process.communicate()[1]
        finally:
            self.settings.unlink(missing_ok=True)
        if code := self.process.returncode:
            raise UserError(f"the run {self.folder} ended with code {code}: {message.strip()[-1000:]}")

    def terminate(self) -> None:
        self.process.terminate()


def remove_unfinished(folder: Path) -> None:
    """Remove a run that was cut off, and the settings that a killed experiment has left for it.

    Raises:
        UserError: a process is still training it, such as one that has outlived its experiment, or one by --resume.
    """
    if folder.is_dir():
        lock = FolderLock(folder)
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()
    for settings in folder.parent.glob(f".{glob.escape(folder.name)}.*.json"):
        settings.unlink(missing_ok=True)


class FunctionProcess:
    """function(*arguments) in a spawned process; the function and its arguments can be pickled.

    Spawned and not forked: a forked child may wait for ever for locks that threads of its parent held.
    """

    def __init__(self, function: Callable[..., object], *arguments: Any) -> None:
        context = get_context("spawn")
        self.errors, sender = context.Pipe(duplex=False)
        self.process = context.Process(target=_call, args=(sender, function, arguments), daemon=True)
        self.process.start()
        sender.close()

    def wait(self) -> None:
        try:
            message = self.errors.recv()
        except EOFError:  # the process has ended without an error that the user can fix
            message = None
        self.process.join()
        if message is not None:
            raise UserError(message)
        if code := self.process.exitcode:
            raise UserError(
                f"a process ended with code {code}, perhaps for lack of memory: try again with fewer --jobs"
            )

    def terminate(self) -> None:
        self.process.terminate()


def _run(job: Job, under_way: set[Process]) -> str:
    """Run a job to its end; returns its name."""
    process = job.start()
    under_way.add(process)
    try:
        process.wait()
    finally:
        under_way.discard(process)
    return job.name


def _call(errors: Connection, function: Callable[..., object], arguments: tuple) -> None:
    """In the spawned process: call the function and send the message of an error that the user can fix."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches all processes; the parent alone answers it
    try:
        function(*arguments)
    except Exception as error:
        sentence = explain(error) or (str(error) if isinstance(error, (UserError, OSError)) else None)
        if sentence is None:
            raise
        errors.send(sentence)


def _read_result(folder: Path) -> dict | None:
    """result.json of a finished run; None for any other."""
    try:
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        return result if result["ending"] in FINISHED else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
