"""The papers' printed numbers (data/published/*.csv) and the one comparison of our results with them."""

import csv
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mialib import config

# The column that tells apart the rows of one data set, where it is not called "setting".
SETTING = {
    "shokri_table1": "platform",
    "shokri_table2": "subset",
    "shokri_table3": "mitigation",
    "mlleaks_fig1_adversary1_vs_shokri": "attack",
    "shokri_fig4": "train_size",
    "shokri_fig5": "platform",
    "shokri_fig6": "subset",
    "shokri_fig7": "platform",
    "shokri_fig8": "shadow_data",
    "shokri_fig9": "shadow_data",
    "shokri_fig10": "subset",
    "shokri_fig11": "subset",
    "shokri_fig12": "subset",
}
# Published points to draw beside ours, and their columns of text; every other column holds numbers.
POINTS = {
    "shokri_fig4_left_cifar10_by_class": ("dataset",),
    "shokri_fig4_per_class_precision_points": ("dataset",),
    "shokri_fig4_summary": ("dataset",),
    "shokri_fig5to9_cdf_curves": ("figure", "curve"),
    "shokri_fig5to9_cdf_summary": ("figure", "curve"),
    "shokri_fig8_fig9_overall": ("figure", "dataset", "shadow_data"),
    "shokri_fig10_boxplots": ("note",),
    "shokri_fig11_points": ("panel", "x_name", "y_name"),
    "shokri_fig11_summary": ("n_classes",),  # one row pools "all"
    "shokri_fig12_histograms": ("panel", "group"),
    "shokri_headline_text": ("where", "what", "value", "note"),  # a value may be "0.66 / 0.51"
}
# Number columns that the sources leave blank in some rows: two classes have no box, a caption gives no minimum.
_MAY_BE_BLANK = {"whisker_low", "q1", "median", "q3", "whisker_high", "min_precision_from_vector_points"}
_MAY_BE_BLANK |= {"mean_train_test_gap", "mean_attack_precision"}
# Printed numbers that other numbers of the same row determine (data/published/README.md). FAR of Tables 6 and 7: what
# it would be if members and non-members are swapped in the printed one.
IMPLIED = {
    "rezaei_table1": {
        "attack_acc": "(5 * attack_recall + 1 - attack_far) / 6",
        "attack_balanced_acc": "(attack_recall + 1 - attack_far) / 2",
    },
    "rezaei_table2": {"balanced_acc": "(recall_member + recall_nonmember) / 2", "far": "1 - recall_nonmember"},
    "rezaei_table3": {"naive_attack_balanced_acc": "(1 + target_train_acc - target_test_acc) / 2"},
    "rezaei_table6": {"attack_far": "2 - 2 * attack_balanced_acc - attack_far"},
    "rezaei_table7": {
        f"grad_{by}_attack_far": f"2 - 2 * grad_{by}_attack_balanced_acc - grad_{by}_attack_far" for by in "wx"
    },
}
VERDICTS = ("reproduced", "differs", "not comparable")
CELL = ("dataset", "model", "setting", "metric", "published", "value", "low", "high", "tier", "verdict", "note")
TIERS = {"R": "real", "S": "substitute", "M": "simulated"}
# A guesser's are .5 on equally many members and non-members; so are its typical class precisions.
_GUESSED = {"attack_precision", "attack_total_acc", "class_precision_mean", "class_precision_p50_points"}
_GUESSED |= {"class_precision_p25", "class_precision_p50", "class_precision_p75"}
_REQUIRED = ("dataset", "setting", "metric", "value", "low", "high", "tier")
_OPTIONAL = ("model", "variant", "note", "not_comparable")


def tables() -> list[str]:
    """Names of the published tables that can be compared: the files of data/published that state a tolerance."""
    return [path.stem for path in sorted(_path("*").parent.glob("*.csv")) if "tolerance" in _header(path)]


def load(name: str) -> pd.DataFrame:
    """One published table: columns dataset, model, setting, metric, published, tolerance, source, in file order.

    `setting` is the content of the column of that name, or of the one SETTING names: Table III's mitigation, Fig 4's
    training size, "all" where each data set has one setting; "AlexNet, correct" for Rezaei & Liu. `tolerance` is
    absolute and was fixed before any run. `published` is nan where the paper prints a dash. ValueError if the name is
    unknown or the file malformed.
    """
    path, setting = _path(name), SETTING.get(name, "setting")
    if name not in SETTING and (not path.exists() or "tolerance" not in _header(path)):
        raise ValueError(f"unknown published table {name!r}; valid tables: {', '.join(tables())}")
    renamed = {"dataset": "dataset", "model": "model", setting: "setting", "metric": "metric"}
    renamed |= {"value": "published", "tolerance": "tolerance", "source": "source"}
    table = _read(path, renamed)
    dash = table["raw"].eq("-") if "raw" in table else False
    table = table[list(renamed)].rename(columns=renamed)
    for column in ("published", "tolerance"):
        table[column] = _numbers(path, table[column], low=0, blank=dash)
    twice = table.duplicated(["dataset", "setting", "metric"])
    if twice.any():
        raise ValueError(f"{path.name}, line {twice.idxmax() + 2}: this data set, setting and metric came before")
    return table


