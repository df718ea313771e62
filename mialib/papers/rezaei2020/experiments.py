"""The experiments of Rezaei & Liu 2020: which targets are attacked, how, and what is measured on them.

Every rate is a mean over the classes (see `attacks.known`), on the fifths of each class in turn or, where its records
are in an order that tells something, on the last one. A target's name is that of its training, then "-b" if that was
the second one, then "@128" if it was stopped after 128 epochs.
"""

import functools
import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from mialib import metrics, papers, runs
from mialib.attacks import SUBSETS, Attacked, Observations, Result, boundary, gradients, known, layers, signals, subset
from mialib.attacks import blind as blindly
from mialib.attacks.known import Search
from mialib.models import targets as networks
from mialib.models.targets import Target, Trained

PAPER = "rezaei2020"
SIZES = papers.sizes(PAPER)
SEARCH, LAYER_SEARCH = (
    {profile: Search(**about) for profile, about in SIZES[name].items()} for name in ("search", "layer_search")
)
SEEDS, LAYER_SEEDS = SIZES["attack_seeds"], SIZES["layer_seeds"]
PRINTED = {  # name of a target, without "-b" and "@128": data set and model as the paper prints them
    f"{data}-{model}": (printed, as_printed)
    for data, printed, models_of in (
        ("mnist", "MNIST", {"lenet": "LeNet"}),
        ("cifar-10", "CIFAR-10", {"alexnet": "AlexNet", "resnet": "ResNet", "densenet": "DenseNet"}),
        ("cifar-100", "CIFAR-100", {"alexnet": "AlexNet", "resnet": "ResNet", "densenet": "DenseNet"}),
        ("imagenet", "ImageNet", {"inception": "InceptionV3", "xception": "Xception"}),
    )
    for model, as_printed in models_of.items()
}
VARIANTS = ("", "last epoch", "second training")  # of a target; "" is the one that published numbers are held against
CHOICES = {"best": "best of nine on the test part", "honest": "honest selection"}  # as tables name them
LAST = "last fifth"  # of each class: all that is asked in the released code
CHOICES |= {"last": f"{CHOICES['honest']}, {LAST}", known.NAIVE_LAST: LAST}
IN_ORDER = ("mnist",)  # data sets whose files differ from one end to the other, as the blind attack shows
METRICS = ("target_train_acc", "target_test_acc")  # the rows of `accuracies`
RATIOS = {"5:1": 5 / 6, "1:1": 1 / 2, "1:5": 1 / 6}  # members to non-members -> share of members (Table 2)
# As released: a class with fewer members or non-members has no attack model on its layers, gradients, distances.
LEAST_LAYER = {"all": 15, "correct": 10, "misclassified": 5}
LEAST_GRADIENT, LEAST_DISTANCE = 5, 10
ROLES = {"w": "weights", "x": "input"}  # by what a gradient is taken


def targets(profile: str) -> dict[str, Target]:
    """The target models in `profile`, by name."""
    return papers.targets(profile, PAPER)


def trained_as(name: str) -> str:
    """The name of a target's training, whichever it was and after however many epochs: a key of PRINTED."""
    return name.partition("@")[0].removesuffix("-b")


def called(name: str) -> tuple[str, str]:
    """Data set and model of a target as the paper prints them; KeyError for a name that is none."""
    return PRINTED[trained_as(name)]


def variant(name: str, profile: str) -> str:
    """Which of VARIANTS a target is; "last epoch" where the same training stopped at an epoch is there as well."""
    training, _, epoch = name.partition("@")
    if training.endswith("-b"):
        return "second training"
    return "last epoch" if not epoch and any(each.startswith(f"{name}@") for each in targets(profile)) else ""


def names(profile: str, variants: bool = False) -> list[str]:
    """Targets of `profile` in the paper's order: one a data set and model, with `variants` also its others."""
    found = [name for name in targets(profile) if variants or not variant(name, profile)]
    order = list(PRINTED)
    return sorted(found, key=lambda name: (order.index(trained_as(name)), VARIANTS.index(variant(name, profile))))


