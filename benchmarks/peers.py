"""What other packages make of given arrays, for `conformance`; runs in any environment that has one of them.

`python benchmarks/peers.py PEER GIVEN.npz FOUND.npz`, without this project. Of each quantity FOUND has the scores
"NAME/score" (records,), larger for a likelier member, "NAME/auc" where the peer itself computes it, and
"NAME/seconds". Records of GIVEN stand with the target's members first.
"""

import importlib.metadata
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable

import numpy as np

PACKAGES = {
    "sacroml": "sacroml",
    "art": "adversarial-robustness-toolbox",
    "tfp": "tensorflow-empirical-privacy",
    "location": "sacroml",
}
SPLIT = 5  # sacroml's default seed of how it splits records


def sacroml(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """LiRA by its function of arrays, and the worst-case attack."""
    from sacroml.attacks import utils
    from sacroml.attacks.likelihood_attack import LIRAAttack
    from sacroml.attacks.worst_case_attack import WorstCaseAttack

    member, references = given["member"][0], given["member"][1:]
    sides = [np.flatnonzero(member == side) for side in (True, False)]
    found = {}

    def lira(name: str, mode: str, fixed: bool, p: np.ndarray) -> None:
        asked = np.stack([1 - p[0], p[0]], axis=1)
        labels = np.ones(len(member), int)
        start = time.perf_counter()
        out, inside = (
            {x: [utils.logit(each) for each in p[1:][side[:, x], x]] for x in range(len(member))}
            for side in (~references, references)
        )
        attack = LIRAAttack(folder, write_report=False, mode=mode, fix_variance=fixed)
        scores, normal = attack._compute_scores(labels, asked, out, inside)
        attack._save_attack_metrics(scores, len(sides[0]), len(sides[1]), normal)
        seconds = time.perf_counter() - start
        _put(found, name, np.array(scores)[:, 1], seconds, attack.attack_metrics[0]["AUC"])

    def worst(name: str, **options: object) -> None:
        start = time.perf_counter()
        attack = WorstCaseAttack(
            folder, False, n_reps=1, reproduce_split=SPLIT, n_dummy_reps=0, report_individual=True, **options
        )
        attack.attack_from_preds(*(given["outputs"][side] for side in sides))
        seconds, [told] = time.perf_counter() - start, attack.attack_metrics
        _put(found, name, np.array(told["individual"]["member_prob"]), seconds, told["AUC"])

    with tempfile.TemporaryDirectory() as folder:
        signal = given["signal"][:, :, 0]
        p = 1 / (1 + np.exp(-signal))
        lira("LiRA offline", "offline", False, p)
        lira("LiRA offline, fixed variance", "offline", True, p)
        lira("LiRA online", "online-carlini", False, p)
        lira("LiRA online, fixed variance", "online-carlini", True, p)
        lira("LiRA offline-carlini", "offline-carlini", False, p)
        lira("LiRA offline-carlini, fixed variance", "offline-carlini", True, p)
        sure = (1 / (1 + np.exp(-4 * signal))).astype(np.float32)
        lira("LiRA online, sure networks", "online-carlini", False, sure.astype(float))
        worst("worst case, a given forest", attack_model_params={"n_estimators": 100, "random_state": given["seed"][0]})
        worst("worst case, as it comes")
    return found


def art(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The rule (gap), learned attacks, and the label-only attack at its distances."""
    from art.attacks.evasion.hop_skip_jump import HopSkipJump
    from art.attacks.inference.membership_inference import (
        LabelOnlyDecisionBoundary,
        MembershipInferenceBlackBox,
        MembershipInferenceBlackBoxRuleBased,
    )
    from art.estimators.classification import BlackBoxClassifier
    from art.estimators.classification.classifier import ClassifierMixin
    from sklearn.ensemble import RandomForestClassifier

    X, y, outputs = given["X"], given["y"], given["outputs"]
    hidden, bias, last, last_bias = (given[f"weights {i}"] for i in range(4))
    classes, found = outputs.shape[1], {}

    class Forest(ClassifierMixin):
        """The package takes the `predict` of a model that it is given for the chance of a member."""

        def __init__(self, seed: int) -> None:
            self.forest = RandomForestClassifier(100, random_state=seed)
            self.fit = self.forest.fit

        def predict(self, X: np.ndarray) -> np.ndarray:
            return self.forest.predict_proba(X)[:, [1]]

    asked = []

    def answer(x: np.ndarray) -> np.ndarray:
        asked.append(len(x))
        z = np.maximum(x @ hidden + bias, 0) @ last + last_bias
        powers = np.exp(z - z.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)

    target = BlackBoxClassifier(answer, X.shape[1:], classes, clip_values=(0, 1))
    start = time.perf_counter()
    told = MembershipInferenceBlackBoxRuleBased(target).infer(X, y)
    _put(found, "rule", told.astype(float), time.perf_counter() - start)

    seen, of, whose = given["shadow outputs"], given["shadow y"], given["shadow member"]
    start, score = time.perf_counter(), np.zeros(len(y))
    for label, seed in enumerate(given["seeds"]):
        attack = MembershipInferenceBlackBox(target, attack_model=Forest(int(seed)), scaler_type=None)
        attack.fit(pred=seen[whose & (of == label)], test_pred=seen[~whose & (of == label)])
        score[y == label] = attack.infer(None, pred=outputs[y == label], probabilities=True)[:, 0]
    _put(found, "learned, a forest a class", score, time.perf_counter() - start)
    start = time.perf_counter()
    attack = MembershipInferenceBlackBox(target, attack_model_type="rf")
    attack.fit(y=of[whose], test_y=of[~whose], pred=seen[whose], test_pred=seen[~whose])
    score = attack.infer(None, y, pred=outputs, probabilities=True)[:, 0]
    _put(found, "learned, a forest for all", score, time.perf_counter() - start)

    rows = given["few"]  # asked through labels, half of them members; the others are what the threshold is learnt from
    points, generate = [], HopSkipJump.generate

    def kept(self: HopSkipJump, x: np.ndarray, y: np.ndarray | None = None, **more: object) -> np.ndarray:
        points.append(generate(self, x, y, **more))
        return points[-1]

    how = {"norm": 2, "max_iter": 2, "max_eval": 200, "init_eval": 20, "verbose": False}
    HopSkipJump.generate = kept
    x = X.astype(np.float32)
    attack = LabelOnlyDecisionBoundary(target, distance_threshold_tau=0.5)
    start = time.perf_counter()
    score = attack.infer(x[rows], y[rows], probabilities=True, **how)[:, 1]
    _put(found, "label-only", score, time.perf_counter() - start)
    found["points"] = points.pop()
    known = given["known"]
    inside, outside = (known[given["member"][0][known] == side] for side in (True, False))
    attack.calibrate_distance_threshold(x[inside], y[inside], x[outside], y[outside], **how)
    HopSkipJump.generate = lambda self, x, y=None: found["points"]  # the same points, asked about again
    start = time.perf_counter()
    score = attack.infer(x[rows], y[rows], probabilities=True)[:, 1]
    _put(found, "label-only, calibrated", score, time.perf_counter() - start)
    HopSkipJump.generate = generate

    asked.clear()
    hops = HopSkipJump(target, norm=2, max_iter=8, max_eval=1000, init_eval=100, init_size=100, verbose=False)
    start = time.perf_counter()
    there = hops.generate(x[rows])
    found["hops/seconds"] = np.float64(time.perf_counter() - start)
    found["hops/labels"] = np.float64(sum(asked) / len(rows))
    found["hops/distance"] = np.linalg.norm(there - x[rows], axis=1)
    return found


def tfp(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Signals, LiRA, offsets, and attacks on one model's losses."""
    from tensorflow_privacy.privacy.privacy_tests.membership_inference_attack import advanced_mia as mia
    from tensorflow_privacy.privacy.privacy_tests.membership_inference_attack import membership_inference_attack as one
    from tensorflow_privacy.privacy.privacy_tests.membership_inference_attack.data_structures import (
        AttackInputData,
        AttackType,
    )

    signal, y, member, references = given["signal"], given["y"], given["member"][0], given["member"][1:]
    records, found = range(len(member)), {}

    def statistic(name: str, option: str) -> None:
        start = time.perf_counter()
        score = mia.calculate_statistic(
            given["logits"].copy(), y, option=option
        )  # "hinge" writes into what it is given
        _put(found, name, score, time.perf_counter() - start)

    def scored(name: str, attack: Callable, queries: int, sign: int, **options: object) -> None:
        target, others = signal[0, :, :queries], signal[1:, :, :queries]
        start = time.perf_counter()
        inside, out = ([others[side[:, x], x] for x in records] for side in (references, ~references))
        score = sign * attack(target, inside, out, **options)
        _put(found, name, score, time.perf_counter() - start)

    def threshold(name: str, kind: AttackType, labels: bool, what: np.ndarray) -> None:
        about = {"labels_train": y[member], "labels_test": y[~member]} if labels else {}
        vectors = {"logits_train": what[member], "logits_test": what[~member]}
        start = time.perf_counter()
        [result] = one.run_attacks(AttackInputData(**vectors, **about), attack_types=[kind]).single_attack_results
        seconds, score = time.perf_counter() - start, np.empty(len(member))
        score[member], score[~member] = result.membership_scores_train, result.membership_scores_test
        sign = -1 if kind == AttackType.THRESHOLD_ATTACK else 1  # its losses are given out as they are
        _put(found, name, sign * score, seconds, result.get_auc())

    every = signal.shape[2]
    statistic("signal", "logit")
    statistic("signal, hinge", "hinge")
    scored("LiRA online, means", mia.compute_score_lira, every, -1, median_or_mean="mean")
    scored("LiRA online, medians", mia.compute_score_lira, every, -1)
    scored("LiRA online, fixed", mia.compute_score_lira, every, -1, median_or_mean="mean", fix_variance=True)
    scored("LiRA out", mia.compute_score_lira, 1, -1, option="out", median_or_mean="mean")
    scored("LiRA out, fixed", mia.compute_score_lira, 1, -1, option="out", median_or_mean="mean", fix_variance=True)
    scored("offset out", mia.compute_score_offset, 1, 1, option="out")
    threshold("threshold on the loss", AttackType.THRESHOLD_ATTACK, True, given["logits"])
    threshold("threshold on the entropy", AttackType.THRESHOLD_ENTROPY_ATTACK, False, given["logits"])
    threshold("threshold on the modified entropy", AttackType.THRESHOLD_ENTROPY_ATTACK, True, given["logits"])
    threshold("logistic regression", AttackType.LOGISTIC_REGRESSION, True, given["logits"])
    return found


def location(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """sacroml's whole LiRA on `targets` networks: scores, seconds, and what it saw, by target."""
    from sacroml.attacks import utils
    from sacroml.attacks.likelihood_attack import LIRAAttack
    from sacroml.attacks.target import Target
    from sklearn.neural_network import MLPClassifier

    X, y, found = given["X"].astype(float), given["y"], {}
    [hidden], [epochs], [models] = given["hidden"], given["epochs"], given["models"]
    for number, rows in enumerate(given["rows"]):  # (records,), members first
        n = len(rows) // 2
        net = MLPClassifier(
            (int(hidden),), "tanh", alpha=0, batch_size=100, max_iter=int(epochs), tol=0, n_iter_no_change=10**6
        )
        net.set_params(random_state=number).fit(X[rows[:n]], y[rows[:n]])
        found[f"{number}/p"] = net.predict_proba(X[rows])
        with tempfile.TemporaryDirectory() as folder:
            for mode in ("online-carlini", "offline"):
                target = Target(net, X_train=X[rows[:n]], y_train=y[rows[:n]], X_test=X[rows[n:]], y_test=y[rows[n:]])
                start, used = time.perf_counter(), time.process_time()
                attack = LIRAAttack(folder, False, int(models), mode=mode, report_individual=True)
                attack.attack(target)
                seconds, used = time.perf_counter() - start, time.process_time() - used
                told = attack.attack_metrics[0]
                # The second mode finds the first one's models again, so only the first tells what an attack costs.
                _put(found, f"{number}/{mode}", np.array(told["individual"]["member_prob"]), seconds, told["AUC"])
                found[f"{number}/{mode}/processor"] = np.array(used)
            shadows = [utils.get_shadow_model(attack.shadow_path, i) for i in range(int(models))]
            found[f"{number}/seen"] = np.stack([np.isin(np.arange(2 * n), inside) for _, inside, _ in shadows])
            asked = [shadow.predict_proba(X[rows])[np.arange(2 * n), y[rows]] for shadow, *_ in shadows]
            found[f"{number}/shadows"] = np.stack(asked)
    return found


def _put(found: dict[str, np.ndarray], name: str, score: np.ndarray, seconds: float, auc: float | None = None) -> None:
    found[f"{name}/score"], found[f"{name}/seconds"] = np.asarray(score, float), np.array(seconds)
    if auc is not None:
        found[f"{name}/auc"] = np.array(float(auc))


def main(peer: str, given: str, found: str) -> None:
    """Everything that one peer makes of GIVEN, and its version."""
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    with np.load(given) as arrays:
        result = globals()[peer](dict(arrays))
    result["version"] = np.array(f"{PACKAGES[peer]} {importlib.metadata.version(PACKAGES[peer])}")
    np.savez(found, **result)


if __name__ == "__main__":
    if sys.argv[1] == "--has":  # exit code 0 if this Python has the peer
        try:
            importlib.metadata.version(PACKAGES[sys.argv[2]])
        except importlib.metadata.PackageNotFoundError:
            sys.exit(1)
    else:
        main(*sys.argv[1:])
