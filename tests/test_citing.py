"""Exhibits are cited by ids that stay, from their records, and the gallery is what the records say."""

import json
import re

import pytest
import yaml

import mialib
from companion import __main__ as command_line
from companion import citing, jobs
from mialib import config
from mialib.results import published

FIGURES = config.ROOT / "figures"
# An id that somebody may have cited. Add to these; never change one.
IDS = [f"shokri-{name}" for name in ("table2", "table3", "table1")]
IDS += [f"shokri-fig{number}" for number in (4, 6, 8, 9, 10, 11, 12)]
IDS += [f"rezaei-{name}" for name in ("table1", "table2", "figs12", "table3", "table4", "table5", "table6", "table7")]
IDS += ["rezaei-figs38"]


def record(**more):
    cells = [
        {"dataset": "Adult", "tier": "R", "published": 0.5, "verdict": "reproduced", "chance": 0.5, "tolerance": 0.05},
        {"dataset": "Adult", "tier": "R", "published": 0.5, "verdict": "differs", "primary": False},
        {"dataset": "Purchase-2", "tier": "M", "published": 0.5, "verdict": "not comparable", "cause": "simulated"},
        {"dataset": "Purchase-2", "tier": "M", "published": None, "verdict": "not comparable"},
        {"dataset": "Texas-100", "tier": None, "published": 0.5, "verdict": "not comparable", "cause": "[not] run"},
    ]
    cells = [{"primary": True, "cause": ""} | cell for cell in cells]
    run = {"commit": "0123456789abcdef+changes", "versions": {"mialib": "9.9"}, "date": "2031-02-03"}
    base = {"exhibit": "Toy 2024, 50 % & Table 1", "notebook": "07_shokri_toy_1", "profile": "laptop", "seed": 3}
    return base | {"cells": cells, "run": run} | more


@pytest.fixture
def folder(tmp_path):
    """A folder of figures: one figure for a column, one for the page, a short table and a long one."""
    stem = record()["notebook"]
    (tmp_path / f"{stem}.json").write_text(json.dumps(record()))
    for suffix, width in (("", 5.4), ("_wide", 9)):
        for kind in ("pdf", "png", "svg"):
            (tmp_path / f"{stem}{suffix}.{kind}").write_text(f"<< /MediaBox [ 0 0 {width * 72} 300 ] >>")
    for suffix, rows in (("", 3), ("_long", 200)):
        (tmp_path / f"{stem}{suffix}.tex").write_text("a & b \\\\\n" * rows)
        (tmp_path / f"{stem}{suffix}.csv").write_text("a,b\n")
    return tmp_path


def test_ids_are_those_that_were_given():
    exhibits = [path.stem for path in sorted(jobs.NOTEBOOKS.glob("*.ipynb")) if not path.stem.startswith("00")]
    ids = [config.exhibit_id(stem) for stem in exhibits]
    assert len(set(ids)) == len(ids)
    assert set(IDS) <= set(ids)
    assert config.exhibit_id("04_shokri_fig4_sizes") == config.exhibit_id("29_shokri_fig4_other_words")


@pytest.mark.parametrize("name", ["07", "07_shokri_toy_1", "shokri-toy"])
def test_found_by_number_stem_and_id(name, folder):
    assert citing.find(name, folder) == record()


@pytest.mark.parametrize("name", ["7", "shokri", "", "08"])
def test_unknown_exhibit_lists_what_is_there(name, folder):
    with pytest.raises(ValueError, match=rf"'{name}'; valid: shokri-toy$"):
        citing.find(name, folder)


def test_caption_says_what_was_run_on_what():
    text = citing.caption(record(), "Toy: is it so?")
    assert text.startswith("Toy: is it so? Real data: Adult. SIMULATED data")
    for piece in (
        "published numbers: Purchase-2.",
        "Profile laptop, seed 3",
        "3 published numbers: 1 reproduced (1 of them reached by guessing too), 0 differ, 0 undecided, "
        "2 not comparable (simulated: 1, [not] run: 1).",
        "Exhibit shokri-toy, mialib 9.9, commit 0123456+changes.",
    ):
        assert piece in text
    assert "Texas" not in text  # not computed
    assert "SIMULATED" not in citing.caption(record(cells=record()["cells"][:1]), "Toy")


