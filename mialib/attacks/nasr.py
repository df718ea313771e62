"""The white-box attack of Nasr, Shokri & Houmansadr 2019 (arXiv:1812.00910), II-D, Fig 1, Table XIV: any network.

What observed models do with a record is seen by components, each a small network of its own: outputs of layers, the
label, the loss, and gradients by a layer's weights. An encoder makes one score of them. It learns from records whose
membership the attacker knows. Several observed models (epochs, federated rounds) are seen side by side.

Of one record the gradient by the weights of a fully connected layer is the outer product of the derivative by the
layer's outputs and of its inputs. Both come from one pass over many records, and the matrix is never kept.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import softmax
from sklearn.cluster import SpectralClustering
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from mialib import arrays, runs
from mialib.attacks import Result, signals
from mialib.models import small

CHUNK = 500  # records in one pass
DROPPED = 0.2
SPREAD = 0.01**0.5  # "N(0, 0.01)", read as mean and variance


@dataclass(frozen=True)
class Features:
    """What n records look like in T observed models."""

    y: np.ndarray  # (n,) int64
    loss: np.ndarray  # (n, T) float32
    outputs: tuple[np.ndarray, ...]  # of each layer asked for (n, T, d) float32
    gradients: tuple[tuple[np.ndarray, np.ndarray], ...]  # of each layer (n, T, outputs), (n, T, inputs) float32

    def __getitem__(self, rows: np.ndarray) -> "Features":
        """Those of some records."""
        pairs = tuple((delta[rows], entered[rows]) for delta, entered in self.gradients)
        return Features(self.y[rows], self.loss[rows], tuple(each[rows] for each in self.outputs), pairs)


def joined(parts: Sequence[Features]) -> Features:
    """The records of several as one."""
    outputs = tuple(np.concatenate(each) for each in zip(*(part.outputs for part in parts), strict=True))
    pairs = zip(*(part.gradients for part in parts), strict=True)
    gradients = tuple(tuple(np.concatenate(each) for each in zip(*layer, strict=True)) for layer in pairs)
    return Features(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("y", "loss")), outputs, gradients)


@dataclass(frozen=True)
class Training:
    """How the attack network is trained; the defaults are those of the paper."""

    kernels: int = 1000  # of the convolution over a gradient
    epochs: int = 100
    batch: int = 64  # half members, half non-members
    rate: float = 1e-4
    validation: float = 0.2  # share of the known records that choose the epoch (ours: the paper has none)


@dataclass(frozen=True)
class Answer:
    """The scores of m asked records after each epoch, and how well the validation part was told apart."""

    by_epoch: np.ndarray  # (epochs, m) float32, 0..1
    validated: np.ndarray  # (epochs,) balanced accuracy

    @property
    def result(self) -> Result:
        """At the epoch that the validation part chooses, the first of the best; a member above one half."""
        score = self.by_epoch[self.validated.argmax()].astype(float)
        return Result(score, score > 0.5)

    def best(self, member: np.ndarray) -> float:
        """Balanced accuracy at the epoch that is best on the asked records themselves, as the paper chooses it."""
        return float(max(balanced_accuracy(member, score > 0.5) for score in self.by_epoch))


def balanced_accuracy(member: np.ndarray, predicted: np.ndarray) -> float:
    """Mean of both sides' shares of right answers; both arrays bool (n,)."""
    return float((predicted[member].mean() + 1 - predicted[~member].mean()) / 2)


def attack(
    nets: Sequence[nn.Module],
    X: np.ndarray,
    y: np.ndarray,
    members: np.ndarray,
    non_members: np.ndarray,
    asked: np.ndarray,
    words: tuple,
    outputs: Sequence[str],
    gradients: Sequence[str] = (),
    training: Training = Training(),
) -> Answer:
    """Attack any network whose known `members` and `non_members` and `asked` records are row numbers of X, y.

    nets: the observed models, logits (n, classes) from float records X (n, …), y (n,) int; `outputs`, `gradients`:
    names of layers as in `named_modules`. ValueError for records that are known as both or are known and asked, and
    what `observe` and `learn` raise.
    """
    members, non_members, asked = (np.asarray(rows, dtype=np.int64) for rows in (members, non_members, asked))
    _disjoint(members, non_members, "given as members are given as non-members too")
    _disjoint(np.concatenate([members, non_members]), asked, "known are asked about too")
    known = np.concatenate([members, non_members])
    seen = observe(nets, X[np.concatenate([known, asked])], y[np.concatenate([known, asked])], outputs, gradients)
    first = np.arange(len(known))
    return learn(seen[first], first < len(members), seen[len(known) + np.arange(len(asked))], words, training)


