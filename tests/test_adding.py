"""What CONTRIBUTING promises: one notebook and one CSV make an exhibit, one package with its sizes makes a paper."""

import json
import os
import shutil
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from companion import committed
from mialib import config

STEM = "20_toy_table1_coins"
TABLE = """dataset,model,setting,metric,value,tolerance,source
Coins,none,fair,heads,0.5,0.05,"Toy 2031, Table 1"
Coins,none,loaded,heads,0.5,0.05,"Toy 2031, Table 1"
Coins,none,lost,heads,0.5,0.05,"Toy 2031, Table 1"
"""
CELLS = (
    'profile = "laptop"\nseed = 0',
    """from mialib import runs
from mialib.results import plots, published, report

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
figure = plots.dots(drawn, "share of heads")""",
    'report.save(run, "Toy 2031, Table 1", {"Coins": "R"}, cells, {"": figure}, {"": table}, {"coins": "ab12"})',
)


# A paper of one table: its package, its numbers, its entry, its notebook.
PAPER_STEM = "21_toy2031_table1_gap"
PAPER = {
    "mialib/papers/toy2031/__init__.py": "",
    "mialib/papers/toy2031/sizes.toml": """[table1]
demo = { records = 100, epochs = 200 }
laptop = { records = 200, epochs = 200 }
""",
    "mialib/papers/toy2031/experiments.py": '''"""Toy 2031: the gap attack on a network that learnt random labels."""

import numpy as np

from mialib import papers, runs
from mialib.attacks import Attacked, baselines, shadow
from mialib.data import splits
from mialib.models import fit, small


def attack(profile: str, seed: int) -> Attacked:
    """Three targets, each on its own half of records whose labels nothing but memory can tell."""
    size = papers.sizes("toy2031")["table1"][profile]
    rng, n = runs.stream(seed, "toy"), size["records"]
    X, y = rng.random((4 * n, 30), np.float32), rng.integers(2, size=4 * n)
    targets, _ = splits.targets_and_shadows(4 * n, n, 3, 1, seed, "toy")
    words = [(seed, "toy", i) for i in range(3)]
    seen = shadow.observe(small.MLP((30, 128, 2)), fit.Recipe(size["epochs"], 20, 1e-2), X, y, targets, words)
    right = [each.vectors.argmax(1) == each.y for each in seen]
    accuracies = [
        {"train_acc": hit[each.member].mean(), "test_acc": hit[~each.member].mean()}
        for each, hit in zip(seen, right, strict=True)
    ]
    about = {"dataset": "Toy", "size": n, "tier": "M", "setting": "all"}
    return Attacked(about, accuracies, seen, {"gap": [baselines.gap(each) for each in seen]}, (seed, "toy"))
''',
    "mialib/papers/toy2031/exhibits.py": '''"""Toy 2031: what Table 1 shows."""

from mialib.attacks import Attacked
from mialib.results import published, tables


def compare(attacked: Attacked) -> list[dict]:
    """The balanced accuracy of the gap attack beside the printed one."""
    found = tables.summary(attacked).set_index(["attack", "metric"]).loc[("gap", "balanced_accuracy")]
    ours = dict(found[["dataset", "setting", "value", "low", "high", "tier"]]) | {"metric": "balanced_acc"}
    return published.compare([ours], "toy2031_table1")
''',
    "data/published/toy2031_table1.csv": """dataset,model,setting,metric,value,tolerance,source
Toy,NN,all,balanced_acc,0.7,0.05,"Toy 2031, Table 1"
""",
}
PAPER_CELLS = (
    'profile = "laptop"\nseed = 0',
    f"""from mialib import runs
from mialib.papers.toy2031 import exhibits, experiments
from mialib.results import published, report

run = runs.start("{PAPER_STEM}", profile, seed)
report.style()""",
    "attacked = experiments.attack(profile, seed)\ncells = exhibits.compare(attacked)\npublished.scorecard(cells)",
    'report.save(run, "Toy 2031, Table 1", {"Toy": "M"}, cells, {}, {}, {})',
    """report.reading(
    run,
    comes_out="We have {value: Toy | all | balanced_acc}.",
    differs="Simulated.",
    take_away="Toys.",
)""",
)


def write(root, stem, title, cells):
    cells = [new_markdown_cell(f"# {title}"), *map(new_code_cell, cells)]
    cells[1].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), root / "notebooks" / f"{stem}.ipynb")


@pytest.fixture
def house(tmp_path):
    """A copy of the project without notebooks and figures."""
    for name in ("mialib", "companion", "data/published"):
        shutil.copytree(config.ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(config.ROOT / "data" / "registry.csv", tmp_path / "data")
    shutil.copy(config.ROOT / "CITATION.cff", tmp_path)
    (tmp_path / "notebooks").mkdir()
    return tmp_path


def call(house, *arguments):
    """What `python -m mialib` prints, run in the copy."""
    command = [sys.executable, "-m", "mialib", *arguments]
    done = subprocess.run(
        command, cwd=house, env=os.environ | {"PYTHONPATH": str(house)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_one_notebook_and_one_table_are_an_exhibit(house):
    (house / "data" / "published" / "toy_table1.csv").write_text(TABLE, encoding="utf-8")
    write(house, STEM, "Toy 2031, Table 1: are coins fair?", CELLS)
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
    row = "| [`toy-table1`](#toy-table1) | Toy 2031, Table 1 | 3 | 1 | 0 | 1 | 0 | 1 |"
    assert row in (house / "figures/README.md").read_text(encoding="utf-8")
    cited = call(house, "cite", "toy-table1")
    assert cited.startswith("Toy 2031, Table 1: are coins fair?")
    assert rf"\includegraphics[width=\columnwidth]{{figures/{STEM}.pdf}}" in cited
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "ROOT", house)
        assert committed.faults(house / "notebooks" / f"{STEM}.ipynb", house / "figures") == []


def test_one_package_is_a_paper(house):
    for name, text in PAPER.items():
        (house / name).parent.mkdir(exist_ok=True)
        (house / name).write_text(text, encoding="utf-8")
    with (house / "data" / "published" / "papers.bib").open("a", encoding="utf-8") as file:
        file.write("\n@misc{toy2031table,\n  title = {Toys},\n}\n")
    write(house, PAPER_STEM, "Toy 2031, Table 1: what a gap gives away", PAPER_CELLS)
    for profile in ("demo", "laptop"):
        assert "Toy 2031, Table 1" in call(house, "run", "--profile", profile)
    call(house, "publish")
    [cell] = json.loads((house / "figures" / f"{PAPER_STEM}.json").read_text(encoding="utf-8"))["cells"]
    assert cell["published"] == 0.7 and cell["value"] > 0.6 and cell["verdict"] == "not comparable"
    notebook = nbformat.read(house / "notebooks" / f"{PAPER_STEM}.ipynb", as_version=4)
    assert (
        f"**What comes out.** We have .{round(cell['value'] * 1000)}."
        in notebook.cells[-1].outputs[0].data["text/markdown"]
    )
    assert "@misc{toy2031table," in call(house, "cite", "toy2031-table1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "ROOT", house)
        path, figures = house / "notebooks" / f"{PAPER_STEM}.ipynb", house / "figures"
        assert committed.faults(path, figures) == []
        sizes = house / "mialib" / "papers" / "toy2031" / "sizes.toml"
        sizes.write_text(sizes.read_text(encoding="utf-8").replace("200 }", "300 }"), encoding="utf-8")
        assert committed.faults(path, figures) == [committed.STALE]
