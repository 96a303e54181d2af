"""The site of the leaderboards: static pages, made from the committed entries and their evidence.

render.py writes it, check.py proves it; templates/ and static/ are its own, the style, the tables
and the clock of the clips are those of the report's page (report/web).
"""
