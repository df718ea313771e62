"""Mitigations of Shokri et al. 2017, VIII-A: what the model's owner does to the outputs before anyone sees them.

Each turns logits (n, classes) into the (n, classes) float32 vector that is given out. L2 regularisation, the fourth
mitigation, is part of training (`models.fit.Recipe.l2`).
"""

import numpy as np

from mialib.models.small import softmax


def none(logits: np.ndarray) -> np.ndarray:
    """The full prediction vector."""
    return softmax(logits)


def top_k(logits: np.ndarray, k: int) -> np.ndarray:
    """Probabilities of the k most likely classes, zero elsewhere; ties go to the lower class. ValueError if k < 1."""
    if not 1 <= k <= logits.shape[1]:
        raise ValueError(f"k must be from 1 to {logits.shape[1]} classes, not {k}")
    vectors = softmax(logits)
    keep = np.argsort(-vectors, axis=1, kind="stable")[:, :k]
    out = np.zeros_like(vectors)
    np.put_along_axis(out, keep, np.take_along_axis(vectors, keep, 1), 1)
    return out


def label_only(logits: np.ndarray) -> np.ndarray:
    """The most likely class alone, one-hot: no probability at all ("top k = 1 label")."""
    return np.eye(logits.shape[1], dtype=np.float32)[softmax(logits).argmax(1)]


def rounded(logits: np.ndarray, digits: int) -> np.ndarray:
    """Probabilities rounded to `digits` decimal places. ValueError if digits < 0."""
    if digits < 0:
        raise ValueError(f"digits must be 0 or more, not {digits}")
    return np.round(softmax(logits), digits)


def temperature(logits: np.ndarray, t: float) -> np.ndarray:
    """Softmax of logits / t: larger t, flatter vectors. ValueError unless t > 0."""
    if not t > 0:
        raise ValueError(f"the temperature must be above 0, not {t}")
    return softmax(logits / t)


def sharpened(vectors: np.ndarray, t: float) -> np.ndarray:
    """What vectors were before `temperature` t, (…, classes): an attacker who knows it takes it back."""
    return softmax(t * np.log(np.maximum(vectors, np.finfo(np.float32).tiny)))
