import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import scipy.sparse
import torch
from distributed import LocalCluster

from mialib import runs
from mialib.models import fit, small
from mialib.models.fit import Recipe, fit_many
from mialib.models.small import CNN, MLP

MODELS = [MLP((7, 5, 3)), MLP((7, 6, 5, 3), "relu"), MLP((7, 3)), MLP((7, 5, 3), start="glorot")]
IMAGES = CNN((3, 14, 16), 4, hidden=6, filters=(5, 6), kernel=3)


def problem(n=90, d=7, classes=3, models=4):
    rng = np.random.default_rng(0)
    X = (rng.random((n, d)) < 0.3).astype(np.uint8)
    y = rng.integers(classes, size=n)
    members = [rng.permutation(n)[:40] for _ in range(models)]
    return X, y, members, [(0, "test", i) for i in range(models)]


def module(model):
    """The same network as anybody would write it."""
    steps = []
    for a, b in zip(model.sizes, model.sizes[1:], strict=False):
        steps += [torch.nn.Linear(a, b), torch.nn.Tanh() if model.activation == "tanh" else torch.nn.ReLU()]
    return torch.nn.Sequential(*steps[:-1])


def put(net, model, flat):
    with torch.no_grad():
        for layer, (weight, bias) in zip(
            [m for m in net if isinstance(m, torch.nn.Linear)], small.layers(model, flat), strict=True
        ):
            layer.weight.copy_(torch.as_tensor(weight).T)
            layer.bias.copy_(torch.as_tensor(bias))
    return net


def flatten(net):
    linear = [m for m in net if isinstance(m, torch.nn.Linear)]
    return torch.cat([t for m in linear for t in (m.weight.T.reshape(-1), m.bias)]).detach().numpy()


@pytest.mark.parametrize("model", MODELS)
def test_gradient_is_autograds_in_float64(model):
    rng = np.random.default_rng(1)
    x, y = torch.from_numpy(rng.normal(size=(11, 7))), torch.from_numpy(rng.integers(3, size=11))
    theta = torch.from_numpy(small.initial(model, rng).astype(float))
    gradient = torch.full_like(theta, np.nan)
    layers, slots = small.layers(model, theta), small.layers(model, gradient)
    fit.loss_gradient(model, layers, slots, (x,), y, fit._workspace(model, theta, 11))
    net = put(module(model).double(), model, theta)
    torch.nn.functional.cross_entropy(net(x), y).backward()
    expected = torch.cat(
        [g for m in net if isinstance(m, torch.nn.Linear) for g in (m.weight.grad.T.reshape(-1), m.bias.grad)]
    )
    np.testing.assert_allclose(gradient, expected, rtol=1e-10, atol=1e-14)


def pictures(n=60):
    rng = np.random.default_rng(2)
    return rng.integers(0, 256, (n, 3, 14, 16)).astype(np.uint8), rng.integers(4, size=n)


def as_module(flat):
    """Our flat parameters in the order and layout of `image_module`'s: nn.Flatten counts channels first, ours last."""
    (w1, b1), (w2, b2), (w3, b3), (w4, b4) = small.layers(IMAGES, torch.as_tensor(flat))
    hidden = w3.reshape(2, 2, 6, 6).permute(3, 2, 0, 1).reshape(6, 24)
    return w1.permute(0, 3, 1, 2), b1, w2.permute(0, 3, 1, 2), b2, hidden, b3, w4.T, b4


def image_module(flat):
    """The CNN as anybody would write it: convolution, tanh, pooling, twice; flatten; hidden layer; outputs."""
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 5, 3), torch.nn.Tanh(), torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(5, 6, 3), torch.nn.Tanh(), torch.nn.MaxPool2d(2),
        torch.nn.Flatten(), torch.nn.Linear(24, 6), torch.nn.Tanh(), torch.nn.Linear(6, 4),
    )  # fmt: skip
    net = net.to(torch.as_tensor(flat).dtype)
    with torch.no_grad():
        for parameter, value in zip(net.parameters(), as_module(flat), strict=True):
            parameter.copy_(value)
    return net


