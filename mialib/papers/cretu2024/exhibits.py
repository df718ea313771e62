"""What the notebook on Crețu et al. 2024 shows: each attack's numbers, what re-alignment brings, the published ones."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from mialib.attacks import alignment
from mialib.data.datasets import Dataset
from mialib.papers.cretu2024 import experiments
from mialib.papers.cretu2024.experiments import (
    GAP,
    GRADIENTS,
    INDEPENDENT,
    METRICS,
    OF_THE_LOSS,
    OUTPUTS,
    OWN,
    REALIGNED,
    SAME,
    Networks,
    Size,
)
from mialib.results import published

TABLE = "cretu_realignment"
NEAR = 0.02  # of the printed target accuracies, and of the AUC with half as much known
BOTTOM_UP, TOP_DOWN = REALIGNED
PANELS = {OUTPUTS: "outputs", GRADIENTS: "gradients\nas released", OF_THE_LOSS: "gradients\nof the loss"}
GAINS = (  # attackers and kinds of features, held against others on the same asked records
    ((INDEPENDENT, GRADIENTS), (INDEPENDENT, OUTPUTS)),
    ((TOP_DOWN, GRADIENTS), (INDEPENDENT, GRADIENTS)),
    ((BOTTOM_UP, GRADIENTS), (INDEPENDENT, GRADIENTS)),
    ((SAME, GRADIENTS), (INDEPENDENT, GRADIENTS)),
    ((OWN, GRADIENTS), (TOP_DOWN, GRADIENTS)),
    ((TOP_DOWN, GRADIENTS), (INDEPENDENT, OUTPUTS)),
    ((TOP_DOWN, OF_THE_LOSS), (INDEPENDENT, OF_THE_LOSS)),
)


def learnt(networks: Networks, data: Dataset) -> pd.DataFrame:
    """Train and test accuracy of every network: a row each."""
    groups = {"target": (networks.targets, [networks.target] * len(networks.targets))}
    groups |= {name: (nets, networks.sides) for name, nets in networks.shadows.items()}
    rows = [
        {"networks": name, "number": i} | experiments.accuracies(net, data, split)
        for name, (nets, splits) in groups.items()
        for i, (net, split) in enumerate(zip(nets, splits, strict=True))
    ]
    table = pd.DataFrame(rows).set_index(["networks", "number"])
    table.attrs["records"] = len(networks.target.members)
    return table


def distances(networks: Networks) -> pd.DataFrame:
    """Mean L2 distance of the weights that enter a unit to those of the target's in its place, by layer.

    Means over shadows; the first target.
    """
    target, rows = networks.targets[0], dict(networks.shadows)
    for name, way in REALIGNED.items():
        rows[name] = [alignment.align(net, target, way) for net in networks.shadows[INDEPENDENT]]
    layers = [name for name, layer in target.named_children() if hasattr(layer, "weight")]
    found = {name: np.mean([alignment.apart(net, target) for net in nets], axis=0) for name, nets in rows.items()}
    return pd.DataFrame(found, index=layers).T


def measured(answers: Mapping[tuple[str, str, str], np.ndarray], about: Size, seed: int) -> pd.DataFrame:
    """A row an attacker, kind of features and metric: value, low, high, each target's value, `half`.

    The value is the mean over the targets, with a 95 % bootstrap interval over the asked records; half: the AUC's mean
    where the attacker knows half as much, nan where that was not asked.
    """
    member, rows = np.arange(2 * about.asked) % 2 == 0, []
    for (attacker, kind, part), scores in answers.items():
        if part:
            continue
        for metric, function in METRICS.items():
            low, high = np.quantile(experiments.resampled(scores, metric, about.repeats, seed), [0.025, 0.975])
            row = {"attacker": attacker, "features": kind, "metric": metric, "value": function(scores, member)}
            row |= {"low": low, "high": high, "half": np.nan}
            if metric == "auc" and (attacker, kind, "half") in answers:
                row["half"] = function(answers[attacker, kind, "half"], member)
            row |= {f"target {i}": function(each[None], member) for i, each in enumerate(scores)}
            rows.append(row)
    return pd.DataFrame(rows)


def gains(answers: Mapping[tuple[str, str, str], np.ndarray], about: Size, seed: int) -> pd.DataFrame:
    """What one attack's AUC is above another's on the same asked records: value, low, high (paired bootstrap, 95 %)."""
    member, rows = np.arange(2 * about.asked) % 2 == 0, {}
    drawn = {
        key[:2]: experiments.resampled(scores, "auc", about.repeats, seed)
        for key, scores in answers.items()
        if not key[2]
    }
    for one, other in GAINS:
        value = np.subtract(*(METRICS["auc"](answers[*each, ""], member) for each in (one, other)))
        low, high = np.quantile(drawn[one] - drawn[other], [0.025, 0.975])
        names = [f"{kind}, {attacker}" for attacker, kind in (one, other)]
        rows[" against ".join(names)] = {"value": value, "low": low, "high": high}
    table = pd.DataFrame(rows).T
    return table.assign(**{"leaves zero": (table["low"] > 0) | (table["high"] < 0)})


def operating(table: pd.DataFrame) -> str:
    """Why attacks cannot be held against the printed ones, "" where the targets' mean accuracies are near; `learnt`."""
    printed = published.load(TABLE).set_index(["setting", "metric"])["published"]["target"]
    ours, theirs = table.loc["target", ["train", "test"]].mean(), printed[["target_train_acc", "target_test_acc"]]
    if (np.abs(ours.to_numpy() - theirs.to_numpy()).round(9) <= NEAR).all():
        return ""
    said = map(published.short, (*ours, *theirs))
    return "train and test accuracy {} and {}, printed {} and {}".format(*said)


