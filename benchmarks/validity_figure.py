"""One figure of DFD's validity condition, from the reports of the studies toy/validity1 to 3.

    python benchmarks/validity_figure.py results/toy/validity1 results/toy/validity2 \
        results/toy/validity3 --out results/toy/figures

Writes validity-condition.png and .svg, and prints the caption.
"""

import argparse
from pathlib import Path

from dfdbench.report.figures import save
from dfdbench.report.validity import against_condition

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("reports", nargs="+", type=Path)
parser.add_argument("--out", type=Path, default=Path("figures"))
arguments = parser.parse_args()
figure = against_condition(arguments.reports)
for path in save(figure, arguments.out, "validity-condition"):
    print(path)
print(figure.get_label())
