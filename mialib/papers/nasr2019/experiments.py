"""The experiments of Nasr, Shokri & Houmansadr 2019: who is trained on what, observed when, and asked about what.

So far the federated ones (Tables X to XIII, Fig 7): on Location, which the paper does not attack, and on CIFAR-100, on
what the layers before the last of an AlexNet that was trained on CIFAR-10 say of an image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.special import softmax

from mialib import metrics, papers, runs, work
from mialib.attacks import nasr
from mialib.attacks.nasr import Features, Training
from mialib.data import datasets, splits
from mialib.data.datasets import Dataset
from mialib.models import federated, small, targets
from mialib.models.federated import Active
from mialib.models.fit import Recipe

PAPER = "nasr2019"
SIZES = papers.sizes(PAPER)
DATA, IMAGES = "location-30", "cifar-100"
TABLES = {DATA: "federated", IMAGES: "federated_images"}  # of sizes.toml
TEACHER, TRAINED = "cifar-10-alexnet", "rezaei2020"  # whose first layers all parties have, and the room that trains it
PARTICIPANTS = 4
MOST_LOST = 0.02  # of the global model's accuracy, by gradient ascent: our acceptance rule
ATTACKER = 0  # the party that a local attacker is
LAYERS = ("last",)  # whose outputs and gradients are seen


@dataclass(frozen=True)
class Size:
    """See sizes.toml."""

    party: int
    hidden: tuple[int, ...]
    batch: int
    rate: float
    known: int
    targets: int
    asked: int
    rounds: int
    observed: tuple[int, ...]
    earlier: tuple[tuple[int, ...], ...]
    others: tuple[int, ...]
    ascents: tuple[float, ...]
    seeds: int
    kernels: int
    epochs: int
    attack_rate: float


@dataclass(frozen=True)
class Setting:
    """One attack: `view` "global" (the server, of each party's uploads) or "local" (a party, of the mean)."""

    name: str
    view: str
    observed: tuple[int, ...]
    ascent: bool = False
    isolating: bool = False
    participants: int = PARTICIPANTS


@dataclass(frozen=True)
class Drawn:
    """Row numbers of the data set: each party's records, then non-members, in parts that do not overlap."""

    parties: list[np.ndarray]
    known: np.ndarray  # non-members that the attacker knows
    asked: np.ndarray  # non-members that are asked about, the targets first
    test: np.ndarray  # the rest: for accuracies and the choice of the ascent's rate, seen by no attack


@dataclass(frozen=True)
class Pairs:
    """What is asked of which model: record `row` as the upload of `party` (-1: the mean of all) sees it."""

    party: np.ndarray
    row: np.ndarray
    member: np.ndarray  # bool
    target: np.ndarray  # bool: gradient ascent is done on it


def size(profile: str, name: str = DATA) -> Size:
    """How large the experiments on DATA or IMAGES are."""
    about = SIZES[TABLES[name]][profile]
    earlier = tuple(map(tuple, about["earlier"]))
    return Size(**{k: tuple(v) if isinstance(v, list) else v for k, v in about.items()} | {"earlier": earlier})


def load(name: str, profile: str) -> Dataset:
    """DATA as it is; of IMAGES, in place of an image, what enters the last layer of TEACHER: X float32 (n, 256).

    Images that TEACHER was trained on are left out: in `demo` it has the same digits.
    """
    data = datasets.load(name, profile)
    if name != IMAGES:
        return data
    teacher = targets.load(TEACHER, papers.targets(profile, TRAINED)[TEACHER], profile)
    rows = splits.unseen(data.X, teacher.data.X[teacher.data.member])
    asked = replace(teacher, data=replace(teacher.data, X=data.X[rows], y=data.y[rows]))
    X = targets.last_features(asked)
    source = f"{data.source}; of {len(X):,}, {X.shape[1]} features by an AlexNet trained on {teacher.data.source}"
    return replace(data, X=X, y=data.y[rows], source=source, digest=targets.identity(asked))


def settings(about: Size) -> list[Setting]:
    """Table X's six attacks, Table XII's passive ones of earlier rounds, Table XIII's of other participants."""
    late = about.observed
    six = [
        Setting("global passive", "global", late),
        Setting("global gradient ascent", "global", late, ascent=True),
        Setting("global isolating", "global", late, isolating=True),
        Setting("global isolating gradient ascent", "global", late, ascent=True, isolating=True),
        Setting("local passive", "local", late),
        Setting("local gradient ascent", "local", late, ascent=True),
    ]
    named = {rounds: "global passive, rounds " + " ".join(map(str, rounds)) for rounds in about.earlier}
    early = [Setting(name, "global", rounds) for rounds, name in named.items()]
    return six + early + [Setting(f"local passive, {n} parties", "local", late, participants=n) for n in about.others]


def draw(data: Dataset, about: Size, seed: int) -> Drawn:
    """Disjoint parties, as many as the largest setting has, and disjoint sets of non-members.

    ValueError when the records do not suffice.
    """
    most = max(PARTICIPANTS, *about.others)
    known, asked = about.known * most, about.asked + about.targets
    if about.party * most + known + asked >= len(data.y):
        raise ValueError(f"{len(data.y)} records are too few for {most} parties of {about.party} and their non-members")
    order = runs.stream(seed, "federated", data.name).permutation(len(data.y))
    parties, rest = np.split(order[: most * about.party], most), order[most * about.party :]
    return Drawn(list(parties), rest[:known], rest[known : known + asked], rest[known + asked :])


def pairs(drawn: Drawn, about: Size, setting: Setting) -> tuple[Pairs, Pairs]:
    """Known and asked pairs. The server asks of each party, a local attacker of the mean, about all parties but itself.

    Each known non-member is asked of one party, each other one of all.
    """
    here = [party for party in range(setting.participants) if setting.view == "global" or party != ATTACKER]
    each = about.targets // PARTICIPANTS
    known, asked = [], []
    for place, party in enumerate(here):
        seen_as, records = party if setting.view == "global" else -1, drawn.parties[party]
        some = drawn.known[place * about.known : (place + 1) * about.known]
        known += [_pairs(seen_as, records[: about.known], True, 0), _pairs(seen_as, some, False, 0)]
        asked.append(_pairs(seen_as, records[about.known : about.known + about.asked], True, each))
        if setting.view == "global" or not place:
            asked.append(_pairs(seen_as, drawn.asked, False, about.targets))
    return tuple(Pairs(*map(np.concatenate, zip(*parts, strict=True))) for parts in (known, asked))


def _pairs(party: int, rows: np.ndarray, member: bool, targets: int) -> tuple:
    """Columns of `Pairs` for one party and side; the first `targets` records are targets."""
    return np.full(len(rows), party), rows, np.full(len(rows), member), np.arange(len(rows)) < targets


def active(drawn: Drawn, about: Size, setting: Setting, rate: float) -> Active:
    """What a setting does to the training: all parties isolated at once, as none of them then hears of another.

    Ascent is done on the targets and on all records that the attacker knows, or else her network would learn from
    records that were left alone (the paper does not say).
    """
    isolated = tuple(range(setting.participants)) if setting.isolating else ()
    if not setting.ascent:
        return Active(isolated=isolated)
    known, asked = pairs(drawn, about, setting)
    rows = np.unique(np.concatenate([known.row, asked.row[asked.target]]))
    return Active(tuple(rows.tolist()), rate, None if setting.view == "global" else ATTACKER, isolated)


def trained(
    data: Dataset, drawn: Drawn, about: Size, participants: int, words: tuple, rounds: Sequence[int], does: Active
) -> dict[int, np.ndarray]:
    """`federated.train` of so many participants."""
    recipe = Recipe(1, about.batch, about.rate, decay=0.0)
    parties = drawn.parties[:participants]
    return federated.train(network(data, about), recipe, data.X, data.y, parties, words, about.rounds, rounds, does)


def network(data: Dataset, about: Size) -> small.MLP:
    """Fully connected, tanh (the paper does not say which activation)."""
    return small.MLP((data.X.shape[1], *about.hidden, data.classes))


def accuracy(data: Dataset, about: Size, theta: np.ndarray, rows: np.ndarray) -> float:
    """Share of records that flat parameters classify correctly."""
    return float((small.logits(network(data, about), theta, data.X[rows]).argmax(1) == data.y[rows]).mean())


# --- the rate of gradient ascent ------------------------------------------------------------------------------------


def ascents(data: Dataset, about: Size, seed: int) -> pd.DataFrame:
    """Accuracy that each rate of gradient ascent costs the global model: view, rate, accuracy, lost, accepted.

    On `Drawn.test`, which no attack sees, in a training of its own draw; the first row of a view is without ascent.
    `accepted`: the largest rate of those that, with all smaller ones, lose less than MOST_LOST.
    """
    views, rates = ("global", "local"), (0.0, *about.ascents)
    jobs = [(data, about, seed, view, rate) for view in views for rate in rates]
    found = work.every(_cost, jobs, data.digest, about, seed, runs.versions("numpy", "torch"))
    rows = [(view, rate, float(value)) for (*_, view, rate), (value,) in zip(jobs, found, strict=True)]
    table = pd.DataFrame(rows, columns=["view", "rate", "accuracy"])
    table["lost"] = table.groupby("view")["accuracy"].transform("first") - table["accuracy"]
    bearable = table["lost"].lt(MOST_LOST).groupby(table["view"]).cummin()
    last = table[bearable].groupby("view")["rate"].transform("max")
    return table.assign(accepted=table["rate"].eq(last.reindex(table.index)) & bearable)


def _cost(data: Dataset, about: Size, seed: int, view: str, rate: float) -> tuple[np.ndarray]:
    words = (seed, "ascent", data.name)
    drawn, last = draw(data, about, int(runs.stream(*words).integers(2**31))), about.rounds
    does = active(drawn, about, Setting("", view, (last,), ascent=rate > 0), rate)
    uploads = trained(data, drawn, about, PARTICIPANTS, words, [last], does)[last]
    return (np.array(accuracy(data, about, federated.aggregate(uploads), drawn.test)),)


def accepted(table: pd.DataFrame) -> dict[str, float]:
    """View -> the rate of `ascents` that is taken."""
    return table[table["accepted"]].set_index("view")["rate"].to_dict()


# --- the attacks ----------------------------------------------------------------------------------------------------


def attacked(data: Dataset, about: Size, seed: int, rates: dict[str, float]) -> pd.DataFrame:
    """Every setting on every seed: a row a setting, seed, records ("targets", "asked", "untouched") and measure.

    Columns setting, seed, records, metric, value. Of "targets" and all "asked": accuracy (balanced), best (the epoch
    chosen on the asked records), gap (the gap attack). Train and test accuracy of the attacked models at the last
    observed round, "norm member" and "norm non-member" at each observed round ("@40") of targets and untouched records.
    """
    jobs = [
        (data, about, seed + number, setting, rates[setting.view] if setting.ascent else 0.0)
        for number in range(about.seeds)
        for setting in settings(about)
    ]
    found = work.every(_attack, jobs, data.digest, about, seed, sorted(rates.items()), runs.versions("numpy", "torch"))
    tables = []
    for (_, _, at, setting, _), arrays in zip(jobs, found, strict=True):
        _, asked = pairs(draw(data, about, at), about, setting)
        tables.append(_measured(asked, setting, *arrays).assign(setting=setting.name, seed=at))
    return pd.concat(tables, ignore_index=True)[["setting", "seed", "records", "metric", "value"]]


def _attack(data: Dataset, about: Size, seed: int, setting: Setting, rate: float) -> tuple[np.ndarray, ...]:
    """Scores of the asked pairs by epoch, the chosen epoch, whether the model is right, norms, accuracies."""
    words, drawn = (seed, "federated", data.name, setting.participants), draw(data, about, seed)
    does = active(drawn, about, setting, rate)
    # All observed rounds of a training in one go: whatever setting comes first, the others find them kept.
    passive = not (setting.ascent or setting.isolating) and setting.participants == PARTICIPANTS
    rounds = sorted({*setting.observed, *(t for each in about.earlier for t in each if passive)})
    uploads = trained(data, drawn, about, setting.participants, words, rounds, does)
    known, asked = pairs(drawn, about, setting)
    seen = {t: uploads[t] for t in setting.observed}
    training = Training(kernels=about.kernels, epochs=about.epochs, rate=about.attack_rate)
    told, questions = (observe(data, about, each, seen) for each in (known, asked))
    answer = nasr.learn(told, known.member, questions, (*words, setting.name), training)
    right = questions.outputs[-1][:, -1].argmax(1) == questions.y
    last = uploads[max(setting.observed)]
    models = last if setting.view == "global" else [federated.aggregate(last)]
    parties = drawn.parties[: setting.participants]
    members = parties if setting.view == "global" else [np.concatenate(parties[1:])]
    train = np.mean([accuracy(data, about, *each) for each in zip(models, members, strict=True)])
    test = np.mean([accuracy(data, about, theta, drawn.test) for theta in models])
    return answer.by_epoch, answer.validated, right, nasr.norms(questions), np.array([train, test])


def observe(data: Dataset, about: Size, asked: Pairs, uploads: dict[int, np.ndarray]) -> Features:
    """What the pairs look like in the observed rounds (number -> uploads), in the order of the pairs.

    The last layer's output is the confidence vector, as the paper's f(x).
    """
    parts, order = [], []
    for party in np.unique(asked.party):
        thetas = [federated.aggregate(rows) if party < 0 else rows[party] for rows in uploads.values()]
        nets = [federated.module(network(data, about), theta) for theta in thetas]
        places = np.flatnonzero(asked.party == party)
        rows = asked.row[places]
        parts.append(nasr.observe(nets, data.X[rows].astype(np.float32), data.y[rows], LAYERS, LAYERS))
        order.append(places)
    seen = nasr.joined(parts)[np.argsort(np.concatenate(order))]
    vectors = tuple(softmax(logits.astype(float), axis=2).astype(np.float32) for logits in seen.outputs)
    return replace(seen, outputs=vectors)


def _measured(asked: Pairs, setting: Setting, by_epoch, validated, right, norms, accuracies) -> pd.DataFrame:
    """Columns records, metric, value of one setting and seed; see `attacked`."""
    answer, rows = nasr.Answer(by_epoch, validated), []
    for name, part in {"targets": asked.target, "asked": np.ones(len(asked.row), bool)}.items():
        member, here = asked.member[part], nasr.Answer(by_epoch[:, part], validated)
        rows += [
            (name, "accuracy", nasr.balanced_accuracy(member, answer.result.predicted[part])),
            (name, "best", here.best(member)),
            (name, "gap", nasr.balanced_accuracy(member, right[part])),
        ]
    rows += [("models", "train", accuracies[0]), ("models", "test", accuracies[1])]
    for name, part in {"targets": asked.target, "untouched": ~asked.target}.items():
        for side, members in {"member": asked.member, "non-member": ~asked.member}.items():
            means = norms[part & members].mean(0)
            rows += [(name, f"norm {side}@{t}", value) for t, value in zip(setting.observed, means, strict=True)]
    return pd.DataFrame(rows, columns=["records", "metric", "value"])


def over_seeds(table: pd.DataFrame, against: str = "") -> pd.DataFrame:
    """Mean of `attacked`'s values over the seeds with its Student-t 95 % interval: columns value, low, high.

    Indexed by setting, records, metric, sorted. `against`: differences to this setting, seed by seed. Intervals are cut
    at what an accuracy or a norm can be.
    """
    wide = table.pivot_table(index="seed", columns=["setting", "records", "metric"], values="value", sort=False)
    if against:
        base = wide[against]
        names = [each for each in wide.columns.unique(0) if each != against]
        wide = pd.concat({name: (wide[name] - base).dropna(axis=1, how="all") for name in names}, axis=1)
    most = [np.inf if key[2].startswith("norm") else 1.0 for key in wide]
    ends = [(-end if against else 0.0, end) for end in most]
    found = [metrics.mean_interval(wide[key], *end) for key, end in zip(wide, ends, strict=True)]
    table = pd.DataFrame(found, wide.columns, ["value", "low", "high"])
    return table.rename_axis(["setting", "records", "metric"]).sort_index()
