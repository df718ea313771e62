"""Oracles: scikit-learn, counting by hand, and the literal bootstrap loop."""

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from sklearn import metrics as sk

from mialib import metrics

# Few distinct scores, so that ties are the rule.
SCORES = st.sampled_from([-np.inf, -1.5, 0.0, 1e-300, 0.25, 0.5, 0.75, np.inf])


@st.composite
def attacks(draw):
    n = draw(st.integers(2, 40))
    member = draw(hnp.arrays(bool, n).filter(lambda a: a.any() and not a.all()))
    score = draw(hnp.arrays(float, n, elements=SCORES))
    return member, score, draw(hnp.arrays(bool, n))


def example(n=200, ties=True, seed=0):
    rng = np.random.default_rng(seed)
    member = rng.random(n) < 0.4
    score = rng.normal(size=n) + 0.7 * member
    score = score.round(1) if ties else score
    return member, score, score > 0.5


@given(attacks())
@settings(deadline=None)
def test_evaluate_equals_scikit_learn(attack):
    member, score, predicted = attack
    finite = np.nan_to_num(score, posinf=9, neginf=-9)
    ours = metrics.evaluate(member, score, predicted)
    assert tuple(ours) == metrics.METRICS
    assert all(type(value) is float for value in ours.values())
    expected = {
        "accuracy": sk.accuracy_score(member, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(member, predicted),
        "precision": sk.precision_score(member, predicted, zero_division=np.nan),
        "recall": sk.recall_score(member, predicted),
        "precision_nonmember": sk.precision_score(~member, ~predicted, zero_division=np.nan),
        "recall_nonmember": sk.recall_score(~member, ~predicted),
        "fpr": np.mean(predicted[~member]),
        "f1": sk.f1_score(member, predicted),
        "auc": sk.roc_auc_score(member, finite),
    }
    assert {name: ours[name] for name in expected} == pytest.approx(expected, nan_ok=True)


@given(attacks())
@settings(deadline=None)
def test_auc_and_tpr_equal_counting_by_hand(attack):
    member, score, predicted = attack
    ours = metrics.evaluate(member, score, predicted)
    wins = [(m > o) + (m == o) / 2 for m, o in itertools.product(score[member], score[~member])]
    assert ours["auc"] == pytest.approx(np.mean(wins))
    for name, percent in (("tpr_at_10", 10), ("tpr_at_1", 1), ("tpr_at_0.1", 0.1)):
        best = 0.0  # the threshold nothing reaches
        for threshold in score:
            if np.sum(score[~member] >= threshold) * 100 <= percent * np.sum(~member):
                best = max(best, np.mean(score[member] >= threshold))
        assert ours[name] == pytest.approx(best), name


@given(attacks())
@settings(deadline=None)
def test_turning_the_scores_round_turns_the_auc_round(attack):
    member, score, predicted = attack
    forward, backward = (metrics.evaluate(member, sign * score, predicted)["auc"] for sign in (1, -1))
    assert backward == pytest.approx(1 - forward)


def test_tpr_at_takes_ties_together_and_does_not_interpolate():
    member = np.array([True] * 10 + [False] * 10)
    score = np.array([1.0] * 4 + [0.5] * 6 + [0.5] + [0.0] * 9)
    assert metrics.evaluate(member, score, score > 0)["tpr_at_10"] == 1.0  # an FPR of exactly 10 % is allowed
    assert metrics.evaluate(member, score, score > 0)["tpr_at_1"] == 0.4
    score[11] = 0.5  # the tie now costs 20 %
    assert metrics.evaluate(member, score, score > 0)["tpr_at_10"] == 0.4
    assert metrics.evaluate(member, np.zeros(20), score > 0)["tpr_at_10"] == 0.0


def test_undefined_values_are_nan():
    member, score, _ = example()
    nobody = metrics.evaluate(member, score, np.zeros(len(member), dtype=bool))
    assert np.isnan(nobody["precision"])
    assert (nobody["recall"], nobody["fpr"], nobody["f1"], nobody["balanced_accuracy"]) == (0, 0, 0, 0.5)
    everybody = metrics.evaluate(member, score, np.ones(len(member), dtype=bool))
    assert np.isnan(everybody["precision_nonmember"])
    assert everybody["precision"] == pytest.approx(member.mean())


@pytest.mark.parametrize("side", [True, False])
def test_one_side_alone_is_not_an_evaluation(side):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = metrics.evaluate(np.full(4, side), np.arange(4.0), np.array([True, True, True, False]))
    defined = {"accuracy": 0.75, "recall": 0.75} if side else {"accuracy": 0.25, "recall_nonmember": 0.25, "fpr": 0.75}
    assert {name: value for name, value in values.items() if not np.isnan(value)} == defined


GOOD = (np.array([True, False]), np.array([0.5, 0.1]), np.array([True, False]))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ((GOOD[0], GOOD[1][:1], GOOD[2]), "one length"),
        ((GOOD[0][:, None], GOOD[1], GOOD[2]), "one length"),
        ((np.array([1, 0]), GOOD[1], GOOD[2]), "member must be a boolean"),
        ((GOOD[0], GOOD[1], np.array([1.0, 0.0])), "predicted must be a boolean"),
        ((GOOD[0], np.array([0.5, np.nan]), GOOD[2]), "1 of 2 scores are nan"),
        (([], [], []), "no records"),
    ],
)
def test_bad_input_is_refused(bad, message):
    for function in (metrics.evaluate, lambda *a: metrics.bootstrap(*a, np.random.default_rng(0))):
        with pytest.raises(ValueError, match=message):
            function(*bad)


