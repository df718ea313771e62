"""Where things lie and how large they are: folders, profiles, and the sizes of each exhibit in each profile.

A profile is numbers only. The code that runs is the same in all three.
"""

import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROFILES = ("demo", "laptop", "paper")


@dataclass(frozen=True)
class Row:
    """One data set of an exhibit: `size` records to train each target and each shadow (Shokri et al. 2017, VI-C)."""

    dataset: str
    size: int
    shadows: int
    targets: int  # target models, each on its own random records: the seeds the intervals are over
    hidden: int
    epochs: int
    batch: int = 100


def _table2(
    shadows: dict[str, int], targets: int, epochs: int, texas_epochs: int, size: int = 10_000
) -> tuple[Row, ...]:
    """Table II's nine rows, Location twice because the paper prints two training sizes (VI-A and VI-C)."""
    rows = [
        Row("adult", size, shadows["adult"], targets, 128, epochs),
        Row("mnist", size, shadows["mnist"], targets, 128, epochs),
        Row("location-30", 1200, shadows["location"], targets, 128, 2 * epochs),
        Row("location-30", 1600, shadows["location"], targets, 128, 2 * epochs),
    ]
    rows += [Row(f"purchase-{k}", size, shadows["purchase"], targets, 128, epochs) for k in (2, 10, 20, 50, 100)]
    return (*rows, Row("texas-100", size, shadows["texas"], targets, 1000, texas_epochs))


# The embedded sets of `demo` are small, so its sizes are too; its numbers are never compared with the paper's.
_DEMO_TABLE2 = (
    Row("adult", 130, 10, 3, 64, 40, 50),
    Row("mnist", 400, 6, 3, 64, 30, 50),
    Row("location-30", 300, 6, 3, 64, 60, 50),
    *(Row(f"purchase-{k}", 1000, 3, 2, 64, 30) for k in (2, 10, 20, 50, 100)),
    Row("texas-100", 1000, 2, 2, 64, 20),
)
# Shokri et al. 2017, VI-C, by the first word of the data set's name.
PAPER_SHADOWS = {"adult": 20, "mnist": 50, "cifar": 100, "location": 60, "purchase": 20, "texas": 10}
_FIG4 = {"cifar-10": (2500, 5000, 10_000, 15_000), "cifar-100": (4600, 10_520, 19_920, 29_540)}


def _purchases(size: int, shadows: int, targets: int, hidden: int, epochs: int) -> tuple[Row, ...]:
    """The five purchase sets (Figs 10-12)."""
    return tuple(Row(f"purchase-{k}", size, shadows, targets, hidden, epochs) for k in (2, 10, 20, 50, 100))


def _locations(size: int, shadows: int, targets: int, hidden: int, epochs: int, batch: int = 100) -> tuple[Row, ...]:
    """Location with its labels made anew, in 2 to 30 classes."""
    return tuple(Row(f"location-{k}", size, shadows, targets, hidden, epochs, batch) for k in (2, 10, 20, 30))


def _cifars(size: int, shadows: int, epochs: int) -> tuple[Row, ...]:
    """CIFAR-100 by its 20 coarse and its 100 fine labels."""
    return tuple(Row(name, size, shadows, 1, 128, epochs) for name in ("cifar-100-coarse", "cifar-100"))


# Epochs on CIFAR: enough for train accuracy near 1, as published. Shadows: what 90 minutes on two cores allow.
_FIG4_LAPTOP = {"cifar-10": ((8, 40), (8, 40), (4, 30), (4, 30)), "cifar-100": ((8, 40), (4, 40), (4, 45), (4, 40))}

