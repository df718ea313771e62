"""Figures of the papers, redrawn: tables in, one figure out, the published points beside ours.

Figs 4 to 12 are those of Shokri et al. 2017, Figs 1 to 8 those of Rezaei & Liu 2020, which print no numbers.

Ours and published always share their axes. A column tier (R real, S substitute, M simulated) names the data of a
panel: it stands in the panel's title, and simulated panels are hatched. Series differ by marker as well as by
colour, so that a grey print can be read. A row whose value is nan (the precision of a class in which nobody was
called a member) is left out, and the panel's title says how many were. Every function raises ValueError for
missing columns, an empty table, an unknown tier, a panel with two tiers, or more series than there are styles.
"""

import math
from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cbook import boxplot_stats
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, NullLocator

from mialib import config, metrics

SIMULATED = {"facecolor": "0.95", "edgecolor": "0.80", "hatch": "///", "linewidth": 0}
TIER_TEXT = {"R": "R", "S": "S, substitute", "M": "M, simulated"}
# Nothing is told apart by colour alone: every series has its own marker too.
_PALETTE = sns.color_palette("colorblind")
_COLORS = [_PALETTE[0], _PALETTE[3], _PALETTE[2], _PALETTE[4], "black", _PALETTE[1], _PALETTE[9], _PALETTE[7]]
_STYLES = [{"color": color, "marker": marker} for color, marker in zip(_COLORS, "os^DvPX*", strict=True)]
_BLUE, _RED = _COLORS[:2]
_OURS = {"linestyle": "-", "linewidth": 2, "markersize": 6}
_THEIRS = {"linestyle": (0, (4, 2)), "linewidth": 1.2, "markersize": 6, "markerfacecolor": "white"}
_MINE, _PRINTED = {"color": _BLUE, "marker": "o"} | _OURS, {"color": _RED, "marker": "D"} | _THEIRS
_SIDES = {"members": {"facecolor": _BLUE}, "non-members": {"facecolor": "#f2c78f"}}
_OUTLINES = {
    "members": {"facecolor": "none", "edgecolor": "black", "linewidth": 1.4},
    "non-members": {"facecolor": "none", "edgecolor": _RED, "linewidth": 1.4, "linestyle": (0, (2, 1))},
}
# Fig 11: its panels, and which columns of ours they show.
_SCATTERS = {"left": ("share", "precision"), "middle": ("gap", "precision"), "right": ("share", "gap")}
_AXES = {"share": "share of the training set", "gap": "train minus test accuracy", "precision": "attack precision"}


def cdf(table: pd.DataFrame, xlabel: str, published: pd.DataFrame | None = None) -> Figure:
    """Share of classes at or below x (Figs 5 to 9): a step curve a label, published curves thin and dashed.

    `table`: panel, label, tier, x, a row a class. `published`, the published curves: panel, label, x, fraction; a
    label has one colour and marker in both, and may be in one of them only.
    """
    _check("cdf", table, "panel", "label", "tier", "x")
    published = _known("cdf", published, ("panel", "label", "x", "fraction"), panel=table["panel"])
    styles = _styles([*table["label"], *published["label"]])
    figure, axes = _grid(table["panel"], 4.3, 3.9, sharex=True, sharey=True)
    for panel, ax in axes.items():
        here = _frame(ax, panel, table[table["panel"] == panel], "x")
        theirs = published[published["panel"] == panel]
        for i, (label, look) in enumerate(styles.items()):
            marks = look | {"markevery": (0.03 + 0.15 * i / len(styles), 0.15)}
            if len(values := here.loc[here["label"] == label, "x"]):
                ax.ecdf(values, zorder=3, **_OURS | marks)
            if len(curve := theirs[theirs["label"] == label]):
                ax.plot(curve["x"], curve["fraction"], drawstyle="steps-post", zorder=4, **_THEIRS | marks)
        ax.set(xlabel=xlabel, ylim=(0, 1.02))
        ax.grid(color="0.88", linewidth=0.6)
    _label_rows(axes, "cumulative share of classes")
    grey = {"color": "0.3"}
    kinds = [_line("ours", _OURS | grey), _line("published", _THEIRS | grey)] if len(published) else []
    _legend(figure, [*(_line(label, _OURS | look) for label, look in styles.items()), *kinds], table)
    return figure


