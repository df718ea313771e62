"""Federated training: against a literal loop, PyTorch's averaging, and itself stopped and gone on with."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mialib import runs, work
from mialib.models import federated, small
from mialib.models.federated import Active
from mialib.models.fit import Recipe
from mialib.models.small import CNN, MLP

MODEL, RECIPE = MLP((12, 6, 3)), Recipe(1, batch=8, rate=0.01)
QUIET, PARTIES = Active(), [np.arange(20), np.arange(20, 40), np.arange(40, 60)]


def data(kind=np.float32):
    rng = np.random.default_rng(0)
    return (rng.random((80, 12)) < 0.15).astype(kind), rng.integers(0, 3, 80)


def train(rounds=4, observed=(1, 2, 4), active=QUIET, kind=np.float32, words=(0, "test"), parties=PARTIES):
    return federated.train(MODEL, RECIPE, *data(kind), parties, words, rounds, observed, active)


def literal(rounds, ascent=0.0, rows=(), isolated=()):
    """One party after another in float64 by autograd and PyTorch's Adam, on the same draws."""
    X, y = data(np.float64)
    X, y = torch.from_numpy(X), torch.from_numpy(y)
    first = torch.from_numpy(small.initial(MODEL, runs.stream(0, "test", "initial"))).double()
    uploads = [first.clone() for _ in PARTIES]

    def loss(theta, at):
        (w1, b1), (w2, b2) = small.layers(MODEL, theta)
        return F.cross_entropy(torch.tanh(X[at] @ w1 + b1) @ w2 + b2, y[at])

    for number in range(1, rounds + 1):
        mean, sent = sum(uploads) / len(uploads), []
        for party, own in enumerate(uploads):
            theta = (own if party in isolated else mean).clone().requires_grad_()
            if ascent:
                (gradient,) = torch.autograd.grad(loss(theta, list(rows)), theta)
                theta = (theta + ascent * gradient).detach().requires_grad_()
            adam, rng = torch.optim.Adam([theta], lr=0.01), runs.stream(0, "test", "round", number, party)
            for at in torch.from_numpy(PARTIES[party][rng.permutation(20)]).split(8):
                adam.zero_grad()
                loss(theta, at).backward()
                adam.step()
            sent.append(theta.detach())
        uploads = sent
    return torch.stack(uploads).numpy()


@pytest.mark.parametrize("kind", [np.float32, np.uint8])
def test_rounds_are_those_of_a_literal_loop(kind):
    """Dense, and binary records that are trained on as sparse rows."""
    assert np.abs(train(kind=kind)[4] - literal(4)).max() < 1e-4


def test_ascent_and_isolation_are_those_of_a_literal_loop():
    rows = (1, 25, 70)
    found = train(active=Active(rows, 0.5, None, (1,)))[4]
    expected = literal(4, 0.5, rows, (1,))
    assert np.abs(found - expected).max() < 1e-4
    assert np.abs(found - literal(4)).max() > 1e-2


@pytest.mark.parametrize("model", [MODEL, CNN((1, 16, 16), 3, 4, (2, 2))])
def test_ascent_is_one_step_up_the_mean_gradient(model):
    rng = np.random.default_rng(1)
    X = data()[0] if model is MODEL else rng.integers(0, 256, (80, 1, 16, 16)).astype(np.uint8)
    theta = torch.from_numpy(small.initial(model, rng))
    leaf = theta.clone().requires_grad_()
    if model is MODEL:
        (w1, b1), (w2, b2) = small.layers(model, leaf)
        logits = torch.tanh(torch.from_numpy(X[:9]) @ w1 + b1) @ w2 + b2
    else:
        logits = small.image_logits(small.layers(model, leaf), torch.from_numpy(X[:9]))
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits, torch.from_numpy(data()[1][:9])), leaf)
    federated.ascend(model, theta, X[:9], data()[1][:9], 0.7)
    assert torch.allclose(theta, (leaf + 0.7 * gradient).detach(), atol=1e-6)


