"""Distances to the decision boundary: against one image at a time, against closed forms, and between protocols."""

import math

import numpy as np
import pytest
import sklearn.datasets
import torch
from torch import nn

from mialib.attacks import boundary
from mialib.models import nets, targets
from mialib.papers.rezaei2020 import experiments

N = 12


@pytest.fixture(scope="module")
def planted():
    """A small convolutional network with steep random weights in float64, records on both sides of 0..1, labels."""
    rng = np.random.default_rng(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5)).double()
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(torch.from_numpy(rng.normal(0, 1, weight.shape)))
    x = torch.from_numpy(rng.normal(0.5, 0.6, (N, 2, 8, 8)))
    label = net(x).argmax(1)
    label[:6] = net(x[:6].clamp(0, 1)).argmax(1)  # clipping does not misclassify these: they need a search
    label[-3:] = (label[-3:] + 1) % 5  # three misclassified records
    return net.eval().requires_grad_(False), x, label


def linear(classes, d=7):
    rng = np.random.default_rng(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(d, classes)).eval()
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(torch.from_numpy(rng.normal(0, 1, weight.shape)))
    return net, torch.from_numpy(rng.normal(0, 1, (40, 1, d)).astype(np.float32))


def confidence(net, x):
    p = net(x[None]).softmax(1)[0]
    return p.max().item(), p.argmax().item()


def gradient(loss, x):
    x = x.clone().requires_grad_()
    loss(x).backward()
    return x.grad


def bisected(net, near, far, released):
    """The released code's search between two points; returns its last point, or for the paper the one outside."""
    (sure, label), (sure_far, label_far) = confidence(net, near), confidence(net, far)
    middle, halvings = far, 0
    while abs(sure - sure_far) > 1e-4 and halvings < 500:
        halvings += 1
        middle = (near + far) / 2
        found, name = confidence(net, middle)
        if name == label or (released and name != label_far):
            near, sure, label = middle, found, name
        else:
            far, sure_far, label_far = middle, found, name
    return middle if released else far


def paper_loop(net, x, y, steps):
    """Algorithm 1, one image at a time, with autograd's cross-entropy."""
    start = confidence(net, x)[1]
    here, length = x, 1e-3 * math.sqrt(x.numel())
    for _ in range(steps):
        slope = gradient(lambda z: nn.functional.cross_entropy(net(z[None]), torch.tensor([start])), here)
        there = here + length * slope / slope.norm()
        if confidence(net, there)[1] != start:
            return (bisected(net, here, there, released=False) - x).norm().item()
        here = there
    return math.nan


def released_loop(net, x, y, steps):
    """attacks/distance_to_boundary.py of shrezaei/MI-Attack, one image at a time."""
    origin, here, way = x.clone(), x, None
    aim = nn.functional.one_hot(y, 5)
    for step in range(steps):
        if step % 10 == 0:
            slope = gradient(lambda z: (net(z[None]).softmax(1)[0] - aim).square().sum(), here)
            way = slope / (slope.square().sqrt() + 10e-12)
        here = here + 1e-3 * way
        if step == 0:
            origin = here
        here = here.clamp(0, 1)
        if confidence(net, here)[1] != y:
            back = (here - 1e-3 * way).clamp(0, 1)
            return (bisected(net, back, here, released=True) - origin).norm().item()
    return math.nan


@pytest.mark.parametrize(("protocol", "loop"), [("paper", paper_loop), ("released-code", released_loop)])
def test_batch_is_the_loop_over_single_images(planted, protocol, loop):
    net, x, y = planted
    ours = boundary.distances(net, x, y, protocol, steps=25)
    theirs = np.array([loop(net, image, label, 25) for image, label in zip(x, y, strict=True)])
    assert 0 < np.isnan(theirs).sum() < N  # some find no boundary in that many steps
    assert len(set(ours.steps)) >= 3
    np.testing.assert_array_equal(ours.crossed, ~np.isnan(theirs))
    np.testing.assert_allclose(ours.distance, theirs, rtol=1e-6)