def by_class_lines(table: pd.DataFrame, published: pd.DataFrame) -> Figure:
    """Attack precision by class (Fig 4 left), a series a training-set size; ours left, published right.

    `table`: size, tier, class, precision; `published`: size, class, precision. Classes as they shall be printed.
    """
    _check("by_class_lines", table, "size", "tier", "class", "precision")
    published = _known("by_class_lines", published, ("size", "class", "precision"))
    styles = _styles(sorted({*table["size"], *published["size"]}))
    figure, axes = plt.subplots(1, 2, figsize=(8.6, 4.2), sharex=True, sharey=True, layout="constrained")
    ours = _frame(axes[0], "ours", table, "precision")
    axes[1].set_title("published")
    for ax, rows, look in zip(axes, (ours, published), (_OURS, _THEIRS), strict=True):
        for size, style in styles.items():
            line = rows[rows["size"] == size].sort_values("class")
            ax.plot(line["class"], line["precision"], **look | {"linewidth": 1.2} | style)
        ax.set(xlabel="class", xticks=sorted({*table["class"], *published["class"]}))
        ax.grid(axis="y", color="0.88", linewidth=0.6)
    axes[0].set_ylabel("attack precision")
    _legend(figure, [_line(f"{size:,} records", _OURS | style) for size, style in styles.items()], table)
    return figure


def sizes(table: pd.DataFrame, published: pd.DataFrame) -> Figure:
    """Attack precision of every class by training-set size (Fig 4 middle and right), medians joined.

    `table`: panel (the data set), tier, size, precision, a row a class; `published`: panel, size, precision.
    Sizes stand in order at equal distances, ours left of the published; points are spread sideways to be seen.
    """
    _check("sizes", table, "panel", "tier", "size", "precision")
    published = _known("sizes", published, ("panel", "size", "precision"), panel=table["panel"])
    figure, axes = _grid(table["panel"], 4.3, 4.0, sharey=True)
    for panel, ax in axes.items():
        here = _frame(ax, panel, table[table["panel"] == panel], "precision")
        theirs = published[published["panel"] == panel]
        ticks = {size: i for i, size in enumerate(sorted({*here["size"], *theirs["size"]}))}
        for rows, look, side in ((here, _MINE, -0.2), (theirs, _PRINTED, 0.2)):
            middle = rows.groupby("size")["precision"].median()
            for size, values in rows.groupby("size")["precision"]:
                x = ticks[size] + side + 0.13 * _spread(len(values))
                ax.plot(x, values.sort_values(), look["marker"], color=look["color"], markersize=3, alpha=0.45)
            ax.plot(middle.index.map(ticks) + side, middle, zorder=4, **look | {"markersize": 8})
        ax.set_xticks(range(len(ticks)), [f"{size:,}" for size in ticks])
        ax.set(xlabel="training-set size (records)", xlim=(-0.5, len(ticks) - 0.5))
        ax.grid(axis="y", color="0.88", linewidth=0.6)
    _label_rows(axes, "attack precision, a point a class")
    _legend(figure, [_line("ours, median", _MINE), _line("published, median", _PRINTED)], table)
    return figure


def settling(table: pd.DataFrame) -> Figure:
    """How the median class precision settles as shadow models are added: a line a training-set size.

    `table`: panel (the data set), tier, size, shadows, value, low, high (nan ends: no interval is drawn). Lines are
    set apart sideways by a few per cent, so that the intervals do not hide each other.
    """
    _check("settling", table, "panel", "tier", "size", "shadows", "value", "low", "high")
    figure, axes = _grid(table["panel"], 4.5, 4.6, sharey=True)
    for panel, ax in axes.items():
        here = _frame(ax, panel, table[table["panel"] == panel], "value")
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
    _label_rows(axes, "median class precision, 95 % interval")
    return figure


