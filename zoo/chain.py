"""Chains of labels: no label is 1 in a row where the label before it is 0."""

from dataclasses import fields, replace

from torch import Tensor

from config.errors import UserError
from dataset import Data, Interactions

PARTS = ("train", "validation", "test")


def is_chain(data: Data) -> bool:
    """True if, in every row, a label is 0 wherever an earlier one is 0; always true of ratings."""
    return not data.labels or not _find_violations(data.interactions).any()


def require_chain(data: Data) -> None:
    """Check that the labels form a chain, see `is_chain`.

    Raises:
        UserError: a label is 1 in a row where the one before it is 0; names the row.
    """
    if is_chain(data):
        return
    rows = data.interactions
    violations = _find_violations(rows)
    row, place = violations.nonzero()[0].tolist()
    user, item = data.users[rows.user_ids[row]], data.items[rows.item_ids[row]]
    raise UserError(
        f"{data.name}: {data.labels[place + 1]} is 1 where {data.labels[place]} is 0 for user {user!r} and item "
        f"{item!r}, one of {violations.any(1).sum():,} such rows; models that assume a chain {' > '.join(data.labels)} "
        "(ESMM, AITM, --chain conditional, --calibrator) require a label to be 0 wherever an earlier one is 0; fix the "
        "rows, add --mend_chain where a label implies those before it, give --labels in the order of the chain, or "
        "choose another model"
    )


def note_breaks(data: Data) -> Data:
    """The data with a note that counts the rows that break the chain, if any does."""
    if is_chain(data):
        return data
    note = f"{_describe_breaks(data)}; --mend_chain would set each label before a 1 to 1"
    return replace(data, notes=(*data.notes, note))


def mend_chain(data: Data) -> Data:
    """The data with each label set to 1 in the rows where a later one is 1, and a note that counts the changes."""
    rows = data.interactions
    mended = rows.ratings.flip(1).cummax(1).values.flip(1)
    counts = (mended != rows.ratings).sum(dim=0).tolist()
    changes = [f"{label} in {count:,}" for label, count in zip(data.labels, counts, strict=True) if count]
    effect = f"sets {', '.join(changes)} of them to 1" if changes else "changes nothing"
    note = f"{_describe_breaks(data)}: --mend_chain {effect}"
    return _relabel(data, data.labels, mended, note)


def leave_out_root(data: Data) -> Data:
    """The data without the first labels that are 1 in every row, such as that an item was shown.

    They are the root of the chain: nothing can be learned of them, and the other labels are 0 or 1 given them. A note
    names them. At least one label stays: where all are 1 in every row, all do.
    """
    rows = data.interactions
    is_constant = rows.ratings.bool().all(dim=0).tolist()
    if all(is_constant) or not is_constant[0]:
        return data
    first = is_constant.index(False)
    root, rest = " and ".join(data.labels[:first]), data.labels[first:]
    note = (
        f"{root} {'is' if first == 1 else 'are'} 1 in all {len(rows):,} rows: the root of the chain, which is not "
        f"learned; probabilities of {', '.join(rest)} are given {root} (--negatives 4 draws rows of 0, to learn "
        f"{'it' if first == 1 else 'them'}, too)"
    )
    return _relabel(data, rest, rows.ratings[:, first:].contiguous(), note)


def _describe_breaks(data: Data) -> str:
    """Such as "171 of 40,710 rows break the chain view > like"."""
    rows = data.interactions
    broken = int(_find_violations(rows).any(dim=1).sum())
    return f"{broken:,} of {len(rows):,} rows break the chain {' > '.join(data.labels)}"


def _relabel(data: Data, names: tuple[str, ...], values: Tensor, note: str) -> Data:
    """The data with these labels, `values` (R, T) for the rows of `data.interactions`, and a further note."""
    rows = replace(data.interactions, ratings=values)
    kept = {field.name: getattr(data, field.name) for field in fields(Data) if field.name not in PARTS}
    changes = {"labels": names, "notes": (*data.notes, note)}
    return Data.of_rows(rows, len(data.train), len(data.seen), **kept | changes)


def _find_violations(rows: Interactions) -> Tensor:
    """(R, T - 1) bool, true where a label is 1 and the one before it is 0; every broken chain has such a place."""
    return rows.ratings[:, 1:] > rows.ratings[:, :-1]
