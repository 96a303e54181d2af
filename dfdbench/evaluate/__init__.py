"""Scores of videos; called, it computes those that are missing: `dfdbench.evaluate(...)`."""

from dfdbench.utils.callable_module import make_callable

make_callable(__name__, "evaluation", "evaluate")
