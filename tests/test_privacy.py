"""What training with differential privacy leaves (notebook 26): worlds, bounds, and the data in place of LFW."""

import math
from dataclasses import replace

import numpy as np
import pytest

from mialib import runs
from mialib.attacks import worlds
from mialib.data import caltech, lfw
from mialib.data.datasets import Dataset
from mialib.models import fit, private, small
from mialib.papers.leino2020 import precision, privacy
from mialib.results import published

ROW = privacy.Row(
    size=40, epochs=400, targets=6, proxies=2, learn=1, rate=0.5, steps=40, step=1e-2, delta=1e-3, epsilons=(0.05,)
)


def noise(seed=0):
    """Records whose labels are drawn at random: a model can only learn them by heart."""
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((230, 60)).astype(np.float32), rng.permutation(np.arange(230) % 5)
    return Dataset("noise", X, y, 5, "M", "random labels", runs.digest(X, y))


def test_worlds_of_dp_sgd_are_trained_by_it_targets_and_proxies_alike():
    data, model = noise(), small.MLP((60, 5))
    recipe = private.Recipe(10, 0.5, 20.0, 2.0)
    plan = worlds.Plan(*np.split(np.arange(160), 4))
    [world] = worlds.train(model, recipe, data.X, data.y, [plan], 1, (1, "w"))
    again = worlds._again(data.y, plan.pool, runs.stream(1, "w", 0, "proxies"))
    thetas = private.fit_many(
        model, recipe, data.X, data.y, [plan.members, again], [(1, "w", "model", 0), (1, "w", "model", 1)]
    )
    rows = np.concatenate([plan.members, plan.others, plan.population])
    np.testing.assert_array_equal(world.logits, fit.ask(model, thetas[0], data.X[rows]))
    np.testing.assert_array_equal(world.others[0], fit.ask(model, thetas[1], data.X[rows]))


def test_what_is_learnt_by_heart_is_found_and_noise_hides_it():
    data = noise()
    found = {name: privacy.attack(data, ROW, name, 0) for name in ROW.settings}
    table = privacy.measured(ROW, list(found.values())).set_index(["setting", "attack", "metric"])
    assert table.loc[(privacy.NONE, "target", "target_train_acc"), "value"] > 0.99
    for attack in ("bayes-wb", "gap"):
        assert table.loc[(privacy.NONE, attack, "attack_total_acc"), "low"] > 0.6
        low, high = table.loc[("epsilon 0.05", attack, "attack_total_acc"), ["low", "high"]]
        assert low < 0.53 and high < 0.62, attack
    # Without noise the same steps tell members apart: it is the noise that hides them.
    assert table.loc[(privacy.CLIPPED, "bayes-wb", "attack_total_acc"), "low"] > 0.6


def test_settings_and_recipes():
    assert math.isnan(ROW.settings[privacy.NONE]) and math.isinf(ROW.settings[privacy.CLIPPED])
    assert privacy.recipe(ROW, math.nan) == fit.Recipe(400)
    assert privacy.recipe(ROW, math.inf).noise == 0
    assert privacy.recipe(ROW, 0.05).noise > privacy.recipe(ROW, 1.0).noise > 0


def test_bounds_are_the_slides_where_it_says_something_and_the_game_s():
    row = replace(ROW, delta=0.0)
    assert math.isnan(privacy.bounds(row, math.log(2))["slides"])
    assert privacy.bounds(row, 0.25)["slides"] == pytest.approx(math.exp(0.25) / 2)
    # A record in another's place is one less and one more, so e^(2 epsilon) : 1 between the two answers.
    assert privacy.bounds(row, 0.25)["bound"] == pytest.approx(math.exp(0.5) / (1 + math.exp(0.5)))
    assert privacy.bounds(ROW, 0.25)["bound"] > privacy.bounds(row, 0.25)["bound"]
    assert all(math.isnan(value) for value in privacy.bounds(row, math.inf).values())


def test_the_commonest_kinds_leave_out_what_is_none_and_the_faces_that_are_there_twice(monkeypatch):
    counts = np.full(caltech.CLASSES, 31)
    counts[[0, 1, 2, 3, 4, 6, 95]] = 468, 435, 435, 200, 798, 800, 239
    y = np.repeat(np.arange(caltech.CLASSES), counts)
    X = np.zeros((len(y), 3, 2, 2), np.uint8)
    X[:, 0, 0, 0] = y
    whole = Dataset(caltech.NAME, X, y, caltech.CLASSES, "R", "all", runs.digest(X, y))
    monkeypatch.setattr(caltech, "load", lambda profile: whole)
    data = privacy.load("laptop")
    assert np.bincount(data.y).tolist() == [435, 200, 798, 800, 239] and data.tier == "S"
    kinds = np.rint((data.X[:, 0] + 1) * 127.5)
    assert sorted(set(kinds)) == [1, 3, 4, 6, 95] and data.X.shape == (2472, 12)


def test_printed_numbers_are_shown_and_get_no_verdict():
    data, row = noise(), replace(ROW, targets=2, epsilons=(16.0, 1.0))
    table = privacy.measured(row, [privacy.attack(data, row, name, 0) for name in row.settings])
    cells = published.primary(privacy.compare(table, replace(data, name=caltech.NAME, tier="S"), "laptop"))
    assert len(cells) == 10 and {cell["verdict"] for cell in cells} == {"not comparable"}
    assert {cell["cause"] for cell in cells} == {privacy.ELSEWHERE[caltech.NAME], "not computed in this run"}
    shown = privacy.overview(row, table)
    assert shown.loc["epsilon 1", "printed, LFW: target_test_acc"] == ".110"
    assert shown.loc[privacy.CLIPPED, "at most (bound)"] == ""
    assert len(privacy.drawn(row, table).axes) == 2


def test_paper_takes_faces(monkeypatch):
    X = np.zeros((1140, 3, 2, 2), np.uint8)
    y = np.repeat(np.arange(5), [236, 121, 530, 109, 144])
    monkeypatch.setattr(lfw, "load", lambda: Dataset("lfw", X, y, 5, "R", "faces", runs.digest(X, y)))
    data, row = privacy.load("paper"), privacy.row("paper")
    assert data.tier == "R" and np.bincount(data.y).tolist() == [236, 121, 530, 109, 144]
    assert row.size * precision.PARTS / 2 <= len(data.y)  # so that no part is too small
