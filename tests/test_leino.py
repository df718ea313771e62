"""Leino & Fredrikson's attacks on linear targets: against literal loops, closed forms, and targets that cannot leak."""

import math

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression

from mialib import metrics
from mialib.attacks import leino
from mialib.papers.leino2020 import exhibits, experiments
from mialib.papers.leino2020.experiments import Drawn, Gaussian, Network, Row
from mialib.results import published, tables

GAUSSIAN = Gaussian(40, 50, 1500)


def data(n=300, d=12, classes=3, noise=0.3, seed=0):
    """Clustered records; `noise` of the labels are random, so that a linear model can only memorise them."""
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=n)
    X = rng.standard_normal((classes, d))[y] + rng.standard_normal((n, d))
    return X, np.where(rng.random(n) < noise, rng.integers(classes, size=n), y)


def fitted(X, y, C=1.0):
    return LogisticRegression(C=C, max_iter=2000).fit(X, y)


def planted(noise, n=900, d=100, classes=4, seed=0):
    X, y = data(n, d, classes, noise, seed)
    return experiments.Dataset("adult", X, y, classes, "M", "simulated", f"{noise}{n}{d}{seed}")


# --- the attack -----------------------------------------------------------------------------------------------------


def test_bayes_wb_is_the_sum_that_its_docstring_says():
    """Three classes, three proxies: a loop over records and features."""
    X, y = data()
    target, proxies = fitted(X[:100], y[:100]), [fitted(X[at : at + 60], y[at : at + 60]) for at in (100, 160, 220)]
    found = leino.bayes_wb(target, proxies, X, y, threshold=0.25)
    for i in range(0, len(X), 7):
        log_odds = target.intercept_[y[i]] - np.mean([proxy.intercept_[y[i]] for proxy in proxies])
        for j in range(X.shape[1]):
            log_odds += (target.coef_[y[i], j] - np.mean([proxy.coef_[y[i], j] for proxy in proxies])) * X[i, j]
        assert found.score[i] == pytest.approx(log_odds - 0.25)
    assert (found.predicted == (found.score > 0)).all()


def test_log_odds_are_those_of_two_normal_densities():
    """Where the proxy knows the population: log N(x; own mean) - log N(x; mean), features independent."""
    rng = np.random.default_rng(1)
    own, means, variance = rng.standard_normal((2, 5)), rng.standard_normal((2, 5)), rng.uniform(0.5, 2, 5)
    X, y = rng.standard_normal((40, 5)), rng.integers(2, size=40)
    target, proxy = ((mu / variance, -(mu**2 / variance).sum(1) / 2 + math.log(0.5)) for mu in (own, means))
    expected = (norm.logpdf(X, own[y], variance**0.5) - norm.logpdf(X, means[y], variance**0.5)).sum(1)
    assert leino.bayes_wb(target, [proxy], X, y).score == pytest.approx(expected)


@pytest.mark.parametrize("classes", [2, 3])
def test_scikit_learn_and_pytorch_are_read_alike(classes):
    X, y = data(classes=classes)
    model = fitted(X, y)
    weights, biases = leino.linear(model)
    assert weights.shape == (classes, X.shape[1]) and weights.sum(0) == pytest.approx(0, abs=1e-6)
    logits = X @ weights.T + biases
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert softmax == pytest.approx(model.predict_proba(X), abs=1e-6)
    layer = torch.nn.Linear(X.shape[1], classes)
    with torch.no_grad():  # one vector added to all classes is the same model
        layer.weight.copy_(torch.from_numpy(weights + 3))
        layer.bias.copy_(torch.from_numpy(biases - 2))
    for copy in (layer, torch.nn.Sequential(torch.nn.Flatten(), layer, torch.nn.Softmax(1))):
        assert leino.linear(copy)[0] == pytest.approx(weights, abs=1e-5)
    sparse = leino.bayes_wb(model, [layer], scipy.sparse.csr_matrix(X), y)
    assert leino.bayes_wb(model, [layer], X, y).score == pytest.approx(sparse.score)
    single = torch.nn.Linear(4, 1)
    halves, _ = leino.linear(single)
    assert halves == pytest.approx(np.outer([-0.5, 0.5], single.weight.detach().numpy()[0]))


