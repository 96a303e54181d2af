"""Rooms that are called like the function they are named after: `dfdbench.evaluate(...)`.

Importing `dfdbench.evaluate.store` sets the attribute `evaluate` of `dfdbench` to the room, so the
function of that name cannot stand there; the room is made callable instead. Used by the
`__init__.py` of distill, generate, evaluate and report.
"""

import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any


class CallableModule(ModuleType):
    """A package with the call, signature and documentation of one function of its modules."""

    _home: tuple[str, str]  # module and name of the function, imported when it is first wanted

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        module, name = self._home
        function: Callable[..., Any] = getattr(import_module(module), name)
        return function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__wrapped__(*args, **kwargs)

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        function = self.__wrapped__
        return f"{function.__name__}{inspect.signature(function)}\n\n{inspect.getdoc(function)}"


def make_callable(package: str, module: str, function: str) -> None:
    """Let `package` be called; the call goes to `function` of its module `module`."""
    room = sys.modules[package]
    room.__class__ = CallableModule
    room.__dict__["_home"] = (f"{package}.{module}", function)
