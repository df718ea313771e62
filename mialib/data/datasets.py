"""The data sets, each as one pair of arrays: real records from checked files (`files`), or a stand-in.

`load(name, profile)` gives the arrays, `fetch(name)` only brings the files. What each set is: data/README.md.
"""

import csv
import gzip
import hashlib
import itertools
import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
import scipy.sparse
import sklearn.datasets
from sklearn.cluster import MiniBatchKMeans
from sklearn.preprocessing import OneHotEncoder
from threadpoolctl import threadpool_limits

from mialib import arrays, config, runs
from mialib.data import files, simulate

Arrays = tuple[np.ndarray | scipy.sparse.csr_array, np.ndarray]

SETS = {  # name: (its folder in config.raw_dir(), classes)
    **{f"location-{k}": ("location", k) for k in (2, 10, 20, 30)},
    **{f"purchase-{k}": ("purchase", k) for k in (2, 10, 20, 50, 100)},
    "texas-100": ("texas", 100),
    "adult": ("adult", 2),
    "mnist": ("mnist", 10),
    "fashion-mnist": ("fashionmnist", 10),
    "cifar-10": ("cifar10", 10),
    "cifar-100": ("cifar100", 100),
    "cifar-100-coarse": ("cifar100", 20),
}
# Classes that the labels in the file have. Those of sets with fewer are made as the paper made its own (VI-A).
FILE_CLASSES = {"location": 30, "purchase": 100}
DEMO_CLASSES = {"cifar-100": 20, "cifar-100-coarse": 10}
DEMO_ROWS = {"location": 1_500, "purchase": 8_000, "texas": 4_000}
MEMBER_MD5 = {"dataset_purchase": "dd892f2cedf8b07025d016df49a2eb4f"}  # by one third-party README: warn only


@dataclass(frozen=True)
class Dataset:
    """One data set, in memory; one's own may come in any form that `arrays` takes (ValueError where it does not).

    X: (n, d) uint8 0/1 for location, purchase and texas (texas: csr_array); float32 in [0, 1] for adult and the MNISTs;
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
    archive = config.raw_dir() / folder / f"dataset_{folder}.tgz"
    if profile == "demo":
        (X, y), tier, source = _demo(name, folder, classes)
        classes = DEMO_CLASSES.get(name, classes)
    elif profile == "laptop" and folder in config.BROUGHT[profile] and not archive.exists():
        print(f"{name}: simulated. For the real records run `python -m mialib fetch {folder}`")
        (X, y), tier, source = _simulated(folder, classes)
    else:
        (X, y), tier, source = _real(folder, classes)
    return Dataset(name, X, y, classes, tier, source, runs.digest(X, y))


def fetch(name: str) -> list[Path]:
    """Checked files of one set, downloaded where missing. `name`: a key of SETS or a folder ("purchase", "cifar10").

    The CIFARs count as present when the unpacked members of their archive are. Raises as `load` does.
    """
    folder = SETS[name][0] if name in SETS else name
    places = [place for place in files.REGISTRY if place.startswith(f"{folder}/")]
    if not places:
        raise ValueError(f"unknown data set {name!r}; valid: {', '.join(dict.fromkeys(f for f, _ in SETS.values()))}")
    members = _members(folder)
    if members and all((config.raw_dir() / place).exists() for place in members):
        return [files.fetch_file(place) for place in members]
    return [files.fetch_file(place) for place in places if place not in members]


def _members(folder: str) -> list[str]:
    """Places of a CIFAR's unpacked files, in the official order; none for the other sets."""
    return [place for place in files.REGISTRY if place.startswith(f"{folder}/") and place.endswith(".bin")]


# --- formats --------------------------------------------------------------------------------------------------------

_LABEL = re.compile(rb'(\d{1,9}),|"(\d{1,9})",')


