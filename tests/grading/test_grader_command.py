"""The command grader.py: results, arguments, misbehaving solutions, and Gradescope."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace

import pytest
from conftest import ROOT
from solutions import MODELS, WRONG, changed

import grader
from grading.checks import all_checks
from grading.make_zip import make_zip
from grading.pool import Pool
from grading.results import Grading


def command(*arguments, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(ROOT / "grader.py"), *map(str, arguments)], capture_output=True, text=True, **options
    )


def solution(folder, source: str):
    folder.mkdir(exist_ok=True)
    (folder / "models.py").write_text(source, encoding="utf-8")
    return folder


def grade(place, checks: list) -> list[str]:
    """The statuses of checks, in their order."""
    grading = Grading(place, checks, forbidden=grader.ANSWERS)
    with Pool(1) as pool:
        for _ in pool.run([grading]):
            pass
    return [result.status for result in grading.in_order()]


# The command


def test_a_correct_solution_gets_14_of_14_and_exit_code_0():
    start = time.perf_counter()
    done = command()
    assert done.returncode == 0, done.stdout
    assert "Total" in done.stdout
    assert "14 / 14" in done.stdout
    assert done.stdout.count("PASS") == 14
    assert done.stderr == ""
    print(f"{time.perf_counter() - start:.1f} s")


def test_the_starter_gets_0_of_14_without_a_traceback():
    done = command("--path", ROOT / "starter", "-v")
    assert done.returncode == 1
    assert " 0 / 14" in done.stdout
    assert done.stdout.count("NOT IMPLEMENTED") == 14
    assert "Traceback" not in done.stdout + done.stderr


def test_the_student_view_hides_the_hidden_checks(tmp_path):
    wrong = solution(tmp_path / "s", changed(WRONG["user bias besides"][1]))  # only a hidden check finds this error
    done = command("--public", "--fast", "--path", wrong)
    assert "8 / 8" in done.stdout
    assert done.stdout.count("shown after hand-in") == 4
    assert done.returncode == 0
    assert "3c-0-hidden" in done.stdout
    assert "expected" not in done.stdout


def test_questions_checks_and_fast_checks_can_be_selected():
    assert "Total" in command("2").stdout
    assert "2 / 2" in command("2").stdout
    done = command("1a-0-basic", "1c")
    assert "2 / 2" in done.stdout
    assert "1b" not in done.stdout
    listed = command("--list").stdout.splitlines()
    assert [line.split()[0] for line in listed] == [check.id for check in all_checks()]
    fast = grader.select(list(all_checks()), [], fast=True)
    assert {check.id for check in all_checks()} - {check.id for check in fast} == {"3c-1-hidden", "3c-2-hidden"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["1d"], "there is no check '1d'"),
        (["1a-0-basics"], "did you mean 1a-0-basic?"),
        (["--path", "/nowhere"], "there is no /nowhere"),
        (["--path", ROOT / "docs"], "there is no models.py in docs"),
        (["--path", ROOT / "README.md"], "neither a folder, a zip nor a Python file"),
        (["--gradescope", "/nowhere/results.json"], "no folder that can be written to"),
        (["--class", ROOT / "docs"], "--class needs --csv FILE"),
        (["--csv", "grades.csv"], "--csv goes with --class DIR"),
        (["--class", "/nowhere", "--csv", "grades.csv"], "there is no folder /nowhere"),
        (["--class", ".", "--csv", "grades.csv", "-v"], "--verbose does not go with --class"),
        (["--timeout-scale", "0"], "must be greater than 0"),
        (["--timeout-scale", "inf"], "at most 1000"),
        (["--jobs", "0"], "--jobs must be at least 1"),
        (["--public", "3c"], "--public counts none of them"),
        (["--fast", "3c-1-hidden"], "leaves none"),
    ],
)
def test_wrong_arguments_get_one_sentence_and_exit_code_2(arguments, message):
    done = command(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_failure_reports_expected_and_actual_values_and_a_hint(tmp_path):
    wrong = solution(tmp_path / "s", changed(WRONG["missing ReLU"][1]))
    done = command("2-0-basic", "--path", wrong)
    assert "expected: for layer_sizes=[96, 64]: Linear(96, 64), ReLU, Linear(64, 1)" in done.stdout
    assert "got:      Linear(96, 64), Linear(64, 1)" in done.stdout
    assert "hint:     layer_sizes lists" in done.stdout


def test_what_a_solution_prints_and_its_own_frames_are_shown_with_v(tmp_path):
    line = "user, item = self.U(user_ids), self.Q(item_ids)  # (B, d) each"
    wrong = changed([(line, f"{line}\n        print('shape', user.shape)\n        user.nothing()")])
    folder = solution(tmp_path / "s", wrong)
    quiet, verbose = command("3a-0-basic", "--path", folder), command("3a-0-basic", "--path", folder, "-v")
    number = wrong.splitlines().index("        user.nothing()") + 1
    assert f"AttributeError: 'Tensor' object has no attribute 'nothing' (models.py, line {number})" in quiet.stdout
    assert "shape torch.Size" not in quiet.stdout
    assert "| shape torch.Size([1, 8])" in verbose.stdout
    assert f'File "models.py", line {number}, in forward_with_embedding_sharing' in verbose.stdout
    assert "worker.py" not in verbose.stdout


def test_a_file_of_any_name_and_a_zip_can_be_graded(tmp_path):
    (tmp_path / "my model.py").write_text(MODELS)
    with zipfile.ZipFile(tmp_path / "homework.zip", "w") as archive:
        archive.write(tmp_path / "my model.py", "homework/models.py")
    for name in ("my model.py", "homework.zip"):
        assert "1 / 1" in command("1c", "--path", tmp_path / name).stdout


def test_an_import_that_fails_is_told_once_and_ends_the_grading(tmp_path):
    done = command(
        "--path", solution(tmp_path / "s", "import nothing_like_this\n"), "--gradescope", tmp_path / "r.json"
    )
    reason = (
        "models.py cannot be imported: ModuleNotFoundError: No module named 'nothing_like_this' (models.py, line 1)"
    )
    assert done.stdout.count("nothing_like_this") == 1
    assert reason in done.stdout
    assert done.stdout.count("ERROR") == 14
    results = json.loads((tmp_path / "r.json").read_text())
    assert results["output"] == reason
    assert {test["output"] for test in results["tests"]} == {"ERROR"}


def test_every_wrong_output_is_told(tmp_path):
    changes = WRONG["bias missing"][1] + WRONG["concatenation in another order"][1]
    done = command("3a-1-basic", "--path", solution(tmp_path / "s", changed(changes)))
    assert "(predictions of forward in training mode" in done.stdout
    assert "(score of forward in training mode" in done.stdout
    assert done.stdout.count("expected:") == 2


@pytest.mark.parametrize(
    ("name", "check", "message"),
    [
        ("outputs swapped", "3a-1-basic", "got:      (score, predictions)"),
        ("forward swaps, separate", "3b-1-basic", "expected: (predictions, score) from forward"),
        ("missing ReLU", "3a-1-basic", "the layers are not those of question 2: correct init_mlp_layers first"),
        ("last layer forgotten", "3b-0-basic", "the layers are not those of question 2: correct init_mlp_layers first"),
    ],
)
def test_the_cause_is_named(tmp_path, name, check, message):
    assert message in command(check, "--path", solution(tmp_path / "s", changed(WRONG[name][1]))).stdout


def test_pandas_can_be_imported(tmp_path):
    """It is among the requirements, which Gradescope installs too."""
    assert "1 / 1" in command("1c", "--path", solution(tmp_path / "s", f"import pandas\n{MODELS}")).stdout


# Misbehaving solutions: only the check that they disturb fails


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


def ignore_ctrl_c() -> None:
    """As a shell script does for what it starts in the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_grader_at_once_and_leaves_no_process(tmp_path, number):
    folder = solution(tmp_path / "s", "while True:\n    pass\n")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "grader.py"), "--path", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=ignore_ctrl_c if number == signal.SIGINT else None,
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


