"""The processes of one run: whether torchrun has started several, and how they talk to each other.

    torchrun --standalone --nproc_per_node 2 main.py

starts main.py twice, each with its place in the environment (RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT).
`join` finds it there. The first process, rank 0, decides and writes; without torchrun it is alone, and nothing here
does or costs anything.

Words: size, how many processes there are; rank, 0 to size - 1; here, on this machine.
"""

import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from config.errors import UserError

T = TypeVar("T")


class Alone:
    """One process: what a Group does between processes is nothing here."""

    rank, size = 0, 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def place(self, kind: str) -> torch.device:
        """The device of this process; kind: "cpu", "cuda" or "mps"."""
        return torch.device(kind)

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is done within succeeds in every process, or raises the same UserError in every process."""
        yield

    def in_turn(self, work: Callable[[], T]) -> T:
        """work(), by one process of each machine before the others, so that these find what it has downloaded."""
        return work()

    def broadcast(self, value: T, device: torch.device | None = None) -> T:
        """The first process's value: numbers, strings and tensors in dicts and lists; tensors come on the device."""
        return value

    def require_same(self, value: str, complaint: str) -> None:
        """Raises UserError with the complaint where the processes hold different values."""

    def add_up(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The sum of each tensor over the processes, the same bits in all of them; shapes and dtype must agree."""
        return list(tensors)


class Group(Alone):
    """The processes that torchrun has started. Each method but `place` must be called by all of them.

    Raises:
        UserError: another process has ended or cannot be reached.
    """

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.rank_here = int(os.environ["LOCAL_RANK"])

    def place(self, kind: str) -> torch.device:
        """Each process of a machine gets a GPU of its own.

        Raises:
            UserError: there are fewer GPUs than processes, or the kind cannot be shared out.
        """
        if kind == "mps":
            raise UserError("--device mps is for one process: leave torchrun out, or add --device cpu")
        if kind == "cuda" and self.rank_here >= torch.cuda.device_count():
            raise UserError(
                f"this machine has {torch.cuda.device_count()} GPUs for more processes: give torchrun a smaller "
                "--nproc_per_node, or main.py --device cpu"
            )
        return torch.device(kind, self.rank_here) if kind == "cuda" else torch.device(kind)

    @contextmanager
    def together(self) -> Iterator[None]:
        problem = None
        try:
            yield
        except (UserError, OSError) as error:
            problem = str(error)
        if problems := [sentence for sentence in self._gather(problem) if sentence is not None]:
            raise UserError(problems[0])

    def in_turn(self, work: Callable[[], T]) -> T:
        for turn in (True, False):
            with self.together():
                if (self.rank_here == 0) == turn:
                    result = work()
        return result

    def broadcast(self, value: T, device: torch.device | None = None) -> T:
        # As a checkpoint is written and read: data alone, never code.
        content = io.BytesIO()
        if self.is_first:
            torch.save(value, content)
        sent = [content.getvalue()]
        with _reaching_the_others():
            dist.broadcast_object_list(sent, src=0, device=torch.device("cpu"))
        return value if self.is_first else torch.load(io.BytesIO(sent[0]), map_location=device, weights_only=True)

    def require_same(self, value: str, complaint: str) -> None:
        if len(different := sorted(set(self._gather(value)))) > 1:
            raise UserError(f"{complaint}: {' against '.join(different)}")

    def add_up(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        with _reaching_the_others():
            dist.all_reduce(flat)
        parts = flat.split([tensor.numel() for tensor in tensors])
        return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]

    def _gather(self, value: str | None) -> list[str | None]:
        """The values of all processes, by rank."""
        values: list[str | None] = [None] * self.size
        with _reaching_the_others():
            dist.all_gather_object(values, value)
        return values


ALONE = Alone()


@contextmanager
def join() -> Iterator[Alone]:
    """The group that torchrun has started this process in, while it is entered; ALONE without torchrun."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield ALONE
        return
    # Optimizers import it in any case. Imported once there is a group, it holds that in default arguments for ever, and
    # threads of the group that outlive it can abort the process while the interpreter ends.
    import torch.distributed.nn.functional

    with _reaching_the_others():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield Group()
    finally:
        dist.destroy_process_group()


@contextmanager
def _reaching_the_others() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo and nccl say it so, and so does the store that torchrun keeps
        reason = str(error).splitlines()[0]
        raise UserError(
            f"another process of this run has ended or cannot be reached ({reason}); see what it said, start all of "
            "them again, and add --resume where epochs were finished"
        ) from None
