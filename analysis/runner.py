"""Many runs of main.py, each once: a finished one is found again by its settings and not repeated.

Every run is a process of its own and leaves an ordinary run folder, to be looked at with TensorBoard or asked for
recommendations like any other.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from config.base import RunConfig
from config.errors import UserError

MAIN = Path(__file__).resolve().parent.parent / "main.py"
ENDINGS = ("finished", "stopped early")
# What does not change a result, and may differ when the experiment is taken up again.
NOT_IN_NAME = ("data_dir", "logdir", "device", "threads", "quiet", "profile")


@dataclass(frozen=True)
class Run:
    """One run of an experiment: the row of the table it belongs to, and its settings."""

    row: str
    config: RunConfig

    def folder(self, root: Path) -> Path:
        """Another setting is another folder: results of different settings never mix."""
        values = {name: value for name, value in self.config.to_dict().items() if name not in NOT_IN_NAME}
        digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:10]
        return root / f"{self.config.run_name}_{digest}"


def run_all(runs: Sequence[Run], root: Path, jobs: int, say: Callable[[str], None]) -> list[dict]:
    """The results of all runs, in their order: what is in result.json, with "row", "seed" and "folder".

    Runs that are not finished are started, `jobs` at a time; one that was cut off begins anew. A line a run says what
    is done and how long the rest may take.

    Raises:
        UserError: a run ended badly; those that were under way are ended, the finished ones kept.
    """
    root.mkdir(parents=True, exist_ok=True)
    waiting = [run for run in runs if _result(run, root) is None]
    if len(waiting) < len(runs):
        say(f"{len(runs) - len(waiting)} of {len(runs)} runs are finished already, in {root}")
    start = time.perf_counter()
    processes: set[subprocess.Popen] = set()
    with ThreadPoolExecutor(jobs) as pool:
        under_way: set[Future] = {pool.submit(_start, run, root, processes) for run in waiting}
        try:
            while under_way:
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                for future in done:
                    name = future.result()
                    finished = len(waiting) - len(under_way)
                    left = (time.perf_counter() - start) / finished * len(under_way)
                    say(f"{len(runs) - len(under_way)}/{len(runs)} {name}; about {left / 60:.1f} min to go")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(processes):
                process.terminate()
            raise
    return [
        {"row": run.row, "seed": run.config.seed, "folder": str(run.folder(root))} | _result(run, root) for run in runs
    ]


def _result(run: Run, root: Path) -> dict | None:
    """The result of a finished run; None for any other."""
    try:
        result = json.loads((run.folder(root) / "result.json").read_text(encoding="utf-8"))
        return result if result["ending"] in ENDINGS else None
    except (OSError, ValueError, KeyError):
        return None


def _start(run: Run, root: Path, processes: set[subprocess.Popen]) -> str:
    """Run main.py to its end; returns what to call it."""
    folder = run.folder(root)
    shutil.rmtree(folder, ignore_errors=True)
    config = root / f".{folder.name}.json"
    config.write_text(json.dumps(run.config.to_dict() | {"logdir": str(folder), "quiet": True}), encoding="utf-8")
    environment = os.environ | {"OMP_NUM_THREADS": str(run.config.threads)}
    process = subprocess.Popen(
        [sys.executable, str(MAIN), "--config", str(config)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    processes.add(process)
    try:
        complaint = process.communicate()[1]
    finally:
        processes.discard(process)
        config.unlink(missing_ok=True)
    if process.returncode != 0:
        raise UserError(f"the run {folder} ended with code {process.returncode}: {complaint.strip()[-500:]}")
    return folder.name
