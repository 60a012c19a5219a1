"""How commands talk to the user: lines, one sentence for an error, and the exit code."""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from config.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_USER_ERROR, UserError
from config.parts import ROOMS, missing
from training.local_rank import is_local_main
from training.model_errors import explain, has_traceback, is_lack_of_memory


def run_command(
    name: str, work: Callable[[], int], interrupted: str = "stopped", with_traceback: bool | None = None
) -> int:
    """Run a command and turn the errors that a user can fix into one sentence.

    Args:
        name: of the command, for messages: "main.py".
        work: returns the exit code.
        interrupted: what to say after Ctrl-C.
        with_traceback: print the traceback of an error in models.py, too; None: the command has no flag for it.

    Returns:
        The exit code: that of `work`, 2 after an error that the user can fix, 130 after Ctrl-C.
    """
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # titles on an ASCII terminal
    try:
        return work()
    except BrokenPipeError:  # the reader, such as `| head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except KeyboardInterrupt:
        if is_local_main():
            print(f"{name}: {interrupted}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception as error:
        sentence = _sentence(error, with_traceback)
        if sentence is None:
            raise
        return report_error(name, sentence)


def _sentence(error: Exception, with_traceback: bool | None) -> str | None:
    """What to say of an error; None for one of the program itself, whose traceback is to be seen."""
    if (lines := explain(error)) is not None:
        if with_traceback and is_local_main():
            traceback.print_exception(error)
        has_more = with_traceback is False and has_traceback(error)
        return lines + ("; main.py --traceback shows the rest" if has_more else "")
    if isinstance(error, ModuleNotFoundError):
        if (part := str(error.name)).split(".")[0] in ROOMS:
            return missing(part)
        return f"the package {error.name} is missing: run pip install -r requirements.txt"
    if is_lack_of_memory(error):
        return "there is not enough memory for this network, batch or data set"
    return str(error) if isinstance(error, (UserError, OSError)) else None


def report_error(name: str, sentence: str) -> int:
    """Print an error once per machine, also where torchrun looks for it; returns the exit code."""
    if is_local_main():
        print(f"{name}: error: {sentence}", file=sys.stderr)
        if summary := os.environ.get("TORCHELASTIC_ERROR_FILE"):  # torchrun prints it in its own report
            extra = {"py_callstack": sentence, "timestamp": str(int(time.time()))}
            Path(summary).write_text(json.dumps({"message": {"message": sentence, "extraInfo": extra}}))
    return EXIT_USER_ERROR


def log(line: str) -> None:
    print(line, flush=True)


def silent(line: str) -> None:
    """A log that prints nothing."""
