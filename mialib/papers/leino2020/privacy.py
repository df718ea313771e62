"""Leino & Fredrikson 2020: what training with differential privacy leaves, of a model and of the attacks on it.

The slides' bars are of faces (LFW). `paper` takes them; in `laptop`, to spare their download, the five commonest kinds
of photograph of Caltech-101 stand in their place. A linear model of the pixels has that of a network, so that the
paper's own attacks can be run.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mialib import config, metrics, papers, runs
from mialib.attacks import Result, baselines, signals, worlds
from mialib.data import caltech, lfw
from mialib.data.datasets import Dataset
from mialib.models import accounting, fit, private, small
from mialib.papers.leino2020 import precision
from mialib.results import published

NONE, CLIPPED = "no defence", "clipping alone"
NOBODY, DOUBLE = 0, 2  # Caltech-101's classes of no kind, and of faces that another class has too, less closely cut
KINDS = 5  # as many as the faces have names
SHOWN = ("bayes-wb", "general-wb", "nn", "gap")  # drawn; the table has all
ELSEWHERE = {"lfw": "a linear model, not a network", caltech.NAME: "another data set and model than the published"}
NAMES = {"lfw": "LFW", caltech.NAME: "Caltech-101, 5 kinds"}


@dataclass(frozen=True)
class Row:
    """The models of a profile: see sizes.toml."""

    size: int
    epochs: int
    targets: int
    proxies: int
    learn: int  # worlds that attacks learn from; as many for thresholds
    rate: float
    steps: int
    step: float
    delta: float
    epsilons: tuple[float, ...]

    @property
    def settings(self) -> dict[str, float]:
        """How models are trained: name -> epsilon; nan for no defence, infinite for clipping without noise."""
        return {NONE: math.nan, CLIPPED: math.inf} | {f"epsilon {each:g}": each for each in self.epsilons}


@dataclass(frozen=True)
class Defended:
    """All targets of one setting: what they learnt, and each attack's scores and calls on them."""

    setting: str
    epsilon: float
    accuracies: list[dict[str, float]]
    answers: dict[str, list[tuple[np.ndarray, Result]]]  # attack -> of each target: member, what the attack says


def row(profile: str) -> Row:
    """The sizes of `profile`."""
    config.check_profile(profile)
    sizes = papers.sizes("leino2020")["privacy"][profile]
    return Row(**sizes | {"epsilons": tuple(sizes["epsilons"])})


def load(profile: str) -> Dataset:
    """Caltech-101's commonest classes, or in `paper` LFW's, float32 (n, pixels) in [-1, 1]; raises as their loaders."""
    data = lfw.load() if profile == "paper" else caltech.load(profile)
    counts = np.bincount(data.y, minlength=data.classes)
    if data.classes == caltech.CLASSES:
        counts[[NOBODY, DOUBLE]] = 0
    at = np.flatnonzero(np.isin(data.y, np.argsort(-counts, kind="stable")[:KINDS]))
    X = (data.X[at].reshape(len(at), -1) / 127.5 - 1).astype(np.float32)
    y = np.unique(data.y[at], return_inverse=True)[1].astype(np.int64)
    source = f"{data.source}; of them {len(y):,} of the {KINDS} commonest classes"
    tier = "R" if profile == "paper" else "S"
    return replace(data, X=X, y=y, classes=KINDS, tier=tier, source=source, digest=runs.digest(X, y))


def recipe(row: Row, epsilon: float) -> fit.Recipe | private.Recipe:
    """How a model is trained: see `Row.settings`."""
    if math.isnan(epsilon):
        return fit.Recipe(row.epochs)
    noise = accounting.noise_for(epsilon, row.rate, row.steps, row.delta) if math.isfinite(epsilon) else 0.0
    return private.Recipe(row.steps, row.rate, row.rate * row.size, noise, step=row.step)


