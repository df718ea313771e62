"""The experiments of Zou et al. 2020: students of one teacher, each attacked with the others as its shadows.

The paper beyond its abstract could not be had, so the protocol is ours. Students learn records of their own, none of
which another has seen; so any of them can be the target, and the others shadows by an attacker who has the teacher too.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from mialib import config, papers, runs
from mialib.attacks import Attacked, Observations, baselines, classifiers, mlleaks, pool, shadow, signals
from mialib.data import caltech, datasets
from mialib.data.datasets import Dataset
from mialib.data.splits import Split
from mialib.models import nets, small, transfer
from mialib.models.fit import Recipe
from mialib.models.modules import Descent
from mialib.models.transfer import Teacher

PAPER = "zou2020"
NAMES = {"caltech-101": "Caltech-101", "cifar-100": "CIFAR-100", "cifar-10": "CIFAR-10", "mnist": "MNIST", "": "none"}
LAST, FULL, NONE = TRANSFERS = ("last layer", "full fine-tuning", "no transfer")
CNN = "CNN"  # of two convolutions
BATCH = 50  # of teachers and students
RATE = 0.05  # at first, of networks with batch normalisation


@dataclass(frozen=True)
class Row:
    """Students of one kind and size: see sizes.toml. ValueError for an unknown transfer, or one without its teacher."""

    dataset: str
    teacher: str  # the data set that it learnt; none: ""
    transfer: str
    size: int
    epochs: int
    count: int
    network: str = CNN

    def __post_init__(self) -> None:
        if self.transfer not in TRANSFERS:
            raise ValueError(f"unknown transfer {self.transfer!r}; valid: {', '.join(TRANSFERS)}")
        if bool(self.teacher) == (self.transfer == NONE):
            raise ValueError(f"{self.transfer!r} with teacher {self.teacher!r}: only {NONE!r} goes without a teacher")
        if self.count < 2:
            raise ValueError(f"{self.count} student: it takes a second one as shadow")


@dataclass(frozen=True)
class Taught:
    """A teacher, and how well it learnt: on its own records and on the rest of its data set."""

    teacher: Teacher
    tier: str
    about: dict[str, str | int | float]


def settings(profile: str) -> tuple[Row, ...]:
    """The students of sizes.toml in `profile`."""
    config.check_profile(profile)
    return tuple(Row(**row) for row in papers.sizes(PAPER)["students"][profile])


def load(name: str, profile: str) -> Dataset:
    """A data set by name, Caltech-101 among them.

    In demo the stand-in of CIFAR-100 is mirrored: CIFAR-10's has the same digits, and no teacher saw its students'.
    MNIST's images are made as large as CIFAR-10's, in three channels of the same grey.
    """
    if name == caltech.NAME:
        return caltech.load(profile)
    data = datasets.load(name, profile)
    if name == "mnist":
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


def teach(data: Dataset, profile: str, seed: int, kind: str = CNN) -> Taught:
    """Train a teacher of this kind of network on the records that sizes.toml gives it."""
    sizes = papers.sizes(PAPER)["teachers" if kind == CNN else "resnet_teachers"][profile][data.name]
    order = runs.stream(seed, PAPER, "teacher", data.name).permutation(len(data.y))
    rows, rest = order[: sizes["records"]], order[sizes["records"] :][:5000]
    words = (seed, PAPER, "teacher", data.name)
    net = transfer.fresh(network(data, profile, kind), words)
    net = learn(net, data.X[rows], data.y[rows], sizes["epochs"], words)
    right = [np.mean(transfer.logits(net, data.X[of]).argmax(1) == data.y[of]) for of in (rows[:5000], rest)]
    about = {"network": shown(kind), "data": NAMES[data.name], "tier": data.tier, "classes": data.classes} | sizes
    return Taught(net, data.tier, about | {"train_acc": float(right[0]), "test_acc": float(right[1])})


def network(data: Dataset, profile: str, kind: str = CNN) -> Teacher:
    """A network of teachers and students, not trained: `CNN`, or one of `nets`, frozen up to its pooled features."""
    if kind != CNN:
        net = nets.make(kind, data.X.shape[1], data.classes).to(memory_format=torch.channels_last)
        return Teacher(net, "flatten", data.X.shape[1:])
    sizes = papers.sizes(PAPER)["network"][profile]
    return transfer.cnn(data.X.shape[1], data.classes, tuple(sizes["filters"]), sizes["hidden"], data.X.shape[2])


def shown(kind: str) -> str:
    """How tables name a kind of network."""
    return kind.replace("resnet", "ResNet")


def normalises(teacher: Teacher) -> bool:
    """Whether the network has batch normalisation, and so is trained in another way, and in fewer epochs."""
    return any(isinstance(layer, nn.BatchNorm2d) for layer in teacher.net.modules())


def learn(begun: Teacher, X: np.ndarray, y: np.ndarray, epochs: int, words: tuple) -> Teacher:
    """Train all layers: by Adam, or with batch normalisation by `transfer.descend`, in the machine's precision."""
    if normalises(begun):
        return transfer.descend(begun, X, y, Descent(epochs, RATE, BATCH), words)
    return transfer.train(begun, X, y, Recipe(epochs, BATCH), words)


