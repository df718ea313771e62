"""What the tables and figures of Shokri et al. 2017 show, of our numbers, beside the published ones."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from mialib import metrics, runs
from mialib.attacks import Attacked, Observations, signals
from mialib.data.datasets import Dataset
from mialib.papers.shokri2017.experiments import MITIGATIONS, NAMES, Row
from mialib.results import published, tables

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
# VI-C, by the first word of the data set's name.
PAPER_SHADOWS = {"adult": 20, "mnist": 50, "cifar": 100, "location": 60, "purchase": 20, "texas": 10}
# The three scatter plots of Shokri et al. 2017, Fig 11: what they show of a class.
SCATTERS = {"left": ("share", "precision"), "middle": ("gap", "precision"), "right": ("share", "gap")}


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
    classes = [[tables.class_points(*pair) for pair in tables.pairs(each, name)] for each in attacked]
    if len({len(points) for points in classes}) != 1:
        raise ValueError("gap_statistics pools the i-th targets of all: it needs equally many of each")
    about = attacked[0].about | {
        "dataset": pooled,
        "tier": min((each.about["tier"] for each in attacked), key="MSR".index),
        "shadows": min(each.about["shadows"] for each in attacked),
    }
    everything = [pd.concat(points) for points in zip(*classes, strict=True)]
    every = [*((each.about, points) for each, points in zip(attacked, classes, strict=True)), (about, everything)]
    found = [tables.rows(about, name, _relations(points)) for about, points in every]
    table = pd.concat(found, ignore_index=True)
    return table.assign(attack=np.where(table["metric"].str.contains("precision"), name, "target"))


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
    return tables.rows(attacked.about, "target", numbers)


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
    fewer shadows than the paper's (PAPER_SHADOWS, or `shadows`: setting -> number), unless the column
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
    paper = shadows.get(row.setting) or PAPER_SHADOWS[re.match(r"\w+", row.dataset.lower())[0]]
    if profile == "demo":
        return {"not_comparable": "demo profile"}
    if row.shadows >= paper:
        return {}
    few = f"{row.shadows} of the paper's {paper} shadows"
    if row.attack == "target":
        return {}
    return {"note": f"{few}, settled"} if getattr(row, "settled", False) else {"not_comparable": few}


def beside(measured: pd.DataFrame, metric: str, printed: Mapping[str, tuple[str, str | None]]) -> pd.DataFrame:
    """Rows for `plots.dots`: the neural attack's `metric`, the gap attack's, and numbers printed for them.

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
