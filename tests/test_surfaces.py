"""Three surfaces: what is frozen stays so, null and planted leak are seen, and attackers differ in one thing."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import nn

from mialib import metrics, runs
from mialib.attacks.mlleaks import ADVERSARY_1
from mialib.data import photographs
from mialib.data.datasets import Dataset
from mialib.data.splits import Split
from mialib.models import frozen, nets, small, transfer
from mialib.models.fit import Recipe
from mialib.papers.zou2020 import exhibits, experiments, surfaces
from mialib.results import plots


def images(name, n=400, classes=4, seed=0):
    """Noise with labels drawn at random: what is learnt of them is learnt by heart."""
    rng = np.random.default_rng(seed)
    X, y = rng.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8), rng.integers(classes, size=n)
    return Dataset(name, X, y, classes, "M", "planted", runs.digest(X, y))


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    monkeypatch.setenv("MIALIB_WORKERS", "1")


@pytest.fixture(scope="module")
def teacher():
    return transfer.fresh(transfer.cnn(3, 7, (4, 4), 32), (0, "teacher"))


def weights(model, prefix=""):
    return {name: tensor.clone() for name, tensor in model.net.state_dict().items() if name.startswith(prefix)}


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_frozen_layers_keep_their_weights_and_all_others_learn(teacher, count):
    data = images("cifar-10", 60)
    begun = transfer.with_classes(teacher, 4, (0, "student"))
    held = frozen.freeze(begun, count)
    np.testing.assert_allclose(transfer.logits(held, data.X), transfer.logits(begun, data.X), atol=1e-6)
    trained = transfer.train(held, data.X, data.y, Recipe(2, 30), (0, "student"))
    same = {
        name.split(".")[-2] for name, tensor in weights(trained).items() if torch.equal(tensor, weights(held)[name])
    }
    assert same == set(frozen.weighted(teacher)[:count])
    assert frozen.weighted(teacher) == ["conv1", "conv2", "fc1", "fc2"]


def test_another_number_of_frozen_layers_is_another_student(teacher):
    """The weights that they begin with and their seed words are the same, so a key of those alone would mix them up."""
    data, begun = images("cifar-10", 60), transfer.with_classes(teacher, 4, (0, "student"))
    said = [
        transfer.logits(transfer.train(frozen.freeze(begun, count), data.X, data.y, Recipe(2, 30), (0,)), data.X)
        for count in (0, 1, 2)
    ]
    assert not any(np.allclose(said[i], said[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_a_frozen_part_is_as_when_asked():
    """Batch statistics and dropout of frozen layers do not move, those of the others do."""
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4))
    held = frozen.freeze(transfer.fresh(transfer.Teacher(net, "6"), (0, "batch")), 2)
    data = images("cifar-10", 60)
    trained = transfer.train(held, data.X, data.y, Recipe(2, 30), (0, "batch"))
    before, after = weights(held), weights(trained)
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("frozen"))
    assert not torch.equal(before["4.running_mean"], after["4.running_mean"])
    np.testing.assert_allclose(transfer.features(held, data.X), transfer.features(dataclasses.replace(held), data.X))


def test_the_last_layer_alone_is_what_a_loop_over_a_frozen_network_learns(teacher):
    """By features once, and by the whole frozen network in every epoch: the same loss in the end."""
    data, recipe = images("cifar-10", 90), Recipe(400, 30, rate=1e-2, decay=0.0)
    far = dataclasses.replace(teacher, deviation=(0.01,))
    student = frozen.last_layer(far, data.X, data.y, 4, recipe, (0, "head"))
    before, after = weights(far), weights(student)
    assert all(torch.equal(after[name], before[name]) for name in before if not name.startswith("fc2"))
    held = frozen.freeze(transfer.with_classes(far, 4, (0, "head")), 3)
    looped = transfer.train(held, data.X, data.y, recipe, (0, "head"))
    losses = [
        nn.functional.cross_entropy(torch.from_numpy(transfer.logits(net, data.X)), torch.from_numpy(data.y)).item()
        for net in (student, looped)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.1) and losses[0] < 1.2
    inputs = transfer.features(far, data.X)
    np.testing.assert_allclose(
        transfer.logits(student, data.X),
        inputs @ student.net.fc2.weight.detach().numpy().T + student.net.fc2.bias.detach().numpy(), atol=1e-4,
    )  # fmt: skip


def test_what_does_not_fit_is_refused_in_one_line(teacher):
    data = images("cifar-10", 60)
    about = {"records": 10, "epochs": 1, "last_layer_epochs": 1}
    over = [Split(np.arange(3), np.arange(3, 6)), Split(np.arange(5, 8), np.arange(8, 11))]
    cases = [
        (lambda: frozen.freeze(teacher, 4), "of 4 layers with weights 0 to 3 can be frozen, not 4"),
        (lambda: frozen.freeze(teacher, -1), "not -1"),
        (lambda: frozen.weighted(transfer.Teacher(Odd(), "flatten")), "a Odd does not tell the order"),
        (lambda: surfaces.trained([teacher] * 2, data, over, about, 0, 0), "students 0 and 1 share 1 records"),
        (lambda: dataclasses.replace(surfaces.size("demo"), families=1), "1 family: it takes a second one"),
        (lambda: surfaces.network("perceptron", data, "demo"), "perceptron"),
        (lambda: surfaces.size("huge"), "huge"),
    ]
    for call, said in cases:
        with pytest.raises(ValueError, match=said) as error:
            call()
        assert "\n" not in str(error.value)


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.flatten = nn.Flatten()


@pytest.mark.parametrize("profile", ["demo", "laptop", "paper"])
def test_sizes_fit_the_data(profile):
    about, n = surfaces.size(profile), 1797 if profile == "demo" else 60000
    for name, part in ((surfaces.TEACHERS, about.teacher), (surfaces.STUDENTS, about.student)):
        transfer.check_apart(surfaces.sides(name, n, about.families, part, 0))
    for kind in ("CNN", *about.others):
        net = surfaces.network(kind, images("cifar-100", 4, 100), profile)
        assert transfer.logits(net, images("cifar-100", 4, 100).X).shape == (4, 100)
        assert surfaces.last(net) >= 1


@pytest.mark.parametrize("profile", ["laptop", "paper"])
def test_families_without_a_teacher_are_the_students_of_the_other_exhibit(profile):
    rows = {(row.dataset, row.size): row for row in experiments.settings(profile) if row.transfer == experiments.NONE}
    about = surfaces.size(profile)
    for name, part in (("cifar-100", about.teacher), ("cifar-10", about.student)):
        assert rows[name, part["records"]].epochs == part["epochs"]


def test_networks_of_the_other_exhibit_serve_here(teacher):
    data, about = images("cifar-10", 240), {"records": 20, "epochs": 2}
    row = experiments.Row("cifar-10", "", experiments.NONE, 20, 2, 3)
    theirs = experiments.students(data, teacher, row, 0)
    side = surfaces.sides("cifar-10", 240, 4, about, 0)
    mine = experiments.own(surfaces.trained([teacher] * 4, data, side, about, 0), data, side)
    for one, other in zip(theirs, mine[:3], strict=True):
        np.testing.assert_array_equal(one.vectors, other.vectors)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Four teachers that learnt 100 records of noise by heart, and students of their last layer."""
    patch = pytest.MonkeyPatch()
    patch.setenv("MIALIB_CACHE", str(tmp_path_factory.mktemp("planted")))
    high, low = images("cifar-100", 1600, 10), images("cifar-10", 800, 4, 1)
    # As many as descent at its rate takes to learn a hundred records of noise by heart.
    about = {"records": 100, "epochs": 200, "last_layer_epochs": 100}
    sides = surfaces.sides("cifar-100", 1600, 8, about, 0), surfaces.sides("cifar-10", 800, 4, about, 0)
    families = surfaces.trained([transfer.cnn(3, 10, (16, 16), 64)] * 4, high, sides[0][:4], about, 0)
    yield families, surfaces.trained(families, low, sides[1], about, 0, 3), high, sides[0]
    patch.undo()


