"""The results table of the dyadic learner: units, comparisons between arms, and the written files."""

import json
import math
import multiprocessing
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from dyadic_worlds import toy_dyads

from analysis import dyadic as experiment
from analysis import dyadic_tables as tables
from analysis.dyadic import DEFAULT_FEATURES, FIXED, Unit, measure, measure_arms, run
from analysis.dyadic_tables import ARMS
from analysis.dyadic_worlds import World, simulated_world
from config.dyadic import TASKS, LearnerOptions
from config.errors import UserError
from dyadic.data import DyadicData
from dyadic.features import add_features
from dyadic.metrics import METRICS, TaskMetrics
from dyadic.tuning import folds
from training.console import silent
from training.session import versions

pytestmark = pytest.mark.slow  # every test needs runs of the experiment

TINY = LearnerOptions(iterations="60", epochs=2, batch_size=10, eps=0.0, embedding_dim=3)


def load_tiny(seed: int) -> DyadicData:
    """8 users x 24 items, three quarters of the pairs, labels at random."""
    random = np.random.default_rng(seed)
    pairs = np.argwhere(random.random((8, 24)) < 0.75)
    labels = (random.random((len(pairs), 3)) < [0.4, 0.2, 0.2]).astype(int)
    return toy_dyads(pairs, labels, random.permutation(len(pairs))[: len(pairs) // 2], 8, 24)


def load_invented(seed: int) -> DyadicData:
    return replace(load_tiny(seed), simulated=True, notes=("SIMULATED: made up",))


REAL = World("tiny N", load_tiny, load_unfiltered=load_tiny)
INVENTED = World("invented", load_invented)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """An experiment on two worlds and two seeds: (its folder, the paths it returned, the lines it logged)."""
    folder, lines = tmp_path_factory.mktemp("experiment"), []
    return folder, run(folder, [REAL, INVENTED], seeds=2, jobs=2, options=TINY, log=lines.append), lines


# arms


def test_every_arm_learns_the_four_tasks_with_the_same_budget():
    runs = experiment.arms(FIXED)
    assert list(runs) == list(ARMS)
    for arm in runs.values():
        assert sorted(task for one in arm for task in one.active) == sorted(TASKS)
        for one in arm:
            assert (one.lr, one.four_lambdas, one.iterations, one.epochs) == (1e-2, (1e-2,) * 4, "50000", 20)
            assert one.lr * one.batch_size == pytest.approx(0.64)
            assert one.eps == 0  # otherwise some arms would take fewer steps
    assert [one.embedding_dim for one in runs["alone, features"]] == [0, 0, 0, 30]
    assert [one.embedding_dim for one in runs["alone, embeddings of its own"]] == [30] * 4


def test_a_run_that_two_arms_share_is_trained_once(monkeypatch):
    trained = []
    real = experiment.score_dyads
    monkeypatch.setattr(experiment, "score_dyads", lambda data, one: trained.append(one) or real(data, one))
    measured = measure_arms(add_features(load_tiny(0)), None, TINY)
    assert len(trained) == len(set(trained)) == 9
    assert measured["alone, features"]["embedding"] is measured["alone, embeddings of its own"]["embedding"]


@pytest.mark.parametrize("held_out", [True, False])
def test_labels_of_test_dyads_change_neither_scores_nor_thresholds(held_out):
    data = load_tiny(3)
    labels = data.labels.copy()
    labels[data.test] = np.random.default_rng(0).permutation(labels[data.test])
    data, permuted = (add_features(one) for one in (data, replace(data, labels=labels)))
    for one in {one for runs in experiment.arms(TINY).values() for one in runs}:
        for ours, theirs in zip(*(experiment.score_dyads(d, one).values() for d in (data, permuted)), strict=True):
            assert (ours == theirs).all()
    parts = [next(folds(one, DEFAULT_FEATURES)) if held_out else None for one in (data, permuted)]
    ours, theirs = (measure_arms(*pair, TINY) for pair in zip((data, permuted), parts, strict=True))
    for arm in ARMS:
        for task in TASKS:
            assert ours[arm][task][1] == theirs[arm][task][1]
    assert ours["together"]["click"][0].means != theirs["together"]["click"][0].means


def test_the_threshold_is_the_best_of_the_training_dyads(monkeypatch):
    data = toy_dyads([(0, i) for i in range(8)], [(i in (0, 1, 7), 0, 0) for i in range(8)], train=[0, 1, 2, 3])
    score = np.array([2.0, 1.0, 0.5, -1.0, 3.0, 3.0, 3.0, -3.0])
    monkeypatch.setattr(experiment, "score_dyads", lambda data, options: {"click": score})
    metrics, threshold = experiment.measure_run(data, None, TINY)["click"]
    assert (
        1 / (1 + math.exp(-0.5)) < threshold < 1 / (1 + math.exp(-1.0))
    )  # between the two clicked dyads and the others
    assert metrics.means["f1"] == 0.0  # a lower threshold would be better on the test dyads
    part = replace(data, train=np.array([0, 2]), test=np.array([1, 3]))
    _, lower = experiment.measure_run(data, part, TINY)["click"]
    assert (
        1 / (1 + math.exp(1.0)) < lower < 1 / (1 + math.exp(-0.5))
    )  # chosen on dyads 1 and 3; the first of equal ones


def test_held_out_dyads_are_scored_by_a_network_that_was_not_fitted_to_them(monkeypatch):
    data = add_features(load_tiny(1))
    part = next(folds(data, DEFAULT_FEATURES))
    seen = []
    real = experiment.score_dyads
    monkeypatch.setattr(experiment, "score_dyads", lambda data, one: seen.append(data.train) or real(data, one))
    experiment.measure_run(data, part, TINY)
    assert len(seen) == 2
    assert (seen[0] == data.train).all()
    assert set(seen[1]) == set(data.train) - set(part.test)
    assert len(part.test) == pytest.approx(len(data.train) / 3, abs=1)


# units


def test_a_unit_is_measured_once(written):
    folder, paths, first = written
    assert len(list((folder / "units").iterdir())) == 4
    assert [line.split()[0] for line in first] == ["1/4", "2/4", "3/4", "4/4"]
    names = {line.split(" ", 1)[1].split(";")[0] for line in first}
    assert names == {"tiny N, seed 0", "invented, seed 0", "tiny N, seed 1", "invented, seed 1"}
    assert all("min to go" in line for line in first)
    before, lines = [path.read_bytes() for path in paths if path.suffix != ".png"], []
    assert run(folder, [REAL, INVENTED], seeds=2, options=TINY, log=lines.append) == paths
    assert lines == [f"4 of 4 units are finished already, in {folder / 'units'}"]
    assert [path.read_bytes() for path in paths if path.suffix != ".png"] == before


@pytest.mark.parametrize(
    "other",
    [
        Unit(REAL, DEFAULT_FEATURES, replace(TINY, lr=0.02)),
        Unit(REAL, DEFAULT_FEATURES, replace(TINY, seed=1)),
        Unit(REAL, DEFAULT_FEATURES, TINY, held_out=False),
        Unit(REAL, replace(DEFAULT_FEATURES, num_neighbors=3), TINY),
        Unit(replace(REAL, settings={"mapping": "P"}), DEFAULT_FEATURES, TINY),
        Unit(replace(REAL, name="tiny P"), DEFAULT_FEATURES, TINY),
    ],
)
def test_units_with_other_settings_have_other_files(other, tmp_path, monkeypatch):
    unit = Unit(REAL, DEFAULT_FEATURES, TINY)
    path = unit.path(tmp_path)
    assert other.path(tmp_path) != path == Unit(REAL, DEFAULT_FEATURES, TINY).path(tmp_path)
    monkeypatch.setattr(experiment, "THRESHOLDS", (0.5,))
    assert unit.path(tmp_path) != path


def test_a_changed_option_adds_a_unit_and_keeps_the_old_one(written, tmp_path):
    unit = Unit(REAL, DEFAULT_FEATURES, TINY)
    lines = []
    for options in (TINY, replace(TINY, embedding_dim=2)):
        experiment.run_units([replace(unit, options=options)], tmp_path, 1, lines.append)
    assert len(list(tmp_path.glob("tiny-N_seed=0_*.json"))) == 2
    assert len(lines) == 2


def test_a_damaged_file_is_measured_again(tmp_path):
    unit = Unit(REAL, DEFAULT_FEATURES, TINY)
    unit.path(tmp_path).write_text('{"world": "ti')
    (found,) = experiment.run_units([unit], tmp_path, 1, silent)
    assert found["seed"] == 0
    assert [path.name for path in tmp_path.iterdir()] == [unit.path(tmp_path).name]


def test_units_are_equal_in_this_and_in_other_processes(tmp_path):
    units = [Unit(REAL, DEFAULT_FEATURES, replace(TINY, seed=seed)) for seed in range(2)]
    lines = []
    apart = experiment.run_units(units, tmp_path, 2, lines.append)
    assert len(lines) == 2
    assert not multiprocessing.active_children()
    for unit, result in zip(units, apart, strict=True):
        assert json.loads(json.dumps(measure(unit))) == result
    assert apart[0]["records"] != apart[1]["records"]


def test_every_seed_is_another_simulated_platform():
    world = simulated_world(0.01)
    one, other = world.load(0), world.load(1)
    assert one.simulated
    assert any("another platform" in note for note in one.notes)
    assert (one.item_ids != other.item_ids).any()
    assert world.settings["scale"] == 0.01


def test_invalid_experiments_are_rejected(tmp_path):
    cases = [
        ({"worlds": []}, "needs a world"),
        ({"seeds": 0}, "needs a world"),
        ({"jobs": 0}, "needs a world"),
        ({"worlds": [REAL, REAL]}, "name of its own"),
        ({"options": replace(TINY, learn=("click",))}, "all four tasks"),
        ({"options": replace(TINY, embedding_dim=0)}, "all four tasks"),
        ({"options": replace(TINY, emb_grad="emb_only")}, "all four tasks"),
    ]
    for change, complaint in cases:
        with pytest.raises(UserError, match=complaint):
            run(tmp_path, **{"worlds": [REAL], "options": TINY, "log": silent} | change)
    assert list(tmp_path.iterdir()) == []


# comparisons


def made_up(values: np.ndarray) -> TaskMetrics:
    return TaskMetrics({name: float(values.mean()) for name in METRICS}, dict.fromkeys(METRICS, values), 3, len(values))


def results_of(shifts: list[dict[str, float]], spread: float) -> list[dict]:
    """A result for each seed; the values per user of an arm are those of the reference, its shift and noise."""
    results = []
    for seed, shift in enumerate(shifts):
        random = np.random.default_rng(seed)
        base = random.uniform(0.5 - spread, 0.5 + spread, size=100)
        values = {arm: base + shift.get(arm, 0.0) + random.normal(0, 0.01, size=100) for arm in ARMS}
        records = experiment.compare_arms({arm: dict.fromkeys(TASKS, (made_up(values[arm]), 0.5)) for arm in ARMS})
        settings = {"level": 0.01, "held_out": False}
        about = {"world": "w", "seed": seed, "simulated": False, "notes": [], "settings": settings}
        results.append(about | {"records": records})
    return results


def cells(results: list[dict]) -> dict[str, str]:
    """The AUC of clicking in the written table, by arm."""
    lines = tables._results_table(tables.summarize(tables.unit_rows(results)), "w")
    return {line.split("|")[2].strip(): line.split("|")[4].strip() for line in lines[2:6]}


def test_the_worse_arm_is_marked():
    shift = {"together, emb_only": +0.1, "alone, features": -0.1}
    found = cells(results_of([shift] * 3, spread=0.1))
    assert found["alone, features"].endswith("↓ (3, 3)")
    assert found["together"].endswith("↓ (3, 3) than together, emb_only")
    assert found["together"].count("↓") == 1
    assert "↓" not in found["together, emb_only"]
    assert "↓" not in found["alone, embeddings of its own"]  # no evidence either way
    assert "(" not in found["alone, embeddings of its own"]


def test_an_arrow_needs_more_than_half_of_the_seeds():
    lower, higher, equal = {"alone, features": -0.1}, {"alone, features": +0.1}, {}
    for some in ([lower, equal], [higher, equal]):
        assert "↓" not in "".join(cells(results_of(some, 0.1)).values())
    assert cells(results_of([higher, lower], 0.1))["alone, features"].endswith(" (1, 1)")
    assert cells(results_of([lower, equal, lower], 0.1))["alone, features"].endswith("↓ (2, 2)")


def test_the_signed_rank_test_is_counted_and_gives_no_arrow():
    """The same small shift for every user is invisible to the rank-sum test, as users differ much more."""
    found = cells(results_of([{"alone, embeddings of its own": -0.01, "alone, features": +0.01}] * 2, spread=0.4))
    assert found["alone, embeddings of its own"].endswith(" (0, 2)")
    assert found["together"].endswith(" (0, 2) than alone, features")
    assert "↓" not in "".join(found.values())


def test_missing_numbers_are_na():
    results = results_of([{}], 0.1)
    for record in results[0]["records"]:
        if record["metric"] == "auc":
            record.update(value=None, ranksum_p=None, signed_rank_p=None)
    assert set(cells(results).values()) == {"n/a"}
    nothing = made_up(np.full(4, np.nan))
    records = experiment.compare_arms({arm: dict.fromkeys(TASKS, (nothing, 0.5)) for arm in ARMS})
    assert {record["value"] for record in records} == {None}
    assert {record["ranksum_worse"] for record in records} == {None}


def test_means_spread_and_median_p_by_hand():
    results = results_of([{}, {}, {}], 0.1)
    for result, value, p in zip(results, (0.5, 0.6, 0.7), (0.3, 0.02, 0.9), strict=True):
        for record in result["records"]:
            record.update(value=value, ranksum_p=p)
    row = tables.summarize(tables.unit_rows(results)).iloc[0]
    assert (row["mean"], row["sd"], row["ranksum_p"], row["seeds"]) == pytest.approx((0.6, 0.1, 0.3, 3))


# written files


def test_all_files_are_written(written):
    folder, paths, _ = written
    assert [path.name for path in paths] == [*tables.FILES, *tables.PICTURES, "dyadic.json"]
    assert {path.name for path in folder.iterdir()} == {"units"} | {path.name for path in paths}
    found = {path.name: pd.read_csv(path) for path in paths if path.suffix == ".csv"}
    units, summary = found["units.csv"], found["table.csv"]
    assert len(units) == 2 * len(summary) == 2 * 2 * 4 * 4 * 4  # seeds, worlds, tasks, arms, metrics
    assert len(found["differences.csv"]) == 2 * 4 * 3 * 4  # the arms but one
    assert len(found["published.csv"]) == (1 + 2) * 4 * 4  # the paper and the worlds
    row = summary.iloc[37]
    same = (units[["world", "task", "arm", "metric"]] == row[["world", "task", "arm", "metric"]]).all(axis=1)
    assert row["mean"] == pytest.approx(units[same]["value"].mean())
    columns = ["tiny N, before", "tiny N, after", "invented (SIMULATED DATA), after"]
    assert list(found["statistics.csv"]) == ["quantity", "paper, before", "paper, after", *columns]
    assert set(found["users.csv"].groupby(["world", "stage", "action"])["users"].sum()) == {8}
    for name in tables.PICTURES:
        assert (folder / name).read_bytes()[:4] == b"\x89PNG"


def test_the_metadata(written):
    found = json.loads(written[1][-1].read_text())
    assert (found["data"], found["simulated"]) == ("tiny N, invented (SIMULATED DATA)", True)
    assert (found["seeds"], found["runs"], found["versions"]) == ([0, 1], 4, versions())
    counts = pd.read_csv(written[0] / "statistics.csv", index_col="quantity")
    assert list(found["statistics"]) == [name for name in counts if not name.startswith("paper")]
    for world, statistics in found["statistics"].items():
        assert int(statistics["dyads"].replace(",", "")) == pytest.approx(counts.loc["dyads", world], abs=0.5)
    assert found["settings"]["iterations"] == "60"
    assert found["settings"]["thresholds"] == "0.01 to 0.99"
    assert "seed" not in found["settings"]


def test_a_unit_that_does_not_say_what_measured_it_is_measured_again(tmp_path):
    unit = Unit(REAL, DEFAULT_FEATURES, TINY)
    found = measure(unit)
    unit.path(tmp_path).write_text(json.dumps({name: found[name] for name in found if name != "versions"}))
    assert experiment.run_units([unit], tmp_path, 1, silent)[0]["versions"] == versions()


def test_the_text_of_the_table(written):
    text = written[1][0].read_text(encoding="utf-8")
    assert (
        "One fixed setting for all arms, tuned for none: eta 0.01, lambda 0.01, N 60, 2 epochs, class weights 1" in text
    )
    assert "every run takes the same number of steps" in text
    assert "no result on it confirms or refutes the paper" in text
    assert "its data were never published" in text
    heads = [line for line in text.splitlines() if line.startswith("## ")]
    own = ["## tiny N", "## invented (SIMULATED DATA)"]
    assert heads == [*own, "## The data", "## The paper's Figure 2 beside these results"]
    captions = [line for line in text.splitlines() if "standard deviation over 2 seeds" in line]
    assert [line.split(":")[0] for line in captions] == ["tiny N", "invented (SIMULATED DATA)"]
    assert "chosen for F1 on the training dyads alone (on a third of them that a second network" in captions[0]
    assert "Users without an AUC, all of whose test dyads are of one class (mean over seeds): click" in captions[0]
    for arm in ARMS:
        assert text.count(f"| {arm} |") == 2 * 4


def test_the_caption_of_a_single_seed():
    caption = tables.caption("w", results_of([{}], 0.1))
    assert "standard deviation over 1 seed. F1" in caption
    assert "but the networks were fitted to them" in caption
