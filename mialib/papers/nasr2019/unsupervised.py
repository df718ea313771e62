"""Attackers of Nasr, Shokri & Houmansadr 2019 who know no member: Table VII, Figs 3 and 5; and fine-tuning, Table IX.

The unsupervised attack on CIFAR-100's AlexNet and on Location, which the paper does not attack; all else on Location.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from mialib import metrics, papers, runs, work
from mialib.attacks import nasr
from mialib.attacks.nasr import Features, Result, Training
from mialib.data.datasets import Dataset
from mialib.models import federated, fit, small, tuning
from mialib.models.fit import Recipe
from mialib.papers.nasr2019 import alone
from mialib.papers.nasr2019.alone import Seen, Setting
from mialib.results import published
from mialib.results.tables import bars, said, told_apart

WHOLE = Setting("gradient and output of the last layer", (0,), (0,))  # what encoder, supervised and shadow attack see
OUTPUTS = Setting("outputs of the last layer", (0,))
EMBEDDED, GAP = "unsupervised", "gap attack"
KNOWN, SHADOW = "white box", "shadow"  # the same attack network; of the target, or of one shadow model
DIRECT = ("loss", "confidence", "uncertainty", "gradient norm")  # clustered as they are, without a network
PAIRS = (  # what is held against what, on the same asked records
    (EMBEDDED, GAP),
    (EMBEDDED, "loss, clustered"),
    (EMBEDDED, "gradient norm, clustered"),
    (EMBEDDED, "all five quantities, clustered"),
    (EMBEDDED, KNOWN),
    (EMBEDDED, SHADOW),
    (KNOWN, SHADOW),
    (SHADOW, f"{SHADOW}, outputs"),
    (KNOWN, f"{KNOWN}, outputs"),
)
SIDES = (("D", "D_delta"), ("D", "non-members"), ("D_delta", "non-members"))  # Table IX's three questions
MOVED = tuple(  # and of each, what is held against what
    (f"{one} against {other}, both", f"{one} against {other}, {base}")
    for one, other in SIDES
    for base in ("gap attack before", "gap attack after", "the last alone")
)
MODELS = {"both": [0, 1], "the last alone": [1]}  # the model before fine-tuning and after it
BINS = 19  # of Fig 5's histograms


@dataclass(frozen=True)
class Size:
    """Of Location, see sizes.toml."""

    members: int
    tuned: int
    known: int  # of each side
    asked: int  # of each side
    moved: int  # known of each of D, D_delta and non-members, and as many asked
    hidden: tuple[int, ...]
    passes: int
    observed: tuple[int, ...]
    seeds: int
    kernels: int
    epochs: int
    rate: float
    rebuilding: int

    @property
    def training(self) -> Training:
        """Of attack networks that know members."""
        return Training(kernels=self.kernels, epochs=self.epochs, rate=self.rate)

    @property
    def embedding(self) -> Training:
        """Of encoder and decoder."""
        return Training(kernels=self.kernels, epochs=self.rebuilding, rate=self.rate)


@dataclass(frozen=True)
class Drawn:
    """Row numbers of Location, five sets without a record in common."""

    members: np.ndarray  # D: the target's
    tuned: np.ndarray  # D_delta: those that it is trained on further
    others: np.ndarray  # no model's
    shadow_members: np.ndarray
    shadow_others: np.ndarray


def size(profile: str) -> Size:
    about = papers.sizes("nasr2019")["unsupervised"][profile][alone.TABLE]
    return Size(**{name: tuple(value) if isinstance(value, list) else value for name, value in about.items()})


def draw(n: int, about: Size, seed: int) -> Drawn:
    """Of `n` records. ValueError where they, or those of a part, are too few."""
    lengths = [about.members, about.tuned, 2 * max(about.known, about.asked), about.members, about.known]
    if sum(lengths) > n:
        raise ValueError(f"{n} records are too few for a target, fine-tuning, non-members and a shadow: {sum(lengths)}")
    if about.known + about.asked > min(lengths[0], lengths[2]) or 2 * about.moved > min(lengths[:3]):
        raise ValueError("more records are known and asked about than a part has")
    order = runs.stream(seed, "unsupervised", alone.TABLE).permutation(n)
    return Drawn(*np.split(order, np.cumsum(lengths))[:5])


# --- the attacks that know no member --------------------------------------------------------------------------------


def unlabelled(seen: Seen, words: tuple, training: Training) -> dict[str, Result]:
    """The unsupervised attack on the asked records, and the same clustering of quantities that no encoder has seen."""
    found = nasr.quantities(seen.asked)[:, 0]
    norm = found[:, -1]
    score = nasr.embed(alone.shown(seen.asked, WHOLE), found, words, training)
    results = {EMBEDDED: nasr.clustered(score, norm, words)}
    for name in DIRECT:
        column = found[:, nasr.QUANTITIES.index(name)]
        results[f"{name}, clustered"] = nasr.clustered(column, norm, words)
    return results | {"all five quantities, clustered": nasr.clustered(found, norm, words)}


def supervised(known: Features, seen: Seen, words: tuple, training: Training, name: str) -> dict[str, Result]:
    """The attack network trained on `known` records, members first as `seen.known`, by what it sees, asked of `seen`.

    Seed words of both settings are notebook 20's, so on AlexNet the answers are those of its rows too.
    """
    answers = {}
    for setting, called in ((WHOLE, name), (OUTPUTS, f"{name}, outputs")):
        parts = [alone.shown(part, setting) for part in (known, seen.asked)]
        answer = nasr.learn(parts[0], seen.members[0], parts[1], (*words, setting.name), training)
        answers[called] = answer.result
    return answers


def images(seen: Seen, profile: str, seed: int) -> list[dict[str, Result]]:
    """AlexNet: what `unlabelled` and `supervised` say; a dict a draw of the encoder, the first with all of them."""
    about = papers.sizes("nasr2019")["unsupervised"][profile][alone.IMAGES]
    training = Training(kernels=seen.about.kernels, epochs=about["rebuilding"], rate=seen.about.rate)
    jobs = [(seen, seed, number, training) for number in range(about["draws"] + 1)]
    words = (seen.data, seen.known, seen.asked, seen.about, training, about["draws"], seed)
    names = [list(_names(False)), *[list(_names(True))] * about["draws"]]
    found = work.every(_of_images, jobs, *words, runs.versions("numpy", "scipy", "scikit-learn", "torch"))
    first, *rest = [_unpacked(*each, said) for each, said in zip(found, names, strict=True)]
    return [rest[0] | first, *rest[1:]]


def _of_images(seen: Seen, seed: int, number: int, training: Training) -> tuple[np.ndarray, np.ndarray]:
    """Job 0 is the supervised attack, the others are draws of the encoder."""
    if not number:
        return _packed(supervised(seen.known, seen, (seed, "stand-alone", seen.dataset), seen.about.training, KNOWN))
    return _packed(unlabelled(seen, (seed, "unsupervised", seen.dataset, number), training))


def _names(without: bool) -> tuple[str, ...]:
    """Answers in the order of `unlabelled` or of `supervised`."""
    if without:
        return EMBEDDED, *(f"{name}, clustered" for name in DIRECT), "all five quantities, clustered"
    return KNOWN, f"{KNOWN}, outputs"


def _packed(results: dict[str, Result]) -> tuple[np.ndarray, np.ndarray]:
    return np.stack([each.score for each in results.values()]), np.stack([r.predicted for r in results.values()])


def _unpacked(scores: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> dict[str, Result]:
    return {name: Result(*both) for name, *both in zip(names, scores, predicted, strict=True)}


# --- Location -------------------------------------------------------------------------------------------------------


def model(data: Dataset, about: Size) -> small.MLP:
    """Fully connected, tanh, as in notebook 20."""
    return small.MLP((data.X.shape[1], *about.hidden, data.classes))


def words_of(seed: int, role: str) -> tuple:
    return (seed, "unsupervised", alone.TABLE, role)


def trained(data: Dataset, about: Size, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parameters of targets, of one shadow model each, and of the targets fine-tuned on D_delta alone, a row a seed."""
    parts = [draw(len(data.y), about, seed) for seed in seeds]
    recipe, net = Recipe(about.passes, decay=0.0), model(data, about)
    rows = [part.members for part in parts] + [part.shadow_members for part in parts]
    words = [words_of(seed, role) for role in ("target", "shadow") for seed in seeds]
    targets, shadows = np.split(fit.fit_many(net, recipe, data.X, data.y, rows, words), 2)
    words = [words_of(seed, "fine-tuned") for seed in seeds]
    moved = tuning.train(net, recipe, targets, data.X, data.y, [part.tuned for part in parts], words)
    return targets, shadows, moved


