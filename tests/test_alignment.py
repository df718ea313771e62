"""Units in another order: the function stays, a permuted copy comes back, and features are those of autograd.

Then what the notebook shows of it: who is given what, what bears a verdict, and what is drawn.
"""

import dataclasses
import functools
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from mialib import config, machine, runs
from mialib.attacks import alignment, cretu
from mialib.attacks.nasr import Features
from mialib.data import splits
from mialib.data.datasets import Dataset
from mialib.models import modules, small
from mialib.papers.cretu2024 import exhibits, experiments
from mialib.results import plots, published

ABOUT = experiments.Size(60, 1, 3, (3, 4), 12, 0, 0.03, 1e-4, 5, 10, 10, 25, 6, 100)


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    monkeypatch.setenv("MIALIB_WORKERS", "1")


def net(seed=0, hidden=12):
    return modules.cnn((3, 20, 20), 4, (5, 6), hidden, 0.2, (seed, "net"))


def mlp(*sizes):
    return nn.Sequential(nn.Linear(sizes[0], sizes[1]), nn.Tanh(), nn.Linear(sizes[1], sizes[2]))


def orders(seed=0):
    rng = np.random.default_rng(seed)
    return [rng.permutation(n) for n in (5, 6, 12)]


@pytest.mark.parametrize("way", alignment.WAYS)
def test_a_realigned_network_answers_the_same_and_is_nearer(way):
    one, other = net(0), net(1)
    found, x = alignment.align(one, other, way), torch.rand(20, 3, 20, 20)
    assert torch.allclose(found(x), one(x), atol=1e-6)
    assert any(not torch.equal(a, b) for a, b in zip(found.parameters(), one.parameters(), strict=True))
    at = 0 if way == "bottom-up" else 2
    side = alignment.entering if way == "bottom-up" else alignment.leaving
    far, near = (
        np.linalg.norm(np.subtract(*(side(layers, at) for layers in alignment.both(each, other))), axis=1).sum()
        for each in (one, found)
    )
    assert near < far


@pytest.mark.parametrize("way", alignment.WAYS)
def test_a_permuted_copy_comes_back_exactly(way):
    one = net()
    shuffled, x = alignment.permuted(one, orders()), torch.rand(20, 3, 20, 20)
    assert torch.allclose(shuffled(x), one(x), atol=1e-6) and max(alignment.apart(shuffled, one)[:-1]) > 0
    back = alignment.align(shuffled, one, way)
    assert all(torch.equal(a, b) for a, b in zip(back.parameters(), one.parameters(), strict=True))
    assert alignment.apart(back, one) == [0.0] * 4


def test_what_does_not_fit_is_refused_in_one_line():
    with pytest.raises(ValueError, match="networks of different sizes have no units in common"):
        alignment.align(net(), net(hidden=13), "top-down")
    with pytest.raises(ValueError, match="unknown way 'sideways'; valid: bottom-up, top-down"):
        alignment.align(net(), net(), "sideways")
    with pytest.raises(ValueError, match="units cannot be exchanged through BatchNorm1d"):
        alignment.weighted(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)))
    with pytest.raises(ValueError, match="in an nn\\.Sequential"):
        alignment.weighted(nn.Linear(3, 4))
    with pytest.raises(ValueError, match="one permutation each of 4 units"):
        alignment.permuted(mlp(3, 4, 2), [np.array([0, 0, 1, 2])])


def data(noise=1.0, n=300, seed=0):
    rng = np.random.default_rng(seed)
    X, y = rng.integers(0, 256, (n, 3, 20, 20), np.uint8), rng.integers(4, size=n)
    return Dataset("cifar-10", X, y, 4, "M", "planted", runs.digest(X, y))


