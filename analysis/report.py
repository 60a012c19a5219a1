"""The report: all experiments under a folder as report.md and as one self-contained HTML file.

A missing experiment is named with the command that runs it. A full run is preferred to a --quick one. The folder may
come from somebody else: see foreign.py and page.py.
"""

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from markdown.extensions.toc import slugify

from analysis import answers, dyadic, foreign, metadata, sweep, weights, zoo
from analysis.page import as_page
from analysis.tables import MARK, box, markdown_rows
from config.errors import UserError
from sources.files import write_atomically
from training.report import BOX

TITLE = "Sharing and weighting in a multi-task recommender"
Section = Callable[["Found"], str]


def write(folder: Path) -> list[Path]:
    """Write report.md and report.html to `folder`, which holds the experiments' own folders; returns their paths.

    Raises:
        UserError: there is nothing to report, or a file of an experiment is damaged.
    """
    found = Found(folder)
    text = compose(found)
    paths = [folder / "report.md", folder / "report.html"]
    for path, content in zip(paths, (text, as_page(TITLE, text, found.pictures)), strict=True):
        write_atomically(path, content.encode())
    return paths


def compose(found: "Found") -> str:
    """The report in Markdown, with links to pictures relative to the folder of the results."""
    sections: dict[str, Section] = {
        "The questions and their answers": _questions,
        "The four experiments": _weights,
        "The sweep of weights and weightings": _sweep,
        "The zoo": lambda found: _table_and_picture(found, "zoo", "The networks of the zoo"),
        "The dyadic learner": lambda found: _table_and_picture(
            found, "dyadic", "Four tasks learned together and apart"
        ),
        "The data": _data,
        "Settings, seeds and versions": _settings,
    }
    lines = [f"# {TITLE}", "", *_warning(found)]
    lines += [
        "One network learns two tasks: which movies users watch and how they rate them. `python experiments.py report` "
        "filled in every number below from runs; nothing was chosen on a test part. Weights are given as (λ_F, λ_R), "
        "that of the ranking task and that of the rating task.",
        "",
    ]
    lines += [f"- [{title}](#{slugify(title, '-')})" for title in sections] + [""]
    for title, make in sections.items():
        lines += [f"## {title}", "", _make(found, title, make).strip(), ""]
    return "\n".join(lines)


def _make(found: "Found", title: str, make: Section) -> str:
    """The text of a section; UserError where a file has not the columns or the types that its experiment writes."""
    try:
        return make(found)
    except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
        raise UserError(
            f"a file in {found.root} for the section {title!r} does not hold what its experiment writes "
            f"({type(error).__name__}: {error}); run the experiment again, finished runs are kept"
        ) from None


