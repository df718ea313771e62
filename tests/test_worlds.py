"""Attacks in worlds, and thresholds for a precision: against literal loops, where nothing and where much leaks."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from mialib import config, metrics
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
    for bad in ([0, 1, np.nan, 2], [0, 1, np.inf, 2], []):
        with pytest.raises(ValueError, match="scores must be flat, finite, and of at least one record"):
            worlds.threshold(bad, member[: len(bad)], 0.5)


def test_noise_makes_promises_and_the_guard_seldom():
    """Scores that say nothing: the best of many thresholds has the precision all the same, its interval seldom."""
    rng, member = np.random.default_rng(3), np.arange(400) % 2 == 0
    scores = rng.standard_normal((200, 400))
    made = [np.mean([np.isfinite(worlds.threshold(s, member, 0.6, guarded)) for s in scores]) for guarded in (0, 1)]
    assert made[0] > 0.6 and made[1] < 0.15


def test_many_like_scores_keep_the_promise():
    """Scores of one distribution here and there: what is obtained is what was asked for."""
    rng = np.random.default_rng(1)
    member = np.arange(200_000) % 2 == 0
    own, others = (rng.standard_normal(len(member)) + member for _ in range(2))
    for wanted in (0.6, 0.75, 0.9):
        least = worlds.threshold(own, member, wanted)
        assert member[others >= least].mean() == pytest.approx(wanted, abs=0.01)


def test_ratio_interval_is_the_ratio_estimator():
    part, whole = np.array([3, 0, 50, 20]), np.array([40, 0, 90, 20])
    value, low, high = metrics.ratio_interval(part, whole)
    assert value == pytest.approx(73 / 150) and low == 0 and high == 1  # two and a half targets that differ much
    same, each = np.full(5, 100), np.array([60, 80, 70, 90, 75])
    assert metrics.ratio_interval(each, same) == pytest.approx(metrics.mean_interval(each / same, 0, 1))
    exact = binomtest(210, 300).proportion_ci(method="exact")  # alike: no narrower than that of so many records
    assert metrics.ratio_interval([70, 70, 70], [100] * 3) == pytest.approx((0.7, exact.low, exact.high))
    assert np.isnan(metrics.ratio_interval([0, 0], [0, 0])).all()
    assert np.isnan(metrics.ratio_interval([1, 0], [2, 0])[1:]).all()
    with pytest.raises(ValueError, match="one length"):
        metrics.ratio_interval([1, 2], [1])
    for part, whole in (([3, 0], [2, 1]), ([0.5, 1], [1, 1]), ([-1, 1], [1, 1]), ([np.nan, 1], [1, 1])):
        with pytest.raises(ValueError, match="must be counts"):
            metrics.ratio_interval(part, whole)


@pytest.mark.parametrize("wholes", [[20] * 20, [24, 2] + [0] * 8, [60, 5, 3, 2, 1] + [0] * 15, [1000, 800, 600]])
def test_the_interval_of_a_ratio_covers_it(wholes):
    """Also where nearly all who are called are on one target, where the usual one covers every other time."""
    rng, covered = np.random.default_rng(2), 0
    for _ in range(300):
        _, low, high = metrics.ratio_interval(rng.binomial(wholes, 0.7), wholes)
        covered += low <= 0.7 <= high
    assert covered / 300 >= 0.93


def test_the_interval_of_a_ratio_is_as_wide_as_targets_differ():
    rng, covered, width = np.random.default_rng(4), 0, 0
    for _ in range(300):
        of_each = np.clip(0.7 + 0.1 * rng.standard_normal(8), 0, 1)
        _, low, high = metrics.ratio_interval(rng.binomial(200, of_each), [200] * 8)
        covered, width = covered + (low <= 0.7 <= high), width + high - low
    assert 0.91 <= covered / 300 <= 0.98 and width / 300 < 0.25


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
    assert set(before) == {
        "nn",
        "threshold",
        "calibrated",
        "LiRA",
        "RMIA",
        "Attack-R",
        "Attack-P",
        "bayes-wb",
        "general-wb",
    }
    for name, [score] in before.items():
        assert (score == after[name][0]).all() and len(score) == 200 and np.ptp(score) > 0, name
    deep = made(hidden=(8,))
    assert not {"bayes-wb", "general-wb"} & set(worlds.scores(deep[2:], deep[:1], (0, "deep")))


def test_of_two_classes_bayes_wb_is_lira_but_for_its_scale():
    """Within a world, and in each by another factor; of three classes they differ."""
    two = data(0.5, classes=2)
    plans = precision.plans(two.y[:550], row(), np.random.default_rng(0))
    binary = worlds.train(small.MLP((60, 2)), fit.Recipe(100), two.X, two.y, plans, 2, (0, "two"))
    for some, same in ((binary, True), (made(), False)):
        found = worlds.scores(some[:1], some, (0, "factor"))
        factors = [lira @ bayes / (bayes @ bayes) for lira, bayes in zip(found["LiRA"], found["bayes-wb"], strict=True)]
        for lira, bayes, factor in zip(found["LiRA"], found["bayes-wb"], factors, strict=True):
            assert np.allclose(lira, factor * bayes, atol=1e-4) == same
        assert np.ptp(factors) > 1e-3


def test_a_target_that_never_saw_the_records_gives_none_away():
    """The scores of a world whose target is put aside for one of its proxies, where the true target tells a lot."""
    each, told, null = data(1.0, n=2400, d=100), [], []
    for i in range(3):
        plans = precision.plans(each.y[:1650], row(size=300), np.random.default_rng(i))
        target, learn, _ = worlds.train(small.MLP((100, 3)), fit.Recipe(100), each.X, each.y, plans, 3, (i, "null"))
        own, *proxies = target.weights.proxies
        weights = leino.Shadow(own, proxies, target.weights.X, target.weights.y, target.member)
        other = worlds.World(target.others[0], target.others[1:], target.y, target.member, weights)
        found = worlds.scores([learn], [target, other], (i, "null"))
        aucs = {n: [metrics.evaluate(target.member, s, s > 0)["auc"] for s in both] for n, both in found.items()}
        told.append({name: both[0] for name, both in aucs.items()})
        null.append({name: both[1] for name, both in aucs.items()})
    assert pd.DataFrame(told).mean().min() > 0.56
    assert (pd.DataFrame(null).mean() - 0.5).abs().max() < 0.05  # 1800 records: four standard errors are .054


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
    assert len(asked) == 9 and (asked["value"].dropna() < 0.62).all()
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
    assert set(ways["LiRA"]) == {precision.HALF, *precision.WAYS[:2]}
    assert set(ways["nn"]) == {precision.HALF, *precision.WAYS}
    assert set(ways["threshold"]) == {precision.HALF, *precision.WAYS[:3]}


def measured(**changed):
    about = {"name": "MNIST, network", "tier": "R", "attack": "LiRA", "way": precision.WAYS[0], "asked": 0.75}
    about |= {"value": 0.7, "low": 0.6, "high": 0.76, "recall": 0.1, "recall_low": 0.05, "recall_high": 0.2}
    return about | {"called": 10.0, "total": 30, "silent": 0} | changed


def test_promises_are_counted_and_few_records_are_none():
    table = pd.DataFrame(
        [
            measured(),
            measured(asked=0.9),
            measured(asked=0.95, total=5),
            measured(attack="nn", asked=0.8, value=0.5, low=np.nan, high=np.nan),
            measured(attack="nn", asked=0.6, total=0, value=np.nan),
            measured(way=precision.HALF, asked=np.nan),
        ]
    )
    every, learning = precision.broken(table).to_dict("index").items()
    assert every[0] == ("MNIST, network", "other worlds") and learning[0][1] == precision.LIKE
    assert every[1]["promises"] == 3 and every[1]["broken"] == pytest.approx(1 / 3)  # without an interval: not broken
    assert every[1]["shortfall"] == pytest.approx(0.55 / 3) and every[1]["worst"] == pytest.approx(0.3)
    assert learning[1]["promises"] == 1 and learning[1]["broken"] == 0
    wide = precision.promised(table)
    assert list(wide) == [precision.HALF, 0.6, 0.75, 0.8, 0.9, 0.95]
    told = wide.loc[("MNIST, network", "LiRA")]
    assert told[0.75] == told[precision.HALF] == ".700 (.600 to .760), .100"
    assert told[0.95].endswith("*") and told[0.6] == ""
    told = wide.loc[("MNIST, network", "nn")]
    assert told[0.6] == "nobody" and told[0.8] == ".500 (one target), .100"


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
    low = precision.diagram(table.assign(value=0.1)).axes[0].get_ylim()[0]
    assert low < 0.1 and figure.axes[0].get_ylim()[0] <= here["value"].min()  # nothing is drawn outside the axes


@pytest.mark.parametrize("profile", config.PROFILES)
def test_rows_are_of_one_size_a_name_and_make_their_networks(profile):
    rows = precision.rows(profile)
    assert len({row.name for row in rows}) == len(rows) and len(rows[0].name.split(", ")) == 2
    assert min(row.targets for row in rows) > 1 and min(row.proxies for row in rows) > 1
    kinds = {"linear": 2, "network": 3}
    flat, image = data(0.5), Dataset("cifar-10", np.zeros((4, 3, 32, 32), np.uint8), np.arange(4) % 2, 2, "M", "", "")
    for row in rows:
        model = precision.architecture(image if row.filters else flat, row)
        kind = row.name.split(", ")[1]
        assert isinstance(model, small.CNN) if kind == "CNN" else len(model.sizes) == kinds[kind]
    with pytest.raises(ValueError, match="profile"):
        precision.rows("huge")


def test_the_overview_has_a_line_a_row(leak):
    [line] = precision.overview([leak, leak]).drop_duplicates().to_dict("records")
    assert line["own worlds"] == 2 and line["train_acc"] > line["test_acc"]
    assert line["LiRA auc"] == pytest.approx(precision.aucs(leak)["LiRA"][0])
