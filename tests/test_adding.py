"""One notebook and one CSV make an exhibit: run, compared, published and cited, with nothing else changed."""

import json
import os
import shutil
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mialib import committed, config

STEM = "20_toy_table1_coins"
TABLE = """dataset,model,setting,metric,value,tolerance,source
Coins,none,fair,heads,0.5,0.05,"Toy 2031, Table 1"
Coins,none,loaded,heads,0.5,0.05,"Toy 2031, Table 1"
Coins,none,lost,heads,0.5,0.05,"Toy 2031, Table 1"
"""
CELLS = (
    'profile = "laptop"\nseed = 0',
    """from mialib import published, report, runs

run = runs.start("20_toy_table1_coins", profile, seed)
report.style()""",
    """heads = {"fair": 0.51, "loaded": 0.9}
ours = [
    {"dataset": "Coins", "setting": name, "metric": "heads", "value": x, "low": x - 0.01, "high": x + 0.01, "tier": "R"}
    for name, x in heads.items()
]
cells = published.compare(ours, "toy_table1")
table = published.scorecard(cells)
table""",
    """drawn = table.dropna(subset="ours").rename(columns={"setting": "label", "ours": "value"})
figure = report.dots(drawn, "share of heads")""",
    'report.save(run, "Toy 2031, Table 1", {"Coins": "R"}, cells, {"": figure}, {"": table}, {"coins": "ab12"})',
)


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A copy of the project with the toy's notebook and CSV and no other notebook, after `run` and `publish`."""
    root = tmp_path_factory.mktemp("house")
    for name in ("mialib", "data/published"):
        shutil.copytree(config.ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(config.ROOT / "CITATION.cff", root)
    (root / "notebooks").mkdir()
    (root / "data" / "published" / "toy_table1.csv").write_text(TABLE, encoding="utf-8")
    cells = [new_markdown_cell("# Toy 2031, Table 1: are coins fair?"), *map(new_code_cell, CELLS)]
    cells[1].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), root / "notebooks" / f"{STEM}.ipynb")
    return root


def call(house, *arguments):
    """What `python -m mialib` prints, run in the copy."""
    command = [sys.executable, "-m", "mialib", *arguments]
    done = subprocess.run(
        command, cwd=house, env=os.environ | {"PYTHONPATH": str(house)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_one_notebook_and_one_table_are_an_exhibit(house):
    printed = call(house, "run", "--profile", "laptop")
    assert "Toy 2031, Table 1" in printed
    assert [line.split()[-1] for line in printed.splitlines() if line.startswith("Coins")] == ["differs", "reproduced"]
    call(house, "publish")
    record = json.loads((house / "figures" / f"{STEM}.json").read_text(encoding="utf-8"))
    assert {cell["setting"]: cell["verdict"] for cell in record["cells"]} == {
        "fair": "reproduced",
        "loaded": "differs",
        "lost": "not comparable",
    }
    assert "| [`toy-table1`](#toy-table1) | Toy 2031, Table 1 | 1 | 1 | 1 |" in (house / "figures/README.md").read_text(
        encoding="utf-8"
    )
    cited = call(house, "cite", "toy-table1")
    assert cited.startswith("Toy 2031, Table 1: are coins fair?")
    assert rf"\includegraphics[width=\columnwidth]{{figures/{STEM}.pdf}}" in cited
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "ROOT", house)
        assert committed.faults(house / "notebooks" / f"{STEM}.ipynb", house / "figures") == []
