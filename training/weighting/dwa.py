"""Dynamic weight average (Liu, Johns and Davison 2019)."""

from collections.abc import Mapping, Sequence

import torch

from training.weighting.fixed import Factors, Fixed

TEMPERATURE = 2.0  # the higher, the more even the factors; value of the paper


class DWA(Fixed):
    """Liu, Johns and Davison 2019, eq. (7): a loss that fell less in the last epoch gets a larger factor.

        r_t = L_t(e-1) / L_t(e-2),   w = T softmax(r / temperature)

    L_t(e) is the mean loss of epoch e. In the first two epochs w_t = 1. The history is the only state.

    Where we differ: a loss that was 0 counts as unchanged, r_t = 1.
    """

    def begin_epoch(self, epoch: int, history: Sequence[Mapping[str, float]]) -> None:
        self.w = [1.0] * len(self.tasks)
        if len(history) >= 2:
            columns = [f"train_{name}" for name in self.tasks]
            before, last = history[-2:]
            ratios = [last[column] / before[column] if before[column] else 1.0 for column in columns]
            fractions = torch.softmax(torch.tensor(ratios, dtype=torch.float64) / TEMPERATURE, dim=0)
            self.w = (len(self.tasks) * fractions).tolist()

    def factors(self) -> Factors:
        return dict(zip(self.tasks, self.w, strict=True))