# Gradescope


RESULT_FIELDS = {"score", "execution_time", "output", "visibility", "stdout_visibility", "extra_data", "tests"}
TEST_FIELDS = {
    "score", "max_score", "status", "name", "name_format", "number", "output", "tags", "visibility", "extra_data",
}  # fmt: skip


def test_results_json_follows_gradescopes_format(tmp_path):
    path = tmp_path / "results.json"
    wrong = solution(tmp_path / "s", changed(WRONG["missing ReLU"][1]))
    command("2", "1c", "--path", wrong, "--gradescope", path)
    results = json.loads(path.read_text())
    assert set(results) <= RESULT_FIELDS
    assert results["execution_time"] > 0
    for test in results["tests"]:
        assert {"number", "name", "score", "max_score", "output", "visibility"} <= set(test) <= TEST_FIELDS
        assert test["visibility"] in {"visible", "hidden", "after_due_date", "after_published"}
        assert test["status"] in {"passed", "failed"}
        assert isinstance(test["score"], int | float)
        assert 0 <= test["score"] <= test["max_score"]
        assert isinstance(test["output"], str)
    by_number = {test["number"]: test for test in results["tests"]}
    assert {number: test["score"] for number, test in by_number.items()} == {
        "1c-0-basic": 1,
        "2-0-basic": 0,
        "2-1-hidden": 0,
    }
    assert by_number["2-1-hidden"]["visibility"] == "after_published"
    assert by_number["2-0-basic"]["visibility"] == "visible"
    assert "expected:" in by_number["2-0-basic"]["output"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="Gradescope runs it with bash")
def test_the_zip_works_as_gradescope_runs_it(tmp_path):
    make_zip(tmp_path / "autograder.zip")
    place = tmp_path / "autograder"
    with zipfile.ZipFile(tmp_path / "autograder.zip") as archive:
        archive.extractall(place / "source")
        assert archive.getinfo("run_autograder").external_attr >> 16 & 0o111
    (place / "results").mkdir()
    solution(place / "submission", MODELS)
    shutil.copy(place / "source" / "run_autograder", place / "run_autograder")
    environment = {**os.environ, "AUTOGRADER": str(place), "PYTHON": sys.executable}
    done = subprocess.run(
        ["bash", place / "run_autograder"], cwd=place, env=environment, capture_output=True, text=True
    )
    results = json.loads((place / "results" / "results.json").read_text())
    assert done.returncode == 0
    assert sum(test["score"] for test in results["tests"]) == 14

    (place / "submission" / "models.py").unlink()
    (place / "results" / "results.json").unlink()
    done = subprocess.run(
        ["bash", place / "run_autograder"], cwd=place, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert json.loads((place / "results" / "results.json").read_text())["score"] == 0
