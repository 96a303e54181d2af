"""The one exception that users see.

Raised anywhere a user's input is at fault; the command line prints its single line and exits with
code 2. Its text names the file or flag and the remedy.
"""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input: one line that names the file or flag, and the remedy."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """An error for an unknown `name` that offers the nearest known ones, else all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
    return UserError(f"unknown {kind} '{name}'; {hint}")


class MissingWeights(UserError):
    """A family's weights are not here; the message names the file and how to get it."""
