"""The site made from the committed notebooks: read as files, and in headless Chromium where there is one."""

import base64
import functools
import http.server
import itertools
import json
import re
import shutil
import threading
import warnings
from collections import Counter
from urllib.parse import unquote, urldefrag

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from playwright.sync_api import Error, sync_playwright
from test_pages import RUNS, dangers, hostile

from companion import __main__ as command_line
from companion import citing, site
from mialib import __version__, config
from mialib.results import published

NOTEBOOKS = sorted((config.ROOT / "notebooks").glob("*.ipynb"))
EXHIBITS = [path.stem for path in NOTEBOOKS if not path.stem.startswith("00")]
RECORDS = {path.stem: json.loads(path.read_text()) for path in sorted(config.ROOT.glob("figures/*.json"))}
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
VALUES = ("Adult & <co>", "NN", "all", "precision", 0.5, 0.02, 0.05, 0.6, 0.56, 0.7, "R", "differs", "differs", True)
VALUES += (0.5, "", "a note")
CELL = dict(zip(published.CELL, VALUES, strict=True))
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
NO_CHROMIUM = "NOT TESTED IN A BROWSER: no Chromium or Chrome starts here; install one and run the tests again"


@functools.cache
def parsed(html):
    """Parsed once: that is most of the time of these tests, which only read."""
    return BeautifulSoup(html, "html.parser")


def soup(path):
    return parsed(path.read_text())


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of the real site, made once."""
    out = tmp_path_factory.mktemp("site")
    site.build(out)
    return out


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """Folders of notebooks and figures: an overview, one exhibit that ran, and one that never did."""
    notebooks, figures = tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("figures")
    outputs = [
        new_output("stream", name="stdout", text="noise\n"),
        new_output("stream", name="stdout", text="more noise\nReal data: Adult.\n"),
        new_output("display_data", {"image/png": DOT, "text/plain": "<Figure>"}),
        new_output("execute_result", {"text/html": "<table><tr><th></th><th>a</th></tr></table>", "text/plain": "a"}),
    ]
    ran = "# Somebody et al. 2017, Table X: a < b & c\n\n**The paper's claim.** They *say* so.\n\nSource: a book."
    bare = "# Somebody et al. 2017, Fig 2: later\n\n[back](notebooks/01_ran.ipynb#The-figure), [near](01_ran.ipynb)"
    versions = new_output("stream", name="stdout", text="mialib 0.1.0 · profile laptop\n")
    write(notebooks / "00_overview.ipynb", "# An overview", new_code_cell("x", outputs=[versions, outputs[2]]))
    said = new_output("execute_result", {"text/markdown": "**What comes out.** It does.", "text/plain": "<Markdown>"})
    reading = new_code_cell("report.reading(run)", outputs=[said], metadata={"tags": ["hide-input"]})
    cells = [new_markdown_cell("## The figure"), new_code_cell("draw()", outputs=outputs), reading]
    write(notebooks / "01_ran.ipynb", ran, *cells)
    write(notebooks / "02_bare.ipynb", bare)
    (figures / "01_ran.png").write_bytes(base64.b64decode(DOT))
    unpublished = CELL | {"published": None, "verdict": "not comparable"}
    record = {"notebook": "01_ran", "cells": [CELL, unpublished], "run": {"date": "2031-02-03"}}
    (figures / "01_ran.json").write_text(json.dumps(record))
    return notebooks, figures


def write(path, text, *cells):
    nbformat.write(new_notebook(cells=[new_markdown_cell(text), *cells]), path)


TOY_TEXTS = {
    "README.md": "# Us\n\n[no page](x)\n\n## Where to go\n\n[Walk](docs/walk.md), [more](CONTRIBUTING.md)\n\n## End",
    "CONTRIBUTING.md": "# More\n\n[walk](docs/walk.md)",
    "docs/walk.md": "# Walk\n\n![A picture of it](../figures/01_ran.png)\n"
    "[files](../data/registry.csv), [no page](../README.txt)",
    "docs/citing.md": "# How to cite\n\nSo.",
    "data/README.md": "# Data\n\n[numbers](published)",
    "data/published/README.md": "# Numbers",
}


def built_from(out, root, texts, notebooks, figures):
    """The site of notebooks and figures in a project with these texts."""
    if not root.exists():
        shutil.copytree(config.ROOT / "data" / "published", root / "data" / "published")
        shutil.copy(config.ROOT / "CITATION.cff", root)
        shutil.copy(config.ROOT / "data" / "registry.csv", root / "data")
        (root / "docs").mkdir()
        (root / "README.txt").touch()
        for name, text in texts.items():
            (root / name).write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "ROOT", root)
        site.build(out, notebooks, figures)


@pytest.fixture(scope="module")
def toy_site(toys, tmp_path_factory):
    out = tmp_path_factory.mktemp("toy")
    built_from(out / "site", out / "root", TOY_TEXTS, *toys)
    return out / "site"


@pytest.fixture
def toy(toy_site, tmp_path):
    """A site of the toys, free to be changed."""
    return shutil.copytree(toy_site, tmp_path / "site")


def faults(folder):
    """What is wrong with a site's files: dead links, things from elsewhere, what a screen reader would miss."""
    pages = {path.name: soup(path) for path in sorted(folder.glob("*.html"))}
    found = []
    for name, page in pages.items():
        for link in page.select("a[href]"):
            target, anchor = urldefrag(link["href"])
            target = target or name
            if target.startswith(("https://", "http://")):
                continue
            if not (folder / target).is_file():
                found.append(f"{name}: dead link {target}")
            elif anchor and not pages[target].find(id=unquote(anchor)):
                found.append(f"{name}: no {anchor} in {target}")
        for part in page.select("[src], link[href], [srcset], [data], [style*='url(']"):
            address = part.get("src") or part.get("href") or ""
            if not address.startswith("data:") and not (folder / address).is_file():
                found.append(f"{name}: not in the site {str(part)[:90]}")
        for image in page.select("img"):
            if len(image.get("alt", "")) < 10 or "No description" in image["alt"]:
                found.append(f"{name}: image without a text")
        for table in page.select("table"):
            headers = table.select("th")
            if not headers or not all(header.get("scope") and header.get_text(strip=True) for header in headers):
                found.append(f"{name}: table without headers")
            if "scroll" not in table.parent.get("class", []):
                found.append(f"{name}: table that does not scroll")
        landmarks = [len(page.select(what)) for what in ("html[lang]", "header nav", "main", "h1", "footer", "a.skip")]
        if landmarks != [1] * 6:
            found.append(f"{name}: landmarks {landmarks}")
    for path in folder.glob("site.*"):
        if re.search(r"//\w|@import|url\(|fetch\(|import\(", path.read_text()):
            found.append(f"{path.name}: fetches something")
    return found