def literal_bootstrap(member, score, predicted, rng, repeats):
    inside, outside = np.flatnonzero(member), np.flatnonzero(~member)
    results = []
    for _ in range(repeats):
        drawn = [side[rng.integers(len(side), size=len(side))] for side in (inside, outside)]
        index = np.concatenate(drawn)
        results.append(metrics.evaluate(member[index], score[index], predicted[index]))
    table = {name: np.array([result[name] for result in results]) for name in metrics.METRICS}
    return {name: np.percentile(v[~np.isnan(v)], [2.5, 97.5]) for name, v in table.items()}


@pytest.mark.parametrize(("n", "ties"), [(200, True), (200, False), (13, True)])
def test_bootstrap_equals_the_literal_loop(n, ties):
    attack = example(n, ties)
    fast = metrics.bootstrap(*attack, np.random.default_rng(3), repeats=150)
    slow = literal_bootstrap(*attack, np.random.default_rng(3), repeats=150)
    assert tuple(fast) == metrics.METRICS
    for name in metrics.METRICS:
        assert fast[name] == pytest.approx(tuple(slow[name]), abs=1e-12), name


def test_bootstrap_leaves_undefined_resamples_out():
    member, score = np.array([True, True, False, False]), np.array([0.9, 0.1, 0.2, 0.1])
    predicted = score > 0.5  # a quarter of the resamples predict no member at all
    intervals = metrics.bootstrap(member, score, predicted, np.random.default_rng(0), repeats=200)
    assert intervals["precision"] == (1.0, 1.0)
    nobody = metrics.bootstrap(member, score, np.zeros(4, dtype=bool), np.random.default_rng(0), repeats=20)
    assert np.isnan(nobody["precision"]).all()
    one_side = metrics.bootstrap(np.ones(4, dtype=bool), score, predicted, np.random.default_rng(0))
    assert np.isnan(list(one_side.values())).all()


def test_bootstrap_covers_the_value_and_a_useless_attack():
    rng = np.random.default_rng(5)
    member, score, predicted = example(2000, ties=False)
    value, interval = metrics.evaluate(member, score, predicted), metrics.bootstrap(member, score, predicted, rng)
    for name in metrics.METRICS:
        assert interval[name][0] <= value[name] <= interval[name][1], name
    assert interval["auc"][0] > 0.5
    score = rng.normal(size=2000)
    low, high = metrics.bootstrap(member, score, score > 0, rng)["auc"]
    assert low < 0.5 < high
    assert high - low < 0.1
    with pytest.raises(ValueError, match="repeats"):
        metrics.bootstrap(member, score, predicted, rng, repeats=0)


def test_per_class_is_evaluate_on_each_class():
    member, score, predicted = example(300)
    y = np.random.default_rng(1).integers(3, size=300)
    member[y == 2] = True
    table = metrics.per_class(member, score, predicted, y, classes=4)
    assert list(table.columns) == [*metrics.METRICS, "members", "non_members"]
    assert list(table.index) == [0, 1, 2, 3]
    here = y == 1
    expected = metrics.evaluate(member[here], score[here], predicted[here])
    assert table.loc[1, list(metrics.METRICS)].to_dict() == expected
    assert table["members"].sum() == member.sum()
    assert table.loc[2, "non_members"] == 0
    assert np.isnan(table.loc[2, "precision"])
    assert table.loc[3, list(metrics.METRICS)].isna().all()
    assert table.loc[3, ["members", "non_members"]].tolist() == [0, 0]


@pytest.mark.parametrize("y", [np.array([0, 2]), np.array([-1, 0]), np.array([0]), np.array([0.0, 1.0])])
def test_per_class_refuses_bad_labels(y):
    with pytest.raises(ValueError, match=r"label"):
        metrics.per_class(*GOOD, y, classes=2)


