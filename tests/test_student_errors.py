"""An error of models.py is told in a few lines: where, what, what was expected, where to read on."""

import re
import sys

import pytest
from conftest import run
from student_models import BIAS, IMPORTS, METHODS, SOURCE, SQUEEZE, SUM, TABLES, changed, in_place_of_ours

import main
from multitask.task import WatchAndRate
from training import model_errors

pytestmark = pytest.mark.usefixtures("elsewhere")

WORLD = ["--dataset", "simulated", "--simulated_size", "40", "60", "1200", "--logdir", "out", "--epochs", "3"]
LATER = "        self.calls = getattr(self, 'calls', 0) + 1\n        if self.calls > {calls}:\n            {then}\n"
FORWARD = "        if self.embedding_sharing:\n            return self.forward_with"
QUESTIONS = {
    "init_shared_user_and_item_embeddings": "1a", "init_item_bias": "1c", "init_mlp_layers": "2",
    "forward_with_embedding_sharing": "3a", "score_items": "",
}  # fmt: skip
PAIRS = "expected of forward_with_embedding_sharing: user_ids (B,), item_ids (B,) -> predictions (B,), score (B,)"


def told(capsys, tmp_path, content: bytes, *flags: str) -> list[str]:
    """The lines of the error that a run with this models.py ends in."""
    with in_place_of_ours(tmp_path, content):
        assert run(*WORLD, *flags) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("main.py: error: models.py")
    assert len(lines) <= 4
    assert not (tmp_path / "out").exists()
    return lines


def line_of(content: bytes, text: str) -> int:
    return 1 + content.decode().split(text)[0].count("\n")


@pytest.mark.parametrize("case", IMPORTS)
def test_a_file_that_cannot_be_used_at_all(capsys, tmp_path, case):
    changes, complaint = IMPORTS[case]
    content = changed(*changes)
    lines = told(capsys, tmp_path, content)
    assert complaint.format(line=line_of(content, changes[0][1])) in lines[0]
    runs_at_all = case in ("a missing package", "a missing name of a package", "an undefined name")
    assert ("--traceback" in lines[-1]) == runs_at_all  # else there is nothing more to show


@pytest.mark.parametrize("case", METHODS)
def test_a_method_that_does_not_do_what_its_docstring_says(capsys, tmp_path, case):
    changes, complaint, method = METHODS[case]
    question = QUESTIONS[method]
    lines = told(capsys, tmp_path, changed(*changes))
    assert complaint in lines[0]
    assert ", in " in lines[0]
    assert "second" not in "".join(lines)
    assert lines[1].startswith(f"expected of {method}: ")
    if question.startswith("3"):
        assert lines[1] == PAIRS
    assert lines[2].startswith("read on in its docstring")
    assert (f"python grader.py {question} " in lines[2]) == bool(question)


def test_the_line_is_that_of_the_error(capsys, tmp_path):
    content = changed((SUM, SUM.replace("self.B", "self.b")))
    assert f"models.py, line {line_of(content, 'self.b(item_ids)')}, in" in told(capsys, tmp_path, content)[0]
    content = changed((SQUEEZE, "return hidden"))
    place = line_of(content, "def forward_with_embedding_sharing")
    assert f"models.py, line {place}, in" in told(capsys, tmp_path, content)[0]


def test_separate_tables_are_told_of_by_their_own_methods(capsys, tmp_path):
    content = changed((SQUEEZE, "return hidden"))
    lines = told(capsys, tmp_path, content, "--no_shared_embeddings")
    assert lines[1].startswith("expected of forward_without_embedding_sharing: ")
    assert "grader.py 3b " in lines[2]
    content = changed(("self.U_fact, self.Q_fact = self", "self.Q_fact, self.U_fact = self"))
    lines = told(capsys, tmp_path, content, "--no_shared_embeddings")
    assert "self.U_fact has the shape (60, 32), and here it has to be (40, 32)" in lines[0]
    assert "grader.py 1b " in lines[2]


def test_every_network_is_tried_before_it_is_trained(capsys, tmp_path):
    content = changed((SQUEEZE, "return hidden"))
    champion = ["--preset", "champion", "--ranking", "ease", "--ridge", "50", "--ranking_dim", "8", "--genres", "off"]
    ensemble = ["--preset", "ensemble", "--embedding_dim", "16", "--layer_sizes", "48"]
    item_based = ["--ranking_loss", "softmax", "--num_item_based", "1"]
    for flags in (champion, ensemble, item_based):
        lines = told(capsys, tmp_path, content, *flags)
        assert "on a batch of 1 in training mode score has the shape (1, 1)" in lines[0]


def test_an_error_during_the_first_epoch_leaves_nothing_behind(capsys, tmp_path):
    content = changed((FORWARD, LATER.format(calls=6, then="user_ids = user_ids.float()") + FORWARD))
    lines = told(capsys, tmp_path, content, "--steps", "autograd")
    assert "RuntimeError: Expected tensor for argument #1 'indices'" in lines[0]


