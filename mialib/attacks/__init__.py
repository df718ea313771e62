"""Attacks: pure functions from what the attacker saw to one score a record, larger = more likely a member."""

from dataclasses import dataclass

import numpy as np

from mialib import arrays


@dataclass(frozen=True)
class Observations:
    """Outputs of one model, or of several pooled, on records whose membership is known.

    Anything that `arrays` takes is taken; ValueError for lengths that differ, a class without a column, and what is
    not finite.
    """

    vectors: np.ndarray  # (n, classes): what the model gives out, prediction vectors unless said otherwise
    y: np.ndarray  # (n,) true classes, as numbers of the columns
    member: np.ndarray  # (n,) bool: was the record in that model's training set

    def __post_init__(self) -> None:
        vectors = arrays.records(self.vectors, "vectors")
        if vectors.ndim != 2 or not isinstance(vectors, np.ndarray):
            raise ValueError(f"vectors must be a dense array (records, classes), not {vectors.shape}")
        object.__setattr__(self, "vectors", vectors)
        object.__setattr__(self, "y", arrays.labels(self.y, *vectors.shape))
        object.__setattr__(self, "member", arrays.flags(self.member, len(vectors)))


@dataclass(frozen=True)
class Result:
    """An attack's answer on n records. `skipped`: classes it had no model for; their records count as non-members."""

    score: np.ndarray  # (n,)
    predicted: np.ndarray  # (n,) bool
    skipped: tuple[int, ...] = ()


def pool(observations: list[Observations]) -> Observations:
    """All observations as one."""
    fields = ("vectors", "y", "member")
    return Observations(*(np.concatenate([getattr(o, name) for o in observations]) for name in fields))


def balance(seen: Observations, rng: np.random.Generator) -> Observations:
    """Equally many members and non-members (Shokri et al. 2017, VI-D): the larger side is cut down at random."""
    sides = [rng.permutation(np.flatnonzero(seen.member == side)) for side in (True, False)]
    rows = np.concatenate([side[: min(map(len, sides))] for side in sides])
    return Observations(seen.vectors[rows], seen.y[rows], seen.member[rows])
