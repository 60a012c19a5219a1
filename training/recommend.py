"""Ten films for one user, from a trained network: computed here, told as text or as JSON."""

import numpy as np
import torch
from torch import nn

from dataset import Data, Interactions

HOW_MANY = 10


def recommend(model: nn.Module, task, raw_user: str) -> dict:
    """What a user rated highest, and the unseen items that the network ranks first.

    Unseen means in no part of the data, the test part included. `task.score` says what is ranked by and what is shown.
    An unknown user gets the items that occur most often.

    Returns:
        user, known; rated: item, title and what the user said of it; recommended: item, title and what the network says
        of it (for an unknown user: item, title, ratings, how many). Plain strings and numbers, raw ids only.
    """
    data = task.data
    everything = data.seen + data.test
    found = np.flatnonzero(data.users == raw_user)
    if len(found) == 0:
        counts = torch.bincount(everything.item_ids, minlength=len(data.items))
        popular = [_name(data, item) | {"ratings": int(counts[item])} for item in _best(counts.double())]
        return {"user": raw_user, "known": False, "rated": [], "recommended": popular}

    user = int(found[0])
    own = everything[everything.user_ids == user]
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
        _name(data, own.item_ids[row]) | _said(data, own, row) for row in _best(own.ratings.view(len(own), -1).sum(1))
    ]
    return {"user": raw_user, "known": True, "rated": rated, "recommended": recommended}


def as_text(answer: dict) -> str:
    if not answer["known"]:
        lines = [f"User {answer['user']} is not in these data; here is what occurs most often:", ""]
        return "\n".join([*lines, *_table(answer["recommended"])])
    is_rated = any("rating" in row for row in answer["rated"])
    said = "rated highest" if is_rated else "responded to most"
    lines = [f"User {answer['user']} {said}:", "", *_table(answer["rated"])]
    lines += ["", "and has not seen:", "", *_table(answer["recommended"])]
    return "\n".join(lines)


def _best(values: torch.Tensor) -> list[int]:
    """Positions of the highest values, the earlier of equals first."""
    return torch.sort(values, descending=True, stable=True).indices[:HOW_MANY].tolist()


def _said(data: Data, own: Interactions, row: int) -> dict[str, float]:
    """What the user said of an item: a rating, or the labels of the feedback."""
    if not data.labels:
        return {"rating": float(own.ratings[row])}
    return dict(zip(data.labels, own.ratings[row].tolist(), strict=True))


def _name(data: Data, item) -> dict[str, str]:
    return {"item": str(data.items[int(item)]), "title": data.titles[int(item)]}


def _table(rows: list[dict]) -> list[str]:
    """One line a row under its column names, the title last."""

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