def parse_rows(
    lines: Iterable[bytes], columns: tuple[int, ...], labelled: bool, chunk: int = 1_000
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Text rows of comma-separated 0/1 cells, in chunks: (cells uint8 (m, d), labels int64 (m,), as written).

    `columns`: the widths d that are allowed. `labelled`: rows begin with a label, which may stand in double quotes;
    else labels are 0. Blank lines are skipped. Raises ValueError naming the first row that is neither.
    """
    rows, first = filter(None, map(bytes.rstrip, lines)), 1
    while block := list(itertools.islice(rows, chunk)):
        if first == 1 and (d := block[0].count(b",") + (not labelled)) not in columns:
            raise ValueError(f"rows of {d} cells, expected {' or '.join(map(str, columns))}")
        # The cells are the last bytes of a row, so numpy reads them by position; what precedes them is the label.
        width = 2 * d - 1
        tails = b"".join(row[-width:].rjust(width) + b"," for row in block)
        grid = np.frombuffer(tails, np.uint8).reshape(len(block), d, 2)
        cells = grid[:, :, 0] - ord("0")
        heads = [_LABEL.fullmatch(row[:-width]) if labelled else len(row) == width for row in block]
        wrong = (cells > 1).any(axis=1) | (grid[:, :, 1] != ord(",")).any(axis=1) | ~np.array(heads, bool)
        if wrong.any():
            what = f"{'a label and ' if labelled else ''}{d} cells of 0 or 1"
            raise ValueError(f"row {first + int(wrong.argmax())} is not {what}, separated by commas")
        yield cells, np.array([int(head[1] or head[2]) if labelled else 0 for head in heads], np.int64)
        first += len(block)
    if first == 1:
        raise ValueError("no rows")


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
    scaled = ((numbers - low) / np.maximum(high - low, 1)).astype(np.float32)
    return np.hstack([scaled, OneHotEncoder(sparse_output=False, dtype=np.float32).fit_transform(kinds)])


# --- real sets ------------------------------------------------------------------------------------------------------


def _real(folder: str, classes: int) -> tuple[Arrays, str, str]:
    """(X, y), tier, source."""
    own = FILE_CLASSES.get(folder, classes)
    X, y = _READERS[folder](own)
    tier, source = "R", _SOURCES[folder].format(classes=classes, n=len(y), d=X.shape[1])
    if classes != own:
        y, source = _clusters(X, classes), f"{source}, re-clustered by us into {classes} classes with k-means"
    # Labels that no paper here used: CIFAR-100's coarse ones, and Location's clustered anew (Purchase's were made so).
    if (folder == "location" and classes != own) or (folder, classes) == SETS["cifar-100-coarse"]:
        tier = "S"
    return (X, y.astype(np.int64)), tier, source


def _clusters(X: np.ndarray, classes: int) -> np.ndarray:
    """Labels made as the paper made them (Shokri et al. 2017, VI-A): clusters of all records. int64 (n,)."""
    means = MiniBatchKMeans(classes, random_state=0, batch_size=4096, n_init=3)
    with threadpool_limits(1):  # the sums of several threads would depend on their number
        return means.fit_predict(X.astype(np.float32)).astype(np.int64)


def _read(paths: list[Path], classes: int, parse: Callable[[Path], tuple]) -> list:
    """The arrays that `parse` gives of a file, for all files together; those of one dimension are labels from 0.

    A file whose rows are not as many as registered, or whose labels are out of range, is set aside (ValueError).
    """

    def checked(path: Path) -> tuple:
        found, rows = parse(path), files.registered(path).rows
        for each in found:
            if each.shape[0] != rows:
                raise ValueError(f"{each.shape[0]:,} rows, expected {rows:,}")
            if each.ndim == 1 and not 0 <= each.min() <= each.max() < classes:
                ends = f"from {each.min()} to {each.max()}"
                raise ValueError(f"labels {ends}, counted from 0, where there are {classes} classes")
        return found

    parts = zip(*[files.parsed(path, checked) for path in paths], strict=True)
    return [part[0] if scipy.sparse.issparse(part[0]) else np.concatenate(part) for part in parts]


def _labelled(path: Path, member: str, d: int) -> Arrays:
    """Of an archive whose `member` has rows of a label counted from 1 and d binary cells."""
    md5 = hashlib.md5()

    def parse(stream: IO[bytes]) -> Arrays:
        lines = (md5.update(line) or line for line in files.read_lines(stream))
        X, y = (np.concatenate(parts) for parts in zip(*parse_rows(lines, (d,), labelled=True), strict=True))
        return X, y - 1

    X, y = files.read_archive(path, {member: parse})[member]
    if member in MEMBER_MD5 and md5.hexdigest() != MEMBER_MD5[member]:
        warnings.warn(f"{member} has md5 {md5.hexdigest()}, not the {MEMBER_MD5[member]} we know of", stacklevel=2)
    return X, y


def _texas(path: Path) -> Arrays:
    def features(stream: IO[bytes]) -> scipy.sparse.csr_array:
        chunks = parse_rows(files.read_lines(stream), (6169, 6170), labelled=False)
        return scipy.sparse.vstack([scipy.sparse.csr_array(cells) for cells, _ in chunks], format="csr")

    def labels(stream: IO[bytes]) -> np.ndarray:
        data = files.read_all(stream, 16 * files.registered(path).rows)
        return np.array(data.replace(b'"', b"").split()).astype(np.int64) - 1

    found = files.read_archive(path, {"texas/100/feats": features, "texas/100/labels": labels})
    return found["texas/100/feats"], found["texas/100/labels"]


def _adult(classes: int) -> Arrays:
    numbers, kinds, y = _read(fetch("adult"), classes, lambda path: parse_adult(path.read_text(encoding="utf-8")))
    return encode_adult(numbers, kinds), y


def _mnist(classes: int, folder: str) -> Arrays:
    def unpack(path: Path, shape: tuple[int, ...]) -> tuple[np.ndarray]:
        with gzip.open(path) as stream:  # at most three sizes, 16 bytes
            array = parse_idx(files.read_all(stream, 16 + math.prod(shape) * files.registered(path).rows))
        if array.shape[1:] != shape:
            raise ValueError(f"records of shape {array.shape[1:]}, expected {shape}")
        return (array,)

    paths = fetch(folder)
    [X] = _read(paths[0::2], classes, partial(unpack, shape=(28, 28)))
    [y] = _read(paths[1::2], classes, partial(unpack, shape=()))
    return X.reshape(len(X), 784).astype(np.float32) / 255, y


def _cifar(path: Path, prefix: str, labels: int, column: int) -> Arrays:
    """Of an unpacked file, or of the archive: its members in the official order. `column`: which label is y."""
    if path.suffix == ".bin":
        data = path.read_bytes()
    else:
        members = {f"{prefix}/{Path(place).name}": files.REGISTRY[place] for place in _members(path.parent.name)}
        limits = {name: file.size or files.UNPACKED_LIMIT for name, file in members.items()}
        found = files.read_archive(path, {name: partial(files.read_all, most=most) for name, most in limits.items()})
        for name, file in members.items():
            if f"sha256:{hashlib.sha256(found[name]).hexdigest()}" != file.digest:
                raise ValueError(f"member {name} has the wrong digest")
        data = b"".join(found[name] for name in members)
    images, targets = parse_cifar(data, labels)
    return images, targets[:, column]


_READERS: dict[str, Callable[[int], Arrays]] = {
    "location": lambda k: _read(fetch("location"), k, partial(_labelled, member="bangkok", d=446)),
    "purchase": lambda k: _read(fetch("purchase"), k, partial(_labelled, member="dataset_purchase", d=600)),
    "texas": lambda k: _read(fetch("texas"), k, _texas),
    "adult": _adult,
    "mnist": partial(_mnist, folder="mnist"),
    "fashionmnist": partial(_mnist, folder="fashionmnist"),
    "cifar10": lambda k: _read(fetch("cifar10"), k, partial(_cifar, prefix="cifar-10-batches-bin", labels=1, column=0)),
    "cifar100": lambda k: _read(
        fetch("cifar100"), k, partial(_cifar, prefix="cifar-100-binary", labels=2, column=int(k == 100))
    ),
}
_SOURCES = {
    "location": "Location-30: real Foursquare check-ins in Bangkok, {n:,} records of {d} binary features",
    "purchase": "Purchase-{classes}: real shopping records, {n:,} records of {d} binary features",
    "texas": "Texas-100: real hospital discharges, {n:,} records of {d:,} binary features",
    "adult": "Adult: real census records (UCI), {n:,} records one-hot encoded into {d} columns",
    "mnist": "MNIST: real, {n:,} images of handwritten digits, 28 by 28 pixels",
    "fashionmnist": "Fashion-MNIST: real, {n:,} grey images of clothes, 28 by 28 pixels",
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
    if folder in ("mnist", "fashionmnist"):
        source = f"scikit-learn's 1,797 digits, 8 by 8, in {'Fashion-' * (folder != 'mnist')}MNIST's place"
        return ((digits / 16).astype(np.float32), y), "S", source
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