def test_real_site_is_whole(built):
    assert faults(built) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("02_bare.html", '"01_ran.html"', '"01_run.html"', "dead link"),
        ("02_bare.html", "#The-figure", "#the-figure", "no the-figure in 01_ran.html"),
        ("02_bare.html", 'src="site.js"', 'src="https://cdn.example/site.js"', "not in the site"),
        ("index.html", "downloads/01_ran.png", "downloads/01_run.png", "not in the site"),
        ("docs.html", '"docs-walk.html"', '"docs-run.html"', "dead link"),
        ("docs-walk.html", '"downloads/registry.csv"', '"../data/registry.csv"', "dead link"),
        ("docs-walk.html", '"downloads/01_ran.png"', '"../figures/01_ran.png"', "not in the site"),
        ("01_ran.html", ' alt="', ' title="', "image without a text"),
        ("01_ran.html", ' scope="', ' title="', "table without headers"),
        ("01_ran.html", 'class="scroll"', "", "does not scroll"),
        ("01_ran.html", ' lang="en"', "", "landmarks"),
        ("site.css", "margin: 0;", "background: url(x.png);", "fetches something"),
    ],
)
def test_planted_fault_is_found(file, old, new, told, toy):
    assert faults(toy) == []
    text = (toy / file).read_text()
    assert old in text
    (toy / file).write_text(text.replace(old, new))
    assert [fault for fault in faults(toy) if told in fault]


