"""The data of the dyadic experiment before and after the filter, and what the paper prints about its own."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dyadic_worlds import toy_dyads
from scipy import stats

from analysis import dyadic_data, dyadic_paper, dyadic_tables
from analysis.dyadic_worlds import make_worlds, own_world, require_labels, simulated_world
from config.errors import UserError

HEADER = "user,item,click,save,buy,seen\n"
# x and y have two users each, z has one: with it goes c, whose only other dyad was never displayed.
ROWS = "a,x,1,1,0,1\na,y,1,0,0,1\nb,x,1,0,0,0\nb,y,0,0,1,1\nc,z,1,0,0,1\nc,x,0,0,0,0\n"
LABELS = {"labels": "click,save,buy", "displayed": "seen"}


@pytest.fixture
def own_file(tmp_path) -> str:
    path = tmp_path / "events.csv"
    path.write_text(HEADER + ROWS)
    return str(path)


def described(world, seeds=(0,)) -> list[dict]:
    """The part of the results of units that is about the data."""
    results = []
    for seed in seeds:
        data = world.load(seed)
        stages = dyadic_data.describe_stages(world, seed, data)
        results.append({"world": world.name, "simulated": data.simulated, "seed": seed, "data": stages})
    return results


def test_the_table_before_and_after_by_hand(own_file):
    world = own_world("events", {"feedback": own_file, "min_user": 2, "min_item": 2} | LABELS)
    table = dyadic_data.statistics_table(described(world))
    before, after = (table[f"events, {stage}"] for stage in ("before", "after"))
    assert before.tolist() == pytest.approx([3, 3, 5, 5 / 3, 2, 5 / 3, 2, 4 / 3, 4 / 3, 1 / 3, 1 / 3, 1 - 5 / 9])
    assert after.tolist() == pytest.approx([2, 2, 4, 2, 2, 2, 2, 3 / 2, 3 / 2, 1 / 2, 1 / 2, 0])
    lines = dyadic_data.as_markdown(table)
    assert lines[0] == "|  | paper, before | paper, after | events, before | events, after |"
    assert lines[2] == "| users | 770,859 | 5,949 | 3 | 2 |"
    assert "| dyads a user, mean | 7 | 137.71 | 1.67 | 2 |" in lines
    assert "| sparsity | 99.991% | 99.45% | 44.444% | 0% |" in lines


def test_the_counts_of_the_figure_by_hand(own_file):
    world = own_world("events", {"feedback": own_file, "min_user": 2, "min_item": 2} | LABELS)
    users = dyadic_data.users_table(described(world, seeds=(0, 1)))
    counts = {
        (stage, action): dict(zip(rows["actions"], rows["users"], strict=True))
        for (stage, action), rows in users.groupby(["stage", "action"])
    }
    assert counts == {
        ("before", "click"): {1: 2, 2: 1},
        ("before", "bookmark"): {0: 2, 1: 1},
        ("before", "reply"): {0: 2, 1: 1},
        ("after", "click"): {1: 1, 2: 1},
        ("after", "bookmark"): {0: 1, 1: 1},
        ("after", "reply"): {0: 1, 1: 1},
    }
    assert dict(zip(users["action"], users["label"], strict=True)) == {
        "click": "click", "bookmark": "save", "reply": "buy",
    }  # fmt: skip


def test_the_figure_counts_all_users_and_all_actions():
    random = np.random.default_rng(0)
    pairs = np.argwhere(random.random((30, 40)) < 0.5)
    data = toy_dyads(pairs, (random.random((len(pairs), 3)) < [0.4, 0.1, 0.02]).astype(int), None, 31, 40)
    for (action, counts), labels in zip(dyadic_data.users_by_actions(data).items(), data.labels.T, strict=True):
        assert sum(counts) == 31, action  # also the user without a dyad
        assert sum(number * users for number, users in enumerate(counts)) == labels.sum()


def test_the_simulated_platform_has_nothing_to_leave_out():
    world = simulated_world(0.01)
    table = dyadic_data.statistics_table(described(world))
    assert list(table) == ["paper, before", "paper, after", "simulated-xing (SIMULATED DATA), after"]
    assert set(dyadic_data.users_table(described(world))["stage"]) == {"after"}


def test_means_over_seeds():
    world = simulated_world(0.01)
    results = described(world, seeds=(0, 1))
    medians = [result["data"]["after"]["statistics"]["dyads a user, median"] for result in results]
    found = dyadic_data.statistics_table(results).loc["dyads a user, median"].iloc[-1]
    assert found == pytest.approx(np.mean(medians))


def test_statistics_by_hand():
    pairs = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (2, 0), (2, 4)]
    data = toy_dyads(pairs, [(1, 0, 0), (0, 0, 0), (1, 1, 0), (0, 0, 0), (1, 0, 1), (0, 0, 1), (0, 0, 0), (0, 0, 0)])
    found = dyadic_data.statistics(data)
    assert (found["users"], found["offers"], found["dyads"]) == (3, 5, 8)
    assert (found["dyads a user, mean"], found["dyads a user, median"]) == pytest.approx((8 / 3, 2))
    assert (found["dyads an offer, mean"], found["dyads an offer, median"]) == pytest.approx((8 / 5, 1))
    marked = [found[f"{label} a user"] for label in ("clicked", "bookmarked", "replied")]
    assert marked == pytest.approx([3 / 3, 1 / 3, 2 / 3])
    assert found["sparsity"] == pytest.approx(1 - 8 / 15)
    assert found["displayed a user"] is None  # nobody knows
    shown = replace(data, displayed=np.array([1, 1, 0, 1, 0, 0, 1, 0], dtype=bool))
    assert dyadic_data.statistics(shown)["displayed a user"] == pytest.approx(4 / 3)
    rated = replace(data, ratings=np.ones(8))
    assert dyadic_data.statistics(rated)["displayed a user"] == pytest.approx(8 / 3)


def test_movielens_before_and_after():
    folder = os.environ.get("MOVIELENS_DIR", "")
    if not (Path(folder) / "ml-100k" / "u.data").is_file():
        pytest.skip("needs the real MovieLens 100K: set MOVIELENS_DIR to the folder that holds ml-100k/")
    world, *_ = make_worlds({"dataset": "ml-100k", "data_dir": folder}, 0.01)
    table = dyadic_data.statistics_table(described(world))
    assert table.loc[["users", "offers", "dyads"], "ml-100k N, before"].tolist() == [943, 1682, 100_000]
    assert table.loc["clicked a user", "ml-100k N, before"] == pytest.approx((34_174 + 21_201) / 943)
    assert table.loc[["users", "offers", "dyads"], "ml-100k N, after"].tolist() == [720, 795, 86_295]


# a file of events


def test_events_are_one_world_beside_the_platform(own_file):
    worlds = make_worlds({"feedback": own_file, "min_user": 1, "min_item": 1} | LABELS, 0.01)
    assert [world.name for world in worlds] == [own_file, "simulated-xing"]
    require_labels(worlds)
    assert worlds[0].settings["feedback"] != own_file  # the digest of its content


def test_a_label_of_events_that_never_changes_is_rejected(own_file):
    worlds = make_worlds({"feedback": own_file, "min_user": 1, "min_item": 1, "labels": "click,save,seen"}, 0.01)
    Path(own_file).write_text(HEADER + ROWS.replace(",0\n", ",1\n"))
    with pytest.raises(UserError, match=r"all dyads have the label 1 of seen: choose other --labels, or lower --min_u"):
        require_labels(worlds)


# the paper


def test_the_published_counts_are_consistent():
    published = {name: after for name, (_, after) in dyadic_paper.DATA.items()}
    assert published["dyads"] / published["users"] == pytest.approx(published["dyads a user, mean"], abs=0.005)
    assert published["dyads"] / published["offers"] == pytest.approx(published["dyads an offer, mean"], abs=0.005)
    density = published["dyads"] / (published["users"] * published["offers"])
    assert 1 - density == pytest.approx(published["sparsity"], abs=5e-5)


def test_the_published_results_are_marked_as_printed():
    printed = dyadic_paper.printed_figure().set_index(["task", "metric"])
    assert len(printed) == 16
    assert (printed["worse"] == "alone").sum() == 4 + 1 + 4 + 3
    assert (printed["worse"] == "together").sum() == 0
    assert printed.loc[("click", "map@1"), ["alone", "together"]].tolist() == [0.659, 0.708]
    better_alone = printed["alone"] > printed["together"]
    assert set(printed.index[better_alone]) == {("embedding", "map@1"), ("embedding", "map@5"), ("reply", "f1")}
    assert not (better_alone & (printed["worse"] == "alone")).any()


def summary_row(world: str, simulated: bool, arm: str, **changes) -> list[dict]:
    row = {"world": world, "simulated": simulated, "arm": arm, "seeds": 3, "mean": 0.5}
    row |= {"ranksum_worse": 0, "ranksum_better": 0} | changes
    return [row | {"task": task, "metric": metric} for task in dyadic_paper.FIGURE_2 for metric in dyadic_paper.METRICS]


def test_our_values_stand_beside_the_published_ones_and_are_never_comparable():
    rows = summary_row("real", False, "together", mean=0.7) + summary_row(
        "real", False, "alone, features", ranksum_worse=2
    )
    rows += summary_row("made", True, "together") + summary_row(
        "made", True, "alone, features", ranksum_better=2, mean=0.6
    )
    table = dyadic_paper.beside_ours(pd.DataFrame(rows), dyadic_tables.WAYS)
    ours = table[table["data"] != "paper"]
    assert dict(zip(ours["data"], ours["comparable"], strict=True)) == {
        "real": "no: other data", "made": "no: simulated data",
    }  # fmt: skip
    assert set(ours[ours["data"] == "real"]["worse"]) == {"alone"}
    assert set(ours[ours["data"] == "made"]["worse"]) == {"together"}
    lines = dyadic_paper.as_markdown(table, dyadic_tables.METRIC_COLUMNS)
    assert lines[2:5] == [
        "| click | paper |  | 0.51 ↓ → 0.54 | 0.62 ↓ → 0.65 | 0.659 ↓ → 0.708 | 0.537 ↓ → 0.584 |",
        f"|  | real | no: other data |{' 0.500 ↓ → 0.700 |' * 4}",
        f"|  | made (SIMULATED DATA) | no: simulated data |{' 0.600 → 0.500 ↓ |' * 4}",
    ]
    assert len(lines) == 2 + 4 * 3 + 2


# paired differences


def unit_values(values: dict[str, list[float]]) -> pd.DataFrame:
    """Units of one world, task and metric: the values of each arm by seed."""
    return pd.DataFrame(
        {"world": "w", "simulated": False, "task": "click", "metric": "auc", "arm": arm, "seed": seed, "value": value}
        for arm, own in values.items()
        for seed, value in enumerate(own)
    )


def test_intervals_are_those_of_the_paired_differences():
    together, alone = [0.70, 0.60, 0.65, 0.55], [0.68, 0.59, 0.62, 0.53]
    found = dyadic_tables.differences(unit_values({"alone, features": alone, "together": together}))
    assert found["arm"].tolist() == ["alone, features"]
    interval = stats.ttest_rel(alone, together).confidence_interval(0.95)
    assert found[["difference", "low", "high"]].iloc[0].tolist() == pytest.approx([-0.02, *interval])
    assert interval[1] < 0 < np.ptp(together)  # the spread between seeds would hide it


def test_one_seed_has_no_interval():
    found = dyadic_tables.differences(unit_values({"together": [0.7], "alone, features": [0.6]})).iloc[0]
    assert found["difference"] == pytest.approx(-0.1)
    assert found[["low", "high"]].isna().all()
