"""What an exhibit shows: the numbers of an experiment, over targets or over classes, beside the published ones."""

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from mialib import config, metrics, published, runs, signals, targets
from mialib.attacks import Observations, Result
from mialib.config import Row
from mialib.datasets import Dataset
from mialib.difficulty import SUBSETS
from mialib.experiments import MITIGATIONS, NAMES, Attacked
from mialib.targets import Trained

# Which of our numbers the published tables print: metric of the table -> (attack, metric).
PRINTED = {
    "target_train_acc": ("target", "train_acc"),
    "target_test_acc": ("target", "test_acc"),
    "attack_precision": ("nn", "precision"),
    "attack_recall": ("nn", "recall"),
    "attack_total_acc": ("nn", "accuracy"),
    "class_precision_p50_points": ("nn", "class_precision_p50"),
    "synthesis_queries": ("target", "synthesis_queries"),
    "synthesis_confidence": ("target", "synthesis_confidence"),
    "mean_gap": ("target", "mean_gap"),
    "uncertainty_overlap": ("target", "uncertainty_overlap"),
    "accuracy_overlap": ("target", "accuracy_overlap"),
} | {
    f"class_{metric}_{statistic}": ("nn", f"class_{metric}_{statistic}")
    for metric in ("precision", "recall")
    for statistic in ("mean", "p10", "p25", "p50", "p75", "p90")
}
# The three scatter plots of Shokri et al. 2017, Fig 11: what they show of a class.
SCATTERS = {"left": ("share", "precision"), "middle": ("gap", "precision"), "right": ("share", "gap")}
QUANTILES = {"p10": 0.1, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p90": 0.9}


def overview(rows: Iterable[Row], loaded: Mapping[str, Dataset]) -> pd.DataFrame:
    """One line a row of the exhibit: the data set, its tier and shape, and the numbers of the profile."""
    return pd.DataFrame(
        {
            "data": NAMES.get(row.dataset, row.dataset),
            "tier": loaded[row.dataset].tier,
            "records": loaded[row.dataset].X.shape[0],
            "features": math.prod(loaded[row.dataset].X.shape[1:]),
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
    rows = table[table.dataset == NAMES.get(dataset)]
    return list(dict.fromkeys((rows if len(rows) else table[table.dataset == "Purchase-100"]).setting))


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


def each_class(attacked: Attacked, name: str = "nn") -> pd.DataFrame:
    """Precision and recall in every true class of every target, a row each, as the papers' curves over classes show.

    The columns of `Attacked.about`, then target, class, precision, recall. `by_class` is its mean over the targets,
    whose spread over classes is smaller than that of any one target. A class in which nobody is called a member has
    no precision, one without members no recall: nan.
    """
    tables = []
    for target, (seen, result) in enumerate(zip(attacked.records, attacked.answers[name], strict=True)):
        rates = pd.DataFrame(_rates(*_class_counts(seen, result))).rename_axis("class").reset_index()
        tables.append(rates.assign(**attacked.about, target=target))
    return pd.concat(tables, ignore_index=True)[[*attacked.about, "target", "class", "precision", "recall"]]


def _class_statistics(seen: Observations, result: Result) -> dict[str, float]:
    return _statistics(*_class_counts(seen, result))


def _class_counts(seen: Observations, result: Result) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True positives, false negatives and false positives in each class."""
    called, classes = result.predicted, seen.vectors.shape[1]
    counts = {
        (side, said): np.bincount(seen.y[(seen.member == side) & (called == said)], minlength=classes)
        for side in (True, False)
        for said in (True, False)
    }
    return counts[True, True], counts[True, False], counts[False, True]


def _rates(hits: np.ndarray, missed: np.ndarray, false: np.ndarray) -> dict[str, np.ndarray]:
    with np.errstate(invalid="ignore"):
        return {"precision": hits / (hits + false), "recall": hits / (hits + missed)}


def _statistics(hits: np.ndarray, missed: np.ndarray, false: np.ndarray) -> dict[str, float]:
    """Statistics over classes from their true positives, false negatives and false positives, each (…, classes)."""
    out = {}
    for metric, values in _rates(hits, missed, false).items():
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


def gap_statistics(attacked: Sequence[Attacked], pooled: str, name: str = "nn") -> pd.DataFrame:
    """Shokri et al. 2017, Fig 11, in numbers: rows of `summary` for each of `attacked`, and for all together, `pooled`.

    Metrics: Pearson's r over the classes, gap_precision_correlation, share_precision_correlation and
    share_gap_correlation (columns of `by_class`), and mean_gap, the mean of the gap over the classes; each on one
    target at a time, as the paper has one. Values are means over the targets with Student's t interval, cut at -1 and
    1; with one target, r has Fisher's interval over its classes and mean_gap none. A class is left out where a number
    of it is undefined. A class's gap and precision come from the same non-members, so that chance moves both alike:
    crossed_gap_precision_correlation takes the gap from one target and the precision from the next (nan with one).
    `pooled` is the data set's name of the last rows: the classes of the i-th target of each, of the weakest tier.
    ValueError where the numbers of targets differ.
    """
    classes = [
        [_class_points(*pair) for pair in zip(each.records, each.answers[name], strict=True)] for each in attacked
    ]
    if len({len(points) for points in classes}) != 1:
        raise ValueError("gap_statistics pools the i-th targets of all: it needs equally many of each")
    about = attacked[0].about | {
        "dataset": pooled,
        "tier": min((each.about["tier"] for each in attacked), key="MSR".index),
        "shadows": min(each.about["shadows"] for each in attacked),
    }
    everything = [pd.concat(points) for points in zip(*classes, strict=True)]
    rows = [*((each.about, points) for each, points in zip(attacked, classes, strict=True)), (about, everything)]
    return pd.DataFrame(
        about
        | {"attack": name if "precision" in metric else "target", "metric": metric}
        | {"value": value, "low": low, "high": high}
        for about, points in rows
        for metric, (value, low, high) in _relations(points).items()
    )


def _class_points(seen: Observations, result: Result) -> pd.DataFrame:
    """share, gap and precision of each class, of one target, and more."""
    return _learnt(seen).assign(**_rates(*_class_counts(seen, result)))


def _relations(targets: list[pd.DataFrame]) -> dict[str, tuple[float, float, float]]:
    each = [
        {f"{x}_{y}_correlation": metrics.correlation(points[x], points[y]) for x, y in SCATTERS.values()}
        | {"crossed_gap_precision_correlation": metrics.correlation(points["gap"], others["precision"])}
        | {"mean_gap": (points["gap"].mean(), np.nan, np.nan)}
        for points, others in zip(targets, targets[1:] + targets[:1], strict=True)
    ]
    if len(each) == 1:
        return each[0] | {"crossed_gap_precision_correlation": (np.nan, np.nan, np.nan)}
    return metrics.over_seeds([{metric: value for metric, (value, _, _) in found.items()} for found in each])


def correlations(classes: pd.DataFrame, printed: pd.DataFrame | None = None) -> pd.DataFrame:
    """What `plots.scatters` writes above its panels: columns side, panel, r, low, high, of the points that it draws.

    `classes`: columns share, gap, precision, a row a class. `printed`: the published points, columns panel, x, y.
    """
    found = [("ours", panel, classes[x], classes[y]) for panel, (x, y) in SCATTERS.items()]
    if printed is not None:
        found += [("published", panel, points["x"], points["y"]) for panel, points in printed.groupby("panel")]
    return pd.DataFrame(
        [(side, panel, *metrics.correlation(x, y)) for side, panel, x, y in found],
        columns=["side", "panel", "r", "low", "high"],
    )


def by_record(attacked: Attacked) -> pd.DataFrame:
    """What the targets say of each record: a row a record, one target after another.

    Columns dataset, tier, n_classes, target, class, member, correct (the largest entry is the true class), uncertainty
    and accuracy. Uncertainty and accuracy (the probability given to the true class) are
    those of Shokri et al. 2017, VII and Fig 12. ValueError where a mitigation left no probabilities.
    """
    tables = [
        pd.DataFrame(
            {"dataset": attacked.about["dataset"], "tier": attacked.about["tier"]}
            | {"n_classes": seen.vectors.shape[1], "target": number, "class": seen.y, "member": seen.member}
            | {"correct": signals.correct(seen.vectors, seen.y)}
            | {"uncertainty": signals.uncertainty(seen.vectors), "accuracy": _confidence(seen)}
        )
        for number, seen in enumerate(attacked.records)
    ]
    return pd.concat(tables, ignore_index=True)


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
    return pd.DataFrame(
        attacked.about | {"attack": "target", "metric": metric, "value": value, "low": low, "high": high}
        for metric, (value, low, high) in numbers.items()
    )


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
    rows = []
    for (dataset, label), here in records.groupby(["dataset", "class"], sort=False):
        members, others = (here[here["member"] == side] for side in (True, False))
        rows.append({"dataset": dataset, "class": label, "members": len(members), "non_members": len(others)})
        for signal in ("uncertainty", "accuracy"):
            both = len(members) and len(others)
            rows[-1][f"{signal}_overlap"] = metrics.overlap(members[signal], others[signal]) if both else np.nan
    return pd.DataFrame(rows)


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
    setting get a variant; a column `variant` names others. Nothing is comparable in `demo`, nor where there were
    fewer shadows than the paper's (config.PAPER_SHADOWS, or `shadows`: setting -> number), unless the column
    `settled` says that the result had settled (see `settled`). Of targets alone (no attack) shadows are not asked for.
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
            "variant": ", ".join(
                filter(None, (getattr(row, "variant", ""), f"{row.size:,} records" if several else ""))
            ),
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
    paper = shadows.get(row.setting) or config.PAPER_SHADOWS[re.match(r"\w+", row.dataset.lower())[0]]
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


# --- Rezaei & Liu 2020 ----------------------------------------------------------------------------------------------


def printed(
    name: str,
    profile: str,
    subset: str,
    metric: str,
    value: float,
    low: float = math.nan,
    high: float = math.nan,
    **more: str,
) -> dict:
    """A number of ours on target `name`, as `published.compare` takes it for one of Rezaei & Liu's tables.

    `subset`: "all", "correct" or "misclassified"; `metric` as the table has it; rates are fractions. `more` adds
    variant or note, or replaces what is filled in (Table 2: setting="5:1, MI Attack"). ValueError for an unknown name.
    """
    if name not in config.targets(profile):
        raise ValueError(f"unknown target {name!r}; valid in profile {profile}: {', '.join(config.targets(profile))}")
    dataset, model = targets.PRINTED[name]
    return {
        "dataset": dataset,
        "model": _network(name, profile),
        "setting": f"{model}, {subset}",
        "metric": metric,
        "value": value,
        "low": low,
        "high": high,
        "tier": "S" if profile == "demo" else "R",  # the image sets are never simulated
        "not_comparable": targets.caveat(name, profile),
    } | more


def _network(name: str, profile: str) -> str:
    """What was run: "ResNet-56" where the paper says "ResNet"."""
    _, *shape = config.targets(profile)[name].network.split("-")
    return "-".join([targets.PRINTED[name][1], *shape])


def label(name: str, profile: str) -> str:
    """A target as figures call it: "CIFAR-10 AlexNet", with a star where a caveat keeps it from a verdict."""
    return " ".join(targets.PRINTED[name]) + ("*" if targets.caveat(name, profile) else "")


def attacked_targets(loaded: Iterable[Trained], profile: str) -> pd.DataFrame:
    """One line a target: data, tier, the paper's name of the model, what was run, counts, accuracies, and a caveat."""
    rows = []
    for trained in loaded:
        dataset, model = targets.PRINTED[trained.name]
        right, member = signals.correct(targets.confidences(trained), trained.data.y), trained.data.member
        rows.append(
            {"data": dataset, "tier": trained.data.tier, "model": model, "run": _network(trained.name, profile)}
            | {"epochs": trained.target.epochs or "by others", "classes": trained.data.classes}
            | {"members": member.sum(), "non-members": (~member).sum()}
            | {"train accuracy": right[member].mean(), "test accuracy": right[~member].mean()}
            | {"not comparable because": targets.caveat(trained.name, profile)}
        )
    return pd.DataFrame(rows)


def confidence_records(trained: Trained) -> pd.DataFrame:
    """A row a record of a target: class, member, correct, confidence (the probability given to the true class)."""
    vectors, y = targets.confidences(trained), trained.data.y
    confidence = np.clip(signals.true_class(vectors, y), 0, 1)
    return pd.DataFrame(
        {"class": y, "member": trained.data.member, "correct": signals.correct(vectors, y), "confidence": confidence}
    )


def of_subset(records: pd.DataFrame, subset: str) -> pd.DataFrame:
    """The rows of "all", "correct" or "misclassified" records (column correct). ValueError for another subset."""
    if subset not in SUBSETS:
        raise ValueError(f"unknown subset {subset!r}; valid: {', '.join(SUBSETS)}")
    return records if subset == "all" else records[records["correct"] == (subset == "correct")]


def mean_vectors(trained: Trained, label: int) -> pd.DataFrame:
    """Mean confidence vectors of one true class (Rezaei & Liu, Fig 1): subset, member, records, class, confidence.

    A row a class of the model, for each subset and side; a side without records has nan.
    """
    records = confidence_records(trained)
    records, vectors = records[records["class"] == label], targets.confidences(trained)
    tables = []
    for subset, side in itertools.product(SUBSETS, (True, False)):
        rows = (here := of_subset(records, subset))[here["member"] == side].index
        mean = vectors[rows].mean(0, dtype=float) if len(rows) else np.full(trained.data.classes, np.nan)
        about = {"subset": subset, "member": side, "records": len(rows)}
        tables.append(pd.DataFrame(about | {"class": np.arange(trained.data.classes), "confidence": mean}))
    return pd.concat(tables, ignore_index=True)


def confidence_overlaps(records: pd.DataFrame, rng: np.random.Generator, repeats: int = 1000) -> pd.DataFrame:
    """How alike members and non-members look by their confidence in the true class: a row a subset, columns below.

    members, non_members (counts), mean_member, mean_non_member, overlap (`metrics.overlap`, ten bins), low, high
    (bootstrap over the records, 95 %), if_alike: the mean overlap of two samples of these sizes drawn from the pooled
    histogram. Few records look unlike by chance, so `overlap` means something beside `if_alike` only. nan where a side
    has no records.
    """
    rows = []
    for subset in SUBSETS:
        here = of_subset(records, subset)
        sides = [here.loc[here["member"] == side, "confidence"] for side in (True, False)]
        row = {"subset": subset, "members": len(sides[0]), "non_members": len(sides[1])}
        row |= {"mean_member": sides[0].mean(), "mean_non_member": sides[1].mean()}
        if all(map(len, sides)):
            shares = [metrics.histogram(values) for values in sides]
            pooled = metrics.histogram(pd.concat(sides))
            drawn, alike = (
                np.minimum(*(rng.multinomial(len(v), p, repeats) / len(v) for v, p in zip(sides, of, strict=True)))
                for of in (shares, [pooled, pooled])
            )
            low, high = np.quantile(drawn.sum(1), (0.025, 0.975))
            row |= {"overlap": np.minimum(*shares).sum(), "low": low, "high": high, "if_alike": alike.sum(1).mean()}
        rows.append(row)
    columns = [
        "subset",
        "members",
        "non_members",
        "mean_member",
        "mean_non_member",
        "overlap",
        "low",
        "high",
        "if_alike",
    ]
    return pd.DataFrame(rows, columns=columns).set_index("subset")
