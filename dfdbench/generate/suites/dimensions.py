"""VBench's dimensions: which there are, and how each enters the totals."""

from typing import NamedTuple


class Dimension(NamedTuple):
    """How a dimension enters the totals.

    low, high: what becomes 0 and 1, not clamped. weight: inside its part. by_frame: the score of
    several clips is the mean over their frames, not over clips.
    """

    low: float = 0.0
    high: float = 1.0
    weight: float = 1.0
    by_frame: bool = False


DIMENSIONS = {
    "subject_consistency": Dimension(0.1462, by_frame=True),
    "background_consistency": Dimension(0.2615, by_frame=True),
    "temporal_flickering": Dimension(0.6293),
    "motion_smoothness": Dimension(0.706, 0.9975),
    "dynamic_degree": Dimension(weight=0.5),
    "aesthetic_quality": Dimension(),
    "imaging_quality": Dimension(),
    "object_class": Dimension(),
    "multiple_objects": Dimension(),
    "human_action": Dimension(),
    "color": Dimension(),
    "spatial_relationship": Dimension(),
    "scene": Dimension(high=0.8222),
    "appearance_style": Dimension(0.0009, 0.2855, by_frame=True),
    "temporal_style": Dimension(high=0.364),
    "overall_consistency": Dimension(high=0.364),
    "i2v_subject": Dimension(0.1462),
    "i2v_background": Dimension(0.2615),
    "camera_motion": Dimension(weight=0.1),
}


T2V, I2V = tuple(DIMENSIONS)[:16], ("i2v_subject", "i2v_background", "camera_motion")


QUALITY, SEMANTIC = T2V[:7], T2V[7:]


I2V_QUALITY = tuple(name for name in QUALITY if name != "temporal_flickering")
