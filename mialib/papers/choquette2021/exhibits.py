"""What Tables 2 and 3 and Fig 1 of Choquette-Choo et al. 2021 show, of our numbers, beside the published ones."""

from collections.abc import Iterable

import pandas as pd

from mialib.attacks import Attacked
from mialib.papers.choquette2021.experiments import NAMES, UNDEFENDED, VECTORS, Hops, Row
from mialib.results import published, tables

NEAR = 0.02  # of the printed target accuracies, both: the operating point
TITLES = {  # our attacks -> what they are called
    "gap": "gap attack",
    "rotations": "rotations",
    "translations": "translations",
    "both": "rotations and translations",
    "noise": "noise",
    "hops": "boundary distance",
    "distance": "boundary distance with gradients",
    VECTORS: VECTORS,
}
QUERIES = 2500  # of HopSkipJump, in the paper
CHOSEN = "the target was chosen by its two accuracies, from which the gap attack's follows"
TARGET = {"train_acc": "target_train_acc", "test_acc": "target_test_acc"}


def measured(attacked: Iterable[Attacked]) -> pd.DataFrame:
    """`tables.summary` of all; a target's accuracies once a setting. Column records: how many of a side were asked."""
    found = [tables.summary(each).assign(records=min(int(s.member.sum()) for s in each.records)) for each in attacked]
    return pd.concat(found).drop_duplicates(["dataset", "size", "setting", "attack", "metric"]).reset_index(drop=True)


def overview(rows: Iterable[Row], table: pd.DataFrame) -> pd.DataFrame:
    """A line a data set and size: tier, targets, epochs, the noise that the shadow chose, mean target accuracies.

    distances: members, and as many non-members, whose distance to the boundary is measured.
    """
    found, plain = [], table[(table["attack"] == "target") & (table["setting"] == UNDEFENDED)]
    for row, (_, here) in zip(rows, plain.groupby(["dataset", "size"], sort=False), strict=True):
        first = here.iloc[0]
        about = {"data": first["dataset"], "tier": first["tier"], "points": first["size"], "targets": row.targets}
        about |= {"epochs": row.epochs, "flip": first["flip"], "sigma": first["sigma"], "copies": row.copies}
        about |= {"distances": row.distances}
        found.append(about | here.set_index("metric")["value"].to_dict())
    return pd.DataFrame(found)


def accuracies(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracy, "value (low to high)", of every attack and defence: a row a data set, size and attack."""
    return _said(table[table["metric"] == "accuracy"], "setting")


def few_alarms(table: pd.DataFrame) -> pd.DataFrame:
    """AUC and TPR at a false-positive rate of at most 1 %, undefended, as `accuracies` shows its numbers."""
    names = {"auc": "AUC", "tpr_at_1": "TPR at FPR up to 1 %"}
    here = table[table["metric"].isin(names) & (table["setting"] == UNDEFENDED)]
    return _said(here.assign(metric=here["metric"].map(names)), "metric")


def _said(here: pd.DataFrame, columns: str) -> pd.DataFrame:
    ends = here[["value", "low", "high"]].to_numpy()
    said = ["{} ({} to {})".format(*map(published.short, three)) for three in ends]
    index = ["dataset", "size", "attack"]
    here = here.assign(said=said, attack=here["attack"].map(TITLES))
    shown = here.pivot(index=index, columns=columns, values="said")
    order = list(dict.fromkeys(here[index].itertuples(index=False, name=None)))
    return shown.loc[order, list(dict.fromkeys(here[columns]))].fillna("").rename_axis(columns=None)


def compare(table: pd.DataFrame, profile: str, hops: Iterable[Hops] = ()) -> list[dict]:
    """Cells: ours undefended beside the published accuracies, then ours under every defence.

    None is comparable in `demo`, or off the operating point: see `operating`. hops: how HopSkipJump was run, whose
    numbers are not with fewer labels than the paper's.
    """
    ours = []
    asked = {("hops", NAMES[how.dataset], how.size): how.queries for how in hops}
    for row in table[table["metric"].isin(["accuracy", *TARGET])].itertuples():
        if row.attack == "target" and row.setting != UNDEFENDED:
            continue
        name = f"{row.size:,} points, {TITLES.get(row.attack, row.attack)}"
        about = {"dataset": row.dataset, "value": row.value, "low": row.low, "high": row.high, "tier": row.tier}
        about |= {"setting": name if row.setting == UNDEFENDED else f"{name}, {row.setting}", "records": row.records}
        off = "" if row.attack == "target" else operating(table, row.dataset, row.size)
        if not off and (queries := asked.get((row.attack, row.dataset, row.size), QUERIES)) < QUERIES:
            off = f"{queries:,} labels a record in place of {QUERIES:,}"
        about["not_comparable"] = "demo profile" if profile == "demo" else off
        about["note"] = (
            CHOSEN if row.attack in ("gap", "target") and not operating(table, row.dataset, row.size) else ""
        )
        ours.append(about | {"metric": TARGET.get(row.metric, "attack_acc")})
    return published.compare(ours, "choquette_labels")


def operating(table: pd.DataFrame, dataset: str, size: int) -> str:
    """Why attacks on a target cannot be held against the paper's, "" where its two accuracies are within NEAR."""
    printed = published.load("choquette_labels")
    there = (printed["dataset"] == dataset) & (printed["setting"] == f"{size:,} points, target")
    printed = printed[there].set_index("metric")["published"]
    if printed.empty:
        return "the paper prints no accuracy of this target"
    here = table[(table["dataset"] == dataset) & (table["size"] == size) & (table["setting"] == UNDEFENDED)]
    mine = here[here["attack"] == "target"].set_index("metric")["value"]
    if all(round(abs(mine[ours] - printed[theirs]), 9) <= NEAR for ours, theirs in TARGET.items()):
        return ""
    said = [published.short(number) for number in (*mine[list(TARGET)], *printed[list(TARGET.values())])]
    return "train and test accuracy {} and {}, printed {} and {}".format(*said)


def attacks(table: pd.DataFrame) -> pd.DataFrame:
    """Rows for `plots.dots`: accuracy of each attack, undefended (rows), on each data set and size (panels)."""
    here = table[(table["metric"] == "accuracy") & (table["setting"] == UNDEFENDED)]
    printed = published.load("choquette_labels").set_index(["dataset", "setting"])["published"]
    label = here["attack"].map(TITLES)
    keys = here["dataset"], here["size"].map("{:,} points, ".format) + label
    label = label.str.replace(" with ", ",\n")  # six panels leave little room
    shown = [printed.get(key) for key in zip(*keys, strict=True)]
    return here.assign(label=label, panel=_panel(here), published=shown)


def defended(table: pd.DataFrame) -> pd.DataFrame:
    """Rows for `plots.dots`: what defences leave to the attack on vectors, and two attacks on labels alone beside it.

    Of each data set the largest targets. Only rounding changes labels, so no other defence of them is drawn.
    """
    here = table[(table["metric"] == "accuracy") & table["attack"].isin((VECTORS, "noise", "gap"))]
    here = here[here["size"] == here.groupby("dataset")["size"].transform("max")]
    here = here[(here["attack"] == VECTORS) | here["setting"].isin(("label only", "rounded to 1 digit"))]
    order = here["attack"].map([VECTORS, "noise", "gap"].index)
    here = here.iloc[order.argsort(kind="stable")]
    label = here["attack"].replace({VECTORS: "vectors"}) + ": " + here["setting"]
    return here.assign(label=label, panel=_panel(here))


def _panel(table: pd.DataFrame) -> pd.Series:
    return table["dataset"] + table["size"].map("\n{:,} points".format)
