"""Stage `cluster`: k-means of the features, by FAISS or scikit-learn; no cluster is left empty.

The same features, settings and versions give the same clusters. They are numbered by falling size.
centres.npy holds their centres, float32 (K, D).
"""

from pathlib import Path

import numpy as np

from dfdbench.distill.data.curate.features import ARRAY, read_features, save_array
from dfdbench.distill.data.curate.work import Outcome, Stage
from dfdbench.utils.errors import UserError
from dfdbench.utils.folders import locked

NAME, CENTRES = "cluster", "centres.npy"
BACKENDS = {"faiss": "faiss-cpu", "sklearn": "scikit-learn"}  # and the package of each
STARTS, ROUNDS = 5, 25  # of which the best is kept; of FAISS over up to 256 shots a cluster
ROWS = 16384  # whose distances are in memory at once


def cluster(
    folder: Path, count: int | None = None, seed: int = 0, backend: str | None = None
) -> Outcome:
    """Write `folder`/cluster.jsonl: cluster of each shot and distance to its centre.

    Args:
        count: clusters; None: √(N / 2) for N shots.
        backend: None: FAISS if it is there, else scikit-learn's MiniBatchKMeans.

    Raises:
        UserError: no features, fewer shots than clusters, or the backend is not here.
    """
    ids, array = read_features(folder)
    count = count or max(1, round((len(ids) / 2) ** 0.5))
    if count > len(ids):
        raise UserError(f"--clusters {count}: there are {len(ids)} shots; ask for fewer")
    backend = backend or _backend()
    settings = {"clusters": count, "seed": seed, "backend": backend}
    inputs = [folder / ARRAY, folder / "features.jsonl"]
    stage = Stage(folder, NAME, settings, inputs, [BACKENDS[backend]])
    with locked(folder, NAME):
        if finished := stage.finished():
            return finished
        centres = _fit(array, count, seed, backend)
        label, distance, centres = fill_empty(array, centres)
        label, centres = by_size(label, centres)
        save_array(folder / CENTRES, len(centres), iter(centres))
        rows = (
            {"id": name, "cluster": int(c), "distance": round(float(d), 6)}
            for name, c, d in zip(ids, label, distance, strict=True)
        )
        return stage.write(rows, [folder / CENTRES])


def _backend() -> str:
    try:
        import faiss  # noqa: F401

        return "faiss"
    except ImportError:
        return "sklearn"


def _fit(array: np.ndarray, count: int, seed: int, backend: str) -> np.ndarray:
    """Centres (K, D) of k-means over the rows of `array` (N, D)."""
    if backend == "faiss":
        try:
            import faiss
        except ImportError:
            raise UserError("--backend faiss: not here; pip install 'dfdbench[faiss]'") from None
        means = faiss.Kmeans(
            array.shape[1],
            count,
            niter=ROUNDS,
            nredo=STARTS,
            seed=seed,
            min_points_per_centroid=1,
        )
        means.train(np.ascontiguousarray(array))
        return np.asarray(means.centroids)
    try:
        from sklearn.cluster import MiniBatchKMeans
    except ImportError:
        raise UserError(
            "cluster: scikit-learn is not here; pip install 'dfdbench[curate]'"
        ) from None
    fitted = MiniBatchKMeans(count, random_state=seed, batch_size=4096, n_init=STARTS).fit(array)
    return np.asarray(fitted.cluster_centers_, np.float32)


def assign(array: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of the nearest centre and distance to it of each row: int (N,), float64 (N,)."""
    label = np.empty(len(array), int)
    distance = np.empty(len(array))
    lengths = (centres.astype(np.float64) ** 2).sum(1)
    for start in range(0, len(array), ROWS):
        rows = array[start : start + ROWS].astype(np.float64)
        nearest = (lengths - 2 * rows @ centres.T.astype(np.float64)).argmin(1)
        label[start : start + ROWS] = nearest
        distance[start : start + ROWS] = np.linalg.norm(rows - centres[nearest], axis=1)
    return label, distance


def fill_empty(array: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, distances and centres, such that every centre has a row.

    A centre without rows moves to the row that is farthest from its own centre. Where rows are
    alike there may be fewer different ones than centres; centres that stay empty are dropped.

    Args:
        array: (N, D). centres: (K, D).
    """
    centres = np.array(centres, np.float32)
    for _ in range(len(centres)):
        label, distance = assign(array, centres)
        empty = np.setdiff1d(np.arange(len(centres)), label)
        if not len(empty):
            return label, distance, centres
        farthest = np.lexsort((np.arange(len(array)), -distance))[: len(empty)]
        farthest = farthest[distance[farthest] > 0]
        if not len(farthest):
            break
        centres[empty[: len(farthest)]] = array[farthest]
    label, _ = assign(array, centres)
    used = np.unique(label)
    label, distance = assign(array, centres[used])
    return label, distance, centres[used]


def by_size(label: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same clusters numbered by falling size; of equal ones the one with the earlier row."""
    sizes = np.bincount(label, minlength=len(centres))
    first = np.full(len(centres), len(label))
    np.minimum.at(first, label, np.arange(len(label)))
    order = np.lexsort((first, -sizes))
    place = np.empty(len(centres), int)
    place[order] = np.arange(len(centres))
    return place[label], centres[order]
