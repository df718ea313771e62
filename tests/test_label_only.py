"""Attacks on labels: the queries by literal loops, a model whose distance is known, nothing where nothing leaks."""

import dataclasses

import numpy as np
import pytest
from planted import dataset
from scipy import ndimage

from mialib import runs
from mialib.attacks import defenses, label_only
from mialib.data import datasets
from mialib.data.datasets import Dataset
from mialib.models import small
from mialib.papers.choquette2021 import exhibits, experiments
from mialib.results import plots, published

rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (3, 2, 7, 8), np.uint8)


def test_translations_are_those_of_a_loop_over_pixels():
    for d in (1, 2, 3):
        found = list(label_only.translated(IMAGES, d))
        shifts = [(i, j) for i in range(-d, d + 1) for j in range(-d, d + 1) if abs(i) + abs(j) == d]
        assert len(found) == 4 * d + 1 == len(shifts) + 1 and (found[0] == IMAGES).all()
        for image, (i, j) in zip(found[1:], shifts, strict=True):
            wanted = np.empty_like(IMAGES)
            for row in range(7):
                for column in range(8):
                    wanted[:, :, row, column] = IMAGES[:, :, min(max(row - i, 0), 6), min(max(column - j, 0), 7)]
            np.testing.assert_array_equal(image, wanted)
    with pytest.raises(ValueError, match="at least 1"):
        list(label_only.translated(IMAGES, 0))
    with pytest.raises(ValueError, match="no images"):
        list(label_only.translated(IMAGES[0], 1))
    with pytest.raises(ValueError, match="no images"):
        list(label_only.rotated(IMAGES[0], 1))


def test_rotations_are_those_of_each_channel_alone_and_right_angles_are_exact():
    same, one, other = label_only.rotated(IMAGES, 4)
    assert (same == IMAGES).all()
    for image, angle in ((one, 4), (other, -4)):
        for k in range(3):
            for channel in range(2):
                wanted = ndimage.rotate(IMAGES[k, channel], angle, axes=(1, 0), reshape=False, order=1, mode="nearest")
                np.testing.assert_array_equal(image[k, channel], wanted)
    square = IMAGES[:, :, :, :7]
    turned = {tuple(np.rot90(square, k, (2, 3)).ravel()) for k in (1, 3)}
    assert {tuple(image.ravel()) for image in list(label_only.rotated(square, 90))[1:]} == turned


def test_noise_flips_and_moves_as_often_and_as_far_as_it_says():
    X = np.hstack([rng.integers(0, 2, (500, 20)), rng.random((500, 10))]).astype(np.float32)
    binary = np.arange(30) < 20
    copies = np.stack(list(label_only.disturbed(X, binary, 0.1, 0.3, 20, np.random.default_rng(1))))
    assert set(np.unique(copies[:, :, :20])) == {0, 1}
    flipped = (copies != X)[:, :, :20]
    assert flipped.mean() == pytest.approx(0.1, abs=4 * np.sqrt(0.09 / flipped.size))
    moved = (copies - X)[:, :, 20:]
    assert moved.std() == pytest.approx(0.3, rel=0.02) and abs(moved.mean()) < 4 * 0.3 / np.sqrt(moved.size)
    assert abs(np.corrcoef(moved[0].ravel(), moved[1].ravel())[0, 1]) < 0.1
    images = np.full((4, 1, 20, 20), 128, np.uint8)
    [pixels] = label_only.disturbed(images, np.zeros((1, 20, 20), bool), 0, 0.1, 1, np.random.default_rng(1))
    assert pixels.dtype == np.uint8 and pixels.std() == pytest.approx(25.5, rel=0.1)
    for flip, sigma in ((0, 0), (0.5, 0)):
        [same] = label_only.disturbed(images, np.zeros((1, 20, 20), bool), flip, sigma, 1, np.random.default_rng(1))
        assert (same == images).all()
    with pytest.raises(ValueError, match="shape of a record"):
        next(label_only.disturbed(X, binary[:3], 0.1, 0.1, 1, rng))
    with pytest.raises(ValueError, match=r"flip must lie in 0\.\.1"):
        next(label_only.disturbed(X, binary, 1.1, 0.1, 1, rng))
    with pytest.raises(ValueError, match="sigma be at least 0"):
        next(label_only.disturbed(X, binary, 0.1, -0.1, 1, rng))
    with pytest.raises(ValueError, match="copies must be at least 1"):
        next(label_only.disturbed(X, binary, 0.1, 0.1, 0, rng))


