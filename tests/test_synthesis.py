import itertools
import math

import numpy as np
import pytest
from scipy import stats

from mialib import runs
from mialib.attacks import synthesis
from mialib.attacks.synthesis import Search, synthesize

MASK = 2**64 - 1
SMALL = Search(k_max=8, k_min=2, rej_max=3, conf_min=0.3, iter_max=60)


def mix(state):
    """SplitMix64's output function, as its authors print it."""
    z = state & MASK
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def number(key, query, slot):
    return (mix(key + (query * 2**32 + slot) * 0x9E3779B97F4A7C15) >> 11) / 2**53


def subset(key, query, k, d):
    """Features in the order they are drawn; the first k (or d - k) different ones count."""
    features = (int(number(key, query, slot) * d) for slot in itertools.count(d + 1))
    few, chosen = min(k, d - k), set()
    while len(chosen) < few:
        chosen.add(next(features))
    return chosen if few == k else set(range(d)) - chosen


def literal(predict, d, label, key, search):
    """Algorithm 1, one record, line by line; returns (record or None, confidence, queries)."""
    x, best, top, rejected, k = [int(2 * number(key, 0, 1 + f)) for f in range(d)], None, 0.0, 0, min(search.k_max, d)
    for query in range(1, search.iter_max + 1):
        y = predict(np.array([x]))[0]
        if y[label] >= top:
            if y[label] > search.conf_min and label == y.argmax() and number(key, query - 1, 0) < y[label]:
                return x, y[label], query
            best, top, rejected = x, y[label], 0
        else:
            rejected += 1
            if rejected > search.rej_max:
                k, rejected = max(min(search.k_min, d), math.ceil(k / 2)), 0
        x = list(best)
        for f in subset(key, query, k, d):
            x[f] = 1 - x[f]
    return None, None, search.iter_max


def published(predict, label, d, search, rng):
    """Algorithm 1 for binary features with NumPy's generator: (confidence or None, queries)."""
    x, top, rejected, k = rng.integers(0, 2, d), 0.0, 0, search.k_max
    for query in range(1, search.iter_max + 1):
        y = predict(x[None])[0]
        if y[label] >= top:
            if y[label] > search.conf_min and y.argmax() == label and rng.random() < y[label]:
                return y[label], query
            best, top, rejected = x, y[label], 0
        else:
            rejected += 1
            if rejected > search.rej_max:
                k, rejected = max(search.k_min, math.ceil(k / 2)), 0
        x = best.copy()
        changed = rng.choice(d, k, replace=False)
        x[changed] = 1 - x[changed]
    return None, search.iter_max


def target(d, classes, strength=1.0):
    """A linear target, powers of two instead of softmax: exact, so that no rounding depends on the batch."""
    weight = np.round(64 * strength * np.random.default_rng(5).normal(size=(d, classes)))

    def predict(X):
        scores = np.floor(np.round(1024 * X.astype(float)) @ weight / 2**16)
        powers = np.exp2(np.maximum(scores - scores.max(1, keepdims=True), -40))
        return powers / powers.sum(1, keepdims=True)

    return predict


def recorded(answer):
    """A predict that gives answer(number of the call) to every record, and the list of all it was asked."""
    asked = []

    def predict(X):
        asked.append(X.copy())
        return np.tile(answer(len(asked)), (len(X), 1))

    return predict, asked


def test_numbers_are_splitmix64s():
    # The first outputs for seed 1234567, as in the reference implementations.
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    ours = synthesis._uniform(np.array([1234567], np.uint64), np.arange(1, 5))
    assert (ours == np.array([value >> 11 for value in known]) / 2**53).all()


@pytest.mark.parametrize("batch", [1, 3, 64])
@pytest.mark.parametrize("d", [10, 20])
def test_batches_give_the_records_of_the_literal_loop(d, batch):
    predict, wanted = target(d, 6, 0.6), np.arange(36) % 6
    made = synthesize(predict, d, wanted, (0, "test"), SMALL, batch)
    keys = runs.stream(0, "test").integers(2**64, size=36, dtype=np.uint64)
    loop = [literal(predict, d, label, int(key), SMALL) for label, key in zip(wanted, keys, strict=True)]
    assert made.kept.tolist() == [x is not None for x, _, _ in loop]
    assert made.queries.tolist() == [queries for _, _, queries in loop]
    assert made.confidence.tolist() == [sure for _, sure, _ in loop if sure is not None]
    np.testing.assert_array_equal(made.X, [x for x, _, _ in loop if x is not None])
    assert 3 < made.kept.sum() < 36, "both ways out of the loop are walked"


