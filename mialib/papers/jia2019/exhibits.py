"""What is left of accuracy and of each attack under each defence, and what the papers print."""

from collections.abc import Iterable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mialib import config, metrics
from mialib.models import accounting
from mialib.papers.jia2019 import experiments
from mialib.papers.jia2019.experiments import ATTACKS, GUARDED, NAMES, NONE, Defended, Game, Row
from mialib.results import published, tables

SHOWN = {  # metrics of ours -> what cells call them
    "balanced_accuracy": "attack_balanced_acc",
    "fpr": "attack_far",
    "auc": "attack_auc",
    "tpr_at_1": "attack_tpr_at_1",
}
TARGET = {"train_acc": "target_train_acc", "test_acc": "target_test_acc"}
DRAWN = ("shadow attack", "label-only noise", "LiRA online", "RMIA online")
AXES = {"balanced_accuracy": "balanced accuracy", "tpr_at_1": "TPR at 1 % FPR"}
LOOKS = {  # family -> marker and colour, so that a grey print can be read
    "none": {"marker": "*", "color": "black", "markersize": 13},
    "L2": {"marker": "s", "color": "C2", "markersize": 6, "linestyle": "-"},
    "DP-SGD": {"marker": "o", "color": "C3", "markersize": 6, "linestyle": "-"},
    "adversarial": {"marker": "^", "color": "C4", "markersize": 7, "linestyle": "-"},
}
LEGEND = {
    "none": "no defence",
    "L2": "L2, stronger to the end of the line",
    "DP-SGD": "DP-SGD, by epsilon",
    "adversarial": "adversarial regularisation, alike",
}
MARKS = dict(zip([*experiments.OUTPUTS, GUARDED], "vPXd<D", strict=True))  # of output defences
OTHER = "theirs is one network for all classes, on sorted vectors of one shadow, ours one a class on several"


def measured(game: Game, found: Iterable[Defended], tier: str, seed: int) -> pd.DataFrame:
    """Means over the targets with Student's t interval: a row a defence, attack and metric of SHOWN, or target's.

    Columns dataset, tier, defence, family, strength, attack ("target" for TARGET), metric, value, low, high.
    """
    parts, asked = [], game.row.records - game.row.known
    for seen in found:
        about = {"dataset": NAMES[game.row.dataset], "tier": tier, "defence": seen.defence.name}
        about |= {"family": seen.defence.family, "strength": seen.defence.strength}
        parts.append(tables.rows(about, "target", metrics.over_seeds(experiments.learnt(game, seen))))
        for attack, results in experiments.attack(game, seen, seed).items():
            each = []
            for target, result in zip(game.targets, results, strict=True):
                numbers = metrics.evaluate(game.member[target, :asked], result.score, result.predicted)
                each.append({metric: numbers[metric] for metric in SHOWN})
            parts.append(tables.rows(about, attack, metrics.over_seeds(each)))
    return pd.concat(parts, ignore_index=True)


def overview(row: Row, table: pd.DataFrame) -> pd.DataFrame:
    """A line a defence: accuracies of the targets, and of DP-SGD epsilon, noise and what no attack can exceed.

    bound: of balanced accuracy; slide: e^epsilon / 2 of Leino & Fredrikson's slides, where it is below 1; bound_tpr: of
    TPR at 1 % FPR.
    """
    found = []
    for (name, family, strength), here in table.groupby(["defence", "family", "strength"], sort=False, dropna=False):
        line = {"defence": name} | here[here["attack"] == "target"].set_index("metric")["value"].to_dict()
        if family == "DP-SGD" and np.isfinite(strength):
            line |= {"epsilon": strength, "delta": row.delta, "noise": experiments.private_recipe(row, strength).noise}
            line |= {"bound": accounting.most_accurate(strength, row.delta)}
            line |= {"bound_tpr": accounting.most_found(strength, 0.01, row.delta)}
            line |= {"slide": np.exp(strength) / 2 if np.exp(strength) < 2 else np.nan}
        found.append(line)
    columns = ["defence", *TARGET, "epsilon", "delta", "noise", "bound", "slide", "bound_tpr"]
    return pd.DataFrame(found).reindex(columns=columns)


