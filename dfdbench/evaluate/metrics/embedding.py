"""What every family of frame features shares: one array a clip, diversity over a prompt's seeds.

A backend's file (effnet_lite2.py) says how frames become vectors and where its weights lie; the
numbers derived from the vectors are those of diversity.py, under the backend's name.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dfdbench.evaluate.metrics import diversity
from dfdbench.evaluate.metrics.base import (
    Compute,
    Direction,
    GroupValue,
    Metric,
    MetricFamily,
    Reading,
    Setting,
)
from dfdbench.utils.video import Clip

if TYPE_CHECKING:
    from torch import Tensor

EQ_26 = "2606.18478 Eq. 26: 1 − mean cosine over pairs of a prompt's seeds"
Embed = Callable[[np.ndarray], np.ndarray]  # uint8 (T H W 3) -> float32 (T, D)


BATCH = {"cpu": 1, "cuda": 64}  # frames at once; a CPU's caches hold the activations of one
PIXELS = 2**23  # of the frames that are prepared at once


def batched(
    prepare: Callable[[np.ndarray], "Tensor"], network: Callable[["Tensor"], "Tensor"], device: str
) -> Embed:
    """An embedding function that gives `network` a few frames at once, without gradients.

    On a GPU the frames of clips in several threads share its batches.

    Args:
        prepare: uint8 (B H W 3) -> what the network takes, on the device.
        network: to float (B, D).
        device: where it runs, which says how many frames are best.
    """
    import torch

    from dfdbench.evaluate.metrics.joint import Joint

    size = BATCH[device.split(":")[0]]
    joint = Joint(lambda x: network(x).float().cpu(), lambda _: size, shared=size > 1)

    @torch.inference_mode()
    def embed(frames: np.ndarray) -> np.ndarray:
        if size == 1:
            return torch.cat([joint(prepare(frame[None])) for frame in frames]).numpy()
        few = max(1, min(size, PIXELS // (frames.shape[1] * frames.shape[2])))
        parts = [prepare(frames[i : i + few]) for i in range(0, len(frames), few)]
        return joint(torch.cat(parts)).numpy()

    return embed


def group_values(name: str, clips: Sequence[np.ndarray]) -> dict[str, GroupValue]:
    """Diversity of one prompt's clips, each (T, D); nothing for fewer than two.

    Frames are matched by their index, so `per_frame` is left out where clips differ in frames.
    """
    if len(clips) < 2:
        return {}
    means = _means(clips)
    values = {
        f"{name}_diversity": diversity.pairwise_diversity(means),
        f"{name}_vendi": diversity.vendi(means),
    }
    if len({len(clip) for clip in clips}) == 1:
        stacked = np.stack(clips)
        values[f"{name}_diversity_per_frame"] = diversity.per_frame_diversity(stacked)
        values[f"{name}_diversity_first"] = diversity.pairwise_diversity(stacked[:, 0])
        values[f"{name}_diversity_last"] = diversity.pairwise_diversity(stacked[:, -1])
    return {key: GroupValue(value, len(clips)) for key, value in values.items()}


def pooled_values(
    name: str, clips: Iterable[np.ndarray], reference: Iterable[np.ndarray]
) -> dict[str, GroupValue]:
    """Distances of all clips of a method, each (T, D), to a reference's, pooled over prompts.

    Left out where a set is too small for them: k + 1 clips for the neighbours, 2 for Fréchet.
    """
    generated, real = _means(clips), _means(reference)
    least, values = min(len(generated), len(real)), dict[str, float]()
    if least > diversity.NEIGHBOURS:
        shares = diversity.manifold(real, generated)._asdict()
        values |= {f"{name}_{key}": value for key, value in shares.items()}
    if least >= 2:
        values[f"{name}_frechet"] = diversity.frechet_distance(real, generated)
    return {key: GroupValue(value, len(generated)) for key, value in values.items()}


def _means(clips: Iterable[np.ndarray]) -> np.ndarray:
    return np.stack([clip.astype(np.float64).mean(0) for clip in clips])


def embedding_family(
    name: str,
    source: str,
    load: Callable[[Setting], Embed],
    find: Callable[[Setting], str],
    default: bool = False,
) -> MetricFamily:
    """The family of one backend.

    Args:
        source: model, weights and preprocessing in a line.
        load: gives the embedding function on the setting's device.
        find: sha256 of its weights; raises MissingWeights.
        default: it is one of the general families.
    """
    features = f"{name}_features"

    def load_compute(setting: Setting) -> Compute:
        embed = load(setting)

        def compute(clip: Clip) -> dict[str, np.ndarray]:
            return {features: embed(clip.frames).astype(np.float32)}

        return compute

    def arrays(readings: Iterable[Reading]) -> Iterable[np.ndarray]:
        return (r[features] for r in readings if isinstance(r[features], np.ndarray))

    def group(readings: Sequence[Reading], attributes: Mapping[str, str]) -> dict[str, GroupValue]:
        return group_values(name, list(arrays(readings)))

    def pool(readings: Iterable[Reading], reference: Iterable[Reading]) -> dict[str, GroupValue]:
        return pooled_values(name, arrays(readings), arrays(reference))

    def over_seeds(suffix: str, high: float, what: str, definition: str, unit: str = "") -> Metric:
        return Metric(
            f"{name}_{suffix}", "higher", unit, (0.0, high), f"{what}; {source}",
            definition, level="prompt",
        )  # fmt: skip

    def pooled(suffix: str, high: float, what: str, definition: str) -> Metric:
        direction: Direction = "lower" if suffix == "frechet" else "higher"
        return Metric(
            f"{name}_{suffix}", direction, "", (0.0, high), f"{what}; {source}",
            definition, level="pooled",
        )  # fmt: skip

    return MetricFamily(
        name,
        policy="even16",
        metrics=(
            Metric(
                features, "nearest_reference", "", (-np.inf, np.inf), source,
                f"One vector a frame: {source}.", kind="array",
            ),
            over_seeds(
                "diversity", 2.0, f"{EQ_26}, means over frames",
                "How different the clips of one prompt are from seed to seed: 1 − mean cosine over "
                "pairs of seeds, each clip the mean of its frames' vectors. 0 if all are the same.",
            ),
            over_seeds(
                "diversity_per_frame", 2.0, f"{EQ_26}, at equal frames",
                "How different the clips of one prompt are from seed to seed, frame by frame: "
                "1 − mean cosine over pairs of seeds at equal frame numbers, mean over frames.",
            ),
            *(
                over_seeds(
                    f"diversity_{end}", 2.0, f"{EQ_26}, at the {end} frame",
                    f"How different the clips of one prompt are from seed to seed in their {end} "
                    "frame: 1 − mean cosine over pairs of seeds. Of a student that is sampled "
                    "block after block it says whether diversity is lost at once or on the way.",
                )
                for end in ("first", "last")
            ),
            over_seeds(
                "vendi", 1e6, "Vendi score of a prompt's seeds, cosine kernel",
                "Effective number of distinct clips among a prompt's seeds, 1 to their number n: "
                "exp(−Σ λ log λ), λ the eigenvalues of the matrix of their cosines over n.",
                "clips",
            ),
            pooled(
                "precision", 1, "share of clips in the reference's manifold (k = 3)",
                "Fidelity: share of a method's clips that lie nearer to some clip of the reference "
                "than that clip's third neighbour does.",
            ),
            pooled(
                "recall", 1, "share of the reference in the clips' manifold (k = 3)",
                "How much of the reference a method covers: share of the reference's clips that lie"
                " nearer to some clip of the method than that clip's third neighbour does.",
            ),
            pooled(
                "density", 1e6, "reference balls around a clip, over k = 3",
                "Number of the reference's clips that have a clip of the method nearer than their "
                "third neighbour, over 3, mean over the method's clips: fidelity that one outlier "
                "of the reference hardly raises.",
            ),
            pooled(
                "coverage", 1, "share of reference balls with a clip in them (k = 3)",
                "How much of the reference a method covers: share of the reference's clips that "
                "have a clip of the method nearer than their third neighbour.",
            ),
            pooled(
                "frechet", 1e9, "Fréchet distance to the reference's clips",
                "Distance of Gaussians fitted to both sets, ‖μ − μ'‖² + tr(Σ + Σ' − 2 (ΣΣ')^½). "
                "Compare only equal numbers of clips.",
            ),
        ),
        load=load_compute,
        find=find,
        group=group,
        pool=pool,
        model=True,
        min_frames=1,
        default=default,
    )  # fmt: skip
