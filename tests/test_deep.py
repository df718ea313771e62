"""Leino & Fredrikson 2020 on deep targets: a network cut in two, and attacks on what lies above."""

import copy
import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm
from test_leino import gaussian_shadows

from mialib import metrics, runs
from mialib.attacks import leino, slices
from mialib.data.datasets import Dataset
from mialib.models import transfer
from mialib.models.fit import Recipe
from mialib.papers.leino2020 import deep, precision
from mialib.papers.leino2020.deep import LAYERS, Row
from mialib.results import published, tables

ROW = Row("mnist", 60, 25, 3, 1, (1, 1, 2), 60)


def images(noise, n=300, classes=3, side=16):
    """Images around a pattern a class; a share `noise` of the labels is drawn at random."""
    rng = np.random.default_rng(0)
    y = rng.integers(classes, size=n)
    X = 255 * rng.random((classes, 1, side, side))[y] * 0.5 + 127 * rng.random((n, 1, side, side))
    y = np.where(rng.random(n) < noise, rng.integers(classes, size=n), y)
    X = X.astype(np.uint8)
    return Dataset("mnist", X, y, classes, "M", "simulated", runs.digest(X, y))


DATA = images(0.6)
TARGET = transfer.fresh(deep.network((1, 16, 16), 3), (0, "test"))


