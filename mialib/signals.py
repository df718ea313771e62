"""What an attacker sees of a record, and simple statistics of it. Arrays in, arrays out."""

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    """Prediction vectors, (…, classes) float32 that sum to one, from logits of the same shape."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return (powers / powers.sum(-1, keepdims=True)).astype(np.float32)


def true_class(vectors: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Confidence in the true class, (n,), from prediction vectors (n, classes) and labels (n,)."""
    return np.take_along_axis(vectors, y[:, None], 1)[:, 0]


def correct(vectors: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether the largest entry is the true class, bool (n,); ties go to the lowest class, as in np.argmax."""
    return vectors.argmax(1) == y
