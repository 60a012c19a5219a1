"""Catalogs of movies: every format of MovieLens, and damaged ones."""

import pandas as pd
import pytest

from config.errors import UserError
from sources.movies import read_movies

ITEM = "|".join(["7", "Heat (1995)", "", "", "", "0", "1"]).encode()


@pytest.mark.parametrize(
    ("item", "genre", "message"),
    [
        (ITEM, b"Crime|0\n", "line 1 has 7 fields where 5 and a 0 or 1 for each of 1 genres belong"),
        (ITEM[:-2], b"Crime|0\nWar|1\n", "line 1 has 6 fields"),
        (ITEM + b"\n" + ITEM[:-1], b"Crime|0\nWar|1\n", "line 2 has 7 fields"),
        (ITEM, b"Crime|0\nWar|", "u.genre beside it does not number the genres"),
        (ITEM, b"War|1\nCrime|0\n", "u.genre beside it does not number the genres"),
        (ITEM, None, "u.genre beside it cannot be read: No such file"),
    ],
)
def test_half_a_catalog_is_rejected(tmp_path, item, genre, message):
    (tmp_path / "u.item").write_bytes(ITEM)
    (tmp_path / "u.genre").write_bytes(b"Crime|0\nWar|1\n")
    assert read_movies(tmp_path / "u.item")["genres"].tolist() == ["War"]
    (tmp_path / "u.item").write_bytes(item)
    if genre is None:
        (tmp_path / "u.genre").unlink()
    else:
        (tmp_path / "u.genre").write_bytes(genre)
    with pytest.raises(UserError, match=f"the catalog .*u.item is damaged .{message}.*; restore or remove it"):
        read_movies(tmp_path / "u.item")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("u.item", b""),
        ("movies.csv", b"movieId,title,genres\n7,Heat,Crime\n8,Ran\n"),
        ("u.item", b"no bars here\n"),
        ("movies.dat", b"7::Heat\n"),
        ("movies.csv", b""),
        ("movies.csv", b"id,name\n7,Heat\n"),
        ("movies.csv", b"movieId,title,genres\n7,Am\xe9lie,Comedy\n"),
    ],
)
def test_a_damaged_catalog_is_rejected(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=r"the catalog .* is damaged"):
        read_movies(tmp_path / name)


def test_catalogs_of_all_movielens_formats(tmp_path):
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
