"""What the signals say of vectors whose answer is known."""

import numpy as np
import pytest
from scipy.stats import entropy

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
