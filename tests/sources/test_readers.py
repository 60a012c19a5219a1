"""Files of every format, and every kind of error in them."""

import gzip
import os
from pathlib import Path

import pytest

from config.errors import UserError
from sources import delimited
from sources.delimited import header_names
from sources.readers import read_feedback, read_ratings

ROWS = [("u1", "x", 4.0), ("u2", "y", 3.5), ("u1", "y", 1.0)]


def table(path):
    found, _ = read_ratings(path, (0.5, 5))
    return [(user, item, float(rating)) for user, item, rating in found.itertuples(index=False)]


@pytest.mark.parametrize("separator", [",", "\t", ";", "::"])
@pytest.mark.parametrize("header", ["user,item,rating", "userId,movieId,rating,timestamp", "User_ID,Item ID,Score", ""])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_every_format_reads_the_same(tmp_path, separator, header, compressed, ending):
    lines = [header] if header else []
    stamp = ",881250949" if "timestamp" in header else ""
    lines += [f"{user},{item},{rating}{stamp}" for user, item, rating in ROWS]
    content = (ending.join(lines) + ending).replace(",", separator).encode()
    path = tmp_path / "ratings"
    path.write_bytes(gzip.compress(content) if compressed else content)
    assert table(path) == ROWS


@pytest.mark.parametrize("further", ["", ",881250949", ",881250949,7", ",881250949,good,,x y"])
def test_without_a_header_further_columns_are_ignored(tmp_path, further):
    path = tmp_path / "r.csv"
    path.write_text("".join(f"{user},{item},{rating}{further}\n" for user, item, rating in ROWS))
    assert table(path) == ROWS