class Found:
    """The folder of every experiment, None where it has not been run, and its metadata.

    unrecorded: {experiment: the file of metadata that it lacks}, of those that ran before there were such files.
    pictures: {link: PNG} of those that the sections show so far.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pictures: dict[str, bytes] = {}
        self.weights = self._find("multitask", weights.METADATA)
        self.sweep = self._find("multitask", sweep.METADATA)
        self.zoo = self._find("zoo", "table.md")
        self.dyadic = self._find("dyadic", "table.md")
        parts = {
            "weights": (self.weights, weights.METADATA),
            "sweep": (self.sweep, sweep.METADATA),
            "zoo": (self.zoo, zoo.METADATA),
            "dyadic": (self.dyadic, dyadic.METADATA),
        }
        if not any(folder for folder, _ in parts.values()):
            raise UserError(
                f"there is nothing to report in {root}: run an experiment first, such as python experiments.py weights "
                "--quick, or name another --folder"
            )
        paths = {name: folder / file for name, (folder, file) in parts.items() if folder}
        self.metadata = {name: self._metadata(path) for name, path in paths.items() if path.exists()}
        self.unrecorded = {name: path for name, path in paths.items() if name not in self.metadata}

    def _find(self, name: str, file: str) -> Path | None:
        folders = (self.root / name, self.root / f"{name}-quick")
        return next((folder for folder in folders if (folder / file).is_file()), None)

    def link(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def table(self, folder: Path, name: str) -> pd.DataFrame:
        """Raises UserError where the file is missing or damaged."""
        return foreign.read_csv(self.root, folder / name)

    def text(self, path: Path) -> str:
        """The Markdown of a file; UserError where it is missing or damaged."""
        return foreign.read_markdown(self.root, path)

    def picture(self, path: Path) -> str | None:
        """The link to a picture, which is then in `pictures`; None where there is none."""
        if not path.is_file():
            return None
        self.pictures[self.link(path)] = foreign.read_picture(self.root, path)
        return self.link(path)

    def _metadata(self, path: Path) -> dict:
        return metadata.parse(path, foreign.read_inside(self.root, path))


def _warning(found: Found) -> list[str]:
    """The box, and the parts with simulated data."""
    simulated = {name: described["simulated"] for name, described in found.metadata.items()}
    marks = {"zoo": BOX, "dyadic": MARK}
    simulated |= {name: marks[name] in found.text(path.parent / "table.md") for name, path in found.unrecorded.items()}
    words = {"dyadic": "`dyadic` (the marked columns and headings)"}
    parts = [words.get(name, f"`{name}`") for name, is_simulated in simulated.items() if is_simulated]
    if not parts:
        return []
    return [*box(True), f"Parts with simulated data: {', '.join(parts)}.", ""]


def _missing(command: str) -> str:
    return f"Not run yet: `python experiments.py {command}` makes this part; `--quick` makes a small simulated one."


def _source(found: Found, folder: Path) -> str:
    quick = ", a `--quick` run of few seeds and epochs" if folder.name.endswith("-quick") else ""
    return f"From `{found.link(folder)}`{quick}."


def _questions(found: Found) -> str:
    if not found.weights:
        bias, rest = answers.answer_user_bias(None), _missing("weights")
        return f"### Does a user bias change what the ranking can learn?\n\n{bias}\n\n{rest}"
    curves = found.table(found.weights, weights.CURVES)
    compared = answers.compare_all(curves)
    bias = answers.answer_user_bias(found.table(found.weights, weights.BIAS))
    parts = [_source(found, found.weights), metadata.describe(found.metadata["weights"]) + "."]
    parts.append("Intervals are those of one comparison by itself; p is after Holm's correction over all of the table.")
    parts += ["### Does a user bias change what the ranking can learn?", bias]
    for question in answers.QUESTIONS:
        parts += [f"### {question.title}", answers.answer(question, compared[question.title], curves)]
    return "\n\n".join([*parts, "### All comparisons", answers.comparison_table(compared)])


def _weights(found: Found) -> str:
    if not found.weights:
        return _missing("weights")
    picture = _picture(found, found.weights / weights.PICTURE, "Curves of the four experiments over epochs")
    return "\n\n".join([_source(found, found.weights), picture, found.text(found.weights / weights.TABLE)])


def _sweep(found: Found) -> str:
    if not found.sweep:
        return _missing("sweep")
    front = sweep.front_in_words(found.table(found.sweep, sweep.NUMBERS).set_index("configuration"))
    picture = _picture(found, found.sweep / sweep.PICTURE, "Test MRR against test MSE of every run, with Pareto front")
    words = f"On the front, from the lowest MSE to the highest MRR: {front}."
    return "\n\n".join([_source(found, found.sweep), picture, words, found.text(found.sweep / sweep.TABLE)])


def _table_and_picture(found: Found, name: str, alt: str) -> str:
    folder = getattr(found, name)
    if not folder:
        return _missing(name)
    text = re.sub(r"^(#+) ", r"##\1 ", found.text(folder / "table.md"), flags=re.MULTILINE)
    parts = [_source(found, folder), _picture(found, folder / "table.png", alt), text]
    users = folder / "users.png"  # of the dyadic learner alone
    if users.is_file():
        parts.append(_picture(found, users, "Users by their numbers of clicks, bookmarks and replies"))
    return "\n\n".join(parts)


def _data(found: Found) -> str:
    """The statistics: a table of the experiments with one data set each, and one for each experiment with several."""
    statistics = {name: described["statistics"] for name, described in found.metadata.items()}
    several = {name: one for name, one in statistics.items() if one and all(isinstance(v, dict) for v in one.values())}
    single = {name: one for name, one in statistics.items() if name not in several}
    tables = [_columns_table(single)] if single else []
    for name, columns in several.items():
        tables += [f"`{name}`, on several data sets; means over seeds:", _columns_table(columns)]
    return "\n\n".join([*tables, *_unrecorded(found)])


def _settings(found: Found) -> str:
    """The settings, with the number of runs and the seeds below."""
    columns = {name: described["settings"] | described["versions"] for name, described in found.metadata.items()}
    parts = [_columns_table(columns)] if columns else []
    for name, described in found.metadata.items():
        seeds = ", ".join(map(str, described["seeds"]))
        parts.append(
            f"`{name}`: {described['runs']} runs; seeds {seeds} of split, initial weights and order of the rows."
        )
    return "\n\n".join([*parts, *_unrecorded(found)])


def _unrecorded(found: Found) -> list[str]:
    """A line for each experiment that has no file of metadata."""
    return [
        f"`{name}`: data and settings were not recorded. Run `python experiments.py {name}"
        f"{' --quick' if path.parent.name.endswith('-quick') else ''}` with the same options again: it keeps finished "
        f"runs and writes `{found.link(path)}`."
        for name, path in found.unrecorded.items()
    ]


def _columns_table(columns: dict[str, dict]) -> str:
    """A table with these columns {title: {row: value}}; rows without a value are left out."""
    keys = dict.fromkeys(key for column in columns.values() for key, value in column.items() if _as_text(value))
    rows = [[key, *(_as_text(column.get(key)) for column in columns.values())] for key in keys]
    return "\n".join(markdown_rows(["", *columns], rows))


def _as_text(value: object) -> str:
    """A value of a JSON file for a cell; "" where there is none."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(map(_as_text, value))
    return "" if value is None else str(value)


def _picture(found: Found, path: Path, alt: str) -> str:
    link = found.picture(path)
    if link is None:
        return f"The picture `{found.link(path)}` is missing; run the experiment again, finished runs are kept."
    return f"![{alt}]({link})"
