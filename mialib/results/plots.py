"""Figures: tables in, one figure out, what is published beside ours.

Made for the figures of the papers that are here, and for any like them: each says which it follows.

Ours and published always share their axes. A column tier (R real, S substitute, M simulated) names the data of a
panel or a row: it stands beside the name, and what is simulated is hatched. Series differ by marker as well as by
colour, so that a grey print can be read. A row whose value is nan (the precision of a class in which nobody was
called a member) is left out, and the panel's title says how many were. Every function raises ValueError for
missing columns, an empty table, an unknown tier, a panel with two tiers, or more series than there are styles.
"""

import itertools
import math
import textwrap
from collections.abc import Iterable, Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cbook import boxplot_stats
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Patch
from matplotlib.ticker import MaxNLocator, NullLocator

from mialib import config, metrics
from mialib.results.published import check_tiers

_SIMULATED = {"facecolor": "0.95", "edgecolor": "0.80", "hatch": "///", "linewidth": 0}
_TIER_TEXT = {"R": "R", "S": "S, substitute", "M": "M, simulated"}
# Nothing is told apart by colour alone: every series has its own marker too.
_PALETTE = sns.color_palette("colorblind")
_COLORS = [_PALETTE[0], _PALETTE[3], _PALETTE[2], _PALETTE[4], "black", _PALETTE[1], _PALETTE[9], _PALETTE[7]]
_STYLES = [{"color": color, "marker": marker} for color, marker in zip(_COLORS, "os^DvPX*", strict=True)]
_BLUE, _RED, _GREEN = _COLORS[:3]
_OURS = {"linestyle": "-", "linewidth": 2, "markersize": 6}
_THEIRS = {"linestyle": (0, (4, 2)), "linewidth": 1.2, "markersize": 6, "markerfacecolor": "white"}
_MINE, _PRINTED = {"color": _BLUE, "marker": "o"} | _OURS, {"color": _RED, "marker": "D"} | _THEIRS
_SIDES = {"members": {"facecolor": _BLUE, "zorder": 2}, "non-members": {"facecolor": "#f2c78f", "zorder": 2}}
_OUTLINE = {"facecolor": "none", "linewidth": 1.4, "zorder": 3}
_OUTLINES = {
    "members": _OUTLINE | {"edgecolor": "black"},
    "non-members": _OUTLINE | {"edgecolor": _RED, "linestyle": (0, (2, 1))},
}
# Kinds of mark in `dots`, from the top of a row down: own shape, colour and height, so that none hides another.
_OPEN = {"markersize": 6, "markerfacecolor": "white", "markeredgewidth": 1.4, "linestyle": "none"}
MARKS = {
    "published": ("published", {"marker": "D", "color": _RED} | _OPEN),
    "rerun": ("published re-run", {"marker": "s", "color": _GREEN} | _OPEN),
    "value": ("ours, 95 % interval", {"marker": "o", "markersize": 6, "color": _BLUE, "linewidth": 2}),
    "gap": ("gap attack, ours", {"marker": "x", "color": "black"} | _OPEN),
}
_CHANCE = {"color": "0.3", "linestyle": "--", "linewidth": 1.2}
_STAR = {"linestyle": "none", "marker": "$*$", "color": "0.15"}
# Fig 11: its panels, and which columns of ours they show.
SCATTERS = {"left": ("share", "precision"), "middle": ("gap", "precision"), "right": ("share", "gap")}
_CLASS_COUNTS = (10, 20, 30, 50, 100)
_AXES = {"share": "share of the training set", "gap": "train minus test accuracy", "precision": "attack precision"}
_DROP = {"color": "0.7", "linewidth": 0.8, "zorder": 0}
# What Rezaei & Liu's Figs 3 to 8 draw: metric -> legend, look.
_TRAINING = {
    "balanced_accuracy": ("attack, balanced accuracy, with its interval", {"color": _BLUE, "linewidth": 2}),
    "fpr": ("attack, FAR (FPR)", {"color": _RED, "linewidth": 1.6, "linestyle": (0, (5, 1, 1, 1))}),
    "train_acc": ("target, train accuracy", {"color": "0.35", "linewidth": 1.2}),
    "test_acc": ("target, test accuracy", {"color": "0.35", "linewidth": 1.2, "linestyle": (0, (4, 2))}),
}


