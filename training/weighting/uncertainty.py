"""Uncertainty weighting (Kendall, Gal and Cipolla 2018)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from training.weighting.fixed import Factors, Fixed


class Uncertainty(Fixed):
    """Kendall, Gal and Cipolla 2018, eq. (7) and (10): learn the noise sigma_t of each task, s_t = log sigma_t^2.

        squared errors    1/2 exp(-s) lambda L + 1/2 s        minimal at exp(s) = lambda L
        other losses          exp(-s) lambda L + 1/2 s        minimal at exp(s) = 2 lambda L

    The joint loss includes the 1/2 s and may become negative.

    Where we differ: the second form is the paper's for a softmax likelihood. We also apply it to losses that are not
    log-likelihoods (BPR in its sigmoid form), where it is a heuristic. The s_t are exempt from weight decay, which
    would pull them to 0.
    """

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.s = nn.Parameter(torch.zeros(len(self.tasks), device=self.device))
        scales = [0.5 if name in self.squared_errors else 1.0 for name in self.tasks]
        self.scales = torch.tensor(scales, device=self.device)

    def parameters(self) -> list[nn.Parameter]:
        return [self.s]

    def factors(self) -> Factors:
        return dict(zip(self.tasks, self.scales * torch.exp(-self.s), strict=True))

    def joint(self, losses: Mapping[str, Tensor]) -> Tensor:
        return super().joint(losses) + self.s.sum() / 2

    def state_dict(self) -> dict[str, Tensor]:
        return {"s": self.s.detach().clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            self.s.copy_(state["s"])