def test_bibtex_of_paper_and_companion():
    text = citing.bibtex(record())
    assert re.findall(r"^@(\w+)\{(\w+),$", text, re.MULTILINE) == [
        ("inproceedings", "shokri2017membership"),
        ("misc", "mialib"),
    ]
    assert text.count("{") == text.count("}")
    assert "Version 9.9, commit 0123456789abcdef+changes" in text
    assert "{2031}" in text
    rezaei = citing.bibtex(record(notebook="11_rezaei_table1_metrics"))
    assert "@inproceedings{rezaei2021" in rezaei and "shokri2017" not in rezaei
    assert citing.bibtex(record(notebook="20_toy_table1")).startswith("% no entry that begins with toy")


def test_every_exhibit_has_its_paper():
    for name in IDS:
        notebook = f"07_{name.replace('-', '_')}_topic"
        assert citing.bibtex(record(notebook=notebook)).startswith("@inproceedings"), name


def test_includes_are_as_wide_as_the_text_needs(folder):
    lines = citing.includes(record(), folder)
    assert lines[0].startswith(r"\includegraphics[width=\columnwidth]{figures/07_shokri_toy_1.pdf}")
    assert lines[1].startswith(r"\includegraphics[width=\textwidth]{figures/07_shokri_toy_1_wide.pdf}")
    assert "figure*" in lines[1] and "figure*" not in lines[0]
    assert lines[2] == r"\input{figures/07_shokri_toy_1.tex}"
    assert lines[3].startswith(r"\input{figures/07_shokri_toy_1_long.tex}  % 200 rows, longer")
    # 10-point text in a column of 3.25 inches, or across 6.8.
    assert 10 * 3.25 / config.ONE_COLUMN >= 6
    assert 10 * 6.8 / config.TWO_COLUMNS >= 6


def test_what_is_printed_escapes_latex(folder):
    text = citing.cite(record(), "50 % of A & B", folder)
    assert text.startswith("50 % of A & B. Real data")
    assert r"\caption{50 \% of A \& B. Real" in text


def test_commit_version_and_file_names_can_be_printed(tmp_path):
    stem = "01_a&b_%x_#y"
    run = {"commit": "50%_of{it", "versions": {"mialib": "1_0#2"}, "date": "2031-02-03"}
    odd = record(notebook=stem, run=run)
    (tmp_path / f"{stem}.pdf").write_text("<< /MediaBox [ 0 0 300 300 ] >>")
    (tmp_path / f"{stem}.tex").write_text("a \\\\\n")
    text = citing.cite(odd, "Toy", tmp_path)
    assert r"note      = {Version 1\_0\#2, commit 50\%\_of\textbraceleft{}it}," in text
    entry = text.partition("@misc")[2].partition("% LaTeX")[0]
    assert entry.count("{") == entry.count("}")
    assert r"notebook 01\_a\&b\_\%x\_\#y." in text.partition("\\caption")[2]
    picture, table = citing.includes(odd, tmp_path)
    assert picture.startswith(r"\includegraphics[width=\columnwidth]{figures/01_a-b_-x_-y.pdf}  % in a figure; rename ")
    assert table == r"\input{figures/01_a-b_-x_-y.tex}  % rename 01_a&b_%x_#y.tex to that, which LaTeX can read"


def test_files_of_a_notebook_are_its_own(tmp_path):
    """Names may begin alike, and hold what a pattern of file names would take for more."""
    for stem in ("07_toy_[1]*", "07_toy", "07_toy-Copy1"):
        for name in (f"{stem}.json", f"{stem}.tex", f"{stem}_more.tex"):
            (tmp_path / name).write_text("{}")
    for stem in ("07_toy_[1]*", "07_toy", "07_toy-Copy1"):
        found = citing._files(record(notebook=stem), tmp_path, ".tex")
        assert [path.name for path in found] == [f"{stem}.tex", f"{stem}_more.tex"]


def test_gallery_of_one(folder):
    text = citing.gallery(folder, {"07_shokri_toy_1": 'Toy: "so" < and >?'})
    assert "| [`shokri-toy`](#shokri-toy) | Toy 2024, 50 % & Table 1 | 3 | 1 | 1 | 0 | 0 | 2 |" in text
    assert (
        r"In all: 3 published numbers: 1 reproduced (1 of them" in text and r"(simulated: 1, \[not\] run: 1)." in text
    )
    images = re.findall(r'<img src="([^"]+)" width="\d+" alt="([^"]+)">', text)
    assert [name for name, _ in images] == ["07_shokri_toy_1.png", "07_shokri_toy_1_wide.png"]
    assert all("&quot;so&quot; &lt; and &gt;?" in alt and "simulated" in alt for _, alt in images)
    linked = {name for name in re.findall(r"\]\(([^)#]+)\)", text) if not name.startswith("..")}
    assert linked == {path.name for path in folder.iterdir()}