def test_of_a_linear_model_the_share_that_is_right_is_normal_in_the_distance():
    """Noise of deviation s leaves the side of a plane at distance d with probability Phi(d / s)."""
    from scipy.stats import norm

    weight = np.array([3.0, 4.0])
    distance = np.array([-0.5, 0.1, 0.5, 1.0, 2.0])
    X = distance[:, None] * weight / 5
    queries = label_only.disturbed(X, np.zeros(2, bool), 0, 0.7, 4000, np.random.default_rng(2))
    bits = label_only.right(lambda x: (x @ weight > 0).astype(int), queries, np.ones(5, int))
    assert bits.shape == (5, 4000)
    np.testing.assert_allclose(bits.mean(1), norm.cdf(distance / 0.7), atol=0.03)
    queries = label_only.disturbed(X, np.zeros(2, bool), 0, 0.7, 4000, np.random.default_rng(2))
    share = label_only.share(lambda x: np.stack([x @ weight > 0, x @ weight <= 0]), queries, np.ones(5, int))
    np.testing.assert_allclose(share, [bits.mean(1), 1 - bits.mean(1)], atol=1e-6)
    both = label_only.right(lambda x: np.stack([x @ weight > 0, x @ weight < 0]), [X], np.ones(5, int))
    np.testing.assert_array_equal(both[1, :, 0], ~both[0, :, 0])


def test_a_wrong_label_has_distance_0_and_no_boundary_is_farthest():
    found = label_only.away(np.array([1.0, 2.0, np.nan, np.nan]), np.array([True, False, True, False]))
    np.testing.assert_array_equal(found, [1, 0, np.inf, 0])


def test_distances_of_a_cnn_are_to_its_boundary():
    import torch

    from mialib.attacks import boundary

    model = small.CNN((1, 16, 16), 3, 8, (2, 2))
    theta = 3 * small.initial(model, np.random.default_rng(3))
    X = rng.integers(0, 256, (6, 1, 16, 16), np.uint8)
    net, pixels = experiments.Network(model, theta), torch.from_numpy(X.astype(np.float32) / 255)
    np.testing.assert_allclose(net(pixels).detach().numpy(), small.logits(model, theta, X), atol=1e-5)
    before = pixels.clone()
    found = boundary.distances(net, pixels, torch.zeros(6, dtype=torch.int64), "minimal")
    assert (pixels == before).all() and (found.distance[found.crossed] > 0).all()


def test_the_threshold_is_of_the_shadow_alone():
    shadow, member = np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, False, True, True])
    found = label_only.by_threshold(shadow, member, np.array([0.0, 0.79, 0.8, 5.0]))
    np.testing.assert_array_equal(found.predicted, [False, False, True, True])


def bits(leak, n=1500, queries=5):
    """Members are right under a query with probability .6 + leak, others with .6; the class says nothing."""
    member = np.arange(n) % 2 == 0
    drawn = rng.random((n, queries)) < 0.6 + leak * member[:, None]
    return drawn, rng.integers(3, size=n), member


@pytest.mark.parametrize(("leak", "low", "high"), [(0.0, 0.45, 0.55), (0.3, 0.75, 0.9)])
def test_network_and_threshold_find_a_planted_leak_and_nothing_without(leak, low, high):
    known, (asked, y, member) = bits(leak), bits(leak)
    network = label_only.by_network(known, asked, y, 3, (0, "test", leak))
    share = label_only.by_threshold(known[0].mean(1), known[2], asked.mean(1))
    for result in (network, share):
        assert low < ((result.predicted == member).mean()) < high


