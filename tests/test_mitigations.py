"""Mitigations: epsilon and gradients by other libraries, noise that hides all and none that leaks."""

import dataclasses

import numpy as np
import planted
import pytest
import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from scipy import stats
from sklearn.metrics import roc_auc_score

from mialib import runs
from mialib.attacks import defenses, memguard, references, signals
from mialib.data.datasets import Dataset
from mialib.models import accounting, adversarial, fit, private, small
from mialib.papers.jia2019 import exhibits, experiments

[ROW] = experiments.settings("demo")
ROW = dataclasses.replace(ROW, records=1000, known=200, owner=400, targets=3, pairs=6, shadows=4, epsilons=(16.0, 1.0))


# --- accounting -----------------------------------------------------------------------------------------------------


# Of dp-accounting 0.6.0, RdpAccountant with our orders, which takes the same two steps.
KNOWN = {
    (0.01, 1.1, 1000, 1e-5): 1.7252908180449444,
    (0.5, 1.85, 100, 1e-4): 15.967055960384922,
    (0.5, 17.64, 100, 1e-4): 0.9999327323741095,
    (0.2, 3.73, 300, 1e-4): 3.9936996935522813,
    (1.0, 8.04, 60, 1e-4): 3.9975691802268396,
}


@pytest.mark.parametrize("how", KNOWN)
def test_epsilon_is_that_of_another_accountant(how):
    assert accounting.epsilon(*how) == pytest.approx(KNOWN[how], rel=1e-9)


def test_epsilon_is_above_what_is_exact_without_sampling():
    """Balle & Wang 2018: the exact delta of a Gaussian; a thousand steps of deviation s are one of s / sqrt(1000)."""
    for noise, steps in ((5.0, 1), (30.0, 100), (200.0, 1000)):
        epsilon, wide = accounting.epsilon(1.0, noise, steps, 1e-5), noise / np.sqrt(steps)
        low, high = 1 / (2 * wide) - epsilon * wide, -1 / (2 * wide) - epsilon * wide
        delta = stats.norm.cdf(low) - np.exp(epsilon) * stats.norm.cdf(high)
        assert 1e-8 < delta < 1e-5  # so that it is a bound, and no loose one


def test_epsilon_moves_as_it_must():
    at = accounting.epsilon(0.1, 1.5, 200, 1e-5)
    assert accounting.epsilon(0.1, 2.0, 200, 1e-5) < at < accounting.epsilon(0.2, 1.5, 200, 1e-5)
    assert accounting.epsilon(0.1, 1.5, 200, 1e-3) < at < accounting.epsilon(0.1, 1.5, 400, 1e-5)
    assert accounting.epsilon(0.1, 900.0, 1, 0.5) == 0


@pytest.mark.parametrize("wanted", [0.25, 1.0, 4.0, 16.0])
def test_noise_gives_the_epsilon_that_was_asked_for_and_no_more(wanted):
    noise = accounting.noise_for(wanted, 0.5, 100, 1e-4)
    assert wanted * 0.998 < accounting.epsilon(0.5, noise, 100, 1e-4) <= wanted


def test_what_cannot_be_accounted_for_is_refused():
    for wrong in ((0.0, 1.0, 1, 1e-5), (1.1, 1.0, 1, 1e-5), (0.5, 0.0, 1, 1e-5)):
        with pytest.raises(ValueError, match="sampling rate"):
            accounting.epsilon(*wrong)
    for wrong in ((0.5, 1.0, 0, 1e-5), (0.5, 1.0, 1, 0.0), (0.5, 1.0, 1, 1.0)):
        with pytest.raises(ValueError, match="delta"):
            accounting.epsilon(*wrong)
    with pytest.raises(ValueError, match="no noise"):
        accounting.noise_for(1e-9, 0.5, 100, 1e-9)


