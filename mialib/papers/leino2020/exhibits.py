"""What is shown of Leino & Fredrikson 2020: our numbers beside those that are known of the paper."""

from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mialib.data.datasets import Dataset
from mialib.papers.leino2020.experiments import TABLES, WHITE_BOX, Drawn, Gaussian, Row, closed_form, drawn, reliability
from mialib.results import published

NEAR = 0.02  # of the printed train and test accuracy, as the tolerance of either
# Which of our numbers the table of the paper has: (attack, metric) -> (setting, metric).
PRINTED = {("target", key): ("target", f"target_{key}") for key in ("train_acc", "test_acc")} | {
    (attack, metric): (attack.split(", ")[0], f"attack_{name}")
    for attack in (*WHITE_BOX, "nn", "gap")
    for metric, name in (("accuracy", "total_acc"), ("precision", "precision"))
}
OTHERS = {"nn": "shadow attack", "gap": "gap attack"}  # settings that the paper's table does not have
SECOND_HAND, CHOSEN = "the published number is second hand", "; the target was chosen by it"


def sizes(rows: Sequence[Row]) -> str:
    """How many records train a target of each data set, for the note under a figure."""
    return ", ".join(dict.fromkeys(f"{row.size:,} of {TABLES[row.dataset]}" for row in rows))


def overview(rows: Iterable[Row], loaded: dict[str, Dataset]) -> pd.DataFrame:
    """One line a row: the data set, its tier and shape, and the numbers of the profile."""
    return pd.DataFrame(
        {
            "data": TABLES[row.dataset],
            "tier": loaded[row.dataset].tier,
            "records": loaded[row.dataset].X.shape[0],
            "features": loaded[row.dataset].X.shape[1],
            "classes": loaded[row.dataset].classes,
            "size": row.size,
            "targets": row.targets,
            "proxies": row.proxies,
            "shadows": row.shadows,
            "target": row.setting,
        }
        for row in rows
    )


def agreement(measured: pd.DataFrame) -> pd.DataFrame:
    """The Gaussian beside its closed forms: a row a setting and threshold, each metric ours and by theory.

    Column off: the largest difference of the row.
    """
    key = ["dataset", "setting", "threshold"]
    wide = measured.pivot(index=key, columns="metric", values=["value", "theory"]).swaplevel(axis=1)
    wide = wide[[(metric, side) for metric in ("tpr", "tnr", "accuracy") for side in ("value", "theory")]]
    wide = wide.loc[list(measured[key].drop_duplicates().itertuples(index=False, name=None))]
    wide.columns = [metric if side == "value" else f"{metric}, theory" for metric, side in wide.columns]
    return wide.assign(off=(measured["value"] - measured["theory"]).abs().groupby([measured[k] for k in key]).max())


