"""The data of the dyadic experiment before and after the frequency filter: the paper's Figure 1 and its table of data.

A *stage* is "before" or "after" the filter. Data that nothing is left out of, such as the simulated platform, have the
stage "after" alone.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from analysis.dyadic_paper import DATA
from analysis.dyadic_worlds import World
from analysis.tables import markdown_rows, marked
from dyadic.data import LABELS, DyadicData

STAGES = ("before", "after")
WHOLE = ("users", "offers", "dyads")  # quantities that are counts
CAPTION = (
    "Before and after rare users and offers are left out, beside the paper's table of its data: means over seeds. Of "
    "ratings, a rated movie is an offer and counts as displayed; labels that depend on a user's mean are made anew at "
    "each stage, as a random 30 % of the rows sets this mean. Of a file, clicked, bookmarked and replied are its "
    "--labels, in this order. The paper's data were never published: its columns are printed values, and those before "
    "the filter do not agree with one another (10,378,780 dyads are 13 a user, not 7). Columns marked SIMULATED DATA "
    "are invented and not evidence: simulated-xing is made to match the paper's counts a user after the filter; "
    "nothing is left out of it, and it is denser than the paper's data where it is smaller. n/a: not known."
)


def describe_stages(world: World, seed: int, data: DyadicData) -> dict[str, dict | None]:
    """{stage: description} of a world with one seed; None where it has no such stage. data: `world.load(seed)`."""
    before = None if world.load_unfiltered is None else describe(world.load_unfiltered(seed))
    return dict(zip(STAGES, (before, describe(data)), strict=True))


def describe(data: DyadicData) -> dict:
    """{"statistics": see `statistics`, "users": see `users_by_actions`, "labels": their names in the data}."""
    return {"statistics": statistics(data), "users": users_by_actions(data), "labels": list(data.label_names)}


def statistics(data: DyadicData) -> dict[str, float | None]:
    """The quantities of the paper's table of data, with the keys of DATA; a rated item counts as displayed.

    "displayed a user" is None where the data do not have it.
    """
    per_user = np.bincount(data.user_ids, minlength=data.num_users)
    per_item = np.bincount(data.item_ids, minlength=data.num_items)
    displayed = len(data) if data.ratings is not None else None
    if data.displayed is not None:
        displayed = np.count_nonzero(data.displayed)
    labeled = data.labels.sum(0, dtype=np.int64) / data.num_users
    values = [
        data.num_users,
        data.num_items,
        len(data),
        per_user.mean(),
        np.median(per_user),
        per_item.mean(),
        np.median(per_item),
        None if displayed is None else displayed / data.num_users,
        *labeled,
        1 - len(data) / (data.num_users * data.num_items),
    ]
    return {name: None if v is None else float(v) for name, v in zip(DATA, values, strict=True)}


def users_by_actions(data: DyadicData) -> dict[str, list[int]]:
    """The paper's Figure 1 for click, bookmark and reply: at position n the number of users with n such dyads."""
    per_user = (
        np.bincount(data.user_ids, weights=labels, minlength=data.num_users).astype(np.int64)
        for labels in data.labels.T
    )
    return {action: np.bincount(counts).tolist() for action, counts in zip(LABELS, per_user, strict=True)}


def statistics_table(results: Sequence[dict]) -> pd.DataFrame:
    """A row per quantity; the paper's two columns, then those of each world (means over seeds).

    results: of units, with "world", "simulated" and "data", as `describe_stages` returns it.
    """
    columns = {
        f"paper, {stage}": pd.Series({name: pair[place] for name, pair in DATA.items()}, dtype=float)
        for place, stage in enumerate(STAGES)
    }
    for world, group in by_world(results).items():
        for stage in STAGES:
            if group[0]["data"][stage] is not None:
                rows = pd.DataFrame([unit["data"][stage]["statistics"] for unit in group])
                columns[f"{marked(world, group[0]['simulated'])}, {stage}"] = rows.astype(float).mean()
    return pd.DataFrame(columns).loc[list(DATA)]


def users_table(results: Sequence[dict]) -> pd.DataFrame:
    """Figure 1 as numbers: "world", "simulated", "stage", "action", "label", "actions", "users"; of the first seed.

    users: that have this number of actions; numbers that no user has are left out.
    """
    rows = []
    for world, group in by_world(results).items():
        for stage, described in group[0]["data"].items():
            if described is not None:
                rows += [
                    {"world": world, "simulated": group[0]["simulated"], "stage": stage, **row}
                    for row in _count_rows(described)
                ]
    return pd.DataFrame(rows)


def _count_rows(described: Mapping) -> list[dict]:
    """The rows of one stage of one world."""
    return [
        {"action": action, "label": label, "actions": actions, "users": users}
        for (action, counts), label in zip(described["users"].items(), described["labels"], strict=True)
        for actions, users in enumerate(counts)
        if users
    ]


def as_markdown(counts: pd.DataFrame) -> list[str]:
    """The lines of the table of data and its caption. counts: of `statistics_table`."""
    rows = [[name, *(format_count(name, value) for value in row)] for name, row in counts.iterrows()]
    return [*markdown_rows(["", *counts.columns], rows), "", CAPTION]


def format_count(name: str, value: float) -> str:
    """The text of a quantity of `statistics`."""
    if math.isnan(value):
        return "n/a"
    if name == "sparsity":
        return f"{100 * value:.5g}%"
    return f"{value:,.0f}" if name in WHOLE else f"{value:,.2f}".removesuffix(".00")


def by_world(results: Sequence[dict]) -> dict[str, list[dict]]:
    """The results of each world, in the order of seeds."""
    worlds: dict[str, list[dict]] = {}
    for result in results:
        worlds.setdefault(result["world"], []).append(result)
    return worlds
