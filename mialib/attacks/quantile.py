"""An attack without reference models: what the target says of a record beside what it says of non-members like it.

Bertran et al. 2023 (*Scalable Membership Inference Attacks via Quantile Regression*): a regression learns, of records
that are known to be no members, how the target's signal is distributed given the record. A record whose signal lies
in the upper tail is called a member. Ours has their Gaussian head (mean and deviation), with gradient-boosted trees on
principal components and the class in place of their network on images.
"""

import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingRegressor

from mialib import arrays, runs

DIMENSIONS = 40  # principal components that a record is reduced to


def margin(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The paper's signal, the logit of the true class less the largest other: (…, classes), (…,) to (…,) float64."""
    own = np.arange(logits.shape[-1]) == np.asarray(y)[..., None]
    return logits.astype(float)[own].reshape(own.shape[:-1]) - np.where(own, -np.inf, logits).max(-1)


def score(signal: np.ndarray, X: np.ndarray, y: np.ndarray, member: np.ndarray, words: tuple) -> np.ndarray:
    """How many deviations the signal lies above the mean that is expected of a non-member, (n,); larger: a member.

    signal (n,): `margin` of the target; X (n, …) records as numbers, y (n,) classes, member bool (n,); words: seed
    words. Members and non-members are cut into two halves each; a record is held against what the non-members of the
    other half teach, so no record is asked of which the attacker knows whether it is a member. Of these, half teach the
    mean and half the deviation, as what is learnt is closer to the records that taught it. ValueError for lengths that
    differ, numbers that are not finite, and fewer than eight non-members.
    """
    y, member = arrays.labels(y, len(signal)), arrays.flags(member, len(signal))
    signal = np.asarray(signal, float)
    if len(X) != len(signal) or not np.isfinite(signal).all():
        raise ValueError(f"a finite signal for each of {len(X)} records is wanted: got {len(signal)} numbers")
    if (~member).sum() < 8:
        raise ValueError(f"quantile regression needs eight non-members to learn from: got {(~member).sum()}")
    rng, half = runs.stream(*words, "quantile"), np.zeros(len(signal), bool)
    for side in (member, ~member):
        rows = rng.permutation(np.flatnonzero(side))
        half[rows[: len(rows) // 2]] = True
    flat, found = X.reshape(len(X), -1).astype(np.float32), np.empty(len(signal))
    for asked in (half, ~half):
        known = rng.permutation(np.flatnonzero(~asked & ~member))
        mean, deviation = _expected(signal, flat, y, known, asked)
        found[asked] = (signal[asked] - mean) / deviation
    return found


def _expected(
    signal: np.ndarray, flat: np.ndarray, y: np.ndarray, known: np.ndarray, asked: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of the signal of non-members like the asked records, as the known ones teach them."""
    pca = PCA(min(DIMENSIONS, len(known), flat.shape[1]), svd_solver="covariance_eigh").fit(flat[known])
    described = np.column_stack([pca.transform(flat), y])
    first, second = np.array_split(known, 2)
    mean = _trees(described.shape[1]).fit(described[first], signal[first])
    beyond = np.abs(signal[second] - mean.predict(described[second]))
    size = _trees(described.shape[1]).fit(described[second], np.log(np.maximum(beyond, np.finfo(np.float32).tiny)))
    return mean.predict(described[asked]), np.exp(size.predict(described[asked]))


def _trees(columns: int) -> HistGradientBoostingRegressor:
    return HistGradientBoostingRegressor(categorical_features=[columns - 1], random_state=0)
