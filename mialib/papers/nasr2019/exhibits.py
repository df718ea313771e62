"""What the tables and figures of Nasr, Shokri & Houmansadr 2019 show, of our numbers, beside the published ones."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from mialib.attacks.nasr import Training
from mialib.data.datasets import Dataset
from mialib.papers.nasr2019 import alone, experiments
from mialib.papers.nasr2019.experiments import Size
from mialib.results import published, tables

NAMES = {experiments.DATA: ("Location", "FC"), experiments.IMAGES: ("CIFAR-100", "AlexNet")}  # as the paper has them
PRINTED = ("nasr_table10", "nasr_table12", "nasr_table13")
NETWORK = "another network: fully connected, on features of a fixed AlexNet"
GAINS = (  # what an active attack is said to add (Table X): the attack, and the one that it is held against
    ("global gradient ascent", "global passive"),
    ("global isolating", "global passive"),
    ("global isolating gradient ascent", "global isolating"),
    ("global isolating gradient ascent", "global passive"),
    ("local gradient ascent", "local passive"),
)
METRICS = {"accuracy": "attack_total_acc", "best": "best_epoch_total_acc", "gap": "gap_total_acc"}  # as cells have them


def network(data: Dataset, about: Size) -> str:
    """The target as tables name it: "FC 446-256-128-30", "FC 256-256-100 on AlexNet's features"."""
    inputs = "" if data.name == experiments.DATA else " on AlexNet's features"
    return f"FC {'-'.join(map(str, experiments.network(data, about).sizes))}{inputs}"


def setup(several: Sequence[tuple[Dataset, Size]]) -> pd.DataFrame:
    """Who has how many records here, beside Table XI's: a row a quantity."""
    printed, found = published.points("nasr_table11").pivot(index="what", columns="dataset", values="value"), {}
    for data, about in several:
        drawn = experiments.draw(data, about, 0)
        ours = {"party_train_size": about.party, "party_test_size": len(drawn.test)}
        ours |= {"attack_train_members": about.known, "attack_train_nonmembers": about.known}
        ours |= {"attack_test_members": about.asked, "attack_test_nonmembers": len(drawn.asked)}
        found["ours", f"{NAMES[data.name][0]} (tier {data.tier})"] = pd.Series(ours)
    found |= {("Table XI", name): printed[name] for name in printed}
    return pd.DataFrame(found).reindex(list(ours)).astype(int).rename_axis(columns=[None, None])


def attacks(data: Dataset, about: Size, summary: pd.DataFrame) -> pd.DataFrame:
    """A row an attack: accuracy, also at the best epoch, and the gap attack's; on all asked records, on the targets.

    With ascent on the targets alone: more of the asked non-members than of the asked members are targets, so who was
    one would tell members apart. The paper's number of the same data set stands beside, if there is one.
    """
    names = {"accuracy": "attack", "best": "best epoch", "gap": "gap attack"}
    shown = summary[summary.index.isin(names, level="metric")]
    table = tables.said(shown).unstack(["records", "metric"]).rename(columns=names)
    models = tables.said(summary.xs("models", level="records")).unstack("metric")
    for side in ("train", "test"):
        table["model", side] = models[side]
    ascent = [each.name for each in experiments.settings(about) if each.ascent]
    table.loc[ascent, "asked"] = ""
    table = table.loc[[each.name for each in experiments.settings(about)]]
    if beside := printed(data):
        table["published", "attack"] = [published.short(beside[name]) if name in beside else "" for name in table.index]
    return table


def printed(data: Dataset) -> dict[str, float]:
    """Settings by our names -> accuracies that Tables X, XII and XIII have of this data set, if any."""
    name, model = NAMES[data.name]
    rows = [row for row in pd.concat(map(published.load, PRINTED)).itertuples() if row.dataset == name]
    parts = [(*row.setting.partition(", "), row.published) for row in rows]
    return {setting: value for kind, _, setting, value in parts if kind == model}


def gains(found: pd.DataFrame) -> pd.DataFrame:
    """What an active attack adds on the same targets, seed by seed: value, low, high; the published gains.

    `resolved`: the interval leaves out zero or the least published gain, so it can tell the two apart.
    """
    printed, rows = published.load("nasr_table10"), {}
    printed["attack"] = printed["setting"].str.partition(", ")[2]
    printed = printed.pivot(index=["dataset", "model"], columns="attack", values="published")
    for attack, base in GAINS:
        ours = experiments.over_seeds(found, base).loc[(attack, "targets", "accuracy")].to_dict()
        theirs = (printed[attack] - printed[base]).round(3)
        about = {"published, least": theirs.min(), "published, most": theirs.max()}
        about["resolved"] = bool(ours["low"] > 0 or ours["high"] < theirs.min())
        rows[f"{attack} against {base}"] = ours | about
    return pd.DataFrame(rows).T.convert_dtypes()


