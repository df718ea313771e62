"""Three surfaces of transfer learning: whose members are asked about, and seen through which model.

The paper's text beyond its abstract could not be had; the protocol is ours. There are *families*: a teacher that learnt
records of CIFAR-100, and students of it that learnt records of CIFAR-10, no record in two families. Each family is
attacked once, by an attacker who has one shadow, the next family in the ring or what she has in its place. So attackers
have the same records and differ in what they make of them.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch import nn

from mialib import config, papers, runs
from mialib.attacks import Attacked, Observations, baselines, classifiers, mlleaks, shadow
from mialib.data.datasets import Dataset
from mialib.data.splits import Split
from mialib.models import frozen, small, transfer
from mialib.models.fit import Recipe
from mialib.models.transfer import Teacher
from mialib.papers.zou2020 import exhibits, experiments
from mialib.papers.zou2020.experiments import BATCH, NAMES, PAPER, Row, Taught, own
from mialib.results import published, tables

TEACHERS, STUDENTS, ELSEWHERE = "cifar-100", "cifar-10", "caltech-101"  # whose records each learns
TEACHER, STUDENT, THROUGH = SURFACES = ("teacher of itself", "student of itself", "teacher through its student")
OWN, SAME, OTHER_DATA, NO_TEACHER = "her own teacher", "the target's teacher", "a teacher of other data", "no teacher"
NO_STUDENT = "-"  # what is frozen in a surface without students
SHOWN = {"auc": "attack_auc", "balanced_accuracy": "attack_balanced_acc", "tpr_at_1": "attack_tpr_at_1"}


@dataclass(frozen=True)
class Size:
    """How large: see sizes.toml. `others`: the networks of attackers who do not know the target's."""

    families: int
    teacher: Mapping[str, int]  # records and epochs
    student: Mapping[str, int]  # the same, and the epochs of a last layer alone
    others: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.families < 2:
            raise ValueError(f"{self.families} family: it takes a second one as shadow")


@dataclass(frozen=True)
class Asked:
    """One surface: what the targets say, and what the shadow of each attacker, in the order of the families."""

    surface: str
    dataset: str  # of the records that are asked about
    frozen: str
    targets: list[Observations]
    shadows: dict[str, list[Observations]]  # attacker -> the shadows
    accuracies: list[dict[str, float]]  # of the models that are asked, on their own records


def size(profile: str) -> Size:
    """The sizes of `profile` in sizes.toml."""
    config.check_profile(profile)
    return Size(**papers.sizes(PAPER)["surfaces"][profile])


def network(kind: str, data: Dataset, profile: str) -> Teacher:
    """A network that is not trained: "CNN", that of all targets, "MLP" of one hidden layer, or one of `nets`."""
    if kind != "MLP":
        return experiments.network(data, profile, kind)
    hidden = papers.sizes(PAPER)["network"][profile]["hidden"]
    layers = OrderedDict(flatten=nn.Flatten(), fc1=nn.Linear(int(np.prod(data.X.shape[1:])), hidden), relu1=nn.ReLU())
    return Teacher(nn.Sequential(layers | {"fc2": nn.Linear(hidden, data.classes)}), "relu1", data.X.shape[1:])


def sides(name: str, n: int, count: int, about: Mapping[str, int], seed: int) -> list[Split]:
    """Members and non-members of each family, out of n records, as `experiments.drawn` has them; its ValueError."""
    return experiments.drawn(Row(name, "", experiments.NONE, about["records"], about["epochs"], count), n, seed)


def trained(
    begun: list[Teacher], data: Dataset, side: list[Split], about: Mapping[str, int], seed: int, keep: int | None = None
) -> list[Teacher]:
    """A network for each split, trained on its members.

    keep: how many layers of those that it begins with are frozen (the others are trained further, but the last, which
    is new); None: all weights are drawn anew, so that `begun` gives the architecture alone. Of these the training is
    that of `experiments.students`. ValueError where a record is on two sides, and as `frozen.freeze` raises it.
    """
    transfer.check_apart(side)
    words = [(seed, PAPER, "student", data.name, about["records"], i) for i in range(len(side))]
    parts = [(data.X[split.members], data.y[split.members]) for split in side]
    if keep is not None and keep == last(begun[0]):
        longer, each = Recipe(about["last_layer_epochs"], BATCH), zip(begun, parts, words, strict=True)
        return [frozen.last_layer(teacher, *part, data.classes, longer, word) for teacher, part, word in each]
    jobs = []
    for teacher, part, word in zip(begun, parts, words, strict=True):
        student = transfer.with_classes(teacher, data.classes, word)
        student = transfer.fresh(student, word) if keep is None else frozen.freeze(student, keep)
        jobs.append((student, *part, about["epochs"], word))
    return experiments.learn(jobs)


