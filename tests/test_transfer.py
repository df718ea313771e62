"""Students of a teacher: what is frozen says the same as in the whole network, and what leaks is what was planted."""

import copy
import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

from mialib import machine, metrics, papers, runs
from mialib.attacks.mlleaks import ADVERSARY_1
from mialib.data import caltech, photographs
from mialib.data.datasets import Dataset
from mialib.data.splits import Split
from mialib.models import fit, modules, nets, small, targets, transfer
from mialib.papers.zou2020 import exhibits, experiments, surfaces
from mialib.results import plots, published, tables

EPOCHS = 15  # of a ResNet
ROW = experiments.Row("cifar-10", "cifar-100", experiments.LAST, 60, 100, 3)


def images(n=400, classes=4, noise=0.0, seed=0):
    """Patterns, one a class, under noise; a share `noise` of the labels is drawn at random."""
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=n)
    X = np.clip(rng.normal(128, 25, (classes, 3, 32, 32))[y] + rng.normal(0, 25, (n, 3, 32, 32)), 0, 255)
    y = np.where(rng.random(n) < noise, rng.integers(classes, size=n), y)
    X = X.astype(np.uint8)
    return Dataset("cifar-10", X, y, classes, "M", "planted", runs.digest(X, y))


@pytest.fixture(scope="module")
def teacher():
    return transfer.fresh(transfer.cnn(3, 7, (8, 8), 64), (0, "teacher"))


def hooked(teacher, X):
    """What the layer says while the whole network runs, one image after another."""
    found = []
    hook = teacher.net.get_submodule(teacher.layer).register_forward_hook(lambda _, __, out: found.append(out))
    with torch.no_grad():
        for image in X:
            scaled = (torch.from_numpy(image)[None].float() / 255 - 0.5) / 0.5
            teacher.net.eval()(scaled)
    hook.remove()
    return torch.cat(found).flatten(1).numpy()


@pytest.mark.parametrize("layer", ["conv1", "pool2", "relu3", "fc2"])
def test_features_are_those_of_a_hook_on_the_whole_network(teacher, layer):
    frozen, X = dataclasses.replace(teacher, layer=layer), images(130).X
    np.testing.assert_allclose(transfer.features(frozen, X), hooked(frozen, X), atol=2e-5)


@pytest.mark.parametrize(
    ("make", "layer"),
    [
        (lambda: torchvision.models.squeezenet1_1(weights=None), "features.4"),
        (lambda: nets.make("resnet-8", 3, 10), "layer2.0"),
        (lambda: nets.make("alexnet", 3, 10), "flatten"),
    ],
)
def test_any_module_with_named_layers_is_a_teacher(make, layer):
    frozen, X = transfer.fresh(transfer.Teacher(make(), layer), (0, layer)), images(6).X
    np.testing.assert_allclose(transfer.features(frozen, X), hooked(frozen, X), atol=2e-5)


def test_layers_after_the_frozen_one_are_not_run_and_features_are_kept(teacher):
    net = nn.Sequential(*teacher.net[:9], nn.Linear(1, 1))  # its last layer would not fit
    frozen, X = transfer.Teacher(net, "8"), images(150).X
    first = transfer.features(frozen, X)
    np.testing.assert_array_equal(first, transfer.features(teacher, X))
    asked = []
    hook = net.register_forward_pre_hook(lambda _, given: asked.append(len(given[0])))
    np.testing.assert_array_equal(transfer.features(frozen, X), first)
    hook.remove()
    assert asked == [transfer.PROBED]


def test_other_weights_scales_and_code_have_other_features(teacher):
    class Twice(nn.Sequential):
        def forward(self, x):
            return 2 * super().forward(x)

    X = images(20).X
    first = transfer.features(teacher, X)
    assert not np.array_equal(transfer.features(transfer.fresh(teacher, (1, "other")), X), first)
    assert not np.array_equal(transfer.features(dataclasses.replace(teacher, mean=(0.4,)), X), first)
    plain, twice = (transfer.Teacher(nn.Sequential(kind(nn.Flatten())), "0") for kind in (nn.Sequential, Twice))
    np.testing.assert_array_equal(transfer.features(twice, X), 2 * transfer.features(plain, X))


