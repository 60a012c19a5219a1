"""What a terminal shows: lines that fit, colors where it has them, and the time that is left."""

import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
import threading

import pytest
from conftest import refused, run
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.answers import as_text
from training.console import log, run_command
from training.epoch_line import epoch_line, in_words, time_left
from training.report import BOX, metric_table, simulated_box
from training.terminal import (
    Marked,
    blocks,
    copyable,
    cut,
    display_width,
    fit_markdown,
    has_colors,
    terminal_width,
    wrap,
)

WORLD = ["--dataset", "simulated", "--simulated_size", 40, 60, 1100, "--epochs", 3]
ESCAPE = "\x1b"
PRINTED = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=30)
FEW = settings(max_examples=40, deadline=None)
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Z", "C"]), min_size=1, max_size=12)


class Terminal:
    """Standard output and standard error on a terminal of so many columns, in the body of a `with`."""

    def __init__(self, monkeypatch, columns: int) -> None:
        self.monkeypatch, self.columns, self.text = monkeypatch, columns, ""

    def __enter__(self) -> "Terminal":
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, self.columns, 0, 0))
        self.stream = os.fdopen(slave, "w", encoding="utf-8")
        for name in ("stdout", "stderr", "__stdout__"):
            self.monkeypatch.setattr(sys, name, self.stream)
        for name in ("COLUMNS", "NO_COLOR"):
            self.monkeypatch.delenv(name, raising=False)
        self.monkeypatch.setenv("TERM", "xterm")
        self.reader = threading.Thread(target=self._read)
        self.reader.start()
        return self

    def __exit__(self, *error) -> None:
        self.monkeypatch.undo()
        self.stream.close()
        self.reader.join()
        os.close(self.master)

    def _read(self) -> None:
        found = b""
        while True:
            try:
                found += os.read(self.master, 4096)
            except OSError:  # the other side is closed
                break
        self.text = found.decode()

    @property
    def lines(self) -> list[str]:
        """What was printed, without colors; a bar is a line for each of its states."""
        return re.split(r"[\r\n]+", re.sub(r"\x1b\[\d+m", "", self.text))


def on_terminal(monkeypatch, columns: int, *arguments) -> Terminal:
    with Terminal(monkeypatch, columns) as terminal:
        assert run(*arguments) == 0
    return terminal


# the width


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("Alien", 5),
        ("", 0),
        ("千と千尋", 8),
        ("e\u0301te\u0301", 3),
        ("\u200bx", 1),
        ("\uff21", 2),
        ("नमस्ते", 4),
        ("Ж", 1),
    ],
)
def test_wide_characters_take_two_columns_and_combining_ones_none(text, columns):
    assert display_width(text) == columns


@given(st.text(max_size=40), st.integers(10, 50))
@FEW
def test_a_cut_line_fits_and_a_line_that_fits_is_not_cut(text, width):
    shown = cut(text, width)
    assert display_width(shown) <= width
    if display_width(text) <= width:
        assert shown == text
    else:
        assert shown.endswith("...")
        assert text.startswith(shown[:-3])
        assert display_width(shown) >= width - 1 or text[len(shown) - 3 :]
    assert cut(text, None) == text


@given(st.lists(WORDS, min_size=1, max_size=30), st.integers(20, 200), st.integers(0, 6))
@FEW
def test_wrapped_lines_fit_and_keep_every_word(words, width, indent):
    text = " " * indent + " ".join(words)
    lines = wrap(text, width).split("\n")
    assert " ".join(lines).split() == text.split()
    assert all(display_width(line) <= width or len(line.split()) == 1 for line in lines)
    assert all(line.startswith(" " * indent) for line in lines)
    assert wrap(text, None) == text


