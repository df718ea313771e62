"""Train any number of networks of one architecture: fused Adam, cached by content, any executor.

The backward pass of an MLP is written by hand; that of a CNN is PyTorch's.

One model is one job on one thread; many models are many processes, or one stack of weights on a GPU.
The random numbers of a model come from its own seed words, so the same words give the same model whichever
executor runs it: bit for bit among CPU executors of one machine, to float32 rounding for the stack.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import joblib
import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F
from tqdm import tqdm

from mialib import arrays, config, machine, runs, source, work
from mialib.models import small
from mialib.models.small import CNN, MLP, Model

EXECUTORS = ("auto", "serial", "processes", "stacked")
# Binary records with fewer ones than this are trained on as sparse rows; `make bench` shows what that buys.
SPARSE_BELOW = 0.2
STACK = 32  # models in one stack: what a GPU holds, and what an interrupted run can lose
Records = np.ndarray | scipy.sparse.csr_array


@dataclass(frozen=True)
class Recipe:
    """How to train: Adam on mean cross-entropy + l2·Σθ² (Shokri et al. 2017, VIII-A), batches reshuffled each epoch.

    The paper gives the learning rate, its decay (lr / (1 + decay·step)) and the epochs (VI-B); the optimiser and
    the batch size are our choice, because it names neither.
    """

    epochs: int
    batch: int = 100
    rate: float = 1e-3
    decay: float = 1e-7
    l2: float = 0.0


def fit_many(
    model: Model,
    recipe: Recipe,
    X: Records,
    y: np.ndarray,
    members: Sequence[np.ndarray],
    words: Sequence[tuple],
    executor: str = "auto",
    scheduler: str | None = None,
) -> np.ndarray:
    """Train one model on each set of records; returns their parameters, float32 (models, n_parameters).

    X (n, features) dense or binary CSR, for a CNN (n, channels, height, width) uint8; y (n,) in 0..classes-1,
    members: index arrays into X (one a model), words: (seed, role, index) of each model's random stream. Models
    trained before come from the cache; a model is stored as soon as it (or its stack) is done, so an interrupted
    call goes on where it stopped. `executor`: "serial", "processes", "stacked" (one batched MLP on the GPU, or on
    the CPU without one), or "auto": with a GPU a stack of MLPs of one size, CNNs one after another; without, or
    for sets of different sizes, processes. `scheduler`: address of a Dask scheduler that takes the jobs instead,
    by default $MIALIB_SCHEDULER if that is set.

    Raises ValueError when lengths differ, an index set is empty or out of range, records or labels do not fit the
    model, a sparse matrix is not binary, a stack is asked for with CNNs or training sets of different sizes, or the
    training ends in parameters that are not finite; and what `arrays` raises.
    """
    X, y = arrays.records(X), arrays.labels(y)
    _check(model, X, y, members, words, executor)
    scheduler = scheduler or config.scheduler()
    executor = _choose(model, executor, scheduler, len({len(rows) for rows in members}) == 1)
    X = X if executor == "stacked" else _compact(X)
    kind = f"stacked-{_device().type}" if executor == "stacked" else _device(model).type
    code = source.digest(_fit_stack if executor == "stacked" else _fit_job), runs.versions("numpy", "torch")
    keys = [
        runs.digest("fit", code, kind, model, recipe, X[rows], y[rows], word)
        for rows, word in zip(members, words, strict=True)
    ]
    done = [work.load(key) for key in keys]
    if None in done:
        with work.held(keys[0]):  # another process may have been at the same models
            done = [entry or work.load(key) for entry, key in zip(done, keys, strict=True)]
            _fit_missing(keys, done, (model, recipe, X, y, members, words), executor, scheduler)
    return np.stack([entry["theta"] for entry in done])


def ask(model: Model, theta: np.ndarray, X: Records) -> np.ndarray:
    """`small.logits`. A CNN's are kept: they are dear."""
    if isinstance(model, MLP):
        return small.logits(model, theta, X)
    key = runs.digest("ask", source.digest(small.logits), runs.versions("numpy", "torch"), model, theta, X)
    return work.cached(key, lambda: {"logits": small.logits(model, theta, X)})["logits"]


