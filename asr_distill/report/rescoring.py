"""The second pass of an evaluation: a system's n best weighed anew with the large language model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from asr_distill.decode.decoder import SearchConfig
from asr_distill.decode.rescore import RescoreConfig, read_alternatives, rescore_store, tune_weights
from asr_distill.decode.search import SearchPool, decode_store
from asr_distill.decode.tune import spread
from asr_distill.emission import EmissionModel
from asr_distill.features.store import FrameStore
from asr_distill.files import read_json
from asr_distill.lang.ngram_scorer import NgramScorer
from asr_distill.logs import log
from asr_distill.report.results import RESCORED


@dataclass(frozen=True)
class Rescoring:
    """Which models (folders of saved n-gram models), and how many word sequences of each utterance."""

    small_lm: Path  # that of the graph
    large_lm: Path
    paths: int
    grid: RescoreConfig

    @cached_property
    def models(self) -> tuple[NgramScorer, NgramScorer]:
        return NgramScorer(self.small_lm), NgramScorer(self.large_lm)


def rescore_system(record: Mapping[str, Any], model: EmissionModel, graph: Path, tuning: FrameStore,
                   splits: Iterable[str], utterances: int, config: Rescoring, out: Path,
                   pool: SearchPool, search: SearchConfig, device: torch.device) -> dict[str, Any]:
    """Tune the weights on `utterances` of the tuning split, rescore the others; the rescored system's record.

    `record`: of the first pass, decoded with `config.paths` n best into out/<name>/<split>.
    """
    name = record["name"] + RESCORED
    chosen = spread(range(len(tuning.utterances)), utterances)
    work = out / record["name"] / "tune_nbest"
    decode_store(model, tuning, graph, search, work=work, device=device, utterances=chosen,
                 label=f"{name}: tuning", pool=pool)
    references = {tuning.utterances[i].id: tuning.utterances[i].words for i in chosen}
    weights, figures = tune_weights(read_alternatives(work, *config.models), references, config.grid)
    log.info("%s: acoustic scale %.3f, insertion penalty %.2f, language model weight %.2f on the tuning split", name,
             weights.acoustic_scale, weights.insertion_penalty, weights.lm_weight)
    facts = {}
    for split in splits:
        rescore_store(out / record["name"] / split, *config.models, weights, out=out / name / split)
        facts[split] = {"rtf": read_json(out / name / split / "figures.json")["rtf"]}
    return {**record, "name": name, "tuning": figures, "weights": dataclasses.asdict(weights), "splits": facts,
            "reliability": {}}