def test_what_does_not_fit_is_refused_in_one_line(teacher):
    X = images(10).X
    wide = transfer.cnn(3, 4, side=40)
    cases = [
        (lambda: transfer.Teacher(teacher.net, "fc7"), "no layer 'fc7'; its layers: conv1, pool1"),
        (lambda: dataclasses.replace(teacher, mean=(0.5, 0.4)), "takes 3 channels, its scale has 2 numbers"),
        (lambda: transfer.fresh(transfer.Teacher(Shifted(), "flatten"), (0,)), "a Shifted has weights that it cannot"),
        (lambda: transfer.features(teacher, X[:, :, :28, :28]), "takes images of 3x32x32, these are 3x28x28"),
        (lambda: transfer.features(wide, X), "takes images of 3x40x40, these are 3x32x32"),
        (lambda: transfer.features(dataclasses.replace(wide, inputs=(3, 32, 32)), X), "cannot take these images"),
        (lambda: transfer.features(teacher, X.astype(float)), "of uint8"),
        (lambda: transfer.features(teacher, X[:0]), "at least one image"),
        (lambda: transfer.features(transfer.Teacher(Unused(), "unused"), X), "is not run"),
        (lambda: transfer.train(teacher, X, np.full(10, 9), fit.Recipe(1), (0,)), "9"),
        (lambda: transfer.train(teacher, X, np.zeros(9, int), fit.Recipe(1), (0,)), "9"),
        (lambda: transfer.descend(dataclasses.replace(teacher, mean=(0.4,)), X, X, None, (0,)), "fed in -1..1 here"),
        (lambda: transfer.descend(teacher, X[:, :1], X, None, (0,)), "takes images of 3x32x32"),
        (lambda: transfer.with_classes(transfer.Teacher(nn.Sequential(nn.ReLU()), "0"), 3, (0,)), "no linear layer"),
    ]
    for call, said in cases:
        with pytest.raises(ValueError, match=said) as error:
            call()
        assert "\n" not in str(error.value)


class Shifted(nn.Module):
    def __init__(self):
        super().__init__()
        self.shift, self.flatten = nn.Parameter(torch.zeros(1)), nn.Flatten()


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.unused, self.flatten = nn.ReLU(), nn.Flatten()

    def forward(self, x):
        return self.flatten(x)


def test_no_record_is_on_two_sides():
    transfer.check_apart([Split(np.arange(3), np.arange(3, 6)), Split(np.arange(6, 9), np.arange(9, 12))])
    with pytest.raises(ValueError, match="student 0: 2 records are members and non-members at once"):
        transfer.check_apart([Split(np.arange(3), np.arange(1, 4))])
    with pytest.raises(ValueError, match="students 0 and 1 share 1 records"):
        transfer.check_apart([Split(np.arange(3), np.arange(3, 6)), Split(np.arange(5, 8), np.arange(8, 11))])
    with pytest.raises(ValueError, match="share 2 records"):
        side = [Split(np.arange(3), np.arange(3, 6)), Split(np.arange(4, 7), np.arange(7, 10))]
        surfaces.trained([transfer.cnn(3, 4)] * 2, images(), side, {"records": 3, "epochs": 1}, 0)


def test_heads_learn_what_one_loop_over_the_whole_network_learns(teacher):
    """The last layer alone, by torch.optim.Adam through the frozen network: the same sums in another order."""
    data, rows, recipe, words = images(), np.arange(90), fit.Recipe(4, 30, decay=0.0), (0, "head")
    model, [theta] = transfer.heads(transfer.features(teacher, data.X), data.y, 4, [rows], [words], recipe)
    rng = runs.stream(*words)
    begun = small.layers(model, small.initial(model, rng))[0]
    last = nn.Linear(64, 4)
    last.load_state_dict({"weight": torch.tensor(begun[0].T), "bias": torch.tensor(begun[1])})
    optimiser = torch.optim.Adam(last.parameters(), recipe.rate)
    for _ in range(recipe.epochs):
        for batch in np.split(rng.permutation(90), range(30, 90, 30)):
            optimiser.zero_grad()
            entered = torch.from_numpy(hooked(teacher, data.X[batch]))
            nn.functional.cross_entropy(last(entered), torch.from_numpy(data.y[batch])).backward()
            optimiser.step()
    np.testing.assert_allclose(small.layers(model, theta)[0][0], last.weight.detach().T, atol=1e-4)