def dots(
    table: pd.DataFrame, xlabel: str, labels: Mapping[str, str] | None = None, chance: float | None = 0.5
) -> Figure:
    """Dot-and-interval plot: a row a category, our value and interval beside what it is held against.

    `table` has columns label (the row), tier (R, S or M), value, low, high, and any of published, std (the spread that
    the paper prints, drawn thin to both sides), rerun, gap; nan draws nothing. With a column panel there is one panel a
    distinct value, sharing rows and x axis. Order is that of first appearance. `labels` replaces legend texts (keys of
    MARKS, or chance). `chance` is where ZeroR's dashed line stands. ValueError also for an unknown legend key, a row
    met twice, or tiers that vary within both a row and a panel.
    """
    labels = dict(labels or {})
    _check("dots", table, "label", "tier", "value", "low", "high")
    if not labels.keys() <= {*MARKS, "chance"}:
        raise ValueError(f"labels are for {', '.join((*MARKS, 'chance'))}: got {', '.join(labels)}")
    table = table if "panel" in table else table.assign(panel="")
    if (twice := table.duplicated(["panel", "label"])).any():
        raise ValueError(f"row {table['label'][twice].iloc[0]!r} appears twice; give each row its own label")
    rows, panels = list(table["label"].unique()), list(table["panel"].unique())
    one_tier = {key: (table.groupby(key)["tier"].nunique() == 1).all() for key in ("panel", "label")}
    by_panel = panels != [""] and one_tier["panel"]
    if not by_panel and not one_tier["label"]:
        raise ValueError("a tier must belong to a row or to a panel: split the table")
    marks = [mark for mark in MARKS if mark in table and table[mark].notna().any()]
    width = config.ONE_COLUMN if len(panels) == 1 else min(2 + 2.6 * len(panels), config.TWO_COLUMNS)
    size = (width, 1.6 + (0.3 + 0.06 * len(marks)) * len(rows))
    figure, [axes] = _subplots(1, len(panels), size, sharex=True, sharey=True)
    for ax, panel in zip(axes, panels, strict=True):
        here = table[table["panel"] == panel]
        _rows(ax, here, here["label"].map(rows.index), len(rows), marks, chance)
        ax.set_xlabel(textwrap.fill(xlabel, 26))  # beside row labels and other panels there is no room for more
        ax.set_title(f"{panel}\n[{_TIER_TEXT[here['tier'].iloc[0]]}]" if by_panel else panel)
    tiers = dict(zip(table["label"], table["tier"], strict=True))
    axes[0].set_yticks(range(len(rows)), rows if by_panel else [f"{row}  [{_TIER_TEXT[tiers[row]]}]" for row in rows])
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    looks = [(labels.get(mark, MARKS[mark][0]), MARKS[mark][1]) for mark in marks]
    if "std" in table and table["std"].notna().any():
        looks.append(("published SD", {"color": _RED, "linewidth": 0.8}))
    if chance is not None:
        looks.append((labels.get("chance", f"ZeroR ({chance:g})"), _CHANCE))
    return _with_legend(figure, looks, table)


def _rows(ax, table, y, rows, marks, chance):
    simulated = y[table["tier"] == "M"]
    for row in range(rows) if len(simulated) == len(table) else simulated:
        ax.axhspan(row - 0.5, row + 0.5, zorder=0, **_SIMULATED)
    for row in range(rows - 1):
        ax.axhline(row + 0.5, color="0.85", linewidth=0.6, zorder=1)
    if chance is not None:
        ax.axvline(chance, zorder=2, **_CHANCE)
    for i, mark in enumerate(marks):
        height = y + 0.9 * ((i + 0.5) / len(marks) - 0.5)
        if mark == "value":
            low, high = table["low"].astype(float), table["high"].astype(float)
            ax.hlines(height, low, high, color=_BLUE, linewidth=2, zorder=3)
        if mark == "published" and "std" in table:
            printed, std = table["published"].astype(float), table["std"].astype(float)
            ax.hlines(height, printed - std, printed + std, color=_RED, linewidth=0.8, zorder=3)
        ax.plot(table[mark].astype(float), height, zorder=4, **MARKS[mark][1] | {"linestyle": "none"})
    ax.tick_params(axis="y", length=0)


