"""Diversity of labelled clips: entropies, Gini–Simpson indices and numbers of distinct modes.

Pure functions of class labels, for the toy's oracle (metrics/oracle.py, metrics/oracle_i2v.py),
which can read from a clip what its caption leaves open.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from dfdbench.evaluate.metrics.base import GroupValue, Metric

OPEN = {"hue": 6, "direction": 8, "pan": 3, "size": 2}  # classes of what captions leave open
OF_MODES = ("hue", "direction", "pan")  # whose combinations are modes
MIN_CLIPS = 8  # whole clips below which a spread says nothing
RAREFIED = 32  # clips in which modes are counted


def labels_of(
    readings: Sequence[Mapping[str, float]], names: Sequence[str], prefix: str, whole: str
) -> dict[str, np.ndarray]:
    """Attribute of `names` → class index of each clip that counts, int (n,).

    readings: one mapping a clip, with a class index by `prefix`_NAME, -1 where none was read. A
    clip counts if its reading `whole` is 1 and each of its classes was read.
    """
    rows = [[r[f"{prefix}_{name}"] for name in names] for r in readings if r[whole] == 1]
    table = np.array([row for row in rows if min(row, default=0) >= 0], dtype=int)
    table = table.reshape(-1, len(names))
    return {name: table[:, i] for i, name in enumerate(names)}


def miller_madow(counts: np.ndarray) -> float:
    """Entropy in nats, corrected for the number of draws: −Σ p̂ log p̂ + (m − 1)/(2n).

    m: classes seen, n: draws. Miller 1955; the plain estimate is too small by about (K − 1)/(2n).
    counts: int (K,), at least one above 0.
    """
    seen = counts[counts > 0]
    n = seen.sum()
    p = seen / n
    return float(-(p * np.log(p)).sum() + (len(seen) - 1) / (2 * n))


def normalised_entropy(labels: np.ndarray, classes: int) -> float:
    """Miller–Madow entropy of int `labels` (n,) in units of log `classes`.

    0: always the same class; 1: uniform. Not clipped at 1: the correction makes the mean over
    prompts right, and clipping would push it down again. It is still biased at few clips: of 6
    classes by −.02 to −.04 at n = 16 and by −.11 to −.14 at n = 6.
    """
    return miller_madow(np.bincount(labels, minlength=classes)) / float(np.log(classes))


def gini_simpson(labels: np.ndarray, classes: int) -> float:
    """Share of pairs of clips that differ, over that of uniform draws; labels int (n,), n ≥ 2.

    (1 − Σ n_i (n_i − 1) / (n (n − 1))) · k / (k − 1): 0 for always the same class, 1 for uniform.
    Exactly unbiased at every n (Simpson 1949), so arms of unlike yield compare.
    """
    counts, n = np.bincount(labels, minlength=classes), len(labels)
    same = float((counts * (counts - 1)).sum()) / (n * (n - 1))
    return (1 - same) * classes / (classes - 1)


def rarefied_cells(n: int, counts: np.ndarray, total: int | None = None) -> float:
    """Distinct cells expected in n of `total` clips, drawn without replacement.

    Hurlbert 1971: Σ 1 − C(N − N_i, n) / C(N, n). total: N, Σ counts where not given; clips beyond
    Σ counts are of no cell.

    Raises:
        ValueError: n is more than `total`.
    """
    total = int(counts.sum()) if total is None else total
    if n > total:
        raise ValueError(f"{n} clips cannot be drawn from {total}")
    drawn = np.arange(n)
    # Each factor is the chance that one more draw misses cell i; at 0 or below it cannot miss.
    factors = (total - counts[:, None] - drawn) / (total - drawn)
    return float((1 - np.clip(factors, 0, None).prod(1)).sum())


def cells(labels: Mapping[str, np.ndarray]) -> np.ndarray:
    """The mode of each clip: int (n,), one number for each combination of the labels given."""
    names = [name for name in OF_MODES if name in labels]
    if not names:
        return np.zeros(len(next(iter(labels.values()))), dtype=int)
    sizes = tuple(OPEN[name] for name in names)
    return np.ravel_multi_index(tuple(labels[name] for name in names), sizes)


def gini_values(labels: Mapping[str, np.ndarray]) -> dict[str, GroupValue]:
    """Attribute → Gini–Simpson index, with n; without those that fewer than MIN_CLIPS clips show.

    labels: attribute → class index of each clip that counts, int (n,).
    """
    return {
        name: GroupValue(gini_simpson(own, OPEN[name]), len(own))
        for name, own in labels.items()
        if len(own) >= MIN_CLIPS
    }


def mean_gini(ginis: Mapping[str, GroupValue]) -> GroupValue:
    """The mean of indices, at least one, that are over the same clips."""
    values = list(ginis.values())
    return GroupValue(float(np.mean([own.value for own in values])), values[0].n)


def diversity_values(
    labels: Mapping[str, np.ndarray], total: int, suffix: str = ""
) -> dict[str, GroupValue]:
    """Values over the clips of one prompt.

    Args:
        labels: attribute → class index of each whole clip, int (n,), of what the prompt leaves
            open. total: all clips of the prompt, whole or not. suffix: of the values' names.

    Returns:
        NAME_gini and NAME_entropy of each attribute and open_gini, their mean Gini–Simpson, with n
        whole clips, none below MIN_CLIPS; modes among RAREFIED clips, with n all clips, none where
        there are fewer.
    """
    values: dict[str, GroupValue] = {}
    if not labels:
        return values
    n = len(next(iter(labels.values())))
    if ginis := gini_values(labels):
        for name, gini in ginis.items():
            values[f"{name}_gini{suffix}"] = gini
            entropy = normalised_entropy(labels[name], OPEN[name])
            values[f"{name}_entropy{suffix}"] = GroupValue(entropy, n)
        values[f"open_gini{suffix}"] = mean_gini(ginis)
    if total >= RAREFIED:
        counts = np.bincount(cells(labels)) if n else np.zeros(1, dtype=int)
        values[f"modes{suffix}"] = GroupValue(rarefied_cells(RAREFIED, counts, total), total)
    return values


def recall(
    labels: Mapping[str, np.ndarray],
    reference: Mapping[str, np.ndarray],
    total: int,
    suffix: str = "",
) -> dict[str, GroupValue]:
    """Share of a reference's whole clips whose mode is among ours; none where it has none.

    labels, reference: as for `diversity_values`. total: all our clips.
    """
    ours, theirs = cells(labels), cells(reference)
    if not len(theirs):
        return {}
    return {f"mode_recall{suffix}": GroupValue(float(np.isin(theirs, ours).mean()), total)}


def recall_metric(clips: str, suffix: str = "") -> Metric:
    """The declaration of `recall`. clips: what is counted, for the definition."""
    return Metric(
        f"mode_recall{suffix}", "higher", "", (0.0, 1.0),
        "share of a reference's clips whose mode is among a method's clips",
        f"Of a reference's {clips} of one prompt (usually the teacher's), the share whose hue, "
        f"direction and pan the method's {clips} of that prompt show too.", level="prompt",
    )  # fmt: skip


def diversity_metrics(clips: str, suffix: str = "") -> tuple[Metric, ...]:
    """The declarations of `diversity_values`. clips: what is counted, for the definitions."""

    def metric(name: str, high: float, source: str, definition: str, unit: str = "") -> Metric:
        return Metric(
            f"{name}{suffix}", "higher", unit, (0.0, high), source, definition, 2, level="prompt"
        )

    each = [
        parts
        for name, classes in OPEN.items()
        for parts in (
            metric(
                f"{name}_gini", 1 + 1 / (classes - 1), "Gini–Simpson index, unbiased",
                f"How often two of the {clips} of one prompt differ in {name} ({classes} classes), "
                "over how often uniform draws would: (1 − Σ nᵢ(nᵢ−1)/(n(n−1)))·k/(k−1). 0 if "
                f"always the same, 1 if uniform. Needs {MIN_CLIPS} of them.",
            ),
            metric(
                f"{name}_entropy", 1.5, "Miller–Madow entropy / log of the classes; not clipped",
                f"How evenly the {clips} of one prompt spread over the {classes} classes of {name}:"
                f" entropy (Miller–Madow) / log {classes}. 0 if always the same, about 1 if "
                f"uniform. Needs {MIN_CLIPS} of them.",
            ),
        )
    ]  # fmt: skip
    return (
        *each,
        metric(
            "open_gini", 2, "mean Gini–Simpson index of what the prompt leaves open",
            "Mean of the Gini–Simpson indices of hue, direction, pan and size, as far as the "
            "prompt leaves them open.",
        ),
        metric(
            "modes", RAREFIED, "rarefied number of distinct modes, clips that are not whole being "
            "of none",
            f"Distinct combinations of hue, direction and pan that {RAREFIED} clips of one prompt "
            f"show in expectation (Hurlbert's rarefaction). Only {clips} show one, so both a "
            "collapse and broken clips lower it.", "modes",
        ),
    )  # fmt: skip
