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

from analysis.page_tables import lay_out
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
# A text in a frame of characters. A terminal shows it well; a phone would cut its lines.
FRAMED = re.compile(r"^```\n\+-+\+\n((?:\|.*\|\n)+)\+-+\+\n```$", re.MULTILINE)
NO_CHARACTERS = {0xFFFE: "\N{REPLACEMENT CHARACTER}", 0xFFFF: "\N{REPLACEMENT CHARACTER}"}  # XML has none of them
UNBROKEN = re.compile(r" ± |\d %|\bp (?:=|&lt;) \d|\([\d.]+, [\d.]+\)")  # a line does not end within these


def as_page(title: str, text: str, pictures: Mapping[str, bytes]) -> str:
    """The page of a text in Markdown.

    Args:
        pictures: {target of a picture in the text: its PNG}; a picture with another target is left out.
    """
    converter = markdown.Markdown(extensions=["tables", "fenced_code", "toc"], output_format="xhtml")
    converter.preprocessors.deregister("html_block")
    converter.inlinePatterns.deregister("html")
    cleaner = _Cleaner(pictures)
    cleaner.feed(converter.convert(FRAMED.sub(_quote, printable(text).translate(NO_CHARACTERS))))
    cleaner.close()
    body = UNBROKEN.sub(lambda match: match[0].replace(" ", "&#160;"), "".join(cleaner.parts))
    return TEMPLATES.get_template("report.html.j2").render(title=title, body=Markup(body))


def _quote(framed: re.Match[str]) -> str:
    """The text of a frame as a quotation, which the style of the page shows as a warning."""
    return "> " + " ".join(line.strip("| ") for line in framed[1].splitlines())


class _Cleaner(HTMLParser):
    """Writes the allowed part of HTML: `parts`."""

    def __init__(self, pictures: Mapping[str, bytes]) -> None:
        super().__init__(convert_charrefs=True)
        self.pictures = pictures
        self.parts: list[str] = []
        self.table_start = 0  # in `parts`, of the table that is open
        self.num_pictures = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag not in TAGS or (tag == "img" and given.get("src") not in self.pictures):
            return
        kept = {name: value or "" for name, value in attrs if name in ATTRIBUTES}
        kept = {name: value for name, value in kept.items() if ATTRIBUTES[name].fullmatch(value)}
        if tag == "img":
            self._add_picture(kept, self.pictures[str(given["src"])])
            return
        if tag == "th":
            kept["scope"] = "col"
        if tag == "table":
            self.table_start = len(self.parts)
        self.parts.append(f"<{tag}{_in_words(kept)}{' /' if tag in EMPTY else ''}>")

    def handle_endtag(self, tag: str) -> None:
        if tag in TAGS - EMPTY:
            self.parts.append(f"</{tag}>")
        if tag == "table":
            table = lay_out("".join(self.parts[self.table_start :]))
            self.parts[self.table_start :] = [f'<div class="scroll" tabindex="0">{table}</div>']

    def handle_data(self, data: str) -> None:
        self.parts.append(html.escape(printable(data), quote=False))

    def _add_picture(self, attributes: Mapping[str, str], png: bytes) -> None:
        """A picture that a link opens in its own size, and another one closes; headings have no id with a capital."""
        self.num_pictures += 1
        name = f"Picture-{self.num_pictures}"
        source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        self.parts.append(
            f'<span class="frame" id="{name}-closed"><span class="picture" id="{name}">'
            f'<a href="#{name}"><img{_in_words({**attributes, "src": source})} /></a>'
            f'<a href="#{name}-closed">close</a></span></span>'
        )


def _in_words(attributes: Mapping[str, str]) -> str:
    return "".join(f' {name}="{html.escape(value)}"' for name, value in attributes.items())