def test_fine_tuning_begins_with_the_teacher_and_leaves_it_as_it_was(teacher):
    data = images(60)
    before = {name: tensor.clone() for name, tensor in teacher.net.state_dict().items()}
    begun = transfer.with_classes(teacher, 4, (0, "student"))
    for name, tensor in begun.net.state_dict().items():
        assert torch.equal(tensor, before[name]) != name.startswith("fc2")
    student = transfer.train(begun, data.X, data.y, fit.Recipe(20, 30), (0, "student"))
    again = transfer.train(begun, data.X, data.y, fit.Recipe(20, 30), (0, "student"))
    np.testing.assert_array_equal(transfer.logits(student, data.X), transfer.logits(again, data.X))
    assert (transfer.logits(student, data.X).argmax(1) == data.y).mean() > 0.9
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.net.state_dict().items())
    state = torch.get_rng_state()
    other = transfer.fresh(begun, (0, "student"))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(other.net.conv1.weight, begun.net.conv1.weight)


def test_dropout_is_drawn_from_the_words_alone(teacher, monkeypatch, tmp_path):
    data, net = images(60), nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3072, 4))
    begun, found = transfer.fresh(transfer.Teacher(net, "1"), (0, "dropout")), []
    for number in range(2):  # as two people would train it
        monkeypatch.setenv("MIALIB_CACHE", str(tmp_path / str(number)))
        torch.manual_seed(number)
        state = torch.get_rng_state()
        trained = transfer.train(begun, data.X, data.y, fit.Recipe(3, 30), (0, "dropout"))
        assert torch.equal(torch.get_rng_state(), state)
        found.append(transfer.logits(trained, data.X))
    np.testing.assert_array_equal(*found)


def test_a_resnet_learns_with_its_running_means_and_is_kept():
    """Beside a literal loop: momentum, a rate that falls, batch statistics that move while it learns alone."""
    data = images(200)
    begun = transfer.fresh(transfer.with_classes(experiments.network(data, "laptop", "resnet-8"), 4, (0,)), (0,))
    before = {name: tensor.clone() for name, tensor in begun.net.state_dict().items()}
    [student] = experiments.learn([(begun, data.X, data.y, EPOCHS, (0, "student"))])
    state, net = student.net.state_dict(), copy.deepcopy(begun.net).train()
    rng, done, rate = runs.stream(0, "student"), 0, experiments.RATES[True]
    rng.integers(2**62)  # of dropout, which a ResNet has none of
    descent = torch.optim.SGD(net.parameters(), rate, 0.9)
    with small.one_thread():
        for _ in range(EPOCHS):
            for rows in np.split(rng.permutation(200), (50, 100, 150)):
                descent.param_groups[0]["lr"] = rate * (1 - done / 4 / EPOCHS)
                descent.zero_grad()
                with torch.autocast("cpu", torch.bfloat16, enabled=machine.precision() == "bfloat16"):
                    said = net(torch.from_numpy(data.X[rows]).float() / 127.5 - 1)
                nn.functional.cross_entropy(said.float(), torch.from_numpy(data.y[rows])).backward()
                descent.step()
                done += 1
    assert not student.net.training and state["bn1.num_batches_tracked"] == 4 * EPOCHS
    assert not torch.equal(state["bn1.running_mean"], before["bn1.running_mean"])
    np.testing.assert_allclose(state["bn1.running_mean"], net.state_dict()["bn1.running_mean"], atol=0.05)
    right = transfer.logits(student, data.X).argmax(1) == data.y
    assert right.mean() > 0.8
    entered = transfer.features(student, data.X)
    np.testing.assert_allclose(entered, hooked(student, data.X), atol=1e-4)
    with torch.no_grad():
        last = student.net.linear(torch.from_numpy(entered))
    np.testing.assert_allclose(last, transfer.logits(student, data.X), atol=1e-4)
    [again] = experiments.learn([(begun, data.X, data.y, EPOCHS, (0, "student"))])
    assert all(torch.equal(tensor, state[name]) for name, tensor in again.net.state_dict().items())
    assert all(torch.equal(tensor, before[name]) for name, tensor in begun.net.state_dict().items())
    drawn = transfer.fresh(student, (1,)).net.state_dict()
    assert not drawn["bn1.running_mean"].any() and not torch.equal(drawn["conv1.weight"], state["conv1.weight"])


