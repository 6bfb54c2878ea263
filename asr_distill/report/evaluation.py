"""One line for every system, teacher or exported file: tune on one split, decode and score frames on the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from asr_distill.acoustic.accuracy import frame_accuracy
from asr_distill.config import build, to_dict
from asr_distill.decode.decoder import SearchConfig
from asr_distill.decode.pools import search_pool
from asr_distill.decode.search import SearchPool, decode_store
from asr_distill.decode.tune import TuneConfig, tune
from asr_distill.emission import EmissionModel
from asr_distill.executor import Executor
from asr_distill.features.store import FrameStore
from asr_distill.files import read_json, write_json
from asr_distill.hmm.align import Alignment
from asr_distill.k2fsa import Backend
from asr_distill.logs import log
from asr_distill.report.rescoring import Rescoring, rescore_system
from asr_distill.report.results import RESCORED, Role


@dataclass(frozen=True)
class Candidate:
    """A system to be measured. `load` is called only where there is something left to measure."""

    name: str
    role: Role
    load: Callable[[], EmissionModel]
    parameters: int
    bytes: int
    like: str = ""  # a system measured before whose tuned search serves this one too
    decoded: bool = True  # false: frame accuracy only
    graph: Path | None = None  # over pdfs of its own; None: the graph of all


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
    rescoring: Rescoring | None = None  # with a tuning split: every decoded system is rescored too
    executor: Executor | None = None  # decodes in place of threads
    backend: Backend = "cpu"  # of the search


def evaluate_all(candidates: Iterable[Candidate], graph: Path, tuning: FrameStore | None,
                 splits: Mapping[str, Split], config: EvaluationConfig, out: Path,
                 device: torch.device) -> dict[str, dict[str, Any]]:
    """Write out/<name>/<split>/hypotheses.jsonl and out/<name>/system.json; name -> the latter's content.

    With `config.rescoring` the same of <name>_large. Resumable at any moment: what is there is not measured again.
    """
    if config.rescoring:
        config = dataclasses.replace(config, search=dataclasses.replace(config.search, nbest=config.rescoring.paths))
    found: dict[str, dict[str, Any]] = {}
    with search_pool(config.workers, config.backend, device, config.executor) as pool:
        for candidate in candidates:
            record = out / candidate.name / "system.json"
            if not record.is_file():
                search = search_of(found[candidate.like]) if candidate.like in found else None
                write_json(record, _evaluate(candidate, graph, tuning, splits, config, search, out, device, pool))
            found[candidate.name] = read_json(record)
            if not (config.rescoring and tuning and config.tune and candidate.decoded):
                continue
            record = out / (candidate.name + RESCORED) / "system.json"
            if not record.is_file():
                write_json(record, rescore_system(
                    found[candidate.name], candidate.load(), candidate.graph or graph, tuning, splits,
                    config.tune.utterances, config.rescoring, out, pool, search_of(found[candidate.name]), device))
            found[candidate.name + RESCORED] = read_json(record)
    return found


def _evaluate(candidate: Candidate, graph: Path, tuning: FrameStore | None, splits: Mapping[str, Split],
              config: EvaluationConfig, search: SearchConfig | None, out: Path, device: torch.device,
              pool: SearchPool) -> dict[str, Any]:
    model, directory, graph = candidate.load(), out / candidate.name, candidate.graph or graph
    tuned: dict[str, Any] = {}
    if search is None and candidate.decoded and config.tune is not None and tuning is not None:
        references = {utterance.id: utterance.words for utterance in tuning.utterances}
        result = tune(model, tuning, references, graph, config.search, config.tune, work=directory / "tune",
                      device=device, label=f"{candidate.name}: tuning", pool=pool)
        search, tuned = result.search, result.figures
        log.info("%s: acoustic scale %.3f, insertion penalty %.2f on the tuning split", candidate.name,
                 search.acoustic_scale, search.insertion_penalty)
    search = search or config.search
    facts: dict[str, Any] = {}
    reliability: dict[str, Any] = {}
    for name, split in splits.items():
        facts[name] = {}
        if candidate.decoded:
            decode_store(model, split.store, graph, search, work=directory / name, device=device,
                         label=f"{candidate.name}: {name}", pool=pool)
            facts[name]["rtf"] = read_json(directory / name / "figures.json")["rtf"]
        if split.alignment is not None and hasattr(model, "log_posteriors"):
            frames = frame_accuracy(model, split.store, split.alignment)  # type: ignore[arg-type]
            facts[name] |= {"frame_accuracy": 100 * frames.accuracy, "cross_entropy": frames.cross_entropy}
            reliability[name] = frames.reliability.to_dict()
    return {"name": candidate.name, "role": candidate.role, "parameters": candidate.parameters,
            "bytes": candidate.bytes, "targets": model.num_pdfs, "search": to_dict(search), "tuning": tuned,
            "decoded": candidate.decoded, "splits": facts, "reliability": reliability}


def search_of(record: Mapping[str, Any]) -> SearchConfig:
    """The search settings that a system was decoded with."""
    return build(SearchConfig, record["search"])
