"""Caltech-101 at 32x32, for teachers: of photographs that the user brings, the centre squares, made small once."""

import io
import warnings
from pathlib import Path

import numpy as np
import sklearn.datasets
from PIL import Image

from mialib import config, runs, work
from mialib.data.datasets import Dataset

NAME, IMAGES, CLASSES = "caltech-101", 9145, 102  # 101 kinds of object, and images of none
FILE, FOLDER = "caltech101-32.npz", "101_ObjectCategories"
ARCHIVE = "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip"
# `runs.digest` of X and y as they are used: of the file it would change with the library that packs it.
DIGEST = "6f2403bad547c29de626ced6536e0dc8e5fa49e375733794fcf4b3a8d652c9bc"


def load(profile: str) -> Dataset:
    """All 9,145 images, uint8 (n, 3, 32, 32); in demo digits that lie on their side, which other stand-ins do not.

    Taken from `caltech101/caltech101-32.npz` in `config.raw_dir()` (X uint8 (n, 32, 32, 3), y), or else made from the
    photographs beside it, which the user brings: see data/README.md. FileNotFoundError without either, ValueError for
    what does not hold Caltech-101. Other pixels than were used here warn: decoders of JPEG may differ.
    """
    config.check_profile(profile)
    if profile == "demo":
        digits, y = sklearn.datasets.load_digits(return_X_y=True)
        grey = np.kron(digits.reshape(-1, 8, 8).transpose(0, 2, 1) * (255 / 16), np.ones((4, 4))).astype(np.uint8)
        X, source = np.repeat(grey[:, None], 3, axis=1), f"{len(y):,} digits on their side, in Caltech-101's place"
        return Dataset(NAME, X, y, 10, "S", f"scikit-learn's {source}", runs.digest(X, y))
    X, y = _kept(config.raw_dir() / "caltech101" / FILE)
    if (digest := runs.digest(X, y)) != DIGEST:
        warnings.warn("Caltech-101 is not pixel for pixel what was used here, so neither are results", stacklevel=2)
    source = f"Caltech-101: real, {len(y):,} colour images, reduced to 32 by 32 pixels, {CLASSES} classes"
    return Dataset(NAME, X, y, CLASSES, "R", source, digest)


def reduced(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (n, 32, 32, 3) and classes int64 (n,) of a folder that holds one of photographs a class.

    In the order of names; of each the centre square, by a box filter. The archive has one that is called "tmp".
    """
    names = sorted(each.name for each in folder.iterdir() if each.is_dir())
    found = [(path, label) for label, name in enumerate(names) for path in sorted((folder / name).glob("[!.]*"))]
    images = np.empty((len(found), 32, 32, 3), np.uint8)
    for place, (path, _) in enumerate(found):
        with Image.open(path) as photograph:
            side = min(photograph.size)
            left, top = ((length - side) // 2 for length in photograph.size)
            square = photograph.convert("RGB").crop((left, top, left + side, top + side))
            images[place] = square.resize((32, 32), Image.Resampling.BOX)
    return images, np.array([label for _, label in found], np.int64)


def _kept(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """X uint8 (n, 3, 32, 32), y int64 (n,); made and kept where there is no file."""
    if not path.exists():
        if not (folder := path.parent / FOLDER).exists():
            raise FileNotFoundError(
                f"Caltech-101 is not downloaded for you: put the folder {FOLDER} of {ARCHIVE} into {path.parent}"
            )
        images, y = reduced(folder)
        _check(images, y, folder)
        np.savez_compressed(packed := io.BytesIO(), X=images, y=y)
        work.write_atomic(path, packed.getvalue())
    try:
        with np.load(path, allow_pickle=False) as file:
            images, y = file["X"], file["y"].astype(np.int64)
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise ValueError(f"{path} does not hold Caltech-101 ({error}); remove it, and bring it anew") from error
    _check(images, y, path)
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)), y


def _check(images: np.ndarray, y: np.ndarray, path: Path) -> None:
    shape, labels = (IMAGES, 32, 32, 3), len(np.unique(y))
    if images.shape != shape or images.dtype != np.uint8 or labels != CLASSES or len(y) != IMAGES:
        raise ValueError(
            f"{path} does not hold Caltech-101: {IMAGES:,} images of {CLASSES} classes are wanted, there are "
            f"{len(images):,} of {labels}; remove it, and bring it anew"
        )
