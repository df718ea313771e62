"""The experiments of Leino & Fredrikson 2020 on linear targets: a Gaussian whose answers are known, and real tables."""

import math
import warnings
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import scipy.sparse
import sklearn.datasets
from scipy.special import expit
from scipy.stats import norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import scale

from mialib import config, metrics, papers, runs, work
from mialib.attacks import Attacked, Observations, Result, baselines, classifiers, leino, signals
from mialib.data import datasets, tables
from mialib.data.datasets import Dataset
from mialib.models import small

NAMES = {"breast-cancer": "Breast Cancer", "adult": "Adult", "location-30": "Location"}
TABLES = NAMES | {"pima": "Pima", "hepatitis": "Hepatitis", "german-credit": "German Credit"}
FEWEST = 30  # records of a class
# What the attacks on real sets are called, in the order of `_split`.
WHITE_BOX = tuple(
    f"{name}{end}" for name in ("bayes-wb", "bayes-wb, 1 proxy", "general-wb") for end in ("", ", shifted")
)


# --- the Gaussian ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gaussian:
    """Records of a class are normal around its mean, each feature with variance 1, whatever the other features are."""

    features: int
    trained: int  # records of a class that a target is trained on
    models: int  # targets: the seeds the intervals are over

    @property
    def name(self) -> str:
        """As tables call it."""
        return f"Gaussian, {self.features} features, {self.trained} records"


# What the attacker knows of the population's means: records of a class behind each proxy (as multiples of the target's;
# infinite: the means themselves), and proxies. "softmax" reads the weights as training leaves them, see `leino.linear`.
PROXIES = {
    "true means": (math.inf, 1),
    "1 proxy": (1, 1),
    "10 proxies": (1, 10),
    "1 proxy on 10 times the records": (10, 1),
    "true means, softmax of 2 classes": (math.inf, 1),
}


def gaussians(profile: str) -> tuple[Gaussian, ...]:
    """The sizes of the synthetic part."""
    config.check_profile(profile)
    return tuple(Gaussian(*row) for row in papers.sizes("leino2020")["gaussian"][profile])


@dataclass(frozen=True)
class Drawn:
    """bayes-wb's log-odds in one setting of PROXIES: (models, records of a class) each."""

    gaussian: Gaussian
    setting: str
    members: np.ndarray
    others: np.ndarray

    @property
    def records(self) -> float:
        """Records of a class behind each proxy."""
        return self.gaussian.trained * PROXIES[self.setting][0]

    @property
    def shift(self) -> float:
        """The best threshold, `leino.shift`; for the softmax of two classes d / 4n (derived, see `closed_form`)."""
        if "softmax" in self.setting:
            return self.gaussian.features / (4 * self.gaussian.trained)
        return leino.shift(self.gaussian.features, self.records)


def drawn(gaussian: Gaussian, setting: str, seed: int) -> Drawn:
    """Train targets on records of their own (two classes, means at the origin), and ask bayes-wb about one class.

    The members are the very records behind the target's mean, the others as many new ones. `setting`: see PROXIES.
    """
    d, n = gaussian.features, gaussian.trained
    (share, count), rng = PROXIES[setting], runs.stream(seed, gaussian.name, setting)
    found = []
    for _ in range(gaussian.models):
        inside, outside, rest = rng.standard_normal((3, n, d))
        proxies = [_optimal(rng.standard_normal((2, d)) / math.sqrt(n * share)) for _ in range(count)]
        target = _optimal(np.stack([inside.mean(0), rest.mean(0)]))
        if "softmax" in setting:
            target, *proxies = (_centred(each) for each in (target, *proxies))
        X, y = np.concatenate([inside, outside]), np.zeros(2 * n, np.int64)
        found.append(leino.bayes_wb(target, proxies, X, y).score.reshape(2, n))
    members, others = np.stack(found, axis=1)
    return Drawn(gaussian, setting, members, others)


def _optimal(means: np.ndarray) -> leino.Linear:
    """The best linear model for class means (classes, d) at variance 1 (naive Bayes)."""
    return means, -(means**2).sum(1) / 2


def _centred(model: leino.Linear) -> leino.Linear:
    return tuple(part - part.mean(0) for part in model)


