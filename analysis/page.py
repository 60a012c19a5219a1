"""From Markdown to one HTML file that holds nothing to run and nothing to fetch.

HTML in the Markdown becomes text. What the converter makes passes a list of allowed tags and attributes; links lead to
places of the page alone, and pictures are those that the caller gives, inside the file. The page itself forbids
everything else to the browser (Content-Security-Policy).
"""

import base64
import html
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path

import markdown
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from config.text import printable

TEMPLATES = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, keep_trailing_newline=True)
EMPTY = {"img", "hr", "br"}
TAGS = EMPTY | {
    "h1", "h2", "h3", "h4", "h5", "h6", "p", "ul", "ol", "li", "blockquote", "pre", "code", "em", "strong", "a",
    "table", "thead", "tbody", "tr", "th", "td",
}  # fmt: skip
ATTRIBUTES = {
    "id": re.compile(r"[\w-]+"),
    "href": re.compile(r"#[\w-]+"),
    "style": re.compile(r"text-align: (left|right|center);"),
    "alt": re.compile(r".*", re.DOTALL),
}


def as_page(title: str, text: str, pictures: Mapping[str, bytes]) -> str:
    """The page of a text in Markdown.

    Args:
        pictures: {target of a picture in the text: its PNG}; a picture with another target is left out.
    """
    converter = markdown.Markdown(extensions=["tables", "fenced_code", "toc"], output_format="xhtml")
    converter.preprocessors.deregister("html_block")
    converter.inlinePatterns.deregister("html")
    cleaner = _Cleaner(pictures)
    cleaner.feed(converter.convert(printable(text)))
    cleaner.close()
    body = "".join(cleaner.parts).replace(" ± ", "&#160;±&#160;")
    return TEMPLATES.get_template("report.html.j2").render(title=title, body=Markup(body))


class _Cleaner(HTMLParser):
    """Writes the allowed part of HTML: `parts`."""

    def __init__(self, pictures: Mapping[str, bytes]) -> None:
        super().__init__(convert_charrefs=True)
        self.pictures = pictures
        self.parts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag not in TAGS or (tag == "img" and given.get("src") not in self.pictures):
            return
        kept = {name: value or "" for name, value in attrs if name in ATTRIBUTES}
        kept = {name: value for name, value in kept.items() if ATTRIBUTES[name].fullmatch(value)}
        if tag == "img":
            encoded = base64.b64encode(self.pictures[str(given["src"])]).decode()
            kept["src"] = f"data:image/png;base64,{encoded}"
        if tag == "th":
            kept["scope"] = "col"
        words = "".join(f' {name}="{html.escape(value)}"' for name, value in kept.items())
        before = '<div class="scroll">' if tag == "table" else ""
        self.parts.append(f"{before}<{tag}{words}{' /' if tag in EMPTY else ''}>")

    def handle_endtag(self, tag: str) -> None:
        if tag in TAGS - EMPTY:
            self.parts.append(f"</{tag}>" + ("</div>" if tag == "table" else ""))

    def handle_data(self, data: str) -> None:
        self.parts.append(html.escape(printable(data), quote=False))
