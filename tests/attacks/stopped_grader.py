"""Ctrl-C, SIGTERM and SIGHUP while the grader grades, on a busy machine: it ends soon and leaves nothing behind."""

import os
import re
import shutil
import signal
import time
from pathlib import Path

from tests.attacks.programs import ROOT, Program, adopt_orphans, bury_orphans, descendants
from tests.attacks.runner import Attack, Broken, Case, Counts

LIMIT = 2.0  # seconds from the signal to the end, and from there to the end of the last worker
MOMENTS = (1.0, 2.0, 3.0, 7.0)  # the most seconds before the signal: within the imports, within the checks
FIRST_LINE = "import signal"  # of grader.py; what it imports is Python, which Ctrl-C can meet, too
STARTED = 5.0  # seconds within which the interpreter has started, on a busy machine
SIGNALS = [signal.SIGINT] * 4 + [signal.SIGTERM, signal.SIGHUP]
IGNORED = 0.3  # share of the cases in which SIGINT is inherited as ignored, as background jobs of a script inherit it
ENDLESS = "import torch\n\n\ndef __getattr__(name):\n    while True:\n        pass\n"
HAND_INS = {"right": None, "empty": "", "broken": "def (", "endless": ENDLESS}  # None: the models.py of the project


def prepare(folder: Path) -> None:
    """A small class."""
    for name, text in HAND_INS.items():
        place = folder / "class" / name
        place.mkdir(parents=True)
        if text is None:
            shutil.copy(ROOT / "models.py", place)
        else:
            (place / "models.py").write_text(text)


def case(given: Case) -> Counts:
    adopt_orphans()
    draw = given.random
    line: list = []
    if draw.random() < 0.5:
        line = ["--class", given.shared / "class", "--csv", "grades.csv", "--timeout-scale", 0.3]
    is_ignored = draw.random() < IGNORED
    scratch = given.folder / "scratch"
    scratch.mkdir()
    process = Program(
        line, given.folder, script="grader.py", exec=True, environment={"TMPDIR": str(scratch)},
        before=(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if is_ignored else lambda: None,
    )  # fmt: skip
    process.ends_within(draw.uniform(0, MOMENTS[given.number % len(MOMENTS)]))
    number = draw.choice(SIGNALS)
    try:
        return stop(process, number) | {"class" if line else "single": 1} | ({"ignored": 1} if is_ignored else {})
    finally:
        process.kill()
        for pid in descendants(os.getpid()):
            os.kill(pid, signal.SIGKILL)
        bury_orphans()


def stop(process: Program, number: signal.Signals) -> Counts:
    """Send the signal. Raises Broken where the grader does not end well."""
    if process.poll() is not None:
        return {"finished before": 1}
    while ignores(process, number):  # until the interpreter has come to the first lines of grader.py
        if process.seconds > STARTED or process.poll() is not None:
            raise Broken(f"{process} ignores {number.name} {process.seconds:.1f} s after its start")
        time.sleep(0.005)
    process.send(number)
    began = time.monotonic()
    if not process.ends_within(10 * LIMIT):
        raise Broken(f"{number.name}: {process} had not ended {10 * LIMIT:g} s later; {process.last_words}")
    took = time.monotonic() - began
    if took > LIMIT:
        raise Broken(f"{number.name}: {process} ended after {took:.1f} s")
    require_nothing_left(process, number)
    if "Traceback" not in process.errors:
        return {"signals": 1, number.name: 1}
    if frames_of_project(process.errors) <= {FIRST_LINE}:
        return {"before the first line": 1}
    raise Broken(f"{number.name}: {process}: {process.last_words}")


def frames_of_project(errors: str) -> set[str]:
    """The lines of the project in a traceback: none where Ctrl-C has met the interpreter before it began with them."""
    frames = re.findall(r'File "(.*)", line \d+.*\n\s*(.*)', errors)
    return {code for file, code in frames if file.startswith(str(ROOT))}


def ignores(process: Program, number: signal.Signals) -> bool:
    """True where the kernel drops the signal."""
    found = re.search(r"SigIgn:\s*(\w+)", Path(f"/proc/{process.pid}/status").read_text())
    return found is not None and bool(int(found[1], 16) >> (number - 1) & 1)


def require_nothing_left(process: Program, number: signal.Signals) -> None:
    """Raises Broken where a process of the grader outlives it, or a scratch folder does."""
    end = time.monotonic() + LIMIT
    while True:
        bury_orphans()
        left = descendants(os.getpid())
        if not left:
            break
        if time.monotonic() > end:
            commands = [Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode() for pid in left]
            raise Broken(f"{number.name}: {process} has ended, and {LIMIT:g} s later there is still {commands}")
        time.sleep(0.02)
    scratch = process.outputs[0].parent / "scratch"
    if files := sorted(path.name for path in scratch.iterdir()):
        raise Broken(
            f"{number.name}: {process} (exit code {process.code}) leaves {files} in the folder for scratch files"
        )


ATTACK = Attack(
    "grader", "Ctrl-C, SIGTERM, SIGHUP of the grader beside three busy processes", case, "signals", 200,
    short=16, share=10.7, prepare=prepare, jobs=1, busy=3,
)  # fmt: skip
