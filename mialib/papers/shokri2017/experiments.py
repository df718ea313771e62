"""The experiments of Shokri et al. 2017: who is trained on what, observed and attacked; one `Attacked` a setting."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from mialib import config, papers, runs, source, work
from mialib.attacks import (
    Attacked,
    Observations,
    balance,
    balanced,
    baselines,
    calibration,
    classifiers,
    defenses,
    mlleaks,
    pool,
    shadow,
    signals,
    synthesis,
)
from mialib.data import splits
from mialib.data.datasets import Dataset
from mialib.data.splits import Split
from mialib.models import fit, platforms, small

# Our data sets under the names that the papers' tables print; any other goes by its own.
NAMES = {
    "adult": "Adult",
    "mnist": "MNIST",
    "cifar-10": "CIFAR-10",
    "cifar-100": "CIFAR-100",
    "cifar-100-coarse": "CIFAR-100 coarse",
    "location-2": "Location-2",
    "location-10": "Location-10",
    "location-20": "Location-20",
    "location-30": "Location",
    "texas-100": "Texas-100",
} | {f"purchase-{k}": f"Purchase-{k}" for k in (2, 10, 20, 50, 100)}
# Shokri et al. 2017, Table III, in its order: what is done to the output, and the weight of the L2 penalty.
MITIGATIONS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float]] = {
    "No mitigation": (defenses.none, 0.0),
    "Top k=3": (partial(defenses.top_k, k=3), 0.0),
    "Top k=1": (partial(defenses.top_k, k=1), 0.0),
    "Top k=1 label": (defenses.label_only, 0.0),
    "Rounding d=3": (partial(defenses.rounded, digits=3), 0.0),
    "Rounding d=1": (partial(defenses.rounded, digits=1), 0.0),
    "Temperature t=5": (partial(defenses.temperature, t=5), 0.0),
    "Temperature t=20": (partial(defenses.temperature, t=20), 0.0),
    "L2 lambda=1e-4": (defenses.none, 1e-4),
    "L2 lambda=5e-4": (defenses.none, 5e-4),
    "L2 lambda=1e-3": (defenses.none, 1e-3),
    "L2 lambda=5e-3": (defenses.none, 5e-3),
    "L2 lambda=1e-2": (defenses.none, 1e-2),
}


# Shokri et al. 2017, Fig 8: how the shadows' records are spoilt, and what share of their features.
NOISE: dict[str, tuple[Callable[[np.ndarray, float, np.random.Generator], np.ndarray] | None, float]] = {
    "real data": (None, 0.0),
    "noisy 10%": (synthesis.flipped, 0.1),
    "noisy 20%": (synthesis.flipped, 0.2),
    "noisy 10%, replaced": (synthesis.replaced, 0.1),
    "noisy 20%, replaced": (synthesis.replaced, 0.2),
}
ROLES = ("target", "shadow")


@dataclass(frozen=True)
class Row:
    """One data set of an exhibit: `size` records to train each target and each shadow (Shokri et al. 2017, VI-C)."""

    dataset: str
    size: int
    shadows: int
    targets: int  # target models, each on its own random records: the seeds the intervals are over
    hidden: int  # units; 0: a logistic regression, and `epochs` are its steps of L-BFGS
    epochs: int
    batch: int = 100
    filters: tuple[int, int] = (32, 32)  # of the network for images


def settings(exhibit: str, profile: str) -> tuple[Row, ...]:
    """The data sets and sizes of `exhibit` ("table2", "fig4", …) in `profile`; ValueError lists the valid names."""
    config.check_profile(profile)
    known = papers.sizes("shokri2017")
    if exhibit not in known:
        raise ValueError(f"unknown exhibit {exhibit!r}; valid exhibits: {', '.join(known)}")
    return tuple(Row(*row[:7], *map(tuple, row[7:])) for row in known[exhibit][profile])


def architecture(data: Dataset, row: Row) -> small.Model:
    """The paper's local networks (VI-B): for images its CNN, for others one hidden layer of tanh units."""
    if data.X.ndim > 2:
        return small.CNN(data.X.shape[1:], data.classes, row.hidden, row.filters)
    return small.MLP((data.X.shape[1], row.hidden, data.classes))