def target(name: str, profile: str) -> Target:
    """The target `name`; ValueError lists the names that `profile` has."""
    if name not in targets(profile):
        raise ValueError(f"unknown target {name!r}; valid in profile {profile}: {', '.join(targets(profile))}")
    return targets(profile)[name]


def looked_into(profile: str) -> list[str]:
    """`names` of the targets that Tables 5 to 7 are about in `profile`."""
    return [name for name in names(profile) if trained_as(name) in SIZES["looked_into"][profile]]


def in_turn(name: str) -> bool:
    """Whether attacks on a target are asked about every fifth of a class in turn, not about the last one alone."""
    return not trained_as(name).startswith(IN_ORDER)


def load(name: str, profile: str) -> Trained:
    """The target `name` with its weights: `models.targets.load`."""
    return networks.load(name, target(name, profile), profile)


def right(trained: Trained) -> np.ndarray:
    """Whether the target classifies each of its records correctly, bool (n,)."""
    return signals.correct(networks.confidences(trained), trained.data.y)


@functools.cache
def operating_point(name: str, profile: str) -> tuple[float, float]:
    """Train and test accuracy of a target, which is loaded for it."""
    train, test = accuracies(load(name, profile))["value"]
    return float(train), float(test)


# --- Tables 1 to 4: nine attacks on confidence vectors --------------------------------------------------------------


def confidence_attacks(trained: Trained, search: Search, seed: int, seeds: int = 1) -> Attacked:
    """The confidence-based attack: each record's feature is its whole confidence vector."""
    return known.nine_attacks(trained.name, seen(trained), search, seed, seeds, in_turn=in_turn(trained.name))


def seen(trained: Trained) -> Observations:
    """A target's confidence vectors on all its records."""
    return Observations(networks.confidences(trained), trained.data.y, trained.data.member)


def _kept(attacked: Attacked, name: str) -> np.ndarray:
    [seen] = attacked.records
    return subset(signals.correct(seen.vectors, seen.y), name)


def per_class(attacked: Attacked, attack: str, name: str = "all") -> pd.DataFrame:
    """`known.per_class` of one attack on a subset: the same attack models, evaluated on those records only.

    "honest" is asked in turn where that was done, "last" is the same choice on the last fifth. Column seed: an attack
    that was trained from several has a row a class and seed.
    """
    [seen], kept = attacked.records, _kept(attacked, name)
    return pd.concat(
        [
            known.per_class(attacked.result(each), seen.y, seen.member, kept).assign(seed=number)
            for number, each in enumerate(_answers(attacked, attack))
        ],
        ignore_index=True,
    )


def _answers(attacked: Attacked, attack: str) -> list[str]:
    if attack == "honest" and known.CROSS in attacked.answers:
        return [known.CROSS]
    which = attacked.chosen.get("honest" if attack == "last" else attack, attack)
    return [which, *(answer for answer in attacked.answers if answer.startswith(f"{which}, seed "))]


def _has(attacked: Attacked, attack: str) -> bool:
    """Whether an attack is one of its own: "last" is none where nothing is asked in turn."""
    return known.CROSS in attacked.answers or attack not in ("last", known.NAIVE_LAST)


def measured(
    everyone: Iterable[Attacked],
    attacks: Sequence[str] = ("best", "honest", "naive"),
    subsets: Sequence[str] = ("all",),
) -> pd.DataFrame:
    """One row a number: target, attack, subset, then the columns of `known.over_classes`."""
    return pd.concat(
        [
            known.over_classes(per_class(each, attack, name), **each.about, attack=attack, subset=name)
            for each in everyone
            for attack in attacks
            if _has(each, attack)
            for name in subsets
        ],
        ignore_index=True,
    )


def nine(attacked: Attacked) -> pd.DataFrame:
    """A row an attack: balanced accuracy on the validation part, on the asked records with its interval, and FPR."""
    table = measured([attacked], list(attacked.validated)).set_index(["attack", "metric"])["value"].unstack()
    table = table.loc[list(attacked.validated), ["balanced_accuracy", "recall", "fpr"]]
    table.insert(0, "validation", pd.Series(attacked.validated))
    best, honest = attacked.chosen["best"], attacked.chosen["honest"]
    marks = {best: "both"} if best == honest else {best: "best on test", honest: "honest"}
    return table.assign(chosen=[marks.get(attack, "") for attack in table.index]).rename_axis(index=None, columns=None)


