"""What an attack finds at each epoch of a target's training: Rezaei & Liu 2020, Figs 3 to 8."""

import numpy as np
import pandas as pd

from mialib import config, targets
from mialib.attacks import known

SUBSETS = ("all", "correct", "misclassified")
COLUMNS = ("target", "epoch", "subset", "metric", "value", "low", "high")


def watched(profile: str) -> list[str]:
    """Names of the targets of `profile` that we train, and so can watch; not those trained by others."""
    return [name for name, target in config.targets(profile).items() if target.epochs]


def by_epoch(name: str, profile: str, seed: int) -> pd.DataFrame:
    """`at` for every epoch a target was asked at while it trained, columns COLUMNS.

    The records asked are `targets.observed`: all non-members and as many members of each class. ValueError, saying
    what to run, where the target was not watched on this machine.
    """
    data = targets.images(config.targets(profile)[name], profile)
    seen = targets.observed(data)
    y, member = data.y[seen], data.member[seen]
    parts = []
    for epoch, answers in targets.observations(name, profile).items():
        part = at(answers.astype(np.float32), y, member, (seed, "progress", name, epoch))
        parts.append(part.assign(target=", ".join(targets.PRINTED[name]), epoch=epoch))
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)]


def at(answers: np.ndarray, y: np.ndarray, member: np.ndarray, words: tuple) -> pd.DataFrame:
    """One epoch: subset, metric, value, low, high.

    answers (n, classes) confidence vectors, y (n,) labels, member bool (n,). On subset "all": train_acc, test_acc,
    train_loss and test_loss of the target (mean -log of the true class's confidence, at least 1e-4: half precision
    knows little below). On each of SUBSETS: balanced_accuracy and fpr (FAR) of
    the attack, means over classes with their interval; the attack is the network on the confidence vector.
    """
    right = answers.argmax(1) == y
    loss = -np.log(np.maximum(answers[np.arange(len(y)), y].astype(float), 1e-4))
    rows = [
        ("all", f"{side}_{what}", values[chosen].mean(), np.nan, np.nan)
        for side, chosen in (("train", member), ("test", ~member))
        for what, values in (("acc", right), ("loss", loss))
    ]
    scored = known.attack("nn", answers, y, member, words)
    for subset, chosen in zip(SUBSETS, (None, right, ~right), strict=True):
        found = known.over_classes(known.per_class(scored, y, member, chosen)).set_index("metric")
        rows += [
            (subset, metric, *found.loc[metric, ["value", "low", "high"]]) for metric in ("balanced_accuracy", "fpr")
        ]
    return pd.DataFrame(rows, columns=["subset", "metric", "value", "low", "high"])


def stopping(table: pd.DataFrame, profile: str) -> pd.DataFrame:
    """What stopping early would have bought: a row a target and moment, from `by_epoch`'s tables.

    Moments: the last epoch watched before the first drop of the learning rate, the epoch of the best test accuracy
    (chosen on the records the attack is measured on, as an owner with only those would), and the last.
    """
    rows = []
    drops = {", ".join(targets.PRINTED[name]): config.targets(profile)[name].drops for name in watched(profile)}
    for target, part in table.groupby("target", sort=False):
        wide = part.pivot(index="epoch", columns=["metric", "subset"], values="value")
        before = [epoch for epoch in wide.index if drops[target] and epoch <= drops[target][0]]
        moments = {"before the first drop": before[-1]} if before else {}
        moments |= {"best test accuracy": wide["test_acc", "all"].idxmax(), "last epoch": wide.index[-1]}
        for moment, epoch in moments.items():
            row = {"target": target, "moment": moment, "epoch": epoch}
            row |= {name: wide.loc[epoch, (name, "all")] for name in ("train_acc", "test_acc")}
            row |= {
                f"{label}, {subset}": wide.loc[epoch, (metric, subset)]
                for metric, label in (("balanced_accuracy", "bal. acc."), ("fpr", "FAR"))
                for subset in SUBSETS
            }
            rows.append(row)
    return pd.DataFrame(rows).set_index(["target", "moment"])
