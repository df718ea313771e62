"""Algorithm 1 of Shokri et al. 2017 against a 600-128-100 target: `synthesize` against the loop over single records.

Claims: at least 20 times fewer calls of the target and at least 10 times faster, by kept record, when the target is a
PyTorch module. How much faster depends on what a call costs beside its arithmetic: bare NumPy, the least a call can
cost, is shown too, and a target behind a network would gain most. Both sides ask in the same way.
"""

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.measure import contender, show
from mialib import runs
from mialib.attacks import synthesis
from mialib.data import simulate
from mialib.models import fit, small

MODEL = small.MLP((600, 128, 100))
RECORDS, EPOCHS = 10_000, 30  # that the target is trained on
LOOP, BATCHED = 3, 100  # records wanted of each class
SEARCH = synthesis.PUBLISHED
HERE = "benchmarks.synthesis"
WAYS = {"module": "PyTorch module", "numpy": "bare NumPy"}


def target(way: str) -> tuple[Callable[[np.ndarray], np.ndarray], list[float]]:
    """A trained network as `predict`, and the list that takes the seconds of each call."""
    X, y = simulate.purchases(100, 2 * RECORDS)
    recipe, words = fit.Recipe(EPOCHS), (0, "bench", "synthesis")
    [theta] = fit.fit_many(MODEL, recipe, X, y, [np.arange(RECORDS)], [words], "serial")
    (W, b), (V, c) = small.layers(MODEL, theta)
    net = torch.nn.Sequential(
        torch.nn.Linear(600, 128), torch.nn.Tanh(), torch.nn.Linear(128, 100), torch.nn.Softmax(1)
    )
    net.load_state_dict({name: torch.from_numpy(v) for name, v in zip(net.state_dict(), (W.T, b, V.T, c), strict=True)})
    net.requires_grad_(False)
    answer = {
        "module": lambda x: net(torch.from_numpy(x).float()).numpy(),
        "numpy": lambda x: small.softmax(np.tanh(x.astype(np.float32) @ W + b) @ V + c),
    }[way]
    spent = []

    def predict(x: np.ndarray) -> np.ndarray:
        start = time.perf_counter()
        y = answer(x)
        spent.append(time.perf_counter() - start)
        return y

    return predict, spent


def loop(way: str) -> dict[str, float]:
    """One record after another, one query a call: Algorithm 1 as it is printed."""
    predict, spent = target(way)
    rng, made, start = runs.stream(0, "bench", "loop"), [], time.perf_counter()
    for label in np.arange(100).repeat(LOOP):
        made.append(one(predict, label, rng))
    return _result([sure for sure in made if sure is not None], spent, len(spent), time.perf_counter() - start)


def one(predict: Callable[[np.ndarray], np.ndarray], label: int, rng: np.random.Generator) -> float | None:
    """Make one record of the class; its confidence, or None when it timed out."""
    x, top, rejected, k = rng.integers(0, 2, 600, np.uint8), 0.0, 0, SEARCH.k_max
    for _ in range(SEARCH.iter_max):
        y = predict(x[None])[0]
        if y[label] >= top:
            if y[label] > SEARCH.conf_min and y.argmax() == label and rng.random() < y[label]:
                return float(y[label])
            best, top, rejected = x, y[label], 0
        else:
            rejected += 1
            if rejected > SEARCH.rej_max:
                k, rejected = max(SEARCH.k_min, math.ceil(k / 2)), 0
        x = best.copy()
        changed = rng.choice(600, k, replace=False)
        x[changed] = 1 - x[changed]
    return None


def batched(way: str) -> dict[str, float]:
    """`synthesize`, all classes side by side."""
    predict, spent = target(way)
    wanted, start = np.arange(100).repeat(BATCHED), time.perf_counter()
    made = synthesis.synthesize(predict, 600, wanted, (0, "bench"))
    return _result(made.confidence, spent, made.queries.sum(), time.perf_counter() - start)


def _result(confidence: Any, spent: list[float], queries: int, seconds: float) -> dict[str, float]:
    kept = len(confidence)
    return {
        "records": kept,
        "confidence": float(np.mean(confidence)),
        "queries a record": float(queries / kept),
        "calls a record": len(spent) / kept,
        "ms a record": 1000 * seconds / kept,
        "of it in the target": 1000 * sum(spent) / kept,
    }


def main() -> dict[str, Any]:
    """Print both sides for each way to ask; returns everything that was measured."""
    sides = {"one at a time": "loop", "synthesize": "batched"}
    results = {way: {side: contender(HERE, call, way) for side, call in sides.items()} for way in WAYS}
    rows = [
        {"target": WAYS[way], "records made": side} | row for way, both in results.items() for side, row in both.items()
    ]
    show("Algorithm 1 against 600-128-100, 100 classes of simulated purchases", rows)
    ratios = {
        key: {way: both["one at a time"][key] / both["synthesize"][key] for way, both in results.items()}
        for key in ("calls a record", "ms a record")
    }
    print()
    for way, name in WAYS.items():
        calls, speed = (ratio[way] for ratio in ratios.values())
        print(f"  {name}: {calls:.0f} times fewer calls, {speed:.1f} times as fast")
    print("  claims: 20 and, for the module, 10")
    claims = {
        "20 times fewer calls": min(ratios["calls a record"].values()) >= 20,
        "10 times as fast": ratios["ms a record"]["module"] >= 10,
    }
    return {"ratios": ratios, "claims": claims, "results": results}
