"""An attack that allows for how hard a record is: the target's confidence beside that of models that never saw it.

Watson et al. 2022 (difficulty calibration) on the scale of Carlini et al. 2022 (LiRA). It costs no training where there
are shadow models and none of them was trained on a record of the targets.
"""

import numpy as np

from mialib import runs, work
from mialib.attacks import Result, baselines
from mialib.models import small

_TINY = float(np.finfo(np.float32).tiny)


def scaled(vectors: np.ndarray, y: np.ndarray) -> np.ndarray:
    """phi = log p / (1 - p) of the probability p given to the true class, (n,) float64, within ±88.

    vectors (n, classes), probabilities; y (n,). 1 - p is the sum of the others, so that it keeps its digits where p is
    near 1 (Carlini et al. 2022, section VI-A).
    """
    own = np.arange(vectors.shape[1]) == np.asarray(y)[:, None]
    return np.subtract(
        *(np.log(np.maximum(np.where(side, vectors, 0).sum(1, dtype=float), _TINY)) for side in (own, ~own))
    )


def of_models(model: small.Model, thetas: np.ndarray, X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`scaled` of what each of many trained models (models, n_parameters) says of the records X, y: (models, n)."""
    jobs = [(model, theta, X, y) for theta in thetas]
    found = work.every(_ask, jobs, model, thetas, X, y, runs.versions("numpy", "torch"))
    return np.stack([values for (values,) in found])


def _ask(model: small.Model, theta: np.ndarray, X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray]:
    return (scaled(small.softmax(small.logits(model, theta, X)), y),)


def attack(asked: np.ndarray, reference: np.ndarray, seen: np.ndarray, trained: np.ndarray) -> Result:
    """Member if phi is farther above the median of the shadows' than a threshold that the shadows set among themselves.

    asked (n,): phi of the target on n records; reference (shadows, n): that of the shadows, none of which was trained
    on any of them. seen (shadows, m) and trained, bool (shadows, m): phi of the shadows on m records of theirs, and
    which were trained on which. The threshold has the best balanced accuracy over the shadows, each in turn as the
    target, beside those of the others that were not trained on the record. Score: difference minus threshold.
    ValueError with fewer than two shadows, or where no record has a member and another shadow without it.
    """
    if len(seen) < 2:
        raise ValueError(f"to calibrate takes at least two shadow models, not {len(seen)}")
    outside = np.where(trained, np.nan, seen)
    differences = [_beside(seen[i], np.delete(outside, i, axis=0)) for i in range(len(seen))]
    known = [np.isfinite(difference) for difference in differences]
    values = np.concatenate([difference[where] for difference, where in zip(differences, known, strict=True)])
    member = np.concatenate([row[where] for row, where in zip(trained, known, strict=True)])
    if not member.any() or member.all():
        raise ValueError("the shadows have no members and non-members that another shadow was not trained on")
    score = _beside(asked, reference) - baselines.best_threshold(values, member)
    return Result(score, score >= 0)


def _beside(own: np.ndarray, others: np.ndarray) -> np.ndarray:
    """`own` (n,) minus the median of `others` (models, n) that is known; nan where none is."""
    ranked = np.sort(others, axis=0)  # nan last
    count = np.isfinite(others).sum(0)
    middle = [np.take_along_axis(ranked, np.maximum(at, 0)[None], 0)[0] for at in ((count - 1) // 2, count // 2)]
    middle[1] = np.where(count > 0, middle[1], np.nan)
    return own - np.mean(middle, axis=0)
