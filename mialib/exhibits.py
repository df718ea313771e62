"""One measurement of an exhibit, from data to numbers: train, observe, attack, evaluate over the target models."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from mialib import config, defenses, metrics, published, runs, signals
from mialib.attacks import Observations, Result, balance, baselines, classifiers, pool, shadow
from mialib.config import Row
from mialib.datasets import Dataset

# Our data sets under the names that the papers' tables print.
NAMES = {"adult": "Adult", "mnist": "MNIST", "location-30": "Location", "texas-100": "Texas-100"} | {
    f"purchase-{k}": f"Purchase-{k}" for k in (2, 10, 20, 50, 100)
}
# Shokri et al. 2017, Table III, in its order: what is done to the output, and the weight of the L2 penalty.
MITIGATIONS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float]] = {
    "No mitigation": (defenses.none, 0.0),
    "Top k=3": (partial(defenses.top_k, k=3), 0.0),
    "Top k=1": (partial(defenses.top_k, k=1), 0.0),
    "Top k=1 label": (defenses.label_only, 0.0),
    "Rounding d=3": (partial(defenses.rounded, digits=3), 0.0),
    "Rounding d=1": (partial(defenses.rounded, digits=1), 0.0),
    "Temperature t=5": (partial(defenses.temperature, t=5), 0.0),
    "Temperature t=20": (partial(defenses.temperature, t=20), 0.0),
    "L2 lambda=1e-4": (defenses.none, 1e-4),
    "L2 lambda=5e-4": (defenses.none, 5e-4),
    "L2 lambda=1e-3": (defenses.none, 1e-3),
    "L2 lambda=5e-3": (defenses.none, 5e-3),
    "L2 lambda=1e-2": (defenses.none, 1e-2),
}
# Which of our numbers each published table prints, and under what name: (attack, metric) -> metric of the table.
_TARGET = {("target", "train_acc"): "target_train_acc", ("target", "test_acc"): "target_test_acc"}
_PRECISION, _RECALL = {("nn", "precision"): "attack_precision"}, {("nn", "recall"): "attack_recall"}
PRINTED = {
    "shokri_table2": _TARGET | _PRECISION,
    "shokri_table3": _TARGET | {("nn", "accuracy"): "attack_total_acc"} | _PRECISION | _RECALL,
    "mlleaks_fig1_adversary1_vs_shokri": _PRECISION | _RECALL,
}


@dataclass(frozen=True)
class Attacked:
    """What the attacks answered on every target of one row, on equally many members and non-members."""

    about: dict[str, str | int]  # dataset, size, shadows, tier, mitigation
    accuracies: list[dict[str, float]]  # train_acc and test_acc of each target, on all its records
    records: list[Observations]  # of each target; the vectors as the mitigation gives them out
    answers: dict[str, list[Result]]  # attack -> its result on each target
    words: tuple  # seed words


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


def attack(data: Dataset, row: Row, seed: int, kinds: tuple[str, ...] = ("nn",)) -> Attacked:
    """Train the models of `row` and attack every target, with no mitigation: see `mitigated`."""
    [attacked] = mitigated(data, row, seed, kinds, ("No mitigation",))
    return attacked


def mitigated(
    data: Dataset, row: Row, seed: int, kinds: tuple[str, ...], mitigations: Iterable[str]
) -> Iterator[Attacked]:
    """Train the models of `row`, then for each mitigation apply it to targets and shadows and attack every target.

    The attacks are the attack models `kinds` (trained on the shadows), then gap, zero_r and threshold. Models are
    trained once for each L2 weight. ValueError on a mitigation that is not in MITIGATIONS.
    """
    mitigations = list(mitigations)
    if unknown := [name for name in mitigations if name not in MITIGATIONS]:
        raise ValueError(f"unknown mitigation {unknown[0]!r}; valid: {', '.join(MITIGATIONS)}")
    about = {"dataset": NAMES[data.name], "size": row.size, "shadows": row.shadows, "tier": data.tier}
    for l2 in dict.fromkeys(MITIGATIONS[name][1] for name in mitigations):
        targets, shadows = shadow.observe(data, row, seed, l2)
        for name in mitigations:
            defense, weight = MITIGATIONS[name]
            if weight == l2:
                yield _attack(
                    about | {"mitigation": name}, _give_out(defense, targets), _give_out(defense, shadows), kinds, seed
                )


def _give_out(defense: Callable[[np.ndarray], np.ndarray], side: list[Observations]) -> list[Observations]:
    return [Observations(defense(seen.vectors), seen.y, seen.member) for seen in side]


def _attack(
    about: dict, targets: list[Observations], shadows: list[Observations], kinds: tuple[str, ...], seed: int
) -> Attacked:
    words = (seed, "attack", about["dataset"], about["size"])
    sampled = [balance(target, runs.stream(*words, "evaluation", i)) for i, target in enumerate(targets)]
    seen = pool(shadows)
    answers = {kind: classifiers.attack(kind, seen, sampled, words) for kind in kinds}
    answers |= {
        "gap": [baselines.gap(target) for target in sampled],
        "zero_r": [baselines.zero_r(target) for target in sampled],
        "threshold": [baselines.confidence_threshold(seen, target) for target in sampled],
    }
    return Attacked(about, _accuracies(targets), sampled, answers, words)


def _accuracies(targets: list[Observations]) -> list[dict[str, float]]:
    right = [signals.correct(seen.vectors, seen.y) for seen in targets]
    return [
        {"train_acc": hit[seen.member].mean(), "test_acc": hit[~seen.member].mean()}
        for hit, seen in zip(right, targets, strict=True)
    ]


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

    `skipped` marks classes the attack had no model for. A number undefined in any target is nan.
    """
    each = [
        metrics.per_class(seen.member, result.score, result.predicted, seen.y, seen.vectors.shape[1])
        for seen, result in zip(attacked.records, attacked.answers[name], strict=True)
    ]
    skipped = attacked.answers[name][0].skipped
    rows = []
    for label in each[0].index:
        numbers = metrics.over_seeds([table.loc[label].to_dict() for table in each])
        row = {key: attacked.about[key] for key in ("dataset", "size", "tier")} | {"class": label}
        for metric, (value, low, high) in numbers.items():
            row |= {metric: value, f"{metric}_low": low, f"{metric}_high": high}
        rows.append(row | {"skipped": label in skipped})
    return pd.DataFrame(rows)


