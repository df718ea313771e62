"""Architectures as data. A trained model is one flat float32 vector; `layers` gives its matrices as views."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F
from threadpoolctl import ThreadpoolController

from mialib import arrays

ACTIVATIONS = ("tanh", "relu")
STARTS = ("torch", "glorot")

# Workers share records as read-only memory maps. Nothing here writes into them.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")


@dataclass(frozen=True)
class MLP:
    """Fully connected network: `sizes` = (features, hidden units …, classes); `activation` after each hidden layer.

    `start`: how its weights begin, see `initial`; "glorot" for references of a target that scikit-learn trained.
    """

    sizes: tuple[int, ...]
    activation: str = "tanh"
    start: str = "torch"

    def __post_init__(self) -> None:
        if len(self.sizes) < 2 or min(self.sizes) < 1:
            raise ValueError(f"sizes must name at least inputs and classes, all positive, not {self.sizes}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation {self.activation!r}; valid: {', '.join(ACTIVATIONS)}")
        if self.start not in STARTS:
            raise ValueError(f"unknown start {self.start!r}; valid: {', '.join(STARTS)}")

    @property
    def inputs(self) -> tuple[int, ...]:
        return self.sizes[:1]

    @property
    def classes(self) -> int:
        return self.sizes[-1]


@dataclass(frozen=True)
class CNN:
    """The paper's network for images: twice convolution and 2x2 max-pooling, a hidden layer, tanh throughout.

    Shokri et al. 2017, VI-B, gives that and the 128 hidden units. Filters and kernel size are our choice, because
    the paper names neither; the convolutions are not padded. Images are uint8, scaled to -1..1 on their way in.
    """

    inputs: tuple[int, int, int]  # channels, height, width
    classes: int
    hidden: int = 128
    filters: tuple[int, int] = (32, 32)  # of the first convolution and of the second
    kernel: int = 5

    def __post_init__(self) -> None:
        if min(self.inputs) < 1 or min(self.classes, self.hidden, *self.filters, self.kernel) < 1:
            raise ValueError(f"sizes must all be positive: {self}")
        if min(self.pooled) < 1:
            raise ValueError(f"images of {self.inputs[1]}x{self.inputs[2]} are too small for kernels of {self.kernel}")

    @property
    def pooled(self) -> tuple[int, int]:
        """Height and width after both convolutions and poolings."""
        height, width = (((side - self.kernel + 1) // 2 - self.kernel + 1) // 2 for side in self.inputs[1:])
        return height, width


Model = MLP | CNN


def shapes(model: Model) -> list[tuple[int, ...]]:
    """Shape of each layer's weights: (inputs, outputs), or (filters, height, width, channels) of a convolution."""
    if isinstance(model, MLP):
        return list(zip(model.sizes, model.sizes[1:], strict=False))
    height, width = model.pooled
    inputs = model.inputs[0], model.filters[0]
    convolutions = [(n, model.kernel, model.kernel, before) for n, before in zip(model.filters, inputs, strict=True)]
    return [*convolutions, (model.filters[1] * height * width, model.hidden), (model.hidden, model.classes)]


def n_parameters(model: Model) -> int:
    """Number of weights and biases."""
    return sum(math.prod(shape) + _outputs(shape) for shape in shapes(model))


def _outputs(shape: tuple[int, ...]) -> int:
    return shape[-1] if len(shape) == 2 else shape[0]


def layers(model: Model, flat: Any) -> list[tuple[Any, Any]]:
    """Views [(W, b), …] into `flat`, array or tensor of shape (…, n_parameters); W is (…, *shape), see `shapes`."""
    views, at = [], 0
    for shape in shapes(model):
        middle, end = at + math.prod(shape), at + math.prod(shape) + _outputs(shape)
        views.append((flat[..., at:middle].reshape(*flat.shape[:-1], *shape), flat[..., middle:end]))
        at = end
    return views