def _fit_missing(keys: list[str], done: list, what: tuple, executor: str, scheduler: str | None) -> None:
    """Train the models whose entry in `done` is None, and keep each as soon as it is there."""
    model, recipe, X, y, members, words = what
    missing = [i for i, entry in enumerate(done) if entry is None]
    jobs = ((model, recipe, X[members[i]], y[members[i]], words[i]) for i in missing)
    fitted = _run(jobs, len(missing), executor, scheduler)
    for place, theta in tqdm(fitted, total=len(missing), desc="training", disable=None, leave=False):
        if not np.isfinite(theta).all():
            raise ValueError(
                f"model {missing[place]} did not learn: its parameters are not finite after training at rate "
                f"{recipe.rate:g}; lower the rate, or scale the records"
            )
        work.store(keys[missing[place]], {"theta": theta})
        done[missing[place]] = {"theta": theta}


def _choose(model: Model, executor: str, scheduler: str | None, one_size: bool) -> str:
    """The executor to use: what is asked for; for "auto" what `fit_many` says."""
    if scheduler is not None:
        return "dask"
    if executor == "auto":
        if not torch.cuda.is_available():
            return "processes"
        return "serial" if isinstance(model, CNN) else "stacked" if one_size else "processes"
    if executor == "stacked" and not (one_size and isinstance(model, MLP)):
        raise ValueError('executor "stacked" needs MLPs and training sets of one size; use "processes"')
    return executor


def _check(model: Model, X: Records, y: np.ndarray, members: Sequence, words: Sequence, executor: str) -> None:
    if executor not in EXECUTORS:
        raise ValueError(f"unknown executor {executor!r}; valid: {', '.join(EXECUTORS)}")
    if len(members) != len(words) or not len(members):
        raise ValueError(f"give one index set and one tuple of seed words a model, not {len(members)} and {len(words)}")
    small.check_records(model, X)
    if X.shape[0] != len(y):
        raise ValueError(f"X has {X.shape[0]} records, y has {len(y)} labels")
    if len(y) and (y.min() < 0 or y.max() >= model.classes):
        raise ValueError(f"labels run from {y.min()} to {y.max()}, the model has classes 0 to {model.classes - 1}")
    for rows in members:
        if not len(rows) or np.min(rows) < 0 or np.max(rows) >= len(y):
            raise ValueError(f"a training set needs at least one record, with indices from 0 to {len(y) - 1}")
    if scipy.sparse.issparse(X) and not (X.data == 1).all():
        raise ValueError("a sparse X must be binary (every stored value 1); pass a dense array instead")


def _compact(X: Records) -> Records:
    """Binary records that are mostly zeros as CSR, all others as they are."""
    if (
        scipy.sparse.issparse(X)
        or X.ndim > 2
        or X.dtype != np.uint8
        or X.max(initial=0) > 1
        or X.mean() >= SPARSE_BELOW
    ):
        return X
    return scipy.sparse.csr_array(X)


def _device(model: Model | None = None) -> torch.device:
    """The GPU if there is one; for one MLP the CPU, where it trains as fast."""
    return torch.device("cuda" if torch.cuda.is_available() and not isinstance(model, MLP) else "cpu")


def _run(jobs: Iterable[tuple], n: int, executor: str, scheduler: str | None) -> Iterable[tuple[int, np.ndarray]]:
    """(place, parameters) of each of the n jobs as it finishes."""
    if executor == "dask":
        from distributed import Client

        with Client(scheduler), joblib.parallel_config(backend="dask"):
            yield from joblib.Parallel(return_as="generator_unordered", pre_dispatch="2*n_jobs")(_tasks(jobs))
    elif executor == "stacked":
        for start in range(0, n, STACK):
            yield from enumerate(_fit_stack(list(itertools.islice(jobs, STACK))), start)
    elif executor == "serial" or min(n, config.workers()) < 2:
        yield from (_fit_job(place, job) for place, job in enumerate(jobs))
    else:
        yield from machine.parallel(_tasks(jobs), min(n, config.workers()), unordered=True)


def _tasks(jobs: Iterable[tuple]) -> Iterable[tuple]:
    # A job stays a tuple, which travels with its task: an array by itself is put on one Dask worker and dies with it.
    return (joblib.delayed(_fit_job)(place, job) for place, job in enumerate(jobs))


def _fit_job(place: int, job: tuple) -> tuple[int, np.ndarray]:
    model, recipe, X, y, words = job
    rng = runs.stream(*words)
    if isinstance(model, CNN):
        batches = _image_batches
    else:
        batches = _sparse_batches if scipy.sparse.issparse(X) else _dense_batches
    with small.one_thread():
        theta = torch.from_numpy(small.initial(model, rng)).to(_device(model))
        _descend(model, recipe, theta, len(y), lambda: batches(X, y, rng.permutation(len(y)), recipe.batch))
    return place, theta.cpu().numpy()