def test_images_are_trained_on_as_in_the_plain_loop():
    X, y = pictures()
    [theta] = fit_many(IMAGES, Recipe(4, batch=16, l2=1e-3, decay=0.0), X, y, [np.arange(60)], [(0, "a")])
    rng = runs.stream(0, "a")
    net = image_module(small.initial(IMAGES, rng))
    adam = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(4):
        for batch in torch.from_numpy(rng.permutation(60)).split(16):
            adam.zero_grad()
            x = torch.from_numpy(X).float()[batch] / 127.5 - 1
            loss = torch.nn.functional.cross_entropy(net(x), torch.from_numpy(y)[batch])
            (loss + 1e-3 * sum((p**2).sum() for p in net.parameters())).backward()
            adam.step()
    ours = image_module(theta)
    for a, b in zip(net.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=5e-6, rtol=0)
    scores = net(torch.from_numpy(X).float() / 127.5 - 1).detach()
    np.testing.assert_allclose(small.logits(IMAGES, theta, X), scores, atol=5e-5)


def test_image_gradient_is_that_of_the_module_in_float64():
    X, y = (torch.from_numpy(array) for array in pictures(9))
    theta = torch.from_numpy(small.initial(IMAGES, np.random.default_rng(1)).astype(float))
    gradient = torch.full_like(theta, np.nan)
    layers, slots = small.layers(IMAGES, theta), small.layers(IMAGES, gradient)
    fit.image_loss_gradient(layers, slots, X, y)
    net = image_module(theta)
    torch.nn.functional.cross_entropy(net(X.double() / 127.5 - 1), y).backward()
    for parameter, ours in zip(net.parameters(), as_module(gradient), strict=True):
        torch.testing.assert_close(ours, parameter.grad, rtol=1e-9, atol=1e-13)


def test_images_train_alike_in_processes(monkeypatch, tmp_path):
    X, y = pictures()
    members, words = [np.arange(40), np.arange(20, 60), np.arange(5)], [(0, i) for i in range(3)]

    def fit(**how):
        monkeypatch.setenv("MIALIB_CACHE", str(tmp_path / str(how)))
        return fit_many(IMAGES, Recipe(2, batch=16), X, y, members, words, **how)

    monkeypatch.setenv("MIALIB_WORKERS", "2")
    assert (fit(executor="processes") == fit(executor="serial")).all()
    with pytest.raises(ValueError, match="needs MLPs"):
        fit(executor="stacked")
    with pytest.raises(ValueError, match="images must be uint8"):
        fit_many(IMAGES, Recipe(1), X.astype(np.float32), y, members, words)
    with pytest.raises(ValueError, match="the model takes 3x14x16 features, the records have 3x16x14"):
        fit_many(IMAGES, Recipe(1), X.swapaxes(2, 3), y, members, words)


@pytest.mark.parametrize("l2", [0.0, 1e-2])
@pytest.mark.parametrize("model", MODELS)
def test_fit_is_the_plain_loop(model, l2):
    X, y, (rows, *_), (words, *_) = problem()
    [theta] = fit_many(model, Recipe(6, batch=16, l2=l2, decay=0.0), X, y, [rows], [words])
    rng = runs.stream(*words)
    net = put(module(model), model, small.initial(model, rng))
    adam = torch.optim.Adam(net.parameters(), lr=1e-3)
    x, labels = torch.from_numpy(X[rows].astype(np.float32)), torch.from_numpy(y[rows])
    for _ in range(6):
        for batch in torch.from_numpy(rng.permutation(40)).split(16):
            adam.zero_grad()
            loss = torch.nn.functional.cross_entropy(net(x[batch]), labels[batch])
            (loss + l2 * sum((p**2).sum() for p in net.parameters())).backward()
            adam.step()
    np.testing.assert_allclose(theta, flatten(net), atol=2e-6)


def test_sparse_rows_train_the_same_network():
    rng = np.random.default_rng(3)
    X, y = (rng.random((70, 30)) < 0.1).astype(np.uint8), rng.integers(3, size=70)
    X[5] = 0
    model, recipe, rows = MLP((30, 4, 3)), Recipe(5, batch=32), [np.arange(70)]
    [dense] = fit_many(model, recipe, X.astype(np.float32), y, rows, [(0, "a")])
    [sparse] = fit_many(model, recipe, scipy.sparse.csr_array(X), y, rows, [(0, "a")])
    [chosen] = fit_many(model, recipe, X, y, rows, [(0, "a")])
    np.testing.assert_allclose(dense, sparse, atol=2e-6)
    assert X.mean() < fit.SPARSE_BELOW and (chosen == sparse).all()


