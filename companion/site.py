"""The committed notebooks, figures and records as a static site that opens from disk and from any web server.

Every page is a notebook that nbconvert renders with assets/page.html.j2; all but the notebooks' own have one Markdown
cell: what is made here (index, scorecard, ledger), and the texts of the repository (`_texts`). Nothing on a page is
fetched from the network, and nothing runs but site.js, whoever wrote the notebooks: see `pages`. The notebooks hold no
TeX (a test sees to it), so no page needs code for mathematics.
"""

import os
import posixpath
import re
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import nbformat
import pandas as pd
from bs4 import BeautifulSoup, Tag
from nbconvert import HTMLExporter
from nbconvert.filters import Highlight2HTML, markdown2html
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_notebook

from companion import citing, committed, pages
from mialib import __version__, config, work
from mialib.results import ledger, published

ASSETS = Path(__file__).parent / "assets"
MENU = {
    "index": "Exhibits",
    "scorecard": "Scorecard",
    "ledger": "Ledger",
    "data": "Data cards",
    "cite": "How to cite",
    "docs": "Docs",
}
WHERE, END = "## Where to go", "\n## "  # the section of README.md that names the docs
CLAIM = "**The paper's claim.**"
KINDS = (".csv", ".json", ".pdf", ".png", ".svg", ".tex")  # of files that a notebook saves

_INDEX = """# A companion to the membership-inference literature

Was this record in the model's training set? The literature answers with tables; here they are run again. Each card is
one published table or figure: what the paper claims, and how many of its numbers we reproduce. The
[overview](notebooks/00_overview.ipynb) shows the attacks in one picture and says how to read a number; the
[scorecard](scorecard.html) has every number, the [ledger](ledger.html) what papers and their released code disagree on.

{verdicts}
"""
_VERDICTS = (
    "**Reproduced**: our 95 % interval lies within the tolerance that was fixed before the run. **Differs**: it lies "
    "wholly outside. **Undecided**: it does neither, or there is none. **Not comparable**: the data are simulated, the "
    "model, the scale or the quantity is another, it rests on too few classes or records, or it was not computed; the "
    "note says which. **By guessing too**: what guessing reaches is within it as well. Each published number is "
    "counted once, by its primary reading, which was named before the run ([the rule](data/published/README.md))."
)
_SCORECARD = """# Scorecard

One row a reading of a published number: the primary one, which is counted, and others. {headline} {verdicts}

*SD*: the spread that the paper prints. *Of the point*: the verdict of our value alone, whatever its interval. Tiers:
*real*, the paper's own data; *substitute*, other real data; *simulated* data earn no verdict.
"""
_LEDGER = """# Ledger of discrepancies

Where a paper contradicts itself, its arithmetic, or the code that its authors released. Which revision of the code made
the published tables is not known. Effects on numbers are computed: from the printed tables, and from both sides of a
switch in our own records (*ours*: medians over the cells that have both).
"""


def build(
    out: Path, notebooks: Path = config.ROOT / "notebooks", figures: Path = config.ROOT / "figures"
) -> list[Path]:
    """Write the site to `out`, in place of the one that may be there; the paths of its pages, index.html first.

    A notebook without a record in `figures` gets its page, and a card that says so. ValueError where there are no
    notebooks, one is invalid or has the name of another page, a record is damaged, or a figure holds a script.
    """
    found = {path.stem: _notebook(path) for path in sorted(notebooks.glob("*.ipynb"))}
    if not found:
        raise ValueError(f"no notebooks in {notebooks}")
    texts = _texts()
    if taken := {*MENU, *texts} & {stem.lower() for stem in found}:
        raise ValueError(f"the site has a page {min(taken)}.html of its own; rename the notebook {min(taken)}.ipynb")
    records = {stem: citing.read(path) for stem in found if (path := figures / f"{stem}.json").exists()}
    for notebook in found.values():
        _describe(notebook)
    shown = {"index": _page(_index(found, records, figures))}
    for stem, notebook in found.items():
        shown[stem] = NotebookNode(notebook, cells=[*notebook.cells, *_page(_files(stem, figures)).cells])
    shown["scorecard"] = _page(_scorecard(found, records))
    shown["ledger"] = _page(_ledger(found, records.values()))
    entries = {"cite": _bibtex(records.values())}
    shown |= {name: _page(_text_of(file) + entries.get(name, "")) for name, file in texts.items()}
    copied = _copied(found, notebooks, figures)
    files = {stem: f"notebooks/{stem}.ipynb" for stem in found} | texts
    places = {file: f"downloads/{quote(path.name)}" for file, path in copied.items()}
    places |= {"figures/README.md": "index.html"} | {file: f"{quote(name)}.html" for name, file in files.items()}
    content = {f"{name}.html": html.encode() for name, html in _render(shown, files, places).items()}
    content |= {asset: (ASSETS / asset).read_bytes() for asset in ("site.css", "site.js")}
    content |= {f"downloads/{path.name}": path.read_bytes() for path in copied.values()}
    for old in {*out.glob("*.html"), *out.glob("downloads/*")} - {out / name for name in content}:
        old.unlink()
    for name, data in content.items():
        work.write_atomic(out / name, data)
    return [out / f"{name}.html" for name in shown]


