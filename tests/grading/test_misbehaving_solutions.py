"""Misbehaving solutions: only the check that they disturb fails, and the grader ends cleanly."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from conftest import ROOT
from solutions import MODELS, WRONG, changed
from started_grader import command, grade, solution

import grader
from grading.checks import all_checks

MISBEHAVING = {
    "endless loop": ("while True:\n            pass", "TIMEOUT"),
    "endless loop that swallows everything": (
        "import time\n        while True:\n            try:\n                time.sleep(1)\n"
        "            except BaseException:\n                pass",
        "TIMEOUT",
    ),
    "hang in a long tensor operation": ("torch.rand(3000, 3000).matrix_power(10**9)", "TIMEOUT"),
    "sys.exit": ("import sys; sys.exit(0)", "ERROR"),
    "os._exit": ("import os; os._exit(0)", "ERROR"),
    "crash": ("import os; os.abort()", "ERROR"),
    "exception": ("raise RuntimeError('no idea')", "ERROR"),
    "writes a file": ("open('answer.txt', 'w').write('14')", "ERROR"),
    "writes over the grader": (f"open({str(ROOT / 'grader.py')!r}, 'a').write('#')", "ERROR"),
    "starts a process": ("import subprocess; subprocess.run(['true'])", "ERROR"),
    "reads the answers": ("import grading.reference", "ERROR"),
    "opens the answers": (f"open({str(ROOT / 'grading' / 'checks.py')!r}).read()", "ERROR"),
    "reads the answers through torch.from_file": (
        f"torch.from_file({str(ROOT / 'grading' / 'checks.py')!r}, size=9, dtype=torch.uint8)",
        "ERROR",
    ),
    "saves a tensor": ("torch.save({}, 'answer.pt')", "ERROR"),
    "opens a folder": (f"import os; os.open({str(ROOT)!r}, os.O_RDONLY)", "ERROR"),
    "opens the answers by a Path object": (
        f"import io, pathlib; io.FileIO(pathlib.Path({str(ROOT / 'grading' / 'checks.py')!r}))",
        "ERROR",
    ),
    "starts a process through multiprocessing": (
        "import multiprocessing as m; m.get_context('spawn').Process().start()",
        "ERROR",
    ),
    "error that cannot be printed": ("raise ValueError('\\ud800 \\r 1c-0-basic PASS')", "ERROR"),
    "error raised by torch": ("torch.zeros(2, dtype=torch.int64).normal_()", "ERROR"),
    "kills the grader": ("import os, signal; os.kill(os.getppid(), signal.SIGKILL)", "ERROR"),
}


QUICK = ("sys.exit", "crash", "opens the answers", "exception", "kills the grader")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in MISBEHAVING]
)
def test_misbehavior_fails_only_its_own_check(name, tmp_path):
    statement, status = MISBEHAVING[name]
    body = "        return ZeroEmbedding(num_items, 1)"
    source = changed([(body, f"        {statement}\n{body}")])
    source = f"import sys\nsys.path.append({str(ROOT)!r})\n" + source
    folder = solution(tmp_path / "s", source)
    before = (ROOT / "grader.py").read_bytes()
    disturbed, other = [check for check in all_checks() if check.id in ("1c-0-basic", "2-0-basic")]
    if status == "TIMEOUT":
        disturbed = replace(disturbed, seconds=3.0)
    assert grade(folder, [disturbed, other]) == [status, "PASS"]
    assert (ROOT / "grader.py").read_bytes() == before
    assert [path.name for path in folder.iterdir()] == ["models.py"]


def test_patching_torch_earns_no_points(tmp_path):
    patch = """
import builtins, numpy
for module in (torch, numpy):
    module.allclose = lambda *a, **k: True
