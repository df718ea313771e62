"""The experiments of Crețu et al. 2024: shadows whose hidden units are, or are not, in the target's order.

The protocol is that of the code which the authors released (microsoft/shadow-realignment-mia): half of the data is the
target's, half the attacker's; half of each half trains a network. An attack network learns from shadows how a
record's label and one feature of it, outputs or last layer's gradient, look for members, and is asked about a target.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.special import softmax
from torch import nn

from mialib import config, papers, runs, work
from mialib.attacks import alignment, nasr
from mialib.attacks.nasr import Features, Training
from mialib.data.datasets import Dataset
from mialib.data.splits import Split, targets_and_shadows
from mialib.models import modules

PAPER = "cretu2024"
DROPPED = 0.2
LAST = "fc2"  # the layer whose gradient is taken
OWN, SAME, INDEPENDENT = "target's own records", "same initialisation", "independent shadows"
REALIGNED = {f"re-aligned {way}": way for way in alignment.WAYS}
BESIDE = (INDEPENDENT, "re-aligned top-down")  # of these the gradients of the loss are attacked too
GAP = "gap attack"  # "a member, if classified correctly": asks no shadow
OUTPUTS, GRADIENTS, OF_THE_LOSS = KINDS = ("outputs", "gradients", "gradients of the loss")


@dataclass(frozen=True)
class Size:
    """See sizes.toml."""

    size: int
    targets: int
    shadows: int
    filters: tuple[int, int]
    hidden: int
    epochs: int
    fastest: float
    known: int
    validated: int
    asked: int
    kernels: int
    passes: int
    rate: float
    repeats: int

    def __post_init__(self) -> None:
        if self.shadows < 2 or self.targets < 1:
            raise ValueError(f"it takes a target and two shadows, not {self.targets} and {self.shadows}")
        if self.known + self.validated > self.size or self.known_own < 5:
            raise ValueError(f"{self.size} members are too few to be known, held out and asked about")

    @property
    def known_own(self) -> int:
        """Of either side, known of the target by the attacker who has its records: as far as they go, as many."""
        return min(self.known * (self.shadows - 1), self.size - self.validated - self.asked)

    @property
    def training(self) -> Training:
        """Of the attack network. None of what it learns from chooses its epoch: a shadow that it never saw does."""
        return Training(kernels=self.kernels, epochs=self.passes, batch=128, rate=self.rate, validation=0.0)


@dataclass(frozen=True)
class Networks:
    """All that are trained, and on what; members of `target` trained every target."""

    targets: list[nn.Sequential]
    shadows: dict[str, list[nn.Sequential]]  # INDEPENDENT, SAME
    target: Split
    sides: list[Split]  # of the shadows


@dataclass(frozen=True)
class Seen:
    """Records in one or several networks: `features` of all kinds, and who is a member."""

    features: dict[str, Features]
    member: np.ndarray


def size(profile: str) -> Size:
    """How large the experiment is."""
    config.check_profile(profile)
    about = papers.sizes(PAPER)["realignment"][profile]
    return Size(**about | {"filters": tuple(about["filters"])})


def train(data: Dataset, about: Size, seed: int) -> Networks:
    """Targets and shadows. All targets, and the shadows of SAME, begin with one set of weights.

    In the paper each target begins with its own, and so does a set of shadows for each. ValueError as
    `targets_and_shadows` raises it.
    """
    [target], sides = targets_and_shadows(len(data.y), about.size, 1, about.shadows, seed, f"{PAPER} {data.name}")
    descent = modules.Descent(about.epochs, about.fastest)

    def job(split: Split, first: tuple, *order: str | int) -> tuple:
        net = modules.cnn(
            data.X.shape[1:], data.classes, about.filters, about.hidden, DROPPED, (seed, PAPER, "first", *first)
        )
        return net, data.X[split.members], data.y[split.members], descent, (seed, PAPER, *order)

    jobs = [job(target, (), "target", i) for i in range(about.targets)]
    jobs += [job(split, (i,), "shadow", i) for i, split in enumerate(sides)]
    jobs += [job(split, (), "shadow", i) for i, split in enumerate(sides)]
    nets = modules.train_all(jobs)
    own, others = nets[: about.targets], nets[about.targets :]
    return Networks(own, {INDEPENDENT: others[: about.shadows], SAME: others[about.shadows :]}, target, sides)


def accuracies(net: nn.Sequential, data: Dataset, split: Split) -> dict[str, float]:
    """Share of a network's members ("train"), and of its non-members ("test"), that it classifies correctly."""
    found = {}
    for side, rows in (("train", split.members), ("test", split.non_members)):
        seen = nasr.observe([net], modules.scaled(data.X[rows]), data.y[rows], [LAST])
        found[side] = float((seen.outputs[0][:, 0].argmax(1) == seen.y).mean())
    return found