def _fit_stack(jobs: list[tuple]) -> np.ndarray:
    """All jobs at once: parameters (models, n_parameters), batches (models, batch, features), on the GPU if any."""
    model, recipe = jobs[0][:2]
    streams = [runs.stream(*job[4]) for job in jobs]
    theta = torch.from_numpy(np.stack([small.initial(model, rng) for rng in streams])).to(_device())
    X = torch.from_numpy(np.stack([_dense(job[2]) for job in jobs])).to(_device())
    y = torch.from_numpy(np.stack([job[3] for job in jobs])).to(_device())
    which = torch.arange(len(jobs), device=_device())[:, None]

    def epoch() -> Iterable[tuple]:
        order = torch.from_numpy(np.stack([rng.permutation(y.shape[1]) for rng in streams])).to(_device())
        for rows in order.split(recipe.batch, dim=1):
            yield (X[which, rows].float(),), y[which, rows]

    _descend(model, recipe, theta, y.shape[1], epoch)
    return theta.cpu().numpy()


def _dense(X: Records) -> np.ndarray:
    return X.toarray() if scipy.sparse.issparse(X) else X


def _dense_batches(X: np.ndarray, y: np.ndarray, order: np.ndarray, size: int) -> Iterable[tuple]:
    """One epoch of ((x,), y): x (batch, features) float32, in one buffer that the next batch overwrites."""
    X, y, order = (torch.from_numpy(np.require(array, requirements=["C", "W"])) for array in (X, y, order))
    picked = torch.empty(size, X.shape[1], dtype=X.dtype)
    x = picked if X.dtype == torch.float32 else torch.empty(size, X.shape[1])
    for rows in order.split(size):
        torch.index_select(X, 0, rows, out=picked[: len(rows)])
        if x is not picked:
            x[: len(rows)].copy_(picked[: len(rows)])
        yield (x[: len(rows)],), y[rows]


def _image_batches(X: np.ndarray, y: np.ndarray, order: np.ndarray, size: int) -> Iterable[tuple]:
    """One epoch of ((x,), y): x (batch, channels, height, width) uint8, on the device that CNNs train on."""
    for rows in np.split(order, range(size, len(order), size)):
        yield (torch.from_numpy(X[rows]).to(_device()),), torch.from_numpy(y[rows]).to(_device())