def closed_form(drawn: Drawn, threshold: float) -> dict[str, float]:
    """What TPR, TNR and accuracy are by the formulae, at a threshold on the log-odds.

    These are normal, of variance V = d (1/n + 1/(kN)) and means d/(2n) + d/(2N) for members, -d/(2n) + d/(2N) for
    others: d features, n records of a class behind the target, N behind each of k proxies (derived). So accuracy at the
    best threshold is Φ(½ √(d/n) / √(1 + n/(kN))). A softmax of c classes knows the displacement of a class but for the
    mean over the classes: with true means V = d (1 - 1/c) / n, means V and 0.
    """
    d, n, (_, k) = drawn.gaussian.features, drawn.gaussian.trained, PROXIES[drawn.setting]
    variance = d * (1 / n + 1 / (k * drawn.records))
    middle, half = d / (2 * drawn.records), d / (2 * n)
    if "softmax" in drawn.setting:
        variance, middle, half = variance / 2, half / 2, half / 2
    ends = (middle + half - threshold, threshold - middle + half)
    tpr, tnr = norm.cdf(np.array(ends) / math.sqrt(variance))
    return {"tpr": float(tpr), "tnr": float(tnr), "accuracy": float(tpr + tnr) / 2}


def measured(drawn: Drawn) -> pd.DataFrame:
    """TPR, TNR and accuracy at threshold 0 and at the best one, beside the closed forms.

    Columns dataset, setting, threshold ("0", "shifted"), metric, value, low, high (Student's t over the targets),
    theory.
    """
    rows = []
    for name, threshold in (("0", 0.0), ("shifted", drawn.shift)):
        tpr, tnr = (drawn.members > threshold).mean(1), (drawn.others <= threshold).mean(1)
        ours = {"tpr": tpr, "tnr": tnr, "accuracy": (tpr + tnr) / 2}
        for metric, theory in closed_form(drawn, threshold).items():
            value, low, high = metrics.mean_interval(ours[metric], 0, 1)
            about = {"dataset": drawn.gaussian.name, "setting": drawn.setting, "threshold": name, "metric": metric}
            rows.append(about | {"value": value, "low": low, "high": high, "theory": theory})
    return pd.DataFrame(rows)


def sure(drawn: Drawn, least: float = 0.9) -> pd.DataFrame:
    """What confidences of at least `least` are worth: a row each for raw and corrected ones (`leino.calibrated`).

    Columns confidence, precision, recall, records (how many are that sure). nan where none is.
    """
    rows = []
    for name, (members, others) in confidences(drawn).items():
        hits, alarms = (members >= least).sum(), (others >= least).sum()
        found = metrics.rates(hits, members.size - hits, alarms, others.size - alarms)
        rows.append({"confidence": name} | {key: float(found[key]) for key in ("precision", "recall")})
        rows[-1]["records"] = int(hits + alarms)
    return pd.DataFrame(rows)


def reliability(drawn: Drawn, bins: int = 10, fewest: int = 100) -> pd.DataFrame:
    """Share of members among records of like confidence: a row a bin, raw and corrected.

    Columns confidence, claimed (the mean of the bin), members (their share), records. Bins of one width; those of fewer
    than `fewest` records are left out.
    """
    rows = []
    for name, sides in confidences(drawn).items():
        claimed = np.concatenate([side.ravel() for side in sides])
        member = np.repeat([True, False], [side.size for side in sides])
        place = np.minimum((claimed * bins).astype(int), bins - 1)
        for at in range(bins):
            here = place == at
            if here.sum() >= fewest:
                about = {"claimed": claimed[here].mean(), "members": member[here].mean(), "records": int(here.sum())}
                rows.append({"confidence": name} | about)
    return pd.DataFrame(rows)


