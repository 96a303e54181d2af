"""Training of students; called, it trains one: `dfdbench.distill(...)`."""

from dfdbench.utils.callable_module import make_callable

make_callable(__name__, "distillation", "distill")