def last(teacher: Teacher) -> int:
    """How many layers with weights stand before the last one."""
    return len(frozen.weighted(teacher)) - 1


def through(models: list[Teacher], data: Dataset, side: list[Split]) -> list[Observations]:
    """What each student says of its teacher's members and non-members, which have none of its classes.

    In place of the true class stands the one that the student names, so that attacks a class are attacks a named class.
    """
    found = []
    for net, split in zip(models, side, strict=True):
        vectors = small.softmax(transfer.logits(net, data.X[np.concatenate([split.members, split.non_members])]))
        found.append(Observations(vectors, vectors.argmax(1), np.arange(len(vectors)) < len(split.members)))
    return found


def elsewhere(data: Dataset, profile: str, seed: int, count: int) -> list[Split]:
    """The records that `experiments.teach` gave its teacher of other data, and those it left out: equally many of both.

    Each of `count` shadows is asked about the same: there is one such teacher.
    """
    records = papers.sizes(PAPER)["teachers"][profile][data.name]["records"]
    order = runs.stream(seed, PAPER, "teacher", data.name).permutation(len(data.y))
    fewer = min(records, len(order) - records)
    return [Split(order[:fewer], order[records:][:fewer])] * count


def ask(loaded: Mapping[str, Dataset], taught: Taught, about: Size, profile: str, seed: int) -> list[Asked]:
    """Train all families, and what attackers have in their place, and ask them; taught: the teacher of other data."""
    high, low, n = loaded[TEACHERS], loaded[STUDENTS], about.families
    split = sides(TEACHERS, len(high.y), n, about.teacher, seed), sides(STUDENTS, len(low.y), n, about.student, seed)

    def teachers(kind: str) -> list[Teacher]:
        return trained([network(kind, high, profile)] * n, high, split[0], about.teacher, seed)

    def students(of: list[Teacher], keep: int | None) -> list[Teacher]:
        return trained(of, low, split[1], about.student, seed, keep)

    families, others = teachers("CNN"), {f"another network, {kind}": teachers(kind) for kind in about.others}
    scratch = students([network("CNN", low, profile)] * n, None)
    alone = {NO_TEACHER: own(scratch, low, split[1])}
    shadows = {name: own(models, high, split[0]) for name, models in ({OWN: families} | others).items()}
    found = [
        Asked(TEACHER, NAMES[TEACHERS], NO_STUDENT, shadows[OWN], shadows, [*map(shadow.accuracies, shadows[OWN])])
    ]
    for keep in range(last(families[0]) + 1):
        made, end = {OWN: students(families, keep)}, keep in (0, last(families[0]))
        if end:
            # Of the next family's records and this family's teacher.
            made[SAME] = students(families[-1:] + families[:-1], keep)
            made[OTHER_DATA] = students([taught.teacher] * n, keep)
            made |= {name: students(of, last(of[0]) if keep else 0) for name, of in others.items()}
        said = {name: own(models, low, split[1]) for name, models in made.items()} | (alone if end else {})
        right, named = [*map(shadow.accuracies, said[OWN])], kept(keep, families[0])
        found.append(Asked(STUDENT, NAMES[STUDENTS], named, said[OWN], said, right))
        said = {name: through(models, high, split[0]) for name, models in made.items() if name in (OWN, *others)}
        if end:
            aside = elsewhere(loaded[ELSEWHERE], profile, seed, n)
            said[OTHER_DATA] = through(made[OTHER_DATA], loaded[ELSEWHERE], aside)
        found.append(Asked(THROUGH, NAMES[TEACHERS], named, said[OWN], said, right))
    right, control = [*map(shadow.accuracies, alone[NO_TEACHER])], through(scratch, high, split[0])
    found.append(Asked(STUDENT, NAMES[STUDENTS], NO_TEACHER, alone[NO_TEACHER], alone, right))
    return [*found, Asked(THROUGH, NAMES[TEACHERS], NO_TEACHER, control, {NO_TEACHER: control}, right)]


def kept(keep: int, teacher: Teacher) -> str:
    """How tables name that `keep` of the teacher's layers with weights are frozen."""
    named = {0: "none frozen", 1: "first layer frozen", last(teacher): "all frozen but the last"}
    return named.get(keep, f"first {keep} layers frozen")


