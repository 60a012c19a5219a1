"""Lists, predictions and similar items of trained runs, against a slow reference, and without the original data."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import refused, run

from config.errors import UserError
from serving import load_run
from serving.lists import Choice, raw_order, top_items

MOVIES = ["--dataset", "simulated", "--simulated_size", "60", "80", "2400", "--epochs", "1", "--quiet"]
DYADS = ["--model", "dyadic", "--min_user", "5", "--min_item", "5", "--iterations", "300", "--embedding_dim", "4"]
FAMILIES = {
    "multitask": [],
    "champion": [
        "--preset", "champion", "--ranking", "ease", "--ridge", "50", "--ranking_dim", "8", "--rating_dim", "3",
        "--rating_fits", "2", "--num_features", "4", "--genres", "off",
    ],
    "mmoe": ["--model", "mmoe"],
    "dyadic": DYADS,
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """{family: a run folder of each}; the ratings are simulated in the temporary folder."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MOVIELENS_DIR", raising=False)
        for name, flags in FAMILIES.items():
            assert run(*MOVIES, *flags, "--logdir", name) == 0
        yield {name: folder / name for name in FAMILIES}


@pytest.fixture(params=FAMILIES)
def trained(runs, request):
    return load_run(runs[request.param])


def reference(trained, raw_user: str, k: int, exclude_seen: bool = True, among=None) -> list[str]:
    """Score every item by `forward`, leave out what is seen, sort, ties by raw id."""
    user, task = list(trained.users).index(raw_user), trained.task
    users, items = torch.full((len(trained.items),), user), torch.arange(len(trained.items))
    with torch.no_grad():
        scores = task.score(trained.model, users, items)[0].tolist()
    excluded = task.excluded
    seen = {trained.items[i] for u, i in zip(excluded.user_ids, excluded.item_ids, strict=True) if u == user}
    rows = [
        (-score, len(item), item)
        for score, item in zip(scores, trained.items, strict=True)
        if score > -np.inf and not (exclude_seen and item in seen) and (among is None or item in among)
    ]
    return [item for _, _, item in sorted(rows)[:k]]


@pytest.mark.parametrize(
    "options", [{}, {"k": 3, "exclude_seen": False}, {"among": [*map(str, range(1, 30))]}], ids=str
)
def test_lists_equal_a_slow_reference(trained, options):
    table = trained.recommend(**options)
    for raw_user in trained.users:
        rows = table[table["user"] == raw_user]
        assert rows["item"].tolist() == reference(trained, raw_user, **{"k": 10} | options)
        assert rows["rank"].tolist() == list(range(1, len(rows) + 1))


def test_predictions_equal_forward_and_keep_the_order_of_the_pairs(trained):
    rows = trained.task.data.interactions
    picked = torch.tensor([7, 3, 3, 100])
    users, items = rows.user_ids[picked].long(), rows.item_ids[picked].long()
    table = trained.predict(trained.users[users], trained.items[items])
    assert table["user"].tolist() == [trained.users[user] for user in users]
    assert table["item"].tolist() == [trained.items[item] for item in items]
    with torch.no_grad():
        shown = trained.task.score(trained.model, users, items)[1]
    for name, values in shown.items():
        np.testing.assert_allclose(table[name], values, rtol=1e-6)


def test_the_champion_says_how_sure_it_is(runs):
    table = load_run(runs["champion"]).recommend(["1"])
    assert table["rating_std"].between(0.1, 3).all()


def test_users_come_in_the_order_asked_for_and_unknown_ones_get_popular_items(trained):
    asked = ["9", "nobody", "2", "9"]
    table = trained.recommend(asked, k=2)
    assert table["user"].tolist() == [user for user in asked for _ in range(2)]
    unknown = table[table["user"] == "nobody"]
    assert not unknown["known"].any()
    assert table[table["user"] != "nobody"]["known"].all()
    counts = trained.task.data.interactions.item_counts.tolist()
    popular = sorted(range(len(counts)), key=lambda row: (-counts[row], row))
    assert unknown["item"].tolist() == [trained.items[row] for row in popular[:2]]


def test_numbers_are_ids_too(trained):
    pd.testing.assert_frame_equal(trained.recommend([9, 2.0], k=3), trained.recommend(["9", "2"], k=3))


