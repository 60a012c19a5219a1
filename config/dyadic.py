"""The options of the dyadic learner: how dyads are made, how features describe them, and how the tasks are learned."""

from dataclasses import dataclass
from typing import Any, ClassVar

from config.base import Options, RunConfig, option, redefine
from config.errors import UserError

TASKS = ("click", "bookmark", "reply", "embedding")
DYADS, FEATURES, LEARNER = "dyads", "features of the dyads", "the dyadic learner"
MAPPINGS = ("N", "P")
SPLITS = ("random30", "time67")
MAX_BATCH_STEP = 2.0  # bound of lr * batch_size, above which a batch no longer approximates its single steps
MIN_SCALE = 0.01  # of simulated-xing; a smaller platform has too few offers for the dyads of an average user


@dataclass(frozen=True)
class DyadOptions(Options):
    """Which rows become dyads, and how they are split.

    mapping: see `dyadic.from_ratings.map_ratings`. min_user, min_item, iterate: see `dyadic.split.keep_frequent`.
    split: see `dyadic.split.split_dyads`.
    """

    mapping: str = option(
        "N", "labels from ratings: N, nested, or P, relative to the user's mean", DYADS, choices=MAPPINGS
    )
    min_user: int = option(30, "keep users with at least this many dyads", DYADS, metavar="N", low=1, high=10**9)
    min_item: int = option(30, "keep items with at least this many dyads", DYADS, metavar="N", low=1, high=10**9)
    iterate: bool = option(True, "repeat both filters until nothing changes", DYADS)
    split: str = option(
        "random30", "train on a random 30 % of the dyads, or on the first two thirds of each user by time", DYADS,
        choices=SPLITS,
    )  # fmt: skip


@dataclass(frozen=True)
class FeatureOptions(Options):
    """How the neighbors of a dyad are chosen and summarized; see dyadic.features.

    similarity: cosine of the rows of 1[IM > 0] ("binary", the authors' code) or of IM ("im", the paper's text).
    neighbors: the most similar users among those who observed the item ("per_item", Volkovs and Zemel). "global" (the
        authors' code) takes the most similar of all users, if their similarity is positive, and then keeps those who
        observed the item.
    absent: statistics over the neighbors found ("drop"), or over num_neighbors values, padded with zeros ("zero", the
        authors' code).
    num_neighbors: the maximum number of neighbors of a dyad.
    spread: standard deviation (the paper) or variance (the authors' code), both with divisor n.
    score: the value by which a neighbor's items are compared: IM, or the ratings that the labels were made from.
    bias: further columns: none, a constant 1 ("const"), or this and a flag for items that nobody else observed ("vz",
        Volkovs and Zemel).
    source: training dyads, or all dyads (the authors' code; leaks the test part).
    exclude_self: compute the similarity for a training dyad as if that dyad were unknown. Without it the statistics of
        training dyads contain their own label and look more informative than those of test dyads.
    """

    similarity: str = option(
        "binary", "similarity of users: by the items they acted on, or also by how strongly", FEATURES,
        choices=("binary", "im"),
    )  # fmt: skip
    neighbors: str = option(
        "per_item", "most similar users among those who observed the item, or among all users", FEATURES,
        choices=("per_item", "global"),
    )  # fmt: skip
    absent: str = option(
        "drop", "leave missing neighbors out, or count them as zeros", FEATURES,
        choices=("drop", "zero"),
    )  # fmt: skip
    num_neighbors: int = option(50, "maximum number of neighbors", FEATURES, metavar="K", low=1, high=10**6)
    spread: str = option("std", "spread: standard deviation or variance", FEATURES, choices=("std", "var"))
    score: str = option(
        "im", "compare a neighbor's items by the interaction matrix or by ratings", FEATURES, choices=("im", "rating")
    )
    bias: str = option(
        "none", "further columns: none, a constant, or a constant and a flag for items without neighbors", FEATURES,
        choices=("none", "const", "vz"),
    )  # fmt: skip
    source: str = option(
        "train", "compute features from training dyads, or from all (leaks the test part)", FEATURES,
        choices=("train", "all"),
    )  # fmt: skip
    exclude_self: bool = option(True, "compute the features of a training dyad without its own label", FEATURES)