def attack(asked: Asked, attacker: str, tier: str, seed: int) -> Attacked:
    """Attack each family with the attacker's shadow that is next to it.

    ML-Leaks' adversary 1, one network a class ("nn"), the threshold a class, and gap, which needs no shadow; through a
    student there is no true class to be right about, so no gap.
    """
    words = (seed, PAPER, asked.surface, asked.frozen, attacker)
    answers: dict[str, list] = {name: [] for name in exhibits.ATTACKS}
    shadows = asked.shadows[attacker]
    for i, target in enumerate(asked.targets):
        known = shadows[(i + 1) % len(shadows)]
        answers[mlleaks.ADVERSARY_1] += mlleaks.adversary_1(known, [target], (*words, i))
        answers["nn"] += classifiers.attack("nn", known, [target], (*words, i))
        answers["threshold"].append(baselines.confidence_threshold(known, target))
        answers["gap"].append(baselines.gap(target))
    if asked.surface == THROUGH:
        del answers["gap"]
    about = {"surface": asked.surface, "dataset": asked.dataset, "frozen": asked.frozen, "attacker": attacker}
    return Attacked(about | {"tier": tier}, asked.accuracies, asked.targets, answers, words)


def measured(several: Iterable[Asked], tier: str, seed: int) -> pd.DataFrame:
    """Means over the families with Student's t interval: `tables.summary` of each surface and attacker."""
    attacked = [attack(asked, attacker, tier, seed) for asked in several for attacker in asked.shadows]
    return pd.concat([tables.summary(each) for each in attacked], ignore_index=True)


# --- what is shown --------------------------------------------------------------------------------------------------


def wide(table: pd.DataFrame, surface: str) -> pd.DataFrame:
    """A surface to look at: a row by what is frozen and attacker; "value (low to high)"."""
    columns = {("target", "train_acc"): "train", ("target", "test_acc"): "test"}
    columns |= {(attack, "auc"): f"AUC, {attack}" for attack in exhibits.ATTACKS}
    columns |= {(attack, "balanced_accuracy"): f"accuracy, {attack}" for attack in exhibits.ATTACKS[:3:2]}
    heading = [columns.get(pair) for pair in zip(table["attack"], table["metric"], strict=True)]
    here = table.assign(heading=heading)[table["surface"] == surface].dropna(subset="heading")
    said = ["{} ({} to {})".format(*map(published.short, ends)) for ends in here[["value", "low", "high"]].to_numpy()]
    index = ["frozen", "attacker"]
    order = list(dict.fromkeys(here[index].itertuples(index=False, name=None)))
    shown = here.assign(said=said).pivot(index=index, columns="heading", values="said")
    return shown[[name for name in columns.values() if name in shown]].loc[order].rename_axis(columns=None)


def drawn(table: pd.DataFrame, attackers: bool) -> pd.DataFrame:
    """Rows for `plots.dots`: AUC, a panel a surface of students and attack, beside it the gap attack's.

    attackers: all of them where nothing, or all but the last, is frozen; otherwise the one with her own teacher (and
    students without any) by what is frozen.
    """
    here = table[(table["metric"] == "auc") & (table["surface"] != TEACHER)]
    by = ["surface", "frozen"]
    gap = here[here["attack"] == "gap"].drop_duplicates(by).set_index(by)["value"]
    here = here[here["attack"].isin([mlleaks.ADVERSARY_1, "threshold"])]
    ends = here["frozen"].isin(here.loc[here["attacker"] == OTHER_DATA, "frozen"])
    alone = here["attacker"].isin([OWN]) | (here["frozen"] == NO_TEACHER)
    here = here[ends if attackers else alone]
    label = here["frozen"] + ": " + here["attacker"] if attackers else here["frozen"]
    beside = [gap.get(pair, np.nan) for pair in zip(here["surface"], here["frozen"], strict=True)]
    shown = {STUDENT: "student,\nof itself\n", THROUGH: "teacher, by\nits student\n"}
    panel = here["surface"].map(shown) + here["attack"]
    return here.assign(label=label, panel=panel, gap=beside)


def cells(table: pd.DataFrame) -> list[dict]:
    """Every number as a cell of the record; none is published, so none has a verdict."""
    ours = []
    for row in table.itertuples():
        setting = ", ".join(part for part in (row.surface, row.frozen, row.attacker) if part != NO_STUDENT)
        about = {"dataset": row.dataset, "value": row.value, "low": row.low, "high": row.high, "tier": row.tier}
        about["model"] = "CNN of two convolutions"
        if row.attack == "target":
            ours.append(about | {"setting": setting, "metric": f"target_{row.metric}"})
        elif row.metric in SHOWN:
            ours.append(about | {"setting": f"{setting}, {row.attack}", "metric": SHOWN[row.metric]})
    # The comparator's numbers, of one surface and other sizes, are held against the exhibit that has them.
    return [cell for cell in published.compare(ours, exhibits.TABLE) if cell["published"] is None]
