"""Files of every format, and every way in which one can be wrong."""

import gzip

import pandas as pd
import pytest

from errors import UserError
from readers import read_movies, read_ratings

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


def test_columns_are_found_by_name_in_any_order(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("when,rating,comment,user,item\n1,4,good,u1,x\n2,3.5,,u2,y\n3,1,bad,u1,y\n")
    assert table(path) == ROWS


def test_ids_stay_what_they_are(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text('007,NA,1\n7,"Heat, 1995",2\nnull,1e3,3\n')
    assert table(path) == [("007", "NA", 1.0), ("7", "Heat, 1995", 2.0), ("null", "1e3", 3.0)]


def test_spreadsheet_mark_and_blank_lines_are_passed_over(tmp_path):
    path = tmp_path / "r.csv"
    path.write_bytes(b"\xef\xbb\xbfuser,item,rating\nu1,x,4\n\nu2,y,3.5\nu1,y,1\n\n")
    assert table(path) == ROWS


def test_the_last_of_repeated_pairs_counts_and_the_note_says_how_many(tmp_path):
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
    "five columns": (b"1,2,3,4,5\n", "line 1: has 5 columns and no header"),
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
    "broken gzip": (gzip.compress(b"1,2,3\n" * 50)[:-12], "cannot be read"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_files_are_refused_by_file_line_and_value(tmp_path, case):
    content, complaint = WRONG[case]
    path = tmp_path / "r.csv"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_ratings(path, (0.5, 5))
    assert complaint in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("u.item", b""),
        ("u.item", b"no bars here\n"),
        ("movies.dat", b"7::Heat\n"),
        ("movies.csv", b""),
        ("movies.csv", b"id,name\n7,Heat\n"),
        ("movies.csv", b"movieId,title,genres\n7,Am\xe9lie,Comedy\n"),
    ],
)
def test_a_damaged_catalogue_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=r"the catalogue .* is damaged"):
        read_movies(tmp_path / name)


def test_no_warning_of_pandas_reaches_the_user(tmp_path, recwarn):
    path = tmp_path / "r.csv"
    rows = [f"{u},{u % 7},3,{'x' if u > 300_000 else u}" for u in range(310_000)]
    path.write_text("user,item,rating,what\n" + "\n".join(rows))
    read_ratings(path, (0.5, 5))
    assert not recwarn.list


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        read_ratings(tmp_path / "nothing.csv", (0.5, 5))


def test_catalogues_of_all_movielens_formats(tmp_path):
    genres = tmp_path / "u.genre"
    genres.write_text("unknown|0\nAction|1\nComedy|2\n\n")
    old = tmp_path / "u.item"
    old.write_bytes("7|Amélie (2001)|01-Jan-2001||http://x|0|1|1\n".encode("latin-1"))
    dat = tmp_path / "movies.dat"
    dat.write_bytes("7::Amélie (2001)::Action|Comedy\n".encode("latin-1"))
    utf8 = tmp_path / "10m" / "movies.dat"
    utf8.parent.mkdir()
    utf8.write_text("7::Amélie (2001)::Action|Comedy\n", encoding="utf-8")
    new = tmp_path / "movies.csv"
    new.write_text('movieId,title,genres\n7,"Amélie (2001)",Action|Comedy\n', encoding="utf-8")
    expected = pd.DataFrame({"title": ["Amélie (2001)"], "genres": ["Action|Comedy"]}, index=["7"])
    for path in (old, dat, utf8, new):
        pd.testing.assert_frame_equal(read_movies(path), expected, check_names=False, check_index_type=False)
    assert read_movies(tmp_path / "missing.csv").empty
