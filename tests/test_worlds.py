"""Attacks in worlds, and thresholds for a precision: against literal loops, where nothing and where much leaks."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from mialib import metrics
from mialib.attacks import leino, worlds
from mialib.data.datasets import Dataset
from mialib.models import fit, small
from mialib.papers.leino2020 import precision
from mialib.papers.leino2020.precision import Row


def data(noise, n=1200, d=60, classes=3, seed=0):
    """Clustered records, `noise` of the labels random: these can only be memorised."""
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=n)
    X = (rng.standard_normal((classes, d))[y] + rng.standard_normal((n, d))).astype(np.float32)
    y = np.where(rng.random(n) < noise, rng.integers(classes, size=n), y)
    return Dataset("adult", X, y, classes, "M", "simulated", f"{noise}{n}{d}{seed}")


def row(**changed):
    about = {"dataset": "adult", "hidden": 0, "filters": 0, "size": 100, "epochs": 200}
    return Row(**about | {"targets": 3, "proxies": 2, "learn": 1} | changed)


# --- thresholds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize("wanted", [0.0, 0.5, 0.7, 0.9, 1.0])
def test_threshold_is_the_smallest_that_a_loop_finds(wanted, guarded):
    rng = np.random.default_rng(0)
    for _ in range(10):
        member = rng.random(60) < 0.5
        score = np.round(rng.standard_normal(60) + member, 1)  # with ties
        found = [np.inf]
        for least in score:
            said = score >= least
            hits, called = int(member[said].sum()), int(said.sum())
            share = hits / called
            if guarded:
                share = binomtest(hits, called).proportion_ci(0.9, method="exact").low  # two-sided 90 %: .05 below
            if share >= wanted:
                found.append(least)
        assert worlds.threshold(score, member, wanted, guarded) == min(found)


def test_a_precision_that_no_threshold_has_calls_nobody():
    member = np.array([True, False, True, False])
    assert worlds.threshold(np.zeros(4), member, 0.6) == np.inf
    assert worlds.threshold(np.zeros(4), member, 0.5) == 0
    assert worlds.threshold(np.arange(4), np.arange(4) >= 2, 0.9) == 2
    assert worlds.threshold(np.arange(4), np.arange(4) >= 2, 0.9, guarded=True) == np.inf  # two of two prove little
    with pytest.raises(ValueError, match=r"must lie in 0\.\.1: got 75"):
        worlds.threshold(np.arange(4), member, 75)
    with pytest.raises(ValueError, match="member"):
        worlds.threshold(np.arange(4), member[:3], 0.5)


def test_many_like_scores_keep_the_promise():
    """Scores of one distribution here and there: what is obtained is what was asked for."""
    rng = np.random.default_rng(1)
    member = np.arange(200_000) % 2 == 0
    own, others = (rng.standard_normal(len(member)) + member for _ in range(2))
    for wanted in (0.6, 0.75, 0.9):
        least = worlds.threshold(own, member, wanted)
        assert member[others >= least].mean() == pytest.approx(wanted, abs=0.01)


def test_ratio_interval_is_the_ratio_estimator():
    part, whole = np.array([3.0, 0, 5, 2]), np.array([4.0, 0, 9, 2])
    value, low, high = metrics.ratio_interval(part, whole)
    assert value == pytest.approx(10 / 15)
    error = np.sqrt(np.sum((part - value * whole) ** 2) / 3 / 4) / whole.mean()
    assert (high - value, value - low) == pytest.approx([3.182446 * error] * 2)
    same = np.full(4, 10.0)
    assert metrics.ratio_interval(part, same) == pytest.approx(metrics.mean_interval(part / same, 0, 1))
    assert (
        np.isnan(metrics.ratio_interval([0, 0], [0, 0])).all()
        and np.isnan(metrics.ratio_interval([1, 0], [2, 0])[1:]).all()
    )
    with pytest.raises(ValueError, match="one length"):
        metrics.ratio_interval([1, 2], [1])


def test_the_interval_of_a_ratio_covers_it():
    rng, covered = np.random.default_rng(2), 0
    for _ in range(400):
        whole = rng.poisson(5, 20)
        _, low, high = metrics.ratio_interval(rng.binomial(whole, 0.7), whole)
        covered += low <= 0.7 <= high
    assert 0.91 <= covered / 400 <= 0.98


# --- worlds ---------------------------------------------------------------------------------------------------------


def test_a_plan_gives_every_record_one_role_and_like_classes():
    y = data(0.3).y
    plans = precision.plans(y[:550], row(), np.random.default_rng(0))
    assert len(plans) == 3 and {len(plan.members) for plan in plans} == {100}
    for plan in plans:
        parts = (plan.members, plan.others, plan.pool, plan.population)
        assert len(np.unique(np.concatenate(parts))) == sum(map(len, parts)) == 350
        assert max(abs(np.bincount(y[plan.members], minlength=3) - np.bincount(y[plan.others], minlength=3))) <= 4
    asked = np.concatenate([plans[0].members, plans[0].others])
    for plan in plans[1:]:  # the attacker never meets a record that she is asked about
        assert not np.isin(np.concatenate([plan.members, plan.others, plan.pool]), asked).any()
    assert not np.isin(plans[0].pool, asked).any()
    with pytest.raises(ValueError, match="500 records are too few for models of 100"):
        precision.plans(y[:500], row(), np.random.default_rng(0))


def made(noise=0.5, hidden=()):
    each = data(noise)
    plans = precision.plans(each.y[:550], row(), np.random.default_rng(0))
    model = small.MLP((60, *hidden, 3))
    return worlds.train(model, fit.Recipe(100), each.X, each.y, plans, 2, (0, "test", noise))


def test_a_linear_world_is_the_models_that_it_says():
    world = made()[0]
    n = len(world.member)
    weights, biases = world.weights.target
    logits = world.weights.X @ weights.T + biases
    both = small.softmax(logits), world.observed.vectors
    assert both[0] == pytest.approx(both[1], abs=1e-5) and weights.sum(0) == pytest.approx(0, abs=1e-9)
    assert world.logits.shape == (n + 50, 3) and world.others.shape == (2, n + 50, 3)
    result = leino.bayes_wb(world.weights.target, world.weights.proxies, world.weights.X, world.weights.y)
    own, *others = (
        (a - a.mean(1, keepdims=True))[np.arange(n), world.y[:n]] for a in (world.logits[:n], *world.others[:, :n])
    )
    assert result.score == pytest.approx(own - np.mean(others, axis=0), abs=1e-4)


def test_scores_do_not_see_who_is_a_member():
    """The same with all membership turned round in the world that is asked about."""
    target, _, learn = made()
    turned = worlds.World(target.logits, target.others, target.y, ~target.member, target.weights)
    before, after = (worlds.scores([learn], [world], (0, "test")) for world in (target, turned))
    assert set(before) == {"nn", "threshold", "calibrated", "LiRA", "RMIA", "Attack-P", "bayes-wb", "general-wb"}
    for name, [score] in before.items():
        assert (score == after[name][0]).all() and len(score) == 200 and np.ptp(score) > 0, name
    deep = made(hidden=(8,))
    assert not {"bayes-wb", "general-wb"} & set(worlds.scores(deep[2:], deep[:1], (0, "deep")))


BAD = [
    (lambda: worlds.scores([], [], (0,)), "at least one world to learn from"),
    (lambda: worlds.train(small.MLP((2, 2)), fit.Recipe(1), *[np.zeros((2, 2))] * 2, [], 0, (0,)), "one proxy"),
    (
        lambda: worlds.train(
            small.MLP((2, 2)), fit.Recipe(1), *[np.zeros((2, 2))] * 2, [worlds.Plan(*[np.arange(1)] * 4)], 1, (0,)
        ),
        "parts of plan 0 overlap",
    ),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_gives_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


# --- the exhibit ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def leak():
    return precision.attack(data(1.0, d=300), row(), 0)


def test_planted_leak_is_found_and_promised(leak):
    """Random labels, a linear model with enough features: attacks find members, at a precision."""
    found = precision.aucs(leak)
    assert all(high <= 1 for _, _, high in found.values())
    assert min(found[name][1] for name in ("calibrated", "LiRA", "bayes-wb", "general-wb")) > 0.55  # lower ends
    table = precision.measured(precision.calls(leak)).set_index(["attack", "way", "asked"])
    at = table.loc[("calibrated", precision.WAYS[0], 0.75)]
    assert at["value"] == pytest.approx(0.75, abs=0.12) and at["recall"] > 0.3
    guarded = table.xs(precision.WAYS[1], level="way")["called"]
    assert (guarded <= table.xs(precision.WAYS[0], level="way")["called"].loc[guarded.index]).all()


def test_where_nothing_leaks_no_precision_is_obtained():
    """Targets that never saw their members: whatever is asked for, half of those called are members."""
    each = precision.attack(data(0.7), row(targets=6), 0)
    rng = np.random.default_rng(0)
    answers = [{n: [(s, rng.permutation(m)) for s, m in three] for n, three in a.items()} for a in each.answers]
    null = precision.Scored(each.row, "M", each.accuracies, answers)
    table = precision.measured(precision.calls(null))
    asked = table[(table["way"] == precision.WAYS[0]) & table["asked"].eq(0.55)]
    assert len(asked) == 8 and (asked["value"].dropna() < 0.62).all()
    cautious = table[(table["way"] == precision.WAYS[1]) & table["asked"].ge(0.7)]
    assert cautious["called"].max() < 10  # the guard leaves a promise that cannot be kept unmade


def test_calls_are_those_of_a_loop(leak):
    table = precision.calls(leak).set_index(["target", "attack", "way", "asked"])
    (asked, others, learn) = leak.answers[1]["nn"]
    for way, least in (
        (precision.WAYS[0], worlds.threshold(*others, 0.7)),
        (precision.WAYS[2], worlds.threshold(*learn, 0.7)),
        (precision.WAYS[3], np.log(0.7 / 0.3)),
    ):
        at = table.loc[(1, "nn", way, 0.7)]
        said = [score >= least for score in asked[0]]
        assert at["called"] == sum(said) and at["members"] == 100
        assert at["hits"] == sum(s and m for s, m in zip(said, asked[1], strict=True))
    ways = table.reset_index().groupby("attack")["way"].unique()
    assert set(ways["LiRA"]) == {"half", *precision.WAYS[:2]} and set(ways["nn"]) == {"half", *precision.WAYS}
    assert set(ways["threshold"]) == {"half", *precision.WAYS[:3]}


def measured(**changed):
    about = {"name": "MNIST, network", "tier": "R", "attack": "LiRA", "way": precision.WAYS[0], "asked": 0.75}
    about |= {"value": 0.7, "low": 0.6, "high": 0.76, "recall": 0.1, "recall_low": 0.05, "recall_high": 0.2}
    return about | {"called": 10.0, "total": 30, "silent": 0} | changed


def test_promises_are_counted_and_few_records_are_none():
    table = pd.DataFrame(
        [measured(), measured(asked=0.9), measured(asked=0.95, total=5), measured(way="half", asked=np.nan)]
    )
    [found] = precision.broken(table).to_dict("records")
    assert found["promises"] == 2 and found["kept"] == 1
    assert found["shortfall"] == pytest.approx(0.125) and found["worst"] == pytest.approx(0.2)
    wide = precision.promised(table)
    assert wide.loc[("MNIST, network", "LiRA"), 0.75] == ".700 (.600 to .760), .100"
    assert wide.loc[("MNIST, network", "LiRA"), 0.95].endswith("*")


def test_the_printed_precision_is_counted_as_not_computed(leak):
    table = pd.DataFrame([measured(), measured(attack="nn", asked=0.9)])
    cells = precision.compare(table, [leak], "laptop")
    printed = [cell for cell in cells if cell["published"] is not None]
    assert [cell["verdict"] for cell in printed] == ["not comparable"] * 2
    [other, primary] = sorted(printed, key=lambda cell: cell["primary"])
    assert primary["value"] is None and other["value"] == 0.7 and precision.UNLIKE in other["note"]
    named = {(cell["setting"], cell["metric"]) for cell in cells}
    assert {("LiRA, .750 asked", "attack_recall"), ("bayes-wb", "attack_auc"), ("target", "target_test_acc")} <= named


def test_the_diagram_has_a_column_a_model_and_hides_shares_of_few(leak):
    table = precision.measured(precision.calls(leak))
    figure = precision.diagram(table)
    assert len(figure.axes) == 2 and "M, simulated" in figure.axes[0].get_title()
    drawn = {line.get_label(): line.get_xdata() for line in figure.axes[0].lines}
    here = table[(table["way"] == precision.WAYS[0]) & (table["total"] >= precision.FEWEST)]
    for attack, some in here.groupby("attack"):
        assert list(drawn[attack]) == list(some["asked"])
