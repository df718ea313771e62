"""What a notebook brings to an HTML page neither runs nor fetches, and texts, tables and pictures stay."""

import re

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, new_raw_cell

from companion import pages, runner
from mialib.results import report

RUNS = "window.ran = 1"
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
HTML = f"""<script>{RUNS}</script><p onclick="{RUNS}" style="position: fixed; background: url(https://evil.test)">a</p>
<img src="x.png" alt="a picture" onerror="{RUNS}"><img src="https://evil.test/x" alt="a tracker"><style>p {{}}</style>
<a href="java&#9;script:{RUNS}">one</a><a href="data:text/html,<script>{RUNS}</script>">two</a>
<iframe src="https://evil.test"></iframe><form action="x"><input name="x"></form><base href="https://evil.test">
<svg onload="{RUNS}"><script>{RUNS}</script></svg><math><mi xlink:href="javascript:{RUNS}">x</mi></math>
<object data="x.swf"></object><embed src="x.swf"><meta http-equiv="refresh" content="0; url=https://evil.test">
</div></main></body>"""
MARKDOWN = f"""{HTML}

[three](javascript:{RUNS}), ![four](javascript:{RUNS}), <javascript:{RUNS}>, [five](<data:text/html,<b>x>), **bold**
"""
SVG = f'<svg xmlns="http://www.w3.org/2000/svg" onload="{RUNS}"><script>{RUNS}</script></svg>'


def hostile(title="Evil et al. 2017, Table <script>window.ran = 1</script>: \" onerror='window.ran = 1"):
    """A notebook with something that would run in every place that a page is made from."""
    kinds = {
        "text/html": HTML,
        "text/markdown": MARKDOWN,
        "text/latex": f"$x$<script>{RUNS}</script>",
        "text/plain": f"<script>{RUNS}</script>",
        "image/svg+xml": SVG,
        "image/png": f'x" onerror="{RUNS}',
        "image/jpeg": f'x" onerror="{RUNS}',
        "application/javascript": RUNS,
        "text/vnd.mermaid": f"</pre><script>{RUNS}</script>",
        "application/vnd.jupyter.widget-view+json": {"model_id": "a", "x": f"</script><script>{RUNS}</script>"},
    }
    outputs = [new_output("display_data", {kind: data}) for kind, data in kinds.items()]
    for output in outputs:
        output.metadata = {"width": f"1 onerror={RUNS.replace(' ', '')}", "image/jpeg": {"height": "1 onload=ran=1"}}
    outputs.append(new_output("stream", name="stdout", text=f'" onerror="{RUNS}"><script>{RUNS}</script>\n'))
    outputs.append(new_output("display_data", {"image/png": DOT}))
    outputs.append(new_output("error", ename="E", evalue="", traceback=[f"<script>{RUNS}</script>"]))
    cells = [new_markdown_cell(f"# {title}\n\n**The paper's claim.** {MARKDOWN}"), new_markdown_cell(MARKDOWN)]
    cells += [new_raw_cell(HTML), new_code_cell(f"'<script>{RUNS}</script>'", outputs=outputs)]
    state = {"application/vnd.jupyter.widget-state+json": {"state": {"a": f"</script><script>{RUNS}</script>"}}}
    return new_notebook(cells=cells, metadata={"title": f"</title><script>{RUNS}</script>", "widgets": state})


def dangers(html, own=()):
    """Parts of a page that run something, fetch something, or stand where only the page's own frame may."""
    soup, found = BeautifulSoup(html, "html.parser"), []
    for part in soup.find_all(True):
        script = part.name in ("iframe", "form", "object", "embed", "base", "svg", "math", "meta", "script", "input")
        if script and part not in (soup.head or []) and str(part) not in own:
            found.append(str(part)[:90])
        for name, value in part.attrs.items():
            address = re.sub(r"[\x00-\x20]", "", str(value)).lower()
            if name.startswith("on") or (name == "style" and re.search(r"url|position", value)):
                found.append(f"{part.name} {name}={value}"[:90])
            if name in ("href", "src", "action", "data") and re.match(r"javascript:|data:(?!image/|,$)", address):
                found.append(f"{part.name} {name}={value}"[:90])
            if name == "src" and re.match(r"\w+:(?<!data:)|//", address):
                found.append(f"{part.name} {name}={value}"[:90])
    return found


def test_nothing_hostile_is_left_on_a_page_of_a_run():
    page = runner._page(hostile(), '01_<b>"quoted"')
    assert dangers(page) == []
    soup = BeautifulSoup(page, "html.parser")
    assert soup.select("script") == []
    assert soup.title.text == f"</title><script>{RUNS}</script>"
    texts = soup.main.get_text()
    assert texts.count("bold") == 3 and "one" in texts and f"$x$<script>{RUNS}</script>" in texts
    assert [image["alt"] for image in soup.select(".jp-RenderedHTML img")] == ["a picture", "a tracker"]
    assert soup.select(".jp-RenderedImage img")[-1]["src"].endswith(DOT)
    assert len(soup.select("main")) == 1 and len(soup.main.select(".jp-Cell")) == 3, "no cell closes the frame"


