"""The whole attack on the real Location data, cold, against the adversarial-robustness-toolbox doing the same job.

60 shadows of 446-128-30 tanh, 200 epochs, then the attack models. Claims: at least 5 times faster, AUC and balanced
accuracy not below the toolbox's best attack model. Both attack the same target and draw shadows from the same pool.
"""

import time
from typing import Any

import numpy as np
import torch

from benchmarks.measure import contender, show
from mialib import metrics
from mialib.attacks import Observations, classifiers, defenses, pool
from mialib.data import datasets, splits
from mialib.models import fit, small
from mialib.papers.shokri2017.experiments import ROLES, Row, observe

ROW = Row("location-30", 1200, 60, 1, 128, 200)
MODEL = small.MLP((446, 128, 30))
PEER_KINDS = ("nn", "rf", "gb", "lr")
HERE = "benchmarks.location"


def ours() -> dict[str, Any]:
    """Shadows and target by `experiments.observe`, then every attack model: seconds and metrics of each."""
    data = datasets.load("location-30", "laptop")
    start = time.perf_counter()
    sides = splits.targets_and_shadows(len(data.y), ROW.size, ROW.targets, ROW.shadows, 0, data.name)
    targets, shadows = (
        [Observations(defenses.none(seen.vectors), seen.y, seen.member) for seen in observe(data, ROW, 0, role, side)]
        for role, side in zip(ROLES, sides, strict=True)
    )
    trained = time.perf_counter() - start
    result: dict[str, Any] = {"shadows": trained}
    for kind in classifiers.KINDS:
        start = time.perf_counter()
        [answer] = classifiers.attack(kind, pool(shadows), targets, (0, "bench"))
        seconds = time.perf_counter() - start
        result[kind] = _row(trained, seconds, targets[0].member, answer.score, answer.predicted)
    return result


def peer() -> dict[str, Any]:
    """The toolbox: shadows trained alike (it would train 10 epochs by default), then its attack models."""
    from art.attacks.inference.membership_inference import MembershipInferenceBlackBox, ShadowModels

    data = datasets.load("location-30", "laptop")
    [target], side = splits.targets_and_shadows(len(data.y), ROW.size, 1, ROW.shadows, 0, data.name)
    asked = np.concatenate([target.members, target.non_members])
    [theta] = fit.fit_many(
        MODEL, fit.Recipe(ROW.epochs), data.X, data.y, [target.members], [(0, "target", data.name, ROW.size, 0)]
    )
    victim, y, member = _classifier(theta), data.y[asked], np.arange(len(asked)) < ROW.size
    # All that our shadows draw from: together they have seen the whole shadow side.
    seen = [np.concatenate([split.members, split.non_members]) for split in side]
    shadow_side = np.unique(np.concatenate(seen))
    start = time.perf_counter()
    shadows = ShadowModels(_classifier(), num_shadow_models=ROW.shadows, random_state=0)
    for each in shadows._shadow_models:
        own = each.fit
        each.fit = lambda x, y, own=own: own(x, y, batch_size=ROW.batch, nb_epochs=ROW.epochs)
    X = data.X.astype(np.float32)
    (seen_x, seen_y, seen_p), (new_x, new_y, new_p) = shadows.generate_shadow_dataset(
        X[shadow_side], np.eye(30, dtype=np.float32)[data.y[shadow_side]]
    )
    trained = time.perf_counter() - start
    result: dict[str, Any] = {"shadows": trained}
    for kind in PEER_KINDS:
        epochs = {"nn_model_epochs": classifiers.NN_RECIPE.epochs} if kind == "nn" else {}
        start = time.perf_counter()
        attack = MembershipInferenceBlackBox(victim, attack_model_type=kind, **epochs)
        attack.fit(seen_x, seen_y, new_x, new_y, pred=seen_p, test_pred=new_p)
        chance = attack.infer(X[asked], y, probabilities=True)
        chance = chance[:, 1] if chance.ndim == 2 and chance.shape[1] == 2 else chance.reshape(-1)
        result[kind] = _row(trained, time.perf_counter() - start, member, chance, chance > 0.5)
    return result


def _classifier(theta: np.ndarray | None = None) -> Any:
    """The network in the toolbox's wrapper: softmax at its end, so that both tools see probabilities."""
    from art.estimators.classification import PyTorchClassifier

    net = torch.nn.Sequential(torch.nn.Linear(446, 128), torch.nn.Tanh(), torch.nn.Linear(128, 30), torch.nn.Softmax(1))
    if theta is not None:
        with torch.no_grad():
            for layer, (weight, bias) in zip((net[0], net[2]), small.layers(MODEL, theta), strict=True):
                layer.weight.copy_(torch.from_numpy(weight.T.copy()))
                layer.bias.copy_(torch.from_numpy(bias.copy()))
    adam = torch.optim.Adam(net.parameters(), lr=1e-3)
    return PyTorchClassifier(net, _log_loss, (446,), 30, optimizer=adam, device_type="cpu")


def _log_loss(chances: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of probabilities and one-hot labels: with a loss of one's own the toolbox passes them so."""
    return -(labels * torch.log(chances.clamp_min(1e-12))).sum(1).mean()


def _row(
    trained: float, seconds: float, member: np.ndarray, score: np.ndarray, predicted: np.ndarray
) -> dict[str, float]:
    values = metrics.evaluate(member, score, predicted)
    return {
        "attack s": seconds,
        "whole s": trained + seconds,
        "AUC": values["auc"],
        "balanced accuracy": values["balanced_accuracy"],
    }


def main() -> dict[str, Any]:
    """Print both sides; returns everything that was measured."""
    results = {"mialib": contender(HERE, "ours"), "adversarial-robustness-toolbox": contender(HERE, "peer")}
    rows = [
        {"tool": tool, "attack model": kind, "shadows s": result["shadows"]} | values | {"peak MiB": result["peak_mib"]}
        for tool, result in results.items()
        for kind, values in result.items()
        if isinstance(values, dict)
    ]
    show("Location, 60 shadows of 446-128-30, 200 epochs; one target", rows)
    mine, theirs = ([row for row in rows if row["tool"] == tool] for tool in results)
    best = {key: (_best(mine, key), _best(theirs, key)) for key in ("AUC", "balanced accuracy")}
    ratio = best["AUC"][1]["whole s"] / best["AUC"][0]["whole s"]
    print(f"\n  best by AUC against best by AUC, {ratio:.1f} times as fast; claim: 5")
    for key, (our, their) in best.items():
        print(f"  {key}: {our[key]:.3f} ({our['attack model']}) against {their[key]:.3f} ({their['attack model']})")
    claims = {"5 times as fast": ratio >= 5} | {f"{key} not below": a[key] >= b[key] for key, (a, b) in best.items()}
    return {"ratio": ratio, "claims": claims, "results": results}


def _best(rows: list[dict[str, Any]], key: str) -> dict[str, Any]:
    return max(rows, key=lambda row: row[key])
