"""The settings of a run: one dataclass, from which the flags of main.py and its config.json are made.

Imports nothing heavy, so that `python main.py --help` answers at once.
"""

import argparse
import difflib
import json
import math
import types
import typing
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import NoReturn

from download import MOVIELENS
from errors import UserError

SIMULATED_SIZE = (943, 1682, 100_000)  # users, items and ratings of MovieLens 100K

DATASETS = ("auto", *MOVIELENS, "simulated")
# Bounds against slips of the finger: above them memory or patience would end before the run.
HIGHEST = {
    "negatives": 10_000,
    "embedding_dim": 10_000,
    "layer_sizes": 100_000,
    "epochs": 10**6,
    "batch_size": 10**7,
    "patience": 10**6,
    "threads": 1024,
}
MONITORED = ("mrr", "mse", "first_hit_mrr", "hit_rate@10", "ndcg@10", "auc")
ASKING = {"logdir", "data_dir", "device"}
# What may change when a run is resumed; anything else would make it another run.
CHANGEABLE = {"epochs", "data_dir", "device", "threads", "quiet", "profile"}


def option(default, doc: str, group: str, **argument):
    """A field with what its flag needs: help text, group in --help, and further arguments of argparse."""
    make = {"default_factory": lambda: list(default)} if isinstance(default, list) else {"default": default}
    return field(**make, metadata={"help": doc, "group": group, "argument": argument})


@dataclass
class Settings:
    """All that decides what a run does. Defaults train well on a laptop without a GPU."""

    factorization_weight: float = option(0.99, "lambda_F, the weight of the ranking loss (BPR)", "tasks")
    regression_weight: float = option(0.01, "lambda_R, the weight of the rating loss (MSE)", "tasks")
    shared_embeddings: bool = option(True, "both tasks on one pair of embedding tables, or each on its own", "tasks")
    bpr: str = option(
        "sigmoid", "1 - sigmoid(x) as on the course sheet, or Rendle's -log sigmoid(x)", "tasks",
        choices=("sigmoid", "logsigmoid"),
    )  # fmt: skip
    negatives: int = option(1, "random items drawn for each watched one", "tasks", metavar="N")
    negative_sampling: str = option(
        "uniform", "from all items; from those the user has not seen; or the highest-scored of N unseen ones", "tasks",
        choices=("uniform", "unseen", "hardest"),
    )  # fmt: skip

    embedding_dim: int = option(32, "width d of the embeddings", "network", metavar="D")
    layer_sizes: list[int] | None = option(
        None, "input width of every dense layer of the rating MLP; the first must be 3 D (default: 3 D, 64)", "network",
        nargs="+", metavar="WIDTH",
    )  # fmt: skip

    epochs: int = option(100, "passes over the training ratings", "training")
    batch_size: int = option(256, "ratings in a step", "training")
    lr: float = option(5e-3, "step size of Adam", "training")
    weight_decay: float = option(0.0, "decoupled weight decay (AdamW)", "training")
    patience: int | None = option(
        None,
        "stop after this many epochs without a better --monitor on the validation part",
        "training",
        metavar="EPOCHS",
    )
    monitor: str | None = option(
        None, "validation metric that decides which epoch is best (default: mrr)", "training", choices=MONITORED
    )
    seed: int = option(0, "of the split, the first weights, the order of the ratings and the negatives", "training")
    device: str = option("auto", "where to compute", "training", choices=("auto", "cpu", "cuda", "mps"))
    # These networks are too small to share out: two threads gain nothing on an idle machine, and on a busy one they
    # wait for each other (an epoch of 0.45 s was seen to take 28 s).
    threads: int = option(1, "processor threads; more of them pay with large batches", "training", metavar="N")

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
    rating_scale: list[float] = option(
        [0.5, 5.0], "lowest and highest rating your own files may hold", "data", nargs=2, metavar=("LOW", "HIGH")
    )
    simulated_size: list[int] = option(
        list(SIMULATED_SIZE), "size of --dataset simulated", "data", nargs=3, metavar=("USERS", "ITEMS", "RATINGS")
    )
    test_fraction: float = option(0.05, "share of the ratings held out for the test", "data")
    val_fraction: float = option(0.0, "share of the training ratings held out to choose the best epoch", "data")

    logdir: str | None = option(
        None, "folder of the run (default: a new one under run/, named by the tasks)", "output", metavar="DIR"
    )
    quiet: bool = option(False, "no line per epoch, only the table at the end", "output")
    profile: bool = option(False, "print at the end where the time went", "output")

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_combinations()

    @property
    def weights(self) -> dict[str, float]:
        return {"factorization": self.factorization_weight, "regression": self.regression_weight}

    @property
    def mlp_sizes(self) -> list[int]:
        return self.layer_sizes or [3 * self.embedding_dim, 64]

    def _check_numbers(self) -> None:
        for name in ("factorization_weight", "regression_weight"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(
                    f"--{name} must be greater than 0, not {getattr(self, name):g}; to keep the tasks "
                    "from touching each other, use --no_shared_embeddings"
                )
        for name, highest in HIGHEST.items():
            value = getattr(self, name)
            for number in value if isinstance(value, list) else [value]:
                if number is not None and not 1 <= number <= highest:
                    raise UserError(f"--{name} must be at least 1 and at most {highest}, not {number}")
        if not 0 < self.lr < math.inf:
            raise UserError(f"--lr must be greater than 0, not {self.lr:g}")
        if not 0 <= self.weight_decay < math.inf:
            raise UserError(f"--weight_decay must be 0 or more, not {self.weight_decay:g}")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"--seed must lie between 0 and {2**32 - 1}, not {self.seed}")
        if not 0 < self.test_fraction < 1:
            raise UserError(f"--test_fraction must lie between 0 and 1, not {self.test_fraction:g}")
        if not 0 <= self.val_fraction < 1:
            raise UserError(f"--val_fraction must be at least 0 and less than 1, not {self.val_fraction:g}")

    def _check_combinations(self) -> None:
        if self.mlp_sizes[0] != 3 * self.embedding_dim:
            raise UserError(
                f"--layer_sizes must begin with 3 * embedding_dim = {3 * self.embedding_dim}, the width of the user's "
                f"and the item's embedding and their product, not with {self.mlp_sizes[0]}"
            )
        for name in ("patience", "monitor"):
            if getattr(self, name) is not None and self.val_fraction == 0:
                raise UserError(
                    f"--{name} needs a validation part to watch, since nothing is chosen on the test set: "
                    "add --val_fraction 0.05"
                )
        if self.negative_sampling == "hardest" and self.negatives == 1:
            raise UserError(
                "--negative_sampling hardest takes the highest-scored of N items: add --negatives N with N of 2 or more"
            )
        if (self.train_ratings is None) != (self.test_ratings is None):
            raise UserError("--train_ratings and --test_ratings go together")
        if self.ratings is not None and self.train_ratings is not None:
            raise UserError(
                "--ratings is split by the program, --train_ratings and --test_ratings are split already: "
                "give one or the other"
            )
        if (self.ratings is not None or self.train_ratings is not None) and self.dataset != "auto":
            raise UserError(f"--dataset {self.dataset} and a ratings file of your own exclude each other")
        if self.simulated_size != list(SIMULATED_SIZE) and self.dataset != "simulated":
            raise UserError("--simulated_size is the size of the simulated set: add --dataset simulated")
        low, high = self.rating_scale
        if not -1e6 <= low < high <= 1e6:
            raise UserError(f"--rating_scale takes the lowest and then the highest rating, not {low:g} {high:g}")


