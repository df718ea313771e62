"""Networks that are trained further, on other records, from where their training has ended."""

from collections.abc import Sequence

import numpy as np
import torch

from mialib import arrays, runs, work
from mialib.models import federated, fit, small
from mialib.models.fit import Recipe, Records
from mialib.models.small import MLP


def train(
    model: MLP, recipe: Recipe, thetas: np.ndarray, X: Records, y: np.ndarray, rows: Sequence[np.ndarray], words: tuple
) -> np.ndarray:
    """Train each of the networks `thetas`, float32 (models, n_parameters), further on records `rows` of it alone.

    X, y and recipe as `fit.fit_many` takes them, rows: index arrays into X, one a model; words: seed words of each
    model's order. Adam starts afresh, with the recipe's rate. Kept; a model is one job on one thread. ValueError where
    lengths differ, a model has no records, or the training ends in parameters that are not finite.
    """
    X, y = arrays.records(X), arrays.labels(y, X.shape[0], model.classes)
    if not len(thetas) == len(rows) == len(words):
        raise ValueError(f"{len(thetas)} networks, {len(rows)} sets of records and {len(words)} sets of seed words")
    if empty := [number for number, each in enumerate(rows) if not len(each)]:
        raise ValueError(f"network {empty[0]} has no records to be trained on further")
    X = fit._compact(X)
    jobs = [
        (model, recipe, *each) for each in zip(thetas, (X[r] for r in rows), (y[r] for r in rows), words, strict=True)
    ]
    found = work.every(_further, jobs, jobs, runs.versions("numpy", "torch"))
    return np.stack([theta for (theta,) in found])


def _further(
    model: MLP, recipe: Recipe, theta: np.ndarray, X: Records, y: np.ndarray, words: tuple
) -> tuple[np.ndarray]:
    rng, moved = runs.stream(*words, "further"), torch.from_numpy(theta.copy())
    with small.one_thread():
        fit._descend(model, recipe, moved, len(y), lambda: federated._batches(X, y, rng, recipe.batch))
    if not torch.isfinite(moved).all():
        raise ValueError("training further has ended in parameters that are not finite; lower the rate")
    return (moved.numpy(),)
