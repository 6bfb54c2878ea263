"""Any emission model with this package's own search: what exports are held against."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterable, Iterator

import torch

from asr_distill.decode.decoder import Decoder
from asr_distill.emission import EmissionModel
from asr_distill.export.exporter import Heard, Spoken
from asr_distill.export.source import Source
from asr_distill.features.cmvn import UtteranceFeatures
from asr_distill.features.fbank import Fbank


def recognise_here(model: EmissionModel, source: Source, speech: Iterable[Spoken]) -> Iterator[Heard]:
    """Over the source's graph, with its search settings, in this process and on the CPU."""
    fbank, decoder = Fbank(source.features, torch.device("cpu")), Decoder(source.directory, source.search)
    for spoken in speech:
        began = time.process_time()
        frames = fbank([torch.from_numpy(spoken.samples)])[0]
        found = decoder.decode(model.log_likelihoods(UtteranceFeatures(frames)).numpy(), spoken.id)
        spent = time.process_time() - began
        yield Heard(spoken.id, found.words, spent, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
