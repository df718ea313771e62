"""Leino & Fredrikson's attacks on six tables: 20 splits each, a target and 10 proxies, and the attacker's shadows.

Claim: three minutes on two cores. The sizes are those of notebook 24's `laptop`, one target a table.
"""

import time
from dataclasses import replace
from typing import Any

from benchmarks.measure import contender, show
from mialib.papers.leino2020 import experiments

SPLITS, PROXIES, MOST = 20, 10, 180
HERE = "benchmarks.proxies"


def ours() -> dict[str, float]:
    """Seconds of each table."""
    rows = {row.dataset: row for row in reversed(experiments.rows("laptop"))}  # the first of a table stays
    found = {}
    for name, row in rows.items():
        data = experiments.table(name, "laptop")
        start = time.perf_counter()
        experiments.attack(data, replace(row, targets=SPLITS, proxies=PROXIES), 0)
        found[f"{name}, {row.shadows} shadows"] = time.perf_counter() - start
    return found


def main() -> dict[str, Any]:
    found = contender(HERE, "ours")
    peak = found.pop("peak_mib")
    total = sum(found.values())
    show(f"{SPLITS} splits, {PROXIES} proxies", [{"table": name, "s": seconds} for name, seconds in found.items()])
    print(f"  together {total:.0f} s, {peak} MiB; claim: {MOST} s, {'holds' if total <= MOST else 'does not hold'}")
    return {"seconds": found, "total": total, "holds": total <= MOST, "peak_mib": peak}
