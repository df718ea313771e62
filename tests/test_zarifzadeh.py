"""LiRA and RMIA with few references: who is a reference of whom, and what is found with and without a leak."""

import dataclasses

import numpy as np
import pytest
import torch
from planted import answers
from sklearn.metrics import roc_auc_score

from mialib import metrics
from mialib.attacks import quantile, references
from mialib.data import datasets
from mialib.models import fit, modules, small
from mialib.papers.zarifzadeh2024 import exhibits, experiments
from mialib.results import plots, published

ROW = experiments.Row("location-30", 400, 5, 4, 16, 30, 0.2, "phi")


def planted(leak, row=ROW, seed=0, classes=5):
    return answers(leak, row, seed, classes, hard=2, spread=1)


def test_of_each_pair_one_model_is_in_for_every_record():
    rows, member = experiments.drawn(ROW, 900, 3)
    assert len(set(rows)) == len(rows) == 400 and member.shape == (10, 400)
    assert (member.sum(1) == 200).all()
    assert (member[0::2] ^ member[1::2]).all()
    assert not (experiments.drawn(ROW, 900, 4)[1] == member).all()
    with pytest.raises(ValueError, match="300 cannot be halved"):
        experiments.drawn(ROW, 300, 0)


@pytest.mark.parametrize("profile", ["demo", "laptop", "paper"])
def test_no_target_is_among_its_references(profile):
    for row in experiments.settings(profile):
        for target in experiments.targets(row):
            for count in experiments.numbers(row):
                others = experiments.others(row, target, count)
                assert len(set(others)) == count and target // 2 not in {other // 2 for other in others}
                assert sorted(others) == sorted(others[:2] + others[2:]) and max(others) < 2 * row.pairs
    with pytest.raises(ValueError, match="11 targets of 10 models"):
        experiments.targets(dataclasses.replace(ROW, targets=11))


def test_numbers_of_references_are_powers_of_two_and_all_there():
    for pairs, most in ((2, 2), (3, 4), (5, 8), (32, 32), (33, 64), (128, 128)):
        assert max(experiments.numbers(dataclasses.replace(ROW, pairs=pairs))) == most


def test_where_nothing_leaks_every_interval_is_about_one_half():
    table = exhibits.measured([planted(0.0, dataclasses.replace(ROW, records=2000))])
    found = table[table["metric"] == "auc"]
    deviation = np.sqrt(2001 / (12 * 1000 * 1000))  # of the AUC of noise; four targets
    assert len(found) == 1 + 5 + 7 + 7 and (abs(found["value"] - 0.5) < 4 * deviation / 2).all()


def test_a_planted_leak_is_found_the_better_the_more_references_there_are():
    table = exhibits.measured([planted(2.0, dataclasses.replace(ROW, records=2000))])
    auc = table[table["metric"] == "auc"].set_index(["attack", "references"])["value"]
    assert 0.5 < auc["Attack-P", 0] < auc["Attack-R", 1]
    for attack in ("RMIA online", "LiRA online, fixed"):
        assert auc[attack, 2] > auc["Attack-P", 0] and auc[attack, 8] > auc[attack, 2] and auc[attack, 8] > 0.8
    assert auc["RMIA offline", 1] > auc["Attack-P", 0]
    assert ("LiRA online", 2) not in auc.index and ("LiRA online", 4) in auc.index


def test_scores_are_those_of_the_functions_on_the_models_of_the_row():
    each = planted(1.0)
    scores = experiments.attack(each, 3, 4)
    models = [4, 5, 6, 7]
    signal = references.phi(each.logits, each.y)
    wanted = references.rmia(signal[3], signal[models], each.member[models], ~each.member[3], None)
    np.testing.assert_array_equal(scores["RMIA online"], wanted)
    wanted = references.lira(signal[3], signal[models], each.member[models], online=False)
    np.testing.assert_array_equal(scores["LiRA offline"], wanted)
    assert list(experiments.attack(each, 3, 0)) == ["Attack-P"]


def test_no_score_of_an_attack_but_the_known_ones_looks_at_who_is_a_member():
    """Attack-R and LiRA do not see the target's members; RMIA and Attack-P know its non-members, as a population."""
    each = planted(1.0)
    member = each.member.copy()
    member[3] = ~member[3]
    turned = dataclasses.replace(each, member=member)
    before, after = (experiments.attack(of, 3, 4) for of in (each, turned))
    same = {name for name, score in before.items() if (score == after[name]).all()}
    assert same == {name for name in before if not name.startswith("RMIA")}