def norms(summary: pd.DataFrame, setting: str) -> pd.DataFrame:
    """Mean norm of the last layer's gradient (Fig 7): round, then a column a kind of record, by the paper's names."""
    names = {("targets", "member"): "target members", ("untouched", "member"): "non-target members"}
    names |= {("targets", "non-member"): "target non-members", ("untouched", "non-member"): "non-target non-members"}
    rows = {}
    for (records, metric), value in summary.loc[setting, "value"].items():
        if metric.startswith("norm "):
            side, number = metric.removeprefix("norm ").split("@")
            rows.setdefault(int(number), {})[names[records, side]] = value
    return pd.DataFrame(rows).T.sort_index().rename_axis("round")


def panels(several: Sequence[tuple[Dataset, Size, pd.DataFrame]]) -> pd.DataFrame:
    """Rows for `plots.dots`, a panel a data set: Table X's attacks on the targets, the others on all asked records."""
    parts = []
    for data, about, summary in several:
        names = [each.name for each in experiments.settings(about)]
        own = [(name, "targets" if table_of(name) == PRINTED[0] else "asked") for name in names]
        part = pd.DataFrame([summary.loc[(*each, "accuracy")] for each in own]).reset_index(drop=True)
        part["gap"] = [summary.loc[(*each, "gap"), "value"] for each in own]
        part["published"] = [printed(data).get(name, float("nan")) for name in names]
        labels = [name.replace("gradient ascent", "ascent") for name in names]
        parts.append(part.assign(label=labels, panel=NAMES[data.name][0], tier=data.tier))
    return pd.concat(parts, ignore_index=True)


def why_not(data: Dataset, about: Size, summary: pd.DataFrame, profile: str) -> str:
    """Why no attack on CIFAR-100 can be held against the paper; "" on data that it does not attack.

    The accuracies that it prints are of a stand-alone AlexNet; beside them stand those of the mean of all parties.
    """
    if data.name == experiments.DATA:
        return ""
    if profile == "demo":
        return "demo profile"
    ours, theirs = summary.loc[("local passive", "models")].loc[["train", "test"], "value"], alone.printed_point()
    smaller = (about.kernels, about.epochs) != (Training.kernels, Training.epochs)
    off = published.off_point([*ours], theirs, alone.NEAR)
    reasons = [NETWORK, off, "a smaller attack network, fewer steps" if smaller else ""]
    return "; ".join(filter(None, reasons))


def cells(data: Dataset, about: Size, summary: pd.DataFrame, table: str, profile: str) -> list[dict[str, Any]]:
    """Our results of one of Tables X, XII, XIII as `published.compare` takes them.

    An attack without a variant is on the records that it is measured on here: with ascent the targets, else all asked.
    """
    off = why_not(data, about, summary, profile)
    names = [each.name for each in experiments.settings(about) if table_of(each.name) == table]
    shown = pd.concat([summary.loc[[name]] for name in names]).reset_index()
    models, shown = shown[shown["records"] == "models"], shown[shown["metric"].isin(METRICS)]
    found = []
    for row in shown.itertuples():
        result = _cell(data, about, row.setting, METRICS[row.metric], row)
        result["not_comparable"] = off if row.metric == "accuracy" else ""
        if "ascent" not in row.setting:
            found.append(result | {"variant": "" if row.records == "asked" else "the targets alone"})
        elif row.records == "targets":
            found.append(result)
    for name, ours in _again(data, about, table).items():
        row = summary.loc[(ours, "asked", "accuracy")]
        found.append(_cell(data, about, name, METRICS["accuracy"], row) | {"not_comparable": off})
    return found + [_cell(data, about, row.setting, f"target_{row.metric}_acc", row) for row in models.itertuples()]


def _again(data: Dataset, about: Size, table: str) -> dict[str, str]:
    """Attacks of Table X that the paper has in another table too: as they are called there -> as they are here."""
    late = f"global passive, rounds {' '.join(map(str, about.observed))}"
    four = f"local passive, {experiments.PARTICIPANTS} parties"
    again = {PRINTED[1]: {late: "global passive"}, PRINTED[2]: {four: "local passive"}}
    return again.get(table, {}) if data.name == experiments.IMAGES else {}


def _cell(data: Dataset, about: Size, setting: str, metric: str, row: Any) -> dict[str, Any]:
    """A result of ours; row has value, low, high over the seeds."""
    name, model = NAMES[data.name]
    return {
        "dataset": name,
        "model": network(data, about),
        "setting": f"{model}, {setting}",
        "metric": metric,
        "value": row.value,
        "low": row.low,
        "high": row.high,
        "tier": data.tier,
        "note": f"{about.seeds} seeds",
    }


def table_of(setting: str) -> str:
    """The published table that a setting belongs to."""
    return f"nasr_table{12 if ', rounds' in setting else 13 if ' parties' in setting else 10}"


def gain_cells(data: Dataset, about: Size, table: pd.DataFrame) -> list[dict[str, Any]]:
    """`gains` as results for `published.compare`."""
    return [_cell(data, about, row.Index, "gain_total_acc", row) for row in table.itertuples()]