def test_links_of_a_run_lead_to_pages():
    cell = new_markdown_cell("[a](02%20b%26.ipynb#part) [c](02_b.ipynb) [d](https://example.org/x.ipynb)")
    soup = BeautifulSoup(runner._page(new_notebook(cells=[cell]), "x"), "html.parser")
    links = [link["href"] for link in soup.main.select("a")]
    assert links == ["02%20b%26.html#part", "02_b.html", "https://example.org/x.ipynb"]


def test_of_a_cell_with_its_tag_only_the_output_is_shown():
    said = new_output("execute_result", {"text/markdown": "**so**"})
    cells = [
        new_code_cell("report.reading(run)", outputs=[said], metadata={"tags": ["hide-input"]}),
        new_code_cell("x"),
    ]
    soup = BeautifulSoup(runner._page(new_notebook(cells=cells), "x"), "html.parser")
    assert soup.main.strong.text == "so" and "report.reading" not in soup.main.text
    assert [part.text.strip() for part in soup.main.select(".highlight")] == ["x"]


@pytest.mark.parametrize(
    "html",
    [
        report.compact(pd.DataFrame({"a < b": ["x & y"]})),
        '<ul class="cards"><li><img src="downloads/a%20b.png" alt="a" loading="lazy"><a href="a.html">a</a></li></ul>',
        '<img src="data:image/png;base64,AAAA" alt="a">',
        '<h2 id="a-b">a<a class="anchor-link" href="#a-b">¶</a></h2>',
        '<table><tbody><tr><th rowspan="2" valign="top">a</th><td colspan="2" scope="row">b</td></tr></tbody></table>',
        '<div class="highlight"><pre><span class="k">def</span></pre></div>',
    ],
)
def test_what_notebooks_hold_passes(html):
    before, after = (
        [
            (part.name, part.get_text(), {key: re.sub(r"[\s;]", "", str(value)) for key, value in part.attrs.items()})
            for part in BeautifulSoup(text, "html.parser").find_all(True)
        ]
        for text in (html, pages.clean(html))
    )
    assert after == before


def test_styled_table_keeps_its_colours():
    table = pd.DataFrame({"a": [1, 2], "b": [3, 4]}).style.highlight_max(color="yellow").bar(subset=["b"])
    soup = BeautifulSoup(pages.clean(table.to_html()), "html.parser")
    assert [cell.get("style", "") for cell in soup.select("td")][2] == "background-color:yellow"
    assert "linear-gradient(90deg" in soup.select("td")[3]["style"]
    assert not soup.select("style") and "{" not in soup.get_text()
    evil = table.to_html().replace("yellow", "url(https://evil.test)").replace("#T_", '#T_x, p{}"><script>#T_')
    assert dangers(pages.clean(evil)) == []


def test_a_long_styled_table_keeps_its_colours():
    """Of 3,000 cells with a colour each; work that grew with their square would take hours."""
    table = pd.DataFrame(np.arange(3000.0).reshape(1000, 3)).style.background_gradient(axis=None)
    cells = BeautifulSoup(pages.clean(table.to_html()), "html.parser").select("td")
    assert len({cell["style"] for cell in cells}) > 100 and len(cells) == 3000


DRAWN = b'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">%b</svg>'


@pytest.mark.parametrize(
    "part",
    [
        b"<script>1</script>",
        b'<path onload="1"/>',
        b'<a xlink:href="javascript:1"><path/></a>',
        b'<use href="#a" xlink:href="data:image/svg+xml,x"/>',
        b'<foreignObject><p xmlns="http://www.w3.org/1999/xhtml"/></foreignObject>',
        b'<set attributeName="href" to="javascript:1"/>',
        b"<path",
        b"<style>@import 'http://evil.test/a.css';</style>",
        b'<path style="fill: url(http://evil.test/a)"/>',
        b"<path fill=\"url('//evil.test')\"/>",
    ],
)
def test_svg_that_runs_something_is_seen(part):
    assert pages.draws_only(DRAWN % b'<g clip-path="url(#b)"><use xlink:href="#a"/></g>')
    assert not pages.draws_only(DRAWN % part)


def test_svg_with_entities_or_instructions_is_seen():
    assert not pages.draws_only(b'<?xml-stylesheet href="x.xsl"?>' + DRAWN % b"")
    assert not pages.draws_only(b'<!DOCTYPE svg [<!ENTITY x "y">]>' + DRAWN % b"")
