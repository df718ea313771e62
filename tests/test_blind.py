"""The blind attack: what records alone tell, without any model."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from mialib.attacks import blind, known
from mialib.models import targets
from mialib.models.targets import Target
from mialib.papers.rezaei2020 import experiments


@pytest.fixture(autouse=True)
def one_worker(monkeypatch):
    monkeypatch.setenv("MIALIB_WORKERS", "1")


def images(shift, n=1500, classes=5):
    """Noisy uint8 images, five members to one non-member; those of non-members are `shift` brighter."""
    rng = np.random.default_rng(0)
    y, member = np.arange(n) % classes, np.arange(n) < n * 5 // 6
    X = rng.normal(100 + shift * ~member[:, None, None], 10, (n, 8, 8))
    return np.clip(X, 0, 255).astype(np.uint8), y, member


@pytest.mark.parametrize(("shift", "found"), [(0, False), (8, True)])
def test_it_finds_a_difference_of_the_records_and_nothing_else(shift, found):
    X, y, member = images(shift)
    scored = blind.attack(X, y, member, (0, "blind"))
    row = known.over_classes(known.per_class(scored, y, member)).set_index("metric").loc["balanced_accuracy"]
    assert row["low"] > 0.8 if found else row["low"] < 0.5 < row["high"]
    assert np.array_equal(scored.rows, known.split(y, member)[1])


def test_it_is_principal_components_and_logistic_regression():
    X, y, member = images(2)
    scored, rows = blind.attack(X, y, member, (0, "blind")), known.split(y, member)[0]
    flat = X.reshape(len(X), -1) / X.max()
    parts = PCA(40, svd_solver="full").fit(flat[rows]).transform(flat)
    for label in range(5):
        first = rows[y[rows] == label]
        train = known.sample(first, member, "under")
        model = LogisticRegression(class_weight="balanced").fit(parts[train], member[train])
        asked = scored.rows[y[scored.rows] == label]
        wanted = model.predict_proba(parts[asked])[:, 1]
        np.testing.assert_allclose(scored.score[y[scored.rows] == label], wanted, atol=2e-2)


def test_shuffling_leaves_a_difference_of_files_and_takes_one_along_a_file(monkeypatch):
    """Members' images grow brighter along the file, non-members' darker: known ones mislead about asked ones."""
    rng = np.random.default_rng(0)
    y, member = np.arange(3000) % 5, np.arange(3000) < 2500
    along = np.where(member, np.arange(3000) / 2500, 1 - (np.arange(3000) - 2500) / 500)
    X = rng.normal(100 + 20 * along[:, None], 5, (3000, 64)).reshape(-1, 1, 8, 8).clip(0, 255).astype(np.uint8)
    data = targets.Images(X, y, member, 5, "S", "made up", "0")
    trained = targets.Trained("mnist-lenet", Target("mnist", "lenet"), None, data, {})
    monkeypatch.setattr(targets, "confidences", lambda trained: np.eye(5, dtype=np.float32)[y])
    table = experiments.blind([trained], 0, ["all"]).set_index(["attack", "metric"])
    assert table.loc[("blind", "balanced_accuracy"), "high"] < 0.4
    assert abs(table.loc[("blind, shuffled", "balanced_accuracy"), "value"] - 0.5) < 0.1
