"""benchmark.csv: all measurements in long form, kept from one call of benchmark.py to the next."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

from config.errors import UserError
from sources.files import write_atomically

COLUMNS = ("part", "name", "metric", "value", "unit")
Record = Callable[[str, str, float, str], None]  # name, metric, value, unit

SIMULATED = "simulated"  # the metric that says whether a part was measured on simulated ratings: 1 or 0


def record_simulated(record: Record, name: str, simulated: bool) -> None:
    """Every part calls this for its data, so that pictures can mark them. name: of the data."""
    record(name, SIMULATED, float(simulated), "1 or 0")


class Results:
    """The rows of a folder's benchmark.csv; a part that is measured again replaces its rows.

    Raises:
        UserError: the file exists and is another table, or the folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "benchmark.csv"
        self.rows: list[dict[str, str]] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if self.path.exists():
                self.rows = self._read()
        except OSError as error:
            raise UserError(f"{self.path} cannot be used: {error.strerror}; give another --output") from None

    def measure(self, part: str, measure: Callable[[Record], None]) -> None:
        """Replace the part's rows by those that `measure` records; they are written once it has succeeded."""
        found = []

        def record(name: str, metric: str, value: float, unit: str) -> None:
            row = (part, name, metric, f"{value:.6g}", unit)
            found.append(dict(zip(COLUMNS, row, strict=True)))

        measure(record)
        self.rows = [row for row in self.rows if row["part"] != part] + found
        text = io.StringIO()
        table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(self.rows)
        write_atomically(self.path, text.getvalue().encode())

    def of(self, part: str, metric: str) -> dict[str, float]:
        """{name: value} of one metric of a part, in the order measured."""
        chosen = (row for row in self.rows if (row["part"], row["metric"]) == (part, metric))
        return {row["name"]: float(row["value"]) for row in chosen}

    def is_simulated(self, part: str) -> bool:
        """True where the part, or one of its data sets, was measured on simulated ratings."""
        return any(self.of(part, SIMULATED).values())

    def _read(self) -> list[dict[str, str]]:
        with self.path.open(newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            if tuple(table.fieldnames or ()) != COLUMNS:
                raise UserError(f"{self.path} is not a table of this benchmark: move it away, or give another --output")
            return list(table)
