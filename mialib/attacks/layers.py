"""What a target's inner layers say of a record: outputs of named modules (Rezaei & Liu 2020, Table 5)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from mialib import work
from mialib.models import nets, small, targets
from mialib.models.targets import Target, Trained

CHUNK = 100  # records asked at once
RECORDS = 5000  # in one job


def outputs(net: nn.Module, x: torch.Tensor, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Outputs (n, …) of the modules of `net` called `names` (as in `named_modules`), for x (n, …), in one pass.

    In evaluation mode; a module that is used several times gives its last output. ValueError for an unknown name.
    """
    modules, found = dict(net.named_modules()), {}
    if unknown := [name for name in names if name not in modules]:
        raise ValueError(f"the network has no module {unknown[0]!r}; it has {', '.join(filter(None, modules))}")
    hooks = [
        modules[name].register_forward_hook(lambda module, inputs, out, name=name: found.update({name: out.clone()}))
        for name in names
    ]
    net.eval()
    try:
        with torch.no_grad():
            net(x)
    finally:
        for hook in hooks:
            hook.remove()
    if silent := [name for name in names if name not in found]:
        raise ValueError(f"the module {silent[0]!r} is not used when the network answers")
    return found


def layer(trained: Trained, number: int) -> np.ndarray:
    """What layer `number` (-1: the input of the layer that makes the logits; -2: the one before) says of all records.

    Flattened, float32 (n, d), members first; cached. -1 comes with the confidences, from one pass. ValueError for
    another number.
    """
    known = nets.LAYERS[trained.target.network.split("-")[0]]
    if number not in known:
        raise ValueError(f"unknown layer {number}; valid: {', '.join(map(str, known))}")
    if number == -1:
        return targets.last_features(trained)
    X, name = trained.data.X, known[number]
    jobs = [(trained.net, trained.target, X[at : at + RECORDS], name) for at in range(0, len(X), RECORDS)]
    return np.concatenate([part for (part,) in work.every(_outputs, jobs, name, RECORDS, targets.identity(trained))])


def _outputs(net: nn.Module, target: Target, X: np.ndarray, name: str) -> tuple[np.ndarray]:
    X = np.array(X)  # other processes get it as a read-only map of a file, of which PyTorch warns
    with small.one_thread():
        parts = (targets.normalised(target, X[at : at + CHUNK]) for at in range(0, len(X), CHUNK))
        return (torch.cat([outputs(net, part, [name])[name].flatten(1) for part in parts]).numpy(),)