def test_gallery_holds_no_html_of_a_record(tmp_path):
    stem = "07_toy_<b>_[x](y)"
    odd = record(notebook=stem, exhibit="<script>1</script> | [a](javascript:1)")
    for kind, text in (("json", json.dumps(odd)), ("png", ""), ("csv", "")):
        (tmp_path / f"{stem}.{kind}").write_text(text)
    text = citing.gallery(tmp_path, {stem: '# "><script>2</script>'})
    bare = re.sub(r"`[^`]*`", "", text)
    assert re.findall(r"(?<!\\)<(?!a id|/a>|img src)[^>]*", bare) == []
    assert r"| \<script>1\</script> \| \[a\](javascript:1) | 3 | 1 | 1 | 0 | 0 | 2 |" in text
    assert '<img src="07_toy_%3Cb%3E_%5Bx%5D%28y%29.png"' in text and "[csv](07_toy_%3Cb%3E_%5Bx%5D%28y%29.csv)" in text


def test_committed_gallery_is_what_the_records_say():
    titles = {path.stem: jobs.title(path) for path in jobs.NOTEBOOKS.glob("*.ipynb")}
    text = (FIGURES / "README.md").read_text()
    assert text == citing.gallery(FIGURES, titles), "make publish writes it"
    links = [*re.findall(r"\]\(([^)#]+)\)", text), *re.findall(r'src="([^"]+)"', text)]
    assert len(links) > 100
    assert [link for link in links if not (FIGURES / link).exists()] == []
    for path in sorted(FIGURES.glob("*.json")):
        counts = published.counts(json.loads(path.read_text())["cells"])
        (row,) = re.findall(rf"^\| \[`{config.exhibit_id(path.stem)}`\].*", text, re.MULTILINE)
        total, same, _, *others = map(int, row.strip("| ").split(" | ")[-6:])
        assert [same, *others] == list(counts.values()) and total == sum(counts.values())


def test_command_line(capsys):
    assert command_line.main(["cite", "04"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Shokri et al. 2017, Fig")
    for path in re.findall(r"figures/[\w.]+", printed):
        assert (config.ROOT / path).exists()
    with pytest.raises(SystemExit, match="2"):
        command_line.main(["cite", "table9"])
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert "shokri-fig4, " in captured.err


def test_citation_file_has_this_version_and_both_papers():
    about = yaml.safe_load((config.ROOT / "CITATION.cff").read_text())
    assert about["version"] == mialib.__version__
    entries = (config.ROOT / "data" / "published" / "papers.bib").read_text()
    assert all(f"{{{paper['title']}}}" in entries for paper in about["references"])
    assert len(about["references"]) == entries.count("\n@")


# Tables of data or attacks that are not run: fine-tuning in 21 is on Location, no set of the paper; 26 opens no deep
# network.
ELSEWHERE = ("nasr_table9", "leino_slides")


@pytest.mark.parametrize("name", published.tables())
def test_committed_records_hold_the_primary_readings_of_a_table(name):
    """Each published number once, and each variant that a table names computed for some: no name is misspelt."""
    cells = [cell for record in citing.exhibits(FIGURES).values() for cell in published.primary(record["cells"])]
    found = {(cell["dataset"], cell["setting"], cell["metric"], cell["published"]): cell["value"] for cell in cells}
    table, computed = published.load(name).dropna(subset="published"), set()
    for row in table.itertuples():
        key = row.dataset, ", ".join(filter(None, (row.setting, row.primary))), row.metric, row.published
        assert key in found, key
        computed |= {row.primary} if found[key] is not None else set()
    assert computed == (set() if name in ELSEWHERE else set(table["primary"]))


def test_readme_counts_the_verdicts():
    cells = [cell for record in citing.exhibits(FIGURES).values() for cell in record["cells"]]
    said, _, _ = published.headline(cells).partition(" not comparable")
    assert f"In all there are {said} not comparable" in " ".join((config.ROOT / "README.md").read_text().split())
