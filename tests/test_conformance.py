"""What other packages document, as loops, against ours; and the packages themselves, where they are installed."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from benchmarks import conformance, peers
from mialib import config
from mialib.attacks import references

RECORDS, MODELS, QUERIES, CLASSES = 80, 21, 2, 3


@pytest.fixture(scope="module")
def arrays():
    """A network with random weights, the target, and 20 others that say what it says, more surely of their members."""
    rng = np.random.default_rng(0)
    X, y = rng.random((RECORDS, 4)), rng.integers(CLASSES, size=RECORDS)
    weights = rng.normal(0, 1.5, (4, 8)), rng.normal(0, 1, 8), rng.normal(0, 1, (8, CLASSES)), np.zeros(CLASSES)
    half = np.arange(MODELS) % 2 == 0
    member = np.stack([rng.permutation(half) for _ in range(RECORDS)], axis=1)
    order = np.argsort(~member[0], kind="stable")
    member = member[:, order]
    copies = X[:, None] + rng.normal(0, 0.1, (RECORDS, QUERIES, 4)) * (np.arange(QUERIES) > 0)[:, None]
    told = np.maximum(copies @ weights[0] + weights[1], 0) @ weights[2]
    logits = told + rng.normal(0, 1, (MODELS, *told.shape)) * (np.arange(MODELS) > 0)[:, None, None, None]
    own = (np.arange(CLASSES) == y[:, None])[:, None]
    logits[1:] += member[1:, :, None, None] * own
    return conformance.prepared(logits, member, y) | {"X": X} | {f"weights {i}": w for i, w in enumerate(weights)}


def sides(arrays, x, query=0):
    """phi of the target, of its OUT and of its IN models."""
    signal, member = arrays["signal"][:, x, query], arrays["member"][1:, x]
    return signal[0], signal[1:][~member], signal[1:][member]


def row(peer, quantity, found=None):
    return next(r for r in conformance.rows(found or {}) if (r.peer, r.quantity) == (peer, quantity))


@pytest.mark.parametrize("fixed", [False, True])
def test_lira_as_sacroml_documents_it(arrays, fixed):
    """offline: the normal distribution function under OUT; online: the difference of logarithms of densities."""
    added = ", fixed variance" if fixed else ""
    offline, online, size = (
        row("sacroml", f"LiRA {mode}{added}").ours(arrays) for mode in ("offline", "online", "offline-carlini")
    )
    member = arrays["member"][1:]
    whole = [np.concatenate([sides(arrays, x)[side] for x in range(RECORDS)]).std() for side in (1, 2)]
    density = np.empty(RECORDS)
    for x in range(RECORDS):
        own, out, inside = sides(arrays, x)
        normal = [
            stats.norm(values.mean(), overall if fixed else values.std())
            for values, overall in zip((out, inside), whole, strict=True)
        ]
        assert offline[x] == pytest.approx(normal[0].cdf(own), abs=1e-9)
        assert online[x] == pytest.approx(normal[1].logpdf(own) - normal[0].logpdf(own), abs=1e-9)
        density[x] = -normal[0].logpdf(own)
    assert member.any()
    # Its third mode is the size of our z where one deviation serves all, and something else where each has its own.
    same = np.array_equal(np.argsort(density), np.argsort(size))
    assert same is fixed


def test_lira_as_tensorflow_privacy_documents_it(arrays):
    """Logarithms of densities, averaged over queries; with one variance that around each record's own mean."""
    found = row("tfp", "LiRA online, means").ours(arrays)
    fixed = row("tfp", "LiRA online, fixed").ours(arrays)
    around = [[], []]
    for x in range(RECORDS):
        ratios = []
        for query in range(QUERIES):
            own, *both = sides(arrays, x, query)
            out, inside = (stats.norm.logpdf(own, values.mean(), values.std()) for values in both)
            ratios.append(inside - out)
            for to, values in zip(around, both, strict=True):
                to.append(values - values.mean())
        assert found[x] == pytest.approx(np.mean(ratios), abs=1e-9)
    own, *both = sides(arrays, 0)
    theirs = [
        stats.norm.logpdf(own, values.mean(), np.std(np.concatenate(to)))
        for to, values in zip(around, both, strict=True)
    ]
    signal = arrays["signal"]
    spread = [signal[1:][side].std() for side in (~arrays["member"][1:], arrays["member"][1:])]
    assert all(np.std(np.concatenate(to)) < 0.9 * overall for to, overall in zip(around, spread, strict=True))
    assert abs(fixed[0] - (theirs[1] - theirs[0])) > 1e-3


