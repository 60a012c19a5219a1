"""Grade a folder of hand-ins into one CSV: a row a hand-in, written as soon as it is graded.

Rows whose hand-in and grader have not changed are kept, so that the same command goes on after an interruption and
grades again what was handed in again.
"""

import csv
import hashlib
import io
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from config.errors import UserError
from grading.hand_in import collect, digest
from grading.pool import GRADING, Pool
from grading.questions import QUESTIONS, Check
from grading.report import as_gradescope, reason_of
from grading.results import Grading
from sources.files import write_atomically

Row = dict[str, str]
FORMULA_STARTS = ("=", "+", "-", "@")  # a spreadsheet would compute such a cell
NOT_GRADED = "NOT GRADED"


class Classroom:
    """The grading of a folder of hand-ins.

    Args:
        folder: every entry that is not hidden is a hand-in: a folder, a zip or a Python file.
        checks: to run on each.
        table: the CSV file; rows that are still true are kept.
        details: a folder for a results.json of each hand-in, in Gradescope's format; None for none.
        time_scale: multiplies every time limit.

    Raises:
        UserError: there is nothing to grade, or the CSV file is another table.
    """

    def __init__(
        self, folder: Path, checks: Sequence[Check], table: Path, details: Path | None, time_scale: float
    ) -> None:
        self.folder, self.checks, self.table, self.details, self.time_scale = folder, checks, table, details, time_scale
        self.columns = columns_of(checks)
        outputs = {path.resolve() for path in (table, details) if path is not None}
        entries = (path for path in folder.iterdir() if not path.name.startswith("."))
        self.hand_ins = sorted(path for path in entries if path.resolve() not in outputs)
        if not self.hand_ins:
            raise UserError(f"there is no hand-in in {folder}: it should hold a folder, a zip or a file for each")
        self.rows = self._read_table()
        self.settings = f"{[check.id for check in checks]} {time_scale} {digest(GRADING)}"
        self.num_kept = self.num_graded = 0
        self.places: dict[Grading, tuple[Path, str, str]] = {}  # of hand-ins being graded: path, digest, note

    def grade(self, pool: Pool, forbidden: Sequence[Path], log: Callable[[str], None]) -> None:
        """Grade all hand-ins and write the table after each; `log` takes a line for each.

        `forbidden` are files and folders that a hand-in must not read; it cannot read the other ones either.
        """
        start = time.monotonic()
        for grading, _ in pool.run(self._gradings(pool, [*forbidden, self.folder], log)):
            if grading.is_done and grading in self.places:
                path, key, note = self.places.pop(grading)
                self._enter(path, row_of(path, self.checks, grading, note, key), grading)
                log(self._progress(path, time.monotonic() - start))

    @property
    def num_done(self) -> int:
        return self.num_kept + self.num_graded

    def how_far(self) -> str:
        return f"{self.num_done} of {len(self.hand_ins)} hand-ins; the same command goes on"

    def _gradings(self, pool: Pool, forbidden: Sequence[Path], log: Callable[[str], None]) -> Iterator[Grading]:
        """A grading for each hand-in whose row is missing or out of date."""
        for path in self.hand_ins:
            place = pool.new_place()
            try:
                note, failure = collect(path, place), ""
                key = self._key(digest(place))
            except UserError as error:
                failure = str(error)
                key = self._key(failure)
            if self._is_kept(path, key):
                self.num_kept += 1
            elif failure:
                self._enter(path, row_of(path, self.checks, None, failure, key), None)
                log(self._progress(path, 0.0))
            else:
                grading = Grading(place, self.checks, self.time_scale, forbidden)
                self.places[grading] = path, key, note
                yield grading

    def _key(self, content: str) -> str:
        return hashlib.sha256(f"{self.settings} {content}".encode()).hexdigest()[:16]

    def _is_kept(self, path: Path, key: str) -> bool:
        row = self.rows.get(cell(path.name))
        has_details = self.details is None or self._details_of(path).is_file()
        return row is not None and row["digest"] == key and has_details

    def _details_of(self, path: Path) -> Path:
        assert self.details is not None
        return self.details / f"{path.name}.json"

    def _enter(self, path: Path, row: Row, grading: Grading | None) -> None:
        self.rows[row["hand_in"]] = row
        self.num_graded += 1
        if self.details is not None:
            results = grading.in_order() if grading is not None else []
            failure = grading.import_failure if grading is not None else None
            report = as_gradescope(results, float(row["seconds"]), reason_of(failure) if failure else row["note"])
            write_atomically(self._details_of(path), (json.dumps(report, indent=2) + "\n").encode())
        write_atomically(self.table, self._as_csv().encode("utf-8-sig"))

    def _progress(self, path: Path, seconds: float) -> str:
        row = self.rows[cell(path.name)]
        left = len(self.hand_ins) - self.num_done
        rate = seconds / max(self.num_graded, 1)
        estimate = f"   about {rate * left / 60:.0f} min left" if left and seconds else ""
        return (
            f"[{self.num_done}/{len(self.hand_ins)}] {path.name}: {row['points']} points, {row['seconds']} s{estimate}"
        )

    def _as_csv(self) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows[name] for name in sorted(self.rows))
        return text.getvalue()

    def _read_table(self) -> dict[str, Row]:
        """The rows of an earlier grading that still have a hand-in, by its name."""
        if not self.table.exists():
            return {}
        try:
            with self.table.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.DictReader(file)
                rows = list(reader)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"{self.table} cannot be read ({error}): give --csv another file") from None
        if list(reader.fieldnames or []) != self.columns:
            raise UserError(f"{self.table} is another table, or of other checks: give --csv another file")
        names = {cell(path.name) for path in self.hand_ins}
        return {row["hand_in"]: row for row in rows if row["hand_in"] in names}

    def summary(self) -> list[str]:
        """A line for each check: how many hand-ins passed, and the commonest failure."""
        rows = list(self.rows.values())
        width = max(len(check.id) for check in self.checks) + 2
        lines = [f"{'check':<{width}}passed   commonest failure"]
        for check in self.checks:
            passed = sum(row[check.id] == "PASS" for row in rows)
            failures = Counter(failure_of(row, check.id) for row in rows if row[check.id] != "PASS")
            commonest = "".join(f"{count} x {failure}" for failure, count in failures.most_common(1))
            lines.append(f"{check.id:<{width}}{passed:>3} / {len(rows):<4}{commonest}".rstrip())
        mean = sum(int(row["points"]) for row in rows) / len(rows)
        points = sum(check.points for check in self.checks)
        kept = f", {self.num_kept} of them kept from {self.table}" if self.num_kept else ""
        return [*lines, f"{len(rows)} hand-ins{kept}: {mean:.1f} of {points} points in the mean; see {self.table}"]


