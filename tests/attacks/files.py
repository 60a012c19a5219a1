"""Broken files: each is read, or refused with one sentence; a broken cache changes nothing."""

import dataclasses
import io
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sources import cache, catalog
from tests.attacks import runs, worlds
from tests.attacks.programs import Program, limit_memory
from tests.attacks.runner import Attack, Broken, Case, Counts

HALF = 1  # epochs of the run whose files are broken
OTHER_RUN = "closed_form"
QUESTIONS = {
    "recommend": ["--recommend", 1, 2, "--json"],
    "predict": ["--predict", "pairs.csv", "--output", "answer.csv"],
    "for": ["--for", "new.csv", "--output", "answer.jsonl"],
}
INPUTS = {  # file -> the sources of worlds.OWN_FILES that read it
    "my.csv": ("ratings",), "my.tsv": ("tabs",), "my.dat": ("colons",), "train.csv": ("split",), "test.csv": ("split",),
    "labels.csv": ("labels", "dyads"), "ml-100k/u.data": ("movielens", "movielens dyads"),
    "ml-100k/u.item": ("movielens", "movielens dyads"), "ml-100k/u.genre": ("movielens", "movielens dyads"),
}  # fmt: skip
RUN_FILES = ("config.json", "metrics.csv", "last.pt", "best.pt", "data.npz", "result.json")
JSON_VALUES = [None, True, -1, 0, 10**40, 1e308, "", "a", "\x00", [], [1], {}, [[1]], {"a": 1}, "../x", float("nan")]


def prepare(folder: Path) -> None:
    worlds.write_files(folder)
    runs.reference(folder, "run", [*worlds.line("ratings"), "--val_fraction", 0.2, "--epochs", HALF])
    runs.reference(folder, "whole", [*worlds.line("ratings"), "--val_fraction", 0.2, "--epochs", 2])
    runs.reference(folder, "other", runs.arguments(OTHER_RUN))
    cached = Program([*worlds.line("ratings"), "--logdir", "cached"], folder, "cached.log", before=with_cache)
    if not cached.require_decent_end() or not (folder / ".my.csv.npz").is_file():
        raise Broken(f"no cache was written: {cached.last_words}")


def with_cache() -> None:
    """For `before`: cache files of any size, and take any folder of the right form for MovieLens 100K."""
    cache.MIN_CACHED_BYTES = 0
    known = catalog.MOVIELENS["ml-100k"]
    sizes = dict.fromkeys(("num_ratings", "num_users", "num_items", "sha256"))
    catalog.MOVIELENS["ml-100k"] = dataclasses.replace(known, **sizes)
    limit_memory()


def case(given: Case) -> Counts:
    shutil.copytree(given.shared, given.folder, dirs_exist_ok=True)
    kinds: list[Callable[[Case], Counts]] = [
        break_input,
        break_input,
        break_run,
        break_run,
        break_cache,
        break_question,
    ]
    return {"files": 1} | kinds[given.number % len(kinds)](given)


def break_input(given: Case) -> Counts:
    """A file of ratings, labels or titles."""
    name = given.random.choice(list(INPUTS))
    source = given.random.choice(INPUTS[name])
    (given.folder / ".my.csv.npz").unlink()
    how = break_text(given, given.folder / name)
    process = Program([*worlds.line(source), "--logdir", "new"], given.folder, before=with_cache)
    return end(process, given.folder / "new", f"{name}: {how}")


def end(process: Program, run: Path, what: str) -> Counts:
    try:
        is_done = process.require_decent_end()
        if run.name == "new" and is_done:
            runs.require_finite(run)
        elif run.name == "new" and run.exists() and not runs.rows(run):
            raise Broken(f"{process} is refused and leaves a folder")
        runs.require_whole_files(run)
    except Broken as error:
        raise Broken(f"{what}: {error}") from None
    return {"read": 1} if is_done else {"refused": 1}


