"""What the tables and figures of Shokri et al. 2017 show, of our numbers, beside the published ones."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from mialib import metrics
from mialib.attacks import Attacked, Observations, Result
from mialib.data.datasets import Dataset
from mialib.papers.shokri2017.experiments import MITIGATIONS, NAMES, Row, operating_point, settings, settling
from mialib.results import published, tables
from mialib.results.plots import SCATTERS

# Which of our numbers the published tables print: metric of the table -> (attack, metric).
PRINTED = {
    "target_train_acc": ("target", "train_acc"),
    "target_test_acc": ("target", "test_acc"),
    "attack_precision": ("nn", "precision"),
    "attack_recall": ("nn", "recall"),
    "attack_total_acc": ("nn", "accuracy"),
    "attack_macro_precision": ("nn", "macro_precision"),
    "attack_macro_recall": ("nn", "balanced_accuracy"),
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
# What no table prints, and readers want beside the attack: how the two rank records, see `attacks.calibration`.
UNPRINTED = ("attack_auc", "attack_tpr_at_1", "calibrated_auc", "calibrated_tpr_at_1", "threshold_class_precision_p50")
PRINTED |= {name: (name.split("_")[0].replace("attack", "nn"), name.partition("_")[2]) for name in UNPRINTED}
# VI-C, by the first word of the data set's name.
PAPER_SHADOWS = {"adult": 20, "mnist": 50, "cifar": 100, "location": 60, "purchase": 20, "texas": 10}


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


def sizes(rows: Iterable[Row]) -> str:
    """How large the models behind a figure are, in words for `plots.about`: ranges over the rows."""
    ends = {name: [getattr(row, name) for row in rows] for name in ("size", "shadows", "targets")}
    ends = {name: " to ".join(f"{end:,}" for end in sorted({min(n), max(n)})) for name, n in ends.items()}
    each = f"{ends['size']} records train each target and each shadow model"
    return f"Ours: {each}; shadow models {ends['shadows']}, targets {ends['targets']}."


def nearest(rows: Sequence[Row], loaded: Mapping[str, Dataset], seed: int) -> pd.DataFrame:
    """Targets by recipe beside the accuracies that Table II prints for their data set; no attack is run.

    Columns data, size, model, epochs, train, test (see `operating_point`), distance = |train - printed| + |test -
    printed|, nearest (of its size and model), row. One line a row of `rows`.
    """
    printed = published.load("shokri_table2").set_index(["dataset", "metric"])["published"]
    found = []
    for row in rows:
        learnt, name = operating_point(loaded[row.dataset], row, seed), NAMES[row.dataset]
        distance = sum(abs(value - printed[name, f"target_{key}"]) for key, value in learnt.items())
        found.append((name, row.size, kind(row), row.epochs, *learnt.values(), distance, row))
    table = pd.DataFrame(found, columns=["data", "size", "model", "epochs", "train", "test", "distance", "row"])
    least = table.groupby(["data", "size", "model"])["distance"].transform("min")
    table.insert(7, "nearest", table["distance"] == least)
    return table


def noise_costs(attackers: Sequence[Sequence[Attacked]]) -> pd.DataFrame:
    """What noise costs in precision: of each attacker `experiments.noisy`'s results, target by target less "real data".

    A row a setting; columns change, low, high: Student's t over the targets of one attacker, or over several attackers.
    """
    changes = []
    for every in attackers:
        precision = pd.DataFrame(
            {
                each.about["setting"]: [
                    metrics.evaluate(seen.member, result.score, result.predicted)["precision"]
                    for seen, result in tables.pairs(each, "nn")
                ]
                for each in every
            }
        )
        changes.append(precision.sub(precision["real data"], axis=0).drop(columns="real data"))
    units = changes[0] if len(changes) == 1 else pd.DataFrame([change.mean() for change in changes])
    return pd.DataFrame(metrics.over_seeds(units.to_dict("records")), ["change", "low", "high"]).T


def kind(row: Row) -> str:
    """What a row of "table2 google" trains, as variants name it."""
    return "network stopped early" if row.hidden else "logistic regression"


def sides_behind(name: str = "mlleaks_fig1_adversary1_vs_shokri") -> pd.DataFrame:
    """The TPR and TNR behind printed averages P and R over equally many members and non-members, with TPR >= TNR.

    Columns dataset, setting, P, R, TPR, TNR; and FPR, the one that P and R imply if they are members' instead. Averages
    have P - R = d² (R - 1/2) / (1 - d²) with d = TPR - TNR, so P >= R wherever R >= 1/2; nan where P is 1/2.
    """
    table = published.load(name)
    both = table.pivot(index=["dataset", "setting"], columns="metric", values="published").reset_index()
    both = both.rename_axis(columns=None).rename(columns={"attack_macro_precision": "P", "attack_macro_recall": "R"})
    d = np.sqrt(np.where(both["P"] > 0.5, (both["P"] - both["R"]) / (both["P"] - 0.5), np.nan))
    return both.assign(TPR=both["R"] + d / 2, TNR=both["R"] - d / 2, FPR=both["R"] * (1 / both["P"] - 1))


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
    crossed_gap_precision_correlation takes the gap from one target and the precision from the next; with one target,
    the gap from every other non-member and the precision from the rest.
    `pooled` is the data set's name of the last rows: the classes of the i-th target of each, of the weakest tier.
    ValueError where the numbers of targets differ.
    """
    classes = [[tables.class_points(*pair) for pair in tables.pairs(each, name)] for each in attacked]
    halves = [[tables.class_points(*half) for half in _halves(*tables.pairs(each, name)[0])] for each in attacked]
    if len({len(points) for points in classes}) != 1:
        raise ValueError("gap_statistics pools the i-th targets of all: it needs equally many of each")
    about = attacked[0].about | {
        "dataset": pooled,
        "tier": min((each.about["tier"] for each in attacked), key="MSR".index),
        "shadows": min(each.about["shadows"] for each in attacked),
    }
    everything = [pd.concat(points) for points in zip(*classes, strict=True)]
    every = [(each.about, *points) for each, *points in zip(attacked, classes, halves, strict=True)]
    every.append((about, everything, [pd.concat(points) for points in zip(*halves, strict=True)]))
    found = [tables.rows(about, name, _relations(points, halved)) for about, points, halved in every]
    table = pd.concat(found, ignore_index=True)
    return table.assign(attack=np.where(table["metric"].str.contains("precision"), name, "target"))


