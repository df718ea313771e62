"""Platforms that train a target for others: Shokri et al. 2017, VI-B, Table I, Figs 5 and 7.

A platform is anything with scikit-learn's `fit(X, y)` and `predict_proba(X)`. `answers` trains one on many sets of
records and keeps only what it says. Google's and Amazon's services are gone; `PLATFORMS` names our stand-ins.
"""

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import joblib
import numpy as np
import scipy.sparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.utils.multiclass import check_classification_targets
from tqdm import tqdm
from xgboost import XGBClassifier

from mialib import arrays, config, machine, runs, source, work
from mialib.models import fit, identity, small
from mialib.models.fit import Recipe, Records
from mialib.models.small import MLP

SMALLEST = 1e-12  # probabilities below count as this, so that their logarithms are finite
OFF_ONE = 1e-3  # how far from one the probabilities of a record may sum
CALIBRATE = "wrap it in sklearn.calibration.CalibratedClassifierCV, which turns scores into probabilities"


@dataclass(eq=False, repr=False)
class Network(ClassifierMixin, BaseEstimator):
    """Our own networks as a scikit-learn classifier: `hidden` tanh units a layer, trained by `fit.fit_many`.

    Without a hidden layer it is multinomial logistic regression. "SGD" is mini-batch Adam at `rate` on mean
    cross-entropy + l2·Σθ², `epochs` passes over the records in batches of `batch`; `seed` fixes the model.
    """

    hidden: tuple[int, ...] = (128,)
    epochs: int = 100
    batch: int = 100
    rate: float = 1e-3
    l2: float = 0.0
    seed: int = 0

    def fit(self, X: Records, y: np.ndarray) -> "Network":
        """X (n, features) dense, or sparse and binary; y (n,) labels of any kind. ValueError on NaN or one class."""
        X = arrays.records(X)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"a network needs records of at least two classes, not only of {self.classes_}")
        self.model_ = MLP((X.shape[1], *self.hidden, len(self.classes_)))
        recipe = Recipe(self.epochs, self.batch, self.rate, l2=self.l2)
        everything, words = [np.arange(len(codes))], [(self.seed, "network")]
        [self.theta_] = fit.fit_many(self.model_, recipe, X, codes, everything, words, "serial")
        return self

    def predict_proba(self, X: Records) -> np.ndarray:
        """Prediction vectors (n, len(classes_)) float32, columns in the order of `classes_`."""
        return small.softmax(small.logits(self.model_, self.theta_, X))

    def predict(self, X: Records) -> np.ndarray:
        """The likeliest label of each record, (n,)."""
        return self.classes_[self.predict_proba(X).argmax(1)]


class Stopped(LogisticRegression):
    """scikit-learn's multinomial logistic regression, stopped early on purpose: it does not warn that it was."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> "Stopped":
        """As LogisticRegression.fit."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return super().fit(X, y)


Make = Callable[[int], Any]  # an untrained classifier from a seed

# The first four names are Table I's. Nothing is known of Google's model but its accuracies on Purchase-100 (.999 on
# members, .656 on others): a network large enough, and trained for long enough, to learn every member. Amazon's were
# logistic regressions with at most 10 or 100 passes and this L2; their learning rate is not known. The paper trains
# its network to .830 on members; ours has as many epochs as bring it nearest to that on 10,000 simulated purchases
# (2: .77, 3: .86, 4: .90). XGBoost and the forest have their default settings; 20 rounds bound XGBoost's time, which
# grows with rounds times classes.
PLATFORMS: dict[str, Make] = {
    "Google": lambda seed: Network((512,), epochs=100, seed=seed),
    "Amazon (10,1e-6)": lambda seed: Network((), epochs=10, l2=1e-6, seed=seed),
    "Amazon (100,1e-4)": lambda seed: Network((), epochs=100, l2=1e-4, seed=seed),
    "Neural network": lambda seed: Network((128,), epochs=3, seed=seed),
    "XGBoost": lambda seed: XGBClassifier(n_estimators=20, tree_method="hist", n_jobs=1, random_state=seed),
    "random forest": lambda seed: RandomForestClassifier(100, n_jobs=1, random_state=seed),
}


