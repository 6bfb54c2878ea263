"""Refuse an unfit Python with one clear line, before anything is installed. Must itself run on an old Python."""

import sys

if sys.version_info < (3, 10):  # noqa: UP036
    found = "%d.%d" % sys.version_info[:2]  # noqa: UP031
    sys.exit("asr_distill needs Python 3.10 or newer; this is " + found + ". Try: make PYTHON=python3.11 ...")
try:
    import ensurepip  # noqa: F401
    import venv  # noqa: F401
except ImportError:
    sys.exit("Python's venv module is missing. On Debian: apt-get install python3-venv")