def test_models_are_trained_on_their_half_and_asked_about_all():
    data = datasets.load("location-30", "demo")
    row = dataclasses.replace(ROW, records=200, pairs=2, targets=2, epochs=40)
    each = experiments.train(data, row, 1)
    rows, member = experiments.drawn(row, data.X.shape[0], 1)
    assert (each.member == member).all() and (each.y == data.y[rows]).all() and each.logits.shape == (4, 200, 1, 30)
    learnt = experiments.learnt(each)
    for i, half in enumerate(member):
        right = each.logits[i, :, 0].argmax(1) == data.y[rows]
        assert learnt["train_acc"][i] == right[half].mean() and learnt["test_acc"][i] == right[~half].mean()
        words = [(1, experiments.PAPER, "location-30", i)]
        model = small.MLP((data.X.shape[1], row.hidden, 30))
        [theta] = fit.fit_many(model, fit.Recipe(40), data.X[rows], data.y[rows], [np.flatnonzero(half)], words)
        np.testing.assert_array_equal(small.logits(model, theta, data.X[rows]), each.logits[i, :, 0])
    auc = exhibits.measured([each]).set_index(["metric", "attack", "references"])["value"]["auc"]
    assert auc["RMIA online", 2] > 0.7


def test_cells_stand_beside_fig_12_and_have_no_verdict():
    row = dataclasses.replace(ROW, dataset="cifar-10", pairs=3)
    images = dataclasses.replace(planted(1.0, row), tier="R")
    often = dataclasses.replace(images, logits=np.repeat(images.logits, 18, axis=2))
    table, seen = exhibits.measured([images, planted(1.0)]), exhibits.models([images, planted(1.0)])
    networks = exhibits.by_network([images, often])
    cells = exhibits.compare(table, networks, seen, "laptop")
    held = {cell["setting"]: cell for cell in cells if cell["published"] is not None and cell["value"] is not None}
    assert {name for name, cell in held.items() if cell["primary"]} == {
        f"CNN-16, {attack}" for attack in ("Attack-P", "Attack-R", "LiRA", "RMIA")
    }
    assert {name for name, cell in held.items() if not cell["primary"]} == {
        *(f"CNN-16, {name}, 1 query" for name in ("Attack-P", "Attack-R", "LiRA", "RMIA")),
        *(f"CNN-16, {name}, offline{end}" for name in ("LiRA", "RMIA") for end in ("", ", 1 query")),
    }
    assert {cell["verdict"] for cell in cells} == {"not comparable"}
    assert "neither describes" in held["CNN-16, RMIA"]["cause"]
    auc = table[table["metric"] == "auc"].set_index(["dataset", "attack", "references"])["value"]
    assert held["CNN-16, LiRA"]["value"] == auc["CIFAR-10", "LiRA online, fixed", 2]
    assert held["CNN-16, LiRA, offline"]["value"] == auc["CIFAR-10", "LiRA offline, fixed", 1]
    assert seen["data"].tolist() == ["CIFAR-10, CNN-16", "Location"]
    shown = exhibits.beside(networks)
    assert list(shown.columns) == ["CNN-16, 1 query", "CNN-16, 18 queries"]
    assert (shown.loc["auc"].iloc[:, 0] == shown.loc["auc"].iloc[:, 1]).all()  # the same answer 18 times tells no more
    demo = exhibits.compare(table, networks, seen, "demo")
    assert {cell["cause"] for cell in demo if cell["setting"] == "CNN-16, RMIA"} == {"demo profile"}


@pytest.mark.parametrize("profile", ["demo", "laptop", "paper"])
def test_the_sweep_is_of_fewer_records_and_more_models(profile):
    [row], usual = experiments.networks(profile, "sweep"), experiments.settings(profile)[1]
    assert row.records < usual.records and row.pairs >= min(33, usual.pairs + 1)
    assert (row.filters, row.epochs, row.rate) == (usual.filters, usual.epochs, usual.rate)
    assert row.name == f"CIFAR-10, {row.records // 2:,} members" != usual.name
    each = planted(1.0, dataclasses.replace(row, records=400, pairs=3, targets=2))
    assert set(exhibits.measured([each], {"CIFAR-10": [each.logits]})["dataset"]) == {row.name}
    assert exhibits.models([each])["data"].tolist() == [f"{row.name}, CNN-{row.filters[0]}"]


def test_augmented_images_are_shifted_and_mirrored_around_the_record_itself():
    X = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 6)).astype(np.uint8)
    found = list(experiments.augmented(X))
    assert len(found) == 18 and len({each.tobytes() for each in found}) == 18
    np.testing.assert_array_equal(found[0], X)
    np.testing.assert_array_equal(found[1], X[..., ::-1])
    down = [each for each in found if (each[:, :, 1:] == X[:, :, :-1]).all()]
    assert len(down) == 1 and (down[0][:, :, 0] == X[:, :, 1]).all()  # what comes in is reflected


