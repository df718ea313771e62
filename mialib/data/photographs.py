"""Sets of images for networks that go from one set to another: colour, 3 x 32 x 32, uint8."""

from dataclasses import replace

import numpy as np

from mialib import runs
from mialib.data import caltech, datasets
from mialib.data.datasets import Dataset


def load(name: str, profile: str) -> Dataset:
    """A CIFAR, Caltech-101 or Fashion-MNIST, by name. Raises as `datasets.load` and `caltech.load` do.

    In demo the stand-in of CIFAR-100 is mirrored: the others' have the same digits, and no teacher saw its students'.
    Fashion-MNIST's images are made as large as CIFAR-10's, in three channels of the same grey.
    """
    if name == caltech.NAME:
        return caltech.load(profile)
    data = datasets.load(name, profile)
    if name == "fashion-mnist":
        X = enlarged(data.X)
        return replace(data, X=X, source=f"{data.source}; made 3 x 32 x 32", digest=runs.digest(X, data.y))
    if profile != "demo" or name != "cifar-100":
        return data
    X = np.ascontiguousarray(data.X[..., ::-1])
    return replace(data, X=X, source=f"{data.source}; mirrored", digest=runs.digest(X, data.y))


def enlarged(X: np.ndarray) -> np.ndarray:
    """Square grey images in 0..1, (n, side * side), as uint8 (n, 3, 32, 32): pixels repeated, the rest a border."""
    side = round(X.shape[1] ** 0.5)
    times = 32 // side
    border = (32 - times * side) // 2
    grey = (255 * X.reshape(-1, side, side)).round().astype(np.uint8).repeat(times, 1).repeat(times, 2)
    grey = np.pad(grey, ((0, 0), (border, border), (border, border)))
    return np.repeat(grey[:, None], 3, axis=1)
