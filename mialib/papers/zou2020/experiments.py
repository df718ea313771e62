"""The experiments of Zou et al. 2020: students of one teacher, each attacked with the others as its shadows.

The paper beyond its abstract could not be had, so the protocol is ours. Students learn records of their own, none of
which another has seen; so any of them can be the target, and the others shadows by an attacker who has the teacher too.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import joblib
import numpy as np
import torch

from mialib import config, machine, papers, runs
from mialib.attacks import Attacked, Observations, baselines, classifiers, mlleaks, pool, shadow
from mialib.data.datasets import Dataset
from mialib.data.splits import Split
from mialib.models import nets, small, transfer
from mialib.models import targets as networks
from mialib.models.fit import Recipe
from mialib.models.modules import Descent
from mialib.models.transfer import Teacher

PAPER = "zou2020"
NAMES = {"caltech-101": "Caltech-101", "cifar-100": "CIFAR-100", "cifar-10": "CIFAR-10"}
NAMES |= {"fashion-mnist": "Fashion-MNIST", "": "none"}
LAST, FULL, NONE = TRANSFERS = ("last layer", "full fine-tuning", "no transfer")
CNN = "CNN"  # of two convolutions
POOLED = "flatten"  # the layer of a ResNet before its last
BATCH = 50  # of teachers and students
# At first, with batch normalisation and without. The second is the least of .005, .01, .02 and .05 by which one network
# from scratch classified all of 100, 1,000 and 2,500 records that it learnt: by train accuracy, before any attack.
RATES = {True: 0.05, False: 0.02}


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


def teach_all(
    loaded: dict[str, Dataset], pairs: Iterable[tuple[str, str]], profile: str, seed: int
) -> dict[tuple[str, str], Taught]:
    """`teach` each of `pairs`, kind of network and name of the data set, on all cores: one process each."""
    pairs, sizes = list(pairs), papers.sizes(PAPER)["teachers"][profile]
    longest = sorted(pairs, key=lambda pair: pair[0] == CNN and -sizes[pair[1]]["records"] * sizes[pair[1]]["epochs"])
    jobs = (joblib.delayed(teach)(loaded[name], profile, seed, kind) for kind, name in longest)
    found = dict(zip(longest, machine.parallel(jobs, min(len(pairs), config.workers())), strict=True))
    return {pair: found[pair] for pair in pairs}


def teach(data: Dataset, profile: str, seed: int, kind: str = CNN) -> Taught:
    """A teacher: a CNN is trained on the records that sizes.toml gives it, a ResNet is a target network of this room.

    The ResNet's weights are kept, and the same for every seed: `models.targets.load`, which says what is raised.
    """
    if kind == CNN:
        sizes, words = papers.sizes(PAPER)["teachers"][profile][data.name], (seed, PAPER, "teacher", data.name)
        rows, rest = np.split(runs.stream(*words).permutation(len(data.y)), [sizes["records"]])
        begun = transfer.fresh(network(data, profile), words)
        net = transfer.descend(begun, data.X[rows], data.y[rows], _descent(begun, sizes["epochs"]), words)
        return _graded(net, kind, data, rows, rest, sizes["epochs"])
    targets = papers.targets(profile, PAPER).items()
    [(name, target)] = [pair for pair in targets if (pair[1].dataset, pair[1].network) == (data.name, kind)]
    trained = networks.load(name, target, profile)
    net = Teacher(trained.net.to(memory_format=torch.channels_last), POOLED, data.X.shape[1:])
    rows, rest = (np.flatnonzero(side) for side in (trained.data.member, ~trained.data.member))
    return _graded(net, kind, replace(data, X=trained.data.X, y=trained.data.y), rows, rest, target.epochs)


def _graded(net: Teacher, kind: str, data: Dataset, rows: np.ndarray, rest: np.ndarray, epochs: int) -> Taught:
    """What `teach` says of a network that learnt `rows` of the data."""
    about = {"network": shown(kind), "data": NAMES[data.name], "tier": data.tier, "classes": data.classes}
    about |= {"records": len(rows), "epochs": epochs}
    for name, part in (("train_acc", rows[:5000]), ("test_acc", rest[:5000])):
        about[name] = float(np.mean(transfer.logits(net, data.X[part]).argmax(1) == data.y[part]))
    return Taught(net, data.tier, about)


def network(data: Dataset, profile: str, kind: str = CNN) -> Teacher:
    """A network of teachers and students, not trained: `CNN`, or one of `nets`, frozen up to its pooled features."""
    if kind != CNN:
        net = nets.make(kind, data.X.shape[1], data.classes).to(memory_format=torch.channels_last)
        return Teacher(net, POOLED, data.X.shape[1:])
    sizes = papers.sizes(PAPER)["network"][profile]
    return transfer.cnn(data.X.shape[1], data.classes, tuple(sizes["filters"]), sizes["hidden"], data.X.shape[2])


def shown(kind: str) -> str:
    """How tables name a kind of network."""
    return kind.replace("resnet", "ResNet")


def learn(jobs: Iterable[tuple[Teacher, np.ndarray, np.ndarray, int, tuple]]) -> list[Teacher]:
    """Train all layers of networks by `transfer.descend`, on all cores: one process each.

    A job is the network that is begun with, images and labels, epochs, seed words.
    """
    return transfer.descend_all((net, X, y, _descent(net, epochs), words) for net, X, y, epochs, words in jobs)


def _descent(net: Teacher, epochs: int) -> Descent:
    return Descent(epochs, RATES[transfer.normalises(net)], BATCH)


def drawn(row: Row, n: int, seed: int) -> list[Split]:
    """Members and non-members of each student, out of n records; ValueError where they are too few."""
    if (needed := 2 * row.size * row.count) > n:
        raise ValueError(f"{row.count} students of {row.size} records need {needed} records, there are {n}")
    order = runs.stream(seed, PAPER, "students", row.dataset, row.size).permutation(n)[:needed]
    return [Split(*halves) for halves in order.reshape(row.count, 2, row.size)]


def students(data: Dataset, teacher: Teacher, row: Row, seed: int) -> list[Observations]:
    """Train the students of a row, and ask each about its members and non-members (`drawn`): prediction vectors.

    teacher: for "no transfer" any network, for its architecture. ValueError as `drawn` and `transfer` raise it.
    """
    side = drawn(row, len(data.y), seed)
    if row.transfer != LAST:
        return own(learn(_jobs(data, teacher, row, seed, side)), data, side)
    used = np.concatenate([rows for split in side for rows in (split.members, split.non_members)])
    said = transfer.features(teacher, data.X[used])
    inputs = np.zeros((len(data.y), said.shape[1]), said.dtype)
    inputs[used] = said
    words, members = [_words(row, seed, i) for i in range(row.count)], [split.members for split in side]
    model, thetas = transfer.heads(inputs, data.y, data.classes, members, words, Recipe(row.epochs, BATCH))
    return [
        shadow.seen(lambda rows, theta=theta: small.softmax(small.logits(model, theta, inputs[rows])), data.y, split)
        for theta, split in zip(thetas, side, strict=True)
    ]


def own(models: list[Teacher], data: Dataset, side: list[Split]) -> list[Observations]:
    """What each model says of the records of its side, its members and others: prediction vectors."""
    return [
        shadow.seen(lambda rows, net=net: small.softmax(transfer.logits(net, data.X[rows])), data.y, split)
        for net, split in zip(models, side, strict=True)
    ]


def _jobs(data: Dataset, teacher: Teacher, row: Row, seed: int, side: list[Split]) -> Iterator[tuple]:
    """For `learn`: the students of a row whose whole network is trained."""
    for i, split in enumerate(side):
        words = _words(row, seed, i)
        begun = transfer.with_classes(teacher, data.classes, words)
        begun = transfer.fresh(begun, words) if row.transfer == NONE else begun
        yield begun, data.X[split.members], data.y[split.members], row.epochs, words


def _words(row: Row, seed: int, i: int) -> tuple:
    """Of the stream that a student draws from: the same for each kind, they differ in what they are given alone."""
    return seed, PAPER, "student", row.dataset, row.size, i


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
    return Attacked(about, [*map(shadow.accuracies, each)], each, answers, words)


def run_all(
    loaded: dict[str, Dataset], taught: dict[tuple[str, str], Taught], rows: Sequence[Row], profile: str, seed: int
) -> list[Attacked]:
    """Each row from end to end; loaded by name of the data set, taught by network and that name.

    Students whose whole network is trained come first, and are kept, the longest first: so that no core waits for the
    last one of a row. Then a process trains the last layers of a row, asks its students and attacks them.
    """
    blank = {row: network(loaded[row.dataset], profile, row.network) for row in rows if not row.teacher}
    begun = {row: blank.get(row) or taught[row.network, row.teacher].teacher for row in rows}
    sides = {row: drawn(row, len(loaded[row.dataset].y), seed) for row in rows}  # refused before any is trained
    longest = sorted(rows, key=lambda row: (row.network == CNN, -row.size * row.epochs))
    jobs = (_jobs(loaded[row.dataset], begun[row], row, seed, sides[row]) for row in longest if row.transfer != LAST)
    learn(itertools.chain.from_iterable(jobs))
    tasks = {}
    for row in sorted(rows, key=lambda row: -row.size * row.count**2):  # the records that attacks learn
        data, of = loaded[row.dataset], taught.get((row.network, row.teacher))
        data = replace(data, tier=max(data.tier, of.tier if of else data.tier, key="RSM".index))
        tasks[row] = joblib.delayed(machine.alone)(_attacked, data, begun[row], row, seed)
    found = dict(zip(tasks, machine.parallel(tasks.values(), min(len(rows), config.workers())), strict=True))
    return [found[row] for row in rows]


def _attacked(data: Dataset, teacher: Teacher, row: Row, seed: int) -> Attacked:
    return attack(data, students(data, teacher, row, seed), row, seed)
