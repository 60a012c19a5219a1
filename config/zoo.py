"""The settings of the networks of the zoo: a small class per network, which adds what that network has."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from config.base import GradientConfig, option, redefine
from config.errors import UserError

RATING_LABELS = ("view", "like")  # what a rating says: it was given, and it was high
LABELS, NETWORK = "labels of the zoo", "network"


@dataclass(frozen=True)
class ZooConfig(GradientConfig):
    """What all networks of the zoo have: labels, the loss of each, and towers."""

    # True for networks that only make sense for labels that follow one another.
    requires_chain: ClassVar[bool] = False

    labels: str = option(
        "view,like", "labels to learn, in the order of the chain; of ratings: view (rated), like (rated high)", LABELS,
        metavar="NAME[,NAME...]",
    )  # fmt: skip
    label_weights: tuple[float, ...] = option(
        (), "weight of each label's loss (default: 1 each)", LABELS, metavar="WEIGHT", above=0
    )
    like_from: float = option(4.0, "lowest rating that is a like", LABELS, metavar="RATING", low=-1e6, high=1e6)
    chain: str = option(
        "auto", "a later label is learned jointly with all before it, on all rows; given the one before it, on the "
        "rows where that is 1; or none: independently (auto: joint where the data form a chain, else none)", LABELS,
        choices=("auto", "joint", "conditional", "none"),
    )  # fmt: skip
    mend_chain: bool = option(
        False, "set each label of --feedback to 1 where a later one is 1: who buys has clicked", LABELS
    )
    calibrator: float = option(
        0.0, "weight of AITM's penalty on a later label that is more likely than the one before it", LABELS,
        metavar="ALPHA", low=0,
    )  # fmt: skip
    feedback: str | None = option(
        None, "your own file of 0/1 labels: a header naming user, item and the --labels", "data", metavar="FILE"
    )

    batch_size: int = redefine(GradientConfig, "batch_size", 4096)
    lr: float = redefine(GradientConfig, "lr", 5e-3)
    negatives: int = redefine(
        GradientConfig, "negatives", 4,
        doc="random items drawn for each watched one; 0, the default with --feedback, takes that file as it is",
    )  # fmt: skip
    test_fraction: float = redefine(GradientConfig, "test_fraction", 0.1)
    val_fraction: float = redefine(GradientConfig, "val_fraction", 1 / 9)
    tower_units: tuple[int, ...] = option(
        (32,), "widths of the hidden layers of a task's tower", NETWORK, metavar="WIDTH", low=1, high=100_000
    )

    @classmethod
    def dependent_defaults(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        changed: dict[str, Any] = {} if values.get("feedback") is None else {"negatives": 0}
        if "," not in values.get("labels", cls.labels):
            changed["calibrator"] = 0.0  # it compares a label with the one before it
        return changed

    @classmethod
    def file_fields(cls) -> tuple[str, ...]:
        return (*super().file_fields(), "feedback")

    @classmethod
    def network_fields(cls) -> tuple[str, ...]:
        """The fields that are arguments of the network's constructor, as they are called there."""
        names = ("experts", "task_experts", "shared_experts", "levels", "expert_units", "tower_units")
        return ("embedding_dim", *(name for name in names if name in cls.__dataclass_fields__))

    @property
    def architecture(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in (*self.network_fields(), "labels")}

    def with_last_labels(self, count: int) -> Self:
        """The config that learns only the last of its labels, without what takes two of them where one is left."""
        if count == len(self.label_names):
            return self
        changes: dict[str, Any] = {"labels": ",".join(self.label_names[-count:])}
        changes["label_weights"] = self.label_weights[-count:]
        if count == 1:
            changes |= {"calibrator": 0.0, "mend_chain": False}
        return replace(self, **changes)

    @property
    def label_names(self) -> tuple[str, ...]:
        return tuple(self.labels.split(","))

    @property
    def weights(self) -> dict[str, float]:
        weights = dict(zip(self.label_names, self.label_weights or [1.0] * len(self.label_names), strict=True))
        return weights | ({"calibrator": self.calibrator} if self.calibrator else {})

    @property
    def needs_chain(self) -> bool:
        """True where no label may be 1 in a row where the one before it is 0."""
        return self.requires_chain or self.chain in ("joint", "conditional") or bool(self.calibrator)

    @property
    def data_options(self) -> dict[str, Any]:
        options = super().data_options
        return options if self.feedback is None else options | {"feedback": self.feedback, "labels": self.label_names}

    @property
    def run_name(self) -> str:
        return f"{self.model}_{'_'.join(self.label_names)}_seed={self.seed}"

    def check(self) -> None:
        super().check()
        self._check_labels()
        self._check_chain()

    def _check_labels(self) -> None:
        names = self.label_names
        if len(set(names)) < len(names) or not all(name.strip() for name in names):
            raise UserError(f"--labels takes different names with commas between, not {self.labels!r}")
        if self.feedback is None and list(names) != [name for name in RATING_LABELS if name in names]:
            raise UserError(f"--labels of ratings are view,like or one of the two, not {self.labels!r}")
        if self.label_weights and len(self.label_weights) != len(names):
            raise UserError(f"--label_weights takes {len(names)} numbers, one for each of {self.labels}")
        if self.feedback is not None and self.like_from != ZooConfig.like_from:
            raise UserError("--like_from is about ratings; --feedback holds labels")

    def _check_chain(self) -> None:
        if self.mend_chain and self.feedback is None:
            raise UserError("--mend_chain is for --feedback: what is liked in ratings was viewed")
        if self.mend_chain and len(self.label_names) == 1:
            raise UserError("--mend_chain sets a label by a later one: --labels must name two or more")
        if self.calibrator and len(self.label_names) == 1:
            raise UserError("--calibrator compares a label with the one before it: --labels must name two or more")
        if self.chain in ("conditional", "none"):
            if self.requires_chain:
                raise UserError(f"--model {self.model} learns labels that follow one another: its --chain is joint")
            if self.calibrator:
                raise UserError(
                    f"--calibrator compares a label with the one before it: --chain {self.chain} rules it out"
                )
        if self.feedback is None and self.chain == "none":
            raise UserError("--chain none is for --feedback: what is liked in ratings was viewed")


