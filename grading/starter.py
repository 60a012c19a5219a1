"""Makes starter/models.py, what students begin with, out of models.py.

    python -m grading.starter

The parts to write are left out: their docstring, which is the task, stays, and the body raises NotImplementedError.
tests/test_grader.py holds the two files together.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TO_WRITE = {
    "init_shared_user_and_item_embeddings",
    "init_separate_user_and_item_embeddings",
    "init_item_bias",
    "init_mlp_layers",
    "forward_with_embedding_sharing",
    "forward_without_embedding_sharing",
}
LEFT_OUT = {"_rate"}  # a helper of the parts to write: half the answer
UNUSED = "from itertools import pairwise\n\n"
HEADLINE = "The multi-task network"
STARTER_HEADLINE = "TO DO: the methods that raise NotImplementedError. `python grader.py` grades this file."


def make_starter(source: str) -> str:
    """The text of models.py without the parts to write."""
    lines = source.splitlines()
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    for node in sorted(functions, key=lambda node: -node.lineno):
        if node.name in LEFT_OUT:
            del lines[node.lineno - 1 : node.end_lineno + 1]
        elif node.name in TO_WRITE:
            docstring = node.body[0]
            lines[docstring.end_lineno : node.end_lineno] = [f'{" " * 8}raise NotImplementedError("write {node.name}")']
    text = "\n".join(lines).replace(UNUSED, "") + "\n"
    return text.replace(HEADLINE, f"{STARTER_HEADLINE}\n\n{HEADLINE}", 1)


if __name__ == "__main__":
    (ROOT / "starter" / "models.py").write_text(
        make_starter((ROOT / "models.py").read_text(encoding="utf-8")), encoding="utf-8"
    )
