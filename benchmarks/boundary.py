"""Distances to the decision boundary: `boundary.distances` against one image at a time, in CPU time of one thread.

Claim: at least 10 times as fast, with the same distances. One image at a time is Algorithm 1 as most people would
write it, and the released code's loop. How much a batch gains depends on the network: AlexNet spends a single image's
time in reading its weights, and is the one that meets the claim; a small network spends it in calls, a deep ResNet in
arithmetic that no batch saves. The weights are random and the labels the network's own, so that most searches take
all of `STEPS`.
"""

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.measure import contender, show
from mialib import runs
from mialib.attacks import boundary
from mialib.models import nets

NETWORKS = {"lenet": (1, 28, 28), "alexnet": (3, 32, 32), "resnet-20": (3, 32, 32)}
LOOP, BATCHED, STEPS = 4, 128, 60  # images of each side, and steps at most
HERE = "benchmarks.boundary"


def setting(network: str) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Network, images in 0..1, and labels."""
    rng, shape = runs.stream(0, "bench", "boundary", network), NETWORKS[network]
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        net = nets.make(network, shape[0], 10).eval().requires_grad_(False)
    *_, last = net.children()
    last.weight.mul_(100)  # logits that differ as a trained network's do
    x = torch.from_numpy(rng.random((BATCHED, *shape), np.float32))
    return net, x, net(x).argmax(1)


def batched(network: str, protocol: str) -> dict[str, Any]:
    """All images side by side."""
    net, x, y = setting(network)
    start = time.process_time()
    found = boundary.distances(net, x, y, protocol, STEPS).distance
    return _result(time.process_time() - start, len(x), found[:LOOP])


def loop(network: str, protocol: str) -> dict[str, Any]:
    """One image after another."""
    net, x, y = setting(network)
    search = {"paper": _printed, "released-code": _released}[protocol]
    start = time.process_time()
    found = [search(net, x[i : i + 1], int(y[i])) for i in range(LOOP)]
    return _result(time.process_time() - start, LOOP, found)


def _result(seconds: float, images: int, found: Any) -> dict[str, Any]:
    return {"ms an image": 1e3 * seconds / images, "distances": [float(distance) for distance in found]}


def _gradient(loss: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_()
    loss(x).backward()
    return x.grad


def _told(net: nn.Module, x: torch.Tensor) -> tuple[float, int]:
    p = net(x).softmax(1)[0]
    return float(p.max()), int(p.argmax())


def _printed(net: nn.Module, x: torch.Tensor, label: int) -> float:
    here, length, aim = x, boundary.EPS * math.sqrt(x.numel()), torch.tensor([label])
    for _ in range(STEPS):
        way = _gradient(lambda z: F.cross_entropy(net(z), aim), here)
        there = here + length * way / way.norm()
        if _told(net, there)[1] != label:
            return float((_bisected(net, here, there, released=False) - x).norm())
        here = there
    return math.nan


def _released(net: nn.Module, x: torch.Tensor, label: int) -> float:
    here, origin, way, aim = x, x, x, F.one_hot(torch.tensor([label]), 10)
    for step in range(STEPS):
        if step % boundary.REFRESH == 0:
            slope = _gradient(lambda z: (net(z).softmax(1) - aim).square().sum(), here)
            way = slope / (slope.abs() + 1e-11)
        there = here + boundary.EPS * way
        origin = there if step == 0 else origin
        here = there.clamp(0, 1)
        if _told(net, here)[1] != label:
            near = (here - boundary.EPS * way).clamp(0, 1)
            return float((_bisected(net, near, here, released=True) - origin).norm())
    return math.nan


def _bisected(net: nn.Module, near: torch.Tensor, far: torch.Tensor, released: bool) -> torch.Tensor:
    (sure, label), (sure_far, label_far), middle = _told(net, near), _told(net, far), far
    for _ in range(boundary.BISECTIONS):
        if abs(sure - sure_far) <= boundary.THETA:
            break
        middle = (near + far) / 2
        found, name = _told(net, middle)
        if name == label or (released and name != label_far):
            near, sure, label = middle, found, name
        else:
            far, sure_far, label_far = middle, found, name
    return middle if released else far


def main() -> dict[str, Any]:
    """Print both sides for each network and protocol; returns everything that was measured."""
    rows, ratios, same = [], {}, []
    for network in NETWORKS:
        for protocol in ("paper", "released-code"):
            single, mine = (contender(HERE, side, network, protocol, threads=1) for side in ("loop", "batched"))
            ratios[f"{network}, {protocol}"] = ratio = single["ms an image"] / mine["ms an image"]
            same.append(np.allclose(mine.pop("distances"), single.pop("distances"), rtol=0.01, equal_nan=True))
            rows.append({"network": network, "protocol": protocol, "one at a time, ms": single["ms an image"]})
            rows[-1] |= {"batched, ms": mine["ms an image"], "ratio": ratio, "same distances": same[-1]}
    show(f"Distance to the boundary, at most {STEPS} steps, one thread; ms an image", rows)
    print("\n  claim: 10 times as fast")
    claims = {f"10 times as fast: {name}": ratio >= 10 for name, ratio in ratios.items()}
    return {"ratios": ratios, "claims": claims | {"same distances": all(same)}, "rows": rows}