def test_the_same_models_are_asked_each_query(monkeypatch):
    monkeypatch.setenv("MIALIB_WORKERS", "1")
    [row] = experiments.networks("demo")
    assert row.name == "CIFAR-10"
    row = dataclasses.replace(row, records=40, epochs=1)
    data = datasets.load("cifar-10", "demo")
    once = experiments.train(data, row, 0)
    often = experiments.queried(data, once, 0)
    assert row.filters == (6, 6) and often.logits.shape == (4, 40, 18, 10)
    np.testing.assert_array_equal(often.logits[:, :, 0], once.logits[:, :, 0])
    rows, _ = experiments.drawn(row, len(data.y), 0)
    flipped = dataclasses.replace(data, X=np.ascontiguousarray(data.X[..., ::-1]))
    words, half = (0, experiments.PAPER, "cifar-10", 2), rows[once.member[2]]
    net = modules.cnn((3, 32, 32), 10, row.filters, row.hidden, 0.0, words)
    net = modules.train(net, data.X[half], data.y[half], modules.Descent(1, row.rate, row.batch), words)
    with torch.inference_mode():
        said = net(torch.from_numpy(modules.scaled(flipped.X[rows]))).numpy()
    # All records in one batch, laid out otherwise in memory: the same sums in another order.
    np.testing.assert_allclose(often.logits[2, :, 1], said, rtol=0, atol=1e-5)


def test_one_target_has_the_numbers_of_its_scores():
    each = planted(1.0)
    one = exhibits.single([each], 0, 50).set_index(["attack", "metric"])
    score = experiments.attack(each, 0, 8)["RMIA online"]
    assert one.loc[("RMIA online", "tpr_at_1"), "value"] == metrics.low_fpr(each.member[0], score)["tpr_at_1"][0]
    inside = one.dropna()
    assert (inside["low"] <= inside["value"]).all() and (inside["value"] <= inside["high"]).all()
    assert one.loc[("LiRA offline", "auc"), "references"] == 4


def test_figures_and_tables_of_planted_answers():
    table = exhibits.measured([planted(1.0)])
    shown = exhibits.wide(table, "auc")
    assert list(shown.columns) == [0, 1, 2, 4, 8] and shown.loc[("Location", "Attack-P"), 8] == ""
    drawn = table[table["metric"] == "auc"].rename(columns={"dataset": "panel", "attack": "label"})
    figure = plots.gains(drawn, "AUC", exhibits.printed_gains())
    assert [ax.get_title().split("\n")[0] for ax in figure.axes] == ["Location", "CIFAR-10, WRN28-2, published"]
    lines = [line for ax in figure.axes for line in ax.lines if len(line.get_xdata()) > 1]
    [rmia] = [line for line in lines if list(line.get_ydata()) == [0.6864, 0.7013, 0.7102]]
    assert list(rmia.get_xdata()) == [1, 2, 4]
    curves = exhibits.curves([planted(1.0)])
    assert set(curves["panel"]) == {"Location, 2 references", "Location, 8 references"}
    assert set(curves["non_members"]) == {200}


def test_the_published_figure_and_table_are_whole():
    table = published.load("zarifzadeh_fig12")
    assert len(table) == 20 and (table["tolerance"] == 0.03).all() and (table["primary"] == "").all()
    auc = table.set_index("setting")["published"]
    for network in ("CNN-16", "CNN-32", "WRN28-1", "WRN28-2", "WRN28-10"):
        order = ["RMIA", "LiRA", "Attack-P"]
        assert list(auc[[f"{network}, {attack}" for attack in order]].sort_values(ascending=False).index) == [
            f"{network}, {attack}" for attack in order
        ]
    points = published.points("zarifzadeh_table9")
    assert len(points) == 36 and points.groupby("dataset").size().tolist() == [12, 12, 12]
    assert points["auc"].between(0.5, 0.9).all() and (points["std"] < 0.005).all()


def test_quantile_regression_stands_beside_attack_p(monkeypatch):
    monkeypatch.setenv("MIALIB_WORKERS", "1")
    data = datasets.load("location-30", "demo")
    row = dataclasses.replace(ROW, records=200, pairs=2, targets=2, epochs=40)
    each = experiments.train(data, row, 1)
    found = experiments.quantiles(data, each, 1)
    assert [len(score) for score in found] == [200, 200]
    rows, _ = experiments.drawn(row, data.X.shape[0], 1)
    signal = quantile.margin(each.logits[2, :, 0], each.y)
    wanted = quantile.score(signal, data.X[rows], each.y, each.member[2], (1, experiments.PAPER, "location-30", 2))
    np.testing.assert_array_equal(found[1], wanted)
    table = exhibits.measured([each], {"Location": found}).set_index(["attack", "metric", "references"])["value"]
    wanted = np.mean([roc_auc_score(each.member[i], score) for i, score in zip((0, 2), found, strict=True)])
    assert table[exhibits.QUANTILE, "auc", 0] == pytest.approx(wanted)
    one = exhibits.single([each], 0, 20, {"Location": found}).set_index(["attack", "metric"])["value"]
    assert one[exhibits.QUANTILE, "auc"] == pytest.approx(roc_auc_score(each.member[0], found[0]))
