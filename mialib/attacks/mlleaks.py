"""The attack of ML-Leaks that learns from one shadow model (Salem et al. 2019, section III)."""

from dataclasses import replace

import numpy as np

from mialib.attacks import Observations, Result, classifiers

ADVERSARY_1 = "adversary 1"


def adversary_1(shadow: Observations, targets: list[Observations], words: tuple) -> list[Result]:
    """One attack network for all classes, on the three largest probabilities in order (two where there are two).

    shadow: what one shadow model says of its members and of others; words: seed words. The network and its training are
    `classifiers.attack`'s "nn", 64 hidden units, as ML-Leaks' has.
    """
    found = classifiers.attack("nn", _largest(shadow), [_largest(target) for target in targets], (*words, ADVERSARY_1))
    return [replace(result, skipped=()) for result in found]  # there are no classes here that could lack a model


def _largest(seen: Observations) -> Observations:
    """The same records as if all of one class."""
    return Observations(-np.sort(-seen.vectors, axis=1)[:, :3], np.zeros(len(seen.y), np.int64), seen.member)
