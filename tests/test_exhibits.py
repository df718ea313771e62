import functools

import numpy as np
import pandas as pd
import pytest
from planted import dataset
from scipy import stats

from mialib import metrics
from mialib.attacks import Attacked, Observations, Result, signals
from mialib.papers.shokri2017 import exhibits, experiments
from mialib.papers.shokri2017.experiments import Row
from mialib.results import published, tables

ROW = Row("location-30", 100, 5, 3, 128, 200, 20)


@functools.cache
def planted_attack(noise):
    """One run for all tests that only read it; the data of `dataset`, seed 0."""
    return experiments.attack(dataset(noise), ROW, 0)


def value(table, attack, metric):
    return table[(table.attack == attack) & (table.metric == metric)].iloc[0]


def test_memorised_labels_leak_and_every_attack_sees_it():
    table = tables.summary(experiments.attack(dataset(0.6), ROW, 0, kinds=("nn", "forest")))
    train, test = value(table, "target", "train_acc").value, value(table, "target", "test_acc").value
    assert train == 1 and test < 0.7
    for attack in ("nn", "forest", "threshold"):
        assert value(table, attack, "auc").low > 0.6
    assert value(table, "gap", "balanced_accuracy").value == pytest.approx(0.5 + (train - test) / 2)
    assert value(table, "zero_r", "fpr").value == 1


def test_a_target_that_stands_alone_has_intervals_over_its_records():
    attacked = planted_attack(0.6)
    found, means = tables.accuracies(attacked), tables.summary(attacked)
    member = attacked.records[0].member
    for metric, n in (("train_acc", member.sum()), ("test_acc", (~member).sum())):
        row = value(found, "target", metric)
        assert row.value == attacked.accuracies[0][metric]
        assert (row.low, row.high) == pytest.approx(metrics.share(round(row.value * n), n)[1:])
        assert row.low <= row.value <= row.high and row.low < row.high
    assert list(found.columns) == list(means.columns)


def test_a_target_that_learnt_nothing_does_not_leak():
    table = tables.summary(experiments.attack(dataset(0.6), Row("location-30", 100, 5, 5, 32, 1, 100), 0))
    found = value(table, "nn", "auc")
    assert found.low < 0.5 < found.high


def test_one_target_gets_a_bootstrap_and_classes_are_listed():
    attacked = experiments.attack(dataset(0.5), Row("location-30", 100, 3, 1, 16, 30, 20), 0)
    found = value(tables.summary(attacked), "nn", "accuracy")
    seen, result = attacked.records[0], attacked.answers["nn"][0]
    assert found.value == metrics.evaluate(seen.member, result.score, result.predicted)["accuracy"]
    assert found.low < found.value < found.high
    classes = tables.by_class(attacked, "nn")
    assert classes["class"].tolist() == [0, 1, 2, 3] and classes.members.sum() == 100
    assert not classes.skipped.any()


def test_every_mitigation_of_table_3_runs_and_none_changes_the_target_but_l2():
    names = published.load("shokri_table3").setting.unique()
    assert set(names) == set(experiments.MITIGATIONS)
    row = Row("location-30", 60, 2, 2, 8, 10, 20)
    parts = [tables.summary(attacked) for attacked in experiments.mitigated(dataset(0.3), row, 0, ("nn",), names)]
    accuracy = {table.setting[0]: value(table, "target", "test_acc").value for table in parts}
    assert set(accuracy) == set(names)
    outputs_only = {accuracy[name] for name in names if name.startswith(("No", "Top", "Temp"))}
    assert len(outputs_only) == 1


def test_same_seed_same_numbers_other_seed_others():
    first = tables.summary(planted_attack(0.5))
    again, other = (tables.summary(experiments.attack(dataset(0.5), ROW, seed)) for seed in (0, 1))
    assert again.equals(first) and not other.value.equals(first.value)


def test_results_fit_the_published_tables():
    measured = tables.summary(planted_attack(0.5))
    cells = exhibits.compare(measured, "laptop", "shokri_table2", "all")
    ours = [cell for cell in cells if cell["value"] is not None]
    printed = {"target_train_acc", "target_test_acc", "attack_precision"}
    assert printed <= {cell["metric"] for cell in ours if cell["published"] is not None}
    assert {cell["verdict"] for cell in cells} == {"not comparable"}
    wide = tables.wide(
        pd.concat([measured, measured.assign(dataset="Adult")]), {("target", "test_acc"): "test", ("nn", "auc"): "AUC"}
    )
    assert wide.loc[("Location", "M"), "AUC"] == value(measured, "nn", "auc").value


