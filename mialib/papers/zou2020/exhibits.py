"""What is shown of students of a teacher: our numbers beside those of Zou et al. and Choquette-Choo et al."""

from collections.abc import Iterable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mialib.attacks.mlleaks import ADVERSARY_1
from mialib.papers.zou2020.experiments import CNN, NAMES, TRANSFERS, Attacked, Row, Taught, shown
from mialib.results import published, tables

TABLE = "zou_students"
SHOWN = ("auc", "balanced_accuracy", "tpr_at_1")
ATTACKS = (ADVERSARY_1, "nn", "threshold", "gap")
LOOKS = {ADVERSARY_1: ("C0", "o"), "threshold": ("C2", "^"), "gap": ("C1", "s"), "boundary distance": ("C2", "v")}
NETWORK = "another network than the published one"
MODEL = "CNN of two convolutions"
KIND = ["dataset", "network", "teacher", "setting", "size"]  # of students; those of a kind differ in epochs alone
CONFIDENCES = {  # readings of the boundary attack, which is told the true label, as the second is
    ADVERSARY_1: ("confidences", "shadow attack on confidences; published: on labels alone"),
    "threshold": ("true class", "shadow attack on the confidence in the true class; published: on labels alone"),
}


def teachers(taught: Iterable[Taught]) -> pd.DataFrame:
    """A line a teacher: what it learnt, and how well."""
    return pd.DataFrame([each.about for each in taught])


def overview(rows: Iterable[Row]) -> pd.DataFrame:
    """A line a kind and size of students, as sizes.toml has them."""
    return pd.DataFrame(
        {"student": NAMES[row.dataset], "network": shown(row.network), "teacher": NAMES[row.teacher]}
        | {"transfer": row.transfer, "members": row.size, "epochs": row.epochs, "students": row.count}
        for row in rows
    )


def measured(everyone: Iterable[Attacked]) -> pd.DataFrame:
    """Means over the students with Student's t interval: `tables.summary` of each row."""
    return pd.concat([tables.summary(attacked) for attacked in everyone], ignore_index=True)


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """To look at: a row a kind and size of students; accuracies, AUC of each attack, "value (low to high)"."""
    columns = {("target", "train_acc"): "train", ("target", "test_acc"): "test"}
    columns |= {(attack, "auc"): f"AUC, {attack}" for attack in ATTACKS[:3]}
    columns |= {("gap", "balanced_accuracy"): "accuracy, gap"}
    columns |= {(ADVERSARY_1, "balanced_accuracy"): f"accuracy, {ADVERSARY_1}"}
    heading = [columns.get(pair) for pair in zip(table["attack"], table["metric"], strict=True)]
    kept = table.assign(heading=heading).dropna(subset="heading")
    ends = kept[["value", "low", "high"]].to_numpy()
    said = ["{} ({} to {})".format(*map(published.short, three)) for three in ends]
    index = [*KIND, "epochs"]
    order = list(dict.fromkeys(kept[index].itertuples(index=False, name=None)))
    table = kept.assign(said=said).pivot(index=index, columns="heading", values="said")
    return table[list(columns.values())].loc[order].rename_axis(columns=None)


def longest(table: pd.DataFrame) -> pd.Series:
    """Which rows are of the students that were trained longest of their kind; the others are there for `by_epochs`."""
    return table["epochs"] == table.groupby(KIND)["epochs"].transform("max")


def headline(table: pd.DataFrame) -> pd.DataFrame:
    """Rows for `plots.dots`: AUC on CIFAR-100's students, a panel an attack, and the published one where it belongs."""
    here = table[(table["dataset"] == "CIFAR-100") & (table["metric"] == "auc") & (table["attack"] != "target")]
    teacher = np.where(here["teacher"] == "none", "", " of " + here["teacher"])
    [printed] = published.load(TABLE).query("metric == 'attack_auc'")["published"]
    ours = (here["network"] != CNN) & (here["setting"] == "full fine-tuning") & (here["attack"] == ADVERSARY_1)
    label = here["network"] + ": " + here["setting"] + teacher
    return here.assign(label=label, panel=here["attack"], published=np.where(ours, printed, np.nan))