def boxes(table: pd.DataFrame, published: pd.DataFrame) -> Figure:
    """Class precision by number of classes (Fig 10): a box, its median, whiskers to 1.5 quartile ranges at most.

    `table`: panel (a family of data sets), tier, n_classes, precision, a row a class; what lies beyond the whiskers
    is drawn as dots, and fewer than five classes are drawn as points without a box. `published`: panel, n_classes,
    whisker_low, q1, median, q3, whisker_high; where the quartiles are nan the whiskers are drawn as two points.
    """
    _check("boxes", table, "panel", "tier", "n_classes", "precision")
    five = ("whisker_low", "q1", "median", "q3", "whisker_high")
    published = _known("boxes", published, ("panel", "n_classes", *five), panel=table["panel"])
    figure, axes = _grid(table["panel"], 4.0, 4.2, sharey=True)
    for panel, ax in axes.items():
        here = _frame(ax, panel, table[table["panel"] == panel], "precision")
        theirs = published[published["panel"] == panel]
        counts = sorted({*here["n_classes"], *theirs["n_classes"]})
        side = 0.2 if len(theirs) else 0
        for count, values in here.groupby("n_classes")["precision"]:
            _box(ax, counts.index(count) - side, values, boxplot_stats(values)[0], _MINE)
        for row in theirs.itertuples():
            low, q1, median, q3, high = (getattr(row, column) for column in five)
            values = [low, high] if math.isnan(median) else None
            ends = {"whislo": low, "q1": q1, "med": median, "q3": q3, "whishi": high, "fliers": []}
            _box(ax, counts.index(row.n_classes) + side, values, ends, _PRINTED)
        ax.set_xticks(range(len(counts)), counts)
        ax.set(xlabel="number of classes", xlim=(-0.6, len(counts) - 0.4))
        ax.grid(axis="y", color="0.88", linewidth=0.6)
    _label_rows(axes, "attack precision over classes")
    faces = {"ours": _face(_MINE)} | ({"published": _face(_PRINTED)} if len(published) else {})
    _legend(figure, [Patch(label=label, **look) for label, look in faces.items()], table)
    return figure


def scatters(table: pd.DataFrame, published: pd.DataFrame | None, correlations: pd.DataFrame) -> Figure:
    """The three scatter plots of Fig 11, ours above and published below on the same axes; a marker a class count.

    `table`: n_classes, tier (one for all), share (of the training set, 0..1), gap, precision, a row a class.
    `published`: panel (left, middle, right), n_classes, x, y; None draws ours alone. `correlations`: side (ours,
    published), panel, r, low, high; the row of each panel drawn is written in its title.
    """
    _check("scatters", table, "n_classes", "tier", *_AXES)
    _check("scatters (correlations)", correlations, "side", "panel", "r", "low", "high")
    published = _known("scatters", published, ("panel", "n_classes", "x", "y"), panel=_SCATTERS)
    found = correlations.set_index(["side", "panel"])[["r", "low", "high"]]
    rows = ["ours", "published"] if len(published) else ["ours"]
    if lacking := [key for side in rows for panel in _SCATTERS if (key := (side, panel)) not in found.index]:
        raise ValueError(f"scatters: correlations has no row for {', '.join(lacking[0])}")
    styles = _styles(sorted({*table["n_classes"], *published["n_classes"]}))
    figure, axes = plt.subplots(
        len(rows), 3, figsize=(11, 1 + 3.6 * len(rows)), sharex="col", sharey="col", squeeze=False, layout="constrained"
    )
    for i, (panel, (x, y)) in enumerate(_SCATTERS.items()):
        ours = _frame(axes[0, i], "ours", table, x, y).rename(columns={x: "x", y: "y"})
        for ax, side, points in zip(axes[:, i], rows, (ours, published[published["panel"] == panel]), strict=False):
            for count, look in styles.items():
                here = points[points["n_classes"] == count]
                ax.plot(here["x"], here["y"], linestyle="none", markersize=5, **look | {"markerfacecolor": "none"})
            title = ax.get_title() or "published"
            ax.set_title("{}\nr = {:.2f} ({:.2f} to {:.2f})".format(title, *found.loc[(side, panel)]))
            ax.set_ylabel(_AXES[y])
        axes[-1, i].set_xlabel(_AXES[x])
    handles = [
        _line(f"{count} classes", look | {"linestyle": "none", "markerfacecolor": "none"})
        for count, look in styles.items()
    ]
    _legend(
        figure, handles, table, title="A marker is a class. r: Pearson correlation over all of them (95 % interval)"
    )
    return figure