def test_columns_are_found_by_name_in_any_order(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("when,rating,comment,user,item\n1,4,good,u1,x\n2,3.5,,u2,y\n3,1,bad,u1,y\n")
    assert table(path) == ROWS


def test_ids_are_kept_character_by_character(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text('007,NA,1\n7,"Heat, 1995",2\nnull,1e3,3\n')
    assert table(path) == [("007", "NA", 1.0), ("7", "Heat, 1995", 2.0), ("null", "1e3", 3.0)]


def test_a_byte_order_mark_and_blank_lines_are_skipped(tmp_path):
    path = tmp_path / "r.csv"
    path.write_bytes(b"\xef\xbb\xbfuser,item,rating\nu1,x,4\n\nu2,y,3.5\nu1,y,1\n\n")
    assert table(path) == ROWS


def test_the_last_of_repeated_pairs_is_kept_and_the_note_counts_the_others(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("a,x,1\nb,x,2\na,x,3\na,y,4\na,x,5\n")
    found, notes = read_ratings(path, (0.5, 5))
    assert list(found.itertuples(index=False, name=None)) == [("b", "x", 2), ("a", "y", 4), ("a", "x", 5)]
    assert len(notes) == 1
    assert notes[0].startswith("2 of 5 rows")


WRONG = {
    "short row": (b"1,2,3\n1,3\n", "line 2: has no rating"),
    "long row": (b"1,2,3\n1,3,4,5,6\n", "line 2: has 5 columns"),
    "no user": (b"user,item,rating\n1,2,3\n,3,4\n", "line 3: has no user"),
    "no rating": (b"user,item,rating\n1,2,3\n1,3,\n", "line 3: has no rating"),
    "after a blank line": (b"1,2,3\n\n1,3,x\n", "line 3: has the rating 'x'"),
    "missing column": (b"user,movie,when\n1,2,3\n", "line 1: is a header without a column rating"),
    "no header and no number": (b"1,2,bad\n", "line 1: reads '1,2,bad': neither a header"),
    "two columns": (b"1,2\n", "line 1: reads '1,2', which is not three columns"),
    "header and rows differ": (b"user,item,rating,time\n1,2,3\n", "line 2: has 3 columns where the header names 4"),
    "word for a rating": (b"user,item,rating\n1,2,good\n", "line 2: has the rating 'good', which is not a number"),
    "nan": (b"user,item,rating\n1,2,nan\n", "line 2: has the rating 'nan'"),
    "infinity": (b"user,item,rating\n1,2,-inf\n", "line 2: has the rating '-inf'"),
    "above the scale": (b"1,2,3\n1,3,5.5\n", "line 2: has the rating '5.5' outside the scale 0.5 to 5"),
    "below the scale": (b"1,2,3\n1,3,0\n", "line 2: has the rating '0' outside"),
    "open quotation": (b'1,2,3\n"1,3,4\n', "line 2: opens a quotation mark"),
    "latin-1": (b"1,2,3\n1,caf\xe9,4\n", "line 2: holds the byte 0xe9, which is not UTF-8"),
    "utf-16": ("1,2,3\n".encode("utf-16"), "line 1: holds the byte 0xff"),
    "empty": (b"", "is empty"),
    "blank": (b" \n\n", "is empty"),
    "header alone": (b"user,item,rating\n", "holds a header but no rows"),
    "open quotation under a header": (b'user,item,rating\nb,c,3\n"d,e,3\nf,g,4\n', "line 3: opens a quotation mark"),
    "old line ends in the header": (b"user,item\r1,2\n3,4\n", "line 1: reads 'user,item', which is not three columns"),
    "a field without end": (b"1,2," + b"9" * 200_000 + b"\n", "line 1: cannot be split into columns"),
    "two columns for the item": (
        b"userId,movieId,item,rating\n1,2,3,4\n",
        "line 1: is a header with 2 columns for the item",
    ),
    "gzip with a wrong byte": (gzip.compress(b"1,2,3\n" * 50)[:10] + b"\xff" * 20, "cannot be read"),
    "nul in an id": (b"1,2,3\n1,5\x00,4\n", "line 2: holds a NUL byte"),
    "nul in the header": (b"user,item,rat\x00ing\n1,5,4\n", "line 1: holds a NUL byte"),
    "bom in an id": (b"user,item,rating\n1,2,3\n1,\xef\xbb\xbf5,4\n", "line 3: holds a byte order mark inside"),
    "second bom": (b"\xef\xbb\xbf\xef\xbb\xbf1,5,4\n", "line 1: holds a byte order mark inside"),
    "broken gzip": (gzip.compress(b"1,2,3\n" * 50)[:-12], "cannot be read"),
}


@pytest.mark.parametrize("case", WRONG)
def test_errors_name_file_line_and_value(tmp_path, case):
    content, message = WRONG[case]
    path = tmp_path / "r.csv"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_ratings(path, (0.5, 5))
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_only_regular_files_are_read(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, kind in ((Path("/dev/zero"), "a device"), (pipe, "a pipe"), (tmp_path, "a directory")):
        for read in (lambda path: read_ratings(path, (0.5, 5)), lambda path: read_feedback(path, ["like"])):
            with pytest.raises(UserError, match=kind) as error:
                read(path)
            assert str(path) in str(error.value)
    assert header_names(pipe) == set()


def test_a_line_without_end_is_no_row(tmp_path, monkeypatch):
    monkeypatch.setattr(delimited, "LONGEST_LINE", 1000)
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 100)
    path = tmp_path / "r.csv"
    path.write_bytes(b"1,2,3\n" + b"7" * 10_000)
    with pytest.raises(UserError, match="holds a line of more than 1,000 bytes, which is no row"):
        read_ratings(path, (0.5, 5))


def test_pandas_prints_no_warnings(tmp_path, recwarn):
    path = tmp_path / "r.csv"
    rows = [f"{u},{u % 7},3,{'x' if u > 300_000 else u}" for u in range(310_000)]
    path.write_text("user,item,rating,what\n" + "\n".join(rows))
    read_ratings(path, (0.5, 5))
    assert not recwarn.list


def times(path, names=None):
    return read_ratings(path, (0.5, 5), names, with_times=True)[0]["timestamp"].tolist()


@pytest.mark.parametrize("header", ["", "user,item,rating,timestamp,x\n", "userId,movieId,stars,Time,x\n"])
def test_timestamps_are_the_fourth_column_or_named_by_the_header(tmp_path, header):
    path = tmp_path / "r.csv"
    path.write_text(header + "1,2,3,881250949,7\n1,3,4,12.5,8\n")
    assert times(path) == [881250949, 12.5]


def test_dates_are_seconds(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text(
        "user,item,rating,time\n1,2,3,1970-01-02\n1,3,4,1970-01-01T00:01:00Z\n1,4,4,1970-01-01 02:00+01:00\n"
    )
    assert times(path) == [86400, 60, 3600]


WITHOUT_TIMES = {
    "no header": ("1,2,3\n", "line 1: has 3 columns and no header; a row is user, item, rating, timestamp"),
    "no column": (
        "user,item,rating,when\n1,2,3,4\n",
        "line 1: is a header without a column timestamp: it names 'user, item, rating, when'; a header may name "
        "timestamp/time, or what --columns time=NAME says",
    ),
    "no time": (
        "user,item,rating,time\n1,2,3,4\n1,3,3,soon\n",
        "line 3: has the timestamp 'soon', which is neither a number nor a date like 2024-12-31",
    ),
}


@pytest.mark.parametrize("case", WITHOUT_TIMES)
def test_missing_timestamps_are_rejected(tmp_path, case):
    content, message = WITHOUT_TIMES[case]
    path = tmp_path / "r.csv"
    path.write_text(content)
    with pytest.raises(UserError) as error:
        times(path)
    assert str(error.value) == f"{path}, {message}"


SHOP = "stars,product_id,customer_id,user,when\n4,x,u1,7,3\n3.5,y,u2,7,2\n1,y,u1,7,1\n"
SHOP_NAMES = {"user": "customer_id", "item": "product_id", "rating": "stars", "time": "when"}


def test_columns_can_be_named(tmp_path):
    path = tmp_path / "shop.csv"
    path.write_text(SHOP)
    found, _ = read_ratings(path, (0.5, 5), SHOP_NAMES, with_times=True)
    assert list(found.itertuples(index=False, name=None)) == [
        (*row, time) for row, time in zip(ROWS, (3, 2, 1), strict=True)
    ]
    assert list(read_ratings(path, (0.5, 5), {"user": "customer_id"})[0]["user"]) == ["u1", "u2", "u1"]


def test_columns_of_feedback_can_be_named(tmp_path):
    path = tmp_path / "shop.csv"
    path.write_text("when,customer,thing,buy\n9,u1,x,1\n8,u2,y,0\n")
    names = {"user": "customer", "item": "thing", "time": "when"}
    found, _ = read_feedback(path, ["buy"], names=names, with_times=True)
    assert list(found.itertuples(index=False, name=None)) == [("u1", "x", 1, 9), ("u2", "y", 0, 8)]


WRONG_NAMES = {
    "no such column": (
        SHOP,
        {"user": "customer"},
        "line 1: is a header without the column 'customer' of --columns: it names 'stars, product_id, customer_id, "
        "user, when'",
    ),
    "no such column of times that are not read": (
        SHOP,
        {"time": "whenever"},
        "line 1: is a header without the column 'whenever' of --columns: it names 'stars, product_id, customer_id, "
        "user, when'",
    ),
    "no header": (
        "1,2,3\n",
        {"user": "customer"},
        "line 1: is a header without the column 'customer' of --columns: it names '1, 2, 3'",
    ),
    "a column taken by another role": (
        "user,item,rating\n1,2,3\n",
        {"user": "item"},
        "line 1: is a header without a column item: it names 'user, item, rating'; a header may name item/movie/film/"
        "product, or what --columns item=NAME says",
    ),
}


@pytest.mark.parametrize("case", WRONG_NAMES)
def test_wrong_names_of_columns_are_rejected(tmp_path, case):
    content, names, message = WRONG_NAMES[case]
    path = tmp_path / "r.csv"
    path.write_text(content)
    with pytest.raises(UserError) as error:
        read_ratings(path, (0.5, 5), names)
    assert str(error.value) == f"{path}, {message}"


def test_a_header_without_any_known_name_is_answered_by_the_accepted_ones(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("customer,thing,mark\n1,2,3\n")
    with pytest.raises(UserError) as error:
        read_ratings(path, (0.5, 5))
    assert str(error.value) == (
        f"{path}, line 1: reads 'customer,thing,mark': neither a header naming user, item and rating, nor a row with "
        "its rating third; a header may name user, item/movie/film/product, rating/score/stars, or what "
        "--columns user=NAME,item=NAME,rating=NAME says"
    )


def test_a_label_cannot_be_the_user(tmp_path):
    path = tmp_path / "f.csv"
    path.write_text("customer,item,buy\n1,2,0\n")
    with pytest.raises(UserError, match="line 1: is a header whose column 'customer' would be both user and customer"):
        read_feedback(path, ["customer"], names={"user": "customer"})


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        read_ratings(tmp_path / "nothing.csv", (0.5, 5))