@pytest.mark.parametrize("protocol", boundary.PROTOCOLS)
def test_part_of_a_batch_does_not_change_the_rest(planted, protocol, monkeypatch):
    net, x, y = planted
    whole = boundary.distances(net, x, y, protocol, steps=40)
    monkeypatch.setattr(boundary, "PART", {"cpu": 5})
    some = boundary.distances(net, x[3:10], y[3:10], protocol, steps=40)
    np.testing.assert_allclose(some.distance, whole.distance[3:10], rtol=1e-6)
    np.testing.assert_array_equal(some.steps, whole.steps[3:10])


@pytest.mark.parametrize("classes", [2, 6])
def test_linear_model_has_a_closed_form(classes):
    net, x = linear(classes)
    weight, logits = net[1].weight, net(x)
    own = logits.argmax(1)
    gap = logits.gather(1, own[:, None]) - logits
    span = (weight[own][:, None] - weight[None]).norm(dim=2)
    exact = torch.where(span > 0, gap / span, torch.inf).min(1).values.detach().numpy()
    minimal = boundary.distances(net, x, own, "minimal")
    ratio = minimal.distance / exact
    assert ratio.min() > 1 - 1e-3 and np.median(ratio) < 1 + 1e-3  # never nearer; a few go to the second nearest class
    assert (ratio < (1.001 if classes == 2 else 1.2)).all()
    if classes == 2:  # with more, the printed algorithm climbs a sum of classes, and its path bends
        paper = boundary.distances(net, x, own, "paper", steps=5000)
        np.testing.assert_allclose(paper.distance, exact, atol=1e-3 * math.sqrt(7))  # it ends within a step


@pytest.fixture(scope="module")
def digits():
    """A convolutional network that has learnt half of scikit-learn's digits, and 200 of the others."""
    X, y = (torch.from_numpy(array) for array in sklearn.datasets.load_digits(return_X_y=True))
    X, order = X.float().reshape(-1, 1, 8, 8) / 16, torch.from_numpy(np.random.default_rng(3).permutation(len(y)))
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        layers = nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10)
        net = nn.Sequential(*layers)
    adam = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(60):
        nn.functional.cross_entropy(net(X[order[:900]]), y[order[:900]]).backward()
        adam.step()
        adam.zero_grad()
    return net.eval().requires_grad_(False), X[order[-200:]], y[order[-200:]]


def test_minimal_is_no_farther_than_the_paper(digits):
    net, x, y = digits
    assert (net(x).argmax(1) == y).float().mean() > 0.9
    paper, minimal = (boundary.distances(net, x, y, protocol, 2000) for protocol in ("paper", "minimal"))
    assert paper.crossed.all() and minimal.crossed.all()
    assert (minimal.distance <= paper.distance).mean() >= 0.99
    assert minimal.distance.mean() < 0.99 * paper.distance.mean()


def test_misclassified_records(planted):
    """As released they stop after one step and a clip; the other protocols leave the predicted class."""
    net, x, y = planted
    released = boundary.distances(net, x, y, "released-code", steps=60)
    assert (released.steps[-3:] == 1).all()
    for protocol in ("paper", "minimal"):
        told = boundary.distances(net, x, net(x).argmax(1), protocol, 60)
        np.testing.assert_array_equal(told.distance, boundary.distances(net, x, y, protocol, 60).distance)


def test_clip_is_the_released_distance():
    """Where the clip alone misclassifies a record, the released distance is the clip's, to within two steps."""
    net, x = linear(2, d=300)
    label = 1 - net(x.clamp(0, 1)).argmax(1)
    clip = (x - x.clamp(0, 1)).flatten(1).norm(dim=1).numpy()
    found = boundary.distances(net, x, label, "released-code", steps=5)
    np.testing.assert_allclose(found.distance[found.steps == 1], clip[found.steps == 1], atol=2e-3 * math.sqrt(300))
    assert (found.steps == 1).mean() > 0.9


