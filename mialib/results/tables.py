"""Numbers of an attack, over targets or over classes, as tables; of any paper that has an `Attacked`."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import roc_curve

from mialib import metrics, runs
from mialib.attacks import Attacked, Observations, Result, signals
from mialib.results import published

ENDS = ["value", "low", "high"]
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


def accuracies(attacked: Attacked) -> pd.DataFrame:
    """`rows` of the first target's train_acc and test_acc with Wilson's 95 % interval over its records.

    For a target that stands alone: `summary` has no interval for it. Only those records count that attacks are asked
    about, where the accuracies are of all of them: the interval is rather too wide.
    """
    member = attacked.records[0].member
    asked = {"train_acc": int(member.sum()), "test_acc": int((~member).sum())}
    found = {}
    for metric, n in asked.items():
        value = attacked.accuracies[0][metric]
        found[metric] = value, *metrics.share(round(value * n), n)[1:]
    return rows(attacked.about, "target", found)


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


def roc(about: Mapping, member: np.ndarray, score: np.ndarray) -> pd.DataFrame:
    """The points of an attack's ROC curve, a row a threshold, as `plots.roc` draws them.

    `member`: (n,) bool, both kinds of record among them. `score`: (n,), higher for members. Columns:
    those of `about`, fpr, tpr, non_members (their number).
    """
    fpr, tpr, _ = roc_curve(member, score)
    return pd.DataFrame(dict(about) | {"fpr": fpr, "tpr": tpr, "non_members": int((~np.asarray(member, bool)).sum())})


def averages(attacked: Attacked, attack: str = "nn") -> pd.DataFrame:
    """Rows of `summary` for macro_precision, the mean of the precisions on members and on non-members.

    Recall averaged alike is the balanced accuracy. Values are means over the targets with Student's t interval; with
    one target, a bootstrap over its records.
    """
    each = []
    for seen, result in pairs(attacked, attack):
        found = metrics.evaluate(seen.member, result.score, result.predicted)
        each.append({"macro_precision": (found["precision"] + found["precision_nonmember"]) / 2})
    numbers = metrics.over_seeds(each)
    if len(each) == 1:
        seen, result = pairs(attacked, attack)[0]
        rng = runs.stream(*attacked.words, attack, "averages")
        sides = [result.predicted[seen.member == side] for side in (True, False)]
        hits, alarms = (rng.binomial(len(side), side.mean(), 1000) for side in sides)
        drawn = metrics.rates(hits, len(sides[0]) - hits, alarms, len(sides[1]) - alarms)
        ends = np.nanquantile((drawn["precision"] + drawn["precision_nonmember"]) / 2, (0.025, 0.975))
        numbers["macro_precision"] = numbers["macro_precision"][0], *ends
    return rows(attacked.about, attack, numbers)


def over_attackers(each: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The same numbers (`rows`) of several attackers, as one table: their means, with Student's t interval over them.

    Of one attacker her own table. ValueError for tables that are not of the same numbers.
    """
    first, *others = (table.set_index([name for name in table if name not in ENDS]) for table in each)
    if not others:
        return each[0]
    if any(not first.index.equals(other.index) for other in others):
        raise ValueError("the attackers' tables are not of the same numbers")
    values = np.stack([table["value"] for table in (first, *others)], axis=1)
    found = pd.DataFrame([metrics.mean_interval(value, 0, 1) for value in values], first.index, ENDS)
    return found.reset_index()[each[0].columns]


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


def with_zeros(classes: pd.DataFrame) -> pd.Series:
    """Column precision of `each_class`, 0 for a class that has members and none who is called one.

    So Shokri et al. 2017, Fig 9, count such classes; to leave them out would hide where an attack fails.
    """
    return classes["precision"].fillna(0).where(classes["recall"].notna())


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


def by_record(attacked: Attacked) -> pd.DataFrame:
    """What the targets say of each record: a row a record, one target after another.

    Columns dataset, tier, n_classes, target, class, member, correct (the largest entry is the true class), uncertainty
    and accuracy (the probability given to the true class), as in Shokri et al. 2017, VII and Fig 12.
    ValueError where a mitigation left no probabilities.
    """
    each = [
        pd.DataFrame(
            {"dataset": attacked.about["dataset"], "tier": attacked.about["tier"]}
            | {"n_classes": seen.vectors.shape[1], "target": number, "class": seen.y, "member": seen.member}
            | {"correct": signals.correct(seen.vectors, seen.y)}
            | {"uncertainty": signals.uncertainty(seen.vectors), "accuracy": _confidence(seen)}
        )
        for number, seen in enumerate(attacked.records)
    ]
    return pd.concat(each, ignore_index=True)


def _confidence(seen: Observations) -> np.ndarray:
    return np.clip(signals.true_class(seen.vectors, seen.y), 0, 1)  # float32 may round a sum to more than one


