"""What an attacker sees of a record, and simple statistics of it. Arrays in, arrays out."""

import numpy as np
from scipy.special import entr

from mialib import arrays

LEAST = 1e-7  # the smallest probability of `log_odds`: what float32 tells from 1


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


def auc_by_class(
    feature: np.ndarray,
    y: np.ndarray,
    member: np.ndarray,
    rng: np.random.Generator,
    least: int = 5,
    repeats: int = 500,
) -> dict[str, float]:
    """How well one number a record tells members apart: the mean over classes of its AUC, no attack model needed.

    feature (n,), larger = a member; nan counts as 0. y (n,), member bool (n,). Keys value, low, high (95 % bootstrap
    over the records of each class and side), classes (those with `least` records of either side), records (the fewest
    of a side in these), members (their share). nan where there is no such class.
    """
    feature, y = np.nan_to_num(np.asarray(feature, float)), arrays.labels(y, len(feature))
    member = arrays.flags(member, len(y))
    sides = [[feature[(y == label) & (member == side)] for side in (True, False)] for label in np.unique(y)]
    sides = [pair for pair in sides if min(map(len, pair)) >= least]
    if not sides:
        return dict.fromkeys(("value", "low", "high", "members"), np.nan) | {"classes": 0, "records": 0}
    values, drawn = zip(*(_auc(*pair, rng, repeats) for pair in sides), strict=True)
    low, high = np.quantile(np.mean(drawn, axis=0), (0.025, 0.975))
    inside, outside = (sum(len(pair[side]) for pair in sides) for side in (0, 1))
    about = {"classes": len(sides), "records": min(inside, outside), "members": inside / (inside + outside)}
    return {"value": float(np.mean(values)), "low": float(low), "high": float(high)} | about


def _auc(inside: np.ndarray, outside: np.ndarray, rng: np.random.Generator, repeats: int) -> tuple[float, np.ndarray]:
    """AUC of two samples, and of `repeats` resamples of both: how often each record was drawn weighs its wins."""
    wins = ((inside[:, None] > outside) + 0.5 * (inside[:, None] == outside)).astype(np.float32)
    times = [rng.multinomial(n, np.full(n, 1 / n), repeats).astype(np.float32) for n in wins.shape]
    return float(wins.mean()), ((times[0] @ wins) * times[1]).sum(1, dtype=float) / wins.size


def log_odds(vectors: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`references.phi` of vectors as they are given out, (…, n, classes) and y (n,): (…, n).

    The log of the true class's share over what is left of 1, with what a defence left out. Both are at least LEAST, so
    that zeros have a phi.
    """
    own = np.take_along_axis(vectors, np.broadcast_to(y[:, None], (*vectors.shape[:-1], 1)), -1)[..., 0].astype(float)
    rest = np.maximum(1 - own, vectors.sum(-1, dtype=float) - own)
    return np.log(np.maximum(own, LEAST)) - np.log(np.maximum(rest, LEAST))
