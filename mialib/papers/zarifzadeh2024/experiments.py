"""The experiments of Zarifzadeh et al. 2024 (RMIA), Fig 12 and Table 9: models in pairs, each attacked by the others.

A pair's second model is trained on what its first is not, so of any pair one model is IN and one OUT for every record
(as Carlini et al. 2022, VI-A, let every record be in half of the models). References are taken by whole pairs.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from mialib import config, papers, runs, work
from mialib.attacks import quantile, references
from mialib.data.datasets import Dataset
from mialib.models import fit, modules, small, transfer

PAPER = "zarifzadeh2024"
NAMES = {"location-30": "Location", "cifar-10": "CIFAR-10"}
SIGNALS = {"phi": references.phi, "taylor": references.taylor}
GAMMA = 2.0  # of RMIA, as in the paper's experiments
SHIFT = 1  # pixels: no model here has learnt from shifted images


@dataclass(frozen=True)
class Row:
    """The models of one data set: see sizes.toml."""

    dataset: str
    records: int
    pairs: int
    targets: int
    hidden: int
    epochs: int
    a: float
    signal: str
    filters: tuple[int, int] = (16, 16)
    batch: int = 100
    rate: float = 1e-3  # of Adam (tables), of gradient descent with momentum (images)
    few: str = ""  # of a row with few records: what stands behind the name of its data set

    @property
    def name(self) -> str:
        """What tables call it."""
        return NAMES[self.dataset] + self.few


@dataclass(frozen=True)
class Answers:
    """What all models say of all records that a row draws."""

    row: Row
    tier: str
    logits: np.ndarray  # (models, records, 1, classes) float32; models 2 i and 2 i + 1 are a pair
    member: np.ndarray  # (models, records) bool
    y: np.ndarray  # (records,)


def settings(profile: str) -> tuple[Row, ...]:
    """The rows of sizes.toml in `profile`."""
    config.check_profile(profile)
    rows = papers.sizes(PAPER)["models"][profile]
    return tuple(Row(**{key: tuple(v) if isinstance(v, list) else v for key, v in row.items()}) for row in rows)


def networks(profile: str, table: str = "networks") -> tuple[Row, ...]:
    """More networks for CIFAR-10, of a table of sizes.toml: "networks" (wider ones) or "sweep" (many, small ones)."""
    config.check_profile(profile)
    first = next(row for row in settings(profile) if row.dataset == "cifar-10")
    others = papers.sizes(PAPER)[table][profile]
    return tuple(replace(first, **each | {"filters": tuple(each["filters"])}) for each in others)


def drawn(row: Row, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of n records a row takes, (records,), and which model is trained on which of them, bool (models, records).

    ValueError where n are too few, or the records are no even number.
    """
    if not 2 <= row.records <= n or row.records % 2:
        raise ValueError(f"{row.dataset}: {row.records} records of {n} cannot be halved")
    rows = runs.stream(seed, PAPER, row.dataset, row.records).permutation(n)[: row.records]
    first = np.arange(row.records) < row.records // 2
    streams = [runs.stream(seed, PAPER, row.dataset, row.records, "pair", i) for i in range(row.pairs)]
    halves = [stream.permutation(first) for stream in streams]
    return rows, np.concatenate([(half, ~half) for half in halves])


def train(data: Dataset, row: Row, seed: int) -> Answers:
    """Train all models of a row, and ask each about every record: about the record itself, no augmentations of it."""
    rows, member = drawn(row, data.X.shape[0], seed)
    X, y = data.X[rows], data.y[rows]
    if X.ndim > 2:
        return Answers(row, data.tier, _asked(convolutional(data, row, seed), X, often=False), member, y)
    model, recipe = small.MLP((X.shape[1], row.hidden, data.classes)), fit.Recipe(row.epochs, row.batch, row.rate)
    words = [(seed, PAPER, row.dataset, i) for i in range(len(member))]
    thetas = fit.fit_many(model, recipe, X, y, list(map(np.flatnonzero, member)), words)
    logits = np.stack([small.logits(model, theta, X) for theta in thetas])[:, :, None]
    return Answers(row, data.tier, logits, member, y)


def convolutional(data: Dataset, row: Row, seed: int) -> list[nn.Sequential]:
    """The trained models of a row of images: two convolutions of `row.filters`, ReLU, no dropout.

    The paper names a CNN-16 and does not describe it; this is the smallest network that could be meant.
    """
    rows, member = drawn(row, data.X.shape[0], seed)
    descent, jobs = modules.Descent(row.epochs, row.rate, row.batch), []
    for i, half in enumerate(member):
        words = (seed, PAPER, row.dataset, i)
        net = modules.cnn(data.X.shape[1:], data.classes, row.filters, row.hidden, 0.0, words)
        jobs.append((net, data.X[rows[half]], data.y[rows[half]], descent, words))
    return modules.train_all(jobs)


def queried(data: Dataset, answers: Answers, seed: int) -> Answers:
    """The same models asked about `augmented` images: logits (models, records, 18, classes), the record itself first.

    data, seed: those of `train`, whose models are kept.
    """
    X = data.X[drawn(answers.row, data.X.shape[0], seed)[0]]
    return replace(answers, logits=_asked(convolutional(data, answers.row, seed), X, often=True))


