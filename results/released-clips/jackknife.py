"""How far eight seeds of one prompt carry: diversity with a leave-one-seed-out standard error.

python results/released-clips/jackknife.py results/released-clips/scores.sqlite
"""

import sys

import numpy as np

from dfdbench.evaluate.metrics import diversity
from dfdbench.evaluate.store import Store

PROMPT = "diversity"
FIGURES = {
    "effnet_lite2_diversity": (
        "effnet_lite2_features",
        lambda x: diversity.pairwise_diversity(x.mean(1, dtype=float)),
    ),
    "effnet_lite2_diversity_per_frame": ("effnet_lite2_features", diversity.per_frame_diversity),
    "effnet_lite2_vendi": ("effnet_lite2_features", lambda x: diversity.vendi(x.mean(1))),
    # The mean LPIPS of pairs is twice the summed variance of the embedded frames.
    "lpips_alex_diversity": (
        "lpips_alex_features",
        lambda x: float(2 * x.var(0, ddof=1).sum(-1).mean()),
    ),
}

print("| metric | DMD2 | DFD | DFD − DMD2 | standard error | DFD higher in |")
print("|---|---|---|---|---|---|")
with Store(sys.argv[1]) as store:
    for name, (features, figure) in FIGURES.items():
        frame = store.arrays(features)
        frame = frame[frame["prompt_id"] == PROMPT].sort_values("seed")
        of = {m: np.stack(list(rows["array"])).astype(float) for m, rows in frame.groupby("method")}
        whole = {method: figure(x) for method, x in of.items()}
        left_out = {
            method: np.array([figure(np.delete(x, i, 0)) for i in range(len(x))])
            for method, x in of.items()
        }
        n = len(of["dfd"])
        error = np.sqrt((n - 1) * sum(x.var() for x in left_out.values()))
        higher = (left_out["dfd"][:, None] > left_out["dmd2"]).sum()
        print(
            f"| {name} | {whole['dmd2']:.3f} | {whole['dfd']:.3f} "
            f"| {whole['dfd'] - whole['dmd2']:+.3f} | {error:.3f} | {higher} of {n * n} |"
        )
