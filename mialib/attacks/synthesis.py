"""Records for shadow models when the attacker has no data of the target's kind (Shokri et al. 2017, V-C).

Model-based synthesis asks the target alone, statistics-based synthesis needs the marginals of the features, and noisy
real data need records of the same kind. Features of the first and the last are 0 or 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mialib import runs

_STEP = 0x9E3779B97F4A7C15  # what SplitMix64 adds to its state for each number
# Numbers a record may use at each query: 0 to keep it or not, 1 to d for its first features, the others to choose k.
_QUERY = 2**32
_CHUNK = 1024  # records noise is added to at once
# A record in the making. "key" is the state of its own random numbers, "top" the best confidence so far.
_CLIMB = np.dtype([
    ("record", np.int64), ("label", np.int64), ("key", np.uint64), ("queries", np.int64),
    ("k", np.int64), ("rejected", np.int64), ("top", np.float64),
])  # fmt: skip


@dataclass(frozen=True)
class Search:
    """Parameters of Algorithm 1: the published values for purchases (VI-E); iter_max, not published, is our choice.

    `k_max` and `k_min` above the number of features count as that number. ValueError on values that make no sense.
    """

    k_max: int = 128  # features changed at a time, at first
    k_min: int = 4  # and at last
    rej_max: int = 10  # more rejections in a row than this halve k
    conf_min: float = 0.2  # a record is kept only above this confidence
    iter_max: int = 1000  # queries after which a record is given up

    def __post_init__(self) -> None:
        if not 1 <= self.k_min <= self.k_max or self.rej_max < 0 or self.iter_max < 1 or not 0 <= self.conf_min < 1:
            raise ValueError(f"1 ≤ k_min ≤ k_max, 0 ≤ rej_max, 0 ≤ conf_min < 1 and 1 ≤ iter_max must hold: {self}")


PUBLISHED = Search()


@dataclass(frozen=True)
class Synthetic:
    """What `synthesize` made: m records kept of the n that were wanted, in the order they were wanted in."""

    X: np.ndarray  # (m, d) uint8
    y: np.ndarray  # (m,) int64, the class the target gave
    confidence: np.ndarray  # (m,) of the target in that class
    wanted: np.ndarray  # (n,) int64, the class that was wanted
    kept: np.ndarray  # (n,) bool; False: timed out after iter_max queries
    queries: np.ndarray  # (n,) int64, records the target was asked about


def summary(made: Synthetic) -> dict[str, Any]:
    """Records wanted and kept, queries and confidence; nan for means over no record.

    "queries" is the mean over the records kept; "queries with failures" shares out those of failed records too.
    "timed out" gives {class: records that failed}, "classes without records" those where all failed.
    """
    kept = int(made.kept.sum())
    failed, tried = np.unique(made.wanted[~made.kept], return_counts=True), np.unique(made.wanted)
    return {
        "wanted": len(made.wanted),
        "kept": kept,
        "queries": float(made.queries[made.kept].mean()) if kept else np.nan,
        "queries with failures": float(made.queries.sum() / kept) if kept else np.nan,
        "confidence": float(made.confidence.mean()) if kept else np.nan,
        "timed out": dict(zip(failed[0].tolist(), failed[1].tolist(), strict=True)),
        "classes without records": np.setdiff1d(tried, made.y).tolist(),
    }


def synthesize(
    predict: Callable[[np.ndarray], np.ndarray],
    d: int,
    wanted: np.ndarray,
    words: tuple,
    search: Search = PUBLISHED,
    batch: int = 2048,
) -> Synthetic:
    """Algorithm 1 (V-C, VI-E): climb to records that the target is sure of, one for each entry of `wanted`.

    `predict` takes binary records (n, d) and gives probabilities (n, classes); `wanted` (n,) holds the class of each
    record to make. Up to `batch` records climb side by side, each on its own; the next one starts when one is done. A
    record has its own random numbers, from the seed `words` and its place in `wanted`, so `batch` does not change it
    (save for what a batch's size changes in the rounding of `predict`). A record not found within `iter_max` queries
    is reported as not kept.

    Raises ValueError when nothing is wanted, a class is out of range, the target has one class, or its answers are
    not probabilities: wrong shape, NaN, negative, or a sum that is off 1 by more than 0.001.
    """
    wanted = np.asarray(wanted)
    if wanted.ndim != 1 or not wanted.size or not np.issubdtype(wanted.dtype, np.integer) or min(d, batch) < 1:
        raise ValueError("wanted must list at least one class, as whole numbers, and d and batch must be at least 1")
    n = len(wanted)
    waiting = np.zeros(n, _CLIMB)
    waiting["record"], waiting["label"], waiting["k"] = np.arange(n), wanted, min(search.k_max, d)
    waiting["key"] = runs.stream(*words).integers(2**64, size=n, dtype=np.uint64)
    kept, queries, confidence = np.zeros(n, bool), np.zeros(n, np.int64), np.zeros(n)

    climbs, waiting = waiting[:batch].copy(), waiting[batch:]
    x, classes = _random_records(climbs["key"], d), None
    X, best = np.zeros((n, d), x.dtype), x.copy()
    while len(climbs):
        y = _probabilities(predict(x), len(x), wanted, classes)
        classes = y.shape[1]
        found = _judge(search, climbs, best, x, y)
        over = np.flatnonzero(found | (climbs["queries"] == search.iter_max))
        done = climbs["record"][found]
        kept[done], confidence[done], X[done] = True, climbs["top"][found], x[found]
        queries[climbs["record"][over]] = climbs["queries"][over]
        new, waiting = waiting[: len(over)], waiting[len(over) :]
        climbs[over[: len(new)]] = new
        if len(idle := over[len(new) :]):
            climbs, best = np.delete(climbs, idle), np.delete(best, idle, axis=0)
        x = _propose(climbs, best)
    return Synthetic(X[kept], wanted[kept].astype(np.int64), confidence[kept], wanted.astype(np.int64), kept, queries)


def _probabilities(y: Any, n: int, wanted: np.ndarray, classes: int | None) -> np.ndarray:
    """The target's answer about n records, checked; `classes` is None at the first one."""
    y = np.asarray(y)
    if y.ndim != 2 or len(y) != n or classes not in (None, y.shape[1]):
        raise ValueError(f"predict gave shape {y.shape}, not ({n}, {classes or 'classes'})")
    if y.shape[1] < 2:
        raise ValueError("the target has one class: it is sure of every record, so nothing can be learnt from it")
    if wanted.min() < 0 or wanted.max() >= y.shape[1]:
        raise ValueError(f"wanted holds classes {wanted.min()} to {wanted.max()}, the target has 0 to {y.shape[1] - 1}")
    if not (y >= 0).all() or not (abs(y.sum(1) - 1) <= 1e-3).all():
        raise ValueError("predict must give probabilities: not NaN, not negative, each row summing to 1")
    return y


def _judge(search: Search, climbs: np.ndarray, best: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Accept or reject each x (one pass of Algorithm 1's loop), in `climbs` and `best`; returns which are found."""
    sure = np.take_along_axis(y, climbs["label"][:, None], 1)[:, 0]
    accepted = sure >= climbs["top"]
    chosen = (sure > search.conf_min) & (y.argmax(1) == climbs["label"])
    found = accepted & chosen & (_uniform(climbs["key"], 0) < sure)
    best[accepted] = x[accepted]
    climbs["top"] = np.where(accepted, sure, climbs["top"])
    climbs["queries"] += 1
    climbs["key"] += np.uint64(_QUERY * _STEP % 2**64)
    climbs["rejected"] = np.where(accepted, 0, climbs["rejected"] + 1)
    tired = climbs["rejected"] > search.rej_max
    climbs["rejected"][tired] = 0
    climbs["k"][tired] = np.maximum(min(search.k_min, x.shape[1]), -(-climbs["k"][tired] // 2))
    return found


def _propose(climbs: np.ndarray, best: np.ndarray) -> np.ndarray:
    """The next record to ask about: a random one at the start, else the best with k features changed."""
    d = best.shape[1]
    x = best ^ _subsets(climbs["key"], climbs["k"], d)
    new = climbs["queries"] == 0
    x[new] = _random_records(climbs["key"][new], d)
    return x


def _random_records(key: np.ndarray, d: int) -> np.ndarray:
    """One record a key, every feature 0 or 1 with the same probability: (n, d) uint8."""
    return (_uniform(key[:, None], 1 + np.arange(d)) >= 0.5).astype(np.uint8)


def _uniform(key: np.ndarray, slot: np.ndarray | int) -> np.ndarray:
    """Numbers in [0, 1), by broadcasting: what SplitMix64 gives in the state that is `slot` steps after `key`.

    Steele, Lea & Flood 2014. Any number of any record is had without drawing those before it.
    """
    z = key + np.asarray(slot, np.uint64) * np.uint64(_STEP)
    shifted = np.empty_like(z)  # a new array at each step would take longer than the arithmetic
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        z ^= np.right_shift(z, np.uint64(shift), out=shifted)
        z *= np.uint64(factor)
    return np.right_shift(z, np.uint64(11), out=shifted) * 2.0**-53


def _subsets(key: np.ndarray, k: np.ndarray, d: int) -> np.ndarray:
    """bool (n, d): k[i] different features of d in row i, every choice as likely, from numbers of key[i].

    Features are drawn until enough different ones have come up; for more than half of d, those left out are drawn.
    """
    few, used = np.minimum(k, d - k), np.full(len(k), d + 1)  # slots up to d have other uses, see `_QUERY`
    taken = np.zeros((len(k), d), bool)
    rows, lacking = np.arange(len(k)), few
    while len(rows):
        slot = used[rows] + lacking - np.cumsum(lacking)  # such that the row's first draw, in the count of all, is next
        state = np.repeat(key[rows] + slot.astype(np.uint64) * np.uint64(_STEP), lacking)
        place = (_uniform(state, np.arange(len(state), dtype=np.uint64)) * d).astype(np.int64)
        place += np.repeat(rows * d, lacking)
        taken.reshape(-1)[place] = True
        used[rows] += lacking
        lacking = few[rows] - taken[rows].view(np.uint8).sum(1, dtype=np.int32)
        rows, lacking = rows[lacking > 0], lacking[lacking > 0]
    return taken ^ (few < k)[:, None]


def marginal(X: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Statistics-based synthesis (V-C): n records (n, d), each feature drawn from its own values in X (m, d), dense.

    ValueError unless X is a dense matrix with at least one record, and n at least 1.
    """
    if not isinstance(X, np.ndarray) or X.ndim != 2 or not X.size or n < 1:
        raise ValueError("X must be a dense matrix with at least one record and one feature, and n at least 1")
    out = np.empty((n, X.shape[1]), X.dtype)
    for column in range(X.shape[1]):
        out[:, column] = X[:, column].copy()[rng.integers(len(X), size=n)]
    return out


def flipped(X: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Noisy real data as the text has it (V-C): round(share·d) random features of each record flipped.

    X (n, d) binary, dense; returns the same shape and dtype. ValueError otherwise, or for a share outside 0 to 1.
    """
    return np.where(_some(X, share, rng), X == 0, X).astype(X.dtype)


def replaced(X: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Noisy real data as the caption of Fig 8 has it: as many features replaced by 0 or 1 at random.

    About half of them change. Input, output and errors as in `flipped`.
    """
    return np.where(_some(X, share, rng), rng.integers(2, size=X.shape, dtype=np.uint8), X).astype(X.dtype)


def _some(X: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Random places, bool (n, d): round(share·d) in each row of X."""
    if not isinstance(X, np.ndarray) or X.ndim != 2 or not ((X == 0) | (X == 1)).all():
        raise ValueError("X must be a dense matrix of zeros and ones")
    if not 0 <= share <= 1:
        raise ValueError(f"share must be from 0 to 1, not {share}")
    n, d = X.shape
    keys, k = rng.integers(2**64, size=n, dtype=np.uint64), np.full(_CHUNK, round(share * d))
    chunks = [keys[at : at + _CHUNK] for at in range(0, max(n, 1), _CHUNK)]
    return np.concatenate([_subsets(chunk, k[: len(chunk)], d) for chunk in chunks])
