"""What the tables and figures of Rezaei & Liu 2020 show of a target."""

import dataclasses
import types

import numpy as np
import pandas as pd
import pytest

from mialib import metrics
from mialib.data import datasets
from mialib.models import targets
from mialib.papers.rezaei2020 import exhibits, experiments
from mialib.results import published


@pytest.mark.parametrize("name", list(experiments.targets("demo")))
def test_every_target_is_in_the_published_tables(name):
    for number, subset, metric in ((3, "all", "attack_balanced_acc"), (4, "correct", "attack_far")):
        ours = exhibits.printed(name, "demo", subset, metric, 0.6, 0.5, 0.7, variant="forest")
        cells = published.compare([ours], f"rezaei_table{number}")
        (cell,) = [cell for cell in cells if cell["value"] is not None]
        assert cell["published"] is not None
        variant = ", ".join(filter(None, ("forest", experiments.variant(name, "demo"))))
        assert (cell["tier"], cell["verdict"]) == ("S", "not comparable") and cell["setting"].endswith(variant)
        assert "demo profile" in cell["note"]
    assert datasets.load(experiments.targets("demo")[name].dataset, "demo").tier == "S"


def test_a_number_of_ours_names_what_was_run(monkeypatch):
    monkeypatch.setattr(experiments, "operating_point", lambda name, profile: exhibits.printed_point(name))
    ours = exhibits.printed("cifar-10-resnet", "paper", "all", "attack_far", 0.8)
    assert (ours["dataset"], ours["setting"], ours["model"]) == ("CIFAR-10", "ResNet, all", "ResNet-110")
    assert (ours["tier"], ours["not_comparable"], ours["variant"]) == ("R", "", "")
    assert exhibits.printed("cifar-10-alexnet", "paper", "all", "attack_far", 0.8)["model"] == "AlexNet"
    reasons = exhibits.printed("mnist-lenet", "demo", "all", "attack_far", 0.8, not_comparable="another quantity")
    assert reasons["not_comparable"] == "demo profile; another quantity"
    late = exhibits.printed("cifar-100-alexnet", "demo", "all", "attack_far", 0.8, variant="honest selection")
    assert late["variant"] == "honest selection, last epoch"
    assert exhibits.printed("cifar-10-densenet", "demo", "all", "attack_far", 0.8)["not_comparable"] == "demo profile"
    two = exhibits.printed("cifar-100-resnet", "demo", "", "far", 0.6, setting="1:1, MI Attack")
    assert [cell for cell in published.compare([two], "rezaei_table2") if cell["value"] is not None]
    with pytest.raises(ValueError, match=r"'resnet'; valid in profile demo: .*mnist-lenet"):
        exhibits.printed("resnet", "demo", "all", "attack_far", 0.8)


def fake_target(monkeypatch, name="cifar-10-alexnet", n=3000, leak=0.0):
    """Ten classes, five members to one non-member, two thirds right; members surer of their class by `leak`."""
    rng = np.random.default_rng(0)
    y, member = np.arange(n) % 10, np.arange(n) < n * 5 // 6
    said = np.where(rng.random(n) < 2 / 3, y, (y + 1) % 10)
    sure = rng.uniform(0.55, 0.7, n) + leak * member
    vectors = np.full((n, 10), ((1 - sure) / 9)[:, None])
    vectors[np.arange(n), said] = sure
    images = targets.Images(np.zeros((n, 1, 1, 1), np.uint8), y, member, 10, "S", "made up", "0")
    monkeypatch.setattr(targets, "confidences", lambda trained: vectors.astype(np.float32))
    return targets.Trained(name, experiments.targets("demo")[name], None, images, {}), vectors


def test_the_table_of_targets_counts_and_scores_them(monkeypatch):
    trained, vectors = fake_target(monkeypatch)
    (row,) = exhibits.attacked_targets([trained], "demo").to_dict("records")
    assert (row["data"], row["model"], row["run"], row["tier"]) == ("CIFAR-10", "AlexNet", "AlexNet", "S")
    assert (row["members"], row["non-members"], row["classes"]) == (2500, 500, 10)
    right = vectors.argmax(1) == trained.data.y
    assert (row["train accuracy"], row["test accuracy"]) == (right[:2500].mean(), right[2500:].mean())
    assert row["not comparable because"] == "demo profile"


def test_mean_vectors_are_the_means_of_a_class(monkeypatch):
    trained, vectors = fake_target(monkeypatch)
    table = exhibits.mean_vectors(trained, 3)
    assert len(table) == 3 * 2 * 10
    right = vectors.argmax(1) == trained.data.y
    for (subset, side), here in table.groupby(["subset", "member"]):
        kept = {"all": right | True, "correct": right, "misclassified": ~right}[subset]
        rows = (trained.data.y == 3) & (trained.data.member == side) & kept
        np.testing.assert_allclose(here["confidence"], vectors[rows].mean(0), rtol=1e-6)
        assert set(here["records"]) == {rows.sum()}
    empty = exhibits.mean_vectors(trained, 11)
    assert empty["confidence"].isna().all() and (empty["records"] == 0).all()


