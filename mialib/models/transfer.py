"""Students of a teacher: new layers on the features of its frozen ones, or all of its layers trained further.

A frozen layer says the same of a record in every epoch and to every student, so it is asked once a record, and kept.
"""

import copy
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import starmap

import joblib
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mialib import arrays, config, machine, runs, source, work
from mialib.data.splits import Split
from mialib.models import fit, modules, small
from mialib.models.fit import Recipe

CHUNK = 100  # images asked at once
PROBED = 16  # records whose features tell one teacher from another of the same weights


@dataclass(frozen=True)
class Teacher:
    """Any module of named layers (torchvision's, `nets`', one's own), on the CPU, and how it is fed.

    layer: the one, by its name in `named_modules`, whose output is frozen; inputs: the shape of an image; it is fed
    (image / 255 - mean) / deviation, where it was trained on no other scale: one number, or one a channel. It is put
    into eval mode when it is asked. ValueError for a layer it does not have, and a scale for other channels.
    """

    net: nn.Module
    layer: str
    inputs: tuple[int, int, int] = (3, 32, 32)
    mean: tuple[float, ...] = (0.5,)
    deviation: tuple[float, ...] = (0.5,)

    def __post_init__(self) -> None:
        names = [name for name, _ in self.net.named_modules() if name]
        if self.layer not in names:
            shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
            raise ValueError(f"the teacher has no layer {self.layer!r}; its layers: {shown}")
        for numbers in (self.mean, self.deviation):
            if len(numbers) not in (1, self.inputs[0]):
                raise ValueError(f"the teacher takes {self.inputs[0]} channels, its scale has {len(numbers)} numbers")


class _Reached(Exception):
    """The frozen layer has answered; those after it need not."""


