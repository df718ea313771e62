"""What people bring: the same numbers come out of every form that scikit-learn takes, and the rest is refused."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from hypothesis import given
from hypothesis import strategies as st

from mialib import arrays, metrics
from mialib.attacks import Observations, baselines, classifiers, gradients, known, signals
from mialib.models import fit, small

N, CLASSES = 60, 3
RNG = np.random.default_rng(0)
Y = RNG.integers(CLASSES, size=N)
MEMBER = RNG.random(N) < 0.5
VECTORS = RNG.dirichlet(np.ones(CLASSES), N) * 0.2 + 0.8 * np.where(MEMBER[:, None], np.eye(CLASSES)[Y], 1 / CLASSES)
ORDER = RNG.permutation(N)

LABELS = {
    "list": lambda y: y.tolist(),
    "column": lambda y: y[:, None],
    "shuffled Series": lambda y: pd.Series(y, index=ORDER),
    "DataFrame": lambda y: pd.DataFrame({"y": y}, index=ORDER),
    "uint8": lambda y: y.astype(np.uint8),
    "int8": lambda y: y.astype(np.int8),
    "float": lambda y: y.astype(float),
    "object": lambda y: y.astype(object),
    "nullable": lambda y: pd.Series(y, dtype="Int64"),
    "read-only": lambda y: frozen(y),
    "backwards": lambda y: y[::-1].copy()[::-1],
    "every other": lambda y: np.repeat(y, 2)[::2],
    "big-endian": lambda y: y.astype(">i4"),
    "tensor": torch.from_numpy,
}
FLAGS = {
    "int64": lambda m: m.astype(np.int64),
    "uint8": lambda m: m.astype(np.uint8),
    "float": lambda m: m.astype(float),
    "list": lambda m: m.tolist(),
    "object": lambda m: m.astype(object),
    "shuffled Series": lambda m: pd.Series(m, index=ORDER),
    "column": lambda m: m[:, None],
}
RECORDS = {
    "list": lambda X: X.tolist(),
    "shuffled DataFrame": lambda X: pd.DataFrame(X, index=ORDER),
    "object": lambda X: X.astype(object),
    "read-only": lambda X: frozen(X),
    "backwards": lambda X: X[::-1, ::-1].copy()[::-1, ::-1],
    "Fortran": np.asfortranarray,
}
SPARSE = {
    "CSC": scipy.sparse.csc_array,
    "COO": scipy.sparse.coo_array,
    "csr_matrix": scipy.sparse.csr_matrix,
    "LIL": scipy.sparse.lil_array,
}


def frozen(values):
    values = values.copy()
    values.setflags(write=False)
    return values


@pytest.mark.parametrize("form", LABELS)
def test_labels_of_every_form(form):
    y = LABELS[form](Y)
    assert arrays.labels(y, N, CLASSES).dtype == np.int64
    assert np.array_equal(arrays.labels(y), Y)
    assert np.array_equal(signals.true_class(VECTORS, y), signals.true_class(VECTORS, Y))
    assert np.array_equal(signals.correct(VECTORS, y), signals.correct(VECTORS, Y))
    seen, asked = Observations(VECTORS, y, MEMBER), Observations(VECTORS, Y, MEMBER)
    assert np.array_equal(baselines.confidence_threshold(seen, asked).score, threshold().score)


def threshold():
    seen = Observations(VECTORS, Y, MEMBER)
    return baselines.confidence_threshold(seen, seen)


@pytest.mark.parametrize("form", FLAGS)
def test_membership_of_every_form(form):
    """int64 membership once gave a balanced accuracy of .507 in place of .843, in silence."""
    seen = Observations(VECTORS, Y, FLAGS[form](MEMBER))
    assert seen.member.dtype == bool and np.array_equal(seen.member, MEMBER)
    found = baselines.confidence_threshold(seen, seen)
    assert np.array_equal(found.predicted, threshold().predicted)
    assert metrics.evaluate(MEMBER, found.score, found.predicted)["balanced_accuracy"] > 0.9
    [trees] = classifiers.attack("forest", seen, [seen], (0, "test"))
    [again] = classifiers.attack("forest", Observations(VECTORS, Y, MEMBER), [seen], (0, "test"))
    assert np.array_equal(trees.score, again.score)


@pytest.mark.parametrize("form", RECORDS)
def test_records_of_every_form(form):
    X = (VECTORS * 8).round()
    model, recipe, members = small.MLP((CLASSES, 4, CLASSES)), fit.Recipe(2), [np.arange(N)]
    given, plain = (fit.fit_many(model, recipe, each, Y, members, [(0, "t")]) for each in (RECORDS[form](X), X))
    assert np.array_equal(given, plain)
    assert np.array_equal(small.logits(model, given[0], RECORDS[form](X)), small.logits(model, plain[0], X))
    y = pd.Series(Y, index=ORDER)
    asked = [known.attack("forest", each, label, MEMBER, (0,), least=3, search=known.Search(1, 1, 1, 5))
             for each, label in ((RECORDS[form](VECTORS), y), (VECTORS, Y))]  # fmt: skip
    assert np.array_equal(asked[0].score, asked[1].score)
    rates = [known.per_class(asked[0], label, member) for label, member in ((y, MEMBER.astype(int)), (Y, MEMBER))]
    pd.testing.assert_frame_equal(*rates)


@pytest.mark.parametrize("form", SPARSE)
def test_every_sparse_matrix_trains_as_the_dense_one(form, own_cache):
    """As many rows as columns: a CSC matrix taken for a CSR one would be its transpose, under the same cache key."""
    X = (RNG.random((N, N)) < 0.1).astype(np.uint8)
    model, recipe, members = small.MLP((N, 4, CLASSES)), fit.Recipe(2), [np.arange(N // 2)]
    plain = fit.fit_many(model, recipe, scipy.sparse.csr_array(X), Y, members, [(0, "t")])
    for path in own_cache.rglob("*.npz"):
        path.unlink()
    assert np.array_equal(plain, fit.fit_many(model, recipe, SPARSE[form](X), Y, members, [(0, "t")]))
    assert np.allclose(small.logits(model, plain[0], SPARSE[form](X)), small.logits(model, plain[0], X), atol=1e-6)


def test_an_entry_that_is_met_twice_is_their_sum():
    twice = scipy.sparse.csr_array((np.ones(3), np.array([1, 1, 0]), np.array([0, 2, 3])), shape=(2, 2))
    assert arrays.records(twice).data.tolist() == [2, 1]
    assert twice.nnz == 3  # the caller's is left as it was
    with pytest.raises(ValueError, match="must be binary"):
        fit.fit_many(small.MLP((2, 2)), fit.Recipe(1), twice, [0, 1], [np.arange(2)], [(0,)])


@pytest.mark.parametrize("kind", [">f4", ">f8", np.longdouble, np.float16, "<u2", ">i8"])
def test_numbers_of_every_kind_train(kind):
    X = (VECTORS * 8).round()
    theta = [
        fit.fit_many(small.MLP((3, 4, 3)), fit.Recipe(1), each, Y, [np.arange(N)], [(0,)])
        for each in (X.astype(kind), X.astype(np.float32))
    ]
    assert np.array_equal(*theta)


def test_membership_of_every_form_in_the_small_functions():
    score, rows = VECTORS[:, 0], np.arange(N)
    assert baselines.best_threshold(score, MEMBER.astype(int)) == baselines.best_threshold(score, MEMBER)
    for sampling in known.SAMPLINGS:
        taken = (known.sample(rows, member, sampling) for member in (MEMBER, MEMBER.astype(int)))
        assert np.array_equal(*taken)


def test_gradients_take_labels_of_every_form():
    net, x = torch.nn.Linear(4, CLASSES), torch.randn(N, 4)
    plain = gradients.per_record(net, x, torch.from_numpy(Y))
    for form in LABELS.values():
        assert np.array_equal(gradients.per_record(net, x, form(Y))[0], plain[0])


@pytest.mark.parametrize(
    ("y", "match"),
    [
        (np.array(["a", "b", "c"]), "holds names: number the classes from 0"),
        (np.array(["a", "b", "c"], object), "holds names"),
        (np.array([0, 1, 1.5]), "nan, fractions"),
        (np.array([0, 1, np.nan]), "nan, fractions"),
        ([None, 1, 2], "must hold (whole )?numbers"),
        (np.eye(3), "flat, one value a record"),
        ([0, 1], "y has 2 values for 3 records"),
        ([0, 1, 3], "labels run from 0 to 3, the classes from 0 to 2"),
        ([0, 1, -1], "labels run from -1 to 1"),
        (np.array([0, 1, 1j]), "not complex"),
        (np.array(["2020-01-01"] * 3, "M8[D]"), "not datetime"),
        (scipy.sparse.csr_array(np.eye(3)[:, :1]), "must be dense"),
        (np.ma.masked_array([0, 1, 2], [True, False, False]), "masked"),
        ([[0], [1, 2], [2]], "no array"),
    ],
    ids=str,
)
def test_labels_that_are_none(y, match):
    with pytest.raises(ValueError, match=match) as error:
        arrays.labels(y, 3, 3)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("member", [[0, 1, 2], [0.5, 1, 0], ["in", "out", "in"], [np.nan, 1, 0], [1, 0]], ids=str)
def test_membership_that_is_none(member):
    with pytest.raises(ValueError, match="member"):
        Observations(np.eye(3), [0, 1, 2], member)


@pytest.mark.parametrize(
    "X",
    [
        np.eye(3) * 1j,
        [["a"]],
        np.zeros(3),
        [[1, 2], [3]],
        np.array([[{}]]),
        np.array([["1"]]),
        scipy.sparse.coo_array(np.ones(3)),
        torch.ones(2, 2, requires_grad=True),
    ],
    ids=str,
)
def test_records_that_are_none(X):
    with pytest.raises(ValueError, match=r"^X "):
        arrays.records(X)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_at_the_door(broken, own_cache):
    vectors, X = VECTORS.copy(), VECTORS.astype(np.float32)
    vectors[3, 1] = X[3, 1] = broken
    with pytest.raises(ValueError, match="vectors has nan or infinity in 1 records"):
        Observations(vectors, Y, MEMBER)
    with pytest.raises(ValueError, match="X has nan or infinity in 1 records"):
        fit.fit_many(small.MLP((3, 4, 3)), fit.Recipe(1), X, Y, [np.arange(N)], [(0,)])
    with pytest.raises(ValueError, match="X has nan or infinity in 1 values"):
        arrays.records(scipy.sparse.csc_array(np.array([[0, broken], [1, 0]])))
    assert not list(own_cache.rglob("*.npz"))
    vectors[3, 1] = 1e39  # infinite for the attack models, which take float32
    with pytest.raises(ValueError, match="features has nan or infinity in 1 records"):
        known.attack("forest", vectors, Y, MEMBER, (0,))


def test_a_training_that_fails_is_told_and_not_kept(own_cache):
    X = np.full((N, 3), 1e300)  # more than float32 holds
    with pytest.raises(ValueError, match="model 0 did not learn: its parameters are not finite"):
        fit.fit_many(small.MLP((3, 4, 3), "relu"), fit.Recipe(3), X, Y, [np.arange(N)], [(0,)])
    assert not list(own_cache.rglob("*.npz"))


@given(st.lists(st.one_of(st.integers(-3, 300), st.floats(), st.booleans(), st.text(max_size=2), st.none())))
def test_labels_are_whole_numbers_or_an_error(values):
    try:
        found = arrays.labels(values)
    except ValueError:
        return
    assert found.dtype == np.int64 and found.tolist() == [int(value) for value in values]


@pytest.mark.parametrize("huge", [[2**63], [1e19], [2**70]])
def test_labels_beyond_int64(huge):
    with pytest.raises(ValueError, match="whole numbers"):
        arrays.labels(huge)


def test_what_fits_is_not_copied():
    X = np.zeros((3, 2), np.float32)
    assert arrays.records(X) is X
    y = np.zeros(3, np.int64)
    assert np.shares_memory(arrays.labels(y), y)
