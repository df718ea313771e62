"""DP-SGD: `private` against Opacus on the models of notebooks 26 and 32, with and without its ghost clipping.

No claim: it says what closed-form clipping is worth, which is why training is not Opacus's. Both on one thread, of the
same records, steps, rate, noise and clipping norm, sampled by coins (Poisson). Records are random patterns, one a
class, and noise.
"""

import itertools
import time
from typing import Any

import numpy as np
import torch

from benchmarks.measure import contender, show
from mialib import runs
from mialib.models import private, small

SIZES = {"26": ((3072, 5), 440, 0.25), "32": ((446, 128, 30), 1200, 0.5)}  # layers, records, rate
STEPS, NOISE, STEP, MODELS = 100, 1.0, 3e-3, 4
HERE = "benchmarks.private"


def setting(size: str) -> tuple[small.MLP, float, np.ndarray, np.ndarray]:
    """Model, rate, X and y, of which every other record is trained on."""
    layers, records, rate = SIZES[size]
    rng = runs.stream(0, "bench", "private", size)
    y = rng.integers(layers[-1], size=2 * records)
    X = rng.normal(0, 1, (layers[-1], layers[0]))[y] + rng.normal(0, 8, (len(y), layers[0]))
    return small.MLP(layers), rate, X.astype(np.float32) / 8, y


def ours(size: str) -> dict[str, Any]:
    model, rate, X, y = setting(size)
    recipe = private.Recipe(STEPS, rate, rate * len(y) / 2, NOISE, step=STEP)
    start = time.process_time()
    thetas = [private.fit(model, recipe, X[::2], y[::2], (0, i))[0] for i in range(MODELS)]
    seconds = (time.process_time() - start) / MODELS
    hits = [small.logits(model, theta, X[1::2]).argmax(1) == y[1::2] for theta in thetas]
    return {"seconds": seconds, "test accuracy": float(np.mean(hits))}


def opacus(size: str, mode: str) -> dict[str, Any]:
    """`mode`: "hooks" lays every record's gradient out; "ghost" goes back twice, and does not."""
    from opacus import PrivacyEngine

    model, rate, X, y = setting(size)
    images, labels = torch.from_numpy(X), torch.from_numpy(y)
    records = torch.utils.data.TensorDataset(images[::2], labels[::2])
    start, nets = time.process_time(), []
    for _ in range(MODELS):
        parts = [(torch.nn.Linear(*ends), torch.nn.Tanh()) for ends in itertools.pairwise(model.sizes)]
        net, loss = torch.nn.Sequential(*itertools.chain(*parts))[:-1], torch.nn.CrossEntropyLoss()
        net, optimiser, *rest, loader = PrivacyEngine().make_private(
            module=net, optimizer=torch.optim.Adam(net.parameters(), STEP), criterion=loss, grad_sample_mode=mode,
            data_loader=torch.utils.data.DataLoader(records, batch_size=round(rate * len(records))),
            noise_multiplier=NOISE, max_grad_norm=1.0,
        )  # fmt: skip
        [loss] = rest or [loss]  # that of "ghost" is another
        for _ in range(round(STEPS * rate)):
            for batch, wanted in loader:
                optimiser.zero_grad()
                loss(net(batch), wanted).backward()
                optimiser.step()
        nets.append(net)
    seconds = (time.process_time() - start) / MODELS
    with torch.no_grad():
        hits = [(net(images[1::2]).argmax(1) == labels[1::2]).float().mean().item() for net in nets]
    return {"seconds": seconds, "test accuracy": float(np.mean(hits))}


def main() -> dict[str, Any]:
    """Print all sides of both sizes; returns everything that was measured."""
    rows, ratios = [], {}
    for size, (layers, records, _) in SIZES.items():
        named = f"{'-'.join(map(str, layers))}, {records} records"
        fast = contender(HERE, "ours", size, threads=1)
        rows.append({"model": named, "by": "ours"} | fast)
        for mode in ("hooks", "ghost"):
            slow = contender(HERE, "opacus", size, mode, threads=1)
            rows.append({"model": named, "by": f"Opacus, {mode}"} | slow)
            ratios[f"{named}, Opacus, {mode}"] = slow["seconds"] / fast["seconds"]
    show(f"DP-SGD, {STEPS} steps; processor time of one thread, a model", rows)
    for name, ratio in ratios.items():
        print(f"  {name}: {ratio:.1f} times ours")
    return {"ratios": ratios, "rows": rows}
