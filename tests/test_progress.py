"""The attack at each epoch of a target's training."""

import numpy as np
import pytest

from mialib import config, runs
from mialib.attacks import known
from mialib.models import targets
from mialib.models.targets import Target
from mialib.papers.rezaei2020 import experiments


def answers(leak, n=400, classes=3):
    """Confidence vectors of n records, half of them members, whose true class gets `leak` more in the members'."""
    rng = runs.stream(0, "planted", str(leak))
    y, member = np.arange(n) % classes, np.arange(n) < n // 2
    logits = rng.normal(size=(n, classes)) + 2 * np.eye(classes)[y] * (1 + leak * member[:, None])
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True), y, member


def value(table, subset, metric):
    return table.set_index(["subset", "metric"]).loc[(subset, metric)]


def test_no_leak_no_attack():
    found = value(experiments.at(*answers(0.0, 3000), (0, "null")), "all", "balanced_accuracy")
    assert abs(found["value"] - 0.5) < 0.06


def test_planted_leak_is_found():
    found = value(experiments.at(*answers(1.5), (0, "leak")), "all", "balanced_accuracy")
    assert found["value"] > 0.6


def test_rows_are_what_they_say():
    vectors, y, member = answers(1.0)
    table = experiments.at(vectors, y, member, (0, "rows"))
    right = vectors.argmax(1) == y
    assert value(table, "all", "train_acc")["value"] == right[member].mean()
    assert value(table, "all", "test_acc")["value"] == right[~member].mean()
    loss = -np.log(vectors[np.arange(len(y)), y])
    assert value(table, "all", "test_loss")["value"] == pytest.approx(loss[~member].mean())
    scored = known.attack("nn", vectors, y, member, (0, "rows"))
    expected = known.per_class(scored, y, member, ~right)["fpr"].mean()
    assert value(table, "misclassified", "fpr")["value"] == pytest.approx(expected)


@pytest.fixture
def watched(monkeypatch):
    tiny = Target("mnist", "lenet", 4, 64, 1e-3, (2,), decay=0.0, augment=False, scale="mnist", observe=2)
    others = Target("cifar-10", "resnet-20", weights="weights/none.th")
    monkeypatch.setattr(experiments, "targets", lambda profile: {"mnist-lenet": tiny, "cifar-10-resnet": others})
    return tiny


def test_by_epoch_and_stopping(watched, monkeypatch):
    monkeypatch.setitem(experiments.SIZES["watched"], "demo", ["mnist-lenet"])
    with pytest.raises(ValueError, match="run `python -m mialib targets mnist-lenet --profile demo`"):
        experiments.by_epoch("mnist-lenet", "demo", 0)
    targets.train("mnist-lenet", watched, "demo")
    table = experiments.by_epoch("mnist-lenet", "demo", 0)
    assert list(table.columns) == ["target", "epoch", "subset", "metric", "value", "low", "high"]
    assert set(table.epoch) == {2, 4}
    stopped = experiments.stopping(table, "demo")
    assert list(stopped.index.get_level_values("moment"))[::2] == ["before the first drop", "last watched"]
    assert stopped["epoch"].tolist()[::2] == [2, 4]
    test = table[table.metric == "test_acc"].set_index("epoch")["value"]
    assert stopped["epoch"].iloc[1] == test.idxmax()


@pytest.mark.parametrize("profile", config.PROFILES)
def test_only_trainings_that_take_hours_are_watched(profile):
    for name in experiments.watched(profile):
        target = experiments.target(name, profile)
        assert target.epochs and name == experiments.trained_as(name)
        assert target.network in ("lenet", "alexnet", "densenet-22-12")
