"""Students of the last layer: `transfer` against a loop that runs the whole network in every epoch.

Claim: at least 5 times as fast, for students of the same test accuracy. The loop is what most people write: a copy of
the teacher whose other layers need no gradient, a new last one, Adam on its parameters. Both on one thread. Images are
random patterns, one a class, with noise: asking the teacher is as dear as on CIFAR.
"""

import copy
import os
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.measure import contender, show
from mialib import runs
from mialib.models import fit, small, transfer

STUDENTS, RECORDS, EPOCHS, CLASSES, BATCH = 4, 500, 20, 10, 50
HERE = "benchmarks.transfer"


def setting() -> tuple[transfer.Teacher, np.ndarray, np.ndarray, list[np.ndarray], np.ndarray]:
    """Teacher, X, y, the members of each student, and the records that nothing is trained on."""
    rng = runs.stream(0, "bench", "transfer")
    y = rng.integers(CLASSES, size=(STUDENTS + 1) * RECORDS)
    patterns = rng.normal(128, 25, (CLASSES, 3, 32, 32))
    X = np.clip(patterns[y] + rng.normal(0, 25, (len(y), 3, 32, 32)), 0, 255).astype(np.uint8)
    *members, others = np.array_split(np.arange(len(y)), STUDENTS + 1)
    # Weights as they were drawn leave little of an image by the last layer, so it is fed on a larger scale.
    teacher = replace(transfer.fresh(transfer.cnn(3, 100), (0, "bench")), deviation=(0.02,))
    return teacher, X, y, members, others


def ours() -> dict[str, Any]:
    """Features once, then the last layers, in this process: what it costs counts whole."""
    os.environ["MIALIB_WORKERS"] = "1"
    teacher, X, y, members, others = setting()
    start = time.process_time()
    inputs = transfer.features(teacher, X)
    words = [(0, i) for i in range(STUDENTS)]
    model, thetas = transfer.heads(inputs, y, CLASSES, members, words, fit.Recipe(EPOCHS, BATCH))
    hits = [small.logits(model, theta, inputs[others]).argmax(1) == y[others] for theta in thetas]
    return {"seconds": time.process_time() - start, "test accuracy": float(np.mean(hits))}


def loop() -> dict[str, Any]:
    """The whole network, frozen but for its last layer, in every epoch."""
    teacher, X, y, members, others = setting()
    start, hits = time.process_time(), []
    images, labels = (torch.from_numpy(X).float() / 255 - 0.5) / 0.02, torch.from_numpy(y)
    for i, rows in enumerate(members):
        net = copy.deepcopy(teacher.net).requires_grad_(False)
        net.fc2 = torch.nn.Linear(128, CLASSES)
        optimiser = torch.optim.Adam(net.fc2.parameters(), 1e-3)
        rng = runs.stream(0, "loop", i)
        for _ in range(EPOCHS):
            for batch in np.array_split(rng.permutation(rows), RECORDS // BATCH):
                optimiser.zero_grad()
                F.cross_entropy(net(images[batch]), labels[batch]).backward()
                optimiser.step()
        with torch.no_grad():
            hits.append((net(images[others]).argmax(1) == labels[others]).float().mean().item())
    return {"seconds": time.process_time() - start, "test accuracy": float(np.mean(hits))}


def main() -> dict[str, Any]:
    """Print both sides; returns everything that was measured."""
    found = {"whole network in every epoch": contender(HERE, "loop", threads=1)}
    found["features once"] = contender(HERE, "ours", threads=1)
    rows = [{"students": name} | measured for name, measured in found.items()]
    show(
        f"{STUDENTS} students of the last layer, {RECORDS} records, {EPOCHS} epochs; processor time of one thread", rows
    )
    slow, fast = found.values()
    ratio = slow["seconds"] / fast["seconds"]
    print(f"  {ratio:.1f} times as fast; claim: 5")
    same = abs(slow["test accuracy"] - fast["test accuracy"]) < 0.03
    return {"claims": {"5 times as fast": ratio >= 5, "same accuracy": same}, "ratio": ratio, "rows": rows}
