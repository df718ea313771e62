"""Labeled Faces in the Wild: photographs of the five people who are most often in it.

scikit-learn's loader is not used, since it keeps what it has read as pickles.
"""

import io
from contextlib import suppress
from functools import partial
from typing import IO

import numpy as np
from PIL import Image

from mialib import runs
from mialib.data import files
from mialib.data.datasets import Dataset

PEOPLE = {  # their photographs; labels are in this order, that of the names
    "Colin_Powell": 236,
    "Donald_Rumsfeld": 121,
    "George_W_Bush": 530,
    "Gerhard_Schroeder": 109,
    "Tony_Blair": 144,
}
PLACE, WHOLE, SIDE = "lfw/lfw-funneled.tgz", 250, 64  # in the registry; pixels, there and here
LIMIT = 2**20  # bytes of a photograph


def load() -> Dataset:
    """1,140 photographs of PEOPLE, uint8 (n, 3, 64, 64), whole and by a box filter (our choice), classes 0 to 4.

    Downloaded where missing. Raises as `datasets.load` does.
    """
    y = np.repeat(np.arange(len(PEOPLE)), list(PEOPLE.values()))
    names = [f"lfw_funneled/{name}/{name}_{i:04}.jpg" for name, count in PEOPLE.items() for i in range(1, count + 1)]
    parsers = {name: partial(_reduced, name) for name in names}
    found = files.parsed(files.fetch_file(PLACE), partial(files.read_archive, parsers=parsers))
    X = np.ascontiguousarray(np.stack([found[name] for name in names]).transpose(0, 3, 1, 2))
    source = f"LFW: real, {len(y):,} photographs of five people, reduced to {SIDE} by {SIDE} pixels"
    return Dataset("lfw", X, y, len(PEOPLE), "R", source, runs.digest(X, y))


def _reduced(name: str, stream: IO[bytes]) -> np.ndarray:
    """A photograph, uint8 (SIDE, SIDE, 3). ValueError for what is none; no larger one is decoded."""
    data = io.BytesIO(files.read_all(stream, LIMIT))
    with suppress(OSError, Image.DecompressionBombError), Image.open(data, formats=["JPEG"]) as photograph:
        if photograph.size == (WHOLE, WHOLE):
            return np.asarray(photograph.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX))
    raise ValueError(f"{name} is no JPEG of {WHOLE} by {WHOLE} pixels")
