"""Attacks: what is asked of a model, and from its answers one score a record, larger = more likely a member."""

from collections.abc import Collection
from dataclasses import dataclass, field

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
    """An attack's answer on m records."""

    score: np.ndarray  # (m,)
    predicted: np.ndarray  # (m,) bool
    # Classes that it had no model for, some attacks map them to (members, non-members); nobody of them is a member.
    skipped: Collection[int] = ()
    rows: np.ndarray | None = None  # (m,) int64, ascending: which of the records were asked about; None: all


@dataclass(frozen=True)
class Attacked:
    """What attacks answered on one or several targets, of one setting of an experiment."""

    about: dict[str, str | int]  # what tables say of it, such as dataset, size, shadows, tier, setting
    accuracies: list[dict[str, float]]  # train_acc and test_acc of each target, on all its records
    records: list[Observations]  # of each target; the vectors as a mitigation gives them out
    answers: dict[str, list[Result]]  # attack -> its result on each target
    words: tuple  # seed words
    chosen: dict[str, str] = field(default_factory=dict)  # why an attack was chosen ("best") -> which
    validated: dict[str, float] = field(default_factory=dict)  # attack -> how well it did on the part for choosing

    def result(self, attack: str) -> Result:
        """The answer on the first target of an attack, by its own name or why it was chosen; ValueError otherwise."""
        name = self.chosen.get(attack, attack)
        if name not in self.answers:
            raise ValueError(f"unknown attack {attack!r}; valid: {'; '.join((*self.chosen, *self.answers))}")
        return self.answers[name][0]


SUBSETS = ("all", "correct", "misclassified")  # of records, by whether the target is right about them


def subset(right: np.ndarray, name: str) -> np.ndarray:
    """Which records one of SUBSETS has, bool (n,); right: bool (n,). ValueError for another name."""
    if name not in SUBSETS:
        raise ValueError(f"unknown subset {name!r}; valid: {', '.join(SUBSETS)}")
    return np.ones(len(right), bool) if name == "all" else right == (name == "correct")


def pool(observations: list[Observations]) -> Observations:
    """All observations as one."""
    fields = ("vectors", "y", "member")
    return Observations(*(np.concatenate([getattr(o, name) for o in observations]) for name in fields))


def balance(seen: Observations, rng: np.random.Generator) -> Observations:
    """Equally many members and non-members (Shokri et al. 2017, VI-D): the larger side is cut down at random."""
    rows = balanced(seen.member, rng)
    return Observations(seen.vectors[rows], seen.y[rows], seen.member[rows])


def balanced(member: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The records that `balance` keeps, as numbers; member: bool (n,)."""
    sides = [rng.permutation(np.flatnonzero(member == side)) for side in (True, False)]
    return np.concatenate([side[: min(map(len, sides))] for side in sides])