@dataclass(frozen=True)
class BottomConfig(ZooConfig):
    """A network with dense layers below its towers."""

    expert_units: tuple[int, ...] = option(
        (64,), "widths of the dense layers of an expert, or of the bottom where there are no experts", NETWORK,
        metavar="WIDTH", low=1, high=100_000,
    )  # fmt: skip


@dataclass(frozen=True)
class SingleTaskConfig(BottomConfig):
    model: ClassVar[str] = "single"
    summary: ClassVar[str] = "a network per label, nothing shared"


@dataclass(frozen=True)
class SharedBottomConfig(BottomConfig):
    model: ClassVar[str] = "shared_bottom"
    summary: ClassVar[str] = "embeddings and one MLP shared (Caruana 1997)"


@dataclass(frozen=True)
class OMoEConfig(BottomConfig):
    model: ClassVar[str] = "omoe"
    summary: ClassVar[str] = "experts mixed by one gate (Jacobs et al. 1991)"

    experts: int = option(8, "experts that all tasks share", NETWORK, metavar="E", low=1, high=10_000)


@dataclass(frozen=True)
class MMoEConfig(OMoEConfig):
    model: ClassVar[str] = "mmoe"
    summary: ClassVar[str] = "experts mixed by a gate per label (Ma et al. 2018)"


@dataclass(frozen=True)
class CGCConfig(BottomConfig):
    model: ClassVar[str] = "cgc"
    summary: ClassVar[str] = "shared experts beside each label's own (Tang et al. 2020)"

    task_experts: int = option(4, "experts of each task", NETWORK, metavar="M", low=0, high=10_000)
    shared_experts: int = option(4, "experts beside those of the tasks", NETWORK, metavar="S", low=0, high=10_000)

    def check(self) -> None:
        super().check()
        if self.task_experts + self.shared_experts == 0:
            raise UserError(f"--model {self.model} needs an expert: raise --task_experts or --shared_experts")


@dataclass(frozen=True)
class PLEConfig(CGCConfig):
    model: ClassVar[str] = "ple"
    summary: ClassVar[str] = "CGC in levels (Tang et al. 2020)"

    levels: int = option(2, "levels of experts, one above the other", NETWORK, metavar="L", low=1, high=100)


@dataclass(frozen=True)
class MEMMoEConfig(MMoEConfig):
    model: ClassVar[str] = "me_mmoe"
    summary: ClassVar[str] = "MMoE with embeddings per label (after Su et al. 2024)"


@dataclass(frozen=True)
class MEPLEConfig(PLEConfig):
    model: ClassVar[str] = "me_ple"
    summary: ClassVar[str] = "PLE with embeddings per label (after Su et al. 2024)"


@dataclass(frozen=True)
class ESMMConfig(ZooConfig):
    model: ClassVar[str] = "esmm"
    summary: ClassVar[str] = "P(like) = P(view) P(like given view) (Ma et al. 2018)"
    requires_chain: ClassVar[bool] = True

    tower_units: tuple[int, ...] = redefine(ZooConfig, "tower_units", (64, 32))


@dataclass(frozen=True)
class AITMConfig(BottomConfig):
    model: ClassVar[str] = "aitm"
    summary: ClassVar[str] = "each label hands its representation on (Xi et al. 2021)"
    requires_chain: ClassVar[bool] = True

    calibrator: float = redefine(ZooConfig, "calibrator", 0.6)


@dataclass(frozen=True)
class STEMConfig(CGCConfig):
    model: ClassVar[str] = "stem"
    summary: ClassVar[str] = "shared and own embeddings and experts (Su et al. 2024)"

    task_experts: int = redefine(CGCConfig, "task_experts", 1, low=1)
    shared_experts: int = redefine(CGCConfig, "shared_experts", 8, low=1)


@dataclass(frozen=True)
class AdaTTConfig(BottomConfig):
    model: ClassVar[str] = "adatt"
    summary: ClassVar[str] = "each label reads all experts and keeps its own (Li et al. 2023)"

    task_experts: int = redefine(CGCConfig, "task_experts", 2, low=1)
    levels: int = redefine(PLEConfig, "levels", 2)


CONFIGS: tuple[type[ZooConfig], ...] = (
    SingleTaskConfig, SharedBottomConfig, OMoEConfig, MMoEConfig, CGCConfig, PLEConfig, MEMMoEConfig, MEPLEConfig,
    ESMMConfig, AITMConfig, STEMConfig, AdaTTConfig,
)  # fmt: skip
