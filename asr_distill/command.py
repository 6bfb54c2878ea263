"""What every command shares: one clear line for a user's mistake, exit codes."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from asr_distill.errors import UserError, describe


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