@dataclass(frozen=True)
class LearnerOptions(Options):
    """The tasks and their updates; see dyadic.updates. The defaults train well on MovieLens 100K.

    lr: the paper's eta.
    lambdas: weights of the squared norms of w1, w2, w3 and the embeddings, or one number for all four.
    class_weights: of a bookmark and of a reply in loss and gradient; all other dyads have weight 1. Used where these
        tasks are learned.
    embedding_dim: d; 0 means no embeddings, and the embedding task is left out.
    iterations: triples in an epoch. "formula" is the paper's |U'| min|I+| min|I-|; "auto" is the larger of the formula
        and the number of training dyads.
    batch_size: 1 is Algorithm 1 exactly; B > 1 sums the gradients of B triples, which equals B steps up to (lr B)^2.
    epochs, eps, stop_rule: training ends after `epochs`, or when the loss changes by at most eps between two epochs:
        the largest change of a task ("max", the paper's Remark 3) or that of the total ("total", the authors' code).
    emb_grad: the gradients of all tasks reach the embeddings ("full", the paper), or only the gradient of the fourth
        task does ("emb_only", the authors' code).
    init: w = 0 and U, I normal ("zero"), all normal ("normal"), or all uniform in [0, 1) ("uniform", the authors).
    learn: the tasks to learn; one task is single-task learning.
    """

    lr: float = option(1e-2, "learning rate eta", LEARNER, above=0)
    lambdas: tuple[float, ...] = option(
        (1e-2,), "weight of the squared norms: one number for all tasks, or four", LEARNER, metavar="LAMBDA", low=0
    )
    class_weights: tuple[float, float] = option(
        (1.0, 1.0), "weight of a bookmark and of a reply; all other dyads have weight 1", LEARNER,
        metavar=("BOOKMARK", "REPLY"), above=0,
    )  # fmt: skip
    embedding_dim: int = option(30, "width d of the embeddings", LEARNER, metavar="D", low=0, high=10_000)
    iterations: str = option(
        "50000", "triples in an epoch: a number, formula (the paper's), or auto (at least one per training dyad)",
        LEARNER, metavar="N",
    )  # fmt: skip
    batch_size: int = option(1, "triples in a step; 1 is the paper's Algorithm 1", LEARNER, low=1, high=10**7)
    epochs: int = redefine(RunConfig, "epochs", 20)
    eps: float = option(
        1e-3, "stop when the losses on fixed triples change by at most this in an epoch", LEARNER, low=0
    )
    stop_rule: str = option(
        "max", "compare eps with the largest change of a task, or with the change of the sum", LEARNER,
        choices=("max", "total"),
    )  # fmt: skip
    emb_grad: str = option(
        "full", "embeddings learn from all tasks, or only from the embedding task", LEARNER,
        choices=("full", "emb_only"),
    )  # fmt: skip
    init: str = option(
        "zero", "initial parameters; zero: weights 0 and normal embeddings", LEARNER,
        choices=("zero", "normal", "uniform"),
    )  # fmt: skip
    learn: tuple[str, ...] = option(
        TASKS, "the tasks to learn; one task is single-task learning", LEARNER, choices=TASKS, metavar="TASK"
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
        if not self.embedding_dim and "embedding" in self.learn and set(self.learn) != set(TASKS):
            raise UserError("--learn embedding needs embeddings: leave it out, or raise --embedding_dim above 0")
        if self.lr * self.batch_size > MAX_BATCH_STEP:
            raise UserError(
                f"lr * batch_size = {self.lr * self.batch_size:g} exceeds {MAX_BATCH_STEP:g}: a batch no "
                "longer approximates its single steps and may diverge; lower --lr or --batch_size"
            )

    @property
    def active(self) -> tuple[str, ...]:
        """The learned tasks in the order of TASKS; without embeddings the embedding task is left out."""
        return tuple(task for task in TASKS if task in self.learn and (task != "embedding" or self.embedding_dim))

    @property
    def four_lambdas(self) -> tuple[float, ...]:
        """lambda_1 to lambda_4; the last one is for the embeddings."""
        return self.lambdas * (4 // len(self.lambdas))


@dataclass(frozen=True)
class DyadicConfig(RunConfig, DyadOptions, FeatureOptions, LearnerOptions):
    """Neighborhood features and four tasks by one SGD (Moura et al.)."""

    model: ClassVar[str] = "dyadic"
    summary: ClassVar[str] = "neighborhood features and four tasks by one SGD (Moura et al.)"
    compared_settings: ClassVar = ("learn", "seed")

    feedback: str | None = option(
        None, "your own file of 0/1 labels; its header names user, item and the --labels", "data", metavar="FILE"
    )
    labels: str = option(
        "clicked,bookmarked,replied", "columns of --feedback that act as click, bookmark and reply", DYADS,
        metavar="NAME,NAME,NAME",
    )  # fmt: skip
    displayed: str | None = option(
        None, "column of --feedback: 1 for items that were displayed to the user", DYADS, metavar="NAME"
    )
    context: str | None = option(
        None, "columns of --feedback with numbers that describe user and item", DYADS, metavar="NAME[,NAME...]"
    )
    time: str | None = option(None, "column of --feedback to sort by for --split time67", DYADS, metavar="NAME")
    scale: float = option(
        0.1, "size of --dataset simulated-xing; 1 is the paper's", DYADS, metavar="FRACTION", low=MIN_SCALE, high=1.0
    )

    thresholds: tuple[float, float, float, float] = option(
        (0.5, 0.5, 0.5, 0.5), "threshold of each task's probability for F1", LEARNER, low=0,
        metavar=("CLICK", "BOOKMARK", "REPLY", "EMBEDDING"),
    )  # fmt: skip
    tune: bool = option(
        False, "first choose lambdas, class weights and thresholds on folds of the training dyads", LEARNER
    )

    @classmethod
    def file_fields(cls) -> tuple[str, ...]:
        return (*super().file_fields(), "feedback")

    @property
    def architecture(self) -> dict[str, Any]:
        return {"embedding_dim": self.embedding_dim, "bias": self.bias}

    @property
    def divergence_advice(self) -> str:
        return f"lower --lr (now {self.lr:g})"

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
        if self.dataset == "simulated-xing":
            self._refuse("--dataset simulated-xing", "mapping", "min_user", "min_item", "iterate", "score")
        else:
            self._refuse("--feedback" if self.feedback is not None else "ratings", "scale")
        if self.feedback is None:
            self._check_without_feedback()
        else:
            self._check_feedback()
        if self.tune:
            self._refuse("--tune, which chooses it", "lambdas", "class_weights", "thresholds")
        if not self.embedding_dim:
            self._refuse("--embedding_dim 0", "emb_grad")

    def _refuse(self, reason: str, *names: str) -> None:
        """Raises UserError where one of these fields, which the run would ignore, differs from its default."""
        for name in names:
            default = getattr(DyadicConfig, name)
            if getattr(self, name) != default:
                flag, reset = (_to_flag(name, value) for value in (getattr(self, name), default))
                raise UserError(f"{flag} does not apply to {reason}: leave it out; if a preset sets it, add {reset}")

    def _check_feedback(self) -> None:
        self._refuse("--feedback", "mapping", "score")
        if self.split == "time67" and self.time is None:
            raise UserError("--split time67 needs a --time column of the --feedback file")
        if "time" in self.column_names:
            raise UserError("--columns time=NAME does not apply to --feedback of dyads: --time names that column")
        if self.split != "time67" and self.time is not None:
            raise UserError("--time is the column to sort by for --split time67, which is missing: add it")

    def _check_without_feedback(self) -> None:
        for name in ("labels", "displayed", "context", "time"):
            if getattr(self, name) != getattr(DyadicConfig, name):
                raise UserError(f"--{name} names columns of --feedback, which is missing: add --feedback FILE")
        if self.split == "time67" and self.train_ratings is not None:
            raise UserError("--split time67 does not apply to a ready split, read without timestamps: give --ratings")


def _to_flag(name: str, value: object) -> str:
    """The flag that sets a field: "--mapping P", "--no_iterate", "--class_weights 1 1"."""
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no_{name}"
    return " ".join([f"--{name}", *map(str, value if isinstance(value, tuple) else (value,))])


CONFIGS = (DyadicConfig,)