def histograms(table: pd.DataFrame, published: pd.DataFrame | None) -> Figure:
    """Prediction uncertainty and accuracy, members against non-members, in ten bins (Fig 12); a column a class count.

    `table`: n_classes, tier, member (bool), uncertainty, accuracy (the probability given to the true class), a row a
    record. `published`, bars drawn as outlines over ours (or None): panel (uncertainty, accuracy), n_classes, group
    (members, non-members), bin_lo, fraction, all ten bins of each group. Titles give the overlap of members and
    non-members (`metrics.overlap`).
    """
    _check("histograms", table, "n_classes", "tier", "member", "uncertainty", "accuracy")
    columns = ("panel", "n_classes", "group", "bin_lo", "fraction")
    published = _known("histograms", published, columns, n_classes=table["n_classes"])
    counts = sorted(table["n_classes"].unique())
    figure, axes = plt.subplots(
        2, len(counts), figsize=(1 + 3.3 * len(counts), 6.6), sharey="row", squeeze=False, layout="constrained"
    )
    for column, count in zip(axes.T, counts, strict=True):
        here, theirs = table[table["n_classes"] == count], published[published["n_classes"] == count]
        for ax, panel in zip(column, ("uncertainty", "accuracy"), strict=True):
            rows = _frame(ax, f"{count} classes", here, panel)
            shared = _bars(ax, [rows.loc[rows["member"] == side, panel] for side in (True, False)])
            outlines = theirs[theirs["panel"] == panel]
            if len(outlines):
                shared += f", published {_outlines(ax, outlines):.2f}"
            ax.set_title(f"{ax.get_title()}\noverlap {shared}")
            ax.set(xlabel=f"prediction {panel}", xlim=(0, 1), xticks=np.arange(0, 1.1, 0.2))
    for ax in axes[:, 0]:
        ax.set_ylabel("share of records")
    handles = [Patch(label=label, **look) for label, look in _SIDES.items()]
    if len(published):
        handles += [Patch(label=f"{label}, published", **look) for label, look in _OUTLINES.items()]
    _legend(figure, handles, table)
    return figure


def confidence_vectors(table: pd.DataFrame) -> Figure:
    """Mean confidence vectors of members and non-members (Rezaei & Liu, Fig 1), log scale.

    `table`: panel, tier, member (bool), class, confidence (the mean confidence in that class), a row a point.
    """
    _check("confidence_vectors", table, "panel", "tier", "member", "class", "confidence")
    looks = {
        "members": {"color": _BLUE, "marker": "x", "markersize": 6},
        "non-members": {"color": _RED, "marker": "o", "markersize": 6, "markerfacecolor": "none"},
    }
    figure, axes = _grid(table["panel"], 5.2, 4.0, sharex=True, sharey=True)
    for panel, ax in axes.items():
        here = _frame(ax, panel, table[table["panel"] == panel], "confidence")
        for (_, look), side in zip(looks.items(), (True, False), strict=True):
            points = here[here["member"] == side]
            ax.plot(points["class"], points["confidence"], linestyle="none", **look)
        ax.set(xlabel="class number", yscale="log")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(axis="y", color="0.88", linewidth=0.6)
    _label_rows(axes, "mean confidence")
    _legend(figure, [_line(label, look | {"linestyle": "none"}) for label, look in looks.items()], table)
    return figure


