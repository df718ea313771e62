"""Attacks that hold a target against reference models, as functions of arrays: Attack-P, Attack-R, LiRA and RMIA.

One signal serves all of them: phi, the log-odds of the confidence in the true class, which `phi` makes of logits. That
of a target has shape (records, queries), that of the references (models, records, queries); the first query is the
record itself, the others are its augmentations. `member`, bool (models, records), says which reference was trained on
which record: it is an IN model of that record, otherwise an OUT model. Confidence is 1 / (1 + exp(-phi)), the loss
log(1 + exp(-phi)).

Online attacks look at IN and OUT models, offline attacks at OUT models alone. Scores are float64 (records,), larger for
a likelier member. Arrays may be float32: they are worked on CHUNK records at a time, in float64. Every attack raises
ValueError for shapes that do not fit, nan and infinity, and a record without a model that is needed.

Where no model at all was trained on a record of the target, `calibration.attack` needs no IN models to set a threshold.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.polynomial import polynomial
from scipy.special import logsumexp

from mialib import arrays

CHUNK = 128  # records: what 64 models say of 18 queries of each fits a processor's cache
LEAST = 1e-6  # the smallest standard deviation of phi: what is less is rounding of float32
FURTHEST = 700.0  # phi from 0 at which a confidence still is a number above 0 in float64
LARGEST_LOSS = 1000.0  # where Attack-R's scale of losses ends
# Of `taylor` (Zarifzadeh et al. 2024, B.2.1, for CIFAR-10).
MARGIN, ORDER, TEMPERATURE = 0.6, 4, 2.0


def phi(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """z_y - log of the sum of exp z over the other classes: log p / (1 - p), stably (Carlini et al. 2022, VI-A).

    logits (…, records, queries, classes), also log-probabilities; y (records,). float32 (…, records, queries).
    """
    return _log_odds(logits, y, lambda own, others: own - logsumexp(others, axis=-1))


def taylor(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """As `phi`, of RMIA's SM-Taylor-softmax (Zarifzadeh et al. 2024, equation 7): margin .6, order 4, temperature 2.

    exp is replaced by its Taylor polynomial, which is above 0 everywhere as its order is even. (The released code ends
    one order earlier.) Unlike `phi` it changes where a constant is added to all logits.
    """
    series = [1 / math.factorial(i) for i in range(ORDER + 1)]

    def odds(own: np.ndarray, others: np.ndarray) -> np.ndarray:
        of_own, of_others = (polynomial.polyval(z / TEMPERATURE - m, series) for z, m in ((own, MARGIN), (others, 0)))
        return np.log(of_own) - np.log(of_others.sum(-1))

    return _log_odds(logits, y, odds)


def _log_odds(logits: np.ndarray, y: np.ndarray, odds: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """`odds` of the logit of the true class (records, queries) and those of the others (…, classes - 1), by model."""
    logits = np.asarray(logits)
    if logits.ndim < 3 or logits.shape[-1] < 2 or logits.dtype.kind not in "iuf":
        what = f"{logits.dtype} {logits.shape}"
        raise ValueError(f"logits must be numbers (models, records, queries, classes): got {what}")
    *shape, queries, classes = logits.shape
    y = arrays.labels(y, shape[-1], classes)
    own = np.broadcast_to((np.arange(classes) == y[:, None])[:, None], (shape[-1], queries, classes))
    found = np.empty((math.prod(shape[:-1]), shape[-1], queries), np.float32)
    for into, model in zip(found, logits.reshape(-1, shape[-1], queries, classes), strict=True):
        if not np.isfinite(model).all():
            raise ValueError("logits have nan or infinity")
        into[:] = odds(model[own].reshape(into.shape), model[~own].reshape(*into.shape, classes - 1))
    return found.reshape(*shape, queries)


def attack_p(target: np.ndarray, population: np.ndarray) -> np.ndarray:
    """Share of the population z that the target is no surer of: Pr_z(p(x) >= p(z)).

    Ye et al. 2022 as Zarifzadeh et al. 2024, Table 1, writes it: a threshold on the loss, set by records known not to
    be members; it needs no reference. target (records, queries), of which the first query counts; population: bool
    (records,), which records are z, such as all non-members.
    """
    signal = _finite(target, "target", 2)[:, 0]
    return _share(signal, signal, population)


def attack_r(target: np.ndarray, references: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Minus the share of OUT models with a smaller loss on the record than the target has, between losses by line.

    Ye et al. 2022; Zarifzadeh et al. 2024, Table 1: Pr_θ'(p(x|θ) >= p(x|θ')). Both papers' code makes a distribution
    of the k losses by linear interpolation, with 0 and LARGEST_LOSS at its ends, without which k models give k + 1
    scores. The first query counts.
    """
    target, references, member = _checked(target, references, member)
    _weights(~member, "OUT")
    own, losses = (_loss(signal[..., 0]) for signal in (target, references))
    losses = np.sort(np.where(member, np.inf, losses), axis=0)  # those of IN models last
    below = (losses <= own).sum(0)
    ends = np.zeros_like(own)[None], np.full_like(own, LARGEST_LOSS)[None]
    scale = np.concatenate([ends[0], np.minimum(losses, LARGEST_LOSS), ends[1]])
    before, after = (np.take_along_axis(scale, at[None], 0)[0] for at in (below, below + 1))
    part = (own - before) / np.maximum(after - before, np.finfo(float).tiny)
    return -(below + part) / (1 + (~member).sum(0))


