"""What an attacker sees of a record, and simple statistics of it. Arrays in, arrays out."""

import numpy as np
from scipy.special import entr

from mialib import arrays


def true_class(vectors: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Confidence in the true class, (n,), from prediction vectors (n, classes) and labels (n,)."""
    vectors = arrays.records(vectors, "vectors")
    return np.take_along_axis(vectors, arrays.labels(y, *vectors.shape)[:, None], 1)[:, 0]


def correct(vectors: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether the largest entry is the true class, bool (n,); ties go to the lowest class, as in np.argmax."""
    vectors = arrays.records(vectors, "vectors")
    return vectors.argmax(1) == arrays.labels(y, *vectors.shape)


def uncertainty(vectors: np.ndarray) -> np.ndarray:
    """Normalised entropy -Σ p log p / log classes of prediction vectors (n, classes): (n,), 0 = sure, 1 = uniform.

    Shokri et al. 2017, Section VII. At most 1, whatever rounding did. ValueError for fewer than two classes, and
    for entries outside 0..1 or nan: logits go through `softmax` first.
    """
    if vectors.shape[-1] < 2:
        raise ValueError(f"uncertainty needs at least two classes: got {vectors.shape[-1]}")
    if not ((vectors >= 0) & (vectors <= 1 + 1e-6)).all():
        raise ValueError("uncertainty needs probabilities in 0..1; give logits to softmax first")
    entropy = entr(vectors.astype(float)).sum(-1) / np.log(vectors.shape[-1])
    return np.clip(entropy, 0, 1)
