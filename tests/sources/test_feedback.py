"""Files of feedback: a column a label, in every format, and the errors in them."""

import gzip

import pytest

from config.errors import UserError
from sources.readers import read_feedback

FEEDBACK = [("u1", "x", 1.0, 1.0), ("u2", "y", 1.0, 0.0), ("u1", "y", 0.0, 0.0)]


def feedback(path, labels=("view", "like")):
    found, _ = read_feedback(path, labels)
    assert list(found.columns) == ["user", "item", *labels]
    return list(found.itertuples(index=False, name=None))


@pytest.mark.parametrize("separator", [",", "\t", ";", "::"])
@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("user,item,view,like", "{0},{1},{2:.0f},{3:.0f}"),
        ("User ID,movie_id,View,LIKE,timestamp", "{0},{1},{2},{3},881250949"),
        ("like,,view,5,Item,user,note", "{3:.0f},n,{2:.0f},7,{1},{0},"),
        ('"user","item","view","like"', '"{0}","{1}","{2}","{3}"'),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_every_format_of_feedback_reads_the_same(tmp_path, separator, header, row, compressed, ending):
    if separator == "::":
        header, row = header.replace('"', ""), row.replace('"', "")
    lines = [header] + [row.format(*values) for values in FEEDBACK]
    content = b"\xef\xbb\xbf" + (ending.join(lines) + ending).replace(",", separator).encode()
    path = tmp_path / "feedback"
    path.write_bytes(gzip.compress(content) if compressed else content)
    assert feedback(path) == FEEDBACK


def test_labels_come_in_the_requested_order_under_the_requested_names(tmp_path):
    path = tmp_path / "f.csv"
    path.write_text("buy,add_to_cart,rating,item,user,paid,paid_id\n0,1,5,x,a,1,9\n1,1,4,y,b,0,9\n")
    assert feedback(path, ["Add to Cart", "buy"]) == [("a", "x", 1, 0), ("b", "y", 1, 1)]
    assert feedback(path, ("buy", "AddToCart")) == [("a", "x", 0, 1), ("b", "y", 1, 1)]
    assert feedback(path, ("paid",)) == [("a", "x", 1), ("b", "y", 0)]


def test_a_label_may_be_called_rating(tmp_path):
    path = tmp_path / "f.csv"
    path.write_text("user,item,rating\na,x,1\nb,y,0\n")
    assert feedback(path, ("rating",)) == [("a", "x", 1), ("b", "y", 0)]


def test_labels_may_be_words_and_decimals(tmp_path):
    path = tmp_path / "f.csv"
    path.write_text("user,item,view,like\n007,NA,true,FALSE\n7,x,1.0, 0.0\n7,y,True ,0\n")
    found, _ = read_feedback(path, ("view", "like"))
    assert found["view"].tolist() == [1, 1, 1]
    assert found["like"].tolist() == [0, 0, 0]
    assert found["user"].tolist() == ["007", "7", "7"]
    assert (found[["view", "like"]].dtypes == "float32").all()


def test_the_last_of_repeated_impressions_is_kept_for_every_label(tmp_path):
    path = tmp_path / "f.csv"
    path.write_text("user,item,view,like\na,x,1,1\nb,x,1,0\na,x,0,0\na,y,1,1\n")
    found, notes = read_feedback(path, ("view", "like"))
    assert list(found.itertuples(index=False, name=None)) == [("b", "x", 1, 0), ("a", "x", 0, 0), ("a", "y", 1, 1)]
    assert notes == (f"1 of 4 rows of {path} repeat a (user, item) pair; the last of each is kept",)


WRONG_FEEDBACK = {
    "empty": (b"", " is empty; it should hold rows of user, item, view, like"),
    "two columns": (
        b"user,item\n1,2\n",
        ", line 1: reads 'user,item', which is not 4 columns user, item, view, like separated by , tab ; or ::",
    ),
    "no header": (
        b"7,8,1,0\n7,9,1,1\n",
        ", line 1: reads '7,8,1,0': it must be a header naming user, item, view and like",
    ),
    "no user": (
        b"who,item,view,like\n1,2,1,0\n",
        ", line 1: is a header without a column user: it names 'who, item, v",
    ),
    "no such label": (
        b"user,item,view,liked\n1,2,1,0\n",
        ", line 1: is a header without a column like: it names 'user, item, view, liked'",
    ),
    "no such label among many": (
        b"user,item,view" + b",column" * 20 + b",liked\n",
        ", line 1: is a header without a column like: it names 'user, item, view" + ", column" * 20 + ", liked'",
    ),
    "two columns for a label": (
        b"user,item,view,like,Like\n1,2,1,0,0\n",
        ", line 1: is a header with 2 columns for the like: 'user,item,view,like,Like'",
    ),
    "a number": (b"user,item,view,like\n1,2,1,0\n1,3,1,2\n", ", line 3: has '2' for like; a label must be 0 or 1"),
    "a fraction": (b"user,item,view,like\n1,2,0.5,0\n", ", line 2: has '0.5' for view; a label must be 0 or 1"),
    "a word": (b"user,item,view,like\n1,2,yes,0\n", ", line 2: has 'yes' for view; a label must be 0 or 1"),
    "nan": (b"user,item,view,like\n1,2,1,nan\n", ", line 2: has 'nan' for like; a label must be 0 or 1"),
    "nothing": (b"user,item,view,like\n1,2,1,0\n\n1,3,,0\n", ", line 4: has no view; a row is user, item, view, like"),
    "short row": (b"user,item,view,like\n1,2,1,0\n1,3,1\n", ", line 3: has no like; a row is user, item, view, like"),
    "long row": (
        b"user,item,view,like\n1,2,1,0\n1,3,1,0,5\n",
        ", line 3: has 5 columns where the lines before it have 4",
    ),
    "header alone": (b"user,item,view,like\n", " holds a header but no rows"),
}


@pytest.mark.parametrize("case", WRONG_FEEDBACK)
def test_errors_in_feedback_name_file_line_and_value(tmp_path, case):
    content, message = WRONG_FEEDBACK[case]
    path = tmp_path / "f.csv"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_feedback(path, ("view", "like"))
    assert str(error.value).startswith(f"{path}{message}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ((), "no label is given for {}; --labels takes the names of its columns of 0 and 1"),
        (("view", " "), "no label is given for {}; --labels takes the names of its columns of 0 and 1"),
        (("view", "User ID"), "the label 'User ID' names the user column of {}; choose a column of 0 and 1"),
        (("movieId",), "the label 'movieId' names the item column of {}; choose a column of 0 and 1"),
        (("view", "View"), "the labels view, View name one column of {} twice; name each column once"),
    ],
)
def test_invalid_labels_are_rejected(tmp_path, labels, message):
    path = tmp_path / "f.csv"
    path.write_text("user,item,view,like\n1,2,1,0\n")
    with pytest.raises(UserError) as error:
        read_feedback(path, labels)
    assert str(error.value) == message.format(path)