def pipeline() -> Figure:
    """The shadow-model attack in one picture (after Shokri et al. 2017, Figs 1-3)."""
    attacker, owner, neutral = "#dcebf7", "#fbe3d0", "white"
    boxes = [
        (0, 27, 19, 17, attacker, "records the\nattacker has,\nsplit k times:\n“in” and “out”"),
        (28, 27, 19, 17, attacker, "k shadow models,\neach trained\non its “in” records"),
        (56, 27, 19, 17, attacker, "prediction vectors\nof “in” and “out”\nrecords, by class"),
        (82, 27, 18, 17, attacker, "attack model,\none a class:\nin or out?"),
        (0, 3, 19, 15, neutral, "the record\nin question,\nclass y"),
        (28, 3, 19, 15, owner, "target model,\ntrained on\nprivate records"),
        (56, 3, 19, 15, neutral, "its prediction\nvector"),
        (82, 3, 18, 15, neutral, "member or\nnon-member"),
    ]
    arrows = [(19, 35.5, 28, 35.5, "train"), (47, 35.5, 56, 35.5, "ask"), (75, 35.5, 82, 35.5, "train")]
    arrows += [(19, 10.5, 28, 10.5, "ask"), (47, 10.5, 56, 10.5, ""), (75, 15, 84, 27, ""), (91, 27, 91, 18, "")]
    figure, ax = plt.subplots(figsize=(8.6, 3.9), layout="constrained")
    ax.set(xlim=(0, 100), ylim=(0, 48))
    ax.axis("off")
    for x, y, width, height, color, text in boxes:
        look = {"boxstyle": "round,pad=0.6", "facecolor": color, "edgecolor": "0.2"}
        ax.add_patch(FancyBboxPatch((x + 0.8, y), width - 1.6, height, **look))
        ax.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=9.5)
    for x, y, to_x, to_y, text in arrows:
        ax.annotate("", (to_x, to_y), (x, y), arrowprops={"arrowstyle": "-|>", "color": "0.2", "linewidth": 1.3})
        ax.text((x + to_x) / 2, y + 1.2, text, ha="center", fontsize=9)
    ax.text(0, 46, "attacker, beforehand", fontsize=10, style="italic")
    ax.text(0, 20, "attack", fontsize=10, style="italic")
    return figure


def cdf(table: pd.DataFrame, xlabel: str, published: pd.DataFrame | None = None) -> Figure:
    """Share of classes at or below x (Figs 5 to 9): a step curve a label, published curves thin and dashed.

    `table`: panel, label, tier, x, a row a class. `published`, the published curves: panel, label, x, fraction; a
    label has one colour and marker in both, and may be in one of them only.
    """
    _check("cdf", table, "panel", "label", "tier", "x")
    published = _known("cdf", published, ("panel", "label", "x", "fraction"), panel=table["panel"])
    styles = _styles([*table["label"], *published["label"]])
    figure, panels = _panels(table, "x", 4.3, 3.9, "cumulative share of classes", sharex=True, sharey=True)
    for panel, ax, here in panels:
        theirs = published[published["panel"] == panel]
        for i, (label, look) in enumerate(styles.items()):
            marks = look | {"markevery": (0.03 + 0.15 * i / len(styles), 0.15)}
            if len(values := here.loc[here["label"] == label, "x"]):
                ax.ecdf(values, zorder=3, **_OURS | marks)
            if len(curve := theirs[theirs["label"] == label]):
                ax.plot(curve["x"], curve["fraction"], drawstyle="steps-post", zorder=4, **_THEIRS | marks)
        ax.set(xlabel=xlabel, ylim=(0, 1.02))
        ax.grid(color="0.88", linewidth=0.6)
    kinds = [("ours", _OURS | {"color": "0.3"}), ("published", _THEIRS | {"color": "0.3"})] if len(published) else []
    return _with_legend(figure, [(label, _OURS | look) for label, look in styles.items()] + kinds, table)


def by_class_lines(table: pd.DataFrame, published: pd.DataFrame) -> Figure:
    """Attack precision by class (Fig 4 left), a series a training-set size; ours left, published right.

    `table`: size, tier, class, precision; `published`: size, class, precision. Classes as they shall be printed.
    """
    _check("by_class_lines", table, "size", "tier", "class", "precision")
    published = _known("by_class_lines", published, ("size", "class", "precision"))
    styles = _styles(sorted({*table["size"], *published["size"]}))
    figure, [axes] = _subplots(1, 2, (8.6, 4.2), sharex=True, sharey=True)
    ours = _frame(axes[0], "ours", table, "precision")
    axes[1].set_title("published")
    for ax, rows, look in zip(axes, (ours, published), (_OURS, _THEIRS), strict=True):
        for size, style in styles.items():
            line = rows[rows["size"] == size].sort_values("class")
            ax.plot(line["class"], line["precision"], **look | {"linewidth": 1.2} | style)
        ax.set(xlabel="class", xticks=sorted({*table["class"], *published["class"]}))
        ax.grid(axis="y", color="0.88", linewidth=0.6)
    axes[0].set_ylabel("attack precision")
    return _with_legend(figure, [(f"{size:,} records", _OURS | style) for size, style in styles.items()], table)


