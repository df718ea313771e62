"""How well the simulators fit what is published about the target models. `python -m benchmarks calibration` prints it.

Only sizes and accuracies of target models are looked at: no attack is run here.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn import functional

from mialib import runs
from mialib.data import simulate, splits
from mialib.models import fit, small
from mialib.models.fit import Recipe
from mialib.models.small import MLP

TOLERANCE = 0.03
TARGETS = 3
# Test accuracy of Shokri et al. 2017, Table II, and the shares of the records that the smallest, median and largest
# class have in Fig 11 (left; four of its 10 classes lie outside the plot).
PURCHASE_ACCURACY = {2: 0.984, 10: 0.866, 20: 0.781, 50: 0.693, 100: 0.659}
PURCHASE_SHARES = {20: (0.026, 0.045, 0.088), 50: (0.006, 0.019, 0.045), 100: (0.001, 0.009, 0.026)}
HOSPITAL_ACCURACY = 0.55  # Table III; Google's model in Table II reached .517
LOCATION_ACCURACY = 0.62  # our aim: this network reaches about .59 on the real data, Google's in Table II .673
LOCATION_CLASSES = (97, 156.5, 308)  # records in the smallest, median and largest class of the real data
# A re-run by others on the real Purchase-100 (GitHub boyulz/EE509; five seeds). The simulator is not fitted to it.
EE509 = {"train accuracy": 1.0, "test accuracy": 0.7455, "train loss": 0.048, "test loss": 0.717}


def main() -> dict[str, Any]:
    """Print the fit of every simulator, and how large their classes are; returns both."""
    fits, sizes = fit_table(), class_sizes()
    print(
        f"Fit of the simulators, means over {TARGETS} target models; `within` means within {TOLERANCE} of the target."
    )
    print(fits.to_string(index=False, float_format="%.3f"))
    print("\nClass sizes: smallest, median, largest")
    print(sizes.to_string(index=False))
    return {"fit": fits.to_dict("records"), "class sizes": sizes.to_dict("records")}


def fit_table(seed: int = 0) -> pd.DataFrame:
    """Published and simulated accuracies: columns simulator, setting, quantity, target, ours, within.

    Generates each simulator at full size and trains its target models; takes minutes the first time, and the
    models come from the cache afterwards.
    """
    return pd.DataFrame(
        [*_purchases(seed), *_hospital(seed), *_locations(seed)],
        columns=["simulator", "setting", "quantity", "target", "ours", "within"],
    )


def class_sizes(seed: int = 0) -> pd.DataFrame:
    """Smallest, median and largest class, published and simulated: columns simulator, unit, target, ours."""
    rows = []
    for classes, target in PURCHASE_SHARES.items():
        counts = np.bincount(simulate.purchases(classes, seed=seed)[1], minlength=classes)
        rows.append((f"purchases({classes})", "share of records", target, _ends(counts / counts.sum(), 3)))
    for name, target in {"hospital": simulate.TEXAS_CLASS_SIZES, "locations": LOCATION_CLASSES}.items():
        y = getattr(simulate, name)(seed=seed)[1]
        rows.append((name, "records", _ends(target, 1), _ends(np.bincount(y), 1)))
    return pd.DataFrame(rows, columns=["simulator", "unit", "target", "ours"])


def _ends(counts: np.ndarray, digits: int) -> tuple[float, ...]:
    return tuple(round(float(value), digits) for value in (np.min(counts), np.median(counts), np.max(counts)))


def _purchases(seed: int) -> Iterator[tuple]:
    for classes, target in PURCHASE_ACCURACY.items():
        X, y = simulate.purchases(classes, seed=seed)
        for epochs in (100, 200):
            yield from _fit("purchases", X, y, 10_000, MLP((600, 128, classes)), Recipe(epochs), target, seed)
    # X and y are now those of 100 classes.
    setting = "600-128-128-100, SGD, 10,000 records (not fitted)"
    for quantity, ours in _sgd(X, y, seed).items():
        yield "purchases", setting, quantity, EE509[quantity], ours, abs(ours - EE509[quantity]) <= TOLERANCE


def _hospital(seed: int) -> Iterator[tuple]:
    X, y = simulate.hospital(seed=seed)
    yield from _fit("hospital", X, y, 10_000, MLP((6169, 1000, 100)), Recipe(20), HOSPITAL_ACCURACY, seed)


def _locations(seed: int) -> Iterator[tuple]:
    X, y = simulate.locations(seed=seed)
    yield from _fit("locations", X, y, 1200, MLP((446, 128, 30)), Recipe(200), LOCATION_ACCURACY, seed)


def _fit(
    name: str, X: fit.Records, y: np.ndarray, size: int, model: MLP, recipe: Recipe, target: float, seed: int
) -> Iterator[tuple]:
    """Rows of train and test accuracy, means over TARGETS networks of the paper's kind."""
    sides, _ = splits.targets_and_shadows(len(y), size, TARGETS, 1, seed, name)
    words = [(seed, "calibration", i) for i in range(TARGETS)]
    weights = fit.fit_many(model, recipe, X, y, [side.members for side in sides], words)
    setting = f"{'-'.join(map(str, model.sizes))}, {recipe.epochs} epochs, {size:,} records"
    for quantity, wanted, part in (("train accuracy", 1.0, "members"), ("test accuracy", target, "non_members")):
        hits = [_accuracy(model, flat, X, y, getattr(side, part)) for flat, side in zip(weights, sides, strict=True)]
        ours = float(np.mean(hits))
        yield name, setting, quantity, wanted, ours, abs(ours - wanted) <= TOLERANCE


def _accuracy(model: MLP, flat: np.ndarray, X: fit.Records, y: np.ndarray, rows: np.ndarray) -> float:
    return float((small.logits(model, flat, X[rows]).argmax(1) == y[rows]).mean())


def _sgd(X: np.ndarray, y: np.ndarray, seed: int) -> dict[str, float]:
    """EE509's recipe, which `fit_many` has not: SGD .01, momentum .9, batch 128, 100 epochs, two hidden layers."""
    model = MLP((600, 128, 128, 100))
    [side], _ = splits.targets_and_shadows(len(y), 10_000, 1, 1, seed, "purchases")
    rng = runs.stream(seed, "calibration", "sgd")
    flat = torch.from_numpy(small.initial(model, rng)).requires_grad_()
    x, labels = torch.from_numpy(X[side.members]).float(), torch.from_numpy(y[side.members])
    optimiser = torch.optim.SGD([flat], lr=0.01, momentum=0.9)
    for _ in range(100):
        for rows in torch.from_numpy(rng.permutation(len(labels))).split(128):
            *hidden, (weight, bias) = small.layers(model, flat)
            out = x[rows]
            for w, b in hidden:
                out = torch.tanh(out @ w + b)
            optimiser.zero_grad()
            functional.cross_entropy(out @ weight + bias, labels[rows]).backward()
            optimiser.step()
    values = {}
    for part, rows in (("train", side.members), ("test", side.non_members)):
        logits = torch.from_numpy(small.logits(model, flat.detach().numpy(), X[rows]))
        values[f"{part} accuracy"] = float((logits.argmax(1).numpy() == y[rows]).mean())
        values[f"{part} loss"] = float(functional.cross_entropy(logits, torch.from_numpy(y[rows])))
    return values
