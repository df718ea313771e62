"""How exhibits are cited: caption, BibTeX and LaTeX lines from an exhibit's record, and the gallery of all of them."""

import html
import json
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from companion import committed
from mialib import config, runs
from mialib.results import published, report

PAGE_ROWS = 50  # of a table; more do not fit a page


def exhibits(figures: Path) -> dict[str, dict[str, Any]]:
    """Exhibit id -> record, of the records in `figures`, in notebook order."""
    return {_id(record): record for record in map(read, sorted(figures.glob("*.json")))}


def read(path: Path) -> dict[str, Any]:
    """A record. ValueError where it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path.name} is no JSON ({error}); restore it, or run its notebook again") from error


def find(name: str, figures: Path) -> dict[str, Any]:
    """The record of an exhibit by id, notebook number or notebook stem; ValueError lists the valid ids."""
    found = exhibits(figures)
    for known, record in found.items():
        if name in (known, record["notebook"], record["notebook"].split("_")[0]):
            return record
    raise ValueError(f"no record of an exhibit {name!r}; valid: {', '.join(found) or 'none yet'}")


def caption(record: Mapping[str, Any], title: str) -> str:
    """Exhibit, data with tiers, profile and seed, verdicts, id, version and commit. `title`: the notebook's heading."""
    tiers = {cell["dataset"]: cell["tier"] for cell in record["cells"] if cell["tier"]}
    run = runs.Run(record["notebook"], record["profile"], record["seed"], 0.0, record["run"]["commit"])
    version = f"mialib {record['run']['versions']['mialib']}, commit {_short(run.commit)}"
    said = f"{_sentence(title)} {report.caption(tiers, run)} {published.headline(record['cells'])}"
    return f"{said} Exhibit {_id(record)}, {version}."


def cite(record: Mapping[str, Any], title: str, figures: Path) -> str:
    """What `python -m mialib cite` prints: caption, BibTeX for paper and companion, and LaTeX lines."""
    said = caption(record, title)
    return "\n".join(
        [
            *textwrap.wrap(said, 100, break_on_hyphens=False),
            "",
            bibtex(record),
            "",
            "% LaTeX, with \\usepackage{booktabs, graphicx}",
            *includes(record, figures),
            f"\\caption{{{report.latex_text(said)}}}",
        ]
    )


def bibtex(record: Mapping[str, Any]) -> str:
    """The paper's entry in data/published/papers.bib, and this software's with the record's commit."""
    paper = _id(record).split("-")[0]
    entry = re.search(rf"^@\w+{{{re.escape(paper)}(?:(?<=\d)|\d).*?^}}$", papers(), re.MULTILINE | re.DOTALL)
    first = entry[0] if entry else f"% no entry that begins with {paper} in data/published/papers.bib"
    run = record["run"]
    return f"{first}\n\n{companion(run['date'][:4], run['versions']['mialib'], run['commit'])}"


def papers() -> str:
    """The entries of data/published/papers.bib, without its comments."""
    text = (config.ROOT / "data" / "published" / "papers.bib").read_text(encoding="utf-8")
    return re.sub(r"^%.*\n", "", text, flags=re.MULTILINE).strip()


