"""What the tables and figures of Rezaei & Liu 2020 show, of our numbers, beside the published ones."""

import itertools
import math
from collections.abc import Iterable

import numpy as np
import pandas as pd

from mialib import metrics
from mialib.attacks import SUBSETS, signals, subset
from mialib.models import targets as networks
from mialib.models.targets import Trained
from mialib.papers.rezaei2020 import experiments
from mialib.papers.rezaei2020.experiments import PRINTED


def caveat(name: str, profile: str) -> str:
    """Why a target's numbers are not held against the paper's; "" where its network and schedule are comparable.

    The paper attacked models that others had trained, so another ResNet trained by others counts.
    """
    ours, theirs = experiments.targets(profile)[name], experiments.targets("paper")[name]
    if profile == "demo":
        return "demo profile"
    if ours.weights or (ours.network, ours.epochs) == (theirs.network, theirs.epochs):
        return ""
    return f"{ours.network} trained for {ours.epochs} epochs in place of {theirs.network} for {theirs.epochs}"


def printed(
    name: str,
    profile: str,
    subset: str,
    metric: str,
    value: float,
    low: float = math.nan,
    high: float = math.nan,
    **more: str,
) -> dict:
    """A number of ours on target `name`, as `published.compare` takes it for one of Rezaei & Liu's tables.

    `subset`: "all", "correct" or "misclassified"; `metric` as the table has it; rates are fractions. `more` adds
    variant or note, or replaces what is filled in (Table 2: setting="5:1, MI Attack"). ValueError for an unknown name.
    """
    if name not in experiments.targets(profile):
        raise ValueError(
            f"unknown target {name!r}; valid in profile {profile}: {', '.join(experiments.targets(profile))}"
        )
    dataset, model = PRINTED[name]
    return {
        "dataset": dataset,
        "model": _network(name, profile),
        "setting": f"{model}, {subset}",
        "metric": metric,
        "value": value,
        "low": low,
        "high": high,
        "tier": "S" if profile == "demo" else "R",  # the image sets are never simulated
        "not_comparable": caveat(name, profile),
    } | more


def _network(name: str, profile: str) -> str:
    """What was run: "ResNet-56" where the paper says "ResNet"."""
    _, *shape = experiments.targets(profile)[name].network.split("-")
    return "-".join([PRINTED[name][1], *shape])


def label(name: str, profile: str) -> str:
    """A target as figures call it: "CIFAR-10 AlexNet", with a star where a caveat keeps it from a verdict."""
    return " ".join(PRINTED[name]) + ("*" if caveat(name, profile) else "")


def attacked_targets(loaded: Iterable[Trained], profile: str) -> pd.DataFrame:
    """One line a target: data, tier, the paper's name of the model, what was run, counts, accuracies, and a caveat."""
    rows = []
    for trained in loaded:
        dataset, model = PRINTED[trained.name]
        right, member = experiments.right(trained), trained.data.member
        rows.append(
            {"data": dataset, "tier": trained.data.tier, "model": model, "run": _network(trained.name, profile)}
            | {"epochs": trained.target.epochs or "by others", "classes": trained.data.classes}
            | {"members": member.sum(), "non-members": (~member).sum()}
            | {"train accuracy": right[member].mean(), "test accuracy": right[~member].mean()}
            | {"not comparable because": caveat(trained.name, profile)}
        )
    return pd.DataFrame(rows)


def confidence_records(trained: Trained) -> pd.DataFrame:
    """A row a record of a target: class, member, correct, confidence (the probability given to the true class)."""
    vectors, y = networks.confidences(trained), trained.data.y
    confidence = np.clip(signals.true_class(vectors, y), 0, 1)
    return pd.DataFrame(
        {"class": y, "member": trained.data.member, "correct": signals.correct(vectors, y), "confidence": confidence}
    )


def of_subset(records: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of "all", "correct" or "misclassified" records (column correct). ValueError for another subset."""
    return records[subset(records["correct"].to_numpy(), name)]


def mean_vectors(trained: Trained, label: int) -> pd.DataFrame:
    """Mean confidence vectors of one true class (Rezaei & Liu, Fig 1): subset, member, records, class, confidence.

    A row a class of the model, for each subset and side; a side without records has nan.
    """
    records = confidence_records(trained)
    records, vectors = records[records["class"] == label], networks.confidences(trained)
    tables = []
    for name, side in itertools.product(SUBSETS, (True, False)):
        rows = (here := of_subset(records, name))[here["member"] == side].index
        mean = vectors[rows].mean(0, dtype=float) if len(rows) else np.full(trained.data.classes, np.nan)
        about = {"subset": name, "member": side, "records": len(rows)}
        tables.append(pd.DataFrame(about | {"class": np.arange(trained.data.classes), "confidence": mean}))
    return pd.concat(tables, ignore_index=True)


def confidence_overlaps(records: pd.DataFrame, rng: np.random.Generator, repeats: int = 1000) -> pd.DataFrame:
    """How alike members and non-members look by their confidence in the true class: a row a subset, columns below.

    members, non_members (counts), mean_member, mean_non_member, overlap (`metrics.overlap`, ten bins), low, high
    (bootstrap over the records, 95 %), if_alike: the mean overlap of two samples of these sizes drawn from the pooled
    histogram. Few records look unlike by chance, so `overlap` means something beside `if_alike` only. nan where a side
    has no records.
    """
    rows = []
    for name in SUBSETS:
        here = of_subset(records, name)
        sides = [here.loc[here["member"] == side, "confidence"] for side in (True, False)]
        row = {"subset": name, "members": len(sides[0]), "non_members": len(sides[1])}
        row |= {"mean_member": sides[0].mean(), "mean_non_member": sides[1].mean()}
        if all(map(len, sides)):
            shares = [metrics.histogram(values) for values in sides]
            pooled = metrics.histogram(pd.concat(sides))
            drawn, alike = (
                np.minimum(*(rng.multinomial(len(v), p, repeats) / len(v) for v, p in zip(sides, of, strict=True)))
                for of in (shares, [pooled, pooled])
            )
            low, high = np.quantile(drawn.sum(1), (0.025, 0.975))
            row |= {"overlap": np.minimum(*shares).sum(), "low": low, "high": high, "if_alike": alike.sum(1).mean()}
        rows.append(row)
    columns = [
        "subset",
        "members",
        "non_members",
        "mean_member",
        "mean_non_member",
        "overlap",
        "low",
        "high",
        "if_alike",
    ]
    return pd.DataFrame(rows, columns=columns).set_index("subset")