@pytest.mark.parametrize("epsilon", [0.0, 0.25, 1.0, 4.0])
@pytest.mark.parametrize("delta", [0.0, 1e-2])
def test_bounds_are_the_best_of_all_tests_that_the_definition_allows(epsilon, delta):
    tpr, fpr = np.meshgrid(*[np.linspace(0, 1, 2001)] * 2)
    power = np.exp(epsilon)
    allowed = (tpr <= power * fpr + delta + 1e-12) & (1 - fpr <= power * (1 - tpr) + delta + 1e-12)
    best = ((tpr + 1 - fpr) / 2)[allowed].max()
    assert best <= accounting.most_accurate(epsilon, delta) + 1e-9 < best + 1e-3
    few = allowed & np.isclose(fpr, 0.01)
    assert tpr[few].max() <= accounting.most_found(epsilon, 0.01, delta) + 1e-9 < tpr[few].max() + 1e-3


def test_randomised_response_reaches_the_bound_and_the_slide_s_is_above():
    for epsilon in (0.25, 1.0, 4.0):
        true = np.exp(epsilon) / (1 + np.exp(epsilon))  # told the truth about one bit as often as epsilon allows
        assert accounting.most_accurate(epsilon) == pytest.approx(true)
        assert accounting.most_accurate(epsilon) < np.exp(epsilon) / 2


# --- DP-SGD ---------------------------------------------------------------------------------------------------------


def one_by_one(model, theta, X, y, clip):
    """Every record's gradient by autograd, clipped, in a sum; and their norms."""

    def loss(parameters, x, true):
        out, last = x, len(model.sizes) - 2
        for number, (weight, bias) in enumerate(small.layers(model, parameters)):
            out = out @ weight + bias
            if number < last:
                out = torch.tanh(out) if model.activation == "tanh" else torch.relu(out)
        return torch.logsumexp(out, 0) - (out * true).sum()

    each = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(theta, X, torch.eye(model.classes)[y])
    norms = each.norm(dim=1)
    return (each * (clip / norms).clamp_max(1)[:, None]).sum(0), norms


@pytest.mark.parametrize("sizes", [(7, 4), (7, 5, 4), (7, 6, 5, 4)])
@pytest.mark.parametrize("activation", small.ACTIVATIONS)
def test_clipped_gradients_are_those_of_autograd(sizes, activation):
    model, rng = small.MLP(sizes, activation), np.random.default_rng(0)
    theta = torch.from_numpy(small.initial(model, rng).astype(float))
    X, y = torch.from_numpy(rng.normal(size=(30, 7))), torch.from_numpy(rng.integers(4, size=30))
    norms = one_by_one(model, theta, X, y, np.inf)[1]
    for clip in (np.inf, float(norms.median()), float(norms.min()) / 3):
        wanted, _ = one_by_one(model, theta, X, y, clip)
        torch.testing.assert_close(private.clipped(model, theta, X, y, clip), wanted, rtol=1e-10, atol=1e-12)
    assert private.clipped(model, theta, X[:0], y[:0], 1.0).abs().max() == 0


def by_opacus(model, theta, X, y, clip, noise):
    """The gradient that Opacus hands to the optimiser, times the records that a step is expected to have."""
    parts = []
    for weight, bias in small.layers(model, theta):
        linear = torch.nn.Linear(*weight.shape, dtype=theta.dtype)
        linear.weight.data, linear.bias.data = weight.mT.clone(), bias.clone()
        parts += [linear, torch.nn.Tanh() if model.activation == "tanh" else torch.nn.ReLU()]
    net = GradSampleModule(torch.nn.Sequential(*parts[:-1]))
    about = {"noise_multiplier": noise, "max_grad_norm": clip, "expected_batch_size": len(y)}
    optimiser = DPOptimizer(torch.optim.SGD(net.parameters(), 1.0), **about)
    torch.nn.functional.cross_entropy(net(X), y).backward()
    optimiser.pre_step()
    return len(y) * torch.cat([each.grad.t().reshape(-1) for each in net.parameters()])


