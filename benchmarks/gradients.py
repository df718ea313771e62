"""Seven gradient norms of each record: `gradients.per_record` against one record at a time, on one thread.

Claims: at least 15 times as fast on LeNet and 3 times on AlexNet, in float32 on both sides, for the same numbers (their
largest deviation is shown; in float64 the tests hold it to 1e-7). The loop is what the paper's released code does: one
gradient a record, then NumPy's norms and SciPy's moments. Both sides run in one process, turn by turn.
"""

import statistics
import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats

from benchmarks.measure import contender, show
from mialib import runs
from mialib.attacks import gradients
from mialib.models import nets, small

NETWORKS = {  # network -> channels, side, records, claim (times as fast)
    "lenet": (1, 28, 500, 15),
    "alexnet": (3, 32, 60, 3),
    "resnet-20": (3, 32, 20, None),
    "densenet-22-12": (3, 32, 20, None),
}
TURNS = 3
HERE = "benchmarks.gradients"


def loop(net: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
    """One record after another; (2, n, 7)."""
    rows = []
    for record, label in zip(x, y, strict=True):
        record = record[None].clone().requires_grad_()
        loss = F.cross_entropy(net(record), label[None])
        *weights, by_input = torch.autograd.grad(loss, [*net.parameters(), record])
        rows.append([seven(np.concatenate([g.numpy().ravel() for g in weights])), seven(by_input.numpy().ravel())])
    return np.array(rows).swapaxes(0, 1)


def seven(g: np.ndarray) -> list[float]:
    size = np.abs(g)
    return [size.sum(), np.linalg.norm(g), size.min(), size.max(), g.mean(), stats.skew(g), stats.kurtosis(g)]


def ours(net: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
    return np.stack(gradients.per_record(net, x, y))


def both(network: str) -> dict[str, float]:
    """Processor milliseconds a record of both sides, the median of TURNS, and how far apart the L1 norms are."""
    channels, side, n, _ = NETWORKS[network]
    rng = runs.stream(0, "bench", "gradients", network)
    net = nets.make(network, channels, 10).eval()
    x = torch.from_numpy(rng.normal(size=(n, channels, side, side)).astype(np.float32))
    y = torch.from_numpy(rng.integers(0, 10, n))
    spent: dict[str, list[float]] = {"loop": [], "per_record": []}
    with small.one_thread():
        for turn in range(TURNS + 1):  # the first one warms up
            for name, way in (("loop", loop), ("per_record", ours)):
                start = time.process_time()
                found = way(net, x[: n if turn else 2], y[: n if turn else 2])
                spent[name] += [1000 * (time.process_time() - start) / n] if turn else []
                if name == "loop":
                    expected = found
    apart = float(np.abs(found[..., 0] / expected[..., 0] - 1).max())
    return {f"{name}, ms a record": statistics.median(times) for name, times in spent.items()} | {"L1 apart": apart}


def peak(network: str) -> dict[str, float]:
    """Nothing but `per_record`, for its memory."""
    channels, side, n, _ = NETWORKS[network]
    net = nets.make(network, channels, 10)
    ours(net, torch.zeros(n, channels, side, side), torch.zeros(n, dtype=torch.int64))
    return {}


def main() -> dict[str, Any]:
    """Print both sides for each network; returns everything that was measured."""
    results = {name: contender(HERE, "both", name, threads=1) for name in NETWORKS}
    for name, result in results.items():
        result["peak_mib"] = contender(HERE, "peak", name, threads=1)["peak_mib"]
        result["ratio"] = result["loop, ms a record"] / result["per_record, ms a record"]
    show("seven gradient norms, one thread, float32", [{"network": name} | result for name, result in results.items()])
    claims = {
        f"{claim} times as fast on {name}": results[name]["ratio"] >= claim
        for name, (*_, claim) in NETWORKS.items()
        if claim
    }
    print(f"  claims: {claims}")
    return {"claims": claims, "results": results}
