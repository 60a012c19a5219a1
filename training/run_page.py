"""What TensorBoard's TEXT shows of a run, in Markdown: command, data, versions, settings, baselines."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from config.base import RunConfig
from training.protocols import Baselines, Task

SIMULATED = "**SIMULATED DATA.** The program made them up: their figures say nothing about real users."


def run_page(task: Task, config: RunConfig, record: dict[str, Any], baselines: Baselines) -> str:
    """The page of a run; `record` is its config.json, of which a run of one's own loop may lack entries."""
    data = task.data
    about = {
        "model": config.model,
        "data": repr(data).strip("<>"),
        "versions": ", ".join(f"{name} {version}" for name, version in record.get("versions", {}).items()),
    }
    changed = [(name, shown(value), shown(default)) for name, value, default in changed_settings(config)]
    lines = [SIMULATED, ""] if data.simulated else []
    lines += _table(("run", ""), [(name, text) for name, text in about.items() if text])
    # What is long stands outside the table, whose first column would shrink to a few letters.
    long = ([f"Command: {record['command']}"] if "command" in record else []) + [f"Note: {one}." for one in data.notes]
    lines += [f"\n{_plain(text)}" for text in long]
    lines += ["", "### Settings that differ from the defaults", ""]
    lines += _table(("setting", "this run", "default"), changed) if changed else ["None."]
    if baselines:
        lines += ["", "### Baselines on the test part", "", *_baseline_table(task, baselines)]
    return "\n".join(lines)


def changed_settings(config: RunConfig) -> list[tuple[str, Any, Any]]:
    """(name, value, default) of the settings that change the result and differ from their defaults.

    The name of the data set is left out: it is part of the data, and it always differs from "auto".
    """
    given = {field.name: getattr(config, field.name) for field in fields(config)}
    defaults = {field.name: field.default for field in fields(config)} | config.dependent_defaults(given)
    counted = [field.name for field in fields(config) if field.metadata["option"].affects_result]
    return [
        (name, given[name], defaults[name]) for name in counted if given[name] != defaults[name] and name != "dataset"
    ]


def shown(value: Any) -> str:
    """A setting as a text: "none", "3 4" for several values."""
    if value is None:
        return "none"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _baseline_table(task: Task, baselines: Baselines) -> list[str]:
    names = [name for name in task.compared if any(name in row for row in baselines.values())]
    rows = [
        (baseline, *(f"{row[name]:.4f}" if name in row else "n/a" for name in names))
        for baseline, row in baselines.items()
    ]
    return _table(("", *names), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table of plain texts."""
    lines = [f"| {' | '.join(map(_plain, cells))} |" for cells in (head, *rows)]
    return [lines[0], "|---" * len(head) + "|", *lines[1:]]


def _plain(text: str) -> str:
    """The text in one line, with nothing in it that Markdown or HTML would obey."""
    escaped = re.sub(r"([\\`*_\[\]|])", r"\\\1", " ".join(text.split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;")