@given(st.lists(PRINTED, min_size=1, max_size=6), st.integers(20, 120))
@FEW
def test_a_command_that_is_broken_is_the_same_command(words, width):
    words = ["python", "main.py", *words]
    shown = copyable("go on:   ", [shlex.quote(word) for word in words], width)
    assert shown.startswith("go on:")
    assert shlex.split(shown.removeprefix("go on:").replace("\\\n", "")) == words  # a shell joins such lines
    for line in shown.split("\n"):
        assert display_width(line) <= width or len(shlex.split(line.removesuffix(" \\"))) == 1


def test_a_short_command_stays_beside_its_label():
    words = ["python", "main.py", "--resume", "run/a"]
    assert (
        copyable("go on:   ", words, None)
        == copyable("go on:   ", words, 80)
        == "go on:   python main.py --resume run/a"
    )
    assert copyable("go on:   ", words, 32) == "go on:\n  python main.py --resume run/a"
    broken = copyable("go on:   ", words, 24)
    assert broken == "go on:\n  python main.py \\\n    --resume run/a"
    pasted = broken.split("\n", 1)[1].replace("python", "echo")
    shell = subprocess.run(["sh", "-c", pasted], capture_output=True, text=True)
    assert shell.stdout == "main.py --resume run/a\n"


@given(st.lists(st.integers(3, 25), min_size=1, max_size=12), st.integers(30, 120))
@FEW
def test_a_table_in_blocks_fits_and_keeps_every_cell(widths, width):
    columns = [["name ", "row  "], *([f"{number:>{size}}" for _ in range(2)] for number, size in enumerate(widths))]
    lines = blocks(columns, width)
    assert max(map(len, lines)) <= width
    heads = [line.split() for line in lines[::3]]
    assert all(head[0] == "name" for head in heads)
    assert [cell for head in heads for cell in head[1:]] == [str(number) for number in range(len(widths))]
    assert len(blocks(columns, None)) == 2


def test_tables_of_markdown_go_on_below_where_they_are_too_wide():
    table = "| method | MRR | MSE |\n|---|---|---|\n| a \\| b | 0.1 | 0.9 |\n| c | 0.2 | 0.8 |"
    text = f"# Title\n\n{table}\n\nThe end."
    assert fit_markdown(text, None) == fit_markdown(text, 25) == text
    lines = fit_markdown(text, 17).split("\n")
    assert max(map(len, lines)) <= 17
    assert lines[2:12] == [
        "| method | MRR", "|--------|-----", "| a \\| b | 0.1", "| c      | 0.2", "",
        "| method | MSE", "|--------|-----", "| a \\| b | 0.9", "| c      | 0.8", "",
    ]  # fmt: skip
    assert lines[-1] == "The end."


@pytest.mark.parametrize("width", [60, 80, 87, 88, 200, None])
def test_the_box_of_simulated_data_fits_and_says_the_same(width):
    box = simulated_box(width)
    lines = box.split("\n")
    assert {len(line) for line in lines} == {min(88, width or 88)}
    assert " ".join(box.replace("|", " ").replace("+", "").replace("-", "").split()) == " ".join(
        BOX.replace("|", " ").replace("+", "").replace("-", "").split()
    )


def test_titles_of_any_script_are_aligned_and_cut():
    rated = [{"item": item, "title": "千と千尋の神隠し" * 3, "rating": 5.0} for item in ("7", "千尋", "long id")]
    text = as_text({"user": "1", "known": True, "rated": rated, "recommended": []}, 40)
    lines = text.split("\n")[2:6]
    starts = {display_width(line[: line.index("千と")]) for line in lines[1:]}
    assert starts == {display_width(lines[0][: lines[0].index("title")])}
    assert all(display_width(line) in (39, 40) for line in lines[1:])
    whole = as_text({"user": "1", "known": True, "rated": rated, "recommended": []})
    assert whole.count("千と千尋の神隠し" * 3) == 3


