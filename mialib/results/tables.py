"""Numbers of an attack, over targets or over classes, as tables; of any paper that has an `Attacked`."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from mialib import metrics, runs
from mialib.attacks import Attacked, Observations, Result, signals

QUANTILES = {"p10": 0.1, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p90": 0.9}
Interval = tuple[float, float, float]  # value, low, high


def rows(about: Mapping, attack: str, numbers: Mapping[str, Interval]) -> pd.DataFrame:
    """One row a number: the columns of `about`, then attack, metric, value, low, high."""
    return pd.DataFrame(
        dict(about) | {"attack": attack, "metric": metric, "value": value, "low": low, "high": high}
        for metric, (value, low, high) in numbers.items()
    )


def pairs(attacked: Attacked, attack: str) -> list[tuple[Observations, Result]]:
    """Each target's records with an attack's answer on them."""
    return list(zip(attacked.records, attacked.answers[attack], strict=True))


def summary(attacked: Attacked) -> pd.DataFrame:
    """`rows`: of attack "target" train_acc and test_acc, of the others `metrics.METRICS`.

    Values are means over the targets with Student's t interval; with one target, a bootstrap over its records (none for
    its accuracies).
    """
    numbers = {"target": metrics.over_seeds(attacked.accuracies)}
    numbers |= {attack: _summary(attacked, attack) for attack in attacked.answers}
    return pd.concat([rows(attacked.about, attack, found) for attack, found in numbers.items()], ignore_index=True)


def _summary(attacked: Attacked, attack: str) -> dict[str, Interval]:
    both = pairs(attacked, attack)
    each = [metrics.evaluate(seen.member, result.score, result.predicted) for seen, result in both]
    if len(each) > 1:
        return metrics.over_seeds(each)
    seen, result = both[0]
    bounds = metrics.bootstrap(seen.member, result.score, result.predicted, runs.stream(*attacked.words, attack))
    return {metric: (value, *bounds[metric]) for metric, value in each[0].items()}


def by_class(attacked: Attacked, attack: str) -> pd.DataFrame:
    """`summary` of an attack within each true class: one row a class, a column a metric with its low and high.

    Besides the attack's metrics: train_acc and test_acc of the target within the class, their difference gap, and
    the class's share of the training set. `skipped` marks classes the attack had no model for. A number undefined
    in any target is nan.
    """
    each = [
        metrics.per_class(seen.member, result.score, result.predicted, seen.y, seen.vectors.shape[1]).join(learnt(seen))
        for seen, result in pairs(attacked, attack)
    ]
    found = []
    for label in each[0].index:
        numbers = metrics.over_seeds([table.loc[label].to_dict() for table in each])
        row = {key: attacked.about[key] for key in ("dataset", "size", "shadows", "tier", "setting")} | {"class": label}
        for metric, (value, low, high) in numbers.items():
            row |= {metric: value, f"{metric}_low": low, f"{metric}_high": high}
        found.append(row | {"skipped": label in attacked.answers[attack][0].skipped})
    return pd.DataFrame(found)


def learnt(seen: Observations) -> pd.DataFrame:
    """What one target learnt of each class: share of the training set, train_acc, test_acc, gap."""
    right = signals.correct(seen.vectors, seen.y)
    hits, missed, other_hits, other_missed = metrics.counts(seen.y, seen.member, right, seen.vectors.shape[1])
    with np.errstate(invalid="ignore"):  # a class without records has no accuracy: nan
        train, test = hits / (hits + missed), other_hits / (other_hits + other_missed)
    share = (hits + missed) / seen.member.sum()
    return pd.DataFrame({"share": share, "train_acc": train, "test_acc": test, "gap": train - test})


def across_classes(attacked: Attacked, attack: str = "nn") -> pd.DataFrame:
    """Mean and percentiles over the true classes of precision and recall, as rows of `summary`.

    Metrics: class_precision_mean, class_precision_p10 … p90, class_recall_mean, …; a class in which nobody is called
    a member has no precision and is left out. Values are means over the targets with Student's t interval; with one
    target, a bootstrap over its records (members and non-members resampled within each class).
    """
    both = pairs(attacked, attack)
    if len(both) == 1:
        numbers = _bootstrapped(*both[0], runs.stream(*attacked.words, attack, "classes"))
    else:
        numbers = metrics.over_seeds([_statistics(class_rates(*_counts(seen, result))) for seen, result in both])
    return rows(attacked.about, attack, numbers)


def each_class(attacked: Attacked, attack: str = "nn") -> pd.DataFrame:
    """Precision and recall in every true class of every target, a row each, as the papers' curves over classes show.

    The columns of `Attacked.about`, then target, class, precision, recall. `by_class` is its mean over the targets,
    whose spread over classes is smaller than that of any one target. A class in which nobody is called a member has
    no precision, one without members no recall: nan.
    """
    each = [class_points(*pair).rename_axis("class").reset_index() for pair in pairs(attacked, attack)]
    table = pd.concat([points.assign(**attacked.about, target=i) for i, points in enumerate(each)], ignore_index=True)
    return table[[*attacked.about, "target", "class", "precision", "recall"]]


def class_points(seen: Observations, result: Result) -> pd.DataFrame:
    """`learnt` of each class of one target, with an attack's precision and recall."""
    return learnt(seen).assign(**class_rates(*_counts(seen, result)))


