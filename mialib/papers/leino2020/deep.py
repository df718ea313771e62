"""Leino & Fredrikson 2020 on deep targets: an attack at each layer of a network of two convolutions, and all together.

The attacker's models are worlds as in `precision`: of as many records as the target's, half of them to learn from, the
others for thresholds. She is one, with one set of records, and her worlds serve against all targets.
"""

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mialib import config, papers, runs, work
from mialib.attacks import Attacked, Observations, Result, baselines, classifiers, leino, pool, slices
from mialib.data import datasets
from mialib.data.datasets import Dataset
from mialib.models import small, transfer
from mialib.models.fit import Recipe
from mialib.models.transfer import Teacher
from mialib.papers.leino2020 import experiments, precision
from mialib.results import published

NAMES = {"mnist": "MNIST", "cifar-10": "CIFAR-10"}
FILTERS, HIDDEN = (20, 50), 500
# The slices, by how many layers with weights lie below: what z is at each.
LAYERS = {1: "conv 1", 2: "conv 2", 3: "FC 500"}
ALL = "all layers"
WAYS = ("bayes-wb", "gradient", "general-wb")  # in the order of `_scores`
PRIMARY = f"general-wb, {ALL}"
DRAWN = (*(f"{way}, {layer}" for way in ("bayes-wb", "general-wb") for layer in (*LAYERS.values(), ALL)), "nn")
ASKED = (f"bayes-wb, {ALL}", PRIMARY, "nn")  # of which the precision that is asked for is drawn
SMALLEST = 24  # pixels: smaller images are enlarged, as the network leaves nothing of them
STEPS = 50  # of integrated gradients, where they are drawn
TAUGHT, CHUNK = 2000, 100  # records of a world that general-wb learns from; records that are made linear at once
# What a record keeps of an attack at threshold 0, by the names of the published tables.
TOLD = {"auc": "attack_auc", "accuracy": "attack_total_acc", "precision": "attack_precision", "recall": "attack_recall"}
GAP = 0.005  # how far the MNIST target's generalisation gap may be from the printed one


@dataclass(frozen=True)
class Row:
    """The models of one data set: see sizes.toml."""

    dataset: str
    size: int  # records that train a network
    epochs: int
    targets: int
    learn: int  # worlds that attacks learn from; as many for thresholds
    proxies: tuple[int, int, int]  # of every target and world, at each of LAYERS
    asked: int  # members that attacks are asked about, and as many others

    @property
    def name(self) -> str:
        """As tables call it."""
        return NAMES[self.dataset]


@dataclass(frozen=True)
class World:
    """A target or one of the attacker's own: networks as flat weights, and which records are asked about."""

    nets: tuple[np.ndarray, ...]  # the target, then the proxies of each layer
    members: np.ndarray
    others: np.ndarray
    asked: np.ndarray  # members, then others


@dataclass(frozen=True)
class Deep:
    """The attacks on all targets of a row."""

    row: Row
    attacked: Attacked  # at threshold 0
    scored: precision.Scored  # at thresholds from worlds
    targets: list[World]


def rows(profile: str) -> tuple[Row, ...]:
    """The rows of sizes.toml in `profile`."""
    config.check_profile(profile)
    return tuple(Row(*row[:5], tuple(row[5]), row[6]) for row in papers.sizes("leino2020")["deep"][profile])