def observe(data: Dataset, row: Row, seed: int, role: str, side: list[Split], l2: float = 0.0) -> list[Observations]:
    """Train one network of `architecture` on each split of `side` and ask it: `shadow.observe`, as logits.

    `role` ("target", "shadow") and seed name the random streams; `l2`: weight of the penalty Σθ² (VIII-A). Without
    hidden units it is a logistic regression, `platforms.Stopped`; it takes no `l2`.
    """
    words = _words(data, row, seed, role, side)
    if not row.hidden:
        return _answered(_stopped(row), data, side, words)
    return shadow.observe(
        architecture(data, row), fit.Recipe(row.epochs, row.batch, l2=l2), data.X, data.y, side, words
    )


def _stopped(row: Row) -> platforms.Make:
    """A large C: no penalty to speak of, as nothing but the early stop shall hold it back."""
    return lambda _: platforms.Stopped(C=1e6, max_iter=row.epochs)


def _answered(make: platforms.Make, data: Dataset, side: list[Split], words: list[tuple]) -> list[Observations]:
    """What a classifier of `make` says, trained on the members of each split of `side`: as logits."""
    members, asked = [split.members for split in side], [_rows(split) for split in side]
    answers = platforms.answers(make, data.X, data.y, data.classes, members, asked, words)
    return [
        shadow.seen(lambda _, answer=answer: answer, data.y, split) for answer, split in zip(answers, side, strict=True)
    ]


def _rows(split: Split) -> np.ndarray:
    return np.concatenate([split.members, split.non_members])


def operating_point(data: Dataset, row: Row, seed: int) -> dict[str, float]:
    """Means over the targets of `row`: train_acc, and test_acc on all records that the target was not trained on.

    No attack: by these a recipe may be chosen.
    """
    everyone, targets = np.arange(data.X.shape[0]), _sides(data, row, seed)["target"]
    side = [Split(split.members, np.setdiff1d(everyone, split.members)) for split in targets]
    learnt = _accuracies(observe(data, row, seed, "target", side))
    return {key: float(np.mean([each[key] for each in learnt])) for key in learnt[0]}


def _words(data: Dataset, row: Row, seed: int, role: str, side: list[Split]) -> list[tuple]:
    return [(seed, role, data.name, row.size, i) for i in range(len(side))]


def _sides(data: Dataset, row: Row, seed: int, split: Callable = splits.targets_and_shadows) -> dict[str, list[Split]]:
    """The splits of `row.targets` targets and `row.shadows` shadows, none of which share a record of training."""
    return dict(zip(ROLES, split(data.X.shape[0], row.size, row.targets, row.shadows, seed, data.name), strict=True))


def attack(data: Dataset, row: Row, seed: int, kinds: tuple[str, ...] = ("nn",)) -> Attacked:
    """Train the models of `row` and attack every target, with no mitigation: see `mitigated`."""
    [attacked] = mitigated(data, row, seed, kinds, ("No mitigation",))
    return attacked


def calibrated(attacked: Attacked, data: Dataset, row: Row, seed: int) -> Attacked:
    """`attack` of these arguments with one answer more, "calibrated": `calibration.attack`, by the same shadows.

    They are asked about the targets' records too, which none of them was trained on (`splits.targets_and_shadows`); the
    threshold is set on what they say of each other's. ValueError where `attacked` has other records than these splits.
    """
    sides = _sides(data, row, seed)
    asked = [_sampled(split, attacked.words, i) for i, split in enumerate(sides["target"])]
    pairs = list(zip(asked, attacked.records, strict=True))
    if any(len(rows) != len(seen.y) or (data.y[rows] != seen.y).any() for rows, seen in pairs):
        raise ValueError("calibrated: the attack is on other records than those of this data set, row and seed")
    known = np.unique(np.concatenate([_rows(split) for split in sides["shadow"]]))
    theirs = np.unique(np.concatenate(asked))
    said = _said(data, row, seed, sides["shadow"], np.concatenate([known, theirs]))
    seen, reference = said[:, : len(known)], said[:, len(known) :]
    trained = np.stack([np.isin(known, split.members) for split in sides["shadow"]])
    results = [
        calibration.attack(
            calibration.scaled(target.vectors, target.y), reference[:, np.searchsorted(theirs, rows)], seen, trained
        )
        for rows, target in pairs
    ]
    return replace(attacked, answers=attacked.answers | {"calibrated": results})


