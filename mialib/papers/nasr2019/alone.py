"""Stand-alone attacks of Nasr, Shokri & Houmansadr 2019 (Tables III to VI, VIII; Figs 2, 4, 6): what a component adds.

In full on CIFAR-100's AlexNet, and on a fully connected network on Location, which the paper does not attack; on the
other targets of Table VIII with the last layer alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.special import softmax
from torch import nn

from mialib import arrays, metrics, papers, runs, source, work
from mialib.attacks import nasr, signals
from mialib.attacks.nasr import Features, Training
from mialib.data import datasets
from mialib.models import federated, fit, small, targets, transfer
from mialib.models.targets import Trained
from mialib.results import published
from mialib.results.tables import by_setting

IMAGES, TABLE = "cifar-100-alexnet", "location-30"
OTHERS = "standalone_others"  # of sizes.toml: targets of whose layers the last alone is seen
OUTPUT, GRADIENT = "outputs of the last layer", "gradient of the last layer"
AGAIN = {OUTPUT: "white box, outputs", GRADIENT: "white box, gradients"}  # as Table VIII has them
PLACES = ("last", "second to last", "third to last", "fourth to last")
COUNTS = ("", "one", "two", "three", "four")
MODELS = {"cifar-100-resnet": "ResNet", "cifar-100-densenet": "DenseNet"}
PRINTED = ("nasr_table3", "nasr_table4", "nasr_table5", "nasr_table6", "nasr_table8")  # in full: stamps look for names
TRAINED = "rezaei2020"  # the room of our trainings
FURTHER = ", further"  # ends the name of a training that is gone on with
NEAR = 0.02  # of the printed train and test accuracy
GAINS = (  # what is held against what, on the same asked records
    ("outputs of the last layer", "gap attack"),
    ("gradient of the last layer", "gap attack"),
    ("gradient of the last layer", "black box"),
    ("gradient of the last layer", "outputs of the last layer"),
    ("gradient and output of the last layer", "gradient of the last layer"),
    ("gradient of the last layer, all outputs", "gradient of the last layer"),
    ("all gradients, all outputs", "gradient of the last layer"),
)


@dataclass(frozen=True)
class Size:
    """See sizes.toml."""

    known: tuple[int, int]  # members, non-members
    fewer: tuple[tuple[int, int], ...]
    asked: int  # of each side
    kernels: int
    epochs: int
    rate: float

    @property
    def training(self) -> Training:
        """Of the attack network."""
        return Training(kernels=self.kernels, epochs=self.epochs, rate=self.rate)


@dataclass(frozen=True)
class Setting:
    """Which components the attack network has: numbers of layers, 0 the last, and whether label and loss."""

    name: str
    outputs: tuple[int, ...] = ()
    gradients: tuple[int, ...] = ()
    label: bool = True
    loss: bool = True
    logits: bool = False  # what the last layer gives before the softmax, in place of the confidence vector
    known: tuple[int, int] | None = None  # None: all


@dataclass(frozen=True)
class Seen:
    """A target and what the attacker sees of it; asked records are members first, as known ones are."""

    dataset: str
    model: str
    tier: str
    data: str  # digest of the target and its records
    about: Size
    known: Features
    asked: Features
    accuracy: dict[str, tuple[int, int]]  # "train", "test" -> right, records

    @property
    def members(self) -> tuple[np.ndarray, np.ndarray]:
        """Whether each known and each asked record is a member, bool."""
        return np.arange(len(self.known.y)) < self.about.known[0], np.arange(len(self.asked.y)) < self.about.asked

    @property
    def kind(self) -> str:
        """What settings begin with: "AlexNet", "FC"."""
        return self.model.split()[0]

    @property
    def right(self) -> np.ndarray:
        """Whether the target classifies each asked record correctly, bool: the gap attack's answer."""
        return self.asked.outputs[0][:, 0].argmax(1) == self.asked.y


def size(profile: str, name: str, where: str = "standalone") -> Size:
    """How much is known and asked of a target: IMAGES or TABLE, or one of OTHERS."""
    about = papers.sizes("nasr2019")[where][profile][name]
    pair, fewer = tuple(about["known"]), tuple(map(tuple, about.get("fewer", ())))
    return Size(**{k: about[k] for k in ("asked", "kernels", "epochs", "rate")}, known=pair, fewer=fewer)


