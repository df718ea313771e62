"""Numbers that say how well an attack tells members from non-members, with intervals.

Positive class = member; a score is larger for a likelier member. `fpr`, the share of non-members called
members, is the quantity Rezaei & Liu 2020 print as FAR (false alarm rate): the code says `fpr` throughout.
"""

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.metrics import accuracy_score, auc, precision_recall_fscore_support, roc_curve

FPR_LIMITS = {"tpr_at_10": 0.1, "tpr_at_1": 0.01, "tpr_at_0.1": 0.001}
LOW_FPR = {"tpr_at_1": 0.01, "tpr_at_0.1": 0.001, "tpr_at_0.01": 0.0001}  # of `low_fpr`
METRICS = (
    "accuracy",
    "balanced_accuracy",
    "precision",
    "recall",
    "precision_nonmember",
    "recall_nonmember",
    "fpr",
    "f1",
    "auc",
    *FPR_LIMITS,
)
NAN = float("nan")
# What values a number of this name can take; any other can take all.
LIMITS = {
    r"correlation|gap|change": (-1.0, 1.0),
    r"distance|queries": (0.0, np.inf),
    r"acc|precision|recall|f1|fpr|fnr|far|auc|tpr|share|overlap|confidence": (0.0, 1.0),
}


def evaluate(member: np.ndarray, score: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """All METRICS of one attack on n records: `member` bool (n,), `score` float (n,), `predicted` bool (n,).

    `auc` and `tpr_at_x` come from `score`, everything else from `predicted`. `tpr_at_x` is the largest TPR at an
    FPR of at most x % over thresholds at the distinct scores: tied records are accepted together and nothing is
    interpolated. (The released code of Carlini et al. 2022 takes an FPR below x %; the two differ where x % of the
    non-members is a whole number of them.) Infinite scores are allowed.

    Undefined values are nan: the precision of a class nobody was put in, a rate of an absent side, and, when
    there are only members or only non-members, whatever weighs one side against the other (balanced accuracy,
    both precisions, F1, AUC, TPR at an FPR). ValueError on empty input, unequal lengths, arrays that should be
    boolean and are not, or nan scores.
    """
    member, score, predicted = _check(member, score, predicted)
    (precision_non, precision), (recall_non, recall), (_, f1), _ = precision_recall_fscore_support(
        member, predicted, labels=[False, True], zero_division=np.nan
    )
    curve = dict.fromkeys(("auc", *FPR_LIMITS), NAN)
    if _two_sided(member):
        # Ranks keep ties and order exactly, and unlike the scores they are always finite.
        fpr, tpr, _ = roc_curve(member, np.unique(score, return_inverse=True)[1], drop_intermediate=False)
        curve = {"auc": auc(fpr, tpr)} | {name: tpr[fpr <= limit].max() for name, limit in FPR_LIMITS.items()}
    else:
        precision = precision_non = f1 = NAN
    values = {
        "accuracy": accuracy_score(member, predicted),
        "balanced_accuracy": (recall + recall_non) / 2,
        "precision": precision,
        "recall": recall,
        "precision_nonmember": precision_non,
        "recall_nonmember": recall_non,
        "fpr": 1 - recall_non,
        "f1": f1,
    } | curve
    return {name: float(values[name]) for name in METRICS}


def per_class(
    member: np.ndarray, score: np.ndarray, predicted: np.ndarray, y: np.ndarray, classes: int
) -> pd.DataFrame:
    """`evaluate` within each true class: one row a class 0..classes-1, columns METRICS, members, non_members.

    A class with no records has nan everywhere and zero counts. `y` holds the true labels, int (n,); ValueError
    if one is outside 0..classes-1, and as in `evaluate`.
    """
    member, score, predicted = _check(member, score, predicted)
    y = np.asarray(y)
    if y.shape != member.shape or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"y must hold one integer label a record: got {y.dtype} {y.shape} for {member.size} records")
    if y.min() < 0 or y.max() >= classes:
        raise ValueError(f"labels must lie in 0..{classes - 1}: got {y.min()}..{y.max()}")
    rows = []
    for label in range(classes):
        here = y == label
        row = evaluate(member[here], score[here], predicted[here]) if here.any() else dict.fromkeys(METRICS, NAN)
        rows.append(row | {"members": int(member[here].sum()), "non_members": int((~member[here]).sum())})
    return pd.DataFrame(rows, index=pd.RangeIndex(classes, name="class"))


