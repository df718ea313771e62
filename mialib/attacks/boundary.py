"""How far records lie from a network's decision boundary: Algorithm 1 of Rezaei & Liu 2020, in three protocols.

"paper": the algorithm as it is printed. It leaves two things open: the loss, for which we take cross-entropy, and the
length of a step, for which we take that of the released code's step.

"released-code": what github.com/shrezaei/MI-Attack does (attacks/distance_to_boundary.py). Its step has the same size
in every pixel, its gradient is ten steps old at most, every step is clipped to 0..1 whatever the scale of the input,
a record that was misclassified from the start counts as having crossed after one step, and the distance is measured
from the first step, not from the record.

"minimal": the nearest point of another class that decoupled direction and norm finds (DDN: Rony et al. 2019, Algorithm
1), and on the way to it the last that is outside. The first norm is what it were if the network were linear.

"paper" and "minimal" leave the class that the network predicts, which for misclassified records is not the true one.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from mialib import arrays, runs, work
from mialib.models import small, targets
from mialib.models.targets import Target, Trained

EPS = 1e-3  # released code: what a step adds to a pixel
REFRESH = 10  # released code: steps with one gradient
THETA = 1e-4  # released code: difference of confidences at which the bisection ends
BISECTIONS = 500  # released code: and the number of its halvings
DDN = 60  # "minimal": steps
CHANGE = 0.05  # "minimal": by what share each of them changes the norm, as DDN's authors do
WIDEN = 0.25  # "minimal": by what share a norm grows that has never led outside
SHARES = (0.3, 0.05)  # "minimal": of the norm, how long the first step is, and the last
HALVINGS = 12  # "minimal": of the last 5 % of the way
FAR = 1e6  # "minimal": the longest norm that is tried
PART = {"cpu": 32, "cuda": 1024}  # images a network is asked about at once: on a CPU more would not fit its cache
JOB = 256  # records a process takes at a time


@dataclass(frozen=True)
class Distances:
    """L2 distances of n records; where the search did not cross a boundary, `crossed` is False, the distances NaN."""

    distance: np.ndarray  # float64 (n,) in the space that the network sees
    pixels: np.ndarray  # float64 (n,) the same way in units of pixels of 0..1
    crossed: np.ndarray  # bool (n,)
    steps: np.ndarray  # int64 (n,) steps of the search until it crossed or gave up


def distances(
    net: nn.Module, x: torch.Tensor, y: torch.Tensor, protocol: str, steps: int = 8000, std: tuple[float, ...] = (1.0,)
) -> Distances:
    """Distances of records x (n, channels, …), as the network takes them, with true classes y (n,), on one thread.

    The network gives logits and must be in eval mode. `steps`: after how many the search gives up (not of "minimal");
    `std`: what the pixels of each channel were divided by. ValueError for an unknown protocol or a network in training.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}; valid: {', '.join(PROTOCOLS)}")
    if net.training:
        raise ValueError("the network is in training mode, where records depend on each other; call net.eval() first")
    y = torch.tensor(arrays.labels(y.cpu() if isinstance(y, torch.Tensor) else y, len(x)))
    with small.one_thread():
        way, crossed, taken = PROTOCOLS[protocol](net, x.detach().clone(), y.to(x.device), steps)
    scale = torch.tensor(std, dtype=torch.float64, device=x.device).reshape(-1, *(1,) * (x.ndim - 2))
    norms = [(way.double() * factor).flatten(1).norm(dim=1) for factor in (1.0, scale)]
    norms = [torch.where(crossed, norm, torch.nan).cpu().numpy() for norm in norms]
    return Distances(*norms, crossed.cpu().numpy(), taken.cpu().numpy())


