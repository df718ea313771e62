"""Gradient norms and layers: the fast way against one record at a time by autograd; then the attacks on both."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

from mialib.attacks import gradients, known, layers
from mialib.models import nets, targets
from mialib.models.targets import Target
from mialib.papers.rezaei2020 import experiments

SHAPES = {"lenet": (1, 28, 28), "alexnet": (3, 32, 32), "resnet-8": (3, 32, 32), "densenet-10": (3, 32, 32)}


def network(name, dtype=torch.float64):
    """Random weights and running statistics."""
    net = OTHERS[name]() if name in OTHERS else nets.make(name, SHAPES[name][0], 10)
    return randomised(net).to(dtype).eval()


def randomised(net):
    rng = torch.Generator().manual_seed(1)
    for name, values in net.state_dict().items():
        if values.dim() > 1:
            values.copy_(torch.randn(values.shape, generator=rng) * (2 / values[0].numel()) ** 0.5)
        elif name.endswith("running_var"):
            values.copy_(0.5 + torch.rand(values.shape, generator=rng))
        elif values.dim() == 1:
            values.add_(0.3 * torch.randn(values.shape, generator=rng))
    return net


class Twice(nn.Module):
    """One layer used two times: its gradient is a sum that no single use of it shows."""

    def __init__(self):
        super().__init__()
        self.same, self.last = nn.Linear(48, 48), nn.Linear(48, 10)

    def forward(self, x):
        return self.last(torch.tanh(self.same(torch.tanh(self.same(x.flatten(1))))))


class Own(nn.Module):
    """Parameters of its own, and a layer for which there is no closed form."""

    def __init__(self):
        super().__init__()
        self.scale, self.norm = nn.Parameter(torch.ones(48)), nn.LayerNorm(48)
        self.last = nn.Linear(48, 10)

    def forward(self, x):
        return self.last(self.norm(x.flatten(1) * self.scale))


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 30), nn.Tanh(), nn.BatchNorm1d(30), nn.Linear(30, 10))


def mixed():
    """Layers in place, a grouped and dilated convolution, a linear layer on several places at once."""
    convolution = nn.Conv2d(4, 8, 3, stride=2, padding=(2, 1), dilation=(2, 1), groups=2, bias=False)
    body = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True), convolution, nn.BatchNorm2d(8), nn.ReLU(inplace=True)
    )
    return nn.Sequential(body, nn.Flatten(2), nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(48, 10))


OTHERS = {"mlp": mlp, "mixed": mixed, "twice": Twice, "own": Own}


def records(name, n, dtype=torch.float64):
    rng = torch.Generator().manual_seed(2)
    x = torch.randn(n, *SHAPES.get(name, (3, 4, 4)), generator=rng, dtype=torch.float64)
    return x.to(dtype), torch.randint(0, 10, (n,), generator=rng)


def loop(net, x, y):
    """The oracle: one record, one gradient, SciPy's moments."""
    rows = []
    for record, label in zip(x, y, strict=True):
        record = record[None].clone().requires_grad_()
        loss = F.cross_entropy(net(record), label[None])
        *weights, by_input = torch.autograd.grad(loss, [*net.parameters(), record])
        rows.append([seven(np.concatenate([g.numpy().ravel() for g in weights])), seven(by_input.numpy().ravel())])
    return np.array(rows).swapaxes(0, 1)


def seven(g):
    size = np.abs(g)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a constant gradient
        return [size.sum(), np.linalg.norm(g), size.min(), size.max(), g.mean(), stats.skew(g), stats.kurtosis(g)]


@pytest.mark.parametrize("name", [*SHAPES, *OTHERS])
def test_is_the_loop(name):
    net, (x, y) = network(name), records(name, 5)
    expected = loop(net, x, y)
    assert (expected[:, :, 1] > 0).all()
    np.testing.assert_allclose(gradients.per_record(net, x, y), expected, rtol=1e-7)


