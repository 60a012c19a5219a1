"""Downloads from a local server: intact, truncated, modified and malicious archives."""

import functools
import hashlib
import http.server
import io
import os
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace

import pytest
from conftest import ROOT

import dataset
from config.errors import UserError
from dyadic.recipe import read_dyads
from registry import make_config
from sources import download
from sources.catalog import DATASETS, MOVIELENS

ROWS = "".join(
    f"{user}\t{item}\t{1 + (user + item) % 5}\t880000000\n" for user in range(1, 31) for item in range(1, 21)
)


def archive(members: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return buffer.getvalue()


GOOD = {"ml-100k/u.data": ROWS, "ml-100k/u.item": "1|First (1999)|||x|0\n", "ml-100k/u.genre": "unknown|0\n"}


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        if self.path.endswith("short.zip"):
            content = archive(GOOD)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
        else:
            super().do_GET()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A folder served in place of GroupLens; ml-100k is expected to have 600 ratings."""
    folder = tmp_path / "server"
    folder.mkdir()
    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(download, "ADDRESS", f"http://127.0.0.1:{running.server_port}")
        digest = hashlib.sha256(ROWS.encode()).hexdigest()
        digests = {name: hashlib.sha256(GOOD[f"ml-100k/{name}"].encode()).hexdigest() for name in ("u.item", "u.genre")}
        source = replace(MOVIELENS["ml-100k"], num_ratings=600, sha256=digest, digests=digests)
        monkeypatch.setitem(MOVIELENS, "ml-100k", source)
        yield folder
        running.shutdown()


def test_a_download_is_verified_unpacked_and_used_again(server, tmp_path):
    (server / "ml-100k.zip").write_bytes(archive(GOOD))
    data = dataset.load("auto", tmp_path / "data")
    assert (data.name, data.simulated, data.titles[0]) == ("ml-100k", False, "First (1999)")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["ml-100k"]
    (server / "ml-100k.zip").unlink()
    assert dataset.load("ml-100k", tmp_path / "data").fingerprint == data.fingerprint


def test_an_archive_in_the_data_folder_is_used(server, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ml-100k.zip").write_bytes(archive(GOOD))
    assert dataset.load("ml-100k", tmp_path / "data").name == "ml-100k"


BAD = {
    "tampered": (archive(GOOD | {"ml-100k/u.data": ROWS.replace("\t5\t", "\t1\t", 1)}), "sha256"),
    "truncated": (archive(GOOD)[:-40], "damaged"),
    "no archive": (b"<html>Please log in to this network</html>", "damaged"),
    "bad byte": (archive(GOOD)[:60] + b"?" + archive(GOOD)[61:], "damaged"),
    "another set": (archive({"ml-1m/ratings.dat": "1::1::5::1\n"}), "holds no ml-100k/u.data"),
    "outside": (archive(GOOD | {"../evil.txt": "boo"}), "'../evil.txt' points outside"),
    "absolute": (archive(GOOD | {"/tmp/evil.txt": "boo"}), "'/tmp/evil.txt' points outside"),
    "drive": (archive(GOOD | {"C:\\evil.txt": "boo"}), "points outside"),
    "other titles": (archive(GOOD | {"ml-100k/u.item": "1|Second (1999)|||x|0\n"}), "u.item has the sha256"),
    "half a catalog": (archive(GOOD | {"ml-100k/u.item": ""}), "u.item has the sha256"),
    "no genres": (archive({name: GOOD[name] for name in GOOD if "genre" not in name}), "holds no ml-100k/u.genre"),
    "endless ratings": (archive(GOOD | {"ml-100k/u.data": "1" * 40_000}), "u.data has more than 38,464 bytes"),
    "endless titles": (archive(GOOD | {"ml-100k/u.item": "1" * 2**22 + "|"}), "u.item has more than 4,194,304 bytes"),
}


def test_only_known_files_are_unpacked(server, tmp_path):
    more = {"ml-100k/more.bin": "x" * 10**6, "ml-100k/deep/u.data": "1", "other/u.item": "1", "u.user": "1"}
    (server / "ml-100k.zip").write_bytes(archive(GOOD | more))
    dataset.load("ml-100k", tmp_path / "data")
    found = sorted(path.relative_to(tmp_path / "data").as_posix() for path in (tmp_path / "data").rglob("*"))
    assert found == ["ml-100k", "ml-100k/u.data", "ml-100k/u.genre", "ml-100k/u.item"]


def test_of_two_processes_that_unpack_one_archive_both_have_the_data(server, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ml-100k.zip").write_bytes(archive(GOOD))
    replaced, others = os.replace, []

    def after_another(scratch, folder):
        if not others:
            others.append(1)
            others.append(dataset.load("ml-100k", tmp_path / "data").fingerprint)
        replaced(scratch, folder)

    monkeypatch.setattr(os, "replace", after_another)
    assert dataset.load("ml-100k", tmp_path / "data").fingerprint == others[1]
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["ml-100k", "ml-100k.zip"]


def test_a_catalog_with_too_few_movies_is_rejected(server, tmp_path, monkeypatch):
    source = replace(MOVIELENS["ml-1m"], num_ratings=2, num_movies=2)
    monkeypatch.setitem(MOVIELENS, "ml-1m", source)
    rows = {"ml-1m/ratings.dat": "1::1::5::1\n2::2::5::1"}
    (server / "ml-1m.zip").write_bytes(archive(rows | {"ml-1m/movies.dat": "1::First::Drama\n"}))
    with pytest.raises(UserError, match=r"movies\.dat holds 1 movies, not the 2"):
        dataset.load("ml-1m", tmp_path / "data")
    (server / "ml-1m.zip").write_bytes(archive(rows | {"ml-1m/movies.dat": "1::First::Drama\n2::Second::War"}))
    assert download.fetch("ml-1m", tmp_path / "data").movies_file.is_file()


def test_a_download_without_end_is_broken_off(server, tmp_path, monkeypatch):
    (server / "ml-100k.zip").write_bytes(archive(GOOD))
    monkeypatch.setattr(download, "LARGEST_DOWNLOAD", 100)
    with pytest.raises(UserError, match="the download of ml-100k does not end"):
        dataset.load("ml-100k", tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_half_a_catalog_is_noted_and_makes_no_features(server, tmp_path):
    folder = tmp_path / "data" / "ml-100k"
    folder.mkdir(parents=True)
    for name, content in GOOD.items():
        (tmp_path / "data" / name).write_text(content.replace("|x|0", "|x|1"))
    data = dataset.load("ml-100k", tmp_path / "data")
    lacking = "u.item lacks 19 of 20 rated items, such as 2, which are shown by their ids: restore or remove it"
    assert any(note.endswith(lacking) for note in data.notes)
    config = make_config("dyadic", dataset="ml-100k", data_dir=str(tmp_path / "data"), min_user=1, min_item=1)
    with pytest.raises(UserError, match="the movie catalog of ml-100k lacks 19 of 20 items, so that their features"):
        read_dyads(config)
    lines = [f"{item}|Film {item} (1999)|||x|1\n" for item in range(1, 21)]
    (folder / "u.item").write_text("".join(lines))
    assert not any("lacks" in note for note in dataset.load("ml-100k", tmp_path / "data").notes)
    assert read_dyads(config).context.shape[1] > 0


def test_an_incomplete_folder_is_reported_and_left_alone(server, tmp_path):
    folder = tmp_path / "data" / "ml-100k"
    folder.mkdir(parents=True)
    (folder / "README").write_text("only this")
    (server / "ml-100k.zip").write_bytes(archive(GOOD))
    with pytest.raises(UserError, match="ml-100k cannot be written to"):
        dataset.load("auto", tmp_path / "data")
    (tmp_path / "data" / "ml-100k.zip").write_bytes(archive(GOOD))
    with pytest.raises(UserError, match="cannot be unpacked"):
        dataset.load("auto", tmp_path / "data")
    assert [path.name for path in folder.iterdir()] == ["README"]


def test_a_truncated_unpacked_copy_is_used_with_a_note(server, tmp_path, recwarn):
    folder = tmp_path / "data" / "ml-100k"
    folder.mkdir(parents=True)
    (folder / "u.data").write_text("".join(ROWS.splitlines(keepends=True)[:400]))
    data = dataset.load("auto", tmp_path / "data")
    assert "holds 400 ratings, not the 600" in data.notes[0]
    assert data.titles == list(data.items)  # there is no catalog beside it
    assert not recwarn.list


@pytest.mark.parametrize("case", BAD)
def test_a_bad_archive_is_rejected_and_nothing_is_kept(server, tmp_path, case):
    content, message = BAD[case]
    (server / "ml-100k.zip").write_bytes(content)
    with pytest.raises(UserError) as error:
        dataset.load("auto", tmp_path / "data")
    assert message in str(error.value)
    assert list((tmp_path / "data").iterdir()) == []
    assert not (tmp_path / "evil.txt").exists()


def test_a_truncated_download_is_rejected_and_nothing_is_kept(server, tmp_path, monkeypatch):
    monkeypatch.setitem(MOVIELENS, "short", MOVIELENS["ml-100k"])
    with pytest.raises(UserError, match="broke off"):
        dataset.load("short", tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_too_few_rows_are_rejected(server, tmp_path, monkeypatch):
    monkeypatch.setitem(MOVIELENS, "ml-1m", replace(MOVIELENS["ml-1m"], num_ratings=3))
    (server / "ml-1m.zip").write_bytes(archive({"ml-1m/ratings.dat": "1::1::5::1\n2::2::5::1\n"}))
    with pytest.raises(UserError, match="holds 2 ratings, not the 3"):
        dataset.load("ml-1m", tmp_path / "data")


def test_without_a_network_auto_falls_back_to_the_simulated_set_with_a_note(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "ADDRESS", "http://127.0.0.1:9")
    data = dataset.load("auto", tmp_path / "data")
    assert data.simulated
    assert "SIMULATED" in repr(data)
    assert "could not be downloaded" in data.notes[0]
    assert not (tmp_path / "data").exists()


def test_without_a_network_a_named_set_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "ADDRESS", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="cannot be reached"):
        dataset.load("ml-100k", tmp_path / "data")


@pytest.mark.parametrize("name", ["ml-latest-small", "ml-1m", "ml-10m", "ml-20m", "ml-25m", "ml-32m"])
def test_every_movielens_format_is_read(tmp_path, name):
    source = MOVIELENS[name]
    separator, header = ("::", "") if source.ratings.endswith(".dat") else (",", "userId,movieId,rating,timestamp\n")
    folder = tmp_path / source.folder
    folder.mkdir()
    rating = "4.5" if source.scale == (0.5, 5) else "4"
    rows = [separator.join([str(u), str(i), rating, "99"]) for u in range(1, 4) for i in (5, 50)]
    (folder / source.ratings).write_text(header + "\n".join(rows) + "\n")
    titles = separator.join(["50", "Heat (1995)", "Crime"])
    (folder / source.movies).write_text(("movieId,title,genres\n" if header else "") + titles + "\n")
    data = dataset.load(name, tmp_path, test_fraction=0.2)
    assert (len(data.users), list(data.items)) == (3, ["5", "50"])
    assert data.titles == ["5", "Heat (1995)"]
    assert data.train.ratings.unique().tolist() == [float(rating)]


@pytest.mark.parametrize("name", ["ml-2m", "simulated-xing"])
def test_an_unknown_name_is_an_error_that_lists_the_names(tmp_path, name):
    with pytest.raises(UserError, match=f"no MovieLens data set '{name}'; choose one of ml-100k, ml-latest-small, "):
        dataset.load(name, tmp_path)


def test_data_readme_lists_every_data_set_with_its_size():
    page = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    del rows["--dataset"]  # the header
    assert list(rows) == list(DATASETS)
    for name, source in MOVIELENS.items():
        assert f"`{source.folder}/{source.ratings}`" in rows[name]
        assert f"{source.scale[0]:g} to {source.scale[1]:g}" in rows[name]
        if source.num_ratings:
            assert f"{source.num_ratings:,} | " in rows[name]
            assert f"{source.num_users:,} x {source.num_items:,}" in rows[name]


def test_the_catalog_imports_only_the_standard_library():
    code = (
        "import sys; import sources.catalog as catalog; "
        "assert not {'numpy', 'pandas', 'torch', 'tqdm'} & set(sys.modules); print(*catalog.DATASETS)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == list(DATASETS)
