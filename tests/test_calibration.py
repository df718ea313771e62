"""The attack that subtracts what models without a record think of it."""

import dataclasses

import numpy as np
import pytest
from planted import dataset

from mialib import metrics
from mialib.attacks import Result, baselines, calibration
from mialib.models import small
from mialib.papers.shokri2017 import experiments
from mialib.papers.shokri2017.experiments import Row
from mialib.results import tables

ROW = Row("location-30", 100, 5, 3, 32, 120, 20)


def pair(leak, seed, shadows=6, n=400, m=500):
    """phi as records of very different difficulty have it; members stand `leak` higher than in other models."""
    rng = np.random.default_rng(seed)
    member, trained = np.arange(n) < n // 2, rng.random((shadows, m)) < 0.4
    hard, other = rng.normal(0, 5, n), rng.normal(0, 5, m)
    asked = hard + leak * member + rng.normal(0, 0.5, n)
    reference = hard + rng.normal(0, 0.5, (shadows, n))
    return member, asked, reference, other + leak * trained + rng.normal(0, 0.5, (shadows, m)), trained


def auc(member, result):
    return metrics.evaluate(member, result.score, result.predicted)["auc"]


def test_it_is_the_literal_loop():
    _, asked, reference, seen, trained = pair(1.0, 0, shadows=4, n=30, m=40)
    values, sides = [], []
    for i in range(4):
        for record in range(40):
            others = [seen[j, record] for j in range(4) if j != i and not trained[j, record]]
            if others:
                values.append(seen[i, record] - np.median(others))
                sides.append(trained[i, record])
    assert 0 < len(values) < 160  # of some records nobody is without
    threshold = baselines.best_threshold(np.array(values), np.array(sides))
    expected = [asked[k] - np.median(reference[:, k]) - threshold for k in range(30)]
    result = calibration.attack(asked, reference, seen, trained)
    np.testing.assert_allclose(result.score, expected)
    assert (result.predicted == (result.score >= 0)).all()


def test_a_leak_that_difficulty_hides_is_found_and_no_leak_is_not():
    member, *given = pair(2.0, 1)
    found = calibration.attack(*given)
    raw = Result(given[0], given[0] > 0)
    assert auc(member, found) > 0.95 > 0.7 > auc(member, raw)
    assert metrics.evaluate(member, found.score, found.predicted)["balanced_accuracy"] > 0.9
    member, *given = pair(0.0, 2)
    nothing = calibration.attack(*given)
    low, high = metrics.bootstrap(member, nothing.score, nothing.predicted, np.random.default_rng(0), 300)["auc"]
    assert low < 0.5 < high


def test_confidence_keeps_its_digits_near_one():
    logits = np.array([[0.0, 0.0], [30.0, 0.0], [0.0, 60.0], [200.0, 0.0]])
    given = small.softmax(logits)
    assert calibration.scaled(given, np.zeros(4, int)) == pytest.approx([0, 30, -60, 87.34], abs=0.01)
    p = np.random.default_rng(0).dirichlet(np.ones(3), 50)
    y = np.arange(50) % 3
    own = p[np.arange(50), y]
    np.testing.assert_allclose(calibration.scaled(p, y), np.log(own / (1 - own)))


def test_it_needs_two_shadows_and_a_record_that_one_of_them_lacks():
    _, asked, reference, seen, trained = pair(1.0, 0)
    with pytest.raises(ValueError, match="at least two shadow models, not 1"):
        calibration.attack(asked, reference[:1], seen[:1], trained[:1])
    with pytest.raises(ValueError, match="no members and non-members"):
        calibration.attack(asked, reference, seen, np.ones_like(trained))


def numbers(attacked, metric):
    table = tables.summary(attacked).set_index(["attack", "metric"])
    return table.loc[("calibrated", metric)]


@pytest.mark.parametrize("row", [ROW, dataclasses.replace(ROW, hidden=0, epochs=100)])
def test_the_shadows_of_an_attack_serve_it_and_find_the_planted_leak(row):
    data = dataset(0.6)
    attacked = experiments.attack(data, row, 0)
    found = experiments.calibrated(attacked, data, row, 0)
    assert set(found.answers) == {*attacked.answers, "calibrated"} and found.records == attacked.records
    assert numbers(found, "auc").low > 0.6 and numbers(found, "balanced_accuracy").value > 0.6


def test_the_shadows_of_an_attack_on_a_target_that_learnt_nothing_find_nothing():
    row, data = dataclasses.replace(ROW, epochs=1, batch=100, targets=5), dataset(0.0)
    found = numbers(experiments.calibrated(experiments.attack(data, row, 0), data, row, 0), "auc")
    assert found.low < 0.5 < found.high


def test_it_refuses_an_attack_on_other_records():
    data = dataset(0.6)
    attacked = experiments.attack(data, ROW, 0)
    with pytest.raises(ValueError, match="other records"):
        experiments.calibrated(attacked, data, ROW, 1)
