"""How commands talk to the user: lines, one sentence for an error, and the exit code."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from config.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_USER_ERROR, UserError
from training.local_rank import is_local_main


def run_command(name: str, work: Callable[[], int], interrupted: str = "stopped") -> int:
    """Run a command and turn the errors that a user can fix into one sentence.

    Args:
        name: of the command, for messages: "main.py".
        work: returns the exit code.
        interrupted: what to say after Ctrl-C.

    Returns:
        The exit code: that of `work`, 2 after an error that the user can fix, 130 after Ctrl-C.
    """
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # titles on an ASCII terminal
    try:
        return work()
    except BrokenPipeError:  # the reader, such as `| head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except ModuleNotFoundError as error:
        return report_error(name, f"the package {error.name} is missing: run pip install -r requirements.txt")
    except NotImplementedError as error:  # raised by the starter's models.py
        return report_error(name, f"models.py is not finished: {error}")
    except MemoryError:
        return report_error(name, "there is not enough memory for this network, batch or data set")
    except (UserError, OSError) as error:
        return report_error(name, str(error))
    except KeyboardInterrupt:
        if is_local_main():
            print(f"{name}: {interrupted}", file=sys.stderr)
        return EXIT_INTERRUPTED


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
