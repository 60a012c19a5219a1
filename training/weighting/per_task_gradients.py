"""Base class of the methods that combine the gradients of the tasks."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from training.weighting.fixed import AllReduce, Factors, Fixed

TaskGradients = tuple[Tensor | None, ...]  # g_t of one parameter for each task; None where the task does not reach it


class PerTaskGradients(Fixed):
    """Computes each g_t by its own autograd pass and writes a combination of them to .grad.

    Subclasses implement `combine`.
    """

    def combine(self, task_gradients: list[TaskGradients], losses: Mapping[str, Tensor]) -> list[Factors]:
        """For each parameter, the factors by which the g_t are multiplied before they are summed.

        Args:
            task_gradients: for each parameter, its g_t in the order of `tasks`.
            losses: {name: scalar} for every loss, without lambda.

        Returns:
            For each parameter {task: scalar}. A loss without an entry has factor 1.
        """
        raise NotImplementedError

    def backward(self, losses: Mapping[str, Tensor], model: nn.Module, all_reduce: AllReduce | None = None) -> Tensor:
        joint = self.joint(losses).detach()
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        gradients = {
            name: gradients_of(self.weights[name] * loss, parameters, all_reduce) for name, loss in losses.items()
        }
        task_gradients = list(zip(*(gradients[name] for name in self.tasks), strict=True))
        factors = self.combine(task_gradients, losses)
        for index, parameter in enumerate(parameters):
            for name, gradient in gradients.items():
                if (part := gradient[index]) is not None:
                    part = part * factors[index].get(name, 1.0)
                    parameter.grad = part if parameter.grad is None else parameter.grad + part
        return joint


def gradients_of(loss: Tensor, parameters: Sequence[nn.Parameter], all_reduce: AllReduce | None) -> list[Tensor | None]:
    """The gradient of a scalar loss in each parameter; None where the loss does not depend on it."""
    if not loss.requires_grad:
        return [None] * len(parameters)
    found: Sequence[Tensor | None] = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    if all_reduce is not None:
        summed = iter(all_reduce([gradient for gradient in found if gradient is not None]))
        found = [None if gradient is None else next(summed) for gradient in found]
    # The fused AdamW ignores strides: a gradient with another memory layout would update the wrong weights.
    return [None if gradient is None else gradient.contiguous() for gradient in found]
