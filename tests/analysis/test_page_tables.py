"""Tables of the page: nothing is lost, points stand below one another, and columns are of the right kind."""

import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.page_tables import lay_out


def make_table(titles: list[str], rows: list[list[str]]) -> str:
    """The HTML of a table as the converter makes it."""
    root = ET.Element("table")
    for tag, lines in (("th", [titles]), ("td", rows)):
        part = ET.SubElement(root, "thead" if tag == "th" else "tbody")
        for line in lines:
            row = ET.SubElement(part, "tr")
            for text in line:
                ET.SubElement(row, tag).text = text
    return ET.tostring(root, encoding="unicode")


def lay_out_column(*texts: str) -> list[ET.Element]:
    """The cells of a column with these texts, beside a column of names."""
    table = make_table(["name", "value"], [[f"row {place}", text] for place, text in enumerate(texts)])
    return [row[1] for row in ET.fromstring(lay_out(table)).find("tbody")]


def drawn(node: ET.Element) -> str:
    """The text of a cell with the room that its boxes add: a digit is two characters, a point or a comma is one."""
    style = node.get("style", "min-width: 0ch;")
    width = round(2 * float(style.removeprefix("min-width: ").removesuffix("ch;")))
    text = _widened(node.text) + "".join(drawn(child) + _widened(child.tail) for child in node)
    return text.rjust(width) if node.get("class") == "right" else text.ljust(width)


def _widened(text: str | None) -> str:
    return "".join(sign if sign in "., " else f"{sign}~" for sign in text or "")


def points(cell: ET.Element) -> tuple[int, ...]:
    """Where the whole parts of the numbers of a cell end."""
    return tuple(number.end("whole") for number in re.finditer(r"(?P<whole>[\d~,]*\d~)(\.[\d~]*)?", drawn(cell)))


def test_points_stand_below_one_another():
    cells = lay_out_column("0.7702 ± 0.0013 *", "12.5 ± 10.25", "n/a", "-1,234.567 ± 0.1 *")
    assert {cell.get("class") for cell in cells} == {"number"}
    assert len({points(cell) for cell in cells if points(cell)}) == 1
    assert len({len(drawn(cell)) for cell in cells if points(cell)}) == 1
    assert ["".join(cell.itertext()) for cell in cells][1:3] == ["12.5 ± 10.25", "n/a"]


numbers = st.builds(
    lambda whole, decimals: f"{whole:,}" + (f".{decimals}" if decimals else ""),
    st.integers(-(10**6), 10**6),
    st.text("0123456789", max_size=4),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=5))
def test_any_numbers_are_aligned_and_kept(pairs):
    texts = [f"{mean} ± {sd}" for mean, sd in pairs]
    cells = lay_out_column(*texts)
    assert ["".join(cell.itertext()) for cell in cells] == texts
    assert len({points(cell) for cell in cells}) == 1


def test_what_is_equally_wide_gets_no_boxes():
    cells = lay_out_column("0.5000", "0.1234")
    assert not [node for cell in cells for node in cell]


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (("1,234", "56"), "number"),
        (("n/a", "n/a"), "number"),
        (("n/a", "", "7 %"), "number"),
        (("< 0.001", "0.022"), "number"),
        (("4.5e-06", "0.1"), "number"),
        (("-0.01 to +0.5", "+0.25 to +0.5"), "number"),
        (("= (-0.0021, p = 1.000)", "worse (+0.0331, p < 0.001)"), "number"),
        (("0.714 ± 0.005 (0, 1)", "0.7 ± 0.1"), "marked"),
        (("0.714 ± 0.005 ↓ (2, 2) than MTL, emb_only", "0.7 ± 0.1"), "noted"),
        (("0.999, 0.001", "0.5, 0.5"), "text"),
        (("●", ""), "text"),
        (("fixed", "0.5"), "text"),
        (("no difference that 5 seeds can show", "better"), "long"),
    ],
)
def test_kinds_of_columns(texts, kind):
    cells = lay_out_column(*texts)
    assert {cell.get("class") for cell in cells} == {kind}
    assert tuple("".join(cell.itertext()) for cell in cells) == texts


def test_kinds_of_tables():
    narrow, wide = ["0.1"] * 3, ["0.1234 ± 0.5678"] * 9
    for values, names, kinds in (
        (narrow, ("a", "b"), None),
        (wide, ("a", "b"), "wide"),
        (narrow, ("a", ""), "grouped"),
        (wide, ("a", ""), "wide grouped"),
    ):
        table = make_table(["", *("title" for _ in values)], [[name, *values] for name in names])
        assert ET.fromstring(lay_out(table)).get("class") == kinds


def test_a_table_without_rows_is_kept():
    root = ET.fromstring(lay_out("<table><thead><tr><th>a</th><th>b</th></tr></thead><tbody></tbody></table>"))
    assert [cell.text for cell in root.iter("th")] == ["a", "b"]


def test_formatted_cells_are_kept():
    table = make_table(["", "value"], [["a", "0.5"], ["b", "10.25"]]).replace("<td>0.5</td>", "<td><em>0.5</em></td>")
    assert "<em>0.5</em>" in lay_out(table)
