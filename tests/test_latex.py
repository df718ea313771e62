"""What `python -m mialib cite` prints compiles: needs pdflatex with booktabs (Debian: texlive-latex-recommended)."""

import json
import re
import shutil
import subprocess

import matplotlib.pyplot as plt
import pandas as pd
import pypdf
import pytest

from companion import citing
from mialib import config, runs
from mialib.results import report

FIGURES = config.ROOT / "figures"
PAGE = r"""\documentclass[twocolumn]{article}
\usepackage{booktabs, graphicx}
\begin{document}
%s
\end{document}
"""


def floats(lines):
    """The lines as an author would use them: a figure in its float, a table as it is."""
    for line in lines:
        wide = "*" if "figure*" in line else ""
        yield (
            f"\\begin{{figure{wide}}}\n{line}\n\\end{{figure{wide}}}" if line.startswith("\\includegraphics") else line
        )
        yield "\\clearpage"


latex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="NO LATEX INSTALLED: nobody tried figures/*.tex")


def compiled(text, folder, cwd):
    """The PDF of a page with this text."""
    (folder / "page.tex").write_text(PAGE % text, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", f"-output-directory={folder}"]
    for _ in range(2):  # the second knows what labels refer to
        done = subprocess.run([*command, folder / "page.tex"], cwd=cwd, capture_output=True, text=True)
        assert done.returncode == 0, "\n".join(re.findall(r"^!.*(?:\n.*){0,4}", done.stdout, re.MULTILINE))
    return pypdf.PdfReader(folder / "page.pdf")


@latex
def test_odd_name_commit_and_version_compile(tmp_path, monkeypatch):
    """What a notebook's name, a commit and a version may hold, as an author would use it: see `citing.includes`."""
    monkeypatch.setenv("MIALIB_FIGURES", str(tmp_path / "figures"))
    run = runs.Run("01_a&b_%x_#y {z}~^$", "demo", 0, 0.0, "50%_of{it\\")
    figure, _ = plt.subplots(figsize=(5, 3))
    table = pd.DataFrame({"a_%": ["50 % & {#} \\x"]})
    saved = report.save(run, "Toy & 50 %", {"Adult": "R"}, [], {"": figure}, {"": table}, {})
    plt.close(figure)
    record = json.loads(saved[f"{run.notebook}.json"].read_text(encoding="utf-8"))
    lines = citing.includes(record, tmp_path / "figures")
    for line, kind in zip(lines, ("pdf", "tex"), strict=True):
        assert line.endswith(f" rename {run.notebook}.{kind} to that, which LaTeX can read")
        (name,) = re.findall(r"\{figures/(.*?)\}", line)
        (tmp_path / "figures" / f"{run.notebook}.{kind}").rename(tmp_path / "figures" / name)
    (label,) = re.findall(r"\\label\{(.*)\}", (tmp_path / "figures" / name).read_text(encoding="utf-8"))
    note = citing.companion("2031", "1_0#2", run.commit).partition("note")[2].partition("{")[2].rpartition("},")[0]
    caption = "\\caption{" + report.latex_text(citing.caption(record, "Toy & 50 %")) + "}"
    text = f"See table \\ref{{{label}}}. {note}\n\\begin{{figure}}{caption}\\end{{figure}}"
    text = "\n".join([*floats(lines), text])
    pages = compiled(text, tmp_path, tmp_path).pages
    printed = " ".join("".join(page.extract_text() for page in pages).split())
    assert "See table 1. Version 1 0#2, commit 50% of{it\\" in printed  # LaTeX draws _ as a line, which is no text
    assert "notebook 01 a&b %x #y {z}" in printed


@latex
def test_every_figure_and_every_short_table_compiles(tmp_path):
    records = citing.exhibits(FIGURES).values()
    lines = [
        line for record in records for line in citing.includes(record, FIGURES) if "longer than a page" not in line
    ]
    figures, tables = (sum(line.startswith(start) for line in lines) for start in ("\\includegraphics", "\\input"))
    assert figures >= 2 and tables >= 2
    pdf = compiled("\n".join(floats(lines)), tmp_path, config.ROOT)
    assert len(pdf.pages) == figures + tables
    assert pdf.pages[figures].extract_text().strip() != ""
