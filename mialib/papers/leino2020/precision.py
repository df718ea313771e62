"""Leino & Fredrikson 2020: attacks can be calibrated for precision. What is asked for against what is obtained."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.special import logit

from mialib import config, metrics, papers, runs
from mialib.attacks import baselines, signals, worlds
from mialib.attacks.worlds import Plan, World
from mialib.data import datasets
from mialib.data.datasets import Dataset
from mialib.models import fit, small
from mialib.papers.leino2020 import experiments
from mialib.results import published

NAMES = experiments.NAMES | {"mnist": "MNIST", "cifar-10": "CIFAR-10"}
ASKED = (0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
TOLD = (0.6, 0.75, 0.9)  # those of which the record has a cell each
# How a threshold is set; beside them HALF, at the best balanced accuracy, which asks for no precision.
HALF = "best accuracy"
WAYS = ("other worlds", "other worlds, guarded", "the worlds it learnt from", "its own confidence")
LIKE = "other worlds, attacks that learn"  # what the third is to be held against, see `broken`
ORDER = (*WAYS[:2], LIKE, *WAYS[2:])
FEWEST = 20  # records called members, over all targets: a share of fewer is not drawn and bears no cell
PARTS = 11  # of a split: 2 members, 2 others, 6 the attacker's, 1 the population; her worlds have 2, 2, 2
UNLIKE = "an attack on prediction vectors; the paper's opens the network"


@dataclass(frozen=True)
class Row:
    """The models of one data set: see sizes.toml."""

    dataset: str
    hidden: int
    filters: int
    size: int  # records that train a model
    epochs: int
    targets: int
    proxies: int
    learn: int  # worlds that attacks learn from; as many for thresholds

    @property
    def name(self) -> str:
        """As tables call it."""
        return f"{NAMES[self.dataset]}, {'CNN' if self.filters else 'network' if self.hidden else 'linear'}"


@dataclass(frozen=True)
class Scored:
    """The attacks on all targets of a row."""

    row: Row
    tier: str
    accuracies: list[dict[str, float]]  # of each target
    # Of each target: attack -> (score, member) on its records, on worlds for thresholds, on those it learnt from.
    answers: list[dict[str, list[tuple[np.ndarray, np.ndarray]]]]


def rows(profile: str) -> tuple[Row, ...]:
    """The rows of sizes.toml in `profile`."""
    config.check_profile(profile)
    return tuple(Row(*row) for row in papers.sizes("leino2020")["worlds"][profile])


def load(name: str, profile: str) -> Dataset:
    """A data set by its name in sizes.toml, see `experiments.load`."""
    return datasets.load(name, profile) if name in ("mnist", "cifar-10") else experiments.load(name, profile)


def architecture(data: Dataset, row: Row) -> small.Model:
    """The network of a row."""
    if row.filters:
        return small.CNN(data.X.shape[1:], data.classes, row.hidden, (row.filters,) * 2)
    return small.MLP((data.X.shape[1], *[row.hidden] * (row.hidden > 0), data.classes))


def plans(y: np.ndarray, row: Row, rng: np.random.Generator) -> list[Plan]:
    """The target's world, then the attacker's own, of records drawn for them, y (records,).

    Parts have like classes. Her worlds are made of her records alone, dealt anew for each, and share the population.
    The target's proxies are trained on as many of her records as those of her own targets. ValueError for a part that
    is smaller than half of `row.size`.
    """
    parts = experiments.deal(y, PARTS, rng)
    if 2 * len(parts[0]) < row.size:
        raise ValueError(f"{row.dataset}: {len(y)} records are too few for models of {row.size} records")
    members, others, theirs = (np.concatenate(parts[i:j]) for i, j in ((0, 2), (2, 4), (4, 10)))
    found = [Plan(members, others, theirs[experiments.deal(y[theirs], 3, rng)[0]], parts[10])]
    for _ in range(2 * row.learn):
        found.append(Plan(*(theirs[part] for part in experiments.deal(y[theirs], 3, rng)), parts[10]))
    return found


def attack(data: Dataset, row: Row, seed: int) -> Scored:
    """Train all worlds of a row and score their records. ValueError where the records are too few."""
    model, recipe = architecture(data, row), fit.Recipe(row.epochs)
    accuracies, answers = [], []
    for i in range(row.targets):
        words = (seed, "leino worlds", data.name, row.hidden, row.size, i)
        rng = runs.stream(*words)
        drawn = rng.permutation(data.X.shape[0])[: PARTS * -(-row.size // 2)]
        made = plans(data.y[drawn], row, rng)
        target, *own = worlds.train(model, recipe, data.X[drawn], data.y[drawn], made, row.proxies, words)
        learn, others = own[: row.learn], own[row.learn :]
        scores = worlds.scores(learn, [target, *others, *learn], words)
        answers.append({name: _three(found, target, others, learn) for name, found in scores.items()})
        right = signals.correct(target.observed.vectors, target.observed.y)
        accuracies.append({"train_acc": right[target.member].mean(), "test_acc": right[~target.member].mean()})
    return Scored(row, data.tier, accuracies, answers)


def _three(scores: list[np.ndarray], target: World, others: Sequence[World], learn: Sequence[World]) -> list[tuple]:
    members = [world.member for world in (target, *others, *learn)]
    ends = (0, 1, 1 + len(others), len(members))
    return [(np.concatenate(scores[i:j]), np.concatenate(members[i:j])) for i, j in itertools.pairwise(ends)]


def calls(scored: Scored) -> pd.DataFrame:
    """Whom each attack calls a member: a row a target, attack, way and precision asked for.

    Columns name, tier, target, attack, way, asked, called, hits, members (of the target). Nobody is called where no
    threshold has the precision on the attacker's worlds. Way HALF, asked nan: the best balanced accuracy on them. "Its
    own confidence" is the least that a record has which is called: were it true, more than what is asked is obtained.
    """
    found = []
    for number, answers in enumerate(scored.answers):
        for name, (asked, others, learn) in answers.items():
            thresholds = [(HALF, np.nan, baselines.best_threshold(*others))]
            for wanted in ASKED:
                thresholds += [(WAYS[i], wanted, worlds.threshold(*others, wanted, i == 1)) for i in (0, 1)]
                if name in worlds.LEARNT:
                    thresholds.append((WAYS[2], wanted, worlds.threshold(*learn, wanted)))
                if name in worlds.LOG_ODDS:
                    thresholds.append((WAYS[3], wanted, logit(wanted)))
            for way, wanted, least in thresholds:
                said = asked[0] >= least
                about = {"target": number, "attack": name, "way": way, "asked": wanted, "called": said.sum()}
                found.append(about | {"hits": (said & asked[1]).sum(), "members": asked[1].sum()})
    return pd.DataFrame(found).assign(name=scored.row.name, tier=scored.tier)


def measured(called: pd.DataFrame) -> pd.DataFrame:
    """Precision and recall over the targets: a row a name, attack, way and precision asked for.

    called: `calls` of all rows. Columns besides: value, low, high (precision: members among all who are called, over
    all targets, `metrics.ratio_interval`), recall, recall_low, recall_high (mean over the targets), called (per
    target), total (over all), silent (targets on which nobody is called).
    """
    found = []
    for key, here in called.groupby(["name", "tier", "attack", "way", "asked"], sort=False, dropna=False):
        precision = metrics.ratio_interval(here["hits"], here["called"])
        recall = metrics.mean_interval(here["hits"] / here["members"], 0, 1)
        ends = ("value", "low", "high", "recall", "recall_low", "recall_high")
        about = dict(zip(("name", "tier", "attack", "way", "asked"), key, strict=True))
        said = here["called"]
        numbers = {"called": said.mean(), "total": said.sum(), "silent": (said == 0).sum()}
        found.append(about | dict(zip(ends, precision + recall, strict=True)) | numbers)
    return pd.DataFrame(found)


def overview(several: Iterable[Scored]) -> pd.DataFrame:
    """One line a row: its data, its sizes, what the targets learnt, and the AUC of every attack (means over them)."""
    found = []
    for each in several:
        row = each.row
        about = {"data, model": row.name, "tier": each.tier, "size": row.size, "targets": row.targets}
        about |= {"proxies": row.proxies, "own worlds": 2 * row.learn, "epochs": row.epochs}
        learnt = {name: np.mean([a[name] for a in each.accuracies]) for name in ("train_acc", "test_acc")}
        found.append(about | learnt | {f"{name} auc": value for name, (value, _, _) in aucs(each).items()})
    return pd.DataFrame(found)


def aucs(scored: Scored) -> dict[str, tuple[float, float, float]]:
    """AUC of every attack on the targets, with Student's t interval over them."""
    found: dict[str, list[float]] = {}
    for answers in scored.answers:
        for name, ((score, member), *_) in answers.items():
            found.setdefault(name, []).append(metrics.evaluate(member, score, np.zeros(len(member), bool))["auc"])
    return {name: metrics.mean_interval(values, 0, 1) for name, values in found.items()}


