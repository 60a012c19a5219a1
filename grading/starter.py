"""Make starter/models.py, the file that students begin with, from models.py.

    python grading/starter.py

The methods to write keep their docstring, which states the task, and raise NotImplementedError.
tests/grading/test_grader.py checks that the two files match.
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
REMOVED = {"_rate"}  # a helper that would give away half the answer
UNUSED = "from itertools import pairwise\n\n"
TITLE = "The multi-task network"
STARTER_NOTE = "TO DO: the methods that raise NotImplementedError. `python grader.py` grades this file."


def make_starter(source: str) -> str:
    """The text of models.py without the bodies of the methods to write."""
    lines = source.splitlines()
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    for node in sorted(functions, key=lambda node: -node.lineno):
        if node.name in REMOVED:
            del lines[node.lineno - 1 : node.end_lineno + 1]
        elif node.name in TO_WRITE:
            docstring = node.body[0]
            lines[docstring.end_lineno : node.end_lineno] = [f'{" " * 8}raise NotImplementedError("write {node.name}")']
    text = "\n".join(lines).replace(UNUSED, "") + "\n"
    return text.replace(TITLE, f"{STARTER_NOTE}\n\n{TITLE}", 1)


if __name__ == "__main__":
    starter = make_starter((ROOT / "models.py").read_text(encoding="utf-8"))
    (ROOT / "starter" / "models.py").write_text(starter, encoding="utf-8")
    print("wrote starter/models.py")