def sizes(table: pd.DataFrame, published: pd.DataFrame) -> Figure:
    """Attack precision of every class by training-set size (Fig 4 middle and right), medians joined.

    `table`: panel (the data set), tier, size, precision, a row a class; `published`: panel, size, precision.
    Sizes stand in order at equal distances, ours left of the published; points are spread sideways to be seen.
    """
    _check("sizes", table, "panel", "tier", "size", "precision")
    published = _known("sizes", published, ("panel", "size", "precision"), panel=table["panel"])
    figure, panels = _panels(table, "precision", 4.3, 4.0, "attack precision, a point a class", sharey=True)
    for panel, ax, here in panels:
        theirs = published[published["panel"] == panel]
        ticks = {size: i for i, size in enumerate(sorted({*here["size"], *theirs["size"]}))}
        for rows, look, side in ((here, _MINE, -0.2), (theirs, _PRINTED, 0.2)):
            middle = rows.groupby("size")["precision"].median()
            for size, values in rows.groupby("size")["precision"]:
                # Multiples of the golden ratio set neighbours far apart, the same way each time, unlike noise.
                x = ticks[size] + side + 0.13 * (2 * (np.arange(1, len(values) + 1) * 0.6180339887 % 1) - 1)
                ax.plot(x, values.sort_values(), look["marker"], color=look["color"], markersize=3, alpha=0.45)
            ax.plot(middle.index.map(ticks) + side, middle, zorder=4, **look | {"markersize": 8})
        ax.set_xticks(range(len(ticks)), [f"{size:,}" for size in ticks])
        ax.set(xlabel="training-set size (records)", xlim=(-0.5, len(ticks) - 0.5))
        ax.grid(axis="y", color="0.88", linewidth=0.6)
    return _with_legend(figure, [("ours, median", _MINE), ("published, median", _PRINTED)], table)


def settling(table: pd.DataFrame) -> Figure:
    """How the median class precision settles as shadow models are added: a line a training-set size.

    `table`: panel (the data set), tier, size, shadows, value, low, high (nan ends: no interval is drawn). Lines are
    set apart sideways by a few per cent, so that the intervals do not hide each other.
    """
    _check("settling", table, "panel", "tier", "size", "shadows", "value", "low", "high")
    figure, panels = _panels(table, "value", 4.5, 4.6, "median class precision, 95 % interval", sharey=True)
    for _, ax, here in panels:
        styles = _styles(sorted(here["size"]))
        for i, (size, look) in enumerate(styles.items()):
            line = here[here["size"] == size].sort_values("shadows")
            x = line["shadows"] * 1.05 ** (i - (len(styles) - 1) / 2)
            ax.vlines(x, line["low"], line["high"], color=look["color"], linewidth=1.3)
            ax.plot(x, line["value"], label=f"{size:,} records", zorder=3, **_OURS | look)
        ax.set_xscale("log")
        ax.set_xticks(ticks := sorted(here["shadows"].unique()), ticks)
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlabel("shadow models")
        ax.grid(axis="y", color="0.88", linewidth=0.6)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False)
    return figure


def boxes(table: pd.DataFrame, published: pd.DataFrame) -> Figure:
    """Class precision by number of classes (Fig 10): a box, its median, whiskers to 1.5 quartile ranges at most.

    `table`: panel (a family of data sets), tier, n_classes, precision, a row a class; what lies beyond the whiskers
    is drawn as dots, and fewer than five classes are drawn as points without a box. `published`: panel, n_classes,
    whisker_low, q1, median, q3, whisker_high; where the quartiles are nan the whiskers are drawn as two points.
    """
    _check("boxes", table, "panel", "tier", "n_classes", "precision")
    five = {"whisker_low": "whislo", "q1": "q1", "median": "med", "q3": "q3", "whisker_high": "whishi"}
    published = _known("boxes", published, ("panel", "n_classes", *five), panel=table["panel"])
    figure, panels = _panels(table, "precision", 4.0, 4.2, "attack precision over classes", sharey=True)
    for panel, ax, here in panels:
        theirs = published[published["panel"] == panel]
        counts = sorted({*here["n_classes"], *theirs["n_classes"]})
        side = 0.2 if len(theirs) else 0
        for count, values in here.groupby("n_classes")["precision"]:
            points = values if len(values) < 5 else []
            _box(ax, counts.index(count) - side, points, boxplot_stats(values)[0], _MINE)
        for row in theirs.rename(columns=five).to_dict("records"):
            points = [row["whislo"], row["whishi"]] if math.isnan(row["med"]) else []
            _box(ax, counts.index(row["n_classes"]) + side, points, row | {"fliers": []}, _PRINTED)
        ax.set_xticks(range(len(counts)), counts)
        ax.set(xlabel="number of classes", xlim=(-0.6, len(counts) - 0.4))
        ax.grid(axis="y", color="0.88", linewidth=0.6)
    looks = [("ours", _face(_MINE)), ("published", _face(_PRINTED))]
    return _with_legend(figure, looks if len(published) else looks[:1], table)


def _face(look):
    fill = look.get("markerfacecolor", (*look["color"], 0.4))
    return {"facecolor": fill, "edgecolor": look["color"], "linewidth": 1.5, "linestyle": look["linestyle"]}


