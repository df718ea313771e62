"""Federated averaging: parties train one network on records of their own, a server averages what they send it.

The protocol of Nasr, Shokri & Houmansadr 2019 (arXiv:1812.00910), III-A: in each round the server sends the parameters
to every party, each trains on its own records and uploads, and the server takes the plain mean. A party is a row of
stacked flat parameter vectors, trained by the steps of `fit`. Adam starts afresh in each round, since only parameters
travel (the paper does not say).
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch
from torch import nn

from mialib import arrays, runs, source, work
from mialib.models import fit, small
from mialib.models.fit import Recipe, Records
from mialib.models.small import CNN, MLP, Model


@dataclass(frozen=True)
class Active:
    """What an active attacker does in each round; nothing by default (Nasr et al. 2019, III-C).

    The attacker is the server, or the party `by`. It moves the parameters up the gradient of the mean loss of the
    records `rows` (numbers in X), by `rate`: the server what it is about to send, a party its own model before the
    upload. `isolated`: parties to which the server never sends the mean; each trains on from what it has itself.
    """

    rows: tuple[int, ...] = ()
    rate: float = 0.0
    by: int | None = None
    isolated: tuple[int, ...] = ()


def train(
    model: Model,
    recipe: Recipe,
    X: Records,
    y: np.ndarray,
    parties: Sequence[np.ndarray],
    words: tuple,
    rounds: int,
    observed: Sequence[int],
    active: Active = Active(),
) -> dict[int, np.ndarray]:
    """What each party uploads in the `observed` rounds: number, from 1 -> float32 (parties, n_parameters).

    X, y as `fit.fit_many` takes them; parties: index arrays into X, equally long, as the mean weighs all alike; recipe:
    its epochs are those of one round; words: seed words of the random streams. On one thread. Observed rounds are kept
    as they are reached, so an interrupted training goes on from the last of them, and a longer one goes on from a
    shorter. What the server sends after round t is `aggregate` of what is uploaded in it, but for what is `active`.

    Raises ValueError when parties have no records or unequally many, observed rounds lie outside 1..rounds, the
    attacker is no party, or the training ends in parameters that are not finite; and what `fit.fit_many` raises.
    """
    X, y = arrays.records(X), arrays.labels(y)
    _check(model, X, y, parties, rounds, observed, active)
    X = fit._compact(X)
    rows = np.array(active.rows, dtype=np.int64)
    data, targets = [(X[each], y[each]) for each in parties], (X[rows], y[rows])
    code = source.digest(_round, _initial), runs.versions("numpy", "torch"), fit._device(model).type
    about = ("federated", *code, model, recipe, data, targets, active.rate, active.by, active.isolated, words)
    base = runs.digest(*about)
    found, last, uploads = {}, 0, _initial(model, words, len(data))
    with work.held(base):
        for number in sorted(set(observed)):
            key = runs.digest(base, number)
            if (entry := work.load(key)) is None:
                for now in range(last + 1, number + 1):
                    uploads = _round(model, recipe, data, targets, uploads, (*words, "round", now), active)
                if not np.isfinite(uploads).all():
                    raise ValueError(f"round {number} has parameters that are not finite; lower the rate or the ascent")
                entry = {"uploads": uploads}
                work.store(key, entry)
            last, uploads = number, entry["uploads"]
            found[number] = uploads
    return found


def aggregate(uploads: np.ndarray) -> np.ndarray:
    """The plain mean of what the parties upload: float32 (n_parameters,) of (parties, n_parameters)."""
    return uploads.mean(0, dtype=np.float32)


def module(model: MLP, flat: np.ndarray) -> nn.Sequential:
    """A trained MLP as a PyTorch module, logits from float records; its layers are called "1", "2", … and "last".

    The activations after them are "1a", "2a", …
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    trained = small.layers(model, torch.from_numpy(flat))
    for number, (weight, bias) in enumerate(trained, start=1):
        layer = nn.utils.skip_init(nn.Linear, *weight.shape)
        layer.load_state_dict({"weight": weight.T, "bias": bias})
        parts["last" if number == len(trained) else str(number)] = layer
        if number < len(trained):
            parts[f"{number}a"] = nn.Tanh() if model.activation == "tanh" else nn.ReLU()
    return nn.Sequential(parts).eval()


