"""The experiments of Choquette-Choo et al. 2021: targets whose labels alone are seen, and what defences of vectors do.

As in the paper, the attacker has records of the same kind and trains one *shadow* (its "source model") as the target
was trained. That the shadow's answers are defended as the target's are is our choice. She sets thresholds, noise and
networks on the shadow, and is then asked about the target.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import nn

from mialib import config, papers, runs, work
from mialib.attacks import (
    Attacked,
    Observations,
    baselines,
    boundary,
    classifiers,
    defenses,
    hopskipjump,
    label_only,
    memguard,
)
from mialib.data.datasets import Dataset
from mialib.data.splits import Split, targets_and_shadows
from mialib.models import fit, small

PAPER = "choquette2021"
NAMES = {"location-30": "Location", "adult": "Adult", "mnist": "MNIST", "cifar-10": "CIFAR-10"}
DEGREES, PIXELS = 4, 1  # the paper's best on CIFAR-10, Fig 2
UNDEFENDED = "full vector"
DEFENCES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    UNDEFENDED: defenses.none,
    "top 3 classes": lambda logits: defenses.top_k(logits, min(3, logits.shape[1])),
    "top class": partial(defenses.top_k, k=1),
    "rounded to 1 digit": partial(defenses.rounded, digits=1),
    "label only": defenses.label_only,
}
GUARDED, BUDGET = "MemGuard", 1.0  # its largest expected L1 distortion, as in notebook 32
STARTS = 50  # records that HopSkipJump may start from
VECTORS = "confidence vectors"  # the attack of Shokri et al. 2017
AUGMENTED = {"rotations": ("rotations",), "translations": ("translations",), "both": ("rotations", "translations")}


@dataclass(frozen=True)
class Row:
    """The targets of one data set and size: see sizes.toml."""

    dataset: str
    size: int
    targets: int
    hidden: tuple[int, ...]
    epochs: int
    copies: int
    noise: tuple[tuple[float, float], ...]
    filters: tuple[int, int] | None = None
    distances: int = 0
    batch: int = 100


@dataclass(frozen=True)
class Hops:
    """Of which targets HopSkipJump is run on how many members, and as many others: see sizes.toml."""

    dataset: str
    size: int
    records: int
    queries: int


@dataclass(frozen=True)
class Trained:
    """The models of a row: the shadow first, then the targets."""

    data: Dataset
    row: Row
    model: small.Model
    thetas: np.ndarray
    sides: list[Split]
    words: tuple

    @property
    def told(self) -> dict:
        """What every table says of them."""
        row = self.row
        return {"dataset": NAMES[row.dataset], "size": row.size, "shadows": 1, "tier": self.data.tier}


@dataclass(frozen=True)
class Seen:
    """What one model gave away: members and non-members in turn, so that any beginning is half of each."""

    logits: np.ndarray  # (n, classes)
    y: np.ndarray  # (n,)
    bits: dict[str, np.ndarray]  # "rotations", "translations" -> bool (defences, n, queries); none for tables
    robust: np.ndarray  # (noises, defences, n): share of noisy copies that are right
    distance: np.ndarray  # (k,): to the boundary, of the first k = 2 distances records

    @property
    def member(self) -> np.ndarray:
        """Every second record, the first one included."""
        return np.arange(len(self.y)) % 2 == 0


def settings(profile: str) -> tuple[Row, ...]:
    """The rows of sizes.toml in `profile`."""
    config.check_profile(profile)
    rows = papers.sizes(PAPER)["networks"][profile]
    frozen = [{k: tuple(map(_frozen, v)) if isinstance(v, list) else v for k, v in row.items()} for row in rows]
    return tuple(Row(**row) for row in frozen)


def hops(profile: str) -> tuple[Hops, ...]:
    """Where HopSkipJump is run, in `profile`."""
    config.check_profile(profile)
    return tuple(Hops(**row) for row in papers.sizes(PAPER)["hops"][profile])


def _frozen(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def architecture(data: Dataset, row: Row) -> small.Model:
    """An MLP for tables, and for images the CNN of Shokri et al. (the paper's has four convolutions)."""
    if row.filters:
        return small.CNN(data.X.shape[1:], data.classes, *row.hidden, row.filters)
    return small.MLP((data.X.shape[1], *row.hidden, data.classes))


def images(data: Dataset) -> Dataset:
    """MNIST's rows of numbers of 0..1 as images, uint8 (n, 1, side, side); other sets as they are.

    The digits of 8 by 8 that stand in for them in `demo` are enlarged four times, or the CNN would not take them.
    """
    if data.name != "mnist":
        return data
    side = math.isqrt(data.X.shape[1])
    pixels = (data.X * 255).round().astype(np.uint8).reshape(-1, 1, side, side)
    return replace(data, X=np.kron(pixels, np.ones((4, 4), np.uint8)) if side < 28 else pixels)


def train(data: Dataset, row: Row, seed: int) -> Trained:
    """Train the targets of a row and the shadow; kept. ValueError as `targets_and_shadows` raises it."""
    data, words = images(data), (seed, PAPER, row.dataset, row.size)
    targets, shadow = targets_and_shadows(len(data.y), row.size, row.targets, 1, seed, f"{PAPER} {data.name}")
    model, both = architecture(data, row), [*shadow, *targets]
    members, streams = [split.members for split in both], [(*words, i) for i in range(len(both))]
    thetas = fit.fit_many(model, fit.Recipe(row.epochs, row.batch), data.X, data.y, members, streams)
    return Trained(data, row, model, thetas, both, words)


def attack(data: Dataset, row: Row, seed: int) -> list[Attacked]:
    """All targets of a row under each of DEFENCES and MemGuard; "setting" says which.

    Attacks are "gap", VECTORS, on images those of AUGMENTED, and "noise", all on the same records; "distance", once, on
    the first `distances` of both sides (an Attacked of its own). flip and sigma: the noise that the shadow chose.
    ValueError as `train` raises it, and where more distances are to be measured than there are records.
    """
    if row.distances > row.size:
        raise ValueError(f"{row.dataset}: {row.distances} of {row.size} members cannot be asked about")
    trained = train(data, row, seed)
    data, model, words = trained.data, trained.model, trained.words
    [known] = observe(model, trained.thetas[:1], data, trained.sides[:1], row, row.noise, words)
    chosen = choose(known)
    about = (row, (row.noise[chosen],), (*words, "target"))
    found = observe(model, trained.thetas[1:], data, trained.sides[1:], *about)
    known = replace(known, robust=known.robust[[chosen]])
    flip, sigma = row.noise[chosen]
    told = trained.told | {"flip": flip, "sigma": sigma}
    attacked = [_attacked(known, found, at, told, words) for at in range(len(DEFENCES))]
    guarded = _guarded(trained, known, found, attacked[0])
    return [*attacked, guarded, *_with_distances(known, found, told, words)]


def hop(data: Dataset, row: Row, how: Hops, seed: int) -> Attacked:
    """HopSkipJump's distances ("hops") as scores, as for "distance", and the threshold is the shadow's alike.

    Of each side the first records are asked about. Where noise does not do, the walk starts from one of STARTS other
    records of the attacker's. ValueError as `train` raises it, and for more records than there are.
    """
    if how.records > row.size:
        raise ValueError(f"{row.dataset}: {how.records} of {row.size} members cannot be asked about")
    trained = train(data, row, seed)
    jobs, own = [], trained.sides[0].non_members[how.records :][:STARTS]
    for i, (theta, split) in enumerate(zip(trained.thetas, trained.sides, strict=True)):
        rows = np.stack([split.members[: how.records], split.non_members[: how.records]], axis=1).ravel()
        words = (*trained.words, "hops", i)
        given = trained.data.X[rows], trained.data.y[rows], trained.data.X[own]
        jobs.append((trained.model, theta, *given, how.queries, words))
    answers = work.every(_hopped, jobs, jobs, runs.versions("numpy", "torch"), undefined=True)
    member, ys = np.arange(2 * how.records) % 2 == 0, [job[3] for job in jobs]
    mine, *theirs = (label_only.away(d, logits.argmax(1) == y) for (logits, d), y in zip(answers, ys, strict=True))
    asked = [Observations(small.softmax(logits), y, member) for (logits, _), y in zip(answers[1:], ys[1:], strict=True)]
    results = [label_only.by_threshold(mine, member, score) for score in theirs]
    accuracies = [_rates(logits, y, member) for (logits, _), y in zip(answers[1:], ys[1:], strict=True)]
    told = trained.told | {"setting": UNDEFENDED}
    return Attacked(told, accuracies, asked, {"hops": results}, (*trained.words, "hops"))


def _hopped(
    model: small.Model, theta: np.ndarray, X: np.ndarray, y: np.ndarray, own: np.ndarray, queries: int, words: tuple
) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and distances in units of pixels of 0..1."""
    network, (pixels, others) = Network(model, theta), (each.astype(np.float32) / 255 for each in (X, own))

    def labels(points: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(np.ascontiguousarray(points))).argmax(1).numpy()

    with small.one_thread():
        found = hopskipjump.distances(labels, pixels, y, queries, runs.stream(*words), others=others)
    return small.logits(model, theta, X), found


def choose(known: Seen) -> int:
    """Which noise tells the shadow's members apart best at its best threshold, undefended; the first among equals."""
    member, found = known.member, []
    for [share, *_] in known.robust:
        called = share >= baselines.best_threshold(share, member)
        found.append(called[member].mean() - called[~member].mean())
    return int(np.argmax(found))


def _attacked(known: Seen, found: list[Seen], at: int, told: dict, words: tuple) -> Attacked:
    name, defence = list(DEFENCES.items())[at]
    shadow, asked = _given(known, defence), [_given(seen, defence) for seen in found]
    answers = {"gap": [baselines.gap(each) for each in asked]}
    answers[VECTORS] = classifiers.attack("nn", shadow, asked, (*words, name))
    for label, parts in AUGMENTED.items() if known.bits else ():
        mine, *theirs = (np.hstack([seen.bits[part][at] for part in parts]) for seen in (known, *found))
        about = (mine, known.y, known.member)
        how = shadow.vectors.shape[1], (*words, label)  # the same bits give the same network, whatever the defence
        answers[label] = [label_only.by_network(about, b, seen.y, *how) for b, seen in zip(theirs, found, strict=True)]
    noise = [label_only.by_threshold(known.robust[0, at], known.member, seen.robust[0, at]) for seen in found]
    return Attacked(told | {"setting": name}, _learnt(found), asked, answers | {"noise": noise}, words)


def _guarded(trained: Trained, known: Seen, found: list[Seen], plain: Attacked) -> Attacked:
    """Under MemGuard: VECTORS anew; what sees labels alone is as undefended, `plain`, as MemGuard keeps labels.

    Each owner's classifier learns from her members and from as many records that are on no side of her model, or as
    there are of these. The shadow's may be records that the targets are asked about, members and others alike.
    """
    data, words, logits, member = trained.data, (*trained.words, GUARDED), [], []
    for i, (theta, split) in enumerate(zip(trained.thetas, trained.sides, strict=True)):
        rest = np.setdiff1d(np.arange(len(data.y)), np.concatenate([split.members, split.non_members]))
        own = runs.stream(*words, "own", i).permutation(rest)[: len(split.members)]
        logits.append(fit.ask(trained.model, theta, data.X[np.concatenate([split.members, own])]))
        member.append(np.arange(len(split.members) + len(own)) < len(split.members))
    guards = memguard.guard(logits, member, words)
    everyone = (known, *found)
    pairs = enumerate(zip(everyone, guards, strict=True))
    jobs = [(seen.logits, of, BUDGET, (*words, i)) for i, (seen, of) in pairs]
    vectors = work.every(_defended, jobs, jobs, runs.versions("numpy", "torch"))
    shadow, *asked = (Observations(of, s.y, s.member) for s, (of,) in zip(everyone, vectors, strict=True))
    answers = plain.answers | {VECTORS: classifiers.attack("nn", shadow, asked, words)}
    return Attacked(plain.about | {"setting": GUARDED}, plain.accuracies, asked, answers, words)


def _defended(logits: np.ndarray, theta: np.ndarray, budget: float, words: tuple) -> tuple[np.ndarray]:
    return (memguard.defend(logits, theta, budget, runs.stream(*words)),)


def _with_distances(known: Seen, found: list[Seen], told: dict, words: tuple) -> list[Attacked]:
    """One Attacked by distance, of as many records as have one; none where no record has."""
    count = len(found[0].distance)
    if not count:
        return []
    mine, *theirs = (
        label_only.away(seen.distance, seen.logits[: len(seen.distance)].argmax(1) == seen.y[: len(seen.distance)])
        for seen in (known, *found)
    )
    member = known.member[: len(mine)]
    asked = [Observations(small.softmax(s.logits[:count]), s.y[:count], s.member[:count]) for s in found]
    answers = {"distance": [label_only.by_threshold(mine, member, score) for score in theirs]}
    return [Attacked(told | {"setting": UNDEFENDED}, _learnt(found), asked, answers, (*words, "distance"))]


def _given(seen: Seen, defence: Callable[[np.ndarray], np.ndarray]) -> Observations:
    return Observations(defence(seen.logits), seen.y, seen.member)


def _learnt(found: list[Seen]) -> list[dict[str, float]]:
    return [_rates(seen.logits, seen.y, seen.member) for seen in found]


def _rates(logits: np.ndarray, y: np.ndarray, member: np.ndarray) -> dict[str, float]:
    right = logits.argmax(1) == y
    return {"train_acc": float(right[member].mean()), "test_acc": float(right[~member].mean())}


# --- asking the models ----------------------------------------------------------------------------------------------


def observe(
    model: small.Model, thetas: np.ndarray, data: Dataset, side: list[Split], row: Row, noises: tuple, words: tuple
) -> list[Seen]:
    """Ask each model of a side about its records, changed and unchanged; kept, one process a model."""
    binary = np.zeros(data.X.shape[1:], bool)
    if not row.filters:
        binary = ((data.X == 0) | (data.X == 1)).all(0)
    jobs, ys = [], []
    for i, (theta, split) in enumerate(zip(thetas, side, strict=True)):
        count = min(len(split.members), len(split.non_members))
        rows = np.stack([split.members[:count], split.non_members[:count]], axis=1).ravel()
        jobs.append((model, theta, data.X[rows], data.y[rows], binary, row, noises, (*words, i)))
        ys.append(data.y[rows])
    about = (data.digest, model, thetas, row, noises, words, runs.versions("numpy", "scipy", "torch"))
    answers = work.every(_asked, jobs, *about, undefined=True)
    return [_seen(y, *answer) for y, answer in zip(ys, answers, strict=True)]


def _seen(y: np.ndarray, logits: np.ndarray, robust: np.ndarray, distance: np.ndarray, *bits: np.ndarray) -> Seen:
    return Seen(logits, y, dict(zip(("rotations", "translations"), bits, strict=False)), robust, distance)


def _asked(
    model: small.Model, theta: np.ndarray, X: np.ndarray, y: np.ndarray, binary: np.ndarray, row: Row, noises: tuple,
    words: tuple,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    """The arrays of a `Seen` but for y: logits, robust, distance and, of images, the bits."""
    near, robust = slice(0, 2 * row.distances), []
    for flip, sigma in noises:
        queries = label_only.disturbed(X, binary, flip, sigma, row.copies, runs.stream(*words, "noise"))
        robust.append(label_only.share(answer(model, theta), queries, y))
    distance, bits = np.zeros(0), []
    if row.distances:
        pixels = torch.from_numpy(X[near].astype(np.float32) / 255)
        distance = boundary.distances(Network(model, theta), pixels, torch.from_numpy(y[near]), "minimal").distance
    if row.filters:
        for queries in (label_only.rotated(X, DEGREES), label_only.translated(X, PIXELS)):
            bits.append(label_only.right(answer(model, theta), queries, y))
    return small.logits(model, theta, X), np.stack(robust), distance, *bits


def answer(model: small.Model, theta: np.ndarray) -> label_only.Answer:
    """The labels that a model gives out under each of DEFENCES: records (n, …) -> (defences, n)."""

    def labels(X: np.ndarray) -> np.ndarray:
        logits = small.logits(model, theta, X)
        return np.stack([defence(logits).argmax(1) for defence in DEFENCES.values()])

    return labels


class Network(nn.Module):
    """A trained `small.CNN` on pixels of 0..1, (n, channels, height, width), as `boundary.distances` takes networks."""

    def __init__(self, model: small.CNN, theta: np.ndarray) -> None:
        super().__init__()
        self.layers = small.layers(model, torch.from_numpy(theta.copy()))
        self.eval()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return small.image_logits(self.layers, pixels * 255)
