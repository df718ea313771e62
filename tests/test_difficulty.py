from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from mialib import metrics, runs
from mialib.attacks import SUBSETS, Observations, Result, known
from mialib.models import small, targets
from mialib.papers.rezaei2020 import experiments

SEARCH = known.Search(1, 1, 1, 5)
CLASSES = 5


def vectors(leak, seed=0, members=75, others=25):
    """Confidence vectors, labels and membership; members' logits of the true class are `leak` higher."""
    rng = np.random.default_rng(seed)
    y = np.tile(np.arange(CLASSES), members + others)
    member = np.repeat([True, False], [CLASSES * members, CLASSES * others])
    logits = rng.normal(size=(len(y), CLASSES))
    logits[np.arange(len(y)), y] += 1 + leak * member
    return small.softmax(logits), y, member


def result(rows, score):
    return Result(score, score > 0.5, rows=rows)


def right_of(attacked):
    [seen] = attacked.records
    return seen.vectors.argmax(1) == seen.y


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIALIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("MIALIB_WORKERS", "1")
        return known.nine_attacks("planted", Observations(*vectors(3.0)), SEARCH, 0)


def test_choices_are_made_on_their_own_records(attacked):
    assert list(attacked.answers) == [*attacked.validated, known.NAIVE_LAST, "naive", "zeror"]
    assert len(attacked.validated) == 9
    assert attacked.chosen["honest"] == max(attacked.validated, key=attacked.validated.get)
    tested = {}
    for attack in attacked.validated:
        scored = attacked.result(attack)
        tables = [
            balanced_accuracy_score(attacked.records[0].member[rows], score > 0.5)
            for label in range(CLASSES)
            for here in [attacked.records[0].y[scored.rows] == label]
            for rows, score in [(scored.rows[here], scored.score[here])]
        ]
        tested[attack] = np.mean(tables)
    assert attacked.chosen["best"] == max(tested, key=tested.get)
    assert tested[attacked.chosen["best"]] >= tested[attacked.chosen["honest"]] > 0.6
    table = experiments.nine(attacked)
    assert table["balanced_accuracy"].to_dict() == pytest.approx(tested)
    assert table.loc[attacked.chosen["honest"], "chosen"] in ("honest", "both")


def test_validation_never_sees_an_asked_record(monkeypatch):
    """Whatever the last 20 % of each class hold: the honest choice is given the same records."""
    X, y, member = vectors(2.0)
    seen = []

    def attack(kind, features, y, member, words, *rest, share=0.8, **more):
        if words[1] == "validation":
            seen.append(runs.digest(features, y, member))
        asked = known.split(y, member, share)[1]
        return result(asked, np.zeros(len(asked)))

    monkeypatch.setattr(known, "attack", attack)
    scrambled, (_, asked) = X.copy(), known.split(y, member)
    scrambled[asked] = scrambled[asked][::-1]
    for each in (X, scrambled):
        known.nine_attacks("planted", Observations(each, y, member), SEARCH, 0)
    assert len(seen) == 18 and len(set(seen)) == 1


def test_naive_attack_and_zeror(attacked):
    naive = experiments.per_class(attacked, "naive").set_index("class")
    asked = known.split(attacked.records[0].y, attacked.records[0].member)[1]
    for row in naive.itertuples():
        here = asked[attacked.records[0].y[asked] == row.Index]
        train, test = (
            right_of(attacked)[here[attacked.records[0].member[here] == side]].mean() for side in (True, False)
        )
        assert row.balanced_accuracy == pytest.approx(0.5 + (train - test) / 2)
    zeror = experiments.per_class(attacked, "zeror")
    assert (zeror["balanced_accuracy"] == 0.5).all() and (zeror["fpr"] == 1).all()
    assert (experiments.per_class(attacked, "naive", "correct")["fpr"] == 1).all()
    assert (experiments.per_class(attacked, "naive", "misclassified")["fpr"] == 0).all()


def test_subsets_are_evaluated_with_the_same_models(attacked):
    counts = {name: experiments.per_class(attacked, "best", name) for name in SUBSETS}
    for side in ("members", "non_members"):
        assert (counts["all"][side] == counts["correct"][side] + counts["misclassified"][side]).all()
    # False alarms of all are those of the parts.
    alarms = [(table["fpr"].fillna(0) * table["non_members"]).sum() for table in counts.values()]
    assert alarms[0] == pytest.approx(alarms[1] + alarms[2])
    with pytest.raises(ValueError, match="valid: all, correct, misclassified"):
        experiments.per_class(attacked, "best", "wrong")
    with pytest.raises(ValueError, match="valid: best; honest; nn, none; "):
        experiments.per_class(attacked, "svm")


