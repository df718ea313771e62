"""What an attacker finds inside the target: intermediate layers and gradients (Rezaei & Liu 2020, Tables 5 and 7)."""

import numpy as np
import pandas as pd

from mialib import features, gradients, signals, targets
from mialib.attacks import known
from mialib.targets import Trained

# Records of each class, side and subset whose gradients are taken, with 10 classes and with more. Released: 400.
RECORDS = {"demo": (20, 15), "laptop": (400, 80), "paper": (400, 400)}
# A class with fewer members or non-members has no attack model. As released, for gradients and for layers.
LEAST_GRADIENT = 5
LEAST_LAYER = {"all": 15, "correct": 10, "misclassified": 5}
ROLES = {"w": "weights", "x": "input"}


def right(trained: Trained) -> np.ndarray:
    """Whether the target classifies each of its records correctly, bool (n,)."""
    return signals.correct(targets.confidences(trained), trained.data.y)


def by_layer(trained: Trained, number: int, seed: int, sampling: str = "none") -> pd.DataFrame:
    """The network attack on layer `number` (see `features.layer`), on all, correct and misclassified records.

    Columns subset, models, skipped (classes without an attack model), then those of `known.over_classes`. models "own":
    trained on records of the subset alone, as released (but 128-64 throughout; released: 64 for the two subsets);
    "shared": those trained on all records, evaluated on the subset. `sampling` of the known records: `known.attack`.
    """
    X, y, member, correct = features.layer(trained, number), trained.data.y, trained.data.member, right(trained)
    words, tables = (seed, "layer", trained.name, number), []
    for subset, kept in {"all": np.ones(len(y), bool), "correct": correct, "misclassified": ~correct}.items():
        least = LEAST_LAYER[subset]
        own = known.attack("nn", X[kept], y[kept], member[kept], (*words, subset), sampling, least)
        tables.append(_over(own, y[kept], member[kept], subset=subset, models="own"))
        if subset == "all":
            everyone = own
        else:
            tables.append(_over(everyone, y, member, kept, subset=subset, models="shared"))
    return pd.concat(tables, ignore_index=True)


def _over(
    scored: known.Scored, y: np.ndarray, member: np.ndarray, kept: np.ndarray | None = None, **about: str
) -> pd.DataFrame:
    found = known.over_classes(known.per_class(scored, y, member, kept))
    about |= {"skipped": len(scored.skipped)}
    return found.assign(**about)[[*about, *found.columns]]


def layers_of(trained: Trained) -> list[int]:
    """Which layers Table 5 has of a target: the last, and of LeNet the one before."""
    return [-1, -2] if trained.target.network == "lenet" else [-1]


def gradient_norms(trained: Trained, profile: str) -> pd.DataFrame:
    """The seven norms (columns w_l1 … x_kurtosis) of the first RECORDS of each class, side and subset.

    A row a record, in the order of the data set: target, class, member, correct, then the norms.
    """
    data, correct = trained.data, right(trained)
    most = RECORDS[profile][data.classes > 10]
    rows = gradients.first(data.y, data.member, correct, most)
    norms = zip(ROLES, gradients.norms(trained, rows), strict=True)
    about = {"target": trained.name, "class": data.y[rows], "member": data.member[rows], "correct": correct[rows]}
    columns = {f"{by}_{name}": part[:, i] for by, part in norms for i, name in enumerate(gradients.NORMS)}
    return pd.DataFrame(about | columns)


def by_gradient(records: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Logistic regressions on seven norms, one a class, on correct and on misclassified records of one target.

    records: of `gradient_norms`. Columns target, subset, by ("w": weights, "x": input), members and non_members (asked,
    over all classes), skipped (classes without an attack model), then those of `known.over_classes`.
    """
    tables, name = [], records["target"].iloc[0]
    for subset, side in {"correct": True, "misclassified": False}.items():
        here = records[records["correct"] == side]
        y, member = here["class"].to_numpy(), here["member"].to_numpy()
        for by in ROLES:
            X = here[[f"{by}_{norm}" for norm in gradients.NORMS]].to_numpy()
            words = (seed, "gradient", name, subset, by)
            scored = known.attack("logistic", X, y, member, words, least=LEAST_GRADIENT)
            asked = member[scored.rows]
            about = {"target": name, "subset": subset, "by": by, "members": asked.sum(), "non_members": (~asked).sum()}
            tables.append(_over(scored, y, member, **about))
    return pd.concat(tables, ignore_index=True)