def test_gradients_are_those_of_autograd_in_double_precision():
    here, one = data(n=6), net()
    seen = experiments.observe(one, here, np.arange(6), np.ones(6, bool))
    double = net().double()
    x = torch.from_numpy(modules.scaled(here.X)).double()
    for kind, times in ((experiments.OF_THE_LOSS, 0), (experiments.GRADIENTS, 1)):
        [(delta, entered)] = seen.features[kind].gradients
        for i in range(6):
            double.zero_grad()
            logits = double(x[i : i + 1])
            logits = logits.softmax(1) if times else logits
            nn.functional.cross_entropy(logits, torch.tensor(here.y[i : i + 1])).backward()
            wanted = torch.hstack([double.fc2.weight.grad, double.fc2.bias.grad[:, None]]).numpy()
            np.testing.assert_allclose(np.outer(delta[i, 0], entered[i, 0]), wanted, atol=1e-6)


def test_networks_that_saw_no_record_tell_nothing():
    networks = experiments.train(data(), ABOUT, 0)
    found = experiments.attack(networks, data(), ABOUT, 0)
    # Gap; two kinds of features of three attackers, one of two, each with half as much known too; the loss's of two.
    assert len(found) == 1 + 3 * 4 + 2 * 2 + 2 and all(scores.shape == (1, 50) for scores in found.values())
    for key, scores in found.items():
        low, high = np.quantile(experiments.resampled(scores, "auc", 200, 0), [0.001, 0.999])
        assert low <= 0.5 <= high, key


def test_networks_that_learnt_noise_by_heart_are_seen(monkeypatch):
    about = experiments.Size(
        **vars(ABOUT) | {"size": 250, "hidden": 64, "filters": (8, 8), "validated": 50, "asked": 60, "passes": 40}
    )
    here, by_heart = data(n=1200), modules.Descent(100, 0.05)  # no validation: of noise it would choose the first epoch
    several = [modules.train(*job[:3], by_heart, job[4]) for job in jobs_of(about, monkeypatch, here)]
    monkeypatch.setattr(modules, "train_all", lambda jobs: several)
    networks = experiments.train(here, about, 0)
    assert experiments.accuracies(networks.targets[0], here, networks.target)["train"] == 1  # by heart, indeed
    # Of so few records an epoch in the released batches is a few steps.
    monkeypatch.setattr(experiments, "Training", functools.partial(cretu.Training, batch=8))
    found = experiments.attack(networks, here, about, 0)
    # Gradients of independent shadows have their units in another order, so of them the re-aligned are looked at.
    seen = [(experiments.INDEPENDENT, experiments.OUTPUTS), (experiments.OWN, experiments.GRADIENTS)]
    for attacker, kind in [*seen, ("re-aligned top-down", experiments.GRADIENTS)]:
        scores = found[attacker, kind, ""]
        value = experiments.mean_auc(scores, np.arange(120) % 2 == 0)
        low = np.quantile(experiments.resampled(scores, "auc", 200, 0), 0.005)
        assert value > 0.75 and low > 0.5, (attacker, kind, value, low)


def jobs_of(about, monkeypatch, here):
    """What `experiments.train` gives to be trained."""

    class Caught(Exception):
        pass

    def caught(jobs):
        raise Caught(jobs)

    with monkeypatch.context() as patch, pytest.raises(Caught) as error:
        patch.setattr(modules, "train_all", caught)
        experiments.train(here, about, 0)
    return error.value.args[0]


def test_no_record_is_in_two_parts(monkeypatch):
    split = experiments.Split(np.arange(60), np.arange(60, 120))
    parts = experiments.drawn(split, (25, 10, 20), 0, "x")
    rows = np.concatenate([rows for rows, _ in parts])
    assert len(np.unique(rows)) == 2 * 55 and all(np.array_equal(member, rows < 60) for rows, member in parts)
    with pytest.raises(ValueError, match="too few to be known"):
        experiments.Size(**vars(ABOUT) | {"asked": 60})
    here, networks = data(), experiments.train(data(), ABOUT, 0)
    jobs, sides = jobs_of(ABOUT, monkeypatch, here), [networks.target, *networks.sides, *networks.sides]
    for (_, X, y, _, _, (X_held, y_held)), side in zip(jobs, sides, strict=True):
        assert np.array_equal(X, here.X[side.members]) and np.array_equal(y, here.y[side.members])
        used = here.X[np.concatenate([side.members, side.non_members])]
        assert len(y_held) == 2 * ABOUT.stopping
        assert not {image.tobytes() for image in X_held} & {image.tobytes() for image in used}
    nets = networks.shadows[experiments.INDEPENDENT]
    with monkeypatch.context() as patch:
        patch.setattr(experiments, "observe", lambda net, data, rows, member: (net, rows, member))
        teachers, check = experiments.shadows(nets, networks.sides, here, ABOUT, 0)
    for (net, rows, member), wanted, side in zip([*teachers, check], nets, networks.sides, strict=True):
        assert net is wanted and len(set(rows)) == len(rows)
        assert np.array_equal(member, np.isin(rows, side.members))
    held = set(check[1])
    assert len(held) == 2 * ABOUT.validated
    for (_, rows, _), side in zip(teachers, networks.sides, strict=False):  # all else that it can tell of is known
        assert set(rows) == {*side.members, *side.non_members} - held