def seen_by(data: Dataset, about: Size, thetas: Sequence[np.ndarray], rows: np.ndarray) -> Features:
    """What some records look like in one model or in several: the last layer's output and gradient."""
    nets = [federated.module(model(data, about), theta) for theta in thetas]
    return nasr.observe(nets, data.X[rows].astype(np.float32), data.y[rows], ["last"], ["last"])


def tables(data: Dataset, about: Size, seed: int) -> tuple[pd.DataFrame, pd.DataFrame, Seen, dict[str, Result]]:
    """Location: Table VII's rows and Table IX's of all targets, the first target, and what is answered of it.

    Both tables have columns seed, setting, metric, value.
    """
    seeds = [seed + number for number in range(about.seeds)]
    models = trained(data, about, seeds)
    jobs = [(data, about, *each) for each in zip(seeds, *models, strict=True)]
    code = runs.versions("numpy", "scipy", "scikit-learn", "torch")
    found = work.every(_of_seed, jobs, data.digest, about, [job[2:] for job in jobs], code)
    names = [*_names(True), *_names(False), SHADOW, f"{SHADOW}, outputs"]
    alike, moved = [], []
    for at, (scores, predicted, right, accuracy, fine) in zip(seeds, found, strict=True):
        results = _unpacked(scores, predicted, names) | {GAP: Result(right.astype(float), right)}
        alike.append(
            pd.DataFrame(_rows(results, about, accuracy), columns=["setting", "metric", "value"]).assign(seed=at)
        )
        moved.append(pd.DataFrame({"value": fine}, pd.MultiIndex.from_tuples(_asked_of(), names=["setting", "metric"])))
        moved[-1] = moved[-1].reset_index().assign(seed=at)
    first = target(data, about, seed, models[0][0]), _unpacked(*found[0][:2], names)
    return pd.concat(alike, ignore_index=True), pd.concat(moved, ignore_index=True), *first


