"""Top-N recommendations of a trained network for one user, as a dict and as text."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn

from config.base import RunConfig
from config.cli import Choices, Models, Request
from config.errors import EXIT_OK, UserError
from dataset import Data, Interactions
from training.process_group import SINGLE_PROCESS
from training.protocols import Recipe, Task
from training.report import BOX
from training.session import load, newest_run, reopen

TOP_N = 10


def answer(request: Request, models: Models, choices: Choices, recipe_for: Callable[[RunConfig], Recipe]) -> int:
    """--recommend: print what a trained run recommends; returns the exit code."""
    given = dict(request.given)
    logdir = given.pop("logdir", None)
    run, record, config = reopen(Path(logdir) if logdir is not None else newest_run(), given, models, choices)
    recipe = recipe_for(config)
    device, data, _ = load(config, recipe, record, SINGLE_PROCESS)
    training = recipe.build(config, data, device, SINGLE_PROCESS)
    if not training.task.can_recommend:
        raise UserError(
            f"{run.path} is a run of --model {config.model}, which scores observed pairs only: ask another run"
        )
    training.model.eval()
    checkpoint = "best" if run.has("best") else "last"
    run.restore(checkpoint, device, {"model": training.model})
    found = recommend(training.model, training.task, request.recommend or "")
    if request.as_json:
        header = {"run": str(run.path), "checkpoint": checkpoint, "simulated": data.simulated}
        print(json.dumps(header | found, indent=2))
    else:
        print(*([BOX] if data.simulated else []), f"{run.path}, {checkpoint} epoch\n", as_text(found), sep="\n")
    return EXIT_OK


def recommend(model: nn.Module, task: Task, raw_user: str) -> dict:
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
    data = cast(Data, task.data)
    interactions = data.seen + data.test
    found = np.flatnonzero(data.users == raw_user)
    if len(found) == 0:
        return {"user": raw_user, "known": False, "rated": [], "recommended": _popular(data, interactions)}
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


def _popular(data: Data, interactions: Interactions) -> list[dict]:
    """The most frequent items with their numbers of ratings."""
    counts = interactions.item_counts
    return [_name(data, item) | {"ratings": int(counts[item])} for item in _best(counts.double())]


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
