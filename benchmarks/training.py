"""20 shadows of 600-128-100 on 10,000 records, batch 100: `fit_many` against the loop most people write.

Claims: at least 4 times faster at the same accuracy on an idle machine, and at least half of the machine's own
float32 matrix-product rate. The ladder shows what each step from that loop to ours bought.
"""

import time
from typing import Any

import joblib
import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.measure import contender, show
from mialib import config, models, runs, simulate
from mialib import training as engine
from mialib.models import MLP

SHADOWS, RECORDS, EPOCHS, BATCH = 20, 10_000, 20, 100
MODEL = MLP((600, 128, 100))
# Multiply-adds count two; forward, then both gradients, but the input needs none.
FLOP = 2 * RECORDS * (2 * 600 * 128 + 3 * 128 * 100)  # a model and epoch, as if no feature were zero
HERE = "benchmarks.training"


def data() -> tuple[np.ndarray, np.ndarray, list[np.ndarray], np.ndarray]:
    """X, y, the training set of each shadow, and records that none of them saw."""
    X, y = simulate.purchases(100, 40_000)
    order = runs.stream(0, "bench").permutation(len(y))
    return (
        X,
        y,
        [runs.stream(0, "bench", i).permutation(order[:30_000])[:RECORDS] for i in range(SHADOWS)],
        order[30_000:],
    )


def ours(shadows: int, sparse: bool = True, workers: int | None = None) -> dict[str, float]:
    """`fit_many`; `sparse=False` gives it float32 records, which it trains on as they are."""
    X, y, members, others = data()
    X = X if sparse else X.astype(np.float32)
    executor = "serial" if workers == 1 else "processes"
    start = time.perf_counter()
    thetas = engine.fit_many(
        MODEL, engine.Recipe(EPOCHS, BATCH), X, y, members[:shadows], [(0, i) for i in range(shadows)], executor
    )
    seconds = time.perf_counter() - start
    hits = [models.logits(MODEL, theta, X[others]).argmax(1) == y[others] for theta in thetas]
    return _result(seconds, shadows, float(np.mean(hits)))


def without_numpy(shadows: int) -> dict[str, float]:
    """Ours, dense and serial, with PyTorch's own matrix product and tanh."""
    engine._product = lambda a, b, out: torch.matmul(a, b, out=out)
    engine._activate = lambda model, values: values.tanh_()
    return ours(shadows, False, 1)


def plain(shadows: int, loader: bool) -> dict[str, float]:
    """nn.Sequential, cross-entropy, backward(), torch.optim.Adam; batches from a DataLoader or by indexing."""
    X, y, members, others = data()
    X, y = torch.from_numpy(X).float(), torch.from_numpy(y)
    hits = []
    start = time.perf_counter()
    for rows in members[:shadows]:
        net = torch.nn.Sequential(torch.nn.Linear(600, 128), torch.nn.Tanh(), torch.nn.Linear(128, 100))
        adam = torch.optim.Adam(net.parameters(), lr=1e-3)
        batches = DataLoader(TensorDataset(X[rows], y[rows]), BATCH, shuffle=True) if loader else None
        for _ in range(EPOCHS):
            shuffled = rows[np.random.default_rng().permutation(RECORDS)]
            for x, labels in batches or ((X[part], y[part]) for part in torch.from_numpy(shuffled).split(BATCH)):
                adam.zero_grad()
                torch.nn.functional.cross_entropy(net(x), labels).backward()
                adam.step()
        hits.append((net(X[others]).argmax(1) == y[others]).float().mean().item())
    return _result(time.perf_counter() - start, shadows, float(np.mean(hits)))


def _result(seconds: float, shadows: int, accuracy: float) -> dict[str, float]:
    gflops = FLOP * EPOCHS * shadows / seconds / 1e9
    return {"s a model": round(seconds / shadows, 3), "GFLOP/s": round(gflops, 1), "test accuracy": round(accuracy, 4)}


def peak() -> float:
    """GFLOP/s of float32 matrix products on all cores: the best of NumPy and PyTorch, one thread a process."""
    workers = config.workers()
    rates = joblib.Parallel(workers)(joblib.delayed(_product_rates)() for _ in range(workers))
    return float(np.sum(rates, axis=0).max())


def _product_rates(n: int = 1536) -> list[float]:
    torch.set_num_threads(1)
    a, b = np.random.default_rng(0).random((2, n, n), np.float32)
    out, best = np.empty_like(a), []
    for product in (
        lambda: np.matmul(a, b, out=out),
        lambda: torch.mm(torch.from_numpy(a), torch.from_numpy(b), out=torch.from_numpy(out)),
    ):
        with threadpool_limits(1):
            product()
            start, repeats = time.perf_counter(), 30
            for _ in range(repeats):
                product()
            best.append(2 * n**3 * repeats / (time.perf_counter() - start) / 1e9)
    return best


def main() -> dict[str, Any]:
    """Print the comparison and the ladder; returns everything that was measured."""
    rate = peak()
    loop = contender(HERE, "plain", SHADOWS, True)
    all_cores = contender(HERE, "ours", SHADOWS)
    dense = contender(HERE, "ours", SHADOWS, False)
    ladder = [
        ("module, DataLoader, Adam; default threads", loop),
        ("… on one thread", contender(HERE, "plain", 3, True, threads=1)),
        ("… and indexing instead of a DataLoader", contender(HERE, "plain", 3, False, threads=1)),
        ("hand-written backward pass, fused Adam", contender(HERE, "without_numpy", 3)),
        ("… with NumPy's product and tanh", contender(HERE, "ours", 3, False, 1)),
        ("… and sparse rows", contender(HERE, "ours", 3, True, 1)),
        ("… without sparse rows, one process a core", dense),
        ("… all of it: fit_many", all_cores),
    ]
    show(
        f"{SHADOWS} shadows of 600-128-100, {RECORDS:,} records, {EPOCHS} epochs, batch {BATCH}",
        [{"step": name} | row for name, row in ladder],
    )
    ratio = loop["s a model"] / all_cores["s a model"]
    shares = {"dense": dense["GFLOP/s"] / rate, "sparse, zeros counted": all_cores["GFLOP/s"] / rate}
    print(f"\n  fit_many is {ratio:.1f} times as fast as the loop; claim: 4")
    print(f"  matrix products on {config.workers()} cores: {rate:.0f} GFLOP/s; claim: half of that")
    for name, share in shares.items():
        print(f"  fit_many, {name}: {share:.0%} of it")
    return {"peak_gflops": rate, "ratio": ratio, "shares": shares, "ladder": dict(ladder)}