# --- the paper's room ------------------------------------------------------------------------------------------------

ROW = experiments.Row("location-30", 150, 2, (32,), 300, 8, ((0.02, 0.0), (0.2, 0.0)))


def seen(leak, n=1000, seed=0):
    """What a model gave away whose members are `leak` surer and more often right when they are changed."""
    draw = np.random.default_rng(seed)
    y, member = draw.integers(4, size=n), np.arange(n) % 2 == 0
    logits = draw.normal(0, 1, (n, 4)) + np.eye(4)[y] * (1.5 + 4 * leak * member[:, None])
    k = len(experiments.DEFENCES)
    chances = 0.5 + 0.4 * leak * member
    turned = {name: draw.random((k, n, q)) < chances[:, None] for name, q in (("rotations", 3), ("translations", 5))}
    robust = np.stack([draw.binomial(20, chances, (k, n)) / 20, draw.random((k, n))]).astype(np.float32)
    return experiments.Seen(logits, y, turned, robust, np.where(draw.random(n) < 0.1, np.nan, chances + draw.random(n)))


def attacked(leak):
    known, found = seen(leak), [seen(leak, seed=seed) for seed in (1, 2, 3)]
    told = {"dataset": "CIFAR-10", "size": 2500, "shadows": 1, "tier": "R", "flip": 0.0, "sigma": 0.1}
    each = [experiments._attacked(known, found, at, told, (leak,)) for at in range(len(experiments.DEFENCES))]
    return [*each, *experiments._with_distances(known, found, told, (leak,))]


def test_nothing_leaks_nothing_is_found_and_labels_leak_whatever_hides_the_vectors():
    for leak in (0.0, 1.0):
        table = exhibits.measured(attacked(leak))
        found = table[table["metric"] == "accuracy"].set_index(["setting", "attack"])["value"]
        assert len(found) == 6 * len(experiments.DEFENCES) + 1
        if not leak:
            assert (abs(found - 0.5) < 0.05).all()
        for name in experiments.DEFENCES if leak else ():
            assert all(found[name, label] > 0.75 for label in ("rotations", "translations", "both", "noise"))
    assert found[experiments.UNDEFENDED, experiments.VECTORS] > 0.7


def test_the_shadow_chooses_the_noise_that_tells_its_members_apart():
    known = seen(1.0)
    assert experiments.choose(known) == 0
    assert experiments.choose(dataclasses.replace(known, robust=known.robust[::-1])) == 1


def test_what_the_targets_are_right_about_chooses_nothing():
    """Thresholds and networks are the shadow's: other targets in the list change no answer on the first."""
    told = {"dataset": "CIFAR-10", "size": 2500, "shadows": 1, "tier": "R", "flip": 0.0, "sigma": 0.1}
    one, two = (experiments._attacked(seen(0.5), [seen(1.0, seed=1), seen(x, seed=2)], 0, told, (0,)) for x in (0, 1))
    assert set(one.answers) == {"gap", experiments.VECTORS, "rotations", "translations", "both", "noise"}
    for name in one.answers:
        np.testing.assert_array_equal(one.answers[name][0].predicted, two.answers[name][0].predicted)


def test_defences_that_keep_the_order_keep_the_label():
    model = small.MLP((6, 4), "tanh")
    theta, X = 5 * small.initial(model, np.random.default_rng(0)), rng.normal(size=(200, 6)).astype(np.float32)
    given = dict(zip(experiments.DEFENCES, experiments.answer(model, theta)(X), strict=True))
    for name in ("top 3 classes", "top class", "label only"):
        np.testing.assert_array_equal(given[name], given[experiments.UNDEFENDED])
    np.testing.assert_array_equal(
        given["rounded to 1 digit"], defenses.rounded(small.logits(model, theta, X), 1).argmax(1)
    )


