"""What the tables and figures of Rezaei & Liu 2020 show, of our numbers, beside the published ones."""

import itertools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from mialib import metrics
from mialib.attacks import SUBSETS, signals, subset
from mialib.models import targets as networks
from mialib.models.targets import Trained
from mialib.papers.rezaei2020 import experiments
from mialib.results import published

NEAR = 0.02  # of the printed train and test accuracy, as the tolerance of either


def caveat(name: str, profile: str) -> str:
    """Why a target's numbers are not held against the paper's; "" where it is at the printed operating point.

    That is where train and test accuracy are both within NEAR of those in Table 3, whoever trained it.
    """
    if profile == "demo":
        return "demo profile"
    ours, theirs = experiments.operating_point(name, profile), printed_point(name)
    if all(round(abs(one - other), 9) <= NEAR for one, other in zip(ours, theirs, strict=True)):
        return ""
    said = [" and ".join(map(published.short, point)) for point in (ours, theirs)]
    return f"train and test accuracy {said[0]}, printed {said[1]}"


def printed_point(name: str) -> tuple[float, float]:
    """Train and test accuracy of a target as the paper prints them (Table 3)."""
    dataset, model = experiments.called(name)
    table = published.load("rezaei_table3").set_index(["dataset", "setting", "metric"])["published"]
    train, test = (float(table[dataset, f"{model}, all", metric]) for metric in experiments.METRICS)
    return train, test


def printed(
    name: str,
    profile: str,
    subset: str,
    metric: str,
    value: float,
    low: float = math.nan,
    high: float = math.nan,
    variant: str = "",
    not_comparable: str = "",
    **more: str | int | float,
) -> dict:
    """A number of ours on target `name`, as `published.compare` takes it for one of Rezaei & Liu's tables.

    `subset`: "all", "correct" or "misclassified"; `metric` as the table has it; rates are fractions. The variant is
    followed by that of the target ("last epoch"), a reason in `not_comparable` preceded by the target's `caveat`.
    `more` adds note, classes, records or members, or replaces what is filled in (Table 2: setting="5:1, MI Attack").
    ValueError for an unknown name.
    """
    run, (dataset, model) = _network(name, profile), experiments.called(name)
    return {
        "dataset": dataset,
        "model": run,
        "setting": f"{model}, {subset}",
        "metric": metric,
        "value": value,
        "low": low,
        "high": high,
        "variant": ", ".join(filter(None, (variant, experiments.variant(name, profile)))),
        "tier": "S" if profile == "demo" else "R",  # the image sets are never simulated
        "not_comparable": "; ".join(filter(None, (caveat(name, profile), not_comparable))),
    } | more


def cell(row: Any, profile: str, metric: str, **more: str) -> dict:
    """`printed` of a row (a named tuple) of `known.over_classes` with columns target and subset too."""
    about = {"classes": int(row.classes), "records": int(row.records)}
    about |= {"members": float(row.members)} if 0 < row.members < 1 else {}
    return printed(row.target, profile, row.subset, metric, row.value, row.low, row.high, **about | more)


def fewer_records(trained: Trained, asked: int, classes: int) -> str:
    """Why attacks on the first `asked` records of a class, side and subset are not the paper's; "" where they are.

    The released code takes 400, or all non-members that a class has, of every class.
    """
    full = experiments.SIZES["records"]["paper"]["all"]
    full = min(full, int(np.bincount(trained.data.y[~trained.data.member]).max()))
    few = f"{asked} records of a class and side in place of {full}" if asked < full else ""
    some = f"{classes} classes in place of {trained.data.classes}" if classes < trained.data.classes else ""
    return " and ".join(filter(None, (few, some)))


def another_distance(trained: Trained, profile: str, subset: str, protocol: str) -> str:
    """Why a mean distance is not the printed one, which the released code clips, of as many records; "" where it is."""
    data, _ = experiments.called(trained.name)
    if protocol == "minimal":
        return "another quantity: the nearest boundary, not where the printed search ends"
    if protocol == "paper" and (data, subset) != ("MNIST", "correct"):
        return "another quantity: the printed one is mostly a clip"
    if protocol == "released-code" and trained.target.scale == "imagenet":
        return "its pixels are normalised by another scale, on which a clip depends"
    return fewer_records(trained, *experiments.sampled(trained.name, profile, protocol))