@pytest.mark.filterwarnings("ignore:Full backward hook")
@pytest.mark.parametrize("sizes", [(7, 4), (7, 6, 5, 4)])
@pytest.mark.parametrize("activation", small.ACTIVATIONS)
def test_clipped_gradients_are_those_of_opacus(sizes, activation):
    model, rng = small.MLP(sizes, activation), np.random.default_rng(2)
    theta = torch.from_numpy(small.initial(model, rng).astype(float))
    X, y = torch.from_numpy(rng.normal(size=(30, 7))), torch.from_numpy(rng.integers(4, size=30))
    norms = one_by_one(model, theta, X, y, np.inf)[1]
    for clip in (float(norms.median()), float(norms.min()) / 3):
        wanted = by_opacus(model, theta, X, y, clip, 0.0)
        # Opacus divides by the norm + 1e-6, so that a clipped gradient moves by 1e-6 at most.
        torch.testing.assert_close(private.clipped(model, theta, X, y, clip), wanted, rtol=0, atol=30e-6)


@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_noise_is_as_large_as_that_of_opacus(monkeypatch):
    model, rng, noise, clip, word = small.MLP((200, 40, 4)), np.random.default_rng(3), 2.5, 0.3, (0, "noise")
    X, y = rng.normal(size=(20, 200)).astype(np.float32), rng.integers(4, size=20)
    kept = []
    monkeypatch.setattr(torch, "_fused_adam_", lambda theta, gradient, *_, **__: kept.append(gradient[0].clone()))
    private.fit(model, private.Recipe(1, 1.0, len(y), noise, clip), X, y, word)
    theta = torch.from_numpy(small.initial(model, runs.stream(*word)))
    given = theta, torch.from_numpy(X), torch.from_numpy(y), clip
    silent = private.clipped(model, *given)
    ours, theirs = (whole - silent for whole in (len(y) * kept[0], by_opacus(model, *given, noise)))
    for drawn in (ours, theirs):
        assert drawn.std().item() == pytest.approx(noise * clip, rel=4 / np.sqrt(2 * len(theta)))
        assert abs(drawn.mean().item()) < 4 * noise * clip / np.sqrt(len(theta))
    assert abs(torch.corrcoef(torch.stack([ours, theirs]))[0, 1]) < 4 / np.sqrt(len(theta))


def test_no_record_adds_more_than_the_clipping_norm():
    model, rng = small.MLP((7, 5, 4)), np.random.default_rng(1)
    theta = torch.from_numpy(small.initial(model, rng).astype(float))
    X, y = torch.from_numpy(rng.normal(0, 50, (40, 7))), torch.from_numpy(rng.integers(4, size=40))
    whole = private.clipped(model, theta, X, y, 0.3)
    for i in range(40):
        rest = torch.arange(40) != i
        assert (whole - private.clipped(model, theta, X[rest], y[rest], 0.3)).norm() <= 0.3 * (1 + 1e-9)


def leaky(n=240, d=30, classes=4):
    data = planted.dataset(0.9, n, d, classes)
    return data.X, data.y


def test_without_noise_and_clipping_it_is_plain_training():
    X, y = leaky()
    model, rows, word = small.MLP((30, 12, 4)), np.arange(200), (0, "a")
    recipe = private.Recipe(60, 1.0, len(rows), 0.0, np.inf, 1e-2)
    [theta] = private.fit_many(model, recipe, X, y, [rows], [word])
    # Plain training takes all records at once, in another order each time; initial weights are drawn first by both.
    plain = fit.fit_many(model, fit.Recipe(60, 200, 1e-2, decay=0.0), X, y, [rows], [word], "serial")[0]
    np.testing.assert_allclose(theta, plain, atol=2e-4)
    assert np.abs(theta - small.initial(model, np.random.default_rng(0))).max() > 0.1


