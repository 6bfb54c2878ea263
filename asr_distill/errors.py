"""What a user can mend: the one exception for it, and words for the operating system's own."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable


class UserError(Exception):
    """Bad input, settings or surroundings: shown as one line, without a traceback, exit code 1.

    The message names the file (or setting) and says how to mend it.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the known name most like `name`, else an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else ""


def describe(error: OSError) -> str:
    """An operating-system error as one line with the file and the mend."""
    name = f"{error.filename}: " if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (f"{name}no space left on the disk; free some room (or give another --exp-dir) and run the same "
                "command again: finished work is kept")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{name}{error.strerror}; check the permissions or give another folder"
    return f"{name}{error.strerror or error}"
