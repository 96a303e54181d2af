"""Leaderboards: entries with provenance and evidence, what is rendered from them, and proof."""