def overlaps(attacked: Attacked, repeats: int = 1000) -> pd.DataFrame:
    """How alike members and non-members look (Shokri et al. 2017, Fig 12), all classes together, as rows of `summary`.

    Metrics uncertainty_overlap and accuracy_overlap: `metrics.overlap` of `by_record`'s columns, in ten bins. Values
    are means over the targets with Student's t interval; with one target, a bootstrap over its records (members and
    non-members resampled separately). Of equally many members and non-members, no attack that knew these histograms
    and nothing else would be right on more than 1 - overlap / 2.
    """
    shares = [_histograms(seen) for seen in attacked.records]
    each = [{metric: np.minimum(*pair).sum() for metric, pair in pairs.items()} for pairs in shares]
    numbers = metrics.over_seeds(each)
    if len(shares) == 1:
        rng, counts = runs.stream(*attacked.words, "overlaps"), np.bincount(~attacked.records[0].member)
        for metric, pair in shares[0].items():
            drawn = [rng.multinomial(count, side, repeats) / count for count, side in zip(counts, pair, strict=True)]
            numbers[metric] = numbers[metric][0], *np.quantile(np.minimum(*drawn).sum(1), (0.025, 0.975))
    return rows(attacked.about, "target", numbers)


def _histograms(seen: Observations) -> dict[str, list[np.ndarray]]:
    """Metric of `overlaps` -> the histograms of members and of non-members."""
    values = {"uncertainty": signals.uncertainty(seen.vectors), "accuracy": _confidence(seen)}
    return {
        f"{signal}_overlap": [metrics.histogram(value[seen.member == side]) for side in (True, False)]
        for signal, value in values.items()
    }


def class_overlaps(records: pd.DataFrame) -> pd.DataFrame:
    """The overlaps within each class of `by_record`, all targets together: dataset, class, members, non_members, ….

    A class with members or non-members only has nan. Few records make two like samples look unlike.
    """
    found = []
    for (dataset, label), here in records.groupby(["dataset", "class"], sort=False):
        members, others = (here[here["member"] == side] for side in (True, False))
        found.append({"dataset": dataset, "class": label, "members": len(members), "non_members": len(others)})
        for signal in ("uncertainty", "accuracy"):
            both = len(members) and len(others)
            found[-1][f"{signal}_overlap"] = metrics.overlap(members[signal], others[signal]) if both else np.nan
    return pd.DataFrame(found)


def wide(measured: pd.DataFrame, columns: Mapping[tuple[str, str], str]) -> pd.DataFrame:
    """Table to look at: a row a data set, tier, size and setting, a column for each (attack, metric) -> heading."""
    kept = measured.assign(heading=[columns.get(pair) for pair in zip(measured.attack, measured.metric, strict=True)])
    index = ["dataset", "tier", *(key for key in ("size", "setting") if measured[key].nunique() > 1)]
    kept = kept.dropna(subset="heading")
    order = list(dict.fromkeys(kept[index].itertuples(index=False, name=None)))
    table = kept.pivot(index=index, columns="heading", values="value")[list(columns.values())]
    return table.loc[order].rename_axis(columns=None)


def said(found: pd.DataFrame) -> pd.Series:
    """Columns value, low, high in words: ".734 (.721 to .747)", or ".734" where there is no interval."""
    parts = [[published.short(number) for number in row] for row in found[["value", "low", "high"]].to_numpy()]
    told = [value + (f" ({low} to {high})" if low != "nan" else "") for value, low, high in parts]
    return pd.Series(told, found.index, dtype=object)


def by_setting(measured: pd.DataFrame, headings: Mapping[str, str]) -> pd.DataFrame:
    """Columns setting, metric, value, low, high as they are read: a row a setting, a column a metric in `headings`."""
    found = measured.assign(told=said(measured)).pivot(index="setting", columns="metric", values="told")
    columns = [name for name in headings if name in found]
    return found.loc[measured["setting"].unique(), columns].fillna("").rename(columns=dict(headings))


def bars(member: np.ndarray, score: np.ndarray, bins: int) -> pd.DataFrame:
    """Shares of members and of others in equal bins of a score, from the smallest on, by their left edges.

    member, score: bool and float (n,). Columns member and non-member.
    """
    edges = np.linspace(score.min(), score.max(), bins + 1)
    sides = {"member": member, "non-member": ~member}
    shares = {side: np.histogram(score[here], edges)[0] / here.sum() for side, here in sides.items()}
    return pd.DataFrame(shares, pd.Index(edges[:-1], name="score"))


def told_apart(shares: pd.DataFrame) -> dict[str, float]:
    """What the two histograms of `bars` have in common, and the balanced accuracy of the best threshold at an edge.

    That threshold is chosen by who is a member: no attack has it.
    """
    apart = np.abs((shares["member"] - shares["non-member"]).cumsum()).max()
    return {"overlap": np.minimum(shares["member"], shares["non-member"]).sum(), "best threshold": (1 + apart) / 2}
