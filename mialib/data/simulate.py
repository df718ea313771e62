"""Simulated stand-ins for data that cannot be had: purchases, hospital stays, locations.

Each is fitted to published sizes and published accuracies of the target model, never to the result of an attack.
`python -m benchmarks calibration` shows the fit.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.sparse import csr_array
from scipy.special import expit, logit
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from mialib import runs

# Records of each main procedure in the real Texas-100 (Hospital Discharge public use files), class 0 first.
TEXAS_CLASS_SIZES = np.array([
    341, 329, 876, 340, 434, 381, 268, 263, 262, 318, 459, 618, 505, 236, 2488, 256, 525, 244, 845, 546,
    334, 1636, 443, 241, 988, 309, 310, 376, 428, 342, 2317, 348, 614, 469, 1508, 342, 989, 551, 385, 559,
    414, 452, 510, 552, 273, 1243, 304, 2192, 258, 891, 1013, 1336, 262, 303, 271, 309, 313, 1201, 704, 853,
    291, 423, 299, 244, 448, 2686, 1151, 295, 516, 262, 344, 316, 2687, 237, 313, 668, 370, 257, 897, 290,
    312, 1072, 357, 367, 432, 274, 299, 340, 276, 319, 421, 1299, 581, 1599, 2345, 726, 270, 2080, 3046, 244,
])  # fmt: skip
_CHUNK = 8192  # records generated or labelled at once
_KMEANS_RECORDS = 20_000  # records that k-means is fitted on; the others go to the nearest centre
_LEAST_PER_CLASS = 20


@dataclass(frozen=True)
class Profiles:
    """Logistic latent-factor model: P(x_ij = 1) = expit(b_j + activity_i · z_i · w_j), z_i standard normal."""

    factors: int
    strength: float  # standard deviation of z_i · w_j over records and features
    activity: float  # log standard deviation of the lognormal factor that some records have stronger tastes by


PURCHASES = Profiles(factors=12, strength=2.5, activity=0.4)
PURCHASE_BIAS = (-2.0, 1.0)  # mean and standard deviation of b_j
LOCATIONS = Profiles(factors=15, strength=1.7, activity=0.1)
# Share of users seen at a place, from the commonest to the rarest: scale · quantile^-exponent, at most 0.98.
LOCATION_SHARES = (0.031, 0.93)

HOSPITAL_ATTRIBUTES = {"sex": 2, "age group": 22, "race": 5, "length of stay": 10, "hospital": 480}
HOSPITAL_FEATURES = 6169
CODES_PER_STAY = (2.2, 0.7, 55)  # diagnosis and procedure codes: log median, log standard deviation, most
OWN_CODES = 0.29  # share of a stay's codes that its main procedure has chosen; the others are anybody's
CODES_PER_PROCEDURE = 60


def purchases(classes: int, n: int = 197_324, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Shoppers by products bought: X (n, 600) uint8 0/1, and y (n,) int64, the cluster of each record.

    As in Shokri et al. 2017, VI-A, the classes are clusters of the records, so the records are the same for every
    number of classes. ValueError unless there are at least 2 classes and 20 records a class.
    """
    _check(n, classes)
    X = _purchase_records(n, seed).copy()
    return X, _clusters(X, classes, 1, (seed, "simulate", "purchases"))


@lru_cache(maxsize=1)
def _purchase_records(n: int, seed: int) -> np.ndarray:
    """The same for every number of classes, and most of the work; notebooks ask for five of them in turn."""
    bias = runs.stream(seed, "simulate", "purchases", "bias").normal(*PURCHASE_BIAS, 600)
    return _records(PURCHASES, bias, n, (seed, "simulate", "purchases"))