def named(everyone: Iterable[Attacked], target: str, attack: str) -> str:
    """Which attack models "best", "honest" or "last" is on a target ("forest, over"); "" for another attack."""
    [each] = [each for each in everyone if each.about["target"] == target]
    return each.chosen.get("honest" if attack == "last" else attack, "")


def difference(attacked: Attacked, a: str = "honest", b: str = "naive") -> dict[str, float]:
    """Balanced accuracy of attack `a` minus the mean of `b`'s, class by class: value, low, high (`known.interval`)."""
    tables = [per_class(attacked, attack) for attack in (a, b)]
    left, other = (table.pivot(index="class", columns="seed", values="balanced_accuracy") for table in tables)
    left, other = left[other.notna().any(axis=1)].dropna(how="all"), other.mean(axis=1)
    return dict(zip(("value", "low", "high"), known.interval(left.sub(other[left.index], axis=0), -1, 1), strict=True))


def base_rates(attacked: Attacked, attacks: Sequence[str]) -> pd.DataFrame:
    """One row a number: attack, ratio (a key of RATIOS), then as `known.over_classes`."""
    return pd.concat(
        [
            known.over_classes(known.at_base_rate(per_class(attacked, attack), share), attack=attack, ratio=ratio)
            for ratio, share in RATIOS.items()
            for attack in attacks
        ],
        ignore_index=True,
    )


def too_small(everyone: Iterable[Attacked], name: str = "all") -> pd.DataFrame:
    """A row a target: classes without an attack model, and those whose last fifth of a subset lacks one side."""
    rows = []
    for each in everyone:
        table = per_class(each, known.NAIVE_LAST, name)
        lacking = {side: int((table[side] == 0).sum()) for side in ("members", "non_members")}
        rows.append(
            each.about
            | {"without a model": len(each.result("naive").skipped), "classes": len(table)}
            | {"without members": lacking["members"], "without non-members": lacking["non_members"]}
            | {side: int(table[side].sum()) for side in ("members", "non_members")}
            | {"median members of a class": table["members"].median()}
        )
    return pd.DataFrame(rows).set_index("target")


def accuracies(trained: Trained) -> pd.DataFrame:
    """The target's accuracy: rows target_train_acc and target_test_acc, columns value, low, high (Wilson, 95 %)."""
    hit, rows = right(trained), {}
    for metric, side in zip(METRICS, (True, False), strict=True):
        hits, n = int(hit[trained.data.member == side].sum()), int((trained.data.member == side).sum())
        low, high = stats.binomtest(hits, n).proportion_ci(method="wilson")
        rows[metric] = {"value": hits / n, "low": low, "high": high}
    return pd.DataFrame(rows).T.rename_axis("metric")


def confidence(trained: Trained) -> pd.DataFrame:
    """Mean confidence of members and non-members, all, correct and misclassified (Table 4), of two classes.

    One row a number: target, side ("train", "test"), subset, of ("predicted", "true" class), value, sd (over
    records, ddof 0), low, high (95 % of the mean), records. nan where there are no records.
    """
    vectors, y, member = networks.confidences(trained), trained.data.y, trained.data.member
    hit = signals.correct(vectors, y)
    of = {"predicted": vectors.max(1), "true": signals.true_class(vectors, y)}
    return pd.DataFrame(
        {"target": trained.name, "side": side, "subset": name, "of": what}
        | _mean(values[subset(hit, name) & (member == inside)])
        for side, inside in (("train", True), ("test", False))
        for name in SUBSETS
        for what, values in of.items()
    )


def _mean(values: np.ndarray) -> dict[str, float]:
    mean, low, high = metrics.mean_interval(values, 0, 1)
    sd = values.std(dtype=float) if len(values) else np.nan
    return {"value": mean, "sd": sd, "low": low, "high": high, "records": len(values)}


def cross_fitted(attacked: Attacked, search: Search, attack: str = "honest") -> Result:
    """`known.cross_fitted` of one of the nine attacks on confidence vectors."""
    [seen], (kind, sampling) = attacked.records, attacked.chosen.get(attack, attack).split(", ")
    return known.cross_fitted(kind, seen.vectors, seen.y, seen.member, attacked.words, sampling, search=search)