def _box(ax, x, points, five, look):
    """One box from its five numbers, or the points if there are any."""
    if len(points):
        ax.plot([x] * len(points), points, **look | {"linestyle": "none"})
        return
    line = {"color": look["color"], "linewidth": 1.5}
    fliers = {"marker": look["marker"], "markersize": 3, "markeredgecolor": look["color"], "markerfacecolor": "none"}
    ax.bxp(
        [five], [x], widths=0.34, patch_artist=True, manage_ticks=False, boxprops=_face(look), flierprops=fliers,
        medianprops=line | {"linewidth": 3}, whiskerprops=line | {"linestyle": look["linestyle"]}, capprops=line,
    )  # fmt: skip


def scatters(table: pd.DataFrame, published: pd.DataFrame | None, correlations: pd.DataFrame) -> Figure:
    """The three scatter plots of Fig 11, ours above and published below on the same axes; a marker a class count.

    `table`: n_classes, tier (one for all), share (of the training set, 0..1), gap, precision, a row a class.
    `published`: panel (left, middle, right), n_classes, x, y; None draws ours alone. `correlations`: side (ours,
    published), panel, r, low, high; the row of each panel drawn is written in its title, with r within class counts.
    """
    _check("scatters", table, "n_classes", "tier", *_AXES)
    _check("scatters (correlations)", correlations, "side", "panel", "r", "low", "high")
    published = _known("scatters", published, ("panel", "n_classes", "x", "y"), panel=SCATTERS)
    found = correlations.set_index(["side", "panel"])[["r", "low", "high"]]
    rows = ["ours", "published"] if len(published) else ["ours"]
    if lacking := [key for side in rows for panel in SCATTERS if (key := (side, panel)) not in found.index]:
        raise ValueError(f"scatters: correlations has no row for {', '.join(lacking[0])}")
    # A class count looks the same in every figure.
    styles = _styles([*_CLASS_COUNTS, *sorted({*table["n_classes"], *published["n_classes"]})])
    seen = sorted({*table["n_classes"], *published["n_classes"]})
    looks = {count: styles[count] | {"linestyle": "none", "markerfacecolor": "none"} for count in seen}
    figure, axes = _subplots(len(rows), 3, (11, 1 + 3.6 * len(rows)), sharex="col", sharey="col")
    for i, (panel, (x, y)) in enumerate(SCATTERS.items()):
        ours = _frame(axes[0, i], "ours", table, x, y).rename(columns={x: "x", y: "y"})
        for ax, side, points in zip(axes[:, i], rows, (ours, published[published["panel"] == panel]), strict=False):
            for count, look in looks.items():
                here = points[points["n_classes"] == count]
                ax.plot(here["x"], here["y"], markersize=5, **look)
            title, parts = ax.get_title() or "published", points.groupby("n_classes")
            # No-break spaces, so that lines break between class counts: a panel has room for three.
            within = [f"{count}:\xa0{part['x'].corr(part['y']):.2f}" for count, part in parts if len(part) > 2]
            pooled = "r = {:.2f} ({:.2f} to {:.2f})".format(*found.loc[(side, panel)])
            lines = textwrap.wrap(f"within {', '.join(within)}", 36) if within else []
            ax.set_title("\n".join([title, pooled, *lines]))
            ax.set_ylabel(_AXES[y])
        axes[-1, i].set_xlabel(_AXES[x])
    title = "A marker is a class. r: Pearson correlation over all of them (95 % interval), and within each class count"
    return _with_legend(figure, [(f"{count} classes", look) for count, look in looks.items()], table, title=title)