def compare(measured: pd.DataFrame, profile: str, name: str, setting: str | None = None) -> list[dict]:
    """Measurements beside the published table `name`: the cells of `published.compare`.

    `setting`: the table's name for all of them, else each row's mitigation. Data sets measured at two sizes get a
    variant. Nothing is comparable in `demo`, nor where there were fewer shadows than the paper's.
    """
    printed = PRINTED[name]
    kept = measured[[pair in printed for pair in zip(measured.attack, measured.metric, strict=True)]]
    twice = kept.groupby("dataset")["size"].nunique().to_dict()
    results = [
        {
            "dataset": row.dataset,
            "model": "local NN (tanh)",
            "setting": setting or row.mitigation,
            "variant": f"{row.size:,} records" if twice[row.dataset] > 1 else "",
            "metric": printed[row.attack, row.metric],
            "value": row.value,
            "low": row.low,
            "high": row.high,
            "tier": row.tier,
        }
        | _too_small(row.dataset, row.shadows, profile)
        for row in kept.itertuples()
    ]
    return published.compare(results, name)


def _too_small(dataset: str, shadows: int, profile: str) -> dict[str, str]:
    paper = config.PAPER_SHADOWS[dataset.lower().split("-")[0]]
    if profile == "demo":
        return {"not_comparable": "demo profile"}
    return {"not_comparable": f"{shadows} of the paper's {paper} shadows"} if shadows < paper else {}


def wide(measured: pd.DataFrame, columns: Mapping[tuple[str, str], str]) -> pd.DataFrame:
    """Table to look at: a row a data set, tier, size and mitigation, a column for each (attack, metric) -> heading."""
    kept = measured.assign(heading=[columns.get(pair) for pair in zip(measured.attack, measured.metric, strict=True)])
    index = ["dataset", "tier", *(key for key in ("size", "mitigation") if measured[key].nunique() > 1)]
    kept = kept.dropna(subset="heading")
    order = list(dict.fromkeys(kept[index].itertuples(index=False, name=None)))
    table = kept.pivot(index=index, columns="heading", values="value")[list(columns.values())]
    return table.loc[order].rename_axis(columns=None)


def beside(measured: pd.DataFrame, metric: str, printed: Mapping[str, tuple[str, str | None]]) -> pd.DataFrame:
    """Rows for `report.dots`: the neural attack's `metric`, the gap attack's, and numbers printed for them.

    `printed`: mark ("published", "rerun") -> (published table, its setting; None for each row's mitigation). Adds the
    columns label (the data set, with its size where there are two) and mitigation; rows come in Table III's order.
    """
    of = {name: measured[(measured.attack == name) & (measured.metric == metric)] for name in ("nn", "gap")}
    table = of["nn"].assign(gap=of["gap"]["value"].to_numpy()).reset_index(drop=True)
    for mark, (name, setting) in printed.items():
        rows = published.load(name)
        rows = rows[rows.metric == PRINTED[name]["nn", metric]]
        numbers = dict(zip(zip(rows.dataset, rows.setting, strict=True), rows.published, strict=True))
        table[mark] = [numbers.get((row.dataset, setting or row.mitigation)) for row in table.itertuples()]
    order = {name: place for place, name in enumerate(MITIGATIONS)}
    table = table.sort_values("mitigation", key=lambda names: names.map(order), kind="stable", ignore_index=True)
    twice = table.groupby("dataset")["size"].transform("nunique") > 1
    table["label"] = table.dataset + np.where(twice, ", " + table["size"].map("{:,}".format), "")
    return table
