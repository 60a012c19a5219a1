"""GradNorm (Chen, Badrinarayanan, Lee and Rabinovich 2018)."""

from collections.abc import Mapping

import torch
from torch import Tensor

from config.errors import UserError
from training.weighting.fixed import Factors
from training.weighting.per_task_gradients import PerTaskGradients, TaskGradients

ALPHA = 1.5  # strength of the pull towards a common training rate; from the paper's experiments
STEP = 0.025  # step size of the factors; from the paper's experiments
FLOOR = 1e-3  # lower bound of the factors; the paper does not say how they stay positive


class GradNorm(PerTaskGradients):
    """Chen et al. 2018, algorithm 1: factors that bring the tasks to a common training rate by their gradient norms.

        G_t = || grad_W w_t lambda_t L_t ||,   r_t = (L_t / L_t(0)) / mean over tasks,   target_t = mean(G) r_t^alpha
        w  <-  w - step * grad_w sum_t | G_t - target_t |,   with constant targets;   then scaled to sum T

    The gradient of the model is that of sum_t w_t lambda_t L_t with the w from before this update. G_t is linear in
    w_t, so its derivative is || g_t || and no second differentiation is needed.

    Where we differ:
        - W is every parameter that the losses of all tasks reach, not the last shared layer. This needs no knowledge of
          the network and also works for networks that share embeddings only.
        - The factors take plain gradient steps, not Adam's, and are clamped to a small positive floor.
        - L_t(0) is the first loss above 0, because the first batch may contain no row of a task. Until then
          L_t / L_t(0) counts as 1.
    """

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.w = torch.ones(len(self.tasks), device=self.device)
        self.first_losses = torch.zeros(len(self.tasks), device=self.device)

    def factors(self) -> Factors:
        return dict(zip(self.tasks, self.w, strict=True))

    def combine(self, task_gradients: list[TaskGradients], losses: Mapping[str, Tensor]) -> list[Factors]:
        """Return the current w, then update it.

        Raises:
            UserError: no parameter is shared by all tasks.
        """
        factors = self.factors()
        self._update(torch.stack([losses[name].detach() for name in self.tasks]), shared_norms(task_gradients))
        return [factors] * len(task_gradients)

    def _update(self, losses: Tensor, norms: Tensor) -> None:
        """One step of w from the losses L_t (T,) and the norms || g_t || (T,)."""
        self.first_losses = torch.where(self.first_losses > 0, self.first_losses, losses)
        progress = torch.where(self.first_losses > 0, losses / self.first_losses, 1.0)
        rates = progress / progress.mean().clamp_min(1e-30)  # avoids 0 / 0 when every loss is 0
        targets = (self.w * norms).mean() * rates**ALPHA
        gradients = torch.sign(self.w * norms - targets) * norms
        w = (self.w - STEP * gradients).clamp_min(FLOOR)
        self.w = w * (len(w) / w.sum())

    def state_dict(self) -> dict[str, Tensor]:
        return {"w": self.w, "first_losses": self.first_losses}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.w, self.first_losses = state["w"], state["first_losses"]


def shared_norms(task_gradients: list[TaskGradients]) -> Tensor:
    """|| g_t || over the parameters that all tasks reach: (T,). Raises UserError if there are none."""
    shared = [of_tasks for of_tasks in task_gradients if all(gradient is not None for gradient in of_tasks)]
    if not shared:
        raise UserError(
            "--weighting gradnorm balances gradients in parameters that all tasks share, and this network has none; "
            "choose another --weighting"
        )
    return torch.stack([torch.stack([part.norm() for part in parts]).norm() for parts in zip(*shared, strict=True)])