def test_toy_pages(toy):
    index, ran, bare = (soup(toy / f"{name}.html") for name in ("index", "01_ran", "02_bare"))
    title = "Somebody et al. 2017, Table X: a < b & c"
    assert ran.h1.text == title
    assert ran.select_one("main img")["alt"] == f"{title}. Real data: Adult."
    assert soup(toy / "00_overview.html").select_one("main img")["alt"] == "An overview."
    assert "draw()" in ran.main.text and "report.reading" not in ran.main.text
    assert "What comes out." in [part.text for part in ran.select("main strong")]
    assert [cell.name for cell in ran.table.tr.find_all(True)] == ["td", "th"]
    assert [link["href"] for link in bare.select("main p a")] == ["01_ran.html#The-figure", "01_ran.html"]
    assert [heading.text for heading in index.select("main h2")] == ["Somebody et al. 2017"]
    first, second = index.select(".cards > li")
    assert first.h3.text == "Table X: a < b & c"
    assert first.em.text == "say"
    assert first.img["alt"] == f"{title}. Real data: Adult."
    assert [badge.text for badge in first.select(".badge")] == ["differs: 1"]
    assert [badge.text for badge in second.select(".badge")] == ["not run yet"]
    (row,) = soup(toy / "scorecard.html").select("#scorecard tbody tr")
    texts = ["Somebody et al. 2017", "Table X", "Adult & <co>", "real", "all", "precision"]
    assert [cell.text for cell in row.select("td")] == [
        *texts,
        "0.500",
        "0.020",
        "0.600",
        "0.560 to 0.700",
        "differs",
        "differs",
        "primary",
        "a note",
    ]


def test_texts_of_the_repository_lead_to_pages_and_files_of_the_site(toy):
    links = {
        name: [link["href"] for link in soup(toy / f"{name}.html").select("main a")]
        for name in ("docs", "docs-walk", "docs-contributing", "data")
    }
    assert links == {
        "docs": ["docs-walk.html", "docs-contributing.html"],
        "docs-walk": ["downloads/registry.csv"],
        "docs-contributing": ["docs-walk.html"],
        "data": ["published.html"],
    }
    assert "no page" in soup(toy / "docs-walk.html").main.text and "no page" not in soup(toy / "docs.html").main.text
    assert soup(toy / "docs-walk.html").main.img["src"] == "downloads/01_ran.png"


def test_a_link_to_nothing_is_not_hidden():
    assert site._place("instal.md", "docs", {}) == "instal.md"
    assert site._place("../requirements.lock", "docs", {}) == ""
    assert site._place("#below", "docs", {}) == "#below"
    assert site._place("published#a", "data", {"data/published/README.md": "p.html"}) == "p.html#a"
    assert site._place("https://example.org/docs/install.md", "", {}) == "https://example.org/docs/install.md"


def test_site_takes_the_place_of_an_old_one(toys, toy, toy_site):
    before = {path: path.read_bytes() for path in toy.rglob("*") if path.is_file()}
    (toy / "99_gone.html").touch()
    (toy / "downloads" / "99_gone.png").touch()
    built_from(toy, toy_site.parent / "root", TOY_TEXTS, *toys)
    assert {path: path.read_bytes() for path in toy.rglob("*") if path.is_file()} == before


def test_bad_input_is_named(toys, tmp_path):
    with pytest.raises(ValueError, match="no notebooks in"):
        site.build(tmp_path / "out", tmp_path)
    (tmp_path / "01_ran.json").write_text("<<<<<<< HEAD")
    with pytest.raises(ValueError, match=r"01_ran\.json is no JSON .* restore it"):
        site.build(tmp_path / "out", toys[0], tmp_path)
    assert not (tmp_path / "out").exists()


OWN = {'<script defer="" src="site.js"></script>'}
ODD = '01_<img src=x onerror="window.ran=1">_&[a]*_#1'