def drawn(row: Row, n: int, seed: int) -> list[Split]:
    """Members and non-members of each student, out of n records; ValueError where they are too few."""
    if (needed := 2 * row.size * row.count) > n:
        raise ValueError(f"{row.count} students of {row.size} records need {needed} records, there are {n}")
    order = runs.stream(seed, PAPER, "students", row.dataset, row.size).permutation(n)[:needed]
    return [Split(*halves) for halves in order.reshape(row.count, 2, row.size)]


def students(
    data: Dataset, teacher: Teacher, row: Row, seed: int, side: list[Split] | None = None
) -> list[Observations]:
    """Train the students of a row, and ask each about its members and non-members: prediction vectors.

    teacher: for "no transfer" any network, of which the architecture alone is used; side: who learns what, by default
    `drawn`. ValueError where a record is on two sides, and as `transfer` raises it.
    """
    side = drawn(row, len(data.y), seed) if side is None else side
    transfer.check_apart(side)
    # What a student draws is the same for each kind of it: they differ in what they are given alone.
    words = [(seed, PAPER, "student", data.name, row.size, i) for i in range(len(side))]
    if row.transfer == LAST:
        inputs, recipe = transfer.features(teacher, data.X), Recipe(row.epochs, BATCH)
        model, thetas = transfer.heads(inputs, data.y, data.classes, [s.members for s in side], words, recipe)
        answers = [lambda rows, theta=theta: small.logits(model, theta, inputs[rows]) for theta in thetas]
    else:
        nets = [_student(teacher, data, row, split, word) for split, word in zip(side, words, strict=True)]
        answers = [lambda rows, net=net: transfer.logits(net, data.X[rows]) for net in nets]
    return [
        shadow.seen(lambda rows, answer=answer: small.softmax(answer(rows)), data.y, split)
        for answer, split in zip(answers, side, strict=True)
    ]


def _student(teacher: Teacher, data: Dataset, row: Row, split: Split, words: tuple) -> Teacher:
    begun = transfer.with_classes(teacher, data.classes, words)
    begun = transfer.fresh(begun, words) if row.transfer == NONE else begun
    return learn(begun, data.X[split.members], data.y[split.members], row.epochs, words)


def attack(data: Dataset, each: list[Observations], row: Row, seed: int) -> Attacked:
    """Attack every student, all others being the attacker's: they know of theirs who is a member.

    ML-Leaks' adversary 1, one network a class ("nn"), the threshold a class, and gap, which needs no shadow.
    """
    words = (seed, PAPER, data.name, row.teacher, row.transfer, row.size)
    answers: dict[str, list] = {name: [] for name in (mlleaks.ADVERSARY_1, "nn", "threshold", "gap")}
    for i, target in enumerate(each):
        known = pool(each[:i] + each[i + 1 :])
        answers[mlleaks.ADVERSARY_1] += mlleaks.adversary_1(known, [target], (*words, i))
        answers["nn"] += classifiers.attack("nn", known, [target], (*words, i))
        answers["threshold"].append(baselines.confidence_threshold(known, target))
        answers["gap"].append(baselines.gap(target))
    about = {"dataset": NAMES[row.dataset], "teacher": NAMES[row.teacher], "setting": row.transfer, "size": row.size}
    about |= {"network": shown(row.network), "epochs": row.epochs, "students": len(each), "tier": data.tier}
    return Attacked(about, [_accuracies(seen) for seen in each], each, answers, words)


def _accuracies(seen: Observations) -> dict[str, float]:
    right = signals.correct(seen.vectors, seen.y)
    return {"train_acc": right[seen.member].mean(), "test_acc": right[~seen.member].mean()}


def run(
    loaded: dict[str, Dataset], taught: dict[tuple[str, str], Taught], row: Row, profile: str, seed: int
) -> Attacked:
    """A row from end to end; loaded by name of the data set, taught by network and that name."""
    data = loaded[row.dataset]
    of = taught[row.network, row.teacher] if row.teacher else None
    teacher = of.teacher if of else network(data, profile, row.network)
    attacked = attack(data, students(data, teacher, row, seed), row, seed)
    tiers = [data.tier, *([of.tier] if of else [])]
    return replace(attacked, about=attacked.about | {"tier": max(tiers, key="RSM".index)})