def _sampled(split: Split, words: tuple, i: int) -> np.ndarray:
    """The numbers of the records that `attack_all` asks the i-th target about."""
    rows = _rows(split)
    return rows[balanced(np.arange(len(rows)) < len(split.members), runs.stream(*words, "evaluation", i))]


def _said(data: Dataset, row: Row, seed: int, shadows: list[Split], rows: np.ndarray) -> np.ndarray:
    """`calibration.scaled` of each shadow model on the records `rows`, (shadows, records)."""
    members, words, y = [split.members for split in shadows], _words(data, row, seed, "shadow", shadows), data.y[rows]
    if not row.hidden:
        asked = [rows] * len(shadows)
        answers = platforms.answers(_stopped(row), data.X, data.y, data.classes, members, asked, words)
        return np.stack([calibration.scaled(small.softmax(answer), y) for answer in answers])
    model, recipe = architecture(data, row), fit.Recipe(row.epochs, row.batch)
    thetas = fit.fit_many(model, recipe, data.X, data.y, members, words)
    return calibration.of_models(model, thetas, data.X[rows], y)


def settling(data: Dataset, row: Row, seed: int, kinds: tuple[str, ...] = ("nn",)) -> Iterator[Attacked]:
    """The attack of `row` with the first of its shadows, …, a quarter, half, and all of them: one `Attacked` each.

    Setting: the training size, as in Shokri et al. 2017, Fig 4. Where four disjoint sets of that size cannot be had
    (n < 4·size), records are cut as `splits.swapped` says.
    """
    split = splits.swapped if data.X.shape[0] < 4 * row.size else splits.targets_and_shadows
    sides = _sides(data, row, seed, split)
    targets, shadows = (_give_out(defenses.none, observe(data, row, seed, role, sides[role])) for role in ROLES)
    for count in (row.shadows >> halvings for halvings in range(row.shadows.bit_length() - 1, -1, -1)):
        about = _about(data, row) | {"shadows": count, "setting": f"{row.size:,} records"}
        yield attack_all(about, targets, shadows[:count], kinds, seed)


def mitigated(
    data: Dataset, row: Row, seed: int, kinds: tuple[str, ...], mitigations: Iterable[str]
) -> Iterator[Attacked]:
    """Train the models of `row`, then for each mitigation apply it to targets and shadows and attack every target.

    The attacks are the attack models `kinds` (trained on the shadows), then gap, zero_r and threshold. Models are
    trained once for each L2 weight. ValueError on a mitigation that is not in MITIGATIONS.
    """
    mitigations = list(mitigations)
    if unknown := [name for name in mitigations if name not in MITIGATIONS]:
        raise ValueError(f"unknown mitigation {unknown[0]!r}; valid: {', '.join(MITIGATIONS)}")
    sides = _sides(data, row, seed)
    for l2 in dict.fromkeys(MITIGATIONS[name][1] for name in mitigations):
        targets, shadows = (observe(data, row, seed, role, side, l2) for role, side in sides.items())
        for name in mitigations:
            defense, weight = MITIGATIONS[name]
            if weight == l2:
                about = _about(data, row) | {"setting": name}
                yield attack_all(about, _give_out(defense, targets), _give_out(defense, shadows), kinds, seed)


def _about(data: Dataset, row: Row) -> dict[str, str | int]:
    return {"dataset": NAMES.get(data.name, data.name), "size": row.size, "shadows": row.shadows, "tier": data.tier}


def on_platforms(
    data: Dataset, row: Row, seed: int, makers: Mapping[str, platforms.Make] = platforms.PLATFORMS
) -> Iterator[Attacked]:
    """Targets and shadows trained on each platform in turn: Shokri et al. 2017, Table I, Figs 5 and 7.

    `makers`: name -> function from a seed to an untrained classifier with `fit` and `predict_proba`. Setting: the
    name. The splits are the same for all; of `row`, hidden, epochs and batch are not used.
    """
    sides = _sides(data, row, seed)
    everyone = [split for side in sides.values() for split in side]
    words = [word for role, side in sides.items() for word in _words(data, row, seed, role, side)]
    for name, make in makers.items():
        seen = _give_out(defenses.none, _answered(make, data, everyone, words))
        about = _about(data, row) | {"setting": name}
        yield attack_all(about, seen[: row.targets], seen[row.targets :], ("nn",), seed)