def test_signals_as_tensorflow_privacy_documents_them(arrays):
    p = softmax(arrays["logits"], axis=1)
    for x, label in enumerate(arrays["y"]):
        others = np.delete(p[x], label).sum()
        assert arrays["signal"][0, x, 0] == pytest.approx(np.log(p[x, label]) - np.log(others), rel=1e-5, abs=1e-5)


def test_offset_is_the_difference_to_the_median(arrays):
    score = row("tfp", "offset out").ours(arrays)
    offsets = [own - np.median(out) for own, out, _ in (sides(arrays, x) for x in range(RECORDS))]
    assert np.ptp(score - offsets) < 1e-9


def test_a_number_that_is_off_does_not_hold(arrays):
    """A planted error in either, score or AUC, of a row whose definitions agree."""
    online = row("sacroml", "LiRA online")
    score = online.ours(arrays)
    auc = roc_auc_score(arrays["member"][0], score)

    def holds(score, auc, of=online):
        found = {f"{of.quantity}/score": score, f"{of.quantity}/auc": auc, f"{of.quantity}/seconds": 1.0}
        return conformance.compare(of, arrays, found)["holds"]

    assert holds(score, auc)
    assert not holds(score, auc + 1e-5)
    assert not holds(score + 1e-3 * (np.arange(RECORDS) == 3), auc)
    assert holds(score * 0, 0.5, row("sacroml", "LiRA offline-carlini"))  # said to differ


def test_a_peer_that_no_python_has_is_left_out(monkeypatch, capsys):
    monkeypatch.setattr(conformance, "pythons", lambda: [])
    assert conformance.ask("tfp", {}) is None
    assert capsys.readouterr().out.startswith("tfp: left out, as no Python here has tensorflow-empirical-privacy")


def test_the_page_has_the_rows_of_the_table():
    text = (config.ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")
    cells = (line.strip("| ").split(" | ") for line in text.splitlines())
    lines = [line for line in cells if line[0] in conformance.PEERS and len(line) == 9]
    told = [(r.peer, r.quantity, r.theirs, r.what, r.agrees or "no") for r in conformance.rows({})]
    assert [tuple(line[:5]) for line in lines] == told
    for line in lines:
        if line[4] != "no":
            assert line[5] == line[6]  # six digits


@pytest.mark.parametrize(
    ("peer", "module"), [("sacroml", "sacroml"), ("art", "art"), ("tfp", "tensorflow_privacy.privacy.privacy_tests")]
)
def test_where_definitions_agree_numbers_do(arrays, peer, module):
    pytest.importorskip(module)
    found = getattr(peers, peer)(arrays)
    rows = [row for row in conformance.rows(found) if row.peer == peer]
    results = [conformance.compare(row, arrays, found) for row in rows]
    assert {f"{each.quantity}/score" for each in rows} == {name for name in found if name.endswith("/score")}
    assert [result["quantity"] for result in results if not result["holds"]] == []


def test_references_stay_what_they_are_called(arrays):
    """Scores of a member's own model are larger on the whole, so that no sign is lost on the way."""
    signal, member = arrays["signal"], arrays["member"]
    score = references.lira(signal[1], signal[2:], member[2:], online=True)
    assert roc_auc_score(member[1], score) > 0.6