def locations(n: int = 5_010, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Users by places visited: X (n, 446) uint8 0/1, and y (n,) int64, the cluster of each record, 0..29.

    Shaped like Location-30 (Shokri et al. 2017, VI-A). ValueError for fewer than 600 records.
    """
    _check(n, 30)
    scale, exponent = LOCATION_SHARES
    share = np.minimum(scale * ((np.arange(446) + 0.5) / 446) ** -exponent, 0.98)
    # Averaged over normal tastes, expit(b + s·z) is near expit(b / √(1 + π·s²/8)); this keeps the share.
    bias = logit(share) * np.sqrt(1 + np.pi / 8 * LOCATIONS.strength**2)
    bias = runs.stream(seed, "simulate", "locations", "bias").permutation(bias)
    X = _records(LOCATIONS, bias, n, (seed, "simulate", "locations"))
    return X, _clusters(X, 30, 10, (seed, "simulate", "locations"))


def hospital(n: int = 67_330, seed: int = 0) -> tuple[csr_array, np.ndarray]:
    """Hospital stays: X (n, 6169) binary uint8 CSR, and y (n,) int64, the main procedure, 0..99.

    Class sizes are those of the real Texas-100, scaled to n. A stay has one of each of HOSPITAL_ATTRIBUTES (the
    first 519 features) and up to 55 codes with heavy-tailed frequencies. ValueError for fewer than 2,000 records.
    """
    if n < 2000:
        raise ValueError(f"n must be at least 2000, so that each of the 100 classes has a few records, not {n}")
    rng = runs.stream(seed, "simulate", "hospital")
    y = rng.permutation(np.repeat(np.arange(100), _scaled(TEXAS_CLASS_SIZES, n)))
    median, spread, most = CODES_PER_STAY
    codes = np.clip(rng.lognormal(median, spread, n), 1, most).astype(np.int64)
    attributes = sum(HOSPITAL_ATTRIBUTES.values())
    background = _zipf(HOSPITAL_FEATURES - attributes, rng)
    rows, columns = [], []
    for label in range(100):
        stays = np.flatnonzero(y == label)
        first = 0
        for size in HOSPITAL_ATTRIBUTES.values():
            tilted = _zipf(size, runs.stream(seed, "simulate", "hospital", size)) * rng.lognormal(0, 0.5, size)
            rows.append(stays)
            columns.append(first + rng.choice(size, len(stays), p=tilted / tilted.sum()))
            first += size
        own = np.zeros_like(background)
        own[rng.choice(len(own), CODES_PER_PROCEDURE, replace=False, p=background)] = rng.exponential(
            size=CODES_PER_PROCEDURE
        )
        mixed = OWN_CODES * own / own.sum() + (1 - OWN_CODES) * background
        rows.append(np.repeat(stays, codes[stays]))
        columns.append(first + rng.choice(len(own), codes[stays].sum(), p=mixed))
    rows, columns = np.concatenate(rows), np.concatenate(columns)
    X = csr_array((np.ones(len(rows), np.uint8), (rows, columns)), shape=(n, HOSPITAL_FEATURES))
    X.sum_duplicates()
    X.data[:] = 1
    return X, y


def _check(n: int, classes: int) -> None:
    if classes < 2:
        raise ValueError(f"classes must be at least 2, not {classes}")
    if n < _LEAST_PER_CLASS * classes:
        raise ValueError(f"n must be at least {_LEAST_PER_CLASS * classes} for {classes} classes, not {n}")


def _records(model: Profiles, bias: np.ndarray, n: int, words: tuple) -> np.ndarray:
    """Records of the model, (n, features) uint8. float64, so that rounding does not differ between machines."""
    taste = runs.stream(*words, "taste").standard_normal((model.factors, len(bias)))
    taste *= model.strength / np.sqrt(model.factors)
    rng = runs.stream(*words, "records")
    X = np.empty((n, len(bias)), np.uint8)
    for at in range(0, n, _CHUNK):
        chunk = X[at : at + _CHUNK]
        z = rng.standard_normal((len(chunk), model.factors)) * rng.lognormal(0, model.activity, (len(chunk), 1))
        chunk[:] = rng.random(chunk.shape) < expit(z @ taste + bias)
    return X


def _clusters(X: np.ndarray, classes: int, starts: int, words: tuple) -> np.ndarray:
    """Label of each record by k-means; of several starts, the one whose smallest class is largest."""
    rng = runs.stream(*words, "clusters", classes)
    some = X[:_KMEANS_RECORDS].astype(np.float64)
    with threadpool_limits(1):  # the sums of several threads would depend on their number
        fits = [
            KMeans(classes, n_init=1, max_iter=50, random_state=int(rng.integers(2**31))).fit(some)
            for _ in range(starts)
        ]
        best = max(fits, key=lambda fit: np.bincount(fit.labels_, minlength=classes).min())
        chunks = [best.predict(X[at : at + _CHUNK].astype(np.float64)) for at in range(0, len(X), _CHUNK)]
    return np.concatenate(chunks).astype(np.int64)


def _scaled(sizes: np.ndarray, n: int) -> np.ndarray:
    """Whole numbers that sum to n, in proportion to `sizes` (largest remainders)."""
    quota = sizes * n / sizes.sum()
    counts = np.floor(quota).astype(np.int64)
    counts[np.argsort(counts - quota, kind="stable")[: n - counts.sum()]] += 1
    return counts


def _zipf(size: int, rng: np.random.Generator) -> np.ndarray:
    """Probabilities of `size` values in random order, the k-th commonest in proportion to 1/(k + 10)."""
    weight = 1 / (np.arange(size) + 11.0)
    return rng.permutation(weight / weight.sum())
