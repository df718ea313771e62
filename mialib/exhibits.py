"""What an exhibit shows: the numbers of an experiment, over targets or over classes, beside the published ones."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from mialib import config, metrics, published, runs, signals
from mialib.attacks import Observations, Result
from mialib.config import Row
from mialib.datasets import Dataset
from mialib.experiments import MITIGATIONS, NAMES, Attacked

# Which of our numbers the published tables print: metric of the table -> (attack, metric).
PRINTED = {
    "target_train_acc": ("target", "train_acc"),
    "target_test_acc": ("target", "test_acc"),
    "attack_precision": ("nn", "precision"),
    "attack_recall": ("nn", "recall"),
    "attack_total_acc": ("nn", "accuracy"),
    "class_precision_p50_points": ("nn", "class_precision_p50"),
} | {
    f"class_{metric}_{statistic}": ("nn", f"class_{metric}_{statistic}")
    for metric in ("precision", "recall")
    for statistic in ("mean", "p10", "p25", "p50", "p75", "p90")
}
QUANTILES = {"p10": 0.1, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p90": 0.9}


def overview(rows: Iterable[Row], loaded: Mapping[str, Dataset]) -> pd.DataFrame:
    """One line a row of the exhibit: the data set, its tier and shape, and the numbers of the profile."""
    return pd.DataFrame(
        {
            "data": NAMES[row.dataset],
            "tier": loaded[row.dataset].tier,
            "records": loaded[row.dataset].X.shape[0],
            "features": loaded[row.dataset].X.shape[1],
            "classes": loaded[row.dataset].classes,
            "size": row.size,
            "shadows": row.shadows,
            "targets": row.targets,
            "hidden units": row.hidden,
            "epochs": row.epochs,
            "batch": row.batch,
        }
        for row in rows
    )


def mitigations_of(dataset: str) -> list[str]:
    """The rows that Table III prints for a data set; those of Purchase-100 for one it does not have."""
    table = published.load("shokri_table3")
    name = NAMES[dataset] if NAMES[dataset] in set(table.dataset) else "Purchase-100"
    return list(dict.fromkeys(table[table.dataset == name].setting))


def summary(attacked: Attacked) -> pd.DataFrame:
    """One row a number: the columns of `Attacked.about`, then attack, metric, value, low, high.

    attack "target" holds train_acc and test_acc, the others hold `metrics.METRICS`. Values are means over the
    targets with Student's t interval; with one target, a bootstrap over its records (none for its accuracies).
    """
    summaries = {"target": metrics.over_seeds(attacked.accuracies)}
    summaries |= {name: _summary(attacked, name) for name in attacked.answers}
    return pd.DataFrame(
        attacked.about | {"attack": name, "metric": metric, "value": value, "low": low, "high": high}
        for name, numbers in summaries.items()
        for metric, (value, low, high) in numbers.items()
    )


def _summary(attacked: Attacked, name: str) -> dict[str, tuple[float, float, float]]:
    pairs = list(zip(attacked.records, attacked.answers[name], strict=True))
    each = [metrics.evaluate(seen.member, result.score, result.predicted) for seen, result in pairs]
    if len(each) > 1:
        return metrics.over_seeds(each)
    seen, result = pairs[0]
    bounds = metrics.bootstrap(seen.member, result.score, result.predicted, runs.stream(*attacked.words, name))
    return {metric: (value, *bounds[metric]) for metric, value in each[0].items()}


def by_class(attacked: Attacked, name: str) -> pd.DataFrame:
    """`summary` of attack `name` within each true class: one row a class, a column a metric with its low and high.

    Besides the attack's metrics: train_acc and test_acc of the target within the class, their difference gap, and
    the class's share of the training set. `skipped` marks classes the attack had no model for. A number undefined
    in any target is nan.
    """
    pairs = list(zip(attacked.records, attacked.answers[name], strict=True))
    each = [
        metrics.per_class(seen.member, result.score, result.predicted, seen.y, seen.vectors.shape[1])
        for seen, result in pairs
    ]
    each = [table.join(_learnt(seen)) for table, (seen, _) in zip(each, pairs, strict=True)]
    skipped = attacked.answers[name][0].skipped
    rows = []
    for label in each[0].index:
        numbers = metrics.over_seeds([table.loc[label].to_dict() for table in each])
        row = {key: attacked.about[key] for key in ("dataset", "size", "shadows", "tier", "setting")} | {"class": label}
        for metric, (value, low, high) in numbers.items():
            row |= {metric: value, f"{metric}_low": low, f"{metric}_high": high}
        rows.append(row | {"skipped": label in skipped})
    return pd.DataFrame(rows)


def _learnt(seen: Observations) -> pd.DataFrame:
    """What one target learnt of each class: share of the training set, train_acc, test_acc, gap."""
    right, classes = signals.correct(seen.vectors, seen.y), seen.vectors.shape[1]
    count = {side: np.bincount(seen.y[seen.member == side], minlength=classes) for side in (True, False)}
    hits = {side: np.bincount(seen.y[(seen.member == side) & right], minlength=classes) for side in (True, False)}
    with np.errstate(invalid="ignore"):  # a class without records has no accuracy: nan
        train, test = hits[True] / count[True], hits[False] / count[False]
    share = count[True] / seen.member.sum()
    return pd.DataFrame({"share": share, "train_acc": train, "test_acc": test, "gap": train - test})


def across_classes(attacked: Attacked, name: str = "nn") -> pd.DataFrame:
    """Mean and percentiles over the true classes of precision and recall, as rows of `summary`.

    Metrics: class_precision_mean, class_precision_p10 … p90, class_recall_mean, …; a class in which nobody is called
    a member has no precision and is left out. Values are means over the targets with Student's t interval; with one
    target, a bootstrap over its records (members and non-members resampled within each class).
    """
    pairs = list(zip(attacked.records, attacked.answers[name], strict=True))
    each = [_class_statistics(seen, result) for seen, result in pairs]
    numbers = metrics.over_seeds(each)
    if len(each) == 1:
        numbers = _bootstrapped(*pairs[0], each[0], runs.stream(*attacked.words, name, "classes"))
    return pd.DataFrame(
        attacked.about | {"attack": name, "metric": metric, "value": value, "low": low, "high": high}
        for metric, (value, low, high) in numbers.items()
    )


def _class_statistics(seen: Observations, result: Result) -> dict[str, float]:
    called, classes = result.predicted, seen.vectors.shape[1]
    counts = {
        (side, said): np.bincount(seen.y[(seen.member == side) & (called == said)], minlength=classes)
        for side in (True, False)
        for said in (True, False)
    }
    return _statistics(counts[True, True], counts[True, False], counts[False, True])


def _statistics(hits: np.ndarray, missed: np.ndarray, false: np.ndarray) -> dict[str, float]:
    """Statistics over classes from their true positives, false negatives and false positives, each (…, classes)."""
    with np.errstate(invalid="ignore"):
        found = {"precision": hits / (hits + false), "recall": hits / (hits + missed)}
    out = {}
    for metric, values in found.items():
        out[f"class_{metric}_mean"] = np.nanmean(values, -1)
        for statistic, share in QUANTILES.items():
            out[f"class_{metric}_{statistic}"] = np.nanquantile(values, share, -1)
    return out


def _bootstrapped(
    seen: Observations, result: Result, found: dict[str, float], rng: np.random.Generator, repeats: int = 1000
) -> dict[str, tuple[float, float, float]]:
    """95 % intervals; a class's hits among its m members are redrawn as Binomial(m, its recall); false alike."""
    classes, called = seen.vectors.shape[1], result.predicted
    drawn = {}
    for side in (True, False):
        total = np.bincount(seen.y[seen.member == side], minlength=classes)
        yes = np.bincount(seen.y[(seen.member == side) & called], minlength=classes)
        drawn[side] = total, rng.binomial(total, yes / np.maximum(total, 1), (repeats, classes))
    (members, hits), (_, false) = drawn[True], drawn[False]
    spread = _statistics(hits, members - hits, false)
    return {m: (value, *np.quantile(spread[m], (0.025, 0.975))) for m, value in found.items()}


