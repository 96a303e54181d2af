"""The report's page: one HTML file that plays clips and sorts scores, without a network.

render.py makes it from what page.py gathered; `static` and `templates` hold its style, its scripts
and its parts, which other pages may use too.
"""
