"""Data parallelism: every process of a group computes its shard of each batch, and all take the same step.

Every process draws the same batches from (seed, epoch) and takes its own rows. --batch_size is therefore the size of
the batch over all processes, and the result depends on their number only through the rounding of sums.

Rank 0 runs the training loop and makes all decisions: when to stop, which epoch is best, what to write. The other
processes `follow` each epoch it starts. An epoch starts from the state of rank 0, which is what a checkpoint holds, so
that a resumed run repeats it exactly even if the machines have different processors.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from config.base import GradientConfig
from config.errors import EXIT_INTERRUPTED, EXIT_OK, ReportedError, UserError
from training.process_group import SingleProcess
from training.protocols import GradientTask, History, Row, Stop, Training
from training.steps import GradientStepper, Stopped


class DataParallelStepper(GradientStepper):
    """GradientStepper over a process group; the other arguments are those of GradientStepper."""

    def __init__(
        self, model: nn.Module, task: GradientTask, config: GradientConfig, device: torch.device, group: SingleProcess
    ) -> None:
        super().__init__(model, task, config, device)
        self.group = group
        self.all_reduce = group.all_reduce
        self.quiet = config.quiet or not group.is_main

    def run_epoch(self, epoch: int, history: History, stop: Stop) -> Row:
        """See GradientStepper; if `stop` of any process is true, all processes stop after the same step."""
        state = {name: part.state_dict() for name, part in self._synchronized_parts().items()}
        self.group.broadcast({"epoch": epoch, "history": history, "state": state})
        return self._run_shards(epoch, history, stop)

    def follow(self, stop: Stop) -> bool:
        """The loop of all processes but rank 0: take part in each epoch that rank 0 starts, until it ends the run.

        Returns:
            True if a `stop` cut the last epoch short.

        Raises:
            UserError: the run of rank 0 ended with an error; the message is the same.
        """
        stopped = False
        nothing: dict[str, Any] = {}
        while "epoch" in (order := self.group.broadcast(nothing, self.device)):
            for name, part in self._synchronized_parts().items():
                part.load_state_dict(order["state"][name])
            try:
                self._run_shards(order["epoch"], order["history"], stop)
            except Stopped:
                stopped = True
        self.group.leave()
        if order["error"] is not None:
            raise UserError(order["error"])
        return stopped

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The losses of the whole batch. The gradient of each is that of this process's term."""
        shard, weights = self._shard(batch)
        losses = {name: loss * weights[name] for name, loss in self.task.losses(self.model, shard).items()}
        (totals,) = self.group.all_reduce([self._pack([loss.detach() for loss in losses.values()])])
        self._stop_votes = totals[-1]
        summed = zip(losses.items(), totals[:-1].unbind(), strict=True)
        return {name: _SumOverProcesses.apply(loss, total) for (name, loss), total in summed}

    def _synchronized_parts(self) -> dict:
        return {"model": self.model, **self.checkpoint_parts}

    def _shard(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, float | Tensor]]:
        """The rows of this process, and for each loss the weight of their mean in the mean over the whole batch.

        With fewer rows than processes, a process without a row computes one row with weight 0.
        """
        rows, rank, size = self.task.batch_rows(batch), self.group.rank, self.group.world_size
        start, end = (-(-rows * boundary // size) for boundary in (rank, rank + 1))
        first = min(start, rows - 1)
        shard = {name: column[first : max(end, first + 1)] for name, column in batch.items()}
        own, total = self.task.divisors(shard), self.task.divisors(batch)
        return shard, {name: (end > start) * own[name] / total[name] for name in own}

    def _pack(self, losses: list[Tensor]) -> Tensor:
        """One tensor for the all_reduce of a step: the losses, then 1 if this process wants to stop, else 0."""
        return torch.stack([*losses, losses[0].new_tensor(float(self._stop()))])

    def _run_shards(self, epoch: int, history: History, stop: Stop) -> Row:
        self._stop = stop
        self._stop_votes = torch.zeros(())
        # The votes of a step are read before the next step, so that a GPU need not be waited for.
        return super().run_epoch(epoch, history, lambda: bool(self._stop_votes))


class _SumOverProcesses(torch.autograd.Function):
    """(own, total) -> total, scalars; the gradient passes to `own` unchanged."""

    @staticmethod
    def forward(ctx, own: Tensor, total: Tensor) -> Tensor:
        return total.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def follow(training: Training, config: GradientConfig, device: torch.device, stop: Stop) -> int:
    """What all processes but rank 0 do instead of `fit`; returns the exit code."""
    stepper = training.make_stepper(training.model, training.task, config, device)
    assert isinstance(stepper, DataParallelStepper)
    return EXIT_INTERRUPTED if stepper.follow(stop) else EXIT_OK


@contextmanager
def release_followers(group: SingleProcess) -> Iterator[None]:
    """Rank 0 trains in the body of this `with`. However it ends, the processes in `follow` end, too.

    They are told of its end and of errors between two epochs. Of an error in the middle of a step they hear by the
    heartbeat.
    """
    try:
        yield
    except UserError as error:
        group.announce(str(error))
        try:
            group.broadcast({"error": str(error)})
        except ReportedError:
            raise
        except UserError:  # the others have ended already
            raise error from None
        group.leave()
        raise
    group.broadcast({"error": None})
    group.leave()
