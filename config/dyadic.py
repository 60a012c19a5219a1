"""The settings of the dyadic learner: how dyads are made, how they are described, and how the tasks are learned."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from config.base import Options, RunConfig, option, redefine
from config.errors import UserError

TASKS = ("click", "bookmark", "reply", "embedding")
DYADS, FEATURES, LEARNER = "dyads", "features of the dyads", "the dyadic learner"
LARGEST_BATCH_STEP = 2.0  # of lr * batch_size: beyond it a batch no longer approximates its single steps


@dataclass(frozen=True)
class DyadOptions(Options):
    """Which rows become dyads, and how they are split; see dyadic.data."""

    mapping: str = option(
        "N", "labels of ratings: N, nested stars, or P, relative to the user's own mean", DYADS, choices=("N", "P")
    )
    min_user: int = option(30, "dyads that a user must have to be kept", DYADS, metavar="N", low=1, high=10**9)
    min_item: int = option(30, "dyads that an item must have to be kept", DYADS, metavar="N", low=1, high=10**9)
    iterate: bool = option(True, "repeat that filter until nothing changes, or filter once", DYADS)
    split: str = option(
        "random30", "train on 30 % of the dyads at random, or on each user's first two thirds by time", DYADS,
        choices=("random30", "time67"),
    )  # fmt: skip


@dataclass(frozen=True)
class FeatureOptions(Options):
    """How the neighbors of a dyad are chosen and summarized; see dyadic.features.

    similarity: cosine of the rows of 1[IM > 0] ("binary", the authors' code) or of IM ("im", the paper's text).
    neighbors: the most similar users among those who observed the item ("per_item", Volkovs and Zemel), or the most
        similar of all users, of whom those count that observed it ("global", the authors' code). Global lists hold
        users of similarity > 0 only.
    absent: statistics over the neighbors that are there ("drop"), or padded with zeros ("zero", the authors' code).
    spread: standard deviation (the paper) or variance (the authors' code), both with divisor n.
    score: what neighbors compare items by: IM, or the ratings the labels were made from.
    bias: further columns: none, a constant 1, or that and the flag "nobody else observed the item" (Volkovs and Zemel).
    source: training dyads, or all dyads (the authors' code; leaks the test part).
    exclude_self: compute the similarity for a training dyad as if that dyad were unknown. Without it the statistics of
        training dyads contain their own label and look more informative than those of test dyads.
    """

    similarity: str = option(
        "binary", "of users: by what they acted on, or by how strongly", FEATURES, choices=("binary", "im")
    )
    neighbors: str = option(
        "per_item", "the nearest of those who observed the item, or of all users", FEATURES,
        choices=("per_item", "global"),
    )  # fmt: skip
    absent: str = option(
        "drop", "neighbors that did not observe the item are left out or count as zeros", FEATURES,
        choices=("drop", "zero"),
    )  # fmt: skip
    num_neighbors: int = option(50, "neighbors at most", FEATURES, metavar="K", low=1, high=10**6)
    spread: str = option("std", "standard deviation or variance", FEATURES, choices=("std", "var"))
    score: str = option("im", "what neighbors compare items by", FEATURES, choices=("im", "rating"))
    bias: str = option("none", "further columns", FEATURES, choices=("none", "const", "vz"))
    source: str = option("train", "dyads to compute from; all leaks the test part", FEATURES, choices=("train", "all"))
    exclude_self: bool = option(True, "the features of a training dyad do not contain its own label", FEATURES)


@dataclass(frozen=True)
class LearnerOptions(Options):
    """What the updates do; see dyadic.updates. Defaults train well on MovieLens 100K.

    lr: the paper's eta. lambdas: weights of the squared norms of w1, w2, w3 and the embeddings, or one number for all.
    class_weights: of a bookmark and of a reply in loss and gradient; all other dyads weigh 1.
    embedding_dim: d; 0 means no embeddings and no fourth task.
    iterations: triples in an epoch; "formula" is the paper's |U'| min|I+| min|I-|, "auto" that or the number of
        training dyads where it is larger.
    batch_size: 1 is Algorithm 1 exactly; B > 1 sums the gradients of B triples, which equals B steps up to (lr B)^2.
    epochs, eps, stop_rule: training ends after so many epochs, or when no task's loss ("max", the paper's Remark 3),
        or the total loss ("total", the authors' code), changes by more than eps between two epochs.
    emb_grad: the gradients of all tasks reach the embeddings ("full", the paper), or that of the fourth alone
        ("emb_only", the authors' code).
    init: w = 0 and U, I normal ("zero"), all normal ("normal"), or all uniform in [0, 1) ("uniform", the authors).
    learn: the tasks to learn; one alone is single-task learning.
    """

    lr: float = option(1e-2, "learning rate eta", LEARNER, above=0)
    lambdas: tuple[float, ...] = option(
        (1e-2,), "weight of the squared norms: one number, or one per task", LEARNER, metavar="LAMBDA", low=0
    )
    class_weights: tuple[float, float] = option(
        (1.0, 1.0), "weight of a bookmark and of a reply; all other dyads weigh 1", LEARNER,
        metavar=("BOOKMARK", "REPLY"), above=0,
    )  # fmt: skip
    embedding_dim: int = option(30, "width d of the embeddings", LEARNER, metavar="D", low=0, high=10_000)
    iterations: str = option(
        "50000", "triples in an epoch: a number, formula (the paper's), or auto (that or the training dyads if more)",
        LEARNER, metavar="N",
    )  # fmt: skip
    batch_size: int = option(1, "triples in a step; 1 is the paper's algorithm", LEARNER, low=1, high=10**7)
    epochs: int = redefine(RunConfig, "epochs", 20)
    eps: float = option(1e-3, "stop when no task's loss on fixed triples changes by more in an epoch", LEARNER, low=0)
    stop_rule: str = option("max", "compare the slowest task with eps, or the sum", LEARNER, choices=("max", "total"))
    emb_grad: str = option(
        "full", "embeddings learn from all tasks, or from the ranking by embeddings alone", LEARNER,
        choices=("full", "emb_only"),
    )  # fmt: skip
    init: str = option("zero", "initial weights", LEARNER, choices=("zero", "normal", "uniform"))
    learn: tuple[str, ...] = option(
        TASKS, "the tasks; one alone is single-task learning", LEARNER, choices=TASKS, metavar="TASK"
    )
    seed: int = redefine(RunConfig, "seed", 0)

    def check(self) -> None:
        super().check()
        if len(self.lambdas) not in (1, 4):
            raise UserError(f"--lambdas takes one number or four, not {len(self.lambdas)}")
        if self.iterations not in ("auto", "formula") and not (self.iterations.isdigit() and int(self.iterations)):
            raise UserError(f"--iterations must be a positive number, auto or formula, not {self.iterations!r}")
        if len(set(self.learn)) < len(self.learn):
            raise UserError(f"--learn names a task twice: {' '.join(self.learn)}")
        if not self.active:
            raise UserError("without embeddings (--embedding_dim 0) there is no embedding task: --learn another one")
        if self.lr * self.batch_size > LARGEST_BATCH_STEP:
            raise UserError(
                f"lr * batch_size = {self.lr * self.batch_size:g} exceeds {LARGEST_BATCH_STEP:g}: a batch would no "
                "longer approximate its single steps and may diverge; lower --lr or --batch_size"
            )

    @property
    def active(self) -> tuple[str, ...]:
        """The tasks that are learned, in the order of TASKS; without embeddings there is no embedding task."""
        return tuple(task for task in TASKS if task in self.learn and (task != "embedding" or self.embedding_dim))

    @property
    def four_lambdas(self) -> tuple[float, ...]:
        """lambda_1 to lambda_4, the last that of the embeddings."""
        return self.lambdas * (4 // len(self.lambdas))


@dataclass(frozen=True)
class DyadicConfig(RunConfig, DyadOptions, FeatureOptions, LearnerOptions):
    """Neighborhood features and four tasks by one SGD (Moura et al.)."""

    model: ClassVar[str] = "dyadic"
    summary: ClassVar[str] = "neighborhood features and four tasks by one SGD (Moura et al.)"

    feedback: str | None = option(
        None, "your own file of 0/1 labels: a header naming user, item and the --labels", "data", metavar="FILE"
    )
    labels: str = option(
        "clicked,bookmarked,replied", "columns of --feedback in the roles of click, bookmark and reply", DYADS,
        metavar="NAME,NAME,NAME",
    )  # fmt: skip
    displayed: str | None = option(None, "column of --feedback that says what was displayed", DYADS, metavar="NAME")
    context: str | None = option(
        None, "columns of --feedback with numbers that describe user and item", DYADS, metavar="NAME[,NAME...]"
    )
    time: str | None = option(None, "column of --feedback to sort by for --split time67", DYADS, metavar="NAME")
    scale: float = option(0.1, "size of --dataset simulated-xing; 1 is the paper's", DYADS, metavar="FRACTION", above=0)

    epochs: int = redefine(RunConfig, "epochs", 20)
    seed: int = redefine(RunConfig, "seed", 0)
    thresholds: tuple[float, float, float, float] = option(
        (0.5, 0.5, 0.5, 0.5), "probability of each task above which F1 counts a positive", LEARNER, low=0,
        metavar=("CLICK", "BOOKMARK", "REPLY", "EMBEDDING"),
    )  # fmt: skip
    tune: bool = option(
        False, "first choose lambdas, class weights and thresholds on folds of the training dyads", LEARNER
    )

    @classmethod
    def file_fields(cls) -> tuple[str, ...]:
        return (*super().file_fields(), "feedback")

    @property
    def label_names(self) -> tuple[str, ...]:
        return tuple(self.labels.split(","))

    @property
    def run_name(self) -> str:
        return f"{self.model}_{'_'.join(self.learn)}_seed={self.seed}"

    def check(self) -> None:
        super().check()
        if len(self.label_names) != 3:
            raise UserError(f"--labels of dyads are three: click, bookmark and reply, not {self.labels!r}")
        if not math.isfinite(self.scale):
            raise UserError("--scale must be finite")
        self._check_data()
        if self.feedback is None:
            self._check_without_feedback()
        elif self.split == "time67" and self.time is None:
            raise UserError("--split time67 needs a --time column of the --feedback file")

    def _check_data(self) -> None:
        """Refuse options of the dyads that the chosen data set would ignore."""
        is_xing = self.dataset == "simulated-xing"
        ignored = (
            ("mapping", "min_user", "min_item")
            if is_xing
            else ("scale",)
            if self.feedback is None
            else ("scale", "mapping")
        )
        for name in ignored:
            if getattr(self, name) != getattr(DyadicConfig, name):
                data = "--dataset simulated-xing" if is_xing else "--feedback" if self.feedback else "ratings"
                raise UserError(f"--{name} does not apply to {data}: leave it out")

    def _check_without_feedback(self) -> None:
        given: dict[str, Any] = {"displayed": self.displayed, "context": self.context, "time": self.time}
        if self.labels != DyadicConfig.labels:
            given["labels"] = self.labels
        for name, value in given.items():
            if value is not None:
                raise UserError(f"--{name} names columns of --feedback, which is missing: add --feedback FILE")
        if self.split == "time67" and self.train_ratings is not None:
            raise UserError("--split time67 sorts by timestamps, which a ready split has no use for: give --ratings")


CONFIGS = (DyadicConfig,)
