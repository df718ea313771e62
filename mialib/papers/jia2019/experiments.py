"""Mitigations against attacks, all of them on targets of one kind: what defence leaves what to whom.

Every model of a defence, the attacker's too, is trained and answers as the defence says: she knows it. A record is in a
model's training set by a coin of its own, so that what DP-SGD promises for one record more or less holds for her game.
References come in pairs, the second trained on what the first is not: of each pair one is IN and one OUT.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from mialib import config, papers, runs, work
from mialib.attacks import (
    Observations,
    Result,
    baselines,
    classifiers,
    defenses,
    label_only,
    memguard,
    pool,
    references,
    signals,
)
from mialib.attacks.worlds import A
from mialib.data.datasets import Dataset
from mialib.models import accounting, adversarial, fit, private, small

PAPER = "jia2019"
NAMES = {"location-30": "Location"}
NONE, GUARDED, ROUNDED, CLIPPED = "none", "MemGuard", "rounded to 1 digit", "clipping alone"
HOT, WARMTH = "temperature 20", 20.0
OUTPUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # of Table III of Shokri et al. 2017
    "top 3 classes": partial(defenses.top_k, k=3),
    "top class": partial(defenses.top_k, k=1),
    ROUNDED: partial(defenses.rounded, digits=1),
    HOT: partial(defenses.temperature, t=WARMTH),
    "label only": defenses.label_only,
}
FAMILIES = ("none", "outputs", "L2", "DP-SGD", "adversarial")
CALIBRATED = ("LiRA offline", "LiRA online", "RMIA offline", "RMIA online")
ATTACKS = ("gap", "confidence threshold", "shadow attack", "label-only noise", *CALIBRATED)


@dataclass(frozen=True)
class Row:
    """The models of one data set: see sizes.toml."""

    dataset: str
    records: int
    known: int
    owner: int
    targets: int
    pairs: int
    hidden: int
    epochs: int
    copies: int
    flips: tuple[float, ...]
    l2: tuple[float, ...]
    epsilons: tuple[float, ...]
    weights: tuple[float, ...]
    delta: float
    rate: float
    steps: int
    step: float
    budget: float
    shadows: int
    batch: int = 100


@dataclass(frozen=True)
class Defence:
    """What the owner does; `strength` is lambda, epsilon (infinite: no noise) or the weight, by family."""

    name: str
    family: str  # one of FAMILIES
    strength: float = 0.0


@dataclass(frozen=True)
class Game:
    """Who is trained on what. N records: those asked about, those known, the owner's, in this order."""

    row: Row
    rows: np.ndarray  # (N,) numbers of the data set's records
    y: np.ndarray  # (N,)
    member: np.ndarray  # (models, N) bool: targets, two judges, references

    @property
    def targets(self) -> range:
        """The models that are attacked."""
        return range(self.row.targets)

    @property
    def judges(self) -> range:
        """The attacker's models that she sets thresholds on."""
        return range(self.row.targets, self.row.targets + 2)

    @property
    def references(self) -> range:
        """Her other models."""
        return range(self.row.targets + 2, len(self.member))


@dataclass(frozen=True)
class Defended:
    """The models of one defence, as they are seen."""

    defence: Defence
    vectors: np.ndarray  # (models, N, classes) float32
    right: np.ndarray  # (targets and judges, asked): share of noisy copies that are given the true class


def settings(profile: str) -> tuple[Row, ...]:
    """The rows of sizes.toml in `profile`."""
    config.check_profile(profile)
    rows = papers.sizes(PAPER)["models"][profile]
    return tuple(Row(**{key: tuple(v) if isinstance(v, list) else v for key, v in row.items()}) for row in rows)


def trained(row: Row) -> list[Defence]:
    """The defences that models are trained for; the first is none."""
    found = [Defence(NONE, "none"), *(Defence(f"L2 {strength:g}", "L2", strength) for strength in row.l2)]
    found += [Defence(CLIPPED, "DP-SGD", np.inf)]
    found += [Defence(f"DP-SGD, epsilon {strength:g}", "DP-SGD", strength) for strength in row.epsilons]
    return [
        *found,
        *(Defence(f"adversarial, weight {strength:g}", "adversarial", strength) for strength in row.weights),
    ]


