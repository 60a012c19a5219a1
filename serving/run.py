"""A trained run as an object: raw ids in, pandas data frames out."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from config.base import RunConfig
from config.errors import UserError
from evaluation import BLOCK_PAIRS, evaluating
from registry import CHOICES, MODELS, recipe_for
from serving.fold_in import new_rows, require_new_users
from serving.lists import Choice, raw_order, top_items
from training.process_group import SINGLE_PROCESS
from training.protocols import Task
from training.run_folder import RunFolder
from training.session import choose_device, reopen

BLOCK_USERS = 2048  # users whose lists are made at a time


def load_run(path: str | PathLike, device: str = "auto") -> "TrainedRun":
    """Load a run from its folder alone: the data files that it was trained on are not needed.

    Takes the best epoch where a validation part chose one, else the last.

    Args:
        path: the run folder, such as "run/NAME".
        device: "auto", "cpu", "cuda" or "mps".

    Raises:
        UserError: the folder holds no run, one of another format, or damaged files; or there is no such device.
    """
    run = RunFolder.open(Path(path))
    _, config = reopen(run, {"device": device}, MODELS, CHOICES)
    where, recipe = choose_device(config.device, SINGLE_PROCESS), recipe_for(config)
    packed = run.read_data()
    try:
        data = recipe.unpack(packed)
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{run.path / 'data.npz'} does not hold the data of this run ({error!r})") from None
    training = recipe.build(config, data, where, SINGLE_PROCESS)
    checkpoint = "best" if run.has("best") else "last"
    run.restore(checkpoint, where, {"model": training.model, **training.make_answer_parts()})
    return TrainedRun(run, checkpoint, config, training.model, training.task, where)


class TrainedRun:
    """A trained network with its users and items; see `load_run`.

    users, items: raw ids, (num_users,) and (num_items,) strings.
    path: the run folder; checkpoint: "best" or "last", the epoch that answers.
    notes: sentences on rows that `fold_in` left out.
    """

    def __init__(
        self, folder: RunFolder, checkpoint: str, config: RunConfig, model: nn.Module, task: Task, device: torch.device
    ) -> None:
        self.path, self.folder, self.checkpoint = folder.path, folder, checkpoint
        self.config, self.model, self.task, self.device = config, model.eval(), task, device
        self.users, self.items = task.data.users, task.data.items
        self.notes: tuple[str, ...] = ()
        self._trained = self  # what new users are folded into

    def __repr__(self) -> str:
        return f"<run {self.path}, {self.checkpoint} epoch, --model {self.config.model}: {self.task.data!r}>"

    def predict(self, users: Sequence, items: Sequence) -> pd.DataFrame:
        """What the network predicts for N pairs.

        Args:
            users, items: N raw ids each.

        Returns:
            N rows in the given order: user, item and the columns of the family, such as score and predicted_rating
            (within the rating scale), or a probability for each label. The dyadic learner knows the dyads in its data.

        Raises:
            UserError: an id is unknown, the lists differ in length or are empty, or a dyad is not in the data.
        """
        raw_users, raw_items = as_raw(users), as_raw(items)
        if len(raw_users) != len(raw_items) or not len(raw_users):
            raise UserError(f"give as many users as items and at least one, not {len(raw_users)} and {len(raw_items)}")
        rows = self._find("user", self._user_rows, raw_users), self._find("item", self._item_rows, raw_items)
        blocks = zip(*(torch.from_numpy(ids).to(self.device).split(BLOCK_PAIRS) for ids in rows), strict=True)
        with evaluating(self.model):
            shown = [self.task.score(self.model, *block) for block in blocks]
        unknown = torch.cat([score for score, _ in shown]) == -torch.inf
        if unknown.any():
            first = int(unknown.nonzero()[0])
            raise UserError(
                f"user {raw_users[first]} and item {raw_items[first]} are no dyad of the run's data, and this model "
                "knows those alone"
            )
        columns = {name: torch.cat([part[name] for _, part in shown]).cpu().numpy() for name in shown[0][1]}
        return pd.DataFrame({"user": raw_users, "item": raw_items} | columns)

    def recommend(
        self, users: Sequence | None = None, k: int = 10, exclude_seen: bool = True, among: Iterable | None = None
    ) -> pd.DataFrame:
        """The k best items for each user, users in the given order and items best first.

        An unknown user gets the items with the most ratings; `known` is then False and the predictions are nan.

        Args:
            users: raw ids; None: all users of the run.
            k: items a user; a user with fewer items to choose from gets fewer rows.
            exclude_seen: leave out what the user has in the data of the run (of the dyadic learner: in its train part).
            among: raw ids of the items to choose from; None: all.

        Returns:
            user, rank (from 1), item, title, known, and the columns of `predict`. Equal scores are ordered by raw id.

        Raises:
            UserError: k is below 1, `users` or `among` is empty, or an item in `among` is unknown.
        """
        return pd.concat(list(self.recommend_in_blocks(users, k, exclude_seen, among)), ignore_index=True)

    def recommend_in_blocks(
        self, users: Sequence | None = None, k: int = 10, exclude_seen: bool = True, among: Iterable | None = None
    ) -> Iterator[pd.DataFrame]:
        """`recommend`, a block of users at a time, so that memory does not grow with their number."""
        raw_users = self.users if users is None else as_raw(users)
        if k < 1 or not len(raw_users):
            raise UserError("there is nothing to recommend: give at least one user, and k of at least 1")
        allowed = None if among is None else self._allowed(as_raw(among))
        choice = Choice(self.task.excluded if exclude_seen else None, allowed)
        for start in range(0, len(raw_users), BLOCK_USERS):
            block = self._recommend_block(raw_users[start : start + BLOCK_USERS], k, choice)
            block.attrs["count"] = min(BLOCK_USERS, len(raw_users) - start)
            yield block

    def similar_items(self, item: Any, k: int = 10, table: str | None = None) -> pd.DataFrame:
        """The k items whose embeddings have the highest cosine similarity with that of an item.

        Args:
            item: its raw id.
            table: a name in `embeddings`; None: the first.

        Returns:
            rank (from 1), item, title, similarity. Equal similarities are ordered by raw id.

        Raises:
            UserError: the item or the table is unknown, or k is below 1.
        """
        row = int(self._find("item", self._item_rows, as_raw([item]))[0])
        if k < 1:
            raise UserError(f"k must be at least 1, not {k}")
        tables = self.task.embeddings(self.model)
        if not tables or (table is not None and table not in tables):
            raise UserError(f"the run has no item table {table or ''}: it has {', '.join(tables) or 'none'}")
        vectors = nn.functional.normalize(tables[table or next(iter(tables))].double(), dim=1)
        similarity = (vectors @ vectors[row]).cpu().numpy()
        order = np.lexsort((self._place.cpu().numpy(), -similarity))
        best = order[order != row][:k]
        named = {"rank": range(1, len(best) + 1), "item": self.items[best], "title": self._titles[best]}
        return pd.DataFrame(named | {"similarity": similarity[best]})

    def embeddings(self) -> dict[str, pd.DataFrame]:
        """The item tables by name, a row an item with its raw id as index."""
        tables = self.task.embeddings(self.model)
        return {name: pd.DataFrame(table.cpu().numpy(), index=self.items) for name, table in tables.items()}

    def fold_in(self, ratings: pd.DataFrame) -> "TrainedRun":
        """The network for new users, whose embeddings are solved from their rows; no weight of the network changes.

        Args:
            ratings: the columns user, item and rating. A rating that is missing stands for an item that was watched;
                without the column, all are. For a run on a feedback file: user, item and the run's labels.

        Returns:
            A run that answers for the users in `ratings`, in their order there, and for no others. Their rows count as
            seen. Its `notes` name what was left out: rows of items that the run does not know, users without
            another row, and rows that repeat a pair, of which the last one counts.

        Raises:
            UserError: there is no row of a known item, a user is in the run, a rating is out of scale, a column or an
                id is missing, or the family cannot take up new users.
        """
        base = self._trained
        require_new_users(base.task)
        users, rows, notes = new_rows(ratings, as_raw, base.task.data, base._item_rows)
        model, task = base.task.fold_in(base.model, users, rows)
        folded = TrainedRun(base.folder, base.checkpoint, base.config, model, task, base.device)
        folded.notes = (*notes, *task.data.notes)
        folded.item_counts, folded._trained = base.item_counts, base
        return folded

    def knows(self, users: Sequence) -> np.ndarray:
        """(N,) bool: True for the users of the run."""
        return np.array([raw in self._user_rows for raw in as_raw(users)], dtype=bool)

    @cached_property
    def item_counts(self) -> np.ndarray:
        """(num_items,) the number of rows of each item in the data that the network was trained on."""
        return self.task.data.interactions.item_counts.cpu().numpy()

    @cached_property
    def popular(self) -> np.ndarray:
        """Item row numbers by falling number of rows in the data; equal ones by raw id."""
        return np.lexsort((self._place.cpu().numpy(), -self.item_counts))

    @cached_property
    def _user_rows(self) -> dict[str, int]:
        return {raw: row for row, raw in enumerate(self.users)}

    @cached_property
    def _item_rows(self) -> dict[str, int]:
        return {raw: row for row, raw in enumerate(self.items)}

    @cached_property
    def _titles(self) -> np.ndarray:
        return np.array(self.task.data.titles, dtype=object)

    @cached_property
    def _place(self) -> Tensor:
        return raw_order(self.items).to(self.device)

    def _find(self, kind: str, rows: dict[str, int], raw_ids: np.ndarray) -> np.ndarray:
        found = np.array([rows.get(raw, -1) for raw in raw_ids], dtype=np.int64)
        if (found < 0).any():
            unknown = list(dict.fromkeys(raw_ids[found < 0]))
            more = f" and {len(unknown) - 1:,} more {kind}s" if len(unknown) > 1 else ""
            verb = "are" if more else "is"
            raise UserError(f"{kind} {unknown[0]}{more} {verb} not in the data of {self.path}: leave them out")
        return found

    def _allowed(self, raw_items: np.ndarray) -> Tensor:
        if not len(raw_items):
            raise UserError("there are no items to choose from: give at least one, or leave the choice open")
        allowed = torch.zeros(len(self.items), dtype=torch.bool)
        allowed[self._find("item", self._item_rows, raw_items)] = True
        return allowed.to(self.device)

    def _recommend_block(self, raw_users: np.ndarray, k: int, choice: Choice) -> pd.DataFrame:
        rows = np.array([self._user_rows.get(raw, -1) for raw in raw_users], dtype=np.int64)
        known = rows >= 0
        width = min(k, len(self.items))
        items, is_there = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), bool)
        if known.any():
            users = torch.from_numpy(rows[known]).to(self.device)
            with evaluating(self.model):
                best, scores = top_items(self.model, self.task, users, width, self._place, choice)
            items[known], is_there[known] = best.cpu().numpy(), (scores > -torch.inf).cpu().numpy()
        if not known.all():
            allowed = choice.allowed
            popular = self.popular if allowed is None else self.popular[allowed.cpu().numpy()[self.popular]]
            items[~known, : len(popular)] = popular[:width]
            is_there[~known, : len(popular)] = True
        cells = np.nonzero(is_there)
        return self._table(raw_users, rows, items, cells)

    def _table(
        self, raw_users: np.ndarray, rows: np.ndarray, items: np.ndarray, cells: tuple[np.ndarray, np.ndarray]
    ) -> pd.DataFrame:
        """A row for each cell of the (users, k) matrix `items`."""
        users, chosen = rows[cells[0]], items[cells]
        known = users >= 0
        pairs = (torch.from_numpy(ids[known]).to(self.device) for ids in (users, chosen))
        with evaluating(self.model):
            shown = self.task.score(self.model, *pairs)[1]
        table = {"user": raw_users[cells[0]], "rank": cells[1] + 1, "item": self.items[chosen]}
        table |= {"title": self._titles[chosen], "known": known}
        for name, values in shown.items():
            column = np.full(len(known), np.nan, dtype=np.float32)
            column[known] = values.cpu().numpy()
            table[name] = column
        return pd.DataFrame(table)


def as_raw(ids: Iterable) -> np.ndarray:
    """Raw ids as the data files have them, as text: 196, 196.0 read as a number of a column, and "196" are the same.

    Raises:
        UserError: a text was given where a list of ids belongs.
    """
    if isinstance(ids, (str, bytes)):
        raise UserError(f"give a list of ids, such as [{ids!r}], not the text {ids!r} alone")
    return np.array([str(int(raw)) if isinstance(raw, float) and raw.is_integer() else str(raw) for raw in ids], object)
