"""How a result leaves a notebook: figures, tables and one JSON record, the same bytes for the same seed.

Real data, substitutes and simulated data are told apart in every plot and caption.
"""

import csv
import fnmatch
import io
import json
import math
import operator
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import Markdown
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Patch

from mialib import __version__, config, published, runs, work

# Kinds of mark, from the top of a row down: own shape, colour and height, so that none hides another, even in grey.
_BLUE, _, _GREEN, _RED = sns.color_palette("colorblind")[:4]
_OPEN = {"markerfacecolor": "white", "markeredgewidth": 1.4, "linestyle": "none"}
MARKS = {
    "published": ("published", {"marker": "D", "markersize": 6, "color": _RED, **_OPEN}),
    "rerun": ("published re-run", {"marker": "s", "markersize": 6, "color": _GREEN, **_OPEN}),
    "value": ("ours, 95 % interval", {"marker": "o", "markersize": 6, "color": _BLUE}),
    "gap": ("gap attack, ours", {"marker": "x", "markersize": 6, "color": "black", **_OPEN}),
}
_SIMULATED = {"facecolor": "0.95", "edgecolor": "0.80", "hatch": "///", "linewidth": 0}
_CHANCE = {"color": "0.3", "linestyle": "--", "linewidth": 1.2}
_TIER_TEXT = {"R": "R", "S": "S, substitute", "M": "M, simulated"}
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
_DESCRIPTION = {"pdf": "Subject", "png": "Description", "svg": "Description"}
_METADATA = {"pdf": {"CreationDate": None}, "png": {"Software": None}, "svg": {"Date": None}}


def style() -> None:
    """Set the look of every figure (colour-blind-safe, legible in print) and show tables with three decimals.

    Nothing is left of the user's own matplotlibrc or style but the backend: a figure has the same bytes for everyone.
    """
    _look()
    # One line a row: a wrapped table repeats its index, and weighs several times as much in the notebook.
    pd.set_option("display.precision", 3, "display.max_rows", 500, "display.width", 1000, "display.max_colwidth", 200)


