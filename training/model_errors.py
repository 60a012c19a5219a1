"""Errors of models.py, the file that students write, in a few lines: where, what, what was expected, where to read on.

Standard library only: every command uses it, also before PyTorch is imported.
"""

import dis
import traceback
from pathlib import Path
from types import TracebackType

from config.errors import UserError
from training.failures import in_one_line, is_lack_of_memory

MODELS = Path(__file__).resolve().parent.parent / "models.py"
PAIRS = "user_ids (B,), item_ids (B,) -> predictions (B,), score (B,)"
# What the docstring of a method promises, and the questions of the grader that check it.
PROMISES = {
    "init_shared_user_and_item_embeddings": ("the tables (U, Q), of shapes (num_users, d) and (num_items, d)", "1a"),
    "init_separate_user_and_item_embeddings": (
        "the tables (U_reg, Q_reg, U_fact, Q_fact), of shapes (num_users, d), (num_items, d), (num_users, d) and "
        "(num_items, d)", "1b",
    ),
    "init_item_bias": ("the item bias B, a table of shape (num_items, 1)", "1c"),
    "init_mlp_layers": ("an nn.ModuleList of the layers of the MLP, the last dense one with one output", "2"),
    "forward_with_embedding_sharing": (PAIRS, "3a"),
    "forward_without_embedding_sharing": (PAIRS, "3b"),
    "forward": (PAIRS, "3a 3b"),
    "score_items": ("user_ids (B,) -> ranking scores (B, num_items)", ""),
}  # fmt: skip


class ModelsError(UserError):
    """models.py does not do what its docstrings promise; the message has a few lines."""


def complain(where: str, problem: str, method: str) -> str:
    """The lines about an error of models.py.

    Args:
        where: "models.py, line 12, in forward".
        problem: what is wrong there.
        method: the method whose docstring says what is expected; "" where there is none.
    """
    if method not in PROMISES:
        return f"{where}: {problem}"
    promise, question = PROMISES[method]
    read_on = "read on in its docstring" + (f"; python grader.py {question} tries it alone" if question else "")
    return f"{where}: {problem}\nexpected of {method}: {promise}\n{read_on}"


def explain(error: BaseException) -> str | None:
    """The lines about an error that comes from models.py; None for any other error."""
    if isinstance(error, ModelsError):
        return str(error)
    if lines := _explain_import(error):
        return lines
    frames = _own_frames(error.__traceback__)
    if not frames or isinstance(error, UserError) or is_lack_of_memory(error):
        return None
    line, function, _ = frames[-1]
    if _is_unfinished(error):
        return f"models.py is not finished: {str(error) or f'write {function}'}"
    where = f"models.py, line {line}" + (f", in {function}" if function != "<module>" else "")
    return "\n".join([complain(where, _describe(error), _method_of(frames)), *getattr(error, "__notes__", ())])


def has_traceback(error: BaseException) -> bool:
    """True where the traceback of an error from models.py says more than its lines."""
    return bool(_own_frames(error.__traceback__)) and not _is_unfinished(error)


def _explain_import(error: BaseException) -> str | None:
    """About a models.py that cannot be imported at all."""
    if isinstance(error, ImportError) and error.name == "models":
        if isinstance(error, ModuleNotFoundError):
            return f"there is no models.py in {MODELS.parent}: put yours there"
        missing = str(error).split("'")[1]
        return f"models.py has no class {missing}: keep the names that the file came with"
    if isinstance(error, (SyntaxError, ValueError)) and not _own_frames(error.__traceback__):
        try:
            compile(MODELS.read_bytes(), str(MODELS), "exec")
        except (SyntaxError, ValueError) as problem:
            line = getattr(problem, "lineno", None)
            return f"models.py{f', line {line}' if line else ''}: {_describe(problem)}"
        except OSError:
            return None
    return None


def _own_frames(trace: TracebackType | None) -> list[tuple[int, str, str]]:
    """(line number, function, text of the line) of each frame in models.py, the deepest last."""
    found = traceback.extract_tb(trace)
    return [(one.lineno or 0, one.name, one.line or "") for one in found if _is_models(one.filename)]


def _is_models(filename: str) -> bool:
    """True for models.py, also where a link leads to its folder."""
    return filename.endswith(MODELS.name) and Path(filename).resolve() == MODELS


def _is_unfinished(error: BaseException) -> bool:
    """True for what the starter's methods raise: by a `raise` in models.py, not by something that it calls.

    PyTorch raises NotImplementedError, too, for what a device cannot do, and its C++ code leaves no frame of its own.
    """
    trace = error.__traceback__
    if not isinstance(error, NotImplementedError) or trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    return _is_models(code.co_filename) and code.co_code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]


def _method_of(frames: list[tuple[int, str, str]]) -> str:
    """The deepest method with a promise; in __init__ the one that the line calls."""
    for _, function, text in reversed(frames):
        if function in PROMISES:
            return function
        if function == "__init__":
            return next((name for name in PROMISES if f"{name}(" in text), "")
    return ""


def _describe(error: BaseException) -> str:
    return in_one_line(error, error.msg if isinstance(error, SyntaxError) else None)
