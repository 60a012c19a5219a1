"""The pieces of all tables: cells, Markdown rows, and the marks of simulated data."""

import math
from collections.abc import Iterable, Sequence

import pandas as pd

from training.report import BOX

MARK = "(SIMULATED DATA)"


def cell(mean: float, sd: float = math.nan, form: str = ".4f") -> str:
    """A mean and its standard deviation: "0.1234 ± 0.0056"; nan is "n/a", and a standard deviation of nan is left out.

    form: of both numbers, as in an f-string.
    """
    if math.isnan(mean):
        return "n/a"
    return f"{mean:{form}}" + ("" if math.isnan(sd) else f" ± {sd:{form}}")


def row_cell(row: pd.Series, name: str, form: str = ".4f") -> str:
    """The cell of one number in a row of `means_and_deviations`."""
    return cell(row[f"{name} mean"], row[f"{name} sd"], form)


def means_and_deviations(runs: pd.DataFrame) -> pd.DataFrame:
    """Over seeds: of every column "<name> mean" and "<name> sd" (divisor n - 1), for every row of the table.

    runs: indexed by (row, seed).
    """
    by_row = runs.groupby("row", sort=False)
    means, deviations = by_row.mean(), by_row.std(ddof=1)
    return pd.DataFrame(
        {f"{name} {kind}": values[name] for name in means for kind, values in (("mean", means), ("sd", deviations))}
    )


def markdown_rows(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    lines = [titles, *rows]
    head, *body = (f"| {' | '.join(line)} |" for line in lines)
    return [head, "|---" * len(titles) + "|", *body]


def percent(fraction: float, digits: int = 0) -> str:
    return f"{100 * fraction:.{digits}f} %"


def box(simulated: bool) -> list[str]:
    """The lines that a text on simulated data begins with; none for other data."""
    return ["```", BOX, "```", ""] if simulated else []


def marked(name: str, simulated: bool) -> str:
    """The name of a data set, with a mark where it is simulated."""
    return f"{name} {MARK}" if simulated else name