def _look():
    mpl.rcdefaults()
    sns.set_theme(context="notebook", style="ticks", palette="colorblind", font="DejaVu Sans")
    mpl.rcParams.update(
        {
            "font.size": 10,
            "axes.titlesize": 11,
            "axes.labelsize": 10,
            "xtick.labelsize": 10,
            "ytick.labelsize": 10,
            "legend.fontsize": 10,
            "hatch.linewidth": 0.6,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )


def dots(
    table: pd.DataFrame, xlabel: str, labels: Mapping[str, str] | None = None, chance: float | None = 0.5
) -> Figure:
    """Dot-and-interval plot: a row a category, our value and interval beside what it is held against.

    `table` has columns label (the row), tier (R, S or M), value, low, high, and any of published, rerun, gap; nan draws
    nothing. With a column panel there is one panel a distinct value, sharing rows and x axis. Order is that of first
    appearance. `labels` replaces legend texts (keys of MARKS, or chance); the legend says what a star in a label means.
    `chance` is where ZeroR's dashed line stands. Simulated rows are hatched and say so. ValueError for missing columns,
    an empty table, an unknown tier or legend key, a row met twice, or tiers that vary within both a row and a panel.
    """
    table, labels = _dots_table(table), dict(labels or {})
    if not labels.keys() <= {*MARKS, "chance"}:
        raise ValueError(f"labels are for {', '.join((*MARKS, 'chance'))}: got {', '.join(labels)}")
    rows, panels = list(dict.fromkeys(table["label"])), list(dict.fromkeys(table["panel"]))
    by_panel = panels != [""] and _one_tier(table, "panel")
    if not by_panel and not _one_tier(table, "label"):
        raise ValueError("a tier must belong to a row or to a panel: split the table")
    heights = _marks(table)
    width = config.ONE_COLUMN if len(panels) == 1 else min(2 + 2.6 * len(panels), config.TWO_COLUMNS)
    size = (width, 1.6 + (0.3 + 0.06 * len(heights)) * len(rows))
    figure, axes = plt.subplots(
        1, len(panels), figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for ax, panel in zip(axes[0], panels, strict=True):
        here = table[table["panel"] == panel]
        _panel(ax, here.assign(y=[rows.index(label) for label in here["label"]]), len(rows), chance, heights)
        ax.set_xlabel(textwrap.fill(xlabel, 26))  # beside row labels and other panels there is no room for more
        ax.set_title(f"{panel}\n[{_TIER_TEXT[here['tier'].iloc[0]]}]" if by_panel else panel)
    tiers = dict(zip(table["label"], table["tier"], strict=True))
    names = rows if by_panel else [f"{label}  [{_TIER_TEXT[tiers[label]]}]" for label in rows]
    axes[0, 0].set_yticks(range(len(rows)), names)
    axes[0, 0].set_ylim(len(rows) - 0.5, -0.5)
    _legend(figure, table, heights, labels, chance)
    return figure


def pipeline() -> Figure:
    """The shadow-model attack in one picture (after Shokri et al. 2017, Figs 1-3)."""
    figure, ax = plt.subplots(figsize=(8.6, 3.9), layout="constrained")
    ax.set(xlim=(0, 100), ylim=(0, 48))
    ax.axis("off")
    attacker, owner, neutral = ({"facecolor": color, "edgecolor": "0.2"} for color in ("#dcebf7", "#fbe3d0", "white"))
    _box(ax, 0, 27, 19, 17, "records the\nattacker has,\nsplit k times:\n“in” and “out”", attacker)
    _box(ax, 28, 27, 19, 17, "k shadow models,\neach trained\non its “in” records", attacker)
    _box(ax, 56, 27, 19, 17, "prediction vectors\nof “in” and “out”\nrecords, by class", attacker)
    _box(ax, 82, 27, 18, 17, "attack model,\none a class:\nin or out?", attacker)
    _box(ax, 0, 3, 19, 15, "the record\nin question,\nclass y", neutral)
    _box(ax, 28, 3, 19, 15, "target model,\ntrained on\nprivate records", owner)
    _box(ax, 56, 3, 19, 15, "its prediction\nvector", neutral)
    _box(ax, 82, 3, 18, 15, "member or\nnon-member", neutral)
    for start, stop, text in ((19, 28, "train"), (47, 56, "ask"), (75, 82, "train")):
        _arrow(ax, (start, 35.5), (stop, 35.5), text)
    for start, stop, text in ((19, 28, "ask"), (47, 56, "")):
        _arrow(ax, (start, 10.5), (stop, 10.5), text)
    _arrow(ax, (75, 15), (84, 27), "")
    _arrow(ax, (91, 27), (91, 18), "")
    ax.text(0, 46, "attacker, beforehand", fontsize=10, style="italic")
    ax.text(0, 20, "attack", fontsize=10, style="italic")
    return figure


def records(profile: str) -> list[dict[str, Any]]:
    """The records notebooks wrote in `profile`, in notebook order; those committed in figures/ where none are there."""
    for folder in (config.figures_dir(profile), config.ROOT / "figures"):
        found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
        if found := [record for record in found if record["profile"] == profile and record["cells"]]:
            return found
    return []


def scores(profile: str) -> pd.DataFrame:
    """How many published numbers each exhibit of `profile` has under each verdict."""
    table = pd.DataFrame(
        [{"exhibit": record["exhibit"]} | published.counts(_printed(record)) for record in records(profile)],
        columns=["exhibit", *published.VERDICTS],
    )
    return table.set_index("exhibit")


def scorecard(profile: str) -> pd.DataFrame:
    """Every published number of `profile`'s records beside ours: one row a cell, with exhibit and note."""
    tables = [
        published.scorecard(cells).assign(exhibit=record["exhibit"], note=[cell["note"] for cell in cells])
        for record in records(profile)
        if (cells := _printed(record))
    ]
    return pd.concat(tables).set_index(["exhibit", "dataset", "setting", "metric"]) if tables else pd.DataFrame()


def compact(table: pd.DataFrame) -> str:
    """A long table as HTML, all rows, a line a row: in a notebook a quarter of the size of the usual display.

    As wide as it needs to be: a narrow page scrolls, and notes stay in few lines.
    """
    with pd.option_context("display.max_colwidth", None):
        html = table.to_html(float_format="{:.3f}".format, na_rep="", border=0)
    html = html.replace("<table", '<table style="table-layout: auto; width: 110em"', 1)
    return re.sub(r"\s*\n\s*", "", html).replace("<tr", "\n<tr")


def _printed(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The cells of a record that a paper prints a number for; the others are in the record and its notebook."""
    return [cell for cell in record["cells"] if cell["published"] is not None]


HEADINGS = ("What comes out", "What differs and why", "What to take away")


def reading(run: runs.Run, comes_out: str, differs: str, take_away: str) -> Markdown:
    """What to think of an exhibit, three short paragraphs, with the numbers of the record that `save` wrote.

    Numbers stand in the texts as {what: data set | setting | metric}, the three as the record has them: "value" is
    ours, "interval" its ends, "published" the paper's, "verdict" the word; "range" is the smallest and the largest of
    ours where data set, setting and metric are patterns (*); {count: reproduced} counts published numbers. One that
    this run has no cell for is "n/a": texts are written for laptop. ValueError for an unknown `what`.
    """
    path = config.figures_dir(run.profile) / f"{run.notebook}.json"
    texts = filled((comes_out, differs, take_away), json.loads(path.read_text(encoding="utf-8"))["cells"])
    about = f"Profile {run.profile}, seed {run.seed}; the numbers are this run's."
    return Markdown(said(texts, about if run.profile == "laptop" else f"{about} The words were written for `laptop`."))


def said(texts: Sequence[str], about: str) -> str:
    """The paragraphs of a reading as Markdown."""
    parts = [f"**{heading}.** {' '.join(text.split())}" for heading, text in zip(HEADINGS, texts, strict=True)]
    return "\n\n".join([*parts, f"*{about}*"])


def filled(texts: Sequence[str], cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """The texts with the numbers that they ask the cells for, see `reading`."""
    return [re.sub(r"\{(\w+): ([^{}]*)\}", lambda found: _asked(*found.groups(), cells), text) for text in texts]


def _asked(what: str, where: str, cells: Sequence[Mapping[str, Any]]) -> str:
    if what == "count":
        return str(sum(cell["verdict"] == where and cell["published"] is not None for cell in cells))
    if what not in ("value", "interval", "published", "verdict", "range"):
        raise ValueError(f"{{{what}: …}} is none of value, interval, published, verdict, range, count")
    parts = [part.strip() for part in where.split("|")]
    if len(parts) != 3:
        raise ValueError(f"{{{what}: {where}}} must name data set | setting | metric")
    keys = [[cell[key] for key in ("dataset", "setting", "metric")] for cell in cells]
    match = fnmatch.fnmatchcase if what == "range" else operator.eq
    met = [cell for cell, key in zip(cells, keys, strict=True) if all(map(match, key, parts))]
    if what == "range":
        values = [cell["value"] for cell in met if cell["value"] is not None]
        return f"{_short(min(values))} to {_short(max(values))}" if values else "n/a"
    if not met:
        return "n/a"
    if what == "interval":
        return " to ".join(_short(met[0][end]) for end in ("low", "high"))
    return met[0]["verdict"] if what == "verdict" else _short(met[0][what])


def _short(value: float | None) -> str:
    """.123 for shares, 51.2 for distances."""
    if value is None:
        return "n/a"
    return re.sub(r"^(-?)0\.", r"\1.", f"{value:.3f}") if abs(value) < 10 else f"{value:.1f}"


def caption(tiers: Mapping[str, str], run: runs.Run) -> str:
    """Plain words for under a figure: which data sets (name -> tier) are real, substitutes or SIMULATED, and the run.

    ValueError for an unknown tier.
    """
    _check_tiers(tiers.values())
    sentences = []
    for tier, text in _CAPTIONS.items():
        names = [name for name in tiers if tiers[name] == tier]
        if names:
            sentences.append(text.format(", ".join(names)))
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
    if not cell.startswith(("=", "+", "-", "@", "\t", "\n")):
        return cell
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

    `tiers` (data set -> tier) go into the caption of every figure's metadata and LaTeX table, see `caption`. A PDF
    also says its exhibit's id, version and commit. Files go to `config.figures_dir(run.profile)`, named after the
    notebook: `<stem>.pdf` for suffix "", `<stem>_<suffix>.pdf` otherwise. The record has keys exhibit, notebook,
    profile, seed, cells (keys `published.CELL`) and run (`runs.provenance` with `data`, name -> digest); two runs with
    one seed differ in `run` alone. It is written last, so it never speaks of files that are not there. A table's index
    is left out when it is a plain count. ValueError for a bad suffix or a cell with other keys.
    """
    for cell in cells:
        if set(cell) != set(published.CELL):
            raise ValueError(f"a cell has the keys {', '.join(cell)}; it must have {', '.join(published.CELL)}")
    files, text = {}, f"{exhibit}. {caption(tiers, run)}"
    for suffix, figure in figures.items():
        files |= {f"{_stem(run, suffix)}.{kind}": _drawn(figure, kind, exhibit, text, run) for kind in _METADATA}
    for suffix, table in tables.items():
        stem = _stem(run, suffix)
        files |= {f"{stem}.csv": csv_bytes(table, _indexed(table)), f"{stem}.tex": _latex(table, text, stem)}
    identity = {"exhibit": exhibit, "notebook": run.notebook, "profile": run.profile, "seed": run.seed}
    record = identity | {"cells": list(cells), "run": runs.provenance(run, dict(data))}
    content = json.dumps(_plain(record), indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    files[f"{run.notebook}.json"] = f"{content}\n".encode()
    folder = config.figures_dir(run.profile)
    for name, content in files.items():
        work.write_atomic(folder / name, content)
    return {name: folder / name for name in files}


def _box(ax, x, y, width, height, text, look):
    ax.add_patch(FancyBboxPatch((x + 0.8, y), width - 1.6, height, boxstyle="round,pad=0.6", **look))
    ax.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=9.5)


def _arrow(ax, start, stop, text):
    ax.annotate("", stop, start, arrowprops={"arrowstyle": "-|>", "color": "0.2", "linewidth": 1.3})
    ax.text((start[0] + stop[0]) / 2, start[1] + 1.2, text, ha="center", fontsize=9)


def _dots_table(table):
    missing = [column for column in ("label", "tier", "value", "low", "high") if column not in table]
    if missing:
        raise ValueError(f"dots needs the columns {', '.join(missing)}")
    if table.empty:
        raise ValueError("dots needs at least one row")
    _check_tiers(table["tier"])
    table = table if "panel" in table else table.assign(panel="")
    twice = table.duplicated(["panel", "label"])
    if twice.any():
        raise ValueError(f"row {table['label'][twice].iloc[0]!r} appears twice; give each row its own label")
    return table


def _check_tiers(tiers):
    for tier in tiers:
        if tier not in published.TIERS:
            raise ValueError(f"unknown tier {tier!r}; valid tiers: {', '.join(published.TIERS)}")


def _one_tier(table, column):
    return (table.groupby(column)["tier"].nunique() == 1).all()


def _marks(table):
    """The columns of MARKS that hold anything, each with its height in the row."""
    drawn = [mark for mark in MARKS if mark in table and table[mark].notna().any()]
    return {mark: 0.9 * ((i + 0.5) / len(drawn) - 0.5) for i, mark in enumerate(drawn)}


def _panel(ax, table, rows, chance, heights):
    simulated = table.loc[table["tier"] == "M", "y"]
    for y in range(rows) if len(simulated) == len(table) else simulated:
        ax.axhspan(y - 0.5, y + 0.5, zorder=0, **_SIMULATED)
    for y in range(rows - 1):
        ax.axhline(y + 0.5, color="0.85", linewidth=0.6, zorder=1)
    if chance is not None:
        ax.axvline(chance, zorder=2, **_CHANCE)
    for mark, height in heights.items():
        y = table["y"] + height
        if mark == "value":
            ax.hlines(y, table["low"].astype(float), table["high"].astype(float), color=_BLUE, linewidth=2, zorder=3)
        ax.plot(table[mark].astype(float), y, **({"linestyle": "none"} | MARKS[mark][1]), zorder=4)
    ax.tick_params(axis="y", length=0)


def _legend(figure, table, heights, labels, chance):
    handles = []
    for mark in heights:
        text, look = MARKS[mark]
        line = {"linewidth": 2} if mark == "value" else {}
        handles.append(Line2D([], [], label=labels.get(mark, text), **(look | line)))
    if chance is not None:
        handles.append(Line2D([], [], label=labels.get("chance", f"ZeroR ({chance:g})"), **_CHANCE))
    if (table["tier"] == "M").any():
        handles.append(Patch(label="simulated data", **_SIMULATED))
    if table["label"].str.contains("*", regex=False).any():
        star = {"linestyle": "none", "marker": "$*$", "color": "0.15"}
        handles.append(Line2D([], [], label="cut-down target, no verdict", **star))
    # Columns by the longest text (inches, at 10 points), then as few as give the same number of rows.
    widest = 0.75 + 0.08 * max(len(handle.get_label()) for handle in handles)
    lines = math.ceil(len(handles) / max(1, int(figure.get_figwidth() / widest)))
    figure.legend(handles=handles, loc="outside lower center", ncols=math.ceil(len(handles) / lines), frameon=False)


def _stem(run, suffix):
    if not re.fullmatch(r"[a-z0-9_-]*", suffix):
        raise ValueError(f"bad suffix {suffix!r}; use lower-case letters, digits, - and _")
    return f"{run.notebook}_{suffix}" if suffix else run.notebook


def _drawn(figure, kind, title, text, run):
    buffer = io.BytesIO()
    metadata = _METADATA[kind] | {"Title": title, _DESCRIPTION[kind]: text}
    if kind == "pdf":
        version = f"mialib {__version__}"
        named = f"exhibit {config.exhibit_id(run.notebook)}, {version}, commit {run.commit}"
        metadata |= {"Keywords": named, "Creator": version}
    with mpl.rc_context():  # what a notebook, or the user's settings for one, may have changed since `style`
        _look()
        mpl.rcParams.update({"pdf.fonttype": 42, "svg.hashsalt": "mialib"})
        figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
    return buffer.getvalue()


def _indexed(table):
    return not isinstance(table.index, pd.RangeIndex)


def _latex(table, text, stem):
    return table.to_latex(
        index=_indexed(table),
        escape=True,
        na_rep="--",
        float_format="%.3f",
        multirow=False,  # booktabs alone suffices
        caption=latex_text(text),
        label=f"tab:{latex_name(stem)}",
    ).encode()


def _plain(value):
    """Strict JSON: floats to six significant digits, nan and infinities to null, NumPy scalars to Python's."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