def test_beside_holds_each_row_against_what_was_printed_for_it():
    measured = tables.summary(planted_attack(0.5))
    both = pd.concat([measured, measured.assign(size=200)])
    table = exhibits.beside(both, "precision", {"published": ("shokri_table2", "all")})
    assert table.label.tolist() == ["Location, 100", "Location, 200"] and table.published.tolist() == [0.678, 0.678]
    assert (table.gap == value(measured, "gap", "precision").value).all()
    with pytest.raises(ValueError, match="unknown mitigation 'Hope'; valid: No mitigation, Top k=3"):
        next(experiments.mitigated(dataset(0.5), ROW, 0, ("nn",), ["Hope"]))


def test_no_verdict_with_fewer_shadows_than_the_paper_or_in_demo():
    measured = tables.summary(planted_attack(0.5)).assign(tier="R")
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
    attacked = experiments.attack(dataset(0.9), ROW, 0)
    for seen in attacked.records:
        right = signals.correct(seen.vectors, seen.y)
        assert right[seen.member].all() and right[~seen.member].mean() < 0.6


def attacked(records, answers, about=None):
    """An `Attacked` of given observations: what `experiments` would have made."""
    about = {"dataset": "CIFAR-10", "size": 40, "shadows": 4, "tier": "R", "setting": "40 records"} | (about or {})
    accuracies = [{"train_acc": 1.0, "test_acc": 0.5}] * len(records)
    return Attacked(about, accuracies, records, {"nn": answers}, (0, "test"))


def outcome(seed, classes=4, n=400):
    """Random observations and an attack's answers; class 3 is never called a member."""
    rng = np.random.default_rng(seed)
    y, member = rng.integers(classes, size=n), np.arange(n) < n // 2
    called = (rng.random(n) < np.where(member, 0.8, 0.3)) & (y != 3)
    vectors = rng.dirichlet(np.ones(classes), n).astype(np.float32)
    return Observations(vectors, y, member), Result(called.astype(float), called)


def test_statistics_across_classes_are_those_of_the_per_class_table():
    seen, result = outcome(0)
    table = tables.across_classes(attacked([seen], [result])).set_index("metric")
    each = metrics.per_class(seen.member, result.score, result.predicted, seen.y, 4)
    assert np.isnan(each.precision[3]) and each.recall[3] == 0
    assert table.value["class_precision_p50"] == pytest.approx(each.precision[:3].median())
    assert table.value["class_precision_p90"] == pytest.approx(each.precision[:3].quantile(0.9))
    assert table.value["class_recall_mean"] == pytest.approx(each.recall.mean())
    assert (table.low <= table.value + 1e-9).all() and (table.value <= table.high + 1e-9).all()


def test_bootstrap_of_the_class_median_is_that_of_resampled_records():
    """Binomial redraws against the literal loop: records drawn again within each class and side."""
    seen, result = outcome(1, n=2000)
    found = tables.across_classes(attacked([seen], [result])).set_index("metric").loc["class_precision_p50"]
    rng, medians = np.random.default_rng(0), []
    cells = [np.flatnonzero((seen.y == c) & (seen.member == side)) for c in range(4) for side in (True, False)]
    for _ in range(400):
        rows = np.concatenate([rng.choice(cell, len(cell)) for cell in cells])
        called, y, member = result.predicted[rows], seen.y[rows], seen.member[rows]
        medians.append(np.median([member[called & (y == c)].mean() for c in range(3)]))
    low, high = np.quantile(medians, (0.025, 0.975))
    assert found.low == pytest.approx(low, abs=0.006) and found.high == pytest.approx(high, abs=0.006)


def test_over_several_targets_the_interval_is_students():
    pairs = [outcome(seed) for seed in range(3)]
    table = tables.across_classes(attacked(*map(list, zip(*pairs, strict=True)))).set_index("metric")
    medians = [
        metrics.per_class(seen.member, result.score, result.predicted, seen.y, 4).precision.median()
        for seen, result in pairs
    ]
    assert table.value["class_precision_p50"] == pytest.approx(np.mean(medians))
    assert table.low["class_precision_p50"] < np.mean(medians) < table.high["class_precision_p50"]