def attackers(profile: str, seed: int) -> list[int]:
    """Seeds of Fig 8's attackers on logistic regressions, who draw sides, targets and shadows anew: `seed` first."""
    count = papers.sizes("shokri2017")["fig8"]["attackers"][profile]
    return [seed, *(int(runs.stream(seed, "attacker", i).integers(2**31)) for i in range(1, count))]


def noisy(data: Dataset, row: Row, seed: int) -> Iterator[Attacked]:
    """Shadows trained on records with noise, targets on those without: Shokri et al. 2017, Fig 8.

    Setting: "real data", then 10 % and 20 % noise by the text's definition (V-C: that many features of each record
    are flipped, "noisy 10%") and by the caption's (they are replaced with random values, "noisy 10%, replaced"). An
    attacker with noisy records has no others, so the shadows are asked about noisy non-members too. `accuracies` hold
    the shadows' own as well (shadow_train_acc and shadow_test_acc, means over them, on their noisy records).
    """
    sides = _sides(data, row, seed)
    targets = _give_out(defenses.none, observe(data, row, seed, "target", sides["target"]))
    for name, (spoil, share) in NOISE.items():
        X = spoil(data.X, share, runs.stream(seed, data.name, name)) if spoil else data.X
        shadows = _give_out(defenses.none, observe(replace(data, X=X), row, seed, "shadow", sides["shadow"]))
        found = attack_all(_about(data, row) | {"setting": name}, targets, shadows, ("nn",), seed)
        learnt = _accuracies(shadows)
        theirs = {f"shadow_{key}": np.mean([each[key] for each in learnt]) for key in learnt[0]}
        yield replace(found, accuracies=[each | theirs for each in found.accuracies])


def synthetic(data: Dataset, row: Row, seed: int) -> Iterator[Attacked]:
    """Shadows trained on records the attacker made up (Shokri et al. 2017, V-C, VI-E and Fig 9); binary records only.

    Setting: "real data", then "marginal-based synthetic" (features drawn one by one from their marginals among the
    records that no target has, labels by the target) and "model-based synthetic" (Algorithm 1 on the target). Each
    target gets shadows of its own, because its answers make their records; how many of either is as published, in
    proportion to `row.size`. `accuracies` of the last hold what the synthesis cost.
    """
    sides = _sides(data, row, seed)
    asked, known = (_give_out(defenses.none, observe(data, row, seed, role, sides[role])) for role in ROLES)
    yield attack_all(_about(data, row) | {"setting": "real data"}, asked, known, ("nn",), seed)
    targets, model, recipe = sides["target"], architecture(data, row), fit.Recipe(row.epochs, row.batch)
    members, words = [target.members for target in targets], _words(data, row, seed, "target", targets)
    thetas = fit.fit_many(model, recipe, data.X, data.y, members, words)
    theirs = np.concatenate([rows for target in targets for rows in (target.members, target.non_members)])
    others = np.setdiff1d(np.arange(data.X.shape[0]), theirs)
    for name, (make, n_shadows) in SYNTHESIS.items():
        about = _about(data, row) | {"setting": name, "shadows": min(n_shadows, row.shadows)}
        each = []
        for i, (theta, target) in enumerate(zip(thetas, asked, strict=True)):
            made = make(data, row, partial(_predict, model, theta), others, (seed, data.name, row.size, name, i))
            seen = _shadows_of(made, data, row, seed, about)
            found = attack_all(about, [target], seen, ("nn",), seed)
            each.append(replace(found, accuracies=[found.accuracies[0] | made.cost]))
        yield _joined(each)


@dataclass(frozen=True)
class Made:
    """Records an attacker made up, (m, d), their labels (m,), and what they cost."""

    X: np.ndarray
    y: np.ndarray
    cost: dict[str, float]


def _predict(model: small.Model, theta: np.ndarray, X: np.ndarray) -> np.ndarray:
    return small.softmax(small.logits(model, theta, X))


def _by_marginals(data: Dataset, row: Row, predict: Callable, others: np.ndarray, words: tuple) -> Made:
    """As many records as the targets leave over (187,300 in the paper), labelled by the target."""
    X = synthesis.marginal(data.X[others], len(others), runs.stream(*words))
    return Made(X, predict(X).argmax(1), {"synthesis_queries": 1.0})