def histograms(table: pd.DataFrame, published: pd.DataFrame | None) -> Figure:
    """Prediction uncertainty and accuracy, members against non-members, in ten bins (Fig 12); a column a class count.

    `table`: n_classes, tier, member (bool), uncertainty, accuracy (the probability given to the true class), a row a
    record. `published`, bars drawn as outlines over ours (or None): panel (uncertainty, accuracy), n_classes, group
    (members, non-members), bin_lo, fraction, all ten bins of each group. Titles give the overlap of members and
    non-members (`metrics.overlap`).
    """
    _check("histograms", table, "n_classes", "tier", "member", "uncertainty", "accuracy")
    columns = ("panel", "n_classes", "group", "bin_lo", "fraction")
    published = _known("histograms", published, columns, n_classes=table["n_classes"]).sort_values("bin_lo")
    counts = sorted(table["n_classes"].unique())
    figure, axes = _subplots(2, len(counts), (1 + 3.3 * len(counts), 6.6), sharey="row")
    for ax, (panel, count) in zip(axes.flat, itertools.product(("uncertainty", "accuracy"), counts), strict=True):
        here = _frame(ax, f"{count} classes", table[table["n_classes"] == count], panel)
        sides = [here.loc[here["member"] == side, panel] for side in (True, False)]
        shared = _bars(ax, [metrics.histogram(side) if len(side) else [] for side in sides], _SIDES)
        theirs = published[(published["n_classes"] == count) & (published["panel"] == panel)]
        if len(theirs):
            groups = [theirs.loc[theirs["group"] == group, "fraction"].to_numpy() for group in _OUTLINES]
            shared += f", published {_bars(ax, groups, _OUTLINES)}"
        ax.set_title(f"{ax.get_title()}\noverlap {shared}")
        ax.set(xlabel=f"prediction {panel}", xlim=(0, 1), xticks=np.arange(0, 1.1, 0.2))
    plt.setp(axes[:, 0], ylabel="share of records")
    outlines = [(f"{side}, published", look) for side, look in _OUTLINES.items()] if len(published) else []
    return _with_legend(figure, [*_SIDES.items(), *outlines], table)


def _bars(ax, sides, looks):
    """Bars of members and non-members side by side in each of ten bins; their overlap in words."""
    for i, (shares, look) in enumerate(zip(sides, looks.values(), strict=True)):
        if len(shares):
            ax.bar(np.arange(10) / 10 + 0.01 + 0.04 * i, shares, 0.04, align="edge", **look)
    return f"{np.minimum(*sides).sum():.2f}" if all(map(len, sides)) else "undefined"


def confidence_vectors(table: pd.DataFrame) -> Figure:
    """Mean confidence vectors of members and non-members (Rezaei & Liu, Fig 1), log scale.

    `table`: panel, tier, member (bool), class, confidence (the mean confidence in that class), a row a point.
    """
    _check("confidence_vectors", table, "panel", "tier", "member", "class", "confidence")
    marks = {"markersize": 6, "linestyle": "none"}
    looks = {
        "members": {"color": _BLUE, "marker": "x"} | marks,
        "non-members": {"color": _RED, "marker": "o", "markerfacecolor": "none"} | marks,
    }
    figure, panels = _panels(table, "confidence", 5.2, 4.0, "mean confidence", sharex=True, sharey=True)
    for _, ax, here in panels:
        for look, side in zip(looks.values(), (True, False), strict=True):
            points = here[here["member"] == side]
            ax.plot(points["class"], points["confidence"], **look)
        ax.set(xlabel="class number", yscale="log")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(axis="y", color="0.88", linewidth=0.6)
    return _with_legend(figure, looks.items(), table)


def confidence_histograms(table: pd.DataFrame) -> Figure:
    """The probability given to the true class, members filled, non-members outlined (Rezaei & Liu, Fig 2).

    `table`: panel, tier, member (bool), confidence, a row a record. A side without records draws nothing.
    """
    _check("confidence_histograms", table, "panel", "tier", "member", "confidence")
    looks = {
        "members": {"color": _BLUE, "alpha": 0.5, "fill": True},
        "non-members": {"color": _RED, "linewidth": 1.4, "fill": False},
    }
    figure, panels = _panels(
        table, "confidence", 3.6, 3.6, "share of records in each of 100 bins", sharex=True, sharey=True
    )
    for _, ax, here in panels:
        for look, side in zip(looks.values(), (True, False), strict=True):
            if len(values := here.loc[here["member"] == side, "confidence"]):
                ax.stairs(metrics.histogram(values, 100), np.arange(101) / 100, **look)
        ax.set(xlabel="confidence in the true class", xlim=(0, 1))
    return _with_legend(figure, looks.items(), table)


def roc(table: pd.DataFrame) -> Figure:
    """TPR against FPR on logarithmic axes (Carlini et al. 2022), a curve a label; what an attack finds at few errors.

    `table`: panel, label, tier, fpr, tpr (`tables.roc`, a row a point), non_members (how many records the panel's FPRs
    are shares of). Below one false alarm, 1 / non_members, nothing is known and nothing drawn; the title says the
    number. A step curve, as no threshold lies between two points.
    """
    _check("roc", table, "panel", "label", "tier", "fpr", "tpr", "non_members")
    styles = _styles(table["label"])
    figure, panels = _panels(table, "tpr", 4.2, 4.0, "true-positive rate (members found)")
    for panel, ax, here in panels:
        if here["non_members"].nunique() > 1:
            raise ValueError(f"panel {panel!r} has several numbers of non-members; give each its own panel")
        few, lowest = here["non_members"].iloc[0], 1 / here["non_members"].iloc[0]
        for label, look in styles.items():
            curve = here[here["label"] == label].sort_values(["fpr", "tpr"])
            curve = curve[curve["fpr"].shift(-1, fill_value=2) > lowest]
            x = curve["fpr"].clip(lower=lowest)  # what is found at no false alarm is found at one too
            ax.plot(x, curve["tpr"], drawstyle="steps-post", **_OURS | look | {"markevery": 0.15})
        ax.plot([lowest, 1], [lowest, 1], **_CHANCE)
        ax.set(xscale="log", yscale="log", xlim=(lowest, 1), ylim=(lowest, 1.1), xlabel="false-positive rate")
        ax.set_title(f"{ax.get_title()}\n{few:,} non-members")
        ax.grid(color="0.9", linewidth=0.6)
    looks = [(label, _OURS | look) for label, look in styles.items()]
    return _with_legend(figure, [*looks, ("chance", _CHANCE)], table)


