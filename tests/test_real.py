"""Two cheap exhibits again, from the real data and an empty cache, against what is committed."""

import json

import pytest

from companion import jobs, runner
from mialib import config

# Exhibit -> folders of data/raw that it needs. The target models of 13 are in data/targets.
CHEAP = {"13_rezaei_figs12_confidence": ("cifar10", "cifar100"), "24_leino_linear": ("adult", "location")}


@pytest.mark.parametrize("stem", CHEAP)
def test_committed_numbers_come_out_again(stem, tmp_path):
    missing = [name for name in CHEAP[stem] if not any((config.raw_dir() / name).glob("*"))]
    if missing:
        pytest.skip(f"NOT RUN AGAIN FROM REAL DATA: no {', '.join(missing)} in data/raw (python -m mialib fetch)")
    assert runner.run(jobs.plan([stem], "laptop", 0, tmp_path)) == {}
    committed = json.loads((config.ROOT / "figures" / f"{stem}.json").read_text())
    again = json.loads((tmp_path / "figures" / f"{stem}.json").read_text())
    assert again["run"]["data"] == committed["run"]["data"]
    assert drifted(committed["cells"], again["cells"]) == []


def drifted(committed, again):
    """Cells whose new value lies outside the committed interval (or .01 away, where there is none) or is missing."""
    found = {key(cell): cell["value"] for cell in again}
    assert list(found) == [key(cell) for cell in committed]
    return [key(cell) for cell in committed if not near(found[key(cell)], cell)]


def key(cell):
    return cell["dataset"], cell["setting"], cell["metric"]


def near(value, cell):
    if value is None or cell["value"] is None:
        return value is cell["value"]
    low = cell["value"] - 0.01 if cell["low"] is None else cell["low"]
    high = cell["value"] + 0.01 if cell["high"] is None else cell["high"]
    return low - 1e-6 <= value <= high + 1e-6


def cell(value, low=None, high=None, setting="all"):
    return {"dataset": "Adult", "setting": setting, "metric": "x", "value": value, "low": low, "high": high}


@pytest.mark.parametrize(
    ("committed", "value", "close"),
    [
        (cell(0.5, 0.4, 0.6), 0.6, True),
        (cell(0.5, 0.4, 0.6), 0.601, False),
        (cell(0.5, 0.4, 0.6), None, False),
        (cell(0.5), 0.509, True),
        (cell(0.5), 0.489, False),
        (cell(None), None, True),
        (cell(None), 0.5, False),
    ],
)
def test_a_drifted_number_is_noticed(committed, value, close):
    assert drifted([committed], [committed | {"value": value}]) == ([] if close else [("Adult", "all", "x")])


def test_a_cell_too_many_or_too_few_is_noticed():
    both = [cell(0.5), cell(0.5, setting="other")]
    for committed, again in ((both, both[:1]), (both[:1], both)):
        with pytest.raises(AssertionError):
            drifted(committed, again)
