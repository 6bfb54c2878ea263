"""Scripts that go with an export: they need the runtime alone, and not this package."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import soundfile

from asr_distill.errors import UserError
from asr_distill.export.exporter import Heard, Spoken
from asr_distill.files import atomic_path

SCRIPTS = Path(__file__).parent / "scripts"
FILES_AT_ONCE = 200


def copy_scripts(out: Path, target: str) -> None:
    """Copy scripts/TARGET/* into an export, and scripts/shared/*: the checks against its manifest."""
    for path in sorted((*(SCRIPTS / target).iterdir(), *(SCRIPTS / "shared").iterdir())):
        if path.is_file():
            with atomic_path(out / path.name) as temporary:
                shutil.copyfile(path, temporary)


def run_script(directory: Path, speech: Iterable[Spoken], sample_rate: int) -> Iterator[Heard]:
    """What the directory's transcribe.py hears, in a process of its own on one core; speech goes to it as wav files.

    Raises UserError with the script's own words where it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        batch: list[tuple[Spoken, Path]] = []
        for spoken in speech:
            path = Path(folder) / f"{len(batch)}.wav"
            samples = np.clip(np.rint(spoken.samples * 32768.0), -32768, 32767).astype(np.int16)
            soundfile.write(path, samples, sample_rate, subtype="PCM_16")
            batch.append((spoken, path))
            if len(batch) == FILES_AT_ONCE:
                yield from _heard(directory, batch)
                batch = []
        if batch:
            yield from _heard(directory, batch)


def _heard(directory: Path, batch: list[tuple[Spoken, Path]]) -> Iterator[Heard]:
    command = [sys.executable, str(directory / "transcribe.py"), "--json", *(str(path) for _, path in batch)]
    done = subprocess.run(command, capture_output=True, text=True, check=False,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UserError(f"{directory / 'transcribe.py'}: {last}")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    for (spoken, _), line in zip(batch, lines, strict=True):
        yield Heard(spoken.id, tuple(line["text"].split()), float(line["cpu_seconds"]), int(line["peak_bytes"]))
