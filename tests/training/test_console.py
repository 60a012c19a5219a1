"""Every failure is one sentence, and nothing that is printed moves the terminal."""

import errno
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import ROOT, refused, run

import benchmark
import experiments
from config.errors import UserError
from config.text import printable
from training import console
from training.console import log, run_command
from training.failures import NO_MEMORY, explain_failure

SMALL = ["--dataset", "simulated", "--simulated_size", 60, 80, 2400, "--epochs", 1]
ESCAPE = "\x1b]0;owned\x07"


def raise_(error):
    raise error


LACKS_OF_MEMORY = [
    MemoryError("std::bad_alloc"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
    pd.errors.ParserError("Error tokenizing data. C error: out of memory"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
]


@pytest.mark.parametrize("error", LACKS_OF_MEMORY, ids=lambda error: f"{type(error).__name__}: {error}"[:40])
def test_lack_of_memory_is_one_sentence_whatever_its_type(capsys, error):
    assert run_command("main.py", lambda: raise_(error)) == 2
    assert capsys.readouterr().err == f"main.py: error: {NO_MEMORY}\n"


def test_lack_of_memory_that_pytorch_itself_reports():
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**50)
    assert explain_failure(error.value) == NO_MEMORY


def test_a_full_disk_is_named_with_what_to_do():
    sentence = explain_failure(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "run/a/last.pt"))
    assert sentence == "run/a/last.pt: No space left on device: make room on the disk"
    assert explain_failure(FileNotFoundError(errno.ENOENT, "No such file", "x")) == "[Errno 2] No such file: 'x'"


@pytest.mark.parametrize(
    "error", [RuntimeError("mat1 and mat2"), ValueError("x"), zipfile.BadZipFile("x"), KeyError(1)]
)
def test_errors_of_the_program_keep_their_traceback(error):
    assert explain_failure(error) is None
    with pytest.raises(type(error)):
        run_command("main.py", lambda: raise_(error))


COMMANDS = {"main.py": run, "experiments.py": lambda *words: experiments.main([*words])}
COMMANDS["benchmark.py"] = lambda *words: benchmark.main([*words])


@pytest.mark.parametrize("words", [["--logdir", "caf\udce9"], ["--recommend", "\udce9"], ["\udce9"], ["weights", "\0"]])
@pytest.mark.parametrize("command", COMMANDS)
def test_an_argument_that_is_not_text_is_refused(capsys, elsewhere, command, words):
    assert COMMANDS[command](*words) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"{command}: error: an argument ")
    assert message.count("\n") == 1
    message.encode()  # it can be printed anywhere
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize("value", ["a\0b", "a\ud800b", "a\udce9"])
@pytest.mark.parametrize("name", ["logdir", "ratings", "data_dir", "start_from"])
def test_a_setting_that_is_not_text_is_refused(capsys, elsewhere, name, value):
    Path("config.json").write_text(json.dumps({name: value}))
    assert f"--{name} " in refused(capsys, "--config", "config.json")
    assert os.listdir() == ["config.json"]


def test_a_config_is_a_regular_file(capsys, elsewhere):
    os.mkfifo("pipe")
    for path in ("pipe", "/dev/zero"):
        assert f"{path} is a " in refused(capsys, "--config", path)


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-", "2>/dev/full"])
def test_closed_and_full_streams_are_no_traceback(tmp_path, closed):
    """The interpreter itself opens them, so these are processes; wrong flags keep PyTorch from being imported."""
    line = f"'{sys.executable}' '{ROOT / 'main.py'}' --wrong {closed}"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("closed", "code"), [(">&-", 0), ("2>&-", 0), (">&- 2>&- <&-", 0), (">/dev/full", 2)])
def test_a_run_with_closed_streams(tmp_path, closed, code):
    words = " ".join(map(str, SMALL))
    line = f"'{sys.executable}' '{ROOT / 'main.py'}' {words} --logdir run {closed}"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    if code == 0:
        assert json.loads((tmp_path / "run/result.json").read_text())["ending"] == "finished"
    else:
        assert "main.py: error: the output cannot be written (No space left on device)" in done.stderr
        assert not (tmp_path / "run").exists()


def test_without_streams_output_goes_nowhere(monkeypatch):
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)

    def work():
        log("unheard")
        raise UserError("unheard, too")

    assert run_command("main.py", work) == 2


def test_a_full_output_is_one_sentence(monkeypatch, capsys):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        monkeypatch.setattr(console, "_drop_output", lambda: None)
        with pytest.raises(UserError, match="the output cannot be written"):
            log("x")
        monkeypatch.undo()
        with pytest.raises(OSError, match="No space"):
            full.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())


def test_what_a_terminal_would_obey_is_written_out(capsys):
    log(f"note: {ESCAPE}\u202eabc\tÄ\n👩‍💻 second line\x9b1m\r")
    assert capsys.readouterr().out == "note: \\x1b]0;owned\\x07\\u202eabc\tÄ\n👩‍💻 second line\\x9b1m\\r\n"
    assert printable("a\nb\tc\x1b", in_one_line=True) == "a\\nb\\tc\\x1b"


def test_ids_and_titles_cannot_move_the_terminal(capsys, elsewhere):
    rows = [f'"{user}","{item}{ESCAPE}",{1 + (user * item) % 5}' for user in range(1, 13) for item in range(1, 9)]
    Path(f"r{ESCAPE[:1]}.csv").write_text("\n".join(rows))
    words = ["--ratings", f"r{ESCAPE[:1]}.csv", "--epochs", 1, "--batch_size", 32, "--logdir", "run"]
    assert run(*words) == 0
    assert run("--recommend", f"1{ESCAPE}", 3, "--logdir", "run") == 0
    printed = capsys.readouterr()
    assert "\\x1b]0;owned\\x07" in printed.out
    assert run("--predict", "nowhere\x1b.csv", "--logdir", "run") == 2
    said = printed.out + printed.err + capsys.readouterr().err
    assert not {"\x1b", "\x07"} & set(said)


def test_tables_are_faithful_in_files_and_pipes_and_safe_on_a_terminal(capsys, elsewhere, monkeypatch):
    rows = [f'"{user}","{item}{ESCAPE}",{1 + (user * item) % 5}' for user in range(1, 13) for item in range(1, 9)]
    Path("r.csv").write_text("\n".join(rows))
    assert run("--ratings", "r.csv", "--epochs", 1, "--batch_size", 32, "--logdir", "run") == 0
    Path("pairs.csv").write_text(f"user,item\n1,2{ESCAPE}\n")
    capsys.readouterr()
    assert run("--predict", "pairs.csv", "--logdir", "run") == 0
    assert f"1,2{ESCAPE}," in capsys.readouterr().out
    assert run("--recommend", 1, "--json", "--logdir", "run") == 0
    text = capsys.readouterr().out
    assert not {"\x1b", "\x07"} & set(text)
    assert json.loads(text)["rated"][0]["item"].endswith(ESCAPE)
    assert run("--recommend", "all", "--output", "all.csv", "--logdir", "run") == 0
    assert pd.read_csv("all.csv", dtype=str)["item"].str.endswith(ESCAPE).all()
    capsys.readouterr()
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda self: True)
    assert run("--predict", "pairs.csv", "--logdir", "run") == 0
    assert "1,2\\x1b]0;owned\\x07," in capsys.readouterr().out
