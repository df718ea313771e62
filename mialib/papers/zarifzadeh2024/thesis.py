"""Rezaei & Liu 2020 re-examined: are correctly classified members hard to tell from correctly classified non-members?

Their attack, attacks that look at a record's confidence as it is, and attacks that hold it against reference models,
on the same targets and the same records. These are the 20 % that Rezaei & Liu's attacker does not know
(`known.split`); the 80 % are what everybody may learn from. Rates are of all asked records of a target, not means over
classes as Rezaei & Liu print.

The rule, fixed before any run: by the 95 % interval over targets of an attack's TPR at an FPR of 1 % among correctly
classified records, their conclusion "holds" for that attack where the whole interval lies below LINE, it is
"overturned" where the whole interval lies above, and it is "open" otherwise, and wherever a target has fewer than
FEWEST non-members of the kind. They state no such number: it is ours.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mialib import config, metrics, papers
from mialib.attacks import SUBSETS, Observations, Result, baselines, classifiers, known, pool, references, subset
from mialib.models import small
from mialib.papers.zarifzadeh2024 import experiments
from mialib.papers.zarifzadeh2024.experiments import GAMMA, NAMES, PAPER, SIGNALS, Answers
from mialib.results import published, tables

LINE = 0.05  # of the rule: five members found for one non-member called a member, where there are as many of both
FEWEST = 100  # of fewer non-members 1 % is not even one
WORDS = ("holds", "open", "overturned")
UNCALIBRATED = ("gap", "confidence threshold", "Attack-P", "shadow attack", "Rezaei & Liu")
CALIBRATED = ("phi minus median", "Attack-R", "LiRA offline", "LiRA online", "RMIA offline", "RMIA online")
GROUPS = {"record by record": CALIBRATED, "confidence as it is": UNCALIBRATED}
SHOWN = {  # metrics of ours -> what cells call them
    "balanced_accuracy": "attack_balanced_acc",
    "fpr": "attack_far",
    "auc": "attack_auc",
    "tpr_at_1": "attack_tpr_at_1",
    "tpr_at_0.1": "attack_tpr_at_0.1",
}
AXES = {"balanced_accuracy": "balanced accuracy", "fpr": "FAR (FPR)", "tpr_at_1": "TPR at 1 % FPR"}
LOOKS = {  # subset -> marker, so that a grey print can be read
    "all": {"marker": "D", "color": "C3", "markerfacecolor": "white", "markersize": 5},
    "correct": {"marker": "o", "color": "C0", "markersize": 6},
    "misclassified": {"marker": "x", "color": "0.25", "markersize": 5},
}
LEGEND = {"all": "all records", "correct": "correctly classified, with 95 % interval"}


@dataclass(frozen=True)
class Size:
    """Of the attacks that learn: see sizes.toml."""

    shadows: int
    least: int


@dataclass(frozen=True)
class Attacked:
    """The answers of all attacks on one target, on the records asked about."""

    right: np.ndarray  # (n,) bool: does the target classify the record correctly
    member: np.ndarray  # (n,) bool
    results: dict[str, Result]  # attack -> scores and decisions, (n,)


def size(profile: str) -> Size:
    """The sizes of `profile`."""
    config.check_profile(profile)
    return Size(**papers.sizes(PAPER)["thesis"][profile])


def part(each: Answers, rows: np.ndarray) -> Answers:
    """The answers on some of the records, given as numbers."""
    return replace(each, logits=each.logits[:, rows], member=each.member[:, rows], y=each.y[rows])


def attack(each: Answers, target: int, how: Size, seed: int) -> Attacked:
    """Every attack on one target, with all its references.

    Nothing but Rezaei & Liu's split looks at who of the asked is a member of the target. "confidence threshold" and
    "shadow attack" learn from `how.shadows` references, on the 80 %. A score without a threshold of its own takes the
    one of best balanced accuracy on another model, the first reference, attacked alike on the 80 % by the references
    that follow *its* pair: among these is the target, and its other half, of which she would train likenesses. Attack-P
    and RMIA compare with the non-members among the 80 %. Classes in which Rezaei & Liu's attacker has no model are not
    asked about.
    """
    member, y, words = each.member[target], each.y, (seed, PAPER, "thesis", each.row.dataset, target)
    vectors = small.softmax(each.logits[target, :, 0])
    supervised = known.attack("nn", vectors, y, member, words, least=how.least)
    asked, (told, _) = supervised.rows, known.split(y, member)
    seen, knows = Observations(vectors[asked], y[asked], member[asked]), part(each, told)
    models = _references(each, target)
    shadow = pool([_observed(knows, model) for model in models[: how.shadows]])
    found = {
        "gap": baselines.gap(seen),
        "confidence threshold": baselines.confidence_threshold(shadow, seen),
        "shadow attack": classifiers.attack("nn", shadow, [seen], words)[0],
        "Rezaei & Liu": supervised,
    }
    other, population = models[0], np.zeros(len(y), bool)
    population[told] = ~member[told]
    hers = scores(knows, other, ~knows.member[other])
    for name, score in scores(each, target, population).items():
        least = baselines.best_threshold(hers[name], knows.member[other])
        found[name] = Result(score[asked], score[asked] >= least)
    results = {name: found[name] for name in (*UNCALIBRATED, *CALIBRATED)}
    return Attacked(baselines.gap(seen).predicted, seen.member, results)


def _references(each: Answers, target: int) -> list[int]:
    return experiments.others(each.row, target, max(experiments.numbers(each.row)))


def _observed(each: Answers, model: int) -> Observations:
    return Observations(small.softmax(each.logits[model, :, 0]), each.y, each.member[model])


def scores(each: Answers, target: int, population: np.ndarray) -> dict[str, np.ndarray]:
    """Scores (records,) of a target by Attack-P and by its references; population: bool (records,), known non-members.

    "phi minus median": of the OUT models. LiRA has one variance for all records, so that two references are enough.
    """
    models = _references(each, target)
    member = each.member[models]
    plain, ratio = (SIGNALS[name](each.logits[[target, *models]], each.y) for name in ("phi", each.row.signal))
    given, of_rmia = ((signal[0], signal[1:], member) for signal in (plain, ratio))
    outside = np.where(member, np.nan, plain[1:, :, 0].astype(float))
    attacks: dict[str, Callable[[], np.ndarray]] = {
        "Attack-P": lambda: references.attack_p(plain[0], population),
        "phi minus median": lambda: plain[0, :, 0] - np.nanmedian(outside, axis=0),
        "Attack-R": lambda: references.attack_r(*given),
        "LiRA offline": lambda: references.lira(*given, online=False, fixed=True),
        "LiRA online": lambda: references.lira(*given, online=True, fixed=True),
        "RMIA offline": lambda: references.rmia(*of_rmia, population, each.row.a, GAMMA),
        "RMIA online": lambda: references.rmia(*of_rmia, population, None, GAMMA),
    }
    return {name: of() for name, of in attacks.items()}


def measured(everyone: Iterable[Answers], how: Size, seed: int) -> pd.DataFrame:
    """Means over the targets with Student's t interval: a row a data set, subset, attack and metric of SHOWN.

    Columns dataset, tier, subset, members, non_members (the fewest that any target was asked about), attack, metric,
    value, low, high. What is undefined on any target is nan.
    """
    parts = []
    for each in everyone:
        attacked = [attack(each, target, how, seed) for target in experiments.targets(each.row)]
        for name in SUBSETS:
            sides = [(one.member[subset(one.right, name)].sum(), subset(one.right, name).sum()) for one in attacked]
            about = {"dataset": NAMES[each.row.dataset], "tier": each.tier, "subset": name}
            about |= {"members": min(m for m, _ in sides), "non_members": min(n - m for m, n in sides)}
            for label in (*UNCALIBRATED, *CALIBRATED):
                numbers = [evaluate(one, label, name) for one in attacked]
                parts.append(tables.rows(about, label, metrics.over_seeds(numbers)))
    return pd.concat(parts, ignore_index=True)


def evaluate(attacked: Attacked, attack: str, name: str) -> dict[str, float]:
    """SHOWN of an attack on one of SUBSETS of a target's records; nan where it has none."""
    rows, result = subset(attacked.right, name), attacked.results[attack]
    if not rows.any():
        return dict.fromkeys(SHOWN, np.nan)
    found = metrics.evaluate(attacked.member[rows], result.score[rows], result.predicted[rows])
    return {metric: found[metric] for metric in SHOWN}