@pytest.mark.parametrize(("leak", "alike"), [(0.0, True), (0.2, False)])
def test_overlap_of_confidences_sees_a_leak_and_only_a_leak(monkeypatch, leak, alike):
    trained, _ = fake_target(monkeypatch, leak=leak)
    records = exhibits.confidence_records(trained)
    assert exhibits.of_subset(records, "correct")["confidence"].min() > 0.5
    table = exhibits.confidence_overlaps(records, np.random.default_rng(0))
    assert table[["members", "non_members"]].loc["all"].tolist() == [2500, 500]
    found = table.loc["correct"]
    here = exhibits.of_subset(records, "correct")
    sides = [here.loc[here["member"] == side, "confidence"] for side in (True, False)]
    assert found.overlap == pytest.approx(metrics.overlap(*sides))
    assert found.low <= found.overlap <= found.high or alike  # resampled samples overlap a little less
    assert (found.overlap > found.if_alike - 0.05) == alike
    alone = exhibits.confidence_overlaps(records[records["member"]], np.random.default_rng(0))
    assert alone["overlap"].isna().all() and (alone["non_members"] == 0).all()


def test_unknown_subsets_are_refused():
    with pytest.raises(ValueError, match="unknown subset 'right'; valid: all, correct, misclassified"):
        exhibits.of_subset(pd.DataFrame({"correct": [True]}), "right")


def test_label_stars_what_gets_no_verdict(monkeypatch):
    monkeypatch.setattr(experiments, "operating_point", lambda name, profile: exhibits.printed_point(name))
    assert exhibits.label("cifar-10-alexnet", "paper") == "CIFAR-10 AlexNet"
    monkeypatch.setattr(experiments, "operating_point", lambda name, profile: (0.6, 0.5))
    assert exhibits.label("cifar-100-densenet", "paper") == "CIFAR-100 DenseNet-190-40*"
    assert exhibits.label("cifar-100-alexnet", "demo") == "CIFAR-100 AlexNet, last epoch*"
    assert all(exhibits.label(name, "demo").endswith("*") for name in experiments.targets("demo"))


def test_what_is_another_quantity_gets_a_reason(monkeypatch):
    trained, _ = fake_target(monkeypatch)
    assert exhibits.another_distance(trained, "laptop", "correct", "released-code") == ""
    for protocol in ("paper", "minimal"):
        assert exhibits.another_distance(trained, "laptop", "correct", protocol).startswith("another quantity")
    other = dataclasses.replace(trained, target=dataclasses.replace(trained.target, scale="imagenet"))
    assert "another scale" in exhibits.another_distance(other, "laptop", "correct", "released-code")
    lenet = dataclasses.replace(trained, name="mnist-lenet")
    assert exhibits.another_distance(lenet, "laptop", "correct", "paper") == ""
    assert "10 records" in exhibits.another_distance(lenet, "laptop", "correct", "released-code")
    assert exhibits.another_distance(lenet, "laptop", "misclassified", "paper")
    assert exhibits.fewer_records(trained, 49, 10) == "49 records of a class and side in place of 50"  # 50 there are
    assert exhibits.fewer_records(trained, 50, 3) == "3 classes in place of 10"
    assert exhibits.fewer_records(trained, 50, 1000) == ""
    assert exhibits.searched_less("laptop", "best").startswith("1 and 1 random-search draws")
    assert exhibits.searched_less("laptop", "honest") == exhibits.searched_less("paper", "best") == ""


def test_rates_of_distances_name_the_printed_one(monkeypatch):
    trained, _ = fake_target(monkeypatch)
    row = {"target": trained.name, "subset": "correct", "protocol": "paper", "asked": "", "metric": "fnr"}
    row |= {"value": 0.5, "low": 0.4, "high": 0.6, "classes": 10, "records": 80, "members": 0.5}
    fnr, fpr, last = (
        exhibits.distance_cell(trained, "demo", types.SimpleNamespace(**row | more))
        for more in ({}, {"metric": "fpr"}, {"asked": "last fifth"})
    )
    assert fnr["variant"] == "paper, labels swapped, as released" and fnr["records"] == 80
    assert "another quantity" in fpr["not_comparable"] and fpr["variant"] == "paper, corrected"
    assert last["variant"] == "paper, last fifth, labels swapped, as released"


def test_blind_rates_come_as_cells_and_table(monkeypatch):
    trained, _ = fake_target(monkeypatch)
    found = experiments.blind([trained], 0)  # all images alike: nothing can be found
    cells = exhibits.blind_cells(found, "demo")
    assert {cell["metric"] for cell in cells} == {"blind_balanced_acc", "blind_far"} and len(cells) == 12
    assert {cell["variant"] for cell in cells} == {"", "shuffled"}
    assert exhibits.blind_table(found).shape == (3, 4)
