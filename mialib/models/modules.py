"""Convolutional networks as `nn.Sequential` of named layers, trained with dropout, by random streams of their own.

They multiply in what `machine.precision` says while they train; weights, and what is asked of them, are float32.
"""

import copy
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import starmap

import joblib
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.sgd import sgd

from mialib import arrays, config, machine, runs, source, work
from mialib.models import small


@dataclass(frozen=True)
class Descent:
    """How to train: gradient descent with momentum on mean cross-entropy, batches reshuffled each epoch.

    The rate falls linearly to 0.
    """

    epochs: int
    rate: float
    batch: int = 64
    momentum: float = 0.9


@dataclass(frozen=True)
class Plateaus:
    """As `Descent`, but for the rate: it is halved after every `patience` epochs without a better validation accuracy.

    Such epochs need not follow each other. Training ends where the rate falls below `slowest`, at the latest after
    `epochs`; the weights of the epoch with the best validation accuracy, the first of them, are what is learnt.
    """

    epochs: int
    rate: float
    slowest: float
    patience: int
    batch: int = 64
    momentum: float = 0.9


def cnn(
    inputs: tuple[int, int, int], classes: int, filters: tuple[int, int], hidden: int, dropped: float, words: tuple
) -> nn.Sequential:
    """Twice convolution of 5x5 and pooling, a hidden layer, ReLU, dropout after each; fc2 makes the logits.

    inputs: channels, height and width of an image; words: seed words of the weights and biases, which are uniform in
    ±1/√inputs, as PyTorch draws them. ValueError for images that are too small.
    """
    height, width = (((side - 4) // 2 - 4) // 2 for side in inputs[1:])
    if min(height, width) < 1:
        raise ValueError(f"images of {inputs[1]}x{inputs[2]} are too small for two convolutions of 5x5 and poolings")
    layers = OrderedDict(
        conv1=nn.Conv2d(inputs[0], filters[0], 5), pool1=nn.MaxPool2d(2), relu1=nn.ReLU(), drop1=nn.Dropout(dropped),
        conv2=nn.Conv2d(*filters, 5), pool2=nn.MaxPool2d(2), relu2=nn.ReLU(), drop2=nn.Dropout(dropped),
        flatten=nn.Flatten(), fc1=nn.Linear(filters[1] * height * width, hidden), relu3=nn.ReLU(),
        drop3=nn.Dropout(dropped), fc2=nn.Linear(hidden, classes),
    )  # fmt: skip
    rng = runs.stream(*words, "weights")
    with torch.no_grad():
        for layer in layers.values():
            for values in layer.parameters():
                bound = layer.weight[0].numel() ** -0.5
                values.copy_(torch.from_numpy(rng.uniform(-bound, bound, values.shape)))
    return nn.Sequential(layers).to(memory_format=torch.channels_last).eval()  # a quarter less time on a CPU


def scaled(X: np.ndarray) -> np.ndarray:
    """Images as the networks take them: float32 in -1..1, of uint8 (n, channels, height, width)."""
    return (X / np.float32(127.5) - 1).astype(np.float32)


def train(
    net: nn.Sequential,
    X: np.ndarray,
    y: np.ndarray,
    descent: Descent | Plateaus,
    words: tuple,
    validation: tuple[np.ndarray, np.ndarray] | None = None,
) -> nn.Sequential:
    """A copy of `net`, trained from where it is on images X (n, …) uint8 and classes y (n,); kept, on one thread.

    words: seed words of the order of the records and of what is dropped; `validation`: images and classes that it does
    not learn, for Plateaus and for nothing else. ValueError for other records, labels that do not fit, validation where
    it takes none or none where it takes some, a rate that is not above 0, and weights that come to be not finite.
    """
    parts = [(X, y)] if validation is None else [(X, y), validation]
    if len(parts) != 1 + isinstance(descent, Plateaus):
        raise ValueError("Plateaus take validation records, and nothing else does")
    if descent.rate <= 0 or descent.momentum < 0:
        raise ValueError(f"a rate is above 0 and a momentum at least 0, not {descent.rate:g} and {descent.momentum:g}")
    for images, _ in parts:
        if images.dtype != np.uint8 or not len(images):
            said = f"not {len(images)} of {images.dtype}"
            raise ValueError(f"a network is trained on at least one image, of uint8 (0 to 255), {said}")
    (X, y), *held = [(images, arrays.labels(labels, len(images), net[-1].out_features)) for images, labels in parts]
    weights = {name: tensor.numpy(force=True) for name, tensor in net.state_dict().items()}
    learn = _settle if held else _descend
    code = source.digest(learn), runs.versions("numpy", "torch"), machine.precision()  # not the same bits in another
    key = runs.digest("modules", *code, str(net), weights, X, y, descent, words, *held)
    entry = work.cached(key, lambda: learn(net, X, y, descent, words, *held))
    found = copy.deepcopy(net)
    found.load_state_dict({name: torch.from_numpy(array) for name, array in entry.items()})
    return found.eval()


def train_all(jobs: Sequence[tuple]) -> list[nn.Sequential]:
    """`train` for each of the jobs, its arguments, on all cores: one process each."""
    return list(machine.parallel(starmap(joblib.delayed(train), jobs), min(len(jobs), config.workers())))


def _descend(net: nn.Sequential, X: np.ndarray, y: np.ndarray, descent: Descent, words: tuple) -> dict[str, np.ndarray]:
    """The state of a copy of the network after training."""
    net, rng = copy.deepcopy(net).requires_grad_(True), runs.stream(*words)
    noise, momenta = torch.Generator().manual_seed(int(rng.integers(2**62))), []
    steps, done = descent.epochs * -(-len(y) // descent.batch), 0
    with small.one_thread():
        for _ in range(descent.epochs):
            for rows in _batches(rng, len(y), descent.batch):
                _step(net, X[rows], y[rows], descent.rate * (1 - done / steps), descent.momentum, momenta, noise)
                done += 1
    return _state(net, descent.rate)


def _settle(
    net: nn.Sequential, X: np.ndarray, y: np.ndarray, plateaus: Plateaus, words: tuple, held: tuple
) -> dict[str, np.ndarray]:
    """The state of a copy of the network at the epoch with the best accuracy on `held`, images and classes."""
    net, rng = copy.deepcopy(net).requires_grad_(True), runs.stream(*words)
    noise, momenta = torch.Generator().manual_seed(int(rng.integers(2**62))), []
    rate, misses = plateaus.rate, 0
    with small.one_thread():
        best, found = accuracy(net, *held), _state(net, plateaus.rate)
        for _ in range(plateaus.epochs):
            for rows in _batches(rng, len(y), plateaus.batch):
                _step(net, X[rows], y[rows], rate, plateaus.momentum, momenta, noise)
            state = _state(net, plateaus.rate)
            if (now := accuracy(net, *held)) > best:
                best, found = now, state
                continue
            misses += 1
            rate = plateaus.rate * 0.5 ** (misses // plateaus.patience)
            if rate < plateaus.slowest:
                break
    return found


def _batches(rng: np.random.Generator, n: int, size: int) -> list[np.ndarray]:
    """The records of one epoch, shuffled, batch by batch."""
    return np.split(rng.permutation(n), range(size, n, size))


def _step(
    net: nn.Sequential,
    X: np.ndarray,
    y: np.ndarray,
    rate: float,
    momentum: float,
    momenta: list[torch.Tensor | None],
    noise: torch.Generator,
) -> None:
    """One step of gradient descent on the images X and classes y; momenta: of what learns, none before the first step.

    By what torch.optim.SGD calls: to make one imports PyTorch's compiler, 2 seconds in each process.
    """
    images = torch.from_numpy(scaled(X)).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=machine.precision() == "bfloat16"):
        logits = _dropping(net, images, noise)
    net.zero_grad()
    F.cross_entropy(logits.float(), torch.from_numpy(y)).backward()
    weights = [weight for weight in net.parameters() if weight.grad is not None]
    momenta += [None] * (len(weights) - len(momenta))
    how = {"weight_decay": 0, "dampening": 0, "nesterov": False, "maximize": False, "fused": True}
    with torch.no_grad():
        sgd(weights, [weight.grad for weight in weights], momenta, lr=rate, momentum=momentum, **how)


def _state(net: nn.Sequential, rate: float) -> dict[str, np.ndarray]:
    """A copy of what it has learnt; ValueError where that is not finite, at the rate it is told."""
    state = {name: tensor.numpy(force=True).copy() for name, tensor in net.state_dict().items()}
    if not all(np.isfinite(array).all() for array in state.values()):
        raise ValueError(f"a network did not learn: its weights are not finite at rate {rate:g}; lower it")
    return state


def accuracy(net: nn.Sequential, X: np.ndarray, y: np.ndarray) -> float:
    """Share of images X (n, …) uint8 whose class y (n,) has the highest logit; it puts the network into eval mode."""
    net.eval()
    with torch.no_grad():
        parts = np.split(np.arange(len(y)), range(1000, len(y), 1000))
        hits = [net(torch.from_numpy(scaled(X[rows]))).argmax(1).numpy() == y[rows] for rows in parts]
    return float(np.concatenate(hits).mean())


def _dropping(net: nn.Sequential, x: torch.Tensor, noise: torch.Generator) -> torch.Tensor:
    """The answer with dropout by a stream of its own: PyTorch's takes the global one."""
    for layer in net:
        if isinstance(layer, nn.Dropout):
            x = x * (torch.rand(x.shape, generator=noise) >= layer.p) / (1 - layer.p)
        else:
            x = layer(x)
    return x
