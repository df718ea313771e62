"""Attacks with reference models: each held to the loop that its formula says, record by record."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import expit, softmax

from mialib import metrics
from mialib.attacks import references

MODELS, RECORDS, QUERIES = 8, 60, 3


def example(leak=1.0, seed=0, models=MODELS, records=RECORDS, queries=QUERIES):
    """Records of very different difficulty; models, the target first, stand `leak` higher on those of theirs."""
    rng = np.random.default_rng(seed)
    half = np.arange(models + 1) % 2 == 0
    member = np.stack([rng.permutation(half) for _ in range(records)], axis=1)
    hard, query = rng.normal(2, 3, (records, 1)), rng.normal(0, 0.5, (records, queries))
    signal = hard + query + leak * member[..., None] + rng.normal(0, 1, (models + 1, records, queries))
    return signal.astype(np.float32), member


def parts(**about):
    signal, member = example(**about)
    return signal[0], signal[1:], member[1:]


def test_phi_is_the_log_odds_of_the_confidence():
    logits = np.random.default_rng(0).normal(0, 3, (2, 5, 3, 4))
    y = np.array([0, 1, 2, 3, 1])
    found = references.phi(logits, y)
    assert found.dtype == np.float32 and found.shape == (2, 5, 3)
    for at in np.ndindex(found.shape):
        p = softmax(logits[at])[y[at[1]]]
        assert found[at] == pytest.approx(np.log(p / (1 - p)), abs=1e-5)
    assert references.phi(np.array([[[90.0, 0.0, -5.0]]]), [0]) == pytest.approx(90 - np.log1p(np.exp(-5)))
    np.testing.assert_allclose(references.phi(np.log(softmax(logits, -1)), y), found, atol=1e-5)


def test_taylor_is_equation_7():
    logits = np.random.default_rng(1).normal(0, 6, (1, 7, 2, 3))
    y = np.arange(7) % 3
    found = expit(references.taylor(logits, y))

    def series(z):
        return sum(z**i / math.factorial(i) for i in range(5))

    for at in np.ndindex(found.shape):
        scaled, label = logits[at] / 2, y[at[1]]
        own, others = series(scaled[label] - 0.6), sum(series(z) for i, z in enumerate(scaled) if i != label)
        assert found[at] == pytest.approx(own / (own + others), 1e-4)


def test_attack_p_is_the_loop():
    target, member = example()[0][0], example()[1][0]
    scores = references.attack_p(target, ~member)
    for x in range(RECORDS):
        assert scores[x] == pytest.approx(np.mean([target[x, 0] >= z for z in target[~member, 0]]))


def test_attack_r_is_the_interpolated_distribution():
    target, others, member = parts()
    scores = references.attack_r(target, others, member)
    for x in range(RECORDS):
        losses = np.log1p(np.exp(-others[~member[:, x], x, 0].astype(float)))
        scale = np.sort([0, *losses, 1000])
        own = np.log1p(np.exp(-float(target[x, 0])))
        assert scores[x] == pytest.approx(-np.interp(own, scale, np.linspace(0, 1, len(scale))))


def test_attack_r_counts_models_that_have_a_larger_loss():
    target, others, member = parts(models=40)
    counted = [-np.mean(others[~member[:, x], x, 0] >= target[x, 0]) for x in range(RECORDS)]
    assert np.abs(references.attack_r(target, others, member) - counted).max() < 2 / 20


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("queries", [1, QUERIES])
def test_lira_is_the_ratio_of_normal_densities(queries, fixed):
    target, others, member = parts(queries=queries)
    online = references.lira(target, others, member, online=True, fixed=fixed)
    offline = references.lira(target, others, member, online=False, fixed=fixed)
    others = others.astype(float)
    overall = [np.concatenate([others[side[:, x], x] for x in range(RECORDS)]).std() for side in (~member, member)]
    for x in range(RECORDS):
        ratio, z = [], []
        for q in range(queries):
            normal = []
            for side, deviation in zip((~member, member), overall, strict=True):
                values = others[side[:, x], x, q]
                normal.append(stats.norm(values.mean(), deviation if fixed else values.std()))
            ratio.append(normal[1].logpdf(target[x, q]) - normal[0].logpdf(target[x, q]))
            z.append((target[x, q] - normal[0].mean()) / normal[0].std())
        assert online[x] == pytest.approx(np.mean(ratio), rel=1e-4, abs=1e-4)
        assert offline[x] == pytest.approx(np.mean(z), rel=1e-4, abs=1e-4)
        if queries == 1:  # equation 4, to the last digit of its own
            assert stats.norm.cdf(offline[x]) == pytest.approx(normal[0].cdf(target[x, 0]), abs=1e-4)


def dominated(ratios, ratio_z, gamma):
    return np.mean([[ratio / ratio_z >= gamma for ratio in ratios]]) > 0.5


@pytest.mark.parametrize(("a", "gamma"), [(None, 2.0), (None, 1.0), (0.3, 2.0), (1.0, 1.5), (0.0, 1.0)])
@pytest.mark.parametrize("queries", [1, 2, QUERIES])
def test_rmia_is_algorithm_1(queries, a, gamma):
    signal, member = example(queries=queries, leak=2)
    p, own = expit(signal[1:].astype(float)), expit(signal[0].astype(float))
    scores = references.rmia(signal[0], signal[1:], member[1:], ~member[0], a, gamma)
    for x in range(RECORDS):
        inside, outside = (p[member[1:, x] == side, x].mean(0) for side in (True, False))
        expected = (inside + outside) / 2 if a is None else ((1 + a) * outside + (1 - a)) / 2
        population = np.flatnonzero(~member[0])
        votes = [dominated(own[x] / expected, own[z, 0] / p[:, z, 0].mean(), gamma) for z in population]
        assert scores[x] == pytest.approx(np.mean(votes))


@given(st.integers(0, 2**32 - 1), st.integers(4, 9), st.integers(2, 40), st.integers(1, 4), st.integers(1, 50))
@settings(deadline=None, max_examples=25)
def test_how_records_are_cut_into_parts_changes_nothing(seed, models, records, queries, chunk):
    signal, member = example(seed=seed, models=models, records=records + 4, queries=queries)
    population = np.arange(records + 4) % 2 == 0
    whole, left_out = references.every(signal[0], signal[1:], member[1:], population)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(references, "CHUNK", chunk)
        cut, _ = references.every(signal[0], signal[1:], member[1:], population)
    assert {name: "fewer than 2" in why for name, why in left_out.items()} == dict.fromkeys(left_out, True)
    for name, scores in whole.items():
        np.testing.assert_allclose(cut[name], scores, rtol=1e-9, atol=1e-9, err_msg=name)


def aucs(leak):
    signal, member = example(leak=leak, seed=3, models=16, records=2000)
    scores, left_out = references.every(signal[0], signal[1:], member[1:], ~member[0])
    assert len(scores) == 8 and not left_out
    assert all(score.shape == (2000,) and score.dtype == float for score in scores.values())
    return {name: metrics.evaluate(member[0], score, score > 0)["auc"] for name, score in scores.items()}


def test_where_nothing_leaks_nothing_is_found():
    deviation = math.sqrt(2001 / (12 * 1000 * 1000))  # of the AUC of noise, half of the records members
    assert {name: auc for name, auc in aucs(0.0).items() if abs(auc - 0.5) > 3.3 * deviation} == {}


def test_a_leak_that_difficulty_hides_is_found_with_references():
    found = aucs(1.5)
    assert 0.5 < found.pop("Attack-P") < 0.7 < min(found.values())
    assert found["LiRA online, fixed variance"] > 0.85 and found["RMIA online"] > 0.75


def test_scores_of_saturated_models_are_numbers():
    """Confidences of 1 and 0 to the last digit, and models that agree to the last digit."""
    signal, member = example()
    for extreme in (signal * 1e4, np.where(signal > 2, 800, -800).astype(np.float32), np.full_like(signal, 17)):
        scores, left_out = references.every(extreme[0], extreme[1:], member[1:], ~member[0], a=1.0)
        assert len(scores) == 8 and not left_out
        assert {name for name, score in scores.items() if not np.isfinite(score).all()} == set()


def test_offline_attacks_take_references_that_know_none_of_the_records():
    target, others, member = parts()
    scores, left_out = references.every(target, others, np.zeros_like(member), np.ones(RECORDS, bool))
    assert {name for name in left_out} == {"LiRA online", "LiRA online, fixed variance", "RMIA online"}
    assert set(left_out.values()) == {f"{RECORDS} of {RECORDS} records have no IN model among the references"} | {
        f"{RECORDS} of {RECORDS} records have fewer than 2 IN models among the references"
    }
    assert len(scores) == 5


def test_one_reference_of_each_side_is_enough_for_a_fixed_variance():
    target, others, member = parts(models=2)
    balanced = member.sum(0) == 1
    scores, left_out = references.every(
        target[balanced], others[:, balanced], member[:, balanced], np.ones(balanced.sum(), bool)
    )
    assert set(left_out) == {"LiRA online", "LiRA offline"} and len(scores) == 6


TARGET, OTHERS, MEMBER = parts()
BROKEN = TARGET.copy()
BROKEN[3, 1] = np.nan


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: references.lira(TARGET[:-1], OTHERS, MEMBER, online=True), "must fit: got"),
        (lambda: references.lira(TARGET, OTHERS, MEMBER[:, :-1], online=True), "must fit: got"),
        (lambda: references.attack_r(TARGET, OTHERS[:, :, 0], MEMBER), "references must be numbers of 3 dimensions"),
        (lambda: references.attack_r(BROKEN, OTHERS, MEMBER), "target has nan or infinity"),
        (lambda: references.attack_r(TARGET, OTHERS, MEMBER * 2), "True and False"),
        (lambda: references.attack_p(TARGET, np.zeros(RECORDS, bool)), "population has no record"),
        (lambda: references.attack_p(TARGET, MEMBER[0][:-1]), "59 values for 60 records"),
        (lambda: references.rmia(TARGET, OTHERS, MEMBER, MEMBER[0], a=1.1), "a must lie in 0..1"),
        (lambda: references.rmia(TARGET, OTHERS, MEMBER, MEMBER[0], a=0.3, gamma=0.5), "gamma be 1 or more"),
        (lambda: references.rmia(TARGET, OTHERS, ~(MEMBER & False), MEMBER[0], a=0.3), "no OUT model"),
        (lambda: references.phi(np.zeros((3, 2)), [0, 1, 0]), "logits must be numbers"),
        (lambda: references.phi(np.zeros((1, 3, 1, 2)), [0, 1, 2]), "labels run from 0 to 2"),
        (lambda: references.phi(np.full((1, 1, 1, 2), np.inf), [0]), "logits have nan or infinity"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(call, told):
    with pytest.raises(ValueError, match=told) as error:
        call()
    assert "\n" not in str(error.value)
