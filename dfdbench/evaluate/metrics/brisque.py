"""BRISQUE, image quality without a reference: about 0 (natural) to 100 (distorted).

Mittal, Moorthy & Bovik, "No-Reference Image Quality Assessment in the Spatial Domain", IEEE TIP
2012. Luma becomes MSCN coefficients (x − μ) / (σ + C), μ and σ under a Gaussian window; asymmetric
generalised Gaussians are fitted to them and to products of neighbours, at full and half size; the
36 numbers go through a support vector regression. Its vectors and the scaling of the numbers are
those of the package brisque, whose values these are; mean over 16 evenly spaced frames. It knows
photographs' noise, blur and compression; animation may lie outside of what it has seen.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from dfdbench.evaluate.metrics.base import Compute, Metric, MetricFamily, Setting
from dfdbench.utils.assets import digest, locate, unusable
from dfdbench.utils.errors import pass_out_of_memory
from dfdbench.utils.pickles import read_plain_pickle
from dfdbench.utils.video import Clip

NUMBERS = 36
GREY = np.array([[0.2125, 0.7154, 0.0721]]) / 255  # the weights that the regression was fitted with
WINDOW, SIGMA = (7, 7), 7 / 6
C = 1 / 255
ROUNDING = 1e-10  # between the errors of float64 and what 8-bit frames can hold
SHAPES = (0.2, 10.0)  # range of the fitted shape parameter, that of the authors' code


class Regression(NamedTuple):
    """Support vectors (V, 36), their coefficients (V,), RBF gamma, rho; low and high (36,)."""

    vectors: np.ndarray
    coefficients: np.ndarray
    gamma: float
    rho: float
    low: np.ndarray
    high: np.ndarray

    def predict(self, numbers: np.ndarray) -> float:
        """Score of raw `numbers` (36,), which low … high brings to −1 … 1."""
        scaled = 2 * (numbers - self.low) / (self.high - self.low) - 1
        distances = np.square(self.vectors - scaled).sum(1)
        return float(self.coefficients @ np.exp(-self.gamma * distances) - self.rho)


def load_regression(folder: Path) -> Regression:
    """The regression from a folder with models/svm.txt (libsvm) and models/normalize.pickle.

    Raises:
        UserError: one of them is no such file.
    """
    model, ranges = folder / "models/svm.txt", folder / "models/normalize.pickle"
    try:
        head, body = model.read_text(encoding="ascii").split("\nSV\n")
        header = dict(line.split(" ", 1) for line in head.splitlines())
        rows = [line.split() for line in body.splitlines()]
        vectors = np.zeros((int(header["total_sv"]), NUMBERS))
        for vector, row in zip(vectors, rows, strict=True):
            for entry in row[1:]:  # "3:-0.25", counted from 1; absent ones are 0
                place, value = entry.split(":")
                vector[int(place) - 1] = float(value)
        if (header["svm_type"], header["kernel_type"]) != ("epsilon_svr", "rbf"):
            raise ValueError("another kind of model")
        coefficients = np.array([float(row[0]) for row in rows])
        gamma, rho = float(header["gamma"]), float(header["rho"])
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise unusable(model, "brisque", "the file of that release") from error
    try:
        scales = read_plain_pickle(ranges)
        low, high = (np.array(scales[key], np.float64).reshape(NUMBERS) for key in ("min_", "max_"))
    except Exception as error:  # a broken pickle raises many kinds; the remedy is the same
        pass_out_of_memory(error)
        raise unusable(ranges, "brisque", "the file of that release") from error
    return Regression(vectors, coefficients, gamma, rho, low, high)


def mscn(grey: np.ndarray) -> np.ndarray:
    """Mean-subtracted contrast-normalised coefficients of luma in [0, 1]: float64 (H, W).

    Outside of the frame is black, as in the package. Flat areas, whose rounding errors have signs
    that the package counts, are exactly 0 here.
    """
    import cv2

    mean = cv2.GaussianBlur(grey, WINDOW, SIGMA, borderType=cv2.BORDER_CONSTANT)
    square = cv2.GaussianBlur(grey * grey, WINDOW, SIGMA, borderType=cv2.BORDER_CONSTANT)
    x = (grey - mean) / (np.sqrt(np.abs(mean * mean - square)) + C)
    x[np.abs(x) < ROUNDING] = 0
    return x


def fit(values: np.ndarray) -> tuple[float, float, float, float]:
    """Asymmetric generalised Gaussian of `values`: shape, mean, left and right variance.

    By moments (the paper's Eqs. 8 to 12). NaN where values lie on one side of 0 only.
    """
    from scipy.optimize import brentq
    from scipy.special import gamma

    values = values.ravel()
    negative = np.minimum(values, 0)
    below = np.count_nonzero(negative)
    if not 0 < below < values.size:
        return (np.nan,) * 4
    energy, energy_below = values @ values, negative @ negative
    left, right = energy_below / below, (energy - energy_below) / (values.size - below)
    if not right > 0:
        return (np.nan,) * 4
    absolute = values.sum() - 2 * negative.sum()
    ratio = np.sqrt(left / right)
    target = absolute**2 / (values.size * energy)
    target *= (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2

    def excess(shape: float) -> float:
        return float(gamma(2 / shape) ** 2 / (gamma(1 / shape) * gamma(3 / shape)) - target)

    low, high = SHAPES
    shape = low if excess(low) > 0 else high if excess(high) < 0 else brentq(excess, low, high)
    spread = gamma(2 / shape) / np.sqrt(gamma(1 / shape) * gamma(3 / shape))
    return shape, float((np.sqrt(right) - np.sqrt(left)) * spread), float(left), float(right)


def statistics(grey: np.ndarray) -> list[float]:
    """The 18 numbers of one size: shape and variance, then four fits of neighbours' products."""
    x = mscn(grey)
    shape, _, left, right = fit(x)
    products = (
        x[:, :-1] * x[:, 1:],
        x[:-1] * x[1:],
        x[:-1, :-1] * x[1:, 1:],
        x[1:, :-1] * x[:-1, 1:],
    )
    return [shape, (left + right) / 2, *(number for p in products for number in fit(p))]


def numbers_of(frame: np.ndarray) -> np.ndarray:
    """The 36 numbers of a uint8 RGB frame (H, W, 3); some NaN where it has no texture at all."""
    import cv2

    grey = cv2.transform(frame.astype(np.float64), GREY)
    half = cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_CUBIC)
    return np.array(statistics(grey) + statistics(half))


def load(setting: Setting) -> Compute:
    """The family's function. Raises MissingWeights or UserError (load_regression)."""
    regression = load_regression(locate("brisque"))

    def compute(clip: Clip) -> dict[str, float]:
        scores = np.array([regression.predict(numbers_of(frame)) for frame in clip.frames])
        defined = scores[np.isfinite(scores)]  # a black frame has no texture and no score
        return {"brisque": float(defined.mean())} if len(defined) else {}

    return compute


FAMILY = MetricFamily(
    "brisque",
    policy="even16",
    metrics=(
        Metric(
            "brisque", "lower", "", (-np.inf, np.inf),
            "Mittal et al. 2012, weights of the package brisque 0.2.0, mean over 16 frames",
            "How far a frame's local contrasts are from those of natural photographs, about 0 "
            "(natural) to 100 (distorted): a regression on 36 statistics, mean over frames.",
        ),
    ),
    load=load,
    find=lambda setting: digest("brisque"),
    dtype="float64",
    min_frames=1,
    default=True,
)  # fmt: skip