def _texts() -> dict[str, str]:
    """Page -> the Markdown file that it shows; the docs in the order in which README.md names them."""
    fixed = {"data": "data/README.md", "published": "data/published/README.md", "cite": "docs/citing.md"}
    fixed |= {"docs": "README.md"}
    others = {_file(path) for path in config.ROOT.glob("docs/*.md")} | {"CONTRIBUTING.md"}
    index = _text_of("README.md")
    docs = sorted(others - {*fixed.values()}, key=lambda file: index.find(f"({file})"))
    return fixed | {f"docs-{Path(file).stem.lower()}": file for file in docs}


def _text_of(file: str) -> str:
    """The text of a Markdown file; of README.md the section that names the docs, as the rest is on other pages."""
    text = (config.ROOT / file).read_text(encoding="utf-8")
    return text if file != "README.md" else f"# Docs{text.partition(WHERE)[2].partition(END)[0]}"


def _copied(found: Iterable[str], notebooks: Path, figures: Path) -> dict[str, Path]:
    """The files that a reader may take along: place in the repository -> where they are."""
    copied = {f"notebooks/{stem}.ipynb": notebooks / f"{stem}.ipynb" for stem in found}
    copied |= {f"figures/{path.name}": path for stem in found for path in _saved(stem, figures)}
    others = (config.ROOT / "data" / "registry.csv", config.ROOT / "CITATION.cff", *config.ROOT.glob("docs/*.png"))
    return copied | {_file(path): path for path in others}


def _file(path: Path) -> str:
    return path.relative_to(config.ROOT).as_posix()


def _notebook(path: Path) -> NotebookNode:
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        problem = str(error).splitlines()[0]
        raise ValueError(f"{path.name} is no valid notebook ({problem}); open it in Jupyter and save it") from error
    return notebook


def _page(text: str) -> NotebookNode:
    return new_notebook(cells=[new_markdown_cell(text, id="text")])


def _saved(stem: str, figures: Path) -> list[Path]:
    """The files that a notebook saved. ValueError for an SVG file that would run something where it is opened."""
    found = [path for path in committed.files_of(stem, figures) if path.suffix in KINDS]
    for path in found:
        if path.suffix == ".svg" and not pages.draws_only(path.read_bytes()):
            raise ValueError(f"{path.name} holds more than a drawing, such as a script; run its notebook again")
    return found


def _title(notebook: NotebookNode) -> str:
    return notebook.cells[0].source.split("\n")[0].lstrip("# ") if notebook.cells else ""


def _text(value: object) -> str:
    """The value as HTML, on one line: a blank line would end the HTML that stands in Markdown."""
    return escape(" ".join(str(value).split()))


def _describe(notebook: NotebookNode) -> None:
    """Give every figure its alternative text: the exhibit, and the caption that was printed before the figure."""
    for cell in notebook.cells:
        printed = ""
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and not output.text.startswith("mialib "):  # the line of `runs.start`
                printed = output.text.strip().split("\n")[-1]
            elif "image/png" in output.get("data", {}):
                output.metadata["alt"] = f"{_title(notebook)}. {printed}".strip()


def _index(notebooks, records, figures) -> str:
    """Markdown: a card an exhibit, by paper. The overview (00) is no exhibit."""
    groups: dict[str, list[str]] = {}
    for stem, notebook in notebooks.items():
        if not stem.startswith("00"):
            paper, name = _paper(notebook)
            groups.setdefault(paper, []).append(_card(stem, name, notebook, records.get(stem), figures))
    text = _INDEX.format(verdicts=_VERDICTS)
    for paper, items in groups.items():
        text += "\n".join([f'\n## {_text(paper)}\n\n<ul class="cards">', *items, "</ul>\n"])
    return text


