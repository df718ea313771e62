"""What Fig 12 and Table 9 of Zarifzadeh et al. 2024 show, of our numbers, beside the published ones."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from mialib import metrics, runs
from mialib.papers.zarifzadeh2024 import experiments
from mialib.papers.zarifzadeh2024.experiments import Answers
from mialib.results import published, tables

SHOWN = ("auc", "tpr_at_1", "tpr_at_0.1")
# Fig 12's attacks -> those of ours that its caption means: one IN and one OUT reference, so one variance for all.
PRINTED = {"Attack-P": "Attack-P", "Attack-R": "Attack-R", "LiRA online, fixed": "LiRA", "RMIA online": "RMIA"}
OTHERS = {"LiRA offline, fixed": ("LiRA", "offline"), "RMIA offline": ("RMIA", "offline")}
PRINTED_FOR = ("CNN-16", "CNN-32")  # the paper's names, of what may be meant by them
QUANTILE = "Quantile regression"


def used(attack: str, count: int) -> int:
    """How many references a score looks at, of `count`: the OUT models alone, half of them, where it is offline."""
    return count // 2 if "offline" in attack or attack == "Attack-R" else count


def network(each: Answers) -> str:
    """ "CNN-16, 18 queries": the network for CIFAR-10 by its filters, and how often it is asked about a record."""
    queries = each.logits.shape[2]
    return f"CNN-{each.row.filters[0]}, {queries} {'queries' if queries > 1 else 'query'}"


def by_network(everyone: Iterable[Answers]) -> pd.DataFrame:
    """`measured` with two references, and Attack-P, network by network: its column dataset says which."""
    parts = []
    for each in everyone:
        here = measured([each])
        parts.append(here[here["count"] <= 2].assign(dataset=network(each)))
    return pd.concat(parts, ignore_index=True)


def beside(table: pd.DataFrame) -> pd.DataFrame:
    """`by_network` as text, "value (low to high)": a row a metric and attack, a column a network."""
    ends = table[["value", "low", "high"]].to_numpy()
    said = ["{} ({} to {})".format(*map(published.short, three)) for three in ends]
    shown = table.assign(said=said)
    wide = shown.pivot(index=["metric", "attack"], columns="dataset", values="said")
    order = shown.sort_values("metric", kind="stable")[["metric", "attack"]].drop_duplicates()
    return wide.loc[list(order.itertuples(False, None)), list(dict.fromkeys(shown["dataset"]))]


def overview(everyone: Iterable[Answers]) -> pd.DataFrame:
    """One line a data set: its tier, how many models were trained on what, and what they learnt (means over them)."""
    rows = []
    for each in everyone:
        row, learnt = each.row, experiments.learnt(each)
        about = {"data": row.name, "tier": each.tier}
        about |= {"records": row.records, "classes": each.logits.shape[-1], "members": row.records // 2}
        about |= {"trainings": len(each.logits), "targets": row.targets}
        rows.append(about | {"epochs": row.epochs} | {name: values.mean() for name, values in learnt.items()})
    return pd.DataFrame(rows)


def models(everyone: Sequence[Answers]) -> pd.DataFrame:
    """`overview`, the networks for images told apart: "CIFAR-10, CNN-16"."""
    names = [f", {network(each).partition(',')[0]}" * (each.row.dataset == "cifar-10") for each in everyone]
    table = overview(everyone)
    return table.assign(data=table["data"] + names)


def attacked(each: Answers) -> Iterator[tuple[int, int, dict[str, np.ndarray]]]:
    """Target, number of references (0 first) and the scores of `experiments.attack`, target by target."""
    for target in experiments.targets(each.row):
        for count in [0, *experiments.numbers(each.row)]:
            yield target, count, experiments.attack(each, target, count)


def measured(everyone: Iterable[Answers], quantiles: Mapping[str, Sequence[np.ndarray]] = {}) -> pd.DataFrame:
    """Means over the targets with Student's t interval: dataset, tier, count, references, attack, metric, value, ….

    `count`: of references trained; `references`: those that the score looks at, see `used`. `quantiles`: name of a
    row -> `experiments.quantiles`.
    """
    parts = []
    for each in everyone:
        found: dict[tuple[int, str], list] = {}
        for target, count, scores in attacked(each):
            for attack, score in scores.items():
                found.setdefault((count, attack), []).append(_numbers(each.member[target], score))
        for target, score in zip(experiments.targets(each.row), quantiles.get(each.row.name, ()), strict=False):
            found.setdefault((0, QUANTILE), []).append(_numbers(each.member[target], score))
        about = {"dataset": each.row.name, "tier": each.tier}
        for (count, attack), values in found.items():
            said = about | {"count": count, "references": used(attack, count)}
            parts.append(tables.rows(said, attack, metrics.over_seeds(values)))
    return pd.concat(parts, ignore_index=True)


def _numbers(member: np.ndarray, score: np.ndarray) -> dict[str, float]:
    found = metrics.evaluate(member, score, np.zeros(len(member), bool))
    return {name: found[name] for name in SHOWN}


def single(
    everyone: Iterable[Answers], seed: int, repeats: int = 300, quantiles: Mapping[str, Sequence[np.ndarray]] = {}
) -> pd.DataFrame:
    """The first target alone, with most references: AUC (bootstrap over its records) and TPR (Clopper-Pearson).

    The columns of `measured`, which also says what `quantiles` are; to tpr_at_1 and tpr_at_0.1 comes tpr_at_0.01.
    """
    parts = []
    for each in everyone:
        target, most = experiments.targets(each.row)[0], max(experiments.numbers(each.row))
        member, nobody = each.member[target], np.zeros(each.row.records, bool)
        for count in (0, most):
            scores = experiments.attack(each, target, count)
            if not count and each.row.name in quantiles:
                scores[QUANTILE] = quantiles[each.row.name][0]
            for attack, score in scores.items():
                rng = runs.stream(seed, experiments.PAPER, "bootstrap", attack)
                ends = metrics.bootstrap(member, score, nobody, rng, repeats)["auc"]
                auc = {"auc": (_numbers(member, score)["auc"], *ends)}
                about = {"dataset": each.row.name, "tier": each.tier, "count": count}
                about["references"] = used(attack, count)
                parts.append(tables.rows(about, attack, auc | metrics.low_fpr(member, score)))
    return pd.concat(parts, ignore_index=True)


def curves(everyone: Iterable[Answers]) -> pd.DataFrame:
    """`tables.roc` of the first target of each data set: all attacks with fewest, and all with most references."""
    parts = []
    for each in everyone:
        target, counts = experiments.targets(each.row)[0], experiments.numbers(each.row)
        alone = experiments.attack(each, target, 0)
        for count in dict.fromkeys((counts[0], counts[-1])):
            panel = f"{each.row.name}, {count} references"
            for attack, score in (alone | experiments.attack(each, target, count)).items():
                about = {"panel": panel, "label": attack, "tier": each.tier}
                parts.append(tables.roc(about, each.member[target], score))
    return pd.concat(parts, ignore_index=True)


def wide(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One metric of `measured`, "value (low to high)": a row an attack and data set, a column a count of references."""
    here = table[table["metric"] == metric]
    ends = here[["value", "low", "high"]].to_numpy()
    said = ["{} ({} to {})".format(*map(published.short, three)) for three in ends]
    shown = here.assign(said=said).pivot(index=["dataset", "attack"], columns="references", values="said")
    order = list(dict.fromkeys(here[["dataset", "attack"]].itertuples(index=False, name=None)))
    return shown.loc[order].fillna("")


