"""The data sets, each as one pair of arrays: real files checked against data/registry.csv, or a stand-in.

`load(name, profile)` gives the arrays, `fetch(name)` only brings the files. What each set is: data/README.md.
"""

import bz2
import contextlib
import csv
import fcntl
import gzip
import hashlib
import itertools
import lzma
import math
import os
import re
import shutil
import ssl
import tarfile
import tempfile
import threading
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
import pooch
import requests
import scipy.sparse
import sklearn.datasets
import urllib3
from sklearn.cluster import MiniBatchKMeans
from threadpoolctl import threadpool_limits

from mialib import arrays, config, runs, simulate

Arrays = tuple[np.ndarray | scipy.sparse.csr_array, np.ndarray]

SETS = {  # name: (its folder in config.raw_dir(), classes)
    **{f"location-{k}": ("location", k) for k in (2, 10, 20, 30)},
    **{f"purchase-{k}": ("purchase", k) for k in (2, 10, 20, 50, 100)},
    "texas-100": ("texas", 100),
    "adult": ("adult", 2),
    "mnist": ("mnist", 10),
    "cifar-10": ("cifar10", 10),
    "cifar-100": ("cifar100", 100),
    "cifar-100-coarse": ("cifar100", 20),
}
# Labels that are not in the file, made as the paper made its own (VI-A).
RECLUSTERED = ("location-2", "location-10", "location-20", "purchase-2", "purchase-10", "purchase-20", "purchase-50")
DEMO_CLASSES = {"cifar-100": 20, "cifar-100-coarse": 10}
DEMO_ROWS = {"location": 1_500, "purchase": 8_000, "texas": 4_000}
PURCHASE_MD5 = "dd892f2cedf8b07025d016df49a2eb4f"  # of the unpacked file, by one third-party README: warn only
# What is longer than this is refused before it is read, in bytes. Texas-100 is the largest: 0.83e9, in rows of 12,340.
UNPACKED_LIMIT = 2**31  # an archive, unpacked
LINE_LIMIT = 2**16
PORTION = 2**20  # what is read of a stream at once, the long name of an archive's member included
MEMBER_LIMIT = 1_000  # members of an archive
# A server that is silent for TIMEOUT seconds, or brings fewer than SLOWEST bytes a second for PATIENCE seconds, is
# given up.
TIMEOUT, SLOWEST, PATIENCE = 30, 5_000, 60


@dataclass(frozen=True)
class Dataset:
    """One data set, in memory; one's own may come in any form that `arrays` takes (ValueError where it does not).

    X: (n, d) uint8 0/1 for location, purchase and texas (texas: csr_array); float32 in [0, 1] for adult and mnist;
    uint8 (n, 3, 32, 32) for the CIFARs. y: (n,) int64, 0..classes-1.
    """

    name: str
    X: np.ndarray | scipy.sparse.csr_array
    y: np.ndarray
    classes: int
    tier: str  # "R" real, "S" a real substitute, "M" simulated
    source: str  # one sentence fit for a caption
    digest: str  # runs.digest(X, y)

    def __post_init__(self) -> None:
        object.__setattr__(self, "X", arrays.records(self.X))
        object.__setattr__(self, "y", arrays.labels(self.y, self.X.shape[0], self.classes))


@dataclass(frozen=True)
class File:
    """One row of data/registry.csv. `digest` is "<kind>:<hex>"; kind "git" is a git blob id; size in bytes or None."""

    address: str
    size: int | None
    digest: str
    rows: int
    licence: str
    citation: str


_COLUMNS = {  # of data/registry.csv: what every cell of it matches, and that in words
    "file": (r"\w[\w.-]*(/\w[\w.-]*)+", "a place inside data/raw, such as mnist/labels.gz"),
    "address": (r"https?://\S+", "an http or https address"),
    "size": (r"([1-9]\d{0,14})?", "a whole number of bytes, or nothing"),
    "digest": (
        r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}|git:[0-9a-f]{40}",
        "sha256:, md5: or git: with its 64, 32 or 40 small hexadecimal digits",
    ),
    "rows": (r"0|[1-9]\d{0,14}", "a whole number"),
    "licence": (r".+", "a text"),
    "citation": (r".+", "a text"),
}


