"""How the grader ends when it is told to: at once, without a traceback, and without a process left behind."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from grading.pool import Pool


@contextmanager
def ending_at_once(pool: Pool, done: Callable[[], str]) -> Iterator[None]:
    """End the process within the signal handler of Ctrl-C and of a kill: nothing can catch, delay or lose that.

    A signal that this process was told to ignore at its start, as with nohup, stays ignored, but for Ctrl-C: a script
    that starts the grader in the background passes on that it ignores Ctrl-C.
    """

    def end(number: int, _: object) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        pool.abandon()
        with suppress(OSError):
            os.write(2, f"grader.py: stopped after {done()}\n".encode())
        os._exit(128 + number)

    names = ("SIGINT", "SIGTERM", "SIGHUP")
    signals = [getattr(signal, name) for name in names if hasattr(signal, name)]
    signals = [each for each in signals if each == signal.SIGINT or signal.getsignal(each) != signal.SIG_IGN]
    before = {each: signal.signal(each, end) for each in signals}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