def counts(y: np.ndarray, member: np.ndarray, predicted: np.ndarray, classes: int) -> tuple[np.ndarray, ...]:
    """True positives, false negatives, false positives, true negatives in each class, (classes,) each.

    y int (n,), member and predicted bool (n,).
    """
    sides = ((True, True), (True, False), (False, True), (False, False))
    return tuple(np.bincount(y[(member == side) & (predicted == said)], minlength=classes) for side, said in sides)


def rates(tp: np.ndarray, fn: np.ndarray, fp: np.ndarray, tn: np.ndarray) -> dict[str, np.ndarray]:
    """Threshold metrics, and fnr, of counts (or shares) of records (…,); undefined values are nan, as in `evaluate`."""
    tp, fn, fp, tn = (np.asarray(count, dtype=float) for count in (tp, fn, fp, tn))
    members, others = tp + fn, fp + tn
    both = np.where((members > 0) & (others > 0), 1.0, NAN)
    found = {
        "accuracy": _ratio(tp + tn, members + others),
        "precision": _ratio(tp, tp + fp) * both,
        "recall": _ratio(tp, members),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn) * both,
        "precision_nonmember": _ratio(tn, tn + fn) * both,
        "recall_nonmember": _ratio(tn, others),
        "fpr": _ratio(fp, others),
        "fnr": _ratio(fn, members),
    }
    return found | {"balanced_accuracy": (found["recall"] + found["recall_nonmember"]) / 2}


def bootstrap(
    member: np.ndarray, score: np.ndarray, predicted: np.ndarray, rng: np.random.Generator, repeats: int = 1000
) -> dict[str, tuple[float, float]]:
    """95 % percentile interval of each of METRICS over `repeats` resamples of the records.

    Members and non-members are drawn separately, each side with replacement at its own size: per resample
    `rng.integers(members, size=members)`, then the same for non-members. The result is that of calling `evaluate`
    on every resample, but the scores are sorted only once. Resamples where a metric is undefined are left out of
    its interval; with one side empty every interval is (nan, nan). ValueError as in `evaluate`.
    """
    member, score, predicted = _check(member, score, predicted)
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1: got {repeats}")
    if not _two_sided(member):
        return dict.fromkeys(METRICS, (NAN, NAN))
    rank = np.unique(-score, return_inverse=True)[1]  # 0 = largest score
    inside, outside = (rank[member], predicted[member]), (rank[~member], predicted[~member])
    groups = int(rank.max()) + 1
    drawn, curves = np.empty((repeats, 2)), np.empty((repeats, 1 + len(FPR_LIMITS)))
    for i in range(repeats):
        members_at, drawn[i, 0] = _resample(*inside, groups, rng)
        others_at, drawn[i, 1] = _resample(*outside, groups, rng)
        curves[i] = _curve(members_at, others_at)
    hits, alarms = drawn.T
    values = rates(hits, len(inside[0]) - hits, alarms, len(outside[0]) - alarms)
    values |= dict(zip(("auc", *FPR_LIMITS), curves.T, strict=True))
    return {name: _percentiles(values[name]) for name in METRICS}


def low_fpr(member: np.ndarray, score: np.ndarray) -> dict[str, tuple[float, float, float]]:
    """TPR at an FPR of at most 1, .1 and .01 %, as in `evaluate`, with its Clopper-Pearson 95 % interval.

    `member` bool (n,), `score` float (n,); keys LOW_FPR. The interval is that of a share of the members, with the
    threshold where it is: what another sample of non-members would do to it is in `bootstrap`'s alone, which has no
    width where no member is found. With fewer than 1 / FPR non-members none of them may be called a member. nan where
    a side is empty; ValueError as in `evaluate`.
    """
    member, score, _ = _check(member, score, np.zeros(np.shape(score), bool))
    if not _two_sided(member):
        return dict.fromkeys(LOW_FPR, (NAN, NAN, NAN))
    fpr, tpr, _ = roc_curve(member, np.unique(score, return_inverse=True)[1], drop_intermediate=False)
    found = {}
    for name, limit in LOW_FPR.items():
        hits = round(tpr[fpr <= limit].max() * member.sum())
        ends = stats.binomtest(hits, int(member.sum())).proportion_ci(0.95, method="exact")
        found[name] = hits / member.sum(), *ends
    return {name: tuple(map(float, numbers)) for name, numbers in found.items()}


def share(hits: int, n: int) -> tuple[float, float, float]:
    """`hits` of `n` as a share, and the ends of its Wilson 95 % interval. nan if `n` is 0; ValueError if fewer."""
    if n == 0:
        return NAN, NAN, NAN
    return hits / n, *map(float, stats.binomtest(hits, n).proportion_ci(0.95, method="wilson"))