def test_similar_items_have_the_highest_cosine_similarity(runs):
    trained = load_run(runs["multitask"])
    table = trained.embeddings()["Q"]
    assert table.index.tolist() == list(trained.items)
    unit = table.to_numpy() / np.linalg.norm(table.to_numpy(), axis=1, keepdims=True)
    similarity = pd.Series(unit @ unit[4], index=table.index).drop("5").sort_values(ascending=False)
    found = trained.similar_items("5", k=4)
    assert found["item"].tolist() == similarity.index[:4].tolist()
    np.testing.assert_allclose(found["similarity"], similarity[:4], rtol=1e-5)


class Flat:
    """A task whose scores are equal in groups of items; items have the given raw ids."""

    def __init__(self, scores: torch.Tensor) -> None:
        self.scores = scores

    def score(self, model, user_ids, item_ids):
        return self.scores[user_ids, item_ids], {}

    def score_all(self, model, user_ids):
        return self.scores[user_ids]


def test_equal_scores_are_ordered_by_raw_id_also_beyond_the_candidates():
    raw_ids = np.random.default_rng(0).permutation(np.arange(100)).astype(str).astype(object)
    scores = torch.zeros(2, 100)
    scores[1, 17] = 1.0
    items, _ = top_items(None, Flat(scores), torch.tensor([0, 1]), 5, raw_order(raw_ids), Choice())
    assert raw_ids[items[0]].tolist() == ["0", "1", "2", "3", "4"]
    others = [raw for raw in ("0", "1", "2", "3", "4") if raw != raw_ids[17]][:4]
    assert raw_ids[items[1]].tolist() == [raw_ids[17], *others]


def test_rounding_of_the_fast_scores_changes_no_list():
    random = torch.Generator().manual_seed(0)
    exact = torch.randn(20, 400, generator=random) + 30
    exact[:, 50:] = 30 + 1e-6 * torch.randn(20, 350, generator=random)
    task = Flat(exact)
    task.score_all = lambda model, users: exact[users] + 2e-5 * torch.randn(20, 400, generator=random)
    place = raw_order(np.arange(400).astype(str).astype(object))
    items, scores = top_items(None, task, torch.arange(20), 60, place, Choice())
    expected = torch.sort(exact, dim=1, descending=True, stable=True)
    assert torch.equal(items, expected.indices[:, :60])
    assert torch.equal(scores, expected.values[:, :60])