def test_outcomes_are_distributed_as_published():
    search, predict, wanted = Search(16, 2, 3, 0.4, 30), target(40, 8, 0.5), np.arange(800) % 8
    made = synthesize(predict, 40, wanted, (0, "test"), search)
    rng = runs.stream(0, "literal")
    loop = [published(predict, label, 40, search, rng) for label in wanted]
    kept = np.array([sure is not None for sure, _ in loop])
    assert 0.05 < kept.mean() < 0.95, "a search in which records can fail"
    table = [[made.kept.sum(), (~made.kept).sum()], [kept.sum(), (~kept).sum()]]
    assert stats.fisher_exact(table).pvalue > 0.01
    assert stats.ks_2samp(made.queries, [queries for _, queries in loop]).pvalue > 0.01
    assert stats.ks_2samp(made.confidence, [sure for sure, _ in loop if sure is not None]).pvalue > 0.01
    for label in range(8):
        own = [queries for (_, queries), wish in zip(loop, wanted, strict=True) if wish == label]
        assert stats.ks_2samp(made.queries[wanted == label], own).pvalue > 0.001


def test_records_depend_on_the_seed_words_and_their_place_only():
    predict = target(20, 4)
    made = synthesize(predict, 20, np.arange(40) % 4, (0, "a"), SMALL)
    again = synthesize(predict, 20, np.arange(40) % 4, (0, "a"), SMALL, batch=7)
    other = synthesize(predict, 20, np.arange(40) % 4, (0, "b"), SMALL)
    first = synthesize(predict, 20, np.arange(12) % 4, (0, "a"), SMALL)
    assert (made.X == again.X).all() and (made.queries == again.queries).all()
    assert made.queries.tolist() != other.queries.tolist()
    assert (made.X[: len(first.X)] == first.X).all() and (made.queries[:12] == first.queries).all()


def test_what_is_kept_is_what_the_target_says():
    predict, wanted = target(10, 5), np.arange(200) % 5
    made = synthesize(predict, 10, wanted, (0, "test"), SMALL)
    y = predict(made.X)
    assert (y.argmax(1) == made.y).all() and (made.y == wanted[made.kept]).all()
    np.testing.assert_array_equal(y.max(1), made.confidence)
    assert (made.confidence > SMALL.conf_min).all()
    assert (made.queries[~made.kept] == SMALL.iter_max).all() and made.queries.max() <= SMALL.iter_max
    assert made.X.dtype == np.uint8 and set(np.unique(made.X)) == {0, 1}


def test_batches_stay_full_and_calls_are_few():
    calls = []

    def predict(X):
        calls.append(len(X))
        return target(20, 6, 0.6)(X)

    made = synthesize(predict, 20, np.arange(200) % 6, (0, "test"), SMALL, batch=32)
    assert sum(calls) == made.queries.sum() and calls == sorted(calls, reverse=True)
    assert calls.count(32) >= len(calls) - SMALL.iter_max, "only records already begun are left after the last full one"
    assert 20 * len(calls) < made.queries.sum()


def test_equality_is_accepted_and_a_class_that_is_never_given_times_out():
    predict, asked = recorded(lambda call: [0.5, 0.5])  # the largest entry is class 0, as in np.argmax
    made = synthesize(predict, 600, np.ones(3, int), (0, "test"), Search(iter_max=50))
    moves = [(a != b).sum(1) for a, b in itertools.pairwise(asked)]
    assert len(asked) == 50 and (np.array(moves) == 128).all(), "k never falls, each step starts from the last record"
    assert made.X.shape == (0, 600) and made.queries.tolist() == [50, 50, 50] and not made.kept.any()
    told = synthesis.summary(made)
    assert told["timed out"] == {1: 3} and told["classes without records"] == [1] and np.isnan(told["queries"])


@pytest.mark.parametrize(
    ("search", "ladder"),
    [(Search(iter_max=80), [128, 64, 32, 16, 8, 4, 4, 4]), (Search(700, 90, 10, 0.2, 62), [600, 300, 150, 90, 90, 90])],
)
def test_rejections_halve_the_step_down_to_the_least(search, ladder):
    # Less and less sure: the first record stays the best. 11 rejections in a row are more than 10.
    predict, asked = recorded(lambda call: [1 - 0.1 / call, 0.1 / call])
    synthesize(predict, 600, [1], (0, "test"), search)
    moves = [int((x != asked[0]).sum()) for x in asked[1:]]
    assert moves == [k for k in ladder for _ in range(11)][: search.iter_max - 1]


