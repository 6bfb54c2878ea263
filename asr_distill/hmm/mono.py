"""Monophone GMM training from a flat start (Kaldi's train_mono.sh)."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asr_distill.config import LATER
from asr_distill.features.cmvn import Cmvn
from asr_distill.features.store import FrameStore
from asr_distill.hmm.flat_start import equal_alignment
from asr_distill.hmm.frontend import Frontend, FrontendConfig
from asr_distill.hmm.gmm import DiagGmm
from asr_distill.hmm.graph import GraphCompiler
from asr_distill.hmm.model import DEFAULT_STATES, HmmModel, monophone_model
from asr_distill.hmm.training import EmConfig, FixedSpace, Trained, train_gmm
from asr_distill.hmm.training_set import TrainingSet, select
from asr_distill.lang.lang import SILENCE_PHONE, Lang


@dataclass(frozen=True)
class MonoConfig(EmConfig):
    """Kaldi's train_mono.sh."""

    utterances: int = 500  # the shortest ones (mini_librispeech: utils/subset_data_dir.sh --shortest); 0: all
    iterations: int = 40
    gaussians: int = 1000
    growth_iterations: int = 30
    realign: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 23, 26, 29, 32, 35, 38)
    states: int = DEFAULT_STATES  # emitting states of every phone
    letter_states: int = field(default=1, metadata=LATER)  # more, for each further letter of a sentencepiece unit
    share_stress: bool = True  # phones that differ in stress or place in the word only share their pdfs
    frontend: FrontendConfig = field(default_factory=FrontendConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.utterances, self.letter_states) < 0 or self.states < 1:
            raise ValueError("utterances and letter_states must not be negative, states at least 1")


def train_mono(store: FrameStore, lang: Lang, config: MonoConfig, work: Path, device: torch.device, *,
               label: str = "mono") -> tuple[HmmModel, DiagGmm, dict[str, Any]]:
    """Train on the store's shortest utterances; the state after each iteration is kept in `work`.

    The same call after a kill goes on from there, to the same result. Figures as `gmm_figures`.
    Raises UserError where no utterance can be aligned.
    """
    started = time.monotonic()
    hmm = monophone_model(lang.phones, states=config.states, letter_states=config.letter_states,
                          share_stress=config.share_stress)
    frontend = Frontend(config.frontend, Cmvn(config.frontend.cmvn, store.total_stats))
    order = [i for i in np.argsort(np.diff(store.offsets), kind="stable").tolist() if store.utterances[i].words]
    data = select(store, GraphCompiler(hmm, lang), order[: config.utterances or None], label)
    flat = data.labels([equal_alignment(graph, length)
                        for graph, length in zip(data.graphs, data.lengths, strict=True)], hmm.num_pdfs)
    space = FixedSpace(data.features(frontend, frontend.dimension, device))
    trained = train_gmm(data, hmm, flat, space, config, work, lang, device, label,
                        first_occupancy=3.0)  # Kaldi: --min-gaussian-occupancy=3 in the first iteration
    gmm = DiagGmm(trained.state.mixtures, frontend)
    return trained.hmm, gmm, gmm_figures(data, trained, gmm, lang) | {"seconds": time.monotonic() - started}


def gmm_figures(data: TrainingSet, trained: Trained, gmm: DiagGmm, lang: Lang) -> dict[str, Any]:
    """utterances, frames, gaussians, pdfs, parameters, log_likelihood_per_frame of every iteration, silence_share,
    failed (ids left out)."""
    silence = trained.state.labels.phone_ids == lang.phones.index(SILENCE_PHONE) + 1
    return {"utterances": len(data.indices), "frames": data.num_frames, "pdfs": trained.hmm.num_pdfs,
            "gaussians": len(gmm.mixtures.weights), "parameters": gmm.parameters,
            "log_likelihood_per_frame": trained.state.log_likelihoods,
            "silence_share": float(silence.mean()), "failed": data.failed}