def confidences(drawn: Drawn) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Confidences of members and of others, raw and corrected."""
    about = drawn.gaussian.features, drawn.gaussian.trained, drawn.records, PROXIES[drawn.setting][1]
    sides = drawn.members, drawn.others
    return {"raw": tuple(map(expit, sides)), "corrected": tuple(expit(leino.calibrated(s, *about)) for s in sides)}


# --- real sets ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One target of the table: `size` records train it, as many are the attacker's, as many more are nobody's."""

    dataset: str
    size: int
    targets: int  # each on a split of its own: the seeds the intervals are over
    proxies: int
    shadows: int
    C: float  # of LogisticRegression: 1 / C weighs the L2 penalty

    @property
    def setting(self) -> str:
        """As tables call the target."""
        return f"C={self.C:g}"


@dataclass(frozen=True)
class Network(Row):
    """A target with one hidden layer, of which the last layer is attacked. C is 0: there is no such penalty."""

    hidden: int
    epochs: int

    @property
    def setting(self) -> str:
        """As tables call the target."""
        return f"{self.hidden} units, {self.epochs} epochs"


def rows(profile: str) -> tuple[Row, ...]:
    """The real sets and their sizes in a profile; one of eight numbers is a `Network`."""
    config.check_profile(profile)
    sizes = papers.sizes("leino2020")
    several = [*sizes["linear"][profile], *sizes["listed"][profile]]
    return tuple(Network(*row) if len(row) == 8 else Row(*row) for row in several)


def table(name: str, profile: str) -> Dataset:
    """A data set of `rows`: one of `tables.TABLES`, the same in all profiles, or what `load` gives."""
    return tables.load(name) if name in tables.TABLES else load(name, profile)


def load(name: str, profile: str) -> Dataset:
    """A data set by its name in sizes.toml; Breast Cancer is scikit-learn's, each feature of mean 0 and variance 1.

    Classes of fewer than FEWEST records are left out: a fifteenth of a class trains models. No real set here has any.
    """
    if name != "breast-cancer":
        data = datasets.load(name, profile)
        kept = np.isin(data.y, np.flatnonzero(np.bincount(data.y) >= FEWEST))
        X, y = data.X[kept], np.unique(data.y[kept], return_inverse=True)[1]
        return replace(data, X=X, y=y, classes=int(y.max()) + 1, digest=runs.digest(X, y))
    X, y = sklearn.datasets.load_breast_cancer(return_X_y=True)
    X, y = scale(X).astype(np.float32), y.astype(np.int64)
    source = f"Breast Cancer: real, Wisconsin Diagnostic (UCI), {len(y)} records of {X.shape[1]} standardised features"
    return Dataset(name, X, y, 2, "R", source, runs.digest(X, y))


def attack(data: Dataset, row: Row, seed: int) -> Attacked:
    """Every target of `row`, attacked by WHITE_BOX, by Shokri et al.'s shadow attack ("nn") and by "gap".

    A split is three parts of like classes: the target's records, the attacker's, and others. She trains proxies on hers
    (one on all; the rest on as many, drawn with replacement: our choice), and shadows: two fifths of hers for a shadow,
    two for its proxies, the last fifth for records that neither has seen. The same shadows serve Shokri et al.'s
    attack, asked about the first two fifths and the next. ValueError where the records or a class are too few.
    """
    if 3 * row.size > data.X.shape[0]:
        raise ValueError(f"{data.name}: {data.X.shape[0]} records are too few for three parts of {row.size}")
    words = (seed, "leino", data.name, row.size)
    X = (data.X.toarray() if scipy.sparse.issparse(data.X) else data.X).astype(np.float32)
    jobs = []
    for i in range(row.targets):
        own = runs.stream(*words, i).permutation(len(X))[: 3 * row.size]
        jobs.append((X[own], data.y[own], row, (*words, i)))
    about = (data.digest, row, words, runs.versions("numpy", "scipy", "scikit-learn", "torch"))
    found = work.every(_split_network if isinstance(row, Network) else _split, jobs, *about)
    records = [Observations(small.softmax(logits), y, member == 1) for logits, y, member, *_ in found]
    white = {name: [Result(s[i], s[i] > 0) for *_, s, _, _, _ in found] for i, name in enumerate(WHITE_BOX)}
    black = [
        classifiers.attack("nn", Observations(small.softmax(logits), y, member == 1), [seen], (*words, i))[0]
        for i, ((*_, logits, y, member), seen) in enumerate(zip(found, records, strict=True))
    ]
    answers = white | {"nn": black, "gap": [baselines.gap(seen) for seen in records]}
    fewest = min(int(np.bincount(seen.member).min()) for seen in records)
    told = {"dataset": TABLES[row.dataset], "size": row.size, "shadows": row.shadows, "tier": data.tier}
    return Attacked(
        told | {"setting": row.setting, "records": fewest}, [_learnt(s) for s in records], records, answers, words
    )


