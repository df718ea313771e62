"""Data that leak as much as a test wants."""

import numpy as np

from mialib import runs
from mialib.data.datasets import Dataset


def dataset(noise, n=900, d=40, classes=4):
    """Clustered binary records; `noise` is the share of labels drawn at random, which a network can only memorise."""
    rng = np.random.default_rng(0)
    y = rng.integers(classes, size=n)
    X = (rng.random((n, d)) < rng.random((classes, d))[y]).astype(np.uint8)
    y = np.where(rng.random(n) < noise, rng.integers(classes, size=n), y)
    return Dataset("location-30", X, y, classes, "M", "simulated", runs.digest(X, y))
