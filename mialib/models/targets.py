"""Target networks that are trained once: by our recipe or by others, kept as weights, and asked.

`train` makes one and resumes after an interruption; `load` gives it to an exhibit. Every target is made once, from
seed 0: an exhibit's own seed is that of its attacks.
"""

import functools
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import nn
from tqdm import tqdm

from mialib import config, machine, runs, source, work
from mialib.data import caltech, datasets, files
from mialib.models import nets, small

LOG = ("epoch", "rate", "loss", "accuracy", "seconds")
CHUNK = 100  # images asked at once: on a CPU more would not fit its cache
PART = 5000  # that a process takes at a time
ON_THE_SPOT = 200_000  # images shown in training: what a notebook may train for itself, seconds
IMAGENET_CLASSES, IMAGENET_SIDE = 100, 299  # the first hundred, as released
IMAGENET_EACH = 50  # images of a class and side: all that the validation folder has
# Mean and standard deviation of each channel. Both CIFARs: bearpaw/pytorch-classification; ImageNet's: the ResNets
# that others trained on CIFAR-10; MNIST is only scaled to 0..1.
SCALES = {
    "mnist": ((0.0,), (1.0,)),
    "cifar": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "inception": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


KEPT = config.ROOT / "data" / "targets"
DAMAGED = (SafetensorError, ValueError, KeyError, TypeError)  # what reading a damaged file may raise


@dataclass(frozen=True)
class Target:
    """How one target network comes about: trained on all members, or trained by others.

    SGD with momentum .9 (Adam with betas .5 and .99 for "lenet", as released), `rate` falling tenfold after each
    epoch of `drops`, L2 `decay`; `augment`: random crops of the image padded by 4, and mirror images.
    """

    dataset: str
    network: str  # see `nets.make`
    epochs: int = 0
    batch: int = 128
    rate: float = 0.1
    drops: tuple[int, ...] = ()
    decay: float = 1e-4
    augment: bool = True
    scale: str = "cifar"  # how images are normalised, see SCALES
    observe: int = 1  # records are asked every so many epochs
    weights: str = ""  # place under `raw_dir()` of weights trained by others


@dataclass(frozen=True)
class Images:
    """What a target was trained and tested on, in the official order."""

    X: np.ndarray  # uint8 (n, channels, height, width)
    y: np.ndarray  # int64 (n,)
    member: np.ndarray  # bool (n,): in the target's training set
    classes: int
    tier: str
    source: str
    digest: str


def images(target: Target, profile: str) -> Images:
    """Members and non-members: the official training and test images, or five and one parts of a stand-in.

    Caltech-101 has no official test images: all but a thousand, drawn once, are members, and come first.
    """
    if target.dataset == "imagenet":
        return _imagenet()
    data = caltech.load(profile) if target.dataset == caltech.NAME else datasets.load(target.dataset, profile)
    n, X, y = len(data.y), data.X, data.y
    if target.dataset == caltech.NAME:  # its images come class by class
        order = runs.stream(0, "target", caltech.NAME, "members").permutation(n)
        X, y = X[order], y[order]
    if X.ndim == 2:
        X = _pictures(X)
    members = {70_000: 60_000, 60_000: 50_000, caltech.IMAGES: caltech.IMAGES - 1000}.get(n, n * 5 // 6)
    return Images(X, y, np.arange(n) < members, data.classes, data.tier, data.source, data.digest)


def _pictures(X: np.ndarray) -> np.ndarray:
    """MNIST's rows of 0..1 as uint8 images of 28x28, the side LeNet takes; smaller digits are enlarged and framed."""
    side = math.isqrt(X.shape[1])
    grey = np.rint(X * 255).astype(np.uint8).reshape(-1, 1, side, side)
    zoom = 28 // side
    frame = (28 - zoom * side) // 2
    return np.pad(np.kron(grey, np.ones((zoom, zoom), np.uint8)), ((0, 0), (0, 0), (frame, frame), (frame, frame)))


def _imagenet() -> Images:
    """The first classes of an ImageNet folder that the user has: `train` are members, `val` non-members."""
    from torchvision.datasets import ImageFolder
    from torchvision.transforms.functional import pil_to_tensor, resize

    root = config.raw_dir() / "imagenet"
    if not all((root / side).is_dir() for side in ("train", "val")):
        raise FileNotFoundError(
            f"ImageNet is not downloaded for you: put its folders train and val, one subfolder a class, into {root}"
        )
    X, y, member = [], [], []
    for side in ("train", "val"):
        folder = ImageFolder(str(root / side))
        labels = np.array(folder.targets)
        for label in range(min(IMAGENET_CLASSES, len(folder.classes))):
            for row in np.flatnonzero(labels == label)[:IMAGENET_EACH]:
                X.append(pil_to_tensor(resize(folder[row][0], [IMAGENET_SIDE, IMAGENET_SIDE])).numpy())
                y.append(label)
                member.append(side == "train")
    source = f"ImageNet: the user's folder, {len(y):,} images of {max(y) + 1} classes"
    arrays = np.stack(X), np.array(y, np.int64), np.array(member)
    return Images(*arrays, 1000, "R", source, runs.digest(*arrays))


def normalised(target: Target, X: np.ndarray | torch.Tensor) -> torch.Tensor:
    """uint8 images (n, channels, height, width) as the float32 tensor that the target takes, where they are."""
    images = torch.as_tensor(X)
    mean, std = _on(images.device, SCALES[target.scale])
    return images.float().div_(255).sub_(mean).div_(std)


@functools.cache
def _on(device: torch.device, scale: tuple[tuple[float, ...], ...]) -> list[torch.Tensor]:
    return [torch.tensor(numbers, device=device)[:, None, None] for numbers in scale]


@dataclass(frozen=True)
class Trained:
    """A target model, ready to be attacked."""

    name: str
    target: Target
    net: nn.Module  # on the CPU, float32, in evaluation mode
    data: Images
    about: dict[str, str]  # what the file of its weights says: recipe, versions, log; of others' weights, where from


def load(name: str, target: Target, profile: str) -> Trained:
    """A target with its weights; `name`: of its files.

    Weights are those just trained here, else those in data/targets, else trained on the spot if that takes seconds.
    Raises ValueError where training would take long: it says what to run; what `datasets.load` raises, for records or
    others' weights that are missing.
    """
    data = images(target, profile)
    if target.weights:
        net, about = _by_others(target, data)
    else:
        net = network(target, data)
        tensors, about = _trained(name, target, data, profile)
        net.load_state_dict({key: t.float() if t.is_floating_point() else t for key, t in tensors.items()})
    return Trained(name, target, net.eval().requires_grad_(False), data, about)


def _trained(name: str, target: Target, data: Images, profile: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    made, kept = _made(name, target, data), KEPT / f"{name}.safetensors"
    if found := _read(made):
        return found
    if kept.exists():
        try:
            found = _parse(kept)
        except DAMAGED as error:
            raise ValueError(f"{kept.name} in data/targets is damaged ({error}); `git checkout` restores it") from error
        if found[1]["recipe"] == repr(target) and found[1]["data"] == data.digest:
            return found
    if target.epochs * data.member.sum() > ON_THE_SPOT:
        raise ValueError(f"{name} is not trained yet; run `{_command(name, profile)}`, which resumes if interrupted")
    return _read(train(name, target, profile))


def _by_others(target: Target, data: Images) -> tuple[nn.Module, dict[str, str]]:
    if target.weights == "pretrained":  # on ImageNet
        return nets.pretrained(target.network), {"recipe": "trained by others, see torchvision and timm"}
    path = files.fetch_file(target.weights)
    file = torch.load(path, map_location="cpu", weights_only=True)
    net = network(target, data)
    net.load_state_dict({key.removeprefix("module."): tensor for key, tensor in file["state_dict"].items()})
    return net, {"recipe": f"trained by others: {files.REGISTRY[target.weights].address}"}


def identity(trained: Trained) -> str:
    """Digest of all that a target's answers depend on: network, weights, images, labels and their normalisation."""
    weights = {name: tensor.numpy() for name, tensor in trained.net.state_dict().items()}
    seen = (SCALES[trained.target.scale], trained.data.X, trained.data.y)
    code = source.digest(nets.make), runs.versions("torch")
    if trained.target.weights == "pretrained":
        code += source.digest(nets.pretrained), runs.versions("torchvision", "timm")
    return runs.digest(trained.target.network, weights, *seen, *code)


def confidences(trained: Trained) -> np.ndarray:
    """Confidence vectors of all its records, members first, float32 (n, classes); kept. Many processes."""
    return _asked(trained)[0]


def last_features(trained: Trained) -> np.ndarray:
    """What enters the layer that makes the logits, float32 (n, d), of all its records; from the same pass."""
    return _asked(trained)[1]


def _asked(trained: Trained) -> list[np.ndarray]:
    jobs = [(trained.net, trained.target, part) for part in _parts(trained.data.X, PART)]
    found = work.every(_answers, jobs, PART, identity(trained))
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def _answers(net: nn.Module, target: Target, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    *_, last = (layer for layer in net.modules() if isinstance(layer, nn.Linear))
    entered: list[torch.Tensor] = []
    hook = last.register_forward_pre_hook(lambda layer, given: entered.append(given[0].cpu()))
    try:
        vectors = probabilities(net, target, X)
    finally:
        hook.remove()
    return vectors, torch.cat(entered).numpy()


def probabilities(net: nn.Module, target: Target, X: np.ndarray) -> np.ndarray:
    """Confidence vectors, float32 (n, classes), of uint8 images, on one thread."""
    net.eval()
    device = next(net.parameters()).device
    with torch.inference_mode(), small.one_thread():
        images = (torch.tensor(part).to(device) for part in _parts(X, CHUNK))  # copied: a part may be read-only
        parts = [net(normalised(target, part)).softmax(1).cpu() for part in images]
    return torch.cat(parts).numpy()


def _parts(X: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (X[at : at + size] for at in range(0, len(X), size))


# --- training -------------------------------------------------------------------------------------------------------


def train(name: str, target: Target, profile: str) -> Path:
    """Train a target on its members in `profile`; returns the file of its weights. Done before: only the file.

    After each epoch the state is kept, so an interrupted call goes on where it stopped; the random numbers of an
    epoch are its own, so the weights are the same either way (bit for bit on one machine). Products are in
    `machine.precision`, weights and sums in float32. Finished weights are rounded to half precision, then asked on all
    records once.
    """
    data = images(target, profile)
    path = _made(name, target, data)
    with work.held("target", path.name):
        if not path.exists() or _unwatched(name, target, data):
            _train(name, target, data, path)
    return path


def _train(name: str, target: Target, data: Images, path: Path) -> None:
    net, device = network(target, data), _device()
    _begin(net, name)
    net.to(device, memory_format=torch.channels_last if device.type == "cuda" else torch.preserve_format)
    optimiser = _optimiser(target, net)
    state = path.with_suffix(".state.safetensors")
    log = _resume(state, net, optimiser) or []
    X, y = (torch.from_numpy(array[data.member]).to(device) for array in (data.X, data.y))
    epoch_of = _epochs(target, net, optimiser, X, y)
    seen = observed(data)
    with small.one_thread():
        bar = tqdm(range(len(log), target.epochs), name, target.epochs, initial=len(log), disable=None, leave=False)
        for epoch in bar:
            started = time.time()
            rate = target.rate * 0.1 ** sum(epoch >= drop for drop in target.drops)
            loss, accuracy = epoch_of(rate, _plan(target, len(y), runs.stream(0, "target", trajectory(name), epoch)))
            log.append([epoch + 1, rate, loss, accuracy, round(time.time() - started, 1)])
            if epoch + 1 in _watched(target):
                answers = probabilities(net, target, data.X[seen]).astype(np.float16)
                work.store(_observation(name, target, data, epoch + 1), {"probabilities": answers})
            _keep(state, net, optimiser, log)
    _finish(path, net, target, data, log)
    state.unlink()


def trajectory(name: str) -> str:
    """What names a training's random numbers: a target's name up to "@".

    "cifar-10-alexnet@128" is the training of "cifar-10-alexnet" stopped after 128 epochs.
    """
    return name.partition("@")[0]


def train_all(wanted: dict[str, Target], profile: str) -> Iterator[Path]:
    """`train` each, one process a core; the files of their weights, in the order they are done."""
    jobs = (joblib.delayed(train)(name, target, profile) for name, target in wanted.items())
    yield from machine.parallel(jobs, min(len(wanted), config.workers()), unordered=True)


def keep(name: str, target: Target, profile: str) -> list[Path]:
    """Copy a trained target's weights to data/targets, to be committed, its log beside them; the files written."""
    path = _made(name, target, images(target, profile))
    if (found := _read(path)) is None:
        raise ValueError(f"{name} is not trained yet; run `{_command(name, profile)}`")
    lines = [",".join(LOG), *(",".join(f"{number:g}" for number in row) for row in json.loads(found[1]["log"]))]
    work.write_atomic(KEPT / f"{name}.safetensors", path.read_bytes())
    work.write_atomic(KEPT / f"{name}.csv", ("\n".join(lines) + "\n").encode())
    return [KEPT / f"{name}.safetensors", KEPT / f"{name}.csv"]


def network(target: Target, data: Images) -> nn.Module:
    """The untrained module of a target, for the shape of its images."""
    net = nets.make(target.network, data.X.shape[1], data.classes)
    # Measured on a CPU: halves DenseNet's time, costs AlexNet a tenth.
    return net.to(memory_format=torch.channels_last) if target.network.startswith("densenet") else net


def _begin(net: nn.Module, name: str) -> None:
    """Draw the initial weights on the CPU, from the target's own stream: PyTorch's default distributions."""
    seed = int(runs.stream(0, "target", trajectory(name), "weights").integers(2**62))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for module in net.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()


def _optimiser(target: Target, net: nn.Module) -> torch.optim.Optimizer:
    on_gpu = next(net.parameters()).is_cuda
    if target.network == "lenet":
        return torch.optim.Adam(net.parameters(), target.rate, betas=(0.5, 0.99), fused=True, capturable=on_gpu)
    return torch.optim.SGD(net.parameters(), target.rate, momentum=0.9, weight_decay=target.decay, fused=True)


def _plan(target: Target, n: int, rng: np.random.Generator) -> torch.Tensor:
    """One epoch, int64 (n, 4): the record shown, where its crop starts (down, right), and whether it is mirrored."""
    plan = torch.zeros(n, 4, dtype=torch.int64)
    plan[:, 0] = torch.from_numpy(rng.permutation(n))
    if target.augment:
        for batch in plan.split(target.batch):
            for column in (1, 2):
                batch[:, column] = torch.from_numpy(rng.integers(0, 9, len(batch)))
            batch[:, 3] = torch.from_numpy(rng.random(len(batch)) < 0.5)
    return plan


def _epochs(
    target: Target, net: nn.Module, optimiser: torch.optim.Optimizer, X: torch.Tensor, y: torch.Tensor
) -> Callable[[float, torch.Tensor], tuple[float, float]]:
    """A function of learning rate and plan that shows every member once and says the mean loss and the accuracy.

    Both are of the images as they were shown. X, y: the members, on the device that the network is on.
    """
    sums = torch.zeros(2, dtype=torch.float64, device=X.device)

    def step(plan: torch.Tensor) -> None:
        rows, down, right, mirrored = plan.unbind(1)
        images, labels = X[rows], y[rows]
        x = normalised(target, augmented(images, down, right, mirrored.bool()) if target.augment else images)
        bfloat16 = machine.precision(X.device.type) == "bfloat16"
        with torch.autocast(X.device.type, torch.bfloat16, enabled=bfloat16, cache_enabled=not X.is_cuda):
            logits = net(x)
        loss = F.cross_entropy(logits.float(), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        sums.add_(torch.stack((loss.detach().double() * len(rows), (logits.argmax(1) == labels).sum())))

    take = _recorded(step) if X.is_cuda else lambda rate, plan: step(plan)

    def epoch(rate: float, plan: torch.Tensor) -> tuple[float, float]:
        net.train()
        sums.zero_()
        optimiser.param_groups[0]["lr"] = rate
        for batch in plan.to(X.device).split(target.batch):
            take(rate, batch)
        loss, right = (sums / len(y)).tolist()
        return loss, right

    return epoch


def _recorded(step: Callable[[torch.Tensor], None]) -> Callable[[float, torch.Tensor], None]:
    """`step` on a GPU as a CUDA graph for each batch size and learning rate: one launch in place of thousands.

    The first three steps of a size are taken as they are: what libraries allocate once must be there by then.
    """
    graphs: dict[tuple[int, float], tuple[torch.cuda.CUDAGraph, torch.Tensor]] = {}
    taken: dict[int, int] = {}

    def take(rate: float, plan: torch.Tensor) -> None:
        size = len(plan)
        taken[size] = taken.get(size, 0) + 1
        if taken[size] <= 3:
            step(plan)
            return
        if (size, rate) not in graphs:
            for old in [key for key in graphs if key[1] != rate]:
                del graphs[old]
            graph, place = torch.cuda.CUDAGraph(), plan.clone()
            with torch.cuda.graph(graph, stream=torch.cuda.Stream(), capture_error_mode="thread_local"):
                step(place)
            graphs[size, rate] = graph, place
        graph, place = graphs[size, rate]
        place.copy_(plan)
        graph.replay()

    return take


def augmented(images: torch.Tensor, down: torch.Tensor, right: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
    """Each uint8 image framed by 4 black pixels, cropped to its size from `down` and `right` on, or mirrored then."""
    n, _, height, width = images.shape
    windows = F.pad(images, (4, 4, 4, 4)).unfold(2, height, 1).unfold(3, width, 1)
    crops = windows[torch.arange(n, device=images.device), :, down, right]
    return torch.where(mirrored[:, None, None, None], crops.flip(3), crops)


# --- what is kept ---------------------------------------------------------------------------------------------------


def observed(data: Images) -> np.ndarray:
    """Records asked while the target trains: all non-members, and as many members of each class, the first ones."""
    wanted = np.bincount(data.y[~data.member], minlength=data.classes)
    members = [np.flatnonzero(data.member & (data.y == label))[:n] for label, n in enumerate(wanted)]
    return np.sort(np.concatenate([*members, np.flatnonzero(~data.member)]))


def observations(name: str, target: Target, profile: str, every: int = 1) -> dict[int, np.ndarray]:
    """Epoch -> confidence vectors, float16 (records, classes), of the records `observed`, while the target trained.

    Of the epochs watched those that `every` divides. ValueError, saying what to run, where they are not in the cache.
    """
    data = images(target, profile)
    epochs = [epoch for epoch in _watched(target) if epoch % every == 0] if target.epochs else []
    found = {epoch: work.load(_observation(name, target, data, epoch)) for epoch in epochs}
    if not found or None in found.values():
        raise ValueError(f"{name} was not watched in training here; run `{_command(name, profile)}`")
    return {epoch: entry["probabilities"] for epoch, entry in found.items()}


def _watched(target: Target) -> list[int]:
    """Epochs after which the records are asked, the last among them."""
    return sorted({*range(target.observe, target.epochs + 1, target.observe), target.epochs})


def _unwatched(name: str, target: Target, data: Images) -> list[int]:
    """Those of them whose answers are lost or damaged."""
    return [epoch for epoch in _watched(target) if work.load(_observation(name, target, data, epoch)) is None]


def _command(name: str, profile: str) -> str:
    return f"python -m mialib targets {name} --profile {profile}"


def _key(name: str, target: Target, data: Images) -> str:
    """What a target's weights depend on, but for the versions of code and libraries, which its file names."""
    return runs.digest("target", name, target, data.digest, machine.precision(_device().type))


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _observation(name: str, target: Target, data: Images, epoch: int) -> str:
    return runs.digest("observation", _key(name, target, data), epoch)


def _made(name: str, target: Target, data: Images) -> Path:
    return config.cache_dir() / "targets" / f"{name}-{_key(name, target, data)[:12]}.safetensors"


def _keep(path: Path, net: nn.Module, optimiser: torch.optim.Optimizer, log: list) -> None:
    """Weights, optimiser and log in one file, so that they never disagree."""
    tensors = {f"net.{name}": tensor for name, tensor in net.state_dict().items()}
    for i, slots in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{i}.{name}": tensor for name, tensor in slots.items()}
    _write(path, tensors, {"log": json.dumps(log)})


def _resume(path: Path, net: nn.Module, optimiser: torch.optim.Optimizer) -> list | None:
    """Put the state of an interrupted training back; its log, or None where there is none to go on from."""
    if (found := _read(path)) is None:
        return None
    tensors, about = found
    net.load_state_dict({name[4:]: tensor for name, tensor in tensors.items() if name.startswith("net.")})
    slots: dict[int, dict] = {}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "optimiser":
            i, _, slot = rest.partition(".")
            slots.setdefault(int(i), {})[slot] = tensor
    optimiser.load_state_dict({"state": slots, "param_groups": optimiser.state_dict()["param_groups"]})
    return json.loads(about["log"])


def _finish(path: Path, net: nn.Module, target: Target, data: Images, log: list) -> None:
    """Round the weights to half precision, ask them, and write them with what is known of them."""
    half = {
        name: t.half() if t.is_floating_point() and "running" not in name else t for name, t in net.state_dict().items()
    }
    net.load_state_dict(half)
    right = probabilities(net, target, data.X).argmax(1) == data.y
    about = {
        "recipe": repr(target),
        "data": data.digest,
        "train_acc": f"{right[data.member].mean():.4f}",
        "test_acc": f"{right[~data.member].mean():.4f}",
        "versions": runs.versions("torch", "numpy"),
        "device": machine.device(),
        "log": json.dumps(log),
    }
    _write(path, half, about)


def _write(path: Path, tensors: dict[str, torch.Tensor], about: dict[str, str]) -> None:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    work.write_atomic(path, safetensors.torch.save(tensors, about | {"digest": _digest(tensors)}))


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    return runs.digest({name: tensor.numpy() for name, tensor in tensors.items()})


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]] | None:
    """Tensors and metadata of a file of `_write`, None without one; a damaged file is reported and set aside."""
    if not path.exists():
        return None
    try:
        return _parse(path)
    except DAMAGED as error:
        bad = path.with_name(path.name + ".bad")
        path.replace(bad)
        warnings.warn(f"{path.name} is damaged ({error}); set aside as {bad.name}, made again", stacklevel=2)
        return None


def _parse(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Raises one of DAMAGED if the file is not what `_write` wrote."""
    with safe_open(path, "pt") as file:
        tensors, about = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    if about["digest"] != _digest(tensors):
        raise ValueError("the digest is wrong")
    return tensors, about