def break_run(given: Case) -> Counts:
    """A file of a run that is to be resumed or asked."""
    name = given.random.choice(RUN_FILES)
    path = given.folder / "run" / name
    if name.endswith(".json") and given.random.random() < 0.7:
        how = break_json(given, path)
    elif name.endswith((".json", ".csv")):
        how = break_text(given, path)
    else:
        how = break_bytes(given, path, given.folder / "other" / name)
    if given.random.random() < 0.4:
        question = given.random.choice(list(QUESTIONS.values()))
        process = Program([*question, "--logdir", "run", "--device", "cpu"], given.folder, before=limit_memory)
        return end(process, given.folder / "run", f"run/{name}: {how}")
    process = Program(["--resume", "run", "--epochs", 2], given.folder, before=limit_memory)
    found = end(process, given.folder / "run", f"run/{name}: {how}")
    if "read" in found and name not in ("config.json", "result.json"):
        try:
            runs.require_same_run(given.folder / "run", given.folder / "whole")
        except Broken as error:
            raise Broken(f"run/{name}: {how}: resumed without a word, and {error}") from None
    return found


def break_cache(given: Case) -> Counts:
    """The cache of a ratings file: whatever it holds, the result is that of the file."""
    path = given.folder / ".my.csv.npz"
    if given.random.random() < 0.5:
        how = break_arrays(given, path)
    else:
        how = break_bytes(given, path, given.folder / "run" / "data.npz")
    process = Program([*worlds.line("ratings"), "--logdir", "new"], given.folder, before=with_cache)
    found = end(process, given.folder / "new", f"cache: {how}")
    if "refused" in found:
        raise Broken(f"cache: {how}: refused, although the file is intact: {process.last_words}")
    if (given.folder / "new/metrics.csv").read_bytes() != (given.folder / "cached/metrics.csv").read_bytes():
        raise Broken(f"cache: {how}: believed, and the result is another one")
    return found


def break_question(given: Case) -> Counts:
    """The file of a question: pairs to predict, ratings of new users, or settings for --config."""
    name = given.random.choice(["predict", "for", "config"])
    if name == "config":
        shutil.copy(given.folder / "run/config.json", given.folder / "settings.json")
        how = break_json(given, given.folder / "settings.json")
        line = ["--config", "settings.json", "--epochs", 1, "--logdir", "new"]
        return end(Program(line, given.folder, before=with_cache), given.folder / "new", f"settings: {how}")
    file = {"predict": "pairs.csv", "for": "new.csv"}[name]
    how = break_text(given, given.folder / file)
    process = Program([*QUESTIONS[name], "--logdir", "run", "--device", "cpu"], given.folder, before=limit_memory)
    return end(process, given.folder / "run", f"{file}: {how}")


def break_bytes(given: Case, path: Path, other: Path) -> str:
    """Truncate, extend, flip, replace or exchange a binary file; returns what was done."""
    draw = given.random
    content = bytearray(path.read_bytes()) if path.is_file() else bytearray(b"x")
    kinds = ["truncated", "extended", "flipped", "emptied", "zeroed", "a folder", "deleted", "other"]
    kind = draw.choice(kinds)
    if kind in ("a folder", "deleted"):
        path.unlink(missing_ok=True)
        if kind == "a folder":
            path.mkdir()
        return kind
    if kind == "other" and other.is_file():
        shutil.copy(other, path)
        return f"that of another run, {other.name}"
    start = draw.randrange(len(content))
    if kind == "truncated":
        del content[start:]
    elif kind == "extended":
        content += draw.randbytes(100)
    elif kind == "emptied":
        content.clear()
    else:
        length = draw.choice((1, 10, 1000))
        content[start : start + length] = bytes(length) if kind == "zeroed" else draw.randbytes(length)
    path.write_bytes(content)
    return f"{kind} at {start}"


def break_text(given: Case, path: Path) -> str:
    """Break a text file by lines, by values or by bytes; returns what was done."""
    draw = given.random
    if draw.random() < 0.25:
        return break_bytes(given, path, given.folder / "run/data.npz")
    text = path.read_text(encoding="latin-1")
    kind = draw.choice(list(TEXT_KINDS))
    broken = TEXT_KINDS[kind](draw, text)
    path.write_bytes(broken if isinstance(broken, bytes) else broken.encode("utf-8", "surrogateescape"))
    return kind


def _lines(change: Callable[[random.Random, list[str]], object]) -> Callable[[random.Random, str], str]:
    def broken(draw: random.Random, text: str) -> str:
        lines = text.splitlines(keepends=True)
        change(draw, lines)
        return "".join(lines)

    return broken


