"""The published tables load as printed, and no cell gets a verdict it has not earned."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mialib import config, published

RERUN = "Shokri et al. (csong27 code, 10 shadows, re-run by ML-Leaks)"


def result(value=0.7, metric="attack_precision", **more):
    """A result on Location, which Table II prints at .678."""
    base = {"dataset": "Location", "setting": "all", "metric": metric, "value": value, "tier": "R"}
    return base | {"low": 0.4, "high": 0.9} | more


def cell(*args, **more):
    cells = published.compare([result(*args, **more)], "shokri_table2")
    return next(c for c in cells if c["dataset"] == "Location" and c["metric"] == "attack_precision")


@pytest.mark.parametrize(
    ("name", "rows", "dataset", "setting", "metric", "value"),
    [
        ("shokri_table2", 27, "Purchase-100", "all", "attack_precision", 0.935),
        ("shokri_table3", 92, "Texas-100", "Temperature t=20", "attack_recall", 0.76),
        ("mlleaks_fig1_adversary1_vs_shokri", 48, "Location", RERUN, "attack_precision", 0.88),
    ],
)
def test_load_gives_the_printed_numbers(name, rows, dataset, setting, metric, value):
    table = published.load(name)
    columns = ["dataset", "model", "setting", "metric", "published", "tolerance", "source"]
    assert list(table.columns) == columns
    assert len(table) == rows
    match = table[(table.dataset == dataset) & (table.setting == setting) & (table.metric == metric)]
    assert match["published"].tolist() == [value]
    assert table["published"].between(0, 1).all()
    assert (table["tolerance"] == 0.05).all()
    assert not (table[["model", "source"]] == "").any(axis=None)


def test_every_row_of_table_3_is_consistent_with_equal_numbers_of_members_and_non_members():
    rates = published.load("shokri_table3").pivot(index=["dataset", "setting"], columns="metric", values="published")
    precision, recall = rates["attack_precision"], rates["attack_recall"]
    fpr = recall * (1 - precision) / precision
    assert len(rates) == 23
    assert ((recall + 1 - fpr) / 2 - rates["attack_total_acc"]).abs().max() < 0.0101


def test_unknown_table_lists_the_valid_ones():
    with pytest.raises(ValueError, match=r"'table9'.*shokri_table2, shokri_table3, mlleaks"):
        published.load("table9")


HEADER = "dataset,model,subset,metric,value,std,tolerance,source"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dataset,model,subset,metric,value\nA,m,all,x,.5", "lacks the columns tolerance, source"),
        (f"{HEADER}\nA,m,all,x,.5,,.05,s\nB,m,all,x,O.5,,.05,s", "line 3: published is 'O.5'"),
        (f"{HEADER}\nA,m,all,x,,,.05,s", "line 2: published is ''"),
        (f"{HEADER}\nA,m,all,x,nan,,.05,s", "line 2: published is 'nan'"),
        (f"{HEADER}\nA,m,all,x,inf,,.05,s", "line 2: published is 'inf'"),
        (f"{HEADER}\nA,m,all,x,.5,,-1,s", "line 2: tolerance is '-1'"),
        (f"{HEADER}\nA,m,all,x,.5,,.05,s\nA,n,all,x,.6,,.05,s", "line 3: .* came before"),
    ],
)
def test_malformed_files_are_refused(tmp_path, monkeypatch, text, message):
    monkeypatch.setattr(config, "ROOT", tmp_path)
    folder = tmp_path / "data" / "published"
    folder.mkdir(parents=True)
    (folder / "shokri_table2.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        published.load("shokri_table2")


def test_no_results_leaves_every_published_number_standing():
    cells = published.compare([], "shokri_table3")
    assert [c["published"] for c in cells] == published.load("shokri_table3")["published"].tolist()
    assert {c["note"] for c in cells} == {"not computed in this run"}
    assert published.counts(cells) == {"reproduced": 0, "differs": 0, "not comparable": 92}


@given(st.floats(0, 1))
def test_verdict_follows_the_tolerance(value):
    found = cell(value)
    assert found["verdict"] == ("reproduced" if abs(value - 0.678) <= 0.05 + 5e-10 else "differs")
    assert found["note"] == "tolerance 0.05"


@pytest.mark.parametrize(("value", "verdict"), [(0.728, "reproduced"), (0.628, "reproduced"), (0.7281, "differs")])
def test_the_tolerance_itself_is_inside(value, verdict):
    assert abs(0.628 - 0.678) > 0.05  # in binary fractions
    assert cell(value)["verdict"] == verdict


@pytest.mark.parametrize(
    ("more", "note"),
    [
        ({"tier": "M"}, "simulated data"),
        ({"not_comparable": "demo profile"}, "demo profile"),
        (
            {"tier": "M", "not_comparable": "demo profile", "note": "3 targets"},
            "simulated data; demo profile; 3 targets",
        ),
        ({"value": math.nan}, "undefined value"),
        ({"value": None, "low": None, "high": None}, "undefined value"),
    ],
)
def test_what_cannot_be_compared_gets_no_verdict(more, note):
    assert cell(0.678)["verdict"] == "reproduced"
    found = cell(**{"value": 0.678} | more)
    assert (found["verdict"], found["note"]) == ("not comparable", note)


def test_a_cell_says_what_was_run():
    found = cell(np.float32(0.7), model="MLP 128", tier="S", note="5 targets")
    assert tuple(found) == published.CELL
    assert found["model"] == "MLP 128"
    assert found["tier"] == "S"
    assert found["published"] == 0.678
    assert found["note"] == "tolerance 0.05; published for Google Prediction API; 5 targets"
    assert cell()["model"] == "Google Prediction API"
    json.dumps(found, allow_nan=False)


def test_ours_without_a_published_number_is_kept():
    cells = published.compare([result(0.9, metric="auc")], "shokri_table2")
    assert len(cells) == 28
    assert cells[-1] == {
        "dataset": "Location",
        "model": "",
        "setting": "all",
        "metric": "auc",
        "published": None,
        "value": 0.9,
        "low": 0.4,
        "high": 0.9,
        "tier": "R",
        "verdict": "not comparable",
        "note": "no published number",
    }


def test_variants_share_one_published_number():
    ours = [result(0.68, variant="1,200 records"), result(0.9, variant="1,600 records")]
    cells = [c for c in published.compare(ours, "shokri_table2") if c["value"] is not None]
    assert [c["setting"] for c in cells] == ["all, 1,200 records", "all, 1,600 records"]
    assert [c["published"] for c in cells] == [0.678, 0.678]
    assert [c["verdict"] for c in cells] == ["reproduced", "differs"]


@pytest.mark.parametrize(
    ("ours", "message"),
    [
        ([result(), result()], "two results for Location, all, attack_precision"),
        ([result(metric="auc", variant="a"), result(metric="auc", variant="a")], "two results for .* a"),
        ([result(tier="X")], "unknown tier 'X'; valid tiers: R, S, M"),
        ([result(published=0.5)], "unknown keys published"),
        ([{"dataset": "Location", "tier": "R"}], "lacks setting, metric, value, low, high"),
    ],
)
def test_bad_results_are_refused(ours, message):
    with pytest.raises(ValueError, match=message):
        published.compare(ours, "shokri_table2")


def test_scorecard_and_counts():
    cells = published.compare([result(0.68), result(0.5, metric="target_test_acc")], "shokri_table2")
    table = published.scorecard(cells)
    assert list(table.columns) == [
        "dataset", "setting", "metric", "published", "ours", "low", "high", "tier", "verdict"
    ]  # fmt: skip
    assert len(table) == 27
    assert table["ours"].dropna().tolist() == [0.5, 0.68]
    assert published.counts(cells) == {"reproduced": 1, "differs": 1, "not comparable": 25}
    assert published.scorecard([]).empty


def test_a_published_number_near_chance_is_pointed_out():
    adult = published.compare([result(0.502) | {"dataset": "Adult"}], "shokri_table2")
    note = next(c["note"] for c in adult if c["dataset"] == "Adult" and c["metric"] == "attack_precision")
    assert "chance (0.5) is within the tolerance too" in note
    assert "chance" not in cell(0.68)["note"]


def test_side_by_side_keeps_order_and_says_what_is_simulated():
    simulated = [result(0.7), result(0.9, dataset="Purchase-2", tier="M")]
    table = published.side_by_side(published.compare(simulated, "shokri_table2"))
    assert table.index[0] == ("Adult", "-", "all") and ("Purchase-2", "simulated", "all") in table.index
    assert table.loc[("Location", "real", "all"), ("attack_precision", "ours")] == 0.7
    assert table.loc[("Location", "real", "all"), ("attack_precision", "published")] == 0.678


def test_gap_precision_is_the_derived_table():
    derived = pd.read_csv(config.ROOT / "data" / "published" / "shokri_table2_gap_baseline_DERIVED.csv")
    ours = published.gap_precision("shokri_table2")
    for row in derived.to_dict("records"):
        assert ours[row["dataset"]] == pytest.approx(row["gap_attack_precision(DERIVED)"], abs=5.1e-4)