# --- the targets ----------------------------------------------------------------------------------------------------


def nearest(profile: str) -> pd.DataFrame:
    """Our trainings of AlexNet beside the printed accuracies; no attack is looked at.

    Indexed by name; train, test, distance (the sum of both differences), nearest, why_not ("" at the operating point).
    """
    rows, (train, test) = {}, printed_point()
    names = [name for name in papers.targets(profile, TRAINED) if name.partition("@")[0].removesuffix("-b") == IMAGES]
    for name in (*names, IMAGES + FURTHER):
        found = training(name, profile)
        right, member = signals.correct(targets.confidences(found), found.data.y), found.data.member
        rows[name] = {"train": right[member].mean(), "test": right[~member].mean()}
    table = pd.DataFrame(rows).T.rename_axis("target")
    told = [published.off_point(row, (train, test), NEAR) for row in table.to_numpy()]
    table["distance"] = (table - [train, test]).abs().sum(axis=1)
    table["nearest"] = table.index == table["distance"].idxmin()
    return table.assign(why_not=told)


def training(name: str, profile: str) -> Trained:
    """One of our trainings of AlexNet by its name; with FURTHER at its end, gone on with as sizes.toml has it.

    That is by Adam, on images as they are. What is trained so is kept, as `transfer.train` does.
    """
    first = name.removesuffix(FURTHER)
    found = targets.load(first, papers.targets(profile, TRAINED)[first], profile)
    if name == first:
        return found
    data, recipe = found.data, fit.Recipe(**papers.sizes("nasr2019")["further"][profile])
    teacher = transfer.Teacher(found.net, "fc", data.X.shape[1:], *targets.SCALES[found.target.scale])
    rows = np.flatnonzero(data.member)
    tuned = transfer.train(teacher, data.X[rows], data.y[rows], recipe, (0, "nasr", name))
    return replace(found, name=name, net=tuned.net.requires_grad_(False))


def printed_point(dataset: str = "CIFAR-100", kind: str = "AlexNet") -> tuple[float, float]:
    """Train and test accuracy of a target as Table VIII has them. KeyError where it has none."""
    table = published.load("nasr_table8").set_index(["dataset", "setting", "metric"])["published"]
    return tuple(float(table[dataset, f"{kind}, target", f"target_{side}_acc"]) for side in ("train", "test"))


def alexnet(name: str, profile: str, seed: int) -> Seen:
    """An AlexNet, members and non-members known and asked drawn anew from its records."""
    about, found = size(profile, IMAGES), training(name, profile)
    right, member = signals.correct(targets.confidences(found), found.data.y), found.data.member
    known, asked = draw(member, about, seed, IMAGES)
    layers = ("fc", "flatten", "relu4")  # the last, and what the last two convolutions give
    seen = [
        nasr.observe(
            [found.net], targets.normalised(found.target, found.data.X[rows]), found.data.y[rows], layers, ["fc"]
        )
        for rows in (known, asked)
    ]
    digest = targets.identity(found)
    return Seen("CIFAR-100", "AlexNet", found.data.tier, digest, about, *seen, counted(right, member))


def others(profile: str, seed: int) -> list[Seen]:
    """The other targets of Table VIII."""
    nets = [last_layer(name, profile, seed) for name in MODELS]
    return nets + [fully_connected(name, profile, seed) for name in ("texas-100", "purchase-100")]


def last_layer(name: str, profile: str, seed: int) -> Seen:
    """A network of another room on CIFAR-100: its last layer, on what enters it, which that room's exhibits keep."""
    [full] = [each for each in papers.targets(profile, TRAINED) if each.partition("@")[0] == name]
    about, found = size(profile, name, OTHERS), targets.load(full, papers.targets(profile, TRAINED)[full], profile)
    right, member = signals.correct(targets.confidences(found), found.data.y), found.data.member
    features, y = targets.last_features(found), found.data.y
    head = nn.Sequential([layer for layer in found.net.modules() if isinstance(layer, nn.Linear)][-1])
    seen = [nasr.observe([head], features[rows], y[rows], ["0"], ["0"]) for rows in draw(member, about, seed, name)]
    model = f"{MODELS[name]} {found.target.network.partition('-')[2]}"
    return Seen("CIFAR-100", model, found.data.tier, targets.identity(found), about, *seen, counted(right, member))


