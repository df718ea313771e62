"""What the tables and figures of Nasr, Shokri & Houmansadr 2019 show, of our numbers, beside the published ones."""

from typing import Any

import pandas as pd

from mialib.data.datasets import Dataset
from mialib.papers.nasr2019 import experiments
from mialib.papers.nasr2019.experiments import Size
from mialib.results import published

GAINS = (  # what an active attack is said to add (Table X): the attack, and the one that it is held against
    ("global gradient ascent", "global passive"),
    ("global isolating", "global passive"),
    ("global isolating gradient ascent", "global isolating"),
    ("global isolating gradient ascent", "global passive"),
    ("local gradient ascent", "local passive"),
)
METRICS = {"accuracy": "attack_total_acc", "best": "best_epoch_total_acc", "gap": "gap_total_acc"}  # as cells have them


def network(data: Dataset, about: Size) -> str:
    """The target as tables name it: "FC 446-256-128-30"."""
    return "FC " + "-".join(map(str, experiments.network(data, about).sizes))


def setup(data: Dataset, about: Size) -> pd.DataFrame:
    """Who has how many records here, beside Table XI's: a row a quantity."""
    drawn = experiments.draw(data, about, 0)
    ours = {"party_train_size": about.party, "party_test_size": len(drawn.test)}
    ours |= {"attack_train_members": about.known, "attack_train_nonmembers": about.known}
    ours |= {"attack_test_members": about.asked, "attack_test_nonmembers": len(drawn.asked)}
    printed = published.points("nasr_table11").pivot(index="what", columns="dataset", values="value")
    table = printed.reindex(list(ours)).astype(int)
    table.insert(0, f"Location (tier {data.tier})", list(ours.values()))
    return table.rename_axis(None)


def said(found: pd.DataFrame) -> pd.Series:
    """Columns value, low, high in words: ".734 (.721 to .747)"."""
    parts = [[published.short(number) for number in row] for row in found[["value", "low", "high"]].to_numpy()]
    return pd.Series([f"{value} ({low} to {high})" for value, low, high in parts], found.index, dtype=object)


def attacks(summary: pd.DataFrame, about: Size) -> pd.DataFrame:
    """A row an attack: accuracy, also at the best epoch, and the gap attack's; on all asked records, on the targets.

    With ascent on the targets alone: they are half of the asked non-members and a quarter of the asked members, so who
    was a target would tell members apart.
    """
    names = {"accuracy": "attack", "best": "best epoch", "gap": "gap attack"}
    shown = summary[summary.index.isin(names, level="metric")]
    table = said(shown).unstack(["records", "metric"]).rename(columns=names)
    models = said(summary.xs("models", level="records")).unstack("metric")
    for side in ("train", "test"):
        table["model", side] = models[side]
    ascent = [each.name for each in experiments.settings(about) if each.ascent]
    table.loc[ascent, "asked"] = ""
    return table.loc[[each.name for each in experiments.settings(about)]]


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


def cells(data: Dataset, about: Size, summary: pd.DataFrame, table: str) -> list[dict[str, Any]]:
    """Our results of one of Tables X, XII, XIII as `published.compare` takes them; none of them is in the paper.

    An attack without a variant is on the records that it is measured on here: with ascent the targets, else all asked.
    """
    names = [each.name for each in experiments.settings(about) if table_of(each.name) == table]
    shown = pd.concat([summary.loc[[name]] for name in names]).reset_index()
    models, shown = shown[shown["records"] == "models"], shown[shown["metric"].isin(METRICS)]
    found = []
    for row in shown.itertuples():
        if "ascent" not in row.setting:
            variant = "" if row.records == "asked" else "the targets alone"
            found.append(_cell(data, about, row.setting, METRICS[row.metric], row) | {"variant": variant})
        elif row.records == "targets":
            found.append(_cell(data, about, row.setting, METRICS[row.metric], row))
    return found + [_cell(data, about, row.setting, f"target_{row.metric}_acc", row) for row in models.itertuples()]


def _cell(data: Dataset, about: Size, setting: str, metric: str, row: Any) -> dict[str, Any]:
    """A result on Location; row has value, low, high over the seeds."""
    return {
        "dataset": "Location",
        "model": network(data, about),
        "setting": f"FC, {setting}",
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
