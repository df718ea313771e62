"""The same arrays through other packages and through ours: the table of docs/conformance.md, and two claims of speed.

`python -m benchmarks conformance` prints the table; it ends with an error where a definition agrees and a number does
not, to 1e-6. Each peer runs (`peers`) in the first Python that has it, this one or those that $MIALIB_PEERS names, and
gets the arrays in a file; of a peer that none has, the rows are left out. The arrays: 25 small networks of
scikit-learn, each trained on a random half of 900 of its digits; the first is the target.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from scipy.special import softmax
from scipy.stats import norm, spearmanr
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from benchmarks import peers
from benchmarks import references as scoring
from benchmarks.measure import contender, show
from mialib import machine, runs
from mialib.attacks import (
    Observations,
    baselines,
    calibration,
    classifiers,
    hopskipjump,
    label_only,
    references,
    signals,
)
from mialib.data import datasets
from mialib.models import fit, small

RECORDS, MODELS, HIDDEN, EPOCHS = 900, 25, 32, 200
QUERIES, NOISE = 3, 0.1  # the record, and copies with noise of this deviation; pixels are 0..1
FEW = 100  # records that ART asks about through labels alone
WORDS = (0, "conformance")
TOLERANCE = 1e-6
# The whole attack on Location.
TARGETS, SHADOWS, WIDTH, LOCATION_EPOCHS = 3, 16, 128, 100
MODES = {"online-carlini": True, "offline": False}  # sacroml's -> online
HERE = "benchmarks.conformance"
PEERS = ("sacroml", "art", "tfp")
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Row:
    """One quantity: a peer's, and of ours that which is it, or which is nearest to it."""

    peer: str
    quantity: str  # as `peers` names it
    theirs: str  # in formula
    ours: Callable[[Arrays], np.ndarray]  # scores, of the records that the peer gave scores of
    what: str  # of ours
    agrees: str  # "scores", "AUC" (the scores stand on another scale), or "" where definitions differ


def given() -> Arrays:
    """What all peers get: networks' logits of digits and of noisy copies, who is a member, and the target's weights."""
    X, y = load_digits(return_X_y=True)
    rng = runs.stream(*WORDS)
    rows = rng.permutation(len(y))[:RECORDS]
    X, y = X[rows] / 16, y[rows]
    member = rng.random((MODELS, len(y))) < 0.5
    order = np.argsort(~member[0], kind="stable")
    X, y, member = X[order], y[order], member[:, order]
    copies = np.stack([X, *(X + rng.normal(0, NOISE, X.shape) for _ in range(QUERIES - 1))], axis=1)
    logits, weights = [], []
    for number, side in enumerate(member):
        net = MLPClassifier((HIDDEN,), max_iter=EPOCHS, tol=0, n_iter_no_change=EPOCHS, random_state=number)
        net.fit(X[side], y[side])
        weights.append((net.coefs_[0], net.intercepts_[0], net.coefs_[1], net.intercepts_[1]))
        hidden, bias, last, last_bias = weights[-1]
        logits.append(np.maximum(copies @ hidden + bias, 0) @ last + last_bias)
    return prepared(np.stack(logits), member, y) | {
        "X": X,
        **{f"weights {i}": each for i, each in enumerate(weights[0])},
    }


