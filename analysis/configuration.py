"""What the experiments with the multi-task net vary: the tables, the weights and the weighting method."""

from dataclasses import asdict, dataclass

from analysis.runner import Run
from registry import make_config

EPOCHS = 30
QUICK = {"epochs": 6, "dataset": "simulated", "simulated_size": (300, 400, 12_000)}
# Of the training ratings, held out in every run. The homework's own runs hold none out and so cannot choose an epoch.
VAL_FRACTION = 0.05


@dataclass(frozen=True)
class Configuration:
    """One way to train both tasks; lambda_F is 1 - lambda_R."""

    shared: bool
    regression_weight: float
    weighting: str = "fixed"

    @property
    def factorization_weight(self) -> float:
        return round(1 - self.regression_weight, 9)

    @property
    def tables(self) -> str:
        return "shared" if self.shared else "separate"

    @property
    def weights(self) -> str:
        return f"({self.factorization_weight:g}, {self.regression_weight:g})"

    @property
    def name(self) -> str:
        return f"{self.tables} {self.weights}" + ("" if self.weighting == "fixed" else f" {self.weighting}")

    def run(self, seed: int, common: dict[str, object]) -> Run:
        """Its run on one split; `common` are the settings that all runs of the experiment share.

        Raises:
            UserError: a setting of `common` is out of range.
        """
        own = {"shared_embeddings" if name == "shared" else name: value for name, value in asdict(self).items()}
        own |= {"factorization_weight": self.factorization_weight, "val_fraction": VAL_FRACTION, "seed": seed}
        return Run(self.name, make_config("multitask", **{"epochs": EPOCHS} | common | own))