@pytest.fixture(scope="module", autouse=True)
def one_process(tmp_path_factory):
    """So small networks are trained sooner than another process has started; and a cache for all of this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIALIB_CACHE", str(tmp_path_factory.mktemp("deep")))
        patch.setenv("MIALIB_WORKERS", "1")
        yield


@pytest.fixture(scope="module")
def attacked(one_process):
    return deep.attack(DATA, ROW, 0)


def cut_in_double(count, n=12):
    """z and y, and layers above a slice, of two networks in float64, whose answers have no rounding to speak of."""
    below, above = slices.cut(dataclasses.replace(TARGET, net=copy.deepcopy(TARGET.net)), count)
    _, other = slices.cut(transfer.fresh(TARGET, (1, "test")), count)
    z = transfer.logits(below, DATA.X[:n]).astype(float)
    for part in (above, other):
        part.double()
    return z, DATA.y[:n], above, other


# --- the cut --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", LAYERS)
def test_below_and_above_are_the_network(count):
    below, above = slices.cut(TARGET, count)
    z = transfer.logits(below, DATA.X[:40])
    with torch.inference_mode():
        assert above(torch.from_numpy(z)).numpy() == pytest.approx(transfer.logits(TARGET, DATA.X[:40]), abs=1e-5)


@pytest.mark.parametrize("count", [0, 4])
def test_a_layer_with_weights_must_be_left_on_either_side(count):
    with pytest.raises(ValueError, match="4 layers with weights are cut after 1 to 3 of them"):
        slices.cut(TARGET, count)


@pytest.mark.parametrize("count", LAYERS)
def test_proxies_share_what_is_below_and_learn_the_rest(count):
    X, y = images(0.0).X[:80], images(0.0).y[:80]
    recipe = Recipe(15 if count == 1 else 300, batch=20)
    found = slices.proxies(TARGET, count, X, y, recipe, [(0, "a"), (0, "b")])
    names = [name for name, layer in TARGET.net.named_children() if any(True for _ in layer.parameters())]
    for proxy in found:
        for i, name in enumerate(names):
            own, other = (getattr(each.net, name).weight for each in (TARGET, proxy))
            assert torch.equal(own, other) == (i < count), name
        assert (transfer.logits(proxy, X).argmax(1) == y).mean() > 2 / 3  # chance: a third
    assert not torch.equal(found[0].net.fc2.weight, found[1].net.fc2.weight)
    again = slices.proxies(TARGET, count, X, y, recipe, [(0, "b")])[0]
    assert torch.equal(found[1].net.fc2.weight, again.net.fc2.weight)


# --- a logit made linear --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", LAYERS)
def test_integrated_gradients_and_the_bias_at_zero_are_the_difference_of_logits(count):
    """Oracle: a loop of autograd over 500 points, in float64; and completeness, which it must meet."""
    z, y, above, other = cut_in_double(count, 3)
    steps = 500
    local = slices.local(above, [other], z, y, lambda *of: slices.integrated(*of, steps))
    exact = slices.difference(above, [other], z, y)
    assert leino.local_bayes_wb(local).score == pytest.approx(exact, abs=1e-3 * max(1, np.abs(exact).max()))
    for net, (weights, biases) in ((above, local.target), (other, local.proxies)):
        line = torch.tensor(z[0]) * ((torch.arange(steps)[:, None] + 0.5) / steps)
        line.requires_grad_()
        said = net(line)
        (said[:, y[0]] - said.mean(1)).sum().backward()
        assert weights[0] == pytest.approx(line.grad.mean(0).numpy(), abs=1e-9)
        nothing = net(torch.zeros(1, z.shape[1], dtype=torch.float64))[0]
        assert biases[0] == pytest.approx((nothing[y[0]] - nothing.mean()).item())


@pytest.mark.parametrize("count", LAYERS)
def test_a_tangent_with_its_own_bias_is_the_difference_too_and_with_that_at_zero_it_is_not(count):
    z, y, above, other = cut_in_double(count)
    exact = slices.difference(above, [other], z, y)
    tangents = slices.local(above, [other], z, y)
    assert leino.local_bayes_wb(tangents).score == pytest.approx(exact, abs=1e-9)
    bare = leino.local_bayes_wb(slices.gradients(tangents, above, [other], y)).score
    if count == 3:  # linear above: one weight for all
        assert bare == pytest.approx(exact, abs=1e-9)
    else:
        assert np.abs(bare - exact).max() > 1e-4
    with torch.no_grad():  # without biases a network of ReLUs is its own gradient times z
        for layer in (*above, *other):
            if hasattr(layer, "bias"):
                layer.bias.zero_()
    tangents, exact = slices.local(above, [other], z, y), slices.difference(above, [other], z, y)
    bare = leino.local_bayes_wb(slices.gradients(tangents, above, [other], y)).score
    assert bare == pytest.approx(exact, abs=1e-9)


def last(net):
    """The last layer as the linear attack reads it."""
    return leino.linear(net.fc2)


def test_at_the_last_layer_it_is_the_attack_on_linear_models():
    X, y = DATA.X[:50], DATA.y[:50]
    found = slices.proxies(TARGET, 3, DATA.X[50:120], DATA.y[50:120], Recipe(5), [(0, "a"), (0, "b")])
    below, above = slices.cut(TARGET, 3)
    z = transfer.logits(below, X)
    local = slices.local(above, [slices.cut(proxy, 3)[1] for proxy in found], z, y)
    target, proxies = last(TARGET.net), [last(proxy.net) for proxy in found]
    assert leino.local_bayes_wb(local, 0.1).score == pytest.approx(
        leino.bayes_wb(target, proxies, z, y, 0.1).score, abs=1e-5
    )
    learnt = leino.displacement([leino.Shadow(target, proxies, z, y, np.arange(50) < 25)], (0, "test"))
    linear = leino.general_wb(learnt, target, proxies, z, y, 0.1)
    assert leino.local_general_wb(learnt, local, 0.1).score == pytest.approx(linear.score, abs=1e-4)
    assert (leino.local_general_wb(learnt, local, 0.1).predicted == linear.predicted).all()


def at_records(shadow):
    """A linear shadow as `Local`: each record has the weights of its class."""
    own, other = shadow.target, shadow.proxies[0]
    return leino.Local(shadow.X, *((weights[shadow.y], biases[shadow.y]) for weights, biases in (own, other)))


def test_general_wb_learns_the_optimal_rule_from_weights_a_record():
    """Of Gaussian classes, whose best accuracy is known: see the same test of the linear attack."""
    rng = np.random.default_rng(0)
    shadows, asked = (gaussian_shadows(count, rng, spread=1) for count in (10, 20))
    members = [each.member for each in shadows]
    learnt = leino.local_displacement([at_records(each) for each in shadows], members, (0, "test"))
    again = leino.local_displacement([at_records(each) for each in shadows], members, (0, "test"))
    assert (learnt.theta == again.theta).all() and learnt.spread == again.spread
    right = [(leino.local_general_wb(learnt, at_records(each)).predicted == each.member).mean() for each in asked]
    assert np.mean(right) == pytest.approx(norm.cdf(0.5 * np.sqrt(200 / 50) / np.sqrt(2)), abs=0.03)


def test_bad_input_gives_one_clear_line():
    z, weights = np.ones((5, 4)), (np.ones((5, 4)), np.ones(5))
    with pytest.raises(ValueError, match=r"z is \(5, 4\), weights and biases are \(5, 3\) and \(5,\)"):
        leino.Local(z, weights, (np.ones((5, 3)), np.ones(5)))
    with pytest.raises(ValueError, match="members and non-members"):
        leino.local_displacement([leino.Local(z, weights, weights)], [np.ones(5, bool)], (0,))
    with pytest.raises(ValueError, match="300 records are too few for models of 61, it takes five times that"):
        deep.worlds(DATA, dataclasses.replace(ROW, size=61), 0)


# --- the room -------------------------------------------------------------------------------------------------------


def test_profiles_have_sizes_and_images_are_large_enough():
    for profile in ("demo", "laptop", "paper"):
        assert {row.name for row in deep.rows(profile)} == {"MNIST", "CIFAR-10"}
    data = deep.load("mnist", "demo")
    assert data.X.dtype == np.uint8 and data.X.shape[1:] == (1, 24, 24) and data.X.max() == 255
    assert deep.load("cifar-10", "demo").X.shape[1:] == (3, 32, 32)


def test_nobody_is_on_two_sides():
    y = np.random.default_rng(0).integers(3, size=300)
    made = deep.plans(y, dataclasses.replace(ROW, learn=2), np.random.default_rng(1))
    assert len(made) == 3 + 4
    owner = np.unique(np.concatenate([part for plan in made[:3] for part in plan[:2]]))
    hers = np.unique(np.concatenate([*(plan[2] for plan in made[:3]), *(part for plan in made[3:] for part in plan)]))
    assert len(owner) == 120 and len(hers) == 180 and not np.isin(owner, hers).any()
    for plan in made:
        assert [len(part) for part in plan] == [60, 60, 60]
        assert len(np.unique(np.concatenate(plan))) == 180


def summary(attacked):
    return tables.summary(attacked.attacked).set_index(["attack", "metric"])


WHITE = [f"{way}, {layer}" for way in deep.WAYS for layer in (*LAYERS.values(), deep.ALL)]


def test_planted_leak_is_found_at_every_layer(attacked):
    """Random labels: the target has learnt its members by heart."""
    found = summary(attacked)
    assert found.loc[("target", "train_acc"), "value"] > 0.95 > 0.75 > found.loc[("target", "test_acc"), "value"]
    assert found.loc[("target", "gap"), "value"] == pytest.approx(
        found.loc[("target", "train_acc"), "value"] - found.loc[("target", "test_acc"), "value"]
    )
    for attack in WHITE:
        assert found.loc[(attack, "auc"), "low"] > 0.6, attack
    assert found.loc[(deep.PRIMARY, "balanced_accuracy"), "low"] > 0.55
    assert set(attacked.attacked.answers) == {*WHITE, "nn", "gap"}


def test_records_that_no_network_was_trained_on_are_not_told_apart(monkeypatch):
    """Half of the others are put down as members, in the target's world and in the attacker's; six attackers."""
    train = deep.worlds

    def untrained(*of):
        found = []
        for number, world in enumerate(train(*of)):
            halves = np.split(runs.stream(of[-1], number).permutation(world.others), 2)
            found.append(dataclasses.replace(world, members=halves[0], others=halves[1], asked=world.others))
        return found

    monkeypatch.setattr(deep, "worlds", untrained)
    row = dataclasses.replace(ROW, targets=1, epochs=4, proxies=(1, 1, 1))
    each = [summary(deep.attack(DATA, row, seed))["value"] for seed in range(6)]
    for attack in (deep.PRIMARY, f"bayes-wb, {deep.ALL}", "bayes-wb, FC 500", "nn", "gap"):
        _, low, high = metrics.mean_interval([found[attack, "auc"] for found in each])
        assert low < 0.5 < high and high - low < 0.3, attack


def test_scores_are_those_of_the_networks(attacked):
    """Oracle: the logits of target and proxies, asked whole."""
    world = attacked.targets[1]
    X, y = DATA.X[world.asked], DATA.y[world.asked]
    score, member = attacked.scored.answers[1]["bayes-wb, conv 2"][0]
    assert (member == np.isin(world.asked, world.members)).all() and member.sum() == 60
    own, other = (transfer.logits(each, X) for each in whole(world, (0, 2)))
    centred = [said[np.arange(len(y)), y] - said.mean(1) for said in (own, other)]
    assert score == pytest.approx(centred[0] - centred[1], abs=1e-3)
    seen = attacked.attacked.records[1]
    assert (seen.vectors.argmax(1) == own.argmax(1)).mean() > 0.99


def whole(world, numbers):
    for number in numbers:
        made, at = deep.network((1, 16, 16), 3), 0
        for part in made.net.parameters():
            part.data.copy_(torch.from_numpy(world.nets[number][at : at + part.numel()].reshape(part.shape)))
            at += part.numel()
        yield made


def test_targets_set_no_threshold(attacked):
    """With the targets' members and others exchanged, whoever was called still is."""
    turned = [
        {name: [(asked[0], ~asked[1]), *others] for name, (asked, *others) in answers.items()}
        for answers in attacked.scored.answers
    ]
    other = dataclasses.replace(attacked, scored=dataclasses.replace(attacked.scored, answers=turned))
    one, two = deep.calls([attacked]), deep.calls([other])
    assert set(one["way"]) == {precision.HALF, precision.WAYS[0]}
    assert one["called"].sum() > 0 and (one["called"].to_numpy() == two["called"].to_numpy()).all()
    assert (one["hits"].to_numpy() + two["hits"].to_numpy() == one["called"].to_numpy()).all()


