"""The one exception that users see, and how other faults become it.

Raised anywhere a user's input is at fault; the command line prints its single line and exits with
code 2. Its text names the file or flag and the remedy. What the disk or the memory refuse becomes
such a line too (`as_user_error`), whatever library raised it.
"""

import difflib
import errno
import os
import re
from collections.abc import Iterable

# What moves a terminal's cursor, ends a line, turns the direction of writing, or is no character.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

_FULL = "make room there and give the same command again; what was finished is kept"
_FORBIDDEN = "name another place, or change who may write there"
_OTHER_KIND = "what is there is of another kind (a file, or a folder); name another place"
_REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EROFS: "name a place that can be written",
    errno.ENAMETOOLONG: "shorten it",
    errno.EEXIST: _OTHER_KIND,
    errno.ENOTDIR: _OTHER_KIND,
    errno.EISDIR: _OTHER_KIND,
    errno.EMFILE: "raise the limit of open files: ulimit -n 4096",
    errno.EIO: "check the disk, then give the same command again",
}


def clean(text: str) -> str:
    r"""`text` as one line that does nothing to a terminal: control characters as \x1b, \n, …"""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def clean_json(text: str) -> str:
    """JSON text with the same characters as JSON's own escapes; line ends stay."""
    return _CONTROL.sub(lambda c: c[0] if c[0] == "\n" else f"\\u{ord(c[0]):04x}", text)


class UserError(Exception):
    """Bad input: one line that names the file or flag, and the remedy."""

    def __init__(self, message: object) -> None:
        super().__init__(clean(str(message)))


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """An error for an unknown `name` that offers the nearest known ones, else all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
    return UserError(f"unknown {kind} '{name}'; {hint}")


class MissingWeights(UserError):
    """A family's weights are not here; the message names the file and how to get it."""


def as_user_error(error: BaseException) -> UserError | None:
    """The one line for a fault of the disk, the memory or a store; None for any other error."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, OSError):
        if error.errno is None:
            return UserError(f"{_in_short(error)}; check the path and the disk")
        where = "" if error.filename is None else f"{os.fspath(error.filename)!s}: "
        remedy = _REMEDIES.get(error.errno, "check the path and the disk")
        return UserError(f"{where}{os.strerror(error.errno).lower()}; {remedy}")
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        remedy = "take a smaller --batch, optim.batch or number of processes, or a larger machine"
        return UserError(f"out of memory ({_in_short(error)}); {remedy}")
    if type(error).__module__ == "sqlite3":
        return UserError(f"score store: {_in_short(error)}; check the file and the disk")
    return None


def _in_short(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