def confidence_histograms(table: pd.DataFrame, bins: int = 100) -> Figure:
    """The probability given to the true class, members filled, non-members outlined (Rezaei & Liu, Fig 2).

    `table`: panel, tier, member (bool), confidence, a row a record. A side without records draws nothing.
    """
    _check("confidence_histograms", table, "panel", "tier", "member", "confidence")
    looks = {
        "members": {"color": _BLUE, "alpha": 0.5, "fill": True},
        "non-members": {"color": _RED, "linewidth": 1.4},
    }
    figure, axes = _grid(table["panel"], 3.6, 3.6, sharex=True)
    for panel, ax in axes.items():
        here = _frame(ax, panel, table[table["panel"] == panel], "confidence")
        for look, side in zip(looks.values(), (True, False), strict=True):
            if len(values := here.loc[here["member"] == side, "confidence"]):
                ax.stairs(metrics.histogram(values, bins), np.arange(bins + 1) / bins, **look)
        ax.set(xlabel="confidence in the true class", xlim=(0, 1))
    _label_rows(axes, f"share of records in each of {bins} bins")
    _legend(figure, [Patch(label=label, **{"fill": False} | look) for label, look in looks.items()], table)
    return figure


# What Figs 3 to 8 draw: metric -> legend, look.
_TRAINING = {
    "balanced_accuracy": ("attack, balanced accuracy", {"color": _BLUE, "marker": "o", "linewidth": 2}),
    "fpr": ("attack, FAR (FPR)", {"color": _RED, "marker": "D", "linewidth": 1.6, "markerfacecolor": "white"}),
    "train_acc": ("target, train accuracy", {"color": "0.35", "linewidth": 1.2}),
    "test_acc": ("target, test accuracy", {"color": "0.35", "linewidth": 1.2, "linestyle": (0, (4, 2))}),
}


def training(table: pd.DataFrame) -> Figure:
    """The attack while a target trains (Rezaei & Liu, Figs 3 to 8): a row of panels a target, a panel a subset.

    `table`: target, tier, epoch, subset, metric (a key of _TRAINING), value, low, high. The target's accuracies are
    those on all records, in every panel. Bands: intervals of the balanced accuracy. Dotted: chance.
    """
    _check("training", table, "target", "tier", "epoch", "subset", "metric", "value", "low", "high")
    names, subsets = (list(dict.fromkeys(table[column])) for column in ("target", "subset"))
    size = (2.8 * len(subsets), 1.0 + 1.9 * len(names))
    figure, grid = plt.subplots(
        len(names), len(subsets), figsize=size, sharex="row", sharey=True, squeeze=False, layout="constrained"
    )
    for name, row in zip(names, grid, strict=True):
        here = table[table["target"] == name]
        accuracies = here[here["metric"].str.endswith("_acc")]
        for subset, ax in zip(subsets, row, strict=True):
            attack = here[(here["subset"] == subset) & ~here["metric"].str.endswith("_acc")]
            _frame(ax, subset, attack.assign(value=0.0), "value")
            _courses(ax, pd.concat([attack, accuracies]))
        row[0].set_ylabel(f"{name}\nrate")
    for ax in grid[-1]:
        ax.set_xlabel("epochs trained")
    _legend(figure, [_line(label, look | {"markersize": 5}) for label, look in _TRAINING.values()], table)
    return figure


def _courses(ax, rows):
    for metric, (_, look) in _TRAINING.items():
        line = rows[rows["metric"] == metric]
        ax.plot(line["epoch"], line["value"], markersize=5, markevery=max(1, len(line) // 8), **look)
        if metric == "balanced_accuracy":
            ax.fill_between(line["epoch"], line["low"], line["high"], color=_BLUE, alpha=0.2, linewidth=0)
    ax.axhline(0.5, color="0.3", linestyle=":", linewidth=1)
    ax.set_ylim(0, 1.02)
    ax.grid(color="0.9", linewidth=0.6)


def legend(figure: Figure, handles: Sequence[Line2D | Patch], title: str | None = None) -> None:
    """Put a legend under the figure, in as few columns as its width needs."""
    # Columns by the longest text (inches, at 10 points), then as few as give the same number of rows.
    widest = 0.75 + 0.08 * max(len(handle.get_label()) for handle in handles)
    lines = math.ceil(len(handles) / max(1, int(figure.get_figwidth() / widest)))
    columns = math.ceil(len(handles) / lines)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, title=title)


def _legend(figure, handles, table, title=None):
    simulated = [Patch(label="simulated data", **SIMULATED)] if (table["tier"] == "M").any() else []
    legend(figure, [*handles, *simulated], title)


def _check(name, table, *columns):
    if missing := [column for column in columns if column not in table]:
        raise ValueError(f"{name} needs the columns {', '.join(missing)}")
    if table.empty:
        raise ValueError(f"{name} needs at least one row")
    for tier in table["tier"] if "tier" in columns else ():
        if tier not in TIER_TEXT:
            raise ValueError(f"unknown tier {tier!r}; valid tiers: {', '.join(TIER_TEXT)}")


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


def _grid(panels, width, height, **shared) -> tuple[Figure, dict[str, Axes]]:
    """A figure with axes for each distinct panel, in rows of three at most (four make two rows of two)."""
    names = list(dict.fromkeys(panels))
    rows = math.ceil(len(names) / 3)
    columns = math.ceil(len(names) / rows)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(min(max(config.ONE_COLUMN, width * columns), config.TWO_COLUMNS), height * rows + 0.9),
        squeeze=False,
        layout="constrained",
        **shared,
    )
    for ax in axes.flat[len(names) :]:
        ax.remove()
    for ax in axes.flat:
        ax.tick_params(labelbottom=True)  # shared axes hide them, also above a gap in the last row
    return figure, dict(zip(names, axes.flat, strict=False))


