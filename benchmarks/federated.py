"""A federated training on Location, and last-layer gradients of AlexNet, each against the loop that one would write.

Claims: 100 rounds of four parties with the paper's fully connected network (446-1024-512-256-128-30, 600 records each)
within 60 seconds, and faster than modules and torch.optim.Adam in a loop; the gradient by AlexNet's last layer at least
20 times as fast as one record after another by autograd, for the same numbers.
"""

import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.measure import contender, show
from mialib import runs
from mialib.attacks import nasr
from mialib.data import datasets
from mialib.models import federated, fit, nets, small

MODEL, PARTIES, SIZE, ROUNDS = small.MLP((446, 1024, 512, 256, 128, 30)), 4, 600, 100
RECIPE = fit.Recipe(1, decay=0.0)
RECORDS = {"observe": 2000, "loop": 60}
HERE = "benchmarks.federated"


def _parties() -> tuple[datasets.Dataset, list[np.ndarray]]:
    data = datasets.load("location-30", "laptop")
    order = runs.stream(0, "bench", "federated").permutation(len(data.y))
    return data, np.split(order[: PARTIES * SIZE], PARTIES)


def ours() -> dict[str, float]:
    data, parties = _parties()
    start = time.perf_counter()
    uploads = federated.train(MODEL, RECIPE, data.X, data.y, parties, (0, "bench"), ROUNDS, [ROUNDS])[ROUNDS]
    return _told(start, data, federated.aggregate(uploads))


def loop() -> dict[str, float]:
    """The same with modules, one party after another, on as many threads as PyTorch takes."""
    data, parties = _parties()
    start = time.perf_counter()
    X, y = torch.from_numpy(data.X.astype(np.float32)), torch.from_numpy(data.y)
    theta = torch.from_numpy(small.initial(MODEL, runs.stream(0, "bench", "initial")))
    net, draw = federated.module(MODEL, theta.numpy()).train(), torch.Generator().manual_seed(0)
    mean = [parameter.detach().clone() for parameter in net.parameters()]
    for _ in range(ROUNDS):
        total = [torch.zeros_like(part) for part in mean]
        for rows in parties:
            with torch.no_grad():
                for parameter, part in zip(net.parameters(), mean, strict=True):
                    parameter.copy_(part)
            adam = torch.optim.Adam(net.parameters(), lr=RECIPE.rate)
            for at in torch.from_numpy(rows)[torch.randperm(SIZE, generator=draw)].split(RECIPE.batch):
                adam.zero_grad()
                F.cross_entropy(net(X[at]), y[at]).backward()
                adam.step()
            for part, parameter in zip(total, net.parameters(), strict=True):
                part += parameter.detach() / PARTIES
        mean = total
    flat = [part.T.ravel() if part.dim() > 1 else part for part in mean]
    return _told(start, data, torch.cat(flat).numpy())


def _told(start: float, data: datasets.Dataset, theta: np.ndarray) -> dict[str, float]:
    seconds, (_, parties) = time.perf_counter() - start, _parties()
    rest = np.setdiff1d(np.arange(len(data.y)), np.concatenate(parties))
    right = small.logits(MODEL, theta, data.X[rest]).argmax(1) == data.y[rest]
    return {"seconds": seconds, "test accuracy": float(right.mean())}


def gradients() -> dict[str, float]:
    """Processor milliseconds a record of both ways, and how far the gradients are apart."""
    rng = runs.stream(0, "bench", "gradients")
    net, n = nets.make("alexnet", 3, 100).eval(), RECORDS["observe"]
    X, y = rng.normal(size=(n, 3, 32, 32)).astype(np.float32), rng.integers(0, 100, n)
    [*_, (name, layer)] = [each for each in net.named_modules() if isinstance(each[1], torch.nn.Linear)]
    with small.one_thread():
        nasr.observe([net], X[:100], y[:100], [], [name])  # warms up
        start = time.process_time()
        seen = nasr.observe([net], X, y, [], [name])
        spent, far, start = (time.process_time() - start) / n, 0.0, time.process_time()
        for i in range(RECORDS["loop"]):
            loss = F.cross_entropy(net(torch.from_numpy(X[i : i + 1])), torch.from_numpy(y[i : i + 1]))
            gradient = torch.autograd.grad(loss, list(net.parameters()))  # as a loop over whole models does
            found = dict(zip((id(parameter) for parameter in net.parameters()), gradient, strict=True))
            expected, [(delta, entered)] = found[id(layer.weight)].numpy(), seen.gradients
            far = max(far, float(np.abs(np.outer(delta[i, 0], entered[i, 0]) - expected).max()))
        slow = (time.process_time() - start) / RECORDS["loop"]
    return {"observe, ms a record": 1000 * spent, "loop, ms a record": 1000 * slow, "apart": far}


def main() -> dict[str, Any]:
    """Print both sides of both; returns everything that was measured."""
    trained = {"mialib": contender(HERE, "ours"), "a literal loop": contender(HERE, "loop")}
    show(f"{ROUNDS} federated rounds on Location", [{"code": name} | found for name, found in trained.items()])
    seen = contender(HERE, "gradients")
    show("Gradient by AlexNet's last layer", [seen])
    seconds = trained["mialib"]["seconds"]
    times = seen["loop, ms a record"] / seen["observe, ms a record"]
    claims = {"within 60 s": seconds <= 60, "faster than the loop": seconds < trained["a literal loop"]["seconds"]}
    claims |= {"gradients 20 times as fast": times >= 20}
    return {"training": trained, "gradients": seen, "times as fast": times, "claims": claims}
