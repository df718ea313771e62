"""Units in another order: the function stays, a permuted copy comes back, and features are those of autograd."""

import numpy as np
import pytest
import torch
from torch import nn

from mialib import runs
from mialib.attacks import alignment
from mialib.attacks.nasr import Training
from mialib.data.datasets import Dataset
from mialib.models import modules
from mialib.papers.cretu2024 import experiments

ABOUT = experiments.Size(60, 1, 3, (3, 4), 12, 0, 0.03, 20, 10, 25, 3, 6, 3e-3, 100)


def net(seed=0, hidden=12):
    return modules.cnn((3, 20, 20), 4, (5, 6), hidden, 0.2, (seed, "net"))


def mlp(*sizes):
    return nn.Sequential(nn.Linear(sizes[0], sizes[1]), nn.Tanh(), nn.Linear(sizes[1], sizes[2]))


def orders(seed=0):
    rng = np.random.default_rng(seed)
    return [rng.permutation(n) for n in (5, 6, 12)]


@pytest.mark.parametrize("way", alignment.WAYS)
def test_a_realigned_network_answers_the_same_and_is_nearer(way):
    one, other = net(0), net(1)
    found, x = alignment.align(one, other, way), torch.rand(20, 3, 20, 20)
    assert torch.allclose(found(x), one(x), atol=1e-6)
    assert any(not torch.equal(a, b) for a, b in zip(found.parameters(), one.parameters(), strict=True))
    at = 0 if way == "bottom-up" else 2
    side = alignment.entering if way == "bottom-up" else alignment.leaving
    far, near = (
        np.linalg.norm(np.subtract(*(side(layers, at) for layers in alignment.both(each, other))), axis=1).sum()
        for each in (one, found)
    )
    assert near < far


@pytest.mark.parametrize("way", alignment.WAYS)
def test_a_permuted_copy_comes_back_exactly(way):
    one = net()
    shuffled, x = alignment.permuted(one, orders()), torch.rand(20, 3, 20, 20)
    assert torch.allclose(shuffled(x), one(x), atol=1e-6) and max(alignment.apart(shuffled, one)[:-1]) > 0
    back = alignment.align(shuffled, one, way)
    assert all(torch.equal(a, b) for a, b in zip(back.parameters(), one.parameters(), strict=True))
    assert alignment.apart(back, one) == [0.0] * 4


def test_what_does_not_fit_is_refused_in_one_line():
    with pytest.raises(ValueError, match="networks of different sizes have no units in common"):
        alignment.align(net(), net(hidden=13), "top-down")
    with pytest.raises(ValueError, match="unknown way 'sideways'; valid: bottom-up, top-down"):
        alignment.align(net(), net(), "sideways")
    with pytest.raises(ValueError, match="units cannot be exchanged through BatchNorm1d"):
        alignment.weighted(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)))
    with pytest.raises(ValueError, match="in an nn\\.Sequential"):
        alignment.weighted(nn.Linear(3, 4))
    with pytest.raises(ValueError, match="one permutation each of 4 units"):
        alignment.permuted(mlp(3, 4, 2), [np.array([0, 0, 1, 2])])


def data(noise=1.0, n=300, seed=0):
    rng = np.random.default_rng(seed)
    X, y = rng.integers(0, 256, (n, 3, 20, 20), np.uint8), rng.integers(4, size=n)
    return Dataset("cifar-10", X, y, 4, "M", "planted", runs.digest(X, y))


def test_gradients_are_those_of_autograd_in_double_precision():
    here, one = data(n=6), net()
    seen = experiments.observe(one, here, np.arange(6), np.ones(6, bool))
    double = net().double()
    x = torch.from_numpy(modules.scaled(here.X)).double()
    for kind, times in ((experiments.OF_THE_LOSS, 0), (experiments.GRADIENTS, 1)):
        [(delta, entered)] = seen.features[kind].gradients
        for i in range(6):
            double.zero_grad()
            logits = double(x[i : i + 1])
            logits = logits.softmax(1) if times else logits
            nn.functional.cross_entropy(logits, torch.tensor(here.y[i : i + 1])).backward()
            wanted = torch.hstack([double.fc2.weight.grad, double.fc2.bias.grad[:, None]]).numpy()
            np.testing.assert_allclose(np.outer(delta[i, 0], entered[i, 0]), wanted, atol=1e-6)


def test_networks_that_saw_no_record_tell_nothing(monkeypatch):
    monkeypatch.setenv("MIALIB_WORKERS", "1")
    networks = experiments.train(data(), ABOUT, 0)
    found = experiments.attack(networks, data(), ABOUT, 0)
    # Of three attackers three kinds of features, of two without outputs; with half as much known but for the loss's.
    assert len(found) == 3 * 5 + 2 * 3 and all(scores.shape == (1, 50) for scores in found.values())
    for key, scores in found.items():
        low, high = np.quantile(experiments.resampled(scores, "auc", 200, 0), [0.001, 0.999])
        assert low <= 0.5 <= high, key


def test_networks_that_learnt_noise_by_heart_are_seen(monkeypatch):
    monkeypatch.setenv("MIALIB_WORKERS", "1")
    about = experiments.Size(**vars(ABOUT) | {"epochs": 300, "hidden": 64, "filters": (8, 8), "passes": 40})
    networks = experiments.train(data(), about, 0)
    assert experiments.accuracies(networks.targets[0], data(), networks.target)["train"] == 1  # by heart, indeed
    found = experiments.attack(networks, data(), about, 0)
    for kind in (experiments.OUTPUTS, experiments.GRADIENTS):
        scores = found[experiments.INDEPENDENT, kind, ""]
        value = experiments.mean_auc(scores, np.arange(50) % 2 == 0)
        low = np.quantile(experiments.resampled(scores, "auc", 200, 0), 0.005)
        assert value > 0.75 and low > 0.5, kind


def test_no_record_is_asked_and_known_or_held_out_and_known():
    split = experiments.Split(np.arange(60), np.arange(60, 120))
    parts = experiments.drawn(split, (25, 10, 20), 0, "x")
    rows = np.concatenate([rows for rows, _ in parts])
    assert len(np.unique(rows)) == 2 * 55 and all(np.array_equal(member, rows < 60) for rows, member in parts)
    with pytest.raises(ValueError, match="too few to be known"):
        experiments.Size(**vars(ABOUT) | {"asked": 60})
    assert isinstance(ABOUT.training, Training)


def test_training_begins_where_the_network_is_and_repeats():
    here, one = data(), net()
    found = [modules.train(one, here.X, here.y, modules.Descent(1, 0.03), (i, "order")) for i in (0, 0, 1)]
    same = [all(torch.equal(a, b) for a, b in zip(found[0].parameters(), f.parameters(), strict=True)) for f in found]
    assert same == [True, True, False] and torch.equal(one.fc2.weight, net().fc2.weight)
    still = modules.train(one, here.X, here.y, modules.Descent(0, 0.03), (0, "order"))
    assert torch.equal(still.fc2.weight, one.fc2.weight)
    with pytest.raises(ValueError, match="weights are not finite at rate 1e\\+30"):
        modules.train(one, here.X, here.y, modules.Descent(2, 1e30), (0, "order"))


def test_mean_auc_against_a_loop():
    rng = np.random.default_rng(0)
    scores, member = rng.integers(0, 6, (2, 40)).astype(float), np.arange(40) % 2 == 0
    wanted = [np.mean((s[member][:, None] > s[~member]) + 0.5 * (s[member][:, None] == s[~member])) for s in scores]
    assert experiments.mean_auc(scores, member) == pytest.approx(np.mean(wanted))
