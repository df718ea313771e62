import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import RandomizedSearchCV

from mialib import config, metrics, runs
from mialib.attacks import Result, known
from mialib.models import fit, small
from mialib.papers.rezaei2020 import experiments

SMALL = known.Search(1, 1, 1, 10)
WORDS = (0, "test")


@pytest.fixture(autouse=True)
def one_worker(monkeypatch):
    monkeypatch.setenv("MIALIB_WORKERS", "1")  # starting processes would take longer than these fits


def records(leak, seed=0, classes=3, members=100, others=50):
    """Features of `classes` classes, shuffled; the first one is `leak` higher for members."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(classes), members + others)
    member = np.tile(np.arange(members + others) < members, classes)
    X = rng.normal(size=(len(y), 4)).astype(np.float32)
    X[:, 0] += leak * member
    order = rng.permutation(len(y))
    return X[order], y[order], member[order]


def value(table, metric="balanced_accuracy"):
    return known.over_classes(table).set_index("metric").loc[metric]


@given(
    arrays(np.int64, st.integers(1, 60), elements=st.integers(0, 4)), st.randoms(), st.sampled_from((0.5, 0.75, 0.8))
)
def test_split_takes_the_first_of_each_class_and_side(y, random, share):
    member = np.array([random.random() < 0.7 for _ in y])
    first, rest = known.split(y, member, share)
    assert sorted([*first, *rest]) == list(range(len(y)))
    assert (np.diff(first) > 0).all() and (np.diff(rest) > 0).all()
    for label in set(y):
        for side in (True, False):
            rows = [i for i in range(len(y)) if y[i] == label and member[i] == side]
            assert [i for i in first if i in rows] == rows[: int(share * len(rows) + 1e-9)]


def test_split_of_a_split_is_the_published_validation_part():
    """Three quarters of the known 80 % are the first 60 %."""
    _, y, member = records(0)
    first, _ = known.split(y, member)
    smaller, _ = known.split(y[first], member[first], 0.75)
    assert np.array_equal(first[smaller], known.split(y, member, 0.6)[0])


def test_sampling_as_released():
    member = np.array([True] * 7 + [False] * 3)
    rows = np.arange(10)
    assert known.sample(rows, member, "none").tolist() == rows.tolist()
    assert sorted(known.sample(rows, member, "under")) == [0, 1, 2, 7, 8, 9]
    assert sorted(known.sample(rows, member, "over")) == [0, 1, 2, 3, 4, 5, 6, 7, 7, 8, 8, 9, 9]
    # The other way round, for a class with fewer members.
    assert sorted(known.sample(rows, ~member, "under")) == [0, 1, 2, 7, 8, 9]
    assert len(known.sample(rows, ~member, "over")) == 13
    with pytest.raises(ValueError, match="valid: none, under, over"):
        known.sample(rows, member, "both")


@pytest.mark.parametrize("kind", known.KINDS)
def test_planted_leak_is_found_and_its_absence_is_not(kind):
    for leak, found in ((6.0, True), (0.0, False)):
        X, y, member = records(leak, classes=8 if not found else 5)
        sampling = "none" if kind == "logistic" else "over"
        scored = known.attack(kind, X, y, member, WORDS, sampling, search=known.Search(1, 4, 1, 40))
        answer = value(known.per_class(scored, y, member))
        assert answer.low > 0.9 if found else answer.low < 0.5 < answer.high
        assert np.array_equal(scored.rows, known.split(y, member)[1])
        assert not scored.skipped and ((scored.score >= 0) & (scored.score <= 1)).all()


def test_each_class_has_its_own_model():
    X, y, member = records(6.0, classes=2)
    X[y == 1, 0] *= -1  # in class 1, members are lower
    scored = known.attack("logistic", X, y, member, WORDS)
    assert (known.per_class(scored, y, member)["balanced_accuracy"] > 0.95).all()


@pytest.mark.parametrize("sampling", known.SAMPLINGS)
def test_network_is_that_of_a_literal_loop(sampling):
    X, y, member = records(1.0)
    scored = known.attack("nn", X, y, member, WORDS, sampling)
    model = small.MLP((4, 128, 64, 2), "relu")
    for label in range(3):
        train, ask = literal_split(y, member, label, sampling)
        theta = fit.fit_many(
            model, fit.Recipe(30, 32, 1e-3, 0.0), X[train], member[train].astype(int),
            [np.arange(len(train))], [(*WORDS, "nn", sampling, label)],
        )[0]  # fmt: skip
        out = X[ask]
        for i, (weight, bias) in enumerate(small.layers(model, theta)):
            out = (np.maximum(out, 0) if i else out) @ weight + bias
        chance = np.exp(out[:, 1]) / np.exp(out).sum(1)
        assert np.allclose(scored.score[np.isin(scored.rows, ask)], chance, atol=1e-5)


def literal_split(y, member, label, sampling):
    """Known rows as they are trained on, and asked rows in order, of one class."""
    inside, outside = (np.flatnonzero((y == label) & (member == side)) for side in (True, False))
    n, m = int(0.8 * len(inside)), int(0.8 * len(outside))
    ask = np.sort(np.concatenate([inside[n:], outside[m:]]))
    inside, outside = inside[:n], outside[:m]
    if sampling == "none":
        return np.sort(np.concatenate([inside, outside])), ask
    if sampling == "under":
        return np.concatenate([outside, inside[: len(outside)]]), ask
    return np.concatenate([*[outside] * (n // m), inside]), ask


@pytest.mark.parametrize("kind", ["forest", "logistic"])
def test_scikit_learn_models_are_those_of_a_literal_loop(kind):
    X, y, member = records(1.0)
    scored = known.attack(kind, X, y, member, WORDS, "under", search=known.Search(2, 1, 1, 20))
    for label in range(3):
        train, ask = literal_split(y, member, label, "under")
        seed = int(runs.stream(*WORDS, kind, "under", label).integers(2**31))
        if kind == "forest":
            grid = known.FOREST_GRID | {"n_estimators": [20]}
            forest = RandomForestClassifier(random_state=seed)
            fitted = RandomizedSearchCV(forest, grid, n_iter=2, cv=2, random_state=seed)
        else:
            fitted = LogisticRegression(class_weight="balanced")
        fitted.fit(X[train].astype(float) if kind == "logistic" else X[train], member[train])
        assert np.allclose(scored.score[np.isin(scored.rows, ask)], fitted.predict_proba(X[ask])[:, 1])


def test_rates_are_those_of_metrics_and_scikit_learn():
    rng = np.random.default_rng(0)
    y, member = rng.integers(6, size=600), rng.random(600) < 0.8
    score = rng.random(300)
    scored = Result(score, score > 0.5, rows=np.sort(rng.permutation(600)[:300]))
    subset = (rng.random(600) < 0.5) & ~((y == 3) & member)  # class 3 has non-members only
    for kept in (None, subset):
        table = known.per_class(scored, y, member, kept).set_index("class")
        for label in range(6):
            here = (y[scored.rows] == label) & (True if kept is None else kept[scored.rows])
            rows, score = scored.rows[here], scored.score[here]
            wanted = metrics.evaluate(member[rows], score, score > 0.5)
            for metric in set(known.RATES) & set(wanted):
                assert table.loc[label, metric] == pytest.approx(wanted[metric], nan_ok=True), metric
            assert table.loc[label, "fnr"] == pytest.approx(1 - wanted["recall"], nan_ok=True)
            assert table.loc[label, "members"] == member[rows].sum()
        defined = table["balanced_accuracy"].dropna()
        found = value(table.reset_index())
        assert found["value"] == pytest.approx(defined.mean()) and found["sd"] == pytest.approx(np.std(defined))
        low, high = stats.t.interval(0.95, len(defined) - 1, defined.mean(), stats.sem(defined))
        assert (found["low"], found["high"]) == pytest.approx((max(low, 0), min(high, 1)))
        assert found["classes"] == len(defined) == (6 if kept is None else 5)
        asked = member[scored.rows][
            (True if kept is None else kept[scored.rows]) & np.isin(y[scored.rows], defined.index)
        ]
        assert found["records"] == min(asked.sum(), (~asked).sum()) and found["members"] == asked.mean()


def test_small_classes_are_skipped_and_listed():
    X, y, member = records(6.0, classes=3)
    kept = (y != 1) | member | (np.cumsum((y == 1) & ~member) <= 14)
    X, y, member = X[kept], y[kept], member[kept]
    scored = known.attack("logistic", X, y, member, WORDS)
    assert scored.skipped == {1: (100, 14)} and 1 in scored.skipped
    assert set(y[scored.rows]) == {0, 2}
    assert known.attack("logistic", X, y, member, WORDS, least=14).skipped == {}
    nobody = known.attack("nn", X, y, member, WORDS, least=1000)
    assert len(nobody.skipped) == 3 and len(nobody.rows) == 0
    table = known.per_class(nobody, y, member)
    assert table.empty and np.isnan(value(table)["value"])


def test_infinite_features_as_released():
    X, y, member = records(6.0)
    X[0], X[1], X[2] = np.inf, -np.inf, np.nan
    replaced = X.copy()
    replaced[0], replaced[1], replaced[2] = 1e5, -1e5, 0
    answers = [known.attack("logistic", each, y, member, WORDS).score for each in (X, replaced)]
    assert np.array_equal(*answers)
    with pytest.raises(ValueError, match="features has nan or infinity in 3 records"):
        known.attack("nn", X, y, member, WORDS)


def test_answers_are_cached_and_depend_on_what_they_should(monkeypatch):
    X, y, member = records(1.0)
    first = known.attack("forest", X, y, member, WORDS, search=SMALL)
    other = known.attack("forest", X, y, member, (1, "test"), search=SMALL)
    assert not np.array_equal(first.score, other.score)
    monkeypatch.setattr(known.work.machine, "parallel", None)
    again = known.attack("forest", X, y, member, WORDS, search=SMALL)
    assert np.array_equal(first.score, again.score) and np.array_equal(first.rows, again.rows)
    for changed in ({"search": known.Search(1, 1, 1, 9)}, {"search": SMALL, "sampling": "under"}):
        with pytest.raises(TypeError):
            known.attack("forest", X, y, member, WORDS, **changed)


def test_bad_input_is_named():
    X, y, member = records(1.0)
    for wrong, match in (
        (("svm", X, y, member), "valid: nn, forest, xgboost, logistic"),
        (("nn", X[:, :, None], y, member), "flatten"),
        (("nn", X[1:], y, member), "y has 450 values for 449 records"),
        (("nn", X, y, member + 1), "member must hold True and False, or 1 and 0"),
    ):
        with pytest.raises(ValueError, match=match):
            known.attack(*wrong, WORDS)
    with pytest.raises(ValueError, match="least must be at least 3"):
        known.attack("nn", X, y, member, WORDS, least=2)
    with pytest.raises(ValueError, match="between 0 and 1"):
        known.split(y, member, 1.0)


def test_every_profile_has_its_search():
    assert tuple(experiments.SEARCH) == config.PROFILES
    assert experiments.SEARCH["paper"] == known.Search(100, 50, 2, 5000)


def test_an_interval_covers_classes_and_attack_seeds():
    rng = np.random.default_rng(0)
    same = pd.DataFrame(np.repeat(rng.random((8, 1)), 3, axis=1))
    one = known.interval(same[[0]])
    assert one == pytest.approx(metrics.mean_interval(same[0].to_numpy(), 0, 1))
    assert known.interval(same) == pytest.approx(one)  # seeds that change nothing add nothing
    noisy = same + np.array([-0.1, 0.0, 0.1])
    mean, low, high = known.interval(noisy)
    assert mean == pytest.approx(one[0]) and low < one[1] and high > one[2]
    hidden = 0.5 + rng.normal(0, 0.05, (400, 10, 1)) + rng.normal(0, 0.03, (400, 1, 5))
    ends = [known.interval(pd.DataFrame(each))[1:] for each in hidden]
    assert 0.92 < np.mean([low < 0.5 < high for low, high in ends]) < 0.99
    assert np.isnan(known.interval(same[:4])[1:]).all() and known.interval(same[:4])[0] == pytest.approx(
        same[:4][0].mean()
    )
    assert np.isnan(known.interval(same[:0])).all()


def test_means_over_seeds_are_those_of_both():
    X, y, member = records(1.0, classes=5)
    tables = [known.per_class(known.attack("nn", X, y, member, (seed, "t")), y, member) for seed in (0, 1)]
    both = value(pd.concat([table.assign(seed=seed) for seed, table in enumerate(tables)], ignore_index=True))
    assert both["value"] == pytest.approx(np.mean([value(table)["value"] for table in tables]))
    assert both["classes"] == 5 and both["records"] == value(tables[0])["records"]