def features(n=30, seed=0, classes=4, units=6):
    rng = np.random.default_rng(seed)
    some = (rng.normal(size=(n, 1, size)).astype(np.float32) for size in (classes, classes, units))
    outputs, delta, entered = some
    return Features(rng.integers(classes, size=n), np.zeros((n, 1), np.float32), (outputs,), ((delta, entered),))


def test_kernels_span_the_whole_gradient_as_the_released_convolution_does():
    seen, network = features(), cretu.Network(features(), 4, 10, np.random.default_rng(1))
    [(delta, entered)] = seen.gradients
    matrix = torch.from_numpy(delta[:, 0, :, None] * entered[:, 0, None, :])[..., None]  # (n, classes, units, 1)
    convolution = nn.Conv2d(4, 10, (6, 1))
    with torch.no_grad():
        convolution.weight.copy_(network.kernels[0].weight.reshape(10, 4, 6, 1))
        convolution.bias.copy_(network.kernels[0].bias)
        parts = [network.outputs[0](torch.from_numpy(seen.outputs[0][:, 0]))]
        parts += [network.gradients[0](convolution(matrix).flatten(1)), network.label(torch.from_numpy(seen.y))]
        torch.testing.assert_close(network(seen), network.classifier(torch.cat(parts, 1)))


@pytest.mark.parametrize("kind", ["outputs", "gradients"])
def test_members_with_smaller_numbers_are_seen_and_equal_ones_are_not(kind):
    """`learn` alone, from two teachers."""

    def drawn(n, seed, planted):
        seen, member = features(n, seed), np.arange(n) % 2 == 0
        some = np.where(member & planted, np.float32(0.3), np.float32(1))[:, None, None]
        [outputs], [(delta, entered)] = seen.outputs, seen.gradients
        parts = ((outputs * some,), ()) if kind == "outputs" else ((), ((delta * some, entered),))
        return Features(seen.y, seen.loss, *parts), member

    aucs = {}
    for planted in (True, False):
        teachers = [drawn(2000, seed, planted) for seed in (0, 1)]
        asked, member = drawn(1000, 3, planted)
        [scores] = cretu.learn(teachers, drawn(500, 2, planted), asked, (0, kind), cretu.Training(kernels=20))
        aucs[planted] = roc_auc_score(member, scores)
    assert aucs[True] > 0.75 and abs(aucs[False] - 0.5) < 0.055  # three standard errors


def test_teachers_take_turns_and_each_gives_its_share():
    counts, rng = [100, 70, 131], np.random.default_rng(0)
    orders = set()
    for _ in range(3):
        found = list(cretu.turns(counts, 16, rng))
        assert len(found) == 9  # as many batches as the largest has
        for at in range(0, 9, 3):
            assert sorted(who for who, _ in found[at : at + 3]) == [0, 1, 2]  # a round
        for which, count in enumerate(counts):
            rows = np.concatenate([rows for who, rows in found if who == which])
            assert len(rows) == len(np.unique(rows)) == 48 and rows.max() < count
        orders.add(tuple(who for who, _ in found))
    assert len(orders) > 1
    alone = list(cretu.turns([50], 16, rng))
    assert sorted(np.concatenate([rows for _, rows in alone])) == list(range(50)) and len(alone[-1][1]) == 2
    few = list(cretu.turns([16, 160], 16, rng))  # a teacher of one batch is asked about it again
    assert [who for who, _ in few].count(0) == 5 and all(set(rows) == set(range(16)) for who, rows in few if not who)


