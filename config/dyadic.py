"""The settings of the dyadic learner: a part of settings.Settings. Imports nothing heavy."""

import math
from dataclasses import dataclass

from config.defaults import option
from config.errors import UserError

CHOICES = {
    "mapping": ("N", "P"),
    "split": ("random30", "time67"),
    "similarity": ("binary", "im"),
    "neighbours": ("per_item", "global"),
    "absent": ("drop", "zero"),
    "spread": ("std", "var"),
    "score": ("im", "rating"),
    "bias": ("none", "const", "vz"),
    "source": ("train", "all"),
    "stop_rule": ("max", "total"),
    "emb_grad": ("full", "emb_only"),
    "init": ("zero", "normal", "uniform"),
    "learn": ("click", "bookmark", "reply", "embedding"),
}


def choice(name: str, doc: str, group: str, **argument):
    return option(None, doc, group, choices=CHOICES[name], **argument)


@dataclass
class DyadicSettings:
    """How dyads are made, described and learnt from; see features.FeatureOptions and options.LearnerOptions."""

    mapping: str | None = choice(
        "mapping", "labels of ratings: N, nested stars, or P, relative to the user's own mean", "dyads"
    )
    min_user: int | None = option(None, "dyads that a user must have to be kept", "dyads", metavar="N")
    min_item: int | None = option(None, "dyads that an item must have to be kept", "dyads", metavar="N")
    iterate: bool | None = option(None, "repeat that filter until nothing changes, or filter once", "dyads")
    split: str | None = choice(
        "split", "30 %% of the dyads at random, or each user's first two thirds by time", "dyads"
    )
    scale: float | None = option(None, "size of --dataset simulated-xing, 1 is the paper's", "dyads", metavar="SHARE")
    displayed: str | None = option(None, "column of --feedback that says what was displayed", "dyads", metavar="NAME")
    context: str | None = option(
        None, "columns of --feedback with numbers that describe user and item", "dyads", metavar="NAME[,NAME...]"
    )
    time: str | None = option(None, "column of --feedback to go by for --split time67", "dyads", metavar="NAME")

    similarity: str | None = choice(
        "similarity", "of users: by what they acted on, or by how strongly", "features of the dyads"
    )
    neighbours: str | None = choice(
        "neighbours", "the nearest of those who observed the item, or of all users", "features of the dyads"
    )
    absent: str | None = choice(
        "absent", "neighbours that did not observe the item are left out or count as zeros", "features of the dyads"
    )
    num_neighbours: int | None = option(None, "neighbours at most", "features of the dyads", metavar="K")
    spread: str | None = choice("spread", "standard deviation or variance", "features of the dyads")
    score: str | None = choice("score", "what neighbours compare items by", "features of the dyads")
    bias: str | None = choice("bias", "further columns", "features of the dyads")
    source: str | None = choice("source", "dyads to compute from; all leaks the test part", "features of the dyads")
    exclude_self: bool | None = option(
        None, "the features of a training dyad do not know its own label", "features of the dyads"
    )

    lambdas: list[float] | None = option(
        None, "weight of the squared norms: one number, or one a task and one for the embeddings", "the dyadic learner",
        nargs="+", metavar="LAMBDA",
    )  # fmt: skip
    class_weights: list[float] | None = option(
        None, "weight of a bookmark and of a reply beside one that is none", "the dyadic learner", nargs=2,
        metavar=("BOOKMARK", "REPLY"),
    )  # fmt: skip
    iterations: str | None = option(
        None, "triples in an epoch: a number, formula (the paper's), or auto, that or the training dyads if more",
        "the dyadic learner", metavar="N",
    )  # fmt: skip
    eps: float | None = option(
        None, "stop when no task's loss on fixed triples moves by more in an epoch", "the dyadic learner"
    )
    stop_rule: str | None = choice("stop_rule", "the slowest task decides, or the sum", "the dyadic learner")
    emb_grad: str | None = choice(
        "emb_grad", "embeddings learn from all tasks, or from the ranking by embeddings alone", "the dyadic learner"
    )
    init: str | None = choice("init", "how weights start", "the dyadic learner")
    learn: list[str] | None = choice(
        "learn", "the tasks; one alone is single-task learning", "the dyadic learner", nargs="+"
    )
    thresholds: list[float] | None = option(
        None, "of the four probabilities, above which F1 counts a yes", "the dyadic learner", nargs=4, metavar="THETA"
    )
    tune: bool = option(
        False, "first choose lambdas, class weights and thresholds on folds of the training dyads", "the dyadic learner"
    )

    def check_dyadic(self) -> None:
        """Raises UserError where values do not go together."""
        if len(self.lambdas) not in (1, 4):
            raise UserError(f"--lambdas takes one number or four, not {len(self.lambdas)}")
        for name in ("lambdas", "class_weights", "thresholds"):
            for value in getattr(self, name):
                if not 0 <= value < math.inf:
                    raise UserError(f"--{name} must be 0 or more, not {value:g}")
        if self.iterations not in ("auto", "formula") and not (self.iterations.isdigit() and int(self.iterations)):
            raise UserError(f"--iterations must be a positive number, auto or formula, not {self.iterations!r}")
        if not 0 <= self.eps < math.inf:
            raise UserError(f"--eps must be 0 or more, not {self.eps:g}")
        if len(set(self.learn)) < len(self.learn):
            raise UserError(f"--learn names a task twice: {' '.join(self.learn)}")
        if len(self.labels.split(",")) != 3:
            raise UserError(
                f"--labels of dyads are three, in the roles of click, bookmark and reply, not {self.labels!r}"
            )
        if self.feedback is None and (self.displayed or self.context or self.time):
            raise UserError("--displayed, --context and --time name columns of --feedback, which is missing")
        if self.feedback is not None and self.split == "time67" and self.time is None:
            raise UserError("--split time67 needs a --time column of the --feedback file")
        if (self.test_fraction, self.val_fraction) != (0.7, 0.0):
            raise UserError(
                "--test_fraction and --val_fraction do not apply to --model dyadic: --split says how to split"
            )
        if self.weight_decay or self.weighting != "fixed":
            raise UserError(
                "--model dyadic has its own updates: --lambdas penalise weights; --weighting does not apply"
            )
