"""The answer for a single user, as a dict for JSON and as text for the terminal."""

from typing import TYPE_CHECKING

import torch

from config.text import printable
from training.terminal import cut, display_width, right

if TYPE_CHECKING:
    from serving.run import TrainedRun


def describe_user(run: "TrainedRun", raw_user: str, k: int) -> dict:
    """The items that a user rated highest, and the unseen items that the network ranks first, k each.

    Unseen items occur with the user in no part of the data, the test part included. An unknown user gets the items with
    the most rows.

    Returns:
        A dict of plain strings and numbers with raw ids:
            user: the id; known: True if the data contain it.
            rated: list of {item, title, rating or labels}; the rating is None where a new user gave none.
            recommended: list of {item, title, columns of TrainedRun.recommend}; for an unknown user {item, title,
            ratings}, where ratings is the number of rows.
    """
    if not run.knows([raw_user])[0]:
        popular = [_name(run, item) | {"ratings": int(run.item_counts[item])} for item in run.popular[:k].tolist()]
        return {"user": raw_user, "known": False, "rated": [], "recommended": popular}
    table = run.recommend([raw_user], k).drop(columns=["user", "rank", "known"])
    return {
        "user": raw_user,
        "known": True,
        "rated": _rated(run, raw_user, k),
        "recommended": [
            {name: value if isinstance(value, str) else float(value) for name, value in row.items()}
            for row in table.to_dict("records")
        ],
    }


def _rated(run: "TrainedRun", raw_user: str, k: int) -> list[dict]:
    """The rows of a user with the highest ratings, or with the most labels."""
    data = run.task.data
    user = int((run.users == raw_user).argmax())
    rows = data.interactions
    own = rows[(rows.user_ids == user).nonzero().squeeze(1)]
    feedback = own.ratings.view(len(own), -1)
    best = torch.sort(feedback.nan_to_num(-torch.inf).sum(dim=1), descending=True, stable=True).indices[:k].tolist()
    values = [[None if value != value else value for value in feedback[row].tolist()] for row in best]
    return [
        _name(run, int(own.item_ids[row])) | dict(zip(data.feedback_names, shown, strict=True))
        for row, shown in zip(best, values, strict=True)
    ]


def as_text(answer: dict, width: int | None = None) -> str:
    """The result of `describe_user` as lines for a terminal, which obeys nothing in ids and titles.

    width: columns of the terminal; titles that do not fit are cut. None: whole lines.
    """
    user = printable(answer["user"], in_one_line=True)
    if not answer["known"]:
        lines = [f"User {user} is not in these data; these items occur most often:", ""]
        return "\n".join([*lines, *_table(answer["recommended"], width)])
    has_ratings = any("rating" in row for row in answer["rated"])
    verb = "rated highest" if has_ratings else "responded to most"
    lines = [f"User {user} {verb}:", "", *_table(answer["rated"], width)]
    lines += ["", "and has not seen:", "", *_table(answer["recommended"], width)]
    return "\n".join(lines)


def _name(run: "TrainedRun", item: int) -> dict[str, str]:
    return {"item": str(run.items[item]), "title": run.task.data.titles[item]}


def _table(rows: list[dict], width: int | None) -> list[str]:
    """Lines of a text table: the column names, then one line per row; the title is the last column."""

    def cell(value) -> str:
        if value is None:
            return "-"
        return f"{value:.2f}" if isinstance(value, float) else printable(str(value), in_one_line=True)

    if not rows:
        return ["  nothing"]
    columns = sorted(rows[0], key=lambda column: (column == "title", list(rows[0]).index(column)))
    cells = [
        [column.replace("_", " ") for column in columns],
        *([cell(row[column]) for column in columns] for row in rows),
    ]
    widths = [max(map(display_width, column)) for column in zip(*cells, strict=True)]
    return [cut("  " + "  ".join([*map(right, line[:-1], widths[:-1]), line[-1]]), width) for line in cells]