def test_over_seeds_is_the_student_t_interval():
    summary = metrics.over_seeds([{"auc": 0.6}, {"auc": 0.7}, {"auc": 0.8}])
    half = 4.302653 * 0.1 / np.sqrt(3)  # t of two degrees of freedom, from a printed table
    assert summary == {"auc": pytest.approx((0.7, 0.7 - half, 0.7 + half), abs=1e-6)}
    assert metrics.over_seeds([{"auc": 0.6}])["auc"] == pytest.approx((0.6, np.nan, np.nan), nan_ok=True)
    assert np.isnan(metrics.over_seeds([{"f1": 0.6}, {"f1": np.nan}])["f1"]).all()
    with pytest.raises(ValueError, match="at least one"):
        metrics.over_seeds([])
    with pytest.raises(ValueError, match="same metrics"):
        metrics.over_seeds([{"auc": 0.6}, {"f1": 0.6}])


def test_no_interval_of_a_rate_leaves_its_range():
    """The first scorecard that a newcomer saw had "0.453 to 1.159"."""
    half = 4.302653 * np.std([0.6, 0.9, 1.0], ddof=1) / np.sqrt(3)
    mean, low, high = metrics.over_seeds([{"recall": rate} for rate in (0.6, 0.9, 1.0)])["recall"]
    assert (mean, low, high) == pytest.approx((2.5 / 3, 2.5 / 3 - half, 1.0), abs=1e-6)
    assert metrics.over_seeds([{"fpr": 0.0}, {"fpr": 0.1}])["fpr"][1] == 0.0
    assert metrics.over_seeds([{"gap": -0.9}, {"gap": 0.1}])["gap"][1] == -1.0
    assert metrics.over_seeds([{"synthesis_queries": 3}, {"synthesis_queries": 90}])["synthesis_queries"][1] == 0.0
    assert metrics.over_seeds([{"noisy 10%": -0.4}, {"noisy 10%": 0.4}])["noisy 10%"][1] < -1
    for name in metrics.METRICS:
        assert metrics.limits(name) == (0, 1)


@given(st.lists(st.floats(0, 1), max_size=6))
def test_mean_interval_holds_its_mean(values):
    mean, low, high = metrics.mean_interval(values, 0, 1)
    assert np.isnan(mean) == (not values) and np.isnan(low) == np.isnan(high) == (len(values) < 2)
    if len(values) > 1:
        assert 0 <= low <= mean + 1e-12 and mean - 1e-12 <= high <= 1


@given(attacks())
@settings(deadline=None)
def test_precision_at_the_sample_base_rate_is_the_sample_precision(attack):
    member, score, predicted = attack
    values = metrics.evaluate(member, score, predicted)
    bayes = metrics.precision_at(member.mean(), values["recall"], values["fpr"])
    assert bayes == pytest.approx(values["precision"], nan_ok=True)


def test_precision_at_a_low_base_rate():
    assert metrics.precision_at(np.array([0.5, 0.01]), 0.9, 0.1) == pytest.approx([0.9, 1 / 12])
    assert np.isnan(metrics.precision_at(0.5, 0, 0))
    with pytest.raises(ValueError, match="tpr must lie in 0"):
        metrics.precision_at(0.5, 1.1, 0.1)


def test_correlation_is_pearson_with_fisher_z():
    rng = np.random.default_rng(0)
    x = rng.normal(size=50)
    y = 0.6 * x + rng.normal(size=50)
    r = np.corrcoef(x, y)[0, 1]
    half = 1.959964 / np.sqrt(50 - 3)  # by hand, on Fisher's scale
    expected = (r, np.tanh(np.arctanh(r) - half), np.tanh(np.arctanh(r) + half))
    assert metrics.correlation(x, y) == pytest.approx(expected, abs=1e-6)
    assert metrics.correlation([*x, np.nan, 1.0], [*y, 1.0, np.nan]) == metrics.correlation(x, y)
    assert metrics.correlation([1, 2, 3, 4], [2, 4, 6, 8]) == pytest.approx((1, 1, 1))


@pytest.mark.parametrize(
    ("x", "y"), [([1, 2, 3], [1, 3, 2]), ([0.1] * 5, range(5)), (range(5), [0.1] * 5), ([1, 2, 3, np.nan], range(4))]
)
def test_correlation_of_too_little_is_nan(x, y):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(metrics.correlation(x, y)).all()


def test_correlation_refuses_unequal_columns():
    with pytest.raises(ValueError, match=r"got \(3,\) and \(4,\)"):
        metrics.correlation([1, 2, 3], [1, 2, 3, 4])


def test_histogram_puts_tenths_into_the_bin_they_open():
    tenths = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    assert metrics.histogram(tenths) == pytest.approx(np.full(10, 0.1))
    assert metrics.histogram([1.0, 0.0, 0.04, 0.95]) == pytest.approx([0.5, *[0] * 8, 0.5])


