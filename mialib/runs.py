"""What makes a run repeatable: random streams, content digests, the cache, and provenance."""

import dataclasses
import hashlib
import importlib.metadata
import io
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import scipy.sparse

from mialib import __version__, config

_PACKAGES = ("numpy", "torch", "torchvision", "scikit-learn", "xgboost", "matplotlib", "papermill")


def stream(seed: int, *words: str | int) -> np.random.Generator:
    """Random generator of one role, e.g. `stream(0, "shadow", 3)`: adding a shadow changes no other stream."""
    return np.random.default_rng(int(digest(seed, *words)[:32], 16))


def digest(*parts: Any) -> str:
    """SHA-256 (hex) of arrays (dense or CSR), dataclasses, dicts, tuples, lists and plain values, types included."""
    sha = hashlib.sha256()
    for part in parts:
        _feed(sha, part)
    return sha.hexdigest()


def _feed(sha: "hashlib._Hash", part: Any) -> None:
    if isinstance(part, np.ndarray):
        sha.update(f"array {part.dtype.str} {part.shape};".encode())
        sha.update(np.ascontiguousarray(part).data)
    elif scipy.sparse.issparse(part):
        csr = part.tocsr()
        _feed(sha, ("csr", csr.shape, csr.indptr.astype(np.int64), csr.indices.astype(np.int64), csr.data))
    elif dataclasses.is_dataclass(part):
        _feed(sha, (type(part).__name__, {f.name: getattr(part, f.name) for f in dataclasses.fields(part)}))
    elif isinstance(part, dict):
        _feed(sha, ("dict", *((key, part[key]) for key in sorted(part))))
    elif isinstance(part, tuple | list):
        sha.update(f"sequence {len(part)};".encode())
        for item in part:
            _feed(sha, item)
    elif part is None or isinstance(part, bool | int | float | str | np.generic):
        value = part.item() if isinstance(part, np.generic) else part
        text = f"{type(value).__name__} {value!r}"
        sha.update(f"{len(text)}:{text};".encode())
    else:
        raise TypeError(f"cannot digest a {type(part).__name__}; pass arrays, plain values or dataclasses of them")


def source_digest(*modules: ModuleType) -> str:
    """SHA-256 of the modules' source text: a cached result is rebuilt when the code of its stage changes."""
    return digest(*(Path(module.__file__).read_text() for module in modules))


def versions(*packages: str) -> str:
    """Installed versions, e.g. "numpy 2.4.6, torch 2.15.0": a cached result is rebuilt when a library changes."""
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)


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


def store(key: str, arrays: dict[str, np.ndarray]) -> None:
    """Put named arrays into the cache under `key` (hex digest). The file ends in the SHA-256 of what precedes it."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    payload = buffer.getvalue()
    write_atomic(_path(key), payload + hashlib.sha256(payload).digest())


def load(key: str) -> dict[str, np.ndarray] | None:
    """The arrays stored under `key`, or None. A damaged entry is reported, removed and counts as absent."""
    try:
        raw = _path(key).read_bytes()
    except FileNotFoundError:
        return None
    payload, check = raw[:-32], raw[-32:]
    if hashlib.sha256(payload).digest() != check:
        warnings.warn(f"cache entry {key[:12]} is damaged; it is removed and computed again", stacklevel=2)
        _path(key).unlink(missing_ok=True)
        return None
    with np.load(io.BytesIO(payload), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _path(key: str) -> Path:
    return config.cache_dir() / key[:2] / f"{key}.npz"


@dataclasses.dataclass(frozen=True)
class Run:
    """One execution of one notebook."""

    notebook: str  # file stem, e.g. "01_shokri_table2_datasets"
    profile: str
    seed: int
    started: float  # seconds since the epoch
    commit: str  # of the code that runs, see `provenance`


def start(notebook: str, profile: str, seed: int) -> Run:
    """Check the parameters, print one line of versions, and note the time. ValueError on a bad profile or seed."""
    config.check_profile(profile)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed must be a whole number from 0 up, not {seed!r}")
    libraries = versions("numpy", "torch", "scikit-learn")
    print(f"mialib {__version__} · profile {profile} · seed {seed} · Python {platform.python_version()}, {libraries}")
    return Run(notebook, profile, seed, time.time(), _commit())


def provenance(run: Run, data: dict[str, str]) -> dict[str, Any]:
    """Where a record comes from: commit, versions, device, threads, seconds so far, data digests, date (UTC).

    Seconds count from `start` and so are short where models came from the cache.
    """
    return {
        "commit": run.commit,
        "versions": {"python": platform.python_version(), "mialib": __version__}
        | {name: importlib.metadata.version(name) for name in _PACKAGES},
        "device": f"{platform.system()} {platform.machine()}, {_device()}",
        "threads": {"workers": config.workers(), "each": 1},
        "seconds": round(time.time() - run.started, 1),
        "data": dict(sorted(data.items())),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def _device() -> str:
    """The GPU's name if this process uses PyTorch and has one, else CPU; this floor does not import PyTorch itself."""
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch and torch.cuda.is_available() else "CPU"


def _commit() -> str:
    """HEAD's hash, with "+changes" when tracked files differ from it; "unknown" outside a git checkout."""
    git = ["git", "-C", str(config.ROOT)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
    if head.returncode:
        return "unknown"
    changed = subprocess.run([*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True)
    return head.stdout.strip() + ("+changes" if changed.stdout.strip() else "")