def _rows(results: dict[str, Result], about: Size, accuracy: np.ndarray) -> list[tuple]:
    truth, rows = np.arange(2 * about.asked) < about.asked, []
    for name, result in results.items():
        rows.append((name, "accuracy", nasr.balanced_accuracy(truth, result.predicted)))
        if name not in (GAP, "all five quantities, clustered"):
            rows.append((name, "auc", metrics.evaluate(truth, result.score, result.predicted)["auc"]))
    return [*rows, ("target", "train", accuracy[0]), ("target", "test", accuracy[1])]


def target(data: Dataset, about: Size, seed: int, theta: np.ndarray) -> Seen:
    """A target of Location, what is known and asked of it."""
    drawn = draw(len(data.y), about, seed)
    known, asked = (
        np.concatenate([side[part] for side in (drawn.members, drawn.others)])
        for part in (slice(about.known), slice(about.known, about.known + about.asked))
    )
    sizes = alone.Size((about.known, about.known), (), about.asked, about.kernels, about.epochs, about.rate)
    both = [seen_by(data, about, [theta], rows) for rows in (known, asked)]
    name = "FC " + "-".join(map(str, model(data, about).sizes))
    rows = np.concatenate([drawn.members, drawn.others])
    right, member = logits(data, about, theta, rows).argmax(1) == data.y[rows], np.isin(rows, drawn.members)
    digest = runs.digest(data.digest, theta)
    return Seen("Location", name, data.tier, digest, sizes, *both, alone.counted(right, member))


