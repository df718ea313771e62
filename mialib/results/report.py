"""How a result leaves a notebook: figures, tables and one JSON record, the same bytes for the same seed.

Real data, substitutes and simulated data are told apart in every caption.
"""

import csv
import fnmatch
import io
import json
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from IPython.display import Markdown
from matplotlib.figure import Figure

from mialib import __version__, config, runs, work
from mialib.results import published

_CAPTIONS = {
    "R": "Real data: {}.",
    "S": "Real substitutes, not the paper's own data: {}.",
    "M": "SIMULATED data, which say nothing about the published numbers: {}.",
}
_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"{": r"\textbraceleft{}", "}": r"\textbraceright{}"}  # not \{, a brace that BibTeX counts
)
# What a file of each kind shall not say, and where it holds its caption.
_METADATA = {"pdf": ("CreationDate", "Subject"), "png": ("Software", "Description"), "svg": ("Date", "Description")}


def style() -> None:
    """Set the look of every figure (colour-blind-safe, legible in print) and show tables with three decimals.

    Nothing is left of the user's own matplotlibrc or style but the backend: a figure has the same bytes for everyone.
    """
    _look()
    # One line a row: a wrapped table repeats its index, and weighs several times as much in the notebook.
    pd.set_option("display.precision", 3, "display.max_rows", 500, "display.width", 1000, "display.max_colwidth", 200)