def test_the_attack_network_keeps_the_epoch_that_tells_the_held_out_apart_best(monkeypatch):
    """Where no epoch brings more, the rate is halved four times and training ends; scores are the first epoch's."""
    known, member = features(60, 2), np.arange(60) % 2 == 0
    said = iter([0.9, 0.8, 0.4, 0.7, *[0.6, 0.4] * 2])  # untrained: wrong of all of `check`; then right, wrong, right
    calls, rates = [], []

    class Adam(torch.optim.Adam):
        def step(self):
            rates.append(self.param_groups[0]["lr"])
            return super().step()

    def told(network, seen):
        calls.append(len(seen.y))
        return np.full(len(seen.y), next(said))

    monkeypatch.setattr(cretu, "told", told)
    monkeypatch.setattr(torch.optim, "Adam", Adam)
    check = features(10, 3), np.zeros(10, bool)  # .4 says non-member: right
    [scores] = cretu.learn([(known, member)], check, features(7, 4), (0, "x"), cretu.Training(batch=60))
    assert np.array_equal(scores, np.full(7, 0.7)) and calls == [10, 7, 10, 7, *[10] * 4]
    assert rates == pytest.approx([1e-3, 1e-3, 5e-4, 2.5e-4, 1.25e-4])


def test_training_begins_where_the_network_is_and_repeats():
    here, one = data(), net()
    found = [modules.train(one, here.X, here.y, modules.Descent(1, 0.03), (i, "order")) for i in (0, 0, 1)]
    same = [all(torch.equal(a, b) for a, b in zip(found[0].parameters(), f.parameters(), strict=True)) for f in found]
    assert same == [True, True, False] and torch.equal(one.fc2.weight, net().fc2.weight)
    still = modules.train(one, here.X, here.y, modules.Descent(0, 0.03), (0, "order"))
    assert torch.equal(still.fc2.weight, one.fc2.weight)
    with pytest.raises(ValueError, match="weights are not finite at rate 1e\\+30"):
        modules.train(one, here.X, here.y, modules.Descent(2, 1e30), (0, "order"))


def test_an_attack_without_records_or_on_others_is_refused():
    known, none = (features(), np.ones(30, bool)), (features(0), np.ones(0, bool))
    for teachers, check in (([], known), ([known, none], known), ([known], none)):
        with pytest.raises(ValueError, match="records to learn from, others that choose its epoch, and some"):
            cretu.learn(teachers, check, features(), (0, "x"))
    with pytest.raises(ValueError, match="by the same layers"):
        cretu.learn([known], known, features(units=7), (0, "x"))


@pytest.mark.parametrize("patience", [1, 2])
def test_training_to_a_plateau_is_the_literal_loop(patience, monkeypatch):
    monkeypatch.setattr(machine, "precision", lambda device="cpu": "float32")
    here, one = data(n=140), modules.cnn((3, 20, 20), 4, (3, 4), 12, 0.0, (5, "net"))  # nothing is dropped
    plateaus = modules.Plateaus(12, 0.05, 0.01, patience, batch=20)
    found = modules.train(one, here.X[:100], here.y[:100], plateaus, (0, "order"), (here.X[100:], here.y[100:]))

    loop, rng = modules.cnn((3, 20, 20), 4, (3, 4), 12, 0.0, (5, "net")), runs.stream(0, "order")
    rng.integers(2**62)
    x, y = torch.from_numpy(modules.scaled(here.X)), torch.tensor(here.y)
    descending = torch.optim.SGD(loop.parameters(), 0.05, 0.9)
    accuracies, states, bad, rates = [(loop(x[100:]).argmax(1) == y[100:]).double().mean().item()], [], 0, []
    states.append({name: value.clone() for name, value in loop.state_dict().items()})
    for _ in range(12):
        for rows in rng.permutation(100).reshape(5, 20):
            descending.zero_grad()
            nn.functional.cross_entropy(loop(x[rows]), y[rows]).backward()
            descending.step()
        rates.append(descending.param_groups[0]["lr"])
        now = (loop(x[100:]).argmax(1) == y[100:]).double().mean().item()
        bad += now <= max(accuracies)
        if now <= max(accuracies) and bad % patience == 0:
            descending.param_groups[0]["lr"] /= 2
        accuracies.append(now)
        states.append({name: value.clone() for name, value in loop.state_dict().items()})
        if descending.param_groups[0]["lr"] < 0.01:
            break
    assert len(set(rates)) > 1 and (patience > 1 or len(rates) < 12)  # it was lowered, and ended early
    for name, value in states[int(np.argmax(accuracies))].items():
        torch.testing.assert_close(found.state_dict()[name], value, atol=2e-4, rtol=1e-3)