def conclusion(low: float, high: float, non_members: int) -> str:
    """One of WORDS, by the rule above; "open" without an interval."""
    if non_members < FEWEST:
        return "open"
    return "holds" if high < LINE else "overturned" if low > LINE else "open"


def conclusions(table: pd.DataFrame) -> pd.DataFrame:
    """What becomes of Rezaei & Liu's conclusion: a row a data set and attack.

    Columns group (of GROUPS), conclusion, and of correctly classified records tpr_at_1, low, high, non_members,
    balanced_accuracy and fpr.
    """
    here = table[table["subset"] == "correct"].set_index(["dataset", "attack"])
    rates = {name: here.loc[here["metric"] == name, "value"] for name in ("balanced_accuracy", "fpr")}
    found = here.loc[here["metric"] == "tpr_at_1", ["value", "low", "high", "non_members"]]
    found = found.rename(columns={"value": "tpr_at_1"})
    words = [conclusion(row.low, row.high, row.non_members) for row in found.itertuples()]
    groups = {attack: group for group, attacks in GROUPS.items() for attack in attacks}
    return found.assign(group=[groups[attack] for _, attack in found.index], conclusion=words, **rates)


def wide(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One metric, "value (low to high)": a row a data set and attack, a column a subset."""
    here = table[table["metric"] == metric]
    known_ends = here[["value", "low", "high"]].itertuples(index=False, name=None)
    said = ["undefined" if np.isnan(v[0]) else "{} ({} to {})".format(*map(published.short, v)) for v in known_ends]
    shown = here.assign(said=said).pivot(index=["dataset", "attack"], columns="subset", values="said")
    order = list(dict.fromkeys(here[["dataset", "attack"]].itertuples(index=False, name=None)))
    return shown.loc[order, list(SUBSETS)].rename_axis(columns=None)


def diagram(table: pd.DataFrame) -> Figure:
    """A row of panels a data set, a panel each of AXES, a line an attack; intervals for the correctly classified.

    The word at the right is the attack's `conclusion`. Above the line are attacks that take a confidence as it is.
    """
    names, attacks = list(table["dataset"].unique()), list(table["attack"].unique())
    height = 1.3 + 0.33 * len(attacks) * len(names)
    figure, axes = plt.subplots(len(names), len(AXES), figsize=(10.4, height), sharex="col", sharey=True, squeeze=False,
                                layout="constrained")  # fmt: skip
    told = conclusions(table)["conclusion"]
    for row, name in zip(axes, names, strict=True):
        tier = table.loc[table["dataset"] == name, "tier"].iloc[0]
        for ax, (metric, label) in zip(row, AXES.items(), strict=True):
            here = table[(table["dataset"] == name) & (table["metric"] == metric)]
            for i, (which, look) in enumerate(LOOKS.items()):
                line = here[here["subset"] == which].dropna(subset="value")
                y = line["attack"].map(attacks.index) + 0.25 * (i - 1)
                ax.plot(line["value"], y, linestyle="none", label=LEGEND.get(which, which), **look)
                if which == "correct":
                    ax.hlines(y, line["low"], line["high"], color=look["color"], linewidth=2)
            ax.set_title(f"{name} [{tier}, {published.TIERS[tier]}]" if ax is row[0] else "")
            ax.axhline(len(UNCALIBRATED) - 0.5, color="0.3", linewidth=0.8)
            ax.grid(axis="x", color="0.9", linewidth=0.6)
            ax.set(xlabel=label, yticks=range(len(attacks)), yticklabels=attacks, ylim=(len(attacks) - 0.5, -0.5))
            ax.tick_params(labelbottom=True)
        row[0].axvline(0.5, color="0.3", linestyle="--", linewidth=1)
        row[1].set_xlim(-0.03, 1.03)
        row[2].set_xscale("symlog", linthresh=0.01)
        row[2].set(xlim=(-0.001, 1.1), xticks=(0, 0.01, LINE, 0.2, 1), xticklabels=("0", ".01", ".05", ".2", "1"))
        row[2].axvline(0.01, color="0.3", linestyle="--", linewidth=1, label="chance")
        row[2].axvline(LINE, color="black", linestyle=":", linewidth=1.4, label="line of the rule")
        for at, attack in enumerate(attacks):
            row[2].text(1.25, at, told[name, attack], va="center", fontsize=9)
    figure.legend(*axes[0, 2].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    return figure


def caption(everyone: Iterable[Answers]) -> str:
    """What `diagram` has to say under its axes to stand alone."""
    parts = []
    for each in everyone:
        row, counts = each.row, f"{each.row.targets} targets with {max(experiments.numbers(each.row))} references each"
        kind = f"CNN of {row.filters[0]} and {row.filters[1]} filters" if row.dataset == "cifar-10" else "network"
        model = f"{kind}, {row.hidden} hidden units, {row.records // 2:,} members"
        parts.append(f"{NAMES[row.dataset]}: {model}, {counts}.")
    groups = "Above the line attacks that take a confidence as it is, below it those that hold it against references."
    rule = "Right: whether Rezaei & Liu's conclusion holds for the attack, by the dotted line at .05."
    return " ".join([*parts, "Means over targets, Student's t 95 % interval.", groups, rule])


def compare(table: pd.DataFrame, seen: pd.DataFrame) -> list[dict]:
    """Cells of all of `measured`, of how many attacks each of WORDS is said (a share), and of `overview`'s accuracies.

    Rezaei & Liu print no number for these targets, so none is held against one.
    """
    ours = []
    for row in table.itertuples():
        about = {"dataset": row.dataset, "setting": f"{row.attack}, {row.subset}", "metric": SHOWN[row.metric]}
        ours.append(about | {"value": row.value, "low": row.low, "high": row.high, "tier": row.tier})
    tiers, nothing = dict(zip(table["dataset"], table["tier"], strict=True)), {"low": np.nan, "high": np.nan}
    for (name, group), said in conclusions(table).groupby(["dataset", "group"], sort=False)["conclusion"]:
        for word in WORDS:
            about = {"dataset": name, "setting": group, "metric": f"{word}_share", "tier": tiers[name]}
            ours.append(about | nothing | {"value": (said == word).mean()})
    for row in seen.to_dict("records"):
        for name in ("train_acc", "test_acc"):
            about = {"dataset": row["data"], "setting": "target", "metric": f"target_{name}", "tier": row["tier"]}
            ours.append(about | nothing | {"value": row[name]})
    # The table of the paper whose models these are gives cells their form; its numbers are held against Fig 12's own.
    return [cell for cell in published.compare(ours, "zarifzadeh_fig12") if cell["published"] is None]