def gains(table: pd.DataFrame, ylabel: str, published: pd.DataFrame) -> Figure:
    """What more reference models buy: a line an attack by how many it looks at, 0 for those that look at none.

    `table`: panel, label, tier, references, value, low, high. `published`, drawn dashed in panels of its own: panel,
    label, references, value, std (drawn as an interval). A label has one colour and marker in both.
    """
    _check("gains", table, "panel", "label", "tier", "references", "value", "low", "high")
    theirs = _known("gains", published, ("panel", "label", "references", "value", "std"))
    theirs = theirs.assign(tier="R", low=theirs["value"] - theirs["std"], high=theirs["value"] + theirs["std"])
    styles = _styles([*table["label"], *theirs["label"]])
    whole = pd.concat([table, theirs], ignore_index=True)
    figure, panels = _panels(whole, "value", 4.0, 4.2, ylabel, sharey=True)
    for panel, ax, here in panels:
        printed = panel in set(theirs["panel"])
        kind = _THEIRS if printed else _OURS | {"linewidth": 1.4}
        if printed:
            ax.set_title(panel)
        for label, look in styles.items():
            line = here[here["label"] == label].sort_values("references")
            ax.vlines(line["references"], line["low"], line["high"], color=look["color"], linewidth=1.2)
            ax.plot(line["references"], line["value"], zorder=3, **kind | look)
        ax.axhline(0.5, **_CHANCE)
        ax.set_xscale("symlog", base=2, linthresh=1)  # none, one, two, four, …
        ax.set_xticks(ticks := sorted(here["references"].unique()), [f"{tick:g}" for tick in ticks])
        ax.set(xlabel="reference models looked at")
        ax.margins(x=0.08)
        ax.grid(axis="y", color="0.9", linewidth=0.6)
    looks = [(label, _OURS | look) for label, look in styles.items()]
    looks += [("published", _THEIRS | {"color": "0.3", "marker": "o"}), ("chance", _CHANCE)]
    return _with_legend(figure, looks, whole)


def about(figure: Figure, text: str) -> Figure:
    """The figure with a line under its axes that lets it stand alone, the same figure.

    `text` says which data, model and size, how many shadow models or targets, and which kind of interval.
    """
    wrapped = textwrap.fill(" ".join(text.split()), int(figure.get_figwidth() * 13))
    if not figure.legends:
        figure.legend(handles=[], loc="outside lower center", frameon=False)
    (legend,) = figure.legends
    legend.set_title("\n".join(filter(None, (legend.get_title().get_text(), wrapped))))
    legend.get_title().set_fontsize(9)
    figure.set_figheight(figure.get_figheight() + 0.16 * (wrapped.count("\n") + 1))
    return figure


def training(table: pd.DataFrame, drops: Mapping[str, Iterable[int]] | None = None) -> Figure:
    """The attack while a target trains (Rezaei & Liu, Figs 3 to 8): a row of panels a target, a panel a subset.

    `table`: target, tier, epoch, subset, metric (a key of _TRAINING), value, low, high. The target's accuracies are
    those on all records, in every panel. Bands: intervals of the balanced accuracy. Dotted: chance. `drops`: target ->
    epochs at which its learning rate falls, drawn as thin lines.
    """
    _check("training", table, "target", "tier", "epoch", "subset", "metric", "value", "low", "high")
    names, subsets = table["target"].unique(), table["subset"].unique()
    size = (2.8 * len(subsets), 1.0 + 1.9 * len(names))
    figure, axes = _subplots(len(names), len(subsets), size, sharex="row", sharey=True)
    for ax, (name, subset) in zip(axes.flat, itertools.product(names, subsets), strict=True):
        here = table[table["target"] == name]
        of_target = here["metric"].str.endswith("_acc")
        _frame(ax, subset, here[(here["subset"] == subset) & ~of_target])
        here = here[(here["subset"] == subset) | of_target]
        for metric, (_, look) in _TRAINING.items():
            line = here[here["metric"] == metric]
            ax.plot(line["epoch"], line["value"], **look)
            if metric == "balanced_accuracy":
                ax.fill_between(line["epoch"], line["low"], line["high"], color=_BLUE, alpha=0.2, linewidth=0)
        ax.axhline(0.5, color="0.3", linestyle=":", linewidth=1)
        for epoch in (drops or {}).get(name, ()):
            ax.axvline(epoch, **_DROP)
        ax.set_ylim(0, 1.02)
        ax.grid(color="0.9", linewidth=0.6)
    for ax, name in zip(axes[:, 0], names, strict=True):
        ax.set_ylabel(f"{name}\nrate")
    plt.setp(axes[-1], xlabel="epochs trained")
    looks = [*_TRAINING.values(), ("chance", {"color": "0.3", "linestyle": ":", "linewidth": 1})]
    return _with_legend(figure, looks + ([("learning rate falls", _DROP)] if drops else []), table)


