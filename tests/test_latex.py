"""What `python -m mialib cite` prints compiles: needs pdflatex with booktabs (Debian: texlive-latex-recommended)."""

import re
import shutil
import subprocess

import pypdf
import pytest

from mialib import citing, config

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


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="NO LATEX INSTALLED: nobody tried figures/*.tex")
def test_every_figure_and_every_short_table_compiles(tmp_path):
    records = citing.exhibits(FIGURES).values()
    lines = [
        line for record in records for line in citing.includes(record, FIGURES) if "longer than a page" not in line
    ]
    figures, tables = (sum(line.startswith(start) for line in lines) for start in ("\\includegraphics", "\\input"))
    assert figures >= 2 and tables >= 2
    (tmp_path / "page.tex").write_text(PAGE % "\n".join(floats(lines)))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", f"-output-directory={tmp_path}"]
    done = subprocess.run([*command, tmp_path / "page.tex"], cwd=config.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, "\n".join(re.findall(r"^!.*(?:\n.*){0,4}", done.stdout, re.MULTILINE))
    pdf = pypdf.PdfReader(tmp_path / "page.pdf")
    assert len(pdf.pages) == figures + tables
    assert pdf.pages[figures].extract_text().strip() != ""