def over_seeds(results: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float, float]]:
    """`mean_interval` of every metric over target seeds: `evaluate`'s result of each seed, within `limits` of its name.

    With one seed the ends are nan; a metric that is undefined in any seed is nan. ValueError if there is no result or
    the results name different metrics.
    """
    if not results:
        raise ValueError("over_seeds needs the result of at least one seed")
    if any(set(result) != set(results[0]) for result in results):
        raise ValueError("over_seeds needs the same metrics from every seed")
    return {name: mean_interval([result[name] for result in results], *limits(name)) for name in results[0]}


def mean_interval(
    values: Sequence[float] | np.ndarray, least: float = -np.inf, most: float = np.inf
) -> tuple[float, float, float]:
    """Mean of `values` (n,) and the ends of its Student t 95 % interval, cut at the values that are possible.

    Cutting leaves the coverage as it is: what is cut off cannot be the mean. One value has no interval (nan), none at
    all has no mean either; a nan among them makes all three nan.
    """
    values = np.asarray(values, dtype=float)
    mean = values.mean() if len(values) else NAN
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values) if len(values) > 1 else NAN
    return float(mean), *(float(end) for end in np.clip((mean - half, mean + half), least, most))


def paired(member: np.ndarray, one: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """What one attack's balanced accuracy has above another's on the same records, with its 95 % interval (normal).

    All bool (n,): who is a member, and which records one and the other attack are right about. The interval is of the
    records' differences, so it knows nothing of another draw of either attack.
    """
    apart = one.astype(float) - other
    sides = [apart[member], apart[~member]]
    half = float(stats.norm.ppf(0.975) * np.sqrt(sum(each.var(ddof=1) / len(each) for each in sides)) / 2)
    value = float(np.mean([each.mean() for each in sides]))
    return value, value - half, value + half


def ratio_interval(part: Sequence[int] | np.ndarray, whole: Sequence[int] | np.ndarray) -> tuple[float, float, float]:
    """Sum of `part` / sum of `whole`, counts (n,) each, and the ends of its 95 % interval, cut at what is possible.

    The ratio estimator, for shares of which some units have none (a target on which an attack calls nobody a member):
    Student's t over the units, of what each has above the common ratio. A unit that makes most of the whole draws the
    ratio to itself. So its square is divided by 1 - its share of the whole (as Bell & McCaffrey 2002 do), and the
    degrees of freedom are the effective number of units, 1 / (sum of squared shares), less 1 (our choice): of units of
    one size the usual interval. Never narrower than Clopper-Pearson's of the sums, as few units may be alike by chance.
    With fewer than two units that are not empty there is no interval, with none no ratio: nan. ValueError for other
    than counts of one length, part within whole.
    """
    part, whole = np.asarray(part, dtype=float), np.asarray(whole, dtype=float)
    if part.shape != whole.shape or part.ndim != 1:
        raise ValueError(f"part and whole must be flat and of one length: got {part.shape} and {whole.shape}")
    if not ((part >= 0) & (part <= whole) & (part % 1 == 0) & (whole % 1 == 0)).all():
        raise ValueError("part and whole must be counts, of which part is never the larger")
    hits, total = int(part.sum()), int(whole.sum())
    ratio, share = (hits / total, whole / total) if total else (NAN, whole)
    if np.count_nonzero(whole) < 2:
        return ratio, NAN, NAN
    error = (part - ratio * whole)[share > 0] ** 2 / (1 - share[share > 0])
    half = stats.t.ppf(0.975, 1 / (share @ share) - 1) * math.sqrt(error.sum()) / total
    exact = stats.binomtest(hits, total).proportion_ci(0.95, method="exact")
    return ratio, float(max(min(ratio - half, exact.low), 0)), float(min(max(ratio + half, exact.high), 1))


def limits(metric: str) -> tuple[float, float]:
    """The least and the largest value that a metric of this name can take, see LIMITS; infinite for any other name."""
    return next((ends for words, ends in LIMITS.items() if re.search(words, metric)), (-np.inf, np.inf))


def precision_at(base_rate: float | np.ndarray, tpr: float | np.ndarray, fpr: float | np.ndarray) -> np.ndarray:
    """Precision of an attack with this TPR and FPR when the share `base_rate` of the records are members (Bayes).

    Arguments broadcast; nan where nothing would be called a member. ValueError if one lies outside 0..1.
    """
    base_rate, tpr, fpr = (np.asarray(rate, dtype=float) for rate in (base_rate, tpr, fpr))
    for name, rate in (("base_rate", base_rate), ("tpr", tpr), ("fpr", fpr)):
        if ((rate < 0) | (rate > 1)).any():
            raise ValueError(f"{name} must lie in 0..1: got {rate}")
    return _ratio(base_rate * tpr, base_rate * tpr + (1 - base_rate) * fpr)


def correlation(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Pearson's r of two columns of numbers, (n,) each, with its 95 % interval (Fisher's z): (r, low, high).

    Pairs with a nan are left out. All three are nan when fewer than four pairs are left or one side is constant.
    ValueError if the columns are not flat and of one length.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"x and y must be flat and of one length: got {x.shape} and {y.shape}")
    known = ~(np.isnan(x) | np.isnan(y))
    x, y = x[known], y[known]
    if len(x) < 4 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return NAN, NAN, NAN
    found = stats.pearsonr(x, y)
    return float(found.statistic), *map(float, found.confidence_interval(0.95))