def told_apart(everyone: Iterable[tuple[Attacked, Result]], seed: int, repeats: int = 300) -> pd.DataFrame:
    """How well members and non-members are told apart at all thresholds: a row a target, subset and metric.

    everyone: attacks and the scores of `cross_fitted`. Columns target, subset, metric ("auc", and TPR at an FPR of at
    most 10, 1 and 0.1 %: "tpr_at_10", …), value, low, high (95 % bootstrap over records), members, non_members. The
    scores of all classes are pooled. A subset that lacks either side is left out.
    """
    rows = []
    for each, scored in everyone:
        target = each.about["target"]
        for name in SUBSETS:
            kept = _kept(each, name)[scored.rows]
            member, score = each.records[0].member[scored.rows][kept], scored.score[kept]
            if not member.any() or member.all():
                continue
            value = metrics.evaluate(member, score, score > 0.5)
            bounds = metrics.bootstrap(
                member, score, score > 0.5, runs.stream(seed, "told apart", target, name), repeats
            )
            counts = {"members": int(member.sum()), "non_members": int((~member).sum())}
            for metric in ("auc", *metrics.FPR_LIMITS):
                low, high = bounds[metric]
                row = {"target": target, "subset": name, "metric": metric}
                rows.append(row | {"value": value[metric], "low": low, "high": high} | counts)
    return pd.DataFrame(rows)


def blind(everyone: Iterable[Trained], seed: int, subsets: Sequence[str] = SUBSETS) -> pd.DataFrame:
    """The blind attack (`attacks.blind`) on the records of targets, in the data set's order and shuffled.

    One row a number, as `measured`: target, attack ("blind" or "blind, shuffled"), subset, then the columns of
    `known.over_classes`. No target is asked; which records are correct is its word.
    """
    tables = []
    for each in everyone:
        data, hit = each.data, right(each)
        shuffled = runs.stream(seed, "shuffled", each.target.dataset).permutation(len(data.y))
        for attack, order in {"blind": np.arange(len(data.y)), "blind, shuffled": shuffled}.items():
            y, member = data.y[order], data.member[order]
            scored = blindly.attack(data.X[order], y, member, (seed, attack, each.target.dataset))
            for name in subsets:
                table = known.per_class(scored, y, member, subset(hit[order], name))
                tables.append(known.over_classes(table, target=each.name, attack=attack, subset=name))
    return pd.concat(tables, ignore_index=True)


def between_trainings(measured: pd.DataFrame, profile: str) -> pd.DataFrame:
    """Two trainings of one target at the same epoch, beside each other: a row a data set and model, subset, metric.

    measured: with columns target, attack, subset, metric, value. Columns first, second, difference.
    """
    chosen = measured[measured["attack"] == "honest"]
    chosen = chosen.assign(of=chosen["target"].map(trained_as), variant=[variant(t, profile) for t in chosen["target"]])
    wide = chosen.pivot_table(index=["of", "subset", "metric"], columns="variant", values="value", sort=False)
    wide = wide.reindex(columns=["", "second training"]).set_axis(["first", "second"], axis=1).dropna()
    return wide.assign(difference=wide["second"] - wide["first"])


# --- Tables 5 to 7: layers, distances, gradients --------------------------------------------------------------------


def layer_attacks(
    trained: Trained, number: int, search: Search, seed: int, seeds: int = 1, subsets: Sequence[str] = SUBSETS
) -> dict[str, Attacked]:
    """Nine attacks on layer `number` (see `layers.layer`), trained on the records of each subset alone, as released.

    Subset -> its attacks; 128-64 networks throughout (released: 64 for the two subsets).
    """
    X, whole, hit, found = layers.layer(trained, number), seen(trained), right(trained), {}
    for name in subsets:
        kept = subset(hit, name)
        records = Observations(whole.vectors[kept], whole.y[kept], whole.member[kept])
        part = ("layer", number, name)
        how = {"features": X[kept], "least": LEAST_LAYER[name], "part": part, "in_turn": in_turn(trained.name)}
        found[name] = known.nine_attacks(trained.name, records, search, seed, seeds, **how)
    return found