def test_halving_rounds_up_and_acceptance_starts_the_count_again():
    sure = iter([0.1, 0.05, 0.2, 0.05, 0.05, 0.05, 0.05, 0.05])  # rejected, accepted, then rejected twice a step
    predict, asked = recorded(lambda call: [1 - (p := next(sure)), p])
    synthesize(predict, 30, [1], (0, "test"), Search(7, 1, 1, 0.5, 8))
    best = [0, 0, 2, 2, 2, 2, 2]
    assert [int((asked[i + 1] != asked[j]).sum()) for i, j in enumerate(best)] == [7, 7, 7, 7, 4, 4, 2]


def test_records_are_kept_with_the_probability_of_their_class():
    predict, _ = recorded(lambda call: [0.6, 0.4])
    made = synthesize(predict, 12, np.zeros(4000, int), (0, "test"))
    counts = np.bincount(np.minimum(made.queries, 6), minlength=7)[1:]
    expected = 4000 * np.array([0.6 * 0.4**i for i in range(5)] + [0.4**5])
    assert made.kept.all() and stats.chisquare(counts, expected).pvalue > 0.01
    never = synthesize(predict, 12, [0], (0, "test"), Search(conf_min=0.6, iter_max=20))
    assert not never.kept.any(), "the confidence has to be above conf_min"


def test_random_records_are_uniform():
    keys = np.random.default_rng(0).integers(2**64, size=6000, dtype=np.uint64)
    X = synthesis._random_records(keys, 10)
    assert X.shape == (6000, 10) and X.dtype == np.uint8
    for feature in X.T:
        assert stats.chisquare(np.bincount(feature, minlength=2)).pvalue > 0.001


@pytest.mark.parametrize("k", [2, 3])
def test_every_subset_is_as_likely(k):
    keys = np.random.default_rng(1).integers(2**64, size=20_000, dtype=np.uint64)
    chosen = synthesis._subsets(keys, np.full(20_000, k), 5)
    assert (chosen.sum(1) == k).all()
    counts = np.unique(chosen @ (1 << np.arange(5)), return_counts=True)[1]
    assert len(counts) == 10 and stats.chisquare(counts).pvalue > 0.001


def test_subsets_of_many_sizes_at_once():
    rng = np.random.default_rng(2)
    k = rng.permutation(np.repeat([0, 1, 4, 128, 299, 301, 599, 600], 300))
    chosen = synthesis._subsets(rng.integers(2**64, size=len(k), dtype=np.uint64), k, 600)
    assert (chosen.sum(1) == k).all()
    for size in (128, 301):
        share = size / 600
        z = (chosen[k == size].sum(0) - 300 * share) / np.sqrt(300 * share * (1 - share))
        assert np.abs(z).max() < 4.5


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (np.array([[np.nan, 0.5]]), "not NaN"),
        (np.array([[0.7, 0.302]]), "summing to 1"),
        (np.array([[1.2, -0.2]]), "not negative"),
        (np.array([[np.inf, -np.inf]]), "must give probabilities"),
        (np.array([0.5, 0.5]), r"shape \(2,\), not \(1, classes\)"),
        (np.array([[0.5, 0.5], [0.5, 0.5]]), r"shape \(2, 2\), not \(1, classes\)"),
        (np.array([[1.0]]), "the target has one class"),
    ],
)
def test_answers_that_are_no_probabilities_are_refused(answer, words):
    with pytest.raises(ValueError, match=words):
        synthesize(lambda X: answer, 4, [1], (0, "test"))


def test_probabilities_may_be_off_by_rounding_and_may_come_as_lists():
    made = synthesize(lambda X: [[0.0004, 1.0004]] * len(X), 4, [1], (0, "test"))
    assert made.kept.all() and made.queries.tolist() == [1]


def test_number_of_classes_may_not_change():
    answers = iter([[[0.9, 0.1]], [[0.8, 0.1, 0.1]]])
    with pytest.raises(ValueError, match=r"shape \(1, 3\), not \(1, 2\)"):
        synthesize(lambda X: next(answers), 4, [1], (0, "test"))


@pytest.mark.parametrize(
    ("wanted", "words"),
    [([], "at least one class"), ([0.0], "whole numbers"), ([[1]], "at least one"), ([2], "0 to 1"), ([-1], "0 to 1")],
)
def test_classes_that_cannot_be_wanted_are_refused(wanted, words):
    with pytest.raises(ValueError, match=words):
        synthesize(target(4, 2), 4, wanted, (0, "test"))


