"""What `mialib` chooses for every machine, beside the alternative, on this one: processor time, turn by turn.

Claim: no choice costs more than a quarter of the better one's time here. Products in bfloat16 are chosen by the
processor (`machine.precision`), all else is chosen once: NumPy's products and tanh in small networks (not PyTorch's),
channels last in DenseNets and in the CNN, channels first in the other networks.
"""

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.measure import contender, show
from mialib import machine
from mialib.models import fit, nets, small

NETWORKS = {"lenet": (1, 28), "alexnet": (3, 32), "resnet-8-4": (3, 32), "densenet-10-4": (3, 32)}
TURNS, SECONDS = 5, 0.3
HERE = "benchmarks.choices"


def step(network: str, precision: str, last: bool) -> Callable[[], None]:
    """One training step of 64 images."""
    channels, side = NETWORKS[network]
    net = nets.make(network, channels, 10).train()
    net = net.to(memory_format=torch.channels_last) if last else net
    optimiser = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9, fused=True)
    x, y = torch.randn(64, channels, side, side), torch.randint(0, 10, (64,))

    def once() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            logits = net(x)
        optimiser.zero_grad()
        F.cross_entropy(logits.float(), y).backward()
        optimiser.step()

    return once


def fit_one(product: Callable) -> Callable[[], None]:
    """One epoch of Location's network on 1,200 dense records."""
    rng = np.random.default_rng(0)
    X, y = rng.random((1200, 446), np.float32), rng.integers(30, size=1200)

    def once() -> None:
        usual, fit._product = fit._product, product
        fit._fit_job(0, (small.MLP((446, 128, 30)), fit.Recipe(1), X, y, (0,)))
        fit._product = usual

    return once


def torch_product(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
    torch.matmul(a, b, out=out)


def tanh(library: str) -> Callable[[], None]:
    values = torch.randn(100, 128)
    array = values.numpy()
    return values.tanh_ if library == "torch" else functools.partial(np.tanh, array, out=array)


def contenders() -> dict[str, dict[str, Callable[[], None]]]:
    """Choice -> the way taken here, first, and the alternative."""
    best = machine.precision()
    other = "float32" if best == "bfloat16" else "bfloat16"
    found: dict[str, dict[str, Callable[[], None]]] = {}
    for name in NETWORKS:
        last = name.startswith("densenet")
        found[f"precision, {name}"] = {kind: step(name, kind, last) for kind in (best, other)}
        ways = {"channels last": step(name, best, True), "channels first": step(name, best, False)}
        found[f"memory, {name}"] = ways if last else dict(reversed(ways.items()))
    found["products, 446-128-30"] = {"NumPy": fit_one(fit._product), "PyTorch": fit_one(torch_product)}
    found["tanh of 100 x 128"] = {"NumPy": tanh("numpy"), "PyTorch": tanh("torch")}
    return found


def both() -> dict[str, Any]:
    """Choice -> [name, milliseconds] of both ways, each the median of TURNS."""
    results = {}
    with small.one_thread():
        for choice, ways in contenders().items():
            spent: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(TURNS + 1):  # the first one warms up
                for name, way in ways.items():
                    spent[name].append(_milliseconds(way))
            results[choice] = [[name, statistics.median(times[1:])] for name, times in spent.items()]
    return results


def _milliseconds(way: Callable[[], None]) -> float:
    start, n = time.process_time(), 0
    while (spent := time.process_time() - start) < SECONDS or not n:
        way()
        n += 1
    return 1000 * spent / n


def main() -> dict[str, Any]:
    """Print each choice beside its alternative; returns everything that was measured."""
    found = contender(HERE, "both", threads=1)
    found.pop("peak_mib")
    rows = [
        {"choice": choice, "ours": ours, "ms": ms, "other": other, "ms, other": theirs, "times as fast": theirs / ms}
        for choice, ((ours, ms), (other, theirs)) in found.items()
    ]
    show("what is chosen, one thread, processor time", rows)
    claims = {"no choice costs a quarter more than the other": all(row["times as fast"] >= 0.8 for row in rows)}
    print(f"  claims: {claims}")
    return {"claims": claims, "results": rows}