@pytest.mark.parametrize("name", ["mlp", "lenet", "alexnet", "resnet-8"])
def test_single_precision_comes_close(name):
    net, (x, y) = network(name), records(name, 4)
    expected = loop(net, x, y)
    found = np.stack(gradients.per_record(net.float(), x.float(), y))
    np.testing.assert_allclose(found[..., [0, 1, 3, 6]], expected[..., [0, 1, 3, 6]], rtol=2e-3)
    close = np.abs(found[..., 4] - expected[..., 4]) / expected[..., 0]  # a mean near 0, by the mean size
    assert (close * x[0].numel() < 1e-3).all()


def test_other_layers_are_written_out_and_known_ones_are_not(monkeypatch):
    monkeypatch.setattr(gradients, "_whole_sums", None)
    hooked = [int(number) for number in torch.__version__.split(".")[:2]] >= [2, 15]  # see `_pass`
    for name in (*SHAPES, "mlp", *(["mixed"] if hooked else [])):
        gradients.per_record(network(name), *records(name, 1))
    with pytest.raises(TypeError):
        gradients.per_record(network("own"), *records("own", 1))


@pytest.mark.parametrize("name", ["lenet", "densenet-10", "mixed", "own"])
def test_chunks_change_nothing(name, monkeypatch):
    net, (x, y) = network(name), records(name, 7)
    whole = gradients.per_record(net, x, y)
    monkeypatch.setattr(gradients, "PASS_BYTES", 1)
    monkeypatch.setattr(gradients, "BLOCK_BYTES", 1)
    for one, other in zip(whole, gradients.per_record(net, x, y), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)


@pytest.mark.parametrize("name", ["lenet", "alexnet", "own"])
def test_no_block_is_larger_than_stated(name, monkeypatch):
    """Of records together; a convolution with many places is written out for one record at least."""
    made, sums = [], gradients._sums
    monkeypatch.setattr(gradients, "_sums", lambda g: made.append(g.numel() * g.element_size()) or sums(g))
    monkeypatch.setattr(gradients, "PASS_BYTES", 2**22)
    gradients.per_record(network(name, torch.float32), *records(name, 300 if name == "lenet" else 8, torch.float32))
    assert max(made) <= gradients.BLOCK_BYTES


def test_a_sure_network_keeps_its_digits():
    """p - 1 of the true class is about -1e-9: nothing but rounding error in float32, where a plain loop fails."""
    net, (x, _), y = network("mlp"), records("mlp", 3), torch.zeros(3, dtype=torch.int64)
    with torch.no_grad():
        net[-1].bias[0] += 25
    expected = loop(net, x, y)
    net, x = net.float(), x.float()
    sizes = [0, 1, 3]
    assert (abs(loop(net, x, y) / expected - 1)[..., :2] > 0.1).all()
    np.testing.assert_allclose(np.stack(gradients.per_record(net, x, y))[..., sizes], expected[..., sizes], rtol=1e-3)


def test_no_gradient_has_no_shape():
    """All of the loss is gone: norms are 0, skewness and kurtosis undefined, as SciPy says."""
    net = nn.Sequential(nn.Linear(4, 2))
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].bias.copy_(torch.tensor([2000.0, -2000.0]))
    weights, by_input = gradients.per_record(net, torch.ones(1, 4), torch.tensor([0]))
    np.testing.assert_array_equal(weights, [[0, 0, 0, 0, 0, np.nan, np.nan]])
    np.testing.assert_array_equal(by_input, weights)


@pytest.mark.parametrize("shift", [0, 1, 100])
def test_moments_from_sums_of_powers(shift):
    g = np.random.default_rng(0).gamma(2, size=(3, 5000)) + shift
    sums = gradients._sums(torch.from_numpy(g))
    found = gradients._norms(sums, 5000, torch.ones(3, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(found, [seven(row) for row in g], rtol=1e-6)


def test_sums_of_an_outer_product():
    a, b = (torch.from_numpy(np.random.default_rng(n).normal(size=(3, n))) for n in (5, 9))
    outer = torch.einsum("ni,nj->nij", a, b)
    torch.testing.assert_close(gradients._sums(a) * gradients._sums(b), gradients._sums(outer))


def test_bad_input_says_so():
    net = nn.Sequential(nn.Linear(4, 3))
    with pytest.raises(ValueError, match="y has 3 values for 2 records"):
        gradients.per_record(net, torch.zeros(2, 4), torch.zeros(3, dtype=torch.int64))
    mixing = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False))
    with pytest.raises(ValueError, match="running statistics"):
        gradients.per_record(mixing, torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"no module 'relu9'; it has .*relu1"):
        layers.outputs(nets.make("lenet", 1, 10), torch.zeros(1, 1, 28, 28), ["relu9"])