X3, Y3 = data()
OWN = (np.ones((3, 12)), np.zeros(3))
BAD = [
    (lambda: leino.bayes_wb("model", [OWN], X3, Y3), "str cannot be read as a linear model: give a fitted Log"),
    (lambda: leino.bayes_wb(LogisticRegression(), [OWN], X3, Y3), "LogisticRegression cannot be read"),
    (lambda: leino.bayes_wb(OWN, [], X3, Y3), "proxies must be a list of at least one model"),
    (lambda: leino.bayes_wb(OWN, OWN, X3, Y3), "proxies must be a list"),
    (lambda: leino.bayes_wb(OWN, [(np.ones((3, 9)), np.zeros(3))], X3, Y3), r"of \(3, 12\), the proxies \(3, 9\)"),
    (lambda: leino.bayes_wb(OWN, [OWN, (np.ones((2, 12)), np.zeros(2))], X3, Y3), "proxies must have weights of one"),
    (lambda: leino.bayes_wb(OWN, [OWN], X3[:, :5], Y3), "the models have 12 features, the records 5"),
    (lambda: leino.bayes_wb(OWN, [OWN], X3, Y3 + 1), "labels run from 1 to 3, the classes from 0 to 2"),
    (lambda: leino.bayes_wb(OWN, [OWN], X3, Y3[:9]), "y has 9 values for 300 records"),
    (lambda: leino.linear((np.ones((3, 12)), np.zeros(2))), r"got \(3, 12\), \(2,\)"),
    (lambda: leino.linear((np.full((3, 12), np.nan), np.zeros(3))), "not finite"),
    (
        lambda: leino.linear(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))),
        "one torch.nn.Linear and no other layer, this one has: Linear, ReLU, Linear",
    ),
    (lambda: leino.threshold_of([]), "give at least one shadow"),
    (lambda: leino.displacement([leino.Shadow(OWN, [OWN], X3, Y3, Y3 >= 0)], (0,)), "members and non-members"),
    (
        lambda: leino.displacement(
            [leino.Shadow(of, [of], X3[:, : of[0].shape[1]], Y3, Y3 > 0) for of in (OWN, (OWN[0][:, :9], OWN[1]))],
            (0,),
        ),
        r"as many features each: got \[9, 12\]",
    ),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_gives_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


# --- the Gaussian, whose answers are known --------------------------------------------------------------------------


@pytest.mark.parametrize("setting", experiments.PROXIES)
def test_gaussian_meets_the_closed_forms(setting):
    drawn = experiments.drawn(GAUSSIAN, setting, 0)
    table = experiments.measured(drawn)
    assert (table["value"] - table["theory"]).abs().max() < 0.01
    best = table[(table["threshold"] == "shifted") & (table["metric"] == "accuracy")]["theory"].item()
    (share, count), root = experiments.PROXIES[setting], 0.5 * math.sqrt(40 / 50)
    root /= math.sqrt(2) if "softmax" in setting else math.sqrt(1 + 1 / (share * count))
    assert best == pytest.approx(norm.cdf(root))
    every = [experiments.closed_form(drawn, threshold)["accuracy"] for threshold in np.linspace(-1, 2, 301)]
    assert best == pytest.approx(max(every), abs=1e-4)


def test_a_proxy_no_larger_than_the_training_set_is_a_coin_on_non_members():
    for features in (10, 100, 1000):
        about = Drawn(Gaussian(features, 50, 0), "1 proxy", np.empty(0), np.empty(0))
        assert experiments.closed_form(about, 0.0)["tnr"] == pytest.approx(0.5)


def test_corrected_confidence_means_what_it_says_and_raw_does_not():
    drawn = experiments.drawn(Gaussian(200, 50, 400), "1 proxy", 0)
    table = experiments.reliability(drawn).set_index("confidence")
    off = (table["claimed"] - table["members"]).abs().groupby("confidence").max()
    assert off["corrected"] < 0.03 and off["raw"] > 0.2
    raw, corrected = experiments.sure(drawn).itertuples()
    assert raw.precision == pytest.approx(0.773, abs=0.02) and corrected.precision == pytest.approx(0.940, abs=0.02)
    assert raw.recall == pytest.approx(0.738, abs=0.02) and corrected.recall == pytest.approx(0.200, abs=0.02)


