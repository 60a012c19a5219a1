"""Write examples.json, the worked examples of question 3: weights, batches and the right outputs.

    python -m grading.examples

Students get the file in place of the reference that computes it. tests/grading/test_checks.py checks that they match.
"""

import json

import numpy as np

from grading import reference
from grading.public_checks import EXAMPLES
from grading.questions import SIZES, flat

SEED = 20231


def make_examples() -> list[dict]:
    """For shared and then for separate tables: the weights, and the outputs of eqs. (1) and (4) on some batches."""
    random = np.random.default_rng(SEED)
    found = []
    for sharing in (True, False):
        weights = reference.random_weights(random, SIZES[0], SIZES[1], SIZES[3:], sharing)
        batches = [reference.random_batch(random, SIZES, size) for size in (1, 2, 256)]
        batches.append(([3, 3, 3, 5], [7, 7, 2, 7]))
        outputs = [[output.round(9).tolist() for output in reference.forward(weights, *batch)] for batch in batches]
        found.append({"sharing": sharing, "weights": flat(weights), "batches": batches, "outputs": outputs})
    return found


def as_text(examples: list[dict]) -> str:
    return json.dumps(examples, separators=(",", ":")) + "\n"


if __name__ == "__main__":
    EXAMPLES.write_text(as_text(make_examples()), encoding="utf-8")
    print(f"wrote {EXAMPLES.name}")
