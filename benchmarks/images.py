"""Shadows of the CIFAR network on images of CIFAR's shape: `fit_many` against the loop most people write.

Claims: at least 2 times faster at the same accuracy on an idle machine, and at least half of the machine's own
float32 matrix-product rate. Images are random patterns, one a class, with noise: training is as dear as on CIFAR.
"""

import time
from typing import Any

import numpy as np
import torch

from benchmarks.measure import contender, show
from benchmarks.training import BATCH, descend, peak
from mialib import runs
from mialib.models import fit as engine
from mialib.models import small

SHADOWS, RECORDS, EPOCHS, CLASSES = 4, 5000, 4, 10
MODEL = small.CNN((3, 32, 32), CLASSES)
HERE = "benchmarks.images"


def flop() -> int:
    """Of one model and epoch: multiply-adds count two; forward, then both gradients, but the images need none."""
    first, second = (MODEL.inputs[1] - MODEL.kernel + 1, (MODEL.inputs[1] - MODEL.kernel + 1) // 2 - MODEL.kernel + 1)
    weights = [weight.size for weight, _ in small.layers(MODEL, np.empty(small.n_parameters(MODEL)))]
    uses = [first**2, second**2, 1, 1]  # of each weight for an image
    passes = [2, 3, 3, 3]
    return 2 * RECORDS * sum(w * u * p for w, u, p in zip(weights, uses, passes, strict=True))


def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X, y, and the numbers of the records that nothing is trained on."""
    rng = runs.stream(0, "bench", "images")
    y = rng.integers(CLASSES, size=RECORDS + 1000)
    patterns = rng.normal(128, 12, (CLASSES, 3, 32, 32))
    X = np.clip(patterns[y] + rng.normal(0, 60, (len(y), 3, 32, 32)), 0, 255).astype(np.uint8)
    return X, y, np.arange(RECORDS, len(y))


def ours(shadows: int, workers: int | None = None) -> dict[str, float]:
    """`fit_many`, with one process a core or, for `workers=1`, in this process."""
    X, y, others = data()
    executor = "serial" if workers == 1 else "processes"
    start = time.perf_counter()
    members, words = [np.arange(RECORDS)] * shadows, [(0, i) for i in range(shadows)]
    thetas = engine.fit_many(MODEL, engine.Recipe(EPOCHS, BATCH), X, y, members, words, executor)
    seconds = time.perf_counter() - start
    hits = [small.logits(MODEL, theta, X[others]).argmax(1) == y[others] for theta in thetas]
    return _result(seconds, shadows, float(np.mean(hits)))


def plain(shadows: int, loader: bool) -> dict[str, float]:
    """nn.Sequential, cross-entropy, backward(), torch.optim.Adam; batches from a DataLoader or by indexing."""
    images, y, others = data()
    X, y = torch.from_numpy(images).float() / 127.5 - 1, torch.from_numpy(y)
    hits, seconds = [], 0.0
    for _ in range(shadows):
        start = time.perf_counter()
        net = _module()
        descend(net, X, y, np.arange(RECORDS), EPOCHS, loader)
        seconds += time.perf_counter() - start
        with torch.no_grad():
            hits.append((net(X[others]).argmax(1) == y[others]).float().mean().item())
    return _result(seconds, shadows, float(np.mean(hits)))


def _module() -> torch.nn.Module:
    (first, second), kernel, (height, width) = MODEL.filters, MODEL.kernel, MODEL.pooled
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, first, kernel), torch.nn.Tanh(), torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(first, second, kernel), torch.nn.Tanh(), torch.nn.MaxPool2d(2),
        torch.nn.Flatten(), torch.nn.Linear(second * height * width, MODEL.hidden), torch.nn.Tanh(),
        torch.nn.Linear(MODEL.hidden, CLASSES),
    )  # fmt: skip


def _result(seconds: float, shadows: int, accuracy: float) -> dict[str, float]:
    return {
        "s a model": round(seconds / shadows, 2),
        "ms an image and epoch": round(1e3 * seconds / shadows / RECORDS / EPOCHS, 3),
        "GFLOP/s": round(flop() * EPOCHS * shadows / seconds / 1e9, 1),
        "test accuracy": round(accuracy, 3),
    }


def main() -> dict[str, Any]:
    """Print the comparison and what each step bought; returns everything that was measured."""
    rate = peak()
    ladder = [
        ("module, DataLoader, Adam; default threads", contender(HERE, "plain", SHADOWS, True)),
        ("… on one thread", contender(HERE, "plain", 1, True, threads=1)),
        ("… and indexing instead of a DataLoader", contender(HERE, "plain", 1, False, threads=1)),
        ("channels last, pooling before tanh, fused Adam", contender(HERE, "ours", 1, 1)),
        ("… one process a core: fit_many", contender(HERE, "ours", SHADOWS)),
    ]
    show(f"{SHADOWS} shadows, {RECORDS:,} images of 3 x 32 x 32, {EPOCHS} epochs", [{"step": n} | r for n, r in ladder])
    loop, mine = ladder[0][1], ladder[-1][1]
    ratio, share = loop["s a model"] / mine["s a model"], mine["GFLOP/s"] / rate
    print(f"\n  fit_many is {ratio:.1f} times as fast as the loop; claim: 2")
    print(f"  {mine['GFLOP/s']:.0f} GFLOP/s of {rate:.0f} that matrix products reach here: {share:.0%}; claim: 50%")
    claims = {"2 times as fast": ratio >= 2, "half of the matrix-product rate": share >= 0.5}
    return {"peak_gflops": rate, "ratio": ratio, "share": share, "claims": claims, "ladder": dict(ladder)}