def _by_model(data: Dataset, row: Row, predict: Callable, others: np.ndarray, words: tuple) -> Made:
    """Three times `row.size` records (30,000 in the paper), as many of each class until the search gives up."""
    wanted = np.resize(np.arange(data.classes), 3 * row.size)
    key = runs.digest(source.digest(synthesis.synthesize, _predict), *predict.args, wanted, words, _LIBRARIES)
    entry = work.cached(
        key,
        lambda: dataclasses.asdict(synthesis.synthesize(predict, data.X.shape[1], wanted, words)),
    )
    cost = synthesis.summary(synthesis.Synthetic(**entry))
    return Made(entry["X"], entry["y"], {
        "synthesis_queries": cost["queries"],
        "synthesis_queries_with_failures": cost["queries with failures"],
        "synthesis_confidence": cost["confidence"],
        "synthesis_kept": cost["kept"] / cost["wanted"],
        "synthesis_classes_timed_out": len(cost["timed out"]),
        "synthesis_classes_without_records": len(cost["classes without records"]),
    })  # fmt: skip


_LIBRARIES = runs.versions("numpy", "torch")
# How the attacker makes records up, and the paper's number of shadows for it (VI-E).
SYNTHESIS = {"marginal-based synthetic": (_by_marginals, 20), "model-based synthetic": (_by_model, 8)}


def _shadows_of(made: Made, data: Dataset, row: Row, seed: int, about: dict) -> list[Observations]:
    """What shadows say that are trained on made-up records; on half of them where there are fewer than 2·size."""
    size = min(row.size, len(made.y) // 2)
    if not size:
        raise ValueError(f"{about['setting']}: the synthesis found {len(made.y)} records, too few to train on")
    records = replace(data, X=made.X, y=made.y)
    rows = [runs.stream(seed, "made up", data.name, i).permutation(len(made.y)) for i in range(about["shadows"])]
    side = [splits.Split(order[:size], order[size : 2 * size]) for order in rows]
    return _give_out(defenses.none, observe(records, row, seed, "shadow", side))


def _joined(each: list[Attacked]) -> Attacked:
    """Attacks on one target each as one `Attacked`."""
    together = [[item for attacked in each for item in getattr(attacked, name)] for name in ("accuracies", "records")]
    answers = {name: [attacked.answers[name][0] for attacked in each] for name in each[0].answers}
    return Attacked(each[0].about, *together, answers, each[0].words)


def _give_out(defense: Callable[[np.ndarray], np.ndarray], side: list[Observations]) -> list[Observations]:
    return [Observations(defense(seen.vectors), seen.y, seen.member) for seen in side]


def attack_all(
    about: dict, targets: list[Observations], shadows: list[Observations], kinds: tuple[str, ...], seed: int
) -> Attacked:
    """Attack every target, given what targets and shadows give out: `kinds`, gap, zero_r, threshold.

    kinds: attack models (`classifiers.KINDS`) and `mlleaks.ADVERSARY_1`. `about` gets records, the fewest of a side.
    """
    words = (seed, "attack", about["dataset"], about["size"])
    sampled = [balance(target, runs.stream(*words, "evaluation", i)) for i, target in enumerate(targets)]
    seen = pool(shadows)
    answers = {
        kind: mlleaks.adversary_1(shadows[0], sampled, words)
        if kind == mlleaks.ADVERSARY_1
        else classifiers.attack(kind, seen, sampled, words)
        for kind in kinds
    }
    answers |= {
        "gap": [baselines.gap(target) for target in sampled],
        "zero_r": [baselines.zero_r(target) for target in sampled],
        "threshold": [baselines.confidence_threshold(seen, target) for target in sampled],
    }
    fewest = min(int(np.bincount(target.member, minlength=2).min()) for target in sampled)
    return Attacked(about | {"records": fewest}, _accuracies(targets), sampled, answers, words)


def _accuracies(targets: list[Observations]) -> list[dict[str, float]]:
    right = [signals.correct(seen.vectors, seen.y) for seen in targets]
    return [
        {"train_acc": hit[seen.member].mean(), "test_acc": hit[~seen.member].mean()}
        for hit, seen in zip(right, targets, strict=True)
    ]
