"""What of a notebook may stand on an HTML page: texts, tables, links and pictures; nothing that runs or is fetched.

nbconvert's own switch (`sanitize_html`) leaves scripts out and sends Markdown, HTML outputs and highlighted code
through its filter clean_html; `clean`, with the one list of what is allowed, takes that filter's place. By nh3 and not
by bleach, which shows what stands in <script> and <style> as text and takes thirty times as long.
"""

import re
from collections import defaultdict
from html import escape
from typing import Any
from xml.parsers import expat

import nh3
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from traitlets.config import Config

HIDDEN = "hide-input"
# Outputs that are shown; the first of these that an output has, in nbconvert's order.
SHOWN = {"text/html", "text/markdown", "text/latex", "text/plain", "image/svg+xml", "image/png", "image/jpeg"}
# nh3's own list, but for the parts of a page's frame and for maps of links.
_TAGS = nh3.ALLOWED_TAGS - {"area", "article", "aside", "footer", "header", "hgroup", "map", "nav"} | {"tfoot"}
_MORE = {"*": {"class", "id", "lang", "style", "title"}, "img": {"loading"}}
_MORE |= {"td": {"scope", "valign"}, "th": {"valign"}, "tr": {"valign"}}
_ATTRIBUTES = nh3.ALLOWED_ATTRIBUTES | {
    tag: nh3.ALLOWED_ATTRIBUTES.get(tag, set()) | more for tag, more in _MORE.items()
}
_STYLES = {"background", "background-color", "border", "color", "font-family", "font-size", "font-style", "font-weight"}
_STYLES |= {"padding", "table-layout", "text-align", "text-decoration", "vertical-align", "white-space", "width"}
_FUNCTIONS = {"rgb", "rgba", "hsl", "hsla", "linear-gradient"}  # in a style; url() would fetch
_PICTURE = re.compile(r"data:image/(?:png|jpeg|gif|svg\+xml)[;,]|(?![/\\]{2})[^:]*$", re.IGNORECASE)
# What Matplotlib draws with, and the names of its metadata.
_DRAWING = {"svg", "g", "defs", "style", "path", "use", "clipPath", "rect", "pattern", "image", "text", "tspan"}
_DRAWING |= {"metadata", "RDF", "Work", "Agent", "title", "type", "date", "format", "creator", "description"}


def exporter(template: str, **options: Any) -> HTMLExporter:
    """nbconvert's exporter for a Jinja template; of a notebook it shows what `clean` and SHOWN let pass.

    Of a cell with the tag HIDDEN it shows the outputs alone.
    """
    hidden = Config(TagRemovePreprocessor={"remove_input_tags": {HIDDEN}})
    made = HTMLExporter(raw_template=template, sanitize_html=True, config=hidden, **options)
    made.register_filter("clean_html", clean)
    made.register_preprocessor(_shown, enabled=True)
    return made


def clean(html: str) -> str:
    """The HTML with nothing in it that runs, moves about the page, or is fetched from elsewhere; every tag closed."""
    return nh3.clean(
        _with_styles(str(html)),
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        attribute_filter=_attribute,
        filter_style_properties=_STYLES,
        url_schemes={"http", "https", "mailto", "data"},
        link_rel=None,
    )


def draws_only(svg: bytes) -> bool:
    """Whether an SVG file is a drawing of Matplotlib's kind, with nothing that runs where it is opened by itself."""
    strange = re.findall(rb"@import|url\(\s*[\"']?[^#\s\"']", svg)  # what it would fetch

    def start(element: str, attributes: dict[str, str]) -> None:
        if element.rpartition(" ")[2] not in _DRAWING:
            strange.append(element)
        for key, value in attributes.items():
            name = key.rpartition(" ")[2].lower()
            if name.startswith("on") or (name == "href" and not value.startswith(("#", "data:image/png;base64,"))):
                strange.append(key)

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler = start
    parser.EntityDeclHandler = parser.ProcessingInstructionHandler = lambda *about: strange.append(about)
    try:
        parser.Parse(svg, True)
    except expat.ExpatError:
        return False
    return not strange


def _attribute(tag: str, name: str, value: str) -> str | None:
    address = re.sub(r"[\x00-\x20]", "", value)  # as browsers read it
    if name == "src":
        return value if _PICTURE.match(address) else None
    if name == "href":
        return None if address.lower().startswith("data:") else value
    if name == "style":
        return value if "\\" not in value and set(re.findall(r"([\w-]*)\(", value.lower())) <= _FUNCTIONS else None
    return value


def _with_styles(html: str) -> str:
    """pandas' Styler colours cells by their ids in a <style>, which is not let pass: hand the colours to the cells."""
    styles = defaultdict(str)
    for rules in re.findall(r"<style[^>]*>(.*?)</style>", html, re.DOTALL):
        for rule in rules.split("}"):
            selectors, _, declarations = rule.partition("{")
            for cell in re.findall(r"#(T_\w+)\s*(?:,|$)", selectors):
                styles[cell] += f"{' '.join(declarations.split())};"

    def styled(tag: re.Match) -> str:
        return f'{tag[0]} style="{escape(styles[tag[1]])}"' if tag[1] in styles else tag[0]

    return re.sub(r'<td id="(T_\w+)"', styled, html) if styles else html


def _shown(notebook: NotebookNode, resources: dict[str, Any]) -> tuple[NotebookNode, dict[str, Any]]:
    """A preprocessor of nbconvert: without what its templates would hand on as it is, widgets and sizes of images."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if "data" not in output or SHOWN & output.data.keys()]
        for output in cell.get("outputs", []):
            if "data" in output:
                output.data = NotebookNode({kind: output.data[kind] for kind in output.data.keys() & SHOWN})
                output.metadata = NotebookNode({key: output.metadata[key] for key in output.metadata.keys() & {"alt"}})
    return notebook, resources