def test_executors_agree(monkeypatch, tmp_path):
    X, y, members, words = problem()
    model, recipe = MLP((7, 6, 3)), Recipe(8, batch=16)

    def fit(**how):
        monkeypatch.setenv("MIALIB_CACHE", str(tmp_path / str(how)))
        return fit_many(model, recipe, X, y, members, words, **how)

    monkeypatch.setenv("MIALIB_WORKERS", "2")
    serial = fit(executor="serial")
    assert (fit(executor="processes") == serial).all()
    with LocalCluster(2, threads_per_worker=1, protocol="tcp", dashboard_address=None) as cluster:
        assert (fit(scheduler=cluster.scheduler_address) == serial).all()
    # Another order of summation; float32 rounding grows a little from step to step.
    np.testing.assert_allclose(fit(executor="stacked"), serial, atol=1e-5)


def test_killed_dask_worker_changes_nothing(monkeypatch, tmp_path):
    """Two processes over TCP; one is killed when the first models are there."""
    X, y, members, words = problem(n=2000, d=50, models=10)
    model, recipe = MLP((50, 20, 3)), Recipe(600, batch=10)
    serial = fit_many(model, recipe, X, y, members, words, "serial")
    monkeypatch.setenv("MIALIB_CACHE", str(tmp_path / "dask"))
    killed = []

    def kill(cluster):
        while len(list((tmp_path / "dask").rglob("*.npz"))) < 2:
            time.sleep(0.02)
        killed.append(next(iter(cluster.workers.values())).pid)
        os.kill(killed[0], signal.SIGKILL)

    with LocalCluster(2, threads_per_worker=1, protocol="tcp", dashboard_address=None) as cluster:
        killer = threading.Thread(target=kill, args=(cluster,))
        killer.start()
        assert (fit_many(model, recipe, X, y, members, words, scheduler=cluster.scheduler_address) == serial).all()
        killer.join()
    assert killed and len(list((tmp_path / "dask").rglob("*.npz"))) == 10