def test_failure_is_said_record_by_record(planted):
    net, x, y = planted
    found = boundary.distances(net, x, y, "paper", steps=1)
    assert not found.crossed.all()
    np.testing.assert_array_equal(np.isnan(found.distance), ~found.crossed)
    constant = nn.Sequential(nn.Flatten(), nn.Linear(128, 5, bias=True)).double().eval()
    nn.init.zeros_(constant[1].weight)
    for protocol in boundary.PROTOCOLS:  # no boundary anywhere, no gradient: all give up at once
        found = boundary.distances(constant, x, constant(x).argmax(1), protocol, steps=10**9)
        assert not found.crossed.any() and np.isnan(found.distance).all() and np.isnan(found.pixels).all()


def test_pixels_undo_the_scale(planted):
    net, x, y = planted
    found = boundary.distances(net, x, y, "paper", 60, std=(0.25, 0.25))
    np.testing.assert_allclose(found.pixels, found.distance / 4)


def test_bad_input(planted):
    net, x, y = planted
    with pytest.raises(ValueError, match="unknown protocol 'fast'; valid: paper, released-code, minimal"):
        boundary.distances(net, x, y, "fast")
    with pytest.raises(ValueError, match="y has 3 values for 12 records"):
        boundary.distances(net, x, y[:3], "paper")
    with pytest.raises(ValueError, match=r"net\.eval\(\)"):
        boundary.distances(nn.Linear(2, 2).train(), x, y, "paper")


@pytest.fixture
def trained():
    """A target without training, with records enough in each class."""
    rng = np.random.default_rng(0)
    target = targets.Target("mnist", "lenet", scale="mnist")
    y = np.repeat(np.arange(3), 20)
    X = rng.integers(0, 256, (60, 1, 28, 28)).astype(np.uint8)
    data = targets.Images(X, y, np.arange(60) % 2 == 0, 3, "S", "drawn", "digest")
    with torch.random.fork_rng():
        net = nets.make("lenet", 1, 3).eval().requires_grad_(False)
    return targets.Trained("mnist-lenet", target, net, data, {})


def test_records_of_a_target(trained, monkeypatch):
    monkeypatch.setattr(experiments, "LEAST_DISTANCE", 2)
    monkeypatch.setitem(experiments.SIZES["samples"]["demo"], "mnist-lenet", (4, 2, 3, 3))
    table = experiments.distances(trained, "demo")
    assert set(table["protocol"]) == set(boundary.PROTOCOLS)
    largest = table.groupby(["protocol", "class", "subset", "side"]).size().groupby("protocol").max()
    assert largest.to_dict() == {"paper": 4, "released-code": 2, "minimal": 3}
    assert (table["distance"].isna() == ~table["crossed"]).all()
    right = targets.confidences(trained).argmax(1) == trained.data.y
    assert (table["subset"].eq("correct") == right[table["record"]]).all()
    assert (table["clip"] == 0).all()  # MNIST's inputs lie in 0..1
    monkeypatch.setattr(boundary, "distances", None)  # from now on, only the cache answers
    again = boundary.of_target(
        trained, experiments.sample(trained, "demo", "paper"), "paper", experiments.SIZES["steps"]["demo"]
    )
    np.testing.assert_array_equal(again.distance, table.loc[table["protocol"] == "paper", "distance"])


def test_sample_leaves_out_small_parts(trained, monkeypatch):
    rows = experiments.sample(trained, "laptop", "paper")
    assert (np.diff(rows) > 0).all() and set(trained.data.y[rows]) <= {0, 1, 2}
    counts = [
        min(np.sum(part & (trained.data.member[rows] == side)) for side in (True, False))
        for label in range(3)
        for right in (True, False)
        if (part := (trained.data.y[rows] == label) & (_right(trained)[rows] == right)).any()
    ]
    assert counts and min(counts) >= experiments.LEAST_DISTANCE
    monkeypatch.setattr(experiments, "LEAST_DISTANCE", 1000)
    with pytest.raises(ValueError, match="no class of mnist-lenet has 1000"):
        experiments.sample(trained, "laptop", "paper")


def _right(trained):
    return targets.confidences(trained).argmax(1) == trained.data.y