def read_registry() -> dict[str, File]:
    """Place under config.raw_dir() -> File, in the order of data/registry.csv.

    Raises ValueError naming the row (the header is row 1) and the column of a cell that is not what it must be.
    """
    with (config.ROOT / "data" / "registry.csv").open(newline="", encoding="utf-8") as file:
        table = csv.DictReader(file, restkey="an eighth")
        rows = list(table)
    if table.fieldnames != list(_COLUMNS):
        raise ValueError(f"data/registry.csv, row 1: the columns must be {','.join(_COLUMNS)}")
    registry = {}
    for number, row in enumerate(rows, 2):
        for column, cell in row.items():
            pattern, words = _COLUMNS.get(column, ("", "to be there"))
            if not re.fullmatch(pattern, str(cell or ""), re.ASCII):
                raise ValueError(f"data/registry.csv, row {number}, column {column}: {cell!r} is not {words}")
        place, size = row.pop("file"), row.pop("size")
        if place in registry:
            raise ValueError(f"data/registry.csv, row {number}, column file: {place!r} stands in an earlier row too")
        registry[place] = File(**row | {"size": int(size) if size else None, "rows": int(row["rows"])})
    return registry


REGISTRY = read_registry()


def load(name: str, profile: str) -> Dataset:
    """The data set `name` (a key of SETS) as `profile` has it.

    demo: embedded stand-ins, no network. laptop: real, but Purchase and Texas simulated unless their archive lies in
    config.raw_dir(). paper: real. Real files that are missing are downloaded.
    Raises ValueError (unknown name or profile; wrong digest, size or content of a file, which is then set aside) and
    FileNotFoundError (a file is missing and cannot be downloaded).
    """
    config.check_profile(profile)
    if name not in SETS:
        raise ValueError(f"unknown data set {name!r}; valid: {', '.join(SETS)}")
    folder, classes = SETS[name]
    if profile == "demo":
        (X, y), tier, source = _demo(name, folder, classes)
        classes = DEMO_CLASSES.get(name, classes)
    elif profile == "laptop" and folder in ("purchase", "texas") and not _archive(folder).exists():
        print(f"{name}: simulated. For the real records run `python -m mialib fetch {folder}`")
        (X, y), tier, source = _simulated(folder, classes)
    else:
        X, y = _READERS[folder](classes)
        tier, source = "R", _SOURCES[folder].format(classes=classes, n=len(y), d=X.shape[1])
        if name in RECLUSTERED:
            source += f", re-clustered by us into {classes} classes with k-means"
            # Purchase's own smaller sets were made so; Location's are ours alone.
            tier = "S" if folder == "location" else "R"
    return Dataset(name, X, y, classes, tier, source, runs.digest(X, y))


def fetch(name: str) -> list[Path]:
    """Checked files of one set, downloaded where missing. `name`: a key of SETS or a folder ("purchase", "cifar10").

    The CIFARs count as present when the unpacked members of their archive are. Raises as `load` does.
    """
    folder = SETS[name][0] if name in SETS else name
    places = [place for place in REGISTRY if place.startswith(f"{folder}/")]
    if not places:
        raise ValueError(f"unknown data set {name!r}; valid: {', '.join(dict.fromkeys(f for f, _ in SETS.values()))}")
    members = _members(folder)
    if members and all((config.raw_dir() / place).exists() for place in members):
        return [fetch_file(place) for place in members]
    return [fetch_file(place) for place in places if place not in members]


# --- files: download, check, set aside ------------------------------------------------------------------------------


def _archive(folder: str) -> Path:
    return config.raw_dir() / folder / f"dataset_{folder}.tgz"


def _members(folder: str) -> list[str]:
    """Places of a CIFAR's unpacked files, in the official order; none for the other sets."""
    return [place for place in REGISTRY if place.startswith(f"{folder}/") and place.endswith(".bin")]