def test_networks_learn_at_the_rate_of_their_kind_each_by_itself(teacher, monkeypatch):
    data, begun = images(60), transfer.with_classes(teacher, 4, (0, "student"))
    other = transfer.fresh(experiments.network(data, "demo", "resnet-8-4"), (0,))
    jobs = [(net, data.X, data.y, 2, (0, i)) for i, net in enumerate((begun, other, begun))]
    together = experiments.learn(iter(jobs))
    monkeypatch.setenv("MIALIB_WORKERS", "1")
    for (net, X, y, epochs, words), found, rate in zip(jobs, together, (0.02, 0.05, 0.02), strict=True):
        alone = transfer.descend(net, X, y, modules.Descent(epochs, rate, experiments.BATCH), words)
        np.testing.assert_array_equal(transfer.logits(found, X), transfer.logits(alone, X))
    assert not np.array_equal(transfer.logits(together[0], data.X), transfer.logits(together[2], data.X))


def test_a_resnet_teacher_is_the_target_that_is_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("MIALIB_CACHE", str(tmp_path))
    data = photographs.load("caltech-101", "demo")
    found, again = (experiments.teach(data, "demo", seed, "resnet-8-4") for seed in (0, 1))
    name = "caltech-101-resnet-demo"
    trained = targets.load(name, papers.targets("demo")[name], "demo")
    assert not (tmp_path / "targets").exists()  # it was not trained again
    assert sorted(map(bytes, trained.data.X)) == sorted(map(bytes, data.X)) and len(np.unique(trained.data.y[:50])) > 5
    said = [transfer.logits(each.teacher, trained.data.X) for each in (found, again)]
    np.testing.assert_array_equal(*said)
    np.testing.assert_allclose(small.softmax(said[0]), targets.confidences(trained), atol=1e-5)
    right = said[0].argmax(1) == trained.data.y
    assert found.about["train_acc"] == pytest.approx(right[trained.data.member].mean())
    assert found.about["test_acc"] == pytest.approx(right[~trained.data.member].mean())
    assert (found.about["records"], found.about["epochs"], found.about["network"]) == (1497, 5, "ResNet-8-4")


def test_all_rows_together_are_each_by_itself():
    rows = [
        experiments.Row("cifar-10", "fashion-mnist", experiments.FULL, 20, 2, 2),
        experiments.Row("cifar-10", "fashion-mnist", experiments.LAST, 20, 5, 3),
        experiments.Row("cifar-10", "", experiments.NONE, 20, 2, 2),
    ]
    loaded = {name: photographs.load(name, "demo") for name in ("cifar-10", "fashion-mnist")}
    taught = experiments.teach_all(loaded, [(experiments.CNN, "fashion-mnist")], "demo", 0)
    assert taught[experiments.CNN, "fashion-mnist"].about == experiments.teach(loaded["fashion-mnist"], "demo", 0).about
    everyone = experiments.run_all(loaded, taught, rows, "demo", 0)
    for row, attacked in zip(rows, everyone, strict=True):
        net = (
            taught[experiments.CNN, "fashion-mnist"].teacher
            if row.teacher
            else experiments.network(loaded["cifar-10"], "demo")
        )
        for mine, theirs in zip(experiments.students(loaded["cifar-10"], net, row, 0), attacked.records, strict=True):
            np.testing.assert_array_equal(mine.vectors, theirs.vectors)
        assert attacked.about["tier"] == "S" and attacked.about["students"] == row.count


def test_a_row_that_needs_too_many_records_is_refused_before_any_student_is_trained(teacher, monkeypatch):
    monkeypatch.setattr(experiments, "learn", lambda jobs: pytest.fail("trained"))
    rows = [
        experiments.Row("cifar-10", "", experiments.NONE, 20, 2, 2),
        experiments.Row("cifar-10", "cifar-100", experiments.LAST, 100, 2, 3),
    ]
    taught = {(experiments.CNN, "cifar-100"): experiments.Taught(teacher, "R", {})}
    with pytest.raises(ValueError, match="3 students of 100 records need 600 records, there are 400"):
        experiments.run_all({"cifar-10": images()}, taught, rows, "demo", 0)