def initial(model: Model, rng: np.random.Generator) -> np.ndarray:
    """Fresh float32 parameters: weights and biases uniform in ±1/√inputs, as in Torch7 and in torch.nn.Linear.

    An MLP that starts as "glorot": in ±√(6 / (inputs + outputs)) (Glorot & Bengio 2010, equation 16), biases too, as in
    scikit-learn's MLPClassifier.
    """
    flat = np.empty(n_parameters(model), np.float32)
    glorot = isinstance(model, MLP) and model.start == "glorot"
    for weight, bias in layers(model, flat):
        inputs = weight.size // len(bias)
        bound = (6 / (inputs + len(bias))) ** 0.5 if glorot else inputs**-0.5
        weight[...] = rng.uniform(-bound, bound, weight.shape)
        bias[...] = rng.uniform(-bound, bound, bias.shape)
    return flat


def logits(model: Model, flat: np.ndarray, X: np.ndarray | scipy.sparse.csr_array) -> np.ndarray:
    """Outputs before softmax, (n, classes) float32, on one thread.

    X: (n, features) dense or sparse for an MLP, (n, channels, height, width) uint8 for a CNN. ValueError otherwise.
    """
    X = arrays.records(X)
    check_records(model, X)
    forward = _forward if isinstance(model, MLP) else _forward_images
    with one_thread():  # the sums of several threads would depend on their number
        return np.concatenate([forward(model, flat, X[rows]) for rows in _chunks(X.shape[0])])


def softmax(logits: np.ndarray) -> np.ndarray:
    """Prediction vectors, (…, classes) float32 that sum to one, from logits of the same shape."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return (powers / powers.sum(-1, keepdims=True)).astype(np.float32)


def check_records(model: Model, X: np.ndarray | scipy.sparse.csr_array) -> None:
    """ValueError unless X holds records that the model takes."""
    if X.shape[1:] != model.inputs:
        wanted, found = ("x".join(map(str, shape)) for shape in (model.inputs, X.shape[1:]))
        raise ValueError(f"the model takes {wanted} features, the records have {found}")
    if isinstance(model, CNN) and X.dtype != np.uint8:
        raise ValueError(f"images must be uint8 (0 to 255), not {X.dtype}")


@cache
def _pools() -> ThreadpoolController:
    """The thread pools of the libraries loaded so far, NumPy's among them; looking for them takes 5 ms each time."""
    return ThreadpoolController()


@contextmanager
def one_thread() -> Iterator[None]:
    """NumPy and PyTorch on one thread, for as long as the block runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _pools().limit(limits=1):
            yield
    finally:
        torch.set_num_threads(threads)


def image_logits(layers: list[tuple[torch.Tensor, torch.Tensor]], images: torch.Tensor) -> torch.Tensor:
    """A CNN's outputs (batch, classes) on uint8 images (batch, channels, height, width); `layers` of its parameters.

    tanh is monotone, so it may follow the pooling, where a quarter of the values is left. Channels come last in
    memory, which halves the time of the convolutions on a CPU.
    """
    *convolutions, (hidden, hidden_bias), (last, last_bias) = layers
    out = images.to(last.dtype).div_(127.5).sub_(1).contiguous(memory_format=torch.channels_last)
    for weight, bias in convolutions:
        out = torch.tanh(F.max_pool2d(F.conv2d(out, weight.permute(0, 3, 1, 2), bias), 2))
    out = torch.tanh(out.permute(0, 2, 3, 1).flatten(1) @ hidden + hidden_bias)
    return out @ last + last_bias


def _forward_images(model: CNN, flat: np.ndarray, X: np.ndarray) -> np.ndarray:
    parameters = layers(model, torch.from_numpy(flat))
    with torch.inference_mode():
        parts = [image_logits(parameters, torch.from_numpy(X[rows])) for rows in _chunks(len(X), 256)]
    return torch.cat(parts).numpy() if parts else np.zeros((0, model.classes), np.float32)


def _forward(model: MLP, flat: np.ndarray, X: np.ndarray | scipy.sparse.csr_array) -> np.ndarray:
    out = X.astype(np.float32)
    for number, (weight, bias) in enumerate(layers(model, flat)):
        if number:
            out = np.tanh(out) if model.activation == "tanh" else np.maximum(out, 0)
        out = out @ weight + bias
    return out


def _chunks(n: int, size: int = 4096) -> Iterator[slice]:
    return (slice(at, at + size) for at in range(0, max(n, 1), size))
