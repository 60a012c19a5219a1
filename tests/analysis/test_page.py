"""What somebody else puts into a results folder neither runs nor shows up as anything but text."""

import os
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from analysis.foreign import PNG_SIGNATURE, plain, plain_json, read_csv, read_inside, read_markdown, read_picture
from analysis.page import ATTRIBUTES, TAGS, as_page
from config.errors import UserError
from training.report import BOX

HOSTILE = {
    "script": "<script>alert(1)</script>",
    "event": '<img src=x onerror="alert(1)">',
    "event in a line": 'text <svg/onload=alert(1)> <b onclick="x">bold</b>',
    "block": "<div>\n\n**in**\n\n</div>\n<style>body{display:none}</style>",
    "frame": '<iframe src="file:///etc/passwd"></iframe>',
    "local picture": "![x](file:///etc/passwd) ![x](/etc/passwd) ![x](../../etc/passwd)",
    "foreign picture": "![x](https://example.org/x.png) ![y](other.png)",
    "picture by reference": "![x][one]\n\n[one]: https://example.org/x.png",
    "link": "[x](javascript:alert(1)) [y](https://example.org) <https://example.org> <javascript:alert(1)>",
    "link by reference": "[x][one]\n\n[one]: javascript:alert(1) 'title\" onclick=\"x'",
    "entities": "&lt;script&gt;alert(1)&lt;/script&gt; [x](&#106;avascript:alert(1)) &nbsp; &bogus;",
    "code": '```{."><script>alert(1)</script>}\ncode\n```\n\n```x" onclick="y\ncode\n```\n\n`<script>`',
    "table": "| a |\n|---|\n| <script>alert(1)</script> |\n| </td></table><script>x</script> |",
    "no characters": "| a | b |\n|---|---|\n| \ufffe&#xffff;&#0; | \uffff |\n\n\uffff",
    "numbers": '| a | b |\n|---|---|\n| 1 ± <script> | 1 ± 2" onclick="x |\n| 1 ± 22 & | -10 ± <b>&lt; |',
    "comment": "<!-- --><script>alert(1)</script><![CDATA[x]]><?php x ?><!DOCTYPE x>",
    "title": '![x](other.png "a\\" onerror=\\"alert(1)")',
    "control": "a\x1b[31mb\x00c\u202ed",
    "heading": '# <script>alert(1)</script> {#id onclick="x"}\n\n## "onclick="alert(1)',
    "placeholder": "\x02wzxhzdk:0\x03 \x02amp\x03 \x02klzzwxh:0000\x03",
}
# What the page adds to tables, and to the boxes that they scroll in.
OWN = {
    "class": re.compile("scroll|frame|picture|wide|grouped|left|right|spread|number|marked|noted|text|long"),
    "scope": re.compile("col"),
    "tabindex": re.compile("0"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_page_holds_only_what_is_allowed(case):
    picture = PNG_SIGNATURE + b"own"
    page = as_page(
        "<b>Title</b>", f"# Own\n\n![alt](own.png)\n\n{HOSTILE[case]}\n\n[down](#own)\n", {"own.png": picture}
    )
    root = ET.fromstring(page)  # well-formed
    assert root.find("./head/title").text == "<b>Title</b>"
    for node in root.find("./body/main").iter():
        assert node.tag in TAGS | {"main", "div", "span"}
        for name, value in node.attrib.items():
            if name == "src":
                assert value.startswith("data:image/png;base64,")
            elif name in OWN:
                assert OWN[name].fullmatch(value)
            else:
                assert ATTRIBUTES[name].fullmatch(value) or re.fullmatch(r"min-width: [\d.]+ch;", value)
    assert len(root.findall(".//img")) == 1
    links = [link.get("href") for link in root.findall(".//a") if link.get("href")]
    assert links == ["#Picture-1", "#Picture-1-closed", "#own"]
    policy = root.find("./head/meta[@http-equiv='Content-Security-Policy']").get("content")
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "script" not in policy


def test_html_in_the_text_is_shown_as_text():
    page = ET.fromstring(as_page("T", "before <script>alert(1)</script> after\n\n<div>block</div>", {}))
    text = "".join(page.find("./body").itertext())
    assert "before <script>alert(1)</script> after" in text
    assert "<div>block</div>" in text


def test_a_picture_opens_and_closes_by_links():
    page = ET.fromstring(as_page("T", "![a](a.png)\n\n![b](b.png)", {"a.png": PNG_SIGNATURE, "b.png": PNG_SIGNATURE}))
    ids = [node.get("id") for node in page.iter() if node.get("id")]
    assert len(ids) == len(set(ids)) == 4
    for picture in page.findall(".//span[@class='picture']"):
        opening, closing = picture.findall("./a")
        assert opening.find("./img") is not None
        assert opening.get("href") == f"#{picture.get('id')}"
        assert closing.text == "close"
        assert closing.get("href")[1:] in ids


def test_a_framed_text_becomes_a_quotation_that_wraps():
    page = ET.fromstring(as_page("T", f"```\n{BOX}\n```\n\nafter\n\n```\n+ 1\n```", {}))
    (warning,) = page.findall(".//blockquote")
    words = " ".join("".join(warning.itertext()).split())
    assert words.startswith("SIMULATED DATA. These are not MovieLens ratings: the program made them up. Their figures")
    assert "|" not in words
    (code,) = page.findall(".//pre")
    assert "+ 1" in "".join(code.itertext())


def test_numbers_stay_with_what_belongs_to_them():
    text = "".join(ET.fromstring(as_page("T", "0.1 ± 0.2, 5 %, p < 0.001, p = 0.5, (0.99, 0.01), a b", {})).itertext())
    shown = "0.1~±~0.2, 5~%, p~<~0.001, p~=~0.5, (0.99,~0.01), a b"
    assert shown.replace("~", "\N{NO-BREAK SPACE}") in text


def test_included_markdown_has_no_html_links_and_pictures_of_its_own(tmp_path):
    (tmp_path / "table.md").write_text("# Head\n\n| a |\n|---:|\n| *x* < 1 |\n\n" + "\n\n".join(HOSTILE.values()))
    text = read_markdown(tmp_path, tmp_path / "table.md")
    assert text.startswith("# Head\n\n| a |\n|---:|\n| *x* &lt; 1 |\n")
    assert not [mark for mark in ("<", "](", "]:", "![", "\x1b", "\u202e") if mark in text]


def test_texts_of_tables_and_json_are_plain(tmp_path):
    (tmp_path / "t.csv").write_text('row,<i>n</i>\n"<script>|x\n![y](z)",0.5\n')
    table = read_csv(tmp_path, tmp_path / "t.csv")
    shown = "&lt;script&gt;&#124;x !&#91;y&#93;(z)"
    assert table.to_dict("list") == {"row": [shown], "&lt;i&gt;n&lt;/i&gt;": [0.5]}
    assert plain("a\x1b[2J\n# b") == "a\\x1b&#91;2J # b"
    assert plain_json({"<": ["<", {"a": "`"}, 1, None, True]}) == {"&lt;": ["&lt;", {"a": "&#96;"}, 1, None, True]}


def test_files_are_read_within_the_folder_alone(tmp_path):
    root, secret = tmp_path / "results", tmp_path / "secret.md"
    (root / "zoo").mkdir(parents=True)
    secret.write_text("secret")
    (root / "zoo" / "inside.md").write_text("inside")
    (root / "link.md").symlink_to(root / "zoo" / "inside.md")
    assert read_inside(root, root / "link.md") == b"inside"
    (root / "out.md").symlink_to(secret)
    (root / "folder").symlink_to(tmp_path)
    (root / "circle").symlink_to(root / "circle")
    os.mkfifo(root / "pipe")
    for name, complaint in (
        ("out.md", "is a link that leads out"),
        ("folder/secret.md", "is a link that leads out"),
        ("../secret.md", "is a link that leads out"),
        ("circle", "cannot be read"),
        ("pipe", "is a pipe"),
        ("zoo", "cannot be read"),
        ("nothing", "cannot be read"),
    ):
        with pytest.raises(UserError, match=complaint):
            read_inside(root, root / name)


def test_only_pictures_are_pictures(tmp_path):
    path: Path = tmp_path / "table.png"
    path.write_bytes(b"root:x:0:0")
    with pytest.raises(UserError, match=r"table\.png is no PNG picture"):
        read_picture(tmp_path, path)
    path.write_bytes(PNG_SIGNATURE + b"x")
    assert read_picture(tmp_path, path) == PNG_SIGNATURE + b"x"
