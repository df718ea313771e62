"""The experiments of Rezaei & Liu 2020: which targets are attacked, how, and what is measured on them.

Every rate is a mean over the classes, on the last 20 % of each class (see `attacks.known`).
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from mialib import metrics, papers, runs
from mialib.attacks import SUBSETS, Attacked, Observations, Result, boundary, gradients, known, layers, signals, subset
from mialib.attacks.known import Search
from mialib.models import targets as networks
from mialib.models.targets import Target, Trained

PAPER = "rezaei2020"
SIZES = papers.sizes(PAPER)
SEARCH = {profile: Search(**about) for profile, about in SIZES["search"].items()}
PRINTED = {  # name of a target: data set and model as the paper prints them
    f"{data}-{model}": (printed, as_printed)
    for data, printed, models_of in (
        ("mnist", "MNIST", {"lenet": "LeNet"}),
        ("cifar-10", "CIFAR-10", {"alexnet": "AlexNet", "resnet": "ResNet", "densenet": "DenseNet"}),
        ("cifar-100", "CIFAR-100", {"alexnet": "AlexNet", "resnet": "ResNet", "densenet": "DenseNet"}),
        ("imagenet", "ImageNet", {"inception": "InceptionV3", "xception": "Xception"}),
    )
    for model, as_printed in models_of.items()
}
NINE = tuple((kind, sampling) for kind in ("nn", "forest", "xgboost") for sampling in known.SAMPLINGS)
CHOICES = {"best": "best of nine on the test part", "honest": "honest selection"}  # as tables name them
METRICS = ("target_train_acc", "target_test_acc")  # the rows of `accuracies`
RATIOS = {"5:1": 5 / 6, "1:1": 1 / 2, "1:5": 1 / 6}  # members to non-members -> share of members (Table 2)
# As released: a class with fewer members or non-members has no attack model on its layers, gradients, distances.
LEAST_LAYER = {"all": 15, "correct": 10, "misclassified": 5}
LEAST_GRADIENT, LEAST_DISTANCE = 5, 10
ROLES = {"w": "weights", "x": "input"}  # by what a gradient is taken


def targets(profile: str) -> dict[str, Target]:
    """The target models in `profile`, by name."""
    return papers.targets(profile, PAPER)


def load(name: str, profile: str) -> Trained:
    """The target `name` with its weights: `models.targets.load`. ValueError lists the names that `profile` has."""
    if name not in targets(profile):
        raise ValueError(f"unknown target {name!r}; valid in profile {profile}: {', '.join(targets(profile))}")
    return networks.load(name, targets(profile)[name], profile)


def right(trained: Trained) -> np.ndarray:
    """Whether the target classifies each of its records correctly, bool (n,)."""
    return signals.correct(networks.confidences(trained), trained.data.y)


# --- Tables 1 to 4: nine attacks on confidence vectors --------------------------------------------------------------


def confidence_attacks(trained: Trained, search: Search, seed: int) -> Attacked:
    """The confidence-based attack: each record's feature is its whole confidence vector."""
    seen = Observations(networks.confidences(trained), trained.data.y, trained.data.member)
    return nine_attacks(trained.name, seen, search, seed)


def nine_attacks(name: str, seen: Observations, search: Search, seed: int) -> Attacked:
    """Attack confidence vectors with each of NINE, naively, and with ZeroR, and choose among the nine twice.

    "best" is chosen on the records it is reported on, as in the paper ("the seemingly best MI attack accuracy we
    achieve over all attack models"). "honest" is chosen by attacks that are trained on the first 60 % of each class
    and asked about the next 20 %, then trained again on 80 %, and reported on records that had no part in the choice.
    """
    vectors, y, member = seen.vectors, seen.y, seen.member
    hit = signals.correct(vectors, y)
    first, _ = known.split(y, member)
    theirs = (vectors[first], y[first], member[first], (seed, "validation", name))
    answers = {
        f"{kind}, {sampling}": known.attack(kind, vectors, y, member, (seed, "known", name), sampling, search=search)
        for kind, sampling in NINE
    }
    validation = {  # three quarters of 80 % are 60 %; a class of 15 has 12 of them
        f"{kind}, {sampling}": known.attack(kind, *theirs, sampling, least=12, search=search, share=0.75)
        for kind, sampling in NINE
    }
    validated = {attack: _balanced(scored, y[first], member[first]) for attack, scored in validation.items()}
    tested = {attack: _balanced(scored, y, member) for attack, scored in answers.items()}
    chosen = {why: max(found, key=found.get) for why, found in (("best", tested), ("honest", validated))}
    asked = next(iter(answers.values()))
    for attack, called in {"naive": hit[asked.rows], "zeror": np.ones(len(asked.rows), bool)}.items():
        answers[attack] = Result(called.astype(float), called, asked.skipped, asked.rows)
    accuracies = [{"train_acc": hit[member].mean(), "test_acc": hit[~member].mean()}]
    every = {attack: [scored] for attack, scored in answers.items()}
    return Attacked({"target": name}, accuracies, [seen], every, (seed, name), chosen, validated)


