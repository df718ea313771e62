import dataclasses

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from planted import dataset
from sklearn.dummy import DummyClassifier

from mialib.attacks import signals, synthesis
from mialib.data.datasets import Dataset
from mialib.models import platforms
from mialib.papers.shokri2017 import experiments
from mialib.papers.shokri2017.experiments import Row
from mialib.results import tables

ROW = Row("location-30", 100, 4, 2, 32, 120, 20)


def value(attacked, metric, attack="nn"):
    table = tables.summary(attacked)
    return table[(table.attack == attack) & (table.metric == metric)].iloc[0]


@pytest.mark.parametrize("form", [scipy.sparse.csc_array, pd.DataFrame, np.ndarray.tolist])
def test_a_data_set_of_ones_own_may_come_in_any_form(form):
    """A square one: a CSC matrix read as rows would be its transpose."""
    rng = np.random.default_rng(0)
    X, y = (rng.random((40, 40)) < 0.4).astype(np.uint8), rng.integers(3, size=40)
    labels = pd.Series(y.astype(np.uint8), index=rng.permutation(40))
    row = Row("toy", 10, 2, 1, 8, 3)
    [one], [other] = (
        experiments.attack(Dataset("toy", *own, 3, "S", "", "x"), row, 0).answers["nn"]
        for own in ((X, y), (form(X), labels))
    )
    assert np.allclose(one.score, other.score, atol=1e-3)
    with pytest.raises(ValueError, match="X has nan or infinity in 40 records"):
        Dataset("toy", X * np.nan, y, 3, "S", "", "x")
    with pytest.raises(ValueError, match="y: labels run from 0 to 2, the classes from 0 to 1"):
        Dataset("toy", X, y, 2, "S", "", "x")


def test_settling_takes_the_first_shadows_and_ends_in_the_whole_attack():
    found = list(experiments.settling(dataset(0.6), ROW, 0))
    assert [attacked.about["shadows"] for attacked in found] == [1, 2, 4]
    assert {attacked.about["setting"] for attacked in found} == {"100 records"}
    whole = experiments.attack(dataset(0.6), ROW, 0)
    for ours, theirs in zip(found[-1].answers["nn"], whole.answers["nn"], strict=True):
        assert (ours.score == theirs.score).all()
    assert (found[0].answers["nn"][0].score != found[-1].answers["nn"][0].score).any()


def test_settling_swaps_halves_where_four_disjoint_sets_cannot_be_had():
    data = dataset(0.6, n=230)
    [*_, attacked] = experiments.settling(data, ROW, 0)
    # With targets_and_shadows only 30 of 230 records would be left as a target's non-members.
    assert all(seen.member.sum() == (~seen.member).sum() == 100 for seen in attacked.records)
    assert value(attacked, "auc").low > 0.6


def test_made_up_records_serve_an_attack_on_each_target():
    data = dataset(0.6)
    real, marginal, model = experiments.synthetic(data, ROW, 0)
    settings = [attacked.about["setting"] for attacked in (real, marginal, model)]
    assert settings == ["real data", "marginal-based synthetic", "model-based synthetic"]
    assert len({tuple(a.accuracies[0][key] for key in ("train_acc", "test_acc")) for a in (real, marginal, model)}) == 1
    for attacked in (real, marginal, model):
        assert len(attacked.records) == len(attacked.answers["nn"]) == ROW.targets
        for seen, other in zip(attacked.records, real.records, strict=True):
            assert sorted(seen.y) == sorted(other.y)
    # The planted leak is found with the records that are the target's own kind.
    assert value(real, "auc").low > 0.6 and value(model, "auc").value > 0.5
    assert value(model, "synthesis_confidence", "target").value > 0.2
    assert value(model, "synthesis_queries", "target").value >= 1
    assert value(model, "synthesis_kept", "target").value == pytest.approx(1)


def test_made_up_records_and_a_target_that_learnt_nothing(monkeypatch):
    """Null: a target after one epoch on one batch tells nothing, whoever made the shadows' records."""
    # Such a target is sure of nothing, so that most searches would go on to the end: a short one saves 20 s.
    short = dataclasses.replace(synthesis.PUBLISHED, iter_max=100)
    whole = synthesis.synthesize
    monkeypatch.setattr(synthesis, "synthesize", lambda *wanted: whole(*wanted, search=short))
    row = dataclasses.replace(ROW, epochs=1, batch=100, targets=3)
    for attacked in experiments.synthetic(dataset(0.0), row, 0):
        found = value(attacked, "auc")
        assert found.low < 0.5 < found.high


