"""Methods at equal student updates and at equal network passes, from the report of toy/methods.

    python benchmarks/methods_tables.py results/toy/methods --against dmd2 --out results/toy/methods

Writes costs.md, and figures/pareto.png and .svg.
"""

import argparse
from pathlib import Path

from dfdbench.report.cost import pareto, tables
from dfdbench.report.figures import save
from dfdbench.utils.files import atomic_path
from dfdbench.utils.table import markdown

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("report", type=Path)
parser.add_argument("--against", default="dmd2", help="arm whose updates and passes are the goal")
parser.add_argument("--out", type=Path, default=Path("."))
arguments = parser.parse_args()
texts = [f"## {t.title}\n\n{markdown(t)}" for t in tables(arguments.report, arguments.against)]
with atomic_path(arguments.out / "costs.md") as temporary:
    temporary.write_text("\n".join(texts), encoding="utf-8")
figure = pareto(arguments.report)
for path in [arguments.out / "costs.md", *save(figure, arguments.out / "figures", "pareto")]:
    print(path)
print(figure.get_label())
