"""How far records lie from a network's decision boundary: Algorithm 1 of Rezaei & Liu 2020, in three protocols.

"paper": the algorithm as it is printed. It leaves two things open: the loss, for which we take cross-entropy, and the
length of a step, for which we take that of the released code's step.

"released-code": what github.com/shrezaei/MI-Attack does (attacks/distance_to_boundary.py). Its step has the same size
in every pixel, its gradient is ten steps old at most, every step is clipped to 0..1 whatever the scale of the input,
a record that was misclassified from the start counts as having crossed after one step, and the distance is measured
from the first step, not from the record.

"minimal": the nearest point of another class that we can find. DeepFool (Moosavi-Dezfooli et al. 2016, section 3) says
how far to look, decoupled direction and norm (DDN: Rony et al. 2019, Algorithm 1) finds a nearer point, which then
moves along the boundary to where the way to the record is the boundary's normal.

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
CANDIDATES = (10, 4)  # "minimal": classes that DeepFool looks at, in its first step (as its authors do) and later
NEWTON = 30  # "minimal": DeepFool's steps at most
OVERSHOOT = 0.02  # "minimal": how far DeepFool goes beyond the boundary that it expects, as its authors do
DDN = 25  # "minimal": steps of DDN
CHANGE = 0.05  # "minimal": by what share each of them changes the norm, as DDN's authors do
SHARES = (0.3, 0.05)  # "minimal": of the norm, how long DDN's first step is, and its last
ROUNDS = 12  # "minimal": moves along the boundary
PART = {"cpu": 32, "cuda": 1024}  # images a network is asked about at once: on a CPU more would not fit its cache
JOB = 256  # records a process takes at a time


@dataclass(frozen=True)
class Distances:
    """L2 distances of n records; where the search did not cross a boundary, `crossed` is False, the distances NaN."""

    distance: np.ndarray  # float64 (n,) in the space that the network sees
    pixels: np.ndarray  # float64 (n,) the same way in units of pixels of 0..1
    crossed: np.ndarray  # bool (n,)
    steps: np.ndarray  # int64 (n,) steps of the search (of DeepFool for "minimal") until it crossed or gave up


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
    """DeepFool, DDN, and moves along the boundary; a point once found is left only for a nearer one."""
    label = _ask(net, x).argmax(1)
    far, crossed, taken = _deepfool(net, x, label)
    x, label, found = x[crossed], label[crossed], far[crossed]
    if len(x):
        found = _ddn(net, x, _shorten(net, x, found, label, 1.0, 10), label)
        found = _shorten(net, x, _along(net, x, found, label), label, 1.0, 16)
    way = torch.zeros_like(far)
    way[crossed] = found - x
    return way, crossed, taken


PROTOCOLS: dict[str, Callable[..., tuple[torch.Tensor, ...]]] = {
    "paper": _printed,
    "released-code": _released,
    "minimal": _minimal,
}


def _deepfool(net: nn.Module, x: torch.Tensor, label: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """A point of another class (or x), whether it is one, and the steps taken."""
    _, far, crossed, taken = _blank(x)
    here, rows, way = x, torch.arange(len(x), device=x.device), torch.zeros_like(x)
    for step in range(NEWTON + 1):
        gap, gradient = _nearest(net, here, label[rows], CANDIDATES[min(step, 1)])
        out = gap >= 0
        far[rows[out]], crossed[rows[out]], taken[rows] = here[out], True, step
        on = ~out & (_flat(_norm(gradient)) > 0)
        rows, gap, gradient = rows[on], gap[on].reshape(-1, *(1,) * (x.ndim - 1)), gradient[on]
        if not len(rows):
            break
        way = way[on] + (1e-4 - gap) / _norm(gradient) ** 2 * gradient
        here = x[rows] + (1 + OVERSHOOT) * way
    return far, crossed, taken


def _ddn(net: nn.Module, x: torch.Tensor, found: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """The nearest point outside that steps from x meet, on spheres that shrink outside and grow inside, or `found`."""
    best = _norm(found - x)
    radius, here = best * (1 - CHANGE), x
    for step in range(DDN):
        logits, gradient = _gradient(net, here, _margin, label)
        out, length = (logits.argmax(1) != label).reshape(best.shape), _norm(here - x)
        better = out & (length < best)
        found, best = torch.where(better, here, found), torch.where(better, length, best)
        if step:
            radius = torch.where(out, radius.minimum(length) * (1 - CHANGE), radius * (1 + CHANGE))
        share = SHARES[1] + (SHARES[0] - SHARES[1]) * (1 + math.cos(math.pi * step / DDN)) / 2
        way = here - x + share * radius * gradient / _norm(gradient).clamp_min(1e-30)
        here = x + radius * way / _norm(way).clamp_min(1e-30)
    return found


def _along(net: nn.Module, x: torch.Tensor, found: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Turn the way from x to `found` towards the boundary's normal there, as long as it leads out no later."""
    share = torch.ones_like(_norm(found))
    for _ in range(ROUNDS):
        length = _norm(found - x).clamp_min(1e-30)
        _, gradient = _gradient(net, found, _lead, label)
        turned = (1 - share) * (found - x) / length + share * gradient / _norm(gradient).clamp_min(1e-30)
        there = x + length * turned / _norm(turned).clamp_min(1e-30)
        out = _ask(net, there).argmax(1) != label
        if out.any():
            found[out] = _shorten(net, x[out], there[out], label[out], 0.2, 4)
        share = torch.where(out.reshape(share.shape), (2 * share).clamp_max(1), share / 2)
    return found


def _nearest(
    net: nn.Module, x: torch.Tensor, label: torch.Tensor, candidates: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the likeliest other classes the one whose boundary is nearest, were it linear: its logit less that of `label`
    (n,), and the gradient of that; where another class is predicted, a number of 0 or more.
    """
    gaps, gradients = [], []
    for part, own in zip(x.split(PART[x.device.type]), label.split(PART[x.device.type]), strict=True):
        part = part.detach().requires_grad_()
        logits = net(part)
        others = logits.detach().scatter(1, own[:, None], -torch.inf).topk(min(candidates, logits.shape[1]) - 1).indices
        pairs = [(logits.gather(1, k[:, None]) - logits.gather(1, own[:, None]))[:, 0] for k in others.T]
        slopes = torch.stack([torch.autograd.grad(pair.sum(), part, retain_graph=True)[0] for pair in pairs])
        gap = torch.stack(pairs).detach()
        nearest = (gap.abs() / slopes.flatten(2).norm(dim=2).clamp_min(1e-30)).argmin(0)
        nearest = torch.where(gap[0] >= 0, 0, nearest)
        each = torch.arange(len(part), device=x.device)
        gaps.append(gap[nearest, each])
        gradients.append(slopes[nearest, each])
    return torch.cat(gaps), torch.cat(gradients)


def _shorten(
    net: nn.Module, x: torch.Tensor, far: torch.Tensor, label: torch.Tensor, width: float, halvings: int
) -> torch.Tensor:
    """The nearest point found by bisection on the last `width` (0 to 1) of the way from x to `far`, still outside."""
    length = torch.ones_like(_norm(far))
    for halving in range(1, halvings + 1):
        shorter = length - width * 0.5**halving
        out = _ask(net, x + shorter * (far - x)).argmax(1) != label
        length = torch.where(out.reshape(length.shape), shorter, length)
    return x + length * (far - x)


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
