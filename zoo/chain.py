"""Chains of labels: no label is 1 in a row where the label before it is 0."""

from torch import Tensor

from config.errors import UserError
from dataset import Data, Interactions


def is_chain(data: Data) -> bool:
    """True if, in every row, a label is 0 wherever an earlier one is 0; always true of ratings."""
    return not data.labels or not _find_violations(data.seen + data.test).any()


def require_chain(data: Data) -> None:
    """Check that the labels form a chain, see `is_chain`.

    Raises:
        UserError: a label is 1 in a row where the one before it is 0; names the row.
    """
    if is_chain(data):
        return
    rows = data.seen + data.test
    violations = _find_violations(rows)
    row, place = violations.nonzero()[0].tolist()
    user, item = data.users[rows.user_ids[row]], data.items[rows.item_ids[row]]
    raise UserError(
        f"{data.name}: {data.labels[place + 1]} is 1 where {data.labels[place]} is 0 for user {user!r} and item "
        f"{item!r}, one of {violations.any(1).sum():,} such rows; models that assume a chain {' > '.join(data.labels)} "
        "(ESMM, AITM, --chain conditional, --calibrator) require a label to be 0 wherever an earlier one is 0; fix the "
        "rows, give --labels in the order of the chain, or choose another model"
    )


def _find_violations(rows: Interactions) -> Tensor:
    """(R, T - 1) bool, true where a label is 1 and the one before it is 0; every broken chain has such a place."""
    return rows.ratings[:, 1:] > rows.ratings[:, :-1]