def by_size(table: pd.DataFrame) -> Figure:
    """Attack accuracy by size of the student on CIFAR-10, a panel a transfer; published dashed, of another network."""
    here = table[(table["dataset"] == "CIFAR-10") & (table["metric"] == "balanced_accuracy") & longest(table)]
    printed = printed_points()
    figure, axes = plt.subplots(1, len(TRANSFERS), figsize=(11, 4.4), sharey=True, layout="constrained")
    for ax, transfer in zip(axes, TRANSFERS, strict=True):
        for (teacher, attack), line in here[here["setting"] == transfer].groupby(["teacher", "attack"], sort=False):
            if attack not in LOOKS:
                continue
            color, marker = LOOKS[attack]
            of, alpha = (f", teacher {teacher}", 0.45) if teacher == "Caltech-101" else ("", 1)
            look = {"color": color, "marker": marker, "alpha": alpha}
            ax.vlines(line["size"], line["low"], line["high"], color=color, alpha=alpha)
            ax.plot(line["size"], line["value"], label=f"ours: {attack}{of}", **look)
        for attack, line in printed[printed["transfer"] == transfer].groupby("attack", sort=False):
            color, marker = LOOKS[attack]
            look = {"color": color, "marker": marker, "markerfacecolor": "white", "linestyle": "--", "linewidth": 0.9}
            ax.plot(line["size"], line["published"], label=f"published: {attack}", **look)
        ax.axhline(0.5, color="0.6", linestyle=":", linewidth=1)
        ax.set(xscale="log", xlabel="members of the student", title=transfer)
        ax.patch.set(facecolor="0.97")
    axes[0].set_ylabel("attack accuracy")
    lines = {line.get_label(): line for ax in axes for line in ax.lines if not line.get_label().startswith("_")}
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def by_epochs(table: pd.DataFrame) -> Figure:
    """AUC by epochs of the kind of student that is trained for several numbers of them, its accuracies beside it."""
    here = table[table.groupby(KIND)["epochs"].transform("nunique") > 1]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharex=True, sharey=True, layout="constrained")
    for name in (ADVERSARY_1, "threshold", "gap"):
        (color, marker), line = LOOKS[name], here[(here["attack"] == name) & (here["metric"] == "auc")]
        line = line.sort_values("epochs")
        axes[0].vlines(line["epochs"], line["low"], line["high"], color=color)
        axes[0].plot(line["epochs"], line["value"], color=color, marker=marker, label=name)
    for name, marker in (("train", "o"), ("test", "s")):
        line = here[(here["attack"] == "target") & (here["metric"] == f"{name}_acc")].sort_values("epochs")
        axes[1].vlines(line["epochs"], line["low"], line["high"], color="0.4")
        axes[1].plot(line["epochs"], line["value"], color="0.4", marker=marker, label=name)
    axes[0].axhline(0.5, color="0.6", linestyle=":", linewidth=1)
    for ax, title in zip(axes, ("AUC of the attack", "accuracy of the student"), strict=True):
        ax.set(xlabel="epochs", ylabel=title, ylim=(0, 1.03), xticks=sorted(set(here["epochs"])))
        ax.legend(frameon=False, fontsize=9)
    return figure


def printed_points() -> pd.DataFrame:
    """Fig 11 of Choquette-Choo et al.: transfer, size, attack, published."""
    rows = published.load(TABLE).query("metric == 'attack_total_acc'")
    parts = rows["setting"].str.split(", ", expand=True).set_axis(["transfer", "size", "attack"], axis=1)
    size = parts["size"].str.removesuffix(" records").astype(int)
    return parts.assign(size=size, published=rows["published"]).reset_index(drop=True)


def compare(table: pd.DataFrame, taught: Iterable[Taught], profile: str) -> list[dict]:
    """Cells of `published.compare`: the abstract's AUC, Fig 11 and Fig 5 beside ours; then all else of ours.

    Our CNN is neither the ResNet-20 nor Choquette-Choo et al.'s, so none of its numbers is comparable. Students of
    another teacher than theirs, or of fewer epochs than others of their kind, stand beside no published number.
    """
    ours = []
    for row in table.assign(longest=longest(table)).itertuples():
        about = {"dataset": row.dataset, "value": row.value, "low": row.low, "high": row.high, "tier": row.tier}
        about |= {"records": row.size, "model": MODEL if row.network == CNN else row.network}
        if profile == "demo" or row.network == CNN:
            about["not_comparable"] = "demo profile" if profile == "demo" else NETWORK
        if row.attack == "target":
            ours.append(about | {"setting": _named(row), "metric": f"target_{row.metric}"})
        elif row.metric in SHOWN:
            ours.append(about | {"setting": f"{_named(row)}, {row.attack}", "metric": f"attack_{row.metric}"})
        ours += [about | beside for beside in _beside(row)]
    for each in taught:
        setting = "teacher" if each.about["network"] == CNN else f"{each.about['network']}, teacher"
        about = {"dataset": each.about["data"], "setting": setting, "tier": each.tier, "low": None, "high": None}
        ours += [about | {"metric": f"target_{key}", "value": each.about[key]} for key in ("train_acc", "test_acc")]
    return published.compare(ours, TABLE)


def _named(row: tuple) -> str:
    teacher = "" if row.teacher == "none" else f" of {row.teacher}"
    network, epochs = "" if row.network == CNN else f"{row.network}, ", "" if row.longest else f", {row.epochs} epochs"
    return f"{network}{row.setting}{teacher}, {row.size} members{epochs}"


def _beside(row: tuple) -> list[dict]:
    """Setting, metric and variant of the published number that a number of ours stands beside, if there is one."""
    if row.dataset == "CIFAR-100" and row.teacher == "Caltech-101" and (row.attack, row.metric) == (ADVERSARY_1, "auc"):
        variant = f"CNN, {row.setting}" if row.network == CNN else row.setting
        return [{"setting": "student of Caltech-101", "metric": "attack_auc", "variant": variant}]
    if row.dataset != "CIFAR-10" or row.teacher == "Caltech-101" or row.network != CNN or not row.longest:
        return []
    setting = f"{row.setting}, {row.size} records"
    if (row.attack, row.metric) == ("gap", "balanced_accuracy"):
        return [{"setting": f"{setting}, gap", "metric": "attack_total_acc"}]
    if row.attack in CONFIDENCES and row.metric == "balanced_accuracy":
        variant, note = CONFIDENCES[row.attack]
        distance = {"setting": f"{setting}, boundary distance", "metric": "attack_total_acc"}
        return [distance | {"variant": variant, "note": note}]
    if (row.attack, row.metric, row.size) == ("target", "test_acc", 2500):
        return [{"setting": setting, "metric": "target_test_acc"}]
    return []
