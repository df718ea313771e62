"""The experiments of Crețu et al. 2024: shadows whose hidden units are, or are not, in the target's order.

The protocol is that of the code which the authors released (microsoft/shadow-realignment-mia): half of the data is the
target's, half the attacker's; half of each half trains a network, but for a few records by which training ends. An
attack network (`attacks.cretu`) learns from shadows how a record's label and one feature of it, outputs or last layer's
gradient, look for members, and is asked about a target.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.special import softmax
from torch import nn

from mialib import config, papers, runs, work
from mialib.attacks import alignment, cretu, nasr
from mialib.attacks.cretu import Training
from mialib.attacks.nasr import Features
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
    rate: float
    slowest: float
    patience: int
    stopping: int
    validated: int
    asked: int
    passes: int
    repeats: int

    def __post_init__(self) -> None:
        if self.shadows < 2 or self.targets < 1:
            raise ValueError(f"it takes a target and two shadows, not {self.targets} and {self.shadows}")
        if self.known < 10 or min(self.validated, self.stopping) < 1:
            raise ValueError(f"{self.size} members are too few to be known, held out and asked about")

    @property
    def known(self) -> int:
        """Members, and as many non-members, of the target that the attacker knows who has its records."""
        return self.size - self.validated - self.asked


@dataclass(frozen=True)
class Networks:
    """All that are trained, and on what; members of `target` trained every target."""

    targets: list[nn.Sequential]
    shadows: dict[str, list[nn.Sequential]]  # INDEPENDENT, SAME
    target: Split
    sides: list[Split]  # of the shadows: who learns what; each side's records that end a training are in neither


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
    both = targets_and_shadows(len(data.y), about.size + about.stopping, 1, about.shadows, seed, f"{PAPER} {data.name}")
    [target], sides = ([_cut(split, about.size) for split in side] for side in both)
    plateaus = modules.Plateaus(about.epochs, about.rate, about.slowest, about.patience)

    def job(cut: tuple[Split, np.ndarray], first: tuple, *order: str | int) -> tuple:
        split, held = cut
        net = modules.cnn(
            data.X.shape[1:], data.classes, about.filters, about.hidden, DROPPED, (seed, PAPER, "first", *first)
        )
        members, validation = ((data.X[rows], data.y[rows]) for rows in (split.members, held))
        return net, *members, plateaus, (seed, PAPER, *order), validation

    jobs = [job(target, (), "target", i) for i in range(about.targets)]
    jobs += [job(side, (i,), "shadow", i) for i, side in enumerate(sides)]
    jobs += [job(side, (), "shadow", i) for i, side in enumerate(sides)]
    nets = modules.train_all(jobs)
    own, others = nets[: about.targets], nets[about.targets :]
    shadows = {INDEPENDENT: others[: about.shadows], SAME: others[about.shadows :]}
    return Networks(own, shadows, target[0], [split for split, _ in sides])


def _cut(split: Split, size: int) -> tuple[Split, np.ndarray]:
    """The first so many of either side, and the rest of both, by which a training ends."""
    sides = split.members, split.non_members
    return Split(*(rows[:size] for rows in sides)), np.concatenate([rows[size:] for rows in sides])


def accuracies(net: nn.Sequential, data: Dataset, split: Split) -> dict[str, float]:
    """Share of a network's members ("train"), and of its non-members ("test"), that it classifies correctly."""
    sides = {"train": split.members, "test": split.non_members}
    return {side: modules.accuracy(net, data.X[rows], data.y[rows]) for side, rows in sides.items()}


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
    half = about.known // 2
    counts = (about.asked, about.validated, half, about.known - half)
    asked, *of_target = drawn(networks.target, counts, seed, PAPER, "of the target")
    questions = [observe(net, data, *asked) for net in networks.targets]
    found = {(GAP, OUTPUTS, ""): np.stack([right(each) for each in questions]).astype(float)}
    for attacker in (OWN, SAME, INDEPENDENT, *REALIGNED):
        kinds = [GRADIENTS] if attacker in REALIGNED else [OUTPUTS, GRADIENTS]  # a re-aligned network answers as before
        kinds += [OF_THE_LOSS] if attacker in BESIDE else []
        whole = attacker in (SAME, INDEPENDENT)  # what the attacker knows does not depend on the target
        parts = []
        for i, target in enumerate(networks.targets[:1] if whole else networks.targets):
            if attacker == OWN:
                check, known, more = (observe(target, data, *each) for each in of_target)
                taught = {"": [together([known, more])], "half": [known]}
            else:
                nets = networks.shadows[SAME if attacker == SAME else INDEPENDENT]
                if attacker in REALIGNED:
                    nets = [alignment.align(net, target, REALIGNED[attacker]) for net in nets]
                teachers, check = shadows(nets, networks.sides, data, about, seed)
                taught = {"": teachers} | ({"half": teachers[: len(teachers) // 2]} if len(teachers) > 1 else {})
            asks = together(questions) if whole else questions[i]
            parts.append(_answers(taught, check, asks, kinds, about, (seed, PAPER, attacker)))
        for key in parts[0]:
            found[attacker, *key] = np.concatenate([part[key] for part in parts]).reshape(about.targets, -1)
    return found


def shadows(
    nets: Sequence[nn.Sequential], sides: Sequence[Split], data: Dataset, about: Size, seed: int
) -> tuple[list[Seen], Seen]:
    """What each shadow but the last teaches, and what the last chooses an epoch by; no record is in both.

    A shadow teaches all its members and non-members but those that the last is asked about.
    """
    [held] = drawn(sides[-1], [about.validated], seed, PAPER, "held out")
    parts = []
    for net, split in zip(nets[:-1], sides, strict=False):
        rows = np.concatenate([split.members, split.non_members])
        known = ~np.isin(rows, held[0])
        parts.append(observe(net, data, rows[known], (np.arange(len(rows)) < len(split.members))[known]))
    return parts, observe(nets[-1], data, *held)


def _answers(
    taught: Mapping[str, Sequence[Seen]], check: Seen, asked: Seen, kinds: Sequence[str], about: Size, words: tuple
) -> dict[tuple[str, str], np.ndarray]:
    """(kind, "" or "half") -> scores of the asked records."""
    keys = [(kind, part) for kind in kinds for part in taught if not part or kind != OF_THE_LOSS]  # has no verdict
    jobs = [
        (
            [(each.features[kind], each.member) for each in taught[part]],
            (check.features[kind], check.member),
            asked.features[kind],
            (*words, kind, part),
            Training(epochs=about.passes),
        )
        for kind, part in keys
    ]
    # The other kinds of features follow from these and the label.
    seen = (*taught[""], *taught.get("half", []), check, asked)
    told = [(each.features[OF_THE_LOSS].y, each.features[OF_THE_LOSS].gradients, each.member) for each in seen]
    answers = work.every(cretu.learn, jobs, told, keys, about, words, runs.versions("numpy", "torch"))
    return dict(zip(keys, (score for [score] in answers), strict=True))


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