def by_layer(
    attacked: dict[str, Attacked], attacks: Sequence[str] = ("best", "honest", "last", "nn, none")
) -> pd.DataFrame:
    """`layer_attacks` in numbers: target, attack, subset, models, skipped, then the columns of `known.over_classes`.

    models "own": trained on records of the subset alone; "shared": those trained on all records, evaluated on the
    subset. skipped: classes without an attack model.
    """
    tables = []
    for name, own in attacked.items():
        for models, each, asked in (("own", own, "all"), ("shared", attacked["all"], name)):
            if models == "own" or name != "all":
                tables += [
                    _skipping(each.result("naive"), per_class(each, attack, asked), **each.about, attack=attack)
                    .assign(subset=name, models=models)
                    for attack in attacks
                    if _has(each, attack)
                ]  # fmt: skip
    return pd.concat(tables, ignore_index=True)


def _skipping(scored: Result, table: pd.DataFrame, **about: str | int) -> pd.DataFrame:
    return known.over_classes(table, **about, skipped=len(scored.skipped))


def layers_of(trained: Trained) -> list[int]:
    """Which layers Table 5 has of a target: the last, and of LeNet the one before."""
    return [-1, -2] if trained.target.network == "lenet" else [-1]


def sampled(name: str, profile: str, protocol: str) -> tuple[int, int]:
    """How many records of a class, side and subset have their distances measured by a protocol, of how many classes."""
    *each, classes = SIZES["samples"][profile][trained_as(name)]
    return dict(zip(boundary.PROTOCOLS, each, strict=True))[protocol], classes


def sample(trained: Trained, profile: str, protocol: str) -> np.ndarray:
    """Rows, int64 ascending, whose distances are measured: the first members and non-members of each class.

    As many as `sampled` says, correct and misclassified ones counted apart; a class that lacks LEAST_DISTANCE of either
    side is left out of that part. The released code leaves out class 0 as well, which we do not. ValueError where no
    class is left.
    """
    data, hit = trained.data, right(trained)
    (each, classes), rows = sampled(trained.name, profile, protocol), []
    for label in range(min(classes, data.classes)):
        for correct in (True, False):
            here = (data.y == label) & (hit == correct)
            sides = [np.flatnonzero(here & (data.member == side))[:each] for side in (True, False)]
            rows += sides if min(map(len, sides)) >= LEAST_DISTANCE else []
    if not rows:
        raise ValueError(
            f"no class of {trained.name} has {LEAST_DISTANCE} members and as many non-members, all classified alike"
        )
    return np.sort(np.concatenate(rows))


def distances(trained: Trained, profile: str) -> pd.DataFrame:
    """Distances of a target's `sample` in every protocol of `boundary`: a row a record and protocol.

    Columns target, protocol, record, class, side ("train" or "test"), subset ("correct" or "misclassified"), clip: how
    far the record moves when its normalised pixels are clipped to 0..1, without any search; and those of
    `boundary.Distances`.
    """
    data, hit, tables = trained.data, right(trained), []
    for name in boundary.PROTOCOLS:
        rows = sample(trained, profile, name)
        x = networks.normalised(trained.target, data.X[rows]).flatten(1)
        about = {
            "target": trained.name,
            "record": rows,
            "class": data.y[rows],
            "side": np.where(data.member[rows], "train", "test"),
            "subset": np.where(hit[rows], "correct", "misclassified"),
            "clip": (x - x.clamp(0, 1)).norm(dim=1).numpy().astype(float),
        }
        found = boundary.of_target(trained, rows, name, SIZES["steps"][profile])
        tables.append(pd.DataFrame(about | {"protocol": name} | vars(found)))
    return pd.concat(tables, ignore_index=True)


