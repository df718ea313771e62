"""Shokri et al. 2017, V: train targets and shadows, ask each about its members and as many non-members."""

from collections.abc import Callable

import numpy as np

from mialib import models, training
from mialib.attacks import Observations
from mialib.config import Row
from mialib.datasets import Dataset
from mialib.splits import Split, targets_and_shadows


def observe(
    data: Dataset, row: Row, seed: int, l2: float = 0.0, split: Callable = targets_and_shadows
) -> tuple[list[Observations], list[Observations]]:
    """Train `row.targets` target and `row.shadows` shadow models; returns what each says of its records, as logits.

    All are networks of `architecture`, trained alike; no shadow shares a training record with a target. `l2`: weight
    of the penalty Σθ² (VIII-A), for targets and shadows both. `split`: a function of `splits`.
    """
    targets, shadows = split(data.X.shape[0], row.size, row.targets, row.shadows, seed, data.name)
    return observe_side(data, row, seed, "target", targets, l2), observe_side(data, row, seed, "shadow", shadows, l2)


def observe_side(
    data: Dataset, row: Row, seed: int, role: str, side: list[Split], l2: float = 0.0
) -> list[Observations]:
    """Train and ask one model a split of `side`; `role` ("target", "shadow") and seed name their random streams."""
    model, thetas = architecture(data, row), parameters(data, row, seed, role, side, l2)
    return [ask(model, theta, data, split) for theta, split in zip(thetas, side, strict=True)]


def parameters(data: Dataset, row: Row, seed: int, role: str, side: list[Split], l2: float = 0.0) -> np.ndarray:
    """The parameters of the models that `observe_side` asks, (models, n_parameters)."""
    recipe = training.Recipe(row.epochs, row.batch, l2=l2)
    words = [(seed, role, data.name, row.size, i) for i in range(len(side))]
    members = [split.members for split in side]
    return training.fit_many(architecture(data, row), recipe, data.X, data.y, members, words)


def architecture(data: Dataset, row: Row) -> models.Model:
    """The paper's local networks (VI-B): for images its CNN, for others one hidden layer of tanh units."""
    if data.X.ndim > 2:
        return models.CNN(data.X.shape[1:], data.classes, row.hidden)
    return models.MLP((data.X.shape[1], row.hidden, data.classes))


def ask(model: models.Model, theta: np.ndarray, data: Dataset, split: Split) -> Observations:
    """What a model says of its members and non-members, as logits."""
    rows = np.concatenate([split.members, split.non_members])
    return Observations(
        training.ask(model, theta, data.X[rows]), data.y[rows], np.arange(len(rows)) < len(split.members)
    )
