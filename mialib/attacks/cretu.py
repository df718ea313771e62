"""The attack network of the code that Crețu et al. 2024 released (src/models.py, src/train_meta_model.py there).

A component for each output and each gradient, one for the label, and a classifier over all of them. A gradient is read
by kernels that span all of it, where those of Nasr et al. (`nasr`) span a layer's outputs.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mialib import runs
from mialib.attacks.nasr import Features
from mialib.models import small

DROPPED = 0.2  # of what the kernels say
LABELLED = 16  # numbers that stand for a label
CHUNK = 1000  # records in one pass


@dataclass(frozen=True)
class Training:
    """How the attack network is trained; the defaults are those of the released code.

    Adam on cross-entropy. After each epoch without a better validation accuracy the rate is halved, and training ends
    where it falls below `slowest`; the best epoch counts.
    """

    kernels: int = 100
    epochs: int = 100
    batch: int = 64
    rate: float = 1e-3
    slowest: float = 1e-4


class Network(nn.Module):
    """For features that are `like` those given, in one observed model, whose loss is not looked at.

    kernels: over each gradient. Weights are as PyTorch draws them (uniform in ±1/√inputs, a label's numbers N(0, 1)),
    but from `rng`.
    """

    def __init__(self, like: Features, classes: int, kernels: int, rng: np.random.Generator) -> None:
        super().__init__()
        sizes = [delta.shape[2] * entered.shape[2] for delta, entered in like.gradients]
        self.label = nn.Embedding(classes, LABELLED)
        self.outputs = nn.ModuleList(_chain(each.shape[2], 128, 64) for each in like.outputs)
        self.kernels = nn.ModuleList(nn.Linear(size, kernels) for size in sizes)
        self.gradients = nn.ModuleList(_chain(kernels, 128, 64) for _ in sizes)
        self.classifier = _chain(64 * (len(self.outputs) + len(sizes)) + LABELLED, 128, 64, 2)
        with torch.no_grad():
            self.label.weight.copy_(torch.from_numpy(rng.normal(size=self.label.weight.shape)))
            for layer in (each for each in self.modules() if isinstance(each, nn.Linear)):
                bound = layer.in_features**-0.5
                for values in layer.parameters():
                    values.copy_(torch.from_numpy(rng.uniform(-bound, bound, values.shape)))

    def forward(self, seen: Features, noise: torch.Generator | None = None) -> torch.Tensor:
        """Logits (n, 2) of non-member and member; one observed model; `noise` drops units."""
        found = [net(torch.from_numpy(each[:, 0])) for net, each in zip(self.outputs, seen.outputs, strict=True)]
        for kernel, net, pair in zip(self.kernels, self.gradients, seen.gradients, strict=True):
            delta, entered = (torch.from_numpy(each[:, 0]) for each in pair)
            told = kernel((delta[:, :, None] * entered[:, None]).flatten(1))
            if noise is not None:  # by a stream of its own: PyTorch's dropout takes the global one
                told = told * (torch.rand(told.shape, generator=noise) >= DROPPED) / (1 - DROPPED)
            found.append(net(told))
        return self.classifier(torch.cat([*found, self.label(torch.from_numpy(seen.y))], 1))


def _chain(*sizes: int) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers = [part for pair in itertools.pairwise(sizes) for part in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def learn(
    teachers: Sequence[tuple[Features, np.ndarray]],
    check: tuple[Features, np.ndarray],
    asked: Features,
    words: tuple,
    training: Training = Training(),
) -> tuple[np.ndarray]:
    """Scores of the asked records, (n,) in 0..1, at the epoch at which those of `check` are told apart best.

    teachers: what known records look like in each network that teaches, and who is a member (bool); `check`: the same,
    none of them known. An epoch is as long as the records of one teacher (`turns`). A tuple, as `work.every` wants it.
    ValueError without a record to learn from, to check or to ask, and for features of several models or other layers.
    """
    parts = [*(seen for seen, _ in teachers), check[0], asked]
    if not teachers or not all(len(seen.y) for seen in parts):
        raise ValueError("an attack needs records to learn from, others that choose its epoch, and some that it asks")
    if len({_shape(seen) for seen in parts}) > 1 or asked.loss.shape[1] != 1:
        raise ValueError("all records must be observed in one model at a time, by the same layers")
    rng, classes = runs.stream(*words, "attack network"), 1 + max(int(seen.y.max()) for seen in parts)
    with small.one_thread():
        network = Network(asked, classes, training.kernels, rng)
        noise = torch.Generator().manual_seed(int(rng.integers(2**62)))
        adam = torch.optim.Adam(network.parameters(), lr=training.rate, fused=True)
        best, scores = _right(network, *check), told(network, asked)
        for _ in range(training.epochs):
            for which, rows in turns([len(member) for _, member in teachers], training.batch, rng):
                seen, member = teachers[which]
                loss = F.cross_entropy(network(seen[rows], noise), torch.from_numpy(member[rows].astype(np.int64)))
                adam.zero_grad()
                loss.backward()
                adam.step()
            if (now := _right(network, *check)) > best:
                best, scores = now, told(network, asked)
                continue
            adam.param_groups[0]["lr"] /= 2
            if adam.param_groups[0]["lr"] < training.slowest:
                break
    return (scores,)


def _shape(seen: Features) -> tuple:
    pairs = (part for pair in seen.gradients for part in pair)
    return tuple(part.shape[1:] for part in (seen.loss, *seen.outputs, *pairs))


def _right(network: Network, seen: Features, member: np.ndarray) -> float:
    """Share of records that the network calls right, "a member above one half"."""
    return float(np.mean((told(network, seen) > 0.5) == member))


def turns(counts: Sequence[int], batch: int, rng: np.random.Generator) -> Iterator[tuple[int, np.ndarray]]:
    """Batches of one epoch, (teacher, its record numbers): as many as the teacher with most records has.

    In each round every teacher is asked once, in an order of its own, about the next of its records, which are
    reshuffled each epoch.
    """
    own = [np.split(rng.permutation(count), range(batch, count, batch)) for count in counts]
    total = max(map(len, own))
    rounds = [rng.permutation(len(counts)) for _ in range(-(-total // len(counts)))]
    for at, which in enumerate(np.concatenate(rounds)[:total]):
        yield int(which), own[which][at // len(counts) % len(own[which])]


def told(network: Network, seen: Features) -> np.ndarray:
    """The network's P(member) of each record, float64 (n,)."""
    with torch.no_grad():
        parts = np.split(np.arange(len(seen.y)), range(CHUNK, len(seen.y), CHUNK))
        return np.concatenate([network(seen[rows]).softmax(1)[:, 1].numpy() for rows in parts]).astype(float)
