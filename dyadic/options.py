"""What the updates do, and single-task learning by the same updates."""

import math
from dataclasses import dataclass, replace

from config.dyadic import CHOICES
from config.errors import UserError

TASKS = ("click", "bookmark", "reply", "embedding")
LIMITED = {"emb_grad": CHOICES["emb_grad"], "init": CHOICES["init"], "stop": CHOICES["stop_rule"]}
SINGLE_TASK_READINGS = ("features", "private")
HIGHEST_BATCH_STEP = 2.0  # of eta * batch: beyond it a batch no longer resembles its steps


@dataclass(frozen=True)
class LearnerOptions:
    """What the updates do. Defaults train well on MovieLens 100K.

    eta: step size.
    lam: lambda_1 to lambda_4, the weights of the squared norms; the fourth goes for embeddings.
    class_weights: of a bookmark and of a reply; what is none weighs 1. Weigh loss and gradient alike.
    d: width of the embeddings; 0: no embeddings, and no fourth task.
    iterations: N; "formula" as the paper has it, |U'| min|I+| min|I-|; "auto": that, or the training dyads if more.
    batch: 1 is Algorithm 1 exactly; B > 1 sums the gradients of B triples, which equals B steps up to (eta B) ** 2.
    max_epochs, eps, stop: end when no task's loss ("max", the paper's Remark 3), or when the total loss ("total", the
        authors' code) moves by more than eps between two epochs.
    fixed_triples: how many triples that loss is measured on: always the same, for the noise of fresh ones exceeds eps.
    emb_grad: the gradient of all tasks reaches U and I ("full", the paper), or that of the fourth alone ("emb_only",
        the authors' code).
    init: w = 0 and U, I normal ("zero"), all normal ("normal"), or all uniform in [0, 1) ("uniform", the authors).
    tasks: the tasks that are learnt; a single one makes single-task learning.

    Raises:
        UserError: a value is unknown or out of range, or eta * batch > 2.
    """

    eta: float = 1e-2
    lam: tuple[float, float, float, float] = (1e-2,) * 4
    class_weights: tuple[float, float] = (1.0, 1.0)
    d: int = 30
    iterations: int | str = 50_000
    batch: int = 1
    max_epochs: int = 20
    eps: float = 1e-3
    stop: str = "max"
    fixed_triples: int = 20_000
    emb_grad: str = "full"
    init: str = "zero"
    tasks: tuple[str, ...] = TASKS
    seed: int = 0

    def __post_init__(self) -> None:
        for name, choices in LIMITED.items():
            if getattr(self, name) not in choices:
                raise UserError(f"unknown {name} {getattr(self, name)!r}: choose one of {', '.join(choices)}")
        if not self.tasks or not set(self.tasks) <= set(TASKS):
            raise UserError(f"unknown tasks {self.tasks}: choose among {', '.join(TASKS)}")
        if len(self.lam) != 4 or len(self.class_weights) != 2:
            raise UserError(
                f"lam takes 4 numbers and class_weights 2, not {len(self.lam)} and {len(self.class_weights)}"
            )
        for name, value, low in [
            ("eta", self.eta, None),
            *(("lam", value, 0) for value in self.lam),
            *(("class_weights", value, None) for value in self.class_weights),
            ("eps", self.eps, 0),
        ]:
            if not math.isfinite(value) or value < 0 or (low is None and value == 0):
                raise UserError(f"{name} must be a {'positive' if low is None else 'non-negative'} number, not {value}")
        for name, low in [("d", 0), ("batch", 1), ("max_epochs", 1), ("fixed_triples", 1), ("seed", 0)]:
            if getattr(self, name) < low:
                raise UserError(f"{name} must be at least {low}, not {getattr(self, name)}")
        if self.iterations not in ("auto", "formula") and not (type(self.iterations) is int and self.iterations > 0):
            raise UserError(f"iterations must be a positive number, auto or formula, not {self.iterations!r}")
        if not self.active:
            raise UserError("without embeddings (d = 0) there is no embedding task: learn another one or set d")
        if self.eta * self.batch > HIGHEST_BATCH_STEP:
            raise UserError(
                f"eta * batch = {self.eta * self.batch:g} exceeds {HIGHEST_BATCH_STEP:g}: a batch would no longer "
                "resemble its single steps and may diverge; lower --lr or --batch_size"
            )

    @property
    def active(self) -> tuple[str, ...]:
        """The tasks that are learnt, in the order of TASKS; no embeddings, no embedding task."""
        return tuple(task for task in TASKS if task in self.tasks and (task != "embedding" or self.d))


def single_task(options: LearnerOptions, reading: str) -> dict[str, LearnerOptions]:
    """Options of the separate runs that make up single-task learning, by task.

    "features": clicks, bookmarks and replies from statistics and context alone, the embeddings apart (the authors'
    code, where the comparison is confounded by having embeddings or not). "private": the same network as for many
    tasks, once for each, trained by that task's loss alone.

    Raises:
        UserError: the reading is unknown, or private embeddings would never be trained.
    """
    if reading not in SINGLE_TASK_READINGS:
        raise UserError(f"unknown reading {reading!r}: choose one of {', '.join(SINGLE_TASK_READINGS)}")
    if reading == "private" and options.emb_grad == "emb_only":
        raise UserError("private embeddings need emb_grad=full: no other gradient reaches them; or choose features")
    width = {task: 0 if reading == "features" and task != "embedding" else options.d for task in options.active}
    return {task: replace(options, tasks=(task,), d=width[task]) for task in options.active}