def settled(measured: pd.DataFrame, metric: str = "class_precision_p50", within: float = 0.02) -> pd.Series:
    """Whether half of a setting's shadows gave the same `metric` as all of them, within `within`: a bool a row.

    `measured`: rows of one data set and setting at several numbers of shadows, the largest of them even. The rule is
    ours, fixed before the first run, for exhibits that cannot afford the paper's number of shadows.
    """
    key = ["dataset", "setting", "size"]
    rows = measured[measured["metric"] == metric].set_index([*key, "shadows"])["value"]
    most = rows.reset_index().groupby(key)["shadows"].max()
    close = {at: abs(rows[(*at, n)] - rows[(*at, n // 2)]) <= within for at, n in most.items()}
    return measured[key].apply(tuple, axis=1).map(close)


def compare(
    measured: pd.DataFrame,
    profile: str,
    name: str,
    setting: str | None = None,
    shadows: Mapping[str, int] | None = None,
) -> list[dict]:
    """Measurements beside the published table `name`: the cells of `published.compare`.

    `setting`: the table's name for all of them, else each row's setting. Data sets measured at two sizes in one
    setting get a variant. Nothing is comparable in `demo`, nor where there were fewer shadows than the paper's
    (config.PAPER_SHADOWS, or `shadows`: setting -> number), unless the column `settled` says that the result had
    settled (see `settled`). Of targets alone (no attack) shadows are not asked for.
    """
    wanted = dict.fromkeys(published.load(name)["metric"])
    kept = pd.concat([_found(measured, metric) for metric in wanted], ignore_index=True)
    kept["setting"] = setting or kept["setting"]
    twice = kept.groupby(["dataset", "setting"])["size"].transform("nunique") > 1
    results = [
        {
            "dataset": row.dataset,
            "model": getattr(row, "model", "local NN (tanh)"),
            "setting": row.setting,
            "variant": f"{row.size:,} records" if several else "",
            "metric": row.printed,
            "value": row.value,
            "low": row.low,
            "high": row.high,
            "tier": row.tier,
        }
        | _scale(row, profile, shadows or {})
        for row, several in zip(kept.itertuples(), twice, strict=True)
    ]
    return published.compare(results, name)


def _found(measured: pd.DataFrame, printed: str) -> pd.DataFrame:
    """Our rows for the metric that a published table calls `printed`."""
    attack, metric = PRINTED.get(printed, ("nn", printed))
    return measured[(measured.attack == attack) & (measured.metric == metric)].assign(printed=printed)


def _scale(row, profile: str, shadows: Mapping[str, int]) -> dict[str, str]:
    """Why a row is too small to be compared, or what stands in for its scale."""
    paper = shadows.get(row.setting) or config.PAPER_SHADOWS[row.dataset.lower().split("-")[0]]
    if profile == "demo":
        return {"not_comparable": "demo profile"}
    if row.shadows >= paper:
        return {}
    few = f"{row.shadows} of the paper's {paper} shadows"
    if row.attack == "target":
        return {}
    return {"note": f"{few}, settled"} if getattr(row, "settled", False) else {"not_comparable": few}


def wide(measured: pd.DataFrame, columns: Mapping[tuple[str, str], str]) -> pd.DataFrame:
    """Table to look at: a row a data set, tier, size and setting, a column for each (attack, metric) -> heading."""
    kept = measured.assign(heading=[columns.get(pair) for pair in zip(measured.attack, measured.metric, strict=True)])
    index = ["dataset", "tier", *(key for key in ("size", "setting") if measured[key].nunique() > 1)]
    kept = kept.dropna(subset="heading")
    order = list(dict.fromkeys(kept[index].itertuples(index=False, name=None)))
    table = kept.pivot(index=index, columns="heading", values="value")[list(columns.values())]
    return table.loc[order].rename_axis(columns=None)


def beside(measured: pd.DataFrame, metric: str, printed: Mapping[str, tuple[str, str | None]]) -> pd.DataFrame:
    """Rows for `report.dots`: the neural attack's `metric`, the gap attack's, and numbers printed for them.

    `printed`: mark ("published", "rerun") -> (published table, its setting; None for each row's setting). Adds the
    column label (the data set, with its size where there are two); mitigations come in Table III's order.
    """
    of = {name: measured[(measured.attack == name) & (measured.metric == metric)] for name in ("nn", "gap")}
    table = of["nn"].assign(gap=of["gap"]["value"].to_numpy()).reset_index(drop=True)
    for mark, (name, setting) in printed.items():
        rows = published.load(name)
        rows = rows[rows.metric.map(PRINTED.get) == ("nn", metric)]
        numbers = dict(zip(zip(rows.dataset, rows.setting, strict=True), rows.published, strict=True))
        table[mark] = [numbers.get((row.dataset, setting or row.setting)) for row in table.itertuples()]
    order = {name: place for place, name in enumerate(MITIGATIONS)}
    table = table.sort_values("setting", key=lambda names: names.map(order), kind="stable", ignore_index=True)
    twice = table.groupby("dataset")["size"].transform("nunique") > 1
    table["label"] = table.dataset + np.where(twice, ", " + table["size"].map("{:,}".format), "")
    return table