def _counts(seen: Observations, result: Result) -> tuple[np.ndarray, ...]:
    return metrics.counts(seen.y, seen.member, result.predicted, seen.vectors.shape[1])


def class_rates(hits: np.ndarray, missed: np.ndarray, false: np.ndarray, *rest: np.ndarray) -> dict[str, np.ndarray]:
    """Precision and recall from the counts of a class, (…, classes); unlike `metrics.rates` where one side is absent:
    of a class without non-members, all who are called members are.
    """
    with np.errstate(invalid="ignore"):
        return {"precision": hits / (hits + false), "recall": hits / (hits + missed)}


def _statistics(found: dict[str, np.ndarray]) -> dict[str, float]:
    """Statistics over classes of rates, each (…, classes)."""
    out = {}
    for metric, values in found.items():
        out[f"class_{metric}_mean"] = np.nanmean(values, -1)
        for statistic, share in QUANTILES.items():
            out[f"class_{metric}_{statistic}"] = np.nanquantile(values, share, -1)
    return out


def _bootstrapped(seen: Observations, result: Result, rng: np.random.Generator) -> dict[str, Interval]:
    """95 % intervals; a class's hits among its m members are redrawn as Binomial(m, its recall); false alike."""
    hits, missed, false, rest = _counts(seen, result)
    drawn = [
        rng.binomial(total, yes / np.maximum(total, 1), (1000, len(total)))
        for yes, total in ((hits, hits + missed), (false, false + rest))
    ]
    spread = _statistics(class_rates(drawn[0], hits + missed - drawn[0], drawn[1]))
    found = _statistics(class_rates(hits, missed, false))
    return {m: (value, *np.quantile(spread[m], (0.025, 0.975))) for m, value in found.items()}


def wide(measured: pd.DataFrame, columns: Mapping[tuple[str, str], str]) -> pd.DataFrame:
    """Table to look at: a row a data set, tier, size and setting, a column for each (attack, metric) -> heading."""
    kept = measured.assign(heading=[columns.get(pair) for pair in zip(measured.attack, measured.metric, strict=True)])
    index = ["dataset", "tier", *(key for key in ("size", "setting") if measured[key].nunique() > 1)]
    kept = kept.dropna(subset="heading")
    order = list(dict.fromkeys(kept[index].itertuples(index=False, name=None)))
    table = kept.pivot(index=index, columns="heading", values="value")[list(columns.values())]
    return table.loc[order].rename_axis(columns=None)
