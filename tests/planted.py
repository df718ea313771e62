"""Data that leak as much as a test wants."""

import numpy as np

from mialib import runs
from mialib.data.datasets import Dataset
from mialib.papers.zarifzadeh2024 import experiments


def dataset(noise, n=900, d=40, classes=4):
    """Clustered binary records; `noise` is the share of labels drawn at random, which a network can only memorise."""
    rng = np.random.default_rng(0)
    y = rng.integers(classes, size=n)
    X = (rng.random((n, d)) < rng.random((classes, d))[y]).astype(np.uint8)
    y = np.where(rng.random(n) < noise, rng.integers(classes, size=n), y)
    return Dataset("location-30", X, y, classes, "M", "simulated", runs.digest(X, y))


def answers(leak, row, seed=0, classes=4, hard=3, spread=0.5):
    """Models that are `leak` surer of their members, of records that differ in how hard they are by `hard`."""
    rng = np.random.default_rng(seed)
    _, member = experiments.drawn(row, row.records, seed)
    y = rng.integers(classes, size=row.records)
    logits = rng.normal(0, 0.3, (len(member), row.records, 1, classes))
    own = rng.normal(2, hard, row.records) + rng.normal(0, spread, member.shape) + leak * member
    logits[:, np.arange(row.records), 0, y] += own
    return experiments.Answers(row, "M", logits.astype(np.float32), member, y)
