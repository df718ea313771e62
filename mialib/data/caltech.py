"""Caltech-101 at 32x32, for teachers: a file that the user brings, as nothing here downloads or reduces it yet."""

import hashlib

import numpy as np
import sklearn.datasets

from mialib import config, runs
from mialib.data.datasets import Dataset

NAME, CLASSES = "caltech-101", 102  # 101 kinds of object, and images of none
FILE = "caltech101-32.npz"
SHA256 = "e37748dd40ca2e47a813cb38afbb2601e13528424bd6276368db0a4a8a81466b"


def load(profile: str) -> Dataset:
    """All 9,145 images, uint8 (n, 3, 32, 32); in demo digits that lie on their side, which other stand-ins do not.

    The file is `caltech101/caltech101-32.npz` in `config.raw_dir()`: X uint8 (n, 32, 32, 3), y. Raises
    FileNotFoundError without it, ValueError for another file of this name.
    """
    config.check_profile(profile)
    if profile == "demo":
        digits, y = sklearn.datasets.load_digits(return_X_y=True)
        grey = np.kron(digits.reshape(-1, 8, 8).transpose(0, 2, 1) * (255 / 16), np.ones((4, 4))).astype(np.uint8)
        X, source = np.repeat(grey[:, None], 3, axis=1), f"{len(y):,} digits on their side, in Caltech-101's place"
        return Dataset(NAME, X, y, 10, "S", f"scikit-learn's {source}", runs.digest(X, y))
    path = config.raw_dir() / "caltech101" / FILE
    if not path.exists():
        raise FileNotFoundError(f"Caltech-101 is not downloaded for you: put {FILE} into {path.parent}")
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise ValueError(f"{path} is not the file that was used here: its SHA-256 is another")
    with np.load(path, allow_pickle=False) as file:
        X, y = np.ascontiguousarray(file["X"].transpose(0, 3, 1, 2)), file["y"].astype(np.int64)
    source = f"Caltech-101: real, {len(y):,} colour images, reduced to 32 by 32 pixels, {CLASSES} classes"
    return Dataset(NAME, X, y, CLASSES, "R", source, runs.digest(X, y))
