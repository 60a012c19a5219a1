"""What every run has (RunConfig), how data are split (SplitConfig), and what gradient descent adds (GradientConfig).

A config is a frozen dataclass. Each field is made by `option`, which holds all that the command line, config.json and
resuming need to know of it. Imports the standard library alone, so that `python main.py --help` answers at once, also
before the requirements are installed.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from config.errors import UserError
from config.text import require_text

LARGEST_SEED = 2**32 - 1
SPLITS = ("random", "time", "leave_last")  # see sources/splits.py
ROLES = ("user", "item", "rating", "time")  # of the columns of a file


@dataclass(frozen=True)
class Option:
    """What is known of a field beside its default.

    doc: the help text.
    group: its heading in the help.
    choices: the values it may have; () for any.
    low, high: its range, both included; high mostly stops typing errors that memory or patience would not survive.
    above: its values must be greater than this.
    affects_result: False where two runs that differ in it alone end with the same figures.
    resumable: it may change when a run is resumed.
    metavar: its placeholder in the help; a tuple where it takes several values.
    """

    doc: str
    group: str
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    above: float | None = None
    affects_result: bool = True
    resumable: bool = False
    metavar: str | tuple[str, ...] | None = None


def option(default: Any, doc: str, group: str, **details: Any) -> Any:
    """A field of a config; `details` are the further fields of Option."""
    return dataclasses.field(default=default, metadata={"option": Option(doc, group, **details)})


def redefine(base: type, name: str, default: Any, **details: Any) -> Any:
    """The field `name` of a base class with another default, and with other details where given."""
    known: Option = {field.name: field for field in dataclasses.fields(base)}[name].metadata["option"]
    return dataclasses.field(default=default, metadata={"option": dataclasses.replace(known, **details)})


@dataclass(frozen=True)
class Options:
    """A set of checked fields; every config, and every part of one, is such a set."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_value(field.name, getattr(self, field.name), field.metadata["option"])
        self.check()

    def check(self) -> None:
        """Check what depends on several fields. A subclass extends it and calls super().check().

        Raises:
            UserError: with the flags that contradict each other and what to do.
        """