def test_small_grey_images_are_made_large():
    found = photographs.enlarged(np.linspace(0, 1, 2 * 784, dtype=np.float32).reshape(2, 784))
    assert found.shape == (2, 3, 32, 32) and found.dtype == np.uint8 and found.max() == 255
    assert not found[:, :, :2].any() and not found[..., -2:].any()
    np.testing.assert_array_equal(found[1, 2, 2:30, 2:30].ravel(), (255 * np.linspace(0, 1, 1568)[784:]).round())
    blocks = photographs.enlarged(np.eye(64, dtype=np.float32)[9:10])[0, 0]
    assert (blocks[4:8, 4:8] == 255).all() and blocks.astype(int).sum() == 16 * 255


def test_students_have_records_of_their_own():
    side = experiments.drawn(ROW, 400, 3)
    assert len(np.unique(np.concatenate([np.concatenate([s.members, s.non_members]) for s in side]))) == 360
    assert not np.array_equal(side[0].members, experiments.drawn(ROW, 400, 4)[0].members)
    with pytest.raises(ValueError, match="3 students of 60 records need 360 records, there are 300"):
        experiments.drawn(ROW, 300, 0)


def test_a_last_layer_is_asked_about_the_records_on_a_side_alone(teacher, monkeypatch):
    data, side, asked, features = images(), experiments.drawn(ROW, 400, 0), [], transfer.features
    inputs, words = features(teacher, data.X), [(0, experiments.PAPER, "student", "cifar-10", 60, i) for i in range(3)]
    members = [split.members for split in side]
    model, thetas = transfer.heads(inputs, data.y, 4, members, words, fit.Recipe(100, experiments.BATCH))
    monkeypatch.setattr(transfer, "features", lambda net, X: asked.append(len(X)) or features(net, X))
    for seen, theta, split in zip(experiments.students(data, teacher, ROW, 0), thetas, side, strict=True):
        rows = np.concatenate([split.members, split.non_members])
        np.testing.assert_allclose(seen.vectors, small.softmax(small.logits(model, theta, inputs[rows])), atol=1e-4)
        np.testing.assert_array_equal(seen.y, data.y[rows])
        np.testing.assert_array_equal(seen.member, np.isin(rows, split.members))
    assert asked == [360]


def auc(attacked):
    return {
        name: tables.summary(attacked).set_index(["attack", "metric"])["value"][name, "auc"]
        for name in attacked.answers
    }


@pytest.fixture(scope="module")
def rich(teacher):
    """Many large features, by which a linear layer tells any hundred records apart."""
    return dataclasses.replace(teacher, layer="flatten", deviation=(0.004,))


def test_students_that_learnt_noise_by_heart_are_seen_by_every_attack(rich):
    data = images(1000, noise=1.0)
    row = dataclasses.replace(ROW, size=100, count=5)
    each = experiments.students(data, rich, row, 0)
    assert [seen.member.sum() for seen in each] == [100] * 5
    attacked = experiments.attack(data, each, row, 0)
    assert np.mean([a["train_acc"] for a in attacked.accuracies]) > 0.9
    found = auc(attacked)
    assert found.pop(ADVERSARY_1) > 0.55  # it is not told the label, so a confident mistake looks like a member to it
    assert min(found.values()) > 0.75
    gap = np.mean([a["train_acc"] - a["test_acc"] for a in attacked.accuracies])
    found = [
        metrics.evaluate(s.member, r.score, r.predicted)["balanced_accuracy"] for s, r in tables.pairs(attacked, "gap")
    ]
    assert np.mean(found) == pytest.approx(0.5 + gap / 2)


