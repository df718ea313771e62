"""Nasr et al. 2019, who know no member: the encoder, the clusters, a shadow, fine-tuning, the printed numbers."""

import re

import numpy as np
import pandas as pd
import planted
import pytest
import torch
import torch.nn.functional as F
from test_alone import seen as made_up

from mialib import config
from mialib.attacks import nasr
from mialib.attacks.nasr import Features, Training
from mialib.models import federated, fit, small, tuning
from mialib.models.fit import Recipe
from mialib.papers.nasr2019 import alone, unsupervised
from mialib.results import plots, published, tables

QUICK = Training(kernels=2, epochs=25, batch=32, rate=3e-3)
ABOUT = unsupervised.Size(
    members=120, tuned=80, known=60, asked=60, moved=40, hidden=(32, 16), passes=700,
    observed=(0, 5, 700), seeds=2, kernels=2, epochs=10, rate=3e-3, rebuilding=10,
)  # fmt: skip


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    monkeypatch.setenv("MIALIB_WORKERS", "1")


def features(leak, n=300, seed=0):
    """Half are members; their true logit is larger by `leak`, and so all five quantities follow from it."""
    rng = np.random.default_rng(seed)
    member, y = np.arange(n) < n // 2, rng.integers(0, 4, n)
    logits = rng.normal(size=(n, 4))
    logits[np.arange(n), y] += leak * member
    vectors = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    loss = -np.log(vectors[np.arange(n), y])
    delta, entered = vectors - np.eye(4)[y], rng.normal(1, 0.1, (n, 5))
    parts = [np.float32(part[:, None]) for part in (loss[:, None][:, 0], logits, delta, entered)]
    return Features(y, parts[0], (parts[1],), ((parts[2], parts[3]),)), member


def test_the_five_quantities_are_those_of_a_loop():
    """In float64, a record at a time: loss, correctness, confidence, entropy and norm by autograd's own matrix."""
    rng = np.random.default_rng(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 4)).double()
    X, y = rng.normal(size=(9, 6)), rng.integers(0, 4, 9)
    found = nasr.quantities(nasr.observe([net, net], X, y, ["2"], ["2"]))
    assert found.shape == (9, 2, len(nasr.QUANTITIES)) and np.array_equal(found[:, 0], found[:, 1])
    for i in range(9):
        logits = net(torch.from_numpy(X[i : i + 1]))
        loss = F.cross_entropy(logits, torch.from_numpy(y[i : i + 1]))
        [matrix] = torch.autograd.grad(loss, [net[2].weight])
        p = torch.softmax(logits[0], 0).detach().numpy()
        entropy = -sum(each * np.log(each) for each in p) / np.log(4)
        wanted = [loss.item(), float(p.argmax() == y[i]), p[y[i]], entropy, matrix.norm().item()]
        assert found[i, 0] == pytest.approx(wanted, rel=1e-5)


def test_a_planted_leak_is_found_without_a_label_and_nothing_else():
    for leak, low, high in ((6.0, 0.75, 1.0), (0.0, 0.4, 0.6)):
        seen, member = features(leak)
        wanted = nasr.quantities(seen)[:, 0]
        score = nasr.embed(seen, wanted, (0, "test"), QUICK)
        result = nasr.clustered(score, wanted[:, -1], (0, "test"))
        assert low <= nasr.balanced_accuracy(member, result.predicted) <= high
        assert low <= nasr.balanced_accuracy(member, result.score > np.median(result.score)) <= high
        for column in (wanted[:, -1], wanted):
            direct = nasr.clustered(column, wanted[:, -1], (0, "test"))
            assert low - 0.1 <= nasr.balanced_accuracy(member, direct.predicted) <= high


def test_the_score_holds_what_is_to_be_rebuilt_and_the_same_words_give_it_again():
    seen, _ = features(3.0)
    wanted = nasr.quantities(seen)[:, 0]
    score, same = (nasr.embed(seen, wanted, (0, "test"), QUICK) for _ in range(2))
    torch.rand(5)  # the global stream has no part in it
    assert np.array_equal(score, same) and not np.array_equal(score, nasr.embed(seen, wanted, (1, "test"), QUICK))
    assert abs(np.corrcoef(score, wanted[:, nasr.QUANTITIES.index("confidence")])[0, 1]) > 0.8
    with pytest.raises(ValueError, match="3 rows of quantities for 300 records"):
        nasr.embed(seen, wanted[:3], (0, "test"), QUICK)