def evaluated(targets, shadows=None, surface=surfaces.THROUGH):
    asked = surfaces.Asked(surface, "CIFAR-100", "all", targets, {"she": shadows or targets}, [{"train_acc": 1.0}] * 4)
    attacked = surfaces.attack(asked, "she", "M", 0)
    return {
        name: [metrics.evaluate(s.member, r.score, r.predicted)["auc"] for s, r in zip(targets, found, strict=True)]
        for name, found in attacked.answers.items()
    }


def test_a_teacher_that_learnt_by_heart_is_seen_through_its_student(planted):
    families, students, high, side = planted
    for net, split in zip(families, side, strict=False):
        assert np.mean(transfer.logits(net, high.X[split.members]).argmax(1) == high.y[split.members]) > 0.95
    found = evaluated(surfaces.through(students, high, side[:4]))
    assert set(found) == {ADVERSARY_1, "nn", "threshold"}  # no true class: no gap
    assert np.mean(found[ADVERSARY_1]) > 0.6 and np.mean(found["threshold"]) > 0.6
    assert np.mean(evaluated(experiments.own(families, high, side[:4]), surface=surfaces.TEACHER)["gap"]) > 0.8


def test_students_whose_teachers_never_saw_the_records_tell_nothing(planted):
    _, students, high, side = planted
    found = evaluated(surfaces.through(students, high, side[4:]))
    deviation = np.sqrt(201 / (12 * 100 * 100) / 4)  # of the mean of four AUCs of noise
    assert all(abs(np.mean(values) - 0.5) < 4 * deviation for values in found.values())