def _balanced(scored: Result, y: np.ndarray, member: np.ndarray) -> float:
    return float(known.per_class(scored, y, member)["balanced_accuracy"].mean())


def _kept(attacked: Attacked, name: str) -> np.ndarray:
    [seen] = attacked.records
    return subset(signals.correct(seen.vectors, seen.y), name)


def per_class(attacked: Attacked, attack: str, name: str = "all") -> pd.DataFrame:
    """`known.per_class` of one attack on a subset: the same attack models, evaluated on those records only."""
    [seen] = attacked.records
    return known.per_class(attacked.result(attack), seen.y, seen.member, _kept(attacked, name))


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
    """Which attack models "best" or "honest" stands for on a target ("forest, over"); "" for another attack."""
    [each] = [each for each in everyone if each.about["target"] == target]
    return each.chosen.get(attack, "")


def difference(attacked: Attacked, a: str = "honest", b: str = "naive", name: str = "all") -> dict[str, float]:
    """Balanced accuracy of attack `a` minus that of `b`, class by class: value, low, high (95 % Student t)."""
    left, other = (per_class(attacked, attack, name)["balanced_accuracy"] for attack in (a, b))
    gaps = (left - other).dropna().to_numpy()
    return dict(zip(("value", "low", "high"), metrics.mean_interval(gaps, -1, 1), strict=True))


def as_released(table: pd.DataFrame) -> pd.DataFrame:
    """`known.per_class`'s table, where the balanced accuracy of a class with one side only is that side's recall.

    So computes scikit-learn, and with it the released code: a class without misclassified members counts with the
    share of its non-members that the attack got right. We leave such a class out.
    """
    alone = table["recall"].fillna(table["recall_nonmember"])
    return table.assign(balanced_accuracy=table["balanced_accuracy"].fillna(alone))


