"""Expensive work, done once: results are kept, two that want the same take turns, jobs spread over processes."""

import errno
import hashlib
import io
import os
import stat
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from filelock import FileLock

from mialib import config, machine, runs, source


def every(
    function: Callable, jobs: Sequence[tuple], *about: Any, undefined: bool = False, workers: int | None = None
) -> list[tuple[np.ndarray, ...]]:
    """What `function` gives for each of the `jobs` (its arguments), as tuples of arrays; all of them kept as one entry.

    Many processes, one thread each. `about`: all that the answers follow from but for the function itself and what it
    reaches: data (or their digest), how they are cut into jobs, seeds, versions of libraries. `undefined`: see `store`.
    """
    key = runs.digest(function.__name__, source.digest(function), *about)

    def work() -> dict[str, np.ndarray]:
        tasks = (joblib.delayed(function)(*job) for job in jobs)
        found = machine.parallel(tasks, min(workers or config.workers(), len(jobs)))
        return {f"{i}-{j}": array for i, arrays in enumerate(found) for j, array in enumerate(arrays)}

    entry = cached(key, work, undefined)
    parts = [name.split("-") for name in entry]
    return [tuple(entry[f"{i}-{j}"] for at, j in parts if int(at) == i) for i in range(len(jobs))]


def cached(key: str, compute: Callable[[], dict[str, np.ndarray]], undefined: bool = False) -> dict[str, np.ndarray]:
    """The arrays kept under `key`, or those that `compute` gives, which are kept then; one process at a time."""
    if (entry := load(key)) is None:
        with held(key):
            if (entry := load(key)) is None:
                entry = compute()
                store(key, entry, undefined)
    return entry


# --- the cache ------------------------------------------------------------------------------------------------------


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` under a temporary name, then rename: `path` is never seen half-written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def store(key: str, arrays: dict[str, np.ndarray], undefined: bool = False) -> None:
    """Put named arrays into the cache under `key` (hex digest). The file ends in the SHA-256 of key and payload.

    ValueError for numbers that are not finite, unless some of them may be `undefined` (nan): a training that failed
    would be believed ever after. Where the cache cannot be written (it is somebody else's, or read-only), it says so
    and the work is not kept; a full disk is an error.
    """
    broken = [name for name, array in arrays.items() if array.dtype.kind in "fc" and not np.isfinite(array).all()]
    if broken and not undefined:
        raise ValueError(f"{', '.join(broken)}: not all finite, so not kept; check the records and the settings")
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    payload = buffer.getvalue()
    try:
        write_atomic(_path(key), payload + _check(key, payload))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        warnings.warn(f"the cache cannot be written ({error.strerror}); results are not kept", stacklevel=2)


def load(key: str) -> dict[str, np.ndarray] | None:
    """The arrays stored under `key`, or None. Whatever lies in its place and is not that entry (damaged, of another
    key, no file) is reported, put out of the way where that is allowed, and counts as absent.
    """
    path = _path(key)
    if not os.path.lexists(path):
        return None
    try:
        return _arrays(key, path)
    except Exception as error:  # a damaged file may raise anything
        warnings.warn(f"cache entry {key[:12]} is damaged ({error}); it is removed and computed again", stacklevel=2)
        _put_away(path)
        return None


def _arrays(key: str, path: Path) -> dict[str, np.ndarray]:
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
        raise ValueError("it is no file")
    raw = path.read_bytes()
    payload, check = raw[:-32], raw[-32:]
    if _check(key, payload) != check:
        raise ValueError("its digest is wrong, or it is another's, or of an older version")
    with zipfile.ZipFile(io.BytesIO(payload)) as archive:
        if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
            raise ValueError("it is compressed")  # as ours never are: it could grow beyond all memory
    with np.load(io.BytesIO(payload), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    # A member that is no .npy comes as bytes.
    if not arrays or not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise ValueError("it holds something else than arrays")
    return arrays


def _check(key: str, payload: bytes) -> bytes:
    """What an entry ends in; with the key in it, an entry that was copied or linked to another's place is not taken."""
    return hashlib.sha256(key.encode() + payload).digest()


def _put_away(path: Path) -> None:
    try:
        path.unlink()
    except OSError:  # a folder is only renamed, as it is none of ours; if that is forbidden as well, it stays
        with suppress(OSError):
            path.rename(path.with_name(f"{path.name}.{os.getpid()}.bad"))


def _path(key: str) -> Path:
    return config.cache_dir() / key[:2] / f"{key}.npz"


# --- turns ----------------------------------------------------------------------------------------------------------


@contextmanager
def turn(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, after waiting for whoever holds it; the operating system frees it when a holder dies.

    A lock spares work and nothing else depends on it, as results are written whole or not at all: where there can be
    no lock file, or the file system has no locks, the work is done without.
    """
    lock = FileLock(path, poll_interval=0.2, fallback_to_soft=False)
    with suppress(OSError, NotImplementedError):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def held(*parts: Any) -> Iterator[None]:
    """Hold the lock that `parts` name (see `runs.digest`): who comes second finds the first's result in the cache."""
    folder = config.cache_dir() / "locks"
    with suppress(OSError):  # the cache is read-only or someone else's
        folder.mkdir(parents=True, exist_ok=True)
    with turn(folder / f"{runs.digest(*parts)[:16]}.lock"):
        yield
