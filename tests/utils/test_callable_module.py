"""Signatures that the four rooms show; tests/test_api.py calls them."""

import inspect

from dfdbench.utils.callable_module import takes_fields_of
from dfdbench.utils.reading import Outside


class Options(Outside):
    """Two options of a function."""

    batch: int = 16
    out: str | None = None


@takes_fields_of(Options)
def work(inputs: list[str], **options: object) -> dict[str, object]:
    """A function that checks its options by a model."""
    return {"inputs": inputs, **options}


def test_a_signature_names_the_fields_of_the_options_model():
    assert str(inspect.signature(work)) == (
        "(inputs: list[str], *, batch: int = 16, out: str | None = None) -> dict[str, object]"
    )
    assert work(["a"], batch=2) == {"inputs": ["a"], "batch": 2}
