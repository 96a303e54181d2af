"""Network definitions that only another package has, loaded from its files and nothing else of it.

Used for AMT-S (vbench) and MUSIQ (pyiqa), whose packages import, at their top, what is not needed
or does not work here. The files are assets with pinned sha256, so no other code is ever run.
"""

import sys
from importlib import import_module
from pathlib import PurePosixPath
from types import ModuleType

from dfdbench.utils.assets import get_asset, locate


def load_definition(asset: str, module: str) -> ModuleType:
    """A module of the asset's package, run without the __init__ of the packages that it lies in.

    Args:
        asset: name of an asset that comes as a package and lists every file that is run.
        module: dotted path inside the package.

    Raises:
        MissingWeights: the package is not installed; the message says how to get it.
        UserError: a file differs from the pinned one.
    """
    folder, pinned = locate(asset), get_asset(asset)
    root = pinned.packages[0].module
    inner = [parent for file in pinned.files for parent in PurePosixPath(file).parents]
    hollow = {p for p in inner if f"{p}/__init__.py" not in pinned.files}
    aside = _take_out(root)
    try:
        for path in hollow:
            name = ".".join((root, *path.parts))
            package = ModuleType(name)
            package.__path__ = [str(folder / path)]
            sys.modules[name] = package
        return import_module(f"{root}.{module}")
    finally:
        _take_out(root)
        sys.modules.update(aside)


def _take_out(root: str) -> dict[str, ModuleType]:
    """Remove a package and all in it from the loaded modules; gives what was removed."""
    names = [name for name in sys.modules if name == root or name.startswith(f"{root}.")]
    return {name: sys.modules.pop(name) for name in names}
