"""A folder of audio that nobody has transcribed, as a manifest: its soft targets teach, no word of it is known."""

from __future__ import annotations

import itertools
import logging
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from lhotse import MonoCut

from asr_distill.corpus.audio import AUDIO_SUFFIXES, check_files
from asr_distill.corpus.layout import CorpusUtterance, Problem, problem_listing
from asr_distill.corpus.manifest import make_cut, write_split
from asr_distill.errors import UserError
from asr_distill.executor import Executor, run_jobs
from asr_distill.progress import Progress

log = logging.getLogger("asr_distill")
_FILES = 50  # of one job


def prepare_untranscribed(folder: Path, out: Path, split: str, *, max_seconds: float = 20.0, sample_rate: int = 16000,
                          workers: int = 1, on_error: Literal["stop", "skip"] = "stop",
                          executor: Executor | None = None) -> dict[str, float | int]:
    """Write out/<split>/cuts.jsonl.gz of all FLAC and WAV files below `folder`; returns hours, utterances, speakers.

    An utterance is a file, named by its path below the folder; recordings longer than `max_seconds` are cut into equal
    pieces FILE@1, FILE@2, ... Files of one folder are taken for one speaker's (a speaker's mean and variance normalise
    what teachers hear); a file at the top is a speaker of its own. Every file is decoded. Raises UserError where there
    is none, or where files are not whole, not mono or of another rate (with on_error "skip" they are left out).
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of untranscribed audio")
    files = sorted(_audio_below(folder))
    if not files:
        raise UserError(f"{folder}: holds no {' or '.join(AUDIO_SUFFIXES)} files")
    jobs = ((str(folder), tuple(files[first:first + _FILES]), sample_rate) for first in range(0, len(files), _FILES))
    cuts: list[MonoCut] = []
    problems: list[Problem] = []
    with Progress(f"{split}: audio checked", len(files), "files") as progress:
        for (_, names, _), found in run_jobs(check_files, jobs, workers=workers, executor=executor):
            for name, facts in zip(names, found, strict=True):
                if facts.problem:
                    problems.append(Problem(str(folder / name), facts.problem))
                else:
                    cuts += _pieces(name, facts.num_samples, sample_rate, max_seconds)
            progress.update(len(names))
    if problems and (on_error == "stop" or not cuts):
        raise UserError(problem_listing(folder, problems, "untranscribed audio", "files"))
    for problem in problems:
        log.warning("left out: %s", problem)
    write_split(out, split, sorted(cuts, key=lambda cut: cut.id))
    return {"hours": round(sum(cut.duration for cut in cuts) / 3600, 4), "utterances": len(cuts),
            "speakers": len({cut.supervisions[0].speaker for cut in cuts})}


def _audio_below(folder: Path) -> Iterator[str]:
    """Relative to it, with forward slashes; hidden files and folders are passed over."""
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.lower().endswith(AUDIO_SUFFIXES) and not name.startswith("."):
                yield (Path(place) / name).relative_to(folder).as_posix()


def _pieces(name: str, num_samples: int, sample_rate: int, max_seconds: float) -> Iterator[MonoCut]:
    """The file as cuts of equal length, none longer than `max_seconds`."""
    path = Path(name)
    own = path.with_suffix("").as_posix()
    speaker = own if path.parent == Path(".") else path.parent.as_posix()
    whole = make_cut(CorpusUtterance(own, speaker, name, ""), num_samples, sample_rate)
    count = math.ceil(num_samples / (max_seconds * sample_rate))
    if count == 1:
        yield whole
        return
    bounds = [num_samples * part // count for part in range(count + 1)]
    for part, (begin, end) in enumerate(itertools.pairwise(bounds), 1):
        piece = whole.truncate(offset=begin / sample_rate, duration=(end - begin) / sample_rate)
        yield piece.with_id(f"{own}@{part}")