def test_metrics_of_labels_in_any_script_are_aligned():
    history = [{"epoch": 1, "test_auc": 0.5, "test_いいね_auc": 0.25, "test_いいね_given_view_user_auc": 1e9}]
    lines = metric_table(history, None, {"auc": 1, "いいね_auc": 1, "いいね_given_view_user_auc": 1})
    assert {display_width(line) for line in lines} == {33 + 30}
    assert [line.split()[-3:] for line in lines[1:]] == [
        ["0.5000", "0.5000", "1"], ["0.2500", "0.2500", "1"], ["1.00e+09", "1.00e+09", "1"],
    ]  # fmt: skip
    narrow = [metric_table(history, None, {"auc": 1}, width) for width in (60, 45, 40)]
    assert [table[0].split() for table in narrow] == [["last", "best"], ["last"], ["last"]]
    assert all(display_width(line) == 40 for line in narrow[-1])
    assert narrow[-1][-1].endswith("...  1.00e+09")


# the line of an epoch; tests/test_contract.py has its width for every model

ROW = {"epoch": 3, "train_a": 0.5, "train_joint": 0.25}
ROW |= {"val_mse": 1.5, "val_mrr": 0.1, "test_mse": 2.5, "test_mrr": 0.2}


def test_a_file_gets_the_whole_line():
    line = (
        "epoch   3/100 | train a 0.5000 joint 0.2500 | val mse 1.5000 mrr 0.1000 | test mse 2.5000 mrr 0.2000 | 1.25 s"
    )
    assert epoch_line(ROW, ("mrr", "mse"), 100, 1.25, "about 3 min left") == line
    assert epoch_line(ROW, ("mrr", "mse"), 100, 1.25, "about 3 min left", 200) == f"{line} | about 3 min left"


def test_what_matters_least_goes_first():
    cells = ["val mrr", "about", "val mse", "test mrr", "test mse", "joint", "1.25 s", "train a"]
    narrow = [epoch_line(ROW, ("mrr", "mse"), 100, 1.25, "about 3 min left", width) for width in range(200, 20, -1)]
    counts = []
    for line in narrow:
        parts = dict(part.split(" ", 1) for part in line.split(" | ")[1:])
        has = {
            "val mrr": "mrr" in parts.get("val", ""), "val mse": "mse" in parts.get("val", ""),
            "test mrr": "mrr" in parts.get("test", ""), "test mse": "mse" in parts.get("test", ""),
            "joint": "joint" in parts.get("train", ""), "train a": "a 0" in parts.get("train", ""),
            "about": "about" in parts, "1.25 s": "1.25" in parts,
        }  # fmt: skip
        shown = [cell for cell in cells if has[cell]]
        assert shown == cells[: len(shown)]
        counts.append(len(shown))
    assert counts == sorted(counts, reverse=True)
    assert set(counts) == set(range(9))


def test_the_cells_are_the_same_in_every_line():
    lines = [
        epoch_line(ROW | {"epoch": epoch}, ("mrr", "mse"), 100, seconds, left, 80)
        for epoch, seconds, left in [(1, 0.5, "about 99 min left"), (99, 12.5, "about 1 s left"), (100, 0.1, "")]
    ]
    heads = [re.sub(r" \| about.*|epoch +\d+", "", line) for line in lines]
    assert len(set(heads)) == 1


# the time that is left


def test_the_estimate_on_a_hand_made_clock():
    assert time_left([], 9, False) == ""
    assert time_left([2.0], 9, False) == "about 18 s left"
    assert time_left([2.0], 9, True) == "at most 18 s left"
    assert time_left([2.0, 4.0], 8, False) == "about 24 s left"
    assert time_left([100.0, 1, 1, 1, 1, 1], 60, False) == "about 60 s left"  # a slow start is forgotten
    assert time_left([2.0], 0, True) == ""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.01, "1 s"), (98.7, "99 s"), (100, "2 min"), (5900, "98 min"), (6000, "1.7 h"), (86400, "24.0 h"),
     (86400 * 3, "3 days")],
)  # fmt: skip
def test_durations_are_short(seconds, words):
    assert in_words(seconds) == words


# colors