def test_the_first_of_each_kind():
    y, member = np.array([0, 1, 0, 0, 0, 0]), np.array([1, 1, 1, 1, 0, 0], bool)
    right = np.array([1, 1, 1, 0, 1, 1], bool)
    np.testing.assert_array_equal(gradients.first(y, member, right, 1), [0, 1, 3, 4])
    np.testing.assert_array_equal(gradients.first(y, member, right, 9), np.arange(6))
    assert gradients.first(y[:0], member[:0], right[:0], 1).shape == (0,)


@pytest.mark.parametrize("name", [*SHAPES, "mixed"])
def test_outputs_are_those_of_the_layers(name):
    net, (x, _) = network(name), records(name, 3)
    if name == "mixed":
        found = layers.outputs(net, x, ["0.2", "0"])  # what the batch normalisation gets, before it and a ReLU
        torch.testing.assert_close(found["0.2"], net[0][:3](x))
        torch.testing.assert_close(found["0"], net[0](x))
        return
    layer = nets.LAYERS[name.split("-")[0]]
    found = layers.outputs(net, x, [layer[-1], layer[-2]])
    last = list(net.children())[-1]
    torch.testing.assert_close(last(found[layer[-1]]), net(x))


def trained(n=240, leak=False):
    """A target on noise; with a leak, its members are brighter than others."""
    rng = np.random.default_rng(0)
    X, member = rng.integers(0, 150, (n, 1, 28, 28), np.uint8), np.arange(n) < n // 2
    X[member] += 100 if leak else 0
    target = Target("mnist", "lenet", scale="mnist")
    images = targets.Images(X, rng.integers(0, 2, n), member, 10, "S", "noise", "noise")
    return targets.Trained("mnist-lenet", target, network("lenet", torch.float32), images, {})


def test_norms_of_a_target_come_from_the_cache(monkeypatch):
    one, rows = trained(), np.array([3, 5, 200])
    x = targets.normalised(one.target, one.data.X[rows])
    expected = gradients.per_record(one.net, x, torch.from_numpy(one.data.y[rows]))
    np.testing.assert_array_equal(gradients.norms(one, rows), expected)
    monkeypatch.setattr(gradients, "per_record", None)
    np.testing.assert_array_equal(gradients.norms(one, rows), expected)
    with pytest.raises(ValueError, match="unknown layer -3; valid: -1, -2"):
        layers.layer(one, -3)


@pytest.mark.parametrize("name", list(SHAPES))
def test_the_last_features_come_with_the_confidences(name, monkeypatch):
    net, (x, _) = network(name, torch.float32), records(name, 8, torch.float32)
    monkeypatch.setattr(targets, "normalised", lambda target, X: x[torch.as_tensor(X).long()])
    monkeypatch.setattr(targets, "identity", lambda trained: f"last features of {name}")
    images = targets.Images(np.arange(8), np.zeros(8, np.int64), np.arange(8) < 4, 10, "S", "noise", "noise")
    one = targets.Trained(name, Target("noise", name), net, images, {})
    [wanted] = layers.outputs(net, x, [nets.LAYERS[name.split("-")[0]][-1]]).values()
    np.testing.assert_allclose(layers.layer(one, -1), wanted.flatten(1), atol=1e-5)
    np.testing.assert_allclose(targets.confidences(one), net(x).softmax(1).detach(), atol=1e-5)
    assert not any(layer._forward_pre_hooks for layer in net.modules())