def _sparse_batches(X: scipy.sparse.csr_array, y: np.ndarray, order: np.ndarray, size: int) -> Iterable[tuple]:
    """One epoch of ((columns, row starts, rows, column starts), y): by rows, and for the gradient by columns.

    Both orders are built for the whole epoch at once; a batch is then a slice.
    """
    n, d = X.shape
    shuffled, y = X[order], torch.from_numpy(y[order])
    counts, starts = np.diff(shuffled.indptr), shuffled.indptr.astype(np.int64)
    row = np.arange(n)
    by_column = scipy.sparse.coo_array(
        (
            np.ones(len(shuffled.indices), np.uint8),
            (np.repeat(row % size, counts), shuffled.indices + np.repeat(row // size * d, counts)),
        ),
        shape=(min(size, n), -(-n // size) * d),
    ).tocsc()
    columns, rows = (
        torch.from_numpy(shuffled.indices.astype(np.int64)),
        torch.from_numpy(by_column.indices.astype(np.int64)),
    )
    row_starts, column_starts = torch.from_numpy(starts), torch.from_numpy(by_column.indptr.astype(np.int64))
    for number, at in enumerate(range(0, n, size)):
        stop = min(at + size, n)
        low, high = starts[at], starts[stop]
        x = (
            columns[low:high],
            row_starts[at:stop] - low,
            rows[low:high],
            column_starts[number * d : number * d + d] - low,
        )
        yield x, y[at:stop]


def _descend(model: Model, recipe: Recipe, theta: torch.Tensor, n: int, epoch: Callable[[], Iterable[tuple]]) -> None:
    """Run Adam on `theta` (…, n_parameters) in place, over `recipe.epochs` epochs of batches from n records."""
    gradient, mean, square = torch.zeros_like(theta), torch.zeros_like(theta), torch.zeros_like(theta)
    step = torch.zeros((), device=theta.device)
    work = {size: _workspace(model, theta, size) for size in {min(recipe.batch, n), n % recipe.batch} if size}
    weights, gradients = small.layers(model, theta), small.layers(model, gradient)
    done = 0
    for _ in range(recipe.epochs):
        for x, y in epoch():
            if isinstance(model, CNN):
                image_loss_gradient(weights, gradients, *x, y)
            else:
                loss_gradient(model, weights, gradients, x, y, work[y.shape[-1]])
            if recipe.l2:
                gradient.add_(theta, alpha=2 * recipe.l2)
            # What torch.optim.Adam(fused=True) calls; its Python wrapper costs nearly as much again as this kernel.
            torch._fused_adam_(
                [theta], [gradient], [mean], [square], [], [step.add_(1)],
                lr=recipe.rate / (1 + recipe.decay * done),
                beta1=0.9, beta2=0.999, weight_decay=0.0, eps=1e-8, amsgrad=False, maximize=False,
            )  # fmt: skip
            done += 1


def image_loss_gradient(weights: list, gradients: list, images: torch.Tensor, y: torch.Tensor) -> None:
    """Write into `gradients` those of a CNN's mean cross-entropy by `weights` (both from `small.layers`).

    images (batch, channels, height, width) uint8, y (batch,) int64.
    """
    leaves = [tuple(part.detach().requires_grad_() for part in layer) for layer in weights]
    loss = F.cross_entropy(small.image_logits(leaves, images), y)
    found = torch.autograd.grad(loss, list(itertools.chain(*leaves)))
    for slot, value in zip(itertools.chain(*gradients), found, strict=True):
        slot.copy_(value)


def _workspace(model: Model, theta: torch.Tensor, size: int) -> list[tuple[torch.Tensor, ...]]:
    """Buffers (output, delta, scratch) of each layer for a batch of `size`; one for all steps spares the allocator."""
    if isinstance(model, CNN):
        return []
    return [tuple(theta.new_empty(*theta.shape[:-1], size, units) for _ in range(3)) for units in model.sizes[1:]]


def loss_gradient(model: MLP, weights: list, gradients: list, x: tuple, y: torch.Tensor, work: list) -> None:
    """Write into `gradients` those of the mean cross-entropy by `weights` (both from `small.layers`).

    x: (dense (…, batch, features),) or a batch of `_sparse_batches`; y (…, batch) int64; work: see `_workspace`.
    """
    for number, ((weight, bias), (out, _, _)) in enumerate(zip(weights, work, strict=True)):
        if number:
            _product(_activate(model, work[number - 1][0]), weight, out)
        else:
            _first_layer(x, weight, out)
        out.add_(bias.unsqueeze(-2))
    delta = torch.softmax(work[-1][0], -1, out=work[-1][1])
    delta.scatter_add_(-1, y.unsqueeze(-1), delta.new_full((1,), -1.0).expand(*y.shape, 1)).div_(y.shape[-1])
    for number in range(len(work) - 1, -1, -1):
        torch.sum(delta, -2, out=gradients[number][1])
        if number:
            below, wanted, scratch = work[number - 1]
            _product(below.mT, delta, gradients[number][0])
            _product(delta, weights[number][0].mT, wanted)
            delta = _through(model, below, wanted, scratch)
        else:
            _first_gradient(x, delta, gradients[0][0])


def _product(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
    """out = a @ b. By NumPy's OpenBLAS, the faster one on AMD processors; on Intel's, PyTorch's MKL would train up to a
    fifth faster (`python -m benchmarks choices`).
    """
    if a.device.type == "cpu" and a.dim() == 2:
        np.matmul(a.numpy(), b.numpy(), out=out.numpy())
    else:
        torch.matmul(a, b, out=out)


def _first_layer(x: tuple, weight: torch.Tensor, out: torch.Tensor) -> None:
    if len(x) == 1:
        _product(x[0], weight, out)
    else:
        columns, row_starts, _, _ = x
        out.copy_(torch.embedding_bag(weight, columns, row_starts)[0])


def _first_gradient(x: tuple, delta: torch.Tensor, out: torch.Tensor) -> None:
    if len(x) == 1:
        _product(x[0].mT, delta, out)
    else:
        _, _, rows, column_starts = x
        out.copy_(torch.embedding_bag(delta, rows, column_starts)[0])


def _activate(model: MLP, values: torch.Tensor) -> torch.Tensor:
    """The activation, in place. NumPy's tanh is as fast as PyTorch's, and four times and more without AVX-512."""
    if model.activation == "relu":
        return values.relu_()
    if values.device.type == "cpu":
        np.tanh(values.numpy(), out=values.numpy())
        return values
    return values.tanh_()


def _through(model: MLP, outputs: torch.Tensor, delta: torch.Tensor, scratch: torch.Tensor) -> torch.Tensor:
    """delta times the activation's derivative, which both activations give as a function of their output."""
    if model.activation == "tanh":
        return delta.addcmul_(delta, torch.mul(outputs, outputs, out=scratch), value=-1)
    return delta.mul_(torch.sign(outputs, out=scratch))