def auc_of_members(noise, seeds=6):
    X, y = leaky()
    model, found = small.MLP((30, 12, 4)), []
    for seed in range(seeds):
        member = np.random.default_rng(seed).random(len(y)) < 0.5
        recipe = private.Recipe(150, 0.5, 60, noise, 1.0, 2e-2)
        [theta] = private.fit_many(model, recipe, X, y, [np.flatnonzero(member)], [(seed, "auc")])
        signal = references.phi(small.logits(model, theta, X)[None, :, None], y)[0, :, 0]
        found.append(roc_auc_score(member, signal))
    return np.mean(found), np.sqrt(1 / (6 * len(y) / 2 * seeds))


def test_noise_hides_members_and_clipping_alone_does_not():
    found, deviation = auc_of_members(1000.0)
    assert abs(found - 0.5) < 4 * deviation
    assert auc_of_members(0.0)[0] > 0.75


def test_what_private_training_refuses():
    for wrong in ({"steps": 0}, {"rate": 0.0}, {"rate": 1.5}, {"size": 0.0}, {"noise": -1.0}, {"clip": np.inf}):
        with pytest.raises(ValueError, match=r"no such training|infinite"):
            private.Recipe(**({"steps": 5, "rate": 0.5, "size": 10.0, "noise": 1.0} | wrong))
    X, y, recipe = *leaky(), private.Recipe(2, 0.5, 10, 0.0)
    with pytest.raises(ValueError, match="MLPs"):
        private.fit_many(small.CNN((1, 28, 28), 4), recipe, X, y, [np.arange(9)], [(0,)])
    with pytest.raises(ValueError, match="features"):
        private.fit_many(small.MLP((31, 4)), recipe, X, y, [np.arange(9)], [(0,)])


# --- adversarial regularisation -------------------------------------------------------------------------------------


def adversarial_model(weight, reference, epochs=60):
    X, y = leaky()
    model, recipe = small.MLP((30, 24, 4)), adversarial.Recipe(epochs, weight, 50, 5e-3)
    [theta] = adversarial.fit_many(model, recipe, X, y, [np.arange(100)], reference, [(0, "adv")])
    return theta, (small.logits(model, theta, X).argmax(1) == y)[:100].mean()


def test_its_weight_is_what_trains_against_the_attack():
    here, there = np.arange(100, 200), np.arange(140, 240)
    free, accuracy = adversarial_model(0.0, here)
    np.testing.assert_array_equal(free, adversarial_model(0.0, there)[0])  # without weight nobody asks the reference
    assert np.abs(adversarial_model(2.0, here, 5)[0] - adversarial_model(2.0, there, 5)[0]).max() > 1e-4
    assert accuracy > 0.6 and adversarial_model(20.0, here)[1] < accuracy - 0.1


def test_gain_is_the_paper_s():
    members, others = torch.tensor([0.3, -2.0, 5.0]), torch.tensor([1.0, -4.0])
    h, g = 1 / (1 + np.exp(-members.numpy())), 1 / (1 + np.exp(-others.numpy()))
    assert float(adversarial.gain(members, others)) == pytest.approx((np.log(h).mean() + np.log(1 - g).mean()) / 2)


def test_a_reference_record_trains_no_model():
    with pytest.raises(ValueError, match="no model may be trained"):
        adversarial_model(1.0, np.arange(99, 120))
    with pytest.raises(ValueError, match="no such training"):
        adversarial.Recipe(0, 1.0)


# --- MemGuard -------------------------------------------------------------------------------------------------------


def guarded(n=300, classes=5, seed=0):
    rng = np.random.default_rng(seed)
    member = np.arange(n) % 2 == 0
    logits = rng.normal(0, 1, (n, classes)).astype(np.float32)
    logits[np.arange(n), rng.integers(classes, size=n)] += np.where(member, 6, 2)
    [theta] = memguard.guard([logits], [member], (seed, "guard"))
    return logits, member, theta


def right(theta, vectors, member):
    model = memguard.classifier(vectors.shape[1])
    odds = np.diff(small.logits(model, theta, np.sort(vectors, axis=1)))[:, 0]
    return ((odds > 0) == member).mean()


