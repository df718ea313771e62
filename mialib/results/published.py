"""The papers' printed numbers (data/published/*.csv) and the one comparison of our results with them."""

import csv
import functools
import math
import operator
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mialib import config

VERDICTS = ("reproduced", "differs", "undecided", "not comparable")
CELL = ("dataset", "model", "setting", "metric", "published", "std", "tolerance", "value", "low", "high", "tier")
CELL += ("verdict", "point_verdict", "primary", "chance", "cause", "note")
TIERS = {"R": "real", "S": "substitute", "M": "simulated"}
FEWEST = {"classes": 5, "records": 20}  # an interval over fewer, or from fewer of a side, bears no verdict
_ABSENT = "not computed in this run"
_FAR = re.compile(r"(.*_)?far(@.*)?")
_REQUIRED = ("dataset", "setting", "metric", "value", "low", "high", "tier")
_OPTIONAL = ("model", "variant", "note", "not_comparable", "classes", "records", "members")
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
    """One published table: dataset, model, setting, metric, published, std, tolerance, primary, source, in file order.

    `setting` is the content of the column of that name, or of the one that `facts` names: Table III's mitigation,
    Fig 4's training size, "all" where each data set has one setting; "AlexNet, correct" for Rezaei & Liu. `tolerance`
    is absolute and was fixed before any run, as was `primary`, the variant that the headline counts. `published` is nan
    where the paper prints a dash, `std` where it prints no spread; files without std or primary have none. ValueError
    if the name is unknown or the file malformed.
    """
    path, setting = _path(name), facts()["setting"].get(name, "setting")
    if name not in (facts()["setting"].keys() | tables()):
        raise ValueError(f"unknown published table {name!r}; valid tables: {', '.join(tables())}")
    columns = ["dataset", "model", setting, "metric", "value", "tolerance", "source"]
    table = _read(path, columns)
    dash = table["raw"].eq("-") if "raw" in table else False
    table = table.assign(**{column: "" for column in ("std", "primary") if column not in table})
    table = table[[*columns[:5], "std", "tolerance", "primary", "source"]]
    table = table.rename(columns={setting: "setting", "value": "published"})
    for column, blank in (("published", dash), ("std", True), ("tolerance", dash)):
        table[column] = _numbers(path, table[column], low=0, blank=blank)
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
    """Our results beside the published table `name`: cells (keys CELL), published numbers first, then ours without one.

    Each result has dataset, setting, metric (together the key into `load(name)`), value, low, high (its 95 % interval)
    and tier ("R" real, "S" substitute, "M" simulated), and may have model (what we ran), note, not_comparable (why a
    verdict would mean nothing, e.g. "demo profile"), classes (how many its interval is over), records (the fewest of
    a side that it rests on), members (their share among the records asked; 1/2) and variant, which sets apart
    several results held against one published number (a training size) and is added to the cell's setting.

    Verdicts are those of data/published/README.md, "The rule": see `verdict`, and `_reasons` for "not comparable".
    `point_verdict` is that of the value alone, `chance` the `baseline`, `cause` why there is no clear verdict.
    `primary` marks the one cell of each published number that `counts` counts: the result of the variant that the
    table names, or one "not computed in this run". Nothing published is dropped. ValueError for missing or unknown
    keys, an unknown tier, an interval that ends before it begins, or two results with the same key.
    """
    results: dict[tuple[str, str, str], dict[str, Mapping[str, Any]]] = {}
    for result in ours:
        _check(result)
        same_key, variant = results.setdefault(_key(result), {}), result.get("variant", "")
        if variant in same_key:
            named = ", ".join(filter(None, (*_key(result), variant)))
            raise ValueError(f"two results for {named}; give each its own `variant`")
        same_key[variant] = result
    rows = {_key(row): row for row in load(name).to_dict("records")}
    cells = []
    for key in [*rows, *(key for key in results if key not in rows)]:
        row, found = rows.get(key), results.get(key, {})
        cells += [_cell(result, row, results) for result in found.values()]
        if row and row["primary"] not in found:
            absent = dict.fromkeys(("value", "low", "high", "tier")) | {"variant": row["primary"]}
            cells.append(_cell(row | absent | {"not_comparable": _ABSENT}, row, results))
    return cells


