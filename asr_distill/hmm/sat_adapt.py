"""A store's speakers adapted to a speaker-adaptively trained model (Kaldi's align_fmllr.sh and decode_fmllr.sh)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from asr_distill.executor import Executor
from asr_distill.features.store import AdaptedFrames, FrameStore
from asr_distill.hmm.adapt import FmllrConfig, frame_weights, speaker_transform, speaker_utterances
from asr_distill.hmm.align import Alignment, align_store
from asr_distill.hmm.aligner import AlignConfig
from asr_distill.hmm.fmllr import apply_transform
from asr_distill.hmm.model import HmmModel
from asr_distill.hmm.sat import SatModel
from asr_distill.lang.lang import Lang


def adapt_store(sat: SatModel, store: FrameStore, alignment: Alignment, phones: tuple[str, ...], config: FmllrConfig,
                out: Path, device: torch.device) -> FrameStore:
    """Estimate fMLLR for every speaker, write the adapted frames to `out`, and open the store with them.

    The Gaussians' posteriors come from the model for any speaker, or where `store` has adapted frames already from the
    model for those: estimating again on a better alignment. Frames that are not aligned help in no estimate but are
    adapted too.
    """
    source = (sat.adapted if store.adapted else sat.independent).mixtures
    weights = frame_weights(alignment, phones, config.silence_weight)
    result = np.empty((store.num_frames, sat.adapted.frontend.dimension), np.float16)
    for indices in speaker_utterances(store).values():
        utterances = [store.features(index, device) for index in indices]
        base = torch.cat([sat.independent.frontend(utterance) for utterance in utterances])
        seen = torch.cat([u.adapted for u in utterances if u.adapted is not None]) if store.adapted else base
        rows = np.concatenate([np.arange(store.offsets[index], store.offsets[index + 1]) for index in indices])
        transform = speaker_transform(
            sat.adapted.mixtures, base, torch.from_numpy(alignment.pdf_ids[rows].astype(np.int64)).to(device),
            torch.from_numpy(weights[rows]).to(device), config, posterior_mixtures=source, posterior_features=seen)
        result[rows] = apply_transform(base, transform).cpu().numpy()
    out.mkdir(parents=True, exist_ok=True)
    AdaptedFrames.write(out, result)
    return FrameStore(store.directory, out)


def align_adapted(sat: SatModel, store: FrameStore, hmm: HmmModel, lang: Lang, align: AlignConfig,
                  fmllr: FmllrConfig, out: Path, device: torch.device, label: str, *,
                  transcripts: Mapping[str, Sequence[str]] | None = None,
                  executor: Executor | None = None) -> tuple[Alignment, FrameStore]:
    """Align, adapt, align again: the alignment under the adapted model, and the store with adapted frames in `out`."""
    first = align_store(sat.independent, store, hmm, lang, align, device, f"{label}, first pass",
                        transcripts=transcripts, executor=executor)
    store = adapt_store(sat, store, first, hmm.phones, fmllr, out, device)
    return align_store(sat.adapted, store, hmm, lang, align, device, label, transcripts=transcripts,
                       executor=executor), store
