"""Hidden units of one network put in the order of another's (Crețu et al. 2024, arXiv:2306.05093).

Units of a layer can change places without a change of what the network says, so two trainings have theirs in no common
order, and what an attack learns of one network's units says nothing of another's. Each unit is matched with the one
whose weights are nearest (L2 distance), all of a layer at once, by linear assignment.

Networks: `nn.Sequential` of convolutions and fully connected layers, with layers between them that treat all units
alike: activations, pooling, dropout, flattening.
"""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch import nn

WAYS = ("bottom-up", "top-down")
ALIKE = (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.MaxPool2d, nn.AvgPool2d, nn.Dropout, nn.Flatten, nn.Identity)


def align(net: nn.Sequential, to: nn.Sequential, way: str) -> nn.Sequential:
    """A copy of `net` whose hidden units have the order of those of `to` that they are nearest to.

    way: "bottom-up" compares the weights and bias that enter a unit, from the first layer on; "top-down" the weights
    that leave it, from the last layer on. ValueError for another way, for networks of another kind, and for two of
    different sizes.
    """
    if way not in WAYS:
        raise ValueError(f"unknown way {way!r}; valid: {', '.join(WAYS)}")
    found = copy.deepcopy(net)
    mine, theirs = both(found, to)
    hidden = range(len(mine) - 1)
    for at in hidden if way == "bottom-up" else reversed(hidden):
        side = entering if way == "bottom-up" else leaving
        _, order = linear_sum_assignment(cdist(side(theirs, at), side(mine, at)))
        _reorder(mine, at, order)
    return found


def permuted(net: nn.Sequential, orders: Sequence[np.ndarray]) -> nn.Sequential:
    """A copy of `net` with the units of its hidden layers in other orders, a permutation each; it answers the same.

    ValueError for networks of another kind, and for what is not a permutation of each hidden layer's units.
    """
    found = copy.deepcopy(net)
    layers = weighted(found)
    units = [len(layer.weight) for layer in layers[:-1]]
    if [sorted(map(int, order)) for order in orders] != [list(range(n)) for n in units]:
        raise ValueError(f"it takes one permutation each of {', '.join(map(str, units))} units")
    for at, order in enumerate(orders):
        _reorder(layers, at, np.asarray(order))
    return found


def apart(net: nn.Sequential, to: nn.Sequential) -> list[float]:
    """Mean L2 distance of the weights and bias that enter a unit to those of the unit in its place: a number a layer.

    ValueError for networks of another kind, and for two of different sizes.
    """
    layers = both(net, to)
    pairs = zip(*([entering(each, at) for at in range(len(each))] for each in layers), strict=True)
    return [float(np.linalg.norm(mine - theirs, axis=1).mean()) for mine, theirs in pairs]


def weighted(net: nn.Sequential) -> list[nn.Conv2d | nn.Linear]:
    """The layers that have weights. ValueError for a network whose units cannot be put in another order so simply."""
    layers = [layer for layer in net.children() if isinstance(layer, nn.Conv2d | nn.Linear)]
    if not layers or not isinstance(net, nn.Sequential):
        raise ValueError("units are exchanged in an nn.Sequential with convolutions or fully connected layers")
    others = [layer for layer in net if not isinstance(layer, (nn.Conv2d, nn.Linear, *ALIKE))]
    others += [layer for layer in layers if layer.bias is None or getattr(layer, "groups", 1) != 1]
    if others:
        raise ValueError(f"units cannot be exchanged through {others[0]}")
    return layers


def both(net: nn.Sequential, to: nn.Sequential) -> tuple[list, list]:
    """The weighted layers of two networks of one kind; ValueError otherwise."""
    layers = weighted(net), weighted(to)
    mine, theirs = (", ".join("x".join(map(str, layer.weight.shape)) for layer in each) for each in layers)
    if mine != theirs:
        raise ValueError(f"networks of different sizes have no units in common: weights {mine} and {theirs}")
    return layers


def entering(layers: Sequence[nn.Conv2d | nn.Linear], at: int) -> np.ndarray:
    """Weights and bias that enter each unit of a layer, float64 (units, weights + 1)."""
    weight, bias = (values.numpy(force=True).astype(float) for values in (layers[at].weight, layers[at].bias))
    return np.hstack([weight.reshape(len(weight), -1), bias[:, None]])


def leaving(layers: Sequence[nn.Conv2d | nn.Linear], at: int) -> np.ndarray:
    """Weights that leave each unit of a layer for the next, float64 (units, weights)."""
    return _by_unit(layers, at).transpose(0, 1).flatten(1).numpy(force=True).astype(float)


def _by_unit(layers: Sequence[nn.Conv2d | nn.Linear], at: int) -> torch.Tensor:
    """The next layer's weights, (its units, units of this layer, …): a flattened channel is many of its inputs."""
    after = layers[at + 1].weight.detach()
    return after.contiguous().reshape(len(after), len(layers[at].weight), -1)


def _reorder(layers: Sequence[nn.Conv2d | nn.Linear], at: int, order: np.ndarray) -> None:
    """Put the units of a hidden layer in another order, in place, here and where they enter the next."""
    here, after, rows = layers[at], layers[at + 1], torch.from_numpy(order)
    moved = _by_unit(layers, at)[:, rows].reshape(after.weight.shape)
    with torch.no_grad():
        here.weight.copy_(here.weight[rows].clone())
        here.bias.copy_(here.bias[rows].clone())
        after.weight.copy_(moved)