def _check(model: Model, X: Records, y: np.ndarray, parties: Sequence, rounds: int, observed: Sequence, active: Active):
    if not len(parties):
        raise ValueError("a federated training needs at least one party")
    sizes = [len(rows) for rows in parties]
    if min(sizes) < 1:
        raise ValueError(f"party {sizes.index(min(sizes))} has no records")
    if len(set(sizes)) > 1:
        said = ", ".join(map(str, sizes))
        raise ValueError(f"parties must have equally many records, as the plain mean weighs them alike; got {said}")
    fit._check(model, X, y, parties, parties, "auto")
    if not len(observed) or min(observed) < 1 or max(observed) > rounds:
        raise ValueError(f"observed rounds must lie in 1 to {rounds}: got {', '.join(map(str, observed)) or 'none'}")
    named = [*active.isolated, *([] if active.by is None else [active.by])]
    if wrong := [party for party in named if not 0 <= party < len(parties)]:
        raise ValueError(f"there is no party {wrong[0]}; they are numbered 0 to {len(parties) - 1}")
    if active.rate and not active.rows:
        raise ValueError("gradient ascent needs at least one record in `rows`")
    if active.rows and not 0 <= min(active.rows) <= max(active.rows) < len(y):
        raise ValueError(f"the records of the ascent must be numbers from 0 to {len(y) - 1}")


def _initial(model: Model, words: tuple, parties: int) -> np.ndarray:
    """The same fresh parameters for every party, as rows."""
    return np.tile(small.initial(model, runs.stream(*words, "initial")), (parties, 1))


def _round(
    model: Model, recipe: Recipe, data: list, targets: tuple, uploads: np.ndarray, words: tuple, active: Active
) -> np.ndarray:
    """What the parties upload in a round, from what they uploaded in the one before; data, targets: (X, y) each."""
    theta = torch.from_numpy(_sent(model, targets, uploads, active)).to(fit._device(model))
    with small.one_thread():
        for party, (X, y) in enumerate(data):
            rng = runs.stream(*words, party)
            fit._descend(model, recipe, theta[party], len(y), lambda: _batches(X, y, rng, recipe.batch))  # noqa: B023
        if active.by is not None and active.rate:
            ascend(model, theta[active.by], *targets, active.rate)
    return theta.cpu().numpy()


def _sent(model: Model, targets: tuple, uploads: np.ndarray, active: Active) -> np.ndarray:
    """What the server sends to each party, as rows: the mean, or its own upload; after ascent if the server does it."""
    mean, isolated = aggregate(uploads)[None].copy(), uploads[list(active.isolated)]
    if active.by is None and active.rate:
        with small.one_thread():
            for row in (*mean, *isolated):
                theta = torch.from_numpy(row).to(fit._device(model))
                ascend(model, theta, *targets, active.rate)
                row[:] = theta.cpu().numpy()
    sent = np.repeat(mean, len(uploads), 0)
    sent[list(active.isolated)] = isolated
    return sent


def ascend(model: Model, theta: torch.Tensor, X: Records, y: np.ndarray, rate: float) -> None:
    """theta + rate · gradient of the mean cross-entropy of all records (X, y), in place; theta (n_parameters,)."""
    gradient = torch.zeros_like(theta)
    weights, gradients = small.layers(model, theta), small.layers(model, gradient)
    [(x, labels)] = _batches(X, y, None, len(y))
    if isinstance(model, CNN):
        fit.image_loss_gradient(weights, gradients, *x, labels)
    else:
        fit.loss_gradient(model, weights, gradients, x, labels, fit._workspace(model, theta, len(y)))
    theta.add_(gradient, alpha=rate)


def _batches(X: Records, y: np.ndarray, rng: np.random.Generator | None, size: int):
    """Batches of one epoch as `fit` makes them, reshuffled; in order without `rng`."""
    order = np.arange(len(y)) if rng is None else rng.permutation(len(y))
    if X.ndim > 2:
        return fit._image_batches(X, y, order, size)
    return (fit._sparse_batches if scipy.sparse.issparse(X) else fit._dense_batches)(X, y, order, size)
