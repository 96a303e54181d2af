"""Clips of runs; called, it makes those that a run lacks: `dfdbench.generate(...)`."""

from dfdbench.utils.callable_module import make_callable

make_callable(__name__, "generation", "generate")
