"""The one check of names that become files or folders: arms, runs, prompt ids, suites.

A name from outside is one plain part of a path on any system: it leads nowhere else, is not hidden,
and fits.
"""

import re

from dfdbench.utils.errors import UserError

LONGEST = 200  # bytes: a file system takes 255, temporaries and suffixes need some
_FORBIDDEN = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def check_name(name: str, what: str, longest: int = LONGEST) -> str:
    """`name`, if it can be the name of a file or folder.

    Args:
        what: what has the name, and where, such as "study.toml, arm"; begins the message.
        longest: in bytes of UTF-8.

    Raises:
        UserError: it is empty, too long, hidden, leads elsewhere, or is not to be had everywhere.
    """
    shown = repr(name if len(name) <= 60 else f"{name[:60]}…")
    if match := _FORBIDDEN.search(name):
        reason = f"has the character {match[0]!r}"
    elif not name.strip() or name.startswith((".", " ", "-", "~")) or name.endswith((".", " ")):
        reason = "is empty, or begins or ends with a dot, a space, - or ~"
    elif len(name.encode("utf-8", "replace")) > longest:
        reason = f"is longer than {longest} bytes"
    elif _RESERVED.fullmatch(name):
        reason = "is a device on Windows"
    else:
        return name
    raise UserError(
        f"{what} {shown}: {reason}, so it cannot name a file; take letters, digits, - and _"
    )
