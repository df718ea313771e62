"""Effects in the ledger are computed, and a switch is shown only where both of its sides are."""

import csv
import itertools

import pytest

from mialib import config
from mialib.results import ledger, published

SWAPPED, CORRECTED = "labels swapped, as released", "corrected"


def cell(setting, value, metric="grad_w_attack_far", dataset="CIFAR-10", printed=0.2):
    empty = {"model": "m", "low": None, "high": None, "tier": "R", "verdict": "differs", "note": ""}
    return empty | {
        "dataset": dataset, "setting": setting, "metric": metric, "published": printed, "value": value
    }  # fmt: skip


def record(*cells, notebook="18_rezaei_table7_gradients"):
    return {"notebook": notebook, "cells": list(cells)}


def test_every_point_has_a_claim_evidence_and_an_effect():
    table = ledger.table([])
    assert not (table == "").any(axis=None)
    assert table[["claim", "evidence"]].map(len).max(axis=None) < 200  # report.style shows no more
    assert set(table.index) >= {"11", "12", "14", "15", "16", "17", "18"}
    rows = ledger.points()
    for row in rows[rows.table != ""].itertuples():
        assert published.implied(row.table)["metric"].str.fullmatch(row.metric).any()
    assert table[rows["as_released"].to_numpy() != ""].effect.str.contains("not computed in this profile").all()


def test_a_switch_shows_both_sides():
    cells = [
        cell(f"ResNet, correct, {SWAPPED}", 0.25),
        cell(f"ResNet, correct, {CORRECTED}", 0.75),
        cell(f"AlexNet, correct, {SWAPPED}", 0.35, printed=0.4),
        cell(f"AlexNet, correct, {CORRECTED}", 0.45, printed=0.4),
        cell(f"LeNet, correct, {SWAPPED}", 0.9),  # no other side
        cell(f"DenseNet, correct, {SWAPPED}", None),
        cell(f"DenseNet, correct, {CORRECTED}", 0.1),
        cell(f"ResNet, correct, {SWAPPED}", 0.3, metric="grad_w_attack_balanced_acc"),
    ]
    table = ledger.pairs(cells, "grad_[wx]_attack_far", "", SWAPPED, CORRECTED)
    assert table[["as_released", "otherwise"]].to_numpy().tolist() == [[0.25, 0.75], [0.35, 0.45]]
    assert len(ledger.pairs(cells, "grad_[wx]_attack_far", "AlexNet", SWAPPED, CORRECTED)) == 1
    effect = ledger.table([record(*cells)], "18").effect.iloc[0]
    assert f"ours, median of 2: .300 ({SWAPPED}), .600 ({CORRECTED}); printed .300; largest change .500" in effect
    assert ".133 for .780 (CIFAR-10, DenseNet, correct, grad_x_attack_far)" in effect
    elsewhere = ledger.table([record(*cells, notebook="17_x")], "18").effect.iloc[0]
    assert elsewhere.endswith("ours: not computed in this profile")


def test_printed_numbers_that_agree_and_that_do_not():
    effect = ledger.table([]).effect
    assert effect["11"] == "all 3 printed numbers agree"
    assert ".720 for .586 (CIFAR-100, DenseNet, all, naive_attack_balanced_acc)" in " ".join(effect[["14"]])
    naive = published.implied("rezaei_table3").set_index(["dataset", "setting"])
    others = naive.drop("CIFAR-100", level=0)
    assert (others.published - others.implied).abs().max() < 0.006  # as the ledger says
    attack = published.load("rezaei_table3").query("metric == 'attack_balanced_acc'")
    attack = attack.set_index(["dataset", "setting"]).published.loc["CIFAR-100"]
    here = naive.loc["CIFAR-100"]
    assert ((attack > here.published) != (attack > here.implied)).all()


def test_far_of_correct_records_beside_that_by_confidences():
    """13 of 18 and 17 of 18 stand in the ledger."""
    far = published.load("rezaei_table4").query("metric == 'attack_far'").set_index(["dataset", "setting"]).published
    rows = published.implied("rezaei_table7")
    rows = rows[rows.setting.str.endswith(", correct")].set_index(["dataset", "setting"])
    confidences = far[rows.index]
    below = [(rows[side].to_numpy() < confidences.to_numpy()).sum() for side in ("published", "implied")]
    assert (below, len(rows)) == ([17, 13], 18)


def test_no_rules_for_a_table():
    with pytest.raises(ValueError, match=r"no rules for 'rezaei_table4'; .*rezaei_table1"):
        published.implied("rezaei_table4")


def write(folder, **more):
    row = dict.fromkeys(ledger.COLUMNS, "x") | {"table": "", "as_released": "", "otherwise": "", "metric": ""} | more
    (folder / "data" / "published").mkdir(parents=True)
    with (folder / "data" / "published" / "ledger.csv").open("w", newline="") as file:
        csv.writer(file).writerows(zip(*row.items(), strict=True))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"effect": ""}, "line 2: give an effect"),
        ({"table": "rezaei_table1", "metric": "far"}, "line 2: give an effect, or a metric"),
        ({"table": "rezaei_table1", "effect": ""}, "line 2: give an effect, or a metric"),
        ({"as_released": "a", "metric": "far", "effect": ""}, "line 2: as_released and otherwise"),
        ({"colour": "red"}, "has the columns .*colour; it must have notebook, claim"),
    ],
)
def test_a_malformed_ledger_is_refused(tmp_path, monkeypatch, more, message):
    write(tmp_path, **more)
    monkeypatch.setattr(config, "ROOT", tmp_path)
    with pytest.raises(ValueError, match=message):
        ledger.points()


def test_points_stand_in_order_of_notebooks():
    notebooks = ledger.points().notebook.tolist()
    assert all(a <= b for a, b in itertools.pairwise(notebooks))
