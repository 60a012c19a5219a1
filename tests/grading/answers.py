"""Finds answers to the homework in a file: code of the methods to write, and sentences on the written questions."""

import ast
import re
from collections.abc import Iterator
from copy import deepcopy
from functools import cache

from conftest import ROOT

from grading.starter import REMOVED, TO_WRITE

LEAST_NODES = 8  # a smaller piece of code is common to many programs
LEAST_WORDS = 6  # the same of a sentence
LIBRARIES = {"torch", "nn", "np", "F"}
JOINING = {"cat", "concat", "concatenate", "hstack", "column_stack"}
TABLES = {"Embedding", "ScaledEmbedding", "ZeroEmbedding"}
LAYERS = {"Linear", "ReLU", "Sequential"}
FUNCTIONS = {"relu", "linear"}  # of torch and torch.nn.functional
TELLING = (
    r"order of a user'?s items",
    r"a_i (cancels|drops out|vanishes)",
    r"adam (cancels|undoes|ignores|normali[sz]es|divides)",
    r"user bias\w* (changes|moves|adds) n",
    r"regularizes the tables",
    r"dominates the (shared )?tables",
    r"decide which task shapes",
)


def answers_in(name: str, text: str) -> list[str]:
    """What in a file answers; empty where nothing does."""
    found = [f"the sentence {sentence!r}" for sentence in written_answers() if sentence in plain(text)]
    found += [f"the words {words.group()!r}" for words in (re.search(one, plain(text)) for one in TELLING) if words]
    if name.endswith(".py"):
        tree = ast.parse(text)
        found += [f"a piece of a solution: {code}" for code in solution_pieces() & pieces(tree)]
        found += [f"{kind}: {ast.unparse(node)}" for node in ast.walk(tree) if (kind := kind_of_answer(node))]
    return found


# Sentences


def plain(text: str) -> str:
    """In lower case, with single spaces, and without comment signs and Markdown's stars and list signs."""
    return " ".join(re.sub(r"[*`#]|^ *- ", " ", text.lower(), flags=re.MULTILINE).split())


@cache
def written_answers() -> frozenset[str]:
    """The sentences and numbers that answer the written questions."""
    tree = ast.parse((ROOT / "analysis" / "answers.py").read_text(encoding="utf-8"))
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    page = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    section = page.partition("## The four experiments")[2].partition("\n## ")[0]
    texts += re.findall(r"^- (.*(?:\n  .*)*)", section, flags=re.MULTILINE)
    sentences = {sentence for text in texts for sentence in re.split(r"[.:;]\s", plain(text))}
    numbers = set(re.findall(r"\d\.\d+ ± \d\.\d+", section))
    assert len(numbers) > 20
    return frozenset({one.rstrip(".") for one in sentences if len(one.split()) >= LEAST_WORDS} | numbers)


# Code


def kind_of_answer(node: ast.AST) -> str | None:
    """The answer that a piece of code has the form of, whatever its names are."""
    if isinstance(node, ast.Call):
        if called(node) in TABLES:
            return "builds a table, question 1"
        if called(node) in LAYERS or (called(node) in FUNCTIONS and of_a_library(node)):
            return "builds a layer, question 2"
        if called(node) in JOINING and node.args and joins_pair_and_product(node.args[0]):
            return "joins the inputs of equation (4)"
        if called(node) == "sum" and isinstance(node.func, ast.Attribute) and is_product(node.func.value):
            return "sums a product over columns, equation (1)" if sums_columns(node) else None
    if isinstance(node, ast.ListComp | ast.GeneratorExp | ast.For) and {"pairwise", "Linear"} <= words_of(node):
        return "states the rule of the layers, question 2"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        sides = [node.left, node.right]
        if any(isinstance(side, ast.Call) and called(side) == "sum" and sums_columns(side) for side in sides):
            return "adds something to a sum over columns, equation (1)"
    return None


def words_of(node: ast.AST) -> set[str]:
    return set(re.findall(r"\w+", ast.unparse(node)))


def called(node: ast.Call) -> str:
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def of_a_library(node: ast.Call) -> bool:
    return isinstance(node.func, ast.Attribute) and getattr(node.func.value, "id", "") in LIBRARIES


def is_product(node: ast.AST) -> bool:
    is_operator = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult)
    return is_operator or (isinstance(node, ast.Call) and called(node) in ("mul", "multiply"))


def joins_pair_and_product(node: ast.AST) -> bool:
    """[user, item, user * item], or three names."""
    if not isinstance(node, (ast.List, ast.Tuple)) or len(node.elts) != 3:
        return False
    return is_product(node.elts[2]) or all(isinstance(one, ast.Name) for one in node.elts)


def sums_columns(node: ast.Call) -> bool:
    values = [*node.args, *(word.value for word in node.keywords)]
    return any(ast.unparse(value) in ("1", "-1") for value in values)


@cache
def solution_pieces() -> frozenset[str]:
    """The statements and expressions of the methods to write, and of the reference's equations."""
    found: set[str] = set()
    for file, names in [("models.py", TO_WRITE | REMOVED), ("grading/reference.py", {"forward", "_rank", "_rate"})]:
        for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name in names:
                body = [part for part in node.body if not is_docstring(part)]
                found |= {piece for part in body for piece in pieces(part)}
    return frozenset(found)


def is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def pieces(tree: ast.AST) -> set[str]:
    """Every statement and expression with enough in it, its variables renamed in the order of their use."""
    nodes = (node for node in ast.walk(tree) if isinstance(node, (ast.stmt, ast.expr)))
    return {code for node in nodes for code in renamed(node)}


def renamed(node: ast.AST) -> Iterator[str]:
    parts = [part for part in ast.walk(node) if not isinstance(part, ast.expr_context)]
    computes = any(isinstance(part, ast.Call | ast.BinOp) for part in parts)
    if len(parts) < LEAST_NODES or not computes or isinstance(node, ast.FunctionDef | ast.ClassDef):
        return
    names: dict[str, str] = {}
    copied = deepcopy(node)
    for part in ast.walk(copied):
        if isinstance(part, ast.Name) and part.id not in LIBRARIES:
            part.id = names.setdefault(part.id, f"v{len(names)}")
    yield ast.unparse(copied)
