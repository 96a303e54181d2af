"""From a heap of videos to a training set: `dfdbench data curate STAGE`, each stage a file here.

    videos ─► shots ─► caption ─► features ─► cluster ─► grid ─► pick ─► pack ─► data encode

All stages work in one folder. A stage reads the files of those before it and leaves NAME.jsonl (and
arrays) with NAME.json, which says from what, with which settings and versions; see work.py.
"""
