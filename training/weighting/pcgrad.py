"""PCGrad, gradient surgery (Yu, Kumar, Gupta, Levine, Hausman and Finn 2020)."""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor

from training.streams import stream
from training.weighting.fixed import Factors
from training.weighting.per_task_gradients import PerTaskGradients, TaskGradients

STREAM_OFFSET = -1000  # keeps the random streams of the task orders apart from those of the batches


class PCGrad(PerTaskGradients):
    """Yu et al. 2020, algorithm 1: remove from each gradient its component that conflicts with another task's gradient.

        for each task i:
            p_i = g_i
            for each other task j in random order:
                if p_i . g_j < 0:  p_i = p_i - (p_i . g_j / ||g_j||^2) g_j
        gradient of the step = sum_i p_i

    The combined gradient is not the gradient of any loss. The reported joint loss is that of "fixed". The random orders
    come from (seed, epoch), so that a resumed run repeats them exactly.

    Where we differ: only parameters that two or more tasks reach are projected. A parameter that one task reaches
    receives the gradient of that task unchanged.
    """

    def begin_epoch(self, epoch: int, history: Sequence[Mapping[str, float]]) -> None:
        self.generator = stream(self.seed, STREAM_OFFSET - epoch)
        self.steps = 0
        self.steps_in_conflict: int | Tensor = 0

    def combine(self, task_gradients: list[TaskGradients], losses: Mapping[str, Tensor]) -> list[Factors]:
        self.steps += 1
        is_shared = [sum(gradient is not None for gradient in of_tasks) > 1 for of_tasks in task_gradients]
        if not any(is_shared):
            return [{}] * len(task_gradients)
        products = [inner_products(one) for one, shared in zip(task_gradients, is_shared, strict=True) if shared]
        gram = cast(Tensor, sum(products))
        self.steps_in_conflict = self.steps_in_conflict + (gram < 0).any()  # stays a tensor: no GPU synchronization
        summed = dict(zip(self.tasks, project_conflicts(gram, self.generator).sum(dim=0), strict=True))
        return [summed if shared else {} for shared in is_shared]

    def report(self) -> dict[str, float]:
        """The fraction of steps of this epoch in which two tasks' gradients had a negative inner product."""
        return {"conflicts": int(self.steps_in_conflict) / max(1, self.steps)}


def project_conflicts(gram: Tensor, generator: torch.Generator) -> Tensor:
    """The projections of PCGrad from inner products alone: each projected gradient is a linear combination of the g_j.

    Each gradient visits the other original gradients in random order. Where the inner product is negative, its
    component along the other gradient is removed. A gradient of norm 0 is skipped.

    Args:
        gram: (T, T) inner products of the original gradients.
        generator: draws the orders.

    Returns:
        C (T, T): projected gradient i is sum_j C[i, j] g_j.
    """
    coefficients = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    for i, row in enumerate(coefficients):
        for j in torch.randperm(len(gram), generator=generator).tolist():
            if i != j:
                inner, square = row @ gram[:, j], gram[j, j]
                row[j] -= torch.where((inner < 0) & (square > 0), inner / square, 0.0)
    return coefficients


def inner_products(gradients: TaskGradients) -> Tensor:
    """g_i . g_j within one parameter (T, T); 0 where one of the two tasks does not reach it."""
    zero = torch.zeros_like(next(gradient for gradient in gradients if gradient is not None))
    rows = torch.stack([(zero if gradient is None else gradient).flatten() for gradient in gradients])  # (T, numel)
    return rows @ rows.T