def at_base_rate(table: pd.DataFrame, share: float) -> pd.DataFrame:
    """`known.per_class`'s table, were the share of members among the records `share` (Table 2).

    Exact: an attack's TPR and FPR in a class do not depend on how many of each kind are asked, so the counts are
    weighted and nobody is drawn. ValueError unless 0 < share < 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"the share of members must lie between 0 and 1: got {share}")
    tpr, fpr = table["recall"].to_numpy(), table["fpr"].to_numpy()
    weighted = (share * tpr, share * (1 - tpr), (1 - share) * fpr, (1 - share) * (1 - fpr))
    return table.assign(**metrics.rates(*weighted))[list(table.columns)]


def base_rates(attacked: Attacked, attacks: Sequence[str], shares: dict[str, float] = RATIOS) -> pd.DataFrame:
    """One row a number: attack, ratio (a key of `shares`: name -> share of members), then as `known.over_classes`."""
    return pd.concat(
        [
            known.over_classes(at_base_rate(per_class(attacked, attack), share), attack=attack, ratio=ratio)
            for ratio, share in shares.items()
            for attack in attacks
        ],
        ignore_index=True,
    )


def too_small(everyone: Iterable[Attacked], name: str = "all") -> pd.DataFrame:
    """A row a target: classes without an attack model, and classes whose asked records of a subset lack one side."""
    rows = []
    for each in everyone:
        table = per_class(each, "naive", name)
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


def told_apart(everyone: Iterable[Attacked], seed: int, attack: str = "honest", repeats: int = 300) -> pd.DataFrame:
    """How well members and non-members are told apart at all thresholds: a row a target, subset and metric.

    Columns target, subset, metric ("auc", and TPR at an FPR of at most 10, 1 and 0.1 %: "tpr_at_10", …), value, low,
    high (95 % bootstrap over records), members, non_members. The scores of all classes are pooled. A subset that lacks
    either side is left out.
    """
    rows = []
    for each in everyone:
        scored, target = each.result(attack), each.about["target"]
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
                row = {"target": ", ".join(PRINTED[target]), "subset": name, "metric": metric}
                rows.append(row | {"value": value[metric], "low": low, "high": high} | counts)
    return pd.DataFrame(rows)


# --- Tables 5 to 7: layers, distances, gradients --------------------------------------------------------------------


def by_layer(trained: Trained, number: int, seed: int, sampling: str = "none") -> pd.DataFrame:
    """The network attack on layer `number` (see `layers.layer`), on all, correct and misclassified records.

    Columns subset, models, skipped (classes without an attack model), then those of `known.over_classes`. models "own":
    trained on records of the subset alone, as released (but 128-64 throughout; released: 64 for the two subsets);
    "shared": those trained on all records, evaluated on the subset. `sampling` of the known records: `known.attack`.
    """
    X, y, member, hit = layers.layer(trained, number), trained.data.y, trained.data.member, right(trained)
    words, tables = (seed, "layer", trained.name, number), []
    for name in SUBSETS:
        kept, least = subset(hit, name), LEAST_LAYER[name]
        own = known.attack("nn", X[kept], y[kept], member[kept], (*words, name), sampling, least)
        tables.append(_skipping(own, known.per_class(own, y[kept], member[kept]), subset=name, models="own"))
        if name == "all":
            everyone = own
        else:
            shared = known.per_class(everyone, y, member, kept)
            tables.append(_skipping(everyone, shared, subset=name, models="shared"))
    return pd.concat(tables, ignore_index=True)


def _skipping(scored: Result, table: pd.DataFrame, **about: str | int) -> pd.DataFrame:
    return known.over_classes(table, **about, skipped=len(scored.skipped))


def layers_of(trained: Trained) -> list[int]:
    """Which layers Table 5 has of a target: the last, and of LeNet the one before."""
    return [-1, -2] if trained.target.network == "lenet" else [-1]


def sample(trained: Trained, profile: str) -> np.ndarray:
    """Rows, int64 ascending, whose distances are measured: the first members and non-members of each class.

    As many as sizes.toml says, correct and misclassified ones counted apart; a class that lacks LEAST_DISTANCE of
    either is left out of that part. The released code leaves out class 0 as well, which we do not. ValueError where no
    class is left.
    """
    data, hit = trained.data, right(trained)
    each, classes = SIZES["samples"][profile][trained.name]
    rows = []
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
    rows, data = sample(trained, profile), trained.data
    x = networks.normalised(trained.target, data.X[rows]).flatten(1)
    about = pd.DataFrame(
        {
            "target": trained.name,
            "record": rows,
            "class": data.y[rows],
            "side": np.where(data.member[rows], "train", "test"),
            "subset": np.where(right(trained)[rows], "correct", "misclassified"),
            "clip": (x - x.clamp(0, 1)).norm(dim=1).numpy().astype(float),
        }
    )
    found = {name: boundary.of_target(trained, rows, name, SIZES["steps"][profile]) for name in boundary.PROTOCOLS}
    return pd.concat([about.assign(protocol=name, **vars(each)) for name, each in found.items()], ignore_index=True)


def gradient_norms(trained: Trained, profile: str) -> pd.DataFrame:
    """The seven norms (columns w_l1 … x_kurtosis) of the first records of each class, side and subset.

    A row a record, in the order of the data set: target, class, member, correct, then the norms.
    """
    data, hit = trained.data, right(trained)
    rows = gradients.first(data.y, data.member, hit, SIZES["records"][profile][data.classes > 10])
    norms = zip(ROLES, gradients.norms(trained, rows), strict=True)
    about = {"target": trained.name, "class": data.y[rows], "member": data.member[rows], "correct": hit[rows]}
    columns = {f"{by}_{name}": part[:, i] for by, part in norms for i, name in enumerate(gradients.NORMS)}
    return pd.DataFrame(about | columns)


def by_gradient(records: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Logistic regressions on seven norms, one a class, on correct and on misclassified records of one target.

    records: of `gradient_norms`. Columns target, subset, by ("w": weights, "x": input), members and non_members (asked,
    over all classes), skipped (classes without an attack model), then those of `known.over_classes`.
    """
    tables, target = [], records["target"].iloc[0]
    for name in SUBSETS[1:]:
        here = records[subset(records["correct"].to_numpy(), name)]
        y, member = here["class"].to_numpy(), here["member"].to_numpy()
        for by in ROLES:
            X = here[[f"{by}_{norm}" for norm in gradients.NORMS]].to_numpy()
            words = (seed, "gradient", target, name, by)
            scored = known.attack("logistic", X, y, member, words, least=LEAST_GRADIENT)
            asked = member[scored.rows]
            about = {"target": target, "subset": name, "by": by, "members": asked.sum(), "non_members": (~asked).sum()}
            tables.append(_skipping(scored, known.per_class(scored, y, member), **about))
    return pd.concat(tables, ignore_index=True)


# --- Figs 3 to 8: the attack at each epoch of a target's training ---------------------------------------------------


def watched(profile: str) -> list[str]:
    """Names of the targets of `profile` that we train, and so can watch; not those trained by others."""
    return [name for name, target in targets(profile).items() if target.epochs]


def by_epoch(name: str, profile: str, seed: int) -> pd.DataFrame:
    """`at` for every epoch a target was asked at while it trained: target, epoch, subset, metric, value, low, high.

    The records asked are `targets.observed`: all non-members and as many members of each class. ValueError, saying
    what to run, where the target was not watched on this machine.
    """
    target = targets(profile)[name]
    data = networks.images(target, profile)
    seen = networks.observed(data)
    y, member = data.y[seen], data.member[seen]
    parts = []
    for epoch, answers in networks.observations(name, target, profile).items():
        part = at(answers.astype(np.float32), y, member, (seed, "progress", name, epoch))
        parts.append(part.assign(target=", ".join(PRINTED[name]), epoch=epoch))
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
    (chosen on the records the attack is measured on, as an owner with only those would), and the last.
    """
    rows = []
    drops = {", ".join(PRINTED[name]): targets(profile)[name].drops for name in watched(profile)}
    for target, part in table.groupby("target", sort=False):
        wide = part.pivot(index="epoch", columns=["metric", "subset"], values="value")
        before = [epoch for epoch in wide.index if drops[target] and epoch <= drops[target][0]]
        moments = {"before the first drop": before[-1]} if before else {}
        moments |= {"best test accuracy": wide["test_acc", "all"].idxmax(), "last epoch": wide.index[-1]}
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
