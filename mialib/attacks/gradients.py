"""Seven norms of the gradient of one record's loss, by all weights and by the input (Rezaei & Liu 2020, Table 7).

A layer's gradient for one record is made from two small things: what went into the layer, and the loss's derivative
by what came out of it. One pass forward and back for many records gives both, and hooks turn them into sums of powers
as they appear, so that the gradients themselves, as large as the network, are never held for more than a few rows.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.hooks import RemovableHandle

from mialib import arrays, runs, work
from mialib.models import small, targets
from mialib.models.targets import Target, Trained

NORMS = ("l1", "l2", "min", "max", "mean", "skew", "kurtosis")
PASS_BYTES = 2**25  # of layer outputs in one pass forward; their derivatives take about as much again
BLOCK_BYTES = 2**20  # of gradients written out at once (at least one row of one record's): what a core's cache holds
RECORDS = 500  # at most in one pass, and in one job
SIMPLE = (nn.Linear, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d)  # the layers whose gradients `_layer_sums` knows


def norms(trained: Trained, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`per_record` of a target's records `rows` (indices into its images); float64 (m, 7) by weights, by input.

    Many processes, one thread each; kept.
    """
    data, parts = trained.data, np.array_split(rows, -(-len(rows) // RECORDS) or 1)
    jobs = [(trained.net, trained.target, data.X[part], data.y[part]) for part in parts]
    about = (targets.identity(trained), parts, runs.versions("numpy"))
    found = work.every(_norms_of, jobs, *about, undefined=True)  # skewness and kurtosis of a constant gradient
    by_weights, by_input = (np.concatenate(part) for part in zip(*found, strict=True))
    return by_weights, by_input


def _norms_of(net: nn.Module, target: Target, X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # Copies, because other processes get read-only maps of a file, of which PyTorch warns.
    return per_record(net, targets.normalised(target, X.copy()), torch.from_numpy(y.copy()))


def first(y: np.ndarray, member: np.ndarray, right: np.ndarray, most: int) -> np.ndarray:
    """Indices, ascending, of the first `most` records of each class, side, and kind (`right`: correctly classified).

    All arrays (n,), in the order of the data set; the paper's released code takes 400.
    """
    kinds = np.unique(np.stack([y, member, right]), axis=1).T
    chosen = [np.flatnonzero((y == label) & (member == side) & (right == kind))[:most] for label, side, kind in kinds]
    return np.sort(np.concatenate([*chosen, np.empty(0, np.int64)])).astype(np.int64)


# --- any network ----------------------------------------------------------------------------------------------------


def per_record(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """NORMS of the gradient of each record's cross-entropy: float64 (n, 7) by all weights, float64 (n, 7) by input.

    net: logits (n, classes) from x (n, …), in evaluation mode (BatchNorm by its running statistics); y (n,) int64.
    All parameters count, BatchNorm's scale and shift too. Skewness and kurtosis are biased and Fisher's, nan for a
    constant gradient (SciPy's defaults; the paper's released code). Products in the dtype of the net, sums and
    moments in float64; one thread. Layers other than SIMPLE, or used twice, cost time, not memory: see `_whole_sums`.
    ValueError for records and labels of different number, or a BatchNorm without running statistics.
    """
    y = torch.tensor(arrays.labels(y, len(x)))
    net.eval()
    if any(
        isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is None for layer in net.modules()
    ):
        raise ValueError("a BatchNorm without running statistics mixes records: they have no gradients of their own")
    with small.one_thread():
        size, simple = _probe(net, x[:1])
        parts = [_pass(net, x[rows], y[rows], simple) for rows in torch.arange(len(x)).chunk(-(-len(x) // size) or 1)]
    by_weights, by_input = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    return by_weights, by_input


def _probe(net: nn.Module, x: torch.Tensor) -> tuple[int, bool]:
    """Records that fit into PASS_BYTES, and whether every parameter lies in a layer of SIMPLE that is used once."""
    uses: dict[nn.Module, int] = {}
    sizes = [x.numel() * x.element_size()]

    def count(layer: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        uses[layer] = uses.get(layer, 0) + 1
        sizes.append(output.numel() * output.element_size())

    handles = [layer.register_forward_hook(count) for layer in net.modules() if not list(layer.children())]
    with torch.no_grad():
        _watched(net, x, handles)
    holders = [layer for layer in net.modules() if list(layer.parameters(recurse=False))]
    held = sum(parameter.numel() for layer in holders for parameter in layer.parameters(recurse=False))
    simple = all(_known(layer) and uses.get(layer) == 1 for layer in holders)
    tied = held != sum(parameter.numel() for parameter in net.parameters())  # one parameter in two layers
    return max(1, min(RECORDS, PASS_BYTES // sum(sizes))), simple and not tied


def _known(layer: nn.Module) -> bool:
    if type(layer) is nn.Conv2d:
        return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return type(layer) in SIMPLE


def _watched(net: nn.Module, x: torch.Tensor, handles: list[RemovableHandle]) -> torch.Tensor:
    """The logits of x; the hooks behind `handles` are taken off again, whatever happens."""
    try:
        return net(x)
    finally:
        for handle in handles:
            handle.remove()


def _pass(net: nn.Module, x: torch.Tensor, y: torch.Tensor, simple: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """NORMS of each record's gradient by weights and by input, (n, 7) each."""
    x, sums = x.detach().requires_grad_(), []

    def watch(layer: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        entered = inputs[0].detach()
        output.register_hook(lambda delta: sums.append(_layer_sums(layer, entered, delta)))

    layers = [layer for layer in net.modules() if list(layer.parameters(recurse=False))] if simple else []
    with torch.enable_grad():
        logits = _watched(net, x, [layer.register_forward_hook(watch) for layer in layers])
    delta, scale = _derivative(logits.detach(), y)
    [by_input] = torch.autograd.grad(logits, x, delta)
    if not simple or len(sums) < len(layers):  # older PyTorch drops the hook of an output that is changed in place
        sums = [_whole_sums(net, x.detach(), delta)]
    weights = sum(parameter.numel() for parameter in net.parameters())
    return _norms(_together(sums), weights, scale), _norms(_sums(by_input.double()), x[0].numel(), scale)


def _derivative(logits: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each record's cross-entropy by its logits, divided by its largest entry, which comes second, (n,) float64.

    The true class's entry, p - 1, is taken as minus the sum of the others': for a sure network, p - 1 in float32 is
    rounding error. Dividing keeps powers of small gradients from vanishing; `_norms` multiplies back.
    """
    delta = logits.double().softmax(1).scatter(1, y[:, None], 0.0)
    delta = delta.scatter(1, y[:, None], -delta.sum(1, keepdim=True))
    scale = delta.abs().amax(1)
    return (delta / scale.clamp_min(torch.finfo(torch.float64).tiny)[:, None]).to(logits.dtype), scale


def _whole_sums(net: nn.Module, x: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    """Sums for any network: each record's whole gradient is written out, as many at a time as PASS_BYTES hold."""
    parameters = {name: parameter.detach() for name, parameter in net.named_parameters()}
    size = sum(parameter.numel() * parameter.element_size() for parameter in parameters.values())

    def weighed(parameters: dict, record: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
        return (torch.func.functional_call(net, parameters, (record[None],)) * delta).sum()

    each = torch.func.vmap(torch.func.grad(weighed), in_dims=(None, 0, 0))
    sums = []
    for rows in torch.arange(len(x)).split(max(1, PASS_BYTES // size)):
        found = each(parameters, x[rows], delta[rows])
        sums.append(_together([_sums(gradient.flatten(1)) for gradient in found.values()]))
    return torch.cat(sums)


# --- sums -----------------------------------------------------------------------------------------------------------


def _sums(g: torch.Tensor) -> torch.Tensor:
    """Of each record's numbers (n, …): sums of g, g², g³, g⁴ and |g|, smallest and largest |g|; float64 (n, 7).

    Along the last axis in the dtype of g, from there on in float64. The sums of an outer product a bᵀ are the
    products of the sums of a and b.
    """
    square, size = g * g, g.abs()
    sums = [part.sum(-1).double() for part in (g, square, square * g, square * square, size)]
    parts = [part.flatten(1).sum(1) if part.dim() > 1 else part for part in sums]
    return torch.stack([*parts, size.flatten(1).amin(1).double(), size.flatten(1).amax(1).double()], 1)


def _together(sums: list[torch.Tensor]) -> torch.Tensor:
    """The sums of several parts of one gradient as those of the whole."""
    parts = torch.stack(sums)
    return torch.cat([parts[..., :5].sum(0), parts[..., 5:6].amin(0), parts[..., 6:].amax(0)], 1)


def _layer_sums(layer: nn.Module, x: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    """Sums of the gradient by a layer's parameters, from its inputs x (n, …) and its outputs' derivatives delta."""
    if isinstance(layer, nn.Linear):
        x, delta = x.movedim(-1, 1), delta.movedim(-1, 1)
        weight = _product_sums(_flat(delta), _flat(x))
    elif isinstance(layer, nn.Conv2d):
        weight = _convolution_sums(layer, x, delta)
    else:
        mean, spread = layer.running_mean[:, None], (layer.running_var + layer.eps).sqrt()
        weight = _sums((_flat(x) - mean).mul_(_flat(delta)).sum(2).double() / spread)
    return weight if layer.bias is None else _together([weight, _sums(_flat(delta).sum(2).double())])


def _flat(values: torch.Tensor) -> torch.Tensor:
    """(n, channels, places) of (n, channels, …)."""
    return values.flatten(2) if values.dim() > 2 else values[..., None]


def _convolution_sums(layer: nn.Conv2d, x: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    """Of a convolution's weights: as products where its map has fewer places than it has filters, else written out."""
    sums, products = [], delta[0, 0].numel() < delta.shape[1] and layer.groups == 1
    size = max(1, BLOCK_BYTES // (layer.weight.numel() * x.element_size()))
    for seen, back in zip(x.split(size), delta.split(size), strict=True):
        if products:
            patches = F.unfold(seen, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
            sums.append(_product_sums(back.flatten(2), patches))
        else:
            sums.append(_sums(_convolution_gradient(layer, seen, back)))
    return torch.cat(sums)


def _convolution_gradient(layer: nn.Conv2d, x: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    """(n, filters, …): the records side by side as the groups of one convolution, the fastest way on a CPU."""
    n, (filters, *kernel) = len(x), layer.weight.shape
    x, delta = x.reshape(1, -1, *x.shape[2:]), delta.reshape(1, -1, *delta.shape[2:])
    form = layer.stride, layer.padding, layer.dilation, n * layer.groups
    return torch.nn.grad.conv2d_weight(x, (n * filters, *kernel), delta, *form).view(n, filters, -1)


def _product_sums(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Of the matrices a bᵀ, one a record; a (n, rows, places), b (n, columns, places)."""
    if a.shape[2] == 1:
        return _sums(a.flatten(1).double()) * _sums(b.flatten(1).double())
    row = b.shape[1] * b.element_size()
    height = max(1, min(a.shape[1], BLOCK_BYTES // row))
    records = max(1, BLOCK_BYTES // (height * row))
    sums = []
    for some, seen in zip(a.split(records), b.mT.split(records), strict=True):
        sums.append(_together([_sums(torch.bmm(part, seen)) for part in some.split(height, 1)]))
    return torch.cat(sums)


def _norms(sums: torch.Tensor, n: int, scale: torch.Tensor) -> torch.Tensor:
    """NORMS, float64 (m, 7), from the sums of n numbers each, all of which `scale` (m,) multiplies."""
    *powers, size, least, largest = sums.unbind(1)
    mean, second, third, fourth = (power / n for power in powers)
    variance = second - mean**2
    skew = (third - 3 * mean * second + 2 * mean**3) / variance**1.5
    kurtosis = (fourth - 4 * mean * third + 6 * mean**2 * second - 3 * mean**4) / variance**2 - 3
    constant = variance <= (torch.finfo(torch.float64).eps * mean) ** 2  # SciPy's rule, for zero gradients as well
    shapes = [shape.masked_fill(constant, torch.nan) for shape in (skew, kurtosis)]
    return torch.stack(
        [size * scale, powers[1].sqrt() * scale, least * scale, largest * scale, mean * scale, *shapes], 1
    )
