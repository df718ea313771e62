"""README.md, CONTRIBUTING.md and docs: their links lead somewhere, and their example runs."""

import re

import numpy as np
import pytest
import torch

from mialib import config

TEXTS = sorted(path.relative_to(config.ROOT).as_posix() for path in config.ROOT.glob("docs/*.md"))
PAGES = ["README.md", "CONTRIBUTING.md", *TEXTS, "data/README.md", "data/published/README.md"]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_of_the_repository(page):
    text = re.sub(r"```.*?```", "", (config.ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    links = [*re.findall(r"\]\(([^)\s]+)\)", text), *re.findall(r'src="([^"]+)"', text)]
    near = [link for link in links if not link.startswith("https://")]
    assert [link for link in near if not (config.ROOT / page).parent.joinpath(link).exists()] == []
    assert near or page.startswith(("docs/", "data/"))


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_are_there(page):
    text = (config.ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"`((?:benchmarks|companion|data|docs|mialib|tests)/[\w/.-]+\.\w+)`", text)
    assert [name for name in named if "NAME" not in name and not (config.ROOT / name).exists()] == []


def test_readme_names_every_page():
    readme = (config.ROOT / "README.md").read_text(encoding="utf-8")
    assert [page for page in [*TEXTS, "CONTRIBUTING.md"] if f"({page})" not in readme] == []


def test_own_model_is_attacked_as_its_page_says():
    text = (config.ROOT / "docs" / "own-models.md").read_text(encoding="utf-8")
    code, *_ = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    small = re.sub(r"size=\d+, shadows=\d+, targets=\d+", "size=300, shadows=2, targets=2", code)
    assert small != code and small.count('"laptop"') == 1
    *body, last = small.replace('"laptop"', '"demo"').strip().splitlines()
    names = {}
    exec("\n".join([*body, f"shown = {last}"]), names)
    shown = names["shown"]
    assert set(shown["setting"]) == {"naive Bayes"} and {"target", "nn", "gap"} <= set(shown["attack"])
    assert shown["value"].between(0, 1).mean() > 0.9


def test_weights_are_attacked_as_its_page_says():
    text = (config.ROOT / "docs" / "own-models.md").read_text(encoding="utf-8")
    _, code, *_ = re.findall(r"```python\n(.*?)```", text, re.DOTALL)  # the third is in test_nasr.py
    names = {}
    exec(code, names)
    found, again = names["found"], names["again"]
    assert found.score.shape == found.predicted.shape == again.score.shape == (569,)
    X, y = names["X"], names["y"]
    # What target and proxy say for the true class against the other, halved, and subtracted.
    margins = names["target"].decision_function(X) - names["proxy"].decision_function(X)
    assert found.score == pytest.approx(np.where(y == 1, margins, -margins) / 2)
    with torch.no_grad():
        logits = [names[name](torch.from_numpy(X).float()).numpy() for name in ("network", "other")]
    own, other = ((each[:, 1] - each[:, 0]) / 2 for each in logits)
    assert again.score == pytest.approx(np.where(y == 1, own - other, other - own), abs=1e-4)


def test_a_teacher_is_taken_as_its_page_says():
    text = (config.ROOT / "docs" / "own-models.md").read_text(encoding="utf-8")
    code = text.split("## Students of your own teacher")[1].split("```")[1].removeprefix("python\n")
    names = {}
    exec(code, names)
    found, member = names["found"], names["target"].member
    assert found.score.shape == member.shape == (200,)
    # Labels are random: what a student says of a record's class is right where it learnt the record, or by chance.
    right = names["target"].vectors.argmax(1) == names["target"].y
    assert right[member].mean() > right[~member].mean() + 0.2
    assert found.predicted[member].mean() > found.predicted[~member].mean() + 0.2
    with pytest.raises(ValueError, match="no layer"):
        names["transfer"].Teacher(names["net"], "avgpol")