def test_students_that_learnt_other_records_tell_nothing_of_these(rich):
    data = images(2000, noise=1.0)
    row = dataclasses.replace(ROW, size=100, count=5)
    learnt, asked = (np.array_split(half, 10) for half in np.split(np.arange(2000), 2))
    side = [Split(*learnt[2 * i : 2 * i + 2]) for i in range(5)]
    inputs, recipe = transfer.features(rich, data.X), fit.Recipe(row.epochs, 50)
    words = [(0, i) for i in range(5)]
    model, thetas = transfer.heads(inputs, data.y, 4, [s.members for s in side], words, recipe)
    assert np.mean(small.logits(model, thetas[0], inputs[learnt[0]]).argmax(1) == data.y[learnt[0]]) > 0.9
    others = [Split(*asked[2 * i : 2 * i + 2]) for i in range(5)]
    each = [
        experiments.shadow.seen(
            lambda rows, t=theta: small.softmax(small.logits(model, t, inputs[rows])), data.y, split
        )
        for theta, split in zip(thetas, others, strict=True)
    ]
    deviation = np.sqrt(201 / (12 * 100 * 100) / 5)  # of the mean of five AUCs of noise
    assert all(abs(value - 0.5) < 4 * deviation for value in auc(experiments.attack(data, each, row, 0)).values())


@pytest.mark.parametrize("kind", [experiments.FULL, experiments.NONE])
def test_the_whole_network_is_trained_and_asked(teacher, kind):
    data = images(noise=0.5)
    of = "" if kind == experiments.NONE else "cifar-100"
    row = experiments.Row("cifar-10", of, kind, 60, 30, 2)
    each = experiments.students(data, teacher, row, 0)
    for seen in each:
        np.testing.assert_allclose(seen.vectors.sum(1), 1, atol=1e-5)
        right = seen.vectors.argmax(1) == seen.y
        assert right[seen.member].mean() > right[~seen.member].mean()


@pytest.mark.parametrize("profile", ["demo", "laptop", "paper"])
def test_rows_are_whole(profile):
    sizes = {"demo": {"cifar-10": 1797, "cifar-100": 1797}}.get(profile, {"cifar-10": 60000, "cifar-100": 60000})
    rows = experiments.settings(profile)
    for row in rows:
        experiments.drawn(row, sizes[row.dataset], 0)
    assert len(set(rows)) == len({dataclasses.replace(row, count=2) for row in rows}) == len(rows)
    several = {(row.network, row.dataset, row.teacher, row.transfer, row.size): row.count for row in rows}
    assert all(several[row.network, row.dataset, row.teacher, row.transfer, row.size] == row.count for row in rows)
    assert len(rows) - len(several) == (1 if profile == "demo" else 3)  # the one sweep of epochs
    others = [row for row in rows if row.network != experiments.CNN]
    kinds = [experiments.FULL] if profile == "demo" else [experiments.FULL, experiments.LAST]
    assert [row.transfer for row in others] == kinds and len({row.size for row in others}) == 1
    assert {row.network for row in others} == {"resnet-8-4" if profile == "demo" else "resnet-20"}
    known = {(experiments.CNN, name) for name in papers.sizes(experiments.PAPER)["teachers"][profile]}
    known |= {(target.network, target.dataset) for target in papers.targets(profile, experiments.PAPER).values()}
    assert all((row.network, row.teacher) in known for row in rows if row.teacher)
    for wrong in ({"transfer": "half"}, {"teacher": ""}, {"transfer": experiments.NONE}, {"count": 1}):
        with pytest.raises(ValueError, match=r"transfer|teacher|student"):
            dataclasses.replace(ROW, **wrong)


def test_caltech_is_refused_unless_it_is_whole(monkeypatch, tmp_path):
    demo = caltech.load("demo")
    assert demo.X.shape == (1797, 3, 32, 32) and demo.classes == 10 and demo.tier == "S"
    monkeypatch.setenv("MIALIB_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"put the folder 101_ObjectCategories of https.* into"):
        caltech.load("laptop")
    folder = tmp_path / "caltech101"
    folder.mkdir()
    (folder / caltech.FILE).write_bytes(b"else")
    with pytest.raises(ValueError, match="does not hold Caltech-101"):
        caltech.load("laptop")
    np.savez(folder / caltech.FILE, X=np.zeros((5, 32, 32, 3), np.uint8), y=np.arange(5))
    with pytest.raises(ValueError, match="9,145 images of 102 classes are wanted, there are 5 of 5"):
        caltech.load("laptop")


def put_photographs(folder, size=(70, 50)):
    """Two classes of two: grey left and right of the centre square, which has a patch of white in its upper left."""
    for name, kind in ((name, kind) for name in "ab" for kind in ("image_0001.jpg", "tmp")):
        pixels = np.full((size[1], size[0], 3), 90, np.uint8)
        pixels[:25, 10:35] = 255
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name / kind, "jpeg", quality=100)
        (folder / name / f".{kind}").write_bytes(b"what a computer leaves")


