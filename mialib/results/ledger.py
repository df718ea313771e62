"""Where paper, arithmetic and released code disagree (data/published/ledger.csv), and what each point changes.

Claims and their evidence are written down; effects are computed, from the published tables and from the records that
notebooks save, in which a switch is a pair of variants ("labels swapped, as released" and "corrected").
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from mialib import config
from mialib.results.published import implied, short

COLUMNS = ("notebook", "claim", "evidence", "table", "metric", "where", "as_released", "otherwise", "effect")
_ROUNDING = 5e-4  # printed numbers have two digits of a percent


def points() -> pd.DataFrame:
    """The ledger as written: columns COLUMNS, all text. ValueError for other columns, or a point without an effect.

    `effect` is said in words, or computed: from `published.implied(table)` if there is a `table`, from pairs of cells
    that differ in a variant if there is `as_released`; `metric` and `where` are patterns that choose the cells.
    """
    table = pd.read_csv(config.ROOT / "data" / "published" / "ledger.csv", dtype=str, keep_default_na=False)
    if tuple(table.columns) != COLUMNS:
        raise ValueError(f"ledger.csv has the columns {', '.join(table.columns)}; it must have {', '.join(COLUMNS)}")
    for line, row in enumerate(table.itertuples(), start=2):
        computed = row.table or row.as_released
        if bool(row.effect) == bool(computed) or bool(computed) != bool(row.metric):
            raise ValueError(f"ledger.csv, line {line}: give an effect, or a metric with a table or as_released")
        if bool(row.as_released) != bool(row.otherwise):
            raise ValueError(f"ledger.csv, line {line}: as_released and otherwise go together")
    return table


def table(records: Iterable[Mapping[str, Any]], notebook: str = "") -> pd.DataFrame:
    """Claim, evidence and effect of every point, or those of one notebook ("18"): what readers see.

    `records`: those of `report.records`, or mappings with notebook and cells; a switch that is not in them says so.
    """
    cells = {record["notebook"][:2]: record["cells"] for record in records}
    rows = points()
    rows = rows[rows["notebook"] == notebook] if notebook else rows
    effects = [_effect(row, cells.get(row.notebook, [])) for row in rows.itertuples()]
    return rows[["notebook", "claim", "evidence"]].assign(effect=effects).set_index("notebook")


def _effect(row, cells) -> str:
    printed = _printed(row) if row.table else ""
    switched = _switched(row, cells) if row.as_released else ""
    return "; ".join(filter(None, (row.effect, printed, switched)))


def _printed(row) -> str:
    """The printed numbers that lie farthest from what the others imply."""
    found = implied(row.table)
    found = found[found["metric"].str.fullmatch(row.metric)]
    found = found.assign(off=(found["published"] - found["implied"]).abs())
    off = found[found["off"] > _ROUNDING]
    if off.empty:
        return f"all {len(found)} printed numbers agree"
    named = [
        f"{short(cell.published)} for {short(cell.implied)} ({cell.dataset}, {cell.setting}, {cell.metric})"
        for cell in off.nlargest(3, "off").itertuples()
    ]
    return f"printed for implied, the farthest of {len(found)}: {'; '.join(named)}"


def _switched(row, cells) -> str:
    """Both sides of a switch in our own cells: the medians over the pairs, and the largest change."""
    table = pairs(cells, row.metric, row.where, row.as_released, row.otherwise)
    if table.empty:
        return "ours: not computed in this profile"
    median, change = table.median(numeric_only=True), (table["otherwise"] - table["as_released"]).abs().max()
    sides = f"{short(median.as_released)} ({row.as_released}), {short(median.otherwise)} ({row.otherwise})"
    printed = f"; printed {short(median.published)}" if pd.notna(median.published) else ""
    return f"ours, median of {len(table)}: {sides}{printed}; largest change {short(change)}"


def pairs(
    cells: Iterable[Mapping[str, Any]], metric: str, where: str, as_released: str, otherwise: str
) -> pd.DataFrame:
    """Cells of a record that differ in one variant: dataset, setting, metric, published, as_released, otherwise.

    `metric` is the whole metric, `where` somewhere in "data set, setting": regular expressions. Pairs in which either
    side has no value are left out.
    """
    values = {(cell["dataset"], cell["setting"], cell["metric"]): cell["value"] for cell in cells}
    rows = []
    for cell in cells:
        here = f"{cell['dataset']}, {cell['setting']}"
        if as_released not in here or not re.fullmatch(metric, cell["metric"]) or not re.search(where, here):
            continue
        other = values.get((cell["dataset"], cell["setting"].replace(as_released, otherwise), cell["metric"]))
        if cell["value"] is not None and other is not None:
            rows.append({**cell, "as_released": cell["value"], "otherwise": other})
    columns = ["dataset", "setting", "metric", "published", "as_released", "otherwise"]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[3:], float))