def test_an_error_in_a_later_epoch_keeps_the_finished_ones(capsys, tmp_path):
    content = changed((FORWARD, LATER.format(calls=22, then="raise ValueError('enough')") + FORWARD))
    with in_place_of_ours(tmp_path, content):
        assert run(*WORLD, "--steps", "autograd") == 2
    err = capsys.readouterr().err
    assert "in forward: ValueError: enough\nexpected of forward: " in err
    kept = len((tmp_path / "out/metrics.csv").read_text().splitlines()) - 1
    assert 1 <= kept < 3
    assert re.search(rf"\n{kept} finished epochs? (is|are) kept in out: correct the error, then --resume out", err)
    assert err.count("\n") == 4
    assert run("--resume", "out") == 0
    assert len((tmp_path / "out/metrics.csv").read_text().splitlines()) == 4


def test_traceback_prints_the_rest(capsys, tmp_path):
    content = changed((SUM, SUM.replace("self.B", "self.b")))
    assert told(capsys, tmp_path, content)[-1].endswith("; main.py --traceback shows the rest")
    with in_place_of_ours(tmp_path, content):
        assert run(*WORLD, "--traceback") == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback (most recent call last):")
    assert "\nAttributeError: 'MultiTaskNet' object has no attribute 'b'\n" in err
    assert "\nmain.py: error: models.py, line " in err
    assert "traceback shows" not in err


def test_a_question_to_a_run_is_told_of_it_too(capsys, tmp_path):
    assert run(*WORLD) == 0
    capsys.readouterr()
    with in_place_of_ours(tmp_path, changed((SQUEEZE, "return hidden"))):
        assert run("--recommend", "1", "--logdir", "out", "--traceback") == 2
    assert "main.py: error: models.py, line" in capsys.readouterr().err


def test_an_unfinished_file_is_called_that(capsys, tmp_path):
    lines = told(capsys, tmp_path, changed((BIAS, "raise NotImplementedError('write init_item_bias')")))
    assert lines == ["main.py: error: models.py is not finished: write init_item_bias"]
    assert told(capsys, tmp_path, changed((BIAS, "raise NotImplementedError"))) == lines


def test_other_errors_of_the_type_are_not_an_unfinished_file(capsys, tmp_path, monkeypatch):
    """Of PyTorch, called by models.py; and of our own code, which shows its traceback."""
    block = "class Block(nn.Module):\n    pass\n\n\nclass MultiTaskNet"
    content = changed(("class MultiTaskNet", block), (SUM, SUM + "\n        Block()(predictions)"))
    assert 'NotImplementedError: Module [Block] is missing the required "forward"' in told(capsys, tmp_path, content)[0]

    def fail(self, epoch):
        raise NotImplementedError("ours")

    monkeypatch.setattr(WatchAndRate, "batches", fail)
    with pytest.raises(NotImplementedError, match="ours"):
        main.main(WORLD)
    assert not (tmp_path / "out").exists()


def test_a_link_to_the_folder_of_models_py(capsys, tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    with in_place_of_ours(tmp_path / "link", changed((SQUEEZE, "return hiden"))):
        monkeypatch.setattr(model_errors, "MODELS", folder / "models.py")
        assert run(*WORLD) == 2
    assert "in _rate: NameError: name 'hiden' is not defined" in capsys.readouterr().err


def test_an_encoding_that_python_does_not_read(capsys, tmp_path):
    content = SOURCE.replace("The multi-task network", "Das ärgerliche Netz").encode("latin-1")
    assert "SyntaxError" in told(capsys, tmp_path, content)[0]


def test_a_file_that_is_not_there(capsys, tmp_path, monkeypatch):
    with in_place_of_ours(tmp_path, b""):
        monkeypatch.setitem(sys.modules, "models", None)
        (tmp_path / "models.py").unlink()
        assert run(*WORLD) == 2
    assert f"there is no models.py in {tmp_path}" in capsys.readouterr().err


def test_lack_of_memory_is_no_error_of_models_py(capsys, tmp_path):
    content = changed((TABLES, "torch.zeros(10**15)\n        " + TABLES))
    with in_place_of_ours(tmp_path, content):
        assert run(*WORLD) == 2
    assert "there is not enough memory" in capsys.readouterr().err


def test_the_check_changes_neither_network_nor_random_stream(tmp_path):
    import torch

    from models import MultiTaskNet
    from multitask.network_check import check_network

    model = MultiTaskNet(4, 5, 2, [6, 3])
    model.mlp_layers.insert(1, torch.nn.Dropout(0.5))
    model.mlp_layers[1].eval()
    model.statistics = torch.nn.BatchNorm1d(2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    check_network(model, [6, 3])
    assert torch.get_rng_state().equal(state)
    assert model.training
    assert not model.mlp_layers[1].training
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


def test_what_pytorch_has_not_implemented_is_no_unfinished_method(capsys, tmp_path):
    """Its C++ code leaves no frame: the error seems to come from the line of models.py that called it."""
    content = changed((TABLES, "torch.empty(2, device='meta').cpu()\n        " + TABLES))
    with in_place_of_ours(tmp_path, content):
        assert run(*WORLD) == 2
    message = capsys.readouterr().err
    assert "NotImplementedError: Cannot copy out of meta tensor" in message
    assert "is not finished" not in message
