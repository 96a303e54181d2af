"""Pages from scores; called, it writes one: `dfdbench.report(...)`."""

from dfdbench.utils.callable_module import make_callable

make_callable(__name__, "page", "report")
