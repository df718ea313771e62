"""DP-SGD (Abadi et al. 2016) for fully connected networks: records' gradients are clipped, their sum is given noise.

No gradient of a record is ever laid out: in a layer it is an outer product, of what enters it and what comes back, so
that its norm is the product of two norms (Goodfellow 2015). The step on the noisy mean is Adam's, which is
post-processing. What epsilon this has, `accounting` says.

Training is not Opacus's, which takes two to three times as long for the models of notebook 26, and for those of
notebook 32 three times with ghost clipping and 12 to 16 times without (`benchmarks/private.py`).
tests/test_mitigations.py holds the clipped sums and the noise to Opacus's.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch

from mialib import arrays, runs, work
from mialib.models import small
from mialib.models.fit import Records
from mialib.models.small import MLP


@dataclass(frozen=True)
class Recipe:
    """How to train: `steps`, in each of which a record takes part with probability `rate`, independently of others.

    `noise`: deviation of what is added to the sum of the clipped gradients, in units of `clip`, the largest norm that
    one of them has. `size`: what the sum is divided by, the number of records that a step is expected to have; it is
    given and not counted, as the number of members is private too. `step`: Adam's.
    """

    steps: int
    rate: float
    size: float
    noise: float
    clip: float = 1.0
    step: float = 1e-3

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 < self.rate <= 1 or min(self.size, self.clip, self.step) <= 0 or self.noise < 0:
            raise ValueError(f"no such training: {self}")
        if self.noise and math.isinf(self.clip):
            raise ValueError("noise comes in units of the clipping norm: it cannot be infinite")


def fit_many(
    model: MLP, recipe: Recipe, X: Records, y: np.ndarray, members: Sequence[np.ndarray], words: Sequence[tuple]
) -> np.ndarray:
    """Train one model on each set of records; returns their parameters, float32 (models, n_parameters).

    X (n, features), y (n,), members: index arrays into X, words: seed words of each model's stream. All models are
    kept. ValueError for another model than an MLP, and for records or labels that do not fit it.
    """
    X, y = arrays.records(X), arrays.labels(y, classes=model.classes)
    if not isinstance(model, MLP):
        raise ValueError(f"DP-SGD is written for MLPs, not for {model}")
    small.check_records(model, X)
    jobs = [(model, recipe, X[rows], y[rows], word) for rows, word in zip(members, words, strict=True)]
    return np.stack([theta for (theta,) in work.every(fit, jobs, jobs, runs.versions("numpy", "torch"))])


def fit(model: MLP, recipe: Recipe, X: Records, y: np.ndarray, words: tuple) -> tuple[np.ndarray]:
    """One model, on one thread."""
    rng = runs.stream(*words)
    X = torch.from_numpy(np.ascontiguousarray(X.toarray() if scipy.sparse.issparse(X) else X, np.float32))
    y = torch.from_numpy(y)
    with small.one_thread():
        theta = torch.from_numpy(small.initial(model, rng))
        mean, square, done = torch.zeros_like(theta), torch.zeros_like(theta), torch.zeros(())
        for _ in range(recipe.steps):
            rows = torch.from_numpy(np.flatnonzero(rng.random(len(y)) < recipe.rate))
            gradient = clipped(model, theta, X[rows], y[rows], recipe.clip)
            if recipe.noise:
                drawn = torch.from_numpy(rng.standard_normal(len(theta), np.float32))
                gradient.add_(drawn, alpha=recipe.noise * recipe.clip)
            gradient /= recipe.size
            torch._fused_adam_(
                [theta], [gradient], [mean], [square], [], [done.add_(1)],
                lr=recipe.step, beta1=0.9, beta2=0.999, weight_decay=0.0, eps=1e-8, amsgrad=False, maximize=False,
            )  # fmt: skip
    return (theta.numpy(),)


def clipped(model: MLP, theta: torch.Tensor, X: torch.Tensor, y: torch.Tensor, clip: float) -> torch.Tensor:
    """The sum of the records' gradients of cross-entropy, each made `clip` long where it is longer: (n_parameters,).

    theta (n_parameters,), X (records, features) of its type, y (records,); with no record it is zero.
    """
    layers, entering = small.layers(model, theta), [X]
    for number, (weight, bias) in enumerate(layers):
        out = torch.addmm(bias, entering[-1], weight)
        if number + 1 < len(layers):
            entering.append(out.tanh_() if model.activation == "tanh" else out.relu_())
    back = torch.softmax(out, -1)
    back[torch.arange(len(y)), y] -= 1
    coming, norm = [back], torch.zeros(len(y), dtype=theta.dtype)
    for number in range(len(layers) - 1, -1, -1):
        # The bias's input is 1.
        norm += (entering[number].square().sum(-1) + 1) * coming[0].square().sum(-1)
        if number:
            value = entering[number]
            slope = 1 - value.square() if model.activation == "tanh" else torch.sign(value)
            coming.insert(0, (coming[0] @ layers[number][0].mT) * slope)
    share = (clip / norm.sqrt().clamp_min(1e-30)).clamp_max(1)
    gradient = torch.empty_like(theta)
    for (weight, bias), value, delta in zip(small.layers(model, gradient), entering, coming, strict=True):
        delta = delta * share[:, None]
        torch.matmul(value.mT, delta, out=weight)
        torch.sum(delta, 0, out=bias)
    return gradient
