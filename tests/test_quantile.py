"""Quantile regression: its signal, and what it finds where there is a leak, where there is none, and of bad input."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mialib.attacks import quantile


def planted(leak, n=3000, seed=0, spread=2.0):
    """Records whose signal follows from what they are, for members `leak` more."""
    rng = np.random.default_rng(seed)
    # Of different spread, so that the principal components are the columns, along which trees cut.
    X, y, member = rng.normal(size=(n, 6)) * [6, 5, 4, 3, 2, 1], rng.integers(4, size=n), np.arange(n) % 2 == 0
    hard = spread * np.sign(X[:, 0]) + y
    return hard + rng.normal(size=n) * np.exp(0.1 * X[:, 1]) + leak * member, X, y, member


def test_the_margin_is_that_of_a_loop():
    rng = np.random.default_rng(1)
    logits, y = rng.normal(size=(30, 5)), rng.integers(5, size=30)
    wanted = [row[label] - max(np.delete(row, label)) for row, label in zip(logits, y, strict=True)]
    np.testing.assert_allclose(quantile.margin(logits, y), wanted)
    both = quantile.margin(np.stack([logits, -logits]), np.stack([y, y]))
    np.testing.assert_allclose(both[0], wanted)


@pytest.mark.parametrize("seed", range(3))
def test_where_nothing_leaks_the_auc_is_one_half(seed):
    signal, X, y, member = planted(0.0, seed=seed)
    auc = roc_auc_score(member, quantile.score(signal, X, y, member, (seed, "null")))
    assert abs(auc - 0.5) < 4 * np.sqrt(3001 / (12 * 1500 * 1500))


def test_a_leak_that_hard_and_easy_records_hide_is_found():
    signal, X, y, member = planted(1.0, n=8000, spread=4.0)
    plain = roc_auc_score(member, signal)
    found = quantile.score(signal, X, y, member, (0, "leak"))
    # What knows how hard each record is, and how much its signal varies, does no better than this.
    best = (signal - 4 * np.sign(X[:, 0]) - y) / np.exp(0.1 * X[:, 1])
    assert plain + 0.08 < roc_auc_score(member, found) <= roc_auc_score(member, best) + 0.01


def test_who_the_members_are_is_not_looked_at():
    """Beyond the halves, which need only be halves: what members say teaches nothing."""
    signal, X, y, member = planted(1.0, n=400)
    before = quantile.score(signal, X, y, member, (0, "blind"))
    after = quantile.score(np.where(member, signal + 50, signal), X, y, member, (0, "blind"))
    np.testing.assert_array_equal(before[~member], after[~member])


def test_deviations_are_above_zero_where_the_signal_does_not_vary():
    _, X, y, member = planted(0.0, n=200)
    assert np.isfinite(quantile.score(np.zeros(200), X, y, member, (0, "flat"))).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"member": np.arange(40) > 5}, "eight non-members"),
        ({"signal": np.full(40, np.nan)}, "finite signal"),
        ({"X": np.zeros((39, 3))}, "each of 39 records"),
    ],
)
def test_bad_input_is_one_line(change, message):
    given = {"signal": np.zeros(40), "X": np.zeros((40, 3)), "y": np.zeros(40, int), "member": np.arange(40) % 2 == 0}
    with pytest.raises(ValueError, match=message):
        quantile.score(**given | change, words=(0, "bad"))