def verdict(low: float | None, high: float | None, published: float, tolerance: float) -> str:
    """What our interval says of published ± tolerance: it lies within (ends included), wholly outside, or neither.

    Without an interval it is "undecided". Rounded, so that .73 against .68 is inside a tolerance of .05 whatever the
    binary fractions say.
    """
    if low is None or high is None:
        return "undecided"
    if round(min(low - published, published - high) + tolerance, 9) >= 0:
        return "reproduced"
    return "differs" if round(max(low - published, published - high) - tolerance, 9) > 0 else "undecided"


def baseline(metric: str, members: float = 0.5) -> float | None:
    """What guessing reaches on a published metric, where `members` is the share of members; None where nothing does.

    Whoever calls everyone a member has recall 1 and precision `members`, in each class too if all have that share;
    Table 2's rates of non-members are those of whoever calls everyone a non-member. Accuracy is that of the
    larger side, and averages over both sides are 1/2. FAR has no such level, nor has what is no attack's rate.
    """
    rate = re.sub(r"@.*|_(?:mean|p\d+)(?:_points)?$", "", metric)
    if "balanced_acc" in rate or "macro" in rate:
        return 0.5
    if rate in ("attack_recall", "class_recall", "recall_member", "recall_nonmember"):
        return 1.0
    levels = dict.fromkeys(("attack_precision", "class_precision", "precision_member"), members)
    levels |= dict.fromkeys(("attack_acc", "attack_total_acc"), max(members, 1 - members))
    levels |= {"precision_nonmember": 1 - members, "attack_f1": 2 * members / (1 + members)}
    return levels.get(rate)


