"""MemGuard (Jia et al. 2019): a model's owner adds noise to its vectors that leads a membership classifier astray.

The owner trains her own classifier on her model's members and on other records (`guard`). To each vector she finds a
noise that makes that classifier guess and keeps the label (phase I), and adds it with a probability that keeps the
expected L1 distortion within a budget (phase II). Vectors are sorted for the classifier, and constants are those of the
released code: c2 = 10, c3 = .1, 1, … 1e5, steps of .1, at most 300. Its classifier has 256-128-64 units, ours UNITS.
"""

from collections.abc import Sequence

import numpy as np
import torch

from mialib.models import fit, small
from mialib.models.small import MLP

UNITS = (64, 32)
RECIPE = fit.Recipe(epochs=100, batch=64)  # of the classifier; the paper's is trained for 400 epochs by SGD
LABEL, DISTORTION = 10.0, tuple(0.1 * 10**i for i in range(7))  # c2 and c3; c1 is 1
STEP, STEPS = 0.1, 300


def guard(logits: Sequence[np.ndarray], member: Sequence[np.ndarray], words: tuple) -> list[np.ndarray]:
    """Parameters of the classifiers of several owners, one each, from logits (n, classes) and member (n,).

    n may differ. ValueError as `fit.fit_many` raises it.
    """
    sizes = [len(of) for of in member]
    starts = np.cumsum([0, *sizes[:-1]])
    seen = np.sort(np.concatenate([small.softmax(of) for of in logits]), axis=1)
    rows = [at + np.arange(size) for at, size in zip(starts, sizes, strict=True)]
    names = [(*words, "guard", i) for i in range(len(rows))]
    told = np.concatenate(member).astype(np.int64)
    return list(fit.fit_many(classifier(seen.shape[1]), RECIPE, seen, told, rows, names))


def classifier(classes: int) -> MLP:
    """The owner's classifier: a sorted vector -> two logits, of which the second is for members."""
    return MLP((classes, *UNITS, 2), "relu")


def defend(logits: np.ndarray, theta: np.ndarray, budget: float, rng: np.random.Generator) -> np.ndarray:
    """The vectors that are given out, (n, classes) float32, for logits (n, classes) and a classifier's parameters.

    `budget`: the largest expected L1 distance between a vector and what is given out, 0 to 2. Where no noise is found,
    or it does not make the classifier less sure, there is none. A record's noise is drawn once. ValueError for a budget
    outside 0..2.
    """
    if not 0 <= budget <= 2:
        raise ValueError(f"the budget is an L1 distance of probabilities, 0 to 2, not {budget}")
    plain, changed = small.softmax(logits), noisy(logits, theta)
    model = classifier(logits.shape[1])
    sure, less = (np.abs(_odds(model, theta, np.sort(of, axis=1))) for of in (plain, changed))
    distance = np.abs(changed - plain).sum(1)
    chance = np.where(less < sure, np.minimum(budget / np.maximum(distance, 1e-12), 1), 0)
    return np.where((rng.random(len(plain)) < chance)[:, None], changed, plain)


def noisy(logits: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """Phase I: vectors (n, classes) on the classifier's other side, with the same largest class, or as they are.

    Of several noises the one of the largest c3 that succeeds, as it distorts least. Smaller logits of one class than of
    another stay in no order but for the largest: the classifier sees them in the order that they had.
    """
    model, n = classifier(logits.shape[1]), len(logits)
    order = np.argsort(logits, axis=1, kind="stable")
    start = torch.from_numpy(np.take_along_axis(logits, order, 1))
    origin, found = torch.softmax(start, -1), torch.softmax(start, -1)
    with small.one_thread():
        side = torch.sign(_network(model, theta, origin).detach())
        open_ = np.arange(n)
        for weight in DISTORTION:
            moved, done = _search(model, theta, start[open_], origin[open_], side[open_], weight)
            open_ = open_[done]
            found[open_] = torch.softmax(moved[done], -1)
            if not len(open_):
                break
    out = np.empty_like(logits, np.float32)
    np.put_along_axis(out, order, found.numpy().astype(np.float32), 1)
    return out


def _search(
    model: MLP, theta: np.ndarray, start: torch.Tensor, origin: torch.Tensor, side: torch.Tensor, weight: float
) -> tuple[torch.Tensor, np.ndarray]:
    """Logits after the steps, and which of them reached the other side with the label kept; others may not have."""
    moved, left, last = start.clone(), torch.arange(len(start)), start.shape[1] - 1  # sorted: the label is last
    done = torch.zeros(len(start), dtype=torch.bool)
    for _ in range(STEPS):
        if not len(left):
            break
        z = moved[left].requires_grad_()
        vectors = torch.softmax(z, -1)
        odds = _network(model, theta, vectors)
        over = (z[:, :-1].max(-1).values - z[:, last]).relu()
        loss = odds.abs() + LABEL * over + weight * (vectors - origin[left]).abs().sum(-1)
        [slope] = torch.autograd.grad(loss.sum(), z)
        z = z.detach() - STEP * slope / slope.norm(dim=1, keepdim=True).clamp_min(1e-12)
        moved[left] = z
        with torch.no_grad():
            there = torch.softmax(z, -1)
            crossed = _network(model, theta, there) * side[left] <= 0
            # By probabilities, as these are given out: two logits may be told apart where they cannot.
            done[left] = crossed & (there[:, last] > there[:, :-1].max(-1).values)
        left = left[~done[left]]
    return moved, done.numpy()


def _network(model: MLP, theta: np.ndarray, out: torch.Tensor) -> torch.Tensor:
    """Log-odds of membership of sorted vectors, (n,)."""
    for number, (weight, bias) in enumerate(small.layers(model, torch.from_numpy(theta))):
        out = torch.addmm(bias, out.relu() if number else out, weight)
    return out[:, 1] - out[:, 0]


def _odds(model: MLP, theta: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    return np.diff(small.logits(model, theta, vectors))[:, 0]
