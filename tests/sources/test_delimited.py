"""Files read in blocks of lines give the same tables and errors as files read at once."""

import csv
import io
import random

import pandas as pd
import pytest
from test_readers import WRONG

from config.errors import UserError
from sources import delimited
from sources.readers import read_ratings

SCALE = (0.5, 5.0)


def write(path, text: str):
    path.write_bytes(text.encode())
    return path


def table(path):
    return [(user, item, float(rating)) for user, item, rating in read_ratings(path, SCALE)[0].itertuples(index=False)]


def error_message(path) -> str:
    with pytest.raises(UserError) as error:
        read_ratings(path, SCALE)
    return str(error.value)


@pytest.fixture(params=[1, 40, 2**24])
def block_bytes(request, monkeypatch) -> int:
    """From one line per block to the whole file."""
    monkeypatch.setattr(delimited, "BLOCK_BYTES", request.param)
    return request.param


@pytest.mark.parametrize("case", WRONG)
def test_errors_do_not_depend_on_the_block_size(tmp_path, monkeypatch, case):
    content, expected = WRONG[case]
    path = tmp_path / "r.csv"
    path.write_bytes(content)
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 1)
    assert expected in error_message(path)


WRONG_ROWS = {
    "1,2": "has no rating; a row is user, item, rating",
    "1,2,3,4,5": "has 5 columns where the lines before it have 3",
    ",2,3": "has no user; a row is user, item, rating",
    "1,,3": "has no item; a row is user, item, rating",
    "1,2,": "has no rating; a row is user, item, rating",
    "1,2,x": "has the rating 'x', which is not a number",
    "1,2,5.50": "has the rating '5.50' outside the scale 0.5 to 5; --rating_scale LOW HIGH sets another",
    '"1,2,3': "opens a quotation mark that is never closed",
}


@pytest.mark.parametrize("row", WRONG_ROWS)
@pytest.mark.parametrize("header", ["", "user,item,rating\n"])
def test_line_numbers_do_not_depend_on_where_a_block_ends(tmp_path, block_bytes, row, header):
    for place in (1, 6, 13):
        lines = [f"{number},7,2.5" for number in range(20, 33)]
        lines.insert(place, row)
        lines.insert(5, "")  # blank lines count as lines
        path = write(tmp_path / "r.csv", header + "\n".join(lines) + "\n")
        line = lines.index(row) + 1 + bool(header)
        assert error_message(path) == f"{path}, line {line}: {WRONG_ROWS[row]}"


def test_only_rows_without_any_field_count_as_blank(tmp_path, block_bytes):
    path = write(tmp_path / "r.csv", "user,item,rating,time\n1,2,3,4\n,,,\n1,3,3,4\n,,,5\n")
    assert error_message(path) == f"{path}, line 5: has no user; a row is user, item, rating"


def test_an_invalid_byte_is_reported_with_its_line(tmp_path, block_bytes):
    path = tmp_path / "r.csv"
    path.write_bytes(b"user,item,rating\n" + b"1,2,3\n" * 20 + b"1,caf\xe9,4\n" + b"1,2,3\n" * 20)
    assert error_message(path) == f"{path}, line 22: holds the byte 0xe9, which is not UTF-8; save the file as UTF-8"


def test_ids_are_kept_in_blocks_of_numbers_and_of_texts(tmp_path, block_bytes):
    ids = ["7", "8", "12", "007", "7.50", "+7", "-7", "1e3", "00", "0", "99999999999999999999", "x", "9", "7 7", "10"]
    rows = [(user, item, 2.5) for user in ids for item in ("1", "01")]
    path = write(tmp_path / "r.csv", "".join(f"{user},{item},{rating}\n" for user, item, rating in rows))
    assert table(path) == rows
    categories = read_ratings(path, SCALE)[0]["user"].cat.categories
    assert list(categories) == sorted(ids, key=lambda raw_id: (len(raw_id), raw_id))


def test_the_last_of_repeated_pairs_is_kept_across_blocks(tmp_path, block_bytes):
    rows = [(str(n % 4), str(n % 3), 1 + n % 5) for n in range(30)] + [("9", "9", 4)]
    path = write(tmp_path / "r.csv", "".join(f"{user},{item},{rating}\n" for user, item, rating in rows))
    last = {(user, item): (place, rating) for place, (user, item, rating) in enumerate(rows)}
    expected = [(*pair, rating) for pair, (_, rating) in sorted(last.items(), key=lambda found: found[1])]
    assert table(path) == expected
    assert read_ratings(path, SCALE)[1] == (
        f"18 of 31 rows of {path} repeat a (user, item) pair; the last of each is kept",
    )


def test_a_quoted_field_may_span_blocks(tmp_path, block_bytes):
    text = "user,item,rating,comment\n" + '1,"a, b",3,"one\ntwo\n\nthree"\n2,"c\nd",4,""\n' * 2 + "3,e,5,\n"
    path = write(tmp_path / "r.csv", text.replace("1,", "0,", 1))
    expected = [(user, item, float(rating)) for user, item, rating, *_ in list(csv.reader(io.StringIO(text)))[1:]]
    expected[0] = ("0", *expected[0][1:])
    assert table(path) == [row for place, row in enumerate(expected) if row not in expected[place + 1 :]]


@pytest.mark.parametrize("seed", range(6))
def test_blocks_give_the_rows_of_the_csv_module(tmp_path, monkeypatch, seed):
    draw = random.Random(seed)
    monkeypatch.setattr(delimited, "BLOCK_BYTES", draw.randint(1, 60))
    names = ["5", "31", "07", "q", "x y", 'say "so"', "a,b", "two\nlines"][: draw.choice([2, 8])]
    pairs = draw.sample([(user, item) for user in names for item in map(str, range(40))], 60)
    rows = [[user, item, draw.choice(["1", "2.5", "4.00"]), draw.choice(["", "note", "9"])] for user, item in pairs]
    text = io.StringIO()
    csv.writer(text, lineterminator=draw.choice(["\n", "\r\n"])).writerows(
        [["user", "item", "rating", "remark"], *rows]
    )
    path = write(tmp_path / "r.csv", text.getvalue())
    assert table(path) == [(user, item, float(rating)) for user, item, rating, _ in rows]


def test_at_most_one_block_is_parsed_at_a_time(tmp_path, monkeypatch):
    sizes = []
    read_csv = pd.read_csv
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(pd, "read_csv", lambda text, **how: sizes.append(len(text.getvalue())) or read_csv(text, **how))
    path = write(tmp_path / "r.csv", "".join(f"{n},{n % 7},3\n" for n in range(2000)))
    assert len(table(path)) == 2000
    assert len(sizes) >= 15
    assert max(sizes) < 1050


@pytest.mark.parametrize(
    ("text", "is_plain"),
    [
        ("1,2,3\n10,200,3.05\n", True),
        ("0,1,0.5\r\n100,1.007,3\r\n", True),
        ("1,2,3\n01,2,3\n", False),
        ("1,00,3\n", False),
        ("1,2,04.5\n", False),
        ("1,-2,3\n", False),
        ("1, 2,3\n", False),
        ("1,2e1,3\n", False),
        ("1;2,3\n", False),
    ],
)
def test_only_numbers_that_determine_their_text_are_parsed_as_numbers(text, is_plain):
    assert delimited._is_plain(text.encode(), ",") is is_plain
