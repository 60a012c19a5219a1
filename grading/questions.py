"""The questions of the homework, and the parts of a check: the jobs that the worker runs, and the judge of its answer.

The worker (worker.py) runs the solution in a process of its own and returns numbers. A judge compares them with the
right ones in the grader's process, where no code of the solution runs.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

QUESTIONS = {
    "1a": "Embedding tables shared by both tasks",
    "1b": "Separate embedding tables for each task",
    "1c": "Item bias",
    "2": "Layers of the MLP",
    "3a": "Forward with shared tables",
    "3b": "Forward with separate tables",
    "3c": "The whole network",
}
# Users, items, embedding width, then the layer sizes. Equal widths reveal a layer that is used twice.
SIZES = [13, 19, 8, 24, 10, 6, 6, 6]
TOLERANCE = 1e-4  # single against double precision, for numbers of about 1 to 10


MLP_HINT = "the layers are not those of question 2: correct init_mlp_layers first"
CAUSES = {"1": "correct question 1 first: the tables have other shapes", "2": MLP_HINT}  # hints, by earlier question


@dataclass(frozen=True)
class Problem:
    """What a check found wrong: what was expected, what the solution gave, and a hint ("" for none)."""

    expected: str
    got: str
    hint: str = ""


Problems = Iterator[Problem]


@dataclass(frozen=True)
class Check:
    """One check.

    id: question-number-kind, such as 1a-0-basic; students see the kind "hidden" only after handing in.
    sentence: what is checked.
    jobs: sent to the worker, which runs them one after another in the same process; see grading/jobs.py.
    judge: takes the results of the jobs; yields what is wrong, nothing for a right solution.
    seconds: time limit.
    trains: the check trains a network, and --fast skips it.
    """

    id: str
    sentence: str
    jobs: list[dict]
    judge: Callable[[list[dict]], Problems]
    seconds: float = 30.0
    points: int = 1
    trains: bool = False

    @property
    def question(self) -> str:
        return self.id.split("-")[0]

    @property
    def hidden(self) -> bool:
        return self.id.endswith("hidden")


def judge_layers(found: list[str], layer_sizes: list[int], expected: str) -> Problems:
    """Compare layers as the job "build_mlp" describes them with the right ones."""
    got = ", ".join(found)
    if got != expected:
        hint = "layer_sizes lists the input width of every dense layer; which of them is followed by a ReLU?"
        yield Problem(f"for layer_sizes={layer_sizes}: {expected}", got or "no layers", hint)


def are_near(got: object, right: np.ndarray) -> np.ndarray:
    """Which numbers are right: (n,) booleans; all False if there are not n numbers."""
    values = np.array(got, dtype=np.float64)
    if values.size != right.size:
        return np.zeros(right.size, dtype=bool)
    return np.abs(values.ravel() - right.ravel()) <= TOLERANCE * (1 + np.abs(right.ravel()))


def judge_values(name: str, got: object, right: np.ndarray, hint: str) -> Problems:
    """At most one problem: the first number that differs, and how many do."""
    near = are_near(got, right)
    if near.all():
        return
    values = np.array(got, dtype=np.float64).ravel()
    if values.size != right.size:
        yield Problem(f"{right.size} numbers ({name})", str(values.size), hint)
        return
    first = int((~near).argmax())
    wrong = f"{values[first]:.5f}; {(~near).sum()} of {near.size} numbers differ"
    yield Problem(f"{right.ravel()[first]:.5f} ({name})", wrong, hint)


def flat(weights: dict) -> dict[str, list]:
    """Weights in the nested form of reference.py as lists by the names of the worker."""
    tables = {name: values.tolist() for name, values in weights.items() if name != "mlp"}
    for number, (weight, bias) in enumerate(weights["mlp"]):
        tables |= {f"mlp.{number}.weight": weight.tolist(), f"mlp.{number}.bias": bias.tolist()}
    return tables