def _learnt(seen: Observations) -> dict[str, float]:
    right = signals.correct(seen.vectors, seen.y)
    return {"train_acc": right[seen.member].mean(), "test_acc": right[~seen.member].mean()}


def _split(X: np.ndarray, y: np.ndarray, row: Row, words: tuple) -> tuple[np.ndarray, ...]:
    """One split, X (3 size, d), all its models and attacks.

    Of the records that the target is asked about: its logits (n, classes), y, member (0, 1); scores (attacks, n) in the
    order of WHITE_BOX. Of the shadows, pooled: logits, y, member.
    """
    rng, classes = runs.stream(*words, "split"), int(y.max()) + 1
    own, theirs, others = deal(y, 3, rng)
    target, asked = _fit(X, y, own, row.C, classes), np.concatenate([own, others])
    knows = [_proxies(X, y, theirs, count, row.C, classes, rng) for count in (row.proxies, 1)]
    shadows: tuple[list[leino.Shadow], ...] = ([], [])
    said = []
    for _ in range(row.shadows):
        fifths = [theirs[part] for part in deal(y[theirs], 5, rng)]
        trained, used = np.concatenate(fifths[:2]), np.concatenate(fifths[2:4])
        shadow, known = _fit(X, y, trained, row.C, classes), np.concatenate([trained, fifths[4]])
        for some, count in zip(shadows, (row.proxies, 1), strict=True):
            proxies = _proxies(X, y, used, count, row.C, classes, rng)
            some.append(leino.Shadow(shadow, proxies, X[known], y[known], np.isin(known, trained)))
        both = np.concatenate([trained, used])
        said.append((_logits(shadow, X[both]), y[both], np.isin(both, trained) * 1))
    learnt = leino.displacement(shadows[0], (*words, "displacement"))
    scores = []
    for proxies, some in zip(knows, shadows, strict=True):
        for threshold in (0.0, leino.threshold_of(some)):
            scores.append(leino.bayes_wb(target, proxies, X[asked], y[asked], threshold).score)
    for threshold in (0.0, leino.threshold_of(shadows[0], learnt)):
        scores.append(leino.general_wb(learnt, target, knows[0], X[asked], y[asked], threshold).score)
    answered = _logits(target, X[asked]), y[asked], np.isin(asked, own) * 1
    return *answered, np.stack(scores), *(np.concatenate(parts) for parts in zip(*said, strict=True))