def _disjoint(one: np.ndarray, other: np.ndarray, what: str) -> None:
    if len(both := np.intersect1d(one, other)):
        raise ValueError(f"{len(both)} records that are {what} (the first is {both[0]})")


# --- what is seen ---------------------------------------------------------------------------------------------------


def observe(
    nets: Sequence[nn.Module], X: np.ndarray, y: np.ndarray, outputs: Sequence[str], gradients: Sequence[str] = ()
) -> Features:
    """Loss, outputs of the layers `outputs` and gradients by the weights of the layers `gradients`, in each of `nets`.

    X (n, …) float, y (n,) int; as `attack` takes them. Networks are asked in evaluation mode. Loss and softmax are
    taken in double precision: for a sure network, p - 1 in single precision is rounding error. ValueError where
    there is no network, a layer is not there or not used, a gradient is asked of one that is not fully connected on
    flat inputs, or labels do not fit.
    """
    if not len(nets):
        raise ValueError("observe needs at least one network")
    y = arrays.labels(y, len(X))
    with small.one_thread():
        seen = [_seen(net, torch.as_tensor(X), torch.tensor(y), list(outputs), list(gradients)) for net in nets]
    loss, flat, pairs = zip(*seen, strict=True)
    layers = tuple(np.stack(each, 1) for each in zip(*flat, strict=True))
    both = tuple(tuple(np.stack(each, 1) for each in zip(*layer, strict=True)) for layer in zip(*pairs, strict=True))
    return Features(y, np.stack(loss, 1), layers, both)


def _seen(net: nn.Module, x: torch.Tensor, y: torch.Tensor, outputs: list[str], gradients: list[str]) -> tuple:
    """Of one network: loss (n,), outputs [(n, d)], gradients [((n, outputs), (n, inputs))], NumPy, float32."""
    modules = dict(net.named_modules())
    if unknown := [name for name in (*outputs, *gradients) if name not in modules]:
        raise ValueError(f"the network has no layer {unknown[0]!r}; it has {', '.join(filter(None, modules))}")
    if others := [name for name in gradients if not isinstance(modules[name], nn.Linear)]:
        kind = type(modules[others[0]]).__name__
        raise ValueError(f"gradients are taken of fully connected layers; {others[0]!r} is a {kind}")
    net.eval()
    parts = [_pass(net, modules, x[rows], y[rows], outputs, gradients) for rows in torch.arange(len(x)).split(CHUNK)]
    joined = [torch.cat(each).float().numpy() for each in zip(*parts, strict=True)]
    ends, pairs = 1 + len(outputs), iter(joined[1 + len(outputs) :])
    return joined[0], joined[1:ends], list(zip(pairs, pairs, strict=True))


def _pass(net: nn.Module, modules: dict, x: torch.Tensor, y: torch.Tensor, outputs: list, gradients: list) -> list:
    """Loss, then outputs, then derivative and input of each gradient, of some records."""
    given, entered = {}, {}

    def watch(name: str):
        def hook(module: nn.Module, inputs: tuple, out: torch.Tensor) -> torch.Tensor:
            given[name], entered[name] = out, inputs[0].detach().clone()
            return out.clone()  # a layer after this one may work in place

        return modules[name].register_forward_hook(hook)

    x = x.detach().clone()
    handles = [watch(name) for name in dict.fromkeys((*outputs, *gradients))]
    try:
        with torch.enable_grad():
            logits = net(x.requires_grad_() if x.is_floating_point() else x)
            loss = F.cross_entropy(logits.double(), y, reduction="none")
    finally:
        for handle in handles:
            handle.remove()
    if silent := [name for name in (*outputs, *gradients) if name not in given]:
        raise ValueError(f"the layer {silent[0]!r} is not used when the network answers")
    if deep := [name for name in gradients if entered[name].dim() != 2]:
        raise ValueError(f"the layer {deep[0]!r} takes inputs of {entered[deep[0]].dim()} dimensions, not flat records")
    deltas = torch.autograd.grad(loss.sum(), [given[name] for name in gradients]) if gradients else []
    pairs = [part for name, delta in zip(gradients, deltas, strict=True) for part in (delta, entered[name])]
    return [loss.detach(), *(given[name].detach().flatten(1) for name in outputs), *pairs]


