"""Target models: their shapes, their training, and what is kept of them."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from mialib import config, machine, papers, runs, work
from mialib.data import datasets, files
from mialib.models import nets, targets
from mialib.models.targets import Target
from mialib.papers.rezaei2020 import exhibits, experiments

TINY = Target("mnist", "lenet", 3, 64, 1e-3, decay=0.0, augment=False, scale="mnist", observe=2)
SMALL = Target("cifar-10", "resnet-8-4", 2, 100, 0.1, (1,))


STATED = {"resnet-20": 0.9173, "resnet-56": 0.9339}  # test accuracy (akamaster/pytorch_resnet_cifar10, README)


# --- shapes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "channels", "side", "parameters", "last"),
    [
        ("lenet", 1, 28, 60_074, 84),
        ("alexnet", 3, 32, 2_472_266, 256),
        ("resnet-20", 3, 32, 269_722, 64),  # .27 million, He et al. 2016, Table 6
        ("resnet-56", 3, 32, 853_018, 64),  # .85 million
        ("densenet-100-12", 3, 32, 769_162, 342),  # .8 million, Huang et al. 2017, Table 2
        ("densenet-40-12", 3, 32, 176_122, 132),
    ],
)
def test_network_has_the_published_size(name, channels, side, parameters, last):
    net = nets.make(name, channels, 10)
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert list(net.parameters())[-2].shape == (10, last)
    assert net.eval()(torch.zeros(2, channels, side, side)).shape == (2, 10)


@pytest.mark.parametrize("family", nets.LAYERS)
def test_intermediate_layers_are_modules(family):
    modules = dict(nets.make(family, 1 if family == "lenet" else 3, 10).named_modules())
    assert set(nets.LAYERS[family].values()) <= set(modules)


@pytest.mark.parametrize("name", ["vgg", "resnet-20x", "resnet-21", "densenet-12"])
def test_unknown_network(name):
    with pytest.raises(ValueError, match=r"valid: lenet|depth is"):
        nets.make(name, 3, 10)


def test_every_target_is_printed_somewhere_and_makes_sense():
    for profile in config.PROFILES:
        for name, target in experiments.targets(profile).items():
            assert experiments.trained_as(name) in experiments.PRINTED
            assert target.scale in targets.SCALES
            assert target.dataset in (*datasets.SETS, "imagenet")
            assert target.weights or 0 < target.observe <= target.epochs


def test_the_targets_of_all_papers_can_be_listed():
    """As `python -m mialib targets` does: no paper may call anything else in its sizes.toml by that name."""
    for profile in config.PROFILES:
        assert papers.targets(profile).items() >= experiments.targets(profile).items()


def test_caveat_is_the_operating_point(monkeypatch):
    assert exhibits.caveat("mnist-lenet", "demo") == "demo profile"
    train, test = exhibits.printed_point("cifar-100-alexnet@130")
    assert (train, test) == (0.9248, 0.4387)
    for ours, comparable in (
        ((train + 0.02, test - 0.02), True),
        ((train + 0.021, test), False),
        ((train, test - 0.021), False),
    ):
        monkeypatch.setattr(experiments, "operating_point", lambda name, profile, point=ours: point)
        assert (exhibits.caveat("cifar-100-alexnet", "laptop") == "") == comparable
    assert (
        exhibits.caveat("cifar-100-alexnet", "laptop") == "train and test accuracy .925 and .418, printed .925 and .439"
    )


def test_variants_of_a_target():
    assert experiments.variant("cifar-100-alexnet", "demo") == "last epoch"
    assert experiments.variant("cifar-100-alexnet@5", "demo") == experiments.variant("cifar-10-alexnet", "demo") == ""
    assert experiments.variant("cifar-100-alexnet-b@5", "demo") == "second training"
    every = experiments.names("demo", variants=True)
    assert set(every) == set(experiments.targets("demo"))
    at = every.index("cifar-100-alexnet@5")
    assert every[at : at + 3] == ["cifar-100-alexnet@5", "cifar-100-alexnet", "cifar-100-alexnet-b@5"]
    assert len(experiments.names("demo")) == len({experiments.called(name) for name in every}) == 7


# --- images ---------------------------------------------------------------------------------------------------------


def test_images_of_stand_ins():
    data = targets.images(TINY, "demo")
    assert data.X.shape == (1797, 1, 28, 28)
    assert data.X.dtype == np.uint8
    digits = datasets.load("mnist", "demo").X.reshape(-1, 8, 8)
    assert np.allclose(data.X[:, 0, 2:26:3, 2:26:3] / 255, digits, atol=0.002)  # three pixels for one, framed by two
    assert data.X[:, 0, :2].max() == 0
    assert data.member.sum() == 1497
    assert data.member[:1497].all()


def test_normalised_is_the_formula():
    X = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 4), dtype=np.uint8)
    mean, std = (np.array(numbers)[:, None, None] for numbers in targets.SCALES["cifar"])
    assert np.allclose(targets.normalised(SMALL, X), (X / 255 - mean) / std, atol=1e-6)


def test_augmented_is_a_crop_of_the_framed_image_or_its_mirror():
    images = torch.from_numpy(np.random.default_rng(0).integers(1, 256, (40, 3, 8, 8), dtype=np.uint8))
    plan = targets._plan(replace(SMALL, batch=16), 40, runs.stream(0, "crops"))
    found = targets.augmented(images, *plan[:, 1:3].T, plan[:, 3].bool())
    framed = np.pad(images.numpy(), ((0, 0), (0, 0), (4, 4), (4, 4)))
    kinds = set()
    for image, frame in zip(found.numpy(), framed, strict=True):
        crops = {
            (down, right, mirrored): frame[:, down : down + 8, right : right + 8][:, :, :: -1 if mirrored else 1]
            for down in range(9)
            for right in range(9)
            for mirrored in (False, True)
        }
        matching = [key for key, crop in crops.items() if np.array_equal(crop, image)]
        assert matching
        kinds.add(matching[0])
    assert {mirrored for _, _, mirrored in kinds} == {False, True}
    assert len({down for down, _, _ in kinds}) > 4
    assert len({right for _, right, _ in kinds}) > 4


def test_observed_are_as_many_members_as_others_of_each_class():
    data = targets.images(SMALL, "demo")
    seen = targets.observed(data)
    sides = [np.bincount(data.y[seen][data.member[seen] == side], minlength=10) for side in (True, False)]
    assert np.array_equal(*sides)
    assert (~data.member[seen]).sum() == (~data.member).sum()


# --- training -------------------------------------------------------------------------------------------------------


def test_interrupted_training_ends_in_the_same_weights(monkeypatch, tmp_path):
    whole = targets._read(targets.train("cifar-10-resnet", SMALL, "demo"))[0]
    monkeypatch.setenv("MIALIB_CACHE", str(tmp_path / "again"))
    plan, calls = targets._plan, []

    def dying(*args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return plan(*args)

    monkeypatch.setattr(targets, "_plan", dying)
    with pytest.raises(KeyboardInterrupt):
        targets.train("cifar-10-resnet", SMALL, "demo")
    resumed = targets._read(targets.train("cifar-10-resnet", SMALL, "demo"))[0]
    assert len(calls) == 3
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_training_stopped_early_is_the_same_training():
    watched = replace(SMALL, observe=1)
    targets.train("cifar-10-resnet", watched, "demo")
    after_one = targets.observations("cifar-10-resnet", watched, "demo")[1]
    stopped = targets.load("cifar-10-resnet@1", replace(SMALL, epochs=1), "demo")
    answers = targets.probabilities(stopped.net, SMALL, stopped.data.X[targets.observed(stopped.data)])
    assert np.allclose(answers, after_one, atol=0.01)  # finished weights are rounded to half precision
    other = targets.load("cifar-10-resnet-b@1", replace(SMALL, epochs=1), "demo")
    assert not np.allclose(targets.confidences(other), targets.confidences(stopped), atol=0.01)


def test_recorded_steps_take_each_batch_once_and_are_recorded_anew_for_another_rate(monkeypatch):
    """The bookkeeping around CUDA graphs, on graphs that only note what they replay; a GPU is not needed."""
    recording, taken, recorded = [], [], []

    class Graph:
        def replay(self):
            taken.append(self.place.clone())

    @contextmanager
    def record(graph, **named):
        recording.append(graph)
        yield
        recorded.append(tuple(recording.pop().place.shape))

    def step(plan):
        if recording:
            recording[0].place = plan  # nothing is done while a graph is recorded
        else:
            taken.append(plan.clone())

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: None)
    monkeypatch.setattr(torch.cuda, "graph", record)
    take = targets._recorded(step)
    plans = [targets._plan(replace(SMALL, batch=16), 40, runs.stream(0, "plans", i)) for i in range(8)]
    batches = [(0.1 if i < 6 else 0.01, batch) for i, plan in enumerate(plans) for batch in plan.split(16)]
    for rate, batch in batches:
        take(rate, batch)
    assert len(taken) == len(batches)
    assert all(torch.equal(found, batch) for found, (_, batch) in zip(taken, batches, strict=True))
    assert sorted(recorded) == [(8, 4), (8, 4), (16, 4), (16, 4)]  # both sizes, at either rate


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_products_are_in_the_precision_of_the_machine(precision, monkeypatch):
    """Both paths on every machine; where a processor only emulates bfloat16, it must not be asked to."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(machine, "flags", lambda: machine.BFLOAT16 if precision == "bfloat16" else frozenset())
    for name in machine.LIMITS:
        monkeypatch.delenv(name, raising=False)
    seen = set()
    convolved = torch.nn.functional.conv2d

    def conv2d(*args, **named):
        out = convolved(*args, **named)
        seen.add((torch.is_grad_enabled(), out.dtype))
        return out

    monkeypatch.setattr(torch.nn.Conv2d, "_conv_forward", lambda self, x, weight, bias: conv2d(x, weight, bias))
    trained = targets.load("mnist-lenet", TINY, "demo")
    # Asked, a network always answers in float32.
    assert seen == {(True, getattr(torch, precision)), (False, torch.float32)}
    assert trained.about["device"] == f"CPU, {precision}"
    assert (targets.confidences(trained).argmax(1) == trained.data.y).mean() > 0.5