@pytest.mark.parametrize("num_items", [30, 640, 4999, 5000])
def test_the_best_of_long_rows_are_those_of_a_full_sort(num_items):
    random = torch.Generator().manual_seed(num_items)
    task = Flat(torch.randn(7, num_items, generator=random).round(decimals=2))
    task.scores[:, num_items // 2 :] = -torch.inf
    place = raw_order(np.arange(num_items).astype(str).astype(object))
    items, scores = top_items(None, task, torch.arange(7), 12, place, Choice())
    expected = torch.sort(task.scores, dim=1, descending=True, stable=True)
    assert torch.equal(items, expected.indices[:, :12])
    assert torch.equal(scores, expected.values[:, :12])


def test_a_run_answers_the_same_after_its_ratings_are_gone(elsewhere):
    lines = [
        f"u{user},i{item},{1 + (user * item) % 5}" for user in range(30) for item in range(40) if (user + item) % 3
    ]
    (elsewhere / "shop.csv").write_text("user,item,rating\n" + "\n".join(lines) + "\n")
    assert run("--ratings", "shop.csv", "--epochs", 2, "--val_fraction", 0.1, "--logdir", "mine", "--quiet") == 0
    before = load_run("mine")
    (elsewhere / "shop.csv").unlink()
    shutil.move("mine", "moved")
    after = load_run("moved")
    assert after.task.data.fingerprint == before.task.data.fingerprint
    pd.testing.assert_frame_equal(after.recommend(), before.recommend())
    pairs = ["u1", "u2"], ["i3", "i4"]
    pd.testing.assert_frame_equal(after.predict(*pairs), before.predict(*pairs))


@pytest.mark.parametrize("family", FAMILIES)
def test_data_survive_the_run_folder(runs, family):
    trained = load_run(runs[family])
    record = json.loads((runs[family] / "config.json").read_text())["data"]
    assert trained.task.data.fingerprint == record["fingerprint"]
    assert repr(trained.task.data) == record["summary"]
    with np.load(runs[family] / "data.npz", allow_pickle=False) as entries:
        assert all(entries[name].dtype != object for name in entries.files)


BAD_CALLS = {
    "unknown user": (lambda one: one.predict(["nobody"], ["1"]), "user nobody is not in the data"),
    "unknown items": (lambda one: one.predict(["1", "1"], ["x", "y"]), "item x and 1 more items are not in the data"),
    "no pairs": (lambda one: one.predict([], []), "at least one, not 0 and 0"),
    "half a pair": (lambda one: one.predict(["1"], ["1", "2"]), "not 1 and 2"),
    "no users": (lambda one: one.recommend([]), "at least one user"),
    "no list": (lambda one: one.recommend(["1"], k=0), "k of at least 1"),
    "one text": (lambda one: one.recommend("196"), "give a list of ids"),
    "nothing to choose from": (lambda one: one.recommend(["1"], among=[]), "no items to choose from"),
    "unknown choice": (lambda one: one.recommend(["1"], among=["x"]), "item x is not in the data"),
    "unknown item": (lambda one: one.similar_items("x"), "item x is not in the data"),
    "unknown table": (lambda one: one.similar_items("1", table="V"), "no item table V: it has Q"),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_calls_get_one_sentence(runs, case):
    call, complaint = BAD_CALLS[case]
    with pytest.raises(UserError, match=complaint):
        call(load_run(runs["multitask"]))


def test_the_dyadic_learner_names_a_pair_that_is_no_dyad(runs):
    trained = load_run(runs["dyadic"])
    known = set(trained.task.data.pair_keys.tolist())
    user, item = next(
        (u, i) for u in range(60) for i in range(len(trained.items)) if u * len(trained.items) + i not in known
    )
    with pytest.raises(UserError, match="are no dyad of the run's data"):
        trained.predict([trained.users[user]], [trained.items[item]])


# from the shell


@pytest.fixture
def asked(runs, tmp_path, monkeypatch):
    """Ask the run of the multi-task net in a folder of the test's own: the exit code."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments, family="multitask": run(*arguments, "--logdir", runs[family])


@pytest.mark.parametrize("family", FAMILIES)
def test_lists_for_all_users_go_to_a_file(asked, runs, family, tmp_path, capsys):
    assert asked("--recommend", "all", "--k", 4, "--output", "top.csv", family=family) == 0
    trained = load_run(runs[family])
    expected = trained.recommend(k=4)
    found = pd.read_csv(tmp_path / "top.csv", dtype={"user": str, "item": str})
    assert found[["user", "item"]].equals(expected[["user", "item"]].astype(found["user"].dtype))
    assert f"wrote top.csv: {len(expected):,} rows" in capsys.readouterr().out


def test_lists_as_lines_of_json(asked, tmp_path):
    assert asked("--recommend", "9", "nobody", "--k", 2, "--output", "top.jsonl") == 0
    rows = [json.loads(line) for line in (tmp_path / "top.jsonl").read_text().splitlines()]
    assert [(row["user"], row["rank"], row["known"]) for row in rows] == [
        ("9", 1, True), ("9", 2, True), ("nobody", 1, False), ("nobody", 2, False),
    ]  # fmt: skip
    assert rows[2]["score"] is None


def test_several_users_on_the_terminal(asked, capsys):
    assert asked("--recommend", "9", "2", "--k", 3) == 0
    out = capsys.readouterr().out
    assert out.index("User 9 rated highest") < out.index("User 2 rated highest")
    assert asked("--recommend", "9", "2", "--k", 3, "--json") == 0
    answers = json.loads(capsys.readouterr().out)
    assert [(one["user"], len(one["recommended"])) for one in answers] == [("9", 3), ("2", 3)]


def test_predictions_for_a_file_of_pairs(asked, runs, tmp_path, capsys):
    (tmp_path / "pairs.csv").write_text("item,day,user\n7,x,3\n5,y,3\n7,x,3\n")
    assert asked("--predict", "pairs.csv", "--output", "out.csv") == 0
    assert asked("--predict", "pairs.csv") == 0
    printed = capsys.readouterr().out.partition("rows\n")[2]
    assert printed == (tmp_path / "out.csv").read_text()
    expected = load_run(runs["multitask"]).predict(["3", "3", "3"], ["7", "5", "7"])
    found = pd.read_csv(tmp_path / "out.csv", dtype={"user": str, "item": str})
    np.testing.assert_allclose(found["predicted_rating"], expected["predicted_rating"], rtol=1e-6)
    assert found["item"].tolist() == ["7", "5", "7"]


BAD_QUESTIONS = {
    "unknown user in a file": (["--predict", "p.csv"], "user,item\n1,1\nx,1\n", "p.csv, line 3: user 'x' is not in"),
    "unknown item in a file": (["--predict", "p.csv"], "user,item\n1,q\n1,r\n", "p.csv, line 2: item 'q' is not in"),
    "no header": (["--predict", "p.csv"], "1,1\n", "p.csv, line 1: reads '1,1': it must be a header"),
    "empty file": (["--predict", "p.csv"], "", "p.csv is empty"),
    "no rows": (["--predict", "p.csv"], "user,item\n", "p.csv holds a header but no rows"),
    "a line without an item": (["--predict", "p.csv"], "user,item\n1,\n", "line 2"),
    "no file": (["--predict", "none.csv"], "", "there is no file none.csv"),
    "all without a file": (["--recommend", "all"], "", "--recommend all writes a file"),
    "output that exists": (["--recommend", "1", "--output", "p.csv"], "", "p.csv exists already"),
    "output without a folder": (["--recommend", "1", "--output", "a/b.csv"], "", "there is no folder a"),
    "output of another kind": (["--recommend", "1", "--output", "b.txt"], "", "must end in one of .csv, .jsonl"),
    "no items": (["--recommend", "1", "--k", "0"], "", "--k must be at least 1"),
    "two questions": (["--recommend", "1", "--predict", "p.csv"], "", "are two questions"),
    "json of a file": (["--predict", "p.csv", "--json"], "user,item\n1,1\n", "--json prints the answer to --recommend"),
    "a flag of training": (["--recommend", "1", "--lr", "3"], "", "--lr means nothing to a trained run"),
    "going on": (["--recommend", "1", "--resume", "x"], "", "--resume goes on training"),
    "unknown flag": (["--recommend", "1", "--outputs", "x"], "", "did you mean --output"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_QUESTIONS)
def test_bad_questions_get_one_sentence_and_leave_no_file(runs, tmp_path, monkeypatch, capsys, case):
    arguments, content, complaint = BAD_QUESTIONS[case]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.csv").write_text(content)
    assert complaint in refused(capsys, *arguments, "--logdir", runs["multitask"])
    assert [path.name for path in tmp_path.iterdir()] == ["p.csv"]


def test_a_mistake_late_in_a_file_leaves_no_output(asked, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sources.delimited.BLOCK_BYTES", 40)
    (tmp_path / "p.csv").write_text("user,item\n" + "1,1\n" * 50 + "1,unknown\n")
    assert asked("--predict", "p.csv", "--output", "out.csv") == 2
    assert "p.csv, line 52: item 'unknown'" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["p.csv"]


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda path: path.unlink(), "data.npz is missing"),
        (lambda path: path.write_bytes(b"no archive"), "data.npz is damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:-400]), "data.npz is damaged"),
    ],
)
def test_a_run_without_its_data_gets_one_sentence(runs, tmp_path, capsys, damage, complaint):
    shutil.copytree(runs["multitask"], tmp_path / "copy")
    damage(tmp_path / "copy" / "data.npz")
    assert complaint in refused(capsys, "--recommend", "1", "--logdir", tmp_path / "copy")


def test_data_of_another_family_are_refused(runs, tmp_path, capsys):
    shutil.copytree(runs["multitask"], tmp_path / "copy")
    shutil.copy(runs["dyadic"] / "data.npz", tmp_path / "copy" / "data.npz")
    assert "does not hold the data of this run" in refused(capsys, "--recommend", "1", "--logdir", tmp_path / "copy")


def test_flipped_bytes_in_the_data_are_noticed(runs, tmp_path, capsys):
    shutil.copytree(runs["multitask"], tmp_path / "copy")
    path = tmp_path / "copy" / "data.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(bytes(content))
    assert "data.npz" in refused(capsys, "--recommend", "1", "--logdir", tmp_path / "copy")