def norms(features: Features, layer: int = -1) -> np.ndarray:
    """L2 norm of the gradient by the weights of one layer, (n, T): the product of both factors' norms."""
    delta, entered = features.gradients[layer]
    return np.linalg.norm(delta, axis=2) * np.linalg.norm(entered, axis=2)


# --- the attack network ---------------------------------------------------------------------------------------------


class Network(nn.Module):
    """A component for label, loss, each output and each gradient, all ending in 64 units, and the encoder.

    A gradient's convolution spans a layer's outputs (1 x "next layer", stride 1), the same kernels for all observed
    models: of δ hᵀ it is (kernels δ) hᵀ, without a gradient matrix. ReLU and dropout after every layer but the last,
    whose sigmoid is our choice. `rng` draws the weights; biases are 0.
    """

    def __init__(self, like: Features, classes: int, kernels: int, rng: np.random.Generator) -> None:
        super().__init__()
        times = like.loss.shape[1]
        self.kernels = nn.ModuleList(nn.Linear(delta.shape[2], kernels) for delta, _ in like.gradients)
        widths = [classes, times, *(times * each.shape[2] for each in like.outputs)]
        widths += [times * kernels * entered.shape[2] for _, entered in like.gradients]
        self.parts = nn.ModuleList(_chain(width, 128, 64) for width in widths)
        self.encoder, self.score = _chain(64 * len(widths), 256, 128, 64), nn.Linear(64, 1)
        with torch.no_grad():
            for name, values in self.named_parameters():
                drawn = np.zeros(values.shape) if name.endswith("bias") else rng.normal(0, SPREAD, values.shape)
                values.copy_(torch.from_numpy(drawn))

    def forward(self, label, loss, outputs, gradients, noise: torch.Generator | None = None) -> torch.Tensor:
        """Scores (n,) in 0..1; label (n, classes) one-hot, the others as in Features; `noise` drops units."""
        entering = [label, loss, *(each.flatten(1) for each in outputs)]
        for kernel, (delta, entered) in zip(self.kernels, gradients, strict=True):
            product = (delta @ kernel.weight.T)[..., None] * entered[:, :, None] + kernel.bias[:, None]
            entering.append(_dropped(product.relu_().flatten(1), noise))
        found = [_through(part, each, noise) for part, each in zip(self.parts, entering, strict=True)]
        return self.score(_through(self.encoder, torch.cat(found, 1), noise)).sigmoid().squeeze(1)


def _chain(*widths: int) -> nn.ModuleList:
    return nn.ModuleList(nn.Linear(*pair) for pair in itertools.pairwise(widths))


def _through(layers: nn.ModuleList, x: torch.Tensor, noise: torch.Generator | None) -> torch.Tensor:
    for layer in layers:
        x = _dropped(layer(x).relu_(), noise)
    return x


def _dropped(x: torch.Tensor, noise: torch.Generator | None) -> torch.Tensor:
    """Dropout by a stream of its own: PyTorch's takes the global one."""
    if noise is None:
        return x
    return x * (torch.rand(x.shape, generator=noise) >= DROPPED) / (1 - DROPPED)