def test_weights_of_one_precision_are_not_taken_for_the_others(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in machine.LIMITS:
        monkeypatch.delenv(name, raising=False)
    paths = set()
    for flags in (machine.BFLOAT16, set()):
        monkeypatch.setattr(machine, "flags", lambda flags=flags: frozenset(flags))
        paths.add(targets._made("mnist-lenet", TINY, targets.images(TINY, "demo")))
    assert len(paths) == 2


def test_damaged_weights_are_set_aside_and_made_again():
    targets.train("mnist-lenet", TINY, "demo")
    [path] = (config.cache_dir() / "targets").glob("*.safetensors")
    before = {name: tensor.clone() for name, tensor in targets._read(path)[0].items()}  # else a view of the file
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 1
    path.write_bytes(raw)
    with pytest.warns(UserWarning, match="damaged"):
        after = targets.load("mnist-lenet", TINY, "demo").net.state_dict()
    assert path.with_name(path.name + ".bad").exists()
    assert all(torch.equal(before[name].float(), after[name]) for name in before)


def test_trained_target_learns_and_says_what_it_is():
    trained = targets.load("mnist-lenet", TINY, "demo")
    answers = targets.confidences(trained)
    right = answers.argmax(1) == trained.data.y
    assert answers.shape == (1797, 10)
    assert np.allclose(answers.sum(1), 1, atol=1e-5)
    assert right[~trained.data.member].mean() > 0.5
    assert f"{right[trained.data.member].mean():.4f}" == trained.about["train_acc"]
    assert f"{right[~trained.data.member].mean():.4f}" == trained.about["test_acc"]
    assert trained.about["recipe"] == repr(TINY)
    assert np.array_equal(answers, targets.confidences(trained))


def test_observations_are_kept_by_epoch():
    with pytest.raises(ValueError, match="python -m mialib targets mnist-lenet --profile demo"):
        targets.observations("mnist-lenet", TINY, "demo")
    targets.train("mnist-lenet", TINY, "demo")
    found = targets.observations("mnist-lenet", TINY, "demo")
    assert list(found) == [2, 3]
    seen = targets.observed(targets.images(TINY, "demo"))
    assert found[3].shape == (len(seen), 10)
    trained = targets.load("mnist-lenet", TINY, "demo")
    assert np.abs(found[3] - targets.confidences(trained)[seen]).max() < 0.02  # half precision


def test_kept_weights_are_used_where_nothing_was_trained(monkeypatch, tmp_path):
    monkeypatch.setattr(targets, "KEPT", tmp_path / "kept")
    with pytest.raises(ValueError, match="not trained yet"):
        targets.keep("mnist-lenet", TINY, "demo")
    first = targets.load("mnist-lenet", TINY, "demo")
    weights, log = targets.keep("mnist-lenet", TINY, "demo")
    assert log.read_text().startswith("epoch,rate,loss,accuracy,seconds\n1,0.001,")
    assert len(log.read_text().splitlines()) == 4
    monkeypatch.setenv("MIALIB_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr(targets, "train", lambda *_: pytest.fail("trained again"))
    second = targets.load("mnist-lenet", TINY, "demo")
    pairs = zip(first.net.state_dict().values(), second.net.state_dict().values(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)
    assert weights.stat().st_size < 150_000


def test_kept_weights_of_another_recipe_are_not_used(monkeypatch, tmp_path):
    monkeypatch.setattr(targets, "KEPT", tmp_path / "kept")
    targets.train("mnist-lenet", TINY, "demo")
    targets.keep("mnist-lenet", TINY, "demo")
    monkeypatch.setattr(targets, "ON_THE_SPOT", 0)
    with pytest.raises(ValueError, match="mnist-lenet is not trained yet; run `python -m mialib targets"):
        targets.load("mnist-lenet", replace(TINY, epochs=2), "demo")


def test_damaged_kept_weights_are_left_where_they_are(monkeypatch, tmp_path):
    monkeypatch.setattr(targets, "KEPT", tmp_path / "kept")
    targets.train("mnist-lenet", TINY, "demo")
    path, _ = targets.keep("mnist-lenet", TINY, "demo")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    monkeypatch.setenv("MIALIB_CACHE", str(tmp_path / "empty"))
    with pytest.raises(ValueError, match=r"mnist-lenet\.safetensors in data/targets is damaged .* `git checkout`"):
        targets.load("mnist-lenet", TINY, "demo")
    assert path.exists()


def test_a_lost_observation_is_made_again():
    targets.train("mnist-lenet", TINY, "demo")
    data = targets.images(TINY, "demo")
    before = targets.observations("mnist-lenet", TINY, "demo")[2]
    work._path(targets._observation("mnist-lenet", TINY, data, 2)).unlink()
    with pytest.raises(ValueError, match="was not watched in training here"):
        targets.observations("mnist-lenet", TINY, "demo")
    targets.train("mnist-lenet", TINY, "demo")
    assert np.array_equal(targets.observations("mnist-lenet", TINY, "demo")[2], before)


def test_confidences_follow_what_they_depend_on(monkeypatch):
    trained = targets.load("mnist-lenet", TINY, "demo")
    first = targets.confidences(trained)
    monkeypatch.setitem(targets.SCALES, "mnist", ((0.5,), (2.0,)))
    assert not np.allclose(first, targets.confidences(trained))


def test_unknown_target():
    with pytest.raises(ValueError, match="valid in profile demo: mnist-lenet"):
        experiments.load("mnist-vgg", "demo")


# --- trained by others ----------------------------------------------------------------------------------------------


def test_weights_trained_by_others(monkeypatch, tmp_path):
    net = nets.make("resnet-8", 3, 10)
    place = "weights/resnet8.th"
    (tmp_path / "weights").mkdir()
    torch.save({"state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}}, tmp_path / place)
    monkeypatch.setenv("MIALIB_DATA", str(tmp_path))
    digest = f"sha256:{files.digest_file(tmp_path / place, 'sha256')}"
    file = files.File("https://example.org/resnet8.th", (tmp_path / place).stat().st_size, digest, 0, "", "")
    monkeypatch.setitem(files.REGISTRY, place, file)
    target = Target("cifar-10", "resnet-8", scale="imagenet", weights=place)
    trained = targets.load("cifar-10-resnet", target, "demo")
    assert "example.org" in trained.about["recipe"]
    x = targets.normalised(target, trained.data.X[:3])
    assert torch.equal(trained.net(x), net.eval()(x))
    (tmp_path / place).write_bytes((tmp_path / place).read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="wrong digest"):
        targets.load("cifar-10-resnet", target, "demo")


@pytest.mark.skipif(
    not (config.ROOT / "data/raw/weights/resnet56-4bfd9763.th").exists()
    or not (config.ROOT / "data/raw/cifar10/test_batch.bin").exists(),
    reason="needs CIFAR-10 and the ResNets trained by others in data/raw",
)
@pytest.mark.parametrize(("network", "file"), [("resnet-20", "resnet20-12fca82f"), ("resnet-56", "resnet56-4bfd9763")])
def test_resnet_trained_by_others_scores_what_its_author_states(network, file):
    target = replace(experiments.targets("laptop")["cifar-10-resnet"], network=network, weights=f"weights/{file}.th")
    trained = targets.load("cifar-10-resnet", target, "laptop")
    others = ~trained.data.member
    answers = targets.probabilities(trained.net, target, trained.data.X[others])
    accuracy = (answers.argmax(1) == trained.data.y[others]).mean()
    assert abs(accuracy - STATED[network]) <= 0.001


def test_confidences_in_parts_are_those_of_the_whole(monkeypatch):
    monkeypatch.setenv("MIALIB_WORKERS", "1")
    monkeypatch.setattr(targets, "CHUNK", 100)
    monkeypatch.setattr(targets, "PART", 300)
    trained = experiments.load("mnist-lenet", "demo")
    whole = targets.probabilities(trained.net, trained.target, trained.data.X)
    assert len(whole) > 300 and np.array_equal(targets.confidences(trained), whole)


# --- ImageNet -------------------------------------------------------------------------------------------------------


def test_imagenet_folder_of_the_user(monkeypatch, tmp_path):
    monkeypatch.setenv("MIALIB_DATA", str(tmp_path))
    target = experiments.targets("paper")["imagenet-inception"]
    with pytest.raises(FileNotFoundError, match="folders train and val"):
        targets.images(target, "paper")
    rng = np.random.default_rng(0)
    for side, n in (("train", 3), ("val", 2)):
        for label in ("n01440764", "n01443537"):
            folder = tmp_path / "imagenet" / side / label
            folder.mkdir(parents=True)
            for i in range(n):
                Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    data = targets.images(target, "paper")
    assert data.X.shape == (10, 3, 299, 299)
    assert data.y.tolist() == [0] * 3 + [1] * 3 + [0] * 2 + [1] * 2
    assert data.member.tolist() == [True] * 6 + [False] * 4
    x = targets.normalised(target, data.X)
    assert -1 <= x.min() < -0.5 < 0.5 < x.max() <= 1
    for family in ("inception", "xception"):
        answers = targets.probabilities(nets.make(family, 3, data.classes), target, data.X[:2])
        assert answers.shape == (2, 1000)
        assert np.allclose(answers.sum(1), 1, atol=1e-4)