def gaussian_shadows(count, rng, spread, d=200, n=50):
    """Shadows with the best weights, of two classes, and one proxy each, on as many other records (n a class).

    spread: of the population's means, which each shadow has of its own.
    """
    found = []
    for _ in range(count):
        inside, outside, other = spread * rng.standard_normal((2, 1, d)) + rng.standard_normal((3, 2, n, d))
        target, proxy = ((means, -(means**2).sum(1) / 2) for means in (inside.mean(1), other.mean(1)))
        X, y = np.concatenate([inside, outside]).reshape(4 * n, d), np.tile(np.repeat([0, 1], n), 2)
        found.append(leino.Shadow(target, [proxy], X, y, np.arange(4 * n) < 2 * n))
    return found


def accuracy(shadows, answer):
    return np.mean([np.mean(answer(each).predicted == each.member) for each in shadows])


def test_what_is_learnt_on_shadows_comes_near_the_optimum():
    """The threshold by shadows nears the closed one, and general-wb, which is told nothing, the optimal accuracy."""
    rng = np.random.default_rng(0)
    shadows, asked = (gaussian_shadows(count, rng, spread=1) for count in (10, 30))
    best = norm.cdf(0.5 * math.sqrt(200 / 50) / math.sqrt(2))
    threshold = leino.threshold_of(shadows)
    assert threshold == pytest.approx(leino.shift(200, 50), abs=0.8)
    zero, shifted = (
        accuracy(asked, lambda s, t=t: leino.bayes_wb(s.target, s.proxies, s.X, s.y, t)) for t in (0.0, threshold)
    )
    assert zero < best - 0.03 and shifted == pytest.approx(best, abs=0.02)
    learnt = leino.displacement(shadows, (0, "test"))
    again = leino.displacement(shadows, (0, "test"))
    assert (learnt.theta == again.theta).all() and learnt.spread == again.spread
    found = accuracy(asked, lambda s: leino.general_wb(learnt, s.target, s.proxies, s.X, s.y))
    assert found == pytest.approx(best, abs=0.02)


def test_general_wb_learns_what_weights_are_usual():
    """Where all means are 0 a target's weight tells as much as the true mean would, and the proxy can be forgotten."""
    rng = np.random.default_rng(0)
    shadows, asked = (gaussian_shadows(count, rng, spread=0) for count in (10, 30))
    learnt = leino.displacement(shadows, (0, "test"))
    found = accuracy(asked, lambda s: leino.general_wb(learnt, s.target, s.proxies, s.X, s.y))
    assert found == pytest.approx(norm.cdf(0.5 * math.sqrt(200 / 50)), abs=0.02)


def descend_shadow_by_shadow(theta, inputs, asked, member):
    """What `leino._descend` is to give, as its docstring has it: every record by the weights of all classes."""
    theta, share = torch.from_numpy(theta).requires_grad_(), member.mean()
    adam = torch.optim.Adam([theta], leino.RATE, weight_decay=leino.DECAY)
    for _ in range(leino.STEPS):
        scores = []
        for pair, (X, y) in zip(inputs, asked, strict=True):
            weights, biases = leino._attack(theta, pair)
            X = torch.from_numpy(X.toarray() if scipy.sparse.issparse(X) else X).float()
            scores.append((X @ weights.T + biases)[torch.arange(len(y)), torch.from_numpy(y)])
        losses = torch.nn.functional.softplus(torch.cat(scores).double() * torch.from_numpy(1 - 2.0 * member))
        adam.zero_grad()
        (losses * torch.from_numpy(0.5 / np.where(member, share, 1 - share))).mean().backward()
        adam.step()
    return theta.detach().numpy()


def test_class_by_class_general_wb_learns_what_it_learns_from_all_classes(monkeypatch):
    """Two shadows, of 3 and 5 classes, one asked about sparse records, and a class that nobody is of."""
    shadows = []
    for classes, kind in ((3, np.asarray), (5, scipy.sparse.csr_array)):
        X, y = data(200, 12, classes, 0.5, classes)
        target, used, asked = fitted(X[:60], y[:60], 100.0), fitted(X[60:120], y[60:120]), np.flatnonzero(y != 1)
        shadows.append(leino.Shadow(target, [used], kind(X[asked]), y[asked], asked < 60))
    found = leino.displacement(shadows, (0, "test"))
    monkeypatch.setattr(leino, "_descend", descend_shadow_by_shadow)
    slow = leino.displacement(shadows, (0, "test"))
    assert found.spread == slow.spread and np.abs(found.theta).max() > 0.5
    assert found.theta == pytest.approx(slow.theta, abs=1e-3)
    for each in shadows:
        asked = each.target, each.proxies, each.X, each.y
        fast, by_all = (leino.general_wb(learnt, *asked).score for learnt in (found, slow))
        assert fast.std() > 0.1 and fast == pytest.approx(by_all, abs=1e-3)


