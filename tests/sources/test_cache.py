"""The binary cache: used while it is valid, rebuilt when it is not, and never required."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest

from config.errors import UserError
from sources import cache, files, packing, readers, simulated, verified

SCALE = (0.5, 5.0)
TEXT = "user,item,rating\n" + "".join(f"u{n % 5},{n % 7},{1 + n % 4}\n" for n in range(40))


@pytest.fixture
def file(tmp_path, monkeypatch) -> Path:
    """A small ratings file, in a folder of its own, that is large enough to be cached."""
    monkeypatch.setattr(cache, "MIN_CACHED_BYTES", 0)
    path = tmp_path / "folder" / "r.csv"
    path.parent.mkdir()
    path.write_text(TEXT)
    return path


@pytest.fixture
def reads(monkeypatch) -> list:
    """The text files parsed so far."""
    found = []
    read = readers.read_ratings
    monkeypatch.setattr(readers, "read_ratings", lambda path, *how: found.append(path) or read(path, *how))
    return found


def cache_of(file: Path) -> Path:
    return file.with_name(f".{file.name}.npz")


def contents(table: cache.Table) -> tuple:
    columns = {name: (column.dtype, column.tolist()) for name, column in table.columns.items()}
    return list(table.users), list(table.items), columns, table.notes


def test_a_file_is_parsed_once_and_the_cache_holds_the_same(file, reads):
    first, second = cache.read_ratings(file, SCALE), cache.read_ratings(file, SCALE)
    assert len(reads) == 1
    assert contents(first) == contents(second)
    assert list(second.users) == [f"u{n}" for n in range(5)]
    assert second.columns["user_ids"].dtype == second.columns["item_ids"].dtype == np.int32
    assert second.notes == (f"5 of 40 rows of {file} repeat a (user, item) pair; the last of each is kept",)
    assert sorted(os.listdir(file.parent)) == [".r.csv.npz", "r.csv"]


def test_times_are_read_where_they_are_needed_and_a_cache_with_times_serves_all(file, reads):
    file.write_text("user,item,rating,timestamp\n" + "".join(f"u{n % 5},{n},{1 + n % 4},{n}\n" for n in range(9)))
    assert "times" not in cache.read_ratings(file, SCALE).columns
    first, second = (cache.read_ratings(file, SCALE, with_times=True) for _ in range(2))
    assert len(reads) == 2
    assert contents(first) == contents(second)
    assert second.columns["times"].tolist() == list(range(9))
    assert second.columns["times"].dtype == np.float64
    assert "times" not in cache.read_ratings(file, SCALE).columns
    assert len(reads) == 2


def test_other_names_of_the_columns_are_read_again(file, reads):
    plain = cache.read_ratings(file, SCALE)
    swapped = cache.read_ratings(file, SCALE, {"user": "item", "item": "user"})
    assert len(reads) == 2
    assert (list(swapped.users), list(swapped.items)) == (list(plain.items), list(plain.users))


def test_small_files_are_not_cached(file, monkeypatch, reads):
    monkeypatch.setattr(cache, "MIN_CACHED_BYTES", len(TEXT) + 1)
    cache.read_ratings(file, SCALE)
    cache.read_ratings(file, SCALE)
    assert len(reads) == 2
    assert os.listdir(file.parent) == ["r.csv"]


def test_a_changed_file_is_parsed_again_even_with_the_same_size_and_time(file, reads):
    cache.read_ratings(file, SCALE)
    before = file.stat()
    file.write_text(TEXT.replace("u0,3,3", "u0,3,5"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    changed = cache.read_ratings(file, SCALE)
    assert len(reads) == 2
    assert changed.columns["ratings"].max() == 5
    assert contents(cache.read_ratings(file, SCALE)) == contents(changed)
    assert len(reads) == 2


def test_a_file_that_was_only_touched_is_not_parsed_again(file, reads):
    cache.read_ratings(file, SCALE)
    os.utime(file, (1, 1))
    cache.read_ratings(file, SCALE)
    assert len(reads) == 1


def test_a_change_of_the_code_invalidates_the_cache(file, reads, monkeypatch):
    cache.read_ratings(file, SCALE)
    monkeypatch.setattr(cache, "_version", lambda *modules: "another")
    cache.read_ratings(file, SCALE)
    cache.read_ratings(file, SCALE)
    assert len(reads) == 2


def test_the_version_depends_on_every_given_module():
    versions = [cache._version(), cache._version(readers), cache._version(simulated), cache._version(readers, cache)]
    assert len(set(versions)) == 4


def test_a_damaged_cache_is_detected_and_rebuilt(file, reads):
    expected = contents(cache.read_ratings(file, SCALE))
    sound = cache_of(file).read_bytes()
    damaged = [sound[:length] for length in range(0, len(sound), 151)]
    damaged += [sound[:place] + bytes([sound[place] ^ 0x55]) + sound[place + 1 :] for place in range(0, len(sound), 37)]
    rebuilt = 0
    for content in damaged:
        cache_of(file).write_bytes(content)
        before = len(reads)
        assert contents(cache.read_ratings(file, SCALE)) == expected
        if len(reads) > before:
            rebuilt += 1
            cache.read_ratings(file, SCALE)
            assert len(reads) == before + 1
    assert rebuilt > 0.7 * len(damaged)  # some bytes of a zip file, such as its dates, do not matter


ARRAYS = {
    "other ratings": ("ratings", lambda ratings: 6 - ratings),
    "other order": ("user_ids", lambda ids: ids[::-1]),
    "id too high": ("item_ids", lambda ids: ids + 1),
    "id below 0": ("user_ids", lambda ids: ids - 1),
    "rating off the scale": ("ratings", lambda ratings: ratings + 4),
    "no number": ("ratings", lambda ratings: np.where(ratings > 2, np.float32("nan"), ratings)),
    "wrong type": ("item_ids", lambda ids: ids.astype(np.float64)),
    "too short": ("user_ids", lambda ids: ids[1:]),
    "matrix": ("ratings", lambda ratings: ratings[:, None]),
    "scalar": ("ratings", lambda ratings: ratings.sum()),
    "empty": ("ratings", lambda ratings: ratings[:0]),
    "time that is no number": ("times", lambda times: times * np.nan),
}
# These can be known only by the digest: the others are rejected even where somebody has written digests that fit.
KNOWN_BY_DIGEST = ("other ratings", "other order")
TEXTS = {
    "half of the users": ("users", lambda users: users[:2]),
    "a user twice": ("users", lambda users: [users[0]] * len(users)),
    "users that are no texts": ("users", lambda users: list(range(len(users)))),
    "no list": ("items", lambda items: 7),
    "notes that are no texts": ("notes", lambda notes: [[]]),
    "no path": ("path", lambda path: None),
}


def rewrite(path: Path, change, name: str, is_text: bool = False, with_digests: bool = False) -> None:
    """Put other contents into a cache under its own key, as somebody does who knows the format."""
    with np.load(path) as stored:
        parts = dict(stored)
    record = json.loads(parts[packing.TEXTS].tobytes())
    arrays = {column: parts[column] for column in record["digests"]}
    contents = record["texts"] if is_text else arrays
    contents[name] = change(contents[name])
    if with_digests:
        verified.write_verified(path, record["key"], packing.Packed(arrays, record["texts"]))
    else:
        parts[packing.TEXTS] = np.frombuffer(json.dumps(record).encode(), np.uint8)
        with path.open("wb") as file:
            np.savez(file, **(parts | arrays))


@pytest.mark.parametrize("case", [*ARRAYS, *TEXTS])
def test_a_cache_with_the_right_key_and_other_contents_is_rewritten(file, reads, case):
    file.write_text(TEXT.replace("rating\n", "rating,time\n").replace("\n", ",7\n").replace("time,7", "time"))
    expected = contents(cache.read_ratings(file, SCALE, with_times=True))
    name, change = (ARRAYS | TEXTS)[case]
    rewrite(cache_of(file), change, name, case in TEXTS, with_digests=case not in KNOWN_BY_DIGEST)
    assert contents(cache.read_ratings(file, SCALE, with_times=True)) == expected
    assert len(reads) == 2
    assert contents(cache.read_ratings(file, SCALE, with_times=True)) == expected
    assert len(reads) == 2


@pytest.mark.parametrize("case", ["compressed", "pipe", "link"])
def test_a_cache_that_the_program_cannot_have_written_is_not_read(file, reads, tmp_path, case):
    expected = contents(cache.read_ratings(file, SCALE))
    stored = cache_of(file)
    if case == "compressed":  # it may unpack to any size
        with np.load(stored) as opened:
            parts = dict(opened)
        with stored.open("wb") as opened:
            np.savez_compressed(opened, **parts)
    elif case == "pipe":
        stored.unlink()
        os.mkfifo(stored)
    else:
        stored.rename(tmp_path / "elsewhere.npz")
        stored.symlink_to(tmp_path / "elsewhere.npz")
    assert contents(cache.read_ratings(file, SCALE)) == expected
    assert len(reads) == 2


def test_the_cache_is_never_unpickled(file, reads, tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    cache.read_ratings(file, SCALE)
    np.savez(cache_of(file).open("wb"), metadata=np.array([Trap()], dtype=object))
    cache.read_ratings(file, SCALE)
    assert len(reads) == 2
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("obstacle", ["replace", "mkdir", "savez"])
def test_reading_works_if_the_cache_cannot_be_written(file, reads, monkeypatch, obstacle):
    def fail(*_, **__):
        raise PermissionError("read-only")

    monkeypatch.setattr({"replace": os, "mkdir": Path, "savez": np}[obstacle], obstacle, fail)
    first, second = cache.read_ratings(file, SCALE), cache.read_ratings(file, SCALE)
    assert contents(first) == contents(second)
    assert len(reads) == 2
    assert os.listdir(file.parent) == ["r.csv"]


def test_a_folder_with_the_name_of_the_cache_is_left_alone(file, reads):
    cache_of(file).mkdir()
    cache.read_ratings(file, SCALE)
    assert cache_of(file).is_dir()
    assert sorted(os.listdir(file.parent)) == [".r.csv.npz", "r.csv"]


def test_concurrent_readers_do_not_disturb_each_other(file):
    expected = contents(cache.read_ratings(file, SCALE))
    start = Barrier(8)

    def read(turn: int) -> list:
        start.wait()
        found = []
        for again in range(6):
            if (turn + again) % 3 == 0:
                cache_of(file).unlink(missing_ok=True)
            found.append(contents(cache.read_ratings(file, SCALE)))
        return found

    with ThreadPoolExecutor(8) as pool:
        assert all(found == [expected] * 6 for found in pool.map(read, range(8)))
    assert set(os.listdir(file.parent)) <= {".r.csv.npz", "r.csv"}


def test_temporary_files_of_killed_processes_are_removed_and_those_of_live_ones_are_not(file):
    dead, alive = (cache_of(file).with_name(f".r.csv.npz.{name}.part") for name in ("dead", "alive"))
    for part in (dead, alive):
        part.write_text("half")
    long_ago = time.time() - files.ABANDONED_AFTER - 60
    os.utime(dead, (long_ago, long_ago))
    cache.read_ratings(file, SCALE)
    assert sorted(os.listdir(file.parent)) == [".r.csv.npz", alive.name, "r.csv"]


def test_a_file_that_changes_while_it_is_read_is_not_cached(file, monkeypatch):
    read = readers.read_ratings

    def read_and_change(path, *how):
        found = read(path, *how)
        path.write_text(TEXT + "new,1,1\n")
        return found

    monkeypatch.setattr(readers, "read_ratings", read_and_change)
    cache.read_ratings(file, SCALE)
    assert os.listdir(file.parent) == ["r.csv"]


@pytest.mark.parametrize("scale", [(2.0, 5.0), (0.5, 3.5)])
def test_the_cache_does_not_hide_ratings_outside_the_scale(file, scale):
    cache.read_ratings(file, SCALE)
    with pytest.raises(UserError, match="outside the scale"):
        cache.read_ratings(file, scale)


def test_notes_use_the_current_path_of_the_file(file, monkeypatch):
    cache.read_ratings(file, SCALE)
    monkeypatch.chdir(file.parent)
    assert cache.read_ratings(Path("r.csv"), SCALE).notes[0].startswith("5 of 40 rows of r.csv repeat")


def test_large_sets_are_simulated_once(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "MIN_CACHED_RATINGS", 1200)
    made = []
    simulate = simulated.simulate
    monkeypatch.setattr(simulated, "simulate", lambda *size: made.append(size) or simulate(*size))
    folder = tmp_path / "not" / "there"
    small, large = (50, 60, 1199), (50, 60, 1200)
    for size in (small, large, small, large):
        table, titles, genres = cache.simulate(size, folder)
        expected = simulate(*size)
        assert (table.columns["item_ids"] == expected.item_ids).all()
        assert (table.columns["ratings"] == expected.ratings).all()
        assert (titles, genres) == (expected.titles, expected.genres)
        assert list(table.users) == [str(n + 1) for n in range(50)]
    assert made == [small, large, small]
    assert os.listdir(folder) == [".simulated-50x60x1200.npz"]
    os.rename(folder / ".simulated-50x60x1200.npz", folder / ".simulated-50x60x1300.npz")
    assert len(cache.simulate((50, 60, 1300), folder)[0]) == 1300


@pytest.mark.parametrize("name", ["titles", "genres", "users"])
def test_a_simulated_set_with_other_texts_is_made_again(tmp_path, monkeypatch, name):
    monkeypatch.setattr(cache, "MIN_CACHED_RATINGS", 1200)
    size = (50, 60, 1200)
    table, *expected = cache.simulate(size, tmp_path)
    path = tmp_path / ".simulated-50x60x1200.npz"
    for change in (lambda texts: [*texts, "more"], lambda texts: 3, lambda texts: texts[::-1]):
        rewrite(path, change, name, is_text=True)
        again, *found = cache.simulate(size, tmp_path)
        assert contents(again) == contents(table)
        assert found == expected
    rewrite(path, lambda texts: [*texts, "more"], name, is_text=True, with_digests=True)
    assert cache.simulate(size, tmp_path)[1:] == (*expected,)