def test_what_is_shown_of_a_record_sums_to_its_score(attacked):
    member, other = deep.giveaway(attacked, DATA)
    world = attacked.targets[0]
    score, inside = attacked.scored.answers[0][deep.PRIMARY][0]
    best = max(np.flatnonzero(inside), key=lambda i: score[i])
    at = world.asked[best]
    assert (member.image == DATA.X[at]).all()
    far = {i: np.linalg.norm(DATA.X[i].astype(float) - DATA.X[at]) for i in world.others if DATA.y[i] == DATA.y[at]}
    assert (other.image == DATA.X[min(far, key=far.get)]).all()
    assert member.evidence.shape == (6, 6)
    bayes = attacked.scored.answers[0]["bayes-wb, conv 1"][0][0][best]
    assert member.score == pytest.approx(bayes, abs=0.02 * abs(bayes) + 0.02)
    figure = deep.picture({"MNIST": (member, other)})
    assert len(figure.axes) == 5


def test_linear_models_are_held_against_the_difference(attacked):
    table = deep.linearised(attacked, DATA)
    assert list(table.index) == [("MNIST", layer) for layer in LAYERS.values()]
    assert (table["tangent"] < 1e-3).all() and (table["integrated, 300 steps"] < 0.05 * table["spread"]).all()
    assert (table.loc[("MNIST", "FC 500"), ["gradient", "integrated, 1 steps"]] < 1e-3).all()


