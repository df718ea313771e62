"""Where things lie, and what a user may set: folders, profiles, workers.

A profile is sizes only (`papers`). The code that runs is the same in all three.
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROFILES = ("demo", "laptop", "paper")
# Folders of `raw_dir()` that change results by being there. All else is downloaded where it is needed and missing.
BROUGHT = {"demo": (), "laptop": ("purchase", "texas"), "paper": ("imagenet",)}
# Figures, in inches. In a figure no wider than this, text of 10 points is still 6 points in a column of a two-column
# paper (3.25 inches), or across its page (6.8 inches).
ONE_COLUMN, TWO_COLUMNS = 5.4, 11.3


def check_profile(profile: str) -> None:
    """Raise ValueError unless `profile` is one of PROFILES."""
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}; valid profiles: {', '.join(PROFILES)}")


def exhibit_id(notebook: str) -> str:
    """The name an exhibit is cited by: "04_shokri_fig4_sizes" -> "shokri-fig4". Number and topic may change, it not."""
    return "-".join(notebook.split("_")[1:3])


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
