"""The papers' printed numbers (data/published/*.csv) and the one comparison of our results with them."""

import csv
import functools
import math
import operator
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mialib import config

VERDICTS = ("reproduced", "differs", "not comparable")
CELL = ("dataset", "model", "setting", "metric", "published", "value", "low", "high", "tier", "verdict", "note")
TIERS = {"R": "real", "S": "substitute", "M": "simulated"}
# A guesser's are .5 on equally many members and non-members; so are its typical class precisions.
_GUESSED = {
    *("attack_precision", "attack_total_acc", "class_precision_mean"),
    *("class_precision_p25", "class_precision_p50", "class_precision_p75", "class_precision_p50_points"),
}
_REQUIRED = ("dataset", "setting", "metric", "value", "low", "high", "tier")
_OPTIONAL = ("model", "variant", "note", "not_comparable")
_key = operator.itemgetter("dataset", "setting", "metric")


@functools.cache
def facts() -> dict[str, Any]:
    """How the published files are read: data/published/tables.toml."""
    return tomllib.loads((Path(__file__).parents[2] / "data/published/tables.toml").read_text(encoding="utf-8"))


def tables() -> list[str]:
    """Names of the published tables that can be compared: the files of data/published that state a tolerance."""
    files = {path.stem: path.read_text(encoding="utf-8") for path in sorted(_path("*").parent.glob("*.csv"))}
    return [name for name, text in files.items() if "tolerance" in text.partition("\n")[0].split(",")]


def load(name: str) -> pd.DataFrame:
    """One published table: columns dataset, model, setting, metric, published, tolerance, source, in file order.

    `setting` is the content of the column of that name, or of the one that `facts` names: Table III's mitigation,
    Fig 4's training size, "all" where each data set has one setting; "AlexNet, correct" for Rezaei & Liu. `tolerance`
    is absolute and was fixed before any run. `published` is nan where the paper prints a dash. ValueError if the name
    is unknown or the file malformed.
    """
    path, setting = _path(name), facts()["setting"].get(name, "setting")
    if name not in (facts()["setting"].keys() | tables()):
        raise ValueError(f"unknown published table {name!r}; valid tables: {', '.join(tables())}")
    columns = ["dataset", "model", setting, "metric", "value", "tolerance", "source"]
    table = _read(path, columns)
    dash = table["raw"].eq("-") if "raw" in table else False
    table = table[columns].rename(columns={setting: "setting", "value": "published"})
    for column in ("published", "tolerance"):
        table[column] = _numbers(path, table[column], low=0, blank=dash)
    if (twice := table.duplicated(["dataset", "setting", "metric"])).any():
        raise ValueError(f"{path.name}, line {twice.idxmax() + 2}: this data set, setting and metric came before")
    return table


def points(name: str) -> pd.DataFrame:
    """The published points of a figure, as they are in data/published/`name`.csv: its columns and rows, in file order.

    The columns that `facts` names are text, all others numbers, NaN where the source has none. Rates are fractions.
    ValueError if the name is unknown or the file malformed.
    """
    known, path = facts()["points"], _path(name)
    if name not in known:
        raise ValueError(f"unknown published points {name!r}; valid names: {', '.join(known)}")
    table = _read(path, known[name])
    for column in table.columns.difference(known[name]):
        table[column] = _numbers(path, table[column], blank=column in facts()["blank"]["columns"])
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
        same_key, variant = results.setdefault(_key(result), {}), result.get("variant", "")
        if variant in same_key:
            named = ", ".join(filter(None, (*_key(result), variant)))
            raise ValueError(f"two results for {named}; give each its own `variant`")
        same_key[variant] = result
    rows = [(row, results.pop(_key(row), {"": None})) for row in load(name).to_dict("records")]
    rows += [(None, found) for found in results.values()]
    return [_cell(result, row) for row, found in rows for result in found.values()]