def prepared(logits: np.ndarray, member: np.ndarray, y: np.ndarray) -> Arrays:
    """What is made of logits (models, records, queries, classes), member (models, records) and y, the target first.

    The second half of the models are shadows for attacks that learn.
    """
    half, classes, rng = len(logits) // 2, logits.shape[-1], runs.stream(*WORDS, "few")
    vectors = softmax(logits[:, :, 0], axis=-1)
    # What attacks learn from: digits of vectors near 0 would be lost where ours rescale them.
    outputs = np.log(vectors).astype(np.float32)
    first = np.argsort(~member[half:].ravel(), kind="stable")  # members first, as ART has them: a forest draws by place
    seeds = [int(runs.stream(*WORDS, "forest", number).integers(2**31)) for number in range(classes)]
    sides = [rng.permutation(np.flatnonzero(member[0] == side)) for side in (True, False)]
    n = min(FEW // 2, min(map(len, sides)) // 2)
    return {
        "logits": logits[0, :, 0],
        "signal": references.phi(logits, y).astype(float),
        "member": member,
        "y": y,
        "vectors": vectors[0],
        "outputs": outputs[0],
        "shadow outputs": outputs[half:].reshape(-1, classes)[first],
        "shadow y": np.tile(y, len(logits) - half)[first],
        "shadow member": member[half:].ravel()[first],
        "seed": np.array(seeds[:1]),
        "seeds": np.array(seeds),
        "few": np.concatenate([side[:n] for side in sides]),
        "known": np.concatenate([side[n : 2 * n] for side in sides]),
    }


def rows(found: Arrays) -> list[Row]:
    """The table; `found`: ART's, whose points on the boundary ours are measured by."""

    def of(attack: Callable, queries: int | None = None, **options: Any) -> Callable[[Arrays], np.ndarray]:
        def score(g: Arrays) -> np.ndarray:
            signal = g["signal"][:, :, :queries]
            return attack(signal[0], signal[1:], g["member"][1:], **options)

        return score

    def lira(online: bool, fixed: bool = False, queries: int | None = 1) -> Callable[[Arrays], np.ndarray]:
        return of(references.lira, queries, online=online, fixed=fixed)

    def distance(g: Arrays) -> np.ndarray:
        far = np.linalg.norm(found["points"] - g["X"].astype(np.float32)[g["few"]], axis=1)
        return label_only.away(far, signals.correct(g["vectors"], g["y"])[g["few"]])

    z, ratio = "z = (φ - m_out) / s_out", "log N(φ; m_in, s_in) - log N(φ; m_out, s_out)"
    one = "s: of all φ of a side around their common mean"
    return [
        Row("sacroml", "LiRA offline", f"Φ(z), {z}", lambda g: norm.cdf(lira(False)(g)), "Φ of `lira`", "scores"),
        Row("sacroml", "LiRA offline, fixed variance", f"the same, {one}", lambda g: norm.cdf(lira(False, True)(g)),
            "Φ of `lira`, `fixed`", "scores"),
        Row("sacroml", "LiRA online", ratio, lira(True), "`lira`, `online`", "scores"),
        Row("sacroml", "LiRA online, fixed variance", f"the same, {one}", lira(True, True), "`lira`, `online`, `fixed`",
            "scores"),
        Row("sacroml", "LiRA offline-carlini, fixed variance", "-log N(φ; m_out, s): larger on both sides of m_out",
            lambda g: np.abs(lira(False, True)(g)), "size of `lira`, `fixed`", "AUC"),
        Row("sacroml", "LiRA offline-carlini", "-log N(φ; m_out, s_out) = z²/2 + log s_out + constant", lira(False),
            "`lira`: z", ""),
        Row("sacroml", "LiRA online, sure networks", "the same of φ = log p / (1 - p), p in float32, of 4 φ",
            lambda g: of(references.lira, 1, online=True)(g | {"signal": 4 * g["signal"]}),
            "`lira`, `online`, of 4 φ", ""),
        Row("sacroml", "worst case, a given forest", "forest on 80 % of the target's own records, sorted vectors",
            worst, "`classifiers.attack`, the same 80 %, sorted, one class", "scores"),
        Row("sacroml", "worst case, as it comes", "the same, depth 5 at most, leaves of 10 at least", worst,
            "`classifiers.attack` as above", ""),
        Row("art", "rule", "1 if the label is right", lambda g: baselines.gap(_target(g)).score, "`gap`", "scores"),
        Row("art", "learned, a forest a class", "forest on vectors, asked class by class", by_class,
            "`classifiers.attack`, forest, on rescaled vectors", ""),
        Row("art", "learned, a forest for all", "one forest on standardised vectors and the class, one-hot", by_class,
            "`classifiers.attack`, forest: one a class", ""),
        Row("art", "label-only", "1 / (1 + exp(τ - d)), d to HopSkipJump's point, 0 where the label is wrong",
            lambda g: 1 / (1 + np.exp(0.5 - distance(g))), "the same of `away` for the same points", "scores"),
        Row("art", "label-only, calibrated", "accuracy of the last threshold below d", distance, "`away`: d", ""),
        Row("tfp", "signal", "log p - log (1 - p), 1 - p summed", lambda g: g["signal"][0, :, 0], "`phi`", "scores"),
        Row("tfp", "signal, hinge", "z_y - max of the others", lambda g: g["signal"][0, :, 0],
            "`phi`: z_y - log Σ exp of the others", ""),
        Row("tfp", "LiRA online, means", f"{ratio}, mean over queries", lira(True, queries=None), "`lira`, `online`",
            "scores"),
        Row("tfp", "LiRA online, medians", "the same, m the median, s around the mean", lira(True, queries=None),
            "`lira`, `online`", ""),
        Row("tfp", "LiRA online, fixed", "the same, means, s around each record's own mean",
            lira(True, True, queries=None), "`lira`, `online`, `fixed`: around the common mean", ""),
        Row("tfp", "LiRA out, fixed", "-log N(φ; m_out, s): larger on both sides of m_out",
            lambda g: np.abs(lira(False, True)(g)), "size of `lira`, `fixed`", "AUC"),
        Row("tfp", "LiRA out", "-log N(φ; m_out, s_out)", lira(False), "`lira`: z", ""),
        Row("tfp", "offset out", "φ - median of OUT models", calibrated, "`calibration.attack`, less its threshold",
            "AUC"),
        Row("tfp", "threshold on the loss", "-log p, p at least 1e-8",
            lambda g: signals.true_class(g["vectors"], g["y"]), "`true_class`: p", "AUC"),
        Row("tfp", "threshold on the loss", "the same", lambda g: references.attack_p(g["signal"][0], ~g["member"][0]),
            "`attack_p`: steps at the non-members' losses", ""),
        Row("tfp", "threshold on the entropy", "Σ p log p", lambda g: -signals.uncertainty(g["vectors"]),
            "minus `uncertainty`, which divides by log classes", "AUC"),
        Row("tfp", "threshold on the modified entropy", "(1 - p_y) log p_y + Σ p_i log (1 - p_i) (Song & Mittal)",
            lambda g: -signals.uncertainty(g["vectors"]), "none; minus `uncertainty`", ""),
        Row("tfp", "logistic regression", "on logits and loss of the target's own records, 2 folds", by_class,
            "none; `classifiers.attack`, forest, on shadows", ""),
    ]  # fmt: skip


def _target(g: Arrays, what: str = "vectors") -> Observations:
    return Observations(g[what], g["y"], g["member"][0])


def by_class(g: Arrays) -> np.ndarray:
    """Chances of the forests that `classifiers.attack` learns from the shadows."""
    shadow = Observations(g["shadow outputs"], g["shadow y"], g["shadow member"])
    [result] = classifiers.attack("forest", shadow, [_target(g, "outputs")], WORDS)
    return 1 / (1 + np.exp(-result.score))


def split(g: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """The records that sacroml's worst case learns from, and those it is asked about."""
    member = g["member"][0]
    return train_test_split(np.arange(len(member)), test_size=0.2, stratify=member * 1.0, random_state=peers.SPLIT)


def worst(g: Arrays) -> np.ndarray:
    """The same by `classifiers.attack`: told who of the target's own records is a member, and no class."""
    ranked = -np.sort(-g["outputs"], axis=1)
    known, asked = (Observations(ranked[at], np.zeros(len(at), np.int64), g["member"][0][at]) for at in split(g))
    [result] = classifiers.attack("forest", known, [asked], WORDS)
    return 1 / (1 + np.exp(-result.score))


def calibrated(g: Arrays) -> np.ndarray:
    """phi above the median of the OUT models, less one threshold for all."""
    signal, member = g["signal"][:, :, 0], g["member"]
    outside = np.where(member[1:], np.nan, signal[1:])
    return calibration.attack(signal[0], outside, signal[1:], member[1:]).score


def asked(row: Row, g: Arrays) -> np.ndarray:
    """The records that a row's scores are of."""
    if row.quantity.startswith("label-only"):
        return g["few"]
    return split(g)[1] if row.quantity.startswith("worst case") else np.arange(len(g["y"]))


def compare(row: Row, g: Arrays, found: Arrays) -> dict[str, Any]:
    """AUC of both, the larger difference of scores (of their size, where that is above 1), seconds, and a verdict."""
    member, theirs = g["member"][0][asked(row, g)], found[f"{row.quantity}/score"]
    start = time.perf_counter()
    ours = row.ours(g)
    seconds = time.perf_counter() - start
    told = float(found.get(f"{row.quantity}/auc", roc_auc_score(member, theirs)))
    auc = roc_auc_score(member, ours)
    apart = float(np.max(np.abs(theirs - ours) / np.maximum(1, np.abs(ours)))) if row.agrees == "scores" else None
    holds = not row.agrees or (abs(told - auc) < TOLERANCE and (apart is None or apart < TOLERANCE))
    return {
        "peer": row.peer,
        "quantity": row.quantity,
        "theirs": row.theirs,
        "ours": row.what,
        "agrees": row.agrees or "no",
        "AUC theirs": told,
        "AUC ours": float(auc),
        "scores apart": apart,
        "s theirs": float(found[f"{row.quantity}/seconds"]),
        "s ours": seconds,
        "holds": holds,
    }


def pythons() -> list[str]:
    """This Python, and those that $MIALIB_PEERS names, separated as in $PATH."""
    return [sys.executable, *filter(None, os.environ.get("MIALIB_PEERS", "").split(os.pathsep))]


def ask(peer: str, arrays: Arrays) -> Arrays | None:
    """What a peer makes of arrays; None where no Python has it."""
    script = str(Path(peers.__file__))
    for python in pythons():
        # -P: the folder of the script has files named as other packages' modules are.
        if subprocess.run([python, "-P", script, "--has", peer]).returncode == 0:
            break
    else:
        print(f"{peer}: left out, as no Python here has {peers.PACKAGES[peer]} ($MIALIB_PEERS can name others)")
        return None
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/given.npz", **arrays)
        command = [python, "-P", "-W", "ignore", script, peer, f"{folder}/given.npz", f"{folder}/found.npz"]
        subprocess.run(command, check=True, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}, stdout=subprocess.DEVNULL)
        with np.load(f"{folder}/found.npz") as found:
            return dict(found)


def hops(g: Arrays, found: Arrays) -> dict[str, float]:
    """HopSkipJump of ART and ours from as many labels a record: distances to the boundary, where labels are right."""
    rows = g["few"][signals.correct(g["vectors"], g["y"])[g["few"]]]
    theirs = found["hops/distance"][np.isin(g["few"], rows)]
    hidden, bias, last, last_bias = (g[f"weights {i}"] for i in range(4))
    labels, start = int(found["hops/labels"]), time.perf_counter()
    ours = hopskipjump.distances(
        lambda x: (np.maximum(x @ hidden + bias, 0) @ last + last_bias).argmax(1),
        g["X"][rows], g["y"][rows], labels, runs.stream(*WORDS, "hops"),
    )  # fmt: skip
    seconds = time.perf_counter() - start
    told = {"labels": labels, "mean theirs": theirs.mean(), "mean ours": ours.mean(), "records": len(rows)}
    told |= {"median of ours / theirs": np.median(ours / theirs), "rank correlation": spearmanr(theirs, ours).statistic}
    return told | {"s theirs": float(found["hops/seconds"]), "s ours": seconds}


def scores() -> dict[str, Any]:
    """All eight attacks on 50,000 records, 64 models and 18 queries: seconds of the wall, and the peak of memory."""
    start = time.perf_counter()
    scoring.ours()
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return {"wall s": time.perf_counter() - start, "MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}


def whole() -> dict[str, Any]:
    """sacroml's LiRA on Location beside ours, the same targets and as many references; empty without sacroml."""
    data = datasets.load("location-30", "laptop")
    n = data.X.shape[0] // 2 * 2
    X, y = data.X[:n], data.y[:n]  # 0 and 1 as uint8, as the set comes; scikit-learn gets them as float
    order = np.stack([runs.stream(*WORDS, "location", i).permutation(n) for i in range(TARGETS)])
    about = {"hidden": [WIDTH], "epochs": [LOCATION_EPOCHS], "models": [SHADOWS], "rows": order}
    found = ask("location", {"X": X, "y": y} | {key: np.array(value) for key, value in about.items()})
    if found is None:
        return {}
    member, result, same, left_out = np.arange(n) < n // 2, [], [], []
    for i, at in enumerate(order):
        log_p = np.log(np.maximum(found[f"{i}/p"], np.finfo(float).tiny))
        before, start = _spent(), time.perf_counter()
        signal, seen = _referred(X[at], y[at], log_p, i)
        given = signal[0], signal[1:], seen
        mine = {mode: references.lira(*given, online=online) for mode, online in MODES.items()}
        seconds, used = time.perf_counter() - start, _spent() - before
        # What sacroml saw, through our formula: its log-odds end at those of 1e-16. Its halves are drawn without regard
        # to the records, so a few are in (or out of) nearly all; of fewer than two there is no variance.
        told = np.clip([found[f"{i}/p"][np.arange(n), y[at]], *found[f"{i}/shadows"]], 1e-16, 1 - 1e-16)
        inside = found[f"{i}/seen"]
        fit_for = np.minimum(inside.sum(0), (~inside).sum(0)) >= 2
        theirs = np.log(told / (1 - told))[:, fit_for, None]
        again = references.lira(theirs[0], theirs[1:], inside[:, fit_for], online=True)
        scored = found[f"{i}/online-carlini/score"][fit_for]
        same.append(abs(roc_auc_score(member[fit_for], again) - roc_auc_score(member[fit_for], scored)))
        left_out.append(int((~fit_for).sum()))
        result.append(
            {
                "target": i,
                "s theirs": float(found[f"{i}/online-carlini/seconds"]),
                "s ours": seconds,
                "processor s theirs": float(found[f"{i}/online-carlini/processor"]),
                "processor s ours": used,
            }
            | {f"AUC theirs, {mode}": float(found[f"{i}/{mode}/auc"]) for mode in MODES}
            | {f"AUC ours, {mode}": float(roc_auc_score(member, score)) for mode, score in mine.items()}
        )
    told = {"same arrays": max(same), "left out of them": left_out, "version": str(found["version"])}
    return {"rows": result} | told


def _referred(X: np.ndarray, y: np.ndarray, log_p: np.ndarray, target: int) -> tuple[np.ndarray, np.ndarray]:
    """phi of the target, of which log p is known, and of references trained here, in pairs; who is in which."""
    first = np.arange(len(y)) < len(y) // 2
    halves = [runs.stream(*WORDS, "half", target, i).permutation(first) for i in range(SHADOWS // 2)]
    seen = np.concatenate([(half, ~half) for half in halves])
    model = small.MLP((X.shape[1], WIDTH, int(y.max()) + 1), start="glorot")  # the target is scikit-learn's
    words = [(*WORDS, "reference", target, i) for i in range(SHADOWS)]
    thetas = fit.fit_many(model, fit.Recipe(LOCATION_EPOCHS), X, y, list(map(np.flatnonzero, seen)), words)
    logits = [fit.ask(model, theta, X) for theta in thetas]
    return np.stack([references.phi(each[:, None], y) for each in (log_p, *logits)]), seen


def _spent() -> float:
    """Processor seconds of this process and of its workers, which stay for the next job."""
    here = psutil.Process()
    used = [each.cpu_times() for each in (here, *here.children(recursive=True))]
    return sum(each.user + each.system for each in used)


def table(found: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    heads = [
        "peer",
        "quantity",
        "theirs",
        "ours",
        "agrees",
        "AUC theirs",
        "AUC ours",
        "scores apart",
        "s, theirs / ours",
    ]
    lines = [heads, ["---"] * 5 + ["---:"] * 4]
    for row in found:
        apart = "" if row["scores apart"] is None else f"{row['scores apart']:.0e}"
        aucs = [f"{row[key]:.6f}" for key in ("AUC theirs", "AUC ours")]
        words = [row[key] for key in ("peer", "quantity", "theirs", "ours", "agrees")]
        lines.append([*words, *aucs, apart, f"{row['s theirs']:.2g} / {row['s ours']:.2g}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> dict[str, Any]:
    """Print the table and both claims; returns everything that was measured. SystemExit where a row does not hold."""
    arrays, found, versions, reached = given(), [], {}, {}
    for peer in PEERS:
        answers = ask(peer, arrays)
        if answers is not None:
            versions[peer] = str(answers["version"])
            found += [compare(row, arrays, answers) for row in rows(answers) if row.peer == peer]
        if peer == "art" and answers is not None:
            reached = hops(arrays, answers)
    print(f"{', '.join(versions.values())}; {machine.processor()}\n\n{table(found)}\n")
    claims = {}
    if reached:
        claims["HopSkipJump: as near, and alike"] = (
            reached["median of ours / theirs"] <= 1 and reached["rank correlation"] > 0.5
        )
        show(f"HopSkipJump, {reached['labels']} labels a record: distances to the boundary", [reached])
    alone = contender(HERE, "scores", threads=1)
    print(
        f"50,000 records, 64 models, 18 queries: {alone['wall s']:.1f} s, {alone['MiB']:.0f} MiB; claims: 10 s, 2 GiB"
    )
    claims |= {"10 s": alone["wall s"] <= 10, "2 GiB": alone["MiB"] <= 2048}
    both = contender(HERE, "whole")
    if "rows" in both:
        show(f"LiRA with {SHADOWS} references on Location, 446-{WIDTH}-30", both["rows"])
        sums = {key: sum(row[key] for row in both["rows"]) for key in both["rows"][0]}
        claims["5 times sacroml"] = sums["s theirs"] / sums["s ours"] >= 5
        claims |= {f"AUC not below, {m}": sums[f"AUC ours, {m}"] >= sums[f"AUC theirs, {m}"] for m in MODES}
        claims["its own arrays, the same AUC"] = both["same arrays"] < TOLERANCE
        both["ratio"], both["processor ratio"] = (
            sums[f"{what}s theirs"] / sums[f"{what}s ours"] for what in ("", "processor ")
        )
        print(f"  {both['ratio']:.1f} times as fast ({both['processor ratio']:.1f} in processor time)")
    print(f"  claims: {claims}")
    if failed := [f"{row['peer']}: {row['quantity']}" for row in found if not row["holds"]]:
        sys.exit(f"definitions agree and numbers do not: {'; '.join(failed)}")
    return {"claims": claims, "versions": versions, "rows": found, "hops": reached, "scores": alone, "location": both}
