"""Attack models: one binary classifier a true class, on the prediction vector (Shokri et al. 2017, V-D)."""

import numpy as np
import scipy.special
from sklearn.base import ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from xgboost import XGBClassifier

from mialib import runs, work
from mialib.attacks import Observations, Result
from mialib.models import fit, small

KINDS = ("nn", "logistic", "forest", "xgboost")
# The paper gives the network's shape and no more (VI-C); optimiser, batch size and epochs are our choice.
NN_RECIPE = fit.Recipe(epochs=50)


def attack(kind: str, shadow: Observations, targets: list[Observations], words: tuple) -> list[Result]:
    """Train one attack model a class on what the shadows gave out, and score the records of each target.

    kind: "nn" (64 ReLU units), "logistic", "forest" or "xgboost"; words: seed words of the random streams.
    A class the shadows saw on one side only has no model: it is listed in `Result.skipped`, its records score 0.
    Scores are log-odds of membership; predicted member above 0. ValueError on an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown attack model {kind!r}; valid: {', '.join(KINDS)}")
    n_classes = shadow.vectors.shape[1]
    sides = [np.bincount(shadow.y[shadow.member == side], minlength=n_classes) for side in (True, False)]
    trained = [int(label) for label in np.flatnonzero((sides[0] > 0) & (sides[1] > 0))]
    rows = [np.flatnonzero(shadow.y == label) for label in trained]
    shadow, targets = _rescaled(shadow, targets, trained, rows)
    asked = [[target.vectors[target.y == label] for target in targets] for label in trained]
    answers = (_networks if kind == "nn" else _sklearn)(kind, shadow, rows, asked, (*words, kind))
    scores = [np.zeros(len(target.y)) for target in targets]
    for label, answer in zip(trained, answers, strict=True):
        for target, score, value in zip(targets, scores, answer, strict=True):
            score[target.y == label] = value
    skipped = tuple(label for label in range(n_classes) if label not in trained)
    return [Result(score, score > 0, skipped) for score in scores]


def _rescaled(
    shadow: Observations, targets: list[Observations], trained: list[int], rows: list[np.ndarray]
) -> tuple[Observations, list[Observations]]:
    """Centre each class's vectors and divide them by one number, both taken from the shadows.

    Without it, a mitigation that only flattens the vectors (temperature) would seem to stop the attack, when all
    it does is to leave Adam's first steps too small a signal. One number a class, so that no column gains weight.
    """
    center = np.zeros((shadow.vectors.shape[1],) * 2, np.float32)
    scale = np.ones((shadow.vectors.shape[1], 1), np.float32)
    for label, row in zip(trained, rows, strict=True):
        center[label] = shadow.vectors[row].mean(0)
        scale[label] = (shadow.vectors[row] - center[label]).std() or 1
    rescaled = [Observations((o.vectors - center[o.y]) / scale[o.y], o.y, o.member) for o in (shadow, *targets)]
    return rescaled[0], rescaled[1:]


def _networks(kind: str, shadow: Observations, rows: list, asked: list, words: tuple) -> list[list[np.ndarray]]:
    model = small.MLP((shadow.vectors.shape[1], 64, 2), "relu")
    names = [(*words, number) for number in range(len(rows))]
    thetas = fit.fit_many(model, NN_RECIPE, shadow.vectors, shadow.member.astype(np.int64), rows, names)
    return [
        [np.diff(small.logits(model, theta, vectors))[:, 0] for vectors in ask]
        for theta, ask in zip(thetas, asked, strict=True)
    ]


def _sklearn(kind: str, shadow: Observations, rows: list, asked: list, words: tuple) -> list[list[np.ndarray]]:
    seeds = [int(runs.stream(*words, number).integers(2**31)) for number in range(len(rows))]
    jobs = [
        (kind, shadow.vectors[row], shadow.member[row], ask, seed)
        for row, ask, seed in zip(rows, asked, seeds, strict=True)
    ]
    return work.every(_fit_one, jobs, jobs, runs.versions("numpy", "scipy", "scikit-learn", "xgboost"))


def _fit_one(kind: str, X: np.ndarray, member: np.ndarray, asked: list[np.ndarray], seed: int) -> list[np.ndarray]:
    """Log-odds of membership for each array of `asked`, from one fitted scikit-learn classifier on one thread."""
    if kind == "logistic":
        classifier = LogisticRegression(C=1e6, max_iter=1000)
    elif kind == "forest":
        classifier = RandomForestClassifier(100, random_state=seed)
    else:
        classifier = XGBClassifier(n_estimators=100, max_depth=4, n_jobs=1, random_state=seed)
    classifier.fit(X, member)
    return [scipy.special.logit(_share(classifier, vectors)) for vectors in asked]


def _share(classifier: ClassifierMixin, vectors: np.ndarray) -> np.ndarray:
    """P(member), kept off 0 and 1 so that its log-odds are finite."""
    chance = classifier.predict_proba(vectors)[:, 1] if len(vectors) else np.zeros(0)
    return np.clip(chance.astype(float), 1e-9, 1 - 1e-9)
