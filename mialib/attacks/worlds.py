"""Attacks in worlds: a target with proxies, and records that its attack is asked about, once and for all attacks alike.

The target's world has what the attacker wants to know, worlds of her own what she knows. If both are made the same way,
of as many records, then what a score is worth in hers it is worth in the other: `threshold` sets it for a precision.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from scipy.stats import beta

from mialib import arrays, runs
from mialib.attacks import Observations, baselines, classifiers, leino, pool, references
from mialib.models import fit, private, small
from mialib.models.fit import Recipe, Records

LOG_ODDS = ("nn", "bayes-wb", "general-wb")  # attacks whose score claims to be the log-odds of membership
LEARNT = ("nn", "threshold", "general-wb")  # attacks that learn from worlds
# RMIA's a, offline. 1 takes the OUT models as they are: no IN model could tell a better one. And with a small a
# a target that is seldom sure never reaches RMIA's ratio of 2, which leaves all records with one score.
A = 1.0


@dataclass(frozen=True)
class Plan:
    """Which records, as numbers, make a world; members and others are asked about."""

    members: np.ndarray  # train the target
    others: np.ndarray  # train no model of this world
    pool: np.ndarray  # train the proxies, each on as many, drawn with replacement
    population: np.ndarray  # neither train a model nor are asked about: what RMIA and Attack-P compare with


@dataclass(frozen=True)
class World:
    """What the models of a `Plan` say: of n records that are asked about, then of those of the population."""

    logits: np.ndarray  # (n + population, classes), the target's
    others: np.ndarray  # (proxies, n + population, classes)
    y: np.ndarray  # (n + population,)
    member: np.ndarray  # (n,) bool
    weights: leino.Shadow | None  # of a linear model, with the n records; None for any other

    @property
    def observed(self) -> Observations:
        """The target's prediction vectors on the n records."""
        n = len(self.member)
        return Observations(small.softmax(self.logits[:n]), self.y[:n], self.member)


def train(
    model: small.Model,
    recipe: Recipe | private.Recipe,
    X: Records,
    y: np.ndarray,
    plans: Sequence[Plan],
    proxies: int,
    words: tuple,
) -> list[World]:
    """Train the target and the proxies of every plan, and ask them.

    X, y: as `fit.fit_many` takes them, words: seed words. `recipe`: of DP-SGD too, then of proxies as of targets. A
    proxy's records are drawn within each class, so that none is lost. ValueError for no proxy, for a plan whose parts
    overlap, and as `fit.fit_many` raises it.
    """
    if proxies < 1:
        raise ValueError("a world needs at least one proxy")
    sets = []
    for number, plan in enumerate(plans):
        parts = np.concatenate([plan.members, plan.others, plan.pool, plan.population])
        if len(np.unique(parts)) < len(parts):
            raise ValueError(f"parts of plan {number} overlap: a record must have one role in a world")
        rng = runs.stream(*words, number, "proxies")
        sets += [plan.members, *(_again(y, plan.pool, rng) for _ in range(proxies))]
    names = [(*words, "model", i) for i in range(len(sets))]
    fit_many = private.fit_many if isinstance(recipe, private.Recipe) else fit.fit_many
    thetas = fit_many(model, recipe, X, y, sets, names).reshape(len(plans), 1 + proxies, -1)
    return [_ask(model, theta, X, y, plan) for theta, plan in zip(thetas, plans, strict=True)]