def test_every_class_of_every_target_is_a_row_and_by_class_is_their_mean():
    pairs = [outcome(seed) for seed in range(3)]
    together = attacked(*map(list, zip(*pairs, strict=True)))
    table = tables.each_class(together).set_index(["target", "class"])
    assert len(table) == 3 * 4 and set(together.about) <= set(table.columns)
    for target, (seen, result) in enumerate(pairs):
        each = metrics.per_class(seen.member, result.score, result.predicted, seen.y, 4)
        assert np.allclose(table.loc[target, "precision"], each.precision, equal_nan=True)
        assert np.allclose(table.loc[target, "recall"], each.recall)
    mean = table.groupby("class")["recall"].mean()
    assert np.allclose(tables.by_class(together, "nn")["recall"], mean)


def test_a_variant_sets_two_results_for_one_published_number_apart():
    seen, result = outcome(0)
    measured = tables.summary(attacked([seen], [result], {"dataset": "Location", "setting": "noisy 10%"}))
    cells = exhibits.compare(
        pd.concat([measured.assign(variant=""), measured.assign(variant="replaced")]), "laptop", "shokri_fig8"
    )
    found = [cell["setting"] for cell in cells if cell["metric"] == "attack_recall" and cell["value"] is not None]
    assert found == ["noisy 10%", "noisy 10%, replaced"]


def test_classes_come_with_what_the_target_learnt_of_them():
    seen, result = outcome(2)
    table = tables.by_class(attacked([seen], [result]), "nn").set_index("class")
    right, two = signals.correct(seen.vectors, seen.y), seen.y == 2
    assert (
        table.train_acc[2] == right[two & seen.member].mean() and table.test_acc[2] == right[two & ~seen.member].mean()
    )
    assert table.gap[2] == pytest.approx(table.train_acc[2] - table.test_acc[2])
    assert table.share[2] == (two & seen.member).sum() / seen.member.sum() and table.share.sum() == pytest.approx(1)


def test_settled_compares_all_shadows_with_half_of_them():
    rows = [("a", 1, 0.9), ("a", 2, 0.71), ("a", 4, 0.7), ("b", 1, 0.5), ("b", 2, 0.5), ("b", 4, 0.53)]
    table = pd.DataFrame(rows, columns=["setting", "shadows", "value"])
    table = table.assign(dataset="CIFAR-10", size=40, metric="class_precision_p50", attack="nn")
    assert exhibits.settled(table).tolist() == [True] * 3 + [False] * 3
    other = table.assign(attack="threshold", value=0.1)  # of another attack: it takes no part
    assert exhibits.settled(pd.concat([table, other])).tolist() == ([True] * 3 + [False] * 3) * 2


def test_few_shadows_are_compared_only_where_the_result_has_settled():
    measured = tables.across_classes(attacked([outcome(0)[0]], [outcome(0)[1]], {"setting": "2,500 records"}))
    for settled, verdict in ((True, {"reproduced", "differs", "undecided"}), (False, {"not comparable"})):
        cells = exhibits.compare(measured.assign(settled=settled, model="CNN"), "laptop", "shokri_fig4")
        ours = [cell for cell in cells if cell["value"] is not None and cell["published"] is not None]
        assert {cell["metric"] for cell in ours} == {
            "class_precision_p50", "class_precision_p50_points", "class_precision_mean",
        }  # fmt: skip
        assert {cell["verdict"] for cell in ours} <= verdict
        assert all("4 of the paper's 100 shadows" in cell["note"] for cell in ours)
        assert {cell["model"] for cell in ours} == {"CNN"}


def test_gap_statistics_are_correlations_over_the_classes_of_one_target_at_a_time():
    pairs = [outcome(seed, classes=8, n=1600) for seed in range(3)]
    about = {"setting": "No mitigation", "dataset": "Purchase-10"}
    one = [attacked([seen], [result], about) for seen, result in pairs]
    three = attacked(*map(list, zip(*pairs, strict=True)), about)
    table = exhibits.gap_statistics([three], "Purchase, all").set_index(["dataset", "metric"])
    alone = [exhibits.gap_statistics([each], "Purchase, all").set_index(["dataset", "metric"]) for each in one]
    classes = tables.by_class(one[0], "nn")
    assert np.isnan(classes.precision[3])
    key = ("Purchase-10", "gap_precision_correlation")
    r = np.corrcoef(classes.gap.drop(3), classes.precision.drop(3))[0, 1]
    assert alone[0].loc[key, "value"] == pytest.approx(r) and alone[0].loc[key, "low"] < r < alone[0].loc[key, "high"]
    assert table.loc[key, "value"] == pytest.approx(np.mean([each.loc[key, "value"] for each in alone]))
    assert table.loc[("Purchase-10", "mean_gap"), "value"] == pytest.approx(tables.by_class(three, "nn").gap.mean())
    assert table.loc[("Purchase-10", "mean_gap"), "attack"] == "target"
    parts = [tables.by_class(each, "nn").drop(3) for each in one]
    crossed = [np.corrcoef(parts[i].gap, parts[(i + 1) % 3].precision)[0, 1] for i in range(3)]
    found = table.loc[("Purchase-10", "crossed_gap_precision_correlation"), "value"]
    assert found == pytest.approx(np.mean(crossed))
    # One data set pooled with nothing is itself.
    assert np.allclose(table.loc["Purchase, all", "value"], table.loc["Purchase-10", "value"])