def fetch_file(place: str) -> Path:
    """Path of one file of the registry, downloaded if missing; nothing with a wrong size or digest gets its name.

    Raises as `load` does; the FileNotFoundError says why the download failed.
    """
    path, file = config.raw_dir() / place, REGISTRY[place]
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent)
    if path.exists():
        _check_file(path, path, file)
        return path
    with _workplace(path.parent) as folder:
        # No digest for pooch, which cannot check a git blob id: _check_file does it, before the final name is given.
        names = {"registry": {path.name: None}, "urls": {path.name: file.address}}
        browser = pooch.create(folder, base_url="", retry_if_failed=3, **names)
        try:
            part = Path(browser.fetch(path.name, downloader=partial(_download, most=file.size or UNPACKED_LIMIT)))
        except (OSError, ValueError, urllib3.exceptions.HTTPError) as error:
            raise FileNotFoundError(
                f"{path.name} is missing and could not be downloaded from {file.address}: {_reason(error)}, "
                f"or put the file with digest {file.digest} at {path}"
            ) from error
        _check_file(part, path, file)
        part.chmod(0o644)
        os.replace(part, path)
    return path


def _download(address: str, part: str, _: pooch.Pooch, most: int) -> None:
    """One try, for pooch, in a thread of its own: a server that trickles keeps every single read within its timeout.

    Raises what the download does, and TimeoutError or OSError, which pooch does not retry, as `_watch` does.
    """
    errors = []

    def work() -> None:
        try:
            pooch.HTTPDownloader(progressbar=True, timeout=TIMEOUT)(address, file, None)
        except Exception as error:
            errors.append(error)

    with open(part, "wb") as file:  # closed here, so that a thread which is left behind ends at its next write
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        _watch(thread, file, most)
    if errors:
        raise errors[0]


def _watch(thread: threading.Thread, file: IO[bytes], most: int) -> None:
    """Wait for a download. OSError if it brings more than `most` bytes, TimeoutError if it is slower than SLOWEST."""
    before = 0
    for second in itertools.count(1):
        thread.join(1)
        if not thread.is_alive():
            return
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(f"the server sends more than {most:,} bytes")
        if second % PATIENCE == 0:
            if size - before < SLOWEST * PATIENCE:
                raise TimeoutError(f"too slow: {size - before:,} bytes in {PATIENCE} seconds")
            before = size


_ADVICE = (  # what a download failed for: its kinds of error, its name, what to do
    (
        (requests.exceptions.ProxyError, requests.exceptions.InvalidProxyURL, urllib3.exceptions.LocationParseError),
        "proxy refused",
        "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY",
    ),
    (
        (ssl.SSLCertVerificationError,),
        "certificate not trusted",
        "set REQUESTS_CA_BUNDLE to your network's certificates",
    ),
    ((urllib3.exceptions.NameResolutionError,), "name not resolved", "check the network"),
    ((requests.Timeout, urllib3.exceptions.ReadTimeoutError, TimeoutError), "timeout", "try again later"),
    ((BaseException,), "", "check the network or try again later"),
)


def _reason(error: Exception) -> str:
    """Why a download failed and what to do, in one line."""
    causes = list(_causes(error))
    last = causes[-1]
    what = getattr(last, "strerror", None) or str(last) or type(last).__name__
    if isinstance(error, requests.HTTPError):
        what = f"HTTP {error.response.status_code}"
    what = re.sub(r"//[^/\s]*@", "//", " ".join(what.split()))  # a proxy's address may hold a password
    kinds = ((name, advice) for types, name, advice in _ADVICE if any(isinstance(cause, types) for cause in causes))
    name, advice = next(kinds)
    return f"{name} ({what}); {advice}" if name else f"{what}; {advice}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and those inside it, outermost first: requests and urllib3 put one into another in several ways."""
    while error is not None:
        yield error
        inner = (*error.args, getattr(error, "reason", None), error.__cause__)
        error = next((each for each in inner if isinstance(each, BaseException)), None)


@contextlib.contextmanager
def _workplace(parent: Path) -> Iterator[Path]:
    """A temporary folder in `parent` for one download, locked while it is in use."""
    with contextlib.ExitStack() as stack:
        with _locked(parent):  # between its making and its locking nobody may take it for one left behind
            new = tempfile.TemporaryDirectory(dir=parent, prefix=".download-", ignore_cleanup_errors=True)
            folder = Path(stack.enter_context(new))
            stack.enter_context(_locked(folder))
        yield folder


