"""How commands talk to the user: lines, one sentence for an error, and the exit code."""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from config.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_USER_ERROR, ReportedError, UserError
from config.streams import open_closed_streams
from config.text import printable
from training.failures import explain_failure
from training.local_rank import is_local_main
from training.model_errors import explain, has_traceback
from training.terminal import Marked, colored, has_colors, terminal_width, wrap

WAIT_FOR_LOCAL_MAIN = 10.0  # seconds; torchrun ends the waiting rank as soon as the other one has ended


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
    open_closed_streams()
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # titles on an ASCII terminal
    try:
        try:
            return work()
        finally:
            _flush_output()
    except BrokenPipeError:  # the reader, such as `| head`, has seen enough
        _drop_output()
        return EXIT_OK
    except KeyboardInterrupt:
        if is_local_main():
            _print_error(f"{name}: ", interrupted)
        return _after_local_main(EXIT_INTERRUPTED)
    except ReportedError as error:
        note_for_torchrun(str(error))
        return _after_local_main(EXIT_USER_ERROR)
    except Exception as error:
        sentence = _sentence(error, with_traceback)
        if sentence is None:
            raise
        report_error(name, sentence)
        return _after_local_main(EXIT_USER_ERROR)


def _sentence(error: Exception, with_traceback: bool | None) -> str | None:
    """What to say of an error; None for one of the program itself, whose traceback is to be seen."""
    if (lines := explain(error)) is not None:
        if with_traceback and is_local_main():
            traceback.print_exception(error)
        has_more = with_traceback is False and has_traceback(error)
        return lines + ("; main.py --traceback shows the rest" if has_more else "")
    return explain_failure(error)


def report_error(name: str, sentence: str) -> None:
    """Print an error once per machine, also where torchrun looks for it."""
    if is_local_main():
        _print_error(f"{name}: {colored('error', 'error') if has_colors(sys.stderr) else 'error'}: ", sentence)
        note_for_torchrun(sentence)


def _after_local_main(code: int) -> int:
    """Let the rank that prints end first: with the first rank that ends, torchrun ends the others of a machine."""
    if not is_local_main() and "TORCHELASTIC_RUN_ID" in os.environ:
        time.sleep(WAIT_FOR_LOCAL_MAIN)
    return code


def note_for_torchrun(sentence: str) -> None:
    """Leave a sentence where torchrun looks for it: it prints it in its own report."""
    if summary := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        extra = {"py_callstack": sentence, "timestamp": str(int(time.time()))}
        Path(summary).write_text(json.dumps({"message": {"message": sentence, "extraInfo": extra}}))


def log(*texts: str) -> None:
    """Print lines, with what a terminal would obey written out; UserError where the output is full.

    A terminal gets Marked ones in their color, and breaks between words where a line is too wide for it.
    """
    width, in_color = terminal_width(sys.stdout), has_colors(sys.stdout)
    shown = [wrap(printable(text), width) for text in texts]
    if in_color:
        shown = [
            colored(text, mark.color) if isinstance(mark, Marked) else text
            for text, mark in zip(shown, texts, strict=True)
        ]
    try:
        print("\n".join(shown), flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _full(error) from None


def silent(*texts: str) -> None:
    """A log that prints nothing."""


def _print_error(start: str, sentence: str) -> None:
    with suppress(OSError):  # the exit code still tells
        print(start + printable(sentence), file=sys.stderr, flush=True)


def _flush_output() -> None:
    """Write what has been printed; else Python would do so at exit, where an error is no sentence."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _drop_output()
        raise _full(error) from None


def _drop_output() -> None:
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _full(error: OSError) -> UserError:
    return UserError(f"the output cannot be written ({error.strerror}): make room, or send it elsewhere")