# --- what is seen ---------------------------------------------------------------------------------------------------


def observe(net: nn.Sequential, data: Dataset, rows: np.ndarray, member: np.ndarray) -> Seen:
    """KINDS of features of some records in one network; the gradients by the last layer's weights and biases."""
    found = nasr.observe([net], modules.scaled(data.X[rows]), data.y[rows], [LAST], [LAST])
    [logits], [(delta, entered)] = found.outputs, found.gradients
    entered = np.concatenate([entered, np.ones_like(entered[..., :1])], axis=2)  # what a bias is multiplied by
    nothing = np.zeros_like(found.loss)  # this paper's attack does not see the loss
    vectors = softmax(logits.astype(float), axis=2)
    released = doubly(vectors, found.y).astype(np.float32)
    return Seen(
        {
            OUTPUTS: Features(found.y, nothing, (vectors.astype(np.float32),), ()),
            GRADIENTS: Features(found.y, nothing, (), ((released, entered),)),
            OF_THE_LOSS: Features(found.y, nothing, (), ((delta, entered),)),
        },
        member,
    )


def right(seen: Seen) -> np.ndarray:
    """Whether the network classifies each record correctly, bool (n,)."""
    features = seen.features[OUTPUTS]
    return features.outputs[0][:, 0].argmax(1) == features.y


