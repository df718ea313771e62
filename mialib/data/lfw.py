"""Labeled Faces in the Wild: photographs of the five people who are most often in it, which the user brings.

scikit-learn can download them; its loader is not used, since it keeps what it has read as pickles.
"""

import numpy as np
from PIL import Image

from mialib import config, runs
from mialib.data.datasets import Dataset

PEOPLE = {  # their photographs; labels are in this order, that of the names
    "Colin_Powell": 236,
    "Donald_Rumsfeld": 121,
    "George_W_Bush": 530,
    "Gerhard_Schroeder": 109,
    "Tony_Blair": 144,
}
SIDE = 64  # pixels
FOLDERS = ("lfw_funneled", "lfw")  # the first that is there
ARCHIVE = "https://ndownloader.figshare.com/files/5976015 (lfw-funneled.tgz)"


def brought() -> bool:
    """Whether a folder of FOLDERS lies in `lfw` in `config.raw_dir()`."""
    return any((config.raw_dir() / "lfw" / name).is_dir() for name in FOLDERS)


def load() -> Dataset:
    """1,140 photographs of PEOPLE, uint8 (n, 3, 64, 64), whole and by a box filter (our choice), classes 0 to 4.

    Of `lfw/lfw_funneled` or `lfw/lfw` in `config.raw_dir()`, a folder a person: see data/README.md. FileNotFoundError
    without either, ValueError where one does not hold the photographs of each of PEOPLE.
    """
    root = config.raw_dir() / "lfw"
    found = [root / name for name in FOLDERS if (root / name).is_dir()]
    if not found:
        raise FileNotFoundError(f"LFW is not downloaded for you: put the folder {FOLDERS[0]} of {ARCHIVE} into {root}")
    images, y = [], []
    for label, (name, count) in enumerate(PEOPLE.items()):
        paths = sorted((found[0] / name).glob("[!.]*.jpg"))
        if len(paths) != count:
            raise ValueError(
                f"{found[0]} does not hold LFW: {count} photographs of {name} are wanted, not {len(paths)}"
            )
        for path in paths:
            with Image.open(path) as photograph:
                images.append(np.asarray(photograph.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)))
        y += [label] * count
    X, y = np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2)), np.array(y, np.int64)
    source = f"LFW: real, {len(y):,} photographs of five people, reduced to {SIDE} by {SIDE} pixels"
    return Dataset("lfw", X, y, len(PEOPLE), "R", source, runs.digest(X, y))