def test_too_few_made_up_records_are_an_error_that_says_so(monkeypatch):
    nothing = experiments.Made(np.zeros((1, 40), np.uint8), np.zeros(1, np.int64), {})
    monkeypatch.setattr(experiments, "SYNTHESIS", {"model-based synthetic": (lambda *_: nothing, 8)})
    with pytest.raises(ValueError, match="model-based synthetic: the synthesis found 1 records, too few"):
        list(experiments.synthetic(dataset(0.6), ROW, 0))


def test_platforms_get_the_same_records_and_the_memorising_ones_leak():
    names = ["Amazon (100,1e-4)", "random forest"]
    makers = {name: platforms.PLATFORMS[name] for name in names}
    found = list(experiments.on_platforms(dataset(0.6), ROW, 0, makers))
    assert [attacked.about["setting"] for attacked in found] == names
    [asked, again], whole = found, experiments.attack(dataset(0.6), ROW, 0)
    for ours, others, theirs in zip(asked.records, again.records, whole.records, strict=True):
        assert (ours.y == others.y).all() and (ours.y == theirs.y).all() and (ours.member == theirs.member).all()
        assert (ours.vectors != others.vectors).any() and np.allclose(ours.vectors.sum(1), 1, atol=1e-5)
    # On labels that are mostly noise only the forest can know its members.
    assert value(again, "train_acc", "target").value == 1 > value(again, "test_acc", "target").value + 0.3
    assert value(again, "auc").low > 0.6


def test_a_platform_that_learnt_nothing_does_not_leak():
    """Null: it draws a class by lot for each record, members or not."""
    lots = {"lots": lambda seed: DummyClassifier(strategy="stratified", random_state=seed)}
    [attacked] = experiments.on_platforms(dataset(0.0), dataclasses.replace(ROW, targets=5), 0, lots)
    found = value(attacked, "auc")
    assert found.low < 0.5 < found.high


def test_noise_spoils_the_shadows_records_and_never_the_targets(monkeypatch):
    """Flipping changes exactly that share of each record, replacing about half as much, and "real data" nothing."""
    data, trained, observe = dataset(0.6), [], experiments.observe
    monkeypatch.setattr(
        experiments,
        "observe",
        lambda d, row, seed, role, side: trained.append((role, d)) or observe(d, row, seed, role, side),
    )
    row = dataclasses.replace(ROW, epochs=1)
    names = [attacked.about["setting"] for attacked in experiments.noisy(data, row, 0)]
    assert names == ["real data", "noisy 10%", "noisy 20%", "noisy 10%, replaced", "noisy 20%, replaced"]
    assert [role for role, _ in trained] == ["target"] + ["shadow"] * 5
    changed = [(each.X != data.X).mean(1) for _, each in trained]
    assert not changed[0].any() and not changed[1].any()
    assert (changed[2] == 0.1).all() and (changed[3] == 0.2).all()
    # 900 records of 40 features: the standard error of the share is below .003.
    assert changed[4].mean() == pytest.approx(0.05, abs=0.01) and changed[5].mean() == pytest.approx(0.1, abs=0.01)
    assert all((each.y == data.y).all() for _, each in trained)


def test_noisy_shadows_still_find_the_leak_in_the_same_targets():
    found = list(experiments.noisy(dataset(0.6), ROW, 0))
    whole = experiments.attack(dataset(0.6), ROW, 0)
    for attacked in found:
        for seen, other in zip(attacked.records, whole.records, strict=True):
            assert (seen.vectors == other.vectors).all() and (seen.member == other.member).all()
        assert value(attacked, "auc").low > 0.5
    for setting, same in zip(found, (True, False, False, False, False), strict=True):
        pairs = zip(setting.answers["nn"], whole.answers["nn"], strict=True)
        assert all((ours.score == theirs.score).all() for ours, theirs in pairs) == same


def test_noisy_attacks_say_what_the_shadows_have_learnt():
    data = dataset(0.3)
    shadows = experiments.observe(data, ROW, 0, "shadow", experiments._sides(data, ROW, 0)["shadow"])
    for key, side in (("shadow_train_acc", True), ("shadow_test_acc", False)):
        right = [signals.correct(seen.vectors, seen.y)[seen.member == side].mean() for seen in shadows]
        assert value(next(experiments.noisy(data, ROW, 0)), key, "target").value == pytest.approx(np.mean(right))


def test_noise_does_not_make_a_leak_where_there_is_none():
    """Null: after one epoch a target knows nothing of its members, whatever the shadows were trained on."""
    for attacked in experiments.noisy(dataset(0.0), dataclasses.replace(ROW, epochs=1, batch=100, targets=4), 0):
        found = value(attacked, "auc")
        assert found.low < 0.5 < found.high