def by_feature(
    name: str, features: np.ndarray, y: np.ndarray, member: np.ndarray, words: tuple, least: int, **about: str
) -> pd.DataFrame:
    """A logistic regression a class on features (n, d) of a target's records, and how well it does.

    Columns those of `about`, asked ("", and LAST where that is not all that is asked), skipped (classes without an
    attack model), then those of `known.over_classes`. Arguments: see `known.attack`.
    """
    asked = {LAST: known.attack("logistic", features, y, member, words, least=least)}
    if in_turn(name):
        every = known.cross_fitted("logistic", features, y, member, words, least=least, chosen=False)
        asked = {"": every} | asked
    tables = [
        _skipping(scored, known.per_class(scored, y, member), **about, asked=which if in_turn(name) else "")
        for which, scored in asked.items()
    ]
    return pd.concat(tables, ignore_index=True)


def by_distance(found: pd.DataFrame, seed: int) -> pd.DataFrame:
    """`by_feature` of the distances of `distances` that crossed: columns target, subset, protocol, then its own."""
    keys, tables = ["target", "subset", "protocol"], []
    for at, part in found[found["crossed"]].groupby(keys, sort=False):
        records = part[["distance"]].to_numpy(), part["class"].to_numpy(), part["side"].eq("train").to_numpy()
        about = dict(zip(keys, at, strict=True))
        tables.append(by_feature(about["target"], *records, (seed, *at), LEAST_DISTANCE, **about))
    return pd.concat(tables, ignore_index=True)


def distance_aucs(found: pd.DataFrame, seed: int) -> pd.DataFrame:
    """`signals.auc_by_class` of the distances of `distances` that crossed: a row a target, subset and protocol."""
    keys = ["target", "subset", "protocol"]
    parts = found[found["crossed"]].assign(member=found["side"].eq("train")).groupby(keys, sort=False)
    return pd.DataFrame(
        dict(zip(keys, at, strict=True)) | _auc(part, "distance", (seed, "distance", *at), LEAST_DISTANCE)
        for at, part in parts
    )


def _auc(records: pd.DataFrame, feature: str, words: tuple, least: int, repeats: int = 500) -> dict[str, float]:
    columns = (records[name].to_numpy() for name in (feature, "class", "member"))
    return signals.auc_by_class(*columns, runs.stream(*words), least, repeats)


def gradient_records(name: str, profile: str) -> int:
    """The most records of a class, side and subset of a target whose gradients are taken."""
    most = SIZES["records"][profile]
    return most.get(trained_as(name), most["all"])


def gradient_norms(trained: Trained, profile: str) -> pd.DataFrame:
    """The seven norms (columns w_l1 … x_kurtosis) of the first records of each class, side and subset.

    A row a record, in the order of the data set: target, class, member, correct, then the norms.
    """
    data, hit = trained.data, right(trained)
    rows = gradients.first(data.y, data.member, hit, gradient_records(trained.name, profile))
    norms = zip(ROLES, gradients.norms(trained, rows), strict=True)
    about = {"target": trained.name, "class": data.y[rows], "member": data.member[rows], "correct": hit[rows]}
    columns = {f"{by}_{name}": part[:, i] for by, part in norms for i, name in enumerate(gradients.NORMS)}
    return pd.DataFrame(about | columns)