def compare(table: pd.DataFrame, networks: pd.DataFrame, seen: pd.DataFrame, profile: str) -> list[dict]:
    """Cells: Fig 12 beside `by_network`; then all of that and of `measured`, and the accuracies of `overview`.

    Fig 12 is held against 18 queries, online; one query and offline are other readings.
    """
    ours = []
    for row in pd.concat([table, networks]).itertuples():
        about = {"dataset": row.dataset, "value": row.value, "low": row.low, "high": row.high, "tier": row.tier}
        name = f"{row.attack}, {row.references} reference{'s' * (row.references != 1)}"
        ours.append(about | {"setting": name, "metric": f"attack_{row.metric}"})
        printed, offline = OTHERS.get(row.attack, (PRINTED.get(row.attack), ""))
        kind, _, queries = row.dataset.partition(", ")
        if printed and kind in PRINTED_FOR and row.metric == "auc" and row.count == 2 * (row.attack != "Attack-P"):
            variant = ", ".join(filter(None, (offline, queries if queries == "1 query" else "")))
            told = {"setting": f"{kind}, {printed}", "variant": variant, "metric": "attack_auc", "dataset": "CIFAR-10"}
            why = f"the paper neither describes its {kind} nor prints its accuracy"
            why = "demo profile" if profile == "demo" else why
            ours.append(about | told | {"model": f"CNN of {kind[4:]} filters", "not_comparable": why})
    for row in seen.to_dict("records"):
        for name in ("train_acc", "test_acc"):
            about = {"dataset": row["data"], "setting": "target", "metric": f"target_{name}", "tier": row["tier"]}
            ours.append(about | {"value": row[name], "low": np.nan, "high": np.nan})
    return published.compare(ours, "zarifzadeh_fig12")


def printed_gains() -> pd.DataFrame:
    """Table 9 on CIFAR-10 as `plots.gains` draws it, under the names of ours."""
    table = published.points("zarifzadeh_table9").rename(columns={"attack": "label", "auc": "value"})
    table = table[table["dataset"] == "CIFAR-10"]
    return table.assign(panel=table["dataset"] + ", " + table["model"] + ", published")