def load(name: str, profile: str) -> Dataset:
    """A data set by its name in sizes.toml, as images: uint8 (n, channels, side, side)."""
    data = datasets.load(name, profile)
    X = data.X
    if X.ndim == 2:
        side = math.isqrt(X.shape[1])
        X = np.round(X * 255).astype(np.uint8).reshape(-1, 1, side, side)
        X = np.kron(X, np.ones((1, 1) + (-(-SMALLEST // side),) * 2, np.uint8))
    return Dataset(name, X, data.y, data.classes, data.tier, data.source, runs.digest(X, data.y))


def network(inputs: tuple[int, int, int], classes: int) -> Teacher:
    """The network of 20, 50 and 500 units, not trained.

    Two convolutions of 5x5 with ReLU and pooling, a hidden layer. The author names it for faces, padded there
    ("Overfitting and conceptual soundness"); for these images, and without padding, it is our choice.
    """
    return transfer.cnn(inputs[0], classes, FILTERS, HIDDEN, inputs[1])


# --- worlds ---------------------------------------------------------------------------------------------------------


def plans(y: np.ndarray, row: Row, rng: np.random.Generator) -> list[tuple[np.ndarray, ...]]:
    """(members, others, pool) of each target, then of each of the attacker's worlds; the pool trains the proxies.

    Record numbers of y (5 size,), in tenths of like classes: four are the owner's, of which half train each target, six
    the attacker's, dealt anew for each of her worlds and for the pool of each target. ValueError for too few records.
    """
    if len(y) < 5 * row.size:
        raise ValueError(
            f"{row.dataset}: {len(y)} records are too few for models of {row.size}, it takes five times that"
        )
    parts = experiments.deal(y, 10, rng)
    owner, theirs = np.concatenate(parts[:4]), np.concatenate(parts[4:])
    found = []
    for _ in range(row.targets):
        sides = [owner[part] for part in experiments.deal(y[owner], 2, rng)]
        found.append((*sides, theirs[experiments.deal(y[theirs], 3, rng)[0]]))
    for _ in range(2 * row.learn):
        found.append(tuple(theirs[part] for part in experiments.deal(y[theirs], 3, rng)))
    return found


def worlds(data: Dataset, row: Row, seed: int) -> list[World]:
    """Train all networks of a row: the targets' worlds, then the attacker's. ValueError where records are too few."""
    words = (seed, "leino deep", data.name, row.size)
    rng = runs.stream(*words)
    drawn = rng.permutation(len(data.X))[: 5 * row.size]
    made = [tuple(drawn[part] for part in plan) for plan in plans(data.y[drawn], row, rng)]
    about = row.dataset, row.size, row.epochs, row.proxies, len(made)
    jobs = [
        (data.X[members], data.y[members], data.X[theirs], data.y[theirs], data.classes, row, (*words, i))
        for i, (members, _, theirs) in enumerate(made)
    ]
    found = work.every(_train, jobs, data.digest, about, words, row.targets, runs.versions("numpy", "torch"))
    worlds = []
    for nets, (members, others, _) in zip(found, made, strict=True):
        asked = np.concatenate([rng.permutation(side)[: row.asked] for side in (members, others)])
        worlds.append(World(nets, members, others, asked))
    return worlds


def _train(
    X: np.ndarray, y: np.ndarray, pool: np.ndarray, labels: np.ndarray, classes: int, row: Row, words: tuple
) -> tuple[np.ndarray, ...]:
    """Target, then the proxies of each layer, as flat weights; all trained alike, proxies on `pool` from own starts."""
    recipe = Recipe(row.epochs)
    target = transfer.train(transfer.fresh(network(X.shape[1:], classes), words), X, y, recipe, words)
    nets = [target]
    for count, several in zip(LAYERS, row.proxies, strict=True):
        starts = [(*words, LAYERS[count], i) for i in range(several)]
        nets += slices.proxies(target, count, pool, labels, recipe, starts)
    return tuple(np.concatenate([part.numpy(force=True).ravel() for part in each.net.parameters()]) for each in nets)


def opened(world: World, row: Row, inputs: tuple[int, ...], classes: int, count: int) -> tuple:
    """At one of LAYERS: what is below, the target's layers above, and those of its proxies (see `slices.cut`)."""
    first = 1 + sum(row.proxies[: count - 1])
    nets = []
    for flat in (world.nets[0], *world.nets[first : first + row.proxies[count - 1]]):
        nets.append(network(inputs, classes))
        at = 0
        for part in nets[-1].net.parameters():
            with torch.no_grad():
                part.copy_(torch.from_numpy(flat[at : at + part.numel()].reshape(part.shape)))
            at += part.numel()
    (below, above), *others = (slices.cut(each, count) for each in nets)
    return below, above, [each for _, each in others]


# --- attacks --------------------------------------------------------------------------------------------------------


def attack(data: Dataset, row: Row, seed: int) -> Deep:
    """Train everything, and attack all targets at each of LAYERS, and at all of them together.

    "bayes-wb": on tangents, the difference of logits (so it is by integrated gradients too, see `linearised`);
    "gradient": `slices.gradients` of them; "general-wb": on tangents. "all layers": a logistic regression on the
    scores of one way at each layer (our choice). Beside them Shokri et al.'s shadow attack, "nn", and "gap". What is
    learnt is learnt on the first half of the attacker's worlds. ValueError where records are too few.
    """
    made, words = worlds(data, row, seed), (seed, "leino deep", data.name, "attacks")
    learn = slice(row.targets, row.targets + row.learn)
    learnt = [_displacement(made[learn], data, row, count, words) for count in LAYERS]
    jobs = [(data.X[world.asked], data.y[world.asked], world, learnt, data.classes, row) for world in made]
    found = work.every(_scores, jobs, data.digest, row, words, made, learnt, runs.versions("numpy", "torch"))
    seen = [
        Observations(small.softmax(logits), data.y[world.asked], np.isin(world.asked, world.members))
        for (logits, _), world in zip(found, made, strict=True)
    ]
    scores = _named(np.stack([each for _, each in found]), seen, learn)
    scores["nn"] = [each.score for each in classifiers.attack("nn", pool(seen[learn]), seen, words)]
    own = seen[: row.targets]
    answers = {name: [Result(s, s > 0) for s in each[: row.targets]] for name, each in scores.items()}
    answers["gap"] = [baselines.gap(each) for each in own]
    told = {"dataset": row.name, "size": row.size, "shadows": 2 * row.learn, "tier": data.tier, "setting": "all"}
    accuracies = [_learnt(world, data, row) for world in made[: row.targets]]
    attacked = Attacked(told | {"records": min(each.member.sum() for each in own)}, accuracies, own, answers, words)
    members = [each.member for each in seen]
    several = (slice(learn.stop, None), learn)  # for thresholds, and those that were learnt from
    thirds = [
        {
            name: [(each[i], members[i]), *((np.concatenate(each[s]), np.concatenate(members[s])) for s in several)]
            for name, each in scores.items()
        }
        for i in range(row.targets)
    ]
    return Deep(row, attacked, precision.Scored(row, data.tier, accuracies, thirds), made[: row.targets])


def _displacement(learn: Sequence[World], data: Dataset, row: Row, count: int, words: tuple) -> leino.Displacement:
    """general-wb at one layer, learnt on at most TAUGHT records of each world."""
    locals_, members = [], []
    for number, world in enumerate(learn):
        below, above, others = opened(world, row, data.X.shape[1:], data.classes, count)
        at = runs.stream(*words, LAYERS[count], number).permutation(world.asked)[:TAUGHT]
        locals_.append(slices.local(above, others, transfer.logits(below, data.X[at]), data.y[at]))
        members.append(np.isin(at, world.members))
    return leino.local_displacement(locals_, members, (*words, LAYERS[count]))


def _scores(
    X: np.ndarray, y: np.ndarray, world: World, learnt: Sequence[leino.Displacement], classes: int, row: Row
) -> tuple[np.ndarray, np.ndarray]:
    """The target's logits (n, classes), and scores (layers, ways, n) in the order of WAYS."""
    found = []
    for count, general in zip(LAYERS, learnt, strict=True):
        below, above, others = opened(world, row, X.shape[1:], classes, count)
        z, parts = transfer.logits(below, X), []
        for at in range(0, len(z), CHUNK):
            here = z[at : at + CHUNK], y[at : at + CHUNK]
            tangents = slices.local(above, others, *here)
            gradients = slices.gradients(tangents, above, others, here[1])
            ways = (
                leino.local_bayes_wb(tangents),
                leino.local_bayes_wb(gradients),
                leino.local_general_wb(general, tangents),
            )
            parts.append(np.stack([each.score for each in ways]))
        found.append(np.concatenate(parts, axis=1))
    with torch.inference_mode(), small.one_thread():
        logits = above(torch.from_numpy(z)).numpy()
    return logits, np.stack(found)


def _named(found: np.ndarray, seen: Sequence[Observations], learn: slice) -> dict[str, list[np.ndarray]]:
    """Attack -> its score on the records of each world; found: (worlds, layers, ways, n)."""
    scores, member = {}, np.concatenate([each.member for each in seen[learn]])
    for way, name in enumerate(WAYS):
        here = found[:, :, way]
        scores |= {f"{name}, {layer}": list(here[:, i]) for i, layer in enumerate(LAYERS.values())}
        together = make_pipeline(StandardScaler(), LogisticRegression())
        together.fit(np.concatenate([each.T for each in here[learn]]), member)
        scores[f"{name}, {ALL}"] = [together.decision_function(each.T) for each in here]
    return scores


def _learnt(world: World, data: Dataset, row: Row) -> dict[str, float]:
    """Accuracies of a target on all its members and on all others."""
    below, above, _ = opened(world, row, data.X.shape[1:], data.classes, len(LAYERS))
    found = {}
    for name, side in (("train_acc", world.members), ("test_acc", world.others)):
        with torch.inference_mode(), small.one_thread():
            said = above(torch.from_numpy(transfer.logits(below, data.X[side]))).argmax(1).numpy()
        found[name] = float((said == data.y[side]).mean())
    return found | {"gap": found["train_acc"] - found["test_acc"]}


def linearised(deep: Deep, data: Dataset, records: int = 10) -> pd.DataFrame:
    """How far each way to make a logit linear is from the difference of logits, at each layer of the first target.

    A row a data set and layer: columns spread (standard deviation of the difference over some of the records that are
    asked about), then the largest distance from it: "tangent", "integrated, k steps", "gradient".
    """
    world, found = deep.targets[0], []
    at = world.asked[:: max(len(world.asked) // records, 1)]
    for count, layer in LAYERS.items():
        below, above, others = opened(world, deep.row, data.X.shape[1:], data.classes, count)
        z, y = transfer.logits(below, data.X[at]), data.y[at]
        exact = slices.difference(above, others, z, y)
        locals_ = {"tangent": slices.local(above, others, z, y)}
        for k in (1, 10, 300):
            way = functools.partial(slices.integrated, steps=k)
            locals_[f"integrated, {k} steps"] = slices.local(above, others, z, y, way)
        locals_["gradient"] = slices.gradients(locals_["tangent"], above, others, y)
        off = {name: np.abs(leino.local_bayes_wb(each).score - exact).max() for name, each in locals_.items()}
        found.append({"data": deep.row.name, "layer": layer, "features": z.shape[1], "spread": exact.std()} | off)
    return pd.DataFrame(found).set_index(["data", "layer"])


# --- what is shown --------------------------------------------------------------------------------------------------


def overview(rows: Iterable[Row], loaded: dict[str, Dataset]) -> pd.DataFrame:
    """One line a row: the data set, its tier, and the numbers of the profile."""
    found = [
        {"data": row.name, "tier": loaded[row.dataset].tier, "size": row.size, "epochs": row.epochs}
        | {"targets": row.targets, "own worlds": 2 * row.learn, "asked of a side": row.asked}
        | {f"proxies, {layer}": each for layer, each in zip(LAYERS.values(), row.proxies, strict=True)}
        for row in rows
    ]
    return pd.DataFrame(found).set_index("data")


def calls(several: Iterable[Deep]) -> pd.DataFrame:
    """`precision.calls` of all, by thresholds from the attacker's worlds alone."""
    called = pd.concat([precision.calls(each.scored) for each in several], ignore_index=True)
    return called[called["way"].isin((precision.HALF, precision.WAYS[0]))]


@dataclass(frozen=True)
class Shown:
    """A record as the attack at the first convolution sees it: what each place adds to the log-odds of membership."""

    image: np.ndarray  # (channels, side, side) uint8
    evidence: np.ndarray  # (height, width), summed over the layer's filters
    score: float  # log-odds of bayes-wb: the sum of `evidence` and a bias


def giveaway(deep: Deep, data: Dataset) -> tuple[Shown, Shown]:
    """The member that the first target gives away most, and the most like it among those who are none.

    By rule: of its asked members that with the largest score of PRIMARY; of all non-members of its class that with the
    smallest Euclidean distance of pixels. Evidence is (w - v) z at the first convolution, by integrated gradients, so
    that it and the difference of the biases sum to bayes-wb's score there.
    """
    world = deep.targets[0]
    score, member = deep.scored.answers[0][PRIMARY][0]
    at = world.asked[np.argmax(np.where(member, score, -np.inf))]
    alike = world.others[data.y[world.others] == data.y[at]]
    far = ((data.X[alike].astype(float) - data.X[at]) ** 2).reshape(len(alike), -1).sum(1)
    both = np.array([at, alike[np.argmin(far)]])
    below, above, others = opened(world, deep.row, data.X.shape[1:], data.classes, 1)
    way = functools.partial(slices.integrated, steps=STEPS)
    local = slices.local(above, others, transfer.logits(below, data.X[both]), data.y[both], way)
    evidence = (local.target[0] - local.proxies[0]) * local.z
    side = math.isqrt(evidence.shape[1] // FILTERS[0])
    maps = evidence.reshape(len(both), FILTERS[0], side, side).sum(1)
    found = leino.local_bayes_wb(local).score
    return tuple(Shown(data.X[i], maps[k], float(found[k])) for k, i in enumerate(both))


def picture(pairs: dict[str, tuple[Shown, Shown]]) -> Figure:
    """Data set -> `giveaway`: a row each, the record and its evidence, then the non-member and its own."""
    figure, axes = plt.subplots(len(pairs), 4, figsize=(8.6, 2.5 * len(pairs)), squeeze=False, layout="constrained")
    for line, (name, pair) in zip(axes, pairs.items(), strict=True):
        most = max(np.abs(each.evidence).max() for each in pair) or 1.0
        for i, (each, kind) in enumerate(zip(pair, ("a member", "nearest non-member"), strict=True)):
            image, side = each.image.transpose(1, 2, 0), each.image.shape[-1]
            line[2 * i].imshow(image if image.shape[2] == 3 else image[..., 0], cmap="gray")
            line[2 * i].set_title(f"{name}\n{kind}")
            grey = line[2 * i + 1]
            grey.imshow(image.mean(2), cmap="gray", alpha=0.35)
            look = {"cmap": "RdBu_r", "vmin": -most, "vmax": most, "alpha": 0.75}
            shown = grey.imshow(each.evidence, extent=(-0.5, side - 0.5, side - 0.5, -0.5), **look)
            grey.set_title(f"evidence\nlog-odds {published.short(each.score)}")
        figure.colorbar(shown, ax=line[-1], label="for a member")
    for ax in axes.ravel():
        ax.set(xticks=[], yticks=[])
    return figure


def panels(measured: pd.DataFrame) -> pd.DataFrame:
    """Rows for `plots.dots`: AUC and, at threshold 0, accuracy and precision (panels), a row a data set and attack."""
    kept = measured["metric"].isin(("auc", "accuracy", "precision")) & measured["attack"].isin((*DRAWN, "gap"))
    table = measured[kept & ~((measured["metric"] == "auc") & (measured["attack"] == "gap"))]
    return table.assign(label=table["dataset"] + ", " + table["attack"], panel=table["metric"].replace("auc", "AUC"))


def compare(measured: pd.DataFrame, asked: pd.DataFrame, profile: str) -> list[dict]:
    """Cells: all of ours, and beside the slides' precision on MNIST our attacks, calibrated for it and at threshold 0.

    measured: `tables.summary` of all; asked: `precision.measured` of `calls`. A target whose generalisation gap is more
    than GAP from the printed one bears no verdict.
    """
    ours = []
    gaps = measured[measured["metric"].eq("gap") & measured["dataset"].eq(NAMES["mnist"])]["value"]
    printed = published.load("leino_deep").set_index("metric")["published"]
    off = len(gaps) and abs(gaps.iloc[0] - printed["target_gap"]) > GAP
    why = "demo profile" if profile == "demo" else "the target generalises otherwise" if off else ""
    for row in measured.itertuples():
        value = {key: getattr(row, key) for key in ("dataset", "value", "low", "high", "tier")}
        if row.attack == "target":
            about = {"setting": "target", "metric": f"target_{row.metric}"}
            ours.append(value | about | ({"not_comparable": why} if profile == "demo" and row.metric == "gap" else {}))
        elif row.metric in TOLD:
            ours.append(value | {"setting": row.attack, "metric": TOLD[row.metric]})
            if row.dataset == NAMES["mnist"] and row.metric == "precision":
                ours.append(_beside(ours[-1], f"{row.attack}, threshold 0", row.records, why))
    for row in asked[asked["way"].eq(precision.WAYS[0]) & asked["asked"].isin(precision.TOLD)].itertuples():
        about = {"dataset": row.name, "tier": row.tier, "setting": f"{row.attack}, {published.short(row.asked)} asked"}
        recall = {"value": row.recall, "low": row.recall_low, "high": row.recall_high, "metric": "attack_recall"}
        ours.append(about | recall)
        ours.append(about | {"metric": "attack_precision", "value": row.value, "low": row.low, "high": row.high})
        if row.name == NAMES["mnist"] and row.asked == printed["attack_precision"]:
            ours.append(_beside(ours[-1], about["setting"], row.total, why))
    return published.compare(ours, "leino_deep")


def _beside(cell: dict, variant: str, records: int, why: str) -> dict:
    return cell | {"setting": "white-box attack", "variant": variant, "records": records, "not_comparable": why}
