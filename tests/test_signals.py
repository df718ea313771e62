"""What the signals say of vectors whose answer is known."""

import numpy as np
import pytest
from scipy.stats import entropy
from sklearn.metrics import roc_auc_score

from mialib.attacks import signals


def test_uncertainty_equals_the_entropy_in_base_n():
    vectors = np.random.default_rng(0).dirichlet(np.ones(7), size=20)
    assert signals.uncertainty(vectors) == pytest.approx(entropy(vectors, base=7, axis=1))


@pytest.mark.parametrize("classes", [2, 3, 10, 100])
def test_uncertainty_runs_from_sure_to_uniform(classes):
    sure, uniform = np.eye(classes, dtype=np.float32)[:1], np.full((1, classes), 1 / classes, np.float32)
    found = signals.uncertainty(np.concatenate([sure, uniform]))
    assert found.shape == (2,)
    assert found == pytest.approx([0, 1])
    assert found.min() >= 0
    assert found.max() <= 1


@pytest.mark.parametrize(
    ("vectors", "message"),
    [([[1.0]], "two classes"), ([[2.0, -1.0]], "softmax"), ([[np.nan, 1.0]], "softmax"), ([[0.5, 1.5]], "softmax")],
)
def test_uncertainty_refuses_what_is_no_probability(vectors, message):
    with pytest.raises(ValueError, match=message):
        signals.uncertainty(np.array(vectors))


def drawn(leak, n=1200, seed=0):
    rng = np.random.default_rng(seed)
    y, member = rng.integers(4, size=n), rng.random(n) < 0.6
    return np.round(rng.normal(size=n) + leak * member + 3 * y, 1), y, member


def test_auc_by_class_is_the_mean_of_each_classes_auc():
    feature, y, member = drawn(0.5)
    wanted = np.mean([roc_auc_score(member[y == k], feature[y == k]) for k in range(4)])
    found = signals.auc_by_class(feature, y, member, np.random.default_rng(0))
    assert found["value"] == pytest.approx(wanted, abs=1e-6) and found["low"] < wanted < found["high"]
    assert found["classes"] == 4 and found["records"] == (~member).sum() and found["low"] > 0.5
    assert found["members"] == pytest.approx(member.mean())


def test_auc_by_class_covers_chance_and_leaves_out_small_classes():
    rng = np.random.default_rng(1)
    ends = [signals.auc_by_class(*drawn(0.0, 200, seed), rng, repeats=100) for seed in range(100)]
    assert np.mean([end["low"] < 0.5 < end["high"] for end in ends]) >= 0.88
    feature, y, member = drawn(0.5)
    kept = (y != 2) | member
    found = signals.auc_by_class(feature[kept], y[kept], member[kept], rng)
    assert found["classes"] == 3
    nothing = signals.auc_by_class(feature[member], y[member], member[member], rng)
    assert nothing["classes"] == 0 and np.isnan(nothing["value"])
    assert signals.auc_by_class(np.full(len(y), np.nan), y, member, rng)["value"] == 0.5
