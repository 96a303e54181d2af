"""dfdbench: the benchmark for few-step video distillation.

In Python, what the commands of these names do:

    import dfdbench

    run = dfdbench.distill("dfd", seed=1, out="runs/dfd-seed1")
    samples = dfdbench.generate(run, suite="toy-t2v", seeds=[1, 2, 3])
    summary = dfdbench.evaluate([run.path], suite="toy-t2v", seeds=[1, 2, 3])
    page = dfdbench.report([run.path], "report")

`help(dfdbench.evaluate)` says what each takes, gives and raises. Each name is a package too, which
is imported when it is first asked for: `import dfdbench` alone loads no library.
"""

from importlib import import_module
from types import ModuleType

__version__ = "0.1.0"
__all__ = ["distill", "evaluate", "generate", "report"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
