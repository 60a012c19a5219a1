"""Hand-ins of all kinds: what is found, what is copied, and what is refused."""

import os
import zipfile

import pytest

from config.errors import UserError
from grading.hand_in import MOST_BYTES, collect, digest

MODELS = "class MultiTaskNet:\n    pass\n"


@pytest.fixture
def place(tmp_path):
    folder = tmp_path / "place"
    folder.mkdir()
    return folder


def write(root, **files: str):
    """Files by their path, with __ for a slash and _py for .py: {"sub__models_py": ..}."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_py", ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def names(place) -> set[str]:
    return {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}


def test_a_folder_a_file_and_a_zip_give_the_same_copy(tmp_path, place):
    folder = write(tmp_path / "Ada L", models_py=MODELS)
    other = write(tmp_path, other_py=MODELS) / "other.py"
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("deep/er/models.py", MODELS)
    digests = set()
    for number, path in enumerate([folder, folder / "models.py", other, tmp_path / "a.zip"]):
        copy = place / str(number)
        copy.mkdir()
        collect(path, copy)
        assert (copy / "models.py").read_text() == MODELS
        digests.add(digest(copy))
    assert len(digests) == 1


def test_only_the_files_that_are_imported_are_copied(tmp_path, place):
    folder = write(
        tmp_path / "s",
        models_py="import torch, helper\nfrom layers.dense import Dense\n",
        helper_py="def f():\n    import deeper\n",
        deeper_py="",
        layers__dense_py="",
        other_py="",
    )
    collect(folder, place)
    assert names(place) == {"models.py", "helper.py", "deeper.py", "layers/dense.py"}


def test_forbidden_files_are_not_copied(tmp_path, place):
    folder = write(tmp_path / "s", models_py="import answers\nimport helper\n", answers_py="", helper_py="")
    collect(folder, place, [folder / "answers.py"])
    assert names(place) == {"models.py", "helper.py"}


@pytest.mark.parametrize(
    ("files", "note"),
    [
        ({"models_py": MODELS, "starter__models_py": MODELS}, ""),
        ({"work__models_py": MODELS, "work__starter__models_py": MODELS}, "found in work"),
        ({"models (1)_py": MODELS, "main_py": "x = 1"}, "graded models (1).py: its name should be models.py"),
        ({"models_py": MODELS, "__MACOSX__models_py": "junk"}, ""),
    ],
)
def test_the_models_py_of_a_folder_is_found(tmp_path, place, files, note):
    assert collect(write(tmp_path / "s", **files), place) == note
    assert (place / "models.py").read_text() == MODELS


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"a_txt": "x"}, "there is no models.py in s"),
        ({"a__models_py": MODELS, "b__models_py": MODELS}, "several models.py: a/models.py and b/models.py"),
        ({"a_py": MODELS, "b_py": MODELS}, "there is no models.py in s"),
    ],
)
def test_a_folder_without_one_models_py_is_refused(tmp_path, place, files, sentence):
    with pytest.raises(UserError, match=sentence):
        collect(write(tmp_path / "s", **files), place)


def test_utf_16_is_refused_in_a_sentence(tmp_path, place):
    path = tmp_path / "models.py"
    path.write_text(MODELS, encoding="utf-16")
    with pytest.raises(UserError, match=r"models\.py is in UTF-16, which Python cannot read: save it as UTF-8"):
        collect(path, place)


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="needs symbolic links")
def test_a_link_is_not_followed(tmp_path, place):
    secret = write(tmp_path, secret_py=MODELS) / "secret.py"
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "models.py").symlink_to(secret)
    with pytest.raises(UserError, match="no regular file"):
        collect(tmp_path / "s", place)


def test_a_zip_cannot_write_outside_its_folder(tmp_path, place):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("models.py", MODELS)
        archive.writestr("../../evil.py", "x")
        archive.writestr("/tmp/evil-absolute.py", "x")
    collect(tmp_path / "a.zip", place)
    assert names(place) == {"models.py"}
    assert not (tmp_path / "evil.py").exists()
    assert not os.path.exists("/tmp/evil-absolute.py")


def test_a_zip_that_unpacks_to_too_much_is_refused(tmp_path, place):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("models.py", b"#" * (MOST_BYTES + 1))
    with pytest.raises(UserError, match="more than 20 MB"):
        collect(tmp_path / "a.zip", place)


@pytest.mark.parametrize("content", [b"", b"PK\3\4 nothing", b"Rar!"])
def test_a_broken_zip_is_refused(tmp_path, place, content):
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(UserError, match="cannot be unpacked"):
        collect(tmp_path / "a.zip", place)