def _loss(signal: np.ndarray) -> np.ndarray:
    return np.minimum(np.logaddexp(0, -signal.astype(float)), LARGEST_LOSS)


def lira(
    target: np.ndarray, references: np.ndarray, member: np.ndarray, online: bool, fixed: bool = False
) -> np.ndarray:
    """How much likelier phi is under the IN models than under the OUT models, both taken to be normal.

    Carlini et al. 2022. Online, Algorithm 1: the logarithm of N(phi; mean and variance of the IN models) / N(phi; those
    of the OUT models). Offline, equation 4: Pr(Z <= phi) with Z of N(mean and variance of the OUT models), of which we
    give the normal quantile, (phi - mean) / deviation: the probability itself is 1 in floating point for many. Queries
    have means and variances of their own and are independent (IV-C): the mean over them, which offline is the test of
    their sum; there the paper leaves it open. `fixed` (VI-B): one variance for all IN models and one for all OUT
    models, of all records and queries around their common mean, in place of one a record; that takes one model on each
    side instead of two.
    """
    target, references, member = _checked(target, references, member)
    sides = {"OUT": ~member, "IN": member} if online else {"OUT": ~member}
    weights = np.stack([_weights(side, name, 1 if fixed else 2) for name, side in sides.items()], 1)
    mean, square = np.empty((2, len(sides), *target.shape))  # of how much more than the target the models say
    for rows, part in _parts(references):
        part -= target[rows, None]
        mean[:, rows] = (weights[rows] @ part).swapaxes(0, 1)
        part *= part
        square[:, rows] = (weights[rows] @ part).swapaxes(0, 1)
    variance = np.maximum(square - mean**2, 0)
    if fixed:
        variance = np.stack([_overall(*of) for of in zip(mean + target, variance, sides.values(), strict=True)])
    deviation = np.maximum(np.sqrt(variance), LEAST)
    z = -mean / deviation
    if not online:
        return z[0].mean(1)
    density = -(z**2) / 2 - np.log(deviation)
    return (density[1] - density[0]).mean(1)


