"""The one exception that users see, and how other faults become it.

Raised anywhere a user's input is at fault; the command line prints its single line and exits with
code 2. Its text names the file or flag and the remedy. What the disk or the memory refuse becomes
such a line too (`as_user_error`), whatever library raised it.
"""

import difflib
import errno
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

# What moves a terminal's cursor, ends a line, turns the direction of writing, or is no character.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

MOST_NAMES = 40  # that a line offers

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
_NO_MEMORY = re.compile(
    "out of memory|not enough memory|cannot allocate memory|insufficient memory|bad_alloc"
    "|alloc_?failed|DefaultCPUAllocator: can't allocate",
    re.IGNORECASE,
)
_IN_WORDS = ("cv2", "safetensors")  # whose errors name the memory in words alone
_LARGER = "close other programs, or take a machine with more memory"


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
    """An error for an unknown `name` that offers the nearest known ones, else what there is."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3)
    some = ", ".join(known[:MOST_NAMES]) + f" and {len(known) - MOST_NAMES} more" * (
        len(known) > MOST_NAMES
    )
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {some}"
    return UserError(f"unknown {kind} '{name}'; {hint}")


class MissingWeights(UserError):
    """A family's weights are not here; the message names the file and how to get it."""


class OutOfMemory(UserError):
    """An allocation failed. reason: in the words of the library that tried; remedy: as shown."""

    def __init__(self, reason: str, remedy: str = _LARGER) -> None:
        super().__init__(f"out of memory ({reason}); {remedy}")
        self.reason, self.remedy = reason, remedy

    def __reduce__(self) -> tuple[type["OutOfMemory"], tuple[str, str]]:
        return type(self), (self.reason, self.remedy)  # from a process of a study to its parent


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a GPU or the CPU, whatever library said so and how."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, MemoryError | OutOfMemory):
        return True
    if any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):  # torch's
        return True
    in_words = isinstance(error, RuntimeError) or type(error).__module__.split(".")[0] in _IN_WORDS
    return in_words and _NO_MEMORY.search(str(error)) is not None


def pass_out_of_memory(error: BaseException) -> None:
    """Raise `error` again if an allocation failed: first in handlers that would blame a file."""
    if is_out_of_memory(error):
        raise error


@contextmanager
def memory_remedy(remedy: str) -> Iterator[None]:
    """Let a failed allocation in the body be an `OutOfMemory` that says what to lower.

    Of several around one another the outermost counts: it knows the command that was given.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        reason = error.reason if isinstance(error, OutOfMemory) else _in_short(error)
        raise OutOfMemory(reason, remedy) from None


def as_user_error(error: BaseException) -> UserError | None:
    """The one line for a fault of the disk, the memory or a store; None for any other error."""
    if isinstance(error, UserError):
        return error
    if is_out_of_memory(error):
        return OutOfMemory(_in_short(error))
    if isinstance(error, OSError):
        if error.errno is None:
            return UserError(f"{_in_short(error)}; check the path and the disk")
        where = "" if error.filename is None else f"{os.fspath(error.filename)!s}: "
        remedy = _REMEDIES.get(error.errno, "check the path and the disk")
        return UserError(f"{where}{os.strerror(error.errno).lower()}; {remedy}")
    if type(error).__module__ == "sqlite3":
        return UserError(f"score store: {_in_short(error)}; check the file and the disk")
    return None


def _in_short(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
