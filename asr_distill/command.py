"""What every command shares: one clear line for a user's mistake, exit codes."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable

from asr_distill.errors import UserError


def guarded(function: Callable[[argparse.Namespace], int | None], arguments: argparse.Namespace) -> int:
    """Run a command; exit code 0, 1 for what the user can mend (one line, no traceback), 130 for Ctrl-C."""
    try:
        return function(arguments) or 0
    except UserError as error:
        return fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted; finished work is kept: the same command goes on from here")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader went away (| head)
        return 1
    except OSError as error:
        return fail(describe(error))


def fail(message: str) -> int:
    print(f"asr-distill: error: {message}", file=sys.stderr)
    return 1


def describe(error: OSError) -> str:
    """An operating-system error as one line with the file and the mend."""
    name = f"{error.filename}: " if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (f"{name}no space left on the disk; free some room (or give another --exp-dir) and run the same "
                "command again: finished work is kept")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{name}{error.strerror}; check the permissions or give another folder"
    return f"{name}{error.strerror or error}"
