import functools
import threading

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import scipy.sparse
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import RidgeClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from mialib import metrics
from mialib.attacks import signals
from mialib.models import fit, platforms, small
from mialib.models.fit import Recipe
from mialib.models.platforms import PLATFORMS, Network, answers
from mialib.models.small import MLP
from mialib.runs import stream

# None of these was thought of when the attacks were written.
OTHERS = {
    "naive Bayes": lambda seed: GaussianNB(),
    "nearest neighbour": lambda seed: KNeighborsClassifier(1),
    "tree": lambda seed: DecisionTreeClassifier(random_state=seed),
    "pipeline": lambda seed: make_pipeline(StandardScaler(), ExtraTreesClassifier(20, random_state=seed)),
}


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    monkeypatch.setenv("MIALIB_WORKERS", "1")


def problem(n=240, d=20, classes=3, models=2, size=60):
    """Labels that nothing explains: whoever does better than chance on a record has seen it."""
    rng = np.random.default_rng(0)
    X, y = (rng.random((n, d)) < 0.4).astype(np.uint8), rng.integers(classes, size=n)
    orders = [rng.permutation(n) for _ in range(models)]
    words = [(0, "test", i) for i in range(models)]
    return X, y, classes, [o[:size] for o in orders], [o[: 2 * size] for o in orders], words


def leak(make, strangers=False):
    """95 % interval of the AUC of the confidence in the true class, over two models and 600 records of each.

    The first 300 count as members. They are, unless the models are trained on others (`strangers`).
    """
    X, y, classes, first, asked, words = problem(n=1200, size=300)
    members = [np.setdiff1d(np.arange(1200), rows) for rows in asked] if strangers else first
    given = answers(make, X, y, classes, members, asked, words)
    score = np.concatenate([signals.true_class(log, y[rows]) for log, rows in zip(given, asked, strict=True)])
    member = np.tile(np.arange(600) < 300, 2)
    return metrics.bootstrap(member, score, score > -1, np.random.default_rng(0), 300)["auc"]


@pytest.mark.parametrize("name", OTHERS)
def test_any_classifier_that_memorises_is_seen_to_leak(name):
    assert leak(OTHERS[name])[0] > 0.55


@pytest.mark.parametrize("name", OTHERS)
def test_records_that_nobody_was_trained_on_do_not_leak(name):
    low, high = leak(OTHERS[name], strangers=True)
    assert low < 0.5 < high


def test_a_classifier_that_learnt_nothing_does_not_leak():
    low, high = leak(lambda seed: Network((8,), epochs=0, seed=seed))
    assert low < 0.5 < high


@pytest.mark.parametrize("platform", [*PLATFORMS, *OTHERS])
def test_answers_are_those_of_the_classifier_fitted_by_hand(platform):
    make = PLATFORMS.get(platform) or OTHERS[platform]
    X, y, classes, members, asked, words = problem()
    given = answers(platform if platform in PLATFORMS else make, X, y, classes, members, asked, words)
    for log, rows, ask, word in zip(given, members, asked, words, strict=True):
        by_hand = make(int(stream(*word).integers(2**31))).fit(X[rows], y[rows]).predict_proba(X[ask])
        assert log.dtype == np.float32 and log.shape == (len(ask), classes)
        np.testing.assert_allclose(small.softmax(log), by_hand, atol=1e-6)


@pytest.mark.filterwarnings("ignore:The number of unique classes")
@pytest.mark.parametrize("platform", [*PLATFORMS, *OTHERS])
def test_absent_classes_constant_features_and_more_classes_than_records(platform):
    X, y, _, members, asked, words = problem(classes=90, size=40)
    X[:, :3], X[:, 3] = 0, 1
    given = answers(PLATFORMS.get(platform) or OTHERS[platform], X, y, 90, members, asked, words)
    for log, rows in zip(given, members, strict=True):
        vectors = small.softmax(log)
        absent = np.setdiff1d(np.arange(90), y[rows])
        assert len(absent) > 45 and vectors[:, absent].max() < 2e-12
        np.testing.assert_allclose(vectors.sum(1), 1, atol=1e-5)
        if platform in ("nearest neighbour", "tree", "pipeline"):
            assert (vectors[:40].argmax(1) == y[rows]).mean() > 0.9, "columns belong to other classes"


