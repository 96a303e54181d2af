"""Compiles LaTeX where pdflatex is installed, and checks its structure everywhere."""

import re
import shutil
import subprocess
from pathlib import Path

DOCUMENT = r"""\documentclass{article}
\usepackage{booktabs,graphicx}
\begin{document}
%s
\end{document}
"""


def check(text: str, folder: Path) -> None:
    """Raise AssertionError unless `text` is a sound body of a document."""
    bare = re.sub(r"\\[\\{}&%$#_]", "", text)  # escaped signs count for nothing
    body = "\n".join(line for line in bare.splitlines() if not line.startswith("%"))
    assert body.count("{") == body.count("}")
    assert body.isascii()
    assert not re.search(r"[_^~#]|<|>(?!\\linewidth)", body)
    assert body.count("$") % 2 == 0
    for table in re.findall(r"\\begin\{tabular\}\{(l?c*)\}(.*?)\\end\{tabular\}", text, re.S):
        columns, lines = table
        rows = [line for line in lines.splitlines() if line.endswith(r" \\")]
        assert rows and {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(columns) - 1}
    if shutil.which("pdflatex"):
        (folder / "doc.tex").write_text(DOCUMENT % text, encoding="utf-8")
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "doc.tex"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:]
        assert "Overfull" not in done.stdout
