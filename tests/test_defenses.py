import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mialib.attacks import defenses

LOGITS = arrays(np.float32, (5, 6), elements=st.floats(-30, 30, width=32))


@given(LOGITS, st.integers(1, 6))
def test_top_k_keeps_the_k_largest_and_their_values(logits, k):
    full, cut = defenses.none(logits), defenses.top_k(logits, k)
    for row, kept in zip(full, cut, strict=True):
        assert (kept[kept > 0] == row[kept > 0]).all() and (kept > 0).sum() <= k
        assert kept.sum() == pytest.approx(np.sort(row)[::-1][:k].sum(), abs=1e-6)
    assert (cut.argmax(1) == full.argmax(1)).all()


@given(LOGITS)
def test_label_only_is_the_argmax(logits):
    out = defenses.label_only(logits)
    assert (out.sum(1) == 1).all() and (out.argmax(1) == defenses.none(logits).argmax(1)).all()


@given(LOGITS)
def test_rounding_is_pythons(logits):
    full = defenses.none(logits)
    expected = [[round(float(p), 3) for p in row] for row in full]
    np.testing.assert_allclose(defenses.rounded(logits, 3), expected, atol=1.001e-3 / 2)
    assert set(np.unique(defenses.rounded(logits, 0))) <= {0.0, 1.0}


@given(LOGITS)
def test_temperature_flattens(logits):
    cold, hot = defenses.temperature(logits, 1), defenses.temperature(logits, 20)
    np.testing.assert_allclose(cold, defenses.none(logits))
    np.testing.assert_allclose(hot.sum(1), 1, atol=1e-5)
    assert (hot.max(1) <= cold.max(1) + 1e-6).all()
    exact = np.exp(logits.astype(float) / 20)
    np.testing.assert_allclose(hot, exact / exact.sum(1, keepdims=True), atol=1e-5)


def test_bad_settings_are_refused():
    logits = np.zeros((1, 3), np.float32)
    with pytest.raises(ValueError, match="from 1 to 3 classes, not 4"):
        defenses.top_k(logits, 4)
    with pytest.raises(ValueError, match="0 or more, not -1"):
        defenses.rounded(logits, -1)
    with pytest.raises(ValueError, match="above 0, not 0"):
        defenses.temperature(logits, 0)