def _sweep(parent: Path) -> None:
    """Remove the folders that killed downloads left in `parent`: those that nobody has locked."""
    for folder in parent.glob(".download-*"):
        with contextlib.suppress(OSError), _locked(parent), _locked(folder, fcntl.LOCK_NB) as dead:
            if dead:
                shutil.rmtree(folder)


@contextlib.contextmanager
def _locked(folder: Path, how: int = 0) -> Iterator[bool]:
    """Lock a folder; the operating system frees it when its holder dies. Yields False where that cannot be had."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        held = False
        with contextlib.suppress(OSError):  # another's with LOCK_NB, or a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX | how)
            held = True
        yield held
    finally:
        os.close(handle)


def digest_file(path: Path, kind: str) -> str:
    """Hex digest of a file: a hashlib name ("sha256", "md5"), or "git" for the blob id git would give it."""
    start = hashlib.sha1(b"blob %d\0" % path.stat().st_size) if kind == "git" else hashlib.new(kind)
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: start).hexdigest()


def _check_file(found: Path, path: Path, file: File) -> None:
    """Raise ValueError, and set `found` aside beside `path`, unless its size and digest are the registered ones."""
    size, kind = found.stat().st_size, file.digest.partition(":")[0]
    if file.size is not None and size != file.size:
        what = "truncated" if size < file.size else "too long"
        raise _set_aside(found, path, f"{what}: {size:,} of {file.size:,} bytes")
    digest = f"{kind}:{digest_file(found, kind)}"
    if digest != file.digest:
        raise _set_aside(found, path, f"wrong digest {digest}, expected {file.digest}")


def _set_aside(found: Path, path: Path, why: str) -> ValueError:
    """Rename a bad file to <name>.bad, and return the error to raise."""
    bad = path.with_name(path.name + ".bad")
    os.replace(found, bad)
    again = f"run again to download {_registered(path).address} anew"
    return ValueError(f"{path}: {why}. Set aside as {bad.name}; {again}")


def _registered(path: Path) -> File:
    return REGISTRY[path.relative_to(config.raw_dir()).as_posix()]


def _parse(path: Path, parse: Callable[[Path], Any]) -> Any:
    """parse(path); whatever is wrong with the content becomes one ValueError, and the file is set aside."""
    try:
        return parse(path)
    except (
        OSError, ValueError, OverflowError, EOFError, csv.Error, tarfile.TarError, zlib.error, lzma.LZMAError
    ) as error:  # fmt: skip
        if getattr(error, "errno", None) is not None:  # the disk's; those of gzip and bz2 have no number
            raise
        raise _set_aside(path, path, f"bad content: {error}") from error


_OPENERS = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}  # by the first two bytes of the file


def read_archive(path: Path, parsers: dict[str, Callable[[IO[bytes]], Any]]) -> dict[str, Any]:
    """Parse members of a tar archive straight from it, writing nothing to disk. `parsers`: member -> function.

    Raises ValueError if a member is missing or there twice, is a link or device or has a name that leaves the folder;
    if the archive is larger than the limits above, before it is read that far; and if it does not end as it should
    (EOFError where the compressed stream is cut).
    """
    with path.open("rb") as file:
        opener = _OPENERS.get(file.read(2), open)
    found, met = {}, set()
    with opener(path, "rb") as file, tarfile.open(fileobj=(stream := _Bounded(file)), mode="r:") as archive:
        for member in archive:
            name = PurePosixPath(member.name)
            if not (member.isreg() or member.isdir()) or name.is_absolute() or ".." in name.parts:
                raise ValueError(f"unsafe archive member {member.name!r}")
            if name in met:
                raise ValueError(f"the archive holds {member.name!r} twice")
            if member.offset_data + member.size > UNPACKED_LIMIT or len(met) == MEMBER_LIMIT:
                limits = f"{UNPACKED_LIMIT:,} bytes and {MEMBER_LIMIT:,} members"
                raise ValueError(f"with {member.name!r} the archive is larger than {limits}")
            met.add(name)
            if member.isreg() and str(name) in parsers:
                found[str(name)] = parsers[str(name)](archive.extractfile(member))
        # Two empty blocks end an archive. tarfile looks at one, and takes a damaged header or the end of data for it.
        if stream.last + stream.read(tarfile.BLOCKSIZE) != bytes(2 * tarfile.BLOCKSIZE):
            raise ValueError("the archive is cut or damaged: it lacks its end")
        while stream.read(PORTION):  # the end and the checksum of the compressed stream come last
            pass
    if missing := parsers.keys() - found.keys():
        raise ValueError(f"the archive lacks {', '.join(sorted(missing))}")
    return found


class _Bounded:
    """An unpacked archive as tarfile reads it: ValueError where it goes beyond UNPACKED_LIMIT or asks for too much."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.tell = stream, stream.tell
        self.last = b""  # what was read last

    def seek(self, position: int) -> None:
        if position > UNPACKED_LIMIT:
            raise ValueError(f"the archive is larger than {UNPACKED_LIMIT:,} bytes")
        self.stream.seek(position)

    def read(self, size: int) -> bytes:
        if not 0 <= size <= PORTION or self.tell() + size > UNPACKED_LIMIT + PORTION:
            raise ValueError(f"the archive is larger than {UNPACKED_LIMIT:,} bytes, or a header in it than {PORTION:,}")
        self.last = self.stream.read(size)
        return self.last


