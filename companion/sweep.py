"""Many runs of the same notebooks: a folder a run, and one table of every cell over the seeds."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from companion.jobs import Job, state
from mialib import metrics, runs, work
from mialib.results import report

KEY = ["notebook", "exhibit", "dataset", "model", "setting", "metric", "published"]


def spread(jobs: list[Job], seeds: Iterable[int]) -> list[Job]:
    """Each job once a seed, in folders of their own: sweep/<settings>/seed-<seed>; "default" where nothing is set."""
    return [
        replace(job, seed=seed, out=job.out / "sweep" / _name(job) / f"seed-{seed}", label=f"seed {seed}")
        for seed in seeds
        for job in jobs
    ]


def _name(job: Job) -> str:
    name = ",".join(f"{key}={quote(str(value), safe='')}" for key, value in job.settings) or "default"
    # File systems take 255 bytes, and some take A for a.
    return name if len(name) <= 100 and name == name.lower() else f"{name[:80]}-{runs.digest(name)[:12]}"


def finished(job: Job, folder: Path) -> list[Job]:
    """The runs in a sweep's folder that are done, of this call and of earlier ones. `job`: any one of the sweep."""
    seeds = sorted(int(path.name[5:]) for path in folder.glob("seed-*") if path.name[5:].isdigit())
    stems = sorted({path.stem for path in folder.glob("seed-*/notebooks/*.ipynb")})
    sources = [path for stem in stems if (path := job.source.with_name(f"{stem}.ipynb")).exists()]
    every = [replace(job, source=path, seed=seed, out=folder / f"seed-{seed}") for path in sources for seed in seeds]
    return [each for each in every if state(each) == "done"]


def table(jobs: Iterable[Job]) -> pd.DataFrame:
    """Every cell of the records that finished jobs left: columns KEY, tier, mean, low, high, seeds; in record order.

    mean with its interval (low, high: `metrics.mean_interval`) over the seeds in which the cell has a value, and their
    number; one seed has no interval. Jobs that leave no record, such as the overview, have no rows.
    """
    rows = []
    for job in jobs:
        path = job.out / "figures" / f"{job.stem}.json"
        if path.exists():
            record = json.loads(path.read_text(encoding="utf-8"))
            rows += [{"notebook": job.stem, "exhibit": record["exhibit"], **cell} for cell in record["cells"]]
    merged = []
    for key, cells in pd.DataFrame(rows, columns=[*KEY, "tier", "value"]).groupby(KEY, dropna=False, sort=False):
        values = cells["value"].dropna()
        mean, low, high = metrics.mean_interval(values, *metrics.limits(cells["metric"].iloc[0]))
        found = {"tier": cells["tier"].iloc[0], "mean": mean, "low": low, "high": high, "seeds": len(values)}
        merged.append(dict(zip(KEY, key, strict=True)) | found)
    return pd.DataFrame(merged, columns=[*KEY, "tier", "mean", "low", "high", "seeds"])


def write(jobs: list[Job], folder: Path) -> Path:
    """Write `table` to <folder>/table.csv; its path."""
    work.write_atomic(folder / "table.csv", report.csv_bytes(table(jobs), index=False))
    return folder / "table.csv"


def shown(path: Path) -> str:
    """A table of `write` for a screen: a line a cell that has a value, the published number beside the mean."""
    cells = pd.read_csv(path, keep_default_na=False, na_values=[""]).dropna(subset="mean")
    if cells.empty:
        return "no run left a record with numbers"
    cells = cells.assign(notebook=cells["notebook"].str.split("_").str[0])
    columns = ["notebook", "dataset", "tier", "setting", "metric", "published", "mean", "low", "high", "seeds"]
    text = cells[columns].to_string(index=False, na_rep="", float_format="{:.3f}".format)
    return f"{text}\nTier R: the paper's own data; S: a real substitute; M: simulated."