def draw(data: Dataset, row: Row, seed: int) -> Game:
    """Draw the records and the coins. ValueError where there are too few records or references."""
    n = row.records + row.owner
    if n > data.X.shape[0] or not 0 < row.known < row.records or row.pairs < 3:
        raise ValueError(f"{row.dataset}: {n} records of {data.X.shape[0]}, {row.known} known, {row.pairs} pairs")
    rng = runs.stream(seed, PAPER, row.dataset, n)
    rows = rng.permutation(data.X.shape[0])[:n]
    coins = rng.random((row.targets + row.pairs, row.records)) < 0.5
    member = np.zeros((row.targets + 2 * row.pairs, n), bool)
    member[: row.targets, : row.records] = coins[: row.targets]
    member[row.targets :: 2, : row.records] = coins[row.targets :]
    member[row.targets + 1 :: 2, : row.records] = ~coins[row.targets :]
    return Game(row, rows, data.y[rows], member)


def private_recipe(row: Row, epsilon: float) -> private.Recipe:
    """DP-SGD for an epsilon at `row.delta`; an infinite one is clipping without noise."""
    noise = 0.0 if np.isinf(epsilon) else accounting.noise_for(epsilon, row.rate, row.steps, row.delta)
    return private.Recipe(row.steps, row.rate, row.rate * row.records / 2, noise, step=row.step)


def train(data: Dataset, game: Game, defence: Defence, seed: int) -> tuple[small.MLP, np.ndarray]:
    """All models of a defence: their kind and their parameters, (models, n_parameters)."""
    row, X = game.row, data.X[game.rows]
    model = small.MLP((X.shape[1], row.hidden, data.classes))
    words = [(seed, PAPER, row.dataset, i) for i in range(len(game.member))]
    given = X, game.y, [np.flatnonzero(member) for member in game.member]
    if defence.family == "DP-SGD":
        return model, private.fit_many(model, private_recipe(row, defence.strength), *given, words)
    if defence.family == "adversarial":
        recipe = adversarial.Recipe(row.epochs, defence.strength, row.batch)
        return model, adversarial.fit_many(model, recipe, *given, np.arange(row.records, len(game.y)), words)
    recipe = fit.Recipe(row.epochs, row.batch, l2=defence.strength)
    return model, fit.fit_many(model, recipe, *given, words)


def observe(data: Dataset, row: Row, seed: int) -> tuple[Game, list[Defended]]:
    """Everything that is seen of all defences: those of outputs come after the first, which is none."""
    game, found = draw(data, row, seed), []
    for defence in trained(row):
        model, thetas = train(data, game, defence, seed)
        X = data.X[game.rows]
        logits = np.stack([small.logits(model, theta, X) for theta in thetas])
        plain, rounded = noise(game, model, thetas, X, seed)
        found.append(Defended(defence, small.softmax(logits), plain))
        if defence.name == NONE:
            for name, of in OUTPUTS.items():
                vectors = np.stack([of(each) for each in logits])
                found.append(Defended(Defence(name, "outputs"), vectors, rounded if name == ROUNDED else plain))
            found.append(Defended(Defence(GUARDED, "outputs"), guarded(game, logits, seed), plain))
    return game, found


def guarded(game: Game, logits: np.ndarray, seed: int) -> np.ndarray:
    """What MemGuard makes of logits (models, N, classes); each model's owner knows its members and her own records."""
    row, words = game.row, (seed, PAPER, "memguard")
    owner = np.arange(len(game.y)) >= row.records
    known = [member | owner for member in game.member]
    thetas = memguard.guard(
        [of[rows] for of, rows in zip(logits, known, strict=True)],
        [member[rows] for member, rows in zip(game.member, known, strict=True)],
        words,
    )
    jobs = [(of, theta, row.budget, (*words, i)) for i, (of, theta) in enumerate(zip(logits, thetas, strict=True))]
    return np.stack([vectors for (vectors,) in work.every(_guarded, jobs, jobs, runs.versions("numpy", "torch"))])


def _guarded(logits: np.ndarray, theta: np.ndarray, budget: float, words: tuple) -> tuple[np.ndarray]:
    return (memguard.defend(logits, theta, budget, runs.stream(*words)),)