def cnn(channels: int, classes: int, filters: tuple[int, int] = (32, 32), hidden: int = 128, side: int = 32) -> Teacher:
    """A small teacher, not trained: twice convolution of 5x5 and pooling, a hidden layer, ReLU; frozen up to the last.

    The sizes of `small.CNN`, with ReLU for its tanh. `side`: height and width of an image.
    """
    left = ((side - 4) // 2 - 4) // 2
    layers = OrderedDict(
        conv1=nn.Conv2d(channels, filters[0], 5), pool1=nn.MaxPool2d(2), relu1=nn.ReLU(),
        conv2=nn.Conv2d(*filters, 5), pool2=nn.MaxPool2d(2), relu2=nn.ReLU(), flatten=nn.Flatten(),
        fc1=nn.Linear(filters[1] * left**2, hidden), relu3=nn.ReLU(), fc2=nn.Linear(hidden, classes),
    )  # fmt: skip
    # Channels last in memory: a quarter less time on a CPU.
    net = nn.Sequential(layers).to(memory_format=torch.channels_last)
    return Teacher(net, "relu3", (channels, side, side))


def features(teacher: Teacher, X: np.ndarray) -> np.ndarray:
    """What the frozen layer says of images, flattened: float32 (n, d); kept, and on one thread.

    X: uint8 (n, *teacher.inputs). Layers after the frozen one are not run. ValueError for images of another shape or
    kind, a layer that is not run or gives no tensor, and features that are not finite.
    """
    _check(teacher, X)
    # The digest of a module's own code is not to be had: what it says of some records stands in for it.
    probe = _asked(teacher, X[:PROBED], teacher.layer)
    key = runs.digest("features", source.digest(_asked), *_identity(teacher), teacher.layer, probe, X)
    return work.cached(key, lambda: {"features": _asked(teacher, X, teacher.layer)})["features"]


def logits(teacher: Teacher, X: np.ndarray) -> np.ndarray:
    """What the whole network says of images, float32 (n, classes); X and errors as of `features`."""
    _check(teacher, X)
    return _asked(teacher, X, "")


def heads(
    inputs: np.ndarray,
    y: np.ndarray,
    classes: int,
    members: Sequence[np.ndarray],
    words: Sequence[tuple],
    recipe: Recipe,
    hidden: tuple[int, ...] = (),
) -> tuple[small.MLP, np.ndarray]:
    """Train the students' own layers, one student a set of members: the model, and its parameters (students, n).

    inputs: `features` (n, d); hidden: units of layers before the one that makes the logits, none for "last layer".
    A GPU trains students of one size as one stack, a CPU one a core: there a stack of so small models was ten times as
    slow. The rest is `fit.fit_many`'s, which says what is raised.
    """
    model = small.MLP((inputs.shape[1], *hidden, classes), "relu")
    return model, fit.fit_many(model, recipe, inputs, y, members, words)


def fresh(teacher: Teacher, words: tuple) -> Teacher:
    """The same network with all weights drawn anew, as PyTorch draws them; words: seed words.

    ValueError for weights of a layer without `reset_parameters`: they would stay the teacher's.
    """
    net = copy.deepcopy(teacher.net)
    _draw(net, words)
    return replace(teacher, net=net)


def with_classes(teacher: Teacher, classes: int, words: tuple) -> Teacher:
    """A copy whose last linear layer is a new one, for that many classes. ValueError for a net without one."""
    net = copy.deepcopy(teacher.net)
    linear = [(name, layer) for name, layer in net.named_modules() if isinstance(layer, nn.Linear)]
    if not linear:
        raise ValueError("the teacher has no linear layer that could be put in place of its last")
    name, last = linear[-1]
    new = nn.Linear(last.in_features, classes)
    _draw(new, words)
    net.set_submodule(name, new)
    return replace(teacher, net=net)


def train(teacher: Teacher, X: np.ndarray, y: np.ndarray, recipe: Recipe, words: tuple) -> Teacher:
    """Train all layers from where they are, by Adam on the cross-entropy (`recipe`; its decay and l2 are not used).

    X: uint8 (n, *inputs), y (n,): the members; words: seed words of their order and of dropout. Kept; on one thread. So
    a copy of a teacher becomes a student that is fine-tuned, and a `fresh` one a teacher, or a student without.
    ValueError as `features` raises it, for labels that do not fit, and a training that ends in weights that are not
    finite.
    """
    _check(teacher, X)
    y = arrays.labels(y, len(X), _asked(teacher, X[:2], "").shape[1])
    code = source.digest(_descend), *_identity(teacher), _asked(teacher, X[:PROBED], "")
    key = runs.digest("train", *code, X, y, recipe, words)
    with _draws((*words, "dropout")):
        entry = work.cached(key, lambda: _descend(teacher, X, y, recipe, words))
    net = copy.deepcopy(teacher.net)
    net.load_state_dict({name: torch.from_numpy(array) for name, array in entry.items()})
    return replace(teacher, net=net.eval())


def descend(teacher: Teacher, X: np.ndarray, y: np.ndarray, descent: modules.Descent, words: tuple) -> Teacher:
    """As `train`, by gradient descent with momentum at a falling rate: `modules.train`, which says what is raised.

    For a sequence of layers; with batch normalisation its running means are of the records that it learns. It
    multiplies in `machine.precision`: where that is bfloat16, a CNN of two convolutions took a quarter of the time.
    ValueError for a teacher that is fed on another scale than -1..1, too.
    """
    _check(teacher, X)
    if (teacher.mean, teacher.deviation) != ((0.5,), (0.5,)):
        raise ValueError(f"images are fed in -1..1 here, not by {teacher.mean} and {teacher.deviation}")
    return replace(teacher, net=modules.train(copy.deepcopy(teacher.net).train(), X, y, descent, words))


def descend_all(jobs: Iterable[tuple]) -> list[Teacher]:
    """`descend` for each of the jobs, its arguments, on all cores: one process each."""
    return list(machine.parallel(starmap(joblib.delayed(descend), jobs), config.workers()))


def normalises(teacher: Teacher) -> bool:
    """Whether the network has batch normalisation."""
    return any(isinstance(layer, nn.BatchNorm2d) for layer in teacher.net.modules())


def check_apart(side: Sequence[Split]) -> None:
    """ValueError unless no student's members are among its non-members, and no two students share a record."""
    for i, split in enumerate(side):
        if both := np.intersect1d(split.members, split.non_members).size:
            raise ValueError(f"student {i}: {both} records are members and non-members at once")
        for j, other in enumerate(side[:i]):
            if shared := np.intersect1d(np.concatenate(_sides(split)), np.concatenate(_sides(other))).size:
                raise ValueError(f"students {j} and {i} share {shared} records: one could not be the other's shadow")


def _sides(split: Split) -> tuple[np.ndarray, np.ndarray]:
    return split.members, split.non_members


def _check(teacher: Teacher, X: np.ndarray) -> None:
    wanted, found = ("x".join(map(str, shape)) for shape in (teacher.inputs, X.shape[1:]))
    if wanted != found:
        raise ValueError(f"the teacher takes images of {wanted}, these are {found}")
    if X.dtype != np.uint8 or not len(X):
        raise ValueError(f"a teacher takes at least one image, of uint8 (0 to 255), not {len(X)} of {X.dtype}")


def _identity(teacher: Teacher) -> tuple:
    weights = {name: tensor.numpy(force=True) for name, tensor in teacher.net.state_dict().items()}
    return runs.versions("numpy", "torch"), weights, str(teacher.net), teacher.mean, teacher.deviation


def _fed(teacher: Teacher, X: np.ndarray) -> torch.Tensor:
    mean, deviation = (torch.tensor(numbers)[:, None, None] for numbers in (teacher.mean, teacher.deviation))
    images = torch.tensor(X).float().div_(255).sub_(mean).div_(deviation)  # copied: X may be read-only
    return images.contiguous(memory_format=torch.channels_last)


def _asked(teacher: Teacher, X: np.ndarray, layer: str) -> np.ndarray:
    """What `layer` says of X, or without a name the whole network, float32 (n, d)."""
    found: list[torch.Tensor] = []

    def reached(_: nn.Module, __: tuple, given: torch.Tensor) -> None:
        found.append(given)
        raise _Reached

    teacher.net.eval()
    hook = teacher.net.get_submodule(layer).register_forward_hook(reached)
    try:
        with torch.inference_mode(), small.one_thread():
            for at in range(0, len(X), CHUNK):
                _run(teacher, X[at : at + CHUNK])
    finally:
        hook.remove()
    if len(found) != -(-len(X) // CHUNK) or not all(isinstance(part, torch.Tensor) for part in found):
        raise ValueError(f"layer {layer!r} is not run, or gives no tensor, when the teacher is asked")
    answers = torch.cat([part.flatten(1) for part in found]).numpy()
    if not np.isfinite(answers).all():
        raise ValueError(f"what layer {layer or 'the last'!r} says is not finite")
    return answers


def _run(teacher: Teacher, X: np.ndarray) -> None:
    try:
        teacher.net(_fed(teacher, X))
    except _Reached:
        pass
    except RuntimeError as error:  # PyTorch's for layers that do not fit
        raise ValueError(f"the teacher cannot take these images: {str(error).splitlines()[0]}") from error


def _descend(teacher: Teacher, X: np.ndarray, y: np.ndarray, recipe: Recipe, words: tuple) -> dict[str, np.ndarray]:
    """The state of a copy of the network after training."""
    net, rng = copy.deepcopy(teacher.net).train().requires_grad_(True), runs.stream(*words)
    optimiser = torch.optim.Adam(net.parameters(), recipe.rate, fused=True)
    labels = torch.tensor(y)
    with small.one_thread():
        for _ in range(recipe.epochs):
            order = rng.permutation(len(y))
            for rows in np.split(order, range(recipe.batch, len(order), recipe.batch)):
                optimiser.zero_grad()
                F.cross_entropy(net(_fed(teacher, X[rows])), labels[rows]).backward()
                optimiser.step()
    return {name: tensor.numpy(force=True) for name, tensor in net.state_dict().items()}


def _draw(net: nn.Module, words: tuple) -> None:
    with _draws((*words, "weights")):
        for layer in net.modules():
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
            elif any(True for _ in layer.parameters(recurse=False)):
                raise ValueError(f"a {type(layer).__name__} has weights that it cannot draw anew (reset_parameters)")


@contextmanager
def _draws(words: tuple) -> Iterator[None]:
    """What PyTorch draws in here comes from the stream of these words; its own stream is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(runs.stream(*words).integers(2**62)))
        yield
