"""Attacks that see labels alone (Choquette-Choo et al. 2021): is a record still right after it is changed a little?

An `Answer` asks the model: records (n, …) -> labels (n,). It may also give (k, n), the labels of k ways to give the
same answer out. Queries are iterables of changed records, each (n, …) and the unchanged ones first where the paper has
them so; `right` makes bits of them, which a threshold or a small network tells apart, both set on shadow models alone.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from scipy import ndimage

from mialib import arrays
from mialib.attacks import Observations, Result, baselines, classifiers

Answer = Callable[[np.ndarray], np.ndarray]


def rotated(images: np.ndarray, degrees: float) -> Iterator[np.ndarray]:
    """Images (n, channels, height, width) as they are, then turned by `degrees` both ways: 3 queries.

    Bilinear, pixels from outside are those of the edge: our choice. ValueError unless these are images.
    """
    _check(images)
    yield images
    for angle in (degrees, -degrees):
        yield ndimage.rotate(images, angle, axes=(3, 2), reshape=False, order=1, mode="nearest")


def translated(images: np.ndarray, pixels: int) -> Iterator[np.ndarray]:
    """Images as they are, then shifted by (i, j) for all |i| + |j| = `pixels`: 4 pixels + 1 queries.

    Pixels from outside are those of the edge: our choice. ValueError unless these are images, and for pixels < 1.
    """
    _check(images)
    if pixels < 1:
        raise ValueError(f"pixels must be at least 1, not {pixels}")
    yield images
    height, width = images.shape[2:]
    padded = np.pad(images, ((0, 0), (0, 0), (pixels, pixels), (pixels, pixels)), mode="edge")
    for i in range(-pixels, pixels + 1):
        for j in sorted({pixels - abs(i), abs(i) - pixels}):
            yield padded[:, :, pixels - i : pixels - i + height, pixels - j : pixels - j + width]


def disturbed(
    X: np.ndarray, binary: np.ndarray, flip: float, sigma: float, copies: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """`copies` of the records with noise: columns `binary` flip with probability `flip` (Bernoulli), all others
    are given normal noise of deviation `sigma`.

    X (n, …), `binary` bool of the shape of a record. `sigma` is in units of the records; for uint8 it is a share of
    255, and values are rounded and cut to 0..255. ValueError for another shape, noise that is none, or copies < 1.
    """
    binary = np.asarray(binary, bool)
    if binary.shape != X.shape[1:]:
        raise ValueError(f"binary must have the shape of a record, {X.shape[1:]}, not {binary.shape}")
    if not (0 <= flip <= 1 and sigma >= 0):
        raise ValueError(f"flip must lie in 0..1 and sigma be at least 0: got {flip} and {sigma}")
    if copies < 1:
        raise ValueError(f"copies must be at least 1, not {copies}")
    whole = X.dtype == np.uint8
    for _ in range(copies):
        changed = X.copy()
        if binary.any():
            flips = rng.random((len(X), int(binary.sum())), np.float32) < flip
            changed[:, binary] = np.where(flips, 1 - X[:, binary], X[:, binary])
        if not binary.all():
            noise = rng.standard_normal((len(X), int((~binary).sum())), np.float32)
            moved = X[:, ~binary] + np.float32(sigma * (255 if whole else 1)) * noise
            changed[:, ~binary] = moved.round().clip(0, 255) if whole else moved
        yield changed


def right(answer: Answer, queries: Iterable[np.ndarray], y: np.ndarray) -> np.ndarray:
    """Which queries are given the true class y (n,): bool (n, queries), or (k, n, queries), see `Answer`."""
    y = arrays.labels(y)
    return np.stack([np.asarray(answer(query)) == y for query in queries], axis=-1)


def share(answer: Answer, queries: Iterable[np.ndarray], y: np.ndarray) -> np.ndarray:
    """Mean of `right` over the queries, float32 (n,) or (k, n), without keeping them: there may be thousands."""
    y, total, count = arrays.labels(y), 0, 0
    for query in queries:
        total, count = total + (np.asarray(answer(query)) == y), count + 1
    return (total / count).astype(np.float32)


def away(distance: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Distances to the boundary (n,) as scores: 0 where the label is wrong, infinity where none was met (nan)."""
    found = np.where(np.isnan(distance), np.inf, distance)
    return np.where(arrays.flags(correct, len(found)), found, 0.0)


def by_threshold(shadow_score: np.ndarray, shadow_member: np.ndarray, score: np.ndarray) -> Result:
    """Member if the score reaches the threshold that is best on shadows, one for all classes, as the paper has it."""
    return Result(score, score >= baselines.best_threshold(shadow_score, shadow_member))


def by_network(
    shadow: tuple[np.ndarray, np.ndarray, np.ndarray], bits: np.ndarray, y: np.ndarray, classes: int, words: tuple
) -> Result:
    """A small network on bits (n, queries) and the class y (n,), trained on (bits, y, member) of shadows.

    `classifiers.attack`'s network, one for all classes; the paper has one a class, of two layers of ten. `words`: as
    there. Score: log-odds of membership.
    """
    seen, y_seen, member = shadow
    known, asked = (
        Observations(np.hstack([each, np.eye(classes)[of]]).astype(np.float32), np.zeros(len(of), np.int64), whose)
        for each, of, whose in ((seen, y_seen, member), (bits, y, np.zeros(len(y), bool)))
    )
    return classifiers.attack("nn", known, [asked], words)[0]


def _check(images: np.ndarray) -> None:
    if images.ndim != 4:
        raise ValueError(f"these are no images (n, channels, height, width): {images.shape}")