def test_through_a_student_the_named_class_stands_for_the_true_one(planted):
    _, students, high, side = planted
    for seen, net, split in zip(surfaces.through(students, high, side[:4]), students, side, strict=False):
        asked = np.concatenate([split.members, split.non_members])
        np.testing.assert_allclose(seen.vectors, small.softmax(transfer.logits(net, high.X[asked])))
        np.testing.assert_array_equal(seen.y, seen.vectors.argmax(1))
        assert seen.member.tolist() == [True] * 100 + [False] * 100


def test_the_shadow_of_a_target_is_the_next_family(planted):
    _, students, high, side = planted
    targets = surfaces.through(students, high, side[:4])
    shadows = [dataclasses.replace(each, vectors=each.vectors.copy()) for each in targets]
    first = evaluated(targets, shadows)["threshold"]
    shadows[1] = dataclasses.replace(shadows[1], member=~shadows[1].member)
    other = evaluated(targets, shadows)["threshold"]
    assert [a == b for a, b in zip(first, other, strict=True)] == [False, True, True, True]


def test_the_teacher_of_other_data_is_asked_about_what_it_left_out():
    data = photographs.load(surfaces.ELSEWHERE, "demo")
    taught = experiments.teach(data, "demo", 0)
    split = surfaces.elsewhere(data, "demo", 0, 3)[2]
    assert len(split.members) == len(split.non_members) == 500 and not np.intersect1d(*dataclasses.astuple(split)).size
    right = transfer.logits(taught.teacher, data.X).argmax(1) == data.y
    assert right[split.members].mean() == pytest.approx(taught.about["train_acc"])
    assert np.delete(right, split.members).mean() == pytest.approx(taught.about["test_acc"])


def asked(families):
    names = (surfaces.ELSEWHERE, surfaces.TEACHERS, surfaces.STUDENTS)
    loaded = {name: photographs.load(name, "demo") for name in names}
    taught = experiments.teach(loaded[surfaces.ELSEWHERE], "demo", 0)
    student = {"records": 20, "epochs": 1, "last_layer_epochs": 2}
    about = surfaces.Size(families, {"records": 40, "epochs": 1}, student, ("MLP",))
    return surfaces.ask(loaded, taught, about, "demo", 0)


