"""The item tables of TensorBoard's PROJECTOR, and the columns that it colors and labels them by.

It colors by a column of numbers, or by one with at most 50 different texts: hence the first genre alone. A cell
without a number stays empty and gets a color of its own; a column without any value is left out.
"""

import re

import torch
from torch import Tensor

from training.protocols import RunData

MAX_WIDTH = 128  # columns of an item table: wider ones take seconds to write and to open
CHUNK_ROWS = 2**20  # rows added up at a time, which bounds memory
YEAR = re.compile(r"\((\d{4})\b[^()]*\)")  # "Toy Story (1995)", "The Office (2005-2013)"
UNKNOWN_GENRE = "unknown"  # of single items, where others have genres; MovieLens has this name for it, too


def item_columns(data: RunData) -> dict[str, list[str]]:
    """{column: one text per item}: id, title, first genre, year, training rows, and the mean of each rating or label.

    MovieLens lists the genres of a movie in a fixed order, so the first is not the one that fits best.
    """
    columns = {"id": list(map(str, data.items))}
    if list(data.titles) != columns["id"]:
        columns["title"] = list(data.titles)
    if any(data.genres):
        columns["first genre"] = [genres.split("|")[0] or UNKNOWN_GENRE for genres in data.genres]
    years = [_year(title) for title in data.titles]
    if any(years):
        columns["year"] = years
    # A line per item and tabs between the columns: no text may hold either. Searching fails on an empty text.
    columns = {name: [" ".join(text.split()) for text in texts] for name, texts in columns.items()}
    columns = {name: texts if name == "year" else [text or "-" for text in texts] for name, texts in columns.items()}
    return columns | _training_columns(data)


def narrowed(table: Tensor, width: int = MAX_WIDTH) -> Tensor:
    """A wide table (n, d) in its leading principal components (n, width), which nearly keep all distances."""
    if table.shape[1] <= width:
        return table
    centered = (table.detach() - table.detach().mean(dim=0)).cpu().double()
    axes = torch.linalg.eigh(centered.T @ centered).eigenvectors
    return (centered @ axes.flip(1)[:, :width]).float()


def _year(title: str) -> str:
    """The last year in parentheses; "" where there is none."""
    found = YEAR.findall(title)
    return found[-1] if found else ""


def _training_columns(data: RunData) -> dict[str, list[str]]:
    """How many training rows each item has, and the means of their ratings or labels; "" for the mean of no rows."""
    rows, names = data.training_rows, data.feedback_names
    sums = torch.zeros(rows.num_items, len(names), dtype=torch.double)
    for start in range(0, len(rows), CHUNK_ROWS):
        block = rows[start : start + CHUNK_ROWS]
        sums.index_add_(0, block.item_ids.long().cpu(), block.ratings.view(len(block), -1).double().cpu())
    counts = rows.item_counts.cpu()
    columns = {"ratings" if names == ("rating",) else "rows": [str(count) for count in counts.tolist()]}
    for name, values in zip(names, (sums / counts.unsqueeze(1)).T.tolist(), strict=True):
        columns[f"mean {name}"] = [f"{value:.3f}" if value == value else "" for value in values]
    return columns
