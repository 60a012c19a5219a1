"""A models.py of a student in place of ours, in this process; and errors that students make, as changes to ours."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from conftest import ROOT

from training import model_errors

SOURCE = (ROOT / "models.py").read_text(encoding="utf-8")


@contextlib.contextmanager
def in_place_of_ours(folder: Path, content: bytes) -> Iterator[None]:
    """In the body, `models` is a file of this content in the folder; all of multitask/ is imported anew."""
    (folder / "models.py").write_bytes(content)
    before, known = _taken_out(), model_errors.MODELS
    sys.path.insert(0, str(folder))
    model_errors.MODELS = folder / "models.py"
    try:
        yield
    finally:
        model_errors.MODELS = known
        sys.path.remove(str(folder))
        _taken_out()
        sys.modules.update(before)


def _taken_out() -> dict:
    """Forget the modules that depend on models.py; returns them by name."""
    names = [name for name in sys.modules if name.split(".")[0] in ("models", "multitask")]
    return {name: sys.modules.pop(name) for name in names}


def changed(*changes: tuple[str, str]) -> bytes:
    """models.py with these (text, replacement) pairs."""
    source = SOURCE
    for old, new in changes:
        assert old in source, f"models.py does not hold {old!r}"
        source = source.replace(old, new)
    return source.encode()


TABLES = "return ScaledEmbedding(num_users, embedding_dim), ScaledEmbedding(num_items, embedding_dim)"
BIAS = "return ZeroEmbedding(num_items, 1)"
MAKE_BIAS = "self.B = self.init_item_bias(num_users, num_items)"
RETURN = "return predictions, self._rate(user, item, product)"
SUM = "predictions = product.sum(dim=1) + self.B(item_ids).squeeze(1)"
SQUEEZE = "return hidden.squeeze(1)"
IN_3A = "in forward_with_embedding_sharing: "
SHARED, FORWARD_SHARED = "init_shared_user_and_item_embeddings", "forward_with_embedding_sharing"

# What is changed in models.py, and what the first line then says. {line} is where the new text begins.
IMPORTS = {
    "syntax": ([("self.num_users = num_users", "self.num_users = = num_users")], "line {line}: SyntaxError: invalid syntax"),
    "indentation": ([(BIAS, BIAS + "\n          " + BIAS)], "IndentationError: unexpected indent"),
    "null bytes": ([(BIAS, BIAS + "\0")], "source code"),
    "a missing package": ([("import torch\n", "import torchy\n")], "line {line}: ModuleNotFoundError: No module named 'torchy'"),
    "a missing name of a package": ([("from torch import Tensor", "from torch import Tensr")], "ImportError: cannot import name 'Tensr'"),
    "an undefined name": ([("class ScaledEmbedding(nn.", "class ScaledEmbedding(nm.")], "line {line}: NameError: name 'nm' is not defined"),
    "no class": ([("class MultiTaskNet", "class MultitaskNet")], "has no class MultiTaskNet: keep the names"),
    "a class of another kind": ([("MultiTaskNet(nn.Module)", "MultiTaskNet"), ("super().__init__()\n        for", "for")], "MultiTaskNet is no nn.Module"),
}  # fmt: skip

# What is changed, what the first line then says, and the method whose promise the second line states.
METHODS = {
    "tables None": ([(TABLES, "pass")], "in __init__: TypeError: cannot unpack non-iterable NoneType", SHARED),
    "tables swapped": ([(TABLES, "return ScaledEmbedding(num_items, embedding_dim), ScaledEmbedding(num_users, embedding_dim)")], "self.U has the shape (60, 32), and here it has to be (40, 32)", SHARED),
    "three tables": ([(TABLES, TABLES + ", ZeroEmbedding(num_items, 1)")], "in __init__: ValueError: too many values to unpack", SHARED),
    "width fixed": ([(TABLES, TABLES.replace("embedding_dim", "16"))], "self.U has the shape (40, 16), and here it has to be (40, 32)", SHARED),
    "tensors for tables": ([(TABLES, "return torch.zeros(num_users, embedding_dim), torch.zeros(num_items, embedding_dim)")], "self.U is a tensor of shape (40, 32), not an embedding table", SHARED),
    "bias None": ([(BIAS, "pass")], "self.B is None, not an embedding table", "init_item_bias"),
    "bias of users": ([(BIAS, "return ZeroEmbedding(num_users, 1)")], "self.B has the shape (40, 1), and here it has to be (60, 1)", "init_item_bias"),
    "no bias": ([(MAKE_BIAS, "pass")], "the network has no attribute B: __init__ has to set self.B", "init_item_bias"),
    "layers None": ([("        return layers\n", "")], "self.mlp_layers is None, not an nn.ModuleList", "init_mlp_layers"),
    "list of layers": ([("        return layers\n", "        return list(layers)\n")], "self.mlp_layers is a list, not an nn.ModuleList", "init_mlp_layers"),
    "no layers": ([("        return layers\n", "        return nn.ModuleList()\n")], "self.mlp_layers holds no nn.Linear", "init_mlp_layers"),
    "an attribute that is not there": ([(SUM, SUM.replace("self.B", "self.b"))], IN_3A + "AttributeError: 'MultiTaskNet' object has no attribute 'b'", FORWARD_SHARED),
    "in a method of its own": ([(SQUEEZE, "return hiden.squeeze(1)")], "in _rate: NameError: name 'hiden' is not defined", FORWARD_SHARED),
    "wrong widths": ([("torch.cat([user, item, product], dim=1)", "torch.cat([user, item], dim=1)")], "in _rate: RuntimeError: mat1 and mat2 shapes cannot be multiplied (1x64 and 96x64)", FORWARD_SHARED),
    "None": ([(RETURN, "pass")], IN_3A + "on a batch of 1 in training mode it returned None, not two tensors", FORWARD_SHARED),
    "one tensor": ([(RETURN, "return predictions")], "on a batch of 1 in training mode it returned a tensor of shape (1,), not two tensors", FORWARD_SHARED),
    "three tensors": ([(RETURN, RETURN + ", product")], "it returned 3 values, not two tensors", FORWARD_SHARED),
    "a generator": ([(RETURN, "return (p for p in (predictions, self._rate(user, item, product)))")], "it returned a generator, not two tensors", FORWARD_SHARED),
    "numbers": ([(RETURN, "return 0.5, 3.0")], "predictions is a float, not a tensor", FORWARD_SHARED),
    "score of (B, 1)": ([(SQUEEZE, "return hidden")], "score has the shape (1, 1), and here it has to be (1,)", FORWARD_SHARED),
    "predictions of (B, B)": ([(SUM, "predictions = product.sum(dim=1) + self.B(item_ids)")], "predictions has the shape (1, 1), and here it has to be (1,)", FORWARD_SHARED),
    "all pairs of a batch": ([(SUM, "predictions = (user @ item.T + self.B(item_ids)[:, 0]).squeeze(0)")], "on a batch of 3 in training mode predictions has the shape (3, 3), and here it has to be (3,)", FORWARD_SHARED),
    "bare squeeze": ([(SQUEEZE, "return hidden.squeeze()")], "on a batch of 1 in training mode score has the shape (), and here it has to be (1,)", FORWARD_SHARED),
    "a sum over the batch": ([(SUM, "predictions = product.sum(dim=0)[:1]")], "on a batch of 3 in training mode predictions has the shape (1,), and here it has to be (3,)", FORWARD_SHARED),
    "truth values": ([(RETURN, RETURN.replace("predictions,", "predictions > 0,"))], "predictions has the dtype torch.bool, not a floating-point one", FORWARD_SHARED),
    "integers": ([(SQUEEZE, SQUEEZE + ".long()")], "score has the dtype torch.int64, not a floating-point one", FORWARD_SHARED),
    "wrong in evaluation mode": ([(SQUEEZE, "return hidden.squeeze(1) if self.training else hidden")], "on a batch of 1 in evaluation mode score has the shape (1, 1)", FORWARD_SHARED),
    "an error in evaluation mode": ([(SQUEEZE, "return hidden.squeeze(1) if self.training else hidden.squeeze(2)")], "in _rate: IndexError: Dimension out of range", FORWARD_SHARED),
    "an error of many lines": ([(SUM, "raise ValueError('first\\nsecond')")], "ValueError: first", FORWARD_SHARED),
    "scores of one user": ([("users(user_ids), items", "users(user_ids[:1]), items")], "on a batch of 3 in training mode its result has the shape (1, 60), and here it has to be (3, 60)", "score_items"),
}  # fmt: skip