@pytest.mark.parametrize(
    ("environment", "has"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": "0"}, False), ({"NO_COLOR": ""}, True),
     ({"TERM": "dumb"}, False), ({"TERM": None}, False)],
)  # fmt: skip
def test_a_terminal_has_colors_unless_it_or_its_user_has_none(monkeypatch, environment, has):
    def fail():
        raise ValueError

    with Terminal(monkeypatch, 80) as terminal:
        for name, value in environment.items():
            monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
        assert has_colors(terminal.stream) is has
        assert terminal_width(terminal.stream) == 80
        log(Marked("one\ntwo", "good"), "three", Marked(f"{ESCAPE}[31mfour", "warning"))
        refused_code = run("--epochs", -1)
    assert refused_code == 2
    assert (f"{ESCAPE}[32mone{ESCAPE}[0m\r\n{ESCAPE}[32mtwo{ESCAPE}[0m\r\nthree\r\n" in terminal.text) is has
    assert (f"main.py: {ESCAPE}[31merror{ESCAPE}[0m: --epochs" in terminal.text) is has
    assert f"{ESCAPE}[31mfour" not in terminal.text  # text from elsewhere has no color
    assert "\\x1b[31mfour" in terminal.text
    if not has:
        assert ESCAPE not in terminal.text


def test_files_and_pipes_get_no_colors_and_whole_lines(capsys, elsewhere, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "50")
    monkeypatch.setenv("CLICOLOR_FORCE", "1")
    assert run(*WORLD, "--val_fraction", 0.2, "--logdir", "run/a") == 0
    out, err = capsys.readouterr()
    assert ESCAPE not in out + err
    assert BOX in out
    lines = [line for line in out.split("\n") if line.startswith("epoch")]
    assert len(lines) == 3
    for line in lines:
        assert re.fullmatch(
            r"epoch \d/3 \| train factorization \S+ regression \S+ joint \S+ \| val mrr \S+ mse \S+ \| "
            r"test mrr \S+ mse \S+ \| \S+ s", line
        )  # fmt: skip
    assert ESCAPE not in refused(capsys, "--epochs", -1)


@pytest.mark.parametrize("columns", [60, 80, 160])
def test_a_run_on_a_terminal_fits_it(elsewhere, monkeypatch, columns):
    terminal = on_terminal(monkeypatch, columns, *WORLD, "--model", "shared_bottom", "--logdir", "run/a")
    assert all(display_width(line) <= columns for line in terminal.lines)
    epochs = [line for line in terminal.lines if re.match(r"epoch \d/3 \|", line)]
    assert len(epochs) == 3
    assert all("val view_auc" in line or "view_auc" in line.partition("val ")[2] for line in epochs)
    assert [line.endswith(" left") for line in epochs] == [True, True, False]
    assert any(re.search(r"epoch 1 \|.*% .* [\d,]+ rows/s", line) for line in terminal.lines)
    assert f"{ESCAPE}[33m+--" in terminal.text
    assert f"{ESCAPE}[32mepoch 1/3" in terminal.text  # the best epoch so far
    assert f"{ESCAPE}[32mchosen: epoch" in terminal.text
    tail = terminal.text.replace("\r\n", "\n")
    assert "python main.py --recommend=" in tail
    assert "tensorboard --logdir run" in tail


def test_recommendations_fit_a_terminal(elsewhere, monkeypatch, capsys):
    assert run(*WORLD, "--quiet", "--logdir", "run/a") == 0
    terminal = on_terminal(monkeypatch, 50, "--recommend", "5", "--k", 3)
    assert all(display_width(line) <= 50 for line in terminal.lines)
    assert sum("rank" in line or "score" in line for line in terminal.lines) >= 1


def test_errors_keep_their_sentence_in_one_line_without_a_terminal(capsys):
    def fail() -> int:
        raise MemoryError

    assert run_command("main.py", fail) == 2
    assert capsys.readouterr().err.count("\n") == 1
