"""Students of a teacher whose first layers are frozen, from none of them to all but the last.

`transfer` trains all layers of a network. Here a frozen one keeps its weights as buffers, which no training changes.
"""

import copy
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from mialib.models import small, transfer
from mialib.models.fit import Recipe
from mialib.models.transfer import Teacher


class Frozen(nn.Sequential):
    """Layers that are not trained: their weights are buffers, and dropout and batch statistics stay as when asked."""

    def __init__(self, layers: OrderedDict[str, nn.Module]) -> None:
        super().__init__(layers)
        for layer in self.modules():
            for name, weight in list(layer.named_parameters(recurse=False)):
                delattr(layer, name)
                layer.register_buffer(name, weight.detach().clone())
        self.eval()

    def train(self, mode: bool = True) -> "Frozen":
        """Stay in eval mode, whatever is asked."""
        return super().train(False)


def weighted(teacher: Teacher) -> list[str]:
    """Names of the layers that have weights to train, in order; one that holds others counts once.

    ValueError for a network that is no `nn.Sequential`: which of its layers are the first is not to be seen.
    """
    if not isinstance(teacher.net, nn.Sequential):
        raise ValueError(f"a {type(teacher.net).__name__} does not tell the order of its layers, an nn.Sequential does")
    return [name for name, layer in teacher.net.named_children() if any(True for _ in layer.parameters())]


def freeze(teacher: Teacher, count: int) -> Teacher:
    """A copy whose first `count` layers with weights, and what lies between them and the next, are not trained further.

    ValueError unless the last of them stays free, and as `weighted` raises it.
    """
    names = weighted(teacher)
    if not 0 <= count < len(names):
        raise ValueError(f"of {len(names)} layers with weights 0 to {len(names) - 1} can be frozen, not {count}")
    if not count:
        return teacher
    layers = list(copy.deepcopy(teacher.net).named_children())
    at = [name for name, _ in layers].index(names[count])
    net = nn.Sequential(OrderedDict([("frozen", Frozen(OrderedDict(layers[:at]))), *layers[at:]]))
    moved = teacher.layer.split(".")[0] in dict(layers[:at])
    return replace(teacher, net=net, layer=f"frozen.{teacher.layer}" if moved else teacher.layer)


def last_layer(teacher: Teacher, X: np.ndarray, y: np.ndarray, classes: int, recipe: Recipe, words: tuple) -> Teacher:
    """A copy whose last linear layer is a new one, trained alone on what `teacher.layer`, before it, says of X.

    As `freeze` of all but the last and `transfer.train`, but the frozen layers are asked once a record.
    """
    model, [theta] = transfer.heads(transfer.features(teacher, X), y, classes, [np.arange(len(y))], [words], recipe)
    student = transfer.with_classes(teacher, classes, words)
    [(weight, bias)] = small.layers(model, theta)
    last = [layer for layer in student.net.modules() if isinstance(layer, nn.Linear)][-1]
    with torch.no_grad():
        last.weight.copy_(torch.from_numpy(weight.T.copy()))
        last.bias.copy_(torch.from_numpy(bias.copy()))
    return student
