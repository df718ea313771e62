"""HopSkipJump (Chen, Jordan & Wainwright 2020): the distance to a decision boundary of a model that gives labels alone.

Their Algorithm 2 for the L2 norm, one record at a time: bisection to the boundary, the direction of its normal from
the labels of points around (Monte Carlo), a step along it that is halved until it leads outside, and so on from there.
Three things are ours: the nearest point of all steps counts, not that of the last; how far apart the points around lie
follows from the distance after the bisection; where no noise is outside, a record of another label is the start.

Choquette-Choo et al. 2021 call a record the likelier a member the farther it is from the boundary.
`benchmarks/conformance.py` holds the distances against those of a library.
"""

import math
from collections.abc import Callable

import numpy as np

from mialib import arrays

FIRST = 100  # points that show the normal's direction at first; the square root of the step times as many later
STARTS = 100  # points of noise that are tried as a first one outside
SCALE = 0.1  # of the range of values: how far apart points around the first one lie

Answer = Callable[[np.ndarray], np.ndarray]  # points (m, …) -> labels (m,)


def distances(
    answer: Answer,
    X: np.ndarray,
    y: np.ndarray,
    queries: int,
    rng: np.random.Generator,
    bounds: tuple[float, float] = (0.0, 1.0),
    others: np.ndarray | None = None,
) -> np.ndarray:
    """L2 distance of each record to the nearest point found that is given another label than y; float64 (n,).

    X: numbers (n, …) within `bounds`, which no point leaves; y (n,): true classes, so the distance of a record that is
    misclassified is 0, at the cost of one query. queries: most that are asked about a record. others (k, …): records
    to start from where no noise has another label, of which the nearest that has one is taken; nan where there is none.
    ValueError for values out of bounds, and too few queries for a first direction.
    """
    X, y = np.asarray(X, np.float32), arrays.labels(y, len(X))
    low, high = bounds
    if not (low <= X).all() or not (high >= X).all():
        raise ValueError(f"records have values outside {low:g}..{high:g}")
    others = np.empty((0, *X.shape[1:]), np.float32) if others is None else np.asarray(others, np.float32)
    if queries < (least := STARTS + len(others) + FIRST):
        raise ValueError(f"{queries} queries are too few: a start and a first direction take {least}")
    wrong = np.asarray(answer(X)) != y
    found = np.zeros(len(X))
    for i in np.flatnonzero(~wrong):
        found[i] = _nearest(answer, X[i], int(y[i]), queries - 1, rng, low, high, others)
    return found


def _nearest(
    answer: Answer,
    x: np.ndarray,
    label: int,
    queries: int,
    rng: np.random.Generator,
    low: float,
    high: float,
    others: np.ndarray,
) -> float:
    asked, halvings = 0, math.ceil(1.5 * math.log2(x.size))

    def outside(points: np.ndarray) -> np.ndarray:
        nonlocal asked
        asked += len(points)
        return np.asarray(answer(points)) != label

    def boundary(there: np.ndarray) -> np.ndarray:
        """The point outside that bisection of the way from x leaves: to 1 / d^1.5 of the way, as the authors do."""
        inner, outer = 0.0, 1.0
        for _ in range(halvings):
            middle = (inner + outer) / 2
            if outside((x + middle * (there - x))[None])[0]:
                outer = middle
            else:
                inner = middle
        return (x + outer * (there - x)).astype(np.float32)

    start = rng.uniform(low, high, (STARTS, *x.shape)).astype(np.float32)
    start = start[outside(start)][:1]
    if not len(start) and len(others):
        away = others[outside(others)]
        start = away[np.argsort(((away - x) ** 2).reshape(len(away), x.size).sum(1))[:1]]
    if not len(start):
        return math.nan
    here, best, step = boundary(start[0]), math.inf, 0
    while True:
        distance = float(np.linalg.norm(here - x))
        best, step = min(best, distance), step + 1
        count = int(FIRST * math.sqrt(step))
        if asked + count + 1 + halvings > queries or not distance:
            return best
        radius = SCALE * (high - low) if step == 1 else distance / x.size
        way = _normal(outside, here, count, radius, rng, low, high) * distance / math.sqrt(step)
        while not outside(there := np.clip(here + way, low, high)[None])[0]:
            way /= 2
            if asked + halvings >= queries:
                return best
        here = boundary(there[0])


def _normal(
    outside: Answer, here: np.ndarray, count: int, radius: float, rng: np.random.Generator, low: float, high: float
) -> np.ndarray:
    """The direction that leads outside, of length 1: the mean of the ways that do, less that of those that do not."""
    ways = rng.standard_normal((count, *here.shape), np.float32)
    axes = tuple(range(1, ways.ndim))
    points = np.clip(here + radius * ways / np.sqrt((ways**2).sum(axes, keepdims=True)), low, high)
    signs = 2.0 * outside(points) - 1
    if abs(signs.mean()) < 1:
        signs -= signs.mean()  # the authors' control variate
    way = np.tensordot(signs.astype(np.float32), points - here, 1)
    return way / np.linalg.norm(way)
