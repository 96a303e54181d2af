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
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


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


def takes_fields_of(model: type[Any]) -> Callable[[F], F]:
    """For a function with `**options`: its signature names the fields of `model` in their place.

    Args:
        model: a class of keywords with a signature, such as a pydantic model or a dataclass.
    """

    def decorate(function: F) -> F:
        own = inspect.signature(function)
        named = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
        fields = [
            p.replace(kind=p.KEYWORD_ONLY) for p in inspect.signature(model).parameters.values()
        ]
        whole = own.replace(parameters=[*named, *fields])
        function.__signature__ = whole  # type: ignore[attr-defined]
        return function

    return decorate