def columns_of(checks: Sequence[Check]) -> list[str]:
    """The header: the hand-in, points, points of each question, the status of each check, and what is behind them."""
    questions = [question for question in QUESTIONS if any(check.question == question for check in checks)]
    return ["hand_in", "points", *questions, *(check.id for check in checks), "seconds", "note", "problems", "digest"]


def row_of(path: Path, checks: Sequence[Check], grading: Grading | None, note: str, key: str) -> Row:
    """The row of a hand-in; without a grading, of one that cannot be graded, for the reason in `note`."""
    results = grading.results if grading is not None else {}
    row = {"hand_in": path.name, "note": note, "digest": key, "points": str(sum(r.points for r in results.values()))}
    for check in checks:
        earned = results[check.id].points if results else 0
        row[check.question] = str(int(row.get(check.question, 0)) + earned)
        row[check.id] = results[check.id].status if results else NOT_GRADED
    row["seconds"] = f"{grading.seconds:.1f}" if grading is not None else "0.0"
    failure = grading.import_failure if grading is not None else None
    explained = {"models.py": failure} if failure else {check.id: results[check.id] for check in checks if results}
    row["problems"] = "\n".join(f"{name}: {'; '.join(r.explanation)}" for name, r in explained.items() if r.explanation)
    return {name: cell(text) for name, text in row.items()}


def failure_of(row: Row, check: str) -> str:
    """What is wrong in a row, in the words that equal failures share."""
    problems = dict(line.partition(": ")[::2] for line in row["problems"].splitlines())
    text = problems.get(check) or problems.get("models.py") or row["note"] or ""
    return f"{row[check]} {text.partition('; got:')[0]}".strip()


def cell(text: str) -> str:
    """Text that a spreadsheet shows and does not compute."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text