def compare(
    table: pd.DataFrame, accuracies: pd.DataFrame, added: pd.DataFrame, data: Dataset, profile: str
) -> list[dict]:
    """Ours (`measured`, `learnt`, `gains`) beside the published numbers: what `published.compare` gives."""
    point = operating(accuracies)
    base = {"dataset": "CIFAR-10", "model": "CNN 20-50-500", "tier": data.tier}
    ours = []
    halves = table[table["metric"] == "auc"].set_index(["attacker", "features"])
    for row in table.itertuples():
        whole, half = halves.loc[(row.attacker, row.features), ["value", "half"]]
        about = base | {"value": row.value, "low": row.low, "high": row.high, "metric": f"attack_{row.metric}"}
        kind, reasons = row.features, [point]
        if row.attacker == GAP:  # has no printed number
            ours.append(about | {"setting": GAP})
            continue
        if kind == OF_THE_LOSS:  # stands beside the printed number of the released code's gradients
            kind, about["variant"] = GRADIENTS, OF_THE_LOSS
            reasons.append("another quantity: gradients of the loss")
        elif np.isnan(half):
            reasons.append("whether fewer shadows will do was not asked")
        elif round(abs(whole - half), 9) > NEAR:
            reasons.append(f"with half as much known the AUC is {published.short(half)}")
        about |= {"setting": f"{kind}, {row.attacker}", "not_comparable": "; ".join(filter(None, reasons))}
        ours.append(about)
    for side in ("train", "test"):
        values = accuracies.loc["target", side]
        about = {"setting": "target", "metric": f"target_{side}_acc", "value": values.mean()}
        ours.append(base | about | _interval(accuracies.attrs["records"], values))
    for name, row in added[["value", "low", "high"]].iterrows():
        ours.append(base | row.to_dict() | {"setting": name, "metric": "gain_auc"})
    if profile == "demo":
        ours = [each | {"not_comparable": "demo profile"} for each in ours]
    return published.compare(ours, TABLE)


def _interval(records: int, values: pd.Series) -> dict[str, float]:
    """Wilson's of the mean share, as if of one target: the targets' records are the same."""
    low, high = stats.binomtest(round(values.mean() * records), records).proportion_ci(method="wilson")
    return {"low": low, "high": high}


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """`measured` as it is read: a row an attacker and kind, "value (low to high)" a metric, and each target's AUC."""
    ends = table[["value", "low", "high"]].to_numpy()
    said = table.assign(said=["{} ({} to {})".format(*map(published.short, three)) for three in ends])
    index = ["features", "attacker"]
    shown = said.pivot(index=index, columns="metric", values="said").rename(columns={"auc": "AUC", "acc": "accuracy"})
    aucs = table[table["metric"] == "auc"].set_index(index)
    targets = [name for name in table if name.startswith("target ")]
    shown = shown[["AUC", "accuracy"]].join(aucs[[*targets, "half"]].rename(columns={"half": "AUC, half known"}))
    order = table[index].drop_duplicates().sort_values("features", key=_place, kind="stable")
    return shown.loc[list(order.itertuples(index=False, name=None))].rename_axis(columns=None)


def _place(kinds: pd.Series) -> pd.Series:
    return kinds.map(experiments.KINDS.index)


def panels(table: pd.DataFrame, accuracies: pd.DataFrame, tier: str) -> pd.DataFrame:
    """Rows for `plots.dots`: AUC of each attacker (rows), a panel a kind of features, the gap attack's in each.

    A star where the targets are off the printed accuracies. Nothing is printed for the gradients of the loss.
    """
    whole = table[table["metric"] == "auc"].sort_values("features", key=_place, kind="stable")
    here = whole[whole["attacker"] != GAP].reset_index(drop=True)
    printed = published.load(TABLE).set_index(["setting", "metric"])[["published", "std"]]
    keys = [(f"{kind}, {who}", "attack_auc") for kind, who in zip(here["features"], here["attacker"], strict=True)]
    theirs = printed.reindex(pd.MultiIndex.from_tuples(keys)).reset_index(drop=True)
    [gap], star = whole.loc[whole["attacker"] == GAP, "value"], "*" if operating(accuracies) else ""
    return here.join(theirs).assign(
        label=here["attacker"], panel=here["features"].map(PANELS) + star, gap=gap, tier=tier
    )