def _again(y: np.ndarray, at: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.concatenate(
        [rng.choice(some, len(some)) for label in np.unique(y[at]) if len(some := at[y[at] == label])]
    )


def _ask(model: small.Model, thetas: np.ndarray, X: Records, y: np.ndarray, plan: Plan) -> World:
    rows = np.concatenate([plan.members, plan.others, plan.population])
    n = len(plan.members) + len(plan.others)
    target, *others = (fit.ask(model, theta, X[rows]) for theta in thetas)
    member, weights = np.arange(n) < len(plan.members), None
    if isinstance(model, small.MLP) and len(model.sizes) == 2:
        own, *rest = (_linear(model, theta) for theta in thetas)
        asked = X[rows[:n]]
        asked = asked.toarray() if scipy.sparse.issparse(asked) else asked
        weights = leino.Shadow(own, rest, asked, y[rows[:n]], member)
    return World(target, np.stack(others), y[rows], member, weights)


def _linear(model: small.MLP, theta: np.ndarray) -> leino.Linear:
    """Weights and biases as `leino.linear` reads a model's, with a mean over the classes of zero."""
    [(weights, biases)] = small.layers(model, theta.astype(float))
    return weights.T - weights.mean(1), biases - biases.mean()


def scores(learn: Sequence[World], asked: Sequence[World], words: tuple) -> dict[str, list[np.ndarray]]:
    """Attack -> its score (n,) of the records of each world of `asked`; those of LEARNT learn from `learn`.

    "nn": Shokri et al.'s shadow attack; "threshold": the confidence beside one a class; "calibrated": phi beside its
    median over the proxies; "LiRA" (offline, one variance), "RMIA" (offline) and "Attack-R", the proxies being the OUT
    models; "Attack-P"; for linear models "bayes-wb" and "general-wb". No attack is told which of the records asked
    about are members. ValueError for no world to learn from.
    """
    if not learn:
        raise ValueError("give at least one world to learn from")
    seen, to_ask = pool([world.observed for world in learn]), [world.observed for world in asked]
    found = {
        "nn": [result.score for result in classifiers.attack("nn", seen, to_ask, words)],
        "threshold": [baselines.confidence_threshold(seen, each).score for each in to_ask],
    }
    for name in ("calibrated", "LiRA", "RMIA", "Attack-R", "Attack-P"):
        found[name] = [_by_proxies(name, world) for world in asked]
    if all(world.weights is not None for world in (*learn, *asked)):
        learnt = leino.displacement([world.weights for world in learn], (*words, "displacement"))
        each = [(w.target, w.proxies, w.X, w.y) for w in (world.weights for world in asked)]
        found["bayes-wb"] = [leino.bayes_wb(*of).score for of in each]
        found["general-wb"] = [leino.general_wb(learnt, *of).score for of in each]
    return found


def _by_proxies(name: str, world: World) -> np.ndarray:
    n = len(world.member)
    target, *others = references.phi(np.stack([world.logits, *world.others])[:, :, None], world.y)
    others = np.stack(others)
    if name == "calibrated":
        return (target - np.median(others, axis=0))[:n, 0]
    outside, population = np.zeros(others.shape[:2], bool), np.arange(len(target)) >= n
    if name == "LiRA":
        return references.lira(target[:n], others[:, :n], outside[:, :n], online=False, fixed=True)
    if name == "RMIA":
        return references.rmia(target, others, outside, population, A)[:n]
    if name == "Attack-R":
        return references.attack_r(target[:n], others[:, :n], outside[:, :n])
    return references.attack_p(target, population)[:n]


def threshold(score: np.ndarray, member: np.ndarray, wanted: float, guarded: bool = False) -> float:
    """The smallest t for which at least a share `wanted` of the records with score >= t are members; infinite for none.

    It has the most members of all such thresholds. score (n,), member bool (n,) of records whose membership is known,
    in the mixture that the attack will meet. The best of many thresholds looks better than it is: `guarded` wants the
    lower end of a one-sided 95 % interval of the share (Clopper-Pearson) to reach `wanted`. (Leino & Fredrikson say
    that thresholds are calibrated for precision; how is our choice.) ValueError for a share outside 0..1, no record,
    and a score that is nan or infinite.
    """
    if not 0 <= wanted <= 1:
        raise ValueError(f"the precision wanted must lie in 0..1: got {wanted}")
    score = np.asarray(score, float)
    if score.ndim != 1 or not len(score) or not np.isfinite(score).all():
        raise ValueError(f"scores must be flat, finite, and of at least one record: got {score.shape}")
    member = arrays.flags(member, len(score))
    order = np.argsort(-score, kind="stable")
    ranked, hits = score[order], np.cumsum(member[order])
    last = np.append(ranked[1:] != ranked[:-1], True)  # a threshold takes all records of one value
    ranked, hits, called = ranked[last], hits[last], np.arange(1, len(score) + 1)[last]
    share = np.where(hits > 0, beta.ppf(0.05, hits, called - hits + 1), 0.0) if guarded else hits / called
    reached = np.flatnonzero(share >= wanted)
    return float(ranked[reached[-1]]) if len(reached) else math.inf
