"""A store's speakers adapted to a speaker-adaptively trained model (Kaldi's align_fmllr.sh and decode_fmllr.sh)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from asr_distill.features.store import AdaptedFrames, FrameStore
from asr_distill.hmm.adapt import FmllrConfig, adapted, frame_weights, speaker_frames, speaker_transform
from asr_distill.hmm.align import Alignment, align_store
from asr_distill.hmm.aligner import AlignConfig
from asr_distill.hmm.model import HmmModel
from asr_distill.hmm.sat import SatModel
from asr_distill.hmm.training import pdf_tensor
from asr_distill.lang.lang import Lang


def adapt_store(sat: SatModel, store: FrameStore, alignment: Alignment, phones: tuple[str, ...], config: FmllrConfig,
                out: Path, device: torch.device) -> FrameStore:
    """Estimate fMLLR for every speaker, write the adapted frames to `out`, and open the store with them.

    The Gaussians' posteriors come from the model for any speaker, or where `store` has adapted frames already from the
    model for those: estimating again on a better alignment. Frames that are not aligned help in no estimate but are
    adapted too.
    """
    frontend = sat.independent.frontend
    base = torch.empty(store.num_frames, frontend.dimension, device=device)
    seen = torch.empty_like(base) if store.adapted else base
    for index in range(len(store.utterances)):
        rows = slice(int(store.offsets[index]), int(store.offsets[index + 1]))
        utterance = store.features(index, device)
        base[rows] = frontend(utterance)
        if utterance.adapted is not None:
            seen[rows] = utterance.adapted
    source = (sat.adapted if store.adapted else sat.independent).mixtures
    pdfs = pdf_tensor(alignment, device).clamp(min=0)  # frames that are not aligned have weight 0
    weights = torch.from_numpy(frame_weights(alignment, phones, config.silence_weight)).to(device)
    speakers = speaker_frames(store)
    transforms = {}
    for speaker, frames in speakers.items():
        own = torch.from_numpy(frames).to(device)
        transforms[speaker] = speaker_transform(
            sat.adapted.mixtures, base[own], pdfs[own], weights[own], config, posterior_mixtures=source,
            posterior_features=seen[own])
    out.mkdir(parents=True, exist_ok=True)
    AdaptedFrames.write(out, adapted(base, speakers, transforms).cpu().numpy())
    return FrameStore(store.directory, out)


def align_adapted(sat: SatModel, store: FrameStore, hmm: HmmModel, lang: Lang, align: AlignConfig,
                  fmllr: FmllrConfig, out: Path, device: torch.device, label: str, *,
                  transcripts: Mapping[str, Sequence[str]] | None = None) -> tuple[Alignment, FrameStore]:
    """Align, adapt, align again: the alignment under the adapted model, and the store with adapted frames in `out`."""
    first = align_store(sat.independent, store, hmm, lang, align, device, f"{label}, first pass",
                        transcripts=transcripts)
    store = adapt_store(sat, store, first, hmm.phones, fmllr, out, device)
    return align_store(sat.adapted, store, hmm, lang, align, device, label, transcripts=transcripts), store
