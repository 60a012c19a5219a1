"""Top-N recommendations of a trained network for one user, as a dict and as text."""

import numpy as np
import torch
from torch import nn

from dataset import Data, Interactions

TOP_N = 10


def recommend(model: nn.Module, task, raw_user: str) -> dict:
    """The items that a user rated highest, and the unseen items that the network ranks first, TOP_N each.

    Unseen items occur with the user in no part of the data, the test part included. `task.score` returns the ranking
    scores and the columns to show. An unknown user gets the most frequent items.

    Args:
        model: a trained network in eval mode.
        task: the task that it was trained on.
        raw_user: the user's id as in the data files.

    Returns:
        A dict of plain strings and numbers with raw ids:
            user: the id; known: True if the data contain it.
            rated: list of {item, title, rating or labels}.
            recommended: list of {item, title, columns of task.score}; for an unknown user {item, title, ratings}, where
            ratings is the number of ratings.
    """
    data = task.data
    interactions = data.seen + data.test
    found = np.flatnonzero(data.users == raw_user)
    if len(found) == 0:
        counts = torch.bincount(interactions.item_ids, minlength=len(data.items))
        popular = [_name(data, item) | {"ratings": int(counts[item])} for item in _best(counts.double())]
        return {"user": raw_user, "known": False, "rated": [], "recommended": popular}

    user = int(found[0])
    own = interactions[interactions.user_ids == user]
    items = torch.arange(len(data.items), device=own.item_ids.device)
    with torch.no_grad():
        scores, shown = task.score(model, torch.full_like(items, user), items)
    scores = scores.index_fill(0, own.item_ids.long(), -torch.inf)
    recommended = [
        _name(data, item) | {column: float(values[item]) for column, values in shown.items()}
        for item in _best(scores)
        if scores[item] > -torch.inf
    ]
    rated = [
        _name(data, own.item_ids[row]) | _feedback(data, own, row)
        for row in _best(own.ratings.view(len(own), -1).sum(1))
    ]
    return {"user": raw_user, "known": True, "rated": rated, "recommended": recommended}


def as_text(answer: dict) -> str:
    """The result of `recommend` as lines for a terminal."""
    if not answer["known"]:
        lines = [f"User {answer['user']} is not in these data; these items occur most often:", ""]
        return "\n".join([*lines, *_table(answer["recommended"])])
    has_ratings = any("rating" in row for row in answer["rated"])
    verb = "rated highest" if has_ratings else "responded to most"
    lines = [f"User {answer['user']} {verb}:", "", *_table(answer["rated"])]
    lines += ["", "and has not seen:", "", *_table(answer["recommended"])]
    return "\n".join(lines)


def _best(values: torch.Tensor) -> list[int]:
    """Indices of the TOP_N highest values; ties in index order."""
    return torch.sort(values, descending=True, stable=True).indices[:TOP_N].tolist()


def _feedback(data: Data, own: Interactions, row: int) -> dict[str, float]:
    """The feedback of the user in one row: the rating, or the labels."""
    if not data.labels:
        return {"rating": float(own.ratings[row])}
    return dict(zip(data.labels, own.ratings[row].tolist(), strict=True))


def _name(data: Data, item) -> dict[str, str]:
    return {"item": str(data.items[int(item)]), "title": data.titles[int(item)]}


def _table(rows: list[dict]) -> list[str]:
    """Lines of a text table: the column names, then one line per row; the title is the last column."""

    def cell(value) -> str:
        return f"{value:.2f}" if isinstance(value, float) else str(value)

    if not rows:
        return ["  nothing"]
    columns = sorted(rows[0], key=lambda column: (column == "title", list(rows[0]).index(column)))
    cells = [
        [column.replace("_", " ") for column in columns],
        *([cell(row[column]) for column in columns] for row in rows),
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    numbers, title = slice(0, -1), -1
    return ["  " + "  ".join([*map(str.rjust, line[numbers], widths), line[title]]) for line in cells]