def test_a_network_is_asked_about_changed_images_and_the_unchanged_are_the_first():
    model = small.CNN((1, 16, 16), 3, 8, (2, 2))
    theta, X = 3 * small.initial(model, np.random.default_rng(3)), rng.integers(0, 256, (12, 1, 16, 16), np.uint8)
    row = dataclasses.replace(ROW, filters=(2, 2), distances=2, copies=6, noise=((0.0, 0.0), (0.0, 0.5)))
    y, binary = rng.integers(3, size=12), np.zeros((1, 16, 16), bool)
    logits, robust, distance, *turned = experiments._asked(model, theta, X, y, binary, row, row.noise, (0, "test"))
    right, k = logits.argmax(1) == y, len(experiments.DEFENCES)
    assert robust.shape == (2, k, 12) and distance.shape == (4,)
    assert [b.shape for b in turned] == [(k, 12, 3), (k, 12, 5)]
    assert all((b[0, :, 0] == right).all() for b in turned)
    np.testing.assert_array_equal(robust[0, 0], right)  # no noise: every copy is the record


def test_a_trained_target_leaks_by_its_labels():
    table = exhibits.measured(experiments.attack(dataset(0.5), ROW, 0))
    found = table[(table["metric"] == "accuracy") & (table["setting"] == "label only")].set_index("attack")["value"]
    assert set(found.index) == {"gap", experiments.VECTORS, "noise"}
    assert found["gap"] > 0.6 and found["noise"] > 0.6
    with pytest.raises(ValueError, match="200 of 150 members"):
        experiments.attack(dataset(0.5), dataclasses.replace(ROW, distances=200), 0)


def test_memguard_blinds_the_attack_on_vectors_and_no_other():
    found = {each.about["setting"]: each for each in experiments.attack(dataset(0.5), ROW, 0)}
    plain, guarded = found[experiments.UNDEFENDED], found[experiments.GUARDED]
    for before, after in zip(plain.records, guarded.records, strict=True):
        np.testing.assert_array_equal(before.vectors.argmax(1), after.vectors.argmax(1))
        assert (before.vectors != after.vectors).any() and (before.member == after.member).all()
        assert (
            abs(before.vectors - after.vectors).sum(1).mean() <= experiments.BUDGET + 0.1
        )  # the budget is of the mean
    assert all(guarded.answers[name] is plain.answers[name] for name in ("gap", "noise"))
    table = exhibits.measured(found.values()).set_index(["attack", "metric", "setting"])["value"].sort_index()
    of = table[experiments.VECTORS, "accuracy"]
    assert of[experiments.GUARDED] < of[experiments.UNDEFENDED]


def test_hopskipjump_is_asked_of_the_targets_and_its_threshold_of_the_shadow():
    row = experiments.Row("cifar-10", 60, 2, (16,), 40, 2, ((0, 0.1), (0, 0.2)), (4, 4), batch=20)
    how = experiments.Hops("cifar-10", 60, 6, 250)
    data = datasets.load("cifar-10", "demo")
    each = experiments.hop(data, row, how, 0)
    assert set(each.answers) == {"hops"} and len(each.answers["hops"]) == len(each.records) == 2
    trained = experiments.train(data, row, 0)
    for i, (seen, result) in enumerate(zip(each.records, each.answers["hops"], strict=True)):
        side = trained.sides[1 + i]
        rows = np.stack([side.members[:6], side.non_members[:6]], axis=1).ravel()
        np.testing.assert_array_equal(seen.y, data.y[rows])
        np.testing.assert_array_equal(seen.member, np.arange(12) % 2 == 0)
        right = small.logits(trained.model, trained.thetas[1 + i], data.X[rows]).argmax(1) == data.y[rows]
        assert ((result.score > 0) == right).all() and right.any()
    least = {result.score[result.predicted].min() for result in each.answers["hops"]}
    most = max(result.score[~result.predicted].max() for result in each.answers["hops"])
    assert most < min(least)  # one threshold for both
    table = exhibits.measured([each])
    assert table.loc[table["attack"].eq("hops"), "records"].eq(6).all()
    with pytest.raises(ValueError, match="61 of 60 members"):
        experiments.hop(data, row, dataclasses.replace(how, records=61), 0)


