"""Scores or logits that someone brings in a file, from whatever attack or code: read, measured, and drawn.

`read` gives the scores by name, `measured` their numbers with intervals, `shown` both as text, `drawn` the figure.
Nothing that is pickled is ever loaded.
"""

import io
import warnings
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from mialib import arrays, metrics, runs
from mialib.attacks import baselines, references
from mialib.results import plots, report, tables

LIMIT = 4 * 2**30  # bytes, unpacked
MOST = 8  # scores that one figure can tell apart
FEWEST = 2  # records of a side: with fewer there is no threshold to set on one half and count on the other
NAME = 40  # characters
_HEADINGS = {
    "auc": "AUC",
    "balanced_accuracy": "balanced accuracy",
    "tpr_at_1": "TPR at 1 % FPR",
    "tpr_at_0.1": "at .1 %",
    "tpr_at_0.01": "at .01 %",
}


@dataclass(frozen=True)
class Scores:
    """What a file holds of n records."""

    member: np.ndarray  # (n,) bool
    scores: dict[str, np.ndarray]  # name -> (n,), larger = more likely a member; infinite ones are allowed
    left_out: dict[str, str] = field(default_factory=dict)  # attack -> why it cannot be made of these logits


def read(path: Path) -> Scores:
    """Scores of a file, or those of all attacks of `references` where it holds logits.

    A CSV has a column `member` (1 and 0, or True and False), and one of numbers for each score. An .npz holds the same
    as arrays (n,); or `logits` (models, records, queries, classes) or (models, records, classes), the first model being
    the target, with `member` (models, records) and the true classes `y` (records,). ValueError, in one line, for
    anything else: no such file, one that is damaged, larger than LIMIT or pickled, what is missing, of another shape,
    no number or nan, and fewer than FEWEST members or non-members.
    """
    if not path.is_file():
        raise ValueError(f"{path} is no file")
    if path.suffix.lower() not in (".npz", ".csv"):
        raise ValueError(f"{path.name} must be an .npz or a .csv file")
    if path.stat().st_size > LIMIT:
        raise ValueError(_too_large(path))
    found = _npz(path) if path.suffix.lower() == ".npz" else _csv(path)
    if "member" not in found:
        names = ", ".join(_line(name)[:NAME] for name in list(found)[:MOST])
        raise ValueError(f"{path.name} has no `member`; it has {names or 'nothing'}")
    given = _of_logits(found) if "logits" in found else _of_scores(found)
    members = int(given.member.sum())
    if not FEWEST <= members <= len(given.member) - FEWEST:
        got = f"{members} and {len(given.member) - members}"
        raise ValueError(f"at least {FEWEST} members and {FEWEST} non-members are needed: got {got}")
    return given


def _npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(part.file_size for part in archive.infolist())
        if unpacked <= LIMIT:
            with np.load(path, allow_pickle=False) as file:
                return {name: np.asarray(file[name]) for name in file.files}
    except Exception as error:  # a damaged file may raise anything
        pickled = "is pickled, and nothing pickled is loaded: save plain arrays with np.savez"
        why = pickled if "allow_pickle" in str(error) else f"cannot be read: {_line(error)}"
        raise ValueError(f"{path.name} {why}") from error
    raise ValueError(_too_large(path))


def _csv(path: Path) -> dict[str, np.ndarray]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # rows that are longer than the heading would lose their end
            table = pd.read_csv(path, skipinitialspace=True, index_col=False, low_memory=False)
    except Exception as error:  # as above
        raise ValueError(f"{path.name} cannot be read: {_line(error)}") from error
    return {str(name).strip(): table[name].to_numpy() for name in table}


def _of_scores(found: dict[str, np.ndarray]) -> Scores:
    member = arrays.flags(found["member"])
    scores = {_line(name)[:NAME]: values for name, values in found.items() if name != "member"}
    if not 1 <= len(scores) <= MOST:
        raise ValueError(f"beside `member` there must be 1 to {MOST} scores, or `logits`: got {len(scores)}")
    if len(scores) < len(found) - 1:
        raise ValueError(f"two scores have the same name, in their first {NAME} characters")
    for name, values in scores.items():
        if values.dtype.kind not in "biuf" or values.shape != member.shape:
            what = f"{values.dtype.name} of shape {values.shape}"
            raise ValueError(f"{name} must be numbers, one for each of the {len(member)} records: it is {what}")
        if broken := int(np.isnan(values).sum()):
            raise ValueError(f"{name} is nan or empty for {broken} of {len(member)} records")
    return Scores(member, {name: values.astype(float) for name, values in scores.items()})