def wide(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One metric, "value (low to high)": a row a defence, a column an attack; first the targets' test accuracy."""
    here = table[(table["metric"] == metric) | (table["metric"] == "test_acc")]
    ends = here[["value", "low", "high"]].itertuples(index=False, name=None)
    said = ["{} ({} to {})".format(*map(published.short, three)) for three in ends]
    shown = here.assign(said=said, attack=here["attack"].replace({"target": "test accuracy"}))
    shown = shown.pivot(index="defence", columns="attack", values="said")
    return shown.loc[list(dict.fromkeys(here["defence"])), ["test accuracy", *ATTACKS]].rename_axis(columns=None)


def strongest(table: pd.DataFrame) -> pd.DataFrame:
    """A row a defence: test accuracy, and for each of AXES the attack with the largest mean, its value and interval.

    The largest of several means is above what the attack would have on other targets.
    """
    lines = []
    for name, here in table.groupby("defence", sort=False):
        line = {"defence": name, "test_acc": here.loc[here["metric"] == "test_acc", "value"].iloc[0]}
        for metric in AXES:
            best = here[here["metric"] == metric].nlargest(1, "value").iloc[0]
            line |= {f"by_{metric}": best["attack"], metric: best["value"]}
            line |= {f"{metric}_low": best["low"], f"{metric}_high": best["high"]}
        lines.append(line)
    return pd.DataFrame(lines)


def diagram(row: Row, table: pd.DataFrame) -> Figure:
    """Test accuracy against what an attack finds: a column each of DRAWN, a row each of AXES, intervals both ways.

    A grey bar above a point of DP-SGD is what no attack can exceed at its epsilon.
    """
    figure, axes = plt.subplots(
        len(AXES), len(DRAWN), figsize=(config.TWO_COLUMNS, 6.4), sharex=True, sharey="row", layout="constrained"
    )
    for line, (metric, label) in zip(axes, AXES.items(), strict=True):
        line[0].set_ylabel(label)
        for ax, attack in zip(line, DRAWN, strict=True):
            _panel(ax, row, table, attack, metric)
    for top, bottom, attack in zip(*axes, DRAWN, strict=True):
        top.set_title(attack)
        bottom.set_xlabel("test accuracy")
    axes[1, 0].set_yscale("symlog", linthresh=0.01)
    axes[1, 0].set(ylim=(-0.001, 1.2), yticks=(0, 0.01, 0.1, 1), yticklabels=("0", ".01", ".1", "1"))
    axes[0, 0].set_ylim(0.45, 1.0)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _panel(ax: Axes, row: Row, table: pd.DataFrame, attack: str, metric: str) -> None:
    chance = {"balanced_accuracy": 0.5, "tpr_at_1": 0.01}[metric]
    ax.axhline(chance, color="0.3", linestyle="--", linewidth=1, label="chance")
    x = table[table["metric"] == "test_acc"].set_index("defence")
    y = table[(table["attack"] == attack) & (table["metric"] == metric)].set_index("defence")
    for family, look in LOOKS.items():
        here = y[y["family"] == family]
        if family in ("L2", "adversarial"):  # from no defence on
            here = pd.concat([y[y["family"] == "none"], here])
        _errors(ax, x.loc[here.index], here, {"linestyle": "none"} | look, LEGEND[family])
        if family == "DP-SGD":
            for name, strength in here["strength"].items():
                said = f"{strength:g}" if np.isfinite(strength) else "no noise"
                at = x.loc[name, "value"], here.loc[name, "value"]
                ax.annotate(said, at, xytext=(5, -11), textcoords="offset points", color="C3", fontsize=9)
    for name, mark in MARKS.items():
        look = {"marker": mark, "color": "C0", "markerfacecolor": "white", "markersize": 6, "linestyle": "none"}
        _errors(ax, x.loc[[name]], y.loc[[name]], look, name)
    for epsilon in row.epsilons:
        bounds = {
            "balanced_accuracy": accounting.most_accurate(epsilon, row.delta),
            "tpr_at_1": accounting.most_found(epsilon, 0.01, row.delta),
        }
        at = x.loc[f"DP-SGD, epsilon {epsilon:g}", "value"]
        label = "bound of DP-SGD" if epsilon == row.epsilons[0] else None
        ax.plot(at, bounds[metric], marker="_", color="0.5", markersize=14, markeredgewidth=3, ls="none", label=label)


def _errors(ax: Axes, x: pd.DataFrame, y: pd.DataFrame, look: dict, label: str) -> None:
    bars = [np.nan_to_num(np.abs(of[["low", "high"]].to_numpy().T - of["value"].to_numpy())) for of in (x, y)]
    ax.errorbar(x["value"], y["value"], xerr=bars[0], yerr=bars[1], label=label, elinewidth=1, linewidth=1, **look)


def caption(row: Row) -> str:
    """What `diagram` has to say under its axes to stand alone."""
    model = f"network of {row.hidden} hidden units, about {row.records // 2:,} members"
    attacker = f"{row.targets} targets, attacked with {2 * row.pairs} models that are defended as they are"
    means = "Means over targets, Student's t 95 % interval"
    return f"{NAMES[row.dataset]}: {model}; {attacker}. {means}. Delta of DP-SGD: {row.delta:g}."


def printed() -> pd.DataFrame:
    """What the papers print of a target's test accuracy and an attack's accuracy under defences: `jia_defences`."""
    return published.points("jia_defences")


def printed_diagram(points: pd.DataFrame) -> Figure:
    """`printed`, a panel a paper, a line a data set and model from no defence to the strongest."""
    papers = list(dict.fromkeys(points["paper"]))
    figure, axes = plt.subplots(1, len(papers), figsize=(config.TWO_COLUMNS, 3.4), sharey=True, layout="constrained")
    for ax, paper in zip(axes, papers, strict=True):
        here = points[points["paper"] == paper]
        for (dataset, defence), line in here.groupby(["dataset", "defence"], sort=False):
            mark = next(look["marker"] for family, look in LOOKS.items() if defence.startswith(family[:2]))
            ax.plot(line["test_acc"], line["attack_acc"], marker=mark, label=f"{dataset}, {defence}")
        ax.axhline(0.5, color="0.3", linestyle="--", linewidth=1)
        ax.set(title=paper, xlabel="test accuracy")
        ax.legend(frameon=False, fontsize=8, loc="upper left")
    axes[0].set_ylabel("attack accuracy, printed")
    return figure


def compare(row: Row, table: pd.DataFrame, profile: str) -> list[dict]:
    """Cells: Jia et al.'s Tables 3 and 4 beside ours without a defence, then all of `measured` and `strongest`."""
    ours, model = [], {"model": f"NN 1x{row.hidden} tanh"}
    for each in table.itertuples():
        about = model | {"dataset": each.dataset, "tier": each.tier}
        about |= {"value": each.value, "low": each.low, "high": each.high}
        name = {"setting": f"{each.defence}, {each.attack}", "metric": (SHOWN | TARGET)[each.metric]}
        ours.append(about | name | {"not_comparable": "demo profile" if profile == "demo" else ""})
        if (each.defence, each.attack, each.metric) == (NONE, "shadow attack", "balanced_accuracy"):
            ours.append(about | {"setting": f"{NONE}, NN", "metric": "attack_acc", "not_comparable": OTHER})
    first = table.iloc[0]
    for each in strongest(table).itertuples():
        about = model | {"dataset": first["dataset"], "tier": first["tier"], "setting": f"{each.defence}, strongest"}
        for metric in AXES:
            value, low, high = (getattr(each, f"{metric}{end}") for end in ("", "_low", "_high"))
            ours.append(about | {"metric": SHOWN[metric], "value": value, "low": low, "high": high})
    return published.compare(ours, "jia_mitigations")