def attack(data: Dataset, row: Row, setting: str, seed: int) -> Defended:
    """Train the targets of a setting, and the attacker's own models in the same way; ask all attacks about each target.

    Worlds are as `precision.plans` makes them, the same records in each setting. Thresholds have the best balanced
    accuracy on her worlds that no attack learnt from. ValueError where the records are too few.
    """
    model = small.MLP((data.X.shape[1], data.classes))
    trained = recipe(row, row.settings[setting])
    sizes = precision.Row(data.name, 0, 0, row.size, row.epochs, row.targets, row.proxies, row.learn)
    accuracies: list[dict[str, float]] = []
    answers: dict[str, list[tuple[np.ndarray, Result]]] = {}
    for i in range(row.targets):
        words = (seed, "leino privacy", data.name, row.size, i)
        rng = runs.stream(*words)
        drawn = rng.permutation(len(data.y))[: precision.PARTS * -(-row.size // 2)]
        plans = precision.plans(data.y[drawn], sizes, rng)
        target, *own = worlds.train(model, trained, data.X[drawn], data.y[drawn], plans, row.proxies, words)
        learn, others = own[: row.learn], own[row.learn :]
        member = np.concatenate([world.member for world in others])
        for name, (score, *known) in worlds.scores(learn, [target, *others], words).items():
            least = baselines.best_threshold(np.concatenate(known), member)
            answers.setdefault(name, []).append((target.member, Result(score, score >= least)))
        answers.setdefault("gap", []).append((target.member, baselines.gap(target.observed)))
        right = signals.correct(target.observed.vectors, target.observed.y)
        accuracies.append({"train_acc": right[target.member].mean(), "test_acc": right[~target.member].mean()})
    return Defended(setting, row.settings[setting], accuracies, answers)


def bounds(row: Row, epsilon: float) -> dict[str, float]:
    """The largest accuracy of an attack that epsilon allows; nan where there is none to speak of.

    slides: e^epsilon / 2, for one record more or less. bound: `accounting.most_accurate` for one record in another's
    place, as here, where models of a set number of members are compared: twice epsilon, delta (1 + e^epsilon).
    """
    if not math.isfinite(epsilon):
        return {"slides": math.nan, "bound": math.nan}
    slides, delta = math.exp(epsilon) / 2, row.delta * (1 + math.exp(epsilon))
    return {"slides": slides if slides < 1 else math.nan, "bound": accounting.most_accurate(2 * epsilon, min(delta, 1))}


def measured(row: Row, several: Sequence[Defended]) -> pd.DataFrame:
    """A line a setting and attack: value, low, high of its balanced accuracy and of its AUC (means, t over targets).

    Columns setting, epsilon, attack, metric ("attack_total_acc", "attack_auc"), value, low, high; attack "target" has
    "target_train_acc" and "target_test_acc" instead.
    """
    found = []
    for each in several:
        about = {"setting": each.setting, "epsilon": each.epsilon}
        ends = ("value", "low", "high")
        for name, numbers in metrics.over_seeds(each.accuracies).items():
            found.append(
                about | {"attack": "target", "metric": f"target_{name}"} | dict(zip(ends, numbers, strict=True))
            )
        for attack, said in each.answers.items():
            scored = [metrics.evaluate(member, result.score, result.predicted) for member, result in said]
            for metric, name in (("balanced_accuracy", "attack_total_acc"), ("auc", "attack_auc")):
                numbers = metrics.mean_interval([one[metric] for one in scored], 0, 1)
                found.append(about | {"attack": attack, "metric": name} | dict(zip(ends, numbers, strict=True)))
    return pd.DataFrame(found)


def overview(row: Row, table: pd.DataFrame) -> pd.DataFrame:
    """A line a setting: what targets learnt, each accuracy ("value (low to high)"), what is printed, and bounds."""
    printed = published.load("leino_privacy").pivot(index="setting", columns="metric", values="published")
    said = [
        f"{published.short(r.value)} ({published.short(r.low)} to {published.short(r.high)})"
        for r in table.itertuples()
    ]
    here = table.assign(said=said)[table["metric"].ne("attack_auc")]
    here = here.assign(column=here["attack"].where(here["attack"].ne("target"), here["metric"]))
    wide = here.pivot(index="setting", columns="column", values="said")[list(dict.fromkeys(here["column"]))]
    for setting, epsilon in row.settings.items():
        for name, value in bounds(row, epsilon).items():
            wide.loc[setting, f"at most ({name})"] = "" if math.isnan(value) else published.short(value)
        for metric in ("target_test_acc", "attack_total_acc"):
            value = printed[metric].get(setting, math.nan)
            wide.loc[setting, f"printed, LFW: {metric}"] = "" if math.isnan(value) else published.short(value)
    return wide.loc[list(row.settings)]


def drawn(row: Row, table: pd.DataFrame) -> Figure:
    """Accuracy of the target on non-members, and of attacks, by epsilon; what is printed of LFW beside it."""
    names, printed = list(row.settings), published.load("leino_privacy")
    figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.3), layout="constrained")
    at = np.arange(len(names))
    lines = [(axes[0], "target", "target_test_acc", "target, ours")]
    lines += [(axes[1], name, "attack_total_acc", f"{name}, ours") for name in SHOWN]
    for i, (ax, attack, metric, label) in enumerate(lines):
        here = table[table["attack"].eq(attack) & table["metric"].eq(metric)].set_index("setting").loc[names]
        reach = np.abs(here[["low", "high"]].to_numpy().T - here["value"].to_numpy())
        place = at + 0.1 * (max(i - 1, 0) - 1.5) * (attack != "target")
        ax.errorbar(
            place, here["value"], reach, color=f"C{i}", marker="oDs^v"[i], markersize=4, label=label, linewidth=1.2
        )
    for ax, metric in zip(axes, ("target_test_acc", "attack_total_acc"), strict=True):
        values = printed[printed["metric"].eq(metric)].set_index("setting")["published"].reindex(names)
        ax.scatter(at, values, marker="*", color="black", s=50, zorder=3, label="printed, of LFW")
        ax.set_xticks(at, [name.replace(" ", "\n") for name in names], fontsize=7)
        ax.grid(color="0.9", linewidth=0.6)
    most = [bounds(row, epsilon)["bound"] for epsilon in row.settings.values()]
    axes[1].plot(at, most, color="0.4", linestyle="--", marker="_", label="no attack has more")
    axes[1].axhline(0.5, color="0.6", linewidth=0.8)
    axes[0].set(ylabel="accuracy on non-members", ylim=(0, 1))
    axes[1].set(ylabel="balanced accuracy of the attack", ylim=(0.45, None))
    handles = {label: line for ax in axes for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=4, frameon=False)
    return figure


def compare(table: pd.DataFrame, data: Dataset, profile: str) -> list[dict]:
    """Cells: what is printed of LFW, beside ours, which get no verdict; every other number."""
    cause = "demo profile" if profile == "demo" else ELSEWHERE[data.name]
    printed = set(published.load("leino_privacy")[["setting", "metric"]].itertuples(index=False, name=None))
    ours = []
    for line in table.itertuples():
        about = {"tier": data.tier, "metric": line.metric, "value": line.value, "low": line.low, "high": line.high}
        variant = "" if line.attack == "target" else line.attack
        if (line.setting, line.metric) in printed and variant in ("", *SHOWN):
            ours.append(
                about | {"dataset": "LFW", "setting": line.setting, "variant": variant, "not_comparable": cause}
            )
        else:
            name = f"{line.setting}, {line.attack}" if variant else line.setting
            ours.append(about | {"dataset": NAMES[data.name], "setting": name})
    return published.compare(ours, "leino_privacy")
