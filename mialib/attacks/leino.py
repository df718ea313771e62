"""Leino & Fredrikson 2020, "Stolen Memories": attacks that read the weights of a linear target, logistic or softmax,
or of the layers above a slice of a deep one, made linear at each record (`Local`, see `slices`).

What is peculiar to the training records stands in the target's weights and not in those of a *proxy*, trained the same
way on other records of the population. bayes-wb subtracts the two, general-wb learns what to make of them.

Source: the authors' slides (USENIX Security 2020; "slide 10" below), for the idea and its assumptions. The full text
could not be had, so no equation of it is cited: what follows from the assumptions is marked "derived" (the difference
of weights too, which three re-implementations compute alike), what the slides leave open "our choice".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F
from torch import nn

from mialib import arrays, runs
from mialib.attacks import Result, baselines
from mialib.models import small
from mialib.models.fit import Records

Linear = tuple[np.ndarray, np.ndarray]  # weights (classes, features) and biases (classes,), float64
_HARMLESS = nn.Flatten | nn.Identity | nn.Dropout | nn.Softmax | nn.LogSoftmax | nn.Sigmoid  # around one nn.Linear

# general-wb: its form, sixteen units and weight decay are those of two re-implementations, not of a text of the authors
# (Gunkkk/White-Box-Membership-Inference, aakk11220066/IndustrialProject-MembershipInferenceAttack); rate and steps
# are our choice, enough to find the optimal rule where it is known (the Gaussian, tests/test_leino.py).
NETWORK = small.MLP((2, 16, 1), "relu")
STEPS, RATE, DECAY = 300, 1e-2, 1e-2


def linear(model: Any) -> Linear:
    """Weights (classes, features) and biases (classes,) of a linear model.

    model: a fitted LogisticRegression of scikit-learn; a torch.nn.Linear, or a Sequential of one that holds nothing
    else but flattening, dropout and the final softmax or sigmoid; or a pair (weights, biases), taken as it is.

    One vector added to the weights of every class changes no softmax, so it says nothing: models are read with a mean
    over the classes of zero (derived; without it PyTorch's random start would count). Two classes that share one vector
    w of weights are a softmax of -w/2 and w/2. ValueError for any other model, and for numbers that are not finite.
    """
    if isinstance(model, nn.Module):
        parts = [part for part in model.modules() if not isinstance(part, nn.Sequential)]
        found = [part for part in parts if isinstance(part, nn.Linear)]
        if len(found) != 1 or not all(isinstance(part, nn.Linear | _HARMLESS) for part in parts):
            kinds = ", ".join(type(part).__name__ for part in parts)
            raise ValueError(f"a linear target has one torch.nn.Linear and no other layer, this one has: {kinds}")
        weights = found[0].weight.detach().cpu().numpy()
        biases = np.zeros(len(weights)) if found[0].bias is None else found[0].bias.detach().cpu().numpy()
    elif hasattr(model, "coef_") and hasattr(model, "intercept_"):
        weights, biases = np.atleast_2d(model.coef_), np.broadcast_to(model.intercept_, len(np.atleast_2d(model.coef_)))
    elif isinstance(model, tuple) and len(model) == 2:
        return _checked(*model)
    else:
        kinds = "a fitted LogisticRegression, a torch.nn.Sequential of one Linear, or (weights, biases)"
        raise ValueError(f"{type(model).__name__} cannot be read as a linear model: give {kinds}")
    weights, biases = _checked(weights, biases)
    if len(weights) == 1:
        weights, biases = np.concatenate([-weights, weights]) / 2, np.concatenate([-biases, biases]) / 2
    return weights - weights.mean(0), biases - biases.mean()


def _checked(weights: Any, biases: Any) -> Linear:
    weights, biases = np.asarray(weights, float), np.asarray(biases, float)
    if weights.ndim != 2 or biases.shape != weights.shape[:1]:
        raise ValueError(f"weights must be (classes, features), biases (classes,): got {weights.shape}, {biases.shape}")
    if not (np.isfinite(weights).all() and np.isfinite(biases).all()):
        raise ValueError("a linear model has weights or biases that are not finite")
    return weights, biases


def averaged(proxies: Sequence[Any]) -> Linear:
    """The means of the proxies' weights and biases: they spread less, but what is wrong with each bias stays (`shift`).

    proxies: what `linear` takes. ValueError for none, what is no list, and proxies of different shapes.
    """
    if not isinstance(proxies, list) or not proxies:
        raise ValueError("proxies must be a list of at least one model")
    read = [linear(proxy) for proxy in proxies]
    if len(shapes := {weights.shape for weights, _ in read}) > 1:
        raise ValueError(f"proxies must have weights of one shape, (classes, features): got {sorted(shapes)}")
    return tuple(np.mean(part, axis=0) for part in zip(*read, strict=True))


def bayes_wb(target: Any, proxies: Sequence[Any], X: Records, y: np.ndarray, threshold: float = 0.0) -> Result:
    """Member if (W_y - V_y)·x + b_y - a_y > threshold, for the target's weights and biases W, b and the proxies' V, a.

    target, and each of proxies: what `linear` takes; several are `averaged` (our choice; how many the paper has is not
    known). X (n, …) records as the models take them, dense or sparse, y (n,) their true classes, as numbers of the
    models' rows. Where features are Gaussian and independent given the class (slides 10 to 12), half of the records are
    members, the models are the best for such data and the proxy knows the population, the sum is the log-odds of
    membership and its logistic function the confidence (derived). With a proxy that does not, the best threshold is not
    0: see `shift`, `calibrated` and `threshold_of`.

    Score: log-odds minus `threshold`. ValueError for models, records or labels that do not fit each other.
    """
    (weights, biases), (others, offsets) = _pair(target, proxies)
    return _answer(weights - others, biases - offsets, X, y, threshold)


def shift(features: int, records: float) -> float:
    """Where bayes-wb's log-odds have their best threshold, if a proxy learnt each class's mean from `records` records.

    features / (2 records), in the case in which its assumptions hold (derived). The proxy's own bias does it: a mean of
    N records has a square that is too large by features · variance / N. Of several averaged, `records` is each one's.
    """
    return features / (2 * records)


def calibrated(log_odds: np.ndarray, features: int, trained: int, records: float, proxies: int = 1) -> np.ndarray:
    """bayes-wb's log-odds (n,) made those of membership, by what the proxies do not know (derived; see `shift`).

    trained: the target's records of a class; records: each proxy's, of so many proxies. Not corrected they are too
    sure: by 1 + trained / (proxies · records), after the shift.
    """
    return (log_odds - shift(features, records)) / (1 + trained / (proxies * records))


# --- what the attacker can learn on models of her own ---------------------------------------------------------------


@dataclass(frozen=True)
class Shadow:
    """A target of the attacker's own, with proxies, and records of which she knows whether it was trained on them.

    No proxy was trained on any of them: neither is one on the records that the attack is asked about.
    """

    target: Any  # as `linear` takes it
    proxies: list[Any]
    X: Records  # (n, …)
    y: np.ndarray  # (n,) as numbers of the models' rows
    member: np.ndarray  # (n,) bool


def threshold_of(shadows: Sequence[Shadow], learnt: "Displacement | None" = None) -> float:
    """The threshold with the best balanced accuracy over the shadows' records: of bayes-wb, or of general-wb `learnt`.

    Our choice: the slides say that thresholds can be calibrated, not on what. A record is a member above it.
    """
    member = _members(shadows)
    results = [
        bayes_wb(each.target, each.proxies, each.X, each.y)
        if learnt is None
        else general_wb(learnt, each.target, each.proxies, each.X, each.y)
        for each in shadows
    ]
    score = np.concatenate([result.score for result in results])
    best = baselines.best_threshold(score, member)
    below = score[score < best]
    return float((best + below.max()) / 2 if len(below) else np.nextafter(best, -math.inf))


@dataclass(frozen=True)
class Displacement:
    """What general-wb makes of a target's and a proxy's weight, and of their biases: `displacement` trains it."""

    spread: tuple[float, ...]  # of weights: their difference, their mean; of biases: the same
    theta: np.ndarray  # (2, n_parameters) float32 of NETWORK: for weights, for biases


def displacement(shadows: Sequence[Shadow], words: tuple) -> Displacement:
    """Train general-wb's networks on shadows: the displacement is learnt instead of subtracted.

    Two networks, NETWORK: one from (W_yj, V_yj), target's and averaged proxies' weight of feature j in the record's
    class, to that feature's weight in the attack, the same network for all features; one from the pair of biases to
    the attack's bias. Trained together on the shadows' members and non-members, either side weighing the same, by Adam
    on cross-entropy (STEPS steps of all records, RATE, weight DECAY). words: seed words. ValueError as in `bayes_wb`,
    for shadows that differ in their number of features, and where they have members or non-members only.
    """
    member = _members(shadows)
    if member.all() or not member.any():
        raise ValueError("general-wb learns from shadows with members and non-members; these have one of the two only")
    turned = [_turned(*_pair(each.target, each.proxies)) for each in shadows]
    if len(features := {pair[0].shape[1] for pair in turned}) > 1:
        raise ValueError(f"shadows must have models of as many features each: got {sorted(features)}")
    spread = tuple(
        float(np.concatenate([pair[part][..., way].ravel() for pair in turned]).std()) or 1.0
        for part in (0, 1)
        for way in (0, 1)
    )
    asked = [
        (_flat(each.X, pair[0].shape[1]), arrays.labels(each.y, len(each.member), len(pair[1])))
        for each, pair in zip(shadows, turned, strict=True)
    ]
    rng = runs.stream(*words)
    theta = np.stack([small.initial(NETWORK, rng) for _ in range(2)])
    return Displacement(spread, _descend(theta, [_scaled(pair, spread) for pair in turned], asked, member))


def general_wb(
    learnt: Displacement, target: Any, proxies: Sequence[Any], X: Records, y: np.ndarray, threshold: float = 0.0
) -> Result:
    """Member if the sum over features of D(W_yj, V_yj) x_j, and E(b_y, a_y), are above `threshold`: see `displacement`.

    Arguments, score and errors are those of `bayes_wb`, which is the case D(w, v) = E(w, v) = w - v.
    """
    with small.one_thread(), torch.inference_mode():
        both = _scaled(_turned(*_pair(target, proxies)), learnt.spread)
        weights, biases = (part.double().numpy() for part in _attack(torch.from_numpy(learnt.theta), both))
    return _answer(weights, biases, X, y, threshold)


def _descend(theta: np.ndarray, inputs: list[tuple], asked: list[tuple], member: np.ndarray) -> np.ndarray:
    """`Displacement.theta`, trained from `theta`; inputs: `_scaled` of each shadow, asked: its records and labels."""
    pairs, biases = (torch.cat(parts) for parts in zip(*inputs, strict=True))
    first = np.cumsum([0, *(len(own) for _, own in inputs)])  # of each shadow's classes, among those of all
    of = np.concatenate([y + start for (_, y), start in zip(asked, first[:-1], strict=True)])
    # Only the weights of a record's own class count: class by class there is nothing to compute for the others.
    order = np.argsort(of, kind="stable")
    X = np.concatenate([X.toarray() if scipy.sparse.issparse(X) else X for X, _ in asked])[order]
    groups = torch.from_numpy(X).float().split(np.bincount(of, minlength=first[-1]).tolist())
    of, member, share = torch.from_numpy(of[order]), member[order], member.mean()
    labels, weight = (torch.from_numpy(each) for each in (member * 1.0, 0.5 / np.where(member, share, 1 - share)))
    with small.one_thread():
        theta = torch.from_numpy(theta).requires_grad_()
        adam = torch.optim.Adam([theta], RATE, weight_decay=DECAY)
        for _ in range(STEPS):
            weights, bias = _attack(theta, (pairs, biases))
            scores = torch.cat([x @ w for x, w in zip(groups, weights, strict=True)]) + bias[of]
            adam.zero_grad()
            F.binary_cross_entropy_with_logits(scores.double(), labels, weight).backward()
            adam.step()
    return theta.detach().numpy()


def _attack(theta: torch.Tensor, inputs: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The attack's weights (classes, features) and biases (classes,). Divided by the root of the features, so that the
    sum over them begins at one size for all (our choice)."""
    found = []
    for flat, pairs in zip(theta, inputs, strict=True):
        (first, first_bias), (last, last_bias) = small.layers(NETWORK, flat)
        found.append((torch.relu(pairs @ first + first_bias) @ last + last_bias)[..., 0])
    return found[0] / math.sqrt(found[0].shape[1]), found[1]


def _turned(target: Linear, proxy: Linear) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of weights (classes, features, 2) and of biases (classes, 2), as difference and mean.

    A turn of the pair, so a network learns the same functions of either; here its two inputs are of one size, where the
    difference of the pair itself would be lost beside what its two have in common (our choice).
    """
    return tuple(np.stack([own - other, (own + other) / 2], axis=-1) for own, other in zip(target, proxy, strict=True))


def _scaled(turned: tuple[np.ndarray, np.ndarray], spread: tuple[float, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(
        torch.from_numpy(part / each).float() for part, each in zip(turned, (spread[:2], spread[2:]), strict=True)
    )


# --- a slice of a deep target ---------------------------------------------------------------------------------------

AT_ONCE = 32  # records of one step of `local_displacement`: each has weights of its own


@dataclass(frozen=True)
class Local:
    """Linear models of the true class's logit at n records, for the layers above a slice of a deep network (slide 13).

    Target and proxies share all layers below, so that z means the same to them (slide 13). Where a logit is linear in z
    its weights are those of `linear`; elsewhere `slices` makes them.
    """

    z: np.ndarray  # (n, d): what the layers below say
    target: Linear  # weights (n, d), biases (n,): of each record's own class
    proxies: Linear  # the same, means over the proxies

    def __post_init__(self) -> None:
        for weights, biases in (self.target, self.proxies):
            if weights.shape != self.z.shape or biases.shape != self.z.shape[:1]:
                raise ValueError(f"z is {self.z.shape}, weights and biases are {weights.shape} and {biases.shape}")


def local_bayes_wb(local: Local, threshold: float = 0.0) -> Result:
    """`bayes_wb` where every record has weights of its own: member if (w - v)·z + b - a > threshold."""
    (weights, biases), (others, offsets) = local.target, local.proxies
    score = ((weights - others) * local.z).sum(1) + biases - offsets - threshold
    return Result(score, score > 0)


def local_displacement(locals_: Sequence[Local], members: Sequence[np.ndarray], words: tuple) -> Displacement:
    """`displacement` where every record has weights of its own: of shadows, and which of each's records are members.

    A step sees AT_ONCE records instead of all. ValueError where the shadows have members or non-members only.
    """
    member = np.concatenate([arrays.flags(some, len(local.z)) for some, local in zip(members, locals_, strict=True)])
    if member.all() or not member.any():
        raise ValueError("general-wb learns from shadows with members and non-members; these have one of the two only")
    turned = [_turned(local.target, local.proxies) for local in locals_]
    spread = tuple(
        float(np.concatenate([pair[part][..., way].ravel() for pair in turned]).std()) or 1.0
        for part in (0, 1)
        for way in (0, 1)
    )
    weights, biases = (torch.cat(parts) for parts in zip(*(_scaled(pair, spread) for pair in turned), strict=True))
    z = torch.from_numpy(np.concatenate([local.z for local in locals_])).float()
    share, labels = member.mean(), torch.from_numpy(member * 1.0)
    weight, rng = torch.from_numpy(0.5 / np.where(member, share, 1 - share)), runs.stream(*words)
    theta = np.stack([small.initial(NETWORK, rng) for _ in range(2)])
    with small.one_thread():
        theta = torch.from_numpy(theta).requires_grad_()
        adam = torch.optim.Adam([theta], RATE, weight_decay=DECAY)
        for _ in range(STEPS):
            at = torch.from_numpy(rng.choice(len(z), min(AT_ONCE, len(z)), replace=False))
            own, bias = _attack(theta, (weights[at], biases[at]))
            score = ((own * z[at]).sum(1) + bias).double()
            adam.zero_grad()
            F.binary_cross_entropy_with_logits(score, labels[at], weight[at]).backward()
            adam.step()
    return Displacement(spread, theta.detach().numpy())


def local_general_wb(learnt: Displacement, local: Local, threshold: float = 0.0) -> Result:
    """`general_wb` where every record has weights of its own."""
    with small.one_thread(), torch.inference_mode():
        both = _scaled(_turned(local.target, local.proxies), learnt.spread)
        weights, biases = (part.double().numpy() for part in _attack(torch.from_numpy(learnt.theta), both))
    score = (weights * local.z).sum(1) + biases - threshold
    return Result(score, score > 0)


# --- what all of them need ------------------------------------------------------------------------------------------


def _pair(target: Any, proxies: Sequence[Any]) -> tuple[Linear, Linear]:
    own, others = linear(target), averaged(proxies)
    if own[0].shape != others[0].shape:
        raise ValueError(f"the target has weights (classes, features) of {own[0].shape}, the proxies {others[0].shape}")
    return own, others


def _answer(weights: np.ndarray, biases: np.ndarray, X: Records, y: np.ndarray, threshold: float) -> Result:
    X = _flat(X, weights.shape[1])
    y = arrays.labels(y, X.shape[0], len(biases))
    score = (X @ weights.T)[np.arange(len(y)), y] + biases[y] - threshold
    return Result(score, score > 0)


def _flat(X: Records, features: int) -> Records:
    X = arrays.records(X)
    X = X if scipy.sparse.issparse(X) else X.reshape(len(X), -1)
    if X.shape[1] != features:
        raise ValueError(f"the models have {features} features, the records {X.shape[1]}")
    return X


def _members(shadows: Sequence[Shadow]) -> np.ndarray:
    if not shadows:
        raise ValueError("give at least one shadow")
    return np.concatenate([arrays.flags(each.member, len(each.y)) for each in shadows])
