"""The process beside each process of a group that says "alive" for it, and ends it when another one has failed.

    rank 0 <--pipes--> its watcher, the hub <--TCP--> the watchers of the other ranks <--pipes--> their ranks

A watcher sees whether its rank exists and is not stopped; it does not ask for progress. A rank that loads data or
evaluates for minutes is alive, even where a long call into C keeps all its Python threads waiting: that is why this is
a process and not a thread. It outlives its rank by moments, so that a rank killed by `kill -9` still gets a sentence.
Standard library only: it starts in milliseconds.

Messages are lines of JSON. Rank to watcher: {"fails": sentence}, {"failed": sentence}, {"left"}. Watcher to hub:
{"state", "cause"}. Hub to watcher: {"beat"}, {"end": cause}, {"over"}. Watcher to rank: {"port"}, {"ready"},
{"end": cause}, {"over"}.
"""

import json
import os
import selectors
import signal
import socket
import time
from contextlib import suppress
from typing import Any

# Seconds between two beats. The limits below are counts of own ticks, which pause when everything is paused.
TICK = 0.25
STOPPED = 6  # ticks after which a stopped rank has failed
SILENT = 14  # ticks without a beat after which a machine is lost
BEGIN = 80  # ticks in which the watchers of all ranks have to reach the hub
GRACE = 6  # ticks that a rank has to end by itself
SPOKEN_WITHIN = 4  # ticks in which rank 0 can tell the others of an error itself, unless they are within a step
SPEAKS = 2  # of them, that it has to report an error of its own, such as the same one as another rank
SIGNALED = 8  # ticks in which the end of a rank belongs to a signal that its watcher has received, too
LOST = "another process of this run has ended or cannot be reached"
AGAIN = "start all processes again, with --resume if epochs were finished"


class Lines:
    """Messages from a file descriptor and to another one."""

    def __init__(self, source: int, sink: int) -> None:
        self.source, self.sink, self.rest = source, sink, b""

    def receive(self) -> list[dict[str, Any]] | None:
        """What has arrived; None at the end, and where it is no message of ours."""
        try:
            read = os.read(self.source, 65536)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not read:
            return None
        *lines, self.rest = (self.rest + read).split(b"\n")
        try:
            return [dict(json.loads(line)) for line in lines]
        except (ValueError, TypeError):
            return None

    def send(self, **message: Any) -> None:
        with suppress(OSError):  # the other side has ended, which its end of the line says
            os.write(self.sink, json.dumps(message).encode() + b"\n")


