import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mialib import metrics
from mialib.attacks import Observations, balance, baselines, classifiers, pool, signals
from mialib.models import small


def outputs(n, shift, seed, classes=3):
    """Prediction vectors of n members and n non-members; members' true-class logits are `shift` higher."""
    rng = np.random.default_rng(seed)
    y, member = rng.integers(classes, size=2 * n), np.arange(2 * n) < n
    logits = rng.normal(size=(2 * n, classes))
    logits[np.arange(2 * n), y] += 1 + shift * member
    return Observations(small.softmax(logits), y, member)


def auc_interval(seen, result):
    return metrics.bootstrap(seen.member, result.score, result.predicted, np.random.default_rng(0), 300)["auc"]


@pytest.mark.parametrize("kind", classifiers.KINDS)
def test_planted_leak_is_found_and_its_absence_is_not(kind):
    for shift, found in ((3.0, True), (0.0, False)):
        shadow, target = outputs(600, shift, 1), outputs(600, shift, 2)
        [result] = classifiers.attack(kind, shadow, [target], (0, "test"))
        low, high = auc_interval(target, result)
        assert low > 0.8 if found else low < 0.5 < high
        assert result.skipped == ()


@pytest.mark.parametrize("kind", classifiers.KINDS)
def test_each_class_has_its_own_model(kind):
    """Class 0 leaks upwards, class 1 downwards: one model for both would see nothing in the vectors' sorted values."""
    rng = np.random.default_rng(0)

    def make():
        y, member = rng.integers(2, size=800), rng.random(800) < 0.5
        confidence = np.where(member == (y == 0), 0.9, 0.6) + rng.normal(0, 0.02, 800)
        vectors = np.stack([confidence, 1 - confidence], 1).astype(np.float32)
        return Observations(vectors, y, member)

    shadow, target = make(), make()
    [result] = classifiers.attack(kind, shadow, [target], (0, "test"))
    assert (result.predicted == target.member).mean() > 0.97


@pytest.mark.parametrize("kind", classifiers.KINDS)
def test_a_class_seen_on_one_side_only_is_skipped_and_said(kind):
    shadow, target = outputs(150, 2.0, 1, classes=4), outputs(100, 2.0, 2, classes=4)
    one_sided = shadow.member | (shadow.y != 2)
    shadow = Observations(shadow.vectors[one_sided], shadow.y[one_sided], shadow.member[one_sided])
    absent = target.y != 3  # a class the target is not asked about does no harm either
    target = Observations(target.vectors[absent], target.y[absent], target.member[absent])
    [result] = classifiers.attack(kind, shadow, [target], (0, "test"))
    assert result.skipped == (2,)
    assert not result.predicted[target.y == 2].any() and (result.score[target.y == 2] == 0).all()
    assert np.unique(result.score[target.y == 1]).size > 1


@pytest.mark.parametrize("kind", classifiers.KINDS)
def test_flatter_vectors_hide_nothing(kind):
    """Shrinking all vectors towards a constant keeps all that they say; an attack that loses by it is badly scaled."""

    def flat(seen):
        return Observations((seen.vectors - 1 / 3) / 1000 + 1 / 3, seen.y, seen.member)

    shadow, target = outputs(600, 3.0, 1), outputs(600, 3.0, 2)
    aucs = [
        metrics.evaluate(target.member, result.score, result.predicted)["auc"]
        for given in ((shadow, target), (flat(shadow), flat(target)))
        for result in classifiers.attack(kind, given[0], [given[1]], (0, "test"))
    ]
    assert aucs[1] == pytest.approx(aucs[0], abs=0.01)


def test_several_targets_are_scored_as_if_alone():
    shadow, targets = outputs(200, 2.0, 1), [outputs(50, 2.0, 2), outputs(70, 2.0, 3)]
    for kind in ("nn", "forest"):
        together = classifiers.attack(kind, shadow, targets, (0, "test"))
        alone = [classifiers.attack(kind, shadow, [target], (0, "test"))[0] for target in targets]
        for a, b in zip(together, alone, strict=True):
            assert (a.score == b.score).all()


def test_unknown_attack_model_is_refused():
    seen = outputs(5, 0, 0)
    with pytest.raises(ValueError, match="unknown attack model 'svm'; valid: nn, logistic, forest, xgboost"):
        classifiers.attack("svm", seen, [seen], (0,))


def test_gap_attack_has_the_balanced_accuracy_it_must():
    seen = outputs(500, 1.0, 0)
    right = signals.correct(seen.vectors, seen.y)
    train, test = right[seen.member].mean(), right[~seen.member].mean()
    result = baselines.gap(seen)
    values = metrics.evaluate(seen.member, result.score, result.predicted)
    assert values["balanced_accuracy"] == pytest.approx(0.5 + (train - test) / 2)
    assert values["precision"] == pytest.approx(train / (train + test))


def test_zero_r_calls_everybody_a_member():
    seen = outputs(50, 1.0, 0)
    result = baselines.zero_r(seen)
    values = metrics.evaluate(seen.member, result.score, result.predicted)
    assert (values["recall"], values["fpr"], values["precision"], values["auc"]) == (1, 1, 0.5, 0.5)


@given(arrays(np.int8, 12, elements=st.integers(0, 4)), arrays(bool, 12))
def test_best_threshold_is_the_best_of_all(score, member):
    if member.all() or not member.any():
        return

    def balanced(threshold):
        hit = score >= threshold
        return hit[member].mean() - hit[~member].mean()

    best = baselines.best_threshold(score.astype(float), member)
    assert best in score
    assert balanced(best) == pytest.approx(max(balanced(t) for t in np.unique(score)))


def test_confidence_threshold_learns_from_shadows_only():
    shadow, target = outputs(400, 2.0, 1), outputs(400, 2.0, 2)
    result = baselines.confidence_threshold(shadow, target)
    confidence = signals.true_class(target.vectors, target.y)
    for label in range(3):
        rows = shadow.y == label
        threshold = baselines.best_threshold(signals.true_class(shadow.vectors, shadow.y)[rows], shadow.member[rows])
        asked = target.y == label
        assert (result.predicted[asked] == (confidence[asked] >= threshold)).all()
    swapped = Observations(target.vectors, target.y, ~target.member)
    assert (baselines.confidence_threshold(shadow, swapped).score == result.score).all()


def test_confidence_threshold_without_leak_is_chance():
    shadow, target = outputs(1000, 0.0, 1), outputs(1000, 0.0, 2)
    low, high = auc_interval(target, baselines.confidence_threshold(shadow, target))
    assert low < 0.5 < high


def test_pool_and_balance():
    parts = [outputs(5, 0, 1), outputs(7, 0, 2)]
    both = pool(parts)
    assert len(both.y) == 24 and (both.vectors[:10] == parts[0].vectors).all()
    lopsided = Observations(both.vectors, both.y, np.arange(24) < 20)
    even = balance(lopsided, np.random.default_rng(0))
    assert even.member.sum() == 4 and (~even.member).sum() == 4
    rows = {tuple(vector) for vector in lopsided.vectors[:20]}
    assert all(tuple(vector) in rows for vector in even.vectors[even.member])
    assert len({tuple(v) for v in even.vectors}) == 8


def test_softmax_is_stable_and_sums_to_one():
    logits = np.array(list(itertools.product([-1e4, 0.0, 1e4], repeat=3)), np.float32)
    vectors = small.softmax(logits)
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(vectors.sum(1), 1, atol=1e-6)
