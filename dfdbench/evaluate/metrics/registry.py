"""The registry of metric families: under which name each is known and in which module it is.

Used by the engine (which computes), by report (names, directions, units) and by `list metrics`. To
add a family, write a file like flicker.py that makes a `FAMILY`, and add its line to FAMILIES; a
family of another package is added by `register`. Importing a family's module must stay cheap:
torch, cv2 and weights are loaded by its `load`, which runs only when a clip needs them.
"""

from collections.abc import Iterable
from functools import cache
from importlib import import_module

from dfdbench.evaluate.metrics.base import Metric, MetricFamily
from dfdbench.generate.suites.base import GENERAL
from dfdbench.utils.errors import unknown_name

_HERE = "dfdbench.evaluate.metrics"
FAMILIES = {
    "colour": f"{_HERE}.colour",
    "flicker": f"{_HERE}.flicker",
    "oracle": f"{_HERE}.oracle",
    "camera": f"{_HERE}.camera",
    "vipe": f"{_HERE}.vipe",
    "effnet_lite2": f"{_HERE}.effnet_lite2",
    "rife39": f"{_HERE}.rife39",
    "dis_flow": f"{_HERE}.dis_flow",
    "brisque": f"{_HERE}.brisque",
    "lpips_alex": f"{_HERE}.lpips_alex",
    "clip_vit_l14": f"{_HERE}.clip_vit_l14",
    "clip_vit_l14_cls": f"{_HERE}.clip_vit_l14_cls",
    "dinov2_l": f"{_HERE}.dinov2_l",
    "dinov3_l": f"{_HERE}.dinov3_l",
    "vbench_subject_consistency": f"{_HERE}.vbench.subject_consistency",
    "vbench_background_consistency": f"{_HERE}.vbench.background_consistency",
    "vbench_aesthetic_quality": f"{_HERE}.vbench.aesthetic_quality",
    "vbench_appearance_style": f"{_HERE}.vbench.appearance_style",
    "vbench_i2v_subject": f"{_HERE}.vbench.i2v_subject",
    "vbench_i2v_background": f"{_HERE}.vbench.i2v_background",
    "vbench_viclip": f"{_HERE}.vbench.viclip",
    "vbench_human_action": f"{_HERE}.vbench.human_action",
    "vbench_motion_smoothness": f"{_HERE}.vbench.motion_smoothness",
    "vbench_dynamic_degree": f"{_HERE}.vbench.dynamic_degree",
    "vbench_static_filter": f"{_HERE}.vbench.static_filter",
    "vbench_imaging_quality": f"{_HERE}.vbench.imaging_quality",
    "vbench_camera_motion": f"{_HERE}.vbench.camera_motion",
    "vbench_bridge": f"{_HERE}.vbench.official",
    "first_frame": f"{_HERE}.first_frame",
    "oracle_i2v": f"{_HERE}.oracle_i2v",
    "drift": f"{_HERE}.drift",
    "seams": f"{_HERE}.seams",
    "oracle_drift": f"{_HERE}.oracle_drift",
    "oracle_ends": f"{_HERE}.oracle_ends",
}  # name in stores and of --metrics -> module of its FAMILY, in the order of tables
FAMILY_NAMES = FAMILIES.keys()  # what the registry holds now


def register(name: str, module: str) -> None:
    """Add a family of another package; `--metrics` and stores know it by its name from now on.

    Args:
        name: that of the family.
        module: dotted path of the module whose `FAMILY` it is; it is imported now.

    Raises:
        ValueError: the family is called otherwise, or its name or one of a metric is taken.
    """
    if FAMILIES.get(name) == module:
        return
    family: MetricFamily = import_module(module).FAMILY
    if family.name != name:
        raise ValueError(f"{module}: its family is called {family.name}, not {name}")
    taken = {metric.name for metric in family.metrics} & set(all_metrics())
    if name in FAMILIES or name == GENERAL or taken:
        names = ", ".join(sorted(taken)) or name
        raise ValueError(f"{module}: {names} exists already; choose another name")
    FAMILIES[name] = module


@cache
def get_family(name: str) -> MetricFamily:
    """The family called `name`; its module is imported now. An unknown one is a UserError."""
    if name not in FAMILIES:
        raise unknown_name("metric family", name, FAMILY_NAMES)
    family: MetricFamily = import_module(FAMILIES[name]).FAMILY
    return family


def families_of(names: Iterable[str]) -> list[str]:
    """The families that a suite or `--metrics` names, each once.

    GENERAL among the names stands for every family whose file says `default=True`.
    """
    chosen: list[str] = []
    for name in names:
        chosen += _default_families() if name == GENERAL else [name]
    return list(dict.fromkeys(chosen))


def _default_families() -> list[str]:
    return [name for name in FAMILY_NAMES if get_family(name).default]


def all_metrics() -> dict[str, Metric]:
    """Every metric by name, in the order of the families."""
    return {m.name: m for family in FAMILY_NAMES for m in get_family(family).metrics}


def get_metric(name: str) -> Metric:
    """The metric called `name`; an unknown name is refused with near ones."""
    metrics = all_metrics()
    if name not in metrics:
        raise unknown_name("metric", name, metrics)
    return metrics[name]
