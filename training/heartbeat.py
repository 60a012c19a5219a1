"""How the processes of a group learn within seconds that one of them has failed, and why: the side of a rank.

Beside each rank runs a watcher (watcher.py), a small process that knows whether the rank is alive. It asks for no
progress, and prints the sentence of the rank that has failed, once a machine.
"""

import json
import os
import platform
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from config.errors import EXIT_USER_ERROR, ReportedError, UserError
from config.text import printable
from training.console import note_for_torchrun, report_error
from training.failures import explain_failure, in_one_line
from training.local_rank import is_local_main
from training.model_errors import explain

WATCHER = Path(__file__).with_name("watcher.py")
EXIT_AFTER = 1.0  # seconds that a rank has to end by itself once it has heard of the failure of another one
WAIT = 5.0  # seconds to wait for the cause of a broken connection, and for the watcher to end


class Heartbeat:
    """Starts the watcher of this rank; all ranks of a group make one at the same time.

    Args:
        rank, world_size: of this process.
        share: hands the value of rank 0 to all ranks.
        command: its name, for messages.

    Raises:
        UserError: the watchers do not reach each other.
    """

    def __init__(self, rank: int, world_size: int, share: Callable[[Any], Any], command: str = "main.py") -> None:
        self.name = f"rank {rank} (process {os.getpid()} on {platform.node()})"
        self.command = command
        self._cause: str | None = None
        self._has_cause, self._has_left = threading.Event(), False
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(WATCHER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        about = {
            "rank": rank,
            "world_size": world_size,
            "pid": os.getpid(),
            "name": self.name,
            "prints": is_local_main(),
            "command": command,
        }
        hub = {"address": _own_address(), "token": secrets.token_hex(16)}
        if rank == 0:
            self._send(**about, **hub)
            hub |= self._receive()
        hub = share(hub)
        if rank != 0:
            self._send(**about, **hub)
        if "ready" not in (message := self._receive()):
            if "end" in message:
                raise ReportedError(message["end"])
            raise UserError(f"the watcher of {self.name} has ended: start all processes again")
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def announce(self, sentence: str) -> None:
        """This rank is telling the others of an error; if they do not listen for a second, the watchers tell them."""
        if not self._has_left:
            self._send(fails=f"{self.name} failed: {sentence}")

    def fail(self, error: BaseException) -> None:
        """Tell the other ranks that this one ends with an error, which it prints itself if it is local rank 0."""
        if not self._has_left:
            self._has_left = True
            self._send(failed=self._describe(error))

    def _describe(self, error: BaseException) -> str:
        if isinstance(error, KeyboardInterrupt):
            return f"{self.name} was stopped by Ctrl-C"
        return f"{self.name} failed: {explain(error) or explain_failure(error) or in_one_line(error)}"

    def leave(self) -> None:
        """This rank needs the others no more: they may end, and so may it."""
        if not self._has_left:
            self._has_left = True
            self._send(left=True)

    def close(self) -> None:
        """Wait for the watcher, which may have something to print."""
        self._has_left = True
        assert self._process.stdin is not None
        with suppress(OSError):  # the watcher has ended
            self._process.stdin.close()
        try:
            self._process.wait(WAIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._listener.join(WAIT)

    def cause(self) -> str | None:
        """Why the group ends, which the watcher prints; None where it does not know."""
        if not self._has_left:
            self._has_cause.wait(WAIT)
        return self._cause

    def _listen(self) -> None:
        """In a thread of its own: end this process where another one has failed.

        The main thread may wait in C++ for a message that never comes.
        """
        message = self._receive()
        if "over" in message or self._has_left:
            return
        self._cause = message.get("end", f"the process that watches {self.name} has ended")
        self._has_cause.set()
        time.sleep(EXIT_AFTER)
        if not self._has_left:
            if "end" not in message:
                report_error(self.command, self._cause)
            note_for_torchrun(self._cause)
            os._exit(EXIT_USER_ERROR)

    def _send(self, **message: Any) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # the watcher has ended: `_listen` sees it, too
            shown = {name: printable(value) if isinstance(value, str) else value for name, value in message.items()}
            self._process.stdin.write(json.dumps(shown).encode() + b"\n")
            self._process.stdin.flush()

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return json.loads(line) if line else {}


def _own_address() -> str:
    """The address of this machine in the network of the other processes."""
    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        with socket.create_connection(address, timeout=10) as connection:
            return connection.getsockname()[0]
    except OSError as error:
        raise UserError(f"the first process of this run cannot be reached at {address[0]}: {error}") from None
