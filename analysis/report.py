"""The report: what has been run under a folder, as report.md and as one HTML file that needs no other.

Whatever is missing is named with the command that makes it. Of an experiment that was run both fully and by --quick,
the full one is taken.
"""

import base64
import html
import re
from collections.abc import Callable
from pathlib import Path

import markdown
import pandas as pd
from markdown.extensions.toc import slugify

from analysis import answers, sweep, weights
from analysis import metadata as about_file
from config.errors import UserError
from training.report import BOX

TITLE = "Sharing and weighting in a multi-task recommender"
FOLDERS = ("multitask", "zoo", "dyadic")
STYLE = """\
:root { color-scheme: light; }
body { font: 16px/1.55 system-ui, "Segoe UI", "Liberation Sans", Arial, sans-serif; color: #1c1c1c; background: #fff;
  max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { line-height: 1.2; } h2 { margin-top: 2.6rem; border-bottom: 1px solid #ccc; } h3 { margin-top: 1.8rem; }
a { color: #00558c; }
img { max-width: 100%; height: auto; }
pre { background: #f4f4f4; padding: .7rem; overflow-x: auto; font-size: .85rem; }
code { background: #f4f4f4; font-size: .9em; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .82rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top; }
th { background: #f4f4f4; }
@media print { body { max-width: none; font-size: 10pt; } .scroll { overflow: visible; } table { font-size: 6.5pt; }
  th, td { padding: .1rem .25rem; } img, tr, pre { break-inside: avoid; } h2, h3 { break-after: avoid; } }
"""


def write(folder: Path) -> list[Path]:
    """report.md and report.html in `folder`, which holds the experiments' own folders; returns their paths.

    Raises:
        UserError: there is nothing to report, or a file of an experiment is damaged.
    """
    text = compose(folder)
    paths = [folder / "report.md", folder / "report.html"]
    paths[0].write_text(text, encoding="utf-8")
    paths[1].write_text(as_html(text, folder), encoding="utf-8")
    return paths


def compose(folder: Path) -> str:
    """The report in Markdown; its pictures are linked relative to `folder`."""
    found = Found(folder)
    sections: dict[str, Callable[[Found], str]] = {
        "The questions and their answers": _questions,
        "The four experiments": _weights,
        "The sweep of weights and weightings": _sweep,
        "The zoo": lambda found: _table_and_picture(found, "zoo", "The networks of the zoo"),
        "The dyadic learner": lambda found: _table_and_picture(found, "dyadic", "Four tasks together and apart"),
        "The data": lambda found: _of_about(found, "statistics"),
        "Settings, seeds and versions": _settings,
    }
    lines = [f"# {TITLE}", "", *_warning(found)]
    lines += [
        "Two tasks, which films a user watches and how they rate them, learnt by one network. Every number below was "
        "filled in from runs by `python experiments.py report`; nothing was chosen on a test part. Weights stand in "
        "brackets, (λ_F, λ_R): that of the ranking task and that of the rating task.",
        "",
    ]
    lines += [f"- [{title}](#{slugify(title, '-')})" for title in sections] + [""]
    for title, make in sections.items():
        lines += [f"## {title}", "", make(found).strip(), ""]
    return "\n".join(lines)


def as_html(text: str, folder: Path) -> str:
    """The same as one HTML file: pictures inside, no scripts, nothing to be fetched."""
    body = markdown.markdown(text, extensions=["tables", "fenced_code", "toc"], output_format="xhtml")
    body = re.sub(r'src="([^"]+)"', lambda match: f'src="{_inline(folder / html.unescape(match[1]))}"', body)
    body = body.replace(" ± ", "&#160;±&#160;")
    body = body.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")
    body = body.replace("<th", '<th scope="col"').replace('<th scope="col"ead', "<thead")
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8" />\n<title>{html.escape(TITLE)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1" />\n'
        f"<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


class Found:
    """What has been run: for every experiment the folder that holds it, or None."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.weights = self._find("multitask", weights.ABOUT)
        self.sweep = self._find("multitask", sweep.ABOUT)
        self.zoo = self._find("zoo", "table.md")
        self.dyadic = self._find("dyadic", "table.md")
        if not any((self.weights, self.sweep, self.zoo, self.dyadic)):
            raise UserError(
                f"there is nothing to report in {root}: run an experiment first, such as python experiments.py weights "
                "--quick, or name another --folder"
            )
        self.about = {
            name: about_file.read(path / module.ABOUT)
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
    """The box, and which parts it is about."""
    parts = [f"`{name}`" for name, about in found.about.items() if about["simulated"]]
    if found.zoo and BOX in (found.zoo / "table.md").read_text(encoding="utf-8"):
        parts.append("`zoo`")
    if found.dyadic and "(SIMULATED)" in (found.dyadic / "table.md").read_text(encoding="utf-8"):
        parts.append("`dyadic` (the columns and headings marked so)")
    if not parts:
        return []
    return ["```", BOX, "```", "", f"Simulated data stand behind: {', '.join(parts)}.", ""]


def _missing(command: str) -> str:
    return f"Not run yet: `python experiments.py {command}` makes this part, with `--quick` a small simulated one."


def _source(found: Found, folder: Path) -> str:
    quick = ", a `--quick` run of few seeds and epochs" if folder.name.endswith("-quick") else ""
    return f"From `{found.link(folder)}`{quick}."


def _questions(found: Found) -> str:
    if not found.weights:
        bias, rest = answers.about_user_bias(None), _missing("weights")
        return f"### Does a user bias change what the ranking can learn?\n\n{bias}\n\n{rest}"
    curves = found.table(found.weights, weights.CURVES)
    compared = answers.compare_all(curves)
    bias = answers.about_user_bias(found.table(found.weights, weights.BIAS))
    parts = [_source(found, found.weights), about_file.describe(found.about["weights"]) + "."]
    parts.append("Intervals are of one comparison by itself, p is after Holm's correction over all those of the table.")
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
    text = _of_about(found, "settings", "versions")
    for name, about in found.about.items():
        seeds = ", ".join(map(str, about["seeds"]))
        text += (
            f"\n\n`{name}`: {about['runs']} runs; seeds {seeds}, each of split, first weights and order of the rows."
        )
    return text


def _of_about(found: Found, *parts: str) -> str:
    """A table of what the files beside the tables say, a column an experiment."""
    if not found.about:
        return _missing("weights")
    columns = {name: {k: v for part in parts for k, v in about[part].items()} for name, about in found.about.items()}
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for key in dict.fromkeys(key for column in columns.values() for key in column):
        lines.append(f"| {key} | {' | '.join(html.escape(str(column.get(key, ''))) for column in columns.values())} |")
    return "\n".join(lines)


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