def _check(name, table, *columns):
    if missing := [column for column in columns if column not in table]:
        raise ValueError(f"{name} needs the columns {', '.join(missing)}")
    if table.empty:
        raise ValueError(f"{name} needs at least one row")
    if "tier" in columns:
        check_tiers(table["tier"])


def _known(name, table, columns, **valid):
    """The published table, checked; one without rows for None. Nothing published may go undrawn for its key."""
    if table is None:
        return pd.DataFrame(columns=list(columns))
    _check(f"{name} (published)", table, *columns)
    for column, values in valid.items():
        if strange := set(table[column]) - set(values):
            raise ValueError(f"{name}: ours has no {column} {', '.join(map(str, sorted(strange)))}, published has")
    return table


def _styles(names: Iterable) -> dict:
    """Colour and marker of each distinct name, in order of first appearance."""
    names = list(dict.fromkeys(names))
    if len(names) > len(_STYLES):
        raise ValueError(f"{len(names)} series in one plot; at most {len(_STYLES)} can be told apart")
    return dict(zip(names, _STYLES, strict=False))


def _subplots(rows, columns, size, **shared):
    return plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **shared)


def _panels(table, column, width, height, ylabel, **shared) -> tuple[Figure, list[tuple[str, Axes, pd.DataFrame]]]:
    """Each distinct panel with its axes, three in a row at most (four make two rows), and where `column` is known."""
    names = list(dict.fromkeys(table["panel"]))
    rows = math.ceil(len(names) / 3)
    columns = math.ceil(len(names) / rows)
    width = min(max(config.ONE_COLUMN, width * columns), config.TWO_COLUMNS)
    figure, axes = _subplots(rows, columns, (width, height * rows + 0.9), **shared)
    for ax in axes.flat[len(names) :]:
        ax.remove()
    for ax in axes.flat:
        ax.tick_params(labelbottom=True)  # shared axes hide them, also above a gap in the last row
    plt.setp(axes[:, 0], ylabel=ylabel)
    panels = zip(names, axes.flat, strict=False)
    return figure, [(name, ax, _frame(ax, name, table[table["panel"] == name], column)) for name, ax in panels]


def _frame(ax, panel, rows, *columns):
    """Title and background by tier; the rows in which all `columns` are known."""
    if rows["tier"].nunique() > 1:
        raise ValueError(f"panel {panel!r} holds several tiers; a tier must belong to a panel")
    tier, defined = rows["tier"].iloc[0], rows.dropna(subset=list(columns))
    gone = len(rows) - len(defined)
    ax.set_title(f"{panel}\n[{_TIER_TEXT[tier]}]" + (f", {gone} undefined left out" if gone else ""))
    if tier == "M":
        ax.patch.set(**_SIMULATED)
    return defined


def _with_legend(figure, looks, table, title=None) -> Figure:
    """Labels and looks under the figure, in as few columns as its width needs; then what hatching and a star mean."""
    simulated = [("ours simulated", _SIMULATED)] if (table["tier"] == "M").any() else []
    named = [table[column].astype(str) for column in ("label", "panel", "target") if column in table]
    starred = any(names.str.contains("*", regex=False).any() for names in named)
    last = [("off printed accuracies", _STAR)] if starred else []
    handles = [
        Patch(label=label, **look) if {"facecolor", "fill"} & look.keys() else Line2D([], [], label=label, **look)
        for label, look in (*looks, *simulated, *last)
    ]
    # Columns by the longest text (inches, at 10 points), then as few as give the same number of rows.
    widest = 0.75 + 0.08 * max(len(handle.get_label()) for handle in handles)
    lines = math.ceil(len(handles) / max(1, int(figure.get_figwidth() / widest)))
    columns = math.ceil(len(handles) / lines)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, title=title)
    return figure
