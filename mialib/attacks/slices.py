"""A deep target cut in two: layers below a slice, which its proxies share, and layers above, trained again.

Leino & Fredrikson 2020 read the layers above as linear around a record (slides 13 and 14 of USENIX Security 2020): what
`leino.Local` holds. How a logit is made linear is not said there; two ways are here, and `difference` is what both come
to. Logits are taken less their mean over the classes, as a softmax says nothing of it (see `leino.linear`).
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from mialib.attacks import leino
from mialib.models import fit, frozen, small, transfer
from mialib.models.fit import Recipe
from mialib.models.transfer import Teacher

Parts = tuple[torch.Tensor, torch.Tensor]  # weights (n, d) and biases (n,)


def cut(target: Teacher, count: int) -> tuple[Teacher, nn.Sequential]:
    """Below and above: f = g∘h, where h has the first `count` layers with weights and what follows up to the next.

    h as a teacher that says z (n, d), flattened, when it is asked (`transfer.logits`), g as layers that take it.
    ValueError unless a layer with weights is left on either side, and as `frozen.weighted` raises it.
    """
    names = frozen.weighted(target)
    if not 0 < count < len(names):
        raise ValueError(f"{len(names)} layers with weights are cut after 1 to {len(names) - 1} of them, not {count}")
    layers = list(target.net.named_children())
    at = [name for name, _ in layers].index(names[count])
    below = replace(target, net=nn.Sequential(OrderedDict(layers[:at])), layer=layers[at - 1][0])
    with torch.inference_mode():
        shape = below.net(torch.zeros(1, *target.inputs)).shape[1:]
    return below, nn.Sequential(OrderedDict([("unflatten", nn.Unflatten(1, shape)), *layers[at:]])).eval()


def proxies(
    target: Teacher, count: int, X: np.ndarray, y: np.ndarray, recipe: Recipe, words: Sequence[tuple]
) -> list[Teacher]:
    """Copies of the target whose layers above the slice are drawn anew and trained; `words`: seed words of each copy.

    What is below stays as it is. Where only linear layers and ReLUs follow, it is asked once a record, and all copies
    are trained on that (`fit.fit_many`); else once an epoch. ValueError as of `cut` and `transfer.train`.
    """
    below, above = cut(target, count)
    if not all(isinstance(layer, nn.Linear | nn.ReLU | nn.Flatten | nn.Unflatten) for layer in above):
        return [_trained_above(target, count, X, y, recipe, each) for each in words]
    z = transfer.logits(below, X)
    sizes = (z.shape[1], *(layer.out_features for layer in above if isinstance(layer, nn.Linear)))
    everyone = [np.arange(len(y))] * len(words)
    model = small.MLP(sizes, "relu")
    thetas = fit.fit_many(model, recipe, z, y, everyone, list(words), "serial")
    return [_with_head(target, small.layers(model, theta)) for theta in thetas]


def _trained_above(target: Teacher, count: int, X: np.ndarray, y: np.ndarray, recipe: Recipe, words: tuple) -> Teacher:
    copy, names = transfer.fresh(target, words), frozen.weighted(target)
    kept = {key: value for key, value in target.net.state_dict().items() if key.split(".")[0] in names[:count]}
    copy.net.load_state_dict(kept, strict=False)
    found = transfer.train(frozen.freeze(copy, count), X, y, recipe, words).net.state_dict()
    copy.net.load_state_dict({key.removeprefix("frozen."): value for key, value in found.items()})
    return copy


def _with_head(target: Teacher, layers: list) -> Teacher:
    copy = transfer.fresh(target, ("a head",))
    copy.net.load_state_dict(target.net.state_dict())
    last = [layer for layer in copy.net if isinstance(layer, nn.Linear)][-len(layers) :]
    with torch.no_grad():
        for layer, (weight, bias) in zip(last, layers, strict=True):
            layer.weight.copy_(torch.from_numpy(weight.T.copy()))
            layer.bias.copy_(torch.from_numpy(bias.copy()))
    return copy


# --- a logit, made linear -------------------------------------------------------------------------------------------


def logit(above: nn.Module, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """g_y(z), (n,): the true class's logit less the mean over the classes."""
    said = above(z)
    return said.gather(1, y[:, None])[:, 0] - said.mean(1)


def tangent(above: nn.Module, z: torch.Tensor, y: torch.Tensor) -> Parts:
    """The tangent at z: weights ∂g_y/∂z, and the bias with which it meets g_y in z."""
    at = z.detach().clone().requires_grad_()
    value = logit(above, at, y)
    [weights] = torch.autograd.grad(value.sum(), at)
    return weights, value.detach() - (weights * z).sum(1)


def integrated(above: nn.Module, z: torch.Tensor, y: torch.Tensor, steps: int) -> Parts:
    """Integrated gradients: mean of ∂g_y/∂z over the line from 0 to z (the middles of `steps` pieces); bias g_y(0).

    Complete: weights · z + bias comes to g_y(z) as the pieces become short (Sundararajan et al. 2017, Proposition 1).
    So bayes-wb with them is the difference of the true class's logits of target and proxy (derived).
    """
    weights = sum(tangent(above, z * ((k + 0.5) / steps), y)[0] for k in range(steps)) / steps
    return weights, at_zero(above, z, y)


def at_zero(above: nn.Module, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """g_y(0), (n,)."""
    with torch.no_grad():
        return logit(above, torch.zeros_like(z[:1]).expand(len(z), -1), y)


def local(
    above: nn.Module, others: Sequence[nn.Module], z: np.ndarray, y: np.ndarray, way: Callable[..., Parts] = tangent
) -> leino.Local:
    """`leino.Local` of a target and its proxies, of whom the layers above the slice are given; `way`: see above."""
    at, labels = torch.from_numpy(z), torch.from_numpy(y)
    with small.one_thread():
        own, *rest = ([part.numpy() for part in way(each, at, labels)] for each in (above, *others))
    return leino.Local(z, tuple(own), tuple(np.mean(part, axis=0) for part in zip(*rest, strict=True)))


def gradients(tangents: leino.Local, above: nn.Module, others: Sequence[nn.Module], y: np.ndarray) -> leino.Local:
    """The weights of tangents with the biases g_y(0): what lies between these and g_y(z) is left out.

    `integrated` is what puts that right. Where g has no biases, only linear layers and ReLUs, nothing is left out.
    """
    at, labels = torch.from_numpy(tangents.z), torch.from_numpy(y)
    with small.one_thread():
        own, *rest = (at_zero(each, at, labels).numpy() for each in (above, *others))
    return leino.Local(tangents.z, (tangents.target[0], own), (tangents.proxies[0], np.mean(rest, axis=0)))


def difference(above: nn.Module, others: Sequence[nn.Module], z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The true class's logit of the target less the mean of its proxies', (n,): bayes-wb without any gradient."""
    at, labels = torch.from_numpy(z), torch.from_numpy(y)
    with torch.inference_mode(), small.one_thread():
        own, *rest = (logit(each, at, labels).numpy() for each in (above, *others))
    return own - np.mean(rest, axis=0)