def scorecard(cells: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """The cells as a table to look at, the published spread beside the published value, and which reading it is."""
    table = pd.DataFrame(list(cells), columns=list(CELL)).rename(columns={"value": "ours"})
    table["reading"] = table["primary"].map({True: "primary", False: "other"})
    shown = ["dataset", "setting", "metric", "published", "std", "ours", "low", "high", "tier", "reading"]
    table = table[[*shown, "verdict", "point_verdict"]]
    return table.astype(dict.fromkeys(("published", "std", "ours", "low", "high"), float))


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


def primary(cells: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The cells that stand for the distinct published numbers, one each: their primary readings."""
    return [cell for cell in cells if cell["published"] is not None and cell["primary"]]


def counts(cells: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many distinct published numbers have each verdict, by their primary reading, in the order of VERDICTS.

    All that counts verdicts does so here: notebooks, readings, gallery, site, citations, overview.
    """
    found = [cell["verdict"] for cell in primary(cells)]
    return {verdict: found.count(verdict) for verdict in VERDICTS}


def guessed(cells: Iterable[Mapping[str, Any]]) -> int:
    """How many of the numbers that `counts` has as reproduced are reached by guessing too."""
    return sum(cell["verdict"] == "reproduced" and _meets_chance(cell) for cell in primary(cells))


def causes(cells: Iterable[Mapping[str, Any]], kind: str) -> Counter[str]:
    """Cause -> how many of the numbers that `counts` has under a verdict have it; the commonest first."""
    found = Counter(cell["cause"] or "no cause is given" for cell in primary(cells) if cell["verdict"] == kind)
    return Counter(dict(found.most_common()))


def headline(cells: Iterable[Mapping[str, Any]]) -> str:
    """The counts in words: "27 published numbers: 9 reproduced (2 of them reached by guessing too), 3 differ, …".

    Of the causes of "not comparable" the three commonest are named.
    """
    cells = primary(cells)
    if not cells:
        return "No published numbers."
    same, other, unclear, neither = counts(cells).values()
    chance = f" ({count} of them reached by guessing too)" if (count := guessed(cells)) else ""
    found = list(causes(cells, "not comparable").items())
    named = [f"{cause.replace('; ', ' and ')}: {count}" for cause, count in found[:3]]
    if len(found) > 3:
        named.append(f"other causes: {sum(count for _, count in found[3:])}")
    because = f" ({', '.join(named)})" if named else ""
    counted = f"{same} reproduced{chance}, {other} differ, {unclear} undecided, {neither} not comparable{because}"
    return f"{len(cells)} published number{'s' if len(cells) > 1 else ''}: {counted}."


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


def off_point(ours: Sequence[float], theirs: Sequence[float], near: float) -> str:
    """How a target's train and test accuracy differ from the printed ones; "" where both are within `near` of them."""
    if all(round(abs(one - other), 9) <= near for one, other in zip(ours, theirs, strict=True)):
        return ""
    return "train and test accuracy {} and {}, printed {} and {}".format(*map(short, (*ours, *theirs)))


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
    low, high = (_number(result[end]) for end in ("low", "high"))
    if None not in (low, high) and low > high:
        raise ValueError(f"the interval of {', '.join(_key(result))} ends at {high:g} before it begins at {low:g}")


def _cell(result, row, results):
    """Our result beside the published row; None for the one that there is not. `results`: all, by key and variant."""
    printed, std, tolerance = (_number(row[key]) if row else None for key in ("published", "std", "tolerance"))
    value, low, high = (_number(result[end]) for end in ("value", "low", "high"))
    model = result.get("model") or (row["model"] if row else "")
    chance = baseline(result["metric"], result.get("members", 0.5))
    cell = dict(zip(CELL, (result["dataset"], model, "", result["metric"], printed, std, tolerance), strict=False))
    cell |= {"value": value, "low": low, "high": high, "tier": result["tier"], "chance": chance}
    cell["primary"] = row is not None and result.get("variant", "") == row["primary"]
    cell["setting"] = ", ".join(filter(None, (result["setting"], result.get("variant", ""))))
    always, by_rule = _reasons(result, printed, results)
    cell["point_verdict"] = cell["verdict"] = "not comparable"
    if not always:
        cell["point_verdict"] = "reproduced" if round(abs(value - printed), 9) <= tolerance else "differs"
    if not (always or by_rule):
        cell["verdict"] = verdict(low, high, printed, tolerance)
    cell["cause"] = "; ".join(always or by_rule)
    if cell["verdict"] == "undecided":
        cell["cause"] = "no interval" if None in (low, high) else "the interval crosses the tolerance"
    remarks = [cell["cause"], "" if always else f"tolerance {tolerance:g}"]
    if not always and _meets_chance(cell):
        remarks.append(f"chance ({chance:.3g}) is within the tolerance too")
    if row and model != row["model"]:
        remarks.append(f"published for {row['model']}")
    cell["note"] = "; ".join(filter(None, (*remarks, result.get("note", ""))))
    return {key: cell[key] for key in CELL}


def _reasons(result, printed, results):
    """Why a result has no verdict: by what it is, and, only where that is nothing, by the rule of what supports one."""
    absent = result.get("not_comparable", "")
    always = [
        "simulated data" if result["tier"] == "M" else "",
        absent,
        "undefined value" if _number(result["value"]) is None and absent != _ABSENT else "",
        "no published number" if printed is None and absent != _ABSENT else "",
    ]
    few = [
        f"fewer than {fewest} {what}"
        for what, fewest in FEWEST.items()
        if (number := _number(result.get(what))) is not None and number < fewest
    ]
    always = [reason for reason in always if reason]
    return always, few or ([reason] if (reason := _tells_nothing(result, results)) else [])


def _tells_nothing(result, results):
    """Why a false-alarm rate has no verdict: the balanced accuracy of its attack is not known to leave 1/2."""
    if not _FAR.fullmatch(result["metric"]):
        return ""
    # That of the same variant, or of the nearest one that says less: FAR may be read with the labels swapped.
    parts = set(result.get("variant", "").split(", "))
    beside = results.get((result["dataset"], result["setting"], result["metric"].replace("far", "balanced_acc")), {})
    near = {variant: kept for variant in beside if (kept := set(variant.split(", ")) - {""}) <= parts}
    if not near:
        return "FAR without a balanced accuracy beside it"
    low, high = (_number(beside[max(near, key=lambda variant: len(near[variant]))][end]) for end in ("low", "high"))
    leaves = None not in (low, high) and not low <= 0.5 <= high
    return "" if leaves else "FAR of an attack whose balanced accuracy may be .5"


def _meets_chance(cell):
    """Whether what guessing reaches is within the tolerance too."""
    known = None not in (cell["chance"], cell["published"])
    return known and round(abs(cell["published"] - cell["chance"]), 9) <= cell["tolerance"]


def _number(value):
    """A float, or None where it is missing or not finite: records are strict JSON."""
    return float(value) if value is not None and math.isfinite(value) else None
