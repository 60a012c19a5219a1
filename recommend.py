"""Ten films for one user, from a trained network: computed here, told as text or as JSON."""

import numpy as np
import torch
from torch import nn

from dataset import Data

HOW_MANY = 10


def recommend(model: nn.Module, data: Data, raw_user: str) -> dict:
    """What a user rated highest, and the unseen items that the network ranks first.

    Unseen means in no part of the data, the test part included. Predicted ratings are clipped to the rating scale
    here, and only here: they are shown to people. An unknown user gets the most often rated items.

    Returns:
        user, known; rated: item, title, rating; recommended: item, title, score, predicted_rating (for an unknown user:
        item, title, ratings, how many). Plain strings and numbers, raw ids only.
    """
    everything = data.seen + data.test
    found = np.flatnonzero(data.users == raw_user)
    if len(found) == 0:
        counts = torch.bincount(everything.item_ids, minlength=len(data.items))
        popular = [_name(data, item) | {"ratings": int(counts[item])} for item in _best(counts.double())]
        return {"user": raw_user, "known": False, "rated": [], "recommended": popular}

    user = int(found[0])
    own = everything[everything.user_ids == user]
    rated = [_name(data, own.item_ids[row]) | {"rating": float(own.ratings[row])} for row in _best(own.ratings)]
    items = torch.arange(len(data.items), device=own.item_ids.device)
    with torch.no_grad():
        scores, predicted = model(torch.full_like(items, user), items)
    scores[own.item_ids] = -torch.inf
    low, high = data.rating_scale
    recommended = [
        _name(data, item) | {"score": float(scores[item]), "predicted_rating": float(predicted[item].clamp(low, high))}
        for item in _best(scores)
        if scores[item] > -torch.inf
    ]
    return {"user": raw_user, "known": True, "rated": rated, "recommended": recommended}


def as_text(answer: dict) -> str:
    if not answer["known"]:
        lines = [f"User {answer['user']} is not in these data; here is what most users have rated:", ""]
        lines += _table(["item", "ratings", "title"], answer["recommended"])
        return "\n".join(lines)
    lines = [f"User {answer['user']} rated highest:", ""]
    lines += _table(["item", "rating", "title"], answer["rated"])
    lines += ["", "and has not seen:", ""]
    lines += _table(["item", "score", "predicted_rating", "title"], answer["recommended"])
    return "\n".join(lines)


def _best(values: torch.Tensor) -> list[int]:
    """Positions of the highest values, the earlier of equals first."""
    return torch.sort(values, descending=True, stable=True).indices[:HOW_MANY].tolist()


def _name(data: Data, item) -> dict[str, str]:
    return {"item": str(data.items[int(item)]), "title": data.titles[int(item)]}


def _table(columns: list[str], rows: list[dict]) -> list[str]:
    def cell(value) -> str:
        return f"{value:.2f}" if isinstance(value, float) else str(value)

    cells = [
        [column.replace("_", " ") for column in columns],
        *([cell(row[column]) for column in columns] for row in rows),
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    numbers, title = slice(0, -1), -1
    return ["  " + "  ".join([*map(str.rjust, line[numbers], widths), line[title]]) for line in cells]