class Watcher:
    """Watches one rank; that of rank 0 is the hub.

    Args:
        about: rank, world_size, pid and name of the rank; prints, true on local rank 0; command, for messages; address
            and token of the hub, and for all but the hub its port.
        rank: the pipes to the rank.
    """

    def __init__(self, about: dict[str, Any], rank: Lines) -> None:
        self.about, self.rank = about, rank
        self.has_spoken = False  # the rank has an error of its own, which it prints
        self.has_left = self.is_gone = self.is_over = False
        self.cause: str | None = None  # why the rank has to end
        self.fails: tuple[str, int] | None = None  # the sentence that the rank is telling the others, and until when
        self.ticks = self.stopped = self.left_to_live = 0
        self.signal: tuple[int, int] | None = None  # the last one: its number, and when
        self.selector = selectors.DefaultSelector()
        self.selector.register(rank.source, selectors.EVENT_READ, self.hear_rank)
        self.link = Hub(self) if about["rank"] == 0 else Link(self)

    def run(self) -> None:
        next_tick = time.monotonic() + TICK
        while not self.is_over:
            for key, _ in self.selector.select(max(0.0, next_tick - time.monotonic())):
                key.data()
            if time.monotonic() >= next_tick:
                next_tick = time.monotonic() + TICK
                self.tick()

    def tick(self) -> None:
        self.ticks += 1
        if self.cause is not None:
            self.left_to_live -= 1
            if self.left_to_live == GRACE - SPEAKS:
                self.tell()
            if self.left_to_live <= 0:
                self.kill()
                self.is_over = True
            return
        self.link.tick()
        if self.fails is not None and self.ticks >= self.fails[1]:
            self.link.report("failed", self.fails[0])
        self.stopped = self.stopped + 1 if _is_stopped(self.about["pid"]) else 0
        if self.stopped == STOPPED:
            self.link.report("failed", f"{LOST}: {self.about['name']} is stopped (SIGSTOP); {AGAIN}")
        elif not self.is_gone and os.getppid() != self.about["pid"]:
            self.lose_rank()

    def hear_rank(self) -> None:
        messages = self.rank.receive()
        for message in messages or ():
            if "fails" in message:
                self.fails = message["fails"], self.ticks + SPOKEN_WITHIN
            elif "failed" in message:
                self.has_spoken = True
                self.link.report("failed", message["failed"])
            elif "left" in message:
                self.has_left = True
                if self.cause is None:
                    self.link.report("left")
        if messages is None:
            self.selector.unregister(self.rank.source)
            self.lose_rank()

    def lose_rank(self) -> None:
        """The rank has ended. If nobody knows why, the hub is told, and its answer is waited for."""
        if self.is_gone:
            return
        self.is_gone = True
        if self.has_left or self.cause is not None:
            self.tell()
            self.is_over = True
        elif not self.has_spoken:
            self.link.report("failed", self.describe_end())

    def describe_end(self) -> str:
        """A sentence; "" after Ctrl-C, which needs none."""
        how = "was killed, perhaps for lack of memory"
        if self.signal is not None and self.ticks - self.signal[1] <= SIGNALED:
            if self.signal[0] == signal.SIGINT:
                return ""
            how = f"was ended by {signal.Signals(self.signal[0]).name}"
        return f"{LOST}: {self.about['name']} {how}; {AGAIN}"

    def end(self, cause: str) -> None:
        """End the rank, for this cause, which it may report itself within GRACE."""
        if self.cause is None:
            self.cause, self.left_to_live = cause, GRACE
            self.rank.send(end=cause)
            if self.is_gone:
                self.tell()
                self.is_over = True

    def tell(self) -> None:
        """Print the cause, once a machine, unless the rank prints an error of its own."""
        if self.cause and self.about["prints"] and not self.has_spoken:
            self.has_spoken = True
            with suppress(OSError):
                os.write(2, f"{self.about['command']}: error: {self.cause}\n".encode(errors="backslashreplace"))

    def over(self) -> None:
        """All is well: nobody needs the others any more."""
        self.rank.send(over=True)
        self.is_over = True

    def kill(self) -> None:
        if os.getppid() == self.about["pid"]:  # it lives, and the number is still its own
            with suppress(OSError):
                os.kill(self.about["pid"], signal.SIGKILL)

    def note_signal(self, number: int, _: object) -> None:
        self.signal = number, self.ticks


