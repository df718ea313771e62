"""The experiments of Rezaei & Liu 2020: the nine attack models on one target, and what they are held against.

Every number is a mean over the classes, on the last 20 % of each class (see `attacks.known`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from mialib import metrics, runs, signals, targets
from mialib.attacks import known
from mialib.attacks.known import Scored, Search
from mialib.targets import Trained

NINE = tuple((kind, sampling) for kind in ("nn", "forest", "xgboost") for sampling in known.SAMPLINGS)
SUBSETS = ("all", "correct", "misclassified")
CHOICES = {"best": "best of nine on the test part", "honest": "honest selection"}  # as tables name them
METRICS = ("target_train_acc", "target_test_acc")  # the rows of `accuracies`
RATIOS = {"5:1": 5 / 6, "1:1": 1 / 2, "1:5": 1 / 6}  # members to non-members -> share of members (Table 2)


@dataclass(frozen=True)
class Attacked:
    """One target under the nine attacks, the naive attack and ZeroR, all asked about the same records."""

    name: str
    y: np.ndarray  # int (n,), as are the next two, of all records
    member: np.ndarray  # bool
    correct: np.ndarray  # bool: the target is right about it
    answers: dict[str, Scored]  # "nn, none" … "xgboost, over", "naive", "zeror"
    validated: dict[str, float]  # balanced accuracy on the validation part, of each of the nine trained without it
    best: str  # which of the nine is best on the asked records themselves, as the paper reports it
    honest: str  # which is best on the validation part

    def scored(self, attack: str) -> Scored:
        """The answers of "best", "honest", or an attack by its own name; ValueError lists the names."""
        name = {"best": self.best, "honest": self.honest}.get(attack, attack)
        if name not in self.answers:
            raise ValueError(f"unknown attack {attack!r}; valid: best, honest, {'; '.join(self.answers)}")
        return self.answers[name]


def confidence_attacks(trained: Trained, search: Search, seed: int) -> Attacked:
    """The confidence-based attack (Tables 1 to 4): each record's feature is its whole confidence vector."""
    data = trained.data
    return nine_attacks(trained.name, targets.confidences(trained), data.y, data.member, search, seed)


def nine_attacks(
    name: str, vectors: np.ndarray, y: np.ndarray, member: np.ndarray, search: Search, seed: int
) -> Attacked:
    """Attack confidence `vectors` (n, classes) with each of NINE, and choose among them twice.

    "Best" is chosen on the records it is reported on, as in the paper ("the seemingly best MI attack accuracy we
    achieve over all attack models"). "Honest" is chosen by attacks that are trained on the first 60 % of each class
    and asked about the next 20 %, then trained again on 80 %, and reported on records that had no part in the choice.
    """
    right = signals.correct(vectors, y)
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
    asked = next(iter(answers.values()))
    answers["naive"] = Scored(asked.rows, right[asked.rows].astype(float), asked.skipped)
    answers["zeror"] = Scored(asked.rows, np.ones(len(asked.rows)), asked.skipped)
    best, honest = (max(found, key=found.get) for found in (tested, validated))
    return Attacked(name, y, member, right, answers, validated, best, honest)


def _balanced(scored: Scored, y: np.ndarray, member: np.ndarray) -> float:
    return float(known.per_class(scored, y, member)["balanced_accuracy"].mean())


def per_class(attacked: Attacked, attack: str, subset: str = "all") -> pd.DataFrame:
    """`known.per_class` of one attack on a subset: the same attack models, evaluated on those records only."""
    subsets = {"all": None, "correct": attacked.correct, "misclassified": ~attacked.correct}
    if subset not in subsets:
        raise ValueError(f"unknown subset {subset!r}; valid: {', '.join(SUBSETS)}")
    return known.per_class(attacked.scored(attack), attacked.y, attacked.member, subsets[subset])


def measured(
    everyone: Iterable[Attacked],
    attacks: Sequence[str] = ("best", "honest", "naive"),
    subsets: Sequence[str] = ("all",),
) -> pd.DataFrame:
    """One row a number: target, attack, subset, then the columns of `known.over_classes`."""
    return pd.concat(
        [
            _over(per_class(each, attack, subset), target=each.name, attack=attack, subset=subset)
            for each in everyone
            for attack in attacks
            for subset in subsets
        ],
        ignore_index=True,
    )


def _over(table: pd.DataFrame, **about: str) -> pd.DataFrame:
    found = known.over_classes(table)
    return found.assign(**about)[[*about, *found.columns]]