def read_all(stream: IO[bytes], most: int) -> bytes:
    """What is left of a stream. ValueError if that is more than `most` bytes, which is not read to its end."""
    data = bytearray()
    while part := stream.read(PORTION):
        data += part
        if len(data) > most:
            raise ValueError(f"more than {most:,} bytes")
    return bytes(data)


def read_lines(stream: IO[bytes]) -> Iterator[bytes]:
    """The lines of a stream. ValueError at one longer than LINE_LIMIT, which is not read to its end."""
    for number, line in enumerate(iter(partial(stream.readline, LINE_LIMIT + 1), b""), 1):
        if len(line) > LINE_LIMIT:
            raise ValueError(f"line {number:,} is longer than {LINE_LIMIT:,} bytes")
        yield line


def _check_rows(path: Path, y: np.ndarray, classes: int) -> None:
    rows = _registered(path).rows
    if len(y) != rows:
        raise ValueError(f"{len(y):,} rows, expected {rows:,}")
    if y.min() < 0 or y.max() >= classes:
        raise ValueError(f"labels from {y.min()} to {y.max()}, counted from 0, where there are {classes} classes")


# --- formats --------------------------------------------------------------------------------------------------------


def parse_rows(
    lines: Iterable[bytes], columns: tuple[int, ...], labelled: bool, chunk: int = 1_000
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Text rows of comma-separated 0/1 cells, in chunks: (cells uint8 (m, d), labels int64 (m,), as written).

    `columns`: the widths d that are allowed. `labelled`: rows begin with a label, which may stand in double quotes;
    else labels are 0. Blank lines are skipped. Raises ValueError naming the first row that is neither.
    """
    rows = (line.rstrip() for line in lines)
    rows = (row for row in rows if row)
    for first in itertools.count(1, chunk):
        block = list(itertools.islice(rows, chunk))
        if not block and first > 1:
            return
        if not block:
            raise ValueError("no rows")
        if first == 1:
            d = block[0].count(b",") + (not labelled)
            if d not in columns:
                raise ValueError(f"rows of {d} cells, expected {' or '.join(map(str, columns))}")
        yield _parse_block(block, d, labelled, first)


_LABEL = re.compile(rb'(\d{1,9}),|"(\d{1,9})",')


def _parse_block(block: list[bytes], d: int, labelled: bool, first: int) -> tuple[np.ndarray, np.ndarray]:
    """The cells are the last 2d-1 bytes of a row, so numpy reads them by position; what precedes them is the label."""
    width = 2 * d - 1
    tails = b"".join(row[-width:].rjust(width) + b"," for row in block)
    grid = np.frombuffer(tails, np.uint8).reshape(len(block), d, 2)
    cells = grid[:, :, 0] - ord("0")
    wrong = (cells > 1).any(axis=1) | (grid[:, :, 1] != ord(",")).any(axis=1)
    heads = [_LABEL.fullmatch(row[:-width]) if labelled else len(row) == width for row in block]
    wrong |= [not head for head in heads]
    if wrong.any():
        what = f"{'a label and ' if labelled else ''}{d} cells of 0 or 1"
        raise ValueError(f"row {first + int(wrong.argmax())} is not {what}, separated by commas")
    labels = [int(head[1] or head[2]) for head in heads] if labelled else [0] * len(block)
    return cells, np.array(labels, np.int64)


def parse_idx(data: bytes) -> np.ndarray:
    """Array of an unpacked MNIST idx file of unsigned bytes: 00 00 08 <dimensions>, big-endian sizes, then the data."""
    if data[:3] != b"\0\0\x08" or len(data) < 4 or len(data) < 4 + 4 * data[3]:
        raise ValueError("not an idx file of unsigned bytes")
    shape = tuple(np.frombuffer(data, ">u4", data[3], offset=4).tolist())
    body = np.frombuffer(data, np.uint8, offset=4 + 4 * data[3])
    if body.size != math.prod(shape):
        raise ValueError(f"{body.size:,} bytes of data for the shape {shape}")
    return body.reshape(shape)


def parse_cifar(data: bytes, labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 3, 32, 32) uint8 and labels (n, labels) uint8 of a CIFAR binary file: labels, then 3,072 pixels."""
    if len(data) % (labels + 3072):
        raise ValueError(f"{len(data):,} bytes are not whole records of {labels + 3072}")
    records = np.frombuffer(data, np.uint8).reshape(-1, labels + 3072)
    return records[:, labels:].reshape(-1, 3, 32, 32), records[:, :labels]


_ADULT_NUMBERS = [0, 2, 4, 10, 11, 12]  # age, fnlwgt, education-num, capital-gain, capital-loss, hours-per-week
_ADULT_KINDS = [1, 3, 5, 6, 7, 8, 9, 13]  # workclass, education, marital-status, occupation, relationship, race, sex, …
_INCOMES = {"<=50K": 0, ">50K": 1, "<=50K.": 0, ">50K.": 1}  # adult.test ends them in a full stop


def parse_adult(text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One UCI Adult part: numbers (n, 6) int64, categories (n, 8) str with "?" for missing, income > 50K (n,) int64.

    Blank lines, and the "|" line that adult.test begins with, are skipped. Raises ValueError on any other bad row.
    """
    lines = [line for line in text.splitlines() if line and not line.startswith("|")]
    rows = list(csv.reader(lines, skipinitialspace=True, quoting=csv.QUOTE_NONE))
    for i, row in enumerate(rows, 1):
        if len(row) != 15 or row[14] not in _INCOMES:
            raise ValueError(f"row {i} is not 14 attributes and an income of <=50K or >50K")
    table = np.array(rows).reshape(-1, 15)
    y = np.array([_INCOMES[row[14]] for row in rows], np.int64)
    return table[:, _ADULT_NUMBERS].astype(np.int64), table[:, _ADULT_KINDS], y


def encode_adult(numbers: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """Float32 (n, d): each number scaled to [0, 1] over all rows, then one 0/1 column for each category."""
    low, high = numbers.min(axis=0), numbers.max(axis=0)
    blocks = [((numbers - low) / np.maximum(high - low, 1)).astype(np.float32)]
    for column in kinds.T:
        categories, code = np.unique(column, return_inverse=True)
        blocks.append(np.eye(len(categories), dtype=np.float32)[code])
    return np.concatenate(blocks, axis=1)


# --- real sets: classes -> (X, y) -----------------------------------------------------------------------------------


def _labelled_rows(path: Path, member: str, d: int, classes: int) -> tuple[np.ndarray, np.ndarray, str]:
    """X, y from 0, and the md5 of an archive member whose rows are a label counted from 1 and d binary cells."""
    md5 = hashlib.md5()

    def hashed(stream: IO[bytes]) -> Iterator[bytes]:
        for line in read_lines(stream):
            md5.update(line)
            yield line

    def parse(stream: IO[bytes]) -> Iterator[np.ndarray]:
        return (np.concatenate(parts) for parts in zip(*parse_rows(hashed(stream), (d,), True), strict=True))

    X, y = read_archive(path, {member: lambda stream: tuple(parse(stream))})[member]
    _check_rows(path, y - 1, classes)
    return X, y - 1, md5.hexdigest()


def _location(classes: int) -> Arrays:
    X, y, _ = _parse(fetch("location")[0], lambda path: _labelled_rows(path, "bangkok", 446, 30))
    return X, y if classes == 30 else _clusters(X, classes)


def _purchase(classes: int) -> Arrays:
    X, y, md5 = _parse(fetch("purchase")[0], lambda path: _labelled_rows(path, "dataset_purchase", 600, 100))
    if md5 != PURCHASE_MD5:
        warnings.warn(f"dataset_purchase has md5 {md5}, not the {PURCHASE_MD5} we know of", stacklevel=3)
    return X, y if classes == 100 else _clusters(X, classes)


def _clusters(X: np.ndarray, classes: int) -> np.ndarray:
    """Labels made as the paper made them (Shokri et al. 2017, VI-A): clusters of all records. int64 (n,)."""
    means = MiniBatchKMeans(classes, random_state=0, batch_size=4096, n_init=3)
    with threadpool_limits(1):  # the sums of several threads would depend on their number
        return means.fit_predict(X.astype(np.float32)).astype(np.int64)


def _texas(classes: int) -> Arrays:
    def features(stream: IO[bytes]) -> scipy.sparse.csr_array:
        chunks = [scipy.sparse.csr_array(cells) for cells, _ in parse_rows(read_lines(stream), (6169, 6170), False)]
        return scipy.sparse.vstack(chunks, format="csr")

    def parse(path: Path) -> Arrays:
        def labels(stream: IO[bytes]) -> np.ndarray:
            data = read_all(stream, 16 * _registered(path).rows)
            return np.array(data.replace(b'"', b"").split()).astype(np.int64)

        members = read_archive(path, {"texas/100/feats": features, "texas/100/labels": labels})
        X, y = members["texas/100/feats"], members["texas/100/labels"] - 1
        _check_rows(path, y, classes)
        if X.shape[0] != len(y):
            raise ValueError(f"{X.shape[0]:,} rows of features for {len(y):,} labels")
        return X, y

    return _parse(fetch("texas")[0], parse)


def _adult(classes: int) -> Arrays:
    def parse(path: Path) -> tuple[np.ndarray, ...]:
        numbers, kinds, y = parse_adult(path.read_text(encoding="utf-8"))
        _check_rows(path, y, classes)
        return numbers, kinds, y

    parts = [_parse(path, parse) for path in fetch("adult")]
    numbers, kinds, y = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return encode_adult(numbers, kinds), y


def _mnist(classes: int) -> Arrays:
    def unpack(path: Path, record: int) -> np.ndarray:
        with gzip.open(path) as stream:
            return parse_idx(read_all(stream, 16 + record * _registered(path).rows))  # at most three sizes, 16 bytes

    def images(path: Path) -> np.ndarray:
        X = unpack(path, 784)
        if X.shape[1:] != (28, 28):
            raise ValueError(f"images of shape {X.shape[1:]}, expected 28 by 28")
        _check_rows(path, np.zeros(len(X), np.int64), classes)
        return X

    def labels(path: Path) -> np.ndarray:
        y = unpack(path, 1)
        _check_rows(path, y, classes)
        return y

    files = fetch("mnist")
    X = np.concatenate([_parse(path, images) for path in files[0::2]])
    y = np.concatenate([_parse(path, labels) for path in files[1::2]])
    return X.reshape(len(X), 784).astype(np.float32) / 255, y.astype(np.int64)


def _cifar(folder: str, prefix: str, labels: int, column: int, classes: int) -> Arrays:
    """Train images, then test images, in the official order. `column`: which of the `labels` of a record is y."""
    members = {place: f"{prefix}/{Path(place).name}" for place in _members(folder)}

    def records(path: Path, data: bytes) -> Arrays:
        images, targets = parse_cifar(data, labels)
        _check_rows(path, targets[:, column], classes)
        return images, targets[:, column]

    def archive(path: Path) -> list[Arrays]:
        most = {member: REGISTRY[place].size or UNPACKED_LIMIT for place, member in members.items()}
        found = read_archive(path, {member: partial(read_all, most=size) for member, size in most.items()})
        for place, member in members.items():
            if f"sha256:{hashlib.sha256(found[member]).hexdigest()}" != REGISTRY[place].digest:
                raise ValueError(f"member {member} has the wrong digest")
        return [records(config.raw_dir() / place, found[member]) for place, member in members.items()]

    files = fetch(folder)
    if files[0].suffix == ".bin":
        parts = [_parse(path, lambda path: records(path, path.read_bytes())) for path in files]
    else:
        parts = _parse(files[0], archive)
    X, y = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return X, y.astype(np.int64)


_READERS: dict[str, Callable[[int], Arrays]] = {
    "location": _location,
    "purchase": _purchase,
    "texas": _texas,
    "adult": _adult,
    "mnist": _mnist,
    "cifar10": lambda classes: _cifar("cifar10", "cifar-10-batches-bin", 1, 0, classes),
    "cifar100": lambda classes: _cifar("cifar100", "cifar-100-binary", 2, int(classes == 100), classes),
}
_SOURCES = {
    "location": "Location-30: real Foursquare check-ins in Bangkok, {n:,} records of {d} binary features",
    "purchase": "Purchase-{classes}: real shopping records, {n:,} records of {d} binary features",
    "texas": "Texas-100: real hospital discharges, {n:,} records of {d:,} binary features",
    "adult": "Adult: real census records (UCI), {n:,} records one-hot encoded into {d} columns",
    "mnist": "MNIST: real, {n:,} images of handwritten digits, 28 by 28 pixels",
    "cifar10": "CIFAR-10: real, {n:,} colour images, 32 by 32 pixels",
    "cifar100": "CIFAR-100: real, {n:,} colour images, 32 by 32 pixels, {classes} classes",
}


# --- stand-ins: (X, y), tier, source --------------------------------------------------------------------------------


def _simulated(folder: str, classes: int, **rows: int) -> tuple[Arrays, str, str]:
    if folder == "location":
        original, (X, y) = f"Location-{classes}", simulate.locations(**rows)
        y = y if classes == 30 else _clusters(X, classes)
    elif folder == "purchase":
        original, (X, y) = f"Purchase-{classes}", simulate.purchases(classes, **rows)
    else:
        original, (X, y) = "Texas-100", simulate.hospital(**rows)
    return (X, y), "M", f"simulated stand-in for {original}, {len(y):,} records of {X.shape[1]:,} binary features"


def _demo(name: str, folder: str, classes: int) -> tuple[Arrays, str, str]:
    if folder in DEMO_ROWS:
        return _simulated(folder, classes, n=DEMO_ROWS[folder])
    if folder == "adult":
        X, y = sklearn.datasets.load_breast_cancer(return_X_y=True)
        X = (X - X.min(axis=0)) / np.ptp(X, axis=0)
        return (X.astype(np.float32), y.astype(np.int64)), "S", "Wisconsin breast cancer, 569 records, in Adult's place"
    digits, y = sklearn.datasets.load_digits(return_X_y=True)
    if folder == "mnist":
        return ((digits / 16).astype(np.float32), y), "S", "scikit-learn's 1,797 digits, 8 by 8, in MNIST's place"
    source = f"scikit-learn's 1,797 digits enlarged to 3 x 32 x 32, in {name.removesuffix('-coarse').upper()}'s place"
    if name == "cifar-100":
        y, source = _split_by_brightness(digits, y), f"{source}; 20 classes: each digit's darker and brighter half"
    grey = np.kron(digits.reshape(-1, 8, 8) * (255 / 16), np.ones((4, 4))).astype(np.uint8)
    return (np.repeat(grey[:, None], 3, axis=1), y), "S", source


def _split_by_brightness(digits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Fine labels 2 * digit + (brighter than that digit's median), so that each coarse class holds two fine ones."""
    ink = digits.sum(axis=1)
    median = np.array([np.median(ink[y == digit]) for digit in range(10)])
    return 2 * y + (ink > median[y])