def _look():
    mpl.rcdefaults()
    sizes = dict.fromkeys(("font.size", "axes.labelsize", "xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 10)
    others = {"axes.titlesize": 11, "hatch.linewidth": 0.6, "axes.spines.top": False, "axes.spines.right": False}
    sns.set_theme(context="notebook", style="ticks", palette="colorblind", font="DejaVu Sans", rc=sizes | others)


def records(profile: str) -> list[dict[str, Any]]:
    """The records notebooks wrote in `profile`, in notebook order; those committed in figures/ where none are there."""
    for folder in (config.figures_dir(profile), config.ROOT / "figures"):
        found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
        if found := [record for record in found if record["profile"] == profile and record["cells"]]:
            return found
    return []


def scores(profile: str) -> pd.DataFrame:
    """How many distinct published numbers each exhibit of `profile` has, and how many of them under each verdict."""
    rows = [{"exhibit": record["exhibit"]} | counted(record["cells"]) for record in records(profile)]
    return pd.DataFrame(rows, columns=["exhibit", *counted([])]).set_index("exhibit")


def counted(cells: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Published numbers, those under each verdict, and of those reproduced the ones that guessing reaches too."""
    cells = published.primary(cells)
    same, *others = published.counts(cells).items()
    both = [("published numbers", len(cells)), same, ("of them by guessing too", published.guessed(cells))]
    return dict([*both, *others])


def remaining(profile: str) -> pd.DataFrame:
    """What keeps the published numbers of `profile` from being reproduced: a row a verdict and cause.

    Columns verdict, cause, numbers (distinct published ones that have this cause), alone (those that have no other
    cause), exhibits. Numbers that differ stand by data set and model; what was tried is in their notebooks.
    """
    rows = []
    for record in records(profile):
        for cell in published.primary(record["cells"]):
            named = [f"{cell['dataset']}, {cell['model']}"] if cell["verdict"] == "differs" else []
            causes = named or cell["cause"].split("; ")
            for cause in causes if cell["verdict"] != "reproduced" else []:
                about = {"verdict": cell["verdict"], "cause": cause, "exhibits": record["exhibit"]}
                rows.append(about | {"numbers": 1, "alone": len(causes) == 1})
    table = pd.DataFrame(rows, columns=["verdict", "cause", "numbers", "alone", "exhibits"])
    table["verdict"] = pd.Categorical(table["verdict"], published.VERDICTS)
    grouped = table.groupby(["verdict", "cause"], observed=True, as_index=False)
    table = grouped.agg({"numbers": "sum", "alone": "sum", "exhibits": lambda names: "; ".join(dict.fromkeys(names))})
    return table.sort_values(["verdict", "numbers"], ascending=[True, False], kind="stable", ignore_index=True)


def scorecard(profile: str) -> pd.DataFrame:
    """Every published number of `profile`'s records beside ours, by its primary reading, with exhibit and note."""
    tables = []
    for record in records(profile):
        cells = published.primary(record["cells"])
        about = {"exhibit": record["exhibit"], "note": [cell["note"] for cell in cells]}
        tables.append(published.scorecard(cells).drop(columns="reading").assign(**about))
    return pd.concat(tables).set_index(["exhibit", "dataset", "setting", "metric"]) if tables else pd.DataFrame()


def compact(table: pd.DataFrame) -> str:
    """A long table as HTML, all rows, a line a row: in a notebook a quarter of the size of the usual display.

    As wide as it needs to be: a narrow page scrolls, and notes stay in few lines.
    """
    with pd.option_context("display.max_colwidth", None):
        html = table.to_html(float_format="{:.3f}".format, na_rep="", border=0)
    html = html.replace("<table", '<table style="table-layout: auto; width: 110em"', 1)
    return re.sub(r"\s*\n\s*", "", html).replace("<tr", "\n<tr")


HEADINGS = ("What comes out", "What differs and why", "What to take away")


def reading(run: runs.Run, comes_out: str, differs: str, take_away: str) -> Markdown:
    """What to think of an exhibit, three short paragraphs, with the numbers of the record that `save` wrote.

    Numbers stand in the texts as {what: data set | setting | metric}, the three as the record has them: "value" is
    ours, "interval" its ends, "published" the paper's, "verdict" the word; "range" is the smallest and the largest of
    ours where data set, setting and metric are patterns (*); {count: reproduced} counts distinct published numbers by
    their primary reading, as `counted` does and by its names. One that this run has no cell for is "n/a": texts are
    written for laptop. ValueError for an unknown `what`.
    """
    path = config.figures_dir(run.profile) / f"{run.notebook}.json"
    texts = filled((comes_out, differs, take_away), json.loads(path.read_text(encoding="utf-8"))["cells"])
    return Markdown(said(texts, run.profile, run.seed))


def said(texts: Sequence[str], profile: str, seed: int) -> str:
    """The paragraphs of a reading as Markdown."""
    parts = [f"**{heading}.** {' '.join(text.split())}" for heading, text in zip(HEADINGS, texts, strict=True)]
    if profile == "laptop":
        return "\n\n".join([*parts, f"*Profile laptop, seed {seed}; the numbers are this run's.*"])
    warning = (
        f"**Written for `laptop`. The numbers are those of this run (profile {profile}, seed {seed}), on other data and"
    )
    return "\n\n".join([f"{warning} in other sizes: what the words say of them may not hold.**", *parts])


def filled(texts: Sequence[str], cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """The texts with the numbers that they ask the cells for, see `reading`."""
    return [re.sub(r"\{(\w+): ([^{}]*)\}", lambda found: _asked(*found.groups(), cells), text) for text in texts]


def _asked(what: str, where: str, cells: Sequence[Mapping[str, Any]]) -> str:
    if what == "count":
        numbers = counted(cells)
        if where not in numbers:
            raise ValueError(f"{{count: {where}}} is none of {', '.join(numbers)}")
        return str(numbers[where])
    if what not in ("value", "interval", "published", "verdict", "range"):
        raise ValueError(f"{{{what}: …}} is none of value, interval, published, verdict, range, count")
    parts = [part.strip() for part in where.split("|")]
    if len(parts) != 3:
        raise ValueError(f"{{{what}: {where}}} must name data set | setting | metric")
    match = fnmatch.fnmatchcase if what == "range" else operator.eq
    met = [cell for cell in cells if all(map(match, (cell["dataset"], cell["setting"], cell["metric"]), parts))]
    if what == "range":
        values = [cell["value"] for cell in met if cell["value"] is not None]
        return f"{published.short(min(values))} to {published.short(max(values))}" if values else "n/a"
    if not met:
        return "n/a"
    if what == "interval":
        return f"{published.short(met[0]['low'])} to {published.short(met[0]['high'])}"
    return met[0]["verdict"] if what == "verdict" else published.short(met[0][what])


def caption(tiers: Mapping[str, str], run: runs.Run) -> str:
    """Which data sets (name -> tier) are real, substitutes or SIMULATED, and the run. ValueError for other tiers."""
    published.check_tiers(tiers.values())
    names = {tier: ", ".join(name for name in tiers if tiers[name] == tier) for tier in _CAPTIONS}
    sentences = [text.format(names[tier]) for tier, text in _CAPTIONS.items() if names[tier]]
    return " ".join([*sentences, f"Profile {run.profile}, seed {run.seed}, notebook {run.notebook}."])


def latex_text(text: str) -> str:
    """The text as LaTeX prints it, in a BibTeX field too; on one line, as a blank line would end a caption."""
    return " ".join(text.split()).translate(_LATEX)


def latex_name(name: str) -> str:
    """The name of a file or label as LaTeX can read it: all but ASCII letters, digits and . _ + - becomes -.

    No spelling brings %, # or braces through \\includegraphics, \\input and \\label alike; _ needs none there.
    """
    return re.sub(r"[^\w.+-]", "-", name, flags=re.ASCII)


def csv_bytes(table: pd.DataFrame, index: bool) -> bytes:
    """The table as CSV in UTF-8, floats to six significant digits, without text that a spreadsheet would run.

    Text that begins with =, +, -, @, a tab or a line break and is no number gets an apostrophe in front, as is usual.
    """
    # Written twice: pandas quotes a carriage return only where lines end in one.
    text = table.to_csv(index=index, float_format="%.6g", lineterminator="\r\n")
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    rows = csv.reader(io.StringIO(text, newline=""))
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerows([_inert(cell) for cell in row] for row in rows)
    return buffer.getvalue().encode()


def _inert(cell):
    cell = cell.replace("\r", "\n")
    if cell.startswith(("=", "+", "-", "@", "\t", "\n")):
        try:
            float(cell)
        except ValueError:
            return f"'{cell}"
    return cell


def save(
    run: runs.Run,
    exhibit: str,
    tiers: Mapping[str, str],
    cells: Sequence[Mapping[str, Any]],
    figures: Mapping[str, Figure],
    tables: Mapping[str, pd.DataFrame],
    data: Mapping[str, str],
) -> dict[str, Path]:
    """Write an exhibit's figures (PDF, PNG, SVG), tables (CSV, LaTeX) and record (JSON); file name -> path.

    `tiers` and the caption that they make go into every figure's metadata and LaTeX table; a PDF also says its
    exhibit's id, version and commit. Files go to `config.figures_dir(run.profile)`, named after the notebook:
    `<stem>.pdf` for suffix "", `<stem>_<suffix>.pdf` otherwise. The record has keys exhibit, notebook, profile, seed,
    cells (keys `published.CELL`) and run (`runs.provenance` with `data`, name -> digest); two runs with one seed differ
    in `run` alone. It is written last, so it never speaks of files that are not there. A table's index is left out when
    it is a plain count. ValueError for a bad suffix or a cell with other keys.
    """
    for cell in cells:
        if set(cell) != set(published.CELL):
            raise ValueError(f"a cell has the keys {', '.join(cell)}; it must have {', '.join(published.CELL)}")
    files, text = {}, f"{exhibit}. {caption(tiers, run)}"
    for suffix, figure in figures.items():
        files |= {f"{_stem(run, suffix)}.{kind}": _drawn(figure, kind, exhibit, text, run) for kind in _METADATA}
    for suffix, table in tables.items():
        stem, index = _stem(run, suffix), not isinstance(table.index, pd.RangeIndex)
        shown = {"escape": True, "na_rep": "--", "float_format": "%.3f", "multirow": False}  # booktabs alone suffices
        named = {"caption": latex_text(text), "label": f"tab:{latex_name(stem)}"}
        files[f"{stem}.csv"] = csv_bytes(table, index)
        files[f"{stem}.tex"] = table.to_latex(index=index, **shown, **named).encode()
    identity = {"exhibit": exhibit, "notebook": run.notebook, "profile": run.profile, "seed": run.seed}
    record = identity | {"cells": list(cells), "run": runs.provenance(run, dict(data))}
    content = json.dumps(_plain(record), indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    files[f"{run.notebook}.json"] = f"{content}\n".encode()
    folder = config.figures_dir(run.profile)
    for name, content in files.items():
        work.write_atomic(folder / name, content)
    return {name: folder / name for name in files}


def _stem(run, suffix):
    if not re.fullmatch(r"[a-z0-9_-]*", suffix):
        raise ValueError(f"bad suffix {suffix!r}; use lower-case letters, digits, - and _")
    return f"{run.notebook}_{suffix}" if suffix else run.notebook


def _drawn(figure, kind, title, text, run):
    unsaid, described = _METADATA[kind]
    metadata = {unsaid: None, "Title": title, described: text}
    if kind == "pdf":
        version = f"mialib {__version__}"
        named = f"exhibit {config.exhibit_id(run.notebook)}, {version}, commit {run.commit}"
        metadata |= {"Keywords": named, "Creator": version}
    buffer = io.BytesIO()
    with mpl.rc_context():  # what a notebook, or the user's settings for one, may have changed since `style`
        _look()
        mpl.rcParams.update({"pdf.fonttype": 42, "svg.hashsalt": "mialib"})
        figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
    return buffer.getvalue()


def _plain(value):
    """Strict JSON: floats to six significant digits, nan and infinities to null, NumPy scalars to Python's."""
    text = json.dumps(value, default=lambda each: dict(each) if isinstance(each, Mapping) else each.item())
    return json.loads(text, parse_float=lambda digits: float(f"{float(digits):.6g}"), parse_constant=lambda _: None)