def nine(attacked: Attacked) -> pd.DataFrame:
    """A row an attack: balanced accuracy on the validation part, on the asked records with its interval, and FPR."""
    table = measured([attacked], list(attacked.validated)).set_index(["attack", "metric"])["value"].unstack()
    table = table.loc[list(attacked.validated), ["balanced_accuracy", "recall", "fpr"]]
    table.insert(0, "validation", pd.Series(attacked.validated))
    chosen = {attacked.best: "best on test", attacked.honest: "honest"}
    if attacked.best == attacked.honest:
        chosen = {attacked.best: "both"}
    return table.assign(chosen=[chosen.get(attack, "") for attack in table.index]).rename_axis(index=None, columns=None)


def named(everyone: Iterable[Attacked], target: str, attack: str) -> str:
    """Which attack models "best" or "honest" stands for on a target ("forest, over"); "" for another attack."""
    [each] = [each for each in everyone if each.name == target]
    return {"best": each.best, "honest": each.honest}.get(attack, "")


def difference(attacked: Attacked, a: str = "honest", b: str = "naive", subset: str = "all") -> dict[str, float]:
    """Balanced accuracy of attack `a` minus that of `b`, class by class: value, low, high (95 % Student t)."""
    left, right = (per_class(attacked, attack, subset)["balanced_accuracy"] for attack in (a, b))
    gaps = (left - right).dropna().to_numpy()
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
    return table.assign(**known.rates_of(*weighted))[list(table.columns)]


def base_rates(attacked: Attacked, attacks: Sequence[str], shares: dict[str, float] = RATIOS) -> pd.DataFrame:
    """One row a number: attack, ratio (a key of `shares`: name -> share of members), then as `known.over_classes`."""
    return pd.concat(
        [
            _over(at_base_rate(per_class(attacked, attack), share), attack=attack, ratio=ratio)
            for ratio, share in shares.items()
            for attack in attacks
        ],
        ignore_index=True,
    )


def too_small(everyone: Iterable[Attacked], subset: str = "all") -> pd.DataFrame:
    """A row a target: classes without an attack model, and classes whose asked records of `subset` lack one side."""
    rows = []
    for each in everyone:
        table = per_class(each, "naive", subset)
        lacking = {side: int((table[side] == 0).sum()) for side in ("members", "non_members")}
        rows.append(
            {"target": each.name, "without a model": len(each.scored("naive").skipped), "classes": len(table)}
            | {"without members": lacking["members"], "without non-members": lacking["non_members"]}
            | {side: int(table[side].sum()) for side in ("members", "non_members")}
            | {"median members of a class": table["members"].median()}
        )
    return pd.DataFrame(rows).set_index("target")


def accuracies(trained: Trained) -> pd.DataFrame:
    """The target's accuracy: rows target_train_acc and target_test_acc, columns value, low, high (Wilson, 95 %)."""
    right = signals.correct(targets.confidences(trained), trained.data.y)
    rows = {}
    for metric, side in zip(METRICS, (True, False), strict=True):
        hits, n = int(right[trained.data.member == side].sum()), int((trained.data.member == side).sum())
        low, high = stats.binomtest(hits, n).proportion_ci(method="wilson")
        rows[metric] = {"value": hits / n, "low": low, "high": high}
    return pd.DataFrame(rows).T.rename_axis("metric")


def confidence(trained: Trained) -> pd.DataFrame:
    """Mean confidence of members and non-members, all, correct and misclassified (Table 4), of two classes.

    One row a number: target, side ("train", "test"), subset, of ("predicted", "true" class), value, sd (over
    records, ddof 0), low, high (95 % of the mean), records. nan where there are no records.
    """
    vectors, y, member = targets.confidences(trained), trained.data.y, trained.data.member
    right = signals.correct(vectors, y)
    subsets = {"all": np.ones(len(y), bool), "correct": right, "misclassified": ~right}
    of = {"predicted": vectors.max(1), "true": signals.true_class(vectors, y)}
    return pd.DataFrame(
        {"target": trained.name, "side": side, "subset": subset, "of": name} | _mean(values[kept & (member == inside)])
        for side, inside in (("train", True), ("test", False))
        for subset, kept in subsets.items()
        for name, values in of.items()
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
        scored = each.scored(attack)
        chosen = {"all": np.ones(len(each.y), bool), "correct": each.correct, "misclassified": ~each.correct}
        for subset, mask in chosen.items():
            kept = mask[scored.rows]
            member, score = each.member[scored.rows][kept], scored.score[kept]
            if not member.any() or member.all():
                continue
            value = metrics.evaluate(member, score, score > 0.5)
            bounds = metrics.bootstrap(
                member, score, score > 0.5, runs.stream(seed, "told apart", each.name, subset), repeats
            )
            counts = {"members": int(member.sum()), "non_members": int((~member).sum())}
            for metric in ("auc", *metrics.FPR_LIMITS):
                low, high = bounds[metric]
                row = {"target": ", ".join(targets.PRINTED[each.name]), "subset": subset, "metric": metric}
                rows.append(row | {"value": value[metric], "low": low, "high": high} | counts)
    return pd.DataFrame(rows)