def promised(table: pd.DataFrame, way: str = WAYS[0]) -> pd.DataFrame:
    """`measured` of one way as text: "obtained (low to high), recall", a row a name and attack, a column a share asked.

    First HALF, where no share is asked. "nobody": no target has anyone called; a star: fewer than FEWEST records are.
    """
    here = table[table["way"].isin([HALF, way])]
    said = []
    for row in here.itertuples():
        ends = f"{published.short(row.low)} to {published.short(row.high)}" if pd.notna(row.low) else "one target"
        found = f"{published.short(row.value)} ({ends}), {published.short(row.recall)}{'*' * (row.total < FEWEST)}"
        said.append(found if row.total else "nobody")
    here = here.assign(said=said, asked=here["asked"].astype(object).fillna(HALF))
    wide = here.pivot(index=["name", "attack"], columns="asked", values="said")
    shares = [each for each in (HALF, *ASKED) if each in wide]
    return wide.loc[list(dict.fromkeys(here[["name", "attack"]].itertuples(index=False, name=None))), shares].fillna("")


def broken(table: pd.DataFrame) -> pd.DataFrame:
    """How far precision falls short: a row a name and way, over its attacks and the shares asked of them.

    Columns promises (how many have at least FEWEST records called), broken (their share whose interval lies below what
    was asked; one without an interval is not broken), shortfall (mean of asked minus obtained), worst (the largest),
    recall (mean). Ways differ in the attacks that have them: way LIKE is the first of WAYS, of the attacks that learn.
    """
    here = table[table["total"].ge(FEWEST) & table["asked"].notna()]
    like = here[here["way"].eq(WAYS[0]) & here["attack"].isin(worlds.LEARNT)].assign(way=LIKE)
    here = pd.concat([here, like])
    here = here.assign(short=here["asked"] - here["value"], below=here["high"] < here["asked"])
    named = {"promises": ("below", "size"), "broken": ("below", "mean"), "shortfall": ("short", "mean")}
    found = here.groupby(["name", "way"]).agg(**named, worst=("short", "max"), recall=("recall", "mean"))
    return found.reindex(key for key in itertools.product(table["name"].unique(), ORDER) if key in found.index)