def _paper(notebook) -> tuple[str, str]:
    """Its paper and the rest of its title: "Shokri et al. 2017", "Table II: who leaks, and how much"."""
    named = re.fullmatch(r"(.+? \d{4}), (.+)", _title(notebook))
    return (named[1], named[2]) if named else ("Other exhibits", _title(notebook))


def _card(stem, name, notebook, record, figures) -> str:
    paragraphs = notebook.cells[0].source.split("\n\n") if notebook.cells else []
    claim = next((text.removeprefix(CLAIM).strip() for text in paragraphs if text.startswith(CLAIM)), "")
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    alt = next((output.metadata["alt"] for output in outputs if "alt" in output.get("metadata", {})), name)
    drawn = (figures / f"{stem}.png").exists()
    image = f'<img src="downloads/{quote(stem)}.png" alt="{_text(alt)}" loading="lazy">' if drawn else ""
    said = pages.clean(markdown2html(claim)).strip()
    return f"<li>{image}<h3>{_link(f'{stem}.html', name)}</h3>{said}<p>{_badges(record)}</p></li>"


def _badges(record) -> str:
    """The verdicts on the published numbers of a record, counted."""
    if record is None:
        return '<span class="badge">not run yet</span>'
    counts, guessed = published.counts(record["cells"]), published.guessed(record["cells"])
    chance = {"reproduced": f", {guessed} by guessing too"} if guessed else {}
    return " ".join(_badge(name, f": {count}{chance.get(name, '')}") for name, count in counts.items() if count)


def _badge(verdict, count="") -> str:
    return f'<span class="badge {_text(verdict).replace(" ", "-")}">{_text(verdict)}{count}</span>'


def _files(stem, figures) -> str:
    """Markdown: links to the notebook and to all that it saved."""
    lines = ["## Files", "", "<ul>", f"<li>{_link(f'downloads/{stem}.ipynb', f'{stem}.ipynb')}, the notebook</li>"]
    found = _saved(stem, figures)
    for base in dict.fromkeys(path.stem for path in found):
        links = [_link(f"downloads/{path.name}", path.suffix[1:]) for path in found if path.stem == base]
        lines.append(f"<li>{_text(base)}: {', '.join(links)}</li>")
    return "\n".join([*lines, "</ul>"])


def _link(address, text) -> str:
    return f'<a href="{quote(address)}">{_text(text)}</a>'