@pytest.mark.parametrize("values", [[], [0.5, 1.01], [-0.01], [np.nan]])
def test_histogram_refuses_what_it_would_drop(values):
    with pytest.raises(ValueError, match="at least one value"):
        metrics.histogram(values)


@given(hnp.arrays(float, st.integers(1, 30), elements=st.floats(0, 1)), st.integers(1, 12))
def test_overlap_of_a_sample_with_itself_is_one(values, bins):
    assert metrics.overlap(values, values, bins) == pytest.approx(1)
    assert metrics.overlap(values, np.repeat(values, 3), bins) == pytest.approx(1)


def test_overlap_by_hand():
    assert metrics.overlap([0.0, 0.09], [0.1, 0.95]) == 0
    assert metrics.overlap([0.05, 0.15, 0.15, 0.95], [0.01, 0.02, 0.12, 0.99]) == pytest.approx(0.75)
    assert metrics.overlap([0.05, 0.15], [0.15, 0.05], bins=2) == 1


def test_overlap_interval_sees_a_difference_and_only_one():
    rng = np.random.default_rng(0)
    a, b = rng.random(400), rng.random(300)
    same, other = (metrics.overlap_interval(a, each, rng, 200) for each in (b, b**3))
    assert same["overlap"] == metrics.overlap(a, b) and abs(same["overlap"] - same["if_alike"]) < 0.06
    assert other["overlap"] < other["if_alike"] - 0.2 and other["low"] < other["overlap"] < other["high"] < 0.9


def test_share_has_the_wilson_interval():
    hits, n, z = 37, 50, stats.norm.ppf(0.975)
    middle, half = hits / n + z**2 / 2 / n, z * np.sqrt(hits * (n - hits) / n**3 + z**2 / 4 / n**2)
    found = metrics.share(hits, n)
    assert found == pytest.approx((0.74, (middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)))
    assert np.isnan(metrics.share(0, 0)).all() and metrics.share(5, 5)[2] == 1
    with pytest.raises(ValueError):
        metrics.share(6, 5)


@given(attacks())
@settings(deadline=None)
def test_low_fpr_is_evaluates_tpr_with_the_clopper_pearson_interval(attack):
    member, score, predicted = attack
    found = metrics.low_fpr(member, score)
    assert tuple(found) == tuple(metrics.LOW_FPR)
    fpr, tpr, _ = sk.roc_curve(member, np.nan_to_num(score, posinf=9, neginf=-9), drop_intermediate=False)
    for name, (value, low, high) in found.items():
        assert value == pytest.approx(tpr[fpr <= metrics.LOW_FPR[name]].max())
        hits, n = round(value * member.sum()), member.sum()  # the interval by its textbook formula
        assert low == pytest.approx(stats.beta.ppf(0.025, hits, n - hits + 1) if hits else 0)
        assert high == pytest.approx(stats.beta.ppf(0.975, hits + 1, n - hits) if hits < n else 1)
    shared = metrics.evaluate(member, score, predicted)
    assert {name: shared[name] for name in found if name in shared} == pytest.approx(
        {name: found[name][0] for name in found if name in shared}
    )


def test_low_fpr_of_ten_thousand_non_members_allows_one_false_alarm():
    member = np.arange(20_000) < 10_000
    score = np.where(member, 1.0, 0.0)
    score[10_000] = 2.0
    assert metrics.low_fpr(member, score)["tpr_at_0.01"][0] == 1.0
    score[10_001] = 2.0
    assert metrics.low_fpr(member, score)["tpr_at_0.01"] == (0.0, 0.0, pytest.approx(3.69e-4, rel=0.01))
    assert metrics.low_fpr(member, score)["tpr_at_0.1"][0] == 1.0
    assert np.isnan(metrics.low_fpr(np.ones(3, bool), np.arange(3.0))["tpr_at_1"]).all()
    with pytest.raises(ValueError, match="are nan"):
        metrics.low_fpr(member, np.full(20_000, np.nan))


def test_paired_is_the_difference_of_both_sides_shares():
    member, one, other = np.arange(8) < 4, np.array([1, 1, 1, 0, 1, 0, 0, 0], bool), np.array([1, 0, 0, 0] * 2, bool)
    value, low, high = metrics.paired(member, one, other)
    assert value == pytest.approx((3 / 4 + 1 / 4) / 2 - (1 / 4 + 1 / 4) / 2)
    # Members differ by 0, 1, 1, 0 and others by nothing: a standard error of half that of the members' mean.
    assert (high - low) / 2 == pytest.approx(1.959964 * np.std([0, 1, 1, 0], ddof=1) / 2 / 2, rel=1e-6)
    assert metrics.paired(member, other, one) == pytest.approx((-value, -high, -low))
    assert metrics.paired(member, one, one) == (0, 0, 0)
