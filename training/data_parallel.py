"""Data parallelism: every process of a group takes its share of each batch, and all take the same step.

Every process draws the same batches from (seed, epoch) and cuts out its own rows, so that --batch_size is that of all
of them together and the result does not depend on how many there are, but for the rounding of sums.

The first process runs the training loop and decides everything: when to stop, what is best, what is written. The others
only go along (`follow`) with each epoch it starts. An epoch starts from the first process's state, which is what a
checkpoint holds, so that a resumed run repeats it exactly, also where processors differ.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import torch
from torch import Tensor, nn

from config.errors import UserError
from losses import joint_loss
from multitask import manual_gradient as handwritten
from multitask.manual_gradient import HandwrittenSteps
from training.process_group import Alone, Group
from training.steps import GradientSteps, Stopped


def make_steps(model: nn.Module, task, settings, device: torch.device, group: Group) -> "ParallelSteps":
    """Steps shared out over a group: by hand where that is the same, else by autograd."""
    by_hand = handwritten.suits(model, task, settings, device)
    return (ParallelHandwrittenSteps if by_hand else ParallelSteps)(model, task, settings, device, group)


class ParallelSteps(GradientSteps):
    """The steps of GradientSteps, with the same arguments, shared out over a group."""

    def __init__(self, model: nn.Module, task, settings, device: torch.device, group: Group) -> None:
        super().__init__(model, task, settings, device)
        self.group = group
        self.add_up = group.add_up
        self.settings = replace(settings, quiet=settings.quiet or not group.is_first)

    def run_epoch(self, epoch: int, history, stop: Callable[[], bool]) -> dict[str, float]:
        """See GradientSteps; `stop` of any process ends the epoch in all of them, after the same step."""
        state = {"model": self.model.state_dict()} | {name: part.state_dict() for name, part in self.parts.items()}
        self.group.broadcast({"epoch": epoch, "history": history, "state": state})
        return self._go_along(epoch, history, stop)

    def follow(self, stop: Callable[[], bool]) -> bool:
        """What all processes but the first do: their share of each epoch it starts, until it says that it has ended.

        Returns:
            Whether the last epoch was cut short by somebody's `stop`.

        Raises:
            UserError: the first process has ended by one; the same sentence.
        """
        stopped = False
        while "epoch" in (order := self.group.broadcast({}, self.device)):
            for name, part in {"model": self.model, **self.parts}.items():
                part.load_state_dict(order["state"][name])
            try:
                self._go_along(order["epoch"], order["history"], stop)
            except Stopped:
                stopped = True
        if order["error"] is not None:
            raise UserError(order["error"])
        return stopped

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The losses of the whole batch; what they pull at is this process's share of it."""
        share, factors = self._share_of(batch)
        losses = {name: loss * factors[name] for name, loss in self.task.losses(self.model, share).items()}
        (totals,) = self.group.add_up([self._ballot([loss.detach() for loss in losses.values()])])
        self._votes = totals[-1]
        summed = zip(losses.items(), totals[:-1].unbind(), strict=True)
        return {name: _Total.apply(loss, total) for (name, loss), total in summed}

    def _share_of(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, float | Tensor]]:
        """This process's rows, and for each loss what its mean over them is to be multiplied by.

        A process without a row (there are fewer rows than processes) computes one and counts it 0 times.
        """
        rows, rank, size = self.task.batch_rows(batch), self.group.rank, self.group.size
        start, end = (-(-rows * place // size) for place in (rank, rank + 1))
        first = min(start, rows - 1)
        share = {name: column[first : max(end, first + 1)] for name, column in batch.items()}
        mine, everybodys = self.task.divisors(share), self.task.divisors(batch)
        return share, {name: (end > start) * mine[name] / everybodys[name] for name in mine}

    def _ballot(self, losses: list[Tensor]) -> Tensor:
        """What a step adds up: losses, and this process's vote on stopping."""
        return torch.stack([*losses, losses[0].new_tensor(float(self._stop()))])

    def _go_along(self, epoch: int, history, stop: Callable[[], bool]) -> dict[str, float]:
        self._stop, self._votes = stop, 0
        # The votes of a step are read before the next one, when a GPU has counted them long since.
        return super().run_epoch(epoch, history, lambda: bool(self._votes))


class ParallelHandwrittenSteps(ParallelSteps, HandwrittenSteps):
    """ParallelSteps with the gradient of HandwrittenSteps: a step adds up one flat tensor."""

    @torch.no_grad()
    def backward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        share, factors = self._share_of(batch)
        found = self.gradient(share)
        factor = factors["regression"]  # and of the other loss: both are means over rows
        ballot = self._ballot([found[name] * factor for name in factors])
        totals, slopes = self.group.add_up([ballot, self.gradient.slopes * factor])
        self.gradient.slopes.copy_(slopes)
        self._votes = totals[-1]
        losses = dict(zip(factors, totals[:-1].unbind(), strict=True))
        return losses | {"joint": joint_loss(losses, self.settings.weights)}


class _Total(torch.autograd.Function):
    """A sum over processes whose gradient is that of one's own term: (mine, total) -> total, scalars."""

    @staticmethod
    def forward(ctx, mine: Tensor, total: Tensor) -> Tensor:
        return total.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


@contextmanager
def leading(group: Alone) -> Iterator[None]:
    """Entered by the first process while it trains: however that ends, the others learn of it."""
    try:
        yield
    except Exception as error:
        with suppress(UserError):  # if they are gone, that is no news to them
            group.broadcast({"error": str(error)})
        raise
    group.broadcast({"error": None})