def test_a_party_that_attacks_moves_its_own_upload_alone():
    rows, quiet = (1, 25), train(rounds=1, observed=[1])[1]
    loud = train(rounds=1, observed=[1], active=Active(rows, 0.5, by=2))[1]
    assert (loud[:2] == quiet[:2]).all() and np.abs(loud[2] - quiet[2]).max() > 1e-3
    theta = torch.from_numpy(quiet[2].copy())
    X, y = data()
    federated.ascend(MODEL, theta, X[list(rows)], y[list(rows)], 0.5)
    assert np.allclose(loud[2], theta.numpy(), atol=1e-6)


def test_aggregate_is_pytorchs_average():
    uploads = train()[4]
    average = torch.optim.swa_utils.AveragedModel(federated.module(MODEL, uploads[0]))
    for row in uploads:
        average.update_parameters(federated.module(MODEL, row))
    expected = federated.module(MODEL, federated.aggregate(uploads)).state_dict()
    for name, value in average.module.state_dict().items():
        assert torch.allclose(value, expected[name], atol=1e-6)


def test_an_isolated_party_is_the_same_whoever_else_is_isolated():
    one, every = (train(active=Active(isolated=parties))[4] for parties in ((0,), (0, 1, 2)))
    assert (one[0] == every[0]).all() and (one[1] != every[1]).any()


def test_same_seeds_give_the_same_bits_stopped_or_not(own_cache, monkeypatch):
    whole = train()
    monkeypatch.setenv("MIALIB_CACHE", str(own_cache / "other"))
    train(rounds=2, observed=[2])  # a shorter one, as if interrupted
    calls = []
    before = federated._sent
    monkeypatch.setattr(federated, "_sent", lambda *arguments: calls.append(arguments) or before(*arguments))
    again = train(observed=[2, 4])
    assert len(calls) == 2  # rounds 3 and 4
    assert all((again[number] == whole[number]).all() for number in (2, 4))
    assert (train(words=(1, "test"))[4] != whole[4]).any()


def test_observed_rounds_are_kept(monkeypatch):
    train()
    monkeypatch.setattr(work, "store", lambda *_: pytest.fail("computed again"))
    assert list(train()) == [1, 2, 4]


def test_parties_learn():
    X, y = data()
    before = small.initial(MODEL, np.random.default_rng(0))
    after = federated.aggregate(train(rounds=200, observed=[200])[200])
    right = [(small.logits(MODEL, theta, X[:60]).argmax(1) == y[:60]).mean() for theta in (before, after)]
    assert right[1] > right[0] + 0.2


def test_module_answers_as_the_flat_parameters_do():
    for model in (MODEL, MLP((12, 7, 5, 3), "relu")):
        theta, X = small.initial(model, np.random.default_rng(0)), data()[0]
        net = federated.module(model, theta)
        assert np.allclose(net(torch.from_numpy(X)).detach().numpy(), small.logits(model, theta, X), atol=1e-6)
    assert [name for name, _ in net.named_children()] == ["1", "1a", "2", "2a", "last"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"parties": []}, "at least one party"),
        ({"parties": [np.arange(3), np.arange(0)]}, "party 1 has no records"),
        ({"parties": [np.arange(3), np.arange(4)]}, "equally many records.*3, 4"),
        ({"parties": [np.arange(79, 81)]}, "indices from 0 to 79"),
        ({"observed": [2, 5]}, "rounds must lie in 1 to 4: got 2, 5"),
        ({"observed": []}, "got none"),
        ({"active": Active(isolated=(3,))}, "no party 3"),
        ({"active": Active((1,), 1.0, by=7)}, "no party 7"),
        ({"active": Active((), 1.0)}, "at least one record"),
        ({"active": Active((99,), 1.0)}, "numbers from 0 to 79"),
        ({"active": Active((1,), float("inf"))}, "not finite"),
    ],
)
def test_bad_input_gives_one_line(wrong, said):
    with pytest.raises(ValueError, match=said) as caught:
        train(**wrong)
    assert "\n" not in str(caught.value)