@pytest.fixture(scope="module")
def hostile_site(tmp_path_factory):
    """The site of a branch on which every name, title, text, output and record would run something."""
    out, bad = tmp_path_factory.mktemp("hostile"), hostile()
    notebooks, figures = out / "notebooks", out / "figures"
    text = f"# Data {bad.cells[1].source}\n\n## Where to go\n\n{bad.cells[1].source}\n\n[x](docs/{'x' * 5000})"
    texts = dict.fromkeys([*TOY_TEXTS, f"docs/{ODD}.md"], text)
    for folder in (notebooks, figures):
        folder.mkdir()
    for stem in (ODD, "02_other", "18_rezaei"):
        nbformat.write(bad, notebooks / f"{stem}.ipynb")
        (figures / f"{stem}.png").write_bytes(base64.b64decode(DOT))
        evil = f'"><script>{RUNS}</script>\n\n[x](javascript:{RUNS})'
        cell = CELL | dict.fromkeys(("dataset", "model", "setting", "metric", "verdict", "note", "tier"), evil)
        run = {"date": evil, "commit": evil, "versions": {"mialib": evil}}
        record = {"notebook": stem, "exhibit": evil, "cells": [cell, CELL | {"note": evil}], "run": run}
        (figures / f"{stem}.json").write_text(json.dumps(record), encoding="utf-8")
    built_from(out / "site", out / "root", texts, notebooks, figures)
    return out / "site"


def test_nothing_hostile_is_left_in_the_site(hostile_site):
    paths = sorted(hostile_site.glob("*.html"))
    assert len(paths) == 13
    for path in paths:
        html = path.read_text(encoding="utf-8")
        page = parsed(html)
        assert dangers(html, OWN) == [], path.name
        assert [str(script) for script in page.select("script")] == [*OWN]
        assert [len(page.select(what)) for what in ("main", "header", "footer", "head > title")] == [1] * 4, path.name
        for link in page.select("nav a[href], footer a[href], a[href^=downloads], td a[href], h3 a[href]"):
            assert (hostile_site / unquote(urldefrag(link["href"])[0] or path.name)).is_file(), link
    title = hostile().cells[0].source.split("\n")[0].lstrip("# ")
    assert parsed((hostile_site / f"{ODD}.html").read_text(encoding="utf-8")).title.text == title
    rows = soup(hostile_site / "scorecard.html").select("#scorecard tbody tr")
    assert len(rows) == 6 and rows[0].select("td")[2].text == f'"><script>{RUNS}</script> [x](javascript:{RUNS})'


def test_nothing_hostile_runs(browser, hostile_site):
    tab = browser.new_page()
    for path in sorted(hostile_site.glob("*.html")):
        tab.goto(path.as_uri())
        assert tab.evaluate("window.ran") is None, path.name
    tab.close()