# --- real tables ----------------------------------------------------------------------------------------------------


def test_parts_are_disjoint_alike_and_of_one_size():
    y = np.repeat([0, 1, 2], [100, 37, 20])
    parts = experiments.deal(y, 5, np.random.default_rng(0))
    assert {len(part) for part in parts} == {31} and len(np.unique(np.concatenate(parts))) == 155
    counts = np.array([np.bincount(y[part]) for part in parts])
    assert (np.ptp(counts, axis=0) <= 1).all()


@pytest.mark.parametrize("classes", [2, 4])
def test_records_that_weigh_more_make_the_model_that_repeated_ones_make(classes):
    """A bootstrap by weights, in float32, and by its rows, in float64: one model within the solver's tolerance."""
    X, y = data(300, 20, classes)
    at = experiments._again(y, np.arange(0, 300, 2), np.random.default_rng(0))
    assert len(np.unique(at)) < len(at)
    weights, biases = experiments._fit(X.astype(np.float32), y, at, 1.0, classes)
    rows = leino.linear(LogisticRegression(max_iter=5000).fit(X[at], y[at]))
    best = leino.linear(LogisticRegression(max_iter=5000, tol=1e-9).fit(X[at], y[at]))
    for found, slow, optimum in zip((weights, biases), rows, best, strict=True):
        assert found == pytest.approx(slow, abs=1e-4) and found == pytest.approx(optimum, abs=0.01)
    once = leino.linear(LogisticRegression(max_iter=5000).fit(X[np.unique(at)], y[np.unique(at)]))
    assert np.abs(once[0] - rows[0]).max() > 0.05  # so that the weights count


def summary(noise, C, targets=4):
    table = tables.summary(experiments.attack(planted(noise), Row("adult", 200, targets, 3, 3, C), 0))
    return table.set_index(["attack", "metric"])


def test_planted_leak_is_found():
    """Random labels and no penalty: the target has learnt every member, and its weights give them away."""
    found = summary(0.6, 100.0)
    assert found.loc[("target", "train_acc"), "value"] == 1 and found.loc[("target", "test_acc"), "value"] < 0.6
    for attack in ("bayes-wb", "bayes-wb, 1 proxy", "general-wb"):
        assert found.loc[(attack, "auc"), "low"] > 0.6, attack
    for attack in ("bayes-wb, shifted", "general-wb", "general-wb, shifted"):
        assert found.loc[(attack, "accuracy"), "low"] > 0.55, attack


def test_the_last_layer_and_what_it_is_given_make_the_networks_answers():
    """Logits by the last layer and z are those of scikit-learn, and z means the same to proxies."""
    data_, row, rng = planted(0.3), Network("adult", 200, 1, 2, 1, 0.0, 8, 10), np.random.default_rng(0)
    parts = (np.arange(200), np.arange(200, 400), np.arange(400, 500))
    several, one, (asked, both) = experiments._opened(data_.X, data_.y, parts, row, rng)
    again = np.random.default_rng(0)
    net = experiments._network(data_.X, data_.y, parts[0], (8,), row, again)
    rows = np.concatenate([parts[0], parts[2]])
    assert softmax(asked) == pytest.approx(net.predict_proba(data_.X[rows]), abs=1e-5)
    assert softmax(both) == pytest.approx(net.predict_proba(data_.X[:400]), abs=1e-5)
    assert len(several.proxies) == 2 and len(one.proxies) == 1 and several.X.shape == (300, 8) and (one.X >= 0).all()
    assert several.member.tolist() == [True] * 200 + [False] * 100 and (several.y == data_.y[rows]).all()
    assert experiments._last(net)[0] == pytest.approx(several.target[0])
    for proxy in (*several.proxies, *one.proxies):
        right = (one.X @ proxy[0].T + proxy[1]).argmax(1) == one.y
        assert right.mean() > 0.4  # of four classes


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 4])
def test_a_network_asked_about_others_gives_none_away(classes):
    """What is asked about was drawn like the members and trained on by nobody, and half of it is called members."""
    row, found = Network("adult", 100, 1, 2, 2, 0.0, 16, 20), {"bayes-wb": [], "general-wb": []}
    for seed in range(12):
        X, y = data(1000, 30, classes, 0.5, seed)
        rng, parts = np.random.default_rng(seed), np.split(np.arange(1000), 10)
        shadow, *_ = experiments._opened(X, y, parts[:3], row, rng)
        target, *_ = experiments._opened(X, y, (parts[3], parts[4], np.concatenate(parts[5:9])), row, rng)
        rest = slice(100, None)  # the 400 that are no members; the first half stands for members
        learnt = leino.displacement([shadow], (seed, "null"))
        asked = target.target, target.proxies, target.X[rest], target.y[rest]
        for name, result in (("bayes-wb", leino.bayes_wb(*asked)), ("general-wb", leino.general_wb(learnt, *asked))):
            found[name].append(np.mean(result.predicted == (np.arange(400) < 200)))
    for name, values in found.items():
        _, low, high = metrics.mean_interval(values, 0, 1)
        assert low < 0.5 < high and high - low < 0.1, name


