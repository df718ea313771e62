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
from scipy import stats
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import RandomizedSearchCV, RepeatedStratifiedKFold
from xgboost import XGBClassifier

from mialib import arrays, metrics, runs, source, work
from mialib.attacks import Attacked, Observations, Result, signals
from mialib.models import fit, small

KINDS = ("nn", "forest", "xgboost", "logistic")
SAMPLINGS = ("none", "under", "over")
NINE = tuple((kind, sampling) for kind in ("nn", "forest", "xgboost") for sampling in SAMPLINGS)
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
CROSS = "cross-fitted"  # what `nine_attacks` calls the honestly chosen attack that is asked about fifths in turn
NAIVE_LAST = "naive, last fifth"
FEWEST = 5  # classes that an interval over classes takes: of fewer it would span all that is possible
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
    members or non-members has no model: `skipped` maps it to how many it has; `share`: see `split`. ValueError on an
    unknown kind or sampling, arrays that do not fit, least < 3, or features that are not finite (but for "logistic",
    which gets +-1e5 for infinity and 0 for nan, as released).
    """
    features, y = _features(kind, features), arrays.labels(y, len(features))
    member = arrays.flags(member, len(y))
    known, asked = split(y, member, share)
    if least < 3:
        raise ValueError(f"least must be at least 3, so that each side can be split: got {least}")
    sides = {int(k): (int((member & (y == k)).sum()), int((~member & (y == k)).sum())) for k in np.unique(y)}
    skipped = {label: counts for label, counts in sides.items() if min(counts) < least}
    labels = [label for label in sides if label not in skipped]
    train = [sample(known[y[known] == label], member, sampling) for label in labels]
    ask = [asked[y[asked] == label] for label in labels]
    if not labels:
        return Result(np.zeros(0), np.zeros(0, bool), skipped, np.zeros(0, np.int64))
    names = [(*words, kind, sampling, label) for label in labels]
    fit = _networks if kind == "nn" else _searched
    rows, score = np.concatenate(ask), np.concatenate(fit(kind, features, member, train, ask, names, search))
    order = np.argsort(rows)
    return Result(score[order], score[order] > 0.5, skipped, rows[order])


def nine_attacks(
    name: str,
    seen: Observations,
    search: Search,
    seed: int,
    seeds: int = 1,
    features: np.ndarray | None = None,
    least: int = 15,
    part: tuple = (),
    in_turn: bool = False,
) -> Attacked:
    """Attack confidence vectors with each of NINE, naively, and with ZeroR, and choose among the nine twice.

    "best" is chosen on the records it is reported on, as in the paper ("the seemingly best MI attack accuracy we
    achieve over all attack models"). "honest" is chosen by attacks that are trained on the first 60 % of each class
    and asked about the next 20 %, then trained again on 80 %, and reported on the last fifth, which had no part in the
    choice. It is trained from `seeds` seeds, the choice being that of the first. in_turn: it is `cross_fitted` as well
    (CROSS), on records none of which an attack was validated on, though three fifths trained the nine, and "naive" and
    "zeror" are asked about the same ones; NAIVE_LAST is always asked about the last fifth.
    `features` (n, d): what is attacked in place of the confidence vectors; `least`: see `attack`; `part`: more seed
    words.
    """
    X, y, member = seen.vectors if features is None else features, seen.y, seen.member
    hit = signals.correct(seen.vectors, y)
    first, _ = split(y, member)
    theirs = (X[first], y[first], member[first], (seed, "validation", name, *part))

    def trained(which: str, words: tuple) -> Result:
        kind, sampling = which.split(", ")
        return attack(kind, X, y, member, words, sampling, least, search)

    answers = {f"{kind}, {sampling}": None for kind, sampling in NINE}
    answers = {which: trained(which, (seed, "known", name, *part)) for which in answers}
    # Three quarters of 80 % are 60 %; a class of 15 has 12 of its records among the known.
    validation = {
        f"{kind}, {sampling}": attack(kind, *theirs, sampling, least * 4 // 5, search, 0.75) for kind, sampling in NINE
    }
    validated = {which: _balanced(scored, y[first], member[first]) for which, scored in validation.items()}
    tested = {which: _balanced(scored, y, member) for which, scored in answers.items()}
    chosen = {why: max(found, key=found.get) for why, found in (("best", tested), ("honest", validated))}
    asked = next(iter(answers.values()))
    for more in range(1, seeds):
        words = (seed, "known", name, *part, "attack seed", more)
        answers[f"{chosen['honest']}, seed {more}"] = trained(chosen["honest"], words)
    answers[NAIVE_LAST] = _said(hit, asked)
    if in_turn:
        kind, sampling = chosen["honest"].split(", ")
        words = (seed, name, *part)
        answers[CROSS] = asked = cross_fitted(kind, X, y, member, words, sampling, least, search)
    answers |= {"naive": _said(hit, asked), "zeror": _said(np.ones(len(y), bool), asked)}
    accuracies = [{"train_acc": hit[member].mean(), "test_acc": hit[~member].mean()}]
    every = {which: [scored] for which, scored in answers.items()}
    return Attacked({"target": name}, accuracies, [seen], every, (seed, name, *part), chosen, validated)


def _said(called: np.ndarray, like: Result) -> Result:
    """An answer that needs no model, called bool (n,), on the records that `like` was asked about."""
    called = called[like.rows]
    return Result(called.astype(float), called, like.skipped, like.rows)


def _balanced(scored: Result, y: np.ndarray, member: np.ndarray) -> float:
    return float(per_class(scored, y, member)["balanced_accuracy"].mean())


def cross_fitted(
    kind: str,
    features: np.ndarray,
    y: np.ndarray,
    member: np.ndarray,
    words: tuple,
    sampling: str = "none",
    least: int = 15,
    search: Search = Search(),
    chosen: bool = True,
) -> Result:
    """Scores of records by models that did not know them: `attack`, trained again for every fifth that is asked.

    Each time the records of every class and side begin another fifth later. chosen: the attack was chosen among others
    on the fourth fifth, 60 to 80 % of each class, which then is in no score.
    """
    score, skipped = np.full(len(y), np.nan), {}
    sides = [np.flatnonzero((y == label) & (member == side)) for label in np.unique(y) for side in (True, False)]
    for part in range(4 if chosen else 5):
        order = [np.roll(rows, -round(part / 5 * len(rows))) for rows in sides]
        order = np.concatenate([np.zeros(0, np.int64), *order])
        records = features[order], y[order], member[order]
        found = attack(kind, *records, (*words, "part", part), sampling, least, search)
        score[order[found.rows]], skipped = found.score, found.skipped
    if chosen:
        known, _ = split(y, member)
        _, choice = split(y[known], member[known], 0.75)
        score[known[choice]] = np.nan
    rows = np.flatnonzero(~np.isnan(score))
    return Result(score[rows], score[rows] > 0.5, skipped, rows)


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


def as_released(table: pd.DataFrame) -> pd.DataFrame:
    """`per_class`'s table, where the balanced accuracy of a class with one side only is that side's recall.

    So computes scikit-learn, and with it the released code: a class without misclassified members counts with the
    share of its non-members that the attack got right. We leave such a class out.
    """
    alone = table["recall"].fillna(table["recall_nonmember"])
    return table.assign(balanced_accuracy=table["balanced_accuracy"].fillna(alone))


def at_base_rate(table: pd.DataFrame, share: float) -> pd.DataFrame:
    """`per_class`'s table, were the share of members among the records `share` (Table 2).

    Exact: an attack's TPR and FPR in a class do not depend on how many of each kind are asked, so the counts are
    weighted and nobody is drawn. ValueError unless 0 < share < 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"the share of members must lie between 0 and 1: got {share}")
    tpr, fpr = table["recall"].to_numpy(), table["fpr"].to_numpy()
    weighted = (share * tpr, share * (1 - tpr), (1 - share) * fpr, (1 - share) * (1 - fpr))
    return table.assign(**metrics.rates(*weighted))[list(table.columns)]