torch.equal = lambda *a, **k: True
torch.testing.assert_close = lambda *a, **k: None
torch.manual_seed = lambda *a: None
builtins.isinstance = lambda *a: True
"""
    wrong = changed(WRONG["mean instead of sum"][1]).replace(
        "\nclass ScaledEmbedding", patch + "\nclass ScaledEmbedding", 1
    )
    done = command("3a-1-basic", "--path", solution(tmp_path / "s", wrong))
    assert "0 / 1" in done.stdout


def test_global_state_changed_by_a_solution_stays_in_its_process(tmp_path):
    folder = solution(tmp_path / "s", "import os\nos.environ['X'] = '1'\nos.chdir('/')\n" + MODELS)
    here = os.getcwd()
    chosen = [check for check in all_checks() if check.question in ("1a", "1c")]
    assert grade(folder, chosen) == ["PASS", "PASS"]
    assert os.getcwd() == here
    assert "X" not in os.environ


@pytest.mark.parametrize("source", ["def (", "import nothing_like_this", "x = 1"])
def test_an_unusable_file_is_reported_in_a_sentence(tmp_path, source):
    done = command("1a", "--path", solution(tmp_path / "s", source), "-v")
    assert done.returncode == 1
    assert "ERROR" in done.stdout
    assert {"def (": "SyntaxError", "x = 1": "AttributeError"}.get(source, "ModuleNotFoundError") in done.stdout


def test_a_solution_can_import_files_of_its_folder(tmp_path):
    folder = solution(tmp_path / "s", "from helper import *\n" + MODELS)
    (folder / "helper.py").write_text("ANSWER = 42\n")
    assert "1 / 1" in command("1a", "--path", folder).stdout


@pytest.mark.slow
def test_a_solution_that_hangs_in_every_check_gets_a_full_report(tmp_path):
    folder = solution(tmp_path / "s", "while True:\n    pass\n")
    start = time.perf_counter()
    done = command("--path", folder, "--timeout-scale", 0.1)
    limit = sum(check.seconds for check in all_checks()) * 0.1
    assert done.stdout.count("TIMEOUT") == 14
    assert "0 / 14" in done.stdout
    assert time.perf_counter() - start < limit


FORGED = [
    b'{"error": "x"}',
    b"[" * 100_000,
    b'{"results": 1}',
    b'{"results": [{"gradients": []}]}',
    b"\xff",
    b'{"mismatch": 1}',
]


@pytest.mark.parametrize("answer", FORGED, ids=lambda answer: repr(answer[:20]))
def test_a_forged_answer_is_an_error_and_does_not_crash_the_grader(answer, tmp_path):
    """The solution writes to every open pipe and exits."""
    statement = f"""
import os
for number in range(3, 30):
    try:
        os.write(number, {answer!r})
    except OSError:
        pass
os._exit(0)
"""
    folder = solution(tmp_path / "s", MODELS + statement)
    chosen = [check for check in all_checks() if check.id == "3a-2-hidden"]
    assert grade(folder, chosen) == ["ERROR"]


SIGNALS = [signal.SIGINT, *(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))]


def as_in_the_background() -> None:
    """A shell script ignores Ctrl-C for what it starts in the background; the other signals are as usual."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_grader_at_once_and_leaves_no_process(tmp_path, number):
    folder = solution(tmp_path / "s", "while True:\n    pass\n")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "grader.py"), "--path", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=as_in_the_background,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("grader-*/1")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(3)
    process.send_signal(number)
    _, message = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert message.strip() == "grader.py: stopped after 0 of 14 checks"
    assert list(tmp_path.glob("grader-*")) == []
    if sys.platform == "linux":
        time.sleep(1)
        assert str(tmp_path) not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout


def test_a_grader_that_has_changed_gives_no_points(monkeypatch, capsys):
    digests = iter(["before", "after"])
    monkeypatch.setattr(grader, "digest", lambda folder: next(digests))
    assert grader.main(["1c"]) == 2
    assert "files in grading/ have changed during the grading" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_an_answer_without_end_does_not_fill_the_memory_of_the_grader(tmp_path):
    statement = """
import os
for number in range(3, 30):
    try:
        while True:
            os.write(number, b"x" * 2**20)
    except OSError:
        pass
"""
    code = (
        "import re, sys, grader\n"
        "grader.main(['1c', '--path', sys.argv[1]])\n"
        "print('peak', re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    )
    folder = solution(tmp_path / "s", MODELS + statement)
    done = subprocess.run([sys.executable, "-c", code, str(folder)], cwd=ROOT, capture_output=True, text=True)
    assert "the answer is too long" in done.stdout
    assert int(done.stdout.split("peak ")[1]) < 400_000  # KB


def test_a_hand_in_inside_a_forbidden_folder_can_be_graded(tmp_path):
    folder = ROOT / "tests" / "__pycache__" / "handin"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        solution(folder, MODELS)
        assert "1 / 1" in command("1c", "--path", folder).stdout
    finally:
        shutil.rmtree(folder)
