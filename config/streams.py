"""Standard input and output of a command that was started without them. Standard library only."""

import os
import sys


def open_closed_streams() -> None:
    """Lead input and output that the command was started without, as by `>&-`, nowhere; Python has None for them.

    Their numbers are taken, too: else the next file that is opened would get what is printed.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is not None:
            continue
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
        setattr(sys, name, open(os.devnull, "w" if number else "r", encoding="utf-8"))  # noqa: SIM115 until the end