def test_difference_is_paired(attacked):
    left, right = (experiments.per_class(attacked, name)["balanced_accuracy"] for name in ("best", "naive"))
    found = experiments.difference(attacked, "best", "naive")
    wanted = metrics.over_seeds([{"gap": gap} for gap in left - right])["gap"]
    assert tuple(found.values()) == pytest.approx(wanted)
    assert experiments.difference(attacked, "best", "best")["value"] == 0


@given(st.integers(1, 6), st.integers(1, 6))
def test_base_rates_are_those_of_repeated_records(times_members, times_others):
    """The attack's answers on each member and non-member given several times: exactly the weighted numbers."""
    rng = np.random.default_rng(7)
    y, member = np.tile([0, 1], 60), np.arange(120) < 80
    scored = result(np.arange(120), np.clip(rng.normal(0.45 + 0.2 * member, 0.3), 0, 1))
    rows = np.repeat(np.arange(120), np.where(member, times_members, times_others))
    repeated = result(np.arange(len(rows)), scored.score[rows])
    wanted = known.per_class(repeated, y[rows], member[rows])
    share = 80 * times_members / (80 * times_members + 40 * times_others)
    found = known.at_base_rate(known.per_class(scored, y, member), share)
    pd.testing.assert_frame_equal(found[list(known.RATES)], wanted[list(known.RATES)])
    precision = metrics.precision_at(share, found["recall"], found["fpr"])
    assert np.allclose(found["precision"], precision)


def test_base_rates_of_zeror(attacked):
    table = experiments.base_rates(attacked, ["zeror"]).set_index(["ratio", "metric"])["value"]
    assert [table[ratio, "precision"] for ratio in experiments.RATIOS] == pytest.approx([5 / 6, 1 / 2, 1 / 6])
    assert [table[ratio, "accuracy"] for ratio in experiments.RATIOS] == pytest.approx([5 / 6, 1 / 2, 1 / 6])
    assert table["5:1", "recall_nonmember"] == 0 and np.isnan(table["5:1", "precision_nonmember"])
    with pytest.raises(ValueError, match="between 0 and 1"):
        known.at_base_rate(experiments.per_class(attacked, "best"), 0.0)


def test_as_released_counts_one_sided_classes_by_scikit_learn():
    scored = result(np.arange(6), np.array([0.9, 0.1, 0.1, 0.9, 0.2, 0.1]))
    y, member = np.array([0, 0, 0, 1, 1, 1]), np.array([True, False, True, False, False, False])
    table = known.as_released(known.per_class(scored, y, member))
    assert table["balanced_accuracy"].tolist() == pytest.approx([0.75, 2 / 3])
    assert np.isnan(known.per_class(scored, y, member)["balanced_accuracy"][1])


def test_classes_without_records_are_counted(attacked):
    table = experiments.too_small([attacked], "misclassified").loc["planted"]
    classes = experiments.per_class(attacked, "naive", "misclassified")
    assert table["without a model"] == 0 and table["classes"] == CLASSES
    assert table["members"] == classes["members"].sum()
    assert table["without members"] == (classes["members"] == 0).sum()


def test_confidences_and_accuracies(monkeypatch):
    given_out, y, member = vectors(1.0)
    monkeypatch.setattr(targets, "confidences", lambda trained: given_out)
    trained = SimpleNamespace(name="planted", data=SimpleNamespace(y=y, member=member))
    right = given_out.argmax(1) == y
    table = experiments.confidence(trained).set_index(["side", "subset", "of"])
    row = table.loc["test", "misclassified", "predicted"]
    assert row["value"] == pytest.approx(given_out[~member & ~right].max(1).mean(), rel=1e-6)
    assert row["records"] == (~member & ~right).sum() and row["low"] < row["value"] < row["high"]
    true = table.loc["test", "misclassified", "true"]
    assert true["value"] == pytest.approx(given_out[np.arange(len(y)), y][~member & ~right].mean(), rel=1e-6)
    assert true["value"] < row["value"]
    for side in ("train", "test"):  # right: the predicted class is the true one
        same = [table.loc[(side, "correct", of), "value"] for of in ("predicted", "true")]
        assert same[0] == same[1]
    learnt = experiments.accuracies(trained)
    assert learnt.loc["target_train_acc", "value"] == pytest.approx(right[member].mean())
    assert (learnt["low"] < learnt["value"]).all() and (learnt["value"] < learnt["high"]).all()
    monkeypatch.setattr(targets, "confidences", lambda trained: np.eye(CLASSES, dtype=np.float32)[y])
    nobody = experiments.confidence(trained).set_index(["side", "subset", "of"]).loc["train", "misclassified", "true"]
    assert nobody["records"] == 0 and np.isnan(nobody["value"])