def deal(y: np.ndarray, parts: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Record numbers in `parts` disjoint parts of one size, classes alike in all; up to `parts` - 1 are left over."""
    order = rng.permutation(len(y))
    order = order[np.argsort(y[order], kind="stable")][: len(y) // parts * parts]
    # A class that begins anywhere in a round is dealt on from there: sizes differ by none, classes by one record.
    return [order[i::parts] for i in range(parts)]


def _proxies(
    X: np.ndarray, y: np.ndarray, at: np.ndarray, count: int, C: float, classes: int, rng: np.random.Generator
) -> list[leino.Linear]:
    """One proxy on the records `at`, or several, each on as many that are drawn from them, class by class."""
    if count == 1:
        return [_fit(X, y, at, C, classes)]
    return [_fit(X, y, _again(y, at, rng), C, classes) for _ in range(count)]


def _again(y: np.ndarray, at: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As many of the records `at`, drawn with replacement within each class, so that none is lost."""
    return np.concatenate([rng.choice(some, len(some)) for c in np.unique(y[at]) if len(some := at[y[at] == c])])


def _fit(X: np.ndarray, y: np.ndarray, at: np.ndarray, C: float, classes: int) -> leino.Linear:
    if len(np.unique(y[at])) < classes:
        raise ValueError(f"{len(at)} records for a model lack one of {classes} classes: take more")
    at, times = np.unique(at, return_counts=True)  # a record drawn twice weighs two: fewer rows, the same optimum
    return leino.linear(LogisticRegression(C=C, max_iter=5000).fit(X[at], y[at], times))


def _logits(model: leino.Linear, X: np.ndarray) -> np.ndarray:
    return (X @ model[0].T + model[1]).astype(np.float32)


# --- a network's last layer -------------------------------------------------------------------------------------------

RATE, BATCH = 0.1, 100  # with scikit-learn's rate, .001, German Credit's test accuracy stays .03 above the printed one


def _split_network(X: np.ndarray, y: np.ndarray, row: Network, words: tuple) -> tuple[np.ndarray, ...]:
    """`_split` for networks: what lies below the last layer is the target's, or a shadow's, in its proxies too.

    Proxies have last layers of their own, trained anew on what the hidden units say of their records (slide 13).
    """
    rng = runs.stream(*words, "split")
    own, theirs, others = deal(y, 3, rng)
    *known, (answered, _) = _opened(X, y, (own, theirs, others), row, rng)
    shadows, said = [], []
    for _ in range(row.shadows):
        fifths = [theirs[part] for part in deal(y[theirs], 5, rng)]
        trained, used = np.concatenate(fifths[:2]), np.concatenate(fifths[2:4])
        *some, (_, both) = _opened(X, y, (trained, used, fifths[4]), row, rng)
        shadows.append(some)
        said.append((both, y[np.concatenate([trained, used])], np.arange(len(both)) < len(trained)))
    learnt, scores = leino.displacement([some[0] for some in shadows], (*words, "displacement")), []
    for number, each in enumerate(known):
        for threshold in (0.0, leino.threshold_of([some[number] for some in shadows])):
            scores.append(leino.bayes_wb(each.target, each.proxies, each.X, each.y, threshold).score)
    asked = known[0]
    for threshold in (0.0, leino.threshold_of([some[0] for some in shadows], learnt)):
        scores.append(leino.general_wb(learnt, asked.target, asked.proxies, asked.X, asked.y, threshold).score)
    pooled = (np.concatenate(parts) * 1 for parts in zip(*said, strict=True))
    return answered, asked.y, asked.member * 1, np.stack(scores), *pooled


def _opened(
    X: np.ndarray, y: np.ndarray, parts: tuple[np.ndarray, ...], row: Network, rng: np.random.Generator
) -> tuple[leino.Shadow, leino.Shadow, tuple[np.ndarray, np.ndarray]]:
    """A network trained on the first of three parts, with `row.proxies` trained on the second, and with one.

    Both are asked about the first and the third. Then its logits of these, and of the first and the second.
    """
    trained, used, others = parts
    net = _network(X, y, trained, (row.hidden,), row, rng)
    z, last = np.maximum(X @ net.coefs_[0] + net.intercepts_[0], 0), _last(net)
    drawn = [*(_again(y, used, rng) for _ in range(row.proxies)), used]
    *several, one = (_last(_network(z, y, at, (), row, rng)) for at in drawn)
    asked, both = np.concatenate([trained, others]), np.concatenate([trained, used])
    member = np.arange(len(asked)) < len(trained)
    several, one = (leino.Shadow(last, proxies, z[asked], y[asked], member) for proxies in (several, [one]))
    return several, one, (_logits(last, z[asked]), _logits(last, z[both]))


def _network(
    X: np.ndarray, y: np.ndarray, at: np.ndarray, units: tuple[int, ...], row: Network, rng: np.random.Generator
) -> MLPClassifier:
    """scikit-learn's, with ReLU, by Adam for all of its epochs; without hidden units a last layer by itself."""
    recipe = {"max_iter": row.epochs, "n_iter_no_change": row.epochs, "random_state": int(rng.integers(2**31))}
    net = MLPClassifier(units, batch_size=min(BATCH, len(at)), learning_rate_init=RATE, **recipe)
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):  # so few epochs are meant
        return net.fit(X[at], y[at])


def _last(net: MLPClassifier) -> leino.Linear:
    return leino.linear(SimpleNamespace(coef_=net.coefs_[-1].T, intercept_=net.intercepts_[-1]))
