"""The settings of a run: one dataclass, from which the flags of main.py (flags.py) and its config.json are made.

Imports nothing heavy, so that `python main.py --help` answers at once.
"""

import math
from dataclasses import dataclass

from config.defaults import (
    BY_MODEL,
    CHAINED,
    DATASETS,
    DEFAULTS,
    NETWORK_OPTIONS,
    RANGES,
    RANKING_METRICS,
    RATING_LABELS,
    SIMULATED_SIZE,
    WEIGHTINGS,
    ZOO,
    option,
)
from config.dyadic import DyadicSettings
from config.errors import UserError


@dataclass
class Settings(DyadicSettings):
    """All that decides what a run does. Defaults train well on a laptop without a GPU."""

    model: str = option(
        "multitask", "multitask: the network of the course; the others, on view and like labels: the zoo", "model",
        choices=tuple(DEFAULTS),
    )  # fmt: skip

    factorization_weight: float | None = option(
        None, "lambda_F, the weight of the ranking loss (BPR)", "tasks of the multi-task net", metavar="LAMBDA"
    )
    regression_weight: float | None = option(
        None, "lambda_R, the weight of the rating loss (MSE)", "tasks of the multi-task net", metavar="LAMBDA"
    )
    shared_embeddings: bool | None = option(
        None, "both tasks on one pair of embedding tables, or each on its own", "tasks of the multi-task net"
    )
    bpr: str | None = option(
        None, "ranking loss: 1 - sigmoid(x) as on the course sheet, Rendle's -log sigmoid(x), or instead of pairs a "
        "softmax over all items, users with all their ratings in one step", "tasks of the multi-task net",
        choices=("bpr_sigmoid", "bpr", "softmax"),
    )  # fmt: skip
    user_balance: float | None = option(
        None, "in the softmax a rating of a user with n of them weighs n ** -X: 0 ratings count alike, 1 users do",
        "tasks of the multi-task net", metavar="X",
    )  # fmt: skip
    members: int | None = option(
        None, "networks that are trained side by side, this many times narrower; the network is their mean",
        "tasks of the multi-task net", metavar="K",
    )  # fmt: skip
    denoisers: int | None = option(
        None, "how many of the members make their users of what these watched, and learn from halves of it",
        "tasks of the multi-task net", metavar="K",
    )  # fmt: skip
    start_at_mean: bool | None = option(
        None, "predicted ratings start at the mean rating and not at 0", "tasks of the multi-task net"
    )
    negative_sampling: str | None = option(
        None, "from all items; from those the user has not seen; or the highest-scored of N unseen ones",
        "tasks of the multi-task net", choices=("uniform", "unseen", "hardest"),
    )  # fmt: skip

    labels: str | None = option(
        None, "labels to learn, in the order of the chain; of ratings: view (rated), like (rated high)",
        "labels of the zoo", metavar="NAME[,NAME...]",
    )  # fmt: skip
    label_weights: list[float] | None = option(
        None, "weight of each label's loss (default: 1 each)", "labels of the zoo", nargs="+", metavar="WEIGHT"
    )
    like_from: float | None = option(None, "the lowest rating that is a like", "labels of the zoo", metavar="RATING")
    chain: str | None = option(
        None, "of a later label: this and all before it, over all rows; this given the one before, over the rows "
        "where that is 1; or none: labels side by side (default: joint where the data are a chain, else none)",
        "labels of the zoo", choices=("joint", "conditional", "none"),
    )  # fmt: skip
    calibrator: float | None = option(
        None, "weight of AITM's penalty on a later label that is likelier than the one before it", "labels of the zoo",
        metavar="ALPHA",
    )  # fmt: skip

    negatives: int | None = option(
        None, "random items drawn for each watched one; 0 with --feedback takes the file as it is", "training",
        metavar="N",
    )  # fmt: skip
    weighting: str = option(
        "fixed", "the weights as given, or on top of them a method that balances the tasks while training", "training",
        choices=WEIGHTINGS,
    )  # fmt: skip
    epochs: int | None = option(None, "passes over the training part", "training")
    batch_size: int | None = option(None, "rows in a step", "training")
    lr: float | None = option(None, "step size of Adam", "training")
    weight_decay: float = option(0.0, "decoupled weight decay (AdamW)", "training")
    embedding_decay: float = option(0.0, "the same for the embeddings alone, not for layers and biases", "training")
    schedule: str = option(
        "constant", "of the step size: constant, or falling along a cosine to 0 at the last step", "training",
        choices=("constant", "cosine"),
    )  # fmt: skip
    patience: int | None = option(
        None, "stop after this many epochs without a better --monitor on the validation part", "training",
        metavar="EPOCHS",
    )  # fmt: skip
    monitor: str | None = option(
        None, "validation metric that decides which epoch is best (default: mrr; of the zoo: auc)", "training",
        metavar="METRIC",
    )  # fmt: skip
    seed: int = option(0, "of the split, the first weights, the order of the rows and the negatives", "training")
    device: str = option("auto", "where to compute", "training", choices=("auto", "cpu", "cuda", "mps"))
    # The networks are too small to share out: two threads gain nothing on an idle machine, and on a busy one they
    # wait for each other (an epoch of 0.45 s was seen to take 28 s).
    threads: int = option(1, "processor threads; more of them pay with large batches", "training", metavar="N")

    embedding_dim: int | None = option(None, "width d of the embeddings", "network", metavar="D")
    layer_sizes: list[int] | None = option(
        None, "input width of every dense layer of the rating MLP; the first must be 3 D (default: 3 D, 64)", "network",
        nargs="+", metavar="WIDTH",
    )  # fmt: skip
    experts: int | None = option(None, "experts that all tasks share", "network", metavar="E")
    task_experts: int | None = option(None, "experts of each task", "network", metavar="M")
    shared_experts: int | None = option(None, "experts beside those of the tasks", "network", metavar="S")
    levels: int | None = option(None, "levels of experts, one on the other", "network", metavar="L")
    expert_units: list[int] | None = option(
        None, "widths of the dense layers of an expert, or of the bottom where there are no experts", "network",
        nargs="+", metavar="WIDTH",
    )  # fmt: skip
    tower_units: list[int] | None = option(
        None, "widths of the hidden layers of a task's tower", "network", nargs="+", metavar="WIDTH"
    )

    dataset: str = option(
        "auto", "auto: MovieLens 100K from --data_dir or the network, without either the simulated set", "data",
        choices=DATASETS,
    )  # fmt: skip
    data_dir: str | None = option(
        None, "folder of the MovieLens folders (default: $MOVIELENS_DIR, else data/)", "data", metavar="DIR"
    )
    ratings: str | None = option(
        None, "your own file: user, item, rating[, timestamp]; header or not; , tab ; or :: between; .gz too", "data",
        metavar="FILE",
    )  # fmt: skip
    train_ratings: str | None = option(None, "a ready-made split: the training file", "data", metavar="FILE")
    test_ratings: str | None = option(None, "a ready-made split: the test file", "data", metavar="FILE")
    feedback: str | None = option(
        None, "your own file of 0/1 labels for the zoo: a header naming user, item and the --labels", "data",
        metavar="FILE",
    )  # fmt: skip
    rating_scale: list[float] = option(
        [0.5, 5.0], "lowest and highest rating your own files may hold", "data", nargs=2, metavar=("LOW", "HIGH")
    )
    simulated_size: list[int] = option(
        list(SIMULATED_SIZE), "size of --dataset simulated", "data", nargs=3, metavar=("USERS", "ITEMS", "RATINGS")
    )
    test_fraction: float | None = option(None, "share of the rows held out for the test", "data")
    val_fraction: float | None = option(None, "share of the remaining rows held out to choose the best epoch", "data")

    logdir: str | None = option(
        None, "folder of the run (default: a new one under run/, named by the tasks)", "output", metavar="DIR"
    )
    quiet: bool = option(False, "no line per epoch, only the table at the end", "output")
    profile: bool = option(False, "print at the end where the time went", "output")

    def __post_init__(self) -> None:
        self._fill_in_defaults()
        self._check_numbers()
        self._check_combinations()
        if self.model == "dyadic":
            self.check_dyadic()
            return
        if self.embedding_dim < 1:
            raise UserError("--embedding_dim must be at least 1")
        if self.dataset == "simulated-xing":
            raise UserError("--dataset simulated-xing holds clicks, bookmarks and replies: it is for --model dyadic")
        if self.model == "multitask":
            self._check_multitask()
        else:
            self._check_zoo()

    @property
    def weights(self) -> dict[str, float]:
        """The weight of every loss, by its name; of the multi-task net and the zoo."""
        if self.model == "multitask":
            return {"factorization": self.factorization_weight, "regression": self.regression_weight}
        weights = dict(zip(self.label_names, self.label_weights or [1.0] * len(self.label_names), strict=True))
        return weights | ({"calibrator": self.calibrator} if self.calibrator else {})

    @property
    def label_names(self) -> tuple[str, ...]:
        return tuple(self.labels.split(","))

    @property
    def needs_chain(self) -> bool:
        """Whether no label may be 1 where the one before it is 0."""
        return self.model in CHAINED or self.chain in ("joint", "conditional") or bool(self.calibrator)

    @property
    def monitored(self) -> tuple[str, ...]:
        """The metrics by which an epoch may be chosen."""
        if self.model == "multitask":
            return RANKING_METRICS
        names = [f"{label}_{kind}" for label in self.label_names for kind in ("auc", "log_loss", "entropy", "user_auc")]
        if self.chain != "none":
            for before, label in zip(self.label_names, self.label_names[1:], strict=False):
                names += [f"{label}_given_{before}_auc", f"{label}_given_{before}_user_auc"]
        return ("auc", "log_loss", *names)

    @property
    def mlp_sizes(self) -> list[int]:
        return self.layer_sizes or [3 * self.embedding_dim, 64]

    @property
    def data_options(self) -> dict[str, object]:
        """Arguments of dataset.load."""
        names = (
            "dataset", "data_dir", "ratings", "train_ratings", "test_ratings", "rating_scale", "simulated_size",
            "test_fraction", "val_fraction", "seed",
        )  # fmt: skip
        options = {name: getattr(self, name) for name in names}
        return options if self.feedback is None else options | {"feedback": self.feedback, "labels": self.label_names}

    @property
    def network_options(self) -> dict[str, object]:
        """Arguments of the network beside its sizes."""
        if self.model == "multitask":
            sizes = {"embedding_dim": self.embedding_dim, "layer_sizes": self.mlp_sizes}
            return sizes | {"embedding_sharing": self.shared_embeddings}
        own = {name: getattr(self, name) for name in NETWORK_OPTIONS if name in DEFAULTS[self.model]}
        return {"embedding_dim": self.embedding_dim, "tasks": self.label_names} | own

    @property
    def task_options(self) -> dict[str, object]:
        """Arguments of the task, beside the data."""
        if self.model != "multitask":
            names = ("batch_size", "negatives", "seed", "like_from", "chain")
        elif self.bpr == "softmax":
            names = ("batch_size", "seed", "user_balance", "denoisers")
        else:
            names = ("batch_size", "negatives", "seed", "bpr", "negative_sampling")
        options = {name: getattr(self, name) for name in names}
        if self.model == "multitask":
            return options
        return options | {"labels": self.label_names, "calibrate": bool(self.calibrator)}

    @property
    def run_name(self) -> str:
        if self.model == "multitask":
            weights = f"LF={self.factorization_weight:g}_LR={self.regression_weight:g}"
            return f"shared={self.shared_embeddings}_{weights}_seed={self.seed}"
        names = self.learn if self.model == "dyadic" else self.label_names
        return f"{self.model}_{'_'.join(names)}_seed={self.seed}"

    def _fill_in_defaults(self) -> None:
        if self.model not in DEFAULTS:
            raise UserError(f"there is no model {self.model!r}: choose one of {', '.join(DEFAULTS)}")
        own = dict(DEFAULTS[self.model])
        if self.feedback is not None:
            own["negatives"] = 0
        if self.labels is not None and "," not in self.labels:
            own["calibrator"] = 0.0
        for name in sorted(BY_MODEL):
            if getattr(self, name) is None:
                setattr(self, name, own.get(name))
            elif name not in own:
                users = [model for model, options in DEFAULTS.items() if name in options]
                raise UserError(f"--{name} means nothing to --model {self.model}; it is for {', '.join(users)}")

    def _check_numbers(self) -> None:
        for name, (lowest, highest) in RANGES.items():
            value = getattr(self, name)
            for number in value if isinstance(value, list) else [value]:
                if number is not None and not lowest <= number <= highest:
                    raise UserError(f"--{name} must be at least {lowest} and at most {highest}, not {number}")
        if not 0 < self.lr < math.inf:
            raise UserError(f"--lr must be greater than 0, not {self.lr:g}")
        for name in ("weight_decay", "embedding_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"--{name} must be 0 or more, not {getattr(self, name):g}")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"--seed must lie between 0 and {2**32 - 1}, not {self.seed}")
        if not 0 < self.test_fraction < 1:
            raise UserError(f"--test_fraction must lie between 0 and 1, not {self.test_fraction:g}")
        if not 0 <= self.val_fraction < 1:
            raise UserError(f"--val_fraction must be at least 0 and less than 1, not {self.val_fraction:g}")

    def _check_combinations(self) -> None:
        for name in ("patience", "monitor"):
            if getattr(self, name) is not None and self.val_fraction == 0:
                raise UserError(
                    f"--{name} needs a validation part to watch, since nothing is chosen on the test set: "
                    "add --val_fraction 0.05"
                )
        if self.monitor is not None and self.monitor not in self.monitored:
            raise UserError(f"--monitor cannot be {self.monitor!r}; choose one of {', '.join(self.monitored)}")
        if (self.train_ratings is None) != (self.test_ratings is None):
            raise UserError("--train_ratings and --test_ratings go together")
        own = [name for name in ("ratings", "train_ratings", "feedback") if getattr(self, name) is not None]
        if len(own) > 1:
            raise UserError(f"--{own[0]} and --{own[1]} are two sources of data: give one or the other")
        if own and self.dataset != "auto":
            raise UserError(f"--dataset {self.dataset} and a file of your own (--{own[0]}) exclude each other")
        if self.simulated_size != list(SIMULATED_SIZE) and self.dataset != "simulated":
            raise UserError("--simulated_size is the size of the simulated set: add --dataset simulated")
        low, high = self.rating_scale
        if not -1e6 <= low < high <= 1e6:
            raise UserError(f"--rating_scale takes the lowest and then the highest rating, not {low:g} {high:g}")

    def _check_multitask(self) -> None:
        for name in ("factorization_weight", "regression_weight"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(
                    f"--{name} must be greater than 0, not {getattr(self, name):g}; to keep the tasks "
                    "from touching each other, use --no_shared_embeddings"
                )
        if self.negatives < 1:
            raise UserError("--negatives must be at least 1: the ranking loss compares a watched item with others")
        if self.mlp_sizes[0] != 3 * self.embedding_dim:
            raise UserError(
                f"--layer_sizes must begin with 3 * embedding_dim = {3 * self.embedding_dim}, the width of the user's "
                f"and the item's embedding and their product, not with {self.mlp_sizes[0]}"
            )
        if not 0 <= self.user_balance <= 1:
            raise UserError(f"--user_balance must lie between 0 and 1, not {self.user_balance:g}")
        if self.bpr != "softmax" and self.user_balance:
            raise UserError("--user_balance is for the softmax over all items: add --bpr softmax")
        if self.bpr == "softmax" and (self.negatives, self.negative_sampling) != (1, "uniform"):
            raise UserError(
                "--bpr softmax compares with all items and draws none: leave out --negatives and --negative_sampling"
            )
        if self.members > 1 and (len(self.mlp_sizes) > 1 or self.embedding_dim % self.members):
            raise UserError(
                f"--members {self.members} lie beside each other in one network: --embedding_dim must be a multiple of "
                "it, and --layer_sizes one number, 3 * embedding_dim, as only of linear functions the mean is another"
            )
        if self.denoisers > self.members:
            raise UserError(f"--denoisers {self.denoisers} are more than all --members, {self.members}")
        if self.denoisers and (self.bpr != "softmax" or not self.shared_embeddings):
            raise UserError(
                "--denoisers score all items by one pair of tables: add --bpr softmax, leave out --no_shared_embeddings"
            )
        if self.negative_sampling == "hardest" and self.negatives == 1:
            raise UserError(
                "--negative_sampling hardest takes the highest-scored of N items: add --negatives N with N of 2 or more"
            )

    def _check_zoo(self) -> None:
        names = self.label_names
        if len(set(names)) < len(names) or not all(name.strip() for name in names):
            raise UserError(f"--labels takes different names with commas between, not {self.labels!r}")
        if self.feedback is None and list(names) != [name for name in RATING_LABELS if name in names]:
            raise UserError(f"--labels of ratings are view,like or one of the two, not {self.labels!r}")
        if self.label_weights is not None and len(self.label_weights) != len(names):
            raise UserError(f"--label_weights takes {len(names)} numbers, one for each of {self.labels}")
        for weight in self.label_weights or []:
            if not 0 < weight < math.inf:
                raise UserError(f"--label_weights must be greater than 0, not {weight:g}; --labels leaves a label out")
        if self.calibrator and len(names) == 1:
            raise UserError("--calibrator compares a label with the one before it: --labels must name two or more")
        if not 0 <= self.calibrator < math.inf:
            raise UserError(f"--calibrator must be 0 or more, not {self.calibrator:g}")
        if not -1e6 <= self.like_from <= 1e6:
            raise UserError(f"--like_from must be a rating, not {self.like_from:g}")
        if self.chain in ("conditional", "none"):
            if self.model in CHAINED:
                raise UserError(f"--model {self.model} learns what follows one another: its --chain is joint")
            if self.calibrator:
                raise UserError(
                    f"--calibrator compares a label with the one before it: --chain {self.chain} rules it out"
                )
        if self.feedback is not None and (self.like_from, self.rating_scale) != (ZOO["like_from"], [0.5, 5.0]):
            raise UserError("--like_from and --rating_scale are about ratings; --feedback holds labels")
        if self.feedback is None and self.chain == "none":
            raise UserError("--chain none is for --feedback: what is liked in ratings was viewed")
        experts = [getattr(self, name) for name in ("task_experts", "shared_experts") if name in DEFAULTS[self.model]]
        fewest = 1 if self.model in ("stem", "adatt") else 0
        if experts and (sum(experts) == 0 or min(experts) < fewest):
            raise UserError(f"--model {self.model} needs more experts: --task_experts or --shared_experts is too small")