def _overall(mean: np.ndarray, variance: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Variance of all values of a side around their common mean, (1, 1), from mean and variance of record and query."""
    share = side.sum(0) / side.sum()
    return (share @ (variance + (mean - (share @ mean).mean()) ** 2)).mean().reshape(1, 1)


def rmia(
    target: np.ndarray,
    references: np.ndarray,
    member: np.ndarray,
    population: np.ndarray,
    a: float | None,
    gamma: float = 2.0,
) -> np.ndarray:
    """Share of the population z that the record dominates: Pr_z((p(x|θ) / p(x)) / (p(z|θ) / p(z)) >= gamma).

    Zarifzadeh et al. 2024, equations 3 and 5, Algorithm 1. p(x): online (`a` None) half the mean confidence of the IN
    models and half that of the OUT models (equation 9); offline ((1 + a) p + 1 - a) / 2 of the mean p of the OUT models
    (equation 10; the paper's a is .3 for CIFAR-10 and CINIC-10, .6 for CIFAR-100, 1 for ImageNet, .2 for Purchase).
    p(z): the mean over all references, without a (Algorithm 1, line 17; the released code treats z as it does x). Of
    several queries more than half must dominate z, which is asked about as it is (B.5; the released code pairs them
    with the same augmentations of z). population: bool (records,), which records are z; the paper takes all non-members
    of the target.

    A record that is a z is held against itself too. The released code corrects its count by one: of equal counts those
    of non-members then are other scores than those of members, which tells them apart where nothing leaks.

    ValueError for an `a` outside 0..1, a gamma below 1, and a population without a record.
    """
    target, references, member = _checked(target, references, member)
    if not (gamma >= 1 and (a is None or 0 <= a <= 1)):
        raise ValueError(f"a must lie in 0..1 and gamma be 1 or more: got {a} and {gamma}")
    halves = [_weights(~member, "OUT")] + ([_weights(member, "IN")] if a is None else [])
    weights = np.stack([np.mean(halves, axis=0), np.full(member.T.shape, 1 / len(member))], 1)
    expected = np.empty((2, *target.shape))
    for rows, part in _parts(references):
        expected[:, rows] = (weights[rows] @ _confidence(part)).swapaxes(0, 1)
    of_x = expected[0] if a is None else (1 + a) / 2 * expected[0] + (1 - a) / 2
    own = _confidence(target)
    by_most = np.sort(own / of_x, axis=1)[:, (own.shape[1] - 1) // 2]  # more than half of the ratios are this or more
    return _share(by_most, own[:, 0] / expected[1, :, 0], population, gamma)


def _confidence(signal: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.maximum(signal, -FURTHEST, dtype=float)))


def _share(value: np.ndarray, of_z: np.ndarray, population: np.ndarray, gamma: float = 1.0) -> np.ndarray:
    """Share of the population with value(x) >= gamma of_z(z); all (records,)."""
    population = arrays.flags(population, len(value), "population")
    if not population.any():
        raise ValueError("the population has no record")
    return np.searchsorted(np.sort(gamma * of_z[population]), value, side="right") / population.sum()


def every(
    target: np.ndarray, references: np.ndarray, member: np.ndarray, population: np.ndarray, a: float = 0.3
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Scores of all attacks by name, and of those that these references are too few for why they are left out."""
    given = target, references, member
    attacks: dict[str, Callable[[], np.ndarray]] = {
        "Attack-P": lambda: attack_p(target, population),
        "Attack-R": lambda: attack_r(*given),
        "LiRA online": lambda: lira(*given, online=True),
        "LiRA online, fixed variance": lambda: lira(*given, online=True, fixed=True),
        "LiRA offline": lambda: lira(*given, online=False),
        "LiRA offline, fixed variance": lambda: lira(*given, online=False, fixed=True),
        "RMIA online": lambda: rmia(*given, population, a=None),
        f"RMIA offline, a = {a:g}": lambda: rmia(*given, population, a=a),
    }
    _checked(*given)
    scores, left_out = {}, {}
    for name, attack in attacks.items():
        try:
            scores[name] = attack()
        except ValueError as error:
            left_out[name] = str(error)
    return scores, left_out


def _parts(references: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Some records at a time: which, and what the models say of them, float64 (records, models, queries)."""
    for at in range(0, references.shape[1], CHUNK):
        rows = slice(at, at + CHUNK)
        yield rows, references[:, rows].swapaxes(0, 1).astype(float, order="C")


def _weights(side: np.ndarray, name: str, least: int = 1) -> np.ndarray:
    """What makes a sum over models the mean over those of a side, (records, models); side: bool (models, records)."""
    count = side.sum(0)
    if few := int((count < least).sum()):
        what = f"no {name} model" if least == 1 else f"fewer than {least} {name} models"
        raise ValueError(f"{few} of {len(count)} records have {what} among the references")
    return (side / count).T


def _checked(target: np.ndarray, references: np.ndarray, member: np.ndarray) -> tuple[np.ndarray, ...]:
    target, references, member = _finite(target, "target", 2), _finite(references, "references", 3), np.asarray(member)
    if references.shape[1:] != target.shape or member.shape != references.shape[:2]:
        raise ValueError(
            "target (records, queries), references (models, records, queries) and member (models, records) must fit: "
            f"got {target.shape}, {references.shape} and {member.shape}"
        )
    return target, references, arrays.flags(member.ravel()).reshape(member.shape)


def _finite(signal: np.ndarray, name: str, dimensions: int) -> np.ndarray:
    signal = np.asarray(signal)
    if signal.ndim != dimensions or signal.dtype.kind not in "iuf" or not signal.size:
        raise ValueError(f"{name} must be numbers of {dimensions} dimensions: got {signal.dtype} {signal.shape}")
    if not np.isfinite(signal).all():
        raise ValueError(f"{name} has nan or infinity")
    return signal