@pytest.mark.parametrize("platform", PLATFORMS)
def test_records_that_are_all_alike_get_one_answer_that_favours_the_commonest_class(platform):
    _, y, classes, members, asked, words = problem(n=2000, size=1000)
    y[: len(y) // 2] = 1
    for log in answers(platform, np.ones((2000, 4)), y, classes, members, asked, words):
        assert (log == log[0]).all() and log[0].argmax() == 1


def test_processes_and_sparse_rows_change_nothing(monkeypatch, tmp_path):
    X, y, classes, members, asked, words = problem()
    make = OTHERS["tree"]
    one = answers(make, X, y, classes, members, asked, words)
    sparse = answers(make, scipy.sparse.csr_array(X), y, classes, members, asked, words)
    monkeypatch.setenv("MIALIB_WORKERS", "2")
    monkeypatch.setenv("MIALIB_CACHE", str(tmp_path / "other"))
    two = answers(make, X, y, classes, members, asked, words)
    for a, b, c in zip(one, two, sparse, strict=True):
        assert (a == b).all() and (a == c).all()


def counted(monkeypatch, stop_at=99):
    """Places of the models that are trained from here on; the one at `stop_at` is interrupted."""
    trained, real = [], platforms._answer

    @functools.wraps(real)
    def count(place, *job):
        if len(trained) == stop_at:
            raise KeyboardInterrupt
        trained.append(place)
        return real(place, *job)

    monkeypatch.setattr(platforms, "_answer", count)
    return trained


def test_an_interrupted_run_goes_on_where_it_stopped(monkeypatch):
    case = problem(models=4)
    make = PLATFORMS["random forest"]
    with monkeypatch.context() as patch:
        counted(patch, stop_at=2)
        with pytest.raises(KeyboardInterrupt):
            answers(make, *case)
    with monkeypatch.context() as patch:
        rest = counted(patch)
        resumed = answers(make, *case)
        assert len(rest) == 2
        again = answers(make, *case)
        assert len(rest) == 2
    monkeypatch.setattr(platforms, "_key", lambda *_: None)
    fresh = answers(make, *case)
    for a, b, c in zip(resumed, again, fresh, strict=True):
        assert (a == b).all() and (a == c).all()


def test_what_the_answer_follows_from_is_in_its_key():
    X, y, classes, [rows, _], [ask, _], [words, _] = problem()
    base = [DecisionTreeClassifier(random_state=0), X[rows], y[rows], X[ask], classes, words]
    others = [
        DecisionTreeClassifier(random_state=1), X[rows[::-1]], y[rows[::-1]], X[ask[1:]], classes + 1, (0, "other"),
    ]  # fmt: skip
    changed = [[*base[:i], other, *base[i + 1 :]] for i, other in enumerate(others)]
    deep = [[make_pipeline(StandardScaler(), DecisionTreeClassifier(max_depth=k)), *base[1:]] for k in (1, 2)]
    weights = [np.r_[np.ones(1000), k, np.ones(1000)] for k in (1, 2)]  # too long for the classifier's repr
    deep += [[KNeighborsClassifier(metric_params={"w": w}), *base[1:]] for w in weights]
    keys = [platforms._key(*case) for case in (base, *changed, *deep)]
    assert len(set(keys)) == len(keys)
    assert platforms._key(*[clone(base[0]), *base[1:]]) == keys[0]


class Scribbler(ClassifierMixin, BaseEstimator):
    """A classifier that writes into the records that it is given, as scikit-learn's `copy=False` does."""

    def fit(self, X, y):
        values = X.data if scipy.sparse.issparse(X) else X
        values *= 0.5
        self.share_, y[:] = float(X.sum()) % 1, 0
        return self

    def predict_proba(self, X):
        values = X.data if scipy.sparse.issparse(X) else X
        values += self.share_
        share = np.asarray(X.sum(1)).ravel() % 1
        return np.stack([share, 1 - share], 1)


@pytest.mark.parametrize("kind", [np.array, scipy.sparse.csr_array])
def test_a_classifier_may_write_into_its_records(kind, monkeypatch, tmp_path):
    """Above 1 MB joblib hands them to a process as a file that it may only read."""
    rng = np.random.default_rng(0)
    X, y = kind(rng.random((900, 400))), np.arange(900) % 2
    rows, before = [np.arange(400), np.arange(100, 500)], X.copy()
    case = X, y, 2, rows, [np.arange(450), np.arange(450, 900)], [(0, "a"), (0, "b")]
    one = answers(lambda seed: Scribbler(), *case)
    monkeypatch.setenv("MIALIB_WORKERS", "2")
    monkeypatch.setenv("MIALIB_CACHE", str(tmp_path / "other"))
    two = answers(lambda seed: Scribbler(), *case)
    assert (one[0] == two[0]).all() and (one[1] == two[1]).all() and len(np.unique(one)) > 1000
    assert abs(X - before).max() == 0 and (y == np.arange(900) % 2).all()


def test_one_classifier_for_all_models_learns_each_afresh(monkeypatch, tmp_path):
    case = problem()
    same = DecisionTreeClassifier(random_state=np.random.RandomState(0))
    one = answers(lambda seed: same, *case)
    monkeypatch.setenv("MIALIB_CACHE", str(tmp_path / "other"))
    new = answers(lambda seed: DecisionTreeClassifier(random_state=np.random.RandomState(0)), *case)
    assert (one[0] == new[0]).all() and (one[1] == new[1]).all()
    same.lock = threading.Lock()
    with pytest.raises(ValueError, match=r"DecisionTreeClassifier cannot be copied .*; return a new one for each seed"):
        answers(lambda seed: same, *case)


def test_records_and_labels_of_any_kind_are_one_case():
    X, y, classes, members, asked, words = problem()
    expected = answers("Neural network", X, y, classes, members, asked, words)
    shuffled = np.random.default_rng(1).permutation(len(y))
    others = [
        (pd.DataFrame(X, index=shuffled), pd.Series(y, index=shuffled)),
        (X.tolist(), y[:, None].astype(float)),
        (scipy.sparse.csc_array(X), y.astype(np.uint8)),
        (X.astype(object), y.astype(object)),
    ]
    for records, labels in others:
        given = answers("Neural network", records, labels, classes, members, asked, words)
        np.testing.assert_allclose(given, expected, atol=1e-5)
    network = Network((), epochs=1).fit(X, y)
    assert (network.predict_proba(X.tolist()) == network.predict_proba(X)).all()


@pytest.mark.parametrize("hidden", [(), (5,), (6, 5)])
def test_network_is_ours_under_scikit_learns_names(hidden):
    X, y, classes, [rows, _], [ask, _], _ = problem()
    network = Network(hidden, epochs=4, batch=16, rate=0.01, l2=1e-3, seed=7)
    fitted = clone(network).fit(X[rows], np.array(["b", "c", "a"])[y[rows]])
    assert network.get_params() == fitted.get_params() and fitted.classes_.tolist() == ["a", "b", "c"]
    model, codes = MLP((20, *hidden, classes)), np.array([1, 2, 0])[y[rows]]
    recipe = Recipe(4, batch=16, rate=0.01, l2=1e-3)
    [theta] = fit.fit_many(model, recipe, X[rows], codes, [np.arange(60)], [(7, "network")])
    p = fitted.predict_proba(X[ask])
    assert (p == small.softmax(small.logits(model, theta, X[ask]))).all()
    assert (fitted.predict(X[ask]) == np.array(["a", "b", "c"])[p.argmax(1)]).all()


def test_without_a_hidden_layer_it_is_logistic_regression():
    """Its loss is convex: scipy, which knows nothing of networks, has to find the same optimum."""
    X, y, classes, [rows, _], _, _ = problem(d=4)
    X, y = X[rows].astype(float), y[rows]

    def loss(theta):
        scores = X @ theta[:12].reshape(4, classes) + theta[12:]
        return (scipy.special.logsumexp(scores, 1) - scores[np.arange(60), y]).mean() + 0.01 * (theta**2).sum()

    best = scipy.optimize.minimize(loss, np.zeros(15), options={"gtol": 1e-8})
    p = Network((), epochs=800, batch=60, rate=0.02, l2=0.01).fit(X, y).predict_proba(X)
    scores = X @ best.x[:12].reshape(4, classes) + best.x[12:]
    np.testing.assert_allclose(p, small.softmax(scores), atol=1e-3)


class Says(ClassifierMixin):
    """A classifier that answers what it is told to."""

    def __init__(self, vector):
        self.vector = vector

    def fit(self, X, y):
        return self

    def predict_proba(self, X):
        return np.tile(self.vector, (len(X), 1))


@pytest.mark.parametrize(
    "vector, error",
    [
        ([0.2, 0.3, np.nan], "Says: NaN or infinite probabilities for 120 of 120 records"),
        ([0.2, 0.3, None], "Says: NaN or infinite probabilities for 120 of 120 records"),
        ([-0.1, 0.6, 0.5], "Says: a probability is -0.1, below 0; wrap it in"),
        ([0.2, 0.3, 0.4], "Says: the probabilities of a record sum to 0.9; wrap it in"),
        ([0.5, 0.5], r"Says: predict_proba gave an array of shape \(120, 2\); .* each of 3 classes"),
    ],
)
def test_probabilities_that_are_none_are_refused(vector, error, own_cache):
    with pytest.raises(ValueError, match=error):
        answers(lambda seed: Says(vector), *problem())
    assert not own_cache.exists(), "it would be believed ever after"


def test_bad_input_is_refused():
    X, y, classes, members, asked, words = problem()
    with pytest.raises(ValueError, match="unknown platform 'Azure'; valid: Google, Amazon"):
        answers("Azure", X, y, classes, members, asked, words)
    with pytest.raises(ValueError, match="RidgeClassifier has no predict_proba; wrap it in"):
        answers(lambda seed: RidgeClassifier(), X, y, classes, members, asked, words)
    with pytest.raises(ValueError, match="one of each a model, not 2, 1 and 2"):
        answers("Google", X, y, classes, members, asked[:1], words)
    with pytest.raises(ValueError, match="one label a record: X is"):
        answers("Google", X, y[1:], classes, members, asked, words)
    with pytest.raises(ValueError, match="y: labels run from 0 to 2, the classes from 0 to 1"):
        answers("Google", X, y, 2, members, asked, words)
    with pytest.raises(ValueError, match="indices from 0 to 239"):
        answers("Google", X, y, classes, members, [np.array([240]), asked[1]], words)
    with pytest.raises(ValueError, match="has class 1 only; train on two or more"):
        answers("Google", X, np.ones_like(y), classes, members, asked, words)
    with pytest.raises(ValueError, match="at least two classes"):
        Network().fit(X, np.ones_like(y))
    with pytest.raises(ValueError, match="contains NaN"):
        Network().fit(X, np.where(y == 0, np.nan, y))
    broken = X.astype(float)
    broken[0, 0] = np.nan
    for platform in PLATFORMS:
        with pytest.raises(ValueError, match="X has nan or infinity in 1 records"):
            answers(platform, broken, y, classes, members, asked, words)
    with pytest.raises(ValueError, match="X has nan or infinity in 1 records"):
        Network().fit(broken, y)