def learn(known: Features, member: np.ndarray, asked: Features, words: tuple, training: Training) -> Answer:
    """Train the attack network on known records (member bool (n,)) and score the asked ones after every epoch.

    Each component's numbers are divided by one number, their standard deviation on the known records, so that small
    gradients count (our choice). Loss: the mean square distance of the score from 1 for members, from 0 for others
    (eq 3). Adam; an epoch goes once over the larger side. On one thread, float32. ValueError unless both sides have
    at least five known records, and for observations of another kind.
    """
    member = arrays.flags(member, len(known.y))
    if min(member.sum(), (~member).sum()) < 5:
        raise ValueError(f"an attack needs five known records of either side: {member.sum()} and {(~member).sum()}")
    if _shape(known) != _shape(asked):
        raise ValueError("known and asked records were not observed alike: other models, or other layers")
    classes = 1 + max(int(known.y.max()), int(asked.y.max(initial=0)))
    rng = runs.stream(*words, "white box")
    scales = _scales(known)
    tensors, questions = (_tensors(each, classes, scales) for each in (known, asked))
    sides = [rng.permutation(np.flatnonzero(member == side)) for side in (True, False)]
    cuts = [max(1, round(training.validation * len(side))) for side in sides]
    validation = np.concatenate([side[:cut] for side, cut in zip(sides, cuts, strict=True)])
    sides = [side[cut:] for side, cut in zip(sides, cuts, strict=True)]
    with small.one_thread():
        network = Network(known, classes, training.kernels, rng)
        noise = torch.Generator().manual_seed(int(rng.integers(2**62)))
        adam = torch.optim.Adam(network.parameters(), lr=training.rate, fused=True)
        by_epoch, validated, check = [], [], _rows(tensors, validation)
        for _ in range(training.epochs):
            for rows in _halves(sides, training.batch // 2, rng):
                wanted = torch.from_numpy(member[rows].astype(np.float32))
                loss = (network(*_rows(tensors, rows), noise) - wanted).square().mean()
                adam.zero_grad()
                loss.backward()
                adam.step()
            validated.append(balanced_accuracy(member[validation], _scores(network, check) > 0.5))
            by_epoch.append(_scores(network, questions))
    return Answer(np.stack(by_epoch), np.array(validated))


def _shape(features: Features) -> tuple:
    pairs = (part for pair in features.gradients for part in pair)
    return tuple(part.shape[1:] for part in (features.loss, *features.outputs, *pairs))


def _scales(known: Features) -> list[float]:
    """The spread of each component's numbers, 1 where they do not vary."""
    pairs = (part for pair in known.gradients for part in pair)
    return [float(part.std()) or 1.0 for part in (known.loss, *known.outputs, *pairs)]


def _tensors(features: Features, classes: int, scales: list[float]) -> tuple:
    """Arguments of `Network.forward`, each divided by its scale."""
    label, at = F.one_hot(torch.from_numpy(features.y), classes).float(), iter(scales)
    loss, *outputs = (torch.from_numpy(part / np.float32(next(at))) for part in (features.loss, *features.outputs))
    pairs = [tuple(torch.from_numpy(part / np.float32(next(at))) for part in pair) for pair in features.gradients]
    return label, loss, outputs, pairs


def _rows(tensors: tuple, rows: np.ndarray) -> tuple:
    label, loss, outputs, pairs = tensors
    at = torch.from_numpy(rows)
    return label[at], loss[at], [each[at] for each in outputs], [tuple(part[at] for part in pair) for pair in pairs]


def _halves(sides: list[np.ndarray], half: int, rng: np.random.Generator):
    """Batches of `half` members and as many non-members; the smaller side is gone over again."""
    most = max(map(len, sides))
    orders = [np.resize(rng.permutation(side), most) for side in sides]
    for at in range(0, most, half):
        yield np.concatenate([order[at : at + half] for order in orders])


def _scores(network: Network, tensors: tuple) -> np.ndarray:
    with torch.no_grad():
        places = np.split(np.arange(len(tensors[1])), range(CHUNK, len(tensors[1]), CHUNK))
        return np.concatenate([network(*_rows(tensors, rows)).numpy() for rows in places])


# --- without known members ------------------------------------------------------------------------------------------

QUANTITIES = ("loss", "correctness", "confidence", "uncertainty", "gradient norm")
CLUSTERED = 1000  # values that the spectral clustering sees; the others go with the nearest of them


def quantities(features: Features) -> np.ndarray:
    """What the decoder rebuilds of each record, float64 (n, T, 5), in the order of QUANTITIES (II-D, "unsupervised").

    Loss, whether the model is right, its confidence in the true class, its normalised entropy, and the norm of the
    gradient. The first of the features' outputs must be the last layer's, logits; so must the first gradient's layer.
    """
    vectors = softmax(features.outputs[0].astype(float), axis=2)
    several = (signals.correct, signals.true_class)
    told = [np.stack([ask(each, features.y) for each in vectors.swapaxes(0, 1)], 1) for ask in several]
    return np.stack([features.loss, *told, signals.uncertainty(vectors), norms(features, 0)], 2).astype(float)


class Autoencoder(nn.Module):
    """`Network` as encoder, the number before its sigmoid as the record's score, and Table XIV's decoder: 64 units.

    The decoder ends in as many outputs as there are quantities (Table XIV has 4 where the text names five). The score
    is any number, as the scores drawn in Fig 5 go into the hundreds.
    """

    def __init__(self, like: Features, classes: int, wanted: int, kernels: int, rng: np.random.Generator) -> None:
        super().__init__()
        self.network = Network(like, classes, kernels, rng)
        self.hidden, self.rebuilt = _chain(1, 64), nn.Linear(64, wanted)
        self._scores: list[torch.Tensor] = []
        self.network.score.register_forward_hook(lambda _, __, score: self._scores.append(score))
        with torch.no_grad():
            for layer in (*self.hidden, self.rebuilt):
                layer.weight.copy_(torch.from_numpy(rng.normal(0, SPREAD, layer.weight.shape)))
                layer.bias.zero_()

    def encode(self, *tensors, noise: torch.Generator | None = None) -> torch.Tensor:
        """Scores (n, 1); arguments as `Network.forward` takes them."""
        self.network(*tensors, noise)
        return self._scores.pop()

    def forward(self, *tensors, noise: torch.Generator | None = None) -> torch.Tensor:
        """The quantities (n, wanted) as they are rebuilt from the scores."""
        return self.rebuilt(_through(self.hidden, self.encode(*tensors, noise=noise), noise))


def embed(seen: Features, wanted: np.ndarray, words: tuple, training: Training) -> np.ndarray:
    """A score of each record, float64 (n,), from which the quantities `wanted` (n, d) can be rebuilt best.

    No label says who is a member: encoder and decoder learn from the very records that they score. Each quantity is
    taken less its mean and by its standard deviation, so that all weigh alike (our choice), mean square error, Adam;
    the last epoch counts (`training.validation` is not used). On one thread. ValueError for lengths that differ.
    """
    if len(wanted) != len(seen.y):
        raise ValueError(f"{len(wanted)} rows of quantities for {len(seen.y)} records")
    rng, classes = runs.stream(*words, "unsupervised"), 1 + int(seen.y.max())
    tensors, goal = _tensors(seen, classes, _scales(seen)), torch.from_numpy(standardised(wanted)).float()
    with small.one_thread():
        network = Autoencoder(seen, classes, wanted.shape[1], training.kernels, rng)
        noise = torch.Generator().manual_seed(int(rng.integers(2**62)))
        adam = torch.optim.Adam(network.parameters(), lr=training.rate, fused=True)
        for _ in range(training.epochs):
            order = rng.permutation(len(wanted))
            for rows in np.split(order, range(training.batch, len(order), training.batch)):
                rebuilt = network(*_rows(tensors, rows), noise=noise)
                loss = (rebuilt - goal[torch.from_numpy(rows)]).square().mean()
                adam.zero_grad()
                loss.backward()
                adam.step()
        with torch.no_grad():
            places = np.split(np.arange(len(wanted)), range(CHUNK, len(wanted), CHUNK))
            return np.concatenate([network.encode(*_rows(tensors, rows)).numpy()[:, 0] for rows in places]).astype(
                float
            )


def standardised(values: np.ndarray) -> np.ndarray:
    """Columns (n, d) less their mean and by their standard deviation, 0 where they do not vary."""
    spread = values.std(0)
    return (values - values.mean(0)) / np.where(spread > 0, spread, 1.0)


def clustered(values: np.ndarray, norm: np.ndarray, words: tuple) -> Result:
    """Cluster records in two by their values (n,) or (n, d): the one with the smaller mean gradient norm, members.

    Spectral clustering as scikit-learn has it by default (kernel exp(-d²), k-means) on standardised values of at most
    CLUSTERED records, drawn by `words`; any other record goes with the nearest of them. `norm` (n,), never a label,
    says which cluster is which (II-D). The score is the value, turned so that members' are larger; of several columns,
    the answer. ValueError where no two values differ.
    """
    values = np.asarray(values, dtype=float)
    table = standardised(values.reshape(len(values), -1))
    if not table.any():
        raise ValueError("values that are all the same cannot be clustered in two")
    rng = runs.stream(*words, "clusters")
    some = rng.permutation(len(table))[:CLUSTERED]
    kind = SpectralClustering(2, random_state=int(rng.integers(2**31))).fit_predict(table[some])
    kind = KNeighborsClassifier(1).fit(table[some], kind).predict(table)
    if len(means := [norm[kind == each].mean() for each in np.unique(kind)]) < 2:
        raise ValueError("spectral clustering put all records into one cluster")
    predicted = kind == int(np.argmin(means))
    if table.shape[1] > 1:
        return Result(predicted.astype(float), predicted)
    turn = 1 if table[predicted].mean() > table[~predicted].mean() else -1
    return Result(turn * values.reshape(-1), predicted)