def test_hostile_files_are_named(toys, tmp_path):
    figures = shutil.copytree(toys[1], tmp_path / "figures")
    (figures / "01_ran.html").write_text("<script>1</script>")
    site.build(tmp_path / "out", toys[0], figures)
    assert not [*tmp_path.glob("out/downloads/*.html")]
    (figures / "01_ran.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" onload="1"/>')
    with pytest.raises(ValueError, match=r"01_ran\.svg holds more than a drawing"):
        site.build(tmp_path / "out", toys[0], figures)
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    write(notebooks / "Index.ipynb", "# Mine")
    with pytest.raises(ValueError, match=r"page index\.html of its own"):
        site.build(tmp_path / "out", notebooks, toys[1])
    text = (toys[0] / "01_ran.ipynb").read_text(encoding="utf-8")
    (notebooks / "Index.ipynb").unlink()
    (notebooks / "01_ran.ipynb").write_text(text.replace('"outputs": [', '"outputs": ["<script>",'), encoding="utf-8")
    with pytest.raises(ValueError, match=r"^01_ran\.ipynb is no valid notebook .*Jupyter and save it$"):
        site.build(tmp_path / "out", notebooks, toys[1])


def test_files_of_a_notebook_are_its_own(toys, tmp_path):
    """Names may begin alike, and hold what a pattern of file names would take for more."""
    notebooks, figures = tmp_path / "notebooks", tmp_path / "figures"
    notebooks.mkdir()
    figures.mkdir()
    for stem in ("40_x", "40_x-Copy1", "40_x_y", "41_[a]*"):
        write(notebooks / f"{stem}.ipynb", "# Somebody et al. 2017, Fig 2: so")
        for name in (f"{stem}.json", f"{stem}_part.csv"):
            (figures / name).write_text('{"cells": [], "run": {"date": "2031-02-03"}, "notebook": "40_x"}')
    site.build(tmp_path / "out", notebooks, figures)
    for stem in ("40_x", "40_x-Copy1", "40_x_y", "41_[a]*"):
        links = soup(tmp_path / "out" / f"{stem}.html").select("main li a")
        assert [unquote(link["href"]) for link in links] == [
            f"downloads/{name}" for name in (f"{stem}.ipynb", f"{stem}.json", f"{stem}_part.csv")
        ]


def test_command_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(config, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(site, "build", lambda out: [out / "index.html", out / "cite.html"])
    assert command_line.main(["site"]) == 0
    assert capsys.readouterr().out == "2 pages; open build/site/index.html in a browser\n"
    monkeypatch.setattr(site, "build", lambda out: citing.read(tmp_path / "damaged.json"))
    (tmp_path / "damaged.json").write_text("{")
    with pytest.raises(SystemExit, match="2"):
        command_line.main(["site"])
    assert capsys.readouterr().err.count("\n") == 1


def test_a_card_an_exhibit(built):
    cards = soup(built / "index.html").select(".cards > li")
    papers = list(dict.fromkeys(stem.split("_")[1] for stem in EXHIBITS))
    by_paper = sorted(EXHIBITS, key=lambda stem: papers.index(stem.split("_")[1]))  # notebook order within a paper
    assert [card.a["href"] for card in cards] == [f"{stem}.html" for stem in by_paper]
    for stem, card in zip(by_paper, cards, strict=True):
        assert len(card.select_one("h3 + p").text) > 60, "the paper's claim"
        if stem in RECORDS:
            cells = RECORDS[stem]["cells"]
            verdicts = {f"{name}: {count}" for name, count in published.counts(cells).items() if count}
            badges = {badge.text.partition(", ")[0] for badge in card.select(".badge")}
            assert badges == verdicts and len(card.select(".badge.reproduced")) == bool(
                published.counts(cells)["reproduced"]
            )
            assert card.img["src"] == f"downloads/{stem}.png"


def test_a_card_counts_primary_readings_and_what_guessing_reaches():
    same = CELL | {"verdict": "reproduced"}
    cells = [same, same | {"chance": None}, CELL | {"verdict": "undecided"}, CELL | {"primary": False}]
    badges = parsed(site._badges({"cells": cells})).select(".badge")
    assert [badge.text for badge in badges] == ["reproduced: 2, 1 by guessing too", "undecided: 1"]
    assert [badge["class"] for badge in badges] == [["badge", "reproduced"], ["badge", "undecided"]]
    row = site._row(cells[3] | {"std": None, "point_verdict": "reproduced"})
    assert (row["SD"], row["of the point"], row["reading"]) == ("", "reproduced", "other")


def test_every_published_number_is_in_the_scorecard(built):
    rows = [[cell.text for cell in row.select("td")] for row in soup(built / "scorecard.html").select("tbody tr")]
    cells = [cell for record in RECORDS.values() for cell in record["cells"] if cell["published"] is not None]
    assert Counter((row[2], row[10], float(row[6])) for row in rows) == Counter(
        (cell["dataset"], cell["verdict"], round(cell["published"], 3)) for cell in cells
    )


def test_previous_and_next_visit_every_page_once(built):
    name, seen = "index.html", []
    while name:
        seen.append(name)
        page = soup(built / name)
        back, on = (page.select_one(f'a[rel="{rel}"]') for rel in ("prev", "next"))
        assert (back["href"] if back else None) == (seen[-2] if seen[1:] else None)
        name = on["href"] if on else None
    assert sorted(seen) == sorted(path.name for path in built.glob("*.html"))
    assert seen[1 : 1 + len(NOTEBOOKS)] == [f"{path.stem}.html" for path in NOTEBOOKS]


@pytest.mark.parametrize("stem", EXHIBITS)
def test_figures_carry_their_captions(stem, built):
    drawn = [o for cell in code(stem) for o in cell.outputs if "image/png" in o.get("data", {})]
    texts = [image["alt"] for image in soup(built / f"{stem}.html").select("main img")]
    assert len(texts) == len(drawn)
    assert all("data" in text and text.endswith(f"notebook {stem}.") for text in texts)


def code(stem):
    cells = nbformat.read(config.ROOT / "notebooks" / f"{stem}.ipynb", as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code"]


def test_a_page_a_text_of_the_docs(built):
    """Every page of docs, and CONTRIBUTING.md, is named in "Docs"."""
    named = [link["href"] for link in soup(built / "docs.html").select("main a")]
    titles = [path.read_text(encoding="utf-8").partition("\n")[0] for path in config.ROOT.glob("docs/*.md")]
    assert {soup(built / name).h1.text for name in named} >= {title.lstrip("# ") for title in titles} | {"Contributing"}
    pictures = [image["src"] for image in soup(built / "docs-results.html").select("main img")]
    assert len(pictures) == 4 and all(picture.startswith("downloads/") for picture in pictures)


def test_how_to_cite_agrees_with_the_citation_file(built):
    text = (config.ROOT / "CITATION.cff").read_text()
    cited = soup(built / "cite.html").main.text
    for value in [*re.findall(r'title: "(.+)"', text), *re.findall(r"(?:doi|family-names): ([\w./]+)", text)]:
        assert value in cited
    assert f"Version {__version__}, commit" in cited


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_text_is_plain_markdown(path):
    """One title and sections below it (Jupyter's table of contents), no HTML, and no TeX, which no page could show."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    texts = [re.sub(r"```.*?```|`[^`]*`", "", cell.source, flags=re.DOTALL) for cell in cells]
    headings = [len(marks) for text in texts for marks in re.findall(r"^(#+) ", text, flags=re.MULTILINE)]
    assert texts[0].startswith("# ")
    assert headings.count(1) == 1
    assert headings.count(2) >= 3
    assert all(below <= above + 1 for above, below in itertools.pairwise(headings))
    for text in texts:
        assert not re.search(r"<[a-zA-Z/!]", text)
        assert not re.search(r"\$[^$]+\$|\\[(\[]|\\begin\{", text)


@pytest.fixture(scope="module")
def browser():
    """Chromium or Chrome, whichever is installed."""
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    with sync_playwright() as play:
        try:
            started = play.chromium.launch(**({"executable_path": path} if path else {"channel": "chrome"}))
        except Error as error:
            warnings.warn(NO_CHROMIUM, stacklevel=1)
            pytest.skip(f"{NO_CHROMIUM}\n{error}")
        yield started
        started.close()


@pytest.fixture(scope="module")
def served(built):
    """The address of a web server for the real site."""
    handler = functools.partial(Quiet, directory=built)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def visit(browser, base, names):
    """Open the pages on a phone: what they asked for outside `base`, what they complained of, which are too wide."""
    tab = browser.new_page(viewport={"width": 390, "height": 800})
    asked, complaints, wide = [], [], []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    for name in names:
        tab.goto(f"{base}/{name}")
        if tab.evaluate("document.documentElement.scrollWidth") > 390:
            wide.append(name)
    tab.close()
    return [url for url in asked if not url.startswith((f"{base}/", "data:"))], complaints, wide


@pytest.mark.parametrize("way", ["from disk", "from a web server"])
def test_every_page_loads_alone_and_fits_a_phone(way, browser, built, served):
    names = sorted(path.name for path in built.glob("*.html"))
    assert visit(browser, built.as_uri() if way == "from disk" else served, names) == ([], [], [])


def test_planted_request_error_and_width_are_seen(browser, toy):
    page = (toy / "index.html").read_text()
    planted = '<img src="http://127.0.0.1:9/x.png"><pre style="width:500px">x</pre><script>nothing()</script>'
    (toy / "index.html").write_text(page.replace("</main>", f"{planted}</main>"))
    outside, complaints, wide = visit(browser, toy.as_uri(), ["index.html"])
    assert outside == ["http://127.0.0.1:9/x.png"]
    assert any("nothing is not defined" in complaint for complaint in complaints)
    assert wide == ["index.html"]


def shown(tab, column):
    """The texts of a column in the rows that can be seen, from the top."""
    return tab.locator(f"#scorecard tbody tr:visible td:nth-child({column})").all_inner_texts()


def test_scorecard_filters(browser, built):
    rows = [[cell.text for cell in row.select("td")] for row in soup(built / "scorecard.html").select("tbody tr")]
    tab = browser.new_page()
    tab.goto((built / "scorecard.html").as_uri())
    for labels in (
        {"tier": "simulated"},
        {"paper": "Shokri et al. 2017", "tier": "real", "verdict": "differs"},
        {"paper": "Rezaei & Liu 2020", "tier": "all", "verdict": "reproduced"},
    ):
        for name, label in labels.items():
            tab.get_by_label(name).select_option(label=label)
        columns = {"paper": 0, "tier": 3, "verdict": 10}
        wanted = [row for row in rows if all(label in ("all", row[columns[name]]) for name, label in labels.items())]
        assert 0 < len(wanted) < len(rows)
        assert shown(tab, 7) == [row[6] for row in wanted]
        assert tab.get_by_role("status").inner_text() == f"{len(wanted)} of {len(rows)} rows"
    tab.close()


def test_scorecard_sorts_by_keyboard(browser, built):
    tab = browser.new_page()
    tab.goto((built / "scorecard.html").as_uri())
    tab.get_by_label("verdict").select_option(label="differs")
    tab.get_by_role("button", name="ours").focus()
    for direction, backwards in (("ascending", False), ("descending", True)):
        tab.keyboard.press("Enter")
        assert tab.get_by_role("columnheader", name="ours").get_attribute("aria-sort") == direction
        values = [float(text) for text in shown(tab, 9)]
        assert len(values) > 5
        assert values == sorted(values, reverse=backwards)
    tab.get_by_label("verdict").select_option(label="all")
    texts = shown(tab, 9)
    assert "" in texts and "" not in texts[: texts.index("")] and set(texts[texts.index("") :]) == {""}
    tab.get_by_role("button", name="metric").press("Space")
    groups = [metric for metric, _ in itertools.groupby(shown(tab, 6))]
    assert len(groups) == len(set(groups)) > 5
    assert tab.locator("[aria-sort]").count() == 1
    tab.close()


def test_scorecard_without_scripts_is_a_plain_table(browser, built):
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto((built / "scorecard.html").as_uri())
    assert tab.locator("#scorecard tbody tr:visible").count() > 100
    assert tab.locator("button, select").count() == 0
    context.close()


AXED = ["index", "00_overview", EXHIBITS[0], "scorecard", "ledger", "data", "cite", "docs"]
AXED += ["docs-first-walk", "docs-running", "docs-architecture"]


@pytest.mark.parametrize("name", AXED)
def test_axe_has_no_complaint(name, browser, built):
    """Contrast, headers, names, landmarks and more: https://dequeuniversity.com/rules/axe."""
    tab = browser.new_page()
    tab.goto((built / f"{name}.html").as_uri())
    tab.evaluate("document.querySelectorAll('tbody tr:nth-child(n+20)').forEach((row) => row.remove())")  # for time
    found = Axe().run(tab)
    tab.close()
    assert found.violations_count == 0, found.generate_report()


def test_nothing_is_cut_in_print(browser, built):
    """Tables, figures and code fit A4 (or A4 across, where the style asks for it); navigation is gone."""
    tab = browser.new_page()
    tab.emulate_media(media="print")
    for path in sorted(built.glob("*.html")):
        across = path.stem in ("scorecard", "ledger")
        tab.set_viewport_size({"width": 1046 if across else 687, "height": 900})  # less margins, at 96 dpi
        tab.goto(path.as_uri())
        assert tab.locator("nav:visible, form:visible, .skip:visible").count() == 0
        cut = """[...document.querySelectorAll("table, img, pre")].filter((part) => {
            const box = part.closest(".scroll"), wide = box && getComputedStyle(box).page === "wide";
            return part.getBoundingClientRect().right > (wide ? 1046 : innerWidth) + 1;
        }).length"""
        assert tab.evaluate(cut) == 0, path.name
    tab.close()
