"""Whatever is given as a file, a config or a command line: a result or one sentence, never a traceback.

The examples are drawn by Hypothesis, the same ones every time.
"""

import contextlib
import io
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import registry
from config import asking, cli
from config.errors import UserError
from config.text import printable
from serving.tables import read_pairs
from sources import delimited
from sources.movies import read_movies
from sources.readers import read_feedback, read_ratings

FAST = settings(
    max_examples=30, derandomize=True, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
LONG = settings(FAST, max_examples=600)
SCALE = (0.5, 5.0)

# Cells, separators and line ends as files have them, beside any bytes.
CELLS = st.sampled_from(
    [b"1", b"2", b"3.5", b"5", b"a", b"", b" ", b"nan", b"1e5", b"\xc3\xa4", b"\xe9", b'"x"', b'"', b"'", b"0", b"-1",
     b"user", b"item", b"rating", b"userId", b"time", b"\0", b"\xef\xbb\xbf", b"2024-01-01", b"\x1b[31m", b"1_0",
     b"inf", b"00", b"1.0", b"9" * 30, b"true", b"\xf0\x9f\x8e\xac"]
)  # fmt: skip
GLUE = st.sampled_from([b",", b",", b",", b"\n", b"\n", b"\t", b";", b"::", b"\r\n", b"\r", b"|"])
TABLES = st.lists(st.tuples(CELLS, GLUE), max_size=24).map(lambda parts: b"".join(b"".join(part) for part in parts))
HEADED = TABLES.map(lambda table: b"user,item,rating,time,like\n" + table)
CONTENTS = st.one_of(st.binary(max_size=60), TABLES, HEADED, TABLES.map(lambda table: b"1,2,3,4\n" * 3 + table))


def one_sentence(error: UserError, named: str = "") -> None:
    text = str(error)
    assert text
    assert named in text
    assert "\n" not in text
    printable(text).encode()


def gives_data_or_a_sentence(path: Path, content: bytes) -> None:
    """Every reader of files of users."""
    path.write_bytes(content)
    for read in (
        lambda: read_ratings(path, SCALE)[0],
        lambda: read_ratings(path, SCALE, {"item": "like"}, with_times=True)[0],
        lambda: read_feedback(path, ["like"])[0],
        lambda: next(read_pairs(path)).users,
    ):
        try:
            assert len(read()) >= 0
        except UserError as error:
            one_sentence(error, named=str(path))


@FAST
@given(content=CONTENTS, block=st.sampled_from([1, 7, 2**23]))
def test_any_bytes_are_data_or_an_error(tmp_path, monkeypatch, content, block):
    monkeypatch.setattr(delimited, "BLOCK_BYTES", block)
    gives_data_or_a_sentence(tmp_path / "r.csv", content)


@FAST
@given(content=TABLES)
def test_ids_and_ratings_that_are_read_are_those_of_the_file(tmp_path, content):
    """What is accepted has ids without invisible characters, and ratings on the scale."""
    path = tmp_path / "r.csv"
    path.write_bytes(b"1,2,3\n" + content)
    try:
        table, _ = read_ratings(path, SCALE)
    except UserError:
        return
    assert table["rating"].between(*SCALE).all()
    assert not table.duplicated(["user", "item"]).any()
    text = (b"1,2,3\n" + content).decode()
    for name in ("user", "item"):
        for raw in table[name].cat.categories:
            assert raw in text
            assert not {"\0", "\ufeff"} & set(raw)


LINES = st.lists(st.one_of(TABLES, st.binary(max_size=30), st.just(b"7|Heat||||0|1"), st.just(b"7::Heat::War")))


@FAST
@given(lines=LINES, genre=st.one_of(st.just(b"War|0\nCrime|1\n"), TABLES))
def test_any_catalog_is_titles_or_an_error(tmp_path, lines, genre):
    (tmp_path / "u.genre").write_bytes(genre)
    for name in ("u.item", "movies.dat", "movies.csv"):
        (tmp_path / name).write_bytes(b"\n".join(lines))
        try:
            assert {"title", "genres"} == set(read_movies(tmp_path / name))
        except UserError as error:
            one_sentence(error)


NAMES = sorted({name for config in registry.MODELS.values() for name in config.__dataclass_fields__})
WORDS = st.one_of(
    st.sampled_from(
        [*registry.MODELS, "0", "1", "-1", "1e9", "nan", "inf", "0.5", "all", "simulated", "", " ", "=", "--"]
    ),
    st.text(st.characters(exclude_categories=()), max_size=8),  # halves of characters included
    st.integers().map(str),
)
FLAGS = st.one_of(st.sampled_from(NAMES), st.sampled_from([*cli.ACTIONS, "model", "recommend", "k", "output", "json"]))
TOKENS = st.one_of(WORDS, FLAGS.map("--{}".format), st.tuples(FLAGS, WORDS).map(lambda pair: f"--{pair[0]}={pair[1]}"))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=2)),
    max_leaves=4,
)
CONFIGS = st.one_of(
    VALUES,
    st.fixed_dictionaries({"model": st.sampled_from(sorted(registry.MODELS))}).flatmap(
        lambda model: st.dictionaries(st.one_of(st.sampled_from(NAMES), WORDS), VALUES, max_size=3).map(model.__or__)
    ),
    st.fixed_dictionaries({"settings": VALUES, "data": VALUES}),
)


def assert_help(end: SystemExit) -> None:
    assert end.code == 0


def gives_a_request_or_a_sentence(words: list[str]) -> None:
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            if asking.is_question(words):
                assert asking.parse(words, registry.MODELS).k >= 1
                return
            request = cli.parse(words, registry.MODELS, registry.CHOICES)
        assert request.config is not None or request.resume is not None
        if request.config is not None:
            json.dumps(request.config.to_dict(), ensure_ascii=False).encode()
    except SystemExit as end:
        assert_help(end)
    except UserError as error:
        one_sentence(error)


@settings(FAST, max_examples=15)
@given(words=st.lists(TOKENS, max_size=6))
def test_any_words_are_a_request_or_an_error(elsewhere, words):
    gives_a_request_or_a_sentence(words)


@FAST
@given(content=CONFIGS)
def test_any_json_is_a_config_or_an_error(elsewhere, content):
    Path("c.json").write_text(json.dumps(content))
    gives_a_request_or_a_sentence(["--config", "c.json"])


@FAST
@given(content=st.binary(max_size=40))
def test_any_bytes_are_no_traceback_as_a_config(elsewhere, content):
    Path("c.json").write_bytes(content)
    gives_a_request_or_a_sentence(["--config", "c.json"])


@pytest.mark.slow
@LONG
@given(content=CONTENTS, block=st.sampled_from([1, 7, 2**23]))
def test_many_files(tmp_path, monkeypatch, content, block):
    monkeypatch.setattr(delimited, "BLOCK_BYTES", block)
    gives_data_or_a_sentence(tmp_path / "r.csv", content)


@pytest.mark.slow
@LONG
@given(words=st.lists(TOKENS, max_size=8), content=CONFIGS)
def test_many_words_and_configs(elsewhere, words, content):
    Path("c.json").write_text(json.dumps(content))
    gives_a_request_or_a_sentence(words)
    gives_a_request_or_a_sentence(["--config", "c.json", *words])