def explained(several: Sequence[Drawn], seed: int, trained: int = 50, models: int = 100) -> Figure:
    """Left: accuracy of bayes-wb by features per record, formulae as curves and ours as points; right: what its
    confidences are worth, raw and corrected, in the settings `several` (a mark each)."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
    looks = {"true means": ("C0", "o"), "10 proxies": ("C2", "^"), "1 proxy": ("C3", "s")}
    grid, points = np.geomspace(2, 1000, 100).astype(int), (5, 20, 80, 320)
    for setting, (color, marker) in looks.items():
        for line, best in (("-", True), (":", False)):
            theory = [Drawn(Gaussian(int(d), trained, 0), setting, *[np.empty(0)] * 2) for d in grid]
            curve = [closed_form(each, each.shift if best else 0.0)["accuracy"] for each in theory]
            words = f"{setting}, {'best threshold' if best else 'threshold 0'}"
            if best or setting != "true means":
                left.plot(grid / trained, curve, line, color=color, label=f"formula: {words}")
        ours = [drawn(Gaussian(d, trained, models), setting, seed) for d in points]
        found = [((each.members > each.shift).mean() + (each.others <= each.shift).mean()) / 2 for each in ours]
        left.plot(np.array(points) / trained, found, marker, color=color, markerfacecolor="white")
    left.set(xscale="log", xlabel="features / records of a class", ylabel="accuracy of bayes-wb", ylim=(0.48, 1.01))
    right.plot([0, 1], [0, 1], color="0.7")
    for each, marker in zip(several, "os^Dv", strict=False):
        table = reliability(each)
        for (name, here), color in zip(table.groupby("confidence", sort=False), ("C3", "C0"), strict=True):
            label = f"{name}, {each.gaussian.features} features"
            right.plot(here["claimed"], here["members"], "-", color=color, marker=marker, label=label)
    right.set(xlabel="confidence that the attack claims", ylabel="share of members among these records")
    for ax in (left, right):
        ax.legend(frameon=False, fontsize=8)
        ax.patch.set(facecolor="0.97")
    left.set_title("how well it can do\n[M, simulated]")
    right.set_title("what its confidence is worth, 1 proxy\n[M, simulated]")
    return figure


def nearest(measured: pd.DataFrame) -> pd.DataFrame:
    """Targets beside the accuracies printed for their data set; no attack is looked at.

    Columns dataset, setting (of the target), train, test, distance = |train - printed| + |test - printed|, nearest (the
    reading that is held against the paper), why_not ("" where both are within NEAR). Only sets with printed numbers.
    """
    printed = published.load("leino_linear").query("setting == 'target'")
    printed = printed.pivot(index="dataset", columns="metric", values="published")
    targets = measured[measured["attack"] == "target"]
    table = targets.pivot(index=["dataset", "setting"], columns="metric", values="value").reset_index()
    table = table.rename(columns={"train_acc": "train", "test_acc": "test"}).rename_axis(columns=None)
    table = table[table["dataset"].isin(printed.index)].reset_index(drop=True)
    off = pd.DataFrame(
        {k: (table[k] - table["dataset"].map(printed[f"target_{k}_acc"])).abs() for k in ("train", "test")}
    )
    distance = off.sum(axis=1)
    first = table.index.isin(distance.groupby(table["dataset"]).idxmin())
    told = [
        f"train and test accuracy {published.short(row.train)} and {published.short(row.test)}, printed "
        f"{published.short(printed.at[row.dataset, 'target_train_acc'])} and "
        f"{published.short(printed.at[row.dataset, 'target_test_acc'])}"
        for row in table.itertuples()
    ]
    near = (off.round(9) <= NEAR).all(axis=1)
    return table.assign(distance=distance, nearest=first, why_not=np.where(near, "", told))


def compare(measured: pd.DataFrame, profile: str, gaussian: pd.DataFrame) -> list[dict]:
    """Our numbers beside the table: cells of `published.compare`; none comparable in `demo` or off the printed point.

    measured: `tables.summary` of all rows; the primary reading is that of `nearest`, with all proxies and threshold 0.
    gaussian: what `agreement` takes; it has no published numbers.
    """
    chosen, ours = nearest(measured).set_index(["dataset", "setting"]), []
    for row in measured.itertuples():
        if (row.attack, row.metric) not in PRINTED:
            continue
        setting, metric = PRINTED[row.attack, row.metric]
        at = chosen.loc[(row.dataset, row.setting)] if (row.dataset, row.setting) in chosen.index else None
        ways = [*row.attack.split(", ")[1:], *([row.setting] if at is not None and not at["nearest"] else [])]
        off = "" if at is None or row.attack == "target" else at["why_not"]
        ours.append(_result(row) | {
            "model": f"{'logistic regression' if row.setting.startswith('C=') else 'network'}, {row.setting}",
            "setting": OTHERS.get(setting, setting),
            "metric": metric,
            "variant": ", ".join(ways),
            "not_comparable": "demo profile" if profile == "demo" else off,
            "records": row.records,
            "note": "" if at is None or setting in OTHERS else SECOND_HAND + CHOSEN * (setting == "target"),
        })  # fmt: skip
    for row in gaussian[gaussian["metric"] != "tpr"].itertuples():
        about = {"tier": "M", "metric": row.metric, "setting": row.setting, "variant": f"threshold {row.threshold}"}
        ours.append(_result(row) | about)
    off = {"value": (gaussian["value"] - gaussian["theory"]).abs().max(), "low": None, "high": None, "tier": "M"}
    ours.append(off | {"dataset": "Gaussian", "setting": "all", "metric": "largest difference from a formula"})
    return published.compare(ours, "leino_linear")


def _result(row: tuple) -> dict:
    return {key: getattr(row, key, None) for key in ("dataset", "value", "low", "high", "tier")}


DRAWN = ("bayes-wb", "bayes-wb, shifted", "general-wb", "nn", "gap")


def panels(measured: pd.DataFrame) -> pd.DataFrame:
    """Rows for `plots.dots`: accuracy and precision (panels) of DRAWN, a row a data set, its target and attack.

    Of sets with printed numbers the targets that are held against them (`nearest`) alone; these are column published.
    """
    table = measured[measured["attack"].isin(DRAWN) & measured["metric"].isin(("accuracy", "precision"))]
    left = nearest(measured).query("not nearest")
    left = set(zip(left["dataset"], left["setting"], strict=True))
    table = table[[at not in left for at in zip(table["dataset"], table["setting"], strict=True)]]
    printed = published.load("leino_linear").set_index(["dataset", "setting", "metric"])["published"]
    shown = [printed.get((row.dataset, row.attack, PRINTED[row.attack, row.metric][1])) for row in table.itertuples()]
    label = table["dataset"] + " " + table["setting"] + ", " + table["attack"].map(lambda name: OTHERS.get(name, name))
    return table.assign(label=label, panel=table["metric"], published=shown)