def scorecard(cells: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """The cells as a table to look at: dataset, setting, metric, published, ours, low, high, tier, verdict."""
    table = pd.DataFrame(list(cells), columns=list(CELL)).drop(columns=["model", "note"])
    table = table.rename(columns={"value": "ours"})
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
    printed = load(name).pivot(index="dataset", columns="metric", values="published")
    return (printed["target_train_acc"] / (printed["target_train_acc"] + printed["target_test_acc"])).to_dict()


def implied(name: str) -> pd.DataFrame:
    """Printed numbers of a table beside what its other printed numbers imply, by the rules of `facts`.

    Columns dataset, setting, metric, published, implied, in file order. ValueError for a table without rules.
    """
    rules = facts()["implied"]
    if name not in rules:
        raise ValueError(f"no rules for {name!r}; tables with rules: {', '.join(rules)}")
    table, key = load(name), ["dataset", "setting", "metric"]
    printed = table.pivot(index=key[:2], columns="metric", values="published")
    found = pd.concat({metric: printed.eval(rule, engine="python") for metric, rule in rules[name].items()})
    found = found.rename_axis(["metric", *key[:2]]).rename("implied").reset_index()
    return table.merge(found, on=key)[[*key, "published", "implied"]]


def counts(cells: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many cells have each verdict, in the order of VERDICTS."""
    found = [cell["verdict"] for cell in cells]
    return {verdict: found.count(verdict) for verdict in VERDICTS}


def check_tiers(tiers: Iterable[str]) -> None:
    """ValueError for a tier that is none of TIERS."""
    for tier in tiers:
        if tier not in TIERS:
            raise ValueError(f"unknown tier {tier!r}; valid tiers: {', '.join(TIERS)}")


def short(value: float | None) -> str:
    """.123 for shares, 51.2 for distances."""
    if value is None:
        return "n/a"
    return re.sub(r"^(-?)0\.", r"\1.", f"{value:.3f}") if abs(value) < 10 else f"{value:.1f}"


def _path(name):
    return config.ROOT / "data" / "published" / f"{name}.csv"


def _read(path: Path, needed: Iterable[str]) -> pd.DataFrame:
    """The file as text, one row a line, so that row i is line i + 2."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    if missing := [column for column in needed if column not in header]:
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
        row, kind = bad.idxmax(), "a number from 0 up" if low == 0 else "a number"
        raise ValueError(f"{path.name}, line {row + 2}: {column.name} is {column[row]!r}; it must be {kind}")
    return numbers


def _check(result):
    valid = f"valid keys: {', '.join((*_REQUIRED, *_OPTIONAL))}"
    if missing := [key for key in _REQUIRED if key not in result]:
        raise ValueError(f"a result lacks {', '.join(missing)}; {valid}")
    if unknown := [key for key in result if key not in (*_REQUIRED, *_OPTIONAL)]:
        raise ValueError(f"a result has unknown keys {', '.join(unknown)}; {valid}")
    check_tiers([result["tier"]])


def _cell(result, row):
    """Our result beside the published row; None for the one that there is not."""
    blank = dict.fromkeys(("value", "low", "high", "tier")) | {"not_comparable": "not computed in this run"}
    about, printed = result or row | blank, _number(row["published"]) if row else None
    value, low, high = (_number(about[end]) for end in ("value", "low", "high"))
    model, verdict = about.get("model") or (row["model"] if row else ""), "not comparable"
    remarks = [
        "simulated data" if about["tier"] == "M" else "",
        about.get("not_comparable", ""),
        "undefined value" if result and value is None else "",
        "no published number" if result and printed is None else "",
    ]
    if not any(remarks):
        # Rounded, so that .73 against .68 is inside a tolerance of .05 whatever the binary fractions say.
        verdict = "reproduced" if round(abs(value - printed), 9) <= row["tolerance"] else "differs"
        remarks = [f"tolerance {row['tolerance']:g}"]
        guessed = row["metric"] in _GUESSED or "balanced_acc" in row["metric"]
        if guessed and abs(printed - 0.5) <= row["tolerance"]:
            remarks.append("chance (0.5) is within the tolerance too")
    if row and model != row["model"]:
        remarks.append(f"published for {row['model']}")
    note = "; ".join(filter(None, (*remarks, about.get("note", ""))))
    setting = ", ".join(filter(None, (about["setting"], about.get("variant", ""))))
    identity = about["dataset"], model, setting, about["metric"], printed
    return dict(zip(CELL, (*identity, value, low, high, about["tier"], verdict, note), strict=True))


def _number(value):
    """A float, or None where it is missing or not finite: records are strict JSON."""
    return float(value) if value is not None and math.isfinite(value) else None
