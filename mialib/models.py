"""Architectures as data. A trained model is one flat float32 vector; `layers` gives its matrices as views."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
from threadpoolctl import threadpool_limits

ACTIVATIONS = ("tanh", "relu")


@dataclass(frozen=True)
class MLP:
    """Fully connected network: `sizes` = (features, hidden units …, classes); `activation` after each hidden layer."""

    sizes: tuple[int, ...]
    activation: str = "tanh"

    def __post_init__(self) -> None:
        if len(self.sizes) < 2 or min(self.sizes) < 1:
            raise ValueError(f"sizes must name at least inputs and classes, all positive, not {self.sizes}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation {self.activation!r}; valid: {', '.join(ACTIVATIONS)}")


def n_parameters(model: MLP) -> int:
    """Number of weights and biases."""
    return sum(a * b + b for a, b in zip(model.sizes, model.sizes[1:], strict=False))


def layers(model: MLP, flat: Any) -> list[tuple[Any, Any]]:
    """Views [(W, b), …] into `flat`, array or tensor of shape (…, n_parameters); W is (…, inputs, outputs)."""
    views, at = [], 0
    for a, b in zip(model.sizes, model.sizes[1:], strict=False):
        weight = flat[..., at : at + a * b].reshape(*flat.shape[:-1], a, b)
        views.append((weight, flat[..., at + a * b : at + a * b + b]))
        at += a * b + b
    return views


def initial(model: MLP, rng: np.random.Generator) -> np.ndarray:
    """Fresh float32 parameters: weights and biases uniform in ±1/√inputs, as in Torch7 and in torch.nn.Linear."""
    flat = np.empty(n_parameters(model), np.float32)
    for weight, bias in layers(model, flat):
        bound = len(weight) ** -0.5
        weight[...] = rng.uniform(-bound, bound, weight.shape)
        bias[...] = rng.uniform(-bound, bound, bias.shape)
    return flat


def logits(model: MLP, flat: np.ndarray, X: np.ndarray | scipy.sparse.csr_array) -> np.ndarray:
    """Outputs before softmax, (n, classes) float32, for X (n, features) dense or CSR. ValueError on a wrong width."""
    if X.shape[1] != model.sizes[0]:
        raise ValueError(f"the model takes {model.sizes[0]} features, the records have {X.shape[1]}")
    with threadpool_limits(1):  # the sums of several threads would depend on their number
        return np.concatenate([_forward(model, flat, X[rows]) for rows in _chunks(X.shape[0])])


def _forward(model: MLP, flat: np.ndarray, X: np.ndarray | scipy.sparse.csr_array) -> np.ndarray:
    out = X.astype(np.float32)
    for number, (weight, bias) in enumerate(layers(model, flat)):
        if number:
            out = np.tanh(out) if model.activation == "tanh" else np.maximum(out, 0)
        out = out @ weight + bias
    return out


def _chunks(n: int, size: int = 4096) -> Iterator[slice]:
    return (slice(at, at + size) for at in range(0, max(n, 1), size))
