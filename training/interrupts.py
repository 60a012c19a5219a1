"""Ctrl-C during training: a run ends between two steps and never within a file."""

import os
import signal
from types import FrameType

from config.errors import EXIT_INTERRUPTED
from training.local_rank import is_local_main

HARD_STOP = 3  # presses after which the program ends at once


class CtrlC:
    """While entered, Ctrl-C is recorded instead of raised.

    The third press ends the program at once; even then the run folder holds the last finished epoch.
    """

    def __enter__(self) -> "CtrlC":
        self.presses = 0
        self.previous = signal.signal(signal.SIGINT, self._record)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self.previous)

    def pressed(self) -> bool:
        return self.presses > 0

    def _record(self, signum: int, frame: FrameType | None) -> None:
        self.presses += 1
        if self.presses == 1 and is_local_main():
            os.write(2, b"\nstopping at the last finished epoch\n")
        if self.presses == HARD_STOP:
            os._exit(EXIT_INTERRUPTED)