def points(name: str) -> pd.DataFrame:
    """The published points of a figure, as they are in data/published/`name`.csv: its columns and rows, in file order.

    The columns that POINTS names are text, all others numbers, NaN where the source has none. Rates are fractions.
    ValueError if the name is unknown or the file malformed.
    """
    if name not in POINTS:
        raise ValueError(f"unknown published points {name!r}; valid names: {', '.join(POINTS)}")
    path = _path(name)
    table = _read(path, POINTS[name])
    for column in table.columns.difference(POINTS[name]):
        table[column] = _numbers(path, table[column], blank=column in _MAY_BE_BLANK)
    return table


def compare(ours: Iterable[Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    """Our results beside the published table `name`: one cell (keys CELL) a published number, then ours without one.

    Each result has dataset, setting, metric (together the key into `load(name)`), value, low, high and tier
    ("R" real, "S" substitute, "M" simulated), and may have model (what we ran), note, not_comparable (why a
    verdict would mean nothing, e.g. "demo profile") and variant, which sets apart several results held against
    one published number (a training size) and is added to the cell's setting.

    Verdict: "not comparable" for simulated data, a given reason or an undefined value, and where either side is
    missing; else "reproduced" if |value - published| <= tolerance, else "differs". Nothing published is dropped.
    ValueError for missing or unknown keys, an unknown tier, or two results with the same key.
    """
    results: dict[tuple[str, str, str], dict[str, Mapping[str, Any]]] = {}
    for result in ours:
        _check(result)
        same_key = results.setdefault((result["dataset"], result["setting"], result["metric"]), {})
        variant = result.get("variant", "")
        if variant in same_key:
            key = ", ".join(filter(None, (result["dataset"], result["setting"], result["metric"], variant)))
            raise ValueError(f"two results for {key}; give each its own `variant`")
        same_key[variant] = result
    cells = []
    for row in load(name).to_dict("records"):
        found = results.pop((row["dataset"], row["setting"], row["metric"]), {"": None})
        cells += [_missing(row) if result is None else _cell(result, row) for result in found.values()]
    return cells + [_cell(result, None) for found in results.values() for result in found.values()]


def scorecard(cells: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """The cells as a table to look at: dataset, setting, metric, published, ours, low, high, tier, verdict."""
    columns = ["dataset", "setting", "metric", "published", "value", "low", "high", "tier", "verdict"]
    table = pd.DataFrame(list(cells), columns=list(CELL))[columns].rename(columns={"value": "ours"})
    return table.astype(dict.fromkeys(("published", "ours", "low", "high"), float))


def side_by_side(cells: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """A row a data set, tier and setting; for each metric the columns published and ours. Published cells only."""
    table = scorecard(cells).dropna(subset="published")
    table["tier"] = table["tier"].map(TIERS).fillna("-")
    order, metrics = table[["dataset", "tier", "setting"]].drop_duplicates(), table["metric"].unique()
    wide = table.pivot(index=["dataset", "tier", "setting"], columns="metric", values=["published", "ours"])
    wide = wide.swaplevel(axis=1)[[(metric, side) for metric in metrics for side in ("published", "ours")]]
    return wide.loc[list(order.itertuples(index=False, name=None))].rename_axis(columns=[None, None])


def gap_precision(name: str) -> dict[str, float]:
    """Data set -> precision of the gap attack on the published target models: train / (train + test accuracy)."""
    table = load(name)
    accuracy = {metric: rows.set_index("dataset")["published"] for metric, rows in table.groupby("metric")}
    train, test = accuracy["target_train_acc"], accuracy["target_test_acc"]
    return (train / (train + test)).to_dict()


def implied(name: str) -> pd.DataFrame:
    """Printed numbers of a table beside what its other printed numbers imply, by the rules IMPLIED.

    Columns dataset, setting, metric, published, implied, in file order. ValueError for a table without rules.
    """
    if name not in IMPLIED:
        raise ValueError(f"no rules for {name!r}; tables with rules: {', '.join(IMPLIED)}")
    table = load(name)
    table = table[table["metric"].isin(IMPLIED[name])].set_index(["dataset", "setting"])
    printed = load(name).pivot(index=["dataset", "setting"], columns="metric", values="published")
    found = {metric: printed.eval(rule, engine="python") for metric, rule in IMPLIED[name].items()}
    table["implied"] = [found[row.metric][row.Index] for row in table.itertuples()]
    return table.reset_index()[["dataset", "setting", "metric", "published", "implied"]]


def counts(cells: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many cells have each verdict, in the order of VERDICTS."""
    seen = Counter(cell["verdict"] for cell in cells)
    return {verdict: seen[verdict] for verdict in VERDICTS}


def _path(name):
    return config.ROOT / "data" / "published" / f"{name}.csv"


def _header(path):
    return path.read_text(encoding="utf-8").partition("\n")[0].split(",")


def _read(path: Path, needed: Iterable[str]) -> pd.DataFrame:
    """The file as text, one row a line, so that row i is line i + 2."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    missing = [column for column in needed if column not in header]
    if missing:
        raise ValueError(f"{path.name} lacks the columns {', '.join(missing)}")
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise ValueError(f"{path.name}, line {line}: {len(row)} fields; the header has {len(header)}")
    return pd.DataFrame(rows, columns=header, dtype=str)


def _numbers(path, column, low=-math.inf, blank: "bool | pd.Series[bool]" = False):
    numbers = pd.to_numeric(column, errors="coerce")
    if numbers.dtype == float:  # older pandas reads the seventeenth digit wrongly
        numbers = column.where(numbers.notna()).astype(float)
    bad = ~(numbers.ge(low) & numbers.abs().lt(math.inf)) & ~(blank & column.eq(""))
    if bad.any():
        row, floor = bad.idxmax(), " from 0 up" if low == 0 else ""
        text = f"{path.name}, line {row + 2}: {column.name} is {column[row]!r}"
        raise ValueError(f"{text}; it must be a number{floor}")
    return numbers


def _check(result):
    missing = [key for key in _REQUIRED if key not in result]
    unknown = [key for key in result if key not in (*_REQUIRED, *_OPTIONAL)]
    if missing or unknown:
        problem = f"lacks {', '.join(missing)}" if missing else f"has unknown keys {', '.join(unknown)}"
        raise ValueError(f"a result {problem}; valid keys: {', '.join((*_REQUIRED, *_OPTIONAL))}")
    if result["tier"] not in TIERS:
        raise ValueError(f"unknown tier {result['tier']!r}; valid tiers: {', '.join(TIERS)}")


def _missing(row):
    """The cell of a published number that this run has nothing to hold against."""
    empty = dict.fromkeys(("value", "low", "high", "tier"))
    identity = {key: row[key] for key in ("dataset", "model", "setting", "metric")}
    identity["published"] = _number(row["published"])
    return identity | empty | {"verdict": "not comparable", "note": "not computed in this run"}


def _cell(result, row):
    value, low, high = (_number(result[key]) for key in ("value", "low", "high"))
    printed = _number(row["published"]) if row else None
    reasons = [
        "simulated data" if result["tier"] == "M" else "",
        result.get("not_comparable", ""),
        "undefined value" if value is None else "",
        "no published number" if printed is None else "",
    ]
    remarks = [reason for reason in reasons if reason]
    verdict = "not comparable"
    if not remarks:
        # Rounded, so that .73 against .68 is inside a tolerance of .05 whatever the binary fractions say.
        inside = round(abs(value - printed), 9) <= row["tolerance"]
        verdict = "reproduced" if inside else "differs"
        remarks = [f"tolerance {row['tolerance']:g}"]
        guessed = row["metric"] in _GUESSED or "balanced_acc" in row["metric"]
        if guessed and abs(printed - 0.5) <= row["tolerance"]:
            remarks.append("chance (0.5) is within the tolerance too")
    model = result.get("model") or (row["model"] if row else "")
    if row and model != row["model"]:
        remarks.append(f"published for {row['model']}")
    return {
        "dataset": result["dataset"],
        "model": model,
        "setting": ", ".join(filter(None, (result["setting"], result.get("variant", "")))),
        "metric": result["metric"],
        "published": printed,
        "value": value,
        "low": low,
        "high": high,
        "tier": result["tier"],
        "verdict": verdict,
        "note": "; ".join(filter(None, (*remarks, result.get("note", "")))),
    }


def _number(value):
    """A float, or None where it is missing or not finite: records are strict JSON."""
    return float(value) if value is not None and math.isfinite(value) else None