def logits(data: Dataset, about: Size, theta: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return small.logits(model(data, about), theta, data.X[rows])


def _of_seed(
    data: Dataset, about: Size, seed: int, theta: np.ndarray, shadow: np.ndarray, moved: np.ndarray
) -> tuple[np.ndarray, ...]:
    """All attacks on one target: scores, answers, whether it is right, its accuracies, and Table IX's values."""
    seen, drawn = target(data, about, seed, theta), draw(len(data.y), about, seed)
    told = np.concatenate([drawn.shadow_members[: about.known], drawn.shadow_others])
    results = unlabelled(seen, words_of(seed, "encoder"), about.embedding)
    results |= supervised(seen.known, seen, words_of(seed, KNOWN), about.training, KNOWN)
    results |= supervised(seen_by(data, about, [shadow], told), seen, words_of(seed, SHADOW), about.training, SHADOW)
    accuracy = np.array([right / n for right, n in seen.accuracy.values()])
    return *_packed(results), seen.right, accuracy, fine_tuned(data, about, seed, theta, moved)


# --- fine-tuning ----------------------------------------------------------------------------------------------------


def _asked_of() -> list[tuple[str, str]]:
    """Settings and metrics of `fine_tuned`, in its order."""
    said = [f"{one} against {other}" for one, other in SIDES]
    attacks = [(f"{each}, {models}", "accuracy") for each in said for models in MODELS]
    gaps = [(f"{each}, gap attack {when}", "accuracy") for each in said for when in ("before", "after")]
    models = [(f"target {when}", side) for when in ("before", "after") for side in ("D", "D_delta", "test")]
    return attacks + gaps + models


def fine_tuned(data: Dataset, about: Size, seed: int, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Values of `_asked_of`: the attack that sees both models, or the last alone; the gap attack by either model.

    Each side of a question has `moved` known records and as many asked ones.
    """
    drawn = draw(len(data.y), about, seed)
    rows = dict(zip(("D", "D_delta", "non-members"), (drawn.members, drawn.tuned, drawn.others), strict=True))
    seen = {side: seen_by(data, about, [before, after], each[: 2 * about.moved]) for side, each in rows.items()}
    known, asked = np.arange(about.moved), np.arange(about.moved, 2 * about.moved)
    first, attacks, gaps = np.arange(2 * about.moved) < about.moved, [], []
    for one, other in SIDES:
        both = [nasr.joined([seen[one][part], seen[other][part]]) for part in (known, asked)]
        for name, models in MODELS.items():
            parts = [alone.shown(_through(each, models), WHOLE) for each in both]
            answer = nasr.learn(parts[0], first, parts[1], words_of(seed, f"{one} {other} {name}"), about.training)
            attacks.append(nasr.balanced_accuracy(first, answer.result.predicted))
        for right in (both[1].outputs[0].argmax(2) == both[1].y[:, None]).T:
            gaps.append(nasr.balanced_accuracy(first, right))
    of = [[(logits(data, about, theta, each).argmax(1) == data.y[each]).mean() for each in rows.values()]
          for theta in (before, after)]  # fmt: skip
    return np.array([*attacks, *gaps, *np.ravel(of)])


def _through(features: Features, models: list[int]) -> Features:
    """As seen through some of the observed models."""
    pairs = tuple((delta[:, models], entered[:, models]) for delta, entered in features.gradients)
    return Features(features.y, features.loss[:, models], tuple(each[:, models] for each in features.outputs), pairs)


# --- Figs 3 and 5 ---------------------------------------------------------------------------------------------------


def norms(data: Dataset, about: Size, seed: int) -> pd.DataFrame:
    """Fig 3 on Location: mean gradient norm of the last layer by epoch, columns member, non-member; epoch 0: untrained.

    The target of `seed` after fewer epochs; the last is the target itself.
    """
    drawn = draw(len(data.y), about, seed)
    jobs = [(data, about, drawn, seed, epoch) for epoch in about.observed]
    found = work.every(_norm, jobs, data.digest, about, seed, runs.versions("numpy", "torch"))
    return pd.DataFrame([means for (means,) in found], about.observed, ["member", "non-member"]).rename_axis("epoch")


def _norm(data: Dataset, about: Size, drawn: Drawn, seed: int, epoch: int) -> tuple[np.ndarray]:
    words, net = words_of(seed, "target"), model(data, about)
    if epoch:
        recipe = Recipe(epoch, decay=0.0)
        [theta] = fit.fit_many(net, recipe, data.X, data.y, [drawn.members], [words], executor="serial")
    else:
        theta = small.initial(net, runs.stream(*words))
    sides = drawn.members, drawn.others
    return (np.array([nasr.norms(seen_by(data, about, [theta], rows)).mean(dtype=float) for rows in sides]),)


def printed_bars(panel: str) -> pd.DataFrame:
    """Fig 5's bars as `tables.bars` has ours; score: where the members' bar is drawn, less where the first is."""
    table = published.points("nasr_fig5").query("panel == @panel").pivot(index="bin", columns="records")
    shares = table["share"].set_axis(table["score", "member"] - table["score", "member"].iloc[0]).rename_axis("score")
    return shares.rename_axis(columns=None)


def histograms(ours: dict[str, tuple[np.ndarray, Result]]) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Fig 5 beside ours (name -> who is a member, the answer): `tables.told_apart` of each, and the bars.

    Scores beyond the last bar, of the paper's ResNet up to a twentieth, are above every threshold.
    """
    printed = published.load("nasr_table7").set_index("setting")["published"]
    several, theirs = {}, {}
    for panel, name in (("a", "DenseNet"), ("b", "ResNet"), ("c", "AlexNet")):
        several[f"published, {name}"] = printed_bars(panel)
        theirs[f"published, {name}"] = printed[f"{name}, {EMBEDDED}"]
    for name, (member, result) in ours.items():
        several[f"ours, {name}"] = bars(member, -result.score, BINS)
        theirs[f"ours, {name}"] = nasr.balanced_accuracy(member, result.predicted)
    table = pd.DataFrame({name: told_apart(each) for name, each in several.items()}).T
    return table.assign(**{"accuracy of the clusters": pd.Series(theirs)}), several


# --- what is shown --------------------------------------------------------------------------------------------------


def printed() -> pd.DataFrame:
    """What Tables VII and IX print, a row a target, beside the gap attack.

    That is derived from the accuracies that VIII and IX print, (1 + train - test) / 2; after fine-tuning it is of D and
    D_delta together.
    """
    parts = {}
    for table, name, where, setting in (
        ("Table VII", "nasr_table7", "nasr_table8", "target"),
        ("Table IX", "nasr_table9", "nasr_table9", "target after"),
    ):
        read = published.load(name).query("metric == 'attack_total_acc'")
        attack = read["setting"].str.partition(", ")[2].str.removesuffix(", both")
        part = read.assign(attack=attack).pivot(index=["dataset", "model"], columns="attack", values="published")
        accuracy = published.load(where)
        accuracy = accuracy[accuracy["setting"].str.partition(", ")[2] == setting]
        accuracy = accuracy.pivot(index=["dataset", "model"], columns="metric", values="published")
        gap = (1 + accuracy["target_train_acc"] - accuracy["target_test_acc"]) / 2
        parts[table] = part.assign(**{"gap attack, derived": gap.reindex(part.index)})
    return pd.concat(parts, axis=1)


def measured(seen: Seen, answers: dict[str, Result], seed: int) -> pd.DataFrame:
    """`alone.measured` of one target's answers, without best epochs: no epoch is chosen, or only by known records."""
    table = alone.measured(seen, {name: (each, np.nan) for name, each in answers.items()}, seed)
    unranked = (table["setting"] == "all five quantities, clustered") & (table["metric"] == "auc")
    return table[(table["metric"] != "best") & ~unranked].reset_index(drop=True)


def over_draws(seen: Seen, draws: Sequence[dict[str, Result]]) -> pd.DataFrame:
    """A column a draw: balanced accuracy on the same records, and the score's rank correlation with each quantity."""
    truth, columns = seen.members[1], dict(zip(nasr.QUANTITIES, nasr.quantities(seen.asked)[:, 0].T, strict=True))
    found = {}
    for number, answers in enumerate(draws, 1):
        right = {name: nasr.balanced_accuracy(truth, answers[name].predicted) for name in _names(True)}
        score = answers[EMBEDDED].score
        held = {name: stats.spearmanr(score, column).statistic for name, column in columns.items()}
        several = {"balanced accuracy": right, "rank correlation": held}
        found[number] = pd.concat({name: pd.Series(part) for name, part in several.items()})
    return pd.DataFrame(found).rename_axis(columns="draw")


def over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Mean of each setting and metric over target seeds, Student's t 95 %: setting, metric, value, low, high."""
    rows = [(*key, *metrics.mean_interval(part["value"], 0, 1)) for key, part in _parts(table)]
    return pd.DataFrame(rows, columns=["setting", "metric", "value", "low", "high"])


def _parts(table: pd.DataFrame):
    return table.groupby(["setting", "metric"], sort=False)


def gains(table: pd.DataFrame, pairs: Sequence = PAIRS, metric: str = "accuracy") -> pd.DataFrame:
    """What one setting has above another, target by target, with its interval over them: value, low, high."""
    wide = table[table["metric"] == metric].pivot(index="seed", columns="setting", values="value")
    rows = {f"{one} against {other}": metrics.mean_interval(wide[one] - wide[other], -1, 1) for one, other in pairs}
    return pd.DataFrame(rows, ["value", "low", "high"]).T


def of_images(seen: Seen, answers: dict[str, Result]) -> pd.DataFrame:
    """`alone.gains` of the pairs that AlexNet has: no shadow model of it is trained."""
    pairs = [pair for pair in PAIRS if SHADOW not in "".join(pair)]
    return alone.gains(seen, {name: (each, np.nan) for name, each in answers.items()}, pairs)


def questions(fine: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Table IX of `over_seeds`, in words: a row a question, a column an attack; and the accuracies of the models."""
    told = fine.assign(said=said(fine))
    asked, models = told[told["metric"] == "accuracy"], told[told["metric"] != "accuracy"]
    parts = asked["setting"].str.rpartition(", ")
    asked = asked.assign(question=parts[0], attack=parts[2]).pivot(index="question", columns="attack", values="said")
    models = models.pivot(index="setting", columns="metric", values="said").loc[["target before", "target after"]]
    return asked[[*MODELS, "gap attack before", "gap attack after"]], models


def results(seen: Seen, table: pd.DataFrame, added: pd.DataFrame, why: str, note: str, name: str) -> list[dict]:
    """Ours for `published.compare` with the table `name`; why: what keeps those that meet a number from a verdict."""
    rows = [(row.setting, alone.METRICS.get(row.metric, f"target_{row.metric}_acc"), row) for row in table.itertuples()]
    rows += [(row.Index, alone.METRICS["gain"], row) for row in added.itertuples()]
    about = {"dataset": seen.dataset, "model": seen.model, "tier": seen.tier, "note": note}
    printed = {(row.dataset, row.setting, row.metric) for row in published.load(name).itertuples()}
    found = []
    for setting, metric, row in rows:
        about |= {"setting": f"{seen.model.split()[0]}, {setting}", "metric": metric}
        met = (seen.dataset, about["setting"], metric) in printed
        found.append(
            about | {"value": row.value, "low": row.low, "high": row.high, "not_comparable": why if met else ""}
        )
    return found


def why(seen: Seen, profile: str, off: str) -> str:
    """What keeps AlexNet's numbers from a verdict: the profile, the operating point (`alone.nearest`), the sizes."""
    ours = papers.sizes("nasr2019")["unsupervised"][profile][alone.IMAGES]["rebuilding"]
    smaller = (seen.about.kernels, ours) != (Training.kernels, Training.epochs)
    parts = ["demo profile"] if profile == "demo" else [off, "a smaller encoder, fewer steps" if smaller else ""]
    return "; ".join(filter(None, parts))


def panels(several: Sequence[tuple[Seen, pd.DataFrame]]) -> pd.DataFrame:
    """`alone.panels` beside Table VII."""
    return alone.panels(several, ["nasr_table7"])