def of_target(trained: Trained, rows: np.ndarray, protocol: str, steps: int) -> Distances:
    """`distances` of a target's records `rows`, one process a core (on a GPU: one); cached."""
    count = -(-len(rows) // JOB)
    parts = [rows[at::count] for at in range(count)]  # each a little of every class: they take equally long
    jobs = [(trained.net, trained.target, trained.data.X[p], trained.data.y[p], protocol, steps) for p in parts]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    about = (targets.identity(trained), parts, protocol, steps, device, runs.versions("numpy"))
    workers = 1 if device == "cuda" else None
    answers = work.every(_distances_of, jobs, *about, undefined=True, workers=workers)  # where no boundary was crossed
    found = [np.empty(len(rows), array.dtype) for array in answers[0]]
    for at, answer in enumerate(answers):
        for whole, part in zip(found, answer, strict=True):
            whole[at::count] = part
    return Distances(*found)


def _distances_of(net: nn.Module, target: Target, X: np.ndarray, y: np.ndarray, *how: Any) -> tuple[np.ndarray, ...]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    x = targets.normalised(target, X).to(device)
    net = copy.deepcopy(net).to(device)  # a move in place would take the caller's network along
    return tuple(vars(distances(net, x, torch.from_numpy(y), *how, targets.SCALES[target.scale][1])).values())


# --- the protocols: displacement to the boundary, crossed, steps ----------------------------------------------------


def _printed(net: nn.Module, x: torch.Tensor, y: torch.Tensor, steps: int) -> tuple[torch.Tensor, ...]:
    """Algorithm 1: normalised gradient steps, not clipped, until the predicted class changes, then bisection."""
    length = EPS * math.sqrt(x[0].numel())
    label = _ask(net, x).argmax(1)
    near, far, crossed, taken = _blank(x)
    here, rows = x, torch.arange(len(x), device=x.device)
    for step in range(steps + 1):
        logits, gradient = _gradient(net, here, _margin, label[rows])
        out = logits.argmax(1) != label[rows]
        far[rows[out]], crossed[rows[out]], taken[rows] = here[out], True, step
        norm = _norm(gradient)
        on = ~out & (_flat(norm) > 0)
        rows, here, way = rows[on], here[on], gradient[on] / norm[on]
        if not len(rows):
            break
        near[rows] = here
        here = here + length * way
    far[crossed] = _bisect(net, near[crossed], far[crossed], released=False)
    return far - x, crossed, taken


def _released(net: nn.Module, x: torch.Tensor, y: torch.Tensor, steps: int) -> tuple[torch.Tensor, ...]:
    """The released code, step by step."""
    near, far, crossed, taken = _blank(x)
    here, rows = x, torch.arange(len(x), device=x.device)
    origin, way = x, x
    for step in range(steps):
        if step % REFRESH == 0:
            _, gradient = _gradient(net, here, _square_error, y[rows])
            way = gradient / (gradient.abs() + 1e-11)  # called with norm=2, but the norm is over a batch of one
        there = here + EPS * way
        if step == 0:
            origin = there  # the released code changes its input in place, and measures the distance from that
        there = there.clamp(0, 1)
        out = _ask(net, there).argmax(1) != y[rows]
        far[rows[out]], near[rows[out]] = there[out], (there - EPS * way)[out].clamp(0, 1)
        crossed[rows[out]], taken[rows] = True, step + 1
        on = ~out
        if step % REFRESH == 0:  # whom a fresh gradient does not move, no later one will
            on &= (there != here).flatten(1).any(1)
        rows, here, way = rows[on], there[on], way[on]
        if not len(rows):
            break
    far[crossed] = _bisect(net, near[crossed], far[crossed], released=True)
    return far - origin, crossed, taken


def _minimal(net: nn.Module, x: torch.Tensor, y: torch.Tensor, steps: int) -> tuple[torch.Tensor, ...]:
    """DDN: steps from the record, on spheres that shrink outside and grow inside; then bisection on the way found."""
    label = _ask(net, x).argmax(1)
    _, found, _, taken = _blank(x)
    best, here = torch.full_like(_norm(x), torch.inf), x
    radius = best
    for step in range(DDN):
        # All other classes pull at first, which finds the nearest; then the one that leads: its gradient is the normal.
        logits, gradient = _gradient(net, here, _margin if step < DDN // 2 else _lead, label)
        out, length = (logits.argmax(1) != label).reshape(best.shape), _norm(here - x)
        taken[_flat(best.isinf())] = step
        better = out & (length < best)
        found, best = torch.where(better, here, found), torch.where(better, length, best)
        slope = _norm(gradient).clamp_min(1e-30)
        grown = torch.where(best.isinf(), 1 + WIDEN, 1 + CHANGE)
        if step:
            radius = torch.where(out, radius.minimum(length) * (1 - CHANGE), radius * grown)
        else:
            radius = _lead(logits, label).abs().reshape(best.shape) / slope
        radius = radius.clamp_max(FAR)
        share = SHARES[1] + (SHARES[0] - SHARES[1]) * (1 + math.cos(math.pi * step / DDN)) / 2
        way = here - x + share * radius * gradient / slope
        here = x + radius * way / _norm(way).clamp_min(1e-30)
    crossed = _flat(best.isfinite())
    way = found - x
    way[crossed] = _shorten(net, x[crossed], way[crossed], label[crossed])
    return way, crossed, taken


PROTOCOLS: dict[str, Callable[..., tuple[torch.Tensor, ...]]] = {
    "paper": _printed,
    "released-code": _released,
    "minimal": _minimal,
}


def _shorten(net: nn.Module, x: torch.Tensor, way: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """The ways from x shortened by bisection on their last part, by two of DDN's changes, ends still outside."""
    length = torch.ones_like(_norm(way))
    for halving in range(1, HALVINGS + 1):
        shorter = length - 2 * CHANGE * 0.5**halving
        out = _ask(net, x + shorter * way).argmax(1) != label if len(x) else torch.zeros(0, dtype=torch.bool)
        length = torch.where(out.reshape(length.shape), shorter, length)
    return length * way


def _bisect(net: nn.Module, near: torch.Tensor, far: torch.Tensor, released: bool) -> torch.Tensor:
    """Halve the way between `near` (inside) and `far` until their confidences differ by THETA at most.

    Returns the nearest point outside; as released, the last point looked at, and a third class on the way counts as
    inside.
    """
    near, far, last, rows = near.clone(), far.clone(), far.clone(), torch.arange(len(far), device=far.device)
    (sure_near, near_label), (sure_far, far_label) = (_ask(net, x).softmax(1).max(1) for x in (near, far))
    for _ in range(BISECTIONS):
        rows = rows[(sure_far[rows] - sure_near[rows]).abs() > THETA]
        if not len(rows):
            break
        middle = (near[rows] + far[rows]) / 2
        # With no number between the two, the same point would be looked at again until the last halving.
        new = (middle != near[rows]).flatten(1).any(1) & (middle != far[rows]).flatten(1).any(1)
        sure, label = _ask(net, middle).softmax(1).max(1)
        beyond = label != near_label[rows]
        if released:
            beyond &= label == far_label[rows]
        for at, point, confidence, name in ((beyond, far, sure_far, far_label), (~beyond, near, sure_near, near_label)):
            point[rows[at]], confidence[rows[at]], name[rows[at]] = middle[at], sure[at], label[at]
        last[rows] = middle
        rows = rows[new]
    return last if released else far


# --- asking the network ---------------------------------------------------------------------------------------------


def _ask(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Logits, part by part."""
    with torch.no_grad():
        return torch.cat([net(part) for part in x.split(PART[x.device.type])])


def _gradient(
    net: nn.Module, x: torch.Tensor, objective: Callable[..., torch.Tensor], *labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and the gradient of each record's objective(logits, *labels) with respect to the record."""
    logits, gradients = [], []
    for part, *aims in zip(*(each.split(PART[x.device.type]) for each in (x, *labels)), strict=True):
        part = part.detach().requires_grad_()
        out = net(part)
        gradients.append(torch.autograd.grad(objective(out, *aims).sum(), part)[0])
        logits.append(out.detach())
    return torch.cat(logits), torch.cat(gradients)


def _margin(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Log-odds against `label`. Cross-entropy is softplus of it, so both gradients point the same way, but this one
    does not vanish where the network is sure.
    """
    own = label[:, None]
    return logits.scatter(1, own, -torch.inf).logsumexp(1) - logits.gather(1, own)[:, 0]


def _square_error(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    return (logits.softmax(1) - nn.functional.one_hot(label, logits.shape[1])).square().sum(1)


def _lead(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """The largest logit of another class less that of `label`."""
    own = label[:, None]
    return logits.scatter(1, own, -torch.inf).amax(1) - logits.gather(1, own)[:, 0]


def _blank(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Two points, crossed, and steps for each record."""
    crossed = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    return x.clone(), x.clone(), crossed, torch.zeros(len(x), dtype=torch.int64, device=x.device)


def _norm(x: torch.Tensor) -> torch.Tensor:
    """L2 norm of each record, in the record's number of dimensions."""
    return x.flatten(1).norm(dim=1).reshape(-1, *(1,) * (x.ndim - 1))


def _flat(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(-1)
