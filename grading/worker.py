"""The process that runs a solution: it loads PyTorch once, then runs each request in a child process of its own.

    python -B worker.py PARENT SANDBOX FOLDER [FORBIDDEN ...]

PARENT is the process number of the grader, SANDBOX is "kernel" or "guard", FOLDER holds the models.py to run, and no
file under FORBIDDEN can be read.
Requests come as lines of JSON on standard input, {"jobs": [..], "seconds": limit}; a line of JSON answers each on
standard output. A request without jobs only imports the solution.

The child is a fork of this process, which has loaded PyTorch and none of the solution. Where forking a process that
has loaded PyTorch is not safe, outside Linux, this process runs one request itself and ends.

The grader does not import this file: it starts a copy of worker.py and of the files that it needs, in a folder of
their own.
"""

import ctypes
import importlib.util
import json
import os
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

CAN_FORK = sys.platform == "linux"
ANSWER_BYTES = 2**24  # an answer that is longer counts as none; right ones have at most 2 MB
OUTPUT_BYTES = 2**14  # kept of what a solution prints
MOST_FILES = 256  # more than this process opens
SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux


def die_with(parent: int) -> None:
    """Let the kernel kill this process when its parent ends, where it can (Linux)."""
    if CAN_FORK:
        ctypes.CDLL(None).prctl(SET_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def main(parent: int, sandbox_kind: str, folder: str, *forbidden: str) -> None:
    die_with(parent)
    del sys.argv[1:]  # a solution need not know where the answers are
    import torch

    torch.set_num_threads(1)
    import guard
    import jobs
    import sandbox

    del sys.path[0], sys.modules["guard"], sys.modules["jobs"], sys.modules["sandbox"]  # not for solutions to import

    def prepare(seconds: float) -> None:
        if CAN_FORK:
            sandbox.set_limits(seconds)
        if sandbox_kind == "kernel":
            sandbox.enter(Path(folder), forbidden)
        guard.install(forbidden)

    answer_in = run_in_child if CAN_FORK else run_here
    write_line(1, {"ready": True})
    for line in sys.stdin.buffer:
        request = json.loads(line)
        answer_in(request, lambda request=request: run(request, Path(folder), prepare, jobs))


def run_in_child(request: dict, work: Callable[[], dict]) -> None:
    """Do the work in a child process, and write its answer as it comes: the grader reads it, as text from strangers."""
    start = time.monotonic()
    this = os.getpid()
    (answer_from, answer_to), (output_from, output_to) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        die_with(this)
        os.setpgid(0, 0)
        redirect(output_to, keep=answer_to)
        send(answer_to, json.dumps(work()).encode())
        os._exit(0)  # skips functions that the solution registered to run at exit
    os.close(answer_to)
    os.close(output_to)
    answer, output, in_time = receive(answer_from, output_from, start + request["seconds"])
    for kill in (os.killpg, os.kill):  # the child may not have had the time to get a group of its own
        with suppress(OSError):
            kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    reply = {"answer": answer, "output": output, "timed_out": not in_time}
    write_line(1, reply | {"exit_code": os.waitstatus_to_exitcode(status), "seconds": time.monotonic() - start})


def run_here(request: dict, work: Callable[[], dict]) -> None:
    """Do the work in this process, which ends afterwards; the grader keeps the time."""
    start = time.monotonic()
    answer_to = os.dup(1)
    redirect(os.open(os.devnull, os.O_WRONLY), keep=answer_to)
    answer = json.dumps(work())
    reply = {"answer": answer, "output": "", "timed_out": False, "exit_code": 0, "seconds": time.monotonic() - start}
    write_line(answer_to, reply)
    os._exit(0)


def redirect(output: int, keep: int) -> None:
    """Send what the solution prints to `output`, and close all other files but `keep`."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.closerange(3, keep)
    os.closerange(keep + 1, MOST_FILES)
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")


def write_line(place: int, reply: dict) -> None:
    send(place, json.dumps(reply).encode() + b"\n")


def send(place: int, content: bytes) -> None:
    while content:
        content = content[os.write(place, content) :]


def receive(answer_from: int, output_from: int, deadline: float) -> tuple[str | None, str, bool]:
    """Read both pipes until the answer is complete, too long or late, and close them.

    Returns:
        The answer, None if it is too long; the beginning of the output; whether the answer came in time.
    """
    received = {answer_from: bytearray(), output_from: bytearray()}
    with selectors.DefaultSelector() as selector:
        for pipe in received:
            os.set_blocking(pipe, False)
            selector.register(pipe, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0 and len(received[answer_from]) < ANSWER_BYTES:
            for key, _ in selector.select(left):
                chunk = os.read(key.fd, 2**16)
                received[key.fd] += chunk if key.fd == answer_from else chunk[: OUTPUT_BYTES - len(received[key.fd])]
                if not chunk:
                    selector.unregister(key.fd)
            if answer_from not in selector.get_map():
                break
        with suppress(OSError):  # nothing to read
            received[output_from] += os.read(output_from, OUTPUT_BYTES - len(received[output_from]))
    for pipe in received:
        os.close(pipe)
    answer = received[answer_from].decode(errors="replace") if len(received[answer_from]) < ANSWER_BYTES else None
    return answer, received[output_from].decode(errors="replace"), left > 0


def run(request: dict, folder: Path, prepare: Callable[[float], None], jobs) -> dict:
    """Import the solution and run the jobs; whatever it raises becomes a sentence."""
    prepare(request["seconds"])
    try:
        models = load(folder)
        return {"results": [jobs.perform(models, job) for job in request["jobs"]]}
    except jobs.Mismatch as mismatch:
        return {"mismatch": {"expected": mismatch.expected, "got": mismatch.got, "cause": mismatch.cause}}
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        if isinstance(error, NotImplementedError) and "NotImplementedError" in (frames[-1].line or ""):
            return {"not_implemented": True}  # raised by this line of the solution, not by PyTorch
        return {"error": sentence(error, frames), "trace": trace(error, frames).replace(f"{folder}{os.sep}", "")}


def load(folder: Path):
    """Import the models.py of a folder as the module `models`; it can import other files of the folder."""
    sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location("models", folder / "models.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["models"] = module
    spec.loader.exec_module(module)
    if not hasattr(module, "MultiTaskNet"):
        raise AttributeError("models.py has no class MultiTaskNet")
    return module


def sentence(error: BaseException, frames: traceback.StackSummary) -> str:
    """The type of the error, the first line of its message, and the line of models.py that raised it."""
    message = str(error).partition("\n")[0]
    line = next((frame.lineno for frame in reversed(frames) if frame.filename.endswith("models.py")), None)
    if isinstance(error, SyntaxError):
        line = error.lineno if str(error.filename).endswith("models.py") and "line" not in message else None
    return f"{type(error).__name__}: {message}" + (f" (models.py, line {line})" if line else "")


def trace(error: BaseException, frames: traceback.StackSummary) -> str:
    """The traceback from the first line of models.py on: what is above it is the grader's."""
    first = next((number for number, frame in enumerate(frames) if frame.filename.endswith("models.py")), 0)
    return "".join([*traceback.format_list(frames[first:]), *traceback.format_exception_only(error)])


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