def _asked(nets: list[nn.Sequential], X: np.ndarray, often: bool) -> np.ndarray:
    """Logits (models, records, queries, classes) of images, kept: of each one alone, or `often` of all `augmented`."""
    weights = [{name: tensor.numpy() for name, tensor in net.state_dict().items()} for net in nets]
    jobs = [(net, X, often) for net in nets]
    found = work.every(_ask, jobs, list(map(str, nets)), weights, X, often, runs.versions("numpy", "torch"))
    return np.stack([logits for (logits,) in found])


def _ask(net: nn.Sequential, X: np.ndarray, often: bool) -> tuple[np.ndarray]:
    teacher = transfer.Teacher(net, "fc2", X.shape[1:])
    return (np.stack([transfer.logits(teacher, images) for images in (augmented(X) if often else [X])], axis=1),)


def augmented(X: np.ndarray) -> Iterator[np.ndarray]:
    """Images (n, channels, height, width) as they are and mirrored, each also shifted by SHIFT in 8 directions: 18.

    As many as the paper asks; what they are is our choice, with pixels from outside those reflected at the edge.
    """
    padded = np.pad(X, ((0, 0), (0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)), mode="reflect")
    height, width = X.shape[2:]
    steps = itertools.product(range(-SHIFT, SHIFT + 1, SHIFT), repeat=2)
    for down, right in sorted(steps, key=lambda at: at != (0, 0)):
        moved = padded[:, :, SHIFT - down : SHIFT - down + height, SHIFT - right : SHIFT - right + width]
        yield from (np.ascontiguousarray(moved), np.ascontiguousarray(moved[..., ::-1]))


def learnt(answers: Answers) -> dict[str, np.ndarray]:
    """train_acc and test_acc of every model, (models,)."""
    right = answers.logits[:, :, 0].argmax(-1) == answers.y
    sides = {"train_acc": answers.member, "test_acc": ~answers.member}
    return {name: (right & side).sum(1) / side.sum(1) for name, side in sides.items()}


def numbers(row: Row) -> list[int]:
    """How many references the attacks have: 2, 4, 8, … up to all but the target's own pair."""
    return [2**i for i in range(1, row.pairs.bit_length() + 1) if 2**i <= 2 * (row.pairs - 1)]


def targets(row: Row) -> list[int]:
    """The models that are attacked: first ones of pairs, then second ones. ValueError where there are too few."""
    if not 1 <= row.targets <= 2 * row.pairs:
        raise ValueError(f"{row.dataset}: {row.targets} targets of {2 * row.pairs} models")
    return [*range(0, 2 * row.pairs, 2), *range(1, 2 * row.pairs, 2)][: row.targets]


def others(row: Row, target: int, count: int) -> list[int]:
    """`count` references of a target: whole pairs, beginning with the one after its own, around."""
    pairs = [(target // 2 + i) % row.pairs for i in range(1, count // 2 + 1)]
    return [model for pair in pairs for model in (2 * pair, 2 * pair + 1)]


def attack(answers: Answers, target: int, count: int) -> dict[str, np.ndarray]:
    """Scores (records,) of every attack on one target with `count` references; with none, Attack-P alone.

    LiRA with a variance of each record's own needs two models a side, so four references. RMIA's population is all
    non-members of the target, as in the paper, and so is Attack-P's. Nothing is chosen by a score.
    """
    row, member = answers.row, answers.member
    models = [target, *others(row, target, count)]
    population = ~member[target]
    plain, ratio = (SIGNALS[name](answers.logits[models], answers.y) for name in ("phi", row.signal))
    if not count:
        return {"Attack-P": references.attack_p(plain[0], population)}
    given, of_rmia = ((signal[0], signal[1:], member[models[1:]]) for signal in (plain, ratio))
    attacks: dict[str, Callable[[], np.ndarray]] = {
        "Attack-R": lambda: references.attack_r(*given),
        "LiRA offline, fixed": lambda: references.lira(*given, online=False, fixed=True),
        "LiRA online, fixed": lambda: references.lira(*given, online=True, fixed=True),
        "RMIA offline": lambda: references.rmia(*of_rmia, population, row.a, GAMMA),
        "RMIA online": lambda: references.rmia(*of_rmia, population, None, GAMMA),
    }
    if count >= 4:
        attacks |= {
            "LiRA offline": lambda: references.lira(*given, online=False),
            "LiRA online": lambda: references.lira(*given, online=True),
        }
    return {name: of() for name, of in attacks.items()}


def quantiles(data: Dataset, answers: Answers, seed: int) -> list[np.ndarray]:
    """Scores (records,) of quantile regression, which needs no reference, on each target."""
    row, chosen = answers.row, targets(answers.row)
    rows, _ = drawn(row, data.X.shape[0], seed)
    X, signal = data.X[rows], [quantile.margin(answers.logits[target, :, 0], answers.y) for target in chosen]
    words = [(seed, PAPER, row.dataset, target) for target in chosen]
    jobs = [(signal[i], X, answers.y, answers.member[target], words[i]) for i, target in enumerate(chosen)]
    found = work.every(
        _quantile, jobs, X, answers.y, signal, answers.member[chosen], words, runs.versions("scikit-learn")
    )
    return [score for (score,) in found]


def _quantile(*given) -> tuple[np.ndarray]:
    return (quantile.score(*given),)