# --- the comparison -------------------------------------------------------------------------------------------------


def made(gap, precision_, low, high, total=500):
    """`tables.summary` and `precision.measured` of MNIST, as far as the comparison reads them."""
    about = {"dataset": "MNIST", "setting": "all", "tier": "R", "size": 9, "shadows": 2, "records": 400}
    rates = {
        "accuracy": (0.6, 0.5, 0.7),
        "precision": (0.6, 0.5, 0.7),
        "recall": (0.5, 0.4, 0.6),
        "auc": (0.6, 0.5, 0.7),
    }
    target = {"train_acc": (1.0, 1.0, 1.0), "test_acc": (1 - gap,) * 3, "gap": (gap, gap, gap)}
    measured = pd.concat([tables.rows(about, "target", target), tables.rows(about, deep.PRIMARY, rates)])
    row = {"name": "MNIST", "tier": "R", "attack": deep.PRIMARY, "way": precision.WAYS[0], "asked": 0.75}
    row |= {"value": precision_, "low": low, "high": high, "recall": 0.1, "recall_low": 0.0, "recall_high": 0.2}
    return measured, pd.DataFrame([row | {"called": 100.0, "total": total, "silent": 0}])


@pytest.mark.parametrize(
    ("of", "profile", "verdict", "cause"),
    [
        ((0.011, 0.76, 0.72, 0.79), "laptop", "reproduced", ""),
        ((0.011, 0.6, 0.55, 0.65), "laptop", "differs", ""),
        ((0.011, 0.76, 0.5, 0.9), "laptop", "undecided", "the interval crosses the tolerance"),
        ((0.016, 0.76, 0.72, 0.79), "laptop", "not comparable", "the target generalises otherwise"),
        ((0.011, 0.76, 0.72, 0.79, 19), "laptop", "not comparable", "fewer than 20 records"),
        ((0.011, float("nan"), float("nan"), float("nan"), 0), "laptop", "not comparable", "undefined value"),
        ((0.011, 0.76, 0.72, 0.79), "demo", "not comparable", "demo profile"),
    ],
)
def test_the_slides_number_is_held_against_what_was_asked_for_as_much(of, profile, verdict, cause):
    cells = deep.compare(*made(*of), profile)
    first = {cell["metric"]: cell for cell in published.primary(cells)}
    assert set(first) == {"target_gap", "attack_precision"}
    cell = first["attack_precision"]
    assert cell["verdict"] == verdict and cell["cause"] == cause
    assert cell["setting"] == f"white-box attack, {deep.PRIMARY}, .750 asked"
    others = {cell["setting"] for cell in cells if cell["published"] is not None and not cell["primary"]}
    assert others == {f"white-box attack, {deep.PRIMARY}, threshold 0"}