@pytest.mark.parametrize("profile", ["demo", "laptop", "paper"])
def test_rows_are_whole(profile):
    """Thirds of each listed set fit; every set of the printed list is there, German Credit's network too."""
    rows = experiments.rows(profile)
    for row in rows:
        if row.dataset in experiments.tables.TABLES:
            assert 3 * row.size <= len(experiments.table(row.dataset, profile).y) < 3 * row.size + 3
    printed = published.load("leino_linear")["dataset"].unique()
    assert set(printed) <= {experiments.TABLES[row.dataset] for row in rows}
    assert [row.dataset for row in rows if isinstance(row, Network)] == ["german-credit"]
    assert len({(row.dataset, row.setting) for row in rows}) == len(rows)


def test_a_target_that_never_saw_its_members_gives_none_away():
    """Members and others drawn alike, and a target trained on neither: each attack within its interval around 1/2."""
    rng = np.random.default_rng(3)
    each = {name: [] for name in ("bayes-wb", "shifted", "general-wb")}
    for seed in range(12):
        X, y = data(900, 30, 3, 0.5, seed)
        parts = [(X[part], y[part]) for part in np.split(rng.permutation(900), 6)]
        models = [fitted(*part, C=100.0) for part in parts[:4]]
        X, y = (np.concatenate(both) for both in zip(*parts[4:], strict=True))
        member = np.arange(300) < 150
        known, labels = (np.concatenate(both) for both in zip(parts[2], parts[1], strict=True))
        shadow = leino.Shadow(models[2], [models[3]], known, labels, member)
        learnt = leino.displacement([shadow], (seed, "null"))
        results = {
            "bayes-wb": leino.bayes_wb(models[0], [models[3]], X, y),
            "shifted": leino.bayes_wb(models[0], [models[3]], X, y, leino.threshold_of([shadow])),
            "general-wb": leino.general_wb(learnt, models[0], [models[3]], X, y),
        }
        for name, result in results.items():
            each[name].append(np.mean(result.predicted == member))
    for name, values in each.items():
        _, low, high = metrics.mean_interval(values, 0, 1)
        assert low < 0.5 < high and high - low < 0.1, name


def test_too_few_records_or_of_a_class_are_refused():
    with pytest.raises(ValueError, match="900 records are too few for three parts of 301"):
        experiments.attack(planted(0.5), Row("adult", 301, 1, 1, 1, 1.0), 0)
    with pytest.raises(ValueError, match="lack one of 4 classes"):
        experiments.attack(planted(0.5), Row("adult", 5, 1, 1, 1, 1.0), 0)


# --- the comparison -------------------------------------------------------------------------------------------------


def made(train, test, C, dataset="Breast Cancer"):
    """Rows of `tables.summary` of one target and the attacks on it."""
    about = {"dataset": dataset, "setting": f"C={C:g}", "tier": "R", "size": 189, "shadows": 10, "records": 189}
    rows = [tables.rows(about, "target", {"train_acc": (train,) * 3, "test_acc": (test,) * 3})]
    for attack in (*experiments.WHITE_BOX, "nn", "gap"):
        rows.append(tables.rows(about, attack, {"accuracy": (0.52, 0.51, 0.53), "precision": (0.54, 0.53, 0.55)}))
    return rows


