"""The blind attack: what the records alone tell of who is a member, with no model asked.

It finds no membership, since nothing that was trained is looked at. Where it beats guessing, members and non-members
were drawn from different records, and every attack on them may have found that difference instead.
"""

import numpy as np
from sklearn.decomposition import PCA

from mialib import arrays, runs, work
from mialib.attacks import Result, known

DIMENSIONS = 40  # principal components that a record is reduced to


def attack(X: np.ndarray, y: np.ndarray, member: np.ndarray, words: tuple) -> Result:
    """A logistic regression a class on the records' principal components, on the split of `known.attack`.

    X (n, …) records as they are, such as uint8 images; y (n,) classes, member bool (n,). The components are those of
    all known records; the known records of each class are undersampled. ValueError as `known.attack` raises it.
    """
    y = arrays.labels(y, len(X))
    member = arrays.flags(member, len(y))
    rows, _ = known.split(y, member)
    about = (runs.digest(X), rows, DIMENSIONS, runs.versions("numpy", "scikit-learn"))
    [(components,)] = work.every(_components, [(X, rows)], *about)
    return known.attack("logistic", components, y, member, words, "under")


def _components(X: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray]:
    """Records X (n, …) in the principal components of those in `rows`, float32 (n, DIMENSIONS or fewer)."""
    flat = X.reshape(len(X), -1).astype(np.float32)
    flat /= max(1.0, float(np.abs(flat).max()))  # pixels to 0..1
    fitted = PCA(min(DIMENSIONS, *flat[rows].shape), svd_solver="covariance_eigh").fit(flat[rows])
    return (fitted.transform(flat).astype(np.float32),)
