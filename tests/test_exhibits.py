import dataclasses

import numpy as np
import pandas as pd
import pytest

from mialib import exhibits, metrics, published, runs, signals
from mialib.config import Row
from mialib.datasets import Dataset


def dataset(noise, n=900, d=40, classes=4):
    """Clustered binary records; `noise` is the share of labels drawn at random, which a network can only memorise."""
    rng = np.random.default_rng(0)
    y = rng.integers(classes, size=n)
    X = (rng.random((n, d)) < rng.random((classes, d))[y]).astype(np.uint8)
    y = np.where(rng.random(n) < noise, rng.integers(classes, size=n), y)
    return Dataset("location-30", X, y, classes, "M", "simulated", runs.digest(X, y))


ROW = Row("location-30", 100, 5, 3, 128, 200, 20)


def value(table, attack, metric):
    return table[(table.attack == attack) & (table.metric == metric)].iloc[0]


def test_memorised_labels_leak_and_every_attack_sees_it():
    table = exhibits.summary(exhibits.attack(dataset(0.6), ROW, 0, kinds=("nn", "forest")))
    train, test = value(table, "target", "train_acc").value, value(table, "target", "test_acc").value
    assert train == 1 and test < 0.7
    for attack in ("nn", "forest", "threshold"):
        assert value(table, attack, "auc").low > 0.6
    assert value(table, "gap", "balanced_accuracy").value == pytest.approx(0.5 + (train - test) / 2)
    assert value(table, "zero_r", "fpr").value == 1


def test_a_target_that_learnt_nothing_does_not_leak():
    table = exhibits.summary(exhibits.attack(dataset(0.6), Row("location-30", 100, 5, 5, 32, 1, 100), 0))
    found = value(table, "nn", "auc")
    assert found.low < 0.5 < found.high


def test_one_target_gets_a_bootstrap_and_classes_are_listed():
    attacked = exhibits.attack(dataset(0.5), Row("location-30", 100, 3, 1, 16, 30, 20), 0)
    found = value(exhibits.summary(attacked), "nn", "accuracy")
    seen, result = attacked.records[0], attacked.answers["nn"][0]
    assert found.value == metrics.evaluate(seen.member, result.score, result.predicted)["accuracy"]
    assert found.low < found.value < found.high
    classes = exhibits.by_class(attacked, "nn")
    assert classes["class"].tolist() == [0, 1, 2, 3] and classes.members.sum() == 100
    assert not classes.skipped.any()


def test_every_mitigation_of_table_3_runs_and_none_changes_the_target_but_l2():
    names = published.load("shokri_table3").setting.unique()
    assert set(names) == set(exhibits.MITIGATIONS)
    row = Row("location-30", 60, 2, 2, 8, 10, 20)
    tables = [exhibits.summary(attacked) for attacked in exhibits.mitigated(dataset(0.3), row, 0, ("nn",), names)]
    accuracy = {table.mitigation[0]: value(table, "target", "test_acc").value for table in tables}
    assert set(accuracy) == set(names)
    outputs_only = {accuracy[name] for name in names if name.startswith(("No", "Top", "Temp"))}
    assert len(outputs_only) == 1


def test_same_seed_same_numbers_other_seed_others():
    tables = [exhibits.summary(exhibits.attack(dataset(0.5), ROW, seed)) for seed in (0, 0, 1)]
    assert tables[0].equals(tables[1]) and not tables[0].value.equals(tables[2].value)


def test_results_fit_the_published_tables():
    data = dataset(0.5)
    measured = exhibits.summary(exhibits.attack(data, ROW, 0))
    cells = exhibits.compare(measured, "laptop", "shokri_table2", "all")
    ours = [cell for cell in cells if cell["value"] is not None]
    printed = {"target_train_acc", "target_test_acc", "attack_precision"}
    assert printed <= {cell["metric"] for cell in ours if cell["published"] is not None}
    assert {cell["verdict"] for cell in cells} == {"not comparable"}
    wide = exhibits.wide(
        pd.concat([measured, measured.assign(dataset="Adult")]), {("target", "test_acc"): "test", ("nn", "auc"): "AUC"}
    )
    assert wide.loc[("Location", "M"), "AUC"] == value(measured, "nn", "auc").value


def test_beside_holds_each_row_against_what_was_printed_for_it():
    measured = exhibits.summary(exhibits.attack(dataset(0.5), ROW, 0))
    both = pd.concat([measured, measured.assign(size=200)])
    table = exhibits.beside(both, "precision", {"published": ("shokri_table2", "all")})
    assert table.label.tolist() == ["Location, 100", "Location, 200"] and table.published.tolist() == [0.678, 0.678]
    assert (table.gap == value(measured, "gap", "precision").value).all()
    with pytest.raises(ValueError, match="unknown mitigation 'Hope'; valid: No mitigation, Top k=3"):
        next(exhibits.mitigated(dataset(0.5), ROW, 0, ("nn",), ["Hope"]))


def test_no_verdict_with_fewer_shadows_than_the_paper_or_in_demo():
    data = dataclasses.replace(dataset(0.5), tier="R")
    measured = exhibits.summary(exhibits.attack(data, ROW, 0))
    notes = {}
    for profile, shadows in (("laptop", 5), ("laptop", 60), ("demo", 60)):
        cells = exhibits.compare(measured.assign(shadows=shadows), profile, "shokri_table2", "all")
        [cell] = [c for c in cells if c["metric"] == "attack_precision" and c["value"] is not None]
        notes[profile, shadows] = cell["verdict"] == "not comparable", cell["note"]
    assert notes["laptop", 5][0] and "5 of the paper's 60 shadows" in notes["laptop", 5][1]
    assert notes["demo", 60][0] and "demo profile" in notes["demo", 60][1]
    assert not notes["laptop", 60][0]


def test_observed_members_are_those_trained_on():
    """Members of a memorising target are all classified correctly: the split and the outputs belong together."""
    attacked = exhibits.attack(dataset(0.9), ROW, 0)
    for seen in attacked.records:
        right = signals.correct(seen.vectors, seen.y)
        assert right[seen.member].all() and right[~seen.member].mean() < 0.6