def diagram(table: pd.DataFrame, way: str = WAYS[0]) -> Figure:
    """Reliability: a column a data set and model; above precision obtained by precision asked for, below the recall.

    Shares of fewer than FEWEST records are left out.
    """
    here = table[(table["way"] == way) & table["total"].ge(FEWEST)]
    names, attacks = list(table["name"].unique()), list(table["attack"].unique())
    sheet = {"figsize": (max(2.1 * len(names), 7.2), 5.6), "squeeze": False, "layout": "constrained"}
    figure, axes = plt.subplots(2, len(names), sharex=True, sharey="row", **sheet)
    tiers = dict(zip(table["name"], table["tier"], strict=True))
    for column, name in zip(axes.T, names, strict=True):
        column[0].plot([0.5, 1], [0.5, 1], color="0.6", label="as asked")
        for i, attack in enumerate(attacks):
            line = here[(here["name"] == name) & (here["attack"] == attack)]
            look = {"color": f"C{i}", "marker": "os^DvPX*h"[i % 9], "markersize": 4, "linewidth": 1.2}
            column[0].plot(line["asked"], line["value"], label=attack, **look)
            column[0].vlines(line["asked"], line["low"], line["high"], color=f"C{i}", linewidth=0.8, alpha=0.6)
            column[1].plot(line["asked"], line["recall"], **look)
        tier = {"R": "R", "S": "S, substitute", "M": "M, simulated"}[tiers[name]]
        column[0].set_title(f"{name.replace(', ', chr(10))}\n[{tier}]")
        column[1].set(xlabel="precision asked for", ylim=(0, 1.02))
        column[1].set_yscale("symlog", linthresh=0.01)
        for ax in column:
            ax.grid(color="0.9", linewidth=0.6)
    axes[0, 0].set(ylabel="precision obtained", ylim=(min(0.4, here["value"].min() - 0.02), 1.02))
    axes[1, 0].set_ylabel("recall")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    return figure


def compare(table: pd.DataFrame, several: Iterable[Scored], profile: str) -> list[dict]:
    """Cells: what was asked of the first of WAYS, and the one printed number, beside our attacks asked for as much.

    It is MNIST's precision. Our attacks there look at prediction vectors, so none is held against it: the primary
    reading is "not computed in this run".
    """
    ours = []
    kept = table["total"].ge(FEWEST) & table["way"].eq(WAYS[0]) & table["asked"].isin(TOLD)
    for row in table[kept].itertuples():
        setting = f"{row.attack}, {published.short(row.asked)} asked"
        about = {"dataset": row.name, "setting": setting, "tier": row.tier}
        ours.append(about | {"metric": "attack_precision", "value": row.value, "low": row.low, "high": row.high})
        recall = {"value": row.recall, "low": row.recall_low, "high": row.recall_high}
        ours.append(about | recall | {"metric": "attack_recall"})
        if row.name.startswith("MNIST") and row.asked == 0.75:
            printed = {"dataset": "MNIST", "setting": "white-box attack", "variant": setting, "records": row.total}
            ours.append(ours[-2] | printed | {"not_comparable": "demo profile" if profile == "demo" else UNLIKE})
    for each in several:
        for setting, found in (("target", metrics.over_seeds(each.accuracies)), ("", aucs(each))):
            for name, (value, low, high) in found.items():
                metric = f"target_{name}" if setting else "attack_auc"
                about = {"dataset": each.row.name, "setting": setting or name, "metric": metric, "tier": each.tier}
                ours.append(about | {"value": value, "low": low, "high": high})
    for (name, way), row in broken(table).iterrows():
        about = {"dataset": name, "setting": way, "tier": table.loc[table["name"] == name, "tier"].iloc[0]}
        for metric in ("promises", "broken", "shortfall", "worst", "recall"):
            ours.append(about | {"metric": metric, "value": float(row[metric]), "low": None, "high": None})
    return published.compare(ours, "leino_slides")
