"""Attacks that any other must beat: ZeroR, the gap attack, and a confidence threshold per class."""

import numpy as np

from mialib import arrays
from mialib.attacks import Observations, Result, signals


def zero_r(target: Observations) -> Result:
    """Everybody is a member: balanced accuracy 1/2, FPR 1 (Rezaei & Liu 2020, Table 2)."""
    n = len(target.y)
    return Result(np.zeros(n), np.ones(n, bool))


def gap(target: Observations) -> Result:
    """Member if and only if classified correctly: balanced accuracy 1/2 + (train - test accuracy)/2.

    Rezaei & Liu 2020 call it the naive attack. It needs no shadow models and nothing but the label.
    """
    right = signals.correct(target.vectors, target.y)
    return Result(right.astype(float), right)


def confidence_threshold(shadow: Observations, target: Observations) -> Result:
    """Member if the confidence in the true class reaches a threshold learnt on shadow models, one a class.

    Each threshold maximises (TPR + TNR)/2 over all values seen (Song & Mittal 2021); a class the shadows saw on
    one side only takes the threshold of all classes together. Score: confidence minus threshold.
    """
    seen, asked = signals.true_class(shadow.vectors, shadow.y), signals.true_class(target.vectors, target.y)
    thresholds = np.full(target.vectors.shape[1], best_threshold(seen, shadow.member))
    for label in np.unique(shadow.y):
        rows = shadow.y == label
        if 0 < shadow.member[rows].sum() < rows.sum():
            thresholds[label] = best_threshold(seen[rows], shadow.member[rows])
    score = asked - thresholds[target.y]
    return Result(score, score >= 0)


def best_threshold(score: np.ndarray, member: np.ndarray) -> float:
    """The value t for which "score >= t" has the best balanced accuracy; the largest such value among equals."""
    member = arrays.flags(member, len(score))
    order = np.argsort(-score, kind="stable")
    ranked, hits = score[order], member[order]
    last = np.append(ranked[1:] != ranked[:-1], True)  # a threshold takes all records of one value
    gain = np.cumsum(hits) / max(hits.sum(), 1) - np.cumsum(~hits) / max((~hits).sum(), 1)
    return float(ranked[last][np.argmax(gain[last])])
