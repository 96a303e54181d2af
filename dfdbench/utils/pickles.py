"""Read a pickle of plain data without running anything that it names.

Used by metric families whose published weights exist as pickles only. Numbers, text, lists, dicts
and numpy arrays come through; every other name in the file is refused.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

# What a numpy array in a pickle names; the first has moved between numpy 1 and 2.
_REBUILD: Any = np.zeros(0).__reduce__()[0]
ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _REBUILD,
    ("numpy._core.multiarray", "_reconstruct"): _REBUILD,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"names {module}.{name}, which is not data") from None


def read_plain_pickle(path: Path) -> Any:
    """The value in the pickle at `path`.

    Raises:
        pickle.UnpicklingError: it names anything but numpy arrays; nothing was run.
        Exception: of many kinds, where the file is no pickle or is cut short.
    """
    with open(path, "rb") as file:
        return _PlainUnpickler(file).load()
