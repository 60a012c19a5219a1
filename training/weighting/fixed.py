"""The weighted sum of the losses with constant weights, and the interface that every method implements."""

from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from losses import joint_loss

AllReduce = Callable[[list[Tensor]], list[Tensor]]  # sums each tensor over the processes
Factors = Mapping[str, float | Tensor]  # {task: w_t}; a loss without an entry has factor 1


class Fixed:
    """The weighted sum, joint = sum_t lambda_t L_t. Base class of the other methods.

    Args:
        tasks: names of the losses to balance, in the order of w.
        weights: {name: lambda > 0} for every loss, regularizers included.
        squared_errors: the losses that are squared errors.
        seed: of the random streams of a method.
        device: of the tensors of a method.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        weights: Mapping[str, float],
        squared_errors: Collection[str],
        seed: int,
        device: torch.device,
    ) -> None:
        self.tasks, self.weights = tuple(tasks), dict(weights)
        self.squared_errors, self.seed, self.device = squared_errors, seed, device
        self.begin_epoch(1, [])

    def parameters(self) -> list[nn.Parameter]:
        """Learned parameters of the method, for the optimizer of the model."""
        return []

    def begin_epoch(self, epoch: int, history: Sequence[Mapping[str, float]]) -> None:
        """Prepare for an epoch (counted from 1); history: one row per finished epoch, with "train_<loss>"."""

    def factors(self) -> Factors:
        """The current w_t, {task: scalar}. A loss without an entry has factor 1."""
        return {}

    def joint(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The joint loss, sum_t w_t lambda_t L_t plus the weighted regularizers: a scalar.

        Raises:
            ValueError: `losses` and the lambdas have different names.
        """
        factors = self.factors()
        weights = {name: weight * factors.get(name, 1.0) for name, weight in self.weights.items()}
        return joint_loss(losses, weights)

    def backward(self, losses: Mapping[str, Tensor], model: nn.Module, all_reduce: AllReduce | None = None) -> Tensor:
        """Add the gradient of the joint loss to .grad.

        Args:
            losses: {name: scalar} for every loss.
            model: the network whose parameters receive gradients.
            all_reduce: sums the gradients of the model over processes; None for a single process.

        Returns:
            The joint loss, detached.
        """
        joint = self.joint(losses)
        joint.backward()
        if all_reduce is not None:
            reached = {parameter: parameter.grad for parameter in model.parameters() if parameter.grad is not None}
            for parameter, gradient in zip(reached, all_reduce(list(reached.values())), strict=True):
                parameter.grad = gradient
        return joint.detach()

    def report(self) -> dict[str, float]:
        """The columns that the method adds to the row of an epoch."""
        with torch.no_grad():
            return {f"weight_{name}": float(factor) for name, factor in self.factors().items()}

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        pass
