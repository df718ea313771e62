"""20 shadows of 600-128-100 on 10,000 records, batch 100: `fit_many` against the loop most people write.

Claims: at least 4 times faster at the same accuracy on an idle machine, and at least half of the machine's own
float32 matrix-product rate. The ladder shows what each step from that loop to ours bought.
"""

import time
from typing import Any

import joblib
import numpy as np
import scipy.sparse
import torch
from threadpoolctl import threadpool_limits
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.measure import contender, show
from mialib import config, runs
from mialib.data import simulate
from mialib.models import fit as engine
from mialib.models import small
from mialib.models.small import MLP

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


def ours(shadows: int, workers: int | None = None) -> dict[str, float]:
    """`fit_many`, with one process a core or, for `workers=1`, in this process."""
    X, y, members, others = data()
    executor = "serial" if workers == 1 else "processes"
    words = [(0, i) for i in range(shadows)]
    start = time.perf_counter()
    thetas = engine.fit_many(MODEL, engine.Recipe(EPOCHS, BATCH), X, y, members[:shadows], words, executor)
    seconds = time.perf_counter() - start
    hits = [small.logits(MODEL, theta, X[others]).argmax(1) == y[others] for theta in thetas]
    return _result(seconds, shadows, float(np.mean(hits)))


def without_numpy(shadows: int) -> dict[str, float]:
    """Ours, in this process, with PyTorch's own matrix product and tanh."""
    engine._product = lambda a, b, out: torch.matmul(a, b, out=out)
    engine._activate = lambda model, values: values.tanh_()
    return ours(shadows, 1)


def plain(shadows: int, loader: bool) -> dict[str, float]:
    """nn.Sequential, cross-entropy, backward(), torch.optim.Adam; batches from a DataLoader or by indexing."""
    X, y, members, others = data()
    X, y = torch.from_numpy(X).float(), torch.from_numpy(y)
    hits, seconds = [], 0.0
    for rows in members[:shadows]:
        start = time.perf_counter()
        net = torch.nn.Sequential(torch.nn.Linear(600, 128), torch.nn.Tanh(), torch.nn.Linear(128, 100))
        descend(net, X, y, rows, EPOCHS, loader)
        seconds += time.perf_counter() - start
        with torch.no_grad():
            hits.append((net(X[others]).argmax(1) == y[others]).float().mean().item())
    return _result(seconds, shadows, float(np.mean(hits)))


def descend(net: torch.nn.Module, X: torch.Tensor, y: torch.Tensor, rows: Any, epochs: int, loader: bool) -> None:
    """The loop most people write, on the records `rows`, in place."""
    adam = torch.optim.Adam(net.parameters(), lr=1e-3)
    batches = DataLoader(TensorDataset(X[rows], y[rows]), BATCH, shuffle=True) if loader else None
    for _ in range(epochs):
        shuffled = torch.from_numpy(np.random.default_rng().permutation(rows))
        for x, labels in batches or ((X[part], y[part]) for part in shuffled.split(BATCH)):
            adam.zero_grad()
            torch.nn.functional.cross_entropy(net(x), labels).backward()
            adam.step()


def first_layer(name: str, hidden: int, epochs: int, sparse: bool) -> dict[str, float]:
    """One network on up to 10,000 records of a simulator, in this process, its records dense or as sparse rows."""
    X, y = simulate.purchases(100, 10_000) if name == "purchases" else getattr(simulate, name)()
    X, y = scipy.sparse.csr_array(X[:10_000]), y[:10_000]
    model, density = MLP((X.shape[1], hidden, int(y.max()) + 1)), X.nnz / np.prod(X.shape)
    rows = X if sparse else X.toarray().astype(np.float32)
    start = time.perf_counter()
    engine.fit_many(model, engine.Recipe(epochs, BATCH), rows, y, [np.arange(len(y))], [(0, "bench")], "serial")
    return {"share of ones": round(density, 3), "s an epoch": round((time.perf_counter() - start) / epochs, 3)}


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
    """Print the comparison, the ladder, and what sparse rows buy; returns everything that was measured."""
    rate = peak()
    ladder = [
        ("module, DataLoader, Adam; default threads", contender(HERE, "plain", SHADOWS, True)),
        ("… on one thread", contender(HERE, "plain", 3, True, threads=1)),
        ("… and indexing instead of a DataLoader", contender(HERE, "plain", 3, False, threads=1)),
        ("hand-written backward pass, fused Adam", contender(HERE, "without_numpy", 3)),
        ("… with NumPy's product and tanh", contender(HERE, "ours", 3, 1)),
        ("… one process a core: fit_many", contender(HERE, "ours", SHADOWS)),
    ]
    title = f"{SHADOWS} shadows of 600-128-100, {RECORDS:,} records, {EPOCHS} epochs, batch {BATCH}"
    show(title, [{"step": name} | row for name, row in ladder])
    layers = [
        {"records": name, "first layer": "sparse" if sparse else "dense"}
        | contender(HERE, "first_layer", name, hidden, epochs, sparse)
        for name, hidden, epochs in (("purchases", 128, 10), ("locations", 128, 40), ("hospital", 1000, 2))
        for sparse in (False, True)
    ]
    show(f"Sparse rows, which fit_many takes below {engine.SPARSE_BELOW:.0%} of ones", layers)
    loop, mine = ladder[0][1], ladder[-1][1]
    ratio, share = loop["s a model"] / mine["s a model"], mine["GFLOP/s"] / rate
    print(f"\n  fit_many is {ratio:.1f} times as fast as the loop; claim: 4")
    print(f"  {mine['GFLOP/s']:.0f} GFLOP/s of {rate:.0f} that matrix products reach here: {share:.0%}; claim: 50%")
    claims = {"4 times as fast": ratio >= 4, "half of the matrix-product rate": share >= 0.5}
    return {"peak_gflops": rate, "ratio": ratio, "share": share, "claims": claims} | {
        "ladder": dict(ladder),
        "sparse": layers,
    }
