"""Shokri et al. 2017, V: train targets and shadows, ask each about its members and as many non-members."""

import numpy as np

from mialib import models, training
from mialib.attacks import Observations
from mialib.config import Row
from mialib.datasets import Dataset
from mialib.splits import Split, targets_and_shadows


def observe(data: Dataset, row: Row, seed: int, l2: float = 0.0) -> tuple[list[Observations], list[Observations]]:
    """Train `row.targets` target and `row.shadows` shadow models; returns what each says of its records, as logits.

    All are networks of one hidden layer of `row.hidden` tanh units (VI-B), trained alike; no shadow shares a
    record with a target (see `splits`). `l2`: weight of the penalty Σθ² (VIII-A), for targets and shadows both.
    """
    targets, shadows = targets_and_shadows(data.X.shape[0], row.size, row.targets, row.shadows, seed, data.name)
    model = models.MLP((data.X.shape[1], row.hidden, data.classes))
    recipe = training.Recipe(row.epochs, row.batch, l2=l2)
    words = [
        (seed, role, data.name, row.size, i)
        for role, side in (("target", targets), ("shadow", shadows))
        for i in range(len(side))
    ]
    everyone = targets + shadows
    thetas = training.fit_many(model, recipe, data.X, data.y, [split.members for split in everyone], words)
    seen = [_ask(model, theta, data, split) for theta, split in zip(thetas, everyone, strict=True)]
    return seen[: row.targets], seen[row.targets :]


def _ask(model: models.MLP, theta: np.ndarray, data: Dataset, split: Split) -> Observations:
    rows = np.concatenate([split.members, split.non_members])
    member = np.arange(len(rows)) < len(split.members)
    return Observations(models.logits(model, theta, data.X[rows]), data.y[rows], member)
