"""The report in a browser: at the width of a phone, a laptop and a screen, and on paper."""

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import study_runs
from matplotlib.figure import Figure

from analysis import metadata, report, sweep, weights, zoo
from config.dyadic import TASKS
from registry import make_config

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no browser: install chromium, chromium-browser or google-chrome"),
]
PHONE, LAPTOP, SCREEN = 360, 1280, 1920
PAPER = 703  # pixels, of 96 to the inch, between the margins of A4, the narrowest usual paper
SCRIPT = Path(__file__).with_name("measure_pages.js")


def in_browser(page: str, widths: dict[str, int], folder: Path) -> dict[str, dict]:
    """{name: what `measure` finds in the page at that width}; in frames, as a window of Chromium has a least width."""
    parts = ['<!DOCTYPE html><meta charset="utf-8"><body>']
    for name, width in widths.items():
        style = f"border: 0; width: {width}px; height: 800px"
        parts.append(f'<iframe name="{name}" style="{style}" srcdoc="{html.escape(page)}"></iframe>')
    parts.append(f"<script>{SCRIPT.read_text(encoding='utf-8')}</script></body>")
    outer = folder / "outer.html"
    outer.write_text("".join(parts), encoding="utf-8")
    flags = ["--headless", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder / 'profile'}"]
    flags += ["--dump-dom", outer.as_uri(), *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    result = subprocess.run([str(BROWSER), *flags], capture_output=True, text=True, timeout=120, check=True)
    return json.loads(html.unescape(re.search(r"<pre>(.*?)</pre>", result.stdout, re.DOTALL)[1]))


def describe(**changed) -> dict:
    """Metadata of a part."""
    about = {"data": "simulated", "simulated": True, "is_quick": True, "seeds": range(5), "runs": 20}
    statistics = {"ratings of a user, lowest / median / highest": "20 / 65 / 737", "users": "1,234"}
    about |= {"statistics": statistics, "settings": study_runs.SETTINGS, "versions": [{"torch": "2.13.0+cpu"}]}
    return metadata.assemble(**about | changed)


def write_multitask(folder: Path, random: np.random.Generator) -> None:
    curves, described = study_runs.curves({}), describe()
    rows = [(one.name, seed) for one in sweep.CONFIGURATIONS for seed in range(5)]
    names = [f"{reading}_{metric}" for reading in ("both", "best") for metric in ("mrr", "mse")]
    numbers = pd.DataFrame(random.random((len(rows), len(names))), columns=names)
    numbers["both_epoch"] = random.integers(1, 30, len(rows)).astype(float)
    numbers.index = pd.MultiIndex.from_tuples(rows, names=["row", "seed"])
    table = sweep.tabulate(numbers)
    curves.to_csv(folder / weights.CURVES, index=False)
    bias = dict.fromkeys(("loss", "loss_with_bias", "mrr", "mrr_with_bias"), 0.1)
    pd.DataFrame([{"row": "x", "seed": 0} | bias]).to_csv(folder / weights.BIAS, index=False)
    (folder / weights.TABLE).write_text(weights.as_markdown(weights.tabulate(curves), described))
    table.to_csv(folder / sweep.NUMBERS, index_label="configuration")
    (folder / sweep.TABLE).write_text(sweep.as_markdown(table, numbers, described))
    for name in (weights.METADATA, sweep.METADATA):
        metadata.write(folder / name, described)


def write_zoo(folder: Path, random: np.random.Generator) -> None:
    """The table of the zoo with stars, and with memory as on a GPU."""
    results = []
    for row in [*zoo.ROWS, "user + item mean"]:
        shift = random.normal(0, 0.01)
        for seed in range(5):
            metrics = {column.key: 0.7 + shift + random.normal(0, 0.001) for column in zoo.COLUMNS[:6]}
            about = {"seconds": {"training": 120.0 * random.random(), "evaluation": 1.0}, "parameters": 154_754}
            results.append({"row": row, "seed": seed, "metrics": metrics, "peak_device_memory_mb": 1234.5} | about)
    config = make_config("mmoe", dataset="simulated")
    text = zoo.as_markdown(zoo.tabulate(results, zoo.REFERENCE), {"user + item mean"}, config, 5)
    (folder / "table.md").write_text(text)
    metadata.write(folder / zoo.METADATA, describe())


def write_dyadic(folder: Path) -> None:
    """A table in the layout of the dyadic experiment: groups of rows, and long notes behind numbers."""
    lines = ["# Four tasks", "", "| task | arm | F1 | AUC | MAP@1 | MAP@5 |", "|---|---|---|---|---|---|"]
    for task in TASKS:
        lines.append(
            f"| {task} | MTL | 0.504 ± 0.018 ↓ (5, 5) than STL, features (0, 2) than STL, private |" + " 0.5 |" * 3
        )
        lines += [
            f"|  | {arm} | 0.513 ± 0.022 (0, 1) | 0.653 ± 0.011 (0, 1)" + " | 0.5 ± 0.1" * 2 + " |"
            for arm in ("STL", "alone, embeddings of its own")
        ]
    (folder / "table.md").write_text("\n".join(lines))
    statistics = {name: {"dyads a user, mean": "137.71", "sparsity": "99.45%"} for name in ("one N", "one P", "other")}
    metadata.write(folder / "dyadic.json", describe(statistics=statistics))


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> dict[str, dict]:
    """A report of every part, measured at every width."""
    root, random = tmp_path_factory.mktemp("results"), np.random.default_rng(0)
    for name in ("multitask", "zoo", "dyadic"):
        (root / name).mkdir()
    write_multitask(root / "multitask", random)
    write_zoo(root / "zoo", random)
    write_dyadic(root / "dyadic")
    for name in ("multitask/weights.png", "multitask/sweep.png", "zoo/table.png", "dyadic/table.png"):
        Figure(figsize=(20, 10)).savefig(root / name, dpi=100)
    page = report.write(root)[1].read_text(encoding="utf-8")
    widths = {"phone": PHONE, "laptop": LAPTOP, "screen": SCREEN, "paper": PAPER}
    return in_browser(page, widths, tmp_path_factory.mktemp("browser"))


@pytest.mark.parametrize("name", ["phone", "laptop", "screen", "paper"])
def test_nothing_leaves_the_page(measured, name):
    page = measured[name]
    assert len(page["tables"]) >= 8
    assert page["content"] <= page["width"]
    assert sum(box["tag"] == "IMG" for box in page["boxes"]) == 4
    for box in [*page["boxes"], *page["tables"]]:
        assert box["left"] >= 0, box
        assert box["right"] <= page["width"] + 0.5, box
        assert box.get("inside", 0) <= 0, box


@pytest.mark.parametrize("name", ["laptop", "screen", "paper"])
def test_tables_fit_into_their_boxes(measured, name):
    for table in measured[name]["tables"]:
        assert table["width"] <= table["room"], table


def test_on_a_phone_tables_scroll_beside_their_first_column(measured):
    page = measured["phone"]
    assert any(table["width"] > 2 * table["room"] for table in page["tables"])
    for table in page["tables"]:
        assert table["last"] <= 0.5, table  # reachable
        assert 0 <= table["first"] <= 2, table  # still there
        assert 50 <= table["labels"] <= 0.6 * page["width"], table  # there is room beside what stays
        assert table["font"] >= 12, table


@pytest.mark.parametrize("name", ["phone", "laptop", "screen", "paper"])
def test_numbers_are_whole_and_aligned(measured, name):
    aligned = 0
    for table in measured[name]["tables"]:
        assert not table["broken"], table
        assert all(ragged < 0.6 for ragged in table["ragged"]), table
        aligned += len(table["ragged"])
    assert aligned > 20


def test_on_paper_rows_are_not_cut_and_heads_are_repeated(measured):
    for table in measured["paper"]["tables"]:
        assert table["rowBreaks"] == "avoid"
        assert table["head"] == "table-header-group"
        assert table["font"] >= 8, table  # six points