@dataclass
class Request:
    """A parsed command line: the settings, which of them were given as flags, and what else is asked for."""

    settings: Settings
    given: dict[str, object]
    resume: Path | None = None
    recommend: str | None = None
    as_json: bool = False


def parse(argv: list[str] | None = None) -> Request:
    """Read the command line.

    Raises:
        UserError: a value is out of range or the --config file is wrong. (argparse itself ends the program with code 2
            on an unknown flag or a wrong type.)
    """
    parser = _make_parser()
    given = vars(parser.parse_args(argv))
    actions = {name: given.pop(name) for name in ("resume", "recommend", "json", "config")}
    if actions["resume"] is not None and actions["recommend"] is not None:
        raise UserError("--resume goes on training and --recommend asks a trained run: give one of them")
    if actions["json"] and actions["recommend"] is None:
        raise UserError("--json prints the answer to --recommend USER, which is missing")
    for action in ("resume", "recommend"):
        if actions[action] is not None and actions["config"] is not None:
            raise UserError(f"--{action} takes the settings of its run: leave out --config")
    if actions["recommend"] is not None and (idle := set(given) - ASKING):
        raise UserError(
            f"--{min(idle)} means nothing to a trained run; --recommend takes --logdir, --data_dir and --device"
        )
    if actions["resume"] is not None and (fixed := set(given) - CHANGEABLE):
        changeable = ", ".join(f"--{name}" for name in sorted(CHANGEABLE))
        raise UserError(f"--{min(fixed)} cannot change in a resumed run; --resume takes only {changeable}")
    from_file = read_settings_file(Path(actions["config"])) if actions["config"] is not None else {}
    return Request(
        Settings(**from_file | given),
        given,
        Path(actions["resume"]) if actions["resume"] is not None else None,
        actions["recommend"],
        actions["json"],
    )