def test_bad_settings_are_refused():
    for bad in ({"k_min": 0}, {"k_max": 3}, {"rej_max": -1}, {"conf_min": 1.0}, {"conf_min": np.nan}, {"iter_max": 0}):
        with pytest.raises(ValueError, match="must hold"):
            Search(**bad)
    with pytest.raises(ValueError, match="batch must be at least 1"):
        synthesize(target(4, 2), 4, [1], (0, "test"), batch=0)
    with pytest.raises(ValueError, match="d and batch must be at least 1"):
        synthesize(target(4, 2), 0, [1], (0, "test"))


def test_summary_counts_queries_of_failures_too():
    made = synthesis.Synthetic(
        np.zeros((3, 2), np.uint8), np.array([0, 0, 1]), np.array([0.5, 0.7, 0.3]),
        np.array([0, 0, 1, 1, 2]), np.array([True, True, True, False, False]), np.array([10, 20, 60, 100, 100]),
    )  # fmt: skip
    assert synthesis.summary(made) == {
        "wanted": 5, "kept": 3, "queries": 30, "queries with failures": pytest.approx(290 / 3),
        "confidence": pytest.approx(0.5), "timed out": {1: 1, 2: 1}, "classes without records": [2],
    }  # fmt: skip


def test_marginals_are_kept_and_nothing_else():
    rng = np.random.default_rng(3)
    X = (rng.random((500, 40)) < rng.random(40)).astype(np.uint8)
    X[:, 0], X[:, 1], X[:, 2] = X[:, 3], 0, 1  # a copy, and two constants
    made = synthesis.marginal(X, 20_000, rng)
    assert made.shape == (20_000, 40) and made.dtype == np.uint8
    spread = np.sqrt(X.mean(0) * (1 - X.mean(0)) / 20_000)
    assert (np.abs(made.mean(0) - X.mean(0)) <= 4.5 * spread).all(), "constants stay what they are"
    mixed = np.delete(made, [1, 2], axis=1).astype(float)
    correlation = np.corrcoef(mixed.T)[np.triu_indices(38, 1)]
    assert np.abs(correlation).max() < 5 / np.sqrt(20_000), "the copy too"
    values = rng.normal(size=(7, 2)).astype(np.float32)
    few = synthesis.marginal(values, 300, rng)
    assert few.dtype == np.float32 and all(set(few[:, i]) == set(values[:, i]) for i in (0, 1))


@pytest.mark.parametrize("X", [np.zeros((0, 3)), np.zeros((3, 0)), np.zeros(3), [[1, 0]]])
def test_marginals_of_nothing_are_refused(X):
    with pytest.raises(ValueError, match="dense matrix with at least one record"):
        synthesis.marginal(X, 5, np.random.default_rng(0))


def test_no_records_cannot_be_asked_of_marginals():
    with pytest.raises(ValueError, match="n at least 1"):
        synthesis.marginal(np.zeros((2, 2)), 0, np.random.default_rng(0))


@pytest.mark.parametrize("dtype", [np.uint8, bool, np.float32, np.int64])
@pytest.mark.parametrize("share", [0, 0.1, 0.2, 0.77, 1])
def test_noise_changes_the_share_of_features_asked_for(dtype, share):
    rng = np.random.default_rng(4)
    X = (rng.random((5000, 43)) < 0.3).astype(dtype)
    before, k = X.copy(), round(share * 43)
    flips = synthesis.flipped(X, share, rng)
    assert flips.dtype == dtype and flips.shape == X.shape and np.array_equal(X, before)
    assert ((flips != X).sum(1) == k).all() and np.isin(flips, [0, 1]).all()
    z = ((flips != X).sum(0) - 5000 * k / 43) / np.sqrt(5000 * k / 43 * (1 - k / 43) + 1e-9)
    assert np.abs(z).max() < 4.5, "all features alike"
    noisy = synthesis.replaced(X, share, rng)
    moved = (noisy != X).sum(1)
    assert noisy.dtype == dtype and moved.max() <= k and np.isin(noisy, [0, 1]).all()
    assert abs(moved.sum() - 5000 * k / 2) <= 4.5 * np.sqrt(5000 * k) / 2, "about half of them change"


@pytest.mark.parametrize("noise", [synthesis.flipped, synthesis.replaced])
def test_noise_is_for_binary_records(noise):
    rng = np.random.default_rng(0)
    assert noise(np.zeros((0, 4), np.uint8), 0.5, rng).shape == (0, 4)
    for X in (np.full((2, 2), 2), np.full((2, 2), np.nan), np.zeros(4), [[0, 1]]):
        with pytest.raises(ValueError, match="dense matrix of zeros and ones"):
            noise(X, 0.1, rng)
    for share in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="share must be from 0 to 1"):
            noise(np.zeros((2, 2)), share, rng)
