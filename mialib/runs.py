"""What makes a run repeatable: random streams, content digests, the cache, and provenance."""

import dataclasses
import errno
import hashlib
import importlib.metadata
import io
import os
import platform
import stat
import subprocess
import tempfile
import time
import warnings
import zipfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import scipy.sparse

from mialib import __version__, config, machine

_PACKAGES = ("numpy", "torch", "torchvision", "scikit-learn", "xgboost", "matplotlib", "papermill")


def stream(seed: int, *words: str | int) -> np.random.Generator:
    """Random generator of one role, e.g. `stream(0, "shadow", 3)`: adding a shadow changes no other stream."""
    return np.random.default_rng(int(digest(seed, *words)[:32], 16))


def digest(*parts: Any) -> str:
    """SHA-256 (hex) of arrays (dense or sparse), dataclasses, dicts, tuples, lists and plain values, types included.

    TypeError for anything else, also inside an array: what is digested by its address tells nothing.
    """
    sha = hashlib.sha256()
    for part in parts:
        _feed(sha, part)
    return sha.hexdigest()


def _feed(sha: "hashlib._Hash", part: Any) -> None:
    if isinstance(part, np.ndarray) and part.dtype.hasobject:
        _feed(sha, ("objects", part.shape, part.ravel().tolist()))
    elif isinstance(part, np.ndarray):
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
    return digest(*(Path(module.__file__).read_text(encoding="utf-8") for module in modules))


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
    run = f"mialib {__version__} · profile {profile} · seed {seed} · Python {platform.python_version()}"
    print(f"{run}, {libraries} · {machine.device()}")
    return Run(notebook, profile, seed, time.time(), _commit())


def provenance(run: Run, data: dict[str, str]) -> dict[str, Any]:
    """Where a record comes from: commit, versions, device, threads, seconds so far, data digests, date (UTC).

    Seconds count from `start` and so are short where models came from the cache.
    """
    return {
        "commit": run.commit,
        "versions": {"python": platform.python_version(), "mialib": __version__}
        | {name: importlib.metadata.version(name) for name in _PACKAGES},
        "device": f"{platform.system()} {platform.machine()}, {machine.device()}",
        "threads": {"workers": config.workers(), "each": 1},
        "seconds": round(time.time() - run.started, 1),
        "data": dict(sorted(data.items())),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def _commit() -> str:
    """HEAD's hash, with "+changes" when what git keeps, or a new file of the package, differs from it.

    "unknown" outside a checkout of this project (unpacked inside another repository, it is not that one's), or
    without git.
    """
    try:
        top, head = _git("rev-parse", "--show-toplevel", "HEAD").splitlines()
        if Path(top).resolve() != config.ROOT.resolve():
            return "unknown"
        changed = _git("status", "--porcelain", "--untracked-files=all").splitlines()
    except (OSError, ValueError, subprocess.CalledProcessError):
        return "unknown"
    ours = [
        line for line in changed if not line.startswith("??") or line[3:].strip('"').startswith(("mialib/", "data/"))
    ]
    return head + ("+changes" if ours else "")


def _git(*arguments: str) -> str:
    """What git says of this folder, whatever GIT_DIR and the like point at."""
    elsewhere = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(config.ROOT), *arguments]
    return subprocess.run(command, capture_output=True, check=True, encoding="utf-8", env=elsewhere).stdout


# --- files ----------------------------------------------------------------------------------------------------------


def files_of(stem: str, folder: Path) -> list[Path]:
    """Sorted files in `folder` that the notebook `stem` has saved: named stem.* or stem_*.*.

    Names may begin alike ("01_a" and "01_a_b"): a file is of the longest stem that fits, among this one and those that
    have a record (<stem>.json) there.
    """
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    stems = {stem, *(path.stem for path in paths if path.suffix == ".json")}
    return [path for path in paths if _owner(path.name, stems) == stem]


def _owner(name: str, stems: set[str]) -> str:
    return max((stem for stem in stems if name.startswith((f"{stem}.", f"{stem}_"))), key=len, default="")
