"""One run at a time on an experiment folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from asr_distill.errors import UserError


@contextmanager
def exclusive(folder: Path, mend: str = "give another --exp-dir") -> Iterator[None]:
    """Hold the folder's lock; raises UserError where another living process holds it.

    The kernel frees the lock when its holder dies, however it dies.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    with open(path, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise UserError(f"{folder}: another run (process {holder}) is at work here; wait for it, stop it, "
                            f"or {mend}") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
