"""Adversarial regularisation (Nasr, Shokri & Houmansadr 2018): a classifier trained against an attack on itself.

Their Algorithm 1: by turns an inference network learns to tell the members' outputs from those of a reference set, and
the classifier takes a step on its loss plus `weight` times that network's gain on the members. The reference records
belong to the owner and train nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F

from mialib import arrays, runs, work
from mialib.models import small
from mialib.models.fit import Records
from mialib.models.small import MLP

# Of the inference network: units of what reads the outputs, of what reads the label, of what reads both. The paper has
# 1024-512-64, 512-64 and 256-64 for a hundred classes.
OUTPUTS, LABEL, BOTH = (64, 64), (64,), (64,)


@dataclass(frozen=True)
class Recipe:
    """How to train: `epochs` of the members in batches; `weight` is the paper's lambda.

    For each step of the classifier the inference network takes one, both Adam's, of size `step`.
    """

    epochs: int
    weight: float
    batch: int = 100
    step: float = 1e-3

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch) < 1 or self.weight < 0 or self.step <= 0:
            raise ValueError(f"no such training: {self}")


def fit_many(
    model: MLP,
    recipe: Recipe,
    X: Records,
    y: np.ndarray,
    members: Sequence[np.ndarray],
    reference: np.ndarray,
    words: Sequence[tuple],
) -> np.ndarray:
    """Train one model on each set of records against those of `reference`; float32 (models, n_parameters).

    X (n, features), y (n,), members and `reference`: index arrays into X, words: seed words of each model's stream.
    All models are kept. ValueError for another model than an MLP, records or labels that do not fit it, and a reference
    record that a model is trained on.
    """
    X, y = arrays.records(X), arrays.labels(y, classes=model.classes)
    if not isinstance(model, MLP):
        raise ValueError(f"adversarial regularisation is written for MLPs, not for {model}")
    small.check_records(model, X)
    if not len(reference) or any(np.isin(reference, rows).any() for rows in members):
        raise ValueError("a reference record is needed, and no model may be trained on one")
    known = X[reference], y[reference]
    jobs = [(model, recipe, X[rows], y[rows], *known, word) for rows, word in zip(members, words, strict=True)]
    return np.stack([theta for (theta,) in work.every(fit, jobs, jobs, runs.versions("numpy", "torch"))])


def fit(
    model: MLP, recipe: Recipe, X: Records, y: np.ndarray, X_out: Records, y_out: np.ndarray, words: tuple
) -> tuple[np.ndarray]:
    """One model, on one thread."""
    rng = runs.stream(*words)
    inside, outside = (_tensors(*of) for of in ((X, y), (X_out, y_out)))
    with small.one_thread():
        theta = torch.from_numpy(small.initial(model, rng)).requires_grad_()
        theta_of_attack = [torch.from_numpy(small.initial(part, rng)).requires_grad_() for part in inference(model)]
        ours, theirs = (torch.optim.Adam(of, recipe.step, fused=True) for of in ([theta], theta_of_attack))
        for _ in range(recipe.epochs):
            for rows in np.array_split(rng.permutation(len(y)), -(-len(y) // recipe.batch)):
                drawn = (rng.integers(len(of[1]), size=len(rows)) for of in (inside, outside))
                sides = [_taken(of, at) for of, at in zip((inside, outside), drawn, strict=True)]
                x, labels = (torch.cat(parts) for parts in zip(*sides, strict=True))
                theirs.zero_grad()
                with torch.no_grad():
                    out = _forward(model, theta, x)
                told = odds(model, theta_of_attack, out, labels)
                (-gain(told[: len(rows)], told[len(rows) :])).backward()
                theirs.step()
                ours.zero_grad()
                x, labels = _taken(inside, rows)
                out = _forward(model, theta, x)
                loss = F.cross_entropy(out, labels)
                if recipe.weight:
                    loss = loss + recipe.weight * F.logsigmoid(odds(model, theta_of_attack, out, labels)).mean() / 2
                loss.backward()
                ours.step()
    return (theta.detach().numpy(),)


def gain(members: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """The paper's equation 4 of log-odds of membership: half the mean of log h, and half that of log (1 - h)."""
    return (F.logsigmoid(members).mean() + F.logsigmoid(-others).mean()) / 2


def inference(model: MLP) -> list[MLP]:
    """The three parts of the inference network: of the outputs, of the label, of both."""
    outputs, label = (MLP((model.classes, *units), "relu") for units in (OUTPUTS, LABEL))
    return [outputs, label, MLP((OUTPUTS[-1] + LABEL[-1], *BOTH, 1), "relu")]


def odds(model: MLP, thetas: Sequence[torch.Tensor], logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Log-odds of membership that the inference network gives, (n,)."""
    outputs, label, both = inference(model)
    known = F.one_hot(y, model.classes).to(logits.dtype)
    parts = _forward(outputs, thetas[0], torch.softmax(logits, -1)), _forward(label, thetas[1], known)
    return _forward(both, thetas[2], torch.cat(parts, -1).relu())[:, 0]


def _forward(model: MLP, theta: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    for number, (weight, bias) in enumerate(small.layers(model, theta)):
        if number:
            out = out.tanh() if model.activation == "tanh" else out.relu()
        out = torch.addmm(bias, out, weight)
    return out


def _tensors(X: Records, y: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    dense = X.toarray() if scipy.sparse.issparse(X) else X
    return torch.from_numpy(np.ascontiguousarray(dense, np.float32)), torch.from_numpy(y)


def _taken(of: tuple[torch.Tensor, torch.Tensor], rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    at = torch.from_numpy(rows)
    return of[0][at], of[1][at]