def histogram(values: np.ndarray, bins: int = 10) -> np.ndarray:
    """Share of `values`, (n,) numbers in 0..1, in each of `bins` bins of one width, (bins,).

    A value on an edge falls into the upper bin, 1 into the last. ValueError if there is none or one lies outside.
    """
    values = np.asarray(values, dtype=float)
    if not values.size or not ((values >= 0) & (values <= 1)).all():
        raise ValueError("a histogram needs at least one value, and all of them in 0..1")
    # Edges as quotients: the tenths of linspace lie a rounding error off, and would put .3 below its edge.
    return np.histogram(values, np.arange(bins + 1) / bins)[0] / values.size


def overlap(a: np.ndarray, b: np.ndarray, bins: int = 10) -> float:
    """How far the histograms of two samples in 0..1 cover each other: 1 for the same, 0 for no bin in common.

    The sum over bins of the smaller share (see `histogram`, which also raises its ValueError).
    """
    return float(np.minimum(histogram(a, bins), histogram(b, bins)).sum())


def overlap_interval(a: np.ndarray, b: np.ndarray, rng: np.random.Generator, repeats: int) -> dict[str, float]:
    """`overlap` of two samples in ten bins: overlap, low, high (bootstrap over the records, 95 %), if_alike.

    if_alike: the mean overlap of two samples of these sizes drawn from the pooled histogram. Few records look unlike by
    chance, so an overlap means something beside `if_alike` only. ValueError as `histogram` raises it.
    """
    shares, pooled = [histogram(values) for values in (a, b)], histogram(np.concatenate([a, b]))
    drawn, alike = (
        np.minimum(*(rng.multinomial(len(v), p, repeats) / len(v) for v, p in zip((a, b), of, strict=True))).sum(1)
        for of in (shares, [pooled, pooled])
    )
    low, high = _percentiles(drawn)
    return {"overlap": overlap(a, b), "low": low, "high": high, "if_alike": float(alike.mean())}


def _check(member, score, predicted):
    member, score, predicted = np.asarray(member), np.asarray(score, dtype=float), np.asarray(predicted)
    if not (member.ndim == 1 and member.shape == score.shape == predicted.shape):
        shapes = f"member {member.shape}, score {score.shape}, predicted {predicted.shape}"
        raise ValueError(f"member, score and predicted must be flat and of one length: got {shapes}")
    if member.size == 0:
        raise ValueError("no records to evaluate")
    for name, array in (("member", member), ("predicted", predicted)):
        if array.dtype != bool:
            raise ValueError(f"{name} must be a boolean array: got {array.dtype}")
    if np.isnan(score).any():
        raise ValueError(f"{np.isnan(score).sum()} of {score.size} scores are nan")
    return member, score, predicted


def _two_sided(member):
    return member.any() and not member.all()


def _resample(rank, predicted, groups, rng):
    """Draw one side with replacement: how many records fell on each distinct score, how many are predicted members."""
    drawn = rng.integers(len(rank), size=len(rank))
    return np.bincount(rank[drawn], minlength=groups), np.count_nonzero(predicted[drawn])


def _curve(members_at, others_at):
    """(AUC, TPR at each of FPR_LIMITS) from the counts at each distinct score, largest score first."""
    accepted, alarms = np.cumsum(members_at), np.cumsum(others_at)
    members, others = accepted[-1], alarms[-1]
    # A member loses to every non-member above it and to half of those it is tied with.
    lost = np.dot(members_at, alarms - others_at / 2)
    below = np.searchsorted(alarms / others, list(FPR_LIMITS.values()), side="right")
    tpr = np.concatenate(([0], accepted / members))
    return 1 - lost / (members * others), *tpr[below]


def _ratio(part, whole):
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(part, dtype=float) / whole


def _percentiles(values):
    defined = values[~np.isnan(values)]
    low, high = np.percentile(defined, [2.5, 97.5]) if defined.size else (NAN, NAN)
    return float(low), float(high)