def _halves(seen: Observations, result: Result) -> list[tuple[Observations, Result]]:
    """One target's members twice, each time with every other of its non-members."""
    place, both = np.cumsum(~seen.member), []
    for part in (0, 1):
        rows = np.flatnonzero(seen.member | (place % 2 == part))
        half = Observations(seen.vectors[rows], seen.y[rows], seen.member[rows])
        both.append((half, Result(result.score[rows], result.predicted[rows], result.skipped)))
    return both


def _relations(targets: list[pd.DataFrame], halved: list[pd.DataFrame]) -> dict[str, tuple[float, float, float]]:
    each = [
        {f"{x}_{y}_correlation": metrics.correlation(points[x], points[y]) for x, y in SCATTERS.values()}
        | {"crossed_gap_precision_correlation": metrics.correlation(points["gap"], others["precision"])}
        | {"mean_gap": (points["gap"].mean(), np.nan, np.nan)}
        for points, others in zip(targets, targets[1:] + targets[:1], strict=True)
    ]
    if len(each) == 1:
        crossed = metrics.correlation(halved[0]["gap"], halved[1]["precision"])
        return each[0] | {"crossed_gap_precision_correlation": crossed}
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


def settled(measured: pd.DataFrame, metric: str = "class_precision_p50", within: float = 0.02) -> pd.Series:
    """Whether half of a setting's shadows gave the same `metric` as all of them, within `within`: a bool a row.

    `measured`: rows of one data set and setting at several numbers of shadows, the largest of them even. The rule is
    ours, fixed before the first run, for exhibits that cannot afford the paper's number of shadows.
    """
    key = ["dataset", "setting", "size"]
    rows = measured[(measured["metric"] == metric) & (measured["attack"] == "nn")]
    rows = rows.set_index([*key, "shadows"])["value"]
    most = rows.reset_index().groupby(key)["shadows"].max()
    close = {at: abs(rows[(*at, n)] - rows[(*at, n // 2)]) <= within for at, n in most.items()}
    return measured[key].apply(tuple, axis=1).map(close)


# Fig 4 with one thing changed: variant -> section of sizes.toml.
CHANGES = {"longer": "fig4 longer", "wider": "fig4 wider", "100 shadows": "fig4 shadows"}


def changed(
    attacked: Sequence[Attacked], loaded: Mapping[str, Dataset], profile: str, seed: int, kinds: Sequence[str]
) -> pd.DataFrame:
    """Fig 4 with one thing changed (CHANGES), each row beside the one of `attacked` that it changes.

    `attacked`: `settling` of all rows of "fig4"; beside it stands what has as many shadows, or the most. `summary` and
    `across_classes` of the attacks `kinds`, with columns variant ("" for what is beside), what (was run)
    and settled, False: of so few shadows that is not asked.
    """
    parts = {}
    for variant, section in CHANGES.items():
        for row in settings(section, profile):
            *_, other = settling(loaded[row.dataset], row, seed)
            name, size = other.about["dataset"], row.size
            same = [each for each in attacked if (each.about["dataset"], each.about["size"]) == (name, size)]
            usual = max((each for each in same if each.about["shadows"] <= row.shadows), key=_shadows)
            text = f"{variant}: {row.epochs} epochs, {row.filters[0]} and {row.filters[1]} filters"
            for which, words, each in (("", "as above", usual), (variant, text, other)):
                words = f"{words}, {_shadows(each)} shadows"
                found = [tables.summary(each), *(tables.across_classes(each, attack) for attack in kinds)]
                parts[which, name, size, words] = pd.concat(found).assign(variant=which, what=words, settled=False)
    return pd.concat(parts.values(), ignore_index=True)


def _shadows(attacked: Attacked) -> int:
    return attacked.about["shadows"]


def compare(
    measured: pd.DataFrame,
    profile: str,
    name: str,
    setting: str | None = None,
    shadows: Mapping[str, int] | None = None,
    also: Sequence[str] = (),
) -> list[dict]:
    """Measurements beside the published table `name`: the cells of `published.compare`.

    `setting`: the table's name for all of them, else each row's setting. Data sets measured at two sizes in one
    setting get a variant; a column `variant` names others. Nothing is comparable in `demo`, nor where there were
    fewer shadows than the paper's (PAPER_SHADOWS, or `shadows`: setting -> number), unless the column
    `settled` says that the result had settled (see `settled`). Of targets alone (no attack) shadows are not asked for.
    `also`: metrics (keys of PRINTED) that the table does not have; their cells have no published number.
    """
    wanted = dict.fromkeys([*published.load(name)["metric"], *also])
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
        | ({"records": row.records} if hasattr(row, "records") else {})
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
    if "variant" in table:
        table["label"] += table["variant"].map(lambda name: name and f", {name}")
    return table