_SETTINGS: dict[str, dict[str, tuple[Row, ...]]] = {
    "table2": {
        "demo": _DEMO_TABLE2,
        "laptop": _table2(PAPER_SHADOWS | {"texas": 5}, targets=5, epochs=100, texas_epochs=20),
        "paper": _table2(PAPER_SHADOWS, targets=10, epochs=200, texas_epochs=200),
    },
    "table3": {
        "demo": (
            Row("location-30", 300, 3, 2, 64, 60, 50),
            Row("purchase-100", 1000, 3, 2, 64, 30),
            Row("texas-100", 1000, 2, 2, 64, 20),
        ),
        "laptop": (
            Row("location-30", 1200, 20, 5, 128, 200),
            Row("purchase-100", 10_000, 10, 3, 256, 60),
            Row("texas-100", 10_000, 4, 3, 1000, 20),
        ),
        "paper": (
            Row("location-30", 1200, 60, 10, 128, 200),
            Row("purchase-100", 10_000, 20, 10, 256, 200),
            Row("texas-100", 10_000, 10, 10, 1000, 200),
        ),
    },
    # Table I with Figs 5 and 7. Hidden units, epochs and batch are each platform's own (see `platforms`).
    "table1": {
        "demo": (Row("location-30", 300, 3, 2, 64, 60, 50), Row("purchase-100", 600, 2, 2, 64, 30)),
        "laptop": (Row("location-30", 1200, 10, 3, 128, 200), Row("purchase-100", 10_000, 10, 3, 128, 100)),
        "paper": (Row("location-30", 1200, 60, 10, 128, 200), Row("purchase-100", 10_000, 20, 10, 128, 200)),
    },
    "fig4": {
        "demo": (
            *(Row("cifar-10", size, 2, 1, 32, 15, 50) for size in (100, 200)),
            *(Row("cifar-100", size, 2, 1, 32, 10, 50) for size in (200, 500)),
        ),
        "laptop": tuple(
            Row(name, size, shadows, 1, 128, epochs)
            for name, sizes in _FIG4.items()
            for size, (shadows, epochs) in zip(sizes, _FIG4_LAPTOP[name], strict=True)
        ),
        "paper": tuple(Row(name, size, 100, 5, 128, 100) for name, sizes in _FIG4.items() for size in sizes),
    },
    # One size of Fig 4 again, trained for longer: is that why CIFAR-100 differs?
    "fig4 longer": {
        "demo": (Row("cifar-100", 200, 2, 1, 32, 30, 50),),
        "laptop": (Row("cifar-100", 10_520, 2, 1, 128, 100),),
        "paper": (Row("cifar-100", 10_520, 100, 5, 128, 200),),
    },
    "fig6": {
        "demo": (Row("texas-100", 1000, 3, 3, 64, 20),),
        "laptop": (Row("texas-100", 10_000, 5, 5, 1000, 20),),
        "paper": (Row("texas-100", 10_000, 10, 10, 1000, 200),),
    },
    "fig8": {
        "demo": (Row("location-30", 300, 6, 3, 64, 60, 50),),
        "laptop": (Row("location-30", 1200, 60, 5, 128, 200),),
        "paper": (Row("location-30", 1200, 60, 10, 128, 200),),
    },
    "fig9": {
        "demo": (Row("location-30", 300, 4, 1, 64, 60, 50), Row("purchase-100", 1000, 3, 1, 64, 30)),
        "laptop": (Row("location-30", 1200, 20, 3, 128, 200), Row("purchase-100", 10_000, 20, 1, 128, 100)),
        "paper": (Row("location-30", 1200, 60, 10, 128, 200), Row("purchase-100", 10_000, 20, 5, 128, 200)),
    },
    # Figs 10 to 12 look at the same models.
    "fig10": {
        "demo": (*_purchases(600, 2, 2, 64, 20), *_locations(200, 2, 2, 64, 60, 50), *_cifars(200, 2, 10)),
        "laptop": (*_purchases(10_000, 20, 5, 128, 100), *_locations(1200, 20, 5, 128, 200), *_cifars(4600, 8, 40)),
        "paper": (*_purchases(10_000, 20, 10, 128, 200), *_locations(1200, 60, 10, 128, 200), *_cifars(4600, 100, 100)),
    },
}


def check_profile(profile: str) -> None:
    """Raise ValueError unless `profile` is one of PROFILES."""
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}; valid profiles: {', '.join(PROFILES)}")


def settings(exhibit: str, profile: str) -> tuple[Row, ...]:
    """The data sets and sizes of `exhibit` ("table2", "fig4", …) in `profile`; ValueError lists the valid names."""
    check_profile(profile)
    if exhibit not in _SETTINGS:
        raise ValueError(f"unknown exhibit {exhibit!r}; valid exhibits: {', '.join(_SETTINGS)}")
    return _SETTINGS[exhibit][profile]


def raw_dir() -> Path:
    """Folder of downloaded data: $MIALIB_DATA, else data/raw."""
    return Path(os.environ.get("MIALIB_DATA", ROOT / "data" / "raw"))


def cache_dir() -> Path:
    """Folder of trained models and other results that can be computed again: $MIALIB_CACHE, else data/cache."""
    return Path(os.environ.get("MIALIB_CACHE", ROOT / "data" / "cache"))


def figures_dir(profile: str) -> Path:
    """Folder that figures, tables and records go to: $MIALIB_FIGURES, else build/<profile>/figures."""
    return Path(os.environ.get("MIALIB_FIGURES", ROOT / "build" / profile / "figures"))


def workers() -> int:
    """Worker processes for training: $MIALIB_WORKERS, else the cores this process may use."""
    text = os.environ.get("MIALIB_WORKERS", "")
    if not text:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"MIALIB_WORKERS must be a whole number from 1 up, not {text!r}")
    return int(text)


def scheduler() -> str | None:
    """Address of the Dask scheduler that training runs on: $MIALIB_SCHEDULER ("tcp://…"), None without one."""
    return os.environ.get("MIALIB_SCHEDULER") or None