def fully_connected(name: str, profile: str, seed: int) -> Seen:
    """A fully connected network (tanh, Adam) on TABLE, Texas or Purchase; of the latter two the last layer is seen.

    Its members are drawn, non-members are the rest; accuracies are of `tested` ones, if sizes.toml says how many.
    """
    where = "standalone" if name == TABLE else OTHERS
    how, about = papers.sizes("nasr2019")[where][profile][name], size(profile, name, where)
    data = datasets.load(name, profile)
    order = runs.stream(seed, "stand-alone", name).permutation(len(data.y))
    member = np.isin(np.arange(len(data.y)), order[: how["members"]])
    model, recipe = small.MLP((data.X.shape[1], *how["hidden"], data.classes)), fit.Recipe(how["passes"], decay=0.0)
    [theta] = fit.fit_many(model, recipe, data.X, data.y, [np.flatnonzero(member)], [(seed, "stand-alone", name)])
    tested = order[: how["members"] + how.get("tested", len(order))]
    right = small.logits(model, theta, data.X[tested]).argmax(1) == data.y[tested]
    net = federated.module(model, theta)
    linear = [each for each, layer in net.named_modules() if isinstance(layer, nn.Linear)][::-1]
    linear = linear[: len(PLACES) if name == TABLE else 1]
    outputs = [linear[0], *(f"{each}a" for each in linear[1:3])]
    seen = [
        nasr.observe([net], arrays.dense(data.X[rows]), data.y[rows], outputs, linear)
        for rows in draw(member, about, seed, name)
    ]
    said = "Location" if name == TABLE else name.title(), "FC " + "-".join(map(str, model.sizes))
    digest = runs.digest(data.digest, theta)
    return Seen(*said, data.tier, digest, about, *seen, counted(right, member[tested]))