def test_no_leak_gives_no_attack(monkeypatch):
    """Members and non-members alike: the honest attack and the naive one are at .5 within their intervals."""
    monkeypatch.setenv("MIALIB_WORKERS", "1")
    monkeypatch.setattr(known, "NINE", (("nn", "none"), ("forest", "under"), ("xgboost", "over")))
    found = known.nine_attacks("none", Observations(*vectors(0.0, members=200, others=100)), SEARCH, 0)
    table = experiments.measured([found]).set_index(["attack", "metric"])
    for attack in ("honest", "naive"):
        row = table.loc[attack, "balanced_accuracy"]
        assert row["low"] <= 0.5 <= row["high"]  # equal: in all classes everybody is called a member


def test_told_apart_is_the_metric_of_the_pooled_scores(attacked):
    scored = attacked.result("nn, none")
    table = experiments.told_apart([(attacked, scored)], 0, repeats=50).set_index(["subset", "metric"])
    for subset, chosen in (("all", slice(None)), ("correct", right_of(attacked)[scored.rows])):
        member, score = attacked.records[0].member[scored.rows][chosen], scored.score[chosen]
        assert table.loc[(subset, "auc"), "value"] == pytest.approx(roc_auc_score(member, score))
        assert table.loc[(subset, "auc"), "members"] == member.sum()
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()
    assert table.loc[("all", "auc"), "low"] > 0.6  # the leak is planted
    assert table.loc[("all", "tpr_at_10"), "value"] >= table.loc[("all", "tpr_at_1"), "value"]
    assert set(table["target"]) == {"planted"}


def test_cross_fitting_scores_records_by_models_that_did_not_know_them_and_none_the_choice_was_made_on(
    attacked, monkeypatch
):
    X, y, member = attacked.records[0].vectors, attacked.records[0].y, attacked.records[0].member
    first, _ = known.split(y, member)
    choice = first[known.split(y[first], member[first], 0.75)[1]]
    scored = experiments.cross_fitted(attacked, SEARCH, "nn, none")
    assert scored.rows.tolist() == sorted({*range(len(y))} - {*choice})
    assert roc_auc_score(member[scored.rows], scored.score) > 0.6
    whole, known_to = known.attack, []

    def watched(kind, features, labels, members, *rest, **more):
        found = whole(kind, features, labels, members, *rest, **more)
        known_to.append((features[known.split(labels, members)[0]], features[found.rows], found.score))
        return found

    monkeypatch.setattr(known, "attack", watched)
    again = experiments.cross_fitted(attacked, SEARCH, "nn, none")
    assert len(known_to) == 4 and np.array_equal(again.score, scored.score)
    place = {record.tobytes(): row for row, record in enumerate(X)}
    for trained_on, asked, scores in known_to:
        assert not {record.tobytes() for record in trained_on} & {record.tobytes() for record in asked}
        rows = np.array([place[record.tobytes()] for record in asked])
        kept = np.isin(rows, scored.rows)
        np.testing.assert_array_equal(scored.score[np.searchsorted(scored.rows, rows[kept])], scores[kept])


def test_attack_seeds_are_of_the_honest_attack_alone(monkeypatch):
    monkeypatch.setenv("MIALIB_WORKERS", "1")
    monkeypatch.setattr(known, "NINE", (("nn", "none"), ("nn", "under")))
    seen = Observations(*vectors(1.0))
    one, three = (known.nine_attacks("seeds", seen, SEARCH, 0, seeds) for seeds in (1, 3))
    assert one.chosen == three.chosen and set(three.answers) - set(one.answers) == {
        f"{one.chosen['honest']}, seed {more}" for more in (1, 2)
    }
    table = experiments.per_class(three, "honest")
    assert table["seed"].tolist() == np.repeat([0, 1, 2], CLASSES).tolist()
    pd.testing.assert_frame_equal(table[:CLASSES], experiments.per_class(one, "honest"))
    assert table.groupby("class")["balanced_accuracy"].nunique().max() > 1
    [other] = set(experiments.nine(one).index) - {one.chosen["honest"]}
    assert len(experiments.per_class(three, other)) == CLASSES
    gap = experiments.difference(three, "honest", "naive")["value"]
    naive = experiments.per_class(three, "naive")["balanced_accuracy"].mean()
    assert gap == pytest.approx(table["balanced_accuracy"].mean() - naive)