def distance_cell(trained: Trained, profile: str, row: Any) -> dict:
    """A rate of the attack on distances as `published.compare` takes it; row: a named tuple of `by_distance`.

    Its metric: balanced_accuracy, fnr (the printed FAR, since the released script labels members 0) or fpr.
    """
    kinds = {"balanced_accuracy": ("attack_balanced_acc", ""), "fpr": ("attack_far", "corrected")}
    printed_as, way = (kinds | {"fnr": ("attack_far", "labels swapped, as released")})[row.metric]
    reason = fewer_records(trained, *experiments.sampled(trained.name, profile, row.protocol))
    if row.metric == "fpr":
        reason = "another quantity: the printed FAR is the share of members called non-members"
    variant = ", ".join(filter(None, (row.protocol, row.asked, way)))
    return cell(row, profile, printed_as, variant=variant, note=f"{row.classes} classes", not_comparable=reason)


def searched_less(profile: str, attack: str) -> str:
    """Why the best of nine attacks is not the paper's where the random searches draw fewer settings; "" otherwise."""
    ours, full = (experiments.SEARCH[each] for each in (profile, "paper"))
    if attack != "best" or ours == full:
        return ""
    return f"{ours.forest} and {ours.xgboost} random-search draws in place of {full.forest} and {full.xgboost}"


def _network(name: str, profile: str) -> str:
    """What was run: "ResNet-56" where the paper says "ResNet"."""
    _, *shape = experiments.target(name, profile).network.split("-")
    return "-".join([experiments.called(name)[1], *shape])


def label(name: str, profile: str) -> str:
    """A target as figures call it: "CIFAR-10 AlexNet, last epoch", with a star where it gets no verdict."""
    data, _ = experiments.called(name)
    named = ", ".join(filter(None, (f"{data} {_network(name, profile)}", experiments.variant(name, profile))))
    return named + ("*" if caveat(name, profile) else "")


def attacked_targets(loaded: Iterable[Trained], profile: str) -> pd.DataFrame:
    """One line a target: data, tier, the paper's name of the model, what was run, counts, accuracies, and a caveat."""
    rows = []
    for trained in loaded:
        dataset, model = experiments.called(trained.name)
        right, member = experiments.right(trained), trained.data.member
        rows.append(
            {"data": dataset, "tier": trained.data.tier, "model": model, "run": _network(trained.name, profile)}
            | {"epochs": trained.target.epochs or "by others", "classes": trained.data.classes}
            | {"members": member.sum(), "non-members": (~member).sum()}
            | {"train accuracy": right[member].mean(), "test accuracy": right[~member].mean()}
            | dict(zip(("printed train", "printed test"), printed_point(trained.name), strict=True))
            | {"not comparable because": caveat(trained.name, profile)}
        )
    return pd.DataFrame(rows)


BLIND = {"balanced_accuracy": "blind_balanced_acc", "fpr": "blind_far"}  # what cells call the blind attack's rates


def blind_cells(found: pd.DataFrame, profile: str) -> list[dict]:
    """The blind attack of `experiments.blind` as results for `published.compare`, which has no number beside them."""
    return [
        cell(row, profile, BLIND[row.metric], variant="shuffled" if "shuffled" in row.attack else "")
        for row in found[found["metric"].isin(BLIND)].itertuples()
    ]


def with_intervals(table: pd.DataFrame) -> pd.Series:
    """Columns value, low, high in words: ".734 (.721 to .747)"."""
    said = [[published.short(number) for number in row] for row in table[["value", "low", "high"]].to_numpy(float)]
    texts = [f"{value} ({low} to {high})" if low != "nan" else value for value, low, high in said]
    return pd.Series(texts, table.index, dtype=object)


def blind_table(found: pd.DataFrame) -> pd.DataFrame:
    """The blind attack with its intervals: a row a target and subset, in the data set's order and shuffled."""
    shown = found[found["metric"].isin(BLIND)].replace({"metric": {"fpr": "FAR", "balanced_accuracy": "bal. acc."}})
    shown = shown.assign(said=with_intervals(shown), order=np.where(shown["attack"] == "blind", "as it is", "shuffled"))
    return shown.set_index(["target", "subset", "metric", "order"])["said"].unstack(["metric", "order"])


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
    """How alike members and non-members look by their confidence in the true class: a row a subset.

    Columns members, non_members (counts), mean_member, mean_non_member, then those of `metrics.overlap_interval`. nan
    where a side has no records.
    """
    rows = []
    for name in SUBSETS:
        here = of_subset(records, name)
        sides = [here.loc[here["member"] == side, "confidence"].to_numpy() for side in (True, False)]
        row = {"subset": name, "members": len(sides[0]), "non_members": len(sides[1])}
        found = dict.fromkeys(("overlap", "low", "high", "if_alike"), math.nan)
        if all(map(len, sides)):
            found = metrics.overlap_interval(*sides, rng, repeats)
        means = [values.mean() if len(values) else math.nan for values in sides]
        rows.append(row | dict(zip(("mean_member", "mean_non_member"), means, strict=True)) | found)
    return pd.DataFrame(rows).set_index("subset")