def answers(
    platform: str | Make,
    X: Records,
    y: np.ndarray,
    classes: int,
    members: Sequence[np.ndarray],
    asked: Sequence[np.ndarray],
    words: Sequence[tuple],
) -> list[np.ndarray]:
    """Train one model on each set of `members` and ask it about the records `asked`; returns log-probabilities.

    platform: a key of PLATFORMS, or a function from a seed to any classifier with `fit` and `predict_proba`; X
    (n, features), y (n,) whole numbers in 0..classes-1; members, asked: index arrays into X, one of each a model;
    words: seed words of each model. Returns one (len(asked[i]), classes) float32 array a model: `small.softmax` of it
    is what the platform gave out. A class that a training set lacks has probability 0 (its logarithm is that of
    SMALLEST); the classifier itself sees the classes present, numbered from 0, because XGBoost takes no others,
    and copies of the records, which it may write into.

    Each answer is cached as soon as it is there, so an interrupted call goes on where it stopped. A classifier is
    found again by its values and its code, see `identity`; one that cannot be (a class written in a notebook cell, a
    lambda in a pipeline) is computed each time, with a warning. Raises ValueError on an unknown name, no
    `predict_proba`, what `arrays` refuses, bad indices, a training set of one class, and probabilities that are none
    (`check_probabilities`).
    """
    make = _maker(platform)
    X, y = arrays.records(X), arrays.labels(y, classes=classes)
    _check(X, y, members, asked, words)
    estimators = [make(int(runs.stream(*word).integers(2**31))) for word in words]
    name = platform if isinstance(platform, str) else type(estimators[0]).__name__
    if len(set(map(id, estimators))) < len(estimators):  # one and the same each time would learn one thing on another
        estimators = _copies(estimators, name)
    if not hasattr(estimators[0], "predict_proba"):
        raise ValueError(f"{name} has no predict_proba; {CALIBRATE}")
    try:
        keys = [
            _key(estimator, X[rows], y[rows], X[ask], classes, word)
            for estimator, rows, ask, word in zip(estimators, members, asked, words, strict=True)
        ]
    except identity.Unknown as reason:
        warnings.warn(f"{name}: answers are computed each time, not kept, because {reason}", stacklevel=2)
        keys = [None] * len(words)
    done = [key and work.load(key) for key in keys]
    missing = [i for i, entry in enumerate(done) if entry is None]
    tasks = (
        joblib.delayed(_answer)(i, name, estimators[i], X[members[i]], y[members[i]], X[asked[i]], classes)
        for i in missing
    )
    found = machine.parallel(tasks, min(len(missing), config.workers()), unordered=True)
    for i, answer in tqdm(found, total=len(missing), desc=name, disable=None, leave=False):
        done[i] = {"answer": answer}
        if keys[i]:
            work.store(keys[i], done[i])
    return [entry["answer"] for entry in done]


def check_probabilities(p: np.ndarray, n: int, classes: int, platform: str) -> None:
    """Raise ValueError, with the platform's name, unless `p` is n rows of `classes` probabilities that sum to one."""
    if p.shape != (n, classes):
        wanted = f"one row for each of {n} records and one column for each of {classes} classes it was trained on"
        raise ValueError(f"{platform}: predict_proba gave an array of shape {p.shape}; make it give {wanted}")
    if not np.isfinite(p).all():
        broken = n - np.isfinite(p).all(1).sum()
        raise ValueError(f"{platform}: NaN or infinite probabilities for {broken} of {n} records; check its settings")
    if p.min(initial=0) < 0:
        raise ValueError(f"{platform}: a probability is {p.min():.3g}, below 0; {CALIBRATE}")
    sums = p.sum(1)
    if (worst := np.abs(sums - 1).max(initial=0)) > OFF_ONE:
        raise ValueError(
            f"{platform}: the probabilities of a record sum to {sums[np.abs(sums - 1) == worst][0]:.4g}; {CALIBRATE}"
        )


def _maker(platform: str | Make) -> Make:
    if callable(platform):
        return platform
    if platform not in PLATFORMS:
        raise ValueError(f"unknown platform {platform!r}; valid: {', '.join(PLATFORMS)}; or pass a function of a seed")
    return PLATFORMS[platform]


def _check(X: Records, y: np.ndarray, members: Sequence, asked: Sequence, words: Sequence) -> None:
    if not len(members) == len(asked) == len(words) or not len(members):
        lengths = f"{len(members)}, {len(asked)} and {len(words)}"
        raise ValueError(f"give members, asked and seed words, one of each a model, not {lengths}")
    if X.ndim != 2 or X.shape[0] != len(y):
        raise ValueError(
            f"X must be (records, features) with one label a record: X is {X.shape}, y has {len(y)} labels"
        )
    for rows in (*members, *asked):
        if not len(rows) or np.min(rows) < 0 or np.max(rows) >= len(y):
            raise ValueError(f"an index set needs at least one record, with indices from 0 to {len(y) - 1}")
    for rows in members:
        if len(np.unique(y[rows])) < 2:
            raise ValueError(f"a training set of {len(rows)} records has class {y[rows[0]]} only; train on two or more")


def _copies(estimators: list[Any], name: str) -> list[Any]:
    try:
        return [copy.deepcopy(estimator) for estimator in estimators]
    except Exception as error:
        raise ValueError(f"{name} cannot be copied ({error}); return a new one for each seed") from error


def _key(estimator: Any, X: Records, y: np.ndarray, asked: Records, classes: int, words: tuple) -> str:
    """Digest of all that the answer follows from. Raises identity.Unknown."""
    libraries = runs.versions("numpy", "scipy", "torch", "scikit-learn", "xgboost")
    return runs.digest(source.digest(_answer), libraries, identity.of(estimator), X, y, asked, classes, words)


def _answer(
    place: int, name: str, estimator: Any, X: Records, y: np.ndarray, asked: Records, classes: int
) -> tuple[int, np.ndarray]:
    present, codes = np.unique(y, return_inverse=True)
    estimator.fit(_own(X), codes)
    p = np.asarray(estimator.predict_proba(_own(asked)), dtype=float)
    check_probabilities(p, asked.shape[0], len(present), name)
    vectors = np.full((asked.shape[0], classes), SMALLEST)
    vectors[:, present] = np.maximum(p, SMALLEST)
    return place, np.log(vectors).astype(np.float32)


def _own(X: Records) -> Records:
    """A copy to write into: a process is handed large arrays as files that it may only read."""
    return X.copy() if scipy.sparse.issparse(X) else np.array(X)
