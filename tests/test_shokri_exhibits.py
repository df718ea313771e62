"""What notebooks 01 to 10 show beside the paper's tables: nearer targets, averages over both sides, changed rows."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from planted import dataset
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_score, recall_score

from mialib import metrics
from mialib.attacks import Attacked, Observations, Result, mlleaks
from mialib.data import splits
from mialib.models import small
from mialib.papers.shokri2017 import exhibits, experiments
from mialib.papers.shokri2017.experiments import Row
from mialib.results import published, tables

ROW = Row("location-30", 100, 3, 2, 16, 40, 20)
ABOUT = {"dataset": "Location", "size": 40, "shadows": 60, "tier": "R", "setting": "all", "records": 200}


def outcome(seed, classes=4, n=400, right=0.8, wrong=0.3):
    """Random records, half of them members; `right` of these and `wrong` of the others are called members."""
    rng = np.random.default_rng(seed)
    y, member = rng.integers(classes, size=n), np.arange(n) < n // 2
    called = rng.random(n) < np.where(member, right, wrong)
    vectors = rng.dirichlet(np.ones(classes), n).astype(np.float32)
    return Observations(vectors, y, member), Result(called.astype(float), called)


def attacked(pairs):
    records, answers = map(list, zip(*pairs, strict=True))
    return Attacked(ABOUT, [{"train_acc": 1.0, "test_acc": 0.5}] * len(records), records, {"nn": answers}, (0, "test"))


def test_averages_are_scikit_learns_macro_averages():
    pairs = [outcome(seed) for seed in range(3)]
    expected = [precision_score(seen.member, result.predicted, average="macro") for seen, result in pairs]
    found = tables.averages(attacked(pairs)).iloc[0]
    assert (found.metric, found.attack) == ("macro_precision", "nn")
    assert (found.value, found.low, found.high) == pytest.approx(metrics.mean_interval(expected, 0, 1))
    seen, result = pairs[0]
    both = metrics.evaluate(seen.member, result.score, result.predicted)["balanced_accuracy"]
    assert both == pytest.approx(recall_score(seen.member, result.predicted, average="macro"))


def test_averages_of_one_target_have_the_bootstraps_interval():
    seen, result = outcome(0, n=2000)
    found = tables.averages(attacked([(seen, result)])).iloc[0]
    rng, drawn = np.random.default_rng(0), []
    for _ in range(300):
        rows = np.concatenate([rng.choice(np.flatnonzero(seen.member == side), 1000) for side in (True, False)])
        drawn.append(precision_score(seen.member[rows], result.predicted[rows], average="macro"))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, (0.025, 0.975))), abs=0.01)
    guess = tables.averages(attacked([outcome(1, right=0.5, wrong=0.5, n=2000)])).iloc[0]
    assert guess.low < 0.5 < guess.high


@pytest.mark.parametrize(("tpr", "tnr"), [(0.9, 0.3), (0.99, 0.7), (0.6, 0.6)])
def test_the_rates_behind_averages_are_found_again(tpr, tnr, monkeypatch):
    precision = (tpr / (tpr + 1 - tnr) + tnr / (tnr + 1 - tpr)) / 2
    rows = [("A", "s", "attack_macro_precision", precision), ("A", "s", "attack_macro_recall", (tpr + tnr) / 2)]
    table = pd.DataFrame(rows, columns=["dataset", "setting", "metric", "published"])
    monkeypatch.setattr(published, "load", lambda name: table)
    [found] = exhibits.sides_behind().itertuples()
    np.testing.assert_allclose((found.TPR, found.TNR), (tpr, tnr))
    assert found.P >= found.R


def test_all_printed_pairs_may_be_averages():
    table = exhibits.sides_behind()
    assert len(table) == 24 and (table["P"] >= table["R"]).all()
    assert table["TPR"].dropna().between(0.4, 1.02).all()  # printed with two digits


def test_ml_leaks_numbers_are_held_against_averages():
    about = {"size": 1200, "shadows": 60, "tier": "R", "setting": "x", "dataset": "Location", "low": 0.9, "high": 0.94}
    rows = [("macro_precision", 0.92), ("balanced_accuracy", 0.91), ("precision", 0.5), ("recall", 1.0)]
    measured = pd.DataFrame(about | {"attack": "nn", "metric": metric, "value": value} for metric, value in rows)
    cells = exhibits.compare(
        measured.assign(setting="ML-Leaks adversary 1"), "laptop", "mlleaks_fig1_adversary1_vs_shokri"
    )
    ours = {cell["metric"]: cell["value"] for cell in cells if cell["value"] is not None}
    assert ours == {"attack_macro_precision": 0.92, "attack_macro_recall": 0.91}
    assert len(cells) == 48  # nothing published is dropped


def test_adversary_1_sees_three_probabilities_of_one_shadow_and_no_class():
    def seen(seed, shift, classes=5):
        rng = np.random.default_rng(seed)
        y, member = rng.integers(classes, size=800), np.arange(800) < 400
        logits = rng.normal(size=(800, classes))
        logits[np.arange(800), y] += 1 + shift * member
        return Observations(small.softmax(logits), y, member)

    for shift, found in ((3.0, True), (0.0, False)):
        shadow, target = seen(1, shift), seen(2, shift)
        [result] = mlleaks.adversary_1(shadow, [target], (0, "test"))
        low, high = metrics.bootstrap(target.member, result.score, result.predicted, np.random.default_rng(0), 300)[
            "auc"
        ]
        assert low > 0.6 if found else low < 0.5 < high
    shuffled = Observations(target.vectors[:, ::-1], 4 - target.y, target.member)
    [again] = mlleaks.adversary_1(shadow, [shuffled], (0, "test"))
    assert (again.score == result.score).all() and result.skipped == ()
    others = [seen(seed, 2.0, classes=2) for seed in (3, 4)]
    assert mlleaks.adversary_1(others[0], others[1:], (0, "test"))[0].score.std() > 0
    found = experiments.attack(dataset(0.6), ROW, 0, ("nn", mlleaks.ADVERSARY_1))
    assert found.about["records"] == 100 and set(found.answers) >= {"nn", mlleaks.ADVERSARY_1}


def test_a_row_without_hidden_units_is_scikit_learns_logistic_regression():
    data, row = dataset(0.3), dataclasses.replace(ROW, hidden=0, epochs=8)
    found = experiments.attack(data, row, 0)
    targets, _ = splits.targets_and_shadows(900, 100, 2, 3, 0, data.name)
    for split, learnt in zip(targets, found.accuracies, strict=True):
        model = LogisticRegression(C=1e6, max_iter=8)
        with pytest.warns(Warning, match="iter"):
            model.fit(data.X[split.members], data.y[split.members])
        assert learnt["train_acc"] == model.score(data.X[split.members], data.y[split.members])
        assert learnt["test_acc"] == model.score(data.X[split.non_members], data.y[split.non_members])


def test_the_nearest_recipe_is_chosen_by_accuracies_alone(monkeypatch):
    data = dataset(0.3)
    rows = [dataclasses.replace(ROW, hidden=hidden, epochs=epochs) for hidden in (16, 0) for epochs in (1, 30)]
    monkeypatch.setattr(experiments, "attack_all", None)  # whoever attacks fails
    table = exhibits.nearest(rows, {"location-30": data}, 0)
    assert table["row"].tolist() == rows
    assert table["model"].tolist() == ["network stopped early"] * 2 + ["logistic regression"] * 2
    expected = (table["train"] - 1).abs() + (table["test"] - 0.673).abs()
    np.testing.assert_allclose(table["distance"], expected)
    for _, part in table.groupby("model"):
        assert part["nearest"].sum() == 1 and part.loc[part["nearest"], "distance"].item() == part["distance"].min()
    everyone = np.arange(900)
    targets, _ = splits.targets_and_shadows(900, 100, 2, 3, 0, data.name)
    seen = [splits.Split(split.members, np.setdiff1d(everyone, split.members)) for split in targets]
    right = [(each.vectors.argmax(1) == each.y) for each in experiments.observe(data, rows[1], 0, "target", seen)]
    assert table["test"][1] == pytest.approx(np.mean([hit[100:].mean() for hit in right]))


def test_with_one_target_gap_and_precision_come_from_other_non_members():
    """Non-members of each class err by lot and are called members by lot: only shared records tie the two."""
    seen, _ = outcome(0, classes=60, n=12000)
    wrong = np.random.default_rng(1).random(12000) < 0.5
    called = seen.member | wrong  # those whom the target gets wrong are called members
    vectors = np.where(np.arange(60) == np.where(wrong & ~seen.member, (seen.y + 1) % 60, seen.y)[:, None], 0.7, 0.005)
    one = attacked(
        [(Observations(vectors.astype(np.float32), seen.y, seen.member), Result(called.astype(float), called))]
    )
    found = exhibits.gap_statistics([one], "all").set_index(["dataset", "metric"]).loc["Location"]
    assert found.value["gap_precision_correlation"] < -0.35  # the same records on both sides
    assert abs(found.value["crossed_gap_precision_correlation"]) < 0.4
    assert found.low["crossed_gap_precision_correlation"] < 0 < found.high["crossed_gap_precision_correlation"]


def test_a_class_nobody_is_called_a_member_of_has_precision_zero():
    classes = pd.DataFrame({"precision": [0.8, np.nan, np.nan], "recall": [0.5, 0.0, np.nan]})
    assert tables.with_zeros(classes).tolist()[:2] == [0.8, 0.0] and np.isnan(tables.with_zeros(classes)[2])


def test_changed_rows_stand_beside_those_they_change(monkeypatch):
    data, row = dataset(0.6), dataclasses.replace(ROW, shadows=4)
    first = list(experiments.settling(data, row, 0))
    change = {"fig4 longer": (dataclasses.replace(row, shadows=2, epochs=60),)}
    monkeypatch.setattr(exhibits, "settings", lambda section, profile: change.get(section, ()))
    table = exhibits.changed(first, {"location-30": data}, "laptop", 0, ("nn", "threshold"))
    assert table.groupby(["variant", "what"])["shadows"].unique().map(list).to_dict() == {
        ("", "as above, 2 shadows"): [2],
        ("longer", "longer: 60 epochs, 32 and 32 filters, 2 shadows"): [2],
    }
    usual = table[(table["variant"] == "") & (table["metric"] == "class_precision_p50") & (table["attack"] == "nn")]
    expected = tables.across_classes(first[1]).set_index("metric").value["class_precision_p50"]
    assert usual["value"].tolist() == [expected]


def test_a_changed_row_of_few_shadows_has_no_verdict_beside_a_settled_one(monkeypatch):
    data, row = dataset(0.6), dataclasses.replace(ROW, shadows=4)
    first = list(experiments.settling(data, row, 0))
    change = {"fig4 longer": (dataclasses.replace(row, shadows=2),)}
    monkeypatch.setattr(exhibits, "settings", lambda section, profile: change.get(section, ()))
    table = exhibits.changed(first, {"location-30": data}, "laptop", 0, ("nn",))
    longer = table[table["variant"] == "longer"].assign(dataset="CIFAR-100", setting="4,600 records", tier="R")
    usual = longer.assign(variant="", settled=True, shadows=4)
    cells = exhibits.compare(pd.concat([usual, longer]), "laptop", "shokri_fig4")
    found = {cell["setting"]: cell for cell in cells if cell["value"] is not None and "class" in cell["metric"]}
    assert found["4,600 records"]["verdict"] != "not comparable"
    assert found["4,600 records, longer"]["cause"] == "2 of the paper's 100 shadows"


def test_the_settings_of_one_more_table():
    wider = experiments.settings("fig4 wider", "laptop")[0]
    images = dataset(0.1)
    object.__setattr__(images, "X", np.zeros((2, 3, 32, 32), np.uint8))
    assert experiments.architecture(images, wider) == small.CNN((3, 32, 32), 4, 128, (16, 256))
    [*_, usual] = experiments.settings("fig4", "laptop")
    assert experiments.architecture(images, usual) == small.CNN((3, 32, 32), 4, 128)  # keys of its networks stay
    assert exhibits.sizes([ROW, dataclasses.replace(ROW, size=1200, shadows=60)]) == (
        "Ours: 100 to 1,200 records train each target and each shadow model; shadow models 3 to 60, targets 2."
    )