def _scorecard(notebooks, records: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown: a table with every published number of the records beside ours."""
    rows = []
    for stem, record in records.items():
        paper, name = _paper(notebooks[stem])
        about = {"paper": _text(paper), "exhibit": _link(f"{stem}.html", name.split(":")[0])}
        rows += [about | _row(cell) for cell in record["cells"] if cell["published"] is not None]
    everything = [cell for record in records.values() for cell in record["cells"]]
    text = _SCORECARD.format(headline=_text(published.headline(everything)), verdicts=_VERDICTS)
    return f"{text}\n{_html(pd.DataFrame(rows), 'scorecard')}" if rows else f"{text}\nNo records yet."


def _row(cell: Mapping[str, Any]) -> dict[str, str]:
    """One cell of a record as HTML."""
    interval = None not in (cell["low"], cell["high"])
    return {
        "data": _text(cell["dataset"]),
        "tier": published.TIERS.get(cell["tier"], "none"),
        "setting": _text(cell["setting"]),
        "metric": _text(cell["metric"]),
        "published": f"{cell['published']:.3f}",
        "SD": "" if cell["std"] is None else f"{cell['std']:.3f}",
        "ours": "" if cell["value"] is None else f"{cell['value']:.3f}",
        "95 % interval": f"{cell['low']:.3f} to {cell['high']:.3f}" if interval else "",
        "verdict": _badge(cell["verdict"]),
        "of the point": _text(cell["point_verdict"]),
        "reading": "primary" if cell["primary"] else "other",
        "note": _text(cell["note"]),
    }


def _ledger(notebooks, records: Iterable[Mapping[str, Any]]) -> str:
    """Markdown: the table of `ledger.table`, its notebooks as links."""
    stems = {stem.split("_")[0]: stem for stem in notebooks}
    table = ledger.table(records).reset_index().map(_text)
    table["notebook"] = [
        _link(f"{stems[number]}.html", number) if number in stems else number for number in table["notebook"]
    ]
    return f"{_LEDGER}\n{_html(table, 'ledger')}"


def _bibtex(records: Iterable[Mapping[str, Any]]) -> str:
    """Markdown: the entries of this software and of the papers."""
    year = max((record["run"]["date"][:4] for record in records), default="")
    ours = citing.companion(year, __version__, "(that of the exhibit's record)")
    return f"\n## BibTeX\n\n```bibtex\n{ours}\n\n{citing.papers()}\n```"


def _html(table: pd.DataFrame, name: str) -> str:
    with pd.option_context("display.max_colwidth", None):
        return table.to_html(escape=False, index=False, border=0, table_id=name)


def _render(shown: Mapping[str, NotebookNode], files: Mapping[str, str], places: Mapping[str, str]) -> dict[str, str]:
    """Each page as HTML, with links to the one before and the one after.

    `files`: page -> the file of the repository that it shows; `places`: such a file -> where it is in the site.
    """
    template = (ASSETS / "page.html.j2").read_text(encoding="utf-8")
    exporter = pages.exporter(template, exclude_input_prompt=True, exclude_output_prompt=True)
    exporter.register_filter("highlight_code", Highlight2HTML(pygments_lexer="ipython3"))
    names = list(shown)
    titles = {name: _title(notebook) for name, notebook in shown.items()}
    done = {}
    for name, before, after in zip(names, ["", *names], [*names[1:], ""], strict=False):
        site = {"name": name, "titles": titles, "menu": MENU, "before": before, "after": after, "version": __version__}
        # Past HTMLExporter's own method, which would parse the page to write it anew, as `_finish` does.
        html, _ = super(HTMLExporter, exporter).from_notebook_node(shown[name], {"site": site})
        done[name] = _finish(html, posixpath.dirname(files.get(name, "")), places)
    return done


def _finish(html: str, folder: str, places: Mapping[str, str]) -> str:
    """What nbconvert leaves out: links that lead to pages, a list of the sections, tables that scroll in a box."""
    soup = BeautifulSoup(html, "html.parser")
    for extra in soup.select("a.anchor-link"):
        extra.decompose()
    for part in soup.select("main a[href], main img[src]"):
        kind = "href" if part.name == "a" else "src"
        if place := _place(part[kind], folder, places):
            part[kind] = place
        elif part.name == "a":
            part.unwrap()
    for image in soup.select("img:not([alt])"):
        image["alt"] = "No description has been provided for this image"
    for cell in soup.select("th"):
        if not cell.get_text(strip=True):
            cell.name = "td"
        else:
            cell["scope"] = "col" if cell.find_parent("thead") else "row"
    for kind, parts in (("Table", soup.select("table")), ("Text", soup.select(".jp-RenderedMarkdown > pre"))):
        for number, part in enumerate(parts, 1):
            part.attrs.pop("border", None)
            _box(soup, part, f"{kind} {number}")
    sections = soup.select("main h2[id]")
    if soup.h1 and len(sections) > 2:
        items = "".join(f'<li><a href="#{quote(part["id"])}">{_text(part.get_text())}</a></li>' for part in sections)
        contents = f'<nav class="contents" aria-label="On this page"><ul>{items}</ul></nav>'
        soup.h1.insert_after(BeautifulSoup(contents, "html.parser"))
    return str(soup)


def _place(link: str, folder: str, places: Mapping[str, str]) -> str:
    """Where in the site a link leads that stands in a file of `folder`; "" to what only the repository has."""
    path, mark, anchor = link.partition("#")
    for base in (folder, "") if path else ():
        file = posixpath.normpath(posixpath.join(base, unquote(path)))
        for known in (file, f"{file}/README.md"):
            if known in places:
                return f"{places[known]}{mark}{anchor}"
        if os.path.lexists(config.ROOT / file):
            return ""
    return link


def _box(soup: BeautifulSoup, part: Tag, name: str) -> None:
    """Put a part of the page into a box that scrolls, by keyboard too."""
    heading = part.find_previous(["h1", "h2", "h3"])
    label = f"{name}: {heading.get_text() if heading else ''}"
    part.wrap(soup.new_tag("div", attrs={"class": "scroll", "role": "region", "tabindex": "0", "aria-label": label}))
