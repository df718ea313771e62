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


def swapped(
    n: int, size: int, targets: int, shadows: int, seed: int, data: str = ""
) -> tuple[list[Split], list[Split]]:
    """As `targets_and_shadows`, where n records are too few for four disjoint sets (n < 4·size).

    The records are cut in halves: targets have their members in one and their non-members in the other, shadows
    the other way round (as Choquette-Choo et al. 2021 do). So no record trains both a target and a shadow, but an
    attacker's shadows have seen the records she is asked about. ValueError when a half is smaller than `size`.
    """
    if min(size, targets, shadows) < 1:
        raise ValueError(f"size, targets and shadows must be at least 1, not {size}, {targets} and {shadows}")
    if n // 2 < size:
        raise ValueError(f"{n} records are too few for two disjoint sets of {size}")
    order = runs.stream(seed, "halves", data, n, size).permutation(n)
    halves = {"target": (order[: n // 2], order[n // 2 :]), "shadow": (order[n // 2 :], order[: n // 2])}

    def draw(role: str, index: int) -> Split:
        rng = runs.stream(seed, "swapped", data, size, role, index)
        return Split(*(rng.permutation(half)[:size] for half in halves[role]))

    return [draw("target", i) for i in range(targets)], [draw("shadow", i) for i in range(shadows)]


def unseen(X: np.ndarray, trained_on: np.ndarray) -> np.ndarray:
    """Rows of X that are equal to none of the records `trained_on`, of the same kind and shape."""
    met = {record.tobytes() for record in trained_on}
    return np.array([row for row, record in enumerate(X) if record.tobytes() not in met], np.int64)