def draw(member: np.ndarray, about: Size, seed: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Known and asked rows, members first in both, disjoint. ValueError where a side has too few."""
    parts = []
    for side, known in zip((True, False), about.known, strict=True):
        rows = runs.stream(seed, "stand-alone", name, side).permutation(np.flatnonzero(member == side))
        if len(rows) < known + about.asked:
            kind = "members" if side else "non-members"
            raise ValueError(f"{name} has {len(rows)} {kind}; {known} known and {about.asked} asked are more")
        parts.append(np.split(rows[: known + about.asked], [known]))
    return tuple(np.concatenate(each) for each in zip(*parts, strict=True))


def counted(right: np.ndarray, member: np.ndarray) -> dict[str, tuple[int, int]]:
    """`Seen.accuracy` of records that a target is right about, or not."""
    return {side: (int(right[here].sum()), int(here.sum())) for side, here in (("train", member), ("test", ~member))}


# --- the attacks ----------------------------------------------------------------------------------------------------


def settings(seen: Seen) -> list[Setting]:
    """Each component alone, then what Tables VIII, III, IV, V and VI have, as far as the target has the layers.

    Where the last layer alone is seen, Table VIII's three.
    """
    outputs, layers = (tuple(range(len(each))) for each in (seen.known.outputs, seen.known.gradients))
    three = Setting("black box", (0,), loss=False), Setting(OUTPUT, (0,)), Setting(GRADIENT, (), (0,))
    if outputs == layers == (0,):
        return list(three)
    found = [
        Setting("output alone", (0,), label=False, loss=False),
        Setting("label alone", loss=False),
        Setting("loss alone", label=False),
        Setting("gradient alone", (), (0,), label=False, loss=False),
        three[0],
        Setting("black box, logits", (0,), loss=False, logits=True),
        *(Setting(f"outputs of the {PLACES[i]} layer", (i,)) for i in outputs),
        Setting(f"outputs of {COUNTS[len(outputs)]} layers", outputs),
        *(Setting(f"gradient of the {PLACES[i]} layer", (), (i,)) for i in layers),
        Setting("gradient and output of the last layer", (0,), (0,)),
        Setting("gradient of the last layer, all outputs", outputs, (0,)),
    ]
    if len(layers) > 1:
        found.append(Setting(f"gradients of {COUNTS[len(layers)]} layers", (), layers))
        found.append(Setting("all gradients, all outputs", outputs, layers))
    return found + [Setting(knows(pair), (), (0,), known=pair) for pair in seen.about.fewer]


def knows(pair: tuple[int, int]) -> str:
    """How Table VI says what is known."""
    return f"{pair[0]:,} members and {pair[1]:,} non-members"


def shown(features: Features, setting: Setting) -> Features:
    """What a setting lets the attacker see: a label or loss that it hides is the same for all records.

    The last layer's output is the confidence vector, as the paper's f(x), unless the setting says logits.
    """
    kept = (features.y, setting.label), (features.loss, setting.loss)
    y, loss = (part if seen else np.zeros_like(part) for part, seen in kept)
    outputs = list(features.outputs)
    if 0 in setting.outputs and not setting.logits:
        outputs[0] = softmax(outputs[0].astype(float), axis=2).astype(np.float32)
    gradients = tuple(features.gradients[i] for i in setting.gradients)
    return Features(y, loss, tuple(outputs[i] for i in setting.outputs), gradients)


def attacked(seen: Seen, seed: int) -> dict[str, tuple[nasr.Result, float]]:
    """Setting -> the answer on the asked records, and the balanced accuracy at the epoch that is best on them."""
    member, truth = seen.members
    jobs, several = [], settings(seen)
    for setting in several:
        known, here = shown(seen.known, setting), member
        if setting.known:
            inside, outside = (
                np.flatnonzero(member == side)[:n] for side, n in zip((True, False), setting.known, strict=True)
            )
            rows = np.concatenate([inside, outside])
            known, here = known[rows], member[rows]
        words = (seed, "stand-alone", seen.dataset, setting.name)
        jobs.append((known, here, shown(seen.asked, setting), truth, words, seen.about.training))
    code = source.digest(shown), runs.versions("numpy", "scipy", "torch")
    found = work.every(_attack, jobs, seen.known, seen.asked, seen.about, several, seed, *code)
    return {
        setting.name: (nasr.Result(score, score > 0.5), float(best))
        for setting, (score, best) in zip(several, found, strict=True)
    }


def _attack(
    known: Features, member: np.ndarray, asked: Features, truth: np.ndarray, words: tuple, training: Training
) -> tuple[np.ndarray, np.ndarray]:
    answer = nasr.learn(known, member, asked, words, training)
    return answer.result.score, np.array(answer.best(truth))


def measured(seen: Seen, answers: dict[str, tuple[nasr.Result, float]], seed: int, repeats: int = 500) -> pd.DataFrame:
    """A row a setting and metric: value, low, high (95 %, bootstrap over the asked records; none of "best").

    Metrics: accuracy (balanced), auc, best; setting "gap attack" has accuracy alone, "gradient norm alone" auc,
    "target" train and test (Wilson).
    """
    _, truth = seen.members
    norm = -nasr.norms(seen.asked, 0)[:, 0].astype(float)
    every = {name: result for name, (result, _) in answers.items()}
    every |= {"gap attack": nasr.Result(seen.right.astype(float), seen.right)}
    every |= {"gradient norm alone": nasr.Result(norm, norm > np.median(norm))}
    rows = []
    for name, result in every.items():
        found = metrics.evaluate(truth, result.score, result.predicted)
        words = (seed, "stand-alone", seen.dataset, name, "bootstrap")
        ends = metrics.bootstrap(truth, result.score, result.predicted, runs.stream(*words), repeats)
        for metric, key in (("accuracy", "balanced_accuracy"), ("auc", "auc")):
            if (name, metric) not in (("gap attack", "auc"), ("gradient norm alone", "accuracy")):
                rows.append((name, metric, found[key], *ends[key]))
    rows += [(name, "best", best, np.nan, np.nan) for name, (_, best) in answers.items()]
    for side, (hits, n) in seen.accuracy.items():
        rows.append(("target", side, *metrics.share(hits, n)))
    return pd.DataFrame(rows, columns=["setting", "metric", "value", "low", "high"])


def gains(seen: Seen, answers: dict[str, tuple[nasr.Result, float]], pairs: Sequence = GAINS) -> pd.DataFrame:
    """What one setting's accuracy is above another's on the same asked records: value, low, high (normal, 95 %).

    The interval knows of the asked records only, and nothing of another draw of the attack network.
    """
    _, truth = seen.members
    right = {name: result.predicted == truth for name, (result, _) in answers.items()}
    right["gap attack"] = seen.right == truth
    rows = {}
    for one, other in pairs:
        if one in right and other in right:
            rows[f"{one} against {other}"] = metrics.paired(truth, right[one], right[other])
    return pd.DataFrame(rows, ["value", "low", "high"]).T


def joined(several: Sequence[Seen], tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """`gains` of several targets as one table, beside whether the interval leaves zero."""
    table = stacked(several, tables)
    return table.assign(**{"leaves zero": (table["low"] > 0) | (table["high"] < 0)})


def stacked(several: Sequence[Seen], tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables of several targets as one, by the data set, and by the model where two have the same."""
    names = [seen.dataset for seen in several]
    if len(set(names)) < len(names):
        names = [f"{seen.dataset}, {seen.kind}" for seen in several]
    return pd.concat(dict(zip(names, tables, strict=True)), names=["target", ""])


def by_class(seen: Seen, answers: dict[str, tuple[nasr.Result, float]], attack: str) -> pd.DataFrame:
    """AUC on the asked records of thirds of the classes, by how far members and non-members are apart in them.

    A row a figure ("2b": gradient norm, "6": uncertainty) and third: classes, difference (mean over them, non-members
    less members), the AUC of `attack` and of the quantity alone, and difference and AUC of the published single class.
    """
    _, truth = seen.members
    uncertainty = signals.uncertainty(softmax(seen.asked.outputs[0][:, 0].astype(float), axis=1))
    score, y = answers[attack][0].score, seen.asked.y
    printed = published.points("nasr_auc").set_index(["figure", "class"])
    rows = []
    for figure, quantity in (("2b", nasr.norms(seen.asked, 0)[:, 0].astype(float)), ("6", uncertainty)):
        means = [pd.Series(quantity[truth == side]).groupby(y[truth == side]).mean() for side in (True, False)]
        apart = (means[1] - means[0]).dropna().sort_values()
        for third, classes in zip(("small", "medium", "large"), np.array_split(apart.index, 3), strict=True):
            here = np.isin(y, classes)
            aucs = [metrics.evaluate(truth[here], each[here], truth[here])["auc"] for each in (score, -quantity)]
            about = {"figure": figure, "class": f"{third} difference", "classes": len(classes)}
            about |= {"difference": apart[classes].mean(), "attack AUC": aucs[0], "alone AUC": aucs[1]}
            theirs = printed.loc[(figure, about["class"])]
            about |= {
                "published difference, one class": theirs["difference"],
                "published AUC, one class": theirs["auc"],
            }
            rows.append(about)
    return pd.DataFrame(rows).set_index(["figure", "class"])


# --- what is shown --------------------------------------------------------------------------------------------------


def cells(several: Sequence[tuple[Seen, pd.DataFrame, pd.DataFrame]], profile: str) -> list[dict]:
    """Ours beside Tables III, IV, V, VI and VIII: what `published.compare` gives; target, its `measured`, its `gains`.

    The first is AlexNet, chosen by its accuracies, which therefore have a verdict off the printed operating point too.
    """
    rest, first = [], several[0][0]
    for seen, table, added in several:
        rest += [_result(seen, row.setting, row.metric, row) for row in table.itertuples()]
        rest += [_result(seen, row.Index, "gain", row) for row in added.itertuples()]
    named = [each for result in rest for each in _names(result, first.about.known)]
    reasons = {(seen.dataset, seen.model): why_not(seen, profile, seen is first) for seen, *_ in several}
    found = []
    for name in PRINTED:
        printed = published.load(name)
        keys = {(row.dataset, row.setting, row.metric) for row in printed.itertuples()}
        ours = []
        for each in named:
            if (each["dataset"], each["setting"], each["metric"]) in keys:
                of_target = each["metric"].startswith("target")
                why = reasons[each["dataset"], each["model"]][of_target]
                note = "the target was chosen by it" if of_target and each["model"] == first.model else ""
                ours.append(each | {"not_comparable": why, "note": note})
        # The rest has no published number and is told once: all but what stands in a table of the paper.
        met = {tuple(each[key] for key in ("dataset", "setting", "metric")) for each in ours}
        more = [each for each in rest if tuple(each[key] for key in ("dataset", "setting", "metric")) not in met]
        found += published.compare(ours + (more if name == PRINTED[-1] else []), name)
    return found


def why_not(seen: Seen, profile: str, chosen: bool) -> tuple[str, str]:
    """What keeps attacks on a target and its accuracies from a verdict: the profile, its operating point, the sizes."""
    if profile == "demo" or seen.dataset == "Location":
        return ("demo profile" if profile == "demo" else "",) * 2
    ours, theirs = [right / n for right, n in seen.accuracy.values()], printed_point(seen.dataset, seen.kind)
    off = published.off_point(ours, theirs, NEAR)
    smaller = (seen.about.kernels, seen.about.epochs) != (Training.kernels, Training.epochs)
    parts = off, "a smaller attack network, fewer steps" if smaller else ""
    return "; ".join(filter(None, parts)), "" if chosen else off


METRICS = {"accuracy": "attack_total_acc", "auc": "attack_auc", "best": "best_epoch_total_acc"}
METRICS |= {"gain": "gain_total_acc"}


def _result(seen: Seen, setting: str, metric: str, row: tuple) -> dict:
    """A number of ours without a published one: settings of either target begin with its model's kind."""
    about = {"dataset": seen.dataset, "model": seen.model, "setting": f"{seen.kind}, {setting}"}
    about |= {"metric": METRICS.get(metric, f"target_{metric}_acc"), "tier": seen.tier}
    return about | {"value": row.value, "low": row.low, "high": row.high}


def _names(result: dict, known: tuple[int, int]) -> list[dict]:
    """The result under all settings that tables give it: VI and VIII call by other names what III and IV have."""
    model, _, setting = result["setting"].partition(", ")
    also = [AGAIN[setting]] if setting in AGAIN else []
    also += [knows(known)] if setting == GRADIENT else []
    return [result, *(result | {"setting": f"{model}, {name}"} for name in also)]


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """`measured` as it is read: a row a setting, "value (low to high)" a metric."""
    headings = {"accuracy": "accuracy", "best": "best epoch", "auc": "auc", "train": "train", "test": "test"}
    return by_setting(table, headings)


def panels(several: Sequence[tuple[Seen, pd.DataFrame]], names: Sequence[str]) -> pd.DataFrame:
    """Rows for `plots.dots`: a panel a target (or several of a kind), a row an attack, beside the published tables.

    `rerun`: at the best epoch, where there is one; `gap`: the gap attack.
    """
    printed = pd.concat(map(published.load, names))
    printed = printed.drop_duplicates(["dataset", "setting"]).set_index(["dataset", "setting"])["published"]
    parts = []
    for seen, table in several:
        chosen = table[(table["metric"] == "accuracy") & (table["setting"] != "gap attack")]
        best = table[table["metric"] == "best"].set_index("setting")["value"]
        gap = table.set_index(["setting", "metric"])["value"]["gap attack", "accuracy"]
        named = [f"{seen.kind}, {AGAIN.get(name, name)}" for name in chosen["setting"]]
        about = {"panel": f"{seen.dataset}\n{seen.kind}", "tier": seen.tier, "gap": gap}
        about["published"] = [printed.get((seen.dataset, name), np.nan) for name in named]
        parts.append(chosen.assign(label=chosen["setting"], rerun=chosen["setting"].map(best), **about))
    return pd.concat(parts, ignore_index=True)