def noise(game: Game, model: small.MLP, thetas: np.ndarray, X: np.ndarray, seed: int) -> np.ndarray:
    """Share of noisy copies that are right, (2, targets and judges, asked): labels as they are, and if rounded.

    Her judges choose the noise, undefended: the one whose threshold tells their members apart best.
    """
    row, asked = game.row, game.row.records - game.row.known
    at, jobs = [*game.judges, *game.targets], []
    for i in at:
        jobs.append((model, thetas[i], X[:asked], game.y[:asked], row.flips, row.copies, (seed, PAPER, "noise", i)))
    found = np.stack([share for (share,) in work.every(_right, jobs, jobs, runs.versions("numpy"))])
    member = np.concatenate([game.member[i, :asked] for i in game.judges])
    apart = []
    for share in found[:2, :, 0].swapaxes(0, 1).reshape(len(row.flips), -1):
        said = share >= baselines.best_threshold(share, member)
        apart.append(said[member].mean() - said[~member].mean())
    chosen = found[:, int(np.argmax(apart))]
    return np.concatenate([chosen[2:], chosen[:2]]).swapaxes(0, 1)


def _right(
    model: small.MLP, theta: np.ndarray, X: np.ndarray, y: np.ndarray, flips: tuple, copies: int, words: tuple
) -> tuple[np.ndarray]:
    """(flips, 2, records): of labels as they are, and of rounded vectors, where the first of equals is the label."""

    def answer(changed: np.ndarray) -> np.ndarray:
        logits = small.logits(model, theta, changed)
        return np.stack([logits.argmax(1), OUTPUTS[ROUNDED](logits).argmax(1)])

    binary = np.ones(X.shape[1:], bool)
    shares = []
    for flip in flips:
        queries = label_only.disturbed(X, binary, flip, 0.0, copies, runs.stream(*words))
        shares.append(label_only.share(answer, queries, y))
    return (np.stack(shares),)


def attack(game: Game, seen: Defended, seed: int) -> dict[str, list[Result]]:
    """ATTACKS -> their results on each target, of the records asked about.

    The attacker's models are defended as the target is. Shadows are her first references. LiRA has one variance for all
    records; RMIA compares with the known non-members. Both take a temperature back, as she knows it. Their thresholds,
    and that of the label-only attack, are those of best balanced accuracy on her two judges, attacked alike.
    """
    row, asked = game.row, slice(game.row.records - game.row.known)
    y, words = game.y, (seed, PAPER, row.dataset, seen.defence.name)
    told = [_observed(game, seen, m, slice(row.records)) for m in game.references[: row.shadows]]
    targets, shadow = [_observed(game, seen, m, asked) for m in game.targets], pool(told)
    found = {
        "gap": [baselines.gap(each) for each in targets],
        "confidence threshold": [baselines.confidence_threshold(shadow, each) for each in targets],
        "shadow attack": classifiers.attack("nn", shadow, targets, words),
    }
    member = np.concatenate([game.member[m, asked] for m in game.judges])
    known = np.concatenate([seen.right[m] for m in game.judges])
    found["label-only noise"] = [label_only.by_threshold(known, member, seen.right[m]) for m in game.targets]
    vectors = seen.vectors[:, : row.records]
    if seen.defence.name == HOT:
        vectors = defenses.sharpened(vectors, WARMTH)
    signal = signals.log_odds(vectors, y[: row.records])[..., None]
    for name in CALIBRATED:
        scores = {m: calibrated(game, signal, name, m)[asked] for m in (*game.judges, *game.targets)}
        least = baselines.best_threshold(np.concatenate([scores[m] for m in game.judges]), member)
        found[name] = [Result(scores[m], scores[m] >= least) for m in game.targets]
    return {name: found[name] for name in ATTACKS}


def _observed(game: Game, seen: Defended, model: int, rows: slice) -> Observations:
    return Observations(seen.vectors[model, rows], game.y[rows], game.member[model, rows])


def calibrated(game: Game, signal: np.ndarray, name: str, model: int) -> np.ndarray:
    """Score (records,) of one of CALIBRATED for a model, from signals (models, records, 1) and the references."""
    row, others = game.row, list(game.references)
    given = signal[model], signal[others], game.member[others, : row.records]
    online = name.endswith("online")
    if name.startswith("LiRA"):
        return references.lira(*given, online=online, fixed=True)
    population = ~game.member[model, : row.records] & (np.arange(row.records) >= row.records - row.known)
    return references.rmia(*given, population, None if online else A)


def learnt(game: Game, seen: Defended) -> list[dict[str, float]]:
    """train_acc and test_acc of each target, by the labels that are given out; the owner's records are left out."""
    n = game.row.records
    rights = (seen.vectors[: len(game.targets), :n].argmax(-1) == game.y[:n], game.member[: len(game.targets), :n])
    return [
        {"train_acc": float(right[member].mean()), "test_acc": float(right[~member].mean())}
        for right, member in zip(*rights, strict=True)
    ]
