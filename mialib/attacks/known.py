"""The attacks of Rezaei & Liu 2020, by one who knows of 80 % of all records whether they are members.

No shadow models: of each class, the first 80 % of members and of non-members (in data-set order) train an attack
model, the rest is asked. "As released" is what github.com/shrezaei/MI-Attack does.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.special
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import RandomizedSearchCV, RepeatedStratifiedKFold
from xgboost import XGBClassifier

from mialib import arrays, metrics, runs, source, work
from mialib.attacks import Result
from mialib.models import fit, small

KINDS = ("nn", "forest", "xgboost", "logistic")
SAMPLINGS = ("none", "under", "over")
# As released (Keras): Adam, 30 epochs, batches of 32. Two outputs under softmax are one under a sigmoid with binary
# cross-entropy, twice parameterised; the initial weights are PyTorch's uniform ones, not Keras's.
NN_RECIPE = fit.Recipe(epochs=30, batch=32, rate=1e-3, decay=0.0)
NN_HIDDEN = (128, 64)
# The released grids. max_features "auto" is left out: it meant "sqrt" and is gone from scikit-learn.
FOREST_GRID = {
    "n_estimators": (500, 800, 1500, 2500, 5000),
    "max_features": ("sqrt",),
    "max_depth": (20, 30, 40, 50, None),
    "min_samples_split": (2, 5, 10, 15, 20),
    "min_samples_leaf": (1, 2, 5, 10, 15),
}
XGBOOST_GRID = {
    "scale_pos_weight": (1, 5, 10, 50, 100),
    "min_child_weight": (1, 5, 10, 15),
    "subsample": (0.6, 0.8, 1.0),
    "colsample_bytree": (0.6, 0.8, 1.0),
    "max_depth": (3, 6, 9, 12),
}
EXTREME = 1e5  # what the released logistic regression is given for an infinite feature; for nan it is given 0


@dataclass(frozen=True)
class Search:
    """How much of the random search over the grids is done. Released: 100 and 50 draws, 2 repeats, no cap on trees."""

    forest: int = 2  # settings drawn for a forest, each tried on 2 folds
    xgboost: int = 2  # settings drawn for XGBoost, each tried on 2 folds, `repeats` times
    repeats: int = 1
    trees: int = 40  # no model has more


RATES = (
    "accuracy",
    "balanced_accuracy",
    "precision",
    "recall",
    "f1",
    "precision_nonmember",
    "recall_nonmember",
    "fpr",
    "fnr",
)


def split(y: np.ndarray, member: np.ndarray, share: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    """Indices (known, asked), ascending: of each class and side the first `share` in data-set order, and the rest.

    y (n,) labels, member bool (n,). ValueError unless 0 < share < 1.
    """
    y, member = arrays.labels(y), arrays.flags(member, len(y))
    if not 0 < share < 1:
        raise ValueError(f"share must lie between 0 and 1: got {share}")
    known = np.zeros(len(y), bool)
    for label in np.unique(y):
        for side in (True, False):
            rows = np.flatnonzero((y == label) & (member == side))
            known[rows[: math.floor(round(share * len(rows), 9))]] = True
    return np.flatnonzero(known), np.flatnonzero(~known)


def sample(rows: np.ndarray, member: np.ndarray, sampling: str) -> np.ndarray:
    """The rows an attack model is trained on, from the known `rows` of its class; member bool (n,) of all records.

    "under" keeps the first of the larger side, as many as the smaller has; "over" repeats the smaller side as many
    whole times as it goes into the larger; "none" changes nothing. As released; ValueError on another name.
    """
    if sampling not in SAMPLINGS:
        raise ValueError(f"unknown sampling {sampling!r}; valid: {', '.join(SAMPLINGS)}")
    member = arrays.flags(member)
    small, large = sorted((rows[member[rows]], rows[~member[rows]]), key=len)
    if sampling == "none":
        return rows
    if sampling == "under":
        return np.concatenate([small, large[: len(small)]])
    return np.concatenate([np.tile(small, len(large) // len(small)), large])


def attack(
    kind: str,
    features: np.ndarray,
    y: np.ndarray,
    member: np.ndarray,
    words: tuple,
    sampling: str = "none",
    least: int = 15,
    search: Search = Search(),
    share: float = 0.8,
) -> Result:
    """Train one attack model a class on the known records and ask it about the others (`Result.rows`).

    kind: "nn" (128-64 ReLU), "forest", "xgboost" (random search) or "logistic"; features (n, d) float as the target
    gives them, not scaled; y (n,) true classes, member bool (n,); words: seed words; `least`: a class with fewer
    members or non-members has no model and is listed in `skipped`; `share`: see `split`. ValueError on an unknown
    kind or sampling, arrays that do not fit, least < 3, or features that are not finite (but for "logistic", which
    gets +-1e5 for infinity and 0 for nan, as released).
    """
    features, y = _features(kind, features), arrays.labels(y, len(features))
    member = arrays.flags(member, len(y))
    known, asked = split(y, member, share)
    if least < 3:
        raise ValueError(f"least must be at least 3, so that each side can be split: got {least}")
    sides = [(int(k), int((member & (y == k)).sum()), int((~member & (y == k)).sum())) for k in np.unique(y)]
    skipped = tuple(label for label, *counts in sides if min(counts) < least)
    labels = [label for label, *counts in sides if min(counts) >= least]
    train = [sample(known[y[known] == label], member, sampling) for label in labels]
    ask = [asked[y[asked] == label] for label in labels]
    if not labels:
        return Result(np.zeros(0), np.zeros(0, bool), skipped, np.zeros(0, np.int64))
    names = [(*words, kind, sampling, label) for label in labels]
    fit = _networks if kind == "nn" else _searched
    rows, score = np.concatenate(ask), np.concatenate(fit(kind, features, member, train, ask, names, search))
    order = np.argsort(rows)
    return Result(score[order], score[order] > 0.5, skipped, rows[order])


def _features(kind: str, features: np.ndarray) -> np.ndarray:
    """float32 (n, d), finite; float64 for "logistic", whose features may span many orders of magnitude."""
    if kind not in KINDS:
        raise ValueError(f"unknown attack model {kind!r}; valid: {', '.join(KINDS)}")
    if kind == "logistic":
        features = np.nan_to_num(np.asarray(features, np.float64), posinf=EXTREME, neginf=-EXTREME)
    features = arrays.records(features, "features")
    if features.ndim != 2 or not isinstance(features, np.ndarray):
        raise ValueError(f"features must be dense (records, features): got {features.shape}; flatten them first")
    if kind == "logistic":
        return features.astype(np.float64)
    with np.errstate(over="ignore"):  # what float32 does not hold is infinite from here on, and refused
        return arrays.records(features.astype(np.float32), "features")


def _networks(
    kind: str, X: np.ndarray, member: np.ndarray, train: list, ask: list, names: list[tuple], search: Search
) -> list[np.ndarray]:
    model = small.MLP((X.shape[1], *NN_HIDDEN, 2), "relu")
    thetas = fit.fit_many(model, NN_RECIPE, X, member.astype(np.int64), train, names)
    margins = (np.diff(small.logits(model, theta, X[rows]))[:, 0] for theta, rows in zip(thetas, ask, strict=True))
    return [scipy.special.expit(margin.astype(float)) for margin in margins]


def _searched(
    kind: str, X: np.ndarray, member: np.ndarray, train: list, ask: list, names: list[tuple], search: Search
) -> list[np.ndarray]:
    fit = {"forest": _forest, "xgboost": _xgboost, "logistic": _logistic}[kind]
    jobs = [
        (fit, X[rows], member[rows], X[asked], search, int(runs.stream(*name).integers(2**31)))
        for rows, asked, name in zip(train, ask, names, strict=True)
    ]
    libraries = runs.versions("numpy", "scipy", "scikit-learn", "xgboost")
    found = work.every(_fit_one, jobs, source.digest(fit), [job[1:] for job in jobs], libraries)
    return [score for (score,) in found]


def _fit_one(
    fit: Callable, X: np.ndarray, member: np.ndarray, asked: np.ndarray, search: Search, seed: int
) -> tuple[np.ndarray]:
    """P(member) of each of `asked`."""
    with warnings.catch_warnings():
        # The released logistic regression stops after scikit-learn's 100 steps, converged or not.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return (fit(search, seed).fit(X, member.astype(int)).predict_proba(asked)[:, 1].astype(float),)


def _forest(search: Search, seed: int) -> RandomizedSearchCV:
    grid = FOREST_GRID | {"n_estimators": sorted({min(n, search.trees) for n in FOREST_GRID["n_estimators"]})}
    return _search(RandomForestClassifier(random_state=seed, n_jobs=1), grid, search.forest, seed, cv=2)


def _xgboost(search: Search, seed: int) -> RandomizedSearchCV:
    folds = RepeatedStratifiedKFold(n_splits=2, n_repeats=search.repeats, random_state=seed)
    model = XGBClassifier(n_estimators=min(100, search.trees), n_jobs=1, random_state=seed)
    return _search(model, XGBOOST_GRID, search.xgboost, seed, cv=folds, scoring="balanced_accuracy")


def _search(model, grid: dict, draws: int, seed: int, **how) -> RandomizedSearchCV:
    draws = min(draws, math.prod(map(len, grid.values())))
    return RandomizedSearchCV(model, grid, n_iter=draws, random_state=seed, n_jobs=1, error_score="raise", **how)


def _logistic(search: Search, seed: int) -> LogisticRegression:
    return LogisticRegression(class_weight="balanced")


def per_class(scored: Result, y: np.ndarray, member: np.ndarray, subset: np.ndarray | None = None) -> pd.DataFrame:
    """How well each class's attack model did: one row a class with a model; columns class, members, non_members, RATES.

    y (n,), member bool (n,) of all records; `subset` bool (n,) keeps those records only (the correctly classified).
    `fpr` is the papers' FAR, `fnr` = 1 - recall. Undefined values are nan, as in `metrics.evaluate`.
    """
    y = arrays.labels(y)
    member, subset = arrays.flags(member, len(y)), None if subset is None else arrays.flags(subset, len(y), "subset")
    labels = np.unique(y[scored.rows])
    kept = np.ones(len(scored.rows), bool) if subset is None else subset[scored.rows]
    rows, called = scored.rows[kept], scored.predicted[kept]
    counts = metrics.counts(np.searchsorted(labels, y[rows]), member[rows], called, len(labels))
    rates, (hits, missed, alarms, rest) = metrics.rates(*counts), counts
    about = {"class": labels, "members": hits + missed, "non_members": alarms + rest}
    return pd.DataFrame(about | {name: rates[name] for name in RATES})


def over_classes(table: pd.DataFrame, **about: str | int) -> pd.DataFrame:
    """The unweighted mean over classes that the paper prints: one row a metric of `per_class`'s table.

    Columns: those of `about`, metric, value, sd (over classes, ddof 0, the paper's +-), low and high (95 % Student-t
    interval of the mean over classes, cut at 0 and 1), classes (how many were defined). nan where none is, no interval
    of a single one.
    """
    rows = []
    for metric in RATES:
        values = table[metric].dropna().to_numpy(float)
        mean, low, high = metrics.mean_interval(values, 0, 1)
        rows.append((metric, mean, values.std() if len(values) else np.nan, low, high, len(values)))
    found = pd.DataFrame(rows, columns=["metric", "value", "sd", "low", "high", "classes"])
    return found.assign(**about)[[*about, *found.columns]]