def companion(year: str, version: str, commit: str) -> str:
    """The BibTeX entry of this software, from CITATION.cff."""
    about = yaml.safe_load((config.ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    authors = [
        f"{{{each['name']}}}" if "name" in each else f"{each['family-names']}, {each['given-names']}"
        for each in about["authors"]
    ]
    ours = {
        "author": " and ".join(authors),
        "title": f"{{{about['title']}}}",
        "year": report.latex_text(year),
        "note": report.latex_text(f"Version {version}, commit {commit}"),
    }
    return "\n".join(["@misc{mialib,", *(f"  {key:<9} = {{{value}}}," for key, value in ours.items()), "}"])


def includes(record: Mapping[str, Any], figures: Path) -> list[str]:
    """A LaTeX line a figure, as wide as its text needs to be read, and a line a table."""
    lines = []
    for path in _files(record, figures, ".pdf"):
        column = _width(path) <= config.ONE_COLUMN
        width, where = ("\\columnwidth", "figure") if column else ("\\textwidth", "figure*, across both columns")
        name, renamed = _named(path)
        lines.append(f"\\includegraphics[width={width}]{{figures/{name}}}  % in a {where}{renamed}")
    for path in _files(record, figures, ".tex"):
        rows = len(re.findall(r"\\\\$", path.read_text(encoding="utf-8"), re.MULTILINE))
        long = f"{rows} rows, longer than a page: take some of its CSV" if rows > PAGE_ROWS else ""
        name, renamed = _named(path)
        said = f"{long}{renamed}".removeprefix("; ")
        lines.append(f"\\input{{figures/{name}}}" + (f"  % {said}" if said else ""))
    return lines


def _named(path):
    """The file's name for LaTeX, and what to say where LaTeX cannot read its own."""
    name = report.latex_name(path.name)
    return name, "" if name == path.name else f"; rename {path.name} to that, which LaTeX can read"


def gallery(figures: Path, titles: Mapping[str, str]) -> str:
    """figures/README.md: every exhibit with id, thumbnail, verdicts and files. `titles`: notebook stem -> heading."""
    found, columns = exhibits(figures), report.counted([])
    lines = [
        "# Gallery",
        "",
        "Made by `make publish`; do not edit. `python -m mialib cite ID` prints caption, BibTeX and LaTeX lines. An id",
        "stays; the number and the topic in the files' names may change.",
        "",
        "Each published number is counted once, by its primary reading. Reproduced: our 95 % interval lies within a",
        "tolerance fixed before the run; by guessing too: what guessing reaches lies within it as well; differs: the",
        "interval lies wholly outside; undecided: it does neither; not comparable: simulated data, another model or",
        "scale than the paper's, another quantity, too few classes or records, or no number of ours.",
        "",
        _markdown(f"In all: {published.headline([cell for record in found.values() for cell in record['cells']])}"),
        "",
        f"| id | exhibit | {' | '.join(columns)} |",
        f"|---|---|{'---:|' * len(columns)}",
    ]
    for name, record in found.items():
        counted = map(str, report.counted(record["cells"]).values())
        lines.append(f"| [`{name}`](#{quote(name)}) | {_markdown(record['exhibit'])} | {' | '.join(counted)} |")
    for name, record in found.items():
        lines += ["", *_entry(name, record, titles.get(record["notebook"], record["exhibit"]), figures)]
    return "\n".join(lines) + "\n"


def _entry(name, record, title, figures):
    stem, run = record["notebook"], record["run"]
    simulated = " Hatched: simulated data." if "M" in {cell["tier"] for cell in record["cells"]} else ""
    alt = html.escape(f"{_sentence(title)} Published and ours. {published.headline(record['cells'])}{simulated}")
    images = [
        f'<img src="{quote(path.name)}" width="{240 if i else 480}" alt="{alt}">'
        for i, path in enumerate(_files(record, figures, ".png"))
    ]
    kinds = {
        "Figures": [_links(path, figures, ("pdf", "svg", "png")) for path in _files(record, figures, ".png")],
        "Tables": [_links(path, figures, ("csv", "tex")) for path in _files(record, figures, ".csv")],
        "Record": [f"[json]({quote(stem)}.json), from notebook [{_markdown(stem)}](../notebooks/{quote(stem)}.ipynb)"],
    }
    return [
        f'## <a id="{html.escape(name)}"></a>{_markdown(record["exhibit"])}',
        "",
        f"`{name}` · {_markdown(title)}",
        "",
        *images,
        "",
        f"{_markdown(published.headline(record['cells']))} Profile {record['profile']}, seed {record['seed']}.",
        f"Run on {run['date']} with mialib {run['versions']['mialib']}, commit {_short(run['commit'])}.",
        "",
        *(f"- {kind}: {'; '.join(links)}" for kind, links in kinds.items() if links),
    ]


def _links(path, figures, kinds):
    """ "by_class pdf, svg, png", each a link."""
    name = path.stem
    links = [f"[{kind}]({quote(name)}.{kind})" for kind in kinds if (figures / f"{name}.{kind}").exists()]
    return f"{_markdown(name)} {', '.join(links)}"


def _markdown(text):
    """The text in a line or table of Markdown, where it can neither begin HTML or a link nor end a cell."""
    return re.sub(r"[<|\[\]]", r"\\\g<0>", " ".join(text.split()))


def _id(record):
    return config.exhibit_id(record["notebook"])


def _files(record, figures, suffix):
    """The exhibit's files of one kind, the main one first."""
    found = [path for path in committed.files_of(record["notebook"], figures) if path.suffix == suffix]
    return sorted(found, key=lambda path: path.stem)


def _sentence(title):
    return title if title.endswith((".", "?", "!")) else f"{title}."


def _short(commit):
    """Seven digits, and "+changes" where the code was not quite that commit's."""
    return re.sub(r"^([0-9a-f]{7})[0-9a-f]+", r"\1", commit)


def _width(path):
    """Inches, from the PDF's page box."""
    box = re.search(rb"/MediaBox \[ ?[\d.]+ [\d.]+ ([\d.]+)", path.read_bytes())
    return float(box[1]) / 72