@pytest.fixture(scope="module")
def table():
    return surfaces.measured(asked(2), "S", 0)


def test_a_shadow_of_the_targets_teacher_has_that_teacher_and_the_next_records(monkeypatch):
    calls, trained = [], surfaces.trained

    def recorded(begun, *rest):
        calls.append((begun, trained(begun, *rest)))
        return calls[-1][1]

    monkeypatch.setattr(surfaces, "trained", recorded)
    found = asked(3)
    families = calls[0][1]
    of_families = [begun for begun, _ in calls if begun[0] in families]
    turned = [begun for begun in of_families if begun[0] is not families[0]]
    assert (len(of_families), len(turned)) == (4 + 2, 2)
    for begun in turned:
        assert all(begun[(i + 1) % 3] is families[i] for i in range(3))
    for each in found:  # of the records of a family, in every attacker's hands
        shadows = [shadows for name, shadows in each.shadows.items() if name != surfaces.OTHER_DATA]
        for shadow in shadows:
            assert all(len(a.y) == len(b.y) for a, b in zip(shadow, each.targets, strict=True))


def test_every_surface_meets_its_attackers(table):
    met = table.groupby(["surface", "frozen"], sort=False)["attacker"].unique().map(set)
    unknown = "another network, MLP"
    assert met[surfaces.TEACHER, surfaces.NO_STUDENT] == {surfaces.OWN, unknown}
    whole = {surfaces.OWN, surfaces.SAME, surfaces.OTHER_DATA, surfaces.NO_TEACHER, unknown}
    for named in ("none frozen", "all frozen but the last"):
        assert met[surfaces.STUDENT, named] == whole
        assert met[surfaces.THROUGH, named] == {surfaces.OWN, surfaces.OTHER_DATA, unknown}
    for named in ("first layer frozen", "first 2 layers frozen"):
        assert met[surfaces.STUDENT, named] == met[surfaces.THROUGH, named] == {surfaces.OWN}
    for surface in (surfaces.STUDENT, surfaces.THROUGH):
        assert met[surface, surfaces.NO_TEACHER] == {surfaces.NO_TEACHER}
    gap = table[(table["attack"] == "gap") & (table["metric"] == "auc")]
    assert set(gap["surface"]) == {surfaces.TEACHER, surfaces.STUDENT}
    assert (gap.groupby(["surface", "frozen"])["value"].nunique() == 1).all()  # it asks no shadow


def test_cells_have_no_published_number_and_all_are_shown(table):
    cells = surfaces.cells(table)
    assert {cell["verdict"] for cell in cells} == {"not comparable"} and {cell["published"] for cell in cells} == {None}
    assert len(cells) == len({(cell["dataset"], cell["setting"], cell["metric"]) for cell in cells})
    json.dumps(cells, allow_nan=False)
    assert [len(surfaces.wide(table, surface)) for surface in surfaces.SURFACES] == [2, 13, 9]
    assert "AUC, gap" not in surfaces.wide(table, surfaces.THROUGH)
    for attackers in (False, True):
        rows = surfaces.drawn(table, attackers)
        assert rows["panel"].nunique() == 4 and not rows.duplicated(["label", "panel"]).any()
        assert rows["gap"].notna().equals(rows["surface"] == surfaces.STUDENT)
        plots.dots(rows, "AUC")


def test_other_networks_can_be_frozen_too():
    net = transfer.fresh(transfer.Teacher(nets.make("resnet-8", 3, 10), "flatten"), (0, "resnet"))
    names = frozen.weighted(net)
    assert names == ["conv1", "bn1", "layer1", "layer2", "layer3", "linear"]
    held = frozen.freeze(net, 5)
    assert held.layer == "frozen.flatten" and [name for name, _ in held.net.named_parameters()] == [
        "linear.weight",
        "linear.bias",
    ]
    X = images("cifar-10", 4).X
    np.testing.assert_allclose(transfer.features(held, X), transfer.features(net, X), atol=1e-5)
    assert set(exhibits.ATTACKS) >= {ADVERSARY_1, "gap"}