def read_settings_file(path: Path) -> dict[str, object]:
    """Settings from a JSON file: an object of flag names and values, or the config.json of a run.

    Raises:
        UserError: no such file, not JSON, an unknown name or a value of the wrong type.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    values = content.get("settings", content) if isinstance(content, dict) else content
    return checked(values, str(path))


def checked(values: object, source: str) -> dict[str, object]:
    """The values themselves, if they are settings by name and type.

    Raises:
        UserError: naming `source` and the first value that is wrong.
    """
    if not isinstance(values, dict):
        raise UserError(f"{source} should hold an object of flag names and values")
    kinds = typing.get_type_hints(Settings)
    for name, value in values.items():
        if name not in kinds:
            raise UserError(f"{source}: unknown setting {name!r}{_suggest(name, kinds)}")
        argument = Settings.__dataclass_fields__[name].metadata["argument"]
        count = argument.get("nargs")
        if not _fits(value, kinds[name]) or (isinstance(count, int) and len(value) != count):
            raise UserError(f"{source}: {name} cannot be {value!r}")
        choices = argument.get("choices")
        if choices and value is not None and value not in choices:
            raise UserError(f"{source}: {name} cannot be {value!r}; choose one of {', '.join(choices)}")
    return values


class _Parser(argparse.ArgumentParser):
    """argparse, but a mistake is answered by one sentence and not by the whole usage."""

    def error(self, message: str) -> NoReturn:
        unknown = message.partition("unrecognized arguments: ")[2].split()
        if unknown:
            message = f"unknown flag {unknown[0]}{_suggest(unknown[0].split('=')[0], self._option_string_actions)}"
        self.exit(2, f"{self.prog}: error: {message} (--help lists all flags)\n")


def _make_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="main.py",
        description="Train one network for two tasks: which movies a user watches, and what score they give.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=34, width=118),
        allow_abbrev=False,
    )
    names = dict.fromkeys(setting.metadata["group"] for setting in fields(Settings))
    groups = {name: parser.add_argument_group(name) for name in names}
    for setting in fields(Settings):
        _add_flag(groups[setting.metadata["group"]], setting)
    asked = parser.add_argument_group("other things to do")
    asked.add_argument("--resume", metavar="RUN", help="go on with the run in this folder, as if it had never stopped")
    asked.add_argument(
        "--recommend", metavar="USER", help="ten films for a user (raw id), from the run --logdir or the newest one"
    )
    asked.add_argument("--json", action="store_true", help="with --recommend: answer in JSON")
    asked.add_argument(
        "--config", metavar="FILE", help="settings from a JSON file, such as a run's config.json; flags win over it"
    )
    return parser


def _add_flag(group, setting) -> None:
    kind = typing.get_type_hints(Settings)[setting.name]
    text, argument = setting.metadata["help"], setting.metadata["argument"]
    default = setting.default_factory() if isinstance(setting.default_factory, types.FunctionType) else setting.default
    if kind is bool:
        group.add_argument(f"--{setting.name}", action="store_true", default=argparse.SUPPRESS, help=text)
        if default:
            group.add_argument(
                f"--no_{setting.name}", dest=setting.name, action="store_false", default=argparse.SUPPRESS,
                help=f"the opposite of --{setting.name}, which is the default",
            )  # fmt: skip
        return
    if default is not None:
        text += f" (default: {' '.join(map(str, default)) if isinstance(default, list) else default})"
    group.add_argument(f"--{setting.name}", type=_scalar_type(kind), default=argparse.SUPPRESS, help=text, **argument)


def _scalar_type(kind) -> type:
    """The type of one value: int for int, int | None, list[int] and list[int] | None."""
    while typing.get_args(kind):
        kind = typing.get_args(kind)[0]
    return kind


def _fits(value: object, kind) -> bool:
    if type(None) in typing.get_args(kind) and value is None:
        return True
    scalar = _scalar_type(kind)
    if "list" in str(kind):
        return isinstance(value, list) and len(value) > 0 and all(_fits(entry, scalar) for entry in value)
    if isinstance(value, bool) or scalar is bool:
        return isinstance(value, bool) and scalar is bool
    if isinstance(value, int) and abs(value) > 2**63:
        return False
    return isinstance(value, (int, float) if scalar is float else scalar)


def _suggest(name: str, known) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