def test_auto_stacks_on_a_gpu_only_what_can_be_stacked(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert fit._choose(MODELS[0], "auto", None, True) == "stacked"
    assert fit._choose(MODELS[0], "auto", None, False) == "processes"
    assert fit._choose(IMAGES, "auto", None, True) == "serial"
    assert fit._choose(MODELS[0], "auto", "tcp://127.0.0.1:1", True) == "dask"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert fit._choose(MODELS[0], "auto", None, True) == "processes"
    assert fit._choose(IMAGES, "auto", None, True) == "processes"


def test_sets_of_different_sizes_train_together():
    X, y, members, words = problem()
    ragged = [rows[:size] for rows, size in zip(members, (40, 7, 16, 1), strict=True)]
    together = fit_many(MODELS[0], Recipe(3, batch=16), X, y, ragged, words)
    alone = [
        fit_many(MODELS[0], Recipe(3, batch=16), X, y, [r], [w], "serial")[0]
        for r, w in zip(ragged, words, strict=True)
    ]
    assert (together == np.stack(alone)).all()


def test_stacks_are_cut_into_parts(monkeypatch):
    X, y, members, words = problem()
    whole = fit_many(MODELS[0], Recipe(3), X, y, members, words, "stacked")
    monkeypatch.setattr(fit, "STACK", 3)
    parts = fit_many(MODELS[0], Recipe(3), X, y, members, [(*w, "x") for w in words], "stacked")
    assert whole.shape == parts.shape and len(np.unique(parts[:, 0])) == 4


def test_another_model_changes_no_other():
    X, y, members, words = problem()
    few = fit_many(MODELS[0], Recipe(2), X, y, members[:2], words[:2])
    more = fit_many(MODELS[0], Recipe(2), X, y, members, words)
    assert (more[:2] == few).all() and len(np.unique(more[:, 0])) == 4


def refuse(*_):
    raise AssertionError("trained again what was in the cache")


def test_another_start_is_another_model():
    X, y, members, words = problem(models=1)
    plain, glorot = (fit_many(MLP((7, 5, 3), start=start), Recipe(1), X, y, members, words) for start in small.STARTS)
    assert not np.allclose(plain, glorot)


def test_cached_models_are_not_trained_again(monkeypatch):
    X, y, members, words = problem()
    first = fit_many(MODELS[0], Recipe(2), X, y, members, words)
    monkeypatch.setattr(fit, "_run", refuse)
    assert (fit_many(MODELS[0], Recipe(2), X, y, members, words) == first).all()
    with pytest.raises(AssertionError, match="trained again"):
        fit_many(MODELS[0], Recipe(3), X, y, members, words)


def test_damaged_entry_is_rebuilt(own_cache):
    X, y, members, words = problem()
    first = fit_many(MODELS[0], Recipe(2), X, y, members, words)
    entry = sorted(own_cache.rglob("*.npz"))[0]
    for damage in (entry.read_bytes()[:-40], bytes([entry.read_bytes()[0] ^ 1]) + entry.read_bytes()[1:], b""):
        entry.write_bytes(damage)
        with pytest.warns(UserWarning, match="damaged"):
            assert (fit_many(MODELS[0], Recipe(2), X, y, members, words) == first).all()


SLOW_FIT = """
import numpy as np
from mialib.models.small import MLP
from mialib.models.fit import Recipe, fit_many
rng = np.random.default_rng(0)
X, y = rng.random((300, 20)).astype(np.float32), rng.integers(3, size=300)
theta = fit_many(MLP((20, 30, 3)), Recipe(150, batch=10), X, y, [np.arange(300)] * 5,
                 [(0, i) for i in range(5)], executor="serial")
print(theta.sum())
"""


def test_killed_run_resumes(own_cache):
    env = os.environ | {"MIALIB_CACHE": str(own_cache)}
    run = subprocess.Popen([sys.executable, "-c", SLOW_FIT], env=env, start_new_session=True)
    while not list(own_cache.rglob("*.npz")):
        assert run.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    kept = {path: path.stat().st_mtime_ns for path in own_cache.rglob("*.npz")}
    assert 0 < len(kept) < 5
    resumed = subprocess.run([sys.executable, "-c", SLOW_FIT], env=env, capture_output=True, text=True, check=True)
    entries = list(own_cache.rglob("*.npz"))
    assert len(entries) == 5 and "damaged" not in resumed.stderr
    fresh = env | {"MIALIB_CACHE": str(own_cache / "other")}
    whole = subprocess.run([sys.executable, "-c", SLOW_FIT], env=fresh, capture_output=True, text=True, check=True)
    assert resumed.stdout == whole.stdout
    assert all(path.stat().st_mtime_ns == kept[path] for path in kept), "finished models were trained again"


def test_bad_input_is_refused():
    X, y, members, words = problem()
    model, recipe = MODELS[0], Recipe(1)
    with pytest.raises(ValueError, match="unknown executor 'magic'; valid: auto"):
        fit_many(model, recipe, X, y, members, words, executor="magic")
    with pytest.raises(ValueError, match="one tuple of seed words a model, not 4 and 3"):
        fit_many(model, recipe, X, y, members, words[:3])
    with pytest.raises(ValueError, match="the model takes 7 features"):
        fit_many(model, recipe, X[:, :6], y, members, words)
    with pytest.raises(ValueError, match="labels run from 0 to 3"):
        fit_many(model, recipe, X, np.append(y[1:], 3), members, words)
    with pytest.raises(ValueError, match="at least one record, with indices from 0 to 89"):
        fit_many(model, recipe, X, y, [np.array([90])], words[:1])
    with pytest.raises(ValueError, match="must be binary"):
        fit_many(model, recipe, scipy.sparse.csr_array(X * 2), y, members, words)
    with pytest.raises(ValueError, match="training sets of one size"):
        fit_many(model, recipe, X, y, [members[0], members[1][:5]], words[:2], executor="stacked")