def test_descent_is_that_of_pytorchs_own_class_to_the_bit():
    here, one = data(n=50), modules.cnn((3, 20, 20), 4, (3, 4), 12, 0.0, (5, "net"))
    found = modules.train(one, here.X, here.y, modules.Descent(3, 0.05, 20), (0, "order"))

    loop, rng, done = modules.cnn((3, 20, 20), 4, (3, 4), 12, 0.0, (5, "net")), runs.stream(0, "order"), 0
    rng.integers(2**62)  # of dropout
    descending = torch.optim.SGD(loop.parameters(), 0.05, 0.9, fused=True)
    with small.one_thread():
        for _ in range(3):
            order = rng.permutation(50)
            for rows in (order[:20], order[20:40], order[40:]):
                descending.param_groups[0]["lr"] = 0.05 * (1 - done / 9)
                descending.zero_grad()
                images = torch.from_numpy(modules.scaled(here.X[rows])).contiguous(memory_format=torch.channels_last)
                with torch.autocast("cpu", torch.bfloat16, enabled=machine.precision() == "bfloat16"):
                    said = loop(images)
                nn.functional.cross_entropy(said.float(), torch.from_numpy(here.y[rows])).backward()
                descending.step()
                done += 1
    assert all(torch.equal(found.state_dict()[name], value) for name, value in loop.state_dict().items())
    assert not torch.equal(found.fc2.weight, one.fc2.weight)


def test_a_parameter_that_nothing_uses_stays_as_it_is():
    here, one = data(n=20), modules.cnn((3, 20, 20), 4, (3, 4), 12, 0.0, (5, "net"))
    one.relu3.register_parameter("idle", nn.Parameter(torch.ones(2)))
    found = modules.train(one, here.X, here.y, modules.Descent(2, 0.05, 10), (0, "order"))
    assert torch.equal(found.relu3.idle, torch.ones(2)) and not torch.equal(found.fc2.weight, one.fc2.weight)


@pytest.mark.parametrize("held", [(), (1,)])
def test_a_training_that_runs_away_or_could_not_descend_is_refused(held):
    here, one = data(n=20), modules.cnn((3, 20, 20), 4, (3, 4), 12, 0.0, (5, "net"))
    rest = [(here.X, here.y) for _ in held]
    kind = functools.partial(modules.Plateaus, slowest=1e-9, patience=9) if held else modules.Descent
    with pytest.raises(ValueError, match=r"did not learn: .* at rate 1e\+30; lower it"):
        modules.train(one, here.X, here.y, kind(epochs=3, rate=1e30, batch=10), (0,), *rest)
    for how in ({"rate": 0}, {"rate": -1}, {"rate": 1, "momentum": -1}):
        with pytest.raises(ValueError, match="a rate is above 0 and a momentum at least 0"):
            modules.train(one, here.X, here.y, kind(epochs=3, **how), (0,), *rest)