def over_classes(table: pd.DataFrame, **about: str | int) -> pd.DataFrame:
    """The unweighted mean over classes that the paper prints: one row a metric of `per_class`'s table.

    Where the table has a column seed, of attacks trained from several, it is the mean over both. Columns: those of
    `about`, metric, value, sd (over classes, ddof 0, the paper's +-), low and high (`interval`), classes (how many were
    defined), records (the fewest of a side, in these classes), members (their share). nan where no class is defined.
    """
    rows, seed = [], table["seed"] if "seed" in table else pd.Series(0, table.index)
    for metric in RATES:
        wide = table.assign(seed=seed).pivot(index="class", columns="seed", values=metric).dropna(how="all")
        values = wide.mean(axis=1).to_numpy(float)
        first = table[(seed == seed.min()) & table["class"].isin(wide.index)]
        sides = [int(first[side].sum()) for side in ("members", "non_members")]
        mean, low, high = interval(wide)
        row = {"metric": metric, "value": mean, "sd": values.std() if len(values) else np.nan, "low": low, "high": high}
        share = sides[0] / sum(sides) if sum(sides) else np.nan
        rows.append(row | {"classes": len(values), "records": min(sides), "members": share})
    found = pd.DataFrame(rows)
    return found.assign(**about)[[*about, *found.columns]]


def interval(wide: pd.DataFrame, least: float = 0.0, most: float = 1.0) -> tuple[float, float, float]:
    """Mean and ends of its 95 % interval of numbers of every class (rows) by attacks from every seed (columns).

    Student's t over the classes; with several seeds the variances of both means are added, with Satterthwaite's degrees
    of freedom: classes and attack seeds are drawn, the target is not. Cut at `least` and `most`. No ends (nan) with
    fewer than FEWEST classes.
    """
    if not len(wide):
        return np.nan, np.nan, np.nan
    sides = [wide.mean(axis=axis).dropna().to_numpy(float) for axis in (1, 0)]
    mean = float(sides[0].mean())
    if len(sides[0]) < FEWEST:
        return mean, np.nan, np.nan
    if len(sides[1]) < 2:
        return metrics.mean_interval(sides[0], least, most)
    parts = [values.var(ddof=1) / len(values) for values in sides]
    weights = sum(part**2 / (len(values) - 1) for part, values in zip(parts, sides, strict=True))
    freedom = sum(parts) ** 2 / weights if weights else np.inf
    half = stats.t.ppf(0.975, freedom) * math.sqrt(sum(parts))
    return mean, *(float(end) for end in np.clip((mean - half, mean + half), least, most))