@pytest.mark.parametrize("leak", [False, True])
def test_layers_give_a_planted_leak_away_and_no_other(leak):
    attacked = experiments.layer_attacks(trained(400, leak), -1, known.Search(1, 1, 1, 5), 0, 1, ["all"])
    found = experiments.by_layer(attacked, ["honest"])
    found = found[(found["metric"] == "balanced_accuracy") & (found["subset"] == "all")].iloc[0]
    assert (found["value"] > 0.8) if leak else (abs(found["value"] - 0.5) < 0.2)


def test_layers_are_asked_in_turn_within_each_subset_on_cifar_alone(monkeypatch):
    monkeypatch.setattr(known, "NINE", (("nn", "under"),))
    lenet = trained(400)
    cifar = targets.Trained("cifar-10-alexnet", lenet.target, lenet.net, lenet.data, {})
    hit = np.arange(len(cifar.data.y)) % 3 > 0
    monkeypatch.setattr(experiments, "right", lambda trained: hit)
    found = experiments.layer_attacks(cifar, -1, known.Search(1, 1, 1, 5), 0, 1)
    for name, each in found.items():
        [seen] = each.records
        assert len(seen.y) == {"all": len(hit), "correct": hit.sum(), "misclassified": (~hit).sum()}[name]
        first, _ = known.split(seen.y, seen.member)
        choice = first[known.split(seen.y[first], seen.member[first], 0.75)[1]]
        kept = ~np.isin(seen.y, list(each.result(known.CROSS).skipped)) & ~np.isin(np.arange(len(seen.y)), choice)
        assert each.result(known.CROSS).rows.tolist() == np.flatnonzero(kept).tolist()
    table = experiments.by_layer(found, ["honest", "last"])
    assert set(table["attack"]) == {"honest", "last"}
    again = experiments.layer_attacks(lenet, -1, known.Search(1, 1, 1, 5), 0, 1, ["all"])
    assert set(experiments.by_layer(again, ["honest", "last"])["attack"]) == {"honest"}


def test_distances_that_crossed_are_asked_in_turn():
    rng = np.random.default_rng(0)
    about = {"target": "cifar-10-alexnet", "protocol": "paper", "subset": "correct", "class": np.repeat(range(5), 100)}
    found = pd.DataFrame(about | {"side": np.tile(["train", "test"], 250), "crossed": np.arange(500) % 100 < 80})
    found["distance"] = rng.normal(size=500) + 2 * (found["side"] == "train") + 1e6 * ~found["crossed"]
    table = experiments.by_distance(found, 0)
    table = table[table["metric"] == "balanced_accuracy"].set_index("asked")
    assert table["records"].to_dict() == {"": 200, experiments.LAST: 40} and (table["protocol"] == "paper").all()
    assert abs(table.loc["", "value"] - 0.84) < 0.06


def test_gradients_of_noise_say_nothing_and_planted_norms_all():
    rng = np.random.default_rng(0)
    norms = {f"{by}_{name}": rng.normal(size=800) for by in "wx" for name in gradients.NORMS}
    about = {"target": "noise", "class": np.arange(800) % 4, "member": np.arange(800) < 400}
    table = pd.DataFrame(about | {"correct": np.arange(800) % 8 < 4} | norms)
    table["x_l2"] += 9 * table["member"]
    found = experiments.by_gradient(table, 0)
    found = found[(found["metric"] == "balanced_accuracy") & (found["asked"] == "")]
    found = found.set_index(["subset", "by"])["value"]
    assert (found.xs("x", level="by") == 1).all()
    auc = experiments.gradient_aucs(table, 0)
    planted = auc["by"].eq("x") & auc["norm"].eq("l2")
    assert (auc.loc[planted, "value"] == 1).all() and (abs(auc.loc[~planted, "value"] - 0.5) < 0.1).all()
    assert ((auc["low"] < 0.5) & (auc["high"] > 0.5))[~planted].mean() > 0.8
    assert (abs(found.xs("w", level="by") - 0.5) < 0.2).all()