def test_photographs_are_made_small_once(monkeypatch, tmp_path):
    monkeypatch.setenv("MIALIB_DATA", str(tmp_path))
    folder = tmp_path / "caltech101" / "101_ObjectCategories"
    put_photographs(folder)
    monkeypatch.setattr(caltech, "IMAGES", 4)
    monkeypatch.setattr(caltech, "CLASSES", 2)
    with pytest.warns(UserWarning, match="not pixel for pixel"):
        made = caltech.load("laptop")
    white = made.X > 200
    assert white[:, :, :15, :15].all() and not white[:, :, 17:].any() and not white[:, :, :, 17:].any()
    assert list(made.y) == [0, 0, 1, 1]
    monkeypatch.setattr(caltech, "reduced", None)
    monkeypatch.setattr(caltech, "DIGEST", made.digest)
    np.testing.assert_array_equal(caltech.load("laptop").X, made.X)


def test_a_teacher_of_the_demo_has_not_seen_its_students_records():
    names = ("caltech-101", "cifar-100", "cifar-10", "fashion-mnist")
    stand_ins = {name: {image.tobytes() for image in photographs.load(name, "demo").X} for name in names}
    for row in experiments.settings("demo"):
        assert not row.teacher or not stand_ins[row.dataset] & stand_ins[row.teacher]


def planted(teacher, transfers=experiments.TRANSFERS):
    data = images(1600, noise=0.5)
    found = []
    for kind in transfers:
        of = "" if kind == experiments.NONE else "cifar-100"
        row = experiments.Row("cifar-10", of, kind, 100, 5, 3)
        each = experiments.students(data, teacher, row, 0)
        found.append(
            dataclasses.replace(
                attacked := experiments.attack(data, each, row, 0), about=attacked.about | {"tier": "R"}
            )
        )
    return found


def test_cells_stand_beside_the_published_numbers_and_have_no_verdict(teacher):
    table = exhibits.measured(planted(teacher))
    headline = table[table["setting"] != experiments.NONE].assign(dataset="CIFAR-100", teacher="Caltech-101", size=2500)
    table = pd.concat([headline, table], ignore_index=True)
    about = {"network": "CNN", "data": "Caltech-101", "train_acc": 0.9, "test_acc": 0.4}
    cells = exhibits.compare(table, [experiments.Taught(teacher, "R", about)], "laptop")
    held = {cell["setting"]: cell for cell in cells if cell["published"] is not None and cell["value"] is not None}
    assert {cell["verdict"] for cell in cells} == {"not comparable"}
    assert held["student of Caltech-101, CNN, full fine-tuning"]["published"] == 0.95
    assert not any(cell["primary"] for name, cell in held.items() if name.startswith("student of Caltech-101"))
    values = headline.set_index(["setting", "attack", "metric"])["value"]
    assert held["student of Caltech-101, CNN, last layer"]["value"] == values["last layer", ADVERSARY_1, "auc"]
    for kind, gap in (("last layer", 0.7834), ("full fine-tuning", 0.7784), ("no transfer", 0.8467)):
        assert held[f"{kind}, 100 records, gap"]["published"] == gap
        distance = held[f"{kind}, 100 records, boundary distance, confidences"]
        assert distance["primary"] and "labels alone" in distance["note"]
        other = held[f"{kind}, 100 records, boundary distance, true class"]
        mine = table[(table["setting"] == kind) & (table["dataset"] == "CIFAR-10")].set_index(["attack", "metric"])
        assert other["value"] == mine["value"]["threshold", "balanced_accuracy"] and not other["primary"]
        assert distance["value"] == mine["value"][ADVERSARY_1, "balanced_accuracy"]
        assert exhibits.NETWORK in held[f"{kind}, 100 records, gap"]["cause"]
    assert {c["cause"] for c in exhibits.compare(table, [], "demo") if c["value"] is not None and c["published"]} == {
        "demo profile"
    }
    json.dumps(cells, allow_nan=False)


