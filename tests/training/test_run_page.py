"""The page of a run in TensorBoard's TEXT."""

import re
from dataclasses import replace

import pytest
from tensorboard.plugin_util import markdown_to_safe_html

from multitask.task import WatchAndRate
from registry import MODELS, make_config
from training.run_page import changed_settings, run_page, shown

BASELINES = {"popularity": {"mrr": 0.125, "mse": 1.5}, "EASE, lambda 20": {"mrr": 0.25}}
RECORD = {"command": "python main.py --lr 0.01 | tee log", "versions": {"python": "3.11.1", "torch": "2.4.0"}}


def cells_of(page: str) -> list[list[str]]:
    """The rows of all tables of the page, as TensorBoard renders them."""
    rows = re.findall(r"<tr>(.*?)</tr>", markdown_to_safe_html(page), flags=re.DOTALL)
    return [re.findall(r"<t[dh]>(.*?)</t[dh]>", row, flags=re.DOTALL) for row in rows]


def test_it_has_command_data_versions_settings_and_baselines(tiny):
    config = make_config(lr=0.01, embedding_dim=16, layer_sizes=(48, 8))
    page = run_page(WatchAndRate(replace(tiny, notes=("3 rows of a_b were left out",))), config, RECORD, BASELINES)
    cells = cells_of(page)
    assert "<p>Note: 3 rows of a_b were left out.</p>" in markdown_to_safe_html(page)
    assert "<p>Command: python main.py --lr 0.01 | tee log</p>" in markdown_to_safe_html(page)
    assert ["versions", "python 3.11.1, torch 2.4.0"] in cells
    (data,) = [row[1] for row in cells if row[0] == "data"]
    assert data.startswith("simulated (SIMULATED): 60 users x 80 items; ratings: ")
    assert ["lr", "0.01", "0.005"] in cells
    assert ["layer_sizes", "48 8", "none"] in cells
    assert not [row for row in cells if row[0] in ("seed", "batch_size", "dataset", "model_name")]
    assert ["", "mrr", "mse"] in cells
    assert ["EASE, lambda 20", "0.2500", "n/a"] in cells


def test_simulated_data_are_marked_and_others_are_not(tiny):
    pages = [
        run_page(WatchAndRate(replace(tiny, simulated=known)), make_config(), RECORD, {}) for known in (True, False)
    ]
    assert ["SIMULATED" in page for page in pages] == [True, False]
    assert "None." in pages[1]
    assert "Baselines" not in pages[1]


def test_no_name_of_data_breaks_the_tables_or_becomes_html(tiny):
    name = "a|b_c*d*[x](y)`z`<script>&amp;\nend"
    page = run_page(WatchAndRate(replace(tiny, name=name, simulated=False)), make_config(), {}, {})
    (row,) = [row for row in cells_of(page) if row[0] == "data"]
    assert len(row) == 2
    assert row[1].startswith("a|b_c*d*[x](y)`z`&lt;script&gt;&amp;amp; end: 60 users")


@pytest.mark.parametrize("model", MODELS)
def test_defaults_differ_in_nothing(model):
    assert changed_settings(make_config(model)) == []


def test_a_default_that_depends_on_other_settings_is_a_default():
    changed = changed_settings(make_config("mmoe", feedback="f.csv", labels="click,buy"))
    assert [name for name, _, _ in changed] == ["labels", "feedback"]
    changed = changed_settings(make_config("mmoe", feedback="f.csv", labels="click,buy", negatives=4))
    assert ("negatives", 4, 0) in changed


@pytest.mark.parametrize(
    ("value", "text"), [(None, "none"), ((3, 4), "3 4"), (0.005, "0.005"), ((), ""), (True, "True")]
)
def test_settings_are_shown_as_they_are_typed(value, text):
    assert shown(value) == text