@dataclass(frozen=True)
class RunConfig(Options):
    """The settings that every run has."""

    model: ClassVar[str]  # the value of --model
    summary: ClassVar[str]  # one line for the list of models in the help
    # What runs of this model are compared by: HPARAMS of TensorBoard shows these also where they have their defaults.
    compared_settings: ClassVar[tuple[str, ...]] = ("model", "seed")

    epochs: int = option(20, "passes over the training part", "training", low=1, high=10**6, resumable=True)
    seed: int = option(0, "seed of split, weights, order and negatives", "training", low=0, high=LARGEST_SEED)
    start_from: str | None = option(None, "begin with the weights of an older run", "training", metavar="RUN")
    device: str = option(
        "auto", "auto, cpu, cuda or mps", "training", choices=("auto", "cpu", "cuda", "mps"), affects_result=False,
        resumable=True, metavar="DEVICE",
    )  # fmt: skip
    # One thread by default: the networks are so small that a second thread gains nothing on an idle machine, and on a
    # busy one the threads wait for each other (an epoch of 0.45 s was seen to take 28 s).
    threads: int = option(
        1, "CPU threads", "training", low=1, high=1024, metavar="N",
        affects_result=False, resumable=True,
    )  # fmt: skip

    dataset: str = option(
        "auto", "data set; auto: MovieLens 100K, or simulated where it is out of reach", "data", metavar="NAME"
    )
    data_dir: str | None = option(
        None, "folder of data sets (else $MOVIELENS_DIR, else data)", "data", metavar="DIR",
        affects_result=False, resumable=True,
    )  # fmt: skip
    ratings: str | None = option(None, "your own file: user, item, rating[, timestamp]", "data", metavar="FILE")
    train_ratings: str | None = option(None, "a ready split: the training file", "data", metavar="FILE")
    test_ratings: str | None = option(None, "a ready split: the test file", "data", metavar="FILE")
    columns: str | None = option(
        None, "names in your header: user=NAME,item=NAME,time=NAME", "data", metavar="ROLE=NAME"
    )
    rating_scale: tuple[float, float] = option(
        (0.5, 5.0), "range of ratings in your own files", "data", metavar=("LOW", "HIGH"),
        low=-1e6, high=1e6,
    )  # fmt: skip
    simulated_size: tuple[int, int, int] = option(
        (943, 1682, 100_000), "size of simulated data", "data", metavar=("USERS", "ITEMS", "RATINGS")
    )

    logdir: str | None = option(
        None, "run folder (default: a new one under run)", "output", metavar="DIR", affects_result=False
    )
    quiet: bool = option(False, "print only the final table", "output", affects_result=False, resumable=True)
    profile: bool = option(
        False, "print where the time went at the end", "output", affects_result=False, resumable=True
    )
    traceback: bool = option(
        False, "print the whole traceback of an error in models.py", "output", affects_result=False, resumable=True
    )

    def check(self) -> None:
        super().check()
        self._check_sources()
        self._check_columns()

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """The config with these values; what is not given has its default, which may depend on what is given.

        Raises:
            UserError: a value is out of range, or two contradict each other.
        """
        return cls(**{**cls.dependent_defaults(values), **values})

    @classmethod
    def dependent_defaults(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Defaults that differ from those of the fields because of other given values."""
        return {}

    def to_dict(self) -> dict[str, Any]:
        """{"model": its name} and every field, as JSON can hold them."""
        values = dataclasses.asdict(self)
        return {"model": self.model} | {
            name: list(value) if isinstance(value, tuple) else value for name, value in values.items()
        }

    def resumed_with(self, changes: Mapping[str, Any], run: object) -> Self:
        """The config of a resumed run with these fields changed; `run` is its folder, for messages.

        Raises:
            UserError: a change would make the rest of the run differ from an uninterrupted one.
        """
        return dataclasses.replace(self, **changes)

    @property
    def run_name(self) -> str:
        """Name of the run folder under run/."""
        return f"{self.model}_seed={self.seed}"

    @property
    def architecture(self) -> dict[str, Any]:
        """The settings that must be equal for --start_from, beside --model: {field: value}."""
        return {}

    @property
    def divergence_advice(self) -> str:
        """What to try where training ends in numbers that are not finite."""
        return "check the ratings for extreme values"

    @property
    def own_files(self) -> dict[str, str]:
        """The user's own data files: {field: path}."""
        named = {name: getattr(self, name) for name in self.file_fields()}
        return {name: path for name, path in named.items() if path is not None}

    @property
    def data_name(self) -> str:
        """The user's own file, or the data set: for captions."""
        return next(iter(self.own_files.values()), self.dataset)

    @classmethod
    def file_fields(cls) -> tuple[str, ...]:
        """The fields that name a data file of the user."""
        return ("ratings", "train_ratings", "test_ratings")

    @property
    def data_options(self) -> dict[str, Any]:
        """Arguments of dataset.load."""
        names = ("dataset", "data_dir", "ratings", "train_ratings", "test_ratings", "rating_scale", "simulated_size")
        return {name: getattr(self, name) for name in (*names, "seed")} | {"columns": self.column_names}

    @property
    def column_names(self) -> dict[str, str]:
        """What --columns says: {role: name in the header}."""
        entries = self.columns.split(",") if self.columns is not None else []
        return {role.strip(): name.strip() for role, _, name in (entry.partition("=") for entry in entries)}

    def _check_sources(self) -> None:
        if (self.train_ratings is None) != (self.test_ratings is None):
            raise UserError("--train_ratings and --test_ratings go together")
        own = [name for name in self.own_files if name != "test_ratings"]
        if len(own) > 1:
            raise UserError(f"--{own[0]} and --{own[1]} are two sources of data: give one or the other")
        if own and self.dataset != "auto":
            raise UserError(f"--dataset {self.dataset} and a file of your own (--{own[0]}) exclude each other")
        if self.simulated_size != RunConfig.simulated_size and self.dataset != "simulated":
            raise UserError("--simulated_size is the size of the simulated set: add --dataset simulated")
        if own and self.data_dir is not None:
            raise UserError(f"--data_dir is the folder of the named data sets: leave it out, or leave out --{own[0]}")
        low, high = self.rating_scale
        if not low < high:
            raise UserError(f"--rating_scale takes the lowest and then the highest rating, not {low:g} {high:g}")
        if self.rating_scale != RunConfig.rating_scale and self.ratings is None and self.train_ratings is None:
            raise UserError("--rating_scale is the scale of your own files: add --ratings FILE")

    def _check_columns(self) -> None:
        if self.columns is None:
            return
        names = self.column_names
        is_proper = len(names) == self.columns.count(",") + 1 == len(set(names.values())) and all(names.values())
        if not is_proper or not set(names) <= set(ROLES):
            raise UserError(
                f"--columns takes ROLE=NAME,ROLE=NAME with different names and the roles {', '.join(ROLES)}, "
                f"not {self.columns!r}"
            )
        if not self.own_files:
            raise UserError("--columns names the columns of your own files: add --ratings FILE")
        if "feedback" in self.own_files and "rating" in names:
            raise UserError("--columns rating=NAME does not apply to --feedback, whose columns --labels names")


@dataclass(frozen=True)
class SplitConfig(RunConfig):
    """Settings of runs whose data are split in one of the ways of sources/splits.py: all but the dyadic learner."""

    test_fraction: float = option(0.05, "fraction of the rows held out for the test", "data")
    val_fraction: float = option(
        0.0, "fraction of the other rows held out and measured after every epoch, to compare settings by; it chooses "
        "no epoch. With --split leave_last, above 0: each user's last row but one", "data",
    )  # fmt: skip
    split: str = option(
        "random", "test rows are random; the last ones by time; or each user's last one by time", "data",
        choices=SPLITS,
    )  # fmt: skip
    fold: tuple[int, int] | None = option(
        None, "cross-validation: test on part K of N equal random parts", "data", metavar=("K", "N"), low=1, high=1000
    )
    min_user_ratings: int = option(1, "keep users with at least K rows", "data", metavar="K", low=1, high=10**9)
    min_item_ratings: int = option(
        1, "keep items with at least K rows; repeated with the users until both hold", "data", metavar="K",
        low=1, high=10**9,
    )  # fmt: skip

    @property
    def data_options(self) -> dict[str, Any]:
        names = ("test_fraction", "val_fraction", "split", "fold", "min_user_ratings", "min_item_ratings")
        return super().data_options | {name: getattr(self, name) for name in names}

    def check(self) -> None:
        super().check()
        if not 0 < self.test_fraction < 1:
            raise UserError(f"--test_fraction must lie between 0 and 1, not {self.test_fraction:g}")
        if not 0 <= self.val_fraction < 1:
            raise UserError(f"--val_fraction must be at least 0 and less than 1, not {self.val_fraction:g}")
        if self.dataset == "simulated-xing":
            raise UserError("--dataset simulated-xing holds clicks, bookmarks and replies: it is for --model dyadic")
        self._check_split()

    def _check_split(self) -> None:
        def reject(names: Sequence[str], reason: str) -> None:
            for name in names:
                if getattr(self, name) != getattr(type(self), name):
                    raise UserError(f"--{name} does not apply to {reason}")

        if self.train_ratings is not None:
            names = ("test_fraction", "split", "fold", "min_user_ratings", "min_item_ratings")
            reject(names, "a ready split: leave it out, or give --ratings")
        if self.split != "random" and self.dataset == "simulated":
            reject(["split"], "the simulated set, which has no timestamps: leave it out, or choose another --dataset")
        if self.split == "leave_last":
            reject(["test_fraction"], "--split leave_last, which tests on one row of each user: leave it out")
        if self.fold is not None:
            number, folds = self.fold
            if not 1 <= number <= folds or folds < 2:
                raise UserError(f"--fold takes K and N, with K from 1 to N and N at least 2, not {number} {folds}")
            reject(["split"], "--fold, whose parts are random: leave out one of the two")
            reject(["test_fraction"], "--fold, which tests on one of N equal parts: leave it out")


@dataclass(frozen=True)
class GradientConfig(SplitConfig):
    """Settings of runs that train by AdamW on batches: the multi-task net and the zoo."""

    batch_size: int = option(256, "rows in a step", "training", low=1, high=10**7)
    lr: float = option(5e-3, "learning rate of Adam", "training", above=0)
    weight_decay: float = option(0.0, "decoupled weight decay (AdamW)", "training", low=0)
    embedding_decay: float = option(
        0.0, "further weight decay for the embeddings alone, not for layers and biases", "training", low=0
    )
    schedule: str = option(
        "constant", "learning rate over time: constant, or falling to 0 along a cosine", "training",
        choices=("constant", "cosine"),
    )  # fmt: skip
    weighting: str = option(
        "fixed", "the given weights, or a method that also balances the tasks during training", "training"
    )
    negatives: int = option(1, "random items drawn for each watched one", "training", low=0, high=10_000, metavar="N")
    patience: int | None = option(
        None, "stop after this many epochs without a better --monitor on the validation part", "training",
        low=1, high=10**6, metavar="EPOCHS", resumable=True,
    )  # fmt: skip
    monitor: str | None = option(
        None, "validation metric that chooses the best epoch (default: mrr; zoo: auc)", "training", metavar="METRIC"
    )
    embedding_dim: int = option(32, "width d of the embeddings", "network", low=1, high=10_000, metavar="D")
    val_fraction: float = redefine(
        SplitConfig, "val_fraction", 0.0,
        doc="fraction of the other rows held out to choose the best epoch; with --split leave_last, above 0: each "
        "user's last row but one",
    )  # fmt: skip

    @property
    def divergence_advice(self) -> str:
        return f"lower --lr (now {self.lr:g})"

    @property
    def weights(self) -> dict[str, float]:
        """The lambda of every loss by its name."""
        raise NotImplementedError

    def check(self) -> None:
        super().check()
        for name in ("patience", "monitor"):
            if getattr(self, name) is not None and self.val_fraction == 0:
                raise UserError(
                    f"--{name} needs a validation part, as nothing is chosen on the test set: add --val_fraction 0.05"
                )

    def resumed_with(self, changes: Mapping[str, Any], run: object) -> Self:
        if self.schedule == "cosine" and changes.get("epochs", self.epochs) != self.epochs:
            raise UserError(
                f"{run} has --schedule cosine, which ends with its last epoch: it keeps --epochs {self.epochs}"
            )
        return super().resumed_with(changes, run)


def _check_value(name: str, value: Any, known: Option) -> None:
    """Raises UserError where a value, or one of several, is out of the range or not among the choices of its field."""
    for entry in value if isinstance(value, tuple) else (value,):
        if entry is None or isinstance(entry, bool):
            continue
        if known.choices and entry not in known.choices:
            raise UserError(f"--{name} cannot be {entry!r}: choose one of {', '.join(known.choices)}")
        if isinstance(entry, str):
            require_text(entry, f"--{name}")
            continue
        if known.high is not None and not (known.low or 0) <= entry <= known.high:
            raise UserError(f"--{name} must be at least {known.low or 0} and at most {known.high}, not {entry}")
        if known.low is not None and not known.low <= entry < math.inf:
            raise UserError(f"--{name} must be {known.low:g} or more, not {entry:g}")
        if known.above is not None and not known.above < entry < math.inf:
            raise UserError(f"--{name} must be greater than {known.above:g}, not {entry:g}")