def _of_logits(found: dict[str, np.ndarray]) -> Scores:
    logits, member = found["logits"], found["member"]
    if "y" not in found:
        raise ValueError("logits need the true classes, `y`")
    logits = logits[:, :, None] if logits.ndim == 3 else logits
    if logits.ndim != 4 or len(logits) < 2 or member.shape != logits.shape[:2]:
        raise ValueError(
            "logits (models, records, queries, classes), the target first, and member (models, records) must fit, with "
            f"at least two models: got {found['logits'].shape} and {member.shape}"
        )
    member = arrays.flags(member.ravel()).reshape(member.shape)
    signal = references.phi(logits, found["y"])
    scores, left_out = references.every(signal[0], signal[1:], member[1:], population=~member[0])
    return Scores(member[0], scores, left_out)


def _too_large(path: Path) -> str:
    return f"{path.name} is too large: more than {LIMIT / 2**30:g} GiB unpacked"


def _line(words: object) -> str:
    return " ".join(str(words).split()) or type(words).__name__


def measured(given: Scores) -> pd.DataFrame:
    """`tables.rows` of every score: auc, balanced_accuracy, and `metrics.low_fpr`, with 95 % intervals.

    The balanced accuracy is that of thresholds each set on one half of the records and counted on the other (halves
    drawn by seed 0): one that is set on the records that it is counted on finds something in noise.
    """
    parts = []
    for name, score in given.scores.items():
        predicted = _halved(given.member, score, runs.stream(0, "halves"))
        values = metrics.evaluate(given.member, score, predicted)
        ends = metrics.bootstrap(given.member, score, predicted, runs.stream(0, "bootstrap"))
        numbers = {key: (values[key], *ends[key]) for key in ("auc", "balanced_accuracy")}
        parts.append(tables.rows({}, name, numbers | metrics.low_fpr(given.member, score)))
    return pd.concat(parts, ignore_index=True)


def _halved(member: np.ndarray, score: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Who is called a member, bool (n,), by a threshold of best balanced accuracy on the half that one is not in."""
    half = np.empty(len(member), bool)
    for side in (member, ~member):
        half[side] = rng.permutation(side.sum()) % 2
    predicted = np.empty(len(member), bool)
    for here in (half, ~half):
        predicted[here] = score[here] >= baselines.best_threshold(score[~here], member[~here])
    return predicted


def shown(given: Scores, table: pd.DataFrame) -> str:
    """`measured` for a screen, and what it rests on."""
    said = [f"{value:.3f} ({low:.3f} to {high:.3f})" for value, low, high in table[["value", "low", "high"]].to_numpy()]
    cells = table.assign(said=said).pivot(index="attack", columns="metric", values="said")
    cells = cells.loc[list(given.scores), list(_HEADINGS)].rename(columns=_HEADINGS)
    cells = cells.rename_axis(index=None, columns=None)
    members, others = int(given.member.sum()), int((~given.member).sum())
    lines = [f"{members:,} members, {others:,} non-members", "", cells.to_string(), ""]
    lines += [f"left out: {name}: {why}" for name, why in given.left_out.items()]
    lines.append("95 % intervals: bootstrap over records; of TPRs Clopper-Pearson, the threshold staying where it is.")
    lines.append("Balanced accuracy: by thresholds set on one half of the records and counted on the other.")
    if few := [f"{100 * limit:g} %" for limit in metrics.LOW_FPR.values() if limit * others < 1]:
        lines.append(f"Too few non-members for an FPR of {' or '.join(few)}: the TPR there is that at no false alarm.")
    return "\n".join(lines)


def drawn(given: Scores, title: str) -> bytes:
    """The scores' ROC curves on logarithmic axes, as a PNG."""
    report.style()
    figure = plots.roc(curves(given, title))
    figure.set_figheight(figure.get_figheight() + 0.25 * len(given.scores))  # the legend's lines, if names are long
    figure.axes[0].set_title(f"{title}\n{(~given.member).sum():,} non-members")  # of what tier the data are, who knows
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    plt.close(figure)
    return buffer.getvalue()


def curves(given: Scores, panel: str) -> pd.DataFrame:
    """The ROC curves in one panel, as `plots.roc` takes them: a tier is asked for there, and nobody here can tell."""
    ranks = {name: np.unique(score, return_inverse=True)[1] for name, score in given.scores.items()}  # always finite
    about = {name: {"panel": panel, "label": name, "tier": "R"} for name in ranks}
    return pd.concat([tables.roc(about[name], given.member, ranks[name]) for name in ranks], ignore_index=True)