def test_pooled_classes_can_go_together_where_those_of_each_set_do_not():
    """Simpson: two sets, each of unrelated gap and precision, one with more of both."""
    both = [
        attacked([seen], [result], {"dataset": name, "tier": tier, "shadows": shadows})
        for name, tier, shadows, (seen, result) in (
            ("Purchase-10", "S", 20, made([0.1, 0.3, 0.1, 0.3], [0.5, 0.5, 0.4, 0.4])),
            ("Purchase-20", "R", 10, made([0.7, 0.9, 0.7, 0.9], [0.1, 0.1, 0.0, 0.0])),
        )
    ]
    table = exhibits.gap_statistics(both, "Purchase, all").set_index(["dataset", "metric"])
    r = table.xs("gap_precision_correlation", level="metric").value
    assert abs(r["Purchase-10"]) < 1e-9 and abs(r["Purchase-20"]) < 1e-9 and r["Purchase, all"] > 0.8
    pooled = table.loc[("Purchase, all", "mean_gap")]
    assert pooled.value == pytest.approx(0.5) and pooled.tier == "S" and pooled.shadows == 10
    cells = exhibits.compare(table.reset_index(), "laptop", "shokri_fig11", "all")
    found = {(cell["dataset"], cell["metric"]): cell["value"] for cell in cells if cell["value"] is not None}
    assert found["Purchase, all", "gap_precision_correlation"] == pytest.approx(r["Purchase, all"])
    assert found["Purchase-20", "mean_gap"] == pytest.approx(0.8)
    with pytest.raises(ValueError, match="equally many"):
        exhibits.gap_statistics([both[0], attacked(both[1].records * 2, both[1].answers["nn"] * 2)], "all")


def made(gaps, false, n=20):
    """One target of four classes: all members right and called members, `gaps` of the others wrong, `false` called."""
    y, member = np.tile(np.repeat(np.arange(4), n), 2), np.repeat([True, False], 4 * n)
    place = np.tile(np.arange(n), 8) / n
    right = member | (place >= np.array(gaps)[y])
    called = member | (place < np.array(false)[y])
    vectors = np.where(np.arange(4) == np.where(right, y, (y + 1) % 4)[:, None], 0.7, 0.1).astype(np.float32)
    return Observations(vectors, y, member), Result(called.astype(float), called)


def test_a_class_of_one_record_has_no_gap_and_no_overlap():
    seen, result = outcome(0, n=2000)
    alone = np.flatnonzero(seen.y == 2)[0]  # a member
    kept = np.append(np.flatnonzero(seen.y != 2), alone)
    seen = Observations(seen.vectors[kept], seen.y[kept], seen.member[kept])
    one = attacked([seen], [Result(result.score[kept], result.predicted[kept], (2,))])
    table = tables.by_class(one, "nn").set_index("class")
    assert np.isnan(table.gap[2]) and table.skipped[2] and not table.skipped[1]
    numbers = exhibits.gap_statistics([one], "all").set_index(["dataset", "metric"])
    assert numbers.loc[("all", "mean_gap"), "value"] == pytest.approx(table.gap.drop(2).mean())
    assert np.isnan(numbers.loc[("all", "gap_precision_correlation"), "value"])  # two classes are left
    each = tables.class_overlaps(tables.by_record(one)).set_index("class")
    assert np.isnan(each.accuracy_overlap[2]) and (each.members[2], each.non_members[2]) == (1, 0)
    assert each.accuracy_overlap.drop(2).between(0.5, 1).all()