def test_memguard_misleads_its_classifier_and_keeps_labels_and_budget():
    logits, member, theta = guarded()
    plain = small.softmax(logits)
    assert right(theta, plain, member) > 0.9
    noisy = memguard.noisy(logits, theta)
    assert right(theta, noisy, member) < 0.3  # all that could be moved are on the other side
    distance = np.abs(noisy - plain).sum(1)
    for budget in (0.0, 0.1, 2.0):
        given = [memguard.defend(logits, theta, budget, np.random.default_rng(i)) for i in range(4)]
        for vectors in given:
            np.testing.assert_array_equal(vectors.argmax(1), plain.argmax(1))
            np.testing.assert_allclose(vectors.sum(1), 1, atol=1e-5)
        expected = np.mean([np.abs(vectors - plain).sum(1) for vectors in given], axis=0)
        assert (expected <= np.minimum(budget, distance) + 4 * distance / np.sqrt(4)).all()
        assert expected.mean() <= budget + 1e-9 or budget == 0.1
    np.testing.assert_array_equal(memguard.defend(logits, theta, 0.0, np.random.default_rng(0)), plain)
    np.testing.assert_array_equal(given[0], memguard.defend(logits, theta, 2.0, np.random.default_rng(0)))
    with pytest.raises(ValueError, match="budget"):
        memguard.defend(logits, theta, 2.1, np.random.default_rng(0))


def test_each_owner_has_a_classifier_of_her_own():
    logits, member, theta = guarded()
    both = memguard.guard([logits, logits[:200]], [member, ~member[:200]], (0, "guard"))
    np.testing.assert_array_equal(both[0], theta)
    assert right(both[1], small.softmax(logits[:200]), ~member[:200]) > 0.8


# --- the game -------------------------------------------------------------------------------------------------------