def test_asked_in_turn_the_honest_attack_answers_for_every_fifth_but_the_one_of_its_choice(monkeypatch):
    monkeypatch.setenv("MIALIB_WORKERS", "1")
    monkeypatch.setattr(known, "NINE", (("nn", "none"), ("nn", "under")))
    seen = Observations(*vectors(1.0, members=200, others=100))
    once, turned = (known.nine_attacks("turned", seen, SEARCH, 0, 2, in_turn=each) for each in (False, True))
    rows = turned.result(known.CROSS).rows
    first, last = known.split(seen.y, seen.member)
    choice = first[known.split(seen.y[first], seen.member[first], 0.75)[1]]
    assert rows.tolist() == sorted({*range(len(seen.y))} - {*choice}) and set(last) < set(rows)
    assert np.array_equal(turned.result("naive").rows, rows) and np.array_equal(turned.result("zeror").rows, rows)
    honest, left = experiments.per_class(turned, "honest"), experiments.per_class(turned, "last")
    assert honest["members"].tolist() == [160] * CLASSES and left["members"].tolist() == [40] * 2 * CLASSES
    pd.testing.assert_frame_equal(left, experiments.per_class(once, "honest"))
    assert experiments.measured([once], ["last", known.NAIVE_LAST, "honest"])["attack"].unique().tolist() == ["honest"]
    wide = experiments.measured([turned], ["honest", "last"]).set_index(["metric", "attack"]).loc["balanced_accuracy"]
    assert wide.loc["honest", "low"] > 0.5 and wide.loc["honest", "records"] == 4 * wide.loc["last", "records"]
    for attack, naive in (("honest", "naive"), ("last", known.NAIVE_LAST)):
        one, other = (experiments.per_class(turned, each).groupby("class").mean() for each in (attack, naive))
        assert (one["members"] == other["members"]).all() and (one["non_members"] == other["non_members"]).all()
        gap = one["balanced_accuracy"].mean() - other["balanced_accuracy"].mean()
        assert experiments.difference(turned, attack, naive)["value"] == pytest.approx(gap)
    assert experiments.named([turned], "turned", "last") == turned.chosen["honest"]


def test_asked_in_turn_nothing_is_found_where_nothing_is(monkeypatch):
    monkeypatch.setenv("MIALIB_WORKERS", "1")
    monkeypatch.setattr(known, "NINE", (("nn", "under"),))
    found = known.nine_attacks("none", Observations(*vectors(0.0, 150, 150)), SEARCH, 0, in_turn=True)
    row = experiments.measured([found], ["honest"]).set_index("metric").loc["balanced_accuracy"]
    assert row["low"] <= 0.5 <= row["high"] and row["high"] - row["low"] < 0.15


def test_one_feature_is_asked_in_turn_of_every_record_once():
    rng = np.random.default_rng(0)
    y, member = np.repeat(np.arange(5), 100), np.tile([True, False], 250)
    features = rng.normal(size=(500, 1)) + 2 * member[:, None]
    table = experiments.by_feature("cifar-10-alexnet", features, y, member, (0, "t"), 10, subset="all")
    table = table[table["metric"] == "balanced_accuracy"].set_index("asked")
    assert table["records"].to_dict() == {"": 250, experiments.LAST: 50}
    assert abs(table.loc["", "value"] - 0.84) < 0.06  # of a threshold between normals two apart
    once = experiments.by_feature("mnist-lenet", features, y, member, (0, "t"), 10, subset="all").set_index("metric")
    assert set(once["asked"]) == {""} and once.loc["balanced_accuracy", "records"] == 50


def test_layers_may_be_attacked_in_place_of_the_vectors(monkeypatch):
    """The features decide what is found; the vectors only say who is classified correctly."""
    monkeypatch.setenv("MIALIB_WORKERS", "1")
    monkeypatch.setattr(known, "NINE", (("nn", "none"), ("nn", "under")))
    given, y, member = vectors(0.0)
    noise = np.random.default_rng(1).normal(size=(len(y), 8)).astype(np.float32)
    for features, found in ((noise + 6 * member[:, None], True), (noise, False)):
        attacked = known.nine_attacks("layer", Observations(given, y, member), SEARCH, 0, 1, features)
        row = experiments.measured([attacked], ["honest"]).set_index("metric").loc["balanced_accuracy"]
        assert row["value"] > 0.95 if found else abs(row["value"] - 0.5) < 0.15


def test_two_trainings_are_set_beside_each_other():
    about = {"attack": "honest", "subset": "all", "metric": "fpr"}
    names = {"cifar-100-alexnet": 0.3, "cifar-100-alexnet@5": 0.5, "cifar-100-alexnet-b@5": 0.4}
    table = experiments.between_trainings(
        pd.DataFrame([about | {"target": t, "value": v} for t, v in names.items()]), "demo"
    )
    assert table.iloc[0].tolist() == pytest.approx([0.5, 0.4, -0.1]) and len(table) == 1