def _value(draw: random.Random, text: str) -> str:
    """Another value at a random place between separators, in one line or in several."""
    strange = ["", "nan", "inf", "-1", "1e400", "9" * 40, "0", "ü", "\x00", "\x1b[31m", '"', "5.0000001", "1,5", " 3 "]
    separator = next((one for one in ("::", "\t", "|", ",") if one in text), ",")
    lines = text.splitlines()
    for _ in range(draw.choice((1, 1, 5, 50))):
        at = draw.randrange(len(lines))
        values = lines[at].split(separator)
        values[draw.randrange(len(values))] = draw.choice(strange)
        lines[at] = separator.join(values)
    return "\n".join(lines) + "\n"


TEXT_KINDS: dict[str, Callable[[random.Random, str], str | bytes]] = {
    "a value": _value,
    "another value": _value,
    "lines dropped": _lines(lambda draw, lines: lines.__delitem__(slice(0, None, draw.randint(2, 5)))),
    "all but a few lines dropped": _lines(lambda draw, lines: lines.__delitem__(slice(draw.randint(0, 5), None))),
    "lines repeated": _lines(lambda draw, lines: lines.extend(draw.choices(lines, k=50))),
    "lines shuffled": _lines(lambda draw, lines: draw.shuffle(lines)),
    "header dropped": _lines(lambda draw, lines: lines.pop(0)),
    "empty lines": _lines(lambda draw, lines: [lines.insert(draw.randrange(len(lines)), "\n") for _ in range(9)]),
    "UTF-16": lambda draw, text: text.encode("utf-16"),
    "UTF-8 with a mark": lambda draw, text: text.encode("utf-8-sig"),
    "line ends of Windows": lambda draw, text: text.replace("\n", "\r\n"),
    "line ends of old": lambda draw, text: text.replace("\n", "\r"),
    "no line ends": lambda draw, text: text.replace("\n", " "),
    "another separator": lambda draw, text: text.replace(",", draw.choice(";\t|:")),
    "bytes": lambda draw, text: draw.randbytes(draw.choice((1, 100, 10_000))),
    "one very long line": lambda draw, text: text + "x" * 10**6,
    "bytes that are not UTF-8": lambda draw, text: text.encode().replace(
        b"1", draw.choice((b"\xff", b"\xc3", b"\x00")), 5
    ),
}


def break_json(given: Case, path: Path) -> str:
    """Replace, drop or add a value at a random depth; returns what was done."""
    draw = given.random
    content = json.loads(path.read_text())
    place = content
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = draw.choice(keys)
        if isinstance(place[key], (dict, list)) and place[key] and draw.random() < 0.8:
            place = place[key]
            continue
        break
    kind = draw.choice(["replaced", "replaced", "dropped", "added"])
    value = draw.choice(JSON_VALUES)
    if kind == "dropped":
        del place[key]
    elif kind == "replaced" or isinstance(place, list):
        place[key] = value
    else:
        place[draw.choice(["new", "", "epochs", "model", "seed"])] = value
    path.write_text(json.dumps(content))
    return f"{key} {kind} ({value!r})"


def break_arrays(given: Case, path: Path) -> str:
    """An intact archive with other arrays; returns what was done."""
    draw = given.random
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    name = draw.choice([name for name in arrays if name != "metadata"])
    changes: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "reversed": lambda array: array[::-1],
        "raised": lambda array: array + 1,
        "shortened": lambda array: array[:-1],
        "of another type": lambda array: array.astype(np.float64),
        "of another shape": lambda array: array[:, None],
        "negative": lambda array: -array,
        "emptied": lambda array: array[:0],
        "scalar": lambda array: np.float32(1),
        "text": lambda array: array.astype(str),
    }
    how = draw.choice(list(changes))
    arrays[name] = changes[how](arrays[name])
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    path.write_bytes(buffer.getvalue())
    os.utime(path)
    return f"{name} {how}"


ATTACK = Attack(
    "files", "broken data files, run files, settings and caches", case, "files", 500,
    short=100, share=1.2, prepare=prepare,
)  # fmt: skip