def game(row=ROW, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    n = row.records + row.owner
    X, y = rng.integers(2, size=(n, 12)).astype(np.uint8), rng.integers(classes, size=n)
    return experiments.draw(Dataset("location-30", X, y, classes, "M", "simulated", "0"), row, seed)


def seen(of, leak, name="none", family="none", classes=4, seed=0):
    """Answers of models that are `leak` surer of their members, of records that differ in how hard they are."""
    rng = np.random.default_rng(seed)
    n = len(of.y)
    logits = rng.normal(0, 0.3, (*of.member.shape, classes))
    own = rng.normal(2, 3, n) + rng.normal(0, 0.5, of.member.shape) + leak * of.member
    logits[:, np.arange(n), of.y] += own
    asked = of.row.records - of.row.known
    right = rng.normal(0, 1, (of.row.targets + 2, asked)) + leak * of.member[: of.row.targets + 2, :asked]
    defence = experiments.Defence(name, family)
    vectors = np.stack([experiments.OUTPUTS.get(name, defenses.none)(each) for each in logits.astype(np.float32)])
    return experiments.Defended(defence, vectors, right)


def auc(of, defended, attacks=experiments.ATTACKS):
    found, asked = experiments.attack(of, defended, 0), of.row.records - of.row.known
    numbers = {}
    for name in attacks:
        each = [roc_auc_score(of.member[m, :asked], result.score) for m, result in enumerate(found[name])]
        numbers[name] = np.mean(each)
    return numbers


def test_members_are_drawn_by_coins_and_the_owner_s_records_train_nothing():
    of = game()
    assert of.member.shape == (3 + 12, 1400) and not of.member[:, 1000:].any()
    np.testing.assert_array_equal(of.member[3::2, :1000], ~of.member[4::2, :1000])
    assert len(np.unique(of.rows)) == 1400
    shares = of.member[:, :1000].mean(1)
    assert len(set(shares)) > 3 and (np.abs(shares - 0.5) < 4 * 0.5 / np.sqrt(1000)).all()
    assert [*of.targets, *of.judges, *of.references] == list(range(15))
    for wrong in ({"owner": 10**6}, {"known": 0}, {"known": 1000}, {"pairs": 2}):
        with pytest.raises(ValueError, match="known"):
            game_row = dataclasses.replace(ROW, **wrong)
            data = Dataset("location-30", np.zeros((1500, 3), np.uint8), np.zeros(1500, int), 4, "M", "", "0")
            experiments.draw(data, game_row, 0)


def test_phi_of_vectors_is_that_of_logits_and_a_temperature_is_taken_back():
    rng = np.random.default_rng(0)
    logits, y = rng.normal(0, 3, (2, 200, 4)).astype(np.float32), rng.integers(4, size=200)
    wanted = references.phi(logits[:, :, None], y)[..., 0]
    near = np.abs(wanted) < 9
    assert near.mean() > 0.8
    np.testing.assert_allclose(signals.log_odds(small.softmax(logits), y)[near], wanted[near], atol=2e-3)
    cold = np.stack([defenses.sharpened(defenses.temperature(each, 20.0), 20.0) for each in logits])
    np.testing.assert_allclose(cold, small.softmax(logits), atol=1e-5)
    top = np.stack([defenses.top_k(each, 1) for each in logits])
    said = signals.log_odds(top, y)
    first = logits.argmax(-1) == y
    np.testing.assert_allclose(said[first & near], wanted[first & near], atol=2e-3)
    assert (said[~first] == np.log(signals.LEAST)).all()


def test_where_nothing_leaks_every_attack_guesses():
    of = game()
    deviation = np.sqrt(1 / (6 * 400 * 3))
    for name in ("none", "label only", "rounded to 1 digit"):
        for attack, found in auc(of, seen(of, 0.0, name)).items():
            assert abs(found - 0.5) < 4.5 * deviation, (name, attack, found)


def test_a_planted_leak_is_found_and_output_defences_leave_it_to_attacks_that_know_them():
    of = game()
    plain, hot, label = (auc(of, seen(of, 2.0, name)) for name in ("none", "temperature 20", "label only"))
    assert min(plain[name] for name in ("LiRA online", "LiRA offline", "label-only noise")) > 0.85
    assert plain["gap"] < 0.65 and plain["confidence threshold"] < 0.75
    for name in experiments.CALIBRATED:
        assert hot[name] == pytest.approx(plain[name], abs=0.01)
    assert label["label-only noise"] == plain["label-only noise"] and label["LiRA online"] < 0.7


def test_no_attack_looks_at_who_of_the_asked_is_a_member():
    of = game()
    defended, asked = seen(of, 1.0), ROW.records - ROW.known
    member = of.member.copy()
    member[:3, :asked] = ~member[:3, :asked]
    before, after = (experiments.attack(each, defended, 0) for each in (of, dataclasses.replace(of, member=member)))
    for name in experiments.ATTACKS:
        for one, other in zip(before[name], after[name], strict=True):
            np.testing.assert_array_equal(one.score, other.score)
            np.testing.assert_array_equal(one.predicted, other.predicted)


# --- trained, attacked, shown ---------------------------------------------------------------------------------------

TINY = dataclasses.replace(
    ROW, records=400, known=80, owner=100, targets=3, pairs=4, hidden=32, epochs=250, weights=(1.0,), copies=5, steps=60
)


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIALIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        of, found = experiments.observe(planted.dataset(0.6, 500), TINY, 0)
        return of, found, exhibits.measured(of, found, "R", 0)


def test_every_defence_is_there_once_and_training_is_private_as_said(everything):
    _, found, _ = everything
    names = [each.defence.name for each in found]
    assert names == list(dict.fromkeys(names)) and names[0] == "none" and len(names) == 1 + 5 + 1 + 1 + 3 + 1
    assert {each.defence.family for each in found} == set(experiments.FAMILIES)
    for each in found:
        assert each.vectors.shape == (11, 500, 4) and each.right.shape == (5, 320)
    recipe = experiments.private_recipe(TINY, 1.0)
    assert accounting.epsilon(recipe.rate, recipe.noise, recipe.steps, TINY.delta) <= 1
    assert recipe.size == TINY.rate * 200 and experiments.private_recipe(TINY, np.inf).noise == 0
    by = {each.defence.name: each for each in found}
    for name in ("label only", "MemGuard"):
        np.testing.assert_array_equal(by[name].vectors.argmax(-1), by["none"].vectors.argmax(-1))


def test_noise_robustness_is_that_of_a_loop(everything):
    of, found, _ = everything
    model, thetas = experiments.train(planted.dataset(0.6, 500), of, found[0].defence, 0)
    X = planted.dataset(0.6, 500).X[of.rows]
    rng_words = (0, experiments.PAPER, "noise", 0)
    every = experiments._right(model, thetas[0], X[:320], of.y[:320], TINY.flips, 5, rng_words)[0]
    assert every.shape == (len(TINY.flips), 2, 320)
    assert any(np.array_equal(found[0].right[0], share) for share in every[:, 0])


def test_a_trained_leak_is_found_and_dp_sgd_is_within_its_bound(everything):
    _, _, table = everything
    value = table.set_index(["defence", "attack", "metric"])[["value", "low"]]
    assert value.loc["none", "LiRA online", "auc"]["value"] > 0.7
    train, test = (value.loc["clipping alone", "target", f"{side}_acc"]["value"] for side in ("train", "test"))
    assert train - test > 0.05  # it learns its members without noise
    for attack in experiments.ATTACKS:
        found = value.loc["DP-SGD, epsilon 1", attack, "balanced_accuracy"]
        assert found["low"] < accounting.most_accurate(1.0, TINY.delta)


def test_tables_cells_and_figures(everything):
    of, found, table = everything
    assert len(table) == len(found) * (2 + len(experiments.ATTACKS) * len(exhibits.SHOWN))
    overview = exhibits.overview(TINY, table).set_index("defence")
    assert list(overview.index) == [each.defence.name for each in found]
    assert overview.loc["DP-SGD, epsilon 1", "bound"] == accounting.most_accurate(1.0, TINY.delta)
    assert overview["epsilon"].notna().sum() == 2 and overview["slide"].isna().all()
    learnt = experiments.learnt(of, found[0])
    assert overview.loc["none", "test_acc"] == pytest.approx(np.mean([each["test_acc"] for each in learnt]))
    shown = exhibits.wide(table, "tpr_at_1")
    assert list(shown.columns) == ["test accuracy", *experiments.ATTACKS] and len(shown) == len(found)
    best = exhibits.strongest(table).set_index("defence")
    here = table[(table["defence"] == "MemGuard") & (table["metric"] == "tpr_at_1")]
    assert best.loc["MemGuard", "tpr_at_1"] == here["value"].max()
    cells = exhibits.compare(TINY, table, "laptop")
    met = {(c["dataset"], c["setting"], c["metric"]): c for c in cells}
    assert len(met) == len(cells) == 21 - 3 + 1 + len(table) - 2 + 2 * len(found) + 2
    assert met["Location", "none, NN", "attack_acc"]["verdict"] == "not comparable"
    assert met["Location", "none, target", "target_test_acc"]["published"] == 0.6032
    assert "demo profile" in exhibits.compare(TINY, table, "demo")[1]["cause"]
    figure = exhibits.diagram(TINY, table)
    assert [ax.get_title() for ax in figure.axes] == [*exhibits.DRAWN, "", "", "", ""]
    assert len(figure.legends[0].get_texts()) == 2 + len(exhibits.LOOKS) + len(exhibits.MARKS)
    assert "3 targets, attacked with 8 models" in exhibits.caption(TINY)
    assert len(exhibits.printed_diagram(exhibits.printed()).axes) == 2


def test_sizes_are_there_for_every_profile():
    rows = [experiments.settings(profile)[0] for profile in ("demo", "laptop", "paper")]
    assert all(row.shadows <= 2 * row.pairs - 2 and row.known < row.records for row in rows)
    assert rows[1].epsilons == rows[2].epsilons == (16, 4, 1, 0.25)  # of the slide
    with pytest.raises(ValueError, match="unknown profile"):
        experiments.settings("tiny")