class Link:
    """The connection of a watcher to the hub."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher, self.silent, self.is_known = watcher, 0, False
        about = watcher.about
        self.socket = socket.create_connection((about["address"], about["port"]), timeout=10)
        self.socket.settimeout(5)
        self.lines = Lines(self.socket.fileno(), self.socket.fileno())
        self.lines.send(token=about["token"], rank=about["rank"], name=about["name"])
        watcher.selector.register(self.socket, selectors.EVENT_READ, self.hear)

    def report(self, state: str, cause: str = "") -> None:
        self.lines.send(state=state, cause=cause)

    def greet(self) -> None:
        """The hub knows this watcher: its rank need wait no more."""
        if not self.is_known:
            self.is_known = True
            self.watcher.rank.send(ready=True)

    def tick(self) -> None:
        self.lines.send(state="alive")
        self.silent += 1
        if self.silent > SILENT:
            self.lose_hub()

    def hear(self) -> None:
        messages = self.lines.receive()
        self.silent = 0
        for message in messages or ():
            if "end" in message:
                self.watcher.end(message["end"])
            elif "over" in message:
                self.watcher.over()
            else:
                self.greet()
        if messages is None:
            self.watcher.selector.unregister(self.socket)
            if self.watcher.cause is None and not self.watcher.is_over:
                self.lose_hub()

    def lose_hub(self) -> None:
        self.watcher.end(f"{LOST}: rank 0 on {self.watcher.about['address']}; {AGAIN}")


class Hub:
    """What the watcher of rank 0 does beside watching: it hears all others and tells them of a failure."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher
        self.server = socket.create_server((watcher.about["address"], 0), backlog=256)
        self.server.setblocking(False)
        self.peers: list[Peer] = []
        self.missing = watcher.about["world_size"] - 1
        watcher.selector.register(self.server, selectors.EVENT_READ, self.accept)
        watcher.rank.send(port=self.server.getsockname()[1])

    def accept(self) -> None:
        with suppress(OSError):
            self.peers.append(Peer(self, self.server.accept()[0]))

    def report(self, state: str, cause: str = "") -> None:
        """Rank 0 has left, and with it the run is over; or it has failed, or another rank has."""
        is_over = state == "left"
        if self.watcher.cause is None:
            for peer in self.peers:
                peer.lines.send(**({"over": True} if is_over else {"end": cause}))
        if is_over:
            self.watcher.over()
        else:
            self.watcher.end(cause)

    def greet(self, peer: "Peer") -> None:
        """All begin when all are known, so that none is missed that fails at once."""
        peer.lines.send(beat=True)
        self.missing -= 1
        if not self.missing:
            self.watcher.rank.send(ready=True)

    def tick(self) -> None:
        for peer in list(self.peers):
            peer.tick()
        if self.missing and self.watcher.ticks == BEGIN:
            self.report("failed", f"{LOST}: {self.missing} of the others have not reached rank 0; {AGAIN}")


class Peer:
    """Another watcher, as the hub sees it."""

    def __init__(self, hub: Hub, connection: socket.socket) -> None:
        self.hub, self.socket = hub, connection
        self.name, self.silent, self.has_left = "", 0, False
        connection.settimeout(5)
        self.lines = Lines(connection.fileno(), connection.fileno())
        hub.watcher.selector.register(connection, selectors.EVENT_READ, self.hear)

    def hear(self) -> None:
        messages = self.lines.receive()
        self.silent = 0
        for message in messages or ():
            if message.get("token") == self.hub.watcher.about["token"]:
                self.name = message["name"]
                self.hub.greet(self)
            elif not self.name:
                messages = None  # somebody else
                break
            elif message["state"] == "failed":
                self.hub.report("failed", message["cause"])
            elif message["state"] == "left":
                self.has_left = True
        if messages is None:
            self.lose()

    def tick(self) -> None:
        self.lines.send(beat=True)
        self.silent += 1
        if self.silent > SILENT:
            self.lose()

    def lose(self) -> None:
        self.hub.watcher.selector.unregister(self.socket)
        self.hub.peers.remove(self)
        self.socket.close()
        if self.name and not self.has_left:
            self.hub.report("failed", f"{LOST}: {self.name}; {AGAIN}")


def _is_stopped(pid: int) -> bool:
    """True where the process is stopped by a signal; known on Linux alone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] == b"T"
    except (OSError, IndexError):
        return False


def main() -> None:
    rank = Lines(0, 1)
    messages: list[dict[str, Any]] | None = []
    while not messages:
        messages = rank.receive()
        if messages is None:
            return
    try:
        watcher = Watcher(messages[0], rank)
    except OSError as error:
        cause = f"{LOST}: rank 0 at {messages[0]['address']}: {error}"
        os.write(2, f"{messages[0]['command']}: error: {cause}\n".encode())
        rank.send(end=cause)
        return
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # they are for the rank
        signal.signal(number, watcher.note_signal)
    watcher.run()


if __name__ == "__main__":
    main()