def test_training_imports_no_compiler():
    """Each process that trains would take some two seconds longer."""
    code = """if True:
        import sys
        import numpy as np
        from mialib.models import modules
        net = modules.cnn((3, 20, 20), 4, (3, 4), 12, 0.2, (0, "net"))
        modules.train(net, np.zeros((4, 3, 20, 20), np.uint8), np.arange(4), modules.Descent(1, 0.1, 2), (0,))
        assert "torch._dynamo" not in sys.modules
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=config.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_validation_records_go_with_plateaus_alone():
    here, one = data(), net()
    plateaus = modules.Plateaus(1, 0.03, 1e-4, 5)
    for descent, more in ((plateaus, ()), (modules.Descent(1, 0.03), ((here.X, here.y),))):
        with pytest.raises(ValueError, match="Plateaus take validation records, and nothing else does"):
            modules.train(one, here.X, here.y, descent, (0, "order"), *more)
    with pytest.raises(ValueError, match="at least one image, of uint8"):
        modules.train(one, here.X, here.y, plateaus, (0, "order"), (here.X[:0], here.y[:0]))


def test_mean_auc_against_a_loop():
    rng = np.random.default_rng(0)
    scores, member = rng.integers(0, 6, (2, 40)).astype(float), np.arange(40) % 2 == 0
    wanted = [np.mean((s[member][:, None] > s[~member]) + 0.5 * (s[member][:, None] == s[~member])) for s in scores]
    assert experiments.mean_auc(scores, member) == pytest.approx(np.mean(wanted))


def test_several_trained_together_are_those_trained_alone(monkeypatch):
    here, about = data(), modules.Descent(2, 0.03)
    jobs = [(net(i), here.X[:100], here.y[:100], about, (i, "order")) for i in range(2)]
    alone = [modules.train(*job) for job in jobs]
    for one, other in zip(alone, modules.train_all(jobs), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    # Where the processor multiplies otherwise, another network is trained and kept, and not a very different one.
    other = {"bfloat16": "float32", "float32": "bfloat16"}[machine.precision()]
    monkeypatch.setattr(machine, "precision", lambda device="cpu": other)
    again = modules.train(*jobs[0]).fc2.weight
    assert not torch.equal(again, alone[0].fc2.weight) and torch.allclose(again, alone[0].fc2.weight, atol=0.01)


@pytest.mark.parametrize("profile", ["demo", "laptop", "paper"])
def test_sizes_fit_the_data(profile):
    about, n = experiments.size(profile), 1797 if profile == "demo" else 60000
    [target], sides = splits.targets_and_shadows(n, about.size + about.stopping, 1, about.shadows, 0)
    for side in sides:
        assert not np.intersect1d(np.r_[side.members, side.non_members], np.r_[target.members, target.non_members]).size
    parts = experiments.drawn(target, (about.asked, about.validated, about.known), 0, "x")
    assert [len(rows) for rows, _ in parts] == [2 * about.asked, 2 * about.validated, 2 * about.known]
    if profile != "demo":  # of the released code's 60,000 records
        assert 2 * (2 * about.size + 2 * about.stopping) == n and 2 * about.known == 21000 and 2 * about.asked == 5000


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("MIALIB_CACHE", str(tmp_path_factory.mktemp("alignment")))
    patch.setenv("MIALIB_WORKERS", "1")
    about = dataclasses.replace(ABOUT, targets=2, epochs=4)
    yield experiments.train(data(), about, 0), about
    patch.undo()


def test_shadows_are_realigned_to_the_target_that_is_asked(networks, monkeypatch):
    """Shadows that are permuted copies of the first target look like it when re-aligned to it, and to it alone."""
    given, about = networks
    shuffled = alignment.permuted(given.targets[0], orders_of((3, 4, 12), 99))
    given = dataclasses.replace(given, targets=[given.targets[0], shuffled])
    copies = [alignment.permuted(given.targets[0], orders_of((3, 4, 12), i)) for i in range(about.shadows)]
    given = dataclasses.replace(given, shadows=given.shadows | {experiments.INDEPENDENT: copies})
    calls = {}

    def recorded(taught, check, asked, kinds, about, words):
        calls.setdefault(words[-1], []).append(taught[""][0].features[experiments.GRADIENTS].gradients[0][1])
        shape = (about.targets if len(asked.member) > 2 * about.asked else 1) * 2 * about.asked
        return {(kind, ""): np.zeros(shape) for kind in kinds}

    monkeypatch.setattr(experiments, "_answers", recorded)
    experiments.attack(given, data(), about, 0)
    known, _ = experiments.shadows([given.targets[0]] * about.shadows, given.sides, data(), about, 0)
    wanted = known[0].features[experiments.GRADIENTS].gradients[0][1]
    for name in experiments.REALIGNED:
        first, second = calls[name]
        np.testing.assert_allclose(first, wanted, atol=1e-5)
        assert not np.allclose(second, wanted, atol=1e-3)
    assert not np.allclose(calls[experiments.INDEPENDENT][0], wanted, atol=1e-3)


def orders_of(units, seed):
    rng = np.random.default_rng(seed)
    return [rng.permutation(n) for n in units]


@pytest.fixture(scope="module")
def answers(networks):
    given, about = networks
    return experiments.attack(given, data(), about, 0)


def test_numbers_are_those_of_scikit_learn_and_of_the_gap(answers, networks):
    given, about = networks
    table = exhibits.measured(answers, about, 0).set_index(["attacker", "features", "metric"])
    member = np.arange(2 * about.asked) % 2 == 0
    for attacker, kind, part in answers:
        aucs = [roc_auc_score(member, scores) for scores in answers[attacker, kind, part]]
        column = "half" if part else "value"
        assert table.loc[(attacker, kind, "auc"), column] == pytest.approx(np.mean(aucs))
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()
    rows, _ = experiments.drawn(given.target, (about.asked,), 0, experiments.PAPER, "of the target")[0]
    with torch.no_grad():
        x = torch.from_numpy(modules.scaled(data().X[rows]))
        hits = np.array([given.targets[i](x).argmax(1).numpy() == data().y[rows] for i in range(2)])
    gap = (1 + hits[:, member].mean() - hits[:, ~member].mean()) / 2
    for metric in ("auc", "acc"):
        assert table.loc[(experiments.GAP, experiments.OUTPUTS, metric), "value"] == pytest.approx(gap)


def test_gains_are_differences_on_the_same_records(answers, networks):
    about = networks[1]
    value = exhibits.measured(answers, about, 0).set_index(["attacker", "features", "metric"])["value"]
    table = exhibits.gains(answers, about, 0)
    for (name, row), (one, other) in zip(table.iterrows(), exhibits.GAINS, strict=True):
        assert row["value"] == pytest.approx(value[(*one, "auc")] - value[(*other, "auc")])
        assert name == f"{one[1]}, {one[0]} against {other[1]}, {other[0]}"
        assert row["leaves zero"] == (row["low"] > 0 or row["high"] < 0)
    same = {key: answers[exhibits.INDEPENDENT, exhibits.OUTPUTS, ""] for key in answers}
    assert (exhibits.gains(same, about, 0)[["value", "low", "high"]] == 0).all(axis=None)


def accuracies(train=0.995, test=0.67):
    index = pd.MultiIndex.from_product([["target"], range(2)], names=["networks", "number"])
    table = pd.DataFrame({"train": [train + 0.002, train - 0.002], "test": [test, test]}, index=index)
    table.attrs["records"] = 14000
    return table


def printed(answers, networks):
    """`measured`, with narrow intervals about the printed numbers, and .7 where nothing is printed."""
    table = exhibits.measured(answers, networks[1], 0)
    known = published.load(exhibits.TABLE).set_index(["setting", "metric"])["published"]
    kinds = table["features"].replace(experiments.OF_THE_LOSS, experiments.GRADIENTS)
    keys = zip(kinds + ", " + table["attacker"], "attack_" + table["metric"], strict=True)
    value = np.array([known.get(key, 0.7) for key in keys])
    half = table["half"].where(table["half"].isna(), value - 0.02)
    return table.assign(value=value, low=value - 0.01, high=value + 0.01, half=half)


def verdicts(table, about, answers, networks, profile="laptop"):
    real = dataclasses.replace(data(), tier="R")
    cells = exhibits.compare(table, about, exhibits.gains(answers, networks[1], 0), real, profile)
    json.dumps(cells, allow_nan=False)
    assert len({(cell["setting"], cell["metric"]) for cell in cells}) == len(cells)
    assert len(published.primary(cells)) == len(published.load(exhibits.TABLE))
    return {(cell["setting"], cell["metric"]): cell for cell in cells}


def test_printed_numbers_are_reproduced_where_ours_are_the_same_quantity(answers, networks):
    found = verdicts(printed(answers, networks), accuracies(), answers, networks)
    assert {cell["verdict"] for cell in found.values() if cell["primary"]} == {"reproduced"}
    of_the_loss = [cell for cell in found.values() if cell["setting"].endswith(", gradients of the loss")]
    assert len(of_the_loss) == 2 * len(experiments.BESIDE)
    assert {cell["cause"] for cell in of_the_loss} == {"another quantity: gradients of the loss"}
    assert {cell["published"] for cell in of_the_loss} <= {0.789, 0.724, 0.834, 0.769}
    assert found[experiments.GAP, "attack_auc"]["verdict"] == "not comparable"
    assert found[f"{exhibits.GAINS[0][0][1]}, independent shadows against outputs, independent shadows", "gain_auc"]
    demo = verdicts(printed(answers, networks), accuracies(), answers, networks, "demo")
    assert {cell["verdict"] for cell in demo.values()} == {"not comparable"}


def test_half_as_much_known_must_give_the_same(answers, networks):
    table = printed(answers, networks)
    here = (table["attacker"] == experiments.SAME) & (table["features"] == experiments.GRADIENTS)
    table.loc[here & (table["metric"] == "auc"), "half"] -= 0.001
    found = verdicts(table, accuracies(), answers, networks)
    for metric in ("attack_auc", "attack_acc"):
        cell = found["gradients, same initialisation", metric]
        assert cell["verdict"] == "not comparable" and "with half as much known the AUC is .801" in cell["cause"]
    assert found["outputs, same initialisation", "attack_auc"]["verdict"] == "reproduced"
    unasked = verdicts(table.assign(half=np.nan), accuracies(), answers, networks)
    assert unasked["outputs, same initialisation", "attack_auc"]["verdict"] == "not comparable"


@pytest.mark.parametrize(
    ("train", "test", "near"), [(0.979, 0.695, True), (0.978, 0.675, False), (0.999, 0.696, False)]
)
def test_attacks_are_held_against_targets_at_the_printed_accuracies(train, test, near, answers, networks):
    said = exhibits.operating(accuracies(train, test))
    assert (said == "") == near
    found = verdicts(printed(answers, networks), accuracies(train, test), answers, networks)
    attacks = [cell for cell in found.values() if cell["primary"] and cell["setting"] != "target"]
    assert len(attacks) == 16
    assert all((cell["verdict"] == "reproduced") == near and said in cell["cause"] for cell in attacks)
    drawn = exhibits.panels(printed(answers, networks), accuracies(train, test), "R")
    assert drawn["panel"].str.endswith("*").all() == (not near)


def test_all_are_shown(answers, networks):
    given, about = networks
    table = exhibits.measured(answers, about, 0)
    shown = exhibits.wide(table)
    assert len(shown) == 1 + 2 * 3 + 2 + 2 and list(shown.columns) == [
        "AUC", "accuracy", "target 0", "target 1", "AUC, half known",
    ]  # fmt: skip
    drawn = exhibits.panels(table, accuracies(), "R")
    assert len(drawn) == len(shown) - 1 and drawn["gap"].nunique() == 1
    assert drawn.groupby("panel")["published"].count().to_dict() == {
        "outputs": 3, "gradients\nas released": 5, "gradients\nof the loss": 0,
    }  # fmt: skip
    plots.dots(drawn, "AUC")
    learnt = exhibits.learnt(given, data())
    assert learnt.index.get_level_values(0).value_counts().to_dict() == {
        "target": 2, experiments.INDEPENDENT: 3, experiments.SAME: 3,
    }  # fmt: skip
    apart = exhibits.distances(given)
    assert list(apart.columns) == ["conv1", "conv2", "fc1", "fc2"]
    for name in experiments.REALIGNED:
        assert apart.loc[name].sum() < apart.loc[experiments.INDEPENDENT].sum()
