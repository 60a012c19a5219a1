"""The processes of one run and their communication.

    torchrun --standalone --nproc_per_node 2 main.py

starts main.py twice and describes the group in the environment (RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR,
MASTER_PORT), where `distributed` finds it. Rank 0 makes all decisions and writes all files. Without torchrun the group
is SINGLE_PROCESS, whose methods do nothing.
"""

import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from config.errors import ReportedError, UserError
from training.heartbeat import Heartbeat
from training.local_rank import local_rank

T = TypeVar("T")


class SingleProcess:
    """A group of one process. Base class of ProcessGroup: communication is a no-op.

    Attributes:
        rank: 0 to world_size - 1.
        world_size: number of processes.
    """

    rank, world_size = 0, 1

    @property
    def is_main(self) -> bool:
        """True on rank 0."""
        return self.rank == 0

    def device(self, device_type: str) -> torch.device:
        """The device of this process; device_type: "cpu", "cuda" or "mps"."""
        return torch.device(device_type)

    @contextmanager
    def collective_errors(self) -> Iterator[None]:
        """A UserError or OSError in the body of one process is raised as the same UserError in all of them."""
        yield

    def local_rank_zero_first(self, work: Callable[[], T]) -> T:
        """Run work() on local rank 0 of each machine, then on the others, which find what it has downloaded."""
        return work()

    def announce(self, sentence: str) -> None:
        """Rank 0 is about to tell the others of an error; within a step they do not listen, and the heartbeat does."""

    def leave(self) -> None:
        """This process needs the others no more, and knows that they need not be told of its end."""

    def broadcast(self, value: T, device: torch.device | None = None) -> T:
        """The value of rank 0: numbers, strings and tensors in dicts and lists. Received tensors lie on `device`."""
        return value

    def require_same(self, value: str, complaint: str) -> None:
        """Raise a UserError that begins with the complaint if the processes hold different values."""

    def all_reduce(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The sum of each tensor over the processes, bit-equal in all of them. Shapes and dtypes must match."""
        return list(tensors)


class ProcessGroup(SingleProcess):
    """The processes that torchrun started. All of them must call each method, except `device`.

    Raises:
        UserError: another process has ended or cannot be reached.
    """

    def __init__(self) -> None:
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.local_rank = local_rank()
        self.heartbeat: Heartbeat | None = None  # the first message is sent without one
        self.heartbeat = Heartbeat(self.rank, self.world_size, self.broadcast)

    def device(self, device_type: str) -> torch.device:
        """The device of this process; every process of a machine gets its own GPU.

        Raises:
            UserError: there are fewer GPUs than processes, or the device type serves one process only.
        """
        if device_type == "mps":
            raise UserError("--device mps is for one process: leave torchrun out, or add --device cpu")
        if device_type == "cuda" and self.local_rank >= torch.cuda.device_count():
            raise UserError(
                f"this machine has {torch.cuda.device_count()} GPUs, fewer than processes: give torchrun a smaller "
                "--nproc_per_node, or main.py --device cpu"
            )
        return torch.device(device_type, self.local_rank) if device_type == "cuda" else torch.device(device_type)

    @contextmanager
    def collective_errors(self) -> Iterator[None]:
        problem = None
        try:
            yield
        except (UserError, OSError) as error:
            problem = str(error)
        if problems := [sentence for sentence in self._all_gather(problem) if sentence is not None]:
            self.leave()
            raise UserError(problems[0])

    def announce(self, sentence: str) -> None:
        if self.heartbeat is not None:
            self.heartbeat.announce(sentence)

    def leave(self) -> None:
        if self.heartbeat is not None:
            self.heartbeat.leave()

    def local_rank_zero_first(self, work: Callable[[], T]) -> T:
        for turn in (True, False):
            with self.collective_errors():
                if (self.local_rank == 0) == turn:
                    result = work()
        return result

    def broadcast(self, value: T, device: torch.device | None = None) -> T:
        # Serialized like a checkpoint and loaded with weights_only: plain data, never code.
        content = io.BytesIO()
        if self.is_main:
            torch.save(value, content)
        sent = [content.getvalue()]
        with _connection_errors(self.heartbeat):
            dist.broadcast_object_list(sent, src=0, device=torch.device("cpu"))
        return value if self.is_main else torch.load(io.BytesIO(sent[0]), map_location=device, weights_only=True)

    def require_same(self, value: str, complaint: str) -> None:
        if len(different := sorted(map(str, set(self._all_gather(value))))) > 1:
            self.leave()
            raise UserError(f"{complaint}: {' against '.join(different)}")

    def all_reduce(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        with _connection_errors(self.heartbeat):
            dist.all_reduce(flat)
        parts = flat.split([tensor.numel() for tensor in tensors])
        return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]

    def _all_gather(self, value: str | None) -> list[str | None]:
        """The values of all processes, ordered by rank."""
        values: list[str | None] = [None] * self.world_size
        with _connection_errors(self.heartbeat):
            dist.all_gather_object(values, value)
        return values


SINGLE_PROCESS = SingleProcess()


@contextmanager
def distributed() -> Iterator[SingleProcess]:
    """Join the process group that torchrun started, for the body of the `with`. SINGLE_PROCESS without torchrun.

    Raises:
        UserError: the other processes cannot be reached.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield SINGLE_PROCESS
        return
    # Optimizers import this module anyway. If the first import happens after init_process_group, its default arguments
    # keep the group alive, and threads that outlive the group can abort the process at interpreter exit.
    import torch.distributed.nn.functional

    with _connection_errors():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        group = ProcessGroup()
        assert group.heartbeat is not None
        with _telling_how_it_ends(group.heartbeat):
            yield group
    finally:
        dist.destroy_process_group()


@contextmanager
def _telling_how_it_ends(heartbeat: Heartbeat) -> Iterator[None]:
    """Tell the other processes how this one leaves the group."""
    try:
        yield
    except ReportedError:
        raise
    except (Exception, KeyboardInterrupt) as error:
        heartbeat.fail(error)
        raise
    else:
        heartbeat.leave()
    finally:
        heartbeat.close()


@contextmanager
def _connection_errors(heartbeat: Heartbeat | None = None) -> Iterator[None]:
    """Turn the RuntimeError that gloo, nccl and the store of torchrun raise into a UserError."""
    try:
        yield
    except RuntimeError as error:
        if heartbeat is not None and (cause := heartbeat.cause()) is not None:
            raise ReportedError(cause) from None
        reason = str(error).splitlines()[0]
        raise UserError(
            f"another process of this run has ended or cannot be reached ({reason}); see its error message, start all "
            "processes again, and add --resume if epochs were finished"
        ) from None
