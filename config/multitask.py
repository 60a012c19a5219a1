"""The settings of the multi-task net."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from config.base import GradientConfig, SplitConfig, option, redefine
from config.errors import UserError

TASKS, NETWORK = "tasks of the multi-task net", "network"


@dataclass(frozen=True)
class MultiTaskConfig(GradientConfig):
    """Matrix factorization and a rating MLP on shared or separate embeddings."""

    model: ClassVar[str] = "multitask"
    summary: ClassVar[str] = "the course's net: matrix factorization and a rating MLP"
    compared_settings: ClassVar = ("shared_embeddings", "factorization_weight", "regression_weight", "seed")

    factorization_weight: float = option(0.99, "lambda_F, weight of the ranking loss", TASKS, metavar="LAMBDA", above=0)
    regression_weight: float = option(
        0.01, "lambda_R, weight of the rating loss (MSE)", TASKS, metavar="LAMBDA", above=0
    )
    shared_embeddings: bool = option(True, "one pair of embedding tables for both tasks, or one for each", TASKS)
    ranking_loss: str = option(
        "bpr_sigmoid", "over pairs of a watched and a random item: mean of 1 - sigmoid(x) as on the course sheet, or "
        "of -log sigmoid(x) as Rendle et al. have it (bpr); or a softmax over all items, users with all their ratings "
        "in one step", TASKS, choices=("bpr_sigmoid", "bpr", "softmax"),
    )  # fmt: skip
    negative_sampling: str = option(
        "uniform", "random items are drawn from all; from those the user has not seen; or as the highest-scored of N "
        "unseen ones", TASKS, choices=("uniform", "unseen", "hardest"),
    )  # fmt: skip
    user_weight_exponent: float = option(
        0.0, "softmax: a rating of a user with n ratings weighs n ** -X; 0: ratings count alike, 1: users do", TASKS,
        metavar="X", low=0, high=1,
    )  # fmt: skip
    ensemble_size: int = option(
        1, "networks trained side by side, each this many times narrower; the result is their mean", TASKS, metavar="K",
        low=1, high=1000,
    )  # fmt: skip
    num_item_based: int = option(
        0, "networks of the ensemble that compute user embeddings from the watched items", TASKS, metavar="K",
        low=0, high=1000,
    )  # fmt: skip
    steps: str = option(
        "auto", "auto: with a manual gradient where it equals that of autograd; autograd: always as training/steps.py "
        "takes them", "training", choices=("auto", "autograd"), affects_result=False, resumable=True,
    )  # fmt: skip
    init_rating_bias: bool = option(False, "predicted ratings start at the mean rating instead of 0", TASKS)

    epochs: int = redefine(GradientConfig, "epochs", 100)
    batch_size: int = redefine(GradientConfig, "batch_size", 256)
    lr: float = redefine(GradientConfig, "lr", 5e-3)
    layer_sizes: tuple[int, ...] | None = option(
        None, "input width of every dense layer of the rating MLP; the first is 3 D (default: 3 D, 64)", NETWORK,
        metavar="WIDTH", low=1, high=100_000,
    )  # fmt: skip

    @property
    def weights(self) -> dict[str, float]:
        return {"factorization": self.factorization_weight, "regression": self.regression_weight}

    @property
    def mlp_sizes(self) -> list[int]:
        """Input width of every dense layer of f_theta."""
        return list(self.layer_sizes or (3 * self.embedding_dim, 64))

    @property
    def architecture(self) -> dict[str, Any]:
        is_item_based = self.num_item_based if self.ensemble_size == 1 else 0  # the mean of an ensemble is not
        sizes = {"embedding_dim": self.embedding_dim, "layer_sizes": tuple(self.mlp_sizes)}
        return sizes | {"shared_embeddings": self.shared_embeddings, "num_item_based": is_item_based}

    @property
    def run_name(self) -> str:
        weights = f"LF={self.factorization_weight:g}_LR={self.regression_weight:g}"
        return f"shared={self.shared_embeddings}_{weights}_seed={self.seed}"

    def check(self) -> None:
        super().check()
        for name in ("factorization_weight", "regression_weight"):
            if not getattr(self, name) < math.inf:
                raise UserError(f"--{name} must be finite")
        self._check_ranking()
        self._check_network()

    def _check_ranking(self) -> None:
        if self.negatives < 1:
            raise UserError("--negatives must be at least 1: the ranking loss compares a watched item with others")
        is_softmax = self.ranking_loss == "softmax"
        if not is_softmax and self.user_weight_exponent:
            raise UserError("--user_weight_exponent is for the softmax over all items: add --ranking_loss softmax")
        if is_softmax and (self.negatives, self.negative_sampling) != (1, "uniform"):
            raise UserError(
                "--ranking_loss softmax compares with all items and draws none: leave out --negatives and "
                "--negative_sampling"
            )
        if self.negative_sampling == "hardest" and self.negatives == 1:
            raise UserError(
                "--negative_sampling hardest takes the highest-scored of N items: add --negatives N with N of 2 or more"
            )
        if self.num_item_based and (not is_softmax or not self.shared_embeddings):
            raise UserError(
                "--num_item_based networks score all items with one pair of tables: add --ranking_loss softmax and "
                "leave out --no_shared_embeddings"
            )

    def _check_network(self) -> None:
        if self.mlp_sizes[0] != 3 * self.embedding_dim:
            raise UserError(
                f"--layer_sizes must begin with 3 * embedding_dim = {3 * self.embedding_dim}, the width of the user's "
                f"and the item's embedding and their product, not with {self.mlp_sizes[0]}"
            )
        if self.ensemble_size > 1 and (len(self.mlp_sizes) > 1 or self.embedding_dim % self.ensemble_size):
            raise UserError(
                f"--ensemble_size {self.ensemble_size}: --embedding_dim must be a multiple of it, and --layer_sizes "
                "one number, 3 * embedding_dim; only the mean of linear rating functions is such a function again"
            )
        if self.ensemble_size > 1 and self.start_from is not None:
            raise UserError(
                f"--start_from does not apply to --ensemble_size {self.ensemble_size}, whose networks are trained from "
                "scratch: leave out one of the two"
            )
        if self.num_item_based > self.ensemble_size:
            raise UserError(f"--num_item_based {self.num_item_based} is more than --ensemble_size {self.ensemble_size}")


BLOCKS = "blocks of the net"


@dataclass(frozen=True)
class ClosedFormConfig(SplitConfig):
    """The multi-task net from a ranking block and a rating block, each fitted by the method that suits it."""

    model: ClassVar[str] = "closed_form"
    summary: ClassVar[str] = "the course's net from closed forms: Bayesian ratings, EASE"

    ranking: str = option(
        "auto", "ranking block: EASE, networks trained by gradient, or popularity; auto: by the data", BLOCKS,
        choices=("auto", "ease", "networks", "popularity"),
    )  # fmt: skip
    ridge: float = option(0.0, "lambda of EASE; 0: chosen on a validation part of train", BLOCKS, low=0)
    ranking_dim: int = option(
        0, "width of the tables of EASE; 0: chosen on a validation part of train", BLOCKS,
        metavar="D", low=0, high=10_000,
    )  # fmt: skip
    rating_dim: int = option(12, "width of each factorization of the ratings", BLOCKS, metavar="D", low=1, high=64)
    rating_fits: int = option(
        4, "factorizations from different random starts; the rating is their mean", BLOCKS, metavar="K", low=1, high=64
    )
    num_features: int = option(
        32, "features of a user and of an item from who rated what", BLOCKS, metavar="K", low=0, high=1000
    )
    genres: str = option(
        "auto", "genres as further features of the items; auto: where a validation part of train favors them", BLOCKS,
        choices=("auto", "on", "off"),
    )  # fmt: skip
    epochs: int = redefine(SplitConfig, "epochs", 12, doc="sweeps of the factorizations", resumable=False)

    def check(self) -> None:
        super().check()
        if self.start_from is not None:
            raise UserError(
                "--start_from does not apply to --model closed_form, which is fitted from scratch in every run: leave "
                "it out"
            )
