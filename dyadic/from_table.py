"""Make dyads from a table with one row per dyad and three columns of 0 and 1."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from config.dyadic import DyadOptions
from config.errors import UserError
from dyadic.data import DyadicData
from dyadic.split import keep_frequent, split_dyads

DEFAULT = DyadOptions()


@dataclass(frozen=True)
class Columns:
    """The names of the columns of a table of dyads.

    user, item: columns of raw ids.
    labels: three columns of 0 and 1, in the roles of click, bookmark and reply.
    displayed: a column of 0 and 1. A row that was neither displayed nor acted on is not an observation and is dropped.
    context: columns of numbers; missing values become 0. Do not use columns that contain the test period.
    time: a column to sort by, for the split "time67".
    """

    user: str = "user"
    item: str = "item"
    labels: tuple[str, ...] = ("clicked", "bookmarked", "replied")
    displayed: str | None = None
    context: tuple[str, ...] = ()
    time: str | None = None

    @property
    def flags(self) -> tuple[str, ...]:
        """The columns of 0 and 1."""
        return self.labels if self.displayed is None else (*self.labels, self.displayed)

    @property
    def numbers(self) -> tuple[str, ...]:
        """The columns of any numbers."""
        return self.context if self.time is None else (*self.context, self.time)


COLUMNS = Columns()


def from_table(
    table: pd.DataFrame,
    name: str,
    columns: Columns = COLUMNS,
    options: DyadOptions = DEFAULT,
    seed: int = 0,
    notes: tuple[str, ...] = (),
) -> DyadicData:
    """Make one dyad per row.

    Args:
        table: has the columns that `columns` names; further columns are ignored.
        name: of the data set, for messages.
        options: see `keep_frequent` and `split_dyads`; the mapping is not used.
        seed: of the random split.
        notes: sentences for the user.

    Raises:
        UserError: a column is missing or holds a wrong value, a pair occurs twice, or no dyad is left.
    """
    _check_table(table, name, columns)
    table, dropped = _drop_unobserved(table, name, columns)
    user_ids, item_ids = (pd.factorize(table[column])[0] for column in (columns.user, columns.item))
    table = table[keep_frequent(user_ids, item_ids, options)]
    users, user_ids = np.unique(table[columns.user].astype(str).to_numpy(), return_inverse=True)
    items, item_ids = np.unique(table[columns.item].astype(str).to_numpy(), return_inverse=True)
    times = None if columns.time is None else table[columns.time].to_numpy()
    train, test = split_dyads(user_ids, options.split, times, seed)
    return DyadicData(
        name=name,
        users=users,
        items=items,
        user_ids=user_ids,
        item_ids=item_ids,
        labels=table[list(columns.labels)].to_numpy(np.int8),
        context=table[list(columns.context)].fillna(0).to_numpy(np.float64),
        train=train,
        test=test,
        displayed=None if columns.displayed is None else table[columns.displayed].to_numpy() == 1,
        label_names=columns.labels,
        notes=notes + dropped,
    )


def _drop_unobserved(table: pd.DataFrame, name: str, columns: Columns) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The rows that were displayed or acted on, and a note on the others; all rows without a column displayed."""
    if columns.displayed is None:
        return table, ()
    observed = (table[list(columns.flags)] == 1).any(axis=1)
    count = (~observed).sum()
    note = f"{count:,} rows of {name} were neither displayed nor acted on: left out"
    return table[observed], (note,) if count else ()


def _check_table(table: pd.DataFrame, name: str, columns: Columns) -> None:
    """Raises UserError where a column is missing or holds a wrong value."""
    wanted = [columns.user, columns.item, *columns.flags, *columns.numbers]
    missing = [column for column in wanted if column not in table]
    if missing:
        raise UserError(f"{name} needs the columns {', '.join(wanted)}; missing: {', '.join(missing)}")
    if len(columns.labels) != 3:
        raise UserError(f"the dyads of {name} need three label columns, not {len(columns.labels)}")
    for column in columns.flags:
        if not table[column].isin([0, 1]).all():
            raise UserError(f"column {column} of {name} must hold 0 and 1 only")
    if table[[columns.user, columns.item]].isna().any(axis=None):
        raise UserError(f"a row of {name} lacks its {columns.user} or its {columns.item}; remove it")
    for column in columns.context:
        if not pd.api.types.is_numeric_dtype(table[column]):
            raise UserError(f"context column {column} of {name} must hold numbers; encode it first")