def _label_rows(axes, text):
    """Name the y axis of the first panel in each row."""
    for ax in axes.values():
        if ax.get_subplotspec().is_first_col():
            ax.set_ylabel(text)


def _frame(ax, panel, rows, *columns):
    """Title and background by tier; the rows in which all `columns` are known."""
    if rows["tier"].nunique() > 1:
        raise ValueError(f"panel {panel!r} holds several tiers; a tier must belong to a panel")
    tier, defined = rows["tier"].iloc[0], rows.dropna(subset=list(columns))
    gone = len(rows) - len(defined)
    ax.set_title(f"{panel}\n[{TIER_TEXT[tier]}]" + (f", {gone} undefined left out" if gone else ""))
    if tier == "M":
        ax.patch.set(**SIMULATED)
    return defined


def _line(label, look):
    return Line2D([], [], label=label, **look)


def _spread(n):
    """n places in -1..1, neighbours far apart: multiples of the golden ratio. The same each time, unlike noise."""
    return 2 * (np.arange(1, n + 1) * 0.6180339887 % 1) - 1


def _face(look):
    fill = look.get("markerfacecolor", (*look["color"], 0.4))
    return {"facecolor": fill, "edgecolor": look["color"], "linewidth": 1.5, "linestyle": look["linestyle"]}


def _box(ax, x, values, ends, look):
    """One box from its five numbers, or the values themselves where they are too few for one."""
    if values is not None and len(values) < 5:
        ax.plot([x] * len(values), values, **look | {"linestyle": "none"})
        return
    line = {"color": look["color"], "linewidth": 1.5}
    dots = {"marker": look["marker"], "markersize": 3, "markeredgecolor": look["color"], "markerfacecolor": "none"}
    ax.bxp(
        [ends], [x], widths=0.34, patch_artist=True, manage_ticks=False, boxprops=_face(look), flierprops=dots,
        medianprops=line | {"linewidth": 3}, whiskerprops=line | {"linestyle": look["linestyle"]}, capprops=line,
    )  # fmt: skip


def _bars(ax, sides):
    """Bars of members and non-members side by side in each bin; their overlap in words."""
    for i, (values, look) in enumerate(zip(sides, _SIDES.values(), strict=True)):
        if len(values):
            left = np.arange(10) / 10 + 0.01 + 0.04 * i
            ax.bar(left, metrics.histogram(values), 0.04, align="edge", zorder=2, **look)
    return f"{metrics.overlap(*sides):.2f}" if all(map(len, sides)) else "undefined"


def _outlines(ax, published):
    """The published bars around where ours stand; returns the overlap of their two groups."""
    parts = []
    for i, (group, look) in enumerate(_OUTLINES.items()):
        rows = published[published["group"] == group].sort_values("bin_lo")
        ax.bar(rows["bin_lo"] + 0.01 + 0.04 * i, rows["fraction"], 0.04, align="edge", zorder=3, **look)
        parts.append(rows["fraction"].to_numpy())
    return np.minimum(*parts).sum()