def test_the_gradient_norm_decides_which_cluster_is_the_members():
    rng = np.random.default_rng(0)
    low = np.arange(3000) < 1000
    values, norm = np.where(low, 0.0, 5.0) + rng.normal(0, 0.1, 3000), np.where(low, 1.0, 2.0)
    one, other = nasr.clustered(values, norm, (0,)), nasr.clustered(values, 3 - norm, (0,))
    assert np.array_equal(one.predicted, low) and np.array_equal(other.predicted, ~low)
    assert (np.diff(one.score[[np.argmax(low), 2000]]) < 0).all() and np.array_equal(one.score, -other.score)
    assert np.array_equal(nasr.clustered(1000 * values + 7, norm, (0,)).predicted, low)  # no unit matters
    both = nasr.clustered(np.stack([values, rng.normal(size=3000)], 1), norm, (0,))
    assert np.array_equal(both.predicted, both.score > 0)
    with pytest.raises(ValueError, match="all the same"):
        nasr.clustered(np.ones(50), norm[:50], (0,))


def test_correctness_clustered_is_the_gap_attack():
    seen = made_up(leak=1.0, sure=2.0)
    found = nasr.quantities(seen.asked)[:, 0]
    answer = nasr.clustered(found[:, nasr.QUANTITIES.index("correctness")], -seen.right.astype(float), (0,))
    assert np.array_equal(answer.predicted, seen.right)


def test_training_further_is_adam_from_where_it_was():
    data = planted.dataset(0.3, n=60)
    net, recipe = small.MLP((40, 8, 4)), Recipe(3, batch=20, rate=1e-2, decay=0.0)
    [theta] = fit.fit_many(net, Recipe(2), data.X, data.y, [np.arange(30)], [(0, "a")])
    rows = np.arange(30, 60)
    [moved] = tuning.train(net, recipe, theta[None], data.X, data.y, [rows], [(0, "b")])
    module, rng = federated.module(net, theta), unsupervised.runs.stream(0, "b", "further")
    adam = torch.optim.Adam(module.parameters(), lr=1e-2)
    for _ in range(3):
        order = rows[rng.permutation(30)]
        for part in (order[:20], order[20:]):
            adam.zero_grad()
            x, labels = torch.from_numpy(data.X[part]).float(), torch.from_numpy(data.y[part])
            F.cross_entropy(module(x), labels).backward()
            adam.step()
    expected = module(torch.from_numpy(data.X).float()).detach().numpy()
    assert np.allclose(small.logits(net, moved, data.X), expected, atol=1e-4)
    assert not np.allclose(theta, moved, atol=1e-3)
    with pytest.raises(ValueError, match="1 networks, 2 sets of records"):
        tuning.train(net, recipe, theta[None], data.X, data.y, [rows, rows], [(0, "b")])
    with pytest.raises(ValueError, match="network 0 has no records"):
        tuning.train(net, recipe, theta[None], data.X, data.y, [rows[:0]], [(0, "b")])