def test_the_target_nearest_the_printed_accuracies_is_compared():
    near, far = made(0.99, 0.94, 100), made(0.95, 0.93, 0.01)
    measured = pd.concat([*far, *near, *made(0.9, 0.8, 1, "Adult")], ignore_index=True)
    table = exhibits.nearest(measured).set_index("setting")
    assert table["nearest"].to_dict() == {"C=100": True, "C=0.01": False} and table.at["C=100", "why_not"] == ""
    gaussian = experiments.measured(experiments.drawn(Gaussian(10, 20, 20), "1 proxy", 0))
    cells = exhibits.compare(measured, "laptop", gaussian)
    first = {(c["setting"], c["metric"]): c for c in cells if c["primary"] and c["dataset"] == "Breast Cancer"}
    assert len(first) == 6 and {c["verdict"] for c in first.values()} == {"reproduced"}
    assert first["bayes-wb", "attack_total_acc"]["model"] == "logistic regression, C=100"
    assert first["bayes-wb", "attack_precision"]["note"].endswith("; the published number is second hand")
    assert first["target", "target_test_acc"]["note"].endswith("; the target was chosen by it")
    others = {c["setting"] for c in cells if c["dataset"] == "Breast Cancer" and not c["primary"]}
    assert {"bayes-wb, 1 proxy, shifted", "bayes-wb, C=0.01", "shadow attack", "gap attack"} <= others
    assert published.counts(cells) == {"reproduced": 6, "differs": 0, "undecided": 0, "not comparable": 18}
    assert {c["verdict"] for c in exhibits.compare(measured, "demo", gaussian)} == {"not comparable"}
    off = exhibits.compare(pd.concat(made(0.95, 0.93, 1)), "laptop", gaussian)
    [cell] = [c for c in off if c["dataset"] == "Breast Cancer" and c["primary"] and c["metric"] == "attack_precision"][
        :1
    ]
    assert cell["cause"] == "train and test accuracy .950 and .930, printed .987 and .944"


def test_what_is_printed_is_drawn_beside_the_nearest_target_alone():
    table = exhibits.panels(pd.concat([*made(0.95, 0.93, 0.01), *made(0.99, 0.94, 100)]))
    beside = table.dropna(subset="published").set_index(["setting", "attack", "metric"])["published"]
    assert beside.to_dict() == {
        ("C=100", "bayes-wb", "accuracy"): 0.514,
        ("C=100", "bayes-wb", "precision"): 0.545,
        ("C=100", "general-wb", "accuracy"): 0.523,
        ("C=100", "general-wb", "precision"): 0.528,
    }
    assert set(table["setting"]) == {"C=100"}  # the other stands in the tables
    both = exhibits.panels(pd.concat([*made(0.95, 0.93, 0.01, "Adult"), *made(0.99, 0.94, 100, "Adult")]))
    assert set(both["setting"]) == {"C=0.01", "C=100"} and both["published"].isna().all()
    assert not table.duplicated(["panel", "label"]).any()


def test_a_network_is_called_so():
    network = [table.assign(setting="16 units, 7 epochs") for table in made(0.94, 0.71, 1, "German Credit")]
    gaussian = experiments.measured(experiments.drawn(Gaussian(10, 20, 20), "1 proxy", 0))
    cells = exhibits.compare(pd.concat([*network, *made(0.82, 0.73, 1, "German Credit")]), "laptop", gaussian)
    of = [cell for cell in cells if cell["dataset"] == "German Credit" and cell["value"] is not None]
    first = {cell["model"] for cell in of if cell["primary"]}
    assert first == {"network, 16 units, 7 epochs"}
    assert "bayes-wb, C=1" in {cell["setting"] for cell in of if not cell["primary"]}


def test_agreement_is_a_row_a_threshold_and_names_the_largest_difference():
    measured = experiments.measured(experiments.drawn(Gaussian(10, 20, 20), "1 proxy", 0))
    table = exhibits.agreement(measured)
    assert [at[2] for at in table.index] == ["0", "shifted"]
    for (_, _, threshold), row in table.iterrows():
        each = measured[measured["threshold"] == threshold].set_index("metric")
        assert row["off"] == pytest.approx((each["value"] - each["theory"]).abs().max())
        assert row["tnr"] == each.at["tnr", "value"] and row["tnr, theory"] == each.at["tnr", "theory"]
