"""The report: all experiments under a folder as report.md and as one self-contained HTML file.

A missing experiment is named with the command that runs it. A full run is preferred to a --quick one.
"""

import base64
import html
import re
from collections.abc import Callable
from pathlib import Path

import markdown
import pandas as pd
from jinja2 import Environment, FileSystemLoader
from markdown.extensions.toc import slugify
from markupsafe import Markup

from analysis import answers, metadata, sweep, weights
from analysis.tables import MARK, box, markdown_rows
from config.errors import UserError
from training.report import BOX

TITLE = "Sharing and weighting in a multi-task recommender"
TEMPLATES = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, keep_trailing_newline=True)


def write(folder: Path) -> list[Path]:
    """Write report.md and report.html to `folder`, which holds the experiments' own folders; returns their paths.

    Raises:
        UserError: there is nothing to report, or a file of an experiment is damaged.
    """
    text = compose(folder)
    paths = [folder / "report.md", folder / "report.html"]
    paths[0].write_text(text, encoding="utf-8")
    paths[1].write_text(as_html(text, folder), encoding="utf-8")
    return paths


def compose(folder: Path) -> str:
    """The report in Markdown, with links to pictures relative to `folder`."""
    found = Found(folder)
    sections: dict[str, Callable[[Found], str]] = {
        "The questions and their answers": _questions,
        "The four experiments": _weights,
        "The sweep of weights and weightings": _sweep,
        "The zoo": lambda found: _table_and_picture(found, "zoo", "The networks of the zoo"),
        "The dyadic learner": lambda found: _table_and_picture(
            found, "dyadic", "Four tasks learned together and apart"
        ),
        "The data": lambda found: _metadata_table(found, "statistics"),
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
        lines += [f"## {title}", "", make(found).strip(), ""]
    return "\n".join(lines)


def as_html(text: str, folder: Path) -> str:
    """The report as one HTML file with its pictures inside, without scripts or anything to fetch."""
    body = markdown.markdown(text, extensions=["tables", "fenced_code", "toc"], output_format="xhtml")
    body = re.sub(r'src="([^"]+)"', lambda match: f'src="{_inline(folder / html.unescape(match[1]))}"', body)
    body = body.replace(" ± ", "&#160;±&#160;")
    body = body.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")
    body = body.replace("<th", '<th scope="col"').replace('<th scope="col"ead', "<thead")
    return TEMPLATES.get_template("report.html.j2").render(title=TITLE, body=Markup(body))


class Found:
    """The folder of every experiment, None where it has not been run, and its metadata."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.weights = self._find("multitask", weights.METADATA)
        self.sweep = self._find("multitask", sweep.METADATA)
        self.zoo = self._find("zoo", "table.md")
        self.dyadic = self._find("dyadic", "table.md")
        if not any((self.weights, self.sweep, self.zoo, self.dyadic)):
            raise UserError(
                f"there is nothing to report in {root}: run an experiment first, such as python experiments.py weights "
                "--quick, or name another --folder"
            )
        self.metadata = {
            name: metadata.read(path / module.METADATA)
            for name, path, module in (("weights", self.weights, weights), ("sweep", self.sweep, sweep))
            if path
        }

    def _find(self, name: str, file: str) -> Path | None:
        folders = (self.root / name, self.root / f"{name}-quick")
        return next((folder for folder in folders if (folder / file).is_file()), None)

    def link(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def table(self, folder: Path, name: str) -> pd.DataFrame:
        """Raises UserError where the file is missing or damaged."""
        try:
            return pd.read_csv(folder / name)
        except (OSError, ValueError) as error:
            raise UserError(f"{folder / name} cannot be read ({error}); run its experiment again") from None


def _warning(found: Found) -> list[str]:
    """The box, and the parts with simulated data."""
    parts = [f"`{name}`" for name, described in found.metadata.items() if described["simulated"]]
    if found.zoo and BOX in (found.zoo / "table.md").read_text(encoding="utf-8"):
        parts.append("`zoo`")
    if found.dyadic and MARK in (found.dyadic / "table.md").read_text(encoding="utf-8"):
        parts.append("`dyadic` (the marked columns and headings)")
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
    return "\n\n".join([_source(found, found.weights), picture, _read(found.weights / weights.TABLE)])


def _sweep(found: Found) -> str:
    if not found.sweep:
        return _missing("sweep")
    front = sweep.front_in_words(found.table(found.sweep, sweep.NUMBERS).set_index("configuration"))
    picture = _picture(found, found.sweep / sweep.PICTURE, "Test MRR against test MSE of every run, with Pareto front")
    words = f"On the front, from the lowest MSE to the highest MRR: {front}."
    return "\n\n".join([_source(found, found.sweep), picture, words, _read(found.sweep / sweep.TABLE)])


def _table_and_picture(found: Found, name: str, alt: str) -> str:
    folder = getattr(found, name)
    if not folder:
        return _missing(name)
    text = re.sub(r"^(#+) ", r"##\1 ", _read(folder / "table.md"), flags=re.MULTILINE)
    return "\n\n".join([_source(found, folder), _picture(found, folder / "table.png", alt), text])


def _settings(found: Found) -> str:
    text = _metadata_table(found, "settings", "versions")
    for name, described in found.metadata.items():
        seeds = ", ".join(map(str, described["seeds"]))
        text += (
            f"\n\n`{name}`: {described['runs']} runs; seeds {seeds} of split, initial weights and order of the rows."
        )
    return text


def _metadata_table(found: Found, *parts: str) -> str:
    """These parts of the metadata as a table, a column per experiment."""
    if not found.metadata:
        return _missing("weights")
    columns = {
        name: {key: value for part in parts for key, value in described[part].items()}
        for name, described in found.metadata.items()
    }
    keys = dict.fromkeys(key for column in columns.values() for key in column)
    rows = [[key, *(html.escape(str(column.get(key, ""))) for column in columns.values())] for key in keys]
    return "\n".join(markdown_rows(["", *columns], rows))


def _picture(found: Found, path: Path, alt: str) -> str:
    if not path.is_file():
        return f"The picture `{found.link(path)}` is missing; run the experiment again, finished runs are kept."
    return f"![{alt}]({found.link(path)})"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); run its experiment again") from None


def _inline(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
