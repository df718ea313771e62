"""Who is trained on what: disjoint target and shadow records (Shokri et al. 2017, V-B and VI-C)."""

from dataclasses import dataclass

import numpy as np

from mialib import runs


@dataclass(frozen=True)
class Split:
    """Record numbers of one model: trained on `members`, never shown `non_members`."""

    members: np.ndarray
    non_members: np.ndarray


def targets_and_shadows(
    n: int, size: int, targets: int, shadows: int, seed: int, data: str = ""
) -> tuple[list[Split], list[Split]]:
    """Cut n records in two disjoint sides and draw each model's members and non-members from its side.

    Every model gets `size` members and as many non-members, drawn without replacement; models of one side may
    overlap each other, and no shadow shares a record with any target (VI-C). The shadow side is half of the
    records, or more where 2·size shadow records need it; where the target side then has less than 2·size records,
    its non-members are what is left of it. `data` (a name) keeps the draws of different data sets apart.

    Raises ValueError when fewer than 3·size + 1 records are there: no disjoint target and shadow sets of that size.
    """
    shadow_side = max(n // 2, 2 * size)
    if min(size, targets, shadows) < 1:
        raise ValueError(f"size, targets and shadows must be at least 1, not {size}, {targets} and {shadows}")
    if n - shadow_side <= size:
        raise ValueError(f"{n} records are too few for disjoint sets of {size}: at least {3 * size + 1} are needed")
    order = runs.stream(seed, "sides", data, n, size).permutation(n)
    sides = {"shadow": order[:shadow_side], "target": order[shadow_side:]}

    def draw(role: str, index: int) -> Split:
        rows = runs.stream(seed, "split", data, size, role, index).permutation(sides[role])
        return Split(rows[:size], rows[size : 2 * size])

    return [draw("target", i) for i in range(targets)], [draw("shadow", i) for i in range(shadows)]
