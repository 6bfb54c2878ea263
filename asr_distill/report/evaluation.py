"""One line for every system, teacher or exported file: tune on one split, decode and score frames on the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from asr_distill.acoustic.accuracy import frame_accuracy
from asr_distill.config import build, to_dict
from asr_distill.decode.decoder import SearchConfig
from asr_distill.decode.search import decode_store
from asr_distill.decode.tune import TuneConfig, tune
from asr_distill.emission import EmissionModel
from asr_distill.features.store import FrameStore
from asr_distill.files import read_json, write_json
from asr_distill.hmm.align import Alignment
from asr_distill.logs import log
from asr_distill.report.results import Role


@dataclass(frozen=True)
class Candidate:
    """A system to be measured. `load` is called only where there is something left to measure."""

    name: str
    role: Role
    load: Callable[[], EmissionModel]
    parameters: int
    bytes: int


@dataclass(frozen=True)
class Split:
    """Frames of a split and (for frame accuracy) what they are aligned to."""

    store: FrameStore
    alignment: Alignment | None = None


@dataclass(frozen=True)
class EvaluationConfig:
    search: SearchConfig
    tune: TuneConfig | None  # None: `search` as it is
    workers: int = 0


def evaluate(candidate: Candidate, graph: Path, tuning: FrameStore | None, splits: Mapping[str, Split],
             config: EvaluationConfig, out: Path, device: torch.device) -> dict[str, Any]:
    """Write out/<name>/<split>/hypotheses.jsonl and out/<name>/system.json (returned); resumable at any moment."""
    directory = out / candidate.name
    record = directory / "system.json"
    if record.is_file():
        return read_json(record)
    model = candidate.load()
    search = config.search
    tuned: dict[str, Any] = {}
    if config.tune is not None and tuning is not None:
        references = {utterance.id: utterance.words for utterance in tuning.utterances}
        result = tune(model, tuning, references, graph, search, config.tune, work=directory / "tune",
                      workers=config.workers, device=device, label=f"{candidate.name}: tuning")
        search, tuned = result.search, result.figures
        log.info("%s: acoustic scale %.3f, insertion penalty %.2f on the tuning split", candidate.name,
                 search.acoustic_scale, search.insertion_penalty)
    facts: dict[str, Any] = {}
    for name, split in splits.items():
        decode_store(model, split.store, graph, search, work=directory / name, workers=config.workers, device=device,
                     label=f"{candidate.name}: {name}")
        facts[name] = {"rtf": read_json(directory / name / "figures.json")["rtf"]}
        if split.alignment is not None and hasattr(model, "log_posteriors"):
            frames = frame_accuracy(model, split.store, split.alignment)  # type: ignore[arg-type]
            facts[name] |= {"frame_accuracy": 100 * frames.accuracy, "cross_entropy": frames.cross_entropy}
    figures = {"name": candidate.name, "role": candidate.role, "parameters": candidate.parameters,
               "bytes": candidate.bytes, "targets": model.num_pdfs, "search": to_dict(search), "tuning": tuned,
               "splits": facts}
    write_json(record, figures)
    return figures


def search_of(record: Mapping[str, Any]) -> SearchConfig:
    """The search settings that a system was decoded with."""
    return build(SearchConfig, record["search"])