def test_no_record_is_in_two_parts():
    drawn = unsupervised.draw(600, ABOUT, 0)
    parts = list(vars(drawn).values())
    assert [len(part) for part in parts] == [120, 80, 120, 120, 60]
    assert len(np.unique(np.concatenate(parts))) == 500
    assert not np.array_equal(drawn.members, unsupervised.draw(600, ABOUT, 1).members)
    with pytest.raises(ValueError, match="400 records are too few"):
        unsupervised.draw(400, ABOUT, 0)
    with pytest.raises(ValueError, match="more records are known and asked"):
        unsupervised.draw(600, unsupervised.Size(**vars(ABOUT) | {"moved": 50}), 0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Both tables of a data set half of whose labels can only be memorised, and of one that has nothing to memorise."""
    with pytest.MonkeyPatch.context() as patch:  # the fixtures of a test come too late for a module's
        patch.setenv("MIALIB_WORKERS", "1")
        patch.setenv("MIALIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        return {noise: unsupervised.tables(planted.dataset(noise), ABOUT, 0) for noise in (0.6, 0.0)}


def means(table):
    return table.groupby(["setting", "metric"])["value"].mean()


def test_what_is_memorised_is_found_by_every_attacker(run):
    leaky, safe = means(run[0.6][0]), means(run[0.0][0])
    assert leaky["target", "train"] > 0.95 and leaky["gap attack", "accuracy"] > 0.65
    for name in (unsupervised.EMBEDDED, unsupervised.KNOWN, unsupervised.SHADOW, "loss, clustered"):
        assert leaky[name, "auc"] > 0.65 and leaky[name, "auc"] > safe[name, "auc"], name
    every, _, seen, first = run[0.6]
    truth = seen.members[1]
    told = every[(every["seed"] == 0) & (every["metric"] == "accuracy")].set_index("setting")["value"]
    for name, result in first.items():
        assert told[name] == pytest.approx(nasr.balanced_accuracy(truth, result.predicted))
    assert told["gap attack"] == pytest.approx(nasr.balanced_accuracy(truth, seen.right))


def test_fine_tuning_is_asked_for_three_kinds_of_records(run):
    fine = means(run[0.6][1])
    assert fine["target before", "D"] > 0.95 and fine["target after", "D_delta"] > 0.95
    assert fine["target before", "D_delta"] == pytest.approx(fine["target before", "test"], abs=0.2)
    assert fine["D against D_delta, gap attack before", "accuracy"] > 0.65
    assert fine["D_delta against non-members, gap attack after", "accuracy"] > 0.65
    assert fine["D_delta against non-members, gap attack before", "accuracy"] == pytest.approx(0.5, abs=0.12)
    assert fine["D against D_delta, both", "accuracy"] > 0.6
    asked, models = unsupervised.questions(unsupervised.over_seeds(run[0.6][1]))
    assert asked.shape == (3, 4) and models.shape == (2, 3) and not asked.isna().any(axis=None)
    tuned = unsupervised.gains(run[0.6][1], unsupervised.MOVED)
    row = "D against D_delta, both against D against D_delta, the last alone"
    base = fine["D against D_delta, the last alone", "accuracy"]
    assert tuned.loc[row, "value"] == pytest.approx(fine["D against D_delta, both", "accuracy"] - base)


def test_one_of_two_observed_models_is_what_it_would_be_alone():
    seen, _ = features(1.0, n=20)
    two = Features(seen.y, *(np.repeat(seen.loss, 2, 1), tuple(np.repeat(o, 2, 1) for o in seen.outputs),
                             tuple(tuple(np.repeat(p, 2, 1) for p in pair) for pair in seen.gradients)))  # fmt: skip
    one = unsupervised._through(two, [1])
    assert np.array_equal(one.loss, seen.loss) and np.array_equal(one.gradients[0][1], seen.gradients[0][1])
    assert unsupervised._through(two, [0, 1]).outputs[0].shape == (20, 2, 4)


def test_norms_end_where_the_target_does(run):
    data = planted.dataset(0.6)
    table, seen = unsupervised.norms(data, ABOUT, 0), run[0.6][2]
    assert table.index.tolist() == [0, 5, 700] and table.loc[700, "member"] < table.loc[700, "non-member"]
    drawn, [theta] = unsupervised.draw(len(data.y), ABOUT, 0), unsupervised.trained(data, ABOUT, [0])[0]
    rows = np.concatenate([drawn.members[60:], drawn.others[60:]])
    assert np.array_equal(unsupervised.seen_by(data, ABOUT, [theta], rows).loss, seen.asked.loss)
    whole = nasr.norms(unsupervised.seen_by(data, ABOUT, [theta], drawn.members)).mean()
    assert table.loc[700, "member"] == pytest.approx(whole, rel=1e-5)


def test_images_are_attacked_as_in_notebook_20_and_by_draws_of_the_encoder(monkeypatch):
    target, size = made_up(leak=3.0), {"draws": 2, "rebuilding": 40}
    monkeypatch.setattr(unsupervised.papers, "sizes", lambda paper: {"unsupervised": {"x": {alone.IMAGES: size}}})
    draws = unsupervised.images(target, "x", 0)
    wanted = [
        each for each in alone.settings(target) if each.name in (unsupervised.WHOLE.name, "outputs of the last layer")
    ]
    assert unsupervised.WHOLE in wanted and unsupervised.OUTPUTS in wanted
    monkeypatch.setattr(alone, "settings", lambda target: wanted)
    theirs = alone.attacked(target, 0)
    assert np.array_equal(draws[0]["white box"].score, theirs[unsupervised.WHOLE.name][0].score)
    assert np.array_equal(draws[0]["white box, outputs"].score, theirs["outputs of the last layer"][0].score)
    assert not np.array_equal(draws[0]["unsupervised"].score, draws[1]["unsupervised"].score)
    assert "white box" not in draws[1]
    table = unsupervised.measured(target, draws[0], 0)
    value = table.set_index(["setting", "metric"])["value"]
    assert value["gradient norm, clustered", "auc"] > 0.9 and ("all five quantities, clustered", "auc") not in value
    assert set(table["metric"]) == {"accuracy", "auc", "train", "test"}
    held = unsupervised.over_draws(target, draws)
    assert held.loc[("balanced accuracy", "unsupervised"), 1] == pytest.approx(value["unsupervised", "accuracy"])
    added = unsupervised.of_images(target, draws[0])
    row = "unsupervised against gap attack"
    assert added.loc[row, "value"] == pytest.approx(value["unsupervised", "accuracy"] - value["gap attack", "accuracy"])
    assert not [name for name in added.index if "shadow" in name]
    plots.dots(unsupervised.panels([(target, table)]), "accuracy")


def test_the_printed_numbers():
    table = published.load("nasr_table7").set_index("setting")["published"]
    assert len(table) == 10 and table["AlexNet, unsupervised"] == 0.75 and table["DenseNet, shadow"] == 0.642
    table = published.load("nasr_table9").set_index(["dataset", "setting", "metric"])["published"]
    assert len(table) == 20 and table["Texas-100", "FC, D against D_delta, both", "attack_total_acc"] == 0.584
    fig3 = published.points("nasr_fig3").pivot(index="epoch", columns="records", values="norm")
    assert fig3.loc[[0, 5], "member"].tolist() == [0.6692, 0.3362]
    assert fig3.loc[[0, 5], "non-member"].tolist() == [0.7028, 0.3742] and len(fig3) == 20
    said = unsupervised.printed()
    assert said.loc[("CIFAR-100", "AlexNet"), ("Table VII", "gap attack, derived")] == pytest.approx(0.775)
    assert said.loc[("CIFAR-100", "AlexNet"), ("Table IX", "gap attack, derived")] == pytest.approx(0.801)
    assert len(said) == 5 and said["Table IX"].drop(("CIFAR-100", "ResNet")).notna().all(axis=None)


def test_bars_of_fig_5_tell_as_much_as_their_best_threshold():
    rng = np.random.default_rng(0)
    member = np.arange(4000) < 2000
    score = np.where(member, 0.0, 2.0) + rng.normal(size=4000)
    ours = {"x": (member, nasr.Result(-score, score < 1))}
    table, several = unsupervised.histograms(ours)
    assert table.shape == (4, 3)
    for bars in several.values():
        assert len(bars) == unsupervised.BINS and (bars >= 0).all(axis=None)
    sums = pd.DataFrame({name: bars.sum() for name, bars in several.items()})
    # The axis of the paper's ResNet ends before its scores do.
    assert sums.drop(columns="published, ResNet").to_numpy() == pytest.approx(np.ones((2, 3)), abs=0.01)
    assert (sums["published, ResNet"] > 0.94).all()
    best = max(nasr.balanced_accuracy(member, score < edge) for edge in several["ours, x"].index[1:])
    assert table.loc["ours, x", "best threshold"] == pytest.approx(best)
    assert table.loc["ours, x", "accuracy of the clusters"] == pytest.approx(nasr.balanced_accuracy(member, score < 1))
    assert table.loc["published, AlexNet", "accuracy of the clusters"] == 0.75
    same = tables.told_apart(pd.DataFrame({"member": [0.5, 0.5], "non-member": [0.5, 0.5]}))
    assert same == {"overlap": 1.0, "best threshold": 0.5}


def cells(profile="paper", off="", tier="R"):
    size = alone.Size((25000, 5000), (), 5000, 1000, 100, 1e-4)
    target = alone.Seen(**vars(made_up()) | {"about": size, "tier": tier})
    rows = [(name, "accuracy", 0.75, 0.74, 0.76) for name in ("unsupervised", "white box", "gap attack")]
    table = pd.DataFrame(rows, columns=["setting", "metric", "value", "low", "high"])
    added = pd.DataFrame({"value": 0.1, "low": 0.0, "high": 0.2}, index=["a against b"])
    why = unsupervised.why(target, profile, off)
    return published.compare(unsupervised.results(target, table, added, why, "", "nasr_table7"), "nasr_table7")


def test_a_verdict_at_the_operating_point_and_the_papers_sizes_alone():
    [met] = [cell for cell in published.primary(cells()) if cell["value"] is not None]
    assert met["setting"] == "AlexNet, unsupervised" and met["verdict"] == "reproduced"
    for about in ({"off": "too far"}, {"profile": "laptop"}, {"profile": "demo"}, {"tier": "M"}):
        assert {cell["verdict"] for cell in published.primary(cells(**about))} == {"not comparable"}, about
    assert "too far; a smaller encoder" in next(c["cause"] for c in cells("laptop", "too far") if c["primary"])


def test_the_reading_asks_for_numbers_that_there_are(run):
    [path] = (config.ROOT / "notebooks").glob("21_*.ipynb")
    every, moved, _, first = run[0.6]
    known = {"Location": {*every["setting"], *moved["setting"], *unsupervised.gains(every).index}}
    known["Location"] |= set(unsupervised.gains(moved, unsupervised.MOVED).index)
    known["CIFAR-100"] = {*first, "gap attack", *(" against ".join(pair) for pair in unsupervised.PAIRS)}
    known["CIFAR-100"] = {name for name in known["CIFAR-100"] if "shadow" not in name}
    asked = re.findall(r"{\w+: ([\w-]+) \| \w+, ([^|]*) \| (\w+)}", path.read_text(encoding="utf-8"))
    assert len(asked) > 20 and not [each for each in asked if each[1] not in known[each[0]]]
    assert {metric for *_, metric in asked} <= {*alone.METRICS.values()}