def test_scatter_titles_are_the_correlations_of_the_points():
    rng = np.random.default_rng(0)
    classes = pd.DataFrame(rng.random((30, 3)), columns=["share", "gap", "precision"])
    printed = pd.DataFrame(
        {"panel": np.repeat(["left", "middle", "right"], 20), "x": rng.random(60), "y": rng.random(60)}
    )
    table = exhibits.correlations(classes, printed).set_index(["side", "panel"])
    assert table.loc[("ours", "right"), "r"] == pytest.approx(classes.share.corr(classes.gap))
    middle = printed[printed.panel == "middle"]
    assert table.loc[("published", "middle"), "r"] == pytest.approx(middle.x.corr(middle.y))
    assert set(exhibits.correlations(classes).side) == {"ours"}


def test_overlaps_are_those_of_the_records_and_one_target_gets_a_bootstrap():
    pairs = [outcome(seed, n=2000) for seed in range(3)]
    together = attacked(*map(list, zip(*pairs, strict=True)), {"dataset": "Purchase-10"})
    records = tables.by_record(together)
    assert len(records) == 6000 and set(records.n_classes) == {4}
    expected = [
        metrics.overlap(here.accuracy[here.member], here.accuracy[~here.member])
        for _, here in records.groupby("target")
    ]
    table = tables.overlaps(together).set_index("metric")
    assert table.value["accuracy_overlap"] == pytest.approx(np.mean(expected))
    seen, result = pairs[0]
    one = tables.overlaps(attacked([seen], [result])).set_index("metric").loc["uncertainty_overlap"]
    rng, drawn = np.random.default_rng(0), []
    values = signals.uncertainty(seen.vectors)
    for _ in range(300):
        drawn.append(metrics.overlap(*(rng.choice(values[seen.member == side], 1000) for side in (True, False))))
    assert (one.low, one.high) == pytest.approx(tuple(np.quantile(drawn, (0.025, 0.975))), abs=0.01)


def test_overlaps_fit_the_published_table_and_need_no_shadows():
    seen, result = outcome(0)
    members = Observations(np.where(np.arange(4) == seen.y[:, None], 1, 0).astype(np.float32), seen.y, seen.member)
    table = tables.overlaps(attacked([members], [result], {"dataset": "Purchase-100", "shadows": 1}))
    assert (table.value == 1).all()
    cells = exhibits.compare(table, "laptop", "shokri_fig12", "all")
    ours = [cell for cell in cells if cell["value"] is not None]
    assert [cell["verdict"] for cell in ours] == ["differs", "differs"]
    apart = Observations(np.where(seen.member[:, None], members.vectors, 0.25).astype(np.float32), seen.y, seen.member)
    assert (tables.overlaps(attacked([apart], [result])).value == 0).all()


def test_numbers_of_several_attackers_are_means_with_an_interval_over_them():
    seeds = experiments.attackers("demo", 3)
    assert len(set(seeds)) == 2 and seeds[0] == 3 and seeds == experiments.attackers("demo", 3)
    each = [tables.summary(experiments.attack(dataset(0.6), ROW, seed)) for seed in (0, 1, 2)]
    table = tables.over_attackers(each)
    assert table.columns.tolist() == each[0].columns.tolist() and len(table) == len(each[0])
    auc = [value(one, "nn", "auc").value for one in each]
    low, high = stats.t.interval(0.95, 2, np.mean(auc), stats.sem(auc))
    row = value(table, "nn", "auc")
    assert (row.value, row.low, row.high) == pytest.approx((np.mean(auc), low, min(high, 1)))
    pd.testing.assert_frame_equal(tables.over_attackers(each[:1]), each[0])
    with pytest.raises(ValueError, match="not of the same numbers"):
        tables.over_attackers([each[0], each[1][1:]])


def test_what_noise_costs_is_paired_by_target_and_meant_by_attacker():
    row = Row("location-30", 100, 3, 3, 16, 5, 20)
    several = [list(experiments.noisy(dataset(0.6), row, seed)) for seed in (0, 1)]
    precision = np.array(
        [
            [
                [metrics.evaluate(s.member, r.score, r.predicted)["precision"] for s, r in tables.pairs(one, "nn")]
                for one in every[:2]
            ]
            for every in several
        ]
    )
    change = precision[:, 1] - precision[:, 0]
    one, both = (exhibits.noise_costs(some).loc["noisy 10%"] for some in (several[:1], several))
    assert one.tolist() == pytest.approx(metrics.mean_interval(change[0]))
    assert both.tolist() == pytest.approx(metrics.mean_interval(change.mean(1)))
    assert list(exhibits.noise_costs(several).index) == [name for name in experiments.NOISE if name != "real data"]
