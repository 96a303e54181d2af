"""Tables and keys of the score store, and how an older store becomes one of today.

Used by store.py, which reads and writes them, and by clip_scores.py (keys).
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from dfdbench.utils.video import Clip

SCHEMA_VERSION = 4
SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS samples (
    suite TEXT NOT NULL, path TEXT NOT NULL, prompt_id TEXT NOT NULL, prompt TEXT, seed INTEGER,
    method TEXT NOT NULL, sha256 TEXT NOT NULL, image TEXT NOT NULL DEFAULT '',
    blocks TEXT NOT NULL DEFAULT '', PRIMARY KEY (suite, path));
CREATE TABLE IF NOT EXISTS scores (
    sha256 TEXT NOT NULL, metric TEXT NOT NULL, version INTEGER NOT NULL, weights TEXT NOT NULL,
    policy TEXT NOT NULL, decoder TEXT NOT NULL, dtype TEXT NOT NULL, device TEXT NOT NULL,
    condition TEXT NOT NULL, value REAL, data BLOB,
    PRIMARY KEY (sha256, metric, version, weights, policy, decoder, dtype, device, condition));
CREATE TABLE IF NOT EXISTS groups (
    suite TEXT NOT NULL, method TEXT NOT NULL, prompt_id TEXT NOT NULL, metric TEXT NOT NULL,
    version INTEGER NOT NULL, value REAL NOT NULL, n INTEGER NOT NULL,
    PRIMARY KEY (suite, method, prompt_id, metric, version));
CREATE TABLE IF NOT EXISTS pooled (
    suite TEXT NOT NULL, method TEXT NOT NULL, reference TEXT NOT NULL, metric TEXT NOT NULL,
    version INTEGER NOT NULL, value REAL NOT NULL, n INTEGER NOT NULL,
    PRIMARY KEY (suite, method, reference, metric));
CREATE TABLE IF NOT EXISTS videos (
    sha256 TEXT PRIMARY KEY, width INTEGER NOT NULL, height INTEGER NOT NULL,
    frames INTEGER NOT NULL, fps REAL NOT NULL);
CREATE TABLE IF NOT EXISTS current (
    metric TEXT PRIMARY KEY, version INTEGER NOT NULL, weights TEXT NOT NULL, policy TEXT NOT NULL,
    dtype TEXT NOT NULL, device TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS failures (
    suite TEXT NOT NULL, path TEXT NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (suite, path));
"""
UPGRADE = """
ALTER TABLE samples ADD COLUMN image TEXT NOT NULL DEFAULT '';
ALTER TABLE scores RENAME TO old_scores;
{schema}
INSERT INTO scores SELECT sha256, metric, version, weights, policy, decoder, dtype, device, '',
    value, data FROM old_scores ORDER BY rowid;
DROP TABLE old_scores;
"""  # from schema 1 or 2, which knew no scores that depend on a prompt or an image
ADD_BLOCKS = "ALTER TABLE samples ADD COLUMN blocks TEXT NOT NULL DEFAULT ''"
"""From schema 3 or older, which knew no causal students."""
NEWEST = """
SELECT s.sha256, s.metric, s.version, s.condition, s.{column} FROM scores s
LEFT JOIN current c USING (metric, version, weights, policy, dtype, device)
WHERE s.{column} IS NOT NULL AND {where}
ORDER BY s.sha256, s.metric, s.condition, c.metric IS NOT NULL, s.version, s.rowid
"""
MERGED = {
    "meta": ("key",),
    "current": ("metric",),
    "samples": ("suite", "path"),
    "failures": ("suite", "path"),
    "videos": ("sha256",),
}  # tables of a shard, and the first columns by which their rows are told apart; scores by Key


class Key(NamedTuple):
    """What makes a score the same score (the score key)."""

    sha256: str
    metric: str
    version: int
    weights: str
    policy: str
    decoder: str
    dtype: str
    device: str
    condition: str = ""


MERGED["scores"] = Key._fields


def condition_of(
    needs: Sequence[str], prompt: str | None, image: str, blocks: str = ""
) -> str | None:
    """What of a sample's condition goes into a score: a short text; None where it lacks it.

    needs: some of "prompt", "image" and "blocks"; "" for none. image: sha256 of the sample's image,
    or "". blocks: as of the sample, or "".
    """
    given = {
        "prompt": hashlib.sha256(prompt.encode()).hexdigest()[:16] if prompt else "",
        "image": image[:16],
        "blocks": blocks,
    }
    parts = [(need, given[need]) for need in needs]
    if not all(value for _, value in parts):
        return None
    return " ".join(f"{need}:{value}" for need, value in parts)


def damage_key(sha256: str) -> str:
    """Where a store's meta says what the decoder reported of a clip that was scored nonetheless."""
    return f"damaged {sha256}"


class Shape(NamedTuple):
    """What a video is, whatever was scored: size in pixels, frames, frames per second."""

    width: int
    height: int
    frames: int
    fps: float

    @classmethod
    def of(cls, clip: Clip) -> "Shape":
        """The shape of a whole clip, whichever of its frames were read."""
        frames, height, width = clip.frames.shape[:3]
        return cls(width, height, clip.total or frames, clip.fps)


class Row(NamedTuple):
    """A sample as the store knows it; `path` is relative to the store's input."""

    suite: str
    path: str
    prompt_id: str
    prompt: str | None
    seed: int | None
    method: str
    sha256: str
    image: str = ""  # sha256 of the picture that it should continue
    blocks: str = ""  # of a causal student's clip, as of a Sample
