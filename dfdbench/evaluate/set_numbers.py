"""The numbers of `data describe`: of the rows and features of a set, and against those of another.

Pure functions. Every number has the n that it is of; one that cannot be had is None, and `why` says
why.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dfdbench.distill.data.curate.measures import unlike
from dfdbench.evaluate.metrics.diversity import NEIGHBOURS, manifold, pairwise_diversity
from dfdbench.evaluate.set_rows import Described

NEAR = 6  # bits of 64: near duplicates differ in fewer at all three hashes, as in `curate shots`
MOST = 4000  # clips of a set that coverage is computed of: distances of all pairs are in memory
NAMED = 20  # pairs of duplicates that are named
QUANTITIES = {
    "seconds": "s",
    "frames": "",
    "fps": "1/s",
    "saturation": "0 to 1",
    "motion": "short sides/s",
    "latent_change": "latent units",
}
"""What is measured of a clip, and its unit."""
PERCENTILES = (0, 5, 25, 50, 75, 95, 100)


def spread(values: Iterable[float | None]) -> dict[str, float] | None:
    """n, mean and percentiles (p0 to p100, linear) of those that are not None; None: of nothing."""
    there = np.array([value for value in values if value is not None], np.float64)
    if not len(there):
        return None
    ranks = np.percentile(there, PERCENTILES)
    named = {f"p{rank}": float(value) for rank, value in zip(PERCENTILES, ranks, strict=True)}
    return {"n": len(there), "mean": float(there.mean()), **named}


def set_numbers(rows: Sequence[Described], features: np.ndarray) -> dict[str, Any]:
    """All that is said of one set.

    Args:
        features: float32 (N, D), of the clips that have one, in their order.
    """
    usable = [row for row in rows if row.left_out is None]
    sizes = Counter(f"{row.width}x{row.height}" for row in usable)
    quantities = {name: spread(getattr(row, name) for row in usable) for name in QUANTITIES}
    levels = dict.fromkeys(level for row in usable for level in row.words)
    words = {level: spread(row.words.get(level) for row in usable) for level in levels}
    diversity = pairwise_diversity(features) if len(features) > 1 else None
    return {
        "clips": len(usable),
        "left_out": len(rows) - len(usable),
        "seconds_in_all": round(sum(row.seconds or 0 for row in usable), 3),
        "sizes": dict(sizes.most_common()),
        "quantities": {name: value for name, value in quantities.items() if value},
        "captions": {"clips": sum(bool(row.words) for row in usable), "words": words},
        "duplicates": duplicates(usable),
        "diversity": {"value": diversity, "n": len(features)},
    }


def duplicates(rows: Sequence[Described]) -> dict[str, Any]:
    """Clips that an earlier one is like: `count` of `n`, and the first pairs [clip, earlier one].

    Videos are alike if their hashes differ in fewer than NEAR bits, all three; latents if they have
    the same bits.
    """
    pairs = _like(rows, [], among=True)
    n = sum(bool(row.hashes or row.sha256) for row in rows)
    return {"count": len(pairs), "n": n, "first": pairs[:NAMED]}


def shared(rows: Sequence[Described], others: Sequence[Described]) -> dict[str, Any]:
    """The clips that one of another set is like, as `duplicates` counts them."""
    pairs = _like(rows, others, among=False)
    n = sum(bool(row.hashes or row.sha256) for row in rows)
    return {"count": len(pairs), "n": n, "first": pairs[:NAMED]}


def _like(
    rows: Sequence[Described], others: Sequence[Described], among: bool
) -> list[tuple[str, str]]:
    """Each clip that is like one of `others`, or like an earlier one of its own set."""
    pairs = []
    exact = {row.sha256: row.id for row in others if row.sha256}
    known = [row.id for row in others if row.hashes]
    hashes = np.empty((len(known) + among * len(rows), 3), np.uint64)
    for place, row in enumerate(row for row in others if row.hashes):
        hashes[place] = _bits(row)
    for row in rows:
        if row.sha256:
            if row.sha256 in exact:
                pairs.append((row.id, exact[row.sha256]))
            elif among:
                exact[row.sha256] = row.id
        elif row.hashes:
            own = _bits(row)
            bits = unlike(own, hashes[: len(known)]) if known else np.array([64])
            nearest = int(bits.argmin())
            if bits[nearest] < NEAR:
                pairs.append((row.id, known[nearest]))
            elif among:
                hashes[len(known)] = own
                known.append(row.id)
    return pairs


def _bits(row: Described) -> np.ndarray:
    return np.array([int(text, 16) for text in row.hashes], np.uint64)


def against(
    rows: Sequence[Described],
    features: np.ndarray,
    other_rows: Sequence[Described],
    other_features: np.ndarray,
    why_not: str | None = None,
) -> dict[str, Any]:
    """How a set lies beside another one.

    `covered`: share of the set's clips that have a clip of the other one nearer than their own
    k-th neighbour in the set, and `covers` the same the other way; `density` and `other_density`
    the mean number of such balls around the other's clips, over k (Naeem et al. 2020, 2002.09797,
    equations 2 and 3, the set as the real one). Euclidean distance of features of length one.

    Args:
        features, other_features: float32 (N, D), (M, D). why_not: why they cannot be compared.
    """
    n, m, k = len(features), len(other_features), NEIGHBOURS
    if why_not is None and min(n, m) <= k:
        why_not = f"{n} and {m} clips have features; a set needs {k + 1}"
    value: dict[str, Any] = {
        "k": k,
        "n": min(n, MOST),
        "other_n": min(m, MOST),
        "why": why_not,
        "covered": None,
        "covers": None,
        "density": None,
        "other_density": None,
    }
    if why_not is None:
        own, other = some(features), some(other_features)
        there, back = manifold(own, other), manifold(other, own)
        value |= {
            "covered": there.coverage,
            "covers": back.coverage,
            "density": there.density,
            "other_density": back.density,
        }
    usable = [row for row in rows if row.left_out is None]
    return {
        "coverage": value,
        "shared": shared(usable, [row for row in other_rows if row.left_out is None]),
    }


def some(features: np.ndarray) -> np.ndarray:
    """At most MOST rows of (N, D), at even distances."""
    if len(features) <= MOST:
        return features
    return np.asarray(features[np.linspace(0, len(features) - 1, MOST).round().astype(int)])


def lines_of(name: str, numbers: Mapping[str, Any]) -> list[str]:
    """What is said of a set, in lines for a terminal."""
    captions, copies, own = numbers["captions"], numbers["duplicates"], numbers["diversity"]
    n, left_out = numbers["clips"], numbers["left_out"]
    lines = [f"{name}: {n} clips, {numbers['seconds_in_all']:g} s; {left_out} left out"]
    sizes = [f"{size} ({count})" for size, count in numbers["sizes"].items()]
    lines.append(f"  sizes: {', '.join(sizes[:6])}{', …' if len(sizes) > 6 else ''}")
    for quantity, value in numbers["quantities"].items():
        lines.append(f"  {quantity}: {_brief(value, QUANTITIES[quantity])}")
    lines.append(f"  captions: {captions['clips']} of {n} clips")
    lines += [f"  words, {level}: {_brief(v, '')}" for level, v in captions["words"].items() if v]
    lines.append(f"  duplicates: {copies['count']} of {copies['n']} clips")
    if own["value"] is None:
        lines.append(f"  diversity: none, {own['n']} clips have features")
    else:
        lines.append(f"  diversity: {own['value']:.4f} (mean cosine distance, n = {own['n']})")
    return lines


def lines_against(name: str, other: str, numbers: Mapping[str, Any]) -> list[str]:
    """What `against` found, in lines for a terminal."""
    value, copies = numbers["coverage"], numbers["shared"]
    lines = [f"{name}: {copies['count']} of {copies['n']} clips are like one of {other}"]
    if value["why"]:
        return [f"coverage: none, {value['why']}", *lines]
    facts = f"k = {value['k']}, n = {value['n']} and {value['other_n']}"
    return [
        f"{value['covered']:.1%} of {name} is covered by {other} ({facts})",
        f"{value['covers']:.1%} of {other} is covered by {name}",
        *lines,
    ]


def _brief(value: Mapping[str, float], unit: str) -> str:
    text = f"median {value['p50']:.4g}, 5 to 95 %: {value['p5']:.4g} to {value['p95']:.4g}"
    return f"{text}{f' ({unit})' if unit else ''}, n = {value['n']}"