def by_gradient(records: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Logistic regressions on seven norms, one a class, on correct and on misclassified records of one target.

    records: of `gradient_norms`. Columns target, subset, by ("w": weights, "x": input), then those of `by_feature`.
    """
    tables, target = [], records["target"].iloc[0]
    for name in SUBSETS[1:]:
        here = records[subset(records["correct"].to_numpy(), name)]
        y, member = here["class"].to_numpy(), here["member"].to_numpy()
        for by in ROLES:
            X = here[[f"{by}_{norm}" for norm in gradients.NORMS]].to_numpy()
            words, about = (seed, "gradient", target, name, by), {"target": target, "subset": name, "by": by}
            tables.append(by_feature(target, X, y, member, words, LEAST_GRADIENT, **about))
    return pd.concat(tables, ignore_index=True)


def gradient_aucs(records: pd.DataFrame, seed: int) -> pd.DataFrame:
    """`signals.auc_by_class` of each norm of `gradient_norms`: a row a target, subset, by ("w" or "x") and norm."""
    rows = []
    for (target, right), part in records.groupby(["target", "correct"], sort=False):
        name = "correct" if right else "misclassified"
        for by, norm in itertools.product(ROLES, gradients.NORMS):
            words = (seed, "gradient", target, name, by, norm)
            about = {"target": target, "subset": name, "by": by, "norm": norm}
            rows.append(about | _auc(part, f"{by}_{norm}", words, LEAST_GRADIENT, 200))
    return pd.DataFrame(rows)


# --- Figs 3 to 8: the attack at each epoch of a target's training ---------------------------------------------------


def watched(profile: str) -> list[str]:
    """Names of the trainings that are watched in `profile`: those that take hours, not days (see sizes.toml)."""
    return SIZES["watched"][profile]


def by_epoch(name: str, profile: str, seed: int) -> pd.DataFrame:
    """`at` for epochs of a target's training, see sizes.toml: target, epoch, subset, metric, value, low, high.

    The records asked are `targets.observed`: all non-members and as many members of each class. ValueError, saying
    what to run, where the target was not watched on this machine.
    """
    target = targets(profile)[name]
    data = networks.images(target, profile)
    seen = networks.observed(data)
    y, member = data.y[seen], data.member[seen]
    parts = []
    for epoch, answers in networks.observations(name, target, profile, SIZES["watched_every"][profile]).items():
        part = at(answers.astype(np.float32), y, member, (seed, "progress", name, epoch))
        parts.append(part.assign(target=", ".join(called(name)), epoch=epoch))
    return pd.concat(parts, ignore_index=True)[["target", "epoch", "subset", "metric", "value", "low", "high"]]


def at(answers: np.ndarray, y: np.ndarray, member: np.ndarray, words: tuple) -> pd.DataFrame:
    """One epoch: subset, metric, value, low, high.

    answers (n, classes) confidence vectors, y (n,) labels, member bool (n,). On subset "all": train_acc, test_acc,
    train_loss and test_loss of the target (mean -log of the true class's confidence, at least 1e-4: half precision
    knows little below). On each of SUBSETS: balanced_accuracy and fpr (FAR) of
    the attack, means over classes with their interval; the attack is the network on the confidence vector.
    """
    hit = answers.argmax(1) == y
    loss = -np.log(np.maximum(answers[np.arange(len(y)), y].astype(float), 1e-4))
    rows = [
        ("all", f"{side}_{what}", values[chosen].mean(), np.nan, np.nan)
        for side, chosen in (("train", member), ("test", ~member))
        for what, values in (("acc", hit), ("loss", loss))
    ]
    scored = known.attack("nn", answers, y, member, words)
    for name in SUBSETS:
        found = known.over_classes(known.per_class(scored, y, member, subset(hit, name))).set_index("metric")
        rows += [
            (name, metric, *found.loc[metric, ["value", "low", "high"]]) for metric in ("balanced_accuracy", "fpr")
        ]
    return pd.DataFrame(rows, columns=["subset", "metric", "value", "low", "high"])


def stopping(table: pd.DataFrame, profile: str) -> pd.DataFrame:
    """What stopping early would have bought: a row a target and moment, from `by_epoch`'s tables.

    Moments: the last epoch watched before the first drop of the learning rate, the epoch of the best test accuracy
    (chosen on the records the attack is measured on, as an owner with only those would), and the last one watched.
    """
    rows = []
    drops = {", ".join(called(name)): targets(profile)[name].drops for name in watched(profile)}
    for target, part in table.groupby("target", sort=False):
        wide = part.pivot(index="epoch", columns=["metric", "subset"], values="value")
        before = [epoch for epoch in wide.index if drops[target] and epoch <= drops[target][0]]
        moments = {"before the first drop": before[-1]} if before else {}
        moments |= {"best test accuracy": wide["test_acc", "all"].idxmax(), "last watched": wide.index[-1]}
        for moment, epoch in moments.items():
            row = {"target": target, "moment": moment, "epoch": epoch}
            row |= {name: wide.loc[epoch, (name, "all")] for name in ("train_acc", "test_acc")}
            row |= {
                f"{label}, {name}": wide.loc[epoch, (metric, name)]
                for metric, label in (("balanced_accuracy", "bal. acc."), ("fpr", "FAR"))
                for name in SUBSETS
            }
            rows.append(row)
    return pd.DataFrame(rows).set_index(["target", "moment"])
