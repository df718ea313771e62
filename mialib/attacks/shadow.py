"""Shokri et al. 2017, V: train models, ask each about its members and as many non-members."""

from collections.abc import Callable, Sequence

import numpy as np

from mialib.attacks import Observations, signals
from mialib.data.splits import Split
from mialib.models import fit
from mialib.models.fit import Recipe, Records
from mialib.models.small import Model


def observe(
    model: Model, recipe: Recipe, X: Records, y: np.ndarray, side: Sequence[Split], words: Sequence[tuple]
) -> list[Observations]:
    """Train one model on the members of each split; returns what each says of its records, as logits.

    X, y, words: as `fit.fit_many` takes them, which also says what is raised.
    """
    thetas = fit.fit_many(model, recipe, X, y, [split.members for split in side], words)
    return [_ask(model, theta, X, y, split) for theta, split in zip(thetas, side, strict=True)]


def _ask(model: Model, theta: np.ndarray, X: Records, y: np.ndarray, split: Split) -> Observations:
    return seen(lambda rows: fit.ask(model, theta, X[rows]), y, split)


def seen(answer: Callable[[np.ndarray], np.ndarray], y: np.ndarray, split: Split) -> Observations:
    """What `answer`, a function of record numbers, says of the members and the non-members of a split."""
    rows = np.concatenate([split.members, split.non_members])
    return Observations(answer(rows), y[rows], np.arange(len(rows)) < len(split.members))


def accuracies(seen: Observations) -> dict[str, float]:
    """Train and test accuracy of a model: on those of the observed records that it learnt, and on the others."""
    right = signals.correct(seen.vectors, seen.y)
    return {"train_acc": right[seen.member].mean(), "test_acc": right[~seen.member].mean()}