def test_a_target_that_learns_no_record_by_heart_leaks_nothing():
    """One pass over records whose labels follow from the columns: members and non-members are alike to the model."""
    table = exhibits.measured(experiments.attack(dataset(0.0), dataclasses.replace(ROW, epochs=1), 0))
    found = table[(table["metric"] == "accuracy") & (table["attack"] != "target")]["value"]
    assert len(found) == 3 * (len(experiments.DEFENCES) + 1) and (abs(found - 0.5) < 0.1).all()


def test_cells_are_held_against_the_paper_at_its_operating_point_only():
    table = exhibits.measured(attacked(1.0))
    cells = {cell["setting"]: cell for cell in exhibits.compare(table, "laptop") if cell["value"] is not None}
    held = {name for name, cell in cells.items() if cell["published"] is not None}
    names = {
        "gap attack",
        "confidence vectors",
        "rotations",
        "translations",
        "noise",
        "boundary distance with gradients",
    }
    assert held == {f"2,500 points, {name}" for name in names | {"target"}}
    assert {cells[f"2,500 points, {name}"]["verdict"] for name in names} == {"not comparable"}
    assert "printed .997 and .497" in cells["2,500 points, noise"]["note"]
    at = table["attack"] == "target"
    for metric, value in (("train_acc", 0.99), ("test_acc", 0.51)):
        table.loc[at & (table["metric"] == metric), "value"] = value
    assert exhibits.operating(table, "CIFAR-10", 2500) == ""
    assert exhibits.operating(table, "Adult", 10000) == "the paper prints no accuracy of this target"
    cells = {cell["setting"]: cell for cell in exhibits.compare(table, "laptop")}
    assert cells["2,500 points, noise"]["verdict"] != "not comparable"
    assert {n for n, cell in cells.items() if exhibits.CHOSEN in (cell["note"] or "")} == {
        "2,500 points, target",
        *(name for name in cells if name.startswith("2,500 points, gap attack")),
    }
    assert {cell["verdict"] for cell in exhibits.compare(table, "demo")} == {"not comparable"}
    plots.dots(exhibits.attacks(table), "accuracy"), plots.dots(exhibits.defended(table), "accuracy")
    shown, low = exhibits.accuracies(table), exhibits.few_alarms(table)
    assert list(shown.index) == list(low.index) and len(shown) == 7
    assert list(shown.columns) == list(experiments.DEFENCES)
    assert {name for *_, name in shown.index} == set(exhibits.TITLES.values()) - {"boundary distance"}
    [auc] = table[(table["attack"] == "distance") & (table["metric"] == "auc")].to_dict("records")
    assert low.iloc[-1]["AUC"].startswith(published.short(auc["value"])) and not shown.iloc[-1]["label only"]
    assert len(exhibits.defended(table)) == len(experiments.DEFENCES) + 2 + 2


def test_mnist_is_seen_as_images():
    for side, scale in ((28, 1), (8, 4)):
        X = rng.random((3, side * side)).astype(np.float32)
        data = Dataset("mnist", X, np.arange(3), 10, "S", "drawn", runs.digest(X))
        pixels = experiments.images(data).X
        assert pixels.shape == (3, 1, scale * side, scale * side) and pixels.dtype == np.uint8
        np.testing.assert_allclose(pixels[:, 0, ::scale, ::scale].reshape(3, -1) / 255, X, atol=0.002)


def test_every_size_is_that_of_a_row_and_the_paper_has_all_its_numbers():
    for profile in ("demo", "laptop", "paper"):
        for row in experiments.settings(profile):
            assert row.distances <= row.size and len(row.noise) >= 2
        sizes = {(row.dataset, row.size) for row in experiments.settings(profile) if row.filters}
        for how in experiments.hops(profile):
            assert (how.dataset, how.size) in sizes and how.records <= how.size
    assert len(published.load("choquette_labels")) == 54
