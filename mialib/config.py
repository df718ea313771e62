"""Where things lie and how large they are: folders, profiles, and the sizes of each exhibit in each profile.

A profile is numbers only. The code that runs is the same in all three.
"""

import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROFILES = ("demo", "laptop", "paper")
# Folders of `raw_dir()` that change results by being there. All else is downloaded where it is needed and missing.
BROUGHT = {"demo": (), "laptop": ("purchase", "texas"), "paper": ("imagenet",)}
# Figures, in inches. In a figure no wider than this, text of 10 points is still 6 points in a column of a two-column
# paper (3.25 inches), or across its page (6.8 inches).
ONE_COLUMN, TWO_COLUMNS = 5.4, 11.3


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
        "demo": (Row("location-30", 300, 3, 2, 64, 60, 50), Row("purchase-100", 300, 1, 2, 64, 30)),
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


@dataclass(frozen=True)
class Target:
    """How one target model of Rezaei & Liu 2020 comes about: trained on all members, or trained by others.

    SGD with momentum .9 (Adam with betas .5 and .99 for "lenet", as released), `rate` falling tenfold after each
    epoch of `drops`, L2 `decay`; `augment`: random crops of the image padded by 4, and mirror images.
    """

    dataset: str
    network: str  # see `nets.make`
    epochs: int = 0
    batch: int = 128
    rate: float = 0.1
    drops: tuple[int, ...] = ()
    decay: float = 1e-4
    augment: bool = True
    scale: str = "cifar"  # how images are normalised, see `targets.SCALES`
    observe: int = 1  # records are asked every so many epochs
    weights: str = ""  # place under `raw_dir()` of weights trained by others


_LENET = Target("mnist", "lenet", 40, 64, 1e-3, decay=0.0, augment=False, scale="mnist")


def _alexnet(dataset: str) -> Target:
    return Target(dataset, "alexnet", 164, drops=(81, 122), decay=5e-4, observe=4)


def _others(depth: int, digest: str) -> Target:
    return Target("cifar-10", f"resnet-{depth}", scale="imagenet", weights=f"weights/resnet{depth}-{digest}.th")


_TARGETS: dict[str, dict[str, Target]] = {
    "demo": {
        "mnist-lenet": Target("mnist", "lenet", 12, 64, 1e-3, decay=0.0, augment=False, scale="mnist", observe=3),
        **{
            f"{name}-{model}": Target(name, network, 6, 64, rate, (4,), augment=False, observe=2)
            for name in ("cifar-10", "cifar-100")
            for model, network, rate in (
                ("alexnet", "alexnet", 0.05),
                ("resnet", "resnet-8-4", 0.1),
                ("densenet", "densenet-10-4", 0.1),
            )
        },
    },
    "laptop": {
        "cifar-100-alexnet": _alexnet("cifar-100"),
        "cifar-10-alexnet": _alexnet("cifar-10"),
        "mnist-lenet": _LENET,
        "cifar-10-resnet": _others(56, "4bfd9763"),
        "cifar-100-resnet": Target("cifar-100", "resnet-20", 40, drops=(20, 30), observe=2),
        "cifar-100-densenet": Target("cifar-100", "densenet-22-12", 30, 64, drops=(15, 23), observe=2),
        "cifar-10-densenet": Target("cifar-10", "densenet-22-12", 20, 64, drops=(10, 15), observe=2),
    },
    "paper": {
        "mnist-lenet": _LENET,
        **{f"{name}-alexnet": _alexnet(name) for name in ("cifar-10", "cifar-100")},
        **{f"{name}-resnet": Target(name, "resnet-110", 164, drops=(81, 122), observe=4) for name in _FIG4},
        "cifar-10-densenet": Target("cifar-10", "densenet-100-12", 300, 64, drops=(150, 225), observe=6),
        "cifar-100-densenet": Target("cifar-100", "densenet-190-40", 300, 64, drops=(150, 225), observe=6),
        **{
            f"imagenet-{name}": Target("imagenet", name, scale="inception", weights="pretrained")
            for name in ("inception", "xception")
        },
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


def exhibit_id(notebook: str) -> str:
    """The name an exhibit is cited by: "04_shokri_fig4_sizes" -> "shokri-fig4". Number and topic may change, it not."""
    return "-".join(notebook.split("_")[1:3])


def targets(profile: str) -> dict[str, Target]:
    """The target models of Rezaei & Liu 2020 in `profile`, by name ("cifar-100-alexnet")."""
    check_profile(profile)
    return _TARGETS[profile]


def raw_dir() -> Path:
    """Folder of downloaded data: $MIALIB_DATA, else data/raw."""
    return _folder("MIALIB_DATA", ROOT / "data" / "raw")


def cache_dir() -> Path:
    """Folder of trained models and other results that can be computed again: $MIALIB_CACHE, else data/cache."""
    return _folder("MIALIB_CACHE", ROOT / "data" / "cache")


def figures_dir(profile: str) -> Path:
    """Folder that figures, tables and records go to: $MIALIB_FIGURES, else build/<profile>/figures."""
    return _folder("MIALIB_FIGURES", ROOT / "build" / profile / "figures")


def _folder(variable: str, default: Path) -> Path:
    """Where the variable points, "~" being the home folder; a relative path is taken from this project's folder.

    From the working directory it would mean one folder for the command line and another inside each notebook.
    """
    text = os.environ.get(variable, "")
    try:
        return ROOT / Path(text).expanduser() if text else default
    except RuntimeError as error:
        raise ValueError(f"{variable}={text}: {error}") from error


def workers() -> int:
    """Worker processes for training: $MIALIB_WORKERS, else the cores this process may use, also in a container."""
    text = os.environ.get("MIALIB_WORKERS", "")
    if not text:
        from joblib import cpu_count  # whoever only asks for help does without

        return cpu_count()
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"MIALIB_WORKERS must be a whole number from 1 up, not {text!r}")
    return int(text)


def scheduler() -> str | None:
    """Address of the Dask scheduler that training runs on: $MIALIB_SCHEDULER ("tcp://…"), None without one."""
    return os.environ.get("MIALIB_SCHEDULER") or None