def test_only_the_resnet_that_is_fine_tuned_whole_has_a_verdict(teacher):
    table = exhibits.measured(planted(teacher, experiments.TRANSFERS[:2]))
    of_cnn = table.assign(dataset="CIFAR-100", teacher="Caltech-101", size=2500)
    attacked = (table["attack"] == ADVERSARY_1) & (table["metric"] == "auc")
    near = {name: table[name].mask(attacked, at) for name, at in (("value", 0.95), ("low", 0.94), ("high", 0.96))}
    of_resnet = of_cnn.assign(network="ResNet-20", **near)
    both = pd.concat([of_resnet, of_cnn], ignore_index=True)
    cells = exhibits.compare(both, [], "laptop")
    keys = [(cell["dataset"], cell["setting"], cell["metric"]) for cell in cells]
    assert len(keys) == len(set(keys))
    held = {cell["setting"]: cell for cell in cells if cell["metric"] == "attack_auc" and cell["published"] is not None}
    verdicts = {name.removeprefix("student of Caltech-101, "): cell["verdict"] for name, cell in held.items()}
    assert verdicts == {
        "full fine-tuning": "reproduced",
        "last layer": "reproduced",
        "CNN, full fine-tuning": "not comparable",
        "CNN, last layer": "not comparable",
    }
    assert [cell["primary"] for cell in held.values()].count(True) == 1
    assert held["student of Caltech-101, full fine-tuning"]["primary"]
    assert published.counts(cells)["reproduced"] == 1
    drawn = exhibits.headline(both)
    assert set(drawn.loc[drawn["published"].notna(), "label"]) == {"ResNet-20: full fine-tuning of Caltech-101"}
    assert {c["verdict"] for c in exhibits.compare(both, [], "demo")} == {"not comparable"}


def test_students_of_fewer_epochs_stand_apart(teacher):
    table = exhibits.measured(planted(teacher))
    fewer = table[table["setting"] == experiments.FULL].assign(epochs=2, value=0.25)
    both = pd.concat([table, fewer], ignore_index=True)
    assert list(exhibits.longest(both)) == [True] * len(table) + [False] * len(fewer)
    cells = exhibits.compare(both, [], "laptop")
    held = [cell for cell in cells if cell["published"] is not None and cell["value"] is not None]
    assert len(held) == 9 and 0.25 not in {cell["value"] for cell in held}
    names = {cell["setting"] for cell in cells if cell["value"] == 0.25}
    assert "full fine-tuning of CIFAR-100, 100 members, 2 epochs, gap" in names
    [line] = [line for line in exhibits.by_epochs(both).axes[0].lines if line.get_label() == ADVERSARY_1]
    assert list(line.get_xdata()) == [2, 5] and line.get_ydata()[0] == 0.25
    assert 0.25 not in {y for ax in exhibits.by_size(both).axes for line in ax.lines for y in line.get_ydata()}
    assert exhibits.wide(both).shape == (4, 7)


def test_figures_and_tables_of_planted_students(teacher):
    table = exhibits.measured(planted(teacher))
    assert exhibits.wide(table).shape == (3, 7)
    figure = exhibits.by_size(table)
    assert [ax.get_title() for ax in figure.axes] == list(experiments.TRANSFERS)
    [line] = [li for li in figure.axes[0].lines if li.get_label() == "published: gap"]
    assert list(line.get_ydata()) == [0.7834, 0.7062, 0.6149, 0.5337]
    drawn = exhibits.headline(table.assign(dataset="CIFAR-100", teacher="Caltech-101", network="ResNet-20"))
    assert drawn["published"].notna().sum() == 1 and not drawn.duplicated(["label", "panel"]).any()
    plots.dots(drawn, "AUC")


def test_the_published_table_is_whole():
    table, points = published.load(exhibits.TABLE), exhibits.printed_points()
    assert len(table) == 28 and len(points) == 24 and set(points["transfer"]) == set(experiments.TRANSFERS)
    assert sorted(set(points["size"])) == [100, 1000, 2500, 10000]
    wide = points.pivot(index=["transfer", "size"], columns="attack", values="published")
    assert (wide["boundary distance"] >= wide["gap"] - 0.001).all()