def doubly(vectors: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Derivative by the logits of what the released code takes for the loss: cross-entropy of softmax of softmax.

    vectors: softmax of the logits, float64 (n, T, classes); y (n,). The same shape.
    """
    outer = softmax(vectors, axis=2)
    outer[np.arange(len(y)), :, y] -= 1
    return vectors * (outer - (vectors * outer).sum(2, keepdims=True))


def together(several: Sequence[Seen]) -> Seen:
    """The records of several as one."""
    features = {kind: nasr.joined([each.features[kind] for each in several]) for kind in several[0].features}
    return Seen(features, np.concatenate([each.member for each in several]))


def drawn(split: Split, counts: Sequence[int], *words: str | int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Disjoint draws of a split's records, so many of either side each: rows, and who is a member, in turn."""
    rng, ends = runs.stream(*words), np.cumsum(counts)
    sides = [rng.permutation(rows)[: ends[-1]] for rows in (split.members, split.non_members)]
    found = [
        np.stack([side[end - n : end] for side in sides], axis=1).ravel() for n, end in zip(counts, ends, strict=True)
    ]
    return [(rows, np.arange(len(rows)) % 2 == 0) for rows in found]


# --- the attacks ----------------------------------------------------------------------------------------------------


def attack(networks: Networks, data: Dataset, about: Size, seed: int) -> dict[tuple[str, str], np.ndarray]:
    """(attacker, kind, "" or "half") -> scores (targets, 2·asked) of members and non-members in turn.

    "half": of an attacker who knows half as many shadows, or, of the target itself, half as many records. Gradients of
    the loss are attacked with independent shadows and with those that are re-aligned top-down.
    """
    counts = (about.asked, about.validated, about.known_own)
    asked, held, own = drawn(networks.target, counts, seed, PAPER, "of the target")
    questions = [observe(net, data, *asked) for net in networks.targets]
    found = {(GAP, OUTPUTS, ""): np.stack([right(each) for each in questions]).astype(float)}
    for attacker in (OWN, SAME, INDEPENDENT, *REALIGNED):
        kinds = [GRADIENTS] if attacker in REALIGNED else [OUTPUTS, GRADIENTS]  # a re-aligned network answers as before
        kinds += [OF_THE_LOSS] if attacker in BESIDE else []
        whole = attacker in (SAME, INDEPENDENT)  # what the attacker knows does not depend on the target
        parts = []
        for i, target in enumerate(networks.targets[:1] if whole else networks.targets):
            if attacker == OWN:
                known, check = (observe(target, data, *each) for each in (own, held))
                half = about.known_own // 2 * 2
            else:
                nets = networks.shadows[SAME if attacker == SAME else INDEPENDENT]
                nets = (
                    [alignment.align(net, target, REALIGNED[attacker]) for net in nets]
                    if attacker in REALIGNED
                    else nets
                )
                known, check = shadows(nets, networks.sides, data, about, seed)
                half = 2 * about.known * ((about.shadows - 1) // 2)
            parts.append(_answers(known, check, together(questions) if whole else questions[i], kinds, half, about,
                                  (seed, PAPER, attacker)))  # fmt: skip
        for key in parts[0]:
            found[attacker, *key] = np.concatenate([part[key] for part in parts]).reshape(about.targets, -1)
    return found


def shadows(
    nets: Sequence[nn.Sequential], sides: Sequence[Split], data: Dataset, about: Size, seed: int
) -> tuple[Seen, Seen]:
    """What all shadows but the last teach, and what the last chooses an epoch by; no record is in both."""
    [held] = drawn(sides[-1], [about.validated], seed, PAPER, "held out")
    parts = []
    for i, (net, split) in enumerate(zip(nets[:-1], sides, strict=False)):
        left = Split(*(rows[~np.isin(rows, held[0])] for rows in (split.members, split.non_members)))
        [known] = drawn(left, [about.known], seed, PAPER, "known", i)
        parts.append(observe(net, data, *known))
    return together(parts), observe(nets[-1], data, *held)


def _answers(
    known: Seen, check: Seen, asked: Seen, kinds: Sequence[str], half: int, about: Size, words: tuple
) -> dict[tuple[str, str], np.ndarray]:
    """(kind, "" or "half") -> scores of the asked records."""
    jobs, keys = [], []
    for kind in kinds:
        for part, rows in (("", slice(None)), ("half", slice(half))):
            if part and (kind == OF_THE_LOSS or not half):
                continue  # has no verdict anyway
            parts = known.features[kind][rows], known.member[rows], check.features[kind], check.member
            jobs.append((*parts, asked.features[kind], (*words, kind, part), about.training))
            keys.append((kind, part))
    told = [_parts(each.features[OF_THE_LOSS]) for each in (known, check, asked)], known.member, check.member
    answers = work.every(scored, jobs, told, keys, about, words, runs.versions("numpy", "torch"))
    return dict(zip(keys, (score for [score] in answers), strict=True))


def _parts(features: Features) -> tuple:
    return features.y, features.gradients


def scored(
    known: Features, member: np.ndarray, check: Features, check_member: np.ndarray, asked: Features, words: tuple,
    training: Training,
) -> tuple[np.ndarray]:  # fmt: skip
    """Scores of the asked records, at the epoch at which the attack network tells those of `check` apart best."""
    answer = nasr.learn(known, member, nasr.joined([check, asked]), words, training)
    checked, scores = np.split(answer.by_epoch, [len(check_member)], axis=1)
    best = np.argmax([nasr.balanced_accuracy(check_member, each > 0.5) for each in checked])
    return (scores[best].astype(float),)


# --- numbers --------------------------------------------------------------------------------------------------------


def mean_auc(scores: np.ndarray, member: np.ndarray) -> float:
    """AUC of each row of scores (targets, n), averaged."""
    members, others = member.sum(), (~member).sum()
    ranks = stats.rankdata(scores, axis=1)[:, member].sum(1)
    return float(((ranks - members * (members + 1) / 2) / (members * others)).mean())


def mean_accuracy(scores: np.ndarray, member: np.ndarray) -> float:
    """Balanced accuracy of "a member above one half" of each row of scores (targets, n), averaged."""
    return float(np.mean([nasr.balanced_accuracy(member, each > 0.5) for each in scores]))


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {"auc": mean_auc, "acc": mean_accuracy}


def resampled(scores: np.ndarray, metric: str, repeats: int, seed: int) -> np.ndarray:
    """A metric of `repeats` bootstrap draws of the asked records, the same for all targets, attacks and metrics.

    Records are members and non-members in turn, as `attack` gives them; either side is drawn by itself.
    """
    rng, count = runs.stream(seed, PAPER, "bootstrap"), scores.shape[1] // 2
    member, found = np.arange(2 * count) % 2 == 0, []
    for _ in range(repeats):
        rows = np.stack([2 * rng.integers(count, size=count), 2 * rng.integers(count, size=count) + 1], axis=1).ravel()
        found.append(METRICS[metric](scores[:, rows], member))
    return np.array(found)
