import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from mialib import runs
from mialib.data import simulate


@pytest.fixture(scope="module")
def purchases():
    return simulate.purchases(10, n=3000)


@pytest.fixture(scope="module")
def hospital():
    return simulate.hospital(n=4000)


@pytest.fixture(scope="module")
def locations():
    return simulate.locations(n=1500)


@pytest.mark.parametrize(
    ("name", "n", "features", "classes"),
    [("purchases", 3000, 600, 10), ("hospital", 4000, 6169, 100), ("locations", 1500, 446, 30)],
)
def test_records_are_binary_and_every_class_is_there(request, name, n, features, classes):
    X, y = request.getfixturevalue(name)
    assert X.shape == (n, features) and X.dtype == np.uint8 and y.dtype == np.int64
    values = X.data if scipy.sparse.issparse(X) else X
    assert set(np.unique(values)) <= {0, 1}
    assert len(y) == n and set(np.unique(y)) == set(range(classes))


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: simulate.purchases(5, n=400, seed=seed),
        lambda seed: simulate.hospital(n=2000, seed=seed),
        lambda seed: simulate.locations(n=600, seed=seed),
    ],
)
def test_seed_decides_everything(make):
    first, again, other = (runs.digest(*make(seed)) for seed in (3, 3, 4))
    assert first == again != other


def test_thread_count_changes_nothing():
    made = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            made.append(runs.digest(*simulate.purchases(5, n=1000)))
    assert made[0] == made[1]


def test_purchases_are_the_same_whatever_the_classes(purchases):
    X, y = purchases
    same, coarse = simulate.purchases(2, n=3000)
    assert (same == X).all() and len(np.unique(coarse)) == 2 and len(np.unique(y)) == 10


def test_purchases_are_correlated(purchases):
    X = purchases[0][:, purchases[0].mean(axis=0) > 0.1].astype(float)
    spectrum = np.linalg.eigvalsh(np.corrcoef(X.T))[::-1]
    # Independent features keep all eigenvalues below (1 + √(d/n))² (Marchenko-Pastur); each factor lifts one above,
    # and so does activity, which all features share.
    edge = (1 + np.sqrt(X.shape[1] / len(X))) ** 2
    assert (spectrum > 1.5 * edge).sum() == simulate.PURCHASES.factors + 1


def test_records_beyond_those_k_means_saw_go_to_the_nearest_centre(purchases, monkeypatch):
    X = purchases[0]
    monkeypatch.setattr(simulate, "_KMEANS_RECORDS", 2000)
    monkeypatch.setattr(simulate, "_CHUNK", 700)
    y = simulate._clusters(X, 4, 1, (0, "test"))
    centres = np.stack([X[:2000][y[:2000] == label].mean(axis=0) for label in range(4)])
    distance = ((X[2000:, None, :] - centres) ** 2).sum(axis=2)
    assert (distance.argmin(axis=1) == y[2000:]).mean() > 0.97


def test_stays_have_one_of_each_attribute_and_few_codes(hospital):
    X, _ = hospital
    first = 0
    for size in simulate.HOSPITAL_ATTRIBUTES.values():
        assert (X[:, first : first + size].sum(axis=1) == 1).all()
        first += size
    codes = X[:, first:].sum(axis=1)
    assert codes.min() >= 1 and codes.max() <= 55
    frequency = np.sort(X.sum(axis=0))[::-1]
    assert frequency[:617].sum() > 0.6 * frequency.sum(), "the commonest tenth of the columns holds most ones"


def test_main_procedure_can_be_learnt_only_in_part(hospital):
    X, y = hospital
    model = LogisticRegression(max_iter=50).fit(X[:3000], y[:3000])
    accuracy = model.score(X[3000:], y[3000:])
    assert np.bincount(y).max() / len(y) + 0.1 < accuracy < 0.7


def test_hospital_classes_have_the_real_sizes(hospital):
    sizes = simulate.TEXAS_CLASS_SIZES
    # Shokri et al. 2017, VI-A: 67,330 records; smallest and largest class as in the real file.
    assert (len(sizes), sizes.sum(), sizes.min(), np.median(sizes), sizes.max()) == (100, 67_330, 236, 399.5, 3046)
    assert (simulate._scaled(sizes, 67_330) == sizes).all()
    assert (np.bincount(hospital[1]) == simulate._scaled(sizes, 4000)).all()


@given(n=st.integers(2000, 200_000))
@settings(max_examples=50)
def test_scaled_sizes_sum_to_n_and_stay_in_proportion(n):
    counts = simulate._scaled(simulate.TEXAS_CLASS_SIZES, n)
    assert counts.sum() == n and counts.min() >= 7
    assert np.abs(counts - simulate.TEXAS_CLASS_SIZES * n / 67_330).max() < 1


def test_locations_look_like_the_real_ones(locations):
    X, y = locations
    # The real file: 53.7 ones a record, the rarest place visited by 3 % of the users, the commonest by nearly all.
    assert 48 < X.sum(axis=1).mean() < 60
    share = X.mean(axis=0)
    assert share.min() < 0.05 and share.max() > 0.95
    counts = np.bincount(y)
    assert counts.max() > 2 * counts.min()


def test_too_few_records_or_classes_are_refused():
    with pytest.raises(ValueError, match="n must be at least 200 for 10 classes, not 199"):
        simulate.purchases(10, n=199)
    with pytest.raises(ValueError, match="classes must be at least 2, not 1"):
        simulate.purchases(1)
    with pytest.raises(ValueError, match="n must be at least 600 for 30 classes, not 10"):
        simulate.locations(n=10)
    with pytest.raises(ValueError, match="n must be at least 2000"):
        simulate.hospital(n=1999)
