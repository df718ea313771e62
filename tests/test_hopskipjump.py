"""The distance to a boundary by labels alone: against the closed form, and where there is none to be found."""

import numpy as np
import pytest

from mialib.attacks import hopskipjump


def linear(d, seed=0):
    """A linear model of two classes around the middle of the cube; its labels, and each point's distance by formula."""
    rng = np.random.default_rng(seed)
    w = rng.standard_normal(d)

    def margin(X):
        return (X.reshape(len(X), -1) - 0.5) @ w

    return lambda X: (margin(X) > 0).astype(np.int64), lambda X: np.abs(margin(X)) / np.linalg.norm(w)


def test_a_linear_boundary_is_as_far_as_the_formula_says():
    answer, distance = linear(30)
    X = np.random.default_rng(1).uniform(0.3, 0.7, (12, 5, 6)).astype(np.float32)
    found = hopskipjump.distances(answer, X, answer(X), 5000, np.random.default_rng(2))
    assert (found > distance(X) * (1 - 1e-6)).all()  # every point outside is at least so far
    assert (found < distance(X) * 1.1).all()
    few = hopskipjump.distances(answer, X, answer(X), 400, np.random.default_rng(2))
    assert few.mean() > found.mean()


def test_no_more_is_asked_than_was_agreed_and_only_within_bounds():
    answer, _ = linear(20)
    asked, seen = [], []

    def watched(points):
        asked.append(len(points))
        seen.extend((points.min(), points.max()))
        return answer(points)

    X = np.random.default_rng(1).uniform(0, 1, (1, 20)).astype(np.float32)
    for queries in (200, 333, 1000, 2500):
        asked.clear()
        hopskipjump.distances(watched, X, answer(X), queries, np.random.default_rng(0))
        assert queries / 2 < sum(asked) <= queries
    assert min(seen) >= 0 and max(seen) <= 1


def test_a_wrong_label_has_no_distance_and_a_model_of_one_label_no_boundary():
    answer, _ = linear(10)
    X = np.random.default_rng(1).uniform(0, 1, (4, 10)).astype(np.float32)
    y = answer(X)
    y[0] = 1 - y[0]
    found = hopskipjump.distances(answer, X, y, 300, np.random.default_rng(0))
    assert found[0] == 0 and (found[1:] > 0).all()
    one = hopskipjump.distances(
        lambda points: np.zeros(len(points), int), X, np.zeros(4, int), 300, np.random.default_rng(0)
    )
    assert np.isnan(one).all()


def test_where_all_noise_has_one_label_another_record_is_the_start():
    """Only near the corner at 0 is there another class, which noise never comes near."""

    def answer(points):
        return (np.linalg.norm(points.reshape(len(points), -1), axis=1) < 1).astype(np.int64)

    X = np.full((2, 40), 0.4, np.float32)
    X[1] += np.linspace(0, 0.2, 40)
    others = np.stack([np.full(40, 0.9), np.full(40, 0.1), np.zeros(40)]).astype(np.float32)
    rng = np.random.default_rng(0)
    assert np.isnan(hopskipjump.distances(answer, X, np.zeros(2, int), 3000, rng)).all()
    found = hopskipjump.distances(answer, X, np.zeros(2, int), 3000, rng, others=others)
    nearest = np.linalg.norm(X, axis=1) - 1  # a ball around 0 of radius 1
    assert (found >= nearest * (1 - 1e-5)).all() and (found < nearest * 1.1).all()


def test_the_same_seed_finds_the_same():
    answer, _ = linear(10)
    X = np.random.default_rng(1).uniform(0, 1, (3, 10)).astype(np.float32)
    first, second = (hopskipjump.distances(answer, X, answer(X), 500, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_bad_input_says_what_to_do():
    answer, _ = linear(4)
    X = np.full((2, 4), 0.2, np.float32)
    with pytest.raises(ValueError, match=r"values outside 0\.\.1"):
        hopskipjump.distances(answer, X * 255, answer(X), 500, np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"150 queries are too few: .* take 200"):
        hopskipjump.distances(answer, X, answer(X), 150, np.random.default_rng(0))
